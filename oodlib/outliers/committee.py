"""Which drawn images are outliers? The judgement of classifiers that are never evaluated, and filters by it."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from oodlib.detection.detector import Detector
from oodlib.detection.train import fit_detector
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.labels import MIX_MODES
from oodlib.errors import InputError
from oodlib.files import fingerprint, lock
from oodlib.images import ImageSet, mean_and_std
from oodlib.outliers.pool import OutlierPool
from oodlib.outliers.sources import label_mixup
from oodlib.runs import Run

COMMITTEE_SEEDS = (1001, 1002, 1003)  # far from those of the detectors that are evaluated
SURE = 0.95  # confidence from which an image counts as one of a class
KINDS = ("parent", "third class", "in between")

Window = tuple[float, float]


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
            _nearest(member.all_features(val.images), known).median().item()
            for member, known in zip(members, features, strict=True)
        )
        return cls(members, features, tuple(typical))

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Mean class probabilities of uint8 images (N, H, W, C); float64 (N, classes)."""
        return np.mean([member.classify(images)[0] for member in self.members], axis=0)

    def distances(self, images: np.ndarray) -> np.ndarray:
        """Distance to the nearest training image in feature space, 1 being what is typical of unseen ID images; the
        mean over the members, float64 (N,)."""
        found = [
            _nearest(member.all_features(images), known).double().cpu().numpy() / typical
            for member, known, typical in zip(
                self.members, self.train_features, self.typical_distance, strict=True
            )
        ]
        return np.mean(found, axis=0)


def _nearest(features: Tensor, known: Tensor) -> Tensor:
    return torch.cat([torch.cdist(chunk, known).min(1).values for chunk in features.split(256)])


def committee(run: Run, settings: Any, train: ImageSet, val: ImageSet) -> Committee:
    """The run's committee, trained first where it is not there yet: softmax, no outliers, `COMMITTEE_SEEDS`.

    Args:
        settings: With the fields of `presets.Settings` that notebook 3 trains a detector by.
    """
    options = settings.only("epochs", "batch_size", "learning_rate", "weight_decay", "flip")
    made_with = options | settings.only("backbone", "precision")
    made_with["images"] = fingerprint(train.images, train.labels)
    folder = run.folder / "committee"
    members = []
    with lock(folder):  # notebooks that run side by side want the same committee
        for seed in COMMITTEE_SEEDS:
            place = folder / f"seed{seed}"
            if run.must_make(place, made_with):
                member = Detector(
                    settings.backbone,
                    "softmax",
                    train.class_names,
                    settings.image_shape,
                    *mean_and_std(train.images),
                    precision=settings.precision,
                    seed=seed,
                )
                fit_detector(
                    member,
                    train.images,
                    train.labels,
                    seed=seed,
                    device=settings.device,
                    what=f"committee, seed {seed}",
                    checkpoints=place / "checkpoints",
                    **options,
                )
                member.save(place)
                run.finish(place, made_with)
            members.append(Detector.load(place, settings.device))
    return Committee.of(tuple(members), train, val)


def purity(pool: OutlierPool, committee: Committee) -> pd.DataFrame:
    """What a committee sees in a pool, a row for each image.

    Returns:
        `classes` (that were mixed, such as `0 + 7`), `predicted` (a class name), `confidence` (the highest mean
        probability), `kind` (one of `KINDS`: sure of a class that was mixed, sure of another, or sure of none) and
        `distance` (see `Committee.distances`).

    Raises:
        InputError: The pool was drawn for other classes than the committee's.
    """
    names = np.array(committee.members[0].class_names)
    if pool.label_weights.shape[1] != len(names):
        raise InputError(
            f"the pool mixes {pool.label_weights.shape[1]} classes, the committee knows {len(names)}; "
            "train a committee on the same classes"
        )
    probabilities = committee.probabilities(pool.images)
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    is_parent = np.take_along_axis(pool.label_weights, predicted[:, None], 1)[:, 0] > 0
    kind = np.where(confidence <= SURE, KINDS[2], np.where(is_parent, KINDS[0], KINDS[1]))
    return pd.DataFrame(
        {
            "classes": [" + ".join(names[row > 0]) for row in pool.label_weights],
            "predicted": names[predicted],
            "confidence": confidence,
            "kind": kind,
            "distance": committee.distances(pool.images),
        }
    )


def shares(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The share of each of `KINDS` in each group of a `purity` table, a row for each group."""
    counts = table.groupby(by, sort=False)["kind"].value_counts(normalize=True)
    return counts.unstack(fill_value=0.0).reindex(columns=KINDS, fill_value=0.0)


def by_mode_and_weight(
    denoiser: Denoiser,
    committee: Committee,
    weights: Sequence[float],
    images_per_pair: int = 2,
    **sampling: Any,
) -> pd.DataFrame:
    """`purity` of a few label mixtures of every pair for each mixing mode and weight, with columns `mix` and `weight`.

    Args:
        weights: Of a pair's second class.
        sampling: Options of `mixup.sample`.
    """
    count = images_per_pair * math.comb(len(denoiser.class_names), 2)
    tables = []
    for mix, weight in itertools.product(MIX_MODES, weights):
        pool = label_mixup(denoiser, range(count), mix=mix, mix_weight=weight, **sampling)
        tables.append(purity(pool, committee).assign(mix=mix, weight=weight))
    return pd.concat(tables, ignore_index=True)


def pair_matrix(table: pd.DataFrame, class_names: Sequence[str], kind: str = KINDS[2]) -> pd.DataFrame:
    """The share of a kind among the mixtures of each pair, (C, C); NaN where a pair is not in the table."""
    matrix = pd.DataFrame(np.nan, list(class_names), list(class_names))
    for classes, share in (table["kind"] == kind).groupby(table["classes"]).mean().items():
        names = classes.split(" + ")
        if len(names) == 2:
            matrix.loc[names[0], names[1]] = matrix.loc[names[1], names[0]] = share
    return matrix
