"""Every overlap and boundary metric, each a small pure function of the geometry of two masks.

`METRICS` names each with its contract. The conventions are one for all:

- "voxel" and "surface" in a name say which surface it measures, and the edge of the field of view is no boundary of a
  bone, unless asked for: see :mod:`shapeloss.geometry`.
- No metric is NaN, so no structure can leave a mean unseen. A missed or invented structure (one mask without a
  boundary) has the worst value: 0 for an overlap; for a distance D, the diagonal of the field of view, which no pair
  of found surfaces exceeds and which keeps means, SDs and paired tests finite where infinity would not. If neither
  mask has a boundary, equal masks (a structure rightly absent) have the best value and others the worst.

Arrays are (X, Y, Z), spacing is in mm in the same order, labels are integers with 0 the background.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from math import inf
from typing import Any, Literal, get_args

import edt
import numpy as np
from numpy.typing import NDArray

from shapeloss.geometry import (
    INNER,
    Edge,
    Floats,
    Mask,
    MaskGeometry,
    SurfaceDistances,
    check_choice,
    check_grid,
    mask_geometry,
)

Plane = Literal["in_plane", "3d"]
Surface = Literal["voxel", "surface"]

_ROUNDING = 1 + 1e-6  # 3 · 0.1 mm lies within 0.3 mm, though not in binary


def dice(geometry: MaskGeometry) -> float:
    """Dice = 2 |T ∩ P| / (|T| + |P|) over the voxels (Dice 1945), in [0, 1]."""
    truth, prediction, common = geometry.voxels
    return 2 * common / (truth + prediction) if truth + prediction else 1.0


def boundary_dice(geometry: MaskGeometry, plane: Plane = "in_plane", tolerance: float = 0) -> float:
    """Share of the boundary voxels of both masks within `tolerance` voxels of the other's boundary, in [0, 1].

    `tolerance=0` is the strict score, 2 |∂T ∩ ∂P| / (|∂T| + |∂P|). "in_plane": the boundary ∂ is the mask minus its
    4-connected erosion in each slice, and distances stay within the slice; "3d": minus its 6-connected erosion,
    distances in 3D. Distances are Euclidean, in voxels, whatever the spacing. Calivà et al. 2019 report the score and
    leave its definition open.
    """
    check_choice("plane", plane, get_args(Plane))
    return _share_within(geometry, geometry.in_plane_steps if plane == "in_plane" else geometry.steps, tolerance)


def nsd(geometry: MaskGeometry, tolerance_mm: float, surface: Surface = "surface") -> float:
    """Normalised surface Dice: share of both surfaces within `tolerance_mm` of the other (Nikolov et al. 2021)."""
    return _share_within(geometry, _distances(geometry, surface), tolerance_mm)


def hausdorff(geometry: MaskGeometry, percentile: float = 100, surface: Surface = "voxel") -> float:
    """Hausdorff distance in mm, HD95 with `percentile=95`: the larger of the two directed percentiles.

    Voxels: percentile with linear interpolation. Surface elements: the smallest distance that covers at least this
    percentage of the area.
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile must be above 0 and at most 100, got {percentile!r}")

    def directed(distances: Floats, weights: Floats) -> float:
        if surface == "voxel":
            return float(np.percentile(distances, percentile))
        order = np.argsort(distances)
        covered = np.cumsum(weights[order])
        enough = covered[-1] * percentile / 100 / _ROUNDING  # half of the area is half, though not in binary
        return float(distances[order][np.searchsorted(covered, enough)])

    return _if_found(
        geometry,
        _distances(geometry, surface),
        lambda d: max(directed(d.from_truth, d.truth_weights), directed(d.from_prediction, d.prediction_weights)),
    )


def assd(geometry: MaskGeometry, surface: Surface = "voxel") -> float:
    """Average symmetric surface distance in mm: the mean over the elements of both surfaces together."""

    def pooled(d: SurfaceDistances) -> float:
        weights = np.concatenate([d.truth_weights, d.prediction_weights])
        return float(np.average(np.concatenate([d.from_truth, d.from_prediction]), weights=weights))

    return _if_found(geometry, _distances(geometry, surface), pooled)


