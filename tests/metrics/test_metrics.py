"""Metrics: worked out by hand, by brute force, against other libraries, and held to what their definitions say."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable
from math import inf, isnan, nan, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from medpy.metric import binary as medpy
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_surface_dice,
)
from scipy import ndimage
from surface_distance import lookup_tables
from surface_distance import metrics as surface_distance

from shapeloss import metrics as m
from shapeloss.metrics.geometry import SMOOTHING, _element_areas
from shapeloss.metrics.triangles import corner_areas, surface_triangles

SPACING = (0.7, 0.365, 0.365)
ROOT = Path(__file__).parents[2]


pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:surface_distance"),
    pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning:surface_distance"),
    pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning:medpy"),
    pytest.mark.filterwarnings("ignore::FutureWarning:monai"),
    pytest.mark.filterwarnings("ignore:.*is all 0:UserWarning:monai"),
]


@pytest.fixture(autouse=True)
def _numpy_1_names(monkeypatch):
    """surface-distance 0.1 uses two names that NumPy 2 has dropped."""
    monkeypatch.setattr(np, "Inf", inf, raising=False)
    monkeypatch.setattr(np, "NaN", nan, raising=False)


def measure(truth, prediction, spacing=SPACING, **options):
    return m.mask_geometry(truth, prediction, spacing, **options)


def scores(truth, prediction, spacing=SPACING, **options):
    geometry = measure(truth, prediction, spacing, **options)
    return {name: definition.function(geometry) for name, definition in m.METRICS.items()}


def empty(*shape):
    return np.zeros(shape, bool)


def box(shape, *ranges):
    mask = empty(*shape)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


def points(shape, *voxels):
    mask = empty(*shape)
    for voxel in voxels:
        mask[voxel] = True
    return mask


def blobs(seed, shape=(14, 20, 22), margin=2):
    """Two similar random shapes, several parts each, that keep `margin` voxels from the edge."""
    rng = np.random.default_rng(seed)
    common = ndimage.gaussian_filter(rng.normal(size=shape), 2)
    masks = []
    for _ in range(2):
        field = common + 0.4 * ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
        mask = empty(*shape)
        inner = tuple(slice(margin, n - margin) for n in shape)
        mask[inner] = (field > np.quantile(field, 0.7))[inner]
        masks.append(mask)
    return masks


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_dice_of_two_overlapping_boxes():
    truth, prediction = box((4, 6, 6), (1, 3), (1, 4), (1, 4)), box((4, 6, 6), (1, 3), (2, 5), (1, 4))
    assert m.dice(measure(truth, prediction)) == 12 / 18


def test_strict_boundary_dice_of_two_boxes():
    # 5 × 5 in each of 3 slices, moved by one voxel along Y. In a slice, the rings have 16 voxels each and share the
    # 4 + 4 of the rows they both run along. In 3D the first and the last slice are boundary throughout: 25, 16, 25.
    shape = (5, 9, 9)
    truth, prediction = box(shape, (1, 4), (1, 6), (2, 7)), box(shape, (1, 4), (2, 7), (2, 7))
    geometry = measure(truth, prediction)
    assert m.boundary_dice(geometry) == 8 / 16
    assert m.boundary_dice(geometry, "3d") == (20 + 8 + 20) / (25 + 16 + 25)
    assert m.boundary_dice(geometry, tolerance=1) == m.boundary_dice(geometry, "3d", 1) == 1


def test_relaxed_boundary_dice_counts_voxels_not_mm():
    # 1 slice, 2 rows and 2 columns apart: √8 voxels
    truth, prediction = points((3, 6, 6), (1, 1, 1)), points((3, 6, 6), (1, 3, 3))
    geometry = measure(truth, prediction, (5.0, 0.1, 0.1))
    assert [m.boundary_dice(geometry, "in_plane", t) for t in (0, 1, 2, 3, 4)] == [0, 0, 0, 1, 1]
    assert m.boundary_dice(geometry, "3d", 2.82) == 0
    assert m.boundary_dice(geometry, "3d", sqrt(8)) == 1


def test_in_plane_boundary_stays_in_its_slice():
    truth, prediction = points((3, 6, 6), (1, 1, 1)), points((3, 6, 6), (2, 1, 1))
    geometry = measure(truth, prediction)
    assert m.boundary_dice(geometry, "in_plane", 4) == 0
    assert m.boundary_dice(geometry, "3d", 1) == 1
    assert m.boundary_dice(measure(truth, prediction, slice_axis=1), "in_plane", 1) == 1


def test_slice_axis_chooses_the_plane_of_the_boundary():
    # 1 × 5 × 5 voxels: a ring of 16 in its sagittal slice, all 25 in the others
    truth, prediction = box((3, 7, 7), (1, 2), (1, 6), (1, 6)), points((3, 7, 7), (1, 3, 3))
    assert m.boundary_dice(measure(truth, prediction), tolerance=0) == 0
    for axis in (1, 2):
        assert m.boundary_dice(measure(truth, prediction, slice_axis=axis)) == 2 / 26


def test_distances_of_a_missing_and_a_far_voxel():
    # truth: one voxel; prediction: the same and one 3 voxels further along Y, at 1.095 mm
    truth, prediction = points((3, 8, 3), (1, 2, 1)), points((3, 8, 3), (1, 2, 1), (1, 5, 1))
    geometry = measure(truth, prediction)
    assert m.hausdorff(geometry) == pytest.approx(1.095)
    assert m.hausdorff(geometry, 95) == pytest.approx(0.95 * 1.095)  # of the prediction's 0 and 1.095
    assert m.assd(geometry) == pytest.approx(1.095 / 3)
    assert m.masd(geometry) == pytest.approx((0 + 1.095 / 2) / 2)
    assert m.nsd(geometry, 1.0, "voxel") == 2 / 3
    assert m.nsd(geometry, 1.095, "voxel") == 1
    # 3 · 0.1 is a little more than 0.3 in binary
    assert m.nsd(measure(truth, prediction, (0.7, 0.1, 0.1)), 0.3, "voxel") == 1


def test_distance_follows_the_spacing_of_each_axis():
    for axis, step in enumerate((0.7, 0.365, 0.5)):
        there = [1, 1, 1]
        there[axis] = 3
        pair = points((5, 5, 5), (1, 1, 1)), points((5, 5, 5), tuple(there))
        for slice_axis in (0, 1, 2):
            geometry = measure(*pair, (0.7, 0.365, 0.5), slice_axis=slice_axis)
            assert m.hausdorff(geometry, surface="voxel") == pytest.approx(2 * step)
            assert m.hausdorff(geometry, surface="surface") == pytest.approx(2 * step)
    diagonal = measure(points((4, 4, 4), (0, 0, 0)), points((4, 4, 4), (1, 1, 2)))
    assert m.hausdorff(diagonal) == pytest.approx(sqrt(0.7**2 + 0.365**2 + 0.73**2))


def test_surface_elements_of_one_voxel():
    # eight corners cut off: triangles over half a voxel along each axis
    a, b, c = SPACING
    triangle = sqrt((a * b) ** 2 + (b * c) ** 2 + (c * a) ** 2) / 8
    voxel = points((3, 3, 3), (1, 1, 1))
    weights = measure(voxel, voxel).element_distances.truth_weights
    np.testing.assert_allclose(weights, [triangle] * 8)


def test_surface_elements_of_two_parallel_planes():
    # the masks fill the field of view up to x = 1 and x = 2: planes one slice apart, and no surface at the edges
    geometry = measure(box((6, 4, 5), (0, 2), (0, 4), (0, 5)), box((6, 4, 5), (0, 3), (0, 4), (0, 5)))
    np.testing.assert_allclose(geometry.element_distances.truth_weights, 0.365 * 0.365)
    assert m.nsd(geometry, 0.69) == 0
    assert m.nsd(geometry, 0.7) == 1
    for value in (m.hausdorff, m.assd, m.masd):
        assert value(geometry, surface="surface") == pytest.approx(0.7)


def test_surface_percentile_is_by_area():
    # The prediction has a speck 9 voxels off. It holds 8 of 104 elements, but they are small triangles: 95 % of the
    # area, not of the elements, lies on the box.
    shape, cube = (6, 20, 8), ((1, 5), (2, 6), (2, 6))
    truth = box(shape, *cube)
    prediction = truth | points(shape, (2, 14, 3))
    d = measure(truth, prediction).element_distances
    far = d.from_prediction > 0
    assert far.sum() == 8
    assert far.mean() > 0.05 > d.prediction_weights[far].sum() / d.prediction_weights.sum()
    assert m.hausdorff(measure(truth, prediction), 95, "surface") == 0
    assert m.hausdorff(measure(truth, prediction), 95, "voxel") == 0
    assert m.hausdorff(measure(truth, prediction), 100, "surface") == pytest.approx(9 * 0.365)


def test_surface_percentile_that_is_covered_exactly():
    truth, prediction = box((5, 4, 4), (2, 4), (1, 2), (1, 4)), box((5, 4, 4), (1, 4), (0, 3), (0, 1))
    value = m.hausdorff(measure(truth, prediction, edge="closed"), 50, "surface")  # half of the area lies as near
    distances = surface_distance.compute_surface_distances(truth, prediction, SPACING)
    assert value == pytest.approx(surface_distance.compute_robust_hausdorff(distances, 50)) == pytest.approx(0.365)


def test_boundary_iou_of_two_slabs():
    # slabs up to x = 3 and x = 4, boundaries there; bands of 1, 2 and 3 slices; the step is 0.7 mm
    geometry = measure(box((8, 4, 4), (0, 4), (0, 4), (0, 4)), box((8, 4, 4), (0, 5), (0, 4), (0, 4)))
    assert [m.boundary_iou(geometry, width) for width in (0, 0.69, 0.7, 1.4)] == [0, 0, 1 / 3, 2 / 4]
    assert m.boundary_iou(geometry, 100) == 4 / 5


def test_volume_errors():
    truth, prediction = box((4, 4, 4), (0, 2), (0, 2), (0, 2)), box((4, 4, 4), (0, 3), (0, 2), (0, 2))
    assert m.volume_error_percent(measure(truth, prediction)) == 50
    assert m.volume_error_percent(measure(prediction, truth)) == pytest.approx(-100 / 3)
    assert m.volume_error_mm3(measure(truth, prediction)) == pytest.approx(4 * 0.7 * 0.365 * 0.365)


# --- degenerate masks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 5, 6), (1, 1, 1)])
@pytest.mark.parametrize("edge", ["open", "closed"])
def test_equal_masks_score_the_best(shape, edge):
    full = ~empty(*shape)
    for mask in (empty(*shape), full, points(shape, (0, 0, 0)), points(shape, tuple(n - 1 for n in shape))):
        values = scores(mask, mask, edge=edge)
        for name, definition in m.METRICS.items():
            assert values[name] == (1 if definition.direction == "higher" else 0), name


def test_a_full_mask_has_no_boundary_unless_the_edge_is_one():
    full, hollow = ~empty(4, 5, 6), ~points((4, 5, 6), (2, 2, 2))
    diagonal = pytest.approx(np.linalg.norm(np.multiply((4, 5, 6), SPACING)))
    for truth, prediction in ((full, hollow), (hollow, full), (full, empty(4, 5, 6)), (empty(4, 5, 6), full)):
        geometry = measure(truth, prediction)
        assert m.boundary_dice(geometry) == m.boundary_dice(geometry, "3d", 4) == m.nsd(geometry, 2) == 0
        assert m.boundary_iou(geometry, 2) == 0
        for distance in (m.hausdorff, m.assd, m.masd):
            assert distance(geometry, surface="voxel") == distance(geometry, surface="surface") == diagonal
    # from beside the hole, (1, 2, 2), to the slice x = 0, now a boundary: 0.7; to y = 0 it is 0.73
    assert m.hausdorff(measure(full, hollow, edge="closed")) == pytest.approx(0.7)


def test_without_any_boundary_different_masks_score_the_worst():
    # in-plane, each slice is full or empty: nothing to compare but the masks themselves
    truth, prediction = box((4, 3, 3), (1, 2), (0, 3), (0, 3)), box((4, 3, 3), (2, 3), (0, 3), (0, 3))
    assert m.boundary_dice(measure(truth, prediction), "in_plane", 4) == 0
    assert m.boundary_dice(measure(truth, truth)) == 1


def test_edge_of_the_field_of_view_counts_only_if_asked_for():
    # a shaft that leaves the image through the last row: its ring is open there
    shaft = box((3, 6, 7), (1, 2), (2, 6), (1, 6))
    assert len(measure(shaft, shaft).in_plane_distances_vx.from_truth) == 4 + 4 + 3
    assert len(measure(shaft, shaft, edge="closed").in_plane_distances_vx.from_truth) == 2 * 5 + 2 * 2
    # the rim of a cropped box inside the image is background, whatever the edge
    inner = box((9, 9, 9), (3, 6), (3, 6), (3, 6))
    opened, closed = scores(inner, np.roll(inner, 1, 2)), scores(inner, np.roll(inner, 1, 2), edge="closed")
    assert opened == closed


# --- brute force -----------------------------------------------------------------------------------------------------


def brute_boundary(mask, axes, edge):
    """Voxels of the mask that have a neighbour outside it, one voxel at a time."""
    voxels = []
    for voxel in np.argwhere(mask):
        for axis, step in itertools.product(axes, (-1, 1)):
            neighbour = voxel.copy()
            neighbour[axis] += step
            within = 0 <= neighbour[axis] < mask.shape[axis]
            if (within and not mask[tuple(neighbour)]) or (not within and edge == "closed"):
                voxels.append(tuple(voxel))
                break
    return np.array(voxels, float).reshape(-1, 3)


def brute_cells(mask, spacing, edge):
    """Centres and areas of the cells that the surface crosses, with the areas of surface-distance's table."""
    table = lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
    kernel = np.array(lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL)
    padded = np.pad(mask, 1, mode="edge") if edge == "open" else np.pad(mask, 1)
    centres, areas = [], []
    for corner in np.ndindex(*(n - 1 for n in padded.shape)):
        cell = padded[tuple(slice(i, i + 2) for i in corner)]
        if cell.any() and not cell.all():
            centres.append(corner)
            areas.append(table[(kernel * cell).sum()])
    return np.array(centres, float).reshape(-1, 3), np.array(areas, float)


