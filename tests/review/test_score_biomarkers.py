"""`evaluate --biomarkers`: any structure's size and shape, a knee's biomarkers, and whose side is whose."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers.label_maps import write
from helpers.solids import BLOCK_CLASSES, BLOCK_KNEE, block_labels

from shapeloss.metrics.biomarkers import biomarker_names, structure_biomarkers
from shapeloss.metrics.shape import SHAPE_ERRORS, TrueShape
from shapeloss.replication.scores import write_scores
from shapeloss.review.score_biomarkers import (
    biomarkers_markdown,
    knee_sides,
    measure_folders,
    measure_shapes,
    shapes_markdown,
)
from shapeloss.review.score_folders import score_folders

SPACING = (4.0, 0.5, 0.8)


def blob(shift=0):
    array = np.zeros((8, 24, 20), np.uint8)
    array[2:6, 4 + shift : 15, 5:14] = 4
    return array


def test_any_structure_has_a_size_and_shape(tmp_path):
    for index, name in enumerate("ab"):
        write(tmp_path / "truth" / f"{name}.nii.gz", blob())
        write(tmp_path / "found" / f"{name}.nii.gz", blob(index + 1))
    places = tmp_path / "found", tmp_path / "truth"
    scores = score_folders(*places, {4: "liver"}, metrics=["dice"], progress=False)
    rows = measure_folders(*places, scores, progress=False)
    assert rows["structure"].unique().tolist() == ["liver"]
    expected = structure_biomarkers(blob(2) == 4, SPACING)
    last = rows[rows["case"] == "b"].set_index("biomarker")
    for name, value in expected.items():
        assert last.loc[name, "prediction"] == pytest.approx(value.value)
        assert last.loc[name, "difference"] == pytest.approx(last.loc[name, "prediction"] - last.loc[name, "truth"])
    path = tmp_path / "biomarkers.csv"
    write_scores(rows, path)
    pd.testing.assert_frame_equal(pd.read_csv(path).drop(columns="reason"), rows.drop(columns="reason"))
    text = biomarkers_markdown(rows)
    assert "| liver | `extent_y_mm` (mm) | 2 | −0.75 [" in text  # 0.5 and 1 mm shorter
    assert "--side" not in text


def test_shape_errors_of_folders_are_those_of_the_masks(tmp_path):
    """A shift by a voxel of 0.5 mm; of a case without a prediction of the structure the errors are infinite."""
    affine = np.diag([*SPACING, 1.0])
    for name, found in (("a", np.roll(blob(), 1, axis=1)), ("b", 0 * blob())):
        write(tmp_path / "truth" / f"{name}.nii.gz", blob(), affine)
        write(tmp_path / "found" / f"{name}.nii.gz", found, affine)
    places = tmp_path / "found", tmp_path / "truth"
    scores = score_folders(*places, {4: "liver"}, metrics=["dice"], progress=False)
    rows = measure_shapes(*places, scores, progress=False).set_index("case")
    expected = TrueShape.of(blob() == 4, SPACING, affine).errors(np.roll(blob(), 1, axis=1) == 4)
    assert rows.loc["a", list(SHAPE_ERRORS)].to_dict() == pytest.approx(expected)
    assert rows.loc["a", "max_mm"] == pytest.approx(0.5, abs=0.01)
    assert np.isinf(rows.loc["b", list(SHAPE_ERRORS)].astype(float)).all()
    text = shapes_markdown(rows.reset_index())
    assert f"| liver | 1 | 1 | {expected['bias_mm']:+.3f} | {expected['absolute_mm']:.3f} |" in text


def test_labels_are_merged_as_for_the_scores(tmp_path):
    write(tmp_path / "truth" / "a.nii.gz", blob())
    write(tmp_path / "found" / "a.nii.gz", np.where(blob(), 9, 0).astype(np.uint8))
    places = tmp_path / "found", tmp_path / "truth"
    scores = score_folders(*places, {4: "liver"}, merge_predictions={9: 4}, metrics=["dice"], progress=False)
    rows = measure_folders(*places, scores, None, {9: 4}, progress=False)
    assert (rows["difference"] == 0).all()
    assert (measure_shapes(*places, scores, None, {9: 4}, progress=False)["absolute_mm"] == 0).all()


def test_a_knee_by_its_names_and_what_is_absent(tmp_path):
    labels, affine = block_labels()
    write(tmp_path / "truth" / "a.nii.gz", labels, affine)
    write(tmp_path / "found" / "a.nii.gz", np.where(labels == 3, 0, labels), affine)
    places = tmp_path / "found", tmp_path / "truth"
    scores = score_folders(*places, BLOCK_CLASSES, metrics=["dice"], progress=False)
    rows = measure_folders(*places, scores, progress=False)
    knee = rows[rows["structure"] == "knee"].set_index("biomarker")
    assert list(knee.index) == list(biomarker_names(None))
    assert knee.loc["notch_width_mm", "truth"] == pytest.approx(BLOCK_KNEE["notch_width_mm"], abs=0.8)
    assert knee.loc["notch_width_mm", "difference"] == 0
    assert np.isnan(knee.loc["patellar_width_mm", "difference"])
    assert knee.loc["patellar_width_mm", "reason"] == "prediction: patella: it is empty"
    text = biomarkers_markdown(rows)
    assert "The side of a knee is not known" in text
    assert "- Not measured in 1 case(s): prediction: patella: it is empty." in text
    sided = measure_folders(*places, scores, side="left", progress=False)
    assert set(biomarker_names("left")) <= set(sided["biomarker"])


def test_the_side_is_given_recorded_or_read_from_landmarks(tmp_path):
    (tmp_path / "labelsTr").mkdir()
    truth = tmp_path / "labelsTr"
    assert knee_sides("left", truth, ["a", "b"]) == {"a": "left", "b": "left"}
    assert knee_sides("", truth, ["a"]) == {"a": None}
    (tmp_path / "landmarks").mkdir()
    points = {"medial_plateau": [-20, 0, 0], "lateral_plateau": [20, 0, 0]}
    (tmp_path / "landmarks" / "a.json").write_text(json.dumps(points))
    assert knee_sides("", truth, ["a", "b"]) == {"a": "right", "b": None}
    (tmp_path / "import.json").write_text(json.dumps({"cases": {"b": {"side": "left"}}}))
    assert knee_sides("", truth, ["a", "b"]) == {"a": "right", "b": "left"}
    table = tmp_path / "sides.csv"
    table.write_text("case,side\na,Left\n")
    assert knee_sides(str(table), truth, ["a", "b"]) == {"a": "left", "b": None}
    table.write_text("case,side\na,top\n")
    with pytest.raises(ValueError, match="case a has the side 'top'"):
        knee_sides(str(table), truth, ["a"])
    table.write_text("case,knee\na,left\n")
    with pytest.raises(ValueError, match="case and side were expected"):
        knee_sides(str(table), truth, ["a"])
    with pytest.raises(ValueError, match="--side must be"):
        knee_sides("medial", truth, ["a"])
