"""What exposure to outliers teaches: each source against no outliers, against degraded ID images, and against the
placebo in which nothing is mixed. And the choice of a default, which looks at validation images alone."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from oodlib.conditions import references, takes_denoiser
from oodlib.datasets.roles import ID_TEST, Role
from oodlib.detection.metrics import is_ood
from oodlib.errors import InputError
from oodlib.files import read_csv, read_json, write_text
from oodlib.reports.bootstrap import ALL_HEADS, DEGRADED, GROUPS, SHIFTED, Comparison, Key, gains
from oodlib.reports.intervals import change_text, is_certain
from oodlib.reports.names import NAMES, label
from oodlib.reports.tables import BOTH_DEGRADED, DETECTOR_KEY, by_own_score, markdown, ordered
from oodlib.runs import DENOISER, Run

HEADLINE = ("natural sets", "near sets")
NOISE_SETS = "noise sets"  # which stand apart: noise as outliers solves them by itself
HELD_AGAINST = [Role.ID, Role.NEAR, Role.FAR]  # the images that scores are compared on
KNN = "knn"


def replicates(run: Run) -> list[Run]:
    """The run, and those that repeat a part of it with another denoiser: of `study`, `study-1`, `study-2` and so on."""
    runs = [run]
    while (further := Run(f"{run.name}-{len(runs)}", run.settings)).scored():
        runs.append(further)
    return runs


def tables(runs: Sequence[Run], name: str) -> pd.DataFrame:
    """`Run.tables` of replicates as one, without a denoiser's own scores; `denoiser` is the number of the replicate."""
    tables = [run.tables(name).assign(denoiser=number) for number, run in enumerate(runs)]
    of_all = pd.concat(tables, ignore_index=True)
    return ordered(of_all[of_all["head"] != DENOISER])


def detectors(runs: Sequence[Run], score: str | None = None) -> Iterator[tuple[Key, pd.DataFrame]]:
    """What `bootstrap.gains` takes: the images of each detector, by this score, or by its own."""
    for number, run in enumerate(runs):
        for mark in run.scored():
            images = read_csv(mark.with_name("scores.csv"))
            head, outliers, seed, own = images.loc[0, [*DETECTOR_KEY, "own_score"]]
            if head == DENOISER:
                continue
            name = score or own
            threshold = read_json(mark.with_name("scores.json"))["thresholds"][name]
            table = images[["set", "role", "correct"]].assign(score=images[name])
            yield (
                (head, outliers, number, int(seed)),
                table.assign(called_ood=is_ood(images[name], threshold)),
            )


def comparisons(results: pd.DataFrame) -> list[Comparison]:
    """Each head and condition with each of its `references` that was trained too."""
    trained = list(results[["head", "outliers"]].drop_duplicates().itertuples(index=False, name=None))
    return [
        (head, outliers, reference)
        for head, outliers in trained
        for reference in references(outliers).values()
        if (head, reference) in trained
    ]


def study_gains(runs: Sequence[Run], results: pd.DataFrame, score: str | None = None) -> pd.DataFrame:
    """`bootstrap.gains` of every comparison, by this score, or by each head's own.

    Raises:
        InputError: No detector can be compared with one that was trained without outliers.
    """
    pairs = comparisons(results)
    if not pairs:
        raise InputError(
            "no detector was trained without outliers; train some with notebook 3, outliers = 'none'"
        )
    return gains(detectors(runs, score), pairs, takes_denoiser)


def score_gains(runs: Sequence[Run], outliers: str) -> pd.DataFrame:
    """`bootstrap.gains` of each score over KNN on the same detectors, those of one condition. In the place of what they
    were trained with stands the score."""

    def scored() -> Iterator[tuple[Key, pd.DataFrame]]:
        for number, run in enumerate(runs):
            for mark in run.scored():
                images = read_csv(mark.with_name("scores.csv"))
                head, trained_with, seed = images.loc[0, DETECTOR_KEY]
                if head == DENOISER or trained_with != outliers:
                    continue
                for score in read_json(mark.with_name("scores.json"))["thresholds"]:
                    table = images[["set", "role", "correct"]].assign(score=images[score])
                    yield (head, score, number, int(seed)), table[table["role"].isin(HELD_AGAINST)]

    detectors = dict(scored())
    pairs = [
        (head, score, KNN) for head, score in dict.fromkeys(key[:2] for key in detectors) if score != KNN
    ]
    return gains(detectors.items(), pairs, lambda _: takes_denoiser(outliers))


def score_table(changes: pd.DataFrame, group: str) -> pd.DataFrame:
    """A row for each score, KNN first: AUROC in percent on a group of sets, a column for each head, `*` where its
    difference from KNN is certain; last the mean difference over heads with its interval, in percentage points.

    Args:
        changes: From `score_gains`.
    """
    rows = changes[(changes["set"] == group) & (changes["metric"] == "auroc")]
    heads, mean = [head for head in NAMES if head in set(rows["head"])], mean_over_heads(rows)
    cells = (100 * rows["value"]).map("{:.1f}".format) + np.where(is_certain(rows), " *", "")
    table = rows.assign(cell=cells).pivot(index="outliers", columns="head", values="cell")
    table.loc[KNN] = (100 * rows.groupby("head")["reference_value"].first()).map("{:.1f}".format)
    over_heads = rows[rows["head"] == mean].set_index("outliers")
    table["against KNN"] = change_text(over_heads)
    return table.loc[[KNN, *over_heads.index], [*heads, "against KNN"]].fillna("")


