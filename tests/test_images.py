"""Images on their way into a diffusion model and back."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from oodlib.images import signed_to_uint8, uint8_to_signed

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), dtype=np.uint8)


def test_black_is_minus_1_and_white_is_1():
    signed = uint8_to_signed(np.array([0, 51, 255], np.uint8).reshape(3, 1, 1, 1))
    assert signed.flatten().tolist() == pytest.approx([-1, -0.6, 1])


def test_an_array_becomes_float32_with_channels_first():
    signed = uint8_to_signed(IMAGES)
    assert (signed.dtype, signed.shape) == (torch.float32, (5, 3, 8, 6))
    assert signed[2, 1, 7, 3].item() == pytest.approx(IMAGES[2, 7, 3, 1] / 127.5 - 1)


def test_a_tensor_has_its_channels_first_already():
    assert torch.equal(uint8_to_signed(torch.tensor(IMAGES).permute(0, 3, 1, 2)), uint8_to_signed(IMAGES))


def test_an_array_may_be_read_only_and_is_not_changed():
    images = IMAGES.copy()
    images.flags.writeable = False
    assert torch.equal(uint8_to_signed(images), uint8_to_signed(IMAGES))


def test_every_level_comes_back():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    assert np.array_equal(signed_to_uint8(uint8_to_signed(levels)), levels)
    assert np.array_equal(signed_to_uint8(uint8_to_signed(IMAGES)), IMAGES)


def test_what_lies_beyond_black_and_white_is_clipped():
    assert signed_to_uint8(torch.tensor([-3.0, 1.2]).view(2, 1, 1, 1)).flatten().tolist() == [0, 255]


def test_images_are_read_without_torch():
    code = "import sys, oodlib.images; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
