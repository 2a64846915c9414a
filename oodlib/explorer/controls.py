"""The explorer's widgets beside and above its tabs: made, laid out, set and read. What they do is the explorer's."""

from collections.abc import Iterator, Sequence

import ipywidgets as w
import numpy as np

from oodlib.datasets.shifts import SHIFTS, shifts_of
from oodlib.diffusion.labels import MIX_MODES
from oodlib.diffusion.schedule import SCHEDULERS
from oodlib.explorer.renderer import Drawing, Verdict
from oodlib.explorer.state import IMAGES, MAX_SEED, State
from oodlib.explorer.tabs import Blend, Denoising, Export, Pairs, button, picture
from oodlib.explorer.view import COLUMNS, CSS, LEGEND, captions, histogram, marks, row
from oodlib.reports.names import label

NO_DETECTOR = ("none in this run: see notebook 3", "")  # a value of None would show as an empty box
TABS = ("Blend", "Denoising", "Pairs", "Export")


class Histograms:
    """Scores of test images by each detector, side by side, with marks where those of the pictures are.

    Args:
        outliers: Those of the detectors.
    """

    def __init__(self, outliers: Sequence[str]):
        self.images, self.marks, self.boxes = {}, {}, {}
        self.axes: dict[str, tuple[float, float, float, float]] = {}
        for name in dict.fromkeys(outliers):
            self.images[name] = w.Image(layout=w.Layout(width="100%", grid_area="1 / 1"))
            self.marks[name] = w.HTML(layout=w.Layout(width="100%", margin="0", grid_area="1 / 1"))
            self.boxes[name] = w.GridBox([self.images[name], self.marks[name]], layout=w.Layout(width="49%"))
        self.box = w.HBox(list(self.boxes.values()), layout=w.Layout(justify_content="space-between"))

    def show(self, tests: dict[str, tuple[np.ndarray, np.ndarray, float]]) -> None:
        """Draw them from `Renderer.test_scores`."""
        self.axes = {}
        for outliers, scores in tests.items():
            self.images[outliers].value, self.axes[outliers] = histogram(*scores, label(outliers))
        for outliers, box in self.boxes.items():
            box.layout.visibility = "visible" if outliers in tests else "hidden"

    def mark(self, verdicts: dict[str, Verdict]) -> None:
        for outliers, axis in self.axes.items():
            self.marks[outliers].value = marks(verdicts[outliers].scores, axis)


