"""Figures of the study: gain against the placebo's gain, and gain against false alarms."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from oodlib.conditions import references
from oodlib.reports.bootstrap import ALL_HEADS, SHIFTED
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
    figure = Figure(figsize=(3.1 * columns, 0.9 + 3 * rows_of_panels), layout="constrained")
    panels = figure.subplots(rows_of_panels, columns, squeeze=False, sharex=True, sharey=True)
    for axes in panels.flat[len(outliers) :]:
        axes.set_visible(False)
    for axes, name in zip(panels.flat, outliers, strict=False):
        of = references(name)
        reference = of.get("degraded", of["none"])
        against = rows[rows["reference"] == reference].set_index(["outliers", "head", "set"])
        above = count = 0
        for group, marker in MARKERS.items():
            for head in heads:
                if (name, head, group) not in against.index or (
                    of["placebo"],
                    head,
                    group,
                ) not in against.index:
                    continue
                y, x = (
                    100 * against.loc[(c, head, group), ["change", "low", "high"]]
                    for c in (name, of["placebo"])
                )
                axes.errorbar(
                    x["change"], y["change"], [[y["change"] - y["low"]], [y["high"] - y["change"]]],
                    [[x["change"] - x["low"]], [x["high"] - x["change"]]],
                    fmt=marker, ms=5, color=colours[head], elinewidth=0.6, alpha=0.8,
                )  # fmt: skip
                above, count = above + int(y["change"] > x["change"]), count + 1
        axes.axline((0, 0), slope=1, color="black", lw=1, ls="--", zorder=0)
        axes.axhline(0, color="0.8", lw=0.8, zorder=0)
        axes.axvline(0, color="0.8", lw=0.8, zorder=0)
        axes.set(
            title=f"{label(name)}\nabove the diagonal: {above} of {count}",
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
def gain_against_alarms(changes: pd.DataFrame, title: str) -> Figure:
    """AUROC on natural sets against the share of shifted ID images that is called OOD, a point for each condition, mean
    over heads."""
    rows = changes[changes["head"] == ALL_HEADS]
    values = {}
    for metric, group in (("auroc", HEADLINE[0]), ("called_ood", SHIFTED)):
        of = rows[(rows["metric"] == metric) & (rows["set"] == group)]
        values[metric] = pd.concat(
            [
                of.groupby("outliers", sort=False)["value"].first(),
                of.groupby("reference")["reference_value"].first(),
            ]
        )
        values[metric] = 100 * values[metric][~values[metric].index.duplicated()]
    table = pd.DataFrame(values)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for i, (name, row) in enumerate(table.sort_values(["auroc", "called_ood"]).iterrows()):
        colour = ID_COLOUR if "+degraded" in name else "0.35"
        axes.plot(row["called_ood"], row["auroc"], "o", ms=5, color=colour)
        place = (5, 4 if i % 2 else -9)  # names of neighbours stand above and below
        axes.annotate(
            label(name), row[["called_ood", "auroc"]], place, textcoords="offset points", fontsize=7
        )
    axes.axvline(5, color="0.6", lw=0.8, ls=":")
    axes.set(title=title, xlabel="shifted ID images called OOD (%); the threshold is meant for 5 %")
    axes.set(ylabel="AUROC on natural sets (%)")
    kinds = {"images as they are": "0.35", "degraded": ID_COLOUR}
    handles = [Line2D([], [], marker="o", ls="", color=colour, label=name) for name, colour in kinds.items()]
    axes.legend(handles=handles, loc="best")
    return figure
