"""Each statistic against scipy, an enumeration, or a table by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from analysis import stats

SEVEN = (0.8, -0.3, 1.1, 0.4, 0.0, 2.5, -0.1)
RANDOM = np.random.default_rng(5)


def flips(values):
    """p by a loop over all signs."""
    sums = [sum(s * v for s, v in zip(signs, values, strict=True)) for signs in itertools.product((1, -1), repeat=7)]
    return np.mean([total >= sum(values) for total in sums])


def rank_sums(a, b):
    """p by a loop over all ways to choose len(a) of the values."""
    ranks = scipy_stats.rankdata([*a, *b])
    sums = [sum(ranks[i] for i in chosen) for chosen in itertools.combinations(range(len(ranks)), len(a))]
    return np.mean([total >= sum(ranks[: len(a)]) for total in sums])


@pytest.mark.parametrize("values", [SEVEN, (3, 1, 2, -6, 5, 4, -1), (0, 0, 1, 1, -1, 2, 0), (-1,) * 7])
def test_sign_flip_is_the_enumeration(values):
    assert stats.sign_flip(values) == flips(values)


@pytest.mark.parametrize("n", [2, 5, 8, 11])
def test_sign_flip_is_scipys_permutation_test(n):
    values = RANDOM.normal(0.4, 1, n)
    theirs = scipy_stats.permutation_test(
        (values,), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="greater"
    )
    assert stats.sign_flip(values) == theirs.pvalue


@pytest.mark.parametrize("tenths", [(1, 2, -3), (3, 3, -6), (7, -1, -6)])
def test_sums_that_differ_by_rounding_are_ties(tenths):
    """0.1 + 0.2 − 0.3 is not 0 in floating point."""
    assert stats.sign_flip([t / 10 for t in tenths]) == stats.sign_flip(tenths)


def test_sign_flip_of_many_units_is_drawn_by_seed():
    values = RANDOM.normal(0.4, 1, 24)
    drawn = [stats.sign_flip(values, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    normal = scipy_stats.norm.sf(values.sum() / math.sqrt((values**2).sum()))
    assert drawn == pytest.approx([normal] * 3, abs=0.01)
    assert stats.sign_flip(np.ones(24)) == 1 / 20_001


@pytest.mark.parametrize(("a", "b"), [(1, 1), (3, 4), (6, 6), (2, 9)])
def test_mann_whitney_is_scipys_exact_one(a, b):
    a, b = RANDOM.normal(0.5, 1, a), RANDOM.normal(0, 2, b)
    theirs = scipy_stats.mannwhitneyu(a, b, alternative="greater", method="exact").pvalue
    assert stats.mann_whitney(a, b) == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize(
    ("a", "b"), [((1, 2, 2, 5), (2, 3, 0)), ((4, 4), (4, 4, 4)), ((3, 3, 9), (1, 3)), ((1, 1, 2, 2), (2, 2, 1, 1))]
)
def test_mann_whitney_with_ties_is_the_enumeration(a, b):
    assert stats.mann_whitney(a, b) == rank_sums(a, b)


def test_values_that_differ_by_rounding_are_tied_ranks():
    assert stats.mann_whitney([0.1 + 0.2, 0.5], [0.3, 0.1]) == rank_sums([0.3, 0.5], [0.3, 0.1])
    assert stats.mann_whitney([0.3, 0.5], [0.1 + 0.2, 0.1]) == rank_sums([0.3, 0.5], [0.3, 0.1])


def test_mann_whitney_of_many_units_is_drawn_by_seed():
    a, b = RANDOM.normal(0.3, 1, 12), RANDOM.normal(0, 1, 13)
    drawn = [stats.mann_whitney(a, b, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    theirs = scipy_stats.mannwhitneyu(a, b, alternative="greater", method="exact").pvalue
    assert drawn == pytest.approx([theirs] * 3, abs=0.01)
    assert stats.mann_whitney(np.arange(20) + 20, np.arange(20)) == 1 / 20_001


@pytest.mark.parametrize("margin", [0.0, 0.5, -1.0])
def test_paired_is_scipys_t_test(margin):
    theirs = scipy_stats.ttest_1samp(SEVEN, -margin, alternative="greater")
    ours = stats.paired_test(SEVEN, margin=margin)
    assert stats.paired_effect(SEVEN).p_above(margin) == pytest.approx(theirs.pvalue, rel=1e-12)
    assert ours.p_exact == flips(np.add(SEVEN, margin))
    assert ours.p == pytest.approx(max(theirs.pvalue, ours.p_exact), rel=1e-12)
    assert ours.smallest_p == 1 / 128


@pytest.mark.parametrize("margin", [0.0, 0.5, -1.0])
def test_unpaired_is_scipys_welch_test(margin):
    a, b = np.array(SEVEN), np.array([0.1, -4.0, 3.0, 0.3])
    theirs = scipy_stats.ttest_ind(a + margin, b, equal_var=False, alternative="greater")
    effect, ours = stats.unpaired_effect(a, b), stats.unpaired_test(a, b, margin=margin)
    assert (effect.mean, effect.df) == pytest.approx((a.mean() - b.mean(), theirs.df), rel=1e-12)
    assert effect.p_above(margin) == pytest.approx(theirs.pvalue, rel=1e-12)
    assert ours.p_exact == rank_sums((a + margin).round(9), b)
    assert ours.p == pytest.approx(max(theirs.pvalue, ours.p_exact), rel=1e-12)
    assert ours.smallest_p == 1 / 330


def test_a_p_is_the_larger_of_two():
    """Seven alike: the t test has p near 0, the sign flip 1/128. One wild value: the other way round."""
    alike, wild = (1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06), (1, 1, 1, 1, 1, 1, 100)
    assert stats.paired_test(alike).p == stats.paired_test(alike).p_exact == 1 / 128
    assert stats.paired_test(wild).p_exact == 1 / 128
    assert stats.paired_test(wild).p == pytest.approx(scipy_stats.ttest_1samp(wild, 0, alternative="greater").pvalue)


@pytest.mark.parametrize("level", [0.04, 0.005, 0.0025, 0.3])
def test_bounds_are_scipys_intervals(level):
    a, b = np.array(SEVEN), np.array([0.1, -4.0, 3.0, 0.3])
    paired, welch = scipy_stats.ttest_1samp(a, 0), scipy_stats.ttest_ind(a, b, equal_var=False)
    for effect, theirs in ((stats.paired_effect(a), paired), (stats.unpaired_effect(a, b), welch)):
        bounds = effect.bound(level, upper=False), effect.bound(level, upper=True)
        assert bounds == pytest.approx(tuple(theirs.confidence_interval(1 - 2 * level)), rel=1e-9)


@pytest.mark.parametrize("level", [0.04, 0.005])
def test_a_bound_is_where_the_t_test_turns(level):
    effect = stats.paired_effect(SEVEN)
    assert effect.p_above(-effect.bound(level, upper=False)) == pytest.approx(level)


@pytest.mark.parametrize("confidence", [0.95, 0.9])
def test_t_interval_is_scipys(confidence):
    theirs = scipy_stats.ttest_1samp(SEVEN, 0).confidence_interval(confidence)
    assert stats.t_interval(SEVEN, confidence) == pytest.approx(tuple(theirs), rel=1e-12)


def test_one_unit_decides_nothing():
    assert all(map(math.isnan, stats.t_interval([0.3])))
    assert stats.paired_test([0.3]).p == stats.unpaired_test([0.3], [0.1, 0.2]).p == 1
    assert math.isnan(stats.paired_effect([0.3]).bound(0.04, upper=True))
    assert math.isnan(stats.unpaired_effect([0.3], [0.1, 0.2]).bound(0.04, upper=True))
    assert stats.unpaired_effect([0.3], [0.1, 0.2]).mean == pytest.approx(0.15)


def test_units_that_all_agree():
    """Without spread the t test is certain; the exact test has the last word. Exactly at the edge nothing is shown."""
    assert stats.paired_test([0.5] * 5).p == 1 / 32
    assert stats.paired_test([-0.5] * 5).p == 1
    assert stats.paired_test([-0.5] * 5, margin=0.5).p == 1
    assert stats.unpaired_test([0.5] * 3, [0.25] * 3).p == 1 / 20
    assert stats.paired_effect([0.5] * 5).bound(0.04, upper=False) == 0.5


@pytest.mark.parametrize("n", [3, 4, 5, 8, 16])
def test_the_smallest_p_is_reached_and_says_from_when_a_verdict_can_come(n):
    assert stats.paired_test(np.ones(n)).p_exact == stats.paired_test(np.ones(n)).smallest_p == 2.0**-n
    assert (2.0**-n <= stats.level(0)) == (n >= 5)
    assert (2.0**-n <= stats.level(1)) == (n >= 8)
    assert stats.unpaired_test(np.ones(n), np.zeros(3)).smallest_p == 6 / ((n + 1) * (n + 2) * (n + 3))


@pytest.mark.parametrize(("look", "level"), [(0, 0.04), (1, 0.005), (2, 0.0025), (3, 0.00125)])
def test_levels_of_looks(look, level):
    assert stats.level(look) == level


def test_all_looks_together_stay_within_five_percent():
    assert sum(map(stats.level, range(60))) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("ps", "adjusted"),
    [
        ((0.01, 0.04, 0.03, 0.005), (0.03, 0.06, 0.06, 0.02)),
        ((0.5, 0.2, 0.9), (1.0, 0.6, 1.0)),
        ((0.02, 0.02), (0.04, 0.04)),
        ((0.03,), (0.03,)),
    ],
)
def test_holm(ps, adjusted):
    np.testing.assert_allclose(stats.holm(ps), adjusted, rtol=1e-12)


@pytest.mark.parametrize(
    ("ps", "adjusted"),
    [
        ((0.01, 0.04, 0.03, 0.005), (0.02, 0.04, 0.04, 0.02)),
        ((0.5, 0.2, 0.9), (0.75, 0.6, 0.9)),
        ((0.03,), (0.03,)),
    ],
)
def test_benjamini_hochberg(ps, adjusted):
    np.testing.assert_allclose(stats.benjamini_hochberg(ps), adjusted, rtol=1e-12)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"), [(1, 9, 22 / 1024), (0, 3, 0.25), (5, 5, 1.0), (10, 2, 158 / 4096), (0, 0, 1.0)]
)
def test_mcnemar(only_a, only_b, p):
    """Twice the tail of a fair coin; images that both have right or wrong do not count."""
    a = np.array([True] * only_a + [False] * only_b + [True] * 20 + [False] * 7)
    b = np.array([False] * only_a + [True] * only_b + [True] * 20 + [False] * 7)
    assert stats.mcnemar(a, b) == (only_a, only_b, pytest.approx(p, rel=1e-12))


def test_mcnemar_wants_the_same_images():
    with pytest.raises(ValueError, match=r"on the same images are compared, got \(3,\) and \(4,\)"):
        stats.mcnemar(np.ones(3, bool), np.ones(4, bool))


@pytest.mark.parametrize(("n", "low", "high"), [(6, 1, 6), (8, 1, 8), (9, 2, 8), (11, 2, 10), (12, 3, 10), (20, 6, 15)])
def test_median_interval_is_the_table_of_order_statistics(n, low, high):
    """Ranks by hand: of 12 values P(at most 2 below) = 79/4096 < 2.5 %, P(at most 3 below) = 299/4096 is not."""
    assert stats.median_interval(RANDOM.permutation(np.arange(1, n + 1))) == (low, high)


@pytest.mark.parametrize("n", range(1, 6))
def test_no_median_interval_below_six(n):
    assert stats.median_interval(np.arange(n)) is None


def test_binomial_se_is_the_formula():
    assert stats.binomial_se(0.9, 360) == pytest.approx(math.sqrt(0.09 / 360))


def test_pooled_sd():
    """Squares about the means 2 and 11: 1 + 0 + 1, and 1 + 1, over 2 + 1 degrees of freedom."""
    sd, df = stats.pooled_sd([(1, 2, 3), (10, 12), (50,)])
    assert (sd, df) == (pytest.approx(math.sqrt(4 / 3)), 3)
    assert stats.pooled_sd([SEVEN]) == (pytest.approx(np.std(SEVEN, ddof=1)), 6)


@pytest.mark.parametrize("groups", [[], [(1.0,)], [(1.0,), (5.0,)]])
def test_single_units_have_no_sd(groups):
    sd, df = stats.pooled_sd(groups)
    assert (math.isnan(sd), df) == (True, 0)


def test_sd_range_by_the_chi_square_table():
    """χ² of 10 degrees of freedom: 3.940 at 5 %, 18.307 at 95 %."""
    assert stats.sd_range(2.0, 10) == pytest.approx((2 * math.sqrt(10 / 18.307), 2 * math.sqrt(10 / 3.940)), rel=1e-4)
    assert stats.sd_range(0.0, 3) == (0.0, 0.0)


@pytest.mark.parametrize(("distance", "n"), [(0.2, 156), (0.5, 27), (0.8, 12)])
def test_units_needed_is_the_printed_table(distance, n):
    """One sample, one-sided, 5 %, power 80 % (G*Power 3.1)."""
    assert stats.units_needed(distance, 1.0, 0.05) == n
    assert stats.units_needed(-distance, 1.0, 0.05) is None


@pytest.mark.parametrize("level", [0.04, 0.005])
def test_units_needed_have_the_power_and_one_less_has_not(level):
    """20,000 simulated t tests: standard error 0.003."""
    n = stats.units_needed(0.9, 1.0, level)
    for units, enough in ((n, True), (n - 1, False)):
        units = np.random.default_rng(3).normal(0.9, 1, (20_000, units))
        power = np.mean(scipy_stats.ttest_1samp(units, 0, axis=1, alternative="greater").pvalue <= level)
        assert (power > 0.8 - 0.01) if enough else (power < 0.8 + 0.01)


@pytest.mark.parametrize(("level", "least"), [(0.04, 5), (0.005, 8), (0.0025, 9)])
def test_units_needed_are_enough_for_the_exact_test(level, least):
    assert stats.units_needed(1.0, 0.0, level) == least
    assert stats.units_needed(1.0, 100.0, level) is None


@pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.inf], [[1.0, 2.0], [3.0, 4.0]], 5.0])
@pytest.mark.parametrize(
    "statistic",
    [
        stats.sign_flip,
        stats.paired_effect,
        stats.paired_test,
        stats.t_interval,
        stats.median_interval,
        stats.holm,
        stats.benjamini_hochberg,
        lambda values: stats.mann_whitney(values, [1.0]),
        lambda values: stats.unpaired_effect([1.0], values),
        lambda values: stats.unpaired_test([1.0], values),
        lambda values: stats.pooled_sd([values]),
    ],
)
def test_no_number_or_none_that_is_finite(statistic, values):
    with pytest.raises(ValueError, match="one or more finite numbers are needed, got"):
        statistic(values)


def test_looks_count_from_zero():
    with pytest.raises(ValueError, match="look must be 0 or more, got -1"):
        stats.level(-1)
