"""Every figure of the project: arrays, meshes and tables in, one matplotlib figure out.

Volumes are (X, Y, Z) in RAS (left → right, posterior → anterior, inferior → superior) with their spacing in mm. Slices
are drawn as radiologists see them: sagittal ones with anterior on the left, coronal and axial ones with the patient's
right on the left. Look and colours are in `style.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from shapeloss.data.axes import acquisition_axis, plane_name
from shapeloss.distance import distance_penalty, weight_near_boundary
from shapeloss.plotting.style import (
    GREY,
    PALE,
    PHI_MAP,
    canvas,
    color_bar,
    loss_color,
    loss_name,
    structure_color,
    styled,
)


def distance_map_panels(
    image: NDArray[Any],
    labels: NDArray[Any],
    spacing: Sequence[float],
    classes: Mapping[int, str],
    slice_axis: int | None = None,
) -> dict[str, Any]:
    """The arguments of :func:`figure_distance_maps` for a volume: φ of the paper's default variant."""
    phi = distance_penalty(labels, spacing)
    return {
        "image": image,
        "labels": labels,
        "phi_by_compartment": dict.fromkeys([0, *classes], phi),  # each is shown where its label is
        "phi": phi,
        "spacing": spacing,
        "class_names": classes,
        "slice_axis": slice_axis,
    }


WIDTH = 13.0
"""Inches: figure 1 from side to side."""


SIDES = ("RL", "AP", "SI")
"""The letters of the two ends of X, Y and Z, the far end first."""


def central_slice(labels: NDArray[Any], axis: int = 0) -> int:
    """The index along an axis of a slice that shows as many structures as any other; of several, the most central."""
    shown = np.array([len(np.unique(plane[plane > 0])) for plane in np.moveaxis(labels, axis, 0)])
    best = np.flatnonzero(shown == shown.max())
    return int(best[np.abs(best - (len(shown) - 1) / 2).argmin()])


class _Slice:
    """One slice through volumes of one shape, and how to draw it: in mm, anterior or the patient's right on the left.

    Its axis is that of the coarsest voxel side where none is given.
    """

    def __init__(self, labels: NDArray[Any], spacing: Sequence[float], index: int | None, axis: int | None) -> None:
        if np.ndim(labels) != 3 or len(spacing) != 3:
            raise ValueError(f"labels must be (X, Y, Z) with three spacings, got {np.shape(labels)} and {spacing}")
        if axis not in (None, 0, 1, 2):
            raise ValueError(f"slice_axis must be 0, 1, 2 or None, got {axis!r}")
        self.axis = acquisition_axis(spacing) if axis is None else axis
        self.across, self.up = ((1, 2), (0, 2), (0, 1))[self.axis]  # the axes of columns and of rows
        self.shape = np.shape(labels)
        count = self.shape[self.axis]
        if index is not None and not 0 <= index < count:
            raise ValueError(
                f"slice_index must be from 0 to {count - 1}, the slices along {'XYZ'[self.axis]}, got {index}"
            )
        self.index = central_slice(labels, self.axis) if index is None else index
        self.name = f"{plane_name(self.axis)} slice {self.index + 1} of {count}"
        self.labels = self.of(labels)
        self.pixel_size = spacing[self.up], spacing[self.across]  # mm between the rows and between the columns
        self.height, self.width = (n * step for n, step in zip(self.labels.shape, self.pixel_size, strict=True))

    def of(self, volume: NDArray[Any]) -> NDArray[Any]:
        """(rows, columns): rows upwards, columns from the far end (anterior, or right) to the near one."""
        if np.shape(volume) != self.shape:
            raise ValueError(f"every volume must have the shape of the labels, {self.shape}, got {np.shape(volume)}")
        return np.take(np.asarray(volume), self.index, self.axis)[::-1, :].T

    def show(self, axes: Axes, plane: NDArray[Any], **options: Any) -> Any:
        axes.set_axis_off()
        return axes.imshow(plane, origin="lower", extent=(0, self.width, 0, self.height), aspect="equal", **options)

    def grey(self, axes: Axes, image: NDArray[Any]) -> None:
        low, high = np.percentile(image, (1, 99.5))
        self.show(axes, self.of(image), cmap="gray", vmin=low, vmax=high, interpolation="bilinear")

    def outlines(self, axes: Axes, plane: NDArray[Any], color: Any, width: float) -> None:
        """The boundary of each structure, through the middle between voxels."""
        z, y = ((np.arange(n) + 0.5) * step for n, step in zip(plane.shape, self.pixel_size, strict=True))
        for label in np.unique(plane[plane > 0]):
            if (plane != label).any():
                axes.contour(y, z, plane == label, levels=[0.5], colors=[color], linewidths=width)

    def directions(self, axes: Axes) -> None:
        """The letters that tell which way is right, left, anterior, posterior, superior and inferior."""
        halo = [withStroke(linewidth=2, foreground="black")]
        letters = SIDES[self.across] + SIDES[self.up]
        for (x, y), letter in zip(((0.04, 0.5), (0.96, 0.5), (0.5, 0.96), (0.5, 0.04)), letters, strict=True):
            text = axes.text(x, y, letter, transform=axes.transAxes, ha="center", va="center", fontsize=10)
            text.set(color="white", path_effects=halo)

    def window(self, margin: float) -> tuple[float, float, float, float]:
        """The structures and a margin in mm around them: left, right, bottom, top; without structures, all."""
        rows, columns = np.nonzero(self.labels)
        if not len(rows):
            return 0.0, self.width, 0.0, self.height
        (bottom, top), (left, right) = (
            (max(line.min() * step - margin, 0), min((line.max() + 1) * step + margin, end))
            for line, step, end in zip((rows, columns), self.pixel_size, (self.height, self.width), strict=True)
        )
        return left, right, bottom, top


