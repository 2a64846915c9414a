"""Pools filled with the candidates that pass a committee's filters."""

from dataclasses import replace

import numpy as np
import pytest
from test_committee import Fixed, draw

from oodlib.errors import InputError
from oodlib.outliers import filters


def levels(pool):
    return pool.images[:, 0, 0, 0].tolist()


def draw_twins(index):
    """The twin of an outlier is five levels lighter, and of the classes 0 and 1 by turns."""
    pool = draw(index)
    return replace(pool, twins=pool.images + 5, twin_labels=np.array(index) % 2)


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


def test_twins_take_the_place_of_the_outliers_that_passed():
    pool, table = filters.fill(draw_twins, 8, Fixed(), distance=(0.5, 0.8), twins="outliers")
    assert levels(pool) == [55, 65, 75, 85] * 2  # of 50 to 80, though one at 85 would not pass itself
    assert pool.label_weights.tolist() == [[0, 1, 0], [1, 0, 0]] * 4  # numbers 5 to 8 and 25 to 28
    assert pool.label_weights.dtype == np.float32
    assert (pool.twins, pool.twin_labels) == (None, None)
    assert table["distance"].tolist() == Fixed().distances(pool.images).tolist()  # is the twins' own


def test_twins_that_take_the_place_of_outliers_have_targets_and_weights_of_their_own():
    pool, table = filters.fill(
        draw_twins, 20, Fixed(), twins="outliers", soft_targets=True, weigh_by_impurity=True
    )
    assert np.array_equal(pool.targets, Fixed().probabilities(pool.images).astype(np.float32))
    assert np.array_equal(pool.loss_weights, filters.impurity_weights(table["confidence"].to_numpy()))


@pytest.mark.parametrize("twins", [None, "id"])
def test_twins_that_are_id_images_stay_beside_their_outliers(twins):
    pool, table = filters.fill(draw_twins, 4, Fixed(), confidence=(0.0, 0.9), twins=twins)
    assert levels(pool) == [100, 110, 120, 130] and pool.twins[:, 0, 0, 0].tolist() == [105, 115, 125, 135]
    assert pool.twin_labels.tolist() == [0, 1, 0, 1] and (table["distance"] >= 1).all()


def test_weights_by_impurity_are_1_on_average_and_proportional_to_1_minus_confidence():
    weights = filters.impurity_weights(np.array([0.9, 0.8, 0.7]))
    assert weights == pytest.approx([0.5, 1.0, 1.5], abs=1e-6)
    pool, table = filters.fill(draw, 20, Fixed(), weigh_by_impurity=True)
    assert np.array_equal(pool.loss_weights, filters.impurity_weights(table["confidence"].to_numpy()))


def test_weights_where_the_committee_is_entirely_sure_are_refused():
    with pytest.raises(InputError, match="entirely sure of every outlier"):
        filters.impurity_weights(np.ones(3))
