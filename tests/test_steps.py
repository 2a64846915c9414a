"""The steps of a run: made once, and made again when anything that they depend on has changed."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torch import nn

from oodlib import datasets, pretrained, steps
from oodlib.datasets.roles import EvaluationSet, Role
from oodlib.datasets.shifts import degraded
from oodlib.detection import scores as score_registry
from oodlib.detection.detector import Detector
from oodlib.detection.metrics import auroc
from oodlib.detection.train import fit_detector
from oodlib.diffusion.denoiser import Denoiser
from oodlib.errors import InputError
from oodlib.files import read_csv, read_json
from oodlib.images import ImageSet
from oodlib.marks import MARKS
from oodlib.outliers import purity, sources
from oodlib.outliers.sources import SOURCES
from oodlib.presets import make_settings
from oodlib.reports.names import label
from oodlib.reports.summary import group_table
from oodlib.reports.tables import COLUMNS, markdown, ordered
from oodlib.runs import Run
from oodlib.seeds import initial_weights
from oodlib.steps import pools
from oodlib.steps.pools import early_denoiser
from oodlib.training import fingerprint_weights

pytestmark = pytest.mark.usefixtures("one_thread")

DIGITS = {split: datasets.load("digits", split) for split in ("train", "val", "test")}


def few(images: ImageSet, classes: int = 3, count: int = 60) -> ImageSet:
    kept = np.flatnonzero(images.labels < classes)[:count]
    return ImageSet(images.images[kept], images.labels[kept], images.class_names[:classes])


TRAIN, VAL, TEST = (few(images) for images in DIGITS.values())
SMALL = dict(
    denoiser_steps=20,
    denoiser_batch_size=8,
    block_out_channels=(8, 16),
    num_inference_steps=1,
    outliers="label_mixup",
    images_per_pair=2,
    committee_epochs=1,
    epochs=1,
    degrade=0.0,
    noise_levels=[],
)


def small(**values):
    return make_settings(**{**SMALL, **values})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with a denoiser, a committee and a pool."""
    run = Run(str(tmp_path_factory.mktemp("made") / "run"))
    denoiser = steps.denoiser(run, small(), TRAIN)
    committee = steps.committee(run, small(), TRAIN, VAL)
    steps.pool(run, small(), TRAIN, committee, run)
    return run, denoiser, committee


def pool_is_kept(made, capsys, run=None, train=TRAIN, committee=None, **values) -> bool:
    capsys.readouterr()
    steps.pool(made[0], small(**values), train, committee or made[2], made[0])
    return "pool.npz was made with these settings and is kept" in capsys.readouterr().out


def test_a_pool_is_drawn_once(made, capsys):
    assert pool_is_kept(made, capsys)


@pytest.mark.parametrize(
    "values", [{"seed": 1}, {"mix": "convex"}, {"num_inference_steps": 2}, {"images_per_pair": 3}]
)
def test_a_pool_of_other_settings_is_drawn_again(made, capsys, values):
    assert not pool_is_kept(made, capsys, **values)
    assert not pool_is_kept(made, capsys)  # as it was


def test_a_pool_of_another_committee_is_drawn_again(made, capsys):
    other = steps.committee(Run(f"{made[0].folder}-other/"), small(committee_epochs=9), TRAIN, VAL)
    assert not pool_is_kept(made, capsys, committee=other)
    assert not pool_is_kept(made, capsys)


def test_settings_of_the_detectors_leave_committee_and_pool_alone(made, capsys):
    committee = steps.committee(made[0], small(epochs=9, learning_rate=0.1), TRAIN, VAL)
    assert pool_is_kept(made, capsys, committee=committee, epochs=9)


def test_what_a_source_brings_counts_and_what_is_chosen_wins(made, monkeypatch):
    drawn = {}
    monkeypatch.setitem(
        SOURCES, "mine", replace(SOURCES["weak_guidance"], draw=lambda index, denoiser, **s: drawn.update(s))
    )
    for values, expected in (({}, 0.5), ({"guidance_scale": 2.0}, 2.0)):
        with pytest.raises(TypeError):  # it draws nothing
            steps.pool(made[0], small(outliers="mine", **values), TRAIN, made[2], made[0])
        assert drawn["guidance_scale"] == expected
    assert small(outliers="weak_guidance").guidance_scale is None  # it leaks nowhere else


