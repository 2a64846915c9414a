"""`python -m benchmarks` runs every job and writes the table and its figure; `--only metrics` runs one and prints."""

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benchmarks import growth, report
from benchmarks.table import Row

JOBS = [
    "metrics",
    "scores",
    "explorer",
    "denoiser_training",
    "sampling",
    "detector_training",
    "imports",
    "demo",
]


def measure(jobs: Sequence[str], toy: bool = False) -> list[Row]:
    """The rows of these jobs, each printed as it comes."""
    found = []
    for job in jobs:
        for row in import_module(f"benchmarks.{job}").rows(toy):
            print(f"{row.job}: {report.reached(row)}, target {report.wanted(row)}, {row.verdict}", flush=True)
            found.append(row)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        choices=[*JOBS, "growth"],
        nargs="+",
        help="run these jobs, print their table and write nothing",
    )
    parser.add_argument(
        "--toy", action="store_true", help="tiny sizes, whose numbers mean nothing; write nothing"
    )
    chosen = parser.parse_args(arguments)
    wanted = chosen.only or [*JOBS, "growth"]
    rows = measure([job for job in JOBS if job in wanted], chosen.toy)
    grown = list(growth.measure(chosen.toy)) if "growth" in wanted else []
    print("\n\n".join(["", report.machine(), *report.tables(rows, grown)]))
    if not chosen.only and not chosen.toy:
        report.write(rows, grown, Path())


if __name__ == "__main__":
    main()
