"""The definition of each metric: formula, unit, direction, surface, percentile, empty masks, agreement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Literal

from shapeloss.metrics.functions import (
    assd,
    boundary_dice,
    boundary_iou,
    dice,
    hausdorff,
    masd,
    nsd,
    volume_error_mm3,
    volume_error_percent,
)
from shapeloss.metrics.geometry import SMOOTHING, MaskGeometry


@dataclass(frozen=True)
class MetricDefinition:
    """How a metric is defined: D is the diagonal of the field of view, V the volume of a structure.

    `agrees_with` and `differs_from` speak of other libraries; every other word is about the metric itself.
    """

    function: Callable[[MaskGeometry], float] = field(compare=False)
    formula: str
    surface: str
    agrees_with: str
    differs_from: str
    unit: str
    range: str
    direction: Literal["higher", "lower", "nearer 0"]
    both_empty: str
    missed: str
    false_positive: str
    percentile: str = "–"


_overlap = partial(
    MetricDefinition, unit="1", range="[0, 1]", direction="higher", both_empty="1", missed="0", false_positive="0"
)
_distance = partial(
    MetricDefinition, unit="mm", range="[0, D]", direction="lower", both_empty="0", missed="D", false_positive="D"
)
_signed = partial(MetricDefinition, surface="–", direction="nearer 0", both_empty="0")

_STRICT = "2 |∂T∩∂P| / (|∂T|+|∂P|)"
_RELAXED = "share of ∂T and ∂P within so many voxels of the other"
_NSD = "share of ∂T and ∂P within so many mm of the other"
_HD = "larger of max d(∂T, ∂P), max d(∂P, ∂T)"
_HD95 = "larger of the two directed percentiles"
_ASSD = "mean of d over ∂T and ∂P together"
_MASD = "mean of mean d(∂T, ∂P), mean d(∂P, ∂T)"
_IN_SLICE = ("voxels, 4 neighbours in the slice", "MONAI (surface Dice of a slice, spacing 1)", "both empty: MONAI NaN")
_IN_3D = ("voxels, 6 neighbours", "MONAI (surface Dice of the volume, spacing 1)", "both empty: MONAI NaN")
_VOXEL = "voxels, 6 neighbours"
_AREA = "elements by area"
_MESH = f"mesh of the mask smoothed by {SMOOTHING} voxels, by area"
_NSD_VOXEL = (_NSD, _VOXEL, "MONAI", "both empty: MONAI NaN")
_NSD_AREA = (_NSD, _AREA, "surface-distance, MONAI (subvoxel)", "both empty: surface-distance NaN, MONAI NaN")
_EMPTY_VOXEL = "both empty: MONAI NaN; one empty: MONAI ∞; any empty: medpy error"
_EMPTY_AREA = "any empty: surface-distance ∞"

# name: kind(function, formula, surface, agrees with, differs from)
METRICS: dict[str, MetricDefinition] = {
    "dice": _overlap(
        dice,
        "2 |T∩P| / (|T|+|P|)",
        "–",
        "surface-distance, MONAI, medpy",
        "both empty: surface-distance NaN, medpy NaN; truth empty: MONAI NaN",
    ),
    "boundary_dice_in_plane": _overlap(partial(boundary_dice, plane="in_plane"), _STRICT, *_IN_SLICE),
    "boundary_dice_in_plane_1vx": _overlap(partial(boundary_dice, plane="in_plane", tolerance=1), _RELAXED, *_IN_SLICE),
    "boundary_dice_in_plane_2vx": _overlap(partial(boundary_dice, plane="in_plane", tolerance=2), _RELAXED, *_IN_SLICE),
    "boundary_dice_in_plane_3vx": _overlap(partial(boundary_dice, plane="in_plane", tolerance=3), _RELAXED, *_IN_SLICE),
    "boundary_dice_in_plane_4vx": _overlap(partial(boundary_dice, plane="in_plane", tolerance=4), _RELAXED, *_IN_SLICE),
    "boundary_dice_3d": _overlap(partial(boundary_dice, plane="3d"), _STRICT, *_IN_3D),
    "boundary_dice_3d_1vx": _overlap(partial(boundary_dice, plane="3d", tolerance=1), _RELAXED, *_IN_3D),
    "boundary_dice_3d_2vx": _overlap(partial(boundary_dice, plane="3d", tolerance=2), _RELAXED, *_IN_3D),
    "boundary_dice_3d_3vx": _overlap(partial(boundary_dice, plane="3d", tolerance=3), _RELAXED, *_IN_3D),
    "boundary_dice_3d_4vx": _overlap(partial(boundary_dice, plane="3d", tolerance=4), _RELAXED, *_IN_3D),
    "nsd_voxel_0.5mm": _overlap(partial(nsd, tolerance_mm=0.5, surface="voxel"), *_NSD_VOXEL),
    "nsd_voxel_1mm": _overlap(partial(nsd, tolerance_mm=1, surface="voxel"), *_NSD_VOXEL),
    "nsd_voxel_2mm": _overlap(partial(nsd, tolerance_mm=2, surface="voxel"), *_NSD_VOXEL),
    "hd_voxel_mm": _distance(partial(hausdorff, surface="voxel"), _HD, _VOXEL, "MONAI, medpy", _EMPTY_VOXEL),
    "hd95_voxel_mm": _distance(
        partial(hausdorff, percentile=95, surface="voxel"),
        _HD95,
        _VOXEL,
        "MONAI",
        "any empty: MONAI NaN; medpy: percentile of the pooled distances",
        percentile="95, linear",
    ),
    "assd_voxel_mm": _distance(partial(assd, surface="voxel"), _ASSD, _VOXEL, "MONAI, medpy", _EMPTY_VOXEL),
    "masd_voxel_mm": _distance(
        partial(masd, surface="voxel"), _MASD, _VOXEL, "medpy (mean of both ASD)", "any empty: medpy error"
    ),
    "nsd_surface_0.5mm": _overlap(partial(nsd, tolerance_mm=0.5, surface="surface"), *_NSD_AREA),
    "nsd_surface_1mm": _overlap(partial(nsd, tolerance_mm=1, surface="surface"), *_NSD_AREA),
    "nsd_surface_2mm": _overlap(partial(nsd, tolerance_mm=2, surface="surface"), *_NSD_AREA),
    "hd_surface_mm": _distance(partial(hausdorff, surface="surface"), _HD, _AREA, "surface-distance", _EMPTY_AREA),
    "hd95_surface_mm": _distance(
        partial(hausdorff, percentile=95, surface="surface"),
        _HD95,
        _AREA,
        "surface-distance",
        _EMPTY_AREA,
        percentile="95: the least d that covers so much area",
    ),
    "assd_surface_mm": _distance(
        partial(assd, surface="surface"), _ASSD, _AREA, "–", "surface-distance: two directed means"
    ),
    "masd_surface_mm": _distance(
        partial(masd, surface="surface"),
        _MASD,
        _AREA,
        "surface-distance (mean of both means)",
        "any empty: surface-distance NaN",
    ),
    "nsd_mesh_0.5mm": _overlap(partial(nsd, tolerance_mm=0.5, surface="mesh"), _NSD, _MESH, "–", "–"),
    "nsd_mesh_1mm": _overlap(partial(nsd, tolerance_mm=1, surface="mesh"), _NSD, _MESH, "–", "–"),
    "nsd_mesh_2mm": _overlap(partial(nsd, tolerance_mm=2, surface="mesh"), _NSD, _MESH, "–", "–"),
    "hd_mesh_mm": _distance(partial(hausdorff, surface="mesh"), _HD, _MESH, "–", "–"),
    "hd95_mesh_mm": _distance(
        partial(hausdorff, percentile=95, surface="mesh"),
        _HD95,
        _MESH,
        "–",
        "–",
        percentile="95: the least d that covers so much area",
    ),
    "assd_mesh_mm": _distance(partial(assd, surface="mesh"), _ASSD, _MESH, "–", "–"),
    "masd_mesh_mm": _distance(partial(masd, surface="mesh"), _MASD, _MESH, "–", "–"),
    "boundary_iou_2mm": _overlap(
        partial(boundary_iou, width_mm=2),
        "IoU of the voxels of T within 2 mm of ∂T and those of P of ∂P",
        "voxels, 6 neighbours",
        "–",
        "boundary IoU in pixels",
    ),
    "volume_error_percent": _signed(
        volume_error_percent,
        "100 (|P|−|T|) / |T|",
        agrees_with="medpy (RAVD)",
        differs_from="truth empty: medpy error",
        unit="%",
        range="[−100, ∞]",
        missed="−100",
        false_positive="∞",
    ),
    "volume_error_mm3": _signed(
        volume_error_mm3,
        "|P|−|T|",
        agrees_with="–",
        differs_from="–",
        unit="mm³",
        range="(−∞, ∞)",
        missed="−V",
        false_positive="V",
    ),
}
"""Every metric by the name of its column in a table of scores."""

DEFAULT_METRICS: tuple[str, ...] = tuple(name for name in METRICS if name.startswith(("dice", "boundary_dice")))
"""Dice and boundary Dice, strict and relaxed: what the paper reports."""


def definition_table() -> str:
    """`METRICS` as a Markdown table, metrics with one definition in one row."""
    columns = ("unit", "range", "direction", "formula", "surface", "percentile", "both_empty")
    header = ("metric", *columns, "missed / false positive", "agrees_with", "differs_from")
    lines = ["| " + " | ".join(name.replace("_", " ") for name in header) + " |", "|---" * len(header) + "|"]
    for definition, items in groupby(METRICS.items(), key=lambda item: item[1]):
        cells = [", ".join(f"`{name}`" for name, _ in items), *(getattr(definition, column) for column in columns)]
        cells += [f"{definition.missed} / {definition.false_positive}", definition.agrees_with, definition.differs_from]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    legend = (
        "T truth, P prediction, ∂ their surface, d(∂T, ∂P) the distances from ∂T to ∂P in mm, D the diagonal of the "
        "field of view, V the volume of the false positive or missed structure. Agreement holds with "
        '`edge="closed"`, and '
        "by default for structures that do not touch the edge of the field of view, which is then no boundary: a "
        "structure that fills it has none, and the boundary scores of a missed one. Voxels and elements are biased "
        "where surfaces are near each other; how much is measured below. The mesh's d runs from its corners to the "
        "nearest place on the other's triangles; `smoothing_voxels=0` is for sheets of one or two voxels. The mean "
        "over structures is that of the errors' sizes where an error has a sign, so that two do not cancel. "
        "Other libraries: MONAI 1.6.1, "
        "medpy 0.5.2 and surface-distance 0.1, each with its default options; surface-distance 0.1 needs NumPy below "
        "2, or `np.Inf` and `np.NaN` set."
    )
    return "\n".join([*lines, "", legend])
