"""The paper's tables as data, and a run beside them."""

import numpy as np
import pandas as pd
import pytest
from result_tables import results

from oodlib.detection.heads import HEADS
from oodlib.outliers.sources import SOURCES
from oodlib.presets import make_settings
from oodlib.reports import published

# Recomputed by hand from the printed table: mean AUROC over the nine sets.
MEANS = {
    "none": (93.33, 95.99, 94.51, 93.73, 94.10, 94.56),
    "label_mixup": (96.98, 98.30, 96.47, 97.13, 96.59, 96.06),
}


@pytest.mark.parametrize("outliers", MEANS)
def test_the_means_of_table_1_are_those_recomputed_from_the_paper(outliers):
    table = published.paper_results().query("outliers == @outliers")
    means = 100 * table.groupby("head", sort=False)["auroc"].mean()
    assert np.allclose(means, MEANS[outliers], atol=0.01)


def test_the_tables_hold_six_heads_twice_and_the_preset_s_nine_sets():
    table, accuracy = published.paper_results(), published.paper_accuracy()
    sets = {name.split(":")[0] for name in make_settings(preset="cifar10").ood_sets}
    assert len(table) == 6 * 2 * 9 and set(table["ood_set"]) == sets
    assert set(table["head"]) <= set(HEADS) and set(table["outliers"]) <= set(SOURCES)
    assert len(accuracy) == 12 and accuracy["id_accuracy"].between(0.9, 1).all()


def run(**aurocs: list[float]) -> pd.DataFrame:
    table = results(**aurocs)
    return table.assign(
        ood_set=table["ood_set"].replace({"letters": "svhn"}),
        title=table["title"].replace({"letters": "SVHN, ours"}),
    )


def test_a_cell_has_ours_the_paper_s_and_the_difference_under_our_title():
    table = published.beside_paper(run(none=[0.9, 0.8], label_mixup=[0.95, 0.95]), "cifar10")
    rows = table.set_index(["ood_set", "outliers"])["arcface"]
    paper = published.paper_results().query("head == 'arcface' and ood_set == 'svhn' and outliers == 'none'")
    value = 100 * paper["auroc"].item()
    assert rows["SVHN, ours", "none"] == f"85.0 (paper {value:.1f}, {85 - value:+.1f})"
    assert rows["SVHN, ours", "label_mixup"] == "95.0 (paper 97.9†, -2.9)"


def test_a_source_that_the_paper_has_not_is_left_out():
    assert set(published.beside_paper(run(none=[0.9], real=[0.9]), "cifar10")["outliers"]) == {"none"}
    assert published.beside_paper(results(none=[0.9]).query("ood_set == 'letters'"), "cifar10").empty


@pytest.mark.parametrize("id_data", ["digits", "birds/"])
def test_numbers_of_other_id_images_do_not_stand_beside_the_paper_s(id_data):
    assert published.beside_paper(run(none=[0.9]), id_data).empty


def test_suspect_numbers_are_named_where_they_are_shown():
    lines = published.notes(run(none=[0.9], label_mixup=[0.9]))
    assert "† ArcFace, label mixup, SVHN, ours: AUPR-In and AUPR-Out are printed alike" in lines
    assert "† ArcFace, label mixup, uniform: repeats the row of gaussian" in lines
    assert len(lines) == 2 and published.notes(run(real=[0.9])) == []


def test_accuracy_stands_beside_the_paper_s():
    table = published.accuracy_beside_paper(run(none=[0.9]))
    assert table.to_numpy().tolist() == [["arcface", "none", "99.0 (paper 96.4, +2.6)"]]
