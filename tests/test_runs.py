import os
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from oodlib.errors import InputError
from oodlib.files import write_csv, write_json
from oodlib.presets import make_settings
from oodlib.runs import DENOISER, MARKS, Run, Step, runs_folder
from oodlib.settings import OFF, Settings

SETTINGS = {"steps": 3, "learning_rate": 1e-3, "image_shape": (8, 8, 1), "outliers": None}


@pytest.fixture
def run(tmp_path):
    return Run(str(tmp_path / "digits"))


def test_runs_folder_is_the_environments(tmp_path, monkeypatch):
    monkeypatch.setenv("OODLIB_RUNS", str(tmp_path / "elsewhere"))
    assert runs_folder() == tmp_path / "elsewhere"


@pytest.mark.parametrize("sub_folder", [".", "notebooks", "notebooks/old"])
def test_runs_folder_is_runs_beside_the_snakefile_above(tmp_path, monkeypatch, sub_folder):
    (tmp_path / sub_folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / "Snakefile").touch()
    monkeypatch.delenv("OODLIB_RUNS", raising=False)
    monkeypatch.chdir(tmp_path / sub_folder)
    assert runs_folder().resolve() == (tmp_path / "runs").resolve()


def test_runs_folder_without_a_snakefile_is_runs_right_here(tmp_path, monkeypatch):
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


def step(run, settings=SETTINGS):
    return Step(run.denoiser, (), settings)


def finish(run, settings=SETTINGS):
    step(run, settings).finish()


def test_a_finished_step_need_not_be_made(run):
    finish(run)
    assert not step(run).must_make()


def test_a_step_that_was_never_finished_must_be_made(run):
    assert step(run).must_make()


@pytest.mark.parametrize("change", [{"steps": 4}, {"more": 1}, {"outliers": "pool"}])
def test_a_step_with_other_settings_must_be_made(run, change):
    finish(run)
    assert step(run, {**SETTINGS, **change}).must_make()


def test_a_tuple_and_a_list_are_the_same_setting(run):
    finish(run, {**SETTINGS, "image_shape": [8, 8, 1]})
    assert not step(run).must_make()


def test_a_step_that_must_be_made_loses_its_mark(run):
    finish(run)
    step(run, {**SETTINGS, "steps": 4}).must_make()
    assert not (run.denoiser / "settings.json").exists()


def test_a_step_that_need_not_be_made_keeps_its_mark(run):
    finish(run)
    step(run).must_make()
    assert (run.denoiser / "settings.json").exists()


def test_a_kept_step_is_told(run, capsys):
    finish(run)
    step(run).must_make()
    assert "was made with these settings and is kept" in capsys.readouterr().out


def finish_detector(run, head, seed, **settings):
    folder = run.detector(head, "none", seed)
    write_csv(folder / "metrics.csv", pd.DataFrame({"head": [head], "seed": [seed]}))
    made_with = {"head": head, "outliers": "none", "images": "abc", "pool": None, "epochs": 20} | settings
    Step(folder, (), {"head": head, "outliers": "none"} | made_with).finish()
    sets = {"letters": "abf" if seed else "abg", "digits": "abh"}
    if head == "softmax":
        del sets["letters"]
    Step(folder, ("metrics.csv",), {"detector": f"{head} {seed}", "sets": sets}, MARKS[2]).finish()


def test_tables_are_those_of_finished_detectors(run):
    for head, seed in (("arcface", 0), ("arcface", 1), ("softmax", 0), ("adacos", 0)):
        finish_detector(run, head, seed)
    (run.detector("adacos", "none", 0) / "scored.json").unlink()
    assert run.tables("metrics").to_numpy().tolist() == [["arcface", 0], ["arcface", 1], ["softmax", 0]]


def test_detectors_of_unequal_settings_are_told(run):
    finish_detector(run, "arcface", 0)
    finish_detector(run, "arcface", 1, epochs=40, images="abd", pool="abe")
    finish_detector(run, "softmax", 0, head_options={"scale": 3})
    assert run.unequal_settings() == {
        "epochs": [20, 40],
        "images": ["abc", "abd"],
        "pool (none)": [None, "abe"],
        "set letters": ["abg", "abf"],
        "sets": [["digits", "letters"], ["digits"]],
    }


