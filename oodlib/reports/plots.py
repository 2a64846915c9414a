"""Figures from arrays and tables. They know no model, and do not touch pyplot.

Seaborn is imported where it draws, because it takes seconds.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from oodlib.detection.metrics import auroc, roc_curve
from oodlib.reports.intervals import MEAN, interval_text, is_certain
from oodlib.reports.names import label
from oodlib.reports.style import ID_COLOUR, OOD_COLOUR, styled
from oodlib.reports.tables import id_and_ood

COLUMNS = 2  # of panels


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
    # As wide as the longest line at its side, or the images would shrink and leave a band blank below the title.
    beside = max((0.2 + 0.062 * len(line) for text in row_titles for line in text.splitlines()), default=0)
    figure = Figure(figsize=(cell * columns + beside, cell * rows + over), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet.squeeze(-1) if channels == 1 else sheet, cmap="gray", vmin=0, vmax=255)
    axes.set_xticks(np.arange(len(column_titles)) * (width + gap) + (width - 1) / 2, column_titles)
    axes.set_yticks(np.arange(len(row_titles)) * (height + gap) + (height - 1) / 2, row_titles)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    figure.suptitle(title)
    return figure


def _heatmap(axes: Axes, values: pd.DataFrame, **options) -> None:
    import seaborn as sns

    sns.heatmap(values, annot=True, cbar=False, linewidths=1, ax=axes, **options)
    axes.set(xlabel="", ylabel="")
    axes.tick_params(length=0)
    axes.tick_params("y", rotation=0)


def _wide(changes: pd.DataFrame, value: str, rows: str, columns: str) -> pd.DataFrame:
    wide = changes.set_index([rows, columns])[value].unstack(sort=False).rename(index=label)
    return wide if columns == "title" else wide.rename(columns=label)  # titles are as their owner wrote them


def _change_map(axes: Axes, changes: pd.DataFrame, rows: str, columns: str, reach: float, **options) -> None:
    """Changes in percentage points, in colours that end at `reach` points, bold where the interval excludes 0."""
    change = 100 * _wide(changes, "change", rows, columns)
    certain = _wide(changes.assign(certain=is_certain(changes)), "certain", rows, columns)
    _heatmap(axes, change, cmap="RdBu", vmin=-reach, vmax=reach, fmt="+.1f", **options)
    for text, bold in zip(axes.texts, certain.to_numpy()[change.notna().to_numpy()], strict=True):
        text.set_fontweight("bold" if bold else "normal")


def _with_interval(title: str, changes: pd.DataFrame) -> str:
    text = interval_text(changes)
    return f"{title}\n{f'bold: 0 lies outside the {text}' if changes['low'].notna().any() else text}"


@styled
def results_heatmap(changes: pd.DataFrame, title: str) -> Figure:
    """AUROC of each head on each OOD set without outliers, and a panel for what each condition changes.

    Args:
        changes: From `intervals.exposure_changes`.
    """
    changes = changes[(changes["metric"] == "auroc") & (changes["ood_set"] != MEAN)]
    of_conditions = dict(tuple(changes.groupby("outliers", sort=False)))
    none = 100 * _wide(changes.drop_duplicates(["head", "title"]), "none", "head", "title")
    reach = max(1.0, 100 * changes["change"].abs().max())
    rows = -(-(1 + len(of_conditions)) // COLUMNS)
    size = COLUMNS * (1.1 + 0.55 * none.shape[1]), 0.6 + rows * (1.1 + 0.36 * len(none))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, COLUMNS, sharey=True).flat
    options = dict(annot_kws={"size": 8})
    _heatmap(panels[0], none, cmap="cividis", vmax=100, fmt=".1f", **options)
    panels[0].set(title="AUROC, no outliers (%)")
    for axes, (condition, of_condition) in zip(panels[1:], of_conditions.items(), strict=False):
        _change_map(axes, of_condition, "head", "title", reach, **options)
        axes.set(title=f"{label(condition)}: change (points)")
    for axes in panels[1 + len(of_conditions) :]:
        axes.set_visible(False)
    for axes in panels:
        axes.tick_params("x", rotation=40)
        axes.set_xticklabels(axes.get_xticklabels(), ha="right", rotation_mode="anchor")
    figure.suptitle(_with_interval(title, changes))
    return figure


@styled
def purity_map(tables: dict[str, pd.DataFrame], title: str) -> Figure:
    """How sure a committee is of images, against how far they lie from the training images.

    Args:
        tables: By the name of a set, columns `confidence` and `distance`; the first is drawn in the ID colour.
    """
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    colour = dict(zip(tables, [ID_COLOUR, "#666666", OOD_COLOUR, "#CC79A7"], strict=False))
    for name in [*list(tables)[1:], next(iter(tables))]:
        axes.scatter("distance", "confidence", s=7, alpha=0.45, lw=0, color=colour[name], data=tables[name])
    handles = [Line2D([], [], marker="o", ls="", color=colour[name], label=name) for name in tables]
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.axvline(1, color="0.6", lw=0.8, ls=":")
    axes.set(title=title, xlabel="distance to the nearest training image (1: typical of unseen ID images)")
    axes.set(ylabel="confidence of the committee", ylim=(0, 1.03))
    return figure


@styled
def pair_heatmap(shares: pd.DataFrame, title: str) -> Figure:
    """Shares by pair of classes, in percent.

    Args:
        shares: A symmetric table with class names on both sides, of which the lower triangle is shown.
    """
    shares = shares.iloc[1:, :-1].where(np.tri(len(shares) - 1, dtype=bool))
    size = 1.6 + 0.42 * len(shares)
    figure = Figure(figsize=(size, size - 0.5), layout="constrained")
    axes = figure.subplots()
    _heatmap(axes, 100 * shares, fmt=".0f", cmap="cividis", vmin=0, vmax=100)
    axes.set(title=title)
    return figure


def _bins(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Edges of bins for scores clipped to them; infinite ones and NaN do not count."""
    seen = scores[np.isfinite(scores)] if np.isfinite(scores).any() else np.zeros(1)
    # One detector may score wildly low on noise; the axis ends where 99 % of all scores are in view.
    low, high = np.quantile(seen, 0.01), seen.max()
    if np.isfinite(threshold):
        low = min(low, threshold)
    margin = 0.02 * (high - low) or 0.5  # all may be equal
    return np.linspace(low - margin, high + margin, 50)


