"""The surface of a mask as triangles, and exact distances to it, in plain arrays.

A mask tells where a surface runs to half a voxel. Smoothing gathers what the neighbours say about it: the mask is
blurred by a Gaussian and cut by marching cubes, at the level that encloses the mask's own volume. That rounds sharp
edges and wears sheets of one or two voxels; without smoothing, the triangles are those of the bare mask, with its
stairs. What each costs is measured: reproduce/benchmarks/accuracy.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from skimage.measure import marching_cubes

from shapeloss._extras import require
from shapeloss._typing import Floats

MARGIN = 2
"""Voxels around a structure within which its surface lies."""
REACH = 3
"""Standard deviations of the smoothing Gaussian that are taken into account, and voxels that are padded for it."""

Triangles = NDArray[np.intp]


def surface_triangles(
    mask: NDArray[np.bool_], spacing: Sequence[float], smoothing_voxels: float
) -> tuple[Floats, Triangles]:
    """The surface of one structure; where it leaves the array, the surface is open.

    The grid of the triangles is laid into the array: surfaces that are to be compared need arrays of one field of view,
    or where they are the same they would differ by the grid.

    Args:
        mask: (X, Y, Z), bool.
        spacing: mm between voxel centres along X, Y, Z.
        smoothing_voxels: standard deviation of the Gaussian along each axis, from 0.5 to 1; 0 for the bare mask.

    Returns:
        Corners, (N, 3) in mm from the centre of voxel (0, 0, 0), and triangles, (M, 3) numbers of corners. Both are
        empty for an empty mask and for one that fills the array.
    """
    if not mask.any() or mask.all():
        return np.empty((0, 3)), np.empty((0, 3), np.intp)
    field, first, fine, level = mask.astype(np.float32), np.zeros(3), np.asarray(spacing, np.float64), 0.5
    if smoothing_voxels:
        # as coarse as the coarsest axis, if the smoothing allows it: triangles cost time, a smooth surface needs few
        resolution = min(max(spacing), 2.5 * smoothing_voxels * min(spacing))
        field = np.pad(field, REACH, mode="edge")
        field, first, fine = resample(field, (0, 0, 0), spacing, resolution, [smoothing_voxels] * 3)
        level = _enclosing(field, np.count_nonzero(mask) * float(np.prod(spacing) / np.prod(fine)))
    corners, triangles, _, _ = marching_cubes(np.pad(field, _thin(field), mode="edge"), level, allow_degenerate=False)
    return first * np.asarray(spacing) + corners.astype(np.float64) * fine, triangles.astype(np.intp)


def triangle_distances(points: Floats, corners: Floats, triangles: Triangles) -> Floats:
    """Distance in mm from each point to the nearest place on the triangles, exact to float64; by libigl's AABB tree.

    Infinity where there are no triangles.
    """
    if not len(points) or not len(triangles):
        return np.full(len(points), np.inf)
    require("review", "igl")
    import igl  # here, since no other metric needs it

    squared = igl.point_mesh_squared_distance(points, corners, triangles.astype(np.int64))[0]
    return np.sqrt(np.asarray(squared, np.float64).reshape(-1))


def corner_areas(corners: NDArray[Any], triangles: NDArray[Any]) -> Floats:
    """The area in mm² that each corner stands for: a third of the triangles around it."""
    a, b, c = corners[triangles].transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    return np.bincount(triangles.ravel(), np.repeat(area / 3, 3), minlength=len(corners)).astype(np.float64)


def crop(mask: NDArray[np.bool_]) -> tuple[list[int], NDArray[np.bool_]]:
    """The voxels around a structure, and `REACH` more on each side: index of their first, and the padded mask.

    Beyond the array a structure goes on as it left it.
    """
    occupied = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    first = [max(int(line[0]) - MARGIN, 0) for line in occupied]
    count = [
        min(int(line[-1]) + MARGIN, size - 1) - start + 1
        for line, start, size in zip(occupied, first, mask.shape, strict=True)
    ]
    padded = np.pad(mask, REACH, mode="edge")[
        tuple(slice(f, f + n + 2 * REACH) for f, n in zip(first, count, strict=True))
    ]
    return first, padded


def resample(
    field: NDArray[np.float32],
    first: Sequence[int],
    spacing: Sequence[float],
    resolution: float,
    sigmas: Sequence[float],
) -> tuple[NDArray[np.float32], Floats, Floats]:
    """A padded field, smoothed and sampled on a near-isotropic grid that ends at the faces of the outermost voxels.

    Args:
        field: with `REACH` voxels around what is sampled.
        first: voxel index of the first voxel that is sampled.
        spacing: mm between voxel centres.
        resolution: mm between the points of the new grid.
        sigmas: standard deviation of the Gaussian along each axis, in voxels.

    Returns:
        The field, the voxel index of its first point, and the mm between its points.
    """
    starts, fines = [], []
    for axis, (step, sigma) in enumerate(zip(spacing, sigmas, strict=True)):
        size = field.shape[axis] - 2 * REACH
        samples = max(round(size * step / resolution), 2)
        centres = (np.arange(samples) + 0.5) * (size / samples) - 0.5  # of the fine cells, in voxels
        away = (centres[:, None] - np.arange(-REACH, size + REACH)[None, :]) / sigma
        weights = np.where(np.abs(away) <= REACH, np.exp(-(away**2) / 2), 0)
        weights /= weights.sum(axis=1, keepdims=True)
        field = np.moveaxis(np.tensordot(weights.astype(np.float32), field, axes=(1, axis)), 0, axis)
        starts.append(first[axis] + centres[0])
        fines.append(step * size / samples)
    return field, np.array(starts), np.array(fines)


def _enclosing(field: NDArray[np.float32], volume: float) -> float:
    """The level of a blurred mask that encloses a volume, in cells of its grid.

    A cell near the level counts by its part, as if the field rose by the width h across it; by whole cells, the level
    of a small structure would depend on where it lies in the grid.
    """
    values = field[(field > 0) & (field < 1)].astype(np.float64)
    rest = volume - float((field >= 1).sum())

    def lacking(level: float) -> float:
        h = min(0.5, 2 * level, 2 * (1 - level))  # so that 0 is outside and 1 is inside, whatever the level
        return rest - float(np.clip((values - level) / h + 0.5, 0, 1).sum())

    low, high = 1e-6, 1 - 1e-6
    level = low if lacking(low) >= 0 else high if lacking(high) <= 0 else brentq(lacking, low, high, xtol=1e-4)
    # a structure that is smaller than a cell of the grid has a surface too
    least, most = float(field.min()), float(field.max())
    return float(np.clip(level, least + (most - least) / 4, most - (most - least) / 4))


def _thin(field: NDArray[np.float32]) -> list[tuple[int, int]]:
    """One more layer where there is a single one, for marching cubes."""
    return [(0, int(size < 2)) for size in field.shape]
