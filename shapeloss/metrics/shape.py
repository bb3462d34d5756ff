"""How well a shape is kept: signed surface errors in both directions, curvature, errors weighted by it.

The curvature of a surface from a label map is that of the level set of a smoothed signed distance. VTK's curvature of
the mesh itself (`mesh.curvature()` of PyVista) is made for smooth meshes: on one from voxels its root mean square error
is 6 to 140 times as large, and grows as the voxels shrink (`reproduce/benchmarks/biomarkers.md`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from shapeloss.distance import boundary_distance, check_labels
from shapeloss.metrics.functions import weighted_percentile
from shapeloss.metrics.mesh import label_surface, surface_error, vertex_areas

if TYPE_CHECKING:
    import pyvista as pv

SMOOTHING = 2.0
"""mm of smoothing at a longest voxel side of 1 mm; it grows with the root of that side, so that the error falls with
the voxels: less leaves their stairs, more flattens what is curved (measured in reproduce/benchmarks/biomarkers.md)."""


@dataclass(frozen=True)
class DirectedError:
    """The errors of one surface's vertices, each weighted by its area. Outside the truth is positive."""

    mean_mm: float
    """Of the signed error: the bias."""
    sd_mm: float
    """Of the signed error, about its mean."""
    absolute_mm: float
    """Mean of its size."""
    rms_mm: float
    p95_mm: float
    """The least size that covers 95 % of the area."""
    max_mm: float
    """The largest size."""


@dataclass(frozen=True)
class SurfaceErrors:
    """How far two surfaces are apart, from both sides."""

    predicted: DirectedError
    """From each place of the predicted surface to the truth."""
    truth: DirectedError
    """From each place of the true surface to the prediction: this sees what a prediction lacks."""


@dataclass(frozen=True)
class Curvature:
    """Of a surface at some points; for a ball of radius r, 1/r and 1/r²."""

    mean: NDArray[np.float64]
    """(n,), 1/mm: half the sum of the principal curvatures, positive where the shape is convex."""
    gaussian: NDArray[np.float64]
    """(n,), 1/mm²: their product, negative on a saddle."""


def directed_error(error: ArrayLike, area: ArrayLike) -> DirectedError:
    """The summary of signed errors.

    Args:
        error: (n,) mm, n ≥ 1.
        area: (n,) mm², the weight of each.

    >>> error = directed_error([1.0, -3.0], [3.0, 1.0])
    >>> error.mean_mm, error.absolute_mm, error.max_mm
    (0.0, 1.5, 3.0)
    """
    e, w = np.asarray(error, dtype=float), np.asarray(area, dtype=float)
    size = np.abs(e)
    mean = float(np.average(e, weights=w))
    return DirectedError(
        mean,
        float(np.sqrt(np.average((e - mean) ** 2, weights=w))),
        float(np.average(size, weights=w)),
        float(np.sqrt(np.average(e**2, weights=w))),
        weighted_percentile(size, w, 95),
        float(size.max()),
    )


def surface_errors(predicted: pv.PolyData, truth: pv.PolyData) -> SurfaceErrors:
    """Signed errors in both directions.

    Args:
        predicted, truth: triangles in world mm whose normals point outwards, such as those of
            :func:`shapeloss.metrics.mesh.label_surface`. A prediction without points has infinite errors.

    Raises:
        ValueError: for a truth without points.
    """
    return _surface_errors(predicted, truth, _truths_error(predicted, truth))


def _truths_error(predicted: pv.PolyData, truth: pv.PolyData) -> NDArray[np.float64]:
    """(n,) mm, the signed distance of the true vertices to the prediction; infinite where that has no points."""
    if truth.n_points == 0:
        surface_error(predicted, truth)  # refuses it
    return surface_error(truth, predicted) if predicted.n_points else np.full(truth.n_points, np.inf)


