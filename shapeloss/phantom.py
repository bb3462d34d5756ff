"""A synthetic sagittal DESS knee whose boundary is known exactly, and data sets of such knees.

A subject's anatomy (`phantom_anatomy`) is a set of signed distance fields in world mm and knows of no grid; a voxel
belongs to a bone when the signed distance of its centre is negative. Grey values come from `phantom_contrast`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import edt
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.stats import norm
from skimage import measure

from shapeloss.files import write_json, write_nifti
from shapeloss.phantom_anatomy import (
    BONES,
    Anatomy,
    Bone,
    Coordinates,
    bone_field,
    box,
    coordinates,
    distance_and_normal,
    draw_anatomy,
    signed_distances,
    to_world,
)
from shapeloss.phantom_contrast import PhantomOptions, acquire, draw_tissue, render

__all__ = [
    "BONES",
    "Anatomy",
    "Knee",
    "PhantomOptions",
    "anatomy_statistics",
    "make_anatomy",
    "make_knee",
    "signed_distances",
    "write_dataset",
]

NAME = "shapeloss phantom knees"  # of the data set
_OWN_FILE = re.compile(
    r"dataset\.json|\.partial-\w+\.json|(imagesTr|labelsTr|landmarks)/(knee_\d+|\.partial-\w+)\.(nii\.gz|json)"
)
_SLAB_VOXELS = 1_500_000  # worked on at a time, which keeps the memory of a DESS knee near 1 GB


@dataclass(frozen=True)
class Knee:
    """One case.

    Attributes:
        image: (X, Y, Z) float32.
        labels: (X, Y, Z) uint8: 0 background, 1 femur, 2 tibia, 3 patella; where the voxel's centre lies.
        affine: (4, 4) voxel index → world mm (RAS).
        landmarks: name → world mm (x, y, z).
        distances: (3, X, Y, Z) float32: signed distance in mm of each voxel's centre to the femur, tibia and patella,
            negative inside; a true distance near the surface.
        anatomy: the subject, for distances at any other point.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    affine: NDArray[np.float64]
    landmarks: dict[str, tuple[float, float, float]]
    distances: NDArray[np.float32]
    anatomy: Anatomy


def _streams(subject: int, seed: int) -> list[np.random.Generator]:
    """Independent random numbers for the subject's bones, tissues and noise."""
    if subject < 0 or seed < 0:
        raise ValueError(f"subject and seed: wanted whole numbers of at least 0, got {subject} and {seed}")
    return [np.random.default_rng(s) for s in np.random.SeedSequence([seed, subject]).spawn(3)]


def make_anatomy(subject: int, seed: int = 0) -> Anatomy:
    """The bones of a subject, the same on every grid.

    Overall sizes follow the normal distribution along a low-discrepancy (golden ratio) sequence, so that a handful of
    subjects spans the population; everything else is drawn independently.
    """
    rng, *_ = _streams(subject, seed)
    start = np.random.default_rng(seed).uniform()
    return draw_anatomy(rng, norm.ppf((start + subject * (np.sqrt(5) - 1) / 2) % 1))


def _grid(options: PhantomOptions, start: int, stop: int) -> Coordinates:
    """World mm of the voxel centres of sagittal slices start … stop − 1 (which may lie outside the volume)."""
    counts = (np.arange(start, stop), np.arange(options.shape[1]), np.arange(options.shape[2]))
    axes = [
        (o + s * n).astype(np.float32) for o, s, n in zip(options.affine[:3, 3], options.spacing, counts, strict=True)
    ]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return x, y, z


