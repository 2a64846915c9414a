"""A row of the table, and how two ways of doing the same work are timed."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One job: what was reached, and whether that meets its target."""

    job: str
    ours: str
    """What we take or do, with its unit."""
    peer: str
    """Who does the same work, and what they take; empty where nobody does it."""
    value: float
    """What is held against the target: how many times faster, or a time."""
    target: float
    unit: str
    """Of value and target: `x`, `ms` or `min`."""
    at_most: bool = False
    """Whether the target is an upper limit."""
    note: str = ""
    fault: str = ""
    """Why the row misses its target whatever its value, such as worse quality."""

    @property
    def reached(self) -> float:
        """How many times the target was reached; 1 and more meets it."""
        return self.target / self.value if self.at_most else self.value / self.target

    @property
    def is_met(self) -> bool:
        return self.reached >= 1 and not self.fault

    @property
    def verdict(self) -> str:
        """`met`, or `below target by` the share of it that is missing: 20 % at 4x of 5x, and at 50 ms of 40 ms."""
        if self.is_met:
            return "met"
        if self.fault:
            return f"below target: {self.fault}"
        return f"below target by {number(100 * (1 - self.reached))} %"


def number(value: float) -> str:
    """Three significant digits, or all those before the point."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.2g}" if value < 0.1 else f"{value:.3g}"


def alternate(repetitions: int, *ways: Callable[[], object]) -> list[float]:
    """Median seconds of each way, done in turn: A B A B ..., after once each that is not counted."""
    for way in ways:
        way()
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(repetitions):
        for spent, way in zip(seconds, ways, strict=True):
            start = time.perf_counter()
            way()
            spent.append(time.perf_counter() - start)
    return [statistics.median(spent) for spent in seconds]


def faster(job: str, peer: str, count: int, ours: float, theirs: float, target: float, note: str = "") -> Row:
    """The row of a job on `count` images that took `ours` and the peer `theirs` seconds."""
    speeds = [f"{number(count / seconds)} images/s" for seconds in (ours, theirs)]
    return Row(job, speeds[0], f"{peer}: {speeds[1]}", theirs / ours, target, "x", note=note)
