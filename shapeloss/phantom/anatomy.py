"""The phantom's anatomy: femur, tibia and patella as signed distance fields in mm, drawn for each subject.

Each bone has its own frame: x medial (−) to lateral (+), y posterior (−) to anterior (+), z inferior (−) to superior
(+), origin at the centre of the joint line (femur, tibia) or of the bone (patella), lengths in mm of an average knee.
A bone is an implicit function built from smooth unions; divided by the norm of its gradient it is a distance near the
surface, so the true boundary is known below the voxel. No voxel grid enters the anatomy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Coordinates = tuple[Array, Array, Array]  # x, y, z in mm, one array each, of one shape

BONES = ("femur", "tibia", "patella")  # label 1, 2, 3
BAND = 6.0  # mm; where the field is smaller, it is made a distance
RELIEF_MM = 0.8  # RMS of the smooth irregularities of a surface
_STEP = 0.2  # mm, step of the finite differences that give the gradient
_TETRAHEDRON = ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1))  # four directions that sum to zero


def _mm(mean: float, sd: float) -> float:
    """A dataclass field: the population's mean, and its SD as metadata."""
    return field(default=mean, metadata={"sd": sd})


@dataclass(frozen=True)
class Waves:
    """A smooth random function of position: a sum of plane waves."""

    vectors: NDArray[np.float64]  # (n, 3), rad/mm
    phases: NDArray[np.float64]  # (n,)
    amplitudes: NDArray[np.float64]  # (n,)

    def __call__(self, p: Coordinates, voxel: Sequence[float] = (0.0, 0.0, 0.0)) -> Array:
        """Value at p, averaged over a voxel of the given size in mm (which damps each wave by its sinc)."""
        amplitudes = self.amplitudes * np.prod(np.sinc(self.vectors * np.asarray(voxel) / (2 * np.pi)), axis=1)
        total = np.zeros(np.broadcast(*p).shape)
        for vector, phase, amplitude in zip(self.vectors, self.phases, amplitudes, strict=True):
            if abs(amplitude) > 1e-3:
                kx, ky, kz = vector
                angle = torch.as_tensor(kx * p[0] + ky * p[1] + kz * p[2] + phase)
                total += amplitude * torch.sin(angle).numpy()  # in double precision five times as fast as NumPy's
        return total


@dataclass(frozen=True)
class Femur:
    """Shape of the distal femur in mm (means; the SD between subjects stands beside each)."""

    condyle_x: float = _mm(22.2, 0.8)  # distance of a condyle's centre line from the notch's plane
    medial_posterior_radius: float = _mm(20.5, 0.7)
    lateral_posterior_radius: float = _mm(19.5, 0.7)
    medial_distal_radius: float = _mm(23.5, 0.8)
    lateral_distal_radius: float = _mm(24.5, 0.8)
    posterior_y: float = _mm(-14.0, 1.0)  # centre of the posterior arcs
    distal_y: float = _mm(4.0, 1.0)  # centre of the distal arcs
    trochlea_y: float = _mm(14.5, 0.8)  # centre of the trochlear ridges
    trochlea_radius: float = _mm(16.5, 0.7)
    lateral_ridge: float = _mm(2.5, 0.8)  # how much further the lateral ridge stands out
    notch_halfwidth: float = _mm(10.3, 1.0)
    notch_roof: float = _mm(16.5, 1.0)  # height of the roof at y = 0
    notch_slope: float = _mm(0.60, 0.06)  # of the roof (Blumensaat's line), rising backwards
    epicondyle_x: float = _mm(41.5, 0.9)
    body_y: float = _mm(20.3, 0.8)  # half depth of the metaphysis
    shaft_x: float = _mm(17.5, 0.9)
    shaft_y: float = _mm(15.2, 0.8)
    flare_z: float = _mm(44.5, 2.0)  # height at which shaft turns into metaphysis


