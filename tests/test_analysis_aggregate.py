"""Aggregated frames against plain pandas and numbers by hand."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from analysis import aggregate
from analysis.load import SCHEMA


def frame_of(rows) -> pd.DataFrame:
    """Rows of a study's table."""
    return pd.DataFrame(rows).reindex(columns=list(SCHEMA)).astype(SCHEMA)


SEEDS = itertools.count()


def row(accuracy, **columns):
    """A row with a seed of its own."""
    made = {
        "status": "done",
        "key": f"key of {accuracy}",
        "protocol": "0123456789ab",
        "seed": next(SEEDS),
        "dataset": "digits",
        "architecture": "resnet8-8",
        "structure": "unstructured",
        "schedule": "one-shot",
        "strategy": "lr-rewinding",
        "shape": "replay",
        "budget": 400,
        "sparsity_target": 0.5,
        "compression_ratio": 2.0,
        "test_accuracy": accuracy,
    }
    return made | columns


def dense(accuracy, **columns):
    unpruned = {"structure": None, "schedule": "dense", "strategy": "dense", "sparsity_target": 0.0}
    unknown = {"shape": None, "budget": None}
    return row(accuracy, **(unpruned | unknown | {"compression_ratio": 1.0} | columns))


STUDY = [
    *(dense(accuracy) for accuracy in (0.97, 0.99, 0.98)),
    *(row(accuracy) for accuracy in (0.9, 0.8, 0.6)),
    *(row(accuracy, sparsity_target=0.8, compression_ratio=5.0 + accuracy) for accuracy in (0.5, 0.3)),
    row(0.7, strategy="fine-tuning"),
    row(0.65, schedule="iterative", prune_fraction=0.5),
    row(math.nan, status="failed", sparsity_target=0.9),
    row(math.nan, status="missing", strategy="fine-tuning"),
]


def test_accuracy_against_plain_pandas():
    """Line by line: filter, then median, min, max and a count."""
    frame = frame_of(STUDY)
    found = aggregate.accuracy(frame)
    names = ["dataset", "architecture", "structure", "schedule", "strategy", "sparsity_target"]
    for line in found.itertuples():
        chosen = frame[frame["status"] == "done"]
        for name in names:
            value = getattr(line, name)
            chosen = chosen[chosen[name].isna() if pd.isna(value) else (chosen[name] == value).fillna(False)]
        accuracies = chosen["test_accuracy"]
        assert (line.median, line.min, line.max, line.n) == (
            accuracies.median(),
            accuracies.min(),
            accuracies.max(),
            len(accuracies),
        )
        assert line.compression_ratio == chosen["compression_ratio"].median()
    assert found["n"].sum() == 3 + 3 + 2 + 1 + 1


def test_accuracy_by_hand():
    found = aggregate.accuracy(frame_of(STUDY))[
        ["strategy", "schedule", "sparsity_target", "median", "min", "max", "n"]
    ]
    expected = pd.DataFrame(
        [
            ("dense", "dense", 0.0, 0.98, 0.97, 0.99, 3),
            ("lr-rewinding", "one-shot", 0.5, 0.8, 0.6, 0.9, 3),
            ("lr-rewinding", "one-shot", 0.8, 0.4, 0.3, 0.5, 2),
            ("fine-tuning", "one-shot", 0.5, 0.7, 0.7, 0.7, 1),
            ("lr-rewinding", "iterative", 0.5, 0.65, 0.65, 0.65, 1),
        ],
        columns=found.columns,
    )
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def test_two_budgets_are_two_lines():
    """Learning-rate rewinding with weight rewinding's budget beside the published one; fine-tuning has one only."""
    rows = [row(0.9), row(0.8, budget=356), row(0.7, strategy="fine-tuning")]
    found = aggregate.accuracy(frame_of(rows))
    assert list(zip(found["label"], found["median"], found["n"], strict=True)) == [
        ("lr-rewinding (400 steps)", 0.9, 1),
        ("lr-rewinding (356 steps)", 0.8, 1),
        ("fine-tuning", 0.7, 1),
    ]


