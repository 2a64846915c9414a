"""Six classification heads: softmax, and five on the cosine between features and class weights.

`cos(theta_j)` is the cosine between the feature vector and the weights of class j, `y` the label. A head is
one formula: how the label's own cosine is changed while training. Prediction and scores never see a margin.
"""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from oodlib.errors import InputError, choice
from oodlib.settings import Flag

COSINE_LIMIT = 1 - 1e-6  # where the slope of arccos is cut, so that gradients stay finite at 0 and pi
Scale = Annotated[float, Field(strict=True, gt=0, le=1000)]
Margin = Annotated[float, Field(strict=True, ge=0, le=10)]

HEADS: dict[str, type["Head"]] = {}
"""Every head by its name, in the order in which tables show them."""


class Head(nn.Module):
    """Base of all heads: class weights, the cosine to them, and the loss.

    A head registers itself with `class Name(Head, name="name")`.
    """

    default_score: str
    is_normalised = False
    """Whether its logits are those of normalised features."""

    def __init_subclass__(cls, *, name: str = ""):
        super().__init_subclass__()
        if name:
            HEADS[name] = cls

    def __init__(self, num_features: int, num_classes: int):
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_classes, num_features)))
        self.register_parameter("bias", None)  # (C,), of a head that has one

    def cosine(self, features: Tensor) -> Tensor:
        """`cos(theta_j)`, (N, C), always computed in float32."""
        return F.linear(F.normalize(features.float()), F.normalize(self.weight.float()))

    def logits(self, features: Tensor) -> Tensor:
        """Margin-free logits (N, C) of features (N, D)."""
        raise NotImplementedError

    def training_logits(self, features: Tensor, labels: Tensor) -> Tensor:
        """The logits that training sees: those of the first features have the margin at their label.

        Args:
            features: (N + M, D); the last M are outliers, which have no label and so no margin.
            labels: (N,).

        Returns:
            (N + M, C).
        """
        return self.logits(features)

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of features (N, D) and labels (N,), with the margin."""
        return F.cross_entropy(self.training_logits(features, labels), labels)


class SoftmaxHead(Head, name="softmax"):
    """Plain linear classifier, `l_j = w_j . z + b_j`."""

    default_score = "msp"

    def __init__(self, num_features: int, num_classes: int):
        super().__init__(num_features, num_classes)
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def logits(self, features: Tensor) -> Tensor:
        return F.linear(features.float(), self.weight.float(), self.bias.float())


class CosineHead(Head):
    """Base of the cosine heads: `l_j = s cos(theta_j)`, and `s margin(cos(theta_y))` at the label.

    Their class weights are used normalised, so weight decay on them would only raise the learning rate.
    """

    default_score = "cosine"
    is_normalised = True

    def __init__(self, num_features: int, num_classes: int, scale: float, margin: float = 0.0):
        super().__init__(num_features, num_classes)
        if not 0 < scale < math.inf:
            raise InputError(f"scale is {scale}, expected a number above 0")
        if not 0 <= margin < math.inf:
            raise InputError(f"margin is {margin}, expected 0 or more")
        self.scale, self.margin = float(scale), float(margin)

    def margin_cosine(self, cosine: Tensor) -> Tensor:
        """What takes the place of `cos(theta_y)` in the loss: the hook of the margin heads."""
        return cosine

    def logits(self, features: Tensor) -> Tensor:
        return self.scale * self.cosine(features)

    def training_logits(self, features: Tensor, labels: Tensor) -> Tensor:
        cosine, index = self.cosine(features), labels[:, None]
        labelled, outliers = cosine[: len(labels)], cosine[len(labels) :]
        target = self.margin_cosine(labelled.gather(1, index))
        return self.scale * torch.cat([labelled.scatter(1, index, target), outliers])


class ScaledCosineHead(CosineHead, name="scaled_cosine"):
    """Scaled cosine (Techapanurak et al. 2019, arXiv 1905.10628): `l_j = s(x) cos(theta_j)`.

    `s(x) = exp(BN(w_s . z + b_s))` is learned for each image. BN starts at `initial_scale`, since from 1 it has
    too far to go. Outlier exposure acts on s(x) too; with s(x) held fixed on outliers the digits do not train.
    """

    def __init__(self, num_features: int, num_classes: int, initial_scale: Scale = 10.0):
        super().__init__(num_features, num_classes, scale=initial_scale)
        self.scale_linear = nn.Linear(num_features, 1)
        self.scale_norm = nn.BatchNorm1d(1)
        nn.init.constant_(self.scale_norm.weight, 0.1)
        nn.init.constant_(self.scale_norm.bias, math.log(initial_scale))

    def learned_scale(self, features: Tensor) -> Tensor:
        """s(x), (N, 1), above 0."""
        return self.scale_norm(self.scale_linear(features.to(self.weight.dtype))).float().exp()

    def logits(self, features: Tensor) -> Tensor:
        return self.learned_scale(features) * self.cosine(features)

    def training_logits(self, features: Tensor, labels: Tensor) -> Tensor:
        return self.logits(features)


class AdaCosHead(CosineHead, name="adacos"):
    """AdaCos (Zhang et al. 2019, arXiv 1905.00292): no margin and `s = sqrt(2) ln(C - 1)`.

    With `dynamic=True` the scale follows training: `s = ln(B_avg) / cos(min(pi/4, theta_med))`, where
    `B_avg` is the batch's mean of `sum_{j != y} exp(s cos(theta_j))` and `theta_med` its median label angle.
    """

    def __init__(self, num_features: int, num_classes: int, dynamic: Flag = False):
        if num_classes < 3:
            raise InputError(f"AdaCos has scale sqrt(2) ln(C - 1) and needs 3 classes, not {num_classes}")
        super().__init__(num_features, num_classes, scale=math.sqrt(2) * math.log(num_classes - 1))
        self.dynamic = dynamic
        del self.scale
        self.register_buffer("scale", torch.tensor(math.sqrt(2) * math.log(num_classes - 1)))

    def training_logits(self, features: Tensor, labels: Tensor) -> Tensor:
        if self.dynamic and self.training:
            with torch.no_grad():
                self.scale.copy_(self._next_scale(self.cosine(features[: len(labels)]), labels[:, None]))
        return super().training_logits(features, labels)

    def _next_scale(self, cosine: Tensor, index: Tensor) -> Tensor:
        others = (self.scale * cosine).exp().scatter(1, index, 0.0).sum(1).mean()
        median_angle = cosine.gather(1, index).clamp(-1, 1).arccos().median()
        return others.log() / median_angle.clamp(max=math.pi / 4).cos()


class ArcFaceHead(CosineHead, name="arcface"):
    """ArcFace (Deng et al. 2019, arXiv 1801.07698): `cos(theta_y + m)`, m in radians.

    Beyond `theta_y = pi - m`, where that would rise again, `cos(theta_y) - m sin(m)` keeps it falling.
    """

    def __init__(self, num_features: int, num_classes: int, scale: Scale = 16.0, margin: Margin = 0.3):
        super().__init__(num_features, num_classes, scale, margin)

    def margin_cosine(self, cosine: Tensor) -> Tensor:
        angle = cosine.clamp(-COSINE_LIMIT, COSINE_LIMIT).arccos()
        beyond = cosine - self.margin * math.sin(self.margin)
        return torch.where(angle + self.margin <= math.pi, (angle + self.margin).cos(), beyond)


class CosFaceHead(CosineHead, name="cosface"):
    """CosFace (Wang et al. 2018, arXiv 1801.09414): `cos(theta_y) - m`."""

    def __init__(self, num_features: int, num_classes: int, scale: Scale = 16.0, margin: Margin = 0.35):
        super().__init__(num_features, num_classes, scale, margin)

    def margin_cosine(self, cosine: Tensor) -> Tensor:
        return cosine - self.margin


class SphereFaceHead(CosineHead, name="sphereface"):
    """SphereFace (Liu et al. 2017, arXiv 1704.08063): `psi(theta_y) = (-1)^k cos(m theta_y) - 2k`,
    with `k = floor(m theta_y / pi)`, which falls all the way from 0 to pi.

    Features are normalised and scaled by s, as in the revised SphereFace (arXiv 2109.05565), because the
    original's factor |z| with m = 2 and more does not train from scratch on few classes. m = 1 is no margin.
    """

    def __init__(self, num_features: int, num_classes: int, scale: Scale = 16.0, margin: Margin = 1.5):
        if not 1 <= margin < math.inf:
            raise InputError(f"margin is {margin}; SphereFace multiplies the angle by it, expected 1 or more")
        super().__init__(num_features, num_classes, scale, margin)

    def margin_cosine(self, cosine: Tensor) -> Tensor:
        angle = self.margin * cosine.clamp(-COSINE_LIMIT, COSINE_LIMIT).arccos()
        k = (angle / math.pi).floor().detach()
        return (1 - 2 * (k % 2)) * angle.cos() - 2 * k


class LogitNormHead(SoftmaxHead, name="logit_norm"):
    """Logit normalisation (Wei et al. 2022, arXiv 2205.09310): in training `l / (t |l|)`, in use the plain `l`.

    That paper has t = 0.04 on CIFAR-10, at which the digits train badly.
    """

    def __init__(self, num_features: int, num_classes: int, temperature: Scale = 0.1):
        super().__init__(num_features, num_classes)
        if not 0 < temperature < math.inf:
            raise InputError(f"temperature is {temperature}, expected a number above 0")
        self.temperature = temperature

    def training_logits(self, features: Tensor, labels: Tensor) -> Tensor:
        return F.normalize(self.logits(features)) / self.temperature


def make_head(name: str, num_features: int, num_classes: int, **options: float) -> Head:
    """A head by its name in `HEADS`; `options` are those of its class, such as `scale` and `margin`.

    Raises:
        InputError: The name is not known, the head has no such option, or its value is out of range.
    """
    choice("head", name, HEADS)
    try:
        return HEADS[name](num_features, num_classes, **options)
    except TypeError as error:
        raise InputError(f"head {name!r} with options {options}: {error}") from error
