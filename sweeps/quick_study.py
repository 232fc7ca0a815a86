"""The whole path on data that ships with a dependency, in minutes on two cores.

Three strategies on scikit-learn's digits, one-shot and iterative, five seeds: fewer cannot decide anything, since
an exact sign-flip test of five units reaches 1/32. Beside them the control that most comparisons lack: the dense
network with the extra budget.
"""

import sys
from collections.abc import Callable, Iterator, Sequence

from sweeps import study
from trainable import recipes, strategies
from trainable.arguments import Parser, not_negative
from trainable.columns import Schedule
from trainable.config import Cell, Cycle, DenseRun, Retraining, chain, density

STRATEGIES: dict[str, Callable[[DenseRun], Retraining]] = {
    "fine-tuning": strategies.fine_tuning,
    "weight-rewinding": lambda dense: strategies.weight_rewinding(dense, recipes.REWIND_POINT_DIGITS),
    "lr-rewinding": strategies.lr_rewinding,
}
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98)
CHAIN = chain(0.5, 4, decimals=6)


def cells(
    seeds: Sequence[int] = range(5),
    chosen: Sequence[str] = tuple(STRATEGIES),
    sparsities: Sequence[float] = SPARSITIES,
) -> Iterator[tuple[Schedule, Cell]]:
    """The study's rows."""
    for seed in seeds:
        dense = recipes.digits(seed)
        yield "dense", dense
        yield "one-shot", Cycle(dense=dense, densities=(1.0,), retraining=strategies.lr_rewinding(dense))
        for retraining in (STRATEGIES[name](dense) for name in chosen):
            for sparsity in sparsities:
                yield "one-shot", Cycle(dense=dense, densities=(density(sparsity),), retraining=retraining)
            for cycles in range(1, len(CHAIN) + 1):
                yield "iterative", Cycle(dense=dense, densities=CHAIN[:cycles], retraining=retraining)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser(prog="python -m sweeps.quick_study", description=__doc__)
    parser.add_argument(
        "--seeds", type=not_negative, nargs="+", default=range(5), metavar="SEED", help="(default: 0 1 2 3 4)"
    )
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES, help="(default: all)")
    parser.add_argument("--sparsities", type=float, nargs="+", default=SPARSITIES, help="one-shot (default: all five)")
    study.add_options(parser, name="quick")
    return study.command(
        parser.parse_args(argv),
        lambda options: study.Study(
            name=options.name,
            protocol_name="digits",
            rows=tuple(cells(options.seeds, options.strategies, options.sparsities)),
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
