import copy
from functools import cache

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file

from oodlib.datasets.loading import load
from oodlib.detection.backbones import BACKBONES, make_backbone
from oodlib.detection.detector import Detector
from oodlib.detection.heads import HEADS
from oodlib.detection.scores import SCORES
from oodlib.errors import InputError
from oodlib.images import uint8_tensor
from oodlib.pictures import fit_picture
from oodlib.settings import DetectorModel

TRAIN, VAL, TEST = (load("digits", split) for split in ("train", "val", "test"))
GREY, RGB = (8, 8, 1), (8, 8, 3)


def make_detector(head="arcface", image_shape=GREY, backbone="resnet_small", num_classes=8, **options):
    """An untrained detector; its batch statistics have seen a few images, so that it is not degenerate."""
    names = tuple(f"class {c}" for c in range(num_classes))
    channels = image_shape[2]
    detector = Detector(
        names,
        image_shape,
        [0.3] * channels,
        [0.4] * channels,
        DetectorModel(backbone=backbone, head=head, head_options=options),
    )
    return detector.eval()


@cache
def _fitted(head):
    detector = make_detector(head)
    detector.train()
    with torch.no_grad():
        detector.features(uint8_tensor(TRAIN.images[:64], GREY))
    detector.eval()
    detector.fit_scores(TRAIN.images[:200], TRAIN.labels[:200], VAL.images)
    return detector


@pytest.fixture
def fitted(request):
    """A detector with thresholds, the test's own copy."""
    return copy.deepcopy(_fitted(getattr(request, "param", "arcface")))


each_head = pytest.mark.parametrize("fitted", HEADS, indirect=True)

IMAGES = TEST.images[:12]
FORMS = {
    "NCHW array": IMAGES.transpose(0, 3, 1, 2),
    "NHW array": IMAGES[..., 0],
    "NHWC tensor": torch.tensor(IMAGES),
    "NCHW tensor": torch.tensor(IMAGES).permute(0, 3, 1, 2),
    "NHW tensor": torch.tensor(IMAGES[..., 0]),
    "float32 array": (IMAGES / 255).astype(np.float32),
    "float64 array": IMAGES / 255,
    "float16 array": (IMAGES / 255).astype(np.float16),
    "float NCHW tensor": torch.tensor(IMAGES).permute(0, 3, 1, 2) / 255,
    "tensor with gradient": (torch.tensor(IMAGES) / 255).requires_grad_(),
    "list of grey pictures": [Image.fromarray(image[..., 0]) for image in IMAGES],
    "tuple of RGB pictures": tuple(Image.fromarray(image[..., 0]).convert("RGB") for image in IMAGES),
    "view in reverse order": IMAGES[::-1].copy()[::-1],
}


@pytest.mark.parametrize("images", FORMS.values(), ids=FORMS.keys())
def test_images_of_any_form_are_the_same_uint8(images):
    assert torch.equal(uint8_tensor(images, GREY), torch.tensor(IMAGES).permute(0, 3, 1, 2))


@pytest.mark.parametrize("images", FORMS.values(), ids=FORMS.keys())
def test_images_of_any_form_have_equal_scores(fitted, images):
    assert np.array_equal(fitted.score(images), fitted.score(IMAGES))


def test_one_picture_is_a_list_of_one(fitted):
    picture = Image.fromarray(IMAGES[0, ..., 0])
    assert np.array_equal(fitted.score(picture), fitted.score([picture]))


def test_pictures_of_any_size_are_cropped_and_scaled(fitted):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 33, 3), dtype=np.uint8))
    assert np.array_equal(fitted.score([picture]), fitted.score(fit_picture(picture, GREY)[None]))


@pytest.mark.parametrize("form", ["NHWC", "NCHW"])
def test_rgb_images_are_taken_channels_first_or_last(form):
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    given = images if form == "NHWC" else images.transpose(0, 3, 1, 2)
    assert torch.equal(uint8_tensor(given, RGB), torch.tensor(images).permute(0, 3, 1, 2))


