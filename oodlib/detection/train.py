"""The detector's training loop, plain and visible.

Nothing in it waits for the device: losses are looked at every few seconds, all at once.
"""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from oodlib.checkpoints import Checkpoints
from oodlib.degrade import degrade
from oodlib.detection.augment import AUGMENTATIONS, augment
from oodlib.detection.detector import Detector
from oodlib.detection.heads import CosineHead
from oodlib.detection.losses import uniform_cross_entropy
from oodlib.detection.vos import VirtualOutliers
from oodlib.diffusion.levels import NoiseLevels
from oodlib.errors import InputError
from oodlib.files import fingerprint
from oodlib.images import uint8_tensor
from oodlib.seeds import generator
from oodlib.settings import DetectorTraining
from oodlib.training import Progress, batches, labels_of, start_of


def fit_detector(
    detector: Detector,
    images: np.ndarray,
    labels: np.ndarray,
    settings: DetectorTraining,
    *,
    outliers: np.ndarray | None = None,
    outlier_targets: np.ndarray | None = None,
    outlier_loss_weights: np.ndarray | None = None,
    twins: np.ndarray | None = None,
    twin_labels: np.ndarray | None = None,
    virtual_outliers: bool = False,
    double_batch: bool = False,
    device: str | torch.device = "cpu",
    label: str = "detector",
    checkpoints: Path | None = None,
    checkpoint_every_s: float = 60.0,
) -> pd.DataFrame:
    """Train a detector by Nesterov SGD, with outlier exposure where outliers are given. The learning rate rises in
    the `warmup` and then falls as a cosine.

    The loss is `head loss(ID) + outlier_weight * uniform_cross_entropy(outliers)`. ID images and outliers go
    through the network in one batch, so that batch normalisation sees both (arXiv 1812.04606).

    Args:
        detector: Trained in place.
        images: uint8 (N, H, W, C).
        labels: Integers (N,) in [0, C).
        settings: In each step there are `outlier_batch_size` outliers beside `batch_size` ID images, or beside all
            images where there are fewer.
        outliers: uint8 (M, H, W, C) with M of 2 or more, or None for plain training.
        outlier_targets: (M, C), what to predict for each, rows that sum to 1; None for the uniform distribution.
        outlier_loss_weights: (M,), how much each outlier counts; None for 1.
        twins, twin_labels: uint8 (M, H, W, C) and integers (M,), an ID image beside each outlier; None for none.
        virtual_outliers: Draw outliers in feature space while training, in place of images.
        double_batch: Take twice as many ID images in each of as many steps.
        checkpoints: A folder for checkpoints; a training with the same settings that was stopped goes on from there.
        checkpoint_every_s: Seconds between two of them.

    Returns:
        The loss curve, columns `step` and `loss`.

    Raises:
        InputError: Images, labels or settings are out of range, or the loss is no longer finite; the last checkpoint
            is from before that.
    """
    outlier_batch_size, seed = settings.outlier_batch_size, settings.seed
    id_images = uint8_tensor(images, detector.image_shape).to(device)
    id_labels = labels_of(id_images, labels, len(detector.class_names)).to(device)
    # Of fewer images than a batch each step takes all, so that an epoch is a step at least; batch norm needs two.
    count = len(id_images)
    batch_size = min(settings.batch_size, max(2, count))
    if batch_size < settings.batch_size:
        print(
            f"{label}: only {count} training images, so a step takes them all and not {settings.batch_size}"
        )
    outlier_images = None if outliers is None else uint8_tensor(outliers, detector.image_shape).to(device)
    targets, loss_weights = (
        None if values is None else torch.as_tensor(values, dtype=torch.float32, device=device)
        for values in (outlier_targets, outlier_loss_weights)
    )
    twin_images, twin_classes = None, None
    if (twins is None) != (twin_labels is None) or (
        twins is not None and np.shape(twins) != np.shape(outliers)
    ):
        raise InputError(
            f"twins of shape {np.shape(twins)}, expected one of the outliers' shape {np.shape(outliers)} for each, and "
            "their labels"
        )
    if twins is not None:
        twin_images = uint8_tensor(twins, detector.image_shape).to(device)
        twin_classes = labels_of(twin_images, twin_labels, len(detector.class_names)).to(device)
    if outliers is not None:
        _check_outliers(len(outlier_images), targets, loss_weights, len(detector.class_names))
    if outliers is not None and virtual_outliers:
        raise InputError("outliers are images or virtual, not both; leave out one of them")
    start = dict(
        **settings.values(DetectorTraining) | {"batch_size": batch_size},
        device=id_images.device.type,
        data=fingerprint(id_images.cpu().numpy(), id_labels.cpu().numpy()),
        outlier_images=None if outliers is None else fingerprint(outlier_images.cpu().numpy()),
        virtual_outliers=virtual_outliers,
        double_batch=double_batch,
        exposure=fingerprint(
            *(t.cpu().numpy() for t in (targets, loss_weights, twin_images, twin_classes) if t is not None)
        ),
        **start_of(detector),
    )
    detector.to(device).train()

    undecayed = [detector.head.weight] if isinstance(detector.head, CosineHead) else []
    decayed = [p for p in detector.parameters() if all(p is not q for q in undecayed)]
    groups = [{"params": decayed}, {"params": undecayed, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(
        groups, settings.learning_rate, momentum=0.9, weight_decay=settings.weight_decay, nesterov=True
    )
    steps = max(1, round(settings.epochs * len(id_images) / batch_size))
    id_batch_size = (1 + double_batch) * batch_size
    warmup = min(round(settings.warmup * steps), steps - 1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warmup, eta_min=1e-6)
    if warmup:
        rising = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup, total_iters=warmup - 1)
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [rising, schedule], [warmup])

    shifts, outlier_shifts = generator(seed, "augmentation"), generator(seed, "outlier augmentation")
    nuisances = generator(seed, "nuisances")
    virtual, random_virtual = VirtualOutliers(len(detector.class_names)), generator(seed, "virtual outliers")
    progress = Progress(label, steps, batch_size, detector.parameters())
    parts = dict(detector=detector, optimizer=optimizer, schedule=schedule, progress=progress)
    parts |= dict(
        shifts=shifts,
        outlier_shifts=outlier_shifts,
        nuisances=nuisances,
        virtual=virtual,
        random_virtual=random_virtual,
    )
    saved = Checkpoints(checkpoints, start, parts, checkpoint_every_s)
    done = saved.resume()
    order = itertools.islice(batches(len(id_images), id_batch_size, generator(seed, "ID order")), done, None)
    if outliers is not None:
        at_noise_levels = None
        if settings.noise_levels:
            at_noise_levels = NoiseLevels(settings.noise_levels, settings.clean_share, seed)
        outlier_order = batches(len(outlier_images), outlier_batch_size, generator(seed, "outlier order"))
        outlier_order = itertools.islice(outlier_order, done, None)
    for step in range(done + 1, steps + 1):
        index = next(order).to(device, non_blocking=True)
        batch, batch_labels = augment(id_images[index], settings.flip, shifts), id_labels[index]
        outlier_batch, exposure = batch[:0], ()
        if outliers is not None:
            numbers = next(outlier_order)
            drawn = numbers.to(device, non_blocking=True)
            outlier_batch = augment(outlier_images[drawn], settings.flip, outlier_shifts)
            exposure = (None if values is None else values[drawn] for values in (targets, loss_weights))
            if twin_images is not None:
                batch = torch.cat([batch, augment(twin_images[drawn], settings.flip, outlier_shifts)])
                batch_labels = torch.cat([batch_labels, twin_classes[drawn]])
        seen_again = []
        if settings.augmentation != "none":
            seen_again.append(AUGMENTATIONS[settings.augmentation](batch, nuisances))
        if settings.degrade:  # each ID image, and every other outlier
            seen_again.append(degrade(batch, settings.degrade, nuisances))
            outlier_batch[::2] = degrade(outlier_batch[::2], settings.degrade, nuisances)
        batch, batch_labels = torch.cat([batch, *seen_again]), batch_labels.repeat(1 + len(seen_again))
        if outliers is not None and at_noise_levels is not None:
            seen = (step - 1) * outlier_batch_size + torch.arange(len(numbers))
            outlier_batch = at_noise_levels(outlier_batch, numbers, seen // len(outlier_images))
        features = detector.features(torch.cat([batch, outlier_batch]))
        if virtual_outliers:
            virtual.remember(features, batch_labels)
            features = torch.cat([features, virtual.draw(outlier_batch_size, random_virtual)])
        logits = detector.head.training_logits(features, batch_labels)
        loss = F.cross_entropy(logits[: len(batch)], batch_labels)
        if len(logits) > len(batch):
            loss = loss + settings.outlier_weight * uniform_cross_entropy(logits[len(batch) :], *exposure)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress.update(step, loss, schedule.get_last_lr()[0])
        schedule.step()
        saved.update(step)
    saved.save(steps)
    detector.eval()
    return pd.DataFrame(progress.history)


def _check_outliers(
    count: int, targets: Tensor | None, loss_weights: Tensor | None, num_classes: int
) -> None:
    if count < 2:
        raise InputError(f"the outliers are {count} image, expected 2 or more; draw a pool with notebook 2")
    if targets is not None and targets.shape != (count, num_classes):
        raise InputError(
            f"outlier_targets have shape {tuple(targets.shape)}, expected {count} outliers x {num_classes} classes"
        )
    if loss_weights is not None and (loss_weights.shape != (count,) or bool((loss_weights < 0).any())):
        raise InputError(f"outlier_loss_weights must be {count} numbers of 0 or more, one for each outlier")
