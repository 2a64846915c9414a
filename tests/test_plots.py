"""Figures: they draw what they are given, and change nothing for anyone else."""

import io
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from oodlib.detection.metrics import auroc
from oodlib.reports import plots


def rendered(figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


@pytest.fixture
def scores() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    sets = {
        "id_test": ("ID test", "id", 1.0),
        "letters": ("letters", "far", 0.0),
        "held_out": ("8s and 9s", "near", 0.5),
        "blurred": ("blurred", "shifted_id", 0.9),
    }
    return pd.concat(
        pd.DataFrame(
            {"outliers": kind, "set": key, "title": title, "role": role, "score": rng.normal(mean, 0.3, 40)}
        )
        for kind in ("none", "label_mixup")
        for key, (title, role, mean) in sets.items()
    )


INTERVAL = "95 % t interval over 3 seeds"


def test_an_image_grid_shows_each_image_in_its_place():
    images = np.zeros((2, 3, 8, 8, 1), np.uint8)
    images[1, 2] = 200
    figure = plots.image_grid(images, "title", column_titles=["a", "b", "c"], row_titles=["x", "y"])
    sheet = figure.axes[0].images[0].get_array()
    assert sheet[9:, 18:].min() == 200 and sheet[:8, :8].max() == 0
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "row_title", ["0", "scaled to 3/4 and back", "training images, noise levels, degraded"]
)
def test_an_image_grid_leaves_no_band_blank(row_title):
    black = [np.zeros((12, 8, 8, 1), np.uint8)] * 15
    figure = rendered(plots.image_grid(black, "title", row_titles=[row_title] * 15))
    is_blank = (imread(io.BytesIO(figure))[..., :3] > 0.9).all((1, 2))
    runs = "".join("b" if blank else "-" for blank in is_blank).split("-")
    assert max(map(len, runs)) < 25  # a quarter of an inch


def test_rows_of_an_image_grid_may_be_unequal():
    rows = [np.zeros((3, 8, 8, 1), np.uint8), np.zeros((1, 8, 8, 1), np.uint8)]
    sheet = plots.image_grid(rows, "title").axes[0].images[0].get_array()
    assert sheet[:8, 18:].max() == 0 and sheet[9:, 9:].min() == 255


def test_one_seed_has_no_bold_changes():
    changes = pd.DataFrame(
        {"head": ["arcface"], "ood_set": ["letters"], "outliers": ["label_mixup"], "none": [0.9]}
        | {"exposed": [0.95]}
        | {"change": [0.05], "low": [np.nan], "high": [np.nan]}
        | {"title": ["letters"], "metric": ["auroc"], "interval": ["no interval from 1 seed"]}
    )
    figure = plots.results_heatmap(changes, "title")
    assert [text.get_fontweight() for text in figure.axes[1].texts] == ["normal"]
    assert figure.get_suptitle() == "title\nno interval from 1 seed"


def test_an_image_grid_takes_colour():
    assert rendered(plots.image_grid(np.full((1, 2, 32, 32, 3), 9, np.uint8), "colour"))


def test_score_distributions_draw_the_threshold_and_the_share_accepted(scores):
    figure = plots.score_distributions(scores, {"none": 0.5, "label_mixup": 0.6}, "title", "score")
    assert len(figure.axes) == 4  # two OOD sets, two kinds of training
    assert figure.axes[1].lines[0].get_xdata()[0] == 0.6
    assert [figure.axes[i].get_ylabel() for i in (0, 2)] == ["letters", "8s and 9s"]
    letters = scores.query("outliers == 'none' and set == 'letters'")["score"]
    assert figure.axes[0].texts[0].get_text() == f"{(letters >= 0.5).mean():.0%}\naccepted"
    ood = scores[(scores["outliers"] == "none") & scores["set"].isin(["letters", "held_out"])]
    mean = ood.groupby("set")["score"].agg(lambda values: (values >= 0.5).mean()).mean()
    assert figure.axes[0].get_title() == f"no outliers\naccepts {mean:.0%} of OOD images"
    assert rendered(figure)


def test_one_kind_of_training_is_enough_for_a_figure(scores):
    only = scores[scores["outliers"] == "none"]
    assert len(plots.score_distributions(only, {"none": 0.5}, "title", "score").axes) == 2
    assert len(plots.roc_curves(only, "title").axes) == 1


def test_roc_curves_name_the_auroc_of_each_set(scores):
    figure = plots.roc_curves(scores, "title")
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    id_scores, letters = (
        scores.query("outliers == 'none' and set == @name")["score"] for name in ("id_test", "letters")
    )
    assert labels[0] == f"letters {auroc(id_scores, letters):.3f}"
    assert len(labels) == 2 and labels[1].startswith("8s and 9s 0.")


def test_the_auroc_of_a_roc_curve_is_that_of_the_tables(scores, monkeypatch):
    monkeypatch.setattr(plots, "auroc", lambda *_: 0.123)
    legend = plots.roc_curves(scores, "title").axes[0].get_legend()
    assert legend.get_texts()[0].get_text() == "letters 0.123"


def test_both_score_figures_have_the_same_bars(scores):
    scores = scores[scores["set"].isin(["id_test", "letters"]) & (scores["outliers"] == "none")]
    both = [scores.loc[scores["set"] == key, "score"].to_numpy() for key in ("id_test", "letters")]
    one = plots.score_histogram(*both, 0.5, "title").axes[0]
    other = plots.score_distributions(scores, {"none": 0.5}, "title", "score").axes[0]
    for a, b in zip(one.patches, other.patches, strict=True):
        assert np.array_equal(a.get_data().values, b.get_data().values)
        assert np.array_equal(a.get_data().edges, b.get_data().edges)


