"""A step and its mark, which sees what happened to the files; of two processes one makes a step."""

import json
import re
import threading
import time

import pandas as pd
import pytest

from oodlib.files import Damaged, write_csv
from oodlib.marks import MARKS, Mark, Step
from oodlib.runs import Run
from oodlib.settings import OFF, Settings

SETTINGS = {"steps": 3, "learning_rate": 1e-3, "image_shape": (8, 8, 1), "outliers": None}


@pytest.fixture
def run(tmp_path):
    return Run(str(tmp_path / "digits"))


@pytest.fixture
def marked(tmp_path):
    """A folder with a file and its mark."""
    (tmp_path / "weights").write_bytes(b"whole")
    Mark.of(tmp_path, ["weights"], {"steps": 3, "shape": (8, 8)}).write(tmp_path / "mark.json")
    return tmp_path


def read(folder):
    return Mark.read(folder / "mark.json", "redo it")


def test_a_mark_holds_settings_and_of_each_file_size_and_hash(marked):
    values = json.loads((marked / "mark.json").read_text())
    assert values["settings"] == {"steps": 3, "shape": [8, 8]}
    assert values["files"] == {"weights": {"size": 5, "blake2b": "461b929dfd374c2c7ae965321e107e1e"}}


def test_files_as_they_were_made_pass(marked):
    read(marked).check(marked, "redo it")


@pytest.mark.parametrize(
    "content, told", [(b"", "has 0 bytes, and 5 when it was made"), (b"wh0le", "was changed after")]
)
def test_another_size_or_content_is_told_with_the_file(marked, content, told):
    (marked / "weights").write_bytes(content)
    with pytest.raises(Damaged, match=f"^.*weights {told}.*; redo it$"):
        read(marked).check(marked, "redo it")


def test_a_missing_file_is_told(marked):
    (marked / "weights").unlink()
    with pytest.raises(Damaged, match=r"weights is not there; redo it$"):
        read(marked).check(marked, "redo it")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"settings": {}}',
        '{"settings": 3, "files": {}}',
        '{"settings": {}, "files": ["a"]}',
    ],
)
def test_a_damaged_mark_is_told_on_one_line(marked, content):
    (marked / "mark.json").write_text(content)
    with pytest.raises(Damaged, match=r"^.*mark\.json is damaged or of another version.*; redo it$") as error:
        read(marked)
    assert "\n" not in str(error.value)


def step(run, settings=SETTINGS):
    return Step(run.denoiser, (), settings)


def must_make(step):
    with step.todo() as is_missing:
        return is_missing


def finish(run, settings=SETTINGS):
    step(run, settings).finish()


def test_a_finished_step_need_not_be_made(run):
    finish(run)
    assert not must_make(step(run))


def test_a_step_that_was_never_finished_must_be_made(run):
    assert must_make(step(run))


@pytest.mark.parametrize("change", [{"steps": 4}, {"more": 1}, {"outliers": "pool"}])
def test_a_step_with_other_settings_must_be_made(run, change):
    finish(run)
    assert must_make(step(run, {**SETTINGS, **change}))


def test_a_tuple_and_a_list_are_the_same_setting(run):
    finish(run, {**SETTINGS, "image_shape": [8, 8, 1]})
    assert not must_make(step(run))


def test_a_step_that_must_be_made_loses_its_mark(run):
    finish(run)
    must_make(step(run, {**SETTINGS, "steps": 4}))
    assert not (run.denoiser / "settings.json").exists()


def test_a_step_that_need_not_be_made_keeps_its_mark(run):
    finish(run)
    must_make(step(run))
    assert (run.denoiser / "settings.json").exists()


def test_a_kept_step_is_told(run, capsys):
    finish(run)
    must_make(step(run))
    assert "was made with these settings and is kept" in capsys.readouterr().out


def test_a_step_with_a_missing_file_must_be_made_again(run):
    finished = Step(run.denoiser, ("history.csv",), SETTINGS)
    write_csv(run.denoiser / "history.csv", pd.DataFrame({"step": [1]}))
    finished.finish()
    assert not must_make(finished)
    (run.denoiser / "history.csv").unlink()
    assert must_make(finished)


def test_a_folder_may_hold_several_steps_with_marks_of_their_own(run):
    training, scoring = Step(run.denoiser, (), SETTINGS), Step(run.denoiser, (), {"tpr": 0.95}, MARKS[2])
    training.finish()
    scoring.finish()
    assert must_make(Step(run.denoiser, (), {"tpr": 0.9}, MARKS[2]))
    assert not must_make(training) and must_make(scoring)


def test_a_setting_that_a_mark_lacks_was_off(run, monkeypatch):
    monkeypatch.setitem(OFF, "new_option", 0.0)
    finish(run)
    assert not must_make(step(run, {**SETTINGS, "new_option": 0.0}))
    assert must_make(step(run, {**SETTINGS, "new_option": 0.5}))


def test_a_list_that_a_mark_lacks_had_its_default(run):
    finish(run)
    assert not must_make(step(run, {**SETTINGS, "attention_levels": ()}))
    assert must_make(step(run, {**SETTINGS, "attention_levels": (1,)}))


def test_off_is_the_default_unless_a_field_declares_another_value():
    assert OFF["dropout"] == Settings().dropout and OFF["guidance_scale"] is None


def finished_with_a_file(run):
    finished = Step(run.denoiser, ("history.csv",), SETTINGS)
    write_csv(run.denoiser / "history.csv", pd.DataFrame({"step": [1]}))
    finished.finish()
    return finished


@pytest.mark.parametrize("content", [b"", b"step", b"step\n2\n"])
def test_a_step_whose_file_was_changed_is_made_again_and_told(run, capsys, content):
    finished = finished_with_a_file(run)
    (run.denoiser / "history.csv").write_bytes(content)
    assert must_make(finished)
    assert re.fullmatch(r".*history\.csv (has|was) .*; it is made again\n", capsys.readouterr().out)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"settings": {}, "files": ["history.csv"]}'])
def test_a_step_whose_mark_is_damaged_is_made_again_and_told(run, capsys, content):
    finished = finished_with_a_file(run)
    (run.denoiser / "settings.json").write_text(content)
    assert must_make(finished)
    assert "settings.json is damaged" in capsys.readouterr().out


def test_a_step_with_other_settings_tells_which(run, capsys):
    finish(run)
    must_make(step(run, {**SETTINGS, "steps": 4}))
    assert capsys.readouterr().out.endswith("tells of other steps; it is made again\n")


def test_a_step_made_for_the_first_time_tells_nothing(run, capsys):
    must_make(step(run))
    assert capsys.readouterr().out == ""


def test_of_two_that_want_a_step_one_makes_it_and_the_other_waits_and_takes_it(run, capsys):
    made, begun = [], threading.Event()

    def make(name):
        with step(run).todo() as is_missing:
            begun.set()
            if is_missing:
                deadline = time.monotonic() + 10
                while "waiting" not in (told := capsys.readouterr().out) and time.monotonic() < deadline:
                    time.sleep(0.001)
                made.append((name, told))
                finish(run)

    first = threading.Thread(target=make, args=("first",))
    first.start()
    begun.wait(10)
    make("second")
    first.join()
    assert [name for name, _ in made] == ["first"]
    assert "another process works on" in made[0][1] and "is kept" in capsys.readouterr().out


def test_a_failed_step_is_free_for_the_next(run):
    with pytest.raises(KeyboardInterrupt), step(run).todo():
        raise KeyboardInterrupt
    assert must_make(step(run))
