"""How the explorer shows what was drawn: pictures as PNGs, words and verdicts as HTML; functions of what is drawn."""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from oodlib.explorer.renderer import Drawing
from oodlib.explorer.state import IMAGES, State
from oodlib.reports import plots
from oodlib.reports.names import label

COLUMNS = 4

CSS = f"""<style>
.oodlib {{ max-width: 980px; overflow: hidden; }}
.oodlib .oodlib-pixels {{ image-rendering: pixelated; object-fit: fill; }}
.oodlib-grid {{ display: grid; font-size: 10.5px; line-height: 15px;
  letter-spacing: -0.1px; font-variant-numeric: tabular-nums; }}
.oodlib-grid > div {{ overflow: hidden; white-space: nowrap; text-overflow: ellipsis; }}
.oodlib-grid span, .oodlib-line span {{ padding: 0 3px; border-radius: 3px; }}
.oodlib-grid small {{ font-size: 9.5px; letter-spacing: -0.4px; }}
.oodlib-grid br + b {{ margin-left: 0; }}
.oodlib-grid b {{ margin-left: 5px; }}
.oodlib-id {{ background: {plots.ID_COLOUR}; color: white; }}
.oodlib-ood {{ background: {plots.OOD_COLOUR}; color: black; }}
.oodlib-marks {{ position: relative; height: 100%; pointer-events: none; }}
.oodlib-marks i {{ position: absolute; bottom: 22%; height: 22%; width: 2px; background: black;
  box-shadow: 0 0 0 1px white; }}
.oodlib-tie {{ position: relative; height: 14px; line-height: 14px; }}
.oodlib-tie span {{ position: absolute; transform: translateX(-50%); }}
.oodlib-line {{ height: 20px; line-height: 20px; overflow: hidden; white-space: nowrap; text-overflow: ellipsis;
  font-variant-numeric: tabular-nums; }}
.oodlib-words {{ font-weight: bold; }}
.oodlib a {{ color: var(--jp-content-link-color, #0067c0); text-decoration: underline; }}
.oodlib-error {{ color: var(--jp-error-color0, #b00020); font-weight: 600; }}
</style>"""

LEGEND = (
    '<div class="oodlib-line">test images: <span class="oodlib-id">ID</span> <span class="oodlib-ood">OOD</span>, '
    "┆ threshold, ▮ samples; without, with outliers</div>"
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


def figure_png(figure: Figure, dpi: float | str = "figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def row(images: np.ndarray) -> bytes:
    """Images (N, H, W, C) in one row, as a PNG."""
    return png(sheet(images, len(images)))


def line(text: str, css: str = "") -> str:
    """A text on one line, the whole of which shows where the mouse rests on it."""
    text = html.escape(text)
    return f'<div class="oodlib-line {css}" title="{text}">{text}</div>'


def label_in_words(state: State) -> str:
    """What the denoiser is given."""
    weights = zip(state.class_names, state.label_weights.tolist(), strict=True)
    words = ", ".join(f"{name}: {weight:.2f}" for name, weight in weights if weight > 0)
    if not words:
        return "All weights are 0: no class, the unconditional sample"
    return f"{state.mix}: the denoiser is given {words}"


def captions(drawing: Drawing, class_names: Sequence[str], columns: int, start: int, top: int) -> str:
    """What each detector says of `columns` images from `start`, below them: its verdict, the score beside the threshold
    and the `top` classes; for none of these verdict and score."""
    cells = []
    for i in range(start, start + columns):
        lines = []
        for outliers, verdict in drawing.verdicts.items():
            word = "ood" if verdict.is_ood[i] else "id"
            score = f"{verdict.scores[i]:.2f}"
            best = zip(verdict.top[i, :top], verdict.probabilities[i], strict=False)
            named = "".join(f"<b>{html.escape(class_names[c])}</b> {p:.0%}" for c, p in best)
            chip = f'<span class="oodlib-{word}">{word.upper()}'
            if not top:
                lines.append(f"{chip} {score}</span>")
                continue
            trained = (
                "without" if outliers == "none" else "with"
            )  # outliers; which stands above the histogram
            compared = f"{score}{'&lt;' if verdict.is_ood[i] else '≥'}{verdict.threshold:.2f}"
            lines.append(f"<small>{trained}</small> {chip}</span> <small>{compared}</small><br>{named}")
        cells.append(f"<div>{'<br>'.join(lines)}</div>")
    gap = 100 / (9 * columns - 1)  # as in a sheet
    style = f"grid-template-columns: repeat({columns}, 1fr); column-gap: {gap:.3f}%"
    return f'<div class="oodlib-grid" style="{style}">{"".join(cells)}</div>'


def histogram(
    id_scores: np.ndarray, ood_scores: np.ndarray, threshold: float, title: str
) -> tuple[bytes, tuple[float, float, float, float]]:
    """Scores of test images as a PNG; and the least and the largest score of its axis, and where in the picture's width
    these two stand, from 0 to 1."""
    figure = plots.score_histogram(id_scores, ood_scores, threshold, title)
    axes = figure.axes[0]
    return figure_png(figure, dpi=160), (*axes.get_xlim(), *axes.get_position().intervalx)


def marks(scores: np.ndarray, axis: tuple[float, float, float, float]) -> str:
    """Where scores stand on the axis of a `histogram`, to be laid over it."""
    low, high, left, right = axis
    places = ((scores - low) / (high - low)).clip(0, 1) * (right - left) + left
    bars = "".join(f'<i style="left: calc({100 * place:.2f}% - 1px)"></i>' for place in places)
    return f'<div class="oodlib-marks">{bars}</div>'


def tint(colour: str, amount: float) -> str:
    """`colour` mixed with white; 0 is white."""
    channels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 + (c - 255) * min(1, 0.15 + 0.85 * amount)):02x}" for c in channels)


def downloads(drawing: Drawing, state: State) -> str:
    """Links to the images as a PNG and to the state as JSON."""
    pixels = png(sheet(drawing.images, COLUMNS), scale=max(1, 128 // drawing.images.shape[1]))
    links = (
        ("picture as PNG", "label_mixup.png", "image/png", pixels),
        ("state as JSON", "label_mixup.json", "application/json", state.to_json().encode()),
    )
    return "Download the " + ", the ".join(
        f'<a download="{name}" href="data:{mime};base64,{base64.b64encode(content).decode()}">{words}</a>'
        for words, name, mime, content in links
    )


def static_figure(drawing: Drawing, state: State) -> Figure:
    """A drawing and its state as one figure, for where no widgets can stand."""
    titles = [
        "\n".join(
            f"{'OOD' if v.is_ood[i] else 'ID'} {v.scores[i]:.2f} {state.class_names[v.top[i, 0]]}"
            for v in drawing.verdicts.values()
        )
        for i in range(IMAGES)
    ]
    detectors = ", below: ".join(label(outliers) for outliers in drawing.verdicts)
    return plots.image_grid(
        [drawing.images],
        f"{label_in_words(state)}, noise seed {state.seed}"
        + (f"\n{state.detector}: {detectors}" if detectors else ""),
        column_titles=titles,
        cell=1.1,
    )