def brute_distances(a, b, spacing):
    if len(a) == 0 or len(b) == 0:
        return np.full(len(a), inf), np.full(len(b), inf)
    every = np.linalg.norm((a[:, None] - b[None]) * spacing, axis=-1)
    return every.min(1), every.min(0)


def brute_triangle_distances(points, corners, triangles):
    """By the two ways to be nearest: above the inside of a triangle, or of one of its sides; ends included."""
    a, b, c = corners[triangles].transpose(1, 0, 2)[:, None]
    nearest = np.full((len(points), len(triangles)), inf)
    for start, end in ((a, b), (b, c), (c, a)):
        side, away = end - start, points[:, None] - start
        along = np.clip((away * side).sum(-1) / (side**2).sum(-1), 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(away - along[..., None] * side, axis=-1))
    normal = np.cross(b - a, c - a)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    height = ((points[:, None] - a) * normal).sum(-1)
    foot = points[:, None] - height[..., None] * normal
    above = np.ones(nearest.shape, bool)
    for start, end in ((a, b), (b, c), (c, a)):
        above &= (np.cross(end - start, foot - start) * normal).sum(-1) >= 0
    return np.where(above, np.abs(height), nearest).min(1)


def weighted_percentile(values, weights, percentage):
    order = np.argsort(values)
    covered = np.cumsum(weights[order]) / weights.sum()
    return values[order][np.flatnonzero(covered >= percentage / 100 - 1e-12)[0]]


