"""Which outliers? What each kind changes against none, with bootstrap intervals, and the choice of a default."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from oodlib.datasets.loading import ID_TEST
from oodlib.detection.metrics import resampled_auroc
from oodlib.errors import InputError
from oodlib.files import write_text
from oodlib.presets import HEADS, OUTLIERS, OWN_SCORE
from oodlib.reports.tables import ordered, own_score
from oodlib.runs import Run

# The default pool is chosen among what the denoiser draws for mixed labels; the other kinds are there to compare with.
CANDIDATES = tuple(
    kind for kind in OUTLIERS if kind.endswith(("mixup", "guidance")) and kind != "pixel_mixup"
)
MEAN = "mean over sets"
ACCURACY = "closed-set accuracy"


def by_validation(run: Run) -> pd.DataFrame:
    """AUROC on validation outliers, each head by its own score, mean over sets and seeds: a row for each kind of
    outliers, a column for each head and their `mean`, best first. The choice looks at nothing else."""
    own = own_score(ordered(run.tables("validation")))
    table = own.pivot_table("auroc", "outliers", "head", sort=False).dropna()
    return table.assign(mean=table.mean(axis=1)).sort_values("mean", ascending=False, kind="stable")


def chosen(validation: pd.DataFrame) -> str:
    """The best of `CANDIDATES` in a table from `by_validation`."""
    found = [kind for kind in validation.index if kind in CANDIDATES]
    if not found:
        raise InputError(
            f"no detector was trained with any of {', '.join(CANDIDATES)}; train some with notebook 3"
        )
    return found[0]


def test_values(run: Run, id_labels: np.ndarray) -> dict[tuple[str, str, int], dict[str, np.ndarray]]:
    """By head, outliers and seed: own scores of each test set, and whether each ID test image was classified right.

    Args:
        id_labels: Class names of the ID test images, (n,).
    """
    found = {}
    for key, table in ordered(run.tables("scores")).groupby(["head", "outliers", "seed"], sort=False):
        if key[0] not in HEADS:
            continue
        own = OWN_SCORE[key[0]]
        values = {name: rows[own].to_numpy() for name, rows in table.groupby("set", sort=False)}
        predicted = table.loc[table["set"] == ID_TEST, "predicted"].to_numpy()
        found[key] = values | {ACCURACY: predicted == id_labels}
    return found


def bootstrap_changes(
    values: Mapping[tuple[str, str, int], Mapping[str, np.ndarray]], draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """What each kind of outliers changes in AUROC and in accuracy, against `none` of the same head and seeds.

    A draw of the bootstrap takes seeds, ID test images and images of each OOD set with replacement, the same for
    all detectors, so that differences are paired. With few seeds such intervals are rather too narrow, and from one
    seed there is none: two detectors that differ in rounding alone can be points apart.

    Args:
        values: From `test_values`.

    Returns:
        Columns `head`, `outliers`, `what` (an OOD set, `mean over sets` or `closed-set accuracy`), `none`, `exposed`,
        `change`, and `low` and `high`, its 95 % interval (NaN with fewer than two seeds).
    """
    rng = np.random.default_rng(seed)
    first = next(iter(values.values()))
    sets = [name for name in first if name not in (ID_TEST, ACCURACY)]
    # Row 0 counts each image once: the estimate itself.
    counts = {
        name: np.vstack(
            [np.ones(len(v)), rng.multinomial(len(v), np.full(len(v), 1 / len(v)), draws)],
            dtype=np.uint16,
            casting="unsafe",
        )
        for name, v in first.items()
        if name != ACCURACY
    }
    rows = []
    for head in dict.fromkeys(key[0] for key in values):
        kinds = list(dict.fromkeys(key[1] for key in values if key[0] == head))
        seeds = sorted({key[2] for key in values if key[0] == head})
        seeds = [s for s in seeds if all((head, kind, s) in values for kind in kinds)]
        if "none" not in kinds or not seeds:
            raise InputError(
                f"{head} was not trained without outliers on the same seeds; train it with notebook 3"
            )
        drawn = rng.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), draws)
        share = np.vstack([np.ones(len(seeds)), drawn]).T / len(seeds)
        found = {
            kind: _over_seeds([values[head, kind, s] for s in seeds], sets, counts, share) for kind in kinds
        }
        for kind in kinds:
            for what, resampled in found[kind].items():
                if kind == "none":
                    continue
                change = resampled - found["none"][what]
                low, high = np.quantile(change[1:], [0.025, 0.975]) if len(seeds) > 1 else (np.nan, np.nan)
                rows.append(
                    dict(
                        head=head,
                        outliers=kind,
                        what=what,
                        none=found["none"][what][0],
                        exposed=resampled[0],
                        change=change[0],
                        low=low,
                        high=high,
                    )
                )
    return pd.DataFrame(rows)


def _over_seeds(
    of_seeds: list[Mapping[str, np.ndarray]],
    sets: list[str],
    counts: Mapping[str, np.ndarray],
    share: np.ndarray,
) -> dict[str, np.ndarray]:
    """AUROC on each set and its mean, and accuracy, of each draw, as a mean over seeds, (draws + 1,).

    Args:
        share: (seeds, draws + 1).
    """
    id_counts = counts[ID_TEST]
    by_set = {
        name: sum(
            share[i] * resampled_auroc(values[ID_TEST], values[name], id_counts, counts[name])
            for i, values in enumerate(of_seeds)
        )
        for name in sets
    }
    right = sum(share[i] * (id_counts @ values[ACCURACY].astype(float)) for i, values in enumerate(of_seeds))
    return {
        MEAN: np.mean(list(by_set.values()), axis=0),
        **by_set,
        ACCURACY: right / id_counts.shape[1],
    }


def change_text(changes: pd.DataFrame) -> pd.Series:
    """Each change in percentage points with its interval, where it has one; `*` where that excludes 0."""
    mark = np.where((changes["low"] > 0) | (changes["high"] < 0), " *", "")
    cells = [
        f"{100 * change:+.1f}" + ("" if np.isnan(low) else f" [{100 * low:+.1f}, {100 * high:+.1f}]")
        for change, low, high in changes[["change", "low", "high"]].itertuples(index=False)
    ]
    return pd.Series(cells, changes.index) + mark


def study_table(changes: pd.DataFrame, what: str = MEAN) -> pd.DataFrame:
    """A row for each kind of outliers, a column for each head: `change_text` of one set, the mean, or accuracy."""
    part = changes[changes["what"] == what]
    table = part.assign(cell=change_text(part))
    return table.pivot_table("cell", "outliers", "head", aggfunc="first", sort=False).reset_index()


def verdicts(changes: pd.DataFrame, kind: str) -> str:
    """In words: which heads gain and lose with this kind of outliers, over all sets and on each, as Markdown."""
    part = changes[(changes["outliers"] == kind) & (changes["what"] != ACCURACY)]
    lines = []
    for what, rows in part.groupby("what", sort=False):
        heads = rows["head"].str.replace("_", " ") + (100 * rows["change"]).map(" {:+.1f}".format)
        gain, lose = rows["low"] > 0, rows["high"] < 0
        groups = {"gain": heads[gain], "lose": heads[lose], "are undecided": heads[~gain & ~lose]}
        said = "; ".join(f"{verb}: {', '.join(group)}" for verb, group in groups.items() if len(group))
        lines.append(f"- **{what.replace('_', ' ')}** · {said}.")
    return "\n".join(lines)


def write_study(path: Path, validation: pd.DataFrame, changes: pd.DataFrame, seeds: int) -> None:
    """Write the choice and the tables as Markdown, atomically."""
    kind = chosen(validation)
    parts = [
        f"# Which outliers? {seeds} seed{'s' if seeds > 1 else ''}",
        "AUROC in percent on validation outliers, each head by its own score, mean over sets and seeds. The best kind\n"
        f"of label mixture is {kind}:",
        (100 * validation).to_markdown(floatfmt=".1f"),
        "Change in AUROC against no outliers, mean over the OOD test sets, in percentage points, with its 95 %\n"
        "bootstrap interval over seeds and images, if there are two seeds or more; * where it excludes 0:",
        study_table(changes).to_markdown(index=False, disable_numparse=True),
        "The same of closed-set accuracy:",
        study_table(changes, ACCURACY).to_markdown(index=False, disable_numparse=True),
    ]
    write_text(path, "\n\n".join(parts) + "\n")
