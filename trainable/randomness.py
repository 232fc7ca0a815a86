"""Every random number of a cell: one generator per purpose, made from the seed and the purpose's path."""

import hashlib

import torch


def generator(seed: int, *path: int | str) -> torch.Generator:
    """A CPU generator that depends on nothing but the seed and the path, e.g. (iteration, "order", pass).

    On the CPU, so that the numbers do not depend on the device; seeded by SHA-256, so that neighbouring
    seeds and paths share nothing.
    """
    text = "/".join(str(part) for part in (seed, *path))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    return torch.Generator().manual_seed(number)
