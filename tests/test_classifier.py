"""A detector around a trained network of one's own."""

import copy
import json
import os
import re

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from pytorch_ood.detector import EnergyBased, MaxSoftmax
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.transforms import v2

from oodlib import datasets
from oodlib.classifier.network import find_layer
from oodlib.classifier.validation import tell_accuracy
from oodlib.detection.detector import Detector
from oodlib.detection.scores import SCORES
from oodlib.errors import InputError
from oodlib.seeds import initial_weights

DIGITS = datasets.id_splits(datasets.loading.Data())
NAMES = list("01234567")
TRANSFORM = v2.Compose([v2.Grayscale(), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])


def tensors(images):
    return torch.tensor(images).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def trained():
    """A small network that tells the eight digits apart."""
    with initial_weights(0, "a network of one's own"):
        net = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 8)),
        )
        images, labels = tensors(DIGITS.train.images), torch.tensor(DIGITS.train.labels)
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(40):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()
    return net.eval()


@pytest.fixture
def network(trained):
    return copy.deepcopy(trained)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The digits as folders of PNGs, some OOD sets, and a darker test set."""
    root = tmp_path_factory.mktemp("images")
    for split, images in zip(datasets.SPLITS, DIGITS, strict=True):
        for i, (image, label) in enumerate(zip(images.images, images.labels, strict=True)):
            save(image, root / split / NAMES[label] / f"{i:04}.png")
            if split == "test":
                save(image * 0.6, root / "dark" / NAMES[label] / f"{i:04}.png")
    for name in ("held_out", "letters"):
        for i, image in enumerate(datasets.load(name).images[:100]):
            save(image, root / name / f"{i:04}.png")
    return root


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[..., 0].astype(np.uint8)).save(path)


def detector_of(network, **options):
    return Detector.from_classifier(
        network, **{"class_names": NAMES, "transform": TRANSFORM, "workers": 0} | options
    )


@pytest.fixture
def fitted(network, folders):
    return detector_of(network).fit(folders / "train", val=folders / "val")


@pytest.fixture(scope="module")
def report(trained, folders):
    detector = detector_of(trained).fit(folders / "train", val=folders / "val")
    sets = dict(near=folders / "held_out", far=[folders / "letters"], shifted=folders / "dark")
    return detector.evaluate(folders / "test", **sets)


# The network stays the user's.


def test_the_only_layer_that_fits_is_taken_and_named(network, capsys):
    detector = detector_of(network)
    assert detector.backbone.layer == "5"
    assert capsys.readouterr().out == "features are what goes into layer '5': 256 to 8\n"


def test_logits_are_the_network_s(network):
    images = tensors(DIGITS.test.images[:9])
    torch.testing.assert_close(detector_of(network).outputs(images).logits, network(images).detach())


def test_the_network_is_left_as_it_was(network, folders):
    network.train()
    network[1].eval()
    network.to(memory_format=torch.channels_last)
    before = copy.deepcopy(network.state_dict())
    detector_of(network).fit(folders / "val", val=folders / "val").predict(tensors(DIGITS.test.images[:3]))
    assert network[0].training and not network[1].training
    assert network[0].weight.stride() == before["0.weight"].stride()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not network[5]._forward_hooks


def test_a_network_in_half_precision_is_given_half_precision(network):
    detector = detector_of(network.bfloat16())
    outputs = detector.outputs(tensors(DIGITS.test.images[:3]))
    assert outputs.logits.dtype == torch.float32 and network[0].weight.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit_b_16", "densenet121"])
def test_networks_of_torchvision_are_taken_as_they_are(name):
    with initial_weights(0, "a network of one's own"):
        network = torchvision.models.get_model(name, num_classes=12).eval()
    size = 224 if name == "vit_b_16" else 64
    images = torch.rand(2, 3, size, size)
    detector = Detector.from_classifier(network, transform=TRANSFORM, class_names=list("abcdefghijkl"))
    with torch.inference_mode():
        torch.testing.assert_close(detector.outputs(images).logits, network(images), rtol=1e-4, atol=1e-5)


class Followed(nn.Module):
    """A network and what is done with its logits."""

    def __init__(self, network, follow):
        super().__init__()
        self.network, self.follow = network, follow

    def forward(self, images):
        return self.follow(self.network(images))


@pytest.mark.parametrize("pack", [lambda x: (x, 2 * x), lambda x: {"logits": x}, lambda x: [x]])
def test_logits_may_come_in_a_tuple_or_mapping(network, pack):
    images = tensors(DIGITS.test.images[:3])
    detector = detector_of(Followed(network, pack))
    torch.testing.assert_close(detector.outputs(images).logits, network(images).detach())


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        ([nn.Flatten()], {}, "the network has no linear layer, whose input would be the features"),
        ([nn.Flatten(), nn.Linear(64, 9)], {}, r"no linear layer with 8 outputs.*; name one by layer=, of 1 \("),
        ([nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 8)], {}, r"2 linear layers .*1 \(64 to 8\), 2 \(8 to 8\)"),
        ([nn.Flatten(), nn.Linear(64, 8)], {"layer": "fc"}, r"layer 'fc' is no linear layer; choose one of 1 \("),
        ([nn.Flatten(), nn.Linear(64, 9)], {"layer": "1"}, "layer '1' has 9 outputs, expected one with 8 outputs"),
    ],
)  # fmt: skip
def test_a_layer_that_cannot_be_told_is_asked_for_in_one_line(layers, options, message):
    with pytest.raises(InputError, match=message):
        detector_of(nn.Sequential(*layers), **options)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Flatten(), nn.Linear(64, 8), nn.Softmax(1)], "the network does not give .* of layer '1': name another"),
        ([nn.Linear(8, 8), nn.Flatten(), nn.ReLU()], r"into layer '0' has shape \(3, 1, 8, 8\) for a .*, expected"),
        ([nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(256, 8)], r"cannot take a batch of shape \(3, 1, 8, 8\)"),
        ([nn.Flatten(), nn.BatchNorm1d(64, eps=float("nan")), nn.Linear(64, 8)], "features are NaN or infinite"),
    ],
)  # fmt: skip
def test_a_network_that_does_not_fit_is_told_at_its_first_batch(layers, message):
    with pytest.raises(InputError, match=message) as error:
        detector_of(nn.Sequential(*layers)).outputs(tensors(DIGITS.test.images[:3]))
    assert len(str(error.value).splitlines()) == 1


def test_a_layer_without_bias_is_a_cosine_classifier_s(network):
    network[5] = nn.Linear(256, 8, bias=False)
    assert detector_of(network).own_score == "cosine"


def test_other_weights_afterwards_are_told(fitted, network):
    with torch.no_grad():
        network[5].bias.add_(1)
    with pytest.raises(
        InputError, match="the network has other weights, buffers or layers than when the detector was made"
    ):
        fitted.predict(tensors(DIGITS.test.images[:3]))


# Images of any form.


class Pairs(Dataset):
    """Images and labels as data sets of torchvision give them."""

    def __init__(self, images, labels=None, as_picture=True):
        self.images, self.labels, self.as_picture = images, labels, as_picture

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = (
            Image.fromarray(self.images[index, ..., 0]) if self.as_picture else tensors(self.images)[index]
        )
        return image if self.labels is None else (image, self.labels[index])


def forms(images, labels):
    pictures = [Image.fromarray(image[..., 0]) for image in images]
    return {
        "array": images,
        "grey array": images[..., 0],
        "tensor": tensors(images),
        "pictures": pictures,
        "data set of pictures": Pairs(images),
        "data set of pairs": Pairs(images, labels),
        "data set of tensors": Pairs(images, labels, as_picture=False),
        "loader": DataLoader(TensorDataset(tensors(images), torch.tensor(labels)), batch_size=5),
        "loader of images": DataLoader(tensors(images), batch_size=5),
    }  # fmt: skip


@pytest.mark.parametrize("form", forms(DIGITS.test.images[:1], DIGITS.test.labels[:1]))
def test_images_of_any_form_have_equal_features(network, form):
    detector, (images, labels, _) = detector_of(network), DIGITS.test
    given = forms(images[:12], labels[:12])[form]
    torch.testing.assert_close(detector.all_features(given), detector.all_features(tensors(images[:12])))


def test_a_folder_is_read_in_the_order_of_its_names(network, folders):
    features = detector_of(network).all_features(folders / "letters")
    expected = detector_of(network).all_features(datasets.load("letters").images[:100])
    torch.testing.assert_close(features, expected)


def test_processes_read_the_same(network, folders):
    one, two = (detector_of(network, workers=workers).all_features(folders / "letters") for workers in (0, 2))
    assert torch.equal(one, two)


class Endless(torch.utils.data.IterableDataset):
    """Twelve images, of which nothing says how many they are."""

    def __iter__(self):
        return iter(zip(tensors(DIGITS.test.images[:12]), DIGITS.test.labels[:12].tolist(), strict=True))


def test_a_loader_that_does_not_know_its_length_is_read_to_the_end(network):
    features = detector_of(network).all_features(DataLoader(Endless(), batch_size=5))
    torch.testing.assert_close(features, detector_of(network).all_features(tensors(DIGITS.test.images[:12])))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read_is_one_line(network, tmp_path, workers):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"^image .*a\.png cannot be read \(cannot identify.*$"):
        detector_of(network, workers=workers).all_features(tmp_path)


def test_pictures_come_upright_and_opaque_to_the_transform(network, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGBA", (4, 8), (9, 9, 9, 0)).save(tmp_path / "a.png", exif=exif)
    seen = []
    detector_of(network, transform=lambda p: seen.append(p) or torch.zeros(1, 8, 8)).all_features(tmp_path)
    picture = seen[-1]
    assert (picture.mode, picture.size, picture.getpixel((0, 0))) == ("RGB", (8, 4), (255, 255, 255))


def test_without_a_transform_a_line_says_what_is_done(network, capsys):
    detector = detector_of(network, transform=None)
    assert "no transform: pictures become RGB in [0, 1] at their own size" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"cannot take a batch of shape \(1, 3, 8, 8\)"):
        detector.all_features(DIGITS.test.images[:1])


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (DIGITS.test.images[:0], {}, r"an array of uint8 of shape \(0, 8, 8, 1\), expected uint8"),
        (DIGITS.test.images[:3] / 255, {}, "an array of float64"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), {}, "a tensor of torch.uint8; give floats, transformed"),
        ([], {}, "the images are list; expected a folder"),
        (["a.png"], {}, "image 0 is a str, expected a PIL image or a tensor"),
        (7, {}, "the images are int"),
        ("nowhere", {}, "nowhere is not a folder"),
        ([Image.new("L", (8, 8))], {"transform": np.asarray}, "the transform gives a ndarray, expected a tensor"),
        ([Image.new("L", (8, 8)), Image.new("L", (9, 8))], {}, "images of shapes .* and .*; crop or resize in it"),
    ],
)  # fmt: skip
def test_what_are_no_images_is_told_in_one_line(network, images, options, message):
    with pytest.raises(InputError, match=message) as error:
        detector_of(network, **options).all_features(images)
    assert len(str(error.value).splitlines()) == 1


# Features are computed once.


def counted(network):
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_features_of_a_folder_are_computed_once(network, folders):
    calls, detector = counted(network), detector_of(network)
    first = detector.all_features(folders / "letters")
    count = len(calls)
    assert torch.equal(detector.all_features(folders / "letters"), first) and len(calls) == count == 2


def test_features_in_a_cache_outlive_the_detector(network, folders, tmp_path):
    first = detector_of(network, cache=tmp_path).all_features(folders / "letters")
    calls = counted(network)
    assert torch.equal(detector_of(network, cache=tmp_path).all_features(folders / "letters"), first)
    assert not calls


@pytest.mark.parametrize("change", ["weights", "files", "transform", "damage"])
def test_features_of_anything_else_are_computed_again(network, folders, tmp_path, change):
    some = tmp_path / "some"
    save(DIGITS.test.images[0], some / "a.png")
    cache = tmp_path / "cache"
    detector_of(network, cache=cache).all_features(some)
    options = {}
    if change == "weights":
        network[0].weight.data.add_(0.1)
    elif change == "files":
        save(DIGITS.test.images[1], some / "b.png")
    elif change == "transform":
        options = {"transform": v2.Compose([TRANSFORM, v2.Normalize([0.5], [0.5])])}
    else:
        (file,) = cache.iterdir()
        file.write_bytes(file.read_bytes()[:50])
    calls = counted(network)
    detector_of(network, cache=cache, **options).all_features(some)
    assert calls


# Fitting.


def test_thresholds_keep_the_share_of_validation_images_that_is_asked_for(fitted, folders):
    kept = {
        name: (values >= fitted.thresholds[name]).mean()
        for name, values in fitted.all_scores(folders / "val").items()
    }
    assert list(kept) == list(SCORES) and all(0.95 <= share < 0.98 for share in kept.values())


def test_training_images_do_not_reach_the_thresholds_of_scores_without_statistics(network, folders):
    one, two = (
        detector_of(network).fit(train, val=folders / "val")
        for train in (folders / "train", folders / "test")
    )
    assert one.thresholds["msp"] == two.thresholds["msp"] and one.thresholds["knn"] != two.thresholds["knn"]


def test_the_accuracy_on_validation_images_is_told_first(network, folders, capsys):
    detector = detector_of(network)
    capsys.readouterr()
    detector.fit(folders / "train", val=folders / "val")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("accuracy on 216 validation images: 9")


def test_names_in_another_order_are_told_with_the_order_that_fits(network, folders, capsys):
    detector = detector_of(network, class_names=[*NAMES[1:], NAMES[0]])
    detector.fit(folders / "train", val=folders / "val")
    line = capsys.readouterr().out.splitlines()[-1]
    assert "hardly better than chance" in line and "in the order 0, 1, 2, 3, 4, 5, 6, 7 (accuracy 9" in line


def test_a_network_that_has_learnt_nothing_is_told_from_names_in_another_order(network, folders, capsys):
    network[5].reset_parameters()
    network[0].weight.data.zero_()
    detector_of(network).fit(folders / "train", val=folders / "val")
    assert "no other order of the names fits much better" in capsys.readouterr().out.splitlines()[-1]


def test_too_few_validation_images_are_told_with_what_they_promise(network, capsys):
    some = np.concatenate([np.flatnonzero(DIGITS.val.labels == c)[:2] for c in range(8)])
    val = Pairs(DIGITS.val.images[some], DIGITS.val.labels[some])
    detector_of(network).fit(Pairs(*DIGITS.train[:2]), val=val)
    assert (
        "16 validation images can promise that 94.1% of ID images are kept, not 95.0%"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (DIGITS.train.images, None, "the training images have no labels"),
        (
            None,
            Pairs(DIGITS.val.images[:9], np.arange(9)),
            "image 8 of the validation images is 8, expected 0 to 7",
        ),
        (None, Pairs(DIGITS.val.images[:4], np.arange(4)), "no validation images of '4', '5', '6', '7'"),
        (Pairs(DIGITS.val.images[:4], np.arange(4)), None, "no training images of '4', '5', '6', '7'"),
    ],
)
def test_labels_that_do_not_fit_are_told_in_one_line(network, train, val, message):
    train = Pairs(*DIGITS.train[:2]) if train is None else train
    val = Pairs(*DIGITS.val[:2]) if val is None and "validation" not in message else val
    val = DIGITS.val.images if val is None else val
    with pytest.raises(InputError, match=message):
        detector_of(network).fit(train, val=val)


def test_a_class_that_a_folder_lacks_is_told_before_the_network_runs(network, folders, tmp_path):
    calls = counted(network)
    for name in NAMES[:7]:
        save(DIGITS.val.images[0], tmp_path / name / "a.png")
    with pytest.raises(InputError, match="there are no validation images of '7'"):
        detector_of(network).fit(folders / "train", val=tmp_path)
    assert not calls


def test_scores_are_those_of_pytorch_ood(fitted, network, folders):
    images = tensors(DIGITS.test.images[:50])
    ours = fitted.all_scores(images)
    for name, peer in (("msp", MaxSoftmax(network)), ("energy", EnergyBased(network))):
        theirs = -peer.predict(images).detach().numpy()
        np.testing.assert_allclose(np.exp(ours[name]) if name == "msp" else ours[name], theirs, atol=1e-4)


# Evaluation.


def test_a_report_has_every_score_on_every_set(report):
    assert [(s, r) for s, r in report.sets.groupby("score", sort=False).size().items()] == [
        (name, 4) for name in SCORES
    ]
    assert report.sets["title"].unique().tolist() == ["ID test", "dark", "held_out", "letters"]
    assert report.scores.groupby("set").size().to_dict() == {
        "id_test": 361,
        "dark": 361,
        "held_out": 100,
        "letters": 100,
    }


def test_intervals_hold_their_auroc(report):
    ood = report.sets[report.sets["role"].isin(["near", "far"])]
    assert (
        (ood["low"] < ood["auroc"]) & (ood["auroc"] < ood["high"]) & (ood["high"] - ood["low"] < 0.2)
    ).all()


def test_shifted_images_have_false_alarms_and_accuracy_and_no_auroc(report):
    shifted = report.sets[report.sets["role"] == "shifted_id"]
    assert shifted["auroc"].isna().all() and shifted["accuracy"].between(0.5, 1).all()
    assert shifted["called_ood"].max() > 0.1  # of darker digits, at thresholds that keep 95 % of others


def test_the_table_has_the_own_score_first_and_near_and_far_apart(report):
    assert report.table.index[0] == "MSP" and len(report.table) == len(SCORES)
    assert list(report.table) == [
        "near AUROC",
        "near FPR95",
        "far AUROC",
        "far FPR95",
        "OOD: ID test",
        "OOD: dark",
    ]


def test_accuracy_and_calibration_error_are_those_of_the_test_images(report, trained):
    logits = trained(tensors(DIGITS.test.images)).detach()
    assert report.accuracy == (logits.argmax(1).numpy() == DIGITS.test.labels).mean()
    assert 0 < report.ece < 0.1 and report.seconds_per_image > 0


def test_a_report_is_written_and_shown(report, tmp_path):
    report.to_csv(tmp_path / "sets.csv")
    report.scores.to_csv(tmp_path / "scores.csv")
    assert report.to_markdown().splitlines()[2].startswith("| MSP")
    assert (
        r"\toprule" in report.to_latex()
        and "<table" in report._repr_html_()
        and "accuracy 9" in report._repr_html_()
    )


@pytest.mark.parametrize("score", [None, "knn"])
def test_a_report_draws_histograms_and_roc_curves(report, score):
    assert "MSP" in report.plot()._suptitle.get_text()
    assert report.plot(score).axes[0].get_title().startswith("accepts ")
    assert report.plot(score).axes[0].get_ylabel() == "held_out"
    assert len(report.roc(score).axes[0].lines) == 3


def test_a_leaderboard_row_is_for_openood_s_own_sets(report, trained, folders, tmp_path):
    with pytest.raises(
        InputError, match=r"its own sets alone .*near held_out, far letters, for which `table` is the"
    ):
        report.leaderboard_row(training="CrossEntropy", architecture="ResNet18")
    near = {name: folders / "held_out" for name in ("cifar100", "tin")}
    far = {name: folders / "letters" for name in ("mnist", "svhn", "texture", "places365")}
    detector = detector_of(trained).fit(folders / "train", val=folders / "val")
    row = detector.evaluate(folders / "test", near, far).leaderboard_row("CrossEntropy", "ResNet18", "knn")
    assert list(row) == [
        *("Training", "Postprocessor", "Near-OOD_AUROC", "Far-OOD_AUROC", "ID_Accuracy"),
        *("Outlier_Data", "Arch", "Additional_Description"),
    ]
    of_knn = report.sets[(report.sets["score"] == "knn") & (report.sets["set"] == "held_out")]
    assert (
        row["Near-OOD_AUROC"][0] == f"{100 * of_knn['auroc'].iloc[0]:.2f}"
        and row["Postprocessor"][0] == "KNN"
    )


def test_openood_s_fpr95_has_ood_as_the_positive_class(report):
    id_scores = report.scores.loc[report.scores["role"] == "id", "msp"]
    ood_scores = report.scores.loc[report.scores["set"] == "letters", "msp"]
    threshold = np.sort(ood_scores)[int(np.ceil(0.95 * len(ood_scores))) - 1]
    assert report.fpr95_ood_positive()["letters"] == (id_scores <= threshold).mean()


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({}, "there is no OOD set; give near= or far="),
        ({"near": "held_out", "far": "held_out"}, "two sets have one title among"),
        ({"near": "held_out", "shifted": "letters"}, "letters has no sub-folder for each class"),
    ],
)
def test_sets_that_do_not_fit_are_told(fitted, folders, sets, message):
    with pytest.raises(InputError, match=message):
        fitted.evaluate(folders / "test", **{name: folders / folder for name, folder in sets.items()})


def test_pictures_and_pairs_are_one_set_and_a_list_of_sets_is_several(fitted, folders):
    pictures = [Image.fromarray(image[..., 0]) for image in datasets.load("letters").images[:9]]
    pairs = [(picture, 0) for picture in pictures]
    found = fitted.evaluate(folders / "test", pictures, {"pairs": pairs}).scores.groupby("title").size()
    assert found.to_dict() == {"ID test": 361, "list": 9, "pairs": 9}
    both = fitted.evaluate(folders / "test", far=[folders / "letters", folders / "held_out"]).sets["title"]
    assert set(both) == {"ID test", "letters", "held_out"}


def test_an_image_set_is_one_set_with_its_own_order_of_classes(network, capsys):
    detector = detector_of(network, class_names=NAMES)
    turned = DIGITS.val._replace(labels=7 - DIGITS.val.labels, class_names=tuple(NAMES[::-1]))
    detector.fit(DIGITS.train, turned)
    assert re.search(r"accuracy on 216 validation images: 9\d\.\d%", capsys.readouterr().out)
    report = detector.evaluate(DIGITS.test, near=datasets.load("held_out"))
    assert report.scores.groupby("title").size().to_dict() == {"ID test": 361, "ImageSet": 354}
    assert report.scores["label"][:361].tolist() == [NAMES[i] for i in DIGITS.test.labels]
    assert report.scores["label"][361:].isna().all()


def test_an_image_set_of_another_class_is_refused(network):
    other = DIGITS.val._replace(class_names=(*NAMES[:7], "nine"))
    with pytest.raises(InputError, match="the images are of class nine, which is none of 0, 1"):
        detector_of(network).fit(DIGITS.train, other)


def test_a_detector_that_is_not_fitted_says_so(network, folders):
    with pytest.raises(InputError, match="has no threshold yet; call fit"):
        detector_of(network).evaluate(folders / "test", folders / "letters")


# Save and load.


def test_scores_are_saved_and_the_network_is_not(fitted, tmp_path):
    fitted.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "classifier.json",
        "scores.json",
        "scores.safetensors",
    ]
    about = json.loads((tmp_path / "classifier.json").read_text())
    assert about["module"] == "torch.nn.modules.container.Sequential" and about["layer"] == "5"


def test_a_saved_detector_says_the_same_around_the_same_network(fitted, network, tmp_path):
    fitted.save(tmp_path)
    loaded = Detector.load(tmp_path, network=copy.deepcopy(network), transform=TRANSFORM)
    images = tensors(DIGITS.test.images[:20])
    assert all(
        np.array_equal(a, b) for a, b in zip(loaded.predict(images), fitted.predict(images), strict=True)
    )


def test_another_network_is_refused_in_one_line(fitted, network, tmp_path):
    fitted.save(tmp_path)
    with pytest.raises(
        InputError, match=r"was made of a torch\.nn\.modules\.container\.Sequential; give it as network="
    ):
        Detector.load(tmp_path)
    network[5].bias.data.add_(1)
    with pytest.raises(
        InputError,
        match=r"^the torch\.nn\.modules\.container\.Sequential has other weights, buffers or layers than",
    ):
        Detector.load(tmp_path, network=network, transform=TRANSFORM)


def test_another_transform_is_refused(fitted, network, tmp_path):
    fitted.save(tmp_path)
    other = v2.Compose([TRANSFORM, v2.Normalize([0.03], [1])])
    with pytest.raises(
        InputError, match=r"makes something else of a picture than the one that .* give that one as"
    ):
        Detector.load(tmp_path, network=network, transform=other)


def test_a_network_for_a_detector_that_holds_its_own_is_refused(network, tmp_path):
    Detector(("a", "b"), (8, 8, 1), [0.5], [0.3]).save(tmp_path)
    with pytest.raises(InputError, match="holds its own network; give none"):
        Detector.load(tmp_path, network=network)


# What a first user met.


def test_folders_with_files_of_one_name_size_and_time_are_told_apart(network, tmp_path):
    detector = detector_of(network)
    features = []
    for folder, image in (("a", DIGITS.test.images[0]), ("b", DIGITS.test.images[1])):
        (tmp_path / folder).mkdir()
        Image.fromarray(image[..., 0]).save(tmp_path / folder / "0.bmp")
        os.utime(tmp_path / folder / "0.bmp", (0, 0))
        features.append(detector.all_features(tmp_path / folder))
    assert not torch.equal(*features)


def test_labels_are_not_kept_with_features(network, folders, tmp_path, capsys):
    wrong = detector_of(network, class_names=[*NAMES[1:], NAMES[0]], cache=tmp_path)
    wrong.fit(folders / "train", val=folders / "val")
    detector_of(network, cache=tmp_path).fit(folders / "train", val=folders / "val")
    assert capsys.readouterr().out.splitlines()[-1].startswith("accuracy on 216 validation images: 9")


def test_a_folder_that_was_predicted_can_be_evaluated(fitted, folders):
    fitted.predict(folders / "test")
    assert fitted.evaluate(folders / "test", folders / "letters").accuracy > 0.9


@pytest.mark.parametrize("change", [lambda x: x, lambda x: 1 - x])
def test_a_transform_is_known_by_what_it_does(network, tmp_path, change):
    """Its name would be `Lambda()` either way."""
    save(DIGITS.test.images[0], tmp_path / "a" / "0.png")
    one, other = (v2.Compose([TRANSFORM, v2.Lambda(f)]) for f in (lambda x: x, change))
    first = detector_of(network, transform=one, cache=tmp_path / "cache").all_features(tmp_path / "a")
    second = detector_of(network, transform=other, cache=tmp_path / "cache").all_features(tmp_path / "a")
    assert torch.equal(first, second) == (change(0) == 0)


class Cosine(nn.Linear):
    """A layer that is called linear and is not."""

    def forward(self, features):
        return 10 * nn.functional.linear(
            nn.functional.normalize(features), nn.functional.normalize(self.weight)
        )


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Flatten(), Cosine(64, 8)),
        Followed(nn.Sequential(nn.Flatten(), nn.Linear(64, 8)), lambda x: x.div_(0.05)),
    ],
)
def test_logits_that_are_not_the_layer_s_are_refused(network):
    with pytest.raises(InputError, match="give the network without that"):
        detector_of(network).all_features(tensors(DIGITS.test.images[:3]))


def test_features_that_are_changed_in_place_afterwards_are_kept(network):
    class Zeroing(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc = network[:5], network[5]

        def forward(self, images):
            features = self.body(images)
            logits = self.fc(features)
            features.zero_()
            return logits

    images = tensors(DIGITS.test.images[:3])
    torch.testing.assert_close(
        detector_of(Zeroing()).all_features(images), detector_of(network).all_features(images)
    )


def test_weights_that_a_layer_computes_as_it_runs_are_its_logits(network):
    fresh = copy.deepcopy(network)
    fresh[5] = nn.utils.weight_norm(fresh[5])
    with torch.no_grad():
        fresh[5].weight_g.mul_(3)
    images = tensors(DIGITS.test.images[:3])
    torch.testing.assert_close(detector_of(fresh).outputs(images).logits, fresh(images).detach())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (DIGITS.test.images[0].repeat(3, -1), r"shape \(8, 8, 3\), expected uint8, .* images\[None\]"),
        ([(torch.zeros(1, 8, 8, dtype=torch.uint8), 0)], "image 0 is a tensor of torch.uint8; transform it to floats"),
        ([(Image.new("L", (8, 8)), "path", 0)], "item 0 has 3 members, expected an image and its label"),
        (Endless(), "a data set without a length; give a DataLoader of it"),
        (torch.zeros(3, 8, 8), "the network cannot take a batch"),
    ],
)  # fmt: skip
def test_images_that_would_be_mistaken_are_refused_in_one_line(network, images, message):
    with pytest.raises(InputError, match=message):
        detector_of(network).all_features(images)


def test_two_classes_have_no_false_alarm(capsys):
    tell_accuracy(np.array([0, 1] * 14 + [1, 0]), np.array([0, 1] * 15), ["a", "b"])
    assert capsys.readouterr().out == "accuracy on 30 validation images: 93.3%\n"


@pytest.mark.parametrize("tpr", [0, 95, "0.95", None, float("nan")])
def test_a_share_out_of_range_leaves_the_detector_as_it_was(fitted, folders, tpr):
    before = dict(fitted.thresholds)
    with pytest.raises(InputError, match=r"tpr is .*, expected a share above 0 and at most 1"):
        fitted.fit(folders / "val", val=folders / "val", tpr=tpr)
    assert fitted.thresholds == before


def test_no_set_takes_the_title_of_the_test_images(fitted, folders):
    with pytest.raises(InputError, match="two sets have one title among"):
        fitted.evaluate(folders / "test", folders / "letters", shifted={"ID test": folders / "dark"})


def test_class_names_are_those_of_the_folders_where_none_are_given(network, folders, capsys):
    detector = detector_of(network, class_names=None).fit(folders / "train", val=folders / "val")
    assert detector.class_names == tuple(NAMES)
    assert "class names are those of the folders, in their order: 0, 1" in capsys.readouterr().out


def test_a_network_that_was_wrapped_when_saved_is_taken_back_without(fitted, network, tmp_path):
    wrapped = detector_of(nn.DataParallel(network))
    wrapped.fit(Pairs(*DIGITS.train[:2]), val=Pairs(*DIGITS.val[:2])).save(tmp_path)
    images = tensors(DIGITS.test.images[:9])
    loaded = Detector.load(tmp_path, network=nn.DataParallel(network), transform=TRANSFORM)
    assert np.array_equal(loaded.predict(images).scores, wrapped.predict(images).scores)
    assert find_layer(network, "module.5", 8) == "5"


def test_what_is_no_network_and_what_is_no_folder_is_told(tmp_path, network):
    with pytest.raises(InputError, match="the network is a str, expected a torch module"):
        detector_of("net.pt")
    with pytest.raises(InputError, match=r"holds no classifier\.json"):
        Detector.load(tmp_path, network=network)
