"""Every default number, and the one check of a notebook's parameters.

A notebook's parameter cell holds plain values; None takes the preset's. `from_notebook` checks them all before
any work starts. This module imports nothing heavy, so that a mistake shows at once.
"""

import ast
import difflib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from oodlib.errors import InputError

HEADS = ("softmax", "scaled_cosine", "adacos", "arcface", "cosface", "sphereface")
MARGIN_HEADS = ("arcface", "cosface", "sphereface")
DENOISER = "denoiser"  # what stands in the place of a head where the denoiser itself tells ID from OOD
SCORES = ("msp", "energy", "cosine", "mahalanobis", "knn")
DENOISER_SCORES = ("reconstruction", "inpainting")  # which need no detector
# The score that is a head's own: that of its paper.
OWN_SCORE = {**dict.fromkeys(HEADS, "cosine"), "softmax": "msp", DENOISER: "reconstruction"}

# What a detector learns to be undecided about, and the settings that make each kind of pool differ from the preset.
OUTLIERS: dict[str, dict[str, Any]] = {
    "none": {},
    "label_mixup": {},  # the paper's: every mixture that is drawn
    "impure_mixup": dict(confidence=(0.0, 0.9)),  # those that a committee of classifiers is unsure of
    # Those farther from the training images than 95 % of the validation digits, see notebook 2; none comes to 4.
    "distant_mixup": dict(distance=(1.5, 4.0)),
    "weighted_mixup": dict(weigh_by_impurity=True),
    "soft_mixup": dict(soft_targets=True),  # to be given the committee's probabilities, not uniform ones
    "three_way_mixup": dict(mixed_classes=3),
    "mask_mixup": {},
    "weak_guidance": dict(guidance_scale=0.5),
    "strong_guidance": dict(guidance_scale=3.0),
    "early_stopped": {},
    "pixel_mixup": {},
    "uniform_noise": {},
    "virtual": {},  # points in feature space, no images
    "real": {},
}

Rule = Callable[[str, Any], Any]


def _reject(name: str, value: object, expected: str) -> InputError:
    return InputError(f"{name} = {value!r} ({type(value).__name__}), expected {expected}")


def _integer(low: int, high: int | None = None) -> Rule:
    def check(name: str, value: object) -> int:
        if type(value) is not int or value < low or (high is not None and value > high):
            limit = f"of at least {low}" if high is None else f"from {low} to {high}"
            raise _reject(name, value, f"a whole number {limit}")
        return value

    return check


def _number(low: float, high: float, *, open_low: bool = False) -> Rule:
    def check(name: str, value: object) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high or (open_low and value == low):
            hint = ", without quotes and as 1.0e-4 in YAML" if isinstance(value, str) else ""
            raise _reject(name, value, f"a number {'above' if open_low else 'from'} {low} to {high}{hint}")
        return float(value)

    return check


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _reject(name, value, "True or False (on the command line: -p NAME True)")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _reject(name, value, "a text that is not empty")
    return value


def _choice(*known: str) -> Rule:
    def check(name: str, value: object) -> str:
        if value not in known:
            raise _reject(name, value, f"one of {', '.join(known)}")
        return value

    return check


def _list(item: Rule, distinct: bool = False, may_be_empty: bool = False) -> Rule:
    """A list; `-p seeds '[0]'` arrives as text and is read as JSON."""

    def check(name: str, value: object) -> tuple:
        given = value
        if isinstance(value, str):
            try:
                value = json.loads(value.replace("'", '"'))
            except json.JSONDecodeError:
                raise _reject(name, given, 'a list, such as [0, 1] or ["a", "b"]') from None
        if not isinstance(value, list | tuple) or not (value or may_be_empty):
            raise _reject(name, given, "a list that is not empty")
        found = tuple(item(f"{name}[{i}]", entry) for i, entry in enumerate(value))
        if distinct and len(set(found)) < len(found):
            raise _reject(name, given, "a list without repetitions")
        return found

    return check


def _multiple_of_8(name: str, value: object) -> int:
    if type(value) is not int or value < 8 or value % 8:
        raise _reject(name, value, "a multiple of 8")
    return value


def _image_shape(name: str, value: object) -> tuple[int, ...]:
    shape = _list(_integer(1))(name, value)
    if len(shape) != 3 or shape[0] != shape[1] or shape[0] % 8 or shape[2] not in (1, 3):
        raise _reject(name, value, "[size, size, channels] with size a multiple of 8 and 1 or 3 channels")
    return shape


