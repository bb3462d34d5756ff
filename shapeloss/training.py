"""Training one V-Net with one loss: the loop, its checkpoints, and what is written beside the weights.

Everything random in a step follows from (seed, step) alone, and a checkpoint holds the rest, so that a killed run that
goes on ends with the very numbers of a run that was never killed.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric, seed_everything
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from shapeloss.checksums import DamagedError, load_tensors, save_tensors, write_checked_json
from shapeloss.dataset import SPLITS, Case, Manifest, cached_map
from shapeloss.experiment import Experiment, Training
from shapeloss.files import atomic, code_hash, content_hash, file_hash
from shapeloss.inference import postprocess, predict_labels, resolve_precision
from shapeloss.losses import HausdorffDTLoss
from shapeloss.provenance import own_code, provenance
from shapeloss.scans import TrainedOn
from shapeloss.vnet import VNet

CODE = (
    *("vnet", "training", "inference", "dataset", "preprocessing", "volumes"),
    *("losses", "loss_base", "region_losses", "distance_losses", "maps", "distance"),
)
"""The modules whose change makes a checkpoint worthless."""


@dataclass
class State:
    """What changes during training, besides the network and the optimiser."""

    step: int = 0
    best_dice: float = -1.0
    best_step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    """One row per validation: step, mean training loss since the last, learning rate, mean validation Dice."""
    losses: list[float] = field(default_factory=list)
    """Training losses since the last validation."""


def train(
    experiment: Experiment,
    manifest: Manifest,
    loss_name: str,
    seed: int,
    folder: str | Path,
    maps: str | Path,
    progress: Callable[[int, int], None] = lambda step, steps: None,
) -> pd.DataFrame:
    """Train with one loss and one seed, choose the checkpoint by validation, and predict the test cases.

    Args:
        folder: receives `weights.safetensors`, `history.csv`, `predictions/<case>.nii.gz`, and last `run.json`.
        maps: cache of the prepared volumes and the losses' maps, which are read from there where they are used.
        progress: called after each step with (step, steps).

    Returns:
        The history: step, train_loss, learning_rate, val_dice.
    """
    folder, options = Path(folder), experiment.training
    torch.set_num_threads(1)  # several trainings share a machine, and the numbers do not depend on its cores
    torch.use_deterministic_algorithms(True, warn_only=False)
    seed_everything(seed, verbose=False)
    fabric = Fabric(accelerator="auto", devices=1, precision=resolve_precision(options.precision))
    network = VNet(1, manifest.num_classes, experiment.network.options, options.activation_checkpointing)
    network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # missing in its stub
    optimiser = torch.optim.Adam(network.parameters(), lr=options.learning_rate)
    model, optimiser = fabric.setup(network, optimiser)

    maps = Path(maps)
    cases, validation = ([manifest.load(name, maps) for name in manifest.names(part)] for part in SPLITS[:2])
    loss = experiment.build_loss(loss_name, manifest.num_classes, cases[0].spacing)
    if isinstance(loss, HausdorffDTLoss) and not np.allclose([case.spacing for case in cases], cases[0].spacing):
        raise ValueError(
            f"{loss_name} transforms each prediction with one spacing, and the cases have several; give data.spacing "
            "in the profile to resample them to one"
        )
    truth_maps = [truth_map(loss, case, maps) for case in cases]
    whence = provenance(str(fabric._precision.precision), loss)  # now: the code may change while it trains

    fingerprint = run_fingerprint(experiment, manifest, loss_name, seed, own_code(loss))
    checkpoint = folder / "checkpoint.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    state, best = restore(checkpoint, fingerprint, network, optimiser)
    started = time.monotonic()
    for step in range(state.step, options.steps):
        rate = learning_rate(step, options)
        for group in optimiser.param_groups:
            group["lr"] = rate
        if hasattr(loss, "progress"):
            setattr(loss, "progress", step / options.steps)  # noqa: B010 (a loss with a schedule)

        generator = np.random.default_rng([seed, step])
        torch.manual_seed(int(generator.integers(2**62)))
        index = case_of_step(step, len(cases), seed)
        image, labels, phi = augment(cases[index], truth_maps[index], manifest.slice_axis, options, generator)
        image, labels, phi = fabric.to_device((image.contiguous(memory_format=torch.channels_last_3d), labels, phi))

        logits = model(image)
        value = loss(logits, labels, phi)
        fabric.backward(value)
        optimiser.step()
        optimiser.zero_grad()

        state.losses.append(float(value.detach()))
        if not math.isfinite(state.losses[-1]):
            raise FloatingPointError(
                f"{loss_name}, seed {seed}: the loss became {state.losses[-1]} at step {step + 1} "
                f"(case {cases[index].name}); lower training.learning_rate or use precision 32-true"
            )
        state.step = step + 1
        last = state.step == options.steps
        if state.step % options.validate_every == 0 or last:
            dice = validation_dice(model, fabric, validation, options)
            mean_loss = sum(state.losses) / len(state.losses)
            state.history.append({"step": state.step, "train_loss": mean_loss, "learning_rate": rate, "val_dice": dice})
            state.losses.clear()
            if dice > state.best_dice:
                state.best_dice, state.best_step = dice, state.step
                best = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        if state.step % options.checkpoint_every == 0 or last:
            save(checkpoint, fingerprint, network, optimiser, state, best)
        (folder / "progress").write_text(f"{state.step}/{options.steps}")  # for whoever watches; not worth a lock
        progress(state.step, options.steps)

    network.load_state_dict(best)
    for name in manifest.names("test"):
        case = manifest.load(name, maps)
        found = predict_labels(model, fabric.to_device(as_image(case)), options.patch_size)
        found = postprocess(found, experiment.postprocessing)
        manifest.write_labels(folder / "predictions" / f"{name}.nii.gz", found, name)
    save_tensors(folder / "weights.safetensors", best, {})
    history = pd.DataFrame(state.history)
    with atomic(folder / "history.csv") as temporary:
        history.to_csv(temporary, index=False)
    write_checked_json(
        folder / "run.json",
        {
            "loss": loss_name,
            "loss_options": experiment.losses[loss_name],
            "seed": seed,
            "fingerprint": fingerprint,
            "data": manifest.hash,
            "best_step": state.best_step,
            "best_val_dice": state.best_dice,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "seconds_since_last_start": round(time.monotonic() - started, 1),
            "classes": manifest.classes,
            "trained_on": TrainedOn.of([manifest.scans[name] for name in manifest.names("train")]).to_json(),
            "sha256": {"history.csv": file_hash(folder / "history.csv")},
            "experiment": json.loads(experiment.section("data", "network", "training", "postprocessing")),
        }
        | whence,
    )
    return history


def learning_rate(step: int, options: Training) -> float:
    """Adam's rate at a step (0-based): constant, or a linear warm-up over a tenth of the steps and a cosine to zero."""
    if options.schedule == "constant":
        return options.learning_rate
    warm_up = max(1, options.steps // 10)
    if step < warm_up:
        return options.learning_rate * (step + 1) / warm_up
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, options.steps - warm_up)))


