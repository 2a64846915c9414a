"""Tables: what a number in the summary means."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from oodlib import datasets
from oodlib.datasets import published
from oodlib.detection import metrics
from oodlib.detection.detector import Detector
from oodlib.presets import DENOISER_SCORES, SCORES
from oodlib.reports import tables
from oodlib.reports.tables import COLUMNS


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
    train, val, test = (datasets.load("digits", split) for split in datasets.SPLITS)
    detector = Detector("resnet_small", "arcface", train.class_names, (8, 8, 1), [0.3], [0.4])
    detector.fit_scores(train.images, train.labels, val.images)
    return tables.score_table(
        detector, {"id_test": test.images, "letters": datasets.load("letters").images[:50]}
    )


def test_the_score_table_has_a_row_for_each_image_and_a_column_for_each_score(scores):
    assert list(scores.columns) == ["set", "index", "predicted", *SCORES]
    assert scores["set"].value_counts().to_dict() == {"id_test": 361, "letters": 50}
    assert set(scores["predicted"]) <= set("01234567")


def test_the_metric_table_compares_each_ood_set_with_the_id_test_set(scores):
    table = tables.metric_table(scores).set_index(["score", "ood_set"])
    id_test, letters = (scores.loc[scores["set"] == name, "energy"] for name in ("id_test", "letters"))
    assert table.index.tolist() == [(score, "letters") for score in SCORES]
    assert table.loc[("energy", "letters")].to_dict() == metrics.ood_metrics(id_test, letters)


def test_tables_and_figures_need_no_torch():
    modules = "oodlib.reports.tables, oodlib.reports.study, oodlib.reports.plots"
    code = f"import sys, {modules}; print({{'torch', 'diffusers'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_each_head_is_scored_by_its_own_score():
    table = results(none=[0.9])
    assert set(tables.own_score(table)["score"]) == {"cosine"}
    assert set(tables.own_score(table.assign(head="softmax"))["score"]) == {"msp"}


def denoiser_results(reconstruction: float = 0.9) -> pd.DataFrame:
    """Rows of the denoiser's scores: one seed, no outliers, no accuracy."""
    table = results(none=[reconstruction]).query("score in ('cosine', 'msp')")
    score = table["score"].map({"cosine": "reconstruction", "msp": "inpainting"})
    return table.assign(head="denoiser", score=score, id_accuracy=np.nan)


def with_denoiser(**by_outliers: list[float]) -> pd.DataFrame:
    return pd.concat([results(**by_outliers), denoiser_results()], ignore_index=True)


def test_the_denoisers_own_score_is_its_reconstruction():
    assert set(tables.own_score(denoiser_results())["score"]) == {"reconstruction"}
    assert set(tables.OWN_SCORE.values()) <= {*SCORES, *DENOISER_SCORES}


def test_the_metric_table_of_a_denoiser_has_its_scores():
    scores = pd.DataFrame({"set": ["id_test"] * 2 + ["letters"] * 2, "reconstruction": [3.0, 2.0, 1.0, 2.5]})
    table = tables.metric_table(scores.assign(inpainting=[0.0, 0.0, 0.0, 0.0]))
    assert table[["score", "auroc"]].to_numpy().tolist() == [["reconstruction", 0.75], ["inpainting", 0.5]]


def test_the_denoiser_stands_after_the_heads():
    table = tables.ordered(with_denoiser(none=[0.8], label_mixup=[0.9]).iloc[::-1])
    assert table["head"].unique().tolist() == ["arcface", "denoiser"]


def test_the_denoiser_has_a_row_in_the_summary_and_a_dash_for_accuracy():
    rows = tables.summary_table(with_denoiser(none=[0.8], label_mixup=[0.9])).set_index("head")
    assert rows.loc["denoiser", ["AUROC", "accuracy"]].tolist() == ["90.0", "–"]
    groups = tables.group_table(with_denoiser(none=[0.8]))
    assert groups.set_index("head").loc["denoiser", "all (2)"] == "90.0"


def test_the_denoiser_has_a_column_in_the_papers_table_and_empty_cells_with_outliers():
    table = tables.paper_table(with_denoiser(none=[0.8], label_mixup=[0.95]))
    rows = table.set_index(["ood_set", "outliers"])["denoiser"]
    assert rows[("letters", "none")] == "**90.0** / 80.0 / 70.0" and rows[("letters", "label_mixup")] == ""


@pytest.mark.parametrize("trained", [{"none": [0.8]}, {"label_mixup": [0.9]}, {}])
def test_the_denoiser_is_no_partner_in_a_change(trained):
    table = with_denoiser(**trained)
    assert tables.change_table(table).empty
    assert tables.paired_change(tables.own_score(table), ["auroc"], ["head", "ood_set"]).empty


def test_a_change_is_the_same_with_the_denoiser_beside_it():
    trained = {"none": [0.80, 0.90], "label_mixup": [0.81, 0.92]}
    assert tables.change_table(with_denoiser(**trained)).equals(tables.change_table(results(**trained)))


