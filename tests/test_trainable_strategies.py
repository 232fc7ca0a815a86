"""Strategies: their values, their names, and the State and rate each one starts retraining with."""

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from trainable import cycle, recipes, state, strategies
from trainable.config import Cycle, Retraining, parent
from trainable.schedules import schedule

RESNET = recipes.cifar_resnet("resnet20", 0)  # T = 72,000


# Values


@pytest.mark.parametrize(
    ("made", "weights_from", "lr_from", "budget"),
    [
        (strategies.fine_tuning(RESNET), None, 72_000, 72_000),
        (strategies.fine_tuning(RESNET, 500), None, 72_000, 500),
        (strategies.fine_tuning(RESNET, 100_000), None, 72_000, 100_000),
        (strategies.weight_rewinding(RESNET, 8_000), 8_000, 8_000, 64_000),
        (strategies.weight_rewinding(RESNET, 0), 0, 0, 72_000),
        (strategies.weight_rewinding(RESNET, 71_999), 71_999, 71_999, 1),
        (strategies.lr_rewinding(RESNET), None, 0, 72_000),
        (strategies.lr_rewinding(RESNET, 1_000), None, 71_000, 1_000),
        (strategies.low_lr_weight_rewinding(RESNET, 8_000), 8_000, 72_000, 64_000),
        (strategies.reinit(RESNET), "fresh", 0, 72_000),
        (strategies.reinit(RESNET, extra=72_000), "fresh", 0, 144_000),
    ],
)
def test_replays(made, weights_from, lr_from, budget):
    assert made == Retraining(weights_from=weights_from, lr_from=lr_from, budget=budget, shape="replay")
    assert made.momentum == "fresh"


def test_restarts():
    assert strategies.restart(RESNET, "linear") == Retraining(
        weights_from=None, lr_from=None, budget=72_000, shape="linear", peak_lr=0.1
    )
    assert strategies.restart(RESNET, "cosine", 500, peak_lr=0.3, warmup=50) == Retraining(
        weights_from=None, lr_from=None, budget=500, shape="cosine", peak_lr=0.3, warmup=50
    )


def test_lr_rewinding_by_more_than_there_is():
    with pytest.raises(ValueError, match=r"T = 72,?000 steps there are \(no clock before step 0\), got budget 72,?001"):
        strategies.lr_rewinding(RESNET, 72_001)


@pytest.mark.parametrize("make", [strategies.weight_rewinding, strategies.low_lr_weight_rewinding])
@pytest.mark.parametrize("step", [-1, 72_000, 80_000])
def test_a_rewind_point_outside_the_dense_run(make, step):
    with pytest.raises(ValueError, match=rf"rewind point must be .*0 … 71,?999, got {step}"):
        make(RESNET, step)


def test_a_budget_of_zero_is_not_the_default():
    for make in (strategies.fine_tuning, strategies.lr_rewinding):
        with pytest.raises(ValueError, match="budget must be 1 step or more, got 0"):
            make(RESNET, 0)


# Names


def plane(weights_from, lr_from, budget):
    return Retraining(weights_from=weights_from, lr_from=lr_from, budget=budget)


@pytest.mark.parametrize(
    ("retraining", "densities", "name"),
    [
        (strategies.fine_tuning(RESNET), (0.2,), "fine-tuning"),
        (strategies.fine_tuning(RESNET, 10), (0.2,), "fine-tuning"),
        (strategies.weight_rewinding(RESNET, 8_000), (0.5, 0.2), "weight-rewinding"),
        (strategies.weight_rewinding(RESNET, 0), (0.2,), "weight-rewinding"),
        (plane(8_000, 8_000, 64_000), (0.2,), "weight-rewinding"),
        (strategies.lr_rewinding(RESNET), (0.2,), "lr-rewinding"),
        (strategies.lr_rewinding(RESNET, 10), (1, 0.2), "lr-rewinding"),
        (strategies.lr_rewinding(RESNET, 10), (1,), "dense-extra-budget"),
        (strategies.lr_rewinding(RESNET), (1, 1), "dense-extra-budget"),
        (strategies.low_lr_weight_rewinding(RESNET, 8_000), (0.2,), "low-lr-weight-rewinding"),
        (strategies.reinit(RESNET), (0.2,), "reinit"),
        (strategies.reinit(RESNET, 5), (0.2,), "reinit"),
        (strategies.restart(RESNET, "linear"), (0.2,), "linear-restart"),
        (strategies.restart(RESNET, "cosine", 10), (0.2,), "cosine-restart"),
        (replace(strategies.restart(RESNET, "linear"), weights_from=8_000), (0.2,), "linear-from-8000"),
        (plane(8_000, 0, 64_000), (0.2,), "plane"),  # Mikler's released code
        (plane(8_000, 20_000, 64_000), (0.2,), "plane"),
        (plane(None, 20_000, 72_000), (0.2,), "plane"),
        (plane(72_000, 72_000, 10), (0.2,), "plane"),  # from iteration 2 on this is not fine-tuning
        (plane("fresh", 8_000, 64_000), (0.2,), "plane"),
    ],
)
def test_names_come_from_the_values(retraining, densities, name):
    assert strategies.name(Cycle(dense=RESNET, densities=densities, retraining=retraining)) == name


