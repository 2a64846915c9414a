"""`python -m benchmarks.memory`: the memory that a detector of one's own network takes for 50,000 images."""

import argparse
import resource

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

from oodlib import Detector

CLASSES, FEATURES = 10, 2048


class Noise(Dataset):
    """Images that are made when they are asked for, as pictures are read from a disk."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        image = np.random.default_rng(index).integers(0, 256, (32, 32, 3), np.uint8)
        return Image.fromarray(image), index % CLASSES


def peak() -> float:
    """The largest memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(count: int) -> float:
    """Peak memory in GiB above that of the network that has seen two images."""
    torch.manual_seed(0)
    layers = (
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(192, FEATURES),
        nn.ReLU(),
        nn.Linear(FEATURES, CLASSES),
    )
    transform = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
    names = [str(label) for label in range(CLASSES)]
    detector = Detector.from_classifier(
        nn.Sequential(*layers), "4", class_names=names, transform=transform, workers=0
    )
    detector.all_features(torch.rand(2, 3, 32, 32))
    before = peak()
    detector.fit(Noise(count), val=Noise(count // 25)).evaluate(Noise(count // 5), near=[Noise(count // 10)])
    return peak() - before


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--images", type=int, default=50_000)
    count = parser.parse_args().images
    print(f"{count:,} images, {FEATURES:,} features: {measure(count):.2f} GiB above the network")
