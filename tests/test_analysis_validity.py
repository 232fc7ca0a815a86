"""How often verdicts are wrong where the truth is known: 10,000 simulated studies a case.

Differences are in units of their standard deviation over dense runs; the margin is one. Verdicts come from unit means
by measure() and verdict_of(), and evaluate() gives the same ones on frames.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from analysis import claims, stats
from analysis.claims import Claim, Comparison, Measured, Sample
from analysis.load import SCHEMA

pytestmark = pytest.mark.slow

STUDIES = 10_000
MARGIN = 1.0
MOST_FALSE = 0.057
"""5 % and three standard errors of 10,000 studies."""
SIZES = (3, 5, 6, 12)
EXTENDED = ((3, 6, 12), (5, 6, 12))
"""Units at each look; a study stops at its first decided verdict."""
TRUTHS = {"none": 0.0, "small": 0.5, "margin": MARGIN, "large": 3.0}
KINDS = ("superiority", "non-inferiority")
SPARSITIES = (0.3, 0.4, 0.5, 0.6)
NO_UNITS = np.array([])


def cells(truth, units, studies=STUDIES, seed=0):
    """Differences of cells, [studies, units, sparsities]: cells of a unit correlate by 0.31, their mean has SD 1."""
    rng = np.random.default_rng([seed, units, round(100 * truth)])
    of_unit, of_cell = 0.8 * rng.normal(size=(studies, units, 1)), 1.2 * rng.normal(size=(studies, units, 4))
    return truth + of_unit + of_cell


def paired(differences):
    return Sample(differences=differences, a=NO_UNITS, b=NO_UNITS, groups=(differences,))


def unpaired(a, b):
    return Sample(differences=None, a=a, b=b, groups=(a, b))


def measured(sample):
    """What units say; None of too few."""
    enough = sample is not None and sample.n >= claims.FEWEST_UNITS
    return claims.measure(sample, MARGIN) if enough else None


def mirrored(found):
    """What the same study says with the two strategies exchanged."""
    if found is None:
        return None
    effect = stats.Effect(mean=-found.effect.mean, se=found.effect.se, df=found.effect.df)
    return Measured(
        effect=effect,
        above=found.below,
        below=found.above,
        above_margin=found.below_margin,
        below_margin=found.above_margin,
    )


def verdict(found, kind, look=0):
    return "undecided" if found is None else claims.verdict_of(found, kind, stats.level(look), found.below.p)


def first_decided(study, sizes, kind):
    """The verdict of a study that is extended until one is decided. study: what its first units say, by size."""
    taken = (verdict(study[size], kind, look) for look, size in enumerate(sizes))
    return next((found for found in taken if found != "undecided"), "undecided")


def false_verdicts(kind, truth):
    """Verdicts that are wrong at a true difference."""
    wrong = {"supported"} if truth <= (0 if kind == "superiority" else -MARGIN) else set()
    return wrong | ({"contradicted"} if truth >= 0 else set()) | ({"equivalent"} if abs(truth) >= MARGIN else set())


def shares(truth, studies, looks):
    """Of studies, how many come to a verdict that is wrong, at a truth and, exchanged, at its opposite; by case.

    looks: sizes at which a study is looked at, each a case.
    """
    opposite = [{size: mirrored(found) for size, found in study.items()} for study in studies]
    return {
        (way * truth, sizes, kind, wrong): float(np.mean([found == wrong for found in taken]))
        for way, these in ((1, studies), (-1, opposite))
        for sizes in looks
        for kind in KINDS
        for taken in [[first_decided(study, sizes, kind) for study in these]]
        for wrong in false_verdicts(kind, way * truth)
    }


def too_many(cases):
    return {case: share for case, share in cases.items() if share > MOST_FALSE}


@pytest.fixture(scope="module", params=TRUTHS)
def simulated(request):
    """A truth, and studies of it: what the first 3, 5, 6 and all 12 of their units say."""
    truth = TRUTHS[request.param]
    means = cells(truth, max(SIZES)).mean(axis=2)
    return truth, [{n: claims.measure(paired(study[:n]), MARGIN) for n in SIZES} for study in means]


def test_false_verdicts_of_paired_studies_are_rare(simulated):
    """One look at 3, 5, 6 or 12 units, and studies extended 3 → 6 → 12 and 5 → 6 → 12."""
    truth, studies = simulated
    assert too_many(shares(truth, studies, [*((n,) for n in SIZES), *EXTENDED])) == {}


def test_below_five_units_nothing_is_decided(simulated):
    _, studies = simulated
    ways = [(kind, look) for kind in KINDS for look in (0, 1, 2)]
    assert {verdict(study[3], *way) for study in studies for way in ways} == {"undecided"}


def test_true_verdicts_come_out(simulated):
    """Twelve units decide what is so far from the edge; else no false verdict could be anything but rare."""
    truth, studies = simulated
    share = {
        wanted: np.mean([verdict(study[12], "superiority") == wanted for study in studies])
        for wanted in ("supported", "equivalent")
    }
    if truth == 0:
        assert share["equivalent"] > 0.8
    if truth >= MARGIN:
        assert share["supported"] > 0.9


@pytest.mark.parametrize("n", SIZES)
def test_t_intervals_cover_the_truth(n):
    intervals = np.array([stats.t_interval(study) for study in cells(0.5, n, seed=1).mean(axis=2)])
    assert np.mean((intervals[:, 0] <= 0.5) & (intervals[:, 1] >= 0.5)) >= 0.943


def with_missing(truth, units, studies, seed=2):
    """Accuracies of both sides, [studies, 2, units, sparsities]; a quarter of runs and a tenth of cells lack."""
    rng = np.random.default_rng([seed, round(100 * truth)])
    differences = cells(truth, units, studies, seed=3)
    common = 2 * rng.normal(size=(studies, units, 1)) - np.array(SPARSITIES)
    both = np.stack([common + differences, common + np.zeros(4)], axis=1)
    lacking = (rng.random((studies, 2, units, 1)) < 0.25) | (rng.random(both.shape) < 0.1)
    return np.where(lacking, np.nan, both)


def average(values):
    """Of each unit's cells; units without any are left out. values: [units, sparsities]."""
    there = ~np.isnan(values)
    count = there.sum(axis=1)
    return np.where(there, values, 0).sum(axis=1)[count > 0] / count[count > 0]


