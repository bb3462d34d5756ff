"""The V-Net of Milletari, Navab and Ahmadi (3DV 2016, figure 2), with its sizes as parameters.

Shapes in comments: B volumes, C channels, K classes, (X, Y, Z) voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

Normalisation = Literal["none", "group", "instance", "batch"]
Stride = tuple[int, int, int]


@dataclass(frozen=True)
class VNetOptions:
    """Sizes of a V-Net; `VNetOptions.original()` has those of the paper that introduced it."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # in a profile, an unknown size is an error

    widths: tuple[int, ...] = (16, 32, 64)
    """Channels of each level, from full resolution down (original: 16, 32, 64, 128, 256)."""
    convolutions: tuple[int, ...] = (1, 2, 3)
    """Convolutions of each level's residual stage (original: 1, 2, 3, 3, 3)."""
    strides: tuple[Stride, ...] = ((2, 2, 2), (2, 2, 2))
    """Stride of each strided convolution between two levels (original: 2 along every axis)."""
    kernel_size: int = 3
    """Width of the stages' convolutions in voxels, odd (original: 5)."""
    normalisation: Normalisation = "instance"
    """After each convolution (original: none; it was written before normalisation was common in 3D)."""
    dropout: float = 0.0
    """Probability of dropping a channel at the end of the deepest stage (original: none stated)."""

    def __post_init__(self) -> None:
        levels = len(self.widths)
        if levels < 2 or len(self.convolutions) != levels or len(self.strides) != levels - 1:
            raise ValueError(
                f"a V-Net of {levels} widths needs as many convolutions and one stride less; "
                f"got {len(self.convolutions)} convolutions and {len(self.strides)} strides"
            )
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, so that a convolution keeps the size; got {self.kernel_size}")

    @classmethod
    def original(cls) -> VNetOptions:
        """The sizes of Milletari et al. (2016), figure 2."""
        return cls((16, 32, 64, 128, 256), (1, 2, 3, 3, 3), ((2, 2, 2),) * 4, 5, "none")


def _norm(kind: Normalisation, channels: int) -> nn.Module:
    if kind == "group":
        return nn.GroupNorm(max(1, channels // 8), channels)
    if kind == "instance":
        return InstanceNorm(channels)
    if kind == "batch":
        return nn.BatchNorm3d(channels)
    return nn.Identity()


class InstanceNorm(nn.Module):
    """Instance normalisation with learned scale and shift.

    PyTorch's own (2.13) has a wrong gradient on CPUs where that gradient arrives in channels-last layout. Batch
    normalisation of one volume is the same function, has the right gradient, and is faster in that layout.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, channels, X, Y, Z), each volume and channel to mean 0 and variance 1, then scaled and shifted."""
        volumes = [F.batch_norm(volume, None, None, self.weight, self.bias, training=True) for volume in x.split(1)]
        return volumes[0] if len(volumes) == 1 else torch.cat(volumes)


class ResidualStage(nn.Module):
    """One to three convolutions whose result is added to the stage's input."""

    def __init__(self, channels_in: int, channels: int, convolutions: int, options: VNetOptions) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(convolutions):
            size, last = options.kernel_size, index == convolutions - 1
            before = channels_in if index == 0 else channels
            layers += [nn.Conv3d(before, channels, size, padding=size // 2), _norm(options.normalisation, channels)]
            if not last:  # the last activation follows the addition
                layers.append(nn.PReLU(channels))
        self.convolutions = nn.Sequential(*layers)
        self.activation = nn.PReLU(channels)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """x (B, channels_in, X, Y, Z) → (B, channels, X, Y, Z); `shortcut` is added instead of x where it is given."""
        return self.activation(self.convolutions(x) + (x if shortcut is None else shortcut))


class VNet(nn.Module):
    """V-Net: any number of classes, any input size (it is padded to a multiple of the strides, and cropped back).

    Args:
        channels_in: channels of the image, 1 for MRI.
        num_classes: K, the background included.
        options: sizes; see :class:`VNetOptions`.
        checkpointing: keep only what enters each stage in training, and compute the rest again in the backward pass:
            less memory, about a third more time, the same gradients.

    >>> network = VNet(1, 4)
    >>> network(torch.zeros(1, 1, 10, 13, 9)).shape
    torch.Size([1, 4, 10, 13, 9])
    """

    def __init__(
        self, channels_in: int, num_classes: int, options: VNetOptions | None = None, checkpointing: bool = False
    ) -> None:
        super().__init__()
        options = options or VNetOptions()
        if checkpointing and options.normalisation == "batch":
            raise ValueError("checkpointing would count each batch twice in batch normalisation's running statistics")
        self.checkpointing = checkpointing
        widths, convolutions, strides = options.widths, options.convolutions, options.strides
        self.multiple = tuple(math.prod(stride[axis] for stride in strides) for axis in range(3))
        self.channels_in = channels_in
        self.first = ResidualStage(channels_in, widths[0], convolutions[0], options)
        self.down, self.encode = nn.ModuleList(), nn.ModuleList()
        self.up, self.decode = nn.ModuleList(), nn.ModuleList()
        for level, stride in enumerate(strides):
            above, below = widths[level], widths[level + 1]
            self.down.append(_resample(nn.Conv3d, above, below, stride, options))
            self.encode.append(ResidualStage(below, below, convolutions[level + 1], options))
            # the up-convolution brings half of the decoder's channels, the skip connection the other half
            self.up.append(
                _resample(nn.ConvTranspose3d, 2 * below if level + 2 < len(widths) else below, above, stride, options)
            )
            self.decode.append(ResidualStage(2 * above, 2 * above, convolutions[level], options))
        self.dropout = nn.Dropout3d(options.dropout)
        self.last = nn.Conv3d(2 * widths[0], num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """image (B, channels_in, X, Y, Z) → logits (B, K, X, Y, Z)."""
        size = image.shape[2:]
        missing = [-extent % multiple for extent, multiple in zip(size, self.multiple, strict=True)]
        if any(missing):
            image = F.pad(image, [0, missing[2], 0, missing[1], 0, missing[0]])
        # the first stage adds its one-channel input to every one of its channels (figure 2)
        shortcut = image if self.channels_in == 1 else image.mean(1, keepdim=True)
        skips = [self._stage(self.first, image, shortcut)]
        for down, encode in zip(self.down, self.encode, strict=True):
            skips.append(self._stage(lambda x, d=down, e=encode: e(d(x)), skips[-1]))
        x = self.dropout(skips.pop())
        for up, decode in zip(reversed(self.up), reversed(self.decode), strict=True):
            x = self._stage(lambda x, s, u=up, d=decode: d(torch.cat([u(x), s], dim=1)), x, skips.pop())
        logits = self.last(x)
        return logits[:, :, : size[0], : size[1], : size[2]]

    def _stage(self, stage: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(stage, *inputs, use_reentrant=False)
        return stage(*inputs)


def _resample(
    kind: type[nn.Conv3d] | type[nn.ConvTranspose3d],
    before: int,
    after: int,
    stride: Sequence[int],
    options: VNetOptions,
) -> nn.Sequential:
    """A strided convolution (down or up) whose kernel is its stride: the original's 2 × 2 × 2."""
    size = (stride[0], stride[1], stride[2])
    return nn.Sequential(kind(before, after, size, stride=size), _norm(options.normalisation, after), nn.PReLU(after))
