"""Named image sets as uint8 arrays in memory, the same on every machine.

The small in-distribution (ID) set is scikit-learn's handwritten digits, classes 0 to 7. Its out-of-distribution
(OOD) sets are made from what the dependencies ship: the digits 8 and 9, fonts, two photographs, noise.
The large one is CIFAR-10, with published OOD sets, taken from the data folder or fetched into it.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from oodlib import data_folder
from oodlib.data_folder import PUBLISHED
from oodlib.downloads import Unavailable
from oodlib.errors import InputError, choice
from oodlib.images import ImageSet, from_folder, from_npz

ID_TEST = "id_test"  # what tables call the ID test set; no OOD set may take its place
SPLITS = ("train", "val", "test")
NOISE_SEED = 555  # the seed of engkarat/cosine-ood-detector, whose noise definitions are used

# Capitals that an 8 x 8 image does not tell from a digit are left out: B D G I O Q S Z.
LETTERS = "ACEFHJKLMNPRTUVWXY"
# Real images to train on as outliers: none of these characters is among the letters, and none looks like a digit.
SYMBOLS = "ΓΔΛΞΠΣΨΩЖИЛЦШЩЫЮЯ→↑↓↔⇒⇔∀∇∈∏∑∞∪∩≈≠≡⊂⊕⊗"
LETTER_FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "STIXGeneral.ttf",
    "STIXGeneralBol.ttf",
    "cmr10.ttf",
    "cmss10.ttf",
)


def load(source: str, split: str = "test", *, image_shape: tuple[int, int, int] = (8, 8, 1)) -> ImageSet:
    """Load a set by its name, or one's own from a folder or an `.npz` file.

    Args:
        source: One of

            - `digits`, or the sets of strange images `held_out`, `letters`, `symbols`, `photo_patches`, `gaussian`,
              `uniform`, `inverted`. Noise and photo patches come in another number than 1000 as `gaussian:10000`;
            - `cifar10`, or the OOD sets `cifar100`, `svhn`, `tin_crop`, `tin_resize`, `lsun_crop`, `lsun_resize`,
              `isun`, all 32 x 32 x 3. Each is taken from `<name>-test.npz` (and `cifar10-train.npz`, all 50,000)
              in the data folder, else from the published files there, else fetched;
            - the name of any other `<name>-test.npz` or `<name>-train.npz` in the data folder;
            - the path of an `.npz` with `images` (uint8, N x H x W or N x H x W x C) and, for an ID set, `labels`
              (integers from 0);
            - the path of a folder of images, one sub-folder a class where there are classes.
        split: `train`, `val` or `test`: a fixed, stratified split of a set with labels into 60, 15 and 25 %. A
            set in the data folder has its own test images, and its training images are split into 90 and 10 %.
            OOD sets are test sets and have no other split; `all` gives the whole of one's own set.
        image_shape: (H, W, C) of the images wanted. Images of a folder are centre-cropped to a square,
            scaled and turned grey or RGB; noise is made at this shape; any other set must have it.

    Raises:
        Unavailable: The set is not in the data folder and cannot be fetched.
        InputError: The set, its split, or its shape is not what it must be.
    """
    choice("split", split, (*SPLITS, "all"))
    name, options = _counted(source)
    if source == "digits":
        found = _split(source, _digits(range(8)), split)
    elif name in OOD_SETS:
        if split not in ("test", "all"):
            raise InputError(f"{source} is an OOD test set and has no split {split!r}")
        found = ImageSet(OOD_SETS[name](image_shape, **options), None, ())
    elif data_folder.knows(source):
        if source in PUBLISHED:
            _check_shape(source, (32, 32, 3), image_shape)  # before anything is fetched
        part = "train" if split in ("train", "val") else "test"
        found = data_folder.read(source, part)
        if part == "train":
            found = _split(source, found, split, ends=(0.9, 1))
    else:
        found = _own(source, image_shape)
        if split != "all" and (found.labels is not None or split != "test"):
            found = _split(source, found, split)
    if not len(found.images):
        raise InputError(f"no image of {source} falls to its {split} split; it needs more images a class")
    _check_shape(source, found.images.shape[1:], image_shape)
    return found


def load_ood(sources: Iterable[str], image_shape: tuple[int, int, int] = (8, 8, 1)) -> dict[str, np.ndarray]:
    """The whole of each OOD set, uint8 (N, H, W, C), by the name that tables and figures call it.

    A published set that cannot be had is left out, with a printed line that says why.
    """
    sets = {}
    for source in sources:
        name = display_name(source)
        if name == ID_TEST:
            raise InputError(
                f"OOD set {source} is called {ID_TEST}, as the ID test set is in tables; rename it"
            )
        if name in sets:
            raise InputError(f"two OOD sets are called {name}; rename the folder or file of one")
        try:
            sets[name] = load(source, "all", image_shape=image_shape).images
        except Unavailable as error:
            print(f"left out: {error}")
    if not sets:
        raise InputError("none of the OOD sets is there; name others, such as gaussian and uniform")
    return sets


def validation_outliers(images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Strange images made of ID validation images, to choose by; no test set holds their like.

    - `chimera`: the upper half of one image over the lower half of one of another class;
    - `jigsaw`: an image's four quarters, turned round by one place;
    - `shuffled`: an image's pixels in another order;
    - `clouds`: uniform noise on a grid of 4 x 4, scaled up.

    Args:
        images: uint8 (N, H, W, C), H and W even.
        labels: Integers (N,), of two classes or more.

    Returns:
        N uint8 images of each kind.
    """
    count, height, width, channels = images.shape
    rng = np.random.default_rng(NOISE_SEED)
    top, left = height // 2, width // 2
    others = [rng.choice(np.flatnonzero(labels != label)) for label in labels]
    chimera = np.concatenate([images[:, :top], images[others][:, top:]], axis=1)
    rows = (images[:, top:, :left], images[:, :top, :left]), (images[:, top:, left:], images[:, :top, left:])
    jigsaw = np.concatenate([np.concatenate(row, axis=2) for row in rows], axis=1)
    pixels = images.reshape(count, height * width, channels)
    shuffled = np.stack([rng.permutation(image) for image in pixels]).reshape(images.shape)
    grids = rng.integers(0, 256, (count, channels, 4, 4), np.uint8)
    clouds = [
        np.stack([Image.fromarray(g).resize((width, height), Image.Resampling.BILINEAR) for g in grid], -1)
        for grid in grids
    ]
    return dict(chimera=chimera, jigsaw=jigsaw, shuffled=shuffled, clouds=np.stack(clouds))


