"""A few hundred odd files and names: each is read right or answered by one line, and nothing is left half-written."""

import io
import os
import random
import unicodedata
import zipfile

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from oodlib.datasets.own import from_folder, from_npz
from oodlib.errors import InputError, one_line
from oodlib.files import read_csv, write_csv
from oodlib.pictures import Notes, picture_files, read_picture
from oodlib.reports.style import styled
from oodlib.reports.tables import markdown

FORMATS = {
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "tif": ("1", "L", "P", "RGB", "RGBA", "CMYK", "LAB", "YCbCr", "I;16", "I", "F"),
    "jpg": ("L", "RGB", "CMYK"),
    "webp": ("RGB", "RGBA"),
    "gif": ("L", "P", "RGB"),
    "bmp": ("1", "L", "P", "RGB"),
    "ppm": ("1", "L", "RGB", "I;16"),
    "tga": ("L", "LA", "P", "RGB", "RGBA"),
    "jp2": ("L", "RGB", "RGBA"),
    "avif": ("RGB", "RGBA"),
    "ico": ("RGB", "RGBA"),
}
LOSSLESS = ("png", "tif", "bmp", "ppm", "tga")
NASTY = [
    "$",
    "$$",
    "|",
    "`",
    "{x}",
    "}",
    "<b>",
    "&amp;",
    '"',
    "'",
    "\\",
    "%s",
    "_^",
    "#",
    "=1+1",
    "-rf",
    "@x",
    "~",
]
NASTY += [
    " ",
    "\t",
    "\n",
    "\r",
    "\u202e",
    "é",
    unicodedata.normalize("NFD", "é"),
    "日本",
    "🙂",
    "NA",
    "None",
    "nan",
]
NASTY += ["001", "1e5", "True", "", ",", ";", ":", "*", "?", "[0]", "\x7f", "\x1b[31m"]


def levels(rng, mode, size):
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, size, np.uint16))
    if mode in ("I", "F"):
        values = rng.integers(0, 65536, size)
        return Image.fromarray(
            values.astype(np.int32) if mode == "I" else (values / 65535).astype(np.float32)
        )
    picture = Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8))
    if mode == "LAB":
        return Image.frombytes("LAB", size[::-1], picture.tobytes())
    return picture.convert("RGBA").convert("LA") if mode == "LA" else picture.convert(mode)


def odd_pictures(seed):
    """Bytes of small pictures in all formats and modes, whole ones with their picture, cut ones and changed ones."""
    rng, odds = np.random.default_rng(seed), random.Random(seed)
    for suffix, modes in FORMATS.items():
        for mode in modes:
            size = tuple(rng.integers(1, 20, 2).tolist()) if suffix != "ico" else (16, 16)
            picture, file = levels(rng, mode, size), io.BytesIO()
            exif = Image.Exif()
            exif[0x0112] = odds.choice([1, 3, 6, 8, 99])
            options = {"exif": exif} if suffix in ("jpg", "webp", "tif") and odds.random() < 0.5 else {}
            picture.save(file, Image.registered_extensions()[f".{suffix}"], **options)
            content = file.getvalue()
            yield suffix, content, picture if not options else None
            for damage in range(3):
                broken = bytearray(content)
                if damage == 0:
                    broken = broken[: odds.randrange(len(broken))]
                else:
                    for _ in range(1 + 3 * damage):
                        broken[odds.randrange(min(len(broken), 100 if damage == 1 else 10**6))] = (
                            odds.randrange(256)
                        )
                yield suffix, bytes(broken), None


@pytest.mark.filterwarnings("ignore")  # of Pillow, about what is broken
@pytest.mark.parametrize("seed", range(3))
def test_a_picture_is_read_right_or_refused_in_one_line(tmp_path, seed):
    read = refused = 0
    for i, (suffix, content, whole) in enumerate(odd_pictures(seed)):
        file = tmp_path / f"{i}.{suffix}"
        file.write_bytes(content)
        try:
            image = read_picture(file, (8, 8, 3))
        except InputError as error:
            assert whole is None, error
            assert len(str(error).splitlines()) == 1 and file.name in str(error)
            refused += 1
        else:
            assert (image.dtype, image.shape) == (np.uint8, (8, 8, 3))
            if suffix in LOSSLESS and whole is not None and whole.mode in ("L", "RGB"):
                expected = Image.fromarray(np.asarray(whole)).convert("RGB")
                (tmp_path / "expected").mkdir(exist_ok=True)
                expected.save(tmp_path / "expected" / f"{i}.png")
                assert np.array_equal(image, read_picture(tmp_path / "expected" / f"{i}.png", (8, 8, 3)))
            read += 1
    assert read > 50 and refused > 50


