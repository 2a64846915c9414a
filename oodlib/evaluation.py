"""From a detector to tables: per-image scores, metrics of every score on every OOD set, and the summary."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from oodlib.data import ID_TEST
from oodlib.detector import Detector
from oodlib.heads import HEADS
from oodlib.metrics import ood_metrics
from oodlib.presets import OUTLIERS
from oodlib.runs import atomic
from oodlib.scores import SCORES

METRICS = ["auroc", "aupr_in", "aupr_out", "fpr95"]
COLUMNS = ["preset", "head", "outliers", "seed", "score", "ood_set", *METRICS, "id_accuracy"]
NAMES = {
    "auroc": "AUROC",
    "aupr_in": "AUPR-In",
    "aupr_out": "AUPR-Out",
    "fpr95": "FPR95",
    "id_accuracy": "accuracy",
}


def score_table(detector: Detector, sets: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Every score of every image.

    Args:
        sets: uint8 images (N, H, W, C) by the name of their set; the ID test set is called `id_test`.

    Returns:
        Columns `set`, `index`, `predicted` (a class name) and one for each score.
    """
    tables = []
    for name, images in sets.items():
        probabilities, scores = detector.classify(images)
        predicted = np.array(detector.class_names)[probabilities.argmax(-1)]
        tables.append(
            pd.DataFrame({"set": name, "index": np.arange(len(images)), "predicted": predicted, **scores})
        )
    return pd.concat(tables, ignore_index=True)


def metric_table(scores: pd.DataFrame) -> pd.DataFrame:
    """AUROC, AUPR-In, AUPR-Out and FPR95 of each score on each OOD set, from a `score_table`."""
    by_set = dict(tuple(scores.groupby("set", sort=False)))
    id_test = by_set.pop(ID_TEST)
    rows = [
        {"score": score, "ood_set": ood_set, **ood_metrics(id_test[score], table[score])}
        for score in SCORES
        for ood_set, table in by_set.items()
    ]
    return pd.DataFrame(rows)


def ordered(table: pd.DataFrame) -> pd.DataFrame:
    """A table of several detectors with heads, outliers and seeds in their usual order."""
    rank = {name: i for i, name in enumerate((*HEADS, *OUTLIERS))}
    by = ["head", "outliers", "seed"]
    return table.sort_values(by, kind="stable", key=lambda c: c if c.name == "seed" else c.map(rank))


def own_score(results: pd.DataFrame) -> pd.DataFrame:
    """The rows of results in which each head is scored as its paper does: softmax by MSP, others by cosine."""
    return results[results["score"] == results["head"].map(lambda head: HEADS[head].default_score)]


def paired_change(results: pd.DataFrame, values: list[str], by: list[str]) -> pd.DataFrame:
    """Change from outlier exposure, `label_mixup` minus `none`, paired by seed.

    Args:
        results: Rows with `outliers`, `seed`, the columns in `by` and those in `values`.

    Returns:
        One row for each group and value: `by`, `metric`, `none`, `label_mixup` (means over seeds), `change`, `low`,
        `high` (95 % t interval of the mean change over seeds; NaN with fewer than two), `seeds`.
    """
    long = results.melt([*by, "outliers", "seed"], values, "metric", "value")
    wide = long.pivot_table("value", [*by, "metric", "seed"], "outliers", sort=False)
    if not {"none", "label_mixup"} <= set(wide.columns):
        return pd.DataFrame(columns=[*by, "metric", "none", "label_mixup", "change", "low", "high", "seeds"])
    wide = wide.dropna().assign(change=lambda t: t["label_mixup"] - t["none"])
    grouped = wide.groupby([*by, "metric"], sort=False)
    table = grouped[["none", "label_mixup", "change"]].mean()
    count = grouped.size()
    half = stats.t.ppf(0.975, (count - 1).clip(lower=1)) * grouped["change"].std() / np.sqrt(count)
    return table.assign(low=table["change"] - half, high=table["change"] + half, seeds=count).reset_index()


def seed_means(results: pd.DataFrame) -> pd.DataFrame:
    """Each head's own score, averaged over the OOD sets: one row for each head, outliers and seed."""
    own = own_score(results)
    keys = ["head", "outliers", "seed"]
    return own.groupby(keys, sort=False)[[*METRICS, "id_accuracy"]].mean().reset_index()


def _percent(values: pd.Series) -> str:
    spread = f" ± {100 * values.std():.1f}" if len(values) > 1 else ""
    return f"{100 * values.mean():.1f}{spread}"


def summary_table(results: pd.DataFrame) -> pd.DataFrame:
    """One row for each head and outliers: mean and standard deviation over seeds, in percent, of the four
    metrics averaged over the OOD sets, and the closed-set accuracy (the paper's Table 2)."""
    table = seed_means(results).groupby(["head", "outliers"], sort=False)[[*METRICS, "id_accuracy"]]
    return table.agg(_percent).rename(columns=NAMES).reset_index()


def paper_table(results: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 1: `AUROC / AUPR-In / AUPR-Out` in percent, a row for each OOD set and outliers."""
    own = own_score(results)
    means = own.groupby(["ood_set", "outliers", "head"], sort=False)[["auroc", "aupr_in", "aupr_out"]].mean()
    cells = means.apply(lambda row: " / ".join(f"{100 * value:.1f}" for value in row), axis=1)
    return cells.unstack("head", sort=False).reset_index()


def change_table(results: pd.DataFrame) -> pd.DataFrame:
    """What outlier exposure changes, in percentage points with a 95 % interval over seeds, for each head."""
    changes = paired_change(seed_means(results), [*METRICS, "id_accuracy"], ["head"])

    def cell(row: pd.Series) -> str:
        interval = f" [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]" if row["seeds"] > 1 else ""
        return f"{100 * row['change']:+.1f}{interval}"

    if changes.empty:
        return changes
    table = changes.assign(cell=changes.apply(cell, axis=1))
    table = table.pivot_table("cell", "head", "metric", aggfunc="first", sort=False)
    return table.rename(columns=NAMES).reset_index()


def write_summary(path: Path, results: pd.DataFrame) -> None:
    """Write the three tables as Markdown, atomically."""
    seeds = results["seed"].nunique()
    parts = [
        f"# Results with the {results['preset'].iloc[0]} preset, {seeds} seed{'s' if seeds > 1 else ''}",
        "Each head by its own score (softmax: maximum softmax probability, others: maximum cosine). Mean over the\n"
        f"OOD sets ({', '.join(results['ood_set'].unique())}), in percent, ± standard deviation over seeds.",
        summary_table(results).to_markdown(index=False, disable_numparse=True),
        "Change from outlier exposure, in percentage points, paired by seed, with its 95 % interval over seeds:",
        change_table(results).to_markdown(index=False, disable_numparse=True),
        "AUROC / AUPR-In / AUPR-Out in percent, mean over seeds:",
        paper_table(results).to_markdown(index=False, disable_numparse=True),
    ]
    with atomic(path) as part:
        part.write_text("\n\n".join(parts) + "\n")
