"""The outline that a person draws: the true surface, displaced smoothly and at random.

Two readers of one knee differ by a fraction of a millimetre, partly in the same way over neighbouring slices (how they
take the edge) and partly anew in each slice, since they draw slice by slice. A network that is trained on drawn masks
cannot find a surface more exactly than they were drawn; without this, the phantom's truth is found below the voxel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shapeloss.phantom.anatomy import Array, Coordinates, Waves, draw_waves

_WAVES = 12
_HABIT_MM = (15, 60)  # wavelengths of what a reader does alike in neighbouring slices
_SLICE_MM = (8, 40)  # and of what differs from slice to slice


@dataclass(frozen=True)
class Reader:
    """How one reader drew one knee: for each bone, and for each of its slices."""

    habits: tuple[Waves, ...]
    slices: tuple[tuple[Waves, ...], ...]
    """Bone, then sagittal slice."""
    sd_mm: float

    def displacement(self, bone: int, points: Coordinates, first: int) -> Array:
        """How far in mm the drawn outline lies outside the true surface (inside: negative).

        Args:
            bone: 0 femur, 1 tibia, 2 patella.
            points: world mm of the voxels of some slices, each (slices, Y, Z).
            first: number of the first of these slices.
        """
        shift = self.habits[bone](points)
        for index in range(len(shift)):
            one = (points[0][index], points[1][index], points[2][index])
            shift[index] += self.slices[bone][first + index](one)
        return np.float32(self.sd_mm * np.sqrt(0.5)) * shift


def draw_reader(rng: np.random.Generator, sd_mm: float, bones: int, slices: int) -> Reader:
    """A reader whose outlines have this SD about the true surface, in mm along its normal."""
    return Reader(
        tuple(draw_waves(rng, *_HABIT_MM, _WAVES) for _ in range(bones)),
        tuple(tuple(draw_waves(rng, *_SLICE_MM, _WAVES) for _ in range(slices)) for _ in range(bones)),
        sd_mm,
    )
