import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from oodlib.detection import metrics
from oodlib.detection.metrics import (
    aupr,
    auroc,
    fpr_at_tpr,
    is_ood,
    ood_metrics,
    resampled_auroc,
    threshold_at_tpr,
)
from oodlib.errors import InputError

RANDOM = np.random.default_rng(0)
CASES = {
    "random": (RANDOM.normal(1, 1, 300), RANDOM.normal(0, 1, 200)),
    "heavy ties": (RANDOM.integers(2, 7, 300).astype(float), RANDOM.integers(0, 5, 200).astype(float)),
    "saturated": (RANDOM.normal(1, 1, 300).clip(max=0.5), RANDOM.normal(0, 1, 200).clip(max=0.5)),
    "at a million": (1e6 + RANDOM.normal(1, 1, 300), 1e6 + RANDOM.normal(0, 1, 200)),
    "at 1e300": (1e300 * RANDOM.normal(1, 0.1, 300), 1e300 * RANDOM.normal(0.9, 0.1, 200)),
    "few ID": (RANDOM.normal(1, 1, 5), RANDOM.normal(0, 1, 5000)),
    "few OOD": (RANDOM.normal(1, 1, 5000), RANDOM.normal(0, 1, 5)),
    "separated": (np.arange(100.0, 150.0), np.arange(40.0)),
    "wrong way round": (np.arange(40.0), np.arange(100.0, 150.0)),
    "all equal": (np.full(30, 2.5), np.full(20, 2.5)),
    "one of each": (np.array([1.0]), np.array([0.0])),
    "float32": (RANDOM.normal(1, 1, 300).astype("float32"), RANDOM.normal(0, 1, 200).astype("float32")),
    "tiny differences": (1 + 1e-15 * RANDOM.integers(0, 9, 99), 1 + 1e-15 * RANDOM.integers(0, 7, 80)),
}
each_case = pytest.mark.parametrize("id_scores, ood_scores", CASES.values(), ids=CASES.keys())


def labelled(id_scores, ood_scores, positive="id"):
    """Labels and scores as scikit-learn takes them, larger for the positive class."""
    scores = np.concatenate([id_scores, ood_scores]).astype(np.float64)
    is_id = np.arange(len(scores)) < len(id_scores)
    return (is_id, scores) if positive == "id" else (~is_id, -scores)


def sklearn_fpr(id_scores, ood_scores, tpr, positive):
    fprs, tprs, _ = roc_curve(*labelled(id_scores, ood_scores, positive), drop_intermediate=False)
    return fprs[tprs >= tpr][0]


@each_case
def test_auroc_is_scikit_learns(id_scores, ood_scores):
    expected = roc_auc_score(*labelled(id_scores, ood_scores))
    assert auroc(id_scores, ood_scores) == pytest.approx(expected, abs=1e-12)


@each_case
def test_the_roc_curve_is_scikit_learns(id_scores, ood_scores):
    expected = roc_curve(*labelled(id_scores, ood_scores), drop_intermediate=False)[:2]
    assert np.allclose(metrics.roc_curve(id_scores, ood_scores), expected, rtol=0, atol=1e-12)


@each_case
def test_the_area_under_the_roc_curve_is_auroc(id_scores, ood_scores):
    fpr, tpr = metrics.roc_curve(id_scores, ood_scores)
    assert np.trapezoid(tpr, fpr) == pytest.approx(auroc(id_scores, ood_scores), abs=1e-12)


@pytest.mark.parametrize("positive", ["id", "ood"])
@each_case
def test_aupr_is_scikit_learns_average_precision(id_scores, ood_scores, positive):
    expected = average_precision_score(*labelled(id_scores, ood_scores, positive))
    assert aupr(id_scores, ood_scores, positive) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("positive", ["id", "ood"])
