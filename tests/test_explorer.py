"""The explorer without a browser: its widgets are set from Python as a front end would set them."""

import base64
import gc
import html
import io
import json
import random
import re
import shutil
import sys
import threading
import time
import weakref
from types import SimpleNamespace

import ipywidgets as w
import numpy as np
import psutil
import pytest
import torch
from matplotlib import _pylab_helpers
from PIL import Image

from oodlib import presets, pretrained
from oodlib.conditions import condition
from oodlib.detection.detector import Detector
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.sample import sample
from oodlib.errors import InputError
from oodlib.explorer import Explorer, kernel
from oodlib.explorer import widget as module
from oodlib.explorer.state import BLEND_FRAMES, IMAGES, MAX_SEED, State
from oodlib.explorer.view import sheet
from oodlib.reports.names import label
from oodlib.runs import Run

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning"),  # from inside diffusers
]

RUN = pretrained.shipped("digits")
DEFAULT = condition(presets.make_settings())
DETECTOR = "arcface, seed 0"
STEPS = 5
BLEND, DENOISING, PAIRS, EXPORT = range(4)
WIDGETS = w.widgets.widget._instances
FIRST = State(
    class_names=tuple("01234567"),
    weights=(1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    num_inference_steps=STEPS,
    detector=DETECTOR,
    blend=(0, 7),
    step=STEPS,
)


def settings(**given):
    return presets.make_settings(num_inference_steps=STEPS, **given)


@pytest.fixture(autouse=True)
def no_drafts(monkeypatch):
    """However slow this machine is, every drawing is in full, but where a test wants drafts."""
    monkeypatch.setattr(module, "DRAFT_ABOVE_S", float("inf"))


@pytest.fixture(scope="module")
def opened():
    with Explorer(RUN, settings()) as explorer:
        yield explorer


@pytest.fixture
def explorer(opened):
    """The explorer of all these tests in its first state, its first tab open."""
    opened.controls.tab.selected_index = BLEND
    opened.state = FIRST
    return opened


@pytest.fixture
def drawn(explorer, monkeypatch):
    """The states drawn from here on, and the numbers of steps asked for."""
    states = []
    draw = explorer._renderer.draw

    def noting(state, steps=None, **options):
        states.append((state, steps))
        return draw(state, steps, **options)

    monkeypatch.setattr(explorer._renderer, "draw", noting)
    return states


@pytest.fixture
def copied(tmp_path):
    return Run(str(shutil.copytree(RUN.folder, tmp_path / "run")))


def weights(explorer):
    return [slider.value for slider in explorer.controls.weights]


def one_hot(*classes):
    return [float(c in classes) for c in range(8)]


def button(explorer, description, nth=0):
    found = [b for b in tree(explorer) if isinstance(b, w.Button) and b.description == description]
    return found[nth]


def tree(explorer):
    return list(explorer.controls.all())


def pixels(picture: w.Image) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture.value)))


def shown(explorer):
    """The 8 images as they stand in the widgets' PNGs."""
    rows = [pixels(picture) for picture in explorer.controls.pictures]
    return np.stack([row[:8, 9 * i : 9 * i + 8, :1] for row in rows for i in range(4)])


def text(widget):
    return re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", widget.value)).strip()


