"""The two training loops, plain and visible: the denoiser's and the detector's."""

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from oodlib.detector import Detector
from oodlib.errors import InputError
from oodlib.heads import CosineHead, uniform_cross_entropy
from oodlib.seeds import generator

if TYPE_CHECKING:  # diffusers takes seconds to import, and training a detector does not need it
    from oodlib.denoiser import Denoiser


class Progress:
    """Prints a line every few seconds: step, loss, images a second, time left. Keeps the loss curve."""

    def __init__(self, what: str, steps: int, batch_size: int, every_s: float = 5.0):
        self.what, self.steps, self.batch_size, self.every_s = what, steps, batch_size, every_s
        self.history: list[dict[str, float]] = []
        self.sum, self.since = torch.zeros(()), 0
        self.start = self.shown = time.monotonic()
        self.keep_every = max(1, steps // 100)

    def update(self, step: int, loss: Tensor) -> None:
        """Take the loss of a step, counted from 1, without waiting for the device but a hundred times a run."""
        self.sum, self.since = self.sum + loss.detach(), self.since + 1
        if step % self.keep_every and step != self.steps:
            return
        mean = self.sum.item() / self.since
        self.sum, self.since = torch.zeros(()), 0
        if not math.isfinite(mean):
            raise InputError(f"{self.what}: the loss is {mean} at step {step}; lower the learning rate")
        self.history.append({"step": step, "loss": mean})
        now = time.monotonic()
        if now - self.shown >= self.every_s or step == self.steps:
            self.shown, spent = now, now - self.start
            speed, left = step * self.batch_size / spent, spent * (self.steps - step) / step
            print(
                f"{self.what}: step {step} of {self.steps}, loss {mean:.3f}, {speed:.0f} images/s, {left:.0f} s left",
                flush=True,
            )


def batches(count: int, batch_size: int, random: torch.Generator):
    """Endless batches of indices, each epoch in a new order; a batch may span two epochs."""
    rest = torch.empty(0, dtype=torch.long)
    while True:
        while len(rest) < batch_size:
            rest = torch.cat([rest, torch.randperm(count, generator=random)])
        yield rest[:batch_size]
        rest = rest[batch_size:]


def labels_of(images: Tensor, labels: np.ndarray, num_classes: int) -> Tensor:
    """`labels` as int64, checked: one in [0, num_classes) for each of the images."""
    labels = torch.as_tensor(labels).long()
    fits = labels.shape == images.shape[:1] and len(labels) > 0
    if not fits or labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(
            f"labels of shape {tuple(labels.shape)}, expected one for each of {len(images)} images, "
            f"from 0 to {num_classes - 1}"
        )
    return labels


def augment(images: Tensor, flip: bool, random: torch.Generator) -> Tensor:
    """Shift each image by up to an eighth of its side, zeros coming in, and flip half of them if asked.

    Args:
        images: uint8 (N, C, H, W).
    """
    count, _, height, width = images.shape
    pad = height // 8
    shift = torch.randint(0, 2 * pad + 1, (2, count), generator=random).to(images.device)
    mirrored = torch.randint(0, 2, (count,), generator=random).to(images.device) if flip else None
    rows = torch.arange(height, device=images.device) + shift[0, :, None]
    columns = torch.arange(width, device=images.device) + shift[1, :, None]
    if mirrored is not None:
        columns = torch.where(mirrored[:, None] == 1, columns.flip(1), columns)
    padded = F.pad(images, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    index = torch.arange(count, device=images.device)
    return padded[index[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def ema_with_warmup(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    """An averaging function for `AveragedModel`: `ema += (1 - d) (weights - ema)` with
    `d = min(decay, (1 + n) / (10 + n))` after n updates, so that the average soon forgets the first weights."""

    def average(averaged: list[Tensor], current: list[Tensor], num_averaged: Tensor) -> None:
        n = int(num_averaged)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

    return average


def fit_denoiser(
    denoiser: "Denoiser",
    images: np.ndarray,
    labels: np.ndarray,
    *,
    steps: int,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    label_dropout: float = 0.1,
    ema_decay: float = 0.995,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> pd.DataFrame:
    """Train a denoiser by AdamW with a cosine schedule; it ends with the moving average of its weights.

    Args:
        denoiser: Trained in place.
        images: uint8 (N, H, W, C).
        labels: Integers (N,).
        label_dropout: Share of labels replaced by zeros, which teaches it to draw without a class.

    Returns:
        The loss curve, columns `step` and `loss`.
    """
    from diffusers.optimization import get_cosine_schedule_with_warmup

    data = torch.as_tensor(images, device=device).permute(0, 3, 1, 2).float() / 127.5 - 1
    num_classes = len(denoiser.class_names)
    one_hot = F.one_hot(labels_of(data, labels, num_classes), num_classes).float().to(device)
    denoiser.to(device).train()
    ema = AveragedModel(denoiser, multi_avg_fn=ema_with_warmup(ema_decay))
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=learning_rate, weight_decay=1e-6)
    schedule = get_cosine_schedule_with_warmup(optimizer, min(100, steps // 10), steps)
    num_train_timesteps = denoiser.noise_scheduler.config.num_train_timesteps

    order = batches(len(data), batch_size, generator(seed, "order"))
    random_noise = generator(seed, "noise", device=device)
    random_steps = generator(seed, "timesteps", device=device)
    random_labels = generator(seed, "label dropout", device=device)
    progress = Progress("denoiser", steps, batch_size)
    for step in range(1, steps + 1):
        index = next(order).to(device)
        batch = data[index]
        keep = torch.rand(batch_size, 1, generator=random_labels, device=device) >= label_dropout
        noise = torch.randn(batch.shape, generator=random_noise, device=device)
        timesteps = torch.randint(num_train_timesteps, (batch_size,), generator=random_steps, device=device)
        loss = denoiser.loss(batch, one_hot[index] * keep, timesteps, noise)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        ema.update_parameters(denoiser)
        progress.update(step, loss)
    denoiser.load_state_dict(ema.module.state_dict())
    denoiser.eval()
    return pd.DataFrame(progress.history)


def fit_detector(
    detector: Detector,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    outliers: np.ndarray | None = None,
    outlier_weight: float = 0.5,
    outlier_batch_size: int = 128,
    epochs: int,
    batch_size: int = 128,
    learning_rate: float = 0.1,
    weight_decay: float = 5e-4,
    flip: bool = False,
    seed: int = 0,
    device: str | torch.device = "cpu",
    what: str = "detector",
) -> pd.DataFrame:
    """Train a detector by Nesterov SGD with a cosine schedule, with outlier exposure where outliers are given.

    The loss is `head loss(ID) + outlier_weight * uniform_cross_entropy(outliers)`. ID images and outliers go
    through the network in one batch, so that batch normalisation sees both (arXiv 1812.04606).

    Args:
        detector: Trained in place.
        images: uint8 (N, H, W, C).
        labels: Integers (N,) in [0, C).
        outliers: uint8 (M, H, W, C), or None for plain training.
        outlier_batch_size: Outliers in each step, beside `batch_size` ID images.
        epochs: Passes over the ID images.

    Returns:
        The loss curve, columns `step` and `loss`.
    """
    id_images = detector.to_uint8(images).to(device)
    id_labels = labels_of(id_images, labels, len(detector.class_names)).to(device)
    outlier_images = None if outliers is None else detector.to_uint8(outliers).to(device)
    detector.to(device).train()

    undecayed = [detector.head.weight] if isinstance(detector.head, CosineHead) else []
    decayed = [p for p in detector.parameters() if all(p is not q for q in undecayed)]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": undecayed, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=learning_rate, momentum=0.9, nesterov=True)
    steps = max(1, round(epochs * len(id_images) / batch_size))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=1e-6)

    order = batches(len(id_images), batch_size, generator(seed, "ID order"))
    shifts = generator(seed, "augmentation")
    if outliers is not None:
        outlier_order = batches(len(outlier_images), outlier_batch_size, generator(seed, "outlier order"))
        outlier_shifts = generator(seed, "outlier augmentation")
    progress = Progress(what, steps, batch_size)
    for step in range(1, steps + 1):
        index = next(order).to(device)
        batch, batch_labels = augment(id_images[index], flip, shifts), id_labels[index]
        if outliers is not None:
            unlike = augment(outlier_images[next(outlier_order).to(device)], flip, outlier_shifts)
            batch = torch.cat([batch, unlike])
        logits = detector.head.training_logits(detector.features(batch), batch_labels)
        loss = F.cross_entropy(logits[:batch_size], batch_labels)
        if outliers is not None:
            loss = loss + outlier_weight * uniform_cross_entropy(logits[batch_size:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress.update(step, loss)
    detector.eval()
    return pd.DataFrame(progress.history)
