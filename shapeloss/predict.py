"""From a trained network to label maps: precision, prediction, post-processing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from shapeloss.vnet import VNet

Precision = Literal["auto", "bf16-mixed", "32-true"]


@dataclass(frozen=True)
class Postprocessing:
    """The paper (secondary source): 3D morphological closing, then the largest connected components."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    closing_voxels: int = 1
    """Radius of the closing of each structure, in steps of the 6-connected neighbourhood; 0 for none."""
    largest_component: bool = True
    """Keep each structure's largest 26-connected component."""

    def __post_init__(self) -> None:
        if self.closing_voxels < 0:
            raise ValueError(f"closing_voxels must be 0 or more, got {self.closing_voxels}")


def resolve_precision(precision: str, device: torch.device | str | None = None) -> Literal["bf16-mixed", "32-true"]:
    """`auto`: bfloat16 autocast on GPUs that have it, and on CPUs where it was measured to be faster; else float32.

    Args:
        precision: auto, bf16-mixed or 32-true.
        device: on which the network lies; default the GPU, if there is one.
    """
    if precision != "auto":
        return "bf16-mixed" if precision == "bf16-mixed" else "32-true"
    default = "cuda" if torch.cuda.is_available() else "cpu"
    kind = torch.device(device or default).type
    if kind == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if kind == "cpu" and _cpu_gains_by_bf16() else "32-true"


def _cpu_gains_by_bf16() -> bool:
    """Measured on V-Net steps: with AMX, and with AVX512-BF16 on AMD's Zen 5, bfloat16 takes 0.4 to 0.6 of the time of
    float32. Intel's AVX512-BF16 without AMX takes 1.1 to 1.3 of it, and a processor without either more than ten times.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512":  # it can be lowered by the environment
        return False
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.13 has it
    if "amx_bf16" not in capabilities:
        has_amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
        return has_amx is not None and bool(has_amx())
    amd = "AMD" in str(capabilities.get("cpu_name", ""))
    return bool(capabilities["amx_bf16"] or (amd and capabilities.get("avx512_bf16")))


def compute_logits(network: nn.Module, image: Tensor, precision: str = "32-true") -> Tensor:
    """The network's logits in float32, its convolutions computed in a :func:`resolve_precision`."""
    half = resolve_precision(precision, image.device) == "bf16-mixed"
    with torch.autocast(image.device.type, torch.bfloat16, enabled=half):
        logits: Tensor = network(image.bfloat16() if half else image)  # the shortcut around a stage is added as it is
    return logits.float()


@torch.no_grad()
def predict_labels(
    network: nn.Module,
    image: Tensor,
    patch_size: tuple[int, int, int] | None = None,
    precision: str = "32-true",
) -> NDArray[np.uint8]:
    """The most probable class of each voxel.

    Args:
        network: (B, C, X, Y, Z) → logits (B, K, X, Y, Z); left in the mode (training or evaluation) it was in.
        image: (1, C, X, Y, Z), normalised, on the device of the network.
        patch_size: slide a window of this size (overlap 1/2, Gaussian weights, by MONAI) instead of one pass over the
            volume.
        precision: of the convolutions; see :func:`resolve_precision`.

    Returns:
        (X, Y, Z) uint8.
    """
    training = network.training
    network.eval()
    if patch_size is None:
        logits = compute_logits(network, image, precision)
    else:
        from monai.inferers import sliding_window_inference

        def forward(window: Tensor) -> Tensor:
            return compute_logits(network, window, precision)

        stitched = sliding_window_inference(image, patch_size, 1, forward, overlap=0.5, mode="gaussian")
        logits = cast(Tensor, stitched)
    network.train(training)
    return logits.argmax(1)[0].to(torch.uint8).cpu().numpy()


@torch.no_grad()
def predict_distances(network: VNet, image: Tensor, precision: str = "32-true") -> NDArray[np.float32]:
    """What the second head says of the distance to each class, in units of the loss's `reach_mm`.

    Args:
        network: with a distance head; left in the mode it was in.
        image: (1, C, X, Y, Z), normalised, on the device of the network.
        precision: of the convolutions; see :func:`resolve_precision`.

    Returns:
        (K, X, Y, Z), negative inside.

    Raises:
        ValueError: the network has no such head.
    """
    if network.distances is None:
        raise ValueError("network has no distance head; train it with a loss that needs one, such as mtl")
    training = network.training
    network.train()  # where its output holds both
    both = compute_logits(network, image, precision)
    network.train(training)
    return both[0, both.shape[1] // 2 :].cpu().numpy()


def postprocess(labels: NDArray[Any], options: Postprocessing) -> NDArray[Any]:
    """Close each structure's gaps and keep its largest connected component.

    A structure is closed into the background only, so that structures never overwrite each other. Where a structure is
    missing, it stays missing.

    Args:
        labels: (X, Y, Z) integer.

    Returns:
        A new array of the same shape and type.
    """
    result = labels.copy()
    radius = options.closing_voxels
    for label in np.unique(labels[labels > 0]).tolist():
        if radius:
            mask = np.pad(result == label, radius, mode="edge")  # or the closing would erode at the edge of the volume
            closed = ndimage.binary_closing(mask, iterations=radius)[(slice(radius, -radius),) * 3]
            result[closed & (result == 0)] = label
        if options.largest_component:
            components, count = ndimage.label(result == label, structure=np.ones((3, 3, 3)))
            if count > 1:
                sizes = np.bincount(components.ravel())[1:]
                result[(components > 0) & (components != 1 + sizes.argmax())] = 0
    return result
