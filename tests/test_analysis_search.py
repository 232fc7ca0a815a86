"""What a search found: formulas against simulations, figures by their data."""

import json
import math
import re

import numpy as np
import optuna
import pandas as pd
import pytest

from analysis import search
from analysis.load import SCHEMA

ABOUT = {
    "dataset": "digits",
    "architecture": "resnet8-8",
    "structure": "unstructured",
    "sparsity": 0.95,
    "protocol": "abc",
    "val_examples": 200,
    "seeds": [0, 1],
    "space": "plane",
    "steps": 400,
    "grid": 100,
    "between": [0, 400],
    "budget": 400,
    "parameters": {"weights_from": [0, 100, 200, 300, 400], "lr_from": [0, 100, 200, 300, 400]},
    "named": {
        "fine-tuning": {"weights_from": None, "lr_from": 400},
        "lr-rewinding": {"weights_from": None, "lr_from": 0},
        "weight-rewinding": {"weights_from": 100, "lr_from": 100},
    },
}
POINTS = {
    (400, 400): (0.60, 0.70),
    (400, 0): (0.90, 0.92),
    (100, 100): (0.88, 0.92),
    (300, 100): (0.93, 0.95),
    (100, 400): None,
}
"""Validation accuracy by seed, by point."""
FRESH = {(400, 400): (0.60, 0.62), (400, 0): (0.90, 0.92), (100, 100): (0.88, 0.90), (300, 100): (0.91, 0.95)}
"""Test accuracy on seeds 2 and 3; validation accuracy is 0.01 more."""


def trial(number, params, values):
    keys = [f"{'-'.join(map(str, params.values()))}-{seed}" for seed in (0, 1)]
    value = None if values is None else sum(values) / len(values)
    return {"number": number, "params": params, "keys": keys, "val_accuracy": values, "value": value, "error": None}


def plane(points=POINTS, **about) -> search.Searched:
    trials = [
        trial(n, dict(zip(ABOUT["parameters"], point, strict=True)), values)
        for n, (point, values) in enumerate(points.items())
    ]
    return search._searched([{"search": ABOUT | about, "trials": trials}])


def row(point, seed, val, test):
    weights_from = None if point[0] == 400 else str(point[0])
    known = {name: ABOUT[name] for name in ("dataset", "architecture", "structure", "protocol")}
    known |= {"key": f"{point[0]}-{point[1]}-{seed}", "status": "done", "schedule": "one-shot", "seed": seed}
    known |= {"weights_from": weights_from, "lr_from": point[1], "budget": 400, "shape": "replay", "momentum": "fresh"}
    return known | {"sparsity_target": 0.95, "val_accuracy": val, "test_accuracy": test, "strategy": "plane"}


@pytest.fixture
def frame() -> pd.DataFrame:
    rows = [row(at, seed, values[seed], 0.5) for at, values in POINTS.items() if values for seed in (0, 1)]
    rows += [row(at, seed, tests[seed - 2] + 0.01, tests[seed - 2]) for at, tests in FRESH.items() for seed in (2, 3)]
    return pd.DataFrame(rows, columns=list(SCHEMA)).astype(SCHEMA)


# Luck


def test_expected_maximum_of_normals():
    """Tabulated: Teichroew 1956, Tables of expected values of order statistics."""
    table = {1: 0.0, 2: 0.56419, 5: 1.16296, 10: 1.53875, 20: 1.86748, 50: 2.24907, 100: 2.50759}
    for n, expected in table.items():
        assert search.expected_maximum(n) == pytest.approx(expected, abs=1e-5)


def test_luck_is_what_the_best_of_equal_points_shows():
    """1,000 searches of 30 equal points on 3 shared seeds, four of the points named: mean gain over the best named."""
    random = np.random.default_rng(0)
    gains, said = [], []
    for _ in range(1_000):
        values = random.normal(0, 1, (30, 3)) + random.normal(0, 5, 3)
        means = values.mean(axis=1)
        gains.append(means.max() - means[:4].max())
        said.append(search.luck(values.tolist(), 4))
    # The better half of equal points was chosen for its means, not for its residuals.
    assert np.mean(said) == pytest.approx(np.mean(gains), rel=0.05)
    assert np.mean(said) == pytest.approx((2.0428 - 1.0294) / math.sqrt(3), rel=0.05)


def test_seed_effects_are_no_luck_and_poor_points_are_no_rivals():
    assert search.luck([[0.9, 0.5], [0.8, 0.4], [0.7, 0.3]], 1) == pytest.approx(0, abs=1e-12)
    good = [[0.90, 0.91], [0.91, 0.90]]
    calm, wild = (search.luck([*good, [0.5, 0.5 + d], [0.4, 0.4 - d]], 1) for d in (0.0, 0.3))
    assert calm == wild > 0


