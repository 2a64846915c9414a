"""Label mixup: mixed label weights, and a sampler that draws images for them.

The paper feeds the denoiser [1, 1] where it was trained on [1, 0] and [0, 1], and takes what it draws for
an outlier between two classes (arXiv 2405.00631).
"""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from oodlib.device import images_at_once
from oodlib.diffusion.denoiser import Denoiser
from oodlib.errors import InputError, choice
from oodlib.seeds import generator

if TYPE_CHECKING:  # it takes seconds to import
    from diffusers import SchedulerMixin

SCHEDULERS = {
    "ddpm": "DDPMScheduler",
    "ddim": "DDIMScheduler",
    "dpmsolver++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}


def make_scheduler(denoiser: Denoiser, name: str):
    """One of `SCHEDULERS` with the denoiser's noise schedule and trailing time steps (arXiv 2305.08891)."""
    import diffusers

    choice("scheduler", name, SCHEDULERS)
    kind = getattr(diffusers, SCHEDULERS[name])
    return kind.from_config(denoiser.noise_scheduler.config, timestep_spacing="trailing")


def initial_noise(shape: tuple[int, ...], random: Sequence[torch.Generator], init: str = "normal") -> Tensor:
    """One noise image of `shape` from each generator: `normal`, the DDPM's prior, or `uniform` on
    [-sqrt(3), sqrt(3)], which has unit variance too and is how the paper words it."""
    choice("initial noise", init, ("normal", "uniform"))
    if init == "normal":
        return torch.stack([torch.randn(shape, generator=g) for g in random])
    return torch.stack([(2 * torch.rand(shape, generator=g) - 1) * math.sqrt(3) for g in random])


def to_uint8(images: Tensor) -> np.ndarray:
    """Images (N, channels, H, W), meant to lie in [-1, 1] and clipped to it, as uint8 (N, H, W, channels)."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


@torch.inference_mode()
def sample(
    denoiser: Denoiser,
    weights: Tensor,
    *,
    scheduler: "str | SchedulerMixin" = "unipc",
    num_inference_steps: int = 8,
    guidance_scale: float = 1.0,
    init: str = "normal",
    seed: int = 0,
    noise_index: Sequence[int] | None = None,
    label_embeddings: Tensor | None = None,
    batch_size: int | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> np.ndarray:
    """Draw an image for each row of label weights.

    Image i depends on `seed`, its noise index and its weights, not on the batch it is drawn in.

    Args:
        weights: Label weights (N, C), such as from `pair_weights`.
        scheduler: A name in `SCHEDULERS`, or any diffusers scheduler object.
        guidance_scale: Classifier-free guidance (arXiv 2207.12598), `none + scale (class - none)`; 1 is off.
        init: Initial noise, `normal` or `uniform`.
        noise_index: Which noise each image starts from; equal numbers, equal noise. None for 0 to N - 1.
        label_embeddings: (N, D), to draw for in place of the embeddings of the weights.
        batch_size: Images drawn at a time; None for what suits the device, at most 256.
        on_step: Called with 0 and the initial noise, and after each step with its number from 1 and the batch
            (n, channels, H, W) as it stands.

    Returns:
        uint8 (N, H, W, channels).
    """
    if weights.ndim != 2 or weights.shape[1] != len(denoiser.class_names):
        raise InputError(
            f"label weights have shape {tuple(weights.shape)}, expected N x {len(denoiser.class_names)} classes"
        )
    if isinstance(scheduler, str):
        scheduler = make_scheduler(denoiser, scheduler)
    if not len(weights) or not bool(torch.isfinite(weights).all()):
        raise InputError("label weights must be finite, and at least one row of them")
    noise_index = range(len(weights)) if noise_index is None else noise_index
    if len(noise_index) != len(weights):
        raise InputError(f"{len(noise_index)} noise indices for {len(weights)} rows of label weights")
    batch_size = batch_size or images_at_once(denoiser.image_shape, denoiser.device, most=256)
    height, width, channels = denoiser.image_shape
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    denoiser.eval()
    drawn = []
    embeddings = iter(() if label_embeddings is None else label_embeddings.split(batch_size))
    for batch, index in zip(weights.split(batch_size), _chunks(noise_index, batch_size), strict=True):
        random = [generator(seed, "sampling", int(i)) for i in index]
        scheduler.set_timesteps(num_inference_steps)
        x = initial_noise((channels, height, width), random, init).to(denoiser.device)
        x = x * scheduler.init_noise_sigma
        batch = batch.to(denoiser.device, x.dtype)
        extra = {"generator": random} if takes_generator else {}
        embedding = None if label_embeddings is None else next(embeddings).to(denoiser.device)
        if on_step is not None:
            on_step(0, x)
        for step, t in enumerate(scheduler.timesteps, start=1):
            x_in = scheduler.scale_model_input(x, t)
            output = denoiser(x_in, t, batch, embedding)
            if guidance_scale != 1:
                unconditional = denoiser(x_in, t, torch.zeros_like(batch))
                output = unconditional + guidance_scale * (output - unconditional)
            x = scheduler.step(output, t, x, **extra).prev_sample
            if on_step is not None:
                on_step(step, x)
        drawn.append(to_uint8(x))
    return np.concatenate(drawn)


def _chunks(values: Sequence[int], size: int) -> list[Sequence[int]]:
    return [values[start : start + size] for start in range(0, len(values), size)]
