"""Scores from the logits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from oodlib.detection.scores.base import Outputs, Score


def log_max_softmax(logits: Tensor) -> Tensor:
    """`log max_j softmax(l)_j` of logits (N, C), float64 (N,).

    It is `-softplus(logsumexp_{j != top} l_j - l_top)`, which stays exact where the probability itself would round to
    1.
    """
    logits = logits.double()
    top, index = logits.max(-1, keepdim=True)
    rest = logits.scatter(-1, index, -torch.inf).logsumexp(-1, keepdim=True)
    return -F.softplus(rest - top).squeeze(-1)


class MSP(Score, name="msp"):
    """Maximum softmax probability (Hendrycks & Gimpel 2017, arXiv 1610.02136), as its logarithm in [-ln C, 0]."""

    def forward(self, outputs: Outputs) -> Tensor:
        return log_max_softmax(outputs.logits)


class Energy(Score, name="energy"):
    """Negative energy `logsumexp_j l_j` at temperature 1 (Liu et al. 2020, arXiv 2010.03759)."""

    def forward(self, outputs: Outputs) -> Tensor:
        return outputs.logits.logsumexp(-1).double()


class GEN(Score, name="gen"):
    """Generalised entropy (Liu et al., CVPR 2023): `-sum_j p_j^0.1 (1 - p_j)^0.1` over the 100 largest probabilities,
    or all where there are fewer; at most 0."""

    GAMMA, LARGEST = 0.1, 100

    def forward(self, outputs: Outputs) -> Tensor:
        log_p = outputs.logits.double().log_softmax(-1)
        if log_p.shape[-1] > self.LARGEST:
            log_p = log_p.topk(self.LARGEST, sorted=False).values
        log_rest = (-log_p.expm1()).log()  # of 1 - p, exact where p is near 1
        return -(self.GAMMA * (log_p + log_rest)).exp().sum(-1)


class T2FNorm(Score, name="t2fnorm"):
    """Maximum softmax probability of logits of un-normalised features (T2FNorm: Regmi et al. 2024, arXiv 2305.17797),
    as its logarithm in [-ln C, 0].

    A cosine head normalises features in training; here `l_j = |f| s cos(theta_j)`. Other heads' logits know the norm
    already, and their score is that of `msp`.
    """

    def forward(self, outputs: Outputs) -> Tensor:
        logits = outputs.logits
        if outputs.is_normalised:
            logits = logits.double() * outputs.features.double().norm(dim=-1, keepdim=True)
        return log_max_softmax(logits)
