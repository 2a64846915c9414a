"""What is made of a picture before the network sees it, and what tells one such transform from another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from oodlib.errors import InputError
from oodlib.files import fingerprint
from oodlib.pictures import as_shown

Transform = Callable[[Image.Image], Tensor]
"""From a PIL image in RGB to what the network takes, such as `ResNet50_Weights.DEFAULT.transforms()`."""
PROBES = ((96, 96), (100, 150), (160, 110))  # heights and widths: a crop and a squeeze of a square are alike
SAMPLE = 32  # values of what is made of each
TOLERANCE = 0.01  # of the largest value: another machine may resize to the next of 256 greys


def to_unit_range(picture: Image.Image) -> Tensor:
    """What is done where no transform is given: float32 (C, H, W) in [0, 1] at the picture's own size."""
    return pil_to_tensor(picture).float() / 255


def transformed(
    picture: Image.Image, transform: Transform, background: str = "white", name: str = "a picture"
) -> Tensor:
    """A picture as the network takes it: as a viewer shows it, in RGB, transformed.

    Raises:
        InputError: The transform fails or gives no tensor of floats, or see `pictures.as_shown`.
    """
    shown = as_shown(picture, background).convert("RGB")
    try:
        image = transform(shown)
    except Exception as error:  # whatever the user's own code raises
        raise InputError(f"the transform fails on {name}: {type(error).__name__}: {error}") from None
    if not isinstance(image, Tensor):
        raise InputError(
            f"the transform gives a {type(image).__name__}, expected a tensor; end it with ToTensor()"
        )
    if not image.is_floating_point():
        raise InputError(
            f"the transform gives a tensor of {image.dtype}, expected floats; end it with "
            "ToDtype(torch.float32, scale=True)"
        )
    return image


def described(transform: Transform) -> str | None:
    """A hash of what a transform makes of pictures of noise, as its name may hide what it does; None where it fails or
    makes something else each time."""
    made = _probed(transform)
    return None if made is None else fingerprint(*(image.numpy() for image in made))


def sketched(transform: Transform) -> list[dict[str, Any]] | None:
    """Shapes and some values of what `described` hashes, which another machine may round otherwise."""
    made = _probed(transform)
    if made is None:
        return None
    samples = [image.flatten()[:: max(1, image.numel() // SAMPLE)] for image in made]
    return [
        {"shape": list(i.shape), "values": sample.tolist()} for i, sample in zip(made, samples, strict=True)
    ]


def check_transform(transform: Transform | None, sketch: list[dict[str, Any]] | None, folder: Path) -> None:
    """Raise `InputError` where a transform, None for none, makes something else of a picture than `sketch` tells, which
    the detector in `folder` was saved with. Nothing tells what a random one makes."""
    own = sketched(transform or to_unit_range)
    way = "as transform=, or, in the command, have the function of --network give (network, transform)"
    if transform is None and not _alike(own, sketch):
        raise InputError(f"the detector in {folder} was made with a transform; give it {way}")
    if own is not None and sketch is not None and not _alike(own, sketch):
        raise InputError(
            f"the transform makes something else of a picture than the one that the detector in {folder} was made "
            f"with; give that one {way}"
        )


def _probed(transform: Transform) -> list[Tensor] | None:
    random, made = np.random.default_rng(0), []
    for size in PROBES:
        noise = Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8))
        try:
            first, again = (transformed(noise.copy(), transform).detach().cpu().float() for _ in range(2))
        except InputError:  # its own images may be of another kind
            return None
        if not torch.equal(first, again):
            return None
        made.append(first)
    return made


def _alike(one: list[dict[str, Any]] | None, other: list[dict[str, Any]] | None) -> bool:
    if one is None or other is None or [o["shape"] for o in one] != [o["shape"] for o in other]:
        return False
    ours, theirs = (np.concatenate([part["values"] for part in sketch]) for sketch in (one, other))
    return bool(np.abs(ours - theirs).max(initial=0) <= TOLERANCE * np.abs(theirs).max(initial=0))
