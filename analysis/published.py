"""The scorecard: what a study has beside what was published, point by point, and how two wrong tables would score."""

from itertools import combinations

import numpy as np
import pandas as pd

from analysis.load import check
from analysis.mikler2021 import load_published

JOIN = ["dataset", "architecture", "structure", "schedule", "prune_fraction", "strategy", "sparsity"]
"""What a published point and a study's cells have in common; sparsity asked for, at three decimals."""
DESCRIBED = [
    "dense_steps",
    "batch_size",
    "val_examples",
    "precision",
    "mask",
    "shape",
    "weights_from",
    "lr_from",
    "budget",
    "momentum",
    "protocol",
]
"""Columns that say how a cell was trained: where they differ from the paper's, it is no reproduction."""
ACCURACY_MARGIN = 0.01
"""The paper's own, as a fraction."""
CHANGE_MARGIN = 0.005
"""Of the change against the dense network; a pair of strategies closer than this in print has no sign."""
REPRODUCED = 0.9
"""Least share of a panel's points, and of its pairs, that must hold."""
SHARES = ["accuracy", "change", "both", "signs"]
"""What is counted: points within either margin, within both, and pairs with the printed sign."""
SUMMARY = [
    "source",
    "points",
    "printed",
    "pairs",
    *SHARES,
    *(f"dense_{name}" for name in SHARES),
    *(f"exchanged_{name}" for name in SHARES),
    "reproduced",
    "reason",
]
"""The columns of summary()."""
TOGETHER = "all panels"
"""The name of summary()'s last row."""
UNKNOWN = (
    "Published values are medians of 2 to 12 networks, a number chosen after looking at results; whether they are of "
    "the last or of the best epoch is not known. Ours are medians of the last step."
)
"""What a report says beside every score."""


def scorecard(frame: pd.DataFrame, published: pd.DataFrame | None = None) -> pd.DataFrame:
    """A row per published point that the study has finished cells of; none, when it has none.

    published: as load_published() gives it; mikler2021 unless told. Where a study trained a point in several ways, the
    one most like the paper's stands. Columns: source, JOIN, theirs, ours (median), n (networks), dense_theirs,
    dense_ours (median), change_theirs, change_ours (median against the same seed's dense network), within_accuracy,
    within_change, differences (of the protocol; empty: none), iteration.
    Accuracies are fractions. Raises ValueError as analysis.load.check() does.
    """
    check(frame)
    theirs = _joinable(load_published("mikler2021") if published is None else published)
    points = theirs[[*JOIN, *DESCRIBED]].assign(
        source=theirs["unit"],
        theirs=theirs["test_accuracy"],
        dense_theirs=theirs["dense_test_accuracy"],
        change_theirs=theirs["delta_test_accuracy"],
        iteration=theirs["iteration"],
        point=range(len(theirs)),
    )
    both = points.merge(_medians(frame), on=JOIN, suffixes=("_theirs", "_ours"))
    both["differences"] = pd.Series([_differences(row) for _, row in both.iterrows()], both.index, "str")
    both["distance"] = both["differences"].str.count(";") + (both["differences"] != "")
    both = both.sort_values(["point", "distance", "n"], ascending=[True, True, False], kind="stable")
    columns = ["source", *JOIN, "theirs", "ours", "n", "dense_theirs", "dense_ours", "change_theirs", "change_ours"]
    return _judged(both.drop_duplicates("point").reset_index(drop=True)[[*columns, "differences", "iteration"]])


def pairs(scores: pd.DataFrame) -> pd.DataFrame:
    """Of a scorecard, a row per pair of strategies at one sparsity of a panel.

    Columns: source, sparsity, first, second, theirs, ours (accuracy of the first above the second), same_sign (missing
    where the printed ones differ by less than CHANGE_MARGIN), verdict: same sign, other sign, or too close in print.
    """
    columns = ["source", "sparsity", "first", "second", "theirs", "ours"]
    rows = [
        (source, sparsity, a.strategy, b.strategy, a.theirs - b.theirs, a.ours - b.ours)
        for (source, sparsity), group in scores.groupby(["source", "sparsity"], sort=False)
        for a, b in combinations(group.itertuples(), 2)
    ]
    found = pd.DataFrame(rows, columns=columns).astype({"theirs": float, "ours": float})
    same = np.sign(found["theirs"].round(9)) == np.sign(found["ours"].round(9))
    decided = found["theirs"].abs().round(9) >= CHANGE_MARGIN
    verdict = np.where(~decided, "too close in print", np.where(same, "same sign", "other sign"))
    return found.assign(same_sign=same.astype("boolean").where(decided), verdict=verdict)


def summary(scores: pd.DataFrame, published: pd.DataFrame | None = None) -> pd.DataFrame:
    """Of a scorecard, a row per panel, and one of all panels together, in which a cell printed twice counts once.

    Columns: source, points, printed (points that the panel has), pairs (that print decides), then shares of points
    (`accuracy`, `change`, `both`) and of pairs (`signs`) that hold, the same of dense accuracy everywhere (dense_…) and
    of weight and learning-rate rewinding exchanged (exchanged_…; missing where there is nothing to exchange);
    reproduced: at least 90 % of the points hold both margins and at least 90 % of the pairs their sign, all of it
    trained by the paper's protocol; reason: why it is, or is not.
    """
    theirs = _joinable(load_published("mikler2021") if published is None else published)
    printed = theirs["unit"].value_counts()
    rows = [
        {"source": source, **_scored(panel, int(printed[source]))}
        for source, panel in scores.groupby("source", sort=False)
    ]
    if rows:
        together = _scored(_distinct(scores), len(_distinct(theirs)))
        rows.append({"source": TOGETHER, **together, "reproduced": None, "reason": "only a panel can be reproduced"})
    return pd.DataFrame(rows, columns=SUMMARY).astype({"reproduced": "boolean"})


