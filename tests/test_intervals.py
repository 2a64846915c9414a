"""What outliers change, and its intervals."""

import numpy as np
import pandas as pd
import pytest
from result_tables import results, with_denoiser

from oodlib.detection.metrics import auroc
from oodlib.errors import InputError
from oodlib.reports.intervals import MEAN, change_text, exposure_changes, interval_text, is_certain
from oodlib.reports.summary import change_table
from oodlib.reports.tables import metric_table


def no_scores() -> pd.DataFrame:
    raise AssertionError("scores of images are read below five seeds")


def mean_auroc(table: pd.DataFrame) -> pd.DataFrame:
    changes = exposure_changes(table, no_scores)
    return changes[(changes["ood_set"] == MEAN) & (changes["metric"] == "auroc")]


@pytest.mark.parametrize("trained", [{"none": [0.8]}, {"label_mixup": [0.9]}, {}])
def test_the_denoiser_is_no_partner_in_a_change(trained):
    table = with_denoiser(**trained)
    assert change_table(exposure_changes(table, no_scores)).empty
    assert len(exposure_changes(table, no_scores)) == 0


def test_a_change_is_the_same_with_the_denoiser_beside_it():
    trained = {"none": [0.80, 0.90], "label_mixup": [0.81, 0.92]}
    assert exposure_changes(with_denoiser(**trained), no_scores).equals(
        exposure_changes(results(**trained), no_scores)
    )


def test_a_change_is_paired_by_seed_and_has_a_t_interval():
    table = results(none=[0.80, 0.90, 0.70], label_mixup=[0.81, 0.92, 0.73])
    change = mean_auroc(table).iloc[0]
    half = 4.302652729911275 * 0.01 / np.sqrt(3)  # t quantile at 2 degrees of freedom, sd of 0.01, 0.02, 0.03
    assert change["seeds"] == 3
    assert np.allclose(change[["change", "low", "high"]].astype(float), [0.02, 0.02 - half, 0.02 + half])


def test_each_kind_of_outliers_has_its_own_change():
    table = results(none=[0.8, 0.9], label_mixup=[0.7, 0.8], real=[0.9, 1.0])
    changes = mean_auroc(table)
    assert dict(zip(changes["outliers"], changes["change"].round(6), strict=True)) == {
        "label_mixup": -0.1,
        "real": 0.1,
    }
    assert change_table(exposure_changes(table, no_scores))["outliers"].tolist() == ["label_mixup", "real"]


def test_seeds_that_only_one_side_has_are_left_out_of_a_change():
    table = results(none=[0.8, 0.9], label_mixup=[0.9])
    change = mean_auroc(table).iloc[0]
    assert change["seeds"] == 1 and np.isclose(change["change"], 0.1) and np.isnan(change["low"])


def test_without_a_partner_there_is_no_change():
    table = results(none=[0.8])
    assert mean_auroc(table).empty
    assert change_table(exposure_changes(table, no_scores)).empty


def detector(shift: float, seed: int, correct: float = 1.0) -> pd.DataFrame:
    """Scores of 40 ID and 60 and 30 OOD images that lie `shift` apart, and that share of right answers."""
    own = np.random.default_rng(seed)
    drawn = {
        "id_test": own.normal(shift, 1, 40),
        "letters": own.normal(0, 1, 60),
        "noise": own.normal(0, 1, 30),
    }
    roles = {"id_test": "id", "letters": "far", "noise": "noise"}
    table = pd.concat(
        pd.DataFrame({"set": key, "title": key, "role": roles[key], "index": np.arange(len(v)), "cosine": v})
        for key, v in drawn.items()
    )
    right = pd.Series(np.arange(40) < correct * 40, dtype="boolean")
    return table.assign(seed=seed, own_score="cosine", correct=[*right, *[pd.NA] * 90])


def scored(count: int = 5, correct: float = 1.0, **shifts: float) -> pd.DataFrame:
    """Scores of arcface on these seeds, by kind of outliers."""
    return pd.concat(
        detector(shift, seed, correct).assign(head="arcface", outliers=kind)
        for kind, shift in shifts.items()
        for seed in range(count)
    )


def measured(scores: pd.DataFrame) -> pd.DataFrame:
    keys = ["head", "outliers", "seed", "own_score"]
    return pd.concat(
        metric_table(rows).assign(**dict(zip(keys, key, strict=True)))
        for key, rows in scores.groupby(keys, sort=False)
    )


def changes(scores: pd.DataFrame, draws: int = 1000) -> pd.DataFrame:
    return exposure_changes(measured(scores), lambda: scores, draws)


def of_mean(table: pd.DataFrame, metric: str = "auroc") -> pd.DataFrame:
    return table[(table["ood_set"] == MEAN) & (table["metric"] == metric)].set_index("outliers")


