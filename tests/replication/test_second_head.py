"""What the second head says: calibration and labels by hand, and pictures that show them."""

import numpy as np
import pandas as pd
import pytest

from shapeloss.losses.label_maps import signed_distance
from shapeloss.plotting.distances import figure_calibration, figure_regressed_distances
from shapeloss.replication.multi_task import calibration, labels_of_distances

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
