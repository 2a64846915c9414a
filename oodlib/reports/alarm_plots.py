"""Figures of false alarms: the same images, shifted, and what detectors say of them."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from oodlib.reports.names import label
from oodlib.reports.plots import image_grid
from oodlib.reports.style import ID_COLOUR, OOD_COLOUR, styled

LEVEL = 0.05  # what thresholds are meant for
ENLARGED = 32  # pixels that an image has at least, so that its frame is thin


def framed(images: np.ndarray, is_ood: np.ndarray) -> np.ndarray:
    """Images with a frame in the colour of a verdict.

    Args:
        images: uint8 (N, H, W, C).
        is_ood: bool (N,).

    Returns:
        uint8, (N, h, w, 3).
    """
    factor = max(1, ENLARGED // images.shape[1])
    rgb = np.broadcast_to(images, (*images.shape[:3], 3)).repeat(factor, axis=1).repeat(factor, axis=2)
    colours = np.where(is_ood[:, None], to_rgb(OOD_COLOUR), to_rgb(ID_COLOUR)) * 255
    width = max(2, rgb.shape[1] // 12)
    framed = np.pad(rgb, ((0, 0), (width, width), (width, width), (0, 0)))
    inside = np.zeros(framed.shape[1:3], bool)
    inside[width:-width, width:-width] = True
    return np.where(inside[..., None], framed, colours.round()[:, None, None]).astype(np.uint8)


def same_images_shifted(
    images: Sequence[np.ndarray],
    verdicts: Mapping[str, Sequence[np.ndarray]],
    titles: Sequence[str],
    title: str,
) -> Figure:
    """A row for each image and detector, a column for each shift, framed in the colour of the verdict.

    Args:
        images: Of each shift, uint8 (N, H, W, C), the same N.
        verdicts: By what a detector was trained with, of each shift bool (N,), whether it is called OOD.
        titles: Of the shifts.
    """
    rows, names = [], []
    for outliers, of_shifts in verdicts.items():
        columns = [framed(of_set, is_ood) for of_set, is_ood in zip(images, of_shifts, strict=True)]
        for i in range(len(images[0])):
            rows.append(np.stack([column[i] for column in columns]))
            names.append(fill(label(outliers), 12) if i == 0 else "")
    return image_grid(
        rows, title, column_titles=[fill(name, 9) for name in titles], row_titles=names, cell=0.6
    )


@styled
def false_alarms(alarms: pd.DataFrame, title: str) -> Figure:
    """The share of ID test images that each detector calls OOD, a line for each shift.

    Args:
        alarms: Rows of one head and score: columns `outliers`, `title`, `role` and `called_ood`.
    """
    import seaborn as sns

    shifts = alarms["title"].nunique()
    figure = Figure(figsize=(6.5, 1.2 + 0.27 * shifts), layout="constrained")
    axes = figure.subplots()
    most = max(20, 110 * alarms["called_ood"].max())
    sns.stripplot(
        alarms.assign(percent=100 * alarms["called_ood"], outliers=alarms["outliers"].map(label)),
        x="percent", y="title", hue="outliers", palette="colorblind", jitter=False, size=7, ax=axes,
    )  # fmt: skip
    axes.axvline(100 * LEVEL, color="0.6", lw=0.8, ls=":")
    axes.grid(axis="y", color="0.92")
    axes.set(title=title, xlabel="ID test images called OOD (%)", ylabel="", xlim=(-most / 50, most))
    axes.legend(title="", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
