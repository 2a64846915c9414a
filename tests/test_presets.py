"""Settings: the defaults are valid, and every wrong parameter is one clear line."""

import subprocess
import sys

import pytest

from oodlib import device, presets
from oodlib import settings as module
from oodlib.datasets import load_ood
from oodlib.errors import InputError
from oodlib.outliers.sources import SOURCES
from oodlib.settings import Settings, StepSettings


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_every_preset_is_valid(preset):
    assert presets.make_settings(preset=preset).preset == preset


def test_none_takes_the_presets_value_and_a_value_replaces_it():
    assert presets.make_settings(epochs=None).epochs == Settings().epochs
    assert presets.make_settings(epochs=3).epochs == 3


@pytest.mark.parametrize("native", ["fp32", "bf16"])
def test_cifar10_is_computed_in_what_the_device_is_fast_at(native, monkeypatch):
    monkeypatch.setattr(device, "native_precision", lambda device: native)
    assert presets.make_settings(preset="cifar10").precision == native
    assert presets.make_settings(preset="cifar10", precision="fp32").precision == "fp32"
    assert presets.make_settings(preset="digits").precision == "fp32"


def test_the_run_is_named_after_the_preset():
    assert presets.make_settings().run == "digits"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("flip", "false", "True or False"),
        ("flip", 1, "True or False"),
        ("learning_rate", "1e-4", "a number above 0 to 10, without quotes"),
        ("learning_rate", 0, "above 0"),
        ("learning_rate", float("nan"), "a number"),
        ("learning_rate", True, "a number"),
        ("denoiser_steps", "100", "a whole number"),
        ("denoiser_steps", 100.0, "a whole number"),
        ("denoiser_steps", -1, "of at least 0"),
        ("head", "arc", "one of softmax, scaled_cosine, adacos, arcface, cosface, sphereface"),
        ("heads", ["arc"], "one of softmax"),
        ("heads", ["softmax", "softmax"], "without repetitions"),
        ("outliers", "mixup", "one of none, label_mixup"),
        ("preset", "digit", "one of digits"),
        ("seeds", [], "a list that is not empty"),
        ("seeds", [0, 0], "without repetitions"),
        ("seeds", [-1], "of at least 0"),
        ("seeds", "0, 1", "a whole number"),
        ("seeds", "[0, 1", "a list, such as"),
        ("tpr", 95, "from 0.5 to 1"),
        ("run", "", "not empty"),
        ("image_shape", [8, 8], "[size, size, channels]"),
        ("image_shape", [9, 9, 1], "multiple of 8"),
        ("image_shape", [8, 8, 2], "1 or 3 channels"),
        ("block_out_channels", [12, 24], "a multiple of 8"),
        ("preset", ["digits"], "one of digits"),
        ("num_inference_steps", 1001, "from 1 to 1000"),
        ("margin", -0.1, "from 0 to 10"),
        ("confidence", [0.9, 0.1], "[lowest, highest], the first below the second, from 0 to 1"),
        ("confidence", [0.1], "[lowest, highest]"),
        ("confidence", [0, 1.5], "a number from 0 to 1"),
        ("distance", [3, 1], "the first below the second, from 0 to 1000"),
        ("keep_share", 0, "a number above 0 to 1"),
        ("mixed_classes", 1, "of at least 2"),
        ("degrade", -0.1, "a number from 0 to 2"),
        ("degrade", 3.0, "a number from 0 to 2"),
        (
            "noise_levels",
            [0.5, 0.5],
            "[lowest, highest], the first below the second, from 0 to 1, or [] for none",
        ),
        ("noise_levels", [0.3, 1.1], "a number from 0 to 1"),
        ("clean_share", 1.5, "a number from 0 to 1"),
        ("twins", "both", "id"),
    ],
)
def test_a_wrong_value_is_one_line_with_what_was_given_and_expected(name, value, expected):
    with pytest.raises(InputError) as error:
        presets.make_settings(**{name: value})
    message = str(error.value)
    assert message.startswith(name) and expected in message and "\n" not in message


def test_an_unknown_name_is_refused_with_a_suggestion():
    with pytest.raises(InputError, match=r"'epoch' is not known \(did you mean 'epochs'\?\)"):
        presets.make_settings(epoch=3)


def test_a_list_given_as_text_on_the_command_line_is_read():
    assert presets.make_settings(seeds="[0, 5]", heads="['softmax']").seeds == (0, 5)


