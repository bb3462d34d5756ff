"""nnU-Net v2: trainers with the distance-penalised cross-entropy, φ computed on whole cases.

nnU-Net finds trainers outside its own package in the folder that `nnUNet_extTrainer` names. A folder with one file of
one line is enough, and the same variable serves the prediction:

    mkdir trainers
    echo "from shapeloss.integrations.nnunet import *" > trainers/distance_penalty.py
    export nnUNet_extTrainer=$PWD/trainers
    nnUNetv2_train 1 3d_fullres 0 -tr nnUNetTrainerDistancePenalty

φ is computed once for each preprocessed case, at the spacing of the configuration, when the case is first loaded; it
is then cropped, rotated, scaled and mirrored with the case (bilinear), and sampled at the scales of the deep
supervision. So it is the φ of the case and not of the patch, up to two things: nnU-Net crops each case to its non-zero
region before, and the augmentation's zoom changes lengths in the image but not the φ of a voxel.

φ lies as int16 in `fold_*/phi_*` during the training, and is removed when it ends. Not supported, with an error that
says so: region-based training, an ignore label, cascades.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from shapeloss.data.checksums import cached_array
from shapeloss.distance import Variant, distance_penalty, penalty_options
from shapeloss.losses import build_loss

try:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
except ImportError as error:
    raise ImportError("shapeloss.integrations.nnunet needs nnU-Net: pip install nnunetv2") from error


class nnUNetTrainerDistancePenalty(nnUNetTrainer):
    """nnU-Net with the distance-penalised cross-entropy in place of Dice and cross-entropy.

    A subclass that sets `variant` (see :data:`shapeloss.distance.VARIANTS`) or `loss_key` gives another φ.
    """

    loss_key = "dpce"
    variant: Variant = "compartment"
    reading: Variant | None = None
    """The name of `variant` in earlier versions."""

    @property
    def _variant(self) -> Variant:
        return self.variant if self.reading is None else self.reading

    def _build_loss(self) -> nn.Module:
        for unsupported, what in (
            (self.label_manager.has_regions, "region-based training"),
            (self.label_manager.has_ignore_label, "an ignore label"),
            (self.is_cascaded, "a cascade"),
        ):
            if unsupported:
                raise ValueError(f"{type(self).__name__} cannot train with {what}; use classes that exclude each other")
        weights = super()._build_loss().weight_factors if self.enable_deep_supervision else (1.0,)
        loss = build_loss(self.loss_key, num_classes=self.label_manager.num_segmentation_heads, variant=self._variant)
        return DeepSupervisionWithPhi(loss, weights)

    def get_tr_and_val_datasets(self) -> tuple[CasesWithPhi, CasesWithPhi]:
        shutil.rmtree(self._phi_folder, ignore_errors=True)  # it may be of another preprocessing
        self._phi_folder.mkdir(parents=True)
        training, validation = super().get_tr_and_val_datasets()
        return (
            CasesWithPhi(training, self._phi_folder, self._quantised_phi),
            CasesWithPhi(validation, self._phi_folder, self._quantised_phi),
        )

    @staticmethod
    def get_training_transforms(*args: Any, **kwargs: Any) -> TransformsWithPhi:
        return TransformsWithPhi(nnUNetTrainer.get_training_transforms(*args, **kwargs))

    @staticmethod
    def get_validation_transforms(*args: Any, **kwargs: Any) -> TransformsWithPhi:
        return TransformsWithPhi(nnUNetTrainer.get_validation_transforms(*args, **kwargs))

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        return super().train_step(self._without_phi(batch))

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        return super().validation_step(self._without_phi(batch))

    def on_train_end(self) -> None:
        super().on_train_end()
        shutil.rmtree(self._phi_folder, ignore_errors=True)

    @property
    def _phi_folder(self) -> Path:
        return Path(self.output_folder) / f"phi_{self.local_rank}"

    @property
    def _levels_per_unit(self) -> int:
        """Of the int16 that φ travels in beside the labels: a step is 1/30000, or 0.02 mm up to 655 mm."""
        return 50 if penalty_options(self._variant).unit == "mm" else 30000

    def _quantised_phi(self, labels: NDArray[Any], properties: dict[str, Any]) -> NDArray[np.int16]:
        """labels (X, Y, Z) of a preprocessed case, -1 outside its non-zero region → int16 of the same shape."""
        original = [properties["spacing"][axis] for axis in self.plans_manager.transpose_forward]
        spacing = list(self.configuration_manager.spacing)
        if len(spacing) < labels.ndim:  # a 2D configuration keeps the distance between slices
            spacing = [original[0], *spacing]
        phi = distance_penalty(np.maximum(labels, 0), spacing, **asdict(penalty_options(self._variant)))
        return np.minimum(np.rint(phi * self._levels_per_unit), np.iinfo(np.int16).max).astype(np.int16)

    def _without_phi(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch as nnU-Net expects it; φ goes to the loss, which nnU-Net calls with outputs and labels only."""
        target = batch["target"]
        scales = target if isinstance(target, list) else [target]  # each (B, 2, X, Y[, Z]): labels, φ
        self.loss.phi = [scale[:, 1].float() / self._levels_per_unit for scale in scales]
        labels = [scale[:, :1] for scale in scales]
        return batch | {"target": labels if isinstance(target, list) else labels[0]}