def _window(low: float, high: float) -> Rule:
    def check(name: str, value: object) -> tuple[float, float]:
        ends = _list(_number(low, high))(name, value)
        if len(ends) != 2 or ends[0] >= ends[1]:
            raise _reject(
                name, value, f"[lowest, highest], the first below the second, from {low:g} to {high:g}"
            )
        return ends

    return check


def _optional(rule: Rule) -> Rule:
    return lambda name, value: None if value is None else rule(name, value)


def _device() -> str:
    import torch  # here, because it takes a second to import

    return "cuda" if torch.cuda.is_available() else "cpu"


def _native_precision() -> str:
    import torch

    from oodlib.device import native_precision

    return native_precision(torch.device(_device()))


def _setting(rule: Rule) -> Any:
    return field(metadata={"rule": rule})


@dataclass(frozen=True)
class Settings:
    """Checked settings of a run, by the names that the notebooks' parameters have."""

    preset: str = _setting(_choice("digits", "cifar10"))
    profile: str = _setting(_choice("full", "cpu", "smoke"))
    run: str = _setting(_text)

    id_data: str = _setting(_text)
    image_shape: tuple[int, int, int] = _setting(_image_shape)
    ood_sets: tuple[str, ...] = _setting(_list(_text, distinct=True))
    flip: bool = _setting(_flag)
    precision: str = _setting(_choice("fp32", "bf16"))

    seed: int = _setting(_integer(0))
    denoiser_steps: int = _setting(_integer(1))
    denoiser_batch_size: int = _setting(_integer(1))
    denoiser_learning_rate: float = _setting(_number(0, 1, open_low=True))
    block_out_channels: tuple[int, ...] = _setting(_list(_multiple_of_8))
    layers_per_block: int = _setting(_integer(1, 8))
    attention_levels: tuple[int, ...] = _setting(_list(_integer(0), distinct=True, may_be_empty=True))
    dropout: float = _setting(_number(0, 0.9))
    prediction_type: str = _setting(_choice("v_prediction", "epsilon"))
    label_dropout: float = _setting(_number(0, 0.9))
    ema_decay: float = _setting(_number(0, 0.99999))
    compile: bool = _setting(_flag)

    mix: str = _setting(_choice("sum", "convex", "slerp"))
    mix_weight: float = _setting(_number(0, 1))
    mixed_classes: int = _setting(_integer(2))
    images_per_pair: int = _setting(_integer(1))
    confidence: tuple[float, float] | None = _setting(_optional(_window(0, 1)))
    distance: tuple[float, float] | None = _setting(_optional(_window(0, 1000)))
    keep_share: float = _setting(_number(0, 1, open_low=True))
    weigh_by_impurity: bool = _setting(_flag)
    soft_targets: bool = _setting(_flag)
    real_outliers: str = _setting(_text)
    scheduler: str = _setting(_choice("ddpm", "ddim", "dpmsolver++", "unipc"))
    num_inference_steps: int = _setting(_integer(1, 1000))
    guidance_scale: float = _setting(_number(0, 20))
    init: str = _setting(_choice("normal", "uniform"))

    head: str = _setting(_choice(*HEADS))
    heads: tuple[str, ...] = _setting(_list(_choice(*HEADS), distinct=True))
    scale: float | None = _setting(_optional(_number(0, 1000, open_low=True)))
    margin: float | None = _setting(_optional(_number(0, 10)))
    outliers: str = _setting(_choice(*OUTLIERS))
    outlier_weight: float = _setting(_number(0, 100))
    outlier_batch_size: int = _setting(_integer(1))
    seeds: tuple[int, ...] = _setting(_list(_integer(0), distinct=True))
    backbone: str = _setting(_choice("resnet_small", "resnet18", "resnet50"))
    epochs: float = _setting(_number(0, 100_000, open_low=True))
    batch_size: int = _setting(_integer(2))
    learning_rate: float = _setting(_number(0, 10, open_low=True))
    weight_decay: float = _setting(_number(0, 1))
    tpr: float = _setting(_number(0.5, 1))
    images_per_set: int | None = _setting(_optional(_integer(1)))

    @property
    def head_options(self) -> dict[str, float]:
        """The head's options that were set; the others keep the head's own defaults."""
        return {name: value for name in ("scale", "margin") if (value := getattr(self, name)) is not None}

    @property
    def device(self) -> str:
        """`cuda` where there is one, else `cpu`."""
        return _device()

    def only(self, *names: str) -> dict[str, Any]:
        """The named settings as a dictionary, tuples as lists: what a finished step is compared by."""
        return json.loads(json.dumps({name: value for name, value in asdict(self).items() if name in names}))


