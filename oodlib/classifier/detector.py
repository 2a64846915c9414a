"""A detector around a trained network of one's own: fitted and evaluated on images that stream through it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from oodlib.classifier.features import Features, FeatureStore
from oodlib.classifier.identity import class_of, fingerprint_network
from oodlib.classifier.labels import Labels, names_of_classes
from oodlib.classifier.network import FeatureNetwork
from oodlib.classifier.report import Report
from oodlib.classifier.streams import Stream, stream_of
from oodlib.classifier.transforms import Transform, check_transform, sketched, to_unit_range, transformed
from oodlib.classifier.validation import check_bank_size, check_classes, tell_accuracy, tell_promise
from oodlib.datasets.own import sub_folders
from oodlib.datasets.roles import ID_TEST, Role
from oodlib.detection.calibration import expected_calibration_error
from oodlib.detection.detector import UNFITTED, Detector
from oodlib.detection.metrics import check_tpr
from oodlib.detection.scores import BANK_SIZE, Outputs, ScoreSet
from oodlib.errors import InputError, choice, tell
from oodlib.files import read_json, reading, shown, write_json
from oodlib.images import ImageSet
from oodlib.pictures import BACKGROUNDS, Notes, open_picture
from oodlib.reports.tables import image_table

ABOUT = "classifier.json"
WORKERS = min(4, os.cpu_count() or 1)  # processes that read pictures


class ClassifierDetector(Detector):
    """A detector whose features and logits are those of a trained network; see `Detector.from_classifier`."""

    def __init__(
        self,
        network: nn.Module,
        layer: str | None = None,
        class_names: Sequence[str] | None = None,
        transform: Transform | None = None,
        background: str = "white",
        workers: int = WORKERS,
        cache: Path | None = None,
    ):
        nn.Module.__init__(self)
        choice("background", background, BACKGROUNDS)
        if not isinstance(workers, int) or workers < 0:
            raise InputError(f"workers is {workers!r}, expected a whole number from 0")
        if transform is not None and not callable(transform):
            raise InputError(f"transform is {transform!r}, expected a function of a PIL image")
        names = None if class_names is None else names_of_classes(class_names)
        self.backbone = FeatureNetwork(network, layer, None if names is None else len(names))
        linear = self.backbone.linear
        self._are_names_given = names is not None
        self.class_names = names or names_of_classes(range(linear.out_features))
        if transform is None:
            tell(
                "no transform: pictures become RGB in [0, 1] at their own size; give that of your validation images"
            )
        self.transform, self.background, self.workers = transform or to_unit_range, background, workers
        self.scores = ScoreSet().to(linear.weight.device)
        self.features_of = FeatureStore(self.backbone, cache)

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    @property
    def own_score(self) -> str:
        """MSP, or the maximum cosine of a layer without bias, which is a cosine classifier's."""
        return "msp" if self.backbone.linear.bias is not None else "cosine"

    def network_fingerprint(self) -> str:
        """A hash of the network's layers and tensors; see `identity.fingerprint_network`."""
        return fingerprint_network(self.backbone.network)

    def read(self, file: Path, notes: Notes | None = None) -> Tensor:
        """A picture from a file, transformed."""
        return transformed(open_picture(file, notes), self.transform, self.background, f"image {shown(file)}")

    def all_features(self, images: Any) -> Tensor:
        """Features (N, D) of any images that `streams.stream_of` takes."""
        return self.outputs(images).features

    def outputs(self, images: Any) -> Outputs:
        """What scores are computed from, of any images that `streams.stream_of` takes."""
        return self._outputs(self.features_of.of(self._stream(images)))

    def fit(
        self, train: Any, val: Any, tpr: float = 0.95, bank_size: int = BANK_SIZE
    ) -> "ClassifierDetector":
        """Fit every score to training images and its threshold to validation images; returns the detector.

        Prints the accuracy on the validation images first, and whether names and outputs seem to be in another order.

        Args:
            train, val: Labelled images as `streams.stream_of` takes them. Thresholds come from `val` alone.
            tpr: Share of ID images that the thresholds keep.
            bank_size: The largest number of training images that a score may keep.

        Raises:
            InputError: A class has no images, labels do not fit, or images cannot be read.
        """
        check_tpr(tpr)
        check_bank_size(bank_size)
        if not self._are_names_given and isinstance(train, str | Path) and Path(train).expanduser().is_dir():
            self._take_names(sub_folders(Path(train).expanduser()))
        streams = {
            noun: self._stream(given, noun) for noun, given in (("training", train), ("validation", val))
        }
        for noun, stream in streams.items():
            if stream.labels is not None:  # known before anything is computed
                check_classes(noun, stream.labels, self.class_names)
        of_val = self.features_of.of(streams["validation"])
        check_classes("validation", of_val.labels, self.class_names)
        probabilities = self._outputs(of_val).logits.double().softmax(-1).cpu().numpy()
        has_names = streams["validation"].has_names
        tell_accuracy(probabilities.argmax(1), of_val.labels, self.class_names, has_names)
        tell_promise(len(of_val.labels), tpr)
        of_train = self.features_of.of(streams["training"])
        check_classes("training", of_train.labels, self.class_names)
        labels = torch.as_tensor(of_train.labels, device=self.device)
        with torch.inference_mode():
            self.scores.fit(self._outputs(of_train), labels, self._outputs(of_val), tpr, bank_size)
        return self

    def _take_names(self, names: Sequence[str]) -> None:
        """Take the class folders in their order, as most data sets number them, where no names were given."""
        if len(names) != len(self.class_names):
            raise InputError(
                f"there are {len(names)} class folders for {len(self.class_names)} outputs; give class_names="
            )
        self.class_names, self._are_names_given = tuple(names), True
        tell(f"class names are those of the folders, in their order: {', '.join(names)}")

    def evaluate(
        self,
        id: Any,
        near: Any = (),
        far: Any = (),
        shifted: Any = (),
    ) -> Report:
        """Every score on ID test images, OOD sets and shifted ID images.

        Args:
            id: Labelled test images, as `streams.stream_of` takes them.
            near, far: One OOD set or a list of them, or a mapping of titles to sets: near in kind to the ID images,
                and far from them.
            shifted: Labelled ID images as they may come in use: darker, blurred, from another camera.

        Raises:
            InputError: The detector is not fitted, there is no OOD set, or two sets have one title.
        """
        if not self.scores.thresholds:
            raise InputError(UNFITTED)
        sets = [(ID_TEST, "ID test", Role.ID, id)]
        for role, given in ((Role.SHIFTED_ID, shifted), (Role.NEAR, near), (Role.FAR, far)):
            sets += [(str(title), str(title), role, images) for title, images in _named(given).items()]
        titles = [str(title) for _, title, *_ in sets]
        if len(set(titles) | {ID_TEST}) <= len(titles):
            raise InputError(
                f"two sets have one title among {', '.join(titles)}; give a mapping of titles to sets"
            )
        if not any(role.is_ood for _, _, role, _ in sets):
            raise InputError("there is no OOD set; give near= or far=")
        streams = [self._stream(images, None if role.is_ood else title) for _, title, role, images in sets]
        tables, first = [], None
        for (key, title, role, _), stream in zip(sets, streams, strict=True):
            features = self.features_of.of(stream)
            outputs = self._outputs(features)
            probabilities = outputs.logits.double().softmax(-1).cpu().numpy()
            names = np.array(self.class_names)
            predicted = names[probabilities.argmax(1)]
            right = None if features.labels is None else names[features.labels]
            about = {"set": key, "title": title, "role": str(role), "index": range(len(predicted))}
            table = image_table(about, predicted, right).assign(file="", **self.scores(outputs))
            tables.append(table.assign(file=stream.names) if stream.names else table)
            if first is None:
                ece = expected_calibration_error(probabilities, features.labels)
                first = dict(ece=ece, seconds_per_image=features.seconds / len(table))
        return Report(pd.concat(tables, ignore_index=True), dict(self.thresholds), self.own_score, **first)

    def save(self, folder: Path) -> None:
        """Write scores, thresholds, class names and the fingerprint of the network; not the network."""
        about = {
            "class_names": list(self.class_names),
            "layer": self.backbone.layer,
            "background": self.background,
            "module": class_of(self.backbone.network),
            "transform": sketched(self.transform),
            "network": self.network_fingerprint(),
        }
        self.save_scores(folder)
        write_json(Path(folder) / ABOUT, about)

    @classmethod
    def take_back(
        cls, folder: Path, network: nn.Module | None, transform: Transform | None, **options: Any
    ) -> "ClassifierDetector":
        """Read what `save` wrote, around the same network; see `Detector.load`."""
        path = Path(folder) / ABOUT
        with reading(path, "fit the detector again"):
            about = read_json(path)
            names = [
                about[n] for n in ("class_names", "layer", "background", "module", "transform", "network")
            ]
        class_names, layer, background, module, sketch, fingerprint = names
        if network is None:
            raise InputError(
                f"the detector in {folder} was made of a {module}; give it as network= or --network"
            )
        if fingerprint_network(network) != fingerprint:
            raise InputError(
                f"the {class_of(network)} has other weights, buffers or layers than the {module} that {folder} was "
                "made of; give that one"
            )
        check_transform(transform, sketch, folder)
        detector = cls(network, layer, class_names, transform, background, **options)
        detector.load_scores(folder)
        return detector

    def _stream(self, images: Any, noun: str | None = None) -> Stream:
        """Images as a stream; with a noun, which errors call them by, they need labels."""
        labels = None if noun is None else Labels(noun, self.class_names)
        options = dict(background=self.background, workers=self.workers)
        return stream_of(images, self.transform, labels, **options)

    @torch.inference_mode()
    def _outputs(self, features: Features) -> Outputs:
        values = features.values.to(self.device)
        weight, bias = self.backbone.linear.weight.detach().float(), self.backbone.linear.bias
        return Outputs(
            values, self.backbone.logits(values), weight, None if bias is None else bias.detach().float()
        )


def _named(sets: Any) -> Mapping[str, Any]:
    """OOD sets by title: a path's last part, else what kind of stream it is."""
    if isinstance(sets, Mapping):
        return sets
    is_list = isinstance(sets, tuple | list) and not isinstance(sets, ImageSet)
    if not is_list or any(isinstance(item, Image.Image) or type(item) is tuple for item in sets[:1]):
        sets = [sets]
    named: dict[str, Any] = {}
    for images in sets:
        title = (
            Path(images).expanduser().resolve().name
            if isinstance(images, str | Path)
            else type(images).__name__
        )
        if title in named:
            raise InputError(f"two sets have the title {title}; give a mapping of titles to sets")
        named[title] = images
    return named
