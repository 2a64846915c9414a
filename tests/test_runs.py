import errno
import os
import re
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from oodlib import files
from oodlib.errors import InputError
from oodlib.files import write_csv, write_json
from oodlib.marks import MARKS, Step
from oodlib.presets import make_settings
from oodlib.runs import DENOISER, Run, runs_folder


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


def test_what_detectors_were_trained_with_is_told_and_more_than_one_value_listed(run):
    finish_detector(run, "arcface", 0)
    assert run.trained_with("epochs") == "20"
    finish_detector(run, "softmax", 0, epochs=40)
    assert run.trained_with("epochs") == "20, 40"


def test_the_denoiser_alone_may_be_scored_on_fewer_sets(run):
    finish_detector(run, "arcface", 0)
    scored_on = {"head": DENOISER, "outliers": "none", "sets": {"letters": "abg"}}
    Step(run.detector(DENOISER, "none", 0), (), scored_on, MARKS[2]).finish()
    assert run.unequal_settings() == {}


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


@pytest.fixture
def read_only(monkeypatch):
    """A disk on which nothing can be written; the superuser could, whatever the folder's mode."""

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    def begin():
        monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
        monkeypatch.setattr(files, "FileLock", refuse)
        monkeypatch.setattr(Path, "touch", refuse)

    return begin


def test_a_finished_run_is_read_where_nothing_can_be_written(run, read_only):
    run.claim(make_settings())
    step = Step(run.denoiser, (), {})
    step.finish()
    read_only()
    run.claim(make_settings())
    with step.todo() as is_missing:
        assert not is_missing


def test_a_run_that_cannot_be_written_is_told_before_anything_is_made(run, read_only):
    read_only()
    with pytest.raises(InputError, match=r"^.*digits cannot be written: Read-only file system; make room"):
        run.claim(make_settings())
    told = r"^.*denoiser cannot be written: Read-only file system; make room"
    with pytest.raises(InputError, match=told), Step(run.denoiser, (), {}).todo():
        pytest.fail("it is begun")


def test_a_figure_that_cannot_be_saved_is_returned_and_told(run, read_only, capsys):
    figure = Figure(figsize=(1, 1))
    read_only()
    assert run.save_figure(figure, "roc") is figure
    told = r"not saved: .*roc\.png cannot be written: Read-only file system\n"
    assert re.fullmatch(told, capsys.readouterr().out)


def test_a_table_that_is_saved_is_told_and_so_is_one_that_cannot_be(run, read_only, capsys):
    table = pd.DataFrame({"seed": [1]})
    run.save(write_csv, run.results, table)
    assert run.results.is_file()
    read_only()
    run.save(write_csv, run.results, table)
    told = r"written: .*results\.csv\nnot saved: .*results\.csv cannot be written: Read-only file system\n"
    assert re.fullmatch(told, capsys.readouterr().out)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"preset": "digits", "new": 1}'])
def test_a_damaged_run_json_is_told_with_what_to_do(run, content):
    run.claim(make_settings())
    run.about.write_text(content)
    with pytest.raises(InputError, match=r"^.*digits/run\.json is damaged .*; delete it and run notebook"):
        run.claim(make_settings())
    run.about.unlink()
    run.claim(make_settings())


@pytest.mark.parametrize("name, written", [("metrics.csv", "head"), ("scored.json", "")])
def test_tables_are_not_read_from_damaged_files(run, name, written):
    finish_detector(run, "arcface", 0)
    (run.detector("arcface", "none", 0) / name).write_text(written)
    with pytest.raises(InputError, match=rf"seed0/{name} .*; run notebook 03_train_detector again"):
        run.tables("metrics")


def test_the_marks_that_settings_are_compared_by_may_not_be_damaged(run):
    finish_detector(run, "arcface", 0)
    (run.detector("arcface", "none", 0) / "settings.json").write_text("")
    with pytest.raises(InputError, match=r"seed0/settings\.json is damaged .*03_train_detector again"):
        run.unequal_settings()


def test_thresholds_that_are_not_there_are_told_with_the_notebook(run):
    scores = pd.DataFrame({"head": DENOISER, "outliers": ["none"], "seed": 3, "own_score": "inpainting"})
    with pytest.raises(InputError, match=r"scores\.json is not there; run notebook 07_denoiser_scores"):
        run.thresholds(scores)


@pytest.mark.parametrize(
    "name, option",
    [
        ("mine", "-p run mine"),
        ("my run's", "-p run 'my run'\"'\"'s'"),
        ("2024", "-r run 2024"),
        ("2024_01", "-r run 2024_01"),
        ("1e5", "-r run 1e5"),
        ("None", "-r run None"),
    ],
)
def test_a_name_in_a_command_is_read_as_it_is(tmp_path, name, option):
    with pytest.raises(InputError, match=rf"out\.ipynb {re.escape(option)} -p seeds '\[0\]'$"):
        Run(name).require(tmp_path / "nothing", "03", seeds="[0]")


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