def brute_scores(truth, prediction, spacing, slice_axis, edge):
    equal, diagonal = bool((truth == prediction).all()), np.linalg.norm(np.multiply(truth.shape, spacing))
    size = truth.sum() + prediction.sum()
    expected = {"dice": 2 * (truth & prediction).sum() / size if size else 1.0}

    def share(distances, weights, tolerance):
        total = sum(w.sum() for w in weights)
        if total == 0:
            return float(equal)
        return sum(w[d <= tolerance + 1e-9].sum() for d, w in zip(distances, weights, strict=True)) / total

    def distance(distances, function):
        if all(len(d) for d in distances):
            return function()
        return 0.0 if equal and not any(len(d) for d in distances) else diagonal

    for plane in ("in_plane", "3d"):
        axes = [axis for axis in range(3) if plane == "3d" or axis != slice_axis]
        steps = np.array([1.0 if axis in axes else 1e6 for axis in range(3)])
        pair = [brute_boundary(mask, axes, edge) for mask in (truth, prediction)]
        distances = brute_distances(*pair, steps)
        for t in range(5):
            name = f"boundary_dice_{plane}" + (f"_{t}vx" if t else "")
            expected[name] = share(distances, [np.ones(len(p)) for p in pair], t)
    for surface in ("voxel", "surface"):
        if surface == "voxel":
            pair = [brute_boundary(mask, (0, 1, 2), edge) for mask in (truth, prediction)]
            weights = [np.ones(len(p)) for p in pair]
        else:
            cells = [brute_cells(mask, spacing, edge) for mask in (truth, prediction)]
            pair, weights = [c for c, _ in cells], [a for _, a in cells]
        d = brute_distances(*pair, spacing)
        for mm in (0.5, 1, 2):
            expected[f"nsd_{surface}_{mm}mm"] = share(d, weights, mm)
        expected[f"hd_{surface}_mm"] = distance(d, lambda d=d: max(d[0].max(), d[1].max()))
        if surface == "voxel":
            hd95 = lambda d=d: max(np.percentile(d[0], 95), np.percentile(d[1], 95))  # noqa: E731
        else:
            hd95 = lambda d=d, w=weights: max(weighted_percentile(d[i], w[i], 95) for i in (0, 1))  # noqa: E731
        expected[f"hd95_{surface}_mm"] = distance(d, hd95)
        sums = [(v * w).sum() for v, w in zip(d, weights, strict=True)]
        totals = [w.sum() for w in weights]
        expected[f"assd_{surface}_mm"] = distance(d, lambda s=sums, t=totals: sum(s) / sum(t))
        expected[f"masd_{surface}_mm"] = distance(d, lambda s=sums, t=totals: (s[0] / t[0] + s[1] / t[1]) / 2)
    bands = []
    for mask in (truth, prediction):
        boundary = brute_boundary(mask, (0, 1, 2), edge) * spacing
        near = [
            v for v in np.argwhere(mask) if len(boundary) and np.linalg.norm(boundary - v * spacing, axis=1).min() <= 2
        ]
        bands.append({tuple(v) for v in near})
    union = len(bands[0] | bands[1])
    expected["boundary_iou_2mm"] = len(bands[0] & bands[1]) / union if union else float(equal)
    difference = int(prediction.sum()) - int(truth.sum())
    expected["volume_error_mm3"] = difference * np.prod(spacing)
    expected["volume_error_percent"] = 100 * difference / truth.sum() if truth.any() else (inf if difference else 0.0)
    return expected


@st.composite
def mask_pairs(draw):
    shape = draw(st.tuples(*[st.integers(1, 5)] * 3))
    fill = draw(st.sampled_from([0.05, 0.5, 0.95]))
    values = arrays(float, (2, *shape), elements=st.floats(0, 1, width=16))
    truth, prediction = draw(values) < fill
    return truth, prediction


