"""Retraining strategies as values, and the names that values go by in tables."""

import math
from typing import Literal

from trainable.config import Cycle, DenseRun, Retraining


def fine_tuning(dense: DenseRun, budget: int | None = None) -> Retraining:
    """Keep the weights, train on at the last rate; budget t = T unless told. Han et al. 2015, arXiv 1506.02626."""
    return Retraining(weights_from=None, lr_from=dense.steps, budget=_or(budget, dense.steps))


def weight_rewinding(dense: DenseRun, step: int) -> Retraining:
    """Weights and clock back to a step k of the dense run, budget T − k. Frankle et al. 2020, arXiv 1912.05671."""
    return Retraining(weights_from=step, lr_from=step, budget=_rest(dense, step))


def lr_rewinding(dense: DenseRun, budget: int | None = None) -> Retraining:
    """Keep the weights, replay the schedule's last t steps, all T unless told. Renda et al. 2020, arXiv 2003.02389."""
    t = _or(budget, dense.steps)
    if t > dense.steps:
        rule = f"learning-rate rewinding replays at most the T = {dense.steps} steps there are (no clock before step 0)"
        raise ValueError(f"{rule}, got budget {t}")
    return Retraining(weights_from=None, lr_from=dense.steps - t, budget=t)


def low_lr_weight_rewinding(dense: DenseRun, step: int) -> Retraining:
    """Weights back to step k, but at the last learning rate: a control of Renda et al. 2020, arXiv 2003.02389."""
    return Retraining(weights_from=step, lr_from=dense.steps, budget=_rest(dense, step))


def reinit(dense: DenseRun, extra: int = 0) -> Retraining:
    """The pruned shape from a fresh initialisation, T + extra steps: a control of Renda et al. 2020, arXiv 2003.02389.

    With no extra steps it is Scratch-E of Liu et al. 2019, arXiv 1810.05270: the dense run's number of passes.
    """
    return Retraining(weights_from="fresh", lr_from=0, budget=dense.steps + extra)


def scratch_b(dense: DenseRun, speedup: float) -> Retraining:
    """Reinitialised, the dense schedule stretched over T × speedup steps, the dense run's computation: Liu et al. 2019.

    speedup: dense / kept multiply–accumulates, 1 or more; their experiments, arXiv 1810.05270, stop at 2.
    """
    if not 1 <= speedup < math.inf:
        raise ValueError(f"speedup must be dense / kept multiply-accumulates, 1 or more, got {speedup}")
    return Retraining(weights_from="fresh", lr_from=None, budget=round(dense.steps * speedup), shape="scaled")


def scaled_restart(dense: DenseRun, budget: int | None = None) -> Retraining:
    """SLR: a warm-up over a tenth of t, then all of the dense schedule in the rest. Le & Hua 2021, arXiv 2105.03193.

    Their released code calls it LLR, for large learning rate: not the linear one.
    """
    t = _or(budget, dense.steps)
    return Retraining(weights_from=None, lr_from=None, budget=t, shape="scaled", warmup=t // 10)


def cyclic_restart(dense: DenseRun, budget: int | None = None) -> Retraining:
    """CLR: one cycle, up over a tenth of t and down on cosines. Le & Hua 2021, arXiv 2105.03193."""
    return restart(dense, "one-cycle", budget, warmup=_or(budget, dense.steps) // 10)


def linear_restart(dense: DenseRun, budget: int | None = None) -> Retraining:
    """LLR, linear restarting: a warm-up over a tenth of t, then a line to 0. Zimmer et al. 2023, arXiv 2111.00843."""
    return restart(dense, "linear", budget, warmup=_or(budget, dense.steps) // 10)


def adaptive_linear_restart(dense: DenseRun, budget: int | None = None) -> Retraining:
    """ALLR: LLR from clip(max(d1, d2), 0, 1) times the highest rate. Zimmer et al. 2023, arXiv 2111.00843.

    d1 = ‖W − W pruned‖ / (‖W‖·√s), s the fraction of the remaining weights that this cycle cuts; d2 = min(t / T, 1).
    """
    return restart(dense, "adaptive-linear", budget, warmup=_or(budget, dense.steps) // 10)


def restart(
    dense: DenseRun,
    shape: Literal["linear", "cosine", "one-cycle", "adaptive-linear", "constant"],
    budget: int | None = None,
    *,
    peak_lr: float | None = None,
    warmup: int = 0,
) -> Retraining:
    """Keep the weights, go from a peak, the dense run's highest rate unless told, towards 0 on a shape."""
    return Retraining(
        weights_from=None,
        lr_from=None,
        budget=_or(budget, dense.steps),
        shape=shape,
        peak_lr=dense.learning_rate if peak_lr is None else peak_lr,
        warmup=warmup,
    )


def gradual_pruning(dense: DenseRun, extra: int = 0) -> Retraining:
    """GMP: prune within one run of T + extra steps, on a cubic. Zhu & Gupta 2017, arXiv 1710.01878.

    It starts from the dense run's initialisation, with its schedule stretched over the run; about a hundred prunings
    between the run's tenth and its middle, while the rate is high enough to recover, as the source advises.
    """
    budget = dense.steps + extra
    first, last = budget // 10, max(budget // 2, budget // 10 + 1)
    every = max(1, (last - first) // 100)
    return Retraining(weights_from=0, lr_from=None, budget=budget, shape="scaled", gradual=(first, last, every))


def name(cycle: Cycle) -> str:
    """What a cycle's strategy is called in tables, derived from its values alone.

    A density of 1 throughout with the last t steps replayed is the control `dense-extra-budget`: nothing is pruned.
    Values without a name of their own are `plane`: any other point of the rewind plane.
    """
    dense, retraining = cycle.dense, cycle.retraining
    source, clock = retraining.weights_from, retraining.lr_from
    if retraining.gradual:
        return "gradual-pruning"
    if retraining.shape == "constant" and source is None:
        return "fine-tuning"
    if retraining.shape == "scaled" and source == "fresh":
        return "scratch-b"
    if retraining.shape != "replay":
        return f"{retraining.shape}-restart" if source is None else f"{retraining.shape}-from-{source}"
    if source is None and clock == dense.steps:
        return "fine-tuning"
    if source is None and clock == dense.steps - retraining.budget:
        return "lr-rewinding" if cycle.densities[0] != 1 or cycle.density != 1 else "dense-extra-budget"
    if source == "fresh" and clock == 0:
        return "reinit"
    if isinstance(source, int) and source < dense.steps:
        if clock == source:
            return "weight-rewinding"
        if clock == dense.steps:
            return "low-lr-weight-rewinding"
    return "plane"


def _rest(dense: DenseRun, step: int) -> int:
    if not 0 <= step < dense.steps:
        raise ValueError(
            f"a rewind point must be a step of the dense run before its end, 0 … {dense.steps - 1}, got {step}"
        )
    return dense.steps - step


def _or(budget: int | None, default: int) -> int:
    return default if budget is None else budget
