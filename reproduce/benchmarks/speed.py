"""Times of the core, each beside what one would otherwise use: `make bench`, on an idle machine.

Ours and the others run in turn in one process, so that what disturbs one disturbs all; a row shows the median of the
ratios and its quartiles. The results lie in `speed.json`, the tables and the plots are made from it.

    python reproduce/benchmarks/speed.py            # all, about 14 minutes: speed.json, speed.md, speed.png
    python reproduce/benchmarks/speed.py --page     # speed.md and speed.png of speed.json, nothing is measured
    python reproduce/benchmarks/speed.py --check    # are the ratios those of speed.json, within TOLERANCE?
    python reproduce/benchmarks/speed.py --quick    # small sizes, one run each, nothing is written
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import edt
import matplotlib.pyplot as plt
import medpy.metric.binary as medpy
import monai.losses
import numpy as np
import pandas as pd
import surface_distance
import torch
from monai.metrics import DiceMetric
from monai.networks.nets import UNet as MonaiUNet
from monai.networks.nets import VNet as MonaiVNet
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from shapeloss import train, vnet
from shapeloss._files import write_json, write_text
from shapeloss.distance import distance_penalty
from shapeloss.losses import LOSSES, build_loss
from shapeloss.losses.base import MapLoss
from shapeloss.metrics import METRICS, score_case
from shapeloss.phantom.contrast import PhantomOptions
from shapeloss.phantom.knee import make_knee
from shapeloss.plotting.style import save_figure
from shapeloss.predict import compute_logits, predict_labels, resolve_precision
from shapeloss.replication.profile import load_experiment
from shapeloss.runs.provenance import provenance
from shapeloss.stats.compare_losses import compare_losses
from shapeloss.stats.paired_tests import EXACT_LIMIT
from shapeloss.train import TrainingVolume, validation_dice
from shapeloss.vnet import MemoryFormat, VNet, VNetOptions, lay_out, resolve_memory_format

sys.path.insert(0, str(Path(__file__).parents[1]))

from child import MEMORY_KEPT

FILE = Path(__file__).with_suffix(".json")
TOLERANCE = 1.35
"""By what factor a ratio may be worse than the committed one, on the machine that it was measured on or another."""
THREADS = (1, 2)
SECONDS = 2.2
"""How long one call of a row is repeated for, two times at least."""
BONES = {1: "femur", 2: "tibia", 3: "patella"}
Call = Callable[[], Any]


@dataclass
class Row:
    """One thing that is done, by us and by others."""

    what: str
    ours: Call
    peers: dict[str, Call]
    aim: float | None = None
    """Largest ratio ours / peer that is aimed at, for the first of the peers."""
    aim_s: float | None = None
    """Most seconds that are aimed at."""
    peer_work: dict[str, float] = field(default_factory=dict)
    """Where a peer does other work than ours, by its amount: its time is divided by this factor."""
    why: str = ""
    """Why a missed aim is missed, and what comes next."""


def measure(row: Row, threads: int, runs: int) -> list[dict[str, Any]]:
    """One entry for each peer: seconds of both, the median and the quartiles of ours / peer."""
    torch.set_num_threads(threads)
    calls = {"ours": row.ours, **row.peers}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    start = time.perf_counter()
    while len(seconds["ours"]) < runs + 1 or (
        runs > 1 and len(seconds["ours"]) < 30 and time.perf_counter() - start < SECONDS * len(calls)
    ):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            seconds[name].append((time.perf_counter() - begin) / row.peer_work.get(name, 1.0))
    entries = []
    skip = 1 if runs > 1 else 0  # the first is to warm up
    for number, name in enumerate(row.peers):
        ratios = sorted(a / b for a, b in zip(seconds["ours"][skip:], seconds[name][skip:], strict=True))
        low, high = (ratios[round(q * (len(ratios) - 1))] for q in (0.25, 0.75))
        entries.append(
            {
                "what": row.what,
                "threads": threads,
                "ours_s": statistics.median(seconds["ours"][skip:]),
                "peer": name,
                "peer_s": statistics.median(seconds[name][skip:]),
                "ratio": statistics.median(ratios),
                "quartiles": [low, high],
                "runs": len(ratios),
                "aim": row.aim if number == 0 else None,
                "aim_s": row.aim_s if number == 0 else None,
                "why": row.why if number == 0 else "",
            }
        )
    return entries


# ---------------------------------------------------------------- what the peers do


def scipy_distance(labels: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """The usual way: for each class, one transform inside and one outside."""
    total = np.full(labels.shape, np.inf)
    for label in np.unique(labels[labels > 0]):
        mask = labels == label
        inside = ndimage.distance_transform_edt(mask, spacing)
        total = np.minimum(total, inside + ndimage.distance_transform_edt(~mask, spacing))
    return total


def three_of_surface_distance(truth: np.ndarray, predicted: np.ndarray, spacing: tuple[float, ...]) -> None:
    """Average distance, HD95 and surface Dice of each bone and of all as one."""
    for mask, other in [(truth == k, predicted == k) for k in BONES] + [(truth > 0, predicted > 0)]:
        found = surface_distance.compute_surface_distances(mask, other, spacing)
        surface_distance.compute_average_surface_distance(found)
        surface_distance.compute_robust_hausdorff(found, 95)
        surface_distance.compute_surface_dice_at_tolerance(found, 1.0)


def step_of(network: nn.Module, image: Tensor, target: Tensor, precision: str) -> Call:
    """One training step, without the optimiser."""

    def step() -> None:
        F.cross_entropy(compute_logits(network, image, precision), target).backward()

    return step


def laid_out(network: nn.Module, name: MemoryFormat) -> nn.Module:
    """The network with its features in a memory format."""
    own = copy.deepcopy(network)
    lay_out(own, name)
    return own


def multiplications(step: Call) -> float:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 2


class PlainLayers(nn.Module):
    """Our network by PyTorch's convolutions and PReLU, its axes as they lie: what a plain implementation does."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        order, kinds = vnet._smallest_axis_last, ("PReLU", "Conv3d", "ConvTranspose3d")
        ours = {name: getattr(vnet, name).forward for name in kinds}
        try:
            vnet._smallest_axis_last = lambda x: x
            for name in kinds:
                getattr(vnet, name).forward = getattr(nn, name).forward
            return self.network(image)
        finally:
            vnet._smallest_axis_last = order
            for name, forward in ours.items():
                getattr(vnet, name).forward = forward


