"""What the explorer shows for a state: images, the way out of the noise, and the detectors' verdicts.

No widgets here. Everything is a function of a `State`, and the same state gives the same images.
"""

import functools
import itertools
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from oodlib import presets
from oodlib.datasets.loading import ID_TEST
from oodlib.detection.detector import Detector
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.labels import label_weights, pair_weights
from oodlib.diffusion.sample import sample
from oodlib.diffusion.schedule import make_scheduler
from oodlib.errors import InputError
from oodlib.images import signed_to_uint8
from oodlib.runs import Run

IMAGES = 8  # drawn at once, from noises 0 to 7 of a seed
BLEND_FRAMES = 11
MIXTURES_PER_PAIR = 4
TOP = 3
MAX_SEED = 2**31


@dataclass(frozen=True)
class State:
    """Everything that decides what the explorer shows; as JSON it restores the explorer exactly.

    Raises:
        InputError: A value is of the wrong type or out of range.
    """

    class_names: tuple[str, ...]
    weights: tuple[float, ...]
    """Raw weight of each class, in [0, 1]."""
    mix: str = "sum"
    seed: int = 0
    lock_noise: bool = True
    """Whether the seed stays when the weights change."""
    guidance_scale: float = 1.0
    num_inference_steps: int = 8
    scheduler: str = "unipc"
    detector: str | None = None
    """A name from `find_detectors`; None where there is none."""
    blend: tuple[int, int] = (0, 1)
    """The two classes of the blend line."""
    frame: int = BLEND_FRAMES // 2
    """Its chosen frame, from 0."""
    step: int = 0
    """The chosen step of the denoising, from 0 (noise) to `num_inference_steps`."""

    def __post_init__(self):
        names = ("mix", "seed", "guidance_scale", "num_inference_steps", "scheduler")
        presets.settings(**{name: _given(name, getattr(self, name)) for name in names})
        classes = len(self.class_names)
        for name, value, low, high in (
            *((f"weights[{i}]", w, 0, 1) for i, w in enumerate(self.weights)),
            *((f"blend[{i}]", c, 0, classes - 1) for i, c in enumerate(self.blend)),
            ("seed", self.seed, 0, MAX_SEED),
            ("frame", self.frame, 0, BLEND_FRAMES - 1),
            ("step", self.step, 0, self.num_inference_steps),
        ):
            kinds = (int, float) if name.startswith("weights") else (int,)
            if type(value) not in kinds or not low <= value <= high:
                raise InputError(f"{name} = {value!r}, expected a {kinds[-1].__name__} from {low} to {high}")
        if len(self.weights) != classes:
            raise InputError(f"{len(self.weights)} weights for {classes} classes; give one for each")
        if len(self.blend) != 2 or self.blend[0] == self.blend[1]:
            raise InputError(f"blend = {list(self.blend)}, expected two distinct classes")
        if not isinstance(self.lock_noise, bool):
            raise InputError(f"lock_noise = {self.lock_noise!r}, expected true or false")
        if not isinstance(self.detector, str | None):
            raise InputError(f"detector = {self.detector!r}, expected a name or null")

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str, class_names: tuple[str, ...]) -> "State":
        """Read what `to_json` wrote for a denoiser of these classes."""
        names = [f.name for f in fields(cls)]
        try:
            given = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"this state is not JSON ({error}); paste the whole of an exported state"
            ) from None
        if not isinstance(given, dict) or set(given) != set(names):
            raise InputError(f"this state is not the explorer's; it needs exactly {', '.join(names)}")
        if given["class_names"] != list(class_names):
            raise InputError(
                f"this state is for classes {given['class_names']}, but the denoiser draws {list(class_names)}"
            )
        for name in ("class_names", "weights", "blend"):
            if not isinstance(given[name], list):
                raise InputError(f"{name} = {given[name]!r}, expected a list")
            given[name] = tuple(given[name])
        return cls(**given)

    @property
    def label_weights(self) -> torch.Tensor:
        """What the denoiser is given, (C,)."""
        return label_weights(torch.tensor(self.weights, dtype=torch.float32), self.mix)

    @property
    def sampling(self) -> dict[str, object]:
        """The options of `mixup.sample`."""
        return {n: getattr(self, n) for n in ("scheduler", "num_inference_steps", "guidance_scale", "seed")}

    def code(self, folder: str) -> str:
        """Python that draws the same images; `folder` is the Python expression of the denoiser's folder."""
        options = "".join(f", {name}={value!r}" for name, value in self.sampling.items())
        return (
            "import torch\n"
            + ("from oodlib import pretrained\n" if "pretrained." in folder else "")
            + "from oodlib.diffusion.denoiser import Denoiser\n"
            "from oodlib.diffusion.labels import label_weights\n"
            "from oodlib.diffusion.sample import sample\n\n"
            f"denoiser = Denoiser.load({folder})\n"
            f"weights = label_weights(torch.tensor({list(self.weights)}), {self.mix!r})\n"
            f"images = sample(denoiser, weights.repeat({IMAGES}, 1){options})\n"
        )


