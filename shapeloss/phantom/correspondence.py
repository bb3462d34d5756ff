"""Which point of one phantom bone is which point of another: by the parameters that both were made from."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from shapeloss.phantom.anatomy import Bone, Waves, coordinates, distance_and_normal, to_bone, to_world

_STEPS = 8  # from one bone's shape to the other's
_SETTLE = 3  # Newton steps at the end: the surface is then found to 0.01 mm


def map_points(points: NDArray[np.floating], source: Bone, target: Bone) -> NDArray[np.float64]:
    """Points on or near the surface of one bone → the corresponding points on the surface of another.

    A bone is a shape in a frame of its own, of which pose, side and stretch make the bone in the world. A point keeps
    its place in that frame; then the source's shape and relief turn into the target's in steps, and the point stays on
    the surface by moving along its normal.

    Args:
        points: (n, 3) world mm of the source.
        source: the bone on which they lie.
        target: another bone of the same kind.

    Returns:
        (n, 3) world mm of the target, on its surface to 0.01 mm where the points lay within 2 mm of the source's.

    Raises:
        ValueError: for bones of two kinds.
    """
    if type(source.shape) is not type(target.shape):
        kinds = [type(bone.shape).__name__ for bone in (source, target)]
        raise ValueError(f"source and target must be bones of one kind, got {kinds[0]} and {kinds[1]}")
    moved = to_world(np.stack(to_bone(coordinates(points), source), axis=-1), target)
    for share in [*np.linspace(0, 1, _STEPS + 1)[1:], *[1.0] * _SETTLE]:
        distance, normal = distance_and_normal(coordinates(moved), _between(source, target, float(share)))
        moved = moved - (distance * normal).T
    return moved


def _between(source: Bone, target: Bone, share: float) -> Bone:
    """A bone in the target's place whose shape and relief lie between two bones': 0 the source's, 1 the target's."""
    values = {
        f.name: (1 - share) * getattr(source.shape, f.name) + share * getattr(target.shape, f.name)
        for f in fields(source.shape)
    }
    waves = [(source.relief, 1 - share), (target.relief, share)]
    relief = Waves(
        np.concatenate([wave.vectors for wave, _ in waves]),
        np.concatenate([wave.phases for wave, _ in waves]),
        np.concatenate([weight * wave.amplitudes for wave, weight in waves]),
    )
    shape = type(source.shape)(**values)
    return Bone(shape, target.origin, target.rotation, target.scale, relief)