@styled
def figure_distance_maps(
    image: NDArray[Any],
    labels: NDArray[Any],
    phi_by_compartment: Mapping[int, NDArray[Any]] | Sequence[NDArray[Any]],
    phi: NDArray[Any],
    spacing: Sequence[float],
    class_names: Mapping[int, str],
    slice_index: int | None = None,
    into: SubFigure | None = None,
    slice_axis: int | None = None,
) -> Figure:
    """Figure 1, top: the mask on its slice, the map of each compartment on it, and the combined φ.

    Structures that the slice does not show have no panel, but are named below.

    Args:
        image: (X, Y, Z) grey values.
        labels: (X, Y, Z) integers, 0 the background.
        phi_by_compartment: for each label, 0 included, a map (X, Y, Z) in [0, 1]; shown where the label is.
        phi: (X, Y, Z), the penalty of the loss.
        spacing: mm along X, Y, Z.
        class_names: label → name; the background needs none.
        slice_index: along the axis; default :func:`central_slice`.
        into: a part of a larger figure, to draw into.
        slice_axis: across the slice; default that of the coarsest voxel side.

    Raises:
        ValueError: for volumes of different shapes, or a slice outside them.
    """
    cut = _Slice(labels, spacing, slice_index, slice_axis)
    structures = {label: name for label, name in class_names.items() if label != 0}
    figure = canvas(into, WIDTH, _maps_height(cut, structures, labels))
    names = {label: name for label, name in structures.items() if (cut.labels == label).any()}
    grid = figure.add_gridspec(1, 3, wspace=0.02)

    axes = figure.add_subplot(grid[0])
    axes.set_title(f"Mask, {cut.name}")
    cut.grey(axes, image)
    for label, name in names.items():
        color, mask = structure_color(label, name), cut.labels == label
        cut.show(axes, np.where(mask, 1.0, np.nan), cmap=ListedColormap([color]), alpha=0.35)
        cut.outlines(axes, mask.astype(int), color, 1.8)
        axes.plot([], [], color=color, linewidth=6, label=name)
    cut.directions(axes)
    if names:
        columns = _legend_columns(names.values())
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=columns, handlelength=0.8, columnspacing=1.2)

    compartments = {**names, **({0: "background"} if (cut.labels == 0).any() else {})}
    columns = int(np.ceil(np.sqrt(len(compartments))))
    rows = int(np.ceil(len(compartments) / columns))
    small = grid[1].subgridspec(rows, columns, wspace=0.01, hspace=0.01)
    for place, (label, name) in enumerate(compartments.items()):
        axes = figure.add_subplot(small[place])
        row, column = divmod(place, columns)
        # towards each other; a single row lies at the top
        axes.set_anchor((1 - column / max(columns - 1, 1), row / (rows - 1) if rows > 1 else 1))
        inside = cut.labels == label
        cut.show(axes, np.where(inside, np.nan, 1), cmap=ListedColormap([PALE]))
        cut.show(axes, np.where(inside, cut.of(phi_by_compartment[label]), np.nan), cmap=PHI_MAP, vmin=0, vmax=1)
        halo = [withStroke(linewidth=2.5, foreground="white")]
        axes.text(0.04, 0.95, name, transform=axes.transAxes, va="top", fontsize=10, path_effects=halo)
        if place == 0:
            axes.set_title("Map of each compartment").set_in_layout(False)  # it is wider than this panel
    notes = f"Grey: outside the compartment. {_not_shown(structures, labels, cut)}"
    figure.supxlabel(fill(notes.strip(), 120), fontsize=10, color=GREY)

    axes = figure.add_subplot(grid[2])
    axes.set_title("Combined map φ, boundaries in white")
    shown = cut.show(axes, cut.of(phi), cmap=PHI_MAP, vmin=0, vmax=max(1.0, float(np.max(phi))))
    cut.outlines(axes, cut.labels, "white", 1.8)
    cut.directions(axes)
    bar = figure.colorbar(shown, cax=axes.inset_axes((1.03, 0, 0.045, 1)))
    bar.set_label("maps and φ, no unit")
    bar.outline.set_visible(False)
    return figure.get_figure(root=True)


