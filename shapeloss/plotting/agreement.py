"""Figures of agreement (Bland & Altman), and of a value on a surface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
import pandas as pd
import pyvista as pv
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from shapeloss.metrics.agreement import LIMITS_FROM, bland_altman
from shapeloss.metrics.biomarkers import KNEE, biomarker_unit
from shapeloss.plotting.render import render_surfaces
from shapeloss.plotting.style import GREY, INK, canvas, color_bar, loss_color, loss_name, require_columns, styled


@styled
def figure_agreement(rows: pd.DataFrame, biomarkers: Sequence[tuple[str, str]]) -> Figure:
    """Bland–Altman panels: a row for each biomarker, a column for each loss, one scale along a row.

    Args:
        rows: columns case, loss, structure, biomarker, truth and prediction, and seed where there are several: a case
            is the mean of its seeds. Cases without a finite value on both sides are not drawn; the panel says how many
            are. With fewer than :data:`LIMITS_FROM` no limits are drawn.
        biomarkers: (structure, biomarker) pairs to show, in this order.

    Raises:
        ValueError: for a table without rows or columns, or no biomarker of it.
    """
    require_columns("rows", rows, ("case", "loss", "structure", "biomarker", "truth", "prediction"))
    there = set(zip(rows["structure"], rows["biomarker"], strict=True))
    shown = [pair for pair in biomarkers if pair in there]
    if not shown:
        raise ValueError(f"rows have none of the biomarkers {list(biomarkers)}; give others")
    losses = list(dict.fromkeys(rows["loss"]))
    figure = canvas(None, 2.3 * len(losses) + 0.9, 1.75 * len(shown) + 1.2)
    grid = figure.subplots(len(shown), len(losses), squeeze=False, sharex="row", sharey="row")
    for (structure, name), line in zip(shown, grid, strict=True):
        reach = 0.0
        for loss, axes in zip(losses, line, strict=True):
            part = rows[(rows["structure"] == structure) & (rows["biomarker"] == name) & (rows["loss"] == loss)]
            drawn = _draw_agreement(axes, part, loss_color(loss), 3 if biomarker_unit(name) == "1" else 1)
            reach = max(reach, drawn)
            if axes in grid[0]:
                axes.set_title(loss_name(loss), color=loss_color(loss), loc="center", fontsize=11)
        unit = biomarker_unit(name)
        label = "" if structure == KNEE else f"{structure} "
        label += name.removesuffix("_mm").removesuffix("_deg").removesuffix("_cm3").replace("_", " ")
        line[0].set_ylabel(fill(label, 18) + ("" if unit == "1" else f"\n({unit})"), fontsize=10)
        line[0].set_ylim(-1.45 * reach or -1, 1.45 * reach or 1)  # room for the text above
    figure.supylabel("prediction − truth", fontsize=10, color=GREY)
    text = (
        "Mean of truth and prediction. Line: bias; dashed: limits of agreement, bias ± 1.96 SD, from "
        f"{LIMITS_FROM} cases on; bars at the right: their 95 % intervals; grey: no difference."
    )
    figure.supxlabel(fill(text, 30 * len(losses)), fontsize=10, color=GREY)
    return figure


def _draw_agreement(axes: Axes, part: pd.DataFrame, color: str, digits: int) -> float:
    """One panel; returns the largest size of a difference or a limit in it."""
    cases = part.groupby("case")[["truth", "prediction"]].mean()
    pairs = cases[np.isfinite(cases).all(axis=1)]
    difference = pairs["prediction"] - pairs["truth"]
    axes.axhline(0, color=GREY, linewidth=0.8, zorder=1)
    axes.plot(
        (pairs["prediction"] + pairs["truth"]) / 2,
        difference,
        "o",
        color=color,
        markersize=5,
        alpha=0.8,
        markeredgewidth=0,
    )
    found = bland_altman(difference)
    for limit, style, place in ((found.bias, "-", 0.95), (found.lower, "--", 0.98), (found.upper, "--", 0.98)):
        if np.isfinite(limit.low) and (limit is found.bias or found.n >= LIMITS_FROM):
            axes.axhline(limit.value, color=INK, linewidth=1.2, linestyle=style)
            across = axes.get_yaxis_transform()  # x as a share of the panel's width
            axes.vlines(place, limit.low, limit.high, color=color, linewidth=3.5, alpha=0.55, transform=across)
    text = "not measured" if not len(pairs) else f"{found.bias.value:+.{digits}f}"
    if found.n >= LIMITS_FROM:
        text += f" ± {1.96 * found.sd:.{digits}f}"
    if len(pairs) < len(cases) and len(pairs):
        text += f"   n = {len(pairs)} of {len(cases)}"
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
    axes.text(0.03, 0.96, text.replace("-", "−"), transform=axes.transAxes, va="top", fontsize=8.5, bbox=box, zorder=5)
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(labelsize=8.5)
    limits = [found.lower.value, found.upper.value] if found.n >= LIMITS_FROM else []
    sizes = np.abs([*difference, *limits])
    return float(sizes[np.isfinite(sizes)].max(initial=0.0))


@styled
def figure_surface_values(
    panels: Mapping[str, tuple[pv.PolyData, str]], limit: float, label: str, direction: Sequence[float], note: str = ""
) -> Figure:
    """Surfaces coloured by a value that has a sign, such as a curvature or a signed error, one panel each.

    Args:
        panels: title, or the key of a loss → triangles in world mm (RAS), and the name of their point array.
        limit: the ends of the colour scale are ± this.
        label: of the colour scale, with its unit.
        direction: from the structures to the viewer, in RAS.
        note: whose surfaces they are, below the panels.
    """
    figure = canvas(None, 3.1 * len(panels) + 1, 3.9)
    meshes = [mesh for mesh, _ in panels.values()]
    colors = Normalize(-limit, limit)
    scale = ScalarMappable(colors, "RdBu_r")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, (mesh, name)) in zip(grid, panels.items(), strict=True):
        shifted = pv.PolyData.from_regular_faces(mesh.points, mesh.regular_faces)
        shifted["value"] = np.clip(mesh[name], -limit, limit) + limit  # the renderer shows sizes: from 0 to twice
        picture, extent = render_surfaces([shifted], meshes, "value", (0, 2 * limit), scale.get_cmap(), direction)
        axes.imshow(picture, extent=extent, interpolation="bilinear")
        axes.set_title(loss_name(title), loc="center", fontsize=11)
        axes.set_axis_off()
    color_bar(figure, scale, list(grid), label, shrink=0.75, extend="both")
    if note:
        figure.supxlabel(note, fontsize=10, color=GREY)
    return figure
