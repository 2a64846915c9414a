"""A pool of outliers: images, what they were made from, and what a detector is to learn from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oodlib.files import atomic, fingerprint


@dataclass(frozen=True)
class OutlierPool:
    """Outliers, what they were made from, and what a detector is to learn from them."""

    images: np.ndarray
    """uint8 (N, H, W, C)."""
    label_weights: np.ndarray
    """float32 (N, classes): of the classes that went into each; zeros where none did."""
    targets: np.ndarray | None = None
    """float32 (N, classes): what to predict, rows that sum to 1; None for the uniform distribution."""
    loss_weights: np.ndarray | None = None
    """float32 (N,): how much each outlier counts, 1 on average; None for 1."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def exposure(self) -> dict[str, Any]:
        """The arguments of `detection.train.fit_detector`."""
        return dict(
            outliers=self.images, outlier_targets=self.targets, outlier_loss_weights=self.loss_weights
        )

    def fingerprint(self) -> str:
        """A hash of all that a detector learns from."""
        return fingerprint(*(values for values in self.exposure.values() if values is not None))

    def take(self, chosen: Any) -> "OutlierPool":
        """The outliers of a mask, a slice or indices."""
        return OutlierPool(*(None if v is None else v[chosen] for v in vars(self).values()))

    def save(self, path: Path) -> None:
        """Write as `.npz`, atomically; `datasets.load` reads its images too."""
        with atomic(path) as part:
            np.savez_compressed(part, **{name: v for name, v in vars(self).items() if v is not None})

    @classmethod
    def load(cls, path: Path) -> "OutlierPool":
        """Read what `save` wrote."""
        with np.load(path) as file:
            return cls(**file)


def joined(pools: Sequence[OutlierPool]) -> OutlierPool:
    """Pools, as yet without targets and loss weights, as one."""
    return OutlierPool(*(np.concatenate([getattr(p, n) for p in pools]) for n in ("images", "label_weights")))
