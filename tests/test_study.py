"""The study: conditions against their references, and the choice of a default."""

import io

import numpy as np
import pandas as pd
import pytest

from oodlib.detection.metrics import auroc
from oodlib.errors import InputError
from oodlib.files import read_csv, write_csv, write_json
from oodlib.reports import study, study_plots
from oodlib.reports.bootstrap import ALL_HEADS
from oodlib.runs import DENOISER, Run

OWN = {"softmax": "msp", "arcface": "cosine"}
# How far ID scores lie above OOD scores, by condition.
APART = {"none": 1.0, "placebo": 0.5, "label_mixup": 1.5, "none+degraded": 1.2, "label_mixup+degraded": 2.5}
ROLES = {"id_test": "id", "held_out": "near", "letters": "far", "uniform": "noise", "id_turned": "shifted_id"}


def write_detector(run: Run, head: str, outliers: str, seed: int, apart: float) -> None:
    """Scores, metrics, alarms and validation of a made-up detector."""
    random = np.random.default_rng([seed, list(OWN).index(head)])
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
    aurocs = dict(auroc=0.5 + apart / 10, auroc_degraded=0.4 + apart / 10)
    metrics = [dict(score=s, ood_set=k, title=k, role=r, **aurocs, id_accuracy=0.9)
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


def test_a_denoiser_that_was_scored_on_fewer_images_does_not_take_part(runs, tmp_path):
    run = Run(str(tmp_path / "study"))
    for outliers in ("none", "label_mixup"):
        write_detector(run, "softmax", outliers, 0, APART[outliers])
    expected = study.study_gains([run], study.tables([run], "metrics"))
    folder = run.detector(DENOISER, "none", 0)
    for path in run.detector("softmax", "none", 0).iterdir():
        text = path.read_text().replace("softmax,", f"{DENOISER},")
        (folder / path.name).parent.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_text(text)
    scores = read_csv(folder / "scores.csv")
    write_csv(folder / "scores.csv", scores[scores["index"] < 20])
    assert set(run.tables("metrics")["head"]) == {"softmax", DENOISER}
    assert set(study.tables([run], "metrics")["head"]) == {"softmax"}
    changes = study.study_gains([run], study.tables([run], "metrics"))
    pd.testing.assert_frame_equal(changes, expected)


def test_a_group_without_sets_has_an_empty_table_of_gains(changes):
    changes = changes[changes["set"] != "near sets"]
    assert study.gain_table(changes, "near sets").set_index("outliers").empty


def test_scores_are_held_against_knn_on_the_same_detectors(runs):
    gains = study.score_gains(runs, "none")
    assert set(gains["reference"]) == {"knn"} and set(gains["outliers"]) == {"msp", "cosine"}
    of_softmax = study.score_gains([runs[0]], "none").query(
        "head == 'softmax' and set == 'letters' and metric == 'auroc'"
    )
    of_seeds = [read_csv(runs[0].detector("softmax", "none", s) / "scores.csv") for s in range(3)]
    expected = [
        np.diff(
            [
                auroc(*(i.loc[i["set"] == key, score] for key in ("id_test", "letters")))
                for score in ("knn", "msp")
            ]
        )
        for i in of_seeds
    ]
    assert np.isclose(of_softmax["change"].iloc[0], np.mean(expected))
    assert "id_turned" not in set(gains["set"])


def test_the_table_of_scores_has_knn_first_and_stars_where_the_difference_is_certain(runs):
    gains = study.score_gains(runs, "none")
    table = study.score_table(gains, "natural sets")
    assert table.index[0] == "knn" and list(table) == ["softmax", "arcface", "against KNN"]
    msp = gains.query("head == 'softmax' and set == 'natural sets' and metric == 'auroc'").iloc[0]
    assert msp["high"] < 0 and table.loc["msp", "softmax"] == f"{100 * msp['value']:.1f} *"
    assert table.loc["knn", "softmax"] == f"{100 * msp['reference_value']:.1f}"
    assert table.loc["msp", "arcface"] == "" and table.loc["knn", "against KNN"] == ""


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


def test_no_choice_where_none_is_eligible_or_all_alarm_too_often(runs):
    table = study.by_validation(study.tables(runs, "validation"))
    assert study.best_condition(table, ["cmg"]) is None
    assert study.best_condition(table, ["label_mixup"]) is None and "label_mixup" in table.index


def test_one_head_stands_in_the_place_of_the_mean_over_heads(changes):
    alone = changes[changes["head"] == "arcface"]
    assert study.mean_over_heads(changes) == ALL_HEADS and study.mean_over_heads(alone) == "arcface"
    one, named = study.gain_table(alone, "near sets"), study.gain_table(changes, "near sets", head="arcface")
    assert one.equals(named) and not one.equals(study.gain_table(changes, "near sets"))


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


def test_auroc_and_alarms_have_a_row_for_each_condition_and_its_values(runs):
    overview = study.overview(study.tables(runs, "metrics"), study.tables(runs, "alarms"))
    figure = study_plots.auroc_and_alarms(overview, "label_mixup+degraded")
    named = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    bold = [text.get_text() for text in figure.axes[0].get_yticklabels() if text.get_fontweight() == "bold"]
    assert bold == ["label mixup, degraded"]
    assert figure.get_suptitle() == "False alarms: up to 10 %, with degraded images up to 10 %"
    assert set(named) == {
        "no outliers",
        "label mixup",
        "placebo",
        "no outliers, degraded",
        "label mixup, degraded",
    }
    for axes, column in zip(figure.axes, ("natural", "shifted ID called OOD"), strict=True):
        drawn = axes.collections[0].get_offsets().data[named.index("label mixup, degraded")]
        assert drawn[0] == pytest.approx(overview.loc["label_mixup+degraded", column])
    assert rendered(figure)
