"""Two masks → their geometry, measured once → every overlap and boundary metric, each a small pure function of it.

Conventions, the same for every metric:

- *Voxel* metrics take as surface the boundary voxels of a mask, the mask minus its erosion (4 neighbours within the
  slice, or 6 in 3D), all of equal weight, at the centres of the voxels. *Surface* metrics take the surface elements
  of marching cubes, weighted by their area in mm², each at the centre of its cell of 2 × 2 × 2 voxels
  (Nikolov et al. 2021, arXiv:1809.04430). The two differ by more than methods do: the names say which.
- The edge of the field of view is no boundary: where a femur leaves the image, nobody drew an outline
  (`edge="open"`: a mask goes on beyond the edge as it is at the edge). `edge="closed"` cuts the mask there, as most
  libraries do.
- No metric is NaN, so no structure can leave a mean unseen. A missed or invented structure (one mask without a
  boundary) has the worst value: 0 for an overlap, the diagonal D of the field of view for a distance, which no pair
  of found surfaces exceeds and which keeps means, SDs and paired tests finite where infinity would not. If neither
  mask has a boundary, equal masks (a structure rightly absent) have the best value and others the worst.

Arrays are (X, Y, Z), spacing is in mm in the same order, labels are integers with 0 the background.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from itertools import groupby
from math import inf
from typing import Any, Literal, get_args

import edt
import numpy as np
from numpy.typing import NDArray
from skimage.measure import marching_cubes, mesh_surface_area

Edge = Literal["open", "closed"]
Plane = Literal["in_plane", "3d"]
Surface = Literal["voxel", "surface"]
Mask = NDArray[np.bool_]
INNER = (slice(1, -1),) * 3  # a geometry's masks without their rim

# distances come in float32: one that equals a tolerance but for its rounding lies within it
ROUNDING = 1 + 1e-6


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """From each element of one surface to the nearest element of the other; infinity where there is none."""

    from_truth: NDArray[np.float32]
    from_prediction: NDArray[np.float32]
    truth_weights: NDArray[np.float64]
    prediction_weights: NDArray[np.float64]

    @property
    def counts(self) -> tuple[int, int]:
        return len(self.from_truth), len(self.from_prediction)

    def share_within(self, tolerance: float) -> float:
        """Share of both surfaces that lies within `tolerance` of the other one."""
        within = self.truth_weights[self.from_truth <= tolerance * ROUNDING].sum()
        within += self.prediction_weights[self.from_prediction <= tolerance * ROUNDING].sum()
        return float(within / (self.truth_weights.sum() + self.prediction_weights.sum()))


@dataclass(frozen=True, eq=False)
class MaskGeometry:
    """A pair of masks and what the metrics need of them, each part computed when it is first asked for.

    Made by :func:`mask_geometry`. The masks are cropped to the bounding box of their union and have a rim of one voxel
    that says how they go on beyond it; their first axis is the slice axis.
    """

    truth: Mask
    prediction: Mask
    spacing: tuple[float, float, float]
    """mm, in the order of the axes of the masks here."""
    diagonal_mm: float
    """D, the diagonal of the field of view: the value of a distance to a surface that is not there."""

    @cached_property
    def voxels(self) -> tuple[int, int, int]:
        """Number of voxels in the truth, in the prediction, and in both."""
        truth, prediction = self.truth[INNER], self.prediction[INNER]
        return int(truth.sum()), int(prediction.sum()), int((truth & prediction).sum())

    @property
    def equal(self) -> bool:
        return len(set(self.voxels)) == 1

    @property
    def voxel_mm3(self) -> float:
        return float(np.prod(self.spacing))

    @cached_property
    def boundaries(self) -> tuple[Mask, Mask]:
        """Truth and prediction minus their 3D 6-connected erosion."""
        return _boundary(self.truth, axes=(0, 1, 2)), _boundary(self.prediction, axes=(0, 1, 2))

    @cached_property
    def in_plane(self) -> SurfaceDistances:
        """Between the boundary voxels (mask minus its 2D 4-connected erosion) of each slice, in voxels."""
        slices = zip(_boundary(self.truth, axes=(1, 2)), _boundary(self.prediction, axes=(1, 2)), strict=True)
        pairs = [(_to_nearest(t, p, (1, 1)), _to_nearest(p, t, (1, 1))) for t, p in slices]
        return _equal_weights(np.concatenate([t for t, _ in pairs]), np.concatenate([p for _, p in pairs]))

    @cached_property
    def voxel_steps(self) -> SurfaceDistances:
        """Between the boundary voxels in 3D, in voxels."""
        truth, prediction = self.boundaries
        return _equal_weights(_to_nearest(truth, prediction, (1, 1, 1)), _to_nearest(prediction, truth, (1, 1, 1)))

    @cached_property
    def voxel(self) -> SurfaceDistances:
        """Between the boundary voxels in 3D, in mm."""
        truth, prediction = self.boundaries
        return _equal_weights(
            _to_nearest(truth, prediction, self.spacing), _to_nearest(prediction, truth, self.spacing)
        )

    @cached_property
    def surface(self) -> SurfaceDistances:
        """Between the surface elements of marching cubes, in mm, weighted by their area in mm²."""
        areas = _element_areas(self.spacing)
        truth, prediction = areas[_cell_codes(self.truth)], areas[_cell_codes(self.prediction)]
        return SurfaceDistances(
            _to_nearest(truth > 0, prediction > 0, self.spacing),
            _to_nearest(prediction > 0, truth > 0, self.spacing),
            truth[truth > 0],
            prediction[prediction > 0],
        )

    def distances_mm(self, surface: Surface) -> SurfaceDistances:
        _check_choice("surface", surface, Surface)
        return self.voxel if surface == "voxel" else self.surface


def mask_geometry(
    truth: NDArray[Any],
    prediction: NDArray[Any],
    spacing: Sequence[float],
    slice_axis: int = 0,
    edge: Edge = "open",
) -> MaskGeometry:
    """Measure a pair of masks once, for all metrics.

    Args:
        truth, prediction: (X, Y, Z), bool, or integers 0 and 1.
        spacing: mm between voxel centres along X, Y, Z.
        slice_axis: the axis perpendicular to the slices of the in-plane boundary (0: sagittal slices along X).
        edge: "open", the edge of the field of view is no boundary; "closed", it is.

    Raises:
        ValueError: for masks of different shapes, of other than three axes or with other values, and for a spacing,
            a slice axis or an edge that cannot be used.
    """
    steps = _check_grid(truth := np.asarray(truth), prediction := np.asarray(prediction), spacing)
    _check_choice("edge", edge, Edge)
    if slice_axis not in (0, 1, 2):
        raise ValueError(f"slice_axis must be 0, 1 or 2, got {slice_axis!r}")
    truth, prediction = _as_mask("truth", truth), _as_mask("prediction", prediction)
    box = _bounding_box(truth | prediction)
    order = (slice_axis, *(axis for axis in range(3) if axis != slice_axis))
    diagonal = float(np.linalg.norm(np.multiply(truth.shape, steps)))

    def crop(mask: Mask) -> Mask:
        # the box has a margin of background except where it meets the edge of the field of view
        mode: Literal["edge", "constant"] = "edge" if edge == "open" else "constant"
        return np.ascontiguousarray(np.pad(mask[box], 1, mode=mode).transpose(order))

    return MaskGeometry(crop(truth), crop(prediction), (steps[order[0]], steps[order[1]], steps[order[2]]), diagonal)


def dice(geometry: MaskGeometry) -> float:
    """Dice = 2 |T ∩ P| / (|T| + |P|) of the voxels (Dice 1945), in [0, 1]."""
    truth, prediction, common = geometry.voxels
    return 2 * common / (truth + prediction) if truth + prediction else 1.0


def boundary_dice(geometry: MaskGeometry, plane: Plane = "in_plane", tolerance: float = 0) -> float:
    """Share of the boundary voxels of both masks that lie within `tolerance` voxels of the other's boundary, in [0, 1].

    `tolerance=0` is the strict score, 2 |∂T ∩ ∂P| / (|∂T| + |∂P|). "in_plane": the boundary ∂ is the mask minus its
    4-connected erosion in each slice, and distances are taken within the slice; "3d": minus its 6-connected erosion,
    distances in 3D. Distances are Euclidean, in voxels, whatever the spacing.
    """
    _check_choice("plane", plane, Plane)
    return _share_within(geometry, geometry.in_plane if plane == "in_plane" else geometry.voxel_steps, tolerance)


def nsd(geometry: MaskGeometry, tolerance_mm: float, surface: Surface = "surface") -> float:
    """Normalised surface Dice: share of both surfaces within `tolerance_mm` of the other (Nikolov et al. 2021)."""
    return _share_within(geometry, geometry.distances_mm(surface), tolerance_mm)


def hausdorff(geometry: MaskGeometry, percentile: float = 100, surface: Surface = "voxel") -> float:
    """Hausdorff distance in mm, HD95 with `percentile=95`: the larger of the two directed percentiles.

    Voxels: percentile with linear interpolation. Surface elements: the smallest distance that at least this
    percentage of the area does not exceed.
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile must be above 0 and at most 100, got {percentile!r}")
    distances = geometry.distances_mm(surface)

    def directed(values: NDArray[np.float32], weights: NDArray[np.float64]) -> float:
        if surface == "voxel":
            return float(np.percentile(values, percentile))
        return float(np.percentile(values, percentile, weights=weights, method="inverted_cdf"))

    return _distance(
        geometry,
        distances,
        lambda d: max(directed(d.from_truth, d.truth_weights), directed(d.from_prediction, d.prediction_weights)),
    )


