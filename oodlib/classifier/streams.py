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
from torchvision.transforms.functional import pil_to_tensor

from oodlib.datasets.own import list_folder
from oodlib.errors import InputError, tell
from oodlib.files import fingerprint
from oodlib.images import ImageSet
from oodlib.pictures import as_shown, open_picture

Transform = Callable[[Image.Image], Tensor]
"""From a PIL image in RGB to what the network takes, such as `ResNet50_Weights.DEFAULT.transforms()`."""
BATCH_SIZE = 64


class Stream(NamedTuple):
    """Images to be streamed."""

    title: str
    batches: Callable[[], Iterator[tuple[Tensor, Tensor | None]]]
    """Transformed images (N, ...) and their labels, int64 (N,), or None."""
    count: int | None
    """Number of images, None where only the end tells it."""
    key: str | None
    """Of a folder, a hash of its list of files and of how they are read; else None."""
    names: Sequence[str] | None = None
    """Of the files."""
    labels: np.ndarray | None = None
    """int64 (N,), where they are known before the images are read."""


def to_unit_range(picture: Image.Image) -> Tensor:
    """What is done where no transform is given: float32 (C, H, W) in [0, 1] at the picture's own size."""
    return pil_to_tensor(picture).float() / 255


def stream_of(
    images: Any,
    transform: Transform,
    class_names: Sequence[str],
    *,
    with_labels: bool = True,
    background: str = "white",
    workers: int = 0,
) -> Stream:
    """The stream that images stand for.

    Args:
        images: A folder, by its path, with a sub-folder for each class where there are labels; a `Dataset` or
            `DataLoader`, of images or of pairs of image and label; an `ImageSet`; PIL images; a uint8 array
            (N, H, W, C) or (N, H, W); or a tensor (N, ...) of floats, which is taken as transformed.
        transform: Of PIL images; tensors that a data set or a loader gives are taken as transformed.
        with_labels: Whether sub-folders and second members of pairs are labels.
        workers: Processes that read a folder or a `Dataset`.

    Raises:
        InputError: They are something else, or a folder is not as expected.
    """
    if isinstance(images, str | Path):
        return _of_folder(Path(images).expanduser(), transform, class_names, with_labels, background, workers)
    if isinstance(images, IterableDataset):
        raise InputError("the images are a data set without a length; give a DataLoader of it")
    if isinstance(images, DataLoader):
        return Stream("data loader", lambda: _of_loader(images, with_labels), _length(images.dataset), None)
    if isinstance(images, ImageSet):
        return _of_image_set(images, transform, class_names, with_labels, background)
    if isinstance(images, Tensor):
        if not images.is_floating_point():
            raise InputError(
                f"the images are a tensor of {images.dtype}; give floats, transformed, or a uint8 array"
            )
        return Stream(
            "tensor", lambda: ((part, None) for part in images.split(BATCH_SIZE)), len(images), None
        )
    if isinstance(images, np.ndarray):
        is_one = images.ndim == 3 and images.shape[2] in (3, 4)  # or three columns of grey, which nobody has
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or not len(images) or is_one:
            raise InputError(
                f"the images are an array of {images.dtype} of shape {images.shape}, expected uint8, N x H x W x C; "
                "one image is images[None]"
            )
    items = _Items(images, transform, background, with_labels) if hasattr(images, "__getitem__") else None
    if items is None or not len(items):
        raise InputError(
            f"the images are {type(images).__name__}; expected a folder, a Dataset or DataLoader, PIL images, a uint8 "
            "array or a tensor of floats"
        )
    is_dataset = isinstance(images, Dataset)
    title = "data set" if is_dataset else "images"
    return Stream(title, lambda: _batches(items, workers if is_dataset else 0), len(items), None)


def _of_image_set(
    images: ImageSet,
    transform: Transform,
    class_names: Sequence[str],
    with_labels: bool,
    background: str,
) -> Stream:
    items, labels = images.images, None
    if with_labels and images.labels is not None:
        unknown = [name for name in images.class_names if name not in class_names]
        if unknown:
            raise InputError(
                f"the images are of class {unknown[0]}, which is none of {', '.join(class_names)}"
            )
        labels = np.array([class_names.index(name) for name in images.class_names])[images.labels]
        items = list(zip(images.images, labels.tolist(), strict=True))
    dataset = _Items(items, transform, background, with_labels)
    return Stream("images", lambda: _batches(dataset, 0), len(items), None, None, labels)


def _of_folder(
    folder: Path,
    transform: Transform,
    class_names: Sequence[str],
    with_labels: bool,
    background: str,
    workers: int,
) -> Stream:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one with pictures")
    pictures = list_folder(folder, with_labels, class_names if with_labels else None)
    if with_labels and pictures.labels is None:
        raise InputError(f"{folder} has no sub-folder for each class; its images need labels")
    for line in pictures.notes.lines():
        tell(line)
    names = [file.relative_to(folder).as_posix() for file in pictures.files]
    stamps = [(name, *_stamp(file)) for name, file in zip(names, pictures.files, strict=True)]
    items = _Files(pictures.files, pictures.labels, transform, background)
    key = _key([str(folder.resolve()), repr(stamps), background], transform)
    return Stream(folder.name, lambda: _batches(items, workers), len(items), key, names, pictures.labels)


