"""What exposure to outliers changes, with 95 % intervals.

A detector that saw outliers is compared with the one of the same head and seed that saw none. Below five seeds the
interval is that of a paired t test over seeds. From five on it is that of a bootstrap over seeds and images, for what
is quickly resampled: AUROC and accuracy; AUPR and FPR95 keep the t interval. One seed gives none: two detectors that
differ in rounding alone can be points apart.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from oodlib.datasets.roles import ID_TEST
from oodlib.detection.metrics import resampled_auroc
from oodlib.errors import InputError
from oodlib.reports.names import label
from oodlib.reports.tables import (
    DETECTOR_KEY,
    METRICS,
    by_own_score,
    id_and_ood,
    ordered,
    seed_means,
    titles,
    with_own_score,
)

BOOTSTRAP_SEEDS = 5  # from so many on, seeds and images are resampled
MEAN = "mean over sets"
CHANGE_KEY = ["head", "outliers", "ood_set", "metric"]


def exposure_changes(
    results: pd.DataFrame, scores: Callable[[], pd.DataFrame], draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """What each source of outliers changes against `none`, each head by its own score.

    Args:
        results: Metrics of several detectors.
        scores: Gives their scores of every image; called only where there are five seeds.
        draws: Of the bootstrap.

    Returns:
        A row for each head, source, OOD set and metric, and for the `MEAN` over sets, where the accuracy stands too:
        `head`, `outliers`, `ood_set`, `title`, `metric`, `none`, `exposed` (means over the seeds that both have),
        `change`, `low`, `high` (NaN from one seed), `seeds` and `interval` (which one it is).
    """
    sets, means = by_own_score(results), seed_means(results).assign(ood_set=MEAN)
    values = pd.concat(
        [
            means.melt([*DETECTOR_KEY, "ood_set"], [*METRICS, "id_accuracy"], "metric"),
            sets.melt([*DETECTOR_KEY, "ood_set"], METRICS, "metric"),
        ]
    )
    plain, exposed = values[values["outliers"] == "none"], values[values["outliers"] != "none"]
    pairs = exposed.merge(
        plain.drop(columns="outliers"), on=["head", "seed", "ood_set", "metric"], suffixes=("", "_none")
    )
    pairs = pairs.rename(columns={"value": "exposed", "value_none": "none"}).dropna()
    changes = _paired_t(pairs)
    seeds = pairs.groupby(["head", "outliers"], sort=False)["seed"].unique()
    many = {pair: tuple(sorted(s)) for pair, s in seeds.items() if len(s) >= BOOTSTRAP_SEEDS}
    if many:
        changes.update(_bootstrap(scores(), many, draws, seed))
    changes = changes.reset_index()
    return changes.assign(title=changes["ood_set"].map(titles(results)).fillna(MEAN))


def _paired_t(pairs: pd.DataFrame) -> pd.DataFrame:
    from scipy.special import stdtrit  # here, because it takes half a second to import

    pairs = pairs.assign(change=pairs["exposed"] - pairs["none"])
    grouped = pairs.groupby(CHANGE_KEY, sort=False)
    table, count = grouped[["none", "exposed", "change"]].mean(), grouped.size()
    half = stdtrit((count - 1).clip(lower=1), 0.975) * grouped["change"].std() / np.sqrt(count)
    interval = ("95 % t interval over " + count.astype(str) + " seeds").where(
        count > 1, "no interval from 1 seed"
    )
    return table.assign(
        low=table["change"] - half, high=table["change"] + half, seeds=count, interval=interval
    )


class _Images(NamedTuple):
    """Own scores of a detector's test images, and which ID images it classifies correctly."""

    id_scores: np.ndarray
    ood_scores: dict[str, np.ndarray]
    correct: np.ndarray
    """float64: 0 or 1, NaN where it is not known."""

    @classmethod
    def of(cls, scores: pd.DataFrame) -> "_Images":
        id_images, ood_sets = id_and_ood(scores)
        return cls(
            id_images["score"].to_numpy(),
            {key: images["score"].to_numpy() for key, images in ood_sets.items()},
            id_images["correct"].astype(float).to_numpy(),
        )

    @property
    def sizes(self) -> dict[str, int]:
        return {ID_TEST: len(self.id_scores)} | {key: len(values) for key, values in self.ood_scores.items()}


