"""pyproject.toml, requirements.lock and environment.yml say the same."""

import re
import tomllib

import pytest
import yaml
from conftest import REPOSITORY
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
RANGES = [Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]
LOCK = [
    Requirement(line)
    for line in (REPOSITORY / "requirements.lock").read_text().splitlines()
    if line and not line.startswith("#")
]
ENVIRONMENT = yaml.safe_load((REPOSITORY / "environment.yml").read_text())["dependencies"]


@pytest.mark.parametrize("requirement", RANGES, ids=lambda r: r.name)
def test_each_dependency_is_locked_within_its_range(requirement):
    pins = [pin for pin in LOCK if pin.name == requirement.name]
    assert pins, f"{requirement.name} is missing from requirements.lock"
    for pin in pins:
        version = next(iter(pin.specifier)).version
        assert version in requirement.specifier


def test_the_lock_holds_exact_versions_only():
    assert [str(pin) for pin in LOCK if not re.fullmatch(r"==[^,*]+", str(pin.specifier))] == []


def test_torch_and_torchvision_are_a_pair():
    version = {pin.name: next(iter(pin.specifier)).version.split(".") for pin in LOCK}
    assert int(version["torchvision"][1]) - int(version["torch"][1]) == 14


def test_the_conda_environment_installs_the_lock():
    python = next(entry for entry in ENVIRONMENT if str(entry).startswith("python"))
    pip = next(entry["pip"] for entry in ENVIRONMENT if isinstance(entry, dict))
    assert SpecifierSet(python.removeprefix("python")) == SpecifierSet(PROJECT["requires-python"])
    assert pip == ["--requirement requirements.lock", "--editable ."]
    assert len(ENVIRONMENT) == 3  # python, pip, and nothing that the lock does not hold
