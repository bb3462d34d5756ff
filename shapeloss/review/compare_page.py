"""The page of `shapeloss compare`: what was found, how far to trust it, and how the tables were read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from shapeloss.review.compare_ranking import MetricRanking, ranking_lines
from shapeloss.review.score_names import unit
from shapeloss.review.score_tables import ScoreTable
from shapeloss.stats.paired_tests import EXACT_LIMIT
from shapeloss.stats.seeds import VarianceParts, training_noise, variance_parts
from shapeloss.stats.subgroups import LEAST_CASES
from shapeloss.stats.tables import format_p

LEAST_FOR_INTERVAL = 6
"""Cases below which even equal signs leave p above 0.05, and the 95 % Hodges–Lehmann interval is infinite."""
FEW_FOR_BOOTSTRAP = 20
BOOTSTRAP_COVERS = {5: (0.801, 0.864), 10: (0.867, 0.920), 20: (0.895, 0.931)}
"""n → least and largest share of simulated bootstrap intervals that covered: reproduce/benchmarks/error_rates.md."""


@dataclass(frozen=True)
class Comparison:
    """All that a page shows."""

    scores: ScoreTable
    tests: pd.DataFrame
    """From `compare_losses`, and `p_equivalence` if there is a margin."""
    headings: Mapping[str, str]
    suffixes: Mapping[str, str]
    """Metric → how the names of its figures end."""
    directions: Mapping[str, str]
    reference: str
    margin: float | None
    rankings: Mapping[str, MetricRanking | str]
    subgroups: pd.DataFrame | None
    """From `compare_subgroups`."""


def comparison_page(found: Comparison, table: str) -> str:
    """Markdown. `table` is the table of means, as Markdown."""
    lines = [f"# {found.reference} against {', '.join(found.tests['loss'].unique())}", "", table.strip(), ""]
    warnings = list(_warnings(found))
    lines += ["## Warnings", "", *[f"- {warning}" for warning in warnings], ""] if warnings else []
    for metric, heading in found.headings.items():
        direction = found.directions[metric]
        better = f", {direction} is better" if direction in ("higher", "lower") else ""
        lines += [f"## {heading}{axis_unit(metric)}{better}", "", *_difference_lines(found, metric)]
        lines += _variance_lines(found.scores.table, metric)
        lines += ranking_lines(found.rankings[metric], found.suffixes[metric]) if metric in found.rankings else []
        lines += _subgroup_lines(found, metric)
    lines += _method_lines(found)
    scores = found.scores
    lines += ["", "## How the tables were read", "", *[f"- {line}" for line in (*scores.understood, *scores.notes)]]
    if scores.problems:
        lines += ["", f"## {len(scores.problems)} problem(s)", "", *[f"- {problem}" for problem in scores.problems]]
    return "\n".join(lines) + "\n"


def axis_unit(metric: str) -> str:
    """The unit in brackets, if there is one."""
    return "" if unit(metric) == "1" else f" ({unit(metric)})"


def _signed(value: float, sign: str = "+") -> str:
    return "–" if np.isnan(value) else f"{value:{sign}.4g}"


def _interval(low: float, high: float) -> str:
    return f"{low:+.4g} to {high:+.4g}" if np.isfinite([low, high]).all() else "–"


def _difference_lines(found: Comparison, metric: str) -> list[str]:
    extra = ["p (equivalence)"] if found.margin is not None else []
    header = ["against", "difference", "95 % interval", "p", "p (Holm)", *extra, "n", "smallest detectable", "note"]
    lines = [f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    for row in found.tests[found.tests["metric"] == metric].to_dict("records"):
        cells = [row["loss"], _signed(row["hodges_lehmann"]), _interval(row["hl_low"], row["hl_high"])]
        cells += [format_p(row["p_wilcoxon"]), format_p(row["p_holm"])]
        cells += [format_p(row["p_equivalence"])] if extra else []
        cells += [str(row["n"]), _signed(row["detectable"], ""), row["note"]]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _warnings(found: Comparison) -> Iterator[str]:
    """What the number of cases and the luck of trainings leave open."""
    least = int(found.tests.loc[found.tests["n"] > 0, "n"].min())
    if least < LEAST_FOR_INTERVAL:
        yield (
            f"Fewer than {LEAST_FOR_INTERVAL} cases ({least}) cannot give a 95 % Hodges–Lehmann interval, which would "
            "reach from −∞ to +∞: none is shown. Score more cases."
        )
    if least < FEW_FOR_BOOTSTRAP:
        covers = ", ".join(f"{low:.3f} to {high:.3f} at n = {n}" for n, (low, high) in BOOTSTRAP_COVERS.items())
        yield (
            "The bars in scores.png, and ci_low and ci_high in the CSV files, are 95 % bootstrap intervals, and with "
            f"fewer than {FEW_FOR_BOOTSTRAP} cases ({least}) too narrow: of simulated ones {covers} covered the truth "
            "(reproduce/benchmarks/error_rates.md)."
        )
    for row in found.tests.to_dict("records"):
        noise = training_noise(row["seed_sd_reference"], row["seed_sd_loss"])
        if abs(row["difference"]) < noise:  # NaN is not
            yield (
                f"{found.headings[row['metric']]}: the mean difference between {row['reference']} and {row['loss']} "
                f"({abs(row['difference']):.4g}) is smaller than what two trainings of one method differ by "
                f"({noise:.4g}, root mean square): other seeds could turn it round."
            )


def _variance_lines(table: pd.DataFrame, metric: str) -> list[str]:
    if "seed" not in table.columns or table["seed"].nunique() < 2:
        return []
    parts = variance_parts(table, metric)
    if not isinstance(parts, VarianceParts):
        return [f"Parts of the variance: not computed, {parts}.", ""]
    shares = {
        "case": parts.case, "method × case": parts.method_case, "method × seed (training)": parts.training,
        "the rest (training × case)": parts.residual,
    }  # fmt: skip
    total = sum(shares.values())
    if total == 0:
        return []
    text = ", ".join(f"{name} {100 * share / total:.0f} %" for name, share in shares.items())
    return [
        f"Variance within the methods: {text}. Components of a balanced analysis of variance of {parts.n} cases, "
        f"{parts.methods} methods and {parts.seeds} seeds each, a negative one as 0.", "",
    ]  # fmt: skip


def _subgroup_lines(found: Comparison, metric: str) -> list[str]:
    if found.subgroups is None:
        return []
    column = found.scores.subgroup
    header = [column, "against", "n", f"mean of {found.reference}", "mean of the other", "difference", "95 % interval"]
    lines = [f"### By {column}", "", f"| {' | '.join([*header, 'p (Holm)'])} |", "|" + " --- |" * (len(header) + 1)]
    for row in found.subgroups[found.subgroups["metric"] == metric].to_dict("records"):
        cells = [row["group"], row["loss"], str(row["n"]), _signed(row["mean_reference"], "")]
        cells += [_signed(row["mean_loss"], ""), _signed(row["difference"]), _interval(row["low"], row["high"])]
        lines.append(f"| {' | '.join([*cells, format_p(row['p_holm'])])} |")
    return [
        *lines, "", f"Holm's correction is over all p of this table; fewer than {LEAST_CASES} cases are not tested, "
        f"and fewer than {LEAST_FOR_INTERVAL} have no 95 % interval. A difference in one group and none in another "
        "does not show that the groups differ.", "",
    ]  # fmt: skip


def _method_lines(found: Comparison) -> list[str]:
    lines = [
        f"Differences are {found.reference} − other: Hodges–Lehmann estimates, with the interval that inverts the",
        "exact two-sided Wilcoxon signed-rank test, of differences without ties, over the cases (seeds averaged",
        "first). Holm's correction is over the rows of a table; the intervals are not corrected. Smallest detectable:",
        "the true difference that so many cases with this spread would show with a power of 80 %. A large p is no",
        "proof of equality.",
    ]  # fmt: skip
    if found.tests["n"].max() > EXACT_LIMIT:
        lines[-1] += f" Beyond {EXACT_LIMIT} pairs the test is its normal approximation."
    if found.margin is not None:
        lines[-1] += f" Equivalence: two one-sided Wilcoxon tests with margin {found.margin:g}."
    return lines
