"""What a committee says of a pool, and the filters by it."""

import numpy as np
import pandas as pd
import pytest
import torch

from oodlib import presets
from oodlib.detection.detector import Detector
from oodlib.diffusion.denoiser import Denoiser
from oodlib.errors import InputError
from oodlib.images import ImageSet, mean_and_std
from oodlib.outliers import committee as committees
from oodlib.outliers import filters
from oodlib.outliers.pool import OutlierPool
from oodlib.runs import Run

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
    settings = presets.settings(epochs=8, batch_size=30)
    run = Run(str(tmp_path_factory.mktemp("run")))
    return committees.committee(run, settings, TRAIN, VAL)


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
    assert [m.config["seed"] for m in committee.members] == list(committees.COMMITTEE_SEEDS)
    assert {m.config["head"] for m in committee.members} == {"softmax"}
    assert not set(committees.COMMITTEE_SEEDS) & set(presets.settings().seeds)


def test_a_committee_is_trained_once(tmp_path, capsys):
    settings, run = presets.settings(epochs=1, batch_size=30), Run(str(tmp_path / "run"))
    first = committees.committee(run, settings, TRAIN, VAL)
    capsys.readouterr()
    again = committees.committee(run, settings, TRAIN, VAL)
    assert capsys.readouterr().out.count("is kept") == 3
    assert np.array_equal(first.probabilities(VAL.images), again.probabilities(VAL.images))


def test_a_committee_of_other_classes_is_refused():
    member = Detector("resnet_small", "softmax", ("a", "b", "c"), (8, 8, 1), *mean_and_std(TRAIN.images))
    with pytest.raises(InputError, match=r"the committee has classes \['a', 'b', 'c'\], the images"):
        committees.Committee.of((member,), TRAIN, VAL)


def test_a_pool_of_another_number_of_classes_is_refused(committee):
    pool = OutlierPool(VAL.images[:2], np.ones((2, 5), np.float32))
    with pytest.raises(InputError, match="the pool mixes 5 classes, the committee knows 3"):
        committees.purity(pool, committee)


def test_kinds_are_a_parent_another_class_and_in_between():
    pool = OutlierPool(images([20, 20, 150]), np.array([[1, 1, 0], [0, 1, 1], [1, 1, 0]], np.float32))
    table = committees.purity(pool, Fixed())
    assert table["kind"].tolist() == list(committees.KINDS)
    assert table["classes"].tolist() == ["dark + grey", "grey + light", "dark + grey"]
    assert table["predicted"].tolist() == ["dark"] * 3
    assert table["confidence"].tolist() == [0.99, 0.99, 0.5]


def test_shares_of_the_kinds_add_up_to_1_in_each_group():
    table = pd.DataFrame(
        {"classes": ["a", "a", "b", "b"], "kind": ["parent", "in between", "parent", "parent"]}
    )
    shares = committees.shares(table, ["classes"])
    assert shares.loc["a"].tolist() == [0.5, 0, 0.5] and shares.loc["b"].tolist() == [1, 0, 0]


def test_the_pair_matrix_is_symmetric_and_empty_where_no_pair_was_mixed():
    table = pd.DataFrame({"classes": ["dark + grey"] * 4, "kind": ["in between", *["parent"] * 3]})
    matrix = committees.pair_matrix(table, NAMES)
    assert matrix.loc["dark", "grey"] == matrix.loc["grey", "dark"] == 0.25
    assert matrix.isna().sum().sum() == 7


def test_by_mode_and_weight_has_each_pair_of_each_mode_and_weight():
    denoiser = Denoiser(NAMES, (8, 8, 1), block_out_channels=(8, 16))
    table = committees.by_mode_and_weight(denoiser, Fixed(), [0.2, 0.5], num_inference_steps=1)
    assert (table.groupby(["mix", "weight", "classes"]).size() == 2).all() and len(table) == 3 * 2 * 3 * 2


def levels(pool):
    return pool.images[:, 0, 0, 0].tolist()


def test_without_a_filter_the_pool_is_what_is_drawn_first():
    pool, table = filters.fill(draw, 5, Fixed())
    assert levels(pool) == [0, 10, 20, 30, 40] and len(table) == 5


def test_a_confidence_window_draws_until_the_pool_is_full(capsys):
    pool, table = filters.fill(draw, 30, Fixed(), confidence=(0.0, 0.9))
    assert len(pool) == 30 and min(levels(pool)) >= 100
    assert table["confidence"].max() <= 0.9
    assert (
        "30 drawn, 66.7% pass the filter, 20 of 30" not in capsys.readouterr().out
    )  # levels repeat after 20


def test_a_distance_window_keeps_what_lies_in_it():
    pool, table = filters.fill(draw, 10, Fixed(), distance=(0.5, 0.8))
    assert set(levels(pool)) == {50, 60, 70, 80} and table["distance"].between(0.5, 0.8).all()


def test_keep_share_keeps_those_of_lowest_confidence():
    pool, table = filters.fill(draw, 10, Fixed(), keep_share=0.5)
    assert levels(pool) == list(range(100, 200, 10)) and (table["confidence"] == 0.5).all()


def test_a_filter_tells_how_far_it_is(capsys):
    filters.fill(draw, 4, Fixed(), confidence=(0.0, 0.9))
    assert capsys.readouterr().out.splitlines()[0] == "4 drawn, 0.0% pass the filter, 0 of 4"


@pytest.mark.parametrize("count, drawn", [(4, 400), (300, 600), (500, 500)])
def test_an_impossible_filter_is_given_up_soon_with_the_share_that_passed(count, drawn):
    told = (
        rf"of {drawn} candidates 0.00% pass confidence \(0.0, 0.1\) .* the pool needs {count}; widen a window"
    )
    with pytest.raises(InputError, match=told):
        filters.fill(draw, count, Fixed(), confidence=(0.0, 0.1))


def test_a_source_with_fewer_images_than_asked_for_makes_a_smaller_pool():
    pool, _ = filters.fill(lambda index: draw(range(index.start, min(index.stop, 7))), 20, Fixed())
    assert len(pool) == 7


@pytest.mark.parametrize("count", [0, 1])
def test_a_pool_of_no_image_or_one_is_refused(count):
    with pytest.raises(InputError, match="is too small; ask for 2 or more"):
        filters.fill(draw, count, Fixed())


def test_soft_targets_are_the_committees_probabilities():
    pool, _ = filters.fill(draw, 20, Fixed(), soft_targets=True)
    assert np.array_equal(pool.targets, Fixed().probabilities(pool.images).astype(np.float32))


def test_weights_by_impurity_are_1_on_average_and_proportional_to_1_minus_confidence():
    weights = filters.impurity_weights(np.array([0.9, 0.8, 0.7]))
    assert weights == pytest.approx([0.5, 1.0, 1.5], abs=1e-6)
    pool, table = filters.fill(draw, 20, Fixed(), weigh_by_impurity=True)
    assert np.array_equal(pool.loss_weights, filters.impurity_weights(table["confidence"].to_numpy()))


def test_weights_where_the_committee_is_entirely_sure_are_refused():
    with pytest.raises(InputError, match="entirely sure of every outlier"):
        filters.impurity_weights(np.ones(3))


def test_distances_are_to_the_nearest():
    found = committees._nearest(torch.tensor([[0.0], [4.0]]), torch.tensor([[1.0], [3.5]]))
    assert found.tolist() == [1.0, 0.5]
