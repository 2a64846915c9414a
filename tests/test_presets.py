"""Settings: the defaults are valid, and every wrong parameter is one clear line."""

import subprocess
import sys

import pytest

from oodlib import device, presets
from oodlib.detection import backbones, heads
from oodlib.diffusion import labels, schedule
from oodlib.errors import InputError

PARAMETER_CELL = 'preset = "digits"  # which\nhead = None\nseeds = None'


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_every_preset_is_valid(preset):
    assert presets.settings(preset=preset).preset == preset


def test_none_takes_the_presets_value_and_a_value_replaces_it():
    assert presets.settings(epochs=None).epochs == presets.PRESETS["digits"]["epochs"]
    assert presets.settings(epochs=3).epochs == 3


@pytest.mark.parametrize("native", ["fp32", "bf16"])
def test_cifar10_is_computed_in_what_the_device_is_fast_at(native, monkeypatch):
    monkeypatch.setattr(device, "native_precision", lambda device: native)
    assert presets.settings(preset="cifar10").precision == native
    assert presets.settings(preset="cifar10", precision="fp32").precision == "fp32"
    assert presets.settings(preset="digits").precision == "fp32"


def test_the_run_is_named_after_the_preset():
    assert presets.settings().run == "digits"


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
        ("denoiser_steps", 0, "of at least 1"),
        ("head", "arc", "one of softmax, scaled_cosine, adacos, arcface, cosface, sphereface"),
        ("heads", ["arc"], "one of softmax"),
        ("heads", ["softmax", "softmax"], "without repetitions"),
        ("outliers", "mixup", "one of none, label_mixup"),
        ("preset", "digit", "one of digits"),
        ("seeds", [], "a list that is not empty"),
        ("seeds", [0, 0], "without repetitions"),
        ("seeds", [-1], "of at least 0"),
        ("seeds", "0, 1", "a list, such as"),
        ("seeds", 3, "a list"),
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
    ],
)
def test_a_wrong_value_is_one_line_with_what_was_given_and_expected(name, value, expected):
    with pytest.raises(InputError) as error:
        presets.settings(**{name: value})
    message = str(error.value)
    assert message.startswith(name) and expected in message and "\n" not in message


def test_an_unknown_name_is_refused_with_a_suggestion():
    with pytest.raises(InputError, match=r"'epoch' is not known \(did you mean 'epochs'\?\)"):
        presets.settings(epoch=3)


def test_a_list_given_as_text_on_the_command_line_is_read():
    assert presets.settings(seeds="[0, 5]", heads="['softmax']").seeds == (0, 5)


def test_image_shapes_may_repeat_a_number():
    assert presets.settings(image_shape=[32, 32, 3]).image_shape == (32, 32, 3)


def test_a_notebook_reads_its_globals():
    namespace = {"In": ["", PARAMETER_CELL], "preset": "digits", "head": "cosface", "seeds": None, "other": 1}
    assert presets.from_notebook(namespace).head == "cosface"


def test_an_unknown_injected_parameter_is_refused():
    namespace = {"In": ["", PARAMETER_CELL, "# Parameters\nhaed = 'softmax'\n"], "haed": "softmax"}
    with pytest.raises(
        InputError, match=r"'haed' is not known \(did you mean 'head'\?\).*takes head, preset, seeds"
    ):
        presets.from_notebook(namespace)


def test_a_setting_of_another_notebook_is_refused_too():
    namespace = {"In": ["", PARAMETER_CELL, "# Parameters\nepochs = 3\n"], "epochs": 3}
    with pytest.raises(InputError, match="'epochs' is not known"):
        presets.from_notebook(namespace)


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
        presets.settings(**given)


def test_levels_of_equal_width_are_allowed():
    assert presets.settings(block_out_channels=[64, 64]).block_out_channels == (64, 64)


def test_a_name_misspelt_in_the_parameter_cell_is_refused():
    namespace = {"In": ["", PARAMETER_CELL + "\nepohcs = 3"], "epohcs": 3}
    with pytest.raises(InputError, match=r"'epohcs' is not known \(did you mean 'epochs'\?\)"):
        presets.from_notebook(namespace)


def test_head_options_are_only_those_given():
    assert presets.settings(scale=32).head_options == {"scale": 32.0}
    assert presets.settings().head_options == {}


def test_choices_agree_with_the_modules_that_they_name():
    rules = {name: rule.metadata["rule"] for name, rule in presets.Settings.__dataclass_fields__.items()}
    assert tuple(heads.HEADS) == presets.HEADS
    assert all(head.default_score == presets.OWN_SCORE[name] for name, head in heads.HEADS.items())
    for name, known in [
        ("mix", labels.MIX_MODES),
        ("scheduler", schedule.SCHEDULERS),
        ("backbone", backbones.BACKBONES),
    ]:
        with pytest.raises(InputError) as error:
            rules[name](name, "other")
        assert str(error.value).split("one of ")[1].split(", ") == list(known)


def test_checking_parameters_needs_no_heavy_import():
    code = "import sys, oodlib.presets; print({'torch', 'diffusers', 'sklearn', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_kind_of_outliers_brings_its_settings_and_given_ones_win():
    assert presets.settings(outliers="impure_mixup").confidence == (0.0, 0.9)
    assert presets.settings(outliers="impure_mixup", confidence=[0.2, 0.8]).confidence == (0.2, 0.8)
    assert presets.settings(outliers="label_mixup").confidence is None


def test_kinds_of_outliers_change_known_settings_only():
    for kind in presets.OUTLIERS:
        assert set(presets.OUTLIERS[kind]) <= set(presets.Settings.__dataclass_fields__)
        assert presets.settings(outliers=kind).outliers == kind
