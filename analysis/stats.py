"""Statistics of few independent units: exact tests, t intervals, looks, power. Nothing here knows what a strategy is.

A unit is one dense run; callers average whatever a unit has several of before they come here.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from scipy import special, stats

Values = Sequence[float] | np.ndarray

EXACT_UNITS = 16
"""Up to so many units all 2^n sign flips are counted; beyond, FLIPS random ones."""
EXACT_SPLITS = 50_000
"""Up to so many ways to split the units in two all are counted; beyond, FLIPS random ones."""
FLIPS = 20_000
FIRST_LEVEL, LATER_LEVEL = 0.04, 0.01
MOST_UNITS = 1_000
"""Beyond so many units, how many are needed is not said."""


@dataclass(frozen=True, kw_only=True)
class OneSided:
    """A one-sided test of one hypothesis on a mean, or on a difference of two."""

    p: float
    """What counts: the larger of the exact test's p and the t test's."""
    p_exact: float
    """Sign-flip where paired, rank sum otherwise."""
    smallest_p: float
    """That p_exact can reach at all with so many units."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A difference of means over units, in the units of the values."""

    mean: float
    se: float
    """Standard error; NaN with one unit."""
    df: float
    """Degrees of freedom, of Welch where unpaired."""

    def bound(self, level: float, *, upper: bool) -> float:
        """One-sided t bound; NaN where the standard error is not known."""
        if math.isnan(self.se):
            return math.nan
        reach = float(special.stdtrit(self.df, 1 - level)) * self.se
        return self.mean + reach if upper else self.mean - reach

    def p_above(self, margin: float) -> float:
        """p of the t test that the mean is above −margin; 1 where the standard error is not known."""
        if math.isnan(self.se):
            return 1.0
        if self.se == 0:
            return 0.0 if self.mean + margin > 0 else 1.0
        return float(special.stdtr(self.df, -(self.mean + margin) / self.se))


def level(look: int) -> float:
    """Of the look-th computation of a verdict on more seeds: 0.04 for the declared ones, 0.01/2^j for extension j.

    >>> level(0), level(1), level(2)
    (0.04, 0.005, 0.0025)
    """
    if look < 0:
        raise ValueError(f"look must be 0 or more, got {look}")
    return FIRST_LEVEL if look == 0 else LATER_LEVEL / 2**look


def paired_effect(differences: Values) -> Effect:
    """Mean of n differences, one a unit."""
    d = _values(differences)
    return Effect(mean=float(d.mean()), se=_se(d), df=len(d) - 1)


def unpaired_effect(a: Values, b: Values) -> Effect:
    """Mean of a minus mean of b; Welch 1947."""
    a, b = _values(a), _values(b)
    u, v = _se(a) ** 2, _se(b) ** 2
    if math.isnan(u + v):
        return Effect(mean=float(a.mean() - b.mean()), se=math.nan, df=math.nan)
    total = u + v
    df = total**2 / (u**2 / (len(a) - 1) + v**2 / (len(b) - 1)) if total > 0 else len(a) + len(b) - 2
    return Effect(mean=float(a.mean() - b.mean()), se=math.sqrt(total), df=df)


def paired_test(differences: Values, *, margin: float = 0.0, seed: int = 0) -> OneSided:
    """That the mean of n differences is above −margin: sign flips of d + margin, and a t test."""
    d = _values(differences) + margin
    exact = sign_flip(d, seed=seed)
    smallest = 2.0 ** -len(d) if len(d) <= EXACT_UNITS else 1 / (FLIPS + 1)
    return OneSided(p=max(exact, paired_effect(d).p_above(0)), p_exact=exact, smallest_p=smallest)


