"""A run's folder: where things lie, what the run is of, and which steps are done."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oodlib.errors import InputError
from oodlib.files import atomic, lock, place, read_csv, read_json, write_json
from oodlib.settings import OFF, Data, Experiment, Settings

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FILES = {  # of each step, its mark not among them
    "denoiser": ("denoiser.safetensors", "denoiser.json", "history.csv"),
    "pool": ("pool.npz", "purity.csv"),
    "detector": ("detector.safetensors", "detector.json", "history.csv"),
    "statistics": ("scores.safetensors", "scores.json"),
    "tables": ("scores.csv", "metrics.csv", "validation.csv"),
    "denoiser_tables": ("scores.json", "scores.csv", "metrics.csv"),
}
MARKS = ("settings.json", "fitted.json", "scored.json")  # of a detector's three steps; others have the first
# What may differ from detector to detector in a comparison.
OF_ONE_DETECTOR = {"head", "head_options", "outliers", "seed", "detector", "scores", "statistics"}
DENOISER = "denoiser"  # what stands in the place of a head where the denoiser itself tells ID from OOD


def runs_folder() -> Path:
    """Where run folders live: `$OODLIB_RUNS`, else `runs` beside the Snakefile."""
    return place("OODLIB_RUNS", "runs")


@dataclass(frozen=True)
class Step:
    """A step of a run: the files that it makes in a folder, and a mark that says by which settings.

    The mark is the last file written, and taken away before anything is written, so that no mark ever stands beside
    the files of another attempt.
    """

    folder: Path
    files: tuple[str, ...]
    settings: Mapping[str, Any]
    """Flat: settings and fingerprints of all inputs, by name."""
    mark: str = MARKS[0]

    def must_make(self) -> bool:
        """Whether the step is still to be done, or was done with other settings.

        A setting that a mark lacks was off when it was made (`settings.OFF`).
        """
        mark = self.folder / self.mark
        made = read_json(mark) if mark.is_file() else {"settings": None, "files": []}
        is_whole = all((self.folder / file).is_file() for file in made["files"])
        if is_whole and made["settings"] is not None and self._equals(made["settings"]):
            path = str(self.folder.joinpath(*self.files[:1])).removeprefix("../")
            print(f"{path} was made with these settings and is kept; delete it to redo it")
            return False
        mark.unlink(missing_ok=True)
        return True

    def _equals(self, made: Mapping[str, Any]) -> bool:
        wanted = json.loads(json.dumps(self.settings))
        return all(
            made.get(name, OFF.get(name)) == wanted.get(name, OFF.get(name))
            for name in made.keys() | wanted.keys()
        )

    def finish(self) -> None:
        """Mark the step as done, and remove its checkpoints."""
        write_json(self.folder / self.mark, {"settings": self.settings, "files": self.files})
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)


class Run:
    """The folder of one run and the places in it.

    Args:
        name: A name under `runs_folder()`, such as `digits`, or a path.
        settings: What the run is to be of, for the commands that messages advise.
    """

    def __init__(self, name: str, settings: Experiment | None = None):
        self.name, self.settings = name, settings
        is_path = "/" in name or os.sep in name or name in (".", "..")
        self.folder = Path(name).expanduser() if is_path else runs_folder() / name
        self.about = self.folder / "run.json"
        self.denoiser = self.folder / "denoiser"
        self.committee = self.folder / "committee"
        self.outliers = self.folder / "outliers"
        self.detectors = self.folder / "detectors"
        self.results = self.folder / "results.csv"
        self.summary = self.folder / "summary.md"
        self.figures = self.folder / "figures"

    def __str__(self) -> str:
        """The folder as its owner would write it: without the way there from a notebook."""
        return str(self.folder).removeprefix("../")

    def experiment(self) -> dict[str, Any]:
        """What the run says of itself: its preset, profile, ID images and their shape; empty where it holds nothing."""
        return read_json(self.about) if self.about.is_file() else {}

    def claim(self, settings: Settings) -> None:
        """Have the run say what it is of, before its first step; whoever comes first says it for all.

        Raises:
            InputError: The run is of something else.
        """
        own = settings.values(Experiment, Data)
        del own["run"]
        with lock(self.about):
            if not self.about.is_file():
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
        """The folder of one detector: its weights, statistics, per-image scores and metrics."""
        return self.detectors / f"{head}-{outliers}" / f"seed{seed}"

    def require(self, path: Path, notebook: str, **parameters: object) -> Path:
        """`path`, if it is there; else an error that names the notebook which makes it, with these parameters."""
        if not path.exists():
            if self.settings and not self.about.is_file():
                parameters = {"preset": self.settings.preset, "profile": self.settings.profile, **parameters}
            options = "".join(
                f" -p {name} {value}" for name, value in {"run": self.name, **parameters}.items()
            )
            raise InputError(
                f"{str(path).removeprefix('../')} is not there; make it with notebook {notebook}: open it and run "
                f"all cells, or type: papermill notebooks/{notebook}.ipynb out.ipynb{options}"
            )
        return path

    def tables(self, name: str) -> "pd.DataFrame":
        """The tables of that name, `metrics`, `scores` or `validation`, of all scored detectors, as one."""
        import pandas as pd  # here, because it takes 0.2 s to import

        marks = sorted(self.detectors.glob(f"*/seed*/{MARKS[2]}"))
        tables = [path for mark in marks if (path := mark.with_name(f"{name}.csv")).is_file()]
        if not tables:
            self.require(self.detectors / "*" / "seed*" / f"{name}.csv", "03_train_detector")
        return pd.concat([read_csv(path) for path in tables], ignore_index=True)

    def thresholds(self, scores: "pd.DataFrame") -> dict[str, float]:
        """By source of outliers, the threshold of the detector's own score, from a score table of one head and seed."""
        detectors = scores[["head", "outliers", "seed", "own_score"]].drop_duplicates()
        return {
            outliers: read_json(self.detector(head, outliers, seed) / "scores.json")["thresholds"][own_score]
            for head, outliers, seed, own_score in detectors.itertuples(index=False)
        }

    def unequal_settings(self) -> dict[str, list]:
        """Settings in which this run's detectors differ although a comparison wants them equal, by name."""
        values: dict[str, list] = {}
        for mark in sorted(self.detectors.glob(f"*/seed*/{MARKS[2]}")):
            marks = [path for name in MARKS if (path := mark.with_name(name)).is_file()]
            made = {name: value for path in marks for name, value in read_json(path)["settings"].items()}
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
        """Save a figure as `figures/<name>.png` and return it, so that a notebook shows it too."""
        with atomic(self.figures / f"{name}.png") as part:
            figure.savefig(part, dpi=150)
        return figure