def test_the_denoisers_classes_are_compared_with_those_of_the_images(made):
    steps.check_classes(made[1], TRAIN)
    with pytest.raises(InputError, match="train the denoiser again with notebook 1"):
        steps.check_classes(made[1], TRAIN._replace(class_names=("0", "1", "two")))


def test_a_renamed_class_is_told_before_a_pool_is_drawn(made):
    renamed = TRAIN._replace(class_names=("zero", "1", "2"))
    committee = steps.committee(
        Run(f"{made[0].folder}-renamed/"), small(), renamed, VAL._replace(class_names=renamed.class_names)
    )
    with pytest.raises(InputError, match=r"the denoiser draws \['0', '1', '2'\], the images show \['zero'"):
        steps.pool(made[0], small(), renamed, committee, made[0])


def test_a_renamed_class_trains_denoiser_and_committee_again(tmp_path, capsys):
    run, brief = Run(str(tmp_path / "run")), small(denoiser_steps=1)
    renamed = TRAIN._replace(class_names=("zero", "1", "2"))
    for images in (TRAIN, renamed):
        denoiser = steps.denoiser(run, brief, images)
        committee = steps.committee(run, brief, images, VAL._replace(class_names=images.class_names))
    assert "is kept" not in capsys.readouterr().out
    assert denoiser.class_names == committee.members[0].class_names == ("zero", "1", "2")


def test_an_early_stopped_denoiser_is_trained_for_a_tenth_of_the_runs_own_steps(made, monkeypatch):
    run, denoiser, _ = made
    trained = []
    monkeypatch.setattr(pools, "fit_denoiser", lambda *arguments, **_: trained.append(arguments[3]))
    early = early_denoiser(denoiser, run, TRAIN)
    assert trained[0].denoiser_steps == 2 and trained[0].denoiser_batch_size == 8
    assert early.config == denoiser.config and early is not denoiser


def shipped(**values):
    return make_settings(denoiser_steps=0, **values)


def test_a_denoiser_of_no_steps_is_the_one_that_ships(tmp_path, capsys):
    run, ship = Run(str(tmp_path / "run")), pretrained.shipped("digits").denoiser
    denoiser = steps.denoiser(run, shipped(), DIGITS["train"])
    assert "the denoiser is the one that ships for preset digits; none was trained" in capsys.readouterr().out
    assert fingerprint_weights(denoiser) == fingerprint_weights(Denoiser.load(ship))
    assert len(read_csv(run.denoiser / "history.csv")) == 100
    steps.denoiser(run, shipped(), DIGITS["train"])
    assert "is kept" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "train", "message"),
    [
        ({"block_out_channels": [8, 16]}, DIGITS["train"], r"has block_out_channels = \[32, 64\], and here"),
        ({"image_shape": [16, 16, 1]}, DIGITS["train"], r"has image_shape = \[8, 8, 1\], and here"),
        (
            {"id_data": "mine/"},
            DIGITS["train"],
            "has id_data = 'digits', and here id_data = 'mine/'; choose that",
        ),
        (
            {"outliers": "early_stopped"},
            DIGITS["train"],
            "^outliers = 'early_stopped' are drawn by a denoiser that",
        ),
        (
            {"seed": 3},
            DIGITS["train"],
            "which was trained with seed = 0; choose that, or denoiser_steps above 0",
        ),
        ({"flip": True}, DIGITS["train"], "which was trained with flip = False; choose that"),
        ({}, TRAIN, r"the denoiser draws \['0', .*, the images show \['0', '1', '2'\]"),
    ],
)
def test_a_shipped_denoiser_of_another_kind_is_refused_and_leaves_no_run(tmp_path, values, train, message):
    run = Run(str(tmp_path / "run"))
    with pytest.raises(InputError, match=message):
        steps.denoiser(run, shipped(**values), train)
    assert not run.folder.exists()


def test_a_shipped_denoiser_stopped_at_no_known_step(tmp_path, made):
    run = Run(str(tmp_path / "run"))
    steps.denoiser(run, shipped(), DIGITS["train"])
    with pytest.raises(InputError, match="train it with notebook 1, with denoiser_steps above 0"):
        steps.pool(run, small(outliers="early_stopped"), DIGITS["train"], made[2], run)


