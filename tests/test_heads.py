import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import ArcFaceLoss, CosFaceLoss, SphereFaceLoss
from scipy.special import log_softmax, logsumexp
from scipy.stats import entropy

from oodlib.detection.heads import HEADS, AdaCosHead, make_head
from oodlib.detection.losses import uniform_cross_entropy
from oodlib.errors import InputError

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array_wrap__:DeprecationWarning"
)  # pytorch-metric-learning's

COSINE_HEADS = [name for name in HEADS if name not in ("softmax", "logit_norm")]
CLASS_ANGLES = np.radians([0.0, 70.0, 150.0, 280.0])
INNER_ANGLES = np.linspace(0.02, math.pi - 0.02, 15)
MARGINS = [("arcface", 0.3), ("arcface", 0.5), ("cosface", 0.35), ("sphereface", 1.5), ("sphereface", 4.0)]


def at_angles(angles, norm=1.0):
    """Vectors of a plane at these angles."""
    angles = torch.as_tensor(np.atleast_1d(angles), dtype=torch.float64)
    return (norm * torch.stack([angles.cos(), angles.sin()], 1)).float()


def plane_head(name, **options):
    """A head with four classes of a plane, so that a feature's angle is its angle to class 0."""
    head = make_head(name, 2, len(CLASS_ANGLES), **options)
    head.weight.data = at_angles(CLASS_ANGLES, norm=3.0)
    return head


def random_head(name, num_classes=5, num_features=6, **options):
    torch.manual_seed(0)
    return make_head(name, num_features, num_classes, **options)


def random_batch(count=12, num_classes=5, num_features=6):
    random = torch.Generator().manual_seed(1)
    return torch.randn(count, num_features, generator=random), torch.arange(count) % num_classes


def margin_by_hand(name, angle, margin):
    if name == "cosface":
        return math.cos(angle) - margin
    if name == "arcface":
        below = angle <= math.pi - margin
        return math.cos(angle + margin) if below else math.cos(angle) - margin * math.sin(margin)
    k = math.floor(margin * angle / math.pi)
    return (-1) ** k * math.cos(margin * angle) - 2 * k


def loss_by_hand(name, angle, scale, margin):
    logits = scale * np.cos(CLASS_ANGLES - angle)
    logits[0] = scale * margin_by_hand(name, angle, margin)
    return logsumexp(logits) - logits[0]


