"""A study of about twenty tiny cells, for tests that disturb it: python tests/tiny_study.py --storage DIR."""

import argparse
import dataclasses
import sys
from collections.abc import Iterator

from sweeps import study
from trainable import recipes, strategies
from trainable.columns import Schedule
from trainable.config import Cell, Cycle, DenseRun


def dense_run(seed: int, steps: int = 40) -> DenseRun:
    """The digits recipe, as short as can be."""
    return dataclasses.replace(recipes.digits(seed), steps=steps, drops=(steps // 2,), batch_size=16)


def cells(seeds: int, steps: int, *, diverge: bool) -> Iterator[tuple[Schedule, Cell]]:
    """Per seed: a dense run, a chain of two cycles in two strategies, three one-shot cells. diverge: one seed more."""
    for seed in range(seeds):
        dense = dense_run(seed, steps)
        yield "dense", dense
        for retraining in (strategies.weight_rewinding(dense, steps // 4), strategies.lr_rewinding(dense)):
            for densities in ((0.5,), (0.5, 0.25)):
                yield "iterative", Cycle(dense=dense, densities=densities, retraining=retraining)
            yield "one-shot", Cycle(dense=dense, densities=(0.1,), retraining=retraining)
    if diverge:
        dense = dense_run(seeds, steps)
        yield "dense", dense
        peak = strategies.restart(dense, "linear", peak_lr=1e30)
        for densities in ((0.5,), (0.5, 0.25)):
            yield "iterative", Cycle(dense=dense, densities=densities, retraining=peak)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--diverge", action="store_true")
    study.add_options(parser, name="tiny")
    options = parser.parse_args()
    return study.command(
        options,
        lambda options: study.Study(
            name=options.name,
            protocol_name="tiny",
            rows=tuple(cells(options.seeds, options.steps, diverge=options.diverge)),
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
