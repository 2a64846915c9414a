"""Tables: what their rows and columns are."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from result_tables import denoiser_results, results, with_denoiser

from oodlib import datasets
from oodlib.datasets import EvaluationSet, Role
from oodlib.detection import metrics
from oodlib.detection.detector import Detector
from oodlib.detection.scores import SCORES
from oodlib.images import ImageSet
from oodlib.reports import tables
from oodlib.settings import DetectorModel


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return datasets.load("digits", "test")


@pytest.fixture(scope="module")
def scores(digits) -> pd.DataFrame:
    train, val = (datasets.load("digits", split) for split in ("train", "val"))
    detector = Detector(
        train.class_names, (8, 8, 1), [0.3], [0.4], DetectorModel(backbone="resnet_small", head="arcface")
    )
    detector.fit_scores(train.images, train.labels, val.images)
    letters = EvaluationSet("letters", "letters", Role.FAR, datasets.load("letters").images[:50], None, ())
    return tables.score_table([datasets.id_set(digits), letters], detector.classify, detector.class_names)


def test_the_score_table_has_a_row_for_each_image_and_a_column_for_each_score(scores):
    identity = ["set", "title", "role", "index", "label", "predicted", "correct"]
    assert list(scores.columns) == [*identity, *SCORES]
    assert scores["set"].value_counts().to_dict() == {"id_test": 361, "letters": 50}
    assert scores.groupby("set")["role"].unique().map(list).to_dict() == {
        "id_test": ["id"],
        "letters": ["far"],
    }
    assert set(scores["predicted"]) <= set("01234567")


def test_what_is_correct_is_known_of_labelled_images_alone(scores, digits):
    is_id = scores["set"] == "id_test"
    expected = scores.loc[is_id, "predicted"].to_numpy() == np.array(digits.class_names)[digits.labels]
    assert scores.loc[is_id, "correct"].tolist() == expected.tolist()
    assert scores.loc[~is_id, "correct"].isna().all()


def test_the_metric_table_compares_each_ood_set_with_the_id_test_set(scores):
    table = tables.metric_table(scores).set_index(["score", "ood_set"])
    id_test, letters = (scores.loc[scores["set"] == name, "energy"] for name in ("id_test", "letters"))
    assert table.index.tolist() == [(score, "letters") for score in SCORES]
    assert table.loc[("energy", "letters"), tables.METRICS].to_dict() == metrics.ood_metrics(id_test, letters)


def test_the_accuracy_of_a_metric_table_is_the_share_of_correct_id_images(scores):
    expected = scores.loc[scores["set"] == "id_test", "correct"].mean()
    assert 0 < expected < 1 and set(tables.metric_table(scores)["id_accuracy"]) == {expected}


def numbered(count: int, role: Role, labels: np.ndarray | None = None, key: str = "") -> EvaluationSet:
    """Images that consist of their number."""
    images = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)
    return EvaluationSet(key or role.value, f"the {role}", role, images, labels, ("cat", "dog"))


def number(images: np.ndarray) -> tuple[None, dict[str, np.ndarray]]:
    return None, {"number": images[:, 0, 0, 0].astype(float)}


@pytest.mark.parametrize("most, index", [(None, range(7)), (9, range(7)), (7, range(7)), (3, [0, 2, 4])])
def test_a_score_table_may_hold_an_even_choice_of_each_set(most, index):
    table = tables.score_table([numbered(7, Role.ID)], number, images_per_set=most)
    assert table["index"].tolist() == [*index] == table["number"].tolist()


def test_what_is_correct_is_said_by_name_of_the_images_that_were_chosen():
    labels = np.array([0, 0, 1, 1, 1, 0, 0])

    def all_dogs(images):
        return np.tile([0.9, 0.1], (len(images), 1)), {}

    table = tables.score_table([numbered(7, Role.ID, labels)], all_dogs, ["dog", "cat"], images_per_set=3)
    assert table["predicted"].tolist() == ["dog"] * 3 and table["correct"].tolist() == [False, True, True]


def test_what_does_not_classify_predicts_nothing_and_has_no_accuracy():
    table = tables.score_table([numbered(3, Role.ID, np.zeros(3, int)), numbered(2, Role.NEAR)], number)
    assert table[["predicted", "correct"]].isna().all(axis=None)
    assert np.isnan(tables.metric_table(table)["id_accuracy"]).all()


def test_shifted_id_images_are_no_ood_set():
    sets = [numbered(3, role) for role in Role]
    table = tables.metric_table(tables.score_table(sets, number))
    assert table["ood_set"].tolist() == ["near", "far", "noise", "validation"]
    assert table["title"].tolist() == ["the near", "the far", "the noise", "the validation"]
    assert table["role"].tolist() == ["near", "far", "noise", "validation"]
    assert set(table["auroc"]) == {0.5}


def test_every_column_that_identifies_nothing_is_a_score():
    sets = [numbered(3, Role.ID), numbered(3, Role.FAR)]
    table = tables.score_table(
        sets, lambda images: (None, {"new": number(images)[1]["number"], "a": np.ones(3)})
    )
    about = dict(preset="digits", head="new_head", outliers="none", seed=0, own_score="new")
    assert tables.metric_table(table.assign(**about))["score"].tolist() == ["new", "a"]


def shifted_scores() -> pd.DataFrame:
    """A score `number` from 0 up, and its negative, on four sets of other roles and sizes; two sets have labels."""
    sets = [
        numbered(4, Role.ID, np.array([0, 0, 1, 1])),
        numbered(5, Role.SHIFTED_ID, np.array([1, 0, 1, 0, 1])),
        numbered(6, Role.DEGRADED_ID, np.zeros(6, int)),
        numbered(7, Role.FAR),
    ]

    def classify(images):
        number = images[:, 0, 0, 0].astype(float)
        return np.tile([0.9, 0.1], (len(images), 1)), {"number": number, "negative": -number}

    return tables.score_table(sets, classify, ["cat", "dog"])


def test_the_alarm_table_says_of_every_set_what_share_is_below_the_threshold():
    table = tables.alarm_table(shifted_scores(), {"number": 2.0, "negative": -2.0})
    assert list(table) == ["score", "set", "title", "role", "images", "called_ood", "accuracy"]
    assert table["set"].tolist() == ["id", "shifted_id", "degraded_id", "far"] * 2 == table["role"].tolist()
    assert (
        table["title"].tolist()[:2] == ["the id", "the shifted_id"]
        and table["images"].tolist() == [4, 5, 6, 7] * 2
    )
    by_score = dict(tuple(table.groupby("score")["called_ood"]))
    assert by_score["number"].tolist() == [2 / 4, 2 / 5, 2 / 6, 2 / 7]  # 2 itself is accepted
    assert by_score["negative"].tolist() == [1 / 4, 2 / 5, 3 / 6, 4 / 7]
    np.testing.assert_array_equal(table["accuracy"], [0.5, 0.4, 1.0, np.nan] * 2)


def test_the_alarm_table_says_the_same_by_other_thresholds_and_of_scores_with_a_threshold_alone():
    table = tables.alarm_table(shifted_scores(), {"number": 2.0}, {"number": 4.0, "negative": 0.0})
    assert table["score"].unique().tolist() == ["number"]
    assert table["called_ood"].tolist() == [2 / 4, 2 / 5, 2 / 6, 2 / 7]
    assert table["recalibrated"].tolist() == [1, 4 / 5, 4 / 6, 4 / 7]


def test_an_image_without_a_score_is_an_alarm():
    scores = shifted_scores()
    scores.loc[3, "number"] = np.nan
    assert tables.alarm_table(scores, {"number": 1.0})["called_ood"].iloc[0] == 2 / 4


def test_tables_and_figures_need_no_torch():
    modules = ", ".join(f"oodlib.reports.{name}" for name in ("tables", "summary", "study", "plots"))
    code = f"import sys, {modules}; print({{'torch', 'diffusers'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_each_head_is_scored_by_its_own_score():
    table = results(none=[0.9])
    assert set(tables.by_own_score(table)["score"]) == {"cosine"}
    assert set(tables.by_own_score(table.assign(head="softmax", own_score="msp"))["score"]) == {"msp"}
    assert set(tables.by_own_score(denoiser_results())["score"]) == {"reconstruction"}


def test_the_own_scores_of_several_detectors_stand_in_one_column():
    table = pd.DataFrame(
        {"own_score": ["msp", "cosine", "msp"], "msp": [1.0, 2.0, 3.0], "cosine": [4.0, 5.0, 6.0]}
    )
    assert tables.with_own_score(table)["score"].tolist() == [1.0, 5.0, 3.0]


def test_the_metric_table_of_a_denoiser_has_its_scores():
    scores = pd.DataFrame({"set": ["id_test"] * 2 + ["letters"] * 2, "reconstruction": [3.0, 2.0, 1.0, 2.5]})
    scores = scores.assign(title=scores["set"], role=["id", "id", "far", "far"], correct=np.nan)
    table = tables.metric_table(scores.assign(inpainting=[0.0, 0.0, 0.0, 0.0]))
    assert table[["score", "auroc"]].to_numpy().tolist() == [["reconstruction", 0.75], ["inpainting", 0.5]]


def test_the_denoiser_stands_after_the_heads():
    table = tables.ordered(with_denoiser(none=[0.8], label_mixup=[0.9]).iloc[::-1])
    assert table["head"].unique().tolist() == ["arcface", "denoiser"]


def test_results_stand_in_the_usual_order():
    softmax = results(none=[0.7]).assign(head="softmax", own_score="msp")
    table = pd.concat([results(label_mixup=[0.9, 0.8]), softmax])
    ordered = tables.ordered(table.iloc[::-1])
    assert ordered["head"].unique().tolist() == ["softmax", "arcface"]
    assert ordered.query("head == 'arcface'")["seed"].unique().tolist() == [0, 1]


def test_a_head_and_a_source_without_a_name_come_last_in_the_order_they_came_in():
    table = pd.DataFrame({"head": ["zebra", "ape", "arcface", "zebra", "arcface"], "seed": 0})
    table["outliers"] = ["none", "none", "dust", "dust", "none"]
    ordered = tables.ordered(table)
    assert ordered["head"].tolist() == ["arcface", "arcface", "zebra", "zebra", "ape"]
    assert ordered["outliers"].tolist() == ["none", "dust", "none", "dust", "none"]


def test_what_was_done_to_images_comes_behind_all_that_was_trained_on_them_as_they_are():
    names = [
        "none",
        "cmg",
        "dust",
        "none+degraded",
        "cmg+degraded",
        "dust+degraded",
        "cmg+noise",
        "cmg+noise+degraded",
    ]
    table = pd.DataFrame({"head": "arcface", "seed": 0, "outliers": names[::-1]})
    assert tables.ordered(table)["outliers"].tolist() == names


def test_markdown_calls_heads_sources_and_columns_by_their_names():
    table = pd.DataFrame(
        {"head": ["arcface"], "outliers": ["none"], "ood_set": ["my_set"], "id_accuracy": ["99.0"]}
    )
    assert [line.replace(" ", "") for line in tables.markdown(table).splitlines()[::2]] == [
        "|head|outliers|OODset|accuracy|",
        "|ArcFace|nooutliers|my_set|99.0|",
    ]


def test_a_bar_in_a_name_ends_no_cell_of_markdown():
    text = tables.markdown(pd.DataFrame({"head": ["softmax"], "predicted": ["a|b"]}))
    assert r"a\|b" in text and all(line.replace(r"\|", "").count("|") == 3 for line in text.splitlines())


@pytest.mark.parametrize(
    "name, written",
    [
        ("a|b", r"a\|b"),
        ("$x$", r"\$x\$"),
        ("_y_", r"\_y\_"),
        ("my_set_2", "my_set_2"),
        ("a*<b>`", r"a\*\<b>\`"),
    ],
)
def test_markdown_shows_names_as_they_are_in_cells_and_columns(name, written):
    lines = tables.markdown(pd.DataFrame({"ood_set": [name], name: ["1"]})).splitlines()
    assert [lines[i].replace(" ", "") for i in (0, 2)] == [f"|OODset|{written}|", f"|{written}|1|"]


def test_markdown_leaves_markup_of_numbers():
    lines = tables.markdown(
        pd.DataFrame({"ood_set": ["a"], "softmax": ["**99.0** / <u>9</u> | *"]})
    ).splitlines()
    assert lines[2].endswith(r"| **99.0** / <u>9</u> \| * |")