class nnUNetTrainerDistancePenaltyExponential(nnUNetTrainerDistancePenalty):
    """The variant whose weight gathers at the boundary: φ = exp(−d / 2 mm)."""

    variant = "exponential"


class nnUNetTrainerDiceDistancePenalty(nnUNetTrainerDistancePenalty):
    """Distance-penalised cross-entropy and Dice loss; the Dice is per volume, where nnU-Net's may be per batch."""

    loss_key = "dice_dpce"


class DeepSupervisionWithPhi(nn.Module):
    """The weighted sum of the loss over the scales of the deep supervision, each with its φ."""

    def __init__(self, loss: nn.Module, weights: tuple[float, ...]) -> None:
        super().__init__()
        self.loss, self.weights = loss, weights
        self.phi: list[Tensor] = []

    def forward(self, output: Tensor | list[Tensor], target: Tensor | list[Tensor]) -> Tensor:
        outputs = [output] if isinstance(output, Tensor) else output
        targets = [target] if isinstance(target, Tensor) else target
        terms = zip(self.weights, outputs, targets, self.phi, strict=True)
        return torch.stack([weight * self.loss(z, t, phi) for weight, z, t, phi in terms if weight != 0]).sum()


class CasesWithPhi:
    """A data set of nnU-Net whose third item, the place of a previous stage's segmentation, is the φ of the case."""

    def __init__(
        self, dataset: Any, folder: Path, compute: Callable[[NDArray[Any], dict[str, Any]], NDArray[np.int16]]
    ) -> None:
        self.dataset, self.folder, self.compute = dataset, folder, compute
        self.identifiers = dataset.identifiers
        self.checked: set[str] = set()

    def __getitem__(self, identifier: str) -> tuple[Any, Any, NDArray[np.int16], dict[str, Any]]:
        return self.load_case(identifier)

    def load_case(self, identifier: str) -> tuple[Any, Any, NDArray[np.int16], dict[str, Any]]:
        data, labels, _, properties = self.dataset.load_case(identifier)
        path = self.folder / f"{identifier}.npy"
        if identifier in self.checked:
            return data, labels, np.load(path, mmap_mode="r"), properties
        phi = cached_array(path, lambda: self.compute(np.asarray(labels[0]), properties))
        self.checked.add(identifier)  # its checksum is read once a process, not once a step
        return data, labels, phi, properties


class TransformsWithPhi:
    """nnU-Net's transforms, with the second channel of the segmentation moved as an image is, not as labels are."""

    def __init__(self, transforms: Callable[..., dict[str, Any]]) -> None:
        self.transforms = transforms

    def __call__(self, image: Tensor, segmentation: Tensor) -> dict[str, Any]:
        labels, phi = segmentation[:1], segmentation[1:].float().clamp(min=0)  # -1 where the patch leaves the case
        result = self.transforms(image=image, segmentation=labels, regression_target=phi)
        phi, labels = result.pop("regression_target"), result["segmentation"]
        join = [_beside(scale, phi) for scale in labels] if isinstance(labels, list) else _beside(labels, phi)
        return result | {"segmentation": join}


def _beside(labels: Tensor, phi: Tensor) -> Tensor:
    """labels (1, X, Y[, Z]) at one scale, phi (1, …) at the full one → (2, X, Y[, Z]) in the dtype of the labels."""
    sampled = F.interpolate(phi[None], labels.shape[1:], mode="nearest-exact")[0]  # as nnU-Net samples the labels
    return torch.cat([labels, sampled.round().to(labels.dtype)])
