"""The scores of one case: one row per structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shapeloss.metrics.definitions import DEFAULT_METRICS, METRICS
from shapeloss.metrics.geometry import SMOOTHING, Edge, Mask, check_grid, mask_geometry


def score_case(
    truth_labels: NDArray[Any],
    predicted_labels: NDArray[Any],
    spacing: Sequence[float],
    classes: Mapping[int, str],
    slice_axis: int = 0,
    metrics: Sequence[str] = DEFAULT_METRICS,
    edge: Edge = "open",
    smoothing_voxels: float = SMOOTHING,
) -> list[dict[str, Any]]:
    """Score one predicted label map: a row for each structure, then "mean" and "merged".

    Args:
        truth_labels, predicted_labels: (X, Y, Z), integers: 0, the background, and the keys of `classes`.
        spacing: mm between voxel centres along X, Y, Z.
        classes: label → name of the structure; an entry for 0 names the background and is passed over.
        slice_axis, edge, smoothing_voxels: see :func:`mask_geometry`.
        metrics: names in `METRICS`.

    Returns:
        Rows with `structure`, the flags `missed` (in the truth only), `false_positive` (in the prediction only) and
        `absent` (in neither), and a column for each metric. "mean" is the mean over the structures: each counts, a
        missed one with its worst value; its flags say whether there is such a one. "merged" takes all structures as
        one mask.

    Raises:
        ValueError: for maps of different shapes, labels that are not integers or not in `classes`, a spacing that
            does not fit, a metric that does not exist, and classes that cannot be rows.

    >>> truth = np.zeros((4, 6, 6), int)
    >>> truth[1:3, 1:5, 1:5] = 1
    >>> truth[1:3, 2:4, 2:4] = 2
    >>> rows = score_case(truth, truth.clip(0, 1), (0.7, 0.365, 0.365), {1: "femur", 2: "tibia"}, metrics=["dice"])
    >>> [(row["structure"], row["missed"], round(row["dice"], 2)) for row in rows]
    [('femur', False, 0.86), ('tibia', True, 0.0), ('mean', True, 0.43), ('merged', False, 1.0)]
    """
    truth_labels, predicted_labels = np.asarray(truth_labels), np.asarray(predicted_labels)
    check_grid(truth_labels, predicted_labels, spacing)
    structures = {int(label): name for label, name in classes.items() if label != 0}
    names = set(structures.values())
    if not names or len(names) < len(structures) or {"mean", "merged"} & names or min(structures) < 0:
        raise ValueError(
            "classes must name at least one label above 0, each differently and none 'mean' or 'merged', "
            f"got {dict(classes)!r}"
        )
    if unknown := [name for name in metrics if name not in METRICS]:
        raise ValueError(f"metrics must be among {', '.join(METRICS)}; got {', '.join(map(repr, unknown))}")
    for name, labels in (("truth_labels", truth_labels), ("predicted_labels", predicted_labels)):
        if labels.dtype.kind not in "iub":
            raise ValueError(f"{name} must be integers, got dtype {labels.dtype}; round and convert them first")
        known = np.isin(labels, [0, *structures])
        if not known.all():
            raise ValueError(
                f"{name} must hold 0 and the labels of classes, {sorted(structures)}, only, "
                f"got {np.unique(labels[~known]).tolist()} too; remap them or name them in classes"
            )

    def row(structure: str, truth: Mask, prediction: Mask) -> dict[str, Any]:
        geometry = mask_geometry(truth, prediction, spacing, slice_axis, edge, smoothing_voxels)
        in_truth, in_prediction = geometry.voxels[0] > 0, geometry.voxels[1] > 0
        return {
            "structure": structure,
            "missed": in_truth and not in_prediction,
            "false_positive": in_prediction and not in_truth,
            "absent": not in_truth and not in_prediction,
            **{name: METRICS[name].function(geometry) for name in metrics},
        }

    rows = [row(name, truth_labels == label, predicted_labels == label) for label, name in structures.items()]
    mean: dict[str, Any] = {"structure": "mean"}
    mean |= {flag: any(r[flag] for r in rows) for flag in ("missed", "false_positive", "absent")}
    mean |= {name: float(np.mean([_size(name, r[name]) for r in rows])) for name in metrics}
    return [*rows, mean, row("merged", truth_labels != 0, predicted_labels != 0)]


def _size(name: str, value: float) -> float:
    """What enters a mean over structures: the size of an error that has a sign."""
    return abs(value) if METRICS[name].direction == "nearer 0" else value
