"""A pool filled with the candidates of a source that pass a committee's filters."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from oodlib.errors import InputError
from oodlib.outliers.committee import Committee
from oodlib.outliers.pool import OutlierPool, joined
from oodlib.outliers.purity import purity
from oodlib.outliers.sources import Draw

Window = tuple[float, float]
CANDIDATES_PER_OUTLIER = 40  # for each outlier: a filter that needs more of them is given up
FEWEST_CANDIDATES = 400  # candidates to tell that by


def fill(
    draw: Draw,
    count: int,
    committee: Committee,
    *,
    confidence: Window | None = None,
    distance: Window | None = None,
    keep_share: float = 1.0,
    weigh_by_impurity: bool = False,
    soft_targets: bool = False,
    twins: str | None = None,
) -> tuple[OutlierPool, pd.DataFrame]:
    """A pool of `count` outliers that pass the filters, and its `purity` table.

    Candidates are drawn until the pool is full, or until, of 400 or more, fewer than one in 40 passed.

    Args:
        draw: Gives the candidates of a range of numbers.
        confidence: Lowest and highest confidence that the committee may have.
        distance: Least and largest distance to the nearest training image (see `Committee.distances`).
        keep_share: The share that is kept of those in the windows: the ones of lowest confidence.
        weigh_by_impurity: Give each outlier a loss weight by how unsure the committee is, see `impurity_weights`.
        soft_targets: Give each outlier the committee's probabilities as its target, in place of the uniform ones.
        twins: `outliers` to take the twins of the outliers that passed in their place.

    Raises:
        InputError: `count` is below 2, or too few candidates pass; the message says which share did.
    """
    if count < 2:
        raise InputError(f"a pool of {count} outlier is too small; ask for 2 or more")
    wanted = math.ceil(count / keep_share)
    tables, pools, drawn, passed = [], [], 0, 0
    is_filtered = confidence is not None or distance is not None
    while passed < wanted and (drawn < FEWEST_CANDIDATES or passed * CANDIDATES_PER_OUTLIER >= drawn):
        size = math.ceil(1.1 * (wanted - passed) * drawn / passed) if passed else wanted
        candidates = draw(range(drawn, drawn + size))
        if not len(candidates):
            break
        table = purity(candidates, committee)
        passes = np.ones(len(table), bool)
        for name, window in (("confidence", confidence), ("distance", distance)):
            if window is not None:
                passes &= table[name].between(*window).to_numpy()
        drawn, passed = drawn + len(candidates), passed + int(passes.sum())
        pools.append(candidates.take(passes))
        tables.append(table[passes])
        if is_filtered:
            print(f"{drawn} drawn, {passed / drawn:.1%} pass the filter, {min(passed, wanted)} of {wanted}")
        if len(candidates) < size:
            break
    if passed < min(wanted, 2) or (is_filtered and passed < wanted):
        raise InputError(
            f"of {drawn} candidates {passed / max(drawn, 1):.2%} pass confidence {confidence} and distance {distance}, "
            f"and the pool needs {wanted}; widen a window or ask for fewer outliers"
        )
    pool, table = joined(pools), pd.concat(tables, ignore_index=True)
    kept = np.arange(len(table))[:wanted]
    if keep_share < 1:
        kept = np.sort(table["confidence"].to_numpy()[:wanted].argsort(kind="stable")[:count])
    pool, table = pool.take(kept), table.iloc[kept].reset_index(drop=True)
    if twins is not None and pool.twins is None:
        raise InputError(f"twins = {twins!r}, but these outliers have none; only label mixtures do")
    if twins == "outliers":
        one_hot = np.eye(pool.label_weights.shape[1], dtype=np.float32)[pool.twin_labels]
        pool = OutlierPool(pool.twins, one_hot)
        table = purity(pool, committee)
    if weigh_by_impurity:
        pool = replace(pool, loss_weights=impurity_weights(table["confidence"].to_numpy()))
    if soft_targets:
        pool = replace(pool, targets=committee.probabilities(pool.images).astype(np.float32))
    return pool, table


def impurity_weights(confidence: np.ndarray) -> np.ndarray:
    """Loss weights by how unsure the committee is, `1 - confidence`, scaled to a mean of 1; float32 (N,)."""
    impure = 1 - np.asarray(confidence)
    if not impure.mean() > 0:
        raise InputError(
            "the committee is entirely sure of every outlier; weights by impurity would all be 0"
        )
    return (impure / impure.mean()).astype(np.float32)
