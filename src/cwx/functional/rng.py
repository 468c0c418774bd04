"""Random streams without state: what is drawn depends on a key alone."""

import hashlib

import torch


def stream(*key: int) -> torch.Generator:
    """A CPU generator for one purpose, given by its `key` (seed, epoch, …).

    With one a step, a resumed run draws what an uninterrupted one draws, and every rank what one
    process draws, with nothing to save.
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
