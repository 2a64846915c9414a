"""Gains of detectors over others, and their intervals."""

import itertools
from functools import cache

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from oodlib.datasets.roles import ID_TEST, Role
from oodlib.errors import InputError
from oodlib.reports import bootstrap
from oodlib.reports.bootstrap import ALL_HEADS, DEGRADED, MEAN, SHIFTED, gains

SIZES = {  # role and number of images of each set
    ID_TEST: ("id", 40),
    "held_out": ("near", 30),
    "letters": ("far", 20),
    "symbols": ("far", 25),
    "uniform": ("noise", 15),
    "id_darker": ("degraded_id", 40),
    "id_noisy": ("degraded_id", 40),
    "id_turned": ("shifted_id", 40),
}


def detector(shift=1.0, seed=0, threshold=0.0, sizes=SIZES):
    """The images of a detector whose ID scores lie `shift` above its OOD scores; of ID images a share is right."""
    random = np.random.default_rng(seed)
    tables = []
    for name, (role, size) in sizes.items():
        is_ood = Role(role).is_ood
        score = random.normal(0 if is_ood else shift, 1, size)
        right = pd.Series(pd.NA if is_ood else random.random(size) < 0.8, range(size), dtype="boolean")
        tables.append(pd.DataFrame({"set": name, "role": role, "score": score, "correct": right}))
    table = pd.concat(tables, ignore_index=True)
    return table.assign(called_ood=table["score"] < threshold)


def made_with_denoiser(name):
    return name in ("mixup", "placebo")


def trained(shift=lambda o, d, s: 1.0, heads=("arcface",), denoisers=(1, 2), seeds=(0, 1, 2), **outliers):
    """Detectors of each head and condition: `none` has no denoiser, `mixup` and `placebo` one each."""
    found = []
    for head, name in itertools.product(heads, ("none", "mixup", "placebo")):
        for d, s in itertools.product(denoisers if made_with_denoiser(name) else (0,), seeds):
            number = heads.index(head) * 1000 + ("none", "mixup", "placebo").index(name) * 100 + 10 * d + s
            found.append(((head, name, d, s), detector(shift(name, d, s), number)))
    return found


ALL = trained(lambda name, d, s: {"none": 1.0, "mixup": 1.5, "placebo": 1.2}[name])
MIXUP = ("arcface", "mixup", "none")


def table(detectors=ALL, comparisons=(MIXUP,), draws=100, seed=0):
    made = gains(iter(detectors), comparisons, made_with_denoiser, draws, seed)
    return made.set_index(["head", "outliers", "reference", "set", "metric"])


@cache
def usual():
    return table()


def row(found, name, metric="auroc", comparison=MIXUP):
    return found.loc[(*comparison, name, metric)]


def by_hand(images, name, metric="auroc"):
    of_set, id_test = (images[images["set"] == key] for key in (name, ID_TEST))
    if metric == "auroc":
        labels = np.repeat([1, 0], [len(id_test), len(of_set)])
        return roc_auc_score(labels, np.concatenate([id_test["score"], of_set["score"]]))
    return of_set[{"called_ood": "called_ood", "id_accuracy": "correct"}[metric]].astype(float).mean()


def mean_of(outliers, *what):
    return np.mean([by_hand(images, *what) for key, images in ALL if key[1] == outliers])


CASES = [(name, "auroc") for name, (role, _) in SIZES.items() if Role(role).is_ood]
CASES += [
    (name, m) for name, (r, _) in SIZES.items() if not Role(r).is_ood for m in ("called_ood", "id_accuracy")
]


@pytest.mark.parametrize("name, metric", CASES)
def test_estimates_are_means_over_denoisers_and_seeds(name, metric):
    """A condition without a denoiser is paired with all."""
    found = row(usual(), name, metric)
    assert found["value"] == pytest.approx(mean_of("mixup", name, metric))
    assert found["reference_value"] == pytest.approx(mean_of("none", name, metric))
    assert found["change"] == pytest.approx(found["value"] - found["reference_value"])
    assert (found["denoisers"], found["seeds"]) == (2, 3) and found["low"] < found["change"] < found["high"]


@pytest.mark.parametrize(
    "group, metric, sets",
    [
        (MEAN, "auroc", ["held_out", "letters", "symbols", "uniform"]),
        ("natural sets", "auroc", ["held_out", "letters", "symbols"]),
        ("near sets", "auroc", ["held_out"]),
        ("noise sets", "auroc", ["uniform"]),
        (DEGRADED, "called_ood", ["id_darker", "id_noisy"]),
        (SHIFTED, "called_ood", ["id_turned"]),
        (DEGRADED, "id_accuracy", ["id_darker", "id_noisy"]),
    ],
)
def test_groups_are_means_over_their_sets(group, metric, sets):
    found = usual()
    for column in ("value", "reference_value", "change"):
        expected = np.mean([row(found, name, metric)[column] for name in sets])
        assert row(found, group, metric)[column] == pytest.approx(expected)
    if len(sets) == 1:
        assert row(found, group, metric).equals(row(found, sets[0], metric))