def test_the_denoiser_alone_may_be_scored_on_fewer_sets(run):
    finish_detector(run, "arcface", 0)
    scored_on = {"head": DENOISER, "outliers": "none", "sets": {"letters": "abg"}}
    Step(run.detector(DENOISER, "none", 0), (), scored_on, MARKS[2]).finish()
    assert run.unequal_settings() == {}


def test_a_step_with_a_missing_file_must_be_made_again(run):
    finished = Step(run.denoiser, ("history.csv",), SETTINGS)
    write_csv(run.denoiser / "history.csv", pd.DataFrame({"step": [1]}))
    finished.finish()
    assert not finished.must_make()
    (run.denoiser / "history.csv").unlink()
    assert finished.must_make()


def test_a_folder_may_hold_several_steps_with_marks_of_their_own(run):
    training, scoring = Step(run.denoiser, (), SETTINGS), Step(run.denoiser, (), {"tpr": 0.95}, MARKS[2])
    training.finish()
    scoring.finish()
    assert Step(run.denoiser, (), {"tpr": 0.9}, MARKS[2]).must_make()
    assert not training.must_make() and scoring.must_make()


def test_a_setting_that_a_mark_lacks_was_off(run, monkeypatch):
    monkeypatch.setitem(OFF, "new_option", 0.0)
    finish(run)
    assert not step(run, {**SETTINGS, "new_option": 0.0}).must_make()
    assert step(run, {**SETTINGS, "new_option": 0.5}).must_make()


def test_a_list_that_a_mark_lacks_had_its_default(run):
    finish(run)
    assert not step(run, {**SETTINGS, "attention_levels": ()}).must_make()
    assert step(run, {**SETTINGS, "attention_levels": (1,)}).must_make()


def test_off_is_the_default_unless_a_field_declares_another_value():
    assert OFF["dropout"] == Settings().dropout and OFF["guidance_scale"] is None


def test_a_run_says_what_it_is_of(run):
    run.claim(make_settings(preset="cifar10", profile="cpu"))
    assert run.experiment() == {
        "preset": "cifar10",
        "profile": "cpu",
        "id_data": "cifar10",
        "image_shape": [32, 32, 3],
        "background": "white",
    }


def test_a_run_of_something_else_is_refused(run):
    run.claim(make_settings())
    with pytest.raises(
        InputError, match=r"id_data = 'mine/', but .*digits was made with id_data = 'digits'; choose"
    ):
        run.claim(make_settings(id_data="mine/"))


def test_whoever_comes_first_says_what_the_run_is_of(run):
    run.claim(make_settings(id_data="mine/"))
    before = run.about.read_bytes()
    run.claim(make_settings(id_data="mine/", epochs=3))
    assert run.about.read_bytes() == before


def test_the_command_for_missing_input_names_run_and_parameters(tmp_path):
    with pytest.raises(InputError, match=r"03\.ipynb out\.ipynb -p run mine -p head softmax$"):
        Run("mine").require(tmp_path / "nothing", "03", head="softmax")


def test_the_command_for_a_run_that_is_not_there_names_preset_and_profile(tmp_path):
    settings = make_settings(preset="cifar10", profile="cpu")
    with pytest.raises(
        InputError, match=r"-p run cifar10-cpu -p preset cifar10 -p profile cpu -p head softmax$"
    ):
        Run(settings.run, settings).require(tmp_path / "nothing", "03", head="softmax")


def test_a_run_that_says_what_it_is_of_needs_no_preset_in_the_command(run, tmp_path):
    run.claim(make_settings())
    with pytest.raises(InputError, match=r"-p run .*digits$"):
        Run(str(run.folder), make_settings()).require(tmp_path / "nothing", "03")


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


def test_the_thresholds_are_those_of_each_detectors_own_score(run):
    for outliers, threshold in (("none", 0.5), ("real", 0.6)):
        thresholds = {"msp": -1.0, "cosine": threshold}
        write_json(run.detector("arcface", outliers, 3) / "scores.json", {"thresholds": thresholds})
    scores = pd.DataFrame({"head": "arcface", "outliers": ["none", "none", "real"], "seed": 3})
    assert run.thresholds(scores.assign(own_score="cosine")) == {"none": 0.5, "real": 0.6}