def judged(made, **values):
    run, _, committee = made
    return steps.generator(run, small(**values), committee, VAL, run)


def test_a_generator_is_judged_once_and_again_by_another_sampler(made, capsys):
    table = judged(made)
    assert table["count"].tolist() == [2 * 3, len(VAL.images)]
    capsys.readouterr()
    judged(made)
    assert "generator.csv was made with these settings and is kept" in capsys.readouterr().out
    judged(made, num_inference_steps=2)
    assert "is kept" not in capsys.readouterr().out


def test_what_is_said_of_a_generator_is_of_the_denoiser_that_the_run_has_now(made, tmp_path):
    run, _, committee = made
    text = purity.generator_text(judged(made))
    assert steps.generator_text(run) == text != ""
    other = Run(str(tmp_path / "run"))
    assert steps.generator_text(other) == ""
    steps.denoiser(other, small(seed=1), TRAIN)
    steps.generator(other, small(), committee, VAL, run)
    assert steps.generator_text(other) == ""  # it was judged another


def test_a_source_that_needs_no_generator_needs_no_denoiser(made, tmp_path):
    run = Run(str(tmp_path / "run"))
    pool, _ = steps.pool(run, small(outliers="pixel_mixup"), TRAIN, made[2], run)
    assert len(pool) == 6 and not run.denoiser.exists()


@pytest.mark.parametrize("source", ["none", "vos"])
def test_sources_without_images_have_no_pool(made, source):
    with pytest.raises(InputError, match=f"outliers '{source}' need no pool; go on with notebook 3"):
        steps.pool(made[0], small(outliers=source), TRAIN, made[2], made[0])
    assert steps.outliers(made[0], small(outliers=source), TRAIN) is None


def test_another_sampler_leaves_a_pool_alone_that_is_not_drawn(made, capsys):
    assert not pool_is_kept(made, capsys, outliers="pixel_mixup")
    assert pool_is_kept(made, capsys, outliers="pixel_mixup", scheduler="ddim", real_outliers="letters")


def test_real_outliers_are_taken_again_when_the_images_have_changed(made, capsys, tmp_path):
    options = dict(outliers="real", real_outliers=str(tmp_path / "real.npz"))
    for images in (TRAIN.images[:20], 255 - TRAIN.images[:20]):
        np.savez(tmp_path / "real.npz", images=images)
        assert not pool_is_kept(made, capsys, **options)
    assert pool_is_kept(made, capsys, **options)


def test_a_pool_of_other_classes_is_refused_before_a_detector_is_trained(made):
    assert len(steps.outliers(made[0], small(), TRAIN)) == 6
    with pytest.raises(InputError, match="drawn for other training images or classes; draw it again"):
        steps.outliers(made[0], small(), TRAIN._replace(class_names=("0", "1", "two")))


SETS = [
    datasets.id_set(TEST),
    EvaluationSet("far", "far", Role.FAR, 255 - TEST.images[:20], None, ()),
]
VALIDATION = [
    datasets.id_set(VAL, "val"),
    EvaluationSet("dim", "dim", Role.DEGRADED_ID, VAL.images // 2, *VAL[1:]),
    EvaluationSet("v", "v", Role.VALIDATION, 255 - VAL.images, None, ()),
]


@pytest.fixture
def detected(tmp_path, capsys):
    """A run with a detector that was trained, fitted and scored."""
    run = Run(str(tmp_path / "run"))
    detect(run)
    return run


def detect(run, sets=SETS, train=TRAIN, val=VAL, pool=None, **values):
    chosen = small(**{"outliers": "none", **values})
    detector = steps.detector(run, chosen, train, val, pool)
    steps.score_detector(run, chosen, detector, sets, VALIDATION)
    return detector


@pytest.fixture(scope="module")
def own_network():
    """A detector around a network of one's own."""
    with initial_weights(0, "a network of one's own"):
        network = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 3))
    detector = Detector.from_classifier(network, layer="3", class_names=TRAIN.class_names, workers=0)
    return detector.fit(TRAIN, VAL), network


