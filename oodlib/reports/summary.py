"""All detectors of a run together: the tables of the summary, in percent."""

from pathlib import Path

import pandas as pd

from oodlib.datasets.roles import Role
from oodlib.files import write_text
from oodlib.reports.intervals import MEAN, change_text, interval_text
from oodlib.reports.names import label, score_axis
from oodlib.reports.tables import (
    BOTH_DEGRADED,
    METRICS,
    OF_CLASSIFIER,
    by_own_score,
    markdown,
    seed_means,
    shifted_auroc,
    titles,
)


def _percent(values: pd.Series) -> str:
    if values.isna().all():  # the accuracy of what does not classify
        return "–"
    spread = f" ± {100 * values.std():.1f}" if len(values) > 1 else ""
    return f"{100 * values.mean():.1f}{spread}"


def summary_table(results: pd.DataFrame) -> pd.DataFrame:
    """One row for each head and outliers: mean and standard deviation over seeds, in percent, of the four
    metrics averaged over the OOD sets, AUROC where ID and OOD images are degraded alike, the closed-set accuracy (the
    paper's Table 2), and the expected calibration error, as it is and by a temperature from validation images."""
    columns = [*METRICS, BOTH_DEGRADED, *OF_CLASSIFIER]
    table = seed_means(results).groupby(["head", "outliers"], sort=False)[columns]
    return table.agg(_percent).rename(columns=label).reset_index()


def own_score_text(results: pd.DataFrame) -> str:
    """Which score is the own one of which heads, as one line."""
    heads = results.groupby("own_score", sort=False)["head"].unique()
    return "; ".join(f"{', '.join(map(label, names))}: {score_axis(score)}" for score, names in heads.items())


def set_groups(results: pd.DataFrame) -> dict[str, list[str]]:
    """The keys of the OOD sets of each group that has any: `all`, `natural` (all but noise), `near` and `far`, by their
    roles.

    A set that not every detector was tested on is in none, so that all detectors are compared on the same sets.
    """
    roles = by_own_score(results).groupby("ood_set", sort=False)["role"].agg(["first", "size"])
    roles = roles.loc[roles["size"] == len(seed_means(results)), "first"]
    groups = {"all": roles, "natural": roles[roles != Role.NOISE]}
    groups |= {"near": roles[roles == Role.NEAR], "far": roles[roles == Role.FAR]}
    return {group: list(sets.index) for group, sets in groups.items() if len(sets)}


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
    groups, title = set_groups(results), titles(results)
    left_out = [key for key in title if key not in groups.get("all", [])]
    if left_out:
        groups["left out, as not every detector was tested on them"] = left_out
    return (
        "; ".join(f"{g} ({len(sets)}): {', '.join(map(title.get, sets))}" for g, sets in groups.items()) + "."
    )


