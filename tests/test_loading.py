import hashlib
from string import ascii_letters, digits

import numpy as np
import pytest
from fontTools.ttLib import TTFont
from PIL import Image, ImageFont
from scipy.stats import norm
from sklearn.datasets import load_digits

from oodlib.datasets.loading import SPLITS, identity, load, load_ood
from oodlib.datasets.published import PUBLISHED
from oodlib.datasets.roles import ID_TEST, Role, id_set
from oodlib.datasets.synthetic import LETTER_FONTS, LETTERS, OOD_SETS, SCRIPTS, SYMBOLS
from oodlib.errors import InputError
from oodlib.presets import PRESETS, make_settings
from oodlib.settings import Settings

CHECKSUMS = {"train": "604e09fd95b1a2af", "val": "ab55b1d20d41b866", "test": "53a939b14761c88b"}


@pytest.fixture(scope="module")
def loaded():
    return {name: load(name) for name in OOD_SETS}


@pytest.fixture(scope="module")
def ood_sets(loaded):
    return {name: found.images for name, found in loaded.items()}


@pytest.fixture
def class_folder(tmp_path):
    """Two classes of 20 pictures each, `dark` and `light`, of many sizes and formats."""
    for i in range(40):
        level, name = (20, "dark") if i % 2 else (230, "light")
        (tmp_path / name).mkdir(exist_ok=True)
        picture = Image.new("RGB" if i % 3 else "L", (8 + i, 30 - i // 2), (level,) * 3 if i % 3 else level)
        picture.save(tmp_path / name / f"{i:02d}.{('png', 'jpg', 'JPEG')[i % 3]}")
    return tmp_path


def rows(images):
    return {image.tobytes() for image in images}


@pytest.mark.parametrize("split", SPLITS)
def test_digits_are_grey_uint8_8_by_8(split):
    images, labels, class_names = load("digits", split)
    assert (images.dtype, images.shape[1:]) == (np.uint8, (8, 8, 1))
    assert (labels.dtype, labels.shape) == (np.int64, (len(images),))
    assert class_names == tuple("01234567")


@pytest.mark.parametrize("split", SPLITS)
def test_digits_split_is_fixed(split):
    images, labels, _ = load("digits", split)
    assert hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()[:16] == CHECKSUMS[split]


def test_digits_splits_cover_all_1443_images():
    assert sum(len(load("digits", split).images) for split in SPLITS) == 1443


def test_digits_splits_are_disjoint():
    # No two of the 1443 digits are alike, so that pixels tell them apart.
    assert len(set().union(*(rows(load("digits", split).images) for split in SPLITS))) == 1443


@pytest.mark.parametrize("split, share", [("train", 0.6), ("val", 0.15), ("test", 0.25)])
@pytest.mark.parametrize("label", range(8))
def test_digits_splits_are_stratified(split, share, label):
    total = (load_digits().target == label).sum()
    assert abs((load("digits", split).labels == label).sum() - share * total) <= 1


@pytest.mark.parametrize("split", SPLITS)
def test_digits_have_no_8_and_9(split, ood_sets):
    assert not rows(load("digits", split).images) & rows(ood_sets["held_out"])


def test_digits_labels_belong_to_their_images():
    bunch = load_digits()
    levels = np.round(bunch.images * 255 / 16).astype(np.uint8)
    known = {image.tobytes(): label for image, label in zip(levels, bunch.target, strict=True)}
    images, labels, _ = load("digits", "train")
    assert [known[image.tobytes()] for image in images] == labels.tolist()


def test_digits_use_the_whole_grey_range():
    images = load("digits", "train").images
    assert (images.min(), images.max()) == (0, 255)


def test_held_out_are_the_354_images_of_8_and_9(ood_sets):
    assert len(ood_sets["held_out"]) == 354


@pytest.mark.parametrize("name", ["letters", "scripts", "photo_patches", "gaussian", "uniform"])
def test_made_ood_set_has_1000_images(name, ood_sets):
    assert (ood_sets[name].dtype, ood_sets[name].shape) == (np.uint8, (1000, 8, 8, 1))


@pytest.mark.parametrize("name", OOD_SETS)
def test_ood_set_has_no_labels(name, loaded):
    assert loaded[name][1:] == (None, ())


@pytest.mark.parametrize("name", OOD_SETS)
def test_ood_set_is_the_same_on_each_call(name, ood_sets):
    assert np.array_equal(load(name).images, ood_sets[name])


@pytest.mark.parametrize("name", ["letters", "scripts", "photo_patches", "gaussian", "uniform"])
def test_image_depends_on_its_index_alone(name, ood_sets):
    assert np.array_equal(OOD_SETS[name].make((8, 8, 1), count=25), ood_sets[name][:25])


@pytest.mark.parametrize("name", ["letters", "scripts", "photo_patches", "gaussian", "uniform"])
def test_made_ood_images_differ_from_each_other(name, ood_sets):
    assert len(rows(ood_sets[name])) > 990


@pytest.mark.parametrize("name", ["gaussian", "uniform"])
@pytest.mark.parametrize("shape", [(32, 32, 3), (5, 7, 1)])
def test_noise_has_any_shape(name, shape):
    assert load(name, image_shape=shape).images.shape == (1000, *shape)


@pytest.mark.parametrize("name", ["gaussian", "uniform"])
def test_noise_comes_in_any_number_under_the_same_name(name, ood_sets):
    (noise,) = load_ood([f"{name}:1200"])
    assert (noise.key, noise.images.shape) == (name, (1200, 8, 8, 1))
    assert np.array_equal(noise.images[:1000], ood_sets[name])


@pytest.mark.parametrize("count", ["", "0", "-5", "many", "1e4"])
def test_noise_in_no_number_is_refused(count):
    with pytest.raises(InputError, match="expected a number of images after the colon: gaussian:10000"):
        load(f"gaussian:{count}")


@pytest.mark.parametrize(
    "name, checksum", [("gaussian", "9dda5d337684b937"), ("uniform", "ffd742cdf97e1144")]
)
def test_noise_is_fixed(name, checksum, ood_sets):
    assert hashlib.sha256(ood_sets[name].tobytes()).hexdigest()[:16] == checksum


def test_uniform_noise_has_the_moments_of_uniform(ood_sets):
    values = ood_sets["uniform"] / 255
    assert values.mean() == pytest.approx(0.5, abs=0.005)
    assert values.std() == pytest.approx(12**-0.5, abs=0.003)


def test_gaussian_noise_has_the_moments_of_a_clipped_normal(ood_sets):
    values = ood_sets["gaussian"] / 255
    grid = np.linspace(0, 1, 10001)
    second_moment = np.trapezoid(grid**2 * norm.pdf(grid, 0.5), grid) + norm.sf(1, 0.5)
    assert values.mean() == pytest.approx(0.5, abs=0.005)
    assert values.std() == pytest.approx((second_moment - 0.25) ** 0.5, abs=0.003)


@pytest.mark.parametrize("name", ["gaussian", "uniform"])
def test_noise_pixels_are_independent(name, ood_sets):
    pixels = ood_sets[name].reshape(1000, 64)
    assert abs(np.corrcoef(pixels[:, :-1].ravel(), pixels[:, 1:].ravel())[0, 1]) < 0.02


def test_inverted_is_255_less_the_digits_of_the_test_split(ood_sets):
    assert np.array_equal(ood_sets["inverted"], 255 - load("digits", "test").images)


def test_letters_leave_out_the_digits_twins():
    assert not set(LETTERS) & set("BDGIOQSZ")


def test_letters_hold_no_image_of_a_digit(ood_sets):
    assert not rows(ood_sets["letters"]) & rows(load("digits", "train").images)


def test_letters_fill_much_of_their_frame(ood_sets):
    lit_rows = (ood_sets["letters"][..., 0].max(2) > 60).sum(1)
    assert lit_rows.min() >= 5


@pytest.mark.parametrize("split", ["train", "val"])
def test_ood_set_has_no_other_split(split):
    with pytest.raises(InputError, match=f"uniform is an OOD test set and has no split '{split}'"):
        load("uniform", split)


def test_unknown_split_is_refused():
    with pytest.raises(InputError, match="split 'valid' is not known; choose one of train, val, test"):
        load("digits", "valid")


@pytest.mark.parametrize("name", ["digit", "nowhere/pool.npz", "cifar", "letters:10"])
def test_unknown_set_is_refused_with_the_names_of_all(name):
    with pytest.raises(InputError) as error:
        load(name)
    assert f"image set '{name}' is not known" in str(error.value)
    assert all(known in str(error.value) for known in ("digits", *OOD_SETS, *PUBLISHED))


@pytest.mark.parametrize("name", ["digits", "held_out", "inverted"])
def test_set_of_another_shape_is_refused(name):
    with pytest.raises(InputError, match=r"images of shape \(8, 8, 1\), expected \(32, 32, 3\)"):
        load(name, image_shape=(32, 32, 3))


@pytest.mark.parametrize(
    "source, key, title",
    [
        ("held_out", "held_out", "held out"),
        ("photo_patches:40", "photo_patches", "photo patches"),
        ("a/b/my_pool.npz", "my_pool", "my_pool"),
        ("a/pictures", "pictures", "pictures"),
    ],
)
def test_the_key_of_a_set_is_its_name_or_the_last_part_of_its_path(source, key, title):
    assert identity(source)[:2] == (key, title)


def test_built_in_sets_have_their_roles():
    assert {name: str(made.role) for name, made in OOD_SETS.items()} == {
        "held_out": "near",
        **dict.fromkeys(("letters", "symbols", "scripts", "photo_patches"), "far"),
        **dict.fromkeys(("gaussian", "uniform", "inverted"), "noise"),
    }
    assert identity("gaussian:10000")[2] == Role.NOISE


@pytest.mark.parametrize(
    "name", ["mine", "CIFAR-100", "cifar100", "near", "gaussian noise", "held_out", "isun"]
)
def test_a_set_of_ones_own_is_far_whatever_it_is_called(name):
    assert identity(f"some/{name}.npz") == (name, name, Role.FAR)


def test_near_far_noise_and_validation_outliers_are_ood_and_id_images_are_not_even_shifted_or_degraded():
    assert [str(role) for role in Role if role.is_ood] == ["near", "far", "noise", "validation"]
    assert [str(role) for role in Role if not role.is_ood] == ["id", "shifted_id", "degraded_id"]


def test_id_images_keep_their_labels_and_have_the_key_of_their_split():
    test = load("digits", "test")
    found = id_set(test)
    assert found[:3] == (ID_TEST, "ID test", Role.ID) and found[3:] == test
    assert id_set(test, "val").key == "id_val"


def test_sub_folders_are_classes(class_folder):
    assert load(str(class_folder), "all").class_names == ("dark", "light")


def test_labels_of_a_folder_belong_to_its_images(class_folder):
    images, labels, _ = load(str(class_folder), "all")
    assert np.array_equal(images.mean((1, 2, 3)) > 128, labels == 1)


@pytest.mark.parametrize("shape", [(8, 8, 1), (16, 16, 3)])
def test_pictures_of_any_size_and_mode_take_the_shape(class_folder, shape):
    images = load(str(class_folder), "all", image_shape=shape).images
    assert (images.dtype, images.shape) == (np.uint8, (40, *shape))


@pytest.mark.parametrize("split, count", [("train", 24), ("val", 6), ("test", 10)])
def test_folder_with_classes_is_split_like_digits(class_folder, split, count):
    assert np.bincount(load(str(class_folder), split).labels).tolist() == [count // 2, count // 2]


def test_folder_without_sub_folders_has_no_classes(tmp_path):
    Image.new("L", (20, 20), 77).save(tmp_path / "a.png")
    images, labels, class_names = load(str(tmp_path))
    assert (images.tolist(), labels, class_names) == (np.full((1, 8, 8, 1), 77).tolist(), None, ())


def test_order_of_a_folder_is_that_of_its_names(tmp_path):
    for level in (30, 10, 20):
        Image.new("L", (8, 8), level).save(tmp_path / f"{level}.png")
    assert load(str(tmp_path)).images[:, 0, 0, 0].tolist() == [10, 20, 30]


def test_files_that_are_no_pictures_are_passed_over(class_folder):
    (class_folder / "notes.txt").write_text("not a picture")
    assert load(str(class_folder), "all").class_names == ("dark", "light")


def test_hidden_files_are_passed_over(class_folder):
    (class_folder / "dark" / "._00.png").write_bytes(b"what macOS writes beside a picture")
    (class_folder / ".trash").mkdir()
    assert load(str(class_folder), "all").class_names == ("dark", "light")


def test_a_class_without_pictures_is_named(class_folder):
    (class_folder / "middle").mkdir()
    (class_folder / "middle" / "notes.txt").write_text("to do")
    with pytest.raises(InputError, match=r"class folder .*middle holds no pictures; add some or remove it"):
        load(str(class_folder), "train")


def test_a_split_without_images_is_refused(tmp_path):
    for name in ("dark", "light"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "a.png")
    with pytest.raises(
        InputError, match=r"no image of .* falls to its val split; it needs more images a class"
    ):
        load(str(tmp_path), "val")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_a_grey_picture_among_rgb_has_three_equal_channels(tmp_path, mode):
    Image.new("RGB", (32, 32), (200, 100, 0)).save(tmp_path / "a.png")
    grey = Image.fromarray(np.full((32, 32), 255 * 257, np.uint16))
    grey = grey if mode == "I;16" else Image.new("L", (32, 32), 255).convert(mode)
    grey.save(tmp_path / ("b.tif" if mode == "CMYK" else "b.png"))
    images = load(str(tmp_path), image_shape=(32, 32, 3)).images
    assert images[0, 0, 0].tolist() == [200, 100, 0]
    assert (images[1] == 255).all()


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"^folder .* holds no pictures$"):
        load(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"no picture", "truncated"])
def test_corrupted_picture_is_named(tmp_path, content):
    file = tmp_path / "broken.png"
    Image.effect_noise((64, 64), 50).save(file)
    file.write_bytes(file.read_bytes()[:900] if content == "truncated" else content)
    with pytest.raises(InputError, match=r"image .*broken\.png cannot be read .*; remove or repair it"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    "name, position, value, told",
    [
        ("a.png", 11, 12, "Truncated IHDR"),
        ("a.bmp", 20, 255, "truncated"),
    ],
)
def test_a_picture_with_a_damaged_header_is_named(tmp_path, name, position, value, told):
    Image.new("L", (16, 16)).save(tmp_path / name)
    damaged = bytearray((tmp_path / name).read_bytes())
    damaged[position] = value
    (tmp_path / name).write_bytes(damaged)
    with pytest.raises(
        InputError, match=rf"image .*{name} cannot be read \(.*{told}.*\); remove or repair it"
    ):
        load(str(tmp_path))


@pytest.fixture
def npz(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "own.npz", **arrays)
        return str(tmp_path / "own.npz")

    return write


IMAGES = np.arange(40 * 64, dtype=np.int64).astype(np.uint8).reshape(40, 8, 8, 1)


@pytest.mark.parametrize("images", [IMAGES, IMAGES[..., 0]], ids=["NHWC", "NHW"])
def test_npz_without_labels_is_read_whole(npz, images):
    found = load(npz(images=images))
    assert np.array_equal(found.images, IMAGES)
    assert found[1:] == (None, ())


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_npz_labels_are_int64_with_numbers_as_names(npz, dtype):
    _, labels, class_names = load(npz(images=IMAGES, labels=(np.arange(40) % 2).astype(dtype)), "all")
    assert (labels.dtype, labels.tolist(), class_names) == (np.int64, [0, 1] * 20, ("0", "1"))


@pytest.mark.parametrize("split, count", [("train", 24), ("val", 6), ("test", 10), ("all", 40)])
def test_npz_with_labels_is_split(npz, split, count):
    assert len(load(npz(images=IMAGES, labels=np.arange(40) % 2), split).images) == count


def test_npz_in_rgb_has_its_shape(npz):
    images = np.zeros((3, 32, 32, 3), np.uint8)
    assert load(npz(images=images), image_shape=(32, 32, 3)).images.shape == (3, 32, 32, 3)


@pytest.mark.parametrize(
    "arrays, told",
    [
        ({"pictures": IMAGES}, r"holds pictures\.npy; write it with numpy\.savez\(path, images"),
        ({"images": IMAGES.astype(np.float32)}, r"are float32 of shape \(40, 8, 8, 1\), expected uint8"),
        ({"images": IMAGES.astype(np.int64)}, r"are int64"),
        ({"images": IMAGES[0, 0]}, r"of shape \(8, 1\)"),
        ({"images": IMAGES[:0]}, r"have shape \(0, 8, 8, 1\)"),
        ({"images": IMAGES, "labels": np.zeros(39, int)}, r"must be 40 integers from 0, one for each image"),
        ({"images": IMAGES, "labels": np.zeros(40)}, r"are float64 .* expected integers"),
        ({"images": IMAGES, "labels": np.full(40, -1)}, r"must be 40 integers from 0"),
        ({"images": IMAGES, "labels": np.eye(40, dtype=int)}, r"of shape \(40, 40\), expected integers"),
        ({"images": IMAGES[:, :4, :4]}, r"images of shape \(4, 4, 1\), expected \(8, 8, 1\)"),
    ],
)
def test_bad_npz_is_refused(npz, arrays, told):
    with pytest.raises(InputError, match=told):
        load(npz(**arrays))


def test_ood_sets_are_loaded_whole_under_their_names(tmp_path):
    np.savez(tmp_path / "mine.npz", images=np.zeros((40, 8, 8), np.uint8), labels=np.arange(40) % 2)
    sets = load_ood(["letters", str(tmp_path / "mine.npz")])
    assert {s.key: len(s.images) for s in sets} == {"letters": 1000, "mine": 40}


def test_ood_sets_come_without_labels_as_none_of_their_classes_is_a_detectors(tmp_path):
    np.savez(tmp_path / "mine.npz", images=np.zeros((40, 8, 8), np.uint8), labels=np.arange(40) % 2)
    (mine,) = load_ood([str(tmp_path / "mine.npz")])
    assert mine.labels is None and mine.class_names == ()


def test_two_ood_sets_of_one_name_are_refused(tmp_path):
    (tmp_path / "letters").mkdir()
    with pytest.raises(InputError, match="two OOD sets are called letters"):
        load_ood(["letters", str(tmp_path / "letters")])


def test_two_ood_sets_of_one_title_are_refused(tmp_path):
    (tmp_path / "held out").mkdir()
    with pytest.raises(InputError, match="two OOD sets are called held out"):
        load_ood(["held_out", str(tmp_path / "held out")])


def test_an_ood_set_may_not_be_called_id_test(tmp_path):
    (tmp_path / "id_test").mkdir()
    with pytest.raises(
        InputError, match="id_test is called id_test, as the ID test set is in tables; rename it"
    ):
        load_ood([str(tmp_path / "id_test")])


def test_training_data_needs_labels(tmp_path):
    np.savez(tmp_path / "bare.npz", images=np.zeros((40, 8, 8), np.uint8))
    with pytest.raises(InputError, match="has no labels to train on"):
        load(str(tmp_path / "bare.npz"), "train")


def test_an_npz_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"bad\.npz cannot be read .* write it with numpy\.savez"):
        load(str(tmp_path / "bad.npz"))