def test_two_rewind_points_are_two_lines():
    rows = [
        row(0.9, strategy="weight-rewinding", weights_from="44", budget=356),
        row(0.8, strategy="weight-rewinding", weights_from="0", budget=400),
        row(0.8, strategy="weight-rewinding", weights_from="0", budget=400, schedule="iterative"),
    ]
    found = aggregate.accuracy(frame_of(rows))
    assert list(found["label"]) == [
        "weight-rewinding (from 44)",
        "weight-rewinding (from 0)",
        "weight-rewinding",
    ]
    assert list(found["n"]) == [1, 1, 1]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("momentum", ("fresh", "with_weights")),
        ("lr_from", (0, 100)),
        ("weights_from", ("44", None)),
        ("budget", (400, 356)),
        ("shape", ("replay", "linear(peak 0.1, warm-up 40)")),
        ("prune_fraction", (0.2, 0.5)),
        ("protocol", ("0123456789ab", "ba9876543210")),
        ("structure", ("unstructured", "structured")),
    ],
)
def test_different_settings_are_never_pooled(column, values):
    """One median over two ways of retraining would be a number about nothing."""
    rows = [
        row(accuracy, strategy="plane", seed=0, **{column: value})
        for accuracy, value in zip((0.9, 0.5), values, strict=True)
    ]
    found = aggregate.accuracy(frame_of(rows))
    assert list(zip(found["median"], found["n"], strict=True)) == [(0.9, 1), (0.5, 1)]
    assert not found.duplicated([*aggregate.PANEL, "label", "sparsity_target"]).any()


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"momentum": ("fresh", "with_weights")}, ("(fresh momentum)", "(with_weights momentum)")),
        ({"lr_from": (0, 100)}, ("(clock from 0)", "(clock from 100)")),
        ({"weights_from": ("44", None)}, ("(from 44)", "(from the kept)")),
        ({"weights_from": ("44", "0"), "budget": (356, 400)}, ("(from 44)", "(from 0)")),
        ({"weights_from": ("44", "0"), "lr_from": (44, 0)}, ("(from 44)", "(from 0)")),
        ({"budget": (400, 356)}, ("(400 steps)", "(356 steps)")),
        ({"shape": ("replay", "linear(peak 0.1, warm-up 40)")}, ("(replay)", "(linear(peak 0.1, warm-up 40))")),
    ],
)
def test_labels_say_what_differs_and_no_more(columns, said):
    rows = [row(0.9, **{name: values[place] for name, values in columns.items()}) for place in (0, 1)]
    elsewhere = row(0.9, schedule="iterative", **{name: values[0] for name, values in columns.items()})
    frame = frame_of([*rows, row(0.8, strategy="fine-tuning"), elsewhere])
    expected = [*(f"lr-rewinding {words}" for words in said), "fine-tuning", "lr-rewinding"]
    assert list(aggregate.labels(frame)) == expected


def test_a_seed_that_would_count_twice():
    once = [row(0.9, seed=3, key="a"), row(0.8, seed=4, key="b"), row(0.9, seed=3, key="c", sparsity_target=0.8)]
    assert list(aggregate.accuracy(frame_of(once))["n"]) == [2, 1]
    with pytest.raises(ValueError, match=r"^rows that count a seed twice: keys d …$"):
        aggregate.accuracy(frame_of([*once, row(0.7, seed=3, key="d")]))
    missing = row(math.nan, seed=3, key="d", status="missing")
    assert list(aggregate.accuracy(frame_of([*once, missing]))["n"]) == [2, 1]


def test_titles():
    rows = [dense(0.9), row(0.9), row(0.9, schedule="iterative", prune_fraction=0.2, structure="structured")]

    def titles(rows):
        table = aggregate.accuracy(frame_of(rows))
        return [aggregate.title(line, table) for _, line in table.iterrows()]

    assert titles(rows) == [
        "digits, resnet8-8, dense",
        "digits, resnet8-8, unstructured, one-shot",
        "digits, resnet8-8, structured, iterative, −20 % a cycle",
    ]
    networks = [dense(0.9), dense(0.9, architecture="resnet20", protocol="ba9876543210")]
    assert titles(networks) == ["digits, resnet8-8, dense", "digits, resnet20, dense"]
    protocols = [dense(0.9), dense(0.9, protocol="ba9876543210")]
    assert titles(protocols) == [
        "digits, resnet8-8, dense, protocol 0123456789ab",
        "digits, resnet8-8, dense, protocol ba9876543210",
    ]


def test_nothing_finished():
    frame = frame_of([row(math.nan, status=status) for status in ("missing", "missing", "failed")])
    with pytest.raises(ValueError, match=r"no cell is finished \(2 missing, 1 failed\): nothing to show"):
        aggregate.accuracy(frame)
    with pytest.raises(ValueError, match=r"no cell is finished"):
        aggregate.accuracy(frame_of([]))


