"""How well scores separate ID from OOD, in float64 numpy; equal to scikit-learn's, from one sort.

Scores are larger for ID. AUPR is average precision (a step sum, not a trapezoid).
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from oodlib.errors import InputError, choice


def _scores(name: str, values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values):
        raise InputError(f"{name} has shape {values.shape}, expected a non-empty vector")
    if np.isnan(values).any():
        raise InputError(f"{name} holds {np.isnan(values).sum()} NaN; a detector that diverged makes these")
    return values


def check_tpr(tpr: float) -> None:
    """Raise `InputError` unless it is a share above 0."""
    if not isinstance(tpr, int | float) or not 0 < tpr <= 1:
        raise InputError(f"tpr is {tpr!r}, expected a share above 0 and at most 1")


def _counts(id_scores: ArrayLike, ood_scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """How many ID and OOD scores are at or above each distinct threshold, falling; both begin with 0."""
    id_scores, ood_scores = _scores("id_scores", id_scores), _scores("ood_scores", ood_scores)
    # Sorting values is ten times faster than finding their order, and "stable" merges what is sorted in linear time.
    scores = np.concatenate([np.sort(id_scores), np.sort(ood_scores)])
    order = np.argsort(scores, kind="stable")[::-1]
    scores, is_id = scores[order], order < len(id_scores)
    last_of_tie = np.append(np.flatnonzero(scores[1:] != scores[:-1]), len(scores) - 1)
    accepted_id = np.cumsum(is_id)[last_of_tie]
    accepted_ood = last_of_tie + 1 - accepted_id
    return np.append(0, accepted_id).astype(float), np.append(0, accepted_ood).astype(float)


def _auroc(true: np.ndarray, false: np.ndarray) -> float:
    return float(np.trapezoid(true, false) / (true[-1] * false[-1]))


def _average_precision(true: np.ndarray, false: np.ndarray) -> float:
    return float(np.sum(np.diff(true) * (true[1:] / (true[1:] + false[1:]))) / true[-1])


def _fpr_at_tpr(true: np.ndarray, false: np.ndarray, tpr: float) -> float:
    check_tpr(tpr)
    return float(false[np.argmax(true / true[-1] >= tpr)] / false[-1])


def _reverse(counts: np.ndarray) -> np.ndarray:
    """Counts of scores at or below each threshold, rising: the view with OOD as the positive class."""
    return counts[-1] - counts[::-1]


def auroc(id_scores: ArrayLike, ood_scores: ArrayLike) -> float:
    """Area under the ROC curve: the chance that an ID score exceeds an OOD score, ties counted half."""
    return _auroc(*_counts(id_scores, ood_scores))


def roc_curve(id_scores: ArrayLike, ood_scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The shares of OOD and of ID that are accepted (score >= threshold), from a threshold above all scores down."""
    accepted_id, accepted_ood = _counts(id_scores, ood_scores)
    return accepted_ood / accepted_ood[-1], accepted_id / accepted_id[-1]


def resampled_auroc(
    id_scores: ArrayLike, ood_scores: ArrayLike, id_counts: np.ndarray, ood_counts: np.ndarray
) -> np.ndarray:
    """AUROC of B resamples, float64 (B,): in each an image stands as often as its count says.

    Args:
        id_counts, ood_counts: (B, n) and (B, m) for n ID and m OOD scores, 0 or more, not all 0 in any row.
    """
    id_scores, ood_scores = _scores("id_scores", id_scores), _scores("ood_scores", ood_scores)
    order = np.argsort(id_scores)
    below = np.pad(np.cumsum(id_counts[:, order], axis=1, dtype=np.float64), ((0, 0), (1, 0)))
    ends = (np.searchsorted(id_scores[order], ood_scores, side) for side in ("left", "right"))
    not_above = sum(np.einsum("bm,bm->b", below[:, end], ood_counts) for end in ends) / 2
    return 1 - not_above / (id_counts.sum(1) * ood_counts.sum(1))


def aupr(id_scores: ArrayLike, ood_scores: ArrayLike, positive: str = "id") -> float:
    """Average precision with ID (AUPR-In) or, on negated scores, OOD (AUPR-Out) as the positive class."""
    choice("positive class", positive, ("id", "ood"))
    accepted_id, accepted_ood = _counts(id_scores, ood_scores)
    if positive == "id":
        return _average_precision(accepted_id, accepted_ood)
    return _average_precision(_reverse(accepted_ood), _reverse(accepted_id))


def fpr_at_tpr(id_scores: ArrayLike, ood_scores: ArrayLike, tpr: float = 0.95, positive: str = "id") -> float:
    """False-positive rate at the first threshold whose true-positive rate reaches `tpr`.

    With `positive="id"` (the paper's rule) it is the share of OOD accepted when 95 % of ID is.
    """
    choice("positive class", positive, ("id", "ood"))
    accepted_id, accepted_ood = _counts(id_scores, ood_scores)
    if positive == "id":
        return _fpr_at_tpr(accepted_id, accepted_ood, tpr)
    return _fpr_at_tpr(_reverse(accepted_ood), _reverse(accepted_id), tpr)


def ood_metrics(id_scores: ArrayLike, ood_scores: ArrayLike) -> dict[str, float]:
    """`auroc`, `aupr_in`, `aupr_out` and `fpr95` (ID positive), all from one sort."""
    accepted_id, accepted_ood = _counts(id_scores, ood_scores)
    return {
        "auroc": _auroc(accepted_id, accepted_ood),
        "aupr_in": _average_precision(accepted_id, accepted_ood),
        "aupr_out": _average_precision(_reverse(accepted_ood), _reverse(accepted_id)),
        "fpr95": _fpr_at_tpr(accepted_id, accepted_ood, 0.95),
    }


def threshold_at_tpr(val_scores: ArrayLike, tpr: float = 0.95) -> float:
    """The threshold that accepts (score >= threshold) at least `tpr` of ID, from validation scores.

    It is the `ceil(tpr (n + 1))`-th largest of n scores, the conformal quantile, which keeps `tpr` of unseen
    ID data in expectation too; never beyond the smallest score.
    """
    check_tpr(tpr)
    scores = np.sort(_scores("val_scores", val_scores))[::-1]
    return float(scores[min(math.ceil(tpr * (len(scores) + 1)), len(scores)) - 1])


def is_ood(scores: ArrayLike, threshold: float) -> np.ndarray:
    """Whether each score is below the threshold, or NaN, which is never accepted as ID; bool (N,)."""
    return ~(np.asarray(scores) >= threshold)
