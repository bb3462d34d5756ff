"""Reading one volume: grids that spacing alone does not describe, and what the system refuses."""

import errno
import gzip
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from scipy.spatial.transform import Rotation
from test_bad_input import page_rows

from shapeloss.scoring import score_folders
from shapeloss.volumes import FORMATS, Volume, VolumeError, find_volumes, grid_difference, read_labels, read_volume

SPACING = (0.7, 0.365, 0.365)
SHEARED = "has axes that are not at right angles (sheared); resample it onto a straight grid"


def turned(shear=0.0):
    """Oblique directions, one axis leaning onto another by `shear`."""
    directions = Rotation.from_euler("xyz", [12, -8, 5], degrees=True).as_matrix()
    directions[:, 2] = directions[:, 2] + shear * directions[:, 0]
    return directions / np.linalg.norm(directions, axis=0)


def write(path, directions, array=None):
    """A volume with these directions: an affine, or the lines of a header, for SimpleITK writes right angles only."""
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5) if array is None else array
    path.parent.mkdir(parents=True, exist_ok=True)
    if ".nii" in path.name:
        affine = np.eye(4)
        affine[:3, :3] = directions * SPACING
        nibabel.save(nibabel.Nifti1Image(array, affine), path)
        return path
    data = array.tobytes(order="F")
    shape, local = " ".join(map(str, array.shape)), path.suffix in (".nrrd", ".mha")
    raw = f"{path.stem}.raw"
    if path.suffix in (".nrrd", ".nhdr"):
        vectors = " ".join(f"({','.join(map(repr, column))})" for column in (directions * SPACING).T.tolist())
        header = (
            f"NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: {shape}\n"
            f"space directions: {vectors}\nendian: little\nencoding: raw\nspace origin: (0,0,0)\n"
        ) + ("\n" if local else f"data file: {raw}\n\n")
    else:
        matrix = " ".join(map(repr, directions.T.ravel().tolist()))
        header = (
            f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
            f"CompressedData = False\nTransformMatrix = {matrix}\nOffset = 0 0 0\n"
            f"ElementSpacing = {' '.join(map(str, SPACING))}\nDimSize = {shape}\nElementType = MET_SHORT\n"
            f"ElementDataFile = {'LOCAL' if local else raw}\n"
        )
    path.write_bytes(header.encode() + data * local)
    if not local:
        (path.parent / raw).write_bytes(data)
    return path


@pytest.mark.parametrize("ending", FORMATS)
def test_axes_that_are_not_at_right_angles_are_refused(tmp_path, ending):
    for shear in (1.0, 0.1, 0.002):
        path = write(tmp_path / f"k{ending}", turned(shear))
        with pytest.raises(VolumeError) as caught:
            read_volume(path)
        assert str(caught.value) == f"{path}: {SHEARED}"


@pytest.mark.parametrize("ending", FORMATS)
def test_straight_axes_however_they_lie_and_are_rounded_are_sound(tmp_path, ending):
    for rounded in (turned(), turned().astype(np.float32).astype(float), turned().round(4)):
        volume = read_volume(write(tmp_path / f"k{ending}", rounded))
        assert np.allclose(volume.spacing, SPACING, atol=1e-4)
        assert volume.array[1, 2, 3] == 33


def test_a_sheared_label_map_is_not_scored_and_the_others_are(tmp_path):
    labels = np.zeros((4, 9, 9), np.uint8)
    labels[1:3, 2:7, 2:7] = 1
    for folder in ("found", "truth"):
        write(tmp_path / folder / "sound.nii.gz", turned(), labels)
        write(tmp_path / folder / "bad.nii.gz", turned(1.0), labels)
    scores = score_folders(tmp_path / "found", tmp_path / "truth", metrics=["dice"], progress=False)
    assert scores.per_case["case"].unique().tolist() == ["sound"]
    assert scores.problems == (f"{tmp_path / 'found/bad.nii.gz'}: {SHEARED}",)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EACCES, "must not be read (Permission denied); change its permissions"),
        (errno.EIO, f"{os.strerror(errno.EIO)}; correct that and run the same command again"),
    ],
)
def test_a_file_that_the_system_does_not_read_is_not_called_broken(tmp_path, monkeypatch, ending, number, remedy):
    """The superuser may read whatever its permissions are, so the system's answer is made here."""
    path = write(tmp_path / f"k{ending}", turned())

    def refuse(name, *arguments, **options):
        raise OSError(number, os.strerror(number), str(name))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(VolumeError) as caught:
        read_volume(path)
    assert str(caught.value).startswith(f"{path}: {remedy}")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.getuid() == 0, reason="the superuser may read everything")