def wait(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


# It opens.


def test_it_opens_on_the_presets_settings_with_two_classes(opened):
    with Explorer(RUN, settings(mix="slerp", seed=4, scheduler="ddim", guidance_scale=2.0)) as explorer:
        assert explorer.state == State(
            **{
                **vars(FIRST),
                "mix": "slerp",
                "seed": 4,
                "scheduler": "ddim",
                "guidance_scale": 2.0,
                # the run holds a detector of seed 0 alone
                "detector": DETECTOR,
            }
        )


def test_all_its_pictures_are_there_as_it_opens(opened):
    with Explorer(RUN, settings()) as explorer:
        assert np.array_equal(shown(explorer), explorer._drawing.images)
        assert explorer.controls.blend.strip.value and explorer.controls.blend.frame_picture.value
        assert all(image.value for image in explorer.controls.histograms.images.values())


def test_a_run_without_a_denoiser_is_told_the_notebook(tmp_path):
    with pytest.raises(InputError, match="01_train_ddpm"):
        Explorer(Run(str(tmp_path)), settings())


def test_a_run_without_detectors_opens_and_says_so(copied):
    shutil.rmtree(copied.detectors)
    with Explorer(copied, settings()) as explorer:
        assert explorer.state.detector is None
        assert explorer.controls.detector.label == "none in this run: see notebook 3"
        assert explorer.render().shape == (IMAGES, 8, 8, 1)
        for tab in range(4):
            explorer.controls.tab.selected_index = tab
        assert "ms" in text(explorer.controls.message)


def test_a_detector_of_one_kind_alone_hides_the_other_histogram(copied):
    shutil.rmtree(copied.detectors / f"arcface-{DEFAULT}")
    with Explorer(copied, settings()) as explorer:
        visible = {kind: box.layout.visibility for kind, box in explorer.controls.histograms.boxes.items()}
    assert visible == {"none": "visible", DEFAULT: "hidden"}


def test_an_explorer_that_cannot_open_leaves_nothing_behind(copied):
    config = copied.detector("arcface", "none", 0) / "detector.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "class_names": list("abcdefgh")}))
    before, interval = set(WIDGETS), sys.getswitchinterval()
    with pytest.raises(InputError, match=r"has class_names \['a'"):
        Explorer(copied, settings())
    assert set(WIDGETS) == before
    assert sys.getswitchinterval() == interval


# Sliders.


def test_a_slider_draws_what_it_says(explorer):
    explorer.controls.weights[3].value = 0.4
    assert explorer._drawn.weights == (1.0, 0.0, 0.0, 0.4, 0.0, 0.0, 0.0, 1.0)
    expected = sample(
        explorer._renderer.denoiser,
        torch.tensor([explorer._drawn.weights] * IMAGES),
        num_inference_steps=STEPS,
    )
    assert np.array_equal(explorer._drawing.images, expected)
    assert np.array_equal(shown(explorer), expected)


def test_a_slider_never_moves_another(explorer):
    for i, value in enumerate([0.3, 0.9, 1.0, 0.0, 0.5, 0.25, 0.75, 0.1]):
        before = weights(explorer)
        explorer.controls.weights[i].value = value
        assert weights(explorer) == [*before[:i], value, *before[i + 1 :]]


def test_one_change_is_one_drawing(explorer, drawn):
    explorer.controls.weights[3].value = 0.4
    assert len(drawn) == 1


def test_a_pure_class_is_the_plain_sampler_bit_for_bit(explorer):
    button(explorer, "only", 4).click()
    expected = sample(explorer._renderer.denoiser, torch.eye(8)[[4] * IMAGES], num_inference_steps=STEPS)
    assert np.array_equal(shown(explorer), expected)


def test_captions_tell_each_detectors_verdict_of_each_image(explorer):
    explorer.controls.weights[3].value = 0.4
    for row, caption in enumerate(explorer.controls.captions):
        cells = caption.value.split("<div>")[1:]
        assert len(cells) == 4
        for column, cell in enumerate(cells):
            i = 4 * row + column
            for kind, verdict in explorer._drawing.verdicts.items():
                word = "OOD" if verdict.is_ood[i] else "ID"
                label = "without" if kind == "none" else "with"
                named = " ".join(
                    f"{c} {p:.0%}" for c, p in zip(verdict.top[i], verdict.probabilities[i], strict=True)
                )
                said = html.unescape(re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", cell)))
                sign = "<" if word == "OOD" else "≥"
                compared = f"{verdict.scores[i]:.2f}{sign}{verdict.threshold:.2f}"
                assert f"{label} {word} {compared} {named}" in said


def test_marks_stand_at_the_scores_of_the_images(explorer):
    before = {kind: mark.value for kind, mark in explorer.controls.histograms.marks.items()}
    explorer.controls.weights[3].value = 0.4
    for kind, mark in explorer.controls.histograms.marks.items():
        places = [float(p) for p in re.findall(r"calc\(([\d.]+)%", mark.value)]
        order = np.argsort(explorer._drawing.verdicts[kind].scores, kind="stable")
        assert len(places) == IMAGES and mark.value != before[kind]
        assert (np.diff(np.array(places)[order]) >= 0).all()
        assert 0 < min(places) < max(places) < 100


def test_the_time_of_a_drawing_is_shown(explorer):
    assert text(explorer.controls.message) == (
        f"8 samples in {1000 * explorer._drawing.seconds:.0f} ms, {STEPS} steps"
    )


# Buttons.


def test_zero_sets_all_weights_to_0_and_says_unconditional(explorer, drawn):
    button(explorer, "zero").click()
    assert weights(explorer) == [0.0] * 8
    assert len(drawn) == 1
    assert text(explorer.controls.label) == "All weights are 0: no class, the unconditional sample"


def test_zero_draws_the_unconditional_sample(explorer):
    button(explorer, "zero").click()
    expected = sample(explorer._renderer.denoiser, torch.zeros(IMAGES, 8), num_inference_steps=STEPS)
    assert np.array_equal(shown(explorer), expected)


def test_equal_sets_all_weights_to_1(explorer, drawn):
    button(explorer, "equal").click()
    assert weights(explorer) == [1.0] * 8
    assert len(drawn) == 1


@pytest.mark.parametrize("label", range(8))
def test_only_sets_one_class_alone(explorer, label):
    button(explorer, "only", label).click()
    assert weights(explorer) == one_hot(label)


def test_random_pair_sets_two_classes_to_1(explorer):
    seen = set()
    for _ in range(8):
        button(explorer, "random pair").click()
        assert sorted(weights(explorer)) == [0.0] * 6 + [1.0] * 2
        seen.add(tuple(weights(explorer)))
    assert len(seen) > 1


def test_what_the_denoiser_is_given_stands_in_words(explorer):
    explorer.controls.mix.value = "convex"
    assert text(explorer.controls.label) == "convex: the denoiser is given 0: 0.50, 7: 0.50"


@pytest.mark.parametrize(
    "name, value",
    [
        ("mix", "convex"),
        ("mix", "slerp"),
        ("seed", 3),
        ("guidance", 3.0),
        ("steps", 2),
        ("scheduler", "ddim"),
    ],
)
def test_every_control_of_sampling_draws_anew(explorer, name, value):
    before = shown(explorer)
    getattr(explorer.controls, name).value = value
    assert not np.array_equal(shown(explorer), before)
    assert np.array_equal(shown(explorer), explorer.render())


def test_without_a_detector_nothing_is_said(explorer):
    explorer.controls.detector.value = None
    assert all(
        "ID" not in caption.value and "OOD" not in caption.value for caption in explorer.controls.captions
    )


# Noise.


def test_locked_noise_stays_when_weights_change(explorer):
    explorer.controls.weights[3].value = 0.4
    button(explorer, "equal").click()
    assert explorer.state.seed == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda e: setattr(e.controls.weights[3], "value", 0.4),
        lambda e: setattr(e.controls.mix, "value", "convex"),
        lambda e: button(e, "equal").click(),
        lambda e: button(e, "only", 2).click(),
    ],
    ids=["slider", "mix", "equal", "only"],
)
def test_unlocked_noise_advances_by_one_when_weights_change(explorer, drawn, change):
    explorer.controls.lock_noise.value = False
    drawn.clear()
    change(explorer)
    assert explorer.state.seed == 1
    assert [state.seed for state, _ in drawn] == [1]


