"""Label map → distance to the boundary in mm → the penalty φ of the distance-penalised cross-entropy.

A *compartment* is the set of all voxels of one label; the background (label 0) is a compartment too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import edt
import numpy as np
from numpy.typing import NDArray

from shapeloss._typing import Spacing

Sides = Literal["both", "inside", "outside"]
NormaliseBy = Literal["compartment", "image"]
Unit = Literal["relative", "mm"]
Control = Literal["none", "reversed", "shuffled", "constant"]


@dataclass(frozen=True)
class PenaltyOptions:
    """How a distance d becomes a penalty φ; see :func:`distance_penalty`."""

    sides: Sides = "both"
    """Where φ is above 0: everywhere, inside the structures only, or in the background only."""
    normalise_by: NormaliseBy = "compartment"
    """Whether each compartment is reversed by its own largest distance, or all by the largest of the image."""
    unit: Unit = "relative"
    """φ in [0, 1], or in mm."""
    decay: float | None = None
    """In mm: φ falls by the factor e over this distance, in place of the linear reversal."""
    control: Control = "none"
    """For comparison: the same amounts of φ at other places; see `CONTROLS`."""
    mean_one: bool = False
    """Whether the weight 1 + φ is divided by its mean over the volume, so that no loss takes larger steps by it."""

    def __post_init__(self) -> None:
        choices_of = (("sides", Sides), ("normalise_by", NormaliseBy), ("unit", Unit), ("control", Control))
        for name, choices in choices_of:
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name} must be one of {get_args(choices)}, got {getattr(self, name)!r}")
        if self.decay is not None:
            if not (np.isfinite(self.decay) and self.decay > 0):
                raise ValueError(f"decay must be a positive length in mm, or None, got {self.decay!r}")
            if (self.normalise_by, self.unit) != ("compartment", "relative"):
                raise ValueError(
                    "decay takes the place of the reversal by a maximum: leave normalise_by='compartment' and "
                    f"unit='relative' with it, got normalise_by={self.normalise_by!r} and unit={self.unit!r}"
                )


VARIANTS: dict[str, PenaltyOptions] = {
    # each compartment from 1 at its boundary to 0 at its deepest voxel (the default)
    "compartment": PenaltyOptions(),
    # the same within the structures, and 0 in the background
    "inside": PenaltyOptions(sides="inside"),
    # the same in the background, and 0 within the structures
    "outside": PenaltyOptions(sides="outside"),
    # from 1 at the boundary to 0 at the deepest voxel of all, so that small structures keep a φ near 1 throughout
    "common": PenaltyOptions(normalise_by="image"),
    # the largest distance of each compartment minus the distance, in mm, as a distance map is reversed literally
    "mm": PenaltyOptions(unit="mm"),
    # the same within the structures, and 0 in the background
    "mm_inside": PenaltyOptions(sides="inside", unit="mm"),
    # the largest distance of all minus the distance, in mm
    "mm_common": PenaltyOptions(normalise_by="image", unit="mm"),
    # 1 at the boundary, falling by the factor e with every 2 mm: the weight gathers at the boundary
    "exponential": PenaltyOptions(decay=2.0),
}
"""The ways to read the paper's φ, by name; every one is an option of `DistancePenalizedCELoss`."""
READINGS = VARIANTS
"""Their name in earlier versions."""

CONTROLS: dict[str, PenaltyOptions] = {
    # 0 at the boundary and 1 at the deepest voxel of each compartment: the weight where it should not be
    "reversed": PenaltyOptions(control="reversed"),
    # φ given at random to the voxels of each compartment: the same amounts, and no place
    "shuffled": PenaltyOptions(control="shuffled"),
    # the mean of φ throughout: cross-entropy with a larger step
    "constant": PenaltyOptions(control="constant"),
}
"""Weights to compare the distance penalty with: does the place of the weight matter? Named like variants."""


Variant = str | PenaltyOptions | Mapping[str, Any]
"""A name in `VARIANTS` or `CONTROLS`, or the options themselves."""


def penalty_options(variant: Variant) -> PenaltyOptions:
    """The options of a variant: a name of `VARIANTS`, a dict of fields of :class:`PenaltyOptions`, or such an object.

    The words of earlier versions, `maximum` "own" or "common", are understood.

    >>> penalty_options({"decay": 3.0})
    PenaltyOptions(sides='both', normalise_by='compartment', unit='relative', decay=3.0, control='none', mean_one=False)
    """
    if isinstance(variant, PenaltyOptions):
        return variant
    if isinstance(variant, str):
        named = VARIANTS | CONTROLS
        if variant not in named:
            raise ValueError(f"variant must be one of {', '.join(named)}, or a dict of options, got {variant!r}")
        return named[variant]
    options: dict[str, Any] = dict(variant)
    if "maximum" in options:
        options["normalise_by"] = _from_maximum(options.pop("maximum"))
    known = [field.name for field in fields(PenaltyOptions)]
    unknown = [key for key in options if key not in known]
    if unknown:
        raise ValueError(f"variant has no option {', '.join(unknown)}; it has {', '.join(known)}")
    return PenaltyOptions(**options)


