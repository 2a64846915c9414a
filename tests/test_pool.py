"""A pool of outliers: its parts, and its file."""

import numpy as np
import pytest

from oodlib.datasets.loading import load
from oodlib.outliers.pool import OutlierPool, joined

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)
WEIGHTS = np.eye(4, 3, dtype=np.float32)
TARGETS = np.full((4, 3), 1 / 3, np.float32)
LOSS_WEIGHTS = np.array([0, 1, 1, 2], np.float32)
PLAIN, FULL = OutlierPool(IMAGES, WEIGHTS), OutlierPool(IMAGES, WEIGHTS, TARGETS, LOSS_WEIGHTS)


def same(one, other):
    return all(
        np.array_equal(a, b) if a is not None else b is None
        for a, b in zip(vars(one).values(), vars(other).values(), strict=True)
    )


@pytest.mark.parametrize("pool", [PLAIN, FULL], ids=["plain", "with targets and weights"])
def test_a_saved_pool_is_the_same_when_read_back_and_the_only_file(pool, tmp_path):
    pool.save(tmp_path / "pool.npz")
    assert same(OutlierPool.load(tmp_path / "pool.npz"), pool)
    assert [path.name for path in tmp_path.iterdir()] == ["pool.npz"]


def test_a_saved_pool_is_loaded_as_an_image_set(tmp_path):
    FULL.save(tmp_path / "pool.npz")
    assert np.array_equal(load(str(tmp_path / "pool.npz")).images, IMAGES)


def test_taking_some_takes_their_targets_and_weights_too():
    some = FULL.take(np.array([True, False, False, True]))
    assert (
        same(some, OutlierPool(IMAGES[[0, 3]], WEIGHTS[[0, 3]], TARGETS[[0, 3]], LOSS_WEIGHTS[[0, 3]]))
        and len(some) == 2
    )
    assert PLAIN.take(slice(2)).targets is None


def test_two_parts_join_to_the_whole():
    assert same(joined([PLAIN.take(slice(0, 1)), PLAIN.take(slice(1, 4))]), PLAIN)


def test_exposure_names_the_arguments_of_training():
    assert FULL.exposure == dict(outliers=IMAGES, outlier_targets=TARGETS, outlier_loss_weights=LOSS_WEIGHTS)
