"""The table as Markdown and as a figure."""

import datetime
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks import growth
from benchmarks.growth import Growth
from benchmarks.models import precision
from benchmarks.table import Row, number
from oodlib.files import atomic, write_text
from oodlib.reports.plots import ID_COLOUR, OOD_COLOUR, styled

FARTHEST = 10  # times above or below its target that a dot is drawn at


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
    lines = ["| job | oodlib | the others | reached | target | verdict | |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        cells = (row.job, row.ours, row.peer, reached(row), wanted(row), row.verdict, row.note)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def tables(rows: Sequence[Row], grown: Sequence[Growth]) -> list[str]:
    """The tables that have rows."""
    return [text for text in (rows and table(rows), grown and growth.table(grown)) if text]


@styled
def chart(rows: Sequence[Row]) -> Figure:
    """How far each job is above or below its target, on a logarithmic axis."""
    figure = Figure(figsize=(10, 0.9 + 0.2 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(1, color="0.6", lw=1, ls="--")
    for i, row in enumerate(rows):
        place = min(max(row.reached, 1 / FARTHEST), FARTHEST)
        colour = ID_COLOUR if row.is_met else OOD_COLOUR
        axes.plot([1, place], [i, i], color=colour, lw=2, solid_capstyle="butt")
        axes.plot(place, i, "o", color=colour, ms=6, clip_on=False)
        aim = f"target {wanted(row)}" + (f", {row.fault}" if row.fault else "")
        text = f"{reached(row)} ({aim})"
        axes.text(1.02, i, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(1 / FARTHEST, FARTHEST)
    ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), [row.job for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("times the target (1: met; farther than tenfold is drawn at the edge)")
    handles = [Line2D([], [], marker="o", color=c, lw=2) for c in (ID_COLOUR, OOD_COLOUR)]
    figure.legend(handles, ["met", "below target"], loc="outside lower right", ncols=2)
    met = sum(row.is_met for row in rows)
    figure.suptitle(f"{met} of {len(rows)} jobs meet their target")
    return figure


def write(rows: Sequence[Row], grown: Sequence[Growth], folder: Path) -> None:
    """Write `results/bench.md` and `figures/bench.png` in a folder, each atomically."""
    met = sum(row.is_met for row in rows)
    as_work = sum(found.verdict == growth.AS_THE_WORK for found in grown)
    parts = [
        f"# Benchmarks: {met} of {len(rows)} jobs meet their target",
        f"{machine()}. Made by `make bench`.",
        "![How far each job is above or below its target](../figures/bench.png)",
        "Medians of repetitions, ours and theirs in turn; `make demo` once, and drawing once with each of three\n"
        "denoisers. Imports are those of a notebook's first cells; diffusers and torchvision load later, with the\n"
        "first denoiser or detector.",
        table(rows),
        f"## Cost as it grows: {as_work} of {len(grown)} as the work itself",
        "The exponent is the slope of log time over log size between the two largest sizes: 0 where size does not\n"
        "matter, 1 in proportion. Where it is below that of the work, what does not grow still weighs too much to\n"
        "tell. Least of five repetitions.",
        growth.table(grown),
    ]
    write_text(folder / "results" / "bench.md", "\n\n".join(parts) + "\n")
    with atomic(folder / "figures" / "bench.png") as part:
        chart(rows).savefig(part, dpi=150)
