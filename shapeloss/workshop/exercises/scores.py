"""Notebook 5: what does a Dice of 0.96 mean?"""

from __future__ import annotations

from typing import Any

import numpy as np

from shapeloss.metrics import METRICS
from shapeloss.metrics.geometry import mask_geometry
from shapeloss.workshop.checks import as_number, exercise, need
from shapeloss.workshop.predictions import SPACING, practice_knee


def score(name: str, truth: np.ndarray, prediction: np.ndarray) -> float:
    """A metric of two masks of the practice knee."""
    return METRICS[name].function(mask_geometry(truth, prediction, SPACING))


@exercise("5.1", "set pair to two predictions of the femur, masks of the shape of the truth")
def same_dice_other_boundary(pair: Any) -> str:
    truth = practice_knee().labels == 1
    masks = [np.asarray(mask).astype(bool) for mask in pair]
    need(len(masks) == 2 and all(mask.shape == truth.shape for mask in masks), f"two masks of shape {truth.shape}")
    dice = [score("dice", truth, mask) for mask in masks]
    strict = [score("boundary_dice_in_plane", truth, mask) for mask in masks]
    need(
        all(0.9 < value < 0.97 for value in dice),
        f"Dice is {dice[0]:.3f} and {dice[1]:.3f}; both should lie between 0.90 and 0.97 (a pixel is 2 mm wide: "
        "growth by less takes no voxel)",
    )
    need(abs(dice[0] - dice[1]) < 0.005, f"Dice is {dice[0]:.3f} and {dice[1]:.3f}; make them equal to 0.005")
    need(
        abs(strict[0] - strict[1]) > 0.3,
        f"boundary Dice is {strict[0]:.2f} and {strict[1]:.2f}: one error all around, one in a single place?",
    )
    return f"Dice {dice[0]:.3f} and {dice[1]:.3f}, boundary Dice {strict[0]:.2f} and {strict[1]:.2f}."


@exercise("5.2", "complete the function strict_boundary_dice(truth, prediction)")
def own_boundary_dice(function: Any) -> str:
    truth = practice_knee().labels[8] == 1
    moved = np.roll(truth, 1, axis=0)
    expected = score("boundary_dice_in_plane", truth[None], moved[None])
    value = as_number(function(truth, moved), "the score")
    overlap = 2 * (truth & moved).sum() / (truth.sum() + moved.sum())
    need(abs(value - overlap) > 1e-6, "that is Dice of the whole masks: take their boundaries first")
    need(
        abs(value - expected) < 0.02,
        f"it gives {value:.3f}, not {expected:.3f}: a boundary voxel has a neighbour above, below, left or right "
        "that is outside",
    )
    need(as_number(function(truth, truth), "the score") == 1, "equal masks score 1")
    empty = np.zeros_like(truth)
    need(as_number(function(truth, empty), "the score") == 0, "a missed structure scores 0")
    need(as_number(function(empty, empty), "the score") == 1, "two empty masks agree: the score is 1, not 0 / 0")
    need(
        as_number(function(~empty, empty), "the score") == 0,
        "a mask that fills the picture has no boundary either, but it is not the empty one: the score is 0",
    )
    return "Also for empty masks, on which libraries disagree."


@exercise("5.3", "set smallest to a number of voxels")
def island_that_moves_hd95(answer: Any) -> str:
    smallest = as_number(answer, "smallest")
    truth = practice_knee().labels == 3

    def hd95(voxels: int) -> float:
        return score("hd95_voxel_mm", truth, with_island(truth, voxels))

    expected = next(n for n in range(1, 400) if hd95(n) > 2 * SPACING[0])
    need(smallest == int(smallest) > 0, f"a number of voxels is a whole number above 0, got {smallest:g}")
    need(
        int(smallest) == expected,
        f"with {int(smallest)} voxels HD95 is {hd95(int(smallest)):.1f} mm, with one voxel less "
        f"{hd95(int(smallest) - 1):.1f} mm",
    )
    unseen = max(n for n in range(expected) if hd95(n) == 0)
    return f"Up to {unseen} voxels HD95 is 0 mm, as if nothing were wrong. HD, the maximum, sees a single one."


def with_island(mask: np.ndarray, voxels: int) -> np.ndarray:
    """The mask with so many false voxels in rows of 20 in a corner, far away."""
    island = mask.copy()
    corner = np.zeros(mask[0, :20, :20].shape, bool)
    corner.reshape(-1)[:voxels] = True
    island[0, :20, :20] |= corner
    return island


@exercise("5.4", "set infinite to the set of libraries whose HD95 or HD of a missed structure is no finite number")
def conventions(answer: Any) -> str:
    infinite, table = answer
    need(not isinstance(infinite, str), "infinite must be a set of names")
    expected = {name for name, value in table.items() if not np.isfinite(value)}
    chosen = set(infinite)
    need(chosen <= set(table), f"the names are {', '.join(table)}, got {', '.join(sorted(map(str, chosen)))}")
    wrong = sorted(chosen - expected)
    need(not wrong, f"{', '.join(wrong)}: {', '.join(f'{table[name]:.1f}' for name in wrong)}")
    need(chosen == expected, "there is at least one more")
    return "Two papers with different libraries disagree on their worst case, and a mean that skips NaN forgets it."
