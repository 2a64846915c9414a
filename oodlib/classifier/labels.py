"""Labels as users have them: whole numbers that count the outputs of a network, or names of classes."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any
from unicodedata import normalize

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from oodlib.errors import InputError


def names_of_classes(class_names: Any) -> tuple[str, ...]:
    """Names of classes as they were given, with letters composed, as those of folders are.

    Raises:
        InputError: They have no order or are no names, or two are one.
    """
    if isinstance(class_names, str | bytes | Mapping | Set) or not hasattr(class_names, "__len__"):
        raise InputError(
            f"class_names is a {type(class_names).__name__}, expected a list of names in the order of the outputs"
        )
    names = tuple(normalize("NFC", str(name)) for name in class_names)
    if len(set(names)) < len(names):
        raise InputError("two classes have one name; give each its own, in the order of the outputs")
    return names


@dataclass(frozen=True)
class Labels:
    """What the labels of images may be."""

    noun: str
    """Which images they are, such as `training`."""
    class_names: tuple[str, ...]

    def missing(self) -> InputError:
        """The error for images that have none."""
        return InputError(
            f"the {self.noun} images have no labels; give pairs of image and label, or class folders"
        )

    def number(self, label: Any, index: int) -> int:
        """The label of the image with this index, as a number.

        Raises:
            InputError: It is neither the number of an output nor the name of a class.
        """
        image, last = f"image {index} of the {self.noun} images", len(self.class_names) - 1
        if label is None:
            raise InputError(f"{image} has no label; give pairs of image and label, or class folders")
        if isinstance(label, str):
            name = normalize("NFC", label)
            if name not in self.class_names:
                raise InputError(
                    f"the label of {image} is {label!r}, which is none of {', '.join(self.class_names)}"
                )
            return self.class_names.index(name)
        value = np.asarray(label.tolist() if isinstance(label, Tensor) else label)
        if value.size != 1:
            raise InputError(
                f"the label of {image} has shape {value.shape}, expected one number; of one-hot labels give the argmax"
            )
        if value.dtype.kind not in "biuf" or value.item() != np.floor(value.item()):
            raise InputError(
                f"the label of {image} is {label!r}, expected a whole number or the name of a class"
            )
        if not 0 <= value.item() <= last:
            raise InputError(
                f"the label of {image} is {value.item()}, expected 0 to {last}: labels count outputs from 0"
            )
        return int(value.item())

    def numbers(self, labels: Any, start: int, count: int) -> list[int]:
        """The labels of a batch of `count` images, of which the first has the index `start`; see `number`."""
        if labels is None:
            raise self.missing()
        values = labels.tolist() if isinstance(labels, Tensor | np.ndarray) else labels
        if not isinstance(values, list | tuple) or len(values) != count:
            raise InputError(
                f"the labels of a batch of {count} {self.noun} images are a {type(labels).__name__} of "
                f"{np.size(values)}, expected one for each"
            )
        return [self.number(value, start + i) for i, value in enumerate(values)]

    def check_order(self, images: Any) -> None:
        """Raise `InputError` where labels are numbers of the same names in another order, which `classes` of a data set
        tells, as that of an `ImageFolder` does."""
        while isinstance(images, DataLoader | Subset):
            images = images.dataset
        classes = getattr(images, "classes", None)
        if not isinstance(classes, list | tuple) or getattr(images, "target_transform", None) is not None:
            return
        names = [normalize("NFC", str(name)) for name in classes]
        if names != list(self.class_names) and sorted(names) == sorted(self.class_names):
            raise InputError(
                f"the classes of the {self.noun} images are {', '.join(names)}, and class_names has another order; if "
                "the network was trained on these labels, give class_names=data.classes, else class folders or names "
                "as labels"
            )
