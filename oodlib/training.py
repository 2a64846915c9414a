"""The two training loops, plain and visible: the denoiser's and the detector's.

Nothing in them waits for the device: losses are looked at every few seconds, all at once.
"""

import copy
import itertools
import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from oodlib.checkpoints import Checkpoints
from oodlib.detector import Detector
from oodlib.errors import InputError
from oodlib.heads import CosineHead, uniform_cross_entropy
from oodlib.runs import fingerprint
from oodlib.seeds import generator
from oodlib.virtual import VirtualOutliers

if TYPE_CHECKING:  # diffusers takes seconds to import, and training a detector does not need it
    from oodlib.denoiser import Denoiser


class Progress:
    """Keeps the loss curve, stops where a loss or a weight is no longer finite, and every few seconds prints a line:
    step, loss, images a second, time left.

    Args:
        parameters: The weights that must stay finite.
    """

    def __init__(
        self,
        what: str,
        steps: int,
        batch_size: int,
        parameters: Iterable[Tensor] = (),
        every_s: float = 5.0,
        prints: bool = True,
    ):
        self.what, self.steps, self.batch_size, self.every_s = what, steps, batch_size, every_s
        self.parameters, self.prints = list(parameters), prints
        self.keep_every = max(1, steps // 100)
        self.history: list[dict[str, float]] = []
        self.sum, self.count = np.float32(0), 0  # of the losses since the last point of the curve
        self.step, self.pending = 0, []  # losses and learning rates that were not looked at yet
        self.begin()

    def begin(self) -> None:
        """Measure speed and time left from here."""
        self.first, self.start = self.step, time.monotonic()
        self.shown = self.start

    def update(self, step: int, loss: Tensor, learning_rate: float) -> None:
        """Take the loss of a step, counted from 1, and the learning rate that it had."""
        self.step = step
        self.pending.append((loss.detach(), learning_rate))
        now = time.monotonic()
        keep = step % self.keep_every == 0 or step == self.steps
        show = now - self.shown >= self.every_s or step == self.steps
        if not keep and not show:
            return
        self.check()
        mean = float(self.sum) / self.count
        if keep:
            self.history.append({"step": step, "loss": mean})
            self.sum, self.count = np.float32(0), 0
        if show and self.prints:
            done, spent = step - self.first, time.monotonic() - self.start
            speed, left = done * self.batch_size / spent, spent * (self.steps - step) / done
            print(
                f"{self.what}: step {step} of {self.steps}, loss {mean:.3f}, {speed:.0f} images/s, {left:.0f} s left",
                flush=True,
            )
        if show:
            self.shown = now

    @torch.no_grad()
    def check(self) -> None:
        """Wait for the device and look at the losses since the last check, and at the weights as they are now.

        Raises:
            InputError: One is not finite; names the step and its learning rate.
        """
        if not self.pending:
            return
        losses = torch.stack([loss for loss, _ in self.pending]).float().cpu().numpy()
        for i, (loss, (_, rate)) in enumerate(zip(losses, self.pending, strict=True)):
            if not math.isfinite(loss):
                raise self._diverged(f"the loss is {loss}", self.step - len(losses) + 1 + i, rate)
            self.sum, self.count = self.sum + loss, self.count + 1
        if self.parameters and not torch.stack([p.isfinite().all() for p in self.parameters]).all():
            raise self._diverged("the weights are not finite", self.step, self.pending[-1][1])
        self.pending = []

    def _diverged(self, what: str, step: int, learning_rate: float) -> InputError:
        return InputError(
            f"{self.what}: {what} at step {step}, where the learning rate is {learning_rate:.3g}; lower it"
        )

    def state_dict(self) -> dict[str, Any]:
        """The curve up to here; checked first, so that no checkpoint is written of what is not finite."""
        self.check()
        return {"step": self.step, "history": self.history, "sum": float(self.sum), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after that step; speed and time left count from here."""
        self.step, self.history, self.count = state["step"], state["history"], state["count"]
        self.sum = np.float32(state["sum"])
        self.begin()


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
    shift = torch.randint(0, 2 * pad + 1, (2, count), generator=random).to(images.device, non_blocking=True)
    mirrored = None
    if flip:
        mirrored = torch.randint(0, 2, (count,), generator=random).to(images.device, non_blocking=True)
    rows = torch.arange(height, device=images.device) + shift[0, :, None]
    columns = torch.arange(width, device=images.device) + shift[1, :, None]
    if mirrored is not None:
        columns = torch.where(mirrored[:, None] == 1, columns.flip(1), columns)
    padded = F.pad(images, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    index = torch.arange(count, device=images.device)
    return padded[index[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def start_of(model: "Denoiser | Detector") -> dict[str, Any]:
    """What a training starts from: the model's settings and a hash of its weights."""
    weights = (tensor.cpu().numpy() for tensor in model.state_dict().values())
    return {"model": model.config, "weights": fingerprint(*weights)}


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
    denoiser: "Denoiser",
    images: np.ndarray,
    labels: np.ndarray,
    *,
    steps: int,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    label_dropout: float = 0.1,
    ema_decay: float = 0.995,
    flip: bool = False,
    compile: bool = False,
    seed: int = 0,
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
        label_dropout: Share of labels replaced by zeros, which teaches it to draw without a class.
        flip: Mirror half of the images.
        compile: By torch.compile, which takes minutes for a large network.
        checkpoints: A folder for checkpoints; a training with the same settings that was stopped goes on from there.
        checkpoint_every_s: Seconds between two of them.

    Returns:
        The loss curve, columns `step` and `loss`.

    Raises:
        InputError: Labels or settings are out of range, or the loss is no longer finite; the last checkpoint is from
            before that.
    """
    from diffusers.optimization import get_cosine_schedule_with_warmup

    process, processes = launched(torch.device(device))
    if batch_size % processes:
        raise InputError(
            f"batch_size {batch_size} is shared by {processes} processes; choose a multiple of {processes}"
        )
    mine = slice(process, None, processes)
    data = torch.as_tensor(images, device=device).permute(0, 3, 1, 2).contiguous()
    device, num_classes = data.device, len(denoiser.class_names)
    one_hot = F.one_hot(labels_of(data, labels, num_classes), num_classes).float().to(device)
    settings = dict(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        label_dropout=label_dropout,
        ema_decay=ema_decay,
        flip=flip,
        seed=seed,
        device=device.type,
        data=fingerprint(data.cpu().numpy(), np.asarray(labels)),
        **start_of(denoiser),
    )
    denoiser.to(device).train()
    ema = copy.deepcopy(denoiser)
    parameters, averaged = list(denoiser.parameters()), list(ema.parameters())
    loss_of = torch.compile(denoiser.loss) if compile else denoiser.loss
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=1e-6)
    schedule = get_cosine_schedule_with_warmup(optimizer, min(100, steps // 10), steps)
    num_train_timesteps = denoiser.noise_scheduler.config.num_train_timesteps

    random_noise = generator(seed, "noise", device=device)
    random_steps = generator(seed, "timesteps", device=device)
    random_labels = generator(seed, "label dropout", device=device)
    random_flips = generator(seed, "flips", device=device)
    progress = Progress("denoiser", steps, batch_size, parameters, prints=process == 0)
    with default_generator(seed, "dropout", device=device) as random_dropout:
        saved = Checkpoints(
            checkpoints,
            settings,
            dict(
                denoiser=denoiser,
                ema=ema,
                optimizer=optimizer,
                schedule=schedule,
                noise=random_noise,
                timesteps=random_steps,
                labels=random_labels,
                flips=random_flips,
                dropout=random_dropout,
                progress=progress,
            ),
            checkpoint_every_s,
            is_main=process == 0,
        )
        done = saved.resume()
        order = itertools.islice(batches(len(data), batch_size, generator(seed, "order")), done, None)
        for step in range(done + 1, steps + 1):
            # Every process draws for the whole batch, so that what is drawn does not depend on their number.
            index = next(order).to(device, non_blocking=True)
            keep = torch.rand(batch_size, 1, generator=random_labels, device=device) >= label_dropout
            noise = torch.randn((batch_size, *data.shape[1:]), generator=random_noise, device=device)
            timesteps = torch.randint(
                num_train_timesteps, (batch_size,), generator=random_steps, device=device
            )
            batch = data[index[mine]].float() / 127.5 - 1
            if flip:
                mirrored = torch.rand(batch_size, 1, 1, 1, generator=random_flips, device=device) < 0.5
                batch = torch.where(mirrored[mine], batch.flip(3), batch)
            loss = loss_of(batch, (one_hot[index] * keep)[mine], timesteps[mine], noise[mine])
            optimizer.zero_grad()
            loss.backward()
            average(loss.detach(), *(p.grad for p in parameters))
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(averaged, parameters, ema_weight(step, ema_decay))
            progress.update(step, loss, schedule.get_last_lr()[0])
            schedule.step()
            saved.update(step)
        saved.save(steps)
    denoiser.load_state_dict(ema.state_dict())
    denoiser.eval()
    return pd.DataFrame(progress.history)


def fit_detector(
    detector: Detector,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    outliers: np.ndarray | None = None,
    outlier_targets: np.ndarray | None = None,
    outlier_loss_weights: np.ndarray | None = None,
    virtual_outliers: bool = False,
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
    checkpoints: Path | None = None,
    checkpoint_every_s: float = 60.0,
) -> pd.DataFrame:
    """Train a detector by Nesterov SGD with a cosine schedule, with outlier exposure where outliers are given.

    The loss is `head loss(ID) + outlier_weight * uniform_cross_entropy(outliers)`. ID images and outliers go
    through the network in one batch, so that batch normalisation sees both (arXiv 1812.04606).

    Args:
        detector: Trained in place.
        images: uint8 (N, H, W, C).
        labels: Integers (N,) in [0, C).
        outliers: uint8 (M, H, W, C) with M of 2 or more, or None for plain training.
        outlier_targets: (M, C), what to predict for each, rows that sum to 1; None for the uniform distribution.
        outlier_loss_weights: (M,), how much each outlier counts; None for 1.
        virtual_outliers: Draw outliers in feature space while training, in place of images.
        outlier_batch_size: Outliers in each step, beside `batch_size` ID images.
        epochs: Passes over the ID images.
        flip: Mirror half of the images.
        checkpoints: A folder for checkpoints; a training with the same settings that was stopped goes on from there.
        checkpoint_every_s: Seconds between two of them.

    Returns:
        The loss curve, columns `step` and `loss`.

    Raises:
        InputError: Images, labels or settings are out of range, or the loss is no longer finite; the last checkpoint
            is from before that.
    """
    id_images = detector.to_uint8(images).to(device)
    id_labels = labels_of(id_images, labels, len(detector.class_names)).to(device)
    outlier_images = None if outliers is None else detector.to_uint8(outliers).to(device)
    targets, loss_weights = (
        None if given is None else torch.as_tensor(given, dtype=torch.float32, device=device)
        for given in (outlier_targets, outlier_loss_weights)
    )
    if outliers is not None:
        _check_outliers(len(outlier_images), targets, loss_weights, len(detector.class_names))
    if outliers is not None and virtual_outliers:
        raise InputError("outliers are images or virtual, not both; leave out one of them")
    settings = dict(
        outlier_weight=outlier_weight,
        outlier_batch_size=outlier_batch_size,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        flip=flip,
        seed=seed,
        device=id_images.device.type,
        data=fingerprint(id_images.cpu().numpy(), id_labels.cpu().numpy()),
        outliers=None if outliers is None else fingerprint(outlier_images.cpu().numpy()),
        virtual_outliers=virtual_outliers,
        exposure=fingerprint(*(t.cpu().numpy() for t in (targets, loss_weights) if t is not None)),
        **start_of(detector),
    )
    detector.to(device).train()

    undecayed = [detector.head.weight] if isinstance(detector.head, CosineHead) else []
    decayed = [p for p in detector.parameters() if all(p is not q for q in undecayed)]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": undecayed, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=learning_rate, momentum=0.9, nesterov=True)
    steps = max(1, round(epochs * len(id_images) / batch_size))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=1e-6)

    shifts, outlier_shifts = generator(seed, "augmentation"), generator(seed, "outlier augmentation")
    virtual, random_virtual = VirtualOutliers(len(detector.class_names)), generator(seed, "virtual outliers")
    progress = Progress(what, steps, batch_size, detector.parameters())
    saved = Checkpoints(
        checkpoints,
        settings,
        dict(
            detector=detector,
            optimizer=optimizer,
            schedule=schedule,
            shifts=shifts,
            outlier_shifts=outlier_shifts,
            virtual=virtual,
            random_virtual=random_virtual,
            progress=progress,
        ),
        checkpoint_every_s,
    )
    done = saved.resume()
    order = itertools.islice(batches(len(id_images), batch_size, generator(seed, "ID order")), done, None)
    if outliers is not None:
        outlier_order = batches(len(outlier_images), outlier_batch_size, generator(seed, "outlier order"))
        outlier_order = itertools.islice(outlier_order, done, None)
    for step in range(done + 1, steps + 1):
        index = next(order).to(device, non_blocking=True)
        batch, batch_labels = augment(id_images[index], flip, shifts), id_labels[index]
        exposure = ()
        if outliers is not None:
            unlike = next(outlier_order).to(device, non_blocking=True)
            batch = torch.cat([batch, augment(outlier_images[unlike], flip, outlier_shifts)])
            exposure = (None if given is None else given[unlike] for given in (targets, loss_weights))
        features = detector.features(batch)
        if virtual_outliers:
            virtual.remember(features, batch_labels)
            features = torch.cat([features, virtual.draw(outlier_batch_size, random_virtual)])
        logits = detector.head.training_logits(features, batch_labels)
        loss = F.cross_entropy(logits[:batch_size], batch_labels)
        if len(logits) > batch_size:
            loss = loss + outlier_weight * uniform_cross_entropy(logits[batch_size:], *exposure)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress.update(step, loss, schedule.get_last_lr()[0])
        schedule.step()
        saved.update(step)
    saved.save(steps)
    detector.eval()
    return pd.DataFrame(progress.history)


def _check_outliers(
    count: int, targets: Tensor | None, loss_weights: Tensor | None, num_classes: int
) -> None:
    if count < 2:
        raise InputError(f"the outliers are {count} image, expected 2 or more; draw a pool with notebook 2")
    if targets is not None and targets.shape != (count, num_classes):
        raise InputError(
            f"outlier_targets have shape {tuple(targets.shape)}, expected {count} outliers x {num_classes} classes"
        )
    if loss_weights is not None and (loss_weights.shape != (count,) or bool((loss_weights < 0).any())):
        raise InputError(f"outlier_loss_weights must be {count} numbers of 0 or more, one for each outlier")
