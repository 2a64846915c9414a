"""A finished step's mark: read back as written, and it sees what happened to the files."""

import json

import pytest

from oodlib.files import Damaged
from oodlib.marks import Mark


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
