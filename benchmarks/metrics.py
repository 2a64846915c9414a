"""AUROC, AUPR-In, AUPR-Out and FPR95 together, against scikit-learn's four calls and pytorch-ood's OODMetrics."""

from functools import partial

import numpy as np
import torch
from pytorch_ood.metrics import OODMetrics
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from benchmarks.table import Row, alternate, number
from oodlib.detection.metrics import ood_metrics


def scikit_learn(id_scores: np.ndarray, ood_scores: np.ndarray) -> dict[str, float]:
    """The same four numbers as `ood_metrics`, by one call each."""
    scores = np.concatenate([id_scores, ood_scores])
    is_id = np.arange(len(scores)) < len(id_scores)
    fpr, tpr, _ = roc_curve(is_id, scores, drop_intermediate=False)
    return {
        "auroc": roc_auc_score(is_id, scores),
        "aupr_in": average_precision_score(is_id, scores),
        "aupr_out": average_precision_score(~is_id, -scores),
        "fpr95": fpr[tpr >= 0.95][0],
    }


def pytorch_ood(scores: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Its five numbers, AUTC among them; its AUPRs are by the trapezoidal rule, and its FPR95 has OOD as the positive
    class.

    Args:
        scores: Larger for OOD.
        labels: Below 0 for OOD.
    """
    return OODMetrics().update(scores, labels).compute()


def rows(toy: bool) -> list[Row]:
    found = []
    sizes = ((100, 260, 6), (300, 300, 14)) if toy else ((10_000, 26_000, 6), (1_000_000, 1_000_000, 14))
    for id_count, ood_count, target in sizes:
        rng = np.random.default_rng(0)
        id_scores = rng.normal(1, 1, id_count).astype(np.float32).astype(np.float64)
        ood_scores = rng.normal(0, 1, ood_count).astype(np.float32).astype(np.float64)
        for decimals in (7, 2, 0):  # from few ties to hardly anything else
            given = id_scores.round(decimals), ood_scores.round(decimals)
            ours, theirs = ood_metrics(*given), scikit_learn(*given)
            for name, value in theirs.items():
                assert abs(ours[name] - value) <= 1e-12, f"{name}: {ours[name]}, scikit-learn has {value}"
        repetitions = 1 if toy else 15 if id_count < 100_000 else 5
        tensors = -torch.tensor([*id_scores, *ood_scores]), -torch.tensor([0] * id_count + [1] * ood_count)
        theirs = pytorch_ood(*tensors)["AUROC"]
        assert abs(theirs - ood_metrics(id_scores, ood_scores)["auroc"]) < 1e-6, (
            f"pytorch-ood: AUROC {theirs}"
        )
        ways = (partial(way, id_scores, ood_scores) for way in (ood_metrics, scikit_learn))
        ours, scikit, pytorch = alternate(repetitions, *ways, partial(pytorch_ood, *tensors))
        for peer, seconds, wanted, note in (
            ("scikit-learn", scikit, target, "equal to 1e-12, also where nearly all scores are tied"),
            ("pytorch-ood", pytorch, 2, "it also computes AUTC"),
        ):
            taken = f"{peer}: {number(1000 * seconds)} ms"
            job = f"metrics of {id_count + ood_count:,} scores ({peer})"
            found.append(Row(job, f"{number(1000 * ours)} ms", taken, seconds / ours, wanted, "x", note=note))
    return found
