"""What a detector was trained with, as one name: a source of outliers and what is done to images.

`label_mixup+noise+degraded` is label mixtures at noise levels, degraded as the ID images are. A strength or levels that
are not the usual ones (`degrade.STRENGTH`, `NOISE_LEVELS`) stand behind the word: `none+degraded0.5`.
"""

import re

from oodlib.degrade import STRENGTH
from oodlib.errors import InputError, choice
from oodlib.settings import DetectorTraining

NOISE_LEVELS = (0.3, 1.0)  # what `+noise` stands for

# What `make study` compares on one denoiser, and of it what it makes again with each further one.
REPEATED = (
    *("placebo", "label_mixup", "placebo+degraded", "label_mixup+degraded"),
    *("distant_placebo+degraded", "distant_mixup+degraded"),
    *("distant_placebo+noise+degraded", "distant_mixup+noise+degraded"),
)
STUDY = (
    *("none", "none+degraded", *REPEATED),
    *("distant_placebo", "distant_mixup", "pixel_mixup", "weightless", "double_batch"),
    *("boundary_mixup+degraded", "pixel_mixup+degraded", "pixel_mixup+noise+degraded"),
    *("training_images+noise+degraded", "cut_mixup+degraded", "shuffled_pixels+degraded", "real+degraded"),
    *("matched", "regenerated", "rounded_mixup", "crisp_mixup", "impure_placebo", "impure_mixup"),
    *("none+augmix", "none+pixmix"),
)


def condition(settings: DetectorTraining) -> str:
    """The name of what a detector is trained with by these settings."""
    from oodlib.outliers.sources import SOURCES  # here, because torch takes seconds to import

    name, levels, strength = settings.outliers, settings.noise_levels, settings.degrade
    if levels and SOURCES[name].draw is not None:
        name += "+noise" + ("" if levels == NOISE_LEVELS else "-".join(map(_text, levels)))
    if strength:
        name += "+degraded" + ("" if strength == STRENGTH else _text(strength))
    return name if settings.augmentation == "none" else f"{name}+{settings.augmentation}"


def _text(value: float) -> str:
    """A number that is read back as itself, as short as may be."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def parse(name: str) -> dict[str, object]:
    """The settings that a condition's name stands for: `outliers`, `noise_levels`, `degrade` and `augmentation`.

    Raises:
        InputError: It is not such a name.
    """
    from oodlib.outliers.sources import SOURCES  # here, because torch takes seconds to import

    number = r"(\d+(?:\.\d+)?(?:e-\d+)?)"
    levels, degraded = rf"(\+noise(?:{number}-{number})?)?", rf"(\+degraded{number}?)?"
    match = re.fullmatch(rf"(\w+){levels}{degraded}(?:\+(augmix|pixmix))?", name)
    if match is None:
        raise InputError(
            f"outliers = {name!r}, expected a source and, behind it in this order, any of +noise, +degraded, and "
            "+augmix or +pixmix, such as none+degraded"
        )
    source, noise, low, high, degraded, strength, augmentation = match.groups()
    choice("outliers", source, list(SOURCES))
    levels = [float(low), float(high)] if low else list(NOISE_LEVELS) if noise else []
    amount = float(strength) if strength else STRENGTH if degraded else 0.0
    if levels and SOURCES[source].draw is None:
        raise InputError(f"noise_levels change images of outliers, and outliers = {source!r} has none")
    made = dict(outliers=source, noise_levels=levels, degrade=amount, augmentation=augmentation or "none")
    canonical = condition(DetectorTraining(**made))
    if canonical != name:
        raise InputError(f"outliers = {name!r} is written {canonical}")
    return made


def takes_denoiser(name: str) -> bool:
    """Whether the outliers of a condition depend on a denoiser."""
    from oodlib.outliers.sources import SOURCES  # here, because torch takes seconds to import

    return bool(SOURCES[str(parse(name)["outliers"])].takes & {"denoiser", "early_denoiser"})


def references(name: str) -> dict[str, str]:
    """The conditions that one is compared with: `none`; if it degrades images, `degraded` ID images without outliers;
    and, of a source that has one, its `placebo`."""
    from oodlib.outliers.sources import SOURCES  # here, because torch takes seconds to import

    source, *modifiers = name.split("+")
    degraded = [modifier for modifier in modifiers if modifier.startswith("degraded")]
    others = {"none": "none"}
    if degraded:
        others["degraded"] = "+".join(["none", *degraded])
    if SOURCES[source].placebo is not None:
        others["placebo"] = "+".join([SOURCES[source].placebo, *modifiers])
    return {what: other for what, other in others.items() if other != name}