def test_every_float_of_256_levels_is_its_level():
    levels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    scaled = (levels / 255).astype(np.float32)
    assert np.array_equal(uint8_tensor(scaled, GREY)[:, 0].numpy(), levels[..., 0])


BAD_IMAGES = {
    "above 1": (np.full((2, 8, 8, 1), 1.5), "images range from 1.5 to 1.5"),
    "below 0": (np.full((2, 8, 8, 1), -0.1), "images range from -0.1 to -0.1"),
    "float grey levels": (IMAGES.astype(np.float32), "images range from 0 to 255"),
    "NaN": (np.full((2, 8, 8, 1), np.nan), "images range from nan to nan"),
    "other size": (np.zeros((2, 9, 9, 1), np.uint8), "images have shape (2, 9, 9, 1)"),
    "one image": (np.zeros((8, 8), np.uint8), "images have shape (8, 8)"),
    "RGB for grey": (np.zeros((2, 8, 8, 3), np.uint8), "images have shape (2, 8, 8, 3)"),
    "five axes": (np.zeros((1, 2, 8, 8, 1), np.uint8), "images have shape (1, 2, 8, 8, 1)"),
    "int64": (IMAGES.astype(np.int64), "images are int64"),
    "bool": (IMAGES > 9, "images are bool"),
    "no images": (IMAGES[:0], "images have shape (0, 8, 8, 1)"),
    "empty list": ([], "images are a list of something else than pictures"),
    "list of arrays": (list(IMAGES), "images are a list of something else than pictures"),
    "path": ("pictures/a.png", "images are a str"),
    "None": (None, "images are a NoneType"),
}


