"""Which network it is: by its layers, their settings and its tensors, whatever it is wrapped in."""

import re

import numpy as np
import torch
from torch import nn

from oodlib.errors import InputError
from oodlib.files import fingerprint

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrapped(network: nn.Module) -> nn.Module:
    """The network within what torch.compile and DataParallel make of it, in any nesting.

    Raises:
        InputError: It is no torch module.
    """
    if not isinstance(network, nn.Module):
        raise InputError(f"the network is a {type(network).__name__}, expected a torch module")
    while isinstance(network, WRAPPERS) or hasattr(network, "_orig_mod"):
        network = network.module if isinstance(network, WRAPPERS) else network._orig_mod
    return network


def fingerprint_network(network: nn.Module) -> str:
    """A hash of what a network does: its layers as they are printed, with their settings, and all of its tensors,
    buffers that are not saved too. It is the same on any device and in any wrapper.

    What the code of its `forward` does beside its layers is not in it, nor is state that is no tensor.
    """
    network = unwrapped(network)
    tensors = [*network.named_parameters(), *network.named_buffers()]
    layers = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(network))  # where a function is printed with its address
    text = "\n".join([layers, *(f"{name} {t.dtype} {tuple(t.shape)}" for name, t in tensors)])
    contents = (t.detach().cpu().contiguous().flatten().view(torch.uint8).numpy() for _, t in tensors)
    return fingerprint(np.frombuffer(text.encode(), np.uint8), *contents)


def class_of(network: nn.Module) -> str:
    """The full name of a network's class."""
    network = unwrapped(network)
    return f"{type(network).__module__}.{type(network).__qualname__}"
