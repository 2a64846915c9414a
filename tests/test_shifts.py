"""ID test images as they may come in use: what each shift does, and to which images."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.neighbors import KNeighborsClassifier

from oodlib import datasets, degrade
from oodlib.datasets import shifts
from oodlib.datasets.published import PUBLISHED
from oodlib.datasets.roles import ID_TEST, Role
from oodlib.datasets.shifts import SHIFTS, shifted_sets
from oodlib.datasets.synthetic import OOD_SETS
from oodlib.images import ImageSet

pytestmark = pytest.mark.filterwarnings(
    "ignore:The image decoding and encoding:DeprecationWarning"
)  # torchvision's

DIGITS = datasets.load("digits", "test")
DIGITS = ImageSet(DIGITS.images[:60], DIGITS.labels[:60], DIGITS.class_names)
# Soft patches of colour, without the lowest and highest levels.
PATCHES = ndimage.gaussian_filter(
    np.random.default_rng(0).normal(128, 250, (12, 32, 32, 3)), (0, 1.5, 1.5, 0)
)
PATCHES = ImageSet(PATCHES.clip(20, 235).astype(np.uint8), np.arange(12) % 3, ("a", "b", "c"))


@pytest.fixture(scope="module")
def grey():
    return {made.key: made for made in shifted_sets(DIGITS)}


@pytest.fixture(scope="module")
def colour():
    made_by_us = {f"id_{name}" for name in SHIFTS}  # beside those of CIFAR-10-C
    return {made.key: made for made in shifted_sets(PATCHES) if made.key in made_by_us}


def by_role(role):
    return {f"id_{name}" for name, shift in SHIFTS.items() if shift.role == role}


def test_grey_images_are_not_faded_and_come_in_every_other_way(grey, colour):
    assert list(colour) == [f"id_{name}" for name in SHIFTS]
    assert list(grey) == [key for key in colour if key != "id_faded"]


def test_shifted_images_keep_shape_labels_and_classes(grey, colour):
    for images, sets in ((DIGITS, grey), (PATCHES, colour)):
        for made in sets.values():
            assert made.images.dtype == np.uint8 and made.images.shape == images.images.shape
            assert np.array_equal(made.labels, images.labels) and made.class_names == images.class_names


def test_what_training_degrades_too_is_told_from_what_no_training_draws(colour):
    found = {role: {key for key, made in colour.items() if made.role == role} for role in Role}
    assert {role for role in Role if found[role]} == {Role.DEGRADED_ID, Role.SHIFTED_ID}
    names = ("softer", "darker", "flatter", "lifted", "noisy", "faded")
    assert found[Role.DEGRADED_ID] == {f"id_{name}" for name in names}


def test_keys_and_titles_are_of_one_set_each(colour):
    keys = {*colour, ID_TEST, "id_val", "id_val_degraded", *OOD_SETS, *PUBLISHED}
    assert len(keys) == len(colour) + 3 + len(OOD_SETS) + len(PUBLISHED)
    assert len({made.title for made in colour.values()}) == len(colour)


@pytest.mark.parametrize("most, kept", [(4, [0, 2, 5, 7]), (10, range(10)), (2000, range(10))])
def test_at_most_so_many_images_are_shifted_evenly_spaced(monkeypatch, most, kept):
    monkeypatch.setattr(shifts, "MOST_IMAGES", most)
    images = np.repeat(np.arange(10, dtype=np.uint8) * 20, 64).reshape(10, 8, 8, 1)
    (lifted,) = (
        s for s in shifted_sets(ImageSet(images, np.arange(10), tuple("0123456789"))) if s.key == "id_lifted"
    )
    assert lifted.labels.tolist() == [*kept]
    assert lifted.images[:, 0, 0, 0].tolist() == [round(20 + 20 * i * 235 / 255) for i in kept]


def test_images_without_labels_are_shifted_too():
    sets = shifted_sets(ImageSet(DIGITS.images[:2], None, ()))
    assert len(sets) == len(SHIFTS) - 1 and all(made.labels is None for made in sets)


def test_shifted_images_are_the_same_on_each_call_and_leave_their_images(colour):
    before = PATCHES.images.copy()
    again = {made.key: made.images for made in shifted_sets(PATCHES)}
    assert all(np.array_equal(again[key], made.images) for key, made in colour.items())
    assert np.array_equal(PATCHES.images, before)


def test_every_shift_changes_every_image_a_little(grey, colour):
    """In the mean over the pixels of a set."""
    for images, sets in ((DIGITS, grey), (PATCHES, colour)):
        for key, made in sets.items():
            change = np.abs(made.images.astype(float) - images.images)
            assert (change.max((1, 2, 3)) > 0).all() and 1 < change.mean() < 40, key


def test_a_shifted_digit_is_nearest_to_digits_of_its_class(grey):
    train = datasets.load("digits", "train")
    nearest = KNeighborsClassifier(3).fit(train.images.reshape(len(train.images), -1), train.labels)
    for key, made in grey.items():
        assert nearest.score(made.images.reshape(len(made.images), -1), made.labels) > 0.9, key


def plain(images):
    return images.images.astype(float)


@pytest.mark.parametrize("images, sets", [(DIGITS, "grey"), (PATCHES, "colour")], ids=["grey", "colour"])
def test_changes_of_levels_by_hand(images, sets, request):
    sets, x = request.getfixturevalue(sets), plain(images)
    bright = x @ (0.299, 0.587, 0.114) if x.shape[3] == 3 else x[..., 0]
    expected = {
        "id_darker": 0.75 * x,
        "id_flatter": 0.7 * x + 0.3 * bright.mean((1, 2))[:, None, None, None],
        "id_lifted": np.round(20 + x * 235 / 255),
        "id_gamma": 255 * (x / 255) ** 0.7,
        "id_posterised": x // 32 * 32,
    }
    if x.shape[3] == 3:
        expected["id_faded"] = 0.5 * x + 0.5 * bright[..., None]
    exact = ("id_lifted", "id_posterised")  # elsewhere torchvision cuts, and does not round
    for key, levels in expected.items():
        assert np.abs(sets[key].images - levels).max() <= (0 if key in exact else 1.3), key


def test_noise_is_normal_and_of_eight_levels(colour):
    noise = colour["id_noisy"].images - plain(PATCHES)
    inner = noise[(PATCHES.images > 60) & (PATCHES.images < 195)]  # where nothing is clipped
    assert inner.std() == pytest.approx(8, abs=0.2) and abs(inner.mean()) < 0.2
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.03


def of_pillow(images, work):
    return np.stack(
        [np.asarray(work(Image.fromarray(i.squeeze()))).reshape(i.shape) for i in images.images]
    ).astype(float)


def scaled(size, between, how):
    return lambda picture: picture.resize((between, between), how).resize((size, size), how)


def through_jpeg(picture):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=50)
    return Image.open(file)


def test_scaled_turned_and_saved_images_are_those_of_pillow(grey, colour):
    bicubic, bilinear = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR
    for images, sets, size in ((DIGITS, grey, 8), (PATCHES, colour, 32)):
        works = {
            "id_softer": (scaled(size, size * 3 // 4, bicubic), 1.1),
            "id_enlarged": (scaled(size, size * 3 // 2, bilinear), 1.1),
            "id_turned": (lambda picture: picture.rotate(8, bilinear), 2.5),
            "id_jpeg": (through_jpeg, 3.5),
        }
        for key, (work, bound) in works.items():
            assert np.abs(sets[key].images - of_pillow(images, work)).mean() < bound, key


def test_shifts_that_training_draws_too_are_within_what_it_draws_at_strength_1(colour):
    x = plain(PATCHES)
    ends = {
        "id_darker": (np.zeros_like(x), degrade.BRIGHTNESS),
        "id_flatter": (np.broadcast_to(x.mean((1, 2, 3), keepdims=True), x.shape), degrade.CONTRAST),
        "id_lifted": (np.full_like(x, 255), degrade.BACKGROUND),
        "id_faded": ((x @ degrade.LUMINANCE)[..., None].repeat(3, 3), degrade.SATURATION),
    }
    for key, (end, bound) in ends.items():
        way = (end - x).ravel()
        share = way @ (colour[key].images - x).ravel() / (way @ way)
        assert bound / 3 < share < bound, key
    assert degrade.NOISE / 3 < shifts.NOISE < degrade.NOISE
    assert set(ends) | {"id_noisy", "id_softer"} == by_role(Role.DEGRADED_ID)