@pytest.mark.parametrize("trained", [{"none": [0.8], "label_mixup": [0.9]}, {"label_mixup": [0.9]}])
def test_no_cell_of_the_summary_says_nan(tmp_path, trained):
    tables.write_summary(tmp_path / "summary.md", with_denoiser(**trained))
    assert "nan" not in (tmp_path / "summary.md").read_text().lower()


def test_results_stand_in_the_usual_order():
    table = pd.concat([results(label_mixup=[0.9, 0.8]), results(none=[0.7]).assign(head="softmax")])
    ordered = tables.ordered(table.iloc[::-1])
    assert ordered["head"].unique().tolist() == ["softmax", "arcface"]
    assert ordered.query("head == 'arcface'")["seed"].unique().tolist() == [0, 1]


def test_a_change_is_paired_by_seed_and_has_a_t_interval():
    table = results(none=[0.80, 0.90, 0.70], label_mixup=[0.81, 0.92, 0.73])
    change = tables.paired_change(tables.seed_means(table), ["auroc"], ["head"]).iloc[0]
    half = 4.302652729911275 * 0.01 / np.sqrt(3)  # t quantile at 2 degrees of freedom, sd of 0.01, 0.02, 0.03
    assert change["seeds"] == 3
    assert np.allclose(change[["change", "low", "high"]].astype(float), [0.02, 0.02 - half, 0.02 + half])


def test_each_kind_of_outliers_has_its_own_change():
    table = results(none=[0.8, 0.9], label_mixup=[0.7, 0.8], real=[0.9, 1.0])
    changes = tables.paired_change(tables.seed_means(table), ["auroc"], ["head"])
    assert dict(zip(changes["outliers"], changes["change"].round(6), strict=True)) == {
        "label_mixup": -0.1,
        "real": 0.1,
    }
    assert tables.change_table(table)["outliers"].tolist() == ["label_mixup", "real"]


def test_seeds_that_only_one_side_has_are_left_out_of_a_change():
    table = results(none=[0.8, 0.9], label_mixup=[0.9])
    change = tables.paired_change(tables.seed_means(table), ["auroc"], ["head"]).iloc[0]
    assert change["seeds"] == 1 and np.isclose(change["change"], 0.1) and np.isnan(change["low"])


def test_without_a_partner_there_is_no_change():
    table = results(none=[0.8])
    assert tables.paired_change(tables.seed_means(table), ["auroc"], ["head"]).empty
    assert tables.change_table(table).empty


def test_the_summary_gives_mean_and_standard_deviation_in_percent():
    row = tables.summary_table(results(none=[0.8, 0.9])).iloc[0]
    assert row["AUROC"] == "85.0 ± 7.1" and row["accuracy"] == "99.0 ± 0.0"


def test_one_seed_has_no_spread():
    assert tables.summary_table(results(none=[0.8])).iloc[0]["AUROC"] == "80.0"


def test_the_papers_table_has_three_metrics_in_a_cell():
    table = tables.paper_table(results(none=[0.9, 0.8]))
    assert table["arcface"].tolist() == ["85.0 / 80.0 / 70.0"] * 2


def heads(**aurocs: float) -> pd.DataFrame:
    """Rows of these heads with these AUROCs, one seed, without outliers."""
    tables = [results(none=[auroc]).assign(head=head) for head, auroc in aurocs.items()]
    return pd.concat(tables, ignore_index=True)


def first_row(table: pd.DataFrame) -> list[str]:
    return tables.paper_table(table).iloc[0, 2:].tolist()


def test_the_best_auroc_of_a_row_is_bold_and_the_second_best_underlined():
    table = heads(arcface=0.91, cosface=0.93, adacos=0.92)
    assert first_row(table) == ["91.0 / 80.0 / 70.0", "**93.0** / 80.0 / 70.0", "<u>92.0</u> / 80.0 / 70.0"]


def test_heads_that_show_the_same_number_share_a_place():
    table = heads(arcface=0.93001, cosface=0.93, adacos=0.92004, sphereface=0.92, scaled_cosine=0.8)
    assert [cell.split(" / ")[0] for cell in first_row(table)] == [
        *("**93.0**", "**93.0**", "<u>92.0</u>", "<u>92.0</u>", "80.0")
    ]


def test_each_row_of_the_papers_table_has_marks_of_its_own():
    table = heads(arcface=0.91, cosface=0.93)
    worse = table["ood_set"].eq("uniform") & table["head"].eq("cosface")
    table.loc[worse, "auroc"] = 0.5
    assert tables.paper_table(table)["arcface"].str.split(" / ").str[0].tolist() == [
        *("<u>91.0</u>", "**91.0**")
    ]