@dataclass(frozen=True)
class Tibia:
    """Shape of the proximal tibia in mm."""

    plateau_x: float = _mm(41.0, 0.9)
    plateau_y: float = _mm(31.3, 0.9)
    shaft_x: float = _mm(20.0, 0.9)
    shaft_y: float = _mm(18.0, 0.9)
    flare_z: float = _mm(-24.5, 1.5)
    slope: float = _mm(0.10, 0.03)  # of the plateaus, falling backwards
    medial_depth: float = _mm(2.2, 0.5)  # concave
    lateral_depth: float = _mm(-0.3, 0.4)  # slightly convex
    eminence: float = _mm(12.5, 1.0)
    spine_x: float = _mm(5.0, 0.5)
    tuberosity: float = _mm(8.0, 1.0)


@dataclass(frozen=True)
class Patella:
    """Shape of the patella in mm: half width, half depth, half height, and the posterior facets."""

    half_x: float = _mm(26.5, 1.5)
    half_y: float = _mm(10.5, 0.5)
    half_z: float = _mm(21.2, 1.5)
    taper: float = _mm(0.30, 0.06)  # of the width towards the apex
    facet: float = _mm(0.65, 0.06)  # slope of the facets
    ridge_x: float = _mm(-2.0, 1.0)  # the ridge lies on the medial side


Shape = Femur | Tibia | Patella


@dataclass(frozen=True)
class Bone:
    """A shape, its place in the world, and the waves that make its surface its own."""

    shape: Shape
    origin: tuple[float, float, float]  # world mm
    rotation: NDArray[np.float64]  # (3, 3), bone axes as columns; a left knee's has determinant −1
    scale: NDArray[np.float64]  # (3,), world mm per mm of the shape along the bone's axes
    relief: Waves  # mm, added to the surface, in the bone's frame


@dataclass(frozen=True)
class Anatomy:
    """One subject's knee, independent of any voxel grid; the world's origin is the centre of the field of view."""

    femur: Bone
    tibia: Bone
    patella: Bone
    side: int  # +1 a right knee, −1 a left one
    scale: float
    joint_mm: float  # narrowest place between femur and tibia, filled by their cartilages

    @property
    def bones(self) -> tuple[Bone, Bone, Bone]:
        """Femur, tibia, patella: labels 1, 2, 3."""
        return self.femur, self.tibia, self.patella


def smooth_min(a: Array, b: Array, k: float) -> Array:
    """Union of two fields, rounded over a width of k mm (quadratic polynomial)."""
    h = np.maximum(k - np.abs(a - b), 0)
    return np.minimum(a, b) - h * h * (0.25 / k)


def smooth_max(a: Array, b: Array, k: float) -> Array:
    """Intersection of two fields, rounded over a width of k mm."""
    return -smooth_min(-a, -b, k)


def coordinates(points: ArrayLike) -> Coordinates:
    """Points (…, 3) → x, y, z."""
    x, y, z = np.moveaxis(np.asarray(points, float), -1, 0)
    return x, y, z


def select(p: Coordinates, where: NDArray[np.bool_]) -> Coordinates:
    """The coordinates of some of the points."""
    return p[0][where], p[1][where], p[2][where]


def capsule(
    p: Coordinates, a: ArrayLike, b: ArrayLike, radius_a: float, radius_b: float, squeeze: float = 1.0
) -> Array:
    """Field of a capsule from a to b whose radius eases from one to the other; `squeeze` flattens it along x."""
    flat = np.array([squeeze, 1, 1])
    s, v = np.asarray(a) / flat, np.subtract(b, a) / flat
    x, y, z = p[0] / squeeze - s[0], p[1] - s[1], p[2] - s[2]
    t = np.clip((x * v[0] + y * v[1] + z * v[2]) / (v @ v), 0, 1)
    x, y, z = x - t * v[0], y - t * v[1], z - t * v[2]
    return np.sqrt(x * x + y * y + z * z) - (radius_a + (radius_b - radius_a) * t * t * (3 - 2 * t))