def test_permissions(tmp_path):
    path = write(tmp_path / "k.nii.gz", turned())
    path.chmod(0)
    with pytest.raises(VolumeError, match=r"must not be read \(Permission denied\); change its permissions"):
        read_volume(path)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_too_little_memory_is_not_the_files_fault(tmp_path, monkeypatch, ending):
    path = write(tmp_path / f"k{ending}", turned())

    def fail(*_):
        raise MemoryError

    def fail_in_itk(*_):
        raise RuntimeError("itk::ERROR: Image(0x1): Failed to allocate memory for image.")

    monkeypatch.setattr("shapeloss.volumes.np.asanyarray", fail)
    for failing in (fail, fail_in_itk):
        monkeypatch.setattr(SimpleITK.ImageFileReader, "Execute", failing)
        with pytest.raises(VolumeError) as caught:
            read_volume(path)
        assert str(caught.value) == f"{path}: there is not enough memory to read it; close other programs"


def test_a_truncated_gzip_is_still_broken(tmp_path):
    path = write(tmp_path / "k.nii.gz", turned())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(VolumeError, match=r"is no sound NIfTI file \(.*\); copy or download it again"):
        read_volume(path)
    path.write_bytes(b"no gzip")
    with pytest.raises(VolumeError, match=r"is no sound NIfTI file \(Not a gzipped file"):
        read_volume(path)


def test_the_page_says_what_the_machine_and_earlier_predictions_may_do():
    """Each row's words stand in the test that makes the fault."""
    places = {
        "a file that must not be read": "test_volumes.py",
        "too little memory": "test_volumes.py",
        "an output that must not be written": "test_cli.py",
        "an output on a read-only disk": "test_cli.py",
        "label maps of another run or side": "test_inference.py",
        "a predict.json that is none": "test_inference.py",
        "images in the output folder": "test_inference.py",
    }
    rows = page_rows("Predictions", "The machine")
    assert set(rows) == set(places)
    for name, (message, remedy) in rows.items():
        text = (Path(__file__).parent / places[name]).read_text(encoding="utf-8")
        for words in (message.partition(" (")[0], remedy.split(", ")[0]):
            assert words in text, (name, words)


AFFINE = np.diag([0.7, 0.4, 0.4, 1.0])


def small_labels():
    labels = np.zeros((6, 7, 8), np.uint8)
    labels[1:4, 2:5, 3:6], labels[4:6, 5:7, 1:3] = 1, 2
    return labels


def with_scale(values, slope):
    """A NIfTI-1 file whose values are stored with a scale factor."""
    raw = bytearray(nibabel.Nifti1Image(values, AFFINE).to_bytes())
    raw[112:116], raw[116:120] = np.float32(slope).tobytes(), bytes(4)  # scl_slope, scl_inter
    return bytes(raw)


@pytest.mark.parametrize("factor", [100, 255, 3])
def test_labels_stored_with_a_scale_factor_are_whole_numbers(tmp_path, factor):
    path = tmp_path / "a.nii"
    path.write_bytes(with_scale(small_labels().astype(np.int16) * factor, 1 / factor))
    assert np.array_equal(read_labels(path).array, small_labels())


