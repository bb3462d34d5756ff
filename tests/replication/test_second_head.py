"""What the second head says: calibration and labels by hand, and pictures that show them."""

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from shapeloss.losses import MultiTaskLoss
from shapeloss.losses.label_maps import signed_distance
from shapeloss.plotting.distances import figure_calibration, figure_regressed_distances
from shapeloss.replication import multi_task
from shapeloss.replication.multi_task import (
    calibration,
    calibration_line,
    calibration_tests,
    compare_rows,
    labels_of_distances,
    learnt_weights,
    multi_task_page,
    read_heads,
    true_distances,
)
from shapeloss.runs.run import train
from shapeloss.stats.crossed import crossed_difference, score_grid

SPACING = (4.0, 1.0, 1.0)


def knee():
    labels = np.zeros((4, 12, 16), np.uint8)
    labels[1:3, 2:8, 2:8] = 1
    labels[1:3, 8:11, 4:12] = 2
    return labels


def test_the_true_distances_give_the_true_labels():
    assert (labels_of_distances(signed_distance(knee(), 3, SPACING)) == knee()).all()


def test_a_distance_that_is_too_large_by_half_a_millimetre():
    truth = signed_distance(knee(), 3, SPACING)
    table = calibration(truth + np.float32(0.5), truth, limit_mm=3)
    assert (table["regressed"] - table["truth"]).to_numpy() == pytest.approx(0.5, abs=1e-5)
    assert table["voxels"].sum() == (np.abs(truth + 0.5) < 3).sum()
    assert calibration_line(truth + np.float32(0.5), truth, 3) == pytest.approx((1, -0.5), abs=1e-5)


def test_a_distance_that_is_regressed_half_as_large():
    truth = signed_distance(knee(), 3, SPACING)
    table = calibration(truth / 2, truth, limit_mm=3)
    assert table["truth"].to_numpy() == pytest.approx(2 * table["regressed"].to_numpy(), abs=1e-5)
    assert calibration_line(truth / 2, truth, 3) == pytest.approx((2, 0), abs=1e-5)


def test_bins_are_by_what_is_regressed():
    table = calibration(np.float32([-0.2, 0.0, 0.9, 1.0, 2.5, -2.5]), np.float32([0, 1, 2, 3, 4, 5]), limit_mm=2)
    assert table["bin"].tolist() == [-0.5, 0.5, 1.5]
    assert table["truth"].tolist() == [0, 1.5, 3]
    assert table["voxels"].tolist() == [1, 2, 1]


def test_nothing_near_a_boundary_has_no_line():
    assert np.isnan(calibration_line(np.float32([9, 9]), np.float32([9, 9]))).all()


def test_calibration_is_tested_over_volumes_and_trainings():
    rng = np.random.default_rng(0)
    heads = pd.DataFrame(
        {"loss": loss, "seed": seed, "case": case, "head": "distances", "slope": slope + rng.normal(0, 0.01)}
        | {"intercept_mm": rng.normal(0.2, 0.01)}
        for loss, slope in (("mtl", 1.0), ("mtl_learned", 1.1))
        for seed in range(3)
        for case in range(5)
    )
    tests = calibration_tests(heads).set_index(["loss", "quantity"])
    assert tests.loc[("mtl", "slope"), "p"] > 0.05
    assert tests.loc[("mtl_learned", "slope"), "p_holm"] < 0.01
    assert (tests.xs("intercept_mm", level="quantity")["p_holm"] < 0.001).all()
    slope = tests.loc[("mtl_learned", "slope")]
    assert slope["value"] == pytest.approx(heads[heads["loss"] == "mtl_learned"]["slope"].mean())
    expected = crossed_difference(score_grid(heads, "mtl_learned", "slope").to_numpy() - 1)
    assert (slope["low"], slope["high"], slope["p"]) == pytest.approx(
        (expected.interval.low + 1, expected.interval.high + 1, expected.p)
    )


def test_the_page_says_what_the_test_shows():
    row = {"loss": "mtl", "reference": "ce", "df": 4.0, "p": 0.5, "p_holm": 0.5}
    boundary = {"metric": "boundary_dice_in_plane", "difference": 0.003, "low": -0.004, "high": 0.01}
    compared = pd.DataFrame([row | boundary, row | boundary | {"metric": "dice", "low": 0.001, "p_holm": 0.01}])
    heads = pd.DataFrame(
        {"loss": "mtl", "seed": seed, "case": case, "head": head, "boundary_dice_in_plane": value, "dice": 0.9}
        | {"error_mm": 0.4, "bias_mm": -0.1, "slope": 1.1 + 0.01 * seed, "intercept_mm": 0.02}
        for seed in (0, 1)
        for case in ("a", "b", "c")
        for head, value in (("classes", 0.5 + 0.1 * seed), ("distances", 0.4))
    )
    weights = pd.DataFrame({"loss": "mtl", "seed": [0, 1], "segmentation": [4.0, 6.0], "regression": [2.0, 6.0]})
    page = multi_task_page(compared, heads, weights, 0.02, "Data: these.")
    first = "| `mtl` | `ce` | +0.0030 | -0.0040 to +0.0100 | 0.500 | not shown to differ; below the claimed 0.02 |"
    assert f"| Boundary Dice {first}" in page
    assert "| Global Dice | `mtl` | `ce` | +0.0030 | +0.0010 to +0.0100 | 0.010 | higher |" in page
    assert "Over 3 test volumes and 2 trainings a row" in page
    assert "| `mtl` | classes | 0.550 | 0.900 | 0.40 | -0.10 |" in page
    assert "| `mtl` | distances | 0.400 |" in page
    assert "| `mtl` | slope | 1.105 |" in page
    assert "| `mtl` | intercept | 0.020 mm |" in page
    assert "| `mtl` | 5.00 (4.00 to 6.00) | 4.00 (2.00 to 6.00) | 0.75 (0.50 to 1.00) |" in page
    assert page.endswith("Data: these.\n")
    assert "Learnt, at the end" not in multi_task_page(compared, heads, weights[:0], 0.02, "")


