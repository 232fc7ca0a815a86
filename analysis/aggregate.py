"""Aggregated frames, computed here and drawn elsewhere: medians, differences, aggregates over architectures.

Accuracies are fractions; differences and changes against the dense network are points (hundredths of accuracy).
A function that takes `setting` holds these columns fixed on one line: SETTING, unless a budget was chosen for each
sparsity (load.best_budget), then ["strategy"]: otherwise a line would break wherever the chosen budget changes.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from analysis import stats

PANEL = ["dataset", "architecture", "structure", "schedule", "prune_fraction", "protocol"]
"""What one panel of a table or a figure holds fixed."""
SETTING = ["strategy", "mask", "shape", "weights_from", "lr_from", "budget", "momentum"]
"""What one line holds fixed beside it."""
SCENARIO = ["structure", "schedule", "prune_fraction"]
"""What an aggregate over architectures holds fixed."""
TEST_IMAGES = {"renda2020": 8_000, "digits": 360, "cifar10": 10_000, "cifar100": 10_000}
"""Test images by protocol, else by data set."""
TOLERANCES = (0.0, 0.5, 1.0, 2.0)
"""Points below dense that iso_accuracy() allows."""
IQM_PAIRS = 4
"""An interquartile mean needs so many (data set, architecture) pairs."""
COVERAGE_SEEDS = (2, 3, 4, 5, 6, 8, 10, 12, 20)
COVERAGE = {
    1: (0.498, 0.749, 0.802, 0.833, 0.860, 0.888, 0.906, 0.906, 0.924),
    2: (0.668, 0.801, 0.850, 0.879, 0.887, 0.909, 0.917, 0.926, 0.934),
    3: (0.710, 0.834, 0.875, 0.890, 0.904, 0.915, 0.920, 0.931, 0.940),
    4: (0.749, 0.843, 0.883, 0.898, 0.904, 0.922, 0.926, 0.930, 0.939),
    6: (0.775, 0.860, 0.883, 0.901, 0.910, 0.924, 0.931, 0.929, 0.937),
    8: (0.787, 0.874, 0.887, 0.904, 0.919, 0.925, 0.930, 0.932, 0.940),
}
"""Measured coverage of the stratified bootstrap's 95 % interval of a mean, by strata, at COVERAGE_SEEDS seeds in each.

20,000 frames of independent standard normal units (one score a unit) at each entry, 1,000 resamples, truth 0; two CPU
cores, numpy 2.4.6, 2026-11-23; a slow test measures it again. Good to 0.01. Shares and probabilities take few values at
few seeds: their own coverage depends on the truth (0.67–0.97 at one half, 3 pairs and 2 seeds up).
"""


def test_images(frame: pd.DataFrame) -> pd.Series:
    """Each row's number of test images: its protocol's, else its data set's; NaN where neither is known."""
    return frame["protocol"].map(TEST_IMAGES).fillna(frame["dataset"].map(TEST_IMAGES)).astype(float)


def done_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """The finished rows. Raises ValueError when there is none: there is nothing to show."""
    done = frame[frame["status"] == "done"]
    if done.empty:
        counts = ", ".join(f"{count} {status}" for status, count in frame["status"].value_counts().items())
        raise ValueError(f"no cell is finished ({counts}): nothing to show")
    return done


def pruned_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """The finished rows of pruned networks. Raises ValueError when there is none."""
    done = done_cells(frame)
    pruned = done[done["sparsity_target"] > 0]
    if pruned.empty:
        raise ValueError(f"no pruned cell is finished (dense: {len(done)}): nothing to compare")
    return pruned


