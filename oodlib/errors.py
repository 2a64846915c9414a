"""The one exception for bad input: what was given, what was expected, what to do, on one line."""


class InputError(ValueError):
    """Bad input from a user. In a notebook it shows as its message, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


def choice(kind: str, given: object, known) -> None:
    """Raise `InputError` unless `given` is one of `known`."""
    if given not in known:
        raise InputError(f"{kind} {given!r} is not known; choose one of {', '.join(map(str, known))}")
