"""The papers' claims as values, and the verdict that a frame allows on each.

A scope is claim × network × structure × schedule × sparsity range. In it each unit (one dense run) gives one number,
the mean of its differences over the range's sparsities, and n counts units. Differences are in the claim's direction:
above 0 speaks for it. Accuracies and differences are fractions.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis import stats
from analysis.aggregate import SETTING, TEST_IMAGES
from analysis.load import check

MARGIN = 0.0025
"""Differences below it are equivalent: 0.25 points."""
ALL_PARTS = "all of it"
"""The part of a row that stands for a whole claim of several."""
BOUNDARY = 0.6
"""Sparsities up to here are low, above high. Ours: the papers give none."""
FEWEST_UNITS = 5
"""Below so many nothing is decided. Paired units cannot; ranks of 4 against 4 have p = 1/70."""

UNPRUNED = {"dense", "dense-extra-budget"}
NEEDED = [
    *("dataset", "architecture", "structure", "schedule", "iteration", "prune_fraction", "sparsity_target", *SETTING),
    *("unit", "key", "seed", "status", "test_accuracy", "dense_steps", "total_steps"),
]
"""Columns of a frame that verdicts come from."""

Verdict = Literal["supported", "contradicted", "equivalent", "undecided", "no data"]
Network = tuple[str, str]
"""(data set, architecture)."""
Unit = tuple[str, str, str]
"""(data set, architecture, dense run)."""
Place = tuple[Any, ...]
"""What two cells agree in when they are compared."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """That strategy a is better than strategy b; `dense` and `dense-extra-budget` are strategies too."""

    a: str
    b: str
    a_schedule: str | None = None
    """None: the scope's."""
    b_schedule: str | None = None

    @property
    def match(self) -> list[str]:
        """Columns in which cells of a and b agree when they are compared, the unit apart."""
        if "dense" in (self.a, self.b):
            return []
        if "dense-extra-budget" in (self.a, self.b):
            return ["iteration", "budget"]
        return ["point"] if self.a_schedule != self.b_schedule else ["point", "prune_fraction"]

    def __str__(self) -> str:
        a = self.a if self.a_schedule is None else f"{self.a_schedule} {self.a}"
        b = self.b if self.b_schedule is None else f"{self.b_schedule} {self.b}"
        return f"{a} > {b}"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement about strategies that a frame can support, contradict or leave undecided."""

    number: str
    text: str
    source: str
    parts: tuple[Comparison, ...]
    """All must hold."""
    kind: Literal["superiority", "non-inferiority"] = "superiority"
    """Better, or at least as good (not worse by the margin)."""
    schedules: tuple[str, ...] = ("one-shot", "iterative")
    ranges: tuple[str, ...] = ("low", "high")
    architectures: tuple[str, ...] | None = None
    """That the claim is about; others stand beside. None: all."""
    everywhere: bool = False
    """Whether it is made of all its scopes: "in all scenarios"."""


def _iterative_beats_one_shot(strategy: str) -> Comparison:
    return Comparison(a=strategy, b=strategy, a_schedule="iterative", b_schedule="one-shot")


RENDA = "Renda et al. 2020, arXiv 2003.02389"
MIKLER = "Mikler 2021, arXiv 2109.09670"
CLAIMS = (
    Claim(
        number="1",
        text="Fine-tuning is worse than weight rewinding and than learning-rate rewinding.",
        source=f"{RENDA}; {MIKLER}, claim 1",
        parts=(Comparison(a="weight-rewinding", b="fine-tuning"), Comparison(a="lr-rewinding", b="fine-tuning")),
    ),
    Claim(
        number="2",
        text="Learning-rate rewinding is at least as good as weight rewinding, in all scenarios.",
        source=f"{RENDA}; {MIKLER}, claim 2",
        parts=(Comparison(a="lr-rewinding", b="weight-rewinding"),),
        kind="non-inferiority",
        everywhere=True,
    ),
    Claim(
        number="3a",
        text="One-shot, at low sparsity, learning-rate rewinding falls below the dense network of its seed.",
        source=f"{MIKLER}, on WRN-16-8",
        parts=(Comparison(a="dense", b="lr-rewinding"),),
        schedules=("one-shot",),
        ranges=("low",),
        architectures=("wrn16-8",),
    ),
    Claim(
        number="3b",
        text="In chains, weight rewinding beats learning-rate rewinding.",
        source=f"{MIKLER}, on WRN-16-8",
        parts=(Comparison(a="weight-rewinding", b="lr-rewinding"),),
        schedules=("iterative",),
        architectures=("wrn16-8",),
    ),
    Claim(
        number="4",
        text="Iterative pruning beats one-shot pruning at equal strategy and high sparsity.",
        source=f"{RENDA}; {MIKLER}",
        parts=tuple(map(_iterative_beats_one_shot, ("fine-tuning", "weight-rewinding", "lr-rewinding"))),
        schedules=("iterative",),
        ranges=("high",),
    ),
    Claim(
        number="5",
        text="At low sparsity learning-rate rewinding beats the dense network after the same total steps.",
        source="ours: the control that no published study has",
        parts=(Comparison(a="lr-rewinding", b="dense-extra-budget"),),
        ranges=("low",),
    ),
)


def evaluate(
    frame: pd.DataFrame,
    claims: Iterable[Claim] = CLAIMS,
    *,
    margin: float = MARGIN,
    looks: Mapping[Network, int] | None = None,
    allow_mixed: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """What a frame says of claims: a row a claim × scope, and a part where it has several; claims in their order.

    Columns: claim, text, source, part, scope, about (whether the claim is about this architecture), dataset,
    architecture, structure, schedule, range, setting, verdict, effect, low, high (one-sided t bounds at the level),
    margin, p (of the hypothesis in favour), p_adjusted (the same after Holm over the claim's parts), p_against (after
    Holm), p_equivalent, n, paired, smallest_p, look, level, note, needs.

    Cells of other masks than magnitude are left out: they are controls, of which no claim speaks.

    margin: fraction. looks: how often each network's seeds were extended after a verdict (analysis.looks). allow_mixed:
    compare across protocols. seed: of random sign flips, where there are too many units to count all.
    Raises ValueError for a frame that analysis.load.check refuses, a margin that the test set cannot resolve, or two
    protocols of one network.
    """
    if not (claims := list(claims)):
        raise ValueError("no claim is given: analysis.claims.CLAIMS has the papers'")
    require_comparable(frame, margin, allow_mixed)
    frame = frame[frame["mask"].isna() | (frame["mask"] == "magnitude")]
    cells = frame[NEEDED].assign(
        network=frame["dataset"] + "/" + frame["architecture"],
        point=frame["sparsity_target"].round(3),
        range=np.where(frame["sparsity_target"] <= BOUNDARY + 1e-9, "low", "high"),
        prune_fraction=frame["prune_fraction"].fillna(0),
    )
    judge = _Judge(margin=margin, looks=looks or {}, seed=seed)
    rows = [row for claim in claims for row in _of_claim(claim, cells, judge)]
    return pd.DataFrame(rows).astype({"n": "Int64", "look": "Int64", "paired": "boolean", "about": "boolean"})


def whole(verdicts: pd.DataFrame) -> pd.Series:
    """Which rows of evaluate() stand for a whole claim in their scope: not for one of its parts."""
    composed = verdicts.loc[verdicts["part"] == ALL_PARTS, ["claim", "scope"]]
    parts = verdicts.set_index(["claim", "scope"]).index.isin(pd.MultiIndex.from_frame(composed))
    return (verdicts["part"] == ALL_PARTS) | ~parts


def smallest_margin(images: int) -> float:
    """Two test images, rounded up to a tenth of a point: below it a difference is a matter of single images.

    >>> smallest_margin(360), smallest_margin(10_000)
    (0.006, 0.001)
    """
    return round(-(-2000 // images) / 1000, 3)


def margin_for(frame: pd.DataFrame) -> float:
    """The usual margin, or the smallest one that the frame's data sets allow."""
    return max([MARGIN, *(smallest_margin(TEST_IMAGES[name]) for name in _data_sets(frame))])


