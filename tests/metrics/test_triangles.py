"""Meshes of masks and distances to them: against closed forms, brute force and VTK."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import pyvista as pv
from hypothesis import given, settings
from hypothesis import strategies as st

from shapeloss import metrics as m
from shapeloss.metrics.triangles import corner_areas, surface_triangles, triangle_distances

ISO, DESS = (1.0, 1.0, 1.0), (0.7, 0.365, 0.365)


def grid(half, spacing, seed=0):
    """Coordinates in mm of voxel centres, from −half to half, off the origin by a random part of a voxel."""
    off = np.random.default_rng(seed).uniform(-0.5, 0.5, 3)
    axes = [(np.arange(-int(half / s), int(half / s) + 1) + o) * s for s, o in zip(spacing, off, strict=True)]
    return np.meshgrid(*axes, indexing="ij")


def ball(where, radius, center=(0, 0, 0)):
    return sum((x - c) ** 2 for x, c in zip(where, center, strict=True)) <= radius**2


def mesh_scores(truth, prediction, spacing, **options):
    geometry = m.mask_geometry(truth, prediction, spacing, **options)
    functions = {
        "hd": lambda: m.hausdorff(geometry, surface="mesh"),
        "hd95": lambda: m.hausdorff(geometry, 95, "mesh"),
        "assd": lambda: m.assd(geometry, "mesh"),
        "masd": lambda: m.masd(geometry, "mesh"),
        "nsd2": lambda: m.nsd(geometry, 2, "mesh"),
        "nsd3": lambda: m.nsd(geometry, 3, "mesh"),
    }
    return {name: function() for name, function in functions.items()}


# --- closed forms ----------------------------------------------------------------------------------------------------


def test_two_spheres_of_different_centres():
    # radius 30 at the origin, 20 at (0, 0, 9): largest distance 30 − 20 + 9; the others are integrals over the spheres
    where = grid(34, ISO)
    found = mesh_scores(ball(where, 30), ball(where, 20, (0, 0, 9)), ISO)
    expected = {"hd": 19.0, "hd95": 18.301, "assd": 10.2077, "masd": 9.775}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=0.01)
    assert (found["nsd2"], found["nsd3"]) == pytest.approx((0.0519, 0.1043), abs=0.01)


@pytest.mark.parametrize(
    ("spacing", "outer", "inner"), [(ISO, 12, 11), (ISO, 18, 15), (ISO, 25, 15), (DESS, 11, 10), (DESS, 14, 10)]
)
def test_mean_distance_of_concentric_spheres_is_their_gap(spacing, outer, inner):
    found = []
    for seed in range(3):
        where = grid(outer + 2, spacing, seed)
        scores = mesh_scores(ball(where, outer), ball(where, inner), spacing)
        found.append([scores["assd"], scores["masd"]])
    assert np.median(found, axis=0) == pytest.approx((outer - inner,) * 2, rel=0.012)


def test_parallel_planes_that_leave_the_field_of_view_are_apart_by_their_gap_and_have_no_rim():
    truth, prediction = np.zeros((2, 20, 36, 40), bool)
    truth[:10], prediction[:13] = True, True
    assert mesh_scores(truth, prediction, DESS) == pytest.approx(
        {"hd": 2.1, "hd95": 2.1, "assd": 2.1, "masd": 2.1, "nsd2": 0, "nsd3": 1}, abs=1e-4
    )
    closed = m.mask_geometry(truth, prediction, DESS, edge="closed").mesh_distances
    sides = 2 * 36 * 40 * 0.365**2 + 2 * 10 * 0.7 * (36 + 40) * 0.365
    assert closed.truth_weights.sum() == pytest.approx(sides, rel=0.08)  # a box, but for its edges
    assert closed.from_truth.min() == pytest.approx(0, abs=0.01)  # of its sides, five are the prediction's too


def test_area_of_a_ball_and_where_it_is_cut():
    where = grid(14, DESS)
    whole = ball(where, 12)
    corners, triangles = surface_triangles(whole, DESS, 0.8)
    assert corner_areas(corners, triangles).sum() == pytest.approx(4 * np.pi * 144, rel=0.01)
    half = whole[whole.shape[0] // 2 :]  # from the plane through the centre, but for a part of a voxel
    assert corner_areas(*surface_triangles(half, DESS, 0.8)).sum() == pytest.approx(2 * np.pi * 144, rel=0.06)


def test_area_of_the_bare_mask_follows_the_spacing():
    box = np.zeros((24, 36, 40), bool)
    box[2:22, 3:33, 3:37] = True
    a, b, c = np.multiply(DESS, (20, 30, 34))
    assert corner_areas(*surface_triangles(box, DESS, 0)).sum() == pytest.approx(2 * (a * b + b * c + c * a), rel=0.03)


def test_a_thin_sheet_is_kept_without_smoothing():
    sheet = np.zeros((9, 30, 30), bool)
    sheet[4, 5:25, 5:25] = True
    area = {s: corner_areas(*surface_triangles(sheet, ISO, s)).sum() for s in (0, 0.8)}
    assert area[0] == pytest.approx(2 * 20 * 20, rel=0.05)
    thicker = sheet | np.roll(sheet, 1, axis=0)
    geometry = m.mask_geometry(sheet, thicker, ISO, smoothing_voxels=0)
    assert m.hausdorff(geometry, surface="mesh") == pytest.approx(1)
    assert m.masd(geometry, "mesh") == pytest.approx(0.5, abs=0.06)  # one of two sides moved by a voxel
    smoothed = m.mask_geometry(sheet, thicker, ISO)
    assert m.masd(smoothed, "mesh") != m.masd(geometry, "mesh")


@pytest.mark.parametrize("smoothing", [0, 0.5, 0.8, 1])
def test_smoothing_keeps_the_volume_of_a_convex_structure(smoothing):
    where = grid(9, ISO, seed=2)
    for mask in (ball(where, 7), np.max(np.abs(where), axis=0) <= 5):
        mesh = pv.PolyData.from_regular_faces(*surface_triangles(mask, ISO, smoothing))
        assert mesh.volume == pytest.approx(mask.sum(), rel=0.05)  # marching cubes cut off corners


@pytest.mark.parametrize("spacing", [ISO, DESS, (0.4, 3.0, 0.55)])
@pytest.mark.parametrize("smoothing", [0, 0.5, 0.8, 1])
def test_every_structure_and_every_hole_has_a_surface(spacing, smoothing):
    for place in ((0, 0, 0), (2, 3, 3), (4, 5, 0)):
        voxel = np.zeros((5, 6, 7), bool)
        voxel[place] = True
        for mask in (voxel, ~voxel):
            corners, triangles = surface_triangles(np.pad(mask, 1, mode="edge"), spacing, smoothing)
            assert len(triangles)
            assert np.isfinite(corners).all()


def test_equal_surfaces_of_unequal_masks_are_equal():
    """The grid of the triangles does not depend on where a mask ends."""
    where = grid(14, DESS)
    truth = ball(where, 8, (-4, 0, 0))
    prediction = truth | ball(where, 2, (9, 0, 0))
    d = m.mask_geometry(truth, prediction, DESS).mesh_distances
    assert d.from_truth.max() < 0.01  # the level of the whole differs a little
    assert d.from_prediction.max() == pytest.approx(9 + 2 + 4 - 8, abs=0.3)


# --- exactness -------------------------------------------------------------------------------------------------------


def brute(point, triangle, steps=400):
    """The least over a fine grid of the triangle's places: never below the exact distance, and hardly above."""
    a, b, c = triangle
    u, v = np.meshgrid(np.linspace(0, 1, steps), np.linspace(0, 1, steps))
    inside = u + v <= 1 + 1e-12
    places = a + u[inside][:, None] * (b - a) + v[inside][:, None] * (c - a)
    return np.linalg.norm(places - point, axis=1).min()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_distance_to_one_triangle_is_exact(seed):
    rng = np.random.default_rng(seed)
    corners = rng.normal(size=(3, 3)) * rng.choice([0.05, 1, 1], (3, 1))  # some of them slivers
    points = rng.normal(size=(6, 3)) * 2
    found = triangle_distances(points, corners, np.array([[0, 1, 2]]))
    for point, distance in zip(points, found, strict=True):
        upper = brute(point, corners)
        assert upper - 1e-4 <= distance <= upper + 1e-9 or distance == pytest.approx(upper, abs=5e-3)
        assert distance <= upper + 1e-9


