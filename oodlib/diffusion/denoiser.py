"""A class-conditional denoiser whose condition is a vector of label weights, so that labels can be mixed.

The network is diffusers' `UNet2DModel`. Its class embedding is a linear map, without a bias, of the label
weights: a one-hot vector looks one class up, any other mixes classes, and zeros mean no class at all.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from oodlib import storage
from oodlib.device import autocast
from oodlib.diffusion.schedule import noise_schedule
from oodlib.errors import choice
from oodlib.seeds import initial_weights
from oodlib.settings import DenoiserModel, as_made


class Denoiser(nn.Module):
    """DDPM (Ho et al. 2020, arXiv 2006.11239) on images in [-1, 1], conditioned on label weights.

    Args:
        class_names: Names of the C classes.
        image_shape: (H, W, channels) of the images; H = W, a multiple of 2 for each level but the first.
        settings: The network's, the seed of its initial weights, and its precision: `bf16` for autocast to bfloat16;
            the weights are float32 all the same.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        image_shape: Sequence[int],
        settings: DenoiserModel = DenoiserModel(),  # noqa: B008, it does not change
    ):
        from diffusers import UNet2DModel  # here, because it takes seconds to import

        class Network(UNet2DModel):
            # Else looked up among all modules at each call, which takes 8 % of a small network's time.
            dtype = torch.float32

        super().__init__()
        self.class_names, self.image_shape, self.settings = tuple(class_names), tuple(image_shape), settings
        size, _, channels = image_shape
        levels = range(len(settings.block_out_channels))
        for level in settings.attention_levels:
            choice("attention level", level, levels)
        attends = ["Attn" * (level in settings.attention_levels) for level in levels]
        with initial_weights(settings.seed, "denoiser"):
            self.unet = Network(
                sample_size=size,
                in_channels=channels,
                out_channels=channels,
                block_out_channels=settings.block_out_channels,
                layers_per_block=settings.layers_per_block,
                # At 8 x 8 attention in the middle alone: the other levels gain nothing and cost a third more.
                down_block_types=tuple(f"{attention}DownBlock2D" for attention in attends),
                up_block_types=tuple(f"{attention}UpBlock2D" for attention in reversed(attends)),
                attention_head_dim=None,  # one head
                dropout=settings.dropout,
                norm_num_groups=8,
                class_embed_type="identity",
            )
            self.label_embedding = nn.Linear(len(class_names), 4 * settings.block_out_channels[0], bias=False)
        self.unet.to(memory_format=self.layout)
        self.noise_scheduler = noise_schedule(settings.prediction_type)

    @property
    def config(self) -> dict[str, Any]:
        """All that it is made from, as JSON has it."""
        images = {"class_names": list(self.class_names), "image_shape": list(self.image_shape)}
        return images | self.settings.values(DenoiserModel)

    @property
    def device(self) -> torch.device:
        return self.label_embedding.weight.device

    @property
    def layout(self) -> torch.memory_format:
        """Channels last for bfloat16 on the CPU; compiled for CUDA, that would take twice as long."""
        is_last = self.settings.precision == "bf16" and self.device.type == "cpu"
        return torch.channels_last if is_last else torch.contiguous_format

    def _apply(self, *args: Any, **options: Any) -> Self:
        """What `to`, `cuda` and the like call; the layout follows the device."""
        super()._apply(*args, **options)
        self.unet.to(memory_format=self.layout)
        return self

    def forward(
        self, noisy: Tensor, timesteps: Tensor, label_weights: Tensor, label_embeddings: Tensor | None = None
    ) -> Tensor:
        """Predict v or the noise.

        Args:
            noisy: Noisy images (N, channels, H, W).
            timesteps: (N,) or a scalar, in [0, 1000).
            label_weights: (N, C); zeros for no class.
            label_embeddings: (N, D), to take in place of those of the label weights.
        """
        with autocast(self.settings.precision, self.device):
            labels = self.label_embedding(label_weights) if label_embeddings is None else label_embeddings
            noisy = noisy.contiguous(memory_format=self.layout)
            return self.unet(noisy, timesteps, class_labels=labels).sample.float()

    def loss(self, images: Tensor, label_weights: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
        """Mean squared error of the prediction for images in [-1, 1] with the given noise at these steps."""
        noisy = self.noise_scheduler.add_noise(images, noise, timesteps)
        if self.settings.prediction_type == "epsilon":
            target = noise
        else:
            target = self.noise_scheduler.get_velocity(images, noise, timesteps)
        return nn.functional.mse_loss(self(noisy, timesteps, label_weights), target)

    def save(self, folder: Path) -> None:
        """Write `denoiser.safetensors` and then `denoiser.json` to `folder`, each atomically."""
        storage.write(Path(folder), "denoiser", self.config, self.state_dict())

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> "Denoiser":
        """Read a denoiser that `save` wrote; it comes in evaluation mode.

        Raises:
            InputError: A file is missing or damaged.
        """
        with storage.reading(Path(folder), "denoiser") as (config, tensors):
            denoiser = cls(
                config.pop("class_names"), config.pop("image_shape"), as_made(DenoiserModel, config)
            )
            denoiser.load_state_dict(tensors)
        return denoiser.to(device).eval()
