"""What the explorer needs of ipykernel and of Python that is private to them or holds for the whole process."""

import sys

from IPython import get_ipython
from ipywidgets import Widget

# Python takes its lock from a computing cell after 5 ms. An image needs it thousands of times: 60 ms become 10 s.
SWITCH_INTERVAL_S = 1e-5

_hurried: set[object] = set()
_interval_before_s = sys.getswitchinterval()


def hurry(explorer: object) -> None:
    """Have Python's lock change hands fast while any explorer is open."""
    global _interval_before_s
    if not _hurried:
        _interval_before_s = sys.getswitchinterval()
    _hurried.add(explorer)
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def relax(explorer: object) -> None:
    """As it was before, when the last one is closed."""
    if explorer in _hurried:
        _hurried.remove(explorer)
        if not _hurried:
            sys.setswitchinterval(_interval_before_s)


def is_live() -> bool:
    """Whether somebody sits before the notebook: a front end that can be asked for input can move a slider."""
    return bool(getattr(getattr(get_ipython(), "kernel", None), "_allow_stdin", False))


def answer_where_asked(widget: Widget) -> None:
    """Handle a front end's messages on the thread that it asks for, also while a cell runs.

    From 7.4 on ipykernel hands them to the thread that last wrote to the widget. For a new widget that is the one
    that runs the cells: a slider not yet touched would be dead until the running cell ends.
    """
    widget.comm._reply_subshell_for = lambda data, default: default
