"""The door for pictures: files and PIL images become uint8 arrays that show what a viewer shows.

That is: turned as the EXIF orientation says, transparent pixels on a background, colours of an embedded profile or of
a PNG's gamma brought to sRGB, 16 and 32 bits scaled by their range, the first of several pages or frames.
"""

import io
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from oodlib.errors import InputError
from oodlib.files import shown

BACKGROUNDS = ("white", "black")
MAX_PIXELS = 400_000_000  # of a picture; decoded, it takes 1.2 GB in RGB
# Formats that Pillow hands to another program, cannot decode by itself, or takes for documents.
REFUSED_FORMATS = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "FPX", "MIC"}
SYSTEM_NAMES = {"#recycle", "$recycle.bin", "system volume information", "__macosx", "lost+found"}
SYSTEM_NAMES |= {"thumbs.db", "desktop.ini"}


class Notes:
    """What was passed over or read in part in a folder, by reason.

    Args:
        folder: Names are shown from here.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.files: dict[str, list[Path]] = {}

    def add(self, reason: str, file: Path) -> None:
        self.files.setdefault(reason, []).append(file)

    def lines(self) -> list[str]:
        """A line for each reason: how many, and the names of the first three."""
        return [
            f"{shown(self.folder)}: {len(files)} {reason}: "
            + ", ".join(shown(file.relative_to(self.folder)) for file in files[:3])
            + (", ..." if len(files) > 3 else "")
            for reason, files in self.files.items()
        ]


def picture_files(folder: Path, notes: Notes) -> list[Path]:
    """The files at any depth that Pillow reads, in the order of their names; `notes` gets all others.

    Links are followed, to each folder once. A file whose suffix is no picture's counts if its first bytes are one's.
    """
    return list(_walk(folder, notes, set()))


def _walk(folder: Path, notes: Notes, visited: set[tuple[int, int]]) -> Iterator[Path]:
    try:
        about = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        notes.add(f"left out, cannot be read ({error.strerror})", folder)
        return
    if (about.st_dev, about.st_ino) in visited:
        notes.add("left out, links to a folder that is read already", folder)
        return
    visited.add((about.st_dev, about.st_ino))
    for entry in entries:
        path = folder / entry.name
        if is_system(entry.name):
            notes.add("left out, hidden or a system's own", path)
        elif entry.is_dir():
            yield from _walk(path, notes, visited)
        elif not path.exists():
            notes.add("left out, links to nothing", path)
        elif not entry.is_file():
            notes.add("left out, not regular files", path)
        elif path.suffix.lower() in suffixes() or _looks_like_a_picture(path):
            yield path
        else:
            notes.add("left out, not pictures that Pillow reads", path)


def is_system(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or made by a system or a file server for itself."""
    return name.startswith((".", "@")) or name.lower() in SYSTEM_NAMES


@cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read."""
    Image.init()
    return tuple(name for name in Image.OPEN if name not in REFUSED_FORMATS)


@cache
def suffixes() -> frozenset[str]:
    """The suffixes of these formats, in lower case."""
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats())


def _looks_like_a_picture(file: Path) -> bool:
    """Whether the first bytes are those of a format; formats that have no such mark cannot be told."""
    marked = [name for name in formats() if Image.OPEN[name][1]]
    try:
        with _large_pictures(), Image.open(file, formats=marked):
            return True
    except Exception:  # each format's decoder raises its own
        return False


def open_picture(file: Path, notes: Notes | None = None) -> Image.Image:
    """A picture, decoded: the first page or frame, which `notes` is told where there are several.

    Raises:
        InputError: It is not a regular file, or cannot be decoded.
    """
    with _readable(f"image {shown(file)}"):
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe would be waited for
            raise InputError("it is not a regular file; remove it")
        with _large_pictures(), Image.open(file, formats=formats()) as picture:
            is_16_bit = any(";16" in str(tile) for tile in picture.tile)
            if notes is not None and picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
                notes.add("of several pages or frames, of which the first is read", file)
            picture.load()
        if is_16_bit and picture.mode in ("RGB", "RGBA"):  # of which Pillow keeps the upper 8
            _check_depth(max(high for _, high in picture.getextrema()[:3]) * 256)
        return picture


def read_picture(
    file: Path, image_shape: tuple[int, int, int], background: str = "white", notes: Notes | None = None
) -> np.ndarray:
    """A picture from a file by `fit_picture`; one that cannot be read or converted is an `InputError`."""
    picture = open_picture(file, notes)
    with _readable(f"image {shown(file)}"):
        return fit_picture(picture, image_shape, background)


def fit_pictures(
    pictures: Sequence[Image.Image], image_shape: tuple[int, int, int], background: str
) -> np.ndarray:
    """Pictures by `fit_picture`, uint8 (N, H, W, C); one that is closed, damaged or refused is an `InputError`."""
    images = np.empty((len(pictures), *image_shape), np.uint8)
    for i, picture in enumerate(pictures):
        with _readable(f"picture {i} of {len(pictures)}"), _large_pictures():
            images[i] = fit_picture(picture, image_shape, background)
    return images


@contextmanager
def _readable(noun: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{noun} cannot be read: {error}") from error
    except Exception as error:  # of many kinds: each format's decoder raises its own
        cause = error.strerror if isinstance(error, OSError) and error.strerror else error
        cause = cause if str(cause) else "is it closed?"  # as Pillow's assertion means
        raise InputError(f"{noun} cannot be read ({cause}); remove or repair it") from error


@contextmanager
def _large_pictures() -> Iterator[None]:
    """Have Pillow decode up to `MAX_PIXELS`: it refuses a scan of half as many."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # it warns from here on and refuses twice as many
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def fit_picture(
    picture: Image.Image, image_shape: tuple[int, int, int], background: str = "white"
) -> np.ndarray:
    """A picture of any size as a viewer shows it, centre-cropped and scaled to `image_shape`, grey or RGB; uint8.

    Args:
        background: What shows through transparent pixels, one of `BACKGROUNDS`.

    Raises:
        InputError: It has no pixels; or values of more than 8 bits are beyond their range, or seem to be in another.
    """
    height, width, channels = image_shape
    picture = as_shown(picture, background).convert("L" if channels == 1 else "RGB")
    return np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.BOX)).reshape(image_shape)


