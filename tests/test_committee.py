"""A committee of classifiers: its members, probabilities and distances."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from oodlib import presets, steps
from oodlib.detection.detector import Detector
from oodlib.errors import InputError
from oodlib.images import ImageSet, mean_and_std
from oodlib.outliers.committee import Committee, _nearest
from oodlib.outliers.pool import OutlierPool
from oodlib.runs import Run
from oodlib.settings import DetectorModel

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("dark", "grey", "light")


def images(levels, seed=0):
    """Images of these grey levels and a little noise."""
    noise = np.random.default_rng(seed).integers(-9, 10, (len(levels), 8, 8, 1))
    return (np.asarray(levels)[:, None, None, None] + noise).clip(0, 255).astype(np.uint8)


LABELS = np.arange(90) % 3
TRAIN = ImageSet(images(np.array([20, 120, 220])[LABELS]), LABELS, NAMES)
VAL = ImageSet(images(np.array([20, 120, 220])[LABELS[:30]], seed=1), LABELS[:30], NAMES)


class Fixed:
    """A committee whose probabilities follow from an image's grey level: sure below 100, else in between."""

    class_names = NAMES
    members = property(lambda self: (self,))

    def probabilities(self, images):
        level = images.reshape(len(images), -1).mean(1)
        top = np.where(level < 100, 0.99, 0.5)
        return np.stack([top, (1 - top) / 2, (1 - top) / 2], axis=1)

    def distances(self, images):
        return images.reshape(len(images), -1).mean(1) / 100


def draw(index):
    """Outlier i has grey level 10 i modulo 200, and mixes the first two classes."""
    levels = [10 * i % 200 for i in index]
    weights = np.tile(np.array([1, 1, 0], np.float32), (len(levels), 1))
    return OutlierPool(np.tile(np.array(levels, np.uint8)[:, None, None, None], (1, 8, 8, 1)), weights)


@pytest.fixture(scope="module")
def committee(tmp_path_factory):
    run = Run(str(tmp_path_factory.mktemp("run")))
    return steps.committee(run, presets.make_settings(committee_epochs=34), TRAIN, VAL)


def test_the_committee_knows_its_classes_and_is_unsure_of_what_lies_between(committee):
    assert (committee.probabilities(VAL.images).argmax(1) == VAL.labels).all()
    sure = committee.probabilities(VAL.images).max(1).mean()
    assert committee.probabilities(images([70, 170] * 10)).max(1).mean() < sure - 0.05


def test_a_validation_image_is_typically_at_distance_1_and_a_training_image_at_0(committee):
    assert np.median(committee.distances(VAL.images)) == pytest.approx(1, abs=0.15)
    assert committee.distances(TRAIN.images).max() == pytest.approx(0, abs=0.02)


def test_strange_images_are_far_away(committee):
    noise = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1), np.uint8)
    assert committee.distances(noise).min() > 3


def test_the_committee_is_three_softmax_classifiers_of_seeds_of_their_own(committee):
    assert [m.config["seed"] for m in committee.members] == [1001, 1002, 1003]
    assert {m.config["head"] for m in committee.members} == {"softmax"}
    assert not set(presets.make_settings().committee_seeds) & set(presets.make_settings().seeds)


def test_a_committee_is_trained_once(tmp_path, capsys):
    settings, run = presets.make_settings(committee_epochs=2), Run(str(tmp_path / "run"))
    first = steps.committee(run, settings, TRAIN, VAL)
    capsys.readouterr()
    again = steps.committee(run, settings, TRAIN, VAL)
    assert capsys.readouterr().out.count("is kept") == 3
    assert np.array_equal(first.probabilities(VAL.images), again.probabilities(VAL.images))


def test_a_committee_of_other_classes_is_refused():
    member = Detector(
        ("a", "b", "c"),
        (8, 8, 1),
        *mean_and_std(TRAIN.images),
        DetectorModel(backbone="resnet_small", head="softmax"),
    )
    with pytest.raises(InputError, match=r"the committee has classes \['a', 'b', 'c'\], the images"):
        Committee.of((member,), TRAIN, VAL)


def test_its_fingerprint_changes_with_its_members_and_with_what_is_typical(committee):
    others = (
        replace(committee, members=committee.members[:2]),
        replace(committee, typical_distance=(1.0, 1.0, 1.0)),
    )
    assert len({committee.fingerprint(), *(other.fingerprint() for other in others)}) == 3
    assert replace(committee).fingerprint() == committee.fingerprint()


def test_distances_are_to_the_nearest():
    found = _nearest(torch.tensor([[0.0], [4.0]]), torch.tensor([[1.0], [3.5]]))
    assert found.tolist() == [1.0, 0.5]
