"""How a network computes on its device: in which mode and precision, and how many images at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import nn

from oodlib.errors import choice


def default_device() -> torch.device:
    """A CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block, and after it each part's own mode again."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@cache
def native_precision(device: torch.device) -> str:
    """`bf16` where the device computes in bfloat16, else `fp32`, which is faster than to emulate it."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    can = torch.cpu.get_capabilities()
    return "bf16" if any(can.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")) else "fp32"


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The autocast context of a precision, `fp32`, or `bf16` where the device computes in it."""
    choice("precision", precision, ("fp32", "bf16"))
    return torch.autocast(
        device.type, torch.bfloat16, enabled=precision == "bf16" == native_precision(device)
    )


def images_at_once(image_shape: tuple[int, int, int], device: torch.device, most: int = 512) -> int:
    """How many images to pass through a network at a time, at most `most`.

    On the CPU larger batches are slower: memory of over 32 MiB is given back and asked for anew at each layer.
    """
    height, width, _ = image_shape
    pixels = 2**22 if device.type == "cuda" else 2**16
    return min(most, max(1, pixels // (height * width)))
