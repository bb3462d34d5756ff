"""Surface errors, curvature and meshes against shapes of closed form, at anisotropic voxels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pyvista as pv
from helpers.solids import EULER, RADIUS, SOLIDS, curvature, solid, volume_and_area

from shapeloss.metrics.mesh import label_surface, shape_biomarkers, vertex_areas
from shapeloss.metrics.shape import (
    SHAPE_ERRORS,
    TrueShape,
    curvature_weighted_error,
    directed_error,
    surface_curvature,
    surface_errors,
)

COARSE, MIDDLE, FINE = (2.8, 1.4, 1.4), (1.4, 0.7, 0.7), (0.7, 0.35, 0.35)


@pytest.fixture(scope="module")
def surfaces():
    """(solid, spacing) → mask, mesh and centre."""
    made = {}
    for kind in SOLIDS:
        for spacing in (COARSE, MIDDLE, FINE):
            mask, centre = solid(kind, spacing)
            made[kind, spacing] = mask, label_surface(mask, spacing), centre
    return made


def signed_volume(mesh):
    """By the divergence theorem: positive if the triangles turn outwards."""
    a, b, c = np.asarray(mesh.points, dtype=float)[mesh.regular_faces].transpose(1, 0, 2)
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def euler(mesh):
    """Vertices − edges + triangles."""
    edges = np.sort(mesh.regular_faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    return mesh.n_points - len(np.unique(edges, axis=0)) + mesh.n_cells


@pytest.mark.parametrize("spacing", [COARSE, MIDDLE])
@pytest.mark.parametrize("kind", SOLIDS)
def test_a_mesh_is_closed_oriented_and_of_the_shape_s_topology(surfaces, kind, spacing):
    mesh = surfaces[kind, spacing][1]
    edges = mesh.regular_faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    assert len(np.unique(edges, axis=0)) == len(edges)  # neighbours run along their edge in opposite directions
    assert {tuple(edge) for edge in edges} == {tuple(edge) for edge in edges[:, ::-1]}  # and no edge is free
    assert euler(mesh) == EULER[kind]
    assert signed_volume(mesh) == pytest.approx(volume_and_area(kind)[0], rel=0.02)


@pytest.mark.parametrize("spacing", [COARSE, MIDDLE, FINE])
@pytest.mark.parametrize("kind", SOLIDS)
def test_volume_area_and_sphericity_are_those_of_the_closed_form(surfaces, kind, spacing):
    """The area's error need not fall with the voxels, for what is left of their stairs keeps its slope; it is small."""
    volume, area = volume_and_area(kind)
    found = shape_biomarkers(surfaces[kind, spacing][0], spacing)
    assert found.volume_cm3 == pytest.approx(volume / 1000, rel=0.003 * max(spacing))
    assert found.surface_cm2 == pytest.approx(area / 100, rel=0.012)
    assert found.sphericity == pytest.approx(math.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / area, abs=0.012)


@pytest.mark.parametrize("kind", ["ball", "torus"])
@pytest.mark.parametrize("spacing", [COARSE, MIDDLE])
def test_a_shape_that_is_1_mm_larger_is_1_mm_outside_from_both_sides(surfaces, kind, spacing):
    larger = label_surface(solid(kind, spacing, grow=1.0)[0], spacing)
    found = surface_errors(larger, surfaces[kind, spacing][1])
    for error in (found.predicted, found.truth):
        assert error.mean_mm == pytest.approx(1, abs=0.05)
        assert error.absolute_mm == pytest.approx(1, abs=0.05)
        assert error.sd_mm < 0.15 * max(spacing)
        assert error.max_mm < 1 + 0.6 * max(spacing)
    turned = surface_errors(surfaces[kind, spacing][1], larger)
    assert turned.predicted.mean_mm == pytest.approx(-1, abs=0.05)
    assert turned.truth.mean_mm == pytest.approx(-1, abs=0.05)


def test_the_distance_converges_with_the_voxels(surfaces):
    errors = [
        np.abs(np.linalg.norm(mesh.points - centre, axis=1) - RADIUS).mean()
        for mesh, centre in ((surfaces["ball", spacing][1:]) for spacing in (COARSE, FINE))
    ]
    assert math.log(errors[0] / errors[1]) / math.log(4) > 0.9  # first order: the mask knows no more


