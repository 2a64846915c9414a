"""Image sets as uint8 arrays in memory, the same on every machine."""

from oodlib.datasets.loading import ID_TEST, display_name, load, load_ood
from oodlib.datasets.published import PUBLISHED
from oodlib.datasets.synthetic import OOD_SETS, validation_outliers
from oodlib.images import SPLITS, mean_and_std

__all__ = [
    "ID_TEST",
    "OOD_SETS",
    "PUBLISHED",
    "SPLITS",
    "display_name",
    "load",
    "load_ood",
    "mean_and_std",
    "validation_outliers",
]
