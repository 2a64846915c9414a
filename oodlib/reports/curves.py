"""Figures of one quantity against another, as lines."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from oodlib.reports.names import label
from oodlib.reports.style import ID_COLOUR, styled


@styled
def loss_curve(history: pd.DataFrame, title: str, by: str | None = None) -> Figure:
    """Loss against step, from a table with `step` and `loss`; one line for each value of column `by`."""
    import seaborn as sns

    figure = Figure(figsize=(6, 2.6), layout="constrained")
    axes = figure.subplots()
    palette = {"palette": "viridis"} if by else {"color": ID_COLOUR}
    sns.lineplot(history, x="step", y="loss", hue=by, ax=axes, **palette)
    axes.set(title=title, xlabel="step", ylabel="loss")
    return figure


@styled
def share_lines(table: pd.DataFrame, title: str, *, x: str, y: str, hue: str, xlabel: str) -> Figure:
    """Shares in percent against `x` with 95 % intervals, a line for each value of `hue`.

    Args:
        table: A row for each image; column `y` is whether it counts.
    """
    import seaborn as sns

    figure = Figure(figsize=(5, 2.6), layout="constrained")
    axes = figure.subplots()
    sns.lineplot(
        table.assign(percent=100 * table[y]), x=x, y="percent", hue=hue, style=hue, markers=True, dashes=False,
        errorbar=("ci", 95), err_style="bars", seed=0, palette="colorblind", ax=axes,
    )  # fmt: skip
    axes.set(title=title, xlabel=xlabel, ylabel=f"{label(y)} (%)", ylim=(0, None))
    axes.legend(title="", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@styled
def margin_curves(angles: np.ndarray, targets: Mapping[str, np.ndarray], title: str) -> Figure:
    """What heads put in the place of `cos(theta)` at the label, against the angle.

    Args:
        angles: In radians, (N,).
        targets: By head, (N,).
    """
    import seaborn as sns

    figure = Figure(figsize=(6.5, 3), layout="constrained")
    axes = figure.subplots()
    for (names, target), colour in zip(
        _of_equal_curves(targets), sns.color_palette("colorblind"), strict=False
    ):
        axes.plot(np.degrees(angles), target, color=colour, label=", ".join(map(label, names)))
    axes.axhline(0, color="0.8", lw=0.8, zorder=0)
    axes.set(title=title, xlabel="angle between the features and the label's weights (degrees)")
    axes.set(ylabel="in place of its cosine", xticks=range(0, 181, 30))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _of_equal_curves(targets: Mapping[str, np.ndarray]) -> list[tuple[list[str], np.ndarray]]:
    curves: list[tuple[list[str], np.ndarray]] = []
    for name, target in targets.items():
        names = next((names for names, other in curves if np.allclose(other, target)), None)
        if names is None:
            curves.append(([name], target))
        else:
            names.append(name)
    return curves
