"""Image sets of one's own: folders of pictures and `.npz` files."""

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import NamedTuple
from unicodedata import category, normalize

import numpy as np
from numpy.lib import format as npy

from oodlib.errors import InputError, one_line, tell
from oodlib.files import shown
from oodlib.images import ImageSet
from oodlib.pictures import Notes, is_system, picture_files, read_picture

DEFLATE_LIMIT = 1032  # how many times smaller than its contents a compressed file can be


class PictureFolder(NamedTuple):
    """The pictures of a folder, with labels where its sub-folders are classes."""

    files: list[Path]
    labels: np.ndarray | None
    """int64 (N,), indices into `class_names`."""
    class_names: tuple[str, ...]
    notes: Notes
    """What is left out."""


def list_folder(
    folder: Path, with_labels: bool = True, class_names: Sequence[str] | None = None
) -> PictureFolder:
    """The pictures in a folder at any depth; sub-folders that hold some are classes.

    Args:
        with_labels: Whether sub-folders are classes; pictures beside them are then left out.
        class_names: Names that labels count in; those of the sub-folders if None.

    Raises:
        InputError: There are no pictures, a class has none, or a sub-folder is none of the classes.
    """
    notes = Notes(folder)
    files = picture_files(folder, notes)
    parents = [
        normalize("NFC", file.relative_to(folder).parts[0]) if file.parent != folder else None
        for file in files
    ]
    if not files:
        for line in notes.lines():
            tell(line)
        raise InputError(f"folder {shown(folder)} holds no pictures")
    names = sorted(set(parents) - {None}) if with_labels else []
    if not names:
        return PictureFolder(files, None, (), notes)
    class_names = tuple(class_names or names)
    _check_classes(folder, names, class_names)
    for file, parent in zip(files, parents, strict=True):
        if parent is None:
            notes.add("left out, beside the class folders", file)
    labels = [class_names.index(parent) for parent in parents if parent is not None]
    files = [file for file, parent in zip(files, parents, strict=True) if parent is not None]
    return PictureFolder(files, np.array(labels, np.int64), class_names, notes)


def from_folder(
    folder: Path,
    image_shape: tuple[int, int, int],
    background: str = "white",
    with_labels: bool = True,
    class_names: Sequence[str] | None = None,
) -> ImageSet:
    """The pictures of `list_folder`, at `image_shape`; prints what is left out.

    Args:
        background: What shows through transparent pixels, one of `pictures.BACKGROUNDS`.

    Raises:
        InputError: As for `list_folder`, and where a picture cannot be read.
    """
    pictures = list_folder(folder, with_labels, class_names)
    images = np.empty((len(pictures.files), *image_shape), np.uint8)
    for i, file in enumerate(pictures.files):
        images[i] = read_picture(file, image_shape, background, pictures.notes)
    for line in pictures.notes.lines():
        tell(line)
    return ImageSet(images, pictures.labels, pictures.class_names)


def sub_folders(folder: Path) -> list[str]:
    """The names of the folders in a folder, without a system's own, with letters composed: macOS takes them apart.

    Raises:
        InputError: Two names look alike.
    """
    names = sorted(normalize("NFC", e.name) for e in folder.iterdir() if e.is_dir() and not is_system(e.name))
    looks = ["".join(c for c in name if category(c) != "Cf").strip() for name in names]
    for one, other in combinations(range(len(names)), 2):
        if looks[one] == looks[other]:
            raise InputError(
                f"{shown(folder)} holds two folders that look alike, {names[one]!a} and {names[other]!a}; "
                "rename or join them"
            )
    return names


def _check_classes(folder: Path, names: Sequence[str], class_names: Sequence[str]) -> None:
    for name in sub_folders(folder):
        if name not in names:
            raise InputError(f"class folder {shown(folder / name)} holds no pictures; add some or remove it")
        if one_line(name) != name:
            raise InputError(
                f"class folder {shown(folder / name)} has a control character in its name; rename it"
            )
    unknown = [name for name in names if name not in class_names]
    if unknown:
        raise InputError(
            f"{shown(folder)} holds the classes {', '.join(map(repr, unknown))}, the training images only "
            f"{', '.join(map(repr, class_names))}; rename or remove those folders"
        )