@pytest.mark.parametrize("angle", INNER_ANGLES)
@pytest.mark.parametrize("name, margin", MARGINS)
def test_loss_is_the_formula_by_hand(name, margin, angle):
    head = plane_head(name, scale=16.0, margin=margin)
    loss = head.loss(at_angles(angle, norm=5.0), torch.tensor([0])).item()
    assert loss == pytest.approx(loss_by_hand(name, angle, 16.0, margin), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("angle", [0.0, math.pi])
@pytest.mark.parametrize("name, margin", MARGINS)
def test_loss_at_the_ends_is_near_the_formula(name, margin, angle):
    head = plane_head(name, scale=16.0, margin=margin)
    loss = head.loss(at_angles(angle), torch.tensor([0])).item()
    assert loss == pytest.approx(loss_by_hand(name, angle, 16.0, margin), abs=0.05)


def metric_learning_twin(name, head):
    if name == "arcface":
        twin = ArcFaceLoss(len(CLASS_ANGLES), 2, margin=math.degrees(head.margin), scale=head.scale)
    else:
        kind = CosFaceLoss if name == "cosface" else SphereFaceLoss
        twin = kind(len(CLASS_ANGLES), 2, margin=head.margin, scale=head.scale)
    twin.W.data = head.weight.detach().T.clone()
    return twin


METRIC_LEARNING_MARGINS = [
    *(("arcface", margin) for margin in (0.1, 0.3, 0.5, 1.0)),
    *(("cosface", margin) for margin in (0.1, 0.35, 0.5)),
    *(("sphereface", margin) for margin in (1, 2, 3, 4)),
]


@pytest.mark.parametrize("label", range(4))
@pytest.mark.parametrize("name, margin", METRIC_LEARNING_MARGINS)
def test_loss_equals_pytorch_metric_learning(name, margin, label):
    head = plane_head(name, scale=8.0, margin=margin)
    features = at_angles(INNER_ANGLES)
    labels = torch.full((len(features),), label)
    expected = metric_learning_twin(name, head)(features, labels)
    torch.testing.assert_close(head.loss(features, labels), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name, margin", METRIC_LEARNING_MARGINS)
def test_gradient_equals_pytorch_metric_learning(name, margin):
    head = plane_head(name, scale=8.0, margin=margin)
    labels = torch.zeros(len(INNER_ANGLES), dtype=torch.long)
    gradients = []
    for loss in (head.loss, metric_learning_twin(name, head)):
        # On the circle whatever the features' norm: SphereFaceLoss multiplies its logits by it.
        angles = torch.tensor(INNER_ANGLES, requires_grad=True)
        loss(torch.stack([angles.cos(), angles.sin()], 1).float(), labels).backward()
        gradients.append(angles.grad)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["arcface", "cosface", "sphereface"])
def test_margin_raises_the_loss(name):
    features, labels = random_batch()
    with_margin = random_head(name).loss(features, labels)
    without = random_head(name, margin=1.0 if name == "sphereface" else 0.0).loss(features, labels)
    assert with_margin > without


@pytest.mark.parametrize("name", ["adacos", "arcface", "cosface", "sphereface"])
def test_margin_zero_makes_all_fixed_scale_cosine_heads_equal(name):
    features, labels = random_batch()
    scale = math.sqrt(2) * math.log(4)
    options = {} if name == "adacos" else {"scale": scale, "margin": 1.0 if name == "sphereface" else 0.0}
    head = random_head(name, **options)
    plain = F.cross_entropy(scale * F.normalize(features) @ F.normalize(head.weight).T, labels)
    torch.testing.assert_close(head.loss(features, labels), plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("margin", [1.0, 1.35, 1.5, 2.0, 3.0, 4.0])
def test_sphereface_psi_falls_all_the_way_from_0_to_pi(margin):
    cosine = torch.linspace(0.02, math.pi - 0.02, 400).cos()
    assert (random_head("sphereface", margin=margin).margin_cosine(cosine).diff() < 0).all()


@pytest.mark.parametrize("margin", [0.1, 0.3, 0.5, 1.0])
def test_arcface_falls_all_the_way_from_0_to_pi(margin):
    cosine = torch.linspace(0.02, math.pi - 0.02, 400).cos()
    assert (random_head("arcface", margin=margin).margin_cosine(cosine).diff() < 0).all()


@pytest.mark.parametrize("margin", [1.0, 1.5, 2.0, 2.5, 4.0])
def test_sphereface_psi_at_pi_is_its_last_branch(margin):
    psi = random_head("sphereface", margin=margin).margin_cosine(torch.tensor([-1.0])).item()
    assert psi == pytest.approx(margin_by_hand("sphereface", math.pi - 1e-9, margin), abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("angle", [0.0, math.pi])
@pytest.mark.parametrize("name", HEADS)
def test_loss_and_gradients_are_finite_at_angles_0_and_pi(name, angle, dtype):
    head = plane_head(name).to(dtype)
    features = at_angles([angle, angle]).to(dtype).requires_grad_()
    loss = head.loss(features, torch.tensor([0, 0]))
    loss.backward()
    tensors = [loss, features.grad, *(p.grad for p in head.parameters())]
    assert all(tensor.isfinite().all() for tensor in tensors)


@pytest.mark.parametrize("name, steepest", [("arcface", 250.0), ("cosface", 1.0), ("sphereface", 1100.0)])
def test_slope_of_the_margin_is_cut_next_to_angles_0_and_pi(name, steepest):
    # 1 + 1.2e-7 too, which the product of two normalised float32 vectors can reach.
    ends = 1 + torch.arange(-20, 2) * 2.0**-23
    cosine = torch.cat([ends, -ends]).requires_grad_()
    random_head(name).margin_cosine(cosine).sum().backward()
    assert cosine.grad.abs().max() <= steepest


@pytest.mark.parametrize("name", HEADS)
def test_bfloat16_features_have_float32_logits(name):
    features, _ = random_batch()
    assert random_head(name).logits(features.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("name, margin", [("arcface", 0.8), ("cosface", 0.8), ("sphereface", 4.0)])
def test_logits_are_margin_free(name, margin):
    features, _ = random_batch()
    head = random_head(name, scale=7.0, margin=margin)
    expected = 7.0 * F.normalize(features) @ F.normalize(head.weight).T
    torch.testing.assert_close(head.logits(features), expected)


@pytest.mark.parametrize("name", COSINE_HEADS)
def test_prediction_is_the_nearest_class_by_cosine(name):
    features, _ = random_batch()
    head = random_head(name).eval()
    nearest = (F.normalize(features) @ F.normalize(head.weight).T).argmax(1)
    assert torch.equal(head.logits(features).argmax(1), nearest)


@pytest.mark.parametrize("name", ["adacos", "arcface", "cosface", "sphereface"])
def test_length_of_features_does_not_change_a_fixed_scale_cosine_loss(name):
    features, labels = random_batch()
    head = random_head(name)
    torch.testing.assert_close(head.loss(100 * features, labels), head.loss(features, labels))


@pytest.mark.parametrize("name", COSINE_HEADS)
def test_length_of_class_weights_does_not_change_a_cosine_loss(name):
    features, labels = random_batch()
    head = random_head(name)
    before = head.loss(features, labels)
    head.weight.data *= 100
    torch.testing.assert_close(head.loss(features, labels), before)


def test_softmax_loss_is_cross_entropy_of_the_linear_map():
    features, labels = random_batch()
    head = random_head("softmax")
    head.bias.data = torch.arange(5.0)
    logits = features.double().numpy() @ head.weight.detach().double().numpy().T + np.arange(5.0)
    expected = -log_softmax(logits, 1)[np.arange(12), labels].mean()
    assert head.loss(features, labels).item() == pytest.approx(expected, rel=1e-5)


def test_logit_norm_trains_on_logits_of_length_1_over_its_temperature_and_is_used_without():
    features, labels = random_batch()
    head, plain = random_head("logit_norm", temperature=0.1), random_head("softmax")
    plain.load_state_dict(head.state_dict())
    logits = plain.logits(features)
    assert torch.equal(head.logits(features), logits)
    expected = -log_softmax((10 * F.normalize(logits)).detach().double().numpy(), 1)[
        np.arange(12), labels
    ].mean()
    assert head.loss(features, labels).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf])
def test_a_temperature_is_above_0(temperature):
    with pytest.raises(InputError, match=r"temperature is .*, expected a number above 0"):
        random_head("logit_norm", temperature=temperature)


@pytest.mark.parametrize("name", ["softmax", "logit_norm"])
def test_heads_without_normalised_features_are_scored_by_msp(name):
    assert random_head(name).default_score == "msp" and not random_head(name).is_normalised


@pytest.mark.parametrize("name", COSINE_HEADS)
def test_cosine_heads_are_scored_by_cosine(name):
    assert random_head(name).default_score == "cosine"


@pytest.mark.parametrize("name", HEADS)
def test_loss_falls_in_ten_steps(name):
    features, labels = random_batch(count=20)
    head = random_head(name)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    losses = []
    for _ in range(10):
        loss = head.loss(features, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_adacos_scale_is_3_1073_for_ten_classes():
    assert random_head("adacos", num_classes=10).scale.item() == pytest.approx(3.1073, abs=5e-5)


@pytest.mark.parametrize("num_classes", [3, 8, 100])
def test_adacos_scale_is_sqrt_2_ln_of_classes_less_one(num_classes):
    scale = random_head("adacos", num_classes=num_classes).scale.item()
    assert scale == pytest.approx(math.sqrt(2) * math.log(num_classes - 1), rel=1e-6)


def next_adacos_scale_by_hand(head, features, labels):
    weights = head.weight.detach().double().numpy()
    features = features.double().numpy()
    cosine = features @ weights.T
    cosine /= np.linalg.norm(features, axis=1)[:, None] * np.linalg.norm(weights, axis=1)
    is_label = np.eye(len(weights), dtype=bool)[labels.numpy()]
    others = np.where(is_label, 0, np.exp(head.scale.item() * cosine)).sum(1).mean()
    return math.log(others) / math.cos(min(math.pi / 4, np.median(np.arccos(cosine[is_label]))))


def test_dynamic_adacos_follows_the_formula_of_the_paper():
    features, labels = random_batch(count=11)
    head = random_head("adacos", dynamic=True)
    expected = next_adacos_scale_by_hand(head, features, labels)
    head.loss(features, labels)
    assert head.scale.item() == pytest.approx(expected, rel=1e-5)


def test_dynamic_adacos_uses_the_median_angle_where_it_is_below_a_quarter_of_pi():
    head = random_head("adacos", dynamic=True)
    labels = torch.arange(5)
    features = head.weight.detach() + 0.1 * random_batch(count=5)[0]
    expected = next_adacos_scale_by_hand(head, features, labels)
    head.loss(features, labels)
    assert head.scale.item() == pytest.approx(expected, rel=1e-5)


def test_dynamic_adacos_loss_uses_the_new_scale():
    features, labels = random_batch(count=11)
    head = random_head("adacos", dynamic=True)
    loss = head.loss(features, labels)
    torch.testing.assert_close(loss, F.cross_entropy(head.scale * head.cosine(features), labels))


def test_dynamic_adacos_keeps_its_scale_in_evaluation():
    features, labels = random_batch()
    head = random_head("adacos", dynamic=True).eval()
    before = head.scale.clone()
    head.loss(features, labels)
    assert torch.equal(head.scale, before)


def test_dynamic_adacos_stands_features_that_are_class_weights():
    # A float32 cosine of equal vectors may exceed 1 by a rounding error.
    head = random_head("adacos", num_classes=100, dynamic=True)
    head.loss(head.weight.detach(), torch.arange(100))
    assert head.scale.isfinite()


def test_fixed_adacos_keeps_its_scale_in_training():
    features, labels = random_batch()
    head = random_head("adacos").train()
    before = head.scale.clone()
    head.loss(features, labels)
    assert torch.equal(head.scale, before)


def test_dynamic_adacos_scale_is_in_the_state_dict():
    features, labels = random_batch()
    trained, fresh = (random_head("adacos", dynamic=True) for _ in range(2))
    trained.loss(features, labels)
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh.scale, trained.scale)


def test_scaled_cosine_starts_at_its_initial_scale():
    features, _ = random_batch()
    scale = random_head("scaled_cosine", initial_scale=6.0).train().learned_scale(features)
    assert scale.log().mean().exp().item() == pytest.approx(6.0, rel=1e-5)


def test_scaled_cosine_logits_are_learned_scale_times_cosine():
    features, _ = random_batch()
    head = random_head("scaled_cosine")
    lin, norm = head.scale_linear, head.scale_norm
    z = features @ lin.weight[0] + lin.bias
    scale = (norm.weight * (z - z.mean()) / (z.var(correction=0) + norm.eps).sqrt() + norm.bias).exp()
    torch.testing.assert_close(head.logits(features), scale[:, None] * head.cosine(features))


def test_scaled_cosine_evaluation_leaves_running_statistics():
    features, labels = random_batch()
    head = random_head("scaled_cosine").eval()
    before = copy.deepcopy(head.state_dict())
    head.loss(features, labels)
    assert all(torch.equal(tensor, before[name]) for name, tensor in head.state_dict().items())


def test_scaled_cosine_evaluation_uses_running_statistics():
    features, labels = random_batch()
    head = random_head("scaled_cosine").train()
    head.loss(3 * features, labels)
    scale_of_all = head.eval().learned_scale(features)
    torch.testing.assert_close(head.learned_scale(features[:1]), scale_of_all[:1])


def test_outlier_exposure_trains_the_scale_of_scaled_cosine_too():
    features, _ = random_batch()
    head = random_head("scaled_cosine").train()
    uniform_cross_entropy(head.logits(features)).backward()
    assert all(p.grad.abs().max() > 0 for p in (head.weight, head.scale_linear.weight, head.scale_norm.bias))


@pytest.mark.parametrize("name", [name for name in HEADS if name != "scaled_cosine"])
def test_logits_of_a_fixed_scale_do_not_depend_on_the_batch(name):
    features, _ = random_batch()
    head = random_head(name).train()
    torch.testing.assert_close(head.logits(features)[:1], head.logits(features[:1]))


@pytest.mark.parametrize("num_classes", [2, 8, 100])
@pytest.mark.parametrize("level", [-50.0, 0.0, 1000.0])
def test_uniform_cross_entropy_of_equal_logits_is_ln_of_classes(num_classes, level):
    loss = uniform_cross_entropy(torch.full((3, num_classes), level))
    assert loss.item() == pytest.approx(math.log(num_classes), abs=1e-4)


def test_uniform_cross_entropy_has_no_gradient_at_equal_logits():
    logits = torch.zeros(3, 8, requires_grad=True)
    uniform_cross_entropy(logits).backward()
    assert logits.grad.abs().max() < 1e-7


def test_uniform_cross_entropy_is_kl_from_uniform_plus_ln_of_classes():
    logits = random_batch()[0].double()
    kl = entropy(np.full((12, 6), 1 / 6), logits.softmax(1).numpy(), axis=1).mean()
    assert uniform_cross_entropy(logits).item() == pytest.approx(kl + math.log(6), rel=1e-12)


@pytest.mark.parametrize(
    "name, options, told",
    [
        ("arc", {}, "head 'arc' is not known; choose one of softmax, scaled_cosine, adacos, arcface"),
        ("softmax", {"scale": 16.0}, "unexpected keyword argument 'scale'"),
        ("adacos", {"margin": 0.3}, "unexpected keyword argument 'margin'"),
        ("arcface", {"scale": 0.0}, "scale is 0.0, expected a number above 0"),
        ("cosface", {"scale": -1.0}, "scale is -1.0"),
        ("sphereface", {"scale": math.nan}, "scale is nan"),
        ("scaled_cosine", {"initial_scale": 0.0}, "scale is 0.0"),
        ("arcface", {"margin": -0.1}, "margin is -0.1, expected 0 or more"),
        ("cosface", {"margin": math.nan}, "margin is nan"),
        ("sphereface", {"margin": 0.9}, "margin is 0.9; SphereFace multiplies the angle by it"),
        ("arcface", {"margin": "wide"}, "head 'arcface'"),
    ],
)
def test_bad_head_is_told_on_one_line(name, options, told):
    with pytest.raises(InputError) as error:
        make_head(name, 4, 5, **options)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_adacos_refuses_two_classes():
    with pytest.raises(InputError, match="needs 3 classes, not 2"):
        AdaCosHead(4, 2)


def test_input_error_shows_in_a_notebook_without_a_traceback():
    assert InputError("no such head")._render_traceback_() == ["InputError: no such head"]
