"""Virtual outliers: where in feature space they are drawn."""

import math

import pytest
import torch

from oodlib.detection.vos import VirtualOutliers


@pytest.fixture
def virtual():
    """Two classes of 200 features about (0, 0) and (10, 0), narrow in x and wide in y."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 2
    features = torch.randn(400, 2, generator=random) * torch.tensor([0.1, 1.0])
    features[:, 0] += 10 * labels
    virtual = VirtualOutliers(2, memory=400)
    virtual.remember(features, labels)
    return virtual


def distance(virtual, points):
    """Mahalanobis distance to the nearest class."""
    means = torch.stack([virtual.features[virtual.labels == c].mean(0) for c in (0, 1)])
    centred = virtual.features - means[virtual.labels]
    inverse = torch.linalg.inv(centred.T @ centred / len(centred))
    apart = points[:, None] - means
    return torch.einsum("nci,ij,ncj->nc", apart, inverse, apart).min(1).values.sqrt()


def test_they_lie_further_out_than_nearly_all_features(virtual):
    drawn = virtual.draw(100, torch.Generator().manual_seed(0))
    assert drawn.shape == (100, 2)
    assert distance(virtual, drawn).min() > distance(virtual, virtual.features).quantile(0.8)
    assert distance(virtual, drawn).median().item() == pytest.approx(math.sqrt(2 * math.log(100)), abs=0.4)


def test_they_keep_the_shape_of_the_classes(virtual):
    drawn = virtual.draw(200, torch.Generator().manual_seed(0))
    of_first = drawn[drawn[:, 0] < 5]
    assert 60 < len(of_first) < 140
    assert of_first[:, 1].std() > 5 * of_first[:, 0].std()


def test_there_are_none_until_the_memory_is_full():
    virtual = VirtualOutliers(2, memory=6)
    virtual.remember(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
    assert virtual.draw(5, torch.Generator()).shape == (0, 3)
    virtual.remember(torch.randn(2, 3), torch.tensor([0, 1]))
    assert virtual.draw(5, torch.Generator()).shape == (5, 3)


def test_there_are_none_while_a_class_is_missing():
    virtual = VirtualOutliers(3, memory=4)
    virtual.remember(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
    assert not len(virtual.draw(5, torch.Generator()))


def test_it_forgets_the_oldest_and_keeps_no_gradient():
    virtual = VirtualOutliers(2, memory=3)
    virtual.remember(torch.arange(4.0)[:, None].requires_grad_(), torch.tensor([0, 1, 0, 1]))
    assert virtual.features[:, 0].tolist() == [1, 2, 3] and virtual.labels.tolist() == [1, 0, 1]
    assert not virtual.features.requires_grad


def test_its_state_goes_to_another(virtual):
    other = VirtualOutliers(2, memory=400)
    other.load_state_dict(virtual.state_dict())
    draws = [v.draw(7, torch.Generator().manual_seed(1)) for v in (virtual, other)]
    assert torch.equal(*draws)