@styled
def figure_variants(
    phi_by_variant: Mapping[str, NDArray[Any]],
    labels: NDArray[Any],
    spacing: Sequence[float],
    slice_index: int | None = None,
    slice_axis: int | None = None,
    in_mm: Collection[str] = (),
) -> Figure:
    """The variants of φ side by side, and how much of the weight 1 + φ each puts within 2 mm of a boundary.

    Variants of one unit are beside each other and share a colour scale, from 0 to the largest φ of all of them. A label
    that a variant leaves out (φ is 0 throughout) is grey, so that it does not look like the deepest voxel of another.

    Args:
        phi_by_variant: name → (X, Y, Z).
        labels: (X, Y, Z) integers.
        spacing: mm along X, Y, Z.
        in_mm: the variants whose φ is in mm; that of the others has no unit.
        slice_index: along the axis; default :func:`central_slice`.
        slice_axis: across the slice; default that of the coarsest voxel side.

    Raises:
        ValueError: for no variant, volumes of different shapes, or a slice outside them.
    """
    cut = _Slice(labels, spacing, slice_index, slice_axis)
    columns, rows = _panel_grid("phi_by_variant", phi_by_variant, 4)
    height = rows * (2.2 * np.clip(cut.height / cut.width, 0.4, 2) + 0.35) + 0.3
    figure = canvas(None, 2.2 * columns + 6.5, max(height, 1 + 0.38 * len(phi_by_variant)))
    left, right = figure.subfigures(1, 2, width_ratios=(2.2 * columns + 1.5, 5))
    units = {"no unit": [name for name in phi_by_variant if name not in in_mm],
             "mm": [name for name in phi_by_variant if name in in_mm]}  # fmt: skip
    ordered = {name: phi_by_variant[name] for names in units.values() for name in names}
    scales = {
        unit: Normalize(0, max(float(np.max(phi_by_variant[name])) for name in names) or 1.0)
        for unit, names in units.items()
        if names
    }
    any_left_out = False
    panels = _panels(left, rows, columns, ordered)
    for axes, (name, phi) in panels:
        left_out = np.isin(cut.labels, [label for label in np.unique(labels) if not np.any(phi[labels == label])])
        any_left_out |= bool(left_out.any())
        scale = scales["mm" if name in in_mm else "no unit"]
        cut.show(axes, np.where(left_out, np.nan, cut.of(phi)), cmap=PHI_MAP, norm=scale)
        cut.show(axes, np.where(left_out, 1, np.nan), cmap=ListedColormap([PALE]))
        cut.outlines(axes, cut.labels, "white", 0.9)
        axes.set_title(name, fontsize=11)
    (unit, scale), *further = scales.items()
    shown, pad = ScalarMappable(scale, PHI_MAP), 0.09 if further else 0.02
    bar = color_bar(left, shown, [axes for axes, _ in panels], f"φ, {unit}", aspect=35, pad=pad)
    for unit, scale in further:  # the same colours, on the other side of the bar
        other = bar.ax.twinx()
        other.set(ylim=(scale.vmin, scale.vmax), ylabel=f"φ, {unit}")
        other.yaxis.set_ticks_position("left")
        other.yaxis.set_label_position("left")
        bar.ax.yaxis.set_ticks_position("right")
        bar.ax.yaxis.set_label_position("right")
        for spine in other.spines.values():
            spine.set_visible(False)
    note = "Darkest: farthest from a boundary." + " Grey: left out, φ = 0 throughout." * any_left_out
    left.supxlabel(note, fontsize=10, color=GREY)
    cells = [["variant", "largest φ", "mean\n1 + φ", "share within\n2 mm"]]
    for name, phi in phi_by_variant.items():
        share, mean = weight_near_boundary(phi, labels, spacing, within=2.0)
        cells.append([name, f"{np.max(phi):.3g}" + " mm" * (name in in_mm), f"{mean:.2f}", f"{100 * share:.1f} %"])
    axes = right.subplots()
    axes.set_axis_off()
    table = axes.table(cells, loc="center", cellLoc="right", edges="horizontal", colWidths=(0.32, 0.2, 0.18, 0.3))
    table.auto_set_font_size(False)
    table.scale(1, 1.55)
    for (row, column), cell in table.get_celld().items():
        cell.set_edgecolor(PALE)
        cell.get_text().set_ha("right" if column else "left")
        if row == 0:
            cell.get_text().set_fontweight("bold")
            cell.set_height(1.5 * cell.get_height())
    return figure


