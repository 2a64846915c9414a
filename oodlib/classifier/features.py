"""Features of streamed images, each computed once."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from oodlib.classifier.identity import fingerprint_network
from oodlib.classifier.items import BATCH_SIZE
from oodlib.classifier.network import FeatureNetwork
from oodlib.classifier.streams import Stream
from oodlib.errors import InputError
from oodlib.files import Damaged, atomic, fingerprint, reading


class Features(NamedTuple):
    """What a network makes of N images."""

    values: Tensor
    """float32 (N, D), on the CPU."""
    labels: np.ndarray | None
    """int64 (N,)."""
    seconds: float
    """What reading the images and running the network took."""


class FeatureStore:
    """The features of a network by stream, kept in memory and, if asked, in a folder for the next time.

    Args:
        folder: Where to keep them as files, named by the network, its layer and what the images are made of.
    """

    def __init__(self, network: FeatureNetwork, folder: Path | None = None):
        self.network, self.folder = network, None if folder is None else Path(folder)
        self.fingerprint = fingerprint_network(network.network)
        layer = fingerprint(np.frombuffer(network.layer.encode(), np.uint8))
        self._start = f"{self.fingerprint}-{layer}"  # of the files' names
        self._kept: dict[str, Features] = {}

    def of(self, stream: Stream) -> Features:
        """Those of a stream: read where they are there, else computed under a progress bar.

        Raises:
            InputError: An image cannot be read, the network is not what it was, or see `FeatureNetwork`.
        """
        if fingerprint_network(self.network.network) != self.fingerprint:
            raise InputError(
                "the network has other weights, buffers or layers than when the detector was made; make the "
                "detector again"
            )
        if stream.key is None:
            return self._computed(stream)
        if stream.key not in self._kept:
            path = self.folder / f"{self._start}-{stream.key}.safetensors" if self.folder else None
            features = None if path is None or not path.exists() else _read(path)
            if features is None:
                features = self._computed(stream)
                if path is not None:
                    _write(path, features)
            self._kept[stream.key] = features
        return self._kept[stream.key]._replace(
            labels=stream.labels
        )  # which may be asked for in another order

    def _computed(self, stream: Stream) -> Features:
        start = time.perf_counter()
        values, count = torch.empty(0, 0), 0
        labels: list[Tensor] = []
        total = None if stream.count is None else -(-stream.count // BATCH_SIZE)
        bar = dict(total=total, unit="batch", leave=False, delay=1, disable=None)
        for images, of_images in tqdm(stream.batches(), stream.title, **bar):
            part = self.network(images).cpu()
            if not count:
                values = torch.empty(stream.count or len(part), part.shape[1])
            if count + len(part) > len(values):  # where only the end tells how many there are
                values = torch.cat([values, torch.empty_like(values)])
            values[count : count + len(part)] = part
            count += len(part)
            labels += [] if of_images is None else [of_images]
        if not count:
            raise InputError(f"{stream.title} gives no images")
        return Features(
            values[:count], torch.cat(labels).numpy() if labels else None, time.perf_counter() - start
        )


def _write(path: Path, features: Features) -> None:
    tensors = {"values": features.values, "seconds": torch.tensor(features.seconds, dtype=torch.float64)}
    with atomic(path) as part:
        save_file(tensors, part)


def _read(path: Path) -> Features | None:
    """What `_write` wrote; None where it is damaged, as it can be computed again."""
    try:
        with reading(path, "it is computed again"):
            tensors = load_file(path)
            return Features(tensors["values"], None, tensors["seconds"].item())
    except Damaged:
        return None
