"""Figures of one quantity against another."""

import numpy as np
import pandas as pd

from oodlib.reports import curves


def test_a_loss_curve_has_a_line_for_each_seed():
    history = pd.DataFrame({"step": [1, 2, 1, 2], "loss": [2.0, 1.0, 3.0, 1.5], "seed": [0, 0, 1, 1]})
    axes = curves.loss_curve(history, "loss", by="seed").axes[0]
    assert [line.get_ydata().tolist() for line in axes.lines[:2]] == [[2.0, 1.0], [3.0, 1.5]]


def test_shares_are_drawn_in_percent_with_intervals():
    table = pd.DataFrame(
        {"weight": [0.1, 0.1, 0.5, 0.5], "mix": ["sum"] * 4, "in_between": [True, False, True, True]}
    )
    axes = curves.share_lines(table, "title", x="weight", y="in_between", hue="mix", xlabel="weight").axes[0]
    assert axes.lines[0].get_ydata().tolist() == [50, 100]
    (bars,) = axes.collections
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    assert ends == [[0, 100], [100, 100]]  # of one of two, and of two of two


def test_heads_with_the_same_curve_share_a_line():
    angles = np.linspace(0, np.pi, 5)
    targets = {name: np.cos(angles) for name in ("scaled_cosine", "adacos")} | {
        "cosface": np.cos(angles) - 0.35
    }
    axes = curves.margin_curves(angles, targets, "title").axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["scaled cosine, AdaCos", "CosFace"]
    assert np.allclose(axes.lines[1].get_ydata(), np.cos(angles) - 0.35)
    assert np.allclose(axes.lines[1].get_xdata(), [0, 45, 90, 135, 180])
