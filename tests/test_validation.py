"""Sets to choose by: what validation outliers are, and that no outlier source makes their like."""

import ast
import inspect

import numpy as np
import pytest
import torch
from scipy import ndimage

from oodlib import datasets
from oodlib.datasets import shifts, validation
from oodlib.datasets.roles import Role
from oodlib.datasets.synthetic import OOD_SETS
from oodlib.datasets.validation import VALIDATION_OUTLIERS, validation_outliers, validation_sets
from oodlib.degrade import degrade
from oodlib.images import ImageSet
from oodlib.outliers.sources import SOURCES

VAL = datasets.load("digits", "val")
COLOUR = ndimage.gaussian_filter(np.random.default_rng(0).normal(128, 300, (60, 16, 24, 3)), (0, 3, 3, 0))
COLOUR = COLOUR.clip(0, 255).astype(np.uint8)
DRAWN = ("stripes", "strokes", "shapes")


@pytest.fixture(scope="module")
def grey():
    return {made.key: made.images for made in validation_outliers(VAL.images)}


@pytest.fixture(scope="module")
def colour():
    return {made.key: made.images for made in validation_outliers(COLOUR)}


def of_border(image):
    """The median of the pixels along the border, by an independent way: counted corners twice, as they lie in two."""
    edges = [image[i, j] for i in (0, -1) for j in range(image.shape[1])]
    edges += [image[i, j] for i in range(image.shape[0]) for j in (0, -1)]
    return np.median(edges, axis=0)


def farthest(image):
    pixels = image.reshape(-1, image.shape[2]).astype(float)
    return pixels[np.abs(pixels - of_border(image)).sum(1).argmax()]


def masks(images, made):
    """How far each pixel lies from the background to the ink, in [0, 1]; of images whose two levels are far apart."""
    for image, drawn in zip(images, made, strict=True):
        background, ink = of_border(image), farthest(image)
        way = ink - background
        if np.abs(way).max() > 100:
            mask = (drawn - background) @ way / (way @ way)
            yield mask, drawn - (background + mask[..., None] * way)


def test_validation_outliers_are_a_set_of_each_kind_as_many_as_their_images(grey, colour):
    assert list(grey) == list(colour) == list(VALIDATION_OUTLIERS) == ["jigsaw", *DRAWN]
    for images, sets in ((VAL.images, grey), (COLOUR, colour)):
        assert {(made.dtype, made.shape) for made in sets.values()} == {(np.dtype(np.uint8), images.shape)}


def test_validation_outliers_are_without_labels_and_have_their_role():
    sets = validation_outliers(VAL.images[:3])
    assert {(s.role, s.labels, s.class_names) for s in sets} == {(Role.VALIDATION, None, ())}


def test_no_validation_outlier_is_made_by_an_outlier_source_or_is_a_test_set():
    """A detector that trains on a source must not have seen what it is chosen by."""
    tree = ast.parse(inspect.getsource(validation))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    assert not any(name.startswith(("oodlib.outliers", "oodlib.diffusion")) for name in imported)
    assert {make.__module__ for make in VALIDATION_OUTLIERS.values()} == {"oodlib.datasets.validation"}
    assert not {source.draw for source in SOURCES.values()} & set(VALIDATION_OUTLIERS.values())
    assert not set(VALIDATION_OUTLIERS) & {*SOURCES, *OOD_SETS}


@pytest.mark.parametrize("name", VALIDATION_OUTLIERS)
def test_a_validation_outlier_depends_on_one_image_and_its_number_alone(name, grey):
    """So that no two images or classes are mixed in it."""
    others = VAL.images.copy()
    others[:3], others[4:] = 0, 255
    again = {made.key: made.images for made in validation_outliers(others)}
    assert np.array_equal(again[name][3], grey[name][3])


@pytest.mark.parametrize("name", VALIDATION_OUTLIERS)
def test_no_validation_outlier_is_noise_or_shuffled_pixels(name, grey, colour):
    """Neighbours are more alike than pixels of the same image in another order."""
    random = np.random.default_rng(0)

    def step(images):
        return np.abs(np.diff(images.astype(float), axis=2)).mean()

    for images, bound in ((grey[name], 0.9), (colour[name], 0.6)):
        flat = images.reshape(len(images), -1, images.shape[3])
        assert step(images) < bound * step(random.permuted(flat, axis=1).reshape(images.shape))


@pytest.mark.parametrize("name", VALIDATION_OUTLIERS)
def test_validation_outliers_differ_from_their_images_and_from_each_other(name, grey):
    assert (grey[name] != VAL.images).any((1, 2, 3)).all()
    assert len({image.tobytes() for image in grey[name]}) > 0.97 * len(VAL.images)