def accuracy(frame: pd.DataFrame, setting: Sequence[str] = SETTING) -> pd.DataFrame:
    """Test accuracy over seeds, a row per panel × setting × target sparsity, in the order of the frame.

    Columns: PANEL, setting, label (see labels()), sparsity_target, compression_ratio, theoretical_speedup and
    total_steps (medians), median, min, max (of accuracy), delta (points, median), n, declared (cells, done or not).
    Raises ValueError when no cell is finished, or when a seed would count twice.
    """
    done = done_cells(frame)
    by = [*PANEL, *setting, "sparsity_target"]
    _check_seeds(done, by)
    groups = done.assign(label=labels(done, setting)).groupby([*by, "label"], dropna=False, sort=False)
    table = groups.agg(
        compression_ratio=("compression_ratio", "median"),
        theoretical_speedup=("theoretical_speedup", "median"),
        total_steps=("total_steps", "median"),
        median=("test_accuracy", "median"),
        min=("test_accuracy", "min"),
        max=("test_accuracy", "max"),
        delta=("delta_test_accuracy", "median"),
        n=("test_accuracy", "size"),
    ).reset_index()
    declared = frame.groupby(by, dropna=False, sort=False).size().rename("declared").reset_index()
    return table.assign(delta=100 * table["delta"]).merge(declared, on=by, how="left")


def labels(frame: pd.DataFrame, setting: Sequence[str] = SETTING, steps: str = "{} steps") -> pd.Series:
    """What a row's line is called: its strategy, and what else tells it from others of that name in its panel."""
    names = frame["strategy"].astype("object")
    forms = {
        "mask": "{} ({} mask)",
        "shape": "{} ({})",
        "weights_from": "{} (from {})",
        "lr_from": "{} (clock from {})",
        "budget": f"{{}} ({steps})",
        "momentum": "{} ({} momentum)",
    }
    for column in (name for name in forms if name in setting):
        groups = frame.assign(label=names).groupby([*PANEL, "label"], dropna=False)
        several = groups[column].transform(lambda values: values.nunique(dropna=False)) > 1
        said = [
            forms[column].format(name, "the kept" if pd.isna(v) else v)
            for name, v in zip(names, frame[column], strict=True)
        ]
        names = names.where(~several, pd.Series(said, index=frame.index))
    return names


def title(panel: pd.Series, frame: pd.DataFrame) -> str:
    """What a panel is called: a row of accuracy(), and the whole table, for what need not be said."""
    parts = [panel[name] for name in ("dataset", "architecture", "structure", "schedule") if not pd.isna(panel[name])]
    if not pd.isna(panel["prune_fraction"]):
        parts.append(f"−{100 * panel['prune_fraction']:g} % a cycle")
    network = (frame[["dataset", "architecture"]] == panel[["dataset", "architecture"]]).all(axis=1)
    if len(frame.loc[network, "protocol"].unique()) > 1:
        parts.append(f"protocol {panel['protocol']}")
    return ", ".join(parts)


def scenario_title(row: pd.Series) -> str:
    """What a scenario, a row of an aggregate over architectures, is called."""
    cycle = "" if pd.isna(row["prune_fraction"]) else f", −{100 * row['prune_fraction']:g} % a cycle"
    return f"{row['structure']}, {row['schedule']}{cycle}"


def paired_differences(frame: pd.DataFrame, a: str, b: str, setting: Sequence[str] = SETTING) -> pd.DataFrame:
    """Accuracy of a minus that of b on the same unit at the same sparsity, in points, a row per pair of cells.

    a, b: strategies, or labels where a strategy has several lines. Of several lines those of equal budget are
    compared, where there are such, else each with each; nothing is pooled over them. Columns: PANEL, sparsity_target,
    label_a, label_b, budget_a, budget_b, unit, seed, difference. No row where no unit has both. Raises ValueError when
    no finished row is called a or b.
    """
    done = _lines(frame, setting)
    return _pairs(done, _opponents(done, a, b)).drop(columns=["line_a", "line_b"])


def difference_intervals(frame: pd.DataFrame, a: str, b: str, setting: Sequence[str] = SETTING) -> pd.DataFrame:
    """Mean difference of a and b in points, a row per panel × sparsity × pair of lines. Descriptive, no verdict.

    Columns: those of paired_differences() but unit and seed, then compression_ratio, mean, low and high (95 % t
    interval), p (two-sided), p_adjusted (Benjamini–Hochberg over the rows), n (pairs, or the smaller side's units),
    paired. Where no unit has both, the difference is of the sides' means, and the interval Welch's. With one unit,
    interval and p are NaN.
    """
    done = _lines(frame, setting)
    opponents = _opponents(done, a, b)
    rows = [_difference(*sides) for sides in _samples(done, opponents)]
    measured = pd.DataFrame(rows, index=opponents.index, columns=["mean", "low", "high", "p", "n", "paired"])
    table = pd.concat([opponents.drop(columns=["line_a", "line_b"]), measured], axis=1)
    known = table["p"].notna()
    adjusted = pd.Series(math.nan, index=table.index)
    if known.any():
        adjusted[known] = stats.benjamini_hochberg(table.loc[known, "p"].to_numpy())
    table.insert(table.columns.get_loc("p") + 1, "p_adjusted", adjusted)
    return table


