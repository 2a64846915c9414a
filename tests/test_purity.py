"""What a committee says of a pool."""

import numpy as np
import pandas as pd
import pytest
from test_committee import NAMES, VAL, Fixed, committee, images

from oodlib.diffusion.denoiser import Denoiser
from oodlib.errors import InputError
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


@pytest.fixture(scope="module")
def generator():
    denoiser = Denoiser(NAMES, (8, 8, 1), DenoiserModel(block_out_channels=(8, 16)))
    return purity.generator_table(denoiser, Fixed(), VAL, 4, num_inference_steps=1).set_index("images")


def test_the_generator_is_judged_by_samples_of_each_class_beside_validation_images(generator):
    assert generator.loc["samples of one class", "count"] == 4 * len(NAMES)
    right = (Fixed().probabilities(VAL.images).argmax(1) == VAL.labels).mean()
    assert generator.loc["validation images"].tolist() == [len(VAL.images), right]


def test_an_untrained_generator_draws_no_class(generator):
    assert generator.loc["samples of one class", "accuracy"] < 0.7


@pytest.mark.parametrize(("accuracy", "is_under_trained"), [(0.849, True), (0.85, False)])
def test_a_generator_is_under_trained_below_85_percent(accuracy, is_under_trained):
    table = pd.DataFrame({"images": ["samples", "val"], "count": [200, 300], "accuracy": [accuracy, 0.9]})
    text = purity.generator_text(table)
    assert text.startswith("**Under-trained generator.**") is is_under_trained
    assert "of 200 samples of one class to their class, and 90.0% of 300 validation images to theirs." in text


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
