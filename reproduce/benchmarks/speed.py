"""Times, each beside what one would otherwise use, in turn in one process: `make bench`, on an idle machine."""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from monai.losses import HausdorffDTLoss
from monai.metrics import DiceMetric
from scipy import ndimage
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from shapeloss._files import write_text
from shapeloss.distance import distance_penalty
from shapeloss.losses import LOSSES, build_loss
from shapeloss.metrics import score_case
from shapeloss.phantom.contrast import PhantomOptions
from shapeloss.phantom.knee import make_knee
from shapeloss.predict import resolve_precision
from shapeloss.runs.provenance import provenance
from shapeloss.vnet import VNet, VNetOptions

SPACING = (0.7, 0.365, 0.365)


def scipy_distance(labels: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """The usual way: for each class, one transform inside and one outside."""
    total = np.zeros(labels.shape)
    for label in np.unique(labels[labels > 0]):
        mask = labels == label
        inside = ndimage.distance_transform_edt(mask, spacing)
        outside = ndimage.distance_transform_edt(~mask, spacing)
        total = inside + outside if label == 1 else np.minimum(total, inside + outside)
    return total


def pair(name: str, ours: Callable[[], Any], other: Callable[[], Any], other_name: str, runs: int) -> dict[str, Any]:
    """Median seconds of both, measured in turn, and the median of the ratios."""
    seconds: list[tuple[float, float]] = []
    for _ in range(runs + 1):
        times = []
        for call in (ours, other):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        seconds.append((times[0], times[1]))
    table = np.array(seconds[1:])  # the first is to warm up
    ratio = np.median(table[:, 1] / table[:, 0])
    first, second = np.median(table, axis=0)
    return {"what": name, "ours_s": first, "other": other_name, "other_s": second, "other / ours": ratio}


def step_of(network: torch.nn.Module, image: torch.Tensor, target: torch.Tensor, amp: bool) -> Callable[[], None]:
    """One training step, without the optimiser."""

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            logits = network(image)
        F.cross_entropy(logits.float(), target).backward()

    return step


def pass_over(*tensors: torch.Tensor) -> Callable[[], None]:
    """Read and write each number once: what memory alone costs."""

    def once() -> None:
        for tensor in tensors:
            tensor.detach().clone()

    return once


def products_of(step: Callable[[], None], dtype: torch.dtype) -> tuple[Callable[[], None], str]:
    """As many multiplications as a step has, in products of large matrices, which nothing does faster."""
    with FlopCounterMode(display=False) as counter:
        step()
    size = 1024
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    times = max(1, round(counter.get_total_flops() / (2 * size**3)))

    def products() -> None:
        for _ in range(times):
            a @ b

    return products, f"its {counter.get_total_flops() / 2e9:.1f} · 10⁹ multiplications as products of matrices"


def main() -> None:
    """Print the table, and write it where it is the full one."""
    parser = argparse.ArgumentParser(description="Time the core against its alternatives.")
    parser.add_argument("--quick", action="store_true", help="a small volume, one run")
    quick = parser.parse_args().quick
    runs = 1 if quick else 3
    shape = (40, 96, 96) if quick else (160, 384, 384)
    spacing = tuple(float(160 * h / shape[0]) for h in SPACING) if quick else SPACING
    torch.set_num_threads(1)
    labels = make_knee(0, PhantomOptions(shape=shape, spacing=spacing)).labels
    rows = [
        pair(
            f"φ, {'x'.join(map(str, shape))}, three bones",
            lambda: distance_penalty(labels, spacing),
            lambda: scipy_distance(labels, spacing),
            "SciPy per class, both sides, distances alone",
            runs,
        )
    ]
    shifted = np.roll(labels, 1, 1)
    monai_dice = DiceMetric()
    hot = [F.one_hot(torch.from_numpy(x.astype(np.int64)), 4).movedim(-1, 0)[None] for x in (shifted, labels)]
    rows.append(
        pair(
            "scores of the table (Dice, 10 boundary Dice)",
            lambda: score_case(labels, shifted, spacing, {1: "femur", 2: "tibia", 3: "patella"}),
            lambda: monai_dice(*hot),
            "MONAI, Dice alone",
            runs,
        )
    )
    small = (28, 60, 96)
    image = torch.rand(1, 1, *small).to(memory_format=torch.channels_last_3d)
    knee = make_knee(0, PhantomOptions(shape=small, spacing=(3.3, 1.5, 1.5))).labels
    target = torch.from_numpy(knee.astype(np.int64))[None]
    amp = resolve_precision("auto") == "bf16-mixed"
    ours = VNet(1, 4, VNetOptions()).to(memory_format=torch.channels_last_3d)
    plain = VNet(1, 4, VNetOptions())
    rows.append(
        pair(
            f"training step, {'x'.join(map(str, small))}, channels last, {'bfloat16' if amp else 'float32'}",
            step_of(ours, image, target, amp),
            step_of(plain, image.contiguous(), target, False),
            "the same network, default layout, float32",
            runs,
        )
    )
    products, count = products_of(step_of(ours, image, target, amp), torch.bfloat16 if amp else torch.float32)
    limits = [
        pair("training step, as above", step_of(ours, image, target, amp), products, count, runs),
        pair(
            "φ, as above",
            lambda: distance_penalty(labels, spacing),
            pass_over(torch.from_numpy(labels), torch.zeros(shape)),
            "one pass over its labels and its φ",
            runs,
        ),
    ]
    logits = torch.randn(1, 4, *small, requires_grad=True)
    phi = torch.from_numpy(distance_penalty(knee, (3.3, 1.5, 1.5)))[None]
    for key in LOSSES:
        loss = build_loss(key, num_classes=4, spacing=(3.3, 1.5, 1.5))
        needed = getattr(loss, "map_spec", None)
        truth_map = phi if needed is None else torch.from_numpy(loss.compute_map(knee, (3.3, 1.5, 1.5)))[None]
        rows.append(
            pair(
                f"loss {key}, forward and backward",
                lambda loss=loss, m=truth_map: loss(logits, target, m).backward(),
                lambda: F.cross_entropy(logits, target).backward(),
                "PyTorch's cross-entropy",
                runs,
            )
        )
    theirs = HausdorffDTLoss(softmax=True)
    hausdorff: Any = build_loss("hausdorff", num_classes=4, spacing=(3.3, 1.5, 1.5))
    signed = torch.from_numpy(hausdorff.compute_map(knee, (3.3, 1.5, 1.5)))[None]
    hot_target = F.one_hot(target, 4).movedim(-1, 1).float()
    rows.append(
        pair(
            "loss hausdorff, forward and backward",
            lambda: hausdorff(logits, target, signed).backward(),
            lambda: theirs(logits, hot_target).backward(),
            "MONAI's HausdorffDTLoss",
            runs,
        )
    )
    dpce = build_loss("dpce", num_classes=4)
    limits.append(
        pair(
            "loss dpce, forward and backward",
            lambda: dpce(logits, target, phi).backward(),
            pass_over(logits, logits, target, phi),
            "two passes over its logits, one over its target and its φ",
            runs,
        )
    )
    processor = f"{platform.processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    commit = provenance()["commit"]
    header = f"{processor}, one thread, torch {torch.__version__}, commit {commit}; medians of {runs} runs."
    columns = ["what", "ours, s", "other", "other, s", "other / ours"]
    lines = ["# Time against the alternatives", "", header, "", f"| {' | '.join(columns)} |", "|" + " --- |" * 5]
    for row in rows:
        lines.append("| " + " | ".join(v if isinstance(v, str) else f"{v:.3f}" for v in row.values()) + " |")
    lines += ["", "How far it is to what memory, or arithmetic, alone would cost:", ""]
    lines += [f"| {' | '.join(['what', 'ours, s', 'limit', 'limit, s', 'limit / ours'])} |", "|" + " --- |" * 5]
    for row in limits:
        lines.append("| " + " | ".join(v if isinstance(v, str) else f"{v:.4f}" for v in row.values()) + " |")
    text = "\n".join([*lines, "", "Made by `make bench`.", ""])
    print(text)
    if not quick:
        write_text(Path(__file__).with_suffix(".md"), text)


if __name__ == "__main__":
    main()
