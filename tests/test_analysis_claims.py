"""Verdicts on made-up frames against plain arithmetic, and on what Renda et al. released."""

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from analysis import stats
from analysis.claims import (
    CLAIMS,
    Claim,
    Comparison,
    evaluate,
    margin_for,
)
from analysis.load import SCHEMA
from analysis.renda2020 import best_budget, load_renda2020

REAL = Path(__file__).parents[2] / "shared" / "data"
needs_real = pytest.mark.skipif(not (REAL / "renda2020_pruned.csv").exists(), reason="../shared/data is not here")

BY_NUMBER = {claim.number: claim for claim in CLAIMS}
MARGIN = 0.01
SPREAD = np.array([-0.003, -0.002, -0.001, 0.0, 0.0, 0.001, 0.002, 0.003])
SUPPORTS, CONTRADICTS, EQUALS, WIDE = SPREAD + 0.05, SPREAD - 0.05, SPREAD, 40 * SPREAD
SPARSITIES = {"low": (0.2, 0.6), "high": (0.7, 0.9)}
NETWORK = ("made-up", "resnet20")


def cell(strategy, schedule, seed, sparsity, accuracy, *, architecture="resnet20", **columns):
    unpruned = strategy.startswith("dense")
    made = {
        "status": "done",
        "unit": f"{architecture} {seed}",
        "dataset": "made-up",
        "architecture": architecture,
        "structure": None if strategy == "dense" else "unstructured",
        "schedule": "dense" if strategy == "dense" else schedule,
        "iteration": 0 if strategy == "dense" else 1,
        "protocol": "0123456789ab",
        "protocol_name": "p",
        "strategy": strategy,
        "budget": None if strategy == "dense" else 400,
        "seed": seed,
        "sparsity_target": 0.0 if unpruned else sparsity,
        "dense_steps": 400,
        "total_steps": 400 if strategy == "dense" else 800,
        "test_accuracy": accuracy,
    }
    made |= columns
    return {
        "key": " ".join(str(made[name]) for name in ("strategy", "schedule", "unit", "sparsity_target", "budget"))
    } | made


def framed(rows):
    frame = pd.DataFrame(rows).reindex(columns=list(SCHEMA)).astype(SCHEMA)
    return frame.drop_duplicates(["schedule", "key"], ignore_index=True)


def sides(part, differences, *, schedule="one-shot", range_="low", first_seed=0, **columns):
    """Cells of both sides of a comparison: unit by unit a differs from b by so much on average over two sparsities."""
    rows = []
    for seed, difference in enumerate(differences, start=first_seed):
        for sparsity, more in zip(SPARSITIES[range_], (0.004, -0.004), strict=True):
            base = 0.8 + 0.01 * seed - 0.1 * sparsity
            base = 0.8 + 0.01 * seed if part.match == [] or "dense-extra-budget" in (part.a, part.b) else base
            a, b = part.a_schedule or schedule, part.b_schedule or schedule
            rows.append(
                cell(part.a, a, seed, sparsity, base + difference + (0 if part.a == "dense" else more), **columns)
            )
            rows.append(cell(part.b, b, seed, sparsity, base - (more if part.a == "dense" else 0), **columns))
    return rows


def about(claim, differences, **columns):
    """A frame in which every part of a claim has these differences, one a unit."""
    (architecture, *_) = claim.architectures or ["resnet20"]
    made = {"schedule": claim.schedules[0], "range_": claim.ranges[0], "architecture": architecture} | columns
    return framed([row for part in claim.parts for row in sides(part, differences, **made)])


def verdicts(claim, frame, **options):
    return evaluate(frame, [claim], margin=MARGIN, **options)


def flips(values):
    """p by a loop over all signs."""
    signs = np.array(list(itertools.product((1, -1), repeat=len(values))))
    return np.mean(signs @ values >= values.sum() - 1e-12)


@pytest.mark.parametrize("number", BY_NUMBER)
@pytest.mark.parametrize(
    ("differences", "verdict"),
    [(SUPPORTS, "supported"), (CONTRADICTS, "contradicted"), (EQUALS, "equivalent"), (WIDE, "undecided")],
)
def test_every_claim_has_every_verdict(number, differences, verdict):
    """At least as good: what is equivalent is supported, and said to be equivalent."""
    claim = BY_NUMBER[number]
    found = verdicts(claim, about(claim, differences))
    as_good = claim.kind == "non-inferiority" and verdict == "equivalent"
    assert set(found["verdict"]) == {"supported" if as_good else verdict}
    assert found["note"].str.contains("equivalent within the margin").any() == as_good
    assert set(found["n"]) == {8}
    assert (found["needs"] != "").any() == (verdict == "undecided")
    np.testing.assert_allclose(found["effect"], differences.mean(), atol=1e-12)


