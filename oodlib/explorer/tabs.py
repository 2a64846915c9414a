"""The explorer's four tabs: the widgets of each, and how they are filled from what was drawn."""

import html

import ipywidgets as w
import numpy as np

from oodlib.explorer.renderer import Drawing
from oodlib.explorer.state import BLEND_FRAMES, State
from oodlib.explorer.view import captions, downloads, row, tint
from oodlib.reports import plots
from oodlib.reports.names import label


def button(description: str, tooltip: str, layout: w.Layout) -> w.Button:
    return w.Button(description=description, tooltip=tooltip, layout=layout)


def picture(width: str = "100%") -> w.Image:
    image = w.Image(layout=w.Layout(width=width))
    image.add_class("oodlib-pixels")
    return image


class Blend:
    """The line from one class to another, and a chosen frame of it."""

    def __init__(self, class_names: tuple[str, ...]):
        self.class_names = class_names
        options = [(name, i) for i, name in enumerate(class_names)]
        narrow = {"layout": w.Layout(width="170px"), "style": {"description_width": "40px"}}
        self.pair = [
            w.Dropdown(options=options, value=value, description=text, **narrow)
            for value, text in ((0, "from"), (len(options) - 1, "to"))
        ]
        self.strip, self.tie, self.strip_captions = picture(), w.HTML(), w.HTML()
        self.frame = w.IntSlider(0, min=0, max=BLEND_FRAMES - 1, description="frame")
        play = w.Play(min=0, max=BLEND_FRAMES - 1, interval=250)
        self.link = w.jslink((play, "value"), (self.frame, "value"))
        self.frame_picture = picture("120px")
        self.frame_caption = w.HTML(layout=w.Layout(padding="0 0 0 12px", min_width="260px"))
        self.box = w.VBox(
            [
                w.HBox([*self.pair, play, self.frame]),
                self.strip,
                self.tie,
                self.strip_captions,
                w.HBox([self.frame_picture, self.frame_caption]),
            ]
        )

    def show(self, blend: Drawing, tie: float | None) -> None:
        """Show the line, and below it where a detector is torn between the two classes."""
        self.strip.value = row(blend.images)
        # The first and the last image stand for 0 and 1 at their middles.
        place = 50 / BLEND_FRAMES + (tie or 0) * (100 - 100 / BLEND_FRAMES)
        words = (
            f'<span style="left: {place:.1f}%" title="{tie:.0%} of the way">▲</span>'
            if tie is not None
            else ""
        )
        self.tie.value = f'<div class="oodlib-tie">{words}</div>'
        self.strip_captions.value = captions(blend, self.class_names, BLEND_FRAMES, 0, top=0)

    def show_frame(self, blend: Drawing) -> None:
        i = self.frame.value
        a, b = (self.class_names[box.value] for box in self.pair)
        self.frame_picture.value = row(blend.images[i : i + 1])
        words = html.escape(f"{a} to {b}: {i / (BLEND_FRAMES - 1):.0%} of the way")
        self.frame_caption.value = f"<b>{words}</b>" + captions(blend, self.class_names, 1, i, top=3)


class Denoising:
    """A chosen step on the way out of the noise, and what the denoiser sees in it."""

    def __init__(self):
        self.step = w.IntSlider(0, min=0, max=1, description="step")
        self.step_caption, self.step_picture = w.HTML(), picture()
        self.clean_caption, self.clean_picture = w.HTML(), picture()
        self.box = w.VBox(
            [
                w.HBox([self.step, self.step_caption]),
                self.step_picture,
                self.clean_caption,
                self.clean_picture,
            ]
        )

    def show(self, drawing: Drawing) -> None:
        last = len(drawing.steps) - 1
        i = min(self.step.value, last)
        self.step_picture.value, self.clean_picture.value = row(drawing.steps[i]), row(drawing.clean[i])
        self.step_caption.value = "pure noise" if i == 0 else f"after step {i} of {last}"
        predicted = "the clean pictures that the denoiser predicts from those above"
        self.clean_caption.value = "the pictures themselves" if i == last else predicted


