"""OpenOOD's own sets, from small files laid out as its are."""

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from oodlib.datasets import openood
from oodlib.datasets.downloads import Unavailable
from oodlib.datasets.loading import identity, load, load_ood
from oodlib.datasets.roles import Role
from oodlib.errors import InputError

SHAPE = (32, 32, 3)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data folder with three images of texture and their list."""
    monkeypatch.setenv("OODLIB_DATA", str(tmp_path))
    lists, images = tmp_path / "benchmark_imglist" / "cifar10", tmp_path / "images_classic" / "texture"
    lists.mkdir(parents=True)
    images.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, size in (("b a", (48, 60)), ("a", (32, 32)), ("c", (90, 40))):
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(images / f"{name}.png")
    (lists / "test_texture.txt").write_text("texture/b a.png -1\ntexture/a.png -1\n\ntexture/c.png -1\n")
    return tmp_path


def test_images_stand_in_the_lists_order_and_are_resized_as_that_project_does(folder):
    resized = transforms.Compose(
        [transforms.Resize(32, transforms.InterpolationMode.BILINEAR), transforms.CenterCrop(32)]
    )
    files = [folder / "images_classic" / "texture" / f"{name}.png" for name in ("b a", "a", "c")]
    expected = [np.asarray(resized(Image.open(file).convert("RGB"))) for file in files]
    assert np.array_equal(load("openood/texture", image_shape=SHAPE).images, expected)


def test_near_and_far_are_as_that_project_has_them():
    roles = {source: role for source, _, role in map(identity, openood.SETS)}
    assert roles == {
        **dict.fromkeys(("openood/cifar100", "openood/tin"), Role.NEAR),
        **dict.fromkeys((f"openood/{name}" for name in ("mnist", "svhn", "texture", "places365")), Role.FAR),
    }


def test_a_set_that_is_not_there_is_named_and_left_out(folder, capsys):
    (texture,) = load_ood(["openood/tin", "openood/texture"], SHAPE)
    assert texture.key == "openood/texture" and texture.role == Role.FAR
    assert "left out: openood/tin cannot be had: " in capsys.readouterr().out


def test_without_the_list_it_cannot_be_had(folder):
    with pytest.raises(Unavailable, match=r"test_mnist.txt is not there; put OpenOOD's data into "):
        load("openood/mnist", image_shape=SHAPE)


def test_an_image_of_the_list_that_is_missing_is_named(folder):
    (folder / "images_classic" / "texture" / "a.png").unlink()
    with pytest.raises(InputError, match=r"lists 3 images, of which 1, such as .*a.png, are not there"):
        load("openood/texture", image_shape=SHAPE)


def test_an_empty_list_is_refused(folder):
    (folder / "benchmark_imglist" / "cifar10" / "test_texture.txt").write_text("\n")
    with pytest.raises(InputError, match="lists 0 images"):
        load("openood/texture", image_shape=SHAPE)


def test_it_has_no_training_images(folder):
    with pytest.raises(InputError, match="openood/texture is an OOD test set and has no split 'train'"):
        load("openood/texture", "train", image_shape=SHAPE)