def test_probabilities_are_no_labels(tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(with_scale(small_labels() * 100, 0.988 / 100))
    with pytest.raises(VolumeError, match=r"has fractional label 0\.988"):
        read_labels(path)


@pytest.mark.parametrize("name", ["Århus", "学"])
def test_a_metaimage_header_may_have_any_letters(tmp_path, name):
    image = SimpleITK.GetImageFromArray(small_labels().T.copy())
    image.SetMetaData("0008|0080", name)
    SimpleITK.WriteImage(image, str(tmp_path / "a.mha"))
    assert np.array_equal(read_labels(tmp_path / "a.mha").array, small_labels())


def test_one_grid_as_matrix_and_as_quaternion_near_180_degrees(tmp_path):
    """The quaternion is rounded, so that corners move by 0.5 % of a voxel; a shift of 5 % is another grid."""
    a, b = np.deg2rad(0.15), np.deg2rad(0.3)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1, -1, 1]) @ about_x @ about_z @ np.diag([0.5, 0.5, 1.0])
    values = np.zeros((320, 320, 160), np.uint8)
    image = nibabel.Nifti1Image(values, affine)
    image.set_qform(affine, 1)
    header = image.header.copy()
    header["sform_code"] = 0
    nibabel.save(nibabel.Nifti1Image(values, None, header), tmp_path / "q.nii")
    quaternion = read_volume(tmp_path / "q.nii")
    matrix = Volume(values, affine)
    assert not np.allclose(quaternion.affine, affine, atol=1e-6, rtol=0)
    assert grid_difference(quaternion, matrix) == ""
    affine = affine.copy()
    affine[0, 3] += 0.05 * 0.5
    assert "shifted by 0.025" in grid_difference(Volume(values, affine), matrix)


def test_sizes_of_a_header_that_contradict_each_other_are_named(tmp_path):
    image = nibabel.Nifti1Image(small_labels(), AFFINE)
    image.set_qform(AFFINE, 1)
    image.set_sform(np.eye(4), 1)
    image.header["pixdim"][1:4] = 0.7, 0.4, 0.4
    nibabel.save(image, tmp_path / "a.nii.gz")
    with pytest.raises(VolumeError, match=r"1 × 1 × 1 mm by its sform, but 0.7 × 0.4 × 0.4 mm by its pixdim"):
        read_volume(tmp_path / "a.nii.gz")
    image.set_sform(np.diag([0.7001, 0.4, 0.4, 1.0]), 1)  # rounding of the header
    image.header["pixdim"][1:4] = 0.7, 0.4, 0.4
    nibabel.save(image, tmp_path / "b.nii.gz")
    assert read_volume(tmp_path / "b.nii.gz").spacing == pytest.approx((0.7001, 0.4, 0.4), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "remedy"),
    [
        ("a.nii.gz", nibabel.Nifti1Image(small_labels(), AFFINE).to_bytes(), "is not packed.* rename it to a.nii$"),
        ("a.nii", gzip.compress(nibabel.Nifti1Image(small_labels(), AFFINE).to_bytes()), "rename it to a.nii.gz$"),
        ("a.nii.gz", b"<!DOCTYPE html><html>", "is a web page"),
        ("a.nrrd", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a pointer of Git LFS"),
        ("a.mha", b"PK\x03\x04rest", "is a zip archive; unpack it"),
    ],
    ids=["unpacked", "packed", "page", "pointer", "zip"],
)
def test_a_file_by_the_wrong_name_gets_the_remedy_for_its_cause(tmp_path, name, content, remedy):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VolumeError, match=remedy):
        read_volume(tmp_path / name)


def test_segments_of_an_editor(tmp_path):
    layers = [SimpleITK.GetImageFromArray((small_labels() == label).T.astype(np.uint8)) for label in (1, 2)]
    SimpleITK.WriteImage(layers[0], str(tmp_path / "one.seg.nrrd"))
    header = "NRRD0004\ntype: unsigned char\ndimension: 4\nspace: left-posterior-superior\nsizes: 2 2 2 2\n"
    header += "space directions: none (1,0,0) (0,1,0) (0,0,1)\nkinds: list domain domain domain\nencoding: raw\n\n"
    (tmp_path / "two.seg.nrrd").write_bytes(header.encode() + bytes(16))
    found, problems = find_volumes(tmp_path)
    assert set(found) == {"one", "two"}
    assert problems == []
    assert np.array_equal(read_labels(found["one"]).array, small_labels() == 1)
    with pytest.raises(VolumeError, match="holds 2 layers of segments; export it as one label map"):
        read_volume(found["two"])


def test_volumes_in_other_formats_are_named_and_folded(tmp_path):
    for number in range(9):
        (tmp_path / f"k{number}.mgz").touch()
    for name in ("a.nii.gz", "dataset.json", "scores.csv", ".DS_Store"):
        (tmp_path / name).touch()
    found, problems = find_volumes(tmp_path)
    assert set(found) == {"a"}
    assert len(problems) == 4
    assert "k0.mgz: is in a format that is not read, so it is left out; convert it to .nii.gz" in problems[0]
    assert problems[3] == "and 6 more files in formats that are not read (9 in all)"
