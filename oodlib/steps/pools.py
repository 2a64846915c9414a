"""The step that draws a pool of outliers, and what a detector's training takes of it."""

import math

import pandas as pd

from oodlib import datasets
from oodlib.checks import options as keyword_options
from oodlib.device import default_device
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.train import fit_denoiser
from oodlib.errors import InputError
from oodlib.files import fingerprint, read_csv, write_csv
from oodlib.images import ImageSet
from oodlib.marks import FILES, MARKS, Step
from oodlib.outliers import purity
from oodlib.outliers.committee import Committee
from oodlib.outliers.filters import fill
from oodlib.outliers.pool import OutlierPool
from oodlib.outliers.sources import SOURCES, bind
from oodlib.runs import Run
from oodlib.settings import DenoiserTraining, Pool, Sampling, Settings, as_made
from oodlib.steps.training import check_classes, contents_of
from oodlib.training import fingerprint_weights

SAMPLES_PER_CLASS = 50  # at most, for a committee to judge a generator by
EARLY_STOP_FRACTION = 0.1  # of the denoiser's training steps, for the source `early_stopped`


def pool(
    run: Run, settings: Settings, train: ImageSet, committee: Committee, models: Run
) -> tuple[OutlierPool, pd.DataFrame]:
    """The run's pool of the source `settings.outliers`, drawn where it is not there yet, and its `purity` table.

    Args:
        models: The run whose denoiser draws; it is read only for a source that takes one.

    Raises:
        InputError: The source has no images, or the denoiser was trained for other classes.
    """
    source = SOURCES[settings.outliers]
    if source.draw is None:
        raise InputError(f"outliers {settings.outliers!r} need no pool; go on with notebook 3")
    denoiser = real_images = None
    if source.takes & {"denoiser", "early_denoiser"}:
        denoiser = Denoiser.load(models.denoiser, default_device())
        check_classes(denoiser, train)
    if "real_images" in source.takes:
        look = dict(image_shape=settings.image_shape, background=settings.background)
        real_images = datasets.load(settings.real_outliers, "all", with_labels=False, **look).images
    run.claim(settings)
    # What the source brings stands between the defaults and what was chosen; None leaves it to `fill` and the source.
    options = {**settings.values(Pool, Sampling), **source.settings, **settings.chosen(Pool, Sampling)}
    options["seed"] = settings.seed
    names = source.takes | set(keyword_options(fill)) | {"outliers", "images_per_pair"}
    options = {name: value for name, value in options.items() if name in names}
    made_with = options | contents_of(train) | {"committee": committee.fingerprint()}
    made_with["denoiser"] = None if denoiser is None else fingerprint_weights(denoiser)
    made_with["real_images"] = None if real_images is None else fingerprint(real_images)
    step = Step(run.outliers / settings.outliers, FILES["pool"], made_with)
    with step.todo() as is_missing:
        if is_missing:
            chosen = {name: value for name, value in options.items() if value is not None}
            resources = {
                "denoiser": lambda: denoiser,
                "early_denoiser": lambda: early_denoiser(denoiser, models, train),
                "train": lambda: train,
                "committee": lambda: committee,
                "real_images": lambda: real_images,
            }
            count = settings.images_per_pair * math.comb(len(train.class_names), 2)
            filters = {name: chosen[name] for name in keyword_options(fill) if name in chosen}
            outliers, table = fill(bind(source, chosen, resources), count, committee, **filters)
            outliers.save(step.folder / "pool.npz")
            write_csv(step.folder / "purity.csv", table)
            step.finish()
    return OutlierPool.load(step.folder / "pool.npz"), read_csv(step.folder / "purity.csv")


def generator(run: Run, settings: Settings, committee: Committee, val: ImageSet, models: Run) -> pd.DataFrame:
    """How well the denoiser of `models` draws its classes (see `purity.generator_table`), judged once."""
    run.claim(settings)
    sampling = settings.values(Sampling) | {"seed": settings.seed}
    count = min(SAMPLES_PER_CLASS, settings.images_per_pair)
    made_with = (
        sampling | contents_of(val) | {"images_per_class": count, "committee": committee.fingerprint()}
    )
    step = Step(run.generator, FILES["generator"], made_with | {"denoiser": _weights(models)})
    with step.todo() as is_missing:
        if is_missing:
            chosen = {name: value for name, value in sampling.items() if value is not None}
            denoiser = Denoiser.load(models.denoiser, default_device())
            table = purity.generator_table(denoiser, committee, val, count, **chosen)
            write_csv(step.folder / "generator.csv", table)
            step.finish()
    return read_csv(step.folder / "generator.csv")


def generator_text(run: Run) -> str:
    """What is to be said of the run's denoiser; empty where nobody has judged it, or another that it had before."""
    marks = (run.generator / MARKS[0], run.denoiser / MARKS[0])
    if not all(mark.exists() for mark in marks):
        return ""
    if run.mark(marks[0], "02_label_mixup").settings["denoiser"] != _weights(run):
        return ""
    return purity.generator_text(read_csv(run.generator / "generator.csv"))


def _weights(models: Run) -> str:
    """What the weights of a run's denoiser are known by."""
    return models.mark(models.denoiser / MARKS[0], "01_train_ddpm").files["denoiser.safetensors"].blake2b


def early_denoiser(denoiser: Denoiser, models: Run, train: ImageSet) -> Denoiser:
    """A denoiser like this one, trained for a tenth of its steps."""
    made_with = models.mark(models.denoiser / MARKS[0], "01_train_ddpm").settings
    training = as_made(DenoiserTraining, made_with)
    if not training.denoiser_steps:
        raise InputError(
            "a denoiser that stopped early is one that was trained, and the run's is one that ships; train it with "
            "notebook 1, with denoiser_steps above 0"
        )
    steps = max(1, round(EARLY_STOP_FRACTION * training.denoiser_steps))
    training = training.replaced(denoiser_steps=steps, compile=False)
    early = Denoiser(denoiser.class_names, denoiser.image_shape, denoiser.settings)
    fit_denoiser(early, train.images, train.labels, training, device=default_device())
    return early


def outliers(run: Run, settings: Settings, train: ImageSet) -> OutlierPool | None:
    """The pool that the detector is to learn from; None where its source has no images.

    Raises:
        InputError: It is not there, or was drawn for other training images; the message names the notebook.
    """
    if SOURCES[settings.outliers].draw is None:
        return None
    folder = run.outliers / settings.outliers
    made_with = run.mark(folder / MARKS[0], "02_label_mixup", outliers=settings.outliers).settings
    if any(made_with.get(name) != value for name, value in contents_of(train).items()):
        raise InputError(
            f"the pool in {folder} was drawn for other training images or classes; draw it again with notebook "
            "02_label_mixup"
        )
    return OutlierPool.load(folder / "pool.npz")
