"""A notebook's parameters: what is taken from its cells, from papermill and from the run."""

import pytest

from oodlib.errors import InputError
from oodlib.notebook import NOTEBOOKS, parameters, table
from oodlib.presets import make_settings
from oodlib.runs import Run
from oodlib.settings import Settings

PARAMETER_CELL = 'preset = "digits"  # which\nhead = None\nseeds = None'


def test_a_notebook_reads_its_globals():
    namespace = {"In": ["", PARAMETER_CELL], "preset": "digits", "head": "cosface", "seeds": None, "other": 1}
    assert parameters(namespace, "03_train_detector").head == "cosface"


def test_a_kernel_without_a_history_has_parameters_too():
    assert parameters({"preset": "digits", "heads": ["cosface"]}, "04_score_distributions").heads == (
        "cosface",
    )


def test_an_unknown_injected_parameter_is_refused():
    namespace = {"In": ["", PARAMETER_CELL, "# Parameters\nhaed = 'softmax'\n"], "haed": "softmax"}
    with pytest.raises(
        InputError, match=r"'haed' is not known \(did you mean 'head'\?\).*takes .*head, .*preset, .*seeds"
    ):
        parameters(namespace, "03_train_detector")


def test_a_setting_of_another_notebook_is_refused_too():
    namespace = {
        "In": ["", PARAMETER_CELL, "# Parameters\nepochs = 3\n"],
        "epochs": 3,
        "head": None,
        "seeds": None,
    }
    with pytest.raises(InputError, match="'epochs' is not known"):
        parameters(namespace, "04_score_distributions")


def test_a_name_misspelt_in_the_parameter_cell_is_refused():
    namespace = {"In": ["", PARAMETER_CELL + "\nepohcs = 3"], "epohcs": 3}
    with pytest.raises(InputError, match=r"'epohcs' is not known \(did you mean 'epochs'\?\)"):
        parameters(namespace, "03_train_detector")


def injected(**values):
    """What a kernel holds after papermill injected these."""
    cell = "# Parameters\n" + "".join(f"{name} = {value!r}\n" for name, value in values.items())
    return {"In": ["", "preset = None", cell], **values}


def test_a_setting_that_the_notebook_does_not_show_can_be_set_too():
    assert parameters(injected(weight_decay=0.1), "03_train_detector").weight_decay == 0.1


def test_an_option_of_the_head_is_a_parameter():
    chosen = parameters(injected(head="cosface", margin=0.2), "03_train_detector")
    assert chosen.head_options == {"margin": 0.2}


def test_a_name_that_was_misspelt_and_corrected_is_forgiven():
    cells = ["", "preset = None\nepohcs = 3", "preset = None\nepochs = 3"]
    assert parameters({"In": cells, "epohcs": 3, "epochs": 3}, "03_train_detector").epochs == 3


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_all_that_a_notebook_takes_is_a_setting(notebook):
    assert NOTEBOOKS[notebook] <= set(Settings.model_fields)


def test_the_table_tells_every_setting_of_the_notebook_with_its_value_and_meaning():
    rows = table(make_settings(epochs=3), "03_train_detector")
    assert set(rows.index) == NOTEBOOKS["03_train_detector"]
    assert rows.loc["epochs", "value"] == "3.0" and (rows["meaning"].str.len() > 3).all()


@pytest.fixture
def own(tmp_path):
    """A run of CIFAR-10's smoke profile with pictures of one's own."""
    name = f"{tmp_path}/own"
    Run(name).claim(
        make_settings(
            preset="cifar10", profile="smoke", run=name, id_data="pictures", image_shape=[16, 16, 3]
        )
    )
    return name


def test_what_the_run_says_of_itself_takes_the_place_of_the_presets_values(own):
    chosen = parameters(injected(run=own), "03_train_detector")
    assert (chosen.preset, chosen.profile, chosen.id_data) == ("cifar10", "smoke", "pictures")
    assert (
        chosen.image_shape == (16, 16, 3)
        and chosen.epochs == make_settings(preset="cifar10", profile="smoke").epochs
    )


@pytest.mark.parametrize(
    "values", [{"preset": "digits"}, {"profile": "full"}, {"id_data": "others"}, {"image_shape": [32, 32, 3]}]
)
def test_what_is_not_of_the_run_is_refused(own, values):
    name = next(iter(values))
    with pytest.raises(InputError, match=f"{name} = .* was made with {name} = .*; choose another run"):
        parameters(injected(run=own, **values), "03_train_detector")


def test_a_list_given_as_text_is_that_of_the_run(own):
    assert parameters(injected(run=own, image_shape="[16, 16, 3]"), "03_train_detector").image_shape == (
        16,
        16,
        3,
    )


def test_settings_are_checked_beside_those_of_the_runs_own_preset(own):
    chosen = parameters(
        injected(run=own, block_out_channels=[8, 8, 8, 8], attention_levels=[3]), "01_train_ddpm"
    )
    assert (chosen.preset, chosen.attention_levels, chosen.run) == ("cifar10", (3,), own)


def test_a_profile_of_another_preset_is_told_to_be_another_runs(own):
    with pytest.raises(InputError, match=r"profile = 'cpu', but .* was made with profile = 'smoke'"):
        parameters(injected(run=own, profile="cpu"), "01_train_ddpm")


def test_a_run_keeps_its_name_whatever_it_says_of_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("OODLIB_RUNS", str(tmp_path))
    Run("digits").claim(make_settings(profile="smoke"))
    chosen = parameters({"In": ["", PARAMETER_CELL], "preset": None}, "03_train_detector")
    assert (chosen.run, chosen.profile) == ("digits", "smoke")


@pytest.mark.parametrize("name", [2024, 1e5, True, ["mine"], ""])
def test_a_run_that_is_no_text_is_told_how_to_give_it(name):
    with pytest.raises(InputError, match=r"^run = .* expected a text") as error:
        parameters(injected(run=name), "05_compare")
    assert not name or "-r run 007 with papermill" in str(error.value)


@pytest.mark.parametrize("name", ["007", "2024_01", "$(touch x)", 'my run\'s "x"', "None"])
def test_a_run_may_have_any_name(name, tmp_path, monkeypatch):
    monkeypatch.setenv("OODLIB_RUNS", str(tmp_path))
    assert parameters(injected(run=name), "05_compare").run == name