def test_cells_not_finished_are_counted():
    """Three of lr-rewinding's rows at 0.5 are done; fine-tuning waits for one, and a sparsity without any is no row."""
    found = aggregate.accuracy(frame_of(STUDY))
    assert list(zip(found["strategy"], found["n"], found["declared"], strict=True)) == [
        ("dense", 3, 3),
        ("lr-rewinding", 3, 3),
        ("lr-rewinding", 2, 2),
        ("fine-tuning", 1, 2),
        ("lr-rewinding", 1, 1),
    ]


def test_change_cost_and_speed_are_medians():
    rows = [
        row(0.9, delta_test_accuracy=delta, total_steps=steps, theoretical_speedup=speed)
        for delta, steps, speed in ((-0.01, 800, 1.5), (-0.03, 800, 1.7), (0.0, 800, 1.9))
    ]
    found = aggregate.accuracy(frame_of(rows))[["delta", "total_steps", "theoretical_speedup"]]
    expected = pd.DataFrame([(-1.0, 800.0, 1.7)], columns=found.columns)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def test_a_budget_chosen_for_each_sparsity_is_one_line():
    """As load.best_budget leaves a frame: told that a line is a strategy, no line breaks."""
    rows = [
        row(0.9, sparsity_target=sparsity, budget=budget, weights_from=source)
        for sparsity, budget, source in ((0.5, 400, "0"), (0.8, 356, "44"))
    ]
    assert list(aggregate.accuracy(frame_of(rows))["label"].unique()) == [
        "lr-rewinding (from 0)",
        "lr-rewinding (from 44)",
    ]
    assert list(aggregate.accuracy(frame_of(rows), ["strategy"])["label"]) == ["lr-rewinding"] * 2


def pair(unit, a, b, **columns):
    """LR rewinding and fine-tuning on one unit."""
    return [
        row(accuracy, seed=int(unit[1:]), unit=unit, strategy=strategy, **columns)
        for strategy, accuracy in (("lr-rewinding", a), ("fine-tuning", b))
        if accuracy is not None
    ]


PAIRS = [*pair("u0", 0.9, 0.8), *pair("u1", 0.8, 0.75), *pair("u2", 0.85, 0.85), *pair("u3", 0.7, None)]
AT = ["dataset", "architecture", "structure", "schedule", "prune_fraction", "protocol", "sparsity_target"]


def test_paired_differences_on_the_same_units():
    found = aggregate.paired_differences(frame_of(PAIRS), "lr-rewinding", "fine-tuning")
    place = ("digits", "resnet8-8", "unstructured", "one-shot", math.nan, "0123456789ab", 0.5)
    lines = ("lr-rewinding", "fine-tuning", 400, 400)
    expected = pd.DataFrame(
        [(*place, *lines, unit, int(unit[1:]), points) for unit, points in (("u0", 10.0), ("u1", 5.0), ("u2", 0.0))],
        columns=[*AT, "label_a", "label_b", "budget_a", "budget_b", "unit", "seed", "difference"],
    )
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def test_interval_of_a_difference_is_the_t_interval():
    found = aggregate.difference_intervals(frame_of(PAIRS), "lr-rewinding", "fine-tuning")
    (line,) = found.itertuples()
    test = scipy_stats.ttest_1samp([10.0, 5.0, 0.0], 0)
    interval = test.confidence_interval(0.95)
    assert (line.mean, line.n, line.paired, line.compression_ratio) == (pytest.approx(5.0), 3, True, 2.0)
    assert (line.low, line.high, line.p) == pytest.approx((interval.low, interval.high, test.pvalue))
    assert line.p_adjusted == pytest.approx(line.p)


def test_p_is_adjusted_over_the_rows():
    """Benjamini and Hochberg 1995: the smaller of two p values is doubled, the larger stays."""
    rows = [*PAIRS]
    for unit, a, b in (("u0", 0.9, 0.8), ("u1", 0.8, 0.69), ("u2", 0.85, 0.76)):
        rows += pair(unit, a, b, sparsity_target=0.8)
    found = aggregate.difference_intervals(frame_of(rows), "lr-rewinding", "fine-tuning")
    large, small = found["p"]
    assert small < large
    assert list(found["p_adjusted"]) == pytest.approx([large, 2 * small])


def test_one_unit_has_no_interval():
    found = aggregate.difference_intervals(frame_of(PAIRS[:2]), "lr-rewinding", "fine-tuning")
    (line,) = found.itertuples()
    assert (line.mean, line.n) == (pytest.approx(10.0), 1)
    assert found[["low", "high", "p", "p_adjusted"]].isna().all(axis=None)


