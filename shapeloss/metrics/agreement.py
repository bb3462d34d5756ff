"""Agreement of two measurements of the same cases: bias and limits of agreement (Bland & Altman)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


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
