"""Each way to make outliers."""

import itertools

import numpy as np
import pytest
import torch

from oodlib.datasets.loading import load
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.labels import label_weights, pair_weights
from oodlib.diffusion.sample import sample
from oodlib.errors import InputError
from oodlib.images import ImageSet
from oodlib.outliers import sources
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
    }


@pytest.mark.parametrize("name", makers(None))
def test_an_outlier_depends_on_its_number_alone(denoiser, name):
    make = makers(denoiser)[name]
    whole, part = make(range(8)), make(range(5, 8))
    apart = np.abs(whole.images[5:].astype(int) - part.images)
    assert apart.max() <= 1  # rounding in batches of another size
    assert np.array_equal(whole.label_weights[5:], part.label_weights)


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

    monkeypatch.setattr(sources, "sample", note)
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
        "real_images": lambda: TRAIN.images,
    }
    return sources.bind(sources.SOURCES[name], settings, resources)


@pytest.mark.parametrize("name", IMAGE_SOURCES)
def test_every_source_makes_images_of_the_denoisers_size(denoiser, name):
    pool = bound(name, denoiser)(range(4))
    assert pool.images.shape == (4, 8, 8, 1) and pool.label_weights.shape == (4, 3)


def test_sources_without_images_draw_nothing():
    assert set(sources.SOURCES) - set(IMAGE_SOURCES) == {"none", "vos"}


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
    needs = name not in ("pixel_mixup", "uniform_noise", "real")
    assert bool(sources.SOURCES[name].takes & {"denoiser", "early_denoiser"}) == needs


def test_no_more_combinations_of_classes_are_made_than_asked_for(monkeypatch):
    def three_and_no_more(classes, count):
        yield from ((0, 1, 2, 3, 4), (0, 1, 2, 3, 5), (0, 1, 2, 3, 6))
        pytest.fail("a fourth was made")

    monkeypatch.setattr(itertools, "combinations", three_and_no_more)
    assert sources.class_combinations(100, 5, range(3))[2] == (0, 1, 2, 3, 6)


def test_combinations_begin_anew_after_the_last():
    assert sources.class_combinations(3, 2, range(2, 5)) == [(1, 2), (0, 1), (0, 2)]
