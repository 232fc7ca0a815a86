"""Every figure and table of Mikler's reproduction study of retraining after pruning (2021, arXiv 2109.09670).

Fine-tuning, weight rewinding and learning-rate rewinding of ResNet-20, -56, -110 and WRN-16-8 on CIFAR: one-shot and
iterative, unstructured and structured. Options select from what is declared here; without any, it is the whole study.
Another --protocol is the same as its files do it, or ResNets as Renda et al. (2020, arXiv 2003.02389) train them.
"""

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sweeps import study
from trainable import recipes
from trainable.arguments import Parser, not_negative
from trainable.columns import Schedule
from trainable.config import Cell, Cycle, chain, density
from trainable.recipes import Protocol

PUBLISHED = ("fine-tuning", "weight-rewinding", "lr-rewinding")
EQUAL_BUDGET = "lr-rewinding-equal-budget"
"""A way of retraining that is in no paper: see equal_budget()."""
RENDA = (*PUBLISHED, "low-lr-weight-rewinding", "reinit")
REWINDING = ("weight-rewinding", "lr-rewinding")


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel of a figure, or a table."""

    figure: str
    dataset: Literal["cifar10", "cifar100"]
    architecture: str
    structure: Literal["unstructured", "structured"] = "unstructured"
    schedule: Schedule
    """one-shot or iterative."""
    chains: tuple[tuple[float, ...], ...]
    """Of each point drawn: the densities of its cycles. Points of an iterative panel are one chain's prefixes."""
    strategies: tuple[str, ...]
    """Names in the protocol's strategies."""

    @property
    def sparsities(self) -> tuple[float, ...]:
        """Of each point drawn, at the papers' three decimals."""
        return tuple(round(1 - densities[-1], 3) for densities in self.chains)


def one_shot(densities: Iterable[float]) -> tuple[tuple[float, ...], ...]:
    """Every density in a cycle of its own."""
    return tuple((value,) for value in densities)


