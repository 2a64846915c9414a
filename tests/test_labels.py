import math

import pytest
import torch
from torch.testing import assert_close

from oodlib.diffusion.labels import MIX_MODES, label_weights, pair_weights
from oodlib.errors import InputError


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