@pytest.mark.parametrize("tpr", [0.5, 0.8, 0.95, 1.0])
@each_case
def test_fpr_is_that_of_scikit_learns_roc_curve(id_scores, ood_scores, tpr, positive):
    expected = sklearn_fpr(id_scores, ood_scores, tpr, positive)
    assert fpr_at_tpr(id_scores, ood_scores, tpr, positive) == pytest.approx(expected, abs=1e-12)


@each_case
def test_ood_metrics_are_the_four_one_by_one(id_scores, ood_scores):
    assert ood_metrics(id_scores, ood_scores) == {
        "auroc": auroc(id_scores, ood_scores),
        "aupr_in": aupr(id_scores, ood_scores, "id"),
        "aupr_out": aupr(id_scores, ood_scores, "ood"),
        "fpr95": fpr_at_tpr(id_scores, ood_scores, 0.95, "id"),
    }


@each_case
def test_order_of_scores_does_not_matter(id_scores, ood_scores):
    random = np.random.default_rng(1)
    shuffled = ood_metrics(random.permutation(id_scores), random.permutation(ood_scores))
    assert shuffled == ood_metrics(id_scores, ood_scores)


@each_case
def test_auroc_of_exchanged_sets_is_its_complement(id_scores, ood_scores):
    assert auroc(ood_scores, id_scores) == pytest.approx(1 - auroc(id_scores, ood_scores), abs=1e-12)


@each_case
def test_auroc_of_negated_and_exchanged_sets_is_the_same(id_scores, ood_scores):
    negated = auroc(-ood_scores, -id_scores)
    assert negated == pytest.approx(auroc(id_scores, ood_scores), abs=1e-12)


@each_case
def test_aupr_out_is_aupr_in_of_negated_and_exchanged_sets(id_scores, ood_scores):
    assert aupr(id_scores, ood_scores, "ood") == aupr(-ood_scores, -id_scores, "id")


def test_auroc_counts_a_tie_half():
    assert auroc([1.0, 2.0], [1.0, 0.0]) == 3.5 / 4


def test_metrics_do_not_change_under_a_monotonic_map():
    id_scores, ood_scores = CASES["random"]
    assert ood_metrics(np.exp(id_scores), np.exp(ood_scores)) == ood_metrics(id_scores, ood_scores)


def test_separated_sets_have_perfect_metrics():
    perfect = {"auroc": 1.0, "aupr_in": 1.0, "aupr_out": 1.0, "fpr95": 0.0}
    assert ood_metrics(*CASES["separated"]) == perfect


def test_equal_scores_have_the_metrics_of_chance():
    chance = {"auroc": 0.5, "aupr_in": 0.6, "aupr_out": 0.4, "fpr95": 1.0}
    assert ood_metrics(*CASES["all equal"]) == pytest.approx(chance, abs=1e-12)


def test_the_two_positive_classes_have_different_fpr95():
    id_scores, ood_scores = [1.0, 2.0, 3.0, 4.0], [0.0, 1.5]
    assert fpr_at_tpr(id_scores, ood_scores, positive="id") == 0.5
    assert fpr_at_tpr(id_scores, ood_scores, positive="ood") == 0.25


def test_infinite_scores_have_their_place():
    assert auroc([np.inf, 1.0], [0.0, -np.inf]) == 1.0


def test_lists_and_integers_are_scores():
    assert auroc([2, 3], [1, 2]) == 3.5 / 4


FUNCTIONS = [auroc, aupr, fpr_at_tpr, ood_metrics]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_nan_is_refused(function):
    with pytest.raises(InputError, match="ood_scores holds 2 NaN"):
        function([1.0, 2.0], [np.nan, 0.0, np.nan])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_scores_are_refused(function):
    with pytest.raises(InputError, match=r"id_scores has shape \(0,\), expected a non-empty vector"):
        function([], [1.0])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_matrix_of_scores_is_refused(function):
    with pytest.raises(InputError, match=r"ood_scores has shape \(2, 2\)"):
        function([1.0], np.ones((2, 2)))


@pytest.mark.parametrize("function", [aupr, fpr_at_tpr])
def test_unknown_positive_class_is_refused(function):
    with pytest.raises(InputError, match="positive class 'in' is not known; choose one of id, ood"):
        function([1.0], [0.0], positive="in")


