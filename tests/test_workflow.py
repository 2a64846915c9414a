"""The Snakefile: a small run of everything, and what happens when a part goes missing or fails."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import SMOKE, Workflow
from PIL import Image

from oodlib import datasets
from oodlib.conditions import STUDY, condition, parse, references
from oodlib.detection import metrics
from oodlib.detection.detector import Detector
from oodlib.detection.scores import SCORES
from oodlib.diffusion.denoiser import Denoiser
from oodlib.explorer.renderer import find_detectors
from oodlib.presets import make_settings
from oodlib.reports.tables import COLUMNS
from oodlib.runs import Run

pytestmark = pytest.mark.slow


def jobs(dry_run: str) -> dict[str, int]:
    """How often each rule would run."""
    table = re.search(r"job +count\n[- ]+\n(.*?)\ntotal", dry_run, re.DOTALL)
    return {} if table is None else {rule: int(n) for rule, n in re.findall(r"(\w+) +(\d+)", table[1])}


def test_results_hold_every_detector_score_and_set(workflow):
    results = pd.read_csv(workflow.run / "results.csv")
    assert list(results.columns) == COLUMNS
    trained = results[results["head"] != "denoiser"]
    assert len(trained) == 1 * 2 * 2 * len(SCORES) * 6  # heads, outliers, seeds, scores, sets
    assert len(results) - len(trained) == 2 * 6  # the denoiser's scores, sets
    assert not results.duplicated(["head", "outliers", "seed", "score", "ood_set"]).any()
    assert results["auroc"].between(0, 1).all() and trained["id_accuracy"].between(0, 1).all()


def test_the_results_follow_from_the_per_image_scores(workflow):
    scores = pd.read_csv(workflow.run / "detectors" / "arcface-none" / "seed1" / "scores.csv")
    by_set = dict(tuple(scores.groupby("set")))
    results = pd.read_csv(workflow.run / "results.csv").query("outliers == 'none' and seed == 1")
    row = results.query("score == 'cosine' and ood_set == 'letters'").iloc[0]
    assert np.isclose(row["auroc"], metrics.auroc(by_set["id_test"]["cosine"], by_set["letters"]["cosine"]))


def test_everything_lies_where_the_readme_says(workflow):
    expected = [
        "denoiser/denoiser.safetensors",
        "outliers/label_mixup/pool.npz",
        "outliers/label_mixup/purity.csv",
        "summary.md",
        "figures/results.png",
        "figures/purity_map_label_mixup.png",
        "figures/scores_arcface.png",
        "figures/roc_arcface.png",
        "figures/denoiser_scores.png",
        "detectors/denoiser-none/seed0/scores.csv",
        "notebooks/03_train_detector-arcface-label_mixup.ipynb",
    ]
    assert [name for name in expected if not (workflow.run / name).is_file()] == []
    assert list(workflow.run.rglob("*.part*")) == []


def test_what_was_trained_can_be_loaded_and_used(workflow):
    denoiser = Denoiser.load(workflow.run / "denoiser")
    detector = Detector.load(workflow.run / "detectors" / "arcface-label_mixup" / "seed0")
    images = datasets.load("digits", "test").images[:5]
    saved = pd.read_csv(workflow.run / "detectors" / "arcface-label_mixup" / "seed0" / "scores.csv")
    assert denoiser.class_names == detector.class_names == tuple("01234567")
    assert np.allclose(detector.score(images), saved.query("set == 'id_test'")["cosine"][:5], atol=1e-5)


def test_the_denoiser_is_scored_on_the_images_of_the_detectors_and_as_many_as_asked(workflow):
    run = Run(str(workflow.run))
    scores = pd.read_csv(run.detector("denoiser", "none", 0) / "scores.csv")
    assert set(scores["set"].value_counts()) == {20}
    assert run.unequal_settings() == {}


def test_the_denoiser_is_no_detector_of_the_explorer(workflow):
    names = ["arcface, seed 0", "arcface, seed 1"]
    assert list(find_detectors(Run(str(workflow.run)), "label_mixup")) == names


def test_no_table_of_the_run_says_nan(workflow):
    text = (workflow.run / "notebooks" / "05_compare.ipynb").read_text()
    assert ">nan<" not in text.lower() and " nan " not in text.lower()
    assert "| – " in (workflow.run / "summary.md").read_text()


def test_without_outliers_there_is_no_denoiser(tmp_path):
    planned = jobs(Workflow(tmp_path)("--dry-run", config=SMOKE | {"outliers": ["none"]}).stdout)
    assert planned == dict.fromkeys(("train_detector", "score_distributions", "compare", "all"), 1)


def test_running_again_does_nothing(workflow):
    assert "Nothing to be done" in workflow("--dry-run").stdout


def test_saving_a_notebook_with_new_outputs_redoes_nothing(workflow):
    notebook = workflow.folder / "notebooks" / "01_train_ddpm.ipynb"
    notebook.write_text(notebook.read_text().replace('"outputs": []', '"outputs":  []'))
    assert "Nothing to be done" in workflow("--dry-run").stdout


def test_with_more_kinds_of_outliers_all_are_compared(workflow):
    config = SMOKE | {"outliers": ["none", "label_mixup", "vos"]}
    done = workflow(config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    results = pd.read_csv(workflow.run / "results.csv").query("score == 'cosine'")
    assert set(results["outliers"]) == {"none", "label_mixup", "vos"}
    assert "| ArcFace | VOS" in (workflow.run / "summary.md").read_text().replace("  ", "")
    study = pd.read_csv(workflow.run / "study.csv").query("score == 'own'")
    assert set(study["outliers"]) == {"label_mixup", "vos"} and (study["low"] <= study["high"]).all()
    means = results.groupby("outliers")["auroc"].mean()
    row = study.query("outliers == 'vos' and set == 'mean over sets' and metric == 'auroc'").iloc[0]
    assert np.isclose(row["change"], means["vos"] - means["none"], atol=1e-6)
    assert "| VOS " in (workflow.run / "study.md").read_text()


def test_a_deleted_detector_redoes_it_and_what_depends_on_it(workflow):
    folder = workflow.run / "detectors" / "arcface-none"
    kept = (folder / "seed0" / "detector.safetensors").read_bytes()
    shutil.rmtree(folder / "seed1")
    planned = jobs(workflow("--dry-run").stdout)
    assert planned == {"train_detector": 1, "score_distributions": 1, "compare": 1, "all": 1}
    output = workflow("--until", "train_detector").stdout
    assert "arcface, none, seed 1: step" in output and "arcface, none, seed 0: step" not in output
    assert (folder / "seed0" / "detector.safetensors").read_bytes() == kept
    assert (folder / "seed1" / "detector.safetensors").is_file()


def test_a_failing_notebook_shows_its_error_and_leaves_no_result(tmp_path):
    workflow = Workflow(tmp_path)
    done = workflow(
        "--until",
        "train_detector",
        config=SMOKE | {"outliers": ["none"], "scoring": {"ood_sets": ["nowhere"]}},
    )
    assert done.returncode != 0
    cause = done.stderr.strip().splitlines()[-1]
    assert cause.startswith("InputError: image set 'nowhere' is not known")
    assert (done.stdout + done.stderr).count(cause) == 1
    assert not list((workflow.run / "detectors").rglob("*.*"))
    assert (workflow.run / "notebooks" / "03_train_detector-arcface-none.ipynb").is_file()


def test_a_run_folder_may_have_any_name_but_braces(tmp_path):
    workflow, name = Workflow(tmp_path), "my run's $(touch oops)"
    config = {
        "run": name,
        "heads": "softmax",
        "outliers": "none",
        "seeds": [0],
        "detector_training": {"epochs": 1},
    }
    done = workflow("--until", "train_detector", config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs" / name / "detectors/softmax-none/seed0/metrics.csv").is_file()
    assert not list(tmp_path.rglob("oops"))
    refused = workflow("--dry-run", config=config | {"run": "my{x}"})
    assert refused.returncode != 0 and "choose a name without" in refused.stdout + refused.stderr


def test_an_unknown_head_is_refused_before_anything_runs(tmp_path):
    done = Workflow(tmp_path)("--dry-run", config={"heads": ["arc"]})
    assert done.returncode != 0 and "one of softmax" in done.stdout + done.stderr


def test_heads_and_seeds_are_taken_from_the_command_line(tmp_path):
    chosen = ("--config", "run=mine", "heads=[softmax,arcface]", "seeds=[0,1,2,3,4]")
    done = Workflow(tmp_path)("--dry-run", *chosen, config={})
    assert jobs(done.stdout)["train_detector"] == 2 * 4  # heads, conditions
    assert "runs/mine/detectors/arcface-none/seed4/metrics.csv" in done.stdout


def test_the_study_plans_each_condition_once_and_each_pool_once(tmp_path):
    planned = jobs(Workflow(tmp_path)("--dry-run", config={"outliers": "study", "heads": ["arcface"]}).stdout)
    pools = {str(parse(name)["outliers"]) for name in STUDY} - {"none", "double_batch"}
    assert planned["train_detector"] == len(STUDY) and planned["label_mixup"] == len(pools)
    assert planned["which_outliers"] == 1


def test_conditions_and_numbers_of_a_group_are_taken_on_the_command_line(tmp_path):
    groups = ("shared={seed: 3}", "detector_training={degrade: 0.5}", "pool={distance: [1.2, 3]}")
    chosen = (
        "--config",
        "outliers=[none+degraded,label_mixup+noise+degraded0.5]",
        "heads=[arcface]",
        *groups,
    )
    done = Workflow(tmp_path)("--dry-run", *chosen, config={})
    assert jobs(done.stdout)["train_detector"] == 2
    assert "detectors/arcface-label_mixup+noise+degraded0.5/seed0/metrics.csv" in done.stdout


def test_a_condition_that_is_none_is_refused(tmp_path):
    done = Workflow(tmp_path)("--dry-run", config={"outliers": ["none", "vos+noise"]})
    assert done.returncode != 0 and "outliers = 'vos' has none" in done.stdout + done.stderr


def test_an_unknown_configuration_key_is_refused(tmp_path):
    done = Workflow(tmp_path)("--dry-run", config={"head": "softmax"})
    assert done.returncode != 0 and "configuration 'head' is not known" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"denoiser_training": {"epochs": 3}}, "denoiser_training 'epochs' is not known"),
        ({"detector_training": {"seed": 1}}, "detector_training 'seed' is not known"),
        ({"detector_model": {"head": "softmax"}}, "detector_model 'head' is not known"),
        ({"heads": ["softmax"], "detector_model": {"margin": 0.3}}, "softmax has no margin"),
    ],
)
def test_a_setting_in_a_group_that_has_no_such_is_refused(tmp_path, config, message):
    done = Workflow(tmp_path)("--dry-run", config=config)
    assert done.returncode != 0 and message in done.stdout + done.stderr


def test_a_head_of_the_plan_may_have_options_that_others_lack(tmp_path):
    config = {"heads": ["adacos"], "outliers": ["none"], "detector_model": {"dynamic": True}}
    assert jobs(Workflow(tmp_path)("--dry-run", config=config).stdout)["train_detector"] == 1


@pytest.mark.parametrize("preset", ["digits", "cifar10"])
def test_a_preset_plans_its_condition_with_all_that_it_is_compared_with(tmp_path, preset):
    output = Workflow(tmp_path)("--dry-run", config={"preset": preset}).stdout
    chosen = make_settings(preset=preset)
    conditions = {condition(chosen), *references(condition(chosen)).values()}
    assert len(conditions) == 4 and len(chosen.heads) == 6
    assert jobs(output) == {
        **dict.fromkeys(("train_ddpm", "denoiser_scores", "score_distributions"), 1),
        **dict.fromkeys(("compare", "which_outliers", "all"), 1),
        "label_mixup": 2,  # the mixtures and their placebo
        "train_detector": 6 * 4,
    }
    assert all(f"detectors/arcface-{name}/seed0/metrics.csv" in output for name in conditions)


def test_the_papers_experiment_on_cifar10_is_two_conditions(tmp_path):
    config = {"preset": "cifar10", "outliers": ["none", "label_mixup"]}
    planned = jobs(Workflow(tmp_path)("--dry-run", config=config).stdout)
    assert planned["train_detector"] == 12 and planned["label_mixup"] == 1


def test_a_profile_has_a_run_folder_of_its_own(tmp_path):
    done = Workflow(tmp_path)("--dry-run", config={"preset": "cifar10", "profile": "cpu"})
    assert "runs/cifar10-cpu/denoiser/denoiser.safetensors" in done.stdout


def test_own_pictures_go_through_the_cifar10_preset(tmp_path):
    workflow, rng = Workflow(tmp_path), np.random.default_rng(0)
    for folder, channels in (("own/cat", 3), ("own/dog", 3), ("own/emu", 3), ("odd", 1)):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 256, (40, 48, channels), dtype=np.uint8)
            Image.fromarray(pixels.squeeze()).save(tmp_path / folder / f"{i}.png")
    drawn = "label_mixup+noise+degraded"
    config = {
        "preset": "cifar10",
        "profile": "smoke",
        "run": "own",
        "heads": ["arcface"],
        "outliers": ["none", drawn],
    }
    own = {
        "data": {"id_data": "own"},
        "detector_training": {"epochs": 1},
        "scoring": {"ood_sets": ["odd", "uniform:20"]},
    }
    done = workflow(config=config | own)
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "runs" / "own"
    results = pd.read_csv(run / "results.csv")
    assert set(results["ood_set"]) == {"odd", "uniform"} and set(results["preset"]) == {"cifar10"}
    assert set(results["head"]) == {"arcface", "denoiser"}
    detector = Detector.load(run / "detectors" / f"arcface-{drawn}" / "seed0")
    assert detector.class_names == ("cat", "dog", "emu") and detector.image_shape == (32, 32, 3)
    assert list(run.rglob("checkpoints")) == []


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("run=007", "run = 7 (int), expected a text: in quotes in a notebook, as -r run 007"),
        ("run=2024_01", "as the path run=runs/007 with Snakemake"),
        ("detector_model={'x=1;import os': 1}", "parameter 'x=1;import os' is not known"),
        ("detector_model=x", "detector_model = 'x', expected values by name"),
        ("outliers=5", "outliers = 5, expected a list of conditions"),
        ("heads=3", "heads[0] = 3 (int), expected one of softmax"),
    ],
)
def test_a_mistake_in_the_configuration_is_the_one_line_that_is_shown_last(tmp_path, config, told):
    done = Workflow(tmp_path)("--dry-run", "--config", config, config={})
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode != 0 and last.startswith("InputError: ") and told in last


def test_a_run_called_by_a_number_is_given_as_a_path(tmp_path):
    assert "runs/007/results.csv" in Workflow(tmp_path)("--dry-run", "--config", "run=runs/007").stdout