@pytest.mark.parametrize("images, told", BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_bad_images_are_told_with_what_was_expected(images, told):
    with pytest.raises(InputError) as error:
        make_detector().score(images)
    assert told in str(error.value)
    assert "expected N x 8 x 8 x 1, uint8 or float in [0, 1], or PIL images" in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_score_is_refused(fitted):
    with pytest.raises(InputError, match=r"score 'odin' is not known; choose one of msp, energy"):
        fitted.score(IMAGES, "odin")


def test_unknown_backbone_is_refused():
    with pytest.raises(InputError, match=r"backbone = 'vgg' \(str\), expected one of resnet_small, resnet18"):
        make_detector(backbone="vgg")


def test_predict_before_fit_scores_says_what_to_do():
    with pytest.raises(InputError, match="no threshold yet; call fit_scores"):
        make_detector().predict(IMAGES)


@each_head
@torch.inference_mode()
def test_all_scores_are_those_of_features_and_logits(fitted):
    outputs = fitted.outputs(IMAGES)
    assert torch.equal(outputs.features, fitted.all_features(IMAGES))
    assert torch.equal(outputs.logits, fitted.head.logits(outputs.features))
    assert torch.equal(outputs.class_weights, fitted.head.weight)
    scores = fitted.all_scores(IMAGES)
    assert all(np.array_equal(scores[name], fitted.scores[name](outputs).numpy()) for name in SCORES)


def test_all_scores_have_every_name(fitted):
    assert list(fitted.all_scores(IMAGES)) == list(SCORES)


@pytest.mark.parametrize("score", SCORES)
def test_score_is_a_float64_for_each_image(fitted, score):
    scores = fitted.score(IMAGES, score)
    assert (scores.dtype, scores.shape) == (np.float64, (12,))


@each_head
def test_score_unless_named_is_the_heads_own(fitted):
    assert np.array_equal(fitted.score(IMAGES), fitted.score(IMAGES, fitted.head.default_score))


@pytest.mark.parametrize("score", ["mahalanobis", "knn"])
def test_fit_scores_fits_scores_to_the_outputs_of_training_images(fitted, score):
    expected = SCORES[score]()
    expected.fit(fitted.outputs(TRAIN.images[:200]), torch.tensor(TRAIN.labels[:200]))
    assert np.array_equal(fitted.score(IMAGES, score), expected(fitted.outputs(IMAGES)).numpy())


@pytest.mark.parametrize("score", ["mahalanobis", "knn"])
def test_a_score_before_it_is_fitted_says_what_to_do(score):
    with pytest.raises(InputError, match=f"^score {score} is not fitted yet; call fit_scores after training"):
        make_detector().score(IMAGES, score)


def test_an_unfitted_detector_has_the_scores_that_need_no_fit():
    fitted_alone = ["mahalanobis", "rmds", "knn", "vim"]
    assert list(make_detector().all_scores(IMAGES)) == [name for name in SCORES if name not in fitted_alone]


def test_fit_scores_keeps_as_many_features_for_knn_as_asked_and_they_are_loaded(fitted, tmp_path):
    fitted.fit_scores(TRAIN.images[:200], TRAIN.labels[:200], VAL.images, bank_size=30)
    fitted.save(tmp_path)
    loaded = Detector.load(tmp_path)
    bank = loaded.scores["knn"].bank
    assert bank.shape == (30, 64) and torch.equal(bank, fitted.scores["knn"].bank)
    assert np.array_equal(loaded.score(IMAGES, "knn"), fitted.score(IMAGES, "knn"))


@each_head
def test_fit_scores_gives_every_score_a_threshold(fitted):
    assert list(fitted.thresholds) == list(SCORES)


@pytest.mark.parametrize("score", SCORES)
@each_head
def test_threshold_keeps_95_percent_of_validation(fitted, score):
    assert fitted.predict(VAL.images, score).is_ood.mean() <= 0.05


def test_threshold_keeps_another_tpr_if_asked(fitted):
    fitted.fit_scores(TRAIN.images[:200], TRAIN.labels[:200], VAL.images, tpr=0.5)
    assert fitted.predict(VAL.images).is_ood.mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("score", [None, *SCORES])
def test_is_ood_means_a_score_below_the_threshold(fitted, score):
    prediction = fitted.predict(TEST.images, score)
    threshold = fitted.thresholds[score or "cosine"]
    assert np.array_equal(prediction.is_ood, prediction.scores < threshold)


def test_a_score_at_the_threshold_is_in_distribution(fitted):
    fitted.thresholds["cosine"] = fitted.score(IMAGES).min()
    assert not fitted.predict(IMAGES).is_ood.any()


def test_predicted_scores_are_those_of_score(fitted):
    assert np.array_equal(fitted.predict(IMAGES, "energy").scores, fitted.score(IMAGES, "energy"))


@each_head
@torch.inference_mode()
def test_predicted_class_has_the_largest_logit(fitted):
    logits = fitted.head.logits(fitted.all_features(IMAGES))
    prediction = fitted.predict(IMAGES)
    assert prediction.classes.dtype == np.int64
    assert np.array_equal(prediction.classes, logits.argmax(1).numpy())


def test_images_are_normalised_by_mean_and_std():
    detector = Detector(
        ("a", "b"),
        RGB,
        [0.1, 0.2, 0.3],
        [0.4, 0.5, 0.6],
        DetectorModel(backbone="resnet_small", head="softmax"),
    ).eval()
    images = torch.arange(192, dtype=torch.uint8).reshape(1, 3, 8, 8)
    mean, std = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])[:, :, None, None]
    torch.testing.assert_close(detector.features(images), detector.backbone((images / 255 - mean) / std))


@pytest.mark.parametrize("size", [1, 5, 100])
def test_features_do_not_depend_on_how_many_images_come_together(fitted, size):
    together = fitted.all_features(TEST.images[:100])
    parts = [fitted.all_features(TEST.images[i : min(i + size, 100)]) for i in range(0, 100, size)]
    torch.testing.assert_close(torch.cat(parts), together, rtol=1e-4, atol=1e-4)


def test_an_image_has_the_same_score_in_any_company(fitted):
    alone = np.concatenate([fitted.score(image[None]) for image in IMAGES])
    np.testing.assert_allclose(fitted.score(TEST.images)[:12], alone, atol=1e-4)


NUM_FEATURES = {"resnet_small": 64, "resnet18_quarter": 128, "resnet18": 512, "resnet50": 2048}