def alarm_summary(alarms: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """The share of ID test images that is called OOD, each head by its own score: mean and standard deviation over
    seeds, in percent.

    Columns `ID` (as they are), `degraded` and `shifted` (means over the shifts that training with `degrade` draws, and
    over those that no training draws), `worst` (of the latter, with its name), `recalibrated` (shifted, by a threshold
    from degraded validation images), `accuracy, shifted` and `AUROC, shifted` (`tables.shifted_auroc`).

    Args:
        alarms: From `tables.alarm_table`, of several detectors.
        scores: Of every image, of the same.
    """
    keys = ["head", "outliers"]
    own = alarms[alarms["score"] == alarms["own_score"]]

    def mean(role: Role, column: str) -> pd.Series:
        of_seed = own[own["role"] == role].groupby([*keys, "seed"], sort=False)[column].mean()
        return of_seed.groupby(keys, sort=False).agg(_percent)

    shifted = own[own["role"] == Role.SHIFTED_ID].groupby([*keys, "title"], sort=False)["called_ood"].mean()
    worst = shifted[shifted.groupby(keys, sort=False).idxmax()].reset_index("title")
    columns = {
        "ID": mean(Role.ID, "called_ood"),
        "degraded": mean(Role.DEGRADED_ID, "called_ood"),
        "shifted": mean(Role.SHIFTED_ID, "called_ood"),
        "worst": worst["title"] + (100 * worst["called_ood"]).map(" {:.1f}".format),
        "recalibrated": mean(Role.SHIFTED_ID, "recalibrated"),
        "accuracy, shifted": mean(Role.SHIFTED_ID, "accuracy"),
        "AUROC, shifted": shifted_auroc(scores).groupby(keys, sort=False).agg(_percent),
    }
    index = pd.MultiIndex.from_frame(own[keys].drop_duplicates())
    return pd.DataFrame(columns, index).fillna("–").reset_index()


def paper_table(results: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 1: `AUROC / AUPR-In / AUPR-Out` in percent, a row for each OOD set, by its title, and outliers.

    In a row of several heads the best AUROC is `**bold**` and the second best `<u>underlined</u>`, as printed: heads
    that show the same number share a place.
    """
    own = by_own_score(results)
    means = own.groupby(["ood_set", "outliers", "head"], sort=False)[["auroc", "aupr_in", "aupr_out"]].mean()
    cells = means.map(lambda value: f"{100 * value:.1f}")
    rows = cells["auroc"].astype(float).groupby(["ood_set", "outliers"], sort=False)
    place = rows.rank("dense", ascending=False).where(rows.transform("size") > 1)
    cells["auroc"] = ("**" + cells["auroc"] + "**").where(place == 1, cells["auroc"])
    cells["auroc"] = ("<u>" + cells["auroc"] + "</u>").where(place == 2, cells["auroc"])
    table = cells.agg(" / ".join, axis=1).unstack("head", sort=False).fillna("").reset_index()
    return table.assign(ood_set=table["ood_set"].map(titles(results)))


def change_table(changes: pd.DataFrame) -> pd.DataFrame:
    """What each source of outliers changes for each head, in percentage points with an interval, mean over OOD sets."""
    means = changes[changes["ood_set"] == MEAN]
    table = means.assign(cell=change_text(means))
    table = table.pivot_table("cell", ["head", "outliers"], "metric", aggfunc="first", sort=False)
    return table.rename(columns=label).reset_index()


def write_summary(
    path: Path, results: pd.DataFrame, changes: pd.DataFrame, alarms: pd.DataFrame, generator: str = ""
) -> None:
    """Write the tables as Markdown, atomically.

    Args:
        alarms: From `alarm_summary`.
        generator: What is to be said of the generator, see `outliers.purity.generator_text`.
    """
    seeds = results["seed"].nunique()
    parts = [
        f"# Results with the {results['preset'].iloc[0]} preset, {seeds} seed{'s' if seeds > 1 else ''}",
        *([generator] if generator else []),
        f"Each head by its own score ({own_score_text(results)}). Mean over the OOD sets\n"
        f"({', '.join(titles(results).values())}), in percent, ± standard deviation over seeds.",
        markdown(summary_table(results)),
        "AUROC in percent, mean over groups of OOD sets, ± standard deviation over seeds. Natural sets are all but\n"
        "noise and inverted images, near sets show the same kind of thing as the ID images; in brackets, how many:\n"
        f"{group_text(results)}",
        markdown(group_table(results)),
        "False alarms: the share of ID test images that is called OOD, in percent; as they are, degraded in ways that\n"
        "training with `degrade` draws too, and shifted in ways that no training draws; the worst of these; the same\n"
        "by a threshold from degraded validation images; the accuracy on shifted images, and how well these are told\n"
        "from OOD images.",
        markdown(alarms),
    ]
    if len(changes):
        parts += [
            "Change from outlier exposure, in percentage points, paired by seed, mean over the OOD sets; * where the\n"
            f"interval excludes 0. In brackets: {interval_text(changes)}.",
            markdown(change_table(changes)),
        ]
    parts += [
        "AUROC / AUPR-In / AUPR-Out in percent, mean over seeds; the best AUROC of each row is bold, the second best\n"
        "underlined:",
        markdown(paper_table(results)),
    ]
    write_text(path, "\n\n".join(parts) + "\n")
