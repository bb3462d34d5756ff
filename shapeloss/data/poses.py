"""Label maps that lie on their image's voxels, though their axes run otherwise, or their file does not say how.

Some programs write label maps without a pose: with the directions of the array's axes unset and the first voxel at
0, 0, 0. Where such axes run to cannot be known from the file, and flips not even from the shape, so it must be stated.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
from nibabel.orientations import axcodes2ornt

from shapeloss.data.volume import Volume, grid_difference

OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}
_SPACING_TOLERANCE = 0.01


def check_orientation(text: str) -> str:
    """Three letters that say where the axes of an array run to, such as PIR, in capitals; empty if none are given.

    Raises:
        ValueError: other letters, or two of one axis.
    """
    code = text.strip().upper()
    if code and (len(code) != 3 or {min(letter, OPPOSITE.get(letter, "?")) for letter in code} != {"L", "A", "I"}):
        raise ValueError(
            "the orientation of label maps must be three letters, one of R or L, one of A or P, one of S or I, in the "
            f"order of their axes, such as PIR; got {text!r}"
        )
    return code


def place_labels(labels: Volume, image: Volume, orientation: str = "") -> Volume:
    """A label map with its axes as those of its image, if they are the same voxels; never resampled.

    Args:
        labels: with integers, on any grid.
        image: its image.
        orientation: where the axes of label maps without a pose run to, such as RSA: the first to the right, the second
            to superior, the third to anterior. It changes nothing for label maps that have a pose.

    Returns:
        On the image's grid; otherwise the labels as they are, which :func:`pose_fault` explains.
    """
    on_grid = labels.oriented_as(image.affine)
    if not grid_difference(on_grid, image):
        return on_grid
    if orientation and not has_pose(labels):
        axes = np.argsort(axcodes2ornt(orientation)[:, 0])
        if _fits(labels, image.oriented("RAS"), axes):
            affine = np.diag([0.0, 0.0, 0.0, 1.0])
            for axis, (world, sign) in enumerate(axcodes2ornt(orientation).astype(int)):
                affine[world, axis] = sign
            turned = Volume(labels.array, affine).oriented_as(image.affine)
            return Volume(turned.array, image.affine)
    return labels


def pose_fault(labels: Volume, image: Volume) -> str:
    """Why a label map is not on its image's grid, and what to do; empty if it is."""
    if not (difference := grid_difference(labels, image)):
        return ""
    if has_pose(labels) or not has_pose(image):
        return f"the labels are not on the image's grid: {difference}; resample the labels"
    ras = image.oriented("RAS")
    orders = [axes for axes in permutations(range(3)) if _fits(labels, ras, np.array(axes))]
    sizes = " × ".join(map(str, labels.array.shape)), " × ".join(map(str, image.array.shape))
    spacings = [" × ".join(f"{x:.4g}" for x in volume.spacing) for volume in (labels, image)]
    if not orders:
        return (
            f"the labels have no pose (directions and first voxel are not set), and {sizes[0]} voxels of {spacings[0]} "
            f"mm fit the image's {sizes[1]} of {spacings[1]} mm in no order of axes; are they of another scan?"
        )
    letters = ("R or L", "A or P", "S or I")
    shown = "; or ".join(", ".join(letters[world] for world in np.argsort(axes)) for axes in orders)
    return (
        "the labels have no pose (directions and first voxel are not set); by shape and voxel size their axes run to "
        f"{shown}; find out which, such as in a viewer, and state it by --mask-orientation of import oai, pairs or "
        "folder, such as --mask-orientation PIR"
    )


def has_pose(volume: Volume) -> bool:
    """Whether a volume says where it lies: directions along the world's axes with the first voxel at 0 are unset ones.

    So is what NIfTI without qform and sform comes to: X to the left, and the middle at 0.
    """
    matrix, start = volume.affine[:3, :3], volume.affine[:3, 3]
    if not np.allclose(matrix, np.diag(np.diag(matrix)), atol=1e-6):
        return True
    middle = -matrix @ (np.array(volume.array.shape) - 1) / 2
    bare = bool((np.sign(np.diag(matrix)) == (-1, 1, 1)).all()) and np.allclose(start, middle, atol=1e-3)
    return not (np.allclose(start, 0, atol=1e-6) or bare)


def _fits(labels: Volume, ras: Volume, axes: np.ndarray) -> bool:
    """Whether shape and voxel size are those of an image in RAS, if X, Y, Z are these axes of the labels."""
    shape, spacing = np.array(labels.array.shape)[axes], np.array(labels.spacing)[axes]
    return bool((shape == ras.array.shape).all()) and np.allclose(spacing, ras.spacing, rtol=_SPACING_TOLERANCE)
