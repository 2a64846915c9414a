"""Scores from the length and the direction of the features."""

import torch
import torch.nn.functional as F
from torch import Tensor

from oodlib.detection.scores.base import ROWS, Outputs, Score


def max_cosine(features: Tensor, class_weights: Tensor) -> Tensor:
    """Largest cosine between each feature vector (N, D) and the class weights (C, D), float64 (N,) in [-1, 1]."""
    directions = F.normalize(class_weights.double()).T
    parts = (F.normalize(part.double()) @ directions for part in features.split(ROWS))
    return torch.cat([cosine.max(-1).values for cosine in parts]).clamp(-1, 1)


class MaxCosine(Score, name="cosine"):
    """Largest cosine between a feature vector and the class weights, `max_j cos(theta_j)`, in [-1, 1]."""

    def forward(self, outputs: Outputs) -> Tensor:
        return max_cosine(outputs.features, outputs.class_weights)


class FeatureNorm(Score, name="norm"):
    """Length of the feature vector, `|f|`, which heads that normalise features throw away."""

    def forward(self, outputs: Outputs) -> Tensor:
        return outputs.features.norm(dim=-1).double()


class NormCosine(Score, name="norm_cosine"):
    """Length times angle, `|f| max_j cos(theta_j)`: the largest logit of an angular-margin head that skips the
    projection to the sphere when it is used (Ravikumar et al., CVPR workshops 2025)."""

    def forward(self, outputs: Outputs) -> Tensor:
        directions = F.normalize(outputs.class_weights.double()).to(outputs.features.dtype)
        return (outputs.features @ directions.T).max(-1).values.double()
