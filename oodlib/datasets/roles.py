"""What a set of images is in an evaluation: its key, its title and its role."""

from enum import StrEnum
from typing import NamedTuple

import numpy as np

from oodlib.images import ImageSet

ID_TEST = "id_test"  # the key of the ID test set; no OOD set may take its place


class Role(StrEnum):
    """What the images of a set are to a detector."""

    ID = "id"
    """Of its classes; test or validation images."""
    SHIFTED_ID = "shifted_id"
    """Of its classes, changed in a way that no training draws."""
    DEGRADED_ID = "degraded_id"
    """Of its classes, changed in a way that training with `degrade` draws too."""
    NEAR = "near"
    """OOD, of the same kind as the ID images."""
    FAR = "far"
    """OOD, of another kind."""
    NOISE = "noise"
    """OOD, made by arithmetic."""
    VALIDATION = "validation"
    """OOD, made of ID validation images to choose by."""

    @property
    def is_ood(self) -> bool:
        return self not in (Role.ID, Role.SHIFTED_ID, Role.DEGRADED_ID)


class EvaluationSet(NamedTuple):
    """A set of images to evaluate on."""

    key: str
    """What identifies it in tables."""
    title: str
    """What tables and figures show."""
    role: Role
    images: np.ndarray
    """uint8, (N, H, W, C)."""
    labels: np.ndarray | None
    """int64 (N,), indices into `class_names`; None where no class is right."""
    class_names: tuple[str, ...]


def id_set(images: ImageSet, split: str = "test") -> EvaluationSet:
    """ID images to evaluate on: with the key `id_test`, or `id_val` for `split="val"`."""
    return EvaluationSet(f"id_{split}", f"ID {split}", Role.ID, *images)
