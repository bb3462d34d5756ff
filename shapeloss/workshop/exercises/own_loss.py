"""Notebook 4: write your own loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from shapeloss.distance import distance_penalty
from shapeloss.losses import DistancePenalizedCELoss
from shapeloss.workshop.checks import exercise, need
from shapeloss.workshop.exercises.bugs import SPACING, case, disc
from shapeloss.workshop.own_loss import Practice, find_faults


@exercise("4.1", "complete the class MyLoss: forward(logits, target, phi)")
def a_loss_that_can_be_trained(cls: Any) -> str:
    need(isinstance(cls, type) and issubclass(cls, torch.nn.Module), "MyLoss must be a class derived from nn.Module")
    faults = find_faults(cls())
    need(not faults, " Also: ".join(faults))
    return (
        "Nothing is wrong with it: it returns one number, its gradient is its slope, and right costs less than wrong."
    )


@exercise("4.2", "mend the class Inverted")
def five_faults(cls: Any) -> str:
    faults = find_faults(cls())
    need(not faults, faults[0] if faults else "")
    logits, target, phi = case()
    value, expected = float(cls()(logits, target, phi)), float(DistancePenalizedCELoss()(logits, target, phi))
    need(
        abs(value - expected) < 1e-4,
        f"it can be trained, but it gives {value:.4f}, and mean((1 + φ) ce) {expected:.4f}",
    )
    return "All five are gone. Each of them trains without an error, or stops with one that names something else."


@exercise("4.3", "complete the function weight(labels, spacing)")
def weight_of_mean_one(function: Any) -> str:
    labels = disc().astype(int)
    weight = np.asarray(function(labels, SPACING), dtype=float)
    need(weight.shape == labels.shape, f"the weight must have the shape of labels, {labels.shape}, got {weight.shape}")
    need(np.isfinite(weight).all() and (weight > 0).all(), "every weight must be positive and finite")
    mean = float(weight.mean())
    need(abs(mean - 1) < 1e-3, f"the mean weight is {mean:.3f}: a larger one acts like a larger learning rate")
    phi = 1 + distance_penalty(labels, SPACING)
    need(np.allclose(weight, phi / phi.mean(), atol=1e-3), "not yet: proportional to 1 + φ")
    return "Now a comparison with cross-entropy compares where the weight lies, and not how much there is."


@exercise("4.4", 'set verdict to "better", "worse" or "cannot tell", with the training: (verdict, practice, name)')
def own_verdict(answer: Any) -> str:
    verdict, practice, name = answer
    need(verdict is not None and verdict is not Ellipsis, "not answered yet: read the interval in the table")
    words = ("better", "worse", "cannot tell")
    need(verdict in words, f"verdict must be one of {', '.join(words)}, got {verdict!r}")
    need(isinstance(practice, Practice), "the second must be what train_beside returned")
    row = practice.table().loc[name]
    right = "better" if row["from"] > 0 else "worse" if row["to"] < 0 else "cannot tell"
    need(
        verdict == right,
        f"the interval of the difference is {row['from']:+.3f} to {row['to']:+.3f}: does it hold 0, or only one sign?",
    )
    return "One training a loss: another seed may turn it. Notebook 6 asks by how much."