def ellipse(u: Array, v: Array, a: Array | float, b: Array | float, power: float = 2.4) -> Array:
    """Field of a rounded rectangle (superellipse) of half axes a and b, in mm near its edge."""
    r = (np.abs(u / a) ** power + np.abs(v / b) ** power) ** (1 / power)
    return (r - 1) * np.minimum(a, b)


def smooth_step(t: Array) -> Array:
    """A smooth step from 0 to 1 around 0."""
    return 0.5 + 0.5 * np.tanh(t)


def femur_field(p: Coordinates, s: Femur) -> Array:
    """Two condyles (posterior, distal and trochlear arcs), the metaphysis, the shaft, less the notch."""
    x, y, z = p
    flare = smooth_step((s.flare_z - z) / 12)
    shaft_x, shaft_y = 0.09 * (z - 45), 7.0 - 0.05 * (z - 45)
    half_x = s.shaft_x + (s.epicondyle_x - s.shaft_x) * flare
    half_y = s.shaft_y + (s.body_y - s.shaft_y) * flare
    body = ellipse(x - shaft_x * (1 - flare), y - shaft_y, half_x, half_y)
    result = smooth_max(body, 17 - z, 18)
    for sign, posterior, distal, ridge in (
        (-1, s.medial_posterior_radius, s.medial_distal_radius, 0.0),
        (1, s.lateral_posterior_radius, s.lateral_distal_radius, s.lateral_ridge),
    ):
        back = (sign * s.condyle_x, s.posterior_y, posterior + 0.5)
        low = (sign * (s.condyle_x - 0.5), s.distal_y, distal)
        front = (sign * (s.condyle_x - 5), s.trochlea_y + ridge, 32.0)
        condyle = capsule(p, back, low, posterior, distal, 0.71)
        condyle = smooth_min(condyle, capsule(p, low, front, distal, s.trochlea_radius, 0.71), 4)
        result = smooth_min(result, condyle, 7)
    roof = s.notch_roof - s.notch_slope * y
    above = np.maximum(z - roof + s.notch_halfwidth, 0) * 0.86
    notch = np.sqrt(x * x + above * above) - s.notch_halfwidth
    return smooth_max(result, -notch, 4)


def tibia_field(p: Coordinates, s: Tibia) -> Array:
    """A flared shaft under a relief of two plateaus and the eminence, the tuberosity in front."""
    x, y, z = p
    flare = smooth_step((z - s.flare_z) / 10)
    half_x = s.shaft_x + (s.plateau_x - s.shaft_x) * flare
    half_y = s.shaft_y + (s.plateau_y - s.shaft_y) * smooth_step((z - s.flare_z - 4) / 10)
    body = ellipse(x, y + 2 + 4 * flare, half_x, half_y)
    fossa = np.sqrt(x * x + (y + 41) ** 2) - 19
    body = smooth_max(body, -fossa, 8)

    def bump(x0: float, y0: float, width_x: float, width_y: float) -> Array:
        return np.exp(-(((x - x0) / width_x) ** 2) - ((y - y0) / width_y) ** 2)

    relief = -4.0 + s.slope * (y + 6) - s.medial_depth * bump(-20, -6, 14, 17) - s.lateral_depth * bump(20, -6, 13, 14)
    relief = relief + s.eminence * (bump(-s.spine_x, -3, 5.5, 10) + 0.85 * bump(s.spine_x, -7, 5.5, 9))
    result = smooth_max(body, (z - relief) * 0.9, 8)
    front = ellipse(np.sqrt(((x - 2) / 1.1) ** 2 + (y - 13) ** 2), (z + 38) / 2, s.tuberosity, s.tuberosity, 2.0)
    return smooth_min(result, front, 8)


def patella_field(p: Coordinates, s: Patella) -> Array:
    """An ellipsoid that narrows towards the apex, cut behind by two facets that meet in a ridge."""
    x, y, z = p
    half_x = s.half_x * (1 + s.taper * np.clip(z / s.half_z, -1.5, 1.0) - 0.5 * s.taper)
    r = np.sqrt((x / half_x) ** 2 + (y / s.half_y) ** 2 + (z / s.half_z) ** 2)
    body = (r - 1) * s.half_y
    facets = -y - 1.12 * s.half_y + s.facet * np.sqrt((x - s.ridge_x) ** 2 + 4)
    return smooth_max(body, facets, 4)