def require_comparable(frame: pd.DataFrame, margin: float, allow_mixed: bool = False) -> None:
    """Raise ValueError for a frame of which evaluate() can give no verdict."""
    check(frame)
    require_margin(frame, margin)
    if not allow_mixed:
        require_one_protocol(frame)


def require_margin(frame: pd.DataFrame, margin: float) -> None:
    """Raise ValueError for a margin below two images of a data set that is known by name."""
    for name in _data_sets(frame):
        images = TEST_IMAGES[name]
        if margin < 2 / images:
            raise ValueError(
                f"a margin of {100 * margin:g} points is below two of the {images:,} test images of {name} "
                f"({200 / images:.2g} points): {100 * smallest_margin(images):g} would do"
            )


def require_one_protocol(frame: pd.DataFrame) -> None:
    """Raise ValueError when networks of one name were trained in two ways."""
    for (dataset, architecture), rows in frame.groupby(["dataset", "architecture"], sort=False):
        ways = rows.drop_duplicates("protocol")
        if len(ways) > 1:
            listed = "; ".join(
                f"{w.protocol} ({w.protocol_name}, {w.dense_steps} steps{_other_schedule(w)})"
                for w in ways.itertuples()
            )
            raise ValueError(
                f"{architecture} on {dataset} was trained by {len(ways)} protocols: {listed}. "
                "Compare one at a time (--protocol), or allow mixed protocols (--allow-mixed)"
            )