def test_luck_is_unknown_with_one_seed_or_point():
    assert math.isnan(search.luck([[0.9], [0.8]], 1))
    assert math.isnan(search.luck([[0.9, 0.8]], 1))


def test_best_of_random_is_the_mean_of_all_draws():
    values = [0.1, 0.5, 0.2]
    draws = [max(a, b) for a in values for b in values]
    assert search.best_of_random(values)[1] == pytest.approx(np.mean(draws))
    assert search.best_of_random(values)[0] == pytest.approx(np.mean(values))


# The outcome


def test_outcome(frame):
    found = search.outcome(plane(), frame)
    assert (found.best, found.itself) == ("weights from 300, clock from 100, 400 steps (plane)", None)
    assert found.reference == "lr-rewinding"
    assert found.gain == pytest.approx(100 * (0.94 - 0.91))
    assert found.luck == pytest.approx(100 * search.luck([list(v) for v in POINTS.values() if v], 3))
    table = found.table.set_index("strategy")
    assert list(table.index) == ["best point", "fine-tuning", "lr-rewinding", "weight-rewinding"]
    assert table.loc["lr-rewinding", ["search_val", "fresh_val", "fresh_test", "ahead_val", "ahead"]].tolist() == (
        pytest.approx([0.91, 0.92, 0.91, 2.0, 2.0])
    )
    # Differences 1 and 3 points: mean 2, standard error 1, t of one degree of freedom 12.706.
    assert table.loc["lr-rewinding", ["low", "high"]].tolist() == pytest.approx([2 - 12.7062, 2 + 12.7062], abs=1e-3)
    assert (table["n"] == 2).all()


def test_the_outcome_in_words(frame):
    text = search.as_text(search.outcome(plane(), frame))
    assert "plane of 25 combinations, 5 trials, seeds 0 1" in text
    assert "best point: weights from 300, clock from 100, 400 steps (plane): validation accuracy 94.00 %" in text
    assert re.search(r"gain over lr-rewinding, the best named strategy: \+3\.00 points .* best of 4 equal points", text)
    assert "on 2 fresh seeds +2.00 points of validation, +2.00 [-10.71, +14.71] of test: not told apart from it" in text


@pytest.mark.parametrize(
    ("tests", "said"),
    [((0.95, 0.9702), "better beyond noise"), ((0.85, 0.8702), "worse beyond noise: the search has not found")],
)
def test_verdicts(frame, tests, said):
    at = (frame["weights_from"] == "300") & (frame["seed"] > 1)
    frame.loc[at, "test_accuracy"] = tests
    assert said in search.as_text(search.outcome(plane(), frame))


def test_nothing_on_fresh_seeds_yet(frame):
    text = search.as_text(search.outcome(plane(), frame[frame["seed"] < 2]))
    assert "on fresh seeds: not trained yet" in text


def test_no_named_strategy_is_finished(frame):
    found = search.outcome(plane(), frame[frame["weights_from"] == "300"])
    assert (found.reference, found.itself) == (None, None)
    text = search.as_text(found)
    assert "gain: unknown, no named strategy is finished on the search's seeds\non fresh seeds: unknown too" in text


def test_a_named_strategy_is_the_best(frame):
    points = {point: values for point, values in POINTS.items() if point != (300, 100)}
    found = search.outcome(plane(points), frame)
    assert (found.itself, found.gain) == ("lr-rewinding", 0)
    assert "no point was found that is ahead of lr-rewinding" in search.as_text(found)


def test_warm_points_in_words(frame):
    one = plane()
    one.trials.loc[0, "number"] = pd.NA
    assert "4 trials and 1 points that were trained before" in search.as_text(search.outcome(one, frame))


def test_no_trial():
    with pytest.raises(ValueError, match="has no finished trial: nothing to show"):
        _ = plane({(100, 400): None}).best


# Rounds, Optuna


def test_load(tmp_path):
    folder = tmp_path / "studies/s/search/digits-resnet8-8-unstructured-0.95"
    folder.mkdir(parents=True)
    params = [{"weights_from": k, "lr_from": 0} for k in (0, 100)]
    for number, at in enumerate(params):
        content = {"search": ABOUT, "trials": [trial(number, at, (0.5, 0.6))]}
        (folder / f"round-000{number}.json").write_text(json.dumps(content))
    (one,) = search.load(tmp_path, "s")
    assert one.trials["number"].tolist() == [0, 1]
    assert one.trials["weights_from"].tolist() == [0, 100]
    assert one.trials["value"].tolist() == pytest.approx([0.55, 0.55])
    (folder / "round-0001.json").write_text("{")
    with pytest.raises(ValueError, match=r"round-0001\.json is damaged"):
        search.load(tmp_path, "s")
    with pytest.raises(ValueError, match=r"study 't' in .* has no search: python sweeps/rewind_search\.py makes one"):
        search.load(tmp_path, "t")


