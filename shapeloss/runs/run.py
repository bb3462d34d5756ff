"""One training on disk: `shapeloss.train.fit` with a data set, cached maps, checkpoints, predictions and provenance.

A killed run that goes on ends with the very numbers of a run that was never killed.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from shapeloss._files import atomic, file_hash
from shapeloss.data.checksums import save_tensors, write_checked_json
from shapeloss.data.manifest import SPLITS, Manifest
from shapeloss.data.scans import TrainedOn
from shapeloss.losses import HausdorffDTLoss
from shapeloss.predict import postprocess, predict_labels, resolve_precision
from shapeloss.runs.checkpoint import restore, run_fingerprint, save
from shapeloss.runs.device import be_deterministic, explained, known_faults, shared_device
from shapeloss.runs.map_cache import mapped, training_volume, truth_map
from shapeloss.runs.options import RunOptions
from shapeloss.runs.provenance import custom_loss_source, provenance
from shapeloss.runs.several import leads, run_together
from shapeloss.train import State, fit, validation_dice
from shapeloss.vnet import VNet, resolve_memory_format


def train(
    experiment: RunOptions,
    manifest: Manifest,
    loss_name: str,
    seed: int,
    folder: str | Path,
    maps: str | Path,
    progress: Callable[[int, int], None] = lambda step, steps: None,
    device: str = "auto",
    threads: int = 1,
) -> pd.DataFrame:
    """Train with one loss and one seed, choose the weights by validation, and predict the test cases.

    Args:
        folder: receives `weights.safetensors`, `history.csv`, `predictions/<case>.nii.gz`, and last `run.json`.
        maps: cache of the prepared volumes and the losses' maps, which are read from there where they are used.
        progress: called after each step with (step, steps).
        device: see :func:`shapeloss.runs.device.find_device`; of several GPUs, the one with the fewest trainings.
        threads: of the processor; another number rounds otherwise. Several trainings share a machine.

    Returns:
        The history: step, train_loss, learning_rate, val_dice.

    Raises:
        ValueError: there is no such device; a loss that cannot be used with these cases.
        RuntimeError: one of several processes (`training.devices`) ended.
        FloatingPointError: the loss is not finite any more.
        MemoryError: the device is too small; the message names the keys of the profile that help.
    """
    folder, maps, options = Path(folder), Path(maps), experiment.training
    arguments = (experiment, manifest, loss_name, seed, folder, maps, device, threads)
    if options.devices == 1:
        return _train_in_this_process(*arguments, progress)
    begun = folder / "progress"
    begun.unlink(missing_ok=True)

    def show() -> None:
        step = begun.read_text(encoding="utf-8").partition("/")[0] if begun.is_file() else ""
        if step:
            progress(int(step), options.steps)

    try:
        run_together(_train_in_this_process, arguments, options.devices, show)
    except RuntimeError as error:
        raise RuntimeError(
            f"{loss_name}, seed {seed}: {error}; what was reached lies in {folder / 'checkpoint.safetensors'}: run the "
            "same command again, which goes on from there"
        ) from error
    return pd.read_csv(folder / "history.csv")


def _train_in_this_process(
    experiment: RunOptions, manifest: Manifest, loss_name: str, seed: int, folder: Path, maps: Path, device: str,
    threads: int, progress: Callable[[int, int], None] = lambda step, steps: None,
) -> pd.DataFrame:  # fmt: skip
    with shared_device(device) as place, explained(place):
        return _train_on(place, experiment, manifest, loss_name, seed, folder, maps, progress, threads)


def _train_on(
    device: torch.device, experiment: RunOptions, manifest: Manifest, loss_name: str, seed: int, folder: Path,
    maps: Path, progress: Callable[[int, int], None], threads: int,
) -> pd.DataFrame:  # fmt: skip
    options = experiment.training
    torch.set_num_threads(threads)
    be_deterministic(device)
    for fault in known_faults(device):
        print(f"note: {fault}", flush=True)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (what a custom loss may draw from)
    torch.manual_seed(seed)
    cases, validation = ([manifest.load(name, maps) for name in manifest.names(part)] for part in SPLITS[:2])
    loss = experiment.build_loss(loss_name, manifest.num_classes, cases[0].spacing)
    if isinstance(loss, HausdorffDTLoss) and not np.allclose([case.spacing for case in cases], cases[0].spacing):
        raise ValueError(
            f"{loss_name} transforms each prediction with one spacing, and the cases have several; give data.spacing "
            "in the profile to resample them to one"
        )
    torch.manual_seed(seed)  # whatever the loss has drawn, every network starts from the same weights
    network = VNet(
        1,
        manifest.num_classes,
        experiment.network.options,
        options.activation_checkpointing,
        distance_head=getattr(loss, "distance_head", False),
    ).to(device)
    volumes = [training_volume(case, truth_map(loss, case, maps)) for case in cases]
    validated = [training_volume(case) for case in validation]
    # now: the code may change while it trains
    precision = resolve_precision(options.precision, device)
    memory_format = resolve_memory_format(options.memory_format, device, precision == "bf16-mixed")
    source = provenance(precision, loss, device, memory_format)

    arithmetic = f"{device.type}, {precision}, {memory_format}"
    fingerprint = run_fingerprint(experiment, manifest, loss_name, seed, custom_loss_source(loss), arithmetic)
    checkpoint = folder / "checkpoint.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def after_step(state: State) -> None:
        if not leads():
            return
        if state.step % options.checkpoint_every == 0 or state.step == options.steps:
            save(checkpoint, fingerprint, network, loss, state)
        (folder / "progress").write_text(
            f"{state.step}/{options.steps}", encoding="utf-8"
        )  # for whoever watches; not worth a lock
        progress(state.step, options.steps)

    try:
        state = fit(
            network,
            loss,
            volumes,
            options,
            seed=seed,
            slice_axis=manifest.slice_axis,
            state=restore(checkpoint, fingerprint, network, loss, State.start(network, options, loss)),
            validate=lambda network: validation_dice(network, validated, options),
            after_step=after_step,
        )
    except FloatingPointError as error:
        raise FloatingPointError(f"{loss_name}, seed {seed}: {error}") from error

    history = pd.DataFrame(state.history)
    if not leads():
        return history
    for name in manifest.names("test"):
        image = mapped(manifest.load(name, maps).image)[None, None].to(device)
        predicted = predict_labels(network, image, options.patch_size, options.precision)
        predicted = postprocess(predicted, experiment.postprocessing)
        manifest.write_labels(folder / "predictions" / f"{name}.nii.gz", predicted, name)
    save_tensors(folder / "weights.safetensors", state.best_weights, {})
    with atomic(folder / "history.csv") as temporary:
        history.to_csv(temporary, index=False, lineterminator="\n")
    written = ["history.csv", "weights.safetensors"]
    written += [f"predictions/{name}.nii.gz" for name in manifest.names("test")]
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
            "learned_by_loss": {name: value.tolist() for name, value in loss.state_dict().items()},
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "seconds_since_last_start": round(time.monotonic() - started, 1),
            "classes": manifest.classes,
            "trained_on": TrainedOn.of([manifest.scans[name] for name in manifest.names("train")]).to_json(),
            "sha256": {name: file_hash(folder / name) for name in written},
            "experiment": json.loads(experiment.canonical_json("data", "network", "training", "postprocessing")),
        }
        | source,
    )
    return history