def _joinable(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame whose JOIN columns are spelled as the published ones."""
    return frame.assign(sparsity=frame["sparsity_target"].round(3), prune_fraction=frame["prune_fraction"].round(6))


def _medians(frame: pd.DataFrame) -> pd.DataFrame:
    """Of every JOIN and way of training, medians over finished networks whose dense network is finished too."""
    done = frame[(frame["status"] == "done") & (frame["schedule"] != "dense") & frame["delta_test_accuracy"].notna()]
    groups = _joinable(done).drop_duplicates([*JOIN, "key"]).groupby([*JOIN, *DESCRIBED], dropna=False, sort=False)
    return groups.agg(
        ours=("test_accuracy", "median"),
        dense_ours=("dense_test_accuracy", "median"),
        change_ours=("delta_test_accuracy", "median"),
        n=("test_accuracy", "size"),
    ).reset_index()


def _differences(point: pd.Series) -> str:
    """How our training of a point differs from theirs, in words; a recipe's digest only where no column shows why."""
    found = {}
    for name in DESCRIBED:
        theirs, ours = point[f"{name}_theirs"], point[f"{name}_ours"]
        same = pd.isna(ours) if pd.isna(theirs) else not pd.isna(ours) and theirs == ours
        if not same:
            found[name] = f"{name} {_spelled(ours)}, theirs {_spelled(theirs)}"
    if found.keys() & {"dense_steps", "batch_size", "val_examples", "precision"}:
        found.pop("protocol", None)
    return "; ".join(found.values())


def _spelled(value: object) -> str:
    return "none" if pd.isna(value) else str(value)


def _judged(scores: pd.DataFrame) -> pd.DataFrame:
    """Whether each point holds. Rounded, so that 0.9371 − 0.9271 is within 0.01."""
    return scores.assign(
        within_accuracy=(scores["ours"] - scores["theirs"]).abs().round(9) <= ACCURACY_MARGIN,
        within_change=(scores["change_ours"] - scores["change_theirs"]).abs().round(9) <= CHANGE_MARGIN,
    )


def _scored(panel: pd.DataFrame, printed: int) -> dict[str, object]:
    """A row of summary() but its source: printed is the number of points that the panel has."""
    shares, signs = _shares(panel), pairs(panel)["same_sign"].dropna()
    dense = _shares(_judged(panel.assign(ours=panel["dense_ours"], change_ours=0.0)))
    exchanged = _shares(_exchanged(panel))
    held = f"{100 * shares['both']:.1f} % of {len(panel)} points hold (of {printed} printed)"
    pairs_held = f"{100 * shares['signs']:.1f} % of {len(signs)} pairs" if len(signs) else "print decides no pair"
    differences = panel.loc[panel["differences"] != "", "differences"]
    holds = shares["both"] >= REPRODUCED and (signs.empty or shares["signs"] >= REPRODUCED)
    return {
        "points": len(panel),
        "printed": printed,
        "pairs": len(signs),
        **shares,
        **{f"dense_{name}": share for name, share in dense.items()},
        **{f"exchanged_{name}": share for name, share in exchanged.items()},
        "reproduced": holds and differences.empty,
        "reason": f"{held}; {pairs_held}" if differences.empty else f"not comparable: {differences.mode()[0]}",
    }


def _shares(scores: pd.DataFrame) -> dict[str, float]:
    """Of points and pairs that hold; NaN of none."""
    accuracy, change = scores["within_accuracy"], scores["within_change"]
    signs = pairs(scores)["same_sign"].dropna().astype(float)
    held = (accuracy, change, accuracy & change, signs)
    return {name: float(holds.mean()) for name, holds in zip(SHARES, held, strict=True)}


def _exchanged(scores: pd.DataFrame) -> pd.DataFrame:
    """Weight and learning-rate rewinding exchanged where both are; no row when nowhere."""
    place, ours = ["source", "sparsity", "strategy"], ["ours", "change_ours"]
    names = {"weight-rewinding": "lr-rewinding", "lr-rewinding": "weight-rewinding"}
    other = scores.assign(strategy=scores["strategy"].replace(names))[[*place, *ours]]
    found = scores[place].merge(other, how="left", on=place).set_index(scores.index)
    if not (found["ours"].notna() & scores["strategy"].isin(names)).any():
        return scores.iloc[:0]
    return _judged(scores.assign(**{name: found[name].fillna(scores[name]) for name in ours}))


def _distinct(points: pd.DataFrame) -> pd.DataFrame:
    """Points without a chain's first cycle where it is printed as a one-shot cell before."""
    network = ["dataset", "architecture", "structure", "strategy", "sparsity", "iteration"]
    return points[~((points["iteration"] == 1) & points.duplicated(network))]