def products(work: float) -> dict[str, Call]:
    """As many multiplications in products of large matrices, which nothing does faster, in either precision."""
    size = 1024
    times = max(1, round(work / size**3))

    def repeat(a: Tensor, b: Tensor) -> Call:
        return lambda: [a @ b for _ in range(times)]

    return {
        f"its multiplications as products of matrices, {name}": repeat(
            *(torch.randn(size, size).to(kind) for _ in range(2))
        )
        for name, kind in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
    }


def pass_over(*tensors: Tensor) -> Call:
    """Read and write each number once: what memory alone costs."""
    return lambda: [tensor.detach().clone() for tensor in tensors]


# ---------------------------------------------------------------- the rows


class Cases:
    """What is measured, at full size or small."""

    def __init__(self, quick: bool) -> None:
        self.shape = (40, 96, 96) if quick else (160, 384, 384)
        step = 160 / self.shape[0]
        self.spacing = (0.7 * step, 0.365 * step, 0.365 * step)
        self.edge = 32 if quick else 96
        knee = make_knee(0, PhantomOptions(shape=self.shape, spacing=self.spacing))
        drawn = make_knee(0, PhantomOptions(shape=self.shape, spacing=self.spacing, reader_mm=0.6))
        self.image, self.labels, self.predicted = knee.image, knee.labels, drawn.labels

    def rows(self) -> Iterator[Row]:
        yield from self.maps()
        yield from self.scores()
        yield from self.losses()
        yield from self.steps()

    def maps(self) -> Iterator[Row]:
        """φ."""
        shifted = self.labels + np.uint8(1)
        yield Row(
            f"φ, {size(self.shape)}, three bones",
            lambda: distance_penalty(self.labels, self.spacing),
            {
                "one bare edt": lambda: edt.edt(
                    shifted, anisotropy=self.spacing, black_border=False, parallel=torch.get_num_threads()
                ),
                "one pass over its labels and its φ": pass_over(
                    torch.from_numpy(self.labels), torch.zeros(self.labels.shape)
                ),
            },
            aim=1.3,
            why="NumPy's passes over labels and distances take 0.1 s, on one thread; the row varies with what else the "
            "machine does (quartiles). Next: the passes in slabs, on all threads.",
        )
        yield Row(
            f"φ, {size(self.shape)}, beside SciPy",
            lambda: distance_penalty(self.labels, self.spacing),
            {"SciPy per class, both sides (one thread)": lambda: scipy_distance(self.labels, self.spacing)},
            aim=1 / 50,
            why="SciPy's transform takes one thread, ours as many as there are; the transform itself is 0.8 of our "
            "time. Next: a transform of tight boxes, one for each bone.",
        )

    def scores(self) -> Iterator[Row]:
        """Metrics."""
        truth, predicted = self.labels, self.predicted
        hot = [F.one_hot(torch.from_numpy(x.astype(np.int64)), 4).movedim(-1, 0)[None] for x in (predicted, truth)]
        on_the_grid = [name for name in METRICS if "mesh" not in name]
        usual = {"surface-distance, three metrics": lambda: three_of_surface_distance(truth, predicted, self.spacing)}
        for metrics, why in (
            (on_the_grid, ""),
            (
                list(METRICS),
                "Those of the mesh need exact distances to triangles, which surface-distance does not compute. Next: "
                "nothing; who does not ask for them does not wait for them.",
            ),
        ):
            yield Row(
                f"{len(metrics)} metrics{' of the grid' * (metrics == on_the_grid)}, three bones and merged",
                lambda metrics=metrics: score_case(truth, predicted, self.spacing, BONES, metrics=metrics),
                usual,
                aim=1.0,
                why=why,
            )
        yield Row(
            "the table's metrics, three bones and merged",
            lambda: score_case(truth, predicted, self.spacing, BONES),
            {
                "MONAI, Dice alone": lambda: DiceMetric()(*hot),
                "medpy, HD95 of the patella alone": lambda: medpy.hd95(predicted == 3, truth == 3, self.spacing),
            },
            aim_s=1.0,
        )

    def losses(self) -> Iterator[Row]:
        """Forward and backward, from logits that require a gradient."""
        torch.manual_seed(0)
        n = self.edge
        values, target = torch.randn(1, 4, n, n, n), torch.randint(0, 4, (1, n, n, n))
        phi, column = torch.rand(1, n, n, n), target[:, None]

        def run(loss: Callable[[Tensor], Tensor]) -> Call:
            return lambda: loss(values.clone().requires_grad_()).backward()

        options: dict[str, Any] = {"to_onehot_y": True, "softmax": True}
        theirs = {
            "focal": monai.losses.FocalLoss(to_onehot_y=True, use_softmax=True),
            "dice": monai.losses.DiceLoss(include_background=False, squared_pred=True, **options),
            "gdice": monai.losses.GeneralizedDiceLoss(**options),
            "dice_ce": monai.losses.DiceCELoss(include_background=False, squared_pred=True, **options),
            "tversky": monai.losses.TverskyLoss(include_background=False, alpha=0.3, beta=0.7, **options),
        }
        reasons = {
            "dpce": "On one thread it lies at its aim; on two it is faster than the peer. Next: nothing.",
            "gdice": "Counting the voxels of each class takes 8 % of it. Next: the sizes from a training's maps.",
        }
        plain = run(lambda z: F.cross_entropy(z, target))
        any_map = ("dpce", "dice_dpce", "unet")  # the maps of the others are of true labels alone
        drawn = make_knee(0, PhantomOptions(shape=(n, n, n), spacing=(1.2, 1.5, 1.5))).labels
        for key in (key for key in LOSSES if key != "hausdorff"):
            loss: Any = build_loss(key, num_classes=4, spacing=(1.2, 1.5, 1.5))
            truth, label_map = target, phi
            if isinstance(loss, MapLoss) and key not in any_map:
                truth = torch.from_numpy(drawn.astype(np.int64))[None]
                label_map = torch.from_numpy(np.asarray(loss.compute_map(drawn, (1.2, 1.5, 1.5)), np.float32))[None]
            peers = {"PyTorch's cross-entropy": plain}
            if key in theirs:
                peers = {f"MONAI's {type(theirs[key]).__name__}": run(lambda z, m=theirs[key]: m(z, column)), **peers}
            if key == "dpce":
                peers["one pass over its logits, twice, target and φ"] = pass_over(values, values, target, phi)
            yield Row(
                f"loss {key}, {n}³ voxels, K = 4",
                run(lambda z, loss=loss, truth=truth, label_map=label_map: loss(z, truth, label_map)),
                peers,
                aim=1.15 if key in ("ce", "dpce") else 1.0 if key in theirs else None,
                why=reasons.get(key, ""),
            )
        edges = (32, 48, 48)
        spacing = (3.0, 1.0, 1.0)
        labels = make_knee(0, PhantomOptions(shape=edges, spacing=(3.4, 3.0, 3.0))).labels
        small = torch.from_numpy(labels.astype(np.int64))[None]
        hot = F.one_hot(small, 4).movedim(-1, 1).float()
        logits = torch.randn(1, 4, *edges)
        ours: Any = build_loss("hausdorff", num_classes=4, spacing=spacing)
        signed = torch.from_numpy(ours.compute_map(labels, spacing))[None]
        monais = monai.losses.HausdorffDTLoss(softmax=True)
        yield Row(
            f"loss hausdorff, {size(edges)}",
            lambda: ours(logits.clone().requires_grad_(), small, signed).backward(),
            {"MONAI's HausdorffDTLoss": lambda: monais(logits.clone().requires_grad_(), hot).backward()},
            aim=1.0,
        )

    def steps(self) -> Iterator[Row]:
        """Training steps of the default network."""
        torch.manual_seed(0)
        experiment = load_experiment("phantom")
        assert experiment.data.phantom
        shape = experiment.data.phantom.options.shape
        image = torch.rand(1, 1, *shape).to(memory_format=torch.channels_last_3d)
        target = torch.randint(0, 4, (1, *shape))
        network = VNet(1, 4, experiment.network.options).to(memory_format=torch.channels_last_3d)
        auto = resolve_precision("auto", "cpu")
        other = "32-true" if auto == "bf16-mixed" else "bf16-mixed"
        work = multiplications(step_of(network, image, target, "32-true"))
        yield Row(
            f"V-Net step of profile phantom, {size(shape)}, {auto}",
            step_of(network, image, target, auto),
            {
                "the same by PyTorch's layers, as they lie": step_of(PlainLayers(network), image, target, auto),
                **products(work),
                f"the same network in {other}": step_of(network, image, target, other),
                f"by PyTorch's layers, as they lie, in {other}": step_of(PlainLayers(network), image, target, other),
            },
            aim=1.0,
        )
        for precision in ("32-true", auto) if auto != "32-true" else (auto,):
            chosen = resolve_memory_format("auto", image.device, precision == "bf16-mixed")
            yield Row(
                f"the same step in {precision}, as {chosen}",
                step_of(laid_out(network, chosen), image, target, precision),
                {
                    f"as {name}": step_of(laid_out(network, name), image, target, precision)
                    for name in get_args(MemoryFormat)
                    if name not in ("auto", chosen)
                },
                aim=1.1,
                why="Formats that take the same time differ by what else the machine does. Next: nothing.",
            )
        larger = VNet(1, 4, VNetOptions((16, 32, 64))).to(memory_format=torch.channels_last_3d)
        yield Row(
            f"V-Net step, widths 16-32-64, {size(shape)}, {auto}",
            step_of(larger, image, target, auto),
            {"the same by PyTorch's layers, as they lie": step_of(PlainLayers(larger), image, target, auto)},
            aim=1.0,
            aim_s=0.7,
        )
        # sizes that the others take: multiples of 16
        shape = (32, 80, 96)
        image, target = torch.rand(1, 1, *shape), torch.randint(0, 4, (1, *shape))
        ours = step_of(network, image.to(memory_format=torch.channels_last_3d), target, auto)
        amount = multiplications(ours)
        theirs = {
            "MONAI's VNet": MonaiVNet(in_channels=1, out_channels=4),
            "MONAI's UNet": MonaiUNet(3, 1, 4, (16, 32, 64, 128), (2, 2, 2), num_res_units=2),
        }
        # in the layout in which their users have them
        peers = {name: step_of(module, image, target, auto) for name, module in theirs.items()}
        peer_work = {name: multiplications(step) / amount for name, step in peers.items()}
        yield Row(
            f"V-Net step, {size(shape)}, {auto}, at equal arithmetic",
            ours,
            peers,
            aim=1.0,
            peer_work=peer_work,
            why="MONAI's VNet has kernels of 5³ and up to 256 channels: it multiplies each number that it reads "
            "far more often. Next: nothing; a network is not chosen by its rate.",
        )


