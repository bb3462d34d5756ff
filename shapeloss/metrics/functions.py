"""The metrics: each a small pure function of the geometry of two masks; conventions in `shapeloss.metrics`."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Literal, get_args

import edt
import numpy as np

from shapeloss.metrics.geometry import INNER, Floats, Mask, MaskGeometry, SurfaceDistances, check_choice

Plane = Literal["in_plane", "3d"]
Surface = Literal["voxel", "surface", "mesh"]

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
    distances = geometry.in_plane_distances_vx if plane == "in_plane" else geometry.distances_vx
    return _share_within(geometry, distances, tolerance)


def nsd(geometry: MaskGeometry, tolerance_mm: float, surface: Surface = "surface") -> float:
    """Normalised surface Dice: share of both surfaces within `tolerance_mm` of the other (Nikolov et al. 2021)."""
    return _share_within(geometry, _distances(geometry, surface), tolerance_mm)


def weighted_percentile(values: Floats, weights: Floats, percentile: float) -> float:
    """The smallest value such that values up to it have so many percent of the weight.

    >>> weighted_percentile(np.array([3.0, 1.0]), np.array([1.0, 3.0]), 75)
    1.0
    """
    order = np.argsort(values, kind="stable")
    covered = np.cumsum(weights[order])
    enough = covered[-1] * percentile / 100 / _ROUNDING  # half of the weight is half, though not in binary
    return float(values[order][np.searchsorted(covered, enough)])


def hausdorff(geometry: MaskGeometry, percentile: float = 100, surface: Surface = "voxel") -> float:
    """Hausdorff distance in mm, HD95 with `percentile=95`: the larger of the two directed percentiles.

    Voxels: percentile with linear interpolation. Surface elements and mesh: the smallest distance that covers at least
    this percentage of the area.
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile must be above 0 and at most 100, got {percentile!r}")

    def directed(distances: Floats, weights: Floats) -> float:
        if surface == "voxel":
            return float(np.percentile(distances, percentile))
        return weighted_percentile(distances, weights, percentile)

    return _distance_or_worst(
        geometry,
        _distances(geometry, surface),
        lambda d: max(directed(d.from_truth, d.truth_weights), directed(d.from_prediction, d.prediction_weights)),
    )


def assd(geometry: MaskGeometry, surface: Surface = "voxel") -> float:
    """Average symmetric surface distance in mm: the mean over the elements of both surfaces together."""

    def pooled(d: SurfaceDistances) -> float:
        weights = np.concatenate([d.truth_weights, d.prediction_weights])
        return float(np.average(np.concatenate([d.from_truth, d.from_prediction]), weights=weights))

    return _distance_or_worst(geometry, _distances(geometry, surface), pooled)


def masd(geometry: MaskGeometry, surface: Surface = "voxel") -> float:
    """Mean average surface distance in mm: the mean of the two directed averages, whatever the surfaces' sizes."""

    def halved(d: SurfaceDistances) -> float:
        from_truth = np.average(d.from_truth, weights=d.truth_weights)
        return float(from_truth + np.average(d.from_prediction, weights=d.prediction_weights)) / 2

    return _distance_or_worst(geometry, _distances(geometry, surface), halved)


def boundary_iou(geometry: MaskGeometry, width_mm: float) -> float:
    """Intersection over union of the inner bands of both masks (Cheng et al. 2021, in 3D and mm), in [0, 1].

    The band holds the voxels of a mask within `width_mm` of its nearest boundary voxel: with width 0 the boundary
    voxels alone, with a large width the whole mask.
    """
    _check_length("width_mm", width_mm)

    def band(mask: Mask, boundary: Mask) -> Mask:
        if not boundary.any():
            return boundary
        # the nearest voxel that is not inside is a boundary voxel: a transform of the inside is the distance to it
        return mask & (edt.edt(mask & ~boundary, anisotropy=geometry.spacing) <= width_mm * _ROUNDING)

    truth = band(geometry.truth[INNER], geometry.boundaries[0])
    prediction = band(geometry.prediction[INNER], geometry.boundaries[1])
    union = int((truth | prediction).sum())
    return int((truth & prediction).sum()) / union if union else float(geometry.equal)


def volume_error_percent(geometry: MaskGeometry) -> float:
    """100 (|P| − |T|) / |T|: above 0 if too large; −100 for a missed structure, infinity for a false positive one."""
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


def _distance_or_worst(
    geometry: MaskGeometry, d: SurfaceDistances, summary: Callable[[SurfaceDistances], float]
) -> float:
    if len(d.from_truth) and len(d.from_prediction):
        return summary(d)
    neither = len(d.from_truth) == len(d.from_prediction)
    return 0.0 if neither and geometry.equal else geometry.diagonal


def _distances(geometry: MaskGeometry, surface: Surface) -> SurfaceDistances:
    check_choice("surface", surface, get_args(Surface))
    if surface == "mesh":
        return geometry.mesh_distances
    return geometry.voxel_distances if surface == "voxel" else geometry.element_distances


def _check_length(name: str, value: float) -> None:
    if not 0 <= value < inf:
        raise ValueError(f"{name} must be finite and not negative, got {value!r}")