def win_tie_loss(frame: pd.DataFrame, setting: Sequence[str] = SETTING) -> pd.DataFrame:
    """Who is ahead, for every two strategies, a row per panel × sparsity × pair of lines.

    A tie: mean accuracies are equal, or less than two test images apart (where the test set's size is known).
    Columns: PANEL, sparsity_target, a, b, label_a, label_b, difference (points), n, paired, outcome (of a: win, tie or
    loss). Raises ValueError when fewer than two strategies have finished.
    """
    done = _lines(pruned_cells(frame), setting)
    strategies = list(done["strategy"].unique())
    if len(strategies) < 2:
        raise ValueError(f"two strategies are needed to say who is ahead, the frame has {', '.join(strategies)}")
    return pd.concat(
        [_outcomes(done, a, b) for a, b in itertools.combinations(strategies, 2)], ignore_index=True
    ).reset_index(drop=True)


def iso_accuracy(
    frame: pd.DataFrame, tolerances: Sequence[float] = TOLERANCES, setting: Sequence[str] = SETTING
) -> pd.DataFrame:
    """Largest compression ratio at which a line stays within so many points of its seed's dense network; see reach().

    Each seed has a curve of its own; those that have finished all sparsities of the line count. Columns: PANEL,
    setting, label, tolerance, ratio (median over seeds), bound ("", "at least", "at most", or "unknown" where the
    median lies between one seed's "at most" and another's "at least"), low, low_bound, high, high_bound, interval
    ("min–max", or "95 %" from 6 seeds on), n, seeds (begun or done). A line that no seed has finished has n = 0.
    """
    pruned = pruned_cells(frame)
    by = [*PANEL, *setting]
    _check_seeds(pruned, [*by, "sparsity_target"])
    pruned = pruned.assign(label=labels(pruned, setting)).sort_values("compression_ratio", kind="stable")
    order = pruned.groupby([*by, "label"], dropna=False, sort=False).ngroup()
    rows = []
    for _, line in sorted(pruned.groupby(order), key=lambda item: item[1].index.min()):
        curves = _curves(line)
        head = line.iloc[0][[*by, "label"]].to_dict()
        for tolerance in tolerances:
            ends = [reach(ratios, deltas, tolerance) for ratios, deltas in curves]
            seeds = line["seed"].nunique(dropna=False)
            rows.append({**head, "tolerance": tolerance, **_spread(ends), "n": len(ends), "seeds": seeds})
    return pd.DataFrame(rows)


def reach(ratios: stats.Values, deltas: stats.Values, tolerance: float) -> tuple[float, str]:
    """Largest compression ratio at which a curve is at most `tolerance` points below dense, and what bounds it.

    ratios: increasing; deltas: change against dense, points. The curve is the non-increasing one nearest to the points
    (isotonic regression), linear between them in the ratio's logarithm, and never extrapolated: "at least" where the
    last point is still inside, "at most" where the first one is outside.

    >>> reach([2, 4, 8], [0.5, 0.0, -2.0], 1.0)
    (5.656854249492381, '')
    >>> reach([2, 4], [0.5, 0.0], 0.5), reach([2, 4], [-1.0, -2.0], 0.5)
    ((4.0, 'at least'), (2.0, 'at most'))
    """
    curve = isotonic_regression(np.asarray(deltas, dtype=float), increasing=False).x
    inside = curve >= -tolerance - 1e-9
    if inside.all():
        return float(ratios[-1]), "at least"
    if not inside[0]:
        return float(ratios[0]), "at most"
    last = int(np.flatnonzero(inside)[-1])
    share = (curve[last] + tolerance) / (curve[last] - curve[last + 1])
    return float(ratios[last] * (ratios[last + 1] / ratios[last]) ** max(share, 0.0)), ""


