"""From a detector to tables: per-image scores, metrics of every score on every OOD set, and the summary."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from oodlib.datasets.loading import ID_TEST
from oodlib.detection.metrics import ood_metrics
from oodlib.files import write_text
from oodlib.presets import DENOISER_SCORES, OUTLIERS, OWN_SCORE, SCORES

if TYPE_CHECKING:
    from oodlib.detection.detector import Detector

METRICS = ["auroc", "aupr_in", "aupr_out", "fpr95"]
COLUMNS = ["preset", "head", "outliers", "seed", "score", "ood_set", *METRICS, "id_accuracy"]
NAMES = {
    "auroc": "AUROC",
    "aupr_in": "AUPR-In",
    "aupr_out": "AUPR-Out",
    "fpr95": "FPR95",
    "id_accuracy": "accuracy",
}
# What tables call the OOD sets that arithmetic makes, and those whose images are of the same kind as the ID images.
NOISE = ("gaussian", "uniform", "inverted")
NEAR = ("held_out", "CIFAR-100", "TIN (C)", "TIN (R)", "TIN (C, ours)", "TIN (R, ours)")


def score_table(detector: "Detector", sets: Mapping[str, np.ndarray]) -> pd.DataFrame:
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
        for score in (*SCORES, *DENOISER_SCORES)
        if score in scores
        for ood_set, table in by_set.items()
    ]
    return pd.DataFrame(rows)


def ordered(table: pd.DataFrame) -> pd.DataFrame:
    """A table of several detectors with heads, outliers and seeds in their usual order."""
    rank = {name: i for i, name in enumerate((*OWN_SCORE, *OUTLIERS))}
    by = ["head", "outliers", "seed"]
    return table.sort_values(by, kind="stable", key=lambda c: c if c.name == "seed" else c.map(rank))


def own_score(results: pd.DataFrame) -> pd.DataFrame:
    """The rows of results in which each head has its own score: softmax MSP, others cosine, denoiser reconstruction."""
    return results[results["score"] == results["head"].map(OWN_SCORE)]


def paired_change(results: pd.DataFrame, values: list[str], by: list[str]) -> pd.DataFrame:
    """Change from outlier exposure: each kind of outliers minus `none`, paired by seed.

    Args:
        results: Rows with `outliers`, `seed`, the columns in `by` and those in `values`.

    Returns:
        One row for each group, value and kind of outliers: `by`, `outliers`, `metric`, `none`, `exposed` (means over
        seeds), `change`, `low`, `high` (95 % t interval of the mean change over seeds; NaN with fewer than two),
        `seeds`.
    """
    from scipy.special import stdtrit  # here, because it takes half a second to import

    long = results.melt([*by, "outliers", "seed"], values, "metric", "value")
    plain, exposed = long[long["outliers"] == "none"], long[long["outliers"] != "none"]
    pairs = exposed.merge(plain.drop(columns="outliers"), on=[*by, "metric", "seed"], suffixes=("", "_none"))
    pairs = pairs.rename(columns={"value": "exposed", "value_none": "none"}).dropna()
    pairs["change"] = pairs["exposed"] - pairs["none"]
    grouped = pairs.groupby([*by, "outliers", "metric"], sort=False)
    table = grouped[["none", "exposed", "change"]].mean()
    count = grouped.size()
    half = stdtrit((count - 1).clip(lower=1), 0.975) * grouped["change"].std() / np.sqrt(count)
    return table.assign(low=table["change"] - half, high=table["change"] + half, seeds=count).reset_index()


def seed_means(results: pd.DataFrame) -> pd.DataFrame:
    """Each head's own score, averaged over the OOD sets: one row for each head, outliers and seed."""
    own = own_score(results)
    keys = ["head", "outliers", "seed"]
    return own.groupby(keys, sort=False)[[*METRICS, "id_accuracy"]].mean().reset_index()


def _percent(values: pd.Series) -> str:
    if values.isna().all():  # the accuracy of what does not classify
        return "–"
    spread = f" ± {100 * values.std():.1f}" if len(values) > 1 else ""
    return f"{100 * values.mean():.1f}{spread}"


def summary_table(results: pd.DataFrame) -> pd.DataFrame:
    """One row for each head and outliers: mean and standard deviation over seeds, in percent, of the four
    metrics averaged over the OOD sets, and the closed-set accuracy (the paper's Table 2)."""
    table = seed_means(results).groupby(["head", "outliers"], sort=False)[[*METRICS, "id_accuracy"]]
    return table.agg(_percent).rename(columns=NAMES).reset_index()


