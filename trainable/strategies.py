"""Retraining strategies as values, and the names that values go by in tables."""

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
    """The pruned shape from a fresh initialisation, T + extra steps: a control of Liu et al. 2019, arXiv 1810.05270."""
    return Retraining(weights_from="fresh", lr_from=0, budget=dense.steps + extra)


def restart(
    dense: DenseRun,
    shape: Literal["linear", "cosine"],
    budget: int | None = None,
    *,
    peak_lr: float | None = None,
    warmup: int = 0,
) -> Retraining:
    """Keep the weights, go from a peak, the dense run's first rate unless told, to 0 on a line or half a cosine."""
    return Retraining(
        weights_from=None,
        lr_from=None,
        budget=_or(budget, dense.steps),
        shape=shape,
        peak_lr=dense.learning_rate if peak_lr is None else peak_lr,
        warmup=warmup,
    )


def name(cycle: Cycle) -> str:
    """What a cycle's strategy is called in tables, derived from its values alone.

    A density of 1 throughout with the last t steps replayed is the control `dense-extra-budget`: nothing is pruned.
    Values without a name of their own are `plane`: any other point of the rewind plane.
    """
    dense, retraining = cycle.dense, cycle.retraining
    source, clock = retraining.weights_from, retraining.lr_from
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
