"""A synthetic sagittal DESS knee whose boundary is known exactly, and data sets of such knees.

A subject's anatomy (`phantom_anatomy`) is a set of signed distance fields in world mm and knows of no grid; a voxel
belongs to a bone when the signed distance of its centre is negative. Grey values come from `phantom_contrast`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from shapeloss.phantom.anatomy import (
    Anatomy,
    Bone,
    Coordinates,
    bone_field,
    box,
    coordinates,
    distance_and_normal,
    draw_anatomy,
    to_world,
)
from shapeloss.phantom.contrast import PhantomOptions, acquire, draw_tissue, render
from shapeloss.phantom.reader import draw_reader

_SLAB_VOXELS = 750_000  # worked on at a time, which keeps the memory of a DESS knee near 1 GB


@dataclass(frozen=True)
class Knee:
    """One case.

    Attributes:
        image: (X, Y, Z) float32, whole numbers.
        labels: (X, Y, Z) uint8: 0 background, 1 femur, 2 tibia, 3 patella; where the voxel's centre lies, by the
            outlines of a reader, who is exact if `reader_mm` is 0.
        exact: the same by the true surfaces.
        affine: (4, 4) voxel index → world mm (RAS).
        landmarks: name → world mm (x, y, z).
        distances: (3, X, Y, Z) float32: signed distance in mm of each voxel's centre to the femur, tibia and patella,
            negative inside; a true distance near the surface.
        anatomy: the subject, for distances at any other point.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    exact: NDArray[np.uint8]
    affine: NDArray[np.float64]
    landmarks: dict[str, tuple[float, float, float]]
    distances: NDArray[np.float32]
    anatomy: Anatomy


def _streams(subject: int, seed: int) -> list[np.random.Generator]:
    """Independent random numbers for the subject's bones, tissues, noise and reader."""
    if subject < 0 or seed < 0:
        raise ValueError(f"subject and seed: expected whole numbers of at least 0, got {subject} and {seed}")
    return [np.random.default_rng(s) for s in np.random.SeedSequence([seed, subject]).spawn(4)]


def make_anatomy(subject: int, seed: int = 0) -> Anatomy:
    """The bones of a subject, the same on every grid.

    Overall sizes follow the normal distribution along a low-discrepancy (golden ratio) sequence, so that a handful of
    subjects spans the population; everything else is drawn independently.
    """
    rng, *_ = _streams(subject, seed)
    start = np.random.default_rng(seed).uniform()
    return draw_anatomy(rng, norm.ppf((start + subject * (np.sqrt(5) - 1) / 2) % 1))


def _slab_coordinates(options: PhantomOptions, start: int, stop: int) -> Coordinates:
    """World mm of the voxel centres of sagittal slices start … stop − 1 (which may lie outside the volume)."""
    counts = (np.arange(start, stop), np.arange(options.shape[1]), np.arange(options.shape[2]))
    axes = [o + s * n for o, s, n in zip(options.affine[:3, 3], options.spacing, counts, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return x, y, z


def make_knee(subject: int, options: PhantomOptions, seed: int = 0) -> Knee:
    """The knee of a subject on the grid of the options; the same bits for the same (seed, subject, options)."""
    _, tissue_rng, noise_rng, reader_rng = _streams(subject, seed)
    anatomy = make_anatomy(subject, seed)
    tissue = draw_tissue(tissue_rng, anatomy)
    reader = None
    signal, exact = np.empty(options.shape), np.empty(options.shape, np.uint8)
    labels = exact
    if options.reader_mm:
        reader = draw_reader(reader_rng, options.reader_mm, len(anatomy.bones), options.shape[0])
        labels = np.empty_like(exact)
    distances = np.empty((3, *options.shape), np.float32)
    step = max(1, _SLAB_VOXELS // (options.shape[1] * options.shape[2]))
    for start in range(0, options.shape[0], step):
        stop = min(start + step, options.shape[0])
        points = _slab_coordinates(options, start - 1, stop + 1)  # one slice more on each side, for differences
        bones = [distance_and_normal(points, bone) for bone in anatomy.bones]
        signal[start:stop] = render(points, bones, anatomy, tissue, options)[1:-1]
        slab = np.stack([distance[1:-1] for distance, _ in bones])
        distances[:, start:stop] = slab
        exact[start:stop] = _nearest_bone(slab)
        if reader:
            inner = (points[0][1:-1], points[1][1:-1], points[2][1:-1])
            drawn = [reader.drawn(bone, distance, inner, start) for bone, distance in enumerate(slab)]
            labels[start:stop] = _nearest_bone(np.stack(drawn))
    image = acquire(signal, tissue, options, noise_rng)
    return Knee(image, labels, exact, options.affine, landmarks(anatomy), distances, anatomy)


def _nearest_bone(distances: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Signed distances (bones, X, Y, Z) → the bone in which a voxel lies, counted from 1, or 0."""
    return np.where(distances.min(0) < 0, distances.argmin(0) + 1, 0).astype(np.uint8)


def _extreme(bone: Bone, direction: tuple[int, int, int], centre: tuple, half: tuple) -> NDArray[np.float64]:
    """The bone's point furthest along a world direction, within a box of the bone's frame; to 0.1 mm."""
    at = np.asarray(centre, float)
    for size, step in ((np.asarray(half, float), 2.0), (2.5, 0.5), (0.7, 0.1)):
        local = box(at, size, step)
        local = local[(np.abs(local - centre) <= np.asarray(half) + 1e-6).all(1)]
        world = to_world(local, bone)
        inside = bone_field(coordinates(world), bone) < 0
        at = local[inside][np.argmax(world[inside] @ direction)]
    return to_world(at, bone)


def _first_surface(bone: Bone, start: tuple, end: tuple) -> NDArray[np.float64]:
    """Where the way from start (outside) to end, both in the bone's frame, first enters the bone; to 0.02 mm."""
    way = np.linspace(start, end, 2001)
    inside = bone_field(coordinates(to_world(way, bone)), bone) < 0
    return to_world(way[np.argmax(inside)], bone)


def landmarks(anatomy: Anatomy) -> dict[str, tuple[float, float, float]]:
    """Landmarks in world mm: points of the surfaces, except the patella's centre, which is its centre of mass.

    The roof of the intercondylar notch above the middle of the joint; of each femoral condyle the most posterior and
    the most distal point; the middle of each tibial plateau; the highest point of the tibia's eminence.
    """
    femur, tibia, patella = anatomy.bones
    points = {"notch_roof": _first_surface(femur, (0, -5, -2), (0, -5, 40))}
    for name, sign in (("medial", -1), ("lateral", 1)):
        condyle = ((sign * 22, -6, 16), (21, 34, 22))
        points[f"{name}_condyle_posterior"] = _extreme(femur, (0, -1, 0), *condyle)
        points[f"{name}_condyle_distal"] = _extreme(femur, (0, 0, -1), *condyle)
        points[f"{name}_plateau"] = _first_surface(tibia, (sign * 20, -6, 20), (sign * 20, -6, -20))
    points["eminence"] = _extreme(tibia, (0, 0, 1), (0, -5, 0), (10, 12, 12))
    world = to_world(box(np.zeros(3), 32.0, 2.0), patella)
    points["patella_centre"] = world[bone_field(coordinates(world), patella) < 0].mean(0)
    world_points = ((name, point.tolist()) for name, point in points.items())
    return {name: (round(x, 3), round(y, 3), round(z, 3)) for name, (x, y, z) in world_points}
