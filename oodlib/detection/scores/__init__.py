"""OOD scores, a small module each. Every score is larger for in-distribution input.

A subclass of `Score` is all that a new score needs: every detector that is made after it fits, saves and tells it.
Tables show them in the order in which they are defined.
"""

# In the order in which tables show the scores.
# isort: off
from oodlib.detection.scores.base import BANK_SIZE, SCORES, Outputs, Score
from oodlib.detection.scores.logits import GEN, MSP, Energy, T2FNorm
from oodlib.detection.scores.features import FeatureNorm, MaxCosine, NormCosine
from oodlib.detection.scores.distances import KNN, RMDS, Mahalanobis, ViM
from oodlib.detection.scores.score_set import ScoreSet

__all__ = [
    "BANK_SIZE",
    "GEN",
    "KNN",
    "MSP",
    "RMDS",
    "SCORES",
    "Energy",
    "FeatureNorm",
    "Mahalanobis",
    "MaxCosine",
    "NormCosine",
    "Outputs",
    "Score",
    "ScoreSet",
    "T2FNorm",
    "ViM",
]
