"""OOD scores, a small module each. Every score is larger for in-distribution input.

A subclass of `Score` is all that a new score needs: every detector that is made after it fits, saves and tells it.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oodlib import storage
from oodlib.detection.metrics import threshold_at_tpr
from oodlib.errors import InputError, tell

ROWS = 8192  # features of so many images are in float64 at once
BANK_SIZE = 5000  # training images that a score keeps at most, unless told otherwise


class Outputs(NamedTuple):
    """What a network makes of N images, and what scores are computed from."""

    features: Tensor
    """(N, D)."""
    logits: Tensor
    """(N, C)."""
    class_weights: Tensor
    """Of the head, (C, D)."""


SCORES: dict[str, type["Score"]] = {}
"""Every score by its name, in the order in which tables show them."""


class Score(nn.Module):
    """Base of all scores; a subclass registers itself with `class Name(Score, name="name")`."""

    statistics: tuple[str, ...] = ()
    """Names of the tensors that `fit` sets; they are buffers, None before."""

    def __init_subclass__(cls, *, name: str):
        super().__init_subclass__()
        SCORES[name] = cls

    def __init__(self):
        super().__init__()
        for name in self.statistics:
            self.register_buffer(name, None)

    @property
    def is_fitted(self) -> bool:
        return all(getattr(self, name) is not None for name in self.statistics)

    def fit(self, train: Outputs, labels: Tensor, bank_size: int = BANK_SIZE) -> None:
        """Set the statistics.

        Args:
            train: Of the N training images.
            labels: Of the same, int64 (N,); every class occurs.
            bank_size: The largest number of training images that a score may keep.
        """

    def forward(self, outputs: Outputs) -> Tensor:
        """Score N images; (N,) float64, larger = more in-distribution."""
        raise NotImplementedError


class MSP(Score, name="msp"):
    """Maximum softmax probability (Hendrycks & Gimpel 2017, arXiv 1610.02136), as its logarithm in [-ln C, 0].

    `log max_j softmax(l)_j = -softplus(logsumexp_{j != top} l_j - l_top)`, which stays exact where the
    probability itself would round to 1.
    """

    def forward(self, outputs: Outputs) -> Tensor:
        logits = outputs.logits.double()
        top, index = logits.max(-1, keepdim=True)
        rest = logits.scatter(-1, index, -torch.inf).logsumexp(-1, keepdim=True)
        return -F.softplus(rest - top).squeeze(-1)


class Energy(Score, name="energy"):
    """Negative energy `logsumexp_j l_j` at temperature 1 (Liu et al. 2020, arXiv 2010.03759)."""

    def forward(self, outputs: Outputs) -> Tensor:
        return outputs.logits.logsumexp(-1).double()


class MaxCosine(Score, name="cosine"):
    """Largest cosine between a feature vector and the class weights, `max_j cos(theta_j)`, in [-1, 1]."""

    def forward(self, outputs: Outputs) -> Tensor:
        directions = F.normalize(outputs.class_weights.double()).T
        parts = (F.normalize(part.double()) @ directions for part in outputs.features.split(ROWS))
        return torch.cat([cosine.max(-1).values for cosine in parts]).clamp(-1, 1)


class Mahalanobis(Score, name="mahalanobis"):
    """Mahalanobis score with one covariance for all classes (Lee et al. 2018, arXiv 1807.03888), at most 0.

    `-min_c (f - mu_c)^T Sigma^-1 (f - mu_c)`, with `Sigma = (1/N) sum_c sum_i (f_i - mu_c)(f_i - mu_c)^T`
    plus a ridge of 1e-6 of its mean variance. Features are whitened by `Sigma = L L^T` once, so that a score
    is a Euclidean distance. It is fitted in float64, and computed in the features' precision but at least float32.
    """

    statistics = ("whitening", "means")
    LARGEST = 10_000
    """Features at most: so many have a covariance of 0.8 GB."""
    whitening: Tensor
    """L^-1, (D, D) float64."""
    means: Tensor
    """Whitened class means L^-1 mu_c, (C, D) float64."""

    def fit(self, train: Outputs, labels: Tensor, bank_size: int = BANK_SIZE) -> None:
        if train.features.shape[1] > self.LARGEST:
            self.whitening = self.means = None
            tell(
                f"score mahalanobis is left out: {train.features.shape[1]} features are more than {self.LARGEST}, and "
                "their covariance would not fit into memory"
            )
            return
        classes = range(len(train.class_weights))
        means = torch.stack([train.features[labels == c].double().mean(0) for c in classes])
        covariance = torch.zeros_like(means[0]).diag()
        for part, index in zip(train.features.split(ROWS), labels.split(ROWS), strict=True):
            centred = part.double() - means[index]
            covariance += centred.T @ centred
        covariance /= len(labels)
        ridge = 1e-6 * covariance.diagonal().mean().clamp_min(1e-12)
        covariance.diagonal().add_(ridge)
        identity = torch.eye(len(covariance), dtype=torch.float64, device=covariance.device)
        whitening = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), identity, upper=False)
        # In the memory layout that they have when read from a file: sums depend on it.
        self.whitening, self.means = whitening.contiguous(), (means @ whitening.T).contiguous()

    def forward(self, outputs: Outputs) -> Tensor:
        features, centre = outputs.features, self.means.mean(0)
        dtype = torch.promote_types(features.dtype, torch.float32)
        whitening, shift, means = (t.to(dtype) for t in (self.whitening.T, -centre, self.means - centre))
        distances = [
            torch.cdist(torch.addmm(shift, part, whitening), means, compute_mode="use_mm_for_euclid_dist")
            for part in features.to(dtype).split(1024)  # which stay in the cache
        ]
        return -torch.cat(distances).min(-1).values.double().square()


class KNN(Score, name="knn"):
    """Nearest-neighbour score (Sun et al. 2022, arXiv 2204.06507): `-|z - z_(k)|` with `z = f / |f|`, in [-2, 0].

    `z_(k)` is the k-th nearest of the M features in the bank and `k = ceil(M / 1000)`: that paper's 50 for the 50,000
    training images of CIFAR-10. The bank is evenly spaced over the training images.
    """

    statistics = ("bank",)
    bank: Tensor
    """Normalised training features, (M, D) float16."""

    def fit(self, train: Outputs, labels: Tensor, bank_size: int = BANK_SIZE) -> None:
        count = min(len(labels), bank_size)
        index = torch.arange(count, device=labels.device) * len(labels) // count
        self.bank = F.normalize(train.features[index]).half()

    def forward(self, outputs: Outputs) -> Tensor:
        bank, k = self.bank.double(), math.ceil(len(self.bank) / 1000)
        squares = bank.square().sum(1)
        nearest = []
        for part in outputs.features.split(1024):  # whose distances to 5,000 fill 40 MB
            distances = torch.addmm(squares, F.normalize(part.double()), bank.T, alpha=-2)  # squared, less 1
            nearest.append(distances.topk(k, largest=False).values[:, -1])
        return -(1 + torch.cat(nearest)).clamp_min(0).sqrt()


class ScoreSet(nn.ModuleDict):
    """One of every score by its name, and the thresholds that tell ID from OOD."""

    def __init__(self):
        super().__init__({name: score() for name, score in SCORES.items()})
        self.thresholds: dict[str, float] = {}
        """Of each fitted score; from it upwards images count as ID."""
        self.tpr: float | None = None
        """The share of validation images that the thresholds keep."""

    def forward(self, outputs: Outputs) -> dict[str, np.ndarray]:
        """Every score that is fitted, of N images, each float64 (N,)."""
        return {name: score(outputs).cpu().numpy() for name, score in self.items() if score.is_fitted}

    def fit(self, train: Outputs, labels: Tensor, val: Outputs, tpr: float, bank_size: int) -> None:
        """Fit every score to training images (see `Score.fit`), and its threshold to validation images."""
        for score in self.values():
            score.fit(train, labels, bank_size)
        self.thresholds = {name: threshold_at_tpr(values, tpr) for name, values in self(val).items()}
        self.tpr = tpr

    def save(self, folder: Path, network: str) -> None:
        """Write `scores.safetensors` and `scores.json`, with the fingerprint of the network that they belong to."""
        about = {"network": network, "tpr": self.tpr, "thresholds": self.thresholds}
        storage.write(folder, "scores", about, self.state_dict())

    def load(self, folder: Path, network: str) -> None:
        """Read what `save` wrote for the same network; a score that it lacks is not fitted afterwards.

        Raises:
            InputError: A file is missing or damaged, or of another network.
        """
        with storage.reading(folder, "scores") as (about, tensors):
            if about["network"] != network:
                raise InputError(
                    f"the scores in {folder} were fitted to another network; fit them again with fit_scores"
                )
            thresholds, self.tpr = about["thresholds"], about["tpr"]
            self.thresholds = {name: thresholds[name] for name in self if name in thresholds}
            for name, score in self.items():
                for statistic in score.statistics:
                    is_there = name in self.thresholds
                    setattr(score, statistic, tensors[f"{name}.{statistic}"] if is_there else None)
