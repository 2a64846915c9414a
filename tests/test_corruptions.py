"""Corruptions of CIFAR-10-C, recomputed."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from oodlib.datasets.corruptions import CORRUPTIONS, LEVELS, corrupted
from oodlib.datasets.roles import Role
from oodlib.datasets.shifts import SHIFTS, shifted_sets
from oodlib.images import ImageSet

COLUMN = np.linspace(40, 200, 32)
SMOOTH = (
    np.stack([np.add.outer(COLUMN, k * COLUMN / 8) for k in (0.1, 0.5, 1)], -1).clip(0, 255).astype(np.uint8)
)
IMAGES = np.stack([SMOOTH] * 10)  # each level twice


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_changes_images_and_always_alike(name):
    made = corrupted(IMAGES, name)
    assert made.shape == IMAGES.shape and made.dtype == np.uint8
    assert (made != IMAGES).any((1, 2, 3)).all() and np.array_equal(made, corrupted(IMAGES, name))


@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - {"saturate", "gaussian_blur", "pixelate"}))
def test_each_level_changes_more_than_the_one_below(name):
    change = np.abs(corrupted(IMAGES, name).astype(float) - IMAGES).mean((1, 2, 3))
    assert (np.diff(change[:LEVELS]) > 0).all()


@pytest.mark.parametrize("name", ["gaussian_noise", "impulse_noise", "shot_noise"])
def test_noise_is_another_for_each_image(name):
    made = corrupted(IMAGES, name)
    assert not np.array_equal(made[0], made[LEVELS])


@pytest.mark.parametrize("level, sd", [(0, 0.04), (4, 0.10)])
def test_normal_noise_has_the_published_standard_deviation(level, sd):
    grey = np.full((100, 32, 32, 3), 128, np.uint8)
    made = corrupted(grey, "gaussian_noise")[level::LEVELS]
    assert np.isclose((made / 255).std(), sd, rtol=0.02)


def test_impulses_are_black_or_white_and_as_many_as_published():
    grey = np.full((100, 32, 32, 3), 128, np.uint8)
    made = corrupted(grey, "impulse_noise")[LEVELS - 1 :: LEVELS]
    assert set(np.unique(made)) == {0, 128, 255}
    assert np.isclose((made != 128).mean(), 0.07, atol=0.003) and np.isclose(
        (made == 255).mean(), 0.035, atol=0.003
    )


def test_contrast_shrinks_about_the_image_s_mean_of_each_channel():
    made = corrupted(IMAGES, "contrast")[LEVELS - 1] / 255
    x = SMOOTH / 255
    mean = x.mean((0, 1))
    assert np.allclose(made, mean + 0.15 * (x - mean), atol=1 / 255)


def test_blur_is_scipys():
    made = corrupted(IMAGES, "gaussian_blur")[LEVELS - 1] / 255
    expected = ndimage.gaussian_filter(SMOOTH / 255, (1, 1, 0), mode="nearest")
    assert np.allclose(made, expected, atol=1 / 255)


def test_jpeg_is_pillows_at_the_published_quality():
    buffer = io.BytesIO()
    Image.fromarray(SMOOTH).save(buffer, "jpeg", quality=40)
    assert np.array_equal(corrupted(IMAGES, "jpeg_compression")[LEVELS - 1], np.asarray(Image.open(buffer)))


def test_brightness_is_added_to_the_largest_channel_and_keeps_the_hue():
    image = np.full((5, 32, 32, 3), (100, 50, 25), np.uint8)
    made = corrupted(image, "brightness")[LEVELS - 1, 0, 0]
    assert np.isclose(made[0], 100 + 0.3 * 255, atol=1)
    assert np.allclose(made / made[0], np.array([100, 50, 25]) / 100, atol=0.01)


def test_colour_images_of_32_pixels_have_them_beside_the_other_shifts_and_others_have_not():
    def keys(images: np.ndarray) -> list[str]:
        return [s.key for s in shifted_sets(ImageSet(images, np.zeros(len(images), int), ("a",)))]

    assert keys(IMAGES) == [f"id_{name}" for name in SHIFTS] + [f"id_c_{name}" for name in CORRUPTIONS]
    assert not [key for key in keys(IMAGES[:, :16, :16]) + keys(IMAGES[..., :1]) if key.startswith("id_c_")]


def test_what_training_draws_too_is_told_apart():
    roles = {name: role for name, (role, _) in CORRUPTIONS.items()}
    assert roles["gaussian_noise"] == roles["contrast"] == Role.DEGRADED_ID
    assert roles["jpeg_compression"] == roles["pixelate"] == Role.SHIFTED_ID
