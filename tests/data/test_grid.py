"""The working grid and the way back: exact where nothing is interpolated, in place in any case."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from shapeloss.data.grid import WorkingGrid, normalise
from shapeloss.data.manifest import working_grid, write_labels_as
from shapeloss.data.volume import Volume, read_labels, read_volume, write_nifti
from shapeloss.importers.folders import folder_source, pair_entries
from shapeloss.importers.writer import Labels, write_cases
from shapeloss.metrics import score_case
from shapeloss.review.score_folders import score_folders

DATA_PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"
DESS = (0.7, 0.365, 0.365)


def oblique(spacing, shift=(10.0, -20.0, 30.0), angles=(8, -5, 12)):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    affine[:3, 3] = shift
    return affine


def world(affine, index):
    return (affine @ [*index, 1])[:3]


def ellipsoid(shape, affine, radii_mm, label=1):
    """Voxels whose centres lie in an ellipsoid about the centre of the field of view."""
    points = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    centre = (np.array(shape) - 1) / 2
    mm = (points - centre) * np.linalg.norm(affine[:3, :3], axis=0)
    return ((mm / radii_mm) ** 2).sum(-1) < 1, label


@settings(max_examples=60, deadline=None)
@given(shape=st.tuples(*[st.integers(1, 9)] * 3), size=st.tuples(*[st.integers(1, 12)] * 3), seed=st.integers(0, 10**6))
def test_cutting_and_padding_are_undone_exactly(shape, size, seed):
    labels = np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint8)
    grid = WorkingGrid(shape, oblique(DESS), size=size)
    working = grid.labels_to_working(labels)
    back = grid.labels_to_scan(working)
    assert working.shape == size
    assert back.shape == shape
    kept = np.ones(size, np.uint8)
    inside = grid.labels_to_scan(kept).astype(bool)
    assert np.array_equal(back, np.where(inside, labels, 0))
    assert inside.sum() == np.prod(np.minimum(shape, size))
    image = grid.image_to_working(labels.astype(np.float32))
    assert np.array_equal(grid.labels_to_scan((image + 0.5).astype(np.uint8))[inside], labels[inside])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("size", [None, (9, 40, 12)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.5, 0.8), (1.4, 0.3, 0.365)])
def test_every_working_voxel_knows_where_it_is(spacing, size, mirrored):
    """Linear functions of the world position are interpolated exactly, so the values tell where a voxel came from."""
    shape, affine = (11, 30, 24), oblique(DESS)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1).astype(float)
    positions = index @ affine[:3, :3].T + affine[:3, 3]
    grid = WorkingGrid(shape, affine, spacing, size, mirrored)
    for axis in range(3):
        found = grid.image_to_working(positions[..., axis].astype(np.float32))
        index = np.stack(np.meshgrid(*[np.arange(n) for n in found.shape], indexing="ij"), -1)
        expected = index @ grid.working_affine[:3, :3].T + grid.working_affine[:3, 3]
        scan = (expected - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
        inside = ((scan >= 0) & (scan <= np.array(shape) - 1)).all(-1)
        assert inside.mean() > 0.15
        np.testing.assert_allclose(found[inside], expected[inside][:, axis], atol=1e-3)


def test_the_field_of_view_keeps_its_centre():
    affine = oblique(DESS)
    grid = WorkingGrid((160, 384, 383), affine, (0.7, 0.73, 0.5), (128, 180, 256))
    centre = world(affine, (np.array(grid.shape) - 1) / 2)
    offset = world(grid.working_affine, (np.array(grid.size) - 1) / 2) - centre
    assert np.abs(offset).max() < 0.75  # half a voxel, where an odd number is cut
    assert grid.resampled_shape == (160, 192, 280)


def test_nothing_asked_for_nothing_done():
    grid = WorkingGrid((5, 6, 7), oblique(DESS), spacing=DESS)  # its own spacing, up to rounding
    labels = np.random.default_rng(0).integers(0, 3, (5, 6, 7)).astype(np.uint8)
    assert grid.labels_to_working(labels) is labels
    assert np.array_equal(grid.working_affine, grid.affine)


@pytest.mark.parametrize(
    ("spacing", "bound"), [((0.7, 0.5, 0.5), 0.985), ((1.0, 1.0, 1.0), 0.965), ((0.7, 0.365, 0.365), 1.0)]
)
def test_there_and_back_within_the_stated_error(spacing, bound):
    """A bone of 15 to 25 mm: what a perfect prediction on the working grid loses on the scan's grid."""
    shape, affine = (60, 130, 120), oblique(DESS)
    truth, _ = ellipsoid(shape, affine, (15, 20, 18))
    inner, _ = ellipsoid(shape, affine, (8, 9, 7))
    labels = truth.astype(np.uint8) + inner
    grid = WorkingGrid(shape, affine, spacing)
    back = grid.labels_to_scan(grid.labels_to_working(labels))
    scores = score_case(labels, back, DESS, {1: "outer", 2: "inner"}, metrics=["dice", "hd95_voxel_mm"])
    assert min(row["dice"] for row in scores) >= bound
    assert max(row["hd95_voxel_mm"] for row in scores) <= max(spacing) + 1e-6
    assert abs(back.sum() / labels.sum() - 1) < 0.01  # no bias of the volume


