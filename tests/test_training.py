import copy
import itertools
import re
import time

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from oodlib.datasets.loading import load
from oodlib.detection import train
from oodlib.detection.augment import augment
from oodlib.detection.detector import Detector
from oodlib.detection.heads import HEADS
from oodlib.detection.losses import uniform_cross_entropy
from oodlib.detection.train import fit_detector
from oodlib.detection.vos import VirtualOutliers
from oodlib.diffusion import train as diffusion_train
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.train import ema_weight, fit_denoiser
from oodlib.errors import InputError
from oodlib.presets import make_settings
from oodlib.seeds import generator
from oodlib.settings import DenoiserModel, DenoiserTraining, DetectorModel, DetectorTraining
from oodlib.training import Progress, batches

TRAIN = load("digits", "train")
IMAGES, LABELS = TRAIN.images[:48], TRAIN.labels[:48]
OUTLIERS = 255 - TRAIN.images[100:140]


def take(count, size, steps, purpose=(0,)):
    return list(itertools.islice(batches(count, size, generator(*purpose)), steps))


@pytest.mark.parametrize("count, size", [(10, 4), (10, 5), (3, 8), (1, 4), (7, 7)])
def test_batches_hold_each_index_once_an_epoch(count, size):
    epochs = torch.cat(take(count, size, 2 * count)).split(count)
    assert all(epoch.sort().values.tolist() == list(range(count)) for epoch in epochs if len(epoch) == count)


def test_batches_are_all_of_the_same_size():
    assert {len(batch) for batch in take(10, 4, 20)} == {4}


def test_batches_of_a_seed_are_the_same():
    assert torch.equal(torch.stack(take(10, 4, 20)), torch.stack(take(10, 4, 20)))


def test_each_epoch_has_a_new_order():
    first, second = take(20, 20, 2)
    assert not torch.equal(first, second)


def random_images(count=200, channels=1, size=16, margin=2):
    """Random uint8 images with black margins, so that a shift loses nothing."""
    images = torch.zeros(count, channels, size, size, dtype=torch.uint8)
    inner = size - 2 * margin
    images[:, :, margin:-margin, margin:-margin] = torch.randint(
        1, 256, (count, channels, inner, inner), generator=generator(0), dtype=torch.uint8
    )
    return images


def shifts(image, pad, flip):
    """Every image that a shift by up to `pad`, and a flip if asked, makes of a padded image."""
    padded = torch.nn.functional.pad(image, (pad, pad, pad, pad))
    height, width = image.shape[1:]
    found = [
        padded[:, row : row + height, column : column + width]
        for row in range(2 * pad + 1)
        for column in range(2 * pad + 1)
    ]
    return found + [shifted.flip(2) for shifted in found] if flip else found


