"""What several jobs share: models, pictures for a DataLoader, silence."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.table import alternate, number
from oodlib import datasets, presets
from oodlib.detection.detector import Detector
from oodlib.detection.train import fit_detector
from oodlib.device import native_precision
from oodlib.diffusion.denoiser import Denoiser
from oodlib.images import ImageSet
from oodlib.settings import DenoiserModel


def precision() -> str:
    """`bf16` where the processor computes in bfloat16, else `fp32`."""
    return native_precision(torch.device("cpu"))


def described(denoiser: Denoiser) -> str:
    """Its size and precision."""
    size = sum(p.numel() for p in denoiser.parameters())
    return f"{size / 1e6:.1f} M parameters, {denoiser.settings.precision}"


def rgb_denoiser(toy: bool) -> Denoiser:
    """An untrained denoiser of 6.5 M parameters for 32 x 32 RGB images of ten classes."""
    channels = (8, 16) if toy else (64, 128, 128)
    return Denoiser(
        tuple("0123456789"),
        (32, 32, 3),
        DenoiserModel(
            block_out_channels=channels, layers_per_block=2, attention_levels=(1,), precision=precision()
        ),
    )


def digits_classifier(train: ImageSet, seed: int, toy: bool, precision: str = "fp32") -> Detector:
    """A softmax classifier of the preset `digits`, trained on its images; toy: hardly."""
    s = presets.make_settings(head="softmax", precision=precision, seed=seed, epochs=0.3 if toy else None)
    classifier = Detector(train.class_names, s.image_shape, *datasets.mean_and_std(train.images), s)
    with quiet():
        fit_detector(classifier, train.images, train.labels, s)
    return classifier


def matrix_shares(work: Callable[[], object], seconds: Sequence[float], precision: str) -> str:
    """What ours and theirs reach, doing this work in so many seconds, of the rate of a large matrix product."""
    with FlopCounterMode(display=False) as counter:
        work()
    a = torch.randn(2048, 2048, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    rate = 2 * len(a) ** 3 / alternate(5, lambda: a @ a)[0]
    ours, theirs = (counter.get_total_flops() / s / rate for s in seconds)
    return f"{ours:.0%} of the rate of a {precision} matrix product ({number(rate / 1e9)} GFLOP/s), theirs {theirs:.0%}"


@contextmanager
def quiet() -> Iterator[None]:
    """Without the lines that training prints."""
    with redirect_stdout(io.StringIO()):
        yield


class Pictures(torch.utils.data.Dataset):
    """Pairs of a transformed Pillow picture and its label.

    Args:
        images: uint8 (N, H, W, C).
        labels: N of them.
    """

    def __init__(
        self, images: np.ndarray, labels: Sequence, transform: Callable[[Image.Image], torch.Tensor]
    ):
        self.pictures = [Image.fromarray(i.squeeze(-1) if i.shape[-1] == 1 else i) for i in images]
        self.labels, self.transform = labels, transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int) -> tuple:
        return self.transform(self.pictures[i]), self.labels[i]
