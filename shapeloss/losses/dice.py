"""The losses of regions: `dice`, `gdice`, `tversky`, and the sums `dice_ce`, `dice_dpce`. See `shapeloss.losses`."""

from __future__ import annotations

import torch
from torch import Tensor

from shapeloss._typing import Spacing
from shapeloss.distance import Variant
from shapeloss.losses.base import SegmentationLoss
from shapeloss.losses.checks import check_nonnegative
from shapeloss.losses.cross_entropy import CrossEntropyLoss, DistancePenalizedCELoss
from shapeloss.losses.fused import class_sizes, class_sums


class DiceCELoss(CrossEntropyLoss):
    """L = cross-entropy + Dice loss, as nnU-Net sums them (Isensee et al. 2021).

    The defaults are nnU-Net's, whose Dice has no squares; its value is 1 lower, as it adds −Dice in place of 1 − Dice.

    Args:
        include_background, smooth, squared: of :class:`DiceLoss`.
        dice_weight, ce_weight: of the two terms.

    >>> DiceCELoss(dice_weight=0)(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long))
    tensor(0.6931)
    """

    def __init__(
        self,
        include_background: bool = False,
        smooth: float = 1e-5,
        squared: bool = False,
        dice_weight: float = 1.0,
        ce_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.dice = DiceLoss(include_background, smooth, squared)
        self.dice_weight, self.ce_weight = (
            check_nonnegative("dice_weight", dice_weight),
            check_nonnegative("ce_weight", ce_weight),
        )

    def compute(self, logits: Tensor, target: Tensor, label_map: Tensor) -> Tensor:
        ce = super().compute(logits, target, label_map)
        return self.ce_weight * ce + self.dice_weight * self.dice.compute(logits, target, label_map)


class DiceDistancePenalizedCELoss(DistancePenalizedCELoss):
    """L = distance-penalised cross-entropy + Dice loss, the sum of :class:`DiceCELoss` with φ.

    Args:
        spacing, variant, reading: of :class:`DistancePenalizedCELoss`.
        include_background, smooth, squared: of :class:`DiceLoss`; the defaults are nnU-Net's.
        dice_weight, ce_weight: of the two terms.

    >>> labels = torch.tensor([[[0, 0, 0, 1, 1]]])
    >>> DiceDistancePenalizedCELoss(spacing=(0.7, 0.365), dice_weight=0)(torch.zeros(1, 2, 1, 5), labels)
    tensor(1.0397)
    """

    def __init__(
        self,
        spacing: Spacing | None = None,
        variant: Variant = "compartment",
        include_background: bool = False,
        smooth: float = 1e-5,
        squared: bool = False,
        dice_weight: float = 1.0,
        ce_weight: float = 1.0,
        reading: Variant | None = None,
    ) -> None:
        super().__init__(spacing, variant, reading)
        self.dice = DiceLoss(include_background, smooth, squared)
        self.dice_weight, self.ce_weight = (
            check_nonnegative("dice_weight", dice_weight),
            check_nonnegative("ce_weight", ce_weight),
        )

    def compute(self, logits: Tensor, target: Tensor, label_map: Tensor) -> Tensor:
        penalised = super().compute(logits, target, label_map)
        return self.ce_weight * penalised + self.dice_weight * self.dice.compute(logits, target, label_map)


class DiceLoss(SegmentationLoss):
    """L = 1 − mean_k (2 Σ_i p g + s) / (Σ_i p² + Σ_i g² + s) (Milletari et al. 2016, section 3, which has s = 0).

    A mean over the volumes of the batch and the classes.

    Args:
        include_background: whether the background counts as a class; by default the structures alone do.
        smooth: s, in voxels. With 1 a structure that is absent from truth and prediction costs nothing, and a false one
            still has a gradient; with 0, as in the paper, an absent structure costs 1 whatever the network does.
        squared: False leaves out the squares of the denominator, as nnU-Net does.

    >>> logits, target = torch.tensor([[[[9.0, -9.0]], [[-9.0, 9.0]]]]), torch.tensor([[[0, 1]]])
    >>> DiceLoss()(logits, target).round(decimals=4)
    tensor(0.)
    """

    def __init__(self, include_background: bool = False, smooth: float = 1.0, squared: bool = True) -> None:
        super().__init__()
        self.include_background, self.smooth, self.squared = (
            include_background,
            check_nonnegative("smooth", smooth),
            squared,
        )

    def compute(self, logits: Tensor, target: Tensor, label_map: Tensor) -> Tensor:
        first = 0 if self.include_background else 1
        overlap, predicted = class_sums(logits, target, self.squared)  # (B, K)
        size = predicted + class_sizes(target, logits.shape[1])
        tiny = torch.finfo(logits.dtype).tiny  # keeps 0 / 0 finite if smooth is 0
        dice = (2 * overlap + self.smooth) / (size + self.smooth + tiny)
        return 1 - dice[:, first:].mean()


class GeneralizedDiceLoss(SegmentationLoss):
    """L = 1 − (2 Σ_k w_k Σ_i p g + ε) / (Σ_k w_k Σ_i (p + g) + ε), w_k = 1 / (Σ_i g)² (Sudre et al. 2017, section 2.1).

    One ratio for each volume, then the mean over the batch. A class that is absent has an infinite w_k, and any large
    number in its place silences every other class; so it gets the largest weight of the classes that are present. The
    weights are divided by their maximum, which changes nothing else than the scale of ε.

    Args:
        include_background: whether the background counts as a class (in the paper it does).
        smooth: ε.

    >>> GeneralizedDiceLoss()(torch.zeros(1, 2, 2, 2), torch.tensor([[[0, 1], [1, 1]]])).round(decimals=4)
    tensor(0.6250)
    """

    def __init__(self, include_background: bool = True, smooth: float = 1e-5) -> None:
        super().__init__()
        self.include_background, self.smooth = include_background, check_nonnegative("smooth", smooth)

    def compute(self, logits: Tensor, target: Tensor, label_map: Tensor) -> Tensor:
        first = 0 if self.include_background else 1
        overlaps, predicted = (sums[:, first:] for sums in class_sums(logits, target))  # (B, K)
        size = class_sizes(target, logits.shape[1])[:, first:].to(predicted)
        smallest = size.masked_fill(size == 0, torch.inf).amin(1, keepdim=True).clamp(max=target[0].numel())
        w = (smallest / torch.where(size == 0, smallest, size)).square()
        overlap, total = (w * overlaps).sum(1), (w * (predicted + size)).sum(1)
        tiny = torch.finfo(logits.dtype).tiny  # keeps 0 / 0 finite if smooth is 0 and there is nothing
        return (1 - (2 * overlap + self.smooth) / (total + self.smooth + tiny)).mean()


class TverskyLoss(SegmentationLoss):
    """L = 1 − mean_k (TP + s) / (TP + α FP + β FN + s), TP = Σ_i p g, FP = Σ_i p (1 − g), FN = Σ_i (1 − p) g.

    A mean over the volumes of the batch and the classes (Salehi et al. 2017, equation 3). With α = β = ½ it is Dice
    loss without squares.

    Args:
        alpha, beta: α and β; the paper's best values are 0.3 and 0.7, which count a missed voxel more than a false one.
        include_background: whether the background counts as a class.
        smooth: s, in voxels.

    >>> TverskyLoss(smooth=0)(torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 0, 1]]]))  # 1 − ½ / (½ + 0.3·1½ + 0.7·½)
    tensor(0.6154)
    """

    def __init__(
        self, alpha: float = 0.3, beta: float = 0.7, include_background: bool = False, smooth: float = 1.0
    ) -> None:
        super().__init__()
        self.alpha, self.beta = check_nonnegative("alpha", alpha), check_nonnegative("beta", beta)
        self.smooth, self.include_background = check_nonnegative("smooth", smooth), include_background

    def compute(self, logits: Tensor, target: Tensor, label_map: Tensor) -> Tensor:
        first = 0 if self.include_background else 1
        hit, predicted = class_sums(logits, target)  # (B, K)
        false, missed = predicted - hit, class_sizes(target, logits.shape[1]) - hit
        tiny = torch.finfo(logits.dtype).tiny  # keeps 0 / 0 finite if smooth is 0
        index = (hit + self.smooth) / (hit + self.alpha * false + self.beta * missed + self.smooth + tiny)
        return 1 - index[:, first:].mean()
