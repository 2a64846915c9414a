import errno
import json
import os
import platform
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from safetensors.torch import save_file

from oodlib.errors import InputError
from oodlib.files import atomic, fingerprint, read_csv, read_json, reading, write_csv, write_json, write_text


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
    told = r"^.*a\.txt cannot be written: No space left on device$"
    with pytest.raises(InputError, match=told), atomic(tmp_path / "a.txt") as part:
        part.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (tmp_path / "a.txt").read_text() == "old"


def test_others_may_read_a_file_as_the_umask_says_whatever_wrote_it(tmp_path):
    with atomic(tmp_path / "a.safetensors") as part:
        save_file({"a": torch.zeros(2)}, part)
    (tmp_path / "b").touch()
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_folder_after(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(sorted(p.name for p in tmp_path.iterdir())))
    with atomic(tmp_path / "a.txt") as part:
        part.write_text("whole")
    assert synced == [[part.name], ["a.txt"]]


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


def test_json_is_written_and_read_as_utf_8(tmp_path):
    write_json(tmp_path / "a.json", {"name": "Käse"})
    assert "Käse" in json.dumps(read_json(tmp_path / "a.json"), ensure_ascii=False)


def test_fingerprint_of_equal_arrays_is_the_same():
    assert fingerprint(np.arange(6)) == fingerprint(np.arange(12)[:6])


def test_fingerprint_sees_one_changed_pixel():
    images = np.zeros((4, 8, 8, 1), np.uint8)
    before = fingerprint(images)
    images[3, 7, 7] = 1
    assert fingerprint(images) != before


@pytest.mark.parametrize(
    "other", [np.zeros(8, np.uint8), np.zeros((4, 2), np.uint8), np.zeros((2, 2), np.uint16)]
)
def test_fingerprint_of_the_same_bytes_in_another_shape_or_type_differs(other):
    assert fingerprint(other) != fingerprint(np.zeros((2, 4), np.uint8))


def test_fingerprint_does_not_depend_on_the_order_in_memory():
    array = np.arange(6).reshape(2, 3)
    assert fingerprint(np.asfortranarray(array)) == fingerprint(array)


@pytest.mark.parametrize("name", ["NA", "001", "None", "nan", "null", "1e3", "True", 'häß, "lich"'])
@pytest.mark.parametrize("column", ["set", "ood_set", "title", "predicted", "outliers", "classes"])
def test_names_stay_as_they_were_written(tmp_path, column, name):
    write_csv(tmp_path / "table.csv", pd.DataFrame({column: [name, name], "msp": [1, 2]}))
    assert read_csv(tmp_path / "table.csv")[column].tolist() == [name, name]


def test_numbers_are_numbers_and_empty_cells_are_missing(tmp_path):
    table = pd.DataFrame(
        {"predicted": ["7", None], "correct": [True, None], "cosine": [0.5, None], "seed": [0, 1]}
    )
    write_csv(tmp_path / "table.csv", table)
    back = read_csv(tmp_path / "table.csv")
    assert back.dtypes.astype(str).to_dict() == {
        "predicted": "str",
        "correct": "boolean",
        "cosine": "float64",
        "seed": "int64",
    }
    assert back.iloc[1].isna().tolist() == [True, True, True, False]
    assert back["correct"].iloc[0]


def leftover(folder, owner, host=None, name="a", suffix=".txt"):
    part = folder / f".{name}.{host or platform.node()}.{owner}.part{suffix}"
    part.write_text("half")
    return part


@pytest.fixture
def no_process(monkeypatch):
    """No process is alive but this one."""
    monkeypatch.setattr(psutil, "pid_exists", lambda number: number == os.getpid())


@pytest.mark.usefixtures("no_process")
def test_what_a_killed_process_left_of_a_file_is_removed_when_it_is_written_again(tmp_path):
    left = leftover(tmp_path, 4_000_000)
    write_text(tmp_path / "a.txt", "whole")
    assert not left.exists() and (tmp_path / "a.txt").read_text() == "whole"


def test_what_a_living_process_is_writing_stays(tmp_path):
    left = leftover(tmp_path, os.getppid())
    write_text(tmp_path / "a.txt", "whole")
    assert left.exists()


@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize(
    "other", [{"host": "elsewhere"}, {"name": "b"}, {"suffix": ".csv"}, {"owner": "copy"}]
)
def test_other_leftovers_stay(tmp_path, other):
    left = leftover(tmp_path, **{"owner": 4_000_000, **other})
    write_text(tmp_path / "a.txt", "whole")
    assert left.exists()


def test_a_name_with_brackets_is_no_pattern(tmp_path):
    with atomic(tmp_path / "[a].txt") as part:
        part.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["[a].txt"]


def read(path, error=None):
    with reading(path, "make it again"):
        if error:
            raise error
        return read_json(path)


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe\x00"])
def test_a_damaged_file_is_told_with_what_to_do(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(
        InputError, match=r"^.*a\.json is damaged or of another version of oodlib; make it again$"
    ):
        read(tmp_path / "a.json")


def test_a_file_that_is_not_there_is_told_with_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"^.*a\.json is not there; make it again$"):
        read(tmp_path / "a.json")


def test_a_file_that_may_not_be_read_is_not_called_missing_or_damaged(tmp_path):
    write_json(tmp_path / "a.json", {})
    with pytest.raises(InputError, match=r"^.*a\.json cannot be read: Permission denied$"):
        read(tmp_path / "a.json", PermissionError(errno.EACCES, "Permission denied"))


def test_a_pointer_of_git_lfs_is_told(tmp_path):
    (tmp_path / "a.npz").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(
        InputError, match=r"a\.npz is a git-LFS pointer, not the file itself; run git lfs pull$"
    ):
        read(tmp_path / "a.npz")


def test_a_whole_file_is_read(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    assert read(tmp_path / "a.json") == {"a": 1}