def iterative(densities: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    """Every density at the end of all that come before it."""
    return tuple(tuple(densities[:cycles]) for cycles in range(1, len(densities) + 1))


PANELS = (
    Panel(
        figure="1-left",
        dataset="cifar10",
        architecture="resnet20",
        schedule="one-shot",
        chains=one_shot(chain(0.2, 10)),
        strategies=PUBLISHED,
    ),
    Panel(
        figure="1-right",
        dataset="cifar10",
        architecture="resnet20",
        schedule="iterative",
        chains=iterative(chain(0.2, 10)),
        strategies=PUBLISHED,
    ),
    Panel(
        figure="2-left",
        dataset="cifar10",
        architecture="resnet56",
        schedule="one-shot",
        chains=one_shot(chain(0.2, 10)),
        strategies=PUBLISHED,
    ),
    Panel(
        figure="2-right",
        dataset="cifar10",
        architecture="resnet56",
        schedule="iterative",
        chains=iterative(chain(0.2, 14)),
        strategies=PUBLISHED,
    ),
    Panel(
        figure="3",
        dataset="cifar10",
        architecture="resnet20",
        structure="structured",
        schedule="one-shot",
        chains=one_shot(chain(0.2, 10)),
        strategies=PUBLISHED,
    ),
    Panel(
        figure="4",
        dataset="cifar100",
        architecture="resnet56",
        schedule="one-shot",
        chains=one_shot(chain(0.2, 10)),
        strategies=PUBLISHED,
    ),
    Panel(
        figure="5-left",
        dataset="cifar10",
        architecture="wrn16-8",
        schedule="one-shot",
        chains=one_shot(map(density, (0.25, 0.5, 0.8, 0.9, 0.95, 0.975))),
        strategies=REWINDING,
    ),
    Panel(
        figure="5-right",
        dataset="cifar10",
        architecture="wrn16-8",
        schedule="iterative",
        chains=iterative(chain(0.3, 13)),
        strategies=REWINDING,
    ),
    Panel(
        figure="6",
        dataset="cifar10",
        architecture="wrn16-8",
        schedule="iterative",
        chains=iterative(chain(0.2, 10)),
        strategies=("lr-rewinding",),
    ),
    Panel(
        figure="table-5",
        dataset="cifar10",
        architecture="resnet110",
        schedule="one-shot",
        chains=one_shot([density(0.893)]),
        strategies=PUBLISHED,
    ),
)
RENDA_PANELS = tuple(
    panel
    for architecture, cycles in (("resnet20", 10), ("resnet56", 17))
    for panel in (
        Panel(
            figure=f"{architecture}-one-shot",
            dataset="cifar10",
            architecture=architecture,
            schedule="one-shot",
            chains=one_shot(chain(0.2, 10, decimals=4)),  # densities as released: 0.1074; in chains 0.107374
            strategies=RENDA,
        ),
        Panel(
            figure=f"{architecture}-iterative",
            dataset="cifar10",
            architecture=architecture,
            schedule="iterative",
            chains=iterative(chain(0.2, cycles, decimals=6)),
            strategies=RENDA[:-1],
        ),
    )
)
"""The unstructured networks whose results Renda, Frankle & Carbin 2020 (arXiv 2003.02389) released."""
PANELS_OF = {"mikler2021": PANELS, "mikler2021-as-released": PANELS, "renda2020": RENDA_PANELS}
"""By protocol."""
FIGURES = tuple(panel.figure for panel in (*PANELS, *RENDA_PANELS))
ARCHITECTURES = tuple(dict.fromkeys(panel.architecture for panel in PANELS))


def cells(
    panels: Iterable[Panel] = PANELS,
    seeds: Iterable[int] = range(5),
    *,
    scale: float = 1.0,
    precision: Literal["fp32", "bf16"] = "fp32",
    protocol: Protocol = recipes.PROTOCOLS["mikler2021"],
    rewind_points: Iterable[int] | None = None,
) -> Iterator[tuple[Schedule, Cell]]:
    """The study's rows: of every seed, each panel's points, and before the first ones of a dense run that run itself.

    rewind_points: of the protocol's, None for all. Raises ValueError for a scale that the recipes do not allow, and
    for what the protocol refuses.
    """
    panels, points = tuple(panels), protocol.rewind_points if rewind_points is None else tuple(rewind_points)
    for seed in dict.fromkeys(seeds):
        begun = set()
        for panel in panels:
            whole = protocol.dense(panel.architecture, seed, dataset=panel.dataset, precision=precision)
            dense = recipes.scaled(whole, scale)
            if dense not in begun:
                begun.add(dense)
                yield "dense", dense
            steps = [recipes.scaled_step(point, scale) for point in points]
            for name, step in itertools.product(panel.strategies, steps):
                if reason := protocol.refused.get((name, panel.schedule)):
                    raise ValueError(reason)
                for densities in panel.chains:
                    yield (
                        panel.schedule,
                        Cycle(
                            dense=dense,
                            densities=densities,
                            retraining=protocol.strategies[name](dense, step, panel.schedule),
                            structure=panel.structure,
                            parent_step=protocol.parent_step(dense),
                        ),
                    )


def without_refused(panels: Iterable[Panel], protocol: Protocol) -> tuple[Panel, ...]:
    """The panels without the strategies that the protocol refuses."""
    narrowed = (
        dataclasses.replace(
            panel,
            strategies=tuple(name for name in panel.strategies if (name, panel.schedule) not in protocol.refused),
        )
        for panel in panels
    )
    return tuple(panel for panel in narrowed if panel.strategies)


def select(
    panels: Iterable[Panel] = PANELS,
    *,
    figures: Collection[str] | None = None,
    architectures: Collection[str] | None = None,
    strategies: Collection[str] | None = None,
    sparsities: Collection[float] | None = None,
) -> tuple[Panel, ...]:
    """The panels narrowed to what is named; None: all. Sparsities are matched at three decimals.

    LR rewinding at an equal budget goes with LR rewinding. Raises ValueError, with what there is, for an option that
    leaves nothing, and for a sparsity that is no point of what the other options leave.
    """
    panels = _narrowed("figures", figures, tuple(panels), lambda panel: {panel.figure})
    panels = _narrowed("architectures", architectures, panels, lambda panel: {panel.architecture})
    if strategies is not None:
        panels = _narrowed("strategies", strategies, panels, lambda panel: {*panel.strategies} - {EQUAL_BUDGET})
        wanted = {*strategies, *([EQUAL_BUDGET] if "lr-rewinding" in strategies else [])}
        panels = tuple(
            dataclasses.replace(panel, strategies=tuple(name for name in panel.strategies if name in wanted))
            for panel in panels
        )
    return panels if sparsities is None else _at(sparsities, panels)


def equal_budget(panels: Iterable[Panel]) -> tuple[Panel, ...]:
    """The panels, where both rewindings are compared, with LR rewinding at weight rewinding's budget T − k too.

    The papers compare T steps (72,000) with T − k (64,000).
    """
    return tuple(
        dataclasses.replace(panel, strategies=(*panel.strategies, EQUAL_BUDGET))
        if {*REWINDING} <= {*panel.strategies}
        else panel
        for panel in panels
    )


def protocol_name(scale: float = 1.0, precision: str = "fp32", protocol: str = "mikler2021") -> str:
    """What the way of training is called, and the study unless --name tells: the protocol, and where it differs.

    >>> protocol_name(), protocol_name(0.0125, "bf16")
    ('mikler2021', 'mikler2021-x0.0125-bf16')
    """
    shortened = "" if scale == 1 else f"-x{scale}"
    return f"{protocol}{shortened}{'' if precision == 'fp32' else f'-{precision}'}"


def declare(options: argparse.Namespace) -> study.Study:
    """The study that the options ask for. Raises ValueError for options that select nothing."""
    protocol, panels = recipes.PROTOCOLS[options.protocol], PANELS_OF[options.protocol]
    if options.equal_budget:
        if EQUAL_BUDGET not in protocol.strategies:
            raise ValueError(f"--equal-budget adds nothing: all budgets of {options.protocol} are equal")
        panels = equal_budget(panels)
    panels = select(
        panels,
        figures=options.figures,
        architectures=options.architectures,
        strategies=options.strategies,
        sparsities=options.sparsities,
    )
    if options.equal_budget and not any(EQUAL_BUDGET in panel.strategies for panel in panels):
        raise ValueError(
            "--equal-budget adds nothing: it stands beside lr-rewinding, in figures that have weight-rewinding too"
        )
    if options.strategies is None and (left := without_refused(panels, protocol)) != panels:
        print(f"left out: {'; '.join(protocol.refused.values())}", file=sys.stderr)
        panels = left
    if strange := [point for point in options.rewind_points or () if point not in protocol.rewind_points]:
        there = " ".join(map(str, protocol.rewind_points))
        raise ValueError(f"--rewind-points {' '.join(map(str, strange))} selects nothing: there is {there}")
    name = protocol_name(options.scale, options.precision, options.protocol)
    return study.Study(
        name=name if options.name is None else options.name,
        protocol_name=name,
        rows=tuple(
            cells(
                panels,
                options.seeds,
                scale=options.scale,
                precision=options.precision,
                protocol=protocol,
                rewind_points=options.rewind_points,
            )
        ),
    )


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser(prog="python sweeps/full_study.py", description=__doc__)
    chosen = parser.add_argument_group("what is trained (default: everything)")
    chosen.add_argument("--figures", nargs="+", choices=FIGURES, metavar="FIGURE", help=f"of {', '.join(FIGURES)}")
    chosen.add_argument(
        "--architectures", nargs="+", choices=ARCHITECTURES, metavar="NAME", help=f"of {', '.join(ARCHITECTURES)}"
    )
    chosen.add_argument("--strategies", nargs="+", choices=RENDA, metavar="NAME", help=f"of {', '.join(RENDA)}")
    chosen.add_argument(
        "--sparsities",
        nargs="+",
        type=float,
        metavar="SPARSITY",
        help="of the points drawn, as 0.2 0.672 0.893 (matched at three decimals); earlier cycles come along",
    )
    chosen.add_argument(
        "--rewind-points",
        nargs="+",
        type=not_negative,
        metavar="STEP",
        help="of a protocol that has several, before --scale: renda2020's are T − its retrain times",
    )
    chosen.add_argument(
        "--seeds", nargs="+", type=not_negative, default=range(5), metavar="SEED", help="(default: 0 1 2 3 4)"
    )
    chosen.add_argument(
        "--equal-budget",
        action="store_true",
        help="add learning-rate rewinding with weight rewinding's budget, beside the published longer one",
    )
    trained = parser.add_argument_group("how it is trained")
    trained.add_argument(
        "--protocol",
        choices=recipes.PROTOCOLS,
        default="mikler2021",
        help="the paper's text (default), what its released files do, or Renda et al. 2020",
    )
    trained.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="every step count times this, in (0, 1]; weight decay is not scaled (default: 1)",
    )
    trained.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="fp32, or bf16 autocast (default: fp32)"
    )
    study.add_options(parser, name=None)
    return study.command(parser.parse_args(argv), declare)


