"""From weights changed to a PNG: the eight digits of the explorer with their verdicts, and one larger image alone.

Nobody else has one. The first drawing, which also loads the detectors, is not counted.
"""

import statistics
import time

import torch

from benchmarks.models import described, rgb_denoiser
from benchmarks.table import Row, number
from oodlib import presets, pretrained
from oodlib.conditions import condition
from oodlib.diffusion.denoiser import Denoiser
from oodlib.diffusion.sample import sample
from oodlib.explorer.renderer import Renderer, find_detectors
from oodlib.explorer.state import State
from oodlib.explorer.view import COLUMNS, png, sheet

RGB_STEPS = 5


def rows(toy: bool) -> list[Row]:
    repetitions = 3 if toy else 41
    run = pretrained.shipped("digits")
    renderer = Renderer(Denoiser.load(run.denoiser), find_detectors(run, condition(presets.make_settings())))
    classes = renderer.denoiser.class_names

    def digits(weight: float) -> bytes:
        weights = (1.0, weight, *(0.0 for _ in classes[2:]))
        state = State(class_names=classes, weights=weights, detector=next(iter(renderer.detectors)))
        drawing = renderer.draw(state)
        assert len(drawing.verdicts) == 2, f"verdicts of {len(drawing.verdicts)} detectors, expected two"
        return png(sheet(drawing.images, COLUMNS))

    denoiser = rgb_denoiser(toy).eval()

    def rgb(weight: float) -> bytes:
        weights = torch.tensor([[1.0, weight, *[0.0] * 8]])
        return png(sheet(sample(denoiser, weights, num_inference_steps=RGB_STEPS), 1))

    found = []
    for job, draw, target, note in (
        ("explorer, 8 digits images", digits, 35, "UniPC, 8 steps, with the verdicts of two detectors"),
        ("explorer, a 32 x 32 RGB image", rgb, 70, f"UniPC, {RGB_STEPS} steps, {described(denoiser)}"),
    ):
        draw(0.5)
        seconds = []
        for i in range(repetitions):
            start = time.perf_counter()
            draw(i / repetitions)
            seconds.append(time.perf_counter() - start)
        p50 = 1000 * statistics.median(seconds)
        found.append(Row(job, f"p50 {number(p50)} ms", "", p50, target, "ms", at_most=True, note=note))
    return found
