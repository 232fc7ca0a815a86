"""Dense runs as the sources train them, as values."""

import dataclasses
from itertools import pairwise
from typing import Literal

from trainable.config import DenseRun

REWIND_POINT_DIGITS = 44
"""Step of the digits recipe to rewind to: 11 % of its 400 steps, as the reference study's 8,000 of 72,000."""
REWIND_POINT_CIFAR = 8_000
"""Step of the CIFAR recipes to rewind to (released experiment files of Mikler 2021, arXiv 2109.09670)."""


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
    dataset: Literal["cifar10", "cifar100"] = "cifar10",
    precision: Literal["fp32", "bf16"] = "fp32",
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
    dataset: Literal["cifar10", "cifar100"] = "cifar10",
    precision: Literal["fp32", "bf16"] = "fp32",
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


def _least(edges: list[int]) -> str:
    """A round scale at which the closest edges are a step apart, whatever the rounding."""
    gap = min(after - before for before, after in pairwise(edges))
    return f"{min(1, 2 / gap):.1g}"


def _check_scale(scale: float) -> None:
    if not 0 < scale <= 1:
        raise ValueError(f"scale must be in (0, 1], got {scale}")