def _from_maximum(value: Any) -> NormaliseBy:
    """The present word for a value of `maximum`, the option of earlier versions."""
    words: dict[Any, NormaliseBy] = {"own": "compartment", "common": "image"}
    if value not in words:
        raise ValueError(f"maximum must be one of {', '.join(words)}, got {value!r}; its present name is normalise_by")
    return words[value]


def check_spacing(spacing: Spacing, axes: int | None = None) -> tuple[float, ...]:
    """The spacing as numbers: one positive number of mm for each axis; ValueError otherwise.

    Args:
        spacing: mm.
        axes: how many numbers it must hold; None for any.
    """
    try:
        lengths = tuple(float(length) for length in spacing)
    except (TypeError, ValueError):
        lengths = ()
    if not lengths or axes not in (None, len(lengths)) or not all(0 < length < math.inf for length in lengths):
        which = "each spatial axis" if axes is None else f"each of the {axes} axes"
        raise ValueError(f"spacing must hold one positive number of mm for {which}, got {spacing!r}")
    return lengths


def check_labels(labels: NDArray[Any], spacing: Spacing) -> tuple[NDArray[Any], tuple[float, ...]]:
    """The label map and its spacing, checked: 2D or 3D, integer, not negative; one positive spacing for each axis."""
    labels = np.asarray(labels)
    if labels.ndim not in (2, 3) or labels.size == 0:
        raise ValueError(f"labels must be one 2D or 3D map (X, Y[, Z]) with voxels in it, got shape {labels.shape}")
    if labels.dtype.kind not in "iub":
        raise ValueError(f"labels must be integers 0, 1, 2, …, got dtype {labels.dtype}; round and convert them first")
    if labels.dtype.kind == "i" and labels.min() < 0:
        raise ValueError(f"labels must not be negative, got {labels.min()}; map unknown voxels to a label of their own")
    return labels, check_spacing(spacing, labels.ndim)


def boundary_distance(labels: NDArray[Any], spacing: Spacing) -> NDArray[np.float32]:
    """Distance in mm from the centre of each voxel to the nearest voxel centre of another compartment.

    One multi-label Euclidean transform, exact to float32, on as many threads as PyTorch uses. A voxel next to the
    boundary has the spacing of the axis on which it touches the other compartment, not 0 and not half of it. The edge
    of the volume is not a boundary.

    Args:
        labels: (X, Y, Z) or (X, Y), integers from 0, the background; bool counts as 0 and 1.
        spacing: mm between voxel centres, one number for each axis, in the order of the axes.

    Returns:
        float32 of the same shape; infinity throughout where the volume has one compartment only.

    Raises:
        ValueError: for another number of axes, an empty array, labels that are not integers or are negative, and a
            spacing that does not fit.

    >>> boundary_distance(np.array([[0, 0, 1, 2]]), spacing=(1.0, 0.5))
    array([[1. , 0.5, 0.5, 0.5]], dtype=float32)
    """
    labels, lengths = check_labels(labels, spacing)
    highest = int(labels.max()) + 1
    # edt takes 0 for "no object" and gives it distance 0, hence + 1: the background is a compartment like the others
    shifted = np.add(labels, 1, dtype=np.min_scalar_type(highest), casting="unsafe", order="C")
    return edt.edt(shifted, anisotropy=lengths, black_border=False, parallel=_threads())


def _threads() -> int:
    """As many as PyTorch uses: one in a worker of a data loader, `OMP_NUM_THREADS` if it is set, else all cores."""
    import torch  # here, since metrics, which need no torch, import this module

    return torch.get_num_threads()


