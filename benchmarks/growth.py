"""How time grows with the work: pool, pairs, classes, image size, training images, OOD sets, heads and seeds.

The exponent is the slope of log time over log size between the two largest sizes: 0 where size does not matter, 1 in
proportion. Beside it stands the exponent that the work itself has.
"""

import math
import timeit
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch

from benchmarks.models import quiet
from benchmarks.table import number
from oodlib.datasets.roles import EvaluationSet, Role, id_set
from oodlib.detection.detector import Detector
from oodlib.detection.heads import HEADS
from oodlib.detection.metrics import ood_metrics
from oodlib.detection.train import fit_detector
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.sample import sample
from oodlib.diffusion.train import fit_denoiser
from oodlib.explorer.renderer import Renderer
from oodlib.explorer.state import State
from oodlib.images import ImageSet
from oodlib.outliers.committee import Committee
from oodlib.outliers.purity import purity
from oodlib.outliers.sources import SOURCES, class_combinations, label_mixup
from oodlib.reports.intervals import BOOTSTRAP_SEEDS, exposure_changes
from oodlib.reports.summary import paper_table, summary_table
from oodlib.reports.tables import METRICS, metric_table, score_table
from oodlib.settings import DenoiserModel, DenoiserTraining, DetectorTraining

TOLERANCE = 0.25  # between an exponent and that of the work
AS_THE_WORK = "as the work"

Work = Callable[[], object]


@dataclass(frozen=True)
class Job:
    """Something that is timed at several sizes."""

    name: str
    grows: str
    """What grows."""
    own: float
    """The exponent of the work itself."""
    sizes: tuple[int, ...]
    make: Callable[[int], Work]
    """What is timed at a size."""


@dataclass(frozen=True)
class Growth:
    """The seconds that a job took at each of its sizes."""

    job: Job
    seconds: tuple[float, ...]

    @property
    def exponent(self) -> float:
        size, seconds = self.job.sizes, self.seconds
        return math.log(seconds[-1] / seconds[-2]) / math.log(size[-1] / size[-2])

    @property
    def verdict(self) -> str:
        if self.exponent > self.job.own + TOLERANCE:
            return "faster than the work"
        return AS_THE_WORK if self.exponent >= self.job.own - TOLERANCE else "too little to tell"


def names(classes: int) -> tuple[str, ...]:
    return tuple(f"class {i}" for i in range(classes))


def denoiser(size: int = 8, classes: int = 8) -> Denoiser:
    return Denoiser(names(classes), (size, size, 1), DenoiserModel(block_out_channels=(16, 32))).eval()


def detector(size: int = 8) -> Detector:
    return Detector(names(8), (size, size, 1), [0.3], [0.4])


def pictures(count: int, size: int = 8) -> ImageSet:
    rng = np.random.default_rng(0)
    return ImageSet(rng.integers(0, 256, (count, size, size, 1), np.uint8), np.arange(count) % 8, names(8))


def mixtures(count: int, size: int = 8, classes: int = 8) -> Work:
    return partial(label_mixup, denoiser(size, classes), range(count), num_inference_steps=2)


def mixtures_of_all_pairs(classes: int) -> Work:
    return mixtures(8 * math.comb(classes, 2), classes=classes)


def pure_classes(classes: int) -> Work:
    weights = torch.eye(classes)[torch.arange(256) % classes]
    return partial(sample, denoiser(classes=classes), weights, num_inference_steps=2)


def triples(classes: int) -> Work:
    return partial(class_combinations, classes, 3, range(1000))


def explorer(classes: int, draw: Callable[[Renderer, State], object] = Renderer.draw) -> Work:
    weights = tuple(float(i < 2) for i in range(classes))
    state = State(class_names=names(classes), weights=weights, num_inference_steps=2)
    return partial(draw, Renderer(denoiser(classes=classes), {}), state)


def denoiser_training(size: int) -> Work:
    train, settings = pictures(128, size), DenoiserTraining(denoiser_steps=4, denoiser_batch_size=32)
    return partial(quiet()(fit_denoiser), denoiser(size), train.images, train.labels, settings)


def detector_training(size: int) -> Work:
    train = pictures(256, size)
    settings = DetectorTraining(epochs=1, batch_size=64, outlier_batch_size=64, learning_rate=0.1)
    arrays = train.images, train.labels
    return partial(quiet()(fit_detector), detector(size), *arrays, settings, outliers=train.images)


def judged(pool: int = 64, training_images: int = 1000) -> Work:
    """A pool judged by a committee of one, whose training images are random features."""
    drawn = label_mixup(denoiser(), range(pool), num_inference_steps=1)
    features = torch.randn(training_images, 64, generator=torch.Generator().manual_seed(0))
    return partial(purity, drawn, Committee((detector(),), (features,), (1.0,)))


def fitted(training_images: int) -> Work:
    given = pictures(training_images)
    return partial(detector().fit_scores, given.images, given.labels, given.images[:100])


def scored(sets: int = 2, training_images: int = 5000) -> Work:
    given, some, model = pictures(training_images), pictures(500), detector()
    model.fit_scores(given.images, given.labels, some.images)
    drawn = [EvaluationSet(f"set {i}", f"set {i}", Role.FAR, some.images, None, ()) for i in range(sets)]
    return partial(score_table, drawn, model.classify, model.class_names)


