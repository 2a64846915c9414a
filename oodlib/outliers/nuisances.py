"""What tells outliers from ID images besides content: how well a linear classifier does on a few statistics."""

import numpy as np
import torch

from oodlib.degrade import degrade

STATISTICS = ("mean", "deviation", "sharpness", "background", "noise")
FOLDS = 5


def statistics(images: np.ndarray) -> np.ndarray:
    """Of each image, float64 (N, 5): mean and standard deviation of its values, mean size of the Laplacian, the 10 %
    quantile (how dark its background is), and the median size of the second differences, which noise raises.

    Args:
        images: uint8 (N, H, W, C).
    """
    x = images.astype(np.float64).mean(3)
    laplacian = 4 * x[:, 1:-1, 1:-1] - x[:, :-2, 1:-1] - x[:, 2:, 1:-1] - x[:, 1:-1, :-2] - x[:, 1:-1, 2:]
    across = 2 * x[:, :, 1:-1] - x[:, :, :-2] - x[:, :, 2:]
    of_image = (1, 2)
    return np.stack(
        [
            x.mean(of_image),
            x.std(of_image),
            np.abs(laplacian).mean(of_image),
            np.quantile(x, 0.1, of_image),
            np.median(np.abs(across), of_image),
        ],
        axis=1,
    )


def nuisance_auroc(
    outliers: np.ndarray, id_images: np.ndarray, strength: float = 0.0, seed: int = 0
) -> float:
    """How well `STATISTICS` tell outliers from ID images: AUROC of a logistic regression, in cross-validation.

    0.5: nothing but content tells them apart. Images may be told apart by a statistic's square too.

    Args:
        outliers, id_images: uint8 (N, H, W, C).
        strength: At which both are degraded first.
    """
    # Here, because scikit-learn takes 2 s to import.
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    random = torch.Generator().manual_seed(seed)
    both = [
        degrade(torch.tensor(images).permute(0, 3, 1, 2), strength, random).permute(0, 2, 3, 1).numpy()
        for images in (outliers, id_images)
    ]
    is_outlier = np.repeat([1, 0], [len(images) for images in both])
    model = make_pipeline(
        StandardScaler(), PolynomialFeatures(2), LogisticRegression(class_weight="balanced", max_iter=1000)
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    x = np.concatenate([statistics(images) for images in both])
    chance = cross_val_predict(model, x, is_outlier, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(is_outlier, chance))