def test_learnt_weights_are_compared_with_the_learnt_weight_alone():
    rng = np.random.default_rng(0)
    rows = {
        "mtl": MultiTaskLoss(3),
        "mtl_learned": MultiTaskLoss(3, weighting="learned"),
        "ce_learned": MultiTaskLoss(3, weight=0.0, weighting="learned"),
    }
    level = {"ce": 0.5, "mtl": 0.49, "mtl_learned": 0.52, "ce_learned": 0.53}
    scores = pd.DataFrame(
        {"loss": loss, "seed": seed, "case": case, "boundary_dice_in_plane": mean + rng.normal(0, 0.002)}
        | {"dice": mean + 0.4 + rng.normal(0, 0.002)}
        for loss, mean in level.items()
        for seed in range(3)
        for case in range(6)
    )
    found = compare_rows(scores, rows).set_index(["metric", "loss", "reference"])["difference"]
    pairs = [("mtl", "ce"), ("mtl_learned", "ce"), ("ce_learned", "ce"), ("mtl_learned", "ce_learned")]
    assert found["dice"].index.tolist() == pairs
    for loss, reference in pairs:
        expected = level[loss] - level[reference]
        assert found["boundary_dice_in_plane", loss, reference] == pytest.approx(expected, abs=0.003)


def test_pictures():
    labels = knee()
    truth = -signed_distance(labels, 3, SPACING)[0]
    figure = figure_regressed_distances(
        labels, labels, truth, {"mtl": truth, "mtl_near": truth + 1}, SPACING, 4.0, "knee_1, seed 0"
    )
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[:4] == ["image and truth", "true distance", "regressed: Multi-task", "regressed: mtl_near"]
    assert figure.get_supxlabel().startswith("knee_1, seed 0. Lines: 0 and ± 2 mm.")
    tables = [calibration(truth + 0.1 * case, truth, limit_mm=3).assign(case=case) for case in range(3)]
    axes = figure_calibration(pd.concat(tables).assign(loss="mtl", seed=0)).axes[0]
    line = axes.lines[1]
    assert line.get_xdata() - line.get_ydata() == pytest.approx(0.1, abs=1e-5)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["calibrated", "Multi-task"]
    with pytest.raises(ValueError, match="regressed"):
        figure_calibration(pd.DataFrame({"loss": ["mtl"]}))


def test_errors_are_of_the_structures_and_beside_those_of_the_mask(
    tiny_experiment, tiny_manifest, tmp_path, monkeypatch
):
    """Of one training: the baseline is the distance to the predicted mask, and a control has no second head to ask."""
    losses = {"mtl": {"reach_mm": 5.0}, "ce_learned": {"loss": "mtl", "weighting": "learned", "weight": 0}}
    experiment = tiny_experiment.model_copy(update={"losses": losses, "seeds": [0]})
    for row in losses:
        folder = tmp_path / experiment.runs_folder / row / "seed0"
        train(experiment, tiny_manifest, row, 0, folder, tmp_path / "maps")
    monkeypatch.setattr(multi_task, "NEAR_MM", 4.5)  # the voxels are larger than 3 mm
    heads = read_heads(experiment, tiny_manifest, tmp_path)
    assert set(heads.scores["loss"]) == {"mtl"}
    assert set(heads.calibration["loss"]) == {"mtl"}
    name = tiny_manifest.names("test")[0]
    case, _ = true_distances(tiny_manifest, name, tmp_path)
    predicted = tiny_manifest.read_labels(tmp_path / experiment.runs_folder / f"mtl/seed0/predictions/{name}.nii.gz")
    errors = []
    for k in range(1, tiny_manifest.num_classes):
        masks = [labels == k for labels in (np.asarray(case.labels), predicted)]
        outside, inside = (
            [ndimage.distance_transform_edt(m ^ flip, sampling=case.spacing) for m in masks] for flip in (1, 0)
        )
        true, found = (
            np.clip(o - i, -5, 5) if m.any() else 0 * o for o, i, m in zip(outside, inside, masks, strict=True)
        )
        errors.append((found - true)[np.abs(true) <= 4.5])
    rows = heads.scores[heads.scores["case"] == name].set_index("head")
    assert rows.loc["classes", "error_mm"] == pytest.approx(np.abs(np.concatenate(errors)).mean(), rel=1e-5)
    assert rows.loc["classes", "bias_mm"] == pytest.approx(np.concatenate(errors).mean(), rel=1e-5, abs=1e-6)
    weights = learnt_weights(experiment, tmp_path)
    assert weights[["loss", "seed", "regression"]].to_numpy().tolist() == [["ce_learned", 0, 0.0]]
    assert weights["segmentation"][0] != 1