def case_of_step(step: int, count: int, seed: int) -> int:
    """Which case a step trains on: each epoch is a new permutation."""
    epoch, position = divmod(step, count)
    return int(np.random.default_rng([seed, 1, epoch]).permutation(count)[position])


def augment(
    case: Case, truth_map: Tensor | None, slice_axis: int, options: Training, generator: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor | None]:
    """One training example, randomly rotated in the plane of its slices; the map is rotated with its labels.

    Args:
        truth_map: (C, X, Y, Z), C = 1 for a map per voxel, K for a map per class.

    Returns:
        image (1, 1, X, Y, Z), labels (1, X, Y, Z), map (1, X, Y, Z) or (1, K, X, Y, Z) or None.
    """
    angle = float(generator.uniform(-options.rotation_degrees, options.rotation_degrees))
    whole = case.labels.shape
    patch = options.patch_size or whole
    corner = [int(generator.integers(max(0, n - size) + 1)) for n, size in zip(whole, patch, strict=True)]
    window = tuple(slice(a, a + size) for a, size in zip(corner, patch, strict=True))
    # a rotation within the slices needs the whole slices, but none beyond the patch
    slab = tuple(window[axis] if axis == slice_axis else slice(None) for axis in range(3))
    image = torch.from_numpy(np.array(case.image[slab]))[None]  # (1, X, Y, Z)
    labels = torch.from_numpy(np.array(case.labels[slab]))[None]
    if truth_map is not None:
        truth_map = truth_map[(slice(None), *slab)].clone()
    if options.rotation_degrees:
        smooth = image if truth_map is None else torch.cat([image, truth_map])
        smooth = rotate_in_plane(smooth, angle, case.spacing, slice_axis, "bilinear")
        image, truth_map = smooth[:1], None if truth_map is None else smooth[1:]
        labels = rotate_in_plane(labels.float(), angle, case.spacing, slice_axis, "nearest")
    inside = (slice(None), *[slice(None) if axis == slice_axis else window[axis] for axis in range(3)])
    image, labels = image[inside], labels[inside]
    truth_map = None if truth_map is None else truth_map[inside]
    phi = None if truth_map is None else truth_map if len(truth_map) == 1 else truth_map[None]
    return image[None], labels.long(), phi


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
    grid = F.affine_grid(matrix, [1, 1, *slices.shape[2:]], align_corners=False).expand(len(slices), -1, -1, -1)
    rotated = F.grid_sample(slices.contiguous(), grid, mode=mode, padding_mode="border", align_corners=False)
    return rotated.movedim(0, slice_axis + 1)


