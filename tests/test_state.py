"""What decides what the explorer shows."""

import json
import math
import random
import shutil

import numpy as np
import pytest

from oodlib import presets, pretrained
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.labels import MIX_MODES
from oodlib.errors import InputError
from oodlib.explorer.renderer import Renderer
from oodlib.explorer.state import BLEND_FRAMES, State, first_state
from oodlib.runs import Run

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # from inside diffusers

NAMES = ("a", "b", "c")
RUN = pretrained.shipped("digits")


def state(**given):
    return State(**{"class_names": NAMES, "weights": (1.0, 0.0, 0.0), **given})


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, True, "1", None, [1], 1.01, -0.01, 10**400],
    ids=lambda value: str(value)[:6],
)
def test_a_weight_that_is_no_number_from_0_to_1_is_refused(value):
    with pytest.raises(
        InputError, match=r"^weights\[1\] = .*, expected a number from 0 to 1(, without quotes .*)?$"
    ):
        state(weights=(1.0, value, 0.0))


@pytest.mark.parametrize("weights", [(), (1.0, 0.0), (1.0, 0.0, 0.0, 0.0)])
def test_another_number_of_weights_than_of_classes_is_refused(weights):
    with pytest.raises(InputError, match=rf"^{len(weights)} weights for 3 classes; give one for each$"):
        state(weights=weights)


@pytest.mark.parametrize(
    "name, value",
    [
        ("mix", "mask"),
        ("mix", None),
        ("scheduler", "euler"),
        ("scheduler", ["unipc"]),
        ("seed", -1),
        ("seed", True),
        ("seed", 1.0),
        ("seed", None),
        ("seed", 2**31 + 1),
        ("guidance_scale", 20.1),
        ("guidance_scale", math.nan),
        ("guidance_scale", math.inf),
        pytest.param("guidance_scale", 10**400, id="guidance_scale-1000..."),
        ("guidance_scale", "2"),
        ("guidance_scale", True),
        ("guidance_scale", None),
        ("num_inference_steps", 0),
        ("num_inference_steps", 1001),
        ("num_inference_steps", 8.0),
        ("num_inference_steps", None),
        ("lock_noise", 1),
        ("lock_noise", None),
        ("lock_noise", "false"),
        ("detector", 3),
        ("detector", ["arcface, seed 0"]),
        ("frame", -1),
        ("frame", BLEND_FRAMES),
        ("frame", 1.0),
        ("frame", True),
        ("frame", None),
        ("step", -1),
        ("step", 9),
        ("step", math.nan),
    ],
)
def test_a_value_of_another_type_or_out_of_range_is_refused_by_its_name(name, value):
    with pytest.raises(InputError, match=f"^{name} "):
        state(**{name: value})


@pytest.mark.parametrize("value", [3, -1, 1.0, True, "1", None])
def test_a_blend_with_no_such_class_is_refused(value):
    with pytest.raises(InputError, match=r"^blend\[1\] = "):
        state(blend=(0, value))


@pytest.mark.parametrize("blend", [(1, 1), (), (0,), (0, 1, 2)])
def test_a_blend_of_other_than_two_distinct_classes_is_refused(blend):
    with pytest.raises(InputError, match="expected two distinct classes"):
        state(blend=blend)


@pytest.mark.parametrize(
    "given",
    [
        {"weights": (0, 1, 1)},
        {"seed": 2**31},
        {"guidance_scale": 0},
        {"guidance_scale": 20},
        {"num_inference_steps": 1000, "step": 1000},
        {"frame": BLEND_FRAMES - 1},
        {"blend": (2, 0)},
    ],
)
def test_the_ends_of_every_range_are_accepted(given):
    assert state(**given).model_dump().items() >= given.items()


def test_json_round_trip_is_exact():
    given = state(
        weights=(0.1 + 0.2, 1 / 3, 5e-324),
        mix="slerp",
        seed=123456789,
        lock_noise=False,
        guidance_scale=0.1 + 0.7,
        num_inference_steps=21,
        scheduler="dpmsolver++",
        detector="ärcface, seed 0",
        blend=(2, 0),
        frame=9,
        step=20,
    )
    assert State.from_json(given.to_json(), NAMES) == given


def test_json_round_trip_of_a_thousand_random_weights_is_exact():
    draw = random.Random(0)
    names = tuple(map(str, range(1000)))
    given = State(class_names=names, weights=tuple(draw.random() for _ in names))
    assert State.from_json(given.to_json(), names) == given


def test_json_round_trip_without_a_detector():
    assert State.from_json(state(detector=None).to_json(), NAMES).detector is None


def edited(**values):
    return json.dumps({**json.loads(state().to_json()), **values})


@pytest.mark.parametrize("text", ["", "{", "weights", state().to_json()[:-1], "9" * 5000])
def test_what_is_not_json_is_refused(text):
    with pytest.raises(InputError, match=r"^this state is not JSON"):
        State.from_json(text, NAMES)


