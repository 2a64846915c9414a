"""What the explorer asks of ipykernel and of Python itself."""

import sys
from types import SimpleNamespace

import ipywidgets as w
import pytest

from oodlib import presets, pretrained
from oodlib.explorer import Explorer, kernel

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning"),  # from inside diffusers
]

RUN = pretrained.shipped("digits")


@pytest.fixture
def four_milliseconds():
    """Python's switch interval, which is 5 ms unless somebody sets it."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.004)
    yield
    sys.setswitchinterval(before)


def test_python_hands_its_lock_on_fast_while_an_explorer_is_open(four_milliseconds):
    with Explorer(RUN, presets.make_settings()):
        assert sys.getswitchinterval() == pytest.approx(1e-5)
    assert sys.getswitchinterval() == pytest.approx(0.004)


def test_the_last_explorer_to_close_restores_the_switch_interval(four_milliseconds):
    first, second = Explorer(RUN, presets.make_settings()), Explorer(RUN, presets.make_settings())
    first.close()
    assert sys.getswitchinterval() == pytest.approx(1e-5)
    first.close()
    second.close()
    assert sys.getswitchinterval() == pytest.approx(0.004)


@pytest.mark.parametrize(
    "shell, live",
    [
        (None, False),
        (SimpleNamespace(), False),
        (SimpleNamespace(kernel=SimpleNamespace()), False),
        (SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=False)), False),
        (SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=True)), True),
    ],
)
def test_a_front_end_that_can_be_asked_for_input_is_live(monkeypatch, shell, live):
    monkeypatch.setattr(kernel, "get_ipython", lambda: shell)
    assert kernel.is_live() is live


def test_messages_are_answered_on_the_thread_that_the_front_end_asks_for():
    slider = w.FloatSlider()
    kernel.answer_where_asked(slider)
    assert slider.comm._reply_subshell_for({}, "asked") == "asked"
    slider.close()