def _given(name: str, value: object) -> object:
    """`value`, unless it is None, which `presets.settings` would replace by a default."""
    if value is None:
        raise InputError(f"{name} is null, expected a value")
    return value


def find_detectors(run: Run, outliers: str) -> dict[str, dict[str, Path]]:
    """The detectors of a run that were trained with none or with this kind of outliers: folders by kind, by names such
    as `arcface, seed 0`."""
    found: dict[tuple[str, int], dict[str, Path]] = {}
    for head, kind in itertools.product(presets.HEADS, dict.fromkeys(("none", outliers))):
        for mark in (run.detectors / f"{head}-{kind}").glob("seed*/settings.json"):
            seed = mark.parent.name.removeprefix("seed")
            if seed.isdecimal():
                found.setdefault((head, int(seed)), {})[kind] = mark.parent
    order = sorted(found, key=lambda key: (presets.HEADS.index(key[0]), key[1]))
    return {f"{head.replace('_', ' ')}, seed {seed}": found[head, seed] for head, seed in order}


class Verdict(NamedTuple):
    """What a detector says of N images."""

    scores: np.ndarray
    """float64 (N,), larger = more in-distribution."""
    threshold: float
    is_ood: np.ndarray
    """bool (N,)."""
    top: np.ndarray
    """int64 (N, 3), the most probable classes."""
    probabilities: np.ndarray
    """float64 (N, 3), theirs."""


class Superseded(Exception):
    """A drawing was given up for a newer one."""


class Drawing(NamedTuple):
    """Images and what the detectors say of them."""

    images: np.ndarray
    """uint8 (N, H, W, C)."""
    steps: np.ndarray
    """uint8 (num_inference_steps + 1, N, H, W, C), from noise to image."""
    verdicts: dict[str, Verdict]
    """By kind of outliers, `none` first."""
    seconds: float
    """What all this took."""


