"""What the explorer shows for a state, without the explorer."""

import json
import random
import re
import shutil
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest
import torch

from oodlib import pretrained
from oodlib.conditions import condition
from oodlib.datasets.shifts import shifted
from oodlib.detection.detector import Detector
from oodlib.detection.heads import HEADS
from oodlib.diffusion import sample as sample_module
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.labels import MIX_MODES, label_weights, pair_weights
from oodlib.diffusion.sample import sample
from oodlib.diffusion.schedule import SCHEDULERS
from oodlib.errors import InputError
from oodlib.explorer.renderer import (
    MIXTURES_PER_PAIR,
    Drawing,
    Renderer,
    Superseded,
    find_detectors,
    shown_condition,
)
from oodlib.explorer.state import BLEND_FRAMES, IMAGES, State
from oodlib.images import signed_to_uint8
from oodlib.presets import make_settings
from oodlib.runs import Run
from oodlib.settings import DenoiserModel

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning"),  # from inside diffusers
]

NAMES = ("a", "b", "c")
RUN = pretrained.shipped("digits")
DEFAULT = condition(make_settings())
DIGITS = tuple("01234567")
DETECTOR = "arcface, seed 0"
FOLDERS = {outliers: RUN.detector("arcface", outliers, 0) for outliers in ("none", DEFAULT)}


def state(**given):
    return State(**{"class_names": NAMES, "weights": (1.0, 0.0, 0.0), **given})


def digits(*classes, **given):
    """A state of the shipped models with weight 1 on these classes."""
    weights = tuple(float(c in classes) for c in range(8))
    return State(**{"class_names": DIGITS, "weights": weights, "detector": DETECTOR, **given})


@pytest.fixture(scope="module")
def denoiser():
    return Denoiser.load(RUN.denoiser)


@pytest.fixture(scope="module")
def detectors():
    return {outliers: Detector.load(folder) for outliers, folder in FOLDERS.items()}


@pytest.fixture(scope="module")
def renderer(denoiser):
    return Renderer(denoiser, find_detectors(RUN, DEFAULT))


@pytest.fixture(scope="module")
def drawing(renderer) -> Drawing:
    return renderer.draw(digits(3, 5))


@pytest.fixture(scope="module")
def blend(renderer) -> Drawing:
    return renderer.blend(digits(3, blend=(1, 6)))


@pytest.fixture(scope="module")
def pairs(renderer):
    return renderer.pair_matrix(digits(seed=5, num_inference_steps=3))


@pytest.fixture
def copied(tmp_path):
    """A copy of the shipped run, to be damaged."""
    return Run(str(shutil.copytree(RUN.folder, tmp_path / "run")))


def test_it_needs_no_widgets():
    code = "import sys, oodlib.explorer.renderer; print({'ipywidgets', 'IPython'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Drawing.


def test_eight_images_are_drawn(drawing):
    assert (drawing.images.dtype, drawing.images.shape) == (np.uint8, (IMAGES, 8, 8, 1))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_pure_class_is_the_plain_sampler_bit_for_bit(renderer, denoiser, scheduler):
    expected = sample(denoiser, torch.eye(8)[[4] * IMAGES], scheduler=scheduler, seed=2)
    assert np.array_equal(renderer.draw(digits(4, seed=2, scheduler=scheduler)).images, expected)


@pytest.mark.parametrize("mix", MIX_MODES)
def test_a_mixture_is_the_plain_sampler_bit_for_bit(renderer, denoiser, mix):
    weights = (0.3, 0.0, 1.0, 0.0, 0.0, 0.7, 0.0, 0.0)
    expected = sample(denoiser, label_weights(torch.tensor([weights] * IMAGES), mix))
    assert np.array_equal(renderer.draw(digits(weights=weights, mix=mix)).images, expected)


@pytest.mark.parametrize("mix", MIX_MODES)
def test_zero_weights_draw_the_unconditional_sample(renderer, denoiser, mix):
    expected = sample(denoiser, torch.zeros(IMAGES, 8))
    assert np.array_equal(renderer.draw(digits(mix=mix)).images, expected)


@pytest.mark.parametrize(
    "given",
    [
        {"seed": 1},
        {"guidance_scale": 3.0},
        {"num_inference_steps": 5},
        {"scheduler": "ddim"},
        {"mix": "convex"},
        {"weights": (0.0,) * 3 + (0.5,) + (0.0,) + (1.0,) + (0.0,) * 2},
    ],
)
def test_everything_that_a_state_says_of_sampling_changes_the_images(renderer, drawing, given):
    assert not np.array_equal(renderer.draw(digits(3, 5, **given)).images, drawing.images)


