"""The training loop, on tensors; it reads and writes nothing.

Everything random in a step follows from (seed, step) alone, and :class:`State` holds the rest, so that a training that
is stopped and goes on from its state ends with the very numbers of one that was never stopped. `shapeloss.runs` wraps
the loop with data sets, a cache of maps, checkpoints and provenance.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from shapeloss.predict import Precision, compute_logits, predict_labels
from shapeloss.vnet import MemoryFormat, lay_out


@dataclass(frozen=True)
class TrainingOptions:
    """The paper: Adam, learning rate 1e-4, one volume a step, random in-plane rotations; the rest is left open."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # in a profile, an unknown key is an error

    steps: int = 600
    """Optimiser steps, the same for every loss."""
    learning_rate: float = 1e-3
    """Peak learning rate of Adam (the paper: 1e-4)."""
    schedule: Literal["constant", "one_cycle"] = "one_cycle"
    """Linear warm-up over a tenth of the steps, then a cosine to zero; or the paper's constant rate."""
    rotation_degrees: float = 15.0
    """Largest angle of the random in-plane rotation (the paper does not say)."""
    patch_size: tuple[int, int, int] | None = None
    """Random patches of this size instead of whole volumes; prediction then slides a window of this size."""
    validate_every: int = 50
    """Steps between two validations; the weights with the best mean Dice of the validation cases are kept."""
    checkpoint_every: int = 50
    """Steps between two checkpoints, from which a killed run goes on."""
    precision: Precision = "auto"
    """bfloat16 autocast where it is faster (auto), always (bf16-mixed), or never (32-true)."""
    memory_format: MemoryFormat = "auto"
    """How features lie in memory; see :func:`shapeloss.vnet.resolve_memory_format`."""
    accumulate: int = 1
    """Volumes a step: their gradients are averaged before the optimiser's step."""
    devices: int = 1
    """Processes, each on a device of its own, that share the volumes of a step; `accumulate` is a multiple of it."""
    activation_checkpointing: bool = False
    """Recompute each stage's activations in the backward pass: less memory, about a third more time."""
    compile: bool = False
    """Compile the network by `torch.compile`, see :func:`compile_mode`; it needs a C++ compiler, and minutes."""

    def __post_init__(self) -> None:
        for name in ("steps", "validate_every", "checkpoint_every", "accumulate", "devices"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.accumulate % self.devices:
            raise ValueError(
                f"accumulate must be a multiple of devices, which share its volumes; got {self.accumulate} and "
                f"{self.devices}"
            )
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if not 0 <= self.rotation_degrees <= 180:
            raise ValueError(f"rotation_degrees must lie in 0 to 180, got {self.rotation_degrees}")
        if self.patch_size is not None and (len(self.patch_size) != 3 or min(self.patch_size) < 1):
            raise ValueError(f"patch_size must be three numbers of voxels, 1 or more each, got {self.patch_size}")
        for name, choices in (
            ("schedule", ("constant", "one_cycle")),
            ("precision", get_args(Precision)),
            ("memory_format", get_args(MemoryFormat)),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class TrainingVolume:
    """One volume with its truth. The tensors may lie in a file that is read where it is used."""

    image: Tensor
    """(X, Y, Z) float32, normalised."""
    labels: Tensor
    """(X, Y, Z) integer, 0 is the background."""
    spacing: tuple[float, float, float]
    """mm along X, Y, Z."""
    label_map: Tensor | None = None
    """The map that a loss needs of the truth, (C, X, Y, Z): φ has C = 1, a map for each class C = K."""
    name: str = ""


@dataclass
class State:
    """What changes during training, besides the network."""

    optimiser: torch.optim.Optimizer
    step: int = 0
    """Steps that are done."""
    best_dice: float = -1.0
    best_step: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    """The network's weights at the best validation; empty before the first."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One row per validation: step, mean training loss since the last, learning rate, mean validation Dice."""
    losses: list[float] = field(default_factory=list)
    """Training losses since the last validation, as far as they were read from the device."""

    @classmethod
    def start(cls, network: nn.Module, options: TrainingOptions, loss: nn.Module | None = None) -> State:
        """That of the first step; parameters of the loss are trained too, such as weights that it learns."""
        parameters = [*network.parameters(), *(loss.parameters() if loss is not None else ())]
        return cls(torch.optim.Adam(parameters, lr=options.learning_rate))


def fit(
    network: nn.Module,
    loss: nn.Module,
    volumes: Sequence[TrainingVolume],
    options: TrainingOptions,
    *,
    seed: int = 0,
    slice_axis: int = 0,
    state: State | None = None,
    validate: Callable[[nn.Module], float] | None = None,
    after_step: Callable[[State], None] | None = None,
) -> State:
    """Train a network with a loss, `options.accumulate` volumes a step, each by itself.

    In a process group of `torch.distributed` each process calls this with the same arguments: it computes its share of
    the volumes of a step, and all make the same optimiser's step with the mean of the gradients.

    Args:
        network: (B, 1, X, Y, Z) → logits (B, K, X, Y, Z), on the device to train on; trained in place. After the last
            step it has the weights of the best validation, if there is a `validate`.
        loss: called as loss(logits, target, phi); see `shapeloss.losses`. One with an attribute `progress` is told the
            part of the training that is done.
        volumes: to train on; a map that the loss needs and a volume lacks is computed first.
        options: steps, learning rate, augmentation, precision.
        seed: of the order of the volumes, rotations, patches and dropout.
        slice_axis: the axis across the slices, in whose plane volumes are rotated.
        state: to go on from; it must be of this network. Default: the start.
        validate: network → mean Dice, such as :func:`validation_dice` of other volumes; called every
            `options.validate_every` steps and after the last.
        after_step: called after each step, with the state.

    Returns:
        The state after the last step.

    Raises:
        ValueError: there is no volume; or several processes, and a network with batch normalisation.
        FloatingPointError: the loss is not finite any more.

    >>> from shapeloss.losses import DistancePenalizedCELoss
    >>> from shapeloss.vnet import VNet, VNetOptions
    >>> network = VNet(1, 2, VNetOptions((8, 8), (1, 1), ((1, 2, 2),)))
    >>> labels = torch.zeros(4, 8, 8, dtype=torch.long)
    >>> labels[:, 2:6, 2:6] = 1
    >>> knee = TrainingVolume(labels.float(), labels, spacing=(2.0, 0.5, 0.5))
    >>> state = fit(network, DistancePenalizedCELoss(), [knee], TrainingOptions(steps=3))
    >>> state.step, len(state.losses)
    (3, 3)
    """
    if not volumes:
        raise ValueError("volumes must hold at least one volume to train on")
    device = _device(network)
    memory_format = lay_out(network, options.memory_format)
    volumes = near_device([with_label_map(volume, loss) for volume in volumes], device)
    forward: Any = network
    if options.compile:
        forward = torch.compile(network, mode=compile_mode(device, options))
    loss.to(device)
    state = state or State.start(network, options, loss)
    rank, processes = (dist.get_rank(), dist.get_world_size()) if in_group() else (0, 1)
    if processes > 1 and any(True for _ in network.buffers()):
        raise ValueError("batch normalisation would have other running means on each device; use instance or group")
    unread: list[Tensor] = []  # losses on the device: reading one waits for the GPU
    for step in range(state.step, options.steps):
        rate = learning_rate(step, options)
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        if hasattr(loss, "progress"):
            setattr(loss, "progress", step / options.steps)  # noqa: B010 (a loss with a schedule)

        for part in range(rank, options.accumulate, processes):
            generator = np.random.default_rng([seed, step, part] if part else [seed, step])
            torch.manual_seed(int(generator.integers(2**62)))
            volume = volumes[volume_of_step(step * options.accumulate + part, len(volumes), seed)]
            image, labels, phi = augment(volume, slice_axis, options, generator, device)
            image = image.contiguous(memory_format=memory_format)
            value = loss(compute_logits(forward, image, options.precision), labels, phi) / options.accumulate
            value.backward()
            unread.append(value.detach())
        if processes > 1:
            _add_up([p.grad for group in state.optimiser.param_groups for p in group["params"] if p.grad is not None])
        state.optimiser.step()
        state.optimiser.zero_grad()

        state.step = step + 1
        last = state.step == options.steps
        validates = state.step % options.validate_every == 0 or last
        if validates or state.step % options.checkpoint_every == 0:
            _read_losses(unread, state, volumes, seed, options.accumulate)
        if validates and validate is not None:
            dice, mean_loss = validate(network), sum(state.losses) / len(state.losses)
            state.history.append({"step": state.step, "train_loss": mean_loss, "learning_rate": rate, "val_dice": dice})
            state.losses.clear()
            if dice > state.best_dice:
                state.best_dice, state.best_step = dice, state.step
                state.best_weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
        if after_step is not None:
            after_step(state)
    if state.best_weights:
        network.load_state_dict(state.best_weights)
    return state


def compile_mode(device: torch.device, options: TrainingOptions) -> str:
    """The mode of `torch.compile`: CUDA graphs on a GPU, where a step is one volume.

    A graph writes each volume's gradients where it wrote the last one's, which `accumulate` adds to (pytorch issue
    169545).
    """
    return "reduce-overhead" if device.type == "cuda" and options.accumulate == 1 else "default"


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters(), torch.empty(0)).device


def in_group() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized()


def _add_up(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over all processes, in one message."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, values in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(values.view_as(tensor))


def _read_losses(
    unread: list[Tensor], state: State, volumes: Sequence[TrainingVolume], seed: int, accumulate: int
) -> None:
    """Move losses from the device into the state; FloatingPointError that names the first that is not finite."""
    own = torch.stack(unread) if unread else torch.empty(0)
    if in_group() and unread:  # each process has every n-th
        every = own.new_zeros(len(own), dist.get_world_size())
        every[:, dist.get_rank()] = own
        dist.all_reduce(every)
        own = every.flatten()
    values = own.tolist()
    first = state.step * accumulate - len(values)
    for place, value in enumerate(values, start=first):
        if not math.isfinite(value):
            name = volumes[volume_of_step(place, len(volumes), seed)].name
            raise FloatingPointError(
                f"the loss became {value} at step {place // accumulate + 1}{f' (case {name})' if name else ''}; "
                "lower learning_rate or use precision 32-true"
            )
    state.losses += [sum(values[i : i + accumulate]) for i in range(0, len(values), accumulate)]
    unread.clear()


def near_device(volumes: Sequence[TrainingVolume], device: torch.device) -> list[TrainingVolume]:
    """The volumes where a GPU gets at them at once: on it, if they fill less than half of its free memory, else pinned.

    For other devices they stay as they are, and where the system gives no pinned memory, which is warned of.
    """
    if device.type != "cuda":
        return list(volumes)
    tensors = [t for volume in volumes for t in (volume.image, volume.labels, volume.label_map) if t is not None]
    fits = 2 * sum(t.numel() * t.element_size() for t in tensors) < torch.cuda.mem_get_info(device)[0]

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device) if fits else tensor.pin_memory()

    try:
        return [
            replace(
                volume,
                image=move(volume.image),
                labels=move(volume.labels),
                label_map=None if volume.label_map is None else move(volume.label_map),
            )
            for volume in volumes
        ]
    except RuntimeError as error:
        if fits:
            raise
        warnings.warn(
            f"the volumes do not fit into pinned memory ({str(error).splitlines()[0]}): the GPU waits for each of them",
            stacklevel=2,
        )
        return list(volumes)


def with_label_map(volume: TrainingVolume, loss: nn.Module) -> TrainingVolume:
    """The volume with the map that the loss needs of its truth, computed if it is not there."""
    compute: Any = getattr(loss, "compute_map", None)
    if volume.label_map is not None or compute is None:
        return volume
    values = torch.from_numpy(np.asarray(compute(volume.labels.cpu().numpy(), volume.spacing), dtype=np.float32))
    return replace(volume, label_map=values if values.ndim == 4 else values[None])


def learning_rate(step: int, options: TrainingOptions) -> float:
    """Adam's rate at a step (0-based): constant, or a linear warm-up over a tenth of the steps and a cosine to zero."""
    if options.schedule == "constant":
        return options.learning_rate
    warm_up = max(1, options.steps // 10)
    if step < warm_up:
        return options.learning_rate * (step + 1) / warm_up
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, options.steps - warm_up)))


