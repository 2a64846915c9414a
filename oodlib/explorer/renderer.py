"""What the explorer shows for a state: images, the way out of the noise, and the detectors' verdicts.

No widgets here. The same state gives the same images.
"""

import functools
import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from oodlib.conditions import condition
from oodlib.datasets.roles import Role
from oodlib.datasets.shifts import shifted
from oodlib.detection.detector import Detector
from oodlib.detection.heads import HEADS
from oodlib.detection.metrics import is_ood
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.labels import pair_weights
from oodlib.diffusion.sample import sample
from oodlib.diffusion.schedule import make_scheduler
from oodlib.errors import InputError
from oodlib.explorer.state import BLEND_FRAMES, IMAGES, State, detector_name
from oodlib.files import read_csv
from oodlib.images import signed_to_uint8
from oodlib.marks import MARKS
from oodlib.outliers.mixtures import at_tie
from oodlib.reports.tables import OOD_ROLES
from oodlib.runs import Run
from oodlib.settings import Settings

MIXTURES_PER_PAIR = 4
TOP = 3


def find_detectors(run: Run, outliers: str) -> dict[str, dict[str, Path]]:
    """Folders of a run's detectors that were trained without outliers or with these: by `detector_name` and by
    their outliers, `none` first."""
    detectors = {}
    for head in HEADS:
        folders: dict[int, dict[str, Path]] = defaultdict(dict)
        for source in dict.fromkeys(("none", outliers)):
            for mark in (run.detectors / f"{head}-{source}").glob(f"seed*/{MARKS[2]}"):
                seed = mark.parent.name.removeprefix("seed")
                if seed.isdecimal():
                    folders[int(seed)][source] = mark.parent
        detectors |= {detector_name(head, seed): folders[seed] for seed in sorted(folders)}
    return detectors


def shown_condition(run: Run, settings: Settings) -> str:
    """What the detectors were trained with that stand beside those without outliers: what the settings say or, where
    no detector was, what others of the run were."""
    trained = {
        mark.parent.parent.name.removeprefix(f"{head}-")
        for head in HEADS
        for mark in run.detectors.glob(f"{head}-*/seed*/{MARKS[2]}")
    } - {"none"}
    wanted = condition(settings)
    return wanted if wanted in trained else max(trained, default=wanted)


class Verdict(NamedTuple):
    """What a detector says of N images."""

    scores: np.ndarray
    """float64 (N,), larger = more in-distribution."""
    threshold: float
    top: np.ndarray
    """int64 (N, 3), the most probable classes."""
    probabilities: np.ndarray
    """float64 (N, 3), theirs."""

    @property
    def is_ood(self) -> np.ndarray:
        """bool (N,); NaN is OOD."""
        return is_ood(self.scores, self.threshold)


class Superseded(Exception):
    """A drawing was given up for a newer one."""


