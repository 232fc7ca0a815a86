"""Learning-rate schedules: plain functions of the step, and how a cell's is made."""

import math
from collections.abc import Callable

from trainable.config import Cell, DenseRun

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


def _warmed(peak: float, steps: int, warmup: int, decay: Callable[[float], float]) -> Schedule:
    def schedule(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        return peak * decay((step - warmup) / (steps - warmup))

    return schedule


def dense_schedule(run: DenseRun) -> Schedule:
    """The dense run's schedule; for a step ≥ T its last value."""
    return hold(step_drops(run.learning_rate, run.drops, run.drop_factor), run.steps)


def schedule(cell: Cell) -> Schedule:
    """The schedule of a cell's own steps, whichever kind it is."""
    if isinstance(cell, DenseRun):
        return dense_schedule(cell)
    retraining = cell.retraining
    if retraining.shape == "replay":
        assert retraining.lr_from is not None
        return shift(dense_schedule(cell.dense), retraining.lr_from)
    assert retraining.peak_lr is not None
    shapes = {"linear": linear, "cosine": cosine}
    return shapes[retraining.shape](retraining.peak_lr, retraining.budget, retraining.warmup)
