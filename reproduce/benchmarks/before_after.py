"""The core's times before the work on its speed and now, in turn on one machine: about ten minutes, when it is idle.

    python reproduce/benchmarks/before_after.py                    # before_after.json and .md
    python reproduce/benchmarks/before_after.py --before v1 --quick  # another state, small sizes, nothing is written

Two processes, one with the code of either state, wait for the name of a row, run it, and answer with its seconds. They
are asked in turn, so that what disturbs one disturbs both. Inputs are the same arrays.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

FILE = Path(__file__).with_suffix(".json")
BEFORE = "4d8efaf"
"""The last commit before the losses, φ, the metrics and the network were made faster."""
LOSSES = ("ce", "dpce", "pcol", "focal", "dice", "gdice", "dice_ce")
BONES = {1: "femur", 2: "tibia", 3: "patella"}


# ---------------------------------------------------------------- in either state


def calls(folder: Path, quick: bool) -> dict[str, Callable[[], Any]]:
    """What is measured, by functions that both states have."""
    import torch
    from torch.nn import functional as F

    from shapeloss.distance import distance_penalty
    from shapeloss.losses import build_loss
    from shapeloss.metrics import METRICS, score_case
    from shapeloss.predict import compute_logits, predict_labels
    from shapeloss.train import TrainingOptions, TrainingVolume, fit, validation_dice
    from shapeloss.vnet import VNet, VNetOptions

    def array(name: str) -> np.ndarray:
        return np.load(folder / f"{name}.npy")

    truth, predicted, image = array("labels"), array("drawn"), array("image")
    spacing = tuple(array("spacing").tolist())
    voxels = "x".join(map(str, truth.shape))
    on_the_grid = [name for name in METRICS if "mesh" not in name]  # those of the mesh are younger
    found: dict[str, Callable[[], Any]] = {
        f"φ, {voxels}, three bones": lambda: distance_penalty(truth, spacing),
        f"{len(on_the_grid)} metrics of the grid, {voxels}, three bones and merged": lambda: score_case(
            truth, predicted, spacing, BONES, metrics=on_the_grid
        ),
        f"the table's metrics, {voxels}, three bones and merged": lambda: score_case(truth, predicted, spacing, BONES),
    }
    n = 32 if quick else 96
    torch.manual_seed(0)
    values, target, phi = torch.randn(1, 4, n, n, n), torch.randint(0, 4, (1, n, n, n)), torch.rand(1, n, n, n)
    for key in LOSSES:
        loss = build_loss(key, num_classes=4)
        found[f"loss {key}, {n}³ voxels, K = 4, forward and backward"] = lambda loss=loss: loss(
            values.clone().requires_grad_(), target, phi
        ).backward()

    knees = [
        TrainingVolume(torch.from_numpy(array(f"image{k}")), torch.from_numpy(array(f"labels{k}")), (3.4, 1.5, 1.5))
        for k in range(5)
    ]
    shape = tuple(knees[0].image.shape)
    for name, options in {
        "widths 16-32-64": VNetOptions((16, 32, 64)),
        "the default's": VNetOptions((8, 16, 32, 64), (1, 2, 2, 2), ((2, 2, 2),) * 3),
    }.items():
        network, volume = VNet(1, 4, options), torch.rand(1, 1, *shape)
        truth_of_step = torch.randint(0, 4, (1, *shape))
        network.to(memory_format=torch.channels_last_3d)
        volume = volume.to(memory_format=torch.channels_last_3d)
        for precision in ("auto", "32-true"):
            found[f"V-Net step, {name}, {'x'.join(map(str, shape))}, {precision}"] = (
                lambda network=network, volume=volume, truth=truth_of_step, precision=precision: F.cross_entropy(
                    compute_logits(network, volume, precision), truth
                ).backward()
            )
    training = TrainingOptions(steps=4 if quick else 25, validate_every=4 if quick else 25)

    def train() -> None:
        network = VNet(1, 4, VNetOptions((8, 16, 32, 64), (1, 2, 2, 2), ((2, 2, 2),) * 3))
        fit(
            network,
            build_loss("dpce", num_classes=4),
            knees,
            training,
            validate=lambda network: validation_dice(network, knees, training),
        )

    found[f"{training.steps} steps of a training with dpce, with rotations, φ and one validation of five"] = train
    large = VNet(1, 4, VNetOptions((16, 32, 64, 128), (1, 2, 3, 3), ((1, 2, 2), (2, 2, 2), (2, 2, 2))))
    window = (16, 32, 32) if quick else (96, 192, 192)
    part = torch.from_numpy(np.ascontiguousarray(image[tuple(slice(0, size) for size in window)]))[None, None]
    found[f"prediction of one window of profile oai, {'x'.join(map(str, part.shape[2:]))}"] = lambda: predict_labels(
        large, part, None, "auto"
    )
    return found


def serve(folder: Path, threads: int, quick: bool) -> None:
    """Answer each line that names a row with the seconds that it took."""
    import torch

    torch.set_num_threads(threads)
    try:  # as each state's trainings do
        from shapeloss.runs.device import be_deterministic
    except ImportError:
        torch.use_deterministic_algorithms(True)
    else:
        be_deterministic(torch.device("cpu"))
    rows = calls(folder, quick)
    print(json.dumps(list(rows)), flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        rows[json.loads(line)]()
        print(json.dumps(time.perf_counter() - begin), flush=True)


# ---------------------------------------------------------------- who asks


def make_inputs(folder: Path, quick: bool) -> None:
    """The arrays that both states read."""
    from shapeloss.phantom.contrast import PhantomOptions
    from shapeloss.phantom.knee import make_knee

    shape = (40, 96, 96) if quick else (160, 384, 384)
    spacing = (0.7 * 160 / shape[0], 0.365 * 384 / shape[1], 0.365 * 384 / shape[2])
    knee = make_knee(0, PhantomOptions(shape=shape, spacing=spacing))
    drawn = make_knee(0, PhantomOptions(shape=shape, spacing=spacing, reader_mm=0.6))
    arrays = {"labels": knee.labels, "drawn": drawn.labels, "image": knee.image, "spacing": np.array(spacing)}
    for number in range(5):
        small = make_knee(number, PhantomOptions(shape=(28, 72, 92), spacing=(3.4, 1.5, 1.5)))
        arrays |= {f"image{number}": small.image, f"labels{number}": small.labels}
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)


def check_out(commit: str, folder: Path) -> Path:
    """The files of a commit, in a folder of their own."""
    root = Path(__file__).parents[2]
    archive = subprocess.run(["git", "archive", commit], cwd=root, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


class State:
    """A process with the code of one state."""

    def __init__(self, code: Path, inputs: Path, threads: int, quick: bool, kept: dict[str, str]) -> None:
        # the file is copied, for beside it lie modules of the present state
        script = inputs / FILE.with_suffix(".py").name
        script.write_bytes(Path(__file__).read_bytes())
        command = [sys.executable, "-P", str(script), "--serve", str(inputs), "--threads", str(threads)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MALLOC"))}
        self.process = subprocess.Popen(
            [*command, *["--quick"] * quick],
            env=environment | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": str(threads)} | kept,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.rows: list[str] = self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process ended with status {self.process.wait()}; its error is above")
        return json.loads(line)

    def seconds(self, row: str) -> float:
        """How long a row took."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(row) + "\n")
        self.process.stdin.flush()
        return float(self._answer())

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


