"""What tells outliers from ID images besides content."""

import numpy as np
import pytest
from scipy import ndimage

from oodlib import datasets
from oodlib.outliers.nuisances import STATISTICS, nuisance_auroc, statistics

DIGITS = datasets.load("digits", "train").images


def test_statistics_of_a_flat_image_are_its_level_and_0():
    flat = np.full((1, 8, 8, 3), 40, np.uint8)
    assert dict(zip(STATISTICS, statistics(flat)[0], strict=True)) == {
        "mean": 40,
        "deviation": 0,
        "sharpness": 0,
        "background": 40,
        "noise": 0,
    }


def test_sharpness_is_scipys_laplacian():
    image = DIGITS[0, ..., 0].astype(float)
    expected = np.abs(ndimage.laplace(image)[1:-1, 1:-1]).mean()
    assert statistics(DIGITS[:1])[0, STATISTICS.index("sharpness")] == pytest.approx(expected)


def test_images_of_one_kind_are_not_told_apart():
    assert 0.4 < nuisance_auroc(DIGITS[::2], DIGITS[1::2]) < 0.6


def test_softer_images_are_told_apart_and_less_so_once_both_are_degraded():
    soft = ndimage.gaussian_filter(DIGITS[::2].astype(float), (0, 0.5, 0.5, 0)).astype(np.uint8)
    plain, degraded = (nuisance_auroc(soft, DIGITS[1::2], strength) for strength in (0.0, 1.0))
    assert plain > 0.95 and degraded < plain - 0.15


def test_it_is_the_same_each_time():
    assert nuisance_auroc(DIGITS[:60], DIGITS[60:160], 1.0) == nuisance_auroc(
        DIGITS[:60], DIGITS[60:160], 1.0
    )
