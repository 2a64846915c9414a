"""OpenOOD v1.5's OOD test sets for CIFAR-10 (arXiv 2306.09301), from that project's own image lists and folders.

The data folder has `benchmark_imglist/cifar10/test_<name>.txt`, whose lines are an image's path and its label, and the
images in `images_classic`. Images are resized as there: the short side to the size wanted, bilinear, and the centre.
"""

from pathlib import Path

import numpy as np

from oodlib.datasets.downloads import Unavailable
from oodlib.datasets.roles import Role
from oodlib.errors import InputError
from oodlib.images import ImageSet
from oodlib.pictures import as_shown, open_picture

PREFIX = "openood/"  # before the names that the project's files and tables have
NAMES = {Role.NEAR: ("cifar100", "tin"), Role.FAR: ("mnist", "svhn", "texture", "places365")}
SETS = {PREFIX + name: role for role, names in NAMES.items() for name in names}


def read(source: str, image_shape: tuple[int, int, int], folder: Path) -> ImageSet:
    """One of `SETS`, without labels, in the list's order.

    Args:
        folder: The data folder.

    Raises:
        Unavailable: The list is not there.
        InputError: An image of the list is missing or cannot be read, or the list has none.
    """
    name = source.removeprefix(PREFIX)
    file = folder / "benchmark_imglist" / "cifar10" / f"test_{name}.txt"
    if not file.is_file():
        raise Unavailable(f"{source} cannot be had: {file} is not there; put OpenOOD's data into {folder}")
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    paths = [folder / "images_classic" / line.rpartition(" ")[0] for line in lines]
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        what = f"{missing[0]}, are not there" if missing else "none, expected some"
        raise InputError(f"{file} lists {len(paths)} images, of which {len(missing)}, such as {what}")
    return ImageSet(np.stack([_resized(path, image_shape) for path in paths]), None, ())


def _resized(path: Path, image_shape: tuple[int, int, int]) -> np.ndarray:
    from torchvision.transforms.v2 import (
        InterpolationMode,
        functional,
    )  # here, because it takes a second to import

    height, width, channels = image_shape
    picture = as_shown(open_picture(path)).convert("L" if channels == 1 else "RGB")
    short_side = functional.resize(picture, [height], InterpolationMode.BILINEAR)
    return np.asarray(functional.center_crop(short_side, [height, width])).reshape(image_shape)