def as_shown(picture: Image.Image, background: str = "white") -> Image.Image:
    """A picture upright, opaque, of 8 bits and in sRGB: of mode `RGB`, or `L` where it is grey.

    Raises:
        InputError: As for `fit_picture`.
    """
    if 0 in picture.size:
        raise InputError("it is {} x {} pixels, of which there are none; remove it".format(*picture.size))
    about = picture.info
    is_white_zero = getattr(picture, "tag_v2", {}).get(262) == 0  # TIFF's PhotometricInterpretation
    picture = ImageOps.exif_transpose(picture)
    alpha = None
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        values = np.asarray(picture)
        if "transparency" in about:
            alpha = Image.fromarray(np.uint8(255) * (values != about["transparency"]))
        picture = _in_8_bits(values, is_white_zero)
    elif picture.has_transparency_data:
        picture = (picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA")
        alpha = picture.getchannel("A")
    picture = _in_srgb(picture, about)
    if alpha is not None:
        picture = Image.composite(picture, Image.new(picture.mode, picture.size, background), alpha)
    return picture


def _in_8_bits(values: np.ndarray, is_white_zero: bool) -> Image.Image:
    """Grey values of 16 bits, or of 32 in the range of 16, or floats in [0, 1], scaled to 8 bits."""
    full = 1 if np.issubdtype(values.dtype, np.floating) else 65535
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= full):  # NaN is neither
        raise InputError(f"its values go from {low:g} to {high:g}, expected 0 to {full}; scale them")
    if full > 1:
        _check_depth(high)
    scaled = np.round(values * np.float32(255 / full)).astype(np.uint8)
    return Image.fromarray(255 - scaled if is_white_zero else scaled)


def _check_depth(high: int) -> None:
    if 0 < high < 4096:
        raise InputError(
            f"its 16-bit values reach only {high} of 65535, as those of 12 bits or less do; scale them"
        )


def _in_srgb(picture: Image.Image, about: dict) -> Image.Image:
    """The colours that an embedded profile or a PNG's gamma stands for."""
    if picture.mode not in ("L", "RGB", "CMYK", "LAB"):
        picture = picture.convert("RGB")
    transform = _to_srgb(about.get("icc_profile"), picture.mode)
    if transform is not None:
        return ImageCms.applyTransform(picture, transform)
    exponent = 1 / (2.2 * about["gamma"]) if about.get("gamma") and "srgb" not in about else 1
    if picture.mode == "CMYK":
        picture = picture.convert("RGB")
    if abs(exponent - 1) < 0.05 or about.get("icc_profile"):
        return picture
    return picture.point(
        [round(255 * (level / 255) ** exponent) for level in range(256)] * len(picture.getbands())
    )


@lru_cache(16)
def _to_srgb(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """How to bring a mode's values, in an ICC profile or none, to sRGB; None where they are or nobody can."""
    srgb = ImageCms.createProfile("sRGB")
    if mode == "LAB":
        return ImageCms.buildTransform(ImageCms.createProfile("LAB"), srgb, mode, "RGB")
    if not profile:
        return None
    try:
        transform = ImageCms.buildTransform(ImageCms.ImageCmsProfile(io.BytesIO(profile)), srgb, mode, "RGB")
    except (OSError, ImageCms.PyCMSError):  # broken, or of another colour space: viewers show what is stored
        return None
    if mode == "CMYK":
        return transform
    # What is all but sRGB would change last digits alone.
    colours = np.stack(np.meshgrid(*[np.arange(0, 256, 51, dtype=np.uint8)] * 3), -1).reshape(1, -1, 3)
    probe = Image.fromarray(colours).convert(mode)
    before, after = (
        np.asarray(p.convert("RGB"), int) for p in (probe, ImageCms.applyTransform(probe, transform))
    )
    return transform if abs(after - before).max() > 1 else None
