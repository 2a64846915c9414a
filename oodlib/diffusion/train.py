"""The denoiser's training loop, plain and visible.

Nothing in it waits for the device: losses are looked at every few seconds, all at once.
"""

import copy
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from oodlib.checkpoints import Checkpoints
from oodlib.diffusion.denoiser import Denoiser
from oodlib.errors import InputError
from oodlib.files import fingerprint
from oodlib.images import uint8_to_signed
from oodlib.seeds import generator
from oodlib.settings import DenoiserTraining
from oodlib.training import Progress, batches, labels_of, start_of


def ema_weight(step: int, decay: float) -> float:
    """Weight of step's weights in their moving average, `1 - min(decay, step / (9 + step))` and 1 in the first step,
    so that the average soon forgets the first weights."""
    return 1.0 if step == 1 else 1 - min(decay, step / (9 + step))


@contextmanager
def default_generator(seed: int, *purpose: object, device: torch.device) -> Iterator[torch.Generator]:
    """The device's default generator, which dropout draws from: seeded within the block, as it was after it."""
    defaults = torch.cuda.default_generators if device.type == "cuda" else [torch.default_generator]
    random = defaults[device.index or 0]
    before = random.get_state()
    random.set_state(generator(seed, *purpose, device=device).get_state())
    try:
        yield random
    finally:
        random.set_state(before)


def launched(device: torch.device) -> tuple[int, int]:
    """This process's number and the number of processes that `accelerate launch` started; else 0 and 1."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return 0, 1
    from accelerate import PartialState

    state = PartialState(cpu=device.type == "cpu")
    return state.process_index, state.num_processes


def average(*tensors: Tensor) -> None:
    """Put in place of each tensor its mean over all processes."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor /= dist.get_world_size()


def fit_denoiser(
    denoiser: Denoiser,
    images: np.ndarray,
    labels: np.ndarray,
    settings: DenoiserTraining,
    *,
    device: str | torch.device = "cpu",
    checkpoints: Path | None = None,
    checkpoint_every_s: float = 60.0,
) -> pd.DataFrame:
    """Train a denoiser by AdamW with a cosine schedule; it ends with the moving average of its weights.

    Called in every process that `accelerate launch` or `torchrun` starts, each takes its share of each batch, and
    all end with the same weights: those of one process but for rounding, and for dropout where there is any.

    Args:
        denoiser: Trained in place.
        images: uint8 (N, H, W, C).
        labels: Integers (N,).
        settings: Its `label_dropout` is the share of labels replaced by zeros, which teaches it to draw without a
            class; `compile` is by torch.compile, which takes minutes for a large network.
        checkpoints: A folder for checkpoints; a training with the same settings that was stopped goes on from there.
        checkpoint_every_s: Seconds between two of them.

    Returns:
        The loss curve, columns `step` and `loss`.

    Raises:
        InputError: Labels or settings are out of range, or the loss is no longer finite; the last checkpoint is from
            before that.
    """
    from diffusers.optimization import get_cosine_schedule_with_warmup

    steps, batch_size, seed = settings.denoiser_steps, settings.denoiser_batch_size, settings.seed
    if not steps:
        raise InputError("denoiser_steps = 0 trains nothing, expected 1 or more")
    process, processes = launched(torch.device(device))
    if batch_size % processes:
        raise InputError(
            f"denoiser_batch_size {batch_size} is shared by {processes} processes; choose a multiple of {processes}"
        )
    mine = slice(process, None, processes)
    data = torch.as_tensor(images, device=device).permute(0, 3, 1, 2).contiguous()
    device, num_classes = data.device, len(denoiser.class_names)
    one_hot = F.one_hot(labels_of(data, labels, num_classes), num_classes).float().to(device)
    start = dict(
        **settings.values(DenoiserTraining),
        device=device.type,
        data=fingerprint(data.cpu().numpy(), np.asarray(labels)),
        **start_of(denoiser),
    )
    denoiser.to(device).train()
    ema = copy.deepcopy(denoiser)
    parameters, averaged = list(denoiser.parameters()), list(ema.parameters())
    loss_of = torch.compile(denoiser.loss) if settings.compile else denoiser.loss
    optimizer = torch.optim.AdamW(parameters, lr=settings.denoiser_learning_rate, weight_decay=1e-6)
    schedule = get_cosine_schedule_with_warmup(optimizer, min(100, steps // 10), steps)
    num_train_timesteps = denoiser.noise_scheduler.config.num_train_timesteps

    random_noise = generator(seed, "noise", device=device)
    random_steps = generator(seed, "timesteps", device=device)
    random_labels = generator(seed, "label dropout", device=device)
    random_flips = generator(seed, "flips", device=device)
    progress = Progress("denoiser", steps, batch_size, parameters, prints=process == 0)
    with default_generator(seed, "dropout", device=device) as random_dropout:
        parts = dict(denoiser=denoiser, ema=ema, optimizer=optimizer, schedule=schedule, progress=progress)
        parts |= dict(noise=random_noise, timesteps=random_steps, labels=random_labels)
        parts |= dict(flips=random_flips, dropout=random_dropout)
        saved = Checkpoints(checkpoints, start, parts, checkpoint_every_s, is_main=process == 0)
        done = saved.resume()
        order = itertools.islice(batches(len(data), batch_size, generator(seed, "order")), done, None)
        for step in range(done + 1, steps + 1):
            # Every process draws for the whole batch, so that what is drawn does not depend on their number.
            index = next(order).to(device, non_blocking=True)
            keep = torch.rand(batch_size, 1, generator=random_labels, device=device) >= settings.label_dropout
            noise = torch.randn((batch_size, *data.shape[1:]), generator=random_noise, device=device)
            timesteps = torch.randint(
                num_train_timesteps, (batch_size,), generator=random_steps, device=device
            )
            batch = uint8_to_signed(data[index[mine]])
            if settings.flip:
                mirrored = torch.rand(batch_size, 1, 1, 1, generator=random_flips, device=device) < 0.5
                batch = torch.where(mirrored[mine], batch.flip(3), batch)
            loss = loss_of(batch, (one_hot[index] * keep)[mine], timesteps[mine], noise[mine])
            optimizer.zero_grad()
            loss.backward()
            average(loss.detach(), *(p.grad for p in parameters))
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(averaged, parameters, ema_weight(step, settings.ema_decay))
            progress.update(step, loss, schedule.get_last_lr()[0])
            schedule.step()
            saved.update(step)
        saved.save(steps)
    denoiser.load_state_dict(ema.state_dict())
    denoiser.eval()
    return pd.DataFrame(progress.history)
