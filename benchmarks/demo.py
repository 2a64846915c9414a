"""The whole experiment on digits, as `make demo` runs it once everything is installed."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.table import Row, number

REPOSITORY = Path(__file__).parent.parent


def rows(toy: bool) -> list[Row]:
    cores = min(4, os.cpu_count())
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(REPOSITORY / "Snakefile", folder)
        shutil.copytree(REPOSITORY / "notebooks", Path(folder) / "notebooks")
        programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        start = time.perf_counter()
        subprocess.run(
            ["snakemake", "--cores", str(cores), "--quiet", "all", *(["--dry-run"] if toy else [])],
            cwd=folder,
            env={**os.environ, "PATH": programs, "OODLIB_RUNS": str(Path(folder) / "runs")},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        minutes = (time.perf_counter() - start) / 60
    note = f"on {cores} cores"
    return [Row("make demo", f"{number(minutes)} min", "", minutes, 4, "min", at_most=True, note=note)]
