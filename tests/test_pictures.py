"""The door for pictures: what a file says beside its pixels is heeded, and what cannot be read is named."""

import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from oodlib.errors import InputError
from oodlib.images import uint8_tensor
from oodlib.pictures import Notes, fit_picture, open_picture, picture_files, read_picture


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


NOISE = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
RAMP = np.linspace(0, 1, 64).reshape(8, 8)


def listed(folder):
    notes = Notes(folder)
    return [file.relative_to(folder).as_posix() for file in picture_files(folder, notes)], notes.lines()


@pytest.mark.parametrize("background", ["white", "black"])
def test_what_is_transparent_shows_the_background(background):
    hidden = Image.fromarray(np.dstack([NOISE, np.zeros((8, 8), np.uint8)]))
    level = {"white": 255, "black": 0}[background]
    assert (fit_picture(hidden, (8, 8, 3), background) == level).all()


def test_what_is_half_transparent_is_mixed_with_the_background():
    assert (fit_picture(Image.new("RGBA", (8, 8), (0, 0, 0, 51)), (8, 8, 1)) == 204).all()


def test_what_is_opaque_is_not_changed_by_an_alpha_channel():
    opaque = Image.fromarray(np.dstack([NOISE, np.full((8, 8), 255, np.uint8)]))
    assert np.array_equal(fit_picture(opaque, (8, 8, 3), "black"), NOISE)


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "LA", "PA", "La", "RGBa", "RGBA"])
def test_two_files_that_look_alike_are_read_alike(tmp_path, mode):
    """A white picture whose lower half is black but transparent."""
    picture = Image.new("RGBA", (8, 8), "white")
    picture.paste((0, 0, 0, 0), (0, 4, 8, 8))
    if mode in ("L", "RGB", "P"):  # one level or colour is the transparent one
        picture = picture.convert("RGB").convert(mode)
        key = {"L": 0, "RGB": (0, 0, 0), "P": picture.getpixel((0, 7))}[mode]
        picture.save(tmp_path / "a.png", transparency=key)
        picture = open_picture(tmp_path / "a.png")
        assert picture.mode == mode
    elif mode in ("LA", "PA", "RGBa"):
        picture = picture.convert(mode)
    elif mode == "La":
        picture = picture.convert("LA").convert("La")
    assert (fit_picture(picture, (8, 8, 1)) == 255).all()


def test_a_transparent_level_of_16_bits_is_transparent(tmp_path):
    Image.fromarray(np.full((8, 8), 5000, np.uint16)).save(tmp_path / "a.png", transparency=5000)
    assert (read_picture(tmp_path / "a.png", (8, 8, 1)) == 255).all()


@pytest.mark.parametrize(
    ("values", "suffix"),
    [
        ((RAMP * 65535).astype(np.uint16), "png"),
        ((RAMP * 65535).astype(np.uint16), "tif"),
        ((RAMP * 65535).astype(np.int32), "tif"),
        (RAMP.astype(np.float32), "tif"),
    ],
)
def test_depth_is_scaled_by_its_range(tmp_path, values, suffix):
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    levels = read_picture(tmp_path / f"a.{suffix}", (8, 8, 1))[..., 0]
    assert abs(levels - RAMP * 255).max() <= 1 and len(np.unique(levels)) == 64


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            (RAMP * 4095).astype(np.uint16),
            "its 16-bit values reach only 4095 of 65535, as those of 12 bits or less",
        ),
        ((RAMP * 255).astype(np.int32), "reach only 255 of 65535"),
        ((RAMP * 1e6).astype(np.int32), "go from 0 to 1e\\+06, expected 0 to 65535"),
        ((RAMP * 65535).astype(np.float32), "go from 0 to 65535, expected 0 to 1; scale them"),
        ((RAMP - 0.5).astype(np.float32), "go from -0.5 to 0.5, expected 0 to 1"),
        (np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32), "expected 0 to 1"),
    ],
)
def test_depth_of_another_range_is_refused(tmp_path, values, message):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=rf"^image .*a\.tif cannot be read: .*{message}"):
        read_picture(tmp_path / "a.tif", (8, 8, 1))


def test_a_black_picture_of_16_bits_is_black(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "a.png")
    assert not read_picture(tmp_path / "a.png", (8, 8, 1)).any()


@pytest.mark.parametrize(("highest", "is_read"), [(65535, True), (4095, False), (0, True)])
def test_12_bits_of_colour_in_16_are_refused(tmp_path, highest, is_read):
    rows = (RAMP * highest).astype(">u2")[..., None].repeat(3, -1)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0),
        b"IDAT": zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)),
        b"IEND": b"",
    }
    parts = (
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks.items()
    )
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    if is_read:
        assert read_picture(tmp_path / "a.png", (8, 8, 3)).max() == highest // 257
    else:
        with pytest.raises(InputError, match=r"its 16-bit values reach only .* of 65535"):
            read_picture(tmp_path / "a.png", (8, 8, 3))


