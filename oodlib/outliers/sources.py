"""Outliers to train on: one small function for each way to make them, which returns a pool.

An outlier has a number, and depends on that and the seed alone, so that a pool can be drawn in parts.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from oodlib.datasets.loading import load
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.labels import label_weights, pair_weights
from oodlib.diffusion.sample import sample
from oodlib.diffusion.train import fit_denoiser
from oodlib.errors import InputError
from oodlib.images import ImageSet
from oodlib.outliers.pool import OutlierPool
from oodlib.seeds import generator

EARLY = 0.1  # of its steps an early-stopped denoiser is trained for


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
    **sampling: Any,
) -> OutlierPool:
    """Drawn for mixed labels (arXiv 2405.00631): every pair of classes in turn, or every k of them at equal weights.

    Args:
        index: Numbers of the outliers.
        mix_weight: Of a pair's second class, see `mixup.pair_weights`.
        sampling: Options of `mixup.sample`.
    """
    classes = len(denoiser.class_names)
    mixed = class_combinations(classes, mixed_classes, index)
    if mixed_classes == 2:
        weights = pair_weights(mixed, classes, mix, mix_weight)
    else:
        weights = label_weights(torch.zeros(len(mixed), classes).scatter(1, torch.tensor(mixed), 1.0), mix)
    return OutlierPool(sample(denoiser, weights, noise_index=index, **sampling), weights.numpy())


def mask_mixup(denoiser: Denoiser, index: range, *, seed: int = 0, **sampling: Any) -> OutlierPool:
    """Drawn for a label embedding each of whose components is that of one of two classes, at random (class-mixed
    generation: Wang et al., "CMG", ECML PKDD 2022)."""
    classes = len(denoiser.class_names)
    mixed = torch.tensor(class_combinations(classes, 2, index))
    embeddings = denoiser.label_embedding.weight.detach().T.cpu()
    masks = [torch.rand(embeddings.shape[1], generator=generator(seed, "mask", i)) < 0.5 for i in index]
    both = torch.where(torch.stack(masks), embeddings[mixed[:, 0]], embeddings[mixed[:, 1]])
    weights = torch.zeros(len(mixed), classes).scatter(1, mixed, 0.5)
    images = sample(denoiser, weights, noise_index=index, label_embeddings=both, seed=seed, **sampling)
    return OutlierPool(images, weights.numpy())


def pure_classes(denoiser: Denoiser, index: range, **sampling: Any) -> OutlierPool:
    """Drawn for one class each, in turn: outliers if the denoiser was stopped early, as it draws badly then."""
    classes = len(denoiser.class_names)
    weights = torch.eye(classes)[torch.tensor(index) % classes]
    return OutlierPool(sample(denoiser, weights, noise_index=index, **sampling), weights.numpy())


def pixel_mixup(train: ImageSet, index: range, *, seed: int = 0) -> OutlierPool:
    """The mean of two real images of two classes (mixup at 0.5: Zhang et al. 2018, arXiv 1710.09412)."""
    classes = len(train.class_names)
    members = [np.flatnonzero(train.labels == label) for label in range(classes)]
    mixed = class_combinations(classes, 2, index)
    picked = np.array(
        [
            [members[c][int(torch.randint(len(members[c]), (), generator=g))] for c in pair]
            for pair, g in zip(mixed, (generator(seed, "pixel mixup", i) for i in index), strict=True)
        ]
    )
    images = train.images[picked].astype(np.float32).mean(1).round().astype(np.uint8)
    return OutlierPool(images, np.eye(classes, dtype=np.float32)[np.array(mixed)].mean(1))


def uniform_noise(train: ImageSet, index: range, *, seed: int = 0) -> OutlierPool:
    """Independent uniform noise in every pixel."""
    shape = train.images.shape[1:]
    images = [torch.randint(256, shape, generator=generator(seed, "uniform noise", i)) for i in index]
    return OutlierPool(torch.stack(images).to(torch.uint8).numpy(), _no_classes(train, len(index)))


def real_images(train: ImageSet, real: np.ndarray, index: range) -> OutlierPool:
    """Images of another set, in its order: outlier exposure as by Hendrycks et al. 2019 (arXiv 1812.04606).

    Fewer than asked for where the set has no more.
    """
    images = real[index.start : index.stop]
    return OutlierPool(images, _no_classes(train, len(images)))


def _no_classes(train: ImageSet, count: int) -> np.ndarray:
    return np.zeros((count, len(train.class_names)), np.float32)


Draw = Callable[[range], OutlierPool]
"""Makes the outliers of these numbers."""


def source(settings: Any, denoiser: Denoiser, train: ImageSet) -> Draw:
    """How to make outliers of the kind `settings.outliers`, with the other settings that it takes.

    Args:
        settings: `presets.Settings`.
        train: The ID training images.

    Raises:
        InputError: The kind needs no pool.
        Unavailable: Its images cannot be had.
    """
    sampling = settings.only("scheduler", "num_inference_steps", "guidance_scale", "init", "seed")
    match settings.outliers:
        case "none" | "virtual" as kind:
            raise InputError(f"outliers {kind!r} need no pool; go on with notebook 3")
        case "mask_mixup":
            return partial(mask_mixup, denoiser, **sampling)
        case "early_stopped":
            return partial(pure_classes, stopped_early(denoiser, train, settings), **sampling)
        case "pixel_mixup":
            return partial(pixel_mixup, train, seed=settings.seed)
        case "uniform_noise":
            return partial(uniform_noise, train, seed=settings.seed)
        case "real":
            real = load(settings.real_outliers, "all", image_shape=settings.image_shape).images
            return partial(real_images, train, real)
    mixing = settings.only("mix", "mix_weight", "mixed_classes")
    return partial(label_mixup, denoiser, **mixing, **sampling)


def stopped_early(denoiser: Denoiser, train: ImageSet, settings: Any) -> Denoiser:
    """A denoiser like this one, trained for a tenth of `settings.denoiser_steps`."""
    early = Denoiser(**denoiser.config)
    fit_denoiser(
        early,
        train.images,
        train.labels,
        steps=max(1, round(EARLY * settings.denoiser_steps)),
        batch_size=settings.denoiser_batch_size,
        learning_rate=settings.denoiser_learning_rate,
        device=settings.device,
        **settings.only("label_dropout", "ema_decay", "flip", "seed"),
    )
    return early
