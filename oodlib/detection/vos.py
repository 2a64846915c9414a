"""Virtual outliers: unlikely points of the feature space, not images (VOS: Du et al. 2022, arXiv 2202.01197)."""

import torch
from torch import Tensor

DRAWS_PER_OUTLIER = 100  # of which one is kept


class VirtualOutliers:
    """Draws features where the training features of their class are unlikely.

    Each class is a Gaussian `N(mu_c, Sigma)` with one covariance for all, fitted to the features of the last
    training steps. Of every 100 draws from it the one with the largest Mahalanobis distance is kept.

    Args:
        num_classes: C.
        memory: How many of the latest features to fit to.
    """

    def __init__(self, num_classes: int, memory: int = 1024):
        self.num_classes, self.memory = num_classes, memory
        self.features, self.labels = torch.empty(0), torch.empty(0, dtype=torch.long)

    def remember(self, features: Tensor, labels: Tensor) -> None:
        """Take a batch's features (N, D) and labels (N,)."""
        features = features.detach()
        kept = self.features.to(features.device) if len(self.features) else features[:0]
        self.features = torch.cat([kept, features])[-self.memory :]
        self.labels = torch.cat([self.labels.to(labels.device), labels])[-self.memory :]

    def draw(self, count: int, random: torch.Generator) -> Tensor:
        """`count` features (count, D); none, (0, D), until the memory is full or holds a class less than twice."""
        counts = torch.bincount(self.labels, minlength=self.num_classes)
        if len(self.features) < self.memory or counts.min() < 2:
            return self.features[:0]
        one_hot = torch.nn.functional.one_hot(self.labels, self.num_classes).to(self.features.dtype)
        means = (one_hot.T @ self.features) / counts[:, None]
        centred = self.features - means[self.labels]
        covariance = centred.T @ centred / len(centred)
        covariance.diagonal().add_(1e-4 * covariance.diagonal().mean().clamp_min(1e-6))
        spread = torch.linalg.cholesky(covariance)
        classes = torch.randint(self.num_classes, (count,), generator=random)
        normal = torch.randn(count, DRAWS_PER_OUTLIER, len(covariance), generator=random)
        farthest = normal.square().sum(-1).argmax(1)  # |z| is the Mahalanobis distance of mu + L z
        chosen = normal[torch.arange(count), farthest].to(spread)
        return means[classes.to(means.device)] + chosen @ spread.T

    def state_dict(self) -> dict[str, Tensor]:
        return {"features": self.features, "labels": self.labels}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.features, self.labels = state["features"], state["labels"]