def test_a_tie_everywhere_has_p_1():
    rows = [*pair("u0", 0.8, 0.8), *pair("u1", 0.7, 0.7)]
    (line,) = aggregate.difference_intervals(frame_of(rows), "lr-rewinding", "fine-tuning").itertuples()
    assert (line.mean, line.low, line.high, line.p) == (0.0, 0.0, 0.0, 1.0)


def test_without_common_units_the_interval_is_welchs():
    """Chains that were trained from different dense networks."""
    ours, theirs = (0.9, 0.8, 0.85), (0.7, 0.75)
    rows = [row(accuracy, unit=f"a{i}") for i, accuracy in enumerate(ours)]
    rows += [row(accuracy, unit=f"b{i}", strategy="fine-tuning") for i, accuracy in enumerate(theirs)]
    frame = frame_of(rows)
    assert aggregate.paired_differences(frame, "lr-rewinding", "fine-tuning").empty
    (line,) = aggregate.difference_intervals(frame, "lr-rewinding", "fine-tuning").itertuples()
    test = scipy_stats.ttest_ind(100 * np.array(ours), 100 * np.array(theirs), equal_var=False)
    interval = test.confidence_interval(0.95)
    assert (line.mean, line.n, line.paired) == (pytest.approx(12.5), 2, False)
    assert (line.low, line.high, line.p) == pytest.approx((interval.low, interval.high, test.pvalue))


def test_lines_of_equal_budget_are_compared():
    rows = [
        row(0.9, unit="u0", seed=0),
        row(0.8, unit="u0", seed=0, budget=356),
        row(0.7, unit="u0", seed=0, budget=356, strategy="weight-rewinding", weights_from="44"),
    ]
    found = aggregate.paired_differences(frame_of(rows), "lr-rewinding", "weight-rewinding")
    assert found[["label_a", "budget_a", "budget_b", "difference"]].to_numpy().tolist() == [
        ["lr-rewinding (356 steps)", 356, 356, pytest.approx(10.0)]
    ]
    found = aggregate.paired_differences(frame_of([rows[0], rows[2]]), "lr-rewinding", "weight-rewinding")
    assert found[["budget_a", "budget_b", "difference"]].to_numpy().tolist() == [[400, 356, pytest.approx(20.0)]]
    found = aggregate.paired_differences(frame_of(rows), "lr-rewinding (400 steps)", "weight-rewinding")
    assert list(found["difference"]) == [pytest.approx(20.0)]


def test_a_strategy_that_is_not_there():
    said = r"^no finished row of strategy 'reinit': there are lr-rewinding, fine-tuning$"
    with pytest.raises(ValueError, match=said):
        aggregate.difference_intervals(frame_of(PAIRS), "lr-rewinding", "reinit")


def test_win_tie_loss_by_two_test_images():
    """Of 360 images: 2 are 0.5556 points. Below is a tie, that much is not."""
    differences = {0.5: 0.0, 0.6: 1 / 360, 0.7: 2 / 360, 0.8: -2 / 360, 0.9: 1.5 / 360}
    rows = []
    for sparsity, difference in differences.items():
        rows += pair("u0", 0.8 + difference, 0.8, sparsity_target=sparsity)
    found = aggregate.win_tie_loss(frame_of([dense(0.9), *rows]))
    assert list(zip(found["sparsity_target"], found["outcome"], found["n"], strict=True)) == [
        (0.5, "tie", 1),
        (0.6, "tie", 1),
        (0.7, "win", 1),
        (0.8, "loss", 1),
        (0.9, "tie", 1),
    ]
    assert set(zip(found["a"], found["b"], strict=True)) == {("lr-rewinding", "fine-tuning")}


def test_of_an_unknown_test_set_only_equals_tie():
    rows = [*pair("u0", 0.8, 0.8), *pair("u0", 0.8001, 0.8, sparsity_target=0.8)]
    found = aggregate.win_tie_loss(frame_of([made | {"dataset": "mine"} for made in rows]))
    assert list(found["outcome"]) == ["tie", "win"]


def test_strategies_that_never_meet():
    rows = [*pair("u0", 0.9, None), *pair("u0", None, 0.8, sparsity_target=0.8)]
    assert aggregate.win_tie_loss(frame_of(rows)).empty
    assert aggregate.difference_intervals(frame_of(rows), "lr-rewinding", "fine-tuning").empty


