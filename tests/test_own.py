"""Image sets of one's own: folders of pictures and `.npz` files."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from oodlib.datasets.own import classes_in_npz, from_folder, from_npz
from oodlib.errors import InputError


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


@pytest.fixture
def classes(tmp_path):
    """A folder with the classes `cat` and `dog`, three pictures each."""
    for level, name in ((20, "cat"), (200, "dog")):
        for i in range(3):
            (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), level).save(tmp_path / "set" / name / f"{i}.png")
    return tmp_path / "set"


def test_a_picture_beside_class_folders_is_left_out_and_named(classes, capsys):
    Image.new("L", (8, 8)).save(classes / "stray.png")
    assert from_folder(classes, (8, 8, 1)).labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert capsys.readouterr().out == f"{classes}: 1 left out, beside the class folders: stray.png\n"


def test_folders_of_a_file_server_are_no_classes(classes, capsys):
    (classes / "@eaDir").mkdir()
    Image.new("L", (8, 8)).save(classes / "@eaDir" / "a.png")
    assert from_folder(classes, (8, 8, 1)).class_names == ("cat", "dog")
    assert "hidden or a system's own: @eaDir" in capsys.readouterr().out


def test_a_linked_class_counts(classes, tmp_path):
    (tmp_path / "linked").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "linked" / name).symlink_to(classes / name)
    assert from_folder(tmp_path / "linked", (8, 8, 1)).labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_all_pictures_of_a_folder_count_where_no_labels_are_wanted(classes, capsys):
    Image.new("L", (8, 8)).save(classes / "stray.png")
    images = from_folder(classes, (8, 8, 1), with_labels=False)
    assert len(images.images) == 7 and images[1:] == (None, ())
    assert capsys.readouterr().out == ""


def test_labels_count_in_the_given_classes(classes):
    images = from_folder(classes, (8, 8, 1), class_names=["ape", "cat", "dog"])
    assert images.labels.tolist() == [1, 1, 1, 2, 2, 2] and images.class_names == ("ape", "cat", "dog")


def test_a_class_that_is_none_of_the_given_ones_is_named(classes):
    with pytest.raises(
        InputError, match=r"holds the classes 'dog', the training images only 'ape', 'cat'; rename"
    ):
        from_folder(classes, (8, 8, 1), class_names=["ape", "cat"])


@pytest.mark.parametrize(("background", "level"), [("white", 255), ("black", 0)])
def test_transparent_pictures_of_a_folder_show_the_background(tmp_path, background, level):
    Image.new("RGBA", (8, 8), (9, 9, 9, 0)).save(tmp_path / "a.png")
    assert (from_folder(tmp_path, (8, 8, 1), background).images == level).all()


def test_test_labels_count_in_the_classes_of_training(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((3, 8, 8), np.uint8), labels=np.array([0, 2, 2]))
    assert from_npz(tmp_path / "a.npz", class_names=["a", "b", "c"]).labels.tolist() == [0, 2, 2]
    with pytest.raises(InputError, match=r"labels in .* go up to 2, expected 0 to 1, as in training"):
        from_npz(tmp_path / "a.npz", class_names=["a", "b"])


@pytest.mark.parametrize(("labels", "names"), [([0, 1, 1], ("0", "1")), (None, ())])
def test_classes_are_read_without_the_images(tmp_path, labels, names):
    arrays = {} if labels is None else {"labels": np.array(labels)}
    np.savez(tmp_path / "a.npz", images=np.zeros((3, 8, 8), np.uint8), **arrays)
    assert classes_in_npz(tmp_path / "a.npz") == names


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (
            "(1000000000000, 8, 8)",
            r"images in .* should be \d+ bytes, which are not there; make the file again",
        ),
        ("(-1, 8, 8)", r"should be 64 bytes"),
        ("(2, 8, 8", "cannot be read"),
    ],
)
def test_an_array_is_read_only_where_the_file_can_hold_it(tmp_path, claim, message):
    """A header that claims a terabyte takes no memory."""
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 8, 8), np.uint8))
    with zipfile.ZipFile(tmp_path / "a.npz") as file:
        data = file.read("images.npy")
    header = data[10:128].replace(b"(2, 8, 8)", claim.encode()).rstrip().ljust(117)[:117] + b"\n"
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as file:
        file.writestr("images.npy", data[:10] + header + data[128:])
    with pytest.raises(InputError, match=message):
        from_npz(tmp_path / "b.npz")


@pytest.mark.parametrize("raw", ["images", "labels"])
def test_what_is_no_array_in_an_npz_is_refused(tmp_path, raw):
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 8, 8), np.uint8))
    with zipfile.ZipFile(tmp_path / "a.npz", "w" if raw == "images" else "a") as file:
        file.writestr(raw, "0 1")
    with pytest.raises(InputError, match=rf"holds .*{raw}; write it with numpy\.savez\(path, images"):
        from_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("twin", ["cat ", "cat\u200b", "ca\u0301t", "c\u00e1t"])
def test_two_classes_that_look_alike_are_refused(classes, twin):
    if "\u0301" in twin or "\u00e1" in twin:
        (classes / "cat").rename(classes / ("c\u00e1t" if "\u0301" in twin else "ca\u0301t"))
    (classes / twin).mkdir()
    Image.new("L", (8, 8)).save(classes / twin / "a.png")
    with pytest.raises(
        InputError, match=r"holds two folders that look alike, .* and .*; rename or join them"
    ):
        from_folder(classes, (8, 8, 1))


def test_a_class_is_the_same_however_its_letters_are_composed(classes):
    (classes / "cat").rename(classes / "ca\u0301t")
    assert from_folder(classes, (8, 8, 1), class_names=["c\u00e1t", "dog"]).labels.tolist() == [
        0,
        0,
        0,
        1,
        1,
        1,
    ]


def test_an_array_is_not_larger_than_its_compressed_bytes_can_be(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((100, 8, 8), np.uint8))
    assert len(from_npz(tmp_path / "a.npz").images) == 100
    monkeypatch.setattr("oodlib.datasets.own.DEFLATE_LIMIT", 2)
    with pytest.raises(InputError, match="which are not there"):
        from_npz(tmp_path / "a.npz")


def test_objects_in_an_npz_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.array([np.zeros((8, 8)), np.zeros((9, 8))], object))
    with pytest.raises(InputError, match=r"images in .* are object of shape \(2,\), expected uint8"):
        from_npz(tmp_path / "a.npz")
