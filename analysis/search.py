"""What searches of rewind points have found: their rounds, how well the best point holds, and the figures of it."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd
import pyarrow.fs as fs
from matplotlib.axes import Axes
from scipy import integrate, special

from analysis import stats
from analysis.aggregate import SETTING
from analysis.load import filesystem, read_json
from analysis.plots import DENSE, LOOKS, OTHER, Drawn, finish, grid, same_values, worded

Params = dict[str, Any]
"""A point by its parameters: whole numbers and words."""
Parameters = Mapping[str, Sequence[Any]]
"""Choices by parameter: numbers equally far apart, or words."""
BEST = "best point"
RANGES = 3.0
"""A surface's colours reach so many times as far below the best as the median is; what is lower has the lowest one."""
VALUE = "validation accuracy, %"
LINES = {
    "weight-rewinding": "weights and clock back to k",
    "lr-rewinding": "clock alone back to k",
    "low-lr-weight-rewinding": "weights back to k, last LR",
}
"""Lines of the plane, by the strategy that lies on each."""


@final
@dataclass(frozen=True, kw_only=True)
class Searched:
    """The finished rounds of one search."""

    about: dict[str, Any]
    """What the search is: as its rounds' files say it."""
    trials: pd.DataFrame
    """A row per point, in the order in which the search learnt of them: number (missing: trained before the search),
    value (mean validation accuracy; missing: some loss was not finite), val_accuracy (by seed), keys (by seed), and the
    parameters."""

    @property
    def title(self) -> str:
        about = self.about
        return f"{about['dataset']}, {about['architecture']}, {about['structure']}, sparsity {about['sparsity']:g}"

    @property
    def valued(self) -> pd.DataFrame:
        """The trials with a value. Raises ValueError when there is none."""
        found = self.trials[self.trials["value"].notna()]
        if found.empty:
            raise ValueError(f"the search of {self.title} has no finished trial: nothing to show")
        return found

    @property
    def best(self) -> pd.Series:
        """The trial of the highest value, the first one of equals."""
        return self.valued.loc[self.valued["value"].idxmax()]


@final
@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a search found, and how it holds on seeds that it has not seen."""

    searched: Searched
    best: str
    """The best point in words, and what a strategy at its place is called."""
    itself: str | None
    """The named strategy that the best point is, if it is one."""
    reference: str | None
    """The named strategy with the highest validation accuracy on the search's seeds; None: none is finished on all."""
    gain: float
    """Of the best over the reference there, points."""
    luck: float
    """Points that the best of as many equal points would be ahead by luck; NaN with one seed. See luck()."""
    table: pd.DataFrame
    """A row for the best point and each named strategy: strategy, search_val (mean over the search's seeds), fresh_val,
    fresh_test (means over fresh seeds); ahead_val and ahead: how far the best point is ahead on fresh seeds in
    validation and test accuracy (points), low and high (95 % t interval of ahead), n (pairs)."""


def load(storage: str | Path, study: str) -> list[Searched]:
    """Every search of a study, from its rounds' files. Raises ValueError when there is none, or a file is damaged."""
    files, name = filesystem(storage)
    selector = fs.FileSelector(f"studies/{study}/search", recursive=True, allow_not_found=True)
    paths = sorted(file.path for file in files.get_file_info(selector) if Path(file.path).match("round-*.json"))
    rounds: dict[str, list[dict[str, Any]]] = {}
    for path in paths:
        try:
            rounds.setdefault(str(Path(path).parent), []).append(read_json(files, path))
        except ValueError as error:
            raise ValueError(f"{name}/{path} is damaged ({error}): delete it and the later rounds") from error
    if not rounds:
        raise ValueError(f"study {study!r} in {name} has no search: python sweeps/rewind_search.py makes one")
    return [_searched(found) for found in rounds.values()]


