"""A panel for each claim."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from shapeloss.plotting.charts import draw_intervals
from shapeloss.plotting.style import canvas, loss_name, require_columns, styled
from shapeloss.replication.paper import Paper
from shapeloss.stats.headings import PAPER_METRICS


@styled
def figure_claims(paper: Paper, findings: pd.DataFrame) -> Figure:
    """A panel for each claim of a paper: the effect of each comparison, its interval, the margin, and the verdict.

    Args:
        paper: from `shapeloss.replication.paper.read_paper`.
        findings: from `shapeloss.replication.claims.findings_table`.
    """
    require_columns("findings", findings, ("claim", "loss", "verdict", "effect", "low", "high"))
    rows = [len(claim.against) for claim in paper.claims]
    figure = canvas(None, 10, sum(1.4 + 0.5 * count for count in rows))
    panels = figure.subplots(len(rows), 1, height_ratios=[1.2 + count for count in rows], squeeze=False)[:, 0]
    for axes, claim in zip(panels, paper.claims, strict=True):
        found = findings[findings["claim"] == claim.id]
        low = -claim.margin if claim.margin else np.nan
        high = claim.margin if claim.margin and claim.test == "equivalence" else np.nan
        table = pd.DataFrame({
            "comparison": [f"{loss_name(loss)}\n{verdict}" for loss, verdict in found[["loss", "verdict"]].to_numpy()],
            "estimate": found["effect"], "low": found["low"], "high": found["high"], "margin_low": low,
            "margin_high": high,
        })  # fmt: skip
        unit = (
            "surface error, mm"
            if claim.statistic == "surface_error"
            else PAPER_METRICS.get(claim.statistic, claim.statistic)
        )
        draw_intervals(axes, table, f"{unit}: advantage of {loss_name(claim.reference)}", claim.title)
    return figure
