"""What things are called on screen, in tables, figures and widgets."""

# Heads and sources of outliers stand in the order that tables have them in.
NAMES = {
    "softmax": "softmax",
    "scaled_cosine": "scaled cosine",
    "adacos": "AdaCos",
    "arcface": "ArcFace",
    "cosface": "CosFace",
    "sphereface": "SphereFace",
    "denoiser": "denoiser",
    "none": "no outliers",
    "label_mixup": "label mixup",
    "impure_mixup": "impure mixup",
    "distant_mixup": "distant mixup",
    "weighted_mixup": "weighted mixup",
    "soft_mixup": "soft mixup",
    "three_way_mixup": "three-way mixup",
    "cmg": "CMG",
    "weak_guidance": "weak guidance",
    "strong_guidance": "strong guidance",
    "early_stopped": "early stopped",
    "pixel_mixup": "pixel mixup",
    "uniform_noise": "uniform noise",
    "vos": "VOS",
    "real": "real outliers",
    "msp": "MSP",
    "mahalanobis": "Mahalanobis",
    "knn": "KNN",
    "auroc": "AUROC",
    "aupr_in": "AUPR-In",
    "aupr_out": "AUPR-Out",
    "fpr95": "FPR95",
    "id_accuracy": "accuracy",
    "ood_set": "OOD set",
}
# What a score is, for an axis.
SCORE_AXES = {
    "msp": "log maximum softmax probability",
    "energy": "log sum of exponential logits",
    "cosine": "maximum cosine",
    "mahalanobis": "minus the squared Mahalanobis distance",
    "knn": "minus the distance to the nearest training images",
    "reconstruction": "minus the mean squared error of the reconstruction",
    "inpainting": "minus the mean squared error of the hidden pixels",
}


def label(name: str) -> str:
    """The name of a head, source, score, metric or column; one that is not listed is itself, with spaces for `_`."""
    return NAMES.get(name, name.replace("_", " "))


def score_axis(score: str) -> str:
    """What an axis of this score measures."""
    return SCORE_AXES.get(score, label(score))
