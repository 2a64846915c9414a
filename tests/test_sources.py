"""Each way to make outliers."""

import itertools

import numpy as np
import pytest
import torch

from oodlib import pretrained
from oodlib.datasets.loading import load
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.labels import label_weights, pair_weights
from oodlib.diffusion.sample import sample
from oodlib.errors import InputError
from oodlib.images import ImageSet
from oodlib.outliers import mixtures, sources
from oodlib.outliers.filters import fill
from oodlib.settings import DenoiserModel, Pool, Sampling

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning"),  # from inside diffusers
]

STEPS = dict(num_inference_steps=2)
TRAIN = load("digits", "train")
TRAIN = ImageSet(TRAIN.images[TRAIN.labels < 3][:60], TRAIN.labels[TRAIN.labels < 3][:60], ("0", "1", "2"))


@pytest.fixture(scope="module")
def denoiser():
    """A tiny, untrained denoiser of three classes."""
    return Denoiser(("0", "1", "2"), (8, 8, 1), DenoiserModel(block_out_channels=(8, 16)))


@pytest.fixture(scope="module")
def pool(denoiser):
    return sources.label_mixup(denoiser, range(12), seed=3, **STEPS)


class Torn:
    """A committee that takes bright images for the second class and dark ones for the first; class 2 gets a tenth."""

    class_names = ("0", "1", "2")
    members = property(lambda self: (self,))

    def probabilities(self, images):
        second = 0.9 / (1 + np.exp(-(images.mean((1, 2, 3)) - 80) / 10))
        return np.stack([0.9 - second, second, np.full(len(images), 0.1)], axis=1)

    def distances(self, images):
        return images.mean((1, 2, 3)) / 100


def pairs_of(pool):
    return [tuple(np.flatnonzero(row).tolist()) for row in pool.label_weights]


def test_label_mixtures_take_all_unordered_pairs_in_turn(pool):
    assert pairs_of(pool) == list(itertools.combinations(range(3), 2)) * 4


def test_label_mixtures_are_what_sample_draws_for_their_label_weights(denoiser, pool):
    weights = torch.tensor(pool.label_weights)
    assert torch.equal(weights, pair_weights(pairs_of(pool), 3))
    assert np.array_equal(pool.images, sample(denoiser, weights, seed=3, **STEPS))


def test_label_mixtures_have_the_types_they_tell_and_differ_from_each_other(pool):
    assert (pool.images.dtype, pool.images.shape, pool.label_weights.dtype) == (
        np.uint8,
        (12, 8, 8, 1),
        np.float32,
    )
    assert len({image.tobytes() for image in pool.images}) == 12


def makers(denoiser):
    return {
        "label_mixup": lambda index: sources.label_mixup(denoiser, index, **STEPS),
        "three_way": lambda index: sources.label_mixup(denoiser, index, mixed_classes=3, **STEPS),
        "cmg": lambda index: sources.cmg(denoiser, index, **STEPS),
        "early_stopped": lambda index: sources.early_stopped(denoiser, index, **STEPS),
        "pixel_mixup": lambda index: sources.pixel_mixup(TRAIN, index),
        "uniform_noise": lambda index: sources.uniform_noise(TRAIN, index),
        "real": lambda index: sources.real(TRAIN, TRAIN.images, index),
        "twins": lambda index: sources.label_mixup(denoiser, index, twins="id", **STEPS),
        "weightless": lambda index: sources.weightless(denoiser, index, **STEPS),
        "rounded_mixup": lambda index: sources.rounded_mixup(denoiser, TRAIN, index, **STEPS),
        "crisp_mixup": lambda index: sources.crisp_mixup(denoiser, TRAIN, index, **STEPS),
        "boundary_mixup": lambda index: sources.boundary_mixup(
            denoiser, Torn(), index, num_inference_steps=1
        ),
        "regenerated": lambda index: sources.regenerated(denoiser, TRAIN, index),
        "training_images": lambda index: sources.training_images(TRAIN, index),
        "cut_mixup": lambda index: sources.cut_mixup(TRAIN, index),
        "shuffled_pixels": lambda index: sources.shuffled_pixels(TRAIN, index),
    }


