"""A prediction made from the truth by errors of known size, and what a loss asks of each of its voxels.

The same model as in the explorer (`figures/explorer.html`), in two and three dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shapeloss._typing import Floats
from shapeloss.distance import boundary_distance
from shapeloss.losses.label_maps import signed_distance
from shapeloss.phantom.contrast import PhantomOptions
from shapeloss.phantom.knee import Knee, make_knee

Labels = NDArray[np.integer]
SPACING = (6.0, 2.0, 2.0)
"""Of the practice knee, in mm."""


@cache
def practice_knee(subject: int = 0) -> Knee:
    """A phantom knee that is small enough for a laptop: 16 × 48 × 64 voxels of 6 × 2 × 2 mm, exact labels."""
    return make_knee(subject, PhantomOptions(shape=(16, 48, 64), spacing=SPACING, noise=0.02))


def alter_labels(
    labels: Labels,
    spacing: Sequence[float],
    *,
    shift_mm: Sequence[float] | None = None,
    grow_mm: float = 0.0,
    missed: int = 0,
    island_mm: float = 0.0,
    island_at: Sequence[int] | None = None,
    island_label: int = 1,
) -> Labels:
    """The labels of a prediction with errors of known size.

    Args:
        labels: (X, Y, Z) or (X, Y), the truth, integers from 0, the background.
        spacing: mm, one number for each axis.
        shift_mm: along each axis, rounded to whole voxels; at the edge the labels go on as they are there.
        grow_mm: every structure takes the background's voxels within this distance; below 0 it loses its own.
        missed: a label that the prediction lacks; 0 for none.
        island_mm: radius of a false island.
        island_at: its centre, a voxel; default: far from every structure and from the edge.
        island_label: its label.

    Returns:
        Labels of the same shape and type.

    >>> alter_labels(np.array([[0, 0, 1, 1, 0, 0]]), (1.0, 1.0), grow_mm=1.5)
    array([[0, 1, 1, 1, 1, 0]])
    """
    labels = np.asarray(labels)
    classes = int(labels.max()) + 1
    signed = signed_distance(labels, classes, spacing)
    present = [k for k in range(1, classes) if k != missed and (labels == k).any()]
    altered = np.zeros_like(labels)
    best = np.full(labels.shape, grow_mm + 1e-4 if grow_mm > 0 else grow_mm, np.float32)  # a distance of 2 is within 2
    for k in present:
        nearer = signed[k] < best
        altered[nearer], best[nearer] = k, signed[k][nearer]
    for axis, mm in enumerate(shift_mm or ()):
        voxels = round(mm / spacing[axis])
        index = np.clip(np.arange(labels.shape[axis]) - voxels, 0, labels.shape[axis] - 1)
        altered = np.take(altered, index, axis=axis)
    if island_mm > 0:
        centre = _far_from_all(labels, spacing, island_mm) if island_at is None else island_at
        offsets = np.indices(labels.shape).T - np.asarray(centre)
        altered[(np.linalg.norm(offsets * np.asarray(spacing), axis=-1) < island_mm).T] = island_label
    return altered


def _far_from_all(labels: Labels, spacing: Sequence[float], margin_mm: float) -> tuple[np.intp, ...]:
    """The voxel farthest from every structure, so far inside the volume that an island fits, where there is one."""
    far = np.where(labels == 0, boundary_distance(labels, spacing), -1)
    inside = np.zeros(labels.shape, bool)
    margins = [min(int(margin_mm / mm) + 1, (n - 1) // 2) for mm, n in zip(spacing, labels.shape, strict=True)]
    inside[tuple(slice(m, n - m) for m, n in zip(margins, labels.shape, strict=True))] = True
    far[~inside] = -1
    return np.unravel_index(int(far.argmax()), far.shape)


def label_logits(
    labels: Labels, spacing: Sequence[float], classes: int, *, blur_mm: float = 2.0, confidence: float = 4.0
) -> Tensor:
    """Logits of a prediction with these labels: z = c tanh(s / b), s the distance in mm inside each class.

    Args:
        labels: (X, Y, Z) or (X, Y), of the prediction.
        spacing: mm, one number for each axis.
        classes: K, the background included.
        blur_mm: b, the width of the blurred boundary.
        confidence: c, the logit deep inside a class; −c outside, and throughout for a class that is absent.

    Returns:
        (1, K, X, Y[, Z]) float32; their argmax over the classes is `labels`.
    """
    inside = -signed_distance(labels, classes, spacing)
    z = confidence * np.tanh(inside / blur_mm)
    for k in range(classes):
        mask = labels == k
        if mask.all() or not mask.any():
            z[k] = confidence if mask.all() else -confidence
    return torch.from_numpy(z.astype(np.float32))[None]


@dataclass(frozen=True)
class Pull:
    """What a loss asks of each voxel of a prediction."""

    value: float
    """The loss L."""
    pull: Floats
    """|N ∂L/∂z| of each voxel, z its logits: the length over the classes, times the number of voxels N."""
    share: float
    """The part of the pull that lies near the truth's boundary, in [0, 1]."""

    @property
    def mean(self) -> float:
        return float(self.pull.mean())


def measure_pull(
    loss: nn.Module, logits: Tensor, labels: Labels, spacing: Sequence[float], within_mm: float = 2.0
) -> Pull:
    """Value, pull of each voxel, and the share of it near the boundary, of any loss.

    Args:
        loss: called as loss(logits, target, phi); its `compute_map`, if it has one, gives phi.
        logits: (1, K, X, Y[, Z]).
        labels: (X, Y[, Z]), the truth.
        spacing: mm, one number for each axis.
        within_mm: a voxel is near if its distance to the nearest voxel of another label is at most this.
    """
    z = logits.detach().double().requires_grad_()
    target = torch.from_numpy(np.ascontiguousarray(labels).astype(np.int64))[None]
    compute_map = getattr(loss, "compute_map", None)
    phi = None if compute_map is None else torch.from_numpy(compute_map(np.asarray(labels), tuple(spacing)))[None]
    value = loss(z, target, phi)
    (gradient,) = torch.autograd.grad(value, z)
    pull = (gradient[0] * labels.size).norm(dim=0).numpy()
    near = boundary_distance(labels, spacing) <= within_mm
    total = float(pull.sum())
    return Pull(float(value.detach()), pull, float(pull[near].sum()) / total if total else float("nan"))
