"""Errors on a common surface: shapes of other sizes and poses whose errors are known, and the phantom's own map."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import pyvista as pv
from helpers.knees import two_test_knees

from shapeloss.data.manifest import Case
from shapeloss.data.volume import write_nifti
from shapeloss.metrics.mesh import label_surface
from shapeloss.phantom.anatomy import coordinates, distance_and_normal
from shapeloss.phantom.correspondence import map_points
from shapeloss.phantom.knee import landmarks, make_anatomy
from shapeloss.plotting.population_maps import figure_population
from shapeloss.replication import correspondence
from shapeloss.replication import population as module
from shapeloss.replication.correspondence import is_phantom, register
from shapeloss.replication.population import (
    correspondence_errors,
    errors_at,
    landmark_distances,
    landmark_errors,
    population_errors,
    population_panels,
    region_means,
    write_population,
)

SPACING = np.array([2.0, 1.0, 1.0])
SHAPE = (34, 68, 68)
POLE_MM = 4.0


def ellipsoid(radii, centre, pole=0.0, degrees=0.0):
    """Labels of an ellipsoid, turned about x; at its upper pole it stands out by a dome of so many mm."""
    x, y, z = (np.indices(SHAPE).T * SPACING - centre).T
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    y, z = c * y + s * z, c * z - s * y
    a, b, h = radii
    inside = (x / a) ** 2 + (y / b) ** 2 + (z / h) ** 2 < 1
    near = (x / a) ** 2 + (y / b) ** 2
    inside |= (near < 0.09) & (z > 0) & (z < h * np.sqrt(np.maximum(1 - near, 0)) + pole)
    return inside.astype(np.uint8)


def case(name, labels):
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = -33.0, 5.0, 7.0
    return Case(name, np.zeros(SHAPE, np.float32), labels, tuple(SPACING), affine)


def surface(one, labels):
    return label_surface(labels == 1, one.spacing, one.affine)


def test_an_error_at_one_pole_is_found_there_on_the_common_surface(monkeypatch):
    """Ellipsoids of three sizes, places and tilts, each predicted with a dome of 4 mm at its upper pole alone."""
    monkeypatch.setattr(correspondence, "SAMPLES", 28)
    common = case("common", ellipsoid((20, 16, 24), (33, 33, 33)))
    mesh = surface(common, common.labels)
    means = []
    for radii, centre, degrees in (((17, 14, 20), (29, 30, 31), 8), ((22, 18, 26), (35, 35, 31), -10)):
        other = case("other", ellipsoid(radii, centre, degrees=degrees))
        truth = surface(other, other.labels)
        predicted = {
            "dome": surface(other, ellipsoid(radii, centre, POLE_MM, degrees)),
            "same": truth,
            "none": pv.PolyData(),
        }
        found = errors_at(mesh, register(common, other, 1), other, truth, predicted)
        assert np.nanmean(found["offset"]) < 0.3
        assert np.nanpercentile(found["offset"], 95) < 0.8
        assert np.nanmax(found["errors"]["same"]) < 1e-3
        assert np.isinf(found["errors"]["none"]).all()
        means.append(found["errors"]["dome"])
    mean = np.mean(means, axis=0)
    x, y, z = (np.asarray(mesh.points) - common.affine[:3, 3] - 33).T
    away = np.hypot(x / 20, y / 16)
    top = (z > 0) & (away < 0.12)
    assert np.median(mean[top]) == pytest.approx(POLE_MM, abs=0.8)
    assert mean[(away > 0.55) | (z < 0)].max() < 0.3


def test_a_mirrored_case_is_mirrored_back():
    labels = ellipsoid((20, 16, 24), (33, 33, 33))
    labels[20:, 38:56, 30:36] = 1  # a handle on the right
    common = case("common", labels)
    points = np.asarray(surface(common, labels).points)
    mapped = register(common, case("other", labels[::-1]), 1, mirrored=True)(points)
    expected = points * [-1, 1, 1] + [2 * common.affine[0, 3] + (SHAPE[0] - 1) * SPACING[0], 0, 0]
    assert np.linalg.norm(mapped - expected, axis=1).max() < 0.1


def test_what_lies_outside_the_field_of_view_is_not_compared():
    """The same ellipsoid in a volume that ends 10 mm above its middle."""
    whole = case("whole", ellipsoid((20, 16, 24), (33, 33, 33)))
    cut = replace(whole, labels=whole.labels[:, :, :44])
    mesh, truth = surface(whole, whole.labels), surface(cut, cut.labels)
    found = errors_at(mesh, lambda points: points, cut, truth, {"same": truth})
    above = np.asarray(mesh.points)[:, 2] > whole.affine[2, 3] + 43.5
    assert 0.1 < above.mean() < 0.4
    np.testing.assert_array_equal(np.isnan(found["errors"]["same"]), above)
    np.testing.assert_array_equal(np.isnan(found["offset"]), above)
    assert found["offset"][~above].max() < 0.7


def test_the_phantom_s_map_keeps_bones_and_landmarks():
    """Left and right knees: points come to lie on the other bone, and what the shape defines is found there."""
    first, second = make_anatomy(0), make_anatomy(7)
    sides = {make_anatomy(k).side for k in range(6)}
    assert sides == {-1, 1}
    mirrored = next(make_anatomy(k) for k in range(1, 6) if make_anatomy(k).side != first.side)
    for other in (second, mirrored):
        there, expected = landmarks(first), landmarks(other)
        for name, bone, limit in (("notch_roof", 0, 2.0), ("medial_plateau", 1, 0.5), ("lateral_plateau", 1, 0.5)):
            place = map_points(np.array([there[name]]), first.bones[bone], other.bones[bone])
            assert np.linalg.norm(place - expected[name]) < limit, name
            assert abs(distance_and_normal(coordinates(place), other.bones[bone])[0][0]) < 0.02
    back = map_points(
        map_points(np.array([there["notch_roof"]]), first.femur, mirrored.femur), mirrored.femur, first.femur
    )
    assert np.linalg.norm(back - there["notch_roof"]) < 0.2
    with pytest.raises(ValueError, match="bones of one kind, got Femur and Tibia"):
        map_points(np.zeros((1, 3)), first.femur, second.tibia)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two test knees; `ce` predicts the truth, `dpce` a femur 3 mm too far forward and no patella of the first."""
    folder = tmp_path_factory.mktemp("population")
    experiment, manifest = two_test_knees(folder, shape=(20, 48, 62), spacing=(5.0, 2.2, 2.2))
    for index, name in enumerate(manifest.names("test")):
        one = manifest.original(name)
        moved = np.where(one.labels == 1, 0, one.labels).astype(np.uint8)
        moved[np.roll(one.labels, 1, axis=1) == 1] = 1
        if index == 0:
            moved[moved == 3] = 0
        for loss, labels in (("dpce", moved), ("ce", one.labels)):
            write_nifti(folder / "runs" / loss / "seed0" / "predictions" / f"{name}.nii.gz", labels, one.affine)
    return experiment, manifest, folder


