"""Which outliers? The choice of a default by validation outliers, and what each source changes on the test sets."""

from collections.abc import Callable, Collection
from pathlib import Path

import pandas as pd

from oodlib.errors import InputError
from oodlib.files import write_text
from oodlib.reports.intervals import MEAN, change_text, exposure_changes, interval_text
from oodlib.reports.names import label
from oodlib.reports.tables import by_own_score, markdown, ordered


def by_validation(validation: pd.DataFrame) -> pd.DataFrame:
    """AUROC on validation outliers, each head by its own score, mean over sets and seeds: a row for each source of
    outliers, a column for each head and their `mean`, best first. The choice looks at nothing else.

    Args:
        validation: Metrics of several detectors on validation outliers.
    """
    own = by_own_score(ordered(validation))
    table = own.pivot_table("auroc", "outliers", "head", sort=False).dropna()
    return table.assign(mean=table.mean(axis=1)).sort_values("mean", ascending=False, kind="stable")


def best_source(validation: pd.DataFrame, eligible: Collection[str]) -> str:
    """The best of the eligible sources in a table from `by_validation`."""
    sources = [source for source in validation.index if source in eligible]
    if not sources:
        raise InputError(
            f"no detector was trained with any of {', '.join(eligible)}; train some with notebook 3"
        )
    return sources[0]


def study_changes(results: pd.DataFrame, scores: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """`exposure_changes`, of which none may be missing.

    Raises:
        InputError: A head was not trained without outliers on the seeds of a source.
    """
    changes = exposure_changes(results, scores)
    compared = set(zip(changes["head"], changes["outliers"], strict=True))
    for head, outliers in results[["head", "outliers"]].drop_duplicates().itertuples(index=False):
        if outliers != "none" and (head, outliers) not in compared:
            raise InputError(
                f"{head} was not trained without outliers on the seeds of {outliers}; train it with notebook 3"
            )
    return changes


def study_table(changes: pd.DataFrame, metric: str = "auroc") -> pd.DataFrame:
    """A row for each source of outliers, a column for each head: the change of a metric, mean over the OOD sets."""
    rows = changes[(changes["ood_set"] == MEAN) & (changes["metric"] == metric)]
    table = rows.assign(cell=change_text(rows))
    return table.pivot_table("cell", "outliers", "head", aggfunc="first", sort=False).reset_index()


def verdicts(changes: pd.DataFrame, source: str) -> str:
    """In words: which heads gain and lose AUROC with this source, over all sets and on each, as Markdown."""
    rows = changes[(changes["outliers"] == source) & (changes["metric"] == "auroc")]
    lines = []
    for title, of_set in rows.groupby("title", sort=False):
        heads = of_set["head"].map(label) + (100 * of_set["change"]).map(" {:+.1f}".format)
        gain, lose = of_set["low"] > 0, of_set["high"] < 0
        groups = {"gain": heads[gain], "lose": heads[lose], "are undecided": heads[~gain & ~lose]}
        said = "; ".join(f"{verb}: {', '.join(group)}" for verb, group in groups.items() if len(group))
        lines.append(f"- **{title}** · {said}.")
    return "\n".join(lines)


def write_study(path: Path, validation: pd.DataFrame, changes: pd.DataFrame, best: str) -> None:
    """Write the choice and the tables as Markdown, atomically."""
    seeds = changes["seeds"].max()
    auroc, accuracy = (changes[changes["metric"] == metric] for metric in ("auroc", "id_accuracy"))
    parts = [
        f"# Which outliers? {seeds} seed{'s' if seeds > 1 else ''}",
        "AUROC in percent on validation outliers, each head by its own score, mean over sets and seeds. The best\n"
        f"source of label mixtures is {best}:",
        (100 * validation).rename(index=label, columns=label).to_markdown(floatfmt=".1f"),
        "Change in AUROC against no outliers, mean over the OOD test sets, in percentage points; * where the interval\n"
        f"excludes 0. In brackets: {interval_text(auroc)}.",
        markdown(study_table(auroc)),
        f"The same of closed-set accuracy. In brackets: {interval_text(accuracy)}.",
        markdown(study_table(accuracy, "id_accuracy")),
    ]
    write_text(path, "\n\n".join(parts) + "\n")
