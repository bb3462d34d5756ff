"""Per-case scores from any source → paired comparisons with pictures: what `shapeloss compare` does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from shapeloss._files import atomic, write_text
from shapeloss.plotting.charts import figure_intervals, figure_scores
from shapeloss.plotting.style import save_figure
from shapeloss.review.compare_page import Comparison, axis_unit, comparison_page
from shapeloss.review.compare_ranking import rank_by_metrics, write_rankings
from shapeloss.review.score_names import directions
from shapeloss.review.score_tables import ScoreTable, listed
from shapeloss.stats.compare_losses import case_means, compare_losses, paired_scores
from shapeloss.stats.headings import PAPER_METRICS
from shapeloss.stats.paired_tests import equivalence, holm
from shapeloss.stats.subgroups import compare_subgroups
from shapeloss.stats.tables import summary_table, write_table


def compare_scores(
    scores: ScoreTable,
    output: str | Path,
    reference: str | None = None,
    margin: float | None = None,
    higher: Sequence[str] = (),
    lower: Sequence[str] = (),
) -> str:
    """Test every method against one, rank three or more, and write the table, the tests and the figures.

    Files: `comparison.md`, `table.csv/.md/.tex`, `tests.csv`, `scores.png/.pdf` (pairs) and `differences.png/.pdf`
    (intervals). Of three methods or more also `ranking.csv`, `pairs.csv`, `significance.png/.pdf` (which pairs differ)
    and `critical_difference.png/.pdf` (mean ranks); with subgroups `subgroups.csv`.

    Args:
        scores: from :func:`read_scores`.
        output: folder.
        reference: the method that the others are compared with; default the first.
        margin: in the unit of the metric: below it, a difference does not matter. Adds tests of equivalence.
        higher: scores of which more is better, for those that are not known by their name.
        lower: scores of which less is better.

    Returns:
        `comparison.md`.

    Raises:
        ValueError: no such reference or score, no case with two scores, or a margin that is not positive.
    """
    if margin is not None and not (np.isfinite(margin) and margin > 0):
        raise ValueError(f"margin must be positive, in the unit of the metric; got {margin}")
    table, folder = scores.table, Path(output)
    methods = table["loss"].unique().tolist()
    reference = methods[0] if reference is None else reference
    if reference not in methods:
        raise ValueError(f"no method {reference!r}; there are {', '.join(methods)}")
    better = directions(scores.metrics, higher, lower)
    headings = {metric: PAPER_METRICS.get(metric, metric) for metric in scores.metrics}
    tests = compare_losses(table, reference, scores.metrics)
    if margin is not None:
        tests = tests.assign(margin=margin, p_equivalence=_equivalence(table, tests, margin))
    if not tests["n"].any():
        raise ValueError(f"no case has a score of {reference} and of another method" + listed(scores.problems))
    note = f"Tables: {len(methods)} methods, {table['case'].nunique()} cases."
    summary = summary_table(table, reference=reference, metrics=scores.metrics, tests=tests)
    write_table(summary, folder / "table", note, headings)
    subgroups = compare_subgroups(table, scores.groups, reference, scores.metrics) if scores.groups else None
    for name, rows in (("tests", tests), *([("subgroups", subgroups)] if subgroups is not None else [])):
        with atomic(folder / f"{name}.csv") as temporary:
            rows.to_csv(temporary, index=False, lineterminator="\n")
    save_figure(figure_scores(table, headings), folder / "scores")
    one = len(headings) == 1
    suffixes = {metric: "" if one else f"_{re.sub(r'[^A-Za-z0-9.]+', '_', metric)}" for metric in headings}
    for metric, heading in headings.items():
        label = f"{heading}: {reference} − other" + axis_unit(metric)
        intervals = _intervals(tests[tests["metric"] == metric], margin)
        save_figure(figure_intervals(intervals, label), folder / f"differences{suffixes[metric]}")
    rankings = rank_by_metrics(table, better)
    write_rankings(rankings, folder, headings, suffixes)
    found = Comparison(scores, tests, headings, suffixes, better, reference, margin, rankings, subgroups)
    page = comparison_page(found, (folder / "table.md").read_text(encoding="utf-8"))
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