ROUNDED = ("rounded_mixup", "crisp_mixup")


@pytest.mark.parametrize("name", makers(None))
def test_an_outlier_depends_on_its_number_alone(denoiser, name):
    make = makers(denoiser)[name]
    whole, part = make(range(8)).take(slice(5, 8)), make(range(5, 8))
    for images in ("images", "twins"):
        if getattr(whole, images) is not None:
            apart = np.abs(getattr(whole, images).astype(int) - getattr(part, images))
            # Rounding in batches of another size; a level of the digits where it is rounded again, or put in order.
            assert np.quantile(apart, 0.9) <= 1 and apart.max() <= (20 if name in ROUNDED else 1)
    for array in ("label_weights", "loss_weights", "twin_labels"):
        assert np.array_equal(getattr(whole, array), getattr(part, array))


def test_mix_and_mixing_weight_reach_the_label_weights(denoiser):
    pool = sources.label_mixup(denoiser, range(1), mix="convex", mix_weight=0.25, num_inference_steps=1)
    assert pool.label_weights[0].tolist() == [0.75, 0.25, 0.0]


@pytest.mark.parametrize("mix", ["sum", "convex"])
def test_more_classes_are_mixed_at_equal_weights(denoiser, mix):
    pool = sources.label_mixup(denoiser, range(2), mixed_classes=3, mix=mix, num_inference_steps=1)
    assert np.array_equal(pool.label_weights, label_weights(torch.ones(2, 3), mix).numpy())


def test_one_class_cannot_be_mixed():
    alone = Denoiser(("a",), (8, 8, 1), DenoiserModel(block_out_channels=(8, 16)))
    with pytest.raises(InputError, match="label mixup of 2 classes needs as many, there are 1"):
        sources.label_mixup(alone, range(1))


def test_a_masked_embedding_has_each_component_from_one_of_the_two_classes(denoiser, monkeypatch):
    given = {}

    def note(denoiser, weights, **options):
        given.update(options)
        return sample(denoiser, weights, **options)

    monkeypatch.setattr(mixtures, "sample", note)
    pool = sources.cmg(denoiser, range(6), **STEPS)
    by_class = denoiser.label_embedding.weight.T
    for (a, b), embedding in zip(pairs_of(pool), given["label_embeddings"], strict=True):
        from_a, from_b = embedding == by_class[a], embedding == by_class[b]
        assert (from_a | from_b).all() and from_a.any() and from_b.any()


def test_pure_classes_come_in_turn(denoiser):
    pool = sources.early_stopped(denoiser, range(4), **STEPS)
    assert pool.label_weights.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert np.array_equal(pool.images[:3], sample(denoiser, torch.eye(3), **STEPS)[:3])


def test_a_pixel_mixture_is_the_mean_of_an_image_of_each_class():
    pool = sources.pixel_mixup(TRAIN, range(3))
    first, second = (TRAIN.images[TRAIN.labels == c].astype(float) for c in (0, 1))
    means = ((first[:, None] + second[None]) / 2).reshape(-1, 8, 8, 1)
    assert pool.label_weights[0].tolist() == [0.5, 0.5, 0]
    assert np.abs(means - pool.images[0]).reshape(len(means), -1).max(1).min() <= 0.5


def test_uniform_noise_takes_all_grey_levels_alike_and_has_no_class():
    pool = sources.uniform_noise(TRAIN, range(200))
    assert pool.images.min() == 0 and pool.images.max() == 255
    assert pool.images.mean() == pytest.approx(127.5, abs=2)
    assert pool.images.shape[1:] == (8, 8, 1) and not pool.label_weights.any()


