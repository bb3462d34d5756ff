"""Folders of label maps: matched by name, scored on their own grid, every problem named and nothing else lost."""

import json

import nibabel
import numpy as np
import pandas as pd
import pytest
from helpers.label_maps import SPACING, affine, write

from shapeloss.data.axes import acquisition_axis
from shapeloss.metrics import METRICS, score_case
from shapeloss.review import score_folders as scoring
from shapeloss.review.score_folders import keep_labels, score_folders, summarise, summary_markdown, write_scores

CLASSES = {1: "femur", 2: "tibia"}
QUICK = ("dice", "boundary_dice_in_plane", "hd95_voxel_mm")


def labels(seed=0, shape=(6, 20, 16)):
    """Two blocks whose edges depend on the seed."""
    moved = np.random.default_rng(seed).integers(0, 3, 4)
    array = np.zeros(shape, np.uint8)
    array[1:5, 2 + moved[0] : 9, 3 : 10 + moved[1]] = 1
    array[1:5, 10 : 17 + moved[2], 3 + moved[3] : 12] = 2
    return array


@pytest.fixture
def folders(tmp_path):
    for index, name in enumerate(("a", "b é", "c")):
        write(tmp_path / "truth" / f"{name}.nii.gz", labels(index))
        write(tmp_path / "found" / f"{name}.nii.gz", labels(index + 10))
    return tmp_path / "found", tmp_path / "truth"


def test_scores_are_those_of_score_case(folders):
    scores = score_folders(*folders, CLASSES, metrics=QUICK, progress=False)
    assert scores.problems == ()
    assert scores.per_case["case"].drop_duplicates().tolist() == ["a", "b é", "c"]
    for index, name in enumerate(("a", "b é", "c")):
        expected = score_case(labels(index), labels(index + 10), SPACING, CLASSES, 0, QUICK)
        rows = scores.per_case[scores.per_case["case"] == name].drop(columns="case").to_dict("records")
        assert rows == expected


def test_all_metrics_by_default_and_structures_from_the_truth(folders):
    scores = score_folders(*folders, progress=False)
    assert set(METRICS) <= set(scores.per_case.columns)
    assert scores.classes == {1: "label 1", 2: "label 2"}


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha", ".mhd"])
def test_formats_may_differ(tmp_path, ending, oblique):
    write(tmp_path / "truth" / "a.nii.gz", labels(0), affine(oblique))
    write(tmp_path / "found" / f"a{ending}", labels(1), affine(oblique))
    scores = score_folders(tmp_path / "found", tmp_path / "truth", CLASSES, metrics=QUICK, progress=False)
    expected = score_case(labels(0), labels(1), SPACING, CLASSES, 0, QUICK)
    assert scores.problems == ()
    for row, wanted in zip(scores.per_case.to_dict("records"), expected, strict=True):
        assert {key: row[key] for key in QUICK} == pytest.approx({key: wanted[key] for key in QUICK})


def test_axes_in_another_order_are_the_same_slices(tmp_path):
    """A file whose axes are (Z, X, Y) has its sagittal slices along another array axis; the scores must not change."""
    turned = affine()[:, [2, 0, 1, 3]]
    for folder, seed in (("truth", 0), ("found", 1)):
        write(tmp_path / folder / "a.nii.gz", np.ascontiguousarray(labels(seed).transpose(2, 0, 1)), turned)
    scores = score_folders(tmp_path / "found", tmp_path / "truth", CLASSES, metrics=QUICK, progress=False)
    expected = score_case(labels(0), labels(1), SPACING, CLASSES, 0, QUICK)
    assert scores.per_case["boundary_dice_in_plane"].tolist() == [row["boundary_dice_in_plane"] for row in expected]
    assert scores.planes == ("sagittal",)
    other = score_folders(tmp_path / "found", tmp_path / "truth", CLASSES, plane="axial", metrics=QUICK, progress=False)
    expected = score_case(labels(0), labels(1), SPACING, CLASSES, 2, QUICK)
    assert other.per_case["boundary_dice_in_plane"].tolist() == [row["boundary_dice_in_plane"] for row in expected]


def test_acquisition_axis():
    assert acquisition_axis((0.7, 0.365, 0.365)) == 0
    assert acquisition_axis((0.4, 0.4, 4.0)) == 2
    assert acquisition_axis((1.0, 1.0, 1.0)) == acquisition_axis((0.999, 1.0, 1.0)) == 0


