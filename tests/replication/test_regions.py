"""Regions of surfaces and the errors in them: shapes whose distances are known, and the phantom's landmarks."""

import numpy as np
import pandas as pd
import pytest
import pyvista as pv

from shapeloss.data.manifest import prepare
from shapeloss.data.volume import write_nifti
from shapeloss.metrics.functions import weighted_percentile
from shapeloss.metrics.mesh import region_error, surface_error, vertex_areas
from shapeloss.phantom.contrast import PhantomOptions
from shapeloss.phantom.dataset import write_dataset
from shapeloss.plotting.surface_page import TRUTH
from shapeloss.replication import surface_viewer
from shapeloss.replication.profile import Experiment
from shapeloss.replication.regions import (
    NOTCH_MM,
    Division,
    case_surfaces,
    divide,
    estimated_landmarks,
    longest_axes,
    region_table,
    structure_errors,
)
from shapeloss.replication.surface_errors import read_landmarks

OPTIONS = PhantomOptions(shape=(28, 72, 92), spacing=(3.4, 1.5, 1.5))
WHOLE = Division(("all",), lambda points: np.zeros(len(points), dtype=np.intp), "all")


def plate(x, z, cells):
    """A square of 20 × 20 mm around (x, 0, z), of so many cells along each side; its normal points upwards."""
    return pv.Plane(center=(x, 0, z), i_size=20, j_size=20, i_resolution=cells, j_resolution=cells).triangulate()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Three knees; `ce` predicts the truth, `dpce` a femur 3 mm too far forward and no patella."""
    folder = tmp_path_factory.mktemp("regions")
    split = {"train": 1, "validation": 1, "test": 1}
    experiment = Experiment(name="x", description="x", losses=["dpce", "ce"], data={"split": split}, seeds=(0,))
    write_dataset(folder / "data", 3, OPTIONS)
    manifest = prepare(experiment.data, folder / "data", folder / "cases.json")
    name = manifest.names("test")[0]
    case = manifest.original(name)
    moved = np.where(case.labels == 2, 2, 0).astype(np.uint8)
    moved[np.roll(case.labels, 2, axis=1) == 1] = 1
    for loss, labels in (("dpce", moved), ("ce", case.labels)):
        write_nifti(folder / "runs" / loss / "seed0" / "predictions" / f"{name}.nii.gz", labels, case.affine)
    return experiment, manifest, folder, case


def test_concentric_spheres_are_one_mm_apart_in_every_third():
    truth, predicted = (pv.Sphere(radius=radius, theta_resolution=90, phi_resolution=90) for radius in (20, 21))
    division = divide({"liver": truth}, {}, {"liver": 1})["liver"]
    assert division.names == ("posterior third", "middle third", "anterior third")
    found = structure_errors(predicted, truth, division)
    assert found["region"].tolist() == list(division.names)
    assert found[["mean_mm", "p95_mm", "max_mm"]].to_numpy() == pytest.approx(np.ones((3, 3)), abs=0.02)


def test_thirds_have_equal_length_along_their_axis():
    truth = pv.Sphere(radius=15, center=(4, 5, 6))
    division = divide({"liver": truth}, {}, {"liver": 2})["liver"]
    points = np.array([[4.0, 5, 0.9], [4, 5, 1.1], [4, 5, 10.9], [4, 5, 11.1], [4, 5, 99]])
    assert division.which(points).tolist() == [0, 1, 1, 2, 2]
    assert division.names == ("inferior third", "middle third", "superior third")
    assert division.rule == "thirds from inferior to superior"


def test_mean_and_percentile_by_hand():
    """Two plates of one area, 1 and 3 mm from the truth, the first with 400 times as many triangles as the second."""
    truth = plate(-20, 0, 20) + plate(20, 0, 1)
    predicted = plate(-20, 1, 20) + plate(20, 3, 1)
    found = structure_errors(predicted, truth, WHOLE).iloc[0]
    assert found["mean_mm"] == pytest.approx(2, abs=1e-6)
    assert found["p95_mm"] == pytest.approx(3, abs=1e-6)
    assert found["max_mm"] == pytest.approx(3, abs=1e-6)
    assert weighted_percentile(np.array([3.0, 1.0]), np.array([1.0, 1.0]), 50) == 1
    assert weighted_percentile(np.array([3.0, 1.0, 2.0]), np.array([0.04, 0.9, 0.06]), 95) == 2
    halves = Division(("left", "right"), lambda points: (points[:, 0] > 0).astype(np.intp), "x")
    assert structure_errors(predicted, truth, halves)["mean_mm"].tolist() == pytest.approx([1, 3], abs=1e-6)


def test_what_a_prediction_lacks_counts_and_a_missed_structure_is_infinite():
    truth = plate(-20, 0, 10) + plate(20, 0, 10)
    found = structure_errors(plate(-20, 0, 10), truth, WHOLE).iloc[0]
    assert found["max_mm"] == pytest.approx(40, abs=1e-6)  # from x = 30 to the edge at −10
    missed = structure_errors(pv.PolyData(), truth, WHOLE)
    assert missed[["mean_mm", "p95_mm", "max_mm"]].to_numpy().tolist() == [[np.inf] * 3]


def test_the_notch_is_that_of_the_claim(results):
    _, manifest, folder, case = results
    landmarks = read_landmarks(manifest, case.name)
    labels = manifest.read_labels(folder / "runs/dpce/seed0/predictions" / f"{case.name}.nii.gz")
    truth, found = (case_surfaces(case, part, manifest.classes)["femur"] for part in (case.labels, labels))
    truths = case_surfaces(case, case.labels, manifest.classes)
    errors = structure_errors(found, truth, divide(truths, landmarks, {})["femur"]).set_index("region")
    expected = region_error(found, truth, landmarks["notch_roof"], NOTCH_MM)
    assert errors.loc["notch", "mean_mm"] == pytest.approx(expected.mean_mm)
    assert errors.loc["notch", "max_mm"] == pytest.approx(expected.max_mm)


def test_landmarks_lie_in_their_regions(results):
    _, manifest, _, case = results
    landmarks = read_landmarks(manifest, case.name)
    divisions = divide(case_surfaces(case, case.labels, manifest.classes), landmarks, {})
    assert {division.rule for division in divisions.values()} == {"landmarks of the data set"}

    def region(structure, point):
        return divisions[structure].names[divisions[structure].which(np.array([point]))[0]]

    for name, (structure, expected) in {
        "notch_roof": ("femur", "notch"), "medial_condyle_distal": ("femur", "condyles"),
        "lateral_condyle_posterior": ("femur", "condyles"), "medial_plateau": ("tibia", "plateaus"),
        "lateral_plateau": ("tibia", "plateaus"), "eminence": ("tibia", "eminence"),
        "patella_centre": ("patella", "patella"),
    }.items():  # fmt: skip
        assert region(structure, landmarks[name]) == expected, name
    assert region("femur", np.add(landmarks["medial_condyle_distal"], (0, 0, 55))) == "shaft"
    assert region("tibia", np.subtract(landmarks["medial_plateau"], (0, 0, 12))) == "shaft"


def test_estimated_landmarks_give_nearly_the_same_regions(results):
    """Without landmarks, the surfaces alone: for each of the knees, right and left ones."""
    _, manifest, _, _ = results
    for name in (case["name"] for case in manifest.cases):
        case, given = manifest.original(name), read_landmarks(manifest, name)
        truths = case_surfaces(case, case.labels, manifest.classes)
        places = estimated_landmarks(truths["femur"], truths["tibia"])
        for landmark, limit in (("notch_roof", 6), ("eminence", 11)):  # one of two spines
            assert np.linalg.norm(places[landmark] - given[landmark]) < limit, (name, landmark)
        known, found = divide(truths, given, {}), divide(truths, {}, {})
        assert found["femur"].rule == found["patella"].rule == "landmarks estimated from the surfaces"
        for bone in ("femur", "tibia"):
            same = known[bone].which(truths[bone].points) == found[bone].which(truths[bone].points)
            assert np.average(same, weights=vertex_areas(truths[bone])) > 0.93, (name, bone)


def test_the_table_of_all_test_cases(results):
    experiment, manifest, folder, case = results
    table = region_table(experiment, manifest, folder)
    regions = ["notch", "condyles", "shaft", "eminence", "plateaus", "shaft", "patella"]
    assert table["region"].tolist() == 2 * regions
    assert set(table["case"]) == {case.name}
    errors = table.set_index(["loss", "structure", "region"])
    assert (errors.loc["ce", ["mean_mm", "p95_mm", "max_mm"]].to_numpy() < 1e-3).all()
    assert np.isinf(errors.loc[("dpce", "patella", "patella"), "mean_mm"])
    assert 0.5 < errors.loc[("dpce", "femur", "condyles"), "mean_mm"] < 3  # 3 mm along one of three directions
    assert (table["mean_mm"] <= table["p95_mm"]).all()
    assert (table["p95_mm"] <= table["max_mm"]).all()


def test_axes_are_those_of_the_longest_side(results):
    _, manifest, _, case = results
    for label, name in manifest.classes.items():
        bounds = case_surfaces(case, case.labels, {label: name})[name].bounds
        assert longest_axes(manifest)[name] == np.argmax([bounds[2 * k + 1] - bounds[2 * k] for k in range(3)])


def test_the_parts_of_the_page(results, monkeypatch):
    experiment, manifest, folder, case = results
    monkeypatch.setattr(surface_viewer, "provenance_line", lambda *_: "Data: three knees.")
    monkeypatch.setattr(surface_viewer, "TRIANGLES", 10_000)
    parts = surface_viewer.surface_page_parts(experiment, manifest, folder, case, pd.DataFrame())
    assert list(parts["meshes"]) == [TRUTH, "dpce", "ce"]
    assert parts["regions"]["tibia"] == ("eminence", "plateaus", "shaft")
    assert parts["meshes"]["dpce"]["patella"].n_points == 0  # missed
    assert parts["meshes"]["ce"]["femur"].n_points
    landmarks = read_landmarks(manifest, case.name)
    right = "lateral" if landmarks["lateral_plateau"][0] > landmarks["medial_plateau"][0] else "medial"
    assert parts["right_is"] == right
    for key, meshes in parts["meshes"].items():
        assert sum(mesh.n_cells for mesh in meshes.values()) <= 10_000, key
    truth = case_surfaces(case, case.labels, manifest.classes)["femur"]
    mesh = parts["meshes"]["dpce"]["femur"]
    np.testing.assert_allclose(mesh["error_mm"], surface_error(mesh, truth))  # of the full truth, not of a reduced one
    assert np.abs(mesh["error_mm"]).max() > 2
    assert not parts["meshes"][TRUTH]["femur"]["error_mm"].any()
    regions, reduction, provenance = parts["notes"]
    assert regions == "Regions from: femur, tibia, patella: landmarks of the data set."
    assert "moves the surfaces by 0.0" in reduction
    assert provenance == "Data: three knees."
