"""Label mixup: vectors of label weights with weight on several classes.

The paper feeds the denoiser [1, 1] where it was trained on [1, 0] and [0, 1], and takes what it draws for
an outlier between two classes (arXiv 2405.00631).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from oodlib.errors import InputError, choice

MIX_MODES = ("sum", "convex", "slerp")


def label_weights(raw: Tensor, mode: str = "sum") -> Tensor:
    """Turn raw class weights into the vector that the denoiser takes.

    - `sum`: `w` as it is; two ones are the paper's [1, 1].
    - `convex`: `p = w / sum(w)`, inside the hull of what it was trained on.
    - `slerp`: `sin(p pi/2) / |sin(p pi/2)|`; for two classes the great circle from one one-hot to the other.

    Args:
        raw: (..., C), 0 or more. Where all are 0 the result is 0: no class.

    Returns:
        (..., C), of the same type.
    """
    choice("mix mode", mode, MIX_MODES)
    if not bool(torch.isfinite(raw).all()) or bool((raw < 0).any()):
        raise InputError("label weights must be finite and 0 or more")
    if mode == "sum":
        return raw
    share = raw / raw.sum(-1, keepdim=True).clamp_min(1e-12)
    if mode == "convex":
        return share
    arc = (share * (math.pi / 2)).sin()
    return arc / arc.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def pair_weights(
    pairs: Sequence[tuple[int, int]], num_classes: int, mode: str = "sum", weight: float | Tensor = 0.5
) -> Tensor:
    """Label weights for pairs of distinct classes, (len(pairs), num_classes).

    Args:
        pairs: Classes (a, b).
        weight: Of class b, in [0, 1], one for all or one for each: 0 is class a alone, 1 is class b. For
            `sum` both rise to 1 before the other falls, so that 0.5 is the paper's [1, 1].
    """
    pairs = torch.as_tensor(pairs).reshape(-1, 2)
    if bool((pairs[:, 0] == pairs[:, 1]).any()) or pairs.min() < 0 or pairs.max() >= num_classes:
        raise InputError(
            f"a pair needs two distinct classes from 0 to {num_classes - 1}, got {pairs.tolist()}"
        )
    weight = torch.as_tensor(weight, dtype=torch.float32).expand(len(pairs))
    if bool((weight < 0).any()) or bool((weight > 1).any()):
        raise InputError(f"the mixing weight must lie in [0, 1], got {weight.tolist()}")
    both = torch.stack([1 - weight, weight], dim=1)
    if mode == "sum":
        both = (2 * both).clamp(max=1)
    return label_weights(torch.zeros(len(pairs), num_classes).scatter(1, pairs, both), mode)
