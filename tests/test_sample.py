import diffusers
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.labels import pair_weights
from oodlib.diffusion.sample import denoise, guided, sample
from oodlib.diffusion.schedule import (
    PREDICTION_TYPES,
    SCHEDULERS,
    initial_noise,
    make_scheduler,
    noise_schedule,
)
from oodlib.errors import InputError
from oodlib.seeds import generator
from oodlib.settings import DenoiserModel

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # from inside diffusers

NAMES = ("a", "b", "c")
WEIGHTS = pair_weights([(0, 1), (0, 2), (1, 2), (2, 0)] * 4, 3)


@pytest.fixture(scope="module")
def denoiser():
    """A tiny, untrained denoiser."""
    return Denoiser(NAMES, (8, 8, 1), DenoiserModel(block_out_channels=(8, 16)))


def draw(denoiser, weights=WEIGHTS, **options):
    return sample(denoiser, weights, **{"num_inference_steps": 3, **options})


def grey_levels_apart(first, second):
    return np.abs(first.astype(int) - second.astype(int)).max()


def test_images_are_uint8_channels_last(denoiser):
    images = draw(denoiser)
    assert (images.dtype, images.shape) == (np.uint8, (16, 8, 8, 1))


def test_images_in_rgb_have_three_channels():
    rgb = Denoiser(NAMES, (16, 16, 3), DenoiserModel(block_out_channels=(8, 16)))
    assert draw(rgb, WEIGHTS[:2]).shape == (2, 16, 16, 3)