def unpaired_test(a: Values, b: Values, *, margin: float = 0.0, seed: int = 0) -> OneSided:
    """That a is above b − margin: rank sum of a + margin against b, and Welch's t test."""
    a, b = _values(a) + margin, _values(b)
    exact = mann_whitney(a, b, seed=seed)
    smallest = 1 / math.comb(len(a) + len(b), len(a)) if _all_splits(len(a), len(b)) else 1 / (FLIPS + 1)
    return OneSided(p=max(exact, unpaired_effect(a, b).p_above(0)), p_exact=exact, smallest_p=smallest)


def sign_flip(values: Values, *, seed: int = 0) -> float:
    """p, one-sided, that the mean of values symmetric about 0 is as large as it is. Exact up to EXACT_UNITS values.

    >>> sign_flip([1, 2, 3, 4, 5]) == 1 / 32, sign_flip([-1, 2]), sign_flip([0.0])
    (True, 0.5, 1.0)
    """
    v = _values(values)
    return _share(_at_least(_signs(len(v), seed) @ v, v.sum(), v), exact=len(v) <= EXACT_UNITS)


def mann_whitney(a: Values, b: Values, *, seed: int = 0) -> float:
    """p, one-sided, that a's rank sum is as large as it is: exact, ties included, while EXACT_SPLITS allows.

    >>> mann_whitney([4, 5, 6], [1, 2, 3]) == 1 / 20, mann_whitney([1], [1])
    (True, 1.0)
    """
    a, b = _values(a), _values(b)
    ranks = stats.rankdata(np.concatenate([a, b]).round(12))  # means of equal numbers in another order are ties
    observed = ranks[: len(a)].sum()
    exact = _all_splits(len(a), len(b))
    return _share(_at_least(_splits(len(a), len(b), seed) @ ranks, observed, ranks), exact=exact)


def t_interval(values: Values, confidence: float = 0.95) -> tuple[float, float]:
    """Of the mean of n values, two-sided; (NaN, NaN) with one value."""
    effect, tail = paired_effect(values), (1 - confidence) / 2
    return effect.bound(tail, upper=False), effect.bound(tail, upper=True)


