"""Two reported results beside each other: the correlation that a p-value needs, and sources that disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from shapeloss.review.audit.sd_bounds import TOLERANCE, Rounding, read_printed


@dataclass(frozen=True)
class RequiredCorrelation:
    """The correlation between paired scores that a paired t-test needs to reach a p-value."""

    printed: float
    """With the numbers as printed."""
    least: float
    """With the most favourable numbers that round to the printed ones."""
    most: float
    """With the least favourable ones; infinite if their means may be equal."""
    n: int
    p: float

    @property
    def possible(self) -> bool:
        """Some correlation up to 1 reaches the p-value."""
        return self.least <= 1

    def to_text(self) -> str:
        """A sentence for a person."""
        claim = f"A paired t-test over {self.n} pairs gives p < {self.p:g}"
        if not self.possible:
            return f"{claim} with no correlation between the paired scores: it would have to be {self.least:.2f}."
        if self.most <= -1:
            return f"{claim} whatever the correlation between the paired scores."
        text = f"{claim} only if the paired scores correlate at r ≥ {self.printed:.2f}"
        if self.printed > 1:
            text = f"{claim} with no correlation if the printed numbers are exact"
        elif self.printed <= -1:
            text = f"{claim} whatever the correlation if the printed numbers are exact"
        least = f"{self.least:.2f}" if self.least > -1 else "no requirement"
        most = f"{self.most:.2f}" if self.most <= 1 else "none that suffices"
        return f"{text} (given what the rounding leaves open, anything from {least} to {most})."


def required_correlation(
    first: tuple[str | float, str | float], second: tuple[str | float, str | float], n: int, p: float = 0.05,
    rounding: Rounding = "nearest",
) -> RequiredCorrelation:  # fmt: skip
    """Which correlation between paired scores makes a two-sided paired t-test reach `p`?

    t = √n Δ / s_d with s_d² = s₁² + s₂² − 2 r s₁ s₂, hence r ≥ (s₁² + s₂² − n Δ² / t²) / (2 s₁ s₂). A rank test has no
    such formula, since means and SDs do not fix the ranks.

    Args:
        first: mean and sample SD as printed.
        second: those of the other group, measured on the same cases.
        n: pairs.
        p: the claimed p-value, or the level that is claimed to be passed.
        rounding: how the four numbers were rounded.

    >>> round(required_correlation(("0.29", "0.04"), ("0.27", "0.05"), 10).printed, 2)
    0.83
    """
    if n < 2 or not 0 < p < 1:
        raise ValueError(f"n must be at least 2 and p between 0 and 1; got n = {n}, p = {p}")
    (m1, s1), (m2, s2) = ([read_printed(x, rounding=rounding) for x in group] for group in (first, second))
    if min(s1.low, s2.low) <= 0:
        raise ValueError(f"both SDs must be above zero after rounding; got {first[1]!r} and {second[1]!r}")
    per_square = float(n / stats.t.ppf(1 - p / 2, n - 1) ** 2)

    def needed(difference: float, a: float, b: float) -> float:
        return (a * a + b * b - per_square * difference**2) / (2 * a * b)

    widest = max(m1.high - m2.low, m2.high - m1.low)
    overlap = m1.low <= m2.high and m2.low <= m1.high
    narrowest = 0.0 if overlap else min(abs(m1.low - m2.high), abs(m2.low - m1.high))
    # r rises towards the corners; with one SD at an end, it is least where the other's derivative vanishes
    candidates = [(a, b) for a in (s1.low, s1.high) for b in (s2.low, s2.high)]
    effect = per_square * widest**2
    candidates += [(float(np.clip(np.sqrt(max(b * b - effect, 0)), s1.low, s1.high)), b) for b in (s2.low, s2.high)]
    candidates += [(a, float(np.clip(np.sqrt(max(a * a - effect, 0)), s2.low, s2.high))) for a in (s1.low, s1.high)]
    least = min(needed(widest, a, b) for a, b in candidates)
    most = np.inf if overlap else max(needed(narrowest, a, b) for a, b in candidates[:4])
    return RequiredCorrelation(needed(m1.value - m2.value, s1.value, s2.value), least, most, n, p)


def compare_sources(table: pd.DataFrame, by: Sequence[str] = ("metric", "loss")) -> pd.DataFrame:
    """Results that several sources report: do they agree after rounding, or differ like a shifted decimal point?

    Args:
        table: columns `by`, `source`, `mean`, `sd` (as printed, best as text) and, if the sources use different units,
            `scale`: what one printed unit is worth (0.01 for percent of a score).
        by: columns that name one result.

    Returns:
        One row per result, pair of sources and quantity ("mean", "sd"): `first` and `second` in common units, their
        `ratio` with the limits that rounding leaves, whether they `agree` (it can be 1), and `shift`, the power of ten
        (1, 2, … or −1, …) that it can be, 0 if none; `text` says it.
    """
    if missing := {*by, "source", "mean", "sd"} - set(table.columns):
        raise ValueError(f"the table lacks the columns {sorted(missing)}; it has {list(table.columns)}")
    rows = []
    for _, group in table.groupby(list(by), sort=False):
        for a, b in combinations(group.to_dict("records"), 2):
            for quantity in ("mean", "sd"):
                x, y = (read_printed(row[quantity]) for row in (a, b))
                scales = [float(row.get("scale", 1.0)) for row in (a, b)]
                factor = scales[0] / scales[1]
                ratio, low, high = (
                    float(factor * up / down) if down > 0 else np.inf
                    for up, down in ((x.value, y.value), (x.low, y.high), (x.high, y.low))
                )
                agree = low <= 1 + TOLERANCE and high >= 1 - TOLERANCE
                powers = [
                    k for k in (-3, -2, -1, 1, 2, 3) if low * (1 - TOLERANCE) <= 10.0**k <= high * (1 + TOLERANCE)
                ]
                shift = 0 if agree or len(powers) != 1 else powers[0]
                name = " ".join(str(a[key]) for key in by)
                verdict = "they agree after rounding" if agree else f"they differ by a factor of {ratio:.3g}"
                if shift:
                    verdict += f" ({low:.3g} to {high:.3g} with the rounding): as if a decimal point had slipped"
                elif not agree:
                    verdict += f" ({low:.3g} to {high:.3g} with the rounding), which is not a power of ten"
                rows.append({
                    **{key: a[key] for key in by}, "quantity": quantity, "source_1": a["source"],
                    "source_2": b["source"], "first": x.value * scales[0], "second": y.value * scales[1],
                    "ratio": ratio, "ratio_low": low, "ratio_high": high, "agree": agree,
                    "shift": shift,
                    "text": f"{name}, {quantity}, {a['source']} against {b['source']}: {verdict}.",
                })  # fmt: skip
    return pd.DataFrame(rows)
