"""The losses with maps of their own: `unet`, `contour`, `dou`, `boundary`, `rrw`, `gsl`, `hausdorff`, `sdf`.

Shapes: see `shapeloss.losses`.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shapeloss._typing import Spacing
from shapeloss.losses import label_maps as maps
from shapeloss.losses.base import MapLoss, one_hot
from shapeloss.losses.checks import MapSpec, check_classes, check_nonnegative, check_progress
from shapeloss.losses.dice import DiceCELoss, DiceLoss, GeneralizedDiceLoss
from shapeloss.losses.fused import class_sizes, class_sums, voxel_cross_entropy


class UNetWeightedCELoss(MapLoss):
    """L = −(1/N) Σ_i w_i log p_t (Ronneberger et al. 2015, equations 1 and 2).

    The map is w, by :func:`shapeloss.losses.label_maps.unet_weight`.

    Args:
        spacing: mm, one number for each spatial axis: computes the map at a call without one.
        w0, sigma, objects: as for :func:`shapeloss.losses.label_maps.unet_weight`.

    >>> UNetWeightedCELoss(spacing=(1, 1))(torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 0, 1]]]))
    tensor(0.6931)
    """

    def __init__(
        self,
        spacing: Spacing | None = None,
        w0: float = 10.0,
        sigma: float = 5.0,
        objects: maps.Objects = "components",
    ) -> None:
        super().__init__(spacing)
        if not check_nonnegative("sigma", sigma) > 0:
            raise ValueError(f"sigma must be a positive length in mm, got {sigma!r}")
        if objects not in ("components", "labels"):
            raise ValueError(f"objects must be 'components' or 'labels', got {objects!r}")
        self.w0, self.sigma, self.objects = check_nonnegative("w0", w0), sigma, objects

    @property
    def map_spec(self) -> MapSpec:
        return {"map": "unet_weight", "w0": self.w0, "sigma": self.sigma, "objects": self.objects}

    def compute_map(self, labels: NDArray[Any], spacing: Spacing) -> NDArray[np.float32]:
        return maps.unet_weight(labels, spacing, w0=self.w0, sigma=self.sigma, objects=self.objects)

    def compute(self, logits: Tensor, target: Tensor, label_map: Tensor) -> Tensor:
        return (label_map * voxel_cross_entropy(logits, target)).mean()


class BoundaryVoxelsLoss(MapLoss):
    """Base of the losses whose map marks the voxels next to another label, by :func:`label_maps.boundary_voxels`."""

    neighbours: Literal["faces", "all"] = "faces"

    @property
    def map_spec(self) -> MapSpec:
        return {"map": "boundary_voxels", "neighbours": self.neighbours}

    def compute_map(self, labels: NDArray[Any], spacing: Spacing) -> NDArray[np.float32]:
        return maps.boundary_voxels(labels, spacing, self.neighbours)


class ContourWeightedCELoss(BoundaryVoxelsLoss):
    """L = mean_i (1 + w c) ce + mean_i ce + D_c + D_o, ce = −log p_t (Huang & Sui 2024, as their code has it).

    c marks the contours, the voxels of the structures with a neighbour of another label (faces, edges and corners). D_c
    is Dice loss over the contours alone and D_o over all else, one ratio for all structures together. In voxels,
    whatever the spacing.

    Args:
        spacing: mm, one number for each spatial axis: computes the map at a call without one.
        weight: w.
        dice: whether to add D_c + D_o, the authors' separable Dice.
        smooth: of the Dice losses, in voxels.

    >>> loss = ContourWeightedCELoss(spacing=(1, 1), dice=False)
    >>> loss(torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 0, 1]]]))  # log 2 times the mean of 2, 2, 2, 4
    tensor(1.7329)
    """

    neighbours = "all"

    def __init__(
        self, spacing: Spacing | None = None, weight: float = 2.0, dice: bool = True, smooth: float = 1e-3
    ) -> None:
        super().__init__(spacing)
        self.weight, self.dice, self.smooth = (
            check_nonnegative("weight", weight),
            dice,
            check_nonnegative("smooth", smooth),
        )

    def compute(self, logits: Tensor, target: Tensor, label_map: Tensor) -> Tensor:
        contour = label_map * (target > 0)
        ce = voxel_cross_entropy(logits, target)
        loss = ((2 + self.weight * contour) * ce).mean()
        if not self.dice:
            return loss
        g = one_hot(target, logits.shape[1])[:, 1:].to(logits)
        p, on_contour = logits.softmax(1)[:, 1:], contour[:, None] * g
        for part in (on_contour, 1 - on_contour):  # a voxel lies on the contour of its own structure alone
            overlap, size = ((part * value).flatten(1).sum(1) for value in (p * g, p + g))
            tiny = torch.finfo(logits.dtype).tiny  # keeps 0 / 0 finite if smooth is 0
            loss = loss + (1 - (2 * overlap + self.smooth) / (size + self.smooth + tiny)).mean()
        return loss


class BoundaryDoULoss(BoundaryVoxelsLoss):
    """L = mean_k (U − I) / (U − α I), U and I union and intersection, α = 1 − 2 C / S (Sun et al. 2023, equation 3).

    S is the number of voxels of a structure, C that of its boundary voxels, so that a large structure has α near 1 and
    its boundary decides. I = Σ_i p g, and U + I = Σ_i p² + Σ_i g, as in the authors' code; in 3D C counts voxels of the
    surface. In voxels, whatever the spacing. The edge of the volume is no boundary here.

    Args:
        spacing: mm, one number for each spatial axis: computes the map at a call without one.
        largest_alpha: the largest α (the authors' 0.8); the least is 0.
        include_background: whether the background counts as a class.
        smooth: in voxels, of the denominator; an absent structure then costs what is predicted of it. The authors add
            it to the numerator too, where an absent structure costs 1 whatever the network does.

    >>> labels = torch.zeros(1, 6, 6, dtype=torch.long)
    >>> labels[0, 1:5, 1:5] = 1  # S = 16, C = 12: α is 0
    >>> BoundaryDoULoss(spacing=(1, 1), smooth=0)(torch.zeros(1, 2, 6, 6), labels)  # I = 8, U = 36 / 4 + 16 − 8 = 17
    tensor(0.5294)
    """

    def __init__(
        self,
        spacing: Spacing | None = None,
        largest_alpha: float = 0.8,
        include_background: bool = False,
        smooth: float = 1.0,
    ) -> None:
        super().__init__(spacing)
        if check_nonnegative("largest_alpha", largest_alpha) >= 1:
            raise ValueError(f"largest_alpha must lie below 1, got {largest_alpha!r}")
        self.largest_alpha, self.include_background = largest_alpha, include_background
        self.smooth = check_nonnegative("smooth", smooth)

    def compute(self, logits: Tensor, target: Tensor, label_map: Tensor) -> Tensor:
        first, classes = 0 if self.include_background else 1, logits.shape[1]
        overlap, squares = class_sums(logits, target, squared=True)  # (B, K)
        size = class_sizes(target, classes).to(overlap)
        on_boundary = one_hot(target, classes) * label_map[:, None]
        boundary = on_boundary.flatten(2).sum(2)
        alpha = (1 - 2 * boundary / size.clamp(min=1)).clamp(0, self.largest_alpha)
        both = squares + size
        tiny = torch.finfo(logits.dtype).tiny  # keeps 0 / 0 finite if smooth is 0
        dou = (both - 2 * overlap) / (both - (1 + alpha) * overlap + self.smooth + tiny)
        return dou[:, first:].mean()


class SignedDistanceMapLoss(MapLoss):
    """Base of the losses whose map holds the signed distance in mm to each class, (K, X, Y[, Z])."""

    per_class = True

    def __init__(self, num_classes: int, spacing: Spacing | None = None, include_background: bool = False) -> None:
        super().__init__(spacing)
        self.num_classes, self.include_background = check_classes(num_classes), include_background

    @property
    def map_spec(self) -> MapSpec:
        return {"map": "signed_distance", "num_classes": self.num_classes}

    def compute_map(self, labels: NDArray[Any], spacing: Spacing) -> NDArray[np.float32]:
        return maps.signed_distance(labels, self.num_classes, spacing)


class BoundaryLoss(SignedDistanceMapLoss):
    """L_B = mean_ik φ p, with a region loss; φ is the signed distance in mm, negative inside (Kervadec et al. 2019).

    L_B alone has next to no gradient at an empty prediction, so the paper adds a region loss L_R, generalised Dice:

    - `schedule="rebalance"`: (1 − α) L_R + α L_B; α grows linearly from 0.01 to 0.99 during the training (the paper
      moves 0.01 from one to the other after each epoch);
    - `schedule="increase"`: L_R + α L_B, with the same α;
    - `schedule="constant"`: L_R + α L_B with α = `end` throughout.

    The training loop sets `progress`, the part of the training that is done, in [0, 1]; a loop that does not
    needs the constant schedule.

    Args:
        num_classes: K.
        spacing: mm, one number for each spatial axis: computes the map at a call without one.
        include_background: whether the background counts in L_B.
        region: "gdice" (the paper's), "dice", or None for L_B alone (α and the schedule are then unused).
        schedule, start, end: of α.

    >>> loss = BoundaryLoss(2, spacing=(1, 1), region=None)
    >>> loss(torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 0, 1]]]))  # φ of class 1 is 3, 2, 1, −1
    tensor(0.6250)
    """

    def __init__(
        self,
        num_classes: int,
        spacing: Spacing | None = None,
        include_background: bool = False,
        region: Literal["gdice", "dice"] | None = "gdice",
        schedule: Literal["rebalance", "increase", "constant"] = "rebalance",
        start: float = 0.01,
        end: float = 0.99,
    ) -> None:
        super().__init__(num_classes, spacing, include_background)
        if region not in ("gdice", "dice", None):
            raise ValueError(f"region must be 'gdice', 'dice' or None, got {region!r}")
        if schedule not in ("rebalance", "increase", "constant"):
            raise ValueError(f"schedule must be 'rebalance', 'increase' or 'constant', got {schedule!r}")
        self.region = None if region is None else GeneralizedDiceLoss() if region == "gdice" else DiceLoss()
        for name, value in (("start", start), ("end", end)):
            if not 0 <= check_nonnegative(name, value) <= 1:
                raise ValueError(f"{name} must lie in 0 to 1, as alpha does, got {value!r}")
        self.schedule, self.start, self.end = schedule, start, end
        self.progress = 0.0

    @property
    def alpha(self) -> float:
        """The weight α of L_B at the present progress.

        Raises:
            ValueError: a progress outside 0 to 1.
        """
        progress = check_progress(self.progress)
        return self.end if self.schedule == "constant" else self.start + (self.end - self.start) * progress

    def compute(self, logits: Tensor, target: Tensor, label_map: Tensor) -> Tensor:
        first = 0 if self.include_background else 1
        boundary = (label_map[:, first:] * logits.softmax(1)[:, first:]).mean()
        if self.region is None:
            return boundary
        region_weight = 1 - self.alpha if self.schedule == "rebalance" else 1.0
        return region_weight * self.region.compute(logits, target, label_map) + self.alpha * boundary


class RegionWiseLoss(MapLoss):
    """L = mean_ik p M, M = −d / max d inside class k and 1 outside (Valverde & Tohka 2023: the rectified map).

    The map is bounded, so that no region loss and no schedule are needed, unlike for the boundary loss. All classes
    count, the background too.

    Args:
        num_classes: K.
        spacing: mm, one number for each spatial axis: computes the map at a call without one.

    >>> RegionWiseLoss(2, spacing=(1, 1))(torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 1, 1]]]))
    tensor(0.0625)
    """

    per_class = True

    def __init__(self, num_classes: int, spacing: Spacing | None = None) -> None:
        super().__init__(spacing)
        self.num_classes = check_classes(num_classes)

    @property
    def map_spec(self) -> MapSpec:
        return {"map": "region_wise", "num_classes": self.num_classes}

    def compute_map(self, labels: NDArray[Any], spacing: Spacing) -> NDArray[np.float32]:
        return maps.region_wise(labels, self.num_classes, spacing)

    def compute(self, logits: Tensor, target: Tensor, label_map: Tensor) -> Tensor:
        return (label_map * logits.softmax(1)).mean()


class GeneralizedSurfaceLoss(SignedDistanceMapLoss):
    """L = α L_R + (1 − α) L_S, L_S = 1 − Σ_ik (D (1 − g − p))² / Σ_ik D² (Celaya et al. 2023, equation 7).

    D is the distance in mm to the boundary of each class; L_S lies in [0, 1], and is 0 for the truth. L_R is the sum of
    Dice and cross-entropy, `dice_ce`, and α = 1 − progress: the training loop sets `progress`, the part of the training
    that is done. One ratio for each volume.

    Args:
        num_classes: K.
        spacing: mm, one number for each spatial axis: computes the map at a call without one.
        include_background: whether the background counts in L_S.
        region: whether there is L_R; without it L is L_S.

    >>> loss = GeneralizedSurfaceLoss(2, spacing=(1, 1), region=False)
    >>> loss(torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 1, 1]]]))  # (1 − g − p)² is ¼ throughout
    tensor(0.7500)
    """

    def __init__(
        self, num_classes: int, spacing: Spacing | None = None, include_background: bool = False, region: bool = True
    ) -> None:
        super().__init__(num_classes, spacing, include_background)
        self.region = DiceCELoss() if region else None
        self.progress = 0.0

    def compute(self, logits: Tensor, target: Tensor, label_map: Tensor) -> Tensor:
        progress = check_progress(self.progress)
        first = 0 if self.include_background else 1
        g = one_hot(target, logits.shape[1])[:, first:].to(logits)
        p, d = logits.softmax(1)[:, first:], label_map[:, first:]
        kept, whole = (d * (1 - g - p)).square().flatten(1).sum(1), d.square().flatten(1).sum(1)
        tiny = torch.finfo(logits.dtype).tiny  # keeps 0 / 0 finite in a volume of one class
        surface = (1 - kept / (whole + tiny)).mean()
        if self.region is None:
            return surface
        return (1 - progress) * self.region.compute(logits, target, label_map) + progress * surface


class HausdorffDTLoss(SignedDistanceMapLoss):
    """L_H = mean_ik (p − g)² (d_g^α + d_p^α), with Dice loss (Karimi & Salcudean 2019, by distance transforms).

    d_g and d_p are the distances in mm to the boundaries of the truth and of the prediction p > ½, from both sides
    of each; 0 for a class that is absent or fills the volume. d_p is computed at every call, on the CPU: this loss is
    slow, and needs `spacing` always. The map is the signed distance of the truth.

    Args:
        num_classes: K.
        spacing: mm, one number for each spatial axis.
        include_background: whether the background counts as a class in L_H.
        alpha: α, 2 in the paper.
        dice: whether to add λ times the Dice loss, with λ such that both weigh the same, as in the paper (there λ is
            set anew after each epoch, here at each call; no gradient flows through it).

    >>> loss = HausdorffDTLoss(2, spacing=(1, 1), dice=False)
    >>> loss(torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 0, 1]]]))  # ¼ of the mean of 9, 4, 1, 1
    tensor(0.9375)
    """

    def __init__(
        self,
        num_classes: int,
        spacing: Spacing,
        include_background: bool = False,
        alpha: float = 2.0,
        dice: bool = True,
    ) -> None:
        if spacing is None:
            raise ValueError("HausdorffDTLoss needs spacing=(…) in mm: it transforms each prediction")
        super().__init__(num_classes, spacing, include_background)
        self.alpha, self.dice = check_nonnegative("alpha", alpha), DiceLoss() if dice else None

    def compute(self, logits: Tensor, target: Tensor, label_map: Tensor) -> Tensor:
        first = 0 if self.include_background else 1
        p = logits.softmax(1)[:, first:]
        g = one_hot(target, logits.shape[1])[:, first:]
        d_g, d_p = label_map[:, first:].abs(), self._distances(p.detach() > 0.5).to(p)
        hausdorff = ((p - g.to(p)).square() * (d_g**self.alpha + d_p**self.alpha)).mean()
        if self.dice is None:
            return hausdorff
        dice = self.dice.compute(logits, target, label_map)
        balance = (hausdorff / dice.clamp(min=1e-6)).detach()
        return hausdorff + balance * dice

    def _distances(self, masks: Tensor) -> Tensor:
        spacing = cast(Spacing, self.spacing)
        flat = masks.flatten(0, 1).cpu().numpy()  # (B K, X, Y[, Z])
        return torch.from_numpy(np.stack([maps.mask_distance(mask, spacing) for mask in flat])).view(masks.shape)


class SignedDistanceLoss(MapLoss):
    """L = mean_ik |y − φ| − w mean_ik y φ / (y φ + y² + φ²), y = tanh(logits) (Xue et al. 2020, "SDM learning").

    The network's output is read as follows: tanh of the logit of class k is its normalised signed distance, positive
    inside (the paper's with the sign reversed). As tanh rises with the logit, and the truth is positive for one class
    alone, the argmax of the logits is the segmentation, as for every other loss. All classes count, the background too.
    The product term rises up to y = −φ and falls again beyond: a voxel far on the wrong side can stay there.

    Args:
        num_classes: K.
        spacing: mm, one number for each spatial axis: computes the map at a call without one.
        product: w, the weight of the product term, 1 in the paper.

    >>> loss = SignedDistanceLoss(2, spacing=(1, 1))
    >>> loss(torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 1, 1]]]))  # |φ| is 1, ½, ½, 1
    tensor(0.7500)
    """

    per_class = True

    def __init__(self, num_classes: int, spacing: Spacing | None = None, product: float = 1.0) -> None:
        super().__init__(spacing)
        self.num_classes, self.product = check_classes(num_classes), check_nonnegative("product", product)

    @property
    def map_spec(self) -> MapSpec:
        return {"map": "normalised_signed_distance", "num_classes": self.num_classes}

    def compute_map(self, labels: NDArray[Any], spacing: Spacing) -> NDArray[np.float32]:
        return maps.normalised_signed_distance(labels, self.num_classes, spacing)

    def compute(self, logits: Tensor, target: Tensor, label_map: Tensor) -> Tensor:
        y = logits.tanh()
        agreement = y * label_map
        # the denominator is at least ¾ φ², and φ is 0 only where a transform filled the map's edge with zeros
        total = (agreement + y.square() + label_map.square()).clamp(min=torch.finfo(y.dtype).tiny)
        return ((y - label_map).abs() - self.product * agreement / total).mean()
