"""What a network was trained on, and images that are not like it."""

import dataclasses
import json
import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from shapeloss.data.scans import Scan, TrainedOn, describe, plane
from shapeloss.data.volume import Volume, grid_difference, read_labels, read_volume
from shapeloss.runs.predict_folder import load_run, predict_files
from shapeloss.runs.run import train

KNEE = Scan((1.5, 0.36, 0.36), "PIR", 10.0, 900.0)


def scan(spacing=(1.5, 0.36, 0.36), low=10.0, high=900.0):
    return Scan(spacing, "PIR", low, high)


def test_an_image_is_described_along_the_axes_of_ras():
    array = np.arange(404.0).reshape(101, 2, 2) // 4  # each value from 0 to 100 four times
    affine = np.array([[0, 0, 4, 0], [3, 0, 0, 0], [0, -2, 0, 0], [0, 0, 0, 1.0]])  # along A, I, R
    assert describe(Volume(array, affine)) == Scan((4.0, 3.0, 2.0), "AIR", 1, 99)


@pytest.mark.parametrize(
    ("spacing", "name"),
    [
        ((1.5, 0.4, 0.4), "sagittal"),
        ((1, 3, 1), "coronal"),
        ((1, 1, 1.2), "axial"),
        ((1, 1.05, 1), ""),
        ((3, 3, 1), ""),
    ],
)
def test_the_plane_is_across_the_coarsest_side(spacing, name):
    assert plane(spacing) == name


def test_the_sum_of_the_training_images():
    found = TrainedOn.of([scan(), scan((1.5, 0.3, 0.4), 5, 800), scan((1.5, 0.36, 0.36), 20, 950)])
    assert found.least == (1.5, 0.3, 0.36)
    assert found.largest == (1.5, 0.36, 0.4)
    assert (found.images, found.axes, found.planes) == (3, {"PIR": 3}, {"sagittal": 3})
    assert (found.low, found.high) == ((5, 20), (800, 950))
    assert found.one_spacing is None
    assert TrainedOn.from_json(json.loads(json.dumps(found.to_json()))) == found
    nearly = TrainedOn.of([scan(), scan((1.5, 0.361, 0.36))])
    assert nearly.one_spacing == (1.5, 0.3605, 0.36)


@pytest.mark.parametrize(
    ("spacing", "said"),
    [
        ((1.5, 0.36, 0.36), ""),
        ((1.5, 0.33, 0.36), ""),  # 9 % finer
        ((1.5, 0.395, 0.36), ""),
        (
            (1.5, 0.32, 0.36),
            "voxels of 1.5 × 0.32 × 0.36 mm, trained on 1.5 × 0.36 × 0.36 mm: 1.12 times finer along Y",
        ),
        (
            (3.0, 0.36, 0.4),
            "voxels of 3 × 0.36 × 0.4 mm, trained on 1.5 × 0.36 × 0.36 mm: 2 times coarser along X, "
            "1.11 times coarser along Z",
        ),
    ],
)
def test_more_than_a_tenth_is_noted(spacing, said):
    trained = TrainedOn.of([scan()])
    assert trained.warnings(scan(spacing)) == [said] * bool(said)
    assert trained.refusal(scan(spacing)) == ""


def test_more_than_twice_is_refused():
    """The first case was seen: such an image gave nonsense without a word."""
    trained = TrainedOn.of([scan((3.4, 1.5, 1.5))])
    assert trained.refusal(scan((0.31, 0.31, 1.5))) == (
        "has voxels of 0.31 × 0.31 × 1.5 mm, and the network was trained on 3.4 × 1.5 × 1.5 mm: 11 times finer along "
        "X, 4.84 times finer along Y; use a network trained on such images, or --any-spacing to segment it all the same"
    )
    assert trained.refusal(scan((3.4, 1.5, 3.1)))
    range_of = TrainedOn.of([scan((1, 1, 1)), scan((1, 1, 3))])
    assert not range_of.refusal(scan((1, 1, 5.9)))
    assert range_of.refusal(scan((1, 1, 6.3))).startswith(
        "has voxels of 1 × 1 × 6.3 mm, and the network was trained on 1 × 1 × 1 to 1 × 1 × 3 mm: 2.1 times coarser"
    )


