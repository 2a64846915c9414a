"""Scores from the denoiser alone, measured with denoisers that know the answer."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from oodlib import datasets, pretrained
from oodlib.detection.metrics import auroc
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.scores import (
    DENOISER_SCORES,
    NUM_INFERENCE_STEPS,
    START_TIMESTEPS,
    checkerboard,
    inpaint,
    reconstruct,
)
from oodlib.errors import InputError
from oodlib.settings import DenoiserModel

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # from inside diffusers

IMAGES = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), dtype=np.uint8)
PIXELS = torch.tensor(IMAGES).permute(0, 3, 1, 2).float() / 127.5 - 1
NOISE = torch.randn(PIXELS.shape, generator=torch.Generator().manual_seed(1))
HIDDEN = checkerboard(8)[0]
every_score = pytest.mark.parametrize("score", DENOISER_SCORES.values(), ids=DENOISER_SCORES.keys())


class Knowing(Denoiser):
    """A denoiser that takes every image for the one it knows, whatever it is shown, and notes what that was."""

    def __init__(self, known=0.0, prediction_type="v_prediction"):
        super().__init__(
            ("a", "b"),
            (8, 8, 1),
            DenoiserModel(block_out_channels=(8, 16), prediction_type=prediction_type),
        )
        self.known, self.seen = torch.as_tensor(known), []

    def forward(self, noisy, timesteps, label_weights):
        self.seen.append((noisy, int(timesteps), label_weights))
        signal = self.noise_scheduler.alphas_cumprod[timesteps].sqrt()
        sigma = (1 - signal**2).sqrt()
        noise = (noisy - signal * self.known) / sigma
        return noise if self.settings.prediction_type == "epsilon" else signal * noise - sigma * self.known


@pytest.fixture(scope="module")
def untrained():
    return Denoiser(("a", "b"), (8, 8, 1), DenoiserModel(block_out_channels=(8, 16)))


def test_the_checkerboard_of_8_pixels_by_hand():
    rows = ["##..##..", "##..##..", "..##..##", "..##..##"] * 2
    assert ["".join(".#"[cell] for cell in row) for row in checkerboard(8)[0].int().tolist()] == rows


@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_its_two_masks_hide_every_pixel_once(size):
    masks = checkerboard(size)
    assert torch.equal(masks[0], ~masks[1]) and masks[0].float().mean() == 0.5


@pytest.mark.parametrize("size, block", [(8, 2), (16, 2), (32, 4), (64, 8)])
def test_its_blocks_are_an_eighth_of_the_image_and_2_pixels_at_least(size, block):
    assert checkerboard(size)[0, 0].tolist() == [column // block % 2 == 0 for column in range(size)]


@pytest.mark.parametrize("start", START_TIMESTEPS)
def test_the_noisy_image_is_the_image_and_noise_by_hand(untrained, start):
    signal = untrained.noise_scheduler.alphas_cumprod[start].item()
    noisy, _ = reconstruct(untrained, PIXELS[:4], NOISE[:4], start)
    assert_close(noisy, signal**0.5 * PIXELS[:4] + (1 - signal) ** 0.5 * NOISE[:4])


@pytest.mark.parametrize("start, steps", [(249, [249]), (499, [499, 249]), (999, [999, 749, 499, 249])])
def test_reconstruction_goes_down_the_time_steps_without_a_class(start, steps):
    denoiser = Knowing()
    reconstruct(denoiser, PIXELS[:4], NOISE[:4], start)
    assert [t for _, t, _ in denoiser.seen] == steps
    assert all(torch.equal(weights, torch.zeros(4, 2)) for _, _, weights in denoiser.seen)


def test_reconstruction_under_labels_shows_the_denoiser_those_at_each_step():
    denoiser, labels = Knowing(), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [1.0, 1.0]])
    reconstruct(denoiser, PIXELS[:4], NOISE[:4], 499, labels)
    assert len(denoiser.seen) == 2 and all(torch.equal(weights, labels) for _, _, weights in denoiser.seen)


def test_reconstruction_under_no_class_is_that_of_zero_weights(untrained):
    plain, zero, labelled = (
        reconstruct(untrained, PIXELS[:4], NOISE[:4], 499, weights)[1]
        for weights in (None, torch.zeros(4, 2), torch.eye(2).repeat(2, 1))
    )
    assert torch.equal(plain, zero) and not torch.equal(plain, labelled)


def test_the_start_time_steps_are_those_of_the_solver(untrained):
    denoiser = Knowing()
    inpaint(denoiser, PIXELS[:1], NOISE[:1], HIDDEN)
    steps = [t for _, t, _ in denoiser.seen]
    assert len(steps) == NUM_INFERENCE_STEPS and set(START_TIMESTEPS) <= set(steps)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon"])
@pytest.mark.parametrize("start", START_TIMESTEPS)
def test_a_denoiser_that_knows_the_images_reconstructs_them(start, prediction_type):
    denoiser = Knowing(PIXELS[:4], prediction_type)
    assert_close(reconstruct(denoiser, PIXELS[:4], NOISE[:4], start)[1], PIXELS[:4], rtol=0, atol=1e-4)


def test_a_denoiser_that_knows_the_images_repaints_them():
    repainted = inpaint(Knowing(PIXELS[:4]), PIXELS[:4], NOISE[:4], HIDDEN)
    assert_close(repainted, PIXELS[:4], rtol=0, atol=1e-4)


def test_inpainting_leaves_what_is_known(untrained):
    repainted = inpaint(untrained, PIXELS[:4], NOISE[:4], HIDDEN)
    assert torch.equal(repainted[..., ~HIDDEN], PIXELS[:4][..., ~HIDDEN])
    assert not torch.isclose(repainted[..., HIDDEN], PIXELS[:4][..., HIDDEN]).all()


def test_inpainting_never_sees_what_is_hidden(untrained):
    other = torch.where(HIDDEN, -PIXELS[:4], PIXELS[:4])
    first, second = (inpaint(untrained, images, NOISE[:4], HIDDEN) for images in (PIXELS[:4], other))
    assert torch.equal(first, second)


def test_inpainting_shows_the_known_part_noised_to_each_step():
    denoiser = Knowing()
    inpaint(denoiser, PIXELS[:4], NOISE[:4], HIDDEN)
    for noisy, t, _ in denoiser.seen:
        expected = denoiser.noise_scheduler.add_noise(PIXELS[:4], NOISE[:4], torch.tensor(t))
        assert_close(noisy[..., ~HIDDEN], expected[..., ~HIDDEN])


@every_score
def test_the_score_is_minus_the_mean_squared_error(score):
    # One known image for all: what is repaired is that image, in both scores and at every pixel.
    expected = -((PIXELS.double() - 0.3) ** 2).mean((1, 2, 3)).numpy()
    found = score(Knowing(0.3), IMAGES)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-4)


@every_score
def test_an_image_has_the_same_score_in_any_company(untrained, score):
    np.testing.assert_allclose(score(untrained, IMAGES[:3]), score(untrained, IMAGES)[:3], atol=1e-5)


@every_score
def test_the_noise_is_that_of_the_seed(untrained, score):
    first, same, other = (score(untrained, IMAGES[:3], seed) for seed in (0, 0, 1))
    assert np.array_equal(first, same) and not np.isclose(first, other).any()


@every_score
def test_equal_images_have_noise_of_their_own(untrained, score):
    assert len(set(score(untrained, np.repeat(IMAGES[:1], 5, axis=0)))) == 5


BAD = {
    "float": IMAGES / 255,
    "other size": np.zeros((2, 16, 16, 1), np.uint8),
    "channels first": IMAGES.transpose(0, 3, 1, 2),
    "no images": IMAGES[:0],
}


@every_score
@pytest.mark.parametrize("images", BAD.values(), ids=BAD.keys())
def test_images_that_are_not_the_denoisers_are_refused_on_one_line(untrained, score, images):
    with pytest.raises(InputError, match=r"expected uint8, N x 8 x 8 x 1$") as error:
        score(untrained, images)
    assert "\n" not in str(error.value)


@every_score
def test_the_shipped_denoiser_tells_digits_from_inverted_ones(score):
    denoiser = Denoiser.load(pretrained.FOLDER / "digits" / "denoiser")
    digits = datasets.load("digits", "val").images[:40]
    assert auroc(score(denoiser, digits), score(denoiser, 255 - digits)) > 0.99  # 1.0 of both
