"""Intervals by a bootstrap nested in denoisers, seeds and images.

A draw takes denoisers with replacement, for each of them seeds, and images of every set. It is the same for all
detectors, so that differences between them are paired. With few denoisers or seeds such intervals are rather too
narrow.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache

import numpy as np
import pandas as pd

from oodlib.datasets.roles import ID_TEST, Role
from oodlib.detection.metrics import resampled_auroc
from oodlib.errors import InputError

MEAN = "mean over sets"
SHIFTED, DEGRADED = "shifted ID images", "degraded ID images"
GROUPS = {  # of sets, by what stands in the place of a set's key, and the roles in them
    MEAN: [role for role in Role if role.is_ood],
    "natural sets": [Role.NEAR, Role.FAR],
    "near sets": [Role.NEAR],
    "noise sets": [Role.NOISE],
    SHIFTED: [Role.SHIFTED_ID],
    DEGRADED: [Role.DEGRADED_ID],
}
ALL_HEADS = "all heads"

Key = tuple[str, str, int, int]
"""A detector's head, what it was trained with, the number of its denoiser (0 where it has none) and its seed."""
Comparison = tuple[str, str, str]
"""A head, what its detectors were trained with, and what those that they are compared with were."""
Values = Mapping[tuple[str, str], np.ndarray]
"""By set or group and metric (`auroc`, `called_ood` or `id_accuracy`): the estimate and B draws of it, (B + 1,)."""