def test_what_a_prediction_lacks_is_seen_from_the_truth():
    truth = pv.Sphere(radius=20, theta_resolution=90, phi_resolution=90)
    half = truth.clip("x", origin=(0, 0, 0)).triangulate()
    found = surface_errors(half, truth)
    assert found.predicted.max_mm < 0.01
    assert found.truth.max_mm == pytest.approx(20 * math.sqrt(2), rel=0.01)


def test_a_summary_by_hand():
    found = directed_error([1.0, -3.0, 2.0], [6.0, 0.5, 3.5])  # mm², 10 in all
    assert found.mean_mm == pytest.approx(1.15)
    assert found.absolute_mm == pytest.approx(1.45)
    assert found.rms_mm == pytest.approx(math.sqrt(2.45))
    assert found.sd_mm == pytest.approx(math.sqrt(2.45 - 1.15**2))
    assert found.p95_mm == 2  # covers 9.5 of 10 mm²
    assert found.max_mm == 3


def test_an_absent_prediction_is_infinitely_wrong_and_an_absent_truth_refused():
    truth = pv.Sphere(radius=5)
    found = surface_errors(pv.PolyData(), truth)
    assert found.predicted.mean_mm == found.truth.max_mm == math.inf
    assert curvature_weighted_error(pv.PolyData(), truth, np.ones(truth.n_points)) == math.inf
    for call in (surface_errors, lambda a, b: curvature_weighted_error(a, b, [])):
        with pytest.raises(ValueError, match="truth has no surface"):
            call(truth, pv.PolyData())


def test_errors_at_rims_weigh_more():
    """A truth of two balls, radius 5 and 20 mm: the small one has a sixteenth of the area and a fifth of a A |H|."""
    small, large = (pv.Sphere(radius=r, center=(x, 0, 0), theta_resolution=90, phi_resolution=90)
                    for r, x in ((5, 60), (20, 0)))  # fmt: skip
    truth = small.append_polydata(large)
    bigger = pv.Sphere(radius=6, center=(60, 0, 0), theta_resolution=90, phi_resolution=90).append_polydata(large)
    bend = np.r_[np.full(small.n_points, 1 / 5), np.full(large.n_points, -1 / 20)]
    assert surface_errors(bigger, truth).truth.absolute_mm == pytest.approx(1 / 17, rel=0.03)
    assert curvature_weighted_error(bigger, truth, bend) == pytest.approx(1 / 5, rel=0.03)
    assert curvature_weighted_error(bigger, truth, np.ones(truth.n_points)) == pytest.approx(1 / 17, rel=0.03)


def test_weights_must_fit():
    ball = pv.Sphere(radius=5)
    with pytest.raises(ValueError, match="a value for each"):
        curvature_weighted_error(ball, ball, [1.0])
    with pytest.raises(ValueError, match="zero everywhere"):
        curvature_weighted_error(ball, ball, np.zeros(ball.n_points))


def rms(found, true, mesh):
    return math.sqrt(np.average((found - true) ** 2, weights=vertex_areas(mesh)))


@pytest.mark.parametrize("kind", SOLIDS)
def test_curvature_is_that_of_the_closed_form_and_converges(surfaces, kind):
    errors = []
    for spacing in (COARSE, FINE):
        mask, mesh, centre = surfaces[kind, spacing]
        found = surface_curvature(mask, spacing, mesh.points)
        mean, gaussian = curvature(kind, mesh.points - centre)
        errors.append((rms(found.mean, mean, mesh), rms(found.gaussian, gaussian, mesh)))
        assert np.average(found.mean - mean, weights=vertex_areas(mesh)) == pytest.approx(0, abs=0.001)
        # the mesh's own, by VTK, is at least five times as far off
        assert errors[-1][0] < rms(mesh.curvature("mean"), mean, mesh) / 5
    assert errors[0][0] < 0.01
    assert errors[0][1] < 0.002
    for coarse, fine in zip(*errors, strict=True):
        assert math.log(coarse / fine) / math.log(4) > 0.4


def test_curvature_has_the_sign_of_the_shape(surfaces):
    mask, mesh, centre = surfaces["torus", MIDDLE]
    found = surface_curvature(mask, MIDDLE, mesh.points)
    away = np.hypot(*(mesh.points - centre)[:, :2].T)
    assert (found.gaussian[away < 10] < 0).all()  # the hole's wall is a saddle
    assert (found.gaussian[away > 20] > 0).all()
    hollow = surface_curvature(~surfaces["ball", MIDDLE][0], MIDDLE, surfaces["ball", MIDDLE][1].points)
    assert hollow.mean.mean() == pytest.approx(-1 / RADIUS, abs=0.002)


