"""Images, labels and transforms as users have them, and what is told of those that do not fit."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset
from torchvision.transforms import v2

from oodlib.classifier.labels import Labels
from oodlib.classifier.streams import stream_of
from oodlib.classifier.transforms import check_transform, described, sketched, to_unit_range
from oodlib.classifier.validation import tell_accuracy
from oodlib.detection.detector import Detector
from oodlib.errors import InputError
from oodlib.seeds import initial_weights

NAMES = ("ant", "bee", "caf\u00e9")
FLOATS = v2.Compose([v2.Grayscale(), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
PICTURES = [Image.fromarray(np.full((4, 4), 40 * i, np.uint8)) for i in range(6)]
NUMBERS = [0, 1, 2, 0, 1, 2]
TENSORS = torch.stack([FLOATS(picture) for picture in PICTURES])


class Net(nn.Sequential):
    """A network that counts the images that it sees."""

    def __init__(self):
        with initial_weights(0, "a network of one's own"):
            super().__init__(nn.Flatten(), nn.Linear(16, 3))
        self.count = 0

    def forward(self, images):
        self.count += len(images)
        return super().forward(images)


def detector_of(network=None, **options):
    return Detector.from_classifier(
        network or Net(), **{"class_names": NAMES, "transform": FLOATS, "workers": 0} | options
    )


class Pairs(Dataset):
    """Pictures, or what is made of them, and labels."""

    def __init__(self, labels, change=lambda picture: picture):
        self.labels, self.change = labels, change

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.change(PICTURES[index]), self.labels[index]


def loader(labels):
    return DataLoader(Pairs(labels, FLOATS), 4)


def pairs(labels):
    return list(zip(PICTURES, labels, strict=True))


FORMS = {"list": pairs, "data set": Pairs, "loader": loader}


def numbers(images):
    """The labels that come with the batches."""
    return torch.cat(
        [labels for _, labels in stream_of(images, FLOATS, Labels("test", NAMES)).batches()]
    ).tolist()


# Labels.


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    "change",
    [
        int,
        float,
        np.uint8,
        torch.tensor,
        lambda i: torch.tensor([i]),
        lambda i: ("ant", "bee", "cafe\u0301")[i],
    ],
)
def test_labels_are_numbers_of_outputs_or_names_of_classes(form, change):
    assert numbers(form([change(i) for i in NUMBERS])) == NUMBERS


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: ("ant", "bee", "cat")[i], "image 2 of the test images is 'cat', which is none of ant, bee, caf"),
        (lambda i: i + 1, "image 2 of the test images is 3, expected 0 to 2: labels count outputs from 0"),
        (lambda i: i - 1, "image 0 of the test images is -1, expected 0 to 2"),
        (lambda i: i + 0.5, "image 0 of the test images is 0.5, expected a whole number or the name of a class"),
        (lambda i: float("nan"), "image 0 of the test images is nan, expected a whole number"),
        (lambda i: torch.eye(3)[i], r"image 0 of the test images has shape \(3,\), .*of one-hot labels give"),
    ],
)  # fmt: skip
def test_a_label_of_another_kind_is_told_with_its_image(form, change, message):
    with pytest.raises(InputError, match=message) as error:
        numbers(form([change(i) for i in NUMBERS]))
    assert len(str(error.value).splitlines()) == 1


ODD = {
    "no label": ([(p, None) for p in PICTURES], "the training images have no labels; give pairs of image and label"),
    "no pairs": (PICTURES, "the training images have no labels"),
    "an array": (np.zeros((6, 5, 5), np.uint8), "the training images have no labels"),
    "a tensor": (TENSORS, "the training images have no labels"),
    "in part": ([*pairs(NUMBERS)[:5], PICTURES[5]], "image 5 of the training images has no label"),
    "from 1": (pairs([i + 1 for i in NUMBERS]), "image 2 of the training images is 3, expected 0 to 2"),
    "a class too few": (pairs([0, 1] * 3), "there are no training images of 'café'"),
    "a data set without": (TensorDataset(TENSORS), "image 0 of the training images has no label"),
    "a data set with None": (Pairs([None] * 6), "image 0 of the training images has no label"),
    "a data set of one-hot labels": (Pairs(torch.eye(3)[NUMBERS]), r"the training images has shape \(3,\)"),
    "tensors": ((TENSORS, torch.tensor(NUMBERS)), r"a pair of arrays, .* give list\(zip\(X, y\)\), or TensorDataset"),
    "arrays": ((np.zeros((6, 5, 5), np.uint8), np.array(NUMBERS)), "the images are a pair of arrays"),
    "an array and a list": ([np.zeros((6, 5, 5), np.uint8), NUMBERS], "the images are a pair of arrays"),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_labels_that_cannot_be_used_are_told_before_the_network_runs(case):
    network, (train, message) = Net(), ODD[case]
    with pytest.raises(InputError, match=message):
        detector_of(network).fit(train, val=pairs(NUMBERS))
    assert network.count == 0


def test_a_loader_without_labels_is_told_at_its_first_batch():
    with pytest.raises(InputError, match="the validation images have no labels"):
        detector_of().fit(pairs(NUMBERS), val=DataLoader(TENSORS, 2))
    with pytest.raises(
        InputError, match="labels of a batch of 4 test images are a list of 3, expected one for each"
    ):
        numbers(DataLoader([(TENSORS[:4], [0, 1, 2])], collate_fn=lambda batch: batch[0]))


def test_labels_of_ood_images_are_passed_over():
    detector = detector_of().fit(pairs(NUMBERS), val=pairs(NUMBERS))
    sets = {"names": pairs(["grass"] * 6), "none": Pairs([None] * 6), "alone": TensorDataset(TENSORS)}
    sets |= {"loader": loader(["grass"] * 6), "loader of one": DataLoader(TensorDataset(TENSORS), 4)}
    counts = detector.evaluate(pairs(NUMBERS), sets).scores.groupby("title").size()
    assert set(counts) == {6} and len(counts) == 6


class Folders(Pairs):
    """A data set that says what its numbers stand for."""

    classes, target_transform = ["bee", "ant", "cafe\u0301"], None


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: Subset(x, range(6)), DataLoader])
def test_numbers_of_the_same_names_in_another_order_are_refused(wrap):
    images = Folders(NUMBERS, FLOATS)
    with pytest.raises(
        InputError, match=r"are bee, ant, caf., and class_names has another order; if .*=data\.classes"
    ):
        stream_of(wrap(images), FLOATS, Labels("test", NAMES))
    images.target_transform = lambda i: i
    stream_of(wrap(images), FLOATS, Labels("test", NAMES))
    stream_of(wrap(images), FLOATS)


def test_names_of_a_data_set_are_taken_in_any_order():
    assert numbers(Folders(["bee", "ant"])) == [1, 0]


# The order of names or of labels.


def test_another_order_that_fits_far_better_is_told_above_chance_too(capsys):
    right = np.arange(100) % 10
    swapped = np.array([1, 0, *range(2, 10)])[right]
    tell_accuracy(right, swapped, list("abcdefghij"))
    assert capsys.readouterr().out.splitlines()[1:] == [
        "names and outputs may be in another order; the outputs fit best in the order b, a, c, d, e, f, g, h, i, j "
        "(accuracy 100.0%)"
    ]


def test_of_numbers_the_order_of_labels_is_told_and_not_that_of_names(capsys):
    tell_accuracy(np.array([0, 1, 2, 0]), np.array([1, 2, 0, 1]), NAMES, has_names=False)
    line = capsys.readouterr().out.splitlines()[-1]
    assert "outputs 0 to 2 fit best the labels 1, 2, 0 (accuracy 100.0%)" in line and "ant" not in line


@pytest.mark.parametrize(("labels", "has_names"), [(NUMBERS, False), ([NAMES[i] for i in NUMBERS], True)])
@pytest.mark.parametrize("form", [pairs, Pairs])
def test_names_are_told_from_numbers(form, labels, has_names):
    assert stream_of(form(labels), FLOATS, Labels("test", NAMES)).has_names is has_names


# Names of classes and other options.


@pytest.mark.parametrize(
    "names", [set(NAMES), "abc", dict.fromkeys(NAMES), {"ant": 0}.keys(), 3, iter(NAMES)]
)
def test_class_names_without_an_order_are_refused(names):
    with pytest.raises(
        InputError, match=r"^class_names is a \w+, expected a list of names in the order of the"
    ):
        detector_of(class_names=names)


@pytest.mark.parametrize(
    "names", [list("abc"), range(3), np.array(list("abc")), dict(enumerate("abc")).values()]
)
def test_class_names_may_be_any_sequence(names):
    assert detector_of(class_names=names).class_names == tuple(map(str, names))


def test_names_with_letters_taken_apart_are_those_of_the_folders(tmp_path):
    for number, picture in zip(NUMBERS, PICTURES, strict=True):
        (tmp_path / NAMES[number]).mkdir(exist_ok=True)
        picture.save(tmp_path / NAMES[number] / f"{len(list(tmp_path.rglob('*.png')))}.png")
    detector_of(class_names=["ant", "bee", "cafe\u0301"]).fit(tmp_path, val=tmp_path)


@pytest.mark.parametrize("size", [0, -3, 1.5, "5", None])
def test_a_bank_of_less_than_one_image_is_refused_before_the_network_runs(size):
    network = Net()
    with pytest.raises(InputError, match=r"bank_size is .*, expected a whole number from 1"):
        detector_of(network).fit(pairs(NUMBERS), val=pairs(NUMBERS), bank_size=size)
    assert network.count == 0


def test_the_choice_among_scores_does_not_list_none():
    with pytest.raises(InputError, match="choose one of msp"):
        detector_of().fit(pairs(NUMBERS), val=pairs(NUMBERS)).predict(TENSORS, "cosin")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (PICTURES[0], "the images are one picture; give a list of it"),
        (torch.tensor(1.0), r"a tensor of shape \(\), expected N x"),
        (torch.zeros(0, 1, 4, 4), r"a tensor of shape \(0, 1, 4, 4\), expected N x"),
        (iter(PICTURES), "the images are list_iterator; expected a folder"),
    ],
)
def test_one_picture_or_none_is_told(images, message):
    with pytest.raises(InputError, match=message):
        detector_of().all_features(images)


# Transforms.


def failing(picture):
    raise RuntimeError("too\nsmall")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_transform_that_fails_is_told_with_the_picture_in_one_line(tmp_path, workers):
    PICTURES[0].save(tmp_path / "a.png")
    detector = detector_of(transform=failing, workers=workers)
    with pytest.raises(
        InputError, match=r"^the transform fails on image .*a\.png: RuntimeError: too\\nsmall$"
    ):
        detector.all_features(tmp_path)
    with pytest.raises(InputError, match=r"^the transform fails on image 0: RuntimeError: too\\nsmall$"):
        detector.all_features(Pairs(NUMBERS))
    with pytest.raises(
        InputError, match=r"^the transform fails on image .*a\.png: RuntimeError: too\\nsmall$"
    ):
        detector.read(tmp_path / "a.png")


def test_a_transform_that_gives_integers_is_refused():
    with pytest.raises(InputError, match=r"a tensor of torch\.uint8, expected floats; end it with ToDtype"):
        detector_of(transform=v2.PILToTensor()).all_features(PICTURES)


def test_what_is_no_transform_is_told():
    with pytest.raises(InputError, match="transform is 'resize', expected a function of a PIL image"):
        detector_of(transform="resize")


def test_a_crop_and_a_squeeze_are_two_transforms(tmp_path):
    crop, squeeze = (
        v2.Compose([*resize, FLOATS]) for resize in ([v2.Resize(8), v2.CenterCrop(8)], [v2.Resize((8, 8))])
    )
    assert described(crop) != described(squeeze) == described(squeeze)
    with pytest.raises(InputError, match="makes something else of a picture"):
        check_transform(crop, sketched(squeeze), tmp_path)


def test_the_next_of_256_greys_is_the_same_transform(tmp_path):
    check_transform(lambda p: FLOATS(p) + 1 / 255, sketched(FLOATS), tmp_path)
    with pytest.raises(InputError, match="makes something else of a picture"):
        check_transform(lambda p: FLOATS(p).flip(-1), sketched(FLOATS), tmp_path)


def random_one(picture):
    return FLOATS(picture) + torch.rand(())


def test_a_transform_is_not_compared_where_it_is_random_and_missed_where_it_was(tmp_path):
    assert described(random_one) is sketched(random_one) is None
    check_transform(random_one, None, tmp_path)
    check_transform(FLOATS, None, tmp_path)
    check_transform(None, sketched(to_unit_range), tmp_path)
    for sketch in (None, sketched(FLOATS)):
        with pytest.raises(InputError, match="was made with a transform; give it as transform="):
            check_transform(None, sketch, tmp_path)