class Controls:
    """All widgets; `widget` holds them.

    Args:
        detectors: Names to choose from.
        outliers: Those of the detectors whose histograms stand side by side.
        channels: Of the images.
    """

    def __init__(
        self, class_names: tuple[str, ...], detectors: Sequence[str], outliers: Sequence[str], channels: int
    ):
        self.class_names = class_names
        left, right = self._make_left(detectors, channels), self._make_right(outliers)
        self.blend, self.denoising = Blend(class_names), Denoising()
        self.pairs, self.export = Pairs(class_names), Export()
        tabs = (self.blend, self.denoising, self.pairs, self.export)
        self.tab = w.Tab([tab.box for tab in tabs], titles=TABS, selected_index=0)
        css = w.HTML(CSS, layout=w.Layout(display="none"))
        self.widget = w.VBox([css, w.HBox([left, right]), self.tab])
        self.widget.add_class("oodlib")

    def _make_left(self, detectors: Sequence[str], channels: int) -> w.Widget:
        """What is drawn: weights, noise, sampler, and who judges."""
        names = self.class_names
        label_width = f"{8 * max(map(len, names)) + 12}px"
        self.weights = [
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
        self.only = [button("only", f"{name} alone", w.Layout(width="50px")) for name in names]
        self.zero = button("zero", "all weights to 0: no class", w.Layout(width="70px"))
        self.equal = button("equal", "all weights to 1", w.Layout(width="70px"))
        self.random_pair = button("random pair", "two classes at weight 1", w.Layout(width="110px"))
        self.mix = w.ToggleButtons(
            options=MIX_MODES,
            tooltips=["weights as they are: two ones are [1, 1]", "divided by their sum", "along the arc"],
            style={"button_width": "86px"},
        )
        self.seed = w.BoundedIntText(
            0, min=0, max=MAX_SEED, description="noise seed", layout=w.Layout(width="156px")
        )
        self.reroll = button("re-roll", "the next noise seed", w.Layout(width="64px"))
        self.lock_noise = w.ToggleButton(
            True,
            description="locked",
            icon="lock",
            tooltip="locked: the noise stays when the weights change; else every change draws new noise",
            layout=w.Layout(width="92px"),
        )
        wide = {"layout": w.Layout(width="300px"), "style": {"description_width": "80px"}}
        self.guidance = w.FloatSlider(
            1, min=0, max=20, step=0.1, description="guidance", readout_format=".1f", **wide
        )
        self.steps = w.BoundedIntText(8, min=1, max=1000, description="steps", **wide)
        self.scheduler = w.Dropdown(options=list(SCHEDULERS), description="sampler", **wide)
        unshifted = ("none", "")
        shifts = [(SHIFTS[name].title, name) for name in shifts_of(channels)]
        self.shift = w.Dropdown(options=[unshifted, *shifts], description="shift", **wide)
        self.detector = w.Dropdown(options=detectors or [NO_DETECTOR], description="detector", **wide)
        return w.VBox(
            [
                w.HTML('<div class="oodlib-line"><b>Weight of each class</b></div>'),
                *(
                    w.HBox(pair, layout=w.Layout(align_items="center"))
                    for pair in zip(self.weights, self.only, strict=True)
                ),
                w.HBox([self.zero, self.equal, self.random_pair]),
                self.mix,
                w.HBox([self.seed, self.reroll, self.lock_noise]),
                self.guidance,
                self.steps,
                self.scheduler,
                self.shift,
                self.detector,
            ],
            layout=w.Layout(width="318px", flex="0 0 318px"),
        )

    def _make_right(self, outliers: Sequence[str]) -> w.Widget:
        """What was drawn, and the verdicts."""
        self.label, self.message = w.HTML(), w.HTML()
        self.pictures = [picture() for _ in range(IMAGES // COLUMNS)]
        self.captions = [w.HTML(layout=w.Layout(height="66px")) for _ in self.pictures]
        self.histograms = Histograms(outliers)
        return w.VBox(
            [
                self.label,
                *(part for pair in zip(self.pictures, self.captions, strict=True) for part in pair),
                self.histograms.box,
                w.HTML(LEGEND),
                self.message,
            ],
            layout=w.Layout(flex="1 1 0", min_width="0", padding="0 0 0 10px"),
        )

    def show(self, drawing: Drawing) -> None:
        """Put images, captions and marks into their places."""
        for i, (image, caption) in enumerate(zip(self.pictures, self.captions, strict=True)):
            start = i * COLUMNS
            image.value = row(drawing.images[start : start + COLUMNS])
            caption.value = captions(drawing, self.class_names, COLUMNS, start, top=3)
        self.histograms.mark(drawing.verdicts)

    @property
    def sampling(self) -> tuple[w.Widget, ...]:
        """Those whose change draws anew."""
        drawn = (*self.weights, self.mix, self.seed, self.guidance, self.steps, self.scheduler)
        return (*drawn, self.shift, self.detector)

    @property
    def state(self) -> State:
        """What the widgets say."""
        return State(
            class_names=self.class_names,
            weights=tuple(slider.value for slider in self.weights),
            mix=self.mix.value,
            seed=self.seed.value,
            lock_noise=self.lock_noise.value,
            guidance_scale=self.guidance.value,
            num_inference_steps=self.steps.value,
            scheduler=self.scheduler.value,
            shift=self.shift.value or None,
            detector=self.detector.value or None,
            blend=tuple(box.value for box in self.blend.pair),
            frame=self.blend.frame.value,
            step=self.denoising.step.value,
        )

    @state.setter
    def state(self, state: State) -> None:
        self.set_weights(state.weights)
        self.mix.value = state.mix
        self.seed.value = state.seed
        self.lock_noise.value = state.lock_noise
        self.guidance.value = state.guidance_scale
        self.steps.value = self.denoising.step.max = state.num_inference_steps
        self.scheduler.value = state.scheduler
        self.shift.value = state.shift or ""
        has_detectors = NO_DETECTOR not in self.detector.options
        self.detector.value = state.detector or (None if has_detectors else NO_DETECTOR[1])
        for box, value in zip(self.blend.pair, state.blend, strict=True):
            box.value = value
        self.blend.frame.value, self.denoising.step.value = state.frame, state.step

    def set_weights(self, weights: Sequence[float]) -> None:
        for slider, value in zip(self.weights, weights, strict=True):
            slider.value = value

    def all(self) -> Iterator[w.Widget]:
        """Every widget, with layouts and styles."""
        yield self.blend.link
        yield from _family(self.widget)


def _family(widget: w.Widget) -> Iterator[w.Widget]:
    """A widget and all below it, with their layouts and styles."""
    yield widget
    for name in widget.keys:
        value = getattr(widget, name)
        for child in value if isinstance(value, tuple | list) else (value,):
            if isinstance(child, w.Widget):
                yield from _family(child)
