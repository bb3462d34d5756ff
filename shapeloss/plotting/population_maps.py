"""Errors of all test cases on one common surface: the mean of each loss, and the differences between losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pyvista as pv
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from shapeloss.plotting.render import render_surfaces, view_plane
from shapeloss.plotting.slices import WIDTH
from shapeloss.plotting.style import (
    ERROR_MAP,
    GREY,
    INK,
    SIGNED_ERROR_MAP,
    canvas,
    color_bar,
    loss_color,
    loss_name,
    styled,
)
from shapeloss.plotting.surface_maps import _view_name, error_limit

_MARK = ListedColormap(["#0000FF", "#FF0000"])  # of a mask, told apart by hue whatever the light

Values = NDArray[np.floating]


@styled
def figure_population(
    meshes: Mapping[str, pv.PolyData],
    means: Mapping[str, Mapping[str, Values]],
    differences: Mapping[str, Mapping[str, tuple[Values, NDArray[np.bool_]]]],
    missed: Mapping[tuple[str, str], int],
    reference: str,
    cases: int,
    direction: Sequence[float],
    note: str = "",
) -> Figure:
    """Above, the mean absolute error of each loss on the common surfaces; below, the differences from one loss.

    Args:
        meshes: structure → common surface in world mm (RAS); a row each, all at one scale.
        means: structure → loss → (points,) mm; NaN is grey.
        differences: structure → loss → mean difference, (points,) mm, and where it can be told from zero.
        missed: (structure, loss) → in how many cases the prediction lacks the structure, which the means leave out.
        reference: the loss from which the differences are taken; it has no panel there.
        cases: how many.
        direction: from the structures to the viewer, in RAS.
        note: below the panels.

    Raises:
        ValueError: without any structure.
    """
    if not meshes:
        raise ValueError("meshes must hold at least one structure; every structure lacks in the truth of some case")
    losses = list(next(iter(means.values())))
    others = [loss for loss in losses if loss != reference]
    right, up = view_plane(direction)
    across = max(float(np.ptp(mesh.points @ right)) for mesh in meshes.values()) + 6
    heights = [float(np.ptp(mesh.points @ up)) + 6 for mesh in meshes.values()]
    inches = (WIDTH - 2.0) / max(len(losses), 5) / across  # per mm
    block = sum(heights) * inches + 0.75
    figure = canvas(None, WIDTH, (2 if others else 1) * block + 0.5)
    parts = figure.subfigures(2 if others else 1, 1, squeeze=False).ravel()
    every = [values for row in means.values() for values in row.values()]
    limit = error_limit(every, step=0.1)
    view = f"{_view_name(direction)} view"
    grid = _block(parts[0], f"Mean absolute surface error over {cases} test cases, {view}", meshes, heights, losses)
    for (name, loss), axes in grid.items():
        _draw(axes, meshes[name], means[name][loss], (0, limit), ERROR_MAP, direction, across)
        if missed[name, loss]:
            text = "missed" if missed[name, loss] == cases else f"missed in {missed[name, loss]} of {cases}"
            axes.text(0.5, 0.02, text, transform=axes.transAxes, ha="center", va="bottom", fontsize=9)
    scale = ScalarMappable(Normalize(0, limit), ERROR_MAP)
    color_bar(parts[0], scale, list(grid.values()), "mean absolute error, mm", shrink=0.7, extend="max")
    if others:
        size = error_limit([values for row in differences.values() for values, _ in row.values()], 99, 0.05)
        title = f"The same, less that of {loss_name(reference)}: blue is a smaller error, red a larger one"
        grid = _block(parts[1], title, meshes, heights, [*others, *[""] * (len(losses) - len(others))])
        for (name, loss), axes in grid.items():
            if loss:
                values, told = differences[name][loss]
                _draw(axes, meshes[name], values, (-size, size), SIGNED_ERROR_MAP, direction, across, told)
        scale = ScalarMappable(Normalize(-size, size), SIGNED_ERROR_MAP)
        color_bar(parts[1], scale, list(grid.values()), "difference of mean error, mm", shrink=0.7, extend="both")
    if note:
        figure.supxlabel(fill(note, 150), fontsize=10, color=GREY)
    return figure


def _block(
    part: Any, title: str, meshes: Mapping[str, pv.PolyData], heights: Sequence[float], losses: Sequence[str]
) -> dict[tuple[str, str], Axes]:
    """Axes without frame, a row for each structure and a column for each loss; an empty key leaves a place free."""
    part.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
    axes = part.subplots(len(meshes), len(losses), squeeze=False, gridspec_kw={"height_ratios": list(heights)})
    for row, name in zip(axes, meshes, strict=True):
        for one, loss in zip(row, losses, strict=True):
            one.set_axis_off()
            if loss and name == next(iter(meshes)):
                one.set_title(loss_name(loss), color=loss_color(loss), loc="center", fontsize=11)
        row[0].text(-0.02, 0.5, name, transform=row[0].transAxes, rotation=90, ha="right", va="center", color=INK)
    return {
        (name, loss): one for row, name in zip(axes, meshes, strict=True) for one, loss in zip(row, losses, strict=True)
    }


def _draw(
    axes: Axes,
    mesh: pv.PolyData,
    values: Values,
    limits: tuple[float, float],
    colormap: ListedColormap,
    direction: Sequence[float],
    across: float,
    told: NDArray[np.bool_] | None = None,
) -> None:
    """One surface, coloured, with an outline around what can be told from zero; the panel is `across` mm wide."""
    low, high = limits
    shown = pv.PolyData.from_regular_faces(mesh.points, mesh.regular_faces)
    shown["value"] = np.clip(values, low, high) - low  # the renderer shows sizes: from 0
    picture, extent = render_surfaces([shown], [mesh], "value", (0, high - low), colormap, direction, 800)
    axes.imshow(picture, extent=extent, interpolation="bilinear")
    if told is not None and told.any():
        shown["told"] = told.astype(float)
        marked, _ = render_surfaces([shown], [mesh], "told", (0, 1), _MARK, direction, 800)
        red = marked[..., 0].astype(float) - marked[..., 2]
        axes.contour(
            np.where(np.ptp(marked, axis=-1) < 40, 0.0, red),
            [20.0],
            colors=INK,
            linewidths=0.9,
            extent=extent,
            origin="upper",
        )
    middle = (extent[0] + extent[1]) / 2
    axes.set(xlim=(middle - across / 2, middle + across / 2), ylim=extent[2:], aspect="equal")
