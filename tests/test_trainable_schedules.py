"""Learning rates, as tables of literals."""

import math
from dataclasses import replace

import pytest

from trainable import recipes, schedules, strategies
from trainable.config import Cycle, Retraining
from trainable.schedules import constant, cosine, hold, linear, one_cycle, schedule, shift, step_drops

RESNET = recipes.cifar_resnet("resnet20", 0)
WIDE = recipes.wide_resnet("wrn16-8", 0)


def cycle(dense, retraining):
    return Cycle(dense=dense, densities=(0.2,), retraining=retraining)


@pytest.mark.parametrize(
    ("dense", "table"),
    [
        (
            RESNET,
            {
                0: 0.1,
                35_999: 0.1,
                36_000: 0.01,
                53_999: 0.01,
                54_000: 0.001,
                71_999: 0.001,
                72_000: 0.001,
                10**6: 0.001,
            },
        ),
        (
            WIDE,
            {
                0: 0.1,
                31_999: 0.1,
                32_000: 0.02,
                47_999: 0.02,
                48_000: 0.004,
                63_999: 0.004,
                64_000: 0.0008,
                79_999: 0.0008,
                80_000: 0.0008,
                10**6: 0.0008,
            },
        ),
        (recipes.digits(0), {0: 0.1, 199: 0.1, 200: 0.01, 299: 0.01, 300: 0.001, 399: 0.001, 400: 0.001, 9999: 0.001}),
    ],
)
def test_recipes(dense, table):
    """Exactly: 0.1 · 0.1² in floats is 0.0010000000000000002."""
    lr = schedule(dense)
    assert {step: lr(step) for step in table} == table


@pytest.mark.parametrize(
    ("retraining", "table"),
    [
        (strategies.fine_tuning(RESNET), {0: 0.001, 1: 0.001, 71_999: 0.001}),
        (
            strategies.weight_rewinding(RESNET, 8_000),
            {0: 0.1, 27_999: 0.1, 28_000: 0.01, 45_999: 0.01, 46_000: 0.001, 63_999: 0.001, 64_000: 0.001},
        ),
        (strategies.lr_rewinding(RESNET), {0: 0.1, 35_999: 0.1, 36_000: 0.01, 54_000: 0.001, 71_999: 0.001}),
        (strategies.lr_rewinding(RESNET, 20_000), {0: 0.01, 1_999: 0.01, 2_000: 0.001, 19_999: 0.001}),
        (strategies.low_lr_weight_rewinding(RESNET, 8_000), {0: 0.001, 63_999: 0.001}),
        (strategies.reinit(RESNET, extra=72_000), {0: 0.1, 36_000: 0.01, 54_000: 0.001, 143_999: 0.001}),
        # Mikler's released code: weights of step k, clock from 0
        (Retraining(weights_from=8_000, lr_from=0, budget=64_000), {0: 0.1, 35_999: 0.1, 36_000: 0.01, 63_999: 0.001}),
        (Retraining(weights_from=0, lr_from=60_000, budget=50_000), {0: 0.001, 49_999: 0.001}),
    ],
)
def test_a_replay_is_the_dense_schedule_shifted(retraining, table):
    lr = schedule(cycle(RESNET, retraining))
    assert {step: lr(step) for step in table} == table


def test_linear_restart():
    lr = schedule(cycle(RESNET, strategies.restart(RESNET, "linear", 10, peak_lr=0.5, warmup=5)))
    assert [lr(step) for step in range(10)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.4, 0.3, 0.2, 0.1])


def test_cosine_restart_without_a_warm_up_starts_at_the_dense_runs_first_rate():
    lr = schedule(cycle(RESNET, strategies.restart(RESNET, "cosine", 6)))
    half_root_3 = 0.8660254037844386
    table = [1, (1 + half_root_3) / 2, 0.75, 0.5, 0.25, (1 - half_root_3) / 2]
    assert [lr(step) for step in range(6)] == pytest.approx([0.1 * value for value in table])


def test_cosine_with_a_warm_up():
    lr = cosine(1.0, 6, warmup=2)
    assert [lr(step) for step in range(6)] == pytest.approx([0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447], abs=1e-6)


def test_linear_never_reaches_zero_while_it_trains():
    lr = linear(1.0, 4)
    assert [lr(step) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_combinators():
    drops = step_drops(1.0, (2, 4), 0.5)
    assert [drops(step) for step in range(6)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    assert [hold(drops, 3)(step) for step in range(6)] == [1.0, 1.0, 0.5, 0.5, 0.5, 0.5]
    assert [shift(hold(drops, 5), 3)(step) for step in range(4)] == [0.5, 0.25, 0.25, 0.25]
    assert step_drops(0.3, (), 0.1)(10**9) == 0.3


def test_a_rate_with_many_digits_is_used_as_it_stands():
    """The key holds all of its digits, so training must too."""
    dense = replace(RESNET, learning_rate=0.12345678901234567)
    assert schedules.dense_schedule(dense)(0) == 0.12345678901234567


# Dense schedules


def shortened(name, steps=10):
    return recipes.with_schedule(replace(RESNET, steps=steps, drops=()), name)


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("step", [0.1] * 10),
        ("linear", [0.1 - 0.01 * step for step in range(10)]),
        ("cosine", [0.05 * (1 + math.cos(math.pi * step / 10)) for step in range(10)]),
        # three steps up from 0.001, seven down to 0.00001
        (
            "one-cycle",
            [0.001, 0.0505, 0.1]
            + [0.00001 + (0.1 - 0.00001) * (1 + math.cos(math.pi * step / 7)) / 2 for step in range(1, 8)],
        ),
    ],
)
def test_dense_schedules(name, table):
    dense = shortened(name)
    lr = schedule(dense)
    assert [lr(step) for step in range(10)] == pytest.approx(table)
    assert lr(10) == lr(10**6) == pytest.approx(table[-1])
    replayed = schedule(cycle(dense, strategies.lr_rewinding(dense, 4)))
    assert [replayed(step) for step in range(4)] == pytest.approx(table[6:])
    tuned = schedule(cycle(dense, strategies.fine_tuning(dense, 5)))
    assert [tuned(step) for step in range(5)] == pytest.approx([table[-1]] * 5)


def test_a_scaled_restart_of_a_schedule_with_a_warm_up_warms_up_once():
    dense = shortened("one-cycle")
    lr = schedule(cycle(dense, strategies.scaled_restart(dense, 20)))
    rates = [lr(step) for step in range(20)]
    falling = schedule(dense)(3)
    assert rates[:4] == pytest.approx([falling / 2, falling, falling, falling])
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_with_schedule_keeps_the_rest():
    assert recipes.with_schedule(RESNET, "step") == RESNET
    assert recipes.with_schedule(RESNET, "cosine") == replace(RESNET, schedule="cosine", drops=(), drop_factor=1)
    assert recipes.with_schedule(RESNET, "one-cycle").warmup == 21_600
    assert recipes.scaled(recipes.with_schedule(RESNET, "one-cycle"), 0.01).warmup == 216


def test_constant():
    assert [constant(0.5, 4, warmup=2)(step) for step in range(5)] == [0.25, 0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (2, 1), (3, 2), (5, 0), (5, 4), (40, 4)])
def test_one_cycle_begins_and_ends_where_it_should(steps, warmup):
    rates = [one_cycle(1.0, steps, warmup)(step) for step in range(steps)]
    assert max(rates) == rates[max(warmup - 1, 0)] == 1
    assert steps == 1 or rates[-1] == pytest.approx(1e-4)
    assert warmup < 2 or rates[0] == pytest.approx(0.01)
