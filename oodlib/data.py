"""Named image sets as uint8 arrays in memory, all of them offline and the same on every machine.

The in-distribution (ID) set is scikit-learn's handwritten digits, classes 0 to 7. The out-of-distribution
(OOD) sets are made from what the dependencies ship: the digits 8 and 9, fonts, two photographs, noise.
"""

import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from oodlib.errors import InputError, choice

SPLITS = ("train", "val", "test")
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
NOISE_SEED = 555  # the seed of engkarat/cosine-ood-detector, whose noise definitions are used

# Capitals that an 8 x 8 image does not tell from a digit are left out: B D G I O Q S Z.
LETTERS = "ACEFHJKLMNPRTUVWXY"
LETTER_FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "STIXGeneral.ttf",
    "STIXGeneralBol.ttf",
    "cmr10.ttf",
    "cmss10.ttf",
)


class ImageSet(NamedTuple):
    """A set of images, with labels where it has them."""

    images: np.ndarray
    """uint8, (N, H, W, C) with C = 1 (grey) or 3 (RGB)."""
    labels: np.ndarray | None
    """int64 (N,), indices into `class_names`; None where the set has no classes."""
    class_names: tuple[str, ...]


def load(source: str, split: str = "test", *, image_shape: tuple[int, int, int] = (8, 8, 1)) -> ImageSet:
    """Load a set by its name, or one's own from a folder or an `.npz` file.

    Args:
        source: One of `digits` and the OOD sets `held_out`, `letters`, `photo_patches`, `gaussian`,
            `uniform`, `inverted`; or the path of an `.npz` with `images` (uint8, N x H x W or N x H x W x C)
            and, for an ID set, `labels` (integers from 0); or the path of a folder of images, one
            sub-folder a class where there are classes.
        split: `train` (60 %), `val` (15 %) or `test` (25 %): a fixed, stratified split of a set with
            labels. OOD sets are test sets and have no other split; `all` gives the whole of one's own set.
        image_shape: (H, W, C) of the images wanted. Images of a folder are centre-cropped to a square,
            scaled and turned grey or RGB; noise is made at this shape; any other set must have it.

    Raises:
        InputError: The set, its split, or its shape is not what it must be.
    """
    if source == "digits":
        found = _split(_digits(range(8)), split)
    elif source in OOD_SETS:
        if split not in ("test", "all"):
            raise InputError(f"{source} is an OOD test set and has no split {split!r}")
        found = ImageSet(OOD_SETS[source](image_shape), None, ())
    else:
        choice("split", split, (*SPLITS, "all"))
        found = _own(source, image_shape)
        if found.labels is None and split in ("train", "val"):
            raise InputError(
                f"{source} has no labels to train on; give a folder with a sub-folder a class, or labels"
            )
        if found.labels is not None and split != "all":
            found = _split(found, split)
    if found.images.shape[1:] != tuple(image_shape):
        raise InputError(
            f"{source} has images of shape {found.images.shape[1:]}, expected {tuple(image_shape)}; "
            "choose other sets or another image_shape (noise is made at any)"
        )
    return found


def load_ood(sources: Iterable[str], image_shape: tuple[int, int, int] = (8, 8, 1)) -> dict[str, np.ndarray]:
    """The whole of each OOD set, uint8 (N, H, W, C), by the name that tables and figures call it."""
    sets = {}
    for source in sources:
        name = display_name(source)
        if name in sets:
            raise InputError(f"two OOD sets are called {name}; rename the folder or file of one")
        sets[name] = load(source, "all", image_shape=image_shape).images
    return sets


def fit_picture(picture: Image.Image, image_shape: tuple[int, int, int]) -> np.ndarray:
    """A picture of any size, centre-cropped and scaled to `image_shape` and turned grey or RGB; uint8."""
    height, width, channels = image_shape
    if picture.mode.startswith("I;16"):  # which Pillow would clip to 255, not scale
        picture = Image.fromarray((np.asarray(picture) // 256).astype(np.uint8))
    picture = picture.convert("L" if channels == 1 else "RGB")
    return np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.BOX)).reshape(image_shape)


def display_name(source: str) -> str:
    """What tables and figures call a set: its name, or the last part of its path without the suffix."""
    return source if source in OOD_SETS else Path(source).stem


def _digits(digits: range) -> ImageSet:
    from sklearn.datasets import load_digits  # here, because it takes 2 s to import

    bunch = load_digits()
    keep = np.isin(bunch.target, digits)
    images = np.round(bunch.images[keep] * (255 / 16)).astype(np.uint8)[..., None]
    return ImageSet(images, bunch.target[keep].astype(np.int64), tuple(str(d) for d in digits))


def _split(whole: ImageSet, split: str) -> ImageSet:
    """The named part of a labelled set: of each class the same share, drawn with a fixed seed."""
    choice("split", split, SPLITS)
    rng = np.random.default_rng(0)
    part = []
    for label in range(len(whole.class_names)):
        index = rng.permutation(np.flatnonzero(whole.labels == label))
        ends = np.round(np.array([0.6, 0.75]) * len(index)).astype(int)
        part.append(np.split(index, ends)[SPLITS.index(split)])
    index = np.sort(np.concatenate(part))
    return ImageSet(whole.images[index], whole.labels[index], whole.class_names)


