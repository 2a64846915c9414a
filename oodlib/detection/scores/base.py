"""What a score is: what it is computed from, what it keeps, and the registry of all."""

from typing import NamedTuple

from torch import Tensor, nn

ROWS = 8192  # features of so many images are in float64 at once
BANK_SIZE = 5000  # training images that a score keeps at most, unless told otherwise


class Outputs(NamedTuple):
    """What a network makes of N images, and what scores are computed from."""

    features: Tensor
    """(N, D)."""
    logits: Tensor
    """(N, C)."""
    class_weights: Tensor
    """Of the head, (C, D)."""
    bias: Tensor | None = None
    """Of the head, (C,); None where it has none."""
    is_normalised: bool = False
    """Whether the logits are those of normalised features, and so know nothing of their norm."""


SCORES: dict[str, type["Score"]] = {}
"""Every score by its name, in the order in which tables show them."""


class Score(nn.Module):
    """Base of all scores; a subclass registers itself with `class Name(Score, name="name")`.

    Where one builds on another's statistics, `class Name(Score, name="name", base="other")` finds it as `self.base`.
    """

    statistics: tuple[str, ...] = ()
    """Names of the tensors that `fit` sets; they are buffers, None before."""
    base_name: str | None = None

    def __init_subclass__(cls, *, name: str, base: str | None = None):
        super().__init_subclass__()
        cls.base_name = base
        SCORES[name] = cls

    def __init__(self, base: "Score | None" = None):
        super().__init__()
        object.__setattr__(self, "base", base)  # not as a part of this module, which would save it twice
        for name in self.statistics:
            self.register_buffer(name, None)

    @property
    def is_fitted(self) -> bool:
        return all(getattr(self, name) is not None for name in self.statistics)

    def fit(self, train: Outputs, labels: Tensor, bank_size: int = BANK_SIZE) -> None:
        """Set the statistics.

        Args:
            train: Of the N training images.
            labels: Of the same, int64 (N,); every class occurs.
            bank_size: The largest number of training images that a score may keep.
        """

    def forward(self, outputs: Outputs) -> Tensor:
        """Score N images; (N,) float64, larger = more in-distribution."""
        raise NotImplementedError
