"""Scores from where training features lie."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from oodlib.detection.scores.base import BANK_SIZE, ROWS, Outputs, Score
from oodlib.errors import tell

AT_ONCE = 1024  # images whose features, or distances, stay in the cache


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
    """L^-1, (D, D) float32."""
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
        self.whitening = whitening.float().contiguous()
        self.means = (means @ self.whitening.double().T).contiguous()

    def forward(self, outputs: Outputs) -> Tensor:
        dtype, centre = _precision(outputs), self.means.mean(0)
        whitening, shift = self.whitening.T.to(dtype), -centre.to(dtype)
        means = (self.means - centre).to(dtype)
        distances = [
            torch.cdist(torch.addmm(shift, part, whitening), means, compute_mode="use_mm_for_euclid_dist")
            for part in outputs.features.to(dtype).split(AT_ONCE)
        ]
        return -torch.cat(distances).min(-1).values.double().square()


def _precision(outputs: Outputs) -> torch.dtype:
    return torch.promote_types(outputs.features.dtype, torch.float32)


class RMDS(Score, name="rmds", base="mahalanobis"):
    """Relative Mahalanobis score (Ren et al. 2021, arXiv 2106.09022): `mahalanobis` less that of one Gaussian for all
    training features, `-min_c d_c(f) + d_0(f)`.

    The covariance of all, `Sigma + sum_c p_c (mu_c - mu)(mu_c - mu)^T`, is inverted by Woodbury's identity in whitened
    features, so that nothing is kept beside the shares `p_c` of the classes.
    """

    statistics = ("shares",)
    shares: Tensor
    """Of each class in the training images, (C,) float64."""

    def fit(self, train: Outputs, labels: Tensor, bank_size: int = BANK_SIZE) -> None:
        if self.base.is_fitted:
            self.shares = torch.bincount(labels, minlength=len(train.class_weights)).double() / len(labels)
        else:
            self.shares = None

    def forward(self, outputs: Outputs) -> Tensor:
        # In double precision even where a user has cast the detector.
        shares, whitened_means = self.shares.double(), self.base.means.double()
        centre = shares @ whitened_means
        means = whitened_means - centre
        between = (means * shares.sqrt()[:, None]).T  # (D, C)
        # |z|^2 - |R^T z|^2 with R = U S (I + S^2)^(-1/2), by the singular values S of V = U S W^T.
        directions, sizes, _ = torch.linalg.svd(between, full_matrices=False)
        removed = directions * (sizes / (1 + sizes.square()).sqrt())
        # |z|^2 is in both distances. What is left needs a few projections of the features, and no whitened ones.
        axes = torch.cat([2 * means.T, removed], dim=1)
        projection, shift = self.base.whitening.double().T @ axes, centre @ axes
        scores = []
        for part in outputs.features.split(ROWS):
            to_means, in_background = (part.double() @ projection - shift).split(len(means), dim=1)
            nearest = (to_means - means.square().sum(-1)).max(-1).values
            scores.append(nearest - in_background.square().sum(-1))
        return torch.cat(scores)


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
        for part in outputs.features.split(AT_ONCE):  # whose distances to 5,000 fill 40 MB
            distances = torch.addmm(squares, F.normalize(part.double()), bank.T, alpha=-2)  # squared, less 1
            nearest.append(distances.topk(k, largest=False).values[:, -1])
        return -(1 + torch.cat(nearest)).clamp_min(0).sqrt()


class ViM(Score, name="vim"):
    """Virtual-logit matching (Wang et al. 2022, arXiv 2203.10807): `logsumexp_j l_j - alpha |R^T (f - o)|`.

    `o = -pinv(W) b` is the origin of the logits, R spans the space beside the d directions in which training features
    vary most about it, and `alpha` makes the residual as large as the largest logit, on average over training images.
    d is 1000 from 2048 features on, 512 from 768 on, and else half of them, as in that paper; of no more training
    images than features it is at most half their number, as beside what these span there is only rounding.
    """

    statistics = ("origin", "residual_space", "alpha")
    origin: Tensor
    """o, (D,) float32."""
    residual_space: Tensor
    """R, (D, D - d) float32, of orthonormal columns."""
    alpha: Tensor
    """Scalar, float64."""

    def fit(self, train: Outputs, labels: Tensor, bank_size: int = BANK_SIZE) -> None:
        size = train.features.shape[1]
        if size > Mahalanobis.LARGEST:
            self.origin = self.residual_space = self.alpha = None
            return
        weights = train.class_weights.double()
        bias = torch.zeros_like(weights[:, 0]) if train.bias is None else train.bias.double()
        origin = -torch.linalg.pinv(weights) @ bias
        scatter = torch.zeros(size, size, dtype=torch.float64, device=weights.device)
        for part in train.features.split(ROWS):
            centred = part.double() - origin
            scatter += centred.T @ centred
        dimension, half = 1000 if size >= 2048 else 512 if size >= 768 else size // 2, len(labels) // 2
        if len(labels) <= size and half < dimension:
            tell(
                f"score vim: {len(labels)} training images are too few for a principal space of {dimension} of {size} "
                f"dimensions; it has {half}"
            )
            dimension = half
        _, directions = torch.linalg.eigh(scatter)  # of the smallest eigenvalue first
        self.origin = origin.float()
        self.residual_space = directions[:, : size - dimension].float().contiguous()
        largest, residual = train.logits.double().max(-1).values.mean(), self._residual(train).mean()
        self.alpha = largest / residual.clamp_min(torch.finfo(torch.float32).tiny)

    def _residual(self, outputs: Outputs) -> Tensor:
        dtype = _precision(outputs)
        space, origin = self.residual_space.to(dtype), self.origin.to(dtype)
        parts = outputs.features.to(dtype).split(AT_ONCE)
        return torch.cat([((part - origin) @ space).norm(dim=-1) for part in parts]).double()

    def forward(self, outputs: Outputs) -> Tensor:
        return outputs.logits.logsumexp(-1).double() - self.alpha * self._residual(outputs)
