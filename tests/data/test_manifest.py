"""Reading a folder: layouts, orientations, the split, and every fault that must be found before training."""

import json
import re
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from shapeloss.data.grid import normalise
from shapeloss.data.layout import DatasetError, find_cases
from shapeloss.data.manifest import assign_splits, choose_slice_axis, prepare, read_manifest
from shapeloss.data.options import Split
from shapeloss.data.volume import write_nifti
from shapeloss.replication.profile import Experiment
from shapeloss.runs.map_cache import cached_map

SPACING = (0.7, 0.365, 0.365)


def write_case(folder, name, labels, affine=None, image=None, suffix=""):
    affine = np.diag([*SPACING, 1.0]) if affine is None else affine
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    image = labels + np.random.default_rng([*name.encode()]).normal(size=labels.shape) if image is None else image
    nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), affine), folder / f"imagesTr/{name}{suffix}.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels, affine), folder / f"labelsTr/{name}.nii.gz")


def labels_of(seed=0, shape=(6, 7, 8)):
    labels = np.zeros(shape, np.uint8)
    labels[1:3, 2:5, 2:6], labels[4:, 3:6, 1 + seed % 2 : 4] = 1, 2
    return labels


@pytest.fixture
def folder(tmp_path):
    """Four sound cases in Decathlon layout."""
    for index in range(4):
        write_case(tmp_path, f"case_{index}", labels_of(index))
    listed = [{"image": f"./imagesTr/case_{i}.nii.gz", "label": f"./labelsTr/case_{i}.nii.gz"} for i in range(4)]
    description = {"labels": {"0": "background", "1": "femur", "2": "tibia"}, "training": listed}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    return tmp_path


def experiment(train=2, validation=1, test=1):
    split = {"train": train, "validation": validation, "test": test}
    return Experiment(name="test", description="test", losses=["ce"], data={"split": split})


def problems_of(folder):
    with pytest.raises(DatasetError) as caught:
        prepare(experiment().data, folder, folder / "cases.json")
    assert not (folder / "cases.json").exists()
    return caught.value.problems


def test_manifest_comes_back_and_splits_are_disjoint(folder):
    written = prepare(experiment().data, folder, folder / "cases.json")
    manifest = read_manifest(folder / "cases.json")
    assert manifest == written
    assert manifest.classes == {1: "femur", 2: "tibia"}
    assert manifest.num_classes == 3
    names = [manifest.names(split) for split in ("train", "validation", "test")]
    assert [len(part) for part in names] == [2, 1, 1]
    assert sorted(name for part in names for name in part) == [f"case_{i}" for i in range(4)]
    case = manifest.load("case_0")
    assert case.spacing == SPACING
    assert np.array_equal(case.labels, labels_of(0))
    assert abs(case.image.mean()) < 1e-5
    assert abs(case.image.std() - 1) < 1e-4


def test_split_depends_on_the_seed_only():
    names = [f"c{i:02}" for i in range(40)]
    assert assign_splits(names, Split()) == assign_splits(names[::-1], Split())
    assert assign_splits(names, Split()) != assign_splits(names, Split(seed=1))
    assert len(assign_splits(names, Split(train=3))) == 18


def test_nnunet_layout_is_read_too(folder):
    for path in sorted((folder / "imagesTr").iterdir()):
        path.rename(path.with_name(path.name.replace(".nii.gz", "_0000.nii.gz")))
    description = {"labels": {"background": 0, "femur": 1, "tibia": 2}, "numTraining": 4, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(description))
    classes, files, problems = find_cases(folder)
    assert not problems
    assert classes == {1: "femur", 2: "tibia"}
    assert files["case_1"] == ("imagesTr/case_1_0000.nii.gz", "labelsTr/case_1.nii.gz")
    prepare(experiment().data, folder, folder / "cases.json")


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SAL"])
def test_predictions_return_to_the_orientation_of_their_image(folder, axes):
    from nibabel.orientations import axcodes2ornt, ornt_transform

    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes))
    stored = nibabel.Nifti1Image(labels_of(0), np.diag([*SPACING, 1.0])).as_reoriented(turn)
    write_case(folder, "case_0", np.asarray(stored.dataobj), stored.affine)
    manifest = prepare(experiment().data, folder, folder / "cases.json")
    case = manifest.load("case_0")
    assert np.array_equal(case.labels, labels_of(0))  # whatever the orientation on disk, memory is RAS
    assert case.spacing == SPACING
    manifest.write_labels(folder / "out.nii.gz", case.labels, case.name)
    written = nibabel.load(folder / "out.nii.gz")
    assert np.array_equal(np.asarray(written.dataobj), np.asarray(stored.dataobj))
    assert np.allclose(written.affine, stored.affine)
    assert np.array_equal(manifest.read_labels(folder / "out.nii.gz"), case.labels)