def _other_schedule(row: Any) -> str:
    return "" if pd.isna(row.dense_schedule) or row.dense_schedule == "step" else f", {row.dense_schedule} schedule"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One number a unit: differences where paired, else the two sides."""

    differences: np.ndarray | None
    a: np.ndarray
    b: np.ndarray
    groups: tuple[np.ndarray, ...]
    """The same by network (and side), for the standard deviation within."""

    @property
    def n(self) -> int:
        """Units: pairs, or those of the smaller side."""
        return len(self.differences) if self.differences is not None else min(len(self.a), len(self.b))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a sample says, before any level is asked."""

    effect: stats.Effect
    above: stats.OneSided
    """That the difference is above 0."""
    below: stats.OneSided
    above_margin: stats.OneSided
    """That it is above −margin."""
    below_margin: stats.OneSided


def measure(sample: Sample, margin: float, seed: int = 0) -> Measured:
    """Effect, and the tests of every hypothesis that a verdict asks."""
    if (d := sample.differences) is not None:
        above, below = (stats.paired_test(s * d, seed=seed) for s in (1, -1))
        above_margin, below_margin = (stats.paired_test(s * d, margin=margin, seed=seed) for s in (1, -1))
        effect = stats.paired_effect(d)
    else:
        ways = (sample.a, sample.b), (sample.b, sample.a)
        above, below = (stats.unpaired_test(x, y, seed=seed) for x, y in ways)
        above_margin, below_margin = (stats.unpaired_test(x, y, margin=margin, seed=seed) for x, y in ways)
        effect = stats.unpaired_effect(sample.a, sample.b)
    return Measured(effect=effect, above=above, below=below, above_margin=above_margin, below_margin=below_margin)