def _surface_errors(predicted: pv.PolyData, truth: pv.PolyData, truths_error: NDArray[np.float64]) -> SurfaceErrors:
    if predicted.n_points == 0:
        nothing = DirectedError(*[float("inf")] * 6)
        return SurfaceErrors(nothing, nothing)
    return SurfaceErrors(
        directed_error(surface_error(predicted, truth), vertex_areas(predicted)),
        # where the truth lies outside the prediction, the prediction lies inside the truth
        directed_error(-truths_error, vertex_areas(truth)),
    )


SHAPE_ERRORS = {
    "bias_mm": "mean signed error: above 0, the prediction is too large",
    "absolute_mm": "mean size of the error",
    "p95_mm": "95 % of the surface is at most so far off",
    "max_mm": "largest error",
    "missed_mm": "mean size of the error as the truth sees it: what a prediction lacks counts",
    "curvature_weighted_mm": "the same, each place weighted by the size of the truth's mean curvature",
}
"""The scores of :meth:`TrueShape.errors`, all in mm; the first four from the predicted surface to the truth."""


@dataclass(frozen=True)
class TrueShape:
    """A structure of a truth, with which predictions are compared."""

    surface: pv.PolyData
    mean_curvature: NDArray[np.float64]
    """(n,), 1/mm, at the surface's points."""
    spacing: tuple[float, ...]
    affine: NDArray[Any] | None

    @classmethod
    def of(cls, mask: NDArray[Any], spacing: Sequence[float], affine: NDArray[Any] | None = None) -> TrueShape | None:
        """The shape of a mask; None where it has no surface: the structure is absent, or fills the volume.

        Args:
            mask, spacing, affine: as for :func:`shapeloss.metrics.mesh.label_surface`.
        """
        surface = label_surface(mask, spacing, affine)
        if surface.n_points == 0:
            return None
        curvature = surface_curvature(mask, spacing, surface.points, affine).mean
        return cls(surface, curvature, tuple(spacing), affine)

    def errors(self, mask: NDArray[Any]) -> dict[str, float]:
        """The scores of :data:`SHAPE_ERRORS` of a predicted mask (X, Y, Z); infinite where it has no surface."""
        predicted = label_surface(mask, self.spacing, self.affine)
        error = _truths_error(predicted, self.surface)  # takes most of the time: once
        both = _surface_errors(predicted, self.surface, error)
        one, weighted = both.predicted, _curvature_weighted(error, self.surface, self.mean_curvature)
        values = one.mean_mm, one.absolute_mm, one.p95_mm, one.max_mm, both.truth.absolute_mm, weighted
        return dict(zip(SHAPE_ERRORS, values, strict=True))


def curvature_weighted_error(predicted: pv.PolyData, truth: pv.PolyData, mean_curvature: ArrayLike) -> float:
    """Mean absolute distance in mm of the true surface from the predicted one, each place weighted by its curvature.

    Σ a |H| |e| / Σ a |H| over the vertices of the truth: a their areas, H the true surface's mean curvature, e their
    signed distance to the prediction. Rims and ridges count more than flat parts, at which smooth predictions are good
    anyway. It is this project's own proposal; no source of it is known.

    Args:
        predicted, truth: as for :func:`surface_errors`.
        mean_curvature: (n,) 1/mm at the vertices of the truth, of :func:`surface_curvature`.

    Raises:
        ValueError: for a truth without points, another number of values, or curvatures that are all zero.
    """
    return _curvature_weighted(_truths_error(predicted, truth), truth, mean_curvature)


def _curvature_weighted(error: NDArray[np.float64], truth: pv.PolyData, mean_curvature: ArrayLike) -> float:
    weight = np.abs(np.asarray(mean_curvature, dtype=float))
    if weight.shape != (truth.n_points,):
        raise ValueError(
            f"mean_curvature must have a value for each of the {truth.n_points} true vertices, got {weight.shape}"
        )
    if np.isinf(error).any():
        return float("inf")
    weight = weight * vertex_areas(truth)
    if not weight.sum() > 0:
        raise ValueError("mean_curvature is zero everywhere: a flat surface has no weights; use surface_errors")
    return float(np.average(np.abs(error), weights=weight))


