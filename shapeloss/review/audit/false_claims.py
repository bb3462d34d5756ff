"""How probable is it that a claimed improvement is none, and how many cases would have shown it?

With a flat prior on the true mean difference (and on the logarithm of its SD), what is known of it after n pairs is
Student's t about the printed difference. What of it lies on the other side of zero is the probability that the claim is
false (Christodoulou et al. 2025, "False promises in medical imaging AI?", arXiv:2505.04720). It is the one-sided
p-value of the paired t-test, read as a probability. It speaks of other cases, not of another training. It needs the
correlation between the paired scores, which papers do not print: it is given, or averaged over measured ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from shapeloss.review.audit.sd_bounds import Printed, Rounding, read_printed
from shapeloss.stats.headings import PAPER_METRICS
from shapeloss.stats.paired_tests import power_of

CORRELATIONS = (0.0, 0.5, 0.84, 0.9)
"""Looked at unless others are given: none, a middling one, and two of the size that open per-case scores show."""
LIMIT = 0.05
"""Christodoulou et al. call the probability of a false claim high above this."""
POWER, LEVEL = 0.8, 0.05
"""Of the test that the needed number of pairs is computed for."""
_MOST_PAIRS = 10**6


def sd_of_difference(first: float, second: float, correlation: float) -> float:
    """SD of the differences between paired scores, from their two SDs and their correlation."""
    return float(np.sqrt(max(first**2 + second**2 - 2 * correlation * first * second, 0.0)))


def probability_false(difference: float, sd: float, n: int) -> float:
    """The probability that the true mean difference is not above zero.

    Args:
        difference: mean difference of n pairs, positive if it favours the claim.
        sd: sample SD of the paired differences, in the same unit.
        n: pairs.

    >>> round(probability_false(0.02, sd_of_difference(0.04, 0.05, 0.0), 10), 3)
    0.175
    """
    if sd == 0:
        return 0.5 if difference == 0 else float(difference < 0)
    return float(stats.t.sf(np.sqrt(n) * difference / sd, n - 1))


def pairs_for_power(difference: float, sd: float, level: float = LEVEL, power: float = POWER) -> float:
    """The least number of pairs with which a two-sided paired t-test finds this true difference often enough.

    Infinite beyond a million pairs, and for no difference.
    """
    return _least(lambda n: power_of(difference, sd, n, level) >= power) if difference else np.inf


def pairs_for_probability(difference: float, sd: float, limit: float = LIMIT) -> float:
    """The least number of pairs that make the probability of a false claim less than `limit`, all else as printed.

    Infinite beyond a million pairs, and for a difference that is not above zero.
    """
    return _least(lambda n: probability_false(difference, sd, n) < limit) if difference > 0 else np.inf


def _least(enough: Callable[[int], bool]) -> float:
    """The least n from 2 on for which a condition holds that holds for all larger ones."""
    high = 2
    while not enough(high):
        high *= 2
        if high > _MOST_PAIRS:
            return np.inf
    low = high // 2  # too few, or 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return float(high)


@dataclass(frozen=True)
class AtCorrelation:
    """What a claim is worth if the paired scores correlate at `r`."""

    r: float
    probability: float
    """That the claim is false, with the numbers as printed."""
    rounding: tuple[float, float]
    """The least and the largest such probability that numbers which round to the printed ones give."""
    pairs_power: float
    pairs_probability: float


@dataclass(frozen=True)
class OverMeasured:
    """The probability of a false claim over correlations that were measured between scores of a metric."""

    metric: str
    correlations: tuple[float, ...]
    probability: float
    """Mean over the correlations."""
    least: float
    most: float
    data: tuple[str, ...] = ()
    """Where they were measured."""

    def to_text(self) -> str:
        """The probability with its range, and what it was averaged over."""
        name = PAPER_METRICS.get(self.metric, self.metric)
        return (
            f"averaged over the {len(self.correlations)} correlations that {name} of two losses showed on "
            f"{', '.join(self.data) or 'other data'} (r = {min(self.correlations):.2f} to "
            f"{max(self.correlations):.2f}), {percent(self.probability)} ({percent(self.least)} to "
            f"{percent(self.most)})"
        )


@dataclass(frozen=True)
class FalseClaim:
    """One claimed difference between two means of paired scores."""

    difference: float
    """As printed, positive if it favours the claim."""
    sds: tuple[float, float]
    n: int
    at: tuple[AtCorrelation, ...]
    measured: tuple[OverMeasured, ...] = ()

    def probability(self, r: float) -> float:
        """That the claim is false if the paired scores correlate at `r`, with the numbers as printed."""
        return probability_false(self.difference, sd_of_difference(*self.sds, r), self.n)

    def to_text(self) -> str:
        """A paragraph for a person."""
        lines = [
            f"The probability that the true difference is none, or the other way round, given {self.n} pairs and no "
            "other knowledge (in brackets: what the rounding leaves open):"
        ]
        for each in self.at:
            low, high = map(percent, each.rounding)
            lines.append(
                f"- if the paired scores correlate at r = {each.r:g}, {percent(each.probability)} ({low} to {high}); "
                f"{pairs(each.pairs_probability)} would make it less than {percent(LIMIT)}, and "
                f"{pairs(each.pairs_power)} give a paired t-test {percent(POWER)} power for this difference;"
            )
        lines += [f"- {each.to_text()};" for each in self.measured]
        return "\n".join(lines)[:-1] + "."


def false_claim(
    first: tuple[str | float, str | float], second: tuple[str | float, str | float], n: int,
    better: Literal["higher", "lower"] = "higher", correlations: Sequence[float] = CORRELATIONS,
    measured: pd.DataFrame | None = None, rounding: Rounding = "nearest",
) -> FalseClaim:  # fmt: skip
    """How probable is it that the first group is not better than the second?

    Args:
        first: mean and sample SD as printed, of the group that is claimed to be better.
        second: those of the other group, measured on the same cases.
        n: pairs.
        better: which scores are.
        correlations: between the paired scores, to be looked at one by one.
        measured: columns `metric`, `r` and, if known, `data`, from
            `shapeloss.review.audit.trainings.measure_correlations`; each metric's are averaged over, with equal
            weights.
        rounding: how the four numbers were rounded.

    Raises:
        ValueError: no number, fewer than two pairs, an SD below zero, or a correlation outside [−1, 1].

    >>> [round(x.probability, 3) for x in false_claim(("0.29", "0.04"), ("0.27", "0.05"), 10).at]
    [0.175, 0.1, 0.023, 0.01]
    """
    if n < 2:
        raise ValueError(f"n must be at least 2 pairs; got {n}")
    if outside := [r for r in correlations if not -1 <= r <= 1]:
        raise ValueError(f"a correlation must lie between -1 and 1; got {outside[0]}")
    (m1, s1), (m2, s2) = ([read_printed(x, rounding=rounding) for x in group] for group in (first, second))
    if min(s1.value, s2.value) < 0:
        raise ValueError(f"an SD must not be negative; got {first[1]!r} and {second[1]!r}")
    sign = 1 if better == "higher" else -1
    # to 12 digits, so that 0.29 − 0.27 is 0.02
    difference = float(f"{sign * (m1.value - m2.value):.12g}")
    limits = sorted((sign * (m1.low - m2.high), sign * (m1.high - m2.low)))
    at = []
    for r in correlations:
        sd = sd_of_difference(s1.value, s2.value, r)
        at.append(
            AtCorrelation(
                float(r), probability_false(difference, sd, n), _rounding_limits(limits, s1, s2, r, n),
                pairs_for_power(max(difference, 0.0), sd), pairs_for_probability(difference, sd),
            )
        )  # fmt: skip
    claim = FalseClaim(difference, (s1.value, s2.value), int(n), tuple(at))
    over = []
    for metric, group in measured.groupby("metric", sort=False) if measured is not None else ():
        rs = tuple(float(x) for x in group["r"])
        p = [claim.probability(x) for x in rs]
        data = tuple(map(str, group["data"].unique())) if "data" in group else ()
        over.append(OverMeasured(str(metric), rs, float(np.mean(p)), min(p), max(p), data))
    return FalseClaim(claim.difference, claim.sds, claim.n, claim.at, tuple(over))


def _rounding_limits(difference: Sequence[float], s1: Printed, s2: Printed, r: float, n: int) -> tuple[float, float]:
    """The least and the largest probability over the intervals that the printed numbers stand for."""
    a, b = ((max(s.low, 0.0), s.high) for s in (s1, s2))
    corners = [(x, y) for x in a for y in b]
    # s² = x² + y² − 2 r x y is convex: least at a corner, or on an edge at x = r y or y = r x
    edges = [(float(np.clip(r * y, *a)), y) for y in b] + [(x, float(np.clip(r * x, *b))) for x in a]
    sds = [sd_of_difference(x, y, r) for x, y in corners + edges]
    p = [[probability_false(d, sd, n) for sd in (min(sds), max(sds))] for d in difference]
    return min(p[1]), max(p[0])


def percent(probability: float) -> str:
    """For texts: two digits at most, and never 0 or 100.

    >>> [percent(p) for p in (0.1745, 0.0226, 0.00004, 0.9999)]
    ['17 %', '2.3 %', '< 0.1 %', '> 99.9 %']
    """
    if probability < 0.001:
        return "< 0.1 %"
    if probability > 0.999:
        return "> 99.9 %"
    return f"{100 * probability:.1f} %".replace(".0 %", " %") if probability < 0.0995 else f"{100 * probability:.0f} %"


def pairs(number: float) -> str:
    """For texts."""
    return f"{number:.0f} pairs" if np.isfinite(number) else "no number of pairs up to a million"
