"""Changes of a batch of images while a detector trains, drawn on the CPU and applied on the device."""

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
