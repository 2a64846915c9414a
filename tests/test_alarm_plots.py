"""Figures of false alarms."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from result_tables import alarms

from oodlib.reports import alarm_plots
from oodlib.reports.style import ID_COLOUR, OOD_COLOUR


@pytest.mark.parametrize("shape", [(2, 8, 8, 1), (2, 32, 32, 3), (2, 64, 64, 3)])
def test_a_frame_has_the_colour_of_the_verdict_and_leaves_the_image_whole(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    framed = alarm_plots.framed(images, np.array([False, True]))
    for of_image, colour in zip(framed, (ID_COLOUR, OOD_COLOUR), strict=True):
        assert np.allclose(of_image[0, 0], np.array(to_rgb(colour)) * 255, atol=1)
        assert (of_image[0] == of_image[0, 0]).all() and (of_image[:, -1] == of_image[0, 0]).all()
    width = np.flatnonzero((framed[0] != framed[0, 0, 0]).any((1, 2)))[0]
    inside = framed[:, width:-width, width:-width]
    factor = inside.shape[1] // shape[1]
    assert (inside[:, ::factor, ::factor] == images).all()


def rendered(figure) -> bool:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return len(buffer.getvalue()) > 1000


def test_the_same_images_have_a_row_for_each_detector_and_a_column_for_each_shift():
    images = [np.zeros((3, 8, 8, 1), np.uint8)] * 4
    verdicts = {name: [np.array([True, False, True])] * 4 for name in ("none", "label_mixup")}
    figure = alarm_plots.same_images_shifted(images, verdicts, ["as it is", "a", "b", "c"], "title")
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["as it is", "a", "b", "c"]
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["no outliers", "", "", "label mixup", "", ""]
    assert rendered(figure)


def test_false_alarms_stand_in_percent_beside_the_level_of_the_threshold():
    table = alarms({"ID test": [0.05], "turned": [0.4]}).query("score == 'cosine'")
    figure = alarm_plots.false_alarms(table, "title")
    axes = figure.axes[0]
    points = np.concatenate([points.get_offsets().data for points in axes.collections])
    assert sorted(points[:, 0].tolist()) == [5, 40]
    assert list(axes.lines[-1].get_xdata()) == [5, 5]
    assert rendered(figure)
