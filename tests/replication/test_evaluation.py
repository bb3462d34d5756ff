"""Surface errors of a run's predictions at landmarks, where the phantom knows the answer."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from shapeloss.data.manifest import prepare
from shapeloss.data.volume import write_nifti
from shapeloss.metrics import score_case
from shapeloss.metrics.mesh import label_surface, region_error
from shapeloss.phantom.contrast import PhantomOptions
from shapeloss.phantom.dataset import write_dataset
from shapeloss.plotting.render import widest_view
from shapeloss.plotting.slices import distance_map_panels
from shapeloss.replication.profile import Experiment
from shapeloss.replication.scores import representative_case, score_against_exact
from shapeloss.replication.surface_errors import landmark_errors, read_landmarks, surface_error_panels

OPTIONS = PhantomOptions(shape=(36, 56, 72), spacing=(2.8, 2.0, 2.0))
PATTERNS = ["*notch*", "*_plateau"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Three knees; `ce` predicts the truth, `dpce` a femur that is 4 mm too far forward."""
    folder = tmp_path_factory.mktemp("landmarks")
    split = {"train": 1, "validation": 1, "test": 1}
    experiment = Experiment(name="x", description="x", losses=["dpce", "ce"], data={"split": split}, seeds=(0,))
    write_dataset(folder / "data", 3, OPTIONS)
    manifest = prepare(experiment.data, folder / "data", folder / "cases.json")
    name = manifest.names("test")[0]
    case = manifest.original(name)
    moved = np.where(case.labels == 1, 0, case.labels)
    moved[np.roll(case.labels, 2, axis=1) == 1] = 1
    for loss, labels in (("dpce", moved), ("ce", case.labels)):
        write_nifti(folder / "runs" / loss / "seed0" / "predictions" / f"{name}.nii.gz", labels, case.affine)
    return experiment, manifest, folder, case, moved


def test_errors_are_those_of_the_bone_that_the_landmark_lies_on(results):
    experiment, manifest, folder, case, moved = results
    table = landmark_errors(experiment, manifest, folder, PATTERNS, 10.0)
    assert set(table["landmark"]) == {"notch_roof", "medial_plateau", "lateral_plateau"}
    assert len(table) == 2 * 3
    found = table.set_index(["loss", "landmark"])["error_mm"]
    assert (found["ce"] < 1e-3).all()
    # the tibia was not moved, but where the femur now overlaps it, it lost a little
    assert found["dpce", "medial_plateau"] < 0.5 * found["dpce", "notch_roof"]
    point = read_landmarks(manifest, case.name)["notch_roof"]
    surfaces = [label_surface(labels == 1, case.spacing, case.affine) for labels in (moved, case.labels)]
    assert found["dpce", "notch_roof"] == pytest.approx(region_error(*surfaces, point, 10.0).mean_mm)


def test_scores_against_the_exact_surfaces(results, tmp_path):
    """`ce` repeats what the reader drew, so it scores as the reader does; `exact` predicts the true labels."""
    experiment = results[0].model_copy(update={"losses": {"exact": {}, "ce": {}}})
    write_dataset(tmp_path / "data", 3, replace(OPTIONS, reader_mm=0.8))
    manifest = prepare(experiment.data, tmp_path / "data", tmp_path / "cases.json")
    name = manifest.names("test")[0]
    case, exact = manifest.original(name), manifest.read_labels(tmp_path / "data/exactTr" / f"{name}.nii.gz")
    for loss, labels in (("exact", exact), ("ce", case.labels)):
        write_nifti(tmp_path / "runs" / loss / "seed0" / "predictions" / f"{name}.nii.gz", labels, case.affine)
    scores = score_against_exact(experiment, manifest, tmp_path, tmp_path / "exact.csv")
    assert list(dict.fromkeys(scores["loss"])) == ["reader", "exact", "ce"]
    rows = scores[scores.structure == "femur"].set_index("loss")
    assert rows.loc["exact", "dice"] == 1
    assert 0.9 < rows.loc["reader", "dice"] == rows.loc["ce", "dice"] < 0.99
    expected = score_case(exact, case.labels, case.spacing, manifest.classes)[0]
    assert rows.loc["reader", "boundary_dice_in_plane"] == expected["boundary_dice_in_plane"]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "exact.csv"), scores)
    assert score_against_exact(*results[:3], tmp_path / "none.csv") is None  # data without a reader
    assert not (tmp_path / "none.csv").exists()


def test_without_landmarks_there_is_no_table(results, tmp_path):
    experiment, manifest, folder, _, _ = results
    assert landmark_errors(experiment, manifest, folder, ["*meniscus*"], 10.0) is None


def test_the_representative_case_is_the_lower_of_two_medians():
    scores = pd.DataFrame({"loss": "dpce", "structure": "mean", "case": list("abcd"), "dice": [0.4, 0.1, 0.3, 0.2]})
    others = scores.assign(loss="ce", dice=[0.1, 0.2, 0.9, 0.8])
    table = pd.concat([scores, others, scores.assign(structure="femur", dice=0.5)])
    assert representative_case(table, "dpce", "dice") == "d"
    assert representative_case(table[table["case"] != "b"], "dpce", "dice") == "c"


def panels(results, classes, labels=None):
    """The surface errors of the knee whose structures have other names, or other labels."""
    experiment, manifest, folder, case, _ = results
    manifest = replace(manifest, classes=classes)
    case = case if labels is None else replace(case, labels=labels)
    return surface_error_panels(experiment, manifest, folder, case), case


def test_a_knee_shows_femur_and_tibia_from_behind(results):
    found, case = panels(results, {1: "Femur", 2: "tibia", 3: "patella"})
    assert found["direction"] == (0, -1, 0)
    assert found["note"] == ""  # as in the paper
    assert {loss: len(meshes) for loss, meshes in found["meshes"].items()} == {"dpce": 2, "ce": 2}
    assert all(np.abs(mesh["error_mm"]).max() < 1e-3 for mesh in found["meshes"]["ce"])
    truth = label_surface(case.labels == 2, case.spacing, case.affine)
    assert found["meshes"]["ce"][1].bounds == pytest.approx(truth.bounds)
    # wherever they stand, and what else there is
    found, case = panels(results, {1: "meniscus", 2: "tibia", 3: "femur"})
    assert found["note"] == "Structures shown (2 of 3): tibia, femur."
    patella = label_surface(case.labels == 3, case.spacing, case.affine)
    assert found["meshes"]["ce"][1].bounds == pytest.approx(patella.bounds)


def test_other_anatomy_shows_all_structures_in_the_widest_view(results):
    found, case = panels(results, {1: "liver", 2: "spleen", 3: "aorta"})
    assert [len(meshes) for meshes in found["meshes"].values()] == [3, 3]
    assert found["note"] == "Structures shown (3): liver, spleen, aorta."
    truths = [label_surface(case.labels == label, case.spacing, case.affine) for label in (1, 2, 3)]
    assert found["direction"] == widest_view(truths)


def test_a_structure_that_the_truth_lacks_is_named(results):
    labels = np.where(results[3].labels == 2, 0, results[3].labels)
    found, _ = panels(results, {1: "femur", 2: "tibia", 3: "patella"}, labels)
    assert [len(meshes) for meshes in found["meshes"].values()] == [1, 1]
    assert found["note"] == "Structures shown (1 of 3): femur. Without a surface in the truth of this case: tibia."


def test_the_maps_have_the_slices_of_the_data_set(results):
    _, manifest, _, case, _ = results
    assert distance_map_panels(case.image, case.labels, case.spacing, manifest.classes, 2)["slice_axis"] == 2
