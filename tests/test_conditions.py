"""Names of what a detector was trained with."""

import itertools
import subprocess
import sys

import pytest

from oodlib.conditions import (
    NOISE_LEVELS,
    REPEATED,
    STRENGTH,
    STUDY,
    condition,
    parse,
    references,
    takes_denoiser,
)
from oodlib.errors import InputError
from oodlib.outliers.sources import SOURCES
from oodlib.presets import make_settings
from oodlib.reports.names import NAMES, label
from oodlib.runs import Run
from oodlib.settings import DetectorTraining


@pytest.mark.parametrize("name", STUDY)
def test_a_condition_of_the_study_stands_for_settings_that_have_its_name(name):
    settings = make_settings(**parse(name))
    assert condition(settings) == name and settings.outliers == name.split("+")[0]
    assert bool(settings.noise_levels) == ("+noise" in name)
    assert (settings.degrade > 0) == ("+degraded" in name)


@pytest.mark.parametrize("levels", [(), (0.3, 1.0), (0.0, 1.0), (0.25, 0.75), (0.0, 0.125)])
@pytest.mark.parametrize("strength", [0.0, 1.0, 0.5, 0.05, 1.25, 2.0])
def test_settings_have_a_name_that_stands_for_them(levels, strength):
    settings = make_settings(outliers="cmg", noise_levels=levels, degrade=strength)
    again = make_settings(**parse(condition(settings)))
    assert (again.outliers, again.noise_levels, again.degrade) == ("cmg", levels, strength)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("none", {"outliers": "none"}),
        ("none+degraded", {"outliers": "none", "degrade": 1.0}),
        ("none+degraded0.5", {"outliers": "none", "degrade": 0.5}),
        ("cmg+noise", {"outliers": "cmg", "noise_levels": [0.3, 1.0]}),
        ("none+augmix", {"outliers": "none", "augmentation": "augmix"}),
        ("cmg+degraded+pixmix", {"outliers": "cmg", "degrade": 1.0, "augmentation": "pixmix"}),
        ("cmg+noise0-0.5", {"outliers": "cmg", "noise_levels": [0.0, 0.5]}),
        ("cmg+noise0-0.5+degraded2", {"outliers": "cmg", "noise_levels": [0.0, 0.5], "degrade": 2.0}),
    ],
)
def test_names_by_hand(name, expected):
    off = {"noise_levels": [], "degrade": 0.0, "augmentation": "none"}  # whatever a preset has
    assert parse(name) == off | expected
    assert condition(DetectorTraining(**expected)) == name


def test_words_stand_for_the_usual_levels_and_strength():
    assert parse("real+noise+degraded") == {
        "outliers": "real",
        "noise_levels": list(NOISE_LEVELS),
        "degrade": STRENGTH,
        "augmentation": "none",
    }


@pytest.mark.parametrize(
    "name",
    [
        "",
        "mixup",
        "+noise",
        "+degraded",
        "none+",
        "none+softer",
        "none+degraded+degraded",
        "cmg+degraded+noise",
        "cmg+noise0.5",
        "cmg+noise0.5-",
        "none+degraded-1",
        "none+degraded1e-3",
        "none degraded",
        "none+degraded\n",
        "None",
        "label mixup",
    ],
)
def test_a_name_of_no_condition_is_refused_on_one_line(name):
    with pytest.raises(
        InputError, match=r"outliers .*(expected a source|is not known; choose one of none|is written )"
    ) as error:
        parse(name)
    assert "\n" not in str(error.value)


def test_the_study_has_each_condition_once_and_what_is_repeated_among_them():
    assert len(set(STUDY)) == len(STUDY) and set(REPEATED) <= set(STUDY)


def test_only_what_depends_on_a_denoiser_is_repeated_with_others():
    assert all(map(takes_denoiser, REPEATED))