def median_interval(values: Values, confidence: float = 0.95) -> tuple[float, float] | None:
    """Of the median, the narrowest pair of order statistics that covers it; None while n has none (below 6 at 95 %).

    >>> median_interval([5, 1, 2, 3, 4]), median_interval([6, 5, 1, 2, 3, 4])
    (None, (1.0, 6.0))
    """
    v = np.sort(_values(values))
    below = [rank for rank in range(len(v) // 2) if 1 - 2 * stats.binom.cdf(rank, len(v), 0.5) >= confidence]
    return (float(v[below[-1]]), float(v[-1 - below[-1]])) if below else None


def holm(ps: Values) -> np.ndarray:
    """p values adjusted so that the chance of one false rejection among all is bounded. Holm 1979.

    >>> holm([0.01, 0.04, 0.03]).round(6).tolist()
    [0.03, 0.06, 0.06]
    """
    p = _values(ps)
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def benjamini_hochberg(ps: Values) -> np.ndarray:
    """p values adjusted so that the expected share of false rejections is bounded."""
    return np.asarray(stats.false_discovery_control(_values(ps)))


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> tuple[int, int, float]:
    """Images that only a, and only b, has right, and the exact two-sided p of that split. Describes two networks.

    correct_a, correct_b: boolean [N], of the same test images.
    """
    if correct_a.shape != correct_b.shape:
        raise ValueError(f"two networks on the same images are compared, got {correct_a.shape} and {correct_b.shape}")
    only_a, only_b = int(np.sum(correct_a & ~correct_b)), int(np.sum(~correct_a & correct_b))
    if only_a + only_b == 0:
        return 0, 0, 1.0
    return only_a, only_b, float(stats.binomtest(only_a, only_a + only_b).pvalue)


def binomial_se(accuracy: float, images: float) -> float:
    """Standard error of an accuracy, a fraction, on so many test images drawn anew. Shown beside seed noise, not added.

    >>> round(binomial_se(0.9246, 10_000), 5)
    0.00264
    """
    return math.sqrt(accuracy * (1 - accuracy) / images)


def pooled_sd(groups: Sequence[Values]) -> tuple[float, int]:
    """Standard deviation of units about their own group's mean, and its degrees of freedom; (NaN, 0) without any."""
    deviations = [_values(group) - np.mean(_values(group)) for group in groups]
    df = sum(len(group) - 1 for group in deviations)
    return (math.sqrt(sum(float((d**2).sum()) for d in deviations) / df), df) if df else (math.nan, 0)


def sd_range(sd: float, df: int, confidence: float = 0.9) -> tuple[float, float]:
    """Of a standard deviation estimated with df degrees of freedom: chi-square interval."""
    tail = (1 - confidence) / 2
    return sd * math.sqrt(df / stats.chi2.ppf(1 - tail, df)), sd * math.sqrt(df / stats.chi2.ppf(tail, df))


def units_needed(distance: float, sd: float, level: float, power: float = 0.8) -> int | None:
    """Least n of a one-sided paired test at that level with that power; None beyond MOST_UNITS.

    distance: of the true mean from the hypothesis' edge, above 0. The exact test needs 2^−n ≤ level besides.

    >>> units_needed(1.0, 1.0, 0.05), units_needed(1.0, 1e-9, 0.04), units_needed(0.0, 1.0, 0.05)
    (8, 5, None)
    """
    least = max(2, math.ceil(-math.log2(level)))
    if distance <= 0:
        return None

    def enough(n: int) -> bool:
        shift = math.sqrt(n) * distance / max(sd, 1e-12)
        if shift > 30:  # power 1; from 36 on scipy's noncentral t is NaN
            return True
        return bool(1 - special.nctdtr(n - 1, shift, special.stdtrit(n - 1, 1 - level)) >= power)

    sizes = range(least, MOST_UNITS + 1)
    found = bisect_left(sizes, True, key=enough)
    return sizes[found] if found < len(sizes) else None


def _values(values: Values) -> np.ndarray:
    v = np.asarray(values, dtype=float)
    if v.ndim != 1 or len(v) == 0 or not np.isfinite(v).all():
        raise ValueError(f"one or more finite numbers are needed, got {values!r}")
    return v


def _se(v: np.ndarray) -> float:
    return float(v.std(ddof=1) / math.sqrt(len(v))) if len(v) > 1 else math.nan


def _at_least(sums: np.ndarray, observed: float, v: np.ndarray) -> np.ndarray:
    """Whether sums reach the observed one, rounding apart: ties count as reached."""
    return sums >= observed - 1e-9 * np.abs(v).sum()


def _share(reached: np.ndarray, *, exact: bool) -> float:
    """p: the share that reaches the observed sum, which is one of all, or one more beside random ones."""
    return float(reached.mean()) if exact else float((1 + reached.sum()) / (1 + len(reached)))


@lru_cache(maxsize=8)
def _signs(n: int, seed: int) -> np.ndarray:
    """Ways to flip n signs, all or FLIPS random ones: −1 or 1, [ways, n]."""
    if n <= EXACT_UNITS:
        return 1.0 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    return 1.0 - 2 * np.random.default_rng(seed).integers(0, 2, (FLIPS, n))


@lru_cache(maxsize=8)
def _splits(a: int, b: int, seed: int) -> np.ndarray:
    """Ways to choose a of a + b units, all or FLIPS random ones: 1 where chosen, [ways, a + b]."""
    if not _all_splits(a, b):
        first = np.tile(np.arange(a + b) < a, (FLIPS, 1)).astype(float)
        return np.random.default_rng(seed).permuted(first, axis=1)
    chosen = np.array(list(combinations(range(a + b), a)))
    ways = np.zeros((len(chosen), a + b))
    ways[np.arange(len(chosen))[:, None], chosen] = 1
    return ways


def _all_splits(a: int, b: int) -> bool:
    return math.comb(a + b, a) <= EXACT_SPLITS
