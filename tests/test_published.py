"""Published sets, from small files like the published ones."""

import hashlib
import pickle
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from conftest import can_unpack
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from oodlib.datasets import downloads, published
from oodlib.datasets.downloads import Unavailable
from oodlib.datasets.loading import SPLITS, identity, load, load_ood
from oodlib.datasets.published import PUBLISHED
from oodlib.errors import InputError

RGB = (32, 32, 3)
OOD = [name for name in PUBLISHED if name != "cifar10"]
FILES = {
    "cifar10": "cifar-10-python.tar.gz",
    "cifar100": "cifar-100-python.tar.gz",
    "svhn": "test_32x32.mat",
    "tin_crop": "Imagenet.tar.gz",
    "tin_resize": "Imagenet_resize.tar.gz",
    "lsun_crop": "LSUN.tar.gz",
    "lsun_resize": "LSUN_resize.tar.gz",
    "isun": "iSUN.tar.gz",
}
ODIN = ["tin_crop", "tin_resize", "lsun_crop", "lsun_resize", "isun"]


class Offline:
    def open(self, *_, **__):
        raise OSError("no network in the tests")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty data folder, without a network."""
    monkeypatch.setenv("OODLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(downloads, "https_only", Offline)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def sizes(monkeypatch):
    """A function that sets how many images a published set has."""
    return lambda name, **sizes: monkeypatch.setitem(PUBLISHED, name, PUBLISHED[name]._replace(sizes=sizes))


def noise(count, *shape):
    return np.random.default_rng(0).integers(0, 256, (count, *(shape or RGB)), dtype=np.uint8)


def md5(file):
    return hashlib.md5(file.read_bytes()).hexdigest()


@pytest.fixture
def cifar_npz(folder, sizes):
    """CIFAR-10 with 200 and 20 images, as `.npz`."""
    sizes("cifar10", train=200, test=20)
    images = {"train": noise(220)[:200], "test": noise(220)[200:]}
    for part, array in images.items():
        np.savez(folder / f"cifar10-{part}.npz", images=array, labels=np.arange(len(array)) % 10)
    return images


def test_published_sets_have_their_published_sizes():
    assert {name: known.sizes for name, known in PUBLISHED.items()} == {
        "cifar10": {"train": 50_000, "test": 10_000},
        "cifar100": {"test": 10_000},
        "svhn": {"test": 26_032},
        "tin_crop": {"test": 10_000},
        "tin_resize": {"test": 10_000},
        "lsun_crop": {"test": 10_000},
        "lsun_resize": {"test": 10_000},
        "isun": {"test": 8_925},
    }


@pytest.mark.parametrize("split, count", [("train", 180), ("val", 20), ("test", 20)])
def test_cifar10_has_its_own_test_images_and_a_tenth_of_the_others_for_validation(cifar_npz, split, count):
    images, labels, class_names = load("cifar10", split, image_shape=RGB)
    assert (images.dtype, images.shape) == (np.uint8, (count, *RGB))
    assert np.bincount(labels).tolist() == [count // 10] * 10
    assert class_names == (
        *("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    )


def test_cifar10_splits_are_disjoint_and_whole(cifar_npz):
    train, val, test = ({i.tobytes() for i in load("cifar10", s, image_shape=RGB).images} for s in SPLITS)
    assert not train & val
    assert train | val == {image.tobytes() for image in cifar_npz["train"]}
    assert test == {image.tobytes() for image in cifar_npz["test"]}


def test_cifar10_labels_belong_to_their_images(cifar_npz):
    known = {image.tobytes(): i % 10 for i, image in enumerate(cifar_npz["train"])}
    images, labels, _ = load("cifar10", "val", image_shape=RGB)
    assert [known[image.tobytes()] for image in images] == labels.tolist()


def test_cifar10_split_is_fixed(cifar_npz):
    order = [image.tobytes() for image in cifar_npz["train"]]
    val = [order.index(image.tobytes()) for image in load("cifar10", "val", image_shape=RGB).images]
    assert val[:6] == [1, 2, 4, 7, 10, 38]


@pytest.mark.parametrize(
    "part, arrays, told",
    [
        ("train", {"images": noise(199)}, r"has 200 train images, but 199 are in .*cifar10-train\.npz"),
        ("test", {"images": noise(21)}, r"has 20 test images, but 21 are in .*cifar10-test\.npz"),
        ("test", {"images": noise(20)}, r"labels in .*cifar10-test\.npz must go from 0 to 9"),
        (
            "test",
            {"images": noise(20), "labels": np.arange(20) % 7},
            r"labels in .*cifar10-test\.npz must go from 0 to 9",
        ),
        ("test", {"images": noise(20, 8, 8, 1), "labels": np.arange(20) % 10}, r"shape \(8, 8, 1\)"),
        ("test", {"pictures": noise(20)}, r"write it with numpy\.savez"),
    ],
)
def test_a_cifar10_npz_that_is_not_cifar10_is_refused(folder, cifar_npz, part, arrays, told):
    np.savez(folder / f"cifar10-{part}.npz", **arrays)
    with pytest.raises(InputError, match=told):
        load("cifar10", part, image_shape=RGB)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_set_of_another_shape_is_refused_before_it_is_fetched(folder, name):
    with pytest.raises(InputError, match=r"has images of shape \(32, 32, 3\), expected \(8, 8, 1\)"):
        load(name)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", OOD)
def test_a_published_ood_set_has_no_training_images(folder, name, split):
    with pytest.raises(InputError, match=f"{name} is an OOD test set and has no training images"):
        load(name, split, image_shape=RGB)


@pytest.fixture
def cifar_files(folder, sizes, monkeypatch):
    """A function that writes the pickles of a CIFAR set, two training batches and a test batch of 20 images each."""

    def write(kind, key):
        base = folder / kind.base_folder
        base.mkdir()
        batches = dict(
            zip(("one", "two", "three"), noise(60, 3, 32, 32).reshape(3, 20, 3, 32, 32), strict=True)
        )
        for name, images in batches.items():
            entry = {"data": images.reshape(20, -1), key: [i % 10 for i in range(20)]}
            (base / name).write_bytes(pickle.dumps(entry, protocol=2))
        (base / "meta").write_bytes(pickle.dumps({"names": [f"class {c}" for c in range(10)]}))
        files = {name: md5(base / name) for name in (*batches, "meta")}
        monkeypatch.setattr(kind, "train_list", [["one", files["one"]], ["two", files["two"]]])
        monkeypatch.setattr(kind, "test_list", [["three", files["three"]]])
        monkeypatch.setattr(kind, "meta", {"filename": "meta", "key": "names", "md5": files["meta"]})
        sizes(kind.__name__.lower(), train=40, test=20)
        return base, np.concatenate(list(batches.values()))

    return write


def pack(folder, name):
    """Replace a folder by a `.tar.gz` of it; its MD5."""
    can_unpack()
    archive = folder.with_name(name)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    return md5(archive)


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_cifar10_is_read_from_its_published_files(cifar_files, monkeypatch, packed):
    base, images = cifar_files(datasets.CIFAR10, "labels")
    if packed:
        monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", pack(base, datasets.CIFAR10.filename))
    found = load("cifar10", "test", image_shape=RGB)
    assert np.array_equal(found.images, images[40:].transpose(0, 2, 3, 1))
    assert found.images.flags.c_contiguous
    assert (found.labels.dtype, found.labels.tolist()) == (np.int64, [i % 10 for i in range(20)])
    assert len(load("cifar10", "train", image_shape=RGB).images) == 40


def test_cifar100_is_read_from_its_published_files_without_labels(cifar_files):
    _, images = cifar_files(datasets.CIFAR100, "fine_labels")
    found = load("cifar100", image_shape=RGB)
    assert np.array_equal(found.images, images[40:].transpose(0, 2, 3, 1))
    assert found[1:] == (None, ())


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_damaged_cifar_folder_is_an_error(cifar_files, damage):
    base, _ = cifar_files(datasets.CIFAR10, "labels")
    (base / "two").unlink() if damage == "missing" else (base / "two").write_bytes(b"not a pickle")
    with pytest.raises(InputError, match=r"a file in .*cifar-10-batches-py is missing or has another MD5"):
        load("cifar10", "test", image_shape=RGB)


@pytest.fixture
def svhn_file(folder, sizes, monkeypatch):
    images = noise(30)
    file = folder / "test_32x32.mat"
    savemat(file, {"X": images.transpose(1, 2, 3, 0), "y": np.arange(30).reshape(-1, 1) % 10 + 1})
    url = datasets.SVHN.split_list["test"][0]
    monkeypatch.setitem(datasets.SVHN.split_list, "test", [url, file.name, md5(file)])
    sizes("svhn", test=30)
    return file, images


def test_svhn_is_read_from_its_published_file(svhn_file):
    found = load("svhn", image_shape=RGB)
    assert np.array_equal(found.images, svhn_file[1])
    assert found.images.flags.c_contiguous
    assert found[1:] == (None, ())


def test_a_damaged_svhn_file_is_an_error(svhn_file):
    svhn_file[0].write_bytes(svhn_file[0].read_bytes()[:-100])
    with pytest.raises(InputError, match=r"test_32x32\.mat is damaged"):
        load_ood(["uniform", "svhn"], RGB)


@pytest.fixture
def odin(folder, sizes, monkeypatch):
    """A function that puts ODIN's files of a set, with these images, into the data folder."""

    def write(name, images, packed=False, nested=""):
        top = folder / FILES[name].removesuffix(".tar.gz")
        (top / nested).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(top / nested / f"{i:03d}.png")
        sizes(name, test=10)
        if packed:
            checksum = pack(top, f"{top.name}.tar.gz")
            known = published._odin(*PUBLISHED[name][:2], 10, f"x/{top.name}", checksum)
            monkeypatch.setitem(PUBLISHED, name, known)
        return top

    return write


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_odin_set_is_read_in_the_order_of_its_names(odin, packed):
    images = noise(10)
    odin("tin_resize", images, packed)
    found = load("tin_resize", image_shape=RGB)
    assert np.array_equal(found.images, images)
    assert found[1:] == (None, ())


