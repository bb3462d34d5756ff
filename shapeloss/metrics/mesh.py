"""Label map → smooth mesh in world mm, the distance of one mesh from another, and biomarkers of shape.

Voxels are often anisotropic (a DESS knee: 0.7 × 0.365 × 0.365 mm), and a mesh of the bare mask has stairs of a voxel's
height. The mesh here is drawn through the mask's signed distance instead (shape-based interpolation: Raya & Udupa, IEEE
Trans Med Imaging 1990), on a finer, near-isotropic grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import marching_cubes

from shapeloss._extras import require
from shapeloss.distance import boundary_distance, check_labels
from shapeloss.metrics.triangles import corner_areas, crop, resample

if TYPE_CHECKING:
    import pyvista as pv


def label_surface(
    mask: NDArray[Any],
    spacing: Sequence[float],
    affine: NDArray[Any] | None = None,
    resolution: float | None = None,
    smoothing_mm: float | None = None,
) -> pv.PolyData:
    """The surface of one structure as a triangle mesh, its normals pointing outwards.

    The signed distance of the mask is smoothed by a Gaussian, sampled on a fine grid, and cut by marching cubes at the
    level that encloses the mask's own volume: 0 without smoothing, a little above it with smoothing, which shrinks what
    is convex. Where the structure leaves the field of view, the mesh is open: a cut is not a surface.

    Args:
        mask: (X, Y, Z), bool or 0 and 1.
        spacing: mm between voxel centres along X, Y, Z.
        affine: (4, 4), voxel → world mm, of the same spacing; without it, world mm are voxel indices times spacing.
        resolution: mm between the points of the fine grid; default half the smallest spacing, and 0.5 at least.
        smoothing_mm: standard deviation of the Gaussian; default one voxel along each axis, half a voxel at least.

    Returns:
        Triangles with points in world mm. Without points for an empty mask, and for one that fills the volume.

    Raises:
        ValueError: for a mask, spacing, affine or number that cannot be used.
    """
    mask, spacing = _check_mask(mask, spacing)
    matrix = _check_affine(affine, spacing)
    if resolution is not None and not (np.isfinite(resolution) and resolution > 0):
        raise ValueError(f"resolution must be a positive number of mm, or None, got {resolution!r}")
    if smoothing_mm is not None and not (np.isfinite(smoothing_mm) and smoothing_mm >= 0):
        raise ValueError(f"smoothing_mm must be a number of mm that is not negative, or None, got {smoothing_mm!r}")
    if not mask.any() or mask.all():
        return _pyvista().PolyData()

    field, first, fine = _signed_distance(mask, spacing, resolution, smoothing_mm)
    enclosed = round(np.count_nonzero(mask) * float(np.prod(spacing) / np.prod(fine)))
    enclosed = int(np.clip(enclosed, 1, field.size - 1))
    below, above = np.partition(field.ravel(), (enclosed - 1, enclosed))[enclosed - 1 : enclosed + 1]
    # with "descent" the triangles of a field that rises outwards turn outwards, on which the sign of a distance rests
    vertices, triangles, _, _ = marching_cubes(field, (below + above) / 2, gradient_direction="descent")
    points = (first + vertices * fine / spacing) @ matrix[:3, :3].T + matrix[:3, 3]
    if np.linalg.det(matrix[:3, :3]) < 0:  # the affine mirrors, and mirrored triangles point inwards
        triangles = triangles[:, ::-1]
    return _pyvista().PolyData.from_regular_faces(points, triangles)


@dataclass(frozen=True)
class RegionError:
    """How far two surfaces are apart near a landmark."""

    mean_mm: float
    """Mean absolute distance, each surface weighted by its area in the region."""
    max_mm: float
    """Largest absolute distance."""


@dataclass(frozen=True)
class ShapeBiomarkers:
    """Size and shape of one structure, as far as it lies in the field of view."""

    volume_cm3: float
    surface_cm2: float
    """Area of the smooth surface; where the structure leaves the field of view, the cut does not count."""
    extents_mm: tuple[float, float, float]
    """Side lengths of the bounding box along X, Y, Z."""
    inscribed_radius_mm: float
    """Largest distance from the centre of a voxel inside to the nearest one outside; a cut is no outside."""
    sphericity: float
    """π^(1/3) (6 V)^(2/3) / A: 1 for a ball, less for all else; here A includes the cuts, which close the shape."""


def surface_error(predicted: pv.PolyData, truth: pv.PolyData) -> NDArray[np.float64]:
    """Signed distance in mm from each vertex of the predicted surface to the true surface: outside it, positive.

    It says nothing about true surface that the prediction lacks; :func:`region_error` does.

    Args:
        predicted: any mesh; without points, the result is empty.
        truth: triangles whose normals point outwards, such as those of :func:`label_surface`.

    Raises:
        ValueError: for a truth without points.
    """
    if truth.n_points == 0:
        raise ValueError("truth has no surface to measure a distance from: the structure is absent or fills the volume")
    if predicted.n_points == 0:
        return np.empty(0)
    # the points alone: the mesh of the caller gets no array that it did not ask for
    bare = _pyvista().PolyData(predicted.points)
    return np.asarray(bare.compute_implicit_distance(truth)["implicit_distance"], dtype=np.float64)


def region_error(
    predicted: pv.PolyData, truth: pv.PolyData, landmark: Sequence[float], radius_mm: float
) -> RegionError:
    """Absolute distance between two surfaces within a ball around a landmark.

    Both directions count, the predicted surface from the truth and the truth from the predicted surface, so that a
    part that the prediction lacks is an error too. A prediction without any surface has infinite errors.

    Args:
        predicted: triangles, world mm.
        truth: triangles, world mm, with some of its surface within the ball.
        landmark: (3,), world mm.
        radius_mm: radius of the ball.

    Raises:
        ValueError: for a landmark or radius that cannot be used, and if no true surface lies within the ball.
    """
    center = np.asarray(landmark, dtype=np.float64)
    if center.shape != (3,) or not np.isfinite(center).all():
        raise ValueError(f"landmark must be three world coordinates in mm, got {landmark!r}")
    if not (np.isfinite(radius_mm) and radius_mm > 0):
        raise ValueError(f"radius_mm must be a positive number of mm, got {radius_mm!r}")
    errors, areas = [], []
    for surface, other in ((truth, predicted), (predicted, truth)):
        near = np.linalg.norm(surface.points - center, axis=1) <= radius_mm
        if surface is truth and not near.any():
            raise ValueError(
                f"no true surface lies within {radius_mm} mm of the landmark {center.tolist()}; "
                "check that landmark and mesh are in the same world coordinates, or enlarge radius_mm"
            )
        if other.n_points == 0:
            return RegionError(float("inf"), float("inf"))
        errors.append(np.abs(surface_error(_pyvista().PolyData(surface.points[near]), other)))
        areas.append(vertex_areas(surface)[near])
    error, area = np.concatenate(errors), np.concatenate(areas)
    return RegionError(float(np.average(error, weights=area)), float(error.max()))


def shape_biomarkers(mask: NDArray[Any], spacing: Sequence[float]) -> ShapeBiomarkers:
    """Volume, surface, extents, inscribed radius and sphericity of one structure.

    The volume is that of the voxels, the surface that of :func:`label_surface`: the bare faces of the voxels would
    overstate it by half. An empty mask has zeros and a sphericity of NaN; for one that fills the volume, no surface is
    in view, and the inscribed radius is NaN too.

    Args:
        mask: (X, Y, Z), bool or 0 and 1.
        spacing: mm along X, Y, Z.

    Raises:
        ValueError: for a mask or spacing that cannot be used.
    """
    mask, spacing = _check_mask(mask, spacing)
    volume = float(np.count_nonzero(mask) * np.prod(spacing))
    if volume == 0:
        return ShapeBiomarkers(0.0, 0.0, (0.0, 0.0, 0.0), 0.0, float("nan"))
    x, y, z = (
        float(np.ptp(np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))) + 1) * spacing[axis] for axis in range(3)
    )
    cuts = sum(
        np.count_nonzero(np.take(mask, end, axis)) * float(np.prod(spacing) / spacing[axis])
        for axis in range(3)
        for end in (0, -1)
    )
    surface = label_surface(mask, spacing)
    radius = float("nan") if mask.all() else float(boundary_distance(mask, spacing)[mask].max())
    sphericity = np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / (surface.area + cuts)
    return ShapeBiomarkers(volume / 1000, surface.area / 100, (x, y, z), radius, float(sphericity))


def _pyvista() -> Any:
    """PyVista, which only meshes need, so that the other metrics load without it."""
    require("reproduce", "pyvista")
    import pyvista

    return pyvista


def _check_mask(mask: NDArray[Any], spacing: Sequence[float]) -> tuple[NDArray[np.bool_], tuple[float, ...]]:
    mask, spacing = check_labels(mask, spacing)
    if mask.ndim != 3 or mask.max() > 1:
        raise ValueError(
            f"mask must be one structure as a 3D array (X, Y, Z) of 0 and 1, got shape {mask.shape} with a largest "
            f"value of {mask.max()}; of a label map take labels == value"
        )
    return mask.astype(bool), spacing


def _check_affine(affine: NDArray[Any] | None, spacing: tuple[float, ...]) -> NDArray[np.float64]:
    if affine is None:
        return np.diag([*spacing, 1.0])
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ValueError(f"affine must be a finite (4, 4) matrix from voxels to world mm, got {affine!r}")
    columns = np.linalg.norm(matrix[:3, :3], axis=0)
    if not np.allclose(columns, spacing, rtol=1e-3):
        raise ValueError(f"affine has a spacing of {columns.round(4).tolist()} mm, but spacing is {list(spacing)}")
    return matrix


def mesh_arrays(mesh: pv.PolyData) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Its points (N, 3) in mm and its triangles (M, 3) as numbers of points."""
    triangles = mesh.regular_faces if mesh.n_points else np.zeros((0, 3))
    return np.asarray(mesh.points, dtype=np.float64), np.asarray(triangles, dtype=np.intp)


def vertex_areas(mesh: pv.PolyData) -> NDArray[np.float64]:
    """The area in mm² that each vertex stands for: a third of the triangles around it."""
    return corner_areas(mesh.points, mesh.regular_faces)


def _signed_distance(
    mask: NDArray[Any], spacing: tuple[float, ...], resolution: float | None = None, smoothing_mm: float | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """The smoothed signed distance in mm (inside negative) around a structure, on a fine grid.

    Returns the field, the voxel index of its first point, and the mm between its points.
    """
    first, padded = crop(mask)
    distance = np.where(padded, -1, 1) * boundary_distance(padded, spacing)
    resolution = max(min(spacing) / 2, 0.5) if resolution is None else resolution
    sigmas = [1.0 if smoothing_mm is None else max(smoothing_mm / step, 0.5) for step in spacing]
    return resample(distance, first, spacing, resolution, sigmas)
