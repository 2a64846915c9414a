"""The models that ship: whole, small, made with the present settings, and good enough to show."""

import hashlib
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from oodlib import datasets, presets, pretrained
from oodlib.conditions import condition, parse
from oodlib.datasets.loading import ID_TEST
from oodlib.detection.detector import Detector
from oodlib.detection.metrics import auroc, threshold_at_tpr
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.sample import sample
from oodlib.errors import InputError
from oodlib.explorer.renderer import find_detectors
from oodlib.marks import MARKS, Mark
from oodlib.reports.tables import score_table
from oodlib.runs import Run
from oodlib.settings import (
    OFF,
    DenoiserModel,
    DenoiserTraining,
    DetectorModel,
    DetectorTraining,
    Experiment,
)
from oodlib.steps.training import contents_of

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # from inside diffusers

DIGITS = pretrained.FOLDER / "digits"
DEFAULT = condition(presets.make_settings())
OUTLIERS = ("none", DEFAULT)
DETECTORS = {outliers: f"detectors/arcface-{outliers}/seed0" for outliers in OUTLIERS}
FILES = sorted(path.relative_to(DIGITS).as_posix() for path in DIGITS.rglob("*") if path.is_file())
TABLES = pretrained.RESULTS["digits"][1]
MODELS = [name for name in FILES if name not in TABLES]
TENSORS = [name for name in FILES if name.endswith(".safetensors")]


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of what ships, to be damaged, in the place of it."""
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    return shutil.copytree(DIGITS, tmp_path / "digits")


@pytest.fixture(scope="module")
def splits():
    return {split: datasets.load("digits", split) for split in datasets.SPLITS}


@pytest.fixture(scope="module")
def sets(splits):
    return [datasets.id_set(splits["test"]), *datasets.load_ood(presets.make_settings().ood_sets)]


@pytest.fixture(scope="module")
def detectors():
    return {outliers: Detector.load(DIGITS / folder) for outliers, folder in DETECTORS.items()}


@pytest.fixture(scope="module")
def tables(detectors, sets):
    return {
        outliers: score_table(sets, detector.classify, detector.class_names)
        for outliers, detector in detectors.items()
    }


@pytest.fixture(scope="module")
def pure_classes():
    """Fifty images of each class, and the classes."""
    classes = torch.arange(8).repeat_interleave(50)
    return sample(Denoiser.load(DIGITS / "denoiser"), torch.eye(8)[classes]), classes.numpy()


# Which files there are.


def test_a_denoiser_and_the_default_heads_detectors_ship():
    held = {"denoiser": ["denoiser.json", "denoiser.safetensors", "history.csv", "settings.json"]}
    for folder in DETECTORS.values():
        held[folder] = ["detector.json", "detector.safetensors", "fitted.json", "scored.json"]
        held[folder] += ["alarms.csv", "scores.csv", "scores.json", "scores.safetensors", "settings.json"]
    assert sorted(["SHA256SUMS", *(f"{folder}/{name}" for folder in held for name in held[folder])]) == MODELS


def test_all_models_that_ship_for_the_digits_are_smaller_than_2_MiB():
    sizes = [(DIGITS / name).stat().st_size for name in MODELS if not name.endswith(".csv")]
    assert sum(sizes) < 2 * 2**20


@pytest.mark.parametrize("run", pretrained.RESULTS)
def test_the_tables_that_ship_are_small(run):
    assert max(file.stat().st_size for file in (pretrained.FOLDER / run).rglob("*.csv")) < 2**20


def test_there_is_a_checksum_for_every_file_and_for_no_other():
    lines = (DIGITS / "SHA256SUMS").read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == [name for name in FILES if name != "SHA256SUMS"]


@pytest.mark.parametrize("name", [name for name in FILES if name != "SHA256SUMS"])
def test_the_checksum_is_the_files(name):
    checksum = hashlib.sha256((DIGITS / name).read_bytes()).hexdigest()
    assert f"{checksum}  {name}" in (DIGITS / "SHA256SUMS").read_text().splitlines()


@pytest.mark.parametrize("folder", ["denoiser", *DETECTORS.values()])
def test_the_marks_list_the_files_beside_them(folder):
    beside = {path.name for path in (DIGITS / folder).iterdir()}
    marks = [json.loads((DIGITS / folder / mark).read_text()) for mark in beside & set(MARKS)]
    assert sorted(file for mark in marks for file in mark["files"]) == sorted(beside - set(MARKS))


@pytest.mark.parametrize("name", [name for name in TENSORS if not name.endswith("/scores.safetensors")])
def test_weights_are_stored_in_half_precision(name):
    tensors = load_file(DIGITS / name).items()
    assert {t.dtype for key, t in tensors if not key.endswith("num_batches_tracked")} == {torch.float16}


@pytest.mark.parametrize("folder", DETECTORS.values())
def test_what_is_large_in_the_statistics_is_not_in_double_precision(folder):
    tensors = load_file(DIGITS / folder / "scores.safetensors")
    assert tensors["knn.bank"].dtype == torch.float16
    assert tensors["mahalanobis.whitening"].dtype == torch.float32
    assert all(t.dtype != torch.float64 for t in tensors.values() if t.numel() > 1000)


@pytest.mark.parametrize("folder", DETECTORS.values())
def test_half_a_thousand_training_features_ship(folder):
    assert load_file(DIGITS / folder / "scores.safetensors")["knn.bank"].shape == (500, 64)


# What `shipped` accepts.


def test_what_ships_is_a_run():
    assert pretrained.shipped("digits").folder == DIGITS


@pytest.mark.parametrize("name", [name for name in FILES if name != "SHA256SUMS"])
def test_one_changed_byte_is_refused(copied, name):
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(
        InputError, match=f"^{re.escape(name)} of what ships for digits is missing or damaged"
    ):
        pretrained.shipped("digits")


@pytest.mark.parametrize("name", TENSORS)
def test_a_missing_file_is_refused(copied, name):
    (copied / name).unlink()
    with pytest.raises(
        InputError, match=f"^{re.escape(name)} .* is missing or damaged; install oodlib again$"
    ):
        pretrained.shipped("digits")


def test_an_untouched_copy_is_accepted(copied):
    assert pretrained.shipped("digits").denoiser == copied / "denoiser"


@pytest.mark.parametrize("ask", [pretrained.shipped, lambda preset: find(preset, preset)])
def test_a_preset_without_models_is_told_what_makes_them(ask):
    with pytest.raises(InputError) as error:
        ask("cifar")
    assert str(error.value) == (
        "no models ship for preset 'cifar'; train them with notebook 01_train_ddpm: "
        "papermill notebooks/01_train_ddpm.ipynb out.ipynb -p preset cifar"
    )


# Which run `find` takes.


@pytest.fixture
def runs_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("OODLIB_RUNS", str(tmp_path))
    return tmp_path


def find(preset, run):
    return pretrained.find(Experiment(preset=preset, run=run))


def train_denoiser(folder):
    (folder / "denoiser").mkdir(parents=True)
    (folder / "denoiser" / "settings.json").touch()


def test_without_a_run_of_ones_own_the_shipped_models_are_found(runs_folder):
    assert find("digits", "digits").folder == DIGITS


def test_the_presets_own_run_goes_before_what_ships(runs_folder):
    train_denoiser(runs_folder / "digits")
    assert find("digits", "digits").folder == runs_folder / "digits"


def test_an_unfinished_run_does_not_go_before_what_ships(runs_folder):
    (runs_folder / "digits" / "denoiser").mkdir(parents=True)
    assert find("digits", "digits").folder == DIGITS


def test_a_named_run_is_found(runs_folder):
    train_denoiser(runs_folder / "mine")
    assert find("digits", "mine").folder == runs_folder / "mine"


def test_a_named_run_without_a_denoiser_is_told_the_notebook(runs_folder):
    with pytest.raises(InputError, match=r"mine/denoiser/settings.json is not there; .* 01_train_ddpm"):
        find("digits", "mine")


# They are what the present settings describe.


def stored(folder):
    return json.loads((DIGITS / folder / "settings.json").read_text())["settings"]


def as_json(values):
    return json.loads(json.dumps(values))


def test_the_denoiser_is_of_the_present_settings_and_images(splits):
    made_with = presets.make_settings().values(DenoiserModel, DenoiserTraining) | contents_of(splits["train"])
    assert stored("denoiser") == as_json(made_with)


@pytest.mark.parametrize("outliers", OUTLIERS)
def test_the_detectors_are_of_the_present_settings_and_images(splits, outliers):
    expected = presets.make_settings(**parse(outliers)).values(DetectorModel, DetectorTraining)
    made_with = stored(DETECTORS[outliers])
    assert (made_with.pop("pool") is None) == (outliers == "none")  # the pool does not ship
    expected = as_json(expected | contents_of(splits["train"]))
    assert made_with.keys() <= expected.keys()
    # A setting that came later was off, as a step takes it that finds this mark.
    assert {name: made_with.get(name, OFF.get(name)) for name in expected} == expected


def test_the_detectors_are_those_of_the_presets_head_and_seed():
    chosen = presets.make_settings(preset="digits")
    run = pretrained.shipped("digits")
    assert all(run.detector(chosen.head, outliers, chosen.seed).is_dir() for outliers in OUTLIERS)


# How good they are. Measured values stand beside the bounds.


@pytest.mark.parametrize("outliers", OUTLIERS)
def test_pure_classes_are_drawn_so_that_detectors_recognise_them(pure_classes, detectors, outliers):
    images, classes = pure_classes
    right = detectors[outliers].predict(images).classes == classes
    assert right.mean() > 0.95  # 0.99 and 0.98
    assert min(right[classes == c].mean() for c in range(8)) > 0.8  # 0.96 and 0.90


def test_pure_classes_are_drawn_so_that_most_are_accepted(pure_classes, detectors):
    assert (~detectors["none"].predict(pure_classes[0]).is_ood).mean() > 0.93  # 0.97


@pytest.mark.parametrize("outliers", OUTLIERS)
def test_digits_of_the_test_set_are_told_apart(detectors, splits, outliers):
    classes = detectors[outliers].predict(splits["test"].images).classes
    assert (classes == splits["test"].labels).mean() > 0.98  # 0.992 of 361, both


@pytest.mark.parametrize("outliers", OUTLIERS)
def test_the_threshold_keeps_95_percent_of_validation(detectors, splits, outliers):
    detector = detectors[outliers]
    score = detector.head.default_score
    expected = threshold_at_tpr(detector.score(splits["val"].images), 0.95)
    assert detector.thresholds[score] == pytest.approx(expected, abs=1e-5)
    assert (~detector.predict(splits["val"].images).is_ood).mean() >= 0.95


@pytest.mark.parametrize("outliers, bound", [("none", 0.96), (DEFAULT, 0.92)])
def test_auroc_on_all_ood_sets_together(tables, outliers, bound):
    is_id = tables[outliers]["set"] == ID_TEST
    assert auroc(tables[outliers].loc[is_id, "cosine"], tables[outliers].loc[~is_id, "cosine"]) > bound


@pytest.mark.parametrize("outliers", OUTLIERS)
def test_shipped_scores_are_the_detectors(tables, outliers):
    shipped = pd.read_csv(DIGITS / DETECTORS[outliers] / "scores.csv")
    assert shipped["role"].tolist() == tables[outliers]["role"].tolist()
    assert np.abs(shipped["cosine"] - tables[outliers]["cosine"]).max() < 2e-5  # rounded to five digits


@pytest.mark.parametrize("outliers", OUTLIERS)
def test_shipped_scores_have_the_detectors_auroc(tables, outliers):
    def pooled(table):
        is_id = table["role"] == "id"
        return auroc(table.loc[is_id, "cosine"], table.loc[~is_id, "cosine"])

    shipped = pd.read_csv(DIGITS / DETECTORS[outliers] / "scores.csv")
    assert pooled(shipped) == pytest.approx(pooled(tables[outliers]), abs=1e-4)


# How they are made from a run.


@torch.no_grad()
def as_trained(module):
    """The same model in full precision: a little off from what half precision can hold."""
    for parameter in module.parameters():
        parameter.mul_(1 + 1e-4)
    return module


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A run in full precision with thresholds of 0 and no scores, and what is built of it."""
    folder = tmp_path_factory.mktemp("build")
    source, target = folder / "run", folder / "weights" / "digits"
    shutil.copytree(DIGITS, source, ignore=shutil.ignore_patterns("SHA256SUMS", "scores.csv"))
    as_trained(Denoiser.load(source / "denoiser")).save(source / "denoiser")
    for name in DETECTORS.values():
        detector = as_trained(Detector.load(source / name))
        detector.scores.thresholds = dict.fromkeys(detector.thresholds, 0.0)
        detector.save(source / name)
    target.mkdir(parents=True)
    (target / "old.txt").touch()
    pretrained.build(Run(str(source)), target)
    return source, target


