"""Files that are never half-written, hashes of arrays, and where folders lie."""

import glob
import hashlib
import json
import os
import platform
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import psutil
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from oodlib.errors import InputError, one_line, tell

if TYPE_CHECKING:  # it takes 0.2 s to import
    import pandas as pd

# Columns of tables that hold names. They are read as they were written: a class may be called 007 and a set NA.
NAME_COLUMNS = (
    *("set", "ood_set", "title", "role", "file", "classes", "label", "predicted"),
    *("preset", "head", "outliers", "own_score", "score", "metric"),
)
LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # how the text begins that stands for a large file
# What readers of JSON, of npz and of safetensors files raise at one that is damaged, or holds something else.
DAMAGE = (
    *(ValueError, LookupError, TypeError, AttributeError, RuntimeError, EOFError),
    *(SafetensorError, BadZipFile, zlib.error),
)


class Damaged(InputError):
    """A file is missing, or is not what was written; it is to be made again."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to it when the block ends without an error.

    The file is on the disk before it has its name, and others may read it as the umask says, whoever wrote it. What
    processes of this machine that were killed left of the same file is removed.

    Raises:
        InputError: It cannot be written.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        part = path.with_name(f".{path.stem}.{platform.node()}.{os.getpid()}.part{path.suffix}")
        part.touch()
        try:
            mode = part.stat().st_mode
            yield part
            part.chmod(mode)  # safetensors makes files that their owner alone can read
            _sync(part, os.O_RDWR)
            os.replace(part, path)
            if os.name == "posix":  # elsewhere folders cannot be opened
                _sync(path.parent, os.O_RDONLY)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def writing(path: Path, advice: str = "") -> Iterator[None]:
    """A block that writes `path`, in which a disk that is full or read-only becomes an `InputError` of one line."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{shown(path)} cannot be written: {reason}{advice}") from error


def try_writing(folder: Path) -> None:
    """Raise `InputError` if nothing can be written to the folder, which is made if it is not there."""
    with writing(folder, "; make room or write access there, or choose a run elsewhere by its path"):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(2**16))


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of `path` whose process on this machine is gone; other machines may share the folder."""
    start, end = f".{path.stem}.{platform.node()}.", f".part{path.suffix}"
    for part in path.parent.glob(f"{glob.escape(start)}*{glob.escape(end)}"):
        owner = part.name.removeprefix(start).removesuffix(end)
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            part.unlink(missing_ok=True)


def _sync(path: Path, flags: int) -> None:
    """Have the disk hold what was written; else a power cut could leave a new name on an empty file."""
    number = os.open(path, flags)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a lock beside `path`, as one process can at a time; the system frees it when its owner ends.

    Raises:
        InputError: Nothing can be written there.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        owner = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            owner.acquire(blocking=False)
        except Timeout:
            tell(f"another process works on {shown(path)}; waiting for it")
            owner.acquire()
    try:
        yield
    finally:
        owner.release()


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write `values` as JSON, atomically."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def write_csv(path: Path, table: "pd.DataFrame") -> None:
    """Write a table as CSV, atomically, with nine significant digits."""
    with atomic(path) as part:
        table.to_csv(part, index=False, float_format="%.9g", encoding="utf-8")


def read_csv(path: Path) -> "pd.DataFrame":
    """Read what `write_csv` wrote: names as text, `correct` as booleans, else numbers; an empty cell is missing."""
    import pandas as pd

    columns = dict.fromkeys(NAME_COLUMNS, str) | {"correct": "boolean"}
    return pd.read_csv(path, dtype=columns, keep_default_na=False, na_values=[""], encoding="utf-8")


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, atomically."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def reading(path: Path, advice: str) -> Iterator[None]:
    """A block that reads `path`, in which whatever is wrong with the file becomes an `InputError` of one line.

    Args:
        advice: What to do about a file that is missing or damaged.

    Raises:
        Damaged: It is missing or damaged.
        InputError: It cannot be read, or is still to be fetched by git LFS.
    """
    told = shown(path)
    try:
        with open(path, "rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise InputError(f"{told} is a git-LFS pointer, not the file itself; run git lfs pull")
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise Damaged(f"{told} is not there; {advice}") from error
    except OSError as error:
        raise InputError(f"{told} cannot be read: {error.strerror or error}") from error
    except DAMAGE as error:
        raise Damaged(f"{told} is damaged or of another version of oodlib; {advice}") from error


def shown(path: Path) -> str:
    """A path as its owner would write it, without the way there from a notebook, on one line whatever its bytes."""
    return one_line(os.fsencode(path.as_posix()).decode(errors="backslashreplace")).removeprefix("../")


def fingerprint(*arrays: np.ndarray) -> str:
    """A short hash of arrays: what a step compares its input by."""
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def home() -> Path:
    """The folder of the Snakefile above here, relative to here; where there is none, here."""
    here = Path.cwd()
    return Path(
        os.path.relpath(next((p for p in (here, *here.parents) if (p / "Snakefile").is_file()), here))
    )


def place(variable: str, name: str) -> Path:
    """The folder that the environment variable names, else `name` in `home`."""
    return Path(os.environ[variable]).expanduser() if os.environ.get(variable) else home() / name