_FIELDS: dict[type, Callable] = {Femur: femur_field, Tibia: tibia_field, Patella: patella_field}


def to_bone(points: Coordinates, bone: Bone) -> Coordinates:
    """World mm → the bone's frame in mm of its shape."""
    matrix = (bone.rotation / bone.scale).T
    shifted = [c - o for c, o in zip(points, bone.origin, strict=True)]
    x, y, z = (row[0] * shifted[0] + row[1] * shifted[1] + row[2] * shifted[2] for row in matrix)
    return x, y, z


def to_world(points: ArrayLike, bone: Bone) -> NDArray[np.float64]:
    """Points (…, 3) of the bone's frame → world mm."""
    return (np.asarray(points, float) * bone.scale) @ bone.rotation.T + np.asarray(bone.origin)


def bone_field(points: Coordinates, bone: Bone) -> Array:
    """The implicit function of a bone: negative inside, in mm only after division by its gradient."""
    p = to_bone(points, bone)
    return _FIELDS[type(bone.shape)](p, bone.shape) * bone.scale.mean() + bone.relief(p)


def distance_and_normal(points: Coordinates, bone: Bone) -> tuple[Array, Array]:
    """Signed distance to a bone's surface in mm, negative inside, and its unit gradient (3, …).

    Where the field is below `BAND` it is divided by the norm of its gradient, and then is the distance to about 0.05 mm
    within 1 mm of the surface, 0.2 mm within 2 mm. Further away it stays as it is, with a normal of zero: only its sign
    has a meaning there.
    """
    distance = bone_field(points, bone)
    normal = np.zeros((3, *distance.shape))
    near = np.abs(distance) < BAND
    x, y, z = select(points, near)
    gradient = np.zeros((3, len(x)))
    for direction in _TETRAHEDRON:
        dx, dy, dz = _STEP * np.array(direction)
        gradient += np.array(direction)[:, None] * bone_field((x + dx, y + dy, z + dz), bone)
    gradient /= 4 * _STEP
    norm = np.maximum(np.sqrt((gradient**2).sum(0)), 0.1)
    distance[near] /= norm
    normal[:, near] = gradient / norm
    return distance, normal


def signed_distances(points: NDArray, anatomy: Anatomy) -> Array:
    """Signed distance in mm from world points to the surface of each bone.

    Args:
        points: (…, 3) world coordinates in mm (RAS).
        anatomy: the subject.

    Returns:
        (3, …), in the order of `BONES`: negative inside, and near the surface a distance.
    """
    if points.shape[-1:] != (3,):
        raise ValueError(f"points: expected shape (…, 3), world coordinates in mm, got {points.shape}")
    p = coordinates(points.reshape(-1, 3))
    return np.stack([distance_and_normal(p, bone)[0] for bone in anatomy.bones]).reshape(3, *points.shape[:-1])


def box(centre: NDArray, half: NDArray | float, step: float) -> NDArray[np.float64]:
    """Points (n, 3) of a lattice around a centre."""
    axes = [np.arange(-h, h + step / 2, step) for h in np.broadcast_to(half, 3)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3) + centre


