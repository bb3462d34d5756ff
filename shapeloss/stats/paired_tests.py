"""Tests, intervals, margins and power for paired differences: one number per case, positive where the first is better.

SciPy does the work; where it is exact only without ties, or fails on differences that are all equal, the functions here
say what happens instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from shapeloss._typing import Floats

Alternative = Literal["two-sided", "greater", "less"]

EXACT_LIMIT = 500
"""Pairs up to which the null distribution of the signed ranks is computed exactly."""
_SORTED = 1_000_000  # pairwise means that are sorted at a time
_BOOTSTRAP_LIMIT = 5000  # cases up to which the mean is bootstrapped
_RESAMPLES = 99_999  # sign patterns; SciPy visits all 2^n where they are fewer, up to n = 16
_BATCH = 5_000_000  # numbers drawn at a time
_NOISE = 1e-12  # differences below this share of the scores are rounding errors of floating point


class PairedTest(NamedTuple):
    """A test's statistic and its p-value."""

    statistic: float
    p: float


class Interval(NamedTuple):
    """An estimate with its confidence limits, in the unit of the scores."""

    value: float
    low: float
    high: float


def _vector(name: str, values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(f"{name} must be a list of finite numbers, one per case; got shape {array.shape}, {array}")
    return array


def differences(first: ArrayLike, second: ArrayLike) -> Floats:
    """first − second, pair by pair, with floating-point noise removed so that equal differences tie exactly.

    >>> differences([0.3, 0.2], [0.1, 0.0]).tolist()  # plain subtraction gives 0.19999999999999998 and 0.2
    [0.2, 0.2]
    """
    a, b = _vector("first", first), _vector("second", second)
    if a.shape != b.shape:
        raise ValueError(f"first and second must be paired: {len(a)} values against {len(b)}; drop the unpaired cases")
    scale = float(np.abs(np.concatenate([a, b])).max(initial=0.0))
    if scale == 0:
        return a - b
    return np.round(a - b, -int(np.floor(np.log10(scale * _NOISE))))


def signed_rank_test(difference: ArrayLike, alternative: Alternative = "two-sided") -> PairedTest:
    """Wilcoxon's signed-rank test, exact also with ties and zeros.

    The statistic is V, the sum of the ranks of the positive differences. Tied differences share their mean rank; zeros
    take part in the ranking and then leave it (Pratt 1959), since dropping them first can turn weaker evidence into a
    smaller p. The null distribution is that of V under all 2^n sign patterns of these very ranks, by the shift
    algorithm (Streitberg & Röhmel 1986); SciPy is exact without ties only. Above 500 pairs: SciPy's normal
    approximation. No differences at all, or all zero: p = 1.

    >>> signed_rank_test([0.952, -0.147, 1.022, 0.43, 0.62, 0.59, 0.49, -0.08, 0.01])  # Hollander & Wolfe, depression
    PairedTest(statistic=40.0, p=0.0390625)
    """
    d = _vector("difference", difference)
    ranks = stats.rankdata(np.abs(d))[d != 0]
    positive = d[d != 0] > 0
    statistic = float(ranks[positive].sum())
    if len(ranks) == 0:
        return PairedTest(statistic, 1.0)
    if len(ranks) > EXACT_LIMIT:
        normal = stats.wilcoxon(d, zero_method="pratt", alternative=alternative, method="approx", correction=True)
        return PairedTest(statistic, float(normal.pvalue))
    doubled = np.rint(2 * ranks).astype(int)  # mean ranks are halves
    mass = np.zeros(doubled.sum() + 1)
    mass[0] = 1.0
    for rank in doubled:  # each rank counts or does not, with probability one half
        mass[rank:] = (mass[rank:] + mass[: len(mass) - rank]) / 2
        mass[:rank] /= 2
    observed = round(2 * statistic)
    less, greater = float(mass[: observed + 1].sum()), float(mass[observed:].sum())
    p = {"less": less, "greater": greater, "two-sided": 2 * min(less, greater)}[alternative]
    return PairedTest(statistic, min(1.0, p))


def sign_flip_test(difference: ArrayLike, alternative: Alternative = "two-sided", seed: int = 0) -> PairedTest:
    """Permutation test of the mean difference: all 2^n sign patterns up to n = 16, else 99,999 drawn with `seed`.

    Above 500 pairs: the normal approximation, with the variance Σ d² of a sum with random signs.
    """
    d = _vector("difference", difference)
    if not d.any():
        return PairedTest(0.0, 1.0)
    if len(d) == 1:  # SciPy wants two; the signs are then all there is, as for ranks
        return PairedTest(float(d[0]), signed_rank_test(d, alternative).p)
    if len(d) > EXACT_LIMIT:
        z = float(d.sum() / np.sqrt((d**2).sum()))
        p = {"less": stats.norm.cdf(z), "greater": stats.norm.sf(z), "two-sided": 2 * stats.norm.sf(abs(z))}[
            alternative
        ]
        return PairedTest(float(d.mean()), float(p))
    scale = float(np.abs(d).max())

    def mean(x: Floats, axis: int = -1) -> Any:
        """The mean in units of the largest difference, free of rounding errors, which would break ties with it."""
        return np.round(np.mean(x / scale, axis=axis), 12)

    result = stats.permutation_test(
        (d,), mean, permutation_type="samples", vectorized=True, n_resamples=_RESAMPLES, batch=4096,
        alternative=alternative, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return PairedTest(float(d.mean()), float(result.pvalue))


def paired_t_test(difference: ArrayLike, alternative: Alternative = "two-sided") -> PairedTest:
    """Student's paired t-test; differences without spread give p = 1 when all are zero, else 0 or 1 by their sign."""
    d = _vector("difference", difference)
    if len(d) < 2:
        return PairedTest(np.nan, np.nan)
    if np.ptp(d) == 0:
        sign = np.sign(d[0])
        favoured = sign != 0 and (alternative == "two-sided" or (alternative == "greater") == (sign > 0))
        return PairedTest(float(sign * np.inf) if sign else 0.0, 0.0 if favoured else 1.0)
    result = stats.ttest_1samp(d, 0.0, alternative=alternative)
    return PairedTest(float(result.statistic), float(result.pvalue))


def holm(p_values: ArrayLike, family: int | None = None) -> Floats:
    """Holm's step-down adjusted p-values over one family (Holm 1979); NaN (no test was possible) stays NaN.

    `family`: how many tests it has, those without a p among them; default: those with one.

    >>> holm([0.01, 0.04, 0.03]).round(6).tolist()  # 3 × 0.01, then 2 × 0.03, and no less for 0.04
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    order = np.argsort(p)[: int((~np.isnan(p)).sum())]  # NaN sorts last
    multiplied = p[order] * ((len(order) if family is None else family) - np.arange(len(order)))
    adjusted[order] = np.minimum(np.maximum.accumulate(multiplied), 1.0)
    return adjusted


def hodges_lehmann(difference: ArrayLike, confidence: float = 0.95) -> Interval:
    """The median of all pairwise means of the differences, with the limits that invert the signed-rank test.

    Hollander & Wolfe, equations 3.23 and 3.26; above 500 pairs the normal approximation is inverted. The level is at
    least `confidence` for continuous symmetric differences; with too few cases for it (n < 6 at 95 %) the limits are
    infinite.
    """
    d = _vector("difference", difference)
    n, total = len(d), len(d) * (len(d) + 1) // 2
    if n == 0:
        return Interval(np.nan, np.nan, np.nan)
    # k: how many of the outermost pairwise means on each side lie outside the interval
    if n <= EXACT_LIMIT:
        mass = np.ones(1)
        for rank in range(1, n + 1):
            mass = (np.pad(mass, (0, rank)) + np.pad(mass, (rank, 0))) / 2
        k = int((np.cumsum(mass) <= (1 - confidence) / 2).sum())
    else:
        sd = np.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        k = max(0, int(np.floor(total / 2 + 0.5 + stats.norm.ppf((1 - confidence) / 2) * sd)))
    middle = _pairwise_means(d, [(total + 1) // 2, total // 2 + 1])
    low, high = _pairwise_means(d, [k, total + 1 - k]) if k else (-np.inf, np.inf)
    return Interval(float(np.mean(middle)), float(low), float(high))


def _pairwise_means(d: Floats, ranks: Sequence[int]) -> list[float]:
    """The means (d_i + d_j) / 2, i ≤ j, of these ranks, from 1, exactly, without making all n (n + 1) / 2 of them.

    How many means lie below a value is counted on the sorted differences, and the value bisected until few are left
    near the rank; these are sorted (selection in X + Y: Johnson & Mizoguchi 1978, Monahan 1984).
    """
    values, counts = np.unique(d, return_counts=True)
    below = np.concatenate([[0], np.cumsum(counts)])
    rows = np.arange(len(values))
    slack = 8 * np.finfo(float).eps * max(float(np.abs(values).max()), np.finfo(float).tiny)

    def columns(limit: float) -> NDArray[np.int64]:
        """For each value, the first one, itself or later, with which its mean exceeds `limit`, but for rounding."""
        return np.maximum(np.searchsorted(values, 2 * limit - values, "right"), rows)

    def number(ends: NDArray[np.int64]) -> int:
        """How many means lie before those columns; a value that occurs c times makes c (c + 1) / 2 with itself."""
        whole = counts * (below[ends] - below[rows])
        return int(whole.sum() - (counts * (counts - 1) // 2)[ends > rows].sum())

    found = []
    for rank in ranks:
        low, high = float(values[0]), float(values[-1])
        first, last = rows, np.full(len(values), len(values))
        while (last - first).sum() > _SORTED and high - low > 4 * slack:
            middle = (low + high) / 2
            if number(columns(middle)) >= rank:
                high, last = middle, columns(middle + slack)
            else:
                low, first = middle, columns(middle - slack)
        lengths = last - first
        left = np.repeat(rows, lengths)
        right = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths - first, lengths)
        weights = counts[left] * np.where(left == right, (counts[left] + 1) / 2, counts[right])
        means = (values[left] + values[right]) / 2
        order = np.argsort(means)
        place = np.searchsorted(np.cumsum(weights[order]), rank - number(first))
        found.append(float(means[order][place]))
    return found


def bootstrap_mean(difference: ArrayLike, confidence: float = 0.95, resamples: int = 9999, seed: int = 0) -> Interval:
    """The mean difference with its bias-corrected and accelerated bootstrap interval (Efron 1987).

    At n = 10 the interval covers less often than its level (reproduce/benchmarks/error_rates.py measures how often).
    Above 5000 cases: Student's interval, from which the bootstrap's then hardly differs.
    """
    d = _vector("difference", difference)
    if len(d) < 2:
        return Interval(float(d.mean()) if len(d) else np.nan, np.nan, np.nan)
    mean = float(d.mean())
    if np.ptp(d) == 0:
        return Interval(mean, mean, mean)
    if len(d) > _BOOTSTRAP_LIMIT:
        student = stats.ttest_1samp(d, 0.0).confidence_interval(confidence)
        return Interval(mean, float(student.low), float(student.high))
    limits = stats.bootstrap(
        (d,), np.mean, confidence_level=confidence, n_resamples=resamples, method="BCa", batch=_BATCH // len(d),
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return Interval(mean, float(limits.confidence_interval.low), float(limits.confidence_interval.high))


def power_of(effect: float, sd: float, n: int, alpha: float = 0.05) -> float:
    """Probability that a two-sided paired t-test finds a true mean difference `effect` among `n` cases.

    `sd` is the standard deviation of the paired differences. Give the effect that matters, or the one that was claimed:
    the power for the effect just observed only restates p. Wilcoxon's power is about 95 % as efficient for normal data.
    """
    if n < 2 or np.isnan(sd):
        return np.nan
    if effect == 0 or sd == 0:
        return 1.0 if effect else alpha
    # t² is F with the squared noncentrality; SciPy's noncentral t, which statsmodels uses, is NaN in places
    critical = stats.t.ppf(1 - alpha / 2, n - 1) ** 2
    return float(stats.ncf.sf(critical, 1, n - 1, n * (effect / sd) ** 2))


def detectable_effect(sd: float, n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true mean difference that `power_of` finds with probability `power`, in the unit of `sd`."""
    if n < 2 or np.isnan(sd):
        return np.nan
    enough = 1.0
    while power_of(enough, 1.0, n, alpha) < power:
        enough *= 2
    return float(optimize.brentq(lambda effect: power_of(effect, 1.0, n, alpha) - power, 0.0, enough)) * sd


@dataclass(frozen=True)
class MarginTest:
    """Is a mean difference inside a margin?"""

    p: float
    """Of the hypothesis of interest: equivalence, or non-inferiority."""
    p_contrary: float
    """Of its opposite: the difference lies beyond the margin."""
    interval: Interval
    """At confidence 1 − 2 alpha: it lies inside the margin exactly when p < alpha (t), or nearly so (wilcoxon)."""


TestName = Literal["t", "wilcoxon"]


def _margin_setup(difference: ArrayLike, margin: float, alpha: float, test: TestName) -> tuple[Floats, Interval]:
    d = _vector("difference", difference)
    if not margin > 0:
        raise ValueError(f"margin must be a positive number in the unit of the scores; got {margin}")
    if test not in ("t", "wilcoxon"):
        raise ValueError(f"test must be 't' or 'wilcoxon'; got {test!r}")
    if len(d) < 2:
        return d, Interval(float(d.mean()) if len(d) else np.nan, np.nan, np.nan)
    if test == "wilcoxon":
        return d, hodges_lehmann(d, 1 - 2 * alpha)
    half = float(stats.t.ppf(1 - alpha, len(d) - 1) * stats.sem(d))
    return d, Interval(float(d.mean()), float(d.mean()) - half, float(d.mean()) + half)


def _p(difference: Floats, test: TestName, alternative: Alternative) -> float:
    if len(difference) < 2:
        return np.nan
    return (paired_t_test if test == "t" else signed_rank_test)(difference, alternative).p


def noninferiority(difference: ArrayLike, margin: float, alpha: float = 0.025, test: TestName = "t") -> MarginTest:
    """Is the mean difference (positive: better) above −margin? One-sided, by convention at 0.025 (ICH E9, 3.3.2).

    `p_contrary` is that of the opposite one-sided test: worse by more than the margin.
    """
    d, interval = _margin_setup(difference, margin, alpha, test)
    above = differences(d, np.full(len(d), -margin))  # not d + margin, whose rounding errors would break ties
    return MarginTest(_p(above, test, "greater"), _p(above, test, "less"), interval)


def equivalence(difference: ArrayLike, margin: float, alpha: float = 0.05, test: TestName = "t") -> MarginTest:
    """Is the mean difference within ±margin? Two one-sided tests (Schuirmann 1987); p is the larger of the two.

    `p_contrary`, for a difference beyond the margin on either side, is twice the smaller of the two opposite tests.
    """
    d, interval = _margin_setup(difference, margin, alpha, test)
    above, below = (differences(d, np.full(len(d), side)) for side in (-margin, margin))
    p = max(_p(above, test, "greater"), _p(below, test, "less"))
    contrary = min(_p(above, test, "less"), _p(below, test, "greater"))
    return MarginTest(p, min(1.0, 2 * contrary), interval)
