"""Pruning while training: interrupted or not the same bytes, and what goes with it."""

import hashlib
import shutil
from dataclasses import replace

import pytest
import torch

from trainable import cycle, pruning, strategies
from trainable.config import Cycle, key
from trainable.schedules import prunings
from trainable.store import Store


@pytest.fixture
def cell(tiny):
    """50 steps: pruned from step 5 to 25, each."""
    return Cycle(dense=tiny, densities=(0.2,), retraining=strategies.gradual_pruning(tiny, 20))


def outcome(cell, store):
    final = store.state_path(cell, cell.budget).read_bytes()
    return hashlib.sha256(final).hexdigest(), store.result(cell)["numbers"]


def run(cell, store, digits, numerics, **options):
    for _ in cycle.run(cell, store, digits, numerics, eval_every=5, **options):
        pass
    return outcome(cell, store)


def test_steps_and_densities(tiny):
    made = replace(strategies.gradual_pruning(tiny), gradual=(2, 12, 4))
    cell = Cycle(dense=tiny, densities=(0.2,), retraining=made)
    # 1 − 0.8·(1 − 0.6³) and 1 − 0.8·(1 − 0.2³)
    assert prunings(cell) == {6: 0.3728, 10: 0.2064, 12: 0.2}
    assert prunings(replace(cell, retraining=strategies.fine_tuning(tiny))) == prunings(tiny) == {}


@pytest.mark.parametrize("changes", [{}, {"mask": "random"}, {"mask": "erk"}, {"structure": "structured"}])
def test_cut_off_anywhere_and_gone_on(store, tmp_path, cell, digits, numerics, changes):
    cell = replace(cell, **changes)
    cuts = (4, 5, 6, 13, 24, 25, 26, 49)  # on a pruning, between two, before the first, after the last
    for progress in cycle.run(cell, store, digits, numerics, eval_every=5, resume_every=0):
        if progress.step in cuts:
            shutil.copytree(store.root, tmp_path / f"cut-{progress.step}")
    whole = outcome(cell, store)
    for cut in cuts:
        left = Store(tmp_path / f"cut-{cut}")
        assert run(cell, left, digits, numerics) == whole
        assert left.result(cell)["provenance"]["resumed_at"] == [cut]


@pytest.mark.parametrize("structure", ["unstructured", "structured"])
def test_a_random_mask_is_the_one_of_pruning_at_once(store, tiny, digits, numerics, structure):
    """Pruned bit by bit, no layer is preferred for the size of its channels."""
    retraining = replace(strategies.fine_tuning(tiny, 30), gradual=(0, 29, 1))
    cell = Cycle(dense=tiny, densities=(0.5,), retraining=retraining, structure=structure, mask="random")
    at_once = replace(cell, retraining=strategies.fine_tuning(tiny, 30))
    run(cell, store, digits, numerics)
    found, expected = cycle.load(store, cell, 30, digits), cycle.start(at_once, store, digits, numerics)[0]
    assert all(torch.equal(found.masks[name], mask) for name, mask in expected.masks.items())


def test_records_have_the_density_reached(store, cell, digits, numerics):
    _, numbers = run(cell, store, digits, numerics)
    densities = [record["density"] for record in numbers["history"]]
    assert densities[0] == 1  # at step 5, whose pruning is still to come
    assert densities == sorted(densities, reverse=True)
    assert densities[-1] == numbers["density"] == 993 / 4_964


@pytest.mark.parametrize("step", [0, 5, 12, 40])
def test_a_replay_brings_the_same_bytes(store, tmp_path, cell, digits, numerics, step):
    kept = Store(tmp_path / "kept")
    shutil.copytree(store.root, kept.root)
    run(cell, kept, digits, numerics, keep=frozenset({step}))
    run(cell, store, digits, numerics)
    for _ in cycle.replay(cell, step, store, digits, numerics):
        pass
    assert store.state_path(cell, step).read_bytes() == kept.state_path(cell, step).read_bytes()


def test_pruned_weights_stay_zero(store, cell, digits, numerics):
    run(cell, store, digits, numerics)
    final = cycle.load(store, cell, 50, digits)
    assert pruning.count_kept(final.masks) == 993
    for name, mask in final.masks.items():
        for tensor in (final.weights[name], final.momentum[name]):
            assert (tensor[~mask] == 0).all()


def test_the_dense_runs_last_state_is_not_needed(store, cell, tiny, digits, numerics):
    store.state_path(tiny, 30).unlink()
    assert cycle.missing_states(cell, store) == []
    run(cell, store, digits, numerics)


def test_from_a_trained_network(store, tiny, digits, numerics):
    """Gradual fine-tuning: the same field with the weights kept."""
    retraining = replace(strategies.fine_tuning(tiny, 20), gradual=(0, 10, 2))
    cell = Cycle(dense=tiny, densities=(0.2,), retraining=retraining)
    begun, _ = cycle.start(cell, store, digits, numerics)
    final = cycle.load(store, tiny, 30, digits)
    assert all(torch.equal(begun.weights[name], tensor) for name, tensor in final.weights.items())
    _, numbers = run(cell, store, digits, numerics)
    assert numbers["kept"] == 993


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_the_shortest_runs(tiny, steps):
    """The defaults obey their own rule, or the rule says why not."""
    dense = replace(tiny, steps=steps, drops=())
    if steps == 1:
        with pytest.raises(ValueError, match="gradual must be"):
            strategies.gradual_pruning(dense)
    else:
        assert prunings(Cycle(dense=dense, densities=(0.2,), retraining=strategies.gradual_pruning(dense)))


def test_an_adaptive_rate_is_resumed(store, tmp_path, tiny, digits, numerics):
    """Its peak is measured when the run starts, and goes with its States."""
    cell = Cycle(dense=tiny, densities=(0.2,), retraining=strategies.adaptive_linear_restart(tiny, 12))
    for progress in cycle.run(cell, store, digits, numerics, eval_every=5, resume_every=0, keep=frozenset({4})):
        if progress.step == 7:
            shutil.copytree(store.root, tmp_path / "cut")
    whole = outcome(cell, store)
    left = Store(tmp_path / "cut")
    left.state_path(tiny, 30).unlink()  # what it was measured on may be gone
    assert run(cell, left, digits, numerics) == whole
    for _ in cycle.replay(cell, 9, store, digits, numerics):  # from the State at step 4
        pass
    assert store.kept_steps(cell) == [4, 9, 12]
    assert key(cell) != key(replace(cell, densities=(0.3,)))


def test_an_earlier_step_is_pruned(store, tiny, digits, numerics):
    """A parent_step: weights kept are those of that step, in the first cycle; then the parent's last."""
    retraining = replace(strategies.fine_tuning(tiny, 3), momentum="with_weights")
    cell = Cycle(dense=tiny, densities=(0.5, 0.2), retraining=retraining, parent_step=10)
    first = replace(cell, densities=(0.5,))
    begun, _ = cycle.start(first, store, digits, numerics)
    at_10 = cycle.load(store, tiny, 10, digits)
    masks = pruning.unstructured(at_10.prunable, at_10.masks, 0.5)
    for name, mask in masks.items():
        assert torch.equal(begun.masks[name], mask)
        assert torch.equal(begun.weights[name], at_10.weights[name] * mask)
        assert torch.equal(begun.momentum[name], at_10.momentum[name] * mask)
    run(first, store, digits, numerics)
    begun, _ = cycle.start(cell, store, digits, numerics)
    final = cycle.load(store, first, 3, digits)
    for name, mask in begun.masks.items():
        assert torch.equal(begun.weights[name], final.weights[name] * mask)