def _rotation(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def _normal(rng: np.random.Generator, size: int | None = None) -> NDArray[np.float64]:
    """Standard normal values, clipped at ±2 so that no subject is a monster."""
    return np.clip(rng.standard_normal(size), -2, 2)


def _draw_shape(kind: type[Shape], rng: np.random.Generator) -> Shape:
    return kind(**{f.name: f.default + f.metadata["sd"] * float(_normal(rng)) for f in fields(kind)})


def draw_waves(
    rng: np.random.Generator,
    shortest: float,
    longest: float,
    n: int,
    rms: float = 1.0,
    power: float = 0.0,
    along_z: float = 1.0,
) -> Waves:
    """n plane waves in random directions, with wavelengths between two lengths in mm.

    Amplitudes grow with the given power of the wavelength; `along_z` below 1 stretches the pattern along z.
    """
    direction = rng.standard_normal((n, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    wavelength = np.geomspace(shortest, longest, n)
    amplitude = wavelength**power
    amplitude *= rms * np.sqrt(2 / (amplitude**2).sum())
    vectors = direction * (2 * np.pi / wavelength)[:, None] * [1, 1, along_z]
    return Waves(vectors, rng.uniform(0, 2 * np.pi, n), amplitude)


def _gap(a: Bone, b: Bone, points: Coordinates) -> float:
    """Width in mm of the narrowest place between two bones, measured at the world points that lie near b's surface."""
    to_b = distance_and_normal(points, b)[0]
    near = np.abs(to_b) < 2
    return float((distance_and_normal(select(points, near), a)[0] + to_b[near]).min())


def _set_gap(fixed: Bone, moved: Bone, towards: tuple, joint: NDArray, gap_mm: float) -> Bone:
    """Slide a bone towards another until the narrowest place between them has the expected width.

    `towards` is a direction of the moved bone's frame, `joint` points (n, 3) of it among which the narrowest place is.
    """
    for _ in range(4):
        points = coordinates(to_world(joint, moved))
        shift = (_gap(fixed, moved, points) - gap_mm) * (moved.rotation @ towards)
        x, y, z = (float(c) for c in np.asarray(moved.origin) + shift)
        moved = replace(moved, origin=(x, y, z))
    return moved


def draw_anatomy(rng: np.random.Generator, size: float) -> Anatomy:
    """A random subject: each bone's proportions, pose and surface, and its place in the scanner.

    `size` is the subject's overall size in SD from the population's mean.
    """
    side = int(rng.choice([-1, 1]))
    scale = float(0.98 * np.exp(0.10 * np.clip(size, -2, 2)))
    pose = _rotation(2.0 * _normal(rng, 3)) * np.array([side, 1, 1])
    place = np.array([1.5, 1.5, 2.5]) * _normal(rng, 3) + np.array([0.0, -9.7 * scale, -11.0])

    def bone(kind: type[Shape], origin: NDArray, turn: NDArray, pivot: NDArray, spread: float) -> Bone:
        axes = pose @ _rotation(turn)
        stretch = scale * np.exp(spread * _normal(rng) + 0.02 * _normal(rng, 3))
        start = pose @ (scale * origin) + (pose - axes) @ (scale * pivot) + place
        x, y, z = (float(c) for c in start)
        return Bone(_draw_shape(kind, rng), (x, y, z), axes, stretch, draw_waves(rng, 14, 60, 14, RELIEF_MM, 0.7))

    femur = bone(Femur, np.zeros(3), np.array([2.5, 1.2, 2.0]) * _normal(rng, 3), np.array([0.0, -5.0, 22.0]), 0.02)
    tibia = bone(Tibia, np.zeros(3), np.array([1.0, 0.8, 3.0]) * _normal(rng, 3), np.array([0.0, -5.0, -4.0]), 0.04)
    at = np.array([2.0, 46.0, 36.0]) + np.array([1.5, 0.0, 3.0]) * _normal(rng, 3)
    patella = bone(Patella, at, np.array([3.0, 3.0, 4.0]) * _normal(rng, 3), np.zeros(3), 0.06)
    joint_mm = float(rng.uniform(3.2, 5.2))
    plateaus = box(np.array([0, -5, 0]), np.array([34, 26, 8]), 2.0)
    tibia = _set_gap(femur, tibia, (0, 0, 1), plateaus[np.abs(plateaus[:, 0]) > 11], joint_mm)
    patella = _set_gap(
        femur, patella, (0, -1, 0), box(np.array([0, -10, 0]), np.array([22, 10, 22]), 2.0), 1.15 * joint_mm
    )
    return Anatomy(femur, tibia, patella, side, scale, joint_mm)