def _left_out(*scores: np.ndarray) -> str:
    """A line on scores that have no place on an axis; empty where all have one."""
    count = sum(int((~np.isfinite(of_set)).sum()) for of_set in scores)
    return f"\n{count} infinite or NaN, not drawn" if count else ""


def _histograms(
    axes: Axes, id_scores: np.ndarray, ood_scores: np.ndarray, threshold: float, bins: np.ndarray
) -> None:
    for scores, colour in ((id_scores, ID_COLOUR), (ood_scores, OOD_COLOUR)):
        counts, _ = np.histogram(scores[np.isfinite(scores)].clip(bins[0], bins[-1]), bins)
        axes.stairs(counts / max(counts.max(), 1), bins, fill=True, color=colour, alpha=0.55, lw=0)
    place = np.nan_to_num(threshold, nan=np.nan, neginf=bins[0], posinf=bins[-1])
    axes.axvline(place, color="black", lw=1, ls="--")
    axes.set(yticks=[], ylim=(0, 1.05), xlim=(bins[0], bins[-1]))
    axes.spines["left"].set_visible(False)


@styled
def score_histogram(id_scores: np.ndarray, ood_scores: np.ndarray, threshold: float, title: str) -> Figure:
    """One detector's scores of ID and OOD test images and its threshold, with room for marks on the same axis."""
    figure = Figure(figsize=(3.7, 1.5), layout="constrained")
    axes = figure.subplots()
    bins = _bins(np.concatenate([id_scores, ood_scores]), threshold)
    _histograms(axes, id_scores, ood_scores, threshold, bins)
    axes.set(title=title + _left_out(id_scores, ood_scores))
    return figure


