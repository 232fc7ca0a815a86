"""What a row says of a cell before it is trained."""

from dataclasses import fields, replace

import pytest

from trainable import recipes, strategies
from trainable.columns import columns, protocol, prune_fraction, run_name, schedule_of, shape
from trainable.config import Cycle, DenseRun, chain, key

DENSE = recipes.digits(2)
CYCLE = Cycle(dense=DENSE, densities=(0.5, 0.25), retraining=strategies.weight_rewinding(DENSE, 44))


def test_a_dense_run():
    assert columns(DENSE, "dense") == {
        "unit": key(DENSE),
        "key": key(DENSE),
        "parent": None,
        "dataset": "digits",
        "architecture": "resnet8-8",
        "schedule": "dense",
        "iteration": 0,
        "protocol": protocol(DENSE),
        "dense_schedule": "step",
        "batch_size": 64,
        "val_examples": 0,
        "precision": "fp32",
        "seed": 2,
        "dense_steps": 400,
        "total_steps": 400,
        "sparsity_target": 0.0,
        "strategy": "dense",
    }


def test_a_cycle():
    added = {name: value for name, value in columns(CYCLE, "iterative").items() if name not in columns(DENSE, "dense")}
    assert added == {
        "structure": "unstructured",
        "prune_fraction": 0.5,
        "mask": "magnitude",
        "weights_from": "44",
        "lr_from": 44,
        "budget": 356,
        "shape": "replay",
        "momentum": "fresh",
    }
    row = columns(CYCLE, "iterative")
    assert row["parent"] == key(replace(CYCLE, densities=(0.5,)))
    assert (row["iteration"], row["sparsity_target"], row["strategy"]) == (2, 0.75, "weight-rewinding")
    assert row["total_steps"] == 400 + 356 + 356


def test_a_first_cycle_under_both_schedules():
    first = replace(CYCLE, densities=(0.5,))
    one_shot, iterative = columns(first, "one-shot"), columns(first, "iterative")
    assert (one_shot["prune_fraction"], iterative["prune_fraction"]) == (None, 0.5)
    assert one_shot | {"schedule": "iterative", "prune_fraction": 0.5} == iterative
    assert one_shot["parent"] == key(DENSE)


def test_every_column_is_one_of_the_table():
    from analysis.load import SCHEMA

    assert set(columns(CYCLE, "iterative")) <= set(SCHEMA)


def test_a_fresh_start_and_no_start():
    retraining = {"reinit": strategies.reinit(DENSE), "fine-tuning": strategies.fine_tuning(DENSE)}
    made = {
        name: columns(Cycle(dense=DENSE, densities=(0.5,), retraining=value), "one-shot")["weights_from"]
        for name, value in retraining.items()
    }
    assert made == {"reinit": "fresh", "fine-tuning": None}


def test_a_shape_with_its_peak():
    """Two linear restarts with other peaks are two ways of retraining."""
    rise = strategies.restart(DENSE, "linear", peak_lr=0.1)
    found = columns(Cycle(dense=DENSE, densities=(0.5,), retraining=rise), "one-shot")["shape"]
    assert found == f"linear(peak 0.1, warm-up {rise.warmup})"
    assert shape(replace(rise, warmup=40)) == "linear(peak 0.1, warm-up 40)"
    assert shape(replace(rise, peak_lr=0.025, warmup=40)) == "linear(peak 0.025, warm-up 40)"


CHANGED = {
    "dataset": "cifar10",
    "architecture": "resnet20",
    "steps": 399,
    "batch_size": 32,
    "learning_rate": 0.2,
    "drops": (200,),
    "drop_factor": 0.2,
    "momentum": 0.8,
    "nesterov": False,
    "weight_decay": 1e-4,
    "batch_norm_momentum": 0.2,
    "batch_norm_eps": 1e-3,
    "val_examples": 10,
    "precision": "bf16",
    "schedule": "linear",
    "warmup": 5,
    "init": "truncated-normal",
    "shortcut_norm": True,
    "padding": "reflect",
    "standardisation": "image",
    "val_from": "test",
}
NEEDED = {
    "schedule": {"drops": (), "drop_factor": 1},
    "warmup": {"drops": (), "drop_factor": 1, "schedule": "cosine"},
    "val_from": {"val_examples": 100},
}
"""What a field's other value needs, by rule."""


def test_a_protocol_is_everything_but_the_seed():
    assert set(CHANGED) == {field.name for field in fields(DenseRun)} - {"seed"}
    found = {protocol(replace(DENSE, **NEEDED.get(name, {}), **{name: value})) for name, value in CHANGED.items()}
    assert len(found) == len(CHANGED)
    assert protocol(DENSE) not in found
    assert protocol(replace(DENSE, seed=9)) == protocol(DENSE)
    assert len(protocol(DENSE)) == 12


@pytest.mark.parametrize(
    ("densities", "fraction"),
    [((0.2,), 0.8), (chain(0.2, 14), 0.2), (chain(0.3, 13), 0.3), (chain(0.5, 4, decimals=6), 0.5), ((0.5, 0.4), None)],
)
def test_prune_fraction(densities, fraction):
    assert prune_fraction(densities) == fraction


def test_names():
    assert run_name(DENSE, "dense") == f"digits/resnet8-8/dense/seed2-{key(DENSE)[:6]}"
    rest = f"weight-rewinding/s0.75/seed2-{key(CYCLE)[:6]}"
    assert run_name(CYCLE, "iterative") == f"digits/resnet8-8/iterative/{rest}"
    whole = replace(CYCLE, structure="structured", densities=(0.107,))
    name = f"digits/resnet8-8/one-shot/structured/weight-rewinding/s0.893/seed2-{key(whole)[:6]}"
    assert run_name(whole, "one-shot") == name


def test_names_and_columns_of_other_masks():
    masked = replace(CYCLE, densities=(0.5,), mask="random", structure="structured")
    name = f"digits/resnet8-8/one-shot/structured/random-mask/weight-rewinding/s0.5/seed2-{key(masked)[:6]}"
    assert run_name(masked, "one-shot") == name
    assert columns(masked, "one-shot")["mask"] == "random"
    assert columns(recipes.with_schedule(DENSE, "cosine"), "dense")["dense_schedule"] == "cosine"


def test_total_steps_count_the_dense_run_as_far_as_it_is_read():
    gradual = Cycle(dense=DENSE, densities=(0.2,), retraining=strategies.gradual_pruning(DENSE, 100))
    assert columns(gradual, "one-shot")["total_steps"] == 500
    assert columns(replace(CYCLE, parent_step=360), "iterative")["total_steps"] == 360 + 356 + 356


def test_shapes_without_a_peak_and_with_pruning_in_between():
    assert shape(strategies.scaled_restart(DENSE)) == "scaled(warm-up 40)"
    assert shape(strategies.gradual_pruning(DENSE)) == "scaled(warm-up 0, pruned from 40 to 200 every 1)"


def test_schedules():
    cells = [DENSE, replace(CYCLE, densities=(0.5,)), CYCLE, replace(CYCLE, densities=(0.5, 0.25, 0.1))]
    assert [schedule_of(cell) for cell in cells] == ["dense", "one-shot", "iterative", "iterative"]