def test_images_are_resampled_to_the_one_spacing_of_the_training():
    one = TrainedOn.of([scan(), scan()])
    assert one.resample_to((1.5, 0.36, 0.36)) is None
    assert one.resample_to((1.5, 0.361, 0.36)) is None  # headers round
    assert one.resample_to((1.5, 0.4, 0.36)) == (1.5, 0.36, 0.36)
    assert TrainedOn.of([scan(), scan((1, 1, 1))]).resample_to((2, 2, 2)) is None  # no one size to go to


def test_other_slices_and_grey_values_are_noted():
    trained = TrainedOn.of([scan((0.9, 1, 1)), scan((1, 1, 0.9))])
    assert trained.planes == {"": 2}
    assert trained.warnings(scan((1, 1, 1))) == []
    sagittal = TrainedOn.of([scan((1.0, 0.8, 0.8))])
    coronal = Scan((0.8, 1.0, 0.8), "RAS", 10, 900)
    assert sagittal.warnings(coronal)[-1] == (
        "coronal slices (across the coarsest voxel side), trained on sagittal ones"
    )
    computed = scan((1.0, 0.8, 0.8), low=-1000, high=600)
    assert sagittal.warnings(computed) == [
        "grey values of -1000 to 600, trained on 10 to 900, none of them negative: another modality such as CT, or "
        "normalised before?"
    ]
    assert sagittal.warnings(scan((1.0, 0.8, 0.8), low=-3, high=90)) == []  # noise about 0
    assert TrainedOn.of([computed]).warnings(scan((1.0, 0.8, 0.8))) == [
        "grey values of 10 to 900, trained on -1000 to 600: another modality, or shifted?"
    ]


@pytest.fixture(scope="module")
def run_folder(tiny_experiment, tiny_manifest, tmp_path_factory):
    """A run whose profile resamples nothing: all its images have 12 × 4.5 × 4.5 mm."""
    folder = tmp_path_factory.mktemp("trained")
    longer = replace(tiny_experiment.training, steps=60, learning_rate=0.01)
    train(tiny_experiment.model_copy(update={"training": longer}), tiny_manifest, "ce", 0, folder, folder / "maps")
    return folder


def stretched(source, target, factors):
    """The same field of view with each voxel cut into several: resampled back it is the same to the bit."""
    image = read_volume(source)
    array = ndimage.zoom(np.asarray(image.array, np.float32), factors, order=0, mode="nearest", grid_mode=True)
    steps = np.array(image.array.shape) / array.shape
    affine = image.affine @ np.diag([*steps, 1])
    affine[:3, 3] = (image.affine @ [*((steps - 1) / 2), 1])[:3]
    target.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), target)
    return target


def dice(first, second):
    return 2 * ((first == second) & (first > 0)).sum() / ((first > 0).sum() + (second > 0).sum())


def test_the_run_records_its_training_images(run_folder, tiny_manifest):
    trained = load_run(run_folder).trained_on
    assert trained.images == 2
    assert trained.least == trained.largest == (12.0, 4.5, 4.5)
    image = read_volume(tiny_manifest.folder / f"imagesTr/{tiny_manifest.names('train')[0]}.nii.gz")
    low, high = np.percentile(image.array, [1, 99])
    assert trained.low[0] <= low <= trained.low[1]
    assert trained.high[0] <= high <= trained.high[1]


