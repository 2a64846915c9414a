"""Run the notebooks: denoiser -> outliers -> detectors -> figures and tables.

    snakemake --cores all                                       the digits run, into runs/digits
    snakemake --cores all --config 'heads=[arcface]' run=mine   some heads only, into runs/mine
    snakemake --cores all --config preset=cifar10               the paper's experiment, into runs/cifar10
    make study                                                  what outliers teach, with controls, into runs/study
    snakemake --profile profiles/slurm                          the same on a cluster

Each rule hands its parameters to papermill. The executed notebook is the rule's log and stays when it fails.
"""

import atexit
import hashlib
import json
import os
import shlex
import sys
from pathlib import Path

import yaml
from snakemake.utils import min_version

from oodlib.conditions import REPEATED, STUDY, condition, parse, references
from oodlib.errors import InputError, choice
from oodlib.files import try_writing
from oodlib.marks import FILES, MARKS
from oodlib.notebook import NOTEBOOKS
from oodlib.outliers.sources import SOURCES
from oodlib.presets import make_settings
from oodlib.runs import DENOISER, Run
from oodlib.settings import STEPS, Settings, own_fields

min_version("9.0")

PLANS = {"study": STUDY, "repeated": REPEATED}  # lists of conditions by name
CAUSES = ".snakemake/causes.txt"  # why notebooks of the last call failed, a line each

def listed(key):
    """A configured list, None where there is none; one text stands for a list of one or for a plan, and Snakemake may
    give numbers of a list on the command line as text."""
    values = config.get(key)
    if isinstance(values, str) and values not in PLANS and not values.startswith("["):
        values = [values]
    if isinstance(values, list):
        return [int(value) if key == "seeds" and str(value).isdigit() else value for value in values]
    return values


def options(step):
    """The settings of a step in the configuration, by name; Snakemake gives numbers on the command line as text."""
    values = config.get(step) or {}
    if not isinstance(values, dict):
        raise InputError(f"{step} = {values!r}, expected values by name, such as --config '{step}={{name: value}}'")
    texts = {name for name, field in Settings.model_fields.items() if field.annotation is str}
    return {name: value if name in texts else read(value) for name, value in values.items()}


def read(value):
    """A number or a list of numbers that may have come as text."""
    if isinstance(value, list):
        return [read(item) for item in value]
    return yaml.safe_load(value) if isinstance(value, str) else value


# Only names that are in these lists, and so no code, reach papermill as names of parameters.
try:
    for key in config:
        choice("configuration", key, ("preset", "profile", "run", "heads", "outliers", "seeds", *STEPS))
    plan = {name: config.get(name) for name in ("preset", "profile", "run")}
    # Of a detector's model also options of the heads, which these check below.
    of_heads = set(options("detector_model")) - set(Settings.model_fields)
    values = {}
    for step in STEPS:
        for name in options(step):
            choice(step, name, sorted({*own_fields(step), *(of_heads if step == "detector_model" else ())}))
        values |= options(step)
    common = {name: value for name, value in values.items() if name not in of_heads}
    chosen = make_settings(**plan, heads=listed("heads"), seeds=listed("seeds"), **common)
    run = str(Run(chosen.run).folder)
    if set(run) & set("{}"):
        raise InputError(
            f"run = {chosen.run!r}; braces have a meaning of their own in Snakemake, choose a name without"
        )
    outliers = listed("outliers")
    if outliers is None:
        outliers = [*references(condition(chosen)).values(), condition(chosen)]
    if isinstance(outliers, str) and outliers in PLANS:
        outliers = list(PLANS[outliers])
    if not isinstance(outliers, list) or not outliers:
        raise InputError(
            f"outliers = {outliers!r}, expected a list of conditions that is not empty, or one of {', '.join(PLANS)}"
        )
    conditions = {name: parse(name) for name in outliers}
    for head in chosen.heads:
        for of_condition in conditions.values():
            make_settings(**plan, **{**values, **of_condition}, head=head)