@pytest.mark.parametrize("name, num_features", NUM_FEATURES.items())
@pytest.mark.parametrize("channels", [1, 3])
def test_backbone_gives_a_feature_vector_an_image(name, num_features, channels):
    backbone, told = make_backbone(name, channels)
    features = backbone(torch.zeros(2, channels, 8, 8))
    assert (told, tuple(features.shape)) == (num_features, (2, num_features))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_backbone_is_torchvisions_but_for_stem_and_classifier(name):
    ours, theirs = make_backbone(name, 3)[0].state_dict(), getattr(torchvision.models, name)().state_dict()
    other = {"conv1.weight", "fc.weight", "fc.bias"}
    expected = {key: tensor.shape for key, tensor in theirs.items() if key not in other}
    assert {key: tensor.shape for key, tensor in ours.items() if key not in other} == expected


def test_a_quarter_of_resnet18_has_a_quarter_of_the_channels():
    quarter, whole = (
        {n: t.shape[0] for n, t in make_backbone(name, 3)[0].state_dict().items() if t.ndim == 4}
        for name in ("resnet18_quarter", "resnet18")
    )
    assert quarter == {name: channels // 4 for name, channels in whole.items()}


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_stem_keeps_the_size_of_the_image(name):
    backbone, _ = make_backbone(name, 1)
    stem = backbone.maxpool(backbone.conv1(torch.zeros(1, 1, 8, 8)))
    assert tuple(stem.shape) == (1, 16 if name == "resnet18_quarter" else 64, 8, 8)


def test_making_a_backbone_leaves_its_batch_statistics_fresh():
    backbone, _ = make_backbone("resnet_small", 1)
    assert backbone.training
    assert backbone.bn1.num_batches_tracked == 0


@pytest.mark.parametrize(
    ("precision", "size", "is_plain"), [("fp32", 8, True), ("fp32", 16, False), ("bf16", 8, False)]
)
def test_convolutions_have_the_layout_in_which_they_are_fast(precision, size, is_plain):
    detector = Detector(
        ("a", "b"),
        (size, size, 3),
        [0.0] * 3,
        [1.0] * 3,
        DetectorModel(backbone="resnet_small", head="softmax", precision=precision),
    )
    seen = []
    detector.backbone.conv1.register_forward_hook(
        lambda conv, given, out: seen.extend([conv.weight, *given, out])
    )
    detector.features(torch.zeros(2, 3, size, size, dtype=torch.uint8))
    layout = torch.contiguous_format if is_plain else torch.channels_last
    assert len(seen) == 3 and all(tensor.is_contiguous(memory_format=layout) for tensor in seen)


def test_detector_in_rgb_scores_32_by_32():
    detector = make_detector(image_shape=(32, 32, 3))
    assert detector.score(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2,)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("call", ["all_features", "score", "all_scores", "predict"])
def test_scoring_leaves_the_training_mode_of_every_module(fitted, call, training):
    fitted.train(training)
    getattr(fitted, call)(IMAGES)
    assert {module.training for module in fitted.modules()} == {training}


def test_refused_images_leave_the_training_mode(fitted):
    fitted.train()
    with pytest.raises(InputError):
        fitted.score(IMAGES.astype(np.int64))
    assert fitted.training


@pytest.mark.parametrize("fitted", ["arcface", "scaled_cosine"], indirect=True)
@pytest.mark.parametrize("training", [True, False])
def test_scoring_leaves_weights_and_batch_statistics(fitted, training):
    fitted.train(training)
    before = copy.deepcopy(fitted.state_dict())
    fitted.predict(IMAGES)
    assert all(torch.equal(tensor, before[name]) for name, tensor in fitted.state_dict().items())


@each_head
def test_scores_are_those_of_evaluation_even_while_training(fitted):
    expected = fitted.eval().score(IMAGES, "msp")
    assert np.array_equal(fitted.train().score(IMAGES, "msp"), expected)


@each_head
def test_loaded_detector_has_identical_scores(fitted, tmp_path):
    fitted.save(tmp_path)
    found, expected = Detector.load(tmp_path).all_scores(IMAGES), fitted.all_scores(IMAGES)
    assert all(np.array_equal(found[name], expected[name]) for name in SCORES)


@each_head
def test_loaded_detector_has_identical_predictions(fitted, tmp_path):
    fitted.save(tmp_path)
    found, expected = Detector.load(tmp_path).predict(TEST.images), fitted.predict(TEST.images)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_loaded_detector_has_identical_thresholds_and_settings(fitted, tmp_path):
    fitted.save(tmp_path)
    loaded = Detector.load(tmp_path)
    assert (loaded.thresholds, loaded.config) == (fitted.thresholds, fitted.config)


def test_loaded_detector_has_its_head_options(tmp_path):
    make_detector("arcface", scale=5.0, margin=0.1).save(tmp_path)
    head = Detector.load(tmp_path).head
    assert (head.scale, head.margin) == (5.0, 0.1)


def test_loaded_detector_is_in_evaluation_mode(fitted, tmp_path):
    fitted.train().save(tmp_path)
    assert not Detector.load(tmp_path).training


def test_detector_with_more_classes_than_features_is_loaded(tmp_path):
    labels = np.arange(140) % 70
    detector = make_detector("softmax", num_classes=70)
    detector.fit_scores(TRAIN.images[:140], labels, VAL.images)
    detector.save(tmp_path)
    assert np.array_equal(Detector.load(tmp_path).score(IMAGES), detector.score(IMAGES))


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


NETWORK, FITTED = ["detector.json", "detector.safetensors"], ["scores.json", "scores.safetensors"]


def test_saved_detector_is_safetensors_and_json_alone(fitted, tmp_path):
    fitted.save(tmp_path / "new")
    assert files_in(tmp_path / "new") == [*NETWORK, *FITTED]


def test_an_unfitted_detector_is_saved_and_loaded_without_scores(tmp_path):
    detector = make_detector()
    detector.save(tmp_path)
    assert files_in(tmp_path) == NETWORK
    loaded = Detector.load(tmp_path)
    assert np.array_equal(loaded.score(IMAGES), detector.score(IMAGES))
    with pytest.raises(InputError, match="no threshold yet; call fit_scores"):
        loaded.predict(IMAGES)
    with pytest.raises(InputError, match="no threshold yet; call fit_scores"):
        loaded.save_scores(tmp_path)


def test_scores_are_fitted_to_a_network_that_was_saved_before(fitted, tmp_path):
    fitted.save_network(tmp_path)
    loaded = Detector.load(tmp_path)
    loaded.fit_scores(TRAIN.images[:200], TRAIN.labels[:200], VAL.images)
    loaded.save_scores(tmp_path)
    ours, theirs = Detector.load(tmp_path).all_scores(IMAGES), fitted.all_scores(IMAGES)
    assert all(np.array_equal(ours[name], theirs[name]) for name in SCORES)


def test_scores_may_lie_in_a_folder_of_their_own(fitted, tmp_path):
    fitted.save_network(tmp_path / "network")
    fitted.save_scores(tmp_path / "scores")
    loaded = Detector.load(tmp_path / "network")
    loaded.load_scores(tmp_path / "scores")
    assert np.array_equal(loaded.score(IMAGES, "knn"), fitted.score(IMAGES, "knn"))


def test_scores_of_another_network_are_refused(fitted, tmp_path):
    fitted.save(tmp_path)
    other = make_detector()
    with pytest.raises(InputError, match=r"^the scores in .* were fitted to another network; fit them again"):
        other.load_scores(tmp_path)


def test_a_network_is_saved_over_another_without_its_scores(fitted, tmp_path):
    fitted.save(tmp_path)
    make_detector().save(tmp_path)
    assert files_in(tmp_path) == NETWORK and not Detector.load(tmp_path).thresholds


def test_the_fingerprint_is_of_the_weights_in_any_layout(fitted):
    fingerprint = fitted.network_fingerprint()
    assert fitted.to(memory_format=torch.channels_last).network_fingerprint() == fingerprint
    with torch.no_grad():
        fitted.head.weight[0, 0] += 1e-6
    assert fitted.network_fingerprint() != fingerprint


@pytest.mark.parametrize(
    "names, seed, told",
    [
        ("0123456", 0, r"damaged or of another version of oodlib; delete the folder"),
        ("01234567", 1, r"^detector\.safetensors has other weights than .*detector\.json says; give those$"),
    ],
)
def test_weights_of_another_network_are_refused_on_one_line(tmp_path, names, seed, told):
    make_detector("softmax").save(tmp_path)
    Detector(
        tuple(names), GREY, [0.3], [0.4], DetectorModel(backbone="resnet_small", head="softmax", seed=seed)
    ).save(tmp_path / "other")
    (tmp_path / "other" / "detector.safetensors").rename(tmp_path / "detector.safetensors")
    with pytest.raises(InputError, match=told) as error:
        Detector.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [*NETWORK, *FITTED])
