"""The surface of a bone as biomarkers need it: its points, and its cuts by planes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from shapeloss.metrics.mesh import label_surface

Vector = NDArray[np.float64]

CUT_MM = 1.0
"""An extreme point so near to where the field of view cuts the bone is not the bone's own."""


class NotMeasurable(Exception):
    """What is to be measured is not there, or not in view; the text says why."""


@dataclass(frozen=True)
class Section:
    """A plane's cut through a surface, in the plane's own coordinates (u, v) in mm.

    Attributes:
        segments: (n, 2, 2): start and end of each segment, the bone on its left.
    """

    segments: Vector

    @property
    def points(self) -> Vector:
        """(n, 2): one end of each segment."""
        return self.segments[:, 0]

    @property
    def is_closed(self) -> bool:
        """Whether there is a section, and each of its curves returns to its start."""
        return bool(
            len(self.segments) and np.linalg.norm((self.segments[:, 1] - self.segments[:, 0]).sum(axis=0)) < 0.1
        )

    def _moments(self) -> tuple[float, Vector, NDArray[np.float64]]:
        """Area, centroid and covariance of the area that the segments enclose, by Green's theorem.

        Raises:
            NotMeasurable: the section is empty, or open.
        """
        if not self.is_closed:
            raise NotMeasurable("the field of view cuts it there")
        a, b = self.segments.transpose(1, 0, 2)
        middle = a.mean(axis=0)
        a, b = a - middle, b - middle
        cross = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
        area = cross.sum() / 2
        centroid = ((a + b) * cross[:, None]).sum(axis=0) / (6 * area)
        c = a + b
        second = np.einsum("i,ij,ik->jk", cross, c, c) + np.einsum("i,ij,ik->jk", cross, a, a)
        second += np.einsum("i,ij,ik->jk", cross, b, b)
        return float(area), centroid + middle, second / (24 * area) - np.outer(centroid, centroid)

    @property
    def area(self) -> float:
        """mm²."""
        return self._moments()[0]

    @property
    def centroid(self) -> Vector:
        """(2,): the centre of the area."""
        return self._moments()[1]

    @property
    def long_axis(self) -> Vector:
        """(2,): the unit vector along which the area reaches farthest from its centre."""
        return np.asarray(np.linalg.eigh(self._moments()[2])[1][:, -1])

    def crossings(self, axis: int, value: float) -> Vector:
        """Where the line on which coordinate `axis` has this value crosses the surface: the other one, sorted."""
        a, b = self.segments.transpose(1, 0, 2)
        crossed = (a[:, axis] <= value) != (b[:, axis] <= value)
        a, b = a[crossed], b[crossed]
        share = (value - a[:, axis]) / (b[:, axis] - a[:, axis])
        return np.sort(a[:, 1 - axis] + share * (b - a)[:, 1 - axis])

    def rays(self, centre: Vector, directions: Vector) -> Vector:
        """(k, 2): where rays from a point, along unit vectors (k, 2), first meet the surface.

        Raises:
            NotMeasurable: a ray meets none.
        """
        a, b = self.segments.transpose(1, 0, 2)
        d, e = directions[:, None, :], (b - a)[None, :, :]
        away = (a - centre)[None, :, :]
        slant = d[..., 0] * e[..., 1] - d[..., 1] * e[..., 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            far = (away[..., 0] * e[..., 1] - away[..., 1] * e[..., 0]) / slant
            along = (away[..., 0] * d[..., 1] - away[..., 1] * d[..., 0]) / slant
        far = np.where((along >= 0) & (along <= 1) & (far > 0), far, np.inf).min(axis=1, initial=np.inf)
        if not np.isfinite(far).all():
            raise NotMeasurable("the field of view cuts it there")
        return centre + far[:, None] * directions


class Bone(Protocol):
    """A bone's surface. Its parts are those of a label map, or of an exact field."""

    @property
    def points(self) -> Vector:
        """(n, 3): points on the surface, world mm."""

    def is_cut(self, point: Vector) -> bool:
        """Whether the field of view cuts the bone at a point of its surface."""

    def section(self, origin: Vector, u: Vector, v: Vector) -> Section:
        """The cut by the plane through a point along two unit vectors at right angles, coordinates p·u and p·v."""

    def covariance(self) -> NDArray[np.float64]:
        """(3, 3): of the places in its volume, mm²."""


def extreme(bone: Bone, direction: Vector, within: Callable[[Vector], NDArray[np.bool_]] | None = None) -> Vector:
    """The point of a bone's surface that is farthest along a direction.

    Args:
        bone: the bone.
        direction: (3,) unit vector.
        within: points (n, 3) → which of them may be taken; default all.

    Raises:
        NotMeasurable: no point, or the bone is cut there.
    """
    points = bone.points if within is None else bone.points[within(bone.points)]
    if not len(points):
        raise NotMeasurable("it does not reach there")
    point = points[np.argmax(points @ direction)]
    if bone.is_cut(point):
        raise NotMeasurable("the field of view cuts it there")
    return np.asarray(point)


def extent(bone: Bone, direction: Vector, within: Callable[[Vector], NDArray[np.bool_]] | None = None) -> Vector:
    """(2,): the least and the largest coordinate along a direction, as for :func:`extreme`."""
    return np.array([extreme(bone, -direction, within) @ direction, extreme(bone, direction, within) @ direction])


class LabelBone:
    """The surface of a label's largest connected part (by faces), drawn by :func:`label_surface`."""

    def __init__(self, mask: NDArray[Any], spacing: tuple[float, float, float], affine: NDArray[np.float64]) -> None:
        """`mask` (X, Y, Z) of 0 and 1, with a voxel of 1; `affine` voxel → world mm (RAS)."""
        parts, number = ndimage.label(mask)
        largest = parts == 1 + np.argmax(np.bincount(parts.ravel(), minlength=2)[1:]) if number else parts > 0
        if not largest.any() or largest.all():
            raise NotMeasurable("it is empty" if not largest.any() else "it fills the volume")
        surface = label_surface(largest, spacing, affine)
        self.points = np.asarray(surface.points, dtype=np.float64)
        self._triangles = np.array(surface.regular_faces)  # a view is lost with the surface in older PyVista
        self._voxels = np.argwhere(largest) @ affine[:3, :3].T + affine[:3, 3]

    @cached_property
    def _rim(self) -> cKDTree | None:
        """The points on edges of one triangle: where the field of view cuts."""
        edges = np.sort(self._triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        numbers, counts = np.unique(edges @ [len(self.points), 1], return_counts=True)  # an edge, one number
        rim = np.unique(np.divmod(numbers[counts == 1], len(self.points)))
        return cKDTree(self.points[rim]) if len(rim) else None

    def is_cut(self, point: Vector) -> bool:
        """Whether the field of view cuts the bone within :data:`CUT_MM` of a point."""
        return self._rim is not None and bool(self._rim.query(point)[0] < CUT_MM)

    def covariance(self) -> NDArray[np.float64]:
        """(3, 3): of the centres of the voxels, mm²."""
        return np.asarray(np.cov(self._voxels.T))

    def section(self, origin: Vector, u: Vector, v: Vector) -> Section:
        """The cut by the plane through a point along two unit vectors at right angles, coordinates p·u and p·v."""
        normal = np.cross(u, v)
        height = self.points @ normal - origin @ normal
        a, b, c = (height > 0)[self._triangles.T]
        triangles = self._triangles[(a != b) | (b != c)]
        corners, heights = self.points[triangles], height[triangles]
        flat = np.stack([corners @ u, corners @ v], axis=-1)
        ends = []
        # one corner lies alone on its side; the plane cuts the two edges that leave it
        up = heights > 0
        alone = np.where(up.sum(axis=1) == 1, up.argmax(axis=1), (~up).argmax(axis=1))
        rows = np.arange(len(triangles))
        for step in (1, 2):
            other = (alone + step) % 3
            share = heights[rows, alone] / (heights[rows, alone] - heights[rows, other])
            ends.append(flat[rows, alone] + share[:, None] * (flat[rows, other] - flat[rows, alone]))
        start, end = ends
        outwards = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        along = end - start
        right = along[:, 1] * (outwards @ u) - along[:, 0] * (outwards @ v)  # outwards must lie to the right
        start, end = np.where(right[:, None] > 0, start, end), np.where(right[:, None] > 0, end, start)
        return Section(np.stack([start, end], axis=1))
