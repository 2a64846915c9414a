"""A detector: backbone, head, normalisation, class names and thresholds as one object."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from oodlib.detection.heads import make_head
from oodlib.detection.metrics import threshold_at_tpr
from oodlib.detection.scores import KNN, Mahalanobis, energy, max_cosine, msp
from oodlib.device import autocast, images_at_once
from oodlib.errors import InputError, choice
from oodlib.files import atomic, read_json, write_json
from oodlib.images import fit_picture
from oodlib.presets import SCORES
from oodlib.seeds import initial_weights


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block, and what it was before after it."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


class Prediction(NamedTuple):
    """What a detector says of N images."""

    classes: np.ndarray
    """int64 (N,), indices into the detector's `class_names`."""
    is_ood: np.ndarray
    """bool (N,), whether the score is below the threshold."""
    scores: np.ndarray
    """float64 (N,), larger = more in-distribution."""


class Detector(nn.Module):
    """Classifies images and says which of them are out of distribution.

    Args:
        backbone: A name in `backbones.BACKBONES`.
        head: A name in `heads.HEADS`.
        class_names: Names of the C classes.
        image_shape: (H, W, channels) of the images.
        mean, std: Of each channel over the training images, in [0, 1].
        head_options: Options of the head, such as its `scale` and `margin`.
        precision: `fp32`, or `bf16` for a backbone under autocast to bfloat16; weights and head are float32 in both.
        seed: Of the initial weights.
    """

    def __init__(
        self,
        backbone: str,
        head: str,
        class_names: tuple[str, ...],
        image_shape: tuple[int, int, int],
        mean: list[float],
        std: list[float],
        head_options: dict[str, float] | None = None,
        precision: str = "fp32",
        seed: int = 0,
    ):
        from oodlib.detection.backbones import make_backbone

        super().__init__()
        self.config = dict(
            backbone=backbone,
            head=head,
            class_names=list(class_names),
            image_shape=list(image_shape),
            mean=[float(m) for m in mean],
            std=[float(s) for s in std],
            head_options=head_options or {},
            precision=precision,
            seed=seed,
        )
        self.class_names, self.image_shape = tuple(class_names), tuple(image_shape)
        with initial_weights(seed, "detector"):
            self.backbone, num_features = make_backbone(backbone, image_shape[2])
            self.head = make_head(head, num_features, len(class_names), **(head_options or {}))
        # Trains a ResNet-50 half as fast again at 32 x 32 in fp32, and slows a small one at 8 x 8.
        is_plain = precision == "fp32" and image_shape[0] <= 8
        self.layout = torch.contiguous_format if is_plain else torch.channels_last
        self.backbone.to(memory_format=self.layout)
        self.thresholds: dict[str, float] = {}
        # Buffers, to be on the device before training needs them; saved with the settings, not with the weights.
        for name in ("mean", "std"):
            channels = torch.tensor(self.config[name]).view(1, -1, 1, 1)
            self.register_buffer(name, channels, persistent=False)
        self.register_buffer("whitening", torch.zeros(num_features, num_features, dtype=torch.float64))
        self.register_buffer(
            "whitened_means", torch.zeros(len(class_names), num_features, dtype=torch.float64)
        )
        self.register_buffer("bank", torch.zeros(1, num_features, dtype=torch.float16))

    @property
    def device(self) -> torch.device:
        return self.whitening.device

    def features(self, images: Tensor) -> Tensor:
        """Features (N, D) float32 of uint8 images (N, C, H, W) on this device."""
        normalised = (images.float() / 255 - self.mean) / self.std
        with autocast(self.config["precision"], self.device):
            return self.backbone(normalised.contiguous(memory_format=self.layout)).float()

    @torch.inference_mode()
    def all_features(self, images: Any) -> Tensor:
        """Features (N, D) of any images that `score` takes, in evaluation mode."""
        batches = self.to_uint8(images).split(images_at_once(self.image_shape, self.device))
        with evaluating(self):
            return torch.cat([self.features(batch.to(self.device)) for batch in batches])

    def fit_scores(
        self,
        train_images: Any,
        train_labels: np.ndarray,
        val_images: Any,
        tpr: float = 0.95,
        bank_size: int = 5000,
    ) -> None:
        """Fit what comes after training: the Mahalanobis statistics and the nearest neighbours (at most `bank_size`)
        on training images, and for every score the threshold that keeps `tpr` of the validation images."""
        labels = torch.as_tensor(train_labels, device=self.device)
        features = self.all_features(train_images)
        fitted = Mahalanobis.fit(features, labels, len(self.class_names))
        # In the memory layout that a loaded detector has: sums depend on it.
        self.whitening, self.whitened_means = fitted.whitening.contiguous(), fitted.means.contiguous()
        self.bank = KNN.fit(features, bank_size).bank
        self.thresholds = {name: threshold_at_tpr(s, tpr) for name, s in self.all_scores(val_images).items()}

    @torch.inference_mode()
    def classify(self, images: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Class probabilities of N images, float64 (N, C), and every score in `presets.SCORES`, each float64 (N,).

        The predicted class is the one with the highest probability.
        """
        features = self.all_features(images)
        with evaluating(self.head):
            logits = self.head.logits(features)
        found = (
            msp(logits),
            energy(logits),
            max_cosine(features, self.head.weight),
            Mahalanobis(self.whitening, self.whitened_means)(features),
            KNN(self.bank)(features),
        )
        scores = {name: score.cpu().numpy() for name, score in zip(SCORES, found, strict=True)}
        return logits.double().softmax(-1).cpu().numpy(), scores

    def all_scores(self, images: Any) -> dict[str, np.ndarray]:
        """Every score in `presets.SCORES` of N images, each float64 (N,)."""
        return self.classify(images)[1]

    def score(self, images: Any, score: str | None = None) -> np.ndarray:
        """Score N images, larger = more in-distribution; float64 (N,).

        Args:
            images: uint8 or float in [0, 1], an array or tensor of shape N x H x W x C, N x C x H x W or (grey)
                N x H x W, or PIL images of any size, which are centre-cropped and scaled.
            score: One of `msp`, `energy`, `cosine`, `mahalanobis`, `knn`; None for the head's own (softmax: msp,
                others: cosine).

        Raises:
            InputError: The images are of another type, range or shape.
        """
        return self.all_scores(images)[self._score_name(score)]

    def predict(self, images: Any, score: str | None = None) -> Prediction:
        """Class, verdict and score of N images; arguments as for `score`."""
        name = self._score_name(score)
        if name not in self.thresholds:
            raise InputError("this detector has no threshold yet; call fit_scores after training it")
        probabilities, scores = self.classify(images)
        return Prediction(probabilities.argmax(-1), scores[name] < self.thresholds[name], scores[name])

    def _score_name(self, score: str | None) -> str:
        choice("score", score, (None, *SCORES))
        return score or self.head.default_score

    def to_uint8(self, images: Any) -> Tensor:
        """Images as `score` takes them, as a uint8 tensor (N, C, H, W)."""
        height, width, channels = self.image_shape
        expected = f"expected N x {height} x {width} x {channels}, uint8 or float in [0, 1], or PIL images"
        if isinstance(images, Image.Image):
            images = [images]
        if isinstance(images, list | tuple):
            if not images or not all(isinstance(image, Image.Image) for image in images):
                raise InputError(
                    f"images are a {type(images).__name__} of something else than pictures; {expected}"
                )
            images = np.stack([fit_picture(image, self.image_shape) for image in images])
        if not isinstance(images, np.ndarray | Tensor):
            raise InputError(f"images are a {type(images).__name__}; {expected}")
        if isinstance(images, np.ndarray):
            images = torch.from_numpy(np.array(images))  # a copy: neither read-only nor with negative strides
        images = images.detach().cpu()
        if images.ndim == 3 and channels == 1:
            images = images[..., None]
        if images.ndim != 4 or not len(images):
            raise InputError(f"images have shape {tuple(images.shape)}; {expected}")
        if tuple(images.shape[1:]) == self.image_shape:
            images = images.permute(0, 3, 1, 2)
        if tuple(images.shape[1:]) != (channels, height, width):
            raise InputError(f"images have shape {tuple(images.shape)}; {expected}")
        if images.is_floating_point():
            if not bool(((images >= 0) & (images <= 1)).all()):
                low, high = images.min().item(), images.max().item()
                raise InputError(f"images range from {low:.3g} to {high:.3g}; {expected}")
            images = (images.float() * 255).round().to(torch.uint8)
        if images.dtype != torch.uint8:
            raise InputError(f"images are {images.dtype}; {expected}")
        return images.clone(memory_format=torch.contiguous_format)

    def save(self, folder: Path) -> None:
        """Write `detector.safetensors` and then `detector.json` to `folder`, each atomically."""
        folder = Path(folder)
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        with atomic(folder / "detector.safetensors") as part:
            save_file(tensors, part)
        write_json(folder / "detector.json", {**self.config, "thresholds": self.thresholds})

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> "Detector":
        """Read a detector that `save` wrote; it comes in evaluation mode."""
        folder = Path(folder)
        for name in ("detector.json", "detector.safetensors"):
            if not (folder / name).is_file():
                raise InputError(f"{folder} holds no {name}; train one with notebook 03_train_detector")
        config = read_json(folder / "detector.json")
        thresholds = config.pop("thresholds")
        detector = cls(**config)
        tensors = load_file(folder / "detector.safetensors")
        if "bank" not in tensors:
            raise InputError(
                f"{folder} is from before the score knn; delete it and train it again with notebook 03_train_detector"
            )
        detector.bank = torch.empty_like(tensors["bank"])  # as many images as it was fitted on
        detector.load_state_dict(tensors)
        detector.thresholds = thresholds
        return detector.to(device).eval()
