import math

import diffusers
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.labels import MIX_MODES, label_weights, pair_weights
from oodlib.diffusion.sample import SCHEDULERS, initial_noise, make_scheduler, sample
from oodlib.errors import InputError
from oodlib.seeds import generator

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # from inside diffusers

NAMES = ("a", "b", "c")
WEIGHTS = pair_weights([(0, 1), (0, 2), (1, 2), (2, 0)] * 4, 3)


@pytest.fixture(scope="module")
def denoiser():
    """A tiny, untrained denoiser."""
    return Denoiser(NAMES, (8, 8, 1), block_out_channels=(8, 16))


def draw(denoiser, weights=WEIGHTS, **options):
    return sample(denoiser, weights, **{"num_inference_steps": 3, **options})


def grey_levels_apart(first, second):
    return np.abs(first.astype(int) - second.astype(int)).max()


@pytest.mark.parametrize(
    "mode, raw, expected",
    [
        ("sum", [1, 0, 0], [1, 0, 0]),
        ("sum", [1, 1, 0], [1, 1, 0]),
        ("sum", [0.2, 3, 0], [0.2, 3, 0]),
        ("convex", [1, 0, 0], [1, 0, 0]),
        ("convex", [1, 1, 0], [1 / 2, 1 / 2, 0]),
        ("convex", [1, 1, 1], [1 / 3, 1 / 3, 1 / 3]),
        ("convex", [1, 3, 0], [1 / 4, 3 / 4, 0]),
        ("slerp", [1, 0, 0], [1, 0, 0]),
        ("slerp", [1, 1, 0], [math.sqrt(1 / 2), math.sqrt(1 / 2), 0]),
        ("slerp", [1, 1, 1], [math.sqrt(1 / 3)] * 3),
        ("slerp", [2, 1, 0], [math.cos(math.pi / 6), math.sin(math.pi / 6), 0]),
        ("slerp", [3, 1, 0], [math.cos(math.pi / 8), math.sin(math.pi / 8), 0]),
    ],
)
def test_label_weights_by_hand(mode, raw, expected):
    assert_close(label_weights(torch.tensor(raw, dtype=torch.float32), mode), torch.tensor(expected).float())


RAW = torch.rand(20, 5, generator=torch.Generator().manual_seed(0))


def test_slerp_has_unit_norm():
    assert_close(label_weights(RAW, "slerp").norm(dim=1), torch.ones(20))


def test_convex_sums_to_1():
    assert_close(label_weights(RAW, "convex").sum(1), torch.ones(20))


@pytest.mark.parametrize("mode", ["convex", "slerp"])
def test_only_the_ratio_of_the_weights_counts(mode):
    assert_close(label_weights(7 * RAW, mode), label_weights(RAW, mode))


@pytest.mark.parametrize("mode", MIX_MODES)
def test_one_hots_stay_one_hots(mode):
    assert_close(label_weights(torch.eye(4), mode), torch.eye(4))


@pytest.mark.parametrize("mode", MIX_MODES)
def test_zeros_stay_zeros(mode):
    assert torch.equal(label_weights(torch.zeros(2, 4), mode), torch.zeros(2, 4))


@pytest.mark.parametrize("mode", MIX_MODES)
def test_order_of_classes_does_not_matter(mode):
    order = [3, 1, 4, 0, 2]
    assert_close(label_weights(RAW[:, order], mode), label_weights(RAW, mode)[:, order])


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", MIX_MODES)
def test_label_weights_that_are_no_weights_are_refused(mode, value):
    with pytest.raises(InputError, match="label weights must be finite and 0 or more"):
        label_weights(torch.tensor([[1.0, value]]), mode)


def test_unknown_mix_mode_is_refused():
    with pytest.raises(InputError, match="mix mode 'mask' is not known; choose one of sum, convex, slerp"):
        label_weights(torch.ones(1, 2), "mask")


def test_half_a_sum_is_the_papers_two_ones():
    assert torch.equal(pair_weights([(0, 2)], 3), torch.tensor([[1.0, 0.0, 1.0]]))


@pytest.mark.parametrize("mode", MIX_MODES)
@pytest.mark.parametrize("weight, label", [(0.0, 2), (1.0, 0)])
def test_ends_of_a_pair_are_one_hots(mode, weight, label):
    assert_close(pair_weights([(2, 0)], 3, mode, weight), torch.eye(3)[[label]])


