"""Biomarkers of the phantom's exact surfaces: no voxel grid, mask or mesh enters them.

A bone's points are found on its implicit function by Newton's steps, and its sections are the function's zero lines on
a fine grid in the plane. The rules are those of :mod:`shapeloss.metrics.knee`, so that a difference from a label
map is the error of voxels and meshing alone.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from skimage.measure import find_contours

from shapeloss.metrics.biomarkers import BONES, SHAPE_BIOMARKERS, Measurement, Side
from shapeloss.metrics.knee import measure_bones
from shapeloss.metrics.sections import Section, Vector
from shapeloss.phantom.anatomy import Anatomy, Bone, bone_field, box, coordinates, distance_and_normal, to_world

_COARSE, _FINE, _PLANE = 3.0, 0.6, 0.5  # mm between points: to find the surface, on it, and in a section
_REACH = 85.0  # mm from a bone's middle that sections show
_EVERY, _NEAR = 10, 8.0  # of a section one point in ten is taken first; farther from zero, it stands for all about it
_MIDDLE = {"femur": (0, 0, 30), "tibia": (0, 0, -25), "patella": (0, 0, 0)}  # in the bone's frame
_HALF = {"femur": (60, 55, 55), "tibia": (60, 55, 50), "patella": (45, 25, 40)}


class ExactBone:
    """A phantom's bone as :class:`shapeloss.metrics.sections.Bone`: unbounded, never cut."""

    def __init__(self, bone: Bone, name: str) -> None:
        """`name` of the bone, in `BONES`."""
        self._bone, self._name = bone, name
        self._centre = to_world(np.array(_MIDDLE[name], dtype=float), bone)

    @cached_property
    def points(self) -> Vector:
        """(n, 3): points on the surface about 0.6 mm apart; an extreme of a surface of radius R is missed by 0.05/R."""
        coarse = box(np.array(_MIDDLE[self._name], dtype=float), np.array(_HALF[self._name], dtype=float), _COARSE)
        world = to_world(coarse, self._bone)
        distance, _ = distance_and_normal(coordinates(world), self._bone)
        near = coarse[np.abs(distance) < _COARSE]
        fine = (near[:, None] + box(np.zeros(3), _COARSE / 2 - _FINE / 2, _FINE)[None]).reshape(-1, 3)
        points = to_world(fine, self._bone)
        distance, _ = distance_and_normal(coordinates(points), self._bone)
        points = points[np.abs(distance) < _FINE]
        for _ in range(4):
            distance, normal = distance_and_normal(coordinates(points), self._bone)
            points = points - (distance * normal).T
        return points[np.abs(distance_and_normal(coordinates(points), self._bone)[0]) < 1e-3]

    def is_cut(self, point: Vector) -> bool:
        """No field of view cuts it."""
        return False

    def covariance(self) -> NDArray[np.float64]:
        """(3, 3): of the places in its volume, mm²."""
        world = to_world(box(np.array(_MIDDLE[self._name], float), np.array(_HALF[self._name], float), 0.7), self._bone)
        return np.asarray(np.cov(world[bone_field(coordinates(world), self._bone) < 0].T))

    def section(self, origin: Vector, u: Vector, v: Vector) -> Section:
        """The cut by the plane through a point along two unit vectors at right angles, coordinates p·u and p·v."""
        normal = np.cross(u, v)
        steps = np.arange(-_REACH, _REACH + _PLANE, _PLANE)
        a, b = steps + self._centre @ u, steps + self._centre @ v
        plane = origin @ normal * normal + a[:, None, None] * u + b[None, :, None] * v
        first = np.rint(np.arange(len(steps)) / _EVERY).astype(int)  # the nearest of the first points
        field = bone_field(coordinates(plane[::_EVERY, ::_EVERY]), self._bone)[np.ix_(first, first)]
        near = np.abs(field) < _NEAR
        field[near] = bone_field(coordinates(plane[near]), self._bone)
        lines = [line * _PLANE + (a[0], b[0]) for line in find_contours(field, 0.0)]
        segments = np.concatenate([np.zeros((0, 2, 2)), *(np.stack([c[:-1], c[1:]], axis=1) for c in lines)])
        along = segments[:, 1] - segments[:, 0]
        left = segments.mean(axis=1) + 0.1 * np.stack([-along[:, 1], along[:, 0]], axis=1)
        world = origin @ normal * normal + left[:, :1] * u + left[:, 1:] * v
        if np.mean(bone_field(coordinates(world), self._bone) < 0) < 0.5:  # the bone must lie on the left
            segments = segments[:, ::-1]
        return Section(segments)


