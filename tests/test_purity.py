"""What a committee says of a pool."""

import numpy as np
import pandas as pd
import pytest
from test_committee import NAMES, VAL, Fixed, committee, images

from oodlib.diffusion.denoiser import Denoiser
from oodlib.errors import InputError
from oodlib.images import ImageSet
from oodlib.outliers import purity
from oodlib.outliers.pool import OutlierPool
from oodlib.settings import DenoiserModel

__all__ = ["committee"]  # a fixture


def test_a_pool_of_another_number_of_classes_is_refused(committee):
    pool = OutlierPool(VAL.images[:2], np.ones((2, 5), np.float32))
    with pytest.raises(InputError, match="the pool mixes 5 classes, the committee knows 3"):
        purity.purity(pool, committee)


def test_verdicts_are_a_parent_another_class_and_in_between():
    pool = OutlierPool(images([20, 20, 150]), np.array([[1, 1, 0], [0, 1, 1], [1, 1, 0]], np.float32))
    table = purity.purity(pool, Fixed())
    assert table["verdict"].tolist() == list(purity.VERDICTS)
    assert table["classes"].tolist() == ["dark + grey", "grey + light", "dark + grey"]
    assert table["predicted"].tolist() == ["dark"] * 3
    assert table["confidence"].tolist() == [0.99, 0.99, 0.5]


@pytest.mark.parametrize(("moved", "accuracy"), [(0, 1.0), (1, 0.0)])
def test_samples_are_right_that_the_committee_takes_for_the_class_they_are_drawn_for(
    moved, accuracy, monkeypatch
):
    levels = np.array([20, 100, 150])  # of the three classes of `NAMES`

    def draw(denoiser, weights, **sampling):
        drawn = (weights.argmax(1).numpy() + moved) % len(NAMES)
        return images(levels[drawn])

    class ByLevel:
        def probabilities(self, some):
            return np.eye(len(NAMES))[np.abs(some.mean((1, 2, 3))[:, None] - levels).argmin(1)]

    monkeypatch.setattr(purity, "sample", draw)
    val = ImageSet(images([20, 100, 150, 150]), np.array([0, 1, 2, 0]), NAMES)
    table = purity.generator_table(None, ByLevel(), val, 4)
    assert table.to_numpy().tolist() == [
        ["samples of one class", 4 * len(NAMES), accuracy],
        ["validation images", 4, 0.75],
    ]


@pytest.mark.parametrize(
    ("accuracy", "of_val", "start"),
    [
        (0.849, 0.85, "**Under-trained generator.** The committee"),
        (0.85, 0.85, "The committee"),
        (0.7, 0.8, "**Generator not judged.** The committee"),
        (0.9, 0.8, "The committee"),
    ],
)
def test_a_generator_is_under_trained_below_85_percent_where_the_committee_is_above(accuracy, of_val, start):
    table = pd.DataFrame({"images": ["samples", "val"], "count": [200, 300], "accuracy": [accuracy, of_val]})
    text = purity.generator_text(table)
    assert text.startswith(
        f"{start} assigns {accuracy:.1%} of 200 samples of one class to their class, and {of_val:.1%} "
    )


def test_shares_of_the_verdicts_add_up_to_1_in_each_group():
    table = pd.DataFrame(
        {"classes": ["a", "a", "b", "b"], "verdict": ["parent", "in between", "parent", "parent"]}
    )
    shares = purity.shares(table, ["classes"])
    assert shares.loc["a"].tolist() == [0.5, 0, 0.5] and shares.loc["b"].tolist() == [1, 0, 0]


def test_the_pair_matrix_is_symmetric_and_empty_where_no_pair_was_mixed():
    table = pd.DataFrame({"classes": ["dark + grey"] * 4, "verdict": ["in between", *["parent"] * 3]})
    matrix = purity.pair_matrix(table, NAMES)
    assert matrix.loc["dark", "grey"] == matrix.loc["grey", "dark"] == 0.25
    assert matrix.isna().sum().sum() == 7


def test_by_mode_and_weight_has_each_pair_of_each_mode_and_weight():
    denoiser = Denoiser(NAMES, (8, 8, 1), DenoiserModel(block_out_channels=(8, 16)))
    table = purity.by_mode_and_weight(denoiser, Fixed(), [0.2, 0.5], num_inference_steps=1)
    assert (table.groupby(["mix", "weight", "classes"]).size() == 2).all() and len(table) == 3 * 2 * 3 * 2
