"""Every overlap, boundary and surface metric: one geometry of a pair of masks, and small pure functions of it.

`METRICS` names each with its definition. The conventions are the same for all:

- "voxel" and "surface" in a name say which surface it measures, and the edge of the field of view is not a boundary of
  a bone, unless asked for: see :mod:`shapeloss.metrics.geometry`.
- No metric is NaN, so no structure can leave a mean unseen. A missed or false positive structure (one mask without a
  boundary) has the worst value: 0 for an overlap; for a distance D, the diagonal of the field of view, which no pair
  of found surfaces exceeds and which keeps means, SDs and paired tests finite where infinity would not. If neither
  mask has a boundary, equal masks (a structure rightly absent) have the best value and others the worst.

Arrays are (X, Y, Z), spacing is in mm in the same order, labels are integers with 0 the background.
"""

from shapeloss.metrics.definitions import DEFAULT_METRICS, METRICS, definition_table
from shapeloss.metrics.functions import (
    assd,
    boundary_dice,
    boundary_iou,
    dice,
    hausdorff,
    masd,
    nsd,
    volume_error_mm3,
    volume_error_percent,
)
from shapeloss.metrics.geometry import MaskGeometry, mask_geometry
from shapeloss.metrics.score import score_case

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "MaskGeometry",
    "assd",
    "boundary_dice",
    "boundary_iou",
    "definition_table",
    "dice",
    "hausdorff",
    "masd",
    "mask_geometry",
    "nsd",
    "score_case",
    "volume_error_mm3",
    "volume_error_percent",
]
