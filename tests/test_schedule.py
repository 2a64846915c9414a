"""The noise schedule, without a network."""

import math
import subprocess
import sys

import pytest
import torch

from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.schedule import (
    SCHEDULERS,
    initial_noise,
    make_scheduler,
    noise_schedule,
)
from oodlib.errors import InputError
from oodlib.seeds import generator
from oodlib.settings import DenoiserModel

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # from inside diffusers


def test_it_needs_no_network_and_imports_no_diffusers():
    code = "import sys, oodlib.diffusion.schedule; print({'diffusers', 'oodlib.diffusion.denoiser'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_unknown_prediction_type_is_refused():
    with pytest.raises(
        InputError, match="prediction type 'x' is not known; choose one of v_prediction, epsilon"
    ):
        noise_schedule("x")


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


@pytest.mark.parametrize("name", ["ddim", "dpmsolver++", "unipc"])
def test_few_step_schedulers_start_at_the_last_time_step(name):
    scheduler = make_scheduler(noise_schedule(), name)
    scheduler.set_timesteps(5)
    assert scheduler.timesteps[0] == 999


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_take_the_denoisers_schedule_and_prediction_type(name, prediction_type):
    denoiser = Denoiser(
        ("a", "b"), (8, 8, 1), DenoiserModel(block_out_channels=(8, 16), prediction_type=prediction_type)
    )
    scheduler = make_scheduler(denoiser.noise_scheduler, name)
    assert scheduler.config.prediction_type == prediction_type
    assert torch.equal(scheduler.alphas_cumprod, denoiser.noise_scheduler.alphas_cumprod)
