"""The door through which every picture, array and tensor comes in."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from oodlib.errors import InputError
from oodlib.images import (
    fit_picture,
    from_folder,
    from_npz,
    mean_and_std,
    open_picture,
    read_picture,
    signed_to_uint8,
    uint8_tensor,
    uint8_to_signed,
)

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


def test_fit_picture_keeps_a_picture_of_the_right_size():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(fit_picture(Image.fromarray(image), (8, 8, 3)), image)


def test_fit_picture_averages_cells():
    image = np.repeat(np.repeat(np.arange(64, dtype=np.uint8).reshape(8, 8), 4, 0), 4, 1)
    assert np.array_equal(fit_picture(Image.fromarray(image), (8, 8, 1))[..., 0], image[::4, ::4])


def test_fit_picture_crops_the_centre():
    image = np.zeros((8, 24), np.uint8)
    image[:, 8:16] = 255
    assert (fit_picture(Image.fromarray(image), (8, 8, 1)) == 255).all()


def test_fit_picture_makes_grey_rgb():
    fitted = fit_picture(Image.new("L", (9, 9), 50), (8, 8, 3))
    assert (fitted == 50).all()


def test_a_picture_from_a_file_is_the_picture_fitted(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    picture.save(tmp_path / "a.png")
    assert np.array_equal(read_picture(tmp_path / "a.png", (8, 8, 1)), fit_picture(picture, (8, 8, 1)))
    assert np.array_equal(np.asarray(open_picture(tmp_path / "a.png")), np.asarray(picture))


@pytest.mark.parametrize(
    "read", [lambda file: read_picture(file, (8, 8, 1)), lambda file: from_folder(file.parent, (8, 8, 1))]
)
def test_a_picture_of_a_colour_space_that_cannot_be_converted_is_named(tmp_path, read):
    Image.new("LAB", (8, 8)).save(tmp_path / "lab.tif")
    with pytest.raises(
        InputError, match=r"^image .*lab\.tif cannot be read \(.*LAB.*\); remove or repair it$"
    ):
        read(tmp_path / "lab.tif")


@pytest.mark.parametrize(
    "images", [np.zeros((2, 8, 8, 1), np.uint8), torch.zeros(2, 1, 8, 8, dtype=torch.uint8)]
)
def test_a_uint8_tensor_is_a_contiguous_copy(images):
    tensor = uint8_tensor(images, (8, 8, 1))
    tensor += 1
    assert tensor.is_contiguous() and not images.any()


def test_the_door_is_imported_without_torch():
    code = "import sys, oodlib.images; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright_as_its_file_says(tmp_path, orientation):
    upright = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8))
    turns = [
        None,
        None,
        "FLIP_LEFT_RIGHT",
        "ROTATE_180",
        "FLIP_TOP_BOTTOM",
        "TRANSPOSE",
        "ROTATE_90",
        "TRANSVERSE",
    ]
    turn = [*turns, "ROTATE_270"][orientation]
    stored = upright if turn is None else upright.transpose(Image.Transpose[turn])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    expected = np.asarray(upright)[..., None]
    assert np.array_equal(read_picture(tmp_path / "a.png", (8, 8, 1)), expected)
    with Image.open(tmp_path / "a.png") as picture:
        assert np.array_equal(uint8_tensor(picture, (8, 8, 1))[0, 0].numpy(), expected[..., 0])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 1, 255, 255], np.uint8), r"skip \[2, 3, 4, 5, 6\]"),
        (np.array([0, 2, 3, 3], np.int8), r"skip \[1\]"),
        (np.array([0, 1, 1, 9_999_999_999]), r"skip \[2, 3, 4, 5, 6\]"),
        (np.array([0, 1, 1, 2**64 - 1], np.uint64), r"skip \[2, 3, 4, 5, 6\]"),
        (np.array([0, 1, 1, -1], np.int8), "must be 4 integers from 0"),
    ],
)
def test_labels_with_gaps_are_told_whatever_their_type_and_size(tmp_path, labels, message):
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 8, 8), np.uint8), labels=labels)
    with pytest.raises(InputError, match=message):
        from_npz(tmp_path / "a.npz")


def test_256_classes_fit_into_labels_of_a_byte(tmp_path):
    labels = np.arange(256).astype(np.uint8)
    np.savez(tmp_path / "a.npz", images=np.zeros((256, 8, 8), np.uint8), labels=labels)
    image_set = from_npz(tmp_path / "a.npz")
    assert image_set.labels.dtype == np.int64 and len(image_set.class_names) == 256


def test_a_constant_channel_deviates_by_one_grey_level():
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
    images[..., 1] = 7
    mean, std = mean_and_std(images)
    assert mean[1] == pytest.approx(7 / 255) and std[1] == 1 / 255
    assert std[0] == pytest.approx((images[..., 0] / 255).std())