def masd(geometry: MaskGeometry, surface: Surface = "voxel") -> float:
    """Mean average surface distance in mm: the mean of the two directed averages, whatever the surfaces' sizes."""

    def halved(d: SurfaceDistances) -> float:
        from_truth = np.average(d.from_truth, weights=d.truth_weights)
        return float(from_truth + np.average(d.from_prediction, weights=d.prediction_weights)) / 2

    return _if_found(geometry, _distances(geometry, surface), halved)


def boundary_iou(geometry: MaskGeometry, width_mm: float) -> float:
    """Intersection over union of the inner bands of both masks (Cheng et al. 2021, in 3D and mm), in [0, 1].

    The band holds the voxels of a mask within `width_mm` of its nearest boundary voxel: with width 0 the boundary
    voxels alone, with a large width the whole mask.
    """
    _check_length("width_mm", width_mm)

    def band(mask: Mask, boundary: Mask) -> Mask:
        if not boundary.any():
            return boundary
        return mask & (edt.edt(~boundary, anisotropy=geometry.spacing) <= width_mm * _ROUNDING)

    truth = band(geometry.truth[INNER], geometry.boundaries[0])
    prediction = band(geometry.prediction[INNER], geometry.boundaries[1])
    union = int((truth | prediction).sum())
    return int((truth & prediction).sum()) / union if union else float(geometry.equal)


def volume_error_percent(geometry: MaskGeometry) -> float:
    """100 (|P| − |T|) / |T|: above 0 if too large; −100 for a missed structure, infinity for an invented one."""
    truth, prediction, _ = geometry.voxels
    if truth == 0:
        return inf if prediction else 0.0
    return 100 * (prediction - truth) / truth


def volume_error_mm3(geometry: MaskGeometry) -> float:
    """|P| − |T| in mm³, above 0 if too large."""
    truth, prediction, _ = geometry.voxels
    return (prediction - truth) * float(np.prod(geometry.spacing))


def _share_within(geometry: MaskGeometry, d: SurfaceDistances, tolerance: float) -> float:
    _check_length("tolerance", tolerance)
    total = d.truth_weights.sum() + d.prediction_weights.sum()
    if total == 0:  # no boundary on either side
        return float(geometry.equal)
    limit = tolerance * _ROUNDING
    within = d.truth_weights[d.from_truth <= limit].sum() + d.prediction_weights[d.from_prediction <= limit].sum()
    return float(within / total)


def _if_found(geometry: MaskGeometry, d: SurfaceDistances, summary: Callable[[SurfaceDistances], float]) -> float:
    if len(d.from_truth) and len(d.from_prediction):
        return summary(d)
    neither = len(d.from_truth) == len(d.from_prediction)
    return 0.0 if neither and geometry.equal else geometry.diagonal


def _distances(geometry: MaskGeometry, surface: Surface) -> SurfaceDistances:
    check_choice("surface", surface, get_args(Surface))
    return geometry.voxel_distances if surface == "voxel" else geometry.element_distances


def _check_length(name: str, value: float) -> None:
    if not 0 <= value < inf:
        raise ValueError(f"{name} must be finite and not negative, got {value!r}")


@dataclass(frozen=True)
class Contract:
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


def _contracts() -> dict[str, Contract]:
    overlap = partial(Contract, unit="1", range="[0, 1]", direction="higher", both_empty="1", missed="0", invented="0")
    distance = partial(Contract, unit="mm", range="[0, D]", direction="lower", both_empty="0", missed="D", invented="D")
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
    signed = partial(Contract, surface="–", direction="nearer 0", both_empty="0")
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


METRICS: dict[str, Contract] = _contracts()
"""Every metric by the name of its column in a table of scores."""

DEFAULT_METRICS: tuple[str, ...] = tuple(name for name in METRICS if name.startswith(("dice", "boundary_dice")))
"""Dice and boundary Dice, strict and relaxed: what the paper reports."""


def contract_table() -> str:
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