def test_odin_pictures_may_lie_deeper(odin):
    images = noise(10)
    odin("isun", images, nested="iSUN_patches")
    assert np.array_equal(load("isun", image_shape=RGB).images, images)


@pytest.mark.parametrize("side", [32, 36])
@pytest.mark.parametrize("name", ["tin_crop", "lsun_crop"])
def test_odin_crops_lose_their_margin(odin, name, side):
    images = noise(10, side, side, 3)
    odin(name, images, nested="test")
    margin = (side - 32) // 2
    cut = slice(margin, margin + 32)
    assert np.array_equal(load(name, image_shape=RGB).images, images[:, cut, cut])


@pytest.mark.parametrize(
    "name, height, width", [("tin_resize", 36, 36), ("tin_crop", 34, 34), ("tin_crop", 36, 32)]
)
def test_an_odin_picture_of_another_size_is_named(odin, name, height, width):
    odin(name, noise(10, height, width, 3))
    with pytest.raises(InputError, match=rf"image .*000\.png is {height} x {width}, expected 32"):
        load(name, image_shape=RGB)


def test_grey_odin_pictures_become_rgb(odin):
    images = noise(10, 32, 32)
    odin("tin_resize", images)
    assert np.array_equal(load("tin_resize", image_shape=RGB).images, np.stack([images] * 3, -1))