def _stamp(file: Path) -> tuple[int, int]:
    about = file.stat()
    return about.st_size, about.st_mtime_ns


def _key(contents: Sequence[str], transform: Transform) -> str | None:
    """A hash of what is read and of what the transform makes of it; None where nothing tells."""
    result = described(transform)
    if result is None:
        return None
    return hashlib.blake2b("\n".join([*contents, result]).encode(), digest_size=8).hexdigest()


def described(transform: Transform) -> str | None:
    """A hash of what a transform makes of a picture of noise, as its name may hide what it does; None where it fails or
    makes something else each time."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8))
    try:
        first, again = (fingerprint(transformed(noise.copy(), transform).float().numpy()) for _ in range(2))
    except Exception:  # whatever the transform raises: its own images may be of another kind
        return None
    return first if first == again else None


def _length(items: Any) -> int | None:
    try:
        return len(items)
    except TypeError:
        return None


class _Files(Dataset):
    """The pictures in files. What cannot be read comes as the error, which a worker could not raise on one line."""

    def __init__(
        self, files: Sequence[Path], labels: np.ndarray | None, transform: Transform, background: str
    ):
        self.files, self.labels, self.transform, self.background = files, labels, transform, background

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int | None] | InputError:
        try:
            image = transformed(open_picture(self.files[index]), self.transform, self.background)
        except InputError as error:
            return error
        return image, None if self.labels is None else int(self.labels[index])


class _Items(Dataset):
    """Images, or pairs of image and label, of a sequence: PIL images and arrays are transformed, tensors are."""

    def __init__(self, images: Any, transform: Transform, background: str, with_labels: bool):
        self.images, self.transform, self.background, self.with_labels = (
            images,
            transform,
            background,
            with_labels,
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int | None] | InputError:
        image, label = self.images[index], None
        try:
            if isinstance(image, tuple | list):
                if len(image) != 2:
                    raise InputError(
                        f"item {index} has {len(image)} members, expected an image and its label"
                    )
                image, label = image[0], (_label(image[1]) if self.with_labels else None)
            if isinstance(image, np.ndarray):
                image = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)
            if isinstance(image, Tensor) and not image.is_floating_point():
                raise InputError(f"image {index} is a tensor of {image.dtype}; transform it to floats")
            if isinstance(image, Image.Image):
                image = transformed(image, self.transform, self.background)
            if not isinstance(image, Tensor):
                raise InputError(
                    f"image {index} is a {type(image).__name__}, expected a PIL image or a tensor"
                )
        except InputError as error:
            return error
        except (TypeError, ValueError) as error:
            return InputError(f"image {index} cannot be taken: {error}")
        return image, label


def _label(label: Any) -> int:
    if int(label) != label:
        raise InputError(f"a label is {label!r}, expected a whole number")
    return int(label)


def transformed(picture: Image.Image, transform: Transform, background: str = "white") -> Tensor:
    """A picture as the network takes it: as a viewer shows it, in RGB, transformed.

    Raises:
        InputError: The transform gives no tensor, or see `pictures.as_shown`.
    """
    image = transform(as_shown(picture, background).convert("RGB"))
    if not isinstance(image, Tensor):
        raise InputError(
            f"the transform gives a {type(image).__name__}, expected a tensor; end it with ToTensor()"
        )
    return image


def _batches(items: Dataset, workers: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    loader = DataLoader(
        items, BATCH_SIZE, num_workers=workers, collate_fn=_collate, pin_memory=torch.cuda.is_available()
    )
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        yield batch


def _collate(items: list) -> tuple[Tensor, Tensor | None] | InputError:
    for item in items:
        if isinstance(item, InputError):
            return item
    images, labels = zip(*items, strict=True)
    shapes = sorted({tuple(image.shape) for image in images})
    if len(shapes) > 1:
        return InputError(
            f"the transform gives images of shapes {shapes[0]} and {shapes[1]}; crop or resize in it"
        )
    return torch.stack(images), None if labels[0] is None else torch.tensor(labels)


def _of_loader(loader: DataLoader, with_labels: bool) -> Iterator[tuple[Tensor, Tensor | None]]:
    for batch in loader:
        images, labels = batch if isinstance(batch, tuple | list) and len(batch) == 2 else (batch, None)
        if not isinstance(images, Tensor) or not images.is_floating_point():
            raise InputError(
                f"the data loader gives {type(images).__name__}, expected float tensors or pairs of them and labels"
            )
        if with_labels and labels is not None:
            labels = torch.as_tensor(labels)
            if labels.is_floating_point() or labels.ndim != 1:
                raise InputError(
                    f"labels are {labels.dtype} of shape {tuple(labels.shape)}, expected one integer an image"
                )
        yield images, (labels.long() if with_labels and labels is not None else None)