def validation_dice(model: nn.Module, fabric: Fabric, cases: list[Case], options: Training) -> float:
    """Mean over cases and structures of the Dice score; the checkpoint with the highest is tested."""
    scores = []
    for case in cases:
        predicted = predict_labels(model, fabric.to_device(as_image(case)), options.patch_size)
        for label in np.unique(case.labels[case.labels > 0]).tolist():
            truth, found = case.labels == label, predicted == label
            scores.append(2 * int((truth & found).sum()) / (int(truth.sum()) + int(found.sum())))
    return sum(scores) / len(scores)


def as_image(case: Case) -> Tensor:
    """The image of a case as a batch of one, (1, 1, X, Y, Z), in memory."""
    return torch.from_numpy(np.array(case.image))[None, None]


def truth_map(loss: nn.Module, case: Case, cache: Path) -> Tensor | None:
    """The map a loss needs of one truth, as (C, X, Y, Z), or None."""
    spec: Any = getattr(loss, "map_spec", None)
    compute: Any = getattr(loss, "compute_map", None)
    if spec is None:
        return None
    values = _mapped(cached_map(case, compute, {**spec, **own_code(loss)}, cache))
    return values if values.ndim == 4 else values[None]


def _mapped(array: np.ndarray) -> Tensor:
    """A tensor on an array that is read from disk where it is used; nothing writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def bar(description: str) -> Callable[[int, int], None]:
    """A progress bar over the steps, with an estimate of the time left, to be passed to :func:`train`."""
    shown: list[tqdm] = []

    def update(step: int, steps: int) -> None:
        if not shown:
            shown.append(tqdm(total=steps, initial=step - 1, desc=description, unit="step", mininterval=5))
        shown[0].update(step - shown[0].n)
        if step == steps:
            shown[0].close()

    return update


def run_fingerprint(
    experiment: Experiment, manifest: Manifest, loss_name: str, seed: int, own: Mapping[str, str] | None = None
) -> str:
    """Hash of all that determines a training: a checkpoint with another one is not taken up."""
    return content_hash(
        experiment.section("network", "training", "postprocessing"),
        json.dumps([loss_name, experiment.losses[loss_name], seed, manifest.hash, dict(own or {})], sort_keys=True),
        resolve_precision(experiment.training.precision),
        version("torch"),
        code_hash(*CODE),
    )


def save(
    path: Path, fingerprint: str, network: nn.Module, optimiser: Any, state: State, best: dict[str, Tensor]
) -> None:
    """Write a checkpoint atomically: tensors in safetensors, the rest as JSON in its header; nothing that executes."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for index, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
    save_tensors(path, tensors, {"fingerprint": fingerprint, "state": json.dumps(asdict(state))})


def restore(path: Path, fingerprint: str, network: nn.Module, optimiser: Any) -> tuple[State, dict[str, Tensor]]:
    """Fill network and optimiser from a checkpoint: (state, best weights).

    A fresh start where there is none, where it is of another training, and, which is said, where it is damaged.
    """
    try:
        tensors, metadata = load_tensors(path)
    except FileNotFoundError:
        return State(), {}
    except DamagedError as error:
        print(f"{error}; this training starts again from its first step", flush=True)
        return State(), {}
    if metadata.get("fingerprint") != fingerprint:
        return State(), {}
    part = {
        prefix: {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        for prefix in ("network.", "best.", "optimiser.")
    }
    network.load_state_dict(part["network."])
    values = optimiser.state_dict()
    values["state"] = {}
    for name, tensor in part["optimiser."].items():
        index, key = name.split(".", 1)
        values["state"].setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict(values)
    return State(**json.loads(metadata["state"])), part["best."]
