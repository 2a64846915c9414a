"""Nuisances: what each does, how often and how much."""

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from oodlib import degrade as module
from oodlib.degrade import degrade

BOUNDS = dict(
    SOFTNESS=1,
    CONTRAST=0.4,
    BRIGHTNESS=0.3,
    BACKGROUND=0.15,
    NOISE=13 / 255,
    SATURATION=0.6,
    WHITE_BALANCE=0.15,
)
COUNT = 400
RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (COUNT, 3, 8, 8), np.uint8)
GREY = RANDOM.integers(0, 256, (COUNT, 1, 8, 8), np.uint8)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def degraded(images, strength=1.0, seed=0):
    """As float64, with the images' values."""
    return degrade(torch.tensor(images), strength, seeded(seed)).numpy().astype(float)


@pytest.fixture
def only(monkeypatch):
    """Leaves one nuisance and takes the others away."""

    def keep(name):
        for other in BOUNDS:
            monkeypatch.setattr(module, other, BOUNDS[other] if other == name else 0)

    return keep


def blurred(x):
    for axis in (2, 3):
        x = ndimage.convolve1d(x, [0.25, 0.5, 0.25], axis=axis, mode="nearest")
    return x


def luminance(x):
    return (0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]).repeat(3, axis=1)


# Where the whole way leads, from an image in float64 (N, C, H, W).
ENDS = {
    "SOFTNESS": blurred,
    "CONTRAST": lambda x: np.broadcast_to(x.mean((1, 2, 3), keepdims=True), x.shape),
    "BRIGHTNESS": np.zeros_like,
    "BACKGROUND": lambda x: np.full_like(x, 255),
    "SATURATION": luminance,
    "WHITE_BALANCE": np.zeros_like,
}


def amounts(name, images, strength=1.0, seed=0):
    """The share of the way that each image went, of the white balance each channel, by least squares; no image may have
    left the way by more than rounding."""
    x = images.astype(float)
    way, went = ENDS[name](x) - x, degraded(images, strength, seed) - x
    axes = (2, 3) if name == "WHITE_BALANCE" else (1, 2, 3)
    share = (way * went).sum(axes, keepdims=True) / (way**2).sum(axes, keepdims=True)
    assert np.abs(went - share * way).max() < 1  # half a level, and the error of the share
    return share.squeeze((2, 3))[:, 0 if axes == (1, 2, 3) else slice(None)].ravel()


IN_GREY = ("SOFTNESS", "CONTRAST", "BRIGHTNESS", "BACKGROUND")
CASES = [(name, COLOUR) for name in ENDS] + [(name, GREY) for name in IN_GREY]
every_case = pytest.mark.parametrize(
    "name, images", CASES, ids=[f"{name} {'grey' if images is GREY else 'colour'}" for name, images in CASES]
)


@every_case
def test_half_of_the_images_go_none_of_the_way_and_the_others_a_uniform_share_up_to_the_bound(
    only, name, images
):
    only(name)
    shares = amounts(name, images) / BOUNDS[name]
    went = shares[np.abs(shares) > 0.02]
    assert len(went) / len(shares) == pytest.approx(0.49, abs=0.06)
    assert went.min() > 0 and 0.95 < went.max() < 1.01
    assert stats.kstest(went, "uniform").pvalue > 0.01


@every_case
def test_an_image_without_the_nuisance_is_left_to_the_bit(only, name, images):
    only(name)
    same = (degraded(images) == images).all((1, 2, 3))
    # Of the white balance all three channels must be without.
    assert same.mean() == pytest.approx(0.5 if name != "WHITE_BALANCE" else 0.5**3, abs=0.06)


@every_case
def test_a_strength_is_a_factor_of_the_way(only, name, images):
    only(name)
    np.testing.assert_allclose(2 * amounts(name, images, 0.5), amounts(name, images), atol=0.02)


@every_case
def test_at_any_strength_no_image_goes_past_the_end(only, name, images):
    only(name)
    assert np.abs(amounts(name, images, 40.0) - 0.5).max() < 0.52


def test_channels_have_a_white_balance_of_their_own(only):
    only("WHITE_BALANCE")
    channels = amounts("WHITE_BALANCE", COLOUR).reshape(COUNT, 3)
    assert np.abs(np.corrcoef(channels.T)[np.triu_indices(3, 1)]).max() < 0.15


