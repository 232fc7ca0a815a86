"""Does learning-rate rewinding hold for dense schedules other than step drops?

Step, cosine, linear and one-cycle, each from the same highest rate; fine-tuning, weight rewinding and learning-rate
rewinding, all at weight rewinding's budget T − k. The smooth schedules end near a rate of 0, where fine-tuning can
hardly move, so that it is also run at the last rate that the step schedule has (its shape is "constant").
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import get_args

from sweeps import study
from trainable import recipes, schedules, strategies
from trainable.arguments import Parser, not_negative
from trainable.columns import Schedule
from trainable.config import Cell, Cycle, DenseRun, Retraining, density

STRATEGIES: dict[str, Callable[[DenseRun, int], Retraining]] = {
    "fine-tuning": lambda dense, step: strategies.fine_tuning(dense, dense.steps - step),
    "weight-rewinding": strategies.weight_rewinding,
    "lr-rewinding": lambda dense, step: strategies.lr_rewinding(dense, dense.steps - step),
}
"""Ways of retraining, given the dense run and the rewind point."""
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98)


def cells(
    whole: Sequence[DenseRun],
    step: int,
    chosen: Sequence[recipes.DenseSchedule] = get_args(recipes.DenseSchedule),
    sparsities: Sequence[float] = SPARSITIES,
) -> Iterator[tuple[Schedule, Cell]]:
    """The study's rows. whole: a dense run with step drops a seed; step: the rewind point."""
    for run in whole:
        last_rate = schedules.dense_schedule(run)(run.steps)
        for name in chosen:
            dense = recipes.with_schedule(run, name)
            yield "dense", dense
            retrainings = [make(dense, step) for make in STRATEGIES.values()]
            if name != "step":
                retrainings.append(strategies.restart(dense, "constant", run.steps - step, peak_lr=last_rate))
            for retraining in retrainings:
                for sparsity in sparsities:
                    yield "one-shot", Cycle(dense=dense, densities=(density(sparsity),), retraining=retraining)


def declare(options: argparse.Namespace) -> study.Study:
    """The study that the options ask for."""
    if options.cifar10 is None:
        whole, step = [recipes.digits(seed) for seed in options.seeds], recipes.REWIND_POINT_DIGITS
    else:
        whole, step = [recipes.cifar(options.cifar10, seed) for seed in options.seeds], recipes.REWIND_POINT_CIFAR
    protocol = "digits" if options.cifar10 is None else "mikler2021"
    return study.Study(
        name=options.name,
        protocol_name=protocol if options.scale == 1 else f"{protocol}-x{options.scale}",
        rows=tuple(
            cells(
                [recipes.scaled(run, options.scale) for run in whole],
                recipes.scaled_step(step, options.scale),
                options.schedules,
                options.sparsities,
            )
        ),
    )


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser(prog="python sweeps/schedule_study.py", description=__doc__)
    every = get_args(recipes.DenseSchedule)
    parser.add_argument("--cifar10", metavar="ARCHITECTURE", help="resnet20 … on CIFAR-10, in place of the digits")
    parser.add_argument("--scale", type=float, default=1.0, help="every step count times this, in (0, 1] (default: 1)")
    parser.add_argument(
        "--seeds", type=not_negative, nargs="+", default=range(5), metavar="SEED", help="(default: 0 1 2 3 4)"
    )
    parser.add_argument("--schedules", nargs="+", default=every, choices=every, help="(default: all)")
    parser.add_argument("--sparsities", type=float, nargs="+", default=SPARSITIES, help="(default: all five)")
    study.add_options(parser, name="schedules")
    return study.command(parser.parse_args(argv), declare)


if __name__ == "__main__":
    sys.exit(main())
