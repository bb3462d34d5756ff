"""Rankings of several methods over the same cases: how stable they are, and which differences the cases can show.

Two orders of steps are usual and can contradict each other (Maier-Hein et al. 2018): aggregate the scores, then rank
the methods; or rank the methods on each case, then aggregate the ranks. How far a ranking hangs on the cases that
happened to be in the test set is read from rankings of resampled cases (Wiesenfarth et al. 2021, challengeR). Methods
that tie share their mean rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from shapeloss._typing import Floats
from shapeloss.stats.compare_losses import paired_scores
from shapeloss.stats.paired_tests import differences, hodges_lehmann, holm, signed_rank_test

Direction = Literal["higher", "lower"]
Rule = Literal["mean", "median", "mean rank"]
RULES: tuple[Rule, ...] = ("mean", "median", "mean rank")
"""Aggregate, then rank: by the mean or the median score. Rank, then aggregate: by the mean of the ranks per case."""

_DIGITS = 12  # scores that agree in so many digits, and ranks in so many decimals, tie
_BATCH = 5_000_000  # numbers drawn at a time


@dataclass(frozen=True)
class Ranking:
    """A ranking of k methods, and what became of it when the cases were drawn anew."""

    rule: Rule
    methods: tuple[str, ...]
    values: Floats
    """(k,) what was ranked: the mean or median score, or the mean rank."""
    ranks: Floats
    """(k,) 1 is the best."""
    low: Floats
    """(k,) of the 95 % interval of the rank: the resampled rank below which 2.5 % lie at most."""
    high: Floats
    """(k,) the one above which 2.5 % lie at most."""
    best: Floats
    """(k,) share of the resamples in which a method came first; methods that tie share it."""
    tau: tuple[float, float, float]
    """Quartiles of Kendall's tau-b between `ranks` and each resample's, the median in the middle; NaN if all tie."""
    n: int


def complete_cases(means: pd.Series) -> tuple[pd.DataFrame, list[str]]:
    """The cases that every method has a score for, and the names of the others.

    Args:
        means: one column of `case_means`, index (loss, case).

    Returns:
        Rows cases, columns methods.
    """
    wide = means.unstack("loss")
    return wide.dropna(), [str(case) for case in wide.index[wide.isna().any(axis=1)]]


def case_ranks(scores: pd.DataFrame, better: Direction) -> Floats:
    """(n, k): the rank of each method on each case, 1 the best.

    Args:
        scores: n cases × k methods, without gaps.
        better: which direction is.

    Raises:
        ValueError: scores that are not finite, no case, or another direction.
    """
    values = scores.to_numpy(dtype=float)
    if not (len(values) and np.isfinite(values).all()):
        raise ValueError(f"scores must be finite, for one case or more; got shape {values.shape}; keep complete cases")
    if better not in ("higher", "lower"):
        raise ValueError(f"better must be 'higher' or 'lower'; got {better!r}")
    return _ranks(values if better == "lower" else -values)


def _ranks(values: Floats) -> Floats:
    """Ranks along the last axis, the least first; values that differ by rounding errors alone tie."""
    scale = float(np.abs(values).max(initial=0.0)) or 1.0
    return np.asarray(stats.rankdata(np.round(values / scale, _DIGITS), axis=-1))


def rank_methods(
    scores: pd.DataFrame, better: Direction, rule: Rule = "mean", resamples: int = 1000, seed: int = 0
) -> Ranking:
    """Rank methods, and rank them again on cases drawn with replacement.

    Args:
        scores: n cases × k methods, without gaps.
        better: which direction is.
        rule: one of `RULES`.
        resamples: how many bootstrap samples of n cases.
        seed: of the bootstrap; the same for each rule, so that all rules rank the same resamples.

    Raises:
        ValueError: as for `case_ranks`, or another rule.
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}; got {rule!r}")
    per_case = case_ranks(scores, better)
    values = per_case if rule == "mean rank" else scores.to_numpy(dtype=float)
    sign = -1 if better == "higher" and rule != "mean rank" else 1
    aggregate = np.median if rule == "median" else np.mean
    n, k = values.shape
    full = np.asarray(aggregate(values, axis=0))
    ranks = _ranks(sign * full)
    rng = np.random.default_rng(seed)
    size = max(1, _BATCH // (n * k))
    drawn = [
        aggregate(values[rng.integers(n, size=(min(size, resamples - start), n))], axis=1)
        for start in range(0, resamples, size)
    ]
    resampled = _ranks(sign * np.concatenate(drawn))
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0, method="inverted_cdf")
    first = resampled == resampled.min(axis=1, keepdims=True)
    best = (first / first.sum(axis=1, keepdims=True)).mean(axis=0)
    tau = kendall_tau(ranks, resampled)
    known = tau[np.isfinite(tau)]
    q1, middle, q3 = (float(q) for q in np.quantile(known, [0.25, 0.5, 0.75])) if len(known) else (np.nan,) * 3
    return Ranking(rule, tuple(map(str, scores.columns)), full, ranks, low, high, best, (q1, middle, q3), n)


