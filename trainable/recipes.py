"""Dense runs and protocols as the sources train and retrain them, as values."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from trainable import architectures, strategies
from trainable.columns import Schedule
from trainable.config import DenseRun, Retraining

REWIND_POINT_DIGITS = 44
"""Step of the digits recipe to rewind to: 11 % of its 400 steps, as the reference study's 8,000 of 72,000."""
REWIND_POINT_CIFAR = 8_000
"""Step of the CIFAR recipes to rewind to (released experiment files of Mikler 2021, arXiv 2109.09670)."""
RENDA_RETRAIN_TIMES = (3_907, 11_719, 19_532, 27_344, 35_157, 42_969, 50_782, 58_594, 66_407, 71_108)
"""Steps of 10, 30, … 170 and 182 passes (released results of Renda et al. 2020, arXiv 2003.02389)."""
Dataset = Literal["cifar10", "cifar100"]
Precision = Literal["fp32", "bf16"]
DenseSchedule = Literal["step", "linear", "cosine", "one-cycle"]


def digits(seed: int) -> DenseRun:
    """scikit-learn's 8×8 digits on a ResNet-8 of width 8: a whole study in minutes on two cores."""
    return DenseRun(
        dataset="digits",
        architecture="resnet8-8",
        seed=seed,
        steps=400,
        batch_size=64,
        learning_rate=0.1,
        drops=(200, 300),
        drop_factor=0.1,
        weight_decay=2e-4,
        batch_norm_momentum=0.1,
        batch_norm_eps=1e-5,
    )


def cifar_resnet(
    architecture: str,
    seed: int,
    *,
    dataset: Dataset = "cifar10",
    precision: Precision = "fp32",
) -> DenseRun:
    """ResNet-20, -56 and -110 on CIFAR: Mikler 2021, arXiv 2109.09670, §3.1 and table 1.

    The paper's weight decay 1e-4·‖w‖² is 2e-4 as a gradient; TensorFlow's batch-norm decay 0.997 is momentum 0.003.
    """
    return DenseRun(
        dataset=dataset,
        architecture=architecture,
        seed=seed,
        steps=72_000,
        batch_size=128,
        learning_rate=0.1,
        drops=(36_000, 54_000),
        drop_factor=0.1,
        weight_decay=2e-4,
        batch_norm_momentum=0.003,
        batch_norm_eps=1e-5,
        precision=precision,
    )


def wide_resnet(
    architecture: str,
    seed: int,
    *,
    dataset: Dataset = "cifar10",
    precision: Precision = "fp32",
) -> DenseRun:
    """WRN-16-8 on CIFAR: Mikler 2021, arXiv 2109.09670, §3.1 and table 2."""
    return DenseRun(
        dataset=dataset,
        architecture=architecture,
        seed=seed,
        steps=80_000,
        batch_size=128,
        learning_rate=0.1,
        drops=(32_000, 48_000, 64_000),
        drop_factor=0.2,
        weight_decay=4e-4,
        batch_norm_momentum=0.1,
        batch_norm_eps=1e-3,
        precision=precision,
    )


def cifar(architecture: str, seed: int, *, dataset: Dataset = "cifar10", precision: Precision = "fp32") -> DenseRun:
    """The recipe of Mikler 2021, arXiv 2109.09670, for an architecture: cifar_resnet or wide_resnet."""
    recipe = wide_resnet if _is_wide(architecture) else cifar_resnet
    return recipe(architecture, seed, dataset=dataset, precision=precision)


def cifar_as_released(
    architecture: str, seed: int, *, dataset: Dataset = "cifar10", precision: Precision = "fp32"
) -> DenseRun:
    """The same as Mikler's released code has it: ResNets with batch norm after shortcut convolutions."""
    run = cifar(architecture, seed, dataset=dataset, precision=precision)
    return dataclasses.replace(run, shortcut_norm=not _is_wide(architecture))


def renda_resnet(
    architecture: str, seed: int, *, dataset: Dataset = "cifar10", precision: Precision = "fp32"
) -> DenseRun:
    """ResNets on CIFAR-10 as Renda, Frankle & Carbin 2020, arXiv 2003.02389, train them, after TensorFlow's models.

    2,000 of the test images are for validation, the other 8,000 the test.
    """
    return DenseRun(
        dataset=dataset,
        architecture=architecture,
        seed=seed,
        steps=71_108,
        batch_size=128,
        learning_rate=0.1,
        drops=(35_546, 53_125),
        drop_factor=0.1,
        nesterov=False,
        weight_decay=2e-4,
        batch_norm_momentum=0.003,
        batch_norm_eps=1e-5,
        val_examples=2_000,
        val_from="test",
        precision=precision,
        init="truncated-normal",
        shortcut_norm=True,
        padding="zeros",
        standardisation="image",
    )


def with_schedule(run: DenseRun, schedule: DenseSchedule) -> DenseRun:
    """The run under another schedule from the same highest rate; one-cycle rises over three tenths, torch's default."""
    if schedule == "step":
        return run
    warmup = 3 * run.steps // 10 if schedule == "one-cycle" else 0
    return dataclasses.replace(run, schedule=schedule, drops=(), drop_factor=1.0, warmup=warmup)


Strategy = Callable[[DenseRun, int, Schedule], Retraining]
"""A way of retraining, given the dense run, the rewind point, and one-shot or iterative."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a source trains, prunes and retrains."""

    dense: Callable[..., DenseRun]
    """(architecture, seed, dataset=…, precision=…)."""
    rewind_points: tuple[int, ...]
    """Steps of the dense run; a budget t is the rewind point T − t."""
    strategies: dict[str, Strategy]
    """By the name that options have."""
    parent_step: Callable[[DenseRun], int | None] = lambda dense: None
    """The step of the dense run that is pruned; None: the last."""
    refused: dict[tuple[str, Schedule], str] = field(default_factory=dict)
    """What cannot be run, by strategy and schedule, and why."""