def distance_penalty(
    labels: NDArray[Any],
    spacing: Spacing,
    *,
    sides: Sides = "both",
    normalise_by: NormaliseBy = "compartment",
    unit: Unit = "relative",
    decay: float | None = None,
    control: Control = "none",
    mean_one: bool = False,
    maximum: str | None = None,
) -> NDArray[np.float32]:
    """φ: the distance to the boundary reversed, so that it is highest at the boundary (Calivà et al. 2019, figure 1).

    With d from :func:`boundary_distance`, and the maximum and minimum of d taken over each compartment
    (`normalise_by="compartment"`) or over all compartments that `sides` selects (`"image"`):

    - `unit="relative"`: φ = (max − d) / (max − min): 1 at the boundary, 0 at the deepest voxel; 1 where max = min;
    - `unit="mm"`: φ = max − d;
    - `decay=τ`: φ = exp(−(d − min) / τ).

    Then, for comparisons: `control="reversed"` exchanges high and low φ of each compartment, "shuffled" permutes φ at
    random (always in the same way) within each, "constant" puts the volume's mean everywhere; and
    `mean_one` divides the weight 1 + φ by its mean, after which φ is above −1 and 0 on average.

    φ is 0 where `sides` leaves it out, and in a volume of one compartment. It is never NaN or infinite. It depends on
    the field of view through the maximum of the background: compute it on the whole volume, then crop.

    Args:
        labels: (X, Y, Z) or (X, Y), integers from 0, the background.
        spacing: mm, one number for each axis.
        maximum: "own" or "common", the words of earlier versions for `normalise_by`.
        sides, normalise_by, unit, decay, control, mean_one: see :class:`PenaltyOptions`; `VARIANTS` and `CONTROLS` name
            the usual combinations.

    Returns:
        float32 of the same shape.

    Raises:
        ValueError: for labels, a spacing or options that cannot be used.

    >>> distance_penalty(np.array([[0, 0, 0, 1, 1]]), spacing=(1.0, 0.5))
    array([[0. , 0.5, 1. , 1. , 0. ]], dtype=float32)
    """
    if maximum is not None:
        normalise_by = _from_maximum(maximum)
    PenaltyOptions(sides, normalise_by, unit, decay, control, mean_one)
    distance = boundary_distance(labels, spacing)
    labels = np.asarray(labels)
    penalty = np.zeros_like(distance)
    selected = [value for value in _values(labels) if sides == "both" or (value != 0) == (sides == "inside")]
    if np.isinf(distance.flat[0]) or not selected:  # no boundary to be near to, or nothing that can be near
        return penalty
    masks = [np.isin(labels, selected)] if normalise_by == "image" else (labels == value for value in selected)
    for mask in masks:
        d = distance[mask]
        if not d.size:
            continue
        highest, lowest = d.max(), d.min()
        if decay is not None:
            penalty[mask] = np.exp((lowest - d) / np.float32(decay))
        elif unit == "mm":
            penalty[mask] = highest - d
        else:
            penalty[mask] = (highest - d) / (highest - lowest) if highest > lowest else 1
    if control != "none":
        penalty = _control(penalty, labels, selected, control)
    if mean_one:
        penalty = ((1 + penalty) / (1 + penalty.mean(dtype=np.float64)) - 1).astype(np.float32)
    return penalty


def _control(
    penalty: NDArray[np.float32], labels: NDArray[Any], selected: list[int], control: Control
) -> NDArray[np.float32]:
    """φ with its values at other places of the same compartments."""
    if control == "constant":
        return np.full_like(penalty, penalty.mean(dtype=np.float64))
    random = np.random.default_rng(0)
    moved = penalty.copy()
    for value in selected:
        mask = labels == value
        phi = penalty[mask]
        if phi.size:
            moved[mask] = random.permutation(phi) if control == "shuffled" else phi.max() + phi.min() - phi
    return moved


def _values(labels: NDArray[Any]) -> list[int]:
    """The labels that there are; where the highest is small, perhaps some more, as looking for each takes less time."""
    highest = int(labels.max())
    return list(range(highest + 1)) if highest < 16 else np.unique(labels).tolist()


def weight_near_boundary(
    phi: NDArray[Any], labels: NDArray[Any], spacing: Spacing, within: float = 2.0
) -> tuple[float, float]:
    """How much of the weight 1 + φ lies near the boundary, and how large the weight is on average.

    Args:
        phi: any penalty of the shape of labels.
        labels: (X, Y, Z) or (X, Y), integers.
        spacing: mm, one number for each axis.
        within: mm; a voxel is near if :func:`boundary_distance` gives it at most this.

    Returns:
        The share of the weight in [0, 1], and the mean weight: a factor on the learning rate.
    """
    if np.shape(phi) != np.shape(labels):
        raise ValueError(f"phi must have the shape of labels, {np.shape(labels)}, got {np.shape(phi)}")
    weight = 1 + np.asarray(phi, dtype=np.float64)
    near = boundary_distance(labels, spacing) <= within
    return float(weight[near].sum() / weight.sum()), float(weight.mean())
