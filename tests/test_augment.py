"""Augmentations by which ID images are seen once more."""

import numpy as np
import pytest
import torch

from oodlib import datasets
from oodlib.detection.augment import AUGMENTATIONS, _structures, augmix, pixmix

GREY = torch.tensor(datasets.load("digits", "train").images[:64]).permute(0, 3, 1, 2)
COLOUR = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("images", [GREY, COLOUR, GREY[:1], GREY[:0]])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_images_keep_their_shape_and_type_and_repeat_by_the_generator(name, images):
    first, again = (AUGMENTATIONS[name](images, seeded()) for _ in range(2))
    assert (first.dtype, first.shape) == (torch.uint8, images.shape) and torch.equal(first, again)
    if len(images) > 1:
        assert not torch.equal(first, AUGMENTATIONS[name](images, seeded(1))) and not torch.equal(
            first, images
        )


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_global_generator_is_left_as_it_was(name):
    before = torch.random.get_rng_state()
    AUGMENTATIONS[name](GREY, seeded())
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_image_stays_most_like_itself(name):
    changed = AUGMENTATIONS[name](GREY, seeded()).float().flatten(1)
    plain = GREY.float().flatten(1)
    correlations = np.corrcoef(changed.numpy(), plain.numpy())[: len(plain), len(plain) :]
    assert (np.nan_to_num(correlations).argmax(1) == np.arange(len(plain))).mean() > 0.7


def test_one_image_in_five_goes_through_no_round_of_pixmix():
    images = GREY.repeat(10, 1, 1, 1)
    same = (pixmix(images, seeded()) == images).flatten(1).all(1).float().mean()
    assert 0.15 < same < 0.27


def test_structures_have_amplitudes_that_fall_with_frequency():
    pictures = _structures((200, 1, 32, 32), seeded())
    assert pictures.min() == 0 and pictures.max() == 1
    power = torch.fft.rfft2(pictures - pictures.mean((2, 3), keepdim=True)).abs().square().mean((0, 1))
    assert power[0, 1] / power[0, 8] == pytest.approx(64, rel=0.3)


def test_augmix_draws_operations_anew_for_parts_of_a_batch():
    images = GREY[:1].repeat(32, 1, 1, 1)
    changed = augmix(images, seeded()).float().flatten(1)
    assert not torch.allclose(changed[:16].mean(0), changed[16:].mean(0), atol=1)
