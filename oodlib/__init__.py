"""Out-of-distribution detection with synthetic outliers drawn by a diffusion model from mixed labels.

The method is that of Wahd, "Deep Metric Learning-Based Out-of-Distribution Detection with Synthetic
Outlier Exposure", arXiv 2405.00631. The data's way through the package, and the order of its imports:
`datasets` -> `diffusion` -> `detection` -> `outliers` -> `reports`.
"""

import importlib

_MODULES = {  # imported when first asked for, since torch takes seconds
    "Denoiser": "oodlib.diffusion.denoiser",
    "Detector": "oodlib.detection.detector",
    "label_mixup": "oodlib.outliers.sources",
}
__all__ = ["Denoiser", "Detector", "label_mixup"]


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module 'oodlib' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