def _bootstrap(
    scores: pd.DataFrame, pairs: dict[tuple[str, str], tuple[int, ...]], draws: int, seed: int
) -> pd.DataFrame:
    """Changes in AUROC and accuracy of these heads and sources on these seeds.

    A draw takes seeds, ID images and images of each OOD set with replacement, the same for all detectors, so that
    differences are paired. With few seeds such intervals are rather too narrow.
    """
    rng = np.random.default_rng(seed)
    scores = with_own_score(scores[scores["head"].isin([head for head, _ in pairs])])
    detectors = {key: _Images.of(rows) for key, rows in ordered(scores).groupby(DETECTOR_KEY, sort=False)}
    sizes = next(iter(detectors.values())).sizes
    for (head, outliers, number), images in detectors.items():
        if images.sizes != sizes:
            raise InputError(
                f"{head} with {outliers}, seed {number}, was tested on {images.sizes} images, others on {sizes}; "
                "test all on the same with notebook 3"
            )
    # Row 0 counts each image once: the estimate itself.
    counts = {
        key: np.vstack(
            [np.ones(size), rng.multinomial(size, np.full(size, 1 / size), draws)],
            dtype=np.uint16,
            casting="unsafe",
        )
        for key, size in sizes.items()
    }

    @cache
    def shares(head: str, seeds: tuple[int, ...]) -> np.ndarray:
        """The share of each seed in each draw, (seeds, draws + 1)."""
        drawn = rng.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), draws)
        return np.vstack([np.ones(len(seeds)), drawn]).T / len(seeds)

    @cache
    def resampled(head: str, outliers: str, seeds: tuple[int, ...]) -> dict[tuple[str, str], np.ndarray]:
        return _over_seeds([detectors[head, outliers, s] for s in seeds], counts, shares(head, seeds))

    rows = []
    for (head, outliers), seeds in pairs.items():
        plain, exposed = resampled(head, "none", seeds), resampled(head, outliers, seeds)
        interval = f"95 % bootstrap interval over {len(seeds)} seeds and images"
        for (ood_set, metric), values in exposed.items():
            none, change = plain[ood_set, metric][0], values - plain[ood_set, metric]
            low, high = np.quantile(change[1:], [0.025, 0.975])
            rows.append((head, outliers, ood_set, metric, none, values[0], change[0], low, high, interval))
    columns = [*CHANGE_KEY, "none", "exposed", "change", "low", "high", "interval"]
    return pd.DataFrame(rows, columns=columns).set_index(CHANGE_KEY)


def _over_seeds(
    detectors: Sequence[_Images], counts: dict[str, np.ndarray], share: np.ndarray
) -> dict[tuple[str, str], np.ndarray]:
    """AUROC on each OOD set and its mean, and accuracy, of each draw, as a mean over seeds, (draws + 1,)."""
    by_set = {
        (key, "auroc"): sum(
            share[i] * resampled_auroc(d.id_scores, d.ood_scores[key], counts[ID_TEST], counts[key])
            for i, d in enumerate(detectors)
        )
        for key in detectors[0].ood_scores
    }
    right = sum(share[i] * (counts[ID_TEST] @ d.correct) for i, d in enumerate(detectors))
    return {
        (MEAN, "auroc"): np.mean(list(by_set.values()), axis=0),
        **by_set,
        (MEAN, "id_accuracy"): right / counts[ID_TEST].shape[1],
    }


def interval_text(changes: pd.DataFrame) -> str:
    """Which intervals a table of changes has, as a heading says it."""
    metrics = changes.groupby("interval", sort=False)["metric"].unique()
    if len(metrics) == 1:
        return metrics.index[0]
    return "; ".join(f"{interval} ({', '.join(map(label, names))})" for interval, names in metrics.items())


def is_certain(changes: pd.DataFrame) -> pd.Series:
    """Whether each change has an interval that excludes 0."""
    return (changes["low"] > 0) | (changes["high"] < 0)


def change_text(changes: pd.DataFrame) -> pd.Series:
    """Each change in percentage points with its interval, where it has one; `*` where that excludes 0."""
    cells = [
        f"{100 * change:+.1f}" + ("" if np.isnan(low) else f" [{100 * low:+.1f}, {100 * high:+.1f}]")
        for change, low, high in changes[["change", "low", "high"]].itertuples(index=False)
    ]
    return pd.Series(cells, changes.index) + np.where(is_certain(changes), " *", "")