PRESETS: dict[str, dict[str, Any]] = {
    # Handwritten digits, 8 x 8 grey: everything in minutes on two CPU cores.
    "digits": dict(
        id_data="digits",
        image_shape=(8, 8, 1),
        ood_sets=("held_out", "letters", "photo_patches", "gaussian", "uniform", "inverted"),
        flip=False,
        precision="fp32",
        seed=0,
        denoiser_steps=1000,
        denoiser_batch_size=128,
        denoiser_learning_rate=2e-3,
        block_out_channels=(32, 64),
        layers_per_block=1,
        attention_levels=(),
        dropout=0.0,
        prediction_type="v_prediction",
        label_dropout=0.1,
        ema_decay=0.995,
        compile=False,
        mix="sum",
        mix_weight=0.5,
        mixed_classes=2,
        confidence=None,
        distance=None,
        keep_share=1.0,
        weigh_by_impurity=False,
        soft_targets=False,
        real_outliers="symbols",
        images_per_pair=100,
        scheduler="unipc",
        num_inference_steps=8,
        guidance_scale=1.0,
        init="normal",
        head="arcface",
        heads=HEADS,
        scale=None,
        margin=None,
        outliers="distant_mixup",  # the best mixture on validation outliers, see notebook 6
        outlier_weight=0.5,
        outlier_batch_size=128,
        seeds=(0, 1, 2),
        backbone="resnet_small",
        epochs=20,
        batch_size=128,
        learning_rate=0.05,
        weight_decay=5e-4,
        tpr=0.95,
        images_per_set=None,
    ),
    # The paper's experiment, on one GPU.
    "cifar10": dict(
        id_data="cifar10",
        image_shape=(32, 32, 3),
        ood_sets=(
            *("cifar100", "svhn", "tin_crop", "tin_resize", "lsun_crop", "lsun_resize", "isun"),
            *("gaussian:10000", "uniform:10000"),
        ),
        flip=True,
        precision=None,  # bf16 where the device computes in it, else fp32
        seed=0,
        denoiser_steps=40_000,
        denoiser_batch_size=128,
        denoiser_learning_rate=2e-4,
        block_out_channels=(128, 256, 256),
        layers_per_block=2,
        attention_levels=(1,),
        dropout=0.1,
        prediction_type="v_prediction",
        label_dropout=0.1,
        ema_decay=0.9995,
        compile=True,
        mix="sum",
        mix_weight=0.5,
        mixed_classes=2,
        confidence=None,
        distance=None,
        keep_share=1.0,
        weigh_by_impurity=False,
        soft_targets=False,
        real_outliers="photo_patches:10000",
        images_per_pair=1000,
        scheduler="unipc",
        num_inference_steps=20,
        guidance_scale=1.0,
        init="normal",
        head="arcface",
        heads=HEADS,
        scale=None,
        margin=None,
        outliers="label_mixup",  # as in the paper
        outlier_weight=0.5,
        outlier_batch_size=128,
        seeds=(0, 1, 2),
        backbone="resnet50",
        epochs=30,
        batch_size=128,
        learning_rate=0.1,
        weight_decay=5e-4,
        tpr=0.95,
        images_per_set=None,
    ),
}

# Smaller sizes of a preset: `cpu` runs all of it on a laptop to see that it works, `smoke` in seconds a notebook.
# Neither is meant to detect well.
PROFILES: dict[str, dict[str, dict[str, Any]]] = {
    "digits": {
        "smoke": dict(
            denoiser_steps=10,
            outliers="label_mixup",  # what an untrained denoiser draws passes no filter
            images_per_pair=6,
            heads=("arcface",),
            seeds=(0, 1),
            epochs=2,
            images_per_set=20,
        )
    },
    "cifar10": {
        "cpu": dict(
            denoiser_steps=250,
            denoiser_batch_size=64,
            denoiser_learning_rate=1e-3,
            block_out_channels=(32, 64, 64),
            layers_per_block=1,
            attention_levels=(),
            dropout=0.0,
            ema_decay=0.99,
            compile=False,
            images_per_pair=10,
            num_inference_steps=10,
            seeds=(0,),
            backbone="resnet_small",
            epochs=0.2,
            images_per_set=200,
        ),
        "smoke": dict(
            denoiser_steps=4,
            denoiser_batch_size=16,
            block_out_channels=(8, 16),
            layers_per_block=1,
            attention_levels=(),
            compile=False,
            images_per_pair=1,
            num_inference_steps=2,
            heads=("softmax", "arcface"),
            seeds=(0,),
            backbone="resnet_small",
            epochs=0.01,
            images_per_set=20,
        ),
    },
}