def _held_out(_shape: tuple[int, int, int]) -> np.ndarray:
    return _digits(range(8, 10)).images


def _inverted(_shape: tuple[int, int, int]) -> np.ndarray:
    return 255 - load("digits", "test").images


def _letters(_shape: tuple[int, int, int], count: int = 1000) -> np.ndarray:
    """Capitals at 70 to 100 % of the frame's height, turned by up to 12 degrees, averaged over 8 x 8 cells."""
    import matplotlib

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    images = np.empty((count, 8, 8, 1), np.uint8)
    for i in range(count):
        rng = np.random.default_rng([NOISE_SEED, i])
        letter = LETTERS[i % len(LETTERS)]
        font = ImageFont.truetype(fonts / LETTER_FONTS[i // len(LETTERS) % len(LETTER_FONTS)], 64)
        left, top, right, bottom = font.getbbox(letter)
        canvas = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(canvas).text((-left, -top), letter, fill=255, font=font)
        height = rng.uniform(45, 64)
        width = min(64, canvas.width * height / canvas.height)
        glyph = canvas.resize((round(width), round(height)), Image.Resampling.BICUBIC)
        frame = Image.new("L", (64, 64))
        frame.paste(glyph, ((64 - glyph.width) // 2, (64 - glyph.height) // 2))
        frame = frame.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC)
        images[i, ..., 0] = frame.resize((8, 8), Image.Resampling.BOX)
    return images


def _photo_patches(_shape: tuple[int, int, int], count: int = 1000) -> np.ndarray:
    """Squares of 8 to 128 pixels from scikit-learn's two photographs, in grey, averaged to 8 x 8."""
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(photo).convert("L") for photo in load_sample_images().images]
    images = np.empty((count, 8, 8, 1), np.uint8)
    for i in range(count):
        rng = np.random.default_rng([NOISE_SEED, i])
        photo, side = photos[i % 2], 2 ** rng.integers(3, 8)
        left, top = rng.integers(0, photo.width - side + 1), rng.integers(0, photo.height - side + 1)
        box = (left, top, left + side, top + side)
        images[i, ..., 0] = photo.resize((8, 8), Image.Resampling.BOX, box=tuple(map(int, box)))
    return images


def _noise(draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]):
    """Images of independent values, clipped to [0, 1]; image i depends on nothing but the seed and i."""

    def make(shape: tuple[int, int, int], count: int = 1000) -> np.ndarray:
        values = np.stack([draw(np.random.default_rng([NOISE_SEED, i]), shape) for i in range(count)])
        return np.round(values.clip(0, 1) * 255).astype(np.uint8)

    return make


OOD_SETS: dict[str, Callable[[tuple[int, int, int]], np.ndarray]] = {
    "held_out": _held_out,
    "letters": _letters,
    "photo_patches": _photo_patches,
    "gaussian": _noise(lambda rng, shape: rng.normal(0.5, 1.0, shape)),
    "uniform": _noise(lambda rng, shape: rng.uniform(0.0, 1.0, shape)),
    "inverted": _inverted,
}


def _own(source: str, image_shape: tuple[int, int, int]) -> ImageSet:
    path = Path(source).expanduser()
    if path.is_dir():
        return _from_folder(path, image_shape)
    if path.suffix == ".npz" and path.is_file():
        return _from_npz(path)
    raise InputError(
        f"image set {source!r} is not known; give one of digits, {', '.join(OOD_SETS)}, "
        "or the path of a folder of images or of an .npz file"
    )


def _from_folder(folder: Path, image_shape: tuple[int, int, int]) -> ImageSet:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise InputError(f"folder {folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    images = np.empty((len(files), *image_shape), np.uint8)
    for i, file in enumerate(files):
        try:
            images[i] = fit_picture(Image.open(file), image_shape)
        except OSError as error:
            raise InputError(f"image {file} cannot be read ({error}); remove or repair it") from error
    parents = [p.relative_to(folder).parts[0] if p.parent != folder else None for p in files]
    if None in parents:
        return ImageSet(images, None, ())
    class_names = tuple(sorted(set(parents)))
    labels = np.array([class_names.index(parent) for parent in parents], np.int64)
    return ImageSet(images, labels, class_names)


def _from_npz(path: Path) -> ImageSet:
    try:
        with np.load(path) as file:
            if "images" not in file:
                raise InputError(f"{path} holds {', '.join(file)}; it needs an array called images")
            images, labels = file["images"], file["labels"] if "labels" in file else None
    except InputError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}); write it with numpy.savez") from error
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        raise InputError(
            f"images in {path} are {images.dtype} of shape {images.shape}, expected uint8, N x H x W x C"
        )
    if labels is None:
        return ImageSet(images, None, ())
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise InputError(f"labels in {path} must be {len(images)} integers from 0, one for each image")
    missing = sorted(set(range(labels.max() + 1)) - set(labels.tolist()))
    if missing:
        raise InputError(f"labels in {path} skip {missing[:5]}; number the classes from 0 without gaps")
    return ImageSet(images, labels.astype(np.int64), tuple(str(c) for c in range(labels.max() + 1)))