@pytest.mark.parametrize("number", BY_NUMBER)
def test_no_cell_of_a_claim_is_no_data(number):
    claim = BY_NUMBER[number]
    for rows in ([cell("reinit", "one-shot", 0, 0.5, 0.7)], [cell("dense", "dense", 0, 0, 0.9)]):
        found = verdicts(claim, framed(rows))
        assert set(found["verdict"]) == {"no data"}
        assert set(found["n"]) == {0}
        assert found[["effect", "low", "high", "p", "p_adjusted", "p_against"]].isna().all(axis=None)
        assert set(found["needs"]) == {"it needs cells of this claim"}


@pytest.mark.parametrize("number", ["3a", "3b"])
def test_other_architectures_stand_beside(number):
    claim = BY_NUMBER[number]
    there, beside = (about(claim, d, architecture=a) for d, a in ((SUPPORTS, "wrn16-8"), (CONTRADICTS, "resnet20")))
    found = evaluate(pd.concat([there, beside], ignore_index=True), [claim], margin=MARGIN)
    chosen = found[["architecture", "about", "verdict"]].itertuples(index=False, name=None)
    assert list(chosen) == [("wrn16-8", True, "supported"), ("resnet20", False, "contradicted")]


@pytest.mark.parametrize("number", BY_NUMBER)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("difference", [0.5, -0.5, 0.0])
def test_below_five_units_nothing_is_decided(number, n, difference):
    claim = BY_NUMBER[number]
    found = verdicts(claim, about(claim, SPREAD[:n] / 1000 + difference))
    assert set(found["verdict"]) == {"undecided"}
    assert set(found["n"]) == {n}
    assert not found["note"].str.contains("equivalent").any()


@pytest.mark.parametrize("number", ["2", "3b"])
@pytest.mark.parametrize(("a", "b"), [(4, 4), (3, 4), (2, 9), (1, 12)])
@pytest.mark.parametrize("difference", [0.5, -0.5, 0.0])
def test_below_five_unpaired_units_nothing_is_decided(number, a, b, difference):
    """Ranks of 4 against 4 units have p from 1/70 on."""
    claim = BY_NUMBER[number]
    found = verdicts(claim, unpaired(claim, a, b, difference))
    assert set(found["verdict"]) == {"undecided"}
    assert set(found["n"]) == {min(a, b)}
    assert not found["paired"].any()
    assert not found["note"].str.contains("equivalent").any()


def one_side(
    strategy, accuracies, *, first_seed=0, schedule="iterative", architecture="wrn16-8", sparsity=0.5, **columns
):
    return [
        cell(strategy, schedule, seed, sparsity, accuracy, architecture=architecture, **columns)
        for seed, accuracy in enumerate(accuracies, start=first_seed)
    ]


def unpaired(claim, a, b, difference):
    """a units of the one strategy, b other units of the other."""
    rows = one_side(claim.parts[0].a, 0.3 + difference + 0.0001 * np.arange(a))
    return framed([*rows, *one_side(claim.parts[0].b, 0.3 + 0.0001 * np.arange(b), first_seed=100)])


def test_numbers_are_plain_arithmetic():
    """Claim 2, eight units whose differences at two sparsities are averaged first."""
    differences = np.array([0.011, -0.004, 0.013, 0.02, 0.001, 0.006, -0.002, 0.009])
    claim = BY_NUMBER["2"]
    frame = about(claim, differences)
    row = verdicts(claim, frame).iloc[1]
    wide = frame.pivot_table(index=["unit", "sparsity_target"], columns="strategy", values="test_accuracy")
    means = (wide["lr-rewinding"] - wide["weight-rewinding"]).groupby("unit").mean().to_numpy()
    np.testing.assert_allclose(np.sort(means), np.sort(differences), atol=1e-12)

    def p(values):
        return max(scipy_stats.ttest_1samp(values, 0, alternative="greater").pvalue, flips(values))

    low, high = scipy_stats.ttest_1samp(means, 0).confidence_interval(1 - 2 * 0.04)
    expected = {
        "effect": means.mean(),
        "low": low,
        "high": high,
        "margin": MARGIN,
        "p": p(means + MARGIN),
        "p_adjusted": p(means + MARGIN),
        "p_against": p(-means),
        "p_equivalent": max(p(means + MARGIN), p(MARGIN - means)),
        "smallest_p": 1 / 256,
        "level": 0.04,
    }
    assert row[list(expected)].to_dict() == pytest.approx(expected, rel=1e-9)
    assert (row["n"], row["look"], row["paired"], row["verdict"]) == (8, 0, True, "supported")


