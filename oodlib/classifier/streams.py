"""Where images come from that a network of one's own is to see: batches of tensors, never all of them in memory."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from oodlib.classifier.items import BATCH_SIZE, Files, Items, batches, members
from oodlib.classifier.labels import Labels
from oodlib.classifier.transforms import Transform, described
from oodlib.datasets.own import list_folder
from oodlib.errors import InputError, tell
from oodlib.images import ImageSet


class Stream(NamedTuple):
    """Images to be streamed."""

    title: str
    batches: Callable[[], Iterator[tuple[Tensor, Tensor | None]]]
    """Transformed images (N, ...) and their labels, int64 (N,), or None."""
    count: int | None
    """Number of images, None where only the end tells it."""
    key: str | None = None
    """Of a folder, a hash of its list of files and of how they are read; else None."""
    names: Sequence[str] | None = None
    """Of the files."""
    labels: np.ndarray | None = None
    """int64 (N,), where they are known before the images are read."""
    has_names: bool = False
    """Whether labels are names of classes, not numbers of outputs."""


def stream_of(
    images: Any,
    transform: Transform,
    labels: Labels | None = None,
    *,
    background: str = "white",
    workers: int = 0,
) -> Stream:
    """The stream that images stand for.

    Args:
        images: A folder, by its path, with a sub-folder for each class where there are labels; a `Dataset` or
            `DataLoader`, of images or of pairs of image and label; an `ImageSet`; PIL images; a uint8 array
            (N, H, W, C) or (N, H, W); or a tensor (N, ...) of floats, which is taken as transformed.
        transform: Of PIL images; tensors that a data set or a loader gives are taken as transformed.
        labels: What the labels may be, which each image then needs: sub-folders, or second members of pairs. None to
            pass over them.
        workers: Processes that read a folder or a `Dataset`.

    Raises:
        InputError: They are something else, a folder is not as expected, or labels are missing. What can be known of
            labels before all images are read is checked here.
    """
    if isinstance(images, str | Path):
        return _of_folder(Path(images).expanduser(), transform, labels, background, workers)
    if isinstance(images, IterableDataset):
        raise InputError("the images are a data set without a length; give a DataLoader of it")
    if isinstance(images, DataLoader):
        if labels is not None:
            labels.check_order(images)
        return Stream("data loader", lambda: _of_loader(images, labels), _length(images.dataset))
    if isinstance(images, ImageSet):
        return _of_image_set(images, transform, labels, background)
    _check_form(images)
    if labels is not None and isinstance(images, Tensor | np.ndarray):
        raise labels.missing()
    if isinstance(images, Tensor):
        return Stream("tensor", lambda: ((part, None) for part in images.split(BATCH_SIZE)), len(images))
    items = Items(images, transform, background, labels)
    known = None if labels is None else _known_labels(items, labels)
    is_dataset = isinstance(images, Dataset)
    title = "data set" if is_dataset else "images"
    has_names = labels is not None and isinstance(members(images[0], 0)[1], str)
    if labels is not None and not has_names:
        labels.check_order(images)
    return Stream(
        title,
        lambda: batches(items, workers if is_dataset else 0),
        len(items),
        labels=known,
        has_names=has_names,
    )


def _check_form(images: Any) -> None:
    """Raise `InputError` for what is neither a tensor or array of images nor a sequence of some."""
    if isinstance(images, Image.Image):
        raise InputError("the images are one picture; give a list of it")
    if isinstance(images, Tensor):
        if not images.is_floating_point():
            raise InputError(
                f"the images are a tensor of {images.dtype}; give floats, transformed, or a uint8 array"
            )
        if images.ndim < 2 or not len(images):
            raise InputError(f"the images are a tensor of shape {tuple(images.shape)}, expected N x ...")
    elif isinstance(images, np.ndarray):
        is_one = images.ndim == 3 and images.shape[2] in (3, 4)  # or three columns of grey, which nobody has
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or not len(images) or is_one:
            raise InputError(
                f"the images are an array of {images.dtype} of shape {images.shape}, expected uint8, N x H x W x C; "
                "one image is images[None]"
            )
    elif not hasattr(images, "__getitem__") or not hasattr(images, "__len__") or not len(images):
        raise InputError(
            f"the images are {type(images).__name__}; expected a folder, a Dataset or DataLoader, PIL images, a uint8 "
            "array or a tensor of floats"
        )
    elif isinstance(images, tuple | list) and len(images) == 2 and isinstance(images[0], Tensor | np.ndarray):
        first, second = images
        # One image has two or three dimensions.
        if first.ndim == 4 or isinstance(second, list) or getattr(second, "ndim", None) == 1:
            raise InputError(
                "the images are a pair of arrays, expected pairs of image and label; give list(zip(X, y)), or "
                "TensorDataset(X, y) of transformed images"
            )


def _known_labels(items: Items, labels: Labels) -> np.ndarray | None:
    """Those of a list; of anything else, which may read an image to tell its label, the first item is tried."""
    if isinstance(items.images, tuple | list):
        found = [members(item, i)[1] for i, item in enumerate(items.images)]
        if all(label is None for label in found):
            raise labels.missing()
        return np.array([labels.number(label, i) for i, label in enumerate(found)])
    first = items[0]
    if isinstance(first, InputError):
        raise first
    return None


def _of_image_set(images: ImageSet, transform: Transform, labels: Labels | None, background: str) -> Stream:
    if labels is None:
        items = Items(images.images, transform, background, None)
        return Stream("images", lambda: batches(items, 0), len(items))
    if images.labels is None:
        raise labels.missing()
    unknown = [name for name in images.class_names if name not in labels.class_names]
    if unknown:
        raise InputError(
            f"the images are of class {unknown[0]}, which is none of {', '.join(labels.class_names)}"
        )
    numbers = np.array([labels.class_names.index(name) for name in images.class_names])[images.labels]
    items = Items(list(zip(images.images, numbers.tolist(), strict=True)), transform, background, labels)
    return Stream("images", lambda: batches(items, 0), len(items), labels=numbers, has_names=True)


def _of_folder(
    folder: Path, transform: Transform, labels: Labels | None, background: str, workers: int
) -> Stream:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one with pictures")
    pictures = list_folder(folder, labels is not None, None if labels is None else labels.class_names)
    if labels is not None and pictures.labels is None:
        raise InputError(f"{folder} has no sub-folder for each class; its images need labels")
    for line in pictures.notes.lines():
        tell(line)
    names = [file.relative_to(folder).as_posix() for file in pictures.files]
    stamps = [(name, *_stamp(file)) for name, file in zip(names, pictures.files, strict=True)]
    items = Files(pictures.files, pictures.labels, transform, background)
    key = _key([str(folder.resolve()), repr(stamps), background], transform)
    return Stream(folder.name, lambda: batches(items, workers), len(items), key, names, pictures.labels, True)


def _stamp(file: Path) -> tuple[int, int]:
    about = file.stat()
    return about.st_size, about.st_mtime_ns


def _key(contents: Sequence[str], transform: Transform) -> str | None:
    """A hash of what is read and of what the transform makes of it; None where nothing tells."""
    result = described(transform)
    if result is None:
        return None
    return hashlib.blake2b("\n".join([*contents, result]).encode(), digest_size=8).hexdigest()


def _length(items: Any) -> int | None:
    try:
        return len(items)
    except TypeError:
        return None


def _of_loader(loader: DataLoader, labels: Labels | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    count = 0
    for batch in loader:
        is_tuple = isinstance(batch, tuple | list) and len(batch) in (1, 2)
        images, of_images = (*batch, None)[:2] if is_tuple else (batch, None)
        if not isinstance(images, Tensor) or not images.is_floating_point():
            raise InputError(
                f"the data loader gives {type(images).__name__}, expected float tensors or pairs of them and labels"
            )
        if labels is None:
            yield images, None
        else:
            yield images, torch.tensor(labels.numbers(of_images, count, len(images)))
        count += len(images)
