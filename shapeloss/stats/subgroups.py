"""Differences between methods within subgroups of the cases, such as sex or grade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from shapeloss.stats.compare_losses import case_means, paired_scores
from shapeloss.stats.paired_tests import differences, hodges_lehmann, holm, signed_rank_test

LEAST_CASES = 5
"""Smaller subgroups are listed without test."""


def compare_subgroups(
    per_case: pd.DataFrame, groups: Mapping[str, str], reference: str, metrics: Sequence[str]
) -> pd.DataFrame:
    """Compare a method with every other one within each subgroup.

    Args:
        per_case: as for `case_means`.
        groups: case → its subgroup; a case without one is left out.
        reference: the method that the others are compared with.
        metrics: score columns.

    Returns:
        One row per metric, group and other method: `n` cases that both have, `mean_reference`, `mean_loss`,
        `difference` (Hodges–Lehmann, reference − loss) with its 95 % limits `low` and `high`, infinite below 6 cases,
        `p` (exact two-sided Wilcoxon, none below `LEAST_CASES`), and `p_holm`: over all rows of a metric with a p.
    """
    means = case_means(per_case, list(metrics))
    others = [loss for loss in per_case["loss"].unique() if loss != reference]
    rows = []
    for metric in metrics:
        for group in sorted(set(groups.values()), key=_order):
            for loss in others:
                pair, _ = paired_scores(means[metric], reference, loss)
                pair = pair[pair.index.map(groups.get) == group]
                d = differences(pair["reference"], pair["other"])
                shift = hodges_lehmann(d)
                rows.append({
                    "metric": metric, "group": group, "reference": reference, "loss": loss, "n": len(d),
                    "mean_reference": pair["reference"].mean(), "mean_loss": pair["other"].mean(),
                    "difference": shift.value, "low": shift.low, "high": shift.high,
                    "p": signed_rank_test(d).p if len(d) >= LEAST_CASES else np.nan,
                })  # fmt: skip
    table = pd.DataFrame(rows)
    return table.assign(p_holm=table.groupby("metric")["p"].transform(lambda p: holm(p.to_numpy())))


def _order(group: str) -> tuple[int, float, str]:
    """Numbers by size, before words."""
    try:
        return 0, float(group), group
    except ValueError:
        return 1, 0.0, group
