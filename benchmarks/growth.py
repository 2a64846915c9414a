"""How time grows with the work: pool, classes, image size, training images, OOD sets, heads and kinds of outliers.

The exponent is the slope of log time over log size: 0 where size does not matter, 1 in proportion. Beside it stands
the exponent that the work itself has; small sizes show less, as what does not grow weighs more in them.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch

from benchmarks.models import quiet
from benchmarks.table import number
from oodlib.data import ID_TEST
from oodlib.denoiser import Denoiser
from oodlib.detector import Detector
from oodlib.evaluation import COLUMNS, change_table, paper_table, score_table, summary_table
from oodlib.heads import HEADS
from oodlib.images import ImageSet
from oodlib.metrics import ood_metrics
from oodlib.mixup import sample
from oodlib.outliers import class_combinations
from oodlib.presets import OUTLIERS
from oodlib.purity import Committee
from oodlib.rendering import Renderer, State
from oodlib.study import ACCURACY, bootstrap_changes
from oodlib.training import fit_denoiser, fit_detector

AS_THE_WORK = "as the work"
TOLERANCE = 0.25  # above the exponent of the work itself

Job = Callable[[], object]


@dataclass(frozen=True)
class Growth:
    """The seconds that a job takes at several sizes."""

    job: str
    grows: str
    """What grows."""
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    own: float
    """The exponent of the work itself."""

    @property
    def exponent(self) -> float:
        return float(np.polyfit(np.log(self.sizes), np.log(self.seconds), 1)[0])

    @property
    def verdict(self) -> str:
        return AS_THE_WORK if self.exponent <= self.own + TOLERANCE else "faster than the work"


def names(classes: int) -> tuple[str, ...]:
    return tuple(f"class {i}" for i in range(classes))


def denoiser(size: int = 8, classes: int = 8) -> Denoiser:
    return Denoiser(names(classes), (size, size, 1), (16, 32)).eval()


def detector(size: int = 8, head: str = "arcface", classes: int = 8) -> Detector:
    return Detector("resnet_small", head, names(classes), (size, size, 1), [0.3], [0.4])


def pictures(count: int, size: int = 8, seed: int = 0) -> ImageSet:
    rng = np.random.default_rng(seed)
    return ImageSet(rng.integers(0, 256, (count, size, size, 1), np.uint8), np.arange(count) % 8, names(8))


def draw(count: int, classes: int = 8) -> Job:
    weights = torch.eye(classes)[torch.arange(count) % classes]
    return partial(sample, denoiser(classes=classes), weights, num_inference_steps=2)


def choosing(classes: int) -> Job:
    return partial(class_combinations, classes, 3, range(1000))


def explorer(classes: int) -> tuple[Renderer, State]:
    weights = tuple(float(i < 2) for i in range(classes))
    state = State(class_names=names(classes), weights=weights, num_inference_steps=2)
    return Renderer(denoiser(classes=classes), {}), state


def dragged(classes: int) -> Job:
    renderer, state = explorer(classes)
    return partial(renderer.draw, state)


def all_pairs(classes: int) -> Job:
    renderer, state = explorer(classes)
    return partial(renderer.pair_matrix, state)


def denoiser_steps(size: int) -> Job:
    images = pictures(64, size)
    return partial(
        quiet()(fit_denoiser), denoiser(size), images.images, images.labels, steps=2, batch_size=32
    )


def detector_steps(size: int) -> Job:
    images = pictures(128, size)
    return partial(
        quiet()(fit_detector), detector(size), images.images, images.labels, epochs=1, batch_size=64,
        outliers=images.images, outlier_batch_size=64,
    )  # fmt: skip


def committee_distances(train: int) -> Job:
    some = pictures(64, seed=1)
    committee = Committee.of((detector(),), pictures(train), some)
    return partial(committee.distances, some.images)


def scored(sets: int, bank: int = 1000) -> Job:
    some, model = pictures(500), detector()
    model.fit_scores(pictures(bank).images, pictures(bank).labels, some.images)
    return partial(score_table, model, {f"set {i}": some.images for i in range(sets)})


def metrics(count: int) -> Job:
    rng = np.random.default_rng(0)
    return partial(ood_metrics, rng.normal(1, 1, count), rng.normal(0, 1, count))


def tables(seeds: int) -> Job:
    rng = np.random.default_rng(0)
    keys = ["preset", "head", "outliers", "seed", "score", "ood_set"]
    values = [["digits"], list(HEADS), ["none", "label_mixup"], range(seeds), ["msp", "cosine"], names(9)]
    results = pd.MultiIndex.from_product(values, names=keys).to_frame(index=False)
    rest = [column for column in COLUMNS if column not in keys]
    results[rest] = rng.random((len(results), len(rest)))
    return lambda: (summary_table(results), change_table(results), paper_table(results))


def bootstrap(heads: int, kinds: int) -> Job:
    rng = np.random.default_rng(0)
    values = {
        (head, kind, seed): {
            ID_TEST: rng.random(300),
            "set": rng.random(300),
            ACCURACY: rng.random(300) < 0.9,
        }
        for head in list(HEADS)[:heads]
        for kind in list(OUTLIERS)[:kinds]
        for seed in range(2)
    }
    return partial(bootstrap_changes, values, draws=200)


def jobs() -> list[tuple[str, str, float, Sequence[int], Callable[[int], Job]]]:
    """Name, what grows, the exponent of the work, sizes, and what is timed at a size."""
    return [
        ("drawing outliers", "outliers", 1, (256, 512, 1024, 2048), draw),
        ("drawing 256 outliers", "classes", 0, (8, 64, 512), partial(draw, 256)),
        ("choosing the classes of 1,000 triples", "classes", 0, (20, 40, 80, 160), choosing),
        ("explorer, a drag", "classes", 0, (8, 32, 128), dragged),
        ("explorer, all pairs", "classes", 2, (4, 8, 16), all_pairs),
        ("denoiser training, a step", "side of the image", 2, (8, 16, 32), denoiser_steps),
        ("detector training, a step", "side of the image", 2, (8, 16, 32), detector_steps),
        ("purity of a pool", "training images", 1, (4000, 8000, 16000), committee_distances),
        ("scoring", "OOD sets", 1, (2, 4, 8), scored),
        ("scoring", "training images", 0, (5000, 10000, 20000), partial(scored, 2)),
        ("metrics", "scores", 1, (10**4, 10**5, 10**6), metrics),
        ("tables of six heads", "seeds", 1, (3, 12, 48), tables),
        ("intervals of the study", "heads", 1, (1, 3, 6), partial(bootstrap, kinds=2)),
        ("intervals of the study", "kinds of outliers", 1, (2, 4, 8), partial(bootstrap, 1)),
    ]


def seconds(job: Job, repetitions: int) -> float:
    """The least of some repetitions, after one that is not counted."""
    job()
    taken = []
    for _ in range(repetitions):
        start = time.perf_counter()
        job()
        taken.append(time.perf_counter() - start)
    return min(taken)


def measure(toy: bool) -> Iterator[Growth]:
    """Each job at its sizes; toy: each at its two smallest, once."""
    for job, grows, own, sizes, make in jobs():
        sizes = tuple(sizes[:2] if toy else sizes)
        yield Growth(job, grows, sizes, tuple(seconds(make(size), 1 if toy else 5) for size in sizes), own)


def line(found: Growth) -> str:
    """A row of the table, as Markdown."""
    sizes, taken = (
        " → ".join((number(v[0]), number(v[-1]))) for v in (found.sizes, [1000 * s for s in found.seconds])
    )
    cells = (
        found.job,
        found.grows,
        sizes,
        f"{taken} ms",
        f"{found.exponent:.2f}",
        f"{found.own:g}",
        found.verdict,
    )
    return f"| {' | '.join(cells)} |"


def table(found: Sequence[Growth]) -> str:
    """All of them as a Markdown table."""
    columns = ("job", "what grows", "from, to", "time", "exponent", "of the work itself", "time grows")
    return "\n".join([f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *map(line, found)])
