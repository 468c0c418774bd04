"""Stateless random streams: the draws depend on a key only."""

import hashlib

import torch


def stream(*key: int) -> torch.Generator:
    """A CPU generator that is a function of `key` (seed, purpose, epoch, step, …).

    With one generator per step, a resumed run repeats the draws of an uninterrupted one, and all
    ranks draw the same, without any saved state.
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