def test_all_faults_of_a_data_set_are_listed_at_once(folder):
    (folder / "imagesTr/case_0.nii.gz").unlink()
    labels = labels_of(1)
    labels[0, 0, 0] = 7
    write_case(folder, "case_1", labels)
    image = np.ones(labels.shape)
    image[0, 0, :2] = np.nan, np.inf
    write_case(folder, "case_2", labels_of(2), image=image)
    nibabel.save(nibabel.Nifti1Image(labels_of(3)[:, :-1], np.diag([*SPACING, 1.0])), folder / "labelsTr/case_3.nii.gz")
    text = "\n".join(problems_of(folder))
    assert "imagesTr/case_0.nii.gz: the image of case case_0 is missing" in text
    assert "labelsTr/case_1.nii.gz: has label(s) 7 outside the declared 0 background, 1 femur, 2 tibia" in text
    assert "imagesTr/case_2.nii.gz: 2 of 336 voxels are NaN or infinite" in text
    assert "labelsTr/case_3.nii.gz: its grid is not its image's: 6 × 6 × 8 voxels, not 6 × 7 × 8" in text
    assert len(problems_of(folder)) == 4


def test_affines_that_differ(folder):
    affine = np.diag([*SPACING, 1.0])
    affine[0, 3] = 0.35  # half a voxel
    nibabel.save(nibabel.Nifti1Image(labels_of(1), affine), folder / "labelsTr/case_1.nii.gz")
    assert problems_of(folder) == [
        "labelsTr/case_1.nii.gz: its grid is not its image's: shifted by 0.35 mm; resample the label"
    ]


