"""The comparison of kinds of outliers: resampling, intervals, and the choice."""

import numpy as np
import pandas as pd
import pytest

from oodlib.datasets.loading import ID_TEST
from oodlib.detection.metrics import auroc
from oodlib.errors import InputError
from oodlib.files import write_csv, write_json
from oodlib.presets import OUTLIERS
from oodlib.reports import study
from oodlib.runs import Run


def detector(shift, seed, correct=1.0):
    """Scores of 40 ID and 60 OOD images that lie `shift` apart, and that share of right answers."""
    own = np.random.default_rng(seed)
    return {
        ID_TEST: own.normal(shift, 1, 40),
        "letters": own.normal(0, 1, 60),
        "noise": own.normal(0, 1, 30),
        study.ACCURACY: np.arange(40) < correct * 40,
    }


def values(**shifts):
    return {("arcface", kind, s): detector(shift, s) for kind, shift in shifts.items() for s in range(5)}


def test_the_change_is_the_difference_of_the_means_over_seeds_and_sets():
    given = values(none=1.0, label_mixup=2.0)
    row = study.bootstrap_changes(given, draws=10).set_index("what").loc[study.MEAN]

    def mean(kind):
        return np.mean(
            [
                auroc(v[ID_TEST], v[name])
                for (_, k, _), v in given.items()
                if k == kind
                for name in ("letters", "noise")
            ]
        )

    assert row["none"] == pytest.approx(mean("none")) and row["exposed"] == pytest.approx(mean("label_mixup"))
    assert row["change"] == pytest.approx(mean("label_mixup") - mean("none"))


def test_the_interval_of_a_large_gain_excludes_0_and_of_a_large_loss_too():
    table = study.bootstrap_changes(values(none=1.0, label_mixup=3.0, real=0.0), draws=200)
    rows = table[table["what"] == study.MEAN].set_index("outliers")
    assert rows.loc["label_mixup", "low"] > 0 and rows.loc["real", "high"] < 0


def test_equal_detectors_differ_by_exactly_0_in_every_draw():
    rows = study.bootstrap_changes(values(none=1.0, label_mixup=1.0), draws=20)
    assert (rows[["change", "low", "high"]] == 0).all(axis=None)


def test_the_interval_widens_with_fewer_images():
    def width(images):
        few = {
            key: {name: v[:images] for name, v in sets.items()}
            for key, sets in values(none=1.0, label_mixup=1.5).items()
        }
        rows = study.bootstrap_changes(few, draws=300).set_index("what")
        return rows.loc["letters", "high"] - rows.loc["letters", "low"]

    assert width(8) > 1.5 * width(40)


def test_one_seed_has_no_interval_and_no_mark():
    given = {key: sets for key, sets in values(none=1.0, label_mixup=3.0).items() if key[2] == 0}
    table = study.bootstrap_changes(given, draws=20)
    assert table[["low", "high"]].isna().all(axis=None) and table["change"].notna().all()
    assert study.change_text(table).str.fullmatch(r"[+-]\d+\.\d").all()
    assert "gain" not in study.verdicts(table, "label_mixup")


def test_accuracy_is_compared_too():
    given = {
        ("arcface", kind, s): detector(1.0, s, correct)
        for kind, correct in (("none", 0.5), ("label_mixup", 0.75))
        for s in range(5)
    }
    row = study.bootstrap_changes(given, draws=50).set_index("what").loc[study.ACCURACY]
    assert row["none"] == 0.5 and row["change"] == pytest.approx(0.25)
    assert 0 < row["low"] < 0.25 < row["high"] < 0.5


def test_a_head_without_detectors_of_its_own_seeds_without_outliers_is_refused():
    with pytest.raises(InputError, match="arcface was not trained without outliers"):
        study.bootstrap_changes(values(label_mixup=1.0))


def changes():
    rows = [("softmax", 0.02, 0.01, 0.03), ("arcface", -0.02, -0.03, -0.01), ("cosface", 0.01, -0.01, 0.03)]
    table = pd.DataFrame(rows, columns=["head", "change", "low", "high"])
    return table.assign(outliers="real", what=study.MEAN, none=0.9, exposed=0.9 + table["change"])


def test_a_mark_stands_only_where_the_interval_excludes_0():
    assert list(study.change_text(changes())) == [
        "+2.0 [+1.0, +3.0] *",
        "-2.0 [-3.0, -1.0] *",
        "+1.0 [-1.0, +3.0]",
    ]


def test_the_words_say_who_gains_and_who_loses():
    said = study.verdicts(changes(), "real")
    expected = "gain: softmax +2.0; lose: arcface -2.0; are undecided: cosface +1.0."
    assert said == f"- **{study.MEAN}** · {expected}"


def test_no_candidate_needs_other_images_and_all_are_kinds_of_outliers():
    assert set(study.CANDIDATES) == {
        *("label_mixup", "impure_mixup", "distant_mixup", "weighted_mixup", "soft_mixup", "three_way_mixup"),
        *("mask_mixup", "weak_guidance", "strong_guidance"),
    }
    assert set(study.CANDIDATES) < set(OUTLIERS)


@pytest.fixture
def run(tmp_path):
    """Validation results of two heads and four kinds; `real` is best, and of the mixtures `soft_mixup`."""
    run = Run(str(tmp_path / "run"))
    aurocs = {"none": 0.8, "label_mixup": 0.7, "soft_mixup": 0.9, "real": 0.99}
    for head in ("softmax", "arcface"):
        for kind, value in aurocs.items():
            folder = run.detector(head, kind, 0)
            rows = [
                dict(score=score, ood_set=name, auroc=value - (score not in ("msp", "cosine")), head=head)
                for score in ("msp", "cosine", "energy")
                for name in ("chimera", "clouds")
            ]
            write_csv(folder / "validation.csv", pd.DataFrame(rows).assign(outliers=kind, seed=0))
            write_json(folder / "settings.json", {"settings": {}, "files": []})
    return run


def test_the_choice_is_the_best_candidate_by_own_scores_on_validation_outliers(run):
    table = study.by_validation(run)
    assert list(table.index) == ["real", "soft_mixup", "none", "label_mixup"]
    assert table.loc["soft_mixup", "mean"] == pytest.approx(0.9)
    assert study.chosen(table) == "soft_mixup"


def test_no_choice_without_candidates(run):
    with pytest.raises(InputError, match="no detector was trained with any of label_mixup"):
        study.chosen(study.by_validation(run).loc[["real", "none"]])


def test_class_names_that_look_like_numbers_are_compared_beside_a_denoiser_that_predicts_none(tmp_path):
    run = Run(str(tmp_path / "run"))
    for (head, kind), predicted in {
        ("softmax", "none"): ["0", "1", "1"],
        ("softmax", "label_mixup"): ["0", "1", "0"],
        ("denoiser", "none"): [np.nan] * 3,
    }.items():
        folder = run.detector(head, kind, 0)
        table = pd.DataFrame(
            {"set": [ID_TEST, ID_TEST, "letters"], "predicted": predicted, "msp": [0.9, 0.8, 0.1]}
        )
        write_csv(folder / "scores.csv", table.assign(head=head, outliers=kind, seed=0))
        write_json(folder / "settings.json", {"settings": {}, "files": []})
    found = study.test_values(run, np.array(["0", "2"]))
    assert list(found) == [("softmax", "none", 0), ("softmax", "label_mixup", 0)]
    assert all(list(values[study.ACCURACY]) == [True, False] for values in found.values())
