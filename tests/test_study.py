"""The study: conditions against their references, and the choice of a default."""

import io

import numpy as np
import pandas as pd
import pytest

from oodlib import datasets
from oodlib.detection.detector import Detector
from oodlib.errors import InputError
from oodlib.files import write_csv, write_json
from oodlib.reports import study, study_plots
from oodlib.reports.bootstrap import ALL_HEADS
from oodlib.runs import Run

OWN = {"softmax": "msp", "arcface": "cosine"}
# How far ID scores lie above OOD scores, by condition.
APART = {"none": 1.0, "placebo": 0.5, "label_mixup": 1.5, "none+degraded": 1.2, "label_mixup+degraded": 2.5}
ROLES = {"id_test": "id", "held_out": "near", "letters": "far", "uniform": "noise", "id_turned": "shifted_id"}


def write_detector(run: Run, head: str, outliers: str, seed: int, apart: float) -> None:
    """Scores, metrics, alarms and validation of a made-up detector."""
    random = np.random.default_rng(seed)
    own = OWN[head]
    sets = [
        pd.DataFrame(
            {"set": key, "title": key, "role": role, "index": range(40), own: random.normal(size=40)}
        )
        for key, role in ROLES.items()
    ]
    scores = pd.concat(sets, ignore_index=True)
    is_id = scores["role"].isin(["id", "shifted_id"])
    scores[own] += apart * is_id
    scores["knn"] = scores[own] + 2 * is_id
    scores["correct"] = pd.Series(np.where(is_id, True, None), dtype="boolean")
    about = dict(preset="digits", head=head, outliers=outliers, seed=seed, own_score=own)
    folder = run.detector(head, outliers, seed)
    write_csv(folder / "scores.csv", scores.assign(**about))
    write_json(folder / "scores.json", {"thresholds": {own: apart - 1.5, "knn": apart + 0.5}})
    rows = [
        dict(score=s, ood_set=n, title=n, role="validation", auroc=0.5 + apart / 10)
        for s in (own, "knn")
        for n in "ab"
    ]
    false_alarms = 0.3 if outliers == "label_mixup" else 0.05
    write_csv(folder / "validation.csv", pd.DataFrame(rows).assign(false_alarms=false_alarms, **about))
    metrics = [dict(score=s, ood_set=k, title=k, role=r, auroc=0.5 + apart / 10, id_accuracy=0.9)
               for s in (own, "knn") for k, r in ROLES.items() if r in ("near", "far", "noise")]  # fmt: skip
    write_csv(folder / "metrics.csv", pd.DataFrame(metrics).assign(**about))
    alarms = [dict(score=s, set=k, title=k, role=r, called_ood=0.1, accuracy=0.9)
              for s in (own, "knn") for k, r in ROLES.items() if r in ("id", "shifted_id")]  # fmt: skip
    write_csv(folder / "alarms.csv", pd.DataFrame(alarms).assign(**about))
    write_json(folder / "scored.json", {"settings": {}, "files": {}})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with five conditions on two heads and three seeds, and one that repeats three with another denoiser."""
    root = tmp_path_factory.mktemp("runs")
    first, second = Run(str(root / "study")), Run(str(root / "study-1"))
    for head in OWN:
        for seed in range(3):
            for outliers, apart in APART.items():
                write_detector(first, head, outliers, seed, apart)
                if not outliers.startswith("none"):
                    write_detector(second, head, outliers, seed, apart + 0.2)
    return study.replicates(first)


@pytest.fixture(scope="module")
def changes(runs):
    return study.study_gains(runs, study.tables(runs, "metrics"))


def test_runs_that_repeat_a_part_with_another_denoiser_are_found(runs):
    assert [run.folder.name for run in runs] == ["study", "study-1"]
    assert study.tables(runs, "metrics").groupby("denoiser")["outliers"].nunique().to_dict() == {0: 5, 1: 3}


def test_each_condition_is_compared_with_each_of_its_references_that_was_trained(runs):
    pairs = study.comparisons(study.tables(runs, "metrics"))
    assert {(o, r) for head, o, r in pairs if head == "arcface"} == {
        ("none+degraded", "none"),
        ("placebo", "none"),
        ("label_mixup", "none"),
        ("label_mixup", "placebo"),
        ("label_mixup+degraded", "none"),
        ("label_mixup+degraded", "none+degraded"),
    }


def test_gains_are_those_of_the_own_scores_over_denoisers_and_seeds(changes):
    row = changes.query(
        "head == 'arcface' and outliers == 'label_mixup' and reference == 'placebo' and metric == 'auroc' "
        "and set == 'natural sets'"
    ).iloc[0]
    assert (row["denoisers"], row["seeds"]) == (2, 3)
    assert row["change"] > 0.1 and row["low"] > 0


def test_a_condition_without_a_denoiser_is_the_same_beside_each(changes):
    rows = changes.query("outliers == 'label_mixup' and reference == 'none' and set == 'natural sets'")
    assert set(rows["denoisers"]) == {2} and set(rows["head"]) == {*OWN, ALL_HEADS}


def test_gains_by_knn_are_others(runs, changes):
    by_knn = study.study_gains(runs, study.tables(runs, "metrics"), study.KNN)
    of = "head == 'arcface' and outliers == 'none+degraded' and set == 'natural sets' and metric == 'auroc'"
    assert by_knn.query(of)["value"].item() > changes.query(of)["value"].item()


def test_without_detectors_trained_without_outliers_nothing_is_compared(runs):
    results = study.tables(runs, "metrics")
    with pytest.raises(
        InputError, match="no detector was trained without outliers; train some with notebook 3"
    ):
        study.study_gains(runs, results[results["outliers"] == "placebo"])


def test_the_overview_has_a_row_for_each_condition_none_first(runs):
    table = study.overview(study.tables(runs, "metrics"), study.tables(runs, "alarms"))
    assert list(table.index) == ["none", "label_mixup", "placebo", "none+degraded", "label_mixup+degraded"]
    assert table.loc["none", "natural"] == pytest.approx(60) and table.loc[
        "none", "natural, KNN"
    ] == pytest.approx(60)
    assert table.loc["label_mixup", "near"] == pytest.approx((65 + 67) / 2)
    assert table.loc["none", "shifted ID called OOD"] == pytest.approx(10)


def test_a_table_of_gains_has_a_column_for_each_reference(changes):
    table = study.gain_table(changes, "near sets").set_index("outliers")
    assert list(table.columns) == ["against none", "against placebo", "against degraded"]
    assert (
        table.loc["none+degraded", "against placebo"] == ""
        and "[" in table.loc["label_mixup", "against placebo"]
    )


def test_the_choice_is_the_best_with_few_false_alarms_on_validation_images(runs):
    table = study.by_validation(study.tables(runs, "validation"))
    assert table.index[0] == "label_mixup+degraded" and table.loc["label_mixup", "false_alarms"] == 0.3
    assert study.best_condition(table, ["label_mixup", "placebo"]) == "placebo"  # the first alarms too often
    assert study.best_condition(table, ["label_mixup", "placebo"], most_alarms=0.5) == "label_mixup"


def test_no_choice_without_candidates(runs):
    table = study.by_validation(study.tables(runs, "validation"))
    with pytest.raises(InputError, match="none of cmg was trained and has at most 10% false alarms"):
        study.best_condition(table, ["cmg"])


def test_the_study_is_written_whole(tmp_path, runs, changes):
    overview = study.overview(study.tables(runs, "metrics"), study.tables(runs, "alarms"))
    study.write_study(
        tmp_path / "study.md", overview, study.by_validation(study.tables(runs, "validation")), changes
    )
    text = (tmp_path / "study.md").read_text()
    assert text.startswith("# What do outliers teach? 2 denoisers, 3 seeds")
    assert "Change of share called OOD on shifted ID images" in text and "label mixup, degraded" in text


def rendered(figure) -> bool:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return len(buffer.getvalue()) > 1000


def test_the_placebo_map_has_a_panel_for_each_condition_and_counts_points_above_the_diagonal(changes):
    figure = study_plots.placebo_map(changes, ["label_mixup"], "title")
    assert [axes.get_title() for axes in figure.axes] == ["label mixup\nabove the diagonal: 4 of 4"]
    assert rendered(figure)


def test_gain_against_alarms_has_a_point_for_each_condition(changes):
    figure = study_plots.gain_against_alarms(changes, "title")
    named = {text.get_text() for text in figure.axes[0].texts}
    assert named == {
        "no outliers",
        "label mixup",
        "placebo",
        "no outliers, degraded",
        "label mixup, degraded",
    }
    assert rendered(figure)


def test_a_sealed_set_is_scored_by_the_detectors_of_the_chosen_conditions(tmp_path):
    run = Run(str(tmp_path / "run"))
    write_detector(run, "softmax", "none", 0, 1.0)
    write_detector(run, "softmax", "placebo", 0, 1.0)
    splits = datasets.id_splits(datasets.loading.Data())
    detector = Detector(splits.train.class_names, (8, 8, 1), [0.3], [0.4]).eval()
    detector.fit_scores(splits.train.images, splits.train.labels, splits.val.images)
    detector.save(run.detector("softmax", "none", 0))
    table = study.sealed_auroc([run], ["none"], "scripts")
    assert table.index.tolist() == [("own", "none"), ("knn", "none")] and list(table.columns) == ["softmax"]
    assert table.to_numpy().min() >= 0 and table.to_numpy().max() <= 100