@pytest.mark.parametrize(
    "change",
    [
        lambda e: setattr(e.controls.guidance, "value", 3.0),
        lambda e: setattr(e.controls.steps, "value", 3),
        lambda e: setattr(e.controls.blend.frame, "value", 3),
    ],
    ids=["guidance", "steps", "frame"],
)
def test_unlocked_noise_stays_when_something_else_changes(explorer, change):
    explorer.controls.lock_noise.value = False
    change(explorer)
    assert explorer.state.seed == 0


@pytest.mark.parametrize("locked", [True, False])
def test_re_roll_draws_the_next_noise(explorer, drawn, locked):
    explorer.controls.lock_noise.value = locked
    drawn.clear()
    button(explorer, "re-roll").click()
    assert [state.seed for state, _ in drawn] == [1]
    assert weights(explorer) == one_hot(0, 7)


# Tabs.


def test_the_blend_tab_shows_eleven_frames(explorer):
    assert pixels(explorer.controls.blend.strip).shape == (8, 9 * BLEND_FRAMES - 1, 4)
    assert explorer.controls.blend.strip_captions.value.count("<div>") == BLEND_FRAMES


def test_the_blend_line_has_a_mark_where_the_first_detector_is_torn(explorer):
    way = re.search(r"left: ([\d.]+)%.*?title=\"(\d+)% of the way", explorer.controls.blend.tie.value)
    assert 0 < int(way[2]) < 100
    assert float(way[1]) == pytest.approx(50 / BLEND_FRAMES + int(way[2]) * (1 - 1 / BLEND_FRAMES), abs=1)