def test_a_head_alone_in_its_row_has_no_mark():
    table = pd.concat([heads(arcface=0.91, cosface=0.93), results(label_mixup=[0.9])])
    rows = tables.paper_table(table).set_index(["ood_set", "outliers"])
    assert rows.loc[("letters", "label_mixup"), "arcface"] == "90.0 / 80.0 / 70.0"
    assert rows.loc[("letters", "none"), "arcface"] == "<u>91.0</u> / 80.0 / 70.0"


def test_marks_are_by_the_own_score_of_each_head():
    table = heads(softmax=0.91, cosface=0.93)  # by MSP, softmax has 0.5
    assert [cell.split(" / ")[0] for cell in first_row(table)] == ["<u>50.0</u>", "**93.0**"]


def on_sets(**aurocs: list[float]) -> pd.DataFrame:
    """Rows of arcface with these AUROCs by seed on these OOD sets, their names with _ for what is no letter."""
    names = {"CIFAR_100": "CIFAR-100", "TIN_R": "TIN (R, ours)"}
    tables = [
        results(none=values).query("ood_set == 'uniform'").assign(ood_set=names.get(name, name))
        for name, values in aurocs.items()
    ]
    return pd.concat(tables, ignore_index=True)


def test_natural_sets_are_all_but_generated_ones_and_near_sets_are_known_by_name():
    table = on_sets(CIFAR_100=[0.9], SVHN=[0.9], TIN_R=[0.9], gaussian=[0.9], uniform=[0.9], inverted=[0.9])
    assert tables.set_groups(table) == {
        "all": ["CIFAR-100", "SVHN", "TIN (R, ours)", "gaussian", "uniform", "inverted"],
        "natural": ["CIFAR-100", "SVHN", "TIN (R, ours)"],
        "near": ["CIFAR-100", "TIN (R, ours)"],
    }


def test_a_group_without_a_set_is_not_there():
    assert list(tables.set_groups(on_sets(gaussian=[0.9]))) == ["all"]
    assert list(tables.group_table(on_sets(letters=[0.9]))) == [
        *("head", "outliers", "all (1)", "natural (1)")
    ]


def test_near_sets_have_the_names_that_tables_call_them():
    sources = ("cifar100", "tin_crop", "tin_resize")
    titles = {published.PUBLISHED[source].title for source in sources}
    ours = {published.NPZ_TITLES[source] for source in sources}
    assert set(tables.NEAR) == {datasets.display_name("held_out")} | titles | ours


def test_the_generated_sets_have_the_names_that_tables_call_them():
    assert [datasets.display_name(name) for name in ("gaussian:10000", "uniform:7", "inverted")] == [
        *tables.NOISE
    ]


def test_the_group_table_has_the_mean_over_its_sets_and_their_spread_over_seeds():
    table = on_sets(held_out=[0.6, 0.7], letters=[0.8, 0.9], gaussian=[1.0, 1.0])
    row = tables.group_table(table).iloc[0].to_dict()
    assert row == {
        "head": "arcface",
        "outliers": "none",
        "all (3)": "83.3 ± 4.7",
        "natural (2)": "75.0 ± 7.1",
        "near (1)": "65.0 ± 7.1",
    }


def test_the_group_of_all_sets_is_what_the_summary_says():
    table = pd.concat([heads(softmax=0.91, cosface=0.93), results(label_mixup=[0.9])])
    groups, summary = tables.group_table(table), tables.summary_table(table)
    assert groups["all (2)"].tolist() == summary["AUROC"].tolist()
    assert groups[["head", "outliers"]].equals(summary[["head", "outliers"]])


def test_a_set_that_not_every_detector_was_tested_on_is_in_no_group():
    table = heads(arcface=0.8, cosface=0.9)
    table = table[~(table["head"].eq("cosface") & table["ood_set"].eq("letters"))]
    assert tables.set_groups(table) == {"all": ["uniform"]}
    assert tables.group_text(table) == (
        "all (1): uniform; left out, as not every detector was tested on them (1): letters."
    )


def test_detectors_without_a_common_set_have_no_group():
    table = heads(arcface=0.8, cosface=0.9)
    table = table[table["head"].eq("cosface") == table["ood_set"].eq("letters")]
    assert tables.set_groups(table) == {}
    assert tables.group_table(table).to_dict("list") == {
        "head": ["arcface", "cosface"],
        "outliers": ["none", "none"],
    }


def test_the_groups_are_named_with_their_sets():
    assert tables.group_text(on_sets(held_out=[0.9], gaussian=[0.9])) == (
        "all (2): held_out, gaussian; natural (1): held_out; near (1): held_out."
    )


def test_the_summary_is_written_whole(tmp_path):
    tables.write_summary(tmp_path / "summary.md", results(none=[0.8, 0.9], label_mixup=[0.9, 0.9]))
    text = (tmp_path / "summary.md").read_text()
    assert (
        text.startswith("# Results with the digits preset, 2 seeds")
        and "+5.0 [" in text
        and "85.0 / 80.0 / 70.0" in text
        and "| all (2)    | natural (1)   |" in text
        and "natural (1): letters." in text
    )