def optuna_study(
    parameters: Parameters,
    known: Sequence[tuple[Params, float | None]],
    *,
    running: Sequence[Params] = (),
    sampler: Any = None,
    **storage: Any,
) -> tuple[Any, dict[str, Any]]:
    """An Optuna study that was told points and their values (None: failed), and its distributions.

    running: points that are being trained. storage: a study's name and storage; in memory unless told.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: _distribution(list(choices)) for name, choices in parameters.items()}
    study = optuna.create_study(direction="maximize", sampler=sampler, **storage)
    states = optuna.trial.TrialState
    for params, value in [*known, *((params, math.nan) for params in running)]:
        state = states.FAIL if value is None else states.RUNNING if math.isnan(value) else states.COMPLETE
        trial = optuna.trial.create_trial(
            params=params,
            distributions=distributions,
            state=state,
            value=value if state == states.COMPLETE else None,
        )
        study.add_trial(trial)
    return study, distributions


def export_journal(searched: Sequence[Searched], path: Path) -> None:
    """Write the trials as an Optuna journal, a study per search, whole or not at all, for optuna-dashboard."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    storage = JournalStorage(JournalFileBackend(str(temporary)))
    for one in searched:
        optuna_study(one.about["parameters"], _known(one), study_name=one.title, storage=storage)
    temporary.replace(path)


def expected_maximum(n: int) -> float:
    """Mean of the largest of n independent standard normals. David & Nagaraja 2003, Order Statistics, §3.1.

    >>> [round(expected_maximum(n), 4) for n in (1, 2, 3, 10)]
    [0.0, 0.5642, 0.8463, 1.5388]
    """

    def density(x: float) -> float:
        return float(x * n * math.exp(-x * x / 2) / math.sqrt(2 * math.pi) * special.ndtr(x) ** (n - 1))

    return float(integrate.quad(density, -12, 12, limit=200)[0])


def luck(values: Sequence[Sequence[float]], references: int) -> float:
    """How far the best of P points would be ahead of the best of so many references, if all were equally good.

    values: by point, by seed. That is s/√S · (E(P) − E(references)): E is expected_maximum(), S the number of seeds,
    and s the residual standard deviation after a point's and a seed's mean (seeds are shared, so that what a seed adds
    to every point is no luck), over the better half of the points: poor ones scatter more, and are no rivals. NaN with
    fewer than two seeds or points.
    """
    table = np.asarray(values, dtype=float)
    points, seeds = table.shape
    if points < 2 or seeds < 2:
        return math.nan
    better = table[np.argsort(-table.mean(axis=1), kind="stable")[: max(2, math.ceil(points / 2))]]
    residuals = better - better.mean(axis=1, keepdims=True) - better.mean(axis=0) + better.mean()
    variance = (residuals**2).sum() / ((len(better) - 1) * (seeds - 1))
    return math.sqrt(variance / seeds) * (expected_maximum(points) - expected_maximum(max(1, references)))


def outcome(searched: Searched, frame: pd.DataFrame) -> Outcome:
    """How the best point compares with the named strategies; frame: the study's table. Raises ValueError as best."""
    about, best, cells = searched.about, searched.best, _cells(searched, frame)
    at_best = cells[cells["key"].isin(best["keys"])]
    if at_best.empty:
        raise ValueError(f"the table has no finished cell of the best point of {searched.title}: nothing to compare")
    points = {BEST: cells[same_values(cells, at_best.iloc[0], SETTING)]}
    points |= {name: cells[_at(cells, at, about["budget"])] for name, at in about["named"].items()}
    seeds = about["seeds"]
    seen = {name: rows[rows["seed"].isin(seeds)] for name, rows in points.items()}
    fresh = {name: rows[~rows["seed"].isin(seeds)].set_index("seed") for name, rows in points.items()}
    rivals = {
        name: rows["val_accuracy"].mean() for name, rows in seen.items() if len(rows) == len(seeds) and name != BEST
    }
    reference = max(rivals, key=lambda name: rivals[name], default=None)
    return Outcome(
        searched=searched,
        best=f"{_in_words(best, about)} ({at_best['strategy'].iloc[0]})",
        itself=next(
            (name for name, rows in seen.items() if name != BEST and best["keys"][0] in set(rows["key"])), None
        ),
        reference=reference,
        gain=100 * (best["value"] - rivals[reference]) if reference is not None else math.nan,
        luck=100 * luck(searched.valued["val_accuracy"].tolist(), len(rivals)),
        table=pd.DataFrame([_judged(name, seen[name], fresh[name], fresh[BEST]) for name in points]),
    )


