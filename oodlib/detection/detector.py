"""A detector: backbone, head, normalisation, class names, scores and thresholds as one object."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from oodlib import storage
from oodlib.detection.heads import make_head
from oodlib.detection.metrics import is_ood
from oodlib.detection.scores import BANK_SIZE, Outputs, ScoreSet
from oodlib.device import autocast, evaluating, images_at_once
from oodlib.errors import InputError, choice
from oodlib.images import uint8_tensor
from oodlib.pictures import Notes, read_picture
from oodlib.seeds import initial_weights
from oodlib.settings import DetectorModel, as_made
from oodlib.training import fingerprint_weights

if TYPE_CHECKING:
    from oodlib.classifier.detector import ClassifierDetector

UNFITTED = "this detector has no threshold yet; call fit_scores, or fit if it was made from a classifier"


class Prediction(NamedTuple):
    """What a detector says of N images."""

    classes: np.ndarray
    """int64 (N,), indices into the detector's `class_names`."""
    is_ood: np.ndarray
    """bool (N,), whether the score is below the threshold, or NaN."""
    scores: np.ndarray
    """float64 (N,), larger = more in-distribution."""


class Detector(nn.Module):
    """Classifies images and says which of them are out of distribution.

    Args:
        class_names: Names of the C classes.
        image_shape: (H, W, channels) of the images.
        mean, std: Of each channel over the training images, in [0, 1].
        background: What shows through transparent pixels of pictures, here as in training.
        settings: The backbone's and the head's, the seed of their initial weights, and the precision: `bf16` for a
            backbone under autocast to bfloat16; weights and head are float32 all the same.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        image_shape: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        settings: DetectorModel = DetectorModel(),  # noqa: B008, it does not change
        background: str = "white",
    ):
        # Here, because torchvision takes a second to import.
        from oodlib.detection.backbones import make_backbone

        super().__init__()
        if not (np.isfinite([*mean, *std]).all() and min(std) > 0):
            raise InputError(
                f"mean {list(mean)} and std {list(std)} of the channels, expected finite, std above 0"
            )
        with initial_weights(settings.seed, "detector"):
            self.backbone, num_features = make_backbone(settings.backbone, image_shape[2])
            self.head = make_head(settings.head, num_features, len(class_names), **settings.head_options)
        # Trains a ResNet-50 half as fast again at 32 x 32 in fp32, and slows a small one at 8 x 8.
        is_plain = settings.precision == "fp32" and image_shape[0] <= 8
        self.layout = torch.contiguous_format if is_plain else torch.channels_last
        self.backbone.to(memory_format=self.layout)
        self.class_names, self.image_shape = tuple(class_names), tuple(image_shape)
        self.precision, self.background = settings.precision, background
        self.config = settings.values(DetectorModel) | {
            "class_names": list(class_names),
            "image_shape": list(image_shape),
            "mean": [float(m) for m in mean],
            "std": [float(s) for s in std],
            "background": background,
        }
        # Buffers, to be on the device before training needs them; saved with the settings, not with the weights.
        for name in ("mean", "std"):
            channels = torch.tensor(self.config[name]).view(1, -1, 1, 1)
            self.register_buffer(name, channels, persistent=False)
        self.scores = ScoreSet()

    @staticmethod
    def from_classifier(network: nn.Module, layer: str | None = None, **options: Any) -> "ClassifierDetector":
        """A detector around a trained network of one's own, which is used as it is.

        Args:
            network: Takes a batch of tensors and gives logits.
            layer: The name of its last linear layer; None to take the only one that fits.
            options: `class_names`, of the outputs in their order; `transform`, from a PIL image to a tensor, as for the
                network's validation images; `background` for transparent pixels; `workers`, processes that read
                pictures; `cache`, a folder that keeps features for the next time.

        Raises:
            InputError: No linear layer fits, or several do.
        """
        from oodlib.classifier.detector import ClassifierDetector  # here, because it builds on this class

        return ClassifierDetector(network, layer, **options)

    @property
    def device(self) -> torch.device:
        return self.mean.device

    @property
    def own_score(self) -> str:
        """The score that is taken if none is named: its head's."""
        return self.head.default_score

    @property
    def thresholds(self) -> dict[str, float]:
        """Of each fitted score; an image whose score is below is OOD."""
        return self.scores.thresholds

    def read(self, file: Path, notes: Notes | None = None) -> np.ndarray:
        """A picture from a file as `score` takes it, uint8 (H, W, C); see `pictures.read_picture`."""
        return read_picture(file, self.image_shape, self.background, notes)

    def features(self, images: Tensor) -> Tensor:
        """Features (N, D) float32 of uint8 images (N, C, H, W) on this device."""
        normalised = (images.float() / 255 - self.mean) / self.std
        normalised = normalised.to(next(self.backbone.parameters(), normalised).dtype)
        with autocast(self.precision, self.device):
            return self.backbone(normalised.contiguous(memory_format=self.layout)).float()

    @torch.inference_mode()
    def all_features(self, images: Any) -> Tensor:
        """Features (N, D) of any images that `score` takes, in evaluation mode."""
        images = uint8_tensor(images, self.image_shape, self.background)
        batches = images.split(images_at_once(self.image_shape, self.device))
        with evaluating(self):
            return torch.cat([self.features(batch.to(self.device)) for batch in batches])

    @torch.inference_mode()
    def outputs(self, images: Any) -> Outputs:
        """What scores are computed from, of any images that `score` takes, in evaluation mode."""
        features = self.all_features(images)
        if self.head.weight.dtype != torch.float32:
            raise InputError(
                f"the detector's head is {self.head.weight.dtype}; bring it back with detector.float()"
            )
        with evaluating(self.head):
            head = self.head
            bias = None if head.bias is None else head.bias.detach()
            return Outputs(features, head.logits(features), head.weight.detach(), bias, head.is_normalised)

    def fit_scores(
        self,
        train_images: Any,
        train_labels: np.ndarray,
        val_images: Any,
        tpr: float = 0.95,
        bank_size: int = BANK_SIZE,
    ) -> None:
        """Fit what comes after training: every score to training images, of which one may keep at most `bank_size`,
        and for each the threshold that keeps `tpr` of the validation images."""
        labels = torch.as_tensor(train_labels, device=self.device)
        self.scores.fit(self.outputs(train_images), labels, self.outputs(val_images), tpr, bank_size)

    @torch.inference_mode()
    def classify(self, images: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Class probabilities of N images, float64 (N, C), and every score that is fitted, each float64 (N,).

        The predicted class is the one with the highest probability.
        """
        outputs = self.outputs(images)
        return outputs.logits.double().softmax(-1).cpu().numpy(), self.scores(outputs)

    def all_scores(self, images: Any) -> dict[str, np.ndarray]:
        """Every score that is fitted, of N images, each float64 (N,)."""
        return self.classify(images)[1]

    def score(self, images: Any, score: str | None = None) -> np.ndarray:
        """Score N images, larger = more in-distribution; float64 (N,).

        Args:
            images: Whatever `images.uint8_tensor` takes: arrays, tensors or PIL images.
            score: A name in `scores.SCORES`; None for the head's own (softmax: msp, others: cosine).

        Raises:
            InputError: The images are of another type, range or shape, or the score is not known or not fitted.
        """
        name = self._score_name(score)
        if not self.scores[name].is_fitted:
            raise InputError(f"score {name} is not fitted yet; call fit_scores after training the detector")
        return self.all_scores(images)[name]

    def predict(self, images: Any, score: str | None = None) -> Prediction:
        """Class, verdict and score of N images; arguments as for `score`."""
        name = self._score_name(score)
        if name not in self.thresholds:
            raise InputError(UNFITTED)
        probabilities, scores = self.classify(images)
        return Prediction(probabilities.argmax(-1), is_ood(scores[name], self.thresholds[name]), scores[name])

    def _score_name(self, score: str | None) -> str:
        choice("score", score, (None, *self.scores))
        return score or self.own_score

    def network_fingerprint(self) -> str:
        """A hash of the weights of backbone and head."""
        return fingerprint_weights(self.backbone, self.head)

    def save(self, folder: Path) -> None:
        """Write the network and, where they are fitted, the scores."""
        self.save_network(folder)
        if self.thresholds:
            self.save_scores(folder)

    def save_network(self, folder: Path) -> None:
        """Write `detector.safetensors` and `detector.json` in place of any detector in the folder, scores included."""
        folder = Path(folder)
        for name in ("scores.json", "scores.safetensors"):
            (folder / name).unlink(missing_ok=True)
        parts = ("backbone.", "head.")
        tensors = {name: tensor for name, tensor in self.state_dict().items() if name.startswith(parts)}
        storage.write(folder, "detector", {**self.config, "network": self.network_fingerprint()}, tensors)

    def save_scores(self, folder: Path) -> None:
        """Write `scores.safetensors` and `scores.json`, which `load` takes for this network alone."""
        if not self.thresholds:
            raise InputError(UNFITTED)
        self.scores.save(Path(folder), self.network_fingerprint())

    @classmethod
    def load(
        cls,
        folder: Path,
        device: str | torch.device = "cpu",
        *,
        network: nn.Module | None = None,
        transform: Callable | None = None,
    ) -> "Detector":
        """Read a detector that was saved, with its scores where they are there; it comes in evaluation mode.

        Args:
            network, transform: Those of `from_classifier` that the detector was made of; the network stays on its
                device. None for any other detector.

        Raises:
            InputError: A file is missing or damaged, or of another network.
        """
        folder = Path(folder)
        if (folder / "classifier.json").is_file():
            from oodlib.classifier.detector import ClassifierDetector  # here, because it builds on this class

            return ClassifierDetector.take_back(folder, network, transform)
        if network is not None and not (folder / "detector.json").is_file():
            raise InputError(f"{folder} holds no classifier.json; save a detector there")
        if network is not None:
            raise InputError(f"the detector in {folder} holds its own network; give none")
        with storage.reading(folder, "detector") as (config, tensors):
            fingerprint = config.pop("network")
            images = [config.pop(name) for name in ("class_names", "image_shape", "mean", "std")]
            background = config.pop("background", "white")
            detector = cls(*images, as_made(DetectorModel, config), background)
            detector.load_state_dict(tensors)
            if detector.network_fingerprint() != fingerprint:
                raise InputError(
                    f"detector.safetensors has other weights than {folder / 'detector.json'} says; give those"
                )
        if (folder / "scores.json").is_file():
            detector.load_scores(folder)
        return detector.to(device).eval()

    def load_scores(self, folder: Path) -> None:
        """Read what `save_scores` wrote for this network.

        Raises:
            InputError: A file is missing or damaged, or of another network.
        """
        self.scores.load(Path(folder), self.network_fingerprint())
        self.scores.to(self.device)
