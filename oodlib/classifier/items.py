"""Pictures and pairs of picture and label, one at a time: read, transformed and joined to batches."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from oodlib.classifier.labels import Labels
from oodlib.classifier.transforms import Transform, transformed
from oodlib.errors import InputError
from oodlib.files import shown
from oodlib.pictures import open_picture

BATCH_SIZE = 64

# What cannot be taken comes as the error, which a worker could not raise on one line.
Item = tuple[Tensor, int | None] | InputError


class Files(Dataset):
    """The pictures in files."""

    def __init__(
        self, files: Sequence[Path], labels: np.ndarray | None, transform: Transform, background: str
    ):
        self.files, self.labels, self.transform, self.background = files, labels, transform, background

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Item:
        file = self.files[index]
        try:
            image = transformed(open_picture(file), self.transform, self.background, f"image {shown(file)}")
        except InputError as error:
            return error
        return image, None if self.labels is None else int(self.labels[index])


class Items(Dataset):
    """Images, or pairs of image and label, of a sequence: PIL images and arrays are transformed, tensors are."""

    def __init__(self, images: Any, transform: Transform, background: str, labels: Labels | None):
        self.images, self.transform, self.background = images, transform, background
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        item = self.images[index]
        try:
            image, label = members(item, index)
            number = None if self.labels is None else self.labels.number(label, index)
            return self._transformed(image, index), number
        except InputError as error:
            return error
        except (TypeError, ValueError) as error:
            return InputError(f"image {index} cannot be taken: {error}")

    def _transformed(self, image: Any, index: int) -> Tensor:
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)
        if isinstance(image, Image.Image):
            return transformed(image, self.transform, self.background, f"image {index}")
        if not isinstance(image, Tensor):
            raise InputError(f"image {index} is a {type(image).__name__}, expected a PIL image or a tensor")
        if not image.is_floating_point():
            raise InputError(f"image {index} is a tensor of {image.dtype}; transform it to floats")
        return image


def members(item: Any, index: int) -> tuple[Any, Any]:
    """The image and the label, None where it has none, of what a sequence has at an index."""
    if not isinstance(item, tuple | list):
        return item, None
    if len(item) not in (1, 2):
        raise InputError(f"item {index} has {len(item)} members, expected an image and its label")
    return item[0], item[1] if len(item) == 2 else None


def batches(items: Dataset, workers: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Images and labels by 64, read by so many processes."""
    loader = DataLoader(
        items, BATCH_SIZE, num_workers=workers, collate_fn=_collate, pin_memory=torch.cuda.is_available()
    )
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        yield batch


def _collate(items: list[Item]) -> tuple[Tensor, Tensor | None] | InputError:
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
