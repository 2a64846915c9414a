"""Training, validation and test images: how a set is split, and what makes a split fit for an experiment."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from oodlib.errors import InputError, choice, tell
from oodlib.images import ImageSet

SPLITS = ("train", "val", "test")
FOLDER_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class Splits(NamedTuple):
    """The ID images of an experiment."""

    train: ImageSet
    val: ImageSet
    test: ImageSet


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


def split_folders(folder: Path) -> dict[str, Path]:
    """The sub-folders that are splits, by split: of a folder with one called train and one val, valid, validation or
    test, as data sets are published; of any other none."""
    found = {
        FOLDER_NAMES[entry.name.lower()]: entry
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and entry.name.lower() in FOLDER_NAMES
    }
    return found if "train" in found and len(found) > 1 else {}


def check(source: str, splits: Splits) -> None:
    """Print how many images are in two splits byte for byte.

    Raises:
        InputError: There are fewer than two classes, a class lacks training or validation images, or a test image is of
            none of the classes.
    """
    names = splits.train.class_names
    if len(names) < 2:
        raise InputError(f"{source} has one class, {names[0]!r}; a classifier needs two or more")
    for split, images in zip(SPLITS[:2], splits[:2], strict=True):
        missing = [name for label, name in enumerate(names) if label not in images.labels]
        if missing:
            raise InputError(
                f"{source} has no {split} images of {', '.join(map(repr, missing))}; add images of each class"
            )
    train, val, test = (hashes(images.images) for images in splits)
    print_overlap("validation", val, "training", train)
    print_overlap("test", test, "training", train)
    print_overlap("test", test, "validation", val)


def hashes(images: np.ndarray) -> list[bytes]:
    """A hash of each image, by which equal ones are found."""
    return [hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest() for image in images]


def print_overlap(noun: str, images: list[bytes], other_noun: str, others: list[bytes]) -> None:
    """Print how many images of a set, by their `hashes`, are in another as well, if any are."""
    count = sum(image in others for others in [set(others)] for image in images)
    if count:
        tell(
            f"{count} of {len(images)} {noun} images are {other_noun} images too, byte for byte; remove them"
        )