def test_one_strategy_wins_against_nobody():
    with pytest.raises(ValueError, match=r"two strategies are needed to say who is ahead, the frame has lr-rewinding"):
        aggregate.win_tie_loss(frame_of([row(0.9)]))


def curve(seed, changes, **columns):
    """A cell at compression 2, 4, 8, … for each change in points."""
    return [
        row(
            0.9,
            seed=seed,
            unit=f"u{seed}",
            sparsity_target=1 - 2.0 ** -(i + 1),
            compression_ratio=2.0 ** (i + 1),
            delta_test_accuracy=None if change is None else change / 100,
            **columns,
        )
        for i, change in enumerate(changes)
    ]


@pytest.mark.parametrize(
    ("changes", "tolerance", "expected"),
    [
        ((0.0, -1.0, -3.0), 2.0, (4 * 2**0.5, "")),  # half way from −1 to −3, in the logarithm
        ((0.0, -1.0, -3.0), 1.0, (4.0, "")),
        ((0.0, -1.0, -3.0), 3.0, (8.0, "at least")),
        ((-0.5, -1.0, -3.0), 0.0, (2.0, "at most")),
        ((0.0, -2.0, 0.0), 1.0, (8.0, "at least")),  # isotonic: the last two are −1 together
        ((0.0, -2.0, 0.0), 0.5, (2 * 2**0.5, "")),
        ((-1.0,), 0.5, (2.0, "at most")),
    ],
)
def test_reach(changes, tolerance, expected):
    assert aggregate.reach([2.0, 4.0, 8.0][: len(changes)], changes, tolerance) == (
        pytest.approx(expected[0]),
        expected[1],
    )


def test_iso_accuracy_over_seeds():
    rows = [*curve(0, (0.0, -1.0, -3.0)), *curve(1, (0.0, -1.0, -1.5)), *curve(2, (-2.0, -2.5, -4.0))]
    found = aggregate.iso_accuracy(frame_of([dense(0.9), *rows]), [1.0, 2.0])
    columns = [
        "label",
        "tolerance",
        "ratio",
        "bound",
        "low",
        "low_bound",
        "high",
        "high_bound",
        "interval",
        "n",
        "seeds",
    ]
    expected = pd.DataFrame(
        [
            ("lr-rewinding", 1.0, 4.0, "", 2.0, "at most", 4.0, "", "min–max", 3, 3),
            ("lr-rewinding", 2.0, 4 * 2**0.5, "", 2.0, "", 8.0, "at least", "min–max", 3, 3),
        ],
        columns=columns,
    )
    pd.testing.assert_frame_equal(found[columns], expected, check_dtype=False)


@pytest.mark.parametrize(
    ("curves", "ratio", "bound"),
    [
        (((0.0, -3.0), (0.0, 0.0)), (2 * 2 ** (1 / 3) + 4) / 2, "at least"),
        (((-3.0, -3.0), (0.0, -3.0)), (2 + 2 * 2 ** (1 / 3)) / 2, "at most"),
        (((0.0, 0.0), (0.0, 0.0)), 4.0, "at least"),
        (((-3.0, -3.0), (0.0, 0.0)), math.nan, "unknown"),
    ],
)
def test_iso_accuracy_of_two_seeds_is_bounded_as_they_are(curves, ratio, bound):
    rows = [cell for seed, changes in enumerate(curves) for cell in curve(seed, changes)]
    (line,) = aggregate.iso_accuracy(frame_of(rows), [1.0]).itertuples()
    assert (line.ratio, line.bound) == (pytest.approx(ratio, nan_ok=True), bound)


def test_iso_accuracy_counts_whole_curves_only():
    """A seed whose last sparsity is not finished would say "at least" too early."""
    unfinished = [*curve(1, (0.0,)), row(math.nan, seed=1, unit="u1", status="missing", sparsity_target=0.75)]
    (line,) = aggregate.iso_accuracy(frame_of([*curve(0, (0.0, -1.0)), *unfinished]), [0.5]).itertuples()
    assert (line.n, line.seeds, line.ratio) == (1, 2, pytest.approx(2 * 2**0.5))
    unknown = [*curve(0, (None, -1.0)), *curve(1, (0.0,))]
    (line,) = aggregate.iso_accuracy(frame_of(unknown), [0.5]).itertuples()
    assert (line.n, line.bound, math.isnan(line.ratio)) == (0, "unknown", True)