@settings(max_examples=150, deadline=None)
@given(
    mask_pairs(),
    st.sampled_from([SPACING, (1.0, 1.0, 1.0), (0.4, 3.0, 0.55)]),
    st.sampled_from([0, 1, 2]),
    st.sampled_from(["open", "closed"]),
)
def test_every_metric_equals_brute_force(pair, spacing, slice_axis, edge):
    expected = brute_scores(*pair, np.array(spacing), slice_axis, edge)
    found = scores(*pair, spacing, slice_axis=slice_axis, edge=edge)
    assert {name: found[name] for name in found if "mesh" not in name} == pytest.approx(expected, abs=1e-9)


def test_element_areas_equal_surface_distances_table():
    table = lookup_tables.create_table_neighbour_code_to_surface_area(SPACING)
    assert sorted(_element_areas(SPACING)) == pytest.approx(sorted(table))


# --- other libraries -------------------------------------------------------------------------------------------------


def monai(function, **options):
    def value(truth, prediction, spacing):
        as_batch = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth)]
        return float(
            function(*as_batch, include_background=True, **options, **({"spacing": spacing} if spacing else {}))
        )

    return value


def monai_dice(truth, prediction, spacing):
    return float(compute_dice(*[torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth)]))


def monai_in_slices(tolerance):
    def value(truth, prediction, spacing):
        return monai(compute_surface_dice, class_thresholds=[tolerance])(truth[0], prediction[0], (1, 1))

    return value


def deepmind(function):
    def value(truth, prediction, spacing):
        return float(function(surface_distance.compute_surface_distances(truth, prediction, spacing)))

    return value


def with_medpy(function):
    return lambda truth, prediction, spacing: function(prediction, truth, spacing)


def medpy_masd(truth, prediction, spacing):
    return (medpy.asd(prediction, truth, spacing) + medpy.asd(truth, prediction, spacing)) / 2


Oracle = Callable[[np.ndarray, np.ndarray, tuple[float, ...]], float]
# metric and statement of its definition: what the statement stands for
ORACLES: dict[tuple[str, str], Oracle] = {
    ("dice", "surface-distance"): lambda t, p, s: surface_distance.compute_dice_coefficient(t, p),
    ("dice", "MONAI"): monai_dice,
    ("dice", "medpy"): lambda t, p, s: medpy.dc(p, t),
    ("hd_voxel_mm", "MONAI"): monai(compute_hausdorff_distance),
    ("hd_voxel_mm", "medpy"): with_medpy(medpy.hd),
    ("hd95_voxel_mm", "MONAI"): monai(compute_hausdorff_distance, percentile=95),
    ("assd_voxel_mm", "MONAI"): monai(compute_average_surface_distance, symmetric=True),
    ("assd_voxel_mm", "medpy"): with_medpy(medpy.assd),
    ("masd_voxel_mm", "medpy (mean of both ASD)"): medpy_masd,
    ("hd_surface_mm", "surface-distance"): deepmind(lambda d: surface_distance.compute_robust_hausdorff(d, 100)),
    ("hd95_surface_mm", "surface-distance"): deepmind(lambda d: surface_distance.compute_robust_hausdorff(d, 95)),
    ("masd_surface_mm", "surface-distance (mean of both means)"): deepmind(
        lambda d: np.mean(surface_distance.compute_average_surface_distance(d))
    ),
    ("volume_error_percent", "medpy (RAVD)"): lambda t, p, s: 100 * medpy.ravd(p, t),
}
for mm in (0.5, 1, 2):
    ORACLES[f"nsd_voxel_{mm}mm", "MONAI"] = monai(compute_surface_dice, class_thresholds=[mm])
    ORACLES[f"nsd_surface_{mm}mm", "MONAI (subvoxel)"] = monai(
        compute_surface_dice, class_thresholds=[mm], use_subvoxels=True
    )
    ORACLES[f"nsd_surface_{mm}mm", "surface-distance"] = deepmind(
        lambda d, mm=mm: surface_distance.compute_surface_dice_at_tolerance(d, mm)
    )
for t in range(5):
    suffix = f"_{t}vx" if t else ""
    ORACLES[f"boundary_dice_in_plane{suffix}", "MONAI (surface Dice of a slice, spacing 1)"] = monai_in_slices(t)
    of_volume = f"boundary_dice_3d{suffix}", "MONAI (surface Dice of the volume, spacing 1)"
    ORACLES[of_volume] = lambda truth, prediction, _, t=t: monai(compute_surface_dice, class_thresholds=[t])(
        truth, prediction, (1, 1, 1)
    )


def library_of(statement):
    return statement.split(" (")[0]


def oracle(name, library):
    (found,) = [
        function for (metric, said), function in ORACLES.items() if (metric, library_of(said)) == (name, library)
    ]
    return found


def test_every_agreement_that_a_definition_states_is_tested_and_no_other():
    stated = {
        (name, statement)
        for name, definition in m.METRICS.items()
        for statement in re.split(r", (?![^(]*\))", definition.agrees_with)
        if statement != "–"
    }
    assert stated == set(ORACLES)


def in_a_slice(name, truth, prediction):
    """MONAI has a slice for this metric, not a stack of them."""
    if not name.startswith("boundary_dice_in_plane"):
        return truth, prediction
    middle = int(np.argmax((truth | prediction).sum((1, 2))))
    return truth[middle : middle + 1], prediction[middle : middle + 1]


def agree(name, statement, truth, prediction, spacing, edge, relative=1e-5):
    truth, prediction = in_a_slice(name, truth, prediction)
    ours = m.METRICS[name].function(measure(truth, prediction, spacing, edge=edge))
    assert ours == pytest.approx(ORACLES[name, statement](truth, prediction, spacing), rel=relative), (name, statement)


@pytest.mark.parametrize(("name", "statement"), ORACLES)
def test_agrees_with(name, statement):
    for seed in range(3):
        agree(name, statement, *blobs(seed), SPACING, "open")
        agree(name, statement, *blobs(seed, margin=0), (0.9, 0.41, 0.6), "closed")


@pytest.mark.parametrize("library", ["surface-distance", "MONAI", "medpy"])
def test_agrees_on_a_real_knee(library):
    folder = Path(os.environ.get("SHAPELOSS_KNEE_PAIR", ROOT.parent / "shared" / "data" / "knee_correction_pair"))
    if not (folder / "segmentation_corrected.nrrd").is_file():
        pytest.skip("SHAPELOSS_KNEE_PAIR names no folder with segmentation.nrrd and segmentation_corrected.nrrd")
    sitk = pytest.importorskip("SimpleITK")
    images = [sitk.ReadImage(f"{folder}/{name}.nrrd") for name in ("segmentation_corrected", "segmentation")]
    truth, prediction = (np.rint(sitk.GetArrayFromImage(image)).astype(int) for image in images)  # (Z, Y, X)
    spacing = images[0].GetSpacing()[::-1]
    for label, (name, statement) in itertools.product((1, 2, 3), ORACLES):
        if library_of(statement) == library:
            agree(name, statement, truth == label, prediction == label, spacing, "closed", relative=1e-4)