def test_a_shift_is_judged_and_shown(explorer):
    def darkest():
        shown = pixels(explorer.controls.pictures[0])
        return shown[shown[..., 3] == 255].min()

    assert darkest() < 20
    explorer.controls.shift.value = "lifted"
    assert darkest() >= 20
    assert explorer.state.shift == "lifted"


def test_the_frame_slider_picks_a_frame_without_drawing(explorer, drawn):
    for i in (0, 10, 4):
        explorer.controls.blend.frame.value = i
        assert np.array_equal(
            pixels(explorer.controls.blend.frame_picture),
            pixels(explorer.controls.blend.strip)[:, 9 * i : 9 * i + 8],
        )
        assert f"0 to 7: {10 * i}% of the way" in text(explorer.controls.blend.frame_caption)
    assert drawn == []


def test_another_pair_draws_another_blend(explorer):
    before = explorer.controls.blend.strip.value
    explorer.controls.blend.pair[0].value = 3
    assert explorer.controls.blend.strip.value != before
    expected = explorer._renderer.blend(explorer.state).images
    assert np.array_equal(explorer._blend.images, expected)
    assert "3 to 7" in text(explorer.controls.blend.frame_caption)


def test_weights_do_not_draw_the_blend_again(explorer, monkeypatch):
    monkeypatch.setattr(explorer._renderer, "blend", lambda state: pytest.fail("drawn again"))
    explorer.controls.weights[3].value = 0.4
    assert "error" not in explorer.controls.message.value


@pytest.mark.parametrize("moved, other", [(0, 1), (1, 0)])
def test_a_blend_never_has_one_class_twice(explorer, moved, other):
    was = explorer.controls.blend.pair[moved].value
    explorer.controls.blend.pair[moved].value = explorer.controls.blend.pair[other].value
    assert explorer.controls.blend.pair[other].value == was
    assert sorted(explorer.state.blend) == [0, 7]
    assert "error" not in explorer.controls.message.value


def test_the_denoising_tab_shows_every_step(explorer):
    explorer.controls.tab.selected_index = DENOISING
    for i in range(STEPS + 1):
        explorer.controls.denoising.step.value = i
        assert np.array_equal(
            pixels(explorer.controls.denoising.step_picture), sheet(explorer._drawing.steps[i], IMAGES)
        )
        assert text(explorer.controls.denoising.step_caption) == (
            "pure noise" if i == 0 else f"after step {i} of {STEPS}"
        )


def test_the_denoising_tab_shows_the_clean_pictures_that_are_predicted_from_each_step(explorer):
    explorer.controls.tab.selected_index = DENOISING
    denoising = explorer.controls.denoising
    for i in range(STEPS + 1):
        denoising.step.value = i
        assert np.array_equal(pixels(denoising.clean_picture), sheet(explorer._drawing.clean[i], IMAGES))
        assert text(denoising.clean_caption) == (
            "the pictures themselves"
            if i == STEPS
            else "the clean pictures that the denoiser predicts from those above"
        )
    assert np.array_equal(pixels(denoising.clean_picture), pixels(denoising.step_picture))


def test_the_denoising_tab_follows_the_weights(explorer):
    explorer.controls.tab.selected_index = DENOISING
    denoising = explorer.controls.denoising
    before = denoising.step_picture.value, denoising.clean_picture.value
    explorer.controls.weights[3].value = 0.4
    assert denoising.step_picture.value != before[0] and denoising.clean_picture.value != before[1]


@pytest.mark.parametrize("steps", [3, 20])
def test_the_step_slider_ends_at_the_number_of_steps(explorer, steps):
    explorer.controls.tab.selected_index = DENOISING
    explorer.controls.steps.value = steps
    assert (explorer.controls.denoising.step.max, explorer.controls.denoising.step.value) == (steps, steps)
    assert text(explorer.controls.denoising.step_caption) == f"after step {steps} of {steps}"


def test_the_pairs_tab_is_filled(explorer):
    explorer.controls.tab.selected_index = PAIRS
    found = explorer._renderer.pair_matrix(explorer.state)
    for (a, b), cell in explorer.controls.pairs.cells.items():
        matrix, threshold = found["none" if a <= b else DEFAULT]
        assert cell.description == f"{matrix[a, b]:.2f}"
        assert ("OOD" in cell.tooltip) == (cell.style.font_weight == "bold") == (matrix[a, b] < threshold)
    assert f"Above the diagonal: no outliers. Below: {label(DEFAULT)}." in text(
        explorer.controls.pairs.legend
    )


