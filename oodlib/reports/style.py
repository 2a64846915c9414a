"""How figures look, without a change to matplotlib's settings for anyone else.

Blue is in-distribution and orange is out-of-distribution, everywhere; both are told apart by colour-blind eyes.
"""

import functools
from collections.abc import Callable

from matplotlib import rc_context
from matplotlib.figure import Figure

ID_COLOUR, OOD_COLOUR = "#0072B2", "#E69F00"
STYLE = {
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.titlesize": 12,
    "figure.dpi": 80,
    "font.size": 9,
    "legend.frameon": False,
    "text.parse_math": False,  # a class may be called Ba$$in
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


def styled(plot: Callable[..., Figure]) -> Callable[..., Figure]:
    """A function that draws in the kit's style."""

    @functools.wraps(plot)
    def wrapper(*args, **kwargs):
        with rc_context(STYLE):
            return plot(*args, **kwargs)

    return wrapper
