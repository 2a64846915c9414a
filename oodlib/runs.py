"""A run's folder: where things lie, what is there, and writing so that nothing is ever half-written."""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from oodlib.errors import InputError
from oodlib.files import atomic, place, read_json, write_json
from oodlib.presets import PRESETS, PROFILES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def runs_folder() -> Path:
    """Where run folders live: `$OODLIB_RUNS`, else `runs` beside the Snakefile."""
    return place("OODLIB_RUNS", "runs")


class Run:
    """The folder of one run and the places in it.

    Args:
        name: A name under `runs_folder()`, such as `digits`, or a path.
    """

    def __init__(self, name: str):
        self.name = name
        is_path = os.sep in name or name in (".", "..")
        self.folder = Path(name).expanduser() if is_path else runs_folder() / name
        self.denoiser = self.folder / "denoiser"
        self.outliers = self.folder / "outliers"
        self.detectors = self.folder / "detectors"
        self.results = self.folder / "results.csv"
        self.summary = self.folder / "summary.md"
        self.figures = self.folder / "figures"

    def __str__(self) -> str:
        """The folder as its owner would write it: without the way there from a notebook."""
        return str(self.folder).removeprefix("../")

    def detector(self, head: str, outliers: str, seed: int) -> Path:
        """The folder of one detector: its weights, settings, per-image scores and metrics."""
        return self.detectors / f"{head}-{outliers}" / f"seed{seed}"

    def require(self, path: Path, notebook: str, **parameters: object) -> Path:
        """`path`, if it is there; else an error that names the notebook which makes it, with these parameters."""
        if not path.exists():
            preset, _, profile = self.name.partition("-")
            if preset in PRESETS and profile in ("", *PROFILES[preset]):
                given = {"preset": preset} | ({"profile": profile} if profile else {})
            else:
                given = {"run": self.name}
            options = "".join(f" -p {name} {value}" for name, value in {**given, **parameters}.items())
            raise InputError(
                f"{str(path).removeprefix('../')} is not there; make it with notebook {notebook}: open it and run "
                f"all cells, or type: papermill notebooks/{notebook}.ipynb out.ipynb{options}"
            )
        return path

    def must_make(self, folder: Path, settings: dict[str, Any]) -> bool:
        """Whether the step in `folder` is still to be done with these settings, or done with others.

        If so, its mark is taken away before anything is written, so that no mark ever stands beside the files
        of another attempt. `finish` sets it.
        """
        mark = folder / "settings.json"
        made = read_json(mark) if mark.is_file() else {"settings": None, "files": []}
        is_whole = all((folder / file).is_file() for file in made["files"])
        if is_whole and made["settings"] == json.loads(json.dumps(settings)):
            print(
                f"{str(folder).removeprefix('../')} was made with these settings and is kept; delete it to redo it"
            )
            return False
        mark.unlink(missing_ok=True)
        return True

    def finish(self, folder: Path, settings: dict[str, Any]) -> None:
        """Mark the step in `folder`, with all files in it, as done with these settings: the last file written.

        Its checkpoints are removed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        files = sorted(f.name for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))
        write_json(folder / "settings.json", {"settings": settings, "files": files})
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)

    def tables(self, name: str) -> pd.DataFrame:
        """The tables of that name, `metrics`, `scores` or `validation`, of all finished detectors, as one."""
        marks = sorted(self.detectors.glob("*/seed*/settings.json"))
        tables = [path for mark in marks if (path := mark.with_name(f"{name}.csv")).is_file()]
        if not tables:
            self.require(self.detectors / "*" / "seed*" / f"{name}.csv", "03_train_detector")
        # The denoiser predicts no class, and a column of digits with gaps would be read as numbers.
        return pd.concat([pd.read_csv(path, dtype={"predicted": str}) for path in tables], ignore_index=True)

    def unequal_settings(self) -> dict[str, list]:
        """Settings in which this run's detectors differ although a comparison wants them equal, by name."""
        values: dict[str, list] = {}
        for mark in sorted(self.detectors.glob("*/seed*/settings.json")):
            made = read_json(mark)["settings"]
            made[f"images ({made['outliers']})"] = made.pop("images")
            for name in made.keys() - {"head", "outliers", "scale", "margin"}:
                if made[name] not in values.setdefault(name, []):
                    values[name].append(made[name])
        return {name: found for name, found in sorted(values.items()) if len(found) > 1}

    def save_figure(self, figure: "Figure", name: str) -> "Figure":
        """Save a figure as `figures/<name>.png` and return it, so that a notebook shows it too."""
        with atomic(self.figures / f"{name}.png") as part:
            figure.savefig(part, dpi=150)
        return figure