def _fine_tuning_as_released(dense: DenseRun, step: int, schedule: Schedule) -> Retraining:
    """T steps, T − k in each cycle of a chain; a wide ResNet's rate is 0.001, above the schedule's last."""
    budget = dense.steps - step if schedule == "iterative" else dense.steps
    if _is_wide(dense.architecture):
        return strategies.restart(dense, "constant", budget, peak_lr=0.001)
    return strategies.fine_tuning(dense, budget)


def _with_momentum(make: Callable[[DenseRun, int], Retraining]) -> Strategy:
    return lambda dense, step, schedule: dataclasses.replace(make(dense, step), momentum="with_weights")


PROTOCOLS = {
    # The text of Mikler 2021, arXiv 2109.09670.
    "mikler2021": Protocol(
        dense=cifar,
        rewind_points=(REWIND_POINT_CIFAR,),
        strategies={
            "fine-tuning": lambda dense, step, schedule: strategies.fine_tuning(dense),
            "weight-rewinding": lambda dense, step, schedule: strategies.weight_rewinding(dense, step),
            "lr-rewinding": lambda dense, step, schedule: strategies.lr_rewinding(dense),
            "lr-rewinding-equal-budget": lambda dense, step, schedule: strategies.lr_rewinding(
                dense, dense.steps - step
            ),
        },
    ),
    # What its files do: the weights of step k, and a clock that starts at 0.
    "mikler2021-as-released": Protocol(
        dense=cifar_as_released,
        rewind_points=(REWIND_POINT_CIFAR,),
        strategies={
            "fine-tuning": _fine_tuning_as_released,
            "weight-rewinding": lambda dense, step, schedule: Retraining(
                weights_from=step, lr_from=0, budget=dense.steps - step
            ),
            "lr-rewinding": lambda dense, step, schedule: strategies.lr_rewinding(dense),
            "lr-rewinding-equal-budget": lambda dense, step, schedule: strategies.lr_rewinding(
                dense, dense.steps - step
            ),
        },
        # 72,000 of 80,000
        parent_step=lambda dense: dense.steps * 9 // 10 if _is_wide(dense.architecture) else None,
        refused={
            ("weight-rewinding", "iterative"): "iterative weight rewinding cannot be run as released: "
            "the released files ask for a file that was never written"
        },
    ),
    # Renda, Frankle & Carbin 2020, arXiv 2003.02389.
    "renda2020": Protocol(
        dense=renda_resnet,
        rewind_points=tuple(71_108 - budget for budget in RENDA_RETRAIN_TIMES),
        strategies={
            "fine-tuning": _with_momentum(lambda dense, step: strategies.fine_tuning(dense, dense.steps - step)),
            "weight-rewinding": _with_momentum(strategies.weight_rewinding),
            "lr-rewinding": _with_momentum(lambda dense, step: strategies.lr_rewinding(dense, dense.steps - step)),
            "low-lr-weight-rewinding": _with_momentum(strategies.low_lr_weight_rewinding),
            "reinit": _with_momentum(lambda dense, step: strategies.reinit(dense, dense.steps - step)),
        },
    ),
}
"""By name: what full_study.py and rewind_search.py are made from."""


def scaled(run: DenseRun, scale: float) -> DenseRun:
    """The run with every step count times a factor in (0, 1]: its steps, its drops, and batch norm's memory.

    A momentum m is a memory of about 1/m steps: it becomes min(0.1, 1 − (1 − m)^(1/scale)), and never falls. Weight
    decay stays, since the learning rate does.

    Raises ValueError for a factor outside (0, 1], or one that leaves no step before, between or after the drops.
    """
    _check_scale(scale)
    if scale == 1:
        return run
    edges = [0, *run.drops, run.steps]
    shrunk = [round(step * scale) for step in edges]
    if any(after <= before for before, after in pairwise(shrunk)):
        raise ValueError(
            f"scale must leave one step or more between learning-rate drops, got {scale}: drops {list(run.drops)} of "
            f"{run.steps} steps become {shrunk[1:-1]} of {shrunk[-1]}; a scale of {_least(edges)} is enough"
        )
    memory = min(0.1, 1 - (1 - run.batch_norm_momentum) ** (1 / scale))
    return dataclasses.replace(
        run,
        steps=shrunk[-1],
        drops=tuple(shrunk[1:-1]),
        warmup=scaled_step(run.warmup, scale),
        # 12 digits: the power's last ones differ between machines, and a momentum has one spelling in a key.
        batch_norm_momentum=max(run.batch_norm_momentum, float(f"{memory:.12g}")),
    )


def scaled_step(step: int, scale: float) -> int:
    """A step of a run, as a rewind point, in the run times a factor in (0, 1].

    >>> scaled_step(REWIND_POINT_CIFAR, 0.0125), scaled_step(0, 0.5)
    (100, 0)

    Raises ValueError for a factor outside (0, 1], or one that makes a later step the initialisation.
    """
    _check_scale(scale)
    shrunk = round(step * scale)
    if shrunk == 0 and step > 0:
        raise ValueError(f"scale must leave one step or more, got {scale}: step {step} becomes 0")
    return shrunk


def _is_wide(architecture: str) -> bool:
    return architectures.parse(architecture).family == "wrn"


def _least(edges: list[int]) -> str:
    """A round scale at which the closest edges are a step apart, whatever the rounding."""
    gap = min(after - before for before, after in pairwise(edges))
    return f"{min(1, 2 / gap):.1g}"


def _check_scale(scale: float) -> None:
    if not 0 < scale <= 1:
        raise ValueError(f"scale must be in (0, 1], got {scale}")
