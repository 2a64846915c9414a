import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPOSITORY
from safetensors import safe_open
from safetensors.torch import load_file
from test_training import IMAGES, LABELS, every_exposure, fit, fit_tiny, make_denoiser, same_weights
from torch.testing import assert_close

from oodlib import checkpoints, training
from oodlib.checkpoints import Checkpoints, read, with_tensors, write
from oodlib.detection.detector import Detector
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.train import fit_denoiser
from oodlib.errors import InputError
from oodlib.settings import DenoiserModel, DenoiserTraining

LOOPS = pytest.mark.parametrize("train", [fit, fit_tiny], ids=["detector", "denoiser"])


@pytest.fixture(scope="module")
def processes(tmp_path_factory) -> Path:
    """What `processes.py` left: trainings that were killed and started again, and one in two processes."""
    folder = tmp_path_factory.mktemp("processes")
    # On as many threads as they like: what is compared depends on rounding. These wait without taking a core.
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment["OMP_WAIT_POLICY"] = "passive"
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "tests" / "processes.py"), str(folder)],
        env={**environment, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "printed.txt").write_text(done.stdout)
    return folder


def found(processes, what):
    return json.loads((processes / "found.json").read_text())[what]


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["denoiser", "detector"])
def test_killed_training_ends_with_the_weights_of_one_never_interrupted(processes, loop):
    assert found(processes, loop)["ends"] == [0, -9, -9, -9, -9, 0]
    for file in ("weights", "history.csv"):
        assert (processes / loop / "killed" / file).read_bytes() == (
            processes / loop / "whole" / file
        ).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["denoiser", "detector"])
def test_killed_training_never_starts_again_from_the_beginning(processes, loop):
    lines = [
        line for line in (processes / "printed.txt").read_text().splitlines() if f"/{loop}/saved" in line
    ]
    steps = [int(line.rpartition(" ")[2]) for line in lines]
    assert len(steps) == 4
    assert 0 < steps[0] < steps[1] < steps[2] < steps[3] < 10


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["denoiser", "detector"])
def test_killed_training_leaves_nothing_half_written_in_the_end(processes, loop):
    assert found(processes, loop)["left"] == ["step-00000009.safetensors", "step-00000010.safetensors"]


@pytest.mark.slow
def test_two_processes_end_with_equal_weights(processes):
    assert found(processes, "together")["ends"] == [0, 0, 0]
    first, second = (processes / "together" / rank / "weights" for rank in "01")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
def test_two_processes_train_like_one(processes):
    one, two = (pd.read_csv(processes / "together" / name / "history.csv") for name in ("one", "0"))
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-4)
    one, two = (load_file(processes / "together" / name / "weights") for name in ("one", "0"))
    assert_close(two, one, rtol=1e-2, atol=1e-3)


class Stop(Exception):
    pass


def stop_at(step, monkeypatch):
    """Let the next training stop in that step, as if it was killed there."""
    usual = training.Progress.update

    def update(progress, now, *arguments):
        if now == step:
            monkeypatch.setattr(training.Progress, "update", usual)
            raise Stop
        usual(progress, now, *arguments)

    monkeypatch.setattr(training.Progress, "update", update)


def stopped(train, folder, monkeypatch, step=5, **options):
    """The checkpoints of a training that was stopped in a step."""
    stop_at(step, monkeypatch)
    with pytest.raises(Stop):
        train(checkpoints=folder, checkpoint_every_s=0, **options)
    return sorted(folder.iterdir())


@LOOPS
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_stopped_training_goes_on_to_the_same_weights(train, precision, tmp_path, monkeypatch):
    stopped(train, tmp_path, monkeypatch, precision=precision)
    resumed, history = train(checkpoints=tmp_path, precision=precision)
    whole, expected = train(precision=precision)
    assert same_weights(resumed, whole)
    assert history.equals(expected)


@every_exposure
def test_stopped_training_of_every_exposure_goes_on_to_the_same_weights(
    exposure, tmp_path, monkeypatch, capsys
):
    stopped(fit, tmp_path, monkeypatch, **exposure)
    resumed, history = fit(checkpoints=tmp_path, **exposure)
    assert "training goes on after step 4" in capsys.readouterr().out
    whole, expected = fit(**exposure)
    assert same_weights(resumed, whole) and history.equals(expected)


@LOOPS
def test_the_last_two_checkpoints_are_kept(train, tmp_path, monkeypatch):
    names = [path.name for path in stopped(train, tmp_path, monkeypatch)]
    assert names == ["step-00000003.safetensors", "step-00000004.safetensors"]


@LOOPS
def test_checkpoints_do_not_change_the_training(train, tmp_path):
    assert same_weights(train(checkpoints=tmp_path, checkpoint_every_s=0)[0], train()[0])


@LOOPS
def test_finished_training_is_not_done_again(train, tmp_path, monkeypatch):
    first, history = train(checkpoints=tmp_path)
    monkeypatch.setattr(training.Progress, "update", None)  # no step may be taken
    second, again = train(checkpoints=tmp_path)
    assert same_weights(first, second)
    assert history.equals(again)
    assert not any(module.training for module in second.modules())