def make_knee(subject: int, options: PhantomOptions, seed: int = 0) -> Knee:
    """The knee of a subject on the grid of the options; the same bits for the same (seed, subject, options)."""
    _, tissue_rng, noise_rng = _streams(subject, seed)
    anatomy = make_anatomy(subject, seed)
    tissue = draw_tissue(tissue_rng, anatomy)
    signal, labels = np.empty(options.shape, np.float32), np.empty(options.shape, np.uint8)
    distances = np.empty((3, *options.shape), np.float32)
    step = max(1, _SLAB_VOXELS // (options.shape[1] * options.shape[2]))
    for start in range(0, options.shape[0], step):
        stop = min(start + step, options.shape[0])
        points = _grid(options, start - 1, stop + 1)  # one slice more on each side, for differences
        bones = [distance_and_normal(points, bone) for bone in anatomy.bones]
        signal[start:stop] = render(points, bones, anatomy, tissue, options)[1:-1]
        slab = np.stack([distance[1:-1] for distance, _ in bones])
        distances[:, start:stop] = slab
        labels[start:stop] = np.where(slab.min(0) < 0, slab.argmin(0) + 1, 0)
    image = acquire(signal, tissue, options, noise_rng)
    return Knee(image, labels, options.affine, landmarks(anatomy), distances, anatomy)


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


# Mean and SD over 24 manual OAI DESS masks, as seen in the field of view (extents: no SD is known).
ANATOMY = {
    "volume_cm3": ((171, 39), (115, 32), (18.1, 6.8)),
    "surface_cm2": ((240, 36), (172, 32), (50, 14)),
    "extent_x_mm": ((82, np.nan), (77, np.nan), (44, np.nan)),
    "extent_y_mm": ((66, np.nan), (57, np.nan), (23, np.nan)),
    "extent_z_mm": ((84, np.nan), (65, np.nan), (44, np.nan)),
    "inscribed_radius_mm": ((19.9, 1.9), (19.7, 2.1), (9.7, 0.9)),
}


def anatomy_statistics(subjects: int = 24, seed: int = 0, sampling_mm: float = 1.4) -> pd.DataFrame:
    """The phantom's bones beside the anatomy of real knees, in the field of view of an OAI DESS (112 × 140 × 140 mm).

    Args:
        subjects: knees to measure, from subject 0 on.
        seed: which population.
        sampling_mm: isotropic sampling.

    Returns:
        One row for each bone and quantity, with columns `bone`, `quantity`, `real_mean`, `real_sd` (NaN where unknown),
        `phantom_mean` and `phantom_sd`.
    """
    if subjects < 2:
        raise ValueError(f"subjects: wanted at least 2 for a standard deviation, got {subjects}")
    x, y, z = (round(mm / sampling_mm) for mm in (112, 140, 140))
    options = PhantomOptions(shape=(x, y, z), spacing=(sampling_mm, sampling_mm, sampling_mm))
    points = _grid(options, 0, x)
    measured = np.array(
        [[_measure(points, b, sampling_mm) for b in make_anatomy(i, seed).bones] for i in range(subjects)]
    )
    rows = [
        (bone, quantity, *real[k], measured[:, k, q].mean(), measured[:, k, q].std(ddof=1))
        for k, bone in enumerate(BONES)
        for q, (quantity, real) in enumerate(ANATOMY.items())
    ]
    return pd.DataFrame(rows, columns=["bone", "quantity", "real_mean", "real_sd", "phantom_mean", "phantom_sd"])


def _measure(points: Coordinates, bone: Bone, spacing: float) -> list[float]:
    """The quantities of `ANATOMY`, in its order, of one bone on an isotropic grid."""
    field = bone_field(points, bone)
    mask = field < 0
    extents = [np.ptp(i) * spacing + spacing for i in np.nonzero(mask)]
    # Like the real masks: marching cubes on the voxels (staircases included), closed where the field of view cuts.
    vertices, faces, *_ = measure.marching_cubes(np.pad(mask, 1).astype(np.float32), 0.5, spacing=(spacing,) * 3)
    # The deepest voxel is near the centre of the largest inscribed ball, whose radius the smooth surface gives.
    depth = edt.edt(np.asfortranarray(mask), anisotropy=(spacing,) * 3)
    centres = box(np.array(np.unravel_index(depth.argmax(), mask.shape)) * spacing, 1.5 * spacing, spacing / 4)
    surface = measure.marching_cubes(field, 0.0, spacing=(spacing,) * 3)[0]
    radius = np.max(cKDTree(surface).query(centres)[0])
    return [mask.sum() * spacing**3 / 1e3, measure.mesh_surface_area(vertices, faces) / 1e2, *extents, radius]


def write_dataset(
    folder: str | Path,
    subjects: int,
    options: PhantomOptions,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write knees as a data set in Decathlon layout; equal arguments give equal bytes.

    Files: `imagesTr/knee_001.nii.gz` (float32), `labelsTr/knee_001.nii.gz` (uint8), `landmarks/knee_001.json` (name →
    world mm), and last, when all else is complete, `dataset.json`. Knees that an earlier call left there are replaced.

    Args:
        folder: where; made if it does not exist.
        subjects: how many knees, subjects 0 … subjects − 1.
        options: grid and contrast.
        seed: which population.
        progress: called with (knees done, knees in all) after each.

    Raises:
        ValueError: no subjects, or a folder that holds something else.
    """
    folder = Path(folder)
    if subjects < 1:
        raise ValueError(f"subjects: wanted at least 1, got {subjects}")
    _clear(folder)
    names = [f"knee_{i + 1:03d}" for i in range(subjects)]
    for i, name in enumerate(names):
        knee = make_knee(i, options, seed)
        write_nifti(folder / "imagesTr" / f"{name}.nii.gz", knee.image, knee.affine)
        write_nifti(folder / "labelsTr" / f"{name}.nii.gz", knee.labels, knee.affine)
        write_json(folder / "landmarks" / f"{name}.json", knee.landmarks)
        if progress:
            progress(i + 1, subjects)
    description = {
        "name": NAME,
        "description": f"Synthetic sagittal DESS knees, generated by shapeloss; population {seed}",
        "licence": "CC0-1.0",
        "tensorImageSize": "3D",
        "modality": {"0": "MRI"},
        "labels": {"0": "background"} | {str(k): bone for k, bone in enumerate(BONES, start=1)},
        "numTraining": subjects,
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names],
        "test": [],
        "phantom": {"seed": seed, "options": asdict(options)},
    }
    write_json(folder / "dataset.json", description)


def _clear(folder: Path) -> None:
    """Remove what an earlier call wrote, `dataset.json` first; refuse a folder that holds anything else."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if not path.is_dir()}
    foreign = [name for name in files if not _OWN_FILE.fullmatch(name)]
    if "dataset.json" in files and f'"name": "{NAME}"' not in files["dataset.json"].read_text("utf-8", "replace"):
        foreign.append("dataset.json")
    if foreign:
        raise ValueError(
            f"folder {folder} holds {foreign[0]}, which is not the phantom's; give an empty or a new folder"
        )
    for path in sorted(files.values(), key=lambda path: path.name != "dataset.json"):
        path.unlink()
