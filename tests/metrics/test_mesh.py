"""Meshes, their distances and biomarkers against shapes whose surface is known exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pyvista as pv
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from shapeloss.metrics.mesh import label_surface, region_error, shape_biomarkers, surface_error, vertex_areas
from shapeloss.phantom.anatomy import signed_distances
from shapeloss.phantom.contrast import PhantomOptions
from shapeloss.phantom.knee import make_knee

COARSE = (4.0, 1.5, 1.5)  # the default phantom's
DESS = (0.7, 0.365, 0.365)


def ellipsoid(radii, spacing, shift=(0.0, 0.0, 0.0), margin=6.0):
    """A mask whose true surface is the ellipsoid around the returned centre (mm)."""
    shape = [int(2 * (r + margin) / s) + 1 for r, s in zip(radii, spacing, strict=True)]
    center = np.array([(n - 1) * s / 2 for n, s in zip(shape, spacing, strict=True)]) + np.multiply(shift, spacing)
    grid = np.meshgrid(*[np.arange(n) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij")
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grid, center, radii, strict=True)) <= 1, center


def cylinder(radius, spacing, length=20, side=40):
    """A cylinder along Z that leaves the volume at both ends."""
    x, y = np.meshgrid(np.arange(side) * spacing[0], np.arange(side) * spacing[1], indexing="ij")
    disc = np.hypot(x - x.mean(), y - y.mean()) <= radius
    return np.repeat(disc[:, :, None], length, axis=2)


def outward(mesh, center):
    """The share of triangles whose normal points away from a centre that sees all of them from inside."""
    a, b, c = mesh.points[mesh.regular_faces].transpose(1, 0, 2)
    return float(np.mean(np.einsum("ij,ij->i", np.cross(b - a, c - a), (a + b + c) / 3 - center) > 0))


@pytest.mark.parametrize(
    ("radii", "spacing", "mean", "worst"),
    [
        ((20, 20, 20), COARSE, 0.2, 2.0),  # half a voxel: 2 × 0.75 × 0.75 mm
        ((33, 28, 24), COARSE, 0.2, 2.0),
        ((22, 11, 22), COARSE, 0.25, 2.0),
        ((8, 8, 8), DESS, 0.04, 0.35),  # half a voxel: 0.35 × 0.18 × 0.18 mm
        ((5, 7, 12), (1.0, 1.0, 1.0), 0.12, 0.5),
    ],
)
def test_the_surface_of_a_known_shape_is_found_below_the_voxel(radii, spacing, mean, worst):
    biases = []
    for seed in range(3):
        shift = np.random.default_rng(seed).uniform(-0.5, 0.5, 3)
        mask, center = ellipsoid(radii, spacing, shift)
        mesh = label_surface(mask, spacing)
        # the true surface as a dense cloud of points: at most 0.05 mm between a place on it and the nearest point
        n = 200_000
        z = 1 - (2 * np.arange(n) + 1) / n
        angle = np.pi * (1 + 5**0.5) * np.arange(n)
        ring = np.sqrt(1 - z**2)
        truth = np.stack([ring * np.cos(angle), ring * np.sin(angle), z], axis=1) * radii + center
        distance = cKDTree(truth).query(mesh.points)[0]
        assert distance.mean() < mean
        assert distance.max() < worst
        outside = (((mesh.points - center) / radii) ** 2).sum(axis=1) > 1
        biases.append(np.average(np.where(outside, distance, -distance), weights=vertex_areas(mesh)))
        voxels = mask.sum() * math.prod(spacing)
        assert mesh.volume == pytest.approx(voxels, rel=0.005)  # the mask's own, in spite of the smoothing
        assert mesh.volume == pytest.approx(4 / 3 * math.pi * math.prod(radii), rel=0.02)
    assert abs(np.mean(biases)) < 0.04 * min(spacing)


def test_the_mesh_is_closer_to_the_truth_than_marching_cubes_of_the_mask():
    mask, center = ellipsoid((25, 25, 25), COARSE, (0.3, 0.1, 0.2))
    stairs, _, _, _ = marching_cubes(mask.astype(float), 0.5, spacing=COARSE)
    ours = label_surface(mask, COARSE).points
    error = [np.abs(np.linalg.norm(points - center, axis=1) - 25).mean() for points in (ours, stairs)]
    assert error[0] < error[1] / 2


def test_a_knee_of_known_surface():
    options = PhantomOptions(shape=(24, 64, 96), spacing=COARSE)
    knee = make_knee(0, options)
    for label in (1, 2, 3):
        mesh = label_surface(knee.labels == label, COARSE, knee.affine)
        truth = signed_distances(np.asarray(mesh.points), knee.anatomy)[label - 1]
        assert np.abs(truth).mean() < 0.35
        assert abs(truth.mean()) < 0.1


def test_a_structure_within_the_volume_has_a_closed_surface_that_faces_outwards():
    mask, center = ellipsoid((10, 14, 12), COARSE)
    mesh = label_surface(mask, COARSE)
    assert mesh.n_open_edges == 0
    assert mesh.is_all_triangles
    assert outward(mesh, center) > 0.99


@pytest.mark.parametrize("mirror", [(1, 1, 1), (-1, 1, 1), (-1, -1, 1)])
def test_the_affine_takes_the_mesh_to_the_world(mirror):
    mask, center = ellipsoid((10, 14, 12), DESS)
    turn = pv.transformations.axis_angle_rotation((1, 2, 3), 25)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(np.multiply(DESS, mirror))
    affine[:3, 3] = (-30, 7, 110)
    plain, world = label_surface(mask, DESS), label_surface(mask, DESS, affine)
    expected = plain.points / DESS @ affine[:3, :3].T + affine[:3, 3]
    np.testing.assert_allclose(world.points, expected, atol=1e-4)
    assert outward(world, affine[:3, :3] @ (center / DESS) + affine[:3, 3]) > 0.99
    bigger = label_surface(ellipsoid((11, 15, 13), DESS, margin=5)[0], DESS, affine)
    assert surface_error(bigger, world).mean() == pytest.approx(1, abs=0.05)  # outside is positive in a mirror too


def test_where_a_structure_leaves_the_volume_its_surface_is_open():
    spacing = (1.0, 1.0, 2.5)
    mesh = label_surface(cylinder(15, spacing), spacing)
    assert mesh.n_open_edges > 0
    z = mesh.points[:, 2]
    reach = (-1.25, 19.5 * 2.5)  # the faces of the outermost voxels
    assert z.min() == pytest.approx(reach[0], abs=0.5)
    assert z.max() == pytest.approx(reach[1], abs=0.5)
    assert mesh.area == pytest.approx(2 * math.pi * 15 * np.ptp(z), rel=0.02)  # the mantle without its two caps
    a, b, c = mesh.points[mesh.regular_faces].transpose(1, 0, 2)
    normal = np.cross(b - a, c - a)
    assert np.abs(normal[:, 2]).max() < 0.1 * np.linalg.norm(normal, axis=1).max()
    np.testing.assert_allclose(np.hypot(*(mesh.points[:, :2] - 19.5).T), 15, atol=0.6)


@settings(max_examples=10, deadline=None)
@given(shift=st.tuples(*[st.integers(0, 4)] * 3), seed=st.integers(0, 1000))
def test_moving_the_mask_moves_the_mesh(shift, seed):
    spacing = (2.0, 1.0, 0.5)
    blob = np.random.default_rng(seed).random((4, 5, 6)) > 0.5
    meshes = []
    for place in ((0, 0, 0), shift):
        mask = np.zeros((16, 17, 18), bool)
        mask[tuple(slice(4 + p, 4 + p + n) for p, n in zip(place, blob.shape, strict=True))] = blob
        meshes.append(label_surface(mask, spacing))
    assert meshes[0].n_points == meshes[1].n_points
    np.testing.assert_allclose(meshes[0].points + np.multiply(shift, spacing), meshes[1].points, atol=1e-4)


def test_empty_and_full_masks_have_no_surface_and_one_voxel_has_one():
    assert label_surface(np.zeros((5, 6, 7), bool), COARSE).n_points == 0
    assert label_surface(np.ones((5, 6, 7), bool), COARSE).n_points == 0
    voxel = np.zeros((5, 6, 7), np.uint8)
    voxel[2, 3, 3] = 1
    mesh = label_surface(voxel, COARSE)
    assert mesh.n_open_edges == 0
    assert mesh.volume == pytest.approx(9, rel=0.1)
    np.testing.assert_allclose(mesh.center, (8, 4.5, 4.5), atol=0.1)


def test_resolution_and_smoothing_are_in_mm():
    mask, center = ellipsoid((12, 12, 12), COARSE, (0.3, 0.1, 0.2))
    fine, coarse = (label_surface(mask, COARSE, resolution=r) for r in (0.5, 1.0))
    assert fine.n_points / coarse.n_points == pytest.approx(4, rel=0.2)  # a surface has two dimensions
    rough, smooth = (
        np.linalg.norm(label_surface(mask, COARSE, smoothing_mm=s).points - center, axis=1).std() for s in (0, 4)
    )
    assert smooth < rough / 1.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": np.zeros((4, 4), bool), "spacing": (1.0, 1.0)}, "mask must be one structure"),
        ({"mask": np.full((4, 4, 4), 2)}, "labels == value"),
        ({"mask": np.zeros((4, 4, 4))}, "integers"),
        ({"spacing": (1.0, 1.0)}, "spacing"),
        ({"spacing": (1.0, 1.0, 0.0)}, "spacing"),
        ({"affine": np.eye(3)}, "affine must be a finite"),
        ({"affine": np.diag([2.0, 1, 1, 1])}, "affine has a spacing"),
        ({"resolution": 0.0}, "resolution must be"),
        ({"smoothing_mm": -1.0}, "smoothing_mm must be"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        label_surface(**{"mask": np.zeros((4, 4, 4), bool), "spacing": (1.0, 1.0, 1.0)} | arguments)


def sphere(radius, center=(0.0, 0.0, 0.0)):
    return pv.Sphere(radius=radius, center=center, theta_resolution=90, phi_resolution=90)


def test_concentric_spheres_are_one_mm_apart_and_outside_is_positive():
    inner, outer = sphere(10), sphere(11)
    np.testing.assert_allclose(surface_error(outer, inner), 1, atol=0.02)
    np.testing.assert_allclose(surface_error(inner, outer), -1, atol=0.02)
    np.testing.assert_allclose(surface_error(inner, inner), 0, atol=1e-6)
    assert inner.point_data.keys() == ["Normals"]  # as PyVista made it


def test_concentric_spheres_of_voxels_are_one_mm_apart():
    inner = label_surface(ellipsoid((20, 20, 20), COARSE, margin=7)[0], COARSE)
    outer = label_surface(ellipsoid((21, 21, 21), COARSE, margin=6)[0], COARSE)
    assert surface_error(outer, inner).mean() == pytest.approx(1, abs=0.1)
    assert surface_error(inner, outer).mean() == pytest.approx(-1, abs=0.1)


def test_an_absent_prediction_has_no_errors_and_an_absent_truth_is_refused():
    assert surface_error(pv.PolyData(), sphere(5)).shape == (0,)
    with pytest.raises(ValueError, match="truth has no surface"):
        surface_error(sphere(5), pv.PolyData())


def test_an_error_belongs_to_its_region():
    truth, shifted = sphere(20), sphere(20, (2, 0, 0))
    here = region_error(shifted, truth, (20, 0, 0), 4)
    assert here.mean_mm == pytest.approx(2, abs=0.05)
    assert here.max_mm == pytest.approx(2, abs=0.05)
    away = region_error(shifted, truth, (0, 20, 0), 2)
    assert away.mean_mm < 0.15


def test_a_part_that_the_prediction_lacks_is_an_error():
    truth = sphere(20)
    half = truth.clip("x", origin=(0, 0, 0)).triangulate()  # x < 0 stays
    lacking = region_error(half, truth, (20, 0, 0), 2)
    assert lacking.max_mm == pytest.approx(20 * math.sqrt(2), rel=0.01)  # from the pole to the rim
    assert lacking.mean_mm == pytest.approx(40 * math.sin((math.pi / 2 - 2 / 3 * 0.1) / 2), rel=0.01)
    nothing = region_error(pv.PolyData(), truth, (20, 0, 0), 2)
    assert nothing.mean_mm == nothing.max_mm == math.inf


def test_a_superfluous_part_is_an_error():
    truth = sphere(20)
    spike = truth.merge(sphere(1, (24, 0, 0)))
    assert region_error(spike, truth, (20, 0, 0), 8).max_mm == pytest.approx(5, abs=0.05)


def test_errors_count_by_area_and_not_by_the_number_of_points():
    # PyVista's spheres have more points near the poles; there an ellipsoid with a longer axis is farthest away.
    # To first order its distance from the sphere is 0.3 cos²θ, whose mean is 0.1 by area and 0.15 by points.
    truth = sphere(10)
    longer = truth.scale((1, 1, 1.03), inplace=False)
    assert region_error(longer, truth, (0, 0, 0), 20).mean_mm == pytest.approx(0.1, rel=0.03)


def test_vertex_areas_by_hand():
    points = np.array([(0, 0, 0), (2, 0, 0), (0, 3, 0), (2, 3, 0), (9, 9, 9)], float)
    mesh = pv.PolyData.from_regular_faces(points, [(0, 1, 2), (1, 3, 2)])
    np.testing.assert_allclose(vertex_areas(mesh), (1, 2, 2, 1, 0))


@pytest.mark.parametrize(
    ("landmark", "radius", "message"),
    [((0, 0), 5, "landmark"), ((0, 0, np.nan), 5, "landmark"), ((0, 0, 5), 0, "radius_mm"), ((90, 0, 0), 5, "no true")],
)
def test_a_region_must_make_sense(landmark, radius, message):
    with pytest.raises(ValueError, match=message):
        region_error(sphere(5), sphere(5), landmark, radius)


@pytest.mark.parametrize("spacing", [COARSE, DESS])
def test_biomarkers_of_a_ball(spacing):
    radius = 12.0
    found = shape_biomarkers(ellipsoid((radius,) * 3, spacing, (0.2, 0.4, 0.1), margin=5)[0], spacing)
    assert found.volume_cm3 == pytest.approx(4 / 3 * math.pi * radius**3 / 1000, rel=0.02)
    assert found.surface_cm2 == pytest.approx(4 * math.pi * radius**2 / 100, rel=0.03)
    np.testing.assert_allclose(found.extents_mm, 2 * radius, atol=spacing[0] / 2 + 0.1)
    assert found.inscribed_radius_mm == pytest.approx(radius, abs=spacing[0] / 2)
    assert found.sphericity == pytest.approx(1, abs=0.02)


def test_biomarkers_of_a_structure_that_is_cut():
    spacing, radius, length = (1.0, 1.0, 2.5), 15.0, 8 * 2.5
    found = shape_biomarkers(cylinder(radius, spacing, length=8), spacing)
    mantle, caps, volume = 2 * math.pi * radius * length, 2 * math.pi * radius**2, math.pi * radius**2 * length
    assert found.volume_cm3 == pytest.approx(volume / 1000, rel=0.02)
    assert found.surface_cm2 == pytest.approx(mantle / 100, rel=0.02)
    assert found.sphericity == pytest.approx(math.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / (mantle + caps), rel=0.02)
    assert found.inscribed_radius_mm == pytest.approx(radius, abs=1)  # the cuts are no walls
    assert found.extents_mm[2] == length


def test_biomarkers_of_nothing_and_of_everything():
    nothing = shape_biomarkers(np.zeros((4, 5, 6), bool), COARSE)
    assert (nothing.volume_cm3, nothing.surface_cm2, nothing.inscribed_radius_mm) == (0, 0, 0)
    assert nothing.extents_mm == (0, 0, 0)
    assert math.isnan(nothing.sphericity)
    everything = shape_biomarkers(np.ones((4, 5, 6), bool), COARSE)
    assert everything.volume_cm3 == pytest.approx(120 * 9 / 1000)
    assert everything.extents_mm == (16, 7.5, 9)
    assert everything.surface_cm2 == 0
    assert math.isnan(everything.inscribed_radius_mm)
    a, b, c = everything.extents_mm
    faces = 2 * (a * b + b * c + a * c)
    assert everything.sphericity == pytest.approx(math.pi ** (1 / 3) * (6 * a * b * c) ** (2 / 3) / faces)