def test_labels_with_a_gap_are_refused(tmp_path):
    np.savez(tmp_path / "gap.npz", images=np.zeros((3, 8, 8), np.uint8), labels=np.array([0, 0, 2]))
    with pytest.raises(InputError, match=r"skip \[1\]; number the classes from 0 without gaps"):
        load(str(tmp_path / "gap.npz"), "all")


def test_a_16_bit_grey_picture_is_scaled_not_clipped(tmp_path):
    Image.fromarray(np.full((8, 8), 128 * 256 + 77, np.uint16)).save(tmp_path / "deep.png")
    assert load(str(tmp_path), "all").images.tolist() == np.full((1, 8, 8, 1), 128).tolist()


def test_symbols_hold_no_letter_of_the_letters():
    assert not set(SYMBOLS) & set(LETTERS) and len(set(SYMBOLS)) == len(SYMBOLS)


def test_scripts_hold_no_letter_symbol_or_digit():
    assert len(set(SCRIPTS)) == len(SCRIPTS) and SCRIPTS.isalpha()
    assert not set(SCRIPTS) & {*LETTERS, *SYMBOLS, *ascii_letters, *digits}


@pytest.mark.parametrize(
    "name, characters",
    [("symbols", SYMBOLS), ("scripts", SCRIPTS), ("letters", LETTERS)],
    ids=["symbols", "scripts", "letters"],
)
def test_the_fonts_of_characters_have_them_all(name, characters, monkeypatch):
    used = set()
    truetype = ImageFont.truetype
    monkeypatch.setattr(ImageFont, "truetype", lambda path, size: (used.add(path), truetype(path, size))[1])
    OOD_SETS[name].make((8, 8, 1), count=len(characters) * len(LETTER_FONTS) + 1)
    fonts = {path.name: TTFont(path).getBestCmap() for path in used}
    assert {"letters": 10, "symbols": 8, "scripts": 2}[name] == len(fonts)
    missing = {font: {c for c in characters if ord(c) not in known} for font, known in fonts.items()}
    assert not any(missing.values()), missing


