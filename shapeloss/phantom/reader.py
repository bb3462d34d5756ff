"""The outline that a person draws: the true surface, displaced smoothly and at random.

Two readers of one knee differ by a fraction of a millimetre, partly in the same way over neighbouring slices (how they
take the edge) and partly anew in each slice, since they draw slice by slice. A network that is trained on drawn masks
cannot find a surface more exactly than they were drawn; without this, the phantom's truth is found below the voxel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shapeloss.phantom.anatomy import Array, Coordinates, Waves, draw_waves, select

_WAVES = 12
_HABIT_MM = (15, 60)  # wavelengths of what a reader does alike in neighbouring slices
_SLICE_MM = (8, 40)  # and of what differs from slice to slice
_REACH_SD = 7.0  # no outline lies further off: twelve waves of unit RMS sum to less than 5, and there are two sums


@dataclass(frozen=True)
class Reader:
    """How one reader drew one knee: for each bone, and for each of its slices."""

    habits: tuple[Waves, ...]
    slices: tuple[tuple[Waves, ...], ...]
    """Bone, then sagittal slice."""
    sd_mm: float

    def displacement(self, bone: int, points: Coordinates, index: int) -> Array:
        """How far in mm the drawn outline lies outside the true surface (inside: negative).

        Args:
            bone: 0 femur, 1 tibia, 2 patella.
            points: world mm of points in one sagittal slice.
            index: the number of this slice.
        """
        return self.sd_mm * np.sqrt(0.5) * (self.habits[bone](points) + self.slices[bone][index](points))

    def drawn(self, bone: int, distance: Array, points: Coordinates, first: int) -> Array:
        """Signed distances in mm to the drawn outline in place of the true surface; unchanged far from both.

        Args:
            bone: 0 femur, 1 tibia, 2 patella.
            distance: signed distances of the voxels of some slices to the true surface, (slices, Y, Z).
            points: world mm of these voxels, each (slices, Y, Z).
            first: number of the first of these slices.
        """
        drawn = distance.copy()
        for index, near in enumerate(np.abs(distance) < _REACH_SD * self.sd_mm):
            at = select((points[0][index], points[1][index], points[2][index]), near)
            drawn[index][near] -= self.displacement(bone, at, first + index)
        return drawn


def draw_reader(rng: np.random.Generator, sd_mm: float, bones: int, slices: int) -> Reader:
    """A reader whose outlines have this SD about the true surface, in mm along its normal."""
    return Reader(
        tuple(draw_waves(rng, *_HABIT_MM, _WAVES) for _ in range(bones)),
        tuple(tuple(draw_waves(rng, *_SLICE_MM, _WAVES) for _ in range(slices)) for _ in range(bones)),
        sd_mm,
    )
