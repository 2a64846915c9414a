"""What can be set, a class for each step. A field's name is the parameter's name in notebooks and configurations.

The defaults are those of the digits, but for what their preset switches on; `presets` keeps what differs. None means
"its own": the default of the outlier source or the function that takes the setting. Nothing heavy is imported here, so
that a mistake shows at once; a registry of names is imported when a name of it is checked.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from oodlib.checks import Checked
from oodlib.fields import (
    LIST,
    BackboneName,
    Count,
    Dropout,
    Epochs,
    Flag,
    Guidance,
    HeadName,
    InferenceSteps,
    MixMode,
    Number,
    PositiveShare,
    Rate,
    SchedulerName,
    Seeds,
    Share,
    Text,
    distinct,
    name_in,
    not_empty,
    square,
    window,
)


class StepSettings(Checked):
    """The settings of one step."""

    def values(self, *classes: type["StepSettings"]) -> dict[str, Any]:
        """The settings of these classes as JSON has them: what a finished step is compared by."""
        names = set().union(*(cls.model_fields for cls in classes or (type(self),)))
        return self.model_dump(mode="json", include=names)

    def chosen(self, *classes: type["StepSettings"]) -> dict[str, Any]:
        """The settings of these classes that are not None, to be given on as keywords."""
        names = [name for cls in classes or (type(self),) for name in cls.model_fields]
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class Shared(StepSettings):
    """What several steps take."""

    seed: Number = Field(0, description="of weights, order and noise")
    flip: Flag = Field(False, description="mirror half of the images while training")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16: bfloat16, where that is fast")


class Data(StepSettings):
    id_data: Text = Field(
        "digits", description="ID images: digits, cifar10, a folder of class folders, an .npz"
    )
    image_shape: Annotated[tuple[Count, ...], LIST, AfterValidator(square)] = Field(
        (8, 8, 1), description="[height, width, channels] of the images"
    )
    background: Literal["white", "black"] = Field(
        "white", description="what shows behind transparent pixels of image files"
    )


class DenoiserModel(Shared):
    block_out_channels: Annotated[
        tuple[Annotated[int, Field(strict=True, ge=8, multiple_of=8)], ...], LIST, AfterValidator(not_empty)
    ] = Field((32, 64), description="channels of each U-Net level")
    layers_per_block: Annotated[int, Field(strict=True, ge=1, le=8)] = Field(
        1, description="residual blocks a level"
    )
    attention_levels: Annotated[tuple[Number, ...], LIST, AfterValidator(distinct)] = Field(
        (), description="levels with attention beside the middle, from 0"
    )
    dropout: Dropout = Field(0.0, description="share of features that a residual block drops in training")
    prediction_type: Annotated[str, name_in("oodlib.diffusion.schedule:PREDICTION_TYPES")] = Field(
        "v_prediction", description="what the network predicts"
    )


class DenoiserTraining(Shared):
    denoiser_steps: Number = Field(
        1000, description="optimiser steps; 0: take the denoiser that ships with the preset"
    )
    denoiser_batch_size: Count = Field(128, description="images a step")
    denoiser_learning_rate: PositiveShare = Field(2e-3, description="highest learning rate of AdamW")
    label_dropout: Dropout = Field(0.1, description="share of images shown without their class")
    ema_decay: Annotated[float, Field(strict=True, ge=0, le=0.99999)] = Field(
        0.995, description="decay of the moving average of the weights"
    )
    compile: Flag = Field(False, description="compile the network first, which takes minutes")


class Sampling(StepSettings):
    scheduler: SchedulerName = Field("unipc", description="diffusion solver")
    num_inference_steps: InferenceSteps = Field(8, description="its steps")
    guidance_scale: Guidance | None = Field(None, description="classifier-free guidance; 1 is off")
    init: Annotated[str, name_in("oodlib.diffusion.schedule:INITIAL_NOISES")] = Field(
        "normal", description="initial noise; uniform as the paper says"
    )


class OutlierSource(StepSettings):
    outliers: Annotated[str, name_in("oodlib.outliers.sources:SOURCES")] = Field(
        "label_mixup", description="what a detector learns to be undecided about"
    )


class Mixing(StepSettings):
    mix: MixMode = Field("sum", description="how labels are mixed; sum: the paper's [1, 1]")
    mix_weight: Share = Field(0.5, description="weight of the second class")
    mixed_classes: Annotated[int, Field(strict=True, ge=2)] | None = Field(
        None, description="classes in a label mixture"
    )


class Pool(OutlierSource, Mixing):
    images_per_pair: Count = Field(100, description="outliers for each pair of classes")
    confidence: window(0, 1) | None = Field(
        None, description="filter: [lowest, highest] confidence of the committee"
    )
    distance: window(0, 1000) | None = Field(
        None, description="filter: [least, most] distance to training images; 1: typical of unseen ID images"
    )
    keep_share: PositiveShare | None = Field(
        None, description="filter: share that is kept, of lowest confidence"
    )
    weigh_by_impurity: Flag | None = Field(
        None, description="outliers count by how unsure the committee is of them"
    )
    soft_targets: Flag | None = Field(
        None, description="outliers are to get the committee's probabilities, not uniform ones"
    )
    twins: Literal["id", "outliers"] | None = Field(
        None,
        description="draw each mixture's noise for one class too: as ID images, or as outliers in its place",
    )
    real_outliers: Text = Field("symbols", description="set of images for outliers = real")


class CommitteeTraining(StepSettings):
    committee_seeds: Seeds = Field(
        (1001, 1002, 1003), description="of its members, far from those of detectors"
    )
    committee_backbone: BackboneName = Field("resnet_small", description="network of its members")
    committee_epochs: Epochs = Field(20, description="their passes over the training images")
    committee_learning_rate: Rate = Field(0.05, description="their highest learning rate")


class DetectorModel(Shared):
    head: HeadName = Field("arcface", description="loss on the last layer")
    head_options: dict[str, Any] = Field({}, description="options of the head; each is a parameter too")
    backbone: BackboneName = Field("resnet_small", description="network below the head")


class DetectorTraining(Shared, OutlierSource):
    epochs: Epochs = Field(20, description="passes over the training images")
    batch_size: Annotated[int, Field(strict=True, ge=2)] = Field(128, description="ID images a step")
    learning_rate: Rate = Field(0.05, description="highest learning rate of SGD")
    warmup: Dropout = Field(
        0.0, description="share of the steps in which the learning rate rises to its highest"
    )
    weight_decay: Share = Field(5e-4, description="of SGD")
    outlier_weight: Annotated[float, Field(strict=True, ge=0, le=100)] = Field(
        0.5, description="weight of the outlier loss"
    )
    outlier_batch_size: Count = Field(128, description="outliers a step")
    augmentation: Literal["none", "augmix", "pixmix"] = Field(
        "none", description="by which each ID image is seen once more"
    )
    degrade: Annotated[float, Field(strict=True, ge=0, le=2)] = Field(
        0.0, description="strength at which ID images and outliers alike are degraded; 0: not"
    )
    noise_levels: window(0, 1, or_none=True) = Field(
        (),
        description="[lowest, highest] share of the diffusion's noising that outliers go through; []: none",
    )
    clean_share: Share = Field(0.25, description="of the outliers in a step, which noise_levels leave clean")


class Scoring(StepSettings):
    ood_sets: Annotated[tuple[Text, ...], LIST, AfterValidator(not_empty), AfterValidator(distinct)] = Field(
        ("held_out", "letters", "photo_patches", "gaussian", "uniform", "inverted"),
        description="OOD test sets: names, folders or .npz files",
    )
    tpr: Annotated[float, Field(strict=True, ge=0.5, le=1)] = Field(
        0.95, description="share of ID validation images that the threshold keeps"
    )
    images_per_set: Count | None = Field(
        None, description="the denoiser scores at most so many images of each set, evenly spaced"
    )


class Comparison(StepSettings):
    heads: Annotated[tuple[HeadName, ...], LIST, AfterValidator(not_empty), AfterValidator(distinct)] = Field(
        ("softmax", "scaled_cosine", "adacos", "arcface", "cosface", "sphereface"),
        description="heads to train and to show",
    )
    conditions: (
        Annotated[tuple[Text, ...], LIST, AfterValidator(not_empty), AfterValidator(distinct)] | None
    ) = Field(None, description="what detectors to show were trained with, such as none+degraded")
    seeds: Seeds = Field((0, 1, 2), description="a detector for each")


class Experiment(StepSettings):
    preset: Text = Field("digits", description="whose defaults: digits or cifar10")
    profile: Text = Field("full", description="its size: full; smaller: smoke, and for cifar10 quick and cpu")
    run: Text = Field("digits", description="run folder: a name under runs/ or a path")


STEPS: Mapping[str, type[StepSettings]] = {  # by the names that they have in a configuration
    "shared": Shared,
    "data": Data,
    "denoiser_model": DenoiserModel,
    "denoiser_training": DenoiserTraining,
    "sampling": Sampling,
    "pool": Pool,
    "committee": CommitteeTraining,
    "detector_model": DetectorModel,
    "detector_training": DetectorTraining,
    "scoring": Scoring,
}


def own_fields(step: str) -> list[str]:
    """The settings of a group of a configuration: a step's own, without what several share and what a plan varies."""
    others = {"outliers", "head", "head_options"} | (set() if step == "shared" else set(Shared.model_fields))
    return [name for name in STEPS[step].model_fields if name not in others]


class Settings(
    *(Experiment, Data, DenoiserModel, DenoiserTraining, Sampling, Pool, CommitteeTraining),
    *(DetectorModel, DetectorTraining, Scoring, Comparison),
):
    """All settings of a run."""


# What a setting counts as, in JSON, in the mark of a step that was finished before the setting existed. A field says it
# as `json_schema_extra={"off": value}`, where it is not the default.
OFF: dict[str, Any] = Settings().values() | {
    name: field.json_schema_extra["off"]
    for name, field in Settings.model_fields.items()
    if "off" in (field.json_schema_extra or {})
}


def as_made(step: type[StepSettings], values: Mapping[str, Any]) -> Any:
    """The settings that something was made with; those that its file lacks were off."""
    return step(**{name: values.get(name, OFF[name]) for name in step.model_fields})
