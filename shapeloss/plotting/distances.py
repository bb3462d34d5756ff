"""Distances that a network regresses, beside the true ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from shapeloss.plotting.slices import _Slice
from shapeloss.plotting.style import GREY, INK, PALE, canvas, color_bar, loss_color, loss_name, require_columns, styled


@styled
def figure_regressed_distances(
    image: NDArray[Any],
    labels: NDArray[Any],
    truth: NDArray[Any],
    regressed: Mapping[str, NDArray[Any]],
    spacing: Sequence[float],
    reach_mm: float,
    name: str = "",
) -> Figure:
    """One slice: the image, the true signed distance to the nearest structure, and what each row regresses.

    Args:
        image, labels: (X, Y, Z).
        truth: (X, Y, Z) mm, negative inside a structure.
        regressed: row of the table → the same.
        spacing: mm along X, Y, Z.
        reach_mm: the largest distance that was regressed; the ends of the colour scale.
        name: of the case and the training, for the line below.
    """
    cut = _Slice(labels, spacing, None, None)
    panels = {"truth": np.clip(truth, -reach_mm, reach_mm), **regressed}
    height = 3.2 * cut.height / cut.width
    figure = canvas(None, 3.2 * (1 + len(panels)) + 0.8, height + 0.9)
    first, *others = figure.subplots(1, 1 + len(panels))
    cut.grey(first, image)
    cut.outlines(first, cut.labels, "white", 1.2)
    cut.directions(first)
    first.set_title("image and truth", fontsize=11)
    for axes, (row, values) in zip(others, panels.items(), strict=True):
        plane = cut.of(values)
        shown = cut.show(axes, plane, cmap="RdBu", vmin=-reach_mm, vmax=reach_mm, interpolation="bilinear")
        y, x = ((np.arange(n) + 0.5) * step for n, step in zip(plane.shape, cut.pixel_size, strict=True))
        axes.contour(x, y, plane, levels=[-reach_mm / 2, 0, reach_mm / 2], colors=INK, linewidths=[0.5, 1.5, 0.5])
        title = "true distance" if row == "truth" else f"regressed: {loss_name(row)}"
        axes.set_title(title, fontsize=11, color=INK if row == "truth" else loss_color(row))
    color_bar(figure, shown, others, "mm to the boundary, negative inside", shrink=0.8)
    note = f"{name + '. ' if name else ''}Lines: 0 and ± {reach_mm / 2:g} mm. {cut.name.capitalize()}."
    figure.supxlabel(note, fontsize=10, color=GREY)
    return figure


@styled
def figure_calibration(table: pd.DataFrame) -> Figure:
    """The true distance where so much is regressed: on the diagonal, if the estimate is calibrated.

    Args:
        table: loss, seed, case, bin, regressed and truth (mm), as `Heads.calibration` has them.
    """
    require_columns("table", table, ("loss", "seed", "case", "bin", "regressed", "truth"))
    figure = canvas(None, 6.4, 5.8)
    axes = figure.subplots()
    ends = [table["regressed"].min(), table["regressed"].max()]
    axes.plot(ends, ends, color=GREY, linewidth=1, linestyle="--", label="calibrated")
    for (name, rows), marker in zip(table.groupby("loss", sort=False), "osD^v", strict=False):
        groups, color = rows.groupby("bin"), loss_color(str(name))
        x, y = groups["regressed"].mean(), groups["truth"].mean()
        low, high = groups["truth"].quantile(0.1), groups["truth"].quantile(0.9)
        axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
        axes.plot(x, y, marker=marker, color=color, markersize=4, label=loss_name(str(name)))
    axes.set(xlabel="regressed distance, mm", ylabel="true distance, mm", aspect="equal")
    axes.grid(color=PALE, linewidth=0.6)
    axes.legend(loc="upper left")
    cases, seeds = table["case"].nunique(), table["seed"].nunique()
    note = f"Line: mean over {cases} test volumes and {seeds} trainings a row. Band: 10th to 90th percentile of them."
    figure.supxlabel(fill(f"{note} Negative inside a structure.", 70), fontsize=10, color=GREY)
    return figure
