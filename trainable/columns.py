"""What a table says of a cell before it is trained, and the name it goes by in TensorBoard and on the terminal."""

import dataclasses
import hashlib
import json
from typing import Any, Literal

from trainable import strategies
from trainable.config import Cell, Cycle, DenseRun, Retraining, dense_run, describe, key, lineage, parent, states_read

Schedule = Literal["dense", "one-shot", "iterative"]
"""How pruning was scheduled; a chain's first cycle can stand as one-shot too."""


def columns(cell: Cell, schedule: Schedule) -> dict[str, Any]:
    """The descriptive columns of a cell's row, as plain JSON values."""
    dense, above = dense_run(cell), parent(cell)
    row = {
        "unit": key(dense),
        "key": key(cell),
        "parent": None if above is None else key(above),
        "dataset": dense.dataset,
        "architecture": dense.architecture,
        "schedule": schedule,
        "iteration": cell.iteration,
        "protocol": protocol(dense),
        "dense_schedule": dense.schedule,
        "batch_size": dense.batch_size,
        "val_examples": dense.val_examples,
        "precision": dense.precision,
        "seed": dense.seed,
        "dense_steps": dense.steps,
        "total_steps": dense.steps,
        "sparsity_target": 0.0,
        "strategy": "dense",
    }
    if isinstance(cell, DenseRun):
        return row
    retraining = cell.retraining
    return row | {
        "structure": cell.structure,
        "prune_fraction": prune_fraction(cell.densities) if schedule == "iterative" else None,
        "mask": cell.mask,
        "strategy": strategies.name(cell),
        "weights_from": None if retraining.weights_from is None else str(retraining.weights_from),
        "lr_from": retraining.lr_from,
        "budget": retraining.budget,
        "shape": shape(retraining),
        "momentum": retraining.momentum,
        "sparsity_target": round(1 - cell.density, 6),
        "total_steps": _steps_of_dense(cell) + cell.iteration * retraining.budget,
    }


def shape(retraining: Retraining) -> str:
    """The shape of the learning rate, with its peak where it has one: replay, or linear(peak 0.1, warm-up 40).

    Of gradual pruning also when it prunes: scaled(warm-up 0, pruned from 80 to 400 every 3).
    """
    if retraining.shape == "replay" and not retraining.gradual:
        return "replay"
    details = [] if retraining.peak_lr is None else [f"peak {retraining.peak_lr:g}"]
    details += [] if retraining.shape == "replay" else [f"warm-up {retraining.warmup}"]
    if retraining.gradual:
        details.append("pruned from {} to {} every {}".format(*retraining.gradual))
    return f"{retraining.shape}({', '.join(details)})"


def _steps_of_dense(cell: Cycle) -> int:
    """Steps of the dense run that a cycle stands on: up to the last State of it that the chain reads."""
    read = [state for member in lineage(cell) for state in states_read(member)]
    return max(step for run, step in read if run == cell.dense)


def protocol(dense: DenseRun) -> str:
    """12 hex digits of the SHA-256 of how networks are trained: every field of the dense run but its seed."""
    fields = describe(dataclasses.replace(dense, seed=0))
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]


def prune_fraction(densities: tuple[float, ...]) -> float | None:
    """The fraction of what is left that each cycle of a chain removes; None when no one fraction describes it.

    >>> prune_fraction((0.8, 0.64, 0.512, 0.41)), prune_fraction((0.5, 0.1))
    (0.2, None)
    """
    first = densities[0]
    fits = all(abs(first**n - density) < 0.000501 for n, density in enumerate(densities, start=1))
    return round(1 - first, 6) if fits else None


def run_name(cell: Cell, schedule: Schedule) -> str:
    """cifar10/resnet20/one-shot/weight-rewinding/s0.893/seed2-<6 of key>."""
    dense = dense_run(cell)
    name = [dense.dataset, dense.architecture, schedule]
    if not isinstance(cell, DenseRun):
        structured = ["structured"] if cell.structure == "structured" else []
        masked = [f"{cell.mask}-mask"] if cell.mask != "magnitude" else []
        name += [*structured, *masked, strategies.name(cell), f"s{round(1 - cell.density, 6):g}"]
    return "/".join([*name, f"seed{dense.seed}-{key(cell)[:6]}"])


def schedule_of(cell: Cell) -> Schedule:
    """The schedule that a cell shows by itself: a chain of one cycle is one-shot."""
    schedules: tuple[Schedule, Schedule, Schedule] = ("dense", "one-shot", "iterative")
    return schedules[min(cell.iteration, 2)]
