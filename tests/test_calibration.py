"""Calibration: how far probabilities can be believed."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from oodlib.detection.calibration import expected_calibration_error, fit_temperature, tempered

LOGITS = np.random.default_rng(0).normal(0, 3, (400, 5))
DRAWN = np.array([np.random.default_rng(i).choice(5, p=p) for i, p in enumerate(softmax(LOGITS, axis=1))])


def test_the_calibration_error_is_that_of_bins_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.7, 0.3], [0.0, 1.0]])  # right, wrong, right, right
    expected = (abs((1 - 0.9) + (0 - 0.9)) + (1 - 0.7) + (1 - 1.0)) / 4  # the first two share a bin
    assert expected_calibration_error(probabilities, [0, 0, 0, 1]) == pytest.approx(expected)


def test_a_bin_of_the_calibration_error_holds_its_upper_end():
    # Of 15 bins 0.6 ends one and 0.65 is in the next: a right and a wrong one do not cancel.
    assert expected_calibration_error([[0.6, 0.4], [0.65, 0.35]], [0, 1]) == pytest.approx((0.4 + 0.65) / 2)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 2.5])
def test_tempered_probabilities_are_those_of_divided_logits(temperature):
    expected = softmax(LOGITS / temperature, axis=1)
    np.testing.assert_allclose(tempered(softmax(LOGITS, axis=1), temperature), expected, rtol=1e-9)


def test_a_probability_of_0_stays_0():
    assert tempered([[1.0, 0.0]], 3.0).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("too_sure", [0.3, 1.0, 3.0])
def test_the_temperature_of_logits_that_are_too_sure_is_found(too_sure):
    probabilities = softmax(too_sure * LOGITS, axis=1)  # labels are drawn by those at 1
    assert fit_temperature(probabilities, DRAWN) == pytest.approx(too_sure, rel=0.15)


def test_the_temperature_is_where_torch_finds_the_least_cross_entropy():
    probabilities = softmax(2 * LOGITS, axis=1)
    grid = np.linspace(1.5, 2.5, 201)
    losses = [
        torch.nn.functional.cross_entropy(torch.tensor(2 * LOGITS / t), torch.tensor(DRAWN)).item()
        for t in grid
    ]
    assert fit_temperature(probabilities, DRAWN) == pytest.approx(grid[np.argmin(losses)], abs=0.01)


def test_a_temperature_mends_the_calibration_error_and_no_prediction():
    probabilities = softmax(3 * LOGITS, axis=1)
    mended = tempered(probabilities, fit_temperature(probabilities, DRAWN))
    before, after = (expected_calibration_error(p, DRAWN) for p in (probabilities, mended))
    assert after < before / 2 and (mended.argmax(1) == probabilities.argmax(1)).all()


def test_labels_that_are_all_right_or_all_impossible_have_a_finite_temperature():
    sure = np.eye(3)
    assert np.isfinite([fit_temperature(sure, [0, 1, 2]), fit_temperature(sure, [1, 2, 0])]).all()
