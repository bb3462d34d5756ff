"""The V-Net of Milletari, Navab and Ahmadi (3DV 2016, figure 2), with its sizes as parameters.

Shapes in comments: B volumes, C channels, K classes, (X, Y, Z) voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

Normalisation = Literal["none", "group", "instance", "batch"]
MemoryFormat = Literal["auto", "by_size", "channels_last", "contiguous"]
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


def resolve_memory_format(
    name: MemoryFormat, device: torch.device, half: bool
) -> Literal["by_size", "channels_last", "contiguous"]:
    """How a network's features lie in memory.

    - `by_size`: each voxel's channels together, the axes by decreasing size, whatever their order in the image.
    - `channels_last`: each voxel's channels together, the axes in the image's order.
    - `contiguous`: PyTorch's default, one channel after another, with PyTorch's own convolutions.
    - `auto`: `by_size` for float32 on CPUs, where it was measured to be the fastest; else `channels_last`, which takes
      the same time as the others for bfloat16 on a CPU and is taken by convention on other devices.

    Args:
        name: one of these.
        device: on which the network lies.
        half: whether it computes in bfloat16.
    """
    if name != "auto":
        return name
    return "by_size" if device.type == "cpu" and not half else "channels_last"


def lay_out(network: nn.Module, name: MemoryFormat) -> torch.memory_format:
    """Tell a network and its layers their memory format; the format that its images are to have.

    Networks that are no :class:`VNet` know two of them: `by_size` is `channels_last` there.
    """
    for module in network.modules():
        if isinstance(module, VNet | Conv3d | ConvTranspose3d):
            module.memory_format = name
    own = torch.contiguous_format if name == "contiguous" else torch.channels_last_3d
    network.to(memory_format=own)  # type: ignore[call-overload]  # missing in its stub
    return own


def memory_order(x: Tensor) -> list[int]:
    """The spatial axes of x (B, C, X, Y, Z), from the widest stride in memory to the narrowest."""
    return sorted(range(3), key=lambda axis: -x.stride(2 + axis))


def reorder(x: Tensor, order: Sequence[int]) -> Tensor:
    """A view of x (B, C, X, Y, Z) with its spatial axes in another order."""
    return x.permute(0, 1, *[2 + axis for axis in order])


def restore(x: Tensor, order: Sequence[int]) -> Tensor:
    """The view that :func:`reorder` was given."""
    return reorder(x, [order.index(axis) for axis in range(3)])


class Conv3d(nn.Conv3d):
    """nn.Conv3d, the same function; float32 on CPUs by ways around PyTorch's slow convolution (2.13).

    - It is computed along the axes in the order in which they lie in memory: PyTorch takes 1.5 to 1.9 times as long
      where the smallest axis comes first.
    - Of one volume with up to 20480 values across the last axis, PyTorch does not take oneDNN's convolution, which is
      three to six times as fast. A second, empty volume makes it do so.
    - With a kernel of 1 × 1 × 1 it is a product of matrices, whose gradient lies in memory as x does.

    Where :func:`lay_out` chose `contiguous`, it is PyTorch's.
    """

    memory_format: MemoryFormat = "auto"

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype != torch.float32 or self.memory_format == "contiguous":
            return super().forward(x)
        order = memory_order(x)
        stride, padding = ([int(values[axis]) for axis in order] for values in (self.stride, self.padding))
        x, weight = reorder(x, order), reorder(self.weight, order)
        if self.kernel_size == self.stride == (1, 1, 1):
            y = F.linear(x.movedim(1, -1), weight.flatten(1), self.bias).movedim(-1, 1)
        elif len(x) == 1 and x[..., 0].numel() <= 20480:
            y = F.conv3d(F.pad(x, [0] * 9 + [1]), weight, self.bias, stride, padding)[:1]
        else:
            y = F.conv3d(x, weight, self.bias, stride, padding)
        return restore(_channels_together(y), order)


class ConvTranspose3d(nn.ConvTranspose3d):
    """nn.ConvTranspose3d without padding, computed like :class:`Conv3d`."""

    memory_format: MemoryFormat = "auto"

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if x.device.type != "cpu" or x.dtype != torch.float32 or self.memory_format == "contiguous":
            return super().forward(x, output_size)
        order = memory_order(x)
        stride = [self.stride[axis] for axis in order]
        y = F.conv_transpose3d(reorder(x, order), reorder(self.weight, order), self.bias, stride)
        return restore(_channels_together(y), order)


def _channels_together(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)  # no copy, but where PyTorch chose a slow convolution


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
        order = memory_order(x)
        y = reorder(x, order)
        y = self._one(y) if len(y) == 1 else torch.cat([self._one(volume) for volume in y.split(1)])
        return restore(y, order)

    def _one(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True)


class PReLU(nn.PReLU):
    """nn.PReLU, with the same bits; on CPUs by vectorised operators, where PyTorch's own (2.13) is not vectorised."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        result: Tensor = _PReLU.apply(x, self.weight)
        return result


