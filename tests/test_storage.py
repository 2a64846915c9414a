"""A model's two files: whatever is wrong with them is told on one line that names the file."""

import json

import pytest
import torch

from oodlib import files, storage
from oodlib.errors import InputError

TENSORS = {"weight": torch.arange(6.0).view(2, 3)}
IMAGES = {"class_names": ["a", "b"], "image_shape": [8, 8, 1]}
ABOUT = {
    "denoiser": IMAGES | {"dropout": 0.1, "prediction_type": "epsilon"},
    "detector": IMAGES | {"mean": [0.3], "std": [0.4], "network": "abc", "head": "softmax"},
    "scores": {"network": "abc", "tpr": 0.95, "thresholds": {"msp": -0.5}},
}


def read(folder, name):
    with storage.reading(folder, name) as found:
        return found


def told(folder, name):
    with pytest.raises(InputError) as error:
        read(folder, name)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(params=ABOUT)
def name(request, tmp_path):
    """A kind of model, of which `tmp_path` holds one."""
    storage.write(tmp_path, request.param, ABOUT[request.param], TENSORS)
    return request.param


def test_what_was_written_is_read_back(tmp_path, name):
    about, tensors = read(tmp_path, name)
    assert about == ABOUT[name] and torch.equal(tensors["weight"], TENSORS["weight"])


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_a_missing_file_is_told_with_the_notebook(tmp_path, name, suffix):
    (tmp_path / f"{name}.{suffix}").unlink()
    notebook = "01_train_ddpm" if name == "denoiser" else "03_train_detector"
    assert told(tmp_path, name) == f"{tmp_path} holds no {name}.{suffix}; train one with notebook {notebook}"


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
@pytest.mark.parametrize("share", [0, 0.5, 0.9])
def test_a_cut_file_is_told(tmp_path, name, suffix, share):
    path = tmp_path / f"{name}.{suffix}"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    message = f"{path} is damaged or of another version of oodlib; delete the folder and make it again with notebook"
    assert told(tmp_path, name).startswith(message)


def test_a_pointer_of_git_lfs_is_told(tmp_path, name):
    (tmp_path / f"{name}.safetensors").write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n")
    assert told(tmp_path, name).endswith(
        f"{name}.safetensors is a git-LFS pointer, not the file itself; run git lfs pull"
    )


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, name, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(storage, "load_file", refuse)
    assert told(tmp_path, name) == f"{tmp_path / name}.safetensors cannot be read: Permission denied"


def test_an_unknown_key_as_a_newer_version_may_write_is_told(tmp_path, name):
    files.write_json(tmp_path / f"{name}.json", ABOUT[name] | {"new": 1})
    assert f"{name}.json is damaged or of another version" in told(tmp_path, name)
    assert "(new: Extra inputs are not permitted)" in told(tmp_path, name)


@pytest.mark.parametrize(
    "kind, values, wrong",
    [
        ("denoiser", {"image_shape": [8, 8]}, "image_shape: "),
        ("denoiser", {"class_names": []}, "class_names: "),
        ("denoiser", {"class_names": "ab"}, "class_names: "),
        ("denoiser", {"dropout": "much"}, "dropout = 'much' (str), expected a number from 0"),
        ("detector", {"mean": [float("nan")]}, "mean.0: Input should be a finite number"),
        ("detector", {"std": [0.0]}, "std.0: Input should be greater than 0"),
        ("detector", {"std": [0.4, 0.4]}, "mean and std are of 1 and 2 channels"),
        ("detector", {"head": "arc"}, "head = 'arc' (str), expected one of softmax"),
        ("detector", {"network": None}, "network: "),
        ("scores", {"thresholds": {}}, "thresholds: "),
        ("scores", {"thresholds": {"msp": float("nan")}}, "thresholds.msp: "),
        ("scores", {"thresholds": {"msp": "0.5"}}, "thresholds.msp: "),
        ("scores", {"tpr": 95}, "tpr: "),
    ],
)
def test_a_value_that_cannot_be_is_told(tmp_path, kind, values, wrong):
    storage.write(tmp_path, kind, ABOUT[kind] | values, TENSORS)
    assert told(tmp_path, kind).startswith(f"{tmp_path / kind}.json is damaged")
    assert wrong in told(tmp_path, kind)


@pytest.mark.parametrize(
    "kind, key", [(kind, key) for kind in ABOUT for key in ABOUT[kind] if key not in ("dropout", "head")]
)
def test_a_missing_key_is_told_unless_it_is_a_setting(tmp_path, kind, key):
    about = {k: v for k, v in ABOUT[kind].items() if k != key}
    storage.write(tmp_path, kind, about, TENSORS)
    if key == "prediction_type":
        assert read(tmp_path, kind)[0] == about
    else:
        assert f"({key}: Field required)" in told(tmp_path, kind)


def test_a_threshold_below_all_scores_is_read(tmp_path):
    storage.write(tmp_path, "scores", ABOUT["scores"] | {"thresholds": {"msp": float("-inf")}}, TENSORS)
    assert json.loads((tmp_path / "scores.json").read_text()) == read(tmp_path, "scores")[0]


def test_an_error_of_the_block_names_the_file(tmp_path, name):
    for failure, expected in (
        (KeyError("weight"), f"{name}.safetensors does not fit {name}.json, it is damaged or"),
        (InputError("margin = 9"), f"{name}.json: margin = 9"),
    ):
        with (
            pytest.raises(InputError, match=f"^{tmp_path}/{expected}"),
            storage.reading(tmp_path, name),
        ):
            raise failure
