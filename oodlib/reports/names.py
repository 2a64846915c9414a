"""What things are called on screen, in tables, figures and widgets."""

import re

# Heads and sources of outliers stand in the order that tables have them in.
NAMES = {
    "softmax": "softmax",
    "scaled_cosine": "scaled cosine",
    "adacos": "AdaCos",
    "arcface": "ArcFace",
    "cosface": "CosFace",
    "sphereface": "SphereFace",
    "logit_norm": "LogitNorm",
    "denoiser": "denoiser",
    "none": "no outliers",
    "label_mixup": "label mixup",
    "impure_mixup": "impure mixup",
    "distant_mixup": "distant mixup",
    "boundary_mixup": "boundary mixup",
    "weighted_mixup": "weighted mixup",
    "soft_mixup": "soft mixup",
    "three_way_mixup": "three-way mixup",
    "cmg": "CMG",
    "weak_guidance": "weak guidance",
    "strong_guidance": "strong guidance",
    "rounded_mixup": "rounded mixup",
    "crisp_mixup": "crisp mixup",
    "placebo": "placebo",
    "impure_placebo": "impure placebo",
    "distant_placebo": "distant placebo",
    "matched": "matched",
    "regenerated": "regenerated",
    "weightless": "weightless",
    "double_batch": "double batch",
    "early_stopped": "early stopped",
    "pixel_mixup": "pixel mixup",
    "cut_mixup": "cut mixup",
    "shuffled_pixels": "shuffled pixels",
    "training_images": "training images",
    "uniform_noise": "uniform noise",
    "vos": "VOS",
    "real": "real outliers",
    "msp": "MSP",
    "gen": "GEN",
    "t2fnorm": "T2FNorm",
    "norm": "feature norm",
    "norm_cosine": "norm x cosine",
    "rmds": "RMDS",
    "vim": "ViM",
    "mahalanobis": "Mahalanobis",
    "knn": "KNN",
    "auroc": "AUROC",
    "auroc_degraded": "AUROC, all degraded",
    "aupr_in": "AUPR-In",
    "aupr_out": "AUPR-Out",
    "fpr95": "FPR95",
    "id_accuracy": "accuracy",
    "called_ood": "share called OOD",
    "ece": "ECE",
    "ece_tempered": "ECE, tempered",
    "ood_set": "OOD set",
}
# What a score is, for an axis.
SCORE_AXES = {
    "msp": "log maximum softmax probability",
    "energy": "log sum of exponential logits",
    "gen": "minus the generalised entropy",
    "t2fnorm": "log maximum softmax probability of un-normalised features",
    "norm": "length of the feature vector",
    "norm_cosine": "length times maximum cosine",
    "rmds": "minus the relative squared Mahalanobis distance",
    "vim": "energy less the virtual logit",
    "cosine": "maximum cosine",
    "mahalanobis": "minus the squared Mahalanobis distance",
    "knn": "minus the distance to the nearest training images",
    "reconstruction": "minus the mean squared error of the reconstruction",
    "inpainting": "minus the mean squared error of the hidden pixels",
}


# What is done to images, behind the name of a source of outliers (see `conditions`).
MODIFIERS = {"noise": "noise levels", "degraded": "degraded", "augmix": "AugMix", "pixmix": "PixMix"}


def label(name: str) -> str:
    """The name of a head, condition, score, metric or column; one that is not listed is itself, with spaces for `_`."""
    modifiers = re.search(rf"(\+({'|'.join(MODIFIERS)})[\d.-]*)*$", name)[0]
    source = name.removesuffix(modifiers)
    words = [
        f"{MODIFIERS[word]} {amount}".strip()
        for word, amount in re.findall(r"\+([a-z]+)([\d.-]*)", modifiers)
    ]
    return ", ".join([NAMES.get(source, source.replace("_", " ")), *words])


def score_axis(score: str) -> str:
    """What an axis of this score measures."""
    return SCORE_AXES.get(score, label(score))
