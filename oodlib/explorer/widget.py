"""The label-mixup explorer: sliders for class weights, what the denoiser draws for them, and what detectors say.

Callbacks come on another thread while a cell may be running, so one lock is held from reading the sliders to
showing what was drawn. A render takes the newest state and is not cancelled; only the refinement
at rest gives way to a new movement.
"""

import base64
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from oodlib import pretrained
from oodlib.device import default_device
from oodlib.diffusion.denoiser import Denoiser
from oodlib.errors import InputError
from oodlib.explorer import kernel, view
from oodlib.explorer.controls import TABS, Controls
from oodlib.explorer.renderer import Drawing, Renderer, Superseded, find_detectors, shown_condition
from oodlib.explorer.state import IMAGES, State, first_state
from oodlib.runs import Run
from oodlib.settings import Settings

DRAFT_STEPS = 4
DRAFT_ABOVE_S = 0.06  # a render slower than this is drawn in few steps while a slider moves ...
REST_S = 0.05  # ... and in full when none has moved for so long


class Explorer:
    """The explorer as something to display; `render` draws at once and returns the images.

    Args:
        run: The run whose denoiser draws and whose detectors judge, such as from `pretrained.find`.
        settings: Of a notebook, for the first mix mode, sampler and seed, and for the source of outliers whose
            detectors are set beside those without.

    Raises:
        InputError: The run holds no denoiser.
    """

    def __init__(self, run: Run, settings: Settings):
        run.require(run.denoiser / "denoiser.json", "01_train_ddpm")
        self.run = run
        shipped = f'pretrained.shipped("{settings.preset}").denoiser'
        self._is_shipped = run.folder.is_relative_to(pretrained.FOLDER)
        self._denoiser_folder = shipped if self._is_shipped else repr(str(run.denoiser))  # in Python
        denoiser = Denoiser.load(run.denoiser, default_device())
        self.class_names = denoiser.class_names
        outliers = shown_condition(run, settings)
        self._renderer = Renderer(denoiser, find_detectors(run, outliers))
        self._lock = threading.RLock()
        self._random = random.Random()
        self._arranging: int | None = None  # the thread that sets several widgets as one
        self._drawn: State | None = None
        self._drawing: Drawing | None = None
        self._blend: Drawing | None = None
        self._is_draft = False
        self._has_failed = False  # an error is shown, so that the state drawn last is worth drawing again
        self._is_newer = threading.Event()  # set while a change waits for the lock
        self._seconds = 0.0
        self._timer: threading.Timer | None = None
        self._blend_drawn = self._pairs_drawn = self._histograms_drawn = None
        detectors = list(self._renderer.detectors)
        self.controls = Controls(self.class_names, detectors, ("none", outliers), denoiser.image_shape[2])
        self.widget = self.controls.widget
        self._connect()
        kernel.hurry(self)
        try:
            self.state = first_state(self.class_names, settings, detectors)
        except Exception:
            self.close()
            raise
        self.render()  # once more, since the first drawing sets things up and would show too long a time

    def _connect(self) -> None:
        """Have the widgets call back."""
        controls, classes = self.controls, range(len(self.class_names))
        for widget in controls.all():
            kernel.answer_where_asked(widget)
        controls.zero.on_click(lambda _: self._set([0] * len(classes)))
        controls.equal.on_click(lambda _: self._set([1] * len(classes)))
        controls.random_pair.on_click(lambda _: self._only(*self._random.sample(classes, 2)))
        controls.reroll.on_click(self._reroll)
        controls.export.restore.on_click(self._restore)
        for label, only in enumerate(controls.only):
            only.on_click(lambda _, label=label: self._only(label))
        for pair, cell in controls.pairs.cells.items():
            cell.on_click(lambda _, pair=pair: self._only(*pair))
        for control in (*controls.sampling, controls.lock_noise):
            control.observe(self._changed, "value")
        for box in controls.blend.pair:
            box.observe(self._pair_changed, "value")
        controls.blend.frame.observe(self._show_frame, "value")
        controls.denoising.step.observe(self._show_step, "value")
        controls.tab.observe(self._show_tab, "selected_index")

    @property
    def state(self) -> State:
        """What the widgets say. Setting it sets them all, and draws.

        Raises:
            InputError: The state is for other classes, or names a detector that is not there.
        """
        with self._lock:
            return self.controls.state

    @state.setter
    def state(self, state: State) -> None:
        if state.class_names != self.class_names:
            raise InputError(
                f"this state is for classes {state.class_names}, the denoiser has {self.class_names}"
            )
        if state.detector is not None:
            self._renderer.test_scores(state.detector)  # raises where it is missing or does not fit
        with self._lock:
            with self._together():
                self.controls.state = state
            self.render()

    def render(self) -> np.ndarray:
        """Draw the present state in full, show it, and return its 8 images, uint8 (8, H, W, C)."""
        with self._lock:
            self._show(self.state)
            return self._drawing.images

    def close(self) -> None:
        """Close every widget of the explorer."""
        with self._lock:
            kernel.relax(self)
            if self._timer:
                self._timer.cancel()
            for widget in self.controls.all():
                widget.close()

    def __enter__(self) -> "Explorer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def figure(self) -> Figure:
        """The present state as a static figure."""
        with self._lock:
            drawing, state = self._drawing, self._drawn
        return view.static_figure(drawing, state)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """The live widgets, where somebody sits before the notebook; in a batch run their static picture."""
        bundle = {
            "text/plain": f"Explorer of {'the shipped models' if self._is_shipped else self.run}",
            "image/png": base64.b64encode(view.figure_png(self.figure())).decode(),
        }
        live = self.widget._repr_mimebundle_() if kernel.is_live() else {}
        return {**live, **bundle}

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Set several widgets without drawing after each."""
        with self._lock:
            before, self._arranging = self._arranging, threading.get_ident()
            try:
                yield
            finally:
                self._arranging = before

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Show an error as one line in the explorer, which stays usable."""
        try:
            yield
        except Exception as error:
            self._has_failed = True
            name = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            self.controls.message.value = view.line(" ".join(f"{name}{error}".split()), "oodlib-error")

    def _changed(self, change: Any = None) -> None:
        """Draw what the widgets say now, unless another thread has drawn just that."""
        if self._arranging == threading.get_ident():
            return
        self._is_newer.set()
        controls = self.controls
        with self._lock, self._reporting():
            self._is_newer.clear()
            mixes = change is not None and change.owner in (*controls.weights, controls.mix)
            if mixes and not controls.lock_noise.value:
                self._next_seed()
            if controls.denoising.step.max != controls.steps.value:
                with self._together():
                    controls.denoising.step.max = controls.denoising.step.value = controls.steps.value
            state = self.state
            if state == self._drawn and not self._is_draft and not self._has_failed:
                return
            is_slow = self._seconds > DRAFT_ABOVE_S and state.num_inference_steps > DRAFT_STEPS
            self._show(state, DRAFT_STEPS if is_slow else None)
            if is_slow:
                if self._timer:
                    self._timer.cancel()
                self._timer = threading.Timer(REST_S, self._refine, [self._drawn])
                self._timer.daemon = True
                self._timer.start()

    def _refine(self, drafted: State) -> None:
        with self._lock, self._reporting(), suppress(Superseded):
            if self._is_draft and self._drawn is drafted:  # else something newer was drawn in the meantime
                self._show(self.state, is_superseded=self._is_newer.is_set)

    def _show(self, state: State, draft_steps: int | None = None, **options: Any) -> None:
        """Draw a state and put it into the widgets."""
        drawing = self._renderer.draw(state, draft_steps, **options)
        self._drawing, self._drawn, self._is_draft = drawing, state, draft_steps is not None
        if not self._is_draft:
            self._seconds = drawing.seconds
        if state.detector != self._histograms_drawn:
            tests = self._renderer.test_scores(state.detector) if state.detector else {}
            self.controls.histograms.show(tests)
            self._histograms_drawn = state.detector
        self.controls.label.value = view.line(view.label_in_words(state), "oodlib-words")
        self._has_failed = False
        steps = f"draft, {draft_steps} steps" if draft_steps else f"{state.num_inference_steps} steps"
        words = f"{IMAGES} samples in {1000 * drawing.seconds:.0f} ms, {steps}"
        self.controls.message.value = view.line(words)
        self.controls.show(drawing)
        if not self._is_draft:
            self._show_tab()

    def _show_tab(self, change: Any = None) -> None:
        """Fill the tab that is open, where what it shows has changed."""
        with self._lock, self._reporting():
            state = self.state
            tab = TABS[self.controls.tab.selected_index or 0]
            sampler = (state.mix, state.seed, state.sampling, state.shift, state.detector)
            if tab == "Blend":
                if (sampler, state.blend) != self._blend_drawn:
                    self._blend = self._renderer.blend(state)
                    self.controls.blend.show(self._blend, self._renderer.tie(state))
                    self._blend_drawn = (sampler, state.blend)
                self._show_frame()
            elif tab == "Denoising":
                self._show_step()
            elif tab == "Pairs":
                if sampler != self._pairs_drawn:
                    self.controls.pairs.show(self._renderer.pair_matrix(state), state)
                    self._pairs_drawn = sampler
            else:
                self.controls.export.show(self._drawing, state, self._denoiser_folder)

    def _show_frame(self, _: Any = None) -> None:
        if self._arranging == threading.get_ident() or self._blend_drawn is None:
            return
        with self._lock, self._reporting():
            self.controls.blend.show_frame(self._blend)

    def _show_step(self, _: Any = None) -> None:
        if self._arranging == threading.get_ident():
            return
        with self._lock, self._reporting():
            self.controls.denoising.show(self._drawing)

    def _restore(self, _: Any = None) -> None:
        with self._lock, self._reporting():
            self.state = State.from_json(self.controls.export.json.value, self.class_names)

    def _set(self, weights: Sequence[float]) -> None:
        """Set all sliders as one, then draw."""
        with self._lock:
            with self._together():
                if not self.controls.lock_noise.value:
                    self._next_seed()
                self.controls.set_weights(weights)
            self._changed()

    def _only(self, *classes: int) -> None:
        self._set([float(i in classes) for i in range(len(self.class_names))])

    def _next_seed(self) -> None:
        with self._together():
            self.controls.seed.value += 1

    def _reroll(self, _: Any = None) -> None:
        with self._lock:
            self._next_seed()
            self._changed()

    def _pair_changed(self, change: Any) -> None:
        """A blend needs two classes: choosing one twice moves the other to the class that was left."""
        if self._arranging == threading.get_ident():
            return
        with self._lock, self._reporting():
            pair = self.controls.blend.pair
            other = pair[pair[0] is change.owner]
            if other.value == change.owner.value:
                with self._together():
                    other.value = change.old
            self._show_tab()
