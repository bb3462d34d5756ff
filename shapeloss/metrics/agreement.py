"""Agreement of two measurements of the same cases: bias and limits of agreement (Bland & Altman)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

LIMITS_FROM = 6
"""Cases from which limits of agreement are worth printing: with fewer, the 95 % interval of a limit, t √(1/n + 1.96² /
(2 (n − 1))) SD to each side, reaches over the bias itself, 1.96 SD away."""


class Limit(NamedTuple):
    """An estimate with its confidence limits, in the unit of the measurement."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """How a measurement differs from another of the same cases."""

    n: int
    bias: Limit
    """Mean difference, with Student's interval."""
    sd: float
    """Sample SD of the differences."""
    lower: Limit
    """Lower limit of agreement: about 95 % of the differences lie between the two limits if they are normal."""
    upper: Limit
    """Upper limit of agreement."""


@dataclass(frozen=True)
class SpreadRatio:
    """How the spread of one set of differences compares with that of another, of the same cases."""

    ratio: Limit
    """SD of the first over SD of the second."""
    p: float
    """Of equal SDs, two-sided."""


def pitman_morgan(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> SpreadRatio:
    """The ratio of two SDs of paired values, with its interval, and the test that it is 1 (Pitman and Morgan 1939).

    Sum and difference of a pair are uncorrelated just where the two variances are equal, so that the test is that of a
    correlation: t with n − 2 degrees of freedom. Its inversion gives the interval: with the correlation r of the two,
    var₁/var₂ times K ± √(K² − 1), K = 1 + 2 (1 − r²) t² / (n − 2). Both are exact for normal pairs; tails that are
    heavier make them too bold.

    Args:
        first, second: (n,), one per case, of the same cases; finite.
        confidence: level of the interval.

    Returns:
        With fewer than three cases, or no spread in one of the two, NaN for what cannot be told.

    Raises:
        ValueError: of two lengths, or a value that is not finite.

    >>> round(pitman_morgan([2.0, -2.0, 4.0, -4.0], [1.0, 2.0, -1.0, -2.0]).ratio.value, 6)
    2.0
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.ndim != 1 or a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError(
            f"first and second must be paired lists of finite numbers; got shapes {a.shape} and {b.shape}, {a}, {b}"
        )
    n, nan = len(a), float("nan")
    sds = [float(x.std(ddof=1)) if n > 2 else 0.0 for x in (a, b)]
    if min(sds) < 1e-9 * max(*sds, np.finfo(float).tiny):
        return SpreadRatio(Limit(nan, nan, nan), nan)
    ratio, r = sds[0] / sds[1], float(np.corrcoef(a, b)[0, 1])
    t = float(stats.t.ppf((1 + confidence) / 2, n - 2))
    k = 1 + 2 * max(1 - r * r, 0.0) * t * t / (n - 2)
    wide = float(np.sqrt(k + np.sqrt(k * k - 1)))  # √(K − √(K² − 1)) is its inverse
    same = r > 1 - 1e-12 and abs(ratio - 1) < 1e-12  # the two are one: no difference is left to correlate
    p = 1.0 if same else float(stats.pearsonr(a + b, a - b).pvalue)
    return SpreadRatio(Limit(ratio, ratio / wide, ratio * wide), p)


def bland_altman(difference: ArrayLike, confidence: float = 0.95) -> Agreement:
    """Bias and 95 % limits of agreement, bias ± 1.96 SD, with their confidence intervals.

    The standard error of a limit is SD √(1/n + 1.96² / (2 (n − 1))), its interval that of Student's t (Bland & Altman,
    Stat Methods Med Res 1999, 8:135–160, section 2).

    Args:
        difference: (n,), one per case: the mean over repeated measurements, if there are several; all finite.
        confidence: level of the intervals.

    Returns:
        With fewer than two cases, NaN for what needs two.

    Raises:
        ValueError: another shape, or a value that is not finite.

    >>> bland_altman([-1.0, 0.0, 1.0]).upper.value
    1.96
    """
    d = np.asarray(difference, dtype=float)
    if d.ndim != 1 or not np.isfinite(d).all():
        raise ValueError(f"difference must be a list of finite numbers, one per case; got shape {d.shape}, {d}")
    n, nan = len(d), float("nan")
    if n < 2:
        bias = float(d.mean()) if n else nan
        return Agreement(n, Limit(bias, nan, nan), nan, Limit(nan, nan, nan), Limit(nan, nan, nan))
    bias, sd = float(d.mean()), float(d.std(ddof=1))
    t = float(stats.t.ppf((1 + confidence) / 2, n - 1))

    def limit(value: float, error: float) -> Limit:
        return Limit(value, value - t * error, value + t * error)

    error = sd * float(np.sqrt(1 / n + 1.96**2 / (2 * (n - 1))))
    return Agreement(
        n,
        limit(bias, sd / float(np.sqrt(n))),
        sd,
        limit(bias - 1.96 * sd, error),
        limit(bias + 1.96 * sd, error),
    )
