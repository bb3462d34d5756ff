"""`evaluate --biomarkers`: any structure's size and shape, a knee's biomarkers, and whose side is whose."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers.label_maps import write
from helpers.solids import BLOCK_CLASSES, BLOCK_KNEE, block_labels

from shapeloss.metrics.biomarkers import biomarker_names, structure_biomarkers
from shapeloss.review.score_biomarkers import biomarkers_markdown, knee_sides, measure_folders, write_biomarkers
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
    path = write_biomarkers(rows, tmp_path / "out")
    pd.testing.assert_frame_equal(pd.read_csv(path).drop(columns="reason"), rows.drop(columns="reason"))
    text = biomarkers_markdown(rows)
    assert "| liver | `extent_y_mm` (mm) | 2 | −0.75 [" in text  # 0.5 and 1 mm shorter
    assert "--side" not in text


def test_labels_are_merged_as_for_the_scores(tmp_path):
    write(tmp_path / "truth" / "a.nii.gz", blob())
    write(tmp_path / "found" / "a.nii.gz", np.where(blob(), 9, 0).astype(np.uint8))
    places = tmp_path / "found", tmp_path / "truth"
    scores = score_folders(*places, {4: "liver"}, merge_predictions={9: 4}, metrics=["dice"], progress=False)
    rows = measure_folders(*places, scores, None, {9: 4}, progress=False)
    assert (rows["difference"] == 0).all()


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
