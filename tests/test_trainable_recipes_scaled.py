"""Recipes with every step count times a factor."""

import dataclasses
from fractions import Fraction

import pytest

from trainable import recipes


def test_resnet_at_an_eightieth():
    run = recipes.cifar_resnet("resnet20", 3)
    shorter = dataclasses.replace(run, steps=900, drops=(450, 675), batch_norm_momentum=0.1)
    assert recipes.scaled(run, 0.0125) == shorter
    assert recipes.scaled_step(recipes.REWIND_POINT_CIFAR, 0.0125) == 100


def test_wide_resnet_at_a_tenth():
    run = recipes.wide_resnet("wrn16-8", 0)
    assert recipes.scaled(run, 0.1) == dataclasses.replace(run, steps=8_000, drops=(3_200, 4_800, 6_400))


@pytest.mark.parametrize("inverse", [2, 4, 5, 8, 16, 20])
def test_batch_norms_memory_shrinks_with_the_steps(inverse):
    """After s·n updates of the new momentum as much of the initial value is left as after n of the old one."""
    momentum = recipes.scaled(recipes.cifar_resnet("resnet20", 0), 1 / inverse).batch_norm_momentum
    exact = 1 - Fraction(997, 1000) ** inverse
    assert momentum == pytest.approx(float(exact), rel=1e-11)
    assert momentum == float(f"{momentum:.12g}"), "one spelling"


def test_batch_norms_memory_has_a_floor_and_never_grows():
    run = recipes.cifar_resnet("resnet20", 0)
    assert recipes.scaled(run, 1 / 36).batch_norm_momentum == 0.1  # 1 − 0.997^36 = 0.1025
    assert recipes.scaled(run, 1 / 32).batch_norm_momentum == pytest.approx(0.0916671, abs=1e-7)
    fast = dataclasses.replace(run, batch_norm_momentum=0.5)
    assert recipes.scaled(fast, 0.5).batch_norm_momentum == 0.5


def test_scale_1_changes_nothing():
    run = recipes.cifar_resnet("resnet56", 0)
    assert recipes.scaled(run, 1) == run
    assert recipes.scaled(run, 1.0) == run


@pytest.mark.parametrize("scale", [0, -0.5, 1.01, 80, float("nan"), float("inf")])
def test_scale_outside(scale):
    with pytest.raises(ValueError, match=r"scale must be in \(0, 1\], got"):
        recipes.scaled(recipes.digits(0), scale)
    with pytest.raises(ValueError, match=r"scale must be in \(0, 1\], got"):
        recipes.scaled_step(8_000, scale)


@pytest.mark.parametrize(
    ("drops", "steps", "becomes"),
    [
        ((100, 120, 300), 400, r"\[1, 1, 3\] of 4"),
        ((4, 200), 400, r"\[0, 2\] of 4"),
        ((200, 399), 400, r"\[2, 4\] of 4"),
    ],
    ids=["between", "before the first", "after the last"],
)
def test_no_step_between_drops(drops, steps, becomes):
    run = dataclasses.replace(recipes.digits(0), steps=steps, drops=drops)
    with pytest.raises(ValueError, match=f"one step or more between learning-rate drops, got 0.01: .*{becomes}"):
        recipes.scaled(run, 0.01)


def test_the_scale_that_the_error_names_is_enough():
    run = recipes.cifar_resnet("resnet20", 0)
    with pytest.raises(ValueError, match=r"a scale of 0\.0001 is enough"):
        recipes.scaled(run, 1e-5)
    assert recipes.scaled(run, 0.0001).drops == (4, 5)


def test_a_run_without_drops():
    run = dataclasses.replace(recipes.digits(0), drops=())
    assert recipes.scaled(run, 0.01).steps == 4
    with pytest.raises(ValueError, match="one step or more"):
        recipes.scaled(run, 0.001)


def test_a_later_step_never_becomes_the_initialisation():
    with pytest.raises(ValueError, match=r"one step or more, got 0\.01: step 44 becomes 0"):
        recipes.scaled_step(44, 0.01)
    assert recipes.scaled_step(0, 0.01) == 0
