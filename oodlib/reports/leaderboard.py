"""Rows with the columns of OpenOOD v1.5's result files (arXiv 2306.09301).

AUROC is the same whichever class is positive. FPR95 and AUPR, which that project reports with OOD as the positive
class, have no column there.
"""

from collections.abc import Iterable

import pandas as pd

from oodlib.datasets import openood
from oodlib.datasets.roles import Role
from oodlib.reports.names import label

FAR = set(openood.NAMES[Role.FAR])
# That project's sets, as its folders are called: near and far from each of its ID sets.
SETS = {
    "CIFAR-10": (set(openood.NAMES[Role.NEAR]), FAR),
    "CIFAR-100": ({"cifar10", "tin"}, FAR),
    "ImageNet": ({"ssb_hard", "ninco"}, {"inaturalist", "texture", "openimage_o"}),
}
POSTPROCESSORS = {
    "msp": "MSP", "energy": "EBO", "gen": "GEN", "mahalanobis": "MDS", "rmds": "RMDS", "knn": "KNN", "vim": "VIM",
}  # fmt: skip


def row(
    training: str,
    score: str,
    near: Iterable[float],
    far: Iterable[float],
    accuracy: Iterable[float],
    architecture: str,
    description: str = "",
    outlier_data: bool = False,
) -> dict[str, str]:
    """One row.

    Args:
        near, far: Mean AUROC over near and over far sets, a value for each seed.
        accuracy: On ID test images, a value for each seed.
        outlier_data: Whether real OOD images were trained on.
    """
    return {
        "Training": training,
        "Postprocessor": POSTPROCESSORS.get(score, label(score)),
        "Near-OOD_AUROC": _percent(near),
        "Far-OOD_AUROC": _percent(far),
        "ID_Accuracy": _percent(accuracy),
        "Outlier_Data": "Yes" if outlier_data else "No",
        "Arch": architecture,
        "Additional_Description": description,
    }


def of_run(results: pd.DataFrame, architecture: str) -> pd.DataFrame:
    """A row for each head, condition and score of a run that was tested on all of `openood.SETS`, mean and standard
    deviation over seeds; empty where none was.

    Args:
        results: Metrics of all detectors.
    """
    rows = []
    for (head, outliers, score), of_score in results.groupby(["head", "outliers", "score"], sort=False):
        of_sets = of_score[of_score["ood_set"].isin(openood.SETS)]
        if of_sets["ood_set"].nunique() < len(openood.SETS):
            continue
        by_seed = of_sets.pivot_table("auroc", "seed", "role")
        near, far = by_seed[Role.NEAR], by_seed[Role.FAR]
        accuracy = of_score.groupby("seed")["id_accuracy"].first()
        training = label(head) if outliers == "none" else f"{label(head)}, {label(outliers)}"
        is_real = outliers.partition("+")[0] == "real"
        rows.append(row(training, score, near, far, accuracy, architecture, outlier_data=is_real))
    return pd.DataFrame(rows)


def _percent(values: Iterable[float]) -> str:
    values = 100 * pd.Series(list(values), dtype=float)
    spread = f" ± {values.std():.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{spread}"
