"""The parts of the losses with gradients in closed form, against PyTorch's own chain of operators."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from shapeloss.losses import LOSSES, build_loss, fused

SHAPES = [(2, 5, 6), (3, 4, 5, 2)]  # (B, X, Y[, Z])
PARTS = {
    "cross-entropy": lambda z, t: fused.voxel_cross_entropy(z, t),
    "cross-entropy and entropy": lambda z, t: fused.voxel_cross_entropy_and_entropy(z, t),
    "class sums": lambda z, t: fused.class_sums(z, t),
    "squared class sums": lambda z, t: fused.class_sums(z, t, squared=True),
}
scattering = pytest.mark.parametrize("scatters", [True, False], ids=["scatter", "no scatter"])


def case(shape, classes=4, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape[0], classes, *shape[1:], generator=generator, dtype=dtype)
    return logits.requires_grad_(), torch.randint(0, classes, shape, generator=generator)


def chain(name, logits, target):
    """The same by PyTorch's operators, each with PyTorch's gradient."""
    classes = logits.shape[1]
    log_p, g = logits.log_softmax(1), F.one_hot(target, classes).movedim(-1, 1)
    p = log_p.exp()
    if name == "cross-entropy":
        return F.cross_entropy(logits, target, reduction="none")
    if name == "cross-entropy and entropy":
        return F.cross_entropy(logits, target, reduction="none"), -(p * log_p).sum(1)
    return (p * g).flatten(2).sum(2), (p**2 if name.startswith("squared") else p).flatten(2).sum(2)


def values_and_gradient(function, logits, target):
    """The outputs, and the gradient of a sum that weights each of their elements differently."""
    outputs = function(logits, target)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(1)
    total = sum((out * torch.randn(out.shape, generator=generator, dtype=out.dtype)).sum() for out in outputs)
    (gradient,) = torch.autograd.grad(total, logits)
    return [*outputs, gradient]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", PARTS)
@scattering
def test_gradients_are_the_derivatives(name, shape, scatters, monkeypatch):
    monkeypatch.setattr(fused, "_scatters", lambda values: scatters)
    logits, target = case(shape)
    assert torch.autograd.gradcheck(lambda z: PARTS[name](z, target), logits)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", PARTS)
def test_the_parts_equal_the_chain_of_operators(name, shape):
    logits, target = case(shape)
    ours = values_and_gradient(PARTS[name], logits, target)
    theirs = values_and_gradient(lambda z, t: chain(name, z, t), logits, target)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("key", sorted(LOSSES))
def test_the_branch_without_scattering_gives_the_same(key, monkeypatch):
    logits, target = case((2, 6, 5, 3), dtype=torch.float32)
    loss = build_loss(key, num_classes=4, spacing=(0.7, 0.4, 0.4))
    results = {}
    for scatters in (True, False):
        monkeypatch.setattr(fused, "_scatters", lambda values, scatters=scatters: scatters)
        results[scatters] = values_and_gradient(loss, logits, target)
    for a, b in zip(results[True], results[False], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    sizes = {}
    for scatters in (True, False):
        monkeypatch.setattr(fused, "_scatters", lambda values, scatters=scatters: scatters)
        sizes[scatters] = fused.class_sizes(target, 4)
    assert sizes[True].tolist() == sizes[False].tolist() == F.one_hot(target, 4).sum((1, 2, 3)).tolist()


@pytest.mark.parametrize("name", PARTS)
@scattering
def test_the_layout_in_memory_changes_nothing(name, scatters, monkeypatch):
    monkeypatch.setattr(fused, "_scatters", lambda values: scatters)
    logits, target = case((2, 4, 5, 6), dtype=torch.float32)
    last = logits.detach().contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    strided = logits.detach().transpose(2, 4).contiguous().transpose(2, 4).requires_grad_()
    expected = values_and_gradient(PARTS[name], logits, target)
    for other in (last, strided):
        for a, b in zip(values_and_gradient(PARTS[name], other, target), expected, strict=True):
            torch.testing.assert_close(a, b)


def test_sums_of_many_voxels_keep_their_digits():
    """2²² voxels of p = 0.1: added one after the other in float32, the sum would be off by more than 1e-4."""
    p, target = torch.full((1, 2, 2**22), 0.1), torch.zeros(1, 2**22, dtype=torch.long)
    overlap, _ = fused._ClassSums.apply(p, target, False)
    assert overlap[0, 0].item() == pytest.approx(2**22 * 0.1, rel=1e-6)


def test_gradients_of_gradients_are_refused():
    logits, target = case((1, 3, 3))
    value = fused.voxel_cross_entropy(logits, target).square().sum()
    (gradient,) = torch.autograd.grad(value, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
