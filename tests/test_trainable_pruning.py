"""Masks: how many, which, nested, and exact."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from trainable import cycle, pruning, strategies
from trainable.config import Cycle
from trainable.data import training_batches
from trainable.schedules import schedule
from trainable.training import build_network, train


def random_weights(seed=0):
    """[6, 3, 2, 2], [4, 6, 1, 1] and [5, 4]: 72 + 24 + 20 = 116."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (6, 3, 2, 2), "b": (4, 6, 1, 1), "c": (5, 4)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def flat(tensors):
    return np.concatenate([tensor.numpy().ravel() for tensor in tensors.values()])


@pytest.mark.parametrize(
    ("density", "count"), [(1, 116), (0.5, 58), (0.2, 23), (0.107, 12), (0.01, 1), (0.004311, 1), (0.995, 115)]
)
def test_exactly_so_many_of_the_largest_are_kept(density, count):
    weights = random_weights()
    masks = pruning.unstructured(weights, pruning.keep_all(weights), density)
    assert pruning.count_kept(masks) == count
    magnitudes, mask = np.abs(flat(weights)), flat(masks)
    smallest_kept = np.sort(magnitudes)[::-1][count - 1]
    np.testing.assert_array_equal(mask, magnitudes >= smallest_kept)
    assert {name: (mask.shape, mask.dtype) for name, mask in masks.items()} == {
        name: (weight.shape, torch.bool) for name, weight in weights.items()
    }


def test_ties_keep_the_lower_index_and_no_one_more():
    weights = {"a": torch.tensor([[1.0, -2.0, 2.0, 2.0]]), "b": torch.tensor([[-2.0, 2.0, 3.0, 0.0]])}
    masks = pruning.unstructured(weights, pruning.keep_all(weights), 0.5)
    assert masks["a"].tolist() == [[False, True, True, True]]
    assert masks["b"].tolist() == [[False, False, True, False]]


def test_all_equal_weights_are_pruned_from_the_end():
    weights = {"a": torch.full((3, 3), 0.5), "b": torch.full((1, 3), -0.5)}
    masks = pruning.unstructured(weights, pruning.keep_all(weights), 0.583333)  # 6.999996 of 12: 7
    assert flat(masks).tolist() == [True] * 7 + [False] * 5


def test_many_ties_too():
    """An unstable sort keeps the order of a few, not of thousands."""
    values = torch.randint(1, 4, (5_000,), generator=torch.Generator().manual_seed(0))  # about a third each: 1, 2, 3
    weights = {"a": values.float().reshape(50, 100)}
    masks = pruning.unstructured(weights, pruning.keep_all(weights), 0.5)
    threes, twos = (values == 3).numpy(), (values == 2).numpy()
    expected = threes | (twos & (np.cumsum(twos) <= 2_500 - threes.sum()))
    np.testing.assert_array_equal(flat(masks), expected)


def test_kept_zeros_are_kept_before_pruned_ones():
    """A weight may be 0 by chance: what was pruned must not come back for it."""
    weights = {"a": torch.tensor([[0.0, 0.0, 0.0, 5.0]])}
    masks = pruning.unstructured(weights, {"a": torch.tensor([[False, True, True, True]])}, 0.75)
    assert masks["a"].tolist() == [[False, True, True, True]]


@pytest.mark.parametrize("structure", ["unstructured", "structured"])
def test_nested_over_a_chain_though_weights_change(structure):
    masks = pruning.keep_all(random_weights())
    counts = []
    for number, density in enumerate((0.8, 0.64, 0.512, 0.41, 0.1)):
        weights = random_weights(seed=number)  # also large where the parent is pruned already: must not come back
        narrower = pruning.prune(weights, masks, density, structure)
        assert all((masks[name] | ~narrower[name]).all() for name in masks)
        masks = narrower
        counts.append(pruning.count_kept(masks))
    if structure == "unstructured":
        assert counts == [93, 74, 59, 48, 12]  # of 116
    else:
        assert all(count >= 116 * density for count, density in zip(counts, (0.8, 0.64, 0.512, 0.41, 0.1), strict=True))


def test_masks_of_the_parent_are_not_changed():
    weights = random_weights()
    for structure in ("unstructured", "structured"):
        masks = pruning.keep_all(weights)
        pruning.prune(weights, masks, 0.3, structure)
        assert all(mask.all() for mask in masks.values())


def test_nothing_left():
    weights = random_weights()
    with pytest.raises(ValueError, match=r"density 0\.004 keeps 0 of 116 prunable weights: at least 1 is needed"):
        pruning.unstructured(weights, pruning.keep_all(weights), 0.004)


# Structured

CHANNELS = {
    "conv": torch.tensor([0.4, -0.1, 0.3]).reshape(3, 1, 1, 1).expand(3, 2, 2, 2),  # groups of 8: |w| 0.4, 0.1, 0.3
    "classifier": torch.tensor([[0.2, 0.5, 0.05], [-0.2, 0.5, 0.05]]),  # groups of 2, by column: 0.2, 0.5, 0.05
}
"""24 + 6 = 30 weights; lowest first: column 2 (2), channel 1 (8), column 0 (2), channel 2 (8), channel 0, column 1."""


