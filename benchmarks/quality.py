"""`python -m benchmarks.quality`: how good a denoiser's samples are after so many training steps, against time.

Each number of steps is a training of its own, with its own schedule. Of the samples of one class an independent
classifier says how many show their class, and in its features the Frechet distance to the test images is taken, which
is not the FID. The first row is of as many validation images. Seconds hold compilation where the preset compiles.
"""

import argparse
import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch

from benchmarks.models import quiet
from benchmarks.sampling import CLASSIFIER_SEED, quality
from oodlib import datasets, steps
from oodlib.device import default_device
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.sample import sample
from oodlib.diffusion.train import fit_denoiser
from oodlib.presets import make_settings
from oodlib.reports.tables import markdown
from oodlib.runs import Run
from oodlib.settings import Sampling, Settings


def rows(settings: Settings, step_counts: list[int], samples: int) -> Iterator[dict[str, float]]:
    """A row for validation images, and one for each training."""
    train, val, test = datasets.id_splits(settings)
    judge = settings.replaced(committee_seeds=(CLASSIFIER_SEED,))
    with quiet():
        (classifier,) = steps.committee(Run(f"{settings.run}-quality"), judge, train, val).members
    samples = min(samples, len(val.images))  # the distance depends on their number
    spaced = np.arange(samples) * len(val.images) // samples
    accuracy, distance = quality(classifier, val.images[spaced], val.labels[spaced], test.images)
    yield dict(steps=0, seconds=0, accuracy=accuracy, frechet=distance)
    classes = len(train.class_names)
    labels = np.arange(samples) % classes
    for count in step_counts:
        training = settings.replaced(denoiser_steps=count)
        denoiser = Denoiser(train.class_names, settings.image_shape, training)
        start = time.perf_counter()
        with quiet():
            fit_denoiser(denoiser, train.images, train.labels, training, device=default_device())
        seconds = time.perf_counter() - start
        images = sample(denoiser, torch.eye(classes)[labels], **settings.chosen(Sampling))
        accuracy, distance = quality(classifier, images, labels, test.images)
        yield dict(steps=count, seconds=seconds, accuracy=accuracy, frechet=distance)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--profile", default="full")
    parser.add_argument("--steps", type=int, nargs="+", default=[60, 125, 250, 500, 1000, 2000])
    parser.add_argument("--samples", type=int, default=5000, help="at most the number of validation images")
    chosen = parser.parse_args()
    settings = make_settings(preset=chosen.preset, profile=chosen.profile)
    table = pd.DataFrame(rows(settings, chosen.steps, chosen.samples)).round(3)
    table["steps"] = table["steps"].astype(str).replace("0", "validation images")
    print(markdown(table))


if __name__ == "__main__":
    main()