@pytest.mark.parametrize(
    ("look", "level", "verdict"), [(0, 0.04, "supported"), (1, 0.005, "supported"), (2, 0.0025, "undecided")]
)
def test_a_later_look_is_stricter(look, level, verdict):
    """Eight units have p = 1/256 at least, 0.0039."""
    claim = BY_NUMBER["3b"]
    (row,) = verdicts(claim, about(claim, SUPPORTS), looks={("made-up", "wrn16-8"): look}).itertuples()
    assert (row.look, row.level, row.verdict) == (look, level, verdict)
    bounds = scipy_stats.ttest_1samp(SUPPORTS, 0).confidence_interval(1 - 2 * level)
    assert (row.low, row.high) == pytest.approx(tuple(bounds), rel=1e-9)


def test_looks_are_a_networks_own_and_together_the_most():
    claim = BY_NUMBER["1"]
    both = [about(claim, SUPPORTS, architecture=name) for name in ("resnet20", "resnet56")]
    frame = pd.concat(both, ignore_index=True)
    found = verdicts(claim, frame, looks={("made-up", "resnet56"): 3})
    assert found.groupby("architecture")["look"].unique().map(list).to_dict() == {
        "resnet20": [0],
        "resnet56": [3],
        "together": [3],
    }


@pytest.mark.parametrize(("mean", "note"), [(0.004, "smaller than the margin"), (0.05, "")])
def test_a_difference_below_the_margin_is_said_to_be(mean, note):
    (row,) = verdicts(BY_NUMBER["3b"], about(BY_NUMBER["3b"], SPREAD + mean)).itertuples()
    assert (row.verdict, row.note) == ("supported", note)


def test_together_pools_units_of_all_architectures():
    """Three units of each of two networks: neither decides, six do."""
    claim = BY_NUMBER["2"]
    sets = {"resnet20": SPREAD[:3] + 0.05, "resnet56": SPREAD[:3] + 0.03}
    frame = pd.concat([about(claim, d, architecture=name) for name, d in sets.items()], ignore_index=True)
    found = verdicts(claim, frame).set_index("scope")
    alone = found.loc[[f"made-up/{name}/unstructured/one-shot/low" for name in sets]]
    assert list(zip(alone["verdict"], alone["n"], strict=True)) == [("undecided", 3), ("undecided", 3)]
    together = found.loc["together/unstructured/one-shot/low"]
    pooled = np.concatenate(list(sets.values()))
    low = scipy_stats.ttest_1samp(pooled, 0).confidence_interval(1 - 2 * 0.04).low
    assert (together["verdict"], together["n"]) == ("supported", 6)
    assert (together["effect"], together["low"]) == pytest.approx((pooled.mean(), low), rel=1e-9)


def composed(first, second, n=8):
    """Claim 1 where weight rewinding, and LR rewinding, differ so much from fine-tuning."""
    claim = BY_NUMBER["1"]
    rows = [row for part, d in zip(claim.parts, (first, second), strict=True) for row in sides(part, d[:n])]
    return verdicts(claim, framed(rows))


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        (SUPPORTS, SUPPORTS, "supported"),
        (SUPPORTS, WIDE, "undecided"),
        (SUPPORTS, EQUALS, "undecided"),
        (SUPPORTS, CONTRADICTS, "contradicted"),
        (WIDE, CONTRADICTS, "contradicted"),
        (EQUALS, EQUALS, "equivalent"),
    ],
)
def test_a_claim_of_two_parts(first, second, verdict):
    found = composed(first, second)
    assert list(found["part"]) == ["all of it", "weight-rewinding > fine-tuning", "lr-rewinding > fine-tuning"]
    assert found["verdict"].iloc[0] == verdict
    assert found["effect"].iloc[0] == pytest.approx(min(first.mean(), second.mean()), abs=1e-12)