def test_the_heat_map_sets_certain_changes_in_bold():
    changes = pd.DataFrame(
        {
            "head": ["arcface", "arcface"],
            "ood_set": ["letters", "uniform"],
            "none": [0.9, 0.9],
            "outliers": ["label_mixup", "label_mixup"],
            "exposed": [0.95, 0.91],
            "change": [0.05, 0.01],
            "low": [0.02, -0.03],
            "high": [0.08, 0.05],
            "title": ["Letters", "uniform"],
            "metric": "auroc",
            "interval": INTERVAL,
        }
    )
    figure = plots.results_heatmap(changes, "title")
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["Letters", "uniform"]
    assert figure.get_suptitle() == f"title\nbold: 0 lies outside the {INTERVAL}"
    weights = {text.get_text(): text.get_fontweight() for text in figure.axes[1].texts}
    assert weights == {"+5.0": "bold", "+1.0": "normal"}


def test_plots_leave_matplotlibs_settings_alone(scores):
    with matplotlib.rc_context({"font.size": 7, "figure.dpi": 33}):
        before = dict(matplotlib.rcParams)
        plots.roc_curves(scores, "title")
        assert dict(matplotlib.rcParams) == before


def test_the_purity_map_draws_every_image_of_every_set():
    tables = {
        name: pd.DataFrame({"confidence": np.linspace(0, 1, n), "distance": np.linspace(0, 2, n)})
        for name, n in (("ID", 5), ("label mixup", 9))
    }
    figure = plots.purity_map(tables, "title")
    assert sorted(len(points.get_offsets()) for points in figure.axes[0].collections) == [5, 9]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == list(tables)


def test_a_map_of_pairs_shows_one_triangle_in_percent():
    shares = pd.DataFrame(
        [[np.nan, 0.1, 0.2], [0.1, np.nan, 0.3], [0.2, 0.3, np.nan]], list("abc"), list("abc")
    )
    axes = plots.pair_heatmap(shares, "title").axes[0]
    assert sorted(text.get_text() for text in axes.texts) == ["10", "20", "30"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["a", "b"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["b", "c"]


def test_names_are_written_as_they_are():
    images = np.zeros((1, 2, 8, 8, 1), np.uint8)
    figure = plots.image_grid(images, "of Ba$$in", row_titles=["$x^2$"], column_titles=["a$", "$\\frac$"])
    figure.savefig(io.BytesIO(), format="png")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["$x^2$"]


ODD = [-np.inf, np.nan, np.inf]


@pytest.fixture
def odd(scores):
    """Scores of one kind of training, with three of a set that are not finite."""
    scores = scores[scores["outliers"] == "none"].reset_index(drop=True)
    scores.loc[scores.index[scores["set"] == "letters"][:3], "score"] = ODD
    return scores


def test_score_distributions_draw_finite_scores_and_count_the_others(odd):
    figure = plots.score_distributions(odd, {"none": 0.5}, "title", "score")
    title = figure.axes[0].get_title()
    assert re.fullmatch(r"no outliers\naccepts \d+% of OOD images\n3 infinite or NaN, not drawn", title)
    letters = odd.loc[odd["set"] == "letters", "score"]
    assert figure.axes[0].texts[0].get_text() == f"{(letters >= 0.5).mean():.0%}\naccepted"
    edges = figure.axes[0].patches[0].get_data().edges
    assert np.isfinite(edges).all() and edges[-1] < 3
    assert rendered(figure)


def test_a_score_histogram_counts_scores_that_it_does_not_draw():
    axes = plots.score_histogram(np.array([1.0, 2, *ODD]), np.array([0.0, np.nan]), 0.5, "title").axes[0]
    assert axes.get_title() == "title\n4 infinite or NaN, not drawn"


@pytest.mark.parametrize("threshold", [0.5, -np.inf, np.inf, np.nan])
@pytest.mark.parametrize("values", [[1.0, 1.0], [-np.inf, np.nan], [1.0, 2.0]])
def test_equal_scores_none_at_all_and_any_threshold_are_drawn(values, threshold):
    assert rendered(plots.score_histogram(np.array(values), np.array(values), threshold, "title"))


def test_roc_curves_order_infinite_scores_and_count_nan(odd):
    axes = plots.roc_curves(odd, "title").axes[0]
    id_scores, letters = (odd.loc[odd["set"] == key, "score"] for key in ("id_test", "letters"))
    assert axes.get_title() == "no outliers\n1 NaN, not drawn"
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend[0] == f"letters {auroc(id_scores, letters.dropna()):.3f}" and len(legend) == 2


def test_a_set_of_nan_alone_has_no_curve(odd):
    odd.loc[odd["set"] == "letters", "score"] = np.nan
    axes = plots.roc_curves(odd, "title").axes[0]
    assert axes.get_title().endswith("40 NaN, not drawn") and len(axes.get_legend().get_texts()) == 1


NAME = "_my$x$|set_1"


def test_a_set_in_score_figures_is_called_as_it_is(scores):
    named = scores.replace({"title": {"letters": NAME}})
    legend = plots.roc_curves(named, "title").axes[0].get_legend()
    assert legend.get_texts()[0].get_text().startswith(f"{NAME} 0.")
    figure = plots.score_distributions(named, {"none": 0.5}, "title", "score")
    assert figure.axes[0].get_ylabel() == NAME and rendered(figure)


def test_a_set_in_the_heat_map_is_called_as_it_is():
    changes = pd.DataFrame(
        {"head": ["arcface"], "ood_set": ["x"], "none": [0.9], "outliers": ["label_mixup"]}
        | {"exposed": [0.95], "change": [0.05], "low": [0.02], "high": [0.08]}
        | {"title": [NAME], "metric": ["auroc"], "interval": [INTERVAL]}
    )
    axes = plots.results_heatmap(changes, "title").axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == [NAME]
