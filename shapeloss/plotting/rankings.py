"""Figures of many methods: which pairs differ, and their mean ranks with a critical difference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from shapeloss.plotting.style import GREY, INK, canvas, loss_name, require_columns, styled
from shapeloss.stats.ranking import CriticalDifference, Direction
from shapeloss.stats.tables import format_p

_BETTER, _WORSE, _SAME = "#8FC1E3", "#F2B27E", "#EEEEEE"


def _names(methods: Sequence[str]) -> list[str]:
    """The methods' names in figures; as they are called where two would be the same."""
    names = [loss_name(method) for method in methods]
    return names if len(set(names)) == len(names) else list(methods)


@styled
def figure_significance(
    pairs: pd.DataFrame, methods: Sequence[str], better: Direction, title: str = "", alpha: float = 0.05
) -> Figure:
    """A square of all pairs of methods: is the row's method better or worse than the column's, and with which p?

    Args:
        pairs: from `compare_pairs`: columns first, second, sign, p_holm.
        methods: k ≥ 2 names, in the order of rows and columns.
        better: which direction of the score is.
        title: above.
        alpha: p (Holm) below it is a difference.

    Raises:
        ValueError: for a table without rows or without one of the columns.
    """
    require_columns("pairs", pairs, ("first", "second", "sign", "p_holm"))
    k = len(methods)
    cell = 0.78 if k <= 8 else 0.56
    names = _names(methods)
    longest = 0.09 * max(map(len, names)) + 0.2  # inches
    width = max(cell * k + longest + max(0.6, 0.85 * longest - cell), 4.6)
    figure = canvas(None, width, cell * k + 0.6 * longest + 1.5)
    axes = figure.subplots()
    place = {method: i for i, method in enumerate(methods)}
    for row in pairs.to_dict("records"):
        i, j = place[row["first"]], place[row["second"]]
        differs = row["p_holm"] < alpha  # NaN does not
        first_better = (row["sign"] > 0) == (better == "higher")
        for y, x, wins in ((i, j, first_better), (j, i, not first_better)):
            color = (_BETTER if wins else _WORSE) if differs else _SAME
            axes.fill_between([x - 0.5, x + 0.5], y - 0.5, y + 0.5, color=color, linewidth=0)
            text = {"ha": "center", "va": "center", "fontsize": 9.5 if k <= 8 else 7.5}
            axes.text(x, y, format_p(row["p_holm"]), color=INK if differs else GREY, **text)
    axes.set_xticks(range(k), names, rotation=35, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(k), names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5), aspect="equal")
    axes.set_xticks(np.arange(0.5, k - 1), minor=True)
    axes.set_yticks(np.arange(0.5, k - 1), minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)
    axes.set_axisbelow(False)
    axes.spines[:].set_visible(False)
    figure.suptitle(title, fontsize=12, fontweight="bold", x=0.02, ha="left")
    parts = [(_BETTER, "better"), (_WORSE, "worse"), (_SAME, "not shown to differ")]
    figure.legend(
        handles=[Patch(color=color, label=f"row {text}" if color != _SAME else text) for color, text in parts],
        loc="outside lower center", ncols=3, fontsize=10, handlelength=1.2,
        title="p of Wilcoxon's test, Holm over all pairs", title_fontsize=10,
    )  # fmt: skip
    return figure


@styled
def figure_critical_difference(found: CriticalDifference, title: str = "") -> Figure:
    """The mean ranks of methods on a line; bars join those that lie within the critical difference (Demšar 2006).

    Args:
        found: from `critical_difference`.
        title: above.
    """
    ranks, k = found.mean_ranks, len(found.methods)
    left = (k + 1) // 2
    bars = 0.3 + 0.2 * len(found.groups)
    depth = bars + 0.4 * left
    figure = canvas(None, 9, 1.5 + 0.62 * depth)
    axes = figure.subplots()
    edge = 0.08 * (k - 1)
    for i, (name, rank) in enumerate(zip(_names(found.methods), ranks, strict=True)):
        on_left = i < left
        y = -bars - 0.4 * (i if on_left else k - 1 - i)
        end = 1 - edge if on_left else k + edge
        axes.plot([rank, rank, end], [0, y, y], color=GREY, linewidth=1, solid_joinstyle="round")
        axes.plot(rank, 0, "o", color=INK, markersize=5, zorder=4, clip_on=False)
        text = f"{name}  {rank:.2f}" if on_left else f"{rank:.2f}  {name}"
        offset = {"xytext": (-5 if on_left else 5, 0), "textcoords": "offset points"}
        axes.annotate(text, (end, y), ha="right" if on_left else "left", va="center", fontsize=10.5, **offset)
    for level, (first, last) in enumerate(found.groups):
        ends = [ranks[first] - 0.012 * (k - 1), ranks[last] + 0.012 * (k - 1)]
        axes.plot(ends, [-0.2 - 0.2 * level] * 2, color=INK, linewidth=4.5, solid_capstyle="round", zorder=3)
    axes.plot([1, k], [0, 0], color=INK, linewidth=1.2)
    for tick in range(1, k + 1):
        axes.plot([tick, tick], [0, 0.09], color=INK, linewidth=1.2)
        axes.text(tick, 0.15, str(tick), ha="center", va="bottom", fontsize=10, color=GREY)
    reach = 1 + found.difference
    axes.plot([1, reach], [0.75, 0.75], color=INK, linewidth=1.5)
    axes.plot([1, 1, np.nan, reach, reach], [0.68, 0.82, np.nan, 0.68, 0.82], color=INK, linewidth=1.5)
    shown = f"critical difference {found.difference:.2f}"
    axes.text((1 + reach) / 2, 0.86, shown, ha="center", va="bottom", fontsize=10)
    axes.set(xlim=(1 - edge, max(k + edge, reach)), ylim=(-depth, 1.2))
    axes.set_axis_off()
    axes.set_title(title)
    friedman = f"p {format_p(found.p)}" if found.p < 0.001 else f"p = {format_p(found.p)}"
    figure.supxlabel(
        f"Mean rank over {found.n} cases, 1 is best. Bars join methods not shown to differ (Nemenyi, 0.05). "
        f"Friedman: {friedman}.",
        fontsize=10, color=GREY,
    )  # fmt: skip
    return figure