def volume_of_step(step: int, count: int, seed: int) -> int:
    """Which volume a step trains on: each epoch is a new permutation."""
    epoch, position = divmod(step, count)
    return int(np.random.default_rng([seed, 1, epoch]).permutation(count)[position])


def augment(
    volume: TrainingVolume,
    slice_axis: int,
    options: TrainingOptions,
    generator: np.random.Generator,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor, Tensor | None]:
    """One training example, randomly rotated in the plane of its slices; the map is rotated with its labels.

    It is computed on the device, but for Apple's MPS, which lacks the rotation in many versions (pytorch issue 125098).

    Returns:
        image (1, 1, X, Y, Z), labels (1, X, Y, Z), map (1, X, Y, Z) or (1, K, X, Y, Z) or None, all on the device.
    """
    device = torch.device(device)
    angle = float(generator.uniform(-options.rotation_degrees, options.rotation_degrees))
    whole, label_map = volume.labels.shape, volume.label_map
    patch = options.patch_size or whole
    corner = [int(generator.integers(max(0, n - size) + 1)) for n, size in zip(whole, patch, strict=True)]
    window = tuple(slice(a, a + size) for a, size in zip(corner, patch, strict=True))
    # a rotation within the slices needs the whole slices, but none beyond the patch
    slab = tuple(window[axis] if axis == slice_axis else slice(None) for axis in range(3))

    place = torch.device("cpu") if device.type == "mps" else device

    def take(values: Tensor) -> Tensor:
        return values[(..., *slab)].to(place, non_blocking=True, copy=True)

    image, labels = take(volume.image)[None], take(volume.labels)[None]  # (1, X, Y, Z)
    label_map = None if label_map is None else take(label_map)
    if options.rotation_degrees:
        smooth = image if label_map is None else torch.cat([image, label_map])
        smooth = rotate_in_plane(smooth, angle, volume.spacing, slice_axis, "bilinear")
        image, label_map = smooth[:1], None if label_map is None else smooth[1:]
        labels = rotate_in_plane(labels.float(), angle, volume.spacing, slice_axis, "nearest")
    inside = (slice(None), *[slice(None) if axis == slice_axis else window[axis] for axis in range(3)])
    image, labels = image[inside], labels[inside]
    label_map = None if label_map is None else label_map[inside]
    phi = None if label_map is None else label_map if len(label_map) == 1 else label_map[None]
    return image[None].to(device), labels.to(device).long(), None if phi is None else phi.to(device)