def assd(geometry: MaskGeometry, surface: Surface = "voxel") -> float:
    """Average symmetric surface distance in mm: the mean over the elements of both surfaces together."""

    def pooled(d: SurfaceDistances) -> float:
        distances = np.concatenate([d.from_truth, d.from_prediction])
        return float(np.average(distances, weights=np.concatenate([d.truth_weights, d.prediction_weights])))

    return _distance(geometry, geometry.distances_mm(surface), pooled)


def masd(geometry: MaskGeometry, surface: Surface = "voxel") -> float:
    """Mean average surface distance in mm: the mean of the two directed averages, whatever the sizes."""
    return _distance(
        geometry,
        geometry.distances_mm(surface),
        lambda d: (
            float(
                np.average(d.from_truth, weights=d.truth_weights)
                + np.average(d.from_prediction, weights=d.prediction_weights)
            )
            / 2
        ),
    )


def boundary_iou(geometry: MaskGeometry, width_mm: float) -> float:
    """Intersection over union of the inner bands of both masks, after Cheng et al. 2021, in mm and 3D, in [0, 1].

    The band holds the voxels of a mask within `width_mm` of its nearest boundary voxel: with width 0 the boundary
    voxels themselves, with a large width the mask.
    """
    _check_tolerance("width_mm", width_mm)
    bands = []
    for mask, boundary in zip((geometry.truth[INNER], geometry.prediction[INNER]), geometry.boundaries, strict=True):
        band = np.zeros_like(mask)
        band[mask] = _to_nearest(mask, boundary, geometry.spacing) <= width_mm * ROUNDING
        bands.append(band)
    union = np.count_nonzero(bands[0] | bands[1])
    return np.count_nonzero(bands[0] & bands[1]) / union if union else float(geometry.equal)


