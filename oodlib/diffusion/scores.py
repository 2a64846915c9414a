"""OOD scores from the denoiser alone: how well it gives back an image that was noised or partly hidden.

It has learnt to draw the training images, so that it repairs their like and turns other images into them. No
class is given (zero label weights) and no detector is needed. Every score is larger for in-distribution input.
Steps and masks were fixed beforehand, as few as do; none was chosen by what test sets say.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from oodlib.device import images_at_once
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.sample import denoise
from oodlib.diffusion.schedule import make_scheduler
from oodlib.errors import InputError
from oodlib.images import uint8_to_signed
from oodlib.seeds import generator

if TYPE_CHECKING:  # it takes seconds to import
    from diffusers import DDIMScheduler

NUM_INFERENCE_STEPS = 4  # of DDIM, from pure noise to an image: at time steps 999, 749, 499 and 249
START_TIMESTEPS = (249, 499)  # of 1000, to which images are noised before they are reconstructed


@torch.inference_mode()
def reconstruct(
    denoiser: Denoiser, images: Tensor, noise: Tensor, start: int, label_weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Noise images to time step `start` and denoise them from there.

    Args:
        images, noise: (N, channels, H, W) on the denoiser's device; images in [-1, 1].
        start: The time step, in [0, 1000).
        label_weights: (N, C); None for no class.

    Returns:
        The noisy images and what the denoiser makes of them, each (N, channels, H, W).
    """
    scheduler = _ddim(denoiser)
    scheduler.timesteps = scheduler.timesteps[scheduler.timesteps <= start]
    noisy = scheduler.add_noise(images, noise, torch.tensor(start))
    return noisy, _denoised(denoiser, scheduler, noisy, label_weights)


@torch.inference_mode()
def inpaint(denoiser: Denoiser, images: Tensor, noise: Tensor, hidden: Tensor) -> Tensor:
    """Repaint the hidden part of images, from noise, around the rest.

    At each step the rest is that of the image, noised to that step (Lugmayr et al. 2022, arXiv 2201.09865,
    here with the deterministic steps of DDIM).

    Args:
        images, noise: (N, channels, H, W) on the denoiser's device; images in [-1, 1].
        hidden: bool, of a shape that broadcasts to that of the images.

    Returns:
        (N, channels, H, W), equal to `images` where they are not hidden.
    """
    scheduler = _ddim(denoiser)

    def show_the_rest(t: Tensor, x: Tensor) -> Tensor:
        return torch.where(hidden, x, scheduler.add_noise(images, noise, t))

    return torch.where(hidden, _denoised(denoiser, scheduler, noise, None, show_the_rest), images)


def _ddim(denoiser: Denoiser) -> "DDIMScheduler":
    scheduler = make_scheduler(denoiser.noise_scheduler, "ddim")
    scheduler.set_timesteps(NUM_INFERENCE_STEPS)
    return scheduler


def _denoised(
    denoiser: Denoiser,
    scheduler: "DDIMScheduler",
    x: Tensor,
    label_weights: Tensor | None = None,
    before_step: Callable | None = None,
) -> Tensor:
    """Where `denoise` ends, for no class where none is given."""
    if label_weights is None:
        label_weights = torch.zeros(len(x), len(denoiser.class_names), device=denoiser.device)
    for _, after, _ in denoise(partial(denoiser, label_weights=label_weights), scheduler, x, before_step):
        x = after
    return x


def checkerboard(size: int) -> Tensor:
    """Two masks that complete each other, bool (2, size, size): a board of 8 x 8 blocks (Liu et al. 2023,
    arXiv 2302.10326), or of blocks of 2 pixels in images smaller than 16."""
    block = torch.arange(size) // max(2, size // 8)
    board = (block[:, None] + block) % 2 == 0
    return torch.stack([board, ~board])


def reconstruction(denoiser: Denoiser, images: np.ndarray, seed: int = 0) -> np.ndarray:
    """Minus the mean squared error of the reconstruction, averaged over `START_TIMESTEPS` (after Graham et al. 2023,
    arXiv 2211.07740, who add a perceptual distance).

    Image i depends on `seed` and i, not on the others.

    Args:
        images: uint8 (N, H, W, channels).

    Returns:
        float64 (N,), at most 0; images range over [-1, 1].

    Raises:
        InputError: The images are not the denoiser's.
    """
    scores = []
    for batch, noise in _batches(denoiser, images, "reconstruction", len(START_TIMESTEPS), seed):
        errors = []
        for i, start in enumerate(START_TIMESTEPS):
            error = reconstruct(denoiser, batch, noise[:, i], start)[1] - batch
            errors.append(error.square().double().mean((1, 2, 3)))
        scores.append(-torch.stack(errors).mean(0).cpu().numpy())
    return np.concatenate(scores)


def inpainting(denoiser: Denoiser, images: np.ndarray, seed: int = 0) -> np.ndarray:
    """Minus the mean squared error of the hidden blocks, each mask of `checkerboard` in turn, so that every pixel is
    repainted once (after Liu et al. 2023, arXiv 2302.10326, who use a perceptual distance and more attempts).

    Arguments, result and errors as for `reconstruction`.
    """
    scores = []
    masks = checkerboard(denoiser.image_shape[0]).to(denoiser.device)
    for batch, noise in _batches(denoiser, images, "inpainting", len(masks), seed):
        errors = []
        for i, hidden in enumerate(masks):
            error = (inpaint(denoiser, batch, noise[:, i], hidden) - batch)[..., hidden]
            errors.append(error.square().double().mean((1, 2)))
        scores.append(-torch.stack(errors).mean(0).cpu().numpy())
    return np.concatenate(scores)


def _batches(
    denoiser: Denoiser, images: np.ndarray, purpose: str, draws: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images in [-1, 1], (n, channels, H, W), and as many draws of noise for each, (n, draws, channels, H, W)."""
    if images.dtype != np.uint8 or images.shape[1:] != denoiser.image_shape or not len(images):
        raise InputError(
            f"images are {images.dtype} of shape {images.shape}, expected uint8, N x "
            + " x ".join(map(str, denoiser.image_shape))
        )
    size = images_at_once(denoiser.image_shape, denoiser.device, most=256)
    denoiser.eval()
    for start in range(0, len(images), size):
        batch = uint8_to_signed(images[start : start + size], denoiser.device)
        shape = (draws, *batch.shape[1:])
        indices = range(start, start + len(batch))
        noise = torch.stack([torch.randn(shape, generator=generator(seed, purpose, i)) for i in indices])
        yield batch, noise.to(denoiser.device)


DENOISER_SCORES = {"reconstruction": reconstruction, "inpainting": inpainting}