@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\x00" * 20])
def test_a_damaged_file_is_told_on_one_line(fitted, tmp_path, name, content):
    fitted.save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        InputError, match=r"is damaged or of another version of oodlib; delete the folder"
    ) as error:
        Detector.load(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize("name", [*NETWORK, "scores.safetensors"])
def test_a_missing_file_is_named(fitted, tmp_path, name):
    fitted.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"holds no {name}; train one with notebook 03_train_detector"):
        Detector.load(tmp_path)


def test_empty_folder_is_refused_with_the_notebook_to_run(tmp_path):
    with pytest.raises(
        InputError, match=r"holds no detector\.json; train one with notebook 03_train_detector"
    ):
        Detector.load(tmp_path)


def test_scores_that_lack_a_statistic_are_refused_with_what_to_do(fitted, tmp_path):
    fitted.save(tmp_path)
    tensors = load_file(tmp_path / "scores.safetensors")
    del tensors["knn.bank"]
    save_file(tensors, tmp_path / "scores.safetensors")
    with pytest.raises(InputError, match=r"damaged or of another version .*make it again with notebook 03"):
        Detector.load(tmp_path)


def test_initial_weights_depend_on_the_seed_alone():
    names, statistics = ("a", "b", "c"), ([0.3], [0.4])
    first, same, other = (
        Detector(names, GREY, *statistics, DetectorModel(backbone="resnet_small", head="arcface", seed=s))
        for s in (0, 0, 1)
    )
    assert torch.equal(first.backbone.conv1.weight, same.backbone.conv1.weight)
    assert not torch.equal(first.backbone.conv1.weight, other.backbone.conv1.weight)


