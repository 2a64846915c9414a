"""Which network a detector was made of, and how it runs without a change to it."""

import copy

import pytest
import torch
from PIL import Image
from torch import nn

from oodlib.classifier.identity import fingerprint_network
from oodlib.detection.detector import Detector
from oodlib.errors import InputError
from oodlib.seeds import initial_weights

IMAGES = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
PAIRS = [(image, i % 3) for i, image in enumerate(IMAGES)]


class Net(nn.Module):
    """A small network with what tells one network from another beside its weights."""

    def __init__(self, activation=nn.ReLU, mean=0.0):
        super().__init__()
        with initial_weights(0, "a network of one's own"):
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), activation())
            self.fc, self.side = nn.Linear(6, 3), nn.Linear(6, 3)
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.follow, self.kept = lambda x: x, None

    def forward(self, images):
        features = self.body(images - self.mean)
        self.side(features.neg())
        return self.follow(self.fc(features))


def detector_of(network, layer="fc", **options):
    return Detector.from_classifier(network, layer, transform=lambda p: IMAGES[0], workers=0, **options)


CHANGES = {
    "an activation": lambda net: setattr(net, "body", nn.Sequential(*net.body[:2], nn.GELU())),
    "a buffer that is not saved": lambda net: net.mean.add_(0.3),
    "a weight": lambda net: net.fc.bias.data.add_(1),
    "a setting of a layer": lambda net: setattr(net.body[0], "start_dim", 0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_network_that_does_something_else_is_refused_by_a_saved_detector(change, tmp_path):
    net = Net()
    detector = detector_of(net).fit(PAIRS, val=PAIRS)
    detector.save(tmp_path)
    transform = detector.transform
    Detector.load(tmp_path, network=Net(), transform=transform)
    change(net)
    with pytest.raises(InputError, match=r"Net has other weights, buffers or layers than the .*Net that"):
        Detector.load(tmp_path, network=net, transform=transform)
    with pytest.raises(InputError, match="than when the detector was made"):
        detector.predict(IMAGES)


@pytest.mark.parametrize("other", [{"network": Net(nn.GELU)}, {"layer": "side"}])
def test_kept_features_are_those_of_the_network_and_the_layer(other, tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "a" / "0.png")
    options = {"network": Net(), "layer": "fc"}
    first = detector_of(**options, cache=tmp_path / "cache").all_features(tmp_path / "a")
    options = options | other
    if options["layer"] == "side":
        options["network"].forward = lambda x: options["network"].side(options["network"].body(x).neg())
    second = detector_of(**options, cache=tmp_path / "cache").all_features(tmp_path / "a")
    assert torch.equal(second, detector_of(**options).all_features(tmp_path / "a"))
    assert not torch.equal(first, second)


def test_a_function_that_is_printed_with_its_address_changes_nothing():
    one, two = Net(), Net()
    for net in (one, two):
        net.extra_repr = object.__repr__.__get__(net)
    assert repr(one) != repr(two) and fingerprint_network(one) == fingerprint_network(two)


def test_state_that_is_no_tensor_is_passed_over():
    class WithState(Net):
        def get_extra_state(self):
            return {"epoch": 3}

    detector_of(WithState()).fit(PAIRS, val=PAIRS)


# Wrapped networks.


def compiled(net):
    return torch.compile(net, backend="eager")


def compiled_in_place(net):
    net.compile(backend="eager")
    return net


def compiled_inside(net):
    net.body = compiled(net.body)
    net.fc = compiled(net.fc)
    return net


WRAPPED = [
    nn.DataParallel, compiled, compiled_in_place, compiled_inside,
    lambda net: compiled(nn.DataParallel(net)), lambda net: nn.DataParallel(compiled(net)),
]  # fmt: skip


@pytest.mark.parametrize("wrap", WRAPPED)
@pytest.mark.parametrize("layer", ["fc", "module._orig_mod.fc"])
def test_wrappers_in_any_nesting_are_seen_through_even_after_they_ran(wrap, layer):
    net = wrap(Net())
    with torch.no_grad():
        net(IMAGES)
    torch.testing.assert_close(
        detector_of(net, layer).all_features(IMAGES), detector_of(Net()).all_features(IMAGES)
    )


def test_a_wrapped_network_is_the_network_within():
    net = Net()
    assert fingerprint_network(compiled(nn.DataParallel(net))) == fingerprint_network(net)


def test_a_layer_whose_name_is_exact_goes_before_one_in_a_wrapper(capsys):
    net = Net()
    net.module = nn.ModuleDict({"fc": nn.Linear(6, 3)})
    net._modules = {"module": net.module, **net._modules}
    assert detector_of(net).backbone.layer == "fc"
    assert detector_of(net, "module.fc").backbone.layer == "module.fc"


# How it runs.


@pytest.mark.parametrize("follow", [lambda x: 1.01 * x, lambda x: x + torch.tensor([0, 0.01, 0.02])])
def test_logits_that_are_a_little_other_are_refused_in_single_precision(follow):
    net = Net()
    net.follow = follow
    with pytest.raises(InputError, match="give the network without that"):
        detector_of(net).all_features(IMAGES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_logits_are_taken_with_the_rounding_of_their_precision(dtype):
    assert detector_of(Net().to(dtype)).all_features(IMAGES).dtype == torch.float32


def test_logits_of_a_network_that_computes_in_sixteen_bits_by_itself_are_taken():
    net = Net()
    forward = net.forward
    net.forward = torch.autocast("cpu", torch.bfloat16)(lambda images: forward(images).float())
    detector_of(net).all_features(IMAGES)


def test_what_a_network_keeps_can_be_trained_with_afterwards():
    class Keeping(Net):
        def forward(self, images):
            if self.kept is None:
                self.kept = torch.full((1, 1, 4, 4), 0.5)
            return super().forward(images * self.kept)

    net = Keeping()
    detector = detector_of(net).fit(PAIRS, val=PAIRS)
    net.kept = None
    detector.predict(IMAGES)
    images = torch.rand(2, 1, 4, 4, requires_grad=True)
    net(images).sum().backward()
    assert images.grad is not None


def test_images_that_a_network_changes_in_place_stay_as_they_were():
    net = Net()
    net.body.insert(0, nn.ReLU(inplace=True))
    images = IMAGES - 0.5
    before = copy.deepcopy(images)
    with torch.inference_mode():
        detector_of(net).all_features(images.clone())
    detector_of(net).all_features(images)
    assert torch.equal(images, before)


def test_one_image_that_a_network_takes_for_a_batch_is_told():
    class Pooling(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(1, 3)

        def forward(self, images):
            return self.fc(images.mean((-2, -1)))

    detector = detector_of(Pooling())
    detector.all_features(IMAGES)
    with pytest.raises(
        InputError, match=r"has shape \(1,\) for a batch of shape \(1, 4, 4\).*give images\[None\]"
    ):
        detector.all_features(IMAGES[0])
