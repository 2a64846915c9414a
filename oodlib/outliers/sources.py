"""Outliers to train on: one small function for each way to make them, and their registry.

A new source is a function here and its line in `SOURCES`. An outlier has a number, and depends on that and the seed
alone, so that a pool can be drawn in parts.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from oodlib.images import ImageSet
from oodlib.outliers.mixtures import (
    boundary_mixup,
    class_combinations,
    cmg,
    crisp_mixup,
    early_stopped,
    label_mixup,
    regenerated,
    rounded_mixup,
    weightless,
)
from oodlib.outliers.pool import OutlierPool
from oodlib.seeds import generator
from oodlib.settings import Sampling

DISTANT = (1.5, 4.0)  # window of distances to the training images, 1 being typical of unseen ID images
IMPURE = (0.0, 0.9)  # confidence of the committee
SHUFFLED = 0.5  # of the pixels, in `shuffled_pixels`


def _pairs(train: ImageSet, index: range, seed: int) -> np.ndarray:
    """For each outlier two training images of two classes, every pair of classes in turn; int64 (N, 2)."""
    classes = len(train.class_names)
    members = [np.flatnonzero(train.labels == label) for label in range(classes)]
    mixed = class_combinations(classes, 2, index)
    return np.array(
        [
            [members[c][int(torch.randint(len(members[c]), (), generator=g))] for c in pair]
            for pair, g in zip(mixed, (generator(seed, "pixel mixup", i) for i in index), strict=True)
        ]
    )


def pixel_mixup(train: ImageSet, index: range, *, seed: int = 0) -> OutlierPool:
    """The mean of two real images of two classes (mixup at 0.5: Zhang et al. 2018, arXiv 1710.09412)."""
    picked = _pairs(train, index, seed)
    images = train.images[picked].astype(np.float32).mean(1).round().astype(np.uint8)
    return OutlierPool(images, _one_hot(train, picked).mean(1))


def cut_mixup(train: ImageSet, index: range, *, seed: int = 0) -> OutlierPool:
    """A rectangle of one training image, half its area, in one of another class (CutMix: Yun et al. 2019, arXiv
    1905.04899)."""
    picked = _pairs(train, index, seed)
    first, second = (train.images[members] for members in picked.T)
    height, width = first.shape[1:3]
    images = first.copy()
    for i, number in enumerate(index):
        random = generator(seed, "cut mixup", number)
        share, top, left = torch.rand(3, generator=random).tolist()
        tall = round(height * (0.5 + 0.5 * share))
        wide = max(1, round(height * width / 2 / tall))
        y, x = round(top * (height - tall)), round(left * (width - wide))
        images[i, y : y + tall, x : x + wide] = second[i, y : y + tall, x : x + wide]
    return OutlierPool(images, _one_hot(train, picked).mean(1))


def shuffled_pixels(train: ImageSet, index: range, *, seed: int = 0) -> OutlierPool:
    """Training images in turn, with half of their pixels in another order (after ASCOOD, arXiv 2411.10794)."""
    pool = training_images(train, index)
    flat = pool.images.reshape(len(pool), -1, pool.images.shape[3]).copy()
    for i, number in enumerate(index):
        random = generator(seed, "shuffled pixels", number)
        count = max(2, round(SHUFFLED * flat.shape[1]))
        moved = torch.randperm(flat.shape[1], generator=random)[:count].numpy()
        flat[i, moved] = flat[i, np.roll(moved, 1)]
    return OutlierPool(flat.reshape(pool.images.shape), pool.label_weights)


def training_images(train: ImageSet, index: range) -> OutlierPool:
    """Training images in turn. By themselves they contradict their labels; at noise levels they are a control: all of
    the noise, and nothing else."""
    chosen = np.array(index) % len(train.images)
    return OutlierPool(train.images[chosen], _one_hot(train, chosen))


def uniform_noise(train: ImageSet, index: range, *, seed: int = 0) -> OutlierPool:
    """Independent uniform noise in every pixel."""
    shape = train.images.shape[1:]
    images = [torch.randint(256, shape, generator=generator(seed, "uniform noise", i)) for i in index]
    return OutlierPool(torch.stack(images).to(torch.uint8).numpy(), _no_classes(train, len(index)))


def real(train: ImageSet, real_images: np.ndarray, index: range) -> OutlierPool:
    """Images of another set, in its order: outlier exposure as by Hendrycks et al. 2019 (arXiv 1812.04606).

    Fewer than asked for where the set has no more.
    """
    images = real_images[index.start : index.stop]
    return OutlierPool(images, _no_classes(train, len(images)))


def _one_hot(train: ImageSet, chosen: np.ndarray) -> np.ndarray:
    """Label weights of training images by their numbers (...), float32 (..., classes)."""
    return np.eye(len(train.class_names), dtype=np.float32)[train.labels[chosen]]


def _no_classes(train: ImageSet, count: int) -> np.ndarray:
    return np.zeros((count, len(train.class_names)), np.float32)


Draw = Callable[[range], OutlierPool]
"""Makes the outliers of these numbers."""


@dataclass(frozen=True)
class Source:
    """A way to make outliers."""

    draw: Callable[..., OutlierPool] | None = None
    """Makes the outliers `index`; its other parameters are settings and `Resources`, by name. None: no images."""
    mixes_labels: bool = False
    """Whether the denoiser draws for mixed labels; the default pool is one of these."""
    is_virtual: bool = False
    """Whether the detector's training makes points in feature space."""
    doubles_batch: bool = False
    """Whether the detector's training takes twice as many ID images a step, and no outliers."""
    placebo: str | None = None
    """The source that differs from it in nothing but that no classes are mixed."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its own values of settings that are None unless they are chosen."""

    @property
    def takes(self) -> set[str]:
        """Names of the settings and resources that it takes."""
        if self.draw is None:
            return set()
        parameters = inspect.signature(self.draw).parameters
        takes_sampling = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        return set(parameters) | ({"seed", *Sampling.model_fields} if takes_sampling else set())


