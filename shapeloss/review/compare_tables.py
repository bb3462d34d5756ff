"""Per-case scores from any source → paired comparisons with pictures: what `shapeloss compare` does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from shapeloss._files import atomic, write_text
from shapeloss.metrics import METRICS
from shapeloss.plotting.charts import figure_intervals, figure_scores
from shapeloss.plotting.style import save_figure
from shapeloss.review.score_tables import ScoreTable, listed
from shapeloss.stats.compare_losses import case_means, compare_losses, paired_scores
from shapeloss.stats.headings import PAPER_METRICS
from shapeloss.stats.paired_tests import EXACT_LIMIT, equivalence, holm
from shapeloss.stats.tables import format_p, summary_table, write_table


def compare_scores(
    scores: ScoreTable, output: str | Path, reference: str | None = None, margin: float | None = None
) -> str:
    """Test every method against one, and write the table, the tests and two figures per metric.

    Files: `comparison.md`, `table.csv/.md/.tex`, `tests.csv`, `scores.png/.pdf` (pairs) and `differences.png/.pdf`
    (intervals).

    Args:
        scores: from :func:`read_scores`.
        output: folder.
        reference: the method that the others are compared with; default the first.
        margin: in the unit of the metric: below it, a difference does not matter. Adds tests of equivalence.

    Returns:
        `comparison.md`.

    Raises:
        ValueError: no such reference, no case with two scores, or a margin that is not positive.
    """
    if margin is not None and not (np.isfinite(margin) and margin > 0):
        raise ValueError(f"margin must be positive, in the unit of the metric; got {margin}")
    table, folder = scores.table, Path(output)
    methods = table["loss"].unique().tolist()
    reference = methods[0] if reference is None else reference
    if reference not in methods:
        raise ValueError(f"no method {reference!r}; there are {', '.join(methods)}")
    headings = {metric: PAPER_METRICS.get(metric, metric) for metric in scores.metrics}
    tests = compare_losses(table, reference, scores.metrics)
    if margin is not None:
        tests = tests.assign(margin=margin, p_equivalence=_equivalence(table, tests, margin))
    if not tests["n"].any():
        raise ValueError(f"no case has a score of {reference} and of another method" + listed(scores.problems))
    note = f"Tables: {len(methods)} methods, {table['case'].nunique()} cases."
    summary = summary_table(table, reference=reference, metrics=scores.metrics, tests=tests)
    write_table(summary, folder / "table", note, headings)
    with atomic(folder / "tests.csv") as temporary:
        tests.to_csv(temporary, index=False)
    save_figure(figure_scores(table, headings), folder / "scores")
    for metric, heading in headings.items():
        rows = tests[tests["metric"] == metric]
        label = f"{heading}: {reference} − other" + _unit(metric)
        suffix = "" if len(headings) == 1 else f"_{re.sub(r'[^A-Za-z0-9.]+', '_', metric)}"
        save_figure(figure_intervals(_intervals(rows, margin), label), folder / f"differences{suffix}")
    page = _page(scores, tests, headings, reference, margin, (folder / "table.md").read_text(encoding="utf-8"))
    write_text(folder / "comparison.md", page)
    return page


def _equivalence(table: pd.DataFrame, tests: pd.DataFrame, margin: float) -> np.ndarray:
    """Holm-corrected p of two one-sided Wilcoxon tests, for each row of `tests`."""
    p = np.full(len(tests), np.nan)
    means = case_means(table, list(dict.fromkeys(tests["metric"])))
    for index, row in enumerate(tests.to_dict("records")):
        pair, _ = paired_scores(means[row["metric"]], row["reference"], row["loss"])
        if len(pair) > 1:
            p[index] = equivalence((pair["reference"] - pair["other"]).to_numpy(), margin, test="wilcoxon").p
    for metric in tests["metric"].unique():
        rows = (tests["metric"] == metric).to_numpy()
        p[rows] = holm(p[rows])
    return p


def _intervals(tests: pd.DataFrame, margin: float | None) -> pd.DataFrame:
    """What :func:`figure_intervals` draws: Hodges–Lehmann estimates with the interval that inverts the test."""
    ends = (np.nan, np.nan) if margin is None else (-margin, margin)
    return pd.DataFrame({
        "comparison": "against " + tests["loss"], "estimate": tests["hodges_lehmann"], "low": tests["hl_low"],
        "high": tests["hl_high"], "margin_low": ends[0], "margin_high": ends[1],
    })  # fmt: skip


def _unit(metric: str) -> str:
    unit = METRICS[metric].unit if metric in METRICS else "1"
    return "" if unit == "1" else f" ({unit})"


def _signed(value: float, sign: str = "+") -> str:
    return "–" if np.isnan(value) else f"{value:{sign}.4g}"


def _page(
    scores: ScoreTable,
    tests: pd.DataFrame,
    headings: Mapping[str, str],
    reference: str,
    margin: float | None,
    table: str,
) -> str:
    lines = [f"# {reference} against {', '.join(tests['loss'].unique())}", "", table.strip(), ""]
    for metric, heading in headings.items():
        direction = METRICS[metric].direction if metric in METRICS else ""
        better = {"higher": ", higher is better", "lower": ", lower is better"}.get(direction, "")
        extra = ["p (equivalence)"] if margin is not None else []
        header = ["against", "difference", "95 % interval", "p", "p (Holm)", *extra, "n", "smallest detectable", "note"]
        lines += [f"## {heading}{_unit(metric)}{better}", "", f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
        for row in tests[tests["metric"] == metric].to_dict("records"):
            interval = f"{row['hl_low']:+.4g} to {row['hl_high']:+.4g}" if row["n"] else "–"
            cells = [row["loss"], _signed(row["hodges_lehmann"]), interval, format_p(row["p_wilcoxon"])]
            cells += [format_p(row["p_holm"])] + ([format_p(row["p_equivalence"])] if extra else [])
            cells += [str(row["n"]), _signed(row["detectable"], ""), row["note"]]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    lines += [
        f"Differences are {reference} − other: Hodges–Lehmann estimates, with the interval that inverts the exact",
        "two-sided Wilcoxon signed-rank test, of differences without ties, over the cases (seeds averaged first).",
        "Holm's correction is over the rows of a table; the intervals are not corrected. Smallest detectable: the true",
        "difference that so many cases with this spread would show with a power of 80 %. A large p is no proof of",
        "equality.",
    ]  # fmt: skip
    if tests["n"].max() > EXACT_LIMIT:
        lines[-1] += f" Beyond {EXACT_LIMIT} pairs the test is its normal approximation."
    if margin is not None:
        lines[-1] += f" Equivalence: two one-sided Wilcoxon tests with margin {margin:g}."
    if scores.notes:
        lines += ["", "## How the tables were read", "", *[f"- {note}" for note in scores.notes]]
    if scores.problems:
        lines += ["", f"## {len(scores.problems)} problem(s)", "", *[f"- {problem}" for problem in scores.problems]]
    return "\n".join(lines) + "\n"
