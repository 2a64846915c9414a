"""Importing oodlib, and the first cells of each notebook, against `import torch` alone.

Beside each stands what torch, pandas and matplotlib take together, which nearly every notebook needs.
"""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat

from benchmarks.table import Row, number

REPOSITORY = Path(__file__).parent.parent
# A kernel has IPython before the first cell runs.
TIMED = "import IPython, time; start = time.perf_counter()\n{code}\nprint(time.perf_counter() - start)"


def first_imports(notebook: Path) -> str:
    """The imports of a notebook's first three code cells: parameters, settings, and what it works with."""
    cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    lines = [line for cell in cells[:3] for line in cell.source.splitlines()]
    body = ast.parse("\n".join(line for line in lines if not line.startswith("%"))).body
    return "\n".join(ast.unparse(s) for s in body if isinstance(s, ast.Import | ast.ImportFrom))


def seconds(code: str) -> float:
    """What some lines take in a fresh process."""
    timed = [sys.executable, "-c", TIMED.format(code=code)]
    done = subprocess.run(timed, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


def rows(toy: bool) -> list[Row]:
    jobs = {"import oodlib": "import oodlib"}
    for notebook in sorted((REPOSITORY / "notebooks").glob("*.ipynb")):
        jobs[f"imports of {notebook.stem}"] = first_imports(notebook)
    # `oodlib.reports.plots` and `%matplotlib inline` load this much of matplotlib.
    jobs |= {"torch": "import torch", "libraries": "import torch, pandas, matplotlib.figure"}
    if toy:
        jobs = dict.fromkeys(jobs, "import html")
    taken = {name: [] for name in jobs}
    for _ in range(1 if toy else 4):
        for name, code in jobs.items():
            taken[name].append(seconds(code))
    # The first round brings the files into memory.
    median = {name: statistics.median(found if toy else found[1:]) for name, found in taken.items()}
    torch, libraries = median.pop("torch"), median.pop("libraries")
    peer, note = f"import torch: {number(torch)} s", f"torch, pandas and matplotlib: {number(libraries)} s"
    return [
        Row(name, f"{number(s)} s", peer, s / torch, 1.3, "x", at_most=True, note=note)
        for name, s in median.items()
    ]
