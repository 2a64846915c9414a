"""Denoiser training, against the loop of diffusers' unconditional training example with the same model."""

from functools import partial

import numpy as np
import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch.nn import functional as F
from torchvision import transforms
from tqdm import tqdm

from benchmarks.models import Pictures, described, matrix_shares, quiet, rgb_denoiser
from benchmarks.table import Row, alternate, faster
from oodlib import datasets
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.train import fit_denoiser
from oodlib.settings import DenoiserTraining


def example_loop(
    denoiser: Denoiser, images: np.ndarray, labels: np.ndarray, batch_size: int, flip: bool
) -> None:
    """One epoch as diffusers' `train_unconditional.py` trains (no package holds that loop, so it is written here):
    pictures through torchvision's transforms and a DataLoader without workers, fp32, which is its default, the loss
    read at every step.

    It differs in what the same model asks for: label weights go in, and v is predicted. Decoding each picture and
    writing a log, which the example also does, are left out.
    """
    accelerator = Accelerator(cpu=True)
    augmentations = [transforms.ToTensor(), transforms.Normalize([0.5], [0.5])]
    size = images.shape[1]
    steps_before = [transforms.Resize(size), transforms.CenterCrop(size)]
    if flip:
        steps_before.append(transforms.RandomHorizontalFlip())
    transform = transforms.Compose([*steps_before, *augmentations])
    one_hot = F.one_hot(torch.as_tensor(labels), len(denoiser.class_names)).float()
    dataset = Pictures(images, one_hot, transform)
    loader = torch.utils.data.DataLoader(dataset, batch_size=batch_size, shuffle=True)
    optimizer = torch.optim.AdamW(
        denoiser.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
    )
    schedule = get_scheduler("cosine", optimizer, num_warmup_steps=500, num_training_steps=len(loader))
    model, optimizer, loader, schedule = accelerator.prepare(denoiser, optimizer, loader, schedule)
    ema = EMAModel(model.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=3 / 4)
    scheduler = denoiser.noise_scheduler
    model.train()
    with tqdm(total=len(loader), disable=True) as bar:
        for clean, label_weights in loader:
            noise = torch.randn(clean.shape, device=clean.device)
            timesteps = torch.randint(
                0, scheduler.config.num_train_timesteps, (len(clean),), device=clean.device
            )
            noisy = scheduler.add_noise(clean, noise, timesteps)
            with accelerator.accumulate(model):
                predicted = model(noisy, timesteps, label_weights)
                loss = F.mse_loss(predicted, scheduler.get_velocity(clean, noise, timesteps))
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            ema.step(model.parameters())
            bar.update(1)
            bar.set_postfix(loss=loss.detach().item(), lr=schedule.get_last_lr()[0])


def rows(toy: bool) -> list[Row]:
    digits = datasets.load("digits", "train")
    untrained = Denoiser(digits.class_names, digits.images.shape[1:])  # as the preset `digits` has it
    rng = np.random.default_rng(0)
    count = 8 if toy else 64
    rgb_images, rgb_labels = rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, 10, count)
    found = []
    for job, denoiser, images, labels, batch_size, steps, flip, target in (
        ("digits", untrained, digits.images, digits.labels, 128, 1 if toy else 30, False, 1.5),
        ("32 x 32 RGB", rgb_denoiser(toy), rgb_images, rgb_labels, count // 2, 2, True, 2),
    ):
        theirs = Denoiser(
            denoiser.class_names, denoiser.image_shape, denoiser.settings.replaced(precision="fp32")
        )
        which = np.arange(steps * batch_size) % len(images)
        given = images[which], labels[which]
        training = DenoiserTraining(denoiser_steps=steps, denoiser_batch_size=batch_size, flip=flip)
        ours = partial(quiet()(fit_denoiser), denoiser, settings=training)
        peer = partial(example_loop, theirs, batch_size=batch_size, flip=flip)
        seconds = alternate(1 if toy else 4, partial(ours, *given), partial(peer, *given))
        shares = matrix_shares(partial(ours, *given), seconds, denoiser.settings.precision)
        note = f"{described(denoiser)}, theirs fp32; batches of {batch_size}; {shares}"
        found.append(
            faster(f"denoiser training, {job}", "diffusers' example", len(which), *seconds, target, note)
        )
    return found