def gains(
    detectors: Iterable[tuple[Key, pd.DataFrame]],
    comparisons: Iterable[Comparison],
    takes_denoiser: Callable[[str], bool],
    draws: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """What detectors gain over others, on each set and group of sets.

    Args:
        detectors: One after the other, each with a table of its images: `set`, `role`, `score`, `correct` and, for
            false alarms, `called_ood`.
        comparisons: Compared on the seeds that both have, and on the denoisers where both have one.
        takes_denoiser: Whether a condition's outliers depend on a denoiser.

    Returns:
        A row for each comparison, set or group, and metric, and last for the mean over the heads that were compared on
        as many denoisers and seeds: `head`, `outliers`, `reference`, `set`, `metric`, `value`, `reference_value`,
        `change`, its 95 % interval `low` and `high`, `denoisers` and `seeds` (their numbers).

    Raises:
        InputError: Detectors were tested on different images, or a comparison has no seed in common.
    """
    random = np.random.default_rng(seed)
    values = _values(detectors, draws, random)

    @cache
    def shares(denoisers: int, seeds: int) -> np.ndarray:
        return _shares(denoisers, seeds, draws, random)

    @cache
    def over_detectors(
        head: str, outliers: str, denoisers: tuple[int, ...], seeds: tuple[int, ...]
    ) -> Values:
        share = shares(len(denoisers), len(seeds))
        if not takes_denoiser(outliers):
            denoisers, share = (0,), share.sum(1, keepdims=True)
        of = [values[head, outliers, d, s] for d in denoisers for s in seeds]
        weights = share.reshape(len(share), -1).T
        return {key: sum(w * v[key] for w, v in zip(weights, of, strict=True)) for key in of[0]}

    rows: list[dict] = []
    of_heads: dict[tuple, list[tuple[Values, Values]]] = {}
    for head, outliers, reference in comparisons:
        denoisers, seeds = _in_common(values, head, outliers, reference, takes_denoiser)
        pair = tuple(over_detectors(head, name, denoisers, seeds) for name in (outliers, reference))
        rows += _rows((head, outliers, reference), *pair, len(denoisers), len(seeds))
        of_heads.setdefault((outliers, reference, len(denoisers), len(seeds)), []).append(pair)
    for (outliers, reference, *counts), pairs in of_heads.items():
        if len(pairs) > 1:
            means = (
                {key: np.mean([of_head[key] for of_head in side], axis=0) for key in side[0]}
                for side in zip(*pairs, strict=True)
            )
            rows += _rows((ALL_HEADS, outliers, reference), *means, *counts)
    return pd.DataFrame(rows)


def _rows(names: Comparison, value: Values, reference: Values, denoisers: int, seeds: int) -> list[dict]:
    rows = []
    for (name, metric), draws in value.items():
        change = draws - reference[name, metric]
        low, high = np.quantile(change[1:], [0.025, 0.975])
        row = dict(zip(("head", "outliers", "reference"), names, strict=True)) | dict(set=name, metric=metric)
        row |= dict(value=draws[0], reference_value=reference[name, metric][0])
        rows.append(row | dict(change=change[0], low=low, high=high, denoisers=denoisers, seeds=seeds))
    return rows


def _in_common(
    keys: Iterable[Key], head: str, outliers: str, reference: str, takes_denoiser: Callable[[str], bool]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Denoisers and seeds that two conditions have; a condition without a denoiser goes with any."""
    trained = {
        name: {(d, s) for h, o, d, s in keys if (h, o) == (head, name)} for name in (outliers, reference)
    }
    drawn = [name for name in trained if takes_denoiser(name)]
    denoisers = set.intersection(*({d for d, _ in trained[name]} for name in drawn)) if drawn else {0}
    of_each = [
        {s for d, s in pairs if d == number}
        for name, pairs in trained.items()
        for number in (denoisers if name in drawn else {0})
    ]
    seeds = set.intersection(*of_each) if denoisers else set()
    if not seeds:
        raise InputError(
            f"{head} with {outliers} and with {reference} have no seed in common; train them with notebook 3"
        )
    return tuple(sorted(denoisers)), tuple(sorted(seeds))


def _shares(denoisers: int, seeds: int, draws: int, random: np.random.Generator) -> np.ndarray:
    """The share of each detector in the estimate and in each draw, (draws + 1, denoisers, seeds)."""
    drawn = random.multinomial(denoisers, np.full(denoisers, 1 / denoisers), draws)
    of_seeds = random.multinomial(
        drawn * seeds, np.full(seeds, 1 / seeds)
    )  # twice as many of one drawn twice
    return np.concatenate([np.ones((1, denoisers, seeds)), of_seeds]) / (denoisers * seeds)


def _values(
    detectors: Iterable[tuple[Key, pd.DataFrame]], draws: int, random: np.random.Generator
) -> dict[Key, Values]:
    """What each detector reaches on all images and on each draw of them."""
    sizes: dict[str, int] = {}
    counts: dict[str, np.ndarray] = {}
    values = {}
    for key, images in detectors:
        sets = dict(tuple(images.groupby("set", sort=False)))
        of_this = {name: len(of_set) for name, of_set in sets.items()}
        if not sizes:
            sizes = of_this
            counts[ID_TEST] = _image_counts(sizes[ID_TEST], draws, random)
            for name, size in sizes.items():  # shifted images are the ID test images, and are drawn with them
                is_paired = not _role(sets[name]).is_ood and size == sizes[ID_TEST]
                counts[name] = counts[ID_TEST] if is_paired else _image_counts(size, draws, random)
        if of_this != sizes:
            raise InputError(
                f"{key[0]} with {key[1]}, seed {key[-1]}, was tested on {of_this} images, others on {sizes}; "
                "test all on the same with notebook 3"
            )
        values[key] = _of_detector(sets, counts)
    return values


def _role(images: pd.DataFrame) -> Role:
    return Role(images["role"].iloc[0])


def _image_counts(size: int, draws: int, random: np.random.Generator) -> np.ndarray:
    """How often each image stands in the estimate, once, and in each draw, (draws + 1, size)."""
    drawn = random.multinomial(size, np.full(size, 1 / size), draws)
    return np.vstack([np.ones(size), drawn], dtype=np.uint16, casting="unsafe")


def _of_detector(sets: Mapping[str, pd.DataFrame], counts: Mapping[str, np.ndarray]) -> Values:
    id_scores = sets[ID_TEST]["score"].to_numpy()
    values: dict[tuple[str, str], np.ndarray] = {}
    for name, images in sets.items():
        if _role(images).is_ood:
            of_set = images["score"].to_numpy()
            values[name, "auroc"] = resampled_auroc(id_scores, of_set, counts[ID_TEST], counts[name])
            continue
        for metric, column in (("called_ood", "called_ood"), ("id_accuracy", "correct")):
            if column in images:
                values[name, metric] = (
                    counts[name] @ images[column].to_numpy(float, na_value=np.nan) / len(images)
                )
    for group, roles in GROUPS.items():
        for metric in ("auroc", "called_ood", "id_accuracy"):
            of_group = [values[n, metric] for n in sets if _role(sets[n]) in roles and (n, metric) in values]
            if of_group:
                values[group, metric] = np.mean(of_group, axis=0)
    return values
