"""Nuisances: what differs between images besides their content, drawn at random for ID images and outliers alike.

A detector that is trained with outliers learns whatever tells them from ID images. Where both are degraded by draws
from one distribution, nothing but content is left.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it takes seconds to import
    import torch

STRENGTH = 1.0  # the usual one
# What each does at strength 1 and its largest draw, 1.
SOFTNESS = 1.0  # of the way from the image to its binomial blur over 3 x 3 pixels
CONTRAST = 0.4  # is lost, about the image's mean
BRIGHTNESS = 0.3  # is lost
BACKGROUND = 0.15  # of the range, to which black is lifted
NOISE = 13 / 255  # standard deviation of normal noise in each value
SATURATION = 0.6  # is lost, in colour
WHITE_BALANCE = 0.15  # of a channel is lost, in colour
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


def degrade(images: "torch.Tensor", strength: float, random: "torch.Generator") -> "torch.Tensor":
    """Degrade each image at random: each nuisance is left out of half of the images, and uniform up to its largest
    draw in the others.

    Args:
        images: uint8 (N, C, H, W) on any device, C = 1 (grey) or 3 (RGB).
        strength: Factor of all draws, 0 or more; 0 leaves the images as they are.
        random: On the CPU. The noise is drawn on the images' device, and is another on another kind of device.

    Returns:
        uint8 (N, C, H, W).
    """
    import torch
    import torch.nn.functional as F

    count, channels = images.shape[:2]
    draws = torch.rand(2, count, 9, 1, 1, generator=random)
    amounts = (strength * draws[0] * (draws[1] < 0.5)).to(images.device)
    soft, flat, dark, lift, noisy, grey, tint = amounts.split([1, 1, 1, 1, 1, 1, 3], dim=1)
    x = images.float() / 255
    binomial = torch.tensor([0.25, 0.5, 0.25], device=x.device)
    kernel = (binomial[:, None] * binomial).expand(channels, 1, 3, 3)
    blurred = F.conv2d(F.pad(x, (1, 1, 1, 1), "replicate"), kernel, groups=channels)
    x = torch.lerp(x, blurred, (SOFTNESS * soft).clamp(max=1))
    if channels == 3:
        luminance = torch.tensor(LUMINANCE, device=x.device).view(3, 1, 1)
        x = torch.lerp(x, (x * luminance).sum(1, keepdim=True), (SATURATION * grey).clamp(max=1))
        x = x * (1 - WHITE_BALANCE * tint).clamp(min=0)
    x = torch.lerp(x, x.mean((1, 2, 3), keepdim=True), (CONTRAST * flat).clamp(max=1))
    x = x * (1 - BRIGHTNESS * dark).clamp(min=0)
    x = torch.lerp(x, torch.ones_like(x), (BACKGROUND * lift).clamp(max=1))
    of_device = torch.Generator(x.device).manual_seed(int(torch.randint(2**62, (), generator=random)))
    x = x + NOISE * noisy * torch.randn(x.shape, generator=of_device, device=x.device)
    return (255 * x).round().clamp(0, 255).to(torch.uint8)