def volume_error_percent(geometry: MaskGeometry) -> float:
    """100 (|P| − |T|) / |T|: positive if too large; −100 for a missed structure, infinity for an invented one."""
    truth, prediction, _ = geometry.voxels
    if truth == 0:
        return inf if prediction else 0.0
    return 100 * (prediction - truth) / truth


def volume_error_mm3(geometry: MaskGeometry) -> float:
    """|P| − |T| in mm³, positive if too large."""
    truth, prediction, _ = geometry.voxels
    return (prediction - truth) * geometry.voxel_mm3


@dataclass(frozen=True)
class Contract:
    """What a metric promises. D is the diagonal of the field of view, V the volume of the mask that is not empty."""

    formula: str
    unit: str
    range: str
    direction: Literal["higher", "lower", "nearer 0"]
    surface: str
    percentile: str
    both_empty: str
    one_empty: tuple[str, str]
    """The value of a missed structure, and of an invented one."""
    agrees_with: tuple[str, ...]
    differs_from: str
    function: Callable[[MaskGeometry], float] = field(compare=False)


_OVERLAP: dict[str, Any] = dict(
    unit="1", range="[0, 1]", direction="higher", percentile="–", both_empty="1", one_empty=("0", "0")
)
_DISTANCE: dict[str, Any] = dict(
    unit="mm", range="[0, D]", direction="lower", percentile="–", both_empty="0", one_empty=("D", "D")
)
_IN_PLANE, _3D, _ELEMENTS = "voxels, in-plane", "voxels, 3D", "marching-cubes elements by area"
_NAN = "both empty: surface-distance, MONAI and nnU-Net NaN"
_VOXEL_NAN = "both empty: MONAI NaN"
_ELEMENT_NAN = "both empty: surface-distance and MONAI NaN"
_EMPTY = "one empty: MONAI NaN, medpy an error"
_ELEMENT_EMPTY = "one empty: surface-distance inf"