def metrics(count: int) -> Work:
    rng = np.random.default_rng(0)
    return partial(ood_metrics, rng.normal(1, 1, count), rng.normal(0, 1, count))


def tables(seeds: int) -> Work:
    rng = np.random.default_rng(0)
    keys = ["preset", "head", "outliers", "seed", "score", "ood_set"]
    values = [["digits"], list(HEADS), ["none", "label_mixup"], range(seeds), ["msp", "cosine"], names(9)]
    results = pd.MultiIndex.from_product(values, names=keys).to_frame(index=False)
    results[[*METRICS, "id_accuracy"]] = rng.random((len(results), len(METRICS) + 1))
    results = results.assign(own_score="cosine", title=results["ood_set"], role="far")
    return lambda: (summary_table(results), paper_table(results))


def intervals(heads: int = 1, kinds: int = 2, images: int = 1000) -> Work:
    rng = np.random.default_rng(0)
    labels = np.arange(images) % 8
    sets = [
        id_set(ImageSet(np.empty((images, 0)), labels, names(8))),
        EvaluationSet("set", "set", Role.FAR, np.empty((images, 0)), None, ()),
    ]

    def classify(_images: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return np.eye(8)[labels], {"cosine": rng.random(images)}

    scores = pd.concat(
        score_table(sets, classify, names(8)).assign(head=head, outliers=kind, seed=seed, own_score="cosine")
        for head in list(HEADS)[:heads]
        for kind in list(SOURCES)[:kinds]
        for seed in range(BOOTSTRAP_SEEDS)
    )
    detectors = ["head", "outliers", "seed", "own_score"]
    results = pd.concat(
        metric_table(rows).assign(**dict(zip(detectors, key, strict=True)))
        for key, rows in scores.groupby(detectors, sort=False)
    )
    return partial(exposure_changes, results, lambda: scores, draws=200)


JOBS = (
    Job("label mixup", "outliers", 1, (512, 1024, 2048), mixtures),
    Job("label mixup, 256 outliers", "side of the image", 2, (8, 16, 32), lambda side: mixtures(256, side)),
    Job("label mixup, 8 of each pair", "classes", 2, (4, 8, 16), mixtures_of_all_pairs),
    Job("drawing 256 images", "classes", 0, (8, 64, 512), pure_classes),
    Job("choosing the classes of 1,000 triples", "classes", 0, (20, 40, 80, 160), triples),
    Job("explorer, pictures of a drag", "classes", 0, (8, 32, 128), explorer),
    Job(
        "explorer, pictures of all pairs",
        "classes",
        2,
        (8, 16, 32),
        partial(explorer, draw=Renderer.pair_matrix),
    ),
    Job("denoiser training, 4 steps", "side of the image", 2, (8, 16, 32), denoiser_training),
    Job("detector training, 4 steps", "side of the image", 2, (8, 16, 32), detector_training),
    Job("purity", "outliers", 1, (1024, 2048, 4096), judged),
    Job("purity of 64 outliers", "training images", 1, (50_000, 100_000, 200_000), partial(judged, 64)),
    Job("fitting the scores", "training images", 1, (5000, 10_000, 20_000), fitted),
    Job("scoring, a bank of 5,000", "training images", 0, (5000, 10_000, 20_000), partial(scored, 2)),
    Job("scoring", "OOD sets", 1, (2, 4, 8), scored),
    Job("metrics", "scores", 1, (10**4, 10**5, 10**6), metrics),
    Job("tables of six heads", "seeds", 1, (48, 192, 768), tables),
    Job("intervals of the study", "heads", 1, (1, 3, 6), intervals),
    Job("intervals of the study", "kinds of outliers", 1, (3, 5, 9), partial(intervals, 1)),
    Job("intervals of the study", "test images", 1, (1000, 4000, 16_000), partial(intervals, 1, 2)),
)


def seconds(work: Work, repetitions: int) -> float:
    """The least of some repetitions, after one that is not counted."""
    work()
    return min(timeit.repeat(work, number=1, repeat=repetitions))


def measure(toy: bool) -> Iterator[Growth]:
    """Each job at its sizes; toy: at two of 32 and less, once."""
    for job in JOBS:
        if toy:
            job = replace(job, sizes=(min(job.sizes[0], 16), min(job.sizes[1], 32)))
        yield Growth(job, tuple(seconds(job.make(size), 1 if toy else 5) for size in job.sizes))


def line(found: Growth) -> str:
    """A row of the table, as Markdown."""
    job, taken = found.job, [f"{number(1000 * s)} ms" for s in found.seconds]
    sizes = [f"{size:,}" for size in job.sizes]
    exponents = f"{found.exponent:.2f}", f"{job.own:g}"
    cells = (job.name, job.grows, " → ".join(sizes), " → ".join(taken), *exponents, found.verdict)
    return f"| {' | '.join(cells)} |"


def table(found: Sequence[Growth]) -> str:
    """All of them as a Markdown table."""
    columns = ("job", "what grows", "sizes", "time", "exponent", "of the work", "time grows")
    return "\n".join([f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *map(line, found)])