@pytest.mark.parametrize("init", ["normal", "uniform"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_an_image_does_not_depend_on_its_batch(denoiser, scheduler, init):
    alone = draw(denoiser, scheduler=scheduler, init=init, batch_size=1)
    together = draw(denoiser, scheduler=scheduler, init=init, batch_size=16)
    assert grey_levels_apart(alone, together) <= 1


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_sampling_twice_gives_the_same_images(denoiser, scheduler):
    assert np.array_equal(draw(denoiser, scheduler=scheduler), draw(denoiser, scheduler=scheduler))


def test_another_seed_gives_other_images(denoiser):
    assert grey_levels_apart(draw(denoiser, seed=0), draw(denoiser, seed=1)) > 20


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_equal_noise_and_equal_weights_give_equal_images(denoiser, scheduler):
    images = draw(denoiser, WEIGHTS[[0, 1, 0]], scheduler=scheduler, noise_index=[5, 5, 5])
    assert grey_levels_apart(images[0], images[2]) <= 1
    assert grey_levels_apart(images[0], images[1]) > 1


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_noise_index_picks_the_noise_of_that_image(denoiser, scheduler):
    picked = draw(denoiser, WEIGHTS[[9, 3]], scheduler=scheduler, noise_index=[9, 3])
    assert grey_levels_apart(picked, draw(denoiser, scheduler=scheduler)[[9, 3]]) <= 1


def test_noise_index_may_be_an_array(denoiser):
    index = np.array([9, 3])
    assert np.array_equal(
        draw(denoiser, WEIGHTS[:2], noise_index=index), draw(denoiser, WEIGHTS[:2], noise_index=[9, 3])
    )


def test_another_noise_index_gives_another_image(denoiser):
    images = draw(denoiser, WEIGHTS[[0, 0]], noise_index=[0, 1])
    assert grey_levels_apart(images[0], images[1]) > 20


def test_guidance_scale_1_is_no_guidance(denoiser):
    barely_guided = draw(denoiser, guidance_scale=1 + 1e-7)
    assert grey_levels_apart(draw(denoiser, guidance_scale=1), barely_guided) <= 1


def test_guidance_scale_0_is_unconditional(denoiser):
    unconditional = draw(denoiser, torch.zeros_like(WEIGHTS))
    assert grey_levels_apart(draw(denoiser, guidance_scale=0), unconditional) <= 1


def test_guidance_moves_on_from_unconditional_through_conditional(denoiser):
    # One DDIM step with v-prediction is linear in the prediction where nothing is clipped.
    seen = {}
    scheduler = diffusers.DDIMScheduler.from_config(denoiser.noise_scheduler.config, clip_sample=False)
    for scale in (0, 1, 3):
        draw(
            denoiser,
            scheduler=scheduler,
            num_inference_steps=1,
            guidance_scale=scale,
            on_step=lambda _, x, __, scale=scale: seen.update({scale: x}),
        )
    assert_close(seen[3] - seen[0], 3 * (seen[1] - seen[0]), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_sampling_is_the_plain_loop_of_diffusers(denoiser):
    scheduler = diffusers.DDIMScheduler.from_config(
        denoiser.noise_scheduler.config, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(3)
    x = initial_noise((1, 8, 8), [generator(7, "sampling", i) for i in range(16)])
    for t in scheduler.timesteps:
        x = scheduler.step(denoiser(x, t, WEIGHTS), t, x).prev_sample
    expected = ((x.clamp(-1, 1) / 2 + 0.5) * 255).round().permute(0, 2, 3, 1).numpy()
    assert grey_levels_apart(draw(denoiser, scheduler="ddim", seed=7), expected) <= 1


@pytest.mark.parametrize(
    "kind",
    [
        diffusers.DDIMScheduler,
        diffusers.DEISMultistepScheduler,
        diffusers.DPMSolverSinglestepScheduler,
        diffusers.EulerAncestralDiscreteScheduler,
        diffusers.EulerDiscreteScheduler,
        diffusers.HeunDiscreteScheduler,
        diffusers.PNDMScheduler,
    ],
)
def test_any_diffusers_scheduler_serves(denoiser, kind):
    scheduler = kind.from_config(denoiser.noise_scheduler.config)
    together = draw(denoiser, scheduler=scheduler, num_inference_steps=4)
    in_parts = draw(denoiser, scheduler=scheduler, num_inference_steps=4, batch_size=5)
    assert grey_levels_apart(together, in_parts) <= 1


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_on_step_is_called_with_the_noise_and_after_each_step(denoiser, scheduler, steps):
    calls = []
    draw(denoiser, scheduler=scheduler, num_inference_steps=steps, on_step=lambda *call: calls.append(call))
    assert [step for step, _, _ in calls] == list(range(steps + 1))


def test_first_on_step_sees_the_noise(denoiser):
    seen = []
    draw(denoiser, on_step=lambda _, x, __: seen.append(x), seed=3)
    noise = initial_noise(seen[0].shape[1:], [generator(3, "sampling", i) for i in range(len(seen[0]))])
    assert torch.equal(seen[0], noise)


def test_last_on_step_sees_the_images(denoiser):
    seen = []
    images = draw(denoiser, on_step=lambda _, x, __: seen.append(x))
    final = (seen[-1].clamp(-1, 1) + 1) * 127.5
    assert grey_levels_apart(images, final.round().permute(0, 2, 3, 1).numpy()) == 0


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_sampling_leaves_the_global_random_states(denoiser, scheduler):
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    draw(denoiser, scheduler=scheduler)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 1, 3)])
def test_label_weights_of_the_wrong_shape_are_refused(denoiser, shape):
    with pytest.raises(InputError, match="expected N x 3 classes"):
        draw(denoiser, torch.zeros(shape))


def test_unknown_scheduler_is_refused(denoiser):
    with pytest.raises(InputError, match="scheduler 'euler' is not known; choose one of ddpm, ddim"):
        draw(denoiser, scheduler="euler")


def test_label_embeddings_take_the_place_of_those_of_the_weights(denoiser):
    weights = torch.eye(3)
    embeddings = denoiser.label_embedding(weights).detach()
    options = dict(num_inference_steps=2, batch_size=2)
    ours = sample(denoiser, torch.zeros(3, 3), label_embeddings=embeddings, **options)
    assert np.array_equal(ours, sample(denoiser, weights, **options))
    assert not np.array_equal(ours, sample(denoiser, torch.zeros(3, 3), **options))


# The loop itself, which any callable serves.

IMAGE = torch.linspace(-1.5, 1.5, 64).view(1, 1, 8, 8)


def knowing(image, prediction_type="v_prediction"):
    """A `predict` that takes every image for the one it knows."""
    a = noise_schedule().alphas_cumprod

    def predict(x, t):
        signal, sigma = a[t.long()].sqrt(), (1 - a[t.long()]).sqrt()
        noise = (x - signal * image) / sigma
        return noise if prediction_type == "epsilon" else signal * noise - sigma * image

    return predict


def solver(name, steps=4, prediction_type="v_prediction"):
    schedule = noise_schedule(prediction_type)
    if name in SCHEDULERS:
        scheduler = make_scheduler(schedule, name)
    else:
        scheduler = getattr(diffusers, name).from_config(schedule.config)
    scheduler.set_timesteps(steps)
    return scheduler


def walk(predict, scheduler, *options):
    """All that `denoise` yields from noise 0 to 3."""
    random = [generator(0, "sampling", i) for i in range(4)]
    noise = initial_noise((1, 8, 8), random) * scheduler.init_noise_sigma
    return list(denoise(predict, scheduler, noise, *options, random=random))


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("name", [*SCHEDULERS, "EulerDiscreteScheduler", "HeunDiscreteScheduler"])
def test_the_predicted_clean_image_is_the_one_that_the_network_knows(name, prediction_type):
    # From noise alone an error of the noise counts 20,000 times.
    steps = walk(knowing(IMAGE, prediction_type), solver(name, 4, prediction_type))
    for _, _, clean in steps:
        assert_close(clean, IMAGE.expand(4, -1, -1, -1), rtol=0, atol=1e-2)


@pytest.mark.parametrize("name", SCHEDULERS)
@torch.no_grad()
def test_it_is_what_the_scheduler_makes_of_the_prediction(denoiser, name, monkeypatch):
    scheduler, theirs = solver(name), []
    step = scheduler.step

    def noting(*given, **options):
        done = step(*given, **options)
        theirs.append(
            done.pred_original_sample if "pred_original_sample" in done else scheduler.model_outputs[-1]
        )
        return done

    monkeypatch.setattr(scheduler, "step", noting)
    walked = walk(lambda x, t: 3 * denoiser(x, t, WEIGHTS[:4]), scheduler)
    for (_, _, clean), expected in zip(walked, theirs, strict=True):
        clips = expected.abs().max() <= 1
        assert_close(clean.clamp(-1, 1) if clips else clean, expected, rtol=1e-4, atol=1e-4)


def test_the_predicted_clean_image_is_not_clipped():
    assert walk(knowing(IMAGE), solver("ddim"))[0][2].max() > 1.4


@pytest.mark.parametrize("steps", [1, 5])
def test_steps_count_from_1(steps):
    assert [step for step, _, _ in walk(knowing(IMAGE), solver("unipc", steps))] == [*range(1, steps + 1)]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_what_is_done_before_a_step_is_what_the_network_sees_in_it(name):
    scheduler, seen, times = solver(name), [], []

    def predict(x, t):
        seen.append(x)
        return torch.zeros_like(x)

    def before_step(t, x):
        times.append(int(t))
        return torch.full_like(x, int(t))

    walk(predict, scheduler, before_step)
    assert times == scheduler.timesteps.tolist() and len(times) == 4
    assert all(torch.equal(x, torch.full_like(x, t)) for x, t in zip(seen, times, strict=True))


def test_guidance_by_hand():
    predict = guided(lambda x, t: x + t, lambda x, t: x - t, 3.0)
    assert predict(torch.tensor([10.0]), torch.tensor(2.0)).tolist() == [8 + 3 * (12 - 8)]


@torch.no_grad()
def test_on_step_is_given_what_the_loop_yields(denoiser):
    calls = []
    draw(denoiser, WEIGHTS[:4], scheduler="ddpm", on_step=lambda *call: calls.append(call))
    expected = walk(lambda x, t: denoiser(x, t, WEIGHTS[:4]), solver("ddpm", 3))
    assert calls[0][2] is None
    for call, yielded in zip(calls[1:], expected, strict=True):
        assert call[0] == yielded[0] and torch.equal(call[1], yielded[1]) and torch.equal(call[2], yielded[2])
