"""Pictures of surface errors, and figure 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pyvista as pv
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from shapeloss.metrics.mesh import vertex_areas
from shapeloss.plotting.render import render_surfaces, view_plane, widest_view
from shapeloss.plotting.slices import (
    WIDTH,
    _maps_height,
    _note_missed,
    _panel_grid,
    _panels,
    _Slice,
    figure_distance_maps,
)
from shapeloss.plotting.style import ERROR_MAP, GREY, INK, canvas, color_bar, loss_color, loss_name, styled


@styled
def figure_surface_errors(
    meshes: Mapping[str, Sequence[pv.PolyData]],
    landmarks: Mapping[str, Sequence[float]] | None = None,
    maximum_mm: float | None = None,
    direction: Sequence[float] | None = None,
    title: str = "Distance of the predicted surface from the truth",
    into: SubFigure | None = None,
    note: str = "",
) -> Figure:
    """Figure 1, bottom: the predicted surfaces of one case, one panel per loss, coloured by their error.

    Args:
        meshes: loss → surfaces in world mm (RAS) with the point array `error_mm`, signed or absolute; a surface without
            points is one that the loss missed, and its panel says so.
        landmarks: name → world point in mm, marked on each panel.
        maximum_mm: upper end of the colour scale; default :func:`error_limit` of all.
        direction: from the structures to the viewer, in RAS; default :func:`.render.widest_view` of all.
        title: above the panels; the name of the view is added.
        into: a part of a larger figure, to draw into.
        note: below the panels, such as which structures are shown.

    Raises:
        ValueError: for no loss, or a mesh without `error_mm`.
    """
    columns, rows = _panel_grid("meshes", meshes, 6)
    found = {loss: [mesh for mesh in surfaces if mesh.n_points] for loss, surfaces in meshes.items()}
    everything = [mesh for surfaces in found.values() for mesh in surfaces]
    if any("error_mm" not in mesh.point_data for mesh in everything):
        raise ValueError("each of meshes must have the point array 'error_mm'; set it to surface_error(mesh, truth)")
    maximum_mm = error_limit([mesh["error_mm"] for mesh in everything]) if maximum_mm is None else maximum_mm
    direction = widest_view(everything) if direction is None else direction
    right, up = view_plane(direction)
    width = max(2.4 * columns + 1, 6)
    figure = canvas(into, width, _errors_height(meshes, direction, width))
    figure.suptitle(f"{title}, {_view_name(direction)} view", x=0.01, ha="left", fontweight="bold", fontsize=12)
    panels = _panels(figure, rows, columns, found)
    for axes, (loss, surfaces) in panels:
        axes.set_title(loss_name(loss), color=loss_color(loss), loc="center", fontsize=11)
        if surfaces:
            picture, extent = render_surfaces(surfaces, everything, "error_mm", (0, maximum_mm), ERROR_MAP, direction)
            axes.imshow(picture, extent=extent, interpolation="bilinear")
            for number, point in enumerate((landmarks or {}).values(), start=1):
                place = np.dot(point, right), np.dot(point, up)
                ring = {"boxstyle": "circle,pad=0.25", "facecolor": (1, 1, 1, 0.6), "edgecolor": INK, "linewidth": 0.8}
                axes.annotate(str(number), place, ha="center", va="center", fontsize=8, bbox=ring)
            error = np.concatenate([np.abs(mesh["error_mm"]) for mesh in surfaces])
            mean = np.average(error, weights=np.concatenate([vertex_areas(mesh) for mesh in surfaces]))
            axes.text(0.5, -0.01, f"mean {mean:.2f} mm", transform=axes.transAxes, ha="center", va="top")
        _note_missed(axes, len(meshes[loss]) - len(surfaces), len(meshes[loss]))
    drawn = [axes for axes, _ in panels if axes.images]
    for axes, _ in panels:
        if drawn and not axes.images:  # as large as the others, so that titles lie on one line
            axes.set(xlim=drawn[0].get_xlim(), ylim=drawn[0].get_ylim(), aspect="equal")
    # spaces that do not break keep a number and its name together
    key = [
        f"{number}\u00a0{name}".replace("_", " ").replace(" ", "\u00a0")
        for number, name in enumerate(landmarks or {}, 1)
    ]
    if lines := [fill(text, max(28 * columns, 56)) for text in ("    ".join(key), note) if text]:
        figure.supxlabel("\n".join(lines), fontsize=10, color=GREY)
    scale = ScalarMappable(Normalize(0, maximum_mm), ERROR_MAP)
    color_bar(figure, scale, figure.axes, "absolute distance, mm", shrink=0.7, extend="max")
    return figure.get_figure(root=True)


@styled
def figure1(top: Mapping[str, Any], bottom: Mapping[str, Any]) -> Figure:
    """The paper's figure 1 in one file: the maps above, the surface errors below.

    Args:
        top: the arguments of :func:`figure_distance_maps`, by name.
        bottom: the arguments of :func:`figure_surface_errors`, by name.
    """
    cut = _Slice(top["labels"], top["spacing"], top.get("slice_index"), top.get("slice_axis"))
    meshes = bottom["meshes"]
    direction = bottom.get("direction")
    if direction is None:
        direction = widest_view([mesh for surfaces in meshes.values() for mesh in surfaces])
    heights = (
        _maps_height(cut, top["class_names"], top["labels"]),
        _errors_height(meshes, direction, WIDTH),
    )
    figure = canvas(None, WIDTH, sum(heights))
    above, below = figure.subfigures(2, 1, height_ratios=heights)
    figure_distance_maps(**top, into=above)
    figure_surface_errors(**{**bottom, "direction": direction}, into=below)
    return figure


def error_limit(errors: Sequence[NDArray[np.floating]], percent: float = 98, step: float = 0.5) -> float:
    """The upper end of a colour scale in mm: a percentile of all absolute errors that are finite, rounded up to a step.

    At least one step.
    """
    sizes = np.abs(np.concatenate([np.zeros(0), *errors]))
    sizes = sizes[np.isfinite(sizes)]
    return max(float(np.ceil(np.percentile(sizes, percent) / step) * step), step) if len(sizes) else step


def _errors_height(meshes: Mapping[str, Sequence[pv.PolyData]], direction: Sequence[float], width: float) -> float:
    """Inches for the panels of figure 1, bottom, in a figure so many inches wide."""
    columns, rows = _panel_grid("meshes", meshes, 6)
    points = np.concatenate([np.zeros((0, 3)), *(mesh.points for surfaces in meshes.values() for mesh in surfaces)])
    across, along = (float(np.ptp(points @ axis)) if len(points) else 0.0 for axis in view_plane(direction))
    aspect = np.clip((along + 6) / (across + 6), 0.4, 2.5)  # 3 mm of room around, as in the pictures
    return rows * (min((width - 2.2) / columns * aspect, 7) + 0.65) + 0.8


def _view_name(direction: Sequence[float]) -> str:
    axis = int(np.abs(direction).argmax())
    return (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))[axis][int(direction[axis] > 0)]
