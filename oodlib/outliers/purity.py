"""What a committee sees in drawn images: are they outliers, or simply one of the classes?"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from oodlib.degrade import STRENGTH
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.labels import MIX_MODES
from oodlib.diffusion.sample import sample
from oodlib.errors import InputError
from oodlib.images import ImageSet
from oodlib.outliers.committee import Committee
from oodlib.outliers.mixtures import label_mixup
from oodlib.outliers.nuisances import nuisance_auroc
from oodlib.outliers.pool import OutlierPool

SURE = 0.95  # confidence above which an image counts as one of a class
RECOGNISED = 0.85  # of the samples of one class by a committee, below which their generator is under-trained
VERDICTS = ("parent", "third class", "in between")


def purity(pool: OutlierPool, committee: Committee) -> pd.DataFrame:
    """What a committee sees in a pool, a row for each image.

    Returns:
        `classes` (that were mixed, such as `0 + 7`), `predicted` (a class name), `confidence` (the highest mean
        probability), `verdict` (one of `VERDICTS`: sure of a class that was mixed, sure of another, sure of none) and
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
    verdict = np.where(confidence <= SURE, VERDICTS[2], np.where(is_parent, VERDICTS[0], VERDICTS[1]))
    return pd.DataFrame(
        {
            "classes": [" + ".join(names[row > 0]) for row in pool.label_weights],
            "predicted": names[predicted],
            "confidence": confidence,
            "verdict": verdict,
            "distance": committee.distances(pool.images),
        }
    )


def generator_table(
    denoiser: Denoiser, committee: Committee, val: ImageSet, images_per_class: int, **sampling: Any
) -> pd.DataFrame:
    """How many samples of one class a committee assigns to that class, and how many validation images.

    Args:
        sampling: Options of `sample`.

    Returns:
        Columns `images`, `count` and `accuracy`, a row for each of the two.
    """
    labels = np.tile(np.arange(len(val.class_names)), images_per_class)
    samples = sample(denoiser, torch.eye(len(val.class_names))[labels], **sampling)
    rows = [("samples of one class", samples, labels), ("validation images", val.images, val.labels)]
    return pd.DataFrame(
        [
            (name, len(images), (committee.probabilities(images).argmax(1) == truth).mean())
            for name, images, truth in rows
        ],
        columns=["images", "count", "accuracy"],
    )


def generator_text(table: pd.DataFrame) -> str:
    """What a `generator_table` says: whether the generator is under-trained, or the committee too weak to tell."""
    samples, val = table.itertuples()
    text = (
        f"The committee assigns {samples.accuracy:.1%} of {samples.count} samples of one class to their class, and "
        f"{val.accuracy:.1%} of {val.count} validation images to theirs."
    )
    if samples.accuracy >= RECOGNISED:
        return text
    if val.accuracy < RECOGNISED:
        return (
            f"**Generator not judged.** {text} A committee that is right on fewer than {RECOGNISED:.0%} of real images "
            "cannot say whether the generator draws its classes."
        )
    return (
        f"**Under-trained generator.** {text} Below {RECOGNISED:.0%} of the samples, nothing that is found with this "
        "generator's outliers says anything about mixing labels."
    )


def shares(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The share of each of `VERDICTS` in each group of a `purity` table, a row for each group."""
    counts = table.groupby(by, sort=False)["verdict"].value_counts(normalize=True)
    return counts.unstack(fill_value=0.0).reindex(columns=VERDICTS, fill_value=0.0)


def pool_table(
    tables: Mapping[str, pd.DataFrame], images: Mapping[str, np.ndarray], id_images: np.ndarray
) -> pd.DataFrame:
    """A row for each pool: shares of `VERDICTS` and the median distance, and how well nuisances alone tell its images
    from ID images, as they are and degraded alike (AUROC, see `nuisances.nuisance_auroc`).

    Args:
        tables: From `purity`, by the name of the pool.
        images: uint8 (N, H, W, C), by the same.
    """
    judged = pd.concat([table.assign(pool=name) for name, table in tables.items()])
    rows = shares(judged, ["pool"])
    rows["median distance"] = judged.groupby("pool")["distance"].median()
    for column, strength in (("nuisances", 0.0), ("nuisances, degraded", STRENGTH)):
        rows[column] = {
            name: nuisance_auroc(of_pool, id_images, strength) for name, of_pool in images.items()
        }
    return rows


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
        sampling: Options of `sample`.
    """
    count = images_per_pair * math.comb(len(denoiser.class_names), 2)
    tables = []
    for mix, weight in itertools.product(MIX_MODES, weights):
        pool = label_mixup(denoiser, range(count), mix=mix, mix_weight=weight, **sampling)
        tables.append(purity(pool, committee).assign(mix=mix, weight=weight))
    return pd.concat(tables, ignore_index=True)


def pair_matrix(table: pd.DataFrame, class_names: Sequence[str], verdict: str = VERDICTS[2]) -> pd.DataFrame:
    """The share of a verdict among the mixtures of each pair, (C, C); NaN where a pair is not in the table."""
    matrix = pd.DataFrame(np.nan, list(class_names), list(class_names))
    for classes, share in (table["verdict"] == verdict).groupby(table["classes"]).mean().items():
        names = classes.split(" + ")
        if len(names) == 2:
            matrix.loc[names[0], names[1]] = matrix.loc[names[1], names[0]] = share
    return matrix
