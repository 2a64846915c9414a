"""The command that uses a trained detector on one's own pictures."""

import importlib
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO, StringIO, TextIOWrapper

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY
from PIL import Image

from oodlib import datasets, predict
from oodlib.detection.detector import Detector
from oodlib.pictures import fit_picture, open_picture
from oodlib.settings import DetectorModel

DETECTOR = REPOSITORY / "oodlib" / "weights" / "digits" / "detectors" / "arcface-none" / "seed0"
NAMES = [
    "16 bit.png",
    "alpha.png",
    "grey.png",
    "sub/deeper/naïve 数字.png",
    "sub/palette.gif",
    "sub/rgb.JPG",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A picture of each kind, larger than the detector's 8 x 8, and three files that are none of its business."""
    folder = tmp_path_factory.mktemp("my pictures")
    digits = datasets.load("digits").images[:5, ..., 0].repeat(4, 1).repeat(4, 2)
    (folder / "sub" / "deeper").mkdir(parents=True)
    Image.fromarray(digits[0].astype(np.uint16) * 257).save(folder / "16 bit.png")
    Image.fromarray(digits[1]).convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(digits[2]).save(folder / "grey.png")
    Image.fromarray(digits[3]).save(folder / "sub" / "deeper" / "naïve 数字.png")
    Image.fromarray(digits[4]).convert("P").save(folder / "sub" / "palette.gif")
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(noise).save(folder / "sub" / "rgb.JPG")
    (folder / "notes.txt").write_text("not a picture")
    (folder / "broken.png").write_bytes((folder / "grey.png").read_bytes()[:60])
    Image.fromarray(digits[0]).save(folder / ".hidden.png")
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    """What the detector itself says of the pictures, by its own score."""
    detector = Detector.load(DETECTOR)
    return detector, detector.predict([open_picture(folder / name) for name in NAMES])


def run(capsys, *arguments):
    """Exit code, stdout and stderr."""
    code = predict.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def read_csv(file):
    return pd.read_csv(file, dtype={"class": str})


def test_the_csv_says_what_the_detector_says(folder, expected, tmp_path, capsys):
    detector, prediction = expected
    code, out, _ = run(capsys, DETECTOR, folder, "--csv", tmp_path / "new" / "out.csv")
    table = read_csv(tmp_path / "new" / "out.csv")
    assert (code, out) == (0, "")
    assert list(table.columns) == ["file", "class", "score", "verdict"]
    assert table["file"].tolist() == NAMES
    assert table["class"].tolist() == [detector.class_names[i] for i in prediction.classes]
    assert np.allclose(table["score"], prediction.scores, rtol=1e-8)
    assert table["verdict"].tolist() == ["OOD" if is_ood else "ID" for is_ood in prediction.is_ood]


def test_digits_of_every_kind_of_file_are_known_and_noise_is_not(folder):
    table = predict.predict_folder(Detector.load(DETECTOR), folder)
    labels = datasets.load("digits").labels[:5].astype(str)
    assert table["verdict"].tolist() == ["ID"] * 5 + ["OOD"]
    assert table["class"].tolist()[:5] == labels.tolist()


def test_csv_on_stdout_is_the_file(folder, tmp_path, capsys):
    run(capsys, DETECTOR, folder, "--csv", tmp_path / "out.csv")
    code, out, _ = run(capsys, DETECTOR, folder, "--csv", "-")
    assert code == 0 and out == (tmp_path / "out.csv").read_text()


def test_a_csv_that_was_there_is_replaced_and_nothing_is_left_beside_it(folder, tmp_path, capsys):
    (tmp_path / "out.csv").write_text("old")
    run(capsys, DETECTOR, folder, "--csv", tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
    assert len(read_csv(tmp_path / "out.csv")) == len(NAMES)


def test_without_csv_it_prints_an_aligned_table(folder, expected, capsys):
    code, out, _ = run(capsys, DETECTOR, folder)
    header, *rows = out.splitlines()
    assert code == 0 and header.split() == ["file", "class", "score", "verdict"]
    assert all(row.startswith(name + "  ") for row, name in zip(rows, NAMES, strict=True))
    assert {row[header.index("verdict") :] for row in rows if row.isascii()} == {"ID", "OOD"}
    assert [row.split()[-2] for row in rows] == [f"{score:.6g}" for score in expected[1].scores]


@pytest.mark.parametrize("score", ["msp", "energy", "cosine", "mahalanobis", "knn"])
def test_score_and_threshold_are_named_once(folder, capsys, score):
    code, out, err = run(capsys, DETECTOR, folder, "--score", score, "--csv", "-")
    detector = Detector.load(DETECTOR)
    table = read_csv(StringIO(out))
    said = f"score {score}, threshold {detector.thresholds[score]:.6g}: "
    assert code == 0 and (out + err).count(said) == 1
    assert err.endswith(f"{said}{(table['verdict'] == 'OOD').sum()} of {len(NAMES)} pictures are OOD\n")
    assert (table["verdict"] == "OOD").tolist() == (table["score"] < detector.thresholds[score]).tolist()


def test_without_a_score_it_is_the_heads_own(folder, capsys):
    assert run(capsys, DETECTOR, folder)[1:] == run(capsys, DETECTOR, folder, "--score", "cosine")[1:]


def test_a_file_that_cannot_be_read_is_named_on_stderr_and_skipped(folder, capsys):
    code, out, err = run(capsys, DETECTOR, folder)
    assert code == 0 and "broken.png" not in out
    assert err.splitlines()[0].startswith("skipped broken.png: ")


def test_what_is_no_picture_is_counted_and_named_on_stderr(folder, capsys):
    _, _, err = run(capsys, DETECTOR, folder)
    assert f"{folder}: 1 left out, hidden or a system's own: .hidden.png" in err.splitlines()
    assert f"{folder}: 1 left out, not pictures that Pillow reads: notes.txt" in err.splitlines()


def test_values_beyond_their_range_are_skipped_too(tmp_path, capsys):
    Image.fromarray(np.full((8, 8), 7, np.float32)).save(tmp_path / "float.tif")
    Image.new("L", (8, 8)).save(tmp_path / "grey.tif")
    code, out, err = run(capsys, DETECTOR, tmp_path)
    assert code == 0 and "grey.tif" in out and "skipped float.tif: its values go from 7 to 7" in err


def test_transparent_pixels_show_the_background_that_the_detector_was_trained_on(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.png")
    scores = []
    for background in ("white", "black"):
        detector = Detector.load(DETECTOR)
        detector.background = background
        scores.append(predict.predict_folder(detector, tmp_path)["score"][0])
        level = {"white": 255, "black": 0}[background]
        assert scores[-1] == detector.score(np.full((1, 8, 8, 1), level, np.uint8))[0]
    assert scores[0] != scores[1]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_pictures_are_taken_in_batches(folder, monkeypatch, size):
    whole = predict.predict_folder(Detector.load(DETECTOR), folder)
    monkeypatch.setattr(predict, "BATCH_SIZE", size)
    detector, sizes = Detector.load(DETECTOR), []

    classify = detector.classify
    monkeypatch.setattr(detector, "classify", lambda images: sizes.append(len(images)) or classify(images))
    table = predict.predict_folder(detector, folder)
    assert sum(sizes) == len(NAMES) and len(sizes) > 1 and max(sizes) <= size
    assert table.drop(columns="score").equals(whole.drop(columns="score"))
    assert np.allclose(table["score"], whole["score"], atol=1e-5)


def test_a_batch_without_a_readable_picture_is_passed_over(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "BATCH_SIZE", 1)
    (tmp_path / "a.png").write_bytes(b"no")
    (tmp_path / "b.png").write_bytes((folder / "grey.png").read_bytes())
    assert predict.predict_folder(Detector.load(DETECTOR), tmp_path)["file"].tolist() == ["b.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text there")
def test_a_name_that_is_not_utf_8_is_written_with_its_bytes(folder, tmp_path, capsys):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    with open(os.fsencode(pictures) + b"/caf\xe9.png", "wb") as file:
        file.write((folder / "grey.png").read_bytes())
    code, out, _ = run(capsys, DETECTOR, pictures)
    assert code == 0 and "caf\\xe9.png" in out
    assert run(capsys, DETECTOR, pictures, "--csv", tmp_path / "out.csv")[0] == 0


def test_an_rgb_detector_takes_the_same_pictures(folder, tmp_path, capsys):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8, 3), np.uint8)
    detector = Detector(
        ("a", "b"), (8, 8, 3), [0.5] * 3, [0.3] * 3, DetectorModel(backbone="resnet_small", head="softmax")
    )
    detector.fit_scores(images, np.arange(40) % 2, images)
    detector.eval().save(tmp_path / "rgb")
    capsys.readouterr()  # a line of a score that has few images
    code, out, err = run(capsys, tmp_path / "rgb", folder, "--csv", "-")
    fitted = np.stack([fit_picture(open_picture(folder / name), (8, 8, 3)) for name in NAMES])
    assert code == 0 and "score msp" in err
    assert np.allclose(read_csv(StringIO(out))["score"], detector.predict(fitted).scores, rtol=1e-6)


def test_a_table_is_written_to_where_a_link_leads(folder, tmp_path, capsys):
    (tmp_path / "out.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "out.csv")
    run(capsys, DETECTOR, folder, "--csv", tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert len(read_csv(tmp_path / "out.csv")) == len(NAMES)


def test_a_table_is_written_into_a_pipe(folder, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor() as pool:
        reader = pool.submit((tmp_path / "pipe").read_text)
        run(capsys, DETECTOR, folder, "--csv", tmp_path / "pipe")
        assert len(reader.result(timeout=60).splitlines()) == len(NAMES) + 1


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("csv", [(), ("--csv", "-")])
def test_a_terminal_that_is_not_utf_8_shows_names_by_their_codes_and_csv_is_utf_8(
    folder, encoding, csv, monkeypatch
):
    terminal = TextIOWrapper(BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    assert predict.main([str(DETECTOR), str(folder), *csv]) == 0
    terminal.flush()
    text = terminal.buffer.getvalue().decode("utf-8" if csv else encoding)
    assert ("数字" if csv else "\\u6570\\u5b57") in text


def test_all_scores_have_a_column_each(folder, capsys):
    columns = ["file", "class", "score", "verdict", *Detector.load(DETECTOR).thresholds]
    _, out, _ = run(capsys, DETECTOR, folder, "--all-scores", "--csv", "-")
    table = read_csv(StringIO(out))
    assert list(table) == columns and table["score"].equals(table["cosine"])
    _, out, _ = run(capsys, DETECTOR, folder, "--all-scores")
    assert out.split()[: len(columns)] == columns


@pytest.fixture
def of_own_network(tmp_path, monkeypatch):
    """A folder with a module that makes a network and its transform, and a detector that was made of it."""
    (tmp_path / "my_models.py").write_text(
        "import torch\nfrom torch import nn\nfrom torchvision.transforms import v2\n\n\n"
        "def make():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8)).eval(), transform\n\n\n"
        "transform = v2.Compose([v2.Resize((8, 8)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])\n"
        "network, nothing = make()[0], list\n\n\n"
        "def alone():\n    return make()[0]\n\n\n"
        "def fail(picture):\n    raise TypeError('too\\nsmall')\n\n\n"
        "def failing():\n    return make()[0], fail\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    sys.modules.pop("my_models", None)
    network, transform = importlib.import_module("my_models").make()
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), np.uint8)
    pairs = [(Image.fromarray(image), i % 8) for i, image in enumerate(images)]
    detector = Detector.from_classifier(network, class_names=list("abcdefgh"), transform=transform, workers=0)
    detector.fit(pairs, val=pairs).save(tmp_path / "mine")
    yield tmp_path / "mine"
    sys.modules.pop("my_models", None)


def test_a_network_of_ones_own_comes_from_a_function(of_own_network, folder, capsys):
    capsys.readouterr()
    code, out, err = run(capsys, of_own_network, folder, "--network", "my_models:make", "--csv", "-")
    table = read_csv(StringIO(out))
    assert code == 0 and table["file"].tolist() == NAMES and set(table["class"]) <= set("abcdefgh")
    assert "skipped broken.png" in err


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (None, "was made of a torch.nn.modules.container.Sequential; give it as network="),
        ("my_models", "--network my_models: "),
        ("no_models:make", "--network no_models:make: No module named 'no_models'; expected MODULE:FUNCTION"),
        ("my_models:mak", "has no attribute 'mak'; expected MODULE:FUNCTION, importable from here"),
        ("my_models:nothing", "gives a list, expected a torch module"),
        (
            "my_models:alone",
            "was made with a transform; give it as transform=, or, in the command, have the function",
        ),
    ],
)
def test_a_function_that_gives_no_network_is_told_in_one_line(
    of_own_network, folder, capsys, function, message
):
    capsys.readouterr()
    code, out, err = run(capsys, of_own_network, folder, *(["--network", function] if function else []))
    assert (code, out) == (1, "") and message in err.splitlines()[-1]


def test_a_transform_that_fails_has_one_line_for_each_picture(of_own_network, folder, capsys):
    capsys.readouterr()
    code, out, err = run(capsys, of_own_network, folder, "--network", "my_models:failing")
    lines = [line for line in err.splitlines() if "the transform fails" in line]
    assert (code, out) == (1, "") and len(lines) == len(NAMES)
    assert any(
        re.fullmatch(r"skipped grey\.png: the transform .*: TypeError: too\\nsmall", line) for line in lines
    )


def bad_input(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "a.png").write_bytes(b"no")
    (tmp_path / "file.png").write_bytes((folder / "grey.png").read_bytes())
    return {
        "no detector": ((tmp_path / "empty", folder), "holds no detector.json"),
        "no folder": ((DETECTOR, tmp_path / "missing"), "missing is not a folder"),
        "a file": ((DETECTOR, tmp_path / "file.png"), "file.png is not a folder"),
        "no pictures": ((DETECTOR, tmp_path / "empty"), "holds no pictures"),
        "no readable picture": ((DETECTOR, tmp_path / "damaged"), "none of the 1 pictures in"),
        "unknown score": (
            (DETECTOR, folder, "--score", "cosin"),
            "score 'cosin' is not known; choose one of",
        ),
        "csv is a folder": ((DETECTOR, folder, "--csv", tmp_path), "is a folder; give a file for the table"),
        "csv not writable": ((DETECTOR, folder, "--csv", tmp_path / "file.png" / "out.csv"), "file.png"),
    }


@pytest.mark.parametrize(
    "kind",
    [
        "no detector",
        "no folder",
        "a file",
        "no pictures",
        "no readable picture",
        "unknown score",
        "csv is a folder",
        "csv not writable",
    ],
)
def test_bad_input_is_one_line_on_stderr_and_exit_code_1(folder, tmp_path, capsys, kind):
    arguments, message = bad_input(tmp_path, folder)[kind]
    code, out, err = run(capsys, *arguments)
    *before, line = err.splitlines()
    assert (code, out) == (1, "") and line.startswith("oodlib-predict: ") and message in line
    skipped = [line for line in before if line.startswith("skipped")]
    assert len(skipped) == (
        kind in ("no readable picture", "csv not writable")
    )  # else it has not begun to read


def test_a_detector_without_thresholds_says_what_is_missing(folder, tmp_path, capsys):
    Detector(
        ("a", "b"), (8, 8, 1), [0.5], [0.3], DetectorModel(backbone="resnet_small", head="softmax")
    ).save(tmp_path)
    code, _, err = run(capsys, tmp_path, folder)
    assert code == 1 and "has no threshold yet" in err.splitlines()[-1]


@pytest.mark.parametrize("arguments", [[], ["only-one"], ["a", "b", "--scores", "msp"], ["a", "b", "--csv"]])
def test_bad_usage_is_exit_code_2(capsys, arguments):
    with pytest.raises(SystemExit) as error:
        predict.main(arguments)
    assert error.value.code == 2 and "usage: oodlib-predict" in capsys.readouterr().err


def test_it_runs_as_a_module_in_a_process_of_its_own(folder, expected):
    command = [sys.executable, "-m", "oodlib.predict", DETECTOR, folder, "--csv", "-"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, encoding="utf-8")
    assert done.returncode == 0
    assert read_csv(StringIO(done.stdout))["file"].tolist() == NAMES
    threshold = expected[0].thresholds["cosine"]
    assert done.stderr.splitlines()[-1].startswith(f"score cosine, threshold {threshold:g}: 1 of 6")
