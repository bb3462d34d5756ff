"""Planes of slices and the axes across them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Plane of slices → the axis across them, in RAS."""


def acquisition_axis(spacing: Sequence[float]) -> int:
    """The axis across the acquired slices: the longest voxel side; the first of those that are equal to 1 %."""
    sides = np.asarray(spacing)
    return int(np.argmax(sides >= 0.99 * sides.max()))


def plane_name(axis: int) -> str:
    """`sagittal` for 0, `coronal` for 1, `axial` for 2: the slices across an axis of a volume in RAS."""
    return list(PLANES)[axis]