@pytest.mark.parametrize("cell", [(2, 5), (5, 2), (4, 4)])
def test_a_pressed_cell_sets_the_sliders(explorer, drawn, cell):
    explorer.controls.tab.selected_index = PAIRS
    explorer.controls.pairs.cells[cell].click()
    assert weights(explorer) == one_hot(*cell)
    assert len(drawn) == 1


# Export and restore.


def test_the_exported_picture_holds_the_images(explorer):
    explorer.controls.tab.selected_index = EXPORT
    link = re.search(
        r'download="label_mixup.png" href="data:image/png;base64,([^"]+)"',
        explorer.controls.export.links.value,
    )
    large = np.asarray(Image.open(io.BytesIO(base64.b64decode(link[1]))))
    assert np.array_equal(large[::16, ::16], sheet(explorer._drawing.images, 4))
    assert min(large.shape[:2]) > 128


def test_the_exported_file_is_the_state(explorer):
    explorer.controls.tab.selected_index = EXPORT
    link = re.search(r'href="data:application/json;base64,([^"]+)"', explorer.controls.export.links.value)
    assert State.from_json(base64.b64decode(link[1]).decode(), explorer.class_names) == explorer.state


def test_the_exported_text_restores_everything_exactly(explorer):
    given = State(
        class_names=explorer.class_names,
        weights=(0.1 + 0.2, 1 / 3, 0.0, 1.0, 0.123456789, 0.5, 0.0, 1e-9),
        mix="slerp",
        seed=MAX_SEED,
        lock_noise=False,
        guidance_scale=0.1 + 0.7,
        num_inference_steps=7,
        scheduler="dpmsolver++",
        detector=None,
        blend=(6, 2),
        frame=9,
        step=4,
    )
    explorer.state = given
    explorer.controls.tab.selected_index = EXPORT
    exported, images = explorer.controls.export.json.value, shown(explorer)
    explorer.state = FIRST
    explorer.controls.export.json.value = exported
    button(explorer, "restore this state").click()
    assert explorer.state == given
    assert np.array_equal(shown(explorer), images)


@pytest.mark.parametrize(
    "change",
    [
        lambda e: setattr(e.controls.weights[3], "value", 0.4),
        lambda e: setattr(e.controls.lock_noise, "value", False),
        lambda e: setattr(e.controls.steps, "value", 3),
        lambda e: button(e, "re-roll").click(),
    ],
    ids=["slider", "lock", "steps", "re-roll"],
)
def test_the_exported_text_follows_the_widgets(explorer, change):
    explorer.controls.tab.selected_index = EXPORT
    change(explorer)
    assert State.from_json(explorer.controls.export.json.value, explorer.class_names) == explorer.state


def test_the_exported_code_draws_the_same_images(explorer):
    explorer.controls.tab.selected_index = EXPORT
    explorer.controls.weights[3].value = 0.4
    namespace = {}
    exec(explorer.controls.export.code.value, namespace)
    assert 'pretrained.shipped("digits")' in explorer.controls.export.code.value
    assert np.array_equal(namespace["images"], shown(explorer))


def test_the_exported_code_of_ones_own_run_draws_the_same_images(copied):
    with Explorer(copied, settings()) as explorer:
        explorer.controls.tab.selected_index = EXPORT
        namespace = {}
        exec(explorer.controls.export.code.value, namespace)
        assert str(copied.denoiser) in explorer.controls.export.code.value
        assert np.array_equal(namespace["images"], shown(explorer))


@pytest.mark.parametrize(
    "given, told",
    [
        ("{", "this state is not JSON"),
        ("[]", "this state is not the explorer"),
        ({"seed": True}, "seed = True"),
        ({"weights": [float("nan")] * 8}, "weights[0] = nan"),
        ({"detector": "arcface, seed 9"}, "detector 'arcface, seed 9' is not in this run"),
        ({"class_names": list("abcdefgh")}, "this state is for classes"),
        ({"blend": [1, 1]}, "expected two distinct classes"),
    ],
)
def test_a_state_that_cannot_be_restored_shows_one_line_and_changes_nothing(explorer, given, told):
    explorer.controls.tab.selected_index = EXPORT
    if isinstance(given, dict):
        given = json.dumps({**json.loads(explorer.controls.export.json.value), "mix": "convex", **given})
    explorer.controls.export.json.value = given
    button(explorer, "restore this state").click()
    assert "oodlib-error" in explorer.controls.message.value
    assert told in html.unescape(text(explorer.controls.message))
    assert "\n" not in explorer.controls.message.value
    assert explorer.state == FIRST


