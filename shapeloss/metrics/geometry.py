"""Two masks → their geometry, measured once: voxel counts, boundaries, and the distances between their surfaces.

- *Voxel* surfaces are the boundary voxels of a mask, the mask minus its erosion (4 neighbours within the slice, or 6 in
  3D), all of equal weight, at the centres of the voxels. *Surface elements* are those of marching cubes, weighted by
  their area in mm², each at the centre of its cell between 2 × 2 × 2 voxels (Nikolov et al. 2021, arXiv:1809.04430).
  A *mesh* has the triangles of the smoothed mask; distances run from its corners, weighted by their area, to the
  nearest place on the other's triangles (:mod:`shapeloss.metrics.triangles`). It alone has little bias.
- The edge of the field of view is not a boundary: where a femur leaves the image, nobody drew an outline
  (`edge="open"`: a mask goes on beyond the edge as it is at the edge). `edge="closed"` cuts the mask there, as most
  libraries do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import inf
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from skimage.measure import marching_cubes, mesh_surface_area

from shapeloss._typing import Floats
from shapeloss.distance import check_spacing
from shapeloss.metrics.triangles import corner_areas, surface_triangles, triangle_distances

Edge = Literal["open", "closed"]
Mask = NDArray[np.bool_]

SMOOTHING = 0.8
"""Standard deviation of the mesh's Gaussian, in voxels: see reproduce/benchmarks/accuracy.md for what others do."""
INNER = (slice(1, -1),) * 3
"""A geometry's masks without their rim."""


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """From each element of one surface to the nearest element of the other; infinity where there is none."""

    from_truth: Floats
    from_prediction: Floats
    truth_weights: Floats
    prediction_weights: Floats


@dataclass(frozen=True, eq=False)
class MaskGeometry:
    """A pair of masks and what the metrics need of them, each part computed when it is first asked for.

    Made by :func:`mask_geometry`. The masks are cropped to the bounding box of their union and have a rim of one voxel
    that says how they go on beyond it; their first axis is the slice axis.
    """

    truth: Mask
    prediction: Mask
    spacing: tuple[float, float, float]
    """mm, in the order of the axes that the masks have here."""
    diagonal: float
    """D in mm, from corner to corner of the field of view: the distance to a surface that is not there."""
    smoothing_voxels: float = SMOOTHING
    """Standard deviation of the Gaussian that the mesh is smoothed by, along each axis; 0 for the bare mask."""

    @cached_property
    def voxels(self) -> tuple[int, int, int]:
        """Number of voxels in the truth, in the prediction, and in both."""
        truth, prediction = self.truth[INNER], self.prediction[INNER]
        return int(truth.sum()), int(prediction.sum()), int((truth & prediction).sum())

    @property
    def equal(self) -> bool:
        return len(set(self.voxels)) == 1

    @cached_property
    def boundaries(self) -> tuple[Mask, Mask]:
        """Truth and prediction minus their 3D 6-connected erosion, without the rim."""
        return _boundary(self.truth, axes=(0, 1, 2)), _boundary(self.prediction, axes=(0, 1, 2))

    @cached_property
    def in_plane_distances_vx(self) -> SurfaceDistances:
        """In voxels, within each slice, between the boundary voxels there (mask minus its 2D 4-connected erosion)."""
        truth, prediction = _boundary(self.truth, axes=(1, 2)), _boundary(self.prediction, axes=(1, 2))
        apart = float(sum(truth.shape))  # slices lie farther from each other than any two voxels of one slice
        return _between_voxels(truth, prediction, (apart, 1, 1), limit=apart)

    @cached_property
    def distances_vx(self) -> SurfaceDistances:
        """In voxels, between the boundary voxels in 3D."""
        return _between_voxels(*self.boundaries, (1, 1, 1))

    @cached_property
    def voxel_distances(self) -> SurfaceDistances:
        """In mm, between the boundary voxels in 3D."""
        return _between_voxels(*self.boundaries, self.spacing)

    @cached_property
    def element_distances(self) -> SurfaceDistances:
        """In mm, between the surface elements of marching cubes, weighted by their area in mm²."""
        areas = _element_areas(self.spacing)
        truth, prediction = areas[_cell_codes(self.truth)], areas[_cell_codes(self.prediction)]
        return SurfaceDistances(
            _to_nearest(truth > 0, prediction > 0, self.spacing),
            _to_nearest(prediction > 0, truth > 0, self.spacing),
            truth[truth > 0],
            prediction[prediction > 0],
        )

    @cached_property
    def mesh_distances(self) -> SurfaceDistances:
        """In mm, from the corners of one mesh to the triangles of the other, weighted by their area in mm²."""
        # where a mask goes on in the rim, the mesh ends at the edge of the field of view; elsewhere it gets room
        both = self.truth | self.prediction
        box = tuple(
            slice(2 if both.take(0, axis).any() else 0, -2 if both.take(-1, axis).any() else None) for axis in range(3)
        )
        truth, prediction = (
            surface_triangles(np.pad(mask, 1)[box], self.spacing, self.smoothing_voxels)
            for mask in (self.truth, self.prediction)
        )
        return SurfaceDistances(
            triangle_distances(truth[0], *prediction),
            triangle_distances(prediction[0], *truth),
            corner_areas(*truth),
            corner_areas(*prediction),
        )