@LOOPS
def test_checkpoint_holds_tensors_and_json_alone(train, tmp_path, monkeypatch):
    path = stopped(train, tmp_path, monkeypatch)[-1]
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
    assert about["step"] == 4
    assert about["settings"]["denoiser_batch_size" if train is fit_tiny else "batch_size"] == 16


@LOOPS
@pytest.mark.parametrize(
    "size", [0, 5, 1000, -1], ids=["empty", "no header", "half a header", "a byte short"]
)
def test_damaged_checkpoint_falls_back_to_the_one_before(train, size, tmp_path, monkeypatch, capsys):
    newest = stopped(train, tmp_path, monkeypatch)[-1]
    os.truncate(newest, size % newest.stat().st_size)
    resumed, _ = train(checkpoints=tmp_path)
    printed = capsys.readouterr().out
    assert f"{newest} is damaged" in printed
    assert "step-00000003.safetensors: training goes on after step 3" in printed
    assert same_weights(resumed, train()[0])


def test_damaged_checkpoints_alone_start_training_again(tmp_path, monkeypatch, capsys):
    for path in stopped(fit_tiny, tmp_path, monkeypatch):
        os.truncate(path, 100)
    resumed, _ = fit_tiny(checkpoints=tmp_path)
    assert "has no checkpoint to go on from; training starts again" in capsys.readouterr().out
    assert same_weights(resumed, fit_tiny()[0])


OTHER = {
    fit_tiny: {
        "denoiser_steps": 6,
        "denoiser_batch_size": 8,
        "denoiser_learning_rate": 1e-3,
        "label_dropout": 0.2,
        "ema_decay": 0.9,
        "flip": True,
        "seed": 1,
    },
    fit: {
        "epochs": 3,
        "batch_size": 8,
        "outlier_batch_size": 4,
        "outlier_weight": 0.1,
        "warmup": 0.5,
        "learning_rate": 0.01,
        "weight_decay": 0.0,
        "degrade": 1.0,
        "noise_levels": (0.3, 1.0),
        "clean_share": 0.5,
        "double_batch": True,
        "flip": True,
        "seed": 1,
    },
}


@pytest.mark.parametrize(
    "train, name, value",
    [(train, name, value) for train, others in OTHER.items() for name, value in others.items()],
)
def test_checkpoint_of_another_setting_is_not_resumed(train, name, value, tmp_path, monkeypatch, capsys):
    stopped(train, tmp_path, monkeypatch, step=3)
    stop_at(1, monkeypatch)
    with pytest.raises(Stop):  # in its first step, so it does start again
        train(checkpoints=tmp_path, **{name: value})
    printed = capsys.readouterr().out
    assert f"step-00000002.safetensors was written with other settings ({name}) and is not used" in printed
    assert "training starts again" in printed


@pytest.mark.parametrize(
    "name, images, denoiser",
    [
        ("data", 255 - IMAGES, make_denoiser()),
        ("weights", IMAGES, fit_tiny(steps=1)[0]),
        (
            "model",
            IMAGES,
            Denoiser(
                tuple("01234567"),
                (8, 8, 1),
                DenoiserModel(block_out_channels=(8, 16), prediction_type="epsilon"),
            ),
        ),
    ],
)
def test_checkpoint_of_another_start_is_not_resumed(name, images, denoiser, tmp_path, capsys):
    fit_tiny(checkpoints=tmp_path)
    fit_denoiser(
        denoiser,
        images,
        LABELS,
        DenoiserTraining(denoiser_steps=5, denoiser_batch_size=16),
        checkpoints=tmp_path,
    )
    assert f"written with other settings ({name}) and is not used" in capsys.readouterr().out


