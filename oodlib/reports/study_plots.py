"""Figures of the study: gain against the placebo's gain, and AUROC beside false alarms."""

import itertools
from collections.abc import Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from oodlib.conditions import references
from oodlib.reports.alarm_plots import LEVEL
from oodlib.reports.bootstrap import ALL_HEADS
from oodlib.reports.names import label
from oodlib.reports.study import HEADLINE
from oodlib.reports.style import ID_COLOUR, styled

COLUMNS = 4  # of panels
MARKERS = dict(zip(HEADLINE, "os", strict=True))


@styled
def placebo_map(changes: pd.DataFrame, outliers: Sequence[str], title: str) -> Figure:
    """What a source gains against what its placebo gains, a panel for each condition, a point for each head and group.

    Args:
        changes: From `study.study_gains`.
        outliers: Conditions that have a placebo.
    """
    import seaborn as sns

    rows = changes[(changes["metric"] == "auroc") & (changes["head"] != ALL_HEADS)]
    heads = list(rows["head"].unique())
    colours = dict(zip(heads, sns.color_palette("colorblind", len(heads)), strict=True))
    columns = min(len(outliers), COLUMNS)
    rows_of_panels = -(-len(outliers) // columns)
    figure = Figure(figsize=(2.7 * columns, 0.9 + 2.5 * rows_of_panels), layout="constrained")
    panels = figure.subplots(rows_of_panels, columns, squeeze=False, sharex=True, sharey=True)
    for axes in panels.flat[len(outliers) :]:
        axes.set_visible(False)
    for axes, name in zip(panels.flat, outliers, strict=False):
        of = references(name)
        reference = of.get("degraded", of["none"])
        against = rows[rows["reference"] == reference].set_index(["outliers", "head", "set"])
        above = count = 0
        for head, group in itertools.product(heads, HEADLINE):
            pair = [(outliers_of, head, group) for outliers_of in (of["placebo"], name)]
            if not all(key in against.index for key in pair):
                continue
            x, y = (100 * against.loc[key, ["change", "low", "high"]] for key in pair)
            axes.errorbar(
                x["change"], y["change"], [[y["change"] - y["low"]], [y["high"] - y["change"]]],
                [[x["change"] - x["low"]], [x["high"] - x["change"]]],
                fmt=MARKERS[group], ms=5, color=colours[head], elinewidth=0.6,
            )  # fmt: skip
            above, count = above + int(y["change"] > x["change"]), count + 1
        axes.axline((0, 0), slope=1, color="black", lw=1, ls="--", zorder=0)
        axes.axhline(0, color="0.8", lw=0.8, zorder=0)
        axes.axvline(0, color="0.8", lw=0.8, zorder=0)
        axes.set(
            title=f"{fill(label(name), 24)}\nabove the diagonal: {above} of {count}",
            xlabel="its placebo gains (points)",
        )
    for axes in panels[:, 0]:
        axes.set_ylabel("the source gains (points)")
    handles = [Line2D([], [], marker="o", ls="", color=colours[head], label=label(head)) for head in heads]
    handles += [Line2D([], [], marker=m, ls="", color="0.4", label=group) for group, m in MARKERS.items()]
    handles += [Line2D([], [], color="black", lw=1, ls="--", label="no more than the placebo")]
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    figure.suptitle(title)
    return figure


@styled
def auroc_and_alarms(overview: pd.DataFrame, chosen: str | None = None) -> Figure:
    """AUROC on natural sets, and beside it the share of shifted ID images that is called OOD: a row for each condition.

    Args:
        overview: From `study.overview`.
        chosen: The condition whose name is bold.
    """
    table = overview.sort_values("natural")
    alarms, is_degraded = table["shifted ID called OOD"], table.index.str.contains("+degraded", regex=False)
    colours = np.where(is_degraded, ID_COLOUR, "0.35")
    figure = Figure(figsize=(7, 1.1 + 0.19 * len(table)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    xlabels = ("AUROC on natural sets (%)", "shifted ID images called OOD (%)")
    for axes, values, xlabel in zip(panels, (table["natural"], alarms), xlabels, strict=True):
        axes.scatter(values, range(len(table)), c=colours, s=28)
        axes.set(xlabel=xlabel, yticks=range(len(table)))
        axes.grid(axis="y", color="0.92")
        axes.set_axisbelow(True)
    names = panels[0].set_yticklabels([label(name) for name in table.index])
    if chosen in table.index:
        names[table.index.get_loc(chosen)].set_fontweight("bold")
    panels[1].axvline(100 * LEVEL, color="0.6", lw=0.8, ls=":")
    kinds = {"not degraded": "0.35", "degraded": ID_COLOUR}
    handles = [Line2D([], [], marker="o", ls="", color=colour, label=name) for name, colour in kinds.items()]
    figure.legend(handles=handles, loc="outside lower right", ncols=2)
    most = f"False alarms: up to {alarms.max():.0f} %"
    if is_degraded.any() and not is_degraded.all():
        most += f", with degraded images up to {alarms[is_degraded].max():.0f} %"
    figure.suptitle(most)
    return figure
