"""The summary: what a number in it means."""

import numpy as np
import pandas as pd
import pytest
from result_tables import alarms, heads, on_sets, results, with_denoiser

from oodlib.reports import summary, tables
from oodlib.reports.intervals import exposure_changes

ALARMS = {"ID test": [0.05, 0.03], "darker": [0.2, 0.2], "turned": [0.3, 0.5], "JPEG": [0.1, 0.1]}


def changes(table: pd.DataFrame) -> pd.DataFrame:
    return exposure_changes(table, pd.DataFrame)


IMAGES = pd.concat(
    pd.DataFrame({"set": name, "role": role, "cosine": scores}).assign(
        head="arcface", outliers="none", seed=seed, own_score="cosine"
    )
    for seed in (0, 1)
    for name, role, scores in (
        ("id_test", "id", [0.9, 0.95]),
        ("turned", "shifted_id", [0.4, 0.8]),
        ("letters", "far", [0.3, 0.5]),
        ("uniform", "noise", [0.97]),
    )
)


def test_the_denoiser_has_a_row_in_the_summary_and_a_dash_for_accuracy():
    rows = summary.summary_table(with_denoiser(none=[0.8], label_mixup=[0.9])).set_index("head")
    assert rows.loc["denoiser", ["AUROC", "accuracy"]].tolist() == ["90.0", "–"]
    groups = summary.group_table(with_denoiser(none=[0.8]))
    assert groups.set_index("head").loc["denoiser", "all (2)"] == "90.0"


def test_the_denoiser_has_a_column_in_the_papers_table_and_empty_cells_with_outliers():
    table = summary.paper_table(with_denoiser(none=[0.8], label_mixup=[0.95]))
    rows = table.set_index(["ood_set", "outliers"])["denoiser"]
    assert rows[("letters", "none")] == "**90.0** / 80.0 / 70.0" and rows[("letters", "label_mixup")] == ""


@pytest.mark.parametrize("trained", [{"none": [0.8], "label_mixup": [0.9]}, {"label_mixup": [0.9]}])
def test_no_cell_of_the_summary_says_nan(tmp_path, trained):
    table = with_denoiser(**trained)
    summary.write_summary(
        tmp_path / "summary.md", table, changes(table), summary.alarm_summary(alarms(ALARMS), IMAGES)
    )
    assert "nan" not in (tmp_path / "summary.md").read_text().lower()


def test_the_summary_gives_mean_and_standard_deviation_in_percent():
    row = summary.summary_table(results(none=[0.8, 0.9])).iloc[0]
    assert row["AUROC"] == "85.0 ± 7.1" and row["accuracy"] == "99.0 ± 0.0"


def test_one_seed_has_no_spread():
    assert summary.summary_table(results(none=[0.8])).iloc[0]["AUROC"] == "80.0"


def test_the_papers_table_has_three_metrics_in_a_cell():
    table = summary.paper_table(results(none=[0.9, 0.8]))
    assert table["arcface"].tolist() == ["85.0 / 80.0 / 70.0"] * 2


def first_row(table: pd.DataFrame) -> list[str]:
    return summary.paper_table(table).iloc[0, 2:].tolist()


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
    assert summary.paper_table(table)["arcface"].str.split(" / ").str[0].tolist() == [
        *("<u>91.0</u>", "**91.0**")
    ]


def test_a_head_alone_in_its_row_has_no_mark():
    table = pd.concat([heads(arcface=0.91, cosface=0.93), results(label_mixup=[0.9])])
    rows = summary.paper_table(table).set_index(["ood_set", "outliers"])
    assert rows.loc[("letters", "label_mixup"), "arcface"] == "90.0 / 80.0 / 70.0"
    assert rows.loc[("letters", "none"), "arcface"] == "<u>91.0</u> / 80.0 / 70.0"


def test_marks_are_by_the_own_score_of_each_head():
    table = heads(softmax=0.91, cosface=0.93)  # by MSP, softmax has 0.5
    assert [cell.split(" / ")[0] for cell in first_row(table)] == ["<u>50.0</u>", "**93.0**"]


def test_natural_sets_are_all_but_noise_and_near_sets_are_known_by_their_role():
    table = on_sets(CIFAR_100=[0.9], SVHN=[0.9], TIN_R=[0.9], gaussian=[0.9], uniform=[0.9], inverted=[0.9])
    assert summary.set_groups(table) == {
        "all": ["CIFAR-100", "SVHN", "TIN (R, ours)", "gaussian", "uniform", "inverted"],
        "natural": ["CIFAR-100", "SVHN", "TIN (R, ours)"],
        "near": ["CIFAR-100", "TIN (R, ours)"],
        "far": ["SVHN"],
    }


def test_a_group_without_a_set_is_not_there():
    assert list(summary.set_groups(on_sets(gaussian=[0.9]))) == ["all"]
    assert list(summary.group_table(on_sets(letters=[0.9]))) == [
        *("head", "outliers", "all (1)", "natural (1)", "far (1)")
    ]


