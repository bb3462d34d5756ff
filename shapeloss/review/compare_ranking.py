"""Three methods or more: their ranking and its stability, which pairs differ, and critical differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from shapeloss._files import atomic
from shapeloss.plotting.rankings import figure_critical_difference, figure_significance
from shapeloss.plotting.style import save_figure
from shapeloss.stats.compare_losses import case_means
from shapeloss.stats.ranking import (
    RULES,
    CriticalDifference,
    Direction,
    Ranking,
    compare_pairs,
    complete_cases,
    critical_difference,
    rank_methods,
)
from shapeloss.stats.read_table import few
from shapeloss.stats.tables import format_p

RESAMPLES = 1000
LEVEL = 0.05


@dataclass(frozen=True)
class MetricRanking:
    """The methods in the order of one score."""

    better: Direction
    sizes: bool
    """Whether the sizes of errors are ranked, because the score has a sign."""
    left_out: tuple[str, ...]
    """Cases that one of the methods lacks a score for."""
    rankings: tuple[Ranking, ...]
    """By each of `RULES`."""
    pairs: pd.DataFrame
    critical: CriticalDifference


def rank_by_metrics(table: pd.DataFrame, directions: Mapping[str, str]) -> dict[str, MetricRanking | str]:
    """Rank three methods or more by each metric, seeds averaged first.

    Args:
        table: as for `case_means`.
        directions: metric → "higher", "lower", "nearer 0" (ranked by the size of the error), or "" for unknown.

    Returns:
        For each metric its ranking, or in words why there is none; nothing for two methods.
    """
    methods = table["loss"].unique().tolist()
    found: dict[str, MetricRanking | str] = {}
    for metric, direction in directions.items() if len(methods) > 2 else ():
        if not direction:
            found[metric] = (
                f"No ranking: whether higher or lower is better is not known of {metric}; say so with "
                f"--higher-is-better {metric} or --lower-is-better {metric}."
            )
            continue
        sizes = direction == "nearer 0"
        scores = table.assign(**{metric: table[metric].abs()}) if sizes else table
        means = case_means(scores, [metric])[metric]
        wide, left_out = complete_cases(means)
        if len(wide) < 2:
            found[metric] = f"No ranking: {len(wide)} case(s) have a score of every method, and 2 are needed."
            continue
        wide = wide[methods]
        better: Direction = "higher" if direction == "higher" else "lower"
        rankings = tuple(rank_methods(wide, better, rule, RESAMPLES) for rule in RULES)
        pairs, critical = compare_pairs(means, methods), critical_difference(wide, better, LEVEL)
        found[metric] = MetricRanking(better, sizes, tuple(left_out), rankings, pairs, critical)
    return found


def write_rankings(
    rankings: Mapping[str, MetricRanking | str], folder: Path, headings: Mapping[str, str], suffixes: Mapping[str, str]
) -> None:
    """Write `ranking.csv`, `pairs.csv`, and for each metric the figures `significance` and `critical_difference`."""
    made = {metric: ranking for metric, ranking in rankings.items() if isinstance(ranking, MetricRanking)}
    if not made:
        return
    rows = [
        {"metric": metric, "rule": r.rule, "method": method, "value": r.values[i], "rank": r.ranks[i],
         "rank_low": r.low[i], "rank_high": r.high[i], "first": r.best[i], "n": r.n}
        for metric, ranking in made.items() for r in ranking.rankings for i, method in enumerate(r.methods)
    ]  # fmt: skip
    pairs = pd.concat([ranking.pairs.assign(metric=metric) for metric, ranking in made.items()], ignore_index=True)
    for name, table in (("ranking", pd.DataFrame(rows)), ("pairs", pairs)):
        with atomic(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
    for metric, ranking in made.items():
        title = headings[metric] + (", size of the error" if ranking.sizes else "")
        order = ranking.critical.methods
        figure = figure_significance(ranking.pairs, order, ranking.better, title, LEVEL)
        save_figure(figure, folder / f"significance{suffixes[metric]}")
        save_figure(
            figure_critical_difference(ranking.critical, title), folder / f"critical_difference{suffixes[metric]}"
        )


def ranking_lines(ranking: MetricRanking | str, suffix: str) -> list[str]:
    """Markdown: the ranking by three rules, and what the two figures show, whose names end with `suffix`."""
    if isinstance(ranking, str):
        return [ranking, ""]
    header = ["method", *(cell for rule in RULES for cell in (rule, "rank"))]
    lines = ["### Ranking", "", f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    methods = ranking.rankings[0].methods
    for i in sorted(range(len(methods)), key=lambda i: ranking.rankings[0].ranks[i]):
        cells = [methods[i]]
        for r in ranking.rankings:
            cells += [f"{r.values[i]:.4g}", f"{r.ranks[i]:g} ({r.low[i]:g} to {r.high[i]:g}), {100 * r.best[i]:.0f} %"]
        lines.append(f"| {' | '.join(cells)} |")
    of = "the size of the error" if ranking.sizes else "the score"
    left_out = f" Without {few(ranking.left_out)}, which a method lacks." if ranking.left_out else ""
    first = [{r.methods[i] for i in np.flatnonzero(r.ranks == r.ranks.min())} for r in ranking.rankings]
    differ = "" if all(winners == first[0] for winners in first) else " The rules disagree on the first."
    lines += [
        "", f"Rank by {of}, 1 the best, with its 95 % interval and how often the method was first in {RESAMPLES:,} "
        f"resamples of the {ranking.rankings[0].n} cases; ties share. The mean and the median are taken over the cases "
        "and then ranked; for the mean rank, the methods are ranked on each case first. Kendall's tau between a "
        f"ranking and those of its resamples, median (quartiles): {'; '.join(map(_tau, ranking.rankings))}."
        f"{differ}{left_out}", "",
        "### Which methods differ", "", *_pair_lines(ranking, suffix),
        *_critical_lines(ranking.critical, suffix),
    ]  # fmt: skip
    return lines


def _tau(ranking: Ranking) -> str:
    q1, median, q3 = ranking.tau
    return f"{ranking.rule} –, all tie" if np.isnan(median) else f"{ranking.rule} {median:.2f} ({q1:.2f} to {q3:.2f})"


def _pair_lines(ranking: MetricRanking, suffix: str) -> list[str]:
    shown = []
    for row in ranking.pairs[ranking.pairs["p_holm"] < LEVEL].to_dict("records"):
        names = [row["first"], row["second"]]
        better, worse = names if (row["sign"] > 0) == (ranking.better == "higher") else names[::-1]
        shown.append(f"{better} better than {worse} ({format_p(row['p_holm'])})")
    text = f": {few(shown, 12)}" if shown else ""
    return [
        f"Of {len(ranking.pairs)} pairs {len(shown)} differ (exact Wilcoxon, Holm over all pairs, p below "
        f"{LEVEL:g}){text}. significance{suffix}.png shows all.", "",
    ]  # fmt: skip


def _critical_lines(found: CriticalDifference, suffix: str) -> list[str]:
    verdict = (
        f"Mean ranks more than {found.difference:.2f} apart differ (Nemenyi, over all pairs)"
        if found.p < LEVEL
        else "It shows no difference, so none is read from the mean ranks"
    )
    return [
        f"Friedman's test, corrected for ties: χ² = {found.chi2:.4g}, p {_equals(found.p)}; by Iman and Davenport F = "
        f"{found.f:.4g}, p {_equals(found.p_f)}. {verdict}: critical_difference{suffix}.png.", "",
    ]  # fmt: skip


def _equals(p: float) -> str:
    return format_p(p) if p < 0.001 else f"= {format_p(p)}"