def compare(states: Sequence[State], threads: int, least: int) -> list[dict[str, Any]]:
    """A row for each thing that both states do: seconds, the median of the ratios, their quartiles."""
    first, second = states
    if first.rows != second.rows:
        raise RuntimeError("the states name other rows")
    entries = []
    for row in first.rows:
        pairs: list[tuple[float, float]] = []
        begin = time.monotonic()
        while len(pairs) < least + 1 or (len(pairs) < 12 and time.monotonic() - begin < 8):
            pairs.append((first.seconds(row), second.seconds(row)))
        pairs = pairs[1:]  # the first is to warm up
        ratios = sorted(after / before for before, after in pairs)
        entry = {
            "what": row,
            "threads": threads,
            "before_s": statistics.median(before for before, _ in pairs),
            "after_s": statistics.median(after for _, after in pairs),
            "ratio": statistics.median(ratios),
            "quartiles": [ratios[round(q * (len(ratios) - 1))] for q in (0.25, 0.75)],
            "runs": len(pairs),
        }
        print(f"{row} · {threads} thr.: {entry['ratio']:.2f}", flush=True)
        entries.append(entry)
    return entries


def page(found: dict[str, Any]) -> str:
    """The table, from what was measured."""
    about = found["machine"]
    lines = [
        "# Before the work on speed, and now",
        "",
        f"{about['processor']} ({', '.join(about['features']) or about['capability']}), {about['cores']} cores, torch "
        f"{about['torch']}, Python {about['python']}, {about['system']}; commit {found['before']} and "
        f"{about['commit']}; `auto` is {found['precisions'][0]} before and {found['precisions'][1]} now on this "
        "processor. Two processes, asked in turn; medians, and the quartiles of the ratio.",
        "",
        "| what | threads | before, s | now, s | now / before | quartiles |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in found["rows"]:
        low, high = row["quartiles"]
        lines.append(
            f"| {row['what']} | {row['threads']} | {row['before_s']:.4g} | {row['after_s']:.4g} | {row['ratio']:.2f} | "
            f"{low:.2f} to {high:.2f} |"
        )
    lines += [
        "",
        f"Made by `python reproduce/benchmarks/before_after.py` in {found['seconds'] / 60:.0f} minutes. The present "
        "state keeps freed memory, as the workflow does; the one before had no such setting. PyTorch and the other "
        "libraries are the same for both. The whole of `make reproduce` is in [what was tried](tried.md).",
        "",
    ]
    return "\n".join(lines)


def precision_of(code: Path) -> str:
    """What `auto` is in a state."""
    command = "from shapeloss.predict import resolve_precision; print(resolve_precision('auto', 'cpu'))"
    environment = os.environ | {"PYTHONPATH": str(code)}
    return subprocess.run(
        [sys.executable, "-P", "-c", command], env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time the core before the work on its speed, and now.")
    parser.add_argument("--before", default=BEFORE, help="the commit to compare with")
    parser.add_argument("--quick", action="store_true", help="small sizes, one run each; nothing is written")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.threads, arguments.quick)
        return
    sys.path.insert(0, str(Path(__file__).parents[1]))
    sys.path.insert(0, str(Path(__file__).parent))
    from child import MEMORY_KEPT
    from speed import machine

    from shapeloss._files import write_json, write_text

    begin, rows = time.monotonic(), []
    with TemporaryDirectory() as temporary:
        inputs, before = Path(temporary) / "inputs", Path(temporary) / "before"
        inputs.mkdir()
        make_inputs(inputs, arguments.quick)
        now = Path(__file__).parents[2]
        check_out(arguments.before, before)
        for threads in (1, 2):
            states: list[State] = []
            try:
                states += [State(before, inputs, threads, arguments.quick, {})]
                states += [State(now, inputs, threads, arguments.quick, MEMORY_KEPT)]
                rows += compare(states, threads, 1 if arguments.quick else 3)
            finally:
                for state in states:
                    state.end()
        precisions = [precision_of(code) for code in (before, now)]
    found = {
        "machine": machine(),
        "before": arguments.before,
        "precisions": precisions,
        "rows": rows,
        "seconds": time.monotonic() - begin,
    }
    print(page(found))
    if not arguments.quick:
        write_json(FILE, found)
        write_text(FILE.with_suffix(".md"), page(found))


if __name__ == "__main__":
    main()