def test_momentum_is_no_part_of_the_name():
    with_momentum = replace(strategies.weight_rewinding(RESNET, 8_000), momentum="with_weights")
    assert strategies.name(Cycle(dense=RESNET, densities=(0.2,), retraining=with_momentum)) == "weight-rewinding"


def test_a_numpy_step_has_the_same_name():
    retraining = strategies.weight_rewinding(RESNET, np.int64(8_000))
    assert strategies.name(Cycle(dense=RESNET, densities=(0.2,), retraining=retraining)) == "weight-rewinding"


# The first retraining step


def kept(final, densities):
    """Masks by another route: NumPy's ranking of the weights of final, the largest |w| over all layers."""
    names = list(final.masks)
    flat = np.concatenate([final.weights[name].numpy().ravel() for name in names])
    count = round(densities * flat.size)
    mask = np.zeros(flat.size, bool)
    mask[np.argsort(-np.abs(flat), kind="stable")[:count]] = True
    ends = np.cumsum([final.weights[name].numel() for name in names])[:-1]
    return {
        name: piece.reshape(final.weights[name].shape) for name, piece in zip(names, np.split(mask, ends), strict=True)
    }


def assert_starts_from(begun, weights, momentum, masks):
    """Weights and statistics of one State, momentum of the same or zeros, both times the masks."""
    assert begun.step == 0
    assert begun.masks.keys() == masks.keys()
    for name, mask in masks.items():
        np.testing.assert_array_equal(begun.masks[name].numpy(), mask)
    for name, tensor in weights.weights.items():
        factor = masks.get(name, 1)
        np.testing.assert_array_equal(begun.weights[name].numpy(), tensor.numpy() * factor)
        buffer = np.zeros(tensor.shape, np.float32) if momentum is None else momentum[name].numpy() * factor
        np.testing.assert_array_equal(begun.momentum[name].numpy(), buffer)
    for name, tensor in weights.statistics.items():
        assert torch.equal(begun.statistics[name], tensor)


PRUNABLE = [
    "first.weight",
    "blocks.0.first.weight",
    "blocks.0.second.weight",
    "blocks.1.first.weight",
    "blocks.1.second.weight",
    "blocks.1.shortcut.weight",
    "blocks.2.first.weight",
    "blocks.2.second.weight",
    "blocks.2.shortcut.weight",
    "classifier.weight",
]
"""Of a resnet8, in the model's order (that of a file is another)."""


def initialised(final, stream):
    """A State as initialised from a stream: He-uniform by hand, one draw after the other in the model's order."""
    number = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8])
    generator = torch.Generator().manual_seed(number)
    weights = {
        name: torch.zeros(like.shape) if name.endswith("bias") else torch.ones(like.shape)
        for name, like in final.weights.items()
    }
    for name in PRUNABLE:
        bound = math.sqrt(6 / final.weights[name][0].numel())
        weights[name] = torch.empty(weights[name].shape).uniform_(-bound, bound, generator=generator)
    statistics = {
        name: torch.ones_like(tensor) if name.endswith("running_var") else torch.zeros_like(tensor)
        for name, tensor in final.statistics.items()
    }
    return replace(final, weights=weights, statistics=statistics)


def run(cell, store, digits, numerics):
    for _ in cycle.run(cell, store, digits, numerics):
        pass
    return cycle.load(store, cell, cell.budget, digits)


@pytest.mark.parametrize("momentum", ["fresh", "with_weights"])
@pytest.mark.parametrize(
    ("strategy", "step", "rate"),
    [
        ("fine-tuning", 30, 0.001),
        ("weight-rewinding", 10, 0.1),
        ("lr-rewinding", 30, 0.1),
        ("low-lr-weight-rewinding", 10, 0.001),
        ("rewinding to the initialisation", 0, 0.1),
        ("released code", 10, 0.1),
    ],
)
def test_first_step_after_one_pruning(strategy, step, rate, momentum, store, tiny, digits, numerics):
    made = {
        "fine-tuning": strategies.fine_tuning(tiny),
        "weight-rewinding": strategies.weight_rewinding(tiny, 10),
        "lr-rewinding": strategies.lr_rewinding(tiny),
        "low-lr-weight-rewinding": strategies.low_lr_weight_rewinding(tiny, 10),
        "rewinding to the initialisation": strategies.weight_rewinding(tiny, 0),
        "released code": Retraining(weights_from=10, lr_from=0, budget=20),
    }[strategy]
    cell = Cycle(dense=tiny, densities=(0.3,), retraining=replace(made, momentum=momentum))
    begun, mixed = cycle.start(cell, store, digits, numerics)
    final, source = (cycle.load(store, tiny, at, digits) for at in (30, step))
    assert_starts_from(begun, source, source.momentum if momentum == "with_weights" else None, kept(final, 0.3))
    assert schedule(cell)(0) == rate
    assert not mixed