def test_a_jigsaw_is_its_image_s_quarters_turned_round_and_nothing_else(grey, colour):
    for images, made in ((VAL.images, grey["jigsaw"]), (COLOUR, colour["jigsaw"])):
        top, left = images.shape[1] // 2, images.shape[2] // 2
        assert np.array_equal(made[:, :top, :left], images[:, top:, :left])
        assert np.array_equal(made[:, :top, left:], images[:, :top, :left])
        assert np.array_equal(made[:, top:, left:], images[:, :top, left:])
        assert np.array_equal(made[:, top:, :left], images[:, top:, left:])


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_lies_between_the_border_s_median_and_the_level_farthest_from_it(name, grey, colour):
    for images, sets in ((VAL.images, grey), (COLOUR, colour)):
        for image, drawn in zip(images, sets[name], strict=True):
            low, high = np.sort([of_border(image), farthest(image)], axis=0)
            assert (drawn >= np.floor(low)).all() and (drawn <= np.ceil(high)).all()


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_in_colour_lies_on_the_way_from_background_to_ink(name, colour):
    found = list(masks(COLOUR, colour[name]))
    assert len(found) > 20 and max(np.abs(rest).max() for _, rest in found) < 0.9  # rounding


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_has_background_and_ink(name, grey):
    drawn = [mask for mask, _ in masks(VAL.images, grey[name])]
    assert (
        np.median([mask.min() for mask in drawn]) < 0.05 and np.median([mask.max() for mask in drawn]) > 0.95
    )


@pytest.mark.parametrize("name", ["strokes", "shapes"])
def test_strokes_and_shapes_are_of_one_piece(name, colour):
    pieces = [ndimage.label(mask > 0.05, np.ones((3, 3)))[1] for mask, _ in masks(COLOUR, colour[name])]
    assert set(pieces) == {1}


def test_stripes_are_one_wave_of_at_most_three_lengths_across(colour):
    """Nearly all of the power is at frequencies up to three along each side, and near one of them."""
    for mask, _ in masks(COLOUR, colour["stripes"]):
        power = np.abs(np.fft.fft2((mask - mask.mean()) * np.outer(np.hanning(16), np.hanning(24)))) ** 2
        y, x = np.abs(np.fft.fftfreq(16, 1 / 16))[:, None], np.abs(np.fft.fftfreq(24, 1 / 24))
        assert power[np.hypot(x, y) < 5.5].sum() > 0.97 * power.sum()


def test_shapes_are_ellipses_rectangles_and_triangles():
    """By the share that they fill of the box around them: pi / 4, 1 and 1 / 2."""
    framed = np.pad(np.full((60, 62, 62, 1), 255, np.uint8), ((0, 0), (1, 1), (1, 1), (0, 0)))
    (made,) = (made.images for made in validation_outliers(framed) if made.key == "shapes")
    shares = []
    for image in made[..., 0] / 255:
        lit = image > 0.5
        box = image[np.ix_(lit.any(1), lit.any(0))]
        shares.append(box.mean())
    counts = [sum(abs(share - kind) < 0.07 for share in shares) for kind in (np.pi / 4, 1, 0.5)]
    assert sum(counts) == 60 and min(counts) > 12


def test_a_constant_image_gives_constant_ones():
    for made in validation_outliers(np.full((2, 8, 8, 1), 7, np.uint8)):
        assert (made.images == 7).all()


def test_validation_outliers_are_the_same_on_each_call_and_leave_their_images(colour):
    before = COLOUR.copy()
    assert all(np.array_equal(made.images, colour[made.key]) for made in validation_outliers(COLOUR))
    assert np.array_equal(COLOUR, before)


def test_validation_sets_are_id_images_the_same_degraded_and_outliers(grey):
    plain, degraded, *outliers = validation_sets(VAL)
    assert plain[:3] == ("id_val", "ID val", Role.ID) and plain[3:] == VAL
    assert (degraded.key, degraded.role) == (
        "id_val_degraded",
        Role.DEGRADED_ID,
    ) and degraded.class_names == VAL.class_names
    assert np.array_equal(degraded.labels, VAL.labels)
    assert {made.key: made.role for made in outliers} == dict.fromkeys(VALIDATION_OUTLIERS, Role.VALIDATION)
    assert all(np.array_equal(made.images, grey[made.key]) for made in outliers)


@pytest.mark.parametrize("images", [VAL.images, COLOUR], ids=["grey", "colour"])
def test_validation_images_are_degraded_as_in_training_at_strength_1(images):
    found = validation_sets(ImageSet(images, np.zeros(len(images), int), ("a",)))[1].images
    random = torch.Generator().manual_seed(shifts.DEGRADE_SEED)
    expected = degrade(torch.tensor(images).permute(0, 3, 1, 2), 1.0, random).permute(0, 2, 3, 1)
    assert np.array_equal(found, expected) and (found != images).any((1, 2, 3)).mean() > 0.9
