"""The one exception for bad input: what was given, what was expected, what to do, on one line."""

from collections.abc import Iterable


class InputError(ValueError):
    """Bad input from a user. In a notebook it shows as its message, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


def choice(noun: str, name: object, names: Iterable) -> None:
    """Raise `InputError` unless `name` is one of `names`."""
    if name not in names:
        raise InputError(f"{noun} {name!r} is not known; choose one of {', '.join(map(str, names))}")
