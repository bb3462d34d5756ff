"""Notebook 2: distance maps."""

from __future__ import annotations

from typing import Any

import numpy as np

from shapeloss.distance import boundary_distance, distance_penalty, weight_near_boundary
from shapeloss.workshop.checks import Wrong, as_number, exercise, need
from shapeloss.workshop.predictions import SPACING, practice_knee

SMALL = np.array([[0, 0, 0, 0, 0, 3], [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 2, 2], [0, 1, 1, 1, 2, 2]])
"""A label map of two structures that touch, and of a third that has one voxel."""


def _array(answer: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(answer)
    need(array.shape == shape, f"the result must have the shape of labels, {shape}, got {array.shape}")
    return array.astype(float)


@exercise("2.1", "complete the function my_distance(labels, spacing)")
def own_distance(my_distance: Any) -> str:
    plain = _array(my_distance(SMALL, (1.0, 1.0)), SMALL.shape)
    expected = boundary_distance(SMALL, (1.0, 1.0))
    binary = boundary_distance(SMALL > 0, (1.0, 1.0))
    need(not np.allclose(plain, binary), "structures that touch are separate compartments: compare labels, not masks")
    need(
        np.allclose(plain, expected, atol=1e-4),
        f"at voxel (2, 2) with spacing 1 it gives {plain[2, 2]:g}; count the way to the nearest voxel of another label",
    )
    uneven = _array(my_distance(SMALL, (3.0, 0.5)), SMALL.shape)
    need(not np.allclose(uneven, expected, atol=1e-4), "the spacing changes nothing: multiply each axis by its own mm")
    need(
        np.allclose(uneven, boundary_distance(SMALL, (3.0, 0.5)), atol=1e-4),
        "right at spacing 1, but not at (3, 0.5): which axis has which spacing? Is the nearest voxel the same?",
    )
    return "The same as the package's exact transform, which is some thousand times faster."


@exercise("2.2", "complete the function my_phi(labels, spacing)")
def own_phi(my_phi: Any) -> str:
    spacing = (3.0, 0.5)
    phi = _array(my_phi(SMALL, spacing), SMALL.shape)
    distance = boundary_distance(SMALL, spacing)
    need(np.isfinite(phi).all(), "there are NaN or infinite values: which compartment has max = min?")
    need(
        not np.allclose(phi, distance_penalty(SMALL, spacing, normalise_by="image"), atol=1e-4),
        "it is reversed by one maximum for all; each compartment has its own",
    )
    need(phi.max() <= 1 + 1e-6, f"the largest value is {phi.max():g}; φ should be 1 at the boundary")
    need(np.corrcoef(phi.ravel(), distance.ravel())[0, 1] < 0, "it rises away from the boundary; φ falls")
    need(
        np.allclose(phi, distance_penalty(SMALL, spacing), atol=1e-4),
        "not yet: 1 at the voxels nearest to the boundary, 0 at the deepest voxel, for each label by itself",
    )
    empty = _array(my_phi(np.zeros((4, 4), int), spacing), (4, 4))
    need(np.isfinite(empty).all(), "an empty mask has no boundary: its distance is infinite, and φ must be finite")
    need((empty == 0).all(), "an empty mask has no boundary to be near to: φ is 0 throughout")
    return "Also for an empty mask, where the best-known implementations give NaN."


@exercise("2.3", "set tau in mm")
def decay_for_a_share(answer: Any) -> str:
    tau = as_number(answer, "tau")
    need(tau > 0, f"tau is a length in mm and must be positive, got {tau:g}")
    labels = practice_knee().labels
    share, _ = weight_near_boundary(distance_penalty(labels, SPACING, decay=tau), labels, SPACING, within=2.0)
    need(
        abs(share - 0.14) < 0.0005,
        f"with tau = {tau:g} mm {share:.2%} of the weight lies within 2 mm; "
        + ("a longer range spreads it" if share > 0.14 else "a shorter range gathers more of it there"),
    )
    return f"{share:.1%}. However short tau, it stays below 16 %: the 1 in 1 + φ lies everywhere."


@exercise("2.4", "complete the function phi_of_patch(labels, spacing, box)")
def phi_of_patch(function: Any) -> str:
    labels = practice_knee().labels
    box = (slice(4, 12), slice(8, 32), slice(10, 40))
    answer = _array(function(labels, SPACING, box), labels[box].shape)
    wrong = distance_penalty(labels[box], SPACING)
    if np.allclose(answer, wrong, atol=1e-5):
        raise Wrong(
            "the map of the cropped labels: its maximum is that of the patch, and the same voxel gets another φ in "
            "each patch"
        )
    need(np.allclose(answer, distance_penalty(labels, SPACING)[box], atol=1e-5), "this is not φ of the whole volume")
    difference = float(np.abs(answer - wrong).max())
    return f"Cropped first, φ would be off by up to {difference:.2f}."