def whole_volume(cases: Cases) -> dict[str, Any]:
    """Seconds of one prediction with the network, the windows and the volume of profile oai, on two threads."""
    experiment = load_experiment("oai")
    torch.set_num_threads(2)
    network = VNet(1, 4, experiment.network.options).to(memory_format=torch.channels_last_3d)
    patch = experiment.training.patch_size if cases.shape == (160, 384, 384) else (24, 48, 48)
    start = time.perf_counter()
    predict_labels(network, torch.from_numpy(cases.image)[None, None], patch, "auto")
    seconds = time.perf_counter() - start
    return {
        "what": f"prediction of {size(cases.shape)}, network and windows of profile oai",
        "s": seconds,
        "aim_s": 150,
    }


def share_of_data(steps: int) -> dict[str, Any]:
    """What part of a training of profile phantom goes into validation and into augmentation, on one thread."""
    experiment = load_experiment("phantom")
    assert experiment.data.phantom
    options, shape = experiment.training, experiment.data.phantom.options.shape
    torch.set_num_threads(1)
    knees = [make_knee(n, PhantomOptions(shape=shape, spacing=(3.4, 1.5, 1.5))) for n in range(5)]
    volumes = [TrainingVolume(torch.from_numpy(k.image), torch.from_numpy(k.labels), (3.4, 1.5, 1.5)) for k in knees]
    network = VNet(1, 4, experiment.network.options)
    spent = {"augment": 0.0, "validate": 0.0}

    def timed(name: str, call: Call) -> Call:
        def timed_call(*arguments: Any, **others: Any) -> Any:
            begin = time.perf_counter()
            value = call(*arguments, **others)
            spent[name] += time.perf_counter() - begin
            return value

        return timed_call

    augment, train.augment = train.augment, timed("augment", train.augment)
    begin = time.perf_counter()
    try:
        train.fit(
            network,
            build_loss("dpce", num_classes=4),
            volumes,
            replace(options, steps=steps, validate_every=min(steps, options.validate_every)),
            validate=timed("validate", lambda network: validation_dice(network, volumes, options)),
        )
    finally:
        train.augment = augment
    share = sum(spent.values()) / (time.perf_counter() - begin)
    what = f"validation and augmentation, share of {steps} steps of profile phantom with its five validation cases"
    return {"what": what, "share": share, "aim": 0.05}


