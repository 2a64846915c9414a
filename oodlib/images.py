"""The one door for images: pictures, folders of them, `.npz` files, arrays and tensors become uint8."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from oodlib.errors import InputError, choice

if TYPE_CHECKING:  # it takes seconds to import
    import torch

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
SPLITS = ("train", "val", "test")


class ImageSet(NamedTuple):
    """A set of images, with labels where it has them."""

    images: np.ndarray
    """uint8, (N, H, W, C) with C = 1 (grey) or 3 (RGB)."""
    labels: np.ndarray | None
    """int64 (N,), indices into `class_names`; None where the set has no classes."""
    class_names: tuple[str, ...]


def uint8_to_signed(
    images: "np.ndarray | torch.Tensor", device: "str | torch.device" = "cpu"
) -> "torch.Tensor":
    """Images as a diffusion model takes them, float32 (N, C, H, W) in [-1, 1].

    Args:
        images: uint8, an array (N, H, W, C), which is put on the device, or a tensor (N, C, H, W), which stays on its.
    """
    import torch

    if isinstance(images, np.ndarray):
        images = torch.tensor(images, device=device).permute(0, 3, 1, 2)
    return images.float() / 127.5 - 1


def signed_to_uint8(images: "torch.Tensor") -> np.ndarray:
    """Images (N, C, H, W), meant to lie in [-1, 1] and clipped to it, as uint8 (N, H, W, C)."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def fit_picture(picture: Image.Image, image_shape: tuple[int, int, int]) -> np.ndarray:
    """A picture of any size, turned upright as its EXIF orientation says, centre-cropped and scaled to `image_shape`,
    and turned grey or RGB; uint8."""
    height, width, channels = image_shape
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16"):  # which Pillow would clip to 255, not scale
        picture = Image.fromarray((np.asarray(picture) // 256).astype(np.uint8))
    picture = picture.convert("L" if channels == 1 else "RGB")
    return np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.BOX)).reshape(image_shape)


def picture_files(folder: Path) -> list[Path]:
    """The image files at any depth, in the order of their names, but for hidden ones."""
    files = (p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(p for p in files if not any(s.startswith(".") for s in p.relative_to(folder).parts))


def open_picture(file: Path) -> Image.Image:
    """A picture, decoded; one that cannot be is an `InputError`."""
    with _readable(file), Image.open(file) as picture:
        picture.load()
        return picture


def read_picture(file: Path, image_shape: tuple[int, int, int]) -> np.ndarray:
    """A picture from a file by `fit_picture`; one that cannot be read or converted is an `InputError`."""
    picture = open_picture(file)
    with _readable(file):
        return fit_picture(picture, image_shape)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of many kinds: each format's decoder raises its own
        raise InputError(f"image {file} cannot be read ({error}); remove or repair it") from error


def uint8_tensor(images: Any, image_shape: tuple[int, int, int]) -> "torch.Tensor":
    """Images as a uint8 tensor (N, C, H, W) on the CPU, always a copy.

    Args:
        images: uint8 or float in [0, 1], an array or tensor of shape N x H x W x C, N x C x H x W or (grey)
            N x H x W, or PIL images of any size, which are centre-cropped and scaled.
        image_shape: (H, W, C).

    Raises:
        InputError: The images are of another type, range or shape.
    """
    import torch

    height, width, channels = image_shape
    expected = f"expected N x {height} x {width} x {channels}, uint8 or float in [0, 1], or PIL images"
    if isinstance(images, Image.Image):
        images = [images]
    if isinstance(images, list | tuple):
        if not images or not all(isinstance(image, Image.Image) for image in images):
            raise InputError(
                f"images are a {type(images).__name__} of something else than pictures; {expected}"
            )
        images = np.stack([fit_picture(image, image_shape) for image in images])
    if not isinstance(images, np.ndarray | torch.Tensor):
        raise InputError(f"images are a {type(images).__name__}; {expected}")
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.array(images))  # a copy: neither read-only nor with negative strides
    images = images.detach().cpu()
    if images.ndim == 3 and channels == 1:
        images = images[..., None]
    if images.ndim != 4 or not len(images):
        raise InputError(f"images have shape {tuple(images.shape)}; {expected}")
    if tuple(images.shape[1:]) == tuple(image_shape):
        images = images.permute(0, 3, 1, 2)
    if tuple(images.shape[1:]) != (channels, height, width):
        raise InputError(f"images have shape {tuple(images.shape)}; {expected}")
    if images.is_floating_point():
        if not bool(((images >= 0) & (images <= 1)).all()):
            low, high = images.min().item(), images.max().item()
            raise InputError(f"images range from {low:.3g} to {high:.3g}; {expected}")
        images = (images.float() * 255).round().to(torch.uint8)
    if images.dtype != torch.uint8:
        raise InputError(f"images are {images.dtype}; {expected}")
    return images.clone(memory_format=torch.contiguous_format)