def test_support_of_each_part_needs_no_correction_and_contradiction_does():
    """Five units have p = 1/32 at least: below 0.04, and twice that is not."""
    for_it, against = composed(SUPPORTS, SUPPORTS, n=5), composed(SUPPORTS, CONTRADICTS, n=5)
    assert list(for_it["verdict"]) == ["supported"] * 3
    assert list(for_it["p_adjusted"]) == [1 / 32, 1 / 16, 1 / 16]
    assert list(against["verdict"]) == ["undecided", "supported", "undecided"]
    assert against["p_against"].iloc[2] == 1 / 16


def test_a_part_without_cells_leaves_the_claim_undecided():
    claim = BY_NUMBER["1"]
    found = verdicts(claim, framed(sides(claim.parts[0], SUPPORTS)))
    assert list(found["verdict"]) == ["undecided", "supported", "no data"]


@pytest.mark.parametrize(
    ("one_shot", "iterative", "verdict", "note"),
    [
        (SUPPORTS, SUPPORTS, "supported", "2 supported of its scopes"),
        (SUPPORTS, WIDE, "undecided", "1 supported, 1 undecided of its scopes"),
        (SUPPORTS, CONTRADICTS, "contradicted", "1 supported, 1 contradicted of its scopes"),
        (SUPPORTS[:5], CONTRADICTS[:5], "undecided", "1 supported, 1 undecided of its scopes"),
    ],
)
def test_in_all_scenarios(one_shot, iterative, verdict, note):
    """The last: p = 1/32 against it in one scope of two, 1/16 after Holm."""
    claim = BY_NUMBER["2"]
    frames = [about(claim, d, schedule=s) for d, s in ((one_shot, "one-shot"), (iterative, "iterative"))]
    found = verdicts(claim, pd.concat(frames, ignore_index=True))
    whole = found.iloc[0]
    assert list(found["scope"]) == [
        "all scenarios",
        "made-up/resnet20/unstructured/one-shot/low",
        "made-up/resnet20/unstructured/iterative/low",
    ]
    assert (whole["verdict"], whole["note"]) == (verdict, note)


def test_all_scenarios_wait_for_one_that_has_no_finished_cell():
    claim = BY_NUMBER["2"]
    waiting = about(claim, SUPPORTS, schedule="iterative").assign(status="missing", test_accuracy=np.nan)
    found = verdicts(claim, pd.concat([about(claim, SUPPORTS), waiting], ignore_index=True))
    assert list(found["verdict"]) == ["undecided", "supported", "no data"]
    assert found["note"].iloc[2] == "32 of 32 cells are not finished: a verdict waits for them"


@pytest.mark.parametrize(
    ("status", "verdict", "note"),
    [
        ("missing", "undecided", "1 of 34 cells are not finished: a verdict waits for them"),
        ("running", "undecided", "1 of 34 cells are not finished: a verdict waits for them"),
        ("failed", "supported", ""),
    ],
)
def test_a_verdict_waits_for_cells_that_are_not_finished(status, verdict, note):
    claim = BY_NUMBER["3b"]
    more = sides(claim.parts[0], [0.05], schedule="iterative", architecture="wrn16-8", first_seed=8)
    more[0] |= {"status": status, "test_accuracy": None}
    more = [more[0], more[1]]
    frame = pd.concat([about(claim, SUPPORTS), framed(more)], ignore_index=True)
    (row,) = verdicts(claim, frame).itertuples()
    assert (row.verdict, row.note, row.n, row.needs) == (verdict, note, 8, "")


def test_missing_seeds_leave_the_units_that_match():
    """Seeds 0–7 of the one, 2–9 of the other: six pairs, by a merge."""
    claim = BY_NUMBER["3b"]
    a, b = 0.8 + 0.01 * np.arange(8) ** 2, 0.7 + 0.011 * np.arange(8) ** 2
    frame = framed([*one_side("weight-rewinding", a), *one_side("lr-rewinding", b, first_seed=2)])
    (row,) = verdicts(claim, frame).itertuples()
    merged = (pd.Series(a, range(8)) - pd.Series(b, range(2, 10))).dropna().to_numpy()
    assert (row.n, row.paired) == (6, True)
    assert row.effect == pytest.approx(merged.mean())
    student = scipy_stats.ttest_1samp(merged, 0, alternative="greater").pvalue
    assert row.p == pytest.approx(max(student, flips(merged)))


def test_a_unit_counts_only_where_it_has_both_cells():
    """Seed 0 lacks the second sparsity of one side: its first one alone is its number."""
    claim = BY_NUMBER["3b"]
    frame = about(claim, SUPPORTS)
    kept = frame.drop(frame[(frame["seed"] == 0) & (frame["sparsity_target"] == 0.6)].index[:1])
    (row,) = verdicts(claim, kept).itertuples()
    assert row.effect == pytest.approx((SUPPORTS.sum() + 0.004) / 8)