def test_detectors_of_two_heads_start_from_the_same_backbone():
    first, second = make_detector("softmax"), make_detector("sphereface")
    assert torch.equal(first.backbone.layer3[0].conv1.weight, second.backbone.layer3[0].conv1.weight)


# Networks of one's own.


def test_a_score_that_is_nan_is_never_accepted_as_id(fitted, monkeypatch):
    def classify(images):
        return np.full((2, 8), 1 / 8), {"cosine": np.array([np.nan, 1.0])}

    monkeypatch.setattr(fitted, "classify", classify)
    assert fitted.predict(TEST.images[:2]).is_ood.tolist() == [True, False]


def test_a_detector_of_half_precision_is_refused_in_one_line(fitted):
    with pytest.raises(InputError, match=r"head is torch\.float16; bring it back with detector\.float\(\)"):
        fitted.half().predict(IMAGES)
    assert len(fitted.float().predict(IMAGES).classes) == len(IMAGES)


@pytest.mark.parametrize("background", ["white", "black"])
def test_a_detector_keeps_the_background_of_its_training(tmp_path, background):
    Detector(("a", "b"), (8, 8, 1), [0.5], [0.3], background=background).save(tmp_path)
    assert Detector.load(tmp_path).background == background


@pytest.mark.parametrize(("mean", "std"), [([0.5], [0.0]), ([float("nan")], [0.3]), ([0.5], [float("inf")])])
def test_moments_that_images_cannot_be_divided_by_are_refused(mean, std):
    with pytest.raises(InputError, match="expected finite, std above 0"):
        Detector(("a", "b"), (8, 8, 1), mean, std)