def test_scripts_are_sealed_and_no_source_trains_on_them():
    """No choice has seen them: they are no default, and outliers of real images are others."""
    defaults = [make_settings(preset=preset) for preset in PRESETS]
    assert all("scripts" not in s.ood_sets and s.real_outliers != "scripts" for s in (Settings(), *defaults))
    assert identity("scripts") == ("scripts", "other scripts", Role.FAR)


def test_scripts_are_no_images_of_letters_or_symbols(ood_sets):
    assert not rows(ood_sets["scripts"]) & (rows(ood_sets["letters"]) | rows(ood_sets["symbols"]))


def test_photo_patches_have_any_size_and_number():
    patches = load("photo_patches:12", image_shape=(32, 32, 3)).images
    assert patches.shape == (12, 32, 32, 3) and patches.std(axis=(1, 2, 3)).max() > 10


def test_photo_patches_are_as_large_as_the_photographs_at_most():
    assert load("photo_patches:2", image_shape=(256, 256, 3)).images.shape == (2, 256, 256, 3)
    with pytest.raises(
        InputError, match="photo_patches come at up to 427 pixels, not at 512; choose another set"
    ):
        load("photo_patches:2", image_shape=(512, 512, 3))


def test_a_path_is_taken_from_beside_the_snakefile_too(class_folder, tmp_path, monkeypatch):
    (tmp_path / "Snakefile").touch()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert len(load("light", "all").images) == 20


def test_labels_of_an_ood_set_are_not_looked_at(tmp_path):
    np.savez(
        tmp_path / "some.npz", images=np.zeros((3, 8, 8), np.uint8), labels=np.array([5, 7, 255], np.uint8)
    )
    (some,) = load_ood([str(tmp_path / "some.npz")])
    assert some.labels is None and len(some.images) == 3