def rotate_in_plane(
    volume: Tensor, degrees: float, spacing: tuple[float, float, float], slice_axis: int, mode: str
) -> Tensor:
    """Rotate every slice by the same angle about its centre, in mm, so that pixels that are not square do not shear.

    Args:
        volume: (C, X, Y, Z) float; what comes from outside the slice repeats its edge.
        mode: `bilinear`, or `nearest` for labels.
    """
    first, second = [axis for axis in range(3) if axis != slice_axis]
    slices = volume.movedim(slice_axis + 1, 0)  # (S, C, first, second)
    # grid_sample's coordinates run from -1 to 1 over the width (second axis), then over the height (first axis)
    half = torch.tensor([slices.shape[3] * spacing[second], slices.shape[2] * spacing[first]]) / 2
    angle = math.radians(degrees)
    rotation = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = torch.zeros(1, 2, 3)
    matrix[0, :, :2] = rotation * half[None, :] / half[:, None]
    matrix = matrix.to(volume.device, non_blocking=True)
    grid = F.affine_grid(matrix, [1, 1, *slices.shape[2:]], align_corners=False).expand(len(slices), -1, -1, -1)
    rotated = F.grid_sample(slices.contiguous(), grid, mode=mode, padding_mode="border", align_corners=False)
    return rotated.movedim(0, slice_axis + 1)


def validation_dice(network: nn.Module, volumes: Sequence[TrainingVolume], options: TrainingOptions) -> float:
    """Mean over volumes and structures of the Dice score; the weights with the highest are kept."""
    device = _device(network)
    scores = []
    for volume in volumes:
        image = volume.image[None, None].to(device)
        predicted = predict_labels(network, image, options.patch_size, options.precision)
        labels = volume.labels.cpu().numpy()
        for label in np.unique(labels[labels > 0]).tolist():
            truth, found = labels == label, predicted == label
            scores.append(2 * int((truth & found).sum()) / (int(truth.sum()) + int(found.sum())))
    return sum(scores) / len(scores)