SOURCES: dict[str, Source] = {
    "none": Source(),
    "label_mixup": Source(label_mixup, True, placebo="placebo"),  # the paper's: every mixture that is drawn
    # Those that a committee of classifiers is unsure of.
    "impure_mixup": Source(label_mixup, True, settings=dict(confidence=IMPURE), placebo="impure_placebo"),
    # Those farther from the training images than 95 % of the validation digits, see notebook 2; none comes to 4.
    "distant_mixup": Source(label_mixup, True, settings=dict(distance=DISTANT), placebo="distant_placebo"),
    "boundary_mixup": Source(boundary_mixup, True, placebo="placebo"),
    "weighted_mixup": Source(label_mixup, True, settings=dict(weigh_by_impurity=True)),
    "soft_mixup": Source(label_mixup, True, settings=dict(soft_targets=True)),
    "three_way_mixup": Source(label_mixup, True, settings=dict(mixed_classes=3)),
    "cmg": Source(cmg, True, placebo="placebo"),
    "weak_guidance": Source(label_mixup, True, settings=dict(guidance_scale=0.5)),
    "strong_guidance": Source(label_mixup, True, settings=dict(guidance_scale=3.0)),
    # What matters in a mixture?
    "rounded_mixup": Source(rounded_mixup),
    "crisp_mixup": Source(crisp_mixup),
    # Controls: all of an exposure but the mixing, all but the outliers, all but what they teach.
    "placebo": Source(label_mixup, settings=dict(twins="outliers")),
    "impure_placebo": Source(label_mixup, settings=dict(confidence=IMPURE, twins="outliers")),
    "distant_placebo": Source(label_mixup, settings=dict(distance=DISTANT, twins="outliers")),
    "matched": Source(label_mixup, settings=dict(twins="id")),
    "regenerated": Source(regenerated),
    "weightless": Source(weightless),
    "double_batch": Source(doubles_batch=True),
    "early_stopped": Source(early_stopped),
    "pixel_mixup": Source(pixel_mixup, placebo="training_images"),
    "cut_mixup": Source(cut_mixup),
    "shuffled_pixels": Source(shuffled_pixels),
    "training_images": Source(training_images),
    "uniform_noise": Source(uniform_noise),
    "vos": Source(is_virtual=True),
    "real": Source(real),
}


def bind(source: Source, settings: Mapping[str, Any], resources: Mapping[str, Callable[[], Any]]) -> Draw:
    """A source with all that it takes, by the names of its parameters.

    Args:
        settings: Values by name; those that it does not take are left out.
        resources: Functions that get what is no setting, such as the denoiser; only those that it takes are called.
    """
    arguments = {name: value for name, value in settings.items() if name in source.takes}
    arguments |= {name: make() for name, make in resources.items() if name in source.takes}
    return lambda index: source.draw(index=index, **arguments)