def test_where_less_than_half_match_the_ranks_are_compared():
    """Seeds 0–7 against 6–13: Mann–Whitney and Welch, and it is said."""
    claim = BY_NUMBER["3b"]
    a, b = 0.8 + 0.01 * np.sqrt(np.arange(8)), 0.79 + 0.011 * np.sqrt(np.arange(8))
    frame = framed([*one_side("weight-rewinding", a), *one_side("lr-rewinding", b, first_seed=6)])
    (row,) = verdicts(claim, frame).itertuples()
    ranks = scipy_stats.mannwhitneyu(a, b, alternative="greater", method="exact").pvalue
    welch = scipy_stats.ttest_ind(a, b, equal_var=False, alternative="greater")
    bounds = scipy_stats.ttest_ind(a, b, equal_var=False).confidence_interval(1 - 2 * 0.04)
    assert (row.n, row.paired, row.note) == (8, False, "unpaired: 8 units against 8")
    assert (row.effect, row.low, row.high) == pytest.approx((a.mean() - b.mean(), *bounds), rel=1e-9)
    assert row.p == pytest.approx(max(ranks, welch.pvalue), rel=1e-9)
    assert row.smallest_p == 1 / math.comb(16, 8)


def test_unpaired_together_compares_within_networks():
    """Networks 0.4 apart, a difference of 0.02 in each: the distance between networks is no noise."""
    claim = Claim(number="x", text="", source="", parts=(Comparison(a="weight-rewinding", b="lr-rewinding"),))
    rows = []
    for network, base in (("resnet20", 0.3), ("resnet56", 0.7)):
        rows += one_side("weight-rewinding", base + 0.02 + SPREAD[:4] / 2, architecture=network)
        rows += one_side("lr-rewinding", base + SPREAD[:4] / 2, architecture=network, first_seed=50)
    together = verdicts(claim, framed(rows)).iloc[-1]
    assert (together["scope"], together["n"]) == ("together/unstructured/iterative/low", 8)
    assert (together["verdict"], together["paired"]) == ("supported", False)
    assert together["effect"] == pytest.approx(0.02)


def test_unpaired_units_are_compared_within_sparsities():
    """Five of six runs of one side failed at the harder sparsity: that is no difference at either."""
    claim = BY_NUMBER["3b"]
    rows = []
    for sparsity, base in ((0.2, 0.9), (0.6, 0.8)):
        accuracies = base + 0.001 * np.arange(6)
        rows += one_side("lr-rewinding", accuracies, sparsity=sparsity, first_seed=50)
        rows += one_side("weight-rewinding", accuracies[: 6 if sparsity == 0.2 else 1], sparsity=sparsity)
    (row,) = verdicts(claim, framed(rows)).itertuples()
    assert (row.n, row.paired, row.verdict) == (6, False, "equivalent")
    assert row.effect == pytest.approx(0, abs=0.002)


def test_networks_of_one_unpaired_unit_decide_nothing_together():
    """Each is compared about its own centre, to which one unit a side leaves no spread of its own."""
    claim = BY_NUMBER["2"]
    rows = []
    for i in range(6):
        rows += one_side("lr-rewinding", [0.7 + i / 1000], architecture=f"network {i}")
        rows += one_side("weight-rewinding", [0.5], architecture=f"network {i}", first_seed=50)
    together = verdicts(claim, framed(rows)).iloc[-1]
    assert (together["scope"], together["n"]) == ("together/unstructured/iterative/low", 6)
    assert together["p"] <= together["level"]
    assert together["verdict"] == "undecided"


@pytest.mark.parametrize(
    ("a", "b", "settings", "notes"),
    [
        ((400, 356), (356,), [""], [""]),
        ((400, 356), (356, 400), ["356 steps", "400 steps"], ["", ""]),
        ((400,), (356,), [""], ["steps a cycle: 400 against 356"]),
        (
            (400, 300),
            (356,),
            ["300 steps against 356 steps", "400 steps against 356 steps"],
            ["steps a cycle: 300 against 356", "steps a cycle: 400 against 356"],
        ),
    ],
)
def test_budgets_are_compared_where_equal_else_both_are_said(a, b, settings, notes):
    claim = Claim(number="x", text="", source="", parts=(Comparison(a="weight-rewinding", b="lr-rewinding"),))
    rows = []
    for strategy, budgets, better in (("weight-rewinding", a, 0.02), ("lr-rewinding", b, 0.0)):
        for budget in budgets:
            rows += one_side(strategy, 0.5 + better + budget / 1e4 + SPREAD, budget=budget)
    found = verdicts(claim, framed(rows))
    assert sorted(found["setting"]) == settings
    assert list(found.sort_values("setting")["note"]) == notes
    if settings == ["356 steps", "400 steps"] or notes == [""]:
        np.testing.assert_allclose(found["effect"], 0.02, atol=1e-12)