@pytest.mark.parametrize("seed", range(3))
def test_what_is_called_a_picture_and_is_none_is_refused_in_one_line(tmp_path, seed):
    odds = random.Random(seed)
    contents = [
        b"",
        b"\0" * 100,
        b"<html>404</html>",
        b"%!PS-Adobe",
        b"<svg/>",
        b"version https://git-lfs",
        odds.randbytes(500),
    ]
    for i, suffix in enumerate(FORMATS):
        file = tmp_path / f"{i}.{suffix}"
        file.write_bytes(odds.choice(contents))
        with pytest.raises(InputError, match=rf"^image .*{file.name} cannot be read .*$"):
            read_picture(file, (8, 8, 1))


@pytest.mark.parametrize("seed", range(3))
def test_an_npz_is_read_right_or_refused_in_one_line(tmp_path, seed):
    rng, odds = np.random.default_rng(seed), random.Random(seed)
    for i in range(60):
        file = tmp_path / f"{i}.npz"
        shape = odds.choice([(4, 8, 8), (4, 8, 8, 1), (4, 8, 8, 3), (4, 8, 8, 4), (4, 8), (0, 8, 8), ()])
        images = rng.integers(0, 256, shape).astype(
            odds.choice([np.uint8, np.uint8, np.int64, np.float32, object])
        )
        labels = rng.integers(-1, 3, odds.choice([4, 4, 5])).astype(
            odds.choice([np.int8, np.uint64, float, str])
        )
        np.savez(file, images=images, **({"labels": labels} if odds.random() < 0.5 else {}))
        content = bytearray(file.read_bytes())
        if odds.random() < 0.5:
            for _ in range(odds.randrange(1, 9)):
                content[odds.randrange(len(content))] = odds.randrange(256)
            file.write_bytes(content[: odds.choice([len(content), odds.randrange(len(content))])])
        try:
            image_set = from_npz(file)
        except InputError as error:
            assert len(str(error).splitlines()) == 1 and file.name in str(error)
        else:
            assert image_set.images.dtype == np.uint8 and image_set.images.ndim == 4
            with zipfile.ZipFile(file) as whole:
                assert whole.testzip() is None


def nasty_names(seed, count=60):
    odds = random.Random(seed)
    names = {"".join(odds.choices(NASTY, k=odds.randrange(1, 4))).strip(".") for _ in range(count)}
    return sorted(name for name in names if name and not name.startswith((".", "@")) and "/" not in name)


@pytest.mark.parametrize("seed", range(3))
def test_names_of_classes_are_theirs_in_every_table(tmp_path, seed):
    composed = {unicodedata.normalize("NFC", name) for name in nasty_names(seed) if one_line(name) == name}
    names = sorted({name.replace("\u202e", "").strip(): name for name in sorted(composed)}.values())
    for name in names:
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("L", (8, 8), 99).save(tmp_path / "set" / name / "a.png")
    found = from_folder(tmp_path / "set", (8, 8, 1)).class_names
    assert list(found) == names
    table = pd.DataFrame({"classes": found, "set": found, "auroc": range(len(found))})
    write_csv(tmp_path / "a.csv", table)
    assert read_csv(tmp_path / "a.csv").equals(table)
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "set"]
    rows = markdown(table.astype(str)).splitlines()
    assert len(rows) == len(names) + 2
    assert {row.replace(r"\|", "").count("|") for row in rows} == {4}


@pytest.mark.parametrize("name", [name for name in nasty_names(0) if one_line(name) != name])
def test_a_class_with_a_control_character_is_refused_in_one_line(tmp_path, name):
    (tmp_path / name).mkdir()
    Image.new("L", (8, 8)).save(tmp_path / name / "a.png")
    with pytest.raises(InputError, match="has a control character in its name; rename it") as error:
        from_folder(tmp_path, (8, 8, 1))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_are_drawn_as_written(tmp_path):
    names = [name for name in nasty_names(0) if name.isprintable()]

    @styled
    def draw():
        figure = Figure()
        for i, name in enumerate(names):
            figure.text(0.1, i / len(names), name)
        figure.savefig(tmp_path / "a.png")
        return figure

    assert [text.get_text() for text in draw().texts] == names


@pytest.mark.parametrize("seed", range(3))
def test_names_of_files_are_shown_on_one_line(tmp_path, seed):
    for name in [os.fsencode(name) for name in nasty_names(seed)] + [b"\xff\xfe", b"a\x80.txt"]:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(b"no picture")
    notes = Notes(tmp_path)
    assert picture_files(tmp_path, notes) == []
    for line in notes.lines():
        assert len(line.splitlines()) == 1
        line.encode()
