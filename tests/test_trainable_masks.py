"""Masks other than the largest of all layers together: how many, where, nested, and by chance as they should be."""

import hashlib
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from trainable import cycle, pruning, strategies
from trainable.config import Cycle, key
from trainable.pruning import apportion, count_kept, keep_all, prune

SHAPES = {"a": (16, 3, 3, 3), "b": (32, 16, 3, 3), "c": (32, 16, 1, 1), "d": (10, 32)}
"""432, 4,608, 512 and 320 weights: 5,872."""
UNSTRUCTURED = ["magnitude", "random", "random-in-layers", "magnitude-in-layers", "erk"]
STRUCTURED = UNSTRUCTURED[:-1]
CHAIN = (0.8, 0.64, 0.3, 0.1, 0.02)


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def random_weights(seed=0):
    """Layers of different magnitude, so that a global ranking does not cut them alike."""
    generator = chance(seed)
    scales = {"a": 3.0, "b": 0.5, "c": 1.0, "d": 2.0}
    return {name: scales[name] * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def counts(masks):
    return {name: int(mask.sum()) for name, mask in masks.items()}


@pytest.mark.parametrize("mask", UNSTRUCTURED)
def test_chains_are_nested_and_exact(mask):
    masks = keep_all(random_weights())
    for number, density in enumerate(CHAIN):
        narrower = prune(random_weights(number), masks, density, "unstructured", mask, chance(number))
        assert count_kept(narrower) == round(density * 5_872)
        assert all((masks[name] | ~narrower[name]).all() for name in masks)
        masks = narrower


@pytest.mark.parametrize("mask", STRUCTURED)
def test_structured_chains_are_nested_and_whole(mask):
    masks = keep_all(random_weights())
    for number, density in enumerate(CHAIN):
        narrower = prune(random_weights(number), masks, density, "structured", mask, chance(number))
        assert all((masks[name] | ~narrower[name]).all() for name in masks)
        for kept in narrower.values():
            channels = kept if kept.dim() == 4 else kept.T
            assert {int(channel.sum()) for channel in channels} <= {0, channels[0].numel()}
        if mask != "random-in-layers":  # which keeps channels, not weights, as magnitude does; here they agree
            assert count_kept(narrower) >= density * 5_872
        masks = narrower


def test_random_is_uniform_over_all_weights():
    found = prune(random_weights(), keep_all(random_weights()), 0.3, "unstructured", "random", chance(1))
    for name, kept in counts(found).items():
        size = found[name].numel()
        assert abs(kept - 0.3 * size) < 5 * np.sqrt(0.21 * size)


def test_random_in_layers_has_the_counts_of_magnitude():
    weights = random_weights()
    largest = prune(weights, keep_all(weights), 0.3, "unstructured")
    found = prune(weights, keep_all(weights), 0.3, "unstructured", "random-in-layers", chance(1))
    assert counts(found) == counts(largest)
    assert any(not torch.equal(found[name], largest[name]) for name in SHAPES)
    overlap = int((found["b"] & largest["b"]).sum()) / counts(found)["b"]
    assert overlap == pytest.approx(counts(found)["b"] / 4_608, abs=0.1)


def test_structured_random_in_layers_has_the_channels_of_magnitude():
    weights = random_weights()
    largest = prune(weights, keep_all(weights), 0.3, "structured")
    found = prune(weights, keep_all(weights), 0.3, "structured", "random-in-layers", chance(1))
    assert counts(found) == counts(largest)
    assert any(not torch.equal(found[name], largest[name]) for name in SHAPES)


def test_magnitude_in_layers_keeps_the_largest_of_each():
    weights = random_weights()
    found = prune(weights, keep_all(weights), 0.25, "unstructured", "magnitude-in-layers")
    assert counts(found) == {"a": 108, "b": 1_152, "c": 128, "d": 80}
    for name, kept in found.items():
        magnitudes = weights[name].abs()
        assert magnitudes[kept].min() >= magnitudes[~kept].max()


def test_structured_magnitude_in_layers():
    weights = random_weights()
    found = prune(weights, keep_all(weights), 0.25, "structured", "magnitude-in-layers")
    assert counts(found) == {"a": 4 * 27, "b": 8 * 144, "c": 8 * 16, "d": 8 * 10}


def test_erk_by_hand():
    """Shares 16+3+3+3 = 25, 32+16+3+3 = 54, 32+16+1+1 = 50, 42: of 1,000, by 171, none is full but d at 320 never."""
    weights = random_weights()
    found = prune(weights, keep_all(weights), 1_000 / 5_872, "unstructured", "erk")
    exact = {name: 1_000 * share / 171 for name, share in {"a": 25, "b": 54, "c": 50, "d": 42}.items()}
    assert sum(counts(found).values()) == 1_000
    assert all(abs(counts(found)[name] - exact[name]) < 1 for name in exact)


def test_erk_fills_small_layers_first():
    """At density 0.5, 2,936: d (320), a (432) and c (512) are full, b has the rest."""
    weights = random_weights()
    found = prune(weights, keep_all(weights), 0.5, "unstructured", "erk")
    assert counts(found) == {"a": 432, "b": 2_936 - 432 - 512 - 320, "c": 512, "d": 320}


@pytest.mark.parametrize("seed", range(50))
def test_apportion(seed):
    """All is given out, none has too much, and who is not full has its share to within one."""
    random = np.random.default_rng(seed)
    names = "abcdefg"[: random.integers(1, 8)]
    most = {name: int(random.integers(0, 40)) for name in names}
    shares = {name: int(random.integers(1, 20)) for name in names}
    count = int(random.integers(0, sum(most.values()) + 1))
    split = apportion(count, shares, most)
    assert sum(split.values()) == count
    assert all(0 <= split[name] <= most[name] for name in names)
    open_ = [name for name in names if split[name] < most[name]]
    for a, b in itertools.permutations(open_, 2):
        assert (split[a] - 1) / shares[a] <= (split[b] + 1) / shares[b]


def test_nothing_left():
    weights = random_weights()
    for mask in UNSTRUCTURED:
        with pytest.raises(
            ValueError, match=r"density 0\.00001 keeps 0 of 5,872 prunable weights|density 1e-05 keeps 0"
        ):
            prune(weights, keep_all(weights), 0.00001, "unstructured", mask, chance())


# In cells


def masks_of(store, tiny, digits, numerics, **fields):
    cell = Cycle(dense=tiny, densities=(0.3,), retraining=strategies.fine_tuning(tiny, 3), **fields)
    return cycle.start(cell, store, digits, numerics)[0].masks


@pytest.mark.parametrize(
    ("structure", "mask"), [("unstructured", m) for m in UNSTRUCTURED] + [("structured", m) for m in STRUCTURED]
)
def test_every_mask_trains_and_composes_with_a_rewind(store, tiny, digits, numerics, structure, mask):
    retraining = replace(strategies.weight_rewinding(tiny, 10), budget=5)
    cell = Cycle(dense=tiny, densities=(0.5, 0.3), retraining=retraining, structure=structure, mask=mask)
    for member in (replace(cell, densities=(0.5,)), cell):
        for _ in cycle.run(member, store, digits, numerics):
            pass
    first, second = (cycle.load(store, member, 5, digits) for member in (replace(cell, densities=(0.5,)), cell))
    for name in first.masks:
        assert (first.masks[name] | ~second.masks[name]).all()
        assert (second.weights[name][~second.masks[name]] == 0).all()
    if structure == "unstructured":
        assert (count_kept(first.masks), count_kept(second.masks)) == (2_482, 1_489)


def test_chance_is_the_seeds_and_the_iterations_own(store, tiny, digits, numerics):
    first, again = (masks_of(store, tiny, digits, numerics, mask="random") for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    torch.manual_seed(5)
    other = pruning.prune(
        {name: torch.zeros(mask.shape) for name, mask in first.items()},
        keep_all(first),
        0.3,
        "unstructured",
        "random",
        torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(b"3/1/mask").digest()[:8])),
    )
    assert all(torch.equal(first[name], other[name]) for name in first)


def test_a_mask_is_another_cell(tiny):
    cell = Cycle(dense=tiny, densities=(0.3,), retraining=strategies.fine_tuning(tiny, 3))
    assert len({key(replace(cell, mask=mask)) for mask in UNSTRUCTURED}) == 5


def test_a_density_that_keeps_nothing_is_found_before_training(tiny, digits):
    cell = Cycle(dense=tiny, densities=(0.0001,), retraining=strategies.fine_tuning(tiny, 5), mask="erk")
    with pytest.raises(ValueError, match="keeps 0 of 4,964 prunable weights"):
        cycle.check(cell, digits)
