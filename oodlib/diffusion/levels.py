"""Outliers at noise levels: each as the forward diffusion leaves it at a time step of its own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from oodlib.diffusion.schedule import noise_schedule
from oodlib.images import uint8_to_signed
from oodlib.seeds import generator


class NoiseLevels:
    """Noises images anew each time that they are seen: `sqrt(a_t) x + sqrt(1 - a_t) noise`, with t uniform between two
    shares of the cosine schedule's 1000 time steps.

    What comes of an image depends on `seed`, its number and how often it was seen before, not on its batch.

    Args:
        levels: Lowest and highest share of the schedule, in [0, 1].
        clean_share: Of the images, which are left as they are.
    """

    def __init__(self, levels: tuple[float, float], clean_share: float, seed: int):
        self.levels, self.clean_share, self.seed = levels, clean_share, seed
        self.signal = noise_schedule().alphas_cumprod

    def __call__(self, images: Tensor, index: Sequence[int], times_seen: Sequence[int]) -> Tensor:
        """Noise images.

        Args:
            images: uint8 (N, C, H, W) on any device.
            index: Their numbers.
            times_seen: How often each was seen before.

        Returns:
            uint8 (N, C, H, W).
        """
        draws, noise = [], []
        for number, times in zip(index, times_seen, strict=True):
            random = generator(self.seed, "noise level", int(number), int(times))
            draws.append(torch.rand(2, generator=random))
            noise.append(torch.randn(images.shape[1:], generator=random))
        chance, place = torch.stack(draws).T
        low, high = self.levels
        steps = len(self.signal)
        t = ((low + (high - low) * place) * steps).long().clamp(max=steps - 1)
        a = torch.where(chance < self.clean_share, 1.0, self.signal[t]).view(-1, 1, 1, 1).to(images.device)
        noised = a.sqrt() * uint8_to_signed(images) + (1 - a).sqrt() * torch.stack(noise).to(images.device)
        return ((noised + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