def set_groups(results: pd.DataFrame) -> dict[str, list[str]]:
    """The OOD sets of each group that has any: `all`, `natural` (all but those in `NOISE`) and `near` (in `NEAR`).

    A set that not every detector was tested on is in none, so that all detectors are compared on the same sets.
    """
    tested = own_score(results)["ood_set"].value_counts(sort=False)
    everywhere = tested.index[tested == len(seed_means(results))]
    groups = {
        "all": list(everywhere),
        "natural": [name for name in everywhere if name not in NOISE],
        "near": [name for name in everywhere if name in NEAR],
    }
    return {group: sets for group, sets in groups.items() if sets}


def group_table(results: pd.DataFrame) -> pd.DataFrame:
    """AUROC averaged over each group of OOD sets: mean and standard deviation over seeds, in percent.

    A column says of how many sets it is the mean: `natural (3)`.
    """
    keys = ["head", "outliers"]
    columns = {}
    for group, sets in set_groups(results).items():
        means = seed_means(results[results["ood_set"].isin(sets)])
        columns[f"{group} ({len(sets)})"] = means.groupby(keys, sort=False)["auroc"].agg(_percent)
    index = pd.MultiIndex.from_frame(results[keys].drop_duplicates())
    return pd.DataFrame(columns, index).reset_index()


def group_text(results: pd.DataFrame) -> str:
    """Which sets the columns of `group_table` are over, as one line."""
    groups = set_groups(results)
    left_out = [name for name in results["ood_set"].unique() if name not in groups.get("all", [])]
    if left_out:
        groups["left out, as not every detector was tested on them"] = left_out
    return "; ".join(f"{group} ({len(sets)}): {', '.join(sets)}" for group, sets in groups.items()) + "."


def paper_table(results: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 1: `AUROC / AUPR-In / AUPR-Out` in percent, a row for each OOD set and outliers.

    In a row of several heads the best AUROC is `**bold**` and the second best `<u>underlined</u>`, as printed: heads
    that show the same number share a place.
    """
    own = own_score(results)
    means = own.groupby(["ood_set", "outliers", "head"], sort=False)[["auroc", "aupr_in", "aupr_out"]].mean()
    cells = means.map(lambda value: f"{100 * value:.1f}")
    rows = cells["auroc"].astype(float).groupby(["ood_set", "outliers"], sort=False)
    place = rows.rank("dense", ascending=False).where(rows.transform("size") > 1)
    cells["auroc"] = ("**" + cells["auroc"] + "**").where(place == 1, cells["auroc"])
    cells["auroc"] = ("<u>" + cells["auroc"] + "</u>").where(place == 2, cells["auroc"])
    return cells.agg(" / ".join, axis=1).unstack("head", sort=False).fillna("").reset_index()


def change_table(results: pd.DataFrame) -> pd.DataFrame:
    """What outlier exposure changes, in percentage points with a 95 % interval over seeds, for each head and kind."""
    changes = paired_change(seed_means(results), [*METRICS, "id_accuracy"], ["head"])

    def cell(row: pd.Series) -> str:
        interval = f" [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]" if row["seeds"] > 1 else ""
        return f"{100 * row['change']:+.1f}{interval}"

    if changes.empty:
        return changes
    table = changes.assign(cell=changes.apply(cell, axis=1))
    table = table.pivot_table("cell", ["head", "outliers"], "metric", aggfunc="first", sort=False)
    return table.rename(columns=NAMES).reset_index()


def write_summary(path: Path, results: pd.DataFrame) -> None:
    """Write the four tables as Markdown, atomically."""
    seeds = results["seed"].nunique()
    parts = [
        f"# Results with the {results['preset'].iloc[0]} preset, {seeds} seed{'s' if seeds > 1 else ''}",
        "Each head by its own score (softmax: maximum softmax probability, denoiser: minus the reconstruction error,\n"
        "others: maximum cosine). Mean over the OOD sets\n"
        f"({', '.join(results['ood_set'].unique())}), in percent, ± standard deviation over seeds.",
        summary_table(results).to_markdown(index=False, disable_numparse=True),
        "AUROC in percent, mean over groups of OOD sets, ± standard deviation over seeds. Natural sets are all but\n"
        "noise and inverted images, near sets show the same kind of thing as the ID images; in brackets, how many:\n"
        f"{group_text(results)}",
        group_table(results).to_markdown(index=False, disable_numparse=True),
        "Change from outlier exposure, in percentage points, paired by seed, with its 95 % interval over seeds:",
        change_table(results).to_markdown(index=False, disable_numparse=True),
        "AUROC / AUPR-In / AUPR-Out in percent, mean over seeds; the best AUROC of each row is bold, the second best\n"
        "underlined:",
        paper_table(results).to_markdown(index=False, disable_numparse=True),
    ]
    write_text(path, "\n\n".join(parts) + "\n")