def _narrowed(
    option: str, wanted: Collection[str] | None, panels: tuple[Panel, ...], has: Callable[[Panel], set[str]]
) -> tuple[Panel, ...]:
    if wanted is None:
        return panels
    found = tuple(panel for panel in panels if has(panel) & set(wanted))
    if not found:
        there = dict.fromkeys(name for panel in panels for name in sorted(has(panel)))
        raise ValueError(f"--{option} {' '.join(wanted)} selects nothing: there is {', '.join(there)}")
    return found


def _at(sparsities: Collection[float], panels: tuple[Panel, ...]) -> tuple[Panel, ...]:
    wanted = {round(1 - density(sparsity), 3): sparsity for sparsity in sparsities}
    there = sorted({sparsity for panel in panels for sparsity in panel.sparsities})
    if strange := [f"{sparsity:g}" for value, sparsity in wanted.items() if value not in there]:
        drawn = ", ".join(f"{sparsity:g}" for sparsity in there)
        raise ValueError(f"--sparsities {' '.join(strange)} selects nothing: there is {drawn}")
    narrowed = (
        dataclasses.replace(
            panel, chains=tuple(densities for densities in panel.chains if round(1 - densities[-1], 3) in wanted)
        )
        for panel in panels
    )
    return tuple(panel for panel in narrowed if panel.chains)


if __name__ == "__main__":
    sys.exit(main())