def test_iso_accuracy_has_an_interval_from_six_seeds_on():
    rows = [cell for seed in range(6) for cell in curve(seed, (0.0, -1.0 - seed))]
    (line,) = aggregate.iso_accuracy(frame_of(rows), [0.5]).itertuples()
    assert (line.interval, line.n) == ("95 %", 6)
    assert (line.low, line.high) == pytest.approx((2 * 2 ** (0.5 / 6), 2 * 2**0.5))


def test_search_cost_and_its_front():
    cheap, dear, worse, small = (
        row(accuracy, strategy=strategy, total_steps=steps, compression_ratio=ratio, sparsity_target=1 - 1 / ratio)
        for strategy, accuracy, steps, ratio in (
            ("lr-rewinding", 0.90, 800, 2.0),
            ("weight-rewinding", 0.92, 1200, 2.0),
            ("fine-tuning", 0.90, 1200, 2.0),
            ("fine-tuning", 0.70, 1200, 4.0),
        )
    )
    found = aggregate.search_cost(frame_of([dense(0.95), cheap, dear, worse, small]))
    columns = ["strategy", "compression_ratio", "total_steps", "median", "front"]
    expected = pd.DataFrame(
        [
            ("lr-rewinding", 2.0, 800.0, 0.90, True),
            ("weight-rewinding", 2.0, 1200.0, 0.92, True),
            ("fine-tuning", 2.0, 1200.0, 0.90, False),
            ("fine-tuning", 4.0, 1200.0, 0.70, True),
        ],
        columns=columns,
    )
    pd.testing.assert_frame_equal(found[columns], expected, check_dtype=False)


def test_equal_points_are_both_on_the_front():
    rows = [row(0.9, strategy=strategy, total_steps=800) for strategy in ("lr-rewinding", "fine-tuning")]
    assert list(aggregate.search_cost(frame_of(rows))["front"]) == [True, True]


def test_no_search_cost():
    with pytest.raises(ValueError, match=r"no finished cell says its total steps: there is no search cost to show"):
        aggregate.search_cost(frame_of([row(0.9)]))


def network(architecture, changes, seeds=2, spread=0.0):
    """Both strategies' cells of an architecture: changes in points by strategy and sparsity, seeds `spread` apart."""
    return [
        row(
            0.9,
            architecture=architecture,
            protocol=architecture,
            seed=seed,
            unit=f"{architecture} {seed}",
            strategy=strategy,
            sparsity_target=sparsity,
            dense_steps=400,
            delta_test_accuracy=(change + spread * seed) / 100,
        )
        for (strategy, sparsity), change in changes.items()
        for seed in range(seeds)
    ]


TWO = [
    *network("a", {("lr-rewinding", 0.5): 0.0, ("lr-rewinding", 0.8): -2.0, ("fine-tuning", 0.5): -1.0}, spread=0.5),
    *network("b", {("lr-rewinding", 0.5): -4.0, ("fine-tuning", 0.5): -3.0}, spread=0.5),
]


def test_mean_across_architectures():
    """Each network weighs the same; 0.8 of network a is left out: fine-tuning lacks it."""
    found = aggregate.across_architectures(frame_of(TWO))
    columns = ["schedule", "label", "measure", "value", "coverage", "pairs", "sparsities", "left_out", "seeds"]
    expected = pd.DataFrame(
        [
            ("one-shot", "lr-rewinding", "mean", (0.25 - 3.75) / 2, 0.668, 2, 2, 2, 2),
            ("one-shot", "fine-tuning", "mean", (-0.75 - 2.75) / 2, 0.668, 2, 2, 2, 2),
        ],
        columns=columns,
    )
    pd.testing.assert_frame_equal(found[columns], expected, check_dtype=False)
    low, high = found.loc[0, ["low", "high"]]
    assert (low, high) == pytest.approx((-2.0, -1.5))  # every unit 0.25 below or above its network's mean


def test_more_sparsities_of_a_network_are_no_more_weight():
    changes = {(strategy, sparsity): -1.0 for strategy in ("lr-rewinding", "fine-tuning") for sparsity in (0.5, 0.8)}
    rows = [*network("a", changes), *network("b", {("lr-rewinding", 0.5): -4.0, ("fine-tuning", 0.5): -4.0})]
    assert list(aggregate.across_architectures(frame_of(rows))["value"]) == pytest.approx([-2.5, -2.5])


