"""How far probabilities can be believed, and one temperature that mends them."""

import numpy as np
from numpy.typing import ArrayLike

TEMPERATURES = (0.05, 20.0)  # among which one is looked for


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv 1706.04599): `sum_b n_b / N |accuracy_b - confidence_b|` over
    equal bins of the highest probability.

    Args:
        probabilities: (N, C), rows that sum to 1.
        labels: (N,).
    """
    probabilities = np.asarray(probabilities, np.float64)
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == np.asarray(labels)
    place = np.minimum(np.ceil(confidence * bins).astype(int) - 1, bins - 1)
    gaps = np.bincount(place, correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def tempered(probabilities: ArrayLike, temperature: float) -> np.ndarray:
    """Probabilities (N, C) of logits that are divided by a temperature, float64: powers of 1 / T, normalised."""
    with np.errstate(divide="ignore"):  # the logarithm of 0 has its place
        logits = np.log(np.asarray(probabilities, np.float64)) / temperature
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def fit_temperature(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """The temperature at which the labels of validation images are likeliest (Guo et al. 2017, arXiv 1706.04599).

    Args:
        probabilities: (N, C), rows that sum to 1; of no images the temperature is 1.
        labels: (N,).
    """
    if not len(labels):
        return 1.0
    from scipy.optimize import minimize_scalar  # here, because it takes half a second to import

    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)

    def loss(log_temperature: float) -> float:
        of_label = tempered(probabilities, np.exp(log_temperature))[np.arange(len(labels)), labels]
        return float(-np.log(of_label.clip(np.finfo(np.float64).tiny)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))
