"""What outliers teach a detector."""

from torch import Tensor


def uniform_cross_entropy(
    logits: Tensor, targets: Tensor | None = None, loss_weights: Tensor | None = None
) -> Tensor:
    """Outlier-exposure loss (Hendrycks et al. 2019, arXiv 1812.04606): cross-entropy from the uniform
    distribution to softmax, `mean(logsumexp_j l_j - mean_j l_j)`, which is `KL(U || p) + ln C`.

    Args:
        logits: (N, C), margin-free.
        targets: (N, C), rows that sum to 1, to take in place of the uniform distribution.
        loss_weights: (N,), a factor for each image.

    Returns:
        A scalar; without targets at least ln C, and ln C where all logits of an image are equal.
    """
    expected = logits.mean(-1) if targets is None else (targets * logits).sum(-1)
    losses = logits.logsumexp(-1) - expected
    return (losses if loss_weights is None else loss_weights * losses).mean()