def test_fractional_labels_and_truncated_files(folder):
    nibabel.save(
        nibabel.Nifti1Image(labels_of(1) * np.float32(0.5), np.diag([*SPACING, 1.0])), folder / "labelsTr/case_1.nii.gz"
    )
    whole = (folder / "imagesTr/case_2.nii.gz").read_bytes()
    (folder / "imagesTr/case_2.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "labelsTr/case_3.nii.gz").write_bytes(b"")
    text = "\n".join(problems_of(folder))
    assert "labelsTr/case_1.nii.gz: has fractional label 0.5" in text
    assert "imagesTr/case_2.nii.gz: is not a valid NIfTI file" in text
    assert "labelsTr/case_3.nii.gz: is empty (0 bytes)" in text


def test_four_dimensions_and_constant_images(folder):
    labels = labels_of(0)
    write_case(folder, "case_0", labels, image=np.zeros((*labels.shape, 2)))
    write_case(folder, "case_1", labels_of(1), image=np.full(labels.shape, 3.0))
    text = "\n".join(problems_of(folder))
    assert "has shape 6 × 7 × 8 × 2; one volume (X, Y, Z) was expected" in text
    assert "every voxel has the value 3" in text


def test_a_declared_class_that_never_occurs(folder):
    for index in range(4):
        write_case(folder, f"case_{index}", np.where(labels_of(index) == 2, 0, labels_of(index)).astype(np.uint8))
    assert problems_of(folder)[0].startswith("label 2 (tibia) is declared in dataset.json but occurs in no case")


def test_an_empty_mask_and_a_link_out_of_the_folder(folder, tmp_path_factory):
    write_case(folder, "case_0", np.zeros_like(labels_of(0)))
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "scan.nii.gz"
    (folder / "imagesTr/case_1.nii.gz").rename(elsewhere)
    (folder / "imagesTr/case_1.nii.gz").symlink_to(elsewhere)
    assert problems_of(folder) == [
        "labelsTr/case_0.nii.gz: is empty, every voxel is background; it needs one of 1 femur, 2 tibia",
        f"imagesTr/case_1.nii.gz: is a link that leads out of {folder}; put the file itself there",
    ]


def test_a_working_grid_and_the_way_back(folder):
    values = experiment().model_dump() | {"losses": {"ce": {}}}
    values["data"] |= {"spacing": (1.4, 0.5, 0.5), "size": (4, 10, 8)}
    manifest = prepare(Experiment.model_validate(values).data, folder, folder / "cases.json")
    assert read_manifest(folder / "cases.json") == manifest
    case, own = manifest.load("case_0"), manifest.original("case_0")
    assert case.image.shape == case.labels.shape == (4, 10, 8)
    assert case.spacing == (1.4, 0.5, 0.5)
    manifest.write_labels(folder / "out.nii.gz", case.labels, "case_0")
    written = nibabel.load(folder / "out.nii.gz")
    image = nibabel.load(folder / "imagesTr/case_0.nii.gz")
    assert written.shape == image.shape
    assert np.array_equal(written.affine, image.affine)
    assert (manifest.read_labels(folder / "out.nii.gz") == own.labels).mean() > 0.8  # a grid of a few voxels
    assert manifest.hash != prepare(experiment().data, folder, folder / "cases.json").hash


def test_arrays_on_disk_are_those_in_memory(folder, tmp_path):
    manifest = prepare(experiment().data, folder, folder / "cases.json")
    case = manifest.load("case_0")
    for _ in range(2):
        mapped = manifest.load("case_0", tmp_path / "cache")
        assert isinstance(mapped.image, np.memmap)
        assert np.array_equal(mapped.image, case.image)
        assert np.array_equal(mapped.labels, case.labels)
        assert np.array_equal(mapped.affine, case.affine)
        assert mapped.spacing == case.spacing
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_too_few_cases(folder):
    with pytest.raises(DatasetError, match=r"4 cases, but the split needs 6 \(4 train, 1 validation, 1 test\)"):
        prepare(experiment(train=4).data, folder, folder / "cases.json")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            {"background": 0, "femur": 1, "tibia": 2, "ignore": 3},
            "label 3 is 'ignore' .voxels without a truth.* --remap 3:0",
        ),
        ({"0": "background", "1": "femur", "2": "Ignore"}, "label 2 is 'ignore'.* --remap"),
        ({"background": 0, "femur": [1, 2], "tibia": 2}, "'femur' is a region of the labels 1, 2"),
    ],
    ids=["nnU-Net", "Decathlon", "region"],
)
def test_labels_that_are_no_structures_are_refused(tmp_path, labels, message):
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(DatasetError, match=message):
        find_cases(tmp_path)


def test_a_second_channel_and_a_volume_in_another_format_are_named(tmp_path):
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / part).mkdir()
    for name in ("k1_0000", "k1_0001", "k2_0000"):
        (tmp_path / "imagesTr" / f"{name}.nii.gz").touch()
    for name in ("k1.nii.gz", "k2.nii.gz", "k3.img", "k3.hdr", "notes.txt"):
        (tmp_path / "labelsTr" / name).touch()
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "femur": 1}}))
    _, cases, problems = find_cases(tmp_path)
    assert list(cases) == ["k2"]
    assert sorted(problem.split(":")[0] for problem in problems) == [
        "imagesTr/k1_0001.nii.gz", "labelsTr/k3.hdr", "labelsTr/k3.img",
    ]  # fmt: skip