def test_a_missing_seed_shifts_no_mean():
    rows = [cell for cell in TWO if cell["strategy"] == "lr-rewinding" and cell["sparsity_target"] == 0.5]
    whole, without = frame_of(rows), frame_of(rows[1:])
    assert aggregate.across_architectures(whole)["value"].item() == pytest.approx((0.25 - 3.75) / 2)
    found = aggregate.across_architectures(without)
    assert found["value"].item() == pytest.approx((0.5 - 3.75) / 2)
    assert found[["low", "high", "coverage"]].isna().all(axis=None)  # one network has but one seed
    assert found["seeds"].item() == 1


def test_the_interquartile_mean_comes_from_four_networks_on():
    changes = (-8.0, -2.0, -1.0, 3.0)
    rows = [cell for i, change in enumerate(changes) for cell in network(f"n{i}", {("lr-rewinding", 0.5): change})]
    found = aggregate.across_architectures(frame_of(rows))
    assert dict(zip(found["measure"], found["value"], strict=True)) == pytest.approx(
        {"mean": -2.0, "interquartile mean": -1.5}
    )
    assert set(aggregate.across_architectures(frame_of(rows[2:]))["measure"]) == {"mean"}


def test_the_bootstrap_is_seeded():
    frame = frame_of(network("a", {("lr-rewinding", 0.5): 0.0}, seeds=5, spread=1.0))
    one, same, other = (aggregate.across_architectures(frame, seed=seed, resamples=50) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(one, same)
    assert list(one["low"]) != list(other["low"])


def test_improvement_counts_ties_half():
    """Network a: 0.0, 0.5 against −0.5, 0.0: ahead in 3 of 4 pairs of seeds, level in one. Network b: never."""
    rows = [
        *network("a", {("lr-rewinding", 0.5): 0.0, ("fine-tuning", 0.5): -0.5}, spread=0.5),
        *network("b", {("lr-rewinding", 0.5): -4.0, ("fine-tuning", 0.5): -1.0}, spread=0.5),
    ]
    (line,) = aggregate.improvement(frame_of(rows)).itertuples()
    assert (line.a, line.b, line.probability) == ("lr-rewinding", "fine-tuning", pytest.approx((3.5 / 4 + 0) / 2))
    assert line.low <= line.probability <= line.high


def test_improvement_is_scipys_rank_sum():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=5), rng.normal(size=5)
    rows = [
        row(0.9, seed=seed, strategy=strategy, dense_steps=400, delta_test_accuracy=change)
        for strategy, changes in (("lr-rewinding", ours), ("fine-tuning", theirs))
        for seed, change in enumerate(changes)
    ]
    found = aggregate.improvement(frame_of(rows))["probability"].item()
    assert found == pytest.approx(scipy_stats.mannwhitneyu(ours, theirs).statistic / 25)


def test_profiles():
    frame = frame_of(TWO)
    found = aggregate.profiles(frame, thresholds=[-4.0, -3.5, 0.0, 0.5, 1.0])
    lr = found[found["label"] == "lr-rewinding"]  # 0, 0.5 on network a; −4, −3.5 on b
    assert list(lr["share"]) == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])
    assert (lr["low"] <= lr["share"]).all()
    assert (lr["share"] <= lr["high"]).all()
    steps = aggregate.profiles(frame)
    assert len(steps) == 2 * 101
    assert steps.groupby("label")["share"].apply(lambda share: share.is_monotonic_decreasing).all()


def test_steps_are_shares_of_the_dense_run_across_architectures():
    """Two budgets of one strategy: 400 of 400 and 800 of 800 steps are the same thing."""
    rows = []
    for architecture, steps in (("a", 400), ("b", 800)):
        for share in (0.5, 1.0):
            rows += [
                cell | {"dense_steps": steps, "budget": int(share * steps)}
                for cell in network(architecture, {("lr-rewinding", 0.5): -share})
            ]
    found = aggregate.across_architectures(frame_of(rows))
    assert dict(zip(found["label"], found["value"], strict=True)) == pytest.approx(
        {"lr-rewinding (0.5 of the dense steps)": -0.5, "lr-rewinding (1.0 of the dense steps)": -1.0}
    )


def test_two_protocols_are_not_mixed():
    rows = [*network("a", {("lr-rewinding", 0.5): 0.0}), *network("a", {("lr-rewinding", 0.8): 0.0})]
    rows = [*rows[:2], *(cell | {"protocol": "other"} for cell in rows[2:])]
    with pytest.raises(ValueError, match=r"^digits a stands under two protocols \(a, other\): aggregates do not mix"):
        aggregate.across_architectures(frame_of(rows))


