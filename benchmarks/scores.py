"""Every score of 10,000 images with 10 classes, from the same features and logits, against pytorch-ood's detectors."""

import math
from collections.abc import Callable, Iterable
from functools import partial

import torch
from pytorch_ood.detector import GEN, KNN, RMD, EnergyBased, Mahalanobis, MaxSoftmax, ViM
from torch import Tensor

from benchmarks.table import Row, alternate, number
from oodlib.detection.scores import BANK_SIZE, Outputs, ScoreSet
from oodlib.reports.names import label

FIVE = ("msp", "energy", "cosine", "mahalanobis", "knn")
TARGETS = {"mahalanobis": 10}  # times as fast; the others at least as fast


def rows(toy: bool) -> list[Row]:
    return [row for dimension in ((8, 16) if toy else (512, 2048)) for row in _rows(dimension, toy)]


def _rows(dimension: int, toy: bool) -> list[Row]:
    count = 100 if toy else 10_000
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 10
    centres = torch.randn(10, dimension, generator=random)
    features = centres[labels] + torch.randn(count, dimension, generator=random)
    weights = centres / dimension
    outputs = Outputs(features, features @ weights.T, weights)
    table, scores = [], ScoreSet()
    scores.fit(outputs, labels, outputs, 0.95, BANK_SIZE)
    for name, (theirs, as_ours) in _peers(outputs, labels, scores).items():
        ours = scores[name]
        difference = (ours(outputs) - as_ours(theirs().double())).abs().max().item()
        scale = ours(outputs).abs().max().item()
        tolerance = 2e-3 if name == "knn" else 1e-4 * scale  # our bank is float16
        if name == "vim":  # of which pytorch-ood finds the space in float32; ours is exact to 3e-7
            tolerance *= 2
        assert difference < tolerance, f"{name} differs by {difference:.1e} of {scale:.1e}"
        seconds = alternate(1 if toy else 5, partial(ours, outputs), theirs)
        took, peer = (f"{number(1000 * s)} ms" for s in seconds)
        job = f"{label(name)} scores, {count:,} x {dimension}"
        note = f"largest difference {difference / scale:.0e} of the largest score"
        target = TARGETS.get(name, 1)
        table.append(Row(job, took, f"pytorch-ood: {peer}", seconds[1] / seconds[0], target, "x", note=note))
    ways = (partial(_all, scores, names, outputs) for names in (FIVE, scores))
    five, every = alternate(1 if toy else 3, *ways)
    job, took = f"all {len(scores)} scores, {count:,} x {dimension}", f"{number(1000 * every)} ms"
    alone = f"{', '.join(map(label, FIVE))} alone: {number(1000 * five)} ms"
    table.append(Row(job, took, alone, every / five, 1.5, "x", at_most=True))
    return table


def _all(scores: ScoreSet, names: Iterable[str], outputs: Outputs) -> None:
    for name in names:
        scores[name](outputs)


def _peers(
    outputs: Outputs, labels: Tensor, scores: ScoreSet
) -> dict[str, tuple[Callable[[], Tensor], Callable[[Tensor], Tensor]]]:
    """By score, how pytorch-ood computes it, and what makes ours of it."""
    features, logits = outputs[:2]
    bank = min(len(labels), BANK_SIZE)
    kept = torch.arange(bank) * len(labels) // bank
    knn = KNN(None, k=math.ceil(bank / 1000)).fit_features(features[kept], labels[kept])
    mahalanobis, rmds = (peer(None).fit_features(features, labels) for peer in (Mahalanobis, RMD))
    no_bias = torch.zeros(len(outputs.class_weights))
    dimension = features.shape[1] - scores["vim"].residual_space.shape[1]
    vim = ViM(None, dimension, outputs.class_weights, no_bias).fit_features(features, labels)
    return {
        "msp": (partial(MaxSoftmax.score, logits), lambda scores: (-scores).log()),
        "energy": (partial(EnergyBased.score, logits), lambda scores: -scores),
        # Half the distance by a covariance that is not divided by N.
        "mahalanobis": (
            partial(mahalanobis.predict_features, features),
            lambda scores: -2 * len(labels) * scores,
        ),
        "rmds": (partial(rmds.predict_features, features), lambda scores: -len(labels) * scores),
        "gen": (partial(GEN.score, logits), lambda scores: -logits.shape[1] * scores),
        "vim": (partial(vim.predict_features, features), lambda scores: -scores),
        "knn": (partial(knn.predict_features, features), lambda scores: -scores),
    }