def described(folder, listed=True, **values):
    """Two cases in Decathlon layout, or, not listed, in that of nnU-Net; more may be said in dataset.json."""
    names = ("k1", "k2")
    for name in names:
        for part, array in (("imagesTr", np.arange(24.0).reshape(2, 3, 4)), ("labelsTr", np.eye(3, 4, dtype=np.uint8))):
            path = folder / part / f"{name}.nii.gz"
            write_nifti(path, np.broadcast_to(array, (2, 3, 4)).copy(), np.eye(4))
    labels = {"labels": {"background": 0, "femur": 1}}
    training = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names]
    text = labels | ({"training": training} if listed else {}) | values
    (folder / "dataset.json").write_text(json.dumps(text))


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"numTraining": 3}, "dataset.json: 'numTraining' is 3, but there are 2 training cases; add those"),
        ({"channel_names": {"0": "T1", "1": "T2"}}, r"'channel_names' names 2 channels \(T1, T2\); one image a case"),
        ({"modality": {"0": "MRI", "1": "CT"}}, r"'modality' names 2 channels \(MRI, CT\)"),
    ],
)
def test_what_the_description_says_of_other_cases_and_channels_is_named(tmp_path, listed, said, message):
    described(tmp_path, listed, **said)
    _, cases, problems = find_cases(tmp_path)
    assert list(cases) == ["k1", "k2"]
    assert len(problems) == 1
    assert re.search(message, problems[0])


@pytest.mark.parametrize("number", [2, "2", None])
def test_a_description_that_is_right_is_no_problem(tmp_path, number):
    described(tmp_path, numTraining=number, modality={"0": "MRI"}, channel_names={})
    assert find_cases(tmp_path)[2] == []


def test_what_a_list_leaves_out_is_said(tmp_path):
    """Not as a fault, for whoever wrote the list chose; without a list a volume that is not read is one."""
    for listed in (True, False):
        described(tmp_path, listed)
        for name in ("k3.nii.gz", "k4.img", "readme.txt"):
            (tmp_path / "labelsTr" / name).touch()
        (tmp_path / "imagesTr/k3.nii.gz").touch()
        notes = []
        _, cases, problems = find_cases(tmp_path, notes=notes)
        names = f"{tmp_path / 'labelsTr'}: not used (they are no volumes by their names): readme.txt"
        if listed:
            why = "not used ('training' of dataset.json does not list them)"
            beyond = [
                f"{tmp_path / 'imagesTr'}: {why}: k3.nii.gz",
                f"{tmp_path / 'labelsTr'}: {why}: k3.nii.gz, k4.img",
            ]
            assert (list(cases), problems, notes) == (["k1", "k2"], [], [*beyond, names])
        else:
            assert list(cases) == ["k1", "k2", "k3"]
            assert ["labelsTr/k4.img: is in a format" in problem for problem in problems] == [True]
            assert notes == [names]


def test_a_label_to_ignore_may_be_merged(tmp_path):
    described(tmp_path, labels={"background": 0, "femur": 1, "ignore": 2})
    with pytest.raises(DatasetError, match="label 2 is 'ignore'"):
        find_cases(tmp_path, merged=[1])
    assert find_cases(tmp_path, merged=[2])[0] == {1: "femur"}


def test_many_problems_of_one_kind_are_folded():
    error = DatasetError(Path("data"), [f"labelsTr/k{k}.nii.gz: is empty (0 bytes); copy it again" for k in range(40)])
    assert len(error.problems) == 40
    assert str(error).startswith("data: 40 problem(s)")
    assert len(str(error).splitlines()) == 1 + 3 + 1
    assert str(error).endswith("… and 37 more like the line above (40 in all)")


def test_folders_in_another_layout(tmp_path):
    with pytest.raises(DatasetError, match="there is no such folder"):
        find_cases(tmp_path / "nowhere")
    (tmp_path / "scan.nii.gz").touch()
    with pytest.raises(DatasetError, match=r"no dataset.json; expected dataset.json with 'labels'.*found scan.nii.gz"):
        find_cases(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(DatasetError, match="not valid JSON"):
        find_cases(tmp_path)
    for labels in ({"0": "background", "2": "femur"}, ["femur"]):
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
        with pytest.raises(DatasetError, match="needs 'labels'"):
            find_cases(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "femur"}}))
    with pytest.raises(DatasetError, match="no training case"):
        find_cases(tmp_path)