def test_noise_is_normal_with_a_deviation_of_its_own_in_each_image(only):
    only("NOISE")
    noise = degraded(np.full((COUNT, 1, 40, 40), 128, np.uint8)) - 128
    deviation = noise.std((1, 2, 3))
    noisy = deviation > 0
    assert noisy.mean() == pytest.approx(0.5, abs=0.06) and deviation.max() == pytest.approx(13, abs=0.6)
    assert stats.kstest(deviation[noisy] / 13, "uniform").pvalue > 0.01
    strong = deviation > 6  # so that rounding to levels hardly counts
    standard = noise[strong] / deviation[strong, None, None, None]
    assert abs(standard.mean()) < 0.01 and stats.kstest(standard.ravel()[::100], "norm").pvalue > 0.01


def test_noise_differs_from_channel_to_channel(only):
    only("NOISE")
    noise = degraded(np.full((40, 3, 16, 16), 128, np.uint8)) - 128
    assert abs(np.corrcoef(noise.transpose(1, 0, 2, 3).reshape(3, -1))[0, 1]) < 0.05


def test_noise_is_drawn_anew_in_each_call(only):
    only("NOISE")
    images, random = torch.full((200, 1, 8, 8), 128, dtype=torch.uint8), seeded()
    first, second = (degrade(images, 1.0, random).numpy() - 128.0 for _ in range(2))
    both = (first.std((1, 2, 3)) > 0) & (second.std((1, 2, 3)) > 0)
    assert both.sum() > 30 and abs(np.corrcoef(first[both].ravel(), second[both].ravel())[0, 1]) < 0.08


@pytest.mark.parametrize("images", [GREY, COLOUR], ids=["grey", "colour"])
def test_nuisances_are_drawn_apart_from_each_other(only, images):
    drawn = []
    for name in IN_GREY if images is GREY else BOUNDS:
        only(name)
        drawn.append((degraded(images) != images).any((1, 2, 3)))
    assert np.abs(np.corrcoef(drawn)[np.triu_indices(len(drawn), 1)]).max() < 0.15


@pytest.mark.parametrize("name", ["SATURATION", "WHITE_BALANCE"])
def test_grey_images_have_no_colour_to_lose(only, name):
    only(name)
    assert np.array_equal(degraded(GREY), GREY)


@pytest.mark.parametrize("shape", [(5, 1, 8, 8), (5, 3, 32, 32), (1, 3, 16, 24), (0, 1, 8, 8), (0, 3, 8, 8)])
def test_degraded_images_keep_shape_and_type(shape):
    images = torch.full(shape, 100, dtype=torch.uint8)
    made = degrade(images, 1.0, seeded())
    assert (made.shape, made.dtype) == (images.shape, torch.uint8) and bool((images == 100).all())


@pytest.mark.parametrize("images", [GREY, COLOUR], ids=["grey", "colour"])
def test_strength_0_leaves_the_images_as_they_are(images):
    assert np.array_equal(degraded(images, 0.0), images)


def test_most_images_are_changed_at_strength_1():
    assert (degraded(GREY) != GREY).any((1, 2, 3)).mean() > 0.9  # five nuisances: 31 of 32


def test_what_is_drawn_is_that_of_the_generator_which_goes_on():
    images, random = torch.tensor(GREY), seeded()
    before = torch.get_rng_state()
    first, second = degrade(images, 1.0, random), degrade(images, 1.0, random)
    assert torch.equal(first, degrade(images, 1.0, seeded()))
    assert not torch.equal(first, second) and not torch.equal(first, degrade(images, 1.0, seeded(1)))
    assert torch.equal(torch.get_rng_state(), before)


def test_two_calls_draw_from_one_distribution(only):
    """Of ID images and of outliers, as training makes them."""
    random = seeded()
    first, second = (
        degrade(torch.full((2000, 1, 8, 8), 200, dtype=torch.uint8), 1.0, random) for _ in range(2)
    )
    for of in (lambda x: x.float().mean((1, 2, 3)), lambda x: x.float().std((1, 2, 3))):
        assert stats.ks_2samp(of(first), of(second)).pvalue > 0.01