@pytest.mark.parametrize("name", ["my network", "ViT-B/16 (21k)", "100%"])
def test_a_network_of_one_s_own_is_a_row_of_the_same_tables_under_any_name(detected, own_network, name):
    detector, network = own_network
    steps.score_detector(detected, small(), detector, SETS, VALIDATION, name=name)
    results = ordered(detected.tables("metrics"))[COLUMNS]
    assert results["head"].unique().tolist() == ["arcface", name]
    assert set(results.loc[results["head"] == name, "outliers"]) == {"none"}
    assert label(name) in markdown(group_table(results))
    assert detected.unequal_settings() == {}
    scores = detected.tables("scores")
    own = scores[scores["head"] == name]
    assert detected.thresholds(own) == {"none": detector.thresholds["msp"]}
    again = Detector.load(detected.detector(name, "none", 0), network=network)
    np.testing.assert_allclose(again.score(TEST.images), own.loc[own["set"] == "id_test", "msp"], rtol=1e-6)


def test_a_network_of_one_s_own_is_scored_once(detected, own_network, capsys):
    detector, _ = own_network
    for _ in range(2):
        steps.score_detector(detected, small(), detector, SETS, VALIDATION, name="mine")
    assert "scores.csv was made with these settings and is kept" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [("softmax", "as a head is; give it another name"), ("denoiser", "another name"), (" ", "is empty")],
)
def test_a_network_of_one_s_own_takes_no_head_s_name(detected, own_network, name, message):
    with pytest.raises(InputError, match=message):
        steps.score_detector(detected, small(), own_network[0], SETS, VALIDATION, name=name)


def test_damaged_scores_of_a_network_of_one_s_own_are_told_with_what_to_do(detected, own_network):
    steps.score_detector(detected, small(), own_network[0], SETS, VALIDATION, name="mine")
    (detected.detector("mine", "none", 0) / "metrics.csv").write_text("")
    with pytest.raises(InputError, match=r"call steps\.score_detector again with"):
        detected.tables("metrics")


def steps_made(run, capsys, monkeypatch, **options) -> set[str]:
    """Which of a detector's steps are not kept."""
    capsys.readouterr()
    if options.pop("trains_nothing", False):
        monkeypatch.setattr("oodlib.steps.training.fit_detector", lambda *_, **__: pytest.fail("it trains"))
    detect(run, **options)
    kept = capsys.readouterr().out
    files = {"training": "detector.safetensors", "fitting": "scores.safetensors", "scoring": "scores.csv"}
    return {step for step, file in files.items() if f"{file} was made with these settings" not in kept}


def test_a_detector_is_made_once(detected, capsys, monkeypatch):
    assert steps_made(detected, capsys, monkeypatch, trains_nothing=True) == set()


def test_another_ood_set_is_scored_and_trains_and_fits_nothing(detected, capsys, monkeypatch):
    more = [*SETS, EvaluationSet("near", "near", Role.NEAR, TEST.images[::-1].copy(), None, ())]
    assert steps_made(detected, capsys, monkeypatch, sets=more, trains_nothing=True) == {"scoring"}
    folder = detected.detector("arcface", "none", 0)
    assert set(read_csv(folder / "metrics.csv")["ood_set"]) == {"far", "near"}


def test_another_tpr_moves_the_thresholds_and_trains_nothing(detected, capsys, monkeypatch):
    thresholds = read_json(detected.detector("arcface", "none", 0) / "scores.json")["thresholds"]
    assert "training" not in steps_made(detected, capsys, monkeypatch, tpr=0.6, trains_nothing=True)
    raised = read_json(detected.detector("arcface", "none", 0) / "scores.json")["thresholds"]
    assert all(raised[name] > thresholds[name] for name in thresholds)


def test_other_validation_images_move_the_thresholds_and_train_nothing(detected, capsys, monkeypatch):
    brighter = VAL._replace(images=VAL.images | 63)
    assert "fitting" in steps_made(detected, capsys, monkeypatch, val=brighter, trains_nothing=True)


def test_another_score_is_fitted_and_told_and_trains_nothing(detected, capsys, monkeypatch):
    class Length(score_registry.Score, name="length"):
        def forward(self, outputs):
            return outputs.features.double().norm(dim=-1)

    try:
        made = steps_made(detected, capsys, monkeypatch, trains_nothing=True)
    finally:
        del score_registry.SCORES["length"]
    assert made == {"fitting", "scoring"}
    assert "length" in set(read_csv(detected.detector("arcface", "none", 0) / "metrics.csv")["score"])