def test_a_shift_changes_the_images_before_detectors_see_them(renderer):
    plain, darker = renderer.draw(digits(0, 7)), renderer.draw(digits(0, 7, shift="darker"))
    assert np.array_equal(darker.images, shifted(plain.images, "darker"))
    assert np.array_equal(darker.clean[-1], darker.images) and np.array_equal(darker.steps, plain.steps)
    expected = Detector.load(FOLDERS["none"]).score(darker.images)
    assert np.allclose(darker.verdicts["none"].scores, expected, rtol=1e-5)


def test_at_the_tie_the_detector_is_torn_between_the_two_classes(renderer, denoiser):
    detector, chosen = Detector.load(FOLDERS["none"]), digits(0, 7, blend=(1, 5))
    tie = renderer.tie(chosen)
    near = [max(0.0, tie - 0.05), tie, min(1.0, tie + 0.05)]
    weights = pair_weights([(1, 5)] * 3, 8, chosen.mix, torch.tensor(near))
    images = sample(denoiser, weights, noise_index=[0] * 3, **chosen.sampling)
    probabilities = detector.classify(images)[0]
    assert probabilities[0, 1] > probabilities[0, 5] and probabilities[2, 5] > probabilities[2, 1]


def test_without_a_detector_there_is_no_tie(renderer):
    assert renderer.tie(digits(0, 7, detector=None)) is None


def test_the_eight_images_differ_by_their_noise(drawing):
    assert len({image.tobytes() for image in drawing.images}) == IMAGES


def test_steps_go_from_noise_to_the_images(drawing):
    assert drawing.steps.shape == (9, IMAGES, 8, 8, 1)
    assert np.array_equal(drawing.steps[-1], drawing.images)


def test_what_is_drawn_in_several_batches_is_put_together_in_order(renderer, drawing, monkeypatch):
    monkeypatch.setattr(sample_module, "images_at_once", lambda *_, **__: 3)
    parts = renderer.draw(digits(3, 5))
    assert parts.steps.shape == parts.clean.shape == drawing.steps.shape
    assert np.abs(parts.steps.astype(int) - drawing.steps.astype(int)).max() <= 1
    assert np.array_equal(parts.steps[-1], parts.images)


def test_clean_images_are_those_predicted_from_the_images_of_each_step(renderer, denoiser):
    clean = []
    weights = digits(3, 5).label_weights.repeat(IMAGES, 1)
    sample(denoiser, weights, scheduler="ddim", on_step=lambda _, __, predicted: clean.append(predicted))
    drawing = renderer.draw(digits(3, 5, scheduler="ddim"))
    assert drawing.clean.shape == drawing.steps.shape
    for shown, predicted in zip(drawing.clean, clean[1:], strict=False):
        assert np.array_equal(shown, signed_to_uint8(predicted))


def test_at_the_end_the_clean_image_is_the_image(drawing):
    assert np.array_equal(drawing.clean[-1], drawing.images)
    assert not np.array_equal(drawing.clean[0], drawing.images)


def test_the_first_step_is_the_noise_alone(renderer, drawing):
    assert np.array_equal(drawing.steps[0], renderer.draw(digits(0)).steps[0])


def test_fewer_steps_may_be_asked_for(renderer):
    drawing = renderer.draw(digits(3), 4)
    assert len(drawing.steps) == 5
    assert np.array_equal(drawing.images, renderer.draw(digits(3, num_inference_steps=4)).images)


def test_the_same_state_gives_the_same_drawing(renderer, drawing):
    again = renderer.draw(digits(3, 5))
    assert np.array_equal(again.images, drawing.images)
    assert np.array_equal(again.verdicts["none"].scores, drawing.verdicts["none"].scores)


