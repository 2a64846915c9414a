"""The mark of a finished step: by which settings it was made, and which files, with size and hash.

A file's name alone would keep a step for ever whose files an accident left empty or cut.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from oodlib.files import Damaged, reading, shown, write_json

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
