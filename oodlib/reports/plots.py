"""Figures from arrays and tables. They know no model, and touch neither pyplot nor global settings.

Seaborn and scikit-learn are imported where they draw, because they take seconds.

Blue is in-distribution and orange is out-of-distribution, everywhere; both are told apart by colour-blind eyes.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

ID_COLOUR, OOD_COLOUR = "#0072B2", "#E69F00"
STYLE = {
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.titlesize": 12,
    "figure.dpi": 80,
    "font.size": 9,
    "legend.frameon": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}
LABELS = {"none": "no outliers", "real": "real outliers", "virtual": "virtual (VOS)", "id_test": "ID test"}


def label(name: str) -> str:
    """How a figure writes a name: `held_out` as `held out`."""
    return LABELS.get(name, name.replace("_", " "))


def styled(plot: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw in the kit's style without changing matplotlib's settings for anyone else."""

    @functools.wraps(plot)
    def wrapper(*args, **kwargs):
        with rc_context(STYLE):
            return plot(*args, **kwargs)

    return wrapper


@styled
def image_grid(
    images: Sequence[np.ndarray],
    title: str,
    *,
    column_titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    cell: float = 0.55,
) -> Figure:
    """A grid of images.

    Args:
        images: The rows, each uint8 (N, H, W, C); a row with fewer images than the longest ends in white.
        title: What the figure shows.
        cell: Width of an image in inches.
    """
    rows, columns = len(images), max(len(row) for row in images)
    height, width, channels = images[0].shape[1:]
    gap = max(1, height // 16)
    sheet = np.full((rows, height + gap, columns, width + gap, channels), 255, np.uint8)
    for i, row in enumerate(images):
        sheet[i, :height, : len(row), :width] = row.transpose(1, 0, 2, 3)
    sheet = sheet.reshape(rows * (height + gap), columns * (width + gap), channels)[:-gap, :-gap]
    over = 0.25 + 0.2 * len(title.splitlines())
    if len(column_titles):
        over += 0.12 + 0.13 * max(len(text.splitlines()) for text in column_titles)
    figure = Figure(
        figsize=(cell * columns + 0.9 * bool(len(row_titles)), cell * rows + over), layout="constrained"
    )
    axes = figure.subplots()
    axes.imshow(sheet.squeeze(-1) if channels == 1 else sheet, cmap="gray", vmin=0, vmax=255)
    axes.set_xticks(np.arange(len(column_titles)) * (width + gap) + (width - 1) / 2, column_titles)
    axes.set_yticks(np.arange(len(row_titles)) * (height + gap) + (height - 1) / 2, row_titles)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    figure.suptitle(title)
    return figure


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
def study_heatmap(changes: pd.DataFrame, title: str) -> Figure:
    """Change in AUROC for each kind of outliers and head, in percentage points.

    Args:
        changes: Columns `outliers`, `head`, `change`, `low` and `high`. A change is set in bold where its interval
            excludes 0.
    """
    import seaborn as sns

    wide = changes.set_index(["outliers", "head"])[["change", "low", "high"]].unstack(sort=False) * 100
    change = wide["change"].rename(index=label, columns=label)
    certain = ((wide["low"] > 0) | (wide["high"] < 0)).to_numpy()
    reach = max(1.0, np.nanquantile(np.abs(change.to_numpy()), 0.95))
    size = max(5, 2 + 0.95 * change.shape[1]), 1.2 + 0.32 * len(change)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    sns.heatmap(
        change,
        annot=True,
        fmt="+.1f",
        cmap="RdBu",
        vmin=-reach,
        vmax=reach,
        linewidths=1,
        cbar=False,
        ax=axes,
    )
    for text, bold in zip(axes.texts, certain[change.notna().to_numpy()], strict=True):
        text.set_fontweight("bold" if bold else "normal")
    axes.set(xlabel="", ylabel="")
    axes.tick_params(length=0)
    axes.tick_params("y", rotation=0)
    figure.suptitle(title)
    return figure


@styled
def purity_map(tables: dict[str, pd.DataFrame], title: str) -> Figure:
    """How sure a committee is of images, against how far they lie from the training images.

    Args:
        tables: By the name of a set, columns `confidence` and `distance`; the first is drawn in the ID colour.
    """
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    colours = ["#666666", OOD_COLOUR, "#CC79A7"]
    order = [*list(tables)[1:], next(iter(tables))]
    colour = dict(zip(tables, [ID_COLOUR, *colours], strict=False))
    for name in order:
        table = tables[name]
        axes.scatter(table["distance"], table["confidence"], s=7, alpha=0.45, lw=0, color=colour[name])
    handles = [Line2D([], [], marker="o", ls="", color=colour[name], label=name) for name in tables]
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.axvline(1, color="0.6", lw=0.8, ls=":")
    axes.set(title=title, xlabel="distance to the nearest training image (1: typical of unseen ID images)")
    axes.set(ylabel="confidence of the committee", ylim=(0, 1.03))
    return figure


@styled
def pair_heatmap(shares: pd.DataFrame, title: str) -> Figure:
    """Shares by pair of classes, a symmetric table with class names on both sides, in percent."""
    import seaborn as sns

    size = 1.6 + 0.42 * len(shares)
    figure = Figure(figsize=(size, size - 0.5), layout="constrained")
    axes = figure.subplots()
    sns.heatmap(
        100 * shares,
        annot=True,
        fmt=".0f",
        cmap="cividis",
        vmin=0,
        vmax=100,
        linewidths=1,
        cbar=False,
        ax=axes,
    )
    axes.tick_params(length=0)
    axes.tick_params("y", rotation=0)
    axes.set(title=title)
    return figure


@styled
def share_lines(table: pd.DataFrame, title: str, *, x: str, y: str, hue: str, xlabel: str) -> Figure:
    """Shares in percent against `x`, a line for each value of `hue`."""
    import seaborn as sns

    figure = Figure(figsize=(5, 2.6), layout="constrained")
    axes = figure.subplots()
    sns.lineplot(
        table.assign(percent=100 * table[y]), x=x, y="percent", hue=hue, style=hue, markers=True, dashes=False,
        errorbar=None, palette="colorblind", ax=axes,
    )  # fmt: skip
    axes.set(title=title, xlabel=xlabel, ylabel=f"{label(y)} (%)", ylim=(0, None))
    axes.legend(title="", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@styled
def score_histogram(id_scores: np.ndarray, ood_scores: np.ndarray, threshold: float, title: str) -> Figure:
    """One detector's scores of ID and OOD test images and its threshold, with room for marks on the same axis."""
    figure = Figure(figsize=(3.7, 1.5), layout="constrained")
    axes = figure.subplots()
    both = np.concatenate([id_scores, ood_scores])
    # One detector may score wildly low on noise; the axis ends where 99 % of all scores are in view.
    low, high = min(np.quantile(both, 0.01), threshold), both.max()
    bins = np.linspace(low - 0.02 * (high - low), high + 0.02 * (high - low), 50)
    for scores, colour in ((id_scores, ID_COLOUR), (ood_scores, OOD_COLOUR)):
        counts, _ = np.histogram(scores.clip(bins[0], bins[-1]), bins)
        axes.stairs(counts / max(counts.max(), 1), bins, fill=True, color=colour, alpha=0.55, lw=0)
    axes.axvline(threshold, color="black", lw=1, ls="--")
    axes.set(yticks=[], ylim=(0, 1.05), xlim=(bins[0], bins[-1]), title=title)
    axes.spines["left"].set_visible(False)
    return figure


@styled
def score_distributions(
    scores: pd.DataFrame, thresholds: dict[str, float], title: str, xlabel: str
) -> Figure:
    """Score histograms of the ID test set against each OOD set, a column for each kind of training.

    Args:
        scores: Columns `outliers`, `set` (with `id_test` among them) and `score`.
        thresholds: By `outliers`; scores from it upwards are accepted as ID.
    """
    sets = [name for name in scores["set"].unique() if name != "id_test"]
    kinds = list(thresholds)
    figure = Figure(figsize=(4.4 * len(kinds) + 0.8, 0.72 * len(sets) + 1.3), layout="constrained")
    grid = figure.subplots(len(sets), len(kinds), squeeze=False, sharex="col")
    for column, kind in enumerate(kinds):
        table = scores[scores["outliers"] == kind]
        threshold = thresholds[kind]
        # One detector may score wildly low on noise; the axis ends where 99 % of all scores are in view.
        low, high = table["score"].quantile(0.01), table["score"].max()
        bins = np.linspace(min(low, threshold), high, 50)
        for row, name in enumerate(sets):
            axes = grid[row, column]
            for which, colour in (("id_test", ID_COLOUR), (name, OOD_COLOUR)):
                values = table.loc[table["set"] == which, "score"].clip(bins[0], bins[-1])
                counts, _ = np.histogram(values, bins)
                axes.stairs(counts / max(counts.max(), 1), bins, fill=True, color=colour, alpha=0.55, lw=0)
            accepted = (table.loc[table["set"] == name, "score"] >= threshold).mean()
            axes.axvline(threshold, color="black", lw=1, ls="--")
            axes.text(
                1.01, 0.5, f"{accepted:.0%}\naccepted", transform=axes.transAxes, va="center", fontsize=8
            )
            axes.set(yticks=[], ylim=(0, 1.05))
            axes.spines["left"].set_visible(False)
            if column == 0:
                axes.set_ylabel(label(name), rotation=0, ha="right", va="center")
        grid[0, column].set_title(label(kind))
        grid[-1, column].set_xlabel(xlabel)
    figure.suptitle(title)
    handles = [figure.axes[0].patches[i] for i in (0, 1)] + [figure.axes[0].lines[0]]
    names = ["ID test", "OOD set", "threshold, from ID validation images"]
    figure.legend(handles, names, loc="outside lower center", ncols=3)
    return figure


@styled
def roc_curves(scores: pd.DataFrame, title: str) -> Figure:
    """ROC curves (ID positive), a line for each OOD set and a panel for each kind of training.

    Args:
        scores: Columns `outliers`, `set` (with `id_test` among them) and `score`.
    """
    import seaborn as sns
    from sklearn.metrics import roc_curve

    kinds = list(scores["outliers"].unique())
    sets = [name for name in scores["set"].unique() if name != "id_test"]
    figure = Figure(figsize=(3.7 * len(kinds), 3.7), layout="constrained")
    panels = figure.subplots(1, len(kinds), squeeze=False, sharex=True, sharey=True)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        table = scores[scores["outliers"] == kind]
        id_scores = table.loc[table["set"] == "id_test", "score"]
        for name, colour in zip(sets, sns.color_palette("colorblind", len(sets)), strict=True):
            ood_scores = table.loc[table["set"] == name, "score"]
            is_id = np.r_[np.ones(len(id_scores)), np.zeros(len(ood_scores))]
            fpr, tpr, _ = roc_curve(is_id, np.r_[id_scores, ood_scores])
            axes.plot(fpr, tpr, color=colour, lw=1.6, label=f"{label(name)} {np.trapezoid(tpr, fpr):.3f}")
        axes.axhline(0.95, color="0.6", lw=0.8, ls=":")
        axes.set(title=label(kind), xlabel="OOD accepted", aspect="equal", xlim=(-0.01, 1), ylim=(0, 1.01))
        axes.legend(title="AUROC", loc="lower right", fontsize=8)
    panels[0].set_ylabel("ID accepted")
    figure.suptitle(title)
    return figure


@styled
def results_heatmap(changes: pd.DataFrame, title: str) -> Figure:
    """AUROC of each head on each OOD set without and with outlier exposure, and the change.

    Args:
        changes: From `evaluation.paired_change` of `auroc` by `head` and `ood_set`, of one kind of outliers. A change
            is set in bold where its interval excludes 0.
    """
    import seaborn as sns

    def table(column: str) -> pd.DataFrame:
        wide = 100 * changes.set_index(["head", "ood_set"])[column].unstack(sort=False)
        return wide.rename(index=label, columns=label)

    change = table("change")
    certain = (table("low") > 0) | (table("high") < 0)
    (kind,) = changes["outliers"].unique()
    reach = max(1.0, np.nanmax(np.abs(change.to_numpy())))
    worst = min(np.nanmin(table("none").to_numpy()), np.nanmin(table("exposed").to_numpy()))
    width = 1.1 + 0.55 * change.shape[1]
    figure = Figure(figsize=(3 * width, 1.5 + 0.36 * len(change)), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    levels = dict(cmap="cividis", vmin=worst, vmax=100, fmt=".1f")
    differences = dict(cmap="RdBu", vmin=-reach, vmax=reach, fmt="+.1f")
    for axes, values, options, name in zip(
        panels,
        (table("none"), table("exposed"), change),
        (levels, levels, differences),
        ("AUROC, no outliers (%)", f"AUROC, {label(kind)} (%)", "change (points; bold: interval excludes 0)"),
        strict=True,
    ):
        sns.heatmap(values, annot=True, ax=axes, cbar=False, linewidths=1, annot_kws={"size": 8}, **options)
        axes.set(title=name, xlabel="", ylabel="")
        axes.tick_params(length=0)
        axes.tick_params("x", rotation=40)
        axes.set_xticklabels(axes.get_xticklabels(), ha="right", rotation_mode="anchor")
    for text, bold in zip(panels[2].texts, certain.to_numpy()[change.notna().to_numpy()], strict=True):
        text.set_fontweight("bold" if bold else "normal")
    figure.suptitle(title)
    return figure
