"""Image sets made from what the dependencies ship: digits, fonts, two photographs, noise."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from oodlib.datasets.roles import Role
from oodlib.datasets.splits import split_of
from oodlib.errors import InputError
from oodlib.images import ImageSet

# Capitals that an 8 x 8 image does not tell from a digit are left out: B D G I O Q S Z.
LETTERS = "ACEFHJKLMNPRTUVWXY"
# Real images to train on as outliers: none of these characters is among the letters, and none looks like a digit.
SYMBOLS = "ΓΔΛΞΠΣΨΩЖИЛЦШЩЫЮЯ→↑↓↔⇒⇔∀∇∈∏∑∞∪∩≈≠≡⊂⊕⊗"
# Hebrew, Tifinagh and Canadian syllabics, for a set that no choice has seen; none of these looks like a digit either.
SCRIPTS = "אבגחטכלמנפצקשתⴷⴼⴽⵊⵎⵓⵖⵜⵟⵢⵣᐁᐯᑌᑲᒪᓇᓴᔭᕋ"
LETTER_FONTS = (
    *("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSansMono.ttf"),
    *("DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf", "STIXGeneral.ttf", "STIXGeneralBol.ttf"),
    *("cmr10.ttf", "cmss10.ttf"),
)
NOISE_SEED = 555  # the seed of engkarat/cosine-ood-detector, whose noise definitions are used


def digits(wanted: range) -> ImageSet:
    """scikit-learn's handwritten digits of these classes, in [0, 10), uint8 (N, 8, 8, 1)."""
    from sklearn.datasets import load_digits  # here, because it takes 2 s to import

    bunch = load_digits()
    keep = np.isin(bunch.target, wanted)
    images = np.round(bunch.images[keep] * (255 / 16)).astype(np.uint8)[..., None]
    return ImageSet(images, bunch.target[keep].astype(np.int64), tuple(str(d) for d in wanted))


def _inverted(_shape: tuple[int, int, int]) -> np.ndarray:
    return 255 - split_of("digits", digits(range(8)), "test").images


def _letters(_shape: tuple[int, int, int], count: int = 1000) -> np.ndarray:
    return _characters(LETTERS, LETTER_FONTS, count)


def _characters(characters: str, names: tuple[str, ...], count: int) -> np.ndarray:
    """Characters at 70 to 100 % of the frame's height, turned by up to 12 degrees, averaged over 8 x 8 cells."""
    import matplotlib

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    images = np.empty((count, 8, 8, 1), np.uint8)
    for i in range(count):
        rng = np.random.default_rng([NOISE_SEED, i])
        character = characters[i % len(characters)]
        font = ImageFont.truetype(fonts / names[i // len(characters) % len(names)], 64)
        left, top, right, bottom = font.getbbox(character)
        canvas = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(canvas).text((-left, -top), character, fill=255, font=font)
        height = rng.uniform(45, 64)
        width = min(64, canvas.width * height / canvas.height)
        glyph = canvas.resize((round(width), round(height)), Image.Resampling.BICUBIC)
        frame = Image.new("L", (64, 64))
        frame.paste(glyph, ((64 - glyph.width) // 2, (64 - glyph.height) // 2))
        frame = frame.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC)
        images[i, ..., 0] = frame.resize((8, 8), Image.Resampling.BOX)
    return images


def _photo_patches(shape: tuple[int, int, int], count: int = 1000) -> np.ndarray:
    """Squares of scikit-learn's two photographs, from the image size to 128 pixels, averaged to the image size."""
    from sklearn.datasets import load_sample_images

    size, _, channels = shape
    mode = "L" if channels == 1 else "RGB"
    photos = [Image.fromarray(photo).convert(mode) for photo in load_sample_images().images]
    largest = min(min(photo.size) for photo in photos)
    if size > largest:
        raise InputError(f"photo_patches come at up to {largest} pixels, not at {size}; choose another set")
    images = np.empty((count, *shape), np.uint8)
    for i in range(count):
        rng = np.random.default_rng([NOISE_SEED, i])
        photo, side = photos[i % 2], 2 ** rng.integers(size.bit_length() - 1, max(8, size.bit_length()))
        left, top = rng.integers(0, photo.width - side + 1), rng.integers(0, photo.height - side + 1)
        box = (left, top, left + side, top + side)
        patch = photo.resize((size, size), Image.Resampling.BOX, box=tuple(map(int, box)))
        images[i] = np.asarray(patch).reshape(shape)
    return images


def _symbols(_shape: tuple[int, int, int], count: int = 2800) -> np.ndarray:
    """Greek and Cyrillic letters, arrows, and signs of mathematics."""
    return _characters(SYMBOLS, LETTER_FONTS[:8], count)  # the last two fonts have Latin letters only


def _scripts(_shape: tuple[int, int, int], count: int = 1000) -> np.ndarray:
    """Letters of three scripts, in the two fonts that have them all."""
    return _characters(SCRIPTS, LETTER_FONTS[:2], count)


def _noise(draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]):
    """Images of independent values, clipped to [0, 1]; image i depends on nothing but the seed and i."""

    def make(shape: tuple[int, int, int], count: int = 1000) -> np.ndarray:
        images = np.empty((count, *shape), np.uint8)
        for i in range(count):
            images[i] = np.round(draw(np.random.default_rng([NOISE_SEED, i]), shape).clip(0, 1) * 255)
        return images

    return make


class Synthetic(NamedTuple):
    """An OOD test set that is made."""

    title: str
    role: Role
    make: Callable[..., np.ndarray]
    """Makes its images at the shape (H, W, C); noise and photo patches also in a number, `count`."""


OOD_SETS = {
    "held_out": Synthetic("held out", Role.NEAR, lambda _shape: digits(range(8, 10)).images),
    "letters": Synthetic("letters", Role.FAR, _letters),
    "symbols": Synthetic("symbols", Role.FAR, _symbols),
    "scripts": Synthetic("other scripts", Role.FAR, _scripts),
    "photo_patches": Synthetic("photo patches", Role.FAR, _photo_patches),
    "gaussian": Synthetic("gaussian", Role.NOISE, _noise(lambda rng, shape: rng.normal(0.5, 1.0, shape))),
    "uniform": Synthetic("uniform", Role.NOISE, _noise(lambda rng, shape: rng.uniform(0.0, 1.0, shape))),
    "inverted": Synthetic("inverted", Role.NOISE, _inverted),
}