def test_an_odin_folder_with_another_number_of_pictures_is_an_error(odin):
    odin("tin_resize", noise(9))
    with pytest.raises(InputError, match="tin_resize has 10 test images, but 9 are in"):
        load_ood(["uniform", "tin_resize"], RGB)


def test_a_damaged_odin_picture_is_an_error(odin):
    top = odin("tin_resize", noise(10))
    (top / "004.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"004\.png cannot be read"):
        load_ood(["uniform", "tin_resize"], RGB)


def test_a_damaged_odin_archive_is_an_error(odin, folder):
    odin("tin_resize", noise(10), packed=True)
    file = folder / "Imagenet_resize.tar.gz"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"Imagenet_resize\.tar\.gz is damaged") as error:
        load_ood(["uniform", "tin_resize"], RGB)
    assert not isinstance(error.value, Unavailable)


def test_an_npz_goes_before_the_published_files(odin, folder):
    odin("tin_resize", noise(10))
    np.savez(folder / "tin_resize-test.npz", images=np.zeros((4, *RGB), np.uint8))
    assert not load("tin_resize", image_shape=RGB).images.any()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_set_that_cannot_be_had_names_itself_the_file_the_folder_and_the_reason(folder, name):
    with pytest.raises(Unavailable) as error:
        load(name, image_shape=RGB)
    told = str(error.value)
    assert told.startswith(f"{name} cannot be had: {folder / FILES[name]} is not there and https://")
    assert "(no network in the tests)" in told
    assert told.endswith(f"put that file or {name}-test.npz into {folder}")
    assert "\n" not in told


def test_a_missing_id_set_names_its_training_file(folder):
    with pytest.raises(Unavailable, match=r"put that file or cifar10-train\.npz into"):
        load("cifar10", "val", image_shape=RGB)


def test_an_ood_set_that_cannot_be_had_is_left_out_with_a_note(folder, capsys):
    sets = load_ood(["tin_crop", "uniform:3", "isun"], RGB)
    assert [s.key for s in sets] == ["uniform"]
    notes = capsys.readouterr().out.splitlines()
    assert [note.split(":")[:2] for note in notes] == [
        ["left out", " tin_crop cannot be had"],
        ["left out", " isun cannot be had"],
    ]


def test_no_ood_set_at_all_is_an_error(folder):
    with pytest.raises(InputError, match="none of the OOD sets is there"):
        load_ood(["tin_crop", "isun"], RGB)


