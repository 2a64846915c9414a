"""The tables of the study as notebook 6 shows them: made of all detectors or, where they ship, read."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from oodlib.files import atomic, read_csv, reading
from oodlib.outliers.pool import OutlierPool
from oodlib.outliers.purity import pool_table
from oodlib.reports import study
from oodlib.runs import Run

FILES = (
    "overview.csv",
    "study.csv",
    "choice.csv",
    "pools.csv",
    "against_knn.csv",
    "sealed.csv",
    "outliers.npz",
)
EXAMPLES = 7  # outliers of each source that are shown
OWN = "own"  # what stands in the place of a score for each head's own


def overview(run: Run) -> pd.DataFrame:
    """`study.overview` of the run and its replicates."""
    return _by_condition(
        run, "overview", lambda runs: study.overview(*(study.tables(runs, n) for n in ("metrics", "alarms")))
    )


def choice(run: Run) -> pd.DataFrame:
    """`study.by_validation` of the run and its replicates."""
    return _by_condition(run, "choice", lambda runs: study.by_validation(study.tables(runs, "validation")))


def gains(run: Run) -> pd.DataFrame:
    """`study.study_gains` of the run and its replicates, by each head's own score and by KNN: `score` is `OWN` or
    `study.KNN`."""

    def make() -> pd.DataFrame:
        runs = study.replicates(run)
        results = study.tables(runs, "metrics")
        of_scores = {OWN: None, study.KNN: study.KNN}
        tables = [study.study_gains(runs, results, of).assign(score=name) for name, of in of_scores.items()]
        return pd.concat(tables, ignore_index=True)

    return run.table("study", make)


def pools(run: Run, conditions: Sequence[str], id_images: np.ndarray) -> pd.DataFrame:
    """`purity.pool_table` of the sources of these conditions of which the run has outliers."""

    def make(_: Sequence[Run]) -> pd.DataFrame:
        folders = _pool_folders(run, conditions)
        judged = {source: read_csv(folder / "purity.csv") for source, folder in folders.items()}
        return pool_table(judged, _images(folders), id_images)

    return _by_condition(run, "pools", make)


def examples(run: Run, conditions: Sequence[str]) -> dict[str, np.ndarray]:
    """The first outliers of the same sources, uint8 (EXAMPLES, H, W, C), by source."""
    path = run.folder / "outliers.npz"
    if run.is_shipped:
        with reading(path, "install oodlib again"), np.load(path) as arrays:
            return dict(arrays)
    images = {source: of[:EXAMPLES] for source, of in _images(_pool_folders(run, conditions)).items()}
    run.save(_write_arrays, path, images)
    return images


def against_knn(run: Run, conditions: Sequence[str]) -> pd.DataFrame:
    """`study.score_gains` of each of these conditions, called `trained_with`, on the headline groups of sets."""

    def make() -> pd.DataFrame:
        tables = [study.score_gains([run], name).assign(trained_with=name) for name in conditions]
        table = pd.concat(tables, ignore_index=True)
        return table[table["set"].isin(study.HEADLINE)]

    return run.table("against_knn", make)


def _by_condition(run: Run, name: str, make: Callable[[Sequence[Run]], pd.DataFrame]) -> pd.DataFrame:
    """A table with a row for each condition or source."""
    table = run.table(
        name, lambda: make(study.replicates(run)).rename_axis(index="outliers", columns=None).reset_index()
    )
    return table.set_index("outliers")


def _pool_folders(run: Run, conditions: Sequence[str]) -> dict[str, Path]:
    sources = dict.fromkeys(name.split("+")[0] for name in conditions)
    return {name: run.outliers / name for name in sources if (run.outliers / name / "pool.npz").is_file()}


def _images(folders: dict[str, Path]) -> dict[str, np.ndarray]:
    return {source: OutlierPool.load(folder / "pool.npz").images for source, folder in folders.items()}


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with atomic(path) as part:
        np.savez_compressed(part, **arrays)
