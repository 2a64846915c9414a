"""Named image sets as uint8 arrays in memory, the same on every machine.

The small in-distribution (ID) set is scikit-learn's handwritten digits, classes 0 to 7. Its out-of-distribution
(OOD) sets are made from what the dependencies ship: the digits 8 and 9, fonts, two photographs, noise.
The large one is CIFAR-10, with published OOD sets, taken from the data folder or fetched into it.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from oodlib.datasets import published
from oodlib.datasets.downloads import Unavailable
from oodlib.datasets.published import PUBLISHED
from oodlib.datasets.roles import ID_TEST, EvaluationSet, Role
from oodlib.datasets.synthetic import OOD_SETS, digits
from oodlib.errors import InputError, choice
from oodlib.files import home
from oodlib.images import SPLITS, ImageSet, from_folder, from_npz, split_of


def load(
    source: str,
    split: str = "test",
    *,
    image_shape: tuple[int, int, int] = (8, 8, 1),
    with_labels: bool = True,
) -> ImageSet:
    """Load a set by its name, or one's own from a folder or an `.npz` file.

    Args:
        source: One of

            - `digits`, or the sets of strange images `held_out`, `letters`, `symbols`, `photo_patches`, `gaussian`,
              `uniform`, `inverted`. Noise and photo patches come in another number than 1000 as `gaussian:10000`;
            - `cifar10`, or the OOD sets `cifar100`, `svhn`, `tin_crop`, `tin_resize`, `lsun_crop`, `lsun_resize`,
              `isun`, all 32 x 32 x 3. Each is taken from `<name>-test.npz` (and `cifar10-train.npz`, all 50,000)
              in the data folder, else from the published files there, else fetched;
            - the name of any other `<name>-test.npz` or `<name>-train.npz` in the data folder;
            - the path of an `.npz` with `images` (uint8, N x H x W or N x H x W x C) and, for an ID set, `labels`
              (integers from 0);
            - the path of a folder of images, one sub-folder a class where there are classes.
        split: `train`, `val` or `test`: a fixed, stratified split of a set with labels into 60, 15 and 25 %. A
            set in the data folder has its own test images, and its training images are split into 90 and 10 %.
            OOD sets are test sets and have no other split; `all` gives the whole of one's own set.
        with_labels: Whether labels of an `.npz` are looked at; of an OOD set they are not.
        image_shape: (H, W, C) of the images wanted. Images of a folder are centre-cropped to a square,
            scaled and turned grey or RGB; noise is made at this shape; any other set must have it.

    Raises:
        Unavailable: The set is not in the data folder and cannot be fetched.
        InputError: The set, its split, or its shape is not what it must be.
    """
    choice("split", split, (*SPLITS, "all"))
    name, options = _counted(source)
    if source == "digits":
        image_set = split_of(source, digits(range(8)), split)
    elif name in OOD_SETS:
        if split not in ("test", "all"):
            raise InputError(f"{source} is an OOD test set and has no split {split!r}")
        image_set = ImageSet(OOD_SETS[name].make(image_shape, **options), None, ())
    elif published.knows(source):
        if source in PUBLISHED:
            _check_shape(source, (32, 32, 3), image_shape)  # before anything is fetched
        part = "train" if split in ("train", "val") else "test"
        image_set = published.read(source, part, with_labels)
        if part == "train":
            image_set = split_of(source, image_set, split, ends=(0.9, 1))
    else:
        image_set = _own(source, image_shape, with_labels)
        if split != "all" and (image_set.labels is not None or split != "test"):
            image_set = split_of(source, image_set, split)
    if not len(image_set.images):
        raise InputError(f"no image of {source} falls to its {split} split; it needs more images a class")
    _check_shape(source, image_set.images.shape[1:], image_shape)
    return image_set


def load_ood(sources: Iterable[str], image_shape: tuple[int, int, int] = (8, 8, 1)) -> list[EvaluationSet]:
    """The whole of each OOD set, without labels: none of its classes is a detector's.

    A published set that cannot be had is left out, with a printed line that says why.
    """
    sets: list[EvaluationSet] = []
    for source in sources:
        key, title, role = identity(source)
        if key == ID_TEST:
            raise InputError(
                f"OOD set {source} is called {ID_TEST}, as the ID test set is in tables; rename it"
            )
        if any(key == other.key or title == other.title for other in sets):
            raise InputError(f"two OOD sets are called {title}; rename the folder or file of one")
        try:
            images = load(source, "all", image_shape=image_shape, with_labels=False).images
        except Unavailable as error:
            print(f"left out: {error}")
        else:
            sets.append(EvaluationSet(key, title, role, images, None, ()))
    if not sets:
        raise InputError("none of the OOD sets is there; name others, such as gaussian and uniform")
    return sets


def identity(source: str) -> tuple[str, str, Role]:
    """Key, title and role of an OOD set.

    The key of a set of one's own, and its title, is its name or the last part of its path without the suffix; it
    counts as far, whatever it is called.
    """
    name, _ = _counted(source)
    if name in OOD_SETS:
        return name, OOD_SETS[name].title, OOD_SETS[name].role
    if source in PUBLISHED:
        return source, published.title(source), PUBLISHED[source].role
    if published.knows(source):
        return source, published.title(source), Role.FAR
    return Path(source).stem, Path(source).stem, Role.FAR


def _counted(source: str) -> tuple[str, dict[str, int]]:
    """The set and options that `gaussian:10000` names; any other source as it is."""
    match = re.fullmatch(r"(gaussian|uniform|photo_patches):(.*)", source)
    if match is None:
        return source, {}
    if not re.fullmatch(r"[1-9]\d*", match[2]):
        raise InputError(f"OOD set {source!r}, expected a number of images after the colon: {match[1]}:10000")
    return match[1], {"count": int(match[2])}


def _check_shape(source: str, shape: tuple[int, ...], image_shape: tuple[int, int, int]) -> None:
    if tuple(shape) != tuple(image_shape):
        raise InputError(
            f"{source} has images of shape {tuple(shape)}, expected {tuple(image_shape)}; "
            "choose other sets or another image_shape (noise is made at any)"
        )


def _own(source: str, image_shape: tuple[int, int, int], with_labels: bool) -> ImageSet:
    path = Path(source).expanduser()
    for place in (path, home() / path):  # so that a path of a run's configuration holds in a notebook too
        if place.is_dir():
            return from_folder(place, image_shape)
        if place.suffix == ".npz" and place.is_file():
            return from_npz(place, with_labels)
    raise InputError(
        f"image set {source!r} is not known; give one of digits, {', '.join([*OOD_SETS, *PUBLISHED])}, "
        f"NAME for {published.data_folder()}/NAME-test.npz, or the path, from here or from the Snakefile, of a folder "
        "of images or of an .npz file"
    )
