"""Reading one volume: grids that spacing alone does not describe, and what the system refuses."""

import errno
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from scipy.spatial.transform import Rotation
from test_bad_input import page_rows

from shapeloss.scoring import score_folders
from shapeloss.volumes import FORMATS, VolumeError, read_volume

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