def test_labels_are_merged_first_and_the_others_are_background():
    array = np.array([[0, 1, 2, 3, 7, 9]])
    kept, others = keep_labels(array, {1: "femur", 3: "tibia"}, {7: 1, 9: 3})
    assert kept.tolist() == [[0, 1, 0, 3, 1, 3]]
    assert others == {2}


def test_remapping_of_one_side(folders, tmp_path):
    for index, name in enumerate(("a", "b é", "c")):
        swapped = np.array([0, 5, 6], np.uint8)[labels(index + 10)]
        write(tmp_path / "other" / f"{name}.nii.gz", swapped)
    scores = score_folders(
        tmp_path / "other", folders[1], CLASSES, merge_predictions={5: 1, 6: 2}, metrics=QUICK, progress=False
    )
    pd.testing.assert_frame_equal(
        scores.per_case, score_folders(*folders, CLASSES, metrics=QUICK, progress=False).per_case
    )
    bare = score_folders(tmp_path / "other", folders[1], CLASSES, metrics=QUICK, progress=False)
    assert bare.per_case["missed"].all()
    assert bare.ignored == {5: 3, 6: 3}
    assert "5 (in 3 files), 6 (in 3 files)" in summary_markdown(bare, "p", "t")


def test_every_problem_is_named_and_the_others_are_scored(folders):
    found, truth = folders
    write(truth / "no prediction.nii.gz", labels(3))
    write(found / "no truth.nii.gz", labels(3))
    write(truth / "shape.nii.gz", labels(3))
    write(found / "shape.nii.gz", labels(3, (6, 20, 18)))
    write(truth / "shift.nii.gz", labels(3))
    moved = affine()
    moved[0, 3] += 2.0
    write(found / "shift.nii.gz", labels(3), moved)
    write(truth / "broken.nii.gz", labels(3))
    (found / "broken.nii.gz").write_bytes((found / "a.nii.gz").read_bytes()[:60])
    write(truth / "twice.nii.gz", labels(3))
    write(found / "twice.nii.gz", labels(3))
    write(found / "twice.nrrd", labels(3))
    write(truth / "soft.nii.gz", labels(3))
    write(found / "soft.nii.gz", labels(3).astype(np.float32) * 0.5)
    scores = score_folders(found, truth, CLASSES, metrics=QUICK, progress=False)
    assert set(scores.per_case["case"]) == {"a", "b é", "c"}
    assert len(scores.problems) == 7
    for part in (
        "no prediction.nii.gz: has no prediction",
        "no truth.nii.gz: has no truth",
        "shape.nii.gz: its grid is not that of",
        "6 × 20 × 18 voxels, not 6 × 20 × 16; resample it with nearest neighbour",
        "shifted by 2 mm",
        "broken.nii.gz: is not a valid NIfTI file",
        "twice.nrrd: is a second volume of case twice",
        "soft.nii.gz: has fractional label 0.5",
    ):
        assert sum(part in problem for problem in scores.problems) == 1, part
    assert all("\n" not in problem for problem in scores.problems)
    assert "## 7 problem(s)" in summary_markdown(scores, found, truth)


def test_nothing_to_score(tmp_path):
    write(tmp_path / "truth" / "a.nii.gz", labels())
    write(tmp_path / "found" / "b.nii.gz", labels())
    with pytest.raises(ValueError, match=r"no case of .* could be scored[\s\S]*a.nii.gz: has no prediction"):
        score_folders(tmp_path / "found", tmp_path / "truth", progress=False)
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such file or folder"):
        score_folders(tmp_path / "nowhere", tmp_path / "truth", progress=False)
    with pytest.raises(ValueError, match="give two folders or two files"):
        score_folders(tmp_path / "found" / "b.nii.gz", tmp_path / "truth", progress=False)
    with pytest.raises(ValueError, match="no metric dise"):
        score_folders(tmp_path / "found", tmp_path / "truth", metrics=["dise"], progress=False)
    with pytest.raises(ValueError, match="plane must be auto, sagittal"):
        score_folders(tmp_path / "found", tmp_path / "truth", plane="oblique", progress=False)