def test_what_is_built_has_valid_checksums(built, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", built[1].parent)
    assert pretrained.shipped("digits").folder == built[1]


def test_what_is_built_are_the_files_that_ship(built):
    found = sorted(path.relative_to(built[1]).as_posix() for path in built[1].rglob("*") if path.is_file())
    assert found == FILES


def test_a_denoiser_that_ships_already_stays_as_it_is(built, tmp_path):
    run, ship = (shutil.copytree(part, tmp_path / part.name) for part in built)
    mark = json.loads((run / "denoiser" / "settings.json").read_text())
    mark["settings"]["denoiser_steps"] = 0
    (run / "denoiser" / "settings.json").write_text(json.dumps(mark))
    shutil.copy(ship / "denoiser" / "denoiser.safetensors", run / "denoiser")
    before = {path: path.read_bytes() for path in (ship / "denoiser").iterdir()}
    shutil.rmtree(ship / "detectors")
    pretrained.build(Run(str(run)), ship)
    assert before == {path: path.read_bytes() for path in (ship / "denoiser").iterdir()}
    assert (ship / "SHA256SUMS").read_text() == (built[1] / "SHA256SUMS").read_text()


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (None, "run.json is not there; make it with notebook 01_train_ddpm"),
        ({"id_data": "mine/"}, "is not of the images of preset digits, or a smoke run; name another"),
        ({"image_shape": [16, 16, 1]}, "is not of the images of preset digits"),
        ({"profile": "smoke"}, "is not of the images of preset digits, or a smoke run"),
    ],
)
def test_models_of_another_run_do_not_take_the_place_of_a_preset_s(tmp_path, monkeypatch, about, message):
    monkeypatch.setattr(pretrained, "build", lambda *arguments: pytest.fail("built"))
    run = Run(str(tmp_path / "run"))
    if about is not None:
        own = presets.make_settings().replaced(run=run.name)
        run.claim(own.replaced(**{n: tuple(v) if isinstance(v, list) else v for n, v in about.items()}))
    with pytest.raises(InputError, match=message):
        pretrained.main([run.name])