def test_twins_are_drawn_from_their_mixture_s_noise_for_one_of_its_classes_by_turns(denoiser, pool):
    twinned = sources.label_mixup(denoiser, range(12), seed=3, twins="id", **STEPS)
    assert np.array_equal(twinned.images, pool.images) and pool.twins is None
    assert np.array_equal(twinned.label_weights, pool.label_weights)
    pairs, labels = pairs_of(pool), twinned.twin_labels
    assert labels.tolist() == [pair[i // 3 % 2] for i, pair in enumerate(pairs)]  # 3 pairs a round
    one_class = torch.eye(3)[torch.tensor(labels)]
    assert np.array_equal(twinned.twins, sample(denoiser, one_class, seed=3, noise_index=range(12), **STEPS))


def test_twins_of_three_classes_take_them_by_turns(denoiser):
    pool = sources.label_mixup(denoiser, range(4), mixed_classes=3, twins="id", num_inference_steps=1)
    assert pool.twin_labels.tolist() == [0, 1, 2, 0]


def test_twins_are_drawn_as_their_mixtures_are(denoiser):
    options = dict(guidance_scale=3.0, scheduler="ddim", init="uniform", **STEPS)
    pool = sources.label_mixup(denoiser, range(3), twins="id", **options)
    assert np.array_equal(
        pool.twins, sample(denoiser, torch.eye(3)[torch.tensor(pool.twin_labels)], **options)
    )


@pytest.mark.parametrize("name", ["placebo", "distant_placebo"])
def test_a_placebo_is_drawn_for_one_hot_labels_in_the_place_of_mixtures_that_pass(denoiser, name):
    """The same noise, the same choice by the mixture, and no class mixed."""
    mixtures = sources.label_mixup(denoiser, range(200), seed=5, **STEPS)
    distances = Torn().distances(mixtures.images)
    window = tuple(np.quantile(distances, [0.4, 0.9])) if name == "distant_placebo" else (0, np.inf)
    numbers = np.flatnonzero((distances >= window[0]) & (distances <= window[1]))[:6]
    assert (numbers.tolist() == [*range(6)]) == (name == "placebo")
    pool, _ = fill(
        bound(name, denoiser, num_inference_steps=2, seed=5), 6, Torn(), twins="outliers", distance=window
    )
    labels = [pairs_of(mixtures)[i][i // 3 % 2] for i in numbers]
    expected = sample(denoiser, torch.eye(3)[labels], seed=5, noise_index=numbers.tolist(), **STEPS)
    assert pool.label_weights.tolist() == np.eye(3)[labels].tolist() and pool.twins is None
    assert np.abs(pool.images.astype(int) - expected).max() <= 1  # rounding in batches of another size


def test_weightless_mixtures_are_seen_and_count_nothing(denoiser, pool):
    made = sources.weightless(denoiser, range(12), seed=3, **STEPS)
    assert np.array_equal(made.images, pool.images)
    assert made.loss_weights.tolist() == [0] * 12 and made.loss_weights.dtype == np.float32


def test_a_rounded_mixture_has_the_nearest_values_that_training_images_have(denoiser, pool):
    made = sources.rounded_mixup(denoiser, TRAIN, range(12), seed=3, **STEPS)
    levels = np.unique(TRAIN.images)
    assert np.isin(made.images, levels).all() and len(levels) == 17
    nearest = np.abs(pool.images.astype(int) - levels.astype(int)).min(-1, keepdims=True)
    assert np.array_equal(np.abs(made.images.astype(int) - pool.images), nearest)
    assert np.array_equal(made.label_weights, pool.label_weights)


def test_a_crisp_mixture_has_the_values_of_a_training_image_in_its_own_order(denoiser, pool):
    made = sources.crisp_mixup(denoiser, TRAIN, range(12), seed=3, **STEPS)
    values = [np.sort(image.ravel()).tolist() for image in made.images]
    assert all(v in [np.sort(image.ravel()).tolist() for image in TRAIN.images] for v in values)
    assert len({tuple(v) for v in values}) > 8  # of training images of their own
    for mixture, image in zip(pool.images, made.images, strict=True):
        order = mixture.ravel().argsort(kind="stable")
        assert (np.diff(image.ravel()[order].astype(int)) >= 0).all()
    assert np.array_equal(made.label_weights, pool.label_weights) and made.images.shape == pool.images.shape


def test_a_crisp_mixture_in_colour_has_each_channel_s_values_of_one_image():
    colour = Denoiser(("a", "b"), (8, 8, 3), DenoiserModel(block_out_channels=(8, 16)))
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
    train = ImageSet(images, np.arange(9) % 2, ("a", "b"))
    made = sources.crisp_mixup(colour, train, range(4), num_inference_steps=1)
    known = {np.sort(image.reshape(64, 3), axis=0).tobytes() for image in images}
    assert {np.sort(image.reshape(64, 3), axis=0).tobytes() for image in made.images} <= known


@pytest.fixture(scope="module")
def shipped():
    """The trained denoiser that ships, which draws classes apart."""
    return Denoiser.load(pretrained.FOLDER / "digits" / "denoiser")


def test_a_boundary_mixture_tears_a_committee_more_than_equal_weights_do(shipped):
    class Inked(Torn):
        """Tells the first two classes by how much of the middle is inked: a 1 has it filled, a 0 empty."""

        def probabilities(self, images):
            ink = images[:, 2:6, 3:5].mean((1, 2, 3))
            second = 1 / (1 + np.exp(-(ink - 120) / 15))
            rest = np.zeros((len(images), 6))
            return np.concatenate([(1 - second)[:, None], second[:, None], rest], axis=1)

    index = range(0, 28 * 12, 28)  # the pair (0, 1) twelve times
    torn, equal = (
        Inked().probabilities(pool.images)
        for pool in (sources.boundary_mixup(shipped, Inked(), index), sources.label_mixup(shipped, index))
    )
    gap, plain = np.abs(torn[:, 0] - torn[:, 1]).mean(), np.abs(equal[:, 0] - equal[:, 1]).mean()
    assert gap < 0.6 * plain and plain > 0.3


def test_a_boundary_mixture_is_what_is_drawn_at_the_last_of_six_weights_by_hand(denoiser, monkeypatch):
    """For a committee that is torn at the weight 0.3, whatever it is shown."""
    weights = []

    def note(denoiser, given, **options):
        weights.append(given)
        return sample(denoiser, given, **options)

    class At(Torn):
        def probabilities(self, images):
            second = weights[-1][:, 1] / (weights[-1].sum(1)) > 0.3
            return np.stack([~second, second, np.zeros(len(images), bool)], axis=1).astype(float)

    monkeypatch.setattr(mixtures, "sample", note)
    made = sources.boundary_mixup(denoiser, At(), range(0, 6, 3), mix="convex", num_inference_steps=1, seed=2)
    tried = [0.5, 0.25, 0.375, 0.3125, 0.28125, 0.296875]
    assert [w[0].tolist() for w in weights] == [[1 - b, b, 0] for b in tried]
    assert made.label_weights.tolist() == [[1 - tried[-1], tried[-1], 0]] * 2
    expected = sample(
        denoiser, torch.tensor(made.label_weights), seed=2, noise_index=[0, 3], num_inference_steps=1
    )
    assert np.array_equal(made.images, expected)


def test_boundary_mixtures_take_all_pairs_in_turn(denoiser):
    made = sources.boundary_mixup(denoiser, Torn(), range(6), num_inference_steps=1)
    assert pairs_of(made) == list(itertools.combinations(range(3), 2)) * 2


def test_a_regenerated_image_resembles_its_own_training_image_and_is_not_it(shipped):
    train = load("digits", "train")
    made = sources.regenerated(shipped, train, range(30))
    apart = np.abs(made.images[:, None].astype(float) - train.images[None, :200]).mean((2, 3, 4))
    own = apart[range(30), range(30)]
    assert (own < np.median(apart, axis=1)).all() and own.mean() < 0.7 * apart.mean()
    same = [apart[i, np.flatnonzero(train.labels[:200] == train.labels[i])] for i in range(30)]
    assert np.mean([(of < o).mean() < 0.3 for of, o in zip(same, own, strict=True)]) > 0.8 and own.min() > 0
    assert made.label_weights.tolist() == np.eye(8)[train.labels[:30]].tolist()


def test_images_are_regenerated_half_way_under_their_label_with_noise_of_the_seed(denoiser, monkeypatch):
    given = []

    def note(denoiser, images, noise, start, labels):
        given.append((images, noise, start, labels))
        return images, images

    monkeypatch.setattr(mixtures, "reconstruct", note)
    for seed in (0, 0, 1):
        made = sources.regenerated(denoiser, TRAIN, range(58, 62), seed=seed)
        assert np.array_equal(made.images, TRAIN.images[[58, 59, 0, 1]])  # in turn
    assert {start for _, _, start, _ in given} == {499}
    assert torch.equal(given[0][3], torch.eye(3)[TRAIN.labels[[58, 59, 0, 1]]])
    assert torch.equal(given[0][1], given[1][1]) and not torch.isclose(given[0][1], given[2][1]).any()
    assert len(given[0][1].unique()) == 4 * 64


def test_training_images_come_in_turn_with_their_class():
    pool = sources.training_images(TRAIN, range(58, 63))
    assert np.array_equal(pool.images, TRAIN.images[[58, 59, 0, 1, 2]])
    assert pool.label_weights.tolist() == np.eye(3)[TRAIN.labels[[58, 59, 0, 1, 2]]].tolist()
    assert pool.label_weights.dtype == np.float32


def test_real_images_come_in_their_order_and_end_where_the_set_does():
    pool = sources.real(TRAIN, TRAIN.images, range(50, 70))
    assert np.array_equal(pool.images, TRAIN.images[50:60]) and pool.label_weights.shape == (10, 3)


IMAGE_SOURCES = [name for name, source in sources.SOURCES.items() if source.draw]


def bound(name, denoiser, **values):
    """A source of the registry with what the settings and the source itself bring."""
    settings = {"num_inference_steps": 1, "seed": 0, **sources.SOURCES[name].settings, **values}
    resources = {
        "denoiser": lambda: denoiser,
        "early_denoiser": lambda: denoiser,
        "train": lambda: TRAIN,
        "committee": Torn,
        "real_images": lambda: TRAIN.images,
    }
    return sources.bind(sources.SOURCES[name], settings, resources)


@pytest.mark.parametrize("name", IMAGE_SOURCES)
def test_every_source_makes_images_of_the_denoisers_size(denoiser, name):
    pool = bound(name, denoiser)(range(4))
    assert pool.images.shape == (4, 8, 8, 1) and pool.label_weights.shape == (4, 3)


def test_sources_without_images_draw_nothing():
    assert set(sources.SOURCES) - set(IMAGE_SOURCES) == {"none", "vos", "double_batch"}
    assert {name for name, source in sources.SOURCES.items() if source.doubles_batch} == {"double_batch"}
    assert not any(source.takes for source in sources.SOURCES.values() if source.draw is None)


def test_the_pool_of_matched_mixtures_keeps_its_twins_as_id_images(denoiser):
    pool, _ = fill(bound("matched", denoiser), 4, Torn(), twins=sources.SOURCES["matched"].settings["twins"])
    assert np.array_equal(pool.images, bound("label_mixup", denoiser)(range(4)).images)
    assert pool.twins.shape == pool.images.shape and len(pool.twin_labels) == 4


def test_distant_mixtures_are_farther_from_training_images_than_unseen_id_images_are():
    low, high = sources.SOURCES["distant_mixup"].settings["distance"]
    assert 1 < low < high and sources.SOURCES["distant_placebo"].settings["distance"] == (low, high)


def test_the_default_pool_is_a_mixture_and_no_control_is():
    controls = (
        "placebo",
        "distant_placebo",
        "matched",
        "weightless",
        "rounded_mixup",
        "crisp_mixup",
        "regenerated",
    )
    assert not any(sources.SOURCES[name].mixes_labels for name in controls)
    assert sources.SOURCES[Pool().outliers].mixes_labels


def test_a_source_brings_values_only_of_settings_that_are_none_unless_chosen():
    defaults = {**Pool().model_dump(), **Sampling().model_dump()}
    own = {name for name, value in defaults.items() if value is None}
    assert all(set(source.settings) <= own for source in sources.SOURCES.values())


def test_guidance_tells_weak_and_strong_mixtures_apart(denoiser):
    weak, strong = (bound(f"{name}_guidance", denoiser)(range(3)).images for name in ("weak", "strong"))
    assert not np.array_equal(weak, strong)


def test_a_source_is_given_only_what_it_takes():
    def draw(index, *, train, seed):
        return train, seed, index

    resources = {"train": lambda: TRAIN, "denoiser": lambda: pytest.fail("it takes no denoiser")}
    draw = sources.bind(sources.Source(draw), {"seed": 3, "mix": "sum"}, resources)
    assert draw(range(2)) == (TRAIN, 3, range(2))


@pytest.mark.parametrize("name", IMAGE_SOURCES)
def test_only_what_the_denoiser_draws_needs_one(name):
    of_images = ("pixel_mixup", "cut_mixup", "shuffled_pixels", "training_images", "uniform_noise", "real")
    needs = name not in of_images
    assert bool(sources.SOURCES[name].takes & {"denoiser", "early_denoiser"}) == needs


def test_no_more_combinations_of_classes_are_made_than_asked_for(monkeypatch):
    def three_and_no_more(classes, count):
        yield from ((0, 1, 2, 3, 4), (0, 1, 2, 3, 5), (0, 1, 2, 3, 6))
        pytest.fail("a fourth was made")

    monkeypatch.setattr(itertools, "combinations", three_and_no_more)
    assert sources.class_combinations(100, 5, range(3))[2] == (0, 1, 2, 3, 6)


def test_combinations_begin_anew_after_the_last():
    assert sources.class_combinations(3, 2, range(2, 5)) == [(1, 2), (0, 1), (0, 2)]


def test_cut_mixtures_have_half_of_their_pixels_from_each_of_two_images_of_two_classes():
    pool, picked = sources.cut_mixup(TRAIN, range(40)), sources._pairs(TRAIN, range(40), 0)
    first, second = (TRAIN.images[members] for members in picked.T)
    assert ((pool.images == first) | (pool.images == second)).all()
    assert (TRAIN.labels[picked[:, 0]] != TRAIN.labels[picked[:, 1]]).all()
    differ = (first != second).any(-1)
    share = np.mean([(i != f).any(-1)[d].mean() for i, f, d in zip(pool.images, first, differ, strict=True)])
    assert 0.35 < share < 0.65 and np.allclose(pool.label_weights.max(1), 0.5)


def test_shuffled_pixels_are_half_of_the_image_s_own_in_another_order():
    pool = sources.shuffled_pixels(TRAIN, range(40))
    own = TRAIN.images[np.arange(40) % len(TRAIN.images)]
    flat = (40, -1)
    assert np.array_equal(np.sort(pool.images.reshape(flat)), np.sort(own.reshape(flat)))
    moved = (pool.images != own).reshape(flat).mean(1)
    assert moved.max() <= 0.5 and moved.mean() > 0.2  # many of those moved are black as before
