"""Tables: what a number in the summary means."""

import numpy as np
import pandas as pd
import pytest

from oodlib import data, evaluation, metrics
from oodlib.detector import Detector
from oodlib.evaluation import COLUMNS
from oodlib.scores import SCORES


def results(**by_outliers: list[float]) -> pd.DataFrame:
    """Rows of arcface with these AUROCs by seed, the same on two OOD sets; scores not its own have 0.5."""

    def own(score: str, auroc: float) -> float:
        return auroc if score == "cosine" else 0.5

    return pd.DataFrame(
        [
            ["digits", "arcface", outliers, seed, score, ood_set, own(score, auroc), 0.8, 0.7, 0.2, 0.99]
            for outliers, aurocs in by_outliers.items()
            for seed, auroc in enumerate(aurocs)
            for score in SCORES
            for ood_set in ("letters", "uniform")
        ],
        columns=COLUMNS,
    )


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    train, val, test = (data.load("digits", split) for split in data.SPLITS)
    detector = Detector("resnet_small", "arcface", train.class_names, (8, 8, 1), [0.3], [0.4])
    detector.fit_scores(train.images, train.labels, val.images)
    return evaluation.score_table(
        detector, {"id_test": test.images, "letters": data.load("letters").images[:50]}
    )


def test_the_score_table_has_a_row_for_each_image_and_a_column_for_each_score(scores):
    assert list(scores.columns) == ["set", "index", "predicted", *SCORES]
    assert scores["set"].value_counts().to_dict() == {"id_test": 361, "letters": 50}
    assert set(scores["predicted"]) <= set("01234567")


def test_the_metric_table_compares_each_ood_set_with_the_id_test_set(scores):
    table = evaluation.metric_table(scores).set_index(["score", "ood_set"])
    id_test, letters = (scores.loc[scores["set"] == name, "energy"] for name in ("id_test", "letters"))
    assert table.index.tolist() == [(score, "letters") for score in SCORES]
    assert table.loc[("energy", "letters")].to_dict() == metrics.ood_metrics(id_test, letters)


def test_each_head_is_scored_by_its_own_score():
    table = results(none=[0.9])
    assert set(evaluation.own_score(table)["score"]) == {"cosine"}
    assert set(evaluation.own_score(table.assign(head="softmax"))["score"]) == {"msp"}


def test_results_stand_in_the_usual_order():
    table = pd.concat([results(label_mixup=[0.9, 0.8]), results(none=[0.7]).assign(head="softmax")])
    ordered = evaluation.ordered(table.iloc[::-1])
    assert ordered["head"].unique().tolist() == ["softmax", "arcface"]
    assert ordered.query("head == 'arcface'")["seed"].unique().tolist() == [0, 1]


def test_a_change_is_paired_by_seed_and_has_a_t_interval():
    table = results(none=[0.80, 0.90, 0.70], label_mixup=[0.81, 0.92, 0.73])
    change = evaluation.paired_change(evaluation.seed_means(table), ["auroc"], ["head"]).iloc[0]
    half = 4.302652729911275 * 0.01 / np.sqrt(3)  # t quantile at 2 degrees of freedom, sd of 0.01, 0.02, 0.03
    assert change["seeds"] == 3
    assert np.allclose(change[["change", "low", "high"]].astype(float), [0.02, 0.02 - half, 0.02 + half])


def test_seeds_that_only_one_side_has_are_left_out_of_a_change():
    table = results(none=[0.8, 0.9], label_mixup=[0.9])
    change = evaluation.paired_change(evaluation.seed_means(table), ["auroc"], ["head"]).iloc[0]
    assert change["seeds"] == 1 and np.isclose(change["change"], 0.1) and np.isnan(change["low"])


def test_without_a_partner_there_is_no_change():
    table = results(none=[0.8])
    assert evaluation.paired_change(evaluation.seed_means(table), ["auroc"], ["head"]).empty
    assert evaluation.change_table(table).empty


def test_the_summary_gives_mean_and_standard_deviation_in_percent():
    row = evaluation.summary_table(results(none=[0.8, 0.9])).iloc[0]
    assert row["AUROC"] == "85.0 ± 7.1" and row["accuracy"] == "99.0 ± 0.0"


def test_one_seed_has_no_spread():
    assert evaluation.summary_table(results(none=[0.8])).iloc[0]["AUROC"] == "80.0"


def test_the_papers_table_has_three_metrics_in_a_cell():
    table = evaluation.paper_table(results(none=[0.9, 0.8]))
    assert table["arcface"].tolist() == ["85.0 / 80.0 / 70.0"] * 2


def test_the_summary_is_written_whole(tmp_path):
    evaluation.write_summary(tmp_path / "summary.md", results(none=[0.8, 0.9], label_mixup=[0.9, 0.9]))
    text = (tmp_path / "summary.md").read_text()
    assert (
        text.startswith("# Results with the digits preset, 2 seeds")
        and "+5.0 [" in text
        and "85.0 / 80.0 / 70.0" in text
    )
