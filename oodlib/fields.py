"""Types of settings, with their ranges: what a value may be, and how a text is read as one."""

import ast
import importlib
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from oodlib.checks import Expected


def _as_tuple(value: object) -> tuple:
    """A list; `-p seeds '[0]'` arrives as text, and is read as Python writes it. One value is a list of one."""
    if isinstance(value, str) and value.strip().startswith(("[", "(")):
        try:
            value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise Expected('a list, such as [0, 1] or ["a", "b"]') from None
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def not_empty(values: tuple) -> tuple:
    if not values:
        raise Expected("a list that is not empty")
    return values


def distinct(values: tuple) -> tuple:
    if len(set(values)) < len(values):
        raise Expected("a list without repetitions")
    return values


def _text(value: object) -> str:
    if not isinstance(value, str):  # what looks like a number is read as one, 007 as 7
        raise Expected(
            "a text: in quotes in a notebook, as -r run 007 with papermill, as the path run=runs/007 with Snakemake"
        )
    if not value.strip():
        raise Expected("a text that is not empty")
    return value


def square(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 3 or shape[0] != shape[1] or shape[0] % 8 or shape[2] not in (1, 3):
        raise Expected("[size, size, channels] with size a multiple of 8 and 1 or 3 channels")
    return shape


def name_in(registry: str) -> PlainValidator:
    """A name in a registry, such as `oodlib.detection.heads:HEADS`."""

    def check(value: object) -> str:
        module, name = registry.split(":")
        names = getattr(importlib.import_module(module), name)
        if not isinstance(value, str) or value not in names:
            raise Expected(f"one of {', '.join(names)}")
        return value

    return PlainValidator(check, json_schema_input_type=str)


def window(low: float, high: float, or_none: bool = False) -> Any:
    """Two ends, or, if that is allowed, an empty list for none."""

    def check(ends: tuple[float, ...]) -> tuple[float, ...]:
        is_empty = or_none and not ends
        if not is_empty and (len(ends) != 2 or ends[0] >= ends[1]):
            empty = ", or [] for none" if or_none else ""
            raise Expected(f"[lowest, highest], the first below the second, from {low:g} to {high:g}{empty}")
        return ends

    ends = tuple[Annotated[float, Field(strict=True, ge=low, le=high)], ...]
    return Annotated[ends, BeforeValidator(_as_tuple), AfterValidator(check)]


LIST = BeforeValidator(_as_tuple)
Count = Annotated[int, Field(strict=True, ge=1)]
Number = Annotated[int, Field(strict=True, ge=0)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
PositiveShare = Annotated[float, Field(strict=True, gt=0, le=1)]
Dropout = Annotated[float, Field(strict=True, ge=0, le=0.9)]
Rate = Annotated[float, Field(strict=True, gt=0, le=10)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, PlainValidator(_text, json_schema_input_type=str)]
Epochs = Annotated[float, Field(strict=True, gt=0, le=100_000)]
Seeds = Annotated[tuple[Number, ...], LIST, AfterValidator(not_empty), AfterValidator(distinct)]
HeadName = Annotated[str, name_in("oodlib.detection.heads:HEADS")]
BackboneName = Annotated[str, name_in("oodlib.detection.backbones:BACKBONES")]
MixMode = Annotated[str, name_in("oodlib.diffusion.labels:MIX_MODES")]
SchedulerName = Annotated[str, name_in("oodlib.diffusion.schedule:SCHEDULERS")]
InferenceSteps = Annotated[int, Field(strict=True, ge=1, le=1000)]
Guidance = Annotated[float, Field(strict=True, ge=0, le=20)]