class Drawing(NamedTuple):
    """Images and what the detectors say of them."""

    images: np.ndarray
    """uint8 (N, H, W, C)."""
    steps: np.ndarray
    """uint8 (num_inference_steps + 1, N, H, W, C), from noise to image."""
    clean: np.ndarray
    """Of the same shape: the clean images that the denoiser sees in those of `steps`, and at the end `images`."""
    verdicts: dict[str, Verdict]
    """By the detectors' outliers, `none` first."""
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
        is_superseded: Callable[[], bool] | None = None,
    ) -> Drawing:
        """The images of a state, in fewer steps if asked.

        Raises:
            Superseded: `is_superseded` said so between two steps.
        """
        weights = state.label_weights.repeat(IMAGES, 1)
        return self._draw(state, weights, range(IMAGES), num_inference_steps, is_superseded)

    def blend(self, state: State) -> Drawing:
        """From the first class of `state.blend` to the second in equal parts, all from noise 0."""
        classes = len(self.denoiser.class_names)
        mixed = pair_weights(
            [state.blend] * BLEND_FRAMES, classes, state.mix, torch.linspace(0, 1, BLEND_FRAMES)
        )
        return self._draw(state, mixed, [0] * BLEND_FRAMES)

    def tie(self, state: State) -> float | None:
        """The share of the way along `blend` at which the first detector is torn between the two classes; None without
        a detector."""
        if not state.detector:
            return None
        with self.lock, few_threads(self.denoiser.image_shape):
            detector = next(iter(self._load(state.detector).values()))
            sampling = {**state.sampling, "scheduler": self._scheduler(state.scheduler), "mix": state.mix}
            _, weight, _ = at_tie(
                self.denoiser, [state.blend], lambda images: detector.classify(images)[0], [0], **sampling
            )
        return weight.item()

    def pair_matrix(self, state: State) -> dict[str, tuple[np.ndarray, float]]:
        """Mean score of a few mixtures of every pair at equal weights, (C, C), and the threshold, for each detector.

        The diagonal holds the classes themselves.
        """
        classes = len(self.denoiser.class_names)
        pairs = list(itertools.combinations(range(classes), 2))
        weights = torch.cat([pair_weights(pairs, classes, state.mix), torch.eye(classes)])
        cells = [*pairs, *((c, c) for c in range(classes))]
        weights = weights.repeat_interleave(MIXTURES_PER_PAIR, dim=0)
        drawing = self._draw(state, weights, list(range(MIXTURES_PER_PAIR)) * len(cells))
        a, b = np.transpose(cells)
        matrices = {}
        for outliers, verdict in drawing.verdicts.items():
            matrix = np.empty((classes, classes))
            matrix[a, b] = matrix[b, a] = verdict.scores.reshape(len(cells), -1).mean(axis=1)
            matrices[outliers] = matrix, verdict.threshold
        return matrices

    def test_scores(self, name: str) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
        """Scores of the ID test set and of all OOD sets together, and the threshold, by the detectors' outliers."""
        tests = {}
        for outliers, detector in self._load(name).items():
            own = detector.own_score
            path = self.detectors[name][outliers] / "scores.csv"
            if not path.is_file():
                raise InputError(f"{path} is not there; train the detector with notebook 03_train_detector")
            table = read_csv(path)
            id_scores, ood_scores = (
                table.loc[table["role"].isin(roles), own].to_numpy() for roles in ([Role.ID], OOD_ROLES)
            )
            tests[outliers] = id_scores, ood_scores, detector.thresholds[own]
        return tests

    def _draw(
        self,
        state: State,
        weights: torch.Tensor,
        noise_index: Sequence[int],
        num_inference_steps: int | None = None,
        is_superseded: Callable[[], bool] | None = None,
    ) -> Drawing:
        sampling = {**state.sampling, "scheduler": self._scheduler(state.scheduler)}
        if num_inference_steps:
            sampling["num_inference_steps"] = num_inference_steps
        steps, clean = defaultdict(list), defaultdict(list)  # the batches of each step

        def on_step(step: int, noisy: torch.Tensor, predicted: torch.Tensor | None) -> None:
            if is_superseded and is_superseded():
                raise Superseded
            steps[step].append(signed_to_uint8(noisy))
            if predicted is not None:
                clean[step - 1].append(signed_to_uint8(predicted))

        with self.lock, few_threads(self.denoiser.image_shape):
            detectors = self._load(state.detector) if state.detector else {}
            start = time.perf_counter()
            images = sample(self.denoiser, weights, noise_index=noise_index, on_step=on_step, **sampling)
            if state.shift:
                images = shifted(images, state.shift)
            verdicts = {outliers: self._judge(detector, images) for outliers, detector in detectors.items()}
            clean[len(clean)] = [images]
            walks = [np.stack([np.concatenate(parts) for parts in walk.values()]) for walk in (steps, clean)]
            return Drawing(images, *walks, verdicts, time.perf_counter() - start)

    @staticmethod
    def _judge(detector: Detector, images: np.ndarray) -> Verdict:
        own = detector.own_score
        probabilities, scores = detector.classify(images)
        top = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
        probabilities = np.take_along_axis(probabilities, top, axis=1)
        return Verdict(scores[own], detector.thresholds[own], top, probabilities)

    def _load(self, name: str) -> dict[str, Detector]:
        """The detectors of a name, by their outliers, each read once and checked against the denoiser."""
        if name not in self.detectors:
            names = "; ".join(self.detectors) or "none; train one with notebook 03_train_detector"
            raise InputError(f"detector {name!r} is not in this run; there are: {names}")
        for outliers, folder in self.detectors[name].items():
            if folder in self._loaded:
                continue
            detector = Detector.load(folder, self.denoiser.device)
            for part in ("class_names", "image_shape"):
                theirs, ours = list(getattr(detector, part)), list(getattr(self.denoiser, part))
                if theirs != ours:
                    raise InputError(
                        f"detector {name!r} ({outliers}) has {part} {theirs}, the denoiser has {ours}; choose another"
                    )
            self._loaded[folder] = detector
        return {outliers: self._loaded[folder] for outliers, folder in self.detectors[name].items()}
