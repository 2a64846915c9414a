"""From images to tables: per-image scores, and the metrics of every score on every OOD set."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from oodlib.datasets.roles import EvaluationSet, Role
from oodlib.detection.metrics import auroc, is_ood, ood_metrics
from oodlib.errors import one_line
from oodlib.files import NAME_COLUMNS
from oodlib.reports.names import NAMES, label
from oodlib.settings import Settings

METRICS = ["auroc", "aupr_in", "aupr_out", "fpr95"]
DETECTOR_KEY = ["head", "outliers", "seed"]
DETECTOR_COLUMNS = ["preset", *DETECTOR_KEY, "own_score"]  # what a table says of that which scored
# And of each image.
IMAGE_COLUMNS = ["set", "title", "role", "index", "file", "label", "predicted", "correct"]
# And of the classifier, the same for all sets.
OF_CLASSIFIER = ["id_accuracy", "ece", "ece_tempered"]
# And where ID and OOD images are degraded alike (`datasets.shifts.degraded`).
BOTH_DEGRADED = "auroc_degraded"
COLUMNS = [
    *(*DETECTOR_COLUMNS, "score", "ood_set", "title", "role"),
    *(*METRICS, BOTH_DEGRADED, *OF_CLASSIFIER),
]
OOD_ROLES = [role for role in Role if role.is_ood]

Classify = Callable[[np.ndarray], tuple[np.ndarray | None, Mapping[str, np.ndarray]]]
"""From uint8 images (N, H, W, C): class probabilities (N, classes), None where there are none, and scores (N,)."""


def about_detector(settings: Settings, head: str, outliers: str, own_score: str) -> dict[str, Any]:
    """The columns of a table that say what scored."""
    values = settings.preset, head, outliers, settings.seed, own_score
    return dict(zip(DETECTOR_COLUMNS, values, strict=True))


def score_table(
    sets: Sequence[EvaluationSet],
    classify: Classify,
    class_names: Sequence[str] = (),
    images_per_set: int | None = None,
) -> pd.DataFrame:
    """Every score of every image.

    Args:
        classify: Of a detector `Detector.classify`.
        class_names: Of the classes that `classify` gives probabilities of.
        images_per_set: Score at most this many images of each set, evenly spaced; None for all.

    Returns:
        Columns `set` (its key), `title`, `role`, `index` (in the set), `label` and `predicted` (class names), `correct`
        (missing, as they are, where nothing is classified or the set has no labels) and one for each score.
    """
    tables = []
    for key, title, role, images, labels, names in sets:
        count = min(len(images), images_per_set or len(images))
        index = np.arange(count) * len(images) // count
        probabilities, scores = classify(images[index])
        about = {"set": key, "title": title, "role": str(role), "index": index}
        predicted = None if probabilities is None else np.array(class_names)[probabilities.argmax(-1)]
        right = None if labels is None else np.array(names)[labels[index]]
        tables.append(image_table(about, predicted, right).assign(**scores))
    return pd.concat(tables, ignore_index=True)


def image_table(
    about: Mapping[str, object], predicted: np.ndarray | None, labels: np.ndarray | None
) -> pd.DataFrame:
    """The columns of `score_table` that are no scores: a row for each image of a set.

    Args:
        about: `set`, `title`, `role` and `index`.
        predicted, labels: Class names (N,), None where there are none.
    """
    table = pd.DataFrame(about)
    for column, names in (("label", labels), ("predicted", predicted)):
        table[column] = pd.Series(np.nan if names is None else names, table.index, str)
    table["correct"] = pd.Series(pd.NA, table.index, "boolean")
    if predicted is not None and labels is not None:
        table["correct"] = (table["predicted"] == table["label"]).astype("boolean")
    return table


def id_and_ood(scores: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """The rows of the ID images, and those of each OOD set by its key; shifted ID images are neither."""
    ood = scores[scores["role"].isin(OOD_ROLES)]
    return scores[scores["role"] == Role.ID], dict(tuple(ood.groupby("set", sort=False)))


def metric_table(scores: pd.DataFrame) -> pd.DataFrame:
    """AUROC, AUPR-In, AUPR-Out and FPR95 of each score on each OOD set, and the accuracy on the ID images.

    Args:
        scores: From `score_table`; every column that is none of `IMAGE_COLUMNS` and `DETECTOR_COLUMNS` is a score.
    """
    id_images, ood_sets = id_and_ood(scores)
    rows = [
        {
            "score": score,
            "ood_set": key,
            "title": images["title"].iloc[0],
            "role": images["role"].iloc[0],
            **ood_metrics(id_images[score], images[score]),
        }
        for score in scores.columns.difference([*IMAGE_COLUMNS, *DETECTOR_COLUMNS], sort=False)
        for key, images in ood_sets.items()
    ]
    return pd.DataFrame(rows).assign(id_accuracy=id_images["correct"].astype(float).mean())


def alarm_table(
    scores: pd.DataFrame, thresholds: Mapping[str, float], recalibrated: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """What each score says of each set at its threshold: of ID images, shifted ones too, false alarms.

    Args:
        scores: From `score_table`.
        thresholds: Of each score.
        recalibrated: Other thresholds, to say the same by.

    Returns:
        A row for each score and set: `score`, `set`, `title`, `role`, `images` (their number), `called_ood` (the share
        below the threshold), `recalibrated` (the same by the other thresholds, if given) and `accuracy`.
    """
    columns = {"called_ood": thresholds} | ({} if recalibrated is None else {"recalibrated": recalibrated})
    rows = [
        {
            "score": score,
            **{name: images[name].iloc[0] for name in ("set", "title", "role")},
            "images": len(images),
            **{name: float(is_ood(images[score], of[score]).mean()) for name, of in columns.items()},
            "accuracy": images["correct"].astype(float).mean(),
        }
        for score in thresholds
        for _, images in scores.groupby("set", sort=False)
    ]
    return pd.DataFrame(rows)


def shifted_auroc(scores: pd.DataFrame) -> pd.Series:
    """AUROC of shifted ID images against OOD images, by each detector's own score, mean over OOD sets: OpenOOD v1.5's
    "full spectrum" without the ID images as they are. By `DETECTOR_KEY`; NaN where there are no such images.

    Args:
        scores: Of several detectors, columns as from `score_table` and `DETECTOR_COLUMNS`.
    """
    values = {}
    for key, images in with_own_score(scores).groupby(DETECTOR_KEY, sort=False):
        shifted = images.loc[images["role"] == Role.SHIFTED_ID, "score"]
        ood_sets = id_and_ood(images)[1].values() if len(shifted) else ()
        values[key] = np.mean([auroc(shifted, of_set["score"]) for of_set in ood_sets] or np.nan)
    return pd.Series(values).rename_axis(DETECTOR_KEY)


def ordered(table: pd.DataFrame) -> pd.DataFrame:
    """A table of several detectors by head, outliers and seed, in the order of `names.NAMES`; others come last."""

    def rank(column: pd.Series) -> pd.Series:
        if column.name == "seed":
            return column
        # What was done to images comes behind all that was trained on them as they are.
        parts = column.str.partition("+")
        names = {name: i for i, name in enumerate(dict.fromkeys([*NAMES, *parts[0]]))}
        modifiers = {name: i for i, name in enumerate(sorted(set(parts[2]), key=lambda m: (m.count("+"), m)))}
        return parts[2].map(modifiers) * len(names) + parts[0].map(names)

    return table.sort_values(DETECTOR_KEY, kind="stable", key=rank)


def by_own_score(results: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table of metrics in which each head has its own score."""
    return results[results["score"] == results["own_score"]]