def surface_curvature(
    mask: NDArray[Any],
    spacing: Sequence[float],
    points: ArrayLike,
    affine: NDArray[Any] | None = None,
    smoothing_mm: float | None = None,
) -> Curvature:
    """Mean and Gaussian curvature of a structure's surface at points on it.

    The derivatives of the signed distance are taken by Gaussian derivative filters, and the curvatures of its level
    sets follow from them (Goldman, Comput Aided Geom Des 2005, 22:632–658). Beyond the field of view, a structure goes
    on as it left it.

    Args:
        mask: (X, Y, Z), bool or 0 and 1, neither empty nor full.
        spacing: mm along X, Y, Z.
        points: (n, 3) world mm on the surface, such as the points of :func:`shapeloss.metrics.mesh.label_surface`.
        affine: (4, 4) voxel → world mm; without it, world mm are voxel indices times spacing.
        smoothing_mm: standard deviation of the Gaussian, raised to a voxel along each axis; default :data:`SMOOTHING`
            times the root of the longest voxel side in mm.

    Raises:
        ValueError: for a mask, spacing or smoothing that cannot be used.
    """
    mask, spacing = check_labels(mask, spacing)
    if mask.ndim != 3 or mask.max() > 1 or not mask.any() or mask.all():
        raise ValueError("mask must be one structure as a 3D array of 0 and 1, neither empty nor full")
    if smoothing_mm is not None and not (np.isfinite(smoothing_mm) and smoothing_mm > 0):
        raise ValueError(f"smoothing_mm must be a positive number of mm, or None, got {smoothing_mm!r}")
    steps = np.asarray(spacing)
    sigma = SMOOTHING * np.sqrt(steps.max()) if smoothing_mm is None else smoothing_mm
    sigmas = np.maximum(sigma / steps, 1.0)  # voxels
    margin = np.ceil(5 * sigmas).astype(int)  # the filters reach to 4
    inside = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    padded = np.pad(mask.astype(bool), [(m, m) for m in margin], mode="edge")
    crop = tuple(slice(i[0], i[-1] + 2 * m + 1) for i, m in zip(inside, margin, strict=True))
    distance = np.where(padded[crop], -1.0, 1.0) * boundary_distance(padded[crop], spacing).astype(np.float64)
    matrix = np.diag([*spacing, 1.0]) if affine is None else np.asarray(affine, dtype=float)
    where = (np.asarray(points, dtype=float) - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T
    places = (where - [i[0] for i in inside] + margin).T

    def derivative(*axes: int) -> NDArray[np.float64]:
        order = [axes.count(axis) for axis in range(3)]
        filtered = ndimage.gaussian_filter(distance, sigmas, order=order, mode="nearest") / np.prod(steps[list(axes)])
        return np.asarray(ndimage.map_coordinates(filtered, places, order=3, mode="nearest"))

    x, y, z = (derivative(axis) for axis in range(3))
    xx, yy, zz = (derivative(axis, axis) for axis in range(3))
    xy, xz, yz = derivative(0, 1), derivative(0, 2), derivative(1, 2)
    square = np.maximum(x * x + y * y + z * z, 1e-12)
    mean = (yy + zz) * x * x + (xx + zz) * y * y + (xx + yy) * z * z - 2 * (x * y * xy + x * z * xz + y * z * yz)
    gaussian = x * x * (yy * zz - yz * yz) + y * y * (xx * zz - xz * xz) + z * z * (xx * yy - xy * xy)
    gaussian += 2 * (x * y * (xz * yz - xy * zz) + y * z * (xy * xz - yz * xx) + x * z * (xy * yz - xz * yy))
    return Curvature(mean / (2 * square**1.5), gaussian / square**2)