def test_two_files_are_one_case(tmp_path):
    write(tmp_path / "first.nii.gz", labels(1))
    write(tmp_path / "second.mha", labels(0))
    scores = score_folders(tmp_path / "first.nii.gz", tmp_path / "second.mha", CLASSES, metrics=QUICK, progress=False)
    assert scores.per_case["case"].unique().tolist() == ["second"]


def test_processes_change_nothing(folders):
    alone = score_folders(*folders, CLASSES, metrics=QUICK, progress=False)
    together = score_folders(*folders, CLASSES, metrics=QUICK, jobs=2, progress=False)
    pd.testing.assert_frame_equal(alone.per_case, together.per_case)


def test_a_case_without_memory_is_a_problem(folders, monkeypatch):
    def no_memory(*_):
        raise MemoryError

    monkeypatch.setattr(scoring, "score_case", no_memory)
    with pytest.raises(ValueError, match="there is not enough memory"):
        score_folders(*folders, CLASSES, metrics=QUICK, progress=False)


def test_the_summary(folders, tmp_path):
    found, truth = folders
    write(found / "c.nii.gz", np.where(labels(12) == 2, 0, labels(12)).astype(np.uint8))
    scores = score_folders(found, truth, CLASSES, metrics=(*QUICK, "volume_error_percent"), progress=False)
    paths = write_scores(scores, tmp_path / "out", found, truth)
    assert [path.name for path in paths] == ["per_case.csv", "summary.csv", "summary.md"]
    pd.testing.assert_frame_equal(pd.read_csv(paths[0]), scores.per_case, check_exact=False)
    table = summarise(scores).set_index(["structure", "metric"])
    tibia = scores.per_case.loc[scores.per_case["structure"] == "tibia", "dice"]
    row = table.loc["tibia", "dice"]
    assert (row["n"], row["missed"], row["min"]) == (3, 1, 0.0)
    assert row["mean"] == pytest.approx(tibia.mean())  # the missed one counts
    assert row["sd"] == pytest.approx(tibia.std())
    page = paths[2].read_text(encoding="utf-8")
    assert f"| tibia | 3 | 1 | 0 | {tibia.mean():.3f} ± {tibia.std():.3f} |" in page
    assert "Slices of the in-plane metrics: sagittal" in page


def test_both_remappings_count_for_predictions(folders, tmp_path):
    for index, name in enumerate(("a", "b é", "c")):
        write(tmp_path / "truth2" / f"{name}.nii.gz", np.array([0, 1, 8], np.uint8)[labels(index)])
        write(tmp_path / "other" / f"{name}.nii.gz", np.array([0, 5, 8], np.uint8)[labels(index + 10)])
    scores = score_folders(
        tmp_path / "other", tmp_path / "truth2", CLASSES, {8: 2}, {5: 1}, metrics=QUICK, progress=False
    )
    pd.testing.assert_frame_equal(
        scores.per_case, score_folders(*folders, CLASSES, metrics=QUICK, progress=False).per_case
    )


def test_what_predictions_invent_counts_if_every_truth_is_empty(tmp_path):
    write(tmp_path / "truth" / "a.nii.gz", np.zeros_like(labels(0)))
    write(tmp_path / "found" / "a.nii.gz", 7 * (labels(0) > 0).astype(np.uint8))
    scores = score_folders(tmp_path / "found", tmp_path / "truth", metrics=QUICK, progress=False)
    assert scores.classes == {7: "label 7"}
    assert scores.per_case.loc[scores.per_case["structure"] == "label 7", "dice"].tolist() == [0.0]


@pytest.fixture
def pair(tmp_path):
    """Truth and prediction of one case, with a data set's description above the truths."""
    labels = np.zeros((6, 7, 8), np.uint8)
    labels[0:3, 2:5, 3:6], labels[4:6, 5:7, 1:3] = 1, 3
    for part in ("truth/labelsTr", "predictions"):
        (tmp_path / part).mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(labels, np.diag([0.7, 0.4, 0.4, 1.0])), tmp_path / part / "a.nii.gz")
    names = {"0": "background", "1": "femur", "2": "tibia", "3": "patella"}
    (tmp_path / "truth/dataset.json").write_text(json.dumps({"labels": names}))
    return tmp_path / "predictions", tmp_path / "truth/labelsTr"