def as_text(found: Outcome) -> str:
    """An outcome for people: what was found, beside what luck finds, and how much of it fresh seeds confirm."""
    about, tried = found.searched.about, found.searched.trials
    seeds = " ".join(map(str, about["seeds"]))
    size = math.prod(len(choices) for choices in about["parameters"].values())
    warm = int(tried["number"].isna().sum())
    trials = f"{len(tried) - warm} trials" + (f" and {warm} points that were trained before" if warm else "")
    lines = [
        f"{found.searched.title}: {about['space']} of {size} combinations, {trials}, seeds {seeds}",
        f"best point: {found.best}: validation accuracy {100 * found.searched.best['value']:.2f} %",
        _gain_in_words(found),
        _held_in_words(found),
    ]
    table = found.table.copy()
    for name in ("search_val", "fresh_val", "fresh_test"):
        table[name] = [f"{100 * value:.2f}" for value in table[name]]
    table["ahead"] = [
        "" if row.strategy in (BEST, found.itself) or not row.n else _with_interval(row.ahead, row.low, row.high)
        for row in table.itertuples()
    ]
    table = table[["strategy", "search_val", "fresh_val", "fresh_test", "ahead", "n"]].rename(
        columns={
            "search_val": "val %, search seeds",
            "fresh_val": "val %, fresh",
            "fresh_test": "test %, fresh",
            "ahead": "best ahead, test points [95 %]",
        }
    )
    return "\n".join([*lines, "", table.to_string(index=False)])


def response_surface(searched: Sequence[Searched]) -> Drawn:
    """Mean validation accuracy over the plane, a panel per search: only points that were tried have a colour.

    Raises ValueError when no search is of a plane.
    """
    planes = [one for one in searched if one.about["space"] == "plane"]
    if not planes:
        raise ValueError("no search is of a plane: there is no surface to draw")
    figure, axes = grid(len(planes))
    for ax, one in zip(axes, planes, strict=True):
        ax.set_title(_panel_title(one), size=9)
        ax.set_xlabel(f"weights from step (T = {one.about['steps']:,}: kept)")
        finish(draw_surface(ax, one), "learning-rate clock from step", legend=False)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=3, fontsize=7.5)
    caption = (
        "Mean validation accuracy of retrainings with one budget, by where the weights come from and where the "
        "learning-rate clock restarts. Coloured squares: points that the search has tried; blank: not tried. Markers: "
        "the named strategies; star: the best point, which owes part of its accuracy to luck."
    )
    drawn = worded(figure, caption)
    drawn.alt = " ".join(
        f"{one.title}: {len(one.valued)} points, validation accuracy {100 * one.valued['value'].min():.4g} to "
        f"{100 * one.best['value']:.4g} %; the best: {_in_words(one.best, one.about)}."
        for one in planes
    )
    return drawn