def test_after_a_refused_state_the_explorer_is_usable(explorer):
    explorer.controls.export.json.value = "{"
    button(explorer, "restore this state").click()
    explorer.controls.weights[3].value = 0.4
    assert "oodlib-error" not in explorer.controls.message.value
    assert np.array_equal(shown(explorer), explorer.render())


def test_the_shown_text_of_an_error_is_escaped(explorer):
    explorer.controls.export.json.value = json.dumps(
        {**json.loads(FIRST.to_json()), "detector": "<b onclick='x'>"}
    )
    button(explorer, "restore this state").click()
    assert "<b onclick" not in explorer.controls.message.value


def test_a_state_for_other_classes_cannot_be_set(explorer):
    other = State(**{**vars(FIRST), "class_names": tuple("abcdefgh")})
    with pytest.raises(InputError, match="this state is for classes"):
        explorer.state = other
    assert explorer.state == FIRST


# Errors.


@pytest.fixture
def failing(explorer, monkeypatch):
    """The explorer while a drawing fails where class 3 has a weight."""
    draw = explorer._renderer.draw

    def failing(state, *args, **options):
        if state.weights[3]:
            raise RuntimeError("no\nmemory <here>")
        return draw(state, *args, **options)

    monkeypatch.setattr(explorer._renderer, "draw", failing)
    return explorer


def test_an_error_shows_as_one_line(failing):
    before = shown(failing)
    failing.controls.weights[3].value = 0.4
    assert text(failing.controls.message) == "RuntimeError: no memory &lt;here&gt;"
    assert "\n" not in failing.controls.message.value
    assert np.array_equal(shown(failing), before)


def test_the_next_change_after_an_error_works(failing):
    failing.controls.weights[3].value = 0.4
    failing.controls.weights[3].value = 0.0
    failing.controls.weights[4].value = 0.4
    assert "8 samples" in text(failing.controls.message)
    assert np.array_equal(shown(failing), failing.render())


def test_going_back_to_what_was_drawn_before_an_error_takes_the_error_away(failing):
    failing.controls.weights[3].value = 0.4
    failing.controls.weights[3].value = 0.0
    assert "8 samples" in text(failing.controls.message)


def test_an_error_in_render_is_raised(failing):
    with pytest.raises(RuntimeError):
        failing.state = State(**{**vars(FIRST), "weights": (0.0,) * 3 + (1.0,) + (0.0,) * 4})


@pytest.mark.parametrize("tab, method", [(BLEND, "blend"), (PAIRS, "pair_matrix")], ids=["blend", "pairs"])
def test_an_error_in_a_tab_shows_as_one_line(explorer, monkeypatch, tab, method):
    explorer.controls.tab.selected_index = DENOISING

    def fail(state):
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(explorer._renderer, method, fail)
        explorer.controls.seed.value = 77 + tab
        explorer.controls.tab.selected_index = tab
    assert text(explorer.controls.message) == "RuntimeError: no memory"
    explorer.controls.weights[3].value = 0.4
    assert "8 samples" in text(explorer.controls.message)


def test_a_deleted_checkpoint_shows_as_one_line(copied):
    shutil.copytree(copied.detector("arcface", "none", 0), copied.detector("softmax", "none", 0))
    with Explorer(copied, settings()) as explorer:
        (copied.detector("softmax", "none", 0) / "detector.safetensors").unlink()
        explorer.controls.detector.value = "softmax, seed 0"
        assert "holds no detector.safetensors" in text(explorer.controls.message)
        explorer.controls.detector.value = DETECTOR
        assert "8 samples" in text(explorer.controls.message)


# Threads.