def again(frame, **columns):
    """The pruned cells and the extended dense ones once more in another setting."""
    more = frame[frame["strategy"] != "dense"]
    return pd.concat([frame, more.assign(key=more["key"] + " again", **columns)], ignore_index=True)


@pytest.mark.parametrize("number", ["3a", "5"])
def test_a_setting_against_a_dense_network_is_the_pruned_ones(number):
    claim = BY_NUMBER[number]
    found = verdicts(claim, again(about(claim, SUPPORTS), budget=356))
    assert list(found["setting"]) == ["356 steps", "400 steps"]
    assert list(found["verdict"]) == ["supported"] * 2
    assert list(found["note"]) == ["", ""]


def test_no_setting_is_lost_where_only_the_momentum_differs():
    claim = BY_NUMBER["3b"]
    frame = about(claim, SUPPORTS, momentum="fresh")
    found = verdicts(claim, again(frame, momentum="with_weights"))
    assert len(found) == found["setting"].nunique() == 4
    assert sum("fresh against" in name or "against fresh" in name for name in found["setting"]) == 2


def test_no_setting_is_lost_where_only_the_shape_differs():
    """Fine-tuning under two schedules of its own: rewinding is compared with each."""
    claim = BY_NUMBER["3b"]
    frame = about(claim, SUPPORTS).assign(shape="replay")
    other = frame[frame["strategy"] == "lr-rewinding"]
    other = other.assign(shape="constant(peak 0.001, warm-up 0)", key="constant " + other["key"])
    other = other.assign(test_accuracy=other["test_accuracy"] - 0.1)
    found = verdicts(claim, pd.concat([frame, other], ignore_index=True))
    both = "replay against constant(peak 0.001, warm-up 0)"
    assert dict(zip(found["setting"], found["effect"].round(3), strict=True)) == {
        "400 steps, replay": 0.05,
        f"400 steps, {both}": 0.15,
    }


def test_a_chains_first_cycle_is_not_compared_with_itself():
    """One key under two schedules: claim 4 has no pair in it."""
    claim = BY_NUMBER["4"]
    frame = about(claim, SUPPORTS)
    shared = frame["sparsity_target"] == 0.7
    frame["key"] = frame["key"].mask(shared, frame["strategy"] + " " + frame["unit"])
    found = verdicts(claim, frame)
    np.testing.assert_allclose(found["effect"], 0.05 - 0.004)


def test_total_steps_stand_beside_iterative_against_one_shot():
    claim = BY_NUMBER["4"]
    frame = about(claim, SUPPORTS)
    frame["total_steps"] = frame["total_steps"].mask(frame["schedule"] == "iterative", 4400)
    assert list(verdicts(claim, frame)["note"].iloc[1:]) == ["steps total: 4,400 against 800"] * 3


@pytest.mark.parametrize(
    ("dataset", "margin", "images", "least"), [("digits", 0.0025, 360, 0.6), ("cifar10", 0.0001, "10,000", 0.1)]
)
def test_a_margin_below_two_test_images_is_refused(dataset, margin, images, least):
    claim = BY_NUMBER["2"]
    frame = about(claim, SUPPORTS, dataset=dataset)
    with pytest.raises(ValueError, match=rf"below two of the {images} test images of {dataset} .*: {least} would do"):
        evaluate(frame, [claim], margin=margin)
    assert set(evaluate(frame, [claim], margin=least / 100)["margin"]) == {least / 100}


def test_renda_et_al_tested_on_fewer_images():
    frame = about(BY_NUMBER["2"], SUPPORTS, dataset="cifar10", protocol="renda2020")
    with pytest.raises(ValueError, match=r"0\.022 points is below two of the 8,000 test images of renda2020"):
        evaluate(frame, margin=0.00022)


def test_the_margin_for_a_frame():
    frames = [about(BY_NUMBER["2"], SUPPORTS, dataset=name) for name in ("cifar10", "digits", "made-up")]
    assert [margin_for(frame) for frame in frames] == [0.0025, 0.006, 0.0025]
    assert margin_for(pd.concat(frames)) == 0.006