def test_distances_to_a_mesh_are_those_of_vtk_and_none_is_nearer_to_any_triangle():
    where = grid(12, DESS)
    corners, triangles = surface_triangles(ball(where, 8) | ball(where, 5, (5, 3, 0)), DESS, 0.8)
    points = np.random.default_rng(0).uniform(-2, 26, (300, 3))
    found = triangle_distances(points, corners, triangles)
    mesh = pv.PolyData.from_regular_faces(corners, triangles)
    vtk = np.abs(pv.PolyData(points).compute_implicit_distance(mesh)["implicit_distance"])
    np.testing.assert_allclose(found, vtk, atol=2e-5)  # its points are float32
    one_by_one = [triangle_distances(points[:20], corners, triangle[None]) for triangle in triangles]
    np.testing.assert_allclose(found[:20], np.min(one_by_one, axis=0), atol=1e-12)


def test_no_triangles_are_infinitely_far_and_no_points_have_no_distance():
    nothing = np.empty((0, 3)), np.empty((0, 3), np.intp)
    assert triangle_distances(np.zeros((2, 3)), *nothing).tolist() == [np.inf, np.inf]
    assert triangle_distances(np.empty((0, 3)), np.eye(3), np.array([[0, 1, 2]])).shape == (0,)


def test_corner_areas_by_hand():
    corners = np.array([(0, 0, 0), (2, 0, 0), (0, 3, 0), (4, 3, 0), (9, 9, 9)], float)  # 3 mm² and 6 mm²
    np.testing.assert_allclose(corner_areas(corners, np.array([(0, 1, 2), (1, 3, 2)])), (1, 3, 3, 2, 0))