@pytest.mark.parametrize("n", range(1, 51))
@pytest.mark.parametrize("tpr", [0.5, 0.8, 0.9, 0.95, 0.99, 1.0])
def test_threshold_accepts_at_least_the_tpr_of_validation(tpr, n):
    scores = np.random.default_rng(n).normal(size=n)
    assert (scores >= threshold_at_tpr(scores, tpr)).mean() >= tpr


@pytest.mark.parametrize("n", range(1, 51))
@pytest.mark.parametrize("percent", [50, 80, 90, 95, 99, 100])
def test_threshold_is_the_conformal_order_statistic(percent, n):
    scores = np.random.default_rng(n).normal(size=n)
    rank = min(-(-percent * (n + 1) // 100), n)
    assert threshold_at_tpr(scores, percent / 100) == sorted(scores, reverse=True)[rank - 1]


@pytest.mark.parametrize("tpr", [0.5, 0.95, 1.0])
def test_threshold_with_ties_accepts_at_least_the_tpr(tpr):
    scores = np.random.default_rng(0).integers(0, 4, 40)
    assert (scores >= threshold_at_tpr(scores, tpr)).mean() >= tpr


def test_threshold_keeps_the_tpr_of_unseen_scores_in_expectation():
    validation = np.random.default_rng(0).uniform(size=(2000, 30))
    accepted = [1 - threshold_at_tpr(scores, 0.9) for scores in validation]
    assert np.mean(accepted) >= 0.9


def test_threshold_does_not_depend_on_the_order():
    scores = np.random.default_rng(0).normal(size=40)
    assert threshold_at_tpr(scores[::-1]) == threshold_at_tpr(scores)


def test_threshold_of_float32_scores_is_one_of_them():
    scores = np.random.default_rng(0).normal(size=40).astype(np.float32)
    assert threshold_at_tpr(scores) in scores.astype(np.float64)


@pytest.mark.parametrize("tpr", [0.0, -0.1, 1.01, 95, math.nan])
def test_a_tpr_that_is_no_share_is_refused(tpr):
    with pytest.raises(InputError, match="expected a share above 0 and at most 1"):
        threshold_at_tpr([1.0, 2.0], tpr)


@pytest.mark.parametrize("scores", [[], [1.0, math.nan]])
def test_threshold_of_bad_scores_is_refused(scores):
    with pytest.raises(InputError, match="val_scores"):
        threshold_at_tpr(scores)


RESAMPLED_ID, RESAMPLED_OOD = (
    np.random.default_rng(0).integers(*ends) / 10 for ends in ((3, 9, 40), (0, 6, 60))
)


def test_a_resample_of_each_image_once_has_the_auroc_itself():
    once = resampled_auroc(RESAMPLED_ID, RESAMPLED_OOD, np.ones((1, 40)), np.ones((1, 60)))
    assert once == pytest.approx([auroc(RESAMPLED_ID, RESAMPLED_OOD)], abs=1e-14)


def test_resampled_auroc_is_scikit_learns_with_counts_as_sample_weights():
    rng = np.random.default_rng(1)
    id_counts, ood_counts = (rng.multinomial(n, np.full(n, 1 / n), 5).astype(np.uint16) for n in (40, 60))
    is_id, scores = np.r_[np.ones(40), np.zeros(60)], np.r_[RESAMPLED_ID, RESAMPLED_OOD]  # with ties
    theirs = [
        roc_auc_score(is_id, scores, sample_weight=np.r_[i, o])
        for i, o in zip(id_counts, ood_counts, strict=True)
    ]
    ours = resampled_auroc(RESAMPLED_ID, RESAMPLED_OOD, id_counts, ood_counts)
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_a_score_at_the_threshold_is_id_and_nan_is_ood():
    assert is_ood([1.0, 0.5, 0.4, np.nan, -np.inf], 0.5).tolist() == [False, False, True, True, True]
