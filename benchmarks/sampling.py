"""Drawing digits in the preset's few steps, against DDPM's 1000, at no worse quality.

Both draw the same number of images of pure classes with three separately trained denoisers, each from noise of its own
seed. Mixtures take as long, before any filter. An independent classifier, trained on real digits, says how many show
their class, and in its features the Frechet distance to the real digits is taken. Quality is no worse where both are
within one standard deviation of DDPM's over the three. DDIM in 50 steps, which many use instead, stands beside it.
"""

import time
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from benchmarks.models import digits_classifier, quiet
from benchmarks.table import Row, faster, number
from oodlib import datasets, presets, pretrained, steps
from oodlib.detection.detector import Detector
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.sample import sample
from oodlib.images import ImageSet, signed_to_uint8
from oodlib.runs import Run

CLASSIFIER_SEED = 1234  # which neither the denoisers nor the detectors have


def trained_denoiser(seed: int, train: ImageSet, toy: bool) -> Denoiser:
    """The preset's denoiser trained with a seed: the one that ships for 0, others kept in runs of their own."""
    if seed == 0 or toy:
        return Denoiser.load(pretrained.shipped("digits").denoiser)
    with quiet():
        return steps.denoiser(Run(f"bench-seed{seed}"), presets.make_settings(seed=seed), train)


@torch.inference_mode()
def ddpm(denoiser: Denoiser, weights: torch.Tensor, seed: int, steps: int) -> np.ndarray:
    """Images drawn as diffusers' DDPMPipeline does, which takes no labels and is therefore written here."""
    scheduler = denoiser.noise_scheduler
    random = torch.Generator().manual_seed(seed)
    height, width, channels = denoiser.image_shape
    x = torch.randn((len(weights), channels, height, width), generator=random)
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        x = scheduler.step(denoiser(x, t, weights), t, x, generator=random).prev_sample
    return signed_to_uint8(x)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance between Gaussians fitted to features (N, D) and (M, D)."""
    covariance_a, covariance_b = np.cov(a.T), np.cov(b.T)
    root_trace = np.sqrt(np.linalg.eigvals(covariance_a @ covariance_b).real.clip(0)).sum()
    apart = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return apart + np.trace(covariance_a) + np.trace(covariance_b) - 2 * root_trace


def quality(
    classifier: Detector, images: np.ndarray, labels: np.ndarray, real: np.ndarray
) -> tuple[float, float]:
    """The share of images that a classifier takes for the class that they were drawn for, and in its features their
    Frechet distance to real images."""
    of_images, of_real = (classifier.all_features(some).double().cpu().numpy() for some in (images, real))
    return (classifier.classify(images)[0].argmax(1) == labels).mean(), frechet(of_images, of_real)


def rows(toy: bool) -> list[Row]:
    s = presets.make_settings()
    count, ddpm_steps = (16, 20) if toy else (200, 1000)
    train = datasets.load("digits", "train")
    classifier = digits_classifier(train, seed=CLASSIFIER_SEED, toy=toy)
    classes = len(train.class_names)
    labels = np.arange(count) % classes
    weights = torch.eye(classes)[labels]
    few = dict(scheduler=s.scheduler, num_inference_steps=s.num_inference_steps)
    seconds, accuracy, distance = [], [], []
    for seed in range(3):
        denoiser = trained_denoiser(seed, train, toy)
        sample(denoiser, weights[:8], **few)
        for found in (seconds, accuracy, distance):
            found.append([])
        for draw in (
            partial(sample, denoiser, weights, seed=seed, **few),
            partial(ddpm, denoiser, weights, seed, ddpm_steps),
            partial(sample, denoiser, weights, seed=seed, scheduler="ddim", num_inference_steps=50),
        ):
            start = time.perf_counter()
            images = draw()
            seconds[-1].append(time.perf_counter() - start)
            right, far = quality(classifier, images, labels, train.images)
            accuracy[-1].append(right)
            distance[-1].append(far)
    ours, theirs, ddim = np.median(seconds, axis=0)
    few_right, many_right, ddim_right = np.mean(accuracy, axis=0)
    few_far, many_far, ddim_far = np.mean(distance, axis=0)
    noise_right, noise_far = (np.std([many for _, many, _ in v], ddof=1) for v in (accuracy, distance))
    is_worse = few_right < many_right - noise_right or few_far > many_far + noise_far
    note = (
        f"{s.scheduler}, {s.num_inference_steps} steps; accuracy {few_right:.3f} against {many_right:.3f} "
        f"± {noise_right:.3f}, Frechet distance {few_far:.3f} against {many_far:.3f} ± {noise_far:.3f}; "
        f"DDIM, 50 steps: {number(ddim / ours)} times our time, {ddim_right:.3f} and {ddim_far:.3f}"
    )
    peer = f"DDPM, {ddpm_steps} steps"
    row = faster("drawing digits", peer, count, ours, theirs, 120, note)
    return [replace(row, fault="worse quality" if is_worse else "")]
