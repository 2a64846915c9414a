"""A detector's files: tensors as `<name>.safetensors`, and what they are as `<name>.json` beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from oodlib.errors import InputError
from oodlib.files import atomic, read_json, write_json


def write(folder: Path, name: str, about: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write both files, each atomically, the JSON last."""
    with atomic(folder / f"{name}.safetensors") as part:
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, part)
    write_json(folder / f"{name}.json", about)


@contextmanager
def reading(folder: Path, name: str) -> Iterator[tuple[dict[str, Any], dict[str, Tensor]]]:
    """What `write` wrote, for a block in which whatever is wrong with it becomes an `InputError`."""
    for file in (f"{name}.json", f"{name}.safetensors"):
        if not (folder / file).is_file():
            raise InputError(f"{folder} holds no {file}; train one with notebook 03_train_detector")
    try:
        yield read_json(folder / f"{name}.json"), load_file(folder / f"{name}.safetensors")
    except InputError:
        raise
    except (SafetensorError, RuntimeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{name}.json or {name}.safetensors in {folder} is damaged or of another version of oodlib; delete the "
            "folder and make it again with notebook 03_train_detector"
        ) from error