def from_npz(path: Path, with_labels: bool = True, class_names: Sequence[str] | None = None) -> ImageSet:
    """`images`, uint8, N x H x W or N x H x W x C, and, if wanted and there, `labels`, integers from 0.

    Args:
        class_names: What the labels count in; their own numbers, of which none may be missing, if None.

    Raises:
        InputError: The file is damaged, or its arrays are of another type, size or range.
    """
    with _npz(path) as file:
        images = _array(file, "images", path, np.uint8, "uint8, N x H x W or N x H x W x C", (3, 4))
        labels = (
            _array(file, "labels", path, np.integer, "integers, one for each image", (1,))
            if with_labels
            else None
        )
    if images.ndim == 3:
        images = images[..., None]
    if not images.size or images.shape[3] not in (1, 3):
        raise InputError(
            f"images in {path} have shape {images.shape}, expected N x H x W or N x H x W x C with C = 1 or 3"
        )
    if labels is None:
        return ImageSet(images, None, ())
    if labels.shape != (len(images),) or labels.min() < 0:
        raise InputError(f"labels in {path} must be {len(images)} integers from 0, one for each image")
    if class_names is None:
        class_names = _numbers(labels, path)
    elif labels.max() >= len(class_names):
        raise InputError(
            f"labels in {path} go up to {labels.max()}, expected 0 to {len(class_names) - 1}, as in training"
        )
    return ImageSet(images, labels.astype(np.int64), tuple(class_names))


def classes_in_npz(path: Path) -> tuple[str, ...]:
    """The names of the classes that the labels of an `.npz` count in."""
    with _npz(path) as file:
        labels = _array(file, "labels", path, np.integer, "integers, one for each image", (1,))
    return () if labels is None else _numbers(labels, path)


def _numbers(labels: np.ndarray, path: Path) -> tuple[str, ...]:
    classes = np.unique(labels).tolist()  # in Python, where no label is too large
    if classes and classes[-1] >= len(classes):
        missing = [c for c in range(min(classes[-1], len(classes) + 5)) if c not in classes]
        raise InputError(
            f"labels in {path} skip {missing[:5]}; number the classes from 0 without gaps, as "
            "numpy.unique(labels, return_inverse=True)[1] does"
        )
    return tuple(map(str, classes))


@contextmanager
def _npz(path: Path) -> Iterator[zipfile.ZipFile]:
    """An `.npz` that holds images; whatever is wrong with it becomes an `InputError`."""
    expected = "write it with numpy.savez(path, images=..., labels=...)"
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
            if "images.npy" not in names or "labels" in names:  # which is no array
                raise InputError(f"{path} holds {', '.join(names) or 'nothing'}; {expected}")
            yield file
    except InputError:
        raise
    except Exception as error:  # of many kinds: zip, compression and header have their own
        raise InputError(f"{path} cannot be read ({error}); {expected}") from error


def _array(
    file: zipfile.ZipFile, name: str, path: Path, dtype: type, expected: str, dimensions: tuple[int, ...]
) -> np.ndarray | None:
    """An array of the file, None where it is not there; read only once its header fits what is expected and what the
    file can hold."""
    if f"{name}.npy" not in file.namelist():
        return None
    about = file.getinfo(f"{name}.npy")
    with file.open(about) as stream:
        version = npy.read_magic(stream)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, stored = read_header(stream)
        header = stream.tell()
    if not np.issubdtype(stored, dtype) or len(shape) not in dimensions:
        raise InputError(f"{name} in {path} are {stored} of shape {shape}, expected {expected}")
    size = header + stored.itemsize * int(np.prod(shape, dtype=object))
    if size != about.file_size or size > DEFLATE_LIMIT * about.compress_size + header:
        raise InputError(f"{name} in {path} should be {size} bytes, which are not there; make the file again")
    with file.open(about) as stream:
        return npy.read_array(stream, allow_pickle=False)
