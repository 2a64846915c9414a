"""A pool of outliers: images, what they were made from, and what a detector is to learn from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oodlib.files import atomic, fingerprint, reading


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
    """float32 (N,): how much each outlier counts; None for 1."""
    twins: np.ndarray | None = None
    """uint8 (N, H, W, C): an image of one class for each outlier, to be learned as an ID image; None for none."""
    twin_labels: np.ndarray | None = None
    """int64 (N,): their classes."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def exposure(self) -> dict[str, Any]:
        """The arguments of `detection.train.fit_detector`."""
        return dict(
            outliers=self.images,
            outlier_targets=self.targets,
            outlier_loss_weights=self.loss_weights,
            twins=self.twins,
            twin_labels=self.twin_labels,
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
        """Read what `save` wrote.

        Raises:
            InputError: It is missing or damaged.
        """
        with reading(path, "draw it again with notebook 02_label_mixup"):
            with np.load(path) as file:
                pool = cls(**file)
            pool._check()
        return pool

    def _check(self) -> None:
        """Raise `ValueError` if arrays are of another type or do not fit each other."""
        (count, _, _, _), (_, classes) = self.images.shape, self.label_weights.shape
        expected = {"label_weights": (count, classes), "targets": (count, classes), "loss_weights": (count,)}
        for name, shape in expected.items():
            values = getattr(self, name)
            is_well = values is None or (values.dtype == np.float32 and values.shape == shape)
            if not is_well or self.images.dtype != np.uint8:
                raise ValueError(f"{name} do not fit the images")
            if values is not None and not np.isfinite(values).all():
                raise ValueError(f"{name} are not all finite")
        if (self.twins is None) != (self.twin_labels is None):
            raise ValueError("twins and their labels come together")
        if self.twins is not None and (
            self.twins.dtype != np.uint8
            or self.twins.shape != self.images.shape
            or self.twin_labels.shape != (count,)
            or not np.isin(self.twin_labels, np.arange(classes)).all()
        ):
            raise ValueError("twins do not fit the images")


def joined(pools: Sequence[OutlierPool]) -> OutlierPool:
    """Pools of one source as one."""
    arrays = {name: [getattr(pool, name) for pool in pools] for name in vars(pools[0])}
    return OutlierPool(**{n: None if of[0] is None else np.concatenate(of) for n, of in arrays.items()})