def search_cost(frame: pd.DataFrame, setting: Sequence[str] = SETTING) -> pd.DataFrame:
    """What a network costs to find beside how good it is: accuracy() of pruned cells with total_steps and `front`.

    total_steps counts the dense run and every earlier cycle. front: no other row of this network and structure is at
    least as good in accuracy, compression and total steps and better in one. Raises ValueError without total steps.
    """
    if pruned_cells(frame)["total_steps"].isna().all():
        raise ValueError("no finished cell says its total steps: there is no search cost to show")
    table = accuracy(frame, setting)
    table = table[(table["sparsity_target"] > 0) & table["total_steps"].notna()].reset_index(drop=True)
    goods = np.column_stack([table["median"], table["compression_ratio"], -table["total_steps"].astype(float)])
    front = pd.Series(True, index=table.index)
    for _, rows in table.groupby(["dataset", "architecture", "protocol", "structure"], dropna=False):
        front[rows.index] = _not_dominated(goods[rows.index])
    return table.assign(front=front)


def noise(frame: pd.DataFrame, setting: Sequence[str] = SETTING) -> pd.DataFrame:
    """What accuracies vary by: seeds beside the test set, points, a row per panel × line.

    Columns: PANEL, label, strategy, accuracy (median), seed_sd (within each sparsity, pooled; NaN with one seed each),
    test_se (binomial, at that accuracy; NaN where the test set's size is not known), images. The two are not added: the
    test images are the same for all cells.
    """
    done = done_cells(frame)
    done = done.assign(label=labels(done, setting))
    rows = []
    for _, line in done.groupby([*PANEL, "label"], dropna=False, sort=False):
        head = line.iloc[0]
        images = float(test_images(line).iloc[0])
        middle = float(line["test_accuracy"].median())
        sd, _ = stats.pooled_sd([seeds.to_numpy() for _, seeds in line.groupby("sparsity_target")["test_accuracy"]])
        rows.append(
            head[[*PANEL, "label", "strategy"]].to_dict()
            | {"accuracy": middle, "seed_sd": 100 * sd, "test_se": 100 * stats.binomial_se(middle, images)}
            | {"images": images}
        )
    return pd.DataFrame(rows)


def across_architectures(
    frame: pd.DataFrame, setting: Sequence[str] = SETTING, *, resamples: int = 2_000, seed: int = 0
) -> pd.DataFrame:
    """Mean and interquartile mean of the change against dense over architectures, a row per scenario × line × measure.

    Every (data set, architecture) pair weighs the same, in it every sparsity that all lines of the scenario have, in
    that every seed. Columns: SCENARIO, label, strategy, measure, value, low, high (95 % bootstrap), coverage
    (measured, see COVERAGE), pairs, sparsities (used), left_out (cells that some line lacks), seeds (fewest of a pair).
    The interquartile mean comes from IQM_PAIRS pairs on. Never a verdict. Agarwal et al. 2021, arXiv 2108.13264.
    """
    rows = []
    for scenario in _scenarios(frame, setting):
        draws = _resampled(scenario["unit"].max() + 1, scenario, resamples, seed)
        for label, cells in scenario.groupby("label", sort=False):
            head = _scenario_head(scenario) | {"label": label, "strategy": cells["strategy"].iloc[0]}
            measures = {"mean": _weighted_mean}
            if cells["pair"].nunique() >= IQM_PAIRS:
                measures["interquartile mean"] = _interquartile_mean
            for name, measure in measures.items():
                rows.append({**head, "measure": name, **_bootstrapped(measure, cells, draws), **_extent(cells)})
    return pd.DataFrame(rows)


def improvement(
    frame: pd.DataFrame, setting: Sequence[str] = SETTING, *, resamples: int = 2_000, seed: int = 0
) -> pd.DataFrame:
    """Probability that a seed of a changes more than one of b, a tie counting half, over architectures.

    A row per scenario × pair of lines, averaged over pairs and sparsities as in across_architectures(). Columns:
    SCENARIO, a, b, probability, low, high, coverage, pairs, sparsities, left_out, seeds. Agarwal et al. 2021.
    """
    rows = []
    for scenario in _scenarios(frame, setting):
        draws = _resampled(scenario["unit"].max() + 1, scenario, resamples, seed)
        for a, b in itertools.combinations(scenario["label"].unique(), 2):
            x, y = (scenario[scenario["label"] == label] for label in (a, b))
            ahead = _probability(x, y, np.vstack([np.ones(draws.shape[1]), draws]))
            rows.append(
                {**_scenario_head(scenario), "a": a, "b": b, "probability": ahead[0]}
                | _interval(ahead[1:], scenario)
                | _extent(scenario)
            )
    return pd.DataFrame(rows)


