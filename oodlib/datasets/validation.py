"""Sets to choose by: ID validation images, the same degraded, and validation outliers.

No test set holds the like of validation outliers, and none of them is made in the way of an outlier source: nothing is
mixed, no pixels are shuffled, nothing is noise.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from oodlib.datasets.roles import EvaluationSet, Role, id_set
from oodlib.datasets.shifts import degraded
from oodlib.images import ImageSet

SEED = 557
SCALE = 4  # drawings are made so many times as large, and averaged


def _jigsaw(image: np.ndarray, _random: np.random.Generator) -> np.ndarray:
    """The image's four quarters, turned round by one place."""
    top, left = image.shape[0] // 2, image.shape[1] // 2
    above, below = image[:top], image[top:]
    rows = [[below[:, :left], above[:, :left]], [below[:, left:], above[:, left:]]]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def _stripes(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Parallel waves, one to three of them across the image."""
    height, width, _ = image.shape
    angle, phase = random.uniform(0, np.pi), random.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:height, :width]
    along = x / width * np.cos(angle) + y / height * np.sin(angle)
    return _between(image, (1 + np.sin(2 * np.pi * random.uniform(1, 3) * along + phase)) / 2)


def _strokes(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A line through four to six random points."""
    mask, draw = _canvas(image)
    points = [
        (x * mask.width, y * mask.height) for x, y in random.uniform(0.1, 0.9, (random.integers(4, 7), 2))
    ]
    draw.line(points, 255, width=round(mask.width * random.uniform(0.1, 0.2)), joint="curve")
    return _between(image, _averaged(mask))


def _shapes(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """An ellipse, a rectangle or a triangle, filled."""
    mask, draw = _canvas(image)
    (left, right), (top, bottom) = (
        np.sort(random.uniform([[0, 0.6], [0, 0.6]], [[0.4, 1], [0.4, 1]])) * mask.width
    )
    shapes = [
        lambda: draw.ellipse((left, top, right, bottom), 255),
        lambda: draw.rectangle((left, top, right, bottom), 255),
        lambda: draw.polygon([(left, bottom), (right, bottom), (random.uniform(left, right), top)], 255),
    ]
    shapes[random.integers(3)]()
    return _between(image, _averaged(mask))


def _canvas(image: np.ndarray) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    mask = Image.new("L", (SCALE * image.shape[1], SCALE * image.shape[0]))
    return mask, ImageDraw.Draw(mask)


def _averaged(mask: Image.Image) -> np.ndarray:
    return np.asarray(mask.reduce(SCALE)) / 255


def _between(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What a mask in [0, 1] (H, W) shows, from the level of the image's border to the level farthest from it."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    background = np.median(border, axis=0)
    pixels = image.reshape(-1, image.shape[2])
    ink = pixels[np.abs(pixels - background).sum(1).argmax()]
    return (background + mask[..., None] * (ink - background)).round().astype(np.uint8)


VALIDATION_OUTLIERS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "jigsaw": _jigsaw,
    "stripes": _stripes,
    "strokes": _strokes,
    "shapes": _shapes,
}
"""From an ID validation image, uint8 (H, W, C), to an OOD image of its size."""


def validation_outliers(images: np.ndarray) -> list[EvaluationSet]:
    """A set of each of `VALIDATION_OUTLIERS`, as large as that of the ID validation images, uint8 (N, H, W, C)."""
    sets = []
    for name, make in VALIDATION_OUTLIERS.items():
        made = [make(image, np.random.default_rng([SEED, i])) for i, image in enumerate(images)]
        sets.append(EvaluationSet(name, name, Role.VALIDATION, np.stack(made), None, ()))
    return sets


def validation_sets(val: ImageSet) -> list[EvaluationSet]:
    """ID validation images, the same degraded at the usual strength, and validation outliers."""
    plain = id_set(val, "val")
    changed = degraded(plain)._replace(key="id_val_degraded", title="ID val, degraded", role=Role.DEGRADED_ID)
    return [plain, changed, *validation_outliers(val.images)]
