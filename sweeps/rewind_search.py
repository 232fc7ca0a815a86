"""Which retraining is best for one network and density: Optuna over the rewind plane, judged on fresh seeds.

The papers compare three points of a plane: where the weights come from × where the learning-rate clock restarts. Here
every point has one budget, so that place is not confounded with length, and is valued by mean validation accuracy.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from analysis import plots
from analysis import search as found
from sweeps import full_study, rounds, study
from sweeps.search import SAMPLERS, Group, Search, Space, group
from sweeps.source import GroupSearch, Searches
from trainable import recipes
from trainable.arguments import Parser, not_negative, positive
from trainable.config import DenseRun
from trainable.store import Store, as_folder

VAL_EXAMPLES = {"digits": 200, "cifar10": 5_000, "cifar100": 5_000}
"""Training images held out unless told."""
MOST_POINTS = 60
"""Rewind points that a grid may have unless it is given: a dense run keeps a State at each."""
FRESH_SEEDS = 5
"""Seeds that judge the best point, unless told: those after the search's own."""


def searches(options: argparse.Namespace) -> list[Search]:
    """The searches that the options ask for. Raises ValueError for those that can't be."""
    groups = list(dict.fromkeys(map(group, options.groups)))
    return [_search(group, options) for group in groups]


def declare(options: argparse.Namespace) -> study.Study:
    """The study: what is compared with the best points, and the searches as its source. Raises ValueError."""
    found_searches = searches(options)
    if options.trials % options.round_size:
        lower = max(1, options.trials // options.round_size) * options.round_size
        choices = f"choose {lower} or {lower + options.round_size}"
        raise ValueError(f"--trials must be whole rounds of {options.round_size}, got {options.trials}: {choices}")
    if options.journal is not None and options.journal.is_dir():
        raise ValueError(f"--journal must be a file, got the folder {options.journal}")
    if len(set(options.seeds)) == 1:
        print("warning: one seed: the best point may be best by that seed's luck alone", file=sys.stderr)
    store = Store(options.storage)
    folder = store.study(options.name)
    fresh = _after(options.seeds) if options.fresh_seeds is None else tuple(dict.fromkeys(options.fresh_seeds))
    groups = [
        GroupSearch(search, store, rounds.folder_of(search, folder), options.trials, fresh, warm=options.warm_start)
        for search in found_searches
    ]
    for one in groups:
        print(one.outlook(), file=sys.stderr)
    protocols = {search.group.dataset: _protocol_name(search, options.scale) for search in found_searches}
    return study.Study(
        name=options.name,
        protocol_name=" and ".join(dict.fromkeys(protocols.values())),
        rows=tuple(row for group in groups for row in group.compared()),
        source=Searches(groups, lambda frame: show(store, options.name, frame, options.journal)),
    )


def show(store: Store, name: str, frame: pd.DataFrame, journal: Path | None = None) -> None:
    """Print what the searches of a study have found, and write figures, and Optuna's journal where one is asked for."""
    folder = store.study(name)
    searched = store.patiently(lambda: found.load(str(store.root), name))
    begun = [one for one in searched if one.trials["value"].notna().any()]
    for one in begun:
        print(f"{found.as_text(found.outcome(one, frame))}\n")
    for title, figure in _drawn(begun) if begun else ():
        with as_folder(folder / "search") as out:
            plots.save(figure, out / title)
        print(f"figure: {folder / 'search' / title}.png, .svg and .pdf", file=sys.stderr)
    if journal is not None:
        found.export_journal(searched, journal)
        print(f"journal: optuna-dashboard {journal}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return study.command(parser().parse_args(argv), declare)


def parser() -> Parser:
    """What the command line understands."""
    parser = Parser(prog="python sweeps/rewind_search.py", description=__doc__)
    searched = parser.add_argument_group("what is searched")
    searched.add_argument(
        "--groups",
        nargs="+",
        default=["digits/resnet8-8/unstructured/0.95"],
        metavar="GROUP",
        help="DATASET/ARCHITECTURE/STRUCTURE/SPARSITY (default: digits/resnet8-8/unstructured/0.95)",
    )
    searched.add_argument(
        "--space",
        choices=("line", "plane", "schedule"),
        default="plane",
        help="line: weight rewinding to k, or the clock alone back to k; plane: weights from one k, clock from "
        "another; schedule: restarts by shape, peak, warm-up and budget (default: plane)",
    )
    searched.add_argument("--grid", type=positive, metavar="STEPS", help="between rewind points (default: T/10)")
    searched.add_argument(
        "--between", type=not_negative, nargs=2, metavar=("LOW", "HIGH"), help="rewind points, steps (default: 0 T)"
    )
    searched.add_argument(
        "--budget", type=positive, metavar="STEPS", help="t of every point; of schedule the longest (default: T)"
    )
    searched.add_argument(
        "--scale", type=float, default=1.0, help="every step count times this, in (0, 1] (default: 1)"
    )
    how = parser.add_argument_group("how it is searched")
    how.add_argument("--trials", type=positive, default=30, metavar="N", help="of each group (default: 30)")
    how.add_argument("--round-size", type=positive, default=6, metavar="N", help="trials proposed at once (default: 6)")
    how.add_argument(
        "--seeds",
        type=not_negative,
        nargs="+",
        default=[0, 1, 2],
        metavar="SEED",
        help="of every trial (default: 0 1 2)",
    )
    how.add_argument(
        "--fresh-seeds",
        type=not_negative,
        nargs="+",
        metavar="SEED",
        help=f"that judge the best point (default: the {FRESH_SEEDS} after the search's)",
    )
    how.add_argument(
        "--val-examples",
        type=not_negative,
        metavar="N",
        help="training images held out to value points by (default: 200 of digits, 5,000 of CIFAR)",
    )
    how.add_argument("--sampler", choices=SAMPLERS, default="tpe", help="Optuna's (default: tpe)")
    how.add_argument("--sampler-seed", type=not_negative, default=0, metavar="N", help="(default: 0)")
    how.add_argument(
        "--no-warm-start",
        dest="warm_start",
        action="store_false",
        help="do not begin with points that are done already",
    )
    how.add_argument("--journal", type=Path, metavar="FILE", help="export the trials for optuna-dashboard")
    study.add_options(parser, name="search")
    return parser


def _search(group: Group, options: argparse.Namespace) -> Search:
    dense = _recipe(group, options)
    grid = _tenth(dense.steps) if options.grid is None else options.grid
    space = Space(
        kind=options.space,
        steps=dense.steps,
        learning_rate=dense.learning_rate,
        grid=grid,
        between=(0, dense.steps) if options.between is None else tuple(options.between),
        budget=dense.steps if options.budget is None else options.budget,
    )
    published = recipes.REWIND_POINT_DIGITS if group.dataset == "digits" else recipes.REWIND_POINT_CIFAR
    nearest = grid * round(recipes.scaled_step(published, options.scale) / grid)
    return Search(
        group=group,
        dense=dense,
        space=space,
        seeds=tuple(sorted(set(options.seeds))),
        rewind_point=min(max(nearest, grid), dense.steps - grid),
        sampler=options.sampler,
        sampler_seed=options.sampler_seed,
        round_size=options.round_size,
    )


def _recipe(group: Group, options: argparse.Namespace) -> DenseRun:
    whole = recipes.digits(0) if group.dataset == "digits" else recipes.cifar(group.architecture, 0)
    val_examples = VAL_EXAMPLES[group.dataset] if options.val_examples is None else options.val_examples
    dense = dataclasses.replace(
        whole, dataset=group.dataset, architecture=group.architecture, val_examples=val_examples
    )
    return recipes.scaled(dense, options.scale)


def _protocol_name(search: Search, scale: float) -> str:
    of = "digits" if search.group.dataset == "digits" else full_study.protocol_name(scale)
    return f"{of}-val{search.dense.val_examples}"


def _tenth(steps: int) -> int:
    """The greatest divisor of T that is at most a tenth of it, so that there are ten rewind points or more.

    Raises ValueError when that makes more than MOST_POINTS.
    """
    grid = max(n for n in range(1, max(1, steps // 10) + 1) if steps % n == 0)
    if (points := steps // grid + 1) > MOST_POINTS:
        raise ValueError(
            f"T = {steps} steps has no divisor near its tenth ({grid} makes {points} rewind points): give --grid, or "
            "a --scale that divides better"
        )
    return grid


def _after(seeds: list[int]) -> tuple[int, ...]:
    return tuple(range(max(seeds) + 1, max(seeds) + 1 + FRESH_SEEDS))


def _drawn(searched: list[found.Searched]) -> Iterator[tuple[str, plots.Drawn]]:
    """The figures that there is something for."""
    draw: dict[str, Callable[[list[found.Searched]], plots.Drawn]] = {
        "response_surface": found.response_surface,
        "accuracy_against_k": found.accuracy_against_k,
        "expected_best": found.expected_best,
        "importance": found.importance,
    }
    for title, function in draw.items():
        try:
            yield title, function(searched)
        except ValueError as error:
            print(f"no figure {title}: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