EMPTY, BOX, OFF = empty(6, 8, 8), box((6, 8, 8), (1, 3), (1, 4), (1, 4)), box((6, 8, 8), (3, 5), (3, 7), (2, 6))


def is_error(function):
    with pytest.raises(RuntimeError):
        function()
    return True


# one voxel, and that voxel with another one far from it
NEAR, FAR = points((3, 8, 3), (1, 2, 1)), points((3, 8, 3), (1, 2, 1), (1, 5, 1))
LARGE = box((20, 30, 30), (2, 18), (2, 25), (2, 28))


def both_and_one_empty(name, library):
    value = oracle(name, library)
    return value(EMPTY, EMPTY, SPACING), value(BOX, EMPTY, SPACING), value(EMPTY, BOX, SPACING)


DIFFERENCES: dict[str, Callable[[str], bool]] = {
    "both empty: MONAI NaN": lambda name: isnan(both_and_one_empty(name, "MONAI")[0]),
    "both empty: surface-distance NaN": lambda name: isnan(both_and_one_empty(name, "surface-distance")[0]),
    "one empty: MONAI ∞": lambda name: both_and_one_empty(name, "MONAI")[1:] == (inf, inf),
    "any empty: MONAI NaN": lambda name: all(map(isnan, both_and_one_empty(name, "MONAI"))),
    "any empty: surface-distance ∞": lambda name: both_and_one_empty(name, "surface-distance") == (inf, inf, inf),
    "any empty: surface-distance NaN": lambda name: all(map(isnan, both_and_one_empty(name, "surface-distance"))),
    "both empty: medpy NaN": lambda name: isnan(both_and_one_empty(name, "medpy")[0]),
    "truth empty: MONAI NaN": lambda name: [isnan(value) for value in both_and_one_empty(name, "MONAI")] == [1, 0, 1],
    "any empty: medpy error": lambda name: all(
        is_error(lambda pair=pair: oracle(name, "medpy")(*pair, SPACING))
        for pair in ((EMPTY, EMPTY), (BOX, EMPTY), (EMPTY, BOX))
    ),
    "truth empty: medpy error": lambda name: is_error(lambda: oracle(name, "medpy")(EMPTY, BOX, SPACING)),
    "medpy: percentile of the pooled distances": lambda name: (
        (medpy.hd95(FAR, NEAR, SPACING), scores(NEAR, FAR)[name])
        == pytest.approx((0.9 * 1.095, 0.95 * 1.095))  # of 0, 0, 1.095; of 0, 1.095
    ),
    "surface-distance: two directed means": lambda name: (
        scores(NEAR, FAR)[name] != pytest.approx(oracle("masd_surface_mm", "surface-distance")(NEAR, FAR, SPACING))
    ),
    "boundary IoU in pixels": lambda name: (
        scores(LARGE, np.roll(LARGE, 1, 2))[name] != scores(LARGE, np.roll(LARGE, 1, 2), (1, 1, 1))[name]
    ),
}


def differences(definition):
    for part in definition.differs_from.split("; "):
        if part != "–":
            where, *what = part.split(": ", 1)
            yield from (f"{where}: {item}" for item in what[0].split(", ")) if what else [where]


@pytest.mark.parametrize("name", m.METRICS)
def test_differs_from(name):
    for statement in differences(m.METRICS[name]):
        assert DIFFERENCES[statement](name), statement


@pytest.mark.parametrize(("name", "statement"), ORACLES)
def test_a_library_differs_on_empty_masks_where_the_definition_says_so_and_nowhere_else(name, statement):
    said = set(differences(m.METRICS[name]))
    for truth, prediction, words in (
        (EMPTY, EMPTY, ("both empty", "any empty", "truth empty")),
        (BOX, EMPTY, ("one empty", "any empty")),
        (EMPTY, BOX, ("one empty", "any empty", "truth empty")),
    ):
        pair = in_a_slice(name, truth, prediction)
        ours = m.METRICS[name].function(measure(*pair))
        try:
            theirs = ORACLES[name, statement](*pair, SPACING)
        except RuntimeError:
            theirs = None
        stated = any(each.startswith(f"{word}: {library_of(statement)}") for each in said for word in words)
        assert stated == (theirs != ours), (words[0], ours, theirs)


# --- definitions ----------------------------------------------------------------------------------------------------

MESH = f"mesh of the mask smoothed by {SMOOTHING} voxels, by area"
GIVEN = ("truth", "prediction", "spacing", "diagonal", "smoothing_voxels")
"""What a geometry has before anything is measured."""


def symbol(text, structure=EMPTY):
    """The number that a definition's word stands for, in the field of view of `structure`."""
    sign, name = (-1, text[1:]) if text.startswith("−") else (1, text)
    diagonal = np.linalg.norm(np.multiply(structure.shape, SPACING))
    known = {"D": diagonal, "V": structure.sum() * np.prod(SPACING), "∞": inf}
    return sign * known[name] if name in known else sign * float(name)


@pytest.mark.parametrize("name", m.METRICS)
def test_definition_of_empty_masks(name):
    definition = m.METRICS[name]
    assert scores(EMPTY, EMPTY)[name] == symbol(definition.both_empty)
    for structure in (BOX, points((6, 8, 8), (0, 0, 7))):
        assert scores(structure, EMPTY)[name] == pytest.approx(symbol(definition.missed, structure))
        assert scores(EMPTY, structure)[name] == pytest.approx(symbol(definition.false_positive, structure))


@settings(max_examples=40, deadline=None)
@given(mask_pairs(), st.sampled_from(["open", "closed"]))
def test_definition_of_range(pair, edge):
    for name, value in scores(*pair, edge=edge).items():
        low, high = m.METRICS[name].range.strip("[]()").split(", ")
        assert symbol(low, pair[0]) <= value <= symbol(high, pair[0]) * (1 + 1e-9) + 1e-9, name


