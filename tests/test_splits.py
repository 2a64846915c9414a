"""Training, validation and test images of one's own."""

import numpy as np
import pytest
from PIL import Image

from oodlib.datasets import Role, evaluation_sets, id_splits, load, load_ood
from oodlib.datasets.shifts import shifted_sets
from oodlib.errors import InputError
from oodlib.images import ImageSet
from oodlib.settings import Data, Settings

pytestmark = pytest.mark.filterwarnings(
    "ignore:The image decoding and encoding:DeprecationWarning"
)  # torchvision's


def fill(folder, names, count=20, seed=0):
    rng = np.random.default_rng([seed, *map(ord, folder.name)])
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(folder / name / f"{i:03}.png")


def counts(folder):
    return [np.bincount(load(str(folder), split).labels).tolist() for split in ("train", "val", "test")]


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("train", "val", "test"), [[20, 20], [20, 20], [20, 20]]),
        (("train", "valid", "test"), [[20, 20], [20, 20], [20, 20]]),
        (("Train", "Validation", "Test"), [[20, 20], [20, 20], [20, 20]]),
        (("train", "test"), [[18, 18], [2, 2], [20, 20]]),
        (("train", "val"), [[18, 18], [2, 2], [20, 20]]),
        (("train", "dog"), [[24, 24], [6, 6], [10, 10]]),
        (("val", "test"), [[24, 24], [6, 6], [10, 10]]),
    ],
)
def test_folders_of_splits_are_the_splits_where_one_is_train(tmp_path, folders, expected):
    """Any other sub-folders are classes."""
    for folder in folders:
        fill(tmp_path / folder, ("cat", "dog"))
    assert counts(tmp_path) == expected


def test_a_line_says_which_folder_is_which_split(tmp_path, capsys):
    for folder in ("train", "val"):
        fill(tmp_path / folder, ("cat", "dog"))
    counts(tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}: the train images are those in {tmp_path}/train, of each class 90 %",
        f"{tmp_path}: the val images are those in {tmp_path}/train, of each class 10 %",
        f"{tmp_path}: the test images are those in {tmp_path}/val",
    ]


def test_classes_of_a_split_are_those_of_training(tmp_path):
    fill(tmp_path / "train", ("ape", "cat", "dog"))
    fill(tmp_path / "val", ("ape", "cat", "dog"))
    fill(tmp_path / "test", ("dog",))
    test = load(str(tmp_path), "test")
    assert test.class_names == ("ape", "cat", "dog") and set(test.labels) == {2}


def test_an_ood_set_with_folders_of_splits_is_taken_whole(tmp_path):
    for folder in ("train", "test"):
        fill(tmp_path / "birds" / folder, ("a", "b"))
    (birds,) = load_ood([str(tmp_path / "birds")])
    assert len(birds.images) == 80


def test_a_test_class_that_training_lacks_is_refused_before_any_training(tmp_path):
    fill(tmp_path / "train", ("cat", "dog"))
    fill(tmp_path / "test", ("cat", "dog", "emu"))
    with pytest.raises(InputError, match="holds the classes 'emu', the training images only 'cat', 'dog'"):
        id_splits(Data(id_data=str(tmp_path)))


def test_test_labels_that_training_lacks_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("OODLIB_DATA", str(tmp_path))
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    np.savez(tmp_path / "mine-train.npz", images=images, labels=np.arange(60) % 3)
    np.savez(tmp_path / "mine-test.npz", images=images[:4], labels=np.array([0, 2, 2, 0]))
    assert load("mine", "test").class_names == ("0", "1", "2")
    np.savez(tmp_path / "mine-test.npz", images=images[:4], labels=np.array([0, 3, 2, 0]))
    with pytest.raises(InputError, match="go up to 3, expected 0 to 2, as in training"):
        id_splits(Data(id_data="mine"))


def test_one_class_is_refused(tmp_path):
    fill(tmp_path, ("cat",))
    with pytest.raises(InputError, match=r"has one class, 'cat'; a classifier needs two or more"):
        id_splits(Data(id_data=str(tmp_path)))