class _PReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        together = x.stride(1) == 1
        if x.dtype == torch.bfloat16 and together and x.shape[1] % 32:  # PyTorch's own takes ten times as long
            return x.clamp_max(0).mul_(_for_channels(weight, x)).add_(x.clamp_min(0))
        return F.prelu(x, weight.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        above = torch.ops.aten.threshold_backward(gradient, x, 0)  # the gradient where x > 0
        below = gradient - above
        result = above.addcmul_(below, _for_channels(weight, x))
        return result, below.mul_(x).sum((0, 2, 3, 4)).to(weight.dtype)


def _for_channels(weight: Tensor, x: Tensor) -> Tensor:
    return weight.to(x.dtype).view(1, -1, 1, 1, 1)


class ResidualStage(nn.Module):
    """One to three convolutions whose result is added to the stage's input."""

    def __init__(self, channels_in: int, channels: int, convolutions: int, options: VNetOptions) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(convolutions):
            size, last = options.kernel_size, index == convolutions - 1
            before = channels_in if index == 0 else channels
            layers += [Conv3d(before, channels, size, padding=size // 2), _norm(options.normalisation, channels)]
            if not last:  # the last activation follows the addition
                layers.append(PReLU(channels))
        self.convolutions = nn.Sequential(*layers)
        self.activation = PReLU(channels)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """x (B, channels_in, X, Y, Z) → (B, channels, X, Y, Z); `shortcut` is added instead of x where it is given."""
        return self.activation(self.convolutions(x) + (x if shortcut is None else shortcut))


class VNet(nn.Module):
    """V-Net: any number of classes, any input size (it is padded to a multiple of the strides, and cropped back).

    Args:
        channels_in: channels of the image, 1 for MRI.
        num_classes: K, the background included.
        options: sizes; see :class:`VNetOptions`.
        distance_head: a second 1 × 1 × 1 convolution beside the last, which regresses the distance to each class. In
            training its K channels follow the logits.
        checkpointing: keep only what enters each stage in training, and compute the rest again in the backward pass:
            less memory, about a third more time, the same gradients.

    >>> network = VNet(1, 4)
    >>> network(torch.zeros(1, 1, 10, 13, 9)).shape
    torch.Size([1, 4, 10, 13, 9])
    """

    memory_format: MemoryFormat = "auto"

    def __init__(
        self,
        channels_in: int,
        num_classes: int,
        options: VNetOptions | None = None,
        checkpointing: bool = False,
        distance_head: bool = False,
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
            self.down.append(_resample(Conv3d, above, below, stride, options))
            self.encode.append(ResidualStage(below, below, convolutions[level + 1], options))
            # the up-convolution brings half of the decoder's channels, the skip connection the other half
            self.up.append(
                _resample(ConvTranspose3d, 2 * below if level + 2 < len(widths) else below, above, stride, options)
            )
            self.decode.append(ResidualStage(2 * above, 2 * above, convolutions[level], options))
        self.dropout = nn.Dropout3d(options.dropout)
        self.last = Conv3d(2 * widths[0], num_classes, 1)
        self.distances = Conv3d(2 * widths[0], num_classes, 1) if distance_head else None

    def forward(self, image: Tensor) -> Tensor:
        """image (B, channels_in, X, Y, Z) → logits (B, K, X, Y, Z).

        With a distance head in training: logits and distances, (B, 2 K, X, Y, Z).
        """
        x = self.features(image)
        logits: Tensor = self.last(x)
        if self.distances is not None and self.training:
            logits = torch.cat([logits, self.distances(x)], dim=1)
        return logits[:, :, : image.shape[2], : image.shape[3], : image.shape[4]]

    def features(self, image: Tensor) -> Tensor:
        """What the heads read: (B, 2 widths[0], …), of a size that is a multiple of the strides."""
        size = image.shape[2:]
        missing = [-extent % multiple for extent, multiple in zip(size, self.multiple, strict=True)]
        if any(missing):
            image = F.pad(image, [0, missing[2], 0, missing[1], 0, missing[0]])
        if resolve_memory_format(self.memory_format, image.device, image.dtype != torch.float32) == "by_size":
            image = _smallest_axis_last(image)
        # the first stage adds its one-channel input to every one of its channels (figure 2)
        shortcut = image if self.channels_in == 1 else image.mean(1, keepdim=True)
        skips = [self._stage(self.first, image, shortcut)]
        for down, encode in zip(self.down, self.encode, strict=True):
            skips.append(self._stage(lambda x, d=down, e=encode: e(d(x)), skips[-1]))
        x = self.dropout(skips.pop())
        for up, decode in zip(reversed(self.up), reversed(self.decode), strict=True):
            x = self._stage(lambda x, s, u=up, d=decode: d(_join(u(x), s)), x, skips.pop())
        return x

    def _stage(self, stage: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(stage, *inputs, use_reentrant=False)
        return stage(*inputs)


def _smallest_axis_last(x: Tensor) -> Tensor:
    """x with its voxels laid out in memory by decreasing size of the axes, its channels together."""
    order = sorted(range(3), key=lambda axis: -x.shape[2 + axis])
    return restore(_channels_together(reorder(x, order)), order)


def _join(x: Tensor, skip: Tensor) -> Tensor:
    """The channels of both, in the memory layout that both have."""
    order = memory_order(skip)
    return restore(torch.cat([reorder(x, order), reorder(skip, order)], dim=1), order)


def _resample(
    kind: type[Conv3d] | type[ConvTranspose3d],
    before: int,
    after: int,
    stride: Sequence[int],
    options: VNetOptions,
) -> nn.Sequential:
    """A strided convolution (down or up) whose kernel is its stride: the original's 2 × 2 × 2."""
    size = (stride[0], stride[1], stride[2])
    return nn.Sequential(kind(before, after, size, stride=size), _norm(options.normalisation, after), PReLU(after))