def kendall_tau(ranks: Floats, others: Floats) -> Floats:
    """(b,): Kendall's tau-b (Kendall 1945) between `ranks` (k,) and each row of `others` (b, k); NaN if all of one tie.

    >>> kendall_tau(np.array([1, 2, 3]), np.array([[1, 2, 3], [3, 2, 1], [2, 1, 3]])).round(3).tolist()
    [1.0, -1.0, 0.333]
    """
    first, second = np.array(list(combinations(range(len(ranks)), 2))).T
    one, two = np.sign(ranks[first] - ranks[second]), np.sign(others[:, first] - others[:, second])
    pairs = np.sqrt(np.abs(one).sum() * np.abs(two).sum(axis=1))
    return np.divide(two @ one, pairs, out=np.full(len(others), np.nan), where=pairs > 0)


def compare_pairs(means: pd.Series, methods: Sequence[str]) -> pd.DataFrame:
    """Test all pairs of methods, each on the cases that both have.

    Args:
        means: one column of `case_means`, index (loss, case).
        methods: in the order of the rows.

    Returns:
        Columns first, second, n, difference (Hodges–Lehmann, first − second), sign (of the signed ranks: 1 where the
        first tends to be larger), p (exact two-sided Wilcoxon, NaN below 2 cases) and p_holm (Holm over all pairs).
    """
    rows = []
    for first, second in combinations(methods, 2):
        pair, _ = paired_scores(means, first, second)
        d = differences(pair["reference"], pair["other"])
        test = signed_rank_test(d)
        ranks = stats.rankdata(np.abs(d))[d != 0]
        rows.append({
            "first": first, "second": second, "n": len(d), "difference": hodges_lehmann(d).value,
            "sign": np.sign(2 * test.statistic - ranks.sum()), "p": test.p if len(d) > 1 else np.nan,
        })  # fmt: skip
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p"].to_numpy()))


@dataclass(frozen=True)
class CriticalDifference:
    """Friedman's test of k methods on n cases, and how far two mean ranks must lie apart to differ."""

    methods: tuple[str, ...]
    """From the best mean rank on."""
    mean_ranks: Floats
    """(k,) in that order."""
    n: int
    chi2: float
    """Friedman's statistic with k − 1 degrees of freedom, corrected for ties."""
    p: float
    f: float
    """Of Iman and Davenport, with k − 1 and (k − 1)(n − 1) degrees of freedom; ∞ where all cases rank alike."""
    p_f: float
    difference: float
    """Nemenyi's critical difference of two mean ranks."""
    groups: tuple[tuple[int, int], ...]
    """First and last place of each longest row of methods within the critical difference of each other."""


def nemenyi_q(methods: int, alpha: float = 0.05) -> float:
    """The critical value of Nemenyi's test: the studentised range's with infinite degrees of freedom, divided by √2.

    >>> round(nemenyi_q(4), 3)  # Demšar 2006, table 5
    2.569
    """
    return float(stats.studentized_range.isf(alpha, methods, np.inf) / np.sqrt(2))


def iman_davenport(chi2: float, n: int, methods: int) -> float:
    """F of Iman and Davenport (1980) from Friedman's χ²: less conservative (Demšar 2006, section 3.2.2)."""
    rest = n * (methods - 1) - chi2
    return (n - 1) * chi2 / rest if rest > 1e-9 * n * methods else np.inf


def critical_difference(scores: pd.DataFrame, better: Direction, alpha: float = 0.05) -> CriticalDifference:
    """Friedman's test and Nemenyi's critical difference (Demšar 2006).

    Args:
        scores: n cases × k methods, without gaps.
        better: which direction is.
        alpha: level of the critical difference, over all pairs of methods.

    Raises:
        ValueError: fewer than 3 methods or 2 cases; and as for `case_ranks`.
    """
    ranks = case_ranks(scores, better)
    n, k = ranks.shape
    if k < 3 or n < 2:
        raise ValueError(f"Friedman's test needs 3 methods and 2 cases; got {k} methods and {n} cases")
    mean_ranks = ranks.mean(axis=0)
    all_tie = bool((ranks == ranks[0, 0]).all())
    chi2, p = (0.0, 1.0) if all_tie else map(float, stats.friedmanchisquare(*ranks.T))
    f = iman_davenport(chi2, n, k)
    apart = nemenyi_q(k, alpha) * np.sqrt(k * (k + 1) / (6 * n))
    order = np.argsort(mean_ranks, kind="stable")
    ordered = mean_ranks[order]
    last = [int(np.searchsorted(ordered, rank + apart, "right")) - 1 for rank in ordered]
    groups = [(i, j) for i, j in enumerate(last) if j > i and (i == 0 or last[i - 1] < j)]
    return CriticalDifference(
        tuple(str(scores.columns[i]) for i in order), ordered, n, chi2, p, f,
        float(stats.f.sf(f, k - 1, (k - 1) * (n - 1))), float(apart), tuple(groups),
    )  # fmt: skip
