import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from oodlib.errors import InputError
from oodlib.files import atomic, fingerprint, write_csv, write_json
from oodlib.runs import Run, runs_folder

SETTINGS = {"steps": 3, "learning_rate": 1e-3, "image_shape": (8, 8, 1), "outliers": None}


@pytest.fixture
def run(tmp_path):
    return Run(str(tmp_path / "digits"))


def test_atomic_writes_the_final_path(tmp_path):
    with atomic(tmp_path / "a.txt") as part:
        part.write_text("whole")
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_atomic_makes_the_folder(tmp_path):
    with atomic(tmp_path / "x" / "y" / "a.txt") as part:
        part.write_text("whole")
    assert (tmp_path / "x" / "y" / "a.txt").is_file()


def test_atomic_shows_nothing_at_the_final_path_while_writing(tmp_path):
    with atomic(tmp_path / "a.txt") as part:
        part.write_text("half")
        assert not (tmp_path / "a.txt").exists()


def test_atomic_keeps_the_suffix(tmp_path):
    with atomic(tmp_path / "pool.npz") as part:
        assert part.suffix == ".npz"
        part.touch()


def test_atomic_leaves_nothing_after_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic(tmp_path / "a.txt") as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_atomic_leaves_no_part_after_success(tmp_path):
    with atomic(tmp_path / "a.txt") as part:
        part.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_atomic_replaces_what_was_there(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with atomic(tmp_path / "a.txt") as part:
        part.write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
    assert (tmp_path / "a.txt").read_text() == "new"


def test_atomic_keeps_what_was_there_after_an_error(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(OSError, match="disk full"), atomic(tmp_path / "a.txt") as part:
        part.write_text("half")
        raise OSError("disk full")
    assert (tmp_path / "a.txt").read_text() == "old"


def test_write_json_is_read_back(tmp_path):
    write_json(tmp_path / "a.json", {"tpr": 0.95, "names": ["a"]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"tpr": 0.95, "names": ["a"]}


def test_write_json_of_what_json_has_not_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"path": Path("x")})
    assert list(tmp_path.iterdir()) == []


def test_write_csv_keeps_nine_digits(tmp_path):
    write_csv(tmp_path / "a.csv", pd.DataFrame({"score": [1 / 3]}))
    assert (tmp_path / "a.csv").read_text() == "score\n0.333333333\n"


def test_root_is_the_environments(tmp_path, monkeypatch):
    monkeypatch.setenv("OODLIB_RUNS", str(tmp_path / "elsewhere"))
    assert runs_folder() == tmp_path / "elsewhere"


@pytest.mark.parametrize("sub_folder", [".", "notebooks", "notebooks/old"])
def test_root_is_runs_beside_the_snakefile_above(tmp_path, monkeypatch, sub_folder):
    (tmp_path / sub_folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / "Snakefile").touch()
    monkeypatch.delenv("OODLIB_RUNS", raising=False)
    monkeypatch.chdir(tmp_path / sub_folder)
    assert runs_folder().resolve() == (tmp_path / "runs").resolve()


def test_root_without_a_snakefile_is_runs_right_here(tmp_path, monkeypatch):
    monkeypatch.delenv("OODLIB_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert runs_folder() == Path("runs")


def test_an_empty_environment_variable_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setenv("OODLIB_RUNS", "")
    monkeypatch.chdir(tmp_path)
    assert runs_folder() == Path("runs")


def test_run_of_a_name_lies_under_the_root(tmp_path, monkeypatch):
    monkeypatch.setenv("OODLIB_RUNS", str(tmp_path))
    assert Run("digits").folder == tmp_path / "digits"


def test_run_of_a_path_lies_there(tmp_path, monkeypatch):
    monkeypatch.setenv("OODLIB_RUNS", "/elsewhere")
    assert Run(f"{tmp_path}{os.sep}mine").folder == tmp_path / "mine"


def test_detector_folder_names_head_outliers_and_seed(run):
    assert run.detector("arcface", "synthetic", 2) == run.detectors / "arcface-synthetic" / "seed2"


def test_require_gives_the_path_that_is_there(run):
    run.outliers.mkdir(parents=True)
    assert run.require(run.outliers, "02_label_mixup") == run.outliers


def test_require_names_the_file_and_the_notebook_that_makes_it(run):
    with pytest.raises(InputError) as error:
        run.require(run.outliers / "pool.npz", "02_label_mixup")
    assert "pool.npz is not there; make it with notebook 02_label_mixup" in str(error.value)
    assert "\n" not in str(error.value)


def test_require_gives_a_command_to_type(run):
    with pytest.raises(InputError) as error:
        run.require(run.outliers, "02_label_mixup")
    assert "papermill notebooks/02_label_mixup.ipynb" in str(error.value)


def test_a_finished_step_need_not_be_made(run):
    run.finish(run.denoiser, SETTINGS)
    assert not run.must_make(run.denoiser, SETTINGS)


def test_a_step_that_was_never_finished_must_be_made(run):
    assert run.must_make(run.denoiser, SETTINGS)


@pytest.mark.parametrize("change", [{"steps": 4}, {"more": 1}, {"outliers": "pool"}])
def test_a_step_with_other_settings_must_be_made(run, change):
    run.finish(run.denoiser, SETTINGS)
    assert run.must_make(run.denoiser, {**SETTINGS, **change})


def test_a_tuple_and_a_list_are_the_same_setting(run):
    run.finish(run.denoiser, {**SETTINGS, "image_shape": [8, 8, 1]})
    assert not run.must_make(run.denoiser, SETTINGS)


def test_a_step_that_must_be_made_loses_its_mark(run):
    run.finish(run.denoiser, SETTINGS)
    run.must_make(run.denoiser, {**SETTINGS, "steps": 4})
    assert not (run.denoiser / "settings.json").exists()


def test_a_step_that_need_not_be_made_keeps_its_mark(run):
    run.finish(run.denoiser, SETTINGS)
    run.must_make(run.denoiser, SETTINGS)
    assert (run.denoiser / "settings.json").exists()


def test_a_kept_step_is_told(run, capsys):
    run.finish(run.denoiser, SETTINGS)
    run.must_make(run.denoiser, SETTINGS)
    assert "was made with these settings and is kept" in capsys.readouterr().out


def test_fingerprint_of_equal_arrays_is_the_same():
    assert fingerprint(np.arange(6)) == fingerprint(np.arange(12)[:6])


def test_fingerprint_sees_one_changed_pixel():
    images = np.zeros((4, 8, 8, 1), np.uint8)
    before = fingerprint(images)
    images[3, 7, 7] = 1
    assert fingerprint(images) != before


def test_fingerprint_does_not_depend_on_the_order_in_memory():
    array = np.arange(6).reshape(2, 3)
    assert fingerprint(np.asfortranarray(array)) == fingerprint(array)


def finish_detector(run, head, seed, **settings):
    folder = run.detector(head, "none", seed)
    write_csv(folder / "metrics.csv", pd.DataFrame({"head": [head], "seed": [seed]}))
    run.finish(folder, {"head": head, "outliers": "none", "images": "abc", "epochs": 20} | settings)


def test_tables_are_those_of_finished_detectors(run):
    for head, seed in (("arcface", 0), ("arcface", 1), ("softmax", 0), ("adacos", 0)):
        finish_detector(run, head, seed)
    (run.detector("adacos", "none", 0) / "settings.json").unlink()
    assert run.tables("metrics").to_numpy().tolist() == [["arcface", 0], ["arcface", 1], ["softmax", 0]]


def test_detectors_of_unequal_settings_are_told(run):
    finish_detector(run, "arcface", 0)
    finish_detector(run, "arcface", 1, epochs=40, images="abd")
    finish_detector(run, "softmax", 0, scale=3)
    assert run.unequal_settings() == {"epochs": [20, 40], "images (none)": ["abc", "abd"]}


def test_a_step_with_a_missing_file_must_be_made_again(run):
    finish_detector(run, "arcface", 0)
    made_with = {"head": "arcface", "outliers": "none", "images": "abc", "epochs": 20}
    assert not run.must_make(run.detector("arcface", "none", 0), made_with)
    (run.detector("arcface", "none", 0) / "metrics.csv").unlink()
    assert run.must_make(run.detector("arcface", "none", 0), made_with)


def test_the_command_for_missing_input_names_run_and_parameters(tmp_path):
    with pytest.raises(InputError, match=r"03\.ipynb out\.ipynb -p run mine -p head softmax$"):
        Run("mine").require(tmp_path / "nothing", "03", head="softmax")


def test_no_tables_are_an_error_that_names_the_notebook(run):
    with pytest.raises(
        InputError, match=r"metrics\.csv is not there; make it with notebook 03_train_detector"
    ):
        run.tables("metrics")


def test_figure_is_saved_as_png(run):
    run.save_figure(Figure(figsize=(1, 1)), "roc")
    assert (run.figures / "roc.png").read_bytes().startswith(b"\x89PNG")


def test_figure_is_returned(run):
    figure = Figure(figsize=(1, 1))
    assert run.save_figure(figure, "roc") is figure