def test_rows_are_those_of_sets_and_groups_and_nothing_else():
    groups = [(MEAN, "auroc"), ("natural sets", "auroc"), ("near sets", "auroc"), ("noise sets", "auroc")]
    groups += [(group, metric) for group in (SHIFTED, DEGRADED) for metric in ("called_ood", "id_accuracy")]
    assert set(usual().loc[MIXUP].index) == {*CASES, *groups}
    assert not usual().isna().any(axis=None)


def test_without_thresholds_there_are_no_false_alarms():
    bare = [(key, images.drop(columns="called_ood")) for key, images in ALL]
    metrics = table(bare, draws=5).reset_index()["metric"]
    assert set(metrics) == {"auroc", "id_accuracy"}


def test_two_that_take_a_denoiser_are_compared_on_those_that_both_have():
    comparison = ("arcface", "mixup", "placebo")
    fewer = [(key, images) for key, images in ALL if key[1:3] != ("placebo", 1)]
    found = row(table(fewer, [comparison]), "letters", comparison=comparison)
    values = {key: by_hand(images, "letters") for key, images in ALL}
    expected = [np.mean([values["arcface", name, 2, s] for s in range(3)]) for name in ("mixup", "placebo")]
    assert found[["value", "reference_value"]].tolist() == pytest.approx(expected) and found["denoisers"] == 1


def test_detectors_are_compared_on_seeds_that_all_their_denoisers_have():
    fewer = [(key, images) for key, images in ALL if key[1:] not in (("mixup", 1, 2), ("none", 0, 0))]
    found = row(table(fewer), "letters")
    values = {key: by_hand(images, "letters") for key, images in ALL}
    assert found["value"] == pytest.approx(np.mean([values["arcface", "mixup", d, 1] for d in (1, 2)]))
    assert found["reference_value"] == pytest.approx(values["arcface", "none", 0, 1]) and found["seeds"] == 1


def test_conditions_without_denoisers_are_compared_on_none():
    plain = [(key, images) for key, images in ALL if key[1] == "none"]
    others = [((head, "real", 0, seed), detector(2.0, 500 + seed)) for (head, _, _, seed), _ in plain]
    comparison = ("arcface", "real", "none")
    found = row(table([*plain, *others], [comparison]), MEAN, comparison=comparison)
    assert found["change"] > 0 and (found["denoisers"], found["seeds"]) == (1, 3)


@pytest.mark.parametrize("missing", ["none", "mixup", "common"])
def test_a_comparison_needs_a_seed_in_common(missing):
    kept = [(key, images) for key, images in ALL if key[1] != missing]
    if missing == "common":
        kept = [((*key[:3], key[3] + 10 * (key[1] == "mixup")), images) for key, images in ALL]
    told = r"^arcface with mixup and with none have no seed in common; train them with notebook 3$"
    with pytest.raises(InputError, match=told):
        table(kept)


def test_a_comparison_needs_a_denoiser_in_common():
    other = [(key, images) for key, images in ALL if key[1:3] not in (("mixup", 1), ("placebo", 2))]
    with pytest.raises(InputError, match="arcface with mixup and with placebo have no seed in common"):
        table(other, [("arcface", "mixup", "placebo")])


@pytest.mark.parametrize("what", ["one image less", "a set less", "an image in another set"])
def test_detectors_tested_on_different_images_are_refused(what):
    (key, images), *rest = ALL[::-1]
    is_cut = images["set"] == "letters" if what == "a set less" else images.index == images.index[-1]
    other = images[~is_cut]
    if what == "an image in another set":
        other = images.assign(set=images["set"].mask(is_cut, "id_noisy"))
    told = r"^arcface with \S+, seed \d, was tested on .* test all on the same with notebook 3$"
    with pytest.raises(InputError, match=told):
        table([(key, other), *rest])


def test_equal_detectors_differ_by_exactly_0_in_every_draw():
    same = [(key, detector(seed=key[3])) for key, _ in ALL]
    found = table(same, [("arcface", "mixup", "placebo")])
    assert (found[["change", "low", "high"]] == 0).all(axis=None)
    against_none = table(same, draws=20)  # which is weighed by seed alone: equal but for rounding
    assert against_none[["change", "low", "high"]].abs().max(axis=None) < 1e-12


