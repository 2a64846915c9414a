"""A pool of outliers: its parts, and its file."""

import inspect
from dataclasses import replace

import numpy as np
import pytest

from oodlib.datasets.loading import load
from oodlib.detection.train import fit_detector
from oodlib.errors import InputError
from oodlib.outliers.pool import OutlierPool, joined

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)
WEIGHTS = np.eye(4, 3, dtype=np.float32)
TARGETS = np.full((4, 3), 1 / 3, np.float32)
LOSS_WEIGHTS = np.array([0, 1, 1, 2], np.float32)
TWINS, TWIN_LABELS = 255 - IMAGES, np.array([2, 0, 1, 0])
PLAIN, FULL = OutlierPool(IMAGES, WEIGHTS), OutlierPool(IMAGES, WEIGHTS, TARGETS, LOSS_WEIGHTS)
TWINNED = OutlierPool(IMAGES, WEIGHTS, twins=TWINS, twin_labels=TWIN_LABELS)


def same(one, other):
    return all(
        np.array_equal(a, b) if a is not None else b is None
        for a, b in zip(vars(one).values(), vars(other).values(), strict=True)
    )


@pytest.mark.parametrize(
    "pool", [PLAIN, FULL, TWINNED], ids=["plain", "with targets and weights", "with twins"]
)
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


def test_taking_some_takes_their_twins_too():
    some = TWINNED.take([3, 1])
    assert np.array_equal(some.twins, TWINS[[3, 1]]) and some.twin_labels.tolist() == [0, 0]


@pytest.mark.parametrize(
    "pool", [PLAIN, FULL, TWINNED], ids=["plain", "with targets and weights", "with twins"]
)
def test_two_parts_join_to_the_whole(pool):
    assert same(joined([pool.take(slice(0, 1)), pool.take(slice(1, 4))]), pool)


def test_exposure_names_the_arguments_of_training():
    none = dict.fromkeys(("outlier_targets", "outlier_loss_weights", "twins", "twin_labels"))
    weighed = {"outlier_targets": TARGETS, "outlier_loss_weights": LOSS_WEIGHTS}
    assert FULL.exposure == none | {"outliers": IMAGES, **weighed}
    assert TWINNED.exposure == none | {"outliers": IMAGES, "twins": TWINS, "twin_labels": TWIN_LABELS}
    assert set(FULL.exposure) <= set(inspect.signature(fit_detector).parameters)


def test_a_fingerprint_changes_with_all_that_a_detector_learns_from():
    others = (
        replace(TWINNED, images=TWINS),
        replace(TWINNED, loss_weights=LOSS_WEIGHTS),
        replace(TWINNED, twins=IMAGES),
        replace(TWINNED, twin_labels=TWIN_LABELS[::-1].copy()),
    )
    assert len({pool.fingerprint() for pool in (PLAIN, TWINNED, *others)}) == 6
    assert replace(TWINNED, label_weights=WEIGHTS * 0).fingerprint() == TWINNED.fingerprint()


def damage(path, pool=FULL, **arrays):
    """Write a whole pool with other arrays in the place of its own; None leaves one out."""
    values = {n: v for n, v in (vars(pool) | arrays).items() if v is not None}
    np.savez_compressed(path, **values)


@pytest.mark.parametrize(
    "arrays",
    [
        {"images": None},
        {"label_weights": None},
        {"more": TARGETS},
        {"images": IMAGES.astype(float)},
        {"images": IMAGES[..., 0]},
        {"images": IMAGES[:3]},
        {"label_weights": WEIGHTS[0]},
        {"label_weights": WEIGHTS * np.nan},
        {"targets": TARGETS[:3]},
        {"targets": TARGETS[:, :2]},
        {"targets": TARGETS.astype(object)},
        {"targets": TARGETS * np.inf},
        {"loss_weights": TARGETS},
        {"loss_weights": LOSS_WEIGHTS.astype("U3")},
        {"twins": TWINS},
        {"twin_labels": TWIN_LABELS},
        {"twins": TWINS[:3], "twin_labels": TWIN_LABELS},
        {"twins": TWINS, "twin_labels": TWIN_LABELS[:3]},
        {"twins": TWINS[:, :4], "twin_labels": TWIN_LABELS},
        {"twins": TWINS.astype(float), "twin_labels": TWIN_LABELS},
        {"twins": TWINS, "twin_labels": TWIN_LABELS + 1},
        {"twins": TWINS, "twin_labels": TWIN_LABELS - 1},
        {"twins": TWINS, "twin_labels": TWIN_LABELS + 0.5},
        {"twins": TWINS, "twin_labels": TWIN_LABELS[:, None]},
    ],
)
def test_arrays_that_are_no_pool_are_told_on_one_line(tmp_path, arrays):
    damage(tmp_path / "pool.npz", **arrays)
    told = r"^.*pool\.npz is damaged or of another version of oodlib; draw it again with notebook 02_label_mixup$"
    with pytest.raises(InputError, match=told):
        OutlierPool.load(tmp_path / "pool.npz")


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_cut_pool_is_told(tmp_path, share):
    FULL.save(tmp_path / "pool.npz")
    whole = (tmp_path / "pool.npz").read_bytes()
    (tmp_path / "pool.npz").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r"pool\.npz is damaged .*02_label_mixup$"):
        OutlierPool.load(tmp_path / "pool.npz")


def test_a_changed_byte_of_a_pool_is_told(tmp_path):
    FULL.save(tmp_path / "pool.npz")
    content = bytearray((tmp_path / "pool.npz").read_bytes())
    content[200] ^= 1
    (tmp_path / "pool.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"pool\.npz is damaged"):
        OutlierPool.load(tmp_path / "pool.npz")


def test_a_missing_pool_is_told(tmp_path):
    with pytest.raises(
        InputError, match=r"pool\.npz is not there; draw it again with notebook 02_label_mixup"
    ):
        OutlierPool.load(tmp_path / "pool.npz")
