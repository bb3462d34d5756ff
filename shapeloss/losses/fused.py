"""The parts of the losses that touch every class of every voxel, with gradients in closed form.

PyTorch's own chain of operators gives the same numbers, but reads and writes the (B, K, X, Y, Z) tensor once an
operator, and on CUDA some operators raise in deterministic mode (the mean of a spatial `nll_loss`) or sort all indices
(`gather`'s gradient). Here one softmax is kept, and the gradient is written in one pass over it. What is left, the
weights of voxels and the ratios of classes, is small and is differentiated by PyTorch as usual.

With z the logits, p their softmax, g the one-hot truth: ∂ log p_j / ∂z_k = δ_jk − p_k. Gradients of gradients are not
supported (PyTorch says so where they are asked for).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def voxel_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """−log p_t of each voxel: logits (B, K, …) and target (B, …) int64 → (B, …).

    >>> voxel_cross_entropy(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))
    tensor([[[0.6931, 0.6931]]])
    """
    result: Tensor = _CrossEntropy.apply(logits, target)
    return result


def voxel_cross_entropy_and_entropy(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """−log p_t and H = −Σ_k p log p, in nats, of each voxel: shapes as for :func:`voxel_cross_entropy`."""
    result: tuple[Tensor, Tensor] = _CrossEntropyAndEntropy.apply(logits, target)
    return result


def class_sums(logits: Tensor, target: Tensor, squared: bool = False) -> tuple[Tensor, Tensor]:
    """Σ_i p g and Σ_i p, or Σ_i p² if `squared`, of each volume and class: two tensors (B, K).

    >>> class_sums(torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 0, 1]]]))
    (tensor([[1.5000, 0.5000]]), tensor([[2., 2.]]))
    """
    result: tuple[Tensor, Tensor] = _ClassSums.apply(logits.softmax(1), target, squared)
    return result


def class_sizes(target: Tensor, classes: int) -> Tensor:
    """Σ_i g, the voxels of each volume and class: target (B, …) int64 → (B, K) int64."""
    if _scatters(target):
        return torch.stack([torch.bincount(labels.flatten(), minlength=classes) for labels in target])
    return torch.stack([(target == k).flatten(1).sum(1) for k in range(classes)], 1)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        log_p = logits.log_softmax(1)
        ctx.save_for_backward(log_p, target)
        return -_of_truth(log_p, target)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        log_p, target = ctx.saved_tensors
        gradient = log_p.exp().mul_(slope[:, None])
        return _subtract_at_truth(gradient, target, slope), None


class _CrossEntropyAndEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        log_p = logits.log_softmax(1)
        entropy = log_p.exp().mul_(log_p).sum(1).neg_()
        ctx.save_for_backward(log_p, target, entropy)
        return -_of_truth(log_p, target), entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor, entropy_slope: Tensor) -> tuple[Tensor | None, ...]:
        log_p, target, entropy = ctx.saved_tensors
        # ∂H / ∂z_k = −p_k (log p_k + H)
        factor = torch.addcmul(slope, entropy_slope, entropy, value=-1)[:, None]
        gradient = torch.addcmul(factor, entropy_slope[:, None], log_p, value=-1).mul_(log_p.exp())
        return _subtract_at_truth(gradient, target, slope), None


class _ClassSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: Tensor, target: Tensor, squared: bool) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(p, target)
        ctx.squared = squared
        p_t, truth = _of_truth(p, target).flatten(1), target.flatten(1)
        if _scatters(p):  # one pass; it adds one number after the other, hence in float64
            overlap = p_t.new_zeros(p.shape[:2], dtype=torch.float64).scatter_add_(1, truth, p_t.double()).to(p.dtype)
        else:
            overlap = torch.stack([torch.where(truth == k, p_t, 0).sum(1) for k in range(p.shape[1])], 1)
        return overlap, (p.square() if squared else p).flatten(2).sum(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, overlap_slope: Tensor, size_slope: Tensor) -> tuple[Tensor | None, ...]:
        p, target = ctx.saved_tensors
        size_slope = size_slope.view(*size_slope.shape, *[1] * (p.ndim - 2))
        slope = p * (2 * size_slope) if ctx.squared else size_slope.expand_as(p).clone()
        at_truth = overlap_slope.gather(1, target.flatten(1)).view(target.shape)
        return _subtract_at_truth(slope, target, -at_truth), None, None


def _of_truth(values: Tensor, target: Tensor) -> Tensor:
    """(B, K, …) → (B, …), at the class of the truth."""
    return values.gather(1, target[:, None])[:, 0]


def _subtract_at_truth(values: Tensor, target: Tensor, amount: Tensor) -> Tensor:
    """(B, K, …) less (B, …) at the class of the truth, in place."""
    if _scatters(values):
        return values.scatter_add_(1, target[:, None], -amount[:, None])
    for k in range(values.shape[1]):
        values[:, k].sub_(torch.where(target == k, amount, 0))
    return values


def _scatters(values: Tensor) -> bool:
    """Whether adding at indices is fast and deterministic there: CUDA sorts all indices for it."""
    return values.device.type == "cpu"