def settings(**given: Any) -> Settings:
    """Checked settings: the preset's values, with those `given` that are not None in their place.

    Raises:
        InputError: A name is not known, or a value has the wrong type or is out of range.
    """
    known = [f.name for f in fields(Settings)]
    for name in given:
        if name not in known:
            raise InputError(f"parameter {name!r} is not known{_suggest(name, known)}")
    preset = _choice(*PRESETS)("preset", given.get("preset") or "digits")
    profile = _choice("full", *PROFILES[preset])("profile", given.get("profile") or "full")
    run = preset if profile == "full" else f"{preset}-{profile}"
    smaller = PROFILES[preset].get(profile, {})
    values = {"preset": preset, "profile": profile, "run": run, **PRESETS[preset], **smaller}
    values |= OUTLIERS[_choice(*OUTLIERS)("outliers", given.get("outliers") or values["outliers"])]
    values |= {name: value for name, value in given.items() if value is not None}
    if values["precision"] is None:
        values["precision"] = _native_precision()
    checked = Settings(**{f.name: f.metadata["rule"](f.name, values[f.name]) for f in fields(Settings)})
    _check_together(checked)
    return checked


def _check_together(s: Settings) -> None:
    """What is right by itself and wrong together."""
    if s.head_options and s.head not in MARGIN_HEADS:
        raise InputError(f"{s.head} has no {' and '.join(s.head_options)}; {', '.join(MARGIN_HEADS)} have")
    if s.head == "sphereface" and s.margin is not None and s.margin < 1:
        raise InputError(f"margin = {s.margin}; SphereFace multiplies the angle by it, expected 1 or more")
    if any(level >= len(s.block_out_channels) for level in s.attention_levels):
        raise InputError(
            f"attention_levels = {list(s.attention_levels)}, but block_out_channels has only "
            f"levels 0 to {len(s.block_out_channels) - 1}"
        )
    halvings = len(s.block_out_channels) - 1
    if s.image_shape[0] % 2**halvings:
        raise InputError(
            f"block_out_channels = {list(s.block_out_channels)} halves the image {halvings} times, "
            f"which a size of {s.image_shape[0]} does not allow; give fewer levels"
        )


def from_notebook(namespace: dict[str, Any]) -> Settings:
    """Checked settings from a notebook's `globals()`, called in the cell after its parameters.

    Papermill writes the parameters that it was given into a cell of their own after the notebook's, and only
    warns of names that the notebook does not have; here they are an error, and so are names misspelt by hand.
    """
    cells = [cell for cell in namespace.get("In", []) if cell.strip()]
    injected = [i for i, cell in enumerate(cells) if re.match(r"#\s*Parameters\b", cell)]
    if injected:
        declared = sorted(set().union(*(_assigned(cell) for cell in cells[: injected[0]])))
        for name in _assigned(cells[injected[0]]):
            if name not in declared:
                raise InputError(
                    f"parameter {name!r} is not known{_suggest(name, declared)}; "
                    f"this notebook takes {', '.join(declared)}"
                )
    names = [f.name for f in fields(Settings)]
    by_hand = [name for cell in cells for name in _assigned(cell) if "preset" in _assigned(cell)]
    for name in by_hand:
        if name not in names:
            raise InputError(f"parameter {name!r} is not known{_suggest(name, names)}")
    return settings(**{name: namespace[name] for name in names if name in namespace})


def _assigned(cell: str) -> list[str]:
    """Names that a cell of plain assignments sets."""
    try:
        statements = ast.parse(cell).body
    except SyntaxError:  # a cell with a %magic; parameter cells have none
        return []
    targets = [target for s in statements if isinstance(s, ast.Assign) for target in s.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _suggest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