@pytest.mark.parametrize("name", m.METRICS)
def test_definition_of_direction(name):
    definition = m.METRICS[name]
    structure = box((9, 40, 9), (2, 7), (3, 10), (2, 7))
    if definition.direction == "nearer 0":  # larger and larger predictions
        predictions = [box((9, 40, 9), (2, 7), (3, 10 + n), (2, 7)) for n in (0, 2, 6, 14)]
    else:
        predictions = [np.roll(structure, n, axis=1) for n in (0, 2, 6, 14)]
    values = [scores(structure, p)[name] for p in predictions]
    errors = {"higher": 1 - np.array(values), "lower": np.array(values), "nearer 0": np.abs(values)}
    errors = errors[definition.direction]
    assert errors[0] == 0
    assert (np.diff(errors) >= 0).all()
    assert errors[-1] > errors[0]
    if definition.direction != "nearer 0":  # a missed structure is no better than a far one
        missed = scores(structure, empty(9, 40, 9))[name]
        assert missed <= values[-1] if definition.direction == "higher" else missed > values[-1]


@pytest.mark.parametrize("name", m.METRICS)
def test_definition_of_unit(name):
    """Twice the spacing: mm double, mm³ are eightfold, the rest stays, unless the name holds a length."""
    truth, prediction = blobs(7)
    definition = m.METRICS[name]
    if name.startswith(("nsd", "boundary_iou")):
        length = {"nsd": "tolerance_mm", "bou": "width_mm"}[name[:3]]
        mm = definition.function.keywords[length]
        assert name.endswith(f"_{mm}mm")
        twice = definition.function(measure(truth, prediction, np.multiply(SPACING, 2)), **{length: 2 * mm})
    else:
        assert name.endswith({"mm": "_mm", "mm³": "_mm3", "%": "_percent", "1": ""}[definition.unit])
        twice = definition.function(measure(truth, prediction, np.multiply(SPACING, 2)))
    once = definition.function(measure(truth, prediction))
    assert twice == pytest.approx({"mm": 2, "mm³": 8, "%": 1, "1": 1}[definition.unit] * once)
    assert once != 0


@pytest.mark.parametrize("name", m.METRICS)
def test_definition_of_surface(name):
    """Which part of the geometry a metric reads."""
    read = {
        "voxels, 4 neighbours in the slice": "in_plane_distances_vx",
        "voxels, 6 neighbours": "distances_vx" if name.startswith("boundary_dice") else "voxel_distances",
        "elements by area": "element_distances",
        MESH: "mesh_distances",
        "–": "voxels",
    }[m.METRICS[name].surface]
    geometry = measure(BOX, OFF)
    m.METRICS[name].function(geometry)
    computed = set(vars(geometry)) - {*GIVEN, "boundaries"}
    assert computed == ({read} if name != "boundary_iou_2mm" else set())


# --- formulas of the definitions, read word by word ---


class Parts:
    """What the words of a definition stand for, by brute force."""

    def __init__(self, name, truth, prediction):
        definition = m.METRICS[name]
        self.t, self.p = truth, prediction
        if definition.surface == "–":
            return
        in_voxels = name.startswith("boundary_dice")
        spacing = np.array((1, 1, 1) if in_voxels else SPACING, float)
        if definition.surface == "elements by area":
            cells = [brute_cells(mask, SPACING, "open") for mask in (truth, prediction)]
            self.bt, self.bp = (centres for centres, _ in cells)
            self.wt, self.wp = (areas for _, areas in cells)
        elif definition.surface == MESH:
            # the pair in one box, three voxels larger than both on each side: the grid of the triangles rests on it
            box = m.mask_geometry(truth, prediction, SPACING)
            masks = [np.pad(mask, 1) for mask in (box.truth, box.prediction)]
            meshes = [surface_triangles(mask, SPACING, SMOOTHING) for mask in masks]
            self.wt, self.wp = (corner_areas(*mesh) for mesh in meshes)
            self.d_tp = brute_triangle_distances(meshes[0][0], *meshes[1])
            self.d_pt = brute_triangle_distances(meshes[1][0], *meshes[0])
        else:
            axes = {"voxels, 4 neighbours in the slice": (1, 2), "voxels, 6 neighbours": (0, 1, 2)}[definition.surface]
            spacing[0] = spacing[0] if 0 in axes else 1e6
            self.bt, self.bp = (brute_boundary(mask, axes, "open") for mask in (truth, prediction))
            self.wt, self.wp = np.ones(len(self.bt)), np.ones(len(self.bp))
        if definition.surface != MESH:
            self.d_tp, self.d_pt = brute_distances(self.bt, self.bp, spacing)
        number = re.search(r"([\d.]+)(vx|mm)$", name)
        self.so_many = float(number[1]) if number else None
        self.percentile = PERCENTILES[definition.percentile]

    def common_boundary(self):
        return len(set(map(tuple, self.bt)) & set(map(tuple, self.bp)))

    def share(self):
        near = self.wt[self.d_tp <= self.so_many + 1e-9].sum() + self.wp[self.d_pt <= self.so_many + 1e-9].sum()
        return near / (self.wt.sum() + self.wp.sum())

    def band_iou(self):
        bands = []
        for mask, boundary in ((self.t, self.bt), (self.p, self.bp)):
            away = [np.linalg.norm((boundary - voxel) * SPACING, axis=1).min() for voxel in np.argwhere(mask)]
            bands.append({tuple(v) for v, far in zip(np.argwhere(mask), away, strict=True) if far <= 2})
        return len(bands[0] & bands[1]) / len(bands[0] | bands[1])


def no_percentile(values, weights):
    raise AssertionError("the definition names no percentile")


PERCENTILES = {
    "–": no_percentile,
    "95, linear": lambda values, weights: np.percentile(values, 95),
    "95: the least d that covers so much area": lambda values, weights: weighted_percentile(values, weights, 95),
}
FORMULAS: dict[str, Callable[[Parts], float]] = {
    "2 |T∩P| / (|T|+|P|)": lambda q: 2 * (q.t & q.p).sum() / (q.t.sum() + q.p.sum()),
    "2 |∂T∩∂P| / (|∂T|+|∂P|)": lambda q: 2 * q.common_boundary() / (len(q.bt) + len(q.bp)),
    "share of ∂T and ∂P within so many voxels of the other": Parts.share,
    "share of ∂T and ∂P within so many mm of the other": Parts.share,
    "larger of max d(∂T, ∂P), max d(∂P, ∂T)": lambda q: max(q.d_tp.max(), q.d_pt.max()),
    "larger of the two directed percentiles": lambda q: max(q.percentile(q.d_tp, q.wt), q.percentile(q.d_pt, q.wp)),
    "mean of d over ∂T and ∂P together": lambda q: np.average(
        np.concatenate([q.d_tp, q.d_pt]), weights=np.concatenate([q.wt, q.wp])
    ),
    "mean of mean d(∂T, ∂P), mean d(∂P, ∂T)": lambda q: (
        (np.average(q.d_tp, weights=q.wt) + np.average(q.d_pt, weights=q.wp)) / 2
    ),
    "IoU of the voxels of T within 2 mm of ∂T and those of P of ∂P": Parts.band_iou,
    "100 (|P|−|T|) / |T|": lambda q: 100 * (q.p.sum() - q.t.sum()) / q.t.sum(),
    "|P|−|T|": lambda q: (q.p.sum() - q.t.sum()) * np.prod(SPACING),
}