def mean_and_std(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of uint8 images (N, H, W, C), in [0, 1]."""
    counts = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(images, -1, 0)])
    share, value = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
    mean = share @ value
    return mean.tolist(), np.sqrt(share @ value**2 - mean**2).tolist()


def display_name(source: str) -> str:
    """What tables and figures call a set: its name or title, or the last part of its path without the suffix."""
    name, _ = _counted(source)
    if name in OOD_SETS:
        return name
    return data_folder.title(source) if data_folder.knows(source) else Path(source).stem


def _counted(source: str) -> tuple[str, dict[str, int]]:
    """The set and options that `gaussian:10000` names; any other source as it is."""
    match = re.fullmatch(r"(gaussian|uniform|photo_patches):(.*)", source)
    if match is None:
        return source, {}
    if not re.fullmatch(r"[1-9]\d*", match[2]):
        raise InputError(f"OOD set {source!r}, expected a number of images after the colon: {match[1]}:10000")
    return match[1], {"count": int(match[2])}


def _check_shape(source: str, shape: tuple[int, ...], image_shape: tuple[int, int, int]) -> None:
    if tuple(shape) != tuple(image_shape):
        raise InputError(
            f"{source} has images of shape {tuple(shape)}, expected {tuple(image_shape)}; "
            "choose other sets or another image_shape (noise is made at any)"
        )


def _digits(digits: range) -> ImageSet:
    from sklearn.datasets import load_digits  # here, because it takes 2 s to import

    bunch = load_digits()
    keep = np.isin(bunch.target, digits)
    images = np.round(bunch.images[keep] * (255 / 16)).astype(np.uint8)[..., None]
    return ImageSet(images, bunch.target[keep].astype(np.int64), tuple(str(d) for d in digits))


def _split(source: str, whole: ImageSet, split: str, ends: tuple[float, float] = (0.6, 0.75)) -> ImageSet:
    """The named part of a labelled set: of each class the same share, drawn with a fixed seed.

    Args:
        ends: Where the shares of `train` and of `val` end.
    """
    choice("split", split, SPLITS)
    if whole.labels is None:
        raise InputError(
            f"{source} has no labels to train on; give a folder with a sub-folder a class, or labels"
        )
    rng = np.random.default_rng(0)
    part = []
    for label in range(len(whole.class_names)):
        index = rng.permutation(np.flatnonzero(whole.labels == label))
        cuts = np.round(np.array(ends) * len(index)).astype(int)
        part.append(np.split(index, cuts)[SPLITS.index(split)])
    index = np.sort(np.concatenate(part))
    return ImageSet(whole.images[index], whole.labels[index], whole.class_names)


def _held_out(_shape: tuple[int, int, int]) -> np.ndarray:
    return _digits(range(8, 10)).images


def _inverted(_shape: tuple[int, int, int]) -> np.ndarray:
    return 255 - load("digits", "test").images


def _letters(_shape: tuple[int, int, int], count: int = 1000) -> np.ndarray:
    return _characters(LETTERS, LETTER_FONTS, count)


def _characters(characters: str, names: tuple[str, ...], count: int) -> np.ndarray:
    """Characters at 70 to 100 % of the frame's height, turned by up to 12 degrees, averaged over 8 x 8 cells."""
    import matplotlib

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    images = np.empty((count, 8, 8, 1), np.uint8)
    for i in range(count):
        rng = np.random.default_rng([NOISE_SEED, i])
        character = characters[i % len(characters)]
        font = ImageFont.truetype(fonts / names[i // len(characters) % len(names)], 64)
        left, top, right, bottom = font.getbbox(character)
        canvas = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(canvas).text((-left, -top), character, fill=255, font=font)
        height = rng.uniform(45, 64)
        width = min(64, canvas.width * height / canvas.height)
        glyph = canvas.resize((round(width), round(height)), Image.Resampling.BICUBIC)
        frame = Image.new("L", (64, 64))
        frame.paste(glyph, ((64 - glyph.width) // 2, (64 - glyph.height) // 2))
        frame = frame.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC)
        images[i, ..., 0] = frame.resize((8, 8), Image.Resampling.BOX)
    return images


def _photo_patches(shape: tuple[int, int, int], count: int = 1000) -> np.ndarray:
    """Squares of scikit-learn's two photographs, from the image size to 128 pixels, averaged to the image size."""
    from sklearn.datasets import load_sample_images

    size, _, channels = shape
    mode = "L" if channels == 1 else "RGB"
    photos = [Image.fromarray(photo).convert(mode) for photo in load_sample_images().images]
    images = np.empty((count, *shape), np.uint8)
    for i in range(count):
        rng = np.random.default_rng([NOISE_SEED, i])
        photo, side = photos[i % 2], 2 ** rng.integers(size.bit_length() - 1, 8)
        left, top = rng.integers(0, photo.width - side + 1), rng.integers(0, photo.height - side + 1)
        box = (left, top, left + side, top + side)
        patch = photo.resize((size, size), Image.Resampling.BOX, box=tuple(map(int, box)))
        images[i] = np.asarray(patch).reshape(shape)
    return images


def _symbols(_shape: tuple[int, int, int], count: int = 2800) -> np.ndarray:
    """Greek and Cyrillic letters, arrows, and signs of mathematics."""
    return _characters(SYMBOLS, LETTER_FONTS[:8], count)  # the last two fonts have Latin letters only


def _noise(draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]):
    """Images of independent values, clipped to [0, 1]; image i depends on nothing but the seed and i."""

    def make(shape: tuple[int, int, int], count: int = 1000) -> np.ndarray:
        images = np.empty((count, *shape), np.uint8)
        for i in range(count):
            images[i] = np.round(draw(np.random.default_rng([NOISE_SEED, i]), shape).clip(0, 1) * 255)
        return images

    return make


OOD_SETS: dict[str, Callable[[tuple[int, int, int]], np.ndarray]] = {
    "held_out": _held_out,
    "letters": _letters,
    "symbols": _symbols,
    "photo_patches": _photo_patches,
    "gaussian": _noise(lambda rng, shape: rng.normal(0.5, 1.0, shape)),
    "uniform": _noise(lambda rng, shape: rng.uniform(0.0, 1.0, shape)),
    "inverted": _inverted,
}


def _own(source: str, image_shape: tuple[int, int, int]) -> ImageSet:
    path = Path(source).expanduser()
    if path.is_dir():
        return from_folder(path, image_shape)
    if path.suffix == ".npz" and path.is_file():
        return from_npz(path)
    raise InputError(
        f"image set {source!r} is not known; give one of digits, {', '.join([*OOD_SETS, *PUBLISHED])}, "
        f"NAME for {data_folder.root()}/NAME-test.npz, or the path of a folder of images or of an .npz file"
    )
