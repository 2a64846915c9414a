"""Everything that decides what the explorer shows, and nothing else."""

import json
from collections.abc import Sequence
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator

from oodlib.checks import Checked
from oodlib.diffusion.labels import label_weights
from oodlib.errors import InputError
from oodlib.fields import name_in
from oodlib.settings import Flag, Guidance, InferenceSteps, MixMode, Number, SchedulerName, Settings, Share

IMAGES = 8  # drawn at once, from noises 0 to 7 of a seed
BLEND_FRAMES = 11
MAX_SEED = 2**31


class State(Checked):
    """Everything that decides what the explorer shows; as JSON it restores the explorer exactly.

    Raises:
        InputError: A value is of the wrong type or out of range.
    """

    class_names: tuple[str, ...]
    weights: tuple[Share, ...]
    """Raw weight of each class, in [0, 1]."""
    mix: MixMode = "sum"
    seed: Annotated[Number, Field(le=MAX_SEED)] = 0
    lock_noise: Flag = True
    """Whether the seed stays when the weights change."""
    guidance_scale: Guidance = 1.0
    num_inference_steps: InferenceSteps = 8
    scheduler: SchedulerName = "unipc"
    shift: Annotated[str, name_in("oodlib.datasets.shifts:SHIFTS")] | None = None
    """What is done to the images before detectors see them."""
    detector: str | None = None
    """A name from `find_detectors`; None where there is none."""
    blend: tuple[Number, ...] = (0, 1)
    """The two classes of the blend line."""
    frame: Annotated[Number, Field(le=BLEND_FRAMES - 1)] = BLEND_FRAMES // 2
    """Its chosen frame, from 0."""
    step: Number = 0
    """The chosen step of the denoising, from 0 (noise) to `num_inference_steps`."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        classes = len(self.class_names)
        if len(self.weights) != classes:
            raise InputError(f"{len(self.weights)} weights for {classes} classes; give one for each")
        for name, value, most in (
            *((f"blend[{i}]", c, classes - 1) for i, c in enumerate(self.blend)),
            ("step", self.step, self.num_inference_steps),
        ):
            if value > most:
                raise InputError(f"{name} = {value}, expected a whole number from 0 to {most}")
        if len(self.blend) != 2 or self.blend[0] == self.blend[1]:
            raise InputError(f"blend = {list(self.blend)}, expected two distinct classes")
        return self

    def to_json(self) -> str:
        return json.dumps(self.model_dump())

    @classmethod
    def from_json(cls, text: str, class_names: tuple[str, ...]) -> "State":
        """Read what `to_json` wrote for a denoiser of these classes."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"this state is not JSON ({error}); paste the whole of an exported state"
            ) from None
        if not isinstance(values, dict) or set(values) != set(cls.model_fields):
            raise InputError(
                f"this state is not the explorer's; it needs exactly {', '.join(cls.model_fields)}"
            )
        if values["class_names"] != list(class_names):
            raise InputError(
                f"this state is for classes {values['class_names']}, but the denoiser draws {list(class_names)}"
            )
        return cls(**values)

    @property
    def label_weights(self) -> torch.Tensor:
        """What the denoiser is given, (C,)."""
        return label_weights(torch.tensor(self.weights, dtype=torch.float32), self.mix)

    @property
    def sampling(self) -> dict[str, object]:
        """The options of `sample`."""
        return {n: getattr(self, n) for n in ("scheduler", "num_inference_steps", "guidance_scale", "seed")}

    def code(self, folder: str) -> str:
        """Python that draws the same images; `folder` is the Python expression of the denoiser's folder."""
        options = "".join(f", {name}={value!r}" for name, value in self.sampling.items())
        return (
            "import torch\n"
            + ("from oodlib import pretrained\n" if "pretrained." in folder else "")
            + ("from oodlib.datasets.shifts import shifted\n" if self.shift else "")
            + "from oodlib.diffusion.denoiser import Denoiser\n"
            "from oodlib.diffusion.labels import label_weights\n"
            "from oodlib.diffusion.sample import sample\n\n"
            f"denoiser = Denoiser.load({folder})\n"
            f"weights = label_weights(torch.tensor({list(self.weights)}), {self.mix!r})\n"
            f"images = sample(denoiser, weights.repeat({IMAGES}, 1){options})\n"
            + (f"images = shifted(images, {self.shift!r})\n" if self.shift else "")
        )


def detector_name(head: str, seed: int) -> str:
    """What a detector is called in the explorer, such as `arcface, seed 0`."""
    return f"{head.replace('_', ' ')}, seed {seed}"


def first_state(class_names: tuple[str, ...], settings: Settings, detectors: Sequence[str]) -> State:
    """The first and the last class at weight 1, sampled as the settings say and judged by their detector, or another
    where that is not there."""
    last = len(class_names) - 1
    detector = detector_name(settings.head, settings.seed)
    return State(
        class_names=class_names,
        weights=tuple(float(c in (0, last)) for c in range(last + 1)),
        detector=detector if detector in detectors else next(iter(detectors), None),
        blend=(0, last),
        step=settings.num_inference_steps,
        **settings.model_dump(include=set(State.model_fields), exclude_none=True),
    )
