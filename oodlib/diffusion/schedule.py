"""The noise schedule, apart from any network: how much of an image is left at each time step, the solvers that lead
back, and the noise that they start from."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from oodlib.errors import choice

if TYPE_CHECKING:  # it takes seconds to import
    from diffusers import DDPMScheduler, SchedulerMixin

PREDICTION_TYPES = ("v_prediction", "epsilon")
INITIAL_NOISES = ("normal", "uniform")
SCHEDULERS = {
    "ddpm": "DDPMScheduler",
    "ddim": "DDIMScheduler",
    "dpmsolver++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}


def noise_schedule(prediction_type: str = "v_prediction") -> "DDPMScheduler":
    """The cosine schedule of 1000 time steps (Nichol & Dhariwal 2021, arXiv 2102.09672) that denoisers learn.

    At time step t a noisy image is `sqrt(a) image + sqrt(1 - a) noise`, where a is `alphas_cumprod[t]`.

    Args:
        prediction_type: What the network predicts, `v_prediction` (arXiv 2202.00512) or `epsilon`.
    """
    from diffusers import DDPMScheduler

    choice("prediction type", prediction_type, PREDICTION_TYPES)
    return DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type=prediction_type, clip_sample=True)


def make_scheduler(schedule: "DDPMScheduler", name: str) -> "SchedulerMixin":
    """One of `SCHEDULERS` for this noise schedule, with trailing time steps (arXiv 2305.08891)."""
    import diffusers

    choice("scheduler", name, SCHEDULERS)
    return getattr(diffusers, SCHEDULERS[name]).from_config(schedule.config, timestep_spacing="trailing")


def initial_noise(shape: tuple[int, ...], random: Sequence[torch.Generator], init: str = "normal") -> Tensor:
    """One noise image of `shape` from each generator: `normal`, the DDPM's prior, or `uniform` on
    [-sqrt(3), sqrt(3)], which has unit variance too and is how the paper words it."""
    choice("initial noise", init, INITIAL_NOISES)
    if init == "normal":
        return torch.stack([torch.randn(shape, generator=g) for g in random])
    return torch.stack([(2 * torch.rand(shape, generator=g) - 1) * math.sqrt(3) for g in random])
