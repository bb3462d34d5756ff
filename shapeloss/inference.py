"""From a trained network to label maps: prediction and post-processing."""

from __future__ import annotations

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from scipy import ndimage
from torch import Tensor, nn

from shapeloss.experiment import Postprocessing


@torch.no_grad()
def predict_labels(network: nn.Module, image: Tensor, patch_size: tuple[int, int, int] | None = None) -> np.ndarray:
    """The most probable class of each voxel.

    Args:
        network: (B, 1, X, Y, Z) → logits (B, K, X, Y, Z); left in the mode (training or evaluation) it was in.
        image: (1, 1, X, Y, Z), normalised.
        patch_size: slide a window of this size (overlap 1/2, Gaussian weights) instead of one pass over the volume.

    Returns:
        (X, Y, Z) uint8.
    """
    training = network.training
    network.eval()
    if patch_size is None:
        logits = network(image)
    else:
        logits = sliding_window_inference(image, patch_size, 1, network, overlap=0.5, mode="gaussian")
    network.train(training)
    return logits.argmax(1)[0].to(torch.uint8).cpu().numpy()


def postprocess(labels: np.ndarray, options: Postprocessing) -> np.ndarray:
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
