"""The one exception for bad input, what was given, what was expected and what to do on one line; and lines of print."""

import sys
from collections.abc import Iterable
from unicodedata import category


def one_line(text: str) -> str:
    """A text with control characters, other ends of lines, and what is no character written as their codes."""
    codes = {
        c: c.encode("unicode_escape").decode() for c in set(text) if category(c) in ("Cc", "Cs", "Zl", "Zp")
    }
    return "".join(codes.get(c, c) for c in text)


def tell(line: str) -> None:
    """Print a line, with codes for characters that the terminal cannot show."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding))


class InputError(ValueError):
    """Bad input from a user. In a notebook it shows as its message, without a traceback."""

    def __init__(self, message: str):
        super().__init__(one_line(message))

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


def choice(noun: str, name: object, names: Iterable) -> None:
    """Raise `InputError` unless `name` is one of `names`."""
    if name not in names:
        listed = ", ".join(str(known) for known in names if known is not None)
        raise InputError(f"{noun} {name!r} is not known; choose one of {listed}")
