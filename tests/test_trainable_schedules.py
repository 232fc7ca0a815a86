"""Learning rates, as tables of literals."""

from dataclasses import replace

import pytest

from trainable import recipes, schedules, strategies
from trainable.config import Cycle, Retraining
from trainable.schedules import cosine, hold, linear, schedule, shift, step_drops

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
