"""Ten of the corruptions of CIFAR-10-C (Hendrycks and Dietterich 2019, arXiv 1903.12261), with its five levels.

They are recomputed from the published definitions and are not the published files. Left out are those that need other
image libraries or pictures: defocus, glass, motion and zoom blur, snow, frost, fog, spatter, elastic.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from oodlib.datasets.roles import Role

IMAGE_SHAPE = (32, 32, 3)  # that they are made for
LEVELS = 5
SEED = 558

Corrupt = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]
"""From an image in [0, 1], (H, W, C), its level from 0 and a source of noise to the image, clipped later."""


def _gaussian_noise(image: np.ndarray, level: int, random: np.random.Generator) -> np.ndarray:
    return image + random.normal(scale=[0.04, 0.06, 0.08, 0.09, 0.1][level], size=image.shape)


def _shot_noise(image: np.ndarray, level: int, random: np.random.Generator) -> np.ndarray:
    photons = [500, 250, 100, 75, 50][level]
    return random.poisson(image * photons) / photons


def _speckle_noise(image: np.ndarray, level: int, random: np.random.Generator) -> np.ndarray:
    return image * (1 + random.normal(scale=[0.06, 0.1, 0.12, 0.16, 0.2][level], size=image.shape))


def _impulse_noise(image: np.ndarray, level: int, random: np.random.Generator) -> np.ndarray:
    share = [0.01, 0.02, 0.03, 0.05, 0.07][level]
    is_struck, is_white = random.random((2, *image.shape)) < np.array([share, 0.5])[:, None, None, None]
    return np.where(is_struck, is_white, image)


def _gaussian_blur(image: np.ndarray, level: int, _random: np.random.Generator) -> np.ndarray:
    from scipy.ndimage import gaussian_filter  # here, because it takes a second to import

    sigma = [0.4, 0.6, 0.7, 0.8, 1.0][level]
    return gaussian_filter(image, (sigma, sigma, 0), mode="nearest")


def _contrast(image: np.ndarray, level: int, _random: np.random.Generator) -> np.ndarray:
    mean = image.mean((0, 1), keepdims=True)
    return mean + [0.75, 0.5, 0.4, 0.3, 0.15][level] * (image - mean)


def _brightness(image: np.ndarray, level: int, _random: np.random.Generator) -> np.ndarray:
    return _in_hsv(image, 2, 1.0, [0.05, 0.1, 0.15, 0.2, 0.3][level])


def _saturate(image: np.ndarray, level: int, _random: np.random.Generator) -> np.ndarray:
    return _in_hsv(image, 1, *[(0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)][level])


def _in_hsv(image: np.ndarray, channel: int, factor: float, offset: float) -> np.ndarray:
    from matplotlib.colors import hsv_to_rgb, rgb_to_hsv  # here, because it takes a second to import

    hsv = rgb_to_hsv(image)
    hsv[..., channel] = (factor * hsv[..., channel] + offset).clip(0, 1)
    return hsv_to_rgb(hsv)


def _pixelate(image: np.ndarray, level: int, _random: np.random.Generator) -> np.ndarray:
    size = int(image.shape[0] * [0.95, 0.9, 0.85, 0.75, 0.65][level])
    small = _picture(image).resize((size, size), Image.Resampling.BOX)
    return np.asarray(small.resize(image.shape[:2], Image.Resampling.BOX)) / 255


def _jpeg_compression(image: np.ndarray, level: int, _random: np.random.Generator) -> np.ndarray:
    buffer = io.BytesIO()
    _picture(image).save(buffer, "jpeg", quality=[80, 65, 58, 50, 40][level])
    return np.asarray(Image.open(buffer)) / 255


def _picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray((255 * image).round().astype(np.uint8))


# With what training with `degrade` draws too marked as such.
CORRUPTIONS: dict[str, tuple[Role, Corrupt]] = {
    "gaussian_noise": (Role.DEGRADED_ID, _gaussian_noise),
    "shot_noise": (Role.DEGRADED_ID, _shot_noise),
    "speckle_noise": (Role.DEGRADED_ID, _speckle_noise),
    "gaussian_blur": (Role.DEGRADED_ID, _gaussian_blur),
    "contrast": (Role.DEGRADED_ID, _contrast),
    "saturate": (Role.DEGRADED_ID, _saturate),
    "impulse_noise": (Role.SHIFTED_ID, _impulse_noise),
    "brightness": (Role.SHIFTED_ID, _brightness),
    "pixelate": (Role.SHIFTED_ID, _pixelate),
    "jpeg_compression": (Role.SHIFTED_ID, _jpeg_compression),
}


def corrupted(images: np.ndarray, name: str) -> np.ndarray:
    """Images under one of `CORRUPTIONS`, each fifth at one of its five levels.

    Args:
        images: uint8 (N, 32, 32, 3).

    Returns:
        uint8 (N, 32, 32, 3), cut to whole numbers as the published files are.
    """
    corrupt = CORRUPTIONS[name][1]
    made = [
        corrupt(image / 255, i % LEVELS, np.random.default_rng([SEED, i])) for i, image in enumerate(images)
    ]
    return (255 * np.stack(made).clip(0, 1) + 1e-6).astype(np.uint8)