def test_on_the_grid_of_the_training_nothing_changes(run_folder, tiny_manifest, tmp_path):
    name, notes = tiny_manifest.names("test")[0], []
    image = tiny_manifest.folder / f"imagesTr/{name}.nii.gz"
    (place,), _ = predict_files(load_run(run_folder), image, tmp_path, progress=False, notes=notes)
    assert place.read_bytes() == (run_folder / f"predictions/{name}.nii.gz").read_bytes()
    assert notes == []
    assert json.loads((tmp_path / "predict.json").read_text())["maps"][name]["resampled_to"] is None


def test_a_finer_image_is_resampled_and_its_label_map_brought_back(run_folder, tiny_manifest, tmp_path):
    name, notes, run = tiny_manifest.names("test")[0], [], load_run(run_folder)
    image = stretched(tiny_manifest.folder / f"imagesTr/{name}.nii.gz", tmp_path / "in/fine.nii.gz", (1, 2, 2))
    shutil.copy(image, tmp_path / "in/more.nii.gz")
    (place, _), problems = predict_files(run, tmp_path / "in", tmp_path / "out", progress=False, notes=notes)
    assert problems == []
    assert notes == [
        "fine, more: voxels of 12 × 2.25 × 2.25 mm, trained on 12 × 4.5 × 4.5 mm: 2 times finer along Y, 2 times finer "
        "along Z",
        "fine, more: resampled to the 12 × 4.5 × 4.5 mm of the training, and the label map back",
    ]
    made = json.loads((tmp_path / "out/predict.json").read_text(encoding="utf-8"))["maps"]["fine"]
    assert made["resampled_to"] == [12.0, 4.5, 4.5]
    found = read_labels(place)
    assert not grid_difference(found, read_volume(image))
    expected = read_labels(run_folder / f"predictions/{name}.nii.gz").array
    expected = ndimage.zoom(expected, (1, 2, 2), order=0, mode="nearest", grid_mode=True)
    assert (expected > 0).any()
    assert dice(found.array, expected) > 0.99
    as_it_is = dataclasses.replace(run, trained_on=None)
    (place,), _ = predict_files(as_it_is, image, tmp_path / "other", progress=False)
    assert dice(read_labels(place).array, expected) < 0.9  # or the comparison could not fail


def test_an_image_of_quite_other_voxels_needs_to_be_asked_for(run_folder, tiny_manifest, tmp_path):
    image = tiny_manifest.folder / f"imagesTr/{tiny_manifest.names('test')[0]}.nii.gz"
    fine = stretched(image, tmp_path / "in/fine.nii.gz", (1, 3, 1))
    shutil.copy(image, tmp_path / "in/as-trained.nii.gz")
    run = load_run(run_folder)
    written, problems = predict_files(run, tmp_path / "in", tmp_path / "out", progress=False)
    assert [path.name for path in written] == ["as-trained.nii.gz"]
    assert len(problems) == 1
    assert problems[0].startswith(f"{fine}: has voxels of 12 × 1.5 × 4.5 mm, and the network was trained on 12 × 4.5")
    notes = []
    written, problems = predict_files(run, fine, tmp_path / "out", progress=False, notes=notes, any_spacing=True)
    assert ([path.name for path in written], problems) == (["fine.nii.gz"], [])
    assert notes[0].startswith("fine: voxels of 12 × 1.5 × 4.5 mm, trained on 12 × 4.5 × 4.5 mm: 3 times finer along Y")


def test_a_run_of_before_this_was_recorded(run_folder, tiny_manifest, tmp_path):
    shutil.copytree(run_folder, tmp_path / "old")
    values = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
    for key in ("trained_on", "checksum", "sha256"):
        del values[key]
    (tmp_path / "old/run.json").write_text(json.dumps(values), encoding="utf-8")
    image, notes = tiny_manifest.folder / f"imagesTr/{tiny_manifest.names('test')[0]}.nii.gz", []
    written, problems = predict_files(load_run(tmp_path / "old"), image, tmp_path / "out", progress=False, notes=notes)
    assert (len(written), problems) == (1, [])
    assert notes == ["the run does not record what it was trained on: voxel sizes were not compared; train it again"]
