"""A run's folder: where things lie, and what the run is of."""

import json
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from oodlib.errors import InputError, tell
from oodlib.files import (
    atomic,
    lock,
    place,
    read_csv,
    read_json,
    reading,
    shown,
    try_writing,
    write_csv,
    write_json,
)
from oodlib.marks import MARKS, Mark
from oodlib.settings import Data, Experiment, Settings

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# What may differ from detector to detector in a comparison.
OF_ONE_DETECTOR = {
    *("head", "head_options", "outliers", "seed", "detector", "scores", "statistics"),
    *("noise_levels", "clean_share", "degrade", "augmentation"),  # a condition, which tables name
}
ABOUT = {*Experiment.model_fields, *Data.model_fields} - {"run"}  # what a run says of itself
DENOISER = "denoiser"  # what stands in the place of a head where the denoiser itself tells ID from OOD


def runs_folder() -> Path:
    """Where run folders live: `$OODLIB_RUNS`, else `runs` beside the Snakefile."""
    return place("OODLIB_RUNS", "runs")


class Run:
    """The folder of one run and the places in it.

    Args:
        name: A name under `runs_folder()`, such as `digits`, or a path.
        settings: What the run is to be of, for the commands that messages advise.
        shipped: The folder of results that ship in the place of this run's; it is only read.
    """

    def __init__(self, name: str, settings: Experiment | None = None, shipped: Path | None = None):
        self.name, self.settings, self.is_shipped = name, settings, shipped is not None
        is_path = "/" in name or os.sep in name or name in (".", "..")
        self.folder = shipped or (Path(name).expanduser() if is_path else runs_folder() / name)
        self.about = self.folder / "run.json"
        self.denoiser = self.folder / "denoiser"
        self.committee = self.folder / "committee"
        self.outliers = self.folder / "outliers"
        self.generator = self.folder / "generator"
        self.detectors = self.folder / "detectors"
        self.results = self.folder / "results.csv"
        self.summary = self.folder / "summary.md"
        self.figures = self.folder / "figures"

    def __str__(self) -> str:
        """The folder as its owner would write it: without the way there from a notebook."""
        return shown(self.folder)

    def experiment(self) -> dict[str, Any]:
        """What the run says of itself: its preset, profile, ID images and their shape; empty where it holds nothing."""
        if not self.about.exists():
            return {}
        advice = "delete it and run notebook 1 or 3 with the run's preset and images, which writes it again"
        with reading(self.about, advice):
            about = read_json(self.about)
            if not {"preset"} <= about.keys() <= ABOUT:
                raise ValueError("these are not the settings of a run")
            return about

    def claim(self, settings: Settings) -> None:
        """Have the run say what it is of, before its first step; whoever comes first says it for all.

        Raises:
            InputError: The run is of something else, or its folder cannot be written.
        """
        own = {name: value for name, value in settings.values(Experiment, Data).items() if name in ABOUT}
        if not self.about.exists():  # else nothing is written, as a finished run may be on a read-only disk
            try_writing(self.folder)
            with lock(self.about):
                if not self.about.exists():
                    write_json(self.about, own)
        self.check(own)

    def check(self, values: Mapping[str, Any]) -> None:
        """Raise `InputError` if one of these settings is not what the run says of itself."""
        for name, made in self.experiment().items():
            value = json.loads(json.dumps(values.get(name)))
            if value is not None and value != made:
                raise InputError(
                    f"{name} = {value!r}, but {self} was made with {name} = {made!r}; choose another run, or delete it"
                )

    def detector(self, head: str, outliers: str, seed: int) -> Path:
        """The folder of one detector: its weights, statistics, per-image scores and metrics.

        Args:
            outliers: What it was trained with, see `conditions`.
        """
        return (
            self.detectors / quote(f"{head}-{outliers}", safe=" +") / f"seed{seed}"
        )  # a name may be ViT-B/16

    def require(self, path: Path, notebook: str, **parameters: object) -> Path:
        """`path`, if it is there; else an error that names the notebook which makes it, with these parameters."""
        if not path.exists():
            if self.settings and not self.about.is_file():
                parameters = {"preset": self.settings.preset, "profile": self.settings.profile, **parameters}
            options = "".join(
                _option(name, value) for name, value in {"run": self.name, **parameters}.items()
            )
            raise InputError(
                f"{shown(path)} is not there; make it with notebook {notebook}: open it and run "
                f"all cells, or type: papermill notebooks/{notebook}.ipynb out.ipynb{options}"
            )
        return path

    def mark(self, path: Path, notebook: str, **parameters: object) -> Mark:
        """The mark of a step that is done; else an error that names the notebook which does it, as for `require`."""
        self.require(path, notebook, **parameters)
        return Mark.read(path, _again(notebook))

    def scored(self) -> list[Path]:
        """The marks of all scored detectors."""
        return sorted(self.detectors.glob(f"*/seed*/{MARKS[2]}"))

    def tables(self, name: str) -> "pd.DataFrame":
        """The tables of that name, `metrics`, `scores` or `validation`, of all scored detectors, as one.

        Raises:
            InputError: There is none, or one is not as it was made.
        """
        import pandas as pd  # here, because it takes 0.2 s to import

        for mark in self.scored():
            Mark.read(mark, _scored_by(mark)).check(mark.parent, _scored_by(mark))
        tables = [path for mark in self.scored() if (path := mark.with_name(f"{name}.csv")).is_file()]
        if not tables:
            self.require(self.detectors / "*" / "seed*" / f"{name}.csv", "03_train_detector")
        return pd.concat([read_csv(path) for path in tables], ignore_index=True)

    def table(self, name: str, make: Callable[[], "pd.DataFrame"]) -> "pd.DataFrame":
        """A table of the whole run: made of its detectors and saved as CSV or, of results that ship, read."""
        path = self.folder / f"{name}.csv"
        if self.is_shipped:
            return read_csv(path)
        table = make()
        self.save(write_csv, path, table)
        return table

    def thresholds(self, scores: "pd.DataFrame") -> dict[str, float]:
        """By source of outliers, the threshold of the detector's own score, from a score table of one head and seed."""
        detectors = scores[["head", "outliers", "seed", "own_score"]].drop_duplicates()
        thresholds = {}
        for head, outliers, seed, own_score in detectors.itertuples(index=False):
            path = self.detector(head, outliers, seed) / "scores.json"
            with reading(path, _scored_by(path)):
                thresholds[outliers] = float(read_json(path)["thresholds"][own_score])
        return thresholds

    def trained_with(self, setting: str) -> str:
        """The values of a setting of this run's detectors, as text; more than one are listed."""
        marks = sorted(self.detectors.glob(f"*/seed*/{MARKS[0]}"))
        return ", ".join(dict.fromkeys(str(Mark.read(m, _scored_by(m)).settings[setting]) for m in marks))

    def unequal_settings(self) -> dict[str, list]:
        """Settings in which this run's detectors differ although a comparison wants them equal, by name."""
        values: dict[str, list] = {}
        for mark in self.scored():
            marks = [path for name in MARKS if (path := mark.with_name(name)).is_file()]
            made = {n: v for path in marks for n, v in Mark.read(path, _scored_by(path)).settings.items()}
            sets = made.pop("sets", {})
            made |= {f"set {key}": contents for key, contents in sets.items()}
            if made.get("head") != DENOISER:  # which has no validation outliers
                made["sets"] = sorted(sets)
            if "pool" in made:
                made[f"pool ({made['outliers']})"] = made.pop("pool")
            for name in made.keys() - OF_ONE_DETECTOR:
                if made[name] not in values.setdefault(name, []):
                    values[name].append(made[name])
        return {name: different for name, different in sorted(values.items()) if len(different) > 1}

    def save_figure(self, figure: "Figure", name: str) -> "Figure":
        """Save a figure as `figures/<name>.png`, as `save` does, and return it, so that a notebook shows it too."""

        def write(path: Path) -> None:
            with atomic(path) as part:
                figure.savefig(part, dpi=150)

        self._try(write, self.figures / f"{name}.png")
        return figure

    def save(self, write: Callable[..., None], path: Path, *what: object) -> None:
        """Call `write(path, *what)` for what a notebook shows too, and print the path; not for results that ship.

        Where it cannot be saved, as when a finished run lies on a disk that is read-only, a line says why.
        """
        if self._try(write, path, *what):
            tell(f"written: {shown(path)}")

    def _try(self, write: Callable[..., None], path: Path, *what: object) -> bool:
        if self.is_shipped:
            return False
        try:
            write(path, *what)
        except InputError as error:
            tell(f"not saved: {error}")
            return False
        return True


def _again(notebook: str) -> str:
    return f"run notebook {notebook} again, which makes it again"


def _scored_by(path: Path) -> str:
    """What to do about a damaged file of a detector's folder."""
    if (path.parent / "classifier.json").is_file():
        return "call steps.score_detector again with the network"
    is_denoiser = path.parent.parent.name == f"{DENOISER}-none"
    return _again("07_denoiser_scores" if is_denoiser else "03_train_detector")


def _option(name: str, value: object) -> str:
    """A parameter for papermill's command line; a text that it would take for a number has an option of its own."""
    return f" {'-r' if _is_read_as_other(value) else '-p'} {name} {shlex.quote(str(value))}"


def _is_read_as_other(value: object) -> bool:
    """Whether papermill's `-p` would read a text as something else."""
    if not isinstance(value, str):
        return False
    try:
        float(value)
    except ValueError:
        return value in ("True", "False", "None")
    return True
