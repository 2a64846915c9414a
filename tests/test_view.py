"""How the explorer shows pictures and words, without its widgets."""

import io

import numpy as np
import pytest
from PIL import Image

from oodlib.explorer.state import State
from oodlib.explorer.view import label_in_words, line, marks, png, row, sheet, tint


def test_a_sheet_leaves_a_transparent_gap():
    images = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8, 1)
    found = sheet(images, 2)
    assert found.shape == (17, 17, 4)
    assert np.array_equal(found[:8, 9:, :3], np.repeat(images[1], 3, axis=2))
    assert np.array_equal(found[9:, :8, :3], np.repeat(images[2], 3, axis=2))
    assert (found[8] == 0).all() and (found[:, 8] == 0).all() and (found[9:, 9:] == 0).all()
    assert (found[:8, :8, 3] == 255).all()


def test_a_sheet_of_rgb_keeps_its_colours():
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    assert np.array_equal(sheet(images, 2)[:, :16, :3], images[0])


def test_a_png_enlarges_each_pixel_to_a_square():
    given = np.random.default_rng(0).integers(0, 256, (3, 5, 4), np.uint8)
    found = np.asarray(Image.open(io.BytesIO(png(given, 4))))
    assert np.array_equal(found, given.repeat(4, axis=0).repeat(4, axis=1))


def test_a_row_is_a_sheet_of_one_row():
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    assert row(images) == png(sheet(images, 5))


def test_a_line_is_escaped_and_shows_whole_where_the_mouse_rests():
    assert line('a < "b"', "oodlib-error") == (
        '<div class="oodlib-line oodlib-error" title="a &lt; &quot;b&quot;">a &lt; &quot;b&quot;</div>'
    )


@pytest.mark.parametrize(
    "weights, words",
    [
        ((0.0, 0.0, 0.0), "All weights are 0: no class, the unconditional sample"),
        ((1.0, 0.0, 1.0), "convex: the denoiser is given a: 0.50, c: 0.50"),
    ],
)
def test_label_weights_in_words(weights, words):
    assert label_in_words(State(class_names=("a", "b", "c"), weights=weights, mix="convex")) == words


def test_marks_stand_on_the_axis_and_never_beyond_it():
    bars = marks(np.array([-9.0, 1.5, 9.0]), (1.0, 2.0, 0.2, 0.6))
    assert [part.split("%")[0] for part in bars.split("calc(")[1:]] == ["20.00", "40.00", "60.00"]


def test_a_tint_goes_from_nearly_white_to_the_colour():
    assert (tint("#0072B2", 0), tint("#0072B2", 1)) == ("#d9eaf3", "#0072b2")
