import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_ood import detector as pytorch_ood
from scipy.spatial.distance import mahalanobis
from scipy.special import log_softmax, logsumexp, softmax

from oodlib.detection.scores import (
    GEN,
    KNN,
    MSP,
    RMDS,
    SCORES,
    Energy,
    FeatureNorm,
    Mahalanobis,
    MaxCosine,
    NormCosine,
    Outputs,
    Score,
    ScoreSet,
    T2FNorm,
    ViM,
)
from oodlib.errors import InputError


def normal(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def msp(logits):
    return MSP()(Outputs(None, logits, None))


def energy(logits):
    return Energy()(Outputs(None, logits, None))


def max_cosine(features, class_weights):
    return MaxCosine()(Outputs(features, None, class_weights))


def of_features(score):
    """A fitted score as a function of features."""
    return lambda features: score(Outputs(features, None, None))


def fit_mahalanobis(features, labels, num_classes):
    score = Mahalanobis()
    score.fit(Outputs(features, None, torch.zeros(num_classes, features.shape[1])), labels)
    return of_features(score)


def fit_knn(features, bank_size):
    score = KNN()
    score.fit(Outputs(features, None, None), torch.zeros(len(features), dtype=torch.long), bank_size)
    return of_features(score)


def clusters(count=200, num_features=5, num_classes=3):
    """Features around class means, with correlated features, and their labels."""
    labels = torch.arange(count) % num_classes
    mixing = normal(num_features, num_features, seed=1)
    means = normal(num_classes, num_features, seed=2, scale=4.0)
    return normal(count, num_features, seed=3) @ mixing + means[labels], labels


def covariance_by_hand(features, labels):
    features, labels = features.double().numpy(), labels.numpy()
    means = np.array([features[labels == c].mean(0) for c in range(labels.max() + 1)])
    centred = features - means[labels]
    covariance = centred.T @ centred / len(features)
    ridge = 1e-6 * covariance.diagonal().mean()
    return means, covariance + ridge * np.eye(len(covariance))


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_msp_is_the_log_of_the_largest_softmax(scale):
    logits = normal(50, 10, scale=scale)
    expected = np.log(softmax(logits.double().numpy(), 1).max(1))
    np.testing.assert_allclose(msp(logits).numpy(), expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("scale", [100.0, 500.0])
def test_msp_is_scipys_log_softmax_at_huge_logits(scale):
    logits = normal(50, 10, scale=scale)
    expected = log_softmax(logits.double().numpy(), 1).max(1)
    np.testing.assert_allclose(msp(logits).numpy(), expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("gap", [20.0, 50.0, 100.0, 500.0])
def test_msp_is_exact_where_a_float32_softmax_is_1(gap):
    assert msp(torch.tensor([[gap, 0.0, 0.0]])).item() == pytest.approx(-2 * math.exp(-gap), rel=1e-12)


def test_msp_has_no_ties_where_a_float32_softmax_is_1():
    tops = torch.linspace(20, 600, 100)
    logits = torch.stack([tops, torch.zeros(100)], 1)
    assert (logits.softmax(1).max(1).values == 1).all()
    assert (msp(logits).diff() > 0).all()


@pytest.mark.parametrize("num_classes", [2, 8, 100])
def test_msp_of_equal_logits_is_minus_ln_of_classes(num_classes):
    assert msp(torch.full((1, num_classes), 3.0)).item() == pytest.approx(-math.log(num_classes), rel=1e-12)


def test_msp_of_two_equal_top_logits_is_minus_ln_2():
    assert msp(torch.tensor([[90.0, 90.0, -90.0]])).item() == pytest.approx(-math.log(2), rel=1e-12)


def test_msp_is_pytorch_oods_max_softmax():
    logits = normal(50, 10)
    torch.testing.assert_close(msp(logits).exp(), -pytorch_ood.MaxSoftmax.score(logits).double())


@pytest.mark.parametrize("scale", [0.1, 1.0, 100.0])
def test_energy_is_scipys_logsumexp(scale):
    logits = normal(50, 10, scale=scale).double()
    np.testing.assert_allclose(energy(logits).numpy(), logsumexp(logits.numpy(), 1), rtol=1e-12)


def test_energy_is_pytorch_oods_with_the_sign_flipped():
    logits = normal(50, 10)
    torch.testing.assert_close(energy(logits), -pytorch_ood.EnergyBased.score(logits).double())


def test_energy_rises_by_what_is_added_to_all_logits():
    logits = normal(20, 10).double()
    torch.testing.assert_close(energy(logits + 1000), energy(logits) + 1000, rtol=0, atol=1e-10)


@pytest.mark.parametrize("num_classes", [3, 10, 150])
def test_gen_is_pytorch_oods(num_classes):
    logits = normal(50, num_classes)  # of small size, as theirs ends at 1e-7
    largest = min(100, num_classes)
    expected = -pytorch_ood.GEN.score(logits.double(), gamma=0.1, M=largest) * largest  # theirs is a mean
    torch.testing.assert_close(GEN()(Outputs(None, logits, None)), expected, rtol=1e-6, atol=0)


def test_gen_tells_certain_logits_apart():
    tops = torch.linspace(40, 300, 50)
    logits = torch.stack([tops, torch.zeros(50), torch.zeros(50)], 1)
    assert (GEN()(Outputs(None, logits, None)).diff() > 0).all()


def test_t2fnorm_is_msp_of_the_logits_of_features_as_they_are():
    features, weights = normal(20, 6, scale=0.3), F.normalize(normal(4, 6, seed=1))
    logits = 10 * F.normalize(features) @ weights.T
    expected = msp(10 * features @ weights.T)
    score = T2FNorm()(Outputs(features, logits, weights, is_normalised=True))
    torch.testing.assert_close(score, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(
        T2FNorm()(Outputs(features, logits, weights)), msp(logits)
    )  # they know the norm already


def test_norm_and_norm_times_cosine_by_hand():
    features, weights = normal(20, 6), normal(4, 6, seed=1)
    f, w = features.double().numpy(), weights.double().numpy()
    outputs = Outputs(features, None, weights)
    np.testing.assert_allclose(FeatureNorm()(outputs).numpy(), np.linalg.norm(f, axis=1), rtol=1e-6)
    expected = (f @ (w / np.linalg.norm(w, axis=1, keepdims=True)).T).max(1)
    np.testing.assert_allclose(NormCosine()(outputs).numpy(), expected, rtol=1e-5, atol=1e-7)


def fit_rmds(features, labels, num_classes):
    outputs = Outputs(features, None, torch.zeros(num_classes, features.shape[1]))
    score = RMDS(Mahalanobis())
    score.base.fit(outputs, labels)
    score.fit(outputs, labels)
    return of_features(score)


def test_rmds_is_the_mahalanobis_score_less_that_of_one_gaussian_for_all():
    features, labels = clusters(num_features=6)
    probes = normal(40, 6, seed=9, scale=3.0)
    f = features.double().numpy()
    precision = np.linalg.inv(np.cov(f.T, bias=True))
    background = [mahalanobis(p, f.mean(0), precision) ** 2 for p in probes.double().numpy()]
    expected = fit_mahalanobis(features, labels, 3)(probes).numpy() + background
    np.testing.assert_allclose(fit_rmds(features, labels, 3)(probes).numpy(), expected, rtol=1e-3, atol=1e-3)


def test_rmds_of_one_training_image_a_class_is_finite():
    features = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(fit_rmds(features, torch.arange(4), 4)(features)).all()


def test_rmds_is_pytorch_oods_but_for_the_factor_n():
    features, labels = clusters()
    theirs = pytorch_ood.RMD(None).fit_features(features, labels).predict_features(features).double()
    torch.testing.assert_close(
        fit_rmds(features, labels, 3)(features), -len(labels) * theirs, rtol=1e-3, atol=1e-2
    )


@pytest.mark.parametrize("with_bias", [True, False])
def test_vim_is_pytorch_oods(with_bias):
    features, weights = normal(200, 12) @ normal(12, 12, seed=1), normal(4, 12, seed=2)
    bias = normal(1, 4, seed=3)[0] if with_bias else torch.zeros(4)
    outputs = Outputs(features, features @ weights.T + bias, weights, bias if with_bias else None)
    ours = ViM()
    ours.fit(outputs, torch.arange(200) % 4)
    theirs = pytorch_ood.ViM(None, 6, weights, bias).fit_features(features, torch.arange(200) % 4)
    torch.testing.assert_close(
        ours(outputs), -theirs.predict_features(features).double(), rtol=1e-4, atol=1e-4
    )


def test_vim_is_lower_off_the_subspace_of_the_training_features():
    features = torch.cat([normal(100, 3), 0.01 * normal(100, 3, seed=1)], 1)
    outputs = Outputs(features, features[:, :3], torch.eye(3, 6))
    score = ViM()
    score.fit(outputs, torch.arange(100) % 3)
    off = features + torch.tensor([0.0, 0, 0, 1, 0, 0])
    assert (score(Outputs(off, off[:, :3], torch.eye(3, 6))) < score(outputs)).all()


@pytest.mark.parametrize(
    ("count", "dimension"), [(20, 10), (60, 30), (100, 50), (128, 64), (129, 64), (300, 64)]
)
def test_vim_of_few_training_images_has_a_smaller_principal_space_and_says_so(count, dimension, capsys):
    random = torch.Generator().manual_seed(0)
    weights = torch.randn(10, 128, generator=random)
    features = torch.randn(count, 128, generator=random).relu()
    score = ViM()
    score.fit(Outputs(features, features @ weights.T, weights), torch.arange(count) % 10)
    assert score.residual_space.shape == (128, 128 - dimension) and 1 < score.alpha < 20
    line = f"score vim: {count} training images are too few for a principal space of 64 of 128 dimensions; it has"
    assert capsys.readouterr().out == (f"{line} {dimension}\n" if dimension < 64 else "")


def test_vim_knows_the_head_s_own_logits_where_they_are_scaled():
    features, weights = normal(100, 8), F.normalize(normal(3, 8, seed=1))
    outputs = Outputs(features, 16 * F.normalize(features) @ weights.T, weights, is_normalised=True)
    score = ViM()
    score.fit(outputs, torch.arange(100) % 3)
    assert torch.equal(score.origin, torch.zeros(8))
    energy_part = score(outputs) + score.alpha * score._residual(outputs)
    torch.testing.assert_close(energy_part, outputs.logits.logsumexp(-1).double())


def test_statistics_of_512_features_beside_the_bank_take_less_than_2_mib():
    features, labels = normal(1200, 512), torch.arange(1200) % 10
    outputs = Outputs(features, features[:, :10], normal(10, 512, seed=1))
    scores = ScoreSet()
    scores.fit(outputs, labels, outputs, 0.95, bank_size=1)
    assert sum(t.numel() * t.element_size() for t in scores.state_dict().values()) < 2 * 2**20


def test_max_cosine_is_the_largest_cosine_by_hand():
    features, weights = normal(20, 6), normal(4, 6, seed=1)
    f, w = features.double().numpy(), weights.double().numpy()
    cosine = f @ w.T / np.linalg.norm(f, axis=1)[:, None] / np.linalg.norm(w, axis=1)
    np.testing.assert_allclose(max_cosine(features, weights).numpy(), cosine.max(1), rtol=1e-12)


@pytest.mark.parametrize("length", [1e-3, 1.0, 1e5])
def test_max_cosine_does_not_depend_on_the_length_of_features(length):
    features, weights = normal(20, 6).double(), normal(4, 6, seed=1)
    torch.testing.assert_close(max_cosine(length * features, weights), max_cosine(features, weights))


def test_max_cosine_of_a_class_weight_is_1():
    weights = normal(8, 6)
    torch.testing.assert_close(max_cosine(7 * weights, weights), torch.ones(8, dtype=torch.float64))


def test_max_cosine_never_exceeds_1():
    weights = normal(200, 64)
    assert max_cosine(weights, weights).max() <= 1


def test_mahalanobis_is_scipys_squared_distance_to_the_nearest_mean():
    features, labels = clusters()
    means, covariance = covariance_by_hand(features, labels)
    precision = np.linalg.inv(covariance)
    probes = normal(20, 5, seed=9, scale=5.0)
    expected = [-min(mahalanobis(f, mu, precision) ** 2 for mu in means) for f in probes.double().numpy()]
    fitted = fit_mahalanobis(features, labels, 3)
    np.testing.assert_allclose(fitted(probes.double()).numpy(), expected, rtol=1e-6)  # it keeps float32


def test_mahalanobis_is_as_exact_as_features_in_float32_allow():
    # Variances differ a million times, so that the last digit of a feature changes the exact score by 1e-4 of it.
    features, labels = clusters(count=3000)
    features = (features * 10.0 ** -torch.linspace(0, 3, 5)) @ normal(5, 5, seed=7)
    means, covariance = covariance_by_hand(features, labels)
    precision = np.linalg.inv(covariance)

    def exact(features):
        off = features.double().numpy()[:, None] - means
        return -np.einsum("nci,ij,ncj->nc", off, precision, off).min(1)

    last_digit = np.abs(
        exact(torch.nextafter(features, torch.full_like(features, torch.inf))) - exact(features)
    )
    error = np.abs(fit_mahalanobis(features, labels, 3)(features).numpy() - exact(features))
    assert error.max() < 2 * last_digit.max() and np.median(error) < 2 * np.median(last_digit)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mahalanobis_of_features_in_half_precision_is_computed_in_float32(dtype):
    features, labels = clusters()
    fitted, features = fit_mahalanobis(features, labels, 3), features.to(dtype)
    assert torch.equal(fitted(features), fitted(features.float()))


def test_mahalanobis_is_pytorch_oods_but_for_the_factor_minus_2n():
    # Theirs is half a distance by a covariance that is not divided by N, and grows away from the classes.
    features, labels = clusters()
    theirs = pytorch_ood.Mahalanobis(None).fit_features(features, labels).predict_features(features)
    ours = fit_mahalanobis(features, labels, 3)(features)
    torch.testing.assert_close(ours, -2 * len(features) * theirs.double(), rtol=1e-3, atol=1e-3)


def test_mahalanobis_of_too_many_features_is_left_out_and_told(monkeypatch, capsys):
    features, labels = clusters()
    monkeypatch.setattr(SCORES["mahalanobis"], "LARGEST", features.shape[1] - 1)
    outputs = Outputs(features, features[:, :3], torch.eye(3, features.shape[1]))
    scores = ScoreSet()
    scores.fit(outputs, labels, outputs, 0.95, 100)
    assert "mahalanobis" not in scores.thresholds and "knn" in scores.thresholds
    assert "score mahalanobis is left out: 5 features are more than 4" in capsys.readouterr().out


def test_mahalanobis_of_a_class_mean_is_0():
    features, labels = clusters()
    means = torch.stack([features[labels == c].double().mean(0) for c in range(3)])
    assert fit_mahalanobis(features, labels, 3)(means).abs().max() < 1e-9


def test_mahalanobis_of_training_features_averages_minus_the_dimension():
    features, labels = clusters(num_classes=1)
    assert fit_mahalanobis(features, labels, 1)(features).mean().item() == pytest.approx(-5, rel=1e-5)


def test_mahalanobis_does_not_change_under_a_linear_map():
    features, labels = clusters()
    features, mapping = features.double(), normal(5, 5, seed=7).double()
    plain = fit_mahalanobis(features, labels, 3)(features)
    mapped = fit_mahalanobis(features @ mapping, labels, 3)(features @ mapping)
    torch.testing.assert_close(mapped, plain, rtol=1e-3, atol=1e-6)


def test_mahalanobis_ridge_stands_a_constant_feature():
    features, labels = clusters()
    features[:, 0] = 4.0
    assert fit_mahalanobis(features, labels, 3)(features).isfinite().all()


def test_mahalanobis_ridge_stands_fewer_images_than_features():
    features, labels = normal(6, 20), torch.arange(6) % 3
    assert fit_mahalanobis(features, labels, 3)(features).isfinite().all()


@pytest.mark.parametrize("size", [1, 7, 200])
def test_mahalanobis_does_not_depend_on_the_batch(size):
    features, labels = clusters()
    fitted, features = fit_mahalanobis(features, labels, 3), features.double()
    parts = torch.cat([fitted(part) for part in features.split(size)])
    torch.testing.assert_close(parts, fitted(features), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("count, k", [(200, 1), (1000, 1), (1001, 2), (5000, 5)])
def test_knn_is_pytorch_oods_with_the_sign_flipped_at_k_a_thousandth_of_the_bank(count, k):
    features, probes = normal(count, 5), normal(20, 5, seed=9)
    # The bank is in half precision, and neither side normalises it again.
    bank = F.normalize(features).half().double()
    theirs = pytorch_ood.KNN(None, k=k, normalize=False).fit_features(bank, torch.zeros(count, dtype=int))
    expected = -theirs.predict_features(F.normalize(probes.double()))
    torch.testing.assert_close(fit_knn(features, count)(probes), expected.double(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("length", [1e-3, 1.0, 1e5])
def test_knn_does_not_depend_on_the_length_of_features(length):
    fitted, probes = fit_knn(normal(50, 6), 50), normal(20, 6, seed=1).double()
    torch.testing.assert_close(fitted(length * probes), fitted(probes))


def test_knn_of_a_training_feature_is_0_but_for_half_precision():
    features = normal(50, 6)
    assert fit_knn(features, 50)(features).abs().max() < 1e-3


def test_knn_of_an_opposite_feature_is_minus_2():
    assert fit_knn(torch.eye(3)[:1], 1)(-torch.eye(3)[:1]).item() == -2


@pytest.mark.parametrize("most, kept", [(3, [0, 3, 6]), (4, [0, 2, 5, 7]), (10, range(10)), (99, range(10))])
def test_the_bank_of_knn_is_evenly_spaced_over_training(most, kept):
    features = normal(10, 6)
    score = KNN()
    score.fit(Outputs(features, None, None), torch.zeros(10), most)
    assert torch.equal(score.bank, F.normalize(features[list(kept)]).half())


@pytest.mark.parametrize("size", [1, 7, 3000])
def test_knn_does_not_depend_on_the_batch(size):
    fitted, probes = fit_knn(normal(50, 6), 50), normal(3000, 6, seed=1)[: 200 if size == 1 else None]
    parts = torch.cat([fitted(part) for part in probes.split(size)])
    torch.testing.assert_close(parts, fitted(probes), rtol=0, atol=1e-7)


def fitted_set():
    """Every score, fitted to features of three classes whose weights are the identity."""
    labels = torch.arange(90) % 3
    features = 5 * torch.eye(3)[labels] + 0.3 * normal(90, 3)
    scores, outputs = ScoreSet(), Outputs(features, features, torch.eye(3))
    scores.fit(outputs, labels, outputs, tpr=0.9, bank_size=90)
    return scores


def outputs_of(images):
    """Of a head with the identity as class weights."""
    return Outputs(images, images, torch.eye(3))


@pytest.mark.parametrize("score", [name for name in SCORES if name != "vim"])  # which needs a subspace
def test_score_is_higher_in_distribution(score):
    images = torch.tensor([[5.0, 0.1, 0.0], [1.0, 1.0, 1.0]])
    in_distribution, outlier = fitted_set()(outputs_of(images))[score]
    assert in_distribution > outlier


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("score", SCORES)
def test_score_is_float64_and_one_number_an_image(score, dtype):
    scores = fitted_set()[score](outputs_of(torch.ones(4, 3, dtype=dtype)))
    assert (scores.dtype, tuple(scores.shape)) == (torch.float64, (4,))


def test_scores_stand_in_the_order_of_tables():
    of_logits = ["msp", "energy", "gen", "t2fnorm"]
    assert list(SCORES) == [*of_logits, "cosine", "norm", "norm_cosine", "mahalanobis", "rmds", "knn", "vim"]


def test_what_needs_no_fit_scores_at_once_and_the_rest_after_it():
    images = outputs_of(torch.ones(4, 3))
    assert (list(ScoreSet()(images)), list(fitted_set()(images))) == (
        ["msp", "energy", "gen", "t2fnorm", "cosine", "norm", "norm_cosine"],
        list(SCORES),
    )


def test_every_score_has_a_threshold_that_keeps_its_share():
    scores = fitted_set()
    assert (list(scores.thresholds), scores.tpr) == (list(SCORES), 0.9)
    assert scores.thresholds["knn"] < 0 < scores.thresholds["energy"]


def test_the_statistics_are_buffers_none_before_fit():
    assert dict(ScoreSet().named_buffers()) == {}
    of_vim = [f"vim.{name}" for name in ("origin", "residual_space", "alpha")]
    of_mahalanobis = ["mahalanobis.whitening", "mahalanobis.means", "rmds.shares"]
    assert list(fitted_set().state_dict()) == [*of_mahalanobis, "knn.bank", *of_vim]


def test_saved_scores_are_read_with_equal_bits(tmp_path):
    saved, loaded = fitted_set(), ScoreSet()
    saved.save(tmp_path, "network")
    loaded.load(tmp_path, "network")
    assert (loaded.thresholds, loaded.tpr) == (saved.thresholds, 0.9)
    ours, theirs = loaded.state_dict(), saved.state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert all(ours[key].dtype == theirs[key].dtype for key in ours)


def test_scores_of_another_network_are_refused_on_one_line(tmp_path):
    fitted_set().save(tmp_path, "network")
    with pytest.raises(InputError, match=r"^the scores in .* were fitted to another network; fit them again"):
        ScoreSet().load(tmp_path, "another")


@pytest.fixture
def typical_norm():
    """A score of one's own with a statistic: one class, and gone again after the test."""

    class Norm(Score, name="typical_norm"):
        statistics = ("typical",)

        def fit(self, train, labels, bank_size=0):
            self.typical = train.features.norm(dim=1).mean()

        def forward(self, outputs):
            return -(outputs.features.double().norm(dim=1) - self.typical).abs()

    yield Norm
    SCORES.pop("typical_norm", None)


def test_a_new_score_is_one_class(typical_norm, tmp_path):
    scores, images = fitted_set(), outputs_of(torch.tensor([[5.0, 0.0, 0.0], [50.0, 0.0, 0.0]]))
    assert list(scores.thresholds)[-1] == "typical_norm"
    in_distribution, outlier = scores(images)["typical_norm"]
    assert outlier < scores.thresholds["typical_norm"] <= in_distribution
    scores.save(tmp_path, "network")
    loaded = ScoreSet()
    loaded.load(tmp_path, "network")
    assert np.array_equal(loaded(images)["typical_norm"], scores(images)["typical_norm"])


def test_a_new_score_is_not_fitted_in_a_set_that_was_saved_before(request, tmp_path):
    fitted_set().save(tmp_path, "network")
    request.getfixturevalue("typical_norm")
    loaded = ScoreSet()
    loaded.load(tmp_path, "network")
    assert not loaded["typical_norm"].is_fitted and "typical_norm" not in loaded.thresholds
    assert "typical_norm" not in loaded(outputs_of(torch.ones(1, 3)))


def test_a_score_that_is_not_there_any_more_is_passed_over(request, tmp_path):
    request.getfixturevalue("typical_norm")
    fitted_set().save(tmp_path, "network")
    del SCORES["typical_norm"]
    loaded = ScoreSet()
    loaded.load(tmp_path, "network")
    assert list(loaded.thresholds) == list(loaded) and "typical_norm" not in loaded