def draw_surface(ax: Axes, one: Searched) -> Axes:
    """Tried points as coloured squares of the grid, the named strategies and the best point as markers."""
    grid, valued = one.about["grid"], one.valued
    edges = np.arange(one.about["between"][0] // grid * grid, one.about["steps"] + 2 * grid, grid) - grid / 2
    surface = np.full((len(edges) - 1, len(edges) - 1), math.nan)
    column, row = (
        np.rint((valued[name].to_numpy() - edges[0]) // grid).astype(int) for name in ("weights_from", "lr_from")
    )
    surface[row, column] = 100 * valued["value"].to_numpy(dtype=float)
    values = 100 * valued["value"].to_numpy(dtype=float)
    lowest = max(values.min(), values.max() - RANGES * (values.max() - np.median(values)))
    mesh = ax.pcolormesh(edges, edges, surface, cmap="viridis", vmin=lowest, vmax=values.max())
    bar = ax.figure.colorbar(mesh, ax=ax, extend="min" if lowest > values.min() else "neither")
    bar.set_label(VALUE)
    for name, at in one.about["named"].items():
        colour, marker = LOOKS.get(name, OTHER)
        x = one.about["steps"] if at["weights_from"] is None else at["weights_from"]
        look: dict[str, Any] = {"markerfacecolor": colour, "markeredgecolor": "white"}
        ax.plot([x], [at["lr_from"]], linestyle="none", marker=marker, markersize=8, label=name, **look)
    star: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": "red"}
    at = one.best
    ax.plot([at["weights_from"]], [at["lr_from"]], linestyle="none", marker="*", markersize=17, label="best", **star)
    return ax


def accuracy_against_k(searched: Sequence[Searched]) -> Drawn:
    """Validation accuracy against the rewind point k along the lines of the plane that were tried, a panel per search.

    Raises ValueError when no search has rewind points.
    """
    rewinding = [one for one in searched if one.about["space"] in ("line", "plane")]
    if not rewinding:
        raise ValueError("no search has rewind points: there is no k to draw against")
    figure, axes = grid(len(rewinding))
    for ax, one in zip(axes, rewinding, strict=True):
        ax.set_title(_panel_title(one), size=9)
        for strategy, rows in _lines(one).items():
            draw_k(ax, rows, strategy)
        ax.set_xlabel("rewind point k, steps")
        finish(ax, VALUE)
    caption = (
        "Validation accuracy against the rewind point k, along the lines of the plane, where the search has tried "
        "points of them. Lines join means over the search's seeds, bands go from the lowest to the highest seed."
    )
    return worded(figure, caption)


def draw_k(ax: Axes, rows: pd.DataFrame, strategy: str) -> Axes:
    """One line of the plane: means and the seeds' range by k, rows with k, value and val_accuracy."""
    colour, marker = LOOKS[strategy]
    k = rows["k"].to_numpy(dtype=float)
    seeds = 100 * np.array(rows["val_accuracy"].tolist()).reshape(len(rows), -1)
    ax.fill_between(k, seeds.min(axis=1), seeds.max(axis=1), color=colour, alpha=0.15, linewidth=0)
    label = f"{LINES[strategy]} (n = {seeds.shape[1]})"
    ax.plot(k, 100 * rows["value"].to_numpy(dtype=float), color=colour, marker=marker, markersize=5, label=label)
    return ax


def expected_best(searched: Sequence[Searched]) -> Drawn:
    """The best value found against the number of trials, a panel per search, beside the same without a sampler.

    Raises ValueError when a search has no finished trial.
    """
    figure, axes = grid(len(searched))
    for ax, one in zip(axes, searched, strict=True):
        values = 100 * one.valued["value"].to_numpy(dtype=float)
        trials = np.arange(1, len(values) + 1)
        ax.set_title(_panel_title(one), size=9)
        ax.plot(trials, np.maximum.accumulate(values), color=DENSE, drawstyle="steps-post", label="the search")
        random = best_of_random(values)
        ax.plot(trials, random, color=OTHER[0], linestyle="--", label="expected, the same points in random order")
        ax.set_xlabel("trials, named strategies first")
        ax.set_ylim(bottom=random[0])
        finish(ax, f"best {VALUE}")
    caption = (
        "The best mean validation accuracy after so many trials: of the search as it went, and expected of as many "
        "draws from its own points (Dodge et al. 2019, arXiv 1909.03004). Neither is free of luck: the highest of many "
        "means is above what the point would reach on fresh seeds."
    )
    return worded(figure, caption)


def best_of_random(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Expected largest of n draws with replacement from values, for n = 1 … len(values). Dodge et al. 2019, eq. 2.

    >>> best_of_random([0.0, 1.0]).tolist()
    [0.5, 0.75]
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    shares = np.arange(len(ordered) + 1) / len(ordered)
    return np.array([np.diff(shares**n) @ ordered for n in range(1, len(ordered) + 1)])


def importance(searched: Sequence[Searched]) -> Drawn:
    """How much of the variance each parameter explains, a panel per search.

    Raises ValueError when a search has too few different values.
    """
    shares = [importances(one) for one in searched]
    figure, axes = grid(len(searched))
    for ax, one, found in zip(axes, searched, shares, strict=True):
        ax.set_title(_panel_title(one), size=9)
        ax.barh(list(found), list(found.values()), color=OTHER[0])
        ax.set_xlim(0, 1)
        ax.set_xlabel("share of the explained variance")
        finish(ax, "", legend=False)
    caption = (
        "Importance of each parameter for mean validation accuracy: functional ANOVA of a random forest over the tried "
        "points (Hutter, Hoos & Leyton-Brown 2014, as in Optuna), interactions left out. The points are the search's "
        "choice, denser where it found more."
    )
    drawn = worded(figure, caption)
    drawn.alt = " ".join(
        f"{one.title}: {', '.join(f'{name} {share:.2f}' for name, share in found.items())}."
        for one, found in zip(searched, shares, strict=True)
    )
    return drawn


def importances(one: Searched) -> dict[str, float]:
    """Share of the variance by parameter. Raises ValueError when fewer than two trials differ in value."""
    import optuna

    if one.valued["value"].nunique() < 2:
        raise ValueError(f"the search of {one.title} has fewer than two different values: nothing varies")
    study, _ = optuna_study(one.about["parameters"], _known(one))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(found.get(name, 0.0)) for name in one.about["parameters"]}


def _searched(rounds: list[dict[str, Any]]) -> Searched:
    about = rounds[-1]["search"]
    trials = [{**trial, **trial["params"]} for found in rounds for trial in found["trials"]]
    columns = ["number", "value", "val_accuracy", "keys", *about["parameters"]]
    table = pd.DataFrame(trials, columns=columns).astype({"number": "Int64", "value": "float64"})
    if about["space"] == "line":
        both = table["rewound"] == "weights and clock"
        table["weights_from"] = table["k"].where(both, about["steps"])
        table["lr_from"] = table["k"]
    return Searched(about=about, trials=table)


def _known(one: Searched) -> list[tuple[Params, float | None]]:
    names = list(one.about["parameters"])
    rows = one.trials[[*names, "value"]].to_dict("records")
    return [({name: row[name] for name in names}, None if math.isnan(row["value"]) else row["value"]) for row in rows]


def _distribution(choices: list[Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(choices[0], str):
        return CategoricalDistribution(choices)
    steps = {after - before for before, after in pairwise(choices)} or {1}
    assert len(steps) == 1, "numbers of a parameter are equally far apart"
    return IntDistribution(choices[0], choices[-1], step=steps.pop())


def _cells(searched: Searched, frame: pd.DataFrame) -> pd.DataFrame:
    """The finished one-shot cells of a search's group."""
    about = searched.about
    group = pd.Series({name: about[name] for name in ("dataset", "architecture", "structure", "protocol")})
    same = same_values(frame, group, group.index) & (frame["schedule"] == "one-shot") & (frame["status"] == "done")
    same &= np.isclose(frame["sparsity_target"], about["sparsity"], rtol=0, atol=1e-9)
    return frame[same].drop_duplicates("key")


def _at(cells: pd.DataFrame, at: Mapping[str, Any], budget: int) -> pd.Series:
    """Which cells are a named strategy's."""
    weights_from = None if at["weights_from"] is None else str(at["weights_from"])
    place = pd.Series({"weights_from": weights_from, "lr_from": at["lr_from"], "budget": budget, "shape": "replay"})
    return same_values(cells, place, place.index)


def _judged(name: str, seen: pd.DataFrame, fresh: pd.DataFrame, best: pd.DataFrame) -> dict[str, Any]:
    common = fresh.index.intersection(best.index)
    row = {
        "strategy": name,
        "search_val": seen["val_accuracy"].mean(),
        "fresh_val": fresh["val_accuracy"].mean(),
        "fresh_test": fresh["test_accuracy"].mean(),
        "n": len(common),
    }
    if common.empty:
        return row | dict.fromkeys(("ahead_val", "ahead", "low", "high"), math.nan)
    ahead = {column: 100 * (best.loc[common, column] - fresh.loc[common, column]) for column in _ACCURACIES}
    effect = stats.paired_effect(ahead["test_accuracy"].to_numpy(dtype=float))
    return row | {
        "ahead_val": float(ahead["val_accuracy"].mean()),
        "ahead": effect.mean,
        "low": effect.bound(0.025, upper=False),
        "high": effect.bound(0.025, upper=True),
    }


_ACCURACIES = ("val_accuracy", "test_accuracy")


def _in_words(trial: pd.Series, about: Mapping[str, Any]) -> str:
    if about["space"] == "schedule":
        return ", ".join(f"{name} {trial[name]}" for name in about["parameters"])
    weights = "kept" if trial["weights_from"] == about["steps"] else f"from {trial['weights_from']:,}"
    return f"weights {weights}, clock from {trial['lr_from']:,}, {about['budget']:,} steps"


def _gain_in_words(found: Outcome) -> str:
    if found.reference is None:
        return "gain: unknown, no named strategy is finished on the search's seeds"
    points = len(found.searched.valued)
    chance = (
        f"by luck alone the best of {points} equal points would show about {found.luck:+.2f}"
        if not math.isnan(found.luck)
        else "what luck alone would show is unknown with one seed"
    )
    return f"gain over {found.reference}, the best named strategy: {found.gain:+.2f} points of validation; {chance}"


def _held_in_words(found: Outcome) -> str:
    if found.reference is None:
        return "on fresh seeds: unknown too, without the best named strategy"
    if found.itself == found.reference:
        return f"no point was found that is ahead of {found.itself}: there is no gain to confirm"
    rows = found.table[(found.table["strategy"] == found.reference) & (found.table["n"] > 0)]
    if rows.empty:
        return "on fresh seeds: not trained yet"
    row = rows.iloc[0]
    seeds = "1 fresh seed" if row["n"] == 1 else f"{row['n']} fresh seeds"
    held = (
        f"on {seeds} {row['ahead_val']:+.2f} points of validation, "
        f"{_with_interval(row['ahead'], row['low'], row['high'])} of test"
    )
    if math.isnan(row["low"]):
        return f"{held}: one seed says nothing about noise"
    verdict = (
        "better beyond noise"
        if row["low"] > 0
        else "worse beyond noise: the search has not found a better point"
        if row["high"] < 0
        else "not told apart from it by these seeds"
    )
    return f"{held}: {verdict}"


def _with_interval(mean: float, low: float, high: float) -> str:
    return f"{mean:+.2f}" if math.isnan(low) else f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def _panel_title(one: Searched) -> str:
    return f"{one.title}\n{len(one.valued)} points, n = {len(one.about['seeds'])} seeds"


def _lines(one: Searched) -> dict[str, pd.DataFrame]:
    """The tried points of each line of the plane, by k; a line with no point but its end T is none."""
    valued, last = one.valued, one.about["steps"]
    on = {
        "weight-rewinding": valued["weights_from"] == valued["lr_from"],
        "lr-rewinding": valued["weights_from"] == last,
        "low-lr-weight-rewinding": valued["lr_from"] == last,
    }
    places = {"weight-rewinding": "lr_from", "lr-rewinding": "lr_from", "low-lr-weight-rewinding": "weights_from"}
    found = {
        name: valued[where].assign(k=lambda rows, place=places[name]: rows[place]).sort_values("k")
        for name, where in on.items()
    }
    return {name: rows for name, rows in found.items() if (rows["k"] < last).any()}
