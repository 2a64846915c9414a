"""Presets and profiles: what differs from the settings' defaults, which are those of the digits."""

from collections.abc import Mapping
from typing import Any

from oodlib.checks import checked_options, options, unknown
from oodlib.conditions import NOISE_LEVELS
from oodlib.degrade import STRENGTH
from oodlib.errors import InputError
from oodlib.settings import Settings

# The best mixture on validation images of digits, see notebook 6. On CIFAR-10 it has not been tried.
CHOSEN = dict(outliers="distant_mixup", noise_levels=NOISE_LEVELS, degrade=STRENGTH)

# OOD sets for images of another shape than the preset's.
OF_ANY_SHAPE = ("photo_patches", "gaussian", "uniform")

PRESETS: dict[str, dict[str, Any]] = {
    # Handwritten digits, 8 x 8 grey: everything in minutes on two CPU cores.
    "digits": CHOSEN,
    # The paper's experiment, on one GPU.
    "cifar10": dict(
        **CHOSEN,
        id_data="cifar10",
        image_shape=(32, 32, 3),
        ood_sets=(
            *("cifar100", "svhn", "tin_crop", "tin_resize", "lsun_crop", "lsun_resize", "isun"),
            *("gaussian:10000", "uniform:10000"),
        ),
        flip=True,
        precision=None,  # bf16 where the device computes in it, else fp32
        denoiser_steps=40_000,
        denoiser_learning_rate=2e-4,
        block_out_channels=(128, 256, 256),
        layers_per_block=2,
        attention_levels=(1,),
        dropout=0.1,
        ema_decay=0.9995,
        compile=True,
        real_outliers="photo_patches:10000",
        images_per_pair=1000,
        num_inference_steps=20,
        committee_backbone="resnet50",
        committee_epochs=30,
        committee_learning_rate=0.1,
        backbone="resnet50",
        epochs=30,
        learning_rate=0.1,
    ),
}

# Of 6.5 million parameters; one like it ships.
SMALL_DENOISER = dict(
    denoiser_batch_size=512,
    denoiser_learning_rate=1e-3,
    block_out_channels=(64, 128, 128),
    dropout=0.0,
    ema_decay=0.999,
)

# Smaller sizes of a preset: `quick` for minutes on one GPU, `cpu` for less than an hour on two CPU cores, `smoke` for
# seconds a notebook, to see that it works. What a barely trained denoiser draws passes no filter, so their outliers
# are label mixtures as they are drawn.
PROFILES: dict[str, dict[str, dict[str, Any]]] = {
    "digits": {
        "full": {},
        "smoke": dict(
            denoiser_steps=10,
            outliers="label_mixup",
            images_per_pair=6,
            heads=("arcface",),
            seeds=(0, 1),
            committee_epochs=2,
            epochs=2,
            images_per_set=20,
        ),
    },
    "cifar10": {
        "full": {},
        # The learning rate rises first: without that, softmax, ArcFace and SphereFace failed (results/cifar10-trial).
        "quick": dict(
            **SMALL_DENOISER,
            denoiser_steps=4200,
            outliers="label_mixup",
            images_per_pair=300,
            committee_backbone="resnet18",
            committee_epochs=8,
            backbone="resnet18",
            epochs=16,
            warmup=0.125,
            batch_size=512,
            outlier_batch_size=256,
            learning_rate=0.2,
            seeds=(0,),
        ),
        "cpu": dict(
            **SMALL_DENOISER,
            denoiser_steps=0,
            compile=False,
            outliers="label_mixup",
            images_per_pair=15,
            num_inference_steps=10,
            committee_seeds=(1001,),
            committee_backbone="resnet18_quarter",
            committee_epochs=2,
            committee_learning_rate=0.05,
            head="scaled_cosine",
            heads=("scaled_cosine", "cosface"),  # softmax and ArcFace take longer to learn
            degrade=0.0,
            backbone="resnet18_quarter",
            epochs=3,
            batch_size=64,
            outlier_batch_size=16,
            learning_rate=0.1,
            seeds=(0,),
            ood_sets=("cifar100", "svhn", "tin_resize", "gaussian:2000", "uniform:2000"),
            images_per_set=50,
        ),
        "smoke": dict(
            denoiser_steps=4,
            denoiser_batch_size=16,
            block_out_channels=(8, 16),
            layers_per_block=1,
            attention_levels=(),
            compile=False,
            outliers="label_mixup",
            images_per_pair=1,
            num_inference_steps=2,
            heads=("softmax", "arcface"),
            seeds=(0,),
            committee_backbone="resnet_small",
            committee_epochs=0.01,
            backbone="resnet_small",
            epochs=0.01,
            images_per_set=20,
        ),
    },
}