def test_a_file_that_changes_after_the_check_is_noticed(folder):
    manifest = prepare(experiment().data, folder, folder / "cases.json")
    write_case(folder, "case_0", labels_of(1), image=np.arange(336.0).reshape(6, 7, 8))
    with pytest.raises(ValueError, match="changed since it was checked"):
        manifest.load("case_0")
    with pytest.raises(ValueError, match="no case 'case_9'"):
        manifest.load("case_9")


def test_maps_are_computed_once_per_content(folder):
    manifest = prepare(experiment().data, folder, folder / "cases.json")
    case, calls = manifest.load("case_0"), []

    def compute(labels, spacing):
        calls.append(spacing)
        return labels * 2.0

    first = cached_map(case, compute, {"name": "double"}, folder / "maps")
    again = cached_map(case, compute, {"name": "double"}, folder / "maps")
    assert calls == [SPACING]
    assert np.array_equal(first, again)
    cached_map(case, compute, {"name": "other"}, folder / "maps")
    cached_map(replace(case, labels=case.labels[::-1]), compute, {"name": "double"}, folder / "maps")
    cached_map(replace(case, spacing=(1.0, 1.0, 1.0)), compute, {"name": "double"}, folder / "maps")
    assert len(calls) == 4


SOUND = [{"image": f"./imagesTr/case_{i}.nii.gz", "label": f"./labelsTr/case_{i}.nii.gz"} for i in range(4)]


@pytest.mark.parametrize(
    ("entries", "line"),
    [
        ([{"image": 1, "label": 2}], "dataset.json: entry 5 of 'training' is {'image': 1, 'label': 2}; write it as"),
        ([{"image": "a\0.nii.gz", "label": "a.nii.gz"}], "a\\x00.nii.gz: has a line break, or what is not a letter"),
        ([{"image": "a.nii.gz", "label": f"{'a' * 300}.nii.gz"}], "has too long a name"),
        ([{"image": "a.nii.gz", "label": "labelsTr/.nii.gz"}], "labelsTr/.nii.gz: has no name; rename it"),
        (
            [{"image": f"{x}/a.nii.gz", "label": f"{x}l/a.nii.gz"} for x in "xy"],
            "yl/a.nii.gz: is a second label map of case a, beside xl/a.nii.gz; remove one",
        ),
        (
            [{"image": f"{x}/a.nii.gz", "label": "l/a.nii.gz"} for x in "xy"],
            "y/a.nii.gz: is a second image of case a, beside x/a.nii.gz; remove one",
        ),
    ],
)
def test_entries_that_name_no_case(folder, entries, line):
    """The other cases are found; for a run the problem is told, and nothing else that follows from it."""
    description = json.loads((folder / "dataset.json").read_text(encoding="utf-8")) | {"training": SOUND + entries}
    (folder / "dataset.json").write_text(json.dumps(description))
    _, files, _ = find_cases(folder)
    assert list(files) == [f"case_{i}" for i in range(4)]
    (problem,) = problems_of(folder)
    assert line in problem


def test_problems_of_the_list_and_of_the_files_come_at_once(folder):
    """Of the four cases one is doubled and one has a broken label map; a fifth is listed wrongly."""
    (folder / "labelsTr/case_1.nii.gz").write_bytes(b"")
    training = [*SOUND, {"image": "./imagesTr/other.nii.gz", "label": "./other/case_0.nii.gz"}, "case_5"]
    description = json.loads((folder / "dataset.json").read_text(encoding="utf-8")) | {"training": training}
    (folder / "dataset.json").write_text(json.dumps(description))
    lines = problems_of(folder)
    assert [line.split(": ")[0] for line in lines] == ["dataset.json", "other/case_0.nii.gz", "labelsTr/case_1.nii.gz"]
    with pytest.raises(DatasetError, match="5 cases, but the split needs 9"):  # the doubled and the unreadable counted
        prepare(experiment(train=7).data, folder, folder / "cases.json")


