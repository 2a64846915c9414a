"""Checkpoints of a training: written whole or not at all, the last two kept, and read back to the bit.

A checkpoint is one safetensors file. Its header holds, as JSON, the step, the settings and all state that is no
tensor.
"""

import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from oodlib.files import atomic
from oodlib.settings import OFF


class Checkpoints:
    """What a training goes on from after it was stopped.

    The last one is written when training ends and stays, so that whatever comes between training and its saved
    result may fail too; remove the folder once the result is saved.

    Args:
        folder: Where they lie; None for none at all.
        settings: JSON values, all that the training depends on. A checkpoint of other settings is not resumed.
        parts: What the training changes, by name: generators, and whatever has `state_dict` and `load_state_dict`.
        every_s: Seconds between two checkpoints; 0 writes one after each step.
        is_main: Whether this process writes and prints; of several, one does.
    """

    def __init__(
        self,
        folder: Path | None,
        settings: dict[str, Any],
        parts: dict[str, Any],
        every_s: float = 60.0,
        is_main: bool = True,
    ):
        self.folder = None if folder is None else Path(folder)
        self.settings = json.loads(json.dumps(settings))
        self.parts, self.every_s, self.is_main = parts, every_s, is_main
        self.kept: list[Path] = []
        self.written = time.monotonic()

    def resume(self) -> int:
        """Put all parts in the state of the newest checkpoint that is whole and of these settings.

        Returns:
            The step after which it was written; 0 where there is none, and then nothing was changed.
        """
        paths = [] if self.folder is None else sorted(self.folder.glob("step-*.safetensors"), reverse=True)
        for path in paths:
            try:
                about, tensors = read(path)
            except SafetensorError as error:
                self._say(f"{path} is damaged ({error}) and is not used")
                continue
            names = self.settings.keys() | about["settings"].keys()
            ours, theirs = ({**OFF, **settings} for settings in (self.settings, about["settings"]))
            other = sorted(n for n in names if ours.get(n) != theirs.get(n))
            if other:
                self._say(f"{path} was written with other settings ({', '.join(other)}) and is not used")
                continue
            for name, state in with_tensors(about["state"], tensors).items():
                _set_state(self.parts[name], state)
            self.kept = [path]
            self._say(f"{path}: training goes on after step {about['step']}")
            return about["step"]
        if paths:
            self._say(f"{self.folder} has no checkpoint to go on from; training starts again")
        return 0

    def update(self, step: int) -> None:
        """Write a checkpoint after this step if the last one is `every_s` seconds old."""
        if time.monotonic() - self.written >= self.every_s:
            self.save(step)

    def save(self, step: int) -> None:
        """Write a checkpoint after this step, and only then remove all but the last two."""
        if self.folder is None or not self.is_main:
            return
        path = self.folder / f"step-{step:08d}.safetensors"
        write(path, step, self.settings, {name: _get_state(part) for name, part in self.parts.items()})
        self.kept = [*(kept for kept in self.kept if kept != path), path][-2:]
        # Besides the older ones: damaged ones, those of other settings, and what a killed process left half-written.
        for old in (*self.folder.glob("step-*.safetensors"), *self.folder.glob(".step-*.part.safetensors")):
            if old not in self.kept:
                old.unlink(missing_ok=True)
        self.written = time.monotonic()

    def _say(self, line: str) -> None:
        if self.is_main:
            print(line.removeprefix("../"), flush=True)


def _get_state(part: Any) -> Any:
    return part.get_state() if isinstance(part, torch.Generator) else part.state_dict()


def _set_state(part: Any, state: Any) -> None:
    if isinstance(part, torch.Generator):
        part.set_state(state)
        return
    if isinstance(part, torch.optim.Optimizer):  # it numbers its parameters, and JSON made the numbers text
        state["state"] = {int(number): values for number, values in state["state"].items()}
    part.load_state_dict(state)


def write(path: Path, step: int, settings: dict[str, Any], state: dict[str, Any]) -> None:
    """Write a checkpoint: tensors, and JSON values and containers around them."""
    tensors: dict[str, Tensor] = {}
    about = {"step": step, "settings": settings, "state": without_tensors(state, tensors)}
    with atomic(path) as part:
        save_file(tensors, part, {"about": json.dumps(about)})


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Step, settings and state of a checkpoint, and the tensors that belong into the state.

    Raises:
        SafetensorError: The file is damaged.
    """
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["about"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def without_tensors(state: Any, tensors: dict[str, Tensor], name: str = "state") -> Any:
    """`state` with each tensor moved to `tensors`; its name and strides take its place."""
    if isinstance(state, Tensor):
        tensors[name] = state.detach().contiguous()
        return {"tensor": name, "stride": state.stride()}
    if isinstance(state, dict):
        return {key: without_tensors(value, tensors, f"{name}.{key}") for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [without_tensors(value, tensors, f"{name}.{i}") for i, value in enumerate(state)]
    return state


def with_tensors(state: Any, tensors: dict[str, Tensor]) -> Any:
    """`state` with each tensor in its place again, laid out in memory as it was: sums depend on that."""
    if isinstance(state, dict) and state.keys() == {"tensor", "stride"}:
        tensor = tensors[state["tensor"]]
        return torch.empty_strided(tensor.shape, state["stride"], dtype=tensor.dtype).copy_(tensor)
    if isinstance(state, dict):
        return {key: with_tensors(value, tensors) for key, value in state.items()}
    if isinstance(state, list):
        return [with_tensors(value, tensors) for value in state]
    return state