@pytest.mark.parametrize(
    "name, needs",
    [
        *(("none", False), ("vos", False), ("double_batch", False), ("real+degraded", False)),
        *(("training_images+noise", False), ("pixel_mixup+noise+degraded", False)),
        *(("label_mixup", True), ("placebo+degraded", True), ("regenerated", True), ("early_stopped", True)),
    ],
)
def test_what_takes_a_denoiser(name, needs):
    assert takes_denoiser(name) is needs


def test_what_takes_a_denoiser_is_asked_of_a_name_that_is_known():
    with pytest.raises(InputError, match="outliers 'dust' is not known"):
        takes_denoiser("dust+degraded")


def test_a_placebo_is_a_source_that_mixes_no_labels():
    placebos = {name: source.placebo for name, source in SOURCES.items() if source.placebo}
    assert placebos["label_mixup"] == "placebo" and placebos["distant_mixup"] == "distant_placebo"
    assert set(placebos.values()) <= set(SOURCES)
    assert not any(SOURCES[placebo].mixes_labels for placebo in placebos.values())


def test_a_placebo_differs_from_its_source_in_twins_alone():
    for name in ("label_mixup", "distant_mixup"):
        source, placebo = SOURCES[name], SOURCES[SOURCES[name].placebo]
        assert placebo.draw is source.draw and placebo.settings == {**source.settings, "twins": "outliers"}


def test_the_placebo_of_every_mixture_of_the_study_is_in_it_with_the_same_done_to_images():
    for name in STUDY:
        source, *done = name.split("+")
        if SOURCES[source].mixes_labels:
            assert "+".join([SOURCES[source].placebo, *done]) in STUDY


@pytest.mark.parametrize(
    "name, expected",
    [
        ("none", {}),
        ("none+degraded", {"none": "none"}),
        ("none+degraded0.5", {"none": "none"}),
        ("real", {"none": "none"}),
        ("real+degraded0.5", {"none": "none", "degraded": "none+degraded0.5"}),
        ("placebo", {"none": "none"}),
        ("cmg", {"none": "none", "placebo": "placebo"}),
        (
            "distant_mixup+noise+degraded",
            {"none": "none", "degraded": "none+degraded", "placebo": "distant_placebo+noise+degraded"},
        ),
        ("pixel_mixup+noise", {"none": "none", "placebo": "training_images+noise"}),
    ],
)
def test_what_a_condition_is_compared_with(name, expected):
    assert references(name) == expected


def test_what_a_condition_is_compared_with_is_a_condition_with_a_reference_of_its_own():
    for name in STUDY:
        for other in references(name).values():
            assert condition(make_settings(**parse(other))) == other and other != name


def test_conditions_have_folders_of_their_own_and_names_of_their_own_on_screen():
    folders = {Run("run").detector("arcface", name, 0) for name in STUDY}
    assert {folder.parent.name for folder in folders} == {f"arcface-{name}" for name in STUDY}
    assert len({label(name) for name in STUDY}) == len(STUDY)
    assert set(SOURCES) <= set(NAMES)


def test_the_names_of_the_study_need_no_heavy_import():
    code = "import sys, oodlib.conditions; print({'torch', 'diffusers', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("source", [name for name, source in SOURCES.items() if source.draw is None])
def test_noise_levels_are_no_part_of_the_name_where_there_are_no_images_of_outliers(source):
    """A preset may have them for every source."""
    settings = DetectorTraining(outliers=source, noise_levels=(0.3, 1.0), degrade=1.0)
    assert condition(settings) == f"{source}+degraded"


def test_no_two_settings_share_a_name():
    levels, strengths = ((), (0.3, 1.0), (0.0, 0.3), (0.3, 0.9)), (0.0, 0.1, 1.0, 1.1)
    names = [
        condition(DetectorTraining(outliers="cmg", noise_levels=window, degrade=strength))
        for window, strength in itertools.product(levels, strengths)
    ]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("source", [name for name, source in SOURCES.items() if source.draw is None])
def test_levels_of_a_preset_are_no_part_of_a_condition_without_images(source):
    assert condition(DetectorTraining(outliers=source, noise_levels=(0.3, 1.0))) == source