def test_two_protocols_are_refused_by_name_unless_allowed():
    claim = BY_NUMBER["2"]
    frame = about(claim, SUPPORTS)
    frame["protocol"] = frame["protocol"].mask(frame["seed"] > 3, "fedcba987654")
    message = r"resnet20 on made-up was trained by 2 protocols: 0123456789ab \(p, 400 steps\); fedcba987654 \(p, "
    with pytest.raises(ValueError, match=message):
        verdicts(claim, frame)
    assert verdicts(claim, frame, allow_mixed=True)["n"].iloc[1] == 8


def test_two_networks_may_have_two_protocols():
    claim = BY_NUMBER["2"]
    other = about(claim, SUPPORTS, architecture="resnet56", protocol="fedcba987654")
    assert len(verdicts(claim, pd.concat([about(claim, SUPPORTS), other], ignore_index=True))) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.assign(test_accuracy=np.nan), r"32 rows are done and have no test_accuracy \(NaN\)"),
        (lambda frame: pd.concat([frame, frame.head(2)]), "2 rows stand twice"),
        (lambda frame: frame.assign(accuracy=1), "unknown column accuracy: the columns are study, "),
        (lambda frame: frame.drop(columns="unit"), "the table lacks the column unit"),
        (lambda frame: frame.head(0), "the table has no row"),
    ],
)
def test_what_is_no_table_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        verdicts(BY_NUMBER["2"], change(about(BY_NUMBER["2"], SUPPORTS)))


def test_a_claim_of_ones_own():
    mine = Claim(
        number="mine",
        text="Low-LR weight rewinding beats reinitialisation.",
        source="me",
        parts=(Comparison(a="low-lr-weight-rewinding", b="reinit"),),
        schedules=("one-shot",),
        ranges=("high",),
    )
    (row,) = verdicts(mine, about(mine, SUPPORTS)).itertuples()
    assert (row.claim, row.verdict, row.scope) == ("mine", "supported", "made-up/resnet20/unstructured/one-shot/high")
    assert (row.part, row.source) == ("low-lr-weight-rewinding > reinit", "me")


def test_claims_come_in_their_order():
    claims = [BY_NUMBER[number] for number in ("5", "1", "3a")]
    found = verdicts(claims[0], about(claims[1], SUPPORTS))
    assert list(found["claim"]) == ["5"]
    everything = evaluate(about(claims[1], SUPPORTS), claims, margin=MARGIN)
    assert list(everything["claim"].drop_duplicates()) == ["5", "1", "3a"]


@pytest.mark.parametrize("differences", [WIDE + 0.03, WIDE / 4 + 0.002, WIDE - 0.05])
def test_what_would_decide_it(differences):
    """Units for 80 % power at the next look's level, to whichever edge is nearest, with the range of the SD."""
    claim = BY_NUMBER["3b"]
    (row,) = verdicts(claim, about(claim, differences)).itertuples()
    assert row.verdict == "undecided"
    mean, sd = differences.mean(), differences.std(ddof=1)

    def more(sd):
        counts = [stats.units_needed(distance, sd, 0.005) for distance in (abs(mean), MARGIN - abs(mean))]
        return min(n for n in counts if n is not None) - 8

    tails = [sd * math.sqrt(7 / scipy_stats.chi2.ppf(q, 7)) for q in (0.95, 0.05)]
    fewest, most = (max(1, more(s)) for s in tails)
    assert row.needs == f"{max(1, more(sd))} more seeds ({fewest}–{most}) would decide this"


def test_what_would_decide_it_is_not_always_known():
    claim = BY_NUMBER["3b"]
    needed = [
        verdicts(claim, about(claim, differences))["needs"].iloc[0]
        for differences in (SUPPORTS[:1], np.array([0.3, -0.3, 0.2, -0.2, 0.1]))
    ]
    assert needed == ["two units or more, to know their spread", "more than 1,000 units"]


def test_same_frame_same_verdicts():
    """Twenty units of two networks: random sign flips, by seed."""
    claim = BY_NUMBER["2"]
    wide = np.random.default_rng(1).normal(-0.012, 0.02, (2, 10))
    frame = pd.concat(
        [about(claim, d, architecture=name) for d, name in zip(wide, ("resnet20", "resnet56"), strict=True)],
        ignore_index=True,
    )
    found = [verdicts(claim, frame, seed=seed) for seed in (0, 0, 1)]
    pd.testing.assert_frame_equal(found[0], found[1])
    together = [f.loc[f["dataset"] == "together", "p"].item() for f in found]
    assert together[0] != together[2]
    assert together[0] == pytest.approx(together[2], abs=0.02)


