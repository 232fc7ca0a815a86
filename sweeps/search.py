"""A search over one group's retrainings: its space, its named strategies, and what it tries next. No files, no Ray.

Optuna is asked and told anew for every proposal, so that one depends on the search's description, the trials told
before and its number alone: neither a stop nor a restart changes it.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean
from typing import Any, Literal, cast

import numpy as np

from analysis.search import Parameters, Params, optuna_study
from trainable import architectures, strategies
from trainable.columns import protocol
from trainable.config import DATASETS, Cell, Cycle, DenseRun, Retraining, density

Kind = Literal["line", "plane", "schedule"]
Structure = Literal["unstructured", "structured"]
SAMPLERS: dict[str, Callable[[Any, int], Any]] = {
    "tpe": lambda samplers, seed: samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True),
    "gp": lambda samplers, seed: samplers.GPSampler(seed=seed),
    "random": lambda samplers, seed: samplers.RandomSampler(seed=seed),
}
"""Optuna's samplers, made from optuna.samplers and a seed. gp imports torch."""
ATTEMPTS = 10
"""Times that the sampler is asked before a point that was tried already gives way to a random new one."""
SHAPES = ("linear", "cosine", "one-cycle")
HALVINGS = (0, 1, 2, 3, 4, 5)
"""Peak learning rates: the dense run's first rate, halved so many times."""
WARMUP_TENTHS = (0, 1, 2)
"""Warm-ups, in tenths of the budget."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """What one search is about: one network, pruned once in one way."""

    dataset: str
    architecture: str
    structure: Structure
    density: float

    @property
    def name(self) -> str:
        """digits/resnet8-8/unstructured/0.95, with the sparsity."""
        return f"{self.dataset}/{self.architecture}/{self.structure}/{round(1 - self.density, 6):g}"


def group(text: str) -> Group:
    """The group of a name, as Group.name spells it. Raises ValueError with the rule and the choices."""
    parts = text.split("/")
    if len(parts) != 4:
        raise ValueError(f"a group must be DATASET/ARCHITECTURE/STRUCTURE/SPARSITY, got {text!r}")
    dataset, architecture, structure, sparsity = parts
    if dataset not in DATASETS:
        raise ValueError(f"unknown data set {dataset!r} in group {text!r}: choose from {', '.join(DATASETS)}")
    architectures.parse(architecture)
    if structure not in ("unstructured", "structured"):
        raise ValueError(f"unknown structure {structure!r} in group {text!r}: choose from unstructured, structured")
    if not re.fullmatch(r"[01]?\.?\d+|\d+", sparsity):
        raise ValueError(f"the sparsity of group {text!r} must be a number in (0, 1), got {sparsity!r}")
    kept = density(float(sparsity))
    if kept == 1:
        raise ValueError(f"the sparsity of group {text!r} must be above 0: nothing is pruned otherwise")
    return Group(dataset=dataset, architecture=architecture, structure=cast(Structure, structure), density=kept)


@dataclass(frozen=True, kw_only=True)
class Space:
    """Retrainings to choose from: finitely many points, on a grid of steps.

    line: weight rewinding to k, or the clock alone set back to k. plane: weights from one k, the clock from another.
    schedule: restarts by shape, peak, warm-up and budget.
    """

    kind: Kind
    steps: int
    """T of the dense run."""
    learning_rate: float
    """Of the dense run, at step 0."""
    grid: int
    """Rewind points are multiples of it, so that points share States. Divides T."""
    between: tuple[int, int]
    """Least and greatest rewind point, steps. T as a source of weights: they are kept."""
    budget: int
    """t, steps of every point; of schedule the longest. A multiple of grid, so that the clock of T − t lies on it."""

    def __post_init__(self) -> None:
        low, high = self.between
        if self.grid < 1 or self.steps % self.grid:
            divisors = [n for n in range(1, self.steps + 1) if self.steps % n == 0]
            near = ", ".join(map(str, sorted(sorted(divisors, key=lambda n: abs(n - self.grid))[:4])))
            raise ValueError(f"the grid must divide T = {self.steps} steps, got {self.grid}: choose {near} …")
        if low < 0 or high > self.steps:
            raise ValueError(f"rewind points k must be within 0 … T = {self.steps} steps, got {low} … {high}")
        if self.kind == "schedule" and self.between != (0, self.steps):
            raise ValueError(f"the space schedule has no rewind points, got those between {low} and {high}")
        if not self.rewind_points:
            raise ValueError(f"the space has no point: no multiple of the grid {self.grid} is within {low} … {high}")
        if not self.grid <= self.budget <= self.steps or self.budget % self.grid:
            rule = f"the budget must be a multiple of the grid {self.grid} within {self.grid} … T = {self.steps} steps"
            raise ValueError(f"{rule}, so that learning-rate rewinding lies on the grid too, got {self.budget}")

    @property
    def rewind_points(self) -> tuple[int, ...]:
        return tuple(k for k in range(0, self.steps + 1, self.grid) if self.between[0] <= k <= self.between[1])

    @property
    def parameters(self) -> Parameters:
        """Choices by parameter."""
        k = self.rewind_points
        if self.kind == "line":
            return {"rewound": ("weights and clock", "clock"), "k": k}
        if self.kind == "plane":
            return {"weights_from": k, "lr_from": k}
        budgets = tuple(range(self.grid, self.budget + 1, self.grid))
        return {"shape": SHAPES, "halvings": HALVINGS, "warmup_tenths": WARMUP_TENTHS, "budget": budgets}

    def retraining(self, params: Params) -> Retraining:
        """The point of some parameters."""
        if self.kind == "line":
            k = params["k"]
            return self._rewound(k if params["rewound"] == "weights and clock" else self.steps, k)
        if self.kind == "plane":
            return self._rewound(params["weights_from"], params["lr_from"])
        return Retraining(
            weights_from=None,
            lr_from=None,
            budget=params["budget"],
            shape=params["shape"],
            peak_lr=self.learning_rate / 2 ** params["halvings"],
            warmup=params["budget"] * params["warmup_tenths"] // 10,
        )

    @cached_property
    def points(self) -> dict[Retraining, Params]:
        """Every point once, with parameters that make it."""
        names = self.parameters
        every = [dict(zip(names, values, strict=True)) for values in itertools.product(*names.values())]
        return {self.retraining(params): params for params in reversed(every)}

    def _rewound(self, weights_from: int, lr_from: int) -> Retraining:
        kept = weights_from == self.steps  # of a first cycle, step T is where the weights are
        return Retraining(weights_from=None if kept else weights_from, lr_from=lr_from, budget=self.budget)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One point with what it reached on every seed."""

    number: int | None
    """Counted from 0; None: it had been trained before the search began."""
    params: Params
    val_accuracy: tuple[float, ...] | None
    """Fractions, by seed; None: some loss was not finite."""
    error: str | None = None

    @property
    def value(self) -> float | None:
        """What is maximised."""
        return None if self.val_accuracy is None else mean(self.val_accuracy)