@styled
def score_distributions(
    scores: pd.DataFrame, thresholds: dict[str, float], title: str, xlabel: str
) -> Figure:
    """Score histograms of the ID images against each OOD set, a column for each source of outliers.

    Of several sets the titles tell the mean share that is accepted.

    Args:
        scores: Columns `outliers`, `set`, `title`, `role` and `score`.
        thresholds: By `outliers`; scores from it upwards are accepted as ID.
    """
    sets = list(id_and_ood(scores)[1])
    figure = Figure(figsize=(4.4 * len(thresholds) + 0.8, 0.72 * len(sets) + 1.3), layout="constrained")
    grid = figure.subplots(len(sets), len(thresholds), squeeze=False, sharex="col")
    for column, (source, threshold) in zip(grid.T, thresholds.items(), strict=True):
        id_images, ood_sets = id_and_ood(scores[scores["outliers"] == source])
        all_scores = pd.concat([id_images, *ood_sets.values()])["score"].to_numpy()
        bins = _bins(all_scores, threshold)
        accepted = {key: float((ood_sets[key]["score"] >= threshold).mean()) for key in sets}
        for axes, key in zip(column, sets, strict=True):
            ood_scores = ood_sets[key]["score"].to_numpy()
            _histograms(axes, id_images["score"].to_numpy(), ood_scores, threshold, bins)
            text = f"{accepted[key]:.0%}\naccepted"
            axes.text(1.01, 0.5, text, transform=axes.transAxes, va="center", fontsize=8)
            if axes in grid[:, 0]:
                axes.set_ylabel(ood_sets[key]["title"].iloc[0], rotation=0, ha="right", va="center")
        mean = f"\naccepts {np.mean(list(accepted.values())):.0%} of OOD images" if len(sets) > 1 else ""
        column[0].set_title((label(source) + mean + _left_out(all_scores)).strip())
        column[-1].set_xlabel(xlabel)
    figure.suptitle(title)
    handles = [figure.axes[0].patches[i] for i in (0, 1)] + [figure.axes[0].lines[0]]
    names = ["ID test", "OOD set", "threshold, from ID validation images"]
    figure.legend(handles, names, loc="outside lower center", ncols=3)
    return figure


@styled
def roc_curves(scores: pd.DataFrame, title: str) -> Figure:
    """ROC curves (ID positive), a line for each OOD set and a panel for each source of outliers.

    Args:
        scores: Columns `outliers`, `set`, `title`, `role` and `score`.
    """
    import seaborn as sns

    sources = scores["outliers"].unique()
    figure = Figure(figsize=(3.7 * len(sources), 3.7), layout="constrained")
    panels = figure.subplots(1, len(sources), squeeze=False, sharex=True, sharey=True)[0]
    for axes, source in zip(panels, sources, strict=True):
        id_images, ood_sets = id_and_ood(scores[scores["outliers"] == source])
        colours = sns.color_palette("colorblind", len(ood_sets))
        names, left_out = [], int(id_images["score"].isna().sum())
        for images, colour in zip(ood_sets.values(), colours, strict=True):
            both = [
                of_set["score"].dropna() for of_set in (id_images, images)
            ]  # infinite ones have their place
            left_out += int(images["score"].isna().sum())
            if all(map(len, both)):
                axes.plot(*roc_curve(*both), color=colour, lw=1.6)
                names.append(f"{images['title'].iloc[0]} {auroc(*both):.3f}")
        curves = axes.lines[:]
        axes.axhline(0.95, color="0.6", lw=0.8, ls=":")
        panel_title = label(source) + (f"\n{left_out} NaN, not drawn" if left_out else "")
        axes.set(title=panel_title, xlabel="OOD accepted", aspect="equal", xlim=(-0.01, 1), ylim=(0, 1.01))
        # Not by labels of the curves, of which those that begin with _ are left out.
        axes.legend(curves, names, title="AUROC", loc="lower right", fontsize=8)
    panels[0].set_ylabel("ID accepted")
    figure.suptitle(title)
    return figure