def from_folder(folder: Path, image_shape: tuple[int, int, int]) -> ImageSet:
    """All pictures in a folder, at `image_shape`; sub-folders are classes unless a picture lies beside them."""
    files = picture_files(folder)
    if not files:
        raise InputError(f"folder {folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    images = np.empty((len(files), *image_shape), np.uint8)
    for i, file in enumerate(files):
        images[i] = read_picture(file, image_shape)
    parents = [p.relative_to(folder).parts[0] if p.parent != folder else None for p in files]
    if None in parents:
        return ImageSet(images, None, ())
    class_names = tuple(sorted(set(parents)))
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and entry.name not in class_names and not entry.name.startswith("."):
            raise InputError(f"class folder {entry} holds no images; add some or remove it")
    labels = np.array([class_names.index(parent) for parent in parents], np.int64)
    return ImageSet(images, labels, class_names)


def from_npz(path: Path, with_labels: bool = True) -> ImageSet:
    """`images`, uint8, N x H x W or N x H x W x C, and, if wanted and there, `labels`, integers from 0."""
    try:
        with np.load(path) as file:
            if "images" not in file:
                raise InputError(f"{path} holds {', '.join(file)}; it needs an array called images")
            images = file["images"]
            labels = file["labels"] if with_labels and "labels" in file else None
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
    classes = np.unique(labels).tolist()  # in Python, where no label is too large
    if classes[-1] >= len(classes):
        missing = [c for c in range(min(classes[-1], len(classes) + 5)) if c not in classes]
        raise InputError(f"labels in {path} skip {missing[:5]}; number the classes from 0 without gaps")
    return ImageSet(images, labels.astype(np.int64), tuple(map(str, classes)))


def mean_and_std(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of uint8 images (N, H, W, C), in [0, 1]; of a channel that is all but
    constant the deviation is one grey level, as images are divided by it."""
    counts = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(images, -1, 0)])
    share, value = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
    mean = share @ value
    std = np.sqrt((share @ value**2 - mean**2).clip(0))
    return mean.tolist(), std.clip(1 / 255).tolist()


def split_of(source: str, whole: ImageSet, split: str, ends: tuple[float, float] = (0.6, 0.75)) -> ImageSet:
    """The named part of a labelled set: of each class the same share, drawn with a fixed seed.

    Args:
        ends: Where the shares of `train` and of `val` end.
    """
    choice("split", split, SPLITS)
    if whole.labels is None:
        raise InputError(
            f"{source} has no labels to train on; give a folder with a sub-folder a class, or labels"
        )
    rng = np.random.default_rng(0)
    part = []
    for label in range(len(whole.class_names)):
        index = rng.permutation(np.flatnonzero(whole.labels == label))
        cuts = np.round(np.array(ends) * len(index)).astype(int)
        part.append(np.split(index, cuts)[SPLITS.index(split)])
    index = np.sort(np.concatenate(part))
    return ImageSet(whole.images[index], whole.labels[index], whole.class_names)
