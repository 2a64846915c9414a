"""Models in files: tensors as `<name>.safetensors`, and what they are as `<name>.json` beside it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator
from safetensors.torch import load_file, save_file
from torch import Tensor

from oodlib import files
from oodlib.checks import Checked
from oodlib.errors import InputError
from oodlib.files import DAMAGE, Damaged, atomic, read_json, write_json
from oodlib.settings import DenoiserModel, DetectorModel


class _Of(BaseModel):
    """What a JSON file says of its model, beside the settings in it."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _OfImages(_Of):
    class_names: Annotated[list[str], Field(min_length=1)]
    image_shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=3, max_length=3)]


class _OfDetector(_OfImages):
    mean: list[FiniteFloat]
    std: list[Annotated[FiniteFloat, Field(gt=0)]]
    background: Literal["white", "black"] = "white"
    network: str

    @model_validator(mode="after")
    def _one_a_channel(self) -> Self:
        if not len(self.mean) == len(self.std) == self.image_shape[2]:
            raise ValueError(f"mean and std are of {len(self.mean)} and {len(self.std)} channels")
        return self


class _OfScores(_Of):
    network: str
    tpr: Annotated[float, Field(gt=0, le=1)] | None
    # A score of -inf has its place in an order; NaN has none.
    thresholds: Annotated[dict[str, Annotated[float, Field(ge=float("-inf"))]], Field(min_length=1)]


# Of each kind of model: what its file says, the settings beside that, and the notebook that makes it.
KINDS: dict[str, tuple[type[_Of], type[Checked] | None, str]] = {
    "denoiser": (_OfImages, DenoiserModel, "01_train_ddpm"),
    "detector": (_OfDetector, DetectorModel, "03_train_detector"),
    "scores": (_OfScores, None, "03_train_detector"),
}


def write(folder: Path, name: str, about: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write both files of a kind of model, each atomically, the JSON last."""
    with atomic(folder / f"{name}.safetensors") as part:
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, part)
    write_json(folder / f"{name}.json", about)


@contextmanager
def reading(folder: Path, name: str) -> Iterator[tuple[dict[str, Any], dict[str, Tensor]]]:
    """What `write` wrote, for a block in which whatever is wrong with it becomes an `InputError` of one line.

    Args:
        name: In `KINDS`.
    """
    about_file, tensor_file = folder / f"{name}.json", folder / f"{name}.safetensors"
    advice = f"delete the folder and make it again with notebook {KINDS[name][2]}"
    for file in (about_file, tensor_file):
        with suppress(PermissionError):  # which is told when the file is read
            if not file.is_file():
                raise InputError(f"{folder} holds no {file.name}; train one with notebook {KINDS[name][2]}")
    with files.reading(about_file, advice):
        about = read_json(about_file)
        wrong = _wrong(name, about)
        if wrong:
            raise Damaged(f"{about_file} is damaged or of another version of oodlib; {advice} ({wrong})")
    with files.reading(tensor_file, advice):
        tensors = load_file(tensor_file)
    try:
        yield about, tensors
    except InputError as error:
        if str(folder) in str(error):
            raise
        raise InputError(f"{about_file}: {error}") from error
    except DAMAGE as error:
        raise Damaged(
            f"{tensor_file} does not fit {about_file.name}, it is damaged or of another version of oodlib; {advice}"
        ) from error


def _wrong(name: str, about: dict[str, Any]) -> str | None:
    """What is wrong with the content of a JSON file, None if nothing is; a setting that it lacks was off."""
    of_model, settings, _ = KINDS[name]
    of_settings = {n: v for n, v in about.items() if settings and n in settings.model_fields}
    try:
        of_model(**{n: v for n, v in about.items() if n not in of_settings})
        if settings:
            settings(**of_settings)
    except ValidationError as failure:
        error = failure.errors()[0]
        return f"{'.'.join(map(str, error['loc'])) or name}: {error['msg']}"
    except InputError as error:
        return str(error)
    return None
