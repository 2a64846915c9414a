"""The package as it is installed and imported."""

import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import REPOSITORY

import oodlib
from oodlib.detection.detector import Detector
from oodlib.diffusion.denoiser import Denoiser
from oodlib.outliers.sources import label_mixup


def python(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, **options)


def test_the_main_names_come_from_the_package_itself():
    assert (oodlib.Denoiser, oodlib.Detector, oodlib.label_mixup) == (Denoiser, Detector, label_mixup)


def test_importing_the_package_imports_nothing_else():
    code = "import sys; before = set(sys.modules); import oodlib; print(sorted(set(sys.modules) - before))"
    assert python(code).stdout.strip() == "['oodlib']"


def test_no_file_has_more_than_300_lines():
    files = (REPOSITORY / "oodlib").rglob("*.py")
    assert [str(f) for f in files if len(f.read_text(encoding="utf-8").splitlines()) > 300] == []


def files(folder):
    """The package's files below a folder, but for what Python compiled."""
    found = (path for path in (folder / "oodlib").rglob("*") if path.is_file())
    return {path.relative_to(folder) for path in found if "__pycache__" not in path.parts}


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_the_weights_and_imports(tmp_path):
    for name in ("oodlib", "pyproject.toml", "README.md", "LICENSE"):  # a build leaves files behind
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, tmp_path / name)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*build, "--wheel-dir", "dist", "."], check=True, capture_output=True, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    assert files(tmp_path / "installed") == files(REPOSITORY)
    modules = [path.with_suffix("").parts for path in files(REPOSITORY) if path.suffix == ".py"]
    names = sorted(".".join(parts).removesuffix(".__init__") for parts in modules)
    # As on Windows, without fcntl.
    code = (
        f"import importlib, sys; sys.modules['fcntl'] = None; [importlib.import_module(n) for n in {names}]"
    )
    python(code, cwd=tmp_path / "installed")
