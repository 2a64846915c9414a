"""A step of a run and its mark: by which settings it was made, and which files, with size and hash.

A file's name alone would keep a step for ever whose files an accident left empty or cut.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from oodlib.errors import tell
from oodlib.files import Damaged, lock, reading, shown, try_writing, write_json
from oodlib.settings import OFF

FILES = {  # of each step, its mark not among them
    "denoiser": ("denoiser.safetensors", "denoiser.json", "history.csv"),
    "generator": ("generator.csv",),
    "pool": ("pool.npz", "purity.csv"),
    "detector": ("detector.safetensors", "detector.json", "history.csv"),
    "statistics": ("scores.safetensors", "scores.json"),
    "tables": ("scores.csv", "metrics.csv", "alarms.csv", "validation.csv"),
    "denoiser_tables": ("scores.json", "scores.csv", "metrics.csv", "alarms.csv"),
}
MARKS = ("settings.json", "fitted.json", "scored.json")  # of a detector's three steps; others have the first
AGAIN = "it is made again"  # what a step says of a file that is not as it was made


class Stamp(BaseModel):
    """What a file is known by."""

    size: int
    blake2b: str

    @classmethod
    def of(cls, path: Path) -> Self:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
        return cls(size=path.stat().st_size, blake2b=digest.hexdigest())


class Mark(BaseModel):
    """What a step was made with, and its files by name."""

    model_config = ConfigDict(extra="forbid")

    settings: dict[str, Any]
    files: dict[str, Stamp]

    @classmethod
    def of(cls, folder: Path, files: Iterable[str], settings: Mapping[str, Any]) -> Self:
        """The mark for files that lie in `folder`."""
        return cls(settings=settings, files={name: Stamp.of(folder / name) for name in files})

    @classmethod
    def read(cls, path: Path, advice: str) -> Self:
        """Read what `write` wrote.

        Raises:
            Damaged: It is missing or damaged; ends in `advice`.
        """
        with reading(path, advice):
            return cls.model_validate_json(path.read_bytes())

    def write(self, path: Path) -> None:
        """Write as JSON, atomically."""
        write_json(path, self.model_dump(mode="json"))

    def check(self, folder: Path, advice: str) -> None:
        """Raise `Damaged`, which ends in `advice`, if one of the files in `folder` is not as it was made."""
        for name, stamp in self.files.items():
            path = folder / name
            with reading(path, advice):
                size = path.stat().st_size
                if size != stamp.size:  # which is seen without reading the file
                    raise Damaged(
                        f"{shown(path)} has {size} bytes, and {stamp.size} when it was made; {advice}"
                    )
                if Stamp.of(path) != stamp:
                    raise Damaged(f"{shown(path)} was changed after it was made; {advice}")


@dataclass(frozen=True)
class Step:
    """A step of a run: the files that it makes in a folder, and a mark that says by which settings.

    The mark is the last file written, and taken away before anything is written, so that no mark ever stands beside
    the files of another attempt.
    """

    folder: Path
    files: tuple[str, ...]
    settings: Mapping[str, Any]
    """Flat: settings and fingerprints of all inputs, by name."""
    mark: str = MARKS[0]

    @contextmanager
    def todo(self) -> Iterator[bool]:
        """Whether the step is still to be done, for a block that does it and calls `finish`.

        Meanwhile no other process does a step in this folder: it waits, and takes what was made.

        Raises:
            InputError: The step is to be done, and the folder cannot be written.
        """
        # A finished run may lie where no lock can be made, hence a look without one.
        is_missing = self._reason() is not None
        with self._alone() if is_missing else nullcontext():
            reason = self._reason() if is_missing else None
            if reason is None:
                path = shown(self.folder.joinpath(*self.files[:1]))
                tell(f"{path} was made with these settings and is kept; delete it to redo it")
            else:
                if reason:
                    tell(reason)
                (self.folder / self.mark).unlink(missing_ok=True)
            yield reason is not None

    def _reason(self) -> str | None:
        """Why the step is to be done; empty where it never was, None where it is done.

        A setting that a mark lacks was off when it was made (`settings.OFF`).
        """
        path = self.folder / self.mark
        if not path.exists():
            return ""
        try:
            made = Mark.read(path, AGAIN)
            wanted, settings = json.loads(json.dumps(self.settings)), made.settings
            names = sorted(settings.keys() | wanted.keys())
            other = [n for n in names if settings.get(n, OFF.get(n)) != wanted.get(n, OFF.get(n))]
            if other:
                return f"{shown(path)} tells of other {', '.join(other)}; {AGAIN}"
            made.check(self.folder, AGAIN)
        except Damaged as damaged:
            return str(damaged)
        return None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try_writing(self.folder)
        with lock(self.folder):
            yield

    def finish(self) -> None:
        """Mark the step as done, and remove its checkpoints."""
        Mark.of(self.folder, self.files, self.settings).write(self.folder / self.mark)
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