def test_a_line_lies_on_the_plane():
    parameters = {"rewound": ["weights and clock", "clock"], "k": [0, 200, 400]}
    trials = [
        trial(0, {"rewound": "weights and clock", "k": 200}, (0.8, 0.9)),
        trial(1, {"rewound": "clock", "k": 0}, (0.9, 0.9)),
    ]
    one = search._searched([{"search": ABOUT | {"space": "line", "parameters": parameters}, "trials": trials}])
    assert one.trials[["weights_from", "lr_from"]].to_numpy().tolist() == [[200, 200], [400, 0]]
    drawn = search.accuracy_against_k([one])
    assert [line.get_label() for line in drawn.axes[0].lines] == [
        "weights and clock back to k (n = 2)",
        "clock alone back to k (n = 2)",
    ]


def test_the_journal_has_the_trials(tmp_path):
    search.export_journal([plane()], tmp_path / "there" / "journal.log")
    search.export_journal([plane()], tmp_path / "there" / "journal.log")
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "there" / "journal.log"))
    (summary,) = optuna.get_all_study_summaries(optuna.storages.JournalStorage(backend))
    assert (summary.study_name, summary.n_trials) == (plane().title, 5)
    assert summary.best_trial.params == {"weights_from": 300, "lr_from": 100}
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["journal.log"]


# Figures


def test_response_surface():
    drawn = search.response_surface([plane()])
    ax = drawn.axes[0]
    cells = ax.collections[0].get_array().filled(np.nan) if np.ma.isMaskedArray(ax.collections[0].get_array()) else None
    assert cells is not None
    shown = {(100 * x, 100 * y): cells[y, x] for y in range(5) for x in range(5) if not math.isnan(cells[y, x])}
    expected = {point: 100 * sum(values) / 2 for point, values in POINTS.items() if values}
    assert shown == pytest.approx(expected)
    places = {line.get_label(): tuple(map(int, line.get_xydata()[0])) for line in ax.lines}
    assert places == {
        "fine-tuning": (400, 400),
        "lr-rewinding": (400, 0),
        "weight-rewinding": (100, 100),
        "best": (300, 100),
    }
    assert drawn.alt.startswith(
        "digits, resnet8-8, unstructured, sparsity 0.95: 4 points, validation accuracy 65 to 94 %"
    )
    assert "Coloured squares: points that the search has tried" in drawn.caption


def test_a_part_of_the_plane():
    points = {(200, 300): (0.5, 0.5), (300, 200): (0.6, 0.6)}
    drawn = search.response_surface([plane(points, between=[150, 300])])
    shown = drawn.axes[0].collections[0].get_array()
    edges = drawn.axes[0].collections[0].get_coordinates()[0, :, 0]
    (y, x) = next(zip(*np.nonzero(np.ma.filled(shown, 0) == 50.0), strict=True))
    assert ((edges[x] + edges[x + 1]) / 2, (edges[y] + edges[y + 1]) / 2) == (200, 300)


def test_accuracy_against_k():
    ax = search.accuracy_against_k([plane()]).axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert lines == {
        "weights and clock back to k (n = 2)": [[100, pytest.approx(90)], [400, pytest.approx(65)]],
        "clock alone back to k (n = 2)": [[0, pytest.approx(91)], [400, pytest.approx(65)]],
    }
    band = ax.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((60, 92))


def test_expected_best():
    ax = search.expected_best([plane()]).axes[0]
    best, random = (line.get_ydata().tolist() for line in ax.lines)
    assert best == pytest.approx([65, 91, 91, 94])
    assert random == pytest.approx(search.best_of_random([65, 91, 90, 94]).tolist())


def test_importance():
    """Accuracy depends on the clock alone."""
    points = {(w, c): (0.9 - c / 1000, 0.9 - c / 1000) for w in range(0, 401, 100) for c in range(0, 401, 100)}
    found = search.importances(plane(points))
    assert found["lr_from"] > 0.95
    drawn = search.importance([plane(points)])
    assert [bar.get_width() for bar in drawn.axes[0].patches] == pytest.approx(
        [found["weights_from"], found["lr_from"]]
    )
    with pytest.raises(ValueError, match="fewer than two different values: nothing varies"):
        search.importance([plane({(0, 0): (0.5, 0.5)})])


def test_searches_that_have_no_plane():
    parameters = {"shape": ["linear", "cosine"], "budget": [100, 200]}
    trials = [trial(0, {"shape": "linear", "budget": 100}, (0.8, 0.9))]
    one = search._searched([{"search": ABOUT | {"space": "schedule", "parameters": parameters}, "trials": trials}])
    with pytest.raises(ValueError, match="no search is of a plane"):
        search.response_surface([one])
    with pytest.raises(ValueError, match="there is no k to draw against"):
        search.accuracy_against_k([one])
    assert len(search.expected_best([one, plane()]).axes) == 2