def test_nothing_in_common():
    rows = [*network("a", {("lr-rewinding", 0.5): 0.0}), *network("a", {("fine-tuning", 0.8): 0.0})]
    with pytest.raises(ValueError, match=r"no sparsity is finished by all of lr-rewinding, fine-tuning"):
        aggregate.improvement(frame_of(rows))
    with pytest.raises(ValueError, match=r"no pruned cell has its seed's dense accuracy"):
        aggregate.profiles(frame_of([row(0.9)]))


@pytest.mark.parametrize(
    ("pairs", "seeds", "expected"), [(4, 3, 0.843), (5, 3, 0.843), (4, 7, 0.904), (99, 99, 0.940), (1, 2, 0.498)]
)
def test_coverage_between_entries_is_the_lower_ones(pairs, seeds, expected):
    assert aggregate.coverage(pairs, seeds) == expected


def test_coverage_of_one_seed_is_not_known():
    assert math.isnan(aggregate.coverage(4, 1))


@pytest.mark.slow
@pytest.mark.parametrize(("pairs", "seeds"), [(1, 3), (2, 5), (4, 3), (8, 5)])
def test_coverage_measured_again(pairs, seeds):
    """On frames, through the function that users call: 1,000 of them (3 standard errors, and 0.01)."""
    rng = np.random.default_rng(pairs * 100 + seeds)
    rows = [cell for i in range(pairs) for cell in network(f"n{i}", {("lr-rewinding", 0.5): 0.0}, seeds)]
    frame, hits = frame_of(rows), 0
    for repeat in range(1000):
        frame["delta_test_accuracy"] = rng.normal(size=len(frame)) / 100
        found = aggregate.across_architectures(frame, resamples=1000, seed=repeat).iloc[0]
        hits += found["low"] <= 0 <= found["high"]
    assert hits / 1000 == pytest.approx(aggregate.coverage(pairs, seeds), abs=0.01 + 3 * 0.013)


@pytest.mark.parametrize(
    "computed",
    [
        aggregate.accuracy,
        aggregate.iso_accuracy,
        aggregate.search_cost,
        aggregate.win_tie_loss,
        aggregate.across_architectures,
        aggregate.improvement,
        aggregate.profiles,
        lambda frame: aggregate.paired_differences(frame, "lr-rewinding", "fine-tuning"),
        lambda frame: aggregate.difference_intervals(frame, "lr-rewinding", "fine-tuning"),
    ],
)
def test_nothing_is_finished(computed):
    with pytest.raises(ValueError, match=r"no cell is finished \(1 missing\)"):
        computed(frame_of([row(math.nan, status="missing")]))


@pytest.mark.parametrize("computed", [aggregate.iso_accuracy, aggregate.search_cost, aggregate.win_tie_loss])
def test_nothing_pruned_is_finished(computed):
    with pytest.raises(ValueError, match=r"no pruned cell is finished \(dense: 1\): nothing to compare"):
        computed(frame_of([dense(0.9), row(math.nan, status="missing")]))


def test_masks_are_lines_of_their_own():
    frame = frame_of([row(0.9, seed=0, mask="magnitude"), row(0.5, seed=0, mask="random")])
    found = aggregate.accuracy(frame)
    assert dict(zip(found["label"], found["median"], strict=True)) == {
        "lr-rewinding (magnitude mask)": 0.9,
        "lr-rewinding (random mask)": 0.5,
    }


def test_noise_against_plain_arithmetic():
    frame = frame_of(
        [dense(0.98), *(row(x) for x in (0.90, 0.94)), *(row(x, sparsity_target=0.8) for x in (0.5, 0.58))]
    )
    first, second = aggregate.noise(frame).to_dict("records")
    assert (first["strategy"], first["accuracy"], first["images"]) == ("dense", 0.98, 360)
    assert math.isnan(first["seed_sd"])
    assert first["test_se"] == pytest.approx(100 * math.sqrt(0.98 * 0.02 / 360))
    assert second["seed_sd"] == pytest.approx(100 * math.sqrt((2 * 0.02**2 + 2 * 0.04**2) / 2))
    assert second["test_se"] == pytest.approx(100 * math.sqrt(0.74 * 0.26 / 360))


def test_noise_on_a_test_set_of_unknown_size():
    found = aggregate.noise(frame_of([row(0.9, dataset="mine@0123456789abcdef")]))
    assert found["test_se"].isna().tolist() == [True]
