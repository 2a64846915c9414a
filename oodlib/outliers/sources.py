"""Outliers to train on: one small function for each way to make them, and their registry.

A new source is a function here and its line in `SOURCES`. An outlier has a number, and depends on that and the seed
alone, so that a pool can be drawn in parts.
"""

import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from oodlib.device import images_at_once
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.labels import label_weights, pair_weights
from oodlib.diffusion.sample import sample
from oodlib.diffusion.scores import reconstruct
from oodlib.errors import InputError
from oodlib.images import ImageSet, signed_to_uint8, uint8_to_signed
from oodlib.outliers.pool import OutlierPool
from oodlib.seeds import generator
from oodlib.settings import Sampling

if TYPE_CHECKING:
    from oodlib.outliers.committee import Committee

DISTANT = (1.5, 4.0)  # window of distances to the training images, 1 being typical of unseen ID images
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


def boundary_mixup(
    denoiser: Denoiser, committee: "Committee", index: range, *, mix: str = "sum", **sampling: Any
) -> OutlierPool:
    """Label mixtures of two classes at the weight at which a committee is torn between them: each noise is drawn at six
    weights that close in on it, and the last is kept."""
    classes = len(denoiser.class_names)
    mixed = torch.tensor(class_combinations(classes, 2, index))
    low, high = torch.zeros(len(mixed)), torch.ones(len(mixed))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        weights = pair_weights(mixed, classes, mix, middle)
        images = sample(denoiser, weights, noise_index=index, **sampling)
        of_pair = torch.tensor(committee.probabilities(images)).gather(1, mixed)
        is_beyond = of_pair[:, 1] > of_pair[:, 0]
        low, high = torch.where(is_beyond, low, middle), torch.where(is_beyond, middle, high)
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


def training_images(train: ImageSet, index: range) -> OutlierPool:
    """Training images in turn. By themselves they contradict their labels; at noise levels they are a control: all of
    the noise, and nothing else."""
    chosen = np.array(index) % len(train.images)
    return OutlierPool(
        train.images[chosen], np.eye(len(train.class_names), dtype=np.float32)[train.labels[chosen]]
    )


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
    "impure_mixup": Source(label_mixup, True, settings=dict(confidence=(0.0, 0.9))),
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
    "distant_placebo": Source(label_mixup, settings=dict(distance=DISTANT, twins="outliers")),
    "matched": Source(label_mixup, settings=dict(twins="id")),
    "regenerated": Source(regenerated),
    "weightless": Source(weightless),
    "double_batch": Source(doubles_batch=True),
    "early_stopped": Source(early_stopped),
    "pixel_mixup": Source(pixel_mixup, placebo="training_images"),
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
