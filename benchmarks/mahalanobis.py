"""Mahalanobis scores of 10,000 features and 10 classes, against pytorch-ood's detector."""

from functools import partial

import pytorch_ood.detector
import torch

from benchmarks.table import Row, alternate, number
from oodlib.detection.scores import Mahalanobis, Outputs


def rows(toy: bool) -> list[Row]:
    table = []
    for dimension in (8, 16) if toy else (512, 2048):
        count = 100 if toy else 10_000
        random = torch.Generator().manual_seed(0)
        labels = torch.arange(count) % 10
        centres = torch.randn(10, dimension, generator=random)
        features = centres[labels] + torch.randn(count, dimension, generator=random)
        ours, outputs = Mahalanobis(), Outputs(features, torch.zeros(count, 10), centres)
        ours.fit(outputs, labels)
        theirs = pytorch_ood.detector.Mahalanobis(None).fit_features(features, labels)
        # Theirs is half the distance by a covariance that is not divided by N.
        expected = -2 * count * theirs.predict_features(features).double()
        difference = ((ours(outputs) - expected) / expected).abs().max().item()
        assert difference < 1e-5, f"Mahalanobis scores differ by {difference:.1e} of their size"
        repetitions = 1 if toy else 7 if dimension < 1000 else 3
        seconds = alternate(repetitions, partial(ours, outputs), partial(theirs.predict_features, features))
        took, peer = (f"{number(1000 * s)} ms" for s in seconds)
        job = f"Mahalanobis scores, {count:,} x {dimension}"
        note = f"largest relative difference {difference:.0e}"
        table.append(Row(job, took, f"pytorch-ood: {peer}", seconds[1] / seconds[0], 10, "x", note=note))
    return table
