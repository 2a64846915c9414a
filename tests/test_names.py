"""Names on screen."""

import pytest

from oodlib.reports.names import label, score_axis


@pytest.mark.parametrize(
    "name, shown",
    [("none", "no outliers"), ("arcface", "ArcFace"), ("aupr_in", "AUPR-In"), ("my_new_head", "my new head")],
)
def test_a_name_that_is_not_listed_is_itself(name, shown):
    assert label(name) == shown


def test_an_axis_says_what_a_score_is():
    assert score_axis("cosine") == "maximum cosine" and score_axis("my_score") == "my score"
