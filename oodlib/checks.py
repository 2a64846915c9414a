"""Checked values, where a wrong one is an `InputError` of one line: what was given and what was expected."""

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, Self

from pydantic import BaseModel as Model
from pydantic import ConfigDict, ValidationError, create_model

from oodlib.errors import InputError


class Expected(ValueError):
    """A value is refused; its text says what was expected."""


class Checked(Model):
    """Values that are checked when they are given, and do not change afterwards.

    Raises:
        InputError: A value has the wrong type or is out of range, or a name is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as failure:
            raise _in_one_line(failure, type(self)) from None

    def replaced(self, **values: Any) -> Self:
        """The same with other values, which are not checked."""
        return self.model_copy(update=values)


def _in_one_line(failure: ValidationError, model: type[Checked]) -> InputError:
    error = failure.errors()[0]
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return cause
    name, *place = error["loc"]
    if error["type"] == "extra_forbidden":
        return unknown(name, model.model_fields)
    schema = model.model_json_schema()["properties"][name]
    expected = str(cause) if cause else _in_words(_item(schema, len(place)))
    value = error["input"]
    hint = ", without quotes and as 1.0e-4 in YAML" if "number" in expected and isinstance(value, str) else ""
    place = "".join(f"[{index}]" for index in place)
    return InputError(f"{name}{place} = {value!r} ({type(value).__name__}), expected {expected}{hint}")


def unknown(name: str, names: Collection[str]) -> InputError:
    """The error for a parameter that does not exist, with the nearest that does."""
    close = difflib.get_close_matches(name, names, n=1)
    suggestion = f" (did you mean {close[0]!r}?)" if close else ""
    return InputError(f"parameter {name!r} is not known{suggestion}")


def options(function: Callable) -> dict[str, inspect.Parameter]:
    """The keyword options of a class or function: its parameters that have a default."""
    parameters = inspect.signature(function).parameters
    return {name: p for name, p in parameters.items() if p.default is not inspect.Parameter.empty}


def checked_options(function: Callable, values: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword options of `function`, checked by its annotations; those that were not given keep its defaults.

    Raises:
        InputError: As for `Checked`.
    """
    fields = {name: (p.annotation, p.default) for name, p in options(function).items()}
    return create_model("Options", __base__=Checked, **fields)(**values).model_dump(include=set(values))


def _item(schema: dict[str, Any], depth: int) -> dict[str, Any]:
    """The part of a JSON schema for a value, or for what lies `depth` lists below it."""
    for _ in range(depth):
        schema = next(s["items"] for s in schema.get("anyOf", [schema]) if "items" in s)
    return schema.get("anyOf", [schema])[0]


def _in_words(schema: dict[str, Any]) -> str:
    """What a JSON schema allows, such as `a whole number from 0 to 8`."""
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    if "multipleOf" in schema:
        return f"a multiple of {schema['multipleOf']}"
    match schema.get("type"):
        case "boolean":
            return "True or False (on the command line: -p NAME True)"
        case "integer" if "maximum" not in schema:
            return f"a whole number of at least {schema['minimum']}"
        case "integer":
            return f"a whole number from {schema['minimum']} to {schema['maximum']}"
        case "number":
            low = (
                f"from {schema['minimum']}" if "minimum" in schema else f"above {schema['exclusiveMinimum']}"
            )
            return f"a number {low} to {schema['maximum']}"
        case "array":
            return "a list"
        case "object":
            return "values by name, such as {margin: 0.4}"
        case other:
            return f"a value of type {other}"