@pytest.mark.parametrize("text", ["3", "null", "[]", '"state"', "{}"])
def test_json_of_something_else_is_refused(text):
    with pytest.raises(
        InputError, match=r"^this state is not the explorer's; it needs exactly class_names, wei"
    ):
        State.from_json(text, NAMES)


@pytest.mark.parametrize("name", State.model_fields)
def test_a_missing_key_is_refused(name):
    values = json.loads(state().to_json())
    del values[name]
    with pytest.raises(InputError, match=f"it needs exactly .*{name}"):
        State.from_json(json.dumps(values), NAMES)


def test_a_key_too_many_is_refused():
    with pytest.raises(InputError, match="it needs exactly"):
        State.from_json(edited(colour="red"), NAMES)


def test_a_state_for_other_classes_is_refused():
    with pytest.raises(
        InputError, match=r"is for classes \['a', 'b', 'c'\], but the denoiser draws \['a', 'x'"
    ):
        State.from_json(state().to_json(), ("a", "x", "c"))


@pytest.mark.parametrize("name", ["weights", "blend"])
@pytest.mark.parametrize("value", ["010", None, 3, {"0": 1}])
def test_what_must_be_a_list_is_refused_otherwise(name, value):
    with pytest.raises(InputError, match=f"^{name} = .*, expected a list$"):
        State.from_json(edited(**{name: value}), NAMES)


@pytest.mark.parametrize("value", [math.nan, math.inf, True, None, "0.5", 2])
def test_a_weight_in_json_that_is_none_is_refused(value):
    with pytest.raises(InputError, match=r"^weights\[0\] = "):
        State.from_json(edited(weights=[value, 0.0, 0.0]), NAMES)


@pytest.mark.parametrize(
    "name", ["seed", "mix", "guidance_scale", "num_inference_steps", "scheduler", "frame"]
)
@pytest.mark.parametrize("value", [True, None, {}])
def test_a_value_in_json_of_another_type_is_refused(name, value):
    with pytest.raises(InputError, match=f"^{name} "):
        State.from_json(edited(**{name: value}), NAMES)


# The first.


@pytest.mark.parametrize(
    "detectors, detector",
    [
        (["softmax, seed 0", "arcface, seed 3"], "arcface, seed 3"),
        (["softmax, seed 0", "arcface, seed 0"], "softmax, seed 0"),
        ([], None),
    ],
)
def test_the_first_state_has_two_classes_and_the_settings_detector_or_another(detectors, detector):
    settings = presets.make_settings(head="arcface", seed=3, mix="slerp", num_inference_steps=5)
    assert first_state(NAMES, settings, detectors) == State(
        class_names=NAMES,
        weights=(1.0, 0.0, 1.0),
        mix="slerp",
        seed=3,
        num_inference_steps=5,
        detector=detector,
        blend=(0, 2),
        step=5,
    )


# Python that draws the same.


@pytest.fixture(scope="module")
def renderer():
    return Renderer(Denoiser.load(RUN.denoiser), {})


@pytest.fixture
def copied(tmp_path):
    """A copy of the shipped run."""
    return Run(str(shutil.copytree(RUN.folder, tmp_path / "run")))


def run_code(code):
    namespace = {}
    exec(code, namespace)
    return namespace["images"]


def digits(**given):
    """A state of the shipped denoiser."""
    return State(**{"class_names": tuple("01234567"), **given})


CODED = digits(
    weights=(0.1 + 0.2, 0.0, 0.0, 1.0, 0.0, 1 / 3, 0.0, 0.0),
    mix="slerp",
    seed=9,
    guidance_scale=2.5,
    num_inference_steps=6,
    scheduler="dpmsolver++",
)


def test_the_code_draws_the_same_images_with_what_ships(renderer):
    images = run_code(CODED.code('pretrained.shipped("digits").denoiser'))
    assert np.array_equal(images, renderer.draw(CODED).images)


def test_the_code_draws_the_same_images_with_a_runs_folder(renderer, copied):
    images = run_code(CODED.code(repr(str(copied.denoiser))))
    assert np.array_equal(images, renderer.draw(CODED).images)


def test_the_code_shifts_the_images_too(renderer):
    chosen = CODED.model_copy(update={"shift": "noisy"})
    images = run_code(chosen.code('pretrained.shipped("digits").denoiser'))
    assert np.array_equal(images, renderer.draw(chosen).images)


@pytest.mark.parametrize("mix", MIX_MODES)
def test_the_code_draws_the_same_images_for_whole_numbers(renderer, mix):
    chosen = digits(weights=(1, 0, 0, 1, 0, 0, 0, 0), mix=mix, num_inference_steps=2)
    images = run_code(chosen.code('pretrained.shipped("digits").denoiser'))
    assert np.array_equal(images, renderer.draw(chosen).images)