@pytest.mark.parametrize(
    "mode, expected",
    [("sum", (1, 0.5)), ("convex", (0.75, 0.25)), ("slerp", (math.cos(math.pi / 8), math.sin(math.pi / 8)))],
)
def test_a_quarter_of_a_pair_by_hand(mode, expected):
    assert_close(pair_weights([(0, 1)], 2, mode, 0.25), torch.tensor([expected]).float())


@pytest.mark.parametrize("mode", MIX_MODES)
def test_exchanged_pair_with_exchanged_weight_is_the_same(mode):
    assert_close(pair_weights([(0, 1)], 3, mode, 0.3), pair_weights([(1, 0)], 3, mode, 0.7))


def test_each_pair_may_have_its_own_weight():
    weights = pair_weights([(0, 1), (1, 2)], 3, "convex", torch.tensor([0.25, 1.0]))
    assert_close(weights, torch.tensor([[0.75, 0.25, 0.0], [0.0, 0.0, 1.0]]))


@pytest.mark.parametrize("pair", [(1, 1), (0, 3), (-1, 0)])
def test_pair_of_equal_or_unknown_classes_is_refused(pair):
    with pytest.raises(InputError, match="a pair needs two distinct classes from 0 to 2"):
        pair_weights([(0, 1), pair], 3)


@pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan])
def test_mixing_weight_out_of_range_is_refused(weight):
    with pytest.raises(InputError):
        pair_weights([(0, 1)], 3, weight=weight)


def noise(init, count=400):
    return initial_noise((1, 16, 16), [generator(0, i) for i in range(count)], init)


@pytest.mark.parametrize("init", ["normal", "uniform"])
def test_initial_noise_has_mean_0_and_unit_variance(init):
    values = noise(init)
    assert values.mean().item() == pytest.approx(0, abs=0.01)
    assert values.var().item() == pytest.approx(1, abs=0.01)


def test_uniform_noise_lies_within_sqrt_3():
    assert noise("uniform").abs().max().item() == pytest.approx(math.sqrt(3), abs=1e-3)
    assert noise("uniform").abs().max() <= math.sqrt(3)


def test_normal_noise_has_the_tails_of_a_normal():
    assert (noise("normal").abs() > 2).float().mean().item() == pytest.approx(0.0455, abs=0.002)


def test_unknown_noise_is_refused():
    with pytest.raises(InputError, match="initial noise 'gauss' is not known; choose one of normal, uniform"):
        noise("gauss")


def test_images_are_uint8_channels_last(denoiser):
    images = draw(denoiser)
    assert (images.dtype, images.shape) == (np.uint8, (16, 8, 8, 1))


def test_images_in_rgb_have_three_channels():
    rgb = Denoiser(NAMES, (16, 16, 3), block_out_channels=(8, 16))
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
            on_step=lambda _, x, scale=scale: seen.update({scale: x}),
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
    assert [step for step, _ in calls] == list(range(steps + 1))


def test_first_on_step_sees_the_noise(denoiser):
    seen = []
    draw(denoiser, on_step=lambda _, x: seen.append(x), seed=3)
    noise = initial_noise(seen[0].shape[1:], [generator(3, "sampling", i) for i in range(len(seen[0]))])
    assert torch.equal(seen[0], noise)


def test_last_on_step_sees_the_images(denoiser):
    seen = []
    images = draw(denoiser, on_step=lambda _, x: seen.append(x))
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


@pytest.mark.parametrize("name", ["ddim", "dpmsolver++", "unipc"])
def test_few_step_schedulers_start_at_the_last_time_step(denoiser, name):
    scheduler = make_scheduler(denoiser, name)
    scheduler.set_timesteps(5)
    assert scheduler.timesteps[0] == 999


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_take_the_denoisers_schedule_and_prediction_type(name, prediction_type):
    denoiser = Denoiser(NAMES, (8, 8, 1), block_out_channels=(8, 16), prediction_type=prediction_type)
    scheduler = make_scheduler(denoiser, name)
    assert scheduler.config.prediction_type == prediction_type
    assert torch.equal(scheduler.alphas_cumprod, denoiser.noise_scheduler.alphas_cumprod)


def test_label_embeddings_take_the_place_of_those_of_the_weights(denoiser):
    weights = torch.eye(3)
    embeddings = denoiser.label_embedding(weights).detach()
    options = dict(num_inference_steps=2, batch_size=2)
    ours = sample(denoiser, torch.zeros(3, 3), label_embeddings=embeddings, **options)
    assert np.array_equal(ours, sample(denoiser, weights, **options))
    assert not np.array_equal(ours, sample(denoiser, torch.zeros(3, 3), **options))