@pytest.mark.parametrize("mirror", [1, -1])
def test_curvature_does_not_depend_on_where_the_world_lies(surfaces, mirror):
    mask, mesh, _ = surfaces["ellipsoid", COARSE]
    turn = pv.transformations.axis_angle_rotation((1, 2, 3), 25)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(np.multiply(COARSE, (mirror, 1, 1)))
    affine[:3, 3] = (-30, 7, 110)
    world = mesh.points / COARSE @ affine[:3, :3].T + affine[:3, 3]
    plain, placed = surface_curvature(mask, COARSE, mesh.points), surface_curvature(mask, COARSE, world, affine)
    np.testing.assert_allclose(placed.mean, plain.mean, atol=1e-5)
    np.testing.assert_allclose(placed.gaussian, plain.gaussian, atol=1e-6)


def test_where_a_structure_is_cut_it_goes_on():
    """A cylinder along Z through the whole volume: 1/(2r), and 0."""
    x, y = np.meshgrid(np.arange(50) - 24.6, np.arange(50) - 24.3, indexing="ij")
    mask = np.repeat((np.hypot(x, y) < 15)[:, :, None], 12, axis=2)
    mesh = label_surface(mask, (1.0, 1.0, 2.0))
    found = surface_curvature(mask, (1.0, 1.0, 2.0), mesh.points)
    np.testing.assert_allclose(found.mean, 1 / 30, atol=0.01)
    np.testing.assert_allclose(found.gaussian, 0, atol=1e-4)


@pytest.mark.parametrize(
    ("mask", "smoothing", "message"),
    [
        (np.zeros((4, 4, 4), bool), None, "neither empty nor full"),
        (np.ones((4, 4, 4), bool), None, "neither empty nor full"),
        (np.eye(4, dtype=np.uint8)[None] * 2, None, "0 and 1"),
        (np.eye(4, dtype=np.uint8)[None], 0.0, "smoothing_mm"),
    ],
)
def test_bad_arguments_are_named(mask, smoothing, message):
    with pytest.raises(ValueError, match=message):
        surface_curvature(mask, (1.0, 1.0, 1.0), np.zeros((1, 3)), smoothing_mm=smoothing)


def ball(radius, spacing=MIDDLE, shape=(24, 48, 48)):
    grid = np.meshgrid(
        *((np.arange(n) - n / 2 + 0.5) * step for n, step in zip(shape, spacing, strict=True)), indexing="ij"
    )
    return sum(axis**2 for axis in grid) <= radius**2


@pytest.mark.parametrize("grown", [2.0, -2.0])
def test_shape_errors_of_a_ball_that_is_too_large_or_too_small(grown):
    """Everywhere the same distance, outside or inside: bias ± 2 mm, all sizes 2 mm, whatever the weights."""
    found = TrueShape.of(ball(12), MIDDLE).errors(ball(12 + grown))
    assert list(found) == list(SHAPE_ERRORS)
    assert found["bias_mm"] == pytest.approx(grown, abs=0.1)
    for name in ("absolute_mm", "missed_mm", "curvature_weighted_mm"):
        assert found[name] == pytest.approx(2, abs=0.1)
    assert found["p95_mm"] == pytest.approx(2, abs=0.3)
    assert found["p95_mm"] <= found["max_mm"] < 2.6


def test_what_a_prediction_lacks_is_missed_but_lies_off_no_predicted_surface():
    """Of two balls the prediction has one: its own surface is right, half of the true surface is not."""
    one, two = ball(8, shape=(24, 48, 24)), ball(8, shape=(24, 48, 24))
    found = TrueShape.of(np.concatenate([one, two], axis=2), MIDDLE).errors(np.concatenate([one, 0 * two], axis=2))
    assert found["absolute_mm"] < 0.05
    distance = 24 * MIDDLE[2]  # of the centres: the mean distance to one ball over the surface of the other
    over_sphere = (distance + 8**2 / (3 * distance)) - 8
    assert found["missed_mm"] == pytest.approx(over_sphere / 2, rel=0.02)


def test_a_shape_without_a_surface_is_none_and_a_missed_one_infinitely_far():
    mask = ball(12)
    assert TrueShape.of(np.zeros_like(mask), MIDDLE) is None
    assert TrueShape.of(np.ones_like(mask), MIDDLE) is None
    assert set(TrueShape.of(mask, MIDDLE).errors(np.zeros_like(mask)).values()) == {np.inf}