def test_two_threads_draw_the_same_images_as_one(renderer, drawing):
    found = {}

    def draw(name, chosen):
        found[name] = [renderer.draw(chosen).images for _ in range(3)]

    threads = [threading.Thread(target=draw, args=[i, digits(*c)]) for i, c in enumerate([(3, 5), (1,)])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = renderer.draw(digits(1)).images
    assert all(np.array_equal(images, drawing.images) for images in found[0])
    assert all(np.array_equal(images, alone) for images in found[1])


def test_a_superseded_drawing_is_given_up_between_two_steps(renderer):
    asked = []

    def is_superseded():
        asked.append(True)
        return len(asked) == 3

    with pytest.raises(Superseded):
        renderer.draw(digits(3), is_superseded=is_superseded)
    assert len(asked) == 3


def is_free(lock):
    """Whether another thread could draw."""
    found = []

    def take():
        found.append(lock.acquire(blocking=False))
        if found[0]:
            lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return found[0]


def test_the_lock_is_held_while_drawing(renderer):
    free = []
    renderer.draw(digits(3), 1, is_superseded=lambda: free.append(is_free(renderer.lock)))
    assert free == [False, False]


def test_the_lock_is_free_after_a_drawing(renderer):
    renderer.draw(digits(3), 1)
    assert is_free(renderer.lock)


def test_the_lock_is_free_after_a_superseded_drawing(renderer):
    with pytest.raises(Superseded):
        renderer.draw(digits(3), is_superseded=lambda: True)
    assert is_free(renderer.lock)


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def threads_within(renderer, state):
    """How many threads torch has while a drawing is made."""
    seen = []
    renderer.draw(state, is_superseded=lambda: seen.append(torch.get_num_threads()))
    return set(seen)


def test_small_images_are_drawn_on_one_thread(renderer, three_threads):
    assert threads_within(renderer, digits(3)) == {1}


def test_large_images_are_drawn_on_all_threads(three_threads):
    large = Renderer(Denoiser(NAMES, (32, 32, 1), DenoiserModel(block_out_channels=(8, 16))), {})
    assert threads_within(large, state(num_inference_steps=1)) == {3}


def test_the_number_of_threads_is_restored(renderer, three_threads):
    renderer.draw(digits(3))
    assert torch.get_num_threads() == 3


def test_the_number_of_threads_is_restored_after_an_error(renderer, three_threads):
    with pytest.raises(Superseded):
        renderer.draw(digits(3), is_superseded=lambda: True)
    assert torch.get_num_threads() == 3


def test_drawing_leaves_the_global_random_states(renderer):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    renderer.draw(digits(3, scheduler="ddpm"))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


def test_drawing_does_not_depend_on_the_global_random_state(renderer):
    drawn = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        drawn.append(renderer.draw(digits(3, scheduler="ddpm")).images)
    assert np.array_equal(*drawn)


# Detectors in a run.


def make_detectors(folder, *names):
    for name in names:
        (folder / "detectors" / name).mkdir(parents=True)
        for file in ("detector.json", "scored.json"):
            (folder / "detectors" / name / file).touch()
    return find_detectors(Run(str(folder)), DEFAULT)


def test_detectors_are_found_in_the_order_of_heads_and_seeds(tmp_path):
    folders = [f"{head}-none/seed{seed}" for head in reversed(HEADS) for seed in (10, 2, 0)]
    assert list(make_detectors(tmp_path, *folders)) == [
        f"{head.replace('_', ' ')}, seed {seed}" for head in HEADS for seed in (0, 2, 10)
    ]


@pytest.mark.parametrize(
    "trained, shown",
    [
        ((f"arcface-{DEFAULT}", "arcface-none", "arcface-vos"), DEFAULT),
        (("arcface-label_mixup", "arcface-none"), "label_mixup"),
        (("arcface-none",), DEFAULT),
        ((), DEFAULT),
        (("my net-none", "my-label_mixup"), DEFAULT),  # networks of one's own
    ],
)
def test_what_a_run_has_is_shown_beside_no_outliers_where_the_settings_condition_is_not_there(
    tmp_path, trained, shown
):
    make_detectors(tmp_path, *(f"{name}/seed0" for name in trained))
    (tmp_path / "detectors" / "arcface-pixel_mixup").mkdir(parents=True)  # in training
    assert shown_condition(Run(str(tmp_path)), make_settings()) == shown


def test_a_detector_has_the_kinds_that_were_trained_none_first(tmp_path):
    found = make_detectors(
        tmp_path, f"arcface-{DEFAULT}/seed0", "arcface-none/seed0", f"scaled_cosine-{DEFAULT}/seed1"
    )
    folder = tmp_path / "detectors"
    assert [(name, list(kinds.items())) for name, kinds in found.items()] == [
        ("scaled cosine, seed 1", [(DEFAULT, folder / f"scaled_cosine-{DEFAULT}" / "seed1")]),
        (
            "arcface, seed 0",
            [
                ("none", folder / "arcface-none" / "seed0"),
                (DEFAULT, folder / f"arcface-{DEFAULT}" / "seed0"),
            ],
        ),
    ]


def test_detectors_of_another_kind_are_passed_over(tmp_path):
    found = make_detectors(tmp_path, "arcface-none/seed0", "arcface-real/seed0", "softmax-real/seed0")
    assert {name: list(kinds) for name, kinds in found.items()} == {"arcface, seed 0": ["none"]}


def test_a_folder_that_is_no_detectors_is_passed_over(tmp_path):
    assert list(make_detectors(tmp_path, "arcface-none/seed0", "arcface-none-old/seed0")) == [DETECTOR]


def test_a_detector_that_is_being_trained_is_passed_over(tmp_path):
    make_detectors(tmp_path, "arcface-none/seed0", "arcface-none/seed1")
    (tmp_path / "detectors" / "arcface-none" / "seed1" / "scored.json").unlink()
    assert list(find_detectors(Run(str(tmp_path)), DEFAULT)) == [DETECTOR]


def test_a_run_without_detectors_has_none(tmp_path):
    assert find_detectors(Run(str(tmp_path)), DEFAULT) == {}


def test_the_shipped_detectors_are_found():
    assert find_detectors(RUN, DEFAULT) == {DETECTOR: FOLDERS}


def test_a_state_without_a_detector_has_no_verdicts(renderer):
    assert renderer.draw(digits(3, detector=None)).verdicts == {}


@pytest.mark.parametrize("ask", [Renderer.draw, Renderer.blend, Renderer.pair_matrix])
def test_an_unknown_detector_is_refused_with_those_that_there_are(renderer, ask):
    with pytest.raises(InputError, match=r"^detector 'x' is not in this run; there are: arcface, seed 0$"):
        ask(renderer, digits(3, detector="x"))


def test_without_any_detector_the_notebook_is_named(denoiser):
    with pytest.raises(InputError, match=r"there are: none; train one with notebook 03_train_detector$"):
        Renderer(denoiser, {}).draw(digits(3))


@pytest.mark.parametrize(
    "what, value, told",
    [
        ("class_names", list("abcdefgh"), r"class_names \['a', .* the denoiser has \['0', '1'"),
        ("class_names", list("10234567"), r"class_names \['1', .* the denoiser has \['0', '1'"),
        ("image_shape", [16, 16, 1], r"image_shape \[16, 16, 1\], the denoiser has \[8, 8, 1\]"),
    ],
)
@pytest.mark.parametrize("kind", ("none", DEFAULT))
def test_a_detector_for_something_else_is_refused(denoiser, copied, kind, what, value, told):
    config = copied.detector("arcface", kind, 0) / "detector.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), what: value}))
    with pytest.raises(
        InputError, match=rf"^detector 'arcface, seed 0' \({re.escape(kind)}\) has {told}.*; choose another$"
    ):
        Renderer(denoiser, find_detectors(copied, DEFAULT)).draw(digits(3))


@pytest.mark.parametrize("name", ["detector.safetensors", "detector.json"])
def test_a_detector_whose_files_were_deleted_is_refused(denoiser, copied, name):
    found = find_detectors(copied, DEFAULT)
    (found[DETECTOR]["none"] / name).unlink()
    with pytest.raises(InputError, match=rf"holds no {name}; train one with notebook 03_train_detector$"):
        Renderer(denoiser, found).draw(digits(3))


def test_a_detector_whose_scores_were_deleted_is_refused(denoiser, copied):
    found = find_detectors(copied, DEFAULT)
    (found[DETECTOR]["none"] / "scores.csv").unlink()
    with pytest.raises(InputError, match=r"scores.csv .*03_train_detector"):
        Renderer(denoiser, found).test_scores(DETECTOR)


def test_a_renderer_draws_on_after_a_detector_was_refused(denoiser, copied):
    broken = Renderer(denoiser, find_detectors(copied, DEFAULT))
    (copied.detector("arcface", "none", 0) / "detector.safetensors").unlink()
    with pytest.raises(InputError):
        broken.draw(digits(3))
    assert broken.draw(digits(3, detector=None)).images.shape == (IMAGES, 8, 8, 1)


def test_a_detector_is_read_once(denoiser, copied):
    once = Renderer(denoiser, find_detectors(copied, DEFAULT))
    first = once.draw(digits(3))
    shutil.rmtree(copied.detectors)
    assert np.array_equal(once.draw(digits(3)).verdicts["none"].scores, first.verdicts["none"].scores)


# Verdicts.


@pytest.mark.parametrize("kind", ("none", DEFAULT))
def test_a_verdict_is_the_detectors_prediction(drawing, detectors, kind):
    prediction, verdict = detectors[kind].predict(drawing.images), drawing.verdicts[kind]
    assert np.abs(verdict.scores - prediction.scores).max() < 1e-5
    assert verdict.is_ood.tolist() == prediction.is_ood.tolist()
    assert verdict.top[:, 0].tolist() == prediction.classes.tolist()
    assert verdict.threshold == detectors[kind].thresholds["cosine"]


def test_some_of_the_drawn_images_are_ood_and_some_are_not(drawing):
    assert 0 < drawing.verdicts[DEFAULT].is_ood.sum() < IMAGES  # else the test before says little


@pytest.mark.parametrize("kind", ("none", DEFAULT))
def test_the_top_three_classes_are_the_most_probable_in_order(drawing, detectors, kind):
    probabilities = detectors[kind].classify(drawing.images)[0]
    verdict = drawing.verdicts[kind]
    assert np.abs(verdict.probabilities - -np.sort(-probabilities, axis=1)[:, :3]).max() < 1e-4
    named = np.take_along_axis(probabilities, verdict.top, axis=1)
    assert np.abs(verdict.probabilities - named).max() < 1e-4


@pytest.mark.parametrize("kind", ("none", DEFAULT))
def test_test_scores_are_those_stored_beside_the_detector(renderer, detectors, kind):
    id_scores, ood_scores, threshold = renderer.test_scores(DETECTOR)[kind]
    table = pd.read_csv(FOLDERS[kind] / "scores.csv")
    assert id_scores.tolist() == table["cosine"][table["role"] == "id"].tolist()
    assert ood_scores.tolist() == table["cosine"][table["role"] != "id"].tolist()
    assert threshold == detectors[kind].thresholds["cosine"]


# The blend line.


def test_a_blend_has_eleven_frames(blend):
    assert blend.images.shape == (11, 8, 8, 1)


def test_a_blend_ends_at_the_pure_classes(blend, denoiser):
    pure = sample(denoiser, torch.eye(8)[[1, 6]], noise_index=[0, 0])
    assert np.abs(blend.images[[0, -1]].astype(int) - pure).max() <= 1


def test_all_frames_of_a_blend_start_from_the_first_images_noise(blend, renderer):
    first = renderer.draw(digits(3)).steps[0, :1]
    assert np.array_equal(blend.steps[0], np.repeat(first, BLEND_FRAMES, axis=0))


@pytest.mark.parametrize("mix", MIX_MODES)
def test_frames_of_a_blend_are_equal_steps_from_class_to_class(renderer, denoiser, mix):
    found = renderer.blend(digits(blend=(1, 6), mix=mix, num_inference_steps=3)).images
    for i in (3, 5):
        weights = pair_weights([(1, 6)], 8, mix, i / 10)
        alone = sample(denoiser, weights, num_inference_steps=3)
        assert np.abs(found[i].astype(int) - alone[0]).max() <= 1


def test_a_blend_does_not_depend_on_the_weights(renderer, blend):
    assert np.array_equal(renderer.blend(digits(0, 7, blend=(1, 6))).images, blend.images)


@pytest.mark.parametrize("kind", ("none", DEFAULT))
def test_every_frame_of_a_blend_is_judged(blend, detectors, kind):
    assert np.abs(blend.verdicts[kind].scores - detectors[kind].score(blend.images)).max() < 1e-5


# The pair matrix.


@pytest.mark.parametrize("kind", ("none", DEFAULT))
def test_a_pair_matrix_is_symmetric_with_the_detectors_threshold(pairs, detectors, kind):
    matrix, threshold = pairs[kind]
    assert matrix.shape == (8, 8)
    assert np.array_equal(matrix, matrix.T)
    assert threshold == detectors[kind].thresholds["cosine"]


@pytest.mark.parametrize("kind", ("none", DEFAULT))
@pytest.mark.parametrize("a, b", [(0, 1), (2, 5), (6, 7), (4, 4), (7, 7)])
def test_a_cell_is_the_mean_score_of_its_mixtures(pairs, denoiser, detectors, kind, a, b):
    weights = torch.eye(8)[[a]] if a == b else pair_weights([(a, b)], 8)
    images = sample(denoiser, weights.repeat(MIXTURES_PER_PAIR, 1), seed=5, num_inference_steps=3)
    assert pairs[kind][0][a, b] == pytest.approx(detectors[kind].score(images).mean(), abs=0.01)


def test_cells_differ(pairs):
    assert len(np.unique(pairs["none"][0].round(6))) == 8 * 9 / 2


def test_a_pair_matrix_follows_the_mix(renderer, pairs):
    convex = renderer.pair_matrix(digits(seed=5, num_inference_steps=3, mix="convex"))
    change = np.abs(convex["none"][0] - pairs["none"][0])
    assert change[~np.eye(8, dtype=bool)].min() > 1e-6
    assert np.diag(change).max() < 1e-6


def test_without_detectors_there_is_no_pair_matrix(renderer):
    assert renderer.pair_matrix(digits(num_inference_steps=1, detector=None)) == {}
