"""Detector training at 32 x 32, against per-image transforms in DataLoader workers, as OpenOOD trains."""

import os
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import transforms

from benchmarks.models import Pictures, digits_classifier, matrix_shares, precision, quiet
from benchmarks.table import Row, alternate, faster
from oodlib import datasets, presets
from oodlib.detection.backbones import make_backbone
from oodlib.detection.detector import Detector
from oodlib.detection.train import fit_detector

NAMES = tuple("0123456789")


def openood_loop(net: nn.Module, images: np.ndarray, labels: np.ndarray, batch_size: int) -> None:
    """One epoch as OpenOOD's trainer and preprocessor for CIFAR do it (they come in no package, so they are written
    here): each picture through torchvision's transforms in one of as many workers as there are cores, fp32, the loss
    read at every step.

    OpenOOD also reads and decodes each picture from a file and transforms it a second time, which is left out.
    """
    transform = transforms.Compose(
        [
            transforms.Resize(32),
            transforms.CenterCrop(32),
            transforms.RandomHorizontalFlip(),
            transforms.RandomCrop(32, padding=4),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.25] * 3),
        ]
    )
    dataset = Pictures(images, labels, transform)
    loader = torch.utils.data.DataLoader(dataset, batch_size, shuffle=True, num_workers=os.cpu_count())
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(loader))
    net.train()
    average = 0.0
    for batch, target in loader:
        loss = F.cross_entropy(net(batch), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        average = 0.8 * average + 0.2 * loss.item()


def digits_accuracy(precision: str, toy: bool) -> np.ndarray:
    """Test accuracy on digits of the preset's backbone, trained in a precision with each of three seeds."""
    train, test = datasets.load("digits", "train"), datasets.load("digits", "test")
    classifiers = [digits_classifier(train, seed, toy, precision) for seed in range(3)]
    return np.array([(c.classify(test.images)[0].argmax(1) == test.labels).mean() for c in classifiers])


def rows(toy: bool) -> list[Row]:
    rng = np.random.default_rng(0)
    note, fault = f"batches of 128, {precision()}, theirs fp32", ""
    if precision() == "bf16":
        bf16, fp32 = (digits_accuracy(p, toy) for p in ("bf16", "fp32"))
        note += f"; accuracy on digits, 3 seeds: {bf16.mean():.2%}, in fp32 {fp32.mean():.2%} ± {fp32.std(ddof=1):.2%}"
        fault = "less accurate" if bf16.mean() < fp32.mean() - fp32.std(ddof=1) else ""
    found = []
    for backbone, name, steps, target in (
        ("resnet18", "ResNet-18", 2, 2.5),
        ("resnet50", "ResNet-50", 1, 4.5),
    ):
        batch_size = 2 if toy else 128
        images = rng.integers(0, 256, (steps * batch_size, 32, 32, 3), np.uint8)
        labels = rng.integers(0, 10, len(images))
        training = dict(epochs=1, learning_rate=0.1, batch_size=batch_size, flip=True, precision=precision())
        settings = presets.make_settings(head="softmax", backbone=backbone, **training)
        detector = Detector(NAMES, (32, 32, 3), [0.5] * 3, [0.25] * 3, settings)
        network, num_features = make_backbone(backbone, 3)
        net = nn.Sequential(network, nn.Linear(num_features, len(NAMES)))
        ours = partial(quiet()(fit_detector), detector, images, labels, settings)
        peer = partial(openood_loop, net, images, labels, batch_size)
        seconds = alternate(1 if toy else 3, ours, peer)
        told = f"{note}; {matrix_shares(ours, seconds, precision())}"
        row = faster(f"detector training, {name}", "OpenOOD's loop", len(images), *seconds, target, told)
        found.append(replace(row, fault=fault))
    return found
