"""Rows of OpenOOD's leaderboard, for a run."""

import pandas as pd

from oodlib.datasets import openood
from oodlib.reports import leaderboard


def results(sets=tuple(openood.SETS)) -> pd.DataFrame:
    """Softmax without outliers and ArcFace with real ones, two seeds, two scores."""
    rows = [
        dict(head=head, outliers=outliers, seed=seed, score=score, ood_set=key, id_accuracy=0.9 + seed / 100,
             role=role, auroc=0.8 + seed / 10 if role == "near" else 0.95)
        for head, outliers in (("softmax", "none"), ("arcface", "real+degraded"))
        for seed in (0, 1)
        for score in ("msp", "knn")
        for key, role in openood.SETS.items()
        if key in sets
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_row_has_means_over_near_and_far_sets_and_their_spread_over_seeds():
    row = leaderboard.of_run(results(), "resnet18").iloc[0].to_dict()
    assert row == {
        "Training": "softmax",
        "Postprocessor": "MSP",
        "Near-OOD_AUROC": "85.00 ± 7.07",
        "Far-OOD_AUROC": "95.00 ± 0.00",
        "ID_Accuracy": "90.50 ± 0.71",
        "Outlier_Data": "No",
        "Arch": "resnet18",
        "Additional_Description": "",
    }


def test_there_is_a_row_for_each_training_and_score_and_real_outliers_are_told():
    board = leaderboard.of_run(results(), "resnet18")
    assert board[["Training", "Postprocessor", "Outlier_Data"]].to_numpy().tolist() == [
        ["softmax", "MSP", "No"],
        ["softmax", "KNN", "No"],
        ["ArcFace, real outliers, degraded", "MSP", "Yes"],
        ["ArcFace, real outliers, degraded", "KNN", "Yes"],
    ]


def test_without_one_of_the_sets_there_is_no_row():
    assert len(leaderboard.of_run(results(tuple(openood.SETS)[1:]), "resnet18")) == 0


def test_one_seed_has_no_spread():
    board = leaderboard.of_run(results().query("seed == 0"), "resnet18")
    assert board["Near-OOD_AUROC"].tolist() == ["80.00"] * 4
