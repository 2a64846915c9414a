"""A trained network seen from its last linear layer: features go into it, logits come out of it."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import dropwhile
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oodlib.classifier.identity import unwrapped
from oodlib.device import evaluating
from oodlib.errors import InputError, tell


class FeatureNetwork(nn.Module):
    """The features of a trained network: what goes into its last linear layer, taken by a hook as it runs.

    The network is not changed: its mode, precision, device and memory layout stay its own. It runs without what
    torch.compile and DataParallel make of it, as these pass over hooks or run copies.

    Args:
        network: Any module that takes a batch of tensors and gives logits, alone or in a tuple or mapping.
        layer: The name of its last linear layer; None to take the only one that fits.
        num_classes: How many outputs that layer has; None for any number.

    Raises:
        InputError: No linear layer fits, or several do; the message lists them.
    """

    def __init__(self, network: nn.Module, layer: str | None = None, num_classes: int | None = None):
        super().__init__()
        self.network = unwrapped(network)
        self.layer = find_layer(self.network, layer, num_classes)
        self._is_tried = False

    @property
    def linear(self) -> nn.Linear:
        return self.network.get_submodule(self.layer)

    @property
    def device(self) -> torch.device:
        return self.linear.weight.device

    @torch.inference_mode(False)  # whose tensors, where the network keeps some, no training takes
    @torch.no_grad()
    def forward(self, batch: Tensor) -> Tensor:
        """Features (N, D) float32 of transformed images (N, ...), in evaluation mode.

        Raises:
            InputError: The network cannot take the batch, features are not (N, D) or not finite, or the layer does not
                give what the network gives.
        """
        taken: list[tuple[Tensor, torch.dtype]] = []

        def take(_module: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> None:
            # What follows may change the input in place.
            taken.append(((args[0] if args else kwargs["input"]).clone(), output.dtype))

        # A copy, as the network may change it in place.
        batch = batch.to(self.device, self.linear.weight.dtype, non_blocking=True, copy=True)
        hooked = self.linear.register_forward_hook(take, with_kwargs=True)
        with hooked, evaluating(self.network), _uncompiled():
            try:
                outputs = self.network(batch)
            except Exception as error:  # whatever the network raises
                raise InputError(
                    f"the network cannot take a batch of shape {tuple(batch.shape)}, {batch.dtype} on "
                    f"{batch.device}: {error}"
                ) from error
        if len(taken) != 1:
            raise InputError(
                f"layer {self.layer!r} ran {len(taken)} times for one batch, expected once; name another layer"
            )
        ((features, dtype),) = taken
        features = features.float()
        if features.ndim != 2 or len(features) != len(batch):
            raise InputError(
                f"what goes into layer {self.layer!r} has shape {tuple(features.shape)} for a batch of shape "
                f"{tuple(batch.shape)}, expected ({len(batch)}, features); name the layer that classifies, or, if that "
                "is one image, give images[None]"
            )
        if not bool(features.isfinite().all()):
            raise InputError(
                "features are NaN or infinite; look at the network's weights and at the transform"
            )
        if not self._is_tried:
            self._try(features, outputs, dtype)
            self._is_tried = True
        return features

    def logits(self, features: Tensor) -> Tensor:
        """What the layer makes of features, (N, C) float32."""
        bias = self.linear.bias
        return F.linear(features, self.linear.weight.float(), None if bias is None else bias.float())

    def _try(self, features: Tensor, outputs: Any, dtype: torch.dtype) -> None:
        """Raise `InputError` unless the layer's logits, computed in `dtype`, are among the outputs."""
        logits = self.logits(features)
        share = 1e-3 if dtype.itemsize > 2 else 0.02  # a GPU may round float32 to 10 bits
        tolerance = {"rtol": share, "atol": share * logits.abs().max().item()}
        if not any(
            o.shape == logits.shape and torch.allclose(o.float(), logits, **tolerance)
            for o in _tensors(outputs)
        ):
            raise InputError(
                f"the network does not give `features @ weight.T + bias` of layer {self.layer!r}: name another layer, "
                "or, if something follows it (softmax, a scale, a dataclass), give the network without that"
            )


def find_layer(network: nn.Module, layer: str | None, num_classes: int | None) -> str:
    """The name of a network's last linear layer; see `FeatureNetwork`."""
    linear = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    fitting = [n for n, m in linear.items() if num_classes is None or m.out_features == num_classes]
    listed = ", ".join(
        f"{n} ({linear[n].in_features} to {linear[n].out_features})" for n in fitting or linear
    )
    wanted = "" if num_classes is None else f" with {num_classes} outputs, one for each class"
    if layer is not None:
        # Wrappers, as of torch.compile or DataParallel, are in the names or are gone.
        same = (name for name in linear if _without_wrappers(name) == _without_wrappers(layer))
        layer = layer if layer in linear else next(same, layer)
        if layer not in linear:
            raise InputError(
                f"layer {layer!r} is no linear layer; choose one of {listed or 'none, as there is none'}"
            )
        if layer not in fitting:
            raise InputError(
                f"layer {layer!r} has {linear[layer].out_features} outputs, expected one{wanted}"
            )
        return layer
    if len(fitting) != 1:
        count = "no linear layer" if not fitting else f"{len(fitting)} linear layers"
        raise InputError(
            f"the network has {count}{wanted}; name one by layer=, of {listed}"
            if linear
            else "the network has no linear layer, whose input would be the features"
        )
    (name,) = fitting
    tell(
        f"features are what goes into layer {name!r}: {linear[name].in_features} to {linear[name].out_features}"
    )
    return name


def _without_wrappers(name: str) -> str:
    """The name of a module in a network that nothing wraps, in whole or in part."""
    parts = [part for part in name.split(".") if part != "_orig_mod"]
    return ".".join(dropwhile("module".__eq__, parts))


def _uncompiled() -> AbstractContextManager:
    """The context in which what torch.compile has made runs as it was written."""
    is_in_use = "torch._dynamo" in sys.modules  # which takes seconds to import
    return torch.compiler.set_stance("force_eager") if is_in_use else nullcontext()


def _tensors(outputs: Any) -> list[Tensor]:
    """The tensors among what a network gives."""
    if isinstance(outputs, Tensor):
        return [outputs]
    values = (
        outputs.values() if isinstance(outputs, Mapping) else outputs if isinstance(outputs, Sequence) else ()
    )
    return [value for value in values if isinstance(value, Tensor)]