def sizes(quick: bool) -> list[dict[str, Any]]:
    """Seconds against the size of the input, on one thread."""
    torch.set_num_threads(1)
    network = VNet(1, 4, load_experiment("phantom").network.options).to(memory_format=torch.channels_last_3d)
    rows = []

    def add(part: str, x: int, call: Call) -> None:
        times = []
        for _ in range(2 if quick else 4):
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
        rows.append({"part": part, "x": x, "s": min(times)})

    for n in (16, 32) if quick else (32, 48, 64, 96, 128, 160):
        labels = make_knee(0, PhantomOptions(shape=(n, n, n), spacing=(112 / n, 140 / n, 140 / n))).labels
        add("φ against voxels", n**3, lambda labels=labels: distance_penalty(labels, (1.0, 1.0, 1.0)))
        moved = np.roll(labels, 1, axis=1)
        add(
            "the table's metrics against voxels",
            n**3,
            lambda a=labels, b=moved: score_case(a, b, (1.0, 1.0, 1.0), BONES),
        )
        if n <= 96:
            image = torch.rand(1, 1, n, n, n).to(memory_format=torch.channels_last_3d)
            step = step_of(network, image, torch.from_numpy(labels.astype(np.int64))[None], "auto")
            add("a step of the default's network against voxels", n**3, step)
        values, target = torch.randn(1, 4, n, n, n), torch.randint(0, 4, (1, n, n, n))
        phi, loss = torch.rand(1, n, n, n), build_loss("dpce", num_classes=4)
        add(
            "dpce against voxels, K = 4",
            n**3,
            lambda v=values, t=target, p=phi, m=loss: m(v.clone().requires_grad_(), t, p).backward(),
        )
    for k in (2, 4) if quick else (2, 4, 8, 16, 32):
        n = 16 if quick else 48
        values, target, phi = torch.randn(1, k, n, n, n), torch.randint(0, k, (1, n, n, n)), torch.rand(1, n, n, n)
        for key in ("dpce", "dice"):
            loss = build_loss(key, num_classes=k)
            add(
                f"{key} against classes, {n}³ voxels",
                k,
                lambda v=values, t=target, p=phi, m=loss: m(v.clone().requires_grad_(), t, p).backward(),
            )
    for cases, seeds in COMPARED[:2] if quick else COMPARED:
        random = np.random.default_rng(0)
        table = pd.DataFrame(
            [
                {"loss": loss, "seed": seed, "case": f"c{case}", "structure": "mean", "dice": random.uniform(0.8, 1)}
                for loss in ("dpce", "ce")
                for seed in range(seeds)
                for case in range(cases)
            ]
        )
        call = partial(compare_losses, table, "dpce", ["dice"])
        if seeds == 1:
            add("one comparison against cases", cases, call)
        if cases == COMPARED[0][0]:
            add(f"one comparison of {cases} cases against seeds", seeds, call)
    return rows


