"""The tables of the study: made of a run and its replicates, and the same where they are read."""

import numpy as np
import pandas as pd
import pytest
from test_study import APART, OWN, write_detector

from oodlib.files import write_csv
from oodlib.outliers.pool import OutlierPool
from oodlib.reports import study, study_tables
from oodlib.runs import Run

CONDITIONS = ["none", "placebo", "label_mixup"]
ID_IMAGES = np.random.default_rng(1).integers(0, 256, (30, 8, 8, 1), np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of two heads, a replicate, and a pool of one of its sources."""
    root = tmp_path_factory.mktemp("runs")
    run, further = Run(str(root / "study")), Run(str(root / "study-1"))
    for head in OWN:
        for outliers in CONDITIONS:
            write_detector(run, head, outliers, 0, APART[outliers])
            if outliers != "none":
                write_detector(further, head, outliers, 0, APART[outliers] + 0.2)
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), np.uint8)
    folder = run.outliers / "placebo"
    OutlierPool(images, np.full((20, 2), 0.5, np.float32)).save(folder / "pool.npz")
    judged = {"verdict": ["parent", "in between"] * 10, "distance": 1.5, "classes": "0 + 1"}
    write_csv(folder / "purity.csv", pd.DataFrame(judged))
    return run


@pytest.fixture(scope="module")
def tables(made):
    return all_tables(made)


def all_tables(run):
    names = CONDITIONS
    return {
        "overview": study_tables.overview(run),
        "choice": study_tables.choice(run),
        "study": study_tables.gains(run),
        "pools": study_tables.pools(run, names, ID_IMAGES),
        "against_knn": study_tables.against_knn(run, ["none", "placebo"]),
        "outliers": study_tables.examples(run, names),
    }


def test_tables_that_are_read_are_those_that_were_made(made, tables):
    again = all_tables(Run("study", shipped=made.folder))
    for name in ("overview", "choice", "study", "pools", "against_knn"):
        read = again[name]
        made_before = tables[name] if read.index.name else tables[name].reset_index(drop=True)
        pd.testing.assert_frame_equal(read, made_before, check_dtype=False, rtol=1e-7)
    assert again["outliers"].keys() == tables["outliers"].keys()
    assert np.array_equal(again["outliers"]["placebo"], tables["outliers"]["placebo"])


def test_they_are_of_the_run_and_its_replicates(made, tables):
    runs = study.replicates(made)
    metrics, alarms = (study.tables(runs, name) for name in ("metrics", "alarms"))
    pd.testing.assert_frame_equal(tables["overview"], study.overview(metrics, alarms))
    by_knn = tables["study"].query("score == 'knn'").drop(columns="score").reset_index(drop=True)
    pd.testing.assert_frame_equal(by_knn, study.study_gains(runs, metrics, "knn"))
    assert tables["study"].query("score == 'own'")["denoisers"].max() == 2


def test_pools_and_examples_are_of_the_sources_that_have_any(tables):
    assert tables["pools"].index.tolist() == ["placebo"] and tables["pools"].loc["placebo", "parent"] == 0.5
    assert {name: images.shape for name, images in tables["outliers"].items()} == {"placebo": (7, 8, 8, 1)}


def test_scores_are_held_against_knn_on_the_headline_groups(tables):
    table = tables["against_knn"]
    assert set(table["set"]) == set(study.HEADLINE) and set(table["trained_with"]) == {"none", "placebo"}


def test_all_files_but_the_sealed_set_s_are_written(made, tables):
    written = {path.name for path in made.folder.iterdir() if path.is_file()}
    assert set(study_tables.FILES) - written == {"sealed.csv"}
