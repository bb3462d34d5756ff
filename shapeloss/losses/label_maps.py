"""The maps of the truth that losses other than the distance-penalised cross-entropy need, each from one label map.

All distances are in mm, from voxel centre to the nearest voxel centre across the boundary, by
:func:`shapeloss.distance.boundary_distance`; so inside and outside are symmetric about the boundary, and nothing is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shapeloss.distance import boundary_distance, check_labels

Objects = Literal["components", "labels"]


def mask_distance(mask: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float32]:
    """Distance in mm from each voxel to the boundary of a mask, from both sides; 0 throughout if it has none."""
    distance = boundary_distance(mask, spacing)
    return np.zeros_like(distance) if np.isinf(distance.flat[0]) else distance


def signed_distance(labels: NDArray[Any], num_classes: int, spacing: Sequence[float]) -> NDArray[np.float32]:
    """Signed distance in mm to the boundary of each class: negative inside, positive outside.

    Args:
        labels: (X, Y, Z) or (X, Y), integers 0 to K − 1.
        num_classes: K.
        spacing: mm, one number for each axis.

    Returns:
        float32 (K, X, Y, Z) or (K, X, Y); 0 throughout for a class that is absent or fills the volume.

    >>> signed_distance(np.array([[0, 0, 1]]), 2, spacing=(1.0, 0.5))
    array([[[-1. , -0.5,  0.5]],
    <BLANKLINE>
           [[ 1. ,  0.5, -0.5]]], dtype=float32)
    """
    signed = np.empty((num_classes, *np.shape(labels)), np.float32)
    for k, mask in enumerate(_class_masks(labels, num_classes, spacing)):
        signed[k] = mask_distance(mask, spacing)
        np.negative(signed[k], out=signed[k], where=mask)
    return signed


def normalised_signed_distance(labels: NDArray[Any], num_classes: int, spacing: Sequence[float]) -> NDArray[np.float32]:
    """Signed distance of each class in [−1, 1], positive inside: each side divided by its maximum (Xue et al. 2020).

    Shapes as for :func:`signed_distance`. Throughout −1 for an absent class and 1 for one that fills the volume. At
    each voxel one class alone is positive, its label, so that the argmax over the classes is the label map.
    """
    signed = -signed_distance(labels, num_classes, spacing)
    for k, mask in enumerate(_class_masks(labels, num_classes, spacing)):
        for side, sign in ((mask, 1), (~mask, -1)):
            if side.all():
                signed[k] = sign
            elif side.any():
                signed[k][side] /= np.abs(signed[k][side]).max()
    return signed


def region_wise(labels: NDArray[Any], num_classes: int, spacing: Sequence[float]) -> NDArray[np.float32]:
    """The rectified region-wise map: −d / max d inside each class, 1 outside (Valverde & Tohka 2023, equation 8).

    d is the distance to the boundary in mm; −1 throughout for a class that fills the volume, 1 for one that is absent.
    Shapes as for :func:`signed_distance`.

    >>> region_wise(np.array([[0, 0, 1]]), 2, spacing=(1.0, 0.5))
    array([[[-1. , -0.5,  1. ]],
    <BLANKLINE>
           [[ 1. ,  1. , -1. ]]], dtype=float32)
    """
    normalised = normalised_signed_distance(labels, num_classes, spacing)
    return np.where(normalised > 0, -normalised, 1).astype(np.float32)


def boundary_voxels(
    labels: NDArray[Any], spacing: Sequence[float], neighbours: Literal["faces", "all"] = "faces"
) -> NDArray[np.float32]:
    """1 at each voxel with a neighbour of another label, and 0 elsewhere; the edge of the volume is no boundary.

    Args:
        labels: (X, Y, Z) or (X, Y), integers from 0, the background.
        spacing: mm, one number for each axis; checked, and of no effect: neighbours are voxels.
        neighbours: "faces", 4 in 2D and 6 in 3D; "all", those across edges and corners too, 8 and 26.

    >>> boundary_voxels(np.array([[0, 0, 1, 1]]), spacing=(1, 1))
    array([[0., 1., 1., 0.]], dtype=float32)
    """
    from scipy import ndimage  # takes a sixth of the time of import torch; few losses need it

    labels, _ = check_labels(labels, spacing)
    around = ndimage.generate_binary_structure(labels.ndim, 1 if neighbours == "faces" else labels.ndim)
    highest, lowest = (
        extreme(labels, footprint=around, mode="nearest")
        for extreme in (ndimage.maximum_filter, ndimage.minimum_filter)
    )
    return (highest != lowest).astype(np.float32)


def unet_weight(
    labels: NDArray[Any],
    spacing: Sequence[float],
    *,
    w0: float = 10.0,
    sigma: float = 5.0,
    objects: Objects = "components",
) -> NDArray[np.float32]:
    """w = w_c + w0 exp(−(d₁ + d₂)² / 2σ²) (Ronneberger et al. 2015, equation 2).

    w_c balances the classes: N / (number of classes present · voxels of the class), 1 on average. d₁ and d₂ are the
    distances in mm to the boundaries of the two nearest objects; the second term is 0 where there are fewer than two.

    Args:
        labels: (X, Y, Z) or (X, Y), integers from 0, the background.
        spacing: mm, one number for each axis.
        w0: weight of the gap between objects.
        sigma: its width in mm (the paper's is in pixels).
        objects: "components", each connected component (faces, edges and corners) of each structure, as the paper's
            cells; or "labels", each structure as a whole.

    Returns:
        float32 of the shape of labels.
    """
    labels, _ = check_labels(labels, spacing)
    values, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weight = (labels.size / (len(values) * counts))[index.reshape(labels.shape)].astype(np.float32)
    nearest, second = np.full((2, *labels.shape), np.inf, np.float32)
    for number, (numbered, box) in _objects(index.reshape(labels.shape) + bool(values[0]), objects):
        # farther from the object than the farthest second-nearest one, it changes nothing
        near = _around(box, second.max(), spacing, labels.shape)
        d = boundary_distance(numbered[near] == number, spacing)
        second[near] = np.minimum(second[near], np.maximum(nearest[near], d))
        nearest[near] = np.minimum(nearest[near], d)
    weight += w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    return weight


def _objects(labels: NDArray[Any], objects: Objects) -> Iterator[tuple[int, tuple[NDArray[Any], tuple[slice, ...]]]]:
    """The number of each object, where it lies in a map of numbers, and its box; large ones first."""
    from scipy import ndimage  # takes a sixth of the time of import torch; one loss needs it

    numbered = labels
    if objects == "components":
        numbered, number = np.zeros(labels.shape, np.int32), 0
        for value in range(1, int(labels.max()) + 1):
            components, found = ndimage.label(labels == value, structure=np.ones((3,) * labels.ndim))
            numbered[components > 0] = components[components > 0] + number
            number += found
    boxes = ndimage.find_objects(numbered)
    sizes = np.bincount(numbered.ravel(), minlength=len(boxes) + 1)[1:]
    for number in np.argsort(-sizes, kind="stable")[: int((sizes > 0).sum())].tolist():
        yield number + 1, (numbered, boxes[number])


def _around(
    box: tuple[slice, ...], reach: float, spacing: Sequence[float], shape: tuple[int, ...]
) -> tuple[slice, ...]:
    """The box with all voxels within `reach` mm of it, and at least one more on each side, within the volume."""
    margins = [size if np.isinf(reach) else int(reach / step) + 2 for size, step in zip(shape, spacing, strict=True)]
    return tuple(
        slice(max(part.start - margin, 0), min(part.stop + margin, size))
        for part, margin, size in zip(box, margins, shape, strict=True)
    )


def _class_masks(labels: NDArray[Any], num_classes: int, spacing: Sequence[float]) -> Iterator[NDArray[np.bool_]]:
    labels, _ = check_labels(labels, spacing)
    if labels.max() >= num_classes:
        raise ValueError(f"labels must lie in 0 to {num_classes - 1} for num_classes={num_classes}, got {labels.max()}")
    return (labels == k for k in range(num_classes))