def test_checkpoints_of_other_settings_go_only_when_a_new_one_is_there(tmp_path, monkeypatch):
    stopped(fit_tiny, tmp_path, monkeypatch)
    monkeypatch.setattr(checkpoints, "write", lambda *_: pytest.fail("enough"))
    with pytest.raises(pytest.fail.Exception):
        fit_tiny(checkpoints=tmp_path, seed=1)
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.undo()
    fit_tiny(checkpoints=tmp_path, seed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005.safetensors"]


def test_other_files_in_the_folder_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    fit_tiny(checkpoints=tmp_path, checkpoint_every_s=0)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def spoil(train, monkeypatch, step, what):
    """Let the loss of a step, or its slope alone, be nan."""
    owner, name = (Denoiser, "loss") if train is fit_tiny else (Detector, "features")
    usual, steps = getattr(owner, name), iter(range(1, 10**6))

    def spoilt(*arguments):
        value = usual(*arguments)
        if next(steps) != step:
            return value
        return value * torch.nan if what == "loss" else value + (value - value.detach()).abs().sqrt()

    monkeypatch.setattr(owner, name, spoilt)


@LOOPS
def test_loss_that_is_not_finite_is_told_with_its_step_and_learning_rate(train, monkeypatch):
    # Of 300 steps every third is looked at: the 7th is told after the 9th.
    spoil(train, monkeypatch, 7, "loss")
    options = {"steps": 300, "learning_rate": 3e-3} if train is fit_tiny else {"epochs": 100}
    rate = (
        "0.0006" if train is fit_tiny else "0.02"
    )  # of 30 warm-up steps six are done; the cosine has not begun
    with pytest.raises(
        InputError, match=f"the loss is nan at step 7, where the learning rate is {rate}; lower it$"
    ):
        train(**options)


@LOOPS
@pytest.mark.parametrize("what", ["loss", "slope"])
def test_last_checkpoint_is_from_before_a_loss_or_weight_that_is_not_finite(
    train, what, tmp_path, monkeypatch
):
    spoil(train, monkeypatch, 4, what)
    error = "the loss is nan" if what == "loss" else "the weights are not finite"
    with pytest.raises(InputError, match=f"{error} at step 4"):
        train(checkpoints=tmp_path, checkpoint_every_s=0)
    newest = max(tmp_path.iterdir())
    about, tensors = read(newest)
    assert about["step"] == 3
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values() if tensor.is_floating_point())


@LOOPS
def test_checkpoint_between_looks_at_the_loss_is_not_written_from_nan(train, tmp_path, monkeypatch):
    spoil(train, monkeypatch, 7, "loss")
    options = {"steps": 300} if train is fit_tiny else {"epochs": 100}
    saved = iter([False] * 7 + [True])  # due after the 8th step, while losses are looked at after the 9th
    monkeypatch.setattr(Checkpoints, "update", lambda self, step: self.save(step) if next(saved) else None)
    with pytest.raises(InputError, match="at step 7"):
        train(checkpoints=tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_are_written_by_time(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    saved, written = Checkpoints(tmp_path, {}, {}, every_s=60), []
    for step, second in enumerate([101, 159, 160, 161, 219, 225], start=1):
        now[0] = second
        saved.update(step)
        written.append(len(list(tmp_path.iterdir())))
    assert written == [0, 0, 1, 1, 1, 2]


def test_state_comes_back_as_it_was(tmp_path):
    layout = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    state = {
        "sum": 0.1 + 0.2,
        "count": 2**60,
        "none": None,
        "list": [torch.tensor(3, dtype=torch.int64), [True, "text"]],
        "layout": layout,
        "empty": torch.empty(0, 7, dtype=torch.uint8),
        "dotted.name": {"0": torch.tensor(1.5, dtype=torch.float64)},
    }
    write(tmp_path / "one.safetensors", 3, {"a": [1]}, state)
    about, tensors = read(tmp_path / "one.safetensors")
    assert (about["step"], about["settings"]) == (3, {"a": [1]})
    back = with_tensors(about["state"], tensors)
    assert back.keys() == state.keys()
    assert [back[name] for name in ("sum", "count", "none")] == [0.1 + 0.2, 2**60, None]
    assert back["list"][0].dtype == torch.int64
    assert back["list"] == state["list"]
    assert torch.equal(back["layout"], layout)
    assert back["layout"].stride() == layout.stride()
    assert (back["empty"].shape, back["empty"].dtype) == ((0, 7), torch.uint8)
    assert torch.equal(back["dotted.name"]["0"], state["dotted.name"]["0"])


@pytest.mark.parametrize(("warmup", "step"), [(0.0, 3), (0.1, 0)])
def test_a_setting_that_a_checkpoint_does_not_know_was_off(warmup, step, tmp_path, capsys):
    random = torch.Generator()
    Checkpoints(tmp_path, {"epochs": 2}, {"random": random}).save(3)
    settings = {"epochs": 2, "warmup": warmup}
    assert Checkpoints(tmp_path, settings, {"random": random}).resume() == step
    assert ("other settings (warmup)" in capsys.readouterr().out) is (step == 0)


def test_generator_goes_on_where_it_was(tmp_path):
    random = torch.Generator().manual_seed(3)
    torch.rand(5, generator=random)
    Checkpoints(tmp_path, {}, {"random": random}).save(1)
    expected = torch.rand(5, generator=random)
    assert Checkpoints(tmp_path, {}, {"random": random}).resume() == 1
    assert torch.equal(torch.rand(5, generator=random), expected)


def test_process_that_is_not_the_main_one_reads_but_neither_writes_nor_prints(tmp_path, capsys):
    random = torch.Generator().manual_seed(3)
    Checkpoints(tmp_path, {}, {"random": random}).save(4)
    other = Checkpoints(tmp_path, {}, {"random": random}, is_main=False)
    assert other.resume() == 4
    other.save(5)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000004.safetensors"]
    assert capsys.readouterr().out == ""


@LOOPS
def test_stopped_training_leaves_the_global_random_state(train, tmp_path, monkeypatch):
    before = torch.get_rng_state()
    stopped(train, tmp_path, monkeypatch)
    train(checkpoints=tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
