"""Checks of what a loss is given: shapes at each call, values where they are asked for; and of its options."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

MapSpec = dict[str, Any]


def plain(tensor: Tensor) -> Tensor:
    """A tensor of a subclass, such as MONAI's, as one of PyTorch's own; any other is itself.

    PyTorch 2.5 refuses to make a tensor of its own one of its own while its operators are recorded.
    """
    return tensor if type(tensor) is Tensor else tensor.as_subclass(Tensor)


def check_target_shape(logits: Tensor, target: Tensor) -> Tensor:
    """The target as (B, X, Y[, Z]), of its own dtype, if its shape fits the logits.

    Reads no value, so that a GPU need not be waited for.

    Raises:
        ValueError: it does not fit; the message says how.
    """
    if logits.ndim not in (4, 5) or not logits.is_floating_point():
        raise ValueError(
            "logits must be floating point of shape (B, K, X, Y) or (B, K, X, Y, Z), "
            f"got {logits.dtype} {tuple(logits.shape)}"
        )
    classes, expected = logits.shape[1], (logits.shape[0], *logits.shape[2:])
    if classes < 2:
        raise ValueError("logits must have at least 2 classes, the background included; for one structure use K = 2")
    if target.shape == (expected[0], 1, *expected[1:]):
        target = target[:, 0]
    if target.shape != expected:
        raise ValueError(
            f"target must have shape {expected} for logits of shape {tuple(logits.shape)}, got {tuple(target.shape)}; "
            "a one-hot target becomes one by argmax(1)"
        )
    if target.is_complex():
        raise ValueError(f"target must be integer labels, got {target.dtype}")
    if not target.numel():
        raise ValueError(
            f"logits and target must hold at least one voxel, got shapes {tuple(logits.shape)} and {expected}"
        )
    return plain(target)


def check_target_values(target: Tensor, classes: int) -> None:
    """Labels must be whole numbers from 0 to K − 1; in floating point too, as MONAI loads them.

    Raises:
        ValueError: they are not.
    """
    if target.is_floating_point() and not torch.equal(target, target.round()):
        raise ValueError(f"target must be integer labels, got {target.dtype} that are not whole numbers")
    lowest, highest = (int(value) for value in target.long().aminmax())
    if lowest < 0 or highest >= classes:
        raise ValueError(f"target must lie in 0 to {classes - 1} for {classes} classes, got {lowest} to {highest}")


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """A hint for an error about an unknown word; empty if none of the words is close."""
    close = difflib.get_close_matches(word, list(words), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def check_nonnegative(name: str, value: Any) -> float:
    """The value, if it is a number from 0; ValueError that names the argument otherwise."""
    number = float(value) if isinstance(value, Real) else math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name} must be a number from 0, got {value!r}")
    return number


def check_classes(num_classes: int) -> int:
    """The number of classes, if it is one, the background included; ValueError otherwise."""
    if not (isinstance(num_classes, Integral) and num_classes >= 2):
        raise ValueError(f"num_classes must be a whole number from 2, the background included, got {num_classes!r}")
    return num_classes


def check_progress(progress: float) -> float:
    """The part of a training that is done, as a loss with a schedule is told it.

    Raises:
        ValueError: it lies outside 0 to 1.
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"progress must be the part of the training that is done, 0 to 1, got {progress!r}")
    return progress
