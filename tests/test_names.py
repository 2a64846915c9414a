"""Names on screen."""

import pytest

from oodlib.reports.names import label, score_axis


@pytest.mark.parametrize(
    "name, shown",
    [("none", "no outliers"), ("arcface", "ArcFace"), ("aupr_in", "AUPR-In"), ("my_new_head", "my new head")],
)
def test_a_name_that_is_not_listed_is_itself(name, shown):
    assert label(name) == shown


@pytest.mark.parametrize(
    "name, shown",
    [
        ("none+degraded", "no outliers, degraded"),
        ("none+degraded0.5", "no outliers, degraded 0.5"),
        ("cmg+noise+degraded", "CMG, noise levels, degraded"),
        ("cmg+noise0.2-0.9+degraded2", "CMG, noise levels 0.2-0.9, degraded 2"),
        ("my_source+noise", "my source, noise levels"),
        ("a+b", "a+b"),
    ],
)
def test_a_condition_says_what_is_done_to_images_behind_its_source(name, shown):
    assert label(name) == shown


def test_an_axis_says_what_a_score_is():
    assert score_axis("cosine") == "maximum cosine" and score_axis("my_score") == "my score"
