"""Run the notebooks: denoiser -> outliers -> detectors -> figures and tables.

    snakemake --cores all                                       the digits run, into runs/digits
    snakemake --cores all --config 'heads=[arcface]' run=mine   some heads only, into runs/mine
    snakemake --cores all --config preset=cifar10               the paper's experiment, into runs/cifar10
    snakemake --cores all --config outliers=all run=study 'seeds=[0,1,2,3,4]'   every kind of outliers, compared
    snakemake --profile profiles/slurm                          the same on a cluster

Each rule hands its parameters to papermill. The executed notebook is the rule's log and stays when it fails.
"""

import hashlib
import json
import os
import shlex

from snakemake.utils import min_version

from oodlib.errors import choice
from oodlib.presets import OUTLIERS, PRESETS, PROFILES, settings

min_version("9.0")

KEYS = (
    *("preset", "profile", "run", "heads", "outliers", "seeds"),
    *("data", "denoiser", "mixup", "detector", "denoiser_scores"),
)
for key in config:
    choice("configuration", key, KEYS)
preset = config.get("preset", "digits")
seeds = config.get("seeds")
if isinstance(seeds, list):  # on the command line Snakemake reads the numbers of a list as text
    seeds = [int(seed) if str(seed).isdigit() else seed for seed in seeds]
chosen = settings(preset=preset, profile=config.get("profile"), heads=config.get("heads"), seeds=seeds)
name = str(config.get("run", chosen.run))
defaults = PRESETS[preset] | PROFILES[preset].get(chosen.profile, {})
run = name if os.sep in name else os.path.join(os.environ.get("OODLIB_RUNS", "runs"), name)
outliers = config.get("outliers", ["none", chosen.outliers])
if outliers == "all":
    outliers = list(OUTLIERS)
for kind in outliers:
    choice("outliers", kind, OUTLIERS)
pools = [kind for kind in outliers if kind not in ("none", "virtual")]

# What a notebook prints goes to the terminal; what the kernel says about itself goes to a log, whose end is shown
# on failure.
PAPERMILL = (
    "papermill {input[0]} {log.notebook} -y {params.given} --no-progress-bar --stdout-file >(cat) 2> {log.stderr} "
    "|| {{ tail -n 4 {log.stderr} >&2; exit 1; }}"
)


def parameters(*steps, **fixed):
    """Papermill's parameters: preset, run, the rule's own, and those that the configuration gives for its steps."""
    given = {"preset": preset, "profile": chosen.profile, "run": os.path.join(run, "")}
    for step in steps:
        given |= config.get(step, {})
    return shlex.quote(json.dumps(given | fixed))


def code(notebook):
    """A hash of a notebook's code: a rule is redone when its code changes, not when its outputs do."""
    with open(f"notebooks/{notebook}.ipynb", encoding="utf-8") as file:
        cells = json.load(file)["cells"]
    return hashlib.md5("".join("".join(c["source"]) for c in cells if c["cell_type"] == "code").encode()).hexdigest()


DETECTOR_FILES = [
    f"{run}/detectors/{{head}}-{{outliers}}/seed{seed}/{file}"
    for seed in chosen.seeds
    for file in (
        *("detector.safetensors", "detector.json", "scores.csv", "metrics.csv", "validation.csv"),
        *("history.csv", "settings.json"),
    )
]
DETECTORS = expand(DETECTOR_FILES, head=chosen.heads, outliers=outliers)
DENOISER = [f"{run}/denoiser/{file}" for file in ("denoiser.safetensors", "denoiser.json", "history.csv", "settings.json")]
POOL = [f"{run}/outliers/{{outliers}}/{file}" for file in ("pool.npz", "purity.csv", "settings.json")]
# The denoiser's own scores lie among the detectors, where there is a denoiser.
DENOISER_SCORES = [
    f"{run}/detectors/denoiser-none/seed{chosen.seeds[0]}/{file}"
    for file in ("detector.json", "scores.csv", "metrics.csv", "settings.json")
]
SCORED = DETECTORS + (DENOISER_SCORES if pools else [])
CURVES = expand(
    f"{run}/figures/{{kind}}_{{head}}.png",
    kind=["scores", "roc"],
    head=[*chosen.heads, *(["denoiser"] if pools else [])],
)
RESULTS = [f"{run}/results.csv", f"{run}/summary.md", *([f"{run}/figures/results.png"] if len(outliers) == 2 else [])]
STUDY = [f"{run}/{file}" for file in ("study.csv", "study.md", "figures/study.png")]


rule all:
    input:
        DENOISER if pools else [],
        expand(POOL, outliers=pools),
        SCORED,
        CURVES,
        RESULTS,
        STUDY if "none" in outliers and len(outliers) > 2 else [],
    message:
        "All there"