def score_case(
    truth_labels: NDArray[Any],
    predicted_labels: NDArray[Any],
    spacing: Sequence[float],
    classes: Mapping[int, str],
    slice_axis: int = 0,
    metrics: Sequence[str] = DEFAULT_METRICS,
    edge: Edge = "open",
) -> list[dict[str, Any]]:
    """Score one predicted label map: a row for each structure, then "mean" and "merged".

    Args:
        truth_labels, predicted_labels: (X, Y, Z), integers: 0, the background, and the keys of `classes`.
        spacing: mm between voxel centres along X, Y, Z.
        classes: label → name of the structure; an entry for 0 names the background and is passed over.
        slice_axis, edge: see :func:`mask_geometry`.
        metrics: names in `METRICS`.

    Returns:
        Rows with `structure`, the flags `missed` (in the truth only), `invented` (in the prediction only) and
        `absent` (in neither), and a column for each metric. "mean" is the mean over the structures: each counts, a
        missed one with its worst value; its flags say whether there is such a one. "merged" takes all structures as
        one mask.

    Raises:
        ValueError: for maps of different shapes, labels that are not integers or not in `classes`, a spacing that
            does not fit, a metric that does not exist, and classes that cannot be rows.

    >>> truth = np.zeros((4, 6, 6), int)
    >>> truth[1:3, 1:5, 1:5] = 1
    >>> truth[1:3, 2:4, 2:4] = 2
    >>> rows = score_case(truth, truth.clip(0, 1), (0.7, 0.365, 0.365), {1: "femur", 2: "tibia"}, metrics=["dice"])
    >>> [(row["structure"], row["missed"], round(row["dice"], 2)) for row in rows]
    [('femur', False, 0.86), ('tibia', True, 0.0), ('mean', True, 0.43), ('merged', False, 1.0)]
    """
    truth_labels, predicted_labels = np.asarray(truth_labels), np.asarray(predicted_labels)
    check_grid(truth_labels, predicted_labels, spacing)
    structures = {int(label): name for label, name in classes.items() if label != 0}
    names = set(structures.values())
    if not names or len(names) < len(structures) or {"mean", "merged"} & names or min(structures) < 0:
        raise ValueError(
            "classes must name at least one label above 0, each differently and none 'mean' or 'merged', "
            f"got {dict(classes)!r}"
        )
    if unknown := [name for name in metrics if name not in METRICS]:
        raise ValueError(f"metrics must be among {', '.join(METRICS)}; got {', '.join(map(repr, unknown))}")
    for name, labels in (("truth_labels", truth_labels), ("predicted_labels", predicted_labels)):
        if labels.dtype.kind not in "iub":
            raise ValueError(f"{name} must be integers, got dtype {labels.dtype}; round and convert them first")
        known = np.isin(labels, [0, *structures])
        if not known.all():
            raise ValueError(
                f"{name} must hold 0 and the labels of classes, {sorted(structures)}, only, "
                f"got {np.unique(labels[~known]).tolist()} too; remap them or name them in classes"
            )

    def row(structure: str, truth: Mask, prediction: Mask) -> dict[str, Any]:
        geometry = mask_geometry(truth, prediction, spacing, slice_axis, edge)
        in_truth, in_prediction = geometry.voxels[0] > 0, geometry.voxels[1] > 0
        return {
            "structure": structure,
            "missed": in_truth and not in_prediction,
            "invented": in_prediction and not in_truth,
            "absent": not in_truth and not in_prediction,
            **{name: METRICS[name].function(geometry) for name in metrics},
        }

    rows = [row(name, truth_labels == label, predicted_labels == label) for label, name in structures.items()]
    mean: dict[str, Any] = {"structure": "mean"}
    mean |= {flag: any(r[flag] for r in rows) for flag in ("missed", "invented", "absent")}
    mean |= {name: float(np.mean([_size(name, r[name]) for r in rows])) for name in metrics}
    return [*rows, mean, row("merged", truth_labels != 0, predicted_labels != 0)]


def _size(name: str, value: float) -> float:
    """What enters a mean over structures: the size of an error that has a sign."""
    return abs(value) if METRICS[name].direction == "nearer 0" else value
