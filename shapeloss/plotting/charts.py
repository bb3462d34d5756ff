"""Figures of tables: learning curves, scores per case, intervals. `plots.py` offers them with all others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, NullLocator

from shapeloss.plotting.style import GREY, INK, PALE, canvas, loss_color, loss_name, require_columns, styled
from shapeloss.stats.compare_losses import case_means
from shapeloss.stats.headings import PAPER_METRICS
from shapeloss.stats.paired_tests import bootstrap_mean

_MOST_DRAWN = 500
"""Cases of which each is drawn."""


@styled
def figure_scores(per_case: pd.DataFrame, metrics: Mapping[str, str] = PAPER_METRICS) -> Figure:
    """Each test case's score under each loss, joined by lines: losses are compared within cases.

    Args:
        per_case: columns case, loss, seed (where there are several) and those of `metrics`, one row each; a case is
            the mean of its seeds. A score that is not finite is left out, and the number of cases left is shown. Of
            more than 500 cases, 500 drawn at random are shown; means and intervals are of all.
        metrics: column → heading, one panel each.

    Raises:
        ValueError: for a table without rows, without one of the columns, or with a row twice.
    """
    require_columns("per_case", per_case, ("case", "loss", *metrics))
    means = case_means(per_case, list(metrics))
    losses = [str(loss) for loss in per_case["loss"].unique()]
    figure = canvas(None, max(1.35 * len(losses), 4) * len(metrics) + 0.6, 5)
    grid = figure.subplots(1, len(metrics), squeeze=False).ravel()
    halo = [withStroke(linewidth=3, foreground="white")]
    for axes, (metric, heading) in zip(grid, metrics.items(), strict=True):
        wide = means[metric].unstack("loss")[losses]
        drawn = wide.sample(_MOST_DRAWN, random_state=0) if len(wide) > _MOST_DRAWN else wide
        axes.plot(range(len(losses)), drawn.T.to_numpy(), color=PALE, linewidth=1, zorder=1)
        for x, loss in enumerate(losses):
            scores, color = wide[loss].dropna().to_numpy(), loss_color(loss)
            dots = drawn[loss].dropna().to_numpy()
            axes.plot(np.full(len(dots), x), dots, "o", color=color, markersize=5, alpha=0.55, markeredgewidth=0)
            if len(scores):
                mean, low, high = bootstrap_mean(scores)
                axes.plot([x + 0.22] * 2, [low, high], color=color, linewidth=3, solid_capstyle="butt")
                axes.plot(x + 0.22, mean, "D", color=color, markersize=7, markeredgecolor="white")
                place = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
                axes.annotate(f"{mean:.3f}", (x + 0.22, mean), fontsize=9, path_effects=halo, **place)
            if len(scores) < len(wide):
                where = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}
                axes.annotate(f"{len(scores)} of {len(wide)} cases", (x, 0.01), fontsize=9, color=GREY, **where)
        axes.set_title(heading)
        axes.set_xticks(range(len(losses)), [loss_name(loss).replace(" ", "\n", 1) for loss in losses], fontsize=9.5)
        axes.tick_params(axis="x", length=0)
        axes.set_xlim(-0.4, len(losses) - 0.3)
        axes.grid(axis="y", color=PALE, linewidth=0.6)
    cases = per_case["case"].nunique()
    shown = f"{_MOST_DRAWN} of {cases} test cases, drawn at random" if cases > _MOST_DRAWN else f"{cases} test cases"
    whose = "the mean of all and its 95 %" if cases > _MOST_DRAWN else "their mean and its 95 % bootstrap"
    text = f"Dots: {shown}, joined across losses. Diamond and bar: {whose} interval."
    figure.supxlabel(text, fontsize=10, color=GREY)
    return figure


@styled
def figure_intervals(differences: pd.DataFrame, label: str = "difference", title: str = "") -> Figure:
    """Paired differences with their intervals, before the band within which they count as none.

    Args:
        differences: one row each: comparison (text), estimate, low, high, and margin_low and margin_high, the ends of
            the band, NaN for an open end or for no band. A row whose estimate is NaN was not tested.
        label: of the axis, with its unit.
        title: above.

    Raises:
        ValueError: for a table without rows or without one of the columns.
    """
    require_columns("differences", differences, ("comparison", *_INTERVAL))
    figure = canvas(None, 9, 1.4 + 0.5 * len(differences))
    draw_intervals(figure.subplots(), differences, label, title)
    return figure


_INTERVAL = ["estimate", "low", "high", "margin_low", "margin_high"]


def draw_intervals(axes: Axes, differences: pd.DataFrame, label: str, title: str) -> None:
    values = differences[_INTERVAL].to_numpy(dtype=float)
    finite = values[np.isfinite(values)]
    reach = 1.1 * np.abs(finite).max(initial=1e-9)  # zero in view, and room beyond the widest interval
    for y, (estimate, low, high, *band) in enumerate(values):
        if np.isfinite(band).any():
            ends = np.where(np.isfinite(band), band, (-reach, reach))
            axes.fill_betweenx([y - 0.5, y + 0.5], *ends, color=PALE, alpha=0.5, linewidth=0, zorder=0)
        text = "not tested"
        if np.isfinite(estimate):
            axes.plot(np.clip([low, high], -reach, reach), [y, y], color=INK, linewidth=2, solid_capstyle="butt")
            axes.plot(estimate, y, "o", color=INK, markersize=7, markeredgecolor="white")
            text = f"{estimate:+.3f}  [{low:+.3f}, {high:+.3f}]".replace("-", "−")
        axes.annotate(text, (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=10)
    axes.axvline(0, color=GREY, linewidth=1, zorder=1)
    axes.set_yticks(range(len(differences)), differences["comparison"])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5, symmetric=True) if finite.size else NullLocator())
    note = "   (grey: margins)" if np.isfinite(values[:, 3:]).any() else ""
    axes.set(ylim=(len(differences) - 0.4, -0.6), xlim=(-reach, reach), xlabel=label + note, title=title)
