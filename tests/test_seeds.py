import numpy as np
import pytest
import torch

from oodlib.seeds import generator, initial_weights


def draw(*purpose, seed=0):
    return torch.rand(8, generator=generator(seed, *purpose)).tolist()


def test_same_purpose_has_the_same_stream():
    assert draw("noise", 17) == draw("noise", 17)


@pytest.mark.parametrize("purpose", [("order",), ("noise", 18), ("noise",), ("noise", 1, 7), ("noise", "17")])
def test_other_purpose_has_another_stream(purpose):
    assert draw(*purpose) != draw("noise", 17)


def test_other_seed_has_another_stream():
    assert draw("noise", seed=1) != draw("noise", seed=0)


def test_streams_of_a_hundred_purposes_are_uncorrelated():
    streams = np.array([torch.rand(500, generator=generator(0, "noise", i)).tolist() for i in range(100)])
    correlation = np.corrcoef(streams) - np.eye(100)
    assert np.abs(correlation).max() < 0.25


def test_stream_is_the_same_in_every_process():
    assert generator(0, "noise", 17).initial_seed() == 7858587658179786899


def test_generator_leaves_the_global_state():
    before = torch.get_rng_state()
    draw("noise")
    assert torch.equal(torch.get_rng_state(), before)


def first_weights(seed, what):
    with initial_weights(seed, what):
        return torch.nn.Linear(3, 2).weight.tolist()


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = first_weights(0, "detector")
    torch.manual_seed(2)
    assert first_weights(0, "detector") == first


@pytest.mark.parametrize("seed, what", [(1, "detector"), (0, "denoiser")])
def test_other_seed_or_other_model_has_other_initial_weights(seed, what):
    assert first_weights(seed, what) != first_weights(0, "detector")


def test_initial_weights_leave_the_global_state():
    before = torch.get_rng_state()
    first_weights(0, "detector")
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_weights_leave_the_global_state_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), initial_weights(0, "detector"):
        torch.rand(1)
        _ = 1 / 0
    assert torch.equal(torch.get_rng_state(), before)
