"""Rows with the columns of OpenOOD v1.5's result files (arXiv 2306.09301).

AUROC is the same whichever class is positive. FPR95 and AUPR, which that project reports with OOD as the positive
class, have no column there.
"""

from collections.abc import Iterable

import pandas as pd

from oodlib.datasets.roles import Role
from oodlib.reports.names import label

# That project's sets, as its folders are called: near and far from each of its ID sets.
SETS = {
    "CIFAR-10": ({"cifar100", "tin"}, {"mnist", "svhn", "texture", "places365"}),
    "CIFAR-100": ({"cifar10", "tin"}, {"mnist", "svhn", "texture", "places365"}),
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


def of_run(results: pd.DataFrame, prefix: str, architecture: str) -> pd.DataFrame:
    """A row for each head, condition and score of a run, mean and standard deviation over seeds; empty where a detector
    was not tested on all sets of CIFAR-10.

    Args:
        results: Metrics of all detectors.
        prefix: Of the sets' keys.
    """
    keys = {role: [prefix + name for name in sorted(names)] for role, names in zip(
        (Role.NEAR, Role.FAR), SETS["CIFAR-10"], strict=True)}  # fmt: skip
    rows = []
    for (head, outliers, score), of_score in results.groupby(["head", "outliers", "score"], sort=False):
        by_seed = of_score.pivot_table("auroc", "seed", "ood_set")
        if not all(key in by_seed for of_role in keys.values() for key in of_role):
            continue
        near, far = (by_seed[of_role].mean(axis=1) for of_role in keys.values())
        accuracy = of_score.groupby("seed")["id_accuracy"].first()
        training = label(head) if outliers == "none" else f"{label(head)}, {label(outliers)}"
        is_real = outliers.partition("+")[0] == "real"
        rows.append(row(training, score, near, far, accuracy, architecture, outlier_data=is_real))
    return pd.DataFrame(rows)


def _percent(values: Iterable[float]) -> str:
    values = 100 * pd.Series(list(values), dtype=float)
    spread = f" ± {values.std():.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{spread}"
