"""The steps that train: denoiser, committee, and the network of a detector."""

import shutil
from pathlib import Path
from typing import Any

from oodlib.detection.detector import Detector
from oodlib.detection.train import fit_detector
from oodlib.device import default_device
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.train import fit_denoiser
from oodlib.errors import InputError
from oodlib.files import atomic, fingerprint, write_csv
from oodlib.images import ImageSet, mean_and_std
from oodlib.marks import FILES, MARKS, Step
from oodlib.outliers.committee import Committee
from oodlib.outliers.pool import OutlierPool
from oodlib.outliers.sources import SOURCES
from oodlib.pretrained import check_shipped_denoiser, shipped
from oodlib.runs import Run
from oodlib.settings import DenoiserModel, DenoiserTraining, DetectorModel, DetectorTraining, Settings


def contents_of(*sets: ImageSet) -> dict[str, Any]:
    """What a step that takes these labelled images is compared by."""
    arrays = (array for images in sets for array in (images.images, images.labels))
    return {"class_names": list(sets[0].class_names), "images": fingerprint(*arrays)}


def denoiser(run: Run, settings: Settings, train: ImageSet) -> Denoiser:
    """The run's denoiser, trained where it is not there yet, or of 0 steps the one that ships.

    Raises:
        InputError: None ships for the preset, or it is not one for these images and settings.
    """
    source = None if settings.denoiser_steps else _shipped_denoiser(settings, train)
    run.claim(settings)
    made_with = settings.values(DenoiserModel, DenoiserTraining) | contents_of(train)
    step = Step(run.denoiser, FILES["denoiser"], made_with)
    with step.todo() as is_missing:
        if is_missing and source is not None:
            for name in FILES["denoiser"]:
                with atomic(step.folder / name) as part:
                    shutil.copyfile(source / name, part)
            step.finish()
            print(f"the denoiser is the one that ships for preset {settings.preset}; none was trained")
        elif is_missing:
            model = Denoiser(train.class_names, settings.image_shape, settings)
            history = fit_denoiser(
                model,
                train.images,
                train.labels,
                settings,
                device=default_device(),
                checkpoints=step.folder / "checkpoints",
            )
            model.save(step.folder)
            write_csv(step.folder / "history.csv", history)
            step.finish()
    return Denoiser.load(step.folder, default_device())


def _shipped_denoiser(settings: Settings, train: ImageSet) -> Path:
    check_shipped_denoiser(settings)
    folder = shipped(settings.preset).denoiser
    model = Denoiser.load(folder)
    check_classes(model, train)
    for name in ("seed", "flip"):
        if getattr(settings, name) != getattr(model.settings, name):
            raise InputError(
                f"denoiser_steps = 0 takes the denoiser that ships for preset {settings.preset}, which was trained "
                f"with {name} = {getattr(model.settings, name)}; choose that, or denoiser_steps above 0"
            )
    return folder


def check_classes(denoiser: Denoiser, images: ImageSet) -> None:
    """Raise `InputError` unless the denoiser draws the classes that the images show."""
    if denoiser.class_names != tuple(images.class_names):
        raise InputError(
            f"the denoiser draws {list(denoiser.class_names)}, the images show {list(images.class_names)}; "
            "train the denoiser again with notebook 1, or give the classes their old names"
        )


def committee(run: Run, settings: Settings, train: ImageSet, val: ImageSet) -> Committee:
    """The run's committee, trained where it is not there yet: softmax heads, no outliers."""
    run.claim(settings)
    members = []
    for seed in settings.committee_seeds:
        member = settings.replaced(
            # Settings of the detectors do not reach it.
            **DetectorTraining(outliers="none", flip=settings.flip).model_dump(exclude={"precision"})
            | dict(
                seed=seed,
                head="softmax",
                head_options={},
                backbone=settings.committee_backbone,
                epochs=settings.committee_epochs,
                learning_rate=settings.committee_learning_rate,
            )
        )
        folder, label = run.committee / f"seed{seed}", f"committee, seed {seed}"
        members.append(trained_detector(folder, member, train, label))
    return Committee.of(tuple(members), train, val)


def trained_detector(
    folder: Path, settings: Settings, train: ImageSet, label: str, outliers: OutlierPool | None = None
) -> Detector:
    """The detector in this folder, trained where it is not there yet; its statistics are not fitted."""
    made_with = settings.values(DetectorModel, DetectorTraining) | contents_of(train)
    made_with["pool"] = None if outliers is None else outliers.fingerprint()
    is_virtual = SOURCES[settings.outliers].is_virtual
    if outliers is None and not is_virtual:
        del made_with["outlier_weight"], made_with["outlier_batch_size"]
    if outliers is None:
        del made_with["noise_levels"]
    if outliers is None or not settings.noise_levels:
        del made_with["clean_share"]
    step = Step(folder, FILES["detector"], made_with)
    with step.todo() as is_missing:
        if is_missing:
            for mark in MARKS[1:]:  # what was fitted to another network and scored by it counts no more
                (folder / mark).unlink(missing_ok=True)
            moments = mean_and_std(train.images)
            network = Detector(
                train.class_names, settings.image_shape, *moments, settings, settings.background
            )
            history = fit_detector(
                network,
                train.images,
                train.labels,
                settings,
                **({} if outliers is None else outliers.exposure),
                virtual_outliers=is_virtual,
                double_batch=SOURCES[settings.outliers].doubles_batch,
                device=default_device(),
                label=label,
                checkpoints=folder / "checkpoints",
            )
            network.save_network(folder)
            write_csv(folder / "history.csv", history.assign(seed=settings.seed))
            step.finish()
    return Detector.load(folder, default_device())
