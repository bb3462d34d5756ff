"""How Dice and boundary Dice go together on given bones, measured, and whether two reported values were seen together.

At a given Dice, the boundary Dice depends on bones, resolution and kind of error: surfaces that are right in one half
and wrong by two voxels in the other leave more of it than surfaces that are wrong by one voxel everywhere. What was
measured shows what happens; that something was not measured does not show that it cannot happen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from shapeloss._typing import Floats
from shapeloss.metrics import score_case
from shapeloss.review.audit.summary import Audit


def _smooth_field(
    shape: tuple[int, ...], spacing: Sequence[float], correlation_mm: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Gaussian noise of SD 1, smoothed by a Gaussian of SD `correlation_mm` (0: white noise; infinite: all 1)."""
    if np.isinf(correlation_mm):
        return np.ones(shape, np.float32)
    field = rng.standard_normal(shape, dtype=np.float32)
    if correlation_mm > 0:
        field = ndimage.gaussian_filter(field, [correlation_mm / s for s in spacing], mode="wrap", truncate=3.0)
    return field / field.std()


def _labels(distances: NDArray[Any]) -> NDArray[np.uint8]:
    return np.where(distances.min(0) < 0, distances.argmin(0) + 1, 0).astype(np.uint8)


def measure_relation(
    distances: NDArray[Any], spacing: Sequence[float], classes: Mapping[int, str], displacements_mm: Sequence[float],
    correlations_mm: Sequence[float] = (0.0, 2.0, 8.0), slice_axis: int = 0, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Displace the surfaces of a case by random fields or evenly, and score each result against the truth.

    Args:
        distances: (K − 1, X, Y, Z) signed distance in mm to each structure 1 … K − 1, negative inside: a phantom's own
            (`Knee.distances`), or `shapeloss.losses.label_maps.signed_distance(labels, K, spacing)[1:]`.
        spacing: mm, for X, Y, Z.
        classes: label → name of structures 1 … K − 1.
        displacements_mm: standard deviations of the displacement; for an even one the displacement, above 0 inwards.
        correlations_mm: over what length displacements are alike; 0 is independent from voxel to voxel, infinite is the
            same displacement everywhere.
        slice_axis: axis across the slices; the boundary Dice is strict and within the slices.
        seed: of the random fields.

    Returns:
        Columns `dice`, `boundary_dice`, `structure` (with "mean" and "merged"), `displacement_mm`, `correlation_mm`.
    """
    distances = np.asarray(distances)
    truth = _truth(distances, classes)
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for correlation in correlations_mm:
        fields = np.stack([_smooth_field(truth.shape, spacing, correlation, rng) for _ in distances])
        for displacement in displacements_mm:
            moved = _labels(distances + np.float32(displacement) * fields)
            rows += _scored(truth, moved, spacing, classes, slice_axis, displacement, correlation)
    return pd.DataFrame(rows)


def measure_voxel_steps(
    distances: NDArray[Any], spacing: Sequence[float], classes: Mapping[int, str], slice_axis: int = 0
) -> pd.DataFrame:
    """Erode and dilate each structure by one voxel within the slices, and score each result against the truth.

    Args and columns as for :func:`measure_relation`. `displacement_mm` is the size of a voxel in the slices, above 0
    for the erosion, and `correlation_mm` infinite.
    """
    distances = np.asarray(distances)
    truth = _truth(distances, classes)
    cross = np.expand_dims(ndimage.generate_binary_structure(2, 1), slice_axis)
    size = min(s for axis, s in enumerate(spacing) if axis != slice_axis)
    eroded, dilated = np.zeros_like(truth), truth.copy()
    for label in classes:
        eroded[ndimage.binary_erosion(truth == label, cross, border_value=1)] = label
        dilated[ndimage.binary_dilation(truth == label, cross) & (truth == 0)] = label
    return pd.DataFrame(
        _scored(truth, eroded, spacing, classes, slice_axis, size, np.inf)
        + _scored(truth, dilated, spacing, classes, slice_axis, -size, np.inf)
    )


def _truth(distances: NDArray[Any], classes: Mapping[int, str]) -> NDArray[np.uint8]:
    if distances.ndim != 4 or sorted(classes) != list(range(1, len(distances) + 1)):
        raise ValueError(
            f"distances must be (structures, X, Y, Z) with classes 1 … {len(distances)} named; got shape "
            f"{distances.shape} and classes {dict(classes)}"
        )
    return _labels(distances)


def _scored(
    truth: NDArray[np.uint8], moved: NDArray[np.uint8], spacing: Sequence[float], classes: Mapping[int, str],
    slice_axis: int, displacement: float, correlation: float,
) -> list[dict[str, Any]]:  # fmt: skip
    scores = score_case(truth, moved, spacing, classes, slice_axis, ["dice", "boundary_dice_in_plane"])
    return [
        {
            "dice": s["dice"], "boundary_dice": s["boundary_dice_in_plane"], "structure": s["structure"],
            "displacement_mm": displacement, "correlation_mm": correlation,
        }
        for s in scores
    ]  # fmt: skip


def read_relation(path: str | Path | None, beside: str | Path) -> pd.DataFrame | None:
    """A table that :func:`measure_relation` made.

    Args:
        path: CSV; None for `relation.csv` in the folder of `beside`, if there is one.
        beside: the description of the paper.
    """
    given = Path(path) if path is not None else Path(beside).parent / "relation.csv"
    return pd.read_csv(given) if path is not None or given.is_file() else None


def _hull_at(points: Floats, x: float, side: int) -> float:
    """The convex hull of (n, 2) points at x: its lower edge (side 1) or its upper edge (side −1); NaN outside."""
    hull: list[Floats] = []
    for point in points[np.lexsort((side * points[:, 1], points[:, 0]))]:
        while len(hull) > 1:
            (ax, ay), (bx, by) = hull[-1] - hull[-2], point - hull[-2]
            if side * (ax * by - ay * bx) > 0:
                break
            hull.pop()
        if not hull or point[0] > hull[-1][0]:
            hull.append(point)
    edge = np.array(hull)
    x = x + np.clip(np.clip(x, edge[0, 0], edge[-1, 0]) - x, -1e-9, 1e-9)  # rounding errors of a mean
    return float(np.interp(x, edge[:, 0], edge[:, 1], left=np.nan, right=np.nan))


def mean_limits(points: Floats, mean: tuple[float, float], values: tuple[float, float]) -> tuple[float, float]:
    """The mean boundary Dice that cases with such Dice values have, if each lies where `points` show that cases do.

    Args:
        points: (n, 2) measured pairs of Dice and boundary Dice; (1, 1) is added.
        mean: least and largest mean Dice.
        values: least and largest Dice of a case.

    Returns:
        Limits of the convex hull of the points at these Dice values, the next ones beyond included, over the range of
        the mean: averages cannot leave the hull. NaN where the mean lies beyond the measured Dice values.
    """
    points = np.vstack([points, [1.0, 1.0]])
    below, above = points[points[:, 0] <= values[0], 0], points[points[:, 0] >= values[1], 0]
    low = below.max() if len(below) else -np.inf
    high = above.min() if len(above) else np.inf
    near = points[(points[:, 0] >= low) & (points[:, 0] <= high)]
    ends = [*mean, *near[(near[:, 0] > mean[0]) & (near[:, 0] < mean[1]), 0]]  # corners of the hull between them
    return (
        float(np.min([_hull_at(near, x, 1) for x in ends])),
        float(np.max([_hull_at(near, x, -1) for x in ends])),
    )


_READINGS = {"mean": "the mean of the bones", "merged": "the bones merged"}


@dataclass(frozen=True)
class RelationCheck:
    """Whether a reported Dice and a reported boundary Dice were seen together on the bones that were measured.

    Only what was measured speaks: another kind of error, or other bones, may give what was not seen.
    """

    limits: pd.DataFrame
    """One row per reading of the reported numbers, `structure`: one bone, "mean" of the bones, or bones "merged". `low`
    and `high`: between them lies the mean boundary Dice of measured cases with the reported Dice; NaN where that lies
    beyond what was measured. `seen`: whether the reported one lies there, None without limits."""
    reported: tuple[float, float]
    """The reported mean boundary Dice before rounding."""
    dice_text: str

    @property
    def seen(self) -> bool | None:
        """Some reading of the two numbers was seen; None: the reported Dice lies beyond what was measured in each."""
        answers = [seen for seen in self.limits["seen"] if seen is not None]
        return any(answers) if answers else None

    def to_text(self) -> str:
        """Sentences for a person."""
        if self.seen is None:
            return f"Dice {self.dice_text} lies beyond the measured relation: nothing can be said."
        measured = [row for row in self.limits.to_dict("records") if row["seen"] is not None]
        names = {row["structure"]: _READINGS.get(row["structure"], f"the {row['structure']}") for row in measured}
        ranges = ", ".join(f"{r['low']:.2f} to {r['high']:.2f} for {names[r['structure']]}" for r in measured)
        unseen = [names[row["structure"]] for row in measured if not row["seen"]]
        beyond = len(self.limits) - len(measured)
        value = f"{self.reported[0]:.3f} to {self.reported[1]:.3f} before rounding"
        verdict = "lies within that in each reading: both were seen together on the phantom."
        if unseen and self.seen:
            within = ", ".join(name for name in names.values() if name not in unseen)
            verdict = f"lies within that for {within}, and was not seen on the phantom for {', '.join(unseen)}."
        elif unseen:
            verdict = "was not seen on the phantom in any reading, which does not show that it cannot be."
        if beyond:
            verdict += f" In {beyond} other reading(s) the Dice lies beyond what was measured."
        return (
            f"With a Dice of {self.dice_text}, surfaces displaced on the phantom have a mean boundary Dice of "
            f"{ranges}; the reported one ({value}) {verdict}"
        )


def check_relation(dice: Audit, boundary_dice: Audit, relation: pd.DataFrame) -> RelationCheck:
    """Were the two reported results seen together, on the bones that the relation was measured on?

    Args:
        dice: `audit_summary` of the Dice, with its bounds.
        boundary_dice: that of the boundary Dice, strict and within the slices.
        relation: columns `dice`, `boundary_dice`, `structure`, from `measure_relation`.

    Raises:
        ValueError: a column lacks, a bound is missing, or the reported Dice is impossible by itself.
    """
    if missing := {"dice", "boundary_dice", "structure"} - set(relation.columns):
        raise ValueError(f"relation lacks the columns {sorted(missing)}; it has {list(relation.columns)}")
    if not dice.possible or not np.isfinite([dice.high, boundary_dice.high]).all():
        raise ValueError(f"dice must be possible and both must have bounds; got {dice.to_text()!r}")
    scale = 1 / dice.high
    reach = dice.sd.high * np.sqrt((dice.n - dice.ddof) * (dice.n - 1) / dice.n)  # no value lies farther from the mean
    values = (scale * max(dice.low, dice.mean.low - reach), scale * min(dice.high, dice.mean.high + reach))
    mean = (scale * max(dice.mean.low, dice.low), scale * min(dice.mean.high, dice.high))
    reported = (boundary_dice.mean.low / boundary_dice.high, boundary_dice.mean.high / boundary_dice.high)
    rows = []
    for structure, group in relation.groupby("structure", sort=False):
        points = group[["dice", "boundary_dice"]].to_numpy(float)
        low, high = mean_limits(points, mean, values)
        if dice.side == "low":
            # the others alone: they average at least so much, and the extreme case adds at least nothing
            others = mean_limits(points, (scale * dice.others, scale * dice.others), (values[0], 1.0))[0]
            low = float(np.nanmax([low, others * (dice.n - 1) / dice.n, 0.0])) if not np.isnan(low + others) else low
        seen = None if np.isnan(low + high) else bool(low <= reported[1] and high >= reported[0])
        rows.append({"structure": structure, "low": low, "high": high, "seen": seen})
    limits = pd.DataFrame(rows).astype({"seen": object})
    text = f"{dice.mean.value:.{dice.mean.decimals}f} ± {dice.sd.value:.{dice.sd.decimals}f}"
    return RelationCheck(limits, reported, text)