@pytest.mark.parametrize(
    ("split", "message"),
    [("train", "holds the classes 'dog'"), ("val", "has no val images of 'dog'; add images")],
)
def test_a_class_without_training_or_validation_images_is_named(tmp_path, split, message):
    for folder in ("train", "val", "test"):
        fill(tmp_path / folder, ("cat",) if folder == split else ("cat", "dog"), 5)
    with pytest.raises(InputError, match=message):
        id_splits(Data(id_data=str(tmp_path)))


def test_images_in_two_splits_are_counted(tmp_path, capsys):
    for folder in ("train", "val", "test"):
        fill(tmp_path / folder, ("cat", "dog"), 5)
    for i in range(3):
        (tmp_path / "test" / "cat" / f"{i:03}.png").write_bytes(
            (tmp_path / "train" / "dog" / f"{i:03}.png").read_bytes()
        )
    (tmp_path / "val" / "cat" / "000.png").write_bytes((tmp_path / "test" / "dog" / "004.png").read_bytes())
    capsys.readouterr()
    id_splits(Data(id_data=str(tmp_path)))
    assert capsys.readouterr().out.splitlines()[3:] == [
        "3 of 10 test images are training images too, byte for byte; remove them",
        "1 of 10 test images are validation images too, byte for byte; remove them",
    ]


def test_training_images_in_an_ood_set_are_counted(tmp_path, capsys):
    train = load("digits", "train")
    np.savez(tmp_path / "mine.npz", images=np.concatenate([train.images[:4], 255 - train.images[:2]]))
    load_ood([str(tmp_path / "mine.npz")], train=train)
    assert (
        capsys.readouterr().out == "4 of 6 mine images are training images too, byte for byte; remove them\n"
    )


def test_the_digits_are_fit_for_an_experiment(capsys):
    splits = id_splits(Data())
    assert [len(images.images) for images in splits] == [866, 216, 361]
    assert isinstance(splits.test, ImageSet) and capsys.readouterr().out == ""


def test_a_set_of_ones_own_is_told_from_a_built_in_one_of_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path, ("letters",))
    assert len(load("letters", "all").images) == 1000
    assert capsys.readouterr().out == (
        "letters is the built-in set of that name; write ./letters for the one that lies here\n"
    )
    assert len(load("./letters", "all").images) == 20


@pytest.mark.parametrize(("background", "level"), [("white", 255), ("black", 0)])
def test_the_background_of_an_experiment_is_that_of_all_its_sets(tmp_path, background, level):
    for name in ("cat", "dog"):
        fill(tmp_path / "id", (name,), 9)
        for i in range(9):
            Image.new("RGBA", (8, 8), (9, 9, 9, 0)).save(tmp_path / "id" / name / f"{i:03}.png")
    (tmp_path / "ood").mkdir()
    Image.new("RGBA", (8, 8), (9, 9, 9, 0)).save(tmp_path / "ood" / "a.png")
    settings = Settings(id_data=str(tmp_path / "id"), ood_sets=[str(tmp_path / "ood")], background=background)
    splits = id_splits(settings)
    assert {level} == {int(v) for images in splits for v in np.unique(images.images)}
    test, ood, *_ = evaluation_sets(settings, splits)
    assert (test.images == level).all() and (ood.images == level).all()


def test_the_sets_of_an_experiment_are_id_test_images_ood_sets_and_the_test_images_shifted():
    settings = Settings(ood_sets=["held_out", "gaussian:20"])
    splits = id_splits(settings)
    test, held_out, gaussian, *shifted = evaluation_sets(settings, splits)
    assert [s.role for s in (test, held_out, gaussian)] == [Role.ID, Role.NEAR, Role.NOISE]
    assert [s.key for s in shifted] == [s.key for s in shifted_sets(splits.test)] and shifted
    assert all(np.array_equal(s.labels, splits.test.labels) and not s.role.is_ood for s in shifted)


def test_an_experiment_tells_of_training_images_among_its_ood_sets(tmp_path, capsys):
    np.savez(tmp_path / "mine.npz", images=load("digits", "train").images[:3])
    settings = Settings(ood_sets=[str(tmp_path / "mine.npz")])
    evaluation_sets(settings, id_splits(settings))
    assert (
        capsys.readouterr().out == "3 of 3 mine images are training images too, byte for byte; remove them\n"
    )