def _contracts() -> dict[str, Contract]:
    contracts = {
        "dice": Contract(
            "2 |T∩P| / (|T|+|P|)", **_OVERLAP, surface="–", agrees_with=("surface-distance", "MONAI", "medpy"),
            differs_from=_NAN, function=dice,
        )
    }  # fmt: skip
    for plane, surface, words in (("in_plane", _IN_PLANE, "in the slice"), ("3d", _3D, "in 3D")):
        strict = Contract(
            "2 |∂T∩∂P| / (|∂T|+|∂P|)", **_OVERLAP, surface=surface, agrees_with=(),
            differs_from="contours of another thickness or connectivity",
            function=partial(boundary_dice, plane=plane),
        )  # fmt: skip
        contracts[f"boundary_dice_{plane}"] = strict
        for voxels in (1, 2, 3, 4):
            contracts[f"boundary_dice_{plane}_{voxels}vx"] = replace(
                strict,
                formula=f"share of ∂T and ∂P within 1, 2, 3, 4 voxels of the other, {words}",
                function=partial(boundary_dice, plane=plane, tolerance=voxels),
            )
    return contracts


METRICS: dict[str, Contract] = _contracts()
"""Every metric by the name of its column in a table of scores."""

DEFAULT_METRICS: tuple[str, ...] = tuple(METRICS)[:11]
"""Dice and boundary Dice: what the paper reports."""


def score_case(
    truth_labels: NDArray[Any],
    predicted_labels: NDArray[Any],
    spacing: Sequence[float],
    classes: Mapping[int, str],
    slice_axis: int = 0,
    metrics: Sequence[str] = DEFAULT_METRICS,
    edge: Edge = "open",
) -> list[dict[str, Any]]:
    """Score one predicted label map: a row for each structure, then "mean" and "merged".

    Args:
        truth_labels, predicted_labels: (X, Y, Z), integers: 0, the background, and the keys of `classes`.
        spacing: mm along X, Y, Z.
        classes: label → name of the structure; an entry for 0 names the background and is passed over.
        slice_axis, edge: see :func:`mask_geometry`.
        metrics: names in `METRICS`.

    Returns:
        Rows with `structure`, the flags `missed` (in the truth only), `invented` (in the prediction only) and
        `absent` (in neither), and a column for each metric. "mean" is the mean of the structures, each of which counts,
        missed ones with their worst value; its flags say whether there is such a structure. "merged" takes all
        structures as one mask.

    Raises:
        ValueError: for maps of different shapes, labels that are not integers or not in `classes`, a spacing that
            does not fit, a metric that does not exist, and classes that cannot be rows.
    """
    truth_labels, predicted_labels = np.asarray(truth_labels), np.asarray(predicted_labels)
    _check_grid(truth_labels, predicted_labels, spacing)
    structures = {int(label): name for label, name in classes.items() if label != 0}
    names = list(structures.values())
    if not names or len(set(names)) < len(names) or {"mean", "merged"} & set(names):
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
                f"{name} must hold 0 and the labels of classes {sorted(structures)} only, "
                f"got {np.unique(labels[~known]).tolist()} too; remap them or name them in classes"
            )

    def row(structure: str, truth: Mask, prediction: Mask) -> dict[str, Any]:
        geometry = mask_geometry(truth, prediction, spacing, slice_axis, edge)
        in_truth, in_prediction = (count > 0 for count in geometry.voxels[:2])
        flags = {
            "missed": in_truth and not in_prediction,
            "invented": in_prediction and not in_truth,
            "absent": not in_truth and not in_prediction,
        }
        return {"structure": structure, **flags, **{name: METRICS[name].function(geometry) for name in metrics}}

    rows = [row(name, truth_labels == label, predicted_labels == label) for label, name in structures.items()]
    mean: dict[str, Any] = {"structure": "mean"}
    mean |= {flag: any(r[flag] for r in rows) for flag in ("missed", "invented", "absent")}
    mean |= {name: float(np.mean([r[name] for r in rows])) for name in metrics}
    return [*rows, mean, row("merged", truth_labels != 0, predicted_labels != 0)]


def _share_within(geometry: MaskGeometry, distances: SurfaceDistances, tolerance: float) -> float:
    _check_tolerance("tolerance", tolerance)
    return distances.share_within(tolerance) if any(distances.counts) else float(geometry.equal)


