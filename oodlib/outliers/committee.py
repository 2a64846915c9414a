"""A committee of classifiers, which are never evaluated, to say which drawn images are outliers."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from oodlib.detection.detector import Detector
from oodlib.errors import InputError
from oodlib.files import fingerprint
from oodlib.images import ImageSet


@dataclass(frozen=True)
class Committee:
    """Softmax classifiers of several seeds, and the features of the images they were trained on."""

    members: tuple[Detector, ...]
    train_features: tuple[Tensor, ...]
    """(N, D) of each member."""
    typical_distance: tuple[float, ...]
    """Of each member: the median distance in feature space from a validation image to the nearest training image."""

    @classmethod
    def of(cls, members: tuple[Detector, ...], train: ImageSet, val: ImageSet) -> "Committee":
        """From trained members.

        Raises:
            InputError: A member has other classes than the images.
        """
        for member in members:
            if member.class_names != tuple(train.class_names):
                raise InputError(
                    f"the committee has classes {list(member.class_names)}, the images {list(train.class_names)}; "
                    "delete the run's folder committee to train another"
                )
        features = tuple(member.all_features(train.images) for member in members)
        typical = (
            _nearest(member.all_features(val.images), training).median().item()
            for member, training in zip(members, features, strict=True)
        )
        return cls(members, features, tuple(typical))

    def fingerprint(self) -> str:
        """A hash of all that its judgement depends on."""
        weights = [member.network_fingerprint() for member in self.members]
        return fingerprint(np.array(weights), np.array(self.typical_distance))

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Mean class probabilities of uint8 images (N, H, W, C); float64 (N, classes)."""
        return np.mean([member.classify(images)[0] for member in self.members], axis=0)

    def distances(self, images: np.ndarray) -> np.ndarray:
        """Distance to the nearest training image in feature space, 1 being what is typical of unseen ID images; the
        mean over the members, float64 (N,)."""
        distances = [
            _nearest(member.all_features(images), training).double().cpu().numpy() / typical
            for member, training, typical in zip(
                self.members, self.train_features, self.typical_distance, strict=True
            )
        ]
        return np.mean(distances, axis=0)


def _nearest(features: Tensor, training: Tensor) -> Tensor:
    return torch.cat([torch.cdist(chunk, training).min(1).values for chunk in features.split(256)])