def test_a_denoiser_that_does_not_ship_yet_is_refused_for_detectors_alone(built, tmp_path):
    run, ship = (shutil.copytree(part, tmp_path / part.name) for part in built)
    mark = json.loads((run / "denoiser" / "settings.json").read_text())
    mark["settings"]["denoiser_steps"] = 0
    (run / "denoiser" / "settings.json").write_text(json.dumps(mark))
    with pytest.raises(InputError, match="is not the one that ships; delete the run and make it again"):
        pretrained.build(Run(str(run)), ship)
    assert sorted(path.name for path in ship.rglob("*")) == sorted(path.name for path in built[1].rglob("*"))


def test_without_its_tables_nothing_is_built_and_nothing_lost(built, tmp_path):
    run, ship = (shutil.copytree(part, tmp_path / part.name) for part in built)
    (run / "results.csv").unlink()
    with pytest.raises(InputError, match=r"results\.csv is not there; make it with notebook 05_compare"):
        pretrained.build(Run(str(run)), ship)
    assert sorted(path.name for path in ship.rglob("*")) == sorted(path.name for path in built[1].rglob("*"))


def test_a_second_build_takes_the_place_of_the_first(built, tmp_path):
    shutil.copytree(built[1], tmp_path / "digits")
    (tmp_path / "digits" / "SHA256SUMS").write_text("")
    pretrained.build(Run(str(built[0])), tmp_path / "digits")
    for name in FILES:
        assert (tmp_path / "digits" / name).read_bytes() == (built[1] / name).read_bytes(), name