@pytest.mark.parametrize("values", [{"epochs": 9}, {"head_options": {"margin": 0.1}}, {"weight_decay": 0.0}])
def test_other_training_settings_make_all_three_steps_again(detected, capsys, monkeypatch, values):
    assert steps_made(detected, capsys, monkeypatch, **values) == {"training", "fitting", "scoring"}


def test_a_training_that_is_stopped_leaves_no_mark_of_the_detector_before(detected, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("oodlib.steps.training.fit_detector", stop)
    with pytest.raises(KeyboardInterrupt):
        detect(detected, epochs=9)
    assert [mark for mark in MARKS if (detected.detector("arcface", "none", 0) / mark).exists()] == []


def test_a_renamed_class_stands_in_the_tables(detected, monkeypatch):
    names = ("zero", "one", "two")
    sets = [SETS[0]._replace(class_names=names), SETS[1]]
    detect(detected, train=TRAIN._replace(class_names=names), sets=sets)
    table = read_csv(detected.detector("arcface", "none", 0) / "scores.csv")
    assert set(table["predicted"]) <= set(names) and table["correct"].any()


def test_what_a_detector_without_outliers_does_not_take_trains_nothing(detected, capsys, monkeypatch):
    assert steps_made(detected, capsys, monkeypatch, outlier_weight=0.1, trains_nothing=True) == set()


def test_another_pool_trains_again(detected, capsys, monkeypatch):
    first, other = (sources.uniform_noise(TRAIN, range(8), seed=seed) for seed in (0, 1))
    options = {"outliers": "uniform_noise"}
    assert "training" in steps_made(detected, capsys, monkeypatch, pool=first, **options)
    assert "training" not in steps_made(detected, capsys, monkeypatch, pool=first, **options)
    assert "training" in steps_made(detected, capsys, monkeypatch, pool=other, **options)


def test_a_missing_pool_is_told_with_the_notebook_that_draws_it(tmp_path):
    with pytest.raises(
        InputError,
        match=r"settings\.json is not there; make it with notebook 02_label_mixup.*-p outliers label_mixup",
    ):
        steps.outliers(Run(str(tmp_path / "run")), small(), TRAIN)


def test_tables_say_what_scored(detected):
    scores = read_csv(detected.detector("arcface", "none", 0) / "scores.csv")
    assert scores[
        ["preset", "head", "outliers", "seed", "own_score"]
    ].drop_duplicates().to_numpy().tolist() == [["digits", "arcface", "none", 0, "cosine"]]
    assert scores.groupby("set")["role"].first().to_dict() == {"id_test": "id", "far": "far"}


def test_the_metrics_tell_what_is_left_where_id_and_ood_images_are_degraded_alike(detected):
    metrics = read_csv(detected.detector("arcface", "none", 0) / "metrics.csv").set_index("score")
    detector = Detector.load(detected.detector("arcface", "none", 0))
    test, far = (detector.classify(degraded(of_set).images)[1] for of_set in SETS)
    for score in ("cosine", "knn", "mahalanobis"):
        assert np.isclose(metrics.loc[score, "auroc_degraded"], auroc(test[score], far[score]), atol=1e-6)
        assert metrics.loc[score, "auroc_degraded"] != metrics.loc[score, "auroc"]


def test_alarms_say_what_share_of_each_set_is_called_ood_shifted_id_images_too(detected, capsys):
    shifted = EvaluationSet("bright", "bright", Role.SHIFTED_ID, TEST.images | 63, *TEST[1:])
    detector = detect(detected, sets=[*SETS, shifted])
    folder = detected.detector("arcface", "none", 0)
    alarms = read_csv(folder / "alarms.csv").set_index(["score", "set"])
    scores, on_dim = read_csv(folder / "scores.csv"), detector.classify(VALIDATION[1].images)[1]
    assert set(alarms.index) == {
        (score, key) for score in detector.thresholds for key in ("id_test", "far", "bright")
    }
    for (score, key), row in alarms.iterrows():
        of_set = scores[scores["set"] == key]
        assert row["called_ood"] == pytest.approx((of_set[score] < detector.thresholds[score]).mean())
        # That keeps 58 of 60 degraded validation images: 95 % of unseen ones.
        assert row["recalibrated"] == pytest.approx((of_set[score] < np.sort(on_dim[score])[2]).mean())
        assert (row["images"], row["role"]) == (len(of_set), of_set["role"].iloc[0])
    assert (
        alarms.loc[("cosine", "bright"), "accuracy"]
        == scores.loc[scores["set"] == "bright", "correct"].mean()
    )
    assert np.isnan(alarms.loc[("cosine", "far"), "accuracy"])
    assert alarms["own_score"].unique().tolist() == ["cosine"] and alarms["called_ood"].nunique() > 1


def test_the_table_to_choose_by_has_false_alarms_on_degraded_validation_images(detected):
    folder = detected.detector("arcface", "none", 0)
    detector = Detector.load(folder)
    table = read_csv(folder / "validation.csv").set_index("score")
    on_dim = detector.classify(VALIDATION[1].images)[1]
    expected = {name: (on_dim[name] < threshold).mean() for name, threshold in detector.thresholds.items()}
    assert table["false_alarms"].to_dict() == pytest.approx(expected)
    assert table["ood_set"].unique().tolist() == ["v"]


def test_degraded_validation_images_are_needed(detected):
    settings = small(outliers="none")
    detector = steps.detector(detected, settings, TRAIN, VAL, None)
    with pytest.raises(InputError, match=r"shape \(0,\), expected a non-empty vector"):
        steps.score_detector(detected, settings, detector, SETS[:1], VALIDATION[::2])


def test_detectors_of_other_conditions_lie_apart_and_stand_in_tables_by_their_condition(detected):
    plain = detected.detector("arcface", "none", 0) / "detector.safetensors"
    before = plain.read_bytes()
    detect(detected, degrade=1.0)
    detect(detected, degrade=0.5)
    assert plain.read_bytes() == before
    names = ["none", "none+degraded", "none+degraded0.5"]
    folders = {path.name for path in detected.detectors.iterdir()}
    assert folders == {f"arcface-{name}" for name in names}
    for table in ("metrics", "scores", "validation", "alarms"):
        assert sorted(detected.tables(table)["outliers"].unique()) == names
    assert set(detected.thresholds(detected.tables("scores"))) == set(names)


def test_noise_levels_and_degradation_make_the_three_steps_of_a_detector_of_its_own(
    made, capsys, monkeypatch
):
    run, pool = made[0], sources.uniform_noise(TRAIN, range(8))
    options = dict(outliers="uniform_noise", noise_levels=(0.3, 1.0), degrade=1.0, pool=pool)
    detect(run, **options)
    folder = run.detector("arcface", "uniform_noise+noise+degraded", 0)
    made_with = read_json(folder / "settings.json")["settings"]
    assert made_with["clean_share"] == 0.25 and made_with["noise_levels"] == [0.3, 1.0]
    assert steps_made(run, capsys, monkeypatch, **options) == set()
    assert "training" in steps_made(run, capsys, monkeypatch, **options, clean_share=0.5)
    assert (folder / "scores.csv").is_file()


def test_a_share_of_clean_outliers_counts_only_with_noise_levels(detected, capsys, monkeypatch):
    assert steps_made(detected, capsys, monkeypatch, clean_share=0.9, trains_nothing=True) == set()


def test_noise_levels_of_a_preset_leave_a_detector_without_outliers_alone(detected, capsys, monkeypatch):
    monkeypatch.setattr("oodlib.steps.training.fit_detector", lambda *_, **__: pytest.fail("it trains"))
    capsys.readouterr()
    of_preset = small(outliers="none").replaced(noise_levels=(0.3, 1.0), clean_share=0.5)
    steps.detector(detected, of_preset, TRAIN, VAL, None)
    assert "detector.safetensors was made with these settings and is kept" in capsys.readouterr().out


def test_a_double_batch_needs_no_pool_and_reaches_training(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(
        "oodlib.steps.training.fit_detector",
        lambda *arguments, **options: (given.append(options), fit_detector(*arguments, **options))[1],
    )
    run = Run(str(tmp_path / "run"))
    for outliers, doubles in (("double_batch", True), ("none", False)):
        settings = small(outliers=outliers)
        assert steps.outliers(run, settings, TRAIN) is None
        steps.detector(run, settings, TRAIN, VAL, None)
        assert given[-1]["double_batch"] is doubles and "outliers" not in given[-1]


def test_a_committee_of_a_degraded_experiment_is_the_usual_one(made, capsys):
    capsys.readouterr()
    steps.committee(made[0], small(degrade=1.0, noise_levels=(0.3, 1.0)), TRAIN, VAL)
    assert capsys.readouterr().out.count("is kept") == 3


def test_twins_of_a_pool_reach_training(made, monkeypatch):
    run = made[0]
    pool, _ = steps.pool(run, small(outliers="matched"), TRAIN, made[2], run)
    monkeypatch.setattr(
        "oodlib.steps.training.fit_detector", lambda *_, **options: given.update(options) or history
    )
    given, history = {}, pd.DataFrame({"step": [1], "loss": [1.0]})
    steps.training.trained_detector(run.folder / "twins", small(outliers="matched"), TRAIN, "label", pool)
    assert np.array_equal(given["twins"], pool.twins) and np.array_equal(
        given["twin_labels"], pool.twin_labels
    )
    assert len(pool.twins) == 6


def test_a_source_that_asks_a_committee_gets_the_run_s(made):
    pool, _ = steps.pool(made[0], small(outliers="boundary_mixup"), TRAIN, made[2], made[0])
    assert len(pool) == 6 and len(np.unique(pool.label_weights)) > 2


def test_the_denoisers_own_scores_are_made_once_and_stand_among_the_detectors(made, capsys):
    run, denoiser, _ = made
    val = datasets.id_set(VAL, "val")
    folder = steps.score_by_denoiser(run, small(images_per_set=5), denoiser, val, SETS)
    assert set(read_csv(folder / "metrics.csv")["score"]) == {"reconstruction", "inpainting"}
    assert len(read_csv(folder / "scores.csv")) == 10
    alarms, thresholds = read_csv(folder / "alarms.csv"), read_json(folder / "scores.json")["thresholds"]
    scores = read_csv(folder / "scores.csv").groupby("set", sort=False)
    expected = [(of[name] < limit).mean() for name, limit in thresholds.items() for _, of in scores]
    assert alarms["called_ood"].tolist() == pytest.approx(expected) and "recalibrated" not in alarms
    capsys.readouterr()
    steps.score_by_denoiser(run, small(images_per_set=5), denoiser, val, SETS)
    assert "is kept" in capsys.readouterr().out
    steps.score_by_denoiser(run, small(images_per_set=6), denoiser, val, SETS)
    assert "is kept" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["scores.json", "scores.safetensors"])
def test_damaged_scores_are_fitted_again_and_train_nothing(detected, capsys, monkeypatch, name):
    path = detected.detector("arcface", "none", 0) / name
    path.write_bytes(path.read_bytes()[:50])
    assert steps_made(detected, capsys, monkeypatch, trains_nothing=True) == {"fitting"}


def test_a_damaged_network_is_trained_again(detected, capsys, monkeypatch):
    path = detected.detector("arcface", "none", 0) / "detector.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "training" in steps_made(detected, capsys, monkeypatch)
    assert path.read_bytes() == whole


def test_a_trained_detector_reads_pictures_on_the_background_of_its_run(tmp_path):
    run, settings = Run(str(tmp_path / "run")), small(background="black", outliers="none")
    assert steps.detector(run, settings, TRAIN, VAL, None).background == "black"


def test_real_outliers_are_read_on_the_background_of_the_run(tmp_path, made):
    for name in "abc":
        Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / f"{name}.png")
    settings = small(outliers="real", real_outliers=str(tmp_path), background="black", images_per_pair=1)
    outliers, _ = steps.pool(Run(str(tmp_path / "run")), settings, TRAIN, made[2], made[0])
    assert len(outliers) and not outliers.images.any()


def test_a_set_that_was_left_out_is_scored_by_the_detectors_of_some_conditions(detected):
    folder, far = detected.detector("arcface", "none", 0), SETS[1]
    table = steps.auroc_on([detected], ["none"], far)
    assert table.index.tolist() == [("own", "none"), ("knn", "none")] and list(table.columns) == ["arcface"]
    metrics = read_csv(folder / "metrics.csv").set_index("score")["auroc"]
    assert np.allclose(table["arcface"], metrics[["cosine", "knn"]], atol=1e-9)
