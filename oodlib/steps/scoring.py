"""The steps after training: statistics and thresholds of a detector, and the scores of image sets."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from oodlib.conditions import condition
from oodlib.datasets.roles import EvaluationSet, Role
from oodlib.datasets.shifts import degraded
from oodlib.degrade import STRENGTH
from oodlib.detection.calibration import expected_calibration_error, fit_temperature, tempered
from oodlib.detection.detector import Detector
from oodlib.detection.heads import HEADS
from oodlib.detection.metrics import auroc, threshold_at_tpr
from oodlib.detection.scores import SCORES
from oodlib.device import default_device
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.scores import DENOISER_SCORES
from oodlib.errors import InputError, one_line, tell
from oodlib.files import Damaged, fingerprint, read_csv, write_csv, write_json, writing
from oodlib.images import ImageSet
from oodlib.marks import AGAIN, FILES, MARKS, Mark, Step
from oodlib.outliers.pool import OutlierPool
from oodlib.reports.tables import BOTH_DEGRADED, about_detector, alarm_table, metric_table, score_table
from oodlib.runs import DENOISER, Run
from oodlib.settings import Settings
from oodlib.steps.training import contents_of, trained_detector
from oodlib.training import fingerprint_weights


def detector(
    run: Run, settings: Settings, train: ImageSet, val: ImageSet, outliers: OutlierPool | None
) -> Detector:
    """The run's detector of `settings.head`, its condition and `seed`: trained, and then its statistics and thresholds
    fitted, each where it is not there yet."""
    run.claim(settings)
    folder = run.detector(settings.head, condition(settings), settings.seed)
    label = f"{settings.head}, {condition(settings)}, seed {settings.seed}"
    _remove_damaged_scores(folder)
    network = trained_detector(folder, settings, train, label, outliers)
    made_with = {"tpr": settings.tpr, "scores": list(SCORES), "detector": network.network_fingerprint()}
    step = Step(folder, FILES["statistics"], made_with | contents_of(train, val), MARKS[1])
    with step.todo() as is_missing:
        if is_missing:
            network.fit_scores(train.images, train.labels, val.images, settings.tpr)
            network.save_scores(folder)
            step.finish()
    return Detector.load(folder, default_device())


def choose_name(name: str) -> None:
    """Raise `InputError` unless a network of one's own can be called that."""
    if name in HEADS or name == DENOISER:
        raise InputError(f"a network of one's own is called {name}, as a head is; give it another name")
    if not name.strip() or one_line(name) != name:
        raise InputError(f"the name {name!r} is empty or has control characters; give another")


def _remove_damaged_scores(folder: Path) -> None:
    """Remove scores that are not as they were fitted, since a network is read together with its scores."""
    mark = folder / MARKS[1]
    if not mark.exists():
        return
    try:
        Mark.read(mark, AGAIN).check(folder, AGAIN)
    except Damaged as damaged:
        tell(str(damaged))
        with writing(folder):
            for name in (MARKS[1], *FILES["statistics"]):
                (folder / name).unlink(missing_ok=True)


def score_detector(
    run: Run,
    settings: Settings,
    detector: Detector,
    sets: Sequence[EvaluationSet],
    validation: Sequence[EvaluationSet],
    name: str | None = None,
) -> None:
    """Write the scores of every image, and the metrics on test sets and on validation outliers.

    Args:
        sets: ID test images and OOD sets.
        validation: ID validation images, the same degraded, and validation outliers (`datasets.validation_sets`).
        name: Of a network of one's own (see `Detector.from_classifier`), to stand in the place of a head, without
            outliers, in the run's tables and figures. None for the run's detector of these settings.

    Raises:
        InputError: The name is a head's, or the run is of something else.
    """
    if name is not None:
        choose_name(name)
        run.claim(settings)
    head, outliers = (settings.head, condition(settings)) if name is None else (name, "none")
    folder = run.detector(head, outliers, settings.seed)
    made_with = {"scores": list(detector.thresholds), "statistics": fingerprint_weights(detector.scores)}
    made_with |= {"detector": detector.network_fingerprint(), "class_names": list(detector.class_names)}
    made_with |= {**contents_of_sets(*sets, *validation), "strength": STRENGTH}
    step = Step(folder, FILES["tables"], made_with, MARKS[2])
    with step.todo() as is_missing:
        if is_missing:
            about = about_detector(settings, head, outliers, detector.own_score)
            if name is not None:
                detector.save(folder)
            all_degraded = [degraded(s) for s in sets if s.role == Role.ID or s.role.is_ood]
            scores, on_validation, of_all_degraded = (
                score_table(of, detector.classify, detector.class_names)
                for of in (sets, validation, all_degraded)
            )
            val_degraded = on_validation[on_validation["role"] == Role.DEGRADED_ID]
            recalibrated = {s: threshold_at_tpr(val_degraded[s], settings.tpr) for s in detector.thresholds}
            alarms = alarm_table(scores, detector.thresholds, recalibrated)
            of_degraded = alarm_table(val_degraded, detector.thresholds).set_index("score")["called_ood"]
            on_outliers = metric_table(on_validation)
            on_outliers["false_alarms"] = on_outliers["score"].map(of_degraded)
            write_csv(folder / "scores.csv", scores.assign(**about))
            of_classifier = calibration(detector, sets, validation)
            metrics = metric_table(scores)
            metrics[BOTH_DEGRADED] = metric_table(of_all_degraded)["auroc"]
            write_csv(folder / "metrics.csv", metrics.assign(**of_classifier, **about))
            write_csv(folder / "alarms.csv", alarms.assign(**about))
            write_csv(folder / "validation.csv", on_outliers.assign(**about))
            step.finish()


