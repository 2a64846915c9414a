"""What both training loops share: their progress, the order of the images, and the check of the labels."""

import math
import os
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from oodlib.errors import InputError
from oodlib.files import fingerprint


def has_front_end() -> bool:
    """Whether this is the kernel of a notebook that is open in JupyterLab, whose server says so; papermill does not."""
    return "JPY_SESSION_NAME" in os.environ


class Progress:
    """Keeps the loss curve, stops where a loss or a weight is no longer finite, and every few seconds shows step, loss,
    images a second and time left: as a bar in JupyterLab, else as a line.

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
        self.has_bar, self.bar = prints and has_front_end(), None
        self.step, self.pending = 0, []  # losses and learning rates that were not looked at yet
        self.begin()

    def begin(self) -> None:
        """Measure speed and time left from here."""
        self.first, self.start = self.step, time.monotonic()
        self.shown = self.start

    def update(self, step: int, loss: Tensor, learning_rate: float) -> None:
        """Take the loss of a step, counted from 1, and the learning rate that it had."""
        if self.has_bar and self.bar is None:
            self.bar = tqdm(desc=self.what, total=self.steps, initial=self.first, unit="step", mininterval=0)
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
            self._show(mean)
        if show:
            self.shown = now

    def _show(self, loss: float) -> None:
        done, spent = self.step - self.first, time.monotonic() - self.start
        speed, left = done * self.batch_size / spent, spent * (self.steps - self.step) / done
        if self.bar is None:
            print(
                f"{self.what}: step {self.step} of {self.steps}, loss {loss:.3f}, {speed:.0f} images/s, "
                f"{left:.0f} s left",
                flush=True,
            )
            return
        self.bar.set_postfix_str(f"loss {loss:.3f}, {speed:.0f} images/s", refresh=False)
        self.bar.update(self.step - self.bar.n)
        if self.step == self.steps:
            self.bar.close()

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


def fingerprint_weights(*modules: nn.Module) -> str:
    """A hash of the modules' tensors, the same in any memory layout and on any device."""
    tensors = (tensor for module in modules for tensor in module.state_dict().values())
    return fingerprint(*(t.cpu().contiguous().flatten().view(torch.uint8).numpy() for t in tensors))


def start_of(model: nn.Module) -> dict[str, Any]:
    """What a training starts from: the model's `config` and a hash of its weights."""
    return {"model": model.config, "weights": fingerprint_weights(model)}
