"""The accuracy table against plain pandas and numbers by hand."""

import itertools
import math

import pandas as pd
import pytest

from analysis import load, tables


def frame_of(rows) -> pd.DataFrame:
    """Finished rows of a study's table with the columns that tables read."""
    return pd.DataFrame(rows).reindex(columns=list(load.SCHEMA)).astype(load.SCHEMA)


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
    found = tables.accuracy(frame)
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
    found = tables.accuracy(frame_of(STUDY))[["strategy", "schedule", "sparsity_target", "median", "min", "max", "n"]]
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
    found = tables.accuracy(frame_of(rows))
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
    found = tables.accuracy(frame_of(rows))
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
    found = tables.accuracy(frame_of(rows))
    assert list(zip(found["median"], found["n"], strict=True)) == [(0.9, 1), (0.5, 1)]
    assert not found.duplicated([*tables.PANEL, "label", "sparsity_target"]).any()


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
    assert list(tables.labels(frame)) == expected


def test_a_seed_that_would_count_twice():
    once = [row(0.9, seed=3, key="a"), row(0.8, seed=4, key="b"), row(0.9, seed=3, key="c", sparsity_target=0.8)]
    assert list(tables.accuracy(frame_of(once))["n"]) == [2, 1]
    with pytest.raises(ValueError, match=r"^rows that count a seed twice: keys d …$"):
        tables.accuracy(frame_of([*once, row(0.7, seed=3, key="d")]))
    missing = row(math.nan, seed=3, key="d", status="missing")
    assert list(tables.accuracy(frame_of([*once, missing]))["n"]) == [2, 1]


def test_titles():
    rows = [dense(0.9), row(0.9), row(0.9, schedule="iterative", prune_fraction=0.2, structure="structured")]

    def titles(rows):
        table = tables.accuracy(frame_of(rows))
        return [tables.title(line, table) for _, line in table.iterrows()]

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
        tables.accuracy(frame)
    with pytest.raises(ValueError, match=r"no cell is finished"):
        tables.accuracy(frame_of([]))


def test_text():
    text = tables.as_text(tables.accuracy(frame_of(STUDY)))
    panels = [panel.splitlines() for panel in text.split("\n\n")]
    assert [panel[0] for panel in panels] == [
        "digits, resnet8-8, dense: test accuracy, %, by sparsity",
        "digits, resnet8-8, unstructured, one-shot: test accuracy, %, by sparsity",
        "digits, resnet8-8, unstructured, iterative, −50 % a cycle: test accuracy, %, by sparsity",
    ]
    assert panels[1][1].split() == ["0.5", "0.8"]
    assert panels[1][2].split() == ["lr-rewinding", "80.0", "[60.0,", "90.0]", "n=3", "40.0", "[30.0,", "50.0]", "n=2"]
    assert panels[1][3].split() == ["fine-tuning", "70.0", "[70.0,", "70.0]", "n=1"]
    assert "<NA>" not in text
    assert "nan" not in text


def test_columns_of_the_text_are_by_increasing_sparsity():
    rows = [row(0.5, sparsity_target=sparsity) for sparsity in (0.9375, 0.5, 0.107)]
    assert tables.as_text(tables.accuracy(frame_of(rows))).splitlines()[1].split() == ["0.107", "0.5", "0.9375"]
