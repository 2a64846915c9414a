"""The comparison of sources of outliers, and the choice."""

import pandas as pd
import pytest
from result_tables import results

from oodlib.errors import InputError
from oodlib.files import write_csv, write_json
from oodlib.reports import study
from oodlib.reports.intervals import MEAN, exposure_changes
from oodlib.runs import Run


def test_a_head_without_detectors_of_its_own_seeds_without_outliers_is_refused():
    with pytest.raises(InputError, match="arcface was not trained without outliers"):
        study.study_changes(results(label_mixup=[0.8]), pd.DataFrame)


def changes():
    rows = [("softmax", 0.02, 0.01, 0.03), ("arcface", -0.02, -0.03, -0.01), ("cosface", 0.01, -0.01, 0.03)]
    table = pd.DataFrame(rows, columns=["head", "change", "low", "high"])
    return table.assign(outliers="real", title=MEAN, metric="auroc", none=0.9, exposed=0.9 + table["change"])


def test_the_words_say_who_gains_and_who_loses():
    said = study.verdicts(changes(), "real")
    expected = "gain: softmax +2.0; lose: ArcFace -2.0; are undecided: CosFace +1.0."
    assert said == f"- **{MEAN}** · {expected}"


@pytest.fixture
def run(tmp_path):
    """Validation results of two heads and four kinds; `real` is best, and of the mixtures `soft_mixup`."""
    run = Run(str(tmp_path / "run"))
    aurocs = {"none": 0.8, "label_mixup": 0.7, "soft_mixup": 0.9, "real": 0.99}
    own = {"softmax": "msp", "arcface": "cosine"}
    for head in own:
        for kind, value in aurocs.items():
            folder = run.detector(head, kind, 0)
            rows = [
                dict(score=score, ood_set=name, auroc=value - (score != own[head]), head=head)
                for score in ("msp", "cosine", "energy")
                for name in ("chimera", "clouds")
            ]
            table = pd.DataFrame(rows).assign(outliers=kind, seed=0, own_score=own[head])
            write_csv(folder / "validation.csv", table)
            write_json(folder / "scored.json", {"settings": {}, "files": {}})
    return run


def test_the_choice_is_the_best_candidate_by_own_scores_on_validation_outliers(run):
    table = study.by_validation(run.tables("validation"))
    assert list(table.index) == ["real", "soft_mixup", "none", "label_mixup"]
    assert table.loc["soft_mixup", "mean"] == pytest.approx(0.9)
    assert study.best_source(table, ["label_mixup", "soft_mixup"]) == "soft_mixup"


def test_no_choice_without_candidates(run):
    with pytest.raises(InputError, match="no detector was trained with any of three_way_mixup, cmg"):
        study.best_source(study.by_validation(run.tables("validation")), ["three_way_mixup", "cmg"])


def test_the_study_is_written_whole(tmp_path, run):
    validation = study.by_validation(run.tables("validation"))
    table = exposure_changes(results(none=[0.8, 0.9], soft_mixup=[0.9, 0.9]), pd.DataFrame)
    study.write_study(tmp_path / "study.md", validation, table, "soft_mixup")
    text = (tmp_path / "study.md").read_text()
    assert text.startswith("# Which outliers? 2 seeds") and "of label mixtures is soft_mixup:" in text
    assert text.count("95 % t interval over 2 seeds") == 2
    assert "| soft mixup | +5.0 [" in text


def test_class_names_that_look_like_numbers_are_read_beside_a_denoiser_that_predicts_none(tmp_path):
    run = Run(str(tmp_path / "run"))
    for head, predicted, correct in (
        ("softmax", ["007", "1", "1"], [True, False, None]),
        ("denoiser", [None] * 3, [None] * 3),
    ):
        table = pd.DataFrame(
            {"set": ["id_test", "id_test", "NA"], "predicted": predicted, "correct": correct}
        )
        write_csv(
            run.detector(head, "none", 0) / "scores.csv", table.assign(head=head, outliers="none", seed=0)
        )
        write_json(run.detector(head, "none", 0) / "scored.json", {"settings": {}, "files": {}})
    scores = run.tables("scores").set_index("head")
    assert scores.loc["softmax", "predicted"].tolist() == ["007", "1", "1"]
    assert scores.loc["softmax", "correct"].mean() == 0.5
    assert scores["set"].tolist() == ["id_test", "id_test", "NA"] * 2
    assert scores.loc["denoiser", ["predicted", "correct"]].isna().all(axis=None)
