"""Sets in the data folder: the published ones, fetched where they are missing, and any `.npz` put there.

The OOD sets TIN, LSUN and iSUN are those of ODIN (Liang et al., "Enhancing the Reliability of Out-of-distribution Image
Detection in Neural Networks", arXiv 1706.02690).
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from oodlib.datasets.downloads import Unavailable, fetch, unpacked
from oodlib.datasets.own import classes_in_npz, from_npz
from oodlib.datasets.roles import Role
from oodlib.errors import InputError
from oodlib.files import place
from oodlib.images import ImageSet
from oodlib.pictures import Notes, fit_picture, open_picture, picture_files


def data_folder() -> Path:
    """The data folder: `$OODLIB_DATA`, else `data` beside the Snakefile."""
    return place("OODLIB_DATA", "data")


# What tables call an `.npz` of the data folder; one that is not listed keeps its own name. A test set of CIFAR or SVHN
# is the published one wherever all its images come from. TIN, LSUN and iSUN at 32 x 32 are the published ones
# only as ODIN's files: whoever crops or scales anew gets other pixels, and so does not get that title.
NPZ_TITLES = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "svhn": "SVHN",
    "svhn_part": "SVHN (part)",
    "tin_crop": "TIN (C, ours)",
    "tin_resize": "TIN (R, ours)",
    "lsun_crop": "LSUN (C, ours)",
    "lsun_resize": "LSUN (R, ours)",
    "isun": "iSUN (ours)",
    "sun_scenes": "SUN scenes",
}


class Published(NamedTuple):
    """A published set of 32 x 32 x 3 images."""

    title: str
    role: Role
    """As an OOD set; near and far are meant from CIFAR-10."""
    sizes: dict[str, int]
    """Number of images of each part, `train` and `test`, as published."""
    read: Callable[[str], ImageSet]
    """Reads a part from the published files, which it fetches where they are not in the data folder."""
    class_names: tuple[str, ...] = ()


def _cifar(name: str) -> Callable[[str], ImageSet]:
    def read(part: str) -> ImageSet:
        from torchvision import datasets  # here, because it takes seconds to import

        published = getattr(datasets, name)
        folder = unpacked(published.url, published.tgz_md5, data_folder() / published.base_folder)
        try:
            images = published(data_folder(), train=part == "train")
        except RuntimeError as error:
            raise InputError(
                f"a file in {folder} is missing or has another MD5; remove the folder"
            ) from error
        return ImageSet(np.ascontiguousarray(images.data), np.array(images.targets), tuple(images.classes))

    return read


def _svhn(part: str) -> ImageSet:
    from torchvision.datasets import SVHN

    url, _, md5 = SVHN.split_list[part]
    fetch(url.replace("http:", "https:"), md5, data_folder())
    images = SVHN(data_folder(), split=part).data.transpose(0, 2, 3, 1)
    return ImageSet(np.ascontiguousarray(images), None, ())


def _odin(
    title: str, role: Role, size: int, archive: str, md5: str, sides: tuple[int, ...] = (32,)
) -> Published:
    """One of ODIN's archives of pictures, `sides` wide and high; of larger ones the central 32 x 32 are taken."""

    def read(_part: str) -> ImageSet:
        url = f"https://www.dropbox.com/s/{archive}.tar.gz?dl=1"
        folder = unpacked(url, md5, data_folder() / Path(archive).name)
        files = picture_files(folder, Notes(folder))
        images = np.empty((len(files), 32, 32, 3), np.uint8)
        for i, file in enumerate(files):
            picture = open_picture(file)
            width, height = picture.size
            if height != width or height not in sides:
                raise InputError(
                    f"image {file} is {height} x {width}, expected {' or '.join(map(str, sides))}"
                )
            margin = (height - 32) // 2
            centre = picture.crop((margin, margin, margin + 32, margin + 32))
            images[i] = fit_picture(centre, (32, 32, 3))
        return ImageSet(images, None, ())

    return Published(title, role, {"test": size}, read)


CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MARGIN = (32, 36)  # the crops are said to carry a margin of 2 pixels, by which a network could tell them
PUBLISHED = {
    "cifar10": Published(
        "CIFAR-10", Role.FAR, {"train": 50_000, "test": 10_000}, _cifar("CIFAR10"), CIFAR10_CLASSES
    ),
    "cifar100": Published("CIFAR-100", Role.NEAR, {"test": 10_000}, _cifar("CIFAR100")),
    "svhn": Published("SVHN", Role.FAR, {"test": 26_032}, _svhn),
    "tin_crop": _odin(
        "TIN (C)", Role.NEAR, 10_000, "avgm2u562itwpkl/Imagenet", "7c0827e4246c3718a5ee076e999e52e5", MARGIN
    ),
    "tin_resize": _odin(
        "TIN (R)", Role.NEAR, 10_000, "kp3my3412u5k9rl/Imagenet_resize", "0f9ff11d45babf2eff5fe12281d1ac31"
    ),
    "lsun_crop": _odin(
        "LSUN (C)", Role.FAR, 10_000, "fhtsw1m3qxlwj6h/LSUN", "458a0a0ab8e5f1cb4516d7400568e460", MARGIN
    ),
    "lsun_resize": _odin(
        "LSUN (R)", Role.FAR, 10_000, "moqh2wh8696c3yl/LSUN_resize", "278b7b31c8cb7e804a1465a8ce03a2dc"
    ),
    "isun": _odin("iSUN", Role.FAR, 8_925, "ssz7qxfqae0cca5/iSUN", "be77b0f2c26fda898afac5f99645ee70"),
}


def knows(source: str) -> bool:
    """Whether that is the name of a published set or of an `.npz` in the data folder."""
    return source in PUBLISHED or any(_npz(source, part) for part in ("train", "test"))


def title(source: str) -> str:
    """What tables call a set that is known here.

    A published set has its published title where it is read from the published files; an `.npz` has what `NPZ_TITLES`
    says, or its own name.
    """
    if source in PUBLISHED and not _npz(source, "test"):
        return PUBLISHED[source].title
    return NPZ_TITLES.get(source, source)


def read(source: str, part: str, with_labels: bool = True) -> ImageSet:
    """The `train` or `test` part of a set that is known here: from its `.npz`, else from the published files.

    Raises:
        Unavailable: Neither is there, and the published files cannot be fetched.
        InputError: What is there is damaged or not what it should be, or the set has no such part.
    """
    file = _npz(source, part)
    if source not in PUBLISHED:
        train = _npz(source, "train")
        classes = classes_in_npz(train) if with_labels and part == "test" and train else None
        return from_npz(file or data_folder() / f"{source}-{part}.npz", with_labels, classes)
    published = PUBLISHED[source]
    if part not in published.sizes:
        raise InputError(f"{source} is an OOD test set and has no training images")
    with_labels = with_labels and bool(published.class_names)
    try:
        image_set = from_npz(file, with_labels) if file else published.read(part)
    except Unavailable as error:
        raise Unavailable(
            f"{source} cannot be had: {error}; put that file or {source}-{part}.npz into {data_folder()}"
        ) from error
    count, size = len(image_set.images), published.sizes[part]
    if count != size and title(source) == published.title:
        raise InputError(
            f"{source} has {size} {part} images, but {count} are in {file or data_folder()}; replace them"
        )
    if not with_labels:
        return ImageSet(image_set.images, None, ())
    if len(image_set.class_names) != len(published.class_names):
        raise InputError(f"labels in {file} must go from 0 to {len(published.class_names) - 1}")
    return image_set._replace(class_names=published.class_names)


def _npz(source: str, part: str) -> Path | None:
    """The `.npz` with that part of a set, if it is there."""
    file = data_folder() / f"{source}-{part}.npz"
    return file if os.sep not in source and file.is_file() else None