@pytest.fixture(scope="module")
def released():
    """The released networks at their best budgets, and the verdicts on them."""
    frame = best_budget(load_renda2020(REAL / "renda2020_pruned.csv", REAL / "renda2020_dense.csv"))
    return frame, evaluate(frame)


@needs_real
@pytest.mark.parametrize("network", ["resnet20", "resnet56"])
@pytest.mark.parametrize("range_", ["low", "high"])
@pytest.mark.parametrize(
    ("number", "a", "b"),
    [
        ("1", "weight-rewinding", "fine-tuning"),
        ("1", "lr-rewinding", "fine-tuning"),
        ("2", "lr-rewinding", "weight-rewinding"),
    ],
)
def test_released_one_shot_verdicts_against_plain_arithmetic(released, network, range_, number, a, b):
    """A unit is a (network, density, trial): three of each density."""
    frame, found = released
    rows = frame[(frame["architecture"] == network) & (frame["schedule"] == "one-shot")]
    rows = rows[(rows["sparsity_target"] <= 0.6) == (range_ == "low")]
    wide = rows.pivot_table(index=["sparsity_target", "seed"], columns="strategy", values="test_accuracy")
    means = (wide[a] - wide[b]).dropna().to_numpy(dtype=float)
    (row,) = found[
        (found["claim"] == number)
        & (found["scope"] == f"cifar10/{network}/unstructured/one-shot/{range_}")
        & (found["part"] == f"{a} > {b}")
    ].itertuples()
    edge = 0.0025 if number == "2" else 0.0
    exact = flips(means + edge) if len(means) <= 16 else pytest.approx(flips(means + edge), abs=0.01)
    student = scipy_stats.ttest_1samp(means, -edge, alternative="greater").pvalue
    low, high = scipy_stats.ttest_1samp(means, 0).confidence_interval(1 - 2 * 0.04)
    assert row.n == len(means) == 3 * rows["sparsity_target"].nunique()
    assert (row.effect, row.low, row.high) == pytest.approx((means.mean(), low, high), rel=1e-9)
    assert row.p == pytest.approx(student, rel=1e-9) or row.p == exact
    assert row.p >= student * (1 - 1e-9)
    if row.verdict == "supported":
        assert low > -edge
        assert row.p <= 0.04
    elif row.verdict == "contradicted":
        assert high < 0
    else:
        assert row.verdict in ("equivalent", "undecided")
        assert row.p > 0.04


@needs_real
@pytest.mark.parametrize("number", ["1", "2", "3b"])
def test_released_chains_are_unpaired_and_too_few_alone(released, number):
    """Each density's best budget is another chain's: three trials against three others."""
    frame, found = released
    chains = found[(found["claim"] == number) & (found["schedule"] == "iterative") & (found["dataset"] == "cifar10")]
    assert len(chains)
    assert set(chains["verdict"]) == {"undecided"}
    assert set(chains["n"]) == {3}
    high = frame[(frame["schedule"] == "iterative") & (frame["sparsity_target"] > 0.6)]
    means = high.groupby(["architecture", "strategy", "seed"])["test_accuracy"].mean()
    for row in chains[(chains["range"] == "high") & (chains["part"] != "all of it")].itertuples():
        a, b = (means[row.architecture][strategy] for strategy in row.part.split(" > "))
        bounds = scipy_stats.ttest_ind(a, b, equal_var=False).confidence_interval(1 - 2 * 0.04)
        assert (row.effect, row.low, row.high) == pytest.approx((a.mean() - b.mean(), *bounds), rel=1e-9)


def test_controls_of_other_masks_speak_of_no_claim():
    """The same cells under a random mask, worse by 30 points: every verdict stays as it was."""
    frame = about(BY_NUMBER["1"], SUPPORTS)
    control = frame[frame["strategy"] == "lr-rewinding"]
    control = control.assign(
        mask="random", key="random " + control["key"], test_accuracy=control["test_accuracy"] - 0.3
    )
    both = pd.concat([frame.assign(mask="magnitude"), control], ignore_index=True)
    pd.testing.assert_frame_equal(verdicts(BY_NUMBER["1"], both), verdicts(BY_NUMBER["1"], frame))