@pytest.mark.parametrize(
    "name, published, npz",
    [
        ("cifar100", "CIFAR-100", "CIFAR-100"),
        ("svhn", "SVHN", "SVHN"),
        ("tin_crop", "TIN (C)", "TIN (C, ours)"),
        ("tin_resize", "TIN (R)", "TIN (R, ours)"),
        ("lsun_crop", "LSUN (C)", "LSUN (C, ours)"),
        ("lsun_resize", "LSUN (R)", "LSUN (R, ours)"),
        ("isun", "iSUN", "iSUN (ours)"),
        ("svhn_part", "svhn_part", "SVHN (part)"),
        ("sun_scenes", "sun_scenes", "SUN scenes"),
        ("my.set", "my.set", "my.set"),
    ],
)
def test_an_npz_has_not_the_title_of_odin_s_files(folder, name, published, npz):
    assert identity(name)[1] == published
    np.savez(folder / f"{name}-test.npz", images=noise(2))
    assert identity(name)[1] == npz


@pytest.mark.parametrize("has_npz", [False, True])
def test_published_sets_have_their_names_as_keys_and_their_roles_wherever_they_come_from(folder, has_npz):
    roles = dict.fromkeys(PUBLISHED, "far") | dict.fromkeys(("cifar100", "tin_crop", "tin_resize"), "near")
    if has_npz:
        for name in PUBLISHED:
            np.savez(folder / f"{name}-test.npz", images=noise(2))
    assert {identity(name)[0]: str(identity(name)[2]) for name in PUBLISHED} == roles


def test_an_npz_in_the_data_folder_is_far_by_its_name(folder):
    np.savez(folder / "svhn_part-test.npz", images=noise(2))
    assert identity("svhn_part") == ("svhn_part", "SVHN (part)", "far")


@pytest.mark.parametrize("name", ODIN)
def test_an_npz_in_place_of_odin_s_files_may_have_any_number_of_images(folder, name):
    np.savez(folder / f"{name}-test.npz", images=noise(7))
    found, *others = load_ood([name], RGB)
    assert "ours" in found.title
    assert len(found.images) == 7
    assert not others


@pytest.mark.parametrize("name, size", [("cifar100", 10_000), ("svhn", 26_032)])
def test_an_npz_of_a_part_of_a_published_set_is_refused(folder, name, size):
    np.savez(folder / f"{name}-test.npz", images=noise(7))
    with pytest.raises(InputError, match=f"{name} has {size} test images, but 7 are in .*{name}-test.npz"):
        load_ood([name, "uniform"], RGB)


def test_any_npz_in_the_data_folder_is_a_set_by_its_name(folder):
    np.savez(folder / "mine-test.npz", images=noise(7))
    assert {s.key: len(s.images) for s in load_ood(["mine"], RGB)} == {"mine": 7}


@pytest.mark.parametrize("split, count", [("train", 36), ("val", 4), ("test", 10)])
def test_an_npz_in_the_data_folder_may_be_an_id_set(folder, split, count):
    np.savez(folder / "mine-train.npz", images=noise(40), labels=np.arange(40) % 2)
    np.savez(folder / "mine-test.npz", images=noise(10), labels=np.arange(10) % 2)
    found = load("mine", split, image_shape=RGB)
    assert (len(found.images), len(found.labels), found.class_names) == (count, count, ("0", "1"))


def test_a_part_that_is_missing_beside_another_is_named(folder):
    np.savez(folder / "mine-test.npz", images=noise(10))
    with pytest.raises(InputError, match=r"mine-train\.npz cannot be read .*No such file"):
        load("mine", "train", image_shape=RGB)


def test_training_images_without_labels_are_refused(folder):
    np.savez(folder / "mine-train.npz", images=noise(10))
    with pytest.raises(InputError, match="mine has no labels to train on"):
        load("mine", "train", image_shape=RGB)


def test_a_path_is_no_name_in_the_data_folder(folder, tmp_path):
    Image.fromarray(noise(1)[0]).save(tmp_path / "a.png")
    np.savez(f"{tmp_path}-test.npz", images=noise(7))
    assert len(load(str(tmp_path), image_shape=RGB).images) == 1


def test_a_truncated_npz_is_named(folder):
    np.savez(folder / "mine-test.npz", images=noise(10))
    file = folder / "mine-test.npz"
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(InputError, match=r"mine-test\.npz cannot be read"):
        load("mine", image_shape=RGB)


def test_the_data_folder_lies_beside_the_snakefile(tmp_path, monkeypatch):
    monkeypatch.delenv("OODLIB_DATA", raising=False)
    (tmp_path / "Snakefile").touch()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert published.data_folder().resolve() == tmp_path / "data"


def test_importing_the_sets_imports_nothing_heavy():
    heavy = "torch torchvision sklearn matplotlib scipy pandas"
    program = f"import sys, oodlib.datasets; print(*(set({heavy.split()}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_published_set_with_some_of_its_classes_is_an_ood_set_all_the_same(folder, sizes):
    sizes("cifar10", train=0, test=20)
    np.savez(folder / "cifar10-test.npz", images=noise(20), labels=np.full(20, 3))
    (images,) = load_ood(["cifar10"], RGB)
    assert len(images.images) == 20