def test_momentum_of_the_dense_run_is_not_zero(store, tiny, digits):
    """Else the tests of momentum above would show nothing."""
    for step in (10, 30):
        found = cycle.load(store, tiny, step, digits)
        assert all(buffer.abs().sum() > 0 for buffer in found.momentum.values())


def test_restart_starts_at_its_peak(store, tiny, digits, numerics):
    cell = Cycle(dense=tiny, densities=(0.3,), retraining=strategies.restart(tiny, "cosine", 8, peak_lr=0.04))
    begun, _ = cycle.start(cell, store, digits, numerics)
    final = cycle.load(store, tiny, 30, digits)
    assert_starts_from(begun, final, None, kept(final, 0.3))
    assert schedule(cell)(0) == 0.04


def test_the_first_record_has_the_stated_rate(store, tiny, digits, numerics):
    cell = Cycle(dense=tiny, densities=(0.3,), retraining=strategies.weight_rewinding(tiny, 10))
    records = [progress.record for progress in cycle.run(cell, store, digits, numerics, eval_every=1)]
    assert [record.lr for record in records] == [0.1] * 5 + [0.01] * 9 + [0.001] * 6


def test_keeping_the_weights_in_a_second_cycle_keeps_the_parents(store, tiny, digits, numerics):
    retraining = replace(strategies.lr_rewinding(tiny), momentum="with_weights")
    second = Cycle(dense=tiny, densities=(0.5, 0.25), retraining=retraining)
    first_final = run(parent(second), store, digits, numerics)
    begun, _ = cycle.start(second, store, digits, numerics)
    assert_starts_from(begun, first_final, first_final.momentum, kept(first_final, 0.25))


def test_both_rewinds_of_a_chain_return_to_the_dense_run(store, tiny, digits, numerics):
    retraining = replace(strategies.weight_rewinding(tiny, 10), momentum="with_weights")
    second = Cycle(dense=tiny, densities=(0.5, 0.25), retraining=retraining)
    rewound = cycle.load(store, tiny, 10, digits)

    begun, _ = cycle.start(parent(second), store, digits, numerics)
    masks = kept(cycle.load(store, tiny, 30, digits), 0.5)
    assert_starts_from(begun, rewound, rewound.momentum, masks)

    first_final = run(parent(second), store, digits, numerics)
    begun, _ = cycle.start(second, store, digits, numerics)
    narrower = kept(first_final, 0.25)
    assert_starts_from(begun, rewound, rewound.momentum, narrower)
    assert all((masks[name] | ~narrower[name]).all() for name in masks)


def test_reinitialisation_is_another_one_in_every_cycle(store, tiny, digits, numerics):
    retraining = Retraining(weights_from="fresh", lr_from=0, budget=3, momentum="with_weights")
    second = Cycle(dense=tiny, densities=(0.5, 0.25), retraining=retraining)
    final = cycle.load(store, tiny, 30, digits)
    begun, _ = cycle.start(parent(second), store, digits, numerics)
    assert_starts_from(begun, initialised(final, "3/1/reinit"), None, kept(final, 0.5))

    first_final = run(parent(second), store, digits, numerics)
    begun, _ = cycle.start(second, store, digits, numerics)
    assert_starts_from(begun, initialised(final, "3/2/reinit"), None, kept(first_final, 0.25))


def test_a_dense_run_starts_from_its_own_stream(store, tiny, digits, numerics):
    final = cycle.load(store, tiny, 30, digits)
    begun, _ = cycle.start(tiny, store, digits, numerics)
    assert_starts_from(
        begun, initialised(final, "3/0/init"), None, {name: np.ones(m.shape, bool) for name, m in final.masks.items()}
    )
    assert begun.digest() == cycle.load(store, tiny, 0, digits).digest()


def test_density_one_prunes_nothing(store, tiny, digits, numerics):
    cell = Cycle(dense=tiny, densities=(1,), retraining=strategies.lr_rewinding(tiny, 5))
    begun, _ = cycle.start(cell, store, digits, numerics)
    assert all(mask.all() for mask in begun.masks.values())
    assert begun.digest() == replace(state.zero_momentum(cycle.load(store, tiny, 30, digits)), step=0).digest()


def test_ties_of_a_parents_weights_keep_the_first_in_the_models_order(store, tiny, digits, numerics):
    """Not in the order in which a file happens to hold them."""
    final = cycle.load(store, tiny, 30, digits)
    tied = {name: torch.full_like(tensor, 0.5) for name, tensor in final.weights.items()}
    store.state_path(tiny, 30).write_bytes(state.to_bytes(replace(final, weights=tied)))
    begun, _ = cycle.start(
        Cycle(dense=tiny, densities=(0.5,), retraining=strategies.fine_tuning(tiny)), store, digits, numerics
    )
    kept_flags = np.concatenate([begun.masks[name].numpy().ravel() for name in PRUNABLE])
    assert kept_flags[:2_482].all()
    assert not kept_flags[2_482:].any()
