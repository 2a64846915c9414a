"""Outliers at noise levels."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from scipy import stats

from oodlib.diffusion.levels import NoiseLevels
from oodlib.seeds import generator

SCHEDULE = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
COUNT = 300
IMAGES = torch.randint(0, 256, (COUNT, 1, 8, 8), dtype=torch.uint8, generator=generator(0))


def noised(images=IMAGES, levels=(0.0, 1.0), clean_share=0.0, seed=0, index=None, seen=None):
    """By default image i is number i, seen for the first time."""
    index = range(len(images)) if index is None else index
    return NoiseLevels(levels, clean_share, seed)(images, index, seen or [0] * len(images))


def remaining(images, made):
    """The correlation of each image with what came of it."""
    return np.array([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(images, made, strict=True)])


@pytest.mark.parametrize("levels", [(0.0, 1.0), (0.3, 1.0), (0.2, 0.4), (1.0, 1.0)])
def test_an_image_is_what_the_forward_diffusion_leaves_of_it(levels):
    """By diffusers, at the same draws; to the byte but for ties in rounding."""
    clean_share, seed, times, shape = 0.25, 3, 2, (20, 3, 16, 16)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(1))
    found = noised(images, levels, clean_share, seed, range(100, 120), [times] * 20).int().numpy()
    clean = 0
    for i, (image, made) in enumerate(zip(images, found, strict=True), start=100):
        random = generator(seed, "noise level", i, times)
        chance, place = torch.rand(2, generator=random).tolist()
        noise = torch.randn(shape[1:], generator=random)
        t = min(int((levels[0] + (levels[1] - levels[0]) * place) * 1000), 999)
        x = image.numpy() / 127.5 - 1
        if chance >= clean_share:
            x = SCHEDULE.add_noise(torch.tensor(x), noise.double(), torch.tensor(t)).numpy()
        clean += chance < clean_share
        expected = (127.5 * (x + 1)).clip(0, 255)
        assert np.abs(made - expected).max() < 0.501
    assert 0 < clean < 20


def test_what_comes_of_an_image_depends_on_its_number_its_past_and_the_seed_not_on_its_batch():
    alone = noised(IMAGES[5:6], index=[5])
    assert torch.equal(alone, noised()[5:6])
    assert torch.equal(alone, noised(IMAGES[[7, 5]], index=[7, 5], seen=[3, 0])[1:])
    others = (
        noised(IMAGES[5:6], index=[6]),
        noised(IMAGES[5:6], index=[5], seen=[1]),
        noised(IMAGES[5:6], seed=1),
    )
    assert not any(torch.equal(alone, other) for other in others)


def test_numbers_may_be_tensors_as_training_has_them():
    numbers, seen = torch.arange(4), torch.zeros(4, dtype=torch.long)
    assert torch.equal(NoiseLevels((0, 1), 0, 0)(IMAGES[:4], numbers, seen), noised(IMAGES[:4]))


def test_of_each_image_there_must_be_a_number_and_a_past():
    with pytest.raises(ValueError):
        NoiseLevels((0, 1), 0, 0)(IMAGES[:2], [0, 1], [0])


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_clean_share_of_images_is_left_as_it_is(share):
    same = (noised(levels=(0.5, 1.0), clean_share=share) == IMAGES).all((1, 2, 3)).numpy()
    assert same.mean() == pytest.approx(share, abs=0.06) and (share not in (0, 1) or same.mean() == share)


def test_which_images_are_clean_changes_from_time_to_time():
    first, second = (
        (noised(clean_share=0.5, levels=(0.5, 1.0), seen=[times] * COUNT) == IMAGES).all((1, 2, 3))
        for times in (0, 1)
    )
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.15


@pytest.mark.parametrize("levels", [(0.0, 1.0), (0.3, 1.0), (0.1, 0.6)])
def test_time_steps_are_uniform_between_the_levels(levels):
    """Read off the noise in grey images: its deviation, from its median, as it is clipped at both ends."""
    made = noised(torch.full((COUNT, 1, 48, 48), 128, dtype=torch.uint8), levels).numpy() / 127.5 - 1
    deviation = np.median(np.abs(made), axis=(1, 2, 3)) / stats.norm.ppf(0.75)
    t = np.searchsorted(-SCHEDULE.alphas_cumprod.numpy(), deviation**2 - 1) / 1000
    t = t[deviation < 0.98]  # beyond, the deviation tells little
    last = np.searchsorted(-SCHEDULE.alphas_cumprod.numpy(), 0.98**2 - 1) / 1000
    scale = min(levels[1], last) - levels[0]
    assert stats.kstest((t - levels[0]) / scale, "uniform").pvalue > 0.01
    assert len(t) / COUNT == pytest.approx(scale / (levels[1] - levels[0]), abs=0.06)


def test_noise_is_of_unit_variance_at_the_end_and_independent_from_pixel_to_pixel():
    made = noised(torch.full((40, 1, 16, 16), 128, dtype=torch.uint8), (1.0, 1.0)).numpy() / 127.5 - 1
    inside = np.abs(made) < 0.99
    assert inside.mean() == pytest.approx(stats.norm.cdf(1) - stats.norm.cdf(-1), abs=0.02)
    assert abs(np.corrcoef(made[..., :-1].ravel(), made[..., 1:].ravel())[0, 1]) < 0.04


def test_at_level_0_an_image_is_nearly_itself_and_at_level_1_nothing_is_left_of_it():
    assert (noised(levels=(0.0, 0.0)).int() - IMAGES.int()).abs().max() <= 4  # noise of 0.8 levels
    assert remaining(IMAGES, noised(levels=(0.0, 0.0))).min() > 0.999
    end = remaining(IMAGES, noised(levels=(1.0, 1.0)))
    assert abs(end.mean()) < 0.02 and np.abs(end).max() < 0.5


def test_the_more_of_the_schedule_the_less_is_left():
    left = [remaining(IMAGES, noised(levels=(x, x))).mean() for x in (0, 0.2, 0.4, 0.6, 0.8, 1)]
    assert left == sorted(left, reverse=True)


def test_the_images_themselves_and_the_global_random_state_are_left():
    before, state = IMAGES.clone(), torch.get_rng_state()
    made = noised()
    assert (made.dtype, made.shape) == (torch.uint8, IMAGES.shape)
    assert torch.equal(IMAGES, before) and torch.equal(torch.get_rng_state(), state)
