"""Named image sets as uint8 arrays in memory, the same on every machine.

The small in-distribution (ID) set is scikit-learn's handwritten digits, classes 0 to 7. Its out-of-distribution
(OOD) sets are made from what the dependencies ship: the digits 8 and 9, fonts, two photographs, noise.
The large one is CIFAR-10, with published OOD sets, taken from the data folder or fetched into it.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from unicodedata import normalize

from oodlib.datasets import openood, own, published
from oodlib.datasets.downloads import Unavailable
from oodlib.datasets.published import PUBLISHED
from oodlib.datasets.roles import ID_TEST, EvaluationSet, Role, id_set
from oodlib.datasets.shifts import shifted_sets
from oodlib.datasets.splits import SPLITS, Splits, check, hashes, print_overlap, split_folders, split_of
from oodlib.datasets.synthetic import OOD_SETS, digits
from oodlib.errors import InputError, choice, one_line, tell
from oodlib.files import home, shown
from oodlib.images import ImageSet, check_levels
from oodlib.settings import Data, Settings


def load(
    source: str,
    split: str = "test",
    *,
    image_shape: tuple[int, int, int] = (8, 8, 1),
    background: str = "white",
    with_labels: bool = True,
) -> ImageSet:
    """Load a set by its name, or one's own from a folder or an `.npz` file.

    Args:
        source: One of

            - `digits`, or the OOD sets `held_out`, `letters`, `symbols`, `scripts`, `photo_patches`, `gaussian`,
              `uniform`, `inverted`. Noise and photo patches come in another number than 1000 as `gaussian:10000`;
            - `cifar10`, or the OOD sets `cifar100`, `svhn`, `tin_crop`, `tin_resize`, `lsun_crop`, `lsun_resize`,
              `isun`, all 32 x 32 x 3. Each is taken from `<name>-test.npz` (and `cifar10-train.npz`, all 50,000)
              in the data folder, else from the published files there, else fetched;
            - `openood/cifar100` and the other OOD sets of OpenOOD v1.5 for CIFAR-10, see `openood`;
            - the name of any other `<name>-test.npz` or `<name>-train.npz` in the data folder;
            - the path of an `.npz` with `images` (uint8, N x H x W or N x H x W x C) and, for an ID set, `labels`
              (integers from 0);
            - the path of a folder of pictures, one sub-folder a class where there are classes, or with the folders
              `train` and `val` (`valid`, `validation`) or `test`, in each of which there is one a class.
        split: `train`, `val` or `test`: a fixed, stratified split of a set with labels into 60, 15 and 25 %. A
            set in the data folder has its own test images, and its training images are split into 90 and 10 %;
            so are those of a folder with two splits of its own, of which the other serves as test images.
            OOD sets are test sets and have no other split; `all` gives the whole of one's own set.
        image_shape: (H, W, C) of the images wanted. Pictures of a folder are centre-cropped to a square,
            scaled and turned grey or RGB; noise is made at this shape; any other set must have it.
        background: What shows through transparent pixels of pictures, `white` or `black`.
        with_labels: Whether labels are looked at; those of an OOD set are not.

    Raises:
        Unavailable: The set is not in the data folder and cannot be fetched.
        InputError: The set, its split, or its shape is not what it must be.
    """
    choice("split", split, (*SPLITS, "all"))
    name, options = _counted(source)
    if name in ("digits", *OOD_SETS, *PUBLISHED) and Path(source).exists():
        tell(f"{source} is the built-in set of that name; write ./{source} for the one that lies here")
    if source == "digits":
        image_set = split_of(source, digits(range(8)), split)
    elif name in OOD_SETS or source in openood.SETS:
        if split not in ("test", "all"):
            raise InputError(f"{source} is an OOD test set and has no split {split!r}")
        if name in OOD_SETS:
            image_set = ImageSet(OOD_SETS[name].make(image_shape, **options), None, ())
        else:
            image_set = openood.read(source, image_shape, published.data_folder())
    elif published.knows(source):
        if source in PUBLISHED:
            _check_shape(source, (32, 32, 3), image_shape)  # before anything is fetched
        part = "train" if split in ("train", "val") else "test"
        image_set = published.read(source, part, with_labels)
        if part == "train":
            image_set = split_of(source, image_set, split, ends=(0.9, 1))
    else:
        image_set = _own(source, split, image_shape, background, with_labels)
    if not len(image_set.images):
        raise InputError(f"no image of {source} falls to its {split} split; it needs more images a class")
    _check_shape(source, image_set.images.shape[1:], image_shape)
    check_levels(image_set.images.max(), f"images of {source}")
    return image_set


def id_splits(settings: Data) -> Splits:
    """The ID images of an experiment, checked for all that it takes of them before anything is trained.

    Raises:
        InputError: As for `load`, and where a split lacks a class or has one too many.
    """
    options = dict(image_shape=settings.image_shape, background=settings.background)
    splits = Splits(*(load(settings.id_data, split, **options) for split in SPLITS))
    check(settings.id_data, splits)
    return splits


def evaluation_sets(settings: Settings, splits: Splits) -> list[EvaluationSet]:
    """The ID test images, the OOD sets of an experiment, and the ID test images shifted; lines say which images a
    detector was trained on."""
    options = (settings.image_shape, settings.background, splits.train)
    return [id_set(splits.test), *load_ood(settings.ood_sets, *options), *shifted_sets(splits.test)]


def load_ood(
    sources: Iterable[str],
    image_shape: tuple[int, int, int] = (8, 8, 1),
    background: str = "white",
    train: ImageSet | None = None,
) -> list[EvaluationSet]:
    """The whole of each OOD set, without labels: none of its classes is a detector's.

    A published set that cannot be had is left out, with a printed line that says why.

    Args:
        train: Training images; a line says how many of them are in an OOD set, if any are.
    """
    sets: list[EvaluationSet] = []
    trained_on = [] if train is None else hashes(train.images)
    for source in sources:
        key, title, role = identity(source)
        if key == ID_TEST:
            raise InputError(
                f"OOD set {source} is called {ID_TEST}, as the ID test set is in tables; rename it"
            )
        if any(key == other.key or title == other.title for other in sets):
            raise InputError(f"two OOD sets are called {title}; rename the folder or file of one")
        try:
            images = load(
                source, "all", image_shape=image_shape, background=background, with_labels=False
            ).images
        except Unavailable as error:
            tell(f"left out: {error}")
        else:
            if trained_on:
                print_overlap(title, hashes(images), "training", trained_on)
            sets.append(EvaluationSet(key, title, role, images, None, ()))
    if not sets:
        raise InputError("none of the OOD sets is there; name others, such as gaussian and uniform")
    return sets


def identity(source: str) -> tuple[str, str, Role]:
    """Key, title and role of an OOD set.

    The key of a set of one's own, and its title, is its name or the last part of its path, without `.npz`; it counts as
    far, whatever it is called.
    """
    name, _ = _counted(source)
    if name in OOD_SETS:
        return name, OOD_SETS[name].title, OOD_SETS[name].role
    if source in openood.SETS:
        return source, source, openood.SETS[source]
    if source in PUBLISHED:
        return source, published.title(source), PUBLISHED[source].role
    if published.knows(source):
        return source, published.title(source), Role.FAR
    name = normalize("NFC", Path(source).expanduser().resolve().name.removesuffix(".npz"))
    if one_line(name) != name:
        raise InputError(f"OOD set {name} has a control character in its name; rename it")
    return name, name, Role.FAR


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


def _own(
    source: str, split: str, image_shape: tuple[int, int, int], background: str, with_labels: bool
) -> ImageSet:
    path = _place(source)
    if path.is_dir() and with_labels and split != "all" and split_folders(path):
        return _of_split_folders(path, split, image_shape, background)
    if path.is_dir():
        image_set = own.from_folder(path, image_shape, background, with_labels)
    else:
        image_set = own.from_npz(path, with_labels)
    if split == "all" or (image_set.labels is None and split == "test"):
        return image_set
    return split_of(source, image_set, split)


def _place(source: str) -> Path:
    """The folder or `.npz` file, from here or from the Snakefile, as a path in a run's configuration is meant."""
    path = Path(source).expanduser()
    for place in (path, home() / path):
        if place.is_dir() or (place.suffix == ".npz" and place.is_file()):
            return place
    raise InputError(
        f"image set {source!r} is not known; give one of digits, {', '.join([*OOD_SETS, *PUBLISHED, *openood.SETS])}, "
        f"NAME for {published.data_folder()}/NAME-test.npz, or the path, from here or from the Snakefile, of a folder "
        "of images or of an .npz file"
    )


def _of_split_folders(path: Path, split: str, image_shape: tuple[int, int, int], background: str) -> ImageSet:
    """A split of a folder that has folders for them; a validation set that is missing is a tenth of `train`."""
    folders = split_folders(path)
    if "test" not in folders:
        folders["test"] = folders.pop("val")
    folder = folders.get(split, folders["train"])
    is_shared = "val" not in folders and split != "test"
    share = "" if not is_shared else ", of each class 90 %" if split == "train" else ", of each class 10 %"
    tell(f"{shown(path)}: the {split} images are those in {shown(folder)}{share}")
    classes = own.sub_folders(folders["train"])
    image_set = own.from_folder(folder, image_shape, background, class_names=classes)
    return split_of(shown(path), image_set, split, ends=(0.9, 1)) if is_shared else image_set