@pytest.mark.parametrize(
    ("density", "kept", "channels", "columns"),
    [
        (1, 30, [1, 1, 1], [1, 1, 1]),
        (0.95, 30, [1, 1, 1], [1, 1, 1]),  # 28.5 are needed
        (0.933333, 28, [1, 1, 1], [1, 1, 0]),
        (0.9, 28, [1, 1, 1], [1, 1, 0]),  # the next is channel 1: 20 would be fewer than 27, so that column 0 stays
        (0.666666, 20, [1, 0, 1], [1, 1, 0]),
        (0.6, 18, [1, 0, 1], [0, 1, 0]),
        (0.5, 18, [1, 0, 1], [0, 1, 0]),
        (0.3, 10, [1, 0, 0], [0, 1, 0]),
        (0.1, 10, [1, 0, 0], [0, 1, 0]),
        (0.05, 2, [0, 0, 0], [0, 1, 0]),
    ],
)
def test_whole_channels_lowest_first_while_the_density_holds(density, kept, channels, columns):
    masks = pruning.structured(CHANNELS, pruning.keep_all(CHANNELS), density)
    assert pruning.count_kept(masks) == kept
    expected = np.broadcast_to(np.array(channels, bool)[:, None, None, None], (3, 2, 2, 2))
    np.testing.assert_array_equal(masks["conv"].numpy(), expected)
    np.testing.assert_array_equal(masks["classifier"].numpy(), [np.array(columns, bool)] * 2)


def test_a_target_that_is_met_exactly_is_not_missed_by_a_rounding():
    """0.7 · 30 is 20.999999999999996 in floats and 0.1 · 3 + … alike: 21 of 30 must count as 0.7."""
    weights = {"conv": torch.arange(1.0, 11.0).reshape(10, 1, 1, 1).expand(10, 3, 1, 1)}
    for tenths in range(1, 11):
        masks = pruning.structured(weights, pruning.keep_all(weights), tenths / 10)
        assert pruning.count_kept(masks) == 3 * tenths


def test_tied_channels_keep_the_lower_index():
    weights = {"conv": torch.ones(4, 2, 1, 1)}
    masks = pruning.structured(weights, pruning.keep_all(weights), 0.5)
    assert masks["conv"][:, 0, 0, 0].tolist() == [True, True, False, False]


def test_a_channel_already_gone_is_not_counted_again():
    first = pruning.structured(CHANNELS, pruning.keep_all(CHANNELS), 0.666666)
    second = pruning.structured(pruning.apply(first, CHANNELS), first, 0.6)
    assert pruning.count_kept(second) == 18


# In training


def test_apply_makes_positive_zeros_and_leaves_the_rest():
    tensors = {"a": torch.tensor([-1.0, 2.0, -3.0]), "bias": torch.tensor([-1.0])}
    applied = pruning.apply({"a": torch.tensor([False, True, False])}, tensors)
    assert applied["a"].tolist() == [0.0, 2.0, 0.0]
    assert not torch.signbit(applied["a"][[0, 2]]).any()  # −1 · 0 would be −0
    assert applied["bias"].tolist() == [-1.0]
    assert tensors["a"].tolist() == [-1.0, 2.0, -3.0]


@pytest.mark.parametrize("structure", ["unstructured", "structured"])
@pytest.mark.parametrize(
    ("momentum", "nesterov", "weight_decay"), [(0.9, True, 2e-2), (0.9, False, 0.0), (0.0, False, 2e-2)]
)
def test_exact_zeros_after_fifty_steps(tiny, digits, numerics, empty, structure, momentum, nesterov, weight_decay):
    dense = replace(tiny, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
    for _ in cycle.run(dense, empty, digits, numerics):
        pass
    retraining = replace(strategies.fine_tuning(dense, 50), momentum="with_weights", lr_from=0)
    cell = Cycle(dense=dense, densities=(0.2,), retraining=retraining, structure=structure)
    for _ in cycle.run(cell, empty, digits, numerics):
        pass
    begun, _ = cycle.start(cell, empty, digits, numerics)
    final = cycle.load(empty, cell, 50, digits)
    for name, mask in begun.masks.items():
        assert torch.equal(final.masks[name], mask)
        for tensor in (final.weights[name], final.momentum[name]):
            pruned = tensor[~mask]
            assert (pruned == 0).all()
            assert not torch.signbit(pruned).any()
        if mask.any():  # the rest has learned
            assert (final.weights[name][mask] != begun.weights[name][mask]).float().mean() > 0.99
    if structure == "unstructured":
        assert pruning.count_kept(final.masks) == 993  # of 4,964
    unprunable = final.weights.keys() - final.masks.keys()
    assert len(unprunable) == 15  # scale and offset of 7 batch norms, the classifier's bias
    assert all((final.weights[name] != begun.weights[name]).any() for name in unprunable)


def test_pruned_weights_would_move_without_their_masks(tiny, digits, numerics):
    """The check above can fail: the same updates without masks move zeros."""
    network = build_network(tiny, digits, numerics, 0, "init")
    weight = network.model.first.weight
    with torch.no_grad():
        weight[:, :, 0] = 0
    batches = training_batches(digits, 0, 0, 16)
    for _ in train(network, batches, schedule(tiny), {}, start=0, stop=3):
        pass
    assert (weight[:, :, 0] != 0).any()


def test_the_whole_chain_is_checked_before_any_training(tiny, digits):
    retraining = strategies.fine_tuning(tiny, 5)
    cycle.check(tiny, digits)
    cycle.check(Cycle(dense=tiny, densities=(0.5, 0.000202), retraining=retraining), digits)  # 1 of 4,964
    with pytest.raises(ValueError, match=r"density 0\.0001 keeps 0 of 4,964 prunable weights: at least 1 is needed"):
        cycle.check(Cycle(dense=tiny, densities=(0.5, 0.0001), retraining=retraining), digits)
