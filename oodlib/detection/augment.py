"""Changes of a batch of images while a detector trains, drawn on the CPU and applied on the device."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(images: Tensor, flip: bool, random: torch.Generator) -> Tensor:
    """Shift each image by up to an eighth of its side, zeros coming in, and flip half of them if asked.

    Args:
        images: uint8 (N, C, H, W).
    """
    count, _, height, width = images.shape
    pad = height // 8
    shift = torch.randint(0, 2 * pad + 1, (2, count), generator=random).to(images.device, non_blocking=True)
    rows = torch.arange(height, device=images.device) + shift[0, :, None]
    columns = torch.arange(width, device=images.device) + shift[1, :, None]
    if flip:
        mirrored = torch.randint(0, 2, (count,), generator=random).to(images.device, non_blocking=True)
        columns = torch.where(mirrored[:, None] == 1, columns.flip(1), columns)
    padded = F.pad(images, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    index = torch.arange(count, device=images.device)
    return padded[index[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


OPERATIONS_FOR = 16  # images that AugMix changes by the same operations
MOST_ROUNDS = 4  # of mixing, in PixMix
SPREAD = 3.0  # how far from equal the two parts of a PixMix mixture are


def augmix(images: Tensor, random: torch.Generator) -> Tensor:
    """AugMix (Hendrycks et al. 2020, arXiv 1912.02781), torchvision's: mixtures of chains of operations.

    Args:
        images: uint8 (N, C, H, W).

    Returns:
        uint8 (N, C, H, W).
    """
    from torchvision.transforms.v2 import AugMix  # here, because it takes a second to import

    mix = AugMix()
    with torch.random.fork_rng():  # it draws from the global generator
        torch.manual_seed(int(torch.randint(2**62, (), generator=random)))
        return torch.cat([mix(part) for part in images.split(OPERATIONS_FOR)]) if len(images) else images


def pixmix(images: Tensor, random: torch.Generator) -> Tensor:
    """PixMix (Hendrycks et al. 2022, arXiv 2112.05135): up to four rounds in which images are added to, or multiplied
    by, pictures of structure. These are made here, noise whose power falls with frequency, in place of that paper's
    fractals.

    Args and result as for `augmix`.
    """
    count = len(images)
    x = images.float() / 255
    rounds = torch.randint(MOST_ROUNDS + 1, (count,), generator=random)
    for number in range(MOST_ROUNDS):
        pictures = _structures(images.shape, random).to(x.device)
        # Weights near (1, 0), so that the image stays what it is seen as.
        draws = torch.rand(2, count, 1, 1, 1, generator=random)
        a, b = draws[0] ** (1 / SPREAD), 1 - draws[1] ** (1 / SPREAD)
        is_added = torch.rand(count, 1, 1, 1, generator=random) < 0.5
        a, b, is_added = (t.to(x.device) for t in (a, b, is_added))
        added = (a * (2 * x - 1) + b * (2 * pictures - 1) + 1) / 2
        multiplied = (2 * x) ** a * (2 * pictures).clamp(min=1e-6) ** b / 2
        mixed = torch.where(is_added, added, multiplied).clamp(0, 1)
        x = torch.where((rounds > number).view(-1, 1, 1, 1).to(x.device), mixed, x)
    return (255 * x).round().to(torch.uint8)


def _structures(shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    """Pictures in [0, 1] of noise with amplitude 1 / frequency, (N, C, H, W)."""
    spectrum = torch.fft.rfft2(torch.randn(shape, generator=random))
    rows, columns = torch.fft.fftfreq(shape[-2]), torch.fft.rfftfreq(shape[-1])
    frequency = (rows[:, None] ** 2 + columns**2).sqrt()
    frequency[0, 0] = frequency.flatten()[1:].min()
    pictures = torch.fft.irfft2(spectrum / frequency, s=shape[-2:])
    low, high = pictures.amin((2, 3), keepdim=True), pictures.amax((2, 3), keepdim=True)
    return (pictures - low) / (high - low).clamp(min=1e-12)


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {"augmix": augmix, "pixmix": pixmix}
"""By which each ID image may be seen once more."""
