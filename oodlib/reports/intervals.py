"""What exposure to outliers changes, with 95 % intervals.

A detector that saw outliers is compared with the one of the same head and seed that saw none. Below five seeds the
interval is that of a paired t test over seeds. From five on it is that of `bootstrap`, over seeds and images, for what
is quickly resampled: AUROC and accuracy; AUPR and FPR95 keep the t interval. One seed gives none: two detectors that
differ in rounding alone can be points apart.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from oodlib.datasets.roles import ID_TEST
from oodlib.reports.bootstrap import MEAN, gains
from oodlib.reports.names import label
from oodlib.reports.tables import (
    DETECTOR_KEY,
    METRICS,
    by_own_score,
    seed_means,
    titles,
    with_own_score,
)

BOOTSTRAP_SEEDS = 5  # from so many on, seeds and images are resampled
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


def _bootstrap(
    scores: pd.DataFrame, pairs: dict[tuple[str, str], tuple[int, ...]], draws: int, seed: int
) -> pd.DataFrame:
    """Changes in AUROC and accuracy of these heads and sources on these seeds."""
    heads = {head for head, _ in pairs}
    scores = with_own_score(scores[scores["head"].isin(heads)])
    detectors = (
        ((head, outliers, 0, seed), images)
        for (head, outliers, seed), images in scores.groupby(DETECTOR_KEY, sort=False)
    )
    comparisons = [(head, outliers, "none") for head, outliers in pairs]
    table = gains(detectors, comparisons, lambda _: False, draws, seed)
    table["set"] = table["set"].where(table["metric"] != "id_accuracy", table["set"].replace(ID_TEST, MEAN))
    interval = "95 % bootstrap interval over " + table["seeds"].astype(str) + " seeds and images"
    names = {"set": "ood_set", "reference_value": "none", "value": "exposed"}
    return table.rename(columns=names).assign(interval=interval).set_index(CHANGE_KEY).drop(columns="seeds")


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