def with_own_score(scores: pd.DataFrame) -> pd.DataFrame:
    """A table of scores of one or several detectors with a further column `score`, the own score of each."""
    names = scores["own_score"].unique()
    return scores.assign(
        score=np.select([scores["own_score"] == n for n in names], [scores[n] for n in names])
    )


def seed_means(results: pd.DataFrame) -> pd.DataFrame:
    """Each head's own score, averaged over the OOD sets: one row for each head, outliers and seed."""
    columns = [*DETECTOR_KEY, *METRICS, BOTH_DEGRADED, *OF_CLASSIFIER]
    own = by_own_score(results).reindex(columns=columns)  # the denoiser has no classifier
    return own.groupby(DETECTOR_KEY, sort=False).mean().reset_index()


def titles(results: pd.DataFrame) -> dict[str, str]:
    """The title of each OOD set by its key."""
    return dict(zip(results["ood_set"], results["title"], strict=True))


def markdown(table: pd.DataFrame) -> str:
    """A table of text as Markdown, with names as they are called on screen."""
    names = {column: table[column].map(label) for column in ("head", "outliers") if column in table}
    table = table.assign(**names)
    for column in table:  # the other cells may be bold
        table[column] = table[column].map(_escaped if column in NAME_COLUMNS else _in_a_cell)
    # Columns without a name in the kit are sets.
    return table.rename(columns=lambda name: NAMES.get(name) or _escaped(name)).to_markdown(
        index=False, disable_numparse=True
    )


def _in_a_cell(text: object) -> object:
    return one_line(text).replace("|", r"\|") if isinstance(text, str) else text


def _escaped(text: object) -> object:
    """A name in which nothing has a meaning in Markdown: a class may be called a|b, $x$ or _y_."""
    return re.sub(r"([\\|$*`<]|\b_|_\b)", r"\\\1", one_line(text)) if isinstance(text, str) else text