@contextmanager
def few_threads(image_shape: tuple[int, int, int]) -> Iterator[None]:
    """Draw images up to 16 x 16 on one thread: several gain little, and wait for each other where cores are taken."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if image_shape[0] <= 16 else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Renderer:
    """Draws states with one denoiser and judges the images with the detectors found beside it.

    Args:
        detectors: Folders from `find_detectors`.
    """

    def __init__(self, denoiser: Denoiser, detectors: dict[str, dict[str, Path]]):
        self.denoiser, self.detectors = denoiser, detectors
        self.lock = threading.RLock()
        # Made once each: to make one takes as long as a tenth of a denoising step.
        self._scheduler = functools.cache(functools.partial(make_scheduler, denoiser.noise_scheduler))
        self._loaded: dict[Path, Detector] = {}

    def draw(
        self,
        state: State,
        num_inference_steps: int | None = None,
        is_superseded: Callable[[], bool] = lambda: False,
    ) -> Drawing:
        """The images of a state, in fewer steps if asked.

        Raises:
            Superseded: `is_superseded` said so between two steps.
        """
        sampling = state.sampling
        sampling["num_inference_steps"] = num_inference_steps or state.num_inference_steps
        weights = state.label_weights.repeat(IMAGES, 1)
        return self._draw(state, weights, range(IMAGES), sampling, is_superseded)

    def blend(self, state: State) -> Drawing:
        """From the first class of `state.blend` to the second in equal parts, all from noise 0."""
        classes = len(self.denoiser.class_names)
        mixed = pair_weights(
            [state.blend] * BLEND_FRAMES, classes, state.mix, torch.linspace(0, 1, BLEND_FRAMES)
        )
        return self._draw(state, mixed, [0] * BLEND_FRAMES, state.sampling)

    def pair_matrix(self, state: State) -> dict[str, tuple[np.ndarray, float]]:
        """Mean score of a few mixtures of every pair at equal weights, (C, C), and the threshold, for each detector.

        The diagonal holds the classes themselves.
        """
        classes = len(self.denoiser.class_names)
        pairs = list(itertools.combinations(range(classes), 2))
        weights = torch.cat([pair_weights(pairs, classes, state.mix), torch.eye(classes)])
        cells = [*pairs, *((c, c) for c in range(classes))]
        drawing = self._draw(
            state,
            weights.repeat_interleave(MIXTURES_PER_PAIR, dim=0),
            list(range(MIXTURES_PER_PAIR)) * len(cells),
            state.sampling,
        )
        found = {}
        for kind, verdict in drawing.verdicts.items():
            matrix = np.empty((classes, classes))
            for (a, b), scores in zip(cells, verdict.scores.reshape(len(cells), -1), strict=True):
                matrix[a, b] = matrix[b, a] = scores.mean()
            found[kind] = matrix, verdict.threshold
        return found

    def test_scores(self, name: str) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
        """Scores of the ID test set and of all OOD sets together, and the threshold, by kind of outliers."""
        found = {}
        for kind, detector in self._load(name).items():
            own = detector.head.default_score
            path = self.detectors[name][kind] / "scores.csv"
            if not path.is_file():
                raise InputError(f"{path} is not there; train the detector with notebook 03_train_detector")
            table = pd.read_csv(path, usecols=["set", own])
            is_id = table["set"] == ID_TEST
            found[kind] = (
                table.loc[is_id, own].to_numpy(),
                table.loc[~is_id, own].to_numpy(),
                detector.thresholds[own],
            )
        return found

    def _draw(
        self,
        state: State,
        weights: torch.Tensor,
        noise_index: Sequence[int],
        sampling: dict[str, object],
        is_superseded: Callable[[], bool] = lambda: False,
    ) -> Drawing:
        sampling = {**sampling, "scheduler": self._scheduler(sampling["scheduler"])}
        steps: dict[int, list[np.ndarray]] = defaultdict(list)  # of each batch

        def on_step(step: int, x: torch.Tensor, clean: torch.Tensor | None) -> None:
            if is_superseded():
                raise Superseded
            steps[step].append(signed_to_uint8(x))

        with self.lock, few_threads(self.denoiser.image_shape):
            detectors = self._load(state.detector) if state.detector else {}
            start = time.perf_counter()
            images = sample(self.denoiser, weights, noise_index=noise_index, on_step=on_step, **sampling)
            verdicts = {kind: self._judge(detector, images) for kind, detector in detectors.items()}
            seen = np.stack([np.concatenate(batches) for batches in steps.values()])
            return Drawing(images, seen, verdicts, time.perf_counter() - start)

    @staticmethod
    def _judge(detector: Detector, images: np.ndarray) -> Verdict:
        own = detector.head.default_score
        probabilities, scores = detector.classify(images)
        top = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
        threshold = detector.thresholds[own]
        return Verdict(
            scores[own],
            threshold,
            scores[own] < threshold,
            top,
            np.take_along_axis(probabilities, top, axis=1),
        )

    def _load(self, name: str) -> dict[str, Detector]:
        """The detectors of a name, by kind of outliers, each read once and checked against the denoiser."""
        if name not in self.detectors:
            known = "; ".join(self.detectors) or "none; train one with notebook 03_train_detector"
            raise InputError(f"detector {name!r} is not in this run; there are: {known}")
        for kind, folder in self.detectors[name].items():
            if folder in self._loaded:
                continue
            detector = Detector.load(folder, self.denoiser.device)
            for what in ("class_names", "image_shape"):
                theirs, ours = list(getattr(detector, what)), list(getattr(self.denoiser, what))
                if theirs != ours:
                    raise InputError(
                        f"detector {name!r} ({kind}) has {what} {theirs}, the denoiser has {ours}; choose another"
                    )
            self._loaded[folder] = detector
        return {kind: self._loaded[folder] for kind, folder in self.detectors[name].items()}