def profiles(
    frame: pd.DataFrame,
    setting: Sequence[str] = SETTING,
    *,
    thresholds: Sequence[float] | None = None,
    resamples: int = 2_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Share of cells whose change against dense is at least a threshold, over architectures: performance profiles.

    A row per scenario × line × threshold (points; unless told 101 from the 2nd percentile to the best, at least −10).
    Weights as in across_architectures(); low and high are pointwise. Columns: SCENARIO, label, strategy, threshold,
    share, low, high, coverage, pairs, sparsities, left_out, seeds. Agarwal et al. 2021, arXiv 2108.13264.
    """
    tables = []
    for scenario in _scenarios(frame, setting):
        draws = _resampled(scenario["unit"].max() + 1, scenario, resamples, seed)
        at = _thresholds(scenario) if thresholds is None else np.asarray(thresholds, dtype=float)
        for label, cells in scenario.groupby("label", sort=False):
            reached = (cells["score"].to_numpy()[:, None] >= at - 1e-9).astype(float)
            share = _weighted_mean(reached, cells, np.vstack([np.ones(draws.shape[1]), draws]))
            head = _scenario_head(scenario) | {"label": label, "strategy": cells["strategy"].iloc[0]}
            columns = {"threshold": at, "share": share[0], **_interval(share[1:], cells), **_extent(cells)}
            tables.append(pd.DataFrame({**head, **columns}, index=range(len(at))))
    return pd.concat(tables, ignore_index=True)


def coverage(pairs: int, seeds: int) -> float:
    """Measured coverage of a bootstrap's 95 % interval with so many strata and seeds in each; NaN with one seed.

    Between entries of COVERAGE the lower neighbour counts: coverage grows with both.
    """
    if seeds < COVERAGE_SEEDS[0]:
        return math.nan
    at = max(i for i, n in enumerate(COVERAGE_SEEDS) if n <= seeds)
    return COVERAGE[max(strata for strata in COVERAGE if strata <= pairs)][at]


def _check_seeds(done: pd.DataFrame, by: list[str]) -> None:
    twice = done[done["seed"].notna() & done.duplicated([*by, "seed"])]
    if not twice.empty:
        raise ValueError(f"rows that count a seed twice: keys {', '.join(twice['key'].head(3))} …")


def _lines(frame: pd.DataFrame, setting: Sequence[str]) -> pd.DataFrame:
    """The finished rows with label, and numbers for the panel × sparsity (`place`) and the line there (`line`)."""
    done = done_cells(frame)
    place, line = ([*PANEL, "sparsity_target", *more] for more in ([], setting))
    _check_seeds(done, line)
    return done.assign(
        label=labels(done, setting),
        place=done.groupby(place, dropna=False, sort=False).ngroup(),
        line=done.groupby(line, dropna=False, sort=False).ngroup(),
    )


def _opponents(done: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """Every line of a beside every line of b at the same place, only those of equal budget where there are such."""
    lines = done.drop_duplicates("line")
    own = ["place", "line", "label", "budget"]
    left = _named(lines, a)[[*PANEL, "sparsity_target", "compression_ratio", *own]]
    pairs = left.merge(_named(lines, b)[own], on="place", suffixes=("_a", "_b"))
    equal = (pairs["budget_a"] == pairs["budget_b"]).fillna(False).astype(bool)
    chosen = pairs[equal | ~equal.groupby(pairs["place"]).transform("any")].reset_index(drop=True)
    names = ["label_a", "label_b", "budget_a", "budget_b", "line_a", "line_b", "compression_ratio"]
    return chosen[[*PANEL, "sparsity_target", *names]]


def _named(lines: pd.DataFrame, name: str) -> pd.DataFrame:
    chosen = lines[(lines["strategy"] == name) | (lines["label"] == name)]
    if chosen.empty:
        there = dict.fromkeys([*lines["strategy"], *lines["label"]])
        raise ValueError(f"no finished row of strategy {name!r}: there are {', '.join(there)}")
    return chosen


def _pairs(done: pd.DataFrame, opponents: pd.DataFrame) -> pd.DataFrame:
    """A row per unit that both lines of a row of opponents have."""
    cells = done.loc[done["unit"].notna(), ["line", "unit", "seed", "test_accuracy"]]
    left = opponents.drop(columns="compression_ratio").merge(cells, left_on="line_a", right_on="line")
    right = cells.drop(columns="seed").rename(columns={"line": "line_b"})
    pairs = left.merge(right, on=["line_b", "unit"], suffixes=("", "_b"))
    pairs["difference"] = 100 * (pairs["test_accuracy"] - pairs["test_accuracy_b"])
    return pairs.drop(columns=["line", "test_accuracy", "test_accuracy_b"])


def _samples(done: pd.DataFrame, opponents: pd.DataFrame) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """For each row of opponents: (differences, None) in points, or both sides' accuracies where no unit has both."""
    pairs = {
        lines: group.to_numpy() for lines, group in _pairs(done, opponents).groupby(["line_a", "line_b"])["difference"]
    }
    alone = {line: 100 * group.to_numpy() for line, group in done.groupby("line")["test_accuracy"]}
    for a, b in zip(opponents["line_a"], opponents["line_b"], strict=True):
        yield (pairs[a, b], None) if (a, b) in pairs else (alone[a], alone[b])


def _difference(a: np.ndarray, b: np.ndarray | None) -> dict[str, Any]:
    effect = stats.paired_effect(a) if b is None else stats.unpaired_effect(a, b)
    above = effect.p_above(0)
    p = 1.0 if effect.mean == 0 else 2 * min(above, 1 - above)
    return {
        "mean": effect.mean,
        "low": effect.bound(0.025, upper=False),
        "high": effect.bound(0.025, upper=True),
        "p": math.nan if math.isnan(effect.se) else p,
        "n": len(a) if b is None else min(len(a), len(b)),
        "paired": b is None,
    }


def _outcomes(done: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    opponents = _opponents(done, a, b)
    samples = list(_samples(done, opponents))
    difference = np.array([x.mean() - (0 if y is None else y.mean()) for x, y in samples])
    images = test_images(opponents)
    tie = (np.abs(difference) < 1e-9) | (np.abs(difference) < 200 / images - 1e-9)
    return opponents[[*PANEL, "sparsity_target"]].assign(
        a=a,
        b=b,
        label_a=opponents["label_a"],
        label_b=opponents["label_b"],
        difference=difference,
        n=[len(x) if y is None else min(len(x), len(y)) for x, y in samples],
        paired=[y is None for _, y in samples],
        outcome=np.where(tie, "tie", np.where(difference > 0, "win", "loss")),
    )


def _curves(line: pd.DataFrame) -> list[tuple[np.ndarray, np.ndarray]]:
    """(ratios, changes in points) of each seed that has all sparsities of the line."""
    sparsities = line["sparsity_target"].nunique()
    known = line[line["delta_test_accuracy"].notna()]
    return [
        (cells["compression_ratio"].to_numpy(), 100 * cells["delta_test_accuracy"].to_numpy())
        for _, cells in known.groupby("seed", dropna=False)
        if len(cells) == sparsities
    ]


def _spread(ends: list[tuple[float, str]]) -> dict[str, Any]:
    """Median and range of ends of curves, some of which are bounds only."""
    if not ends:
        unknown = {"ratio": math.nan, "bound": "unknown", "low": math.nan, "low_bound": "unknown"}
        return unknown | {"high": math.nan, "high_bound": "unknown", "interval": ""}
    rank = {"at most": 0, "": 1, "at least": 2}
    ends = sorted(ends, key=lambda end: (rank[end[1]], end[0]))
    order = stats.median_interval(np.arange(len(ends)))
    low, high = (0, len(ends) - 1) if order is None else map(int, order)
    (x, below), (y, above) = ends[(len(ends) - 1) // 2], ends[len(ends) // 2]
    bounds = {below, above} - {""}
    return {
        "ratio": (x + y) / 2 if len(bounds) < 2 else math.nan,
        "bound": "unknown" if len(bounds) > 1 else "".join(bounds),
        "low": ends[low][0],
        "low_bound": ends[low][1],
        "high": ends[high][0],
        "high_bound": ends[high][1],
        "interval": "min–max" if order is None else "95 %",
    }


def _not_dominated(goods: np.ndarray) -> np.ndarray:
    """Which rows [N, criteria; more is better] no other row beats: as good in all and better in one."""
    as_good = (goods[:, None, :] >= goods[None, :, :]).all(axis=2)
    better = (goods[:, None, :] > goods[None, :, :]).any(axis=2)
    return np.logical_not((as_good & better).any(axis=0))


def _scenarios(frame: pd.DataFrame, setting: Sequence[str]) -> list[pd.DataFrame]:
    """For each scenario its cells at the places that all its lines have: label, pair, unit (numbers), score, weight.

    A unit is a (pair, seed) here, with all its cells. Raises ValueError when one pair stands under two protocols, when
    no change against dense is known, or when lines have no place in common.
    """
    pruned = pruned_cells(frame)
    pruned = pruned[pruned["delta_test_accuracy"].notna()]
    if pruned.empty:
        raise ValueError("no pruned cell has its seed's dense accuracy: there is no change to aggregate")
    _check_protocols(pruned)
    scored = pruned.assign(
        label=_relative_labels(pruned, setting),
        score=(100 * pruned["delta_test_accuracy"]).round(9),
        pair=pruned.groupby(["dataset", "architecture"], sort=False).ngroup(),
    )
    _check_seeds(scored, [*PANEL, "label", "sparsity_target"])
    scenarios = [_common(cells) for _, cells in scored.groupby(SCENARIO, dropna=False, sort=False)]
    if not any(len(cells) for cells in scenarios):
        raise ValueError(f"no sparsity is finished by all of {', '.join(scored['label'].unique())}: nothing to compare")
    return [cells for cells in scenarios if len(cells)]


def _check_protocols(rows: pd.DataFrame) -> None:
    for network, protocols in rows.groupby(["dataset", "architecture"])["protocol"].unique().items():
        if len(protocols) > 1:
            said = f"{' '.join(map(str, network))} stands under two protocols ({', '.join(protocols)})"
            raise ValueError(f"{said}: aggregates do not mix them, select one")


def _relative_labels(rows: pd.DataFrame, setting: Sequence[str]) -> pd.Series:
    """labels() with steps as shares of the dense run's: it differs between architectures."""
    dense = rows["dense_steps"].astype("Float64")
    source = pd.to_numeric(rows["weights_from"], errors="coerce").astype("Float64")
    shares = {name: (rows[name].astype("Float64") / dense).round(3) for name in ("lr_from", "budget")}
    shares["weights_from"] = (source / dense).round(3).astype("object").where(source.notna(), rows["weights_from"])
    return labels(rows.assign(**shares), setting, steps="{} of the dense steps")


def _common(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells of a scenario at the (pair, sparsity) that all its lines have, with weights that sum to 1 on each line."""
    place = cells.groupby(["pair", "sparsity_target"]).ngroup()
    lines = cells["label"].groupby(place).transform("nunique")
    kept = cells[lines == cells["label"].nunique()]
    places = kept.groupby("pair")["sparsity_target"].transform("nunique")
    seeds = kept.groupby(["label", "pair", "sparsity_target"])["score"].transform("size")
    unit = kept.groupby(["pair", "seed"], dropna=False, sort=False).ngroup()
    weight = 1 / (places * seeds * kept["pair"].nunique())
    return kept.assign(weight=weight, unit=unit, left_out=len(cells) - len(kept))


def _scenario_head(scenario: pd.DataFrame) -> dict[str, Any]:
    return scenario.iloc[0][SCENARIO].to_dict()


def _extent(scenario: pd.DataFrame) -> dict[str, int]:
    return {
        "pairs": scenario["pair"].nunique(),
        "sparsities": len(scenario.drop_duplicates(["pair", "sparsity_target"])),
        "left_out": int(scenario["left_out"].iloc[0]),
        "seeds": _fewest_seeds(scenario),
    }


def _fewest_seeds(scenario: pd.DataFrame) -> int:
    return int(scenario.groupby("pair")["unit"].nunique().min())


def _resampled(units: int, scenario: pd.DataFrame, resamples: int, seed: int) -> np.ndarray:
    """[resamples, units]: how often each unit is drawn, stratified by pair."""
    rng = np.random.default_rng(seed)
    draws = np.zeros((resamples, units))
    for _, members in scenario.groupby("pair", sort=False)["unit"]:
        chosen = members.unique()
        draws[:, chosen] = rng.multinomial(len(chosen), np.full(len(chosen), 1 / len(chosen)), size=resamples)
    return draws


def _weighted_mean(values: np.ndarray, cells: pd.DataFrame, draws: np.ndarray) -> np.ndarray:
    """Of values [cells, …] under each row of draws [resamples, units]; NaN where no cell is drawn."""
    weight, unit = cells["weight"].to_numpy(), cells["unit"].to_numpy()
    sums, total = np.zeros((draws.shape[1], *values.shape[1:])), np.zeros(draws.shape[1])
    np.add.at(sums, unit, weight.reshape(-1, *[1] * (values.ndim - 1)) * values)
    np.add.at(total, unit, weight)
    drawn = draws @ total
    drawn[drawn == 0] = math.nan
    return np.tensordot(draws, sums, axes=1) / drawn.reshape(-1, *[1] * (values.ndim - 1))


def _interquartile_mean(values: np.ndarray, cells: pd.DataFrame, draws: np.ndarray) -> np.ndarray:
    """The mean of the middle half of the weight, under each row of draws."""
    order = np.argsort(values, kind="stable")
    weights = draws[:, cells["unit"].to_numpy()[order]] * cells["weight"].to_numpy()[order]
    until = np.cumsum(weights, axis=1)
    total = until[:, -1:].copy()
    total[total == 0] = math.nan
    inside = np.minimum(until, 0.75 * total) - np.maximum(until - weights, 0.25 * total)
    return np.clip(inside, 0, None) @ values[order] / (total[:, 0] / 2)


def _bootstrapped(measure: Any, cells: pd.DataFrame, draws: np.ndarray) -> dict[str, Any]:
    found = measure(cells["score"].to_numpy(), cells, np.vstack([np.ones(draws.shape[1]), draws]))
    return {"value": float(found[0]), **_interval(found[1:], cells)}


def _interval(found: np.ndarray, scenario: pd.DataFrame) -> dict[str, Any]:
    """Percentile interval of resampled values [resamples, …] and its measured coverage; NaN with one seed in a pair."""
    seeds = _fewest_seeds(scenario)
    low, high = np.nanpercentile(found, [2.5, 97.5], axis=0) if seeds > 1 else np.full((2, *found.shape[1:]), math.nan)
    return {"low": low, "high": high, "coverage": coverage(scenario["pair"].nunique(), seeds)}


def _probability(a: pd.DataFrame, b: pd.DataFrame, draws: np.ndarray) -> np.ndarray:
    """P(a > b) + P(a = b) / 2 over all pairs of seeds at a place, averaged over places, under each row of draws."""
    total, weights = np.zeros(len(draws)), np.zeros(len(draws))
    others = dict(list(b.groupby(["pair", "sparsity_target"])))
    for place, ours in a.groupby(["pair", "sparsity_target"]):
        theirs = others[place]
        x, y = ours["score"].to_numpy()[:, None], theirs["score"].to_numpy()
        ahead = (x > y) + (x == y) / 2
        drawn_a, drawn_b = draws[:, ours["unit"]], draws[:, theirs["unit"]]
        pairs = drawn_a.sum(axis=1) * drawn_b.sum(axis=1)
        weight = ours["weight"].sum() * (pairs > 0)
        wins = np.einsum("ri,ij,rj->r", drawn_a, ahead, drawn_b, optimize=True)
        total += weight * wins / np.where(pairs > 0, pairs, 1)
        weights += weight
    weights[weights == 0] = math.nan
    return total / weights


def _thresholds(scenario: pd.DataFrame) -> np.ndarray:
    scores = scenario["score"].to_numpy()
    return np.linspace(max(-10.0, float(np.quantile(scores, 0.02))), float(scores.max()), 101)
