"""What a training step asks of a GPU, seen without one: the operators that it calls are recorded on the CPU.

The list is that of `torch.use_deterministic_algorithms` (PyTorch 2.13), and of `alertNotDeterministic` in its source.
"""

from __future__ import annotations

import re

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from shapeloss.losses import LOSSES, build_loss, fused
from shapeloss.losses.registry import TWO_HEADED
from shapeloss.train import TrainingOptions, TrainingVolume, fit
from shapeloss.vnet import VNet, VNetOptions

REFUSED = re.compile(
    r"aten\.("
    r"(avg_pool3d|_?adaptive_(avg|max)_pool\dd|max_pool3d_with_indices|fractional_max_pool\dd)_backward"
    r"|max_unpool\dd|upsample_(linear|bilinear|bicubic|trilinear)\w*_backward|grid_sampler_\dd_backward"
    r"|(reflection|replication)_pad\dd_backward|_ctc_loss_backward|_embedding_bag\w*_backward"
    r"|put_?|histc|kthvalue|median|nanmedian|cumsum|scatter_reduce_?|resize_"
    r"|scatter_add_?|scatter_?|index_add_?|index_put_?|_index_put_impl_|embedding_dense_backward"  # these sort, slowly
    r")(\.|$)"
)


class Operators(TorchDispatchMode):
    """Records the ATen operators that are called, with those arguments that decide."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        if name.startswith("aten.nll_loss2d_forward"):
            name += ".none" if args[3] == 0 else ".reduced"
        if name.startswith("aten.bincount") and (len(args) > 1 or (kwargs or {}).get("weights") is not None):
            name += ".weighted"
        self.names.add(name)
        return func(*args, **(kwargs or {}))

    def refused(self):
        return sorted(n for n in self.names if REFUSED.match(n) or n.endswith((".reduced", ".weighted")))


def training_step(loss, distance_head=False, checkpointing=False, **training):
    labels = torch.zeros(6, 9, 8, dtype=torch.long)  # no multiple of the strides: the network pads
    labels[2:4, 2:6, 2:4], labels[2:4, 2:6, 4:6] = 1, 2
    volume = TrainingVolume(labels.float(), labels, (2.0, 0.5, 0.5))
    options = VNetOptions((8, 8), (1, 2), ((1, 2, 2),), dropout=0.1)
    network = VNet(1, 3, options, checkpointing, distance_head)
    fit(network, loss, [volume], TrainingOptions(steps=2, rotation_degrees=10, precision="bf16-mixed", **training))


@pytest.mark.parametrize("key", sorted(LOSSES | TWO_HEADED))
def test_no_operator_of_a_training_step_raises_or_varies_on_cuda(key, monkeypatch):
    """As a GPU is told to compute it: deterministic mode is kept there."""
    monkeypatch.setattr(fused, "_scatters", lambda values: False)
    with Operators() as recorded:
        training_step(build_loss(key, num_classes=3, spacing=(2.0, 0.5, 0.5)), key in TWO_HEADED)
    assert recorded.refused() == []
    assert {"aten.convolution.default", "aten.convolution_backward.default"} <= recorded.names  # something was seen


@pytest.mark.parametrize("training", [{"patch_size": (4, 6, 8)}, {"accumulate": 2}, {"checkpointing": True}], ids=str)
def test_nor_does_one_of_other_options(training, monkeypatch):
    monkeypatch.setattr(fused, "_scatters", lambda values: False)
    with Operators() as recorded:
        training_step(build_loss("dpce", num_classes=3, spacing=(2.0, 0.5, 0.5)), **training)
    assert recorded.refused() == []


def test_a_gpu_does_not_scatter():
    assert fused._scatters(torch.empty(1))
    assert not fused._scatters(torch.empty(1, device="meta"))  # any other device


@pytest.mark.parametrize(
    "function",
    [
        lambda z, t: F.cross_entropy(z, t),
        lambda z, t: F.nll_loss(z.log_softmax(1), t, reduction="sum"),
        lambda z, t: z.gather(1, t[:, None]),
        lambda z, t: F.interpolate(z, scale_factor=2, mode="bilinear"),
        lambda z, t: F.pad(z, [1, 1, 1, 1], mode="replicate"),
        lambda z, t: z.flatten().cumsum(0),
        lambda z, t: z.flatten().median(),
    ],
    ids=["cross_entropy", "nll_loss", "gather", "interpolate", "replicate", "cumsum", "median"],
)
def test_the_recorder_refuses_what_pytorch_refuses(function):
    """A list that matches nothing would pass everything."""
    z, t = torch.randn(1, 2, 4, 4, requires_grad=True), torch.zeros(1, 4, 4, dtype=torch.long)
    with Operators() as recorded:
        function(z, t).sum().backward()
    assert recorded.refused()