@pytest.mark.parametrize(
    "name", ["denoiser/denoiser.safetensors", f"{DETECTORS['none']}/detector.safetensors"]
)
def test_weights_are_the_runs_in_half_precision(built, name):
    ours, theirs = (load_file(folder / name) for folder in built)
    for key, tensor in ours.items():
        if tensor.dtype == torch.float32:
            assert theirs[key].dtype == torch.float16, key
            assert torch.equal(theirs[key], tensor.half()), key


def test_the_mark_of_what_is_built_is_the_runs(built):
    for folder in ("denoiser", *DETECTORS.values()):
        ours, theirs = (json.loads((part / folder / "settings.json").read_text()) for part in built)
        assert theirs["settings"] == ours["settings"]


@pytest.mark.parametrize("outliers", OUTLIERS)
def test_thresholds_are_those_of_the_rounded_weights(built, splits, outliers):
    detector = Detector.load(built[1] / DETECTORS[outliers])
    for score, values in detector.all_scores(splits["val"].images).items():
        assert detector.thresholds[score] == pytest.approx(threshold_at_tpr(values, 0.95), rel=1e-5), score


@pytest.mark.parametrize("outliers", OUTLIERS)
def test_scores_are_those_of_the_rounded_weights(built, sets, outliers):
    folder = built[1] / DETECTORS[outliers]
    detector = Detector.load(folder)
    expected = score_table(sets, detector.classify, detector.class_names)["cosine"]
    assert np.abs(pd.read_csv(folder / "scores.csv")["cosine"] - expected).max() < 2e-5


