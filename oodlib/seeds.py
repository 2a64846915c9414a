"""Random generators, one for each purpose, so that a change to one draw never shifts another."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def generator(seed: int, *purpose: object, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator that depends on `seed` and on what it is for, such as `generator(0, "noise", 17)`."""
    digest = hashlib.blake2b(repr((seed, *purpose)).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


@contextmanager
def initial_weights(seed: int, what: str) -> Iterator[None]:
    """Modules made inside draw their initial weights from `seed`; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.set_state(generator(seed, "initial weights", what).get_state())
        yield
