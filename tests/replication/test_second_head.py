"""What the second head says: calibration and labels by hand, and pictures that show them."""

import numpy as np
import pandas as pd
import pytest

from shapeloss.losses.label_maps import signed_distance
from shapeloss.plotting.distances import figure_calibration, figure_regressed_distances
from shapeloss.replication.multi_task import calibration, labels_of_distances, multi_task_page

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
    assert (table["regressed"] - table["mean"]).to_numpy() == pytest.approx(0.5, abs=1e-5)
    assert table["voxels"].sum() == (np.abs(truth + 0.5) < 3).sum()


def test_percentiles_are_of_the_truth_within_a_bin():
    truth = np.linspace(-1, 1, 11, dtype=np.float32)
    (row,) = calibration(np.full(11, 0.25, np.float32), truth, limit_mm=2).to_dict("records")
    assert (row["regressed"], row["voxels"]) == (0.25, 11)
    assert (row["low"], row["mean"], row["high"]) == pytest.approx((-0.8, 0, 0.8), abs=1e-6)


def test_the_page_says_what_the_test_shows():
    row = {"loss": "mtl", "reference": "ce", "df": 4.0, "p": 0.5, "p_holm": 0.5}
    boundary = {"metric": "boundary_dice_in_plane", "difference": 0.003, "low": -0.004, "high": 0.01}
    compared = pd.DataFrame([row | boundary, row | boundary | {"metric": "dice", "low": 0.001, "p_holm": 0.01}])
    heads = pd.DataFrame(
        {"loss": "mtl", "seed": seed, "case": case, "head": head, "boundary_dice_in_plane": value, "dice": 0.9}
        | {"error_mm": 0.4, "bias_mm": -0.1}
        for seed in (0, 1)
        for case in ("a", "b", "c")
        for head, value in (("classes", 0.5 + 0.1 * seed), ("distances", 0.4))
    )
    page = multi_task_page(compared, heads, 0.02, "Data: these.")
    first = "| `mtl` | +0.0030 | -0.0040 to +0.0100 | 0.500 | not shown to differ; below the claimed 0.02 |"
    assert f"| Boundary Dice {first}" in page
    assert "| Global Dice | `mtl` | +0.0030 | +0.0010 to +0.0100 | 0.010 | higher |" in page
    assert "Over 3 test volumes and 2 trainings a row" in page
    assert "| `mtl` | classes | 0.550 | 0.900 | 0.40 | -0.10 |" in page
    assert "| `mtl` | distances | 0.400 |" in page
    assert page.endswith("Data: these.\n")


def test_pictures():
    labels = knee()
    truth = -signed_distance(labels, 3, SPACING)[0]
    figure = figure_regressed_distances(labels, labels, truth, {"mtl": truth, "mtl_learned": truth + 1}, SPACING, 4.0)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[:4] == ["image and truth", "true distance", "regressed: Multi-task", "regressed: mtl_learned"]
    table = calibration(truth, truth, limit_mm=3)
    line = figure_calibration({"mtl": table}).axes[0].lines[0]
    assert line.get_xdata() == pytest.approx(line.get_ydata())
    with pytest.raises(ValueError, match="regressed"):
        figure_calibration({"mtl": pd.DataFrame({"mean": [1.0]})})