def verdict_of(found: Measured, kind: str, level: float, p_against: float) -> Verdict:
    """The verdict at a level. p_against: that the difference is below 0, after Holm over the claim's parts.

    A bound counts only when the exact test of the same hypothesis passes too: each p is the larger of the two tests'.
    """
    if kind == "superiority":
        if found.above.p <= level:
            return "supported"
        if p_against <= level:
            return "contradicted"
        return "equivalent" if max(found.above_margin.p, found.below_margin.p) <= level else "undecided"
    if found.above_margin.p <= level:
        return "supported"
    return "contradicted" if p_against <= level else "undecided"


@dataclass(frozen=True, kw_only=True)
class _Judge:
    """What all scopes share."""

    margin: float
    looks: Mapping[Network, int]
    seed: int

    def look(self, networks: Iterable[Network]) -> int:
        return max((self.looks.get(network, 0) for network in networks), default=0)


@dataclass(frozen=True, kw_only=True)
class _Scope:
    claim: Claim
    networks: tuple[Network, ...]
    structure: str
    schedule: str
    range: str

    def columns(self) -> dict[str, Any]:
        together = len(self.networks) > 1
        dataset, architecture = ("together", "together") if together else self.networks[0]
        where = "together" if together else f"{dataset}/{architecture}"
        about = self.claim.architectures
        return {
            "claim": self.claim.number,
            "text": self.claim.text,
            "source": self.claim.source,
            "scope": f"{where}/{self.structure}/{self.schedule}/{self.range}",
            "about": about is None or all(name in about for _, name in self.networks),
            "dataset": dataset,
            "architecture": architecture,
            "structure": self.structure,
            "schedule": self.schedule,
            "range": self.range,
        }

    def sides(self, part: Comparison, cells: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Rows of a and b, finished or not."""
        here = cells["network"].isin(["/".join(network) for network in self.networks])
        return tuple(
            self._side(cells[here], strategy, self.schedule if schedule is None else schedule)
            for strategy, schedule in ((part.a, part.a_schedule), (part.b, part.b_schedule))
        )

    def _side(self, cells: pd.DataFrame, strategy: str, schedule: str) -> pd.DataFrame:
        rows = cells[cells["strategy"] == strategy]
        if strategy == "dense":
            return rows
        rows = rows[rows["schedule"] == schedule]
        if strategy == "dense-extra-budget":
            return rows
        return rows[(rows["structure"] == self.structure) & (rows["range"] == self.range)]


def _of_claim(claim: Claim, cells: pd.DataFrame, judge: _Judge) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for scope in _scopes(claim, cells):
        rows += _of_scope(scope, cells, judge)
    if not rows:
        columns = dict.fromkeys(("dataset", "architecture", "structure", "schedule", "range"), "")
        named = " or ".join(claim.architectures or ())
        head = {"claim": claim.number, "text": claim.text, "source": claim.source, "scope": named or "everywhere"}
        return [_no_data(head | {"about": True} | columns | {"part": ""}, judge)]
    if claim.everywhere:
        rows.insert(0, _everywhere(claim, rows, judge))
    return rows


def _scopes(claim: Claim, cells: pd.DataFrame) -> Iterator[_Scope]:
    """Where the frame has cells that the claim could speak of: each network by itself, then those together."""
    pruned = cells[cells["sparsity_target"] > 0]
    for structure, schedule, range_ in itertools.product(pruned["structure"].unique(), claim.schedules, claim.ranges):
        there = pruned[(pruned["structure"] == structure) & (pruned["schedule"] == schedule)]
        there = there[there["range"] == range_]
        networks = list(there[["dataset", "architecture"]].drop_duplicates().itertuples(index=False, name=None))
        alone = [(network,) for network in networks]
        about = [n for n in networks if claim.architectures is None or n[1] in claim.architectures]
        for members in [*alone, *([tuple(about)] if len(about) > 1 else [])]:
            yield _Scope(claim=claim, networks=members, structure=structure, schedule=schedule, range=range_)


def _of_scope(scope: _Scope, cells: pd.DataFrame, judge: _Judge) -> Iterator[dict[str, Any]]:
    """Rows of one scope: for each way to choose settings the claim's own, and its parts' where it has several."""
    parts = {str(part): _variants(part, *scope.sides(part, cells)) for part in scope.claim.parts}
    settings = list(dict.fromkeys(setting for variants in parts.values() for setting in variants if setting)) or [""]
    for setting in settings:
        look = judge.look(scope.networks)
        chosen = [parts[str(part)].get(setting, parts[str(part)].get("")) for part in scope.claim.parts]
        measured = [_measure_part(part, sides, judge) for part, sides in zip(scope.claim.parts, chosen, strict=True)]
        against = _adjusted([None if m is None else m.below.p for _, m, _ in measured])
        adjusted = _adjusted([None if m is None else _in_favour(scope.claim, m).p for _, m, _ in measured])
        rows = []
        for part, sides, (sample, found, unfinished), p_against, p_adjusted in zip(
            scope.claim.parts, chosen, measured, against, adjusted, strict=True
        ):
            head = {**scope.columns(), "part": str(part), "setting": setting}
            if sides is None or sample is None or found is None:
                rows.append(_no_data(head, judge) | ({"note": unfinished} if unfinished else {}))
            else:
                rows.append(head | _row(scope.claim, sample, found, p_against, p_adjusted, look, judge, unfinished))
                rows[-1]["note"] = "; ".join(note for note in (rows[-1]["note"], _costs(part, *sides)) if note)
        yield from rows if len(rows) == 1 else [_together(scope.columns() | {"setting": setting}, rows), *rows]


def _variants(part: Comparison, a: pd.DataFrame, b: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Ways to choose the settings of the two sides, by name; "" when there is but one.

    Sides of several settings (budgets, rewind points) are compared at equal budget where both have cells of it.
    """
    if a.empty or b.empty:
        return {"": (a, b)}
    ways = list(itertools.product(_by_setting(a), _by_setting(b)))
    if "budget" not in part.match and not {"dense"} & {part.a, part.b}:
        equal = [(x, y) for x, y in ways if set(x["budget"]) == set(y["budget"])]
        ways = equal or ways
    differing = [name for name in ("shape", "momentum") if len({*a[name].dropna(), *b[name].dropna()}) > 1]
    return {"" if len(ways) == 1 else _setting_name(x, y, differing): (x, y) for x, y in ways}


def _by_setting(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """One frame, or one for each setting when a seed has several cells at one point."""
    point = ["dataset", "architecture", "seed", "unit", "point", "prune_fraction", "iteration"]
    point.remove("unit" if rows["seed"].notna().all() else "seed")
    if rows["strategy"].iloc[0] in UNPRUNED or not rows.duplicated(point).any():
        return [rows]
    return [group for _, group in rows.groupby(SETTING, dropna=False, sort=True)]


def _setting_name(a: pd.DataFrame, b: pd.DataFrame, differing: list[str]) -> str:
    """58,594 steps; with rewind points, shapes, momenta and both budgets where they differ. Of pruned sides alone."""
    pruned = [side for side in (a, b) if side["strategy"].iloc[0] not in UNPRUNED]
    budgets, sources = [[side[column].iloc[0] for side in pruned] for column in ("budget", "weights_from")]
    steps = " against ".join(f"{budget:,} steps" for budget in dict.fromkeys(budgets))
    implied = [pd.isna(source) or source == str(side["dense_steps"].iloc[0] - side["budget"].iloc[0])
               for source, side in zip(sources, pruned, strict=True)]  # fmt: skip
    if not all(implied):
        steps += f", weights from {' and '.join(str(s) for s in sources if not pd.isna(s))}"
    for name in differing:
        values = " against ".join(dict.fromkeys(str(side[name].iloc[0]) for side in pruned))
        steps += f", {values}{' momentum' if name == 'momentum' else ''}"
    return steps


def _measure_part(
    part: Comparison, sides: tuple[pd.DataFrame, pd.DataFrame] | None, judge: _Judge
) -> tuple[Sample | None, Measured | None, str]:
    """The sample of a comparison and what it says, both None without any; and how much is not finished yet."""
    if sides is None:
        return None, None, ""
    declared = pd.concat(sides)
    waiting = int(declared["status"].isin(["missing", "running"]).sum())
    unfinished = f"{waiting} of {len(declared)} cells are not finished: a verdict waits for them" if waiting else ""
    found = sample(part, *(side[side["status"] == "done"] for side in sides))
    return found, None if found is None else measure(found, judge.margin, judge.seed), unfinished


def sample(part: Comparison, a: pd.DataFrame, b: pd.DataFrame) -> Sample | None:
    """One number a unit of each network, from finished rows; None when nothing can be compared.

    Paired where at least half of the smaller side's units match; else two sides, at the points that both have and each
    about that point's centre: neither a network nor a sparsity of which one side has more cells is a difference.
    """
    if part.a_schedule != part.b_schedule:  # a chain's first cycle is its one-shot cell
        same = set(a["key"]) & set(b["key"])
        a, b = (side[~side["key"].isin(same)] for side in (a, b))
    left, right = (_by_unit(side, part.match) for side in (a, b))
    differences = {
        unit: float(np.mean(found))
        for unit, places in left.items()
        if (found := [x - y for place, xs in places.items() for x in xs for y in right.get(unit, {}).get(place, [])])
    }
    if differences and 2 * len(differences) >= min(len(left), len(right)):
        groups = tuple(_by_network(differences).values())
        return Sample(differences=np.concatenate(groups), a=np.array([]), b=np.array([]), groups=groups)
    sides = [_by_network(side) for side in _about_places(left, right)]
    if not all(sides):
        return None
    pooled_a, pooled_b = (np.concatenate(list(side.values())) for side in sides)
    return Sample(
        differences=None, a=pooled_a, b=pooled_b, groups=tuple(group for side in sides for group in side.values())
    )


def _by_unit(side: pd.DataFrame, match: list[str]) -> dict[Unit, dict[Place, list[float]]]:
    """Accuracies of each unit by what cells agree in when they are compared; a cell in two rows counts once."""
    found: dict[Unit, dict[Place, list[float]]] = {}
    names = ["key", "dataset", "architecture", "unit", "test_accuracy", *match]
    seen = set()
    for key, dataset, architecture, unit, accuracy, *place in zip(
        *(side[name].tolist() for name in names), strict=True
    ):
        if (key, unit) not in seen:
            seen.add((key, unit))
            found.setdefault((dataset, architecture, unit), {}).setdefault(tuple(place), []).append(accuracy)
    return found


def _about_places(*sides: dict[Unit, dict[Place, list[float]]]) -> Iterator[dict[Unit, float]]:
    """Each unit's mean deviation from the centre of both sides, over the places of its network that both have."""
    means = [_place_means(side) for side in sides]
    centre = {where: float(np.mean([mean[where] for mean in means])) for where in means[0].keys() & means[1].keys()}
    for side in sides:
        deviations = {
            unit: [
                x - centre[where] for place, xs in places.items() if (where := (unit[:2], place)) in centre for x in xs
            ]
            for unit, places in side.items()
        }
        yield {unit: float(np.mean(found)) for unit, found in deviations.items() if found}


def _place_means(side: dict[Unit, dict[Place, list[float]]]) -> dict[tuple[Network, Place], float]:
    found: dict[tuple[Network, Place], list[float]] = {}
    for unit, places in side.items():
        for place, accuracies in places.items():
            found.setdefault((unit[:2], place), []).extend(accuracies)
    return {where: float(np.mean(accuracies)) for where, accuracies in found.items()}


def _by_network(values: dict[Unit, float]) -> dict[Network, np.ndarray]:
    found: dict[Network, list[float]] = {}
    for (dataset, architecture, _), value in values.items():
        found.setdefault((dataset, architecture), []).append(value)
    return {network: np.array(group) for network, group in found.items()}


def _in_favour(claim: Claim, found: Measured) -> stats.OneSided:
    return found.above if claim.kind == "superiority" else found.above_margin


def _adjusted(ps: Sequence[float | None]) -> list[float]:
    """Holm over those that there are; 1 for the others."""
    there = [p for p in ps if p is not None]
    adjusted = iter(stats.holm(there)) if there else iter(())
    return [1.0 if p is None else float(next(adjusted)) for p in ps]


def _row(
    claim: Claim,
    sample: Sample,
    found: Measured,
    p_against: float,
    p_adjusted: float,
    look: int,
    judge: _Judge,
    unfinished: str,
) -> dict[str, Any]:
    level = stats.level(look)
    undecided = unfinished or not _enough(sample)
    verdict = "undecided" if undecided else verdict_of(found, claim.kind, level, p_against)
    equivalent = max(found.above_margin.p, found.below_margin.p)
    notes = [unfinished] if unfinished else []
    if verdict == "supported" and claim.kind == "superiority" and found.below_margin.p <= level:
        notes.append("smaller than the margin")
    if claim.kind == "non-inferiority" and equivalent <= level and _enough(sample):
        notes.append("equivalent within the margin")
    if sample.differences is None:
        notes.append(f"unpaired: {len(sample.a)} units against {len(sample.b)}")
    favour = _in_favour(claim, found)
    return {
        "verdict": verdict,
        "effect": found.effect.mean,
        "low": found.effect.bound(level, upper=False),
        "high": found.effect.bound(level, upper=True),
        "margin": judge.margin,
        "p": favour.p,
        "p_adjusted": p_adjusted,
        "p_against": p_against,
        "p_equivalent": equivalent,
        "n": sample.n,
        "paired": sample.differences is not None,
        "smallest_p": favour.smallest_p,
        "look": look,
        "level": level,
        "note": "; ".join(notes),
        "needs": needs(claim, sample, found, look, judge.margin) if verdict == "undecided" and not unfinished else "",
    }


def _enough(sample: Sample) -> bool:
    """Whether a verdict can be: FEWEST_UNITS, and two a side of each network where unpaired networks are pooled.

    About the centre of one unit a side both sides show half their spread: 9.6 % false positives (6 networks, 0.04).
    """
    pooled = sample.differences is None and len(sample.groups) > 2
    return sample.n >= FEWEST_UNITS and not (pooled and min(map(len, sample.groups)) < 2)


def needs(claim: Claim, sample: Sample, found: Measured, look: int, margin: float) -> str:
    """What would decide it: so many more units at the next look's level, with the 90 % range of that number."""
    sd, df = stats.pooled_sd(sample.groups)
    if not df:
        return "two units or more, to know their spread"
    if sample.differences is None:
        sd *= 2**0.5  # of a difference of two
    level, effect = stats.level(look + 1), found.effect.mean
    distances = [effect, -effect, margin - abs(effect)] if claim.kind == "superiority" else [effect + margin, -effect]
    count = [
        min((n for d in distances if (n := stats.units_needed(d, s, level)) is not None), default=None)
        for s in (sd, *stats.sd_range(sd, df))
    ]
    if count[0] is None:
        return f"more than {stats.MOST_UNITS:,} units"
    fewest, most = (None if n is None else max(1, n - sample.n) for n in count[1:])
    more = max(1, count[0] - sample.n)
    until = f"{stats.MOST_UNITS:,} or more" if most is None else f"{most:,}"
    reach = "" if fewest == most else f" ({fewest:,}–{until})"
    what = "seed" if len(sample.groups) == 1 else "unit"
    return f"{more:,} more {what}{'s' if more > 1 else ''}{reach} would decide this"


def _costs(part: Comparison, a: pd.DataFrame, b: pd.DataFrame) -> str:
    """Budgets, or total steps across schedules, where the two sides' differ."""
    column, word = ("total_steps", "total") if part.a_schedule != part.b_schedule else ("budget", "a cycle")
    if UNPRUNED & {part.a, part.b}:
        return ""
    spans = [_span(side[column]) for side in (a, b)]
    return "" if spans[0] == spans[1] and word != "total" else f"steps {word}: {spans[0]} against {spans[1]}"


def _span(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _together(head: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A claim of several parts: supported if each is, contradicted if one is (after Holm)."""
    verdicts = [row["verdict"] for row in rows]
    known = [row for row in rows if row["verdict"] != "no data"]
    weakest = min(known, key=lambda row: row["effect"], default=rows[0])
    p = float(np.max([row["p"] for row in rows]))
    return head | {
        **{name: weakest[name] for name in rows[0] if name not in head},
        "part": ALL_PARTS,
        "verdict": _all_of(verdicts),
        "p": p,
        "p_adjusted": p,
        "p_against": min(row["p_against"] for row in rows),
        "p_equivalent": max(row["p_equivalent"] for row in rows),
        "n": min((row["n"] for row in known), default=0),
        "note": f"{_counted(verdicts)} of its parts, numbers of the weakest" if known else "",
        "needs": "; ".join(dict.fromkeys(row["needs"] for row in rows if row["needs"])),
    }


def _counted(verdicts: list[str]) -> str:
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))


def _all_of(verdicts: list[str]) -> Verdict:
    if "contradicted" in verdicts:
        return "contradicted"
    for same in ("supported", "equivalent", "no data"):
        if set(verdicts) == {same}:
            return same
    return "undecided"


def _everywhere(claim: Claim, rows: list[dict[str, Any]], judge: _Judge) -> dict[str, Any]:
    """The claim over all its single scopes: contradictions after Holm over these."""
    single = [row for row in rows if row["dataset"] != "together" and row["verdict"] != "no data"]
    head = rows[0] | {"scope": "all scenarios", "setting": "", "about": True}
    head |= dict.fromkeys(("dataset", "architecture", "structure", "schedule", "range"), "all")
    if not single:
        return _no_data(head, judge)
    against = stats.holm([row["p_against"] for row in single])
    verdicts = [
        "undecided" if row["verdict"] == "contradicted" and p > row["level"] else row["verdict"]
        for row, p in zip(single, against, strict=True)
    ]
    waiting = [row for row in rows if row["dataset"] != "together" and row["verdict"] == "no data" and row["note"]]
    verdicts += ["undecided"] * len(waiting)
    names = ("claim", "text", "source", "scope", "about", "dataset", "architecture", "structure", "schedule", "range")
    whole = _together({name: head[name] for name in names} | {"setting": ""}, single)
    note = f"{_counted(verdicts)} of its scopes"
    return whole | {"verdict": _all_of(verdicts), "p_against": float(against.min()), "note": note, "needs": ""}


def _no_data(head: dict[str, Any], judge: _Judge) -> dict[str, Any]:
    unknown = ("effect", "low", "high", "p", "p_adjusted", "p_against", "p_equivalent", "smallest_p")
    return {
        "setting": "",
        **head,
        "verdict": "no data",
        **dict.fromkeys(unknown, np.nan),
        "margin": judge.margin,
        "n": 0,
        "paired": None,
        "look": 0,
        "level": stats.level(0),
        "note": "",
        "needs": "it needs cells of this claim",
    }


def _data_sets(frame: pd.DataFrame) -> list[str]:
    """Whose number of test images is known: a protocol's, else a data set's."""
    names = frame["protocol"].where(frame["protocol"].isin(list(TEST_IMAGES)), frame["dataset"])
    return [name for name in names.unique() if name in TEST_IMAGES]