def exact_size(bone: Bone, low: Vector, high: Vector, step: float = 0.7) -> tuple[float, float]:
    """Volume in cm³ and surface in cm² of a bone within a box of world mm, cuts not counted.

    The volume is the mean coverage of cells of `step` mm, the surface the volume of a thin layer about it over its
    thickness.
    """
    axes = [a + (np.arange(n) + 0.5) * (b - a) / n
            for a, b, n in zip(low, high, np.ceil((high - low) / step).astype(int), strict=True)]  # fmt: skip
    cell = float(np.prod([axis[1] - axis[0] for axis in axes]))
    volume = surface = 0.0
    for x in axes[0]:
        plane = np.stack(np.meshgrid([x], axes[1], axes[2], indexing="ij"), axis=-1)[0]
        distance, _ = distance_and_normal(coordinates(plane), bone)
        volume += float(np.clip(0.5 - distance / step, 0, 1).sum()) * cell
        layer = np.abs(distance) < 2 * step
        surface += float((1 + np.cos(np.pi * distance[layer] / (2 * step))).sum()) / (4 * step) * cell
    return volume / 1000, surface / 100


def exact_shape(bone: Bone, name: str, low: Vector, high: Vector) -> dict[str, float]:
    """The biomarkers of :data:`shapeloss.metrics.biomarkers.SHAPE_BIOMARKERS` of a bone within a box of world mm."""
    points = ExactBone(bone, name).points
    points = points[((points > low) & (points < high)).all(axis=1)]
    cuts = np.array([[_cut_area(bone, low, high, axis, end) for end in (low, high)] for axis in range(3)])
    low = np.where(cuts[:, 0] > 0, low, np.maximum(low, points.min(axis=0) - 2))  # empty space needs no grid
    high = np.where(cuts[:, 1] > 0, high, np.minimum(high, points.max(axis=0) + 2))
    volume, surface = exact_size(bone, low, high)
    ends = np.where(cuts > 0, np.stack([low, high], axis=1), np.stack([points.min(axis=0), points.max(axis=0)], axis=1))
    tree, centre, half, step = cKDTree(points), (low + high) / 2, (high - low) / 2, 1.0
    for _ in range(3):  # the largest ball inside: on a grid, and on finer ones about the best place
        grid = box(centre, half, step)
        inside = grid[((grid > low) & (grid < high)).all(axis=1)]
        inside = inside[bone_field(coordinates(inside), bone) < 0]
        distance = np.asarray(tree.query(inside)[0])
        centre, half, step = inside[np.argmax(distance)], np.full(3, step), step / 5
    sphericity = np.pi ** (1 / 3) * (6000 * volume) ** (2 / 3) / (100 * surface + cuts.sum())
    values = (volume, surface, sphericity, *(ends[:, 1] - ends[:, 0]), distance.max())
    return {d.name: float(value) for d, value in zip(SHAPE_BIOMARKERS, values, strict=True)}


def _cut_area(bone: Bone, low: Vector, high: Vector, axis: int, end: Vector, step: float = 0.5) -> float:
    """mm² of a bone on the face of a box on which coordinate `axis` is that of `end`."""
    sides = [np.arange(a + step / 2, b, step) for a, b in zip(low, high, strict=True)]
    sides[axis] = end[axis : axis + 1]
    face = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1)
    return float(np.count_nonzero(bone_field(coordinates(face), bone) < 0)) * step**2


def exact_biomarkers(anatomy: Anatomy) -> dict[str, Measurement]:
    """The biomarkers of a subject's true bones; its side is known."""
    side: Side = "right" if anatomy.side > 0 else "left"
    return measure_bones({n: ExactBone(b, n) for n, b in zip(BONES, anatomy.bones, strict=True)}, side)
