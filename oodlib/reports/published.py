"""The paper's Tables 1 and 2 as data, and a run's numbers beside them.

Source: Wahd, "Deep Metric Learning-Based Out-of-Distribution Detection with Synthetic Outlier Exposure",
arXiv 2405.00631: CIFAR-10, ResNet-50, one run each; softmax by MSP, the others by maximum cosine. Cells that look like
errors of copying carry a note.
"""

from pathlib import Path

import pandas as pd

from oodlib.reports.names import label
from oodlib.reports.tables import by_own_score, titles

FOLDER = Path(__file__).parent / "paper"
KEY = ["head", "outliers"]
ID_DATA = "cifar10"
ACCURACY = "accuracy"  # in the place of a set
SUSPECT = "†"  # behind a number of the paper that has a note


def paper_results() -> pd.DataFrame:
    """Table 1: `head`, `outliers`, `ood_set`, `auroc`, `aupr_in`, `aupr_out` as fractions, and `note`."""
    return pd.read_csv(FOLDER / "table1.csv", keep_default_na=False)


def paper_accuracy() -> pd.DataFrame:
    """Table 2: `head`, `outliers`, `id_accuracy` as a fraction, and `note`."""
    return pd.read_csv(FOLDER / "table2.csv", keep_default_na=False)


def beside_paper(results: pd.DataFrame, id_data: str, metric: str = "auroc") -> pd.DataFrame:
    """A row for each OOD set, by our title, and outliers, a column for each head: ours, the paper's, the difference.

    Args:
        results: Metrics of all detectors of a run.
        id_data: The run's ID images. The paper's are CIFAR-10, and its noise sets go by the same names for any images.
        metric: `auroc`, `aupr_in` or `aupr_out`.

    Returns:
        Cells such as `95.1 (paper 97.9, -2.8)`, in percent; empty where either has no number. No rows where the paper
        has other ID images or none of the sets.
    """
    keys = [*KEY, "ood_set"]
    ours = by_own_score(results).groupby(keys, sort=False)[metric].mean().rename("ours").reset_index()
    theirs = paper_results()[[*keys, metric, "note"]]
    both = ours.merge(theirs if id_data == ID_DATA else theirs[:0], on=keys)
    table = both.assign(cell=_cells(both["ours"], both[metric], both["note"]))
    table = table.pivot_table("cell", ["ood_set", "outliers"], "head", aggfunc="first", sort=False).fillna("")
    table = table.reset_index()
    return table.assign(ood_set=table["ood_set"].map(titles(results)))


def accuracy_beside_paper(results: pd.DataFrame) -> pd.DataFrame:
    """The same of closed-set accuracy, a row for each head and outliers: columns `head`, `outliers` and `accuracy`."""
    ours = results.groupby(KEY, sort=False)["id_accuracy"].mean().rename("ours").reset_index()
    both = ours.merge(paper_accuracy(), on=KEY)
    return both[KEY].assign(**{label("id_accuracy"): _cells(both["ours"], both["id_accuracy"], both["note"])})


def notes(results: pd.DataFrame) -> list[str]:
    """What is suspect about the paper's numbers for this run's heads, outliers and sets, a line each."""
    title = titles(results) | {ACCURACY: label("id_accuracy")}
    table = pd.concat([paper_results(), paper_accuracy().assign(ood_set=ACCURACY)])
    table = table[(table["note"] != "") & table["ood_set"].isin(list(title))]
    table = table.merge(results[KEY].drop_duplicates(), on=KEY)
    return [
        f"{SUSPECT} {label(row.head)}, {label(row.outliers)}, {title[row.ood_set]}: {row.note}"
        for row in table.itertuples()
    ]


def _cells(ours: pd.Series, paper: pd.Series, notes: pd.Series) -> list[str]:
    return [
        f"{100 * o:.1f} (paper {100 * p:.1f}{SUSPECT if note else ''}, {100 * (o - p):+.1f})"
        for o, p, note in zip(ours, paper, notes, strict=True)
    ]