def test_structures_have_the_names_of_the_data_set(pair):
    scores = score_folders(*pair, metrics=("dice",), progress=False)
    assert list(scores.per_case["structure"]) == ["femur", "patella", "mean", "merged"]
    named = f"Structures: 1 femur, 3 patella (named by {pair[1].parent / 'dataset.json'})."
    assert named in summary_markdown(scores, *pair)
    merged = score_folders(*pair, merge={3: 1}, metrics=("dice",), progress=False)
    assert list(merged.per_case["structure"]) == ["femur+patella", "mean", "merged"]
    invented = nibabel.load(pair[1] / "a.nii.gz").get_fdata().astype(np.uint8)
    invented[0, 0, :2] = 2, 9
    nibabel.save(nibabel.Nifti1Image(invented, np.diag([0.7, 0.4, 0.4, 1.0])), pair[0] / "a.nii.gz")
    scores = score_folders(*pair, metrics=("dice",), progress=False)
    assert scores.per_case.query("false_positive and structure != 'mean'")["structure"].tolist() == ["tibia"]
    assert scores.ignored == {9: 1}
    (pair[1].parent / "dataset.json").write_text('{"labels": {"background": 0, "bones": [1, 2]}}')
    scores = score_folders(*pair, metrics=("dice",), progress=False)
    assert list(scores.classes.values()) == ["label 1", "label 3"]
    assert "named by their labels, for no dataset.json names them" in summary_markdown(scores, *pair)


def test_a_label_to_ignore_is_not_scored_unless_it_is_merged(pair):
    description = {"labels": {"background": 0, "femur": 1, "tibia": 2, "ignore": 3}}
    (pair[1].parent / "dataset.json").write_text(json.dumps(description))
    for classes in (None, {1: "femur"}):
        with pytest.raises(ValueError, match=r"dataset.json: label 3 is 'ignore'.* --remap 3:0"):
            score_folders(*pair, classes, metrics=("dice",), progress=False)
    scores = score_folders(*pair, merge={3: 0}, metrics=("dice",), progress=False)
    assert scores.classes == {1: "femur"}


def test_names_that_contradict_the_data_set_are_refused(pair):
    with pytest.raises(
        ValueError,
        match=r"contradicts .*dataset.json: label 3 is called 'tibia', which is label 2 there .3 is 'patella'",
    ):
        score_folders(*pair, {1: "femur", 3: "tibia"}, metrics=("dice",), progress=False)
    scores = score_folders(*pair, {3: "tibia"}, {2: 3}, metrics=("dice",), progress=False)  # merged, so it is right
    assert "tibia" in scores.classes.values()
    scores = score_folders(*pair, {1: "femur", 3: "knee cap"}, metrics=("dice",), progress=False)  # another word
    assert set(scores.per_case["structure"]) >= {"femur", "knee cap"}


def test_the_edge_of_the_field_of_view(pair, tmp_path):
    for edge in ("open", "closed"):
        scores = score_folders(*pair, metrics=("hd_voxel_mm",), progress=False, edge=edge)
        assert scores.edge == edge
        assert f"(--edge {edge})" in summary_markdown(scores, *pair)
    edges = tmp_path / "edges/found", tmp_path / "edges/truth"
    slab = np.zeros((6, 5, 4), np.uint8)
    slab[:4] = 1  # it reaches every edge but one
    write(tmp_path / "edges/truth/a.nii.gz", slab)
    slab[0] = 0
    write(tmp_path / "edges/found/a.nii.gz", slab)
    value = {
        edge: score_folders(*edges, metrics=("hd_voxel_mm",), progress=False, edge=edge)
        .per_case.query("structure == 'label 1'")["hd_voxel_mm"]
        .item()
        for edge in ("open", "closed")
    }
    step = SPACING[0]
    assert value == {"open": pytest.approx(2 * step), "closed": pytest.approx(step)}
    with pytest.raises(ValueError, match="edge must be"):
        score_folders(*pair, progress=False, edge="ajar")


def test_many_missing_predictions_are_counted(pair):
    for number in range(40):
        (pair[1] / f"k{number}.nii.gz").write_bytes((pair[1] / "a.nii.gz").read_bytes())
    scores = score_folders(*pair, metrics=("dice",), progress=False)
    assert len(scores.problems) == 40
    page = summary_markdown(scores, *pair, short=True)
    assert page.count("has no prediction") == 3
    assert "- … and 37 more like the line above (40 in all)" in page
    assert summary_markdown(scores, *pair).count("has no prediction") == 40  # the file has them all
