"""MONAI: a dictionary transform that adds φ, or another loss's map, computed from a label with its own affine."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import MapTransform

from shapeloss.distance import Variant
from shapeloss.losses import DistancePenalizedCELoss, MapLoss


class DistancePenaltyd(MapTransform):
    """Add the map φ of each label, so that a loop can call `loss(logits, batch["label"], batch["phi"])`.

    Put it after the loading, orientation and resampling of whole volumes and before random crops and rotations, which
    then list "phi" beside "label" (mode "bilinear" where the label has "nearest"). It is deterministic, so that
    `CacheDataset` and `PersistentDataset` compute it once for each volume.

    Args:
        keys: labels, channel first: (1, X, Y, Z) or (1, X, Y), whole numbers of any dtype.
        output_keys: where the maps go, one for each key.
        variant: of φ, as in :class:`shapeloss.losses.DistancePenalizedCELoss`.
        loss: another loss whose map is expected in place of φ, such as `BoundaryLoss(num_classes=4)`.
        spacing: mm; None takes it from the affine of each label, which must then be a MetaTensor. A MetaTensor that was
            not read from a file has the identity as its affine, 1 mm, whatever the truth is: give spacing for it. For a
            slice that was cut out of a volume, give it too, or add the map before the slicing.
        allow_missing_keys: whether a missing key is skipped.
        reading: the name of `variant` in earlier versions.

    The maps are float32 of shape (1, X, Y[, Z]), or (K, X, Y[, Z]) for a loss with one map for each class: MetaTensors
    with the label's meta data where the label is one.

    >>> add_phi = DistancePenaltyd("label", spacing=(0.7, 0.365))
    >>> add_phi({"label": torch.tensor([[[0, 0, 0, 1, 1]]])})["phi"]
    tensor([[[0.0000, 0.5000, 1.0000, 1.0000, 0.0000]]])
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        output_keys: KeysCollection = "phi",
        variant: Variant = "compartment",
        loss: MapLoss | None = None,
        spacing: Sequence[float] | None = None,
        allow_missing_keys: bool = False,
        reading: Variant | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_keys = (output_keys,) if isinstance(output_keys, str) else tuple(output_keys)  # type: ignore[arg-type]
        if len(self.output_keys) != len(self.keys):
            raise ValueError(f"output_keys must be one for each of keys {self.keys}, got {self.output_keys}")
        if not (loss is None or isinstance(loss, MapLoss)):
            raise ValueError(f"loss must be one with a map, such as BoundaryLoss(4), got {type(loss).__name__}")
        self.loss = DistancePenalizedCELoss(variant=variant, reading=reading) if loss is None else loss
        self.spacing = spacing

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key, output_key in self.key_iterator(result, self.output_keys):
            result[output_key] = self._map(str(key), result[key])
        return result

    def _map(self, key: str, label: Any) -> torch.Tensor:
        if label.ndim not in (3, 4) or len(label) != 1:
            raise ValueError(
                f"{key} must be one label map, channel first, (1, X, Y) or (1, X, Y, Z), got {tuple(label.shape)}; "
                "use EnsureChannelFirstd for a missing channel and AsDiscreted(argmax=True) for one-hot channels"
            )
        if self.spacing is not None:
            spacing: Sequence[float] = self.spacing
        elif isinstance(label, MetaTensor):
            spacing = _spacing(key, label)
        else:
            raise ValueError(
                f"{key} is a {type(label).__name__} without affine: give DistancePenaltyd spacing=(…) in mm"
            )
        floating = isinstance(label, torch.Tensor) and label.is_floating_point()  # NumPy has no bfloat16
        first = label[0].double() if floating else label[0]
        values = np.asarray(first.cpu() if isinstance(first, torch.Tensor) else first)
        labels = values.astype(np.int64)
        if not np.array_equal(labels, values):
            raise ValueError(f"{key} must hold whole numbers; was it resampled lazily, or not by 'nearest'?")
        phi = self.loss.compute_map(labels, spacing)
        if phi.ndim == labels.ndim:
            phi = phi[None]
        if isinstance(label, MetaTensor):
            return MetaTensor(phi, meta=deepcopy(label.meta), applied_operations=deepcopy(label.applied_operations))
        return torch.from_numpy(phi)


def _spacing(key: str, label: MetaTensor) -> list[float]:
    """mm along each axis of the array. Of a slice, an affine may not tell: which axes of the volume has it?"""
    affine, axes = label.affine, label.ndim - 1
    if axes == 2:
        volume = [size for size in label.meta.get("spatial_shape", ()) if size > 1]
        original = torch.as_tensor(label.meta.get("original_affine", torch.eye(4)))
        # one whole column for each axis, or those of an affine that lost an axis with the array
        known = 0 < len(volume) <= 2 if len(affine) == 4 else _along_the_axes(original)
        if not known:
            raise ValueError(
                f"{key} is 2D, and its affine does not tell which axes of a volume it has: put DistancePenaltyd before "
                "the slicing, or give it spacing=(…) in mm"
            )
    return [float(step) for step in affine_to_spacing(affine, r=len(affine) - 1)][:axes]


def _along_the_axes(affine: torch.Tensor) -> bool:
    """Whether each axis of the array runs along one of space."""
    columns = affine[:-1, :-1].abs()
    return bool((columns.amax(0) >= (1 - 1e-6) * columns.norm(dim=0)).all())
