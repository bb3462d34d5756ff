"""Every loss, one class each, with one call: `loss(logits, target, phi=None)`.

The voxel-wise losses and the sums stand here, Dice in `region_losses`, those with maps other than φ in
`distance_losses`, and what all share in `loss_base`; all are imported from here.

Shapes, with B volumes, K classes (0 the background) and two or three spatial axes:

- `logits`: (B, K, X, Y[, Z]), before the softmax; float16 and bfloat16 are computed in float32, under autocast too;
- `target`: (B, X, Y[, Z]) or (B, 1, X, Y[, Z]), integers 0 to K − 1;
- `phi`: the map of the truth that some losses need, (B, X, Y[, Z]) or, one map for each class, (B, K, X, Y[, Z]).
  Losses without a map ignore it, so that one training loop serves all.

The result is a scalar. In the equations sums and means run over voxels i of a volume and classes k, p is the softmax of
the logits, g the one-hot truth, p_t the probability of the true class, N the number of voxels. `LOSSES` maps short keys
to the classes, and :func:`build_loss` builds one by its key.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from shapeloss.distance import Reading, distance_penalty, penalty_options
from shapeloss.distance_losses import BoundaryLoss, HausdorffDTLoss, SignedDistanceLoss, UNetWeightedCELoss
from shapeloss.loss_base import MapLoss, MapSpec, SegmentationLoss, Spacing, at_least_0, did_you_mean
from shapeloss.region_losses import DiceLoss, GeneralizedDiceLoss

__all__ = [
    "LOSSES",
    "BoundaryLoss",
    "ConfidencePenaltyLoss",
    "CrossEntropyLoss",
    "DiceCELoss",
    "DiceDistancePenalizedCELoss",
    "DiceLoss",
    "DistancePenalizedCELoss",
    "FocalLoss",
    "GeneralizedDiceLoss",
    "HausdorffDTLoss",
    "MapLoss",
    "SegmentationLoss",
    "SignedDistanceLoss",
    "UNetWeightedCELoss",
    "build_loss",
]


class CrossEntropyLoss(SegmentationLoss):
    """L = −(1/N) Σ_i log p_t.

    >>> CrossEntropyLoss()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long))
    tensor(0.6931)
    """

    def compute(self, logits: Tensor, target: Tensor, phi: Tensor) -> Tensor:
        return F.cross_entropy(logits, target)


class DistancePenalizedCELoss(MapLoss):
    """L = −(1/N) Σ_i (1 + φ_i) log p_t (Calivà et al. 2019, the abstract's equation).

    φ is the distance to the boundary reversed, highest at the boundary; the paper leaves its normalisation open. Under
    deep supervision, give φ sampled as the target is: computed at a coarser scale, lengths in mm would be others.

    Args:
        spacing: mm, one number for each spatial axis: computes φ at a call without `phi`. φ then depends on the crop
            through its maximum; better compute it once for each whole volume.
        reading: a name of :data:`shapeloss.distance.READINGS`, or the options themselves, as
            :class:`shapeloss.distance.PenaltyOptions` or as a dict of its fields.

    >>> loss, labels = DistancePenalizedCELoss(spacing=(0.7, 0.365)), torch.tensor([[[0, 0, 0, 1, 1]]])
    >>> loss(torch.zeros(1, 2, 1, 5), labels)  # φ is 0, ½, 1, 1, 0: log 2 times the mean of 1 + φ
    tensor(1.0397)
    """

    def __init__(self, spacing: Spacing | None = None, reading: Reading = "compartment") -> None:
        super().__init__(spacing)
        self.options = penalty_options(reading)

    @property
    def map_spec(self) -> MapSpec:
        return {"map": "distance_penalty", **asdict(self.options)}

    def compute_map(self, labels: NDArray[Any], spacing: Spacing) -> NDArray[np.float32]:
        return distance_penalty(labels, spacing, **asdict(self.options))

    def prepare_map(self, logits: Tensor, target: Tensor, phi: Tensor | None) -> Tensor:
        phi = super().prepare_map(logits, target, phi)
        if phi.min() < 0:
            raise ValueError(f"phi must not be negative, got {float(phi.min()):g}; a signed distance is another map")
        return phi

    def compute(self, logits: Tensor, target: Tensor, phi: Tensor) -> Tensor:
        return ((1 + phi) * F.cross_entropy(logits, target, reduction="none")).mean()


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
        self.beta = at_least_0("beta", beta)
        self.threshold = None if threshold is None else at_least_0("threshold", threshold)

    def compute(self, logits: Tensor, target: Tensor, phi: Tensor) -> Tensor:
        log_p = logits.log_softmax(1)
        entropy = -(log_p.exp() * log_p).sum(1)  # (B, X, Y[, Z]): summed over classes, not averaged
        bonus = entropy if self.threshold is None else -(self.threshold - entropy).clamp(min=0)
        return F.nll_loss(log_p, target) - self.beta * bonus.mean()


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
        self.gamma = at_least_0("gamma", gamma)
        self.alpha: float | list[float] | None
        if alpha is None or isinstance(alpha, (int, float, np.number, str)):
            self.alpha = None if alpha is None else at_least_0("alpha", alpha)
            if self.alpha is not None and self.alpha > 1:
                raise ValueError(f"alpha must lie in 0 to 1, as the background has 1 - alpha, got {alpha!r}")
        else:
            self.alpha = [at_least_0("alpha", value) for value in alpha]

    def compute(self, logits: Tensor, target: Tensor, phi: Tensor) -> Tensor:
        ce = F.cross_entropy(logits, target, reduction="none")  # −log p_t
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
        self.dice_weight, self.ce_weight = at_least_0("dice_weight", dice_weight), at_least_0("ce_weight", ce_weight)

    def compute(self, logits: Tensor, target: Tensor, phi: Tensor) -> Tensor:
        ce = super().compute(logits, target, phi)
        return self.ce_weight * ce + self.dice_weight * self.dice.compute(logits, target, phi)


class DiceDistancePenalizedCELoss(DistancePenalizedCELoss):
    """L = distance-penalised cross-entropy + Dice loss, the sum of :class:`DiceCELoss` with φ.

    Args:
        spacing, reading: of :class:`DistancePenalizedCELoss`.
        include_background, smooth, squared: of :class:`DiceLoss`; the defaults are nnU-Net's.
        dice_weight, ce_weight: of the two terms.

    >>> labels = torch.tensor([[[0, 0, 0, 1, 1]]])
    >>> DiceDistancePenalizedCELoss(spacing=(0.7, 0.365), dice_weight=0)(torch.zeros(1, 2, 1, 5), labels)
    tensor(1.0397)
    """

    def __init__(
        self,
        spacing: Spacing | None = None,
        reading: Reading = "compartment",
        include_background: bool = False,
        smooth: float = 1e-5,
        squared: bool = False,
        dice_weight: float = 1.0,
        ce_weight: float = 1.0,
    ) -> None:
        super().__init__(spacing, reading)
        self.dice = DiceLoss(include_background, smooth, squared)
        self.dice_weight, self.ce_weight = at_least_0("dice_weight", dice_weight), at_least_0("ce_weight", ce_weight)

    def compute(self, logits: Tensor, target: Tensor, phi: Tensor) -> Tensor:
        penalised = super().compute(logits, target, phi)
        return self.ce_weight * penalised + self.dice_weight * self.dice.compute(logits, target, phi)


LOSSES: dict[str, type[SegmentationLoss]] = {
    "dpce": DistancePenalizedCELoss,
    "ce": CrossEntropyLoss,
    "dice": DiceLoss,
    "pcol": ConfidencePenaltyLoss,
    "focal": FocalLoss,
    "gdice": GeneralizedDiceLoss,
    "unet": UNetWeightedCELoss,
    "boundary": BoundaryLoss,
    "hausdorff": HausdorffDTLoss,
    "sdf": SignedDistanceLoss,
    "dice_ce": DiceCELoss,
    "dice_dpce": DiceDistancePenalizedCELoss,
}
"""The losses by key."""


def build_loss(name: str, *, num_classes: int, spacing: Spacing | None = None, **options: Any) -> nn.Module:
    """The loss of a key of `LOSSES`, or of `package.module:Class` for a custom loss.

    A custom class needs `forward(logits, target, phi=None)`, also where it has no use for a map. Its constructor gets
    `num_classes` and `spacing` if it has such arguments, and the options. One that needs a map of its own derives from
    :class:`MapLoss` and has `compute_map`, `map_spec` and `compute`; the map is then computed once for each volume.

    Args:
        name: key, or `package.module:Class`.
        num_classes: K, the background included.
        spacing: mm, one number for each spatial axis.
        options: further arguments of the class.

    Raises:
        ValueError: no such key, module or class; an option that the class does not have, or a value it refuses; a class
            that cannot be called with a map.

    >>> build_loss("focal", num_classes=4, gamma=1.0).gamma
    1.0
    """
    cls = _own_class(name) if ":" in name else LOSSES.get(name)
    if cls is None:
        raise ValueError(
            f"no loss {name!r}{did_you_mean(name, LOSSES)}; there are {', '.join(LOSSES)}, "
            "and package.module:Class for a custom loss"
        )
    parameters = inspect.signature(cls).parameters
    # torch's own constructor takes **kwargs only to refuse them
    free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if not free or cls.__init__ is nn.Module.__init__:
        for option in options:
            if option not in parameters:
                own = [key for key in parameters if key not in ("num_classes", "spacing", "args", "kwargs")]
                raise ValueError(
                    f"loss {name!r} has no option {option!r}{did_you_mean(option, own)}; "
                    f"it has {', '.join(own) or 'none'}"
                )
    given = {"num_classes": num_classes, "spacing": spacing}
    try:
        return cls(**{key: value for key, value in given.items() if key in parameters}, **options)
    except TypeError as error:
        raise ValueError(f"loss {name!r} cannot be built with {options or 'no options'}: {error}") from error


def _own_class(name: str) -> type[nn.Module]:
    module_name, _, class_name = name.partition(":")
    place = f"beside the profile or into the working folder, {Path.cwd()}"
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's file raises
        why = f"{type(error).__name__} in its module: {error}"
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
            why = f"there is no module {error.name}; put {module_name.replace('.', '/')}.py {place}"
        raise ValueError(f"the loss {name!r} cannot be imported: {why}") from error
    cls = getattr(module, class_name, None)
    if cls is None:
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module_name]
        raise ValueError(
            f"the loss {name!r} does not exist: {module.__file__} has no class {class_name!r}"
            f"{did_you_mean(class_name, own)}; it has {', '.join(own) or 'none'}"
        )
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise ValueError(f"the loss {name!r} must be a class derived from torch.nn.Module, got {cls!r}")
    call = inspect.signature(cls.forward)
    try:
        call.bind(*["self", "logits", "target", "phi"])
    except TypeError as error:
        raise ValueError(
            f"the loss {name!r} must be callable as loss(logits, target, phi), got forward{call}; "
            "derive a class from it whose forward(logits, target, phi=None) ignores phi"
        ) from error
    return cls
