"""The label-mixup explorer: sliders for class weights, what the denoiser draws for them, and what detectors say.

Callbacks come on another thread while a cell may be running, so one lock is held from reading the sliders to
showing what was drawn. A render takes the newest state and is not cancelled; only the refinement
at rest gives way to a new movement.
"""

import base64
import html
import io
import random
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import ipywidgets as w
import numpy as np
from IPython import get_ipython
from PIL import Image

from oodlib import pretrained
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.labels import MIX_MODES
from oodlib.diffusion.schedule import SCHEDULERS
from oodlib.errors import InputError
from oodlib.explorer.renderer import (
    BLEND_FRAMES,
    IMAGES,
    MAX_SEED,
    Drawing,
    Renderer,
    State,
    Superseded,
    Verdict,
    find_detectors,
)
from oodlib.presets import Settings
from oodlib.reports import plots
from oodlib.runs import Run

COLUMNS = 4
DRAFT_STEPS = 4
DRAFT_ABOVE_S = 0.06  # a render slower than this is drawn in few steps while a slider moves ...
REST_S = 0.05  # ... and in full when none has moved for so long
# Python takes its lock from a computing cell after 5 ms. An image needs it thousands of times: 60 ms become 10 s.
SWITCH_INTERVAL_S = 1e-5
NO_DETECTOR = ("none in this run: see notebook 3", "")  # a value of None would show as an empty box
TABS = ("Blend", "Denoising", "Pairs", "Export")

CSS = f"""<style>
.oodlib {{ max-width: 980px; overflow: hidden; }}
.oodlib .oodlib-pixels {{ image-rendering: pixelated; object-fit: fill; }}
.oodlib-grid {{ display: grid; font-size: 10.5px; line-height: 15px;
  letter-spacing: -0.1px; font-variant-numeric: tabular-nums; }}
.oodlib-grid > div {{ overflow: hidden; white-space: nowrap; text-overflow: ellipsis; }}
.oodlib-grid span, .oodlib-line span {{ padding: 0 3px; border-radius: 3px; }}
.oodlib-grid small {{ font-size: 9.5px; }}
.oodlib-grid br + b {{ margin-left: 0; }}
.oodlib-grid b {{ margin-left: 5px; }}
.oodlib-id {{ background: {plots.ID_COLOUR}; color: white; }}
.oodlib-ood {{ background: {plots.OOD_COLOUR}; color: black; }}
.oodlib-marks {{ position: relative; height: 100%; pointer-events: none; }}
.oodlib-marks i {{ position: absolute; bottom: 22%; height: 22%; width: 2px; background: black;
  box-shadow: 0 0 0 1px white; }}
.oodlib-line {{ height: 20px; line-height: 20px; overflow: hidden; white-space: nowrap; text-overflow: ellipsis;
  font-variant-numeric: tabular-nums; }}
.oodlib a {{ color: var(--jp-content-link-color, #0067c0); text-decoration: underline; }}
.oodlib-error {{ color: var(--jp-error-color0, #b00020); font-weight: 600; }}
</style>"""

LEGEND = (
    '<div class="oodlib-line">scores of test images: <span class="oodlib-id">ID</span> '
    '<span class="oodlib-ood">OOD</span>, ┆ threshold, ▮ the pictures above</div>'
)


