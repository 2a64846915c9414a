"""Outliers that a denoiser draws, most of them for mixed labels, and controls of these.

An outlier has a number, and depends on that and the seed alone, so that a pool can be drawn in parts.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from oodlib.device import images_at_once
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.labels import label_weights, pair_weights
from oodlib.diffusion.sample import sample
from oodlib.diffusion.scores import reconstruct
from oodlib.errors import InputError
from oodlib.images import ImageSet, signed_to_uint8, uint8_to_signed
from oodlib.outliers.pool import OutlierPool
from oodlib.seeds import generator

if TYPE_CHECKING:
    from oodlib.outliers.committee import Committee

BISECTIONS = 6  # of the weight at which a committee is torn between two classes
HALF_WAY = 499  # of 1000 time steps, to which training images are noised before they are drawn again


def class_combinations(num_classes: int, mixed_classes: int, index: Sequence[int]) -> list[tuple[int, ...]]:
    """The classes that outlier i mixes: all unordered combinations in turn."""
    count = math.comb(num_classes, mixed_classes)
    if not count:
        raise InputError(f"label mixup of {mixed_classes} classes needs as many, there are {num_classes}")
    # No more of them than the index asks for: of 5 of 100 classes there are 75 million.
    combinations = list(
        itertools.islice(itertools.combinations(range(num_classes), mixed_classes), max(index, default=0) + 1)
    )
    return [combinations[i % count] for i in index]


def label_mixup(
    denoiser: Denoiser,
    index: range,
    *,
    mix: str = "sum",
    mix_weight: float = 0.5,
    mixed_classes: int = 2,
    twins: str | None = None,
    **sampling: Any,
) -> OutlierPool:
    """Drawn for mixed labels (arXiv 2405.00631): every pair of classes in turn, or every k of them at equal weights.

    Args:
        index: Numbers of the outliers.
        mix_weight: Of a pair's second class, see `labels.pair_weights`.
        twins: Unless None, each mixture has a twin, drawn from the same noise for one of its classes, by turns.
        sampling: Options of `sample`.
    """
    classes = len(denoiser.class_names)
    mixed = class_combinations(classes, mixed_classes, index)
    if mixed_classes == 2:
        weights = pair_weights(mixed, classes, mix, mix_weight)
    else:
        weights = label_weights(torch.zeros(len(mixed), classes).scatter(1, torch.tensor(mixed), 1.0), mix)
    pool = OutlierPool(sample(denoiser, weights, noise_index=index, **sampling), weights.numpy())
    if twins is None:
        return pool
    rounds = np.array(index) // math.comb(classes, mixed_classes)
    labels = np.array(mixed)[np.arange(len(mixed)), rounds % mixed_classes]
    of_one_class = sample(denoiser, torch.eye(classes)[labels], noise_index=index, **sampling)
    return replace(pool, twins=of_one_class, twin_labels=labels)


def weightless(denoiser: Denoiser, index: range, **sampling: Any) -> OutlierPool:
    """Label mixtures that are seen and teach nothing: what their part in batch normalisation does."""
    pool = label_mixup(denoiser, index, **sampling)
    return replace(pool, loss_weights=np.zeros(len(pool), np.float32))


def rounded_mixup(denoiser: Denoiser, train: ImageSet, index: range, **sampling: Any) -> OutlierPool:
    """Label mixtures, each value rounded to the nearest that training images have."""
    pool = label_mixup(denoiser, index, **sampling)
    levels = np.unique(train.images)
    nearest = levels[np.abs(np.arange(256)[:, None] - levels).argmin(1)]
    return replace(pool, images=nearest[pool.images])


def crisp_mixup(
    denoiser: Denoiser, train: ImageSet, index: range, *, seed: int = 0, **sampling: Any
) -> OutlierPool:
    """Label mixtures, each with the values of a training image in the order of its own: as bright and full of contrast
    as the real ones."""
    pool = label_mixup(denoiser, index, seed=seed, **sampling)
    chosen = [
        int(torch.randint(len(train.images), (), generator=generator(seed, "values", i))) for i in index
    ]
    flat = (len(pool), -1, pool.images.shape[3])
    order = pool.images.reshape(flat).argsort(axis=1, kind="stable")
    values = np.sort(train.images[chosen].reshape(flat), axis=1)
    images = np.empty_like(values)
    np.put_along_axis(images, order, values, axis=1)
    return replace(pool, images=images.reshape(pool.images.shape))


def at_tie(
    denoiser: Denoiser,
    pairs: Sequence[tuple[int, int]],
    probabilities: Callable[[np.ndarray], np.ndarray],
    noise_index: Sequence[int],
    *,
    mix: str = "sum",
    **sampling: Any,
) -> tuple[np.ndarray, Tensor, Tensor]:
    """Mixtures of pairs of classes at the weight at which a classifier is torn between the two: each noise is drawn at
    six weights that close in on it.

    Args:
        probabilities: Of the classifier, from images (N, H, W, C) to (N, classes).

    Returns:
        The images drawn last, their weight of the second class (N,), and their label weights (N, classes).
    """
    classes, mixed = len(denoiser.class_names), torch.tensor(pairs)
    low, high = torch.zeros(len(mixed)), torch.ones(len(mixed))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        weights = pair_weights(mixed, classes, mix, middle)
        images = sample(denoiser, weights, noise_index=noise_index, **sampling)
        of_pair = torch.tensor(probabilities(images)).gather(1, mixed)
        is_beyond = of_pair[:, 1] > of_pair[:, 0]
        low, high = torch.where(is_beyond, low, middle), torch.where(is_beyond, middle, high)
    return images, middle, weights


def boundary_mixup(
    denoiser: Denoiser, committee: "Committee", index: range, *, mix: str = "sum", **sampling: Any
) -> OutlierPool:
    """Label mixtures of two classes at the weight at which a committee is torn between them, see `at_tie`."""
    pairs = class_combinations(len(denoiser.class_names), 2, index)
    images, _, weights = at_tie(denoiser, pairs, committee.probabilities, index, mix=mix, **sampling)
    return OutlierPool(images, weights.numpy())


def regenerated(denoiser: Denoiser, train: ImageSet, index: range, *, seed: int = 0) -> OutlierPool:
    """Training images in turn, noised half-way and denoised under their own label: their content, with the generator's
    traces."""
    chosen = np.array(index) % len(train.images)
    shape = (train.images.shape[3], *train.images.shape[1:3])
    noise = torch.stack([torch.randn(shape, generator=generator(seed, "regenerated", i)) for i in index])
    weights = torch.eye(len(train.class_names))[train.labels[chosen]]
    images = []
    for part in torch.arange(len(chosen)).split(
        images_at_once(denoiser.image_shape, denoiser.device, most=256)
    ):
        real = uint8_to_signed(train.images[chosen[part]], denoiser.device)
        start, labels = noise[part].to(denoiser.device), weights[part].to(denoiser.device)
        images.append(signed_to_uint8(reconstruct(denoiser.eval(), real, start, HALF_WAY, labels)[1]))
    return OutlierPool(np.concatenate(images), weights.numpy())


def cmg(denoiser: Denoiser, index: range, *, seed: int = 0, **sampling: Any) -> OutlierPool:
    """Class-mixed generation (Wang et al., ECML PKDD 2022): drawn for a label embedding each of whose components is
    that of one of two classes, at random."""
    classes = len(denoiser.class_names)
    mixed = torch.tensor(class_combinations(classes, 2, index))
    embeddings = denoiser.label_embedding.weight.detach().T.cpu()
    masks = [torch.rand(embeddings.shape[1], generator=generator(seed, "mask", i)) < 0.5 for i in index]
    both = torch.where(torch.stack(masks), embeddings[mixed[:, 0]], embeddings[mixed[:, 1]])
    weights = torch.zeros(len(mixed), classes).scatter(1, mixed, 0.5)
    images = sample(denoiser, weights, noise_index=index, label_embeddings=both, seed=seed, **sampling)
    return OutlierPool(images, weights.numpy())


def early_stopped(early_denoiser: Denoiser, index: range, **sampling: Any) -> OutlierPool:
    """Drawn for one class each, in turn, by a denoiser that was stopped early: it draws badly."""
    classes = len(early_denoiser.class_names)
    weights = torch.eye(classes)[torch.tensor(index) % classes]
    return OutlierPool(sample(early_denoiser, weights, noise_index=index, **sampling), weights.numpy())
