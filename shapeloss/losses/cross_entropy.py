"""The voxel-wise losses: `ce`, `dpce`, `pcol`, `focal`, `topk`. Call and shapes: see `shapeloss.losses`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shapeloss._typing import Spacing
from shapeloss.distance import Variant, distance_penalty, penalty_options
from shapeloss.losses.base import MapLoss, SegmentationLoss
from shapeloss.losses.checks import MapSpec, check_nonnegative
from shapeloss.losses.fused import voxel_cross_entropy, voxel_cross_entropy_and_entropy


class CrossEntropyLoss(SegmentationLoss):
    """L = −(1/N) Σ_i log p_t.

    >>> CrossEntropyLoss()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long))
    tensor(0.6931)
    """

    def compute(self, logits: Tensor, target: Tensor, label_map: Tensor) -> Tensor:
        return voxel_cross_entropy(logits, target).mean()


class DistancePenalizedCELoss(MapLoss):
    """L = −(1/N) Σ_i (1 + φ_i) log p_t (Calivà et al. 2019, the abstract's equation).

    φ is the distance to the boundary reversed, highest at the boundary; the paper leaves its normalisation open. Under
    deep supervision, give φ sampled as the target is: computed at a coarser scale, lengths in mm would be others.

    Args:
        spacing: mm, one number for each spatial axis: computes φ at a call without `phi`. φ then depends on the crop
            through its maximum; better compute it once for each whole volume.
        variant: a name of :data:`shapeloss.distance.VARIANTS` or `CONTROLS`, or the options themselves, as
            :class:`shapeloss.distance.PenaltyOptions` or as a dict of its fields.
        reading: the name of `variant` in earlier versions.

    >>> loss, labels = DistancePenalizedCELoss(spacing=(0.7, 0.365)), torch.tensor([[[0, 0, 0, 1, 1]]])
    >>> loss(torch.zeros(1, 2, 1, 5), labels)  # φ is 0, ½, 1, 1, 0: log 2 times the mean of 1 + φ
    tensor(1.0397)
    """

    def __init__(
        self, spacing: Spacing | None = None, variant: Variant = "compartment", reading: Variant | None = None
    ) -> None:
        super().__init__(spacing)
        self.options = penalty_options(variant if reading is None else reading)

    @property
    def map_spec(self) -> MapSpec:
        return {"map": "distance_penalty", **asdict(self.options)}

    def compute_map(self, labels: NDArray[Any], spacing: Spacing) -> NDArray[np.float32]:
        return distance_penalty(labels, spacing, **asdict(self.options))

    def check_map_values(self, label_map: Tensor) -> None:
        super().check_map_values(label_map)
        least = -1 if self.options.mean_one else 0
        if label_map.min() < least:
            lowest = float(label_map.min())
            limit = "below -1" if least else "negative"
            raise ValueError(f"phi must not be {limit}, got {lowest:g}; a signed distance is another map")

    def compute(self, logits: Tensor, target: Tensor, phi: Tensor) -> Tensor:
        ce = voxel_cross_entropy(logits, target)
        return torch.addcmul(ce, phi, ce).mean()  # (1 + φ) ce, in one pass


class ConfidencePenaltyLoss(SegmentationLoss):
    """L = (1/N) Σ_i (−log p_t − β H), H = −Σ_k p log p in nats (Pereyra et al. 2017, section 3: PCOL).

    Args:
        beta: β; the paper's best values lie about 0.1. The knee paper does not state its own.
        threshold: Γ in nats: the hinge form, −log p_t + β max(0, Γ − H), which penalises confident voxels only. The
            paper prints a minus before this β, which would reward confidence below Γ; the plus is what it describes.

    >>> ConfidencePenaltyLoss(beta=0.5)(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long))
    tensor(0.3466)
    """

    def __init__(self, beta: float = 0.1, threshold: float | None = None) -> None:
        super().__init__()
        self.beta = check_nonnegative("beta", beta)
        self.threshold = None if threshold is None else check_nonnegative("threshold", threshold)

    def compute(self, logits: Tensor, target: Tensor, label_map: Tensor) -> Tensor:
        ce, entropy = voxel_cross_entropy_and_entropy(logits, target)  # both (B, X, Y[, Z]): summed over classes
        bonus = entropy if self.threshold is None else -(self.threshold - entropy).clamp(min=0)
        return (ce - self.beta * bonus).mean()


class FocalLoss(SegmentationLoss):
    """L = −(1/N) Σ_i α_t (1 − p_t)^γ log p_t (Lin et al. 2017, equations 4 and 5).

    Args:
        gamma: γ, 2 in the paper.
        alpha: None for α = 1; one number a for α = a in the structures and 1 − a in the background (the paper's
            0.25 for detection); or K numbers.

    >>> FocalLoss()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long))
    tensor(0.1733)
    """

    def __init__(self, gamma: float = 2.0, alpha: float | Sequence[float] | None = None) -> None:
        super().__init__()
        self.gamma = check_nonnegative("gamma", gamma)
        self.alpha: float | list[float] | None
        if alpha is None or isinstance(alpha, (int, float, np.number, str)):
            self.alpha = None if alpha is None else check_nonnegative("alpha", alpha)
            if self.alpha is not None and self.alpha > 1:
                raise ValueError(f"alpha must lie in 0 to 1, as the background has 1 - alpha, got {alpha!r}")
        else:
            self.alpha = [check_nonnegative("alpha", value) for value in alpha]

    def compute(self, logits: Tensor, target: Tensor, label_map: Tensor) -> Tensor:
        ce = voxel_cross_entropy(logits, target)  # −log p_t
        # 1 − p_t; the bound keeps the power's gradient finite at p_t = 1 if γ < 1
        wrong = (-torch.expm1(-ce)).clamp(min=torch.finfo(ce.dtype).tiny)
        loss = wrong**self.gamma * ce
        if self.alpha is not None:
            loss = self._alpha(logits)[target] * loss
        return loss.mean()

    def _alpha(self, logits: Tensor) -> Tensor:
        classes = logits.shape[1]
        alpha = [1 - self.alpha] + [self.alpha] * (classes - 1) if isinstance(self.alpha, float) else self.alpha
        if alpha is None or len(alpha) != classes:
            raise ValueError(f"alpha must be one number or one for each of the {classes} classes, got {self.alpha!r}")
        return logits.new_tensor(alpha)


class TopKCELoss(SegmentationLoss):
    """L = the mean of −log p_t over the hardest voxels of each volume (Wu et al. 2016, online bootstrapping).

    Args:
        share: the part of the voxels that counts, at least one voxel (nnU-Net, "TopK10": 0.1).

    >>> logits = torch.tensor([[[[0.0, 4.0, 4.0, 4.0]], [[0.0, 0.0, 0.0, 0.0]]]])
    >>> TopKCELoss(share=0.25)(logits, torch.zeros(1, 1, 4, dtype=torch.long))  # the first voxel alone
    tensor(0.6931)
    """

    def __init__(self, share: float = 0.1) -> None:
        super().__init__()
        if not 0 < check_nonnegative("share", share) <= 1:
            raise ValueError(f"share must be above 0 and at most 1, got {share!r}")
        self.share = share

    def compute(self, logits: Tensor, target: Tensor, label_map: Tensor) -> Tensor:
        ce = voxel_cross_entropy(logits, target).flatten(1)
        count = max(1, int(self.share * ce.shape[1]))
        least = ce.detach().topk(count, dim=1, sorted=False).values.amin(1, keepdim=True)
        above, equal = ce.detach() > least, ce.detach() == least
        # voxels that tie for the last places share them; a gradient through topk itself is not deterministic on CUDA
        places = (count - above.sum(1, keepdim=True)) / equal.sum(1, keepdim=True)
        return (torch.where(above, 1, torch.where(equal, places, 0)) * ce).sum(1).mean() / count
