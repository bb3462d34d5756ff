"""The benchmark of accuracy: its truths against closed forms by hand, and its page against its measurements."""

import json
import math

import numpy as np
import pytest
from helpers.project import load_script

COARSE = (3.0, 3.0, 3.0)


@pytest.fixture(scope="module")
def accuracy():
    return load_script("benchmarks/accuracy.py")


@pytest.fixture(scope="module")
def committed(accuracy):
    return json.loads(accuracy.FILE.read_text(encoding="utf-8"))


def truth(accuracy, shape, gap):
    return accuracy.exact(accuracy.SHAPES[shape][0](gap, COARSE, np.random.default_rng(0)), gap / 2)


def test_the_page_is_made_from_the_measurements(accuracy, committed):
    assert accuracy.FILE.with_suffix(".md").read_text(encoding="utf-8") == accuracy.markdown(committed)


def test_truth_of_spheres_and_shells(accuracy):
    assert truth(accuracy, "concentric spheres", 3) == {"HD": 3, "HD95": 3, "ASSD": 3, "MASD": 3, "NSD": 0}
    found = truth(accuracy, "eccentric spheres", 8)  # radii 20 and 12, 4 mm apart: from 4 to 12
    assert found["HD"] == pytest.approx(12, abs=1e-4)
    # ∫ |p − c| over a sphere is a + c² / 3a from inside, b + c² / 3b likewise
    assert found["MASD"] == pytest.approx(((20 + 16 / 60 - 12) + (20 - 12 - 16 / 36)) / 2, abs=1e-6)
    shell = truth(accuracy, "shells, two voxels thick", 1)  # 10, 16 and 17 mm
    assert shell["ASSD"] == pytest.approx((16**2 + 17**2) / (16**2 + 17**2 + 2 * 10**2))
    assert shell["NSD"] == pytest.approx(2 * 10**2 / (16**2 + 17**2 + 2 * 10**2))


def test_truth_of_planes_and_boxes(accuracy):
    found = truth(accuracy, "tilted planes", 3)
    area = math.pi * 15**2 * 3, math.pi * (2 * 15**2 + 2 * 15 * 3 + 15**2 - 9)
    disc = math.pi * 3 * 12**2 + 2 * math.pi * (15 * 9 / 2 - 9)
    slab = 3 * math.pi * (15**2 - 9) + math.pi * 15 * 9
    assert found["ASSD"] == pytest.approx((disc + slab) / sum(area), abs=1e-6)
    assert found["MASD"] == pytest.approx((disc / area[0] + slab / area[1]) / 2, abs=1e-6)
    assert (found["HD"], found["HD95"]) == (3, 3)
    box = truth(accuracy, "turned boxes", 3)
    assert box["HD"] == pytest.approx(math.sqrt(27))
    # a strip of a rim, ∫ sqrt(1 + u²) from 0 to 1, has the mean 1.147794; a corner's square, 1.280789
    strip, corner = 1.147794 * 3, 1.280789 * 3
    half = (7, 9, 10)
    faces = [(half[i] * half[j], (half[i] + half[j]) * 3, 9) for i, j in ((0, 1), (1, 2), (2, 0))]
    mean = sum(f * 3 + e * strip + c * corner for f, e, c in faces) / sum(map(sum, faces))
    assert box["MASD"] == pytest.approx((3 + mean) / 2, abs=1e-4)


def test_masks_are_of_the_shapes(accuracy):
    for name, (make, gaps) in accuracy.SHAPES.items():
        pair = make(gaps[-1], (1.0, 1.0, 1.0), np.random.default_rng(1))
        for mask, (_, weights) in ((pair.truth, pair.from_truth), (pair.prediction, pair.from_prediction)):
            assert mask.any(), name
            rim = mask.copy()
            rim[1:-1, 1:-1, 1:-1] = False
            assert not rim.any(), name
            assert weights.sum() > 0
        assert (pair.truth & pair.prediction).any()


def test_the_mean_distances_of_the_mesh_are_right_where_surfaces_are_smooth(accuracy, committed):
    table = accuracy.table_of(committed)
    smooth = table["shape"].isin(["concentric spheres", "eccentric spheres"]) & accuracy.from_one_voxel(table)
    means = table[smooth & (table["library"] == "mesh") & table["metric"].isin(["MASD", "ASSD"])]
    assert len(means) > 10
    assert means["median"].abs().max() < 1.2