@pytest.mark.parametrize("shape", [(5, 1, 8, 8), (5, 3, 32, 32), (1, 1, 16, 24)])
@pytest.mark.parametrize("flip", [False, True])
def test_augmented_images_keep_shape_and_type(shape, flip):
    images = torch.randint(0, 256, shape, generator=generator(0), dtype=torch.uint8)
    augmented = augment(images, flip, generator(1))
    assert (augmented.shape, augmented.dtype) == (images.shape, torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_augmented_image_is_a_shift_or_a_flip_of_its_own(flip, channels):
    images = random_images(40, channels, margin=1)
    augmented = augment(images, flip, generator(1))
    for image, changed in zip(images, augmented, strict=True):
        assert any(torch.equal(changed, candidate) for candidate in shifts(image, 2, flip))


@pytest.mark.parametrize("flip", [False, True])
def test_augmentation_loses_nothing_within_the_margin(flip):
    images = random_images()
    assert torch.equal(
        augment(images, flip, generator(1)).long().sum((1, 2, 3)), images.long().sum((1, 2, 3))
    )


def test_augmentation_shifts_evenly_by_up_to_an_eighth():
    images = torch.zeros(5000, 1, 16, 16, dtype=torch.uint8)
    images[:, 0, 8, 8] = 1
    _, _, rows, columns = augment(images, False, generator(1)).nonzero(as_tuple=True)
    counts = torch.bincount((rows - 6) * 5 + columns - 6)
    assert (len(counts), counts.min() > 140, counts.max() < 260) == (25, True, True)


def test_augmentation_flips_half_of_the_images_if_asked():
    images = torch.zeros(2000, 1, 7, 8, dtype=torch.uint8)  # of height 7: not shifted
    images[..., 0] = 1
    flipped = augment(images, True, generator(1))[:, 0, 0, 7]
    assert flipped.float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_small_images_are_not_shifted():
    images = random_images(size=7)
    assert torch.equal(augment(images, False, generator(1)), images)


def test_augmentation_of_a_seed_is_the_same():
    images = random_images()
    assert torch.equal(augment(images, True, generator(1)), augment(images, True, generator(1)))


@pytest.mark.parametrize("step, weight", [(1, 1.0), (2, 9 / 11), (5, 9 / 14), (91, 0.09), (10**6, 0.005)])
def test_weight_of_a_step_in_the_average_by_hand(step, weight):
    assert ema_weight(step, 0.995) == pytest.approx(weight)


def test_denoiser_ends_with_the_average_of_its_steps_by_hand(monkeypatch):
    taken = []
    usual = torch.optim.AdamW.step

    def step(optimizer):
        usual(optimizer)
        taken.append(optimizer.param_groups[0]["params"][0].detach().double().clone())

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    denoiser, _ = fit_tiny(steps=3, ema_decay=0.6)
    second = (2 * taken[0] + 9 * taken[1]) / 11
    expected = (3 * second + 9 * taken[2]) / 12
    assert_close(next(denoiser.parameters()).double(), expected, rtol=1e-5, atol=1e-8)


def make_detector(head="arcface", precision="fp32", **options):
    names = tuple("01234567")
    return Detector(
        names,
        (8, 8, 1),
        [0.3],
        [0.37],
        DetectorModel(backbone="resnet_small", head=head, head_options=options, precision=precision),
    )


def parted(cls, options):
    """Settings of a class, unchecked, as tests go to extremes, and the other options."""
    mine = {name: value for name, value in options.items() if name in cls.model_fields}
    return cls().replaced(**mine), {name: options[name] for name in options.keys() - mine.keys()}


def fit(detector=None, precision="fp32", images=(IMAGES, LABELS), **options):
    detector = detector or make_detector(precision=precision)
    options = {"epochs": 2, "batch_size": 16, "outlier_batch_size": 8, "learning_rate": 0.02, **options}
    arrays = {"outliers": options.pop("outliers", None)}
    settings, others = parted(DetectorTraining, options)
    return detector, fit_detector(detector, *images, settings, **arrays, **others)


def learning_rates(monkeypatch, **options):
    """Of each step of a training of 12 steps an epoch."""
    rates = []
    monkeypatch.setattr(Progress, "update", lambda self, step, loss, rate: rates.append(rate))
    fit(images=(IMAGES[:24], LABELS[:24]), batch_size=2, learning_rate=0.02, **options)
    return rates


def test_the_learning_rate_rises_over_the_warmup_and_then_falls_as_a_cosine(monkeypatch):
    rates = learning_rates(monkeypatch, epochs=2, warmup=0.25)
    np.testing.assert_allclose(rates[:6], 0.02 * np.arange(1, 7) / 6)
    np.testing.assert_allclose(rates[6:], 0.01 * (1 + np.cos(np.pi * np.arange(18) / 18)), atol=1e-6)


def test_without_a_warmup_the_learning_rate_starts_at_its_highest(monkeypatch):
    rates = learning_rates(monkeypatch, epochs=1)
    np.testing.assert_allclose(rates, 0.01 * (1 + np.cos(np.pi * np.arange(12) / 12)), atol=1e-6)


TWINS = dict(outliers=OUTLIERS, twins=TRAIN.images[200:240], twin_labels=TRAIN.labels[200:240])
EXPOSURES = {
    "twins": TWINS,
    "double batch": dict(double_batch=True),
    "a warm-up": dict(warmup=0.7),
    "degraded": dict(degrade=1.0),
    "degraded with outliers": dict(outliers=OUTLIERS, degrade=0.5, flip=True),
    "degraded with twins": dict(**TWINS, degrade=1.0),
    "noise levels": dict(outliers=OUTLIERS, noise_levels=(0.3, 1.0)),
    "all": dict(**TWINS, degrade=1.0, noise_levels=(0.0, 0.5), clean_share=0.5),
}
every_exposure = pytest.mark.parametrize("exposure", EXPOSURES.values(), ids=EXPOSURES.keys())


def same_weights(first, second):
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("outliers", [None, OUTLIERS], ids=["plain", "with outliers"])
def test_detector_of_a_seed_is_the_same_to_the_bit(outliers):
    assert same_weights(fit(outliers=outliers)[0], fit(outliers=outliers)[0])


@pytest.mark.parametrize("outliers", [None, OUTLIERS], ids=["plain", "with outliers"])
def test_detector_of_another_seed_is_another(outliers):
    assert not same_weights(fit(outliers=outliers, seed=0)[0], fit(outliers=outliers, seed=1)[0])


def test_detector_does_not_depend_on_the_global_random_state():
    torch.manual_seed(1)
    first = fit()[0]
    torch.manual_seed(2)
    assert same_weights(fit()[0], first)


def test_outliers_change_the_detector():
    assert not same_weights(fit(outliers=OUTLIERS)[0], fit()[0])


@pytest.mark.parametrize("head", HEADS)
def test_loss_of_a_detector_falls(head):
    _, history = fit(make_detector(head), epochs=7)
    assert history["loss"].iloc[-3:].mean() < 0.95 * history["loss"].iloc[:3].mean()


@pytest.mark.parametrize(
    "exposure", [{"outlier_targets": np.full((40, 8), 1 / 8)}, {"outlier_loss_weights": np.ones(40)}], ids=str
)
def test_uniform_targets_and_weights_of_1_change_nothing_but_rounding(exposure):
    plain, given = fit(outliers=OUTLIERS)[0], fit(outliers=OUTLIERS, **exposure)[0]
    assert_close(given.state_dict(), plain.state_dict(), rtol=1e-3, atol=1e-4)


def test_outliers_of_weight_0_train_nothing_but_batch_statistics():
    weightless, unheard = (
        fit(outliers=OUTLIERS, **given)[0]
        for given in ({"outlier_loss_weights": np.zeros(40)}, {"outlier_weight": 0.0})
    )
    assert same_weights(weightless, unheard)


def test_targets_pull_outliers_towards_their_class():
    targets = np.eye(8)[np.full(40, 3)]
    detector, _ = fit(make_detector("softmax"), epochs=7, outliers=OUTLIERS, outlier_targets=targets)
    assert (detector.classify(OUTLIERS)[0].argmax(1) == 3).mean() > 0.9


@every_exposure
def test_every_exposure_changes_the_detector_and_is_the_same_to_the_bit(exposure):
    exposed, again = (fit(**exposure)[0] for _ in range(2))
    assert same_weights(exposed, again)
    assert not same_weights(exposed, fit()[0])
    if "outliers" in exposure:
        assert not same_weights(exposed, fit(outliers=OUTLIERS, flip=exposure.get("flip", False))[0])


@pytest.mark.parametrize("name", ["twins", "degraded", "noise levels"])
def test_settings_of_an_exposure_are_heard(name):
    others = {
        "twins": {"twins": 255 - TWINS["twins"]},
        "degraded": {"degrade": 0.5},
        "noise levels": {"noise_levels": (0.3, 0.6)},
    }
    exposed = fit(**EXPOSURES[name])[0]
    assert not same_weights(exposed, fit(**EXPOSURES[name] | others[name])[0])
    assert not same_weights(exposed, fit(**EXPOSURES[name], seed=1)[0])


@pytest.mark.parametrize(
    "off",
    [{"degrade": 0.0}, {"noise_levels": None, "clean_share": 0.9}, {"twins": None, "twin_labels": None}],
)
@pytest.mark.parametrize("outliers", [None, OUTLIERS], ids=["plain", "with outliers"])
def test_what_is_off_changes_nothing_to_the_bit(off, outliers):
    assert same_weights(fit(outliers=outliers, **off)[0], fit(outliers=outliers)[0])


def test_clean_outliers_at_noise_levels_are_plain_ones_but_for_rounding():
    clean = fit(outliers=OUTLIERS, noise_levels=(0.3, 1.0), clean_share=1.0)[0]
    assert_close(clean.state_dict(), fit(outliers=OUTLIERS)[0].state_dict(), rtol=1e-3, atol=1e-4)


class Steps:
    """What the network and its head are shown in each step."""

    def __init__(self, monkeypatch):
        self.images, self.labels, self.logits = [], [], []
        features, head = Detector.features, HEADS["arcface"].training_logits

        def note_images(detector, images):
            self.images.append(images.clone())
            return features(detector, images)

        def note_labels(of, given, labels):
            self.labels.append(labels.clone())
            self.logits.append(head(of, given, labels))
            return self.logits[-1]

        monkeypatch.setattr(Detector, "features", note_images)
        monkeypatch.setattr(HEADS["arcface"], "training_logits", note_labels)

    @property
    def sizes(self):
        return [(len(images), len(labels)) for images, labels in zip(self.images, self.labels, strict=True)]


def channels_first(images):
    return torch.tensor(images).permute(0, 3, 1, 2)


@pytest.fixture
def unshifted(monkeypatch):
    monkeypatch.setattr(train, "augment", lambda images, flip, random: images)


def test_twins_are_id_images_beside_their_outliers(monkeypatch, unshifted):
    steps = Steps(monkeypatch)
    fit(**TWINS, epochs=1)
    assert steps.sizes == [(16 + 8 + 8, 16 + 8)] * 3
    taken = torch.stack(take(40, 8, 3, (0, "outlier order")))
    for images, labels, of in zip(steps.images, steps.labels, taken, strict=True):
        assert torch.equal(images[16:24], channels_first(TWINS["twins"])[of])
        assert labels[16:].tolist() == TWINS["twin_labels"][of].tolist()
        assert torch.equal(images[24:], channels_first(OUTLIERS)[of])


def test_twins_are_learned_as_their_class():
    grey = np.random.default_rng(0).integers(100, 156, (40, 8, 8, 1), np.uint8)
    labels = np.full(40, 3)
    detector, _ = fit(
        make_detector("softmax"),
        epochs=7,
        outliers=OUTLIERS,
        twins=grey,
        twin_labels=labels,
        outlier_weight=0.1,
    )
    assert (detector.classify(grey)[0].argmax(1) == 3).mean() > 0.9


def test_twins_without_a_class_each_are_refused():
    with pytest.raises(InputError, match="expected one for each of 40 images, from 0 to 7"):
        fit(**TWINS | {"twin_labels": TWINS["twin_labels"][:39]})
    for wrong in ({"twins": TWINS["twins"][:, :4]}, {"twins": TWINS["twins"][:10]}, {"twin_labels": None}):
        with pytest.raises(InputError, match=r"expected one of the outliers' shape \(40, 8, 8, 1\) for each"):
            fit(**TWINS | wrong)
    with pytest.raises(InputError, match="expected one of the outliers' shape"):
        fit(**TWINS | {"outliers": None})


def test_a_double_batch_is_twice_as_many_id_images_in_as_many_steps(monkeypatch, unshifted):
    steps = Steps(monkeypatch)
    _, history = fit(double_batch=True)
    assert steps.sizes == [(32, 32)] * 6 and history["step"].tolist() == [1, 2, 3, 4, 5, 6]
    seen = torch.cat(take(48, 32, 6, (0, "ID order")))
    assert torch.equal(torch.cat(steps.images), channels_first(IMAGES)[seen])
    assert torch.bincount(seen).tolist() == [4] * 48  # of two epochs


@pytest.fixture
def nuisances(monkeypatch):
    """Notes what is degraded, which turns it into its negative instead."""
    calls = []

    def invert(images, strength, random):
        calls.append((len(images), strength, random))
        return 255 - images

    monkeypatch.setattr(train, "degrade", invert)
    return calls


@pytest.mark.parametrize("with_twins", [False, True])
def test_id_images_are_seen_as_they_are_and_degraded_and_every_other_outlier_is(
    monkeypatch, unshifted, nuisances, with_twins
):
    steps, exposure = Steps(monkeypatch), TWINS if with_twins else dict(outliers=OUTLIERS)
    fit(**exposure, epochs=1, degrade=0.7)
    count = 24 if with_twins else 16
    assert steps.sizes == [(2 * count + 8, 2 * count)] * 3
    taken = torch.stack(take(40, 8, 3, (0, "outlier order")))
    for images, labels, of in zip(steps.images, steps.labels, taken, strict=True):
        assert torch.equal(images[count : 2 * count], 255 - images[:count])
        assert torch.equal(labels[count:], labels[:count])
        outliers = channels_first(OUTLIERS)[of]
        outliers[::2] = 255 - outliers[::2]
        assert torch.equal(images[2 * count :], outliers)
    assert [call[:2] for call in nuisances] == [(count, 0.7), (4, 0.7)] * 3
    assert len({id(random) for *_, random in nuisances}) == 1  # one distribution, one stream of draws


def test_id_images_are_degraded_without_outliers_too(monkeypatch, unshifted, nuisances):
    steps = Steps(monkeypatch)
    fit(epochs=1, degrade=0.7)
    assert steps.sizes == [(32, 32)] * 3 and len(steps.logits[0]) == 32
    assert torch.equal(steps.images[0][16:], 255 - steps.images[0][:16])


def test_degrading_leaves_the_images_of_the_next_epoch(monkeypatch, unshifted, nuisances):
    before = OUTLIERS.copy(), IMAGES.copy()
    steps = Steps(monkeypatch)
    fit(epochs=4, batch_size=48, outlier_batch_size=40, outliers=OUTLIERS, degrade=1.0)
    taken = torch.stack(take(40, 40, 4, (0, "outlier order")))
    for images, of in zip(steps.images, taken, strict=True):
        assert torch.equal(images[97::2], channels_first(OUTLIERS)[of[1::2]])
    assert np.array_equal(OUTLIERS, before[0]) and np.array_equal(IMAGES, before[1])


def test_outliers_are_noised_last_by_their_number_and_how_often_they_were_seen(
    monkeypatch, unshifted, nuisances
):
    made, calls = [], []

    class Levels:
        def __init__(self, *given):
            made.append(given)

        def __call__(self, images, index, times_seen):
            calls.append((images.clone(), [*map(int, index)], [*map(int, times_seen)]))
            return images // 2

    monkeypatch.setattr(train, "NoiseLevels", Levels)
    steps = Steps(monkeypatch)
    fit(
        outliers=OUTLIERS,
        noise_levels=(0.2, 0.9),
        clean_share=0.4,
        degrade=1.0,
        seed=5,
        outlier_batch_size=24,
    )
    assert made == [((0.2, 0.9), 0.4, 5)]
    taken, seen = take(40, 24, 6, (5, "outlier order")), dict.fromkeys(range(40), 0)
    for (images, index, times), of, shown in zip(calls, taken, steps.images, strict=True):
        assert index == of.tolist()
        for number, count in zip(index, times, strict=True):
            assert seen[number] == count
            seen[number] += 1
        expected = channels_first(OUTLIERS)[of]
        expected[::2] = 255 - expected[::2]
        assert torch.equal(images, expected) and torch.equal(shown[32:], images // 2)
    assert max(seen.values()) == 4


def test_noise_levels_without_outliers_change_nothing():
    assert same_weights(fit(noise_levels=(0.3, 1.0))[0], fit()[0])


def test_virtual_outliers_change_the_detector_once_their_memory_is_full(monkeypatch):
    plain, empty = fit()[0], fit(virtual_outliers=True)[0]
    assert same_weights(empty, plain)  # 48 images do not fill it
    monkeypatch.setattr(train, "VirtualOutliers", lambda classes: VirtualOutliers(classes, memory=40))
    full = [fit(virtual_outliers=True, epochs=4)[0] for _ in range(2)]
    assert same_weights(*full) and not same_weights(full[0], fit(epochs=4)[0])


@pytest.mark.parametrize(
    "given, message",
    [
        ({"outliers": OUTLIERS[:1]}, "the outliers are 1 image, expected 2 or more"),
        ({"outliers": OUTLIERS[:0]}, "expected N x 8 x 8 x 1"),
        ({"outliers": OUTLIERS, "outlier_targets": np.ones((40, 3))}, r"expected 40 outliers x 8 classes"),
        ({"outliers": OUTLIERS, "outlier_loss_weights": -np.ones(40)}, "must be 40 numbers of 0 or more"),
        ({"outliers": OUTLIERS, "virtual_outliers": True}, "are images or virtual, not both"),
    ],
)
def test_outliers_that_cannot_be_trained_on_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        fit(**given)


def outlier_loss(detector):
    features = detector.all_features(OUTLIERS)
    with torch.inference_mode():
        return uniform_cross_entropy(detector.head.logits(features)).item()


@pytest.mark.parametrize("head", ["softmax", "scaled_cosine", "arcface"])
def test_outlier_exposure_makes_outliers_more_uniform(head):
    plain, _ = fit(make_detector(head), epochs=7)
    exposed, _ = fit(make_detector(head), epochs=7, outliers=OUTLIERS, outlier_weight=1.0)
    assert outlier_loss(exposed) < outlier_loss(plain)


def first_batch(images, prefix, count):
    """The images of the first step as the network sees them, in one batch of all of them."""
    order = next(batches(count, count, generator(0, f"{prefix} order")))
    shifts = generator(0, "augmentation" if prefix == "ID" else "outlier augmentation")
    return augment(torch.tensor(images).permute(0, 3, 1, 2)[order], False, shifts), order


def test_batch_statistics_are_those_of_images_and_outliers_in_one_batch():
    detector = make_detector("softmax")
    before = copy.deepcopy(detector).train()
    fit(detector, epochs=1, batch_size=48, outliers=OUTLIERS, outlier_batch_size=40)
    both = torch.cat([first_batch(IMAGES, "ID", 48)[0], first_batch(OUTLIERS, "outlier", 40)[0]])
    before.features(both)
    assert_close(detector.backbone.bn1.running_mean, before.backbone.bn1.running_mean)


@pytest.mark.parametrize("epochs, batch_size, steps", [(1, 16, 3), (2, 16, 6), (1, 32, 2), (1, 1000, 1)])
def test_detector_takes_as_many_steps_as_its_epochs_hold(epochs, batch_size, steps):
    assert fit(epochs=epochs, batch_size=batch_size)[1]["step"].tolist() == list(range(1, steps + 1))


@pytest.mark.parametrize("count, epochs, steps", [(9, 20, 20), (9, 0.5, 1), (2, 3, 3), (1, 3, 2)])
def test_of_few_images_each_step_takes_all_and_an_epoch_is_a_step(count, epochs, steps, capsys):
    _, history = fit(images=(IMAGES[:count], LABELS[:count]), epochs=epochs, batch_size=128)
    assert history["step"].tolist() == list(range(1, steps + 1))
    told = f"detector: only {count} training images, so a step takes them all and not 128\n"
    assert capsys.readouterr().out.startswith(told)


def test_of_enough_images_nothing_is_told_of_the_batch(capsys):
    fit(epochs=1, batch_size=48)
    assert "only" not in capsys.readouterr().out


def test_training_of_few_images_goes_on_from_its_checkpoint(tmp_path, capsys):
    few = dict(images=(IMAGES[:9], LABELS[:9]), epochs=4, batch_size=128)
    whole, _ = fit(**few)
    fit(**few, checkpoints=tmp_path, checkpoint_every_s=0)
    max(tmp_path.glob("step-*")).unlink()
    resumed, _ = fit(**few | {"batch_size": 9}, checkpoints=tmp_path)  # which is the same training
    assert "training goes on after step 3" in capsys.readouterr().out
    assert same_weights(whole, resumed)


def test_detector_ends_in_evaluation_mode():
    assert not any(module.training for module in fit()[0].modules())


def weights_after_one_step(head, weight_decay):
    detector, _ = fit(make_detector(head), epochs=1, batch_size=48, weight_decay=weight_decay)
    return detector.head.weight, detector.backbone.conv1.weight


@pytest.mark.parametrize("head", [name for name in HEADS if name not in ("softmax", "logit_norm")])
def test_class_weights_of_cosine_heads_are_not_decayed(head):
    plain, decayed = weights_after_one_step(head, 0.0), weights_after_one_step(head, 0.5)
    assert torch.equal(decayed[0], plain[0])


def test_class_weights_of_softmax_are_decayed():
    plain, decayed = weights_after_one_step("softmax", 0.0), weights_after_one_step("softmax", 0.5)
    assert not torch.equal(decayed[0], plain[0])


@pytest.mark.parametrize("head", HEADS)
def test_backbone_is_decayed(head):
    plain, decayed = weights_after_one_step(head, 0.0), weights_after_one_step(head, 0.5)
    assert decayed[1].norm() < plain[1].norm()


def test_first_step_of_a_detector_is_nesterov_by_hand():
    detector = make_detector("softmax")
    before = copy.deepcopy(detector).train()
    fit(detector, epochs=1, batch_size=48, learning_rate=0.01, weight_decay=0.1)
    batch, order = first_batch(IMAGES, "ID", 48)
    before.head.loss(before.features(batch), torch.tensor(LABELS)[order]).backward()
    weight = before.backbone.conv1.weight
    expected = weight - 0.01 * 1.9 * (weight.grad + 0.1 * weight)
    assert_close(detector.backbone.conv1.weight, expected, rtol=1e-5, atol=1e-6)


def test_diverged_detector_is_told_on_one_line_with_its_step():
    told = r"^detector: the loss is (nan|inf) at step \d, where the learning rate is \S+; lower it$"
    with pytest.raises(InputError, match=told):
        fit(make_detector("softmax"), learning_rate=1e30)


def test_float_images_train_like_uint8():
    detector = make_detector()
    fit_detector(detector, IMAGES / 255, LABELS, DetectorTraining(epochs=1, batch_size=16, learning_rate=0.1))
    expected = make_detector()
    fit_detector(expected, IMAGES, LABELS, DetectorTraining(epochs=1, batch_size=16, learning_rate=0.1))
    assert same_weights(detector, expected)


def make_denoiser(precision="fp32"):
    return Denoiser(
        tuple("01234567"), (8, 8, 1), DenoiserModel(block_out_channels=(8, 16), precision=precision)
    )


def fit_tiny(denoiser=None, precision="fp32", **options):
    denoiser = denoiser or make_denoiser(precision)
    options = {"steps": 5, "batch_size": 16, **options}
    names = {name: f"denoiser_{name}" for name in ("steps", "batch_size", "learning_rate")}
    settings, others = parted(DenoiserTraining, {names.get(n, n): value for n, value in options.items()})
    return denoiser, fit_denoiser(denoiser, IMAGES, LABELS, settings, **others)


def test_denoiser_of_a_seed_is_the_same_to_the_bit():
    assert same_weights(fit_tiny()[0], fit_tiny()[0])


def test_denoiser_of_another_seed_is_another():
    assert not same_weights(fit_tiny(seed=0)[0], fit_tiny(seed=1)[0])


def test_loss_of_a_denoiser_falls():
    _, history = fit_tiny(steps=60, batch_size=32)
    assert history["loss"].iloc[-10:].mean() < 0.8 * history["loss"].iloc[:10].mean()


def test_denoiser_ends_in_evaluation_mode():
    assert not fit_tiny()[0].training


def test_denoiser_ends_with_the_average_of_its_weights():
    # A decay of 0 averages nothing and leaves the last weights; the average lags behind them.
    start, last, average = (d.label_embedding.weight for d in (make_denoiser(), *_last_and_average()))
    assert 0 < (average - start).norm() < (last - start).norm()


def _last_and_average():
    return fit_tiny(steps=20, ema_decay=0.0)[0], fit_tiny(steps=20)[0]


def test_label_dropout_of_1_never_trains_the_label_embedding():
    denoiser, _ = fit_tiny(label_dropout=1.0)
    assert_close(
        denoiser.label_embedding.weight, make_denoiser().label_embedding.weight, rtol=1e-5, atol=1e-7
    )


def test_label_dropout_does_not_shift_noise_and_order():
    # The first loss differs by the labels alone, which the untrained network hardly sees.
    none, some = (fit_tiny(steps=1, label_dropout=dropout)[1]["loss"][0] for dropout in (0.0, 0.5))
    assert none == pytest.approx(some, rel=0.02)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_denoiser_takes_its_number_of_steps(steps):
    assert fit_tiny(steps=steps)[1]["step"].tolist() == list(range(1, steps + 1))


def test_no_steps_train_no_denoiser():
    with pytest.raises(InputError, match=r"^denoiser_steps = 0 trains nothing, expected 1 or more$"):
        fit_tiny(steps=0)


def test_diverged_denoiser_is_told_on_one_line_with_its_step():
    told = r"^denoiser: the loss is (nan|inf) at step \d, where the learning rate is \S+; lower it$"
    with pytest.raises(InputError, match=told):
        fit_tiny(learning_rate=1e30)


@pytest.mark.parametrize("train", [fit, fit_tiny])
def test_loss_curve_has_step_and_loss(train):
    assert list(train()[1].columns) == ["step", "loss"]


@pytest.mark.parametrize("train", [fit, fit_tiny])
def test_training_leaves_the_global_random_state(train):
    before = torch.get_rng_state()
    train()
    assert torch.equal(torch.get_rng_state(), before)


def test_progress_keeps_a_hundred_means_of_the_loss():
    progress = Progress("work", 1000, 16)
    for step in range(1, 1001):
        progress.update(step, torch.tensor(float(step)), 0.1)
    assert progress.history[:2] == [{"step": 10, "loss": 5.5}, {"step": 20, "loss": 15.5}]
    assert len(progress.history) == 100


def test_progress_keeps_the_same_curve_however_often_it_looks_and_saves():
    losses = torch.rand(1000, generator=generator(0))
    plain, often = Progress("work", 1000, 16), Progress("work", 1000, 16, every_s=0, prints=False)
    for step, loss in enumerate(losses, start=1):
        plain.update(step, loss, 0.1)
        often.update(step, loss, 0.1)
        state = often.state_dict()
        often = Progress("work", 1000, 16, every_s=0, prints=False)
        often.load_state_dict(state)
    assert often.history == plain.history


def test_progress_prints_its_last_step(capsys):
    progress = Progress("work", 3, 16)
    for step in range(1, 4):
        progress.update(step, torch.tensor(2.0), 0.1)
    assert capsys.readouterr().out.startswith("work: step 3 of 3, loss 2.000, ")


def test_progress_is_a_bar_in_jupyterlab(capsys, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "01_train_ddpm.ipynb")
    progress = Progress("work", 200, 16, every_s=0)
    progress.load_state_dict({"step": 100, "history": [], "sum": 0.0, "count": 0})
    for step in range(101, 201):
        progress.update(step, torch.tensor(2.0), 0.1)
    out, err = capsys.readouterr()
    assert out == "" and progress.bar.n == 200 and progress.bar.disable  # it is closed
    assert "work:  50%" in err and "work: 100%" in err and "200/200" in err and "loss 2.000, " in err


def test_the_bar_tells_the_speed_since_training_began_or_was_resumed(capsys, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "01_train_ddpm.ipynb")
    progress = Progress("work", 1000, 16, every_s=0.2)
    progress.load_state_dict({"step": 500, "history": [], "sum": 0.0, "count": 0})
    for step in range(501, 541):
        time.sleep(0.01)
        progress.update(step, torch.tensor(2.0), 0.1)
    speeds = [float(speed) for speed in re.findall(r"([\d.]+)step/s", capsys.readouterr().err)]
    assert speeds and max(speeds) < 120  # a step takes 10 ms at least


def test_progress_tells_speed_and_time_left_since_it_was_resumed(capsys, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress("work", 200, 16)
    progress.load_state_dict({"step": 100, "history": [], "sum": 0.0, "count": 0})
    for step in range(101, 111):  # two seconds a step
        now[0] += 2
        progress.update(step, torch.tensor(1.0), 0.1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "work: step 103 of 200, loss 1.000, 8 images/s, 194 s left"
    assert len(lines) == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_progress_stops_at_a_loss_that_is_no_number_and_names_its_step(value):
    progress = Progress("work", 300, 16)
    progress.update(1, torch.tensor(1.0), 0.1)
    progress.update(2, torch.tensor(value), 0.25)
    told = f"^work: the loss is {value} at step 2, where the learning rate is 0.25; lower it$"
    with pytest.raises(InputError, match=told):
        progress.update(3, torch.tensor(value), 0.2)


def test_progress_stops_at_weights_that_are_no_numbers():
    weights = torch.ones(2, 3)
    progress = Progress("work", 3, 16, [weights])
    progress.update(1, torch.tensor(1.0), 0.1)
    weights[1, 2] = torch.inf
    with pytest.raises(InputError, match="work: the weights are not finite at step 2"):
        progress.update(2, torch.tensor(1.0), 0.1)


def test_progress_looks_at_the_loss_after_a_while_and_not_at_each_step(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress, looked = Progress("work", 100_000, 16), []
    usual = progress.check
    monkeypatch.setattr(progress, "check", lambda: (looked.append(progress.step), usual()))
    for step in range(1, 501):
        now[0] = step / 40
        progress.update(step, torch.tensor(1.0), 0.1)
    assert looked == [200, 400]  # every five seconds


@pytest.mark.parametrize("train", [fit, fit_tiny])
def test_bf16_trains_nearly_like_fp32(train):
    exact, rounded = train(), train(precision="bf16")
    assert not same_weights(exact[0], rounded[0])
    assert {weights.dtype for weights in rounded[0].parameters()} == {torch.float32}
    np.testing.assert_allclose(rounded[1]["loss"], exact[1]["loss"], rtol=0.05)


@pytest.mark.parametrize("head", HEADS)
def test_heads_see_float32_features_under_bf16(head, monkeypatch):
    seen = []
    usual = HEADS[head].training_logits

    def training_logits(self, features, labels):
        logits = usual(self, features, labels)
        seen.extend((features.dtype, logits.dtype, torch.is_autocast_enabled("cpu")))
        return logits

    monkeypatch.setattr(HEADS[head], "training_logits", training_logits)
    fit(make_detector(head, precision="bf16"), epochs=0.1)
    assert set(seen) == {torch.float32, False}


@pytest.mark.parametrize("train", [fit, fit_tiny])
def test_unknown_precision_is_refused_on_one_line(train):
    with pytest.raises(InputError, match=r"^precision = 'fp16' \(str\), expected one of fp32, bf16$"):
        train(precision="fp16")


def batches_seen(monkeypatch, **options):
    """The batches that the denoiser's loss gets, and all else it gets, with its network left out."""
    seen = []

    def loss(self, *given):
        seen.append(given)
        return self.label_embedding.weight.sum() + sum(0 * p.sum() for p in self.parameters())

    monkeypatch.setattr(Denoiser, "loss", loss)
    fit_tiny(steps=6, batch_size=48, **options)
    return seen


def test_flip_mirrors_half_of_the_images_and_changes_nothing_else(monkeypatch):
    plain, flipped = batches_seen(monkeypatch), batches_seen(monkeypatch, flip=True)
    mirrored = 0
    for first, second in zip(plain, flipped, strict=True):
        for image, changed in zip(first[0], second[0], strict=True):
            is_same, is_mirrored = torch.equal(image, changed), torch.equal(image.flip(2), changed)
            assert is_same or is_mirrored
            mirrored += not is_same
        assert all(torch.equal(a, b) for a, b in zip(first[1:], second[1:], strict=True))
    assert 0.4 < mirrored / (6 * 48) < 0.6


def test_denoiser_sees_images_from_minus_1_to_1(monkeypatch):
    batch = batches_seen(monkeypatch)[0][0]
    order = next(batches(48, 48, generator(0, "order")))
    assert_close(batch, torch.tensor(IMAGES[order]).permute(0, 3, 1, 2) / 127.5 - 1)


def test_compiled_denoiser_is_the_same(monkeypatch):
    compiled = []

    def compile(function):
        compiled.append(function)
        return lambda *given: function(*given)

    monkeypatch.setattr(torch, "compile", compile)
    assert same_weights(fit_tiny(compile=True)[0], fit_tiny()[0])
    assert len(compiled) == 1


def test_batch_that_processes_cannot_share_is_refused_on_one_line(monkeypatch):
    monkeypatch.setattr(diffusion_train, "launched", lambda device: (0, 3))
    with pytest.raises(
        InputError, match=r"^denoiser_batch_size 16 is shared by 3 processes; choose a multiple of 3$"
    ):
        fit_tiny()


def test_learned_scale_is_normalised_once_a_step_over_digits_and_outliers():
    detector = Detector(
        TRAIN.class_names,
        (8, 8, 1),
        [0.3],
        [0.4],
        DetectorModel(backbone="resnet_small", head="scaled_cosine"),
    )
    settings = DetectorTraining(batch_size=32, outlier_batch_size=32, epochs=1, learning_rate=1e-9)
    outliers = 255 - TRAIN.images[:64]
    fit_detector(detector, TRAIN.images[:64], TRAIN.labels[:64], settings, outliers=outliers)
    assert detector.head.scale_norm.num_batches_tracked == detector.backbone.bn1.num_batches_tracked == 2


@pytest.mark.parametrize(
    "labels",
    [TRAIN.labels[:63], np.full(64, 8), np.full(64, -1), TRAIN.labels[:64, None]],
    ids=["too few", "too high", "negative", "column"],
)
def test_labels_that_do_not_fit_are_refused_on_one_line(labels):
    detector = Detector(
        TRAIN.class_names, (8, 8, 1), [0.3], [0.4], DetectorModel(backbone="resnet_small", head="softmax")
    )
    with pytest.raises(InputError, match="expected one for each of 64 images, from 0 to 7"):
        fit_detector(detector, TRAIN.images[:64], labels, DetectorTraining(epochs=1, learning_rate=0.1))


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_every_head_trains_to_97_percent_with_the_make_settings(head):
    settings, test = make_settings(head=head), load("digits", "test")
    mean, std = (TRAIN.images / 255).mean(), (TRAIN.images / 255).std()
    detector = Detector(TRAIN.class_names, (8, 8, 1), [mean], [std], settings)
    fit_detector(detector, TRAIN.images, TRAIN.labels, settings)
    detector.fit_scores(TRAIN.images, TRAIN.labels, load("digits", "val").images)
    assert (detector.predict(test.images).classes == test.labels).mean() >= 0.97