def test_images_in_another_format_and_without_a_label(folder):
    import SimpleITK

    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "femur": 1, "tibia": 2}}))
    image = folder / "imagesTr/case_1.nii.gz"
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(image)), str(folder / "imagesTr/case_1_0000.nrrd"))
    image.unlink()
    assert find_cases(folder)[1]["case_1"] == ("imagesTr/case_1_0000.nrrd", "labelsTr/case_1.nii.gz")
    prepare(experiment().data, folder, folder / "cases.json").load("case_1")
    (folder / "cases.json").unlink()
    (folder / "labelsTr/case_3.nii.gz").unlink()
    assert any("imagesTr/case_3.nii.gz: has no label map in" in problem for problem in problems_of(folder))
    (folder / "labelsTr/case_0.nrrd").touch()
    assert "case_0.nrrd: is a second label map of case case_0" in "".join(problems_of(folder))


def test_normalisation():
    image = np.random.default_rng(0).gamma(2.0, 100.0, (9, 9, 9)).astype(np.float32)
    assert np.allclose([normalise(image, "zscore").mean(), normalise(image, "zscore").std()], [0, 1], atol=1e-5)
    scaled = normalise(image, "percentile")
    assert (scaled.min(), scaled.max()) == (0, 1)
    assert np.isfinite(normalise(np.zeros((3, 3, 3), np.float32), "zscore")).all()


# --- the axis across the slices ---------------------------------------------------------------------------------------


def write_axes(folder, name, spacing, axes="RAS"):
    """A case whose voxels have this size along X, Y, Z of RAS, stored along other axes."""
    from nibabel.orientations import axcodes2ornt, ornt_transform

    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes))
    stored = nibabel.Nifti1Image(labels_of(), np.diag([*spacing, 1.0])).as_reoriented(turn)
    write_case(folder, name, np.asarray(stored.dataobj), stored.affine)


@pytest.mark.parametrize(
    ("spacing", "axis", "rule"),
    [
        ((3.4, 1.5, 1.5), 0, "sagittal (axis 0), across the coarsest voxel side"),
        ((0.6, 1.8, 0.8), 1, "coronal (axis 1), across the coarsest voxel side"),
        ((0.8, 0.8, 5.0), 2, "axial (axis 2), across the coarsest voxel side"),
        ((1.0, 1.0, 1.0), 0, "sagittal (axis 0), the first of equally coarse voxel sides; state another by "),
        ((0.5, 1.0, 1.0), 1, "coronal (axis 1), the first of equally coarse voxel sides; state another by "),
    ],
)
@pytest.mark.parametrize("axes", ["RAS", "PIR"])
def test_slices_lie_across_the_coarsest_side_unless_another_is_stated(folder, spacing, axis, rule, axes):
    for number in range(4):
        write_axes(folder, f"case_{number}", spacing, axes)
    manifest = prepare(experiment().data, folder, folder / "cases.json")
    assert manifest.slice_axis == axis == json.loads((folder / "cases.json").read_text(encoding="utf-8"))["slice_axis"]
    assert manifest.slice_rule.startswith(rule)
    stated = experiment().model_copy(update={"data": experiment().data.model_copy(update={"slice_axis": 2})})
    manifest = prepare(stated.data, folder, folder / "cases.json")
    assert manifest.slice_axis == 2
    others = "" if axis == 2 else f"; the coarsest voxel side is across {('sagittal', 'coronal')[axis]} slices"
    assert manifest.slice_rule == f"axial (axis 2), as the profile states{others}"


def test_cases_whose_coarsest_sides_differ_need_a_stated_axis(folder):
    for number in range(3):
        write_axes(folder, f"case_{number}", (3.0, 1.0, 1.0), ("RAS", "PIR", "LPS")[number])
    write_axes(folder, "case_3", (1.0, 1.0, 3.0))
    (line,) = problems_of(folder)
    assert line == (
        "the coarsest voxel side is axis 0 (sagittal) in 3 cases such as case_0, axis 2 (axial) in 1 case such as "
        "case_3; state one for all by data.slice_axis in the profile"
    )


def test_the_built_in_profiles_have_sagittal_slices():
    """As before the axis was found from the voxels, so that no number changes."""
    assert choose_slice_axis(None, {"phantom": (3.4, 1.5, 1.5)})[0] == 0
    assert choose_slice_axis(None, {"oai": (0.7, 0.365, 0.365)})[0] == 0
    assert choose_slice_axis(None, {"hippocampus": (1.0, 1.0, 1.0)})[0] == 0