@styled
def figure_predictions(
    image: NDArray[Any],
    truth: NDArray[Any],
    predictions: Mapping[str, NDArray[Any]],
    spacing: Sequence[float],
    slice_index: int | None = None,
    slice_axis: int | None = None,
) -> Figure:
    """One slice for each loss: the true outlines in white, the predicted ones in the loss's colour.

    Args:
        image: (X, Y, Z) grey values.
        truth: (X, Y, Z) integers.
        predictions: loss → (X, Y, Z) integers. A structure of the truth that a prediction lacks is noted.
        spacing: mm along X, Y, Z.
        slice_index: along the axis; default :func:`central_slice` of the truth.
        slice_axis: across the slice; default that of the coarsest voxel side.

    Raises:
        ValueError: for no prediction, volumes of different shapes, or a slice outside them.
    """
    cut = _Slice(truth, spacing, slice_index, slice_axis)
    columns, rows = _panel_grid("predictions", predictions, 5)
    left, right, bottom, top = cut.window(margin=8)
    aspect = np.clip((top - bottom) / (right - left), 0.4, 2)
    figure = canvas(None, 2.6 * columns, rows * (2.5 * aspect + 0.35) + 0.4)
    structures = np.setdiff1d(truth, [0])
    for axes, (loss, labels) in _panels(figure, rows, columns, predictions):
        cut.grey(axes, image)
        cut.outlines(axes, cut.labels, "white", 1.3)
        cut.outlines(axes, cut.of(labels), loss_color(loss), 1.6)
        axes.set(xlim=(left, right), ylim=(bottom, top))
        axes.set_title(loss_name(loss), fontsize=11, color=loss_color(loss))
        if axes is figure.axes[0]:
            cut.directions(axes)
        _note_missed(axes, len(np.setdiff1d(structures, labels)), len(structures))
    key = fill(f"White: truth. Coloured: prediction. {cut.name.capitalize()}.", 32 * columns)
    figure.supxlabel(key, fontsize=10, color=GREY)
    return figure


def _not_shown(structures: Mapping[int, str], labels: NDArray[Any], cut: _Slice) -> str:
    """Which structures have no panel, and why; lines for below the panels."""
    here, anywhere = set(np.unique(cut.labels)), set(np.unique(labels))
    parts = {
        "Not on this slice": [name for label, name in structures.items() if label in anywhere - here],
        "Absent from this volume": [name for label, name in structures.items() if label not in anywhere],
    }
    return " ".join(f"{text}: {', '.join(names)}." for text, names in parts.items() if names)


def _legend_columns(names: Collection[str]) -> int:
    """How many entries of a legend fit below a panel side by side."""
    return max(1, min(len(names), 40 // (4 + max(map(len, names), default=0))))


def _maps_height(cut: _Slice, names: Mapping[int, str], labels: NDArray[Any]) -> float:
    """Inches for three panels of figure 1, top, side by side, with a legend and a note below."""
    structures = {label: name for label, name in names.items() if label != 0}
    shown = [name for label, name in structures.items() if (cut.labels == label).any()]
    lines = max(-(-len(shown) // _legend_columns(shown)) - 1, 0) + len(_not_shown(structures, labels, cut).splitlines())
    return float(np.clip(WIDTH / 3.2 * cut.height / cut.width, 2, 7)) + 0.8 + 0.25 * lines


def _panel_grid(name: str, items: Mapping[str, Any], widest: int) -> tuple[int, int]:
    """Columns and rows for so many panels."""
    if not items:
        raise ValueError(f"{name} must hold at least one entry, name → content; it is empty")
    columns = min(len(items), widest)
    return columns, -(-len(items) // columns)


def _panels(figure: Any, rows: int, columns: int, items: Mapping[str, Any]) -> list[tuple[Axes, tuple[str, Any]]]:
    """Axes without frame, each with its item."""
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    return list(zip(grid, items.items(), strict=False))


def _note_missed(axes: Axes, missed: int, structures: int) -> None:
    """Say on a panel that a prediction lacks structures."""
    if missed:
        text = "missed" if missed == structures else f"{missed} of {structures} structures missed"
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8}
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontweight="bold", bbox=box)