def test_the_group_table_has_the_mean_over_its_sets_and_their_spread_over_seeds():
    table = on_sets(held_out=[0.6, 0.7], letters=[0.8, 0.9], gaussian=[1.0, 1.0])
    row = summary.group_table(table).iloc[0].to_dict()
    assert row == {
        "head": "arcface",
        "outliers": "none",
        "all (3)": "83.3 ± 4.7",
        "natural (2)": "75.0 ± 7.1",
        "near (1)": "65.0 ± 7.1",
        "far (1)": "85.0 ± 7.1",
    }


def test_the_group_of_all_sets_is_what_the_summary_says():
    table = pd.concat([heads(softmax=0.91, cosface=0.93), results(label_mixup=[0.9])])
    groups, whole = summary.group_table(table), summary.summary_table(table)
    assert groups["all (2)"].tolist() == whole["AUROC"].tolist()
    assert groups[["head", "outliers"]].equals(whole[["head", "outliers"]])


def test_a_set_that_not_every_detector_was_tested_on_is_in_no_group():
    table = heads(arcface=0.8, cosface=0.9)
    table = table[~(table["head"].eq("cosface") & table["ood_set"].eq("letters"))]
    assert summary.set_groups(table) == {"all": ["uniform"]}
    assert summary.group_text(table) == (
        "all (1): uniform; left out, as not every detector was tested on them (1): letters."
    )


def test_detectors_without_a_common_set_have_no_group():
    table = heads(arcface=0.8, cosface=0.9)
    table = table[table["head"].eq("cosface") == table["ood_set"].eq("letters")]
    assert summary.set_groups(table) == {}
    assert summary.group_table(table).to_dict("list") == {
        "head": ["arcface", "cosface"],
        "outliers": ["none", "none"],
    }


def test_the_groups_are_named_with_their_sets():
    assert summary.group_text(on_sets(held_out=[0.9], gaussian=[0.9])) == (
        "all (2): held_out, gaussian; natural (1): held_out; near (1): held_out."
    )


def test_the_summary_is_written_whole(tmp_path):
    table = results(none=[0.8, 0.9], label_mixup=[0.9, 0.9])
    summary.write_summary(
        tmp_path / "summary.md", table, changes(table), summary.alarm_summary(alarms(ALARMS), IMAGES)
    )
    text = (tmp_path / "summary.md").read_text()
    assert (
        text.startswith("# Results with the digits preset, 2 seeds")
        and "+5.0 [" in text
        and "85.0 / 80.0 / 70.0" in text
        and "| all (2)    | natural (1)   |" in text
        and "natural (1): letters; far (1): letters." in text
    )


def test_the_summary_says_what_is_to_be_said_of_the_generator(tmp_path):
    table = results(none=[0.8])
    of_alarms = summary.alarm_summary(alarms(ALARMS), IMAGES)
    texts = []
    for generator in ("", "It draws well."):
        summary.write_summary(tmp_path / "summary.md", table, changes(table), of_alarms, generator)
        texts.append((tmp_path / "summary.md").read_text())
    plain, told = texts
    assert told.split("\n\n")[1] == "It draws well." and told.replace("It draws well.\n\n", "") == plain


def test_false_alarms_are_of_the_own_score_as_they_are_degraded_and_shifted():
    row = summary.alarm_summary(alarms(ALARMS), IMAGES).iloc[0]
    assert row["ID"] == "4.0 ± 1.4" and row["degraded"] == "20.0 ± 0.0"
    assert row["shifted"] == "25.0 ± 7.1" and row["recalibrated"] == "12.5 ± 3.5"
    assert row["worst"] == "turned 40.0" and row["accuracy, shifted"] == "90.0 ± 0.0"


def test_what_does_not_classify_or_was_not_tested_on_shifts_has_dashes_for_it():
    of_denoiser = alarms({"ID test": [0.05]}, head="denoiser", accuracy=np.nan, recalibrated=np.nan)
    images = pd.concat([IMAGES, IMAGES[IMAGES["role"] != "shifted_id"].assign(head="denoiser")])
    table = summary.alarm_summary(pd.concat([alarms(ALARMS), of_denoiser]), images).set_index("head")
    absent = ["degraded", "shifted", "worst", "recalibrated", "AUROC, shifted"]
    assert table.loc["denoiser", absent].tolist() == ["–"] * 5


def test_shifted_images_are_held_against_ood_images_as_a_mean_over_sets_and_seeds():
    # One of two shifted images lies above both far images, the other between them; noise lies above all.
    assert tables.shifted_auroc(IMAGES).to_dict() == {
        ("arcface", "none", s): (0.75 + 0.0) / 2 for s in (0, 1)
    }
    assert summary.alarm_summary(alarms(ALARMS), IMAGES)["AUROC, shifted"].tolist() == ["37.5 ± 0.0"]


def test_the_summary_has_the_false_alarms(tmp_path):
    table = results(none=[0.8, 0.9])
    summary.write_summary(
        tmp_path / "summary.md", table, changes(table), summary.alarm_summary(alarms(ALARMS), IMAGES)
    )
    assert "| turned 40.0 |" in (tmp_path / "summary.md").read_text()