rule train_ddpm:
    input:
        ancient("notebooks/01_train_ddpm.ipynb"),
    output:
        DENOISER,
        f"{run}/figures/denoiser_loss.png",
        f"{run}/figures/denoiser_samples.png",
    log:
        notebook=f"{run}/notebooks/01_train_ddpm.ipynb",
        stderr=f"{run}/logs/01_train_ddpm.txt",
    params:
        given=parameters("data", "denoiser"),
        code=code("01_train_ddpm"),
        defaults=defaults,
    priority: 2  # the longest of all, and half of the detectors wait for it
    message:
        "Training the denoiser"
    shell:
        PAPERMILL


rule label_mixup:
    input:
        ancient("notebooks/02_label_mixup.ipynb"),
        DENOISER,
    output:
        POOL,
        [f"{run}/figures/{kind}_{{outliers}}.png" for kind in ("outliers", "purity_map")],
    log:
        notebook=f"{run}/notebooks/02_label_mixup-{{outliers}}.ipynb",
        stderr=f"{run}/logs/02_label_mixup-{{outliers}}.txt",
    params:
        given=lambda w: parameters("data", "mixup", outliers=w.outliers),
        code=code("02_label_mixup"),
        defaults=defaults,
    priority: 1
    message:
        "Drawing the outlier pool {wildcards.outliers}"
    shell:
        PAPERMILL


rule train_detector:
    input:
        ancient("notebooks/03_train_detector.ipynb"),
        lambda w: f"{run}/outliers/{w.outliers}/pool.npz" if w.outliers in pools else [],
    output:
        # The notebook keeps a seed whose files are all there, made with the same settings; hence `update`.
        update(DETECTOR_FILES),
    log:
        notebook=f"{run}/notebooks/03_train_detector-{{head}}-{{outliers}}.ipynb",
        stderr=f"{run}/logs/03_train_detector-{{head}}-{{outliers}}.txt",
    params:
        given=lambda w: parameters(
            "data", "detector", head=w.head, outliers=w.outliers, seeds=list(chosen.seeds)
        ),
        code=code("03_train_detector"),
        defaults=defaults,
    message:
        "Training {wildcards.head}, outliers: {wildcards.outliers}, a detector for each of seeds {chosen.seeds}"
    shell:
        PAPERMILL


rule denoiser_scores:
    input:
        ancient("notebooks/07_denoiser_scores.ipynb"),
        DENOISER,
    output:
        DENOISER_SCORES,
        f"{run}/figures/denoiser_repairs.png",
        f"{run}/figures/denoiser_scores.png",
    log:
        notebook=f"{run}/notebooks/07_denoiser_scores.ipynb",
        stderr=f"{run}/logs/07_denoiser_scores.txt",
    params:
        # On the OOD sets and with the threshold that the detectors have.
        given=parameters(
            "data",
            "denoiser_scores",
            seed=chosen.seeds[0],
            **{k: v for k, v in config.get("detector", {}).items() if k in ("ood_sets", "tpr")},
        ),
        code=code("07_denoiser_scores"),
        defaults=defaults,
    message:
        "Scoring images by the denoiser alone"
    shell:
        PAPERMILL


rule score_distributions:
    input:
        ancient("notebooks/04_score_distributions.ipynb"),
        SCORED,
    output:
        CURVES,
    log:
        notebook=f"{run}/notebooks/04_score_distributions.ipynb",
        stderr=f"{run}/logs/04_score_distributions.txt",
    params:
        given=parameters(heads=list(chosen.heads), seed=chosen.seeds[0]),
        code=code("04_score_distributions"),
    message:
        "Drawing score distributions and ROC curves"
    shell:
        PAPERMILL


rule compare:
    input:
        ancient("notebooks/05_compare.ipynb"),
        SCORED,
    output:
        RESULTS,
    log:
        notebook=f"{run}/notebooks/05_compare.ipynb",
        stderr=f"{run}/logs/05_compare.txt",
    params:
        given=parameters(),
        code=code("05_compare"),
    message:
        "Comparing all detectors"
    shell:
        PAPERMILL


rule which_outliers:
    input:
        ancient("notebooks/06_which_outliers.ipynb"),
        DETECTORS,
        expand(POOL, outliers=pools),
    output:
        STUDY,
    log:
        notebook=f"{run}/notebooks/06_which_outliers.ipynb",
        stderr=f"{run}/logs/06_which_outliers.txt",
    params:
        given=parameters("data"),
        code=code("06_which_outliers"),
    message:
        "Comparing all kinds of outliers"
    shell:
        PAPERMILL
