"""Image sets as uint8 arrays in memory, the same on every machine."""

from oodlib.datasets.loading import evaluation_sets, id_splits, load, load_ood
from oodlib.datasets.roles import EvaluationSet, Role, id_set
from oodlib.datasets.splits import SPLITS
from oodlib.datasets.validation import validation_sets
from oodlib.images import mean_and_std

__all__ = [
    "SPLITS",
    "EvaluationSet",
    "Role",
    "evaluation_sets",
    "id_set",
    "id_splits",
    "load",
    "load_ood",
    "mean_and_std",
    "validation_sets",
]