def test_the_change_is_the_difference_of_the_means_over_seeds_and_sets():
    scores = scored(none=1.0, label_mixup=2.0)
    row = of_mean(changes(scores, 10)).loc["label_mixup"]

    def mean(kind):
        aurocs = []
        for _, rows in scores[scores["outliers"] == kind].groupby("seed"):
            by_set = dict(tuple(rows.groupby("set")["cosine"]))
            aurocs += [auroc(by_set["id_test"], by_set[name]) for name in ("letters", "noise")]
        return np.mean(aurocs)

    assert row["none"] == pytest.approx(mean("none")) and row["exposed"] == pytest.approx(mean("label_mixup"))
    assert row["change"] == pytest.approx(mean("label_mixup") - mean("none"))


def test_the_interval_of_a_large_gain_excludes_0_and_of_a_large_loss_too():
    rows = of_mean(changes(scored(none=1.0, label_mixup=3.0, real=0.0), 200))
    assert rows.loc["label_mixup", "low"] > 0 and rows.loc["real", "high"] < 0
    assert is_certain(rows).all()


def test_equal_detectors_differ_by_exactly_0_in_every_draw():
    rows = changes(scored(none=1.0, label_mixup=1.0), 20)
    assert (rows[["change", "low", "high"]] == 0).all(axis=None)


def test_the_interval_widens_with_fewer_images():
    def width(images):
        scores = scored(none=1.0, label_mixup=1.5)
        rows = changes(scores[scores["index"] < images], 300).set_index(["ood_set", "metric"])
        return rows.loc[("letters", "auroc"), "high"] - rows.loc[("letters", "auroc"), "low"]

    assert width(8) > 1.5 * width(40)


def test_one_seed_has_no_interval_and_no_mark():
    table = changes(scored(1, none=1.0, label_mixup=3.0))
    assert table[["low", "high"]].isna().all(axis=None) and table["change"].notna().all()
    assert change_text(table).str.fullmatch(r"[+-]\d+\.\d").all()
    assert interval_text(table) == "no interval from 1 seed"


def test_accuracy_is_compared_too():
    scores = pd.concat([scored(correct=0.5, none=1.0), scored(correct=0.75, label_mixup=1.0)])
    row = of_mean(changes(scores, 50), "id_accuracy").loc["label_mixup"]
    assert row["none"] == 0.5 and row["change"] == pytest.approx(0.25)
    assert 0 < row["low"] < 0.25 < row["high"] < 0.5


def test_below_five_seeds_the_interval_is_that_of_t_and_from_five_on_a_bootstrap():
    scores = scored(none=1.0, label_mixup=1.5)
    four = exposure_changes(measured(scores[scores["seed"] < 4]), no_scores)
    assert interval_text(four) == "95 % t interval over 4 seeds"
    five = changes(scores, 20)
    assert interval_text(five[five["metric"] == "auroc"]) == "95 % bootstrap interval over 5 seeds and images"
    assert interval_text(five) == (
        "95 % bootstrap interval over 5 seeds and images (AUROC, accuracy); "
        "95 % t interval over 5 seeds (AUPR-In, AUPR-Out, FPR95)"
    )


def test_a_source_on_fewer_seeds_is_compared_on_those_alone():
    scores = scored(none=1.0, label_mixup=1.5, real=2.0)
    rows = of_mean(changes(scores[(scores["outliers"] != "real") | (scores["seed"] < 3)], 20))
    assert rows["seeds"].to_dict() == {"label_mixup": 5, "real": 3}
    assert rows.loc["real", "interval"] == "95 % t interval over 3 seeds"


def test_detectors_tested_on_different_images_are_not_compared_by_image():
    scores = scored(none=1.0, label_mixup=1.5)
    other = (scores["outliers"] == "label_mixup") & (scores["index"] == 59)
    with pytest.raises(InputError, match=r"arcface with label_mixup, seed 0, was tested on .*'letters': 59"):
        changes(scores[~other], 20)


def test_shifted_id_images_change_nothing():
    scores = scored(none=1.0, label_mixup=1.5)
    shifted = scores[scores["role"] == "id"].assign(set="blurred", role="shifted_id", cosine=0.0)
    assert changes(pd.concat([scores, shifted]), 20).equals(changes(scores, 20))


def test_a_mark_stands_only_where_the_interval_excludes_0():
    table = pd.DataFrame(
        {"change": [0.02, -0.02, 0.01], "low": [0.01, -0.03, -0.01], "high": [0.03, -0.01, 0.03]}
    )
    assert list(change_text(table)) == ["+2.0 [+1.0, +3.0] *", "-2.0 [-3.0, -1.0] *", "+1.0 [-1.0, +3.0]"]