def test_a_large_gain_is_certain_and_a_loss_too():
    found = table([(key, detector(2.5 if key[1] == "mixup" else 1.0, i)) for i, (key, _) in enumerate(ALL)])
    assert row(found, MEAN)["low"] > 0 and row(found, ID_TEST, "called_ood")["high"] < 0


def width(found, name="letters", metric="auroc", comparison=MIXUP):
    of = row(found, name, metric, comparison)
    return of["high"] - of["low"]


def differing(denoisers, seeds):
    """Mixtures whose detectors differ by denoiser and by seed, on the same images."""
    return trained(lambda name, d, s: 1 + (name == "mixup") * (denoisers * (-1) ** d + seeds * (s - 1)) / 2)


def test_the_interval_widens_with_denoisers_that_differ_and_with_seeds_that_do():
    alike, by_denoiser, by_seed = (
        width(table(differing(*of), draws=1000), MEAN) for of in ((0, 0), (0.8, 0), (0, 1.6))
    )
    assert by_denoiser > 1.5 * alike and by_seed > 1.2 * alike


def test_the_interval_widens_with_fewer_images():
    few = {name: (role, size // 5) for name, (role, size) in SIZES.items()}
    found = [
        table([(key, detector(1.0, i, sizes=s)) for i, (key, _) in enumerate(ALL)]) for s in (few, SIZES)
    ]
    assert width(found[0]) > 1.5 * width(found[1])


def test_with_one_denoiser_and_one_seed_the_interval_is_that_of_images_alone():
    """By an independent bootstrap of the AUROC, the chance that an ID score exceeds an OOD score."""
    one = [(key, images) for key, images in ALL if key[2] in (0, 1) and key[3] == 0]
    sets = {key[1]: images.groupby("set")["score"] for key, images in one}
    beats = {
        name: of.get_group(ID_TEST).to_numpy()[:, None] > of.get_group("letters").to_numpy()
        for name, of in sets.items()
    }
    random, changes = np.random.default_rng(1), []
    for _ in range(3000):
        drawn = np.ix_(random.integers(0, 40, 40), random.integers(0, 20, 20))
        changes.append(beats["mixup"][drawn].mean() - beats["none"][drawn].mean())
    low, high = np.quantile(changes, [0.025, 0.975])
    found = row(table(one, draws=3000), "letters")
    assert found[["low", "high"]].tolist() == pytest.approx([low, high], abs=0.08 * (high - low))


def test_the_interval_over_denoisers_seeds_and_images_is_that_of_a_plain_nested_bootstrap():
    """Of the false alarms of one condition less those of a reference that has none."""
    detectors = differing(0.8, 0.8)
    none = [(key, images.assign(called_ood=False)) for key, images in detectors if key[1] == "none"]
    mixup = {key[2:]: images for key, images in detectors if key[1] == "mixup"}
    called = {
        key: images.loc[images["set"] == ID_TEST, "called_ood"].to_numpy() for key, images in mixup.items()
    }
    random, drawn = np.random.default_rng(1), []
    for _ in range(4000):
        chosen = random.integers(0, 40, 40)
        of = [called[d, s][chosen].mean() for d in random.choice((1, 2), 2) for s in random.choice(3, 3)]
        drawn.append(np.mean(of))
    low, high = np.quantile(drawn, [0.025, 0.975])
    found = row(
        table([*none, *((("arcface", "mixup", *k), i) for k, i in mixup.items())], draws=4000),
        ID_TEST,
        "called_ood",
    )
    assert found[["low", "high"]].tolist() == pytest.approx([low, high], abs=0.1 * (high - low))


@pytest.mark.parametrize("denoisers, seeds", [(1, 1), (1, 5), (3, 1), (3, 4)])
def test_shares_are_those_of_denoisers_drawn_with_replacement_and_of_seeds_for_each(denoisers, seeds):
    shares = bootstrap._shares(denoisers, seeds, 20_000, np.random.default_rng(0))
    assert shares.shape == (20_001, denoisers, seeds) and (shares[0] == 1 / (denoisers * seeds)).all()
    assert (shares >= 0).all() and np.allclose(shares.sum((1, 2)), 1)
    np.testing.assert_allclose(shares[1:].mean(0), 1 / (denoisers * seeds), rtol=0.05)
    variance = (2 - 1 / denoisers - 1 / seeds) / (denoisers * seeds) ** 2
    np.testing.assert_allclose(shares[1:].var(0), variance, rtol=0.07, atol=1e-15)
    # A denoiser's own share comes in whole parts, and varies as in a bootstrap of denoisers alone.
    of_denoiser = shares[1:].sum(2)
    assert np.allclose(of_denoiser * denoisers, np.round(of_denoiser * denoisers))
    np.testing.assert_allclose(of_denoiser.var(0), (1 - 1 / denoisers) / denoisers**2, rtol=0.07, atol=1e-15)


def test_a_condition_without_a_denoiser_varies_by_its_seeds_as_they_are_drawn_for_its_partner():
    """With a partner that is the same whatever its denoiser, no draw tells the two apart."""
    same = [(key, detector(1 + key[3], 0)) for key, _ in ALL]
    assert table(same)[["low", "high"]].abs().max(axis=None) < 1e-12
    assert (
        width(table([(key, images) for key, images in trained(lambda n, d, s: 1 + s * (n == "mixup"))]))
        > 0.01
    )


def test_images_are_drawn_alike_for_all_detectors_and_shifted_ones_with_their_originals():
    """Two detectors that call the same images OOD, and a set that is the ID test images once more."""
    rows = [images for _, images in ALL]
    for images in rows:
        for name in ("id_darker", "id_turned"):
            of_set = images["set"] == name
            images.loc[of_set, "called_ood"] = images.loc[images["set"] == ID_TEST, "called_ood"].to_numpy()
    found = table(list(zip([key for key, _ in ALL], rows, strict=True)))
    assert row(found, "id_darker", "called_ood").equals(row(found, ID_TEST, "called_ood"))
    assert row(found, SHIFTED, "called_ood").equals(row(found, ID_TEST, "called_ood"))


def test_shifted_sets_of_another_size_are_drawn_for_themselves():
    sizes = SIZES | {"id_turned": ("shifted_id", 12)}
    found = table([(key, detector(1.0, i, sizes=sizes)) for i, (key, _) in enumerate(ALL)])
    assert width(found, "id_turned", "called_ood") > 0


def test_draws_of_a_seed_are_the_same_and_the_estimate_is_that_of_any():
    first, again, other = (table(seed=seed) for seed in (0, 0, 1))
    assert first.equals(again) and not first["low"].equals(other["low"])
    pd.testing.assert_series_equal(first["change"], other["change"])


HEADS = trained(
    lambda n, d, s: {"none": 1.0, "mixup": 1.4, "placebo": 1.2}[n], heads=("softmax", "arcface", "cosface")
)
OF_HEADS = [(head, "mixup", "none") for head in ("softmax", "arcface", "cosface")]


def test_the_mean_over_heads_comes_last_and_is_their_mean():
    found = table(HEADS, OF_HEADS)
    assert found.index.get_level_values("head").unique().tolist() == [
        "softmax",
        "arcface",
        "cosface",
        ALL_HEADS,
    ]
    for name, metric in [*CASES, (MEAN, "auroc"), (SHIFTED, "called_ood")]:
        mean = row(found, name, metric, (ALL_HEADS, "mixup", "none"))
        for column in ("value", "reference_value", "change"):
            assert mean[column] == pytest.approx(
                np.mean([row(found, name, metric, of)[column] for of in OF_HEADS])
            )
    assert mean["seeds"] == 3


def test_the_mean_over_heads_has_a_narrower_interval_than_each():
    found = table(HEADS, OF_HEADS, draws=1000)
    assert width(found, comparison=(ALL_HEADS, "mixup", "none")) < min(
        width(found, comparison=of) for of in OF_HEADS
    )


def test_heads_with_equal_detectors_have_the_interval_of_one():
    """The same denoisers and seeds are drawn for each."""
    same = [(key, detector(1.0 + key[3], 10 * key[2] + (key[1] == "mixup"))) for key, _ in HEADS]
    found = table(same, OF_HEADS)
    mean, one = (row(found, MEAN, comparison=(head, "mixup", "none")) for head in (ALL_HEADS, "arcface"))
    assert mean.tolist() == pytest.approx(one.tolist())


def test_heads_on_other_numbers_of_seeds_are_in_no_mean_together():
    fewer = [(key, images) for key, images in HEADS if key[0] != "softmax" or key[3] < 2]
    found = table(fewer, OF_HEADS, draws=5)
    mean = row(found, "letters", comparison=(ALL_HEADS, "mixup", "none"))
    assert mean["value"] == pytest.approx(
        np.mean([row(found, "letters", comparison=of)["value"] for of in OF_HEADS[1:]])
    )
    assert ALL_HEADS not in table(fewer, OF_HEADS[:2], draws=5).index.get_level_values("head")


def test_conditions_and_references_have_means_of_their_own():
    comparisons = [
        (head, *pair) for head in ("softmax", "arcface") for pair in (("mixup", "none"), ("mixup", "placebo"))
    ]
    found = table(HEADS, comparisons, draws=5).reset_index()
    of_all = found[found["head"] == ALL_HEADS]
    assert of_all[["outliers", "reference"]].drop_duplicates().to_numpy().tolist() == [
        ["mixup", "none"],
        ["mixup", "placebo"],
    ]
