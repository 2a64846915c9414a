"""Images as arrays: what a set of them is, and the door through which arrays, tensors and pictures become uint8."""

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from oodlib.errors import InputError
from oodlib.pictures import fit_pictures

if TYPE_CHECKING:  # it takes seconds to import
    import torch

AT_ONCE = 1000  # images of which copies in another type are in memory at once
OVERSHOOT = 1e-3  # beyond [0, 1], by rounding; a quarter of a level


class ImageSet(NamedTuple):
    """A set of images, with labels where it has them."""

    images: np.ndarray
    """uint8, (N, H, W, C) with C = 1 (grey) or 3 (RGB)."""
    labels: np.ndarray | None
    """int64 (N,), indices into `class_names`; None where the set has no classes."""
    class_names: tuple[str, ...]


def uint8_to_signed(
    images: "np.ndarray | torch.Tensor", device: "str | torch.device" = "cpu"
) -> "torch.Tensor":
    """Images as a diffusion model takes them, float32 (N, C, H, W) in [-1, 1].

    Args:
        images: uint8, an array (N, H, W, C), which is put on the device, or a tensor (N, C, H, W), which stays on its.
    """
    import torch

    if isinstance(images, np.ndarray):
        images = torch.tensor(images, device=device).permute(0, 3, 1, 2)
    return images.float() / 127.5 - 1


def signed_to_uint8(images: "torch.Tensor") -> np.ndarray:
    """Images (N, C, H, W), meant to lie in [-1, 1] and clipped to it, as uint8 (N, H, W, C)."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def uint8_tensor(images: Any, image_shape: tuple[int, int, int], background: str = "white") -> "torch.Tensor":
    """Images as a uint8 tensor (N, C, H, W) on the CPU; at most one copy of an array,
    and none of one that is right already.

    Args:
        images: uint8 or float in [0, 1], an array or tensor of shape N x H x W x C, N x C x H x W or (grey)
            N x H x W, or PIL images of any size, which are centre-cropped and scaled.
        image_shape: (H, W, C).
        background: What shows through transparent pixels of PIL images.

    Raises:
        InputError: The images are of another type, range or shape.
    """
    import torch

    height, width, channels = image_shape
    expected = f"expected N x {height} x {width} x {channels}, uint8 or float in [0, 1], or PIL images"
    if isinstance(images, Image.Image):
        images = [images]
    if isinstance(images, list | tuple):
        if not images or not all(isinstance(image, Image.Image) for image in images):
            raise InputError(
                f"images are a {type(images).__name__} of something else than pictures; {expected}"
            )
        images = fit_pictures(images, image_shape, background)
    if isinstance(images, np.ma.MaskedArray) or not isinstance(images, np.ndarray | torch.Tensor):
        raise InputError(f"images are a {type(images).__name__}; {expected}")
    is_float = (
        np.issubdtype(images.dtype, np.floating)
        if isinstance(images, np.ndarray)
        else images.is_floating_point()
    )
    if not is_float and images.dtype not in (np.uint8, torch.uint8):
        raise InputError(f"images are {str(images.dtype).removeprefix('torch.')}; {expected}")
    if isinstance(images, torch.Tensor) and (images.layout != torch.strided or images.is_meta):
        raise InputError("images are a sparse or empty tensor; " + expected)
    given = tuple(images.shape)
    if images.ndim == 3 and channels == 1:
        images = images[..., None]
    last = tuple(images.shape[1:]) == tuple(image_shape)
    if (
        not images.ndim
        or not len(images)
        or not (last or tuple(images.shape[1:]) == (channels, height, width))
    ):
        raise InputError(f"images have shape {given}; {expected}")
    tensor = _levels(images, expected) if is_float else _uint8(images)
    check_levels(tensor.amax().item(), "the images")
    if last and channels > 1:
        tensor = tensor.permute(0, 3, 1, 2)
    # By way of a flat one, so that strides are the same whatever the images were: last digits depend on them.
    return tensor.reshape(-1).view(len(tensor), channels, height, width)


def _uint8(images: "np.ndarray | torch.Tensor") -> "torch.Tensor":
    import torch

    if isinstance(images, torch.Tensor):
        return images.detach().cpu()
    # PyTorch takes no array that is read-only or runs backwards.
    return torch.from_numpy(np.require(images, requirements=["W", "C"]))


def _levels(images: "np.ndarray | torch.Tensor", expected: str) -> "torch.Tensor":
    """The nearest of 256 levels of floats in [0, 1]."""
    import torch

    levels = torch.empty(tuple(images.shape), dtype=torch.uint8)
    for start in range(0, len(images), AT_ONCE):
        part = images[start : start + AT_ONCE]
        part = (
            torch.from_numpy(part.astype(np.float32))
            if isinstance(part, np.ndarray)
            else part.detach().cpu().float()
        )
        low, high = part.min().item(), part.max().item()
        if not (low >= -OVERSHOOT and high <= 1 + OVERSHOOT):  # NaN is neither
            raise InputError(f"images range from {low:.3g} to {high:.3g}; {expected}")
        levels[start : start + AT_ONCE] = (part * 255).round()
    return levels


def check_levels(highest: int, noun: str) -> None:
    """Warn where uint8 images are all but black, as those are whose range was taken for another."""
    if 0 < highest <= 16:
        warnings.warn(
            f"{noun} reach level {highest} of 255 at most, as if their range were 0 to {highest}; "
            f"if so, multiply them by 255 / {highest}",
            stacklevel=3,
        )


def mean_and_std(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of uint8 images (N, H, W, C), in [0, 1]; of a channel that is all but
    constant the deviation is one grey level, as images are divided by it."""
    counts = np.zeros((images.shape[-1], 256), np.int64)
    for start in range(0, len(images), AT_ONCE):
        for channel, count in enumerate(counts):
            count += np.bincount(images[start : start + AT_ONCE, ..., channel].ravel(), minlength=256)
    share, value = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
    mean = share @ value
    std = np.sqrt((share @ value**2 - mean**2).clip(0))
    return mean.tolist(), std.clip(1 / 255).tolist()
