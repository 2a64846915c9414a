"""What is checked and said before anything is fitted: labels, accuracy, order of names, what few images promise."""

import math
from collections.abc import Sequence
from numbers import Integral

import numpy as np
from scipy.optimize import linear_sum_assignment

from oodlib.errors import InputError, tell

GAIN = 0.1  # in accuracy, by which another order fits far better


def check_bank_size(bank_size: int) -> None:
    """Raise `InputError` unless it is a number of images."""
    if not isinstance(bank_size, Integral) or bank_size < 1:
        raise InputError(f"bank_size is {bank_size!r}, expected a whole number from 1")


def check_classes(noun: str, labels: np.ndarray, class_names: Sequence[str]) -> None:
    """Raise `InputError` if a class has none of the labels, integers (N,)."""
    missing = [name for i, name in enumerate(class_names) if i not in labels]
    if missing:
        raise InputError(
            f"there are no {noun} images of {', '.join(map(repr, missing))}; each class needs some"
        )


def tell_accuracy(
    predicted: np.ndarray, labels: np.ndarray, class_names: Sequence[str], has_names: bool = True
) -> None:
    """Print the accuracy, and where it is hardly better than chance, or another order would fit far better, that order:
    of the names, or, where labels are numbers, which know no names, of the labels."""
    accuracy, count = (predicted == labels).mean(), len(class_names)
    tell(f"accuracy on {len(labels)} validation images: {accuracy:.1%}")
    # Twice chance; of two or three classes, half-way from chance to 1.
    low = min(2 / count, (1 + 1 / count) / 2)
    confusion = np.zeros((count, count), np.int64)
    np.add.at(confusion, (predicted, labels), 1)
    _, best = linear_sum_assignment(confusion, maximize=True)
    share = confusion[np.arange(count), best].sum() / len(labels)
    if accuracy < low and share < low:
        tell(
            f"that is hardly better than chance, and no other order of the {'names' if has_names else 'labels'} fits "
            f"much better (best {share:.1%}): look at the network's weights and at the transform"
        )
    elif accuracy < low or share - accuracy >= GAIN:
        start = "that is hardly better than chance: " if accuracy < low else ""
        order = ", ".join(class_names[i] if has_names else str(i) for i in best)
        tell(
            f"{start}names and outputs may be in another order; the outputs fit best in the order {order} (accuracy "
            f"{share:.1%})"
            if has_names
            else f"{start}labels may count in another order than outputs; outputs 0 to {count - 1} fit best the labels "
            f"{order} (accuracy {share:.1%}): number the labels as the network was trained"
        )


def tell_promise(count: int, tpr: float) -> None:
    """Print what so many validation images can promise, n / (n + 1), where that is less than `tpr`."""
    if math.ceil(tpr * (count + 1)) > count:
        tell(
            f"{count} validation images can promise that {count / (count + 1):.1%} of ID images are kept, not "
            f"{tpr:.1%}; the thresholds are their smallest scores"
        )