def test_two_threads_end_with_the_images_of_the_final_state(explorer):
    errors = []

    def hammer(sliders, seed):
        draw = random.Random(seed)
        try:
            for _ in range(12):
                draw.choice(sliders).value = draw.random()
        except Exception as error:
            errors.append(error)

    threads = [
        threading.Thread(target=hammer, args=[explorer.controls.weights[start::2], start]) for start in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert "8 samples" in text(explorer.controls.message)
    assert explorer._drawn == explorer.state
    before = shown(explorer)
    assert np.array_equal(before, explorer.render())


def test_a_change_during_a_drawing_is_drawn_after_it(explorer, monkeypatch):
    began, go_on, draw = threading.Event(), threading.Event(), explorer._renderer.draw

    def slow(*args, **options):
        began.set()
        assert go_on.wait(20)
        return draw(*args, **options)

    monkeypatch.setattr(explorer._renderer, "draw", slow)
    threads = [
        threading.Thread(target=setattr, args=[explorer.controls.weights[i], "value", 0.5]) for i in (3, 4)
    ]
    threads[0].start()
    assert began.wait(20)
    threads[1].start()
    wait(lambda: explorer.controls.weights[4].value == 0.5)
    go_on.set()
    for thread in threads:
        thread.join()
    assert explorer._drawn.weights[3:5] == (0.5, 0.5)


def test_changes_that_waited_together_are_drawn_once(explorer, drawn):
    threads = [
        threading.Thread(target=setattr, args=[slider, "value", 0.5])
        for slider in explorer.controls.weights[1:7]
    ]
    with explorer._lock:
        for thread in threads:
            thread.start()
        wait(lambda: all(slider.value == 0.5 for slider in explorer.controls.weights[1:7]))
    for thread in threads:
        thread.join()
    assert [state.weights for state, _ in drawn] == [(1.0, *[0.5] * 6, 1.0)]


# Drafts.


@pytest.fixture
def slow(explorer, monkeypatch):
    """The explorer on a machine so slow that it draws drafts, which are refined when a test says so."""
    monkeypatch.setattr(module, "DRAFT_ABOVE_S", -1.0)
    monkeypatch.setattr(module, "REST_S", 1000.0)
    yield explorer
    explorer._timer.cancel()


def test_a_slow_drawing_is_first_drawn_in_few_steps(slow):
    slow.controls.weights[3].value = 0.4
    assert len(slow._drawing.steps) == module.DRAFT_STEPS + 1
    assert text(slow.controls.message).endswith(f"ms, draft, {module.DRAFT_STEPS} steps")
    assert np.array_equal(shown(slow), slow._renderer.draw(slow.state, module.DRAFT_STEPS).images)


def test_at_rest_it_is_drawn_in_full(slow, monkeypatch):
    monkeypatch.setattr(module, "REST_S", 0.01)
    slow.controls.weights[3].value = 0.4
    wait(lambda: not slow._is_draft)
    with slow._lock:
        refined = shown(slow)
    assert text(slow.controls.message).endswith(f"ms, {STEPS} steps")
    assert np.array_equal(refined, slow.render())


def test_a_draft_is_not_refined_once_something_newer_was_drawn(slow, drawn):
    slow.controls.weights[3].value = 0.4
    old = slow._drawn
    slow.controls.weights[3].value = 0.5
    drawn.clear()
    slow._refine(old)
    assert drawn == []


def test_a_newer_change_takes_the_place_of_the_timer(slow):
    slow.controls.weights[3].value = 0.4
    first = slow._timer
    slow.controls.weights[3].value = 0.5
    assert first.finished.is_set()
    assert not slow._timer.finished.is_set()


def test_refining_gives_way_to_a_newer_change(slow):
    slow.controls.weights[3].value = 0.4
    slow._is_newer.set()
    slow._refine(slow._drawn)
    assert slow._is_draft
    slow._is_newer.clear()


def test_render_draws_in_full(slow):
    slow.controls.weights[3].value = 0.4
    slow.render()
    assert len(slow._drawing.steps) == STEPS + 1


def test_a_drawing_of_few_steps_is_not_drafted(slow):
    slow.controls.weights[3].value = 0.4
    slow.controls.steps.value = module.DRAFT_STEPS
    assert not slow._is_draft


def test_a_fast_drawing_is_not_drafted(explorer):
    explorer.controls.weights[3].value = 0.4
    assert not explorer._is_draft


# Closing.


@pytest.fixture
def shared_models(monkeypatch):
    """Models read once for many explorers."""
    for kind in (Denoiser, Detector):
        read, held = kind.load, {}
        monkeypatch.setattr(
            kind,
            "load",
            lambda folder, device, read=read, held=held: (
                held.get(folder) or held.setdefault(folder, read(folder, device))
            ),
        )


@pytest.mark.slow
def test_a_hundred_explorers_opened_and_closed_leave_no_widgets_and_memory_flat(shared_models, copied):
    shutil.rmtree(copied.detectors)  # one in ten has detectors, whose histograms take half of the time
    before, opened, memory = set(WIDGETS), [], {}
    for i in range(100):
        with Explorer(copied if i % 10 else RUN, presets.make_settings(num_inference_steps=1)) as explorer:
            assert len(WIDGETS) > len(before) + 300
            opened.append(weakref.ref(explorer))
        del explorer
        if i in (29, 99):
            gc.collect()
            memory[i] = psutil.Process().memory_info().rss
    assert set(WIDGETS) == before
    assert [ref for ref in opened if ref() is not None] == []
    assert memory[99] - memory[29] < 20 * 2**20  # all of them kept would take 170 MiB


def test_closing_cancels_the_refinement(monkeypatch):
    monkeypatch.setattr(module, "REST_S", 1000.0)
    with Explorer(RUN, settings()) as explorer:
        monkeypatch.setattr(module, "DRAFT_ABOVE_S", -1.0)
        explorer.controls.weights[3].value = 0.4
        assert explorer._timer.is_alive()
    explorer._timer.join(5)
    assert not explorer._timer.is_alive()


# What stands in a notebook's output.


def test_the_figure_tells_the_state_and_every_verdict(explorer):
    figure = explorer.figure()
    assert figure.get_suptitle() == (
        "sum: the denoiser is given 0: 1.00, 7: 1.00, noise seed 0\n"
        f"arcface, seed 0: no outliers, below: {label(DEFAULT)}"
    )
    titles = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    verdicts = explorer._drawing.verdicts.values()
    assert titles == [
        "\n".join(f"{'OOD' if v.is_ood[i] else 'ID'} {v.scores[i]:.2f} {v.top[i, 0]}" for v in verdicts)
        for i in range(IMAGES)
    ]


def test_the_figure_without_a_detector_has_no_second_line(explorer):
    explorer.controls.detector.value = None
    assert "\n" not in explorer.figure().get_suptitle()


@pytest.mark.parametrize("shell", [None, SimpleNamespace(), SimpleNamespace(kernel=SimpleNamespace())])
def test_outside_a_live_front_end_a_static_picture_stands(explorer, monkeypatch, shell):
    monkeypatch.setattr(kernel, "get_ipython", lambda: shell)
    bundle = explorer._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "image/png"}
    assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).width > 400