except InputError as error:  # else Snakemake shows where it was raised, and that last
    sys.exit(f"InputError: {error}")
pools = list(dict.fromkeys(c["outliers"] for c in conditions.values() if SOURCES[c["outliers"]].draw))


def code(notebook):
    """A hash of a notebook's code: a rule is redone when its code changes, not when its outputs do."""
    with open(f"notebooks/{notebook}.ipynb", encoding="utf-8") as file:
        cells = json.load(file)["cells"]
    return hashlib.md5("".join("".join(c["source"]) for c in cells if c["cell_type"] == "code").encode()).hexdigest()


def in_yaml(values):
    """Values as papermill reads them back; of JSON it would take 1e-05 for a text."""
    return yaml.safe_dump(values, default_flow_style=True, width=float("inf"), sort_keys=False).strip()


def parameters(notebook, of_job=lambda wildcards: {}):
    """What a rule depends on: papermill's parameters, the notebook's code and all that can be set in it."""
    names = NOTEBOOKS[notebook]
    fixed = {"preset": chosen.preset, "profile": chosen.profile, "run": os.path.join(run, "")}
    fixed |= {n: value for n, value in values.items() if n in names or ("head" in names and n in of_heads)}
    return {
        "given": lambda wildcards: shlex.quote(in_yaml(fixed | of_job(wildcards))),
        "code": code(notebook),
        "settings": chosen.model_dump(mode="json", include=names),
    }


def logs(notebook, job=""):
    return {"notebook": f"{run}/notebooks/{notebook}{job}.ipynb", "stderr": f"{run}/logs/{notebook}{job}.txt"}


def files(folder, *steps, marks=MARKS[:1]):
    return [f"{folder}/{file}" for file in (*(file for step in steps for file in FILES[step]), *marks)]


DENOISER_FILES = files(f"{run}/denoiser", "denoiser")
POOL = files(f"{run}/outliers/{{outliers}}", "pool")
DETECTOR = [
    file
    for seed in chosen.seeds
    for file in files(
        f"{run}/detectors/{{head}}-{{outliers}}/seed{seed}", "detector", "statistics", "tables", marks=MARKS
    )
]
DETECTORS = expand(DETECTOR, head=chosen.heads, outliers=outliers)
# The denoiser's own scores lie among the detectors, where there is a denoiser.
DENOISER_TABLES = files(f"{run}/detectors/{DENOISER}-none/seed{chosen.seeds[0]}", "denoiser_tables", marks=MARKS[2:])
SCORED = DETECTORS + (DENOISER_TABLES if pools else [])
CURVES = expand(
    f"{run}/figures/{{figure}}_{{head}}.png", figure=["scores", "roc", "shifted", "alarms"], head=chosen.heads
)
RESULTS = [f"{run}/results.csv", f"{run}/summary.md"]
if "none" in outliers and len(outliers) > 1:
    RESULTS.append(f"{run}/figures/results.png")
STUDY_FILES = [f"{run}/{file}" for file in ("study.csv", "study.md", "figures/study_alarms.png")]


rule all:
    input:
        DENOISER_FILES if pools else [],
        expand(POOL, outliers=pools),
        SCORED,
        CURVES if len(outliers) <= 4 else [],  # which have a column for each
        RESULTS,
        STUDY_FILES if "none" in outliers and len(outliers) > 2 else [],
    message:
        "All there"


# What all rules below have in common. What a notebook prints goes to the terminal; what the kernel says about itself
# goes to a log, by way of a temporary file, as the run's disk may be full. The last line of a failure is its cause.
rule notebook:
    shell:
        "errors=$(mktemp); status=0; unset JPY_SESSION_NAME; "
        "papermill {input[0]} {log.notebook:q} -y {params.given} --no-progress-bar "
        '--stdout-file >(cat) 2> "$errors" || status=$?; cp "$errors" {log.stderr:q} || true; '
        '[ $status = 0 ] || grep . "$errors" | tail -n 1 >> {CAUSES}; rm "$errors"; exit $status'