def sampled(study):
    """Units that match; else both sides, about each sparsity's centre. study: [2, units, sparsities]."""
    differences = average(study[0] - study[1])
    runs = min((~np.isnan(side)).any(axis=1).sum() for side in study)
    if len(differences) and 2 * len(differences) >= runs:
        return paired(differences)
    there = study[:, :, (~np.isnan(study)).any(axis=1).all(axis=0)]
    if there.size == 0:
        return None
    return unpaired(*map(average, there - np.nanmean(there, axis=1).mean(axis=0)))


@pytest.mark.parametrize("truth", [0.0, MARGIN])
def test_false_verdicts_are_rare_with_missing_seeds(truth):
    """Of twelve seeds a quarter lacks on each side, on average 6.7 pairs are left; and extended 3 → 6 → 12."""
    made = with_missing(truth, 12, STUDIES)
    studies = [{n: measured(sampled(study[:, :n])) for n in EXTENDED[0]} for study in made]
    assert too_many(shares(truth, studies, [(12,), EXTENDED[0]])) == {}


@pytest.mark.parametrize("truth", [0.0, MARGIN])
def test_false_verdicts_of_unpaired_studies_are_rare(truth):
    """Five seeds against five others of half the spread; a fifth of the cells lacks, and sparsities differ by far."""
    made = np.full((STUDIES, 2, 10, 4), np.nan)
    made[:, 0, :5] = truth + cells(0.0, 5, seed=4)
    made[:, 1, 5:] = cells(0.0, 5, seed=5) / 2
    made -= 30 * np.array(SPARSITIES)
    made[np.random.default_rng(6).random(made.shape) < 0.2] = np.nan
    studies = [{5: measured(sampled(study))} for study in made]
    assert too_many(shares(truth, studies, [(5,)])) == {}


