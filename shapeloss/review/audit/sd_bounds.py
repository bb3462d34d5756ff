"""What n bounded values can have as mean and SD, exactly: the largest SD, and how far the extreme value must lie.

A printed number stands for the interval that rounds to it.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from shapeloss._typing import Floats

Rounding = Literal["nearest", "truncated"]
LARGEST_N = 300_000
"""The extreme one of more values is not asked for: `extreme_value_limits` makes some arrays of their number."""
_MOST_DIGITS = 40  # before or after the decimal point: more, and powers of ten leave the floating-point numbers
TOLERANCE = 1e-9  # relative: on the edge of a rounding interval, or of what is possible, counts as possible


class Printed(NamedTuple):
    """A number as printed, and the interval of what it may have been before rounding."""

    value: float
    low: float
    high: float
    decimals: int


def read_printed(value: str | float, decimals: int | None = None, rounding: Rounding = "nearest") -> Printed:
    """The interval that a printed number stands for.

    Args:
        value: best the text as printed, "0.10", since its decimals are its precision.
        decimals: of a number that is not text; default: as many as it needs.
        rounding: "nearest" (ties either way) or "truncated" (digits cut off).

    >>> read_printed("0.10")
    Printed(value=0.1, low=0.095, high=0.105, decimals=2)
    """
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite():
        raise ValueError(f"a reported number must be a decimal number such as 0.96; got {value!r}")
    places = -int(number.as_tuple().exponent)
    if abs(number.adjusted()) > _MOST_DIGITS or places > _MOST_DIGITS:
        raise ValueError(f"a reported number must have at most {_MOST_DIGITS} digits on each side; got {value!r}")
    places = max(places, 0) if decimals is None else decimals
    if rounding not in ("nearest", "truncated"):
        raise ValueError(f"rounding must be 'nearest' or 'truncated'; got {rounding!r}")
    unit = Decimal(1).scaleb(-places)
    low, high = (number - unit / 2, number + unit / 2) if rounding == "nearest" else (number, number + unit)
    return Printed(float(number), float(low), float(high), places)


def largest_sd(
    mean_low: ArrayLike, mean_high: ArrayLike, n: ArrayLike, low: ArrayLike, high: ArrayLike, ddof: ArrayLike = 1
) -> Floats:
    """The largest SD of n values in [low, high] whose mean lies in [mean_low, mean_high]; element by element.

    It is reached with all values but one at the bounds. With D = Σ (high − x) and C = high − low, the sum of squared
    deviations is then q C² + (D − q C)² − D² / n with q = ⌊D / C⌋, which is convex in D between multiples of C: the
    largest is at an end of the interval of D or at a multiple of C. NaN where no such mean lies within the bounds,
    infinite without bounds.

    >>> float(largest_sd(0.955, 0.965, 10, 0, 1).round(4))
    0.1423
    """
    mean_low, mean_high, n, low, high, ddof = (
        np.asarray(x, dtype=float) for x in np.broadcast_arrays(mean_low, mean_high, n, low, high, ddof)
    )
    flip = np.isinf(high)  # with one bound only, measure from that one
    with np.errstate(invalid="ignore", divide="ignore"):
        least = n * np.where(flip, mean_low - low, high - mean_high)
        most = n * np.where(flip, mean_high - low, high - mean_low)
        cap = high - low
        slack = TOLERANCE * np.where(np.isinf(cap), 1.0, n * cap)
        empty = (most < -slack) | (least > n * cap + slack)
        least, most = np.clip(least, 0, n * cap), np.clip(most, 0, n * cap)
        bounded = np.where(np.isinf(cap), 1.0, cap)

        def squares(total: Floats) -> Floats:
            whole = np.where(np.isinf(cap), 0.0, np.floor(total / bounded + TOLERANCE))
            return whole * bounded**2 + (total - whole * bounded) ** 2 - total**2 / n

        first, last = np.ceil(least / bounded - TOLERANCE), np.floor(most / bounded + TOLERANCE)
        middle = np.clip(np.floor(n / 2), first, last) * bounded  # of the multiples, the nearest to n C / 2
        at_multiple = np.where(np.isfinite(cap) & (first <= last), squares(middle), 0.0)
        best = np.maximum(np.maximum(squares(least), squares(most)), at_multiple)
        sd = np.sqrt(np.maximum(best, 0) / (n - ddof))
    sd = np.where(np.isinf(low) & np.isinf(high), np.inf, sd)
    return np.where(empty, np.nan, sd)


class ExtremeValueLimits(NamedTuple):
    """What must be true of the value farthest from a bound, as distances from that bound."""

    farthest_at_least: float
    farthest_at_most: float
    others_at_most: float
    """Mean of the other n − 1 values."""
    total: float
    """Σ of the distances in the sample whose farthest value is nearest."""


def extreme_value_limits(
    total_low: float, total_high: float, squares_low: float, squares_high: float, n: int, cap: float
) -> ExtremeValueLimits | None:
    """Limits on n distances y in [0, cap] with Σ y and Σ (y − ȳ)² in the two intervals given.

    For a total D the farthest value c is smallest when q = ⌊D² / W⌋ values equal it, one is D − q c and the rest 0,
    with W = squares_low + D² / n = q c² + (D − q c)². Between the totals at which q changes c is concave in D, and
    D − c convex: both have their extremes at those totals, at the ends, or where c reaches the cap. A larger
    squares_high rules out nothing more, since any sample can be drawn together. None if no sample exists.
    """
    q = np.arange(1, n, dtype=float)
    changes = np.sqrt(q * squares_low / (1 - q / n))
    at_cap: Floats = np.empty(0)
    if np.isfinite(cap):
        k = np.arange(n, dtype=float)  # values at the cap
        root = (k * cap) ** 2 + (1 - 1 / n) * (squares_low - k * (k + 1) * cap**2)
        roots, b = np.sqrt(root[root >= 0]), k[root >= 0] * cap
        at_cap = np.concatenate([b - roots, b + roots]) / (1 - 1 / n)
    candidates = np.concatenate([[total_low, total_high], changes, at_cap])
    d = candidates[(candidates >= total_low) & (candidates <= total_high)]
    requested = squares_low + d**2 / n
    d, requested = d[requested <= d**2 * (1 + TOLERANCE)], requested[requested <= d**2 * (1 + TOLERANCE)]
    with np.errstate(invalid="ignore", divide="ignore"):
        equal = np.clip(np.floor(d**2 / requested * (1 + TOLERANCE)), 1, n)
        root = np.sqrt(np.maximum(d**2 * equal**2 - equal * (equal + 1) * (d**2 - requested), 0))
        c = np.where(d > 0, (d * equal + root) / (equal * (equal + 1)), 0.0)
    fits = c <= cap * (1 + TOLERANCE)
    if not fits.any():
        return None
    d, c = d[fits], c[fits]
    # farthest possible: all others equal, or, where the bound forbids that, all others at the bound
    reach = total_high / n + min(np.sqrt(squares_high * (n - 1) / n), total_high * (1 - 1 / n))
    others = float((d - c).max()) / (n - 1)
    return ExtremeValueLimits(float(c.min()), float(min(reach, cap)), others, float(d[c.argmin()]))
