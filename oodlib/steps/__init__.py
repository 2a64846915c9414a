"""Each step of a run, made once: what was made with the same settings and inputs is loaded.

A step names the classes of settings that it depends on and fingerprints all its inputs. Training a detector, fitting
its statistics and scoring image sets are three steps, so that another score, OOD set or `tpr` trains nothing.
"""

from oodlib.steps.pools import generator, generator_text, outliers, pool
from oodlib.steps.scoring import auroc_on, detector, score_by_denoiser, score_detector
from oodlib.steps.training import check_classes, committee, denoiser

__all__ = [
    "auroc_on",
    "check_classes",
    "committee",
    "denoiser",
    "detector",
    "generator",
    "generator_text",
    "outliers",
    "pool",
    "score_by_denoiser",
    "score_detector",
]