@dataclass(frozen=True, kw_only=True)
class Search:
    """All that proposals depend on, results apart."""

    group: Group
    dense: DenseRun
    """The recipe, at any seed."""
    space: Space
    seeds: tuple[int, ...]
    rewind_point: int
    """Of the named strategies that rewind weights: a step on the grid."""
    sampler: str
    """A name of SAMPLERS."""
    sampler_seed: int
    round_size: int
    """Trials that are proposed at once, none knowing of the others' results."""

    def __post_init__(self) -> None:
        if self.dense.val_examples < 1:
            raise ValueError(
                "val_examples must be above 0: the search maximises validation accuracy, since a point chosen by test "
                f"accuracy would be judged by the images that chose it; got {self.dense.val_examples}"
            )
        if self.sampler not in SAMPLERS:
            raise ValueError(f"unknown sampler {self.sampler!r}: choose from {', '.join(SAMPLERS)}")

    def dense_run(self, seed: int) -> DenseRun:
        return dataclasses.replace(self.dense, seed=seed)

    def cell(self, retraining: Retraining, seed: int) -> Cycle:
        """A point on a seed."""
        return Cycle(
            dense=self.dense_run(seed),
            densities=(self.group.density,),
            retraining=retraining,
            structure=self.group.structure,
        )

    def cells(self, params: Params) -> tuple[Cell, ...]:
        """The cells of a trial, by seed."""
        return tuple(self.cell(self.space.retraining(params), seed) for seed in self.seeds)

    @property
    def named(self) -> dict[str, Retraining]:
        """The named strategies at the search's budget, so that place is not confounded with length."""
        dense, t, k = self.dense, self.space.budget, self.rewind_point
        return {
            "fine-tuning": strategies.fine_tuning(dense, t),
            "weight-rewinding": dataclasses.replace(strategies.weight_rewinding(dense, k), budget=t),
            "lr-rewinding": strategies.lr_rewinding(dense, t),
            "low-lr-weight-rewinding": dataclasses.replace(strategies.low_lr_weight_rewinding(dense, k), budget=t),
        }

    def description(self) -> dict[str, Any]:
        """What every round's file repeats, as plain JSON values: analysis.search reads it."""
        space, group = self.space, self.group
        return {
            "dataset": group.dataset,
            "architecture": group.architecture,
            "structure": group.structure,
            "sparsity": round(1 - group.density, 6),
            "protocol": protocol(self.dense),
            "val_examples": self.dense.val_examples,
            "seeds": list(self.seeds),
            "space": space.kind,
            "steps": space.steps,
            "grid": space.grid,
            "between": list(space.between),
            "budget": space.budget,
            "parameters": {name: list(choices) for name, choices in space.parameters.items()},
            "named": {
                name: {"weights_from": at.weights_from, "lr_from": at.lr_from} for name, at in self.named.items()
            },
            "sampler": self.sampler,
            "sampler_seed": self.sampler_seed,
            "round_size": self.round_size,
        }