class Pairs:
    """A cell for each pair of classes, with what the detectors say of its mixtures.

    Above the diagonal is the first detector and below it the second; colours tell the distance from the threshold.
    """

    def __init__(self, class_names: tuple[str, ...]):
        self.class_names, classes = class_names, range(len(class_names))
        size = w.Layout(width="auto", height="26px", margin="0", padding="0")
        self.cells = {(a, b): button("", "", size) for a in classes for b in classes}
        names = [html.escape(name) for name in class_names]
        rows = [[w.HTML(names[a]), *(self.cells[a, b] for b in classes)] for a in classes]
        grid = w.GridBox(
            [
                w.HTML(),
                *(w.HTML(f"<center>{name}</center>") for name in names),
                *(cell for row in rows for cell in row),
            ],
            layout=w.Layout(
                grid_template_columns=f"max-content repeat({len(names)}, minmax(40px, 72px))", grid_gap="2px"
            ),
        )
        self.legend = w.HTML()
        self.box = w.VBox([self.legend, grid])

    def show(self, matrices: dict[str, tuple[np.ndarray, float]], state: State) -> None:
        """Fill the cells from `Renderer.pair_matrix`."""
        reach = max([1e-9, *(np.abs(matrix - threshold).max() for matrix, threshold in matrices.values())])
        for (a, b), cell in self.cells.items():
            pair = self.class_names[a] if a == b else f"{self.class_names[a]} and {self.class_names[b]}"
            if not matrices:
                cell.description, cell.tooltip = "", f"set the sliders to {pair}"
                continue
            outliers = list(matrices)[0 if a <= b else -1]
            matrix, threshold = matrices[outliers]
            distance = (matrix[a, b] - threshold) / reach
            verdict, colour = ("OOD", plots.OOD_COLOUR) if distance < 0 else ("ID", plots.ID_COLOUR)
            cell.description = f"{matrix[a, b]:.2f}"
            cell.style.button_color = tint(colour, abs(distance))
            cell.style.font_weight = "bold" if distance < 0 else "normal"
            cell.style.text_color = "white" if distance > 0.6 else "black"
            cell.tooltip = (
                f"{pair}, {label(outliers)}: mean score {matrix[a, b]:.3f}, {verdict} "
                f"(threshold {threshold:.3f}); press to set the sliders"
            )
        if matrices:
            labels = [label(outliers) for outliers in matrices]
            self.legend.value = (
                "<div style='line-height: 18px'>Mean score of four mixtures of every pair at equal weights "
                f"({state.mix}), {state.detector}.<br>"
                f"Above the diagonal: {labels[0]}. Below: {labels[-1]}. "
                f"On it: the classes themselves, {labels[0]}.<br>"
                "Blue: accepted as ID. Orange and bold: OOD. Press a cell to set the sliders to its pair.</div>"
            )


class Export:
    """The state as text, to be taken away or restored, and Python that draws the same."""

    def __init__(self):
        full = w.Layout(width="100%", height="110px")
        self.links = w.HTML()
        self.json, self.code = w.Textarea(layout=full), w.Textarea(layout=full, disabled=True)
        self.restore = button(
            "restore this state", "set everything to the JSON above", w.Layout(width="160px")
        )
        self.box = w.VBox(
            [
                self.links,
                w.HTML("The state; edit or paste another and restore it:"),
                self.json,
                self.restore,
                w.HTML("The same images in Python:"),
                self.code,
            ]
        )

    def show(self, drawing: Drawing, state: State, folder: str) -> None:
        """`folder` is the Python expression of the denoiser's folder."""
        self.links.value = downloads(drawing, state)
        self.json.value = state.to_json()
        self.code.value = state.code(folder)
