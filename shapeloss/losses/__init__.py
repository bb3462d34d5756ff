"""Every loss, one class each, with one call: `loss(logits, target, phi=None)`.

Shapes, with B volumes, K classes (0 the background) and two or three spatial axes:

- `logits`: (B, K, X, Y[, Z]), before the softmax; float16 and bfloat16 are computed in float32, under autocast too;
- `target`: (B, X, Y[, Z]) or (B, 1, X, Y[, Z]), integers 0 to K − 1;
- `phi`: the map of the truth that some losses need, (B, X, Y[, Z]) or, one map for each class, (B, K, X, Y[, Z]).
  Losses without a map ignore it, so that one training loop serves all.

The result is a scalar. In the equations sums and means run over voxels i of a volume and classes k, p is the softmax of
the logits, g the one-hot truth, p_t the probability of the true class, N the number of voxels. `LOSSES` maps short keys
to the classes, and :func:`build_loss` builds one by its key. :class:`MultiTaskLoss` takes 2 K channels.
"""

from shapeloss.losses.base import MapLoss, SegmentationLoss
from shapeloss.losses.cross_entropy import (
    ConfidencePenaltyLoss,
    CrossEntropyLoss,
    DistancePenalizedCELoss,
    FocalLoss,
    TopKCELoss,
)
from shapeloss.losses.dice import (
    DiceCELoss,
    DiceDistancePenalizedCELoss,
    DiceLoss,
    GeneralizedDiceLoss,
    TverskyLoss,
)
from shapeloss.losses.distance_based import (
    BoundaryDoULoss,
    BoundaryLoss,
    ContourWeightedCELoss,
    GeneralizedSurfaceLoss,
    HausdorffDTLoss,
    RegionWiseLoss,
    SignedDistanceLoss,
    UNetWeightedCELoss,
)
from shapeloss.losses.multi_task import MultiTaskLoss
from shapeloss.losses.registry import LOSSES, build_loss

__all__ = [
    "LOSSES",
    "BoundaryDoULoss",
    "BoundaryLoss",
    "ConfidencePenaltyLoss",
    "ContourWeightedCELoss",
    "CrossEntropyLoss",
    "DiceCELoss",
    "DiceDistancePenalizedCELoss",
    "DiceLoss",
    "DistancePenalizedCELoss",
    "FocalLoss",
    "GeneralizedDiceLoss",
    "GeneralizedSurfaceLoss",
    "HausdorffDTLoss",
    "MapLoss",
    "MultiTaskLoss",
    "RegionWiseLoss",
    "SegmentationLoss",
    "SignedDistanceLoss",
    "TopKCELoss",
    "TverskyLoss",
    "UNetWeightedCELoss",
    "build_loss",
]