def next_round(search: Search, told: Sequence[Trial], trials: int) -> tuple[Params, ...]:
    """The points of the next round, given all earlier trials; none when so many trials or all points have been."""
    begun = sum(trial.number is not None for trial in told)
    asked: list[Params] = []
    for number in range(begun, min(begun + search.round_size, trials)):
        params = propose(search, told, asked, number)
        if params is None:
            break
        asked.append(params)
    return tuple(asked)


def propose(search: Search, told: Sequence[Trial], asked: Sequence[Params], number: int) -> Params | None:
    """The point of a trial: the named strategies first, then the sampler's; None when every point has been tried.

    told: every trial of the rounds before; asked: the points of this round so far, whose results are not known.
    """
    space = search.space
    tried = {space.retraining(params) for params in (*(trial.params for trial in told), *asked)}
    left = {point: params for point, params in space.points.items() if point not in tried}
    if not left:
        return None
    for point in search.named.values():
        if point in left:
            return left[point]
    for attempt in range(ATTEMPTS):
        params = _sampled(search, told, asked, _seed(search.sampler_seed, number, attempt))
        if space.retraining(params) in left:
            return params
    return list(left.values())[_seed(search.sampler_seed, number, ATTEMPTS) % len(left)]


def best(told: Iterable[Trial]) -> Trial | None:
    """The trial of the highest value, the first one of equals; None when none has a value."""
    found = [trial for trial in told if trial.value is not None]
    return max(found, key=lambda trial: trial.value or 0.0, default=None)


def _sampled(search: Search, told: Sequence[Trial], asked: Sequence[Params], seed: int) -> Params:
    """What a sampler of this seed, made anew, proposes."""
    import optuna

    known = [(trial.params, trial.value) for trial in told]
    sampler = SAMPLERS[search.sampler](optuna.samplers, seed)
    study, distributions = optuna_study(search.space.parameters, known, running=asked, sampler=sampler)
    return dict(study.ask(distributions).params)


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