def test_the_population_of_two_knees(results, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SAMPLES", 30)
    experiment, manifest, folder = results
    template = manifest.names("test")[0]
    assert is_phantom(manifest)
    population = population_errors(experiment, manifest, folder, template)
    assert list(population.surfaces) == ["femur", "tibia", "patella"]
    assert population.reference == "ce"
    femur = population.surfaces["femur"]
    own = list(population.cases).index(template)
    assert np.nanmax(femur.offsets[own]) < 0.6  # the common surface is coarser than the case's own
    assert 0.5 < femur.seen.mean() <= 1
    assert np.nanmax(femur.mean("ce")) < 1e-3
    assert 0.5 < np.nanmean(femur.mean("dpce")) < 2.2
    assert population.surfaces["patella"].missed("dpce") == 1
    assert np.isnan(population.differences["patella", "dpce"][0]).all()
    difference, p = population.differences["femur", "dpce"]
    np.testing.assert_allclose(difference[femur.seen], femur.mean("dpce")[femur.seen], atol=1e-3)
    assert np.nanmin(p) >= 0.5  # of two cases nothing can be told
    table = region_means(population).set_index(["structure", "region", "loss"])
    assert table.loc[("femur", "condyles", "dpce"), "difference_mm"] > 0.5
    assert table.loc[("femur", "condyles", "dpce"), "larger_percent"] == 0
    assert np.isnan(table.loc[("femur", "condyles", "ce"), "difference_mm"])
    errors = correspondence_errors(population).set_index("structure")
    assert errors.loc["tibia", "same_region_percent"] > 80
    away = landmark_errors(population).set_index("landmark")
    assert away.loc["notch_roof", "distance_mean_mm"] < 3
    assert set(away.index) == set(landmarks(make_anatomy(0))) - {"patella_centre"}
    # at voxels of 5 mm: across the surface no landmark is far off, along it the condyles' extreme points are
    assert away["across_mean_mm"].max() < 3
    assert away.loc["medial_condyle_distal", "distance_mean_mm"] > away.loc["medial_condyle_distal", "across_mean_mm"]
    panels = population_panels(population)
    assert "no difference can be told from zero: no p is below 0.5" in panels["note"]
    figure = figure_population(**panels)
    titles = [axes.get_title() for part in figure.subfigs for axes in part.axes]
    assert titles.count("Distance-penalised CE") == 2
    assert titles.count("Cross-entropy") == 1
    assert "missed in 1 of 2" in [text.get_text() for axes in figure.subfigs[0].axes for text in axes.texts]
    monkeypatch.setattr(module, "provenance_line", lambda *_: "Data: two knees.")
    text = write_population(population, experiment, manifest, folder, tmp_path / "population.md")
    assert "|notch roof|" in text
    assert "|medial condyle distal|" in text
    assert "|patella|patella|dpce|" in text
    assert pd.isna(table.loc[("patella", "patella", "dpce"), "difference_mm"])


def test_a_landmark_that_slides_along_a_surface_is_told_from_one_that_leaves_it():
    """On a ball of 20 mm: the parts of a mapped landmark's distance by hand."""
    ball = pv.Sphere(radius=20, theta_resolution=300, phi_resolution=300)
    angle = np.deg2rad(30)
    slid = landmark_distances(20 * np.array([np.sin(angle), 0, -np.cos(angle)]), (0, 0, -20), ball)
    assert slid["across_mm"] < 0.02
    assert slid["along_mm"] == pytest.approx(2 * 20 * np.sin(angle / 2), abs=0.02) == slid["distance_mm"]
    off = landmark_distances(np.array([0.0, 0, -23]), (0, 0, -20), ball)
    assert (off["distance_mm"], off["across_mm"]) == (pytest.approx(3), pytest.approx(3, abs=0.02))
    assert off["along_mm"] < 0.02


def test_without_a_structure_there_is_no_picture():
    with pytest.raises(ValueError, match="at least one structure"):
        figure_population({}, {}, {}, {}, "ce", 2, (0, -1, 0))
