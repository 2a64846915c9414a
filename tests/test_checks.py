"""Checked values and options: one line that says what was given and what was expected."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from oodlib.checks import Checked, checked_options, options
from oodlib.errors import InputError


class Example(Checked):
    steps: Annotated[int, Field(strict=True, ge=1)] = 1
    level: Annotated[int, Field(strict=True, ge=0, le=3)] = 0
    width: Annotated[int, Field(strict=True, ge=8, multiple_of=8)] = 8
    rate: Annotated[float, Field(strict=True, gt=0, le=1)] | None = None
    flag: Annotated[bool, Field(strict=True)] = False
    mode: Literal["one", "two"] = "one"
    shares: tuple[Annotated[float, Field(strict=True, ge=0, le=1)], ...] | None = None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps = 0 (int), expected a whole number of at least 1"),
        ({"level": 4}, "level = 4 (int), expected a whole number from 0 to 3"),
        ({"width": 12}, "width = 12 (int), expected a multiple of 8"),
        ({"rate": 0}, "rate = 0 (int), expected a number above 0 to 1"),
        (
            {"rate": "1e-4"},
            "rate = '1e-4' (str), expected a number above 0 to 1, without quotes and as 1.0e-4 in YAML",
        ),
        ({"flag": 1}, "flag = 1 (int), expected True or False (on the command line: -p NAME True)"),
        ({"mode": "three"}, "mode = 'three' (str), expected one of one, two"),
        ({"shares": (0.5, 2)}, "shares[1] = 2 (int), expected a number from 0 to 1"),
        ({"step": 1}, "parameter 'step' is not known (did you mean 'steps'?)"),
    ],
)
def test_a_wrong_value_is_told_on_one_line(values, message):
    with pytest.raises(InputError) as error:
        Example(**values)
    assert str(error.value) == message


def test_checked_values_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        Example().steps = 2


def function(count, *, rate: Annotated[float, Field(strict=True, gt=0)] = 0.5, flag: bool = True):
    return count, rate, flag


def test_options_are_the_parameters_with_a_default():
    assert list(options(function)) == ["rate", "flag"]


def test_only_options_that_were_given_are_returned():
    assert checked_options(function, {"rate": 2}) == {"rate": 2.0}


def test_an_option_that_the_function_does_not_have_is_told():
    with pytest.raises(InputError, match=r"parameter 'rat' is not known .did you mean 'rate'"):
        checked_options(function, {"rat": 2})