def overview(results: pd.DataFrame, alarms: pd.DataFrame) -> pd.DataFrame:
    """A row for each condition, mean over heads, denoisers and seeds, in percent: AUROC by each head's own score and by
    KNN, on natural, near and noise sets; on natural sets where ID and OOD images are degraded alike; the share of ID
    test images, as they are, degraded and shifted, that is called OOD; accuracy.

    Args:
        results: Metrics of all detectors.
        alarms: From `tables.alarm_table`, of the same.
    """
    columns = {}
    own, knn = by_own_score(results), results[results["score"] == KNN]
    for name, of_score in (("", own), (f", {label(KNN)}", knn)):
        for group in (*HEADLINE, NOISE_SETS):
            rows = of_score[of_score["role"].isin(GROUPS[group])]
            columns[f"{group.removesuffix(' sets')}{name}"] = rows.groupby("outliers", sort=False)[
                "auroc"
            ].mean()
    natural = own[own["role"].isin(GROUPS[HEADLINE[0]])]
    columns["natural, all degraded"] = natural.groupby("outliers", sort=False)[BOTH_DEGRADED].mean()
    of_own = alarms[alarms["score"] == alarms["own_score"]]
    for name, role in (("ID", Role.ID), ("degraded ID", Role.DEGRADED_ID), ("shifted ID", Role.SHIFTED_ID)):
        rows = of_own[of_own["role"] == role]
        columns[f"{name} called OOD"] = rows.groupby("outliers", sort=False)["called_ood"].mean()
    columns["accuracy"] = own.groupby("outliers", sort=False)["id_accuracy"].mean()
    return 100 * pd.DataFrame(columns).loc[own["outliers"].unique()]


def mean_over_heads(changes: pd.DataFrame) -> str:
    """What stands in the place of a head for the mean over several; where there is one, that one."""
    heads = changes["head"].unique()
    return ALL_HEADS if ALL_HEADS in heads else heads[-1]


def gain_table(
    changes: pd.DataFrame, group: str, metric: str = "auroc", head: str | None = None
) -> pd.DataFrame:
    """A row for each condition: its change against each reference, in percentage points, as text.

    Args:
        changes: From `study_gains`.
        group: A set or group of sets.
        head: A head; None for the mean over all.
    """
    head = head or mean_over_heads(changes)
    rows = changes[(changes["set"] == group) & (changes["metric"] == metric) & (changes["head"] == head)]
    rows = rows.assign(cell=change_text(rows))
    cells = {(row.outliers, row.reference): row.cell for row in rows.itertuples()}
    table = [
        {"outliers": name}
        | {f"against {kind}": cells.get((name, other), "") for kind, other in references(name).items()}
        for name in rows["outliers"].unique()
    ]
    return pd.DataFrame(table, columns=None if table else ["outliers"]).fillna("")


def by_validation(validation: pd.DataFrame) -> pd.DataFrame:
    """AUROC on validation outliers, each head by its own score, mean over sets, denoisers and seeds: a row for each
    condition, a column for each head, their `mean`, and the `false_alarms` on degraded validation images; best first.

    Args:
        validation: Metrics of several detectors on validation outliers.
    """
    own = by_own_score(ordered(validation))
    table = own.pivot_table("auroc", "outliers", "head", sort=False).dropna()
    alarms = own.groupby("outliers", sort=False)["false_alarms"].mean()
    table = table.assign(mean=table.mean(axis=1), false_alarms=alarms)
    return table.sort_values("mean", ascending=False, kind="stable")


def best_condition(
    validation: pd.DataFrame, eligible: Collection[str], most_alarms: float = 0.1
) -> str | None:
    """The best of the eligible conditions in a table from `by_validation` that calls at most this share of degraded
    validation images OOD; None where none does."""
    table = validation[validation["false_alarms"] <= most_alarms]
    return next((name for name in table.index if name in eligible), None)


def write_study(
    path: Path, of_conditions: pd.DataFrame, validation: pd.DataFrame, changes: pd.DataFrame
) -> None:
    """Write the tables as Markdown, atomically."""
    counts = changes[["denoisers", "seeds"]].max()
    parts = [
        f"# What do outliers teach? {counts['denoisers']} denoisers, {counts['seeds']} seeds",
        "AUROC in percent, mean over heads, denoisers and seeds, and what share of ID test images is called OOD:",
        of_conditions.rename(index=label).to_markdown(floatfmt=".1f"),
        "On validation images, AUROC in percent and false alarms on degraded ones:",
        (100 * validation).rename(index=label, columns=label).to_markdown(floatfmt=".1f"),
    ]
    of_groups = [(group, "auroc") for group in (*HEADLINE, NOISE_SETS)]
    for group, metric in (
        *of_groups,
        (SHIFTED, "called_ood"),
        (DEGRADED, "called_ood"),
        (ID_TEST, "id_accuracy"),
    ):
        parts += [
            f"Change of {label(metric)} on {group}, mean over heads, in percentage points; in brackets the 95 %\n"
            "interval of a bootstrap over denoisers, seeds and images; * where it excludes 0:",
            markdown(gain_table(changes, group, metric)),
        ]
    write_text(path, "\n\n".join(parts) + "\n")