def _distance(
    geometry: MaskGeometry, distances: SurfaceDistances, summary: Callable[[SurfaceDistances], float]
) -> float:
    if all(distances.counts):
        return summary(distances)
    return 0.0 if geometry.equal and not any(distances.counts) else geometry.diagonal_mm


def _boundary(mask: Mask, axes: Sequence[int]) -> Mask:
    """The mask without its rim, minus its erosion by both neighbours along each of `axes`."""
    eroded = mask[INNER].copy()
    for axis in axes:
        for neighbour in (slice(None, -2), slice(2, None)):
            eroded &= mask[(*INNER[:axis], neighbour, *INNER[axis + 1 :])]
    return mask[INNER] & ~eroded


def _to_nearest(source: Mask, target: Mask, spacing: Sequence[float]) -> NDArray[np.float32]:
    """From each voxel of source, in the order of the array, to the nearest of target; infinity if there is none."""
    if not source.any() or not target.any():
        return np.full(np.count_nonzero(source), inf, np.float32)
    return edt.edt(~target, anisotropy=tuple(spacing), black_border=False)[source]


def _equal_weights(from_truth: NDArray[np.float32], from_prediction: NDArray[np.float32]) -> SurfaceDistances:
    return SurfaceDistances(from_truth, from_prediction, np.ones(len(from_truth)), np.ones(len(from_prediction)))


def _cell_codes(mask: Mask) -> NDArray[np.uint8]:
    """For each cell between 2 × 2 × 2 voxels of the mask with its rim: which of the eight are in the mask, as bits."""
    codes = np.zeros(tuple(n - 1 for n in mask.shape), np.uint8)
    for bit, corner in enumerate(np.ndindex(2, 2, 2)):
        window = tuple(slice(i, i + n) for i, n in zip(corner, codes.shape, strict=True))
        codes |= mask[window].view(np.uint8) << bit
    return codes


@lru_cache(maxsize=16)
def _element_areas(spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    """Area in mm² of the marching-cubes surface within a cell, for each of the 256 codes of :func:`_cell_codes`."""
    areas = np.zeros(256)
    for code in range(1, 255):
        # marching cubes resolves ambiguous cells differently inside out: the smaller side, as surface-distance does,
        # gives a mask and its complement one surface
        smaller = code if code.bit_count() <= 4 else 255 - code
        cell = np.array([smaller >> bit & 1 for bit in range(8)], float).reshape(2, 2, 2)
        vertices, faces, *_ = marching_cubes(cell, 0.5, spacing=spacing, method="lorensen")
        areas[code] = mesh_surface_area(vertices, faces)
    return areas


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box that holds the mask, one voxel larger on each side where the array allows it."""
    box = [slice(0, 1)] * 3
    if mask.any():
        for axis in range(3):
            occupied = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
            box[axis] = slice(max(occupied[0] - 1, 0), occupied[-1] + 2)
    return tuple(box)


def _as_mask(name: str, mask: NDArray[Any]) -> Mask:
    if mask.dtype.kind in "iu" and mask.size and 0 <= mask.min() and mask.max() <= 1:
        return mask.astype(bool)
    if mask.dtype != bool:
        raise ValueError(
            f"{name} must be a mask, bool or integers 0 and 1, got dtype {mask.dtype} with values from {mask.min()} "
            f"to {mask.max()}; select one structure with labels == k"
        )
    return mask


def _check_grid(truth: NDArray[Any], prediction: NDArray[Any], spacing: Sequence[float]) -> tuple[float, ...]:
    if truth.shape != prediction.shape or truth.ndim != 3 or truth.size == 0:
        raise ValueError(
            "truth and prediction must be two volumes (X, Y, Z) on one grid, with voxels in it, "
            f"got shapes {truth.shape} and {prediction.shape}; resample the prediction to the truth's grid"
        )
    steps = tuple(float(step) for step in np.ravel(np.asarray(spacing, dtype=float)))
    if len(steps) != 3 or not all(np.isfinite(step) and step > 0 for step in steps):
        raise ValueError(f"spacing must hold three positive numbers of mm, for X, Y and Z, got {spacing!r}")
    return steps


def _check_choice(name: str, value: str, wanted: Any) -> None:
    if value not in get_args(wanted):
        raise ValueError(f"{name} must be one of {get_args(wanted)}, got {value!r}")


def _check_tolerance(name: str, value: float) -> None:
    if not 0 <= value < inf:
        raise ValueError(f"{name} must be finite and not negative, got {value!r}")
