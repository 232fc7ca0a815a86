"""Every strategy and control on the digits, as short as can be: python tests/every_strategy_study.py --storage DIR."""

import argparse
import dataclasses
import sys
from collections.abc import Iterator

from sweeps import study
from trainable import recipes, strategies
from trainable.columns import Schedule
from trainable.config import Cell, Cycle, DenseRun, Retraining

STEPS, POINT, BUDGET = 40, 10, 12
MASKS = ("random", "random-in-layers", "magnitude-in-layers", "erk")


def dense_run(seed: int = 0) -> DenseRun:
    """The digits recipe, as short as can be."""
    return dataclasses.replace(recipes.digits(seed), steps=STEPS, drops=(20, 30), batch_size=16)


def retrainings(dense: DenseRun) -> dict[str, Retraining]:
    """By the name that the table must have for it; -2 and the like are not in the table."""
    return {
        "fine-tuning": strategies.fine_tuning(dense, BUDGET),
        "weight-rewinding": strategies.weight_rewinding(dense, POINT),
        "weight-rewinding 2": strategies.weight_rewinding(dense, 0),
        "lr-rewinding": strategies.lr_rewinding(dense, BUDGET),
        "low-lr-weight-rewinding": strategies.low_lr_weight_rewinding(dense, POINT),
        "reinit": strategies.reinit(dense, BUDGET),
        "reinit 2": strategies.reinit(dense),  # Scratch-E
        "scratch-b": strategies.scratch_b(dense, 1.25),
        "scaled-restart": strategies.scaled_restart(dense, BUDGET),
        "one-cycle-restart": strategies.cyclic_restart(dense, BUDGET),
        "linear-restart": strategies.linear_restart(dense, BUDGET),
        "adaptive-linear-restart": strategies.adaptive_linear_restart(dense, BUDGET),
        "cosine-restart": strategies.restart(dense, "cosine", BUDGET),
        "gradual-pruning": strategies.gradual_pruning(dense, BUDGET),
        "plane": Retraining(weights_from=POINT, lr_from=25, budget=BUDGET),
    }


def cells() -> Iterator[tuple[Schedule, Cell]]:
    """The rows. Cells with another mask have a budget of their own, so that no line of a figure has two of them."""
    dense = dense_run()
    yield "dense", dense
    yield "one-shot", Cycle(dense=dense, densities=(1.0,), retraining=strategies.lr_rewinding(dense, BUDGET))
    for retraining in retrainings(dense).values():
        yield "one-shot", Cycle(dense=dense, densities=(0.2,), retraining=retraining)
    for budget, mask in enumerate(MASKS, start=1):
        retraining = strategies.lr_rewinding(dense, budget)
        cell = Cycle(dense=dense, densities=(0.2,), retraining=retraining, mask=mask)
        yield "one-shot", cell
        if mask != "erk":
            yield "one-shot", dataclasses.replace(cell, structure="structured")


def main() -> int:
    parser = argparse.ArgumentParser()
    study.add_options(parser, name="every-strategy")
    return study.command(
        parser.parse_args(), lambda options: study.Study(name=options.name, protocol_name="tiny", rows=tuple(cells()))
    )


if __name__ == "__main__":
    sys.exit(main())