def mask_geometry(
    truth: NDArray[Any],
    prediction: NDArray[Any],
    spacing: Sequence[float],
    slice_axis: int = 0,
    edge: Edge = "open",
    smoothing_voxels: float = SMOOTHING,
) -> MaskGeometry:
    """Measure a pair of masks once, for all metrics.

    Args:
        truth, prediction: (X, Y, Z), bool, or integers 0 and 1.
        spacing: mm between voxel centres along X, Y, Z.
        slice_axis: the axis perpendicular to the slices of the in-plane boundary (0: sagittal slices along X).
        edge: "open", the edge of the field of view is not a boundary; "closed", it is.
        smoothing_voxels: standard deviation of the Gaussian that the mesh is smoothed by, in voxels along each axis,
            from 0.5 to 1; 0 for the bare mask: for sheets of one or two voxels, such as cartilage, which smoothing
            wears. Only the scores of the mesh depend on it.

    Raises:
        ValueError: for masks of different shapes, of other than three axes or with other values, and for a spacing,
            a slice axis, an edge or a smoothing that cannot be used.

    >>> truth = np.zeros((4, 6, 6), bool)
    >>> truth[1:3, 1:4, 1:4] = True
    >>> geometry = mask_geometry(truth, np.roll(truth, 1, axis=1), spacing=(0.7, 0.365, 0.365))
    >>> geometry.voxels
    (18, 18, 12)
    >>> float(geometry.voxel_distances.from_truth.max())
    0.365
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    spacing = check_grid(truth, prediction, spacing)
    check_choice("edge", edge, get_args(Edge))
    check_choice("slice_axis", slice_axis, (0, 1, 2))
    if not (smoothing_voxels == 0 or 0.5 <= smoothing_voxels <= 1):
        raise ValueError(f"smoothing_voxels must be 0, or a number from 0.5 to 1, got {smoothing_voxels!r}")
    truth, prediction = _as_mask("truth", truth), _as_mask("prediction", prediction)
    box = _bounding_box(truth | prediction)
    order = (slice_axis, *(axis for axis in range(3) if axis != slice_axis))

    def crop(mask: Mask) -> Mask:
        # the box has a margin of background except where it meets the edge of the field of view
        rimmed = np.pad(mask[box], 1, mode="edge") if edge == "open" else np.pad(mask[box], 1)
        return np.ascontiguousarray(rimmed.transpose(order))

    return MaskGeometry(
        truth=crop(truth),
        prediction=crop(prediction),
        spacing=(spacing[order[0]], spacing[order[1]], spacing[order[2]]),
        diagonal=float(np.linalg.norm(np.multiply(truth.shape, spacing))),
        smoothing_voxels=smoothing_voxels,
    )


def _to_nearest(source: Mask, target: Mask, spacing: Sequence[float], limit: float = inf) -> Floats:
    """From each voxel of source, in the order of the array, to the nearest of target, exact to float64.

    Infinity where none is nearer than `limit`. Surfaces have few voxels: a tree of them is as fast as a distance
    transform of the box for small masks, and faster for large ones.
    """
    found = np.flatnonzero(source)
    if not len(found) or not target.any():
        return np.full(len(found), inf)
    distances = np.zeros(len(found))
    apart = ~target.ravel()[found]  # the others lie on the target
    # unbalanced: two parallel surfaces, far from each other, are searched in half the time
    tree = KDTree(_points(np.flatnonzero(target), target.shape, spacing), balanced_tree=False, compact_nodes=False)
    distances[apart], _ = tree.query(_points(found[apart], source.shape, spacing), distance_upper_bound=limit)
    return distances


def _points(indices: NDArray[np.intp], shape: tuple[int, ...], spacing: Sequence[float]) -> Floats:
    """(N, 3) in mm, of flat indices; several times as fast as `argwhere`."""
    points: Floats = np.stack(np.unravel_index(indices, shape), axis=1).astype(np.float64)
    return points * np.asarray(spacing, dtype=np.float64)


def check_grid(truth: NDArray[Any], prediction: NDArray[Any], spacing: Sequence[float]) -> tuple[float, ...]:
    """The spacing as numbers, if both arrays are volumes on one grid and it fits them."""
    if truth.shape != prediction.shape or truth.ndim != 3 or truth.size == 0:
        raise ValueError(
            "truth and prediction must be two volumes (X, Y, Z) on one grid, with voxels in it, "
            f"got shapes {truth.shape} and {prediction.shape}; "
            + ("give a slice its third axis" if truth.shape == prediction.shape else "resample the prediction")
        )
    return check_spacing(spacing, axes=3)


def check_choice(name: str, value: object, expected: Sequence[object]) -> None:
    if value not in expected:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, expected))}, got {value!r}")


def _between_voxels(truth: Mask, prediction: Mask, spacing: Sequence[float], limit: float = inf) -> SurfaceDistances:
    from_truth = _to_nearest(truth, prediction, spacing, limit)
    from_prediction = _to_nearest(prediction, truth, spacing, limit)
    return SurfaceDistances(from_truth, from_prediction, np.ones(len(from_truth)), np.ones(len(from_prediction)))


def _boundary(mask: Mask, axes: Sequence[int]) -> Mask:
    """The mask without its rim, minus its erosion by both neighbours along each of `axes`."""
    eroded = mask[INNER].copy()
    for axis in axes:
        for neighbour in (slice(None, -2), slice(2, None)):
            eroded &= mask[(*INNER[:axis], neighbour, *INNER[axis + 1 :])]
    return mask[INNER] & ~eroded


def _cell_codes(mask: Mask) -> NDArray[np.uint8]:
    """For each cell between 2 × 2 × 2 voxels of the mask with its rim: which of the eight are in the mask, as bits."""
    codes = np.zeros(tuple(n - 1 for n in mask.shape), np.uint8)
    for bit, corner in enumerate(np.ndindex(2, 2, 2)):
        window = tuple(slice(i, i + n) for i, n in zip(corner, codes.shape, strict=True))
        codes |= mask[window].view(np.uint8) << np.uint8(bit)
    return codes


@lru_cache(maxsize=16)
def _element_areas(spacing: tuple[float, float, float]) -> Floats:
    """Area in mm² of the marching-cubes surface within a cell, for each of the 256 codes of :func:`_cell_codes`."""
    areas = np.zeros(256)
    for code in range(1, 255):
        # ambiguous cells: drawn from their smaller side, as by Nikolov et al., a mask and its complement have one area
        smaller = code if code.bit_count() <= 4 else 255 - code
        cell = np.array([smaller >> bit & 1 for bit in range(8)], float).reshape(2, 2, 2)
        vertices, faces, *_ = marching_cubes(cell, 0.5, method="lorensen")  # half voxels, exact in its float32
        areas[code] = mesh_surface_area(vertices * np.array(spacing), faces)
    return areas


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box that holds the mask, one voxel larger on each side where the array allows it."""
    box = [slice(0, 1)] * 3
    if mask.any():
        for axis in range(3):
            occupied = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
            box[axis] = slice(max(int(occupied[0]) - 1, 0), int(occupied[-1]) + 2)
    return tuple(box)


def _as_mask(name: str, mask: NDArray[Any]) -> Mask:
    if mask.dtype.kind in "iu" and mask.min() >= 0 and mask.max() <= 1:
        return mask.astype(bool)
    if mask.dtype != bool:
        raise ValueError(
            f"{name} must be a mask, bool or integers 0 and 1, got dtype {mask.dtype} with values from {mask.min()} "
            f"to {mask.max()}; select one structure with labels == k"
        )
    return mask
