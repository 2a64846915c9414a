"""The table as Markdown and as a figure."""

import datetime
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from benchmarks import growth
from benchmarks.growth import Growth
from benchmarks.models import precision
from benchmarks.table import Row, number
from oodlib.files import atomic, write_text
from oodlib.reports.plots import ID_COLOUR, OOD_COLOUR, styled


def machine() -> str:
    """Processor, cores, versions and the day, in one line."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)
    arithmetic = "with" if precision() == "bf16" else "without"
    return (
        f"{model or platform.processor() or platform.machine()} "
        f"({torch.backends.cpu.get_cpu_capability()}, {arithmetic} bfloat16 arithmetic), {os.cpu_count()} cores; "
        f"PyTorch {torch.__version__} on {torch.get_num_threads()} threads, Python {platform.python_version()}; "
        f"{datetime.date.today():%d %B %Y}"
    )


def wanted(row: Row) -> str:
    space = "" if row.unit == "x" else " "
    return f"{'at most ' if row.at_most else ''}{number(row.target)}{space}{row.unit}"


def reached(row: Row) -> str:
    return f"{number(row.value)}{'' if row.unit == 'x' else ' '}{row.unit}"


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| job | oodlib | the others | reached | aimed at | |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = (
            row.job,
            row.ours,
            row.peer,
            reached(row),
            wanted(row),
            "; ".join(filter(None, [row.fault, row.note])),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def tables(rows: Sequence[Row], grown: Sequence[Growth]) -> list[str]:
    """The tables that have rows."""
    return [text for text in (rows and table(rows), grown and growth.table(grown)) if text]


@styled
def chart(rows: Sequence[Row]) -> Figure:
    """How many times as fast as others each job is that others do too, on a logarithmic axis."""
    beside = [row for row in rows if row.unit == "x" and not row.at_most]
    figure = Figure(figsize=(9, 1.1 + 0.3 * len(beside)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(1, color="0.6", lw=1, ls="--")
    for i, row in enumerate(beside):
        colour = ID_COLOUR if row.value >= 1 and not row.fault else OOD_COLOUR
        axes.plot([1, row.value], [i, i], color=colour, lw=2, solid_capstyle="butt")
        axes.plot(row.value, i, "o", color=colour, ms=6)
        text = f"{reached(row)} {row.peer.split(':')[0]}" + (f", {row.fault}" if row.fault else "")
        axes.text(1.02, i, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(range(len(beside)), [row.job for row in beside])
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as the others (1: as fast)")
    faster = sum(row.value > 1 for row in beside)
    figure.suptitle(f"oodlib is faster in {faster} of {len(beside)} jobs that other code does too")
    return figure


def write(rows: Sequence[Row], grown: Sequence[Growth], folder: Path) -> None:
    """Write `results/bench.md` and `figures/bench.png` in a folder, each atomically."""
    as_work = sum(found.verdict == growth.AS_THE_WORK for found in grown)
    parts = [
        "# Speed beside other libraries",
        f"{machine()}. Made by `make bench`.",
        "![How many times as fast as others each job is](../figures/bench.png)",
        "Medians of repetitions, ours and theirs in turn; `make demo` once, and drawing once with each of three\n"
        "denoisers. What is reached is how many times as fast as the others it is, or a time. Imports are those of a\n"
        "notebook's first cells; diffusers and torchvision load later, with the first denoiser or detector.",
        table(rows),
        f"## How cost grows: in {as_work} of {len(grown)} jobs as the work itself",
        "The exponent is the slope of log time over log size between the two largest sizes: 0 where size does not\n"
        "matter, 1 in proportion. Where it is below that of the work, what does not grow still weighs too much to\n"
        "tell. Least of five repetitions.",
        growth.table(grown),
    ]
    write_text(folder / "results" / "bench.md", "\n\n".join(parts) + "\n")
    with atomic(folder / "figures" / "bench.png") as part:
        chart(rows).savefig(part, dpi=150)
