"""`mtl`: segmentation together with regression of the distance, by a network with two heads."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from shapeloss._typing import Spacing
from shapeloss.losses.checks import check_nonnegative
from shapeloss.losses.distance_based import SignedDistanceMapLoss
from shapeloss.losses.fused import voxel_cross_entropy

Weighting = Literal["fixed", "learned"]


class MultiTaskLoss(SignedDistanceMapLoss):
    """L = L_s + w L_d: mean cross-entropy, and L_d = mean_ik (y − clip(d / r, −1, 1))² for every class k.

    The extension that Calivà et al. (2019) announce: voxel-wise regression of the distance map beside the segmentation.
    d is the signed distance in mm to the boundary of each class, negative inside, and y the output of the network's
    second head, in units of r. Beyond r mm the distance counts as r: there it says nothing about the boundary.

    With `weighting="learned"`, L = exp(−s_s) L_s + ½ s_s + ½ w (exp(−s_d) L_d + s_d), where s_s and s_d, the logarithms
    of the variances of both tasks, are parameters of this module that are trained with the network (Kendall, Gal &
    Cipolla 2018, equations 7 and 10, with w = 1). With w = 0 a cross-entropy of learnt weight is left: the control that
    tells what the regression does from what the learnt weight does.

    It takes 2 K channels in place of K: the logits, then the distances, as `VNet(…, distance_head=True)` gives them in
    training.

    Args:
        num_classes: K.
        spacing: mm, one number for each spatial axis: computes the map at a call without one.
        weight: w; without it the second head is not trained.
        reach_mm: r.
        weighting: "fixed" or "learned".

    >>> loss = MultiTaskLoss(2, spacing=(1, 1), reach_mm=2)
    >>> loss(torch.zeros(1, 4, 1, 4), torch.tensor([[[0, 0, 1, 1]]]))  # log 2, and the mean of 1, ¼, ¼, 1
    tensor(1.3181)
    """

    distance_head = True

    def __init__(
        self,
        num_classes: int,
        spacing: Spacing | None = None,
        weight: float = 1.0,
        reach_mm: float = 10.0,
        weighting: Weighting = "fixed",
    ) -> None:
        super().__init__(num_classes, spacing, include_background=True)
        if not check_nonnegative("reach_mm", reach_mm) > 0:
            raise ValueError(f"reach_mm must be a positive length in mm, got {reach_mm!r}")
        if weighting not in get_args(Weighting):
            raise ValueError(f"weighting must be 'fixed' or 'learned', got {weighting!r}")
        self.weight, self.reach_mm = check_nonnegative("weight", weight), reach_mm
        self.log_variances = nn.Parameter(torch.zeros(2)) if weighting == "learned" else None

    def classes(self, logits: Tensor) -> int:
        if logits.shape[1] != 2 * self.num_classes:
            raise ValueError(
                f"MultiTaskLoss needs {2 * self.num_classes} channels, the logits and the distances of "
                f"{self.num_classes} classes, got {logits.shape[1]}; build the network with distance_head=True"
            )
        return self.num_classes

    def compute(self, logits: Tensor, target: Tensor, label_map: Tensor) -> Tensor:
        scores, distances = logits.split(self.num_classes, dim=1)
        segmentation = voxel_cross_entropy(scores, target).mean()
        regression = (distances - (label_map / self.reach_mm).clamp(-1, 1)).square().mean()
        if self.log_variances is None:
            return segmentation + self.weight * regression
        of_segmentation, of_regression = self.log_variances
        first = torch.exp(-of_segmentation) * segmentation + of_segmentation / 2
        return first + self.weight * (torch.exp(-of_regression) * regression + of_regression) / 2
