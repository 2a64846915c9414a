"""ID test images as they may come in use: a little softer, darker, turned, saved again. Each one that a detector calls
OOD is a false alarm.

Some shifts are of a kind that training with `degrade` draws too, at one fixed size; no training but AugMix draws the
others.
"""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from oodlib.datasets.corruptions import CORRUPTIONS, IMAGE_SHAPE, corrupted
from oodlib.datasets.roles import EvaluationSet, Role
from oodlib.degrade import STRENGTH, degrade
from oodlib.images import ImageSet

if TYPE_CHECKING:  # it takes seconds to import
    from torch import Tensor

MOST_IMAGES = 2000  # of a set that are shifted or degraded, evenly spaced
NOISE = 8 / 255  # standard deviation
NOISE_SEED = 556
DEGRADE_SEED = 557


class Shift(NamedTuple):
    """One way in which ID images may differ from training images."""

    title: str
    role: Role
    """`DEGRADED_ID` where training with `degrade` draws its like."""
    apply: Callable[["Tensor"], "Tensor"]
    """From uint8 images (N, C, H, W) to as many, uint8 or float in [0, 255]."""
    needs_colour: bool = False


def _functional():
    from torchvision.transforms.v2 import functional  # here, because it takes a second to import

    return functional


def _rescaled(images: "Tensor", factor: float, interpolation: str) -> "Tensor":
    """Scaled by a factor and back."""
    size = images.shape[-1]
    options = dict(interpolation=interpolation, antialias=True)
    return _functional().resize(
        _functional().resize(images, [round(factor * size)] * 2, **options), [size] * 2, **options
    )


def _noisy(images: "Tensor") -> "Tensor":
    import torch

    random = torch.Generator().manual_seed(NOISE_SEED)
    return (images + 255 * NOISE * torch.randn(images.shape, generator=random)).round()


def _jpeg(images: "Tensor") -> "Tensor":
    """Saved as JPEG and read again, by Pillow: torchvision gives its own up."""
    import torch

    shown = []
    for image in images.permute(0, 2, 3, 1).numpy():
        buffer = io.BytesIO()
        Image.fromarray(image.squeeze()).save(buffer, "jpeg", quality=50)
        shown.append(np.asarray(Image.open(buffer)).reshape(image.shape))
    return torch.tensor(np.stack(shown)).permute(0, 3, 1, 2)


def _turned(images: "Tensor") -> "Tensor":
    from torchvision.transforms import InterpolationMode

    return _functional().rotate(images, 8, InterpolationMode.BILINEAR)


SHIFTS = {
    "softer": Shift("scaled to 3/4 and back", Role.DEGRADED_ID, lambda x: _rescaled(x, 3 / 4, "bicubic")),
    "darker": Shift("darker", Role.DEGRADED_ID, lambda x: _functional().adjust_brightness(x, 0.75)),
    "flatter": Shift("flatter", Role.DEGRADED_ID, lambda x: _functional().adjust_contrast(x, 0.7)),
    "lifted": Shift("lifted black", Role.DEGRADED_ID, lambda x: (20 + x * (235 / 255)).round()),
    "noisy": Shift("noisy", Role.DEGRADED_ID, _noisy),
    "faded": Shift("faded", Role.DEGRADED_ID, lambda x: _functional().adjust_saturation(x, 0.5), True),
    "turned": Shift("turned by 8°", Role.SHIFTED_ID, _turned),
    "enlarged": Shift("enlarged and back", Role.SHIFTED_ID, lambda x: _rescaled(x, 1.5, "bilinear")),
    "jpeg": Shift("JPEG, quality 50", Role.SHIFTED_ID, _jpeg),
    "gamma": Shift("gamma 0.7", Role.SHIFTED_ID, lambda x: _functional().adjust_gamma(x, 0.7)),
    "posterised": Shift("eight levels", Role.SHIFTED_ID, lambda x: _functional().posterize(x, 3)),
}


def shifted(images: np.ndarray, name: str) -> np.ndarray:
    """Images under one of `SHIFTS`.

    Args:
        images: uint8 (N, H, W, C).

    Returns:
        uint8 (N, H, W, C).
    """
    import torch

    tensor = torch.tensor(images).permute(0, 3, 1, 2)
    return SHIFTS[name].apply(tensor).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def shifts_of(channels: int) -> list[str]:
    """The names of those that apply to images of so many channels."""
    return [name for name, shift in SHIFTS.items() if channels == 3 or not shift.needs_colour]


def shifted_sets(images: ImageSet) -> list[EvaluationSet]:
    """ID test images under each of `SHIFTS` that applies to them, and of 32 x 32 colour images under each of
    `CORRUPTIONS`: at most `MOST_IMAGES`, evenly spaced."""
    plain, labels = _some(images.images, images.labels)
    sets = [(f"id_{name}", *SHIFTS[name][:2], shifted(plain, name)) for name in shifts_of(plain.shape[3])]
    if plain.shape[1:] == IMAGE_SHAPE:
        for name, (role, _) in CORRUPTIONS.items():
            title = f"{name.replace('_', ' ')} (CIFAR-10-C, ours)"
            sets.append((f"id_c_{name}", title, role, corrupted(plain, name)))
    return [EvaluationSet(*of_set, labels, images.class_names) for of_set in sets]


def degraded(of_set: EvaluationSet) -> EvaluationSet:
    """The same set, degraded as training with `degrade` does at the usual strength, and always alike: at most
    `MOST_IMAGES`, evenly spaced."""
    import torch

    images, labels = _some(of_set.images, of_set.labels)
    random = torch.Generator().manual_seed(DEGRADE_SEED)
    changed = degrade(torch.tensor(images).permute(0, 3, 1, 2), STRENGTH, random)
    return of_set._replace(images=changed.permute(0, 2, 3, 1).numpy(), labels=labels)


def _some(images: np.ndarray, labels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    count = min(len(images), MOST_IMAGES)
    kept = np.arange(count) * len(images) // count
    return images[kept], None if labels is None else labels[kept]
