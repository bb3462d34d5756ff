"""Memory of a training step and of a prediction with profile oaizib's network: `make bench-memory`.

All tensors of a step (forward, loss, backward, Adam) are counted by PyTorch's own tracker, on tensors without data, so
that any size can be asked for. Beside them stands what a step on the CPU really took, where it fits into LIMIT_GIB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn import functional as F

from shapeloss._files import write_text
from shapeloss.data.volume import write_nifti
from shapeloss.predict import compute_logits
from shapeloss.replication.profile import load_experiment
from shapeloss.runs.predict_folder import TrainedRun, predict_files
from shapeloss.runs.provenance import provenance
from shapeloss.vnet import VNet, lay_out

EXPERIMENT = load_experiment(Path(__file__).parents[1] / "profiles" / "oaizib.yaml")
SPACING = (0.7, 0.365, 0.365)
WHOLE = (160, 384, 384)
PATCHES = ((48, 96, 96), (64, 128, 128), (96, 192, 192), (128, 256, 256), WHOLE)
CLASSES = {1: "femur", 2: "tibia"}
LIMIT_GIB = 8
"""A step that is counted to need more than three quarters of it is not run."""


def network(checkpointing: bool) -> VNet:
    """The network of the profile."""
    return VNet(1, 1 + len(CLASSES), EXPERIMENT.network.options, checkpointing)


def step(model: VNet, optimiser: torch.optim.Adam, volume: tuple[Tensor, Tensor, Tensor], bf16: bool) -> None:
    """One training step with the loss of the paper, without its checks of the labels: there may be no data."""
    image, labels, phi = volume
    logits = compute_logits(model, image, "bf16-mixed" if bf16 else "32-true")
    ((1 + phi) * F.cross_entropy(logits, labels, reduction="none")).mean().backward()
    optimiser.step()
    optimiser.zero_grad()


def example(size: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Image, labels, φ."""
    image = torch.rand(1, 1, *size).contiguous(memory_format=torch.channels_last_3d)
    return image, torch.zeros(1, *size, dtype=torch.long), torch.rand(1, *size)


def count(size: tuple[int, ...], checkpointing: bool, bf16: bool) -> int:
    """Bytes of all tensors at the worst moment of the second step, when Adam's state is there."""
    with FakeTensorMode():
        model = network(checkpointing)
        optimiser = torch.optim.Adam(model.parameters(), fused=True)
        tracker = MemTracker()
        tracker.track_external(model, optimiser)
        with tracker:
            for _ in range(2):
                step(model, optimiser, example(size), bf16)
                tracker.reset_mod_stats()
        return int(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])


def measure_step(size: tuple[int, ...], checkpointing: bool, bf16: bool) -> None:
    """Two steps on the CPU."""
    model = network(checkpointing)
    lay_out(model, "auto")
    optimiser = torch.optim.Adam(model.parameters())
    volume = example(size)
    for _ in range(2):
        step(model, optimiser, volume, bf16)


def measure_prediction(precision: str) -> None:
    """One whole volume, from its file to its label map on disk, by the sliding window of the profile."""
    training = replace(EXPERIMENT.training, precision=precision)
    run = TrainedRun(network(False), CLASSES, EXPERIMENT.data, training, EXPERIMENT.postprocessing)
    with tempfile.TemporaryDirectory() as folder:
        image = np.random.default_rng(0).integers(0, 1000, WHOLE).astype(np.int16)
        write_nifti(Path(folder) / "knee.nii.gz", image, np.diag([*SPACING, 1.0]))
        written, problems = predict_files(run, Path(folder) / "knee.nii.gz", Path(folder) / "labels", progress=False)
        assert len(written) == 1, problems


def measured(*arguments: str) -> float:
    """GiB of a measurement in a process of its own: its largest resident size, libraries included."""
    command = [sys.executable, __file__, "--measure", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, encoding="utf-8")
    return float(json.loads(done.stdout.splitlines()[-1]))


def child(kind: str, precision: str, checkpointing: str, size: list[str]) -> None:
    """Make one measurement and print it."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_GIB * 2**30,) * 2)
    if kind == "predict":
        measure_prediction(precision)
    else:
        measure_step(tuple(map(int, size)), checkpointing == "on", precision == "bf16-mixed")
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20))


def main() -> None:
    """Print the tables, and write them where they are the full ones."""
    parser = argparse.ArgumentParser(description="Memory of training and prediction.")
    parser.add_argument("--quick", action="store_true", help="count only, measure nothing")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        kind, precision, checkpointing, *size = arguments.measure
        child(kind, precision, checkpointing, size)
        return
    rows: list[list[Any]] = []
    for size in PATCHES:
        for checkpointing in (False, True):
            for precision in ("32-true", "bf16-mixed"):
                counted = count(size, checkpointing, precision == "bf16-mixed") / 2**30
                switch = "on" if checkpointing else "off"
                shown = "–"
                if not arguments.quick and counted < 0.75 * LIMIT_GIB:
                    shown = f"{measured('step', precision, switch, *map(str, size)):.1f}"
                rows.append([" × ".join(map(str, size)), switch, precision, f"{counted:.1f}", shown])
                print(*rows[-1], flush=True)
    weights = sum(parameter.numel() for parameter in network(False).parameters())
    widths = "-".join(map(str, EXPERIMENT.network.options.widths))
    patch = " × ".join(map(str, EXPERIMENT.training.patch_size or WHOLE))
    text = "\n".join(
        [
            "# Memory",
            "",
            f"The V-Net of profile oaizib: widths {widths}, {weights:,} parameters, K = {1 + len(CLASSES)}, one patch "
            f"a step, Adam. torch {torch.__version__}, one CPU thread, commit {provenance()['commit']}.",
            "",
            "Counted: all tensors of a training step (weights, gradients, Adam, activations) at its worst moment. "
            "Measured: the largest resident size of a process that makes two steps on the CPU, with its libraries "
            "(0.5 GiB) and the CPU kernels' buffers. **No GPU has been measured**: add its context and cuDNN's "
            "workspace to what is counted.",
            "",
            "| patch | checkpointing | precision | counted, GiB | measured on the CPU, GiB |",
            "| --- | --- | --- | ---: | ---: |",
            *["| " + " | ".join(row) + " |" for row in rows],
            "",
        ]
    )
    if not arguments.quick:
        text += (
            f"\nPrediction of {' × '.join(map(str, WHOLE))} voxels, window {patch}, from file to file on the CPU:\n\n"
        )
        text += "| precision | measured, GiB |\n| --- | ---: |\n"
        for precision in ("32-true", "bf16-mixed"):
            text += f"| {precision} | {measured('predict', precision, 'off'):.1f} |\n"
        text += "\nMade by `make bench-memory`; how long a prediction takes is in [speed](speed.md).\n"
        write_text(Path(__file__).with_suffix(".md"), text)
    print(text)


if __name__ == "__main__":
    main()
