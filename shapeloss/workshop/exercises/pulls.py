"""Notebook 1: what does a loss ask of a voxel?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from shapeloss.distance import VARIANTS
from shapeloss.losses import CrossEntropyLoss, FocalLoss, SegmentationLoss, build_loss
from shapeloss.workshop.checks import Wrong, as_number, exercise, need
from shapeloss.workshop.predictions import SPACING, alter_labels, label_logits, measure_pull, practice_knee

CANDIDATES: dict[str, dict[str, Any]] = {
    "ce": {}, "dpce": {}, "focal": {}, "dice": {}, "gdice": {}, "boundary": {"region": None, "schedule": "constant"},
}  # fmt: skip
"""The losses of exercise 1.4, with their options."""


def pull_at(loss: SegmentationLoss, p: float) -> float:
    """|∂L/∂z| at a single voxel with two classes whose true class has the probability p."""
    z = torch.tensor([0.0, float(np.log(p / (1 - p)))], dtype=torch.float64).view(1, 2, 1, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(z, torch.ones(1, 1, 1, dtype=torch.long)), z)
    return float(gradient.norm())


@exercise("1.1", "complete the function pull(p)")
def pull_of_cross_entropy(pull: Any) -> str:
    values = [as_number(pull(p), "pull(p)") for p in (0.01, 0.3, 0.5, 0.9, 0.99)]
    expected = [pull_at(CrossEntropyLoss(), p) for p in (0.01, 0.3, 0.5, 0.9, 0.99)]
    ratio = np.array(values) / expected
    if np.allclose(ratio, 1 / np.sqrt(2), rtol=1e-3):
        raise Wrong("that is the part of one class; the pull is the length of the vector over both classes")
    need(
        not np.allclose(np.add(values, np.array(expected)), np.sqrt(2), rtol=1e-3),
        "it grows with p, but a voxel that is right should be pulled less",
    )
    need(np.allclose(ratio, 1, rtol=1e-3), f"at p = 0.3 it gives {values[1]:.3f}; autograd gives another length")
    return "It falls in a straight line: a voxel that is right by half is pulled half as hard as one that is all wrong."


@exercise("1.2", "set p_hardest to a probability")
def where_focal_pulls_hardest(answer: Any) -> str:
    p = as_number(answer, "p_hardest")
    need(0 < p < 1, f"a probability lies between 0 and 1, got {p:g}")
    loss, grid = FocalLoss(gamma=2.0), np.linspace(0.005, 0.995, 199)
    pulls = [pull_at(loss, q) for q in grid]
    best = float(grid[int(np.argmax(pulls))])
    need(
        pull_at(loss, p) > 0.999 * max(pulls),
        f"at p = {p:g} it pulls with {pull_at(loss, p):.3f}, which is not its largest pull; try a grid of p",
    )
    return f"Focal loss is not hardest on what is all wrong, but on what is wrong and not quite lost: p = {best:.2f}."


@exercise("1.3", "set variant to a name of VARIANTS")
def variant_nearest_to_the_boundary(answer: Any) -> str:
    need(answer in VARIANTS, f"variant must be one of {', '.join(VARIANTS)}, got {answer!r}")
    knee = practice_knee()
    logits = label_logits(knee.labels, SPACING, 4, confidence=0.5)
    shares = {
        name: measure_pull(build_loss("dpce", num_classes=4, variant=name), logits, knee.labels, SPACING).share
        for name in VARIANTS
    }
    best = max(shares.values())
    need(
        shares[answer] == best,
        f"with {answer!r} {shares[answer]:.1%} of the pull lies within 2 mm; another variant has more",
    )
    return f"{best:.1%} lies within 2 mm, against {shares['compartment']:.1%} for the default variant."


@exercise("1.4", f"set silent to the set of keys out of {', '.join(CANDIDATES)} that hardly pull on the missed patella")
def silent_losses(answer: Any) -> str:
    need(not isinstance(answer, str), "silent must be a set of keys, such as {'ce'}")
    chosen = set(answer)
    need(chosen <= set(CANDIDATES), f"silent must hold keys out of {', '.join(CANDIDATES)}, got {sorted(chosen)}")
    knee = practice_knee()
    logits = label_logits(alter_labels(knee.labels, SPACING, missed=3), SPACING, 4, confidence=8.0)
    patella = knee.labels == 3
    pulls = {
        name: measure_pull(build_loss(name, num_classes=4, **options), logits, knee.labels, SPACING)
        .pull[patella]
        .mean()
        for name, options in CANDIDATES.items()
    }
    silent = {name for name, value in pulls.items() if value < 0.01 * pulls["ce"]}
    wrong = sorted(chosen - silent)
    need(
        not wrong, f"{', '.join(wrong)}: the mean pull on the patella is {', '.join(f'{pulls[w]:.3f}' for w in wrong)}"
    )
    need(chosen == silent, "at least one more loss pulls with less than a hundredth of what cross-entropy does")
    return "Their gradients go through p (1 − p), and p of the missed structure is next to zero."