@pytest.mark.parametrize("truth", [0.0, MARGIN])
def test_false_verdicts_of_unpaired_networks_together_are_rare(truth):
    """Three networks of two units a side, each about its own centre."""
    sides = np.random.default_rng(5).normal(size=(2, STUDIES, 3, 2))
    sides[0] += truth
    a, b = (sides - sides.mean(axis=(0, 3), keepdims=True)).reshape(2, STUDIES, 6)
    studies = [{6: measured(sample)} for sample in map(unpaired, a, b)]
    assert too_many(shares(truth, studies, [(6,)])) == {}


def test_the_usual_mistakes_are_found():
    """Cells taken for units, and three looks at 5 % each: both are above the bound that verdicts keep."""
    null = cells(0.0, 12)
    as_units = scipy_stats.ttest_1samp(null.reshape(STUDIES, -1), 0, axis=1, alternative="greater").pvalue
    looks = [
        scipy_stats.ttest_1samp(null[:, :n].mean(axis=2), 0, axis=1, alternative="greater").pvalue for n in (3, 6, 12)
    ]
    assert np.mean(as_units <= 0.05) > 2 * MOST_FALSE
    assert np.mean(np.min(looks, axis=0) <= 0.05) > MOST_FALSE


def test_exchanged_strategies_are_mirrored():
    for sample in (paired(study) for study in cells(0.5, 6, 300).mean(axis=2)):
        assert mirrored(claims.measure(sample, MARGIN)) == claims.measure(paired(-sample.differences), MARGIN)


POINT = 0.01
"""One standard deviation, in accuracy, on the frames."""


def framed(studies):
    """Studies as networks of one frame. studies: [2, units, sparsities] each."""
    rows = []
    for number, study in enumerate(studies):
        for (side, unit, place), accuracy in np.ndenumerate(study):
            if not np.isnan(accuracy):
                strategy = ("lr-rewinding", "weight-rewinding")[side]
                rows.append((f"net{number}", f"{number}/{unit}", unit, strategy, SPARSITIES[place], accuracy))
    names = ["architecture", "unit", "seed", "strategy", "sparsity_target", "test_accuracy"]
    frame = pd.DataFrame(rows, columns=names)
    frame["test_accuracy"] = 0.5 + POINT * frame["test_accuracy"]
    same = {"status": "done", "dataset": "made-up", "structure": "unstructured", "schedule": "one-shot", "budget": 400}
    key = frame["strategy"] + "/" + frame["unit"] + "/" + frame["sparsity_target"].astype(str)
    return frame.assign(key=key, iteration=1, protocol="p", **same).reindex(columns=list(SCHEMA)).astype(SCHEMA)


@pytest.mark.parametrize("units", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_frames_give_the_verdicts_of_their_unit_means(units, kind):
    """Eighty studies with runs and cells missing, a network each, at three looks."""
    studies = np.concatenate([with_missing(truth, units, 10)[:, ::way] for truth in TRUTHS.values() for way in (1, -1)])
    samples = {f"net{number}": sampled(study) for number, study in enumerate(studies)}
    looks = {name: number % 3 for number, name in enumerate(samples)}
    claim = Claim(
        number="simulated",
        text="",
        source="",
        parts=(Comparison(a="lr-rewinding", b="weight-rewinding"),),
        kind=kind,
    )
    found = claims.evaluate(
        framed(studies), [claim], margin=MARGIN * POINT, looks={("made-up", name): look for name, look in looks.items()}
    )
    alone = found[found["dataset"] == "made-up"].set_index("architecture")
    for name, sample in samples.items():
        if name not in alone.index or sample is None:
            assert alone["verdict"].get(name, "no data") == "no data"
            continue
        row = alone.loc[name]
        says = claims.measure(sample, MARGIN)
        assert (row["verdict"], row["n"]) == (verdict(measured(sample), kind, looks[name]), sample.n)
        assert row["paired"] == (sample.differences is not None)
        assert row["effect"] == pytest.approx(POINT * says.effect.mean, abs=1e-12)
        assert row["p_against"] == pytest.approx(says.below.p, rel=1e-6)
    assert (len(set(alone["verdict"])) > 1) == (units >= 5)
