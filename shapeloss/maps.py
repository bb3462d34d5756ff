"""The maps of the truth that losses other than the distance-penalised cross-entropy need, each from one label map.

All distances are in mm, from voxel centre to the nearest voxel centre across the boundary, by
:func:`shapeloss.distance.boundary_distance`; so inside and outside are symmetric about the boundary, and nothing is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

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
    nearest = second = np.full(labels.shape, np.inf, np.float32)
    for mask in _objects(labels, values, objects):
        d = boundary_distance(mask, spacing)
        second = np.minimum(second, np.maximum(nearest, d))
        nearest = np.minimum(nearest, d)
    weight += w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    return weight


def _objects(labels: NDArray[Any], values: NDArray[Any], objects: Objects) -> Iterator[NDArray[np.bool_]]:
    for value in values[values != 0]:
        mask = labels == value
        if objects == "labels":
            yield mask
        else:
            components, number = ndimage.label(mask, structure=np.ones((3,) * labels.ndim))
            yield from (components == component for component in range(1, number + 1))


def _class_masks(labels: NDArray[Any], num_classes: int, spacing: Sequence[float]) -> Iterator[NDArray[np.bool_]]:
    labels, _ = check_labels(labels, spacing)
    if labels.max() >= num_classes:
        raise ValueError(f"labels must lie in 0 to {num_classes - 1} for num_classes={num_classes}, got {labels.max()}")
    return (labels == k for k in range(num_classes))
