"""Checkpoints: written atomically, taken up only by the same training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from shapeloss._closure import code_hash
from shapeloss._files import content_hash
from shapeloss.data.checksums import DamagedError, load_tensors, save_tensors
from shapeloss.data.manifest import Manifest
from shapeloss.runs.options import RunOptions
from shapeloss.train import State


def run_fingerprint(
    options: RunOptions,
    manifest: Manifest,
    loss_name: str,
    seed: int,
    custom_loss: Mapping[str, str] | None = None,
    arithmetic: str = "",
) -> str:
    """Hash of all that determines a training: a checkpoint with another one is not taken up.

    `arithmetic` says in words how it is computed: the kind of device, the precision, the memory format.
    """
    row = [loss_name, options.losses[loss_name], seed, manifest.hash, dict(custom_loss or {})]
    return content_hash(
        options.canonical_json("network", "training", "postprocessing"),
        json.dumps(row, sort_keys=True),
        arithmetic,
        version("torch"),
        code_hash("shapeloss.runs.run"),
    )


def save(path: Path, fingerprint: str, network: nn.Module, loss: nn.Module, state: State) -> None:
    """Write a checkpoint atomically: tensors in safetensors, the rest as JSON in its header; nothing that executes."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"loss.{name}": tensor for name, tensor in loss.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best_weights.items()}
    for index, values in state.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
    scalars = {key: value for key, value in vars(state).items() if key not in ("optimiser", "best_weights")}
    save_tensors(path, tensors, {"fingerprint": fingerprint, "state": json.dumps(scalars)})


def restore(path: Path, fingerprint: str, network: nn.Module, loss: nn.Module, state: State) -> State:
    """Fill the network, the loss's own parameters and a starting state from a checkpoint.

    Unchanged where there is none, where it is of another training, and, which is said, where it is damaged.
    """
    try:
        tensors, metadata = load_tensors(path)
    except FileNotFoundError:
        return state
    except DamagedError as error:
        print(f"{error}; this training starts again from its first step", flush=True)
        return state
    if metadata.get("fingerprint") != fingerprint:
        return state
    part = {
        prefix: {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        for prefix in ("network.", "loss.", "best.", "optimiser.")
    }
    network.load_state_dict(part["network."])
    loss.load_state_dict(part["loss."])
    values = state.optimiser.state_dict()
    values["state"] = {}
    for name, tensor in part["optimiser."].items():
        index, key = name.split(".", 1)
        values["state"].setdefault(int(index), {})[key] = tensor
    state.optimiser.load_state_dict(values)
    return State(state.optimiser, best_weights=part["best."], **json.loads(metadata["state"]))
