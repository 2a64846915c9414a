"""What several tests share: a small run of the whole workflow, and a folder of their own for every run."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
import torch
from xdist.scheduler import LoadFileScheduling

from oodlib.pretrained import FOLDER

REPOSITORY = Path(__file__).parent.parent
SMOKE = {
    "heads": ["arcface"],
    "seeds": [0, 1],
    "outliers": ["none", "label_mixup"],
    "denoiser_training": {"denoiser_steps": 10},
    "pool": {"images_per_pair": 6},
    "detector_training": {"epochs": 2},
    "scoring": {"images_per_set": 20},
}


def pytest_configure(config):
    """No test, and no notebook under nbval, reads or writes the user's runs and image sets."""
    config.own_runs = tempfile.TemporaryDirectory(prefix="oodlib-runs-")
    os.environ["OODLIB_RUNS"] = config.own_runs.name
    os.environ["OODLIB_DATA"] = os.path.join(config.own_runs.name, "data")
    os.environ.pop("JPY_SESSION_NAME", None)  # of a notebook from which pytest may have been called
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    config.pluginmanager.register(TrainedDenoiser())
    if hasattr(config, "workerinput"):  # threads of several processes wait for each other
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)


class TrainedDenoiser:
    """Notebook 1 finds the denoiser that ships in its run, and the others find it there: to train one takes minutes.

    Notebook 1 trains in test_workflow.py. This is no fixture, as nbval's tests take none.
    """

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item):
        target = Path(item.config.own_runs.name) / "digits" / "denoiser"
        if item.nodeid.startswith("notebooks/") and not target.exists():
            shutil.copytree(FOLDER / "digits" / "denoiser", target)


class TogetherScheduling(LoadFileScheduling):
    """Tests of one file in one process, and so are files that share a run folder: all notebooks, and what looks at
    the fixture `workflow`."""

    def _split_scope(self, nodeid: str) -> str:
        path = super()._split_scope(nodeid)
        if path.startswith("notebooks/"):
            return "notebooks"
        return "workflow" if path in ("tests/test_notebooks.py", "tests/test_workflow.py") else path


def pytest_xdist_make_scheduler(config, log):
    return TogetherScheduling(config, log)


def can_unpack() -> None:
    """Skip a test that unpacks an archive where Python is older than 3.11.4."""
    if not hasattr(tarfile, "data_filter"):
        pytest.skip("this Python cannot unpack archives safely")


class Workflow:
    """A copy of the Snakefile and the notebooks in a folder of its own, and a way to run it."""

    def __init__(self, folder: Path):
        self.folder, self.run = folder, folder / "runs" / "digits"
        shutil.copy(REPOSITORY / "Snakefile", folder)
        shutil.copytree(REPOSITORY / "notebooks", folder / "notebooks")

    def __call__(self, *arguments: str, config: dict = SMOKE) -> subprocess.CompletedProcess:
        (self.folder / "smoke.json").write_text(json.dumps(config))
        environment = {k: v for k, v in os.environ.items() if k != "OODLIB_RUNS"}
        return subprocess.run(
            ["snakemake", "--cores", "2", "--configfile", "smoke.json", *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
        )


@pytest.fixture(scope="module")
def one_thread():
    """Several wait for each other where other processes have the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def workflow(tmp_path_factory) -> Workflow:
    """The whole workflow, run once at a size of seconds."""
    workflow = Workflow(tmp_path_factory.mktemp("workflow"))
    done = workflow()
    assert done.returncode == 0, done.stdout + done.stderr
    return workflow