def test_in_a_batch_run_a_static_picture_stands(explorer, monkeypatch):
    shell = SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=False))
    monkeypatch.setattr(kernel, "get_ipython", lambda: shell)
    assert set(explorer._repr_mimebundle_()) == {"text/plain", "image/png"}


def test_in_a_live_front_end_the_widgets_stand_too(explorer, monkeypatch):
    shell = SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=True))
    monkeypatch.setattr(kernel, "get_ipython", lambda: shell)
    bundle = explorer._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "image/png", "application/vnd.jupyter.widget-view+json"}
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.widget.model_id
    assert bundle["text/plain"] == "Explorer of the shipped models"


# What it keeps its hands off.


def use_everything(explorer):
    explorer.controls.weights[3].value = 0.4
    explorer.controls.scheduler.value = "ddpm"
    button(explorer, "random pair").click()
    button(explorer, "re-roll").click()
    for tab in range(4):
        explorer.controls.tab.selected_index = tab
    explorer._histograms_drawn = None
    explorer.render()
    explorer._repr_mimebundle_()


def test_no_pyplot_figure_is_left(explorer):
    use_everything(explorer)
    assert _pylab_helpers.Gcf.figs == {}


def test_global_random_states_are_left(explorer):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    use_everything(explorer)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


def test_there_is_no_output_widget_in_it(explorer):
    assert not [widget for widget in tree(explorer) if isinstance(widget, w.Output)]


def test_every_control_has_a_text(explorer):
    kinds = (w.FloatSlider, w.IntSlider, w.Button, w.BoundedIntText, w.Dropdown, w.ToggleButton)
    explorer.controls.tab.selected_index = PAIRS
    assert [c for c in tree(explorer) if isinstance(c, kinds) and not c.description] == []