@pytest.mark.parametrize("values", [(RAMP * 255).astype(np.uint8), (RAMP * 65535).astype(np.uint16)])
def test_a_tiff_whose_zero_is_white_is_read_so(tmp_path, values):
    picture = Image.fromarray(values)
    picture.save(tmp_path / "a.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "a.tif") as stored:
        assert stored.tag_v2[262] == 0
    levels = read_picture(tmp_path / "a.tif", (8, 8, 1))[..., 0].astype(int)
    stored_as_is = values.dtype == np.uint8  # Pillow inverts 8 bits when it writes and when it reads
    assert abs(levels - 255 * (RAMP if stored_as_is else 1 - RAMP)).max() <= 1


def test_lab_is_brought_to_rgb(tmp_path):
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    ImageCms.applyTransform(Image.new("RGB", (8, 8), (200, 100, 50)), lab).save(tmp_path / "a.tif")
    assert abs(read_picture(tmp_path / "a.tif", (8, 8, 3)).astype(int) - (200, 100, 50)).max() <= 3


def test_colours_of_an_embedded_profile_are_brought_to_srgb():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # The same with red and blue exchanged, under another name.
    exchanged = profile.replace(b"rXYZ", b"----").replace(b"bXYZ", b"rXYZ").replace(b"----", b"bXYZ")
    picture = Image.new("RGB", (8, 8), (10, 200, 90))
    picture.info["icc_profile"] = exchanged.replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be"))
    assert fit_picture(picture, (8, 8, 3))[0, 0].tolist() == [90, 200, 10]


def test_a_profile_that_is_all_but_srgb_changes_no_last_digits():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    red = profile.index(b"rXYZ") + 4
    offset = int.from_bytes(profile[red : red + 4], "big") + 8  # of the red primary's X, a fixed-point number
    x = int.from_bytes(profile[offset : offset + 4], "big") + 100
    picture = Image.fromarray(NOISE)
    picture.info["icc_profile"] = profile[:offset] + x.to_bytes(4, "big") + profile[offset + 4 :]
    assert np.array_equal(fit_picture(picture, (8, 8, 3)), NOISE)


@pytest.mark.parametrize("profile", [b"no profile", "sRGB"])
def test_a_broken_profile_and_srgb_change_nothing(profile):
    if profile == "sRGB":
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = Image.fromarray(NOISE)
    picture.info["icc_profile"] = profile
    assert np.array_equal(fit_picture(picture, (8, 8, 3)), NOISE)


@pytest.mark.parametrize(("gamma", "level"), [(0.45455, 100), (1.0, round(255 * (100 / 255) ** (1 / 2.2)))])
def test_the_gamma_of_a_png_is_heeded(tmp_path, gamma, level):
    about = PngImagePlugin.PngInfo()
    about.add(b"gAMA", int(gamma * 100000).to_bytes(4, "big"))
    Image.new("L", (8, 8), 100).save(tmp_path / "a.png", pnginfo=about)
    assert (read_picture(tmp_path / "a.png", (8, 8, 1)) == level).all()


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp", "png"])
def test_the_first_of_several_frames_is_read_and_the_file_named(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), (level,) * 3) for level in (200, 10, 20)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    notes = Notes(tmp_path)
    assert (read_picture(tmp_path / f"a.{suffix}", (8, 8, 1), notes=notes) == 200).all()
    (line,) = notes.lines()
    assert line.endswith(f"1 of several pages or frames, of which the first is read: a.{suffix}")


def test_the_preview_in_a_phone_s_picture_is_no_further_frame(tmp_path):
    Image.new("RGB", (8, 8)).save(
        tmp_path / "a.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (4, 4))]
    )
    notes = Notes(tmp_path)
    with Image.open(tmp_path / "a.jpg") as picture:
        assert picture.n_frames == 2
    read_picture(tmp_path / "a.jpg", (8, 8, 1), notes=notes)
    assert notes.lines() == []


@pytest.mark.parametrize("suffix", ["jfif", "ppm", "avif", "jp2", "tga", "JPG", "bmp", "ico", "qoi"])
def test_what_pillow_reads_is_a_picture(tmp_path, suffix):
    Image.new("RGB", (16, 16)).save(tmp_path / f"a.{suffix.lower()}")
    (tmp_path / f"a.{suffix.lower()}").rename(tmp_path / f"b.{suffix}")
    assert listed(tmp_path) == ([f"b.{suffix}"], [])


@pytest.mark.parametrize("name", ["picture", "scan.dat", "a.heic"])
def test_a_picture_is_known_by_its_first_bytes_too(tmp_path, name):
    Image.new("RGB", (8, 8)).save(tmp_path / name, "PNG")
    assert listed(tmp_path) == ([name], [])


