"""The way out of the noise: one loop for all who walk it, and the sampler that draws images for label weights."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from oodlib.device import images_at_once
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.schedule import initial_noise, make_scheduler
from oodlib.errors import InputError
from oodlib.images import signed_to_uint8
from oodlib.seeds import generator

if TYPE_CHECKING:  # it takes seconds to import
    from diffusers import SchedulerMixin

Predict = Callable[[Tensor, Tensor], Tensor]
"""What a network predicts of noisy images (N, channels, H, W) at a time step, a scalar."""


def denoise(
    predict: Predict,
    scheduler: "SchedulerMixin",
    x: Tensor,
    before_step: Callable[[Tensor, Tensor], Tensor] | None = None,
    random: Sequence[torch.Generator] | None = None,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Walk the time steps that the scheduler has set.

    Args:
        x: Noisy images (N, channels, H, W) at the first of its time steps.
        before_step: `before_step(t, x)` is put in the place of x before each step.
        random: A generator for each image, for a scheduler that adds noise.

    Yields:
        The step's number from 1, the noisy images after it, and the clean images that were predicted in it from
        the noisy ones before it: `signal x - sigma v`, or `(x - sigma noise) / signal`. Neither is clipped to
        [-1, 1] here.
    """
    options = {"generator": random} if "generator" in inspect.signature(scheduler.step).parameters else {}
    is_epsilon = scheduler.config.prediction_type == "epsilon"
    a = scheduler.alphas_cumprod[scheduler.timesteps.long()]
    shares = zip(scheduler.timesteps, a.sqrt().tolist(), (1 - a).sqrt().tolist(), strict=True)
    for step, (t, signal, sigma) in enumerate(shares, start=1):
        if before_step is not None:
            x = before_step(t, x)
        x_in = scheduler.scale_model_input(x, t)
        output = predict(x_in, t)
        clean = (x_in - sigma * output) / signal if is_epsilon else signal * x_in - sigma * output
        x = scheduler.step(output, t, x, **options).prev_sample
        yield step, x, clean


def guided(conditional: Predict, unconditional: Predict, scale: float) -> Predict:
    """Classifier-free guidance (arXiv 2207.12598), `unconditional + scale (conditional - unconditional)`."""

    def predict(x: Tensor, t: Tensor) -> Tensor:
        output, none = conditional(x, t), unconditional(x, t)
        return none + scale * (output - none)

    return predict


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
    on_step: Callable[[int, Tensor, Tensor | None], None] | None = None,
) -> np.ndarray:
    """Draw an image for each row of label weights.

    Image i depends on `seed`, its noise index and its weights, not on the batch it is drawn in.

    Args:
        weights: Label weights (N, C), such as from `pair_weights`.
        scheduler: A name in `SCHEDULERS`, or any diffusers scheduler object.
        guidance_scale: Of classifier-free guidance, see `guided`; 1 is off.
        init: Initial noise, `normal` or `uniform`.
        noise_index: Which noise each image starts from; equal numbers, equal noise. None for 0 to N - 1.
        label_embeddings: (N, D), to draw for in place of the embeddings of the weights.
        batch_size: Images drawn at a time; None for what suits the device, at most 1024.
        on_step: Called with 0, the initial noise and None, and after each step with what `denoise` yields of the
            batch.

    Returns:
        uint8 (N, H, W, channels).
    """
    if weights.ndim != 2 or weights.shape[1] != len(denoiser.class_names):
        raise InputError(
            f"label weights have shape {tuple(weights.shape)}, expected N x {len(denoiser.class_names)} classes"
        )
    if isinstance(scheduler, str):
        scheduler = make_scheduler(denoiser.noise_scheduler, scheduler)
    if not len(weights) or not bool(torch.isfinite(weights).all()):
        raise InputError("label weights must be finite, and at least one row of them")
    noise_index = range(len(weights)) if noise_index is None else noise_index
    if len(noise_index) != len(weights):
        raise InputError(f"{len(noise_index)} noise indices for {len(weights)} rows of label weights")
    batch_size = batch_size or images_at_once(denoiser.image_shape, denoiser.device, most=1024)
    height, width, channels = denoiser.image_shape
    denoiser.eval()
    drawn = []
    for start in range(0, len(weights), batch_size):
        part = slice(start, start + batch_size)
        random = [generator(seed, "sampling", int(i)) for i in noise_index[part]]
        scheduler.set_timesteps(num_inference_steps)
        noise = initial_noise((channels, height, width), random, init).to(denoiser.device)
        noise = noise * scheduler.init_noise_sigma
        batch = weights[part].to(denoiser.device, noise.dtype)
        embedding = None if label_embeddings is None else label_embeddings[part].to(denoiser.device)
        predict = partial(denoiser, label_weights=batch, label_embeddings=embedding)
        if guidance_scale != 1:
            no_class = partial(denoiser, label_weights=torch.zeros_like(batch))
            predict = guided(predict, no_class, guidance_scale)
        if on_step is not None:
            on_step(0, noise, None)
        for step, x, clean in denoise(predict, scheduler, noise, random=random):
            if on_step is not None:
                on_step(step, x, clean)
        drawn.append(signed_to_uint8(x))
    return np.concatenate(drawn)
