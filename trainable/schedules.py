"""Learning-rate schedules: plain functions of the step, and how a cell's is made."""

import math
from collections.abc import Callable

from trainable.config import Cell, Cycle, DenseRun

Schedule = Callable[[int], float]
"""Learning rate of the update made at a step, counted from 0."""


def step_drops(initial: float, drops: tuple[int, ...], factor: float) -> Schedule:
    """initial, times factor from each step of drops on.

    >>> lr = step_drops(0.1, (36_000, 54_000), 0.1)
    >>> [lr(step) for step in (0, 35_999, 36_000, 53_999, 54_000)]
    [0.1, 0.1, 0.01, 0.01, 0.001]
    """

    def schedule(step: int) -> float:
        passed = sum(drop <= step for drop in drops)
        if passed == 0:
            return initial
        return float(f"{initial * factor**passed:.12g}")  # 0.1 · 0.1² is 0.001, not 0.0010000000000000002

    return schedule


def hold(schedule: Schedule, steps: int) -> Schedule:
    """A schedule of so many steps, and its last value for ever after.

    >>> lr = hold(step_drops(1.0, (2,), 0.5), 3)
    >>> [lr(step) for step in (0, 1, 2, 3, 1000)]
    [1.0, 1.0, 0.5, 0.5, 0.5]
    """
    return lambda step: schedule(min(step, steps - 1))


def shift(schedule: Schedule, start: int) -> Schedule:
    """A schedule whose clock starts at a later step.

    >>> lr = shift(step_drops(1.0, (2,), 0.5), 1)
    >>> [lr(step) for step in (0, 1, 2)]
    [1.0, 0.5, 0.5]
    """
    return lambda step: schedule(start + step)


def linear(peak: float, steps: int, warmup: int = 0) -> Schedule:
    """Up to peak in warmup steps, then down a line that reaches 0 at the step after the last.

    >>> lr = linear(1.0, 6, warmup=2)
    >>> [lr(step) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    return _warmed(peak, steps, warmup, lambda progress: 1 - progress)


def cosine(peak: float, steps: int, warmup: int = 0) -> Schedule:
    """Up to peak in warmup steps, then down half a cosine that reaches 0 at the step after the last.

    Loshchilov & Hutter 2017, arXiv 1608.03983, one period.

    >>> lr = cosine(1.0, 4)
    >>> [round(lr(step), 6) for step in range(4)]
    [1.0, 0.853553, 0.5, 0.146447]
    """
    return _warmed(peak, steps, warmup, lambda progress: (1 + math.cos(math.pi * progress)) / 2)


def constant(peak: float, steps: int, warmup: int = 0) -> Schedule:
    """Up to peak in warmup steps, and there it stays."""
    return _warmed(peak, steps, warmup, lambda progress: 1.0)


def one_cycle(peak: float, steps: int, warmup: int = 0) -> Schedule:
    """Up half a cosine from peak / 100 to peak, reached with step warmup − 1; down another to peak / 10,000 at the end.

    Smith & Topin 2018, arXiv 1708.07120, with the cosines and divisors of Le & Hua's released code, torch's OneCycleLR.

    >>> lr = one_cycle(1.0, 6, warmup=3)
    >>> [round(lr(step), 6) for step in range(6)]
    [0.01, 0.505, 1.0, 0.750025, 0.250075, 0.0001]
    """
    top = max(warmup - 1, 0)

    def schedule(step: int) -> float:
        if step < top:
            return _half_cosine(peak / 100, peak, step / top)
        return _half_cosine(peak, peak / 10_000, (step - top) / max(steps - 1 - top, 1))

    return schedule


def scaled(schedule: Schedule, length: int, steps: int, warmup: int = 0) -> Schedule:
    """Up to a schedule's first rate in warmup steps, then all of its length, squeezed or stretched into the rest.

    >>> lr = scaled(step_drops(1.0, (4, 6), 0.5), 8, 6, warmup=2)
    >>> [lr(step) for step in range(6)]
    [0.5, 1.0, 1.0, 1.0, 0.5, 0.25]
    """

    def squeezed(step: int) -> float:
        if step < warmup:
            return schedule(0) * (step + 1) / warmup
        return schedule((step - warmup) * length // (steps - warmup))

    return squeezed


def _half_cosine(begin: float, end: float, progress: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * progress)) / 2


def _warmed(peak: float, steps: int, warmup: int, decay: Callable[[float], float]) -> Schedule:
    def schedule(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        return peak * decay((step - warmup) / (steps - warmup))

    return schedule


PEAKED = {
    "linear": linear,
    "cosine": cosine,
    "one-cycle": one_cycle,
    "constant": constant,
    "adaptive-linear": linear,
}
"""Schedules of (peak, steps, warmup), by the name of their shape."""


def dense_schedule(run: DenseRun) -> Schedule:
    """The dense run's schedule; for a step ≥ T its last value."""
    if run.schedule == "step":
        return hold(step_drops(run.learning_rate, run.drops, run.drop_factor), run.steps)
    return hold(PEAKED[run.schedule](run.learning_rate, run.steps, run.warmup), run.steps)


def schedule(cell: Cell, norm_drop: float | None = None) -> Schedule:
    """The schedule of a cell's own steps, whichever kind it is.

    norm_drop: d1 of the cell's pruning (pruning.norm_drop), which the peak of the shape adaptive-linear depends on.
    """
    if isinstance(cell, DenseRun):
        return dense_schedule(cell)
    dense, retraining = cell.dense, cell.retraining
    if retraining.shape == "replay":
        assert retraining.lr_from is not None
        return shift(dense_schedule(dense), retraining.lr_from)
    if retraining.shape == "scaled":
        # Without the dense run's own warm-up: a second one after this one's.
        decay = shift(dense_schedule(dense), dense.warmup)
        return scaled(decay, dense.steps - dense.warmup, retraining.budget, retraining.warmup)
    assert retraining.peak_lr is not None
    peak = retraining.peak_lr
    if retraining.shape == "adaptive-linear":
        assert norm_drop is not None
        peak *= adapted(norm_drop, retraining.budget / dense.steps)
    return PEAKED[retraining.shape](peak, retraining.budget, retraining.warmup)


def adapted(norm_drop: float, budget: float) -> float:
    """The share of the highest rate that adaptive-linear starts from; budget: of retraining, in dense runs.

    Zimmer, Spiegel & Pokutta 2023, arXiv 2111.00843: clip(max(d1, d2), 0, 1), d2 = min(t / T, 1).

    >>> adapted(0.3, 0.1), adapted(0.3, 0.5), adapted(1.7, 2.0)
    (0.3, 0.5, 1.0)
    """
    return min(max(norm_drop, budget, 0.0), 1.0)


def prunings(cell: Cell) -> dict[int, float]:
    """The density to prune to before the update of a step, by step, of gradual pruning; of any other cell empty.

    Zhu & Gupta 2017, arXiv 1710.01878: sparsity s·(1 − (1 − (step − first) / (last − first))³).
    """
    if not isinstance(cell, Cycle) or not cell.retraining.gradual:
        return {}
    first, last, every = cell.retraining.gradual
    steps = [*range(first + every, last, every), last]
    left = {step: (1 - (step - first) / (last - first)) ** 3 for step in steps}
    return {step: round(1 - (1 - cell.density) * (1 - cubed), 6) for step, cubed in left.items()}