COMPARED = ((10, 1), (10, 3), (10, 10), (10, 30), (30, 1), (100, 1), (300, 1), (1000, 1), (3000, 1))
"""Cases and seeds of the comparisons that are timed."""
MEMORY = {
    "phi": "φ, 160x384x384, three bones",
    "metrics": "all metrics, 160x384x384, three bones and merged",
    "dpce": "loss dpce, 96³ voxels, K = 4, forward and backward",
    "step": "V-Net step of profile phantom",
}


def memory_of(name: str) -> float:
    """Most memory in MiB that one call takes beyond what its process had before: in a process of its own, on Linux."""
    torch.set_num_threads(1)
    cases = Cases(quick=name in ("dpce", "step"))
    if name == "dpce":
        cases.edge = 96
    group = {"phi": cases.maps, "metrics": cases.scores, "dpce": cases.losses, "step": cases.steps}[name]
    row = next(row for row in group() if name != "dpce" or row.what.startswith("loss dpce"))
    row.ours()  # what is kept from call to call does not count
    ctypes.CDLL(None).malloc_trim(0)  # nor what was freed, and would be taken again
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _peak_mib()
    row.ours()
    return _peak_mib() - before


def _peak_mib() -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    about = getattr(torch.cpu, "get_capabilities", dict)()
    return {
        "processor": about.get("cpu_name") or platform.processor() or platform.machine(),
        "features": [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if about.get(name)],
        "cores": about.get("num_physical_cores"),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "precision": resolve_precision("auto", "cpu"),
        "torch": torch.__version__,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "commit": provenance()["commit"],
    }


