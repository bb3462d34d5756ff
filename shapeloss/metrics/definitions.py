"""The definition of each metric: formula, unit, direction, surface, percentile, empty masks, agreement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Literal, get_args

from shapeloss.metrics.functions import (
    Plane,
    Surface,
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
from shapeloss.metrics.geometry import MaskGeometry


@dataclass(frozen=True)
class MetricDefinition:
    """What a metric promises, as the README shows it: D is the diagonal of the field of view, V a structure's volume.

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
    invented: str
    percentile: str = "–"


def _definitions() -> dict[str, MetricDefinition]:
    overlap = partial(
        MetricDefinition, unit="1", range="[0, 1]", direction="higher", both_empty="1", missed="0", invented="0"
    )
    distance = partial(
        MetricDefinition, unit="mm", range="[0, D]", direction="lower", both_empty="0", missed="D", invented="D"
    )
    contracts = {
        "dice": overlap(
            dice,
            "2 |T∩P| / (|T|+|P|)",
            surface="–",
            agrees_with="surface-distance, MONAI, medpy",
            differs_from="both empty: surface-distance NaN, medpy NaN; truth empty: MONAI NaN",
        )
    }
    plane: Plane
    for plane, voxels, whose in (
        ("in_plane", "voxels, 4 neighbours in the slice", "of a slice"),
        ("3d", "voxels, 6 neighbours", "of the volume"),
    ):
        monai = (f"MONAI (surface Dice {whose}, spacing 1)", "both empty: MONAI NaN")
        strict = partial(boundary_dice, plane=plane)
        contracts[f"boundary_dice_{plane}"] = overlap(strict, "2 |∂T∩∂P| / (|∂T|+|∂P|)", voxels, *monai)
        for t in (1, 2, 3, 4):
            relaxed = partial(boundary_dice, plane=plane, tolerance=t)
            formula = "share of ∂T and ∂P within so many voxels of the other"
            contracts[f"boundary_dice_{plane}_{t}vx"] = overlap(relaxed, formula, voxels, *monai)
    surface: Surface
    for surface in get_args(Surface):
        voxel = surface == "voxel"
        elements = "voxels, 6 neighbours" if voxel else "elements by area"
        monai_empty = "both empty: MONAI NaN; one empty: MONAI ∞"
        empty = f"{monai_empty}; any empty: medpy error" if voxel else "any empty: surface-distance ∞"
        for mm in (0.5, 1, 2):
            contracts[f"nsd_{surface}_{mm}mm"] = overlap(
                partial(nsd, tolerance_mm=mm, surface=surface),
                "share of ∂T and ∂P within so many mm of the other",
                elements,
                agrees_with="MONAI" if voxel else "surface-distance, MONAI (subvoxel)",
                differs_from="both empty: MONAI NaN" if voxel else "both empty: surface-distance NaN, MONAI NaN",
            )
        contracts[f"hd_{surface}_mm"] = distance(
            partial(hausdorff, surface=surface),
            "larger of max d(∂T, ∂P), max d(∂P, ∂T)",
            elements,
            agrees_with="MONAI, medpy" if voxel else "surface-distance",
            differs_from=empty,
        )
        contracts[f"hd95_{surface}_mm"] = distance(
            partial(hausdorff, percentile=95, surface=surface),
            "larger of the two directed percentiles",
            elements,
            percentile="95, linear" if voxel else "95: the least d that covers so much area",
            agrees_with="MONAI" if voxel else "surface-distance",
            differs_from="any empty: MONAI NaN; medpy: percentile of the pooled distances" if voxel else empty,
        )
        contracts[f"assd_{surface}_mm"] = distance(
            partial(assd, surface=surface),
            "mean of d over ∂T and ∂P together",
            elements,
            agrees_with="MONAI, medpy" if voxel else "–",
            differs_from=empty if voxel else "surface-distance: two directed means",
        )
        contracts[f"masd_{surface}_mm"] = distance(
            partial(masd, surface=surface),
            "mean of mean d(∂T, ∂P), mean d(∂P, ∂T)",
            elements,
            agrees_with="medpy (mean of both ASD)" if voxel else "surface-distance (mean of both means)",
            differs_from="any empty: medpy error" if voxel else "any empty: surface-distance NaN",
        )
    contracts["boundary_iou_2mm"] = overlap(
        partial(boundary_iou, width_mm=2),
        "IoU of the voxels of T within 2 mm of ∂T and those of P of ∂P",
        "voxels, 6 neighbours",
        agrees_with="–",
        differs_from="boundary IoU in pixels",
    )
    signed = partial(MetricDefinition, surface="–", direction="nearer 0", both_empty="0")
    contracts["volume_error_percent"] = signed(
        volume_error_percent,
        "100 (|P|−|T|) / |T|",
        agrees_with="medpy (RAVD)",
        differs_from="truth empty: medpy error",
        unit="%",
        range="[−100, ∞]",
        missed="−100",
        invented="∞",
    )
    contracts["volume_error_mm3"] = signed(
        volume_error_mm3,
        "|P|−|T|",
        agrees_with="–",
        differs_from="–",
        unit="mm³",
        range="(−∞, ∞)",
        missed="−V",
        invented="V",
    )
    return contracts


METRICS: dict[str, MetricDefinition] = _definitions()
"""Every metric by the name of its column in a table of scores."""

DEFAULT_METRICS: tuple[str, ...] = tuple(name for name in METRICS if name.startswith(("dice", "boundary_dice")))
"""Dice and boundary Dice, strict and relaxed: what the paper reports."""


def definition_table() -> str:
    """`METRICS` as a Markdown table, metrics with one contract in one row."""
    columns = ("unit", "range", "direction", "formula", "surface", "percentile", "both_empty")
    header = ("metric", *columns, "missed / invented", "agrees_with", "differs_from")
    lines = ["| " + " | ".join(name.replace("_", " ") for name in header) + " |", "|---" * len(header) + "|"]
    for contract, items in groupby(METRICS.items(), key=lambda item: item[1]):
        cells = [", ".join(f"`{name}`" for name, _ in items), *(getattr(contract, column) for column in columns)]
        cells += [f"{contract.missed} / {contract.invented}", contract.agrees_with, contract.differs_from]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    legend = (
        "T truth, P prediction, ∂ their surface, d(∂T, ∂P) the distances from ∂T to ∂P in mm, D the diagonal of the "
        'field of view, V the volume of the invented or missed structure. Agreement holds with `edge="closed"`, and '
        "by default for structures that do not touch the edge of the field of view, which is then no boundary: a "
        "structure that fills it has none, and the boundary scores of a missed one. The mean over structures is that "
        "of the errors' sizes where an error has a sign, so that two do not cancel. Other libraries: MONAI 1.6.1, "
        "medpy 0.5.2 and surface-distance 0.1, each with its default options; surface-distance 0.1 needs NumPy below "
        "2, or `np.Inf` and `np.NaN` set."
    )
    return "\n".join([*lines, "", legend])