@pytest.mark.parametrize(
    "missing, notebook",
    [
        ("denoiser", "01_train_ddpm"),
        (
            DETECTORS[DEFAULT],
            r"03_train_detector: .* -p outliers distant_mixup -p noise_levels '\[0\.3, 1\.0\]' -p degrade 1\.0 ",
        ),
    ],
)
def test_a_run_that_lacks_a_model_is_refused_before_anything_is_removed(built, tmp_path, missing, notebook):
    run = shutil.copytree(built[0], tmp_path / "run", ignore=lambda folder, _: _inside(folder, missing))
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    with pytest.raises(InputError, match=f"make it with notebook {notebook}"):
        pretrained.build(Run(str(run)), tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["file"]


def _inside(folder, missing):
    return ["settings.json"] if folder.endswith(f"/{missing}") else []


@pytest.mark.parametrize("folder", ["denoiser", *DETECTORS.values()])
def test_the_marks_know_the_files_by_size_and_hash(folder):
    for mark in (DIGITS / folder / name for name in MARKS):
        if mark.is_file():
            Mark.read(mark, "").check(mark.parent, "")


# What ships for CIFAR-10: a denoiser, and two small detectors.

CIFAR10 = pretrained.FOLDER / "cifar10"


def test_a_denoiser_of_at_most_14_mb_ships_for_cifar10():
    (tensors,) = (CIFAR10 / "denoiser").glob("*.safetensors")
    assert tensors.stat().st_size < 14e6
    assert {tensor.dtype for tensor in load_file(tensors).values()} == {torch.bfloat16}


def test_two_detectors_of_less_than_6_mb_ship_for_cifar10_and_judge_what_the_denoiser_draws():
    run, s = pretrained.shipped("cifar10"), presets.make_settings(preset="cifar10", profile="cpu")
    (detectors,) = find_detectors(run, condition(s)).values()
    assert detectors.keys() == {"none", condition(s)}
    images = sample(Denoiser.load(run.denoiser), torch.eye(10)[:4], num_inference_steps=2)
    for folder in detectors.values():
        assert sum(path.stat().st_size for path in folder.iterdir()) < 6e6
        assert Mark.read(folder / MARKS[0], "").settings["backbone"] == s.backbone
        detector = Detector.load(folder)
        assert detector.own_score in detector.thresholds and len(detector.predict(images).classes) == 4


def test_the_mark_of_the_cifar10_denoiser_fits_its_files():
    mark = Mark.read(CIFAR10 / "denoiser" / MARKS[0], "")
    mark.check(CIFAR10 / "denoiser", "")
    assert mark.settings.keys() == {
        *DenoiserModel.model_fields,
        *DenoiserTraining.model_fields,
        "class_names",
        "images",
    }


def test_the_cifar10_denoiser_draws_colours_of_its_classes():
    """Ships stand in blue, deer in green, frogs in neither: means of a few images."""
    run = pretrained.find(presets.make_settings(preset="cifar10"))
    denoiser = Denoiser.load(run.denoiser)
    ship, deer = (torch.eye(10)[[denoiser.class_names.index(name)] * 4] for name in ("ship", "deer"))
    images = sample(denoiser, torch.cat([ship, deer]), num_inference_steps=4).astype(float).mean((1, 2))
    assert images[:4, 2].mean() - images[:4, 1].mean() > images[4:, 2].mean() - images[4:, 1].mean() + 10


# Results that ship.


def test_a_run_without_detectors_is_shown_as_the_results_that_ship(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OODLIB_RUNS", str(tmp_path))
    run = pretrained.finished(presets.make_settings())
    assert run.is_shipped and run.folder == DIGITS and run.name == "digits"
    assert (
        "digits has no detectors yet: these are the results that ship; make demo makes"
        in capsys.readouterr().out
    )
    results = run.table("results", lambda: pytest.fail("made"))
    assert len(results) == len(pd.read_csv(DIGITS / "results.csv"))
    assert run.tables("scores")["outliers"].unique().tolist() == sorted(OUTLIERS)
    run.save(lambda path: pytest.fail("written"), DIGITS / "results.csv")
    assert not any(tmp_path.iterdir())


def test_a_run_with_a_detector_is_shown_itself(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OODLIB_RUNS", str(tmp_path))
    folder = shutil.copytree(DIGITS / DETECTORS["none"], tmp_path / "digits" / DETECTORS["none"])
    run = pretrained.finished(presets.make_settings())
    assert not run.is_shipped and run.scored() == [folder / MARKS[2]]
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    "values",
    [
        {"run": "mine"},
        {"preset": "cifar10"},
        {"profile": "smoke"},
        {"run": "study", "preset": "cifar10"},
        {"image_shape": (16, 16, 1)},
        {"id_data": "birds/"},
    ],
)
def test_other_runs_are_shown_themselves(tmp_path, monkeypatch, values):
    monkeypatch.setenv("OODLIB_RUNS", str(tmp_path))
    assert not pretrained.finished(presets.make_settings(**values)).is_shipped


def test_a_damaged_table_is_refused(copied, tmp_path, monkeypatch):
    monkeypatch.setenv("OODLIB_RUNS", str(tmp_path / "runs"))
    (copied / "results.csv").write_text("head\n")
    with pytest.raises(InputError, match=r"^results\.csv of what ships for digits is missing or damaged"):
        pretrained.finished(presets.make_settings())


@pytest.mark.parametrize("outliers", OUTLIERS)
def test_the_false_alarms_that_ship_are_those_of_the_detector(outliers, detectors, splits):
    test = datasets.id_set(splits["test"])
    alarms = pd.read_csv(DIGITS / DETECTORS[outliers] / "alarms.csv").set_index("set")["called_ood"]
    assert alarms[ID_TEST] == pytest.approx(detectors[outliers].predict(test.images).is_ood.mean())


def test_of_the_study_the_tables_alone_ship(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "weights")
    monkeypatch.setenv("OODLIB_RUNS", str(tmp_path))
    run = Run("study")
    run.claim(presets.make_settings(run="study"))
    sets = pd.DataFrame({"set": [ID_TEST, "near sets", "letters"], "change": [0.1, 0.2, 0.3]})
    for name in pretrained.RESULTS["study"][1]:
        if name.endswith(".csv"):
            sets.to_csv(run.folder / name, index=False)
    with pytest.raises(
        InputError, match=r"outliers\.npz is not there; make it with notebook 06_which_outliers"
    ):
        pretrained.main(["study"])
    np.savez(run.folder / "outliers.npz", label_mixup=np.zeros((7, 8, 8, 1), np.uint8))
    pretrained.main(["study"])
    ships = tmp_path / "weights" / "study"
    assert {path.name for path in ships.iterdir()} == {*pretrained.RESULTS["study"][1], "SHA256SUMS"}
    assert pd.read_csv(ships / "study.csv")["set"].tolist() == [ID_TEST, "near sets"]
    assert pretrained.finished(presets.make_settings(run="study")).folder == ships