def test_images_of_another_shape_are_tested_on_sets_that_come_in_any():
    other = dict(id_data="birds/", image_shape=[16, 16, 3])
    assert presets.make_settings(**other).ood_sets == presets.OF_ANY_SHAPE
    assert presets.make_settings(**other, ood_sets=["gaussian"]).ood_sets == ("gaussian",)
    assert presets.make_settings(id_data="digits.npz").ood_sets == presets.make_settings().ood_sets
    sets = load_ood(presets.OF_ANY_SHAPE, (16, 16, 3))
    assert {of_set.images.shape[1:] for of_set in sets} == {(16, 16, 3)}


def test_image_shapes_may_repeat_a_number():
    assert presets.make_settings(image_shape=[32, 32, 3]).image_shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"head": "softmax", "scale": 16}, "softmax has no scale; arcface, cosface, sphereface have"),
        ({"head": "sphereface", "margin": 0.5}, "expected 1 or more"),
        ({"block_out_channels": [8, 8, 8, 8, 8]}, "give fewer levels"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        presets.make_settings(**given)


@pytest.mark.parametrize("source", [name for name, source in SOURCES.items() if source.draw is None])
def test_noise_levels_need_a_source_with_images(source):
    told = f"^noise_levels change images of outliers, and outliers = '{source}' has none$"
    with pytest.raises(InputError, match=told):
        presets.make_settings(outliers=source, noise_levels=[0.3, 1.0])
    assert presets.make_settings(outliers=source, degrade=1.0).noise_levels == ()


def test_images_of_outliers_may_have_noise_levels():
    assert presets.make_settings(outliers="training_images", noise_levels="[0.3, 1]").noise_levels == (
        0.3,
        1.0,
    )


def test_levels_of_equal_width_are_allowed():
    assert presets.make_settings(block_out_channels=[64, 64]).block_out_channels == (64, 64)


def test_head_options_are_only_those_given():
    assert presets.make_settings(scale=32).head_options == {"scale": 32.0}
    assert presets.make_settings().head_options == {}


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_what_presets_and_profiles_change_is_valid(preset):
    for profile in presets.PROFILES[preset].values():
        values = presets.PRESETS[preset] | profile
        Settings(**{name: value for name, value in values.items() if name != "precision"})


def test_defaults_are_valid():
    assert Settings(**Settings().model_dump()) == Settings()


def test_no_name_is_a_field_of_two_classes():
    classes = [
        cls for cls in vars(module).values() if isinstance(cls, type) and issubclass(cls, StepSettings)
    ]
    names = [name for cls in classes if cls is not StepSettings for name in cls.__annotations__]
    assert len(names) == len(set(names)) and set(names) == set(Settings.model_fields)


def test_checking_parameters_needs_no_heavy_import():
    code = "import sys, oodlib.presets; print({'torch', 'diffusers', 'sklearn', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_what_a_file_lacks_was_off_when_it_was_made(monkeypatch):
    monkeypatch.setitem(module.OFF, "dropout", 0.5)
    assert module.as_made(module.DenoiserModel, {"seed": 3}).dropout == 0.5
    assert module.as_made(module.DenoiserModel, {"dropout": 0.1}).dropout == 0.1


def test_a_group_of_a_configuration_has_the_steps_own_settings():
    groups = [set(module.own_fields(step)) for step in module.STEPS]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert module.own_fields("shared") == ["seed", "flip", "precision"]
    assert "head" not in set.union(*groups) and "mix" in module.own_fields("pool")


@pytest.mark.parametrize(
    "text, names",
    [
        ('["/data/Bob\'s pictures"]', ("/data/Bob's pictures",)),
        ("['a', 'b']", ("a", "b")),
        ("('a', 'b')", ("a", "b")),
        (' ["a"]', ("a",)),
        ('["say \\"x\\""]', ('say "x"',)),
    ],
)
def test_a_list_given_as_text_is_read_as_python_writes_it(text, names):
    assert presets.make_settings(ood_sets=text).ood_sets == names


def test_one_value_is_a_list_of_one():
    settings = presets.make_settings(ood_sets="it's mine", seeds=3)
    assert settings.ood_sets == ("it's mine",) and settings.seeds == (3,)


@pytest.mark.parametrize("text", ["['a'", "[/data/a]", "[open('x')]", "(1"])
def test_a_text_that_is_no_list_is_refused(text):
    with pytest.raises(InputError, match=r"^ood_sets = .*expected a list"):
        presets.make_settings(ood_sets=text)
