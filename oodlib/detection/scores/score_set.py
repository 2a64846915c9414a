"""One of every score, and the thresholds that tell ID from OOD."""

from pathlib import Path

import numpy as np
from torch import Tensor, nn

from oodlib import storage
from oodlib.detection.metrics import threshold_at_tpr
from oodlib.detection.scores.base import SCORES, Outputs, Score
from oodlib.errors import InputError


class ScoreSet(nn.ModuleDict):
    """One of every score by its name, and the thresholds that tell ID from OOD."""

    def __init__(self):
        made: dict[str, Score] = {}
        for name, score in SCORES.items():
            made[name] = score() if score.base_name is None else score(made[score.base_name])
        super().__init__(made)
        self.thresholds: dict[str, float] = {}
        """Of each fitted score; from it upwards images count as ID."""
        self.tpr: float | None = None
        """The share of validation images that the thresholds keep."""

    def forward(self, outputs: Outputs) -> dict[str, np.ndarray]:
        """Every score that is fitted, of N images, each float64 (N,)."""
        names = (
            self.thresholds or self
        )  # a file that was written before a score existed has no threshold for it
        return {name: self[name](outputs).cpu().numpy() for name in names if self[name].is_fitted}

    def fit(self, train: Outputs, labels: Tensor, val: Outputs, tpr: float, bank_size: int) -> None:
        """Fit every score to training images (see `Score.fit`), and its threshold to validation images."""
        self.thresholds = {}
        for score in self.values():
            score.fit(train, labels, bank_size)
        self.thresholds = {name: threshold_at_tpr(values, tpr) for name, values in self(val).items()}
        self.tpr = tpr

    def save(self, folder: Path, network: str) -> None:
        """Write `scores.safetensors` and `scores.json`, with the fingerprint of the network that they belong to."""
        about = {"network": network, "tpr": self.tpr, "thresholds": self.thresholds}
        storage.write(folder, "scores", about, self.state_dict())

    def load(self, folder: Path, network: str) -> None:
        """Read what `save` wrote for the same network; a score that it lacks is not fitted afterwards.

        Raises:
            InputError: A file is missing or damaged, or of another network.
        """
        with storage.reading(folder, "scores") as (about, tensors):
            if about["network"] != network:
                raise InputError(
                    f"the scores in {folder} were fitted to another network; fit them again with fit_scores"
                )
            thresholds, self.tpr = about["thresholds"], about["tpr"]
            self.thresholds = {name: thresholds[name] for name in self if name in thresholds}
            for name, score in self.items():
                for statistic in score.statistics:
                    is_there = name in self.thresholds
                    setattr(score, statistic, tensors[f"{name}.{statistic}"] if is_there else None)