onstart:
    Path(CAUSES).unlink(missing_ok=True)
    try:
        try_writing(Path(run))
    except InputError as error:
        sys.exit(f"InputError: {error}")


# Snakemake says much about a failure and nothing of its cause, which is to be the last that is read.
onerror:
    if Path(CAUSES).exists():
        causes = dict.fromkeys(Path(CAUSES).read_text(encoding="utf-8").splitlines())
        atexit.register(print, *causes, sep="\n", file=sys.stderr)


use rule notebook as train_ddpm with:
    input:
        ancient("notebooks/01_train_ddpm.ipynb"),
    output:
        DENOISER_FILES,
        f"{run}/figures/denoiser_loss.png",
        f"{run}/figures/denoiser_samples.png",
    log:
        **logs("01_train_ddpm"),
    params:
        **parameters("01_train_ddpm"),
    priority: 2  # the longest of all, and half of the detectors wait for it
    message:
        "Training the denoiser"


use rule notebook as label_mixup with:
    input:
        ancient("notebooks/02_label_mixup.ipynb"),
        DENOISER_FILES,
    output:
        POOL,
        [f"{run}/figures/{figure}_{{outliers}}.png" for figure in ("outliers", "purity_map")],
    log:
        **logs("02_label_mixup", "-{outliers}"),
    params:
        **parameters("02_label_mixup", lambda w: {"outliers": w.outliers}),
    priority: 1
    message:
        "Drawing the outlier pool {wildcards.outliers}"


use rule notebook as train_detector with:
    input:
        ancient("notebooks/03_train_detector.ipynb"),
        lambda w: [f"{run}/outliers/{source}/pool.npz" for source in pools if source == conditions[w.outliers]["outliers"]],
    output:
        # The notebook keeps what was made with the same settings; hence `update`.
        update(DETECTOR),
    log:
        **logs("03_train_detector", "-{head}-{outliers}"),
    params:
        **parameters(
            "03_train_detector", lambda w: {"head": w.head, "seeds": list(chosen.seeds), **conditions[w.outliers]}
        ),
    message:
        "Training {wildcards.head}, outliers: {wildcards.outliers}, a detector for each seed"


use rule notebook as denoiser_scores with:
    input:
        ancient("notebooks/07_denoiser_scores.ipynb"),
        DENOISER_FILES,
    output:
        DENOISER_TABLES,
        f"{run}/figures/denoiser_repairs.png",
        f"{run}/figures/denoiser_scores.png",
    log:
        **logs("07_denoiser_scores"),
    params:
        **parameters("07_denoiser_scores", lambda w: {"seed": chosen.seeds[0]}),
    message:
        "Scoring images by the denoiser alone"


use rule notebook as score_distributions with:
    input:
        ancient("notebooks/04_score_distributions.ipynb"),
        DETECTORS,
    output:
        CURVES,
    log:
        **logs("04_score_distributions"),
    params:
        **parameters(
            "04_score_distributions",
            lambda w: {"heads": list(chosen.heads), "conditions": outliers, "seed": chosen.seeds[0]},
        ),
    message:
        "Drawing score distributions and ROC curves"


use rule notebook as compare with:
    input:
        ancient("notebooks/05_compare.ipynb"),
        SCORED,
    output:
        RESULTS,
    log:
        **logs("05_compare"),
    params:
        **parameters("05_compare"),
    message:
        "Comparing all detectors"


use rule notebook as which_outliers with:
    input:
        ancient("notebooks/06_which_outliers.ipynb"),
        DETECTORS,
        expand(POOL, outliers=pools),
    output:
        STUDY_FILES,
    log:
        **logs("06_which_outliers"),
    params:
        **parameters("06_which_outliers"),
    message:
        "Comparing all sources of outliers"
