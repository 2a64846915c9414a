"""The notebooks: what is committed, and what they do with missing input and bad parameters."""

import ast
import base64
import json
import os
import re
import struct
import subprocess

import nbformat
import papermill
import pytest
from conftest import REPOSITORY

from oodlib.notebook import parameters
from oodlib.settings import Settings

pytestmark = pytest.mark.slow

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def outputs(path):
    return [output for cell in code_cells(path) for output in cell.outputs]


def test_they_are_numbered_in_order():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{i:02}" for i in range(len(NOTEBOOKS))]


@every_notebook
def test_it_is_committed_executed_without_errors_and_small(path):
    assert path.stat().st_size <= 300_000
    assert [cell.execution_count for cell in code_cells(path)] == list(range(1, len(code_cells(path)) + 1))
    assert "error" not in {output.output_type for output in outputs(path)}


@every_notebook
def test_it_carries_no_widget_state_no_batch_metadata_and_no_path_of_a_machine(path):
    text = path.read_text()
    assert not set(json.loads(text)["metadata"]) & {"widgets", "papermill"}
    assert not re.search(r"/(home|Users|root|tmp|work|private)/", text)


@every_notebook
def test_its_figures_are_at_most_1100_pixels_wide(path):
    pictures = [output.data["image/png"] for output in outputs(path) if "image/png" in output.get("data", {})]
    widths = [struct.unpack(">I", base64.b64decode(picture)[16:20])[0] for picture in pictures]
    assert widths and max(widths) <= 1100


@every_notebook
def test_its_parameters_are_explained_literals_that_settings_know(path):
    cells = [cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(cells) == 1
    for line, statement in zip(cells[0].source.splitlines(), ast.parse(cells[0].source).body, strict=True):
        ast.literal_eval(statement.value)
        assert statement.targets[0].id in Settings.model_fields
        assert re.search(r"  # .{3,}", line), f"not explained: {line}"


@every_notebook
def test_its_parameters_pass_the_check(path):
    source = next(cell.source for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", []))
    namespace = {"In": [source]}
    exec(source, namespace)
    assert parameters(namespace, path.stem).preset == "digits"


@every_notebook
def test_it_begins_with_a_title_and_says_what_it_needs_makes_and_takes(path):
    first = nbformat.read(path, as_version=4).cells[0].source
    assert re.match(rf"# {int(path.stem[:2])} · ", first)
    assert all(f"| {word} |" in first for word in ("needs", "makes", "takes"))


def run(tmp_path, name, **parameters):
    """Execute a notebook in an empty folder and return the error that stops it and the cells that ran."""
    out = tmp_path / "out.ipynb"
    with pytest.raises(papermill.PapermillExecutionError) as error:
        papermill.execute_notebook(
            REPOSITORY / "notebooks" / f"{name}.ipynb",
            out,
            parameters={"run": str(tmp_path / "run"), **parameters},
            progress_bar=False,
        )
    ran = [cell for cell in code_cells(out) if cell.execution_count]
    return error.value, ran


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("03_train_detector", {"head": "arc"}, "head = 'arc' (str), expected one of softmax, scaled_cosine"),
        ("01_train_ddpm", {"denoiser_stesp": 5}, "parameter 'denoiser_stesp' is not known (did you mean"),
    ],
)
def test_a_bad_parameter_stops_it_in_the_first_cell_with_one_line(tmp_path, name, parameters, message):
    error, ran = run(tmp_path, name, **parameters)
    assert error.evalue.startswith(message)
    assert error.traceback == [f"InputError: {error.evalue}"]
    assert ran[-1].source.startswith("from oodlib.notebook import parameters") and len(ran) == 3
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "maker"),
    [
        ("02_label_mixup", "01_train_ddpm"),
        ("03_train_detector", "02_label_mixup"),
        ("04_score_distributions", "03_train_detector"),
        ("05_compare", "03_train_detector"),
        ("06_which_outliers", "03_train_detector"),
        ("07_denoiser_scores", "01_train_ddpm"),
    ],
)
def test_missing_input_is_named_with_the_notebook_that_makes_it(tmp_path, name, maker):
    error, _ = run(tmp_path, name)
    assert "is not there" in error.evalue and f"papermill notebooks/{maker}.ipynb" in error.evalue


def test_papermill_alone_trains_a_detector(tmp_path):
    environment = os.environ | {"OODLIB_RUNS": str(tmp_path)}
    command = "papermill notebooks/03_train_detector.ipynb {} -p head arcface -p outliers none -p epochs 1"
    arguments = [*command.format(tmp_path / "out.ipynb").split(), "-p", "seeds", "[0]", "--no-progress-bar"]
    subprocess.run(arguments, cwd=REPOSITORY, env=environment, check=True, capture_output=True)
    assert (tmp_path / "digits" / "detectors" / "arcface-none+degraded" / "seed0" / "metrics.csv").is_file()


def test_a_notebook_of_the_run_is_its_log(workflow):
    executed = workflow.run / "notebooks" / "03_train_detector-arcface-label_mixup.ipynb"
    printed = "".join(output.text for output in outputs(executed) if output.output_type == "stream")
    assert "arcface, label_mixup, seed 0: step" in printed and "closed-set accuracy" in printed