def size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


# ---------------------------------------------------------------- what comes out


def collect(quick: bool) -> dict[str, Any]:
    """Measure everything."""
    begin, cases, runs = time.monotonic(), Cases(quick), 1 if quick else 3
    rows: list[dict[str, Any]] = []
    for row in cases.rows():
        for threads in THREADS:
            if "SciPy" in row.what and threads == 1 and not quick:
                continue  # SciPy takes 20 s, and has one thread anyway: measured once
            for entry in measure(row, threads, min(runs, 2) if "SciPy" in row.what else runs):
                rows.append(entry)
                print(f"{entry['what']} · {threads} thr. · {entry['peer']}: {entry['ratio']:.3f}", flush=True)
    singles = [whole_volume(cases), share_of_data(4 if quick else 150)]
    peaks = {}
    for name, what in MEMORY.items() if sys.platform == "linux" and not quick else ():
        done = subprocess.run([sys.executable, __file__, "--memory", name], capture_output=True, text=True, check=True)
        peaks[what] = float(done.stdout.split()[-1])
    found = {"machine": machine(), "rows": rows, "singles": singles, "memory_mib": peaks, "sizes": sizes(quick)}
    return found | {"seconds": time.monotonic() - begin}


def markdown(found: dict[str, Any]) -> str:
    """The page, from what was measured."""
    about = found["machine"]
    took = f" in {found['seconds'] / 60:.0f} minutes"
    lines = [
        "# Time against the alternatives",
        "",
        f"{about['processor']} ({', '.join(about['features']) or about['capability']}), {about['cores']} cores, torch "
        f"{about['torch']}, Python {about['python']}, {about['system']}, commit {about['commit']}; `auto` is "
        f"{about['precision']} there. Medians; the ratio ours / other is that of runs in turn, with its quartiles.",
        "",
        "| what | threads | ours, s | other | other, s | ours / other | quartiles | aim |",
        "| --- | ---: | ---: | --- | ---: | ---: | --- | --- |",
    ]
    for row in found["rows"]:
        low, high = row["quartiles"]
        aims = [(row["aim"], row["ratio"], ""), (row["aim_s"], row["ours_s"], " s")]
        aim = "; ".join(f"≤ {most:.3g}{unit}, {said(value <= most)}" for most, value, unit in aims if most is not None)
        cells = [
            row["what"],
            row["threads"],
            f"{row['ours_s']:.4g}",
            row["peer"],
            f"{row['peer_s']:.4g}",
            f"{row['ratio']:.3f}",
            f"{low:.3f} to {high:.3f}",
            aim,
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    volume, share = found["singles"]
    lines += [
        "",
        f"- {volume['what']}: {volume['s']:.0f} s on two threads, measured once (aim: {volume['aim_s']} s, "
        f"{said(volume['s'] <= volume['aim_s'])}).",
        f"- {share['what']}: {share['share']:.1%} (aim: {share['aim']:.0%}, {said(share['share'] <= share['aim'])}).",
        "",
        "Most memory that one call takes beyond its input, on one thread:",
        "",
        *(f"- {what}: {mib:.0f} MiB" for what, mib in found["memory_mib"].items()),
    ]
    if missed := missed_aims(found):
        lines += ["", "What misses its aim, why, and what comes next:", "", *missed]
    lines += [
        "",
        "Where a peer does other work than ours (at equal arithmetic), its time is divided by the ratio of both "
        f"networks' multiplications. The least that a step can take is the faster of the two products of matrices: "
        f"{of_the_floor(found['rows'])}.",
        "",
        "![Seconds against size](speed.png)",
        "",
        f"With more than {EXACT_LIMIT} cases a comparison takes less time: the exact distribution of Wilcoxon's "
        "statistic gives way to the normal one.",
        "",
        "**A distance transform on the GPU** would spare the maps that a training computes once for each volume. CuPy "
        "(`cupyx.scipy.ndimage.distance_transform_edt`) and RAPIDS' cuCIM have one, both kept, both for one mask at a "
        "time: three bones and the background take four calls. As maps are computed once and cached, it could "
        "gain what φ takes above, once for each volume; it is no dependency. It was not measured: there was no GPU.",
        "",
        f"Made by `make bench`{took}; `make bench-check` compares the ratios with `speed.json` and says which are "
        f"worse by a factor of more than {TOLERANCE}, and which it could not compare.",
        "",
    ]
    return "\n".join(lines)


def said(met: bool) -> str:
    return "met" if met else "missed"


def of_the_floor(rows: list[dict[str, Any]]) -> str:
    """Which part of the matrix rate a step of profile phantom reaches."""
    best: dict[int, float] = {}
    for row in rows:
        if row["what"].startswith("V-Net step of profile phantom") and "products of matrices" in row["peer"]:
            best[row["threads"]] = min(best.get(row["threads"], 1.0), row["peer_s"] / row["ours_s"])
    reached = [f"{part:.0%} on {threads} thread{'s' * (threads > 1)}" for threads, part in best.items()]
    return f"one of profile phantom reaches {' and '.join(reached)} of it"


def missed_aims(found: dict[str, Any]) -> list[str]:
    """A line for each missed aim."""
    lines = [
        f"- {row['what']}, {row['threads']} thread(s): {row['ratio']:.3f} of {row['peer']}, aimed at {row['aim']:.3g}. "
        f"{row['why']}"
        for row in found["rows"]
        if row["aim"] is not None and row["ratio"] > row["aim"]
    ]
    lines += [
        f"- {row['what']}, {row['threads']} thread(s): {row['ours_s']:.2f} s, aimed at {row['aim_s']:.3g} s. "
        f"{row['why']}"
        for row in found["rows"]
        if row["aim_s"] is not None and row["ours_s"] > row["aim_s"]
    ]
    volume, share = found["singles"]
    if share["share"] > share["aim"]:
        lines.append(f"- {share['what']}: {share['share']:.1%}. Next: validation of fewer cases, or less often.")
    if volume["s"] > volume["aim_s"]:
        lines.append(
            f"- {volume['what']}: {volume['s']:.0f} s. Windows that overlap by half compute each voxel four to eight "
            "times; the paper leaves the overlap open. Next: slabs with a halo that the network sees, in one pass."
        )
    return lines


def plot(found: dict[str, Any]) -> None:
    """Seconds against size, one panel for each kind of size."""
    table = pd.DataFrame(found["sizes"])
    kinds = {"voxels": "voxels", "classes": "classes", "cases": "cases", "seeds": "seeds"}
    figure, axes = plt.subplots(1, len(kinds), figsize=(13, 3.8), layout="constrained")
    for axis, (kind, label) in zip(axes, kinds.items(), strict=True):
        for part, rows in table[table.part.str.contains(f"against {kind}")].groupby("part", sort=False):
            axis.plot(rows.x, rows.s, "o-", label=part.replace(f" against {kind}", ""))
        axis.set(xscale="log", yscale="log", xlabel=label, ylabel="seconds, one thread")
        if kind != "voxels":
            shown = sorted(set(table[table.part.str.contains(f"against {kind}")].x))
            axis.set_xticks(shown, map(str, shown))
            axis.xaxis.minorticks_off()
        low, high = axis.get_ylim()
        if high < 10 * low:  # what is flat looks flat
            axis.set_ylim(np.sqrt(low * high / 20), np.sqrt(low * high * 20))
        axis.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    for path in save_figure(figure, FILE.with_suffix("")):
        if path.suffix == ".pdf":
            path.unlink()


def check(found: dict[str, Any], committed: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The ratios that are worse than the committed ones by more than TOLERANCE, and what could not be compared."""

    def ratios(of: dict[str, Any]) -> dict[str, float]:
        rows = {f"{r['what']}, {r['threads']} thread(s), {r['peer']}": float(r["ratio"]) for r in of["rows"]}
        return rows | {f"MiB of {what}": float(mib) for what, mib in of["memory_mib"].items()}

    now, before = ratios(found), ratios(committed)
    worse = [
        f"{name}: {now[name]:.3f}, was {before[name]:.3f}"
        for name in now
        if name in before and now[name] > TOLERANCE * before[name]
    ]
    return worse, [f"{name}: now alone" for name in now if name not in before] + [
        f"{name}: committed alone" for name in before if name not in now
    ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time the core against its alternatives.")
    parser.add_argument("--quick", action="store_true", help="small sizes, one run each; nothing is written")
    parser.add_argument("--check", action="store_true", help="compare the ratios with the committed ones")
    parser.add_argument("--page", action="store_true", help="page and plot of what was measured before")
    parser.add_argument("--memory", choices=MEMORY, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        print(memory_of(arguments.memory))
        return
    if MEMORY_KEPT.items() - os.environ.items():  # as in the workflow; read when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | MEMORY_KEPT)
    found = json.loads(FILE.read_text(encoding="utf-8")) if arguments.page else collect(arguments.quick)
    print(markdown(found))
    if arguments.check:
        committed = json.loads(FILE.read_text(encoding="utf-8"))
        worse, alone = check(found, committed)
        print(f"\nworse by a factor of more than {TOLERANCE:g}:")
        print("\n".join(worse) or "none")
        print("\nnot compared:")
        print("\n".join(alone) or "none")
        kinds = [of["machine"]["precision"] for of in (found, committed)]
        if kinds[0] != kinds[1]:
            print(f"\n`auto` is {kinds[0]} here, and was {kinds[1]}: steps cannot be compared; run on such a processor")
        sys.exit(bool(worse or (alone and kinds[0] == kinds[1])))
    if arguments.page or not arguments.quick:
        write_json(FILE, found)
        write_text(FILE.with_suffix(".md"), markdown(found))
        plot(found)


if __name__ == "__main__":
    main()
