"""Trains in processes of their own: killed and started again, and two together. Run by test_checkpoints.py.

Everything is imported once, and each process is forked from here.
"""

import json
import os
import random
import signal
import socket
import sys
import traceback
from pathlib import Path

from safetensors.torch import save_file

from oodlib import checkpoints, training
from oodlib.datasets.loading import load
from oodlib.detection import train as train_detector
from oodlib.detection.detector import Detector
from oodlib.diffusion import train as train_denoiser
from oodlib.diffusion.denoiser import Denoiser
from oodlib.settings import DenoiserModel, DenoiserTraining, DetectorModel, DetectorTraining

os.fsync = lambda file: None  # guards against power cuts, not against kills, and can be slow
STEPS = 10
TRAIN = load("digits", "train")
IMAGES, LABELS, OUTLIERS = TRAIN.images[:48], TRAIN.labels[:48], 255 - TRAIN.images[100:140]


def fit_denoiser(dropout=0.1, **options):
    model = Denoiser(TRAIN.class_names, (8, 8, 1), DenoiserModel(block_out_channels=(8, 8), dropout=dropout))
    history = train_denoiser.fit_denoiser(
        model,
        IMAGES,
        LABELS,
        DenoiserTraining(denoiser_steps=STEPS, denoiser_batch_size=20, flip=True),
        checkpoint_every_s=0,
        **options,
    )
    return model, history


def fit_detector(**options):
    model = Detector(
        TRAIN.class_names,
        (8, 8, 1),
        [0.3],
        [0.37],
        DetectorModel(backbone="resnet_small", head="scaled_cosine"),
    )
    history = train_detector.fit_detector(
        model,
        IMAGES,
        LABELS,
        DetectorTraining(
            epochs=STEPS * 20 / 48, batch_size=20, outlier_batch_size=12, learning_rate=0.02, flip=True
        ),
        outliers=OUTLIERS,
        checkpoint_every_s=0,
        **options,
    )
    return model, history


def in_a_process(work, *arguments, **options) -> int:
    """The process's number; it ends with 0 unless `work` fails or is killed."""
    number = os.fork()
    if number:
        return number
    try:
        work(*arguments, **options)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


def end_of(number: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def train(fit, to: Path, kill: tuple[str, int] | None = None, **options):
    """Train and write the weights, or be killed: `kill` says where, and how many times that went well before."""
    if kill:
        where, left = kill
        owner, name, death = {
            "within a step": (training.Progress, "update", die),
            "half a file written": (checkpoints, "save_file", write_half_and_die),
            "before the file has its name": (os, "replace", die),
            "before a file is removed": (Path, "unlink", die),
        }[where]
        usual, calls = getattr(owner, name), iter(range(left))
        setattr(owner, name, lambda *a, **k: (death if next(calls, None) is None else usual)(*a, **k))
    model, history = fit(**options)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, to / "weights")
    history.to_csv(to / "history.csv")


def write_half_and_die(tensors, path, metadata):
    save_file(tensors, path, metadata)
    os.truncate(path, os.path.getsize(path) // 2)
    die()


def killed(fit, folder: Path) -> dict:
    """Train once without a break, and once with a kill at each place, after a step or two each time."""
    draw = random.Random(0)
    places = (
        "within a step",
        "half a file written",
        "before the file has its name",
        "before a file is removed",
    )
    kills = [(where, draw.randint(1, 2)) for where in places]
    for name in ("whole", "killed"):
        (folder / name).mkdir(parents=True)
    ends = [end_of(in_a_process(train, fit, folder / "whole"))]
    for kill in (*kills, None):
        ends.append(end_of(in_a_process(train, fit, folder / "killed", kill, checkpoints=folder / "saved")))
    return {"ends": ends, "left": sorted(path.name for path in (folder / "saved").iterdir())}


def together(folder: Path) -> dict:
    """Train in one process, and in two as `accelerate launch` starts them."""
    for name in ("one", "0", "1"):
        (folder / name).mkdir(parents=True)
    numbers = [in_a_process(train, fit_denoiser, folder / "one", dropout=0.0)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    for rank in ("0", "1"):
        os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"}
        saved = dict(checkpoints=folder / "saved", dropout=0.0)
        numbers.append(in_a_process(train, fit_denoiser, folder / rank, **saved))
    return {"ends": [end_of(number) for number in numbers]}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = {
        "denoiser": killed(fit_denoiser, folder / "denoiser"),
        "detector": killed(fit_detector, folder / "detector"),
        "together": together(folder / "together"),
    }
    (folder / "found.json").write_text(json.dumps(found))
