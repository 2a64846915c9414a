"""Metrics of made-up detectors, for the tests of tables, intervals and the summary."""

import numpy as np
import pandas as pd

from oodlib.reports.tables import BOTH_DEGRADED, COLUMNS, OF_CLASSIFIER

SCORES = ("msp", "energy", "cosine", "mahalanobis", "knn")
ROLES = {"held_out": "near", "CIFAR-100": "near", "TIN (R, ours)": "near"} | dict.fromkeys(
    ("gaussian", "uniform", "inverted"), "noise"
)


def results(**by_outliers: list[float]) -> pd.DataFrame:
    """Rows of arcface with these AUROCs by seed, the same on two OOD sets; scores not its own have 0.5."""

    def own(score: str, auroc: float) -> float:
        return auroc if score == "cosine" else 0.5

    return pd.DataFrame(
        [
            [
                *("digits", "arcface", outliers, seed, "cosine", score, ood_set, ood_set, role),
                *(own(score, auroc), 0.8, 0.7, 0.2, own(score, auroc) - 0.1, 0.99, 0.04, 0.02),
            ]
            for outliers, aurocs in by_outliers.items()
            for seed, auroc in enumerate(aurocs)
            for score in SCORES
            for ood_set, role in (("letters", "far"), ("uniform", "noise"))
        ],
        columns=COLUMNS,
    )


def denoiser_results(reconstruction: float = 0.9) -> pd.DataFrame:
    """Rows of the denoiser's scores: one seed, no outliers, no accuracy."""
    table = results(none=[reconstruction]).query("score in ('cosine', 'msp')")
    score = table["score"].map({"cosine": "reconstruction", "msp": "inpainting"})
    of_classifier = dict.fromkeys([BOTH_DEGRADED, *OF_CLASSIFIER], np.nan)
    return table.assign(head="denoiser", own_score="reconstruction", score=score, **of_classifier)


def with_denoiser(**by_outliers: list[float]) -> pd.DataFrame:
    return pd.concat([results(**by_outliers), denoiser_results()], ignore_index=True)


def heads(**aurocs: float) -> pd.DataFrame:
    """Rows of these heads with these AUROCs, one seed, without outliers."""
    tables = [
        results(none=[auroc]).assign(head=head, own_score="msp" if head == "softmax" else "cosine")
        for head, auroc in aurocs.items()
    ]
    return pd.concat(tables, ignore_index=True)


def on_sets(**aurocs: list[float]) -> pd.DataFrame:
    """Rows of arcface with these AUROCs by seed on these OOD sets, their names with _ for what is no letter."""
    names = {"CIFAR_100": "CIFAR-100", "TIN_R": "TIN (R, ours)"}
    tables = []
    for name, values in aurocs.items():
        name = names.get(name, name)
        rows = results(none=values).query("ood_set == 'uniform'")
        tables.append(rows.assign(ood_set=name, title=name, role=ROLES.get(name, "far")))
    return pd.concat(tables, ignore_index=True)


SETS = {  # of alarms: their roles
    "ID test": "id",
    "darker": "degraded_id",
    "turned": "shifted_id",
    "JPEG": "shifted_id",
}


def alarms(called_ood: dict[str, list[float]], **about: object) -> pd.DataFrame:
    """Rows of arcface's own score: these shares called OOD by seed on each of `SETS`, half of it recalibrated."""
    rows = [
        dict(
            score="cosine",
            set=title,
            title=title,
            role=SETS[title],
            called_ood=value,
            recalibrated=value / 2,
            seed=s,
        )
        for title, values in called_ood.items()
        for s, value in enumerate(values)
    ]
    table = pd.DataFrame(rows).assign(head="arcface", outliers="none", own_score="cosine", accuracy=0.9)
    return pd.concat([table, table.assign(score="knn", called_ood=1.0)]).assign(**about)
