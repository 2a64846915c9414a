"""What is checked and said before anything is fitted: labels, accuracy, order of names, what few images promise."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from oodlib.errors import InputError, tell


def check_labels(noun: str, labels: np.ndarray, class_names: Sequence[str], every: bool = True) -> None:
    """Raise `InputError` if labels, integers (N,), are not those of the classes or, where `every`, a class has none."""
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise InputError(
            f"labels of the {noun} images go from {labels.min()} to {labels.max()}, expected 0 to "
            f"{len(class_names) - 1}"
        )
    missing = [name for i, name in enumerate(class_names) if i not in labels] if every else []
    if missing:
        raise InputError(
            f"there are no {noun} images of {', '.join(map(repr, missing))}; each class needs some"
        )


def tell_accuracy(predicted: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> None:
    """Print the accuracy, and where it is hardly better than chance the order of the names that would fit best."""
    accuracy, count = (predicted == labels).mean(), len(class_names)
    tell(f"accuracy on {len(labels)} validation images: {accuracy:.1%}")
    # Twice chance; of two or three classes, half-way from chance to 1.
    low = min(2 / count, (1 + 1 / count) / 2)
    if accuracy >= low:
        return
    confusion = np.zeros((count, count), np.int64)
    np.add.at(confusion, (predicted, labels), 1)
    _, best = linear_sum_assignment(confusion, maximize=True)
    share = confusion[np.arange(count), best].sum() / len(labels)
    if share < low:
        tell(
            "that is hardly better than chance, and no other order of the names fits much better (best "
            f"{share:.1%}): look at the network's weights and at the transform"
        )
    else:
        tell(
            "that is hardly better than chance: names and outputs may be in another order; the outputs fit best in the "
            f"order {', '.join(class_names[i] for i in best)} (accuracy {share:.1%})"
        )


def tell_promise(count: int, tpr: float) -> None:
    """Print what so many validation images can promise, n / (n + 1), where that is less than `tpr`."""
    if math.ceil(tpr * (count + 1)) > count:
        tell(
            f"{count} validation images can promise that {count / (count + 1):.1%} of ID images are kept, not "
            f"{tpr:.1%}; the thresholds are their smallest scores"
        )
