"""What every loss shares: the checks, float32, the map of the truth, the one-hot truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shapeloss._typing import Spacing
from shapeloss.distance import check_spacing
from shapeloss.losses.checks import MapSpec, check_target_shape, check_target_values, plain


class SegmentationLoss(nn.Module):
    """Base of the losses: checks the input, computes in float32, calls `compute`.

    Shapes are checked at each call. Values (the range of labels; finiteness and sign of a map) are checked at the first
    call of an instance, since reading them makes a GPU wait, and at every call while `validate` is True.
    """

    validate = False
    distance_head = False
    """Whether the network needs a second head, which regresses the distance to each class."""

    def __init__(self) -> None:
        super().__init__()
        self._values_seen = False

    @property
    def map_spec(self) -> MapSpec | None:
        """What identifies the loss's map in a cache, JSON-able; None for a loss without a map."""
        return None

    def forward(self, logits: Tensor, target: Tensor, phi: Tensor | None = None) -> Tensor:
        """The loss, a scalar; shapes in `shapeloss.losses`.

        Raises:
            ValueError: shapes that do not fit; a target that is not integer or lies outside 0 to K − 1, if values are
                checked; no `phi` for a loss that needs one and was given no `spacing`.
        """
        target = check_target_shape(logits, target)
        logits = plain(logits)  # MONAI's MetaTensor is slow, and would return one
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        check_values = self.validate or not getattr(self, "_values_seen", False)
        if check_values:
            check_target_values(target, self.classes(logits))
        target = target.long()
        with torch.autocast(logits.device.type, enabled=False):
            label_map = self.prepare_map(logits, target, phi)
            if check_values:
                self.check_map_values(label_map)
                self._values_seen = True
            return self.compute(logits, target, label_map)

    def classes(self, logits: Tensor) -> int:
        """K, the number of classes that the network's output stands for."""
        return logits.shape[1]

    def prepare_map(self, logits: Tensor, target: Tensor, phi: Tensor | None) -> Tensor:
        """The map for `compute`; an empty tensor for losses without one."""
        return logits.new_empty(0)

    def check_map_values(self, label_map: Tensor) -> None:
        """ValueError for a map with values that cannot be used."""

    def compute(self, logits: Tensor, target: Tensor, label_map: Tensor) -> Tensor:
        """The equation, on checked input: target (B, X, Y[, Z]) int64, label_map as :meth:`prepare_map` returns it."""
        raise NotImplementedError


class MapLoss(SegmentationLoss):
    """Base of the losses that need a map of the truth.

    The map comes as `phi`, computed once for each volume by `compute_map` and cropped with it; or, if the loss was
    given `spacing` in mm and no `phi`, it is computed at each call from the target as it is, on the CPU.
    """

    per_class = False

    def __init__(self, spacing: Spacing | None = None) -> None:
        super().__init__()
        self.spacing = None if spacing is None else check_spacing(spacing)

    @property
    def map_spec(self) -> MapSpec:
        """What the map depends on besides labels and spacing, JSON-able: its name and options."""
        raise ValueError(
            f"{type(self).__name__} needs a property map_spec, which tells its map from others in a cache: a dict with "
            "a name and all the options that compute_map reads, such as {'map': 'my_map', 'width': self.width}"
        )

    def compute_map(self, labels: NDArray[Any], spacing: Spacing) -> NDArray[np.float32]:
        """labels (X, Y[, Z]) with its spacing in mm → the map, float32 (X, Y[, Z]) or (K, X, Y[, Z])."""
        raise NotImplementedError

    def prepare_map(self, logits: Tensor, target: Tensor, phi: Tensor | None) -> Tensor:
        if phi is None:
            if self.spacing is None:
                raise ValueError(
                    f"{type(self).__name__} needs a map of the truth: pass phi, from compute_map(labels, spacing) once "
                    "for each volume, or give the loss spacing=(…) in mm to have it computed at each call"
                )
            volumes = target.cpu().numpy()
            phi = torch.from_numpy(np.stack([self.compute_map(volume, self.spacing) for volume in volumes]))
        expected = (len(target), self.classes(logits), *target.shape[1:]) if self.per_class else tuple(target.shape)
        if not self.per_class and phi.shape == (target.shape[0], 1, *target.shape[1:]):
            phi = phi[:, 0]
        if phi.shape != expected:
            raise ValueError(f"phi must have shape {expected} for {type(self).__name__}, got {tuple(phi.shape)}")
        return plain(phi).to(logits)

    def check_map_values(self, label_map: Tensor) -> None:
        if not label_map.sum().isfinite():
            raise ValueError("phi must be finite, got NaN or infinity; compute it by compute_map(labels, spacing)")


def one_hot(target: Tensor, classes: int) -> Tensor:
    """target (B, X, Y[, Z]) → bool (B, K, X, Y[, Z])."""
    k = torch.arange(classes, device=target.device).view(1, classes, *[1] * (target.ndim - 1))
    return target[:, None] == k