def make_settings(**parameters: Any) -> Settings:
    """Checked settings: the preset's values, with those parameters that are not None in their place.

    A parameter may be any setting, and any option of the head that is chosen.

    Raises:
        InputError: A name is not known, or a value has the wrong type or is out of range.
    """
    parameters = {name: value for name, value in parameters.items() if value is not None}
    preset = _choice("preset", parameters.get("preset", "digits"), PRESETS)
    profile = _choice("profile", parameters.get("profile", "full"), PROFILES[preset])
    run = preset if profile == "full" else f"{preset}-{profile}"
    of_head = {name: parameters.pop(name) for name in set(parameters) - set(Settings.model_fields)}
    values = Settings(**parameters).model_dump(include=set(parameters))
    # The preset's own values are checked by a test, so that no registry is imported for them.
    chosen = Settings.model_construct(
        **{
            "preset": preset,
            "profile": profile,
            "run": run,
            **PRESETS[preset],
            **PROFILES[preset][profile],
            **values,
        }
    )
    usual = PRESETS[preset].get("image_shape", Settings.model_fields["image_shape"].default)
    if chosen.image_shape != usual and "ood_sets" not in values:
        chosen = chosen.replaced(ood_sets=OF_ANY_SHAPE)
    if chosen.precision is None:
        chosen = chosen.replaced(precision=_native_precision())
    if of_head or chosen.head_options:
        chosen = chosen.replaced(head_options=_head_options(chosen.head, {**chosen.head_options, **of_head}))
    _check_together(chosen)
    if not chosen.denoiser_steps:
        from oodlib.pretrained import check_shipped_denoiser  # here, because torch takes a second to import

        check_shipped_denoiser(chosen)
    if chosen.noise_levels and "outliers" in values:
        from oodlib.outliers.sources import SOURCES  # here, because torch takes a second to import

        if SOURCES[chosen.outliers].draw is None:
            if values.get("noise_levels"):  # chosen, and not the preset's
                raise InputError(
                    f"noise_levels change images of outliers, and outliers = {chosen.outliers!r} has none"
                )
            chosen = chosen.replaced(noise_levels=())
    return chosen


def _choice(name: str, value: object, names: Mapping[str, Any]) -> str:
    if not isinstance(value, str) or value not in names:
        raise InputError(f"{name} = {value!r} ({type(value).__name__}), expected one of {', '.join(names)}")
    return value


def _native_precision() -> str:
    from oodlib.device import default_device, native_precision  # here, because torch takes a second to import

    return native_precision(default_device())


def _head_options(head: str, values: dict[str, Any]) -> dict[str, Any]:
    """Options of the head, checked by type and range, and by making one."""
    from oodlib.detection.heads import HEADS, make_head
    from oodlib.seeds import initial_weights

    for name in values:
        heads = [other for other in HEADS if name in options(HEADS[other])]
        if not heads:
            raise unknown(name, {*Settings.model_fields, *(n for h in HEADS.values() for n in options(h))})
        if head not in heads:
            raise InputError(
                f"{head} has no {name}; {', '.join(heads)} {'have' if len(heads) > 1 else 'has'}"
            )
    values = checked_options(HEADS[head], values)
    with initial_weights(0, "check"):
        make_head(head, 2, 3, **values)
    return values


def _check_together(s: Settings) -> None:
    """What is right by itself and wrong together."""
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