@pytest.mark.parametrize("name", m.METRICS)
def test_definition_of_formula_and_percentile(name):
    definition = m.METRICS[name]
    # a box that reaches 3 mm beyond the truth, which no tolerance covers; two voxels, one of which is far
    pairs = [(blobs(5, (10, 14, 16))[0], box((10, 14, 16), (2, 5), (3, 9), (2, 14))), (NEAR, FAR)]
    values = pytest.approx([definition.function(measure(*pair)) for pair in pairs], abs=1e-9)
    parts = [Parts(name, *pair) for pair in pairs]
    assert [FORMULAS[definition.formula](each) for each in parts] == values
    assert ("voxels of the other" in definition.formula) == name.endswith("vx")
    assert ("percentile" in definition.formula) == (definition.percentile != "–")
    if definition.unit == "mm":  # another mean or another rule would be seen
        for formula in ("mean of d over ∂T and ∂P together", "mean of mean d(∂T, ∂P), mean d(∂P, ∂T)"):
            assert formula == definition.formula or [FORMULAS[formula](each) for each in parts] != values
        for rule in set(PERCENTILES) - {"–"}:
            found = [max(PERCENTILES[rule](q.d_tp, q.wt), PERCENTILES[rule](q.d_pt, q.wp)) for q in parts]
            assert rule == definition.percentile or found != values


def test_definition_table_has_a_row_for_each_definition():
    lines = m.definition_table().splitlines()
    for name, definition in m.METRICS.items():
        (row,) = [line for line in lines if f"`{name}`" in line]
        cells = [cell.strip().replace("\\|", "|") for cell in row.replace("\\|", "¦").strip("|").split("|")]
        assert len(cells) == lines[0].count("|") - 1
        for column in ("formula", "unit", "range", "both_empty", "agrees_with"):
            value = getattr(definition, column)
            assert value in [cell.replace("¦", "|") for cell in cells]


def test_the_definitions_name_the_versions_that_they_were_checked_with():
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower()
    for library in ("MONAI", "medpy", "surface-distance"):
        (release,) = re.findall(rf"{library} (\d+(?:\.\d+)+)[ ,]", m.definition_table().split("Other libraries: ")[1])[
            :1
        ]
        assert f"{library.lower()}=={release}\n" in pinned


def test_the_page_shows_the_definitions():
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    shown = page.split("<!-- definitions:begin -->")[1].split("<!-- definitions:end -->")[0]
    assert shown.strip() == m.definition_table().strip(), "run make readme"


# --- properties ------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(mask_pairs(), st.permutations([0, 1, 2]))
def test_axes_may_be_permuted(pair, order):
    truth, prediction = pair
    values = scores(
        truth.transpose(order), prediction.transpose(order), np.take(SPACING, order), slice_axis=order.index(0)
    )
    expected = scores(truth, prediction)
    for name in m.METRICS:  # triangles are cut from cells in an order of the axes: see test_triangles.py
        if "mesh" not in name:
            assert values[name] == pytest.approx(expected[name]), name


@pytest.mark.parametrize("edge", ["open", "closed"])
def test_background_around_changes_nothing(edge):
    truth, prediction = blobs(3)
    padded = scores(np.pad(truth, ((1, 5), (0, 3), (4, 0))), np.pad(prediction, ((1, 5), (0, 3), (4, 0))), edge=edge)
    assert padded == pytest.approx(scores(truth, prediction, edge=edge))


def test_truth_and_prediction_may_be_swapped_but_for_the_sign():
    truth, prediction = blobs(4)
    there, back = scores(truth, prediction), scores(prediction, truth)
    assert there["volume_error_mm3"] == -back["volume_error_mm3"]
    for name in m.METRICS:
        if not name.startswith("volume_error"):
            assert there[name] == pytest.approx(back[name])


def test_integers_0_and_1_are_masks_and_arrays_may_have_any_layout():
    truth, prediction = blobs(5)
    expected = scores(truth, prediction)
    assert scores(truth.astype(np.uint8), prediction.astype(np.int64)) == expected
    assert scores(np.asfortranarray(truth), prediction[::-1][::-1]) == expected


def test_dice_alone_measures_no_distance():
    geometry = measure(*blobs(6))
    m.dice(geometry)
    assert set(vars(geometry)) == {*GIVEN, "voxels"}


# --- cases -----------------------------------------------------------------------------------------------------------

CLASSES = {1: "femur", 2: "tibia", 3: "patella"}


def knee():
    labels = np.zeros((6, 12, 12), np.uint8)
    labels[1:5, 1:5, 1:11] = 1
    labels[1:5, 6:10, 1:11] = 2
    labels[2:4, 10:12, 3:6] = 3
    return labels


def test_rows_of_a_case():
    truth = knee()
    prediction = np.roll(truth, 1, axis=2)
    rows = m.score_case(truth, prediction, SPACING, CLASSES, metrics=list(m.METRICS))
    assert [row["structure"] for row in rows] == ["femur", "tibia", "patella", "mean", "merged"]
    for label, row in zip(CLASSES, rows, strict=False):
        expected = scores(truth == label, prediction == label)
        assert {name: row[name] for name in m.METRICS} == expected
        assert list(row) == ["structure", "missed", "false_positive", "absent", *m.METRICS]
    for name in m.METRICS:
        assert rows[3][name] == pytest.approx(np.mean([row[name] for row in rows[:3]]))
    assert {name: rows[4][name] for name in m.METRICS} == scores(truth > 0, prediction > 0)


def test_default_metrics_are_dice_and_boundary_dice():
    row = m.score_case(knee(), knee(), SPACING, CLASSES)[0]
    assert list(row)[4:] == list(m.DEFAULT_METRICS)
    assert len(m.DEFAULT_METRICS) == 11