def test_files_there_and_back_are_scored_within_the_stated_error(tmp_path):
    """A MetaImage and an oblique NRRD label map, imported, to the working grid and back; docs/data.md has the error."""
    shape, affine = (60, 130, 120), oblique(DESS)
    labels = ellipsoid(shape, affine, (15, 20, 18))[0].astype(np.uint8) + ellipsoid(shape, affine, (8, 9, 7))[0]
    noise = np.random.default_rng(0).integers(0, 99, shape).astype(np.int16)
    for path, array in ((tmp_path / "images/k.mha", noise), (tmp_path / "labels/k.nrrd", labels)):
        path.parent.mkdir()
        write_nifti(tmp_path / "same.nii.gz", array, affine)
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(tmp_path / "same.nii.gz")), str(path))
    found, problems = pair_entries(tmp_path / "images", tmp_path / "labels")
    classes = {1: "outer", 2: "inner"}
    write_cases(tmp_path / "set", found, Labels(classes), folder_source(tmp_path), problems, progress=False)
    image = read_volume(tmp_path / "set/imagesTr/k.nii.gz")
    truth = read_labels(tmp_path / "set/labelsTr/k.nii.gz").oriented("RAS").array
    spacing, size = (0.7, 0.5, 0.5), (60, 100, 100)
    working = working_grid(image.oriented("RAS"), spacing, size).labels_to_working(truth)
    write_labels_as(tmp_path / "back/k.nii.gz", working, image, spacing, size)
    scores = score_folders(tmp_path / "back", tmp_path / "labels", classes, metrics=["dice"], progress=False)
    assert scores.per_case["dice"].min() >= 1 - 0.015
    assert "at most 0.015 of Dice at 0.7 × 0.5 × 0.5 mm" in DATA_PAGE.read_text(encoding="utf-8")


def test_classes_are_interpolated_not_their_numbers():
    """Between 1 and 3 lies no 2; and a structure one voxel thin survives where nearest neighbour would drop it."""
    labels = np.zeros((4, 12, 12), np.uint8)
    labels[:, :6], labels[:, 6:] = 1, 3
    found = WorkingGrid(labels.shape, np.diag([1.0, 1, 1, 1]), (1.0, 0.7, 0.7)).labels_to_working(labels)
    assert set(np.unique(found)) == {1, 3}


def test_scores_on_both_grids_agree():
    """A prediction that errs by a millimetre scores the same on the working grid and, brought back, on the scan's."""
    shape, affine = (60, 130, 120), oblique(DESS)
    truth = ellipsoid(shape, affine, (15, 20, 18))[0].astype(np.uint8)
    found = ellipsoid(shape, affine, (16, 21, 17.5))[0].astype(np.uint8)
    grid = WorkingGrid(shape, affine, (0.7, 0.5, 0.5), (56, 88, 88))
    working = [grid.labels_to_working(x) for x in (truth, found)]
    metrics = ["dice", "assd_surface_mm", "volume_error_percent"]
    on_working = score_case(*working, (0.7, 0.5, 0.5), {1: "bone"}, metrics=metrics)[0]
    on_scan = score_case(truth, grid.labels_to_scan(working[1]), DESS, {1: "bone"}, metrics=metrics)[0]
    assert on_scan["dice"] == pytest.approx(on_working["dice"], abs=0.005)
    assert on_scan["assd_surface_mm"] == pytest.approx(on_working["assd_surface_mm"], abs=0.1)
    assert on_scan["volume_error_percent"] == pytest.approx(on_working["volume_error_percent"], abs=1.0)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SAL"])
@pytest.mark.parametrize("spacing", [None, (0.7, 0.5, 0.5)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_prediction_lies_where_its_structure_is(tmp_path, axes, spacing, mirrored):
    """As 3D Slicer sees it: the centre of mass in world mm, whatever the file's axes."""
    shape, affine = (20, 60, 50), oblique(DESS)
    labels = np.zeros(shape, np.uint8)
    labels[4:9, 30:50, 10:22] = 1
    scan = Volume(labels, affine).oriented(axes)
    ras = scan.oriented("RAS")
    working = working_grid(ras, spacing, (16, 60, 40), mirrored).labels_to_working(ras.array)
    write_labels_as(tmp_path / "found.nii.gz", working, scan, spacing, (16, 60, 40), mirrored)
    found = read_volume(tmp_path / "found.nii.gz")
    assert found.array.shape == scan.array.shape
    np.testing.assert_allclose(found.affine, scan.affine, atol=1e-5)  # NIfTI keeps float32
    centres = [world(v.affine, np.argwhere(v.array).mean(0)) for v in (scan, found)]
    assert np.abs(centres[0] - centres[1]).max() < 0.25  # half a working voxel
    if spacing is None:
        assert np.array_equal(read_labels(tmp_path / "found.nii.gz").array, scan.array)


def test_normalise():
    image = np.random.default_rng(0).normal(50, 10, (8, 9, 10)).astype(np.float32)
    assert np.allclose([normalise(image, "zscore").mean(), normalise(image, "zscore").std()], [0, 1], atol=1e-5)
    scaled = normalise(image, "percentile")
    assert (scaled.min(), scaled.max()) == (0, 1)
    low, high = np.percentile(image, [1, 99])
    assert scaled[0, 0, 0] == pytest.approx(np.clip((image[0, 0, 0] - low) / (high - low), 0, 1), abs=1e-6)
