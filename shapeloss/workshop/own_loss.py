"""A loss written in class: find what is wrong with it, and train it for a minute beside others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from shapeloss.metrics import score_case
from shapeloss.phantom.anatomy import BONES
from shapeloss.predict import predict_labels
from shapeloss.stats.paired_tests import bootstrap_mean, differences
from shapeloss.train import State, TrainingOptions, TrainingVolume, fit
from shapeloss.vnet import VNet, VNetOptions
from shapeloss.workshop.predictions import SPACING, practice_knee

REGISTERED: dict[str, nn.Module] = {}
"""The losses that :func:`register` has taken, by name."""
TRAINING, TEST = range(6), range(6, 14)
"""Subjects."""
SCORES = {"dice": "Dice", "boundary_dice_in_plane": "boundary Dice"}


def _logits(seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(1, 4, 4, 5, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _truth() -> Tensor:
    return torch.arange(120).reshape(1, 4, 5, 6) // 30  # four slabs, one for each class


def find_faults(loss: Callable[..., Any]) -> list[str]:
    """What is wrong with a loss, as sentences with a remedy; an empty list if nothing was found.

    It is called as a training does, loss(logits, target, phi), on small volumes with four classes: logits (1, 4, X, Y,
    Z), target (1, X, Y, Z) int64, phi (1, X, Y, Z) between 0 and 1. Tried are its result, its gradient against finite
    differences, large logits, an absent class, a constant added to all logits, and whether right costs less than wrong.
    """
    target = _truth()
    phi = torch.linspace(0, 1, target.numel(), dtype=torch.float64).view(target.shape)

    def value(z: Tensor, truth: Tensor = target) -> Any:
        return loss(z, truth, phi)

    z = _logits().requires_grad_()
    try:
        result = value(z)
    except NotImplementedError:
        raise
    except Exception as error:  # whatever the student's code raises
        return [f"it stops with {type(error).__name__}: {error}. It is called as loss(logits, target, phi)"]
    if not isinstance(result, Tensor):
        return [f"it must return a tensor, got {type(result).__name__}: leave out .item() and numpy()"]
    if result.ndim:
        return [f"it must return one number, got shape {tuple(result.shape)}: end with .mean()"]
    if result.isnan():
        hint = "log of the logits, some of which are negative" if _uses_logits_as_probabilities(value) else "0 / 0"
        return [f"it is NaN for ordinary logits ({hint}): begin with logits.log_softmax(1) or logits.softmax(1)"]
    if not result.requires_grad:
        return ["it has no gradient: argmax, rounding, comparisons, .detach() and numpy() cut it; use probabilities"]
    (gradient,) = torch.autograd.grad(result, z, allow_unused=True)
    if gradient is None or not gradient.any():
        return ["its gradient is zero everywhere: nothing that is returned depends on the logits"]
    faults = []
    if not _gradient_is_right(value, z.detach(), gradient):
        faults.append(
            "its gradient is not the slope of its value: a part was detached, or computed outside of autograd"
        )
    right = 12.0 * torch.nn.functional.one_hot(target, 4).movedim(-1, 1).double() - 6
    if not float(value(right)) < float(value(-right)):
        faults.append("a perfect prediction does not cost less than a wrong one: is the sign the wrong way round?")
    shifted = float(value(z.detach() + 3.0))
    if not faults and not np.isclose(shifted, float(result.detach()), rtol=1e-3, atol=1e-6):
        faults.append(
            "it changes when the same number is added to all logits of a voxel, which changes no probability: "
            "it takes logits for probabilities; begin with logits.softmax(1)"
        )
    if not np.isfinite(float(value(_logits(1, 200.0)))):
        faults.append("it is NaN or infinite for large logits: use log_softmax rather than log(softmax), or clamp")
    two = target.clamp(max=2)  # class 3 is absent
    if not np.isfinite(float(value(_logits(2), two))):
        faults.append("it is NaN or infinite where a class is absent from the truth: add a small number to the divisor")
    return faults


def _uses_logits_as_probabilities(value: Callable[[Tensor], Any]) -> bool:
    """Whether what is NaN for logits is finite for positive numbers."""
    return bool(torch.isfinite(value(_logits().softmax(1))))


def _gradient_is_right(value: Callable[[Tensor], Any], z: Tensor, gradient: Tensor) -> bool:
    """Against central differences along three random directions; float32 inside the loss is allowed for."""
    for seed in (11, 12, 13):
        direction = _logits(seed)
        step = 1e-3
        slope = (float(value(z + step * direction)) - float(value(z - step * direction))) / (2 * step)
        expected = float((gradient * direction).sum())
        if abs(slope - expected) > 0.02 * max(abs(slope), abs(expected)) + 1e-3 * float(gradient.norm()) + 1e-4:
            return False
    return True


def register(name: str, loss: nn.Module) -> nn.Module:
    """Take a loss into the comparison of :func:`train_beside`, if nothing is wrong with it.

    Raises:
        ValueError: with every fault that was found, and its remedy.
    """
    faults = find_faults(loss)
    if faults:
        raise ValueError(f"{name} cannot be trained yet:\n" + "\n".join(f"- {fault}" for fault in faults))
    REGISTERED[name] = loss
    return loss


@dataclass(frozen=True)
class Practice:
    """What a short training of several losses gave."""

    curves: pd.DataFrame
    """The training loss of each step, a column for each loss: not comparable between losses."""
    scores: pd.DataFrame
    """loss, case, dice and boundary Dice, the mean over the structures, of each test volume."""
    reference: str

    def table(self, metric: str = "boundary_dice_in_plane") -> pd.DataFrame:
        """Mean over the test volumes, and the mean difference from the reference with its 95 % bootstrap interval."""
        wide = self.scores.pivot(index="case", columns="loss", values=metric)[list(self.curves)]
        rows = []
        for name in wide:
            interval = bootstrap_mean(differences(wide[name], wide[self.reference]))
            rows.append(
                {"loss": name, SCORES[metric]: wide[name].mean(), f"minus {self.reference}": interval.value}
                | {"from": interval.low, "to": interval.high}
            )
        return pd.DataFrame(rows).set_index("loss").round(3)


def train_beside(
    losses: Mapping[str, nn.Module],
    *,
    reference: str = "ce",
    steps: int = 200,
    seed: int = 0,
    progress: Callable[[str, pd.DataFrame], None] | None = None,
) -> Practice:
    """Train a small V-Net with each loss, on six practice knees, and score it on eight others.

    Same network, same first weights, same volumes and rotations for each loss; about fifteen seconds a loss.

    Args:
        losses: name → loss; the reference is one of them.
        progress: called every ten steps with the loss's name and the curves so far.
    """
    if reference not in losses:
        raise ValueError(f"reference must be one of the losses, {', '.join(losses)}, got {reference!r}")
    training, test = ([_volume(subject) for subject in subjects] for subjects in (TRAINING, TEST))
    options = TrainingOptions(steps=steps, learning_rate=5e-3, precision="32-true", checkpoint_every=10)
    curves: dict[str, list[float]] = {}
    rows = []
    for name, loss in losses.items():
        torch.manual_seed(seed)
        network = VNet(1, len(BONES) + 1, VNetOptions(widths=(8, 16, 32), convolutions=(1, 1, 1), strides=STRIDES))

        def after_step(state: State, name: str = name) -> None:
            curves[name] = list(state.losses)
            if progress and state.step % 10 == 0:
                progress(name, _frame(curves))

        state = fit(network, loss, training, options, seed=seed, after_step=after_step)
        curves[name] = list(state.losses)
        for subject, volume in zip(TEST, test, strict=True):
            predicted = predict_labels(network, volume.image[None, None])
            scores = score_case(
                volume.labels.numpy(), predicted, SPACING, dict(enumerate(BONES, start=1)), metrics=tuple(SCORES)
            )
            mean = next(row for row in scores if row["structure"] == "mean")
            rows.append({"loss": name, "case": f"knee {subject}"} | {metric: mean[metric] for metric in SCORES})
    return Practice(_frame(curves), pd.DataFrame(rows), reference)


STRIDES = ((1, 2, 2), (2, 2, 2))


def _frame(curves: Mapping[str, list[float]]) -> pd.DataFrame:
    frame = pd.DataFrame({name: pd.Series(values) for name, values in curves.items()})
    frame.index = pd.RangeIndex(1, len(frame) + 1, name="step")
    return frame


def _volume(subject: int) -> TrainingVolume:
    knee = practice_knee(subject)
    image = (knee.image - knee.image.mean()) / knee.image.std()
    return TrainingVolume(torch.from_numpy(image), torch.from_numpy(knee.labels), SPACING)