def test_a_missed_structure_stays_in_the_mean():
    truth, prediction = knee(), knee()
    prediction[prediction == 3] = 0
    rows = m.score_case(truth, prediction, SPACING, CLASSES, metrics=["dice", "hd95_voxel_mm"])
    diagonal = np.linalg.norm(np.multiply(truth.shape, SPACING))
    assert [row["missed"] for row in rows] == [False, False, True, True, False]
    assert rows[2]["dice"] == 0
    assert rows[3]["dice"] == pytest.approx(2 / 3)
    assert rows[3]["hd95_voxel_mm"] == pytest.approx(diagonal / 3)


def test_a_false_positive_and_an_absent_structure_are_said():
    truth, prediction = knee(), knee()
    truth[truth == 3] = 0
    rows = m.score_case(truth, prediction, SPACING, CLASSES | {4: "fabella"}, metrics=["dice", "volume_error_percent"])
    assert [row["false_positive"] for row in rows] == [False, False, True, False, True, False]
    assert [row["absent"] for row in rows] == [False, False, False, True, True, False]
    assert [row["dice"] for row in rows[:4]] == [1, 1, 0, 1]
    assert rows[4]["volume_error_percent"] == inf


def test_empty_prediction_is_the_worst():
    rows = m.score_case(knee(), np.zeros_like(knee()), SPACING, CLASSES, metrics=list(m.METRICS))
    assert all(row["missed"] for row in rows)
    for name, definition in m.METRICS.items():
        if definition.direction != "nearer 0":
            assert {row[name] for row in rows} == {symbol(definition.missed, knee() > 0)}


def test_slice_axis_and_edge_reach_the_metrics():
    truth, prediction = knee(), np.roll(knee(), 1, axis=2)
    names = ["boundary_dice_in_plane", "boundary_dice_3d"]
    in_plane = []
    for slice_axis, edge in itertools.product((0, 1, 2), ("open", "closed")):
        row = m.score_case(truth, prediction, SPACING, CLASSES, slice_axis, names, edge)[2]
        expected = scores(truth == 3, prediction == 3, slice_axis=slice_axis, edge=edge)
        assert [row[name] for name in names] == [expected[name] for name in names]
        in_plane.append(row["boundary_dice_in_plane"])
    # the patella is cut by the edge y = 11: of its 2 × 3 voxels in a sagittal slice, 5 or 6 are boundary, 2 or 4 shared
    assert in_plane[:2] == [2 / 5, 4 / 6]


def test_the_background_may_be_named():
    assert m.score_case(knee(), knee(), SPACING, {0: "background"} | CLASSES) == m.score_case(
        knee(), knee(), SPACING, CLASSES
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted_labels": knee()[1:]}, r"one grid.*\(6, 12, 12\) and \(5, 12, 12\)"),
        ({"truth_labels": knee()[0], "predicted_labels": knee()[0]}, r"volumes \(X, Y, Z\)"),
        ({"predicted_labels": knee().astype(float)}, "predicted_labels must be integers, got dtype float64"),
        ({"truth_labels": knee() + 1}, r"truth_labels must hold 0 and .* got \[4\] too; remap"),
        ({"predicted_labels": knee().astype(int) - 1}, r"predicted_labels .* got \[-1\] too"),
        ({"spacing": (0.7, 0.365)}, "spacing must hold one positive number of mm for each of the 3 axes"),
        ({"spacing": (0.7, 0.365, 0)}, "spacing must hold one positive number of mm for each of the 3 axes"),
        ({"spacing": (0.7, 0.365, nan)}, "spacing must hold one positive number of mm for each of the 3 axes"),
        ({"classes": {}}, "classes must name at least one label above 0"),
        ({"classes": {0: "background"}}, "classes must name"),
        ({"classes": {-1: "femur"}}, "classes must name"),
        ({"classes": {1: "bone", 2: "bone", 3: "patella"}}, "each differently"),
        ({"classes": {1: "mean", 2: "tibia", 3: "patella"}}, "none 'mean'"),
        ({"metrics": ["dice", "hd95"]}, "metrics must be among dice, .*; got 'hd95'"),
        ({"slice_axis": 3}, "slice_axis must be one of 0, 1, 2, got 3"),
        ({"edge": "mirror"}, "edge must be one of 'open', 'closed', got 'mirror'"),
    ],
)
def test_what_a_case_refuses(change, message):
    arguments = {"truth_labels": knee(), "predicted_labels": knee(), "spacing": SPACING, "classes": CLASSES}
    with pytest.raises(ValueError, match=message):
        m.score_case(**(arguments | change))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda g: measure(knee(), knee()), "truth must be a mask.*uint8 with values from 0 to 3"),
        (lambda g: measure(BOX.astype(float), BOX), "truth must be a mask"),
        (lambda g: measure(empty(0, 3, 3), empty(0, 3, 3)), "with voxels in it"),
        (lambda g: m.boundary_dice(g, "2d"), "plane must be one of 'in_plane', '3d', got '2d'"),
        (lambda g: m.boundary_dice(g, "3d", -1), "tolerance must be finite and not negative, got -1"),
        (lambda g: m.nsd(g, nan), "tolerance must be finite"),
        (lambda g: m.nsd(g, inf), "tolerance must be finite"),
        (lambda g: m.nsd(g, 1, "faces"), "surface must be one of 'voxel', 'surface', 'mesh', got 'faces'"),
        (
            lambda g: measure(BOX, OFF, smoothing_voxels=1.5),
            "smoothing_voxels must be 0, or a number from 0.5 to 1, got 1.5",
        ),
        (lambda g: measure(BOX, OFF, smoothing_voxels=0.1), "smoothing_voxels must be 0, or .* got 0.1"),
        (lambda g: measure(BOX, OFF, smoothing_voxels=nan), "smoothing_voxels must be 0, or .* got nan"),
        (lambda g: m.hausdorff(g, 0), "percentile must be above 0 and at most 100"),
        (lambda g: m.boundary_iou(g, -2), "width_mm must be finite and not negative"),
    ],
)
def test_what_a_metric_refuses(function, message):
    with pytest.raises(ValueError, match=message):
        function(measure(BOX, OFF))


def test_errors_of_volume_do_not_cancel_in_the_mean():
    truth, prediction = np.zeros((2, 4, 6, 6), np.uint8)
    truth[1, 1:3, 1:3], truth[1, 1:3, 4] = 1, 2
    prediction[1:3, 1:3, 1:3] = 1  # twice as large, and the other structure is missed
    names = ["volume_error_percent", "volume_error_mm3"]
    first, second, mean, _ = m.score_case(truth, prediction, SPACING, {1: "a", 2: "b"}, metrics=names)
    assert (first[names[0]], second[names[0]], mean[names[0]]) == (100, -100, 100)
    assert mean[names[1]] == pytest.approx((first[names[1]] - second[names[1]]) / 2)
