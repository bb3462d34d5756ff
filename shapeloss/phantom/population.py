"""Statistics of the anatomy of phantom knees."""

from __future__ import annotations

import edt
import numpy as np
import pandas as pd
from scipy.spatial import cKDTree
from skimage import measure

from shapeloss.phantom.anatomy import BONES, Bone, Coordinates, bone_field, box
from shapeloss.phantom.contrast import PhantomOptions
from shapeloss.phantom.knee import _slab_coordinates, make_anatomy

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
        raise ValueError(f"subjects: expected at least 2 for a standard deviation, got {subjects}")
    x, y, z = (round(mm / sampling_mm) for mm in (112, 140, 140))
    options = PhantomOptions(shape=(x, y, z), spacing=(sampling_mm, sampling_mm, sampling_mm))
    points = _slab_coordinates(options, 0, x)
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
