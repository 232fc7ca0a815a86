"""Generators: by seed and path alone."""

import hashlib

import torch

from trainable.randomness import generator


def test_the_seed_is_the_hash_of_the_path():
    expected = int.from_bytes(hashlib.sha256(b"3/0/order/7").digest()[:8])
    assert generator(3, 0, "order", 7).initial_seed() == expected


def test_neighbouring_paths_share_nothing():
    paths = [(0, 1), (1, 0), (10,), (1, "0", 0), (0, "order", 1), (0, "order", 2), (0, "augmentation", 1)]
    drawn = {tuple(torch.rand(3, generator=generator(*path)).tolist()) for path in paths}
    assert len(drawn) == len(paths)


def test_a_generator_is_new_every_time():
    generator(1, "x").manual_seed(5)
    assert torch.equal(torch.rand(2, generator=generator(1, "x")), torch.rand(2, generator=generator(1, "x")))