def sheet(images: np.ndarray, columns: int) -> np.ndarray:
    """Images (N, H, W, C) side by side, `columns` in a row, as RGBA with a transparent gap of H / 8 between."""
    count, height, width = images.shape[:3]
    rows, gap = -(-count // columns), max(1, height // 8)
    canvas = np.zeros((rows * (height + gap), columns * (width + gap), 4), np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        canvas[top : top + height, left : left + width, :3] = image  # grey is repeated
        canvas[top : top + height, left : left + width, 3] = 255
    return canvas[:-gap, :-gap]


def png(pixels: np.ndarray, scale: int = 1) -> bytes:
    """A uint8 RGBA array (H, W, 4) as a PNG, each pixel enlarged to a square of `scale`."""
    picture = Image.fromarray(pixels)
    picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def _chip(verdict: Verdict, i: int) -> str:
    kind = "ood" if verdict.is_ood[i] else "id"
    return f'<span class="oodlib-{kind}">{kind.upper()} {verdict.scores[i]:.2f}</span>'


def _captions(drawing: Drawing, class_names: Sequence[str], columns: int, start: int, top: int) -> str:
    """What each detector says of `columns` images from `start`: verdict, score and the `top` classes."""
    cells = []
    for i in range(start, start + columns):
        lines = []
        for kind, verdict in drawing.verdicts.items():
            best = zip(verdict.top[i, :top], verdict.probabilities[i], strict=False)
            named = "".join(f"<b>{html.escape(class_names[c])}</b> {p:.0%}" for c, p in best)
            trained = "no outliers" if kind == "none" else "outliers"  # which ones stands above the histogram
            lines.append(
                f"{_chip(verdict, i)} <small>{trained}</small><br>{named}" if top else _chip(verdict, i)
            )
        cells.append(f"<div>{'<br>'.join(lines)}</div>")
    return _grid(cells, columns)


def _grid(cells: Sequence[str], columns: int) -> str:
    """Cells below the images of a sheet."""
    gap = 100 / (9 * columns - 1)
    style = f"grid-template-columns: repeat({columns}, 1fr); column-gap: {gap:.3f}%"
    return f'<div class="oodlib-grid" style="{style}">{"".join(cells)}</div>'


_open: set["Explorer"] = set()
_switch_interval_s = sys.getswitchinterval()


def _hurry(explorer: "Explorer") -> None:
    """Have Python's lock change hands fast while any explorer is open."""
    global _switch_interval_s
    if not _open:
        _switch_interval_s = sys.getswitchinterval()
    _open.add(explorer)
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def _relax(explorer: "Explorer") -> None:
    """As it was before, when the last one is closed."""
    if explorer in _open:
        _open.remove(explorer)
        if not _open:
            sys.setswitchinterval(_switch_interval_s)


class Explorer:
    """The explorer as something to display; `render` draws at once and returns the images.

    Args:
        run: The run whose denoiser draws and whose detectors judge, such as from `pretrained.find`.
        settings: Of a notebook, for the first mix mode, sampler and seed, and for the kind of outliers whose detectors
            are set beside those without.

    Raises:
        InputError: The run holds no denoiser.
    """

    def __init__(self, run: Run, settings: Settings):
        run.require(run.denoiser / "denoiser.json", "01_train_ddpm")
        self.run, self._preset = run, settings.preset
        self._kinds = tuple(dict.fromkeys(("none", settings.outliers)))
        self._is_shipped = run.folder.is_relative_to(pretrained.FOLDER)
        denoiser = Denoiser.load(run.denoiser, settings.device)
        self.class_names = denoiser.class_names
        self._renderer = Renderer(denoiser, find_detectors(run, settings.outliers))
        self._lock = threading.RLock()
        self._random = random.Random()
        self._arranging: int | None = None  # the thread that sets several widgets as one
        self._drawn: State | None = None
        self._is_draft = False
        self._has_failed = False  # an error is shown, so that the state drawn last is worth drawing again
        self._is_newer = threading.Event()  # set while a change waits for the lock
        self._seconds = 0.0
        self._timer: threading.Timer | None = None
        self._drawing: Drawing | None = None
        self._blend_drawn = self._pairs_drawn = self._histograms_drawn = None
        self._axes: dict[str, tuple[float, ...]] = {}
        names = list(self._renderer.detectors)
        default = f"{settings.head.replace('_', ' ')}, seed {settings.seed}"
        sampling = settings.only("mix", "seed", "guidance_scale", "num_inference_steps", "scheduler")
        last = len(self.class_names) - 1
        first = State(
            class_names=self.class_names,
            weights=tuple(float(c in (0, last)) for c in range(last + 1)),
            detector=default if default in names else next(iter(names), None),
            blend=(0, last),
            step=settings.num_inference_steps,
            **sampling,
        )
        self._make(names)
        _hurry(self)
        try:
            self.state = first
        except Exception:
            self.close()
            raise
        self.render()  # once more, since the first drawing sets things up and would show too long a time

    # The state: what the widgets say.

    @property
    def state(self) -> State:
        """What the widgets say. Setting it sets them all, and draws.

        Raises:
            InputError: The state is for other classes, or names a detector that is not there.
        """
        with self._lock:
            return State(
                class_names=self.class_names,
                weights=tuple(slider.value for slider in self._weights),
                mix=self._mix.value,
                seed=self._seed.value,
                lock_noise=self._lock_noise.value,
                guidance_scale=self._guidance.value,
                num_inference_steps=self._steps.value,
                scheduler=self._scheduler.value,
                detector=self._detector.value or None,
                blend=tuple(box.value for box in self._blend_pair),
                frame=self._frame.value,
                step=self._step.value,
            )

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
                self._set_weights(state.weights)
                self._mix.value = state.mix
                self._seed.value = state.seed
                self._lock_noise.value = state.lock_noise
                self._guidance.value = state.guidance_scale
                self._steps.value = self._step.max = state.num_inference_steps
                self._scheduler.value = state.scheduler
                self._detector.value = state.detector or (
                    None if self._renderer.detectors else NO_DETECTOR[1]
                )
                for box, value in zip(self._blend_pair, state.blend, strict=True):
                    box.value = value
                self._frame.value, self._step.value = state.frame, state.step
            self.render()

    def render(self) -> np.ndarray:
        """Draw the present state in full, show it, and return its 8 images, uint8 (8, H, W, C)."""
        with self._lock:
            self._show(self.state)
            return self._drawing.images

    def close(self) -> None:
        """Close every widget of the explorer."""
        with self._lock:
            _relax(self)
            if self._timer:
                self._timer.cancel()
            for widget in (self._link, *_family(self.widget)):
                widget.close()

    def __enter__(self) -> "Explorer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def figure(self):
        """The present state as a static figure."""
        with self._lock:
            drawing, state = self._drawing, self._drawn
        titles = [
            "\n".join(
                f"{'OOD' if v.is_ood[i] else 'ID'} {v.scores[i]:.2f} {self.class_names[v.top[i, 0]]}"
                for v in drawing.verdicts.values()
            )
            for i in range(IMAGES)
        ]
        kinds = ", below: ".join(plots.label(kind) for kind in drawing.verdicts)
        return plots.image_grid(
            [drawing.images],
            f"{self._words(state)}, noise seed {state.seed}"
            + (f"\n{state.detector}: {kinds}" if kinds else ""),
            column_titles=titles,
            cell=1.1,
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """The live widgets, where somebody sits before the notebook; in a batch run their static picture."""
        figure = io.BytesIO()
        self.figure().savefig(figure, format="png")
        picture = {
            "text/plain": f"Explorer of {self.run}"
            if not self._is_shipped
            else "Explorer of the shipped models",
            "image/png": base64.b64encode(figure.getvalue()).decode(),
        }
        # A front end that can be asked for input is one that can move a slider.
        kernel = getattr(get_ipython(), "kernel", None)
        live = self.widget._repr_mimebundle_() if getattr(kernel, "_allow_stdin", False) else {}
        return {**picture, **{k: v for k, v in live.items() if k != "text/plain"}}

    # Callbacks.

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
            line = " ".join(f"{name}{error}".split())
            self._message.value = (
                f'<div class="oodlib-line oodlib-error" title="{html.escape(line)}">{html.escape(line)}</div>'
            )

    def _changed(self, change: Any = None) -> None:
        """Draw what the widgets say now, unless another thread has drawn just that."""
        if self._arranging == threading.get_ident():
            return
        self._is_newer.set()
        with self._lock, self._reporting():
            self._is_newer.clear()
            if (
                change is not None
                and change.owner in (*self._weights, self._mix)
                and not self._lock_noise.value
            ):
                self._next_seed()
            if self._step.max != self._steps.value:
                with self._together():
                    self._step.max = self._step.value = self._steps.value
            state = self.state
            if state == self._drawn and not self._is_draft and not self._has_failed:
                return
            is_slow = self._seconds > DRAFT_ABOVE_S and state.num_inference_steps > DRAFT_STEPS
            self._show(state, DRAFT_STEPS if is_slow else None)
            if is_slow:
                self._refine_at_rest()

    def _refine_at_rest(self) -> None:
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
        self._show_histograms(state, drawing)
        words = html.escape(self._words(state))
        self._label.value = f'<div class="oodlib-line oodlib-given" title="{words}"><b>{words}</b></div>'
        self._has_failed = False
        steps = f"draft, {draft_steps} steps" if draft_steps else f"{state.num_inference_steps} steps"
        self._message.value = (
            f'<div class="oodlib-line">{IMAGES} pictures in {1000 * drawing.seconds:.0f} ms, {steps}</div>'
        )
        for row, (picture, caption) in enumerate(zip(self._pictures, self._captions, strict=True)):
            start = row * COLUMNS
            picture.value = png(sheet(drawing.images[start : start + COLUMNS], COLUMNS))
            caption.value = _captions(drawing, self.class_names, COLUMNS, start, top=3)
        if not self._is_draft:
            self._show_tab()

    def _words(self, state: State) -> str:
        """What the denoiser is given, in words."""
        given = [(n, v) for n, v in zip(self.class_names, state.label_weights.tolist(), strict=True) if v > 0]
        if not given:
            return "All weights are 0: no class, the unconditional sample"
        return f"{state.mix}: the denoiser is given " + ", ".join(f"{n}: {v:.2f}" for n, v in given)

    def _show_histograms(self, state: State, drawing: Drawing) -> None:
        if state.detector != self._histograms_drawn:
            self._axes = {}
            tests = self._renderer.test_scores(state.detector) if state.detector else {}
            for kind, (id_scores, ood_scores, threshold) in tests.items():
                figure = plots.score_histogram(
                    id_scores, ood_scores, threshold, f"{state.detector}, {plots.label(kind)}"
                )
                buffer = io.BytesIO()
                figure.savefig(buffer, format="png", dpi=160)
                axes = figure.axes[0]
                self._histograms[kind].value = buffer.getvalue()
                self._axes[kind] = (*axes.get_xlim(), *axes.get_position().intervalx)
            for kind, box in self._histogram_boxes.items():
                box.layout.visibility = "visible" if kind in tests else "hidden"
            self._histograms_drawn = state.detector
        for kind, (low, high, left, right) in self._axes.items():
            place = ((drawing.verdicts[kind].scores - low) / (high - low)).clip(0, 1) * (right - left) + left
            marks = "".join(f'<i style="left: calc({100 * p:.2f}% - 1px)"></i>' for p in place)
            self._marks[kind].value = f'<div class="oodlib-marks">{marks}</div>'

    def _show_tab(self, change: Any = None) -> None:
        """Fill the tab that is open, where what it shows has changed."""
        with self._lock, self._reporting():
            state = self.state
            tab = TABS[self._tab.selected_index or 0]
            sampler = (state.mix, state.seed, state.sampling, state.detector)
            if tab == "Blend":
                if (sampler, state.blend) != self._blend_drawn:
                    self._blend = self._renderer.blend(state)
                    self._strip.value = png(sheet(self._blend.images, BLEND_FRAMES))
                    self._strip_captions.value = _captions(self._blend, self.class_names, BLEND_FRAMES, 0, 0)
                    self._blend_drawn = (sampler, state.blend)
                self._show_frame()
            elif tab == "Denoising":
                self._show_step()
            elif tab == "Pairs":
                if sampler != self._pairs_drawn:
                    self._show_pairs(state)
                    self._pairs_drawn = sampler
            else:
                self._show_export(state)

    def _show_frame(self, _: Any = None) -> None:
        if self._arranging == threading.get_ident() or self._blend_drawn is None:
            return
        with self._lock, self._reporting():
            i = self._frame.value
            a, b = (self.class_names[box.value] for box in self._blend_pair)
            self._frame_picture.value = png(sheet(self._blend.images[i : i + 1], 1))
            share = i / (BLEND_FRAMES - 1)
            self._frame_caption.value = (
                f"<b>{html.escape(f'{a} to {b}: {share:.0%} of the way')}</b>"
                + _captions(self._blend, self.class_names, 1, i, top=3)
            )

    def _show_step(self, _: Any = None) -> None:
        if self._arranging == threading.get_ident():
            return
        with self._lock, self._reporting():
            steps = self._drawing.steps
            i = min(self._step.value, len(steps) - 1)
            self._step_picture.value = png(sheet(steps[i], IMAGES))
            self._step_caption.value = "pure noise" if i == 0 else f"after step {i} of {len(steps) - 1}"

    def _show_pairs(self, state: State) -> None:
        """Upper triangle: the first detector; lower: the second; coloured by the distance from the threshold."""
        found = self._renderer.pair_matrix(state)
        reach = max([1e-9, *(np.abs(matrix - threshold).max() for matrix, threshold in found.values())])
        kinds = list(found)
        for (a, b), cell in self._cells.items():
            if not kinds:
                cell.description, cell.tooltip = "", f"set the sliders to {self._pair_name(a, b)}"
                continue
            kind = kinds[0] if a <= b else kinds[-1]
            matrix, threshold = found[kind]
            distance = (matrix[a, b] - threshold) / reach
            verdict = "OOD" if distance < 0 else "ID"
            colour = plots.OOD_COLOUR if distance < 0 else plots.ID_COLOUR
            cell.description = f"{matrix[a, b]:.2f}"
            cell.style.button_color = _tint(colour, abs(distance))
            cell.style.font_weight = "bold" if distance < 0 else "normal"
            cell.style.text_color = "white" if distance > 0.6 else "black"
            cell.tooltip = (
                f"{self._pair_name(a, b)}, {plots.label(kind)}: mean score {matrix[a, b]:.3f}, {verdict} "
                f"(threshold {threshold:.3f}); press to set the sliders"
            )
        if kinds:
            self._pairs_legend.value = (
                "<div style='line-height: 18px'>Mean score of four mixtures of every pair at equal weights "
                f"({state.mix}), {state.detector}.<br>"
                f"Above the diagonal: {plots.label(kinds[0])}. Below: {plots.label(kinds[-1])}. "
                f"On it: the classes themselves, {plots.label(kinds[0])}.<br>"
                "Blue: accepted as ID. Orange and bold: OOD. Press a cell to set the sliders to its pair.</div>"
            )

    def _show_export(self, state: State) -> None:
        pixels = png(sheet(self._drawing.images, COLUMNS), scale=max(1, 128 // self._drawing.images.shape[1]))
        links = (
            ("picture as PNG", "label_mixup.png", "image/png", pixels),
            ("state as JSON", "label_mixup.json", "application/json", state.to_json().encode()),
        )
        self._links.value = "Download the " + ", the ".join(
            f'<a download="{name}" href="data:{mime};base64,{base64.b64encode(content).decode()}">{words}</a>'
            for words, name, mime, content in links
        )
        self._json.value = state.to_json()
        shipped = f'pretrained.shipped("{self._preset}").denoiser'
        self._code.value = state.code(shipped if self._is_shipped else repr(str(self.run.denoiser)))

    def _restore(self, _: Any = None) -> None:
        with self._lock, self._reporting():
            self.state = State.from_json(self._json.value, self.class_names)

    def _set_weights(self, weights: Sequence[float]) -> None:
        for slider, value in zip(self._weights, weights, strict=True):
            slider.value = value

    def _set(self, weights: Sequence[float]) -> None:
        """Set all sliders as one, then draw."""
        with self._lock:
            with self._together():
                if not self._lock_noise.value:
                    self._next_seed()
                self._set_weights(weights)
            self._changed()

    def _only(self, *classes: int) -> None:
        self._set([float(i in classes) for i in range(len(self.class_names))])

    def _next_seed(self) -> None:
        with self._together():
            self._seed.value += 1

    def _pair_name(self, a: int, b: int) -> str:
        return self.class_names[a] if a == b else f"{self.class_names[a]} and {self.class_names[b]}"

    # The widgets.

    def _make(self, detectors: list[str]) -> None:
        names, classes = self.class_names, len(self.class_names)
        label_width = f"{8 * max(map(len, names)) + 12}px"
        self._weights = [
            w.FloatSlider(
                0,
                min=0,
                max=1,
                step=0.01,
                description=name,
                readout_format=".2f",
                layout=w.Layout(width="250px", margin="0 2px"),
                style={"description_width": label_width},
            )
            for name in names
        ]
        only = [
            _button("only", f"{name} alone", lambda _, c=c: self._only(c), "50px")
            for c, name in enumerate(names)
        ]
        presets = w.HBox(
            [
                _button("zero", "all weights to 0: no class", lambda _: self._set([0] * classes), "70px"),
                _button("equal", "all weights to 1", lambda _: self._set([1] * classes), "70px"),
                _button(
                    "random pair",
                    "two classes at weight 1",
                    lambda _: self._only(*self._random.sample(range(classes), 2)),
                    "110px",
                ),
            ]
        )
        self._mix = w.ToggleButtons(
            options=MIX_MODES,
            tooltips=["weights as they are: two ones are [1, 1]", "divided by their sum", "along the arc"],
            style={"button_width": "86px"},
        )
        self._seed = w.BoundedIntText(
            0, min=0, max=MAX_SEED, description="noise seed", layout=w.Layout(width="156px")
        )
        reroll = _button("re-roll", "the next noise seed", lambda _: self._reroll(), "64px")
        self._lock_noise = w.ToggleButton(
            True,
            description="locked",
            icon="lock",
            tooltip="locked: the noise stays when the weights change; else every change draws new noise",
            layout=w.Layout(width="92px"),
        )
        wide = {"layout": w.Layout(width="300px"), "style": {"description_width": "80px"}}
        self._guidance = w.FloatSlider(
            1, min=0, max=20, step=0.1, description="guidance", readout_format=".1f", **wide
        )
        self._steps = w.BoundedIntText(8, min=1, max=1000, description="steps", **wide)
        self._scheduler = w.Dropdown(options=list(SCHEDULERS), description="sampler", **wide)
        self._detector = w.Dropdown(options=detectors or [NO_DETECTOR], description="detector", **wide)
        left = w.VBox(
            [
                w.HTML('<div class="oodlib-line"><b>Weight of each class</b></div>'),
                *(
                    w.HBox(pair, layout=w.Layout(align_items="center"))
                    for pair in zip(self._weights, only, strict=True)
                ),
                presets,
                self._mix,
                w.HBox([self._seed, reroll, self._lock_noise]),
                self._guidance,
                self._steps,
                self._scheduler,
                self._detector,
            ],
            layout=w.Layout(width="318px", flex="0 0 318px"),
        )

        self._label, self._message = w.HTML(), w.HTML()
        self._pictures = [_picture() for _ in range(IMAGES // COLUMNS)]
        self._captions = [w.HTML(layout=w.Layout(height="66px")) for _ in self._pictures]
        self._histograms, self._marks, self._histogram_boxes = {}, {}, {}
        for kind in self._kinds:
            self._histograms[kind] = w.Image(layout=w.Layout(width="100%", grid_area="1 / 1"))
            self._marks[kind] = w.HTML(layout=w.Layout(width="100%", margin="0", grid_area="1 / 1"))
            self._histogram_boxes[kind] = w.GridBox(
                [self._histograms[kind], self._marks[kind]], layout=w.Layout(width="49%")
            )
        right = w.VBox(
            [
                self._label,
                *(w for pair in zip(self._pictures, self._captions, strict=True) for w in pair),
                w.HBox(
                    list(self._histogram_boxes.values()), layout=w.Layout(justify_content="space-between")
                ),
                w.HTML(LEGEND),
                self._message,
            ],
            layout=w.Layout(flex="1 1 0", min_width="0", padding="0 0 0 10px"),
        )
        self._tab = w.Tab(
            [self._make_blend(), self._make_denoising(), self._make_pairs(), self._make_export()],
            titles=TABS,
            selected_index=0,
        )
        self.widget = w.VBox([w.HTML(CSS, layout=w.Layout(display="none")), w.HBox([left, right]), self._tab])
        self.widget.add_class("oodlib")
        for widget in _family(self.widget):
            _answer_where_asked(widget)

        drawing = (self._mix, self._seed, self._guidance, self._steps, self._scheduler, self._detector)
        for control in (*self._weights, *drawing, self._lock_noise):
            control.observe(self._changed, "value")
        for box in self._blend_pair:
            box.observe(self._pair_changed, "value")
        self._frame.observe(self._show_frame, "value")
        self._step.observe(self._show_step, "value")
        self._tab.observe(self._show_tab, "selected_index")

    def _make_blend(self) -> w.Widget:
        options = [(name, i) for i, name in enumerate(self.class_names)]
        narrow = {"layout": w.Layout(width="170px"), "style": {"description_width": "40px"}}
        self._blend_pair = [
            w.Dropdown(options=options, value=value, description=text, **narrow)
            for value, text in ((0, "from"), (len(options) - 1, "to"))
        ]
        self._strip, self._strip_captions = _picture(), w.HTML()
        self._frame = w.IntSlider(0, min=0, max=BLEND_FRAMES - 1, description="frame")
        play = w.Play(min=0, max=BLEND_FRAMES - 1, interval=250)
        self._link = w.jslink((play, "value"), (self._frame, "value"))
        self._frame_picture = _picture("120px")
        self._frame_caption = w.HTML(layout=w.Layout(padding="0 0 0 12px", min_width="260px"))
        return w.VBox(
            [
                w.HBox([*self._blend_pair, play, self._frame]),
                self._strip,
                self._strip_captions,
                w.HBox([self._frame_picture, self._frame_caption]),
            ]
        )

    def _make_denoising(self) -> w.Widget:
        self._step = w.IntSlider(0, min=0, max=1, description="step")
        self._step_caption, self._step_picture = w.HTML(), _picture()
        return w.VBox([w.HBox([self._step, self._step_caption]), self._step_picture])

    def _make_pairs(self) -> w.Widget:
        classes = len(self.class_names)
        size = w.Layout(width="auto", height="26px", margin="0", padding="0")
        self._cells = {
            (a, b): _button("", "", lambda _, a=a, b=b: self._only(a, b), size)
            for a in range(classes)
            for b in range(classes)
        }
        heads = [w.HTML(f"<center>{html.escape(name)}</center>") for name in self.class_names]
        rows = [
            [w.HTML(html.escape(name)), *(self._cells[a, b] for b in range(classes))]
            for a, name in enumerate(self.class_names)
        ]
        grid = w.GridBox(
            [w.HTML(), *heads, *(cell for row in rows for cell in row)],
            layout=w.Layout(
                grid_template_columns=f"max-content repeat({classes}, minmax(40px, 72px))", grid_gap="2px"
            ),
        )
        self._pairs_legend = w.HTML()
        return w.VBox([self._pairs_legend, grid])

    def _make_export(self) -> w.Widget:
        full = w.Layout(width="100%", height="110px")
        self._links = w.HTML()
        self._json, self._code = w.Textarea(layout=full), w.Textarea(layout=full, disabled=True)
        restore = _button("restore this state", "set everything to the JSON above", self._restore, "160px")
        return w.VBox(
            [
                self._links,
                w.HTML("The state; edit or paste another and restore it:"),
                self._json,
                restore,
                w.HTML("The same images in Python:"),
                self._code,
            ]
        )

    def _reroll(self) -> None:
        with self._lock:
            self._next_seed()
            self._changed()

    def _pair_changed(self, change: Any) -> None:
        """A blend needs two classes: choosing one twice moves the other to the class that was left."""
        if self._arranging == threading.get_ident():
            return
        with self._lock, self._reporting():
            other = self._blend_pair[self._blend_pair[0] is change.owner]
            if other.value == change.owner.value:
                with self._together():
                    other.value = change.old
            self._show_tab()


def _button(description: str, tooltip: str, pressed: Any, size: str | w.Layout) -> w.Button:
    layout = w.Layout(width=size) if isinstance(size, str) else size
    button = w.Button(description=description, tooltip=tooltip, layout=layout)
    button.on_click(pressed)
    return button


def _picture(width: str = "100%") -> w.Image:
    picture = w.Image(layout=w.Layout(width=width))
    picture.add_class("oodlib-pixels")
    return picture


def _tint(colour: str, amount: float) -> str:
    """`colour` mixed with white; 0 is white."""
    channels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 + (c - 255) * min(1, 0.15 + 0.85 * amount)):02x}" for c in channels)


def _answer_where_asked(widget: w.Widget) -> None:
    """Handle a front end's messages on the thread that it asks for, also while a cell runs.

    From 7.4 on ipykernel hands them to the thread that last wrote to the widget. For a new widget that is the one
    that runs the cells: a slider not yet touched would be dead until the running cell ends.
    """
    widget.comm._reply_subshell_for = lambda data, default: default


def _family(widget: w.Widget) -> Iterator[w.Widget]:
    """A widget and all below it, with their layouts and styles."""
    yield widget
    for name in widget.keys:
        value = getattr(widget, name)
        for child in value if isinstance(value, tuple | list) else (value,):
            if isinstance(child, w.Widget):
                yield from _family(child)
