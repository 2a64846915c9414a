"""The door through which every picture, array and tensor comes in."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from oodlib.errors import InputError
from oodlib.images import mean_and_std, signed_to_uint8, uint8_tensor, uint8_to_signed

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


@pytest.mark.parametrize(
    "images", [np.zeros((2, 8, 8, 1), np.uint8), torch.zeros(2, 1, 8, 8, dtype=torch.uint8)]
)
def test_what_is_right_already_is_not_copied(images):
    tensor = uint8_tensor(images, (8, 8, 1))
    assert tensor.is_contiguous()
    assert tensor.data_ptr() == (images.ctypes.data if isinstance(images, np.ndarray) else images.data_ptr())


@pytest.mark.parametrize(
    "images", [IMAGES[::-1], np.frombuffer(IMAGES.tobytes(), np.uint8).reshape(IMAGES.shape)],
    ids=["backwards", "read-only"],
)  # fmt: skip
def test_arrays_that_pytorch_does_not_take_are_copied(images):
    assert np.array_equal(uint8_tensor(images, (8, 6, 3)).permute(0, 2, 3, 1).numpy(), images)


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.longdouble, ">f4", ">f8", torch.bfloat16, torch.float16]
)
def test_floats_of_any_type_and_byte_order_become_the_nearest_level(dtype):
    levels = np.array([0, 1, 128, 255], np.uint8).reshape(1, 2, 2, 1)
    floats = (
        torch.tensor(levels / 255).to(dtype)
        if isinstance(dtype, torch.dtype)
        else (levels / 255).astype(dtype)
    )
    assert np.array_equal(uint8_tensor(floats, (2, 2, 1)).flatten().numpy(), levels.ravel())


def test_floats_may_leave_their_range_by_rounding():
    floats = np.float32([-1e-7, 1 + 1e-6, 0.5, 1]).reshape(1, 2, 2, 1)
    assert uint8_tensor(floats, (2, 2, 1)).flatten().tolist() == [0, 255, 128, 255]


def test_floats_are_converted_in_parts(monkeypatch):
    monkeypatch.setattr("oodlib.images.AT_ONCE", 2)
    assert np.array_equal(uint8_tensor(IMAGES / 255, (8, 6, 3)).permute(0, 2, 3, 1).numpy(), IMAGES)
    with pytest.raises(InputError, match="images range from 0 to 2; expected"):
        uint8_tensor(np.array([0, 1, 0, 2.0]).reshape(4, 1, 1, 1), (1, 1, 1))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.array([np.zeros((8, 8)), np.zeros((9, 8))], object), "images are object"),
        (np.ma.masked_equal(IMAGES, 0), "images are a MaskedArray"),
        (np.full((1, 8, 6, 3), np.nan), "images range from nan to nan"),
        ({"images": IMAGES}, "images are a dict"),
        (["a.png"], "images are a list of something else than pictures"),
        (np.array(5.0), r"images have shape \(\)"),
        (IMAGES[0], r"images have shape \(8, 6, 3\)"),
        (torch.zeros(1, 3, 8, 6).to_sparse(), "images are a sparse or empty tensor"),
        (torch.zeros(1, 3, 8, 6, device="meta"), "images are a sparse or empty tensor"),
    ],
)
def test_what_are_no_images_is_told(images, message):
    with pytest.raises(InputError, match=message):
        uint8_tensor(images, (8, 6, 3))


@pytest.mark.parametrize(("highest", "warns"), [(0, False), (1, True), (16, True), (17, False), (255, False)])
def test_images_that_are_all_but_black_are_told_with_their_range(highest, warns):
    images = np.minimum(IMAGES, highest)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        uint8_tensor(images, (8, 6, 3))
    assert len(told) == warns
    if warns:
        assert f"reach level {highest} of 255 at most" in str(told[0].message)


def test_transparent_pictures_show_the_background_that_is_asked_for():
    hidden = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert (uint8_tensor([hidden], (8, 8, 1)) == 255).all()
    assert not uint8_tensor(hidden, (8, 8, 1), "black").any()


def test_mean_and_deviation_are_those_of_all_parts(monkeypatch):
    monkeypatch.setattr("oodlib.images.AT_ONCE", 2)
    mean, std = mean_and_std(IMAGES)
    assert mean == pytest.approx((IMAGES / 255).mean((0, 1, 2)))
    assert std == pytest.approx((IMAGES / 255).std((0, 1, 2)))


def test_the_door_is_imported_without_torch():
    code = "import sys, oodlib.images; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_constant_channel_deviates_by_one_grey_level():
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
    images[..., 1] = 7
    mean, std = mean_and_std(images)
    assert mean[1] == pytest.approx(7 / 255) and std[1] == 1 / 255
    assert std[0] == pytest.approx((images[..., 0] / 255).std())