def calibration(
    detector: Detector, sets: Sequence[EvaluationSet], validation: Sequence[EvaluationSet]
) -> dict[str, float]:
    """Expected calibration error on ID test images, and by the temperature of the ID validation images."""
    (test,), (val,) = ([s for s in of if s.role == Role.ID] for of in (sets, validation))
    probabilities, labels = {}, {}
    for part in (test, val):
        probabilities[part.key] = detector.classify(part.images)[0]
        numbers = {
            name: i for i, name in enumerate(detector.class_names)
        }  # a class that it lacks is never right
        labels[part.key] = np.array([numbers.get(name, -1) for name in part.class_names])[part.labels]
    of_test, of_val, is_known = probabilities[test.key], probabilities[val.key], labels[val.key] >= 0
    at = tempered(of_test, fit_temperature(of_val[is_known], labels[val.key][is_known]))
    return {
        "ece": expected_calibration_error(of_test, labels[test.key]),
        "ece_tempered": expected_calibration_error(at, labels[test.key]),
    }


def auroc_on(runs: Sequence[Run], outliers: Collection[str], ood: EvaluationSet) -> pd.DataFrame:
    """AUROC on a set that was left out of a run's tables, of all detectors of some conditions, by each head's own score
    and by KNN: mean over runs and seeds, a row for each score and condition, a column for each head."""
    rows = []
    for mark in (mark for run in runs for mark in run.scored()):
        scores = read_csv(mark.with_name("scores.csv"))
        head, trained_with, own = scores.loc[0, ["head", "outliers", "own_score"]]
        if trained_with in outliers and head in HEADS:
            id_scores = scores[scores["role"] == Role.ID]
            of_ood = Detector.load(mark.parent).all_scores(ood.images)
            for name, score in (("own", own), ("knn", "knn")):
                value = auroc(id_scores[score], of_ood[score])
                rows.append(dict(head=head, outliers=trained_with, score=name, auroc=value))
    return pd.DataFrame(rows).pivot_table("auroc", ["score", "outliers"], "head", sort=False)


def score_by_denoiser(
    run: Run, settings: Settings, denoiser: Denoiser, val: EvaluationSet, sets: Sequence[EvaluationSet]
) -> Path:
    """Write thresholds, the scores of every image and the metrics of the denoiser alone, as of a head without outliers.

    Args:
        val: ID validation images, for the thresholds.

    Returns:
        The folder that they lie in.
    """
    run.claim(settings)
    folder = run.detector(DENOISER, "none", settings.seed)
    made_with = {"head": DENOISER, "outliers": "none", "seed": settings.seed, "tpr": settings.tpr}
    made_with |= {"images_per_set": settings.images_per_set, "scores": list(DENOISER_SCORES)}
    made_with |= {"denoiser": fingerprint_weights(denoiser)} | contents_of_sets(val, *sets)
    step = Step(folder, FILES["denoiser_tables"], made_with, MARKS[2])
    with step.todo() as is_missing:
        if is_missing:

            def classify(images: np.ndarray) -> tuple[None, dict[str, np.ndarray]]:
                return None, {
                    name: score(denoiser, images, settings.seed) for name, score in DENOISER_SCORES.items()
                }

            scores, on_validation = (
                score_table(of, classify, images_per_set=settings.images_per_set) for of in (sets, [val])
            )
            about = about_detector(settings, DENOISER, "none", next(iter(DENOISER_SCORES)))
            thresholds = {
                name: threshold_at_tpr(on_validation[name], settings.tpr) for name in DENOISER_SCORES
            }
            write_json(folder / "scores.json", {"thresholds": thresholds, "tpr": settings.tpr})
            write_csv(folder / "scores.csv", scores.assign(**about))
            write_csv(folder / "metrics.csv", metric_table(scores).assign(**about))
            write_csv(folder / "alarms.csv", alarm_table(scores, thresholds).assign(**about))
            step.finish()
    return folder


def contents_of_sets(*sets: EvaluationSet) -> dict[str, Any]:
    """What a step that scores these sets is compared by."""
    arrays = {s.key: (s.images, s.labels, np.array([s.title, s.role, *s.class_names])) for s in sets}
    return {"sets": {key: fingerprint(*(a for a in of if a is not None)) for key, of in arrays.items()}}
