"""OOD scores: functions of features and logits. Every score is larger for in-distribution input."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def msp(logits: Tensor) -> Tensor:
    """Maximum softmax probability (Hendrycks & Gimpel 2017, arXiv 1610.02136), as its logarithm.

    `log max_j softmax(l)_j = -softplus(logsumexp_{j != top} l_j - l_top)`, which stays exact where the
    probability itself would round to 1.

    Args:
        logits: (N, C).

    Returns:
        (N,) float64 in [-ln C, 0].
    """
    top, index = logits.double().max(-1, keepdim=True)
    rest = logits.double().scatter(-1, index, -torch.inf).logsumexp(-1, keepdim=True)
    return -F.softplus(rest - top).squeeze(-1)


def energy(logits: Tensor) -> Tensor:
    """Negative energy `logsumexp_j l_j` at temperature 1 (Liu et al. 2020, arXiv 2010.03759).

    Args:
        logits: (N, C).

    Returns:
        (N,) float64.
    """
    return logits.double().logsumexp(-1)


def max_cosine(features: Tensor, class_weights: Tensor) -> Tensor:
    """Largest cosine between a feature vector and the class weights, `max_j cos(theta_j)`.

    Args:
        features: (N, D).
        class_weights: (C, D).

    Returns:
        (N,) float64 in [-1, 1].
    """
    cosine = F.normalize(features.double()) @ F.normalize(class_weights.double()).T
    return cosine.max(-1).values.clamp(-1, 1)


@dataclass(frozen=True)
class Mahalanobis:
    """Mahalanobis score with one covariance for all classes (Lee et al. 2018, arXiv 1807.03888).

    `-min_c (f - mu_c)^T Sigma^-1 (f - mu_c)`, with `Sigma = (1/N) sum_c sum_i (f_i - mu_c)(f_i - mu_c)^T`
    plus a ridge of 1e-6 of its mean variance. Features are whitened by `Sigma = L L^T` once, so that a score
    is a Euclidean distance. It is fitted in float64.
    """

    whitening: Tensor
    """L^-1, (D, D) float64."""
    means: Tensor
    """Whitened class means L^-1 mu_c, (C, D) float64."""

    @classmethod
    def fit(cls, features: Tensor, labels: Tensor, num_classes: int) -> "Mahalanobis":
        """Fit to training features (N, D) and labels (N,), on which every class occurs."""
        features = features.double()
        means = torch.stack([features[labels == c].mean(0) for c in range(num_classes)])
        centred = features - means[labels]
        covariance = centred.T @ centred / len(features)
        ridge = 1e-6 * covariance.diagonal().mean().clamp_min(1e-12)
        covariance.diagonal().add_(ridge)
        identity = torch.eye(len(covariance), dtype=torch.float64, device=covariance.device)
        whitening = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), identity, upper=False)
        return cls(whitening, means @ whitening.T)

    def __call__(self, features: Tensor) -> Tensor:
        """Score features (N, D), in their own precision but at least float32; (N,) float64, at most 0."""
        dtype = torch.promote_types(features.dtype, torch.float32)
        centre = self.means.mean(0)
        whitening, shift, means = (t.to(dtype) for t in (self.whitening.T, -centre, self.means - centre))
        distances = [
            torch.cdist(torch.addmm(shift, part, whitening), means, compute_mode="use_mm_for_euclid_dist")
            for part in features.to(dtype).split(1024)  # which stay in the cache
        ]
        return -torch.cat(distances).min(-1).values.double().square()


@dataclass(frozen=True)
class KNN:
    """Nearest-neighbour score (Sun et al. 2022, arXiv 2204.06507): `-|z - z_(k)|` with `z = f / |f|`.

    `z_(k)` is the k-th nearest of the M features in the bank and `k = ceil(M / 1000)`: that paper's 50 for the 50,000
    training images of CIFAR-10.
    """

    bank: Tensor
    """Normalised training features, (M, D) float16."""

    @classmethod
    def fit(cls, features: Tensor, most: int) -> "KNN":
        """Keep training features (N, D), at most this many of them, evenly spaced."""
        count = min(len(features), most)
        kept = torch.arange(count, device=features.device) * len(features) // count
        return cls(F.normalize(features[kept]).half())

    def __call__(self, features: Tensor) -> Tensor:
        """Score features (N, D); (N,) float64 in [-2, 0]."""
        bank, k = self.bank.double(), math.ceil(len(self.bank) / 1000)
        parts = F.normalize(features.double()).split(1024)  # their distances to 5,000 features fill 40 MB
        return -torch.cat([torch.cdist(part, bank).kthvalue(k).values for part in parts])