def test_a_picture_without_a_mark_is_not_known_by_its_bytes(tmp_path):
    """Any bytes may be a TGA; without its suffix a file is none."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.dat", "TGA")
    assert listed(tmp_path) == ([], [f"{tmp_path}: 1 left out, not pictures that Pillow reads: a.dat"])


def test_what_is_no_picture_is_counted_and_the_first_three_named(tmp_path):
    for name in ("a.heic", "b.txt", "c.csv", "d"):
        (tmp_path / name).write_text("no picture")
    assert listed(tmp_path) == (
        [],
        [f"{tmp_path}: 4 left out, not pictures that Pillow reads: a.heic, b.txt, c.csv, ..."],
    )


@pytest.mark.parametrize(
    "name", [".DS_Store", "._a.png", "@eaDir", "Thumbs.db", "__MACOSX", "$RECYCLE.BIN", "lost+found"]
)
def test_what_a_system_keeps_for_itself_is_left_out_and_named(tmp_path, name):
    (tmp_path / name).mkdir()
    Image.new("L", (8, 8)).save(tmp_path / name / "a.png")
    assert listed(tmp_path) == ([], [f"{tmp_path}: 1 left out, hidden or a system's own: {name}"])


def test_linked_folders_and_files_are_followed(tmp_path):
    (tmp_path / "away").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "away" / "a.png")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "monday").symlink_to(tmp_path / "away")
    (tmp_path / "own" / "b.png").symlink_to(tmp_path / "away" / "a.png")
    assert listed(tmp_path / "own") == (["b.png", "monday/a.png"], [])


def test_a_folder_is_read_once_however_many_links_lead_to_it(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    files, lines = listed(tmp_path)
    assert files == ["a.png"]
    assert lines == [f"{tmp_path}: 1 left out, links to a folder that is read already: loop"]


def test_links_to_nothing_and_pipes_are_named(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "b.png")
    assert listed(tmp_path) == (
        [],
        [
            f"{tmp_path}: 1 left out, links to nothing: a.png",
            f"{tmp_path}: 1 left out, not regular files: b.png",
        ],
    )


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    def refuse(_folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    assert listed(tmp_path) == ([], [f"{tmp_path}: 1 left out, cannot be read (Permission denied): ."])


def test_a_folder_may_be_called_like_a_picture(tmp_path):
    (tmp_path / "cat.jpg").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "cat.jpg" / "a.png")
    assert listed(tmp_path) == (["cat.jpg/a.png"], [])


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png cannot be read: it is not a regular file"):
        read_picture(tmp_path / "a.png", (8, 8, 1))


def test_postscript_is_not_handed_to_ghostscript(tmp_path):
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    with pytest.raises(InputError, match=r"a\.png cannot be read \(cannot identify"):
        read_picture(tmp_path / "a.png", (8, 8, 1))


def test_a_large_scan_is_read_and_a_larger_one_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("oodlib.pictures.MAX_PIXELS", 100)
    Image.new("L", (10, 10)).save(tmp_path / "a.png")
    Image.new("L", (10, 11)).save(tmp_path / "b.png")
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_picture(tmp_path / "a.png", (8, 8, 1)).shape == (8, 8, 1)
    with pytest.raises(InputError, match=r"b\.png cannot be read \(.*110 pixels"):
        read_picture(tmp_path / "b.png", (8, 8, 1))
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (1, 1)])
def test_a_picture_of_any_proportion_is_fitted(size):
    assert (fit_picture(Image.new("L", size, 9), (8, 8, 1)) == 9).all()


def test_a_name_is_shown_on_one_line_whatever_its_bytes(tmp_path):
    (tmp_path / "a\nb").write_text("")
    (tmp_path / os.fsdecode(b"c\xff")).write_text("")
    (line,) = listed(tmp_path)[1]
    assert line.endswith(r"2 left out, not pictures that Pillow reads: a\nb, c\xff")


@pytest.mark.parametrize("size", [(0, 80), (80, 0), (0, 0)])
def test_a_picture_without_pixels_is_refused(size):
    with pytest.raises(InputError, match=rf"it is {size[0]} x {size[1]} pixels, of which there are none"):
        fit_picture(Image.new("L", size), (8, 8, 1))


def test_a_picture_that_is_closed_or_cut_is_told_by_its_place(tmp_path):
    Image.effect_noise((64, 64), 50).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as closed:
        pass
    whole = Image.open(tmp_path / "a.png")
    with pytest.raises(
        InputError, match=r"^picture 1 of 2 cannot be read \(is it closed\?\); remove or repair it$"
    ):
        uint8_tensor([whole, closed], (8, 8, 1))
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:900])
    with pytest.raises(
        InputError, match=r"^picture 0 of 1 cannot be read \(.*truncated.*\); remove or repair it$"
    ):
        uint8_tensor(Image.open(tmp_path / "b.png"), (8, 8, 1))