# --- properties ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", [ISO, DESS])
def test_axes_may_be_permuted_and_flipped(spacing):
    where = grid(12, spacing, seed=4)
    truth, prediction = ball(where, 9), ball(where, 7, (1, 0.5, 0)) | ball(where, 3, (4, 4, 4))
    expected = mesh_scores(truth, prediction, spacing)
    for order in itertools.permutations(range(3)):
        turned = (truth.transpose(order), prediction.transpose(order), tuple(np.take(spacing, order)))
        found = mesh_scores(*turned, slice_axis=order.index(0))
        assert found == pytest.approx(expected, rel=5e-3), order
    for axis in range(3):
        found = mesh_scores(np.flip(truth, axis), np.flip(prediction, axis), spacing)
        assert found == pytest.approx(expected, rel=5e-3), axis


def test_the_edge_is_a_surface_only_if_it_is_closed():
    where = grid(12, DESS)
    truth, prediction = ball(where, 9)[:, :20], ball(where, 7)[:, :20]
    opened, closed = (m.mask_geometry(truth, prediction, DESS, edge=edge) for edge in ("open", "closed"))
    areas = [geometry.mesh_distances.truth_weights.sum() for geometry in (opened, closed)]
    inside = truth[:, -1].sum() * 0.7 * 0.365
    assert areas[1] - areas[0] == pytest.approx(inside, rel=0.1)
    assert m.masd(opened, "mesh") > m.masd(closed, "mesh")  # on the lid, both have the same place
    full = np.ones((4, 5, 6), bool)
    assert len(m.mask_geometry(full, full, DESS).mesh_distances.from_truth) == 0
    assert len(m.mask_geometry(full, full, DESS, edge="closed").mesh_distances.from_truth) > 0


def test_smoothing_reaches_the_geometry_of_a_case():
    labels = np.zeros((8, 9, 10), int)
    labels[2:4, 2:7, 2:8] = 1
    other = np.roll(labels, 1, axis=1)
    for smoothing in (0, 0.8):
        row = m.score_case(labels, other, DESS, {1: "a"}, metrics=["masd_mesh_mm"], smoothing_voxels=smoothing)[0]
        geometry = m.mask_geometry(labels == 1, other == 1, DESS, smoothing_voxels=smoothing)
        assert row["masd_mesh_mm"] == m.masd(geometry, "mesh")
