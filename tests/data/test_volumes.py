"""Reading one volume: grids that spacing alone does not describe, and what the system refuses."""

import errno
import gzip
import os
import re

import nibabel
import numpy as np
import pytest
import SimpleITK
from helpers.project import ROOT
from helpers.volumes import page_rows
from scipy.spatial.transform import Rotation

from shapeloss.data.headers import VolumeError
from shapeloss.data.names import FORMATS, find_volumes, fold
from shapeloss.data.volume import Volume, grid_difference, read_labels, read_volume
from shapeloss.review.score_folders import score_folders

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
        (errno.EACCES, "cannot be read: permission denied; change its permissions"),
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
    with pytest.raises(VolumeError, match=r"cannot be read: permission denied; change its permissions"):
        read_volume(path)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_too_little_memory_is_not_the_files_fault(tmp_path, monkeypatch, ending):
    path = write(tmp_path / f"k{ending}", turned())

    def fail(*_):
        raise MemoryError

    def fail_in_itk(*_):
        raise RuntimeError("itk::ERROR: Image(0x1): Failed to allocate memory for image.")

    monkeypatch.setattr("shapeloss.data.volume.np.asanyarray", fail)
    for failing in (fail, fail_in_itk):
        monkeypatch.setattr(SimpleITK.ImageFileReader, "Execute", failing)
        with pytest.raises(VolumeError) as caught:
            read_volume(path)
        assert str(caught.value) == f"{path}: there is not enough memory to read it; close other programs"


def test_a_truncated_gzip_is_still_broken(tmp_path):
    path = write(tmp_path / "k.nii.gz", turned())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(VolumeError, match=r"is not a valid NIfTI file \(.*\); copy or download it again"):
        read_volume(path)
    path.write_bytes(b"no gzip")
    with pytest.raises(VolumeError, match=r"is not a valid NIfTI file \(Not a gzipped file"):
        read_volume(path)


def test_the_page_says_what_the_machine_and_earlier_predictions_may_do():
    """Each row's words stand in the test that makes the fault."""
    places = {
        "a file that cannot be read": "test_volumes.py",
        "too little memory": "test_volumes.py",
        "an output that cannot be written": "test_cli.py",
        "an output on a read-only disk": "test_cli.py",
        "label maps of another run or side": "test_predict_folder.py",
        "a predict.json that is none": "test_predict_folder.py",
        "images in the output folder": "test_predict_folder.py",
        "voxels more than twice as fine or coarse as any of the training": "test_scans.py",
        "a prepared volume, map or checkpoint with a flipped bit": "test_checksums.py",
        "weights with a flipped bit": "test_checksums.py",
        "a run.json or cases.json that was changed": "test_checksums.py",
        "a history that was changed": "test_checksums.py",
        "one image under two names": "test_protocol.py",
    }
    rows = page_rows("Predictions", "Results", "The machine")
    assert set(rows) == set(places)
    for name, (message, remedy) in rows.items():
        text = next((ROOT / "tests").rglob(places[name])).read_text(encoding="utf-8")
        for words in (message.partition(" (")[0].partition(" …")[0], remedy.split(", ")[0].removesuffix(" run.json")):
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


@pytest.mark.parametrize("bits", [16, 8])
def test_labels_scaled_to_integers_are_as_exact_as_their_bits(tmp_path, bits):
    """nibabel stores real values by scaling them to all integers: 4 labels in 16 bits are exact to 3e-5."""
    values, step = np.where(small_labels() == 2, 4.0, small_labels()), 4 / (2**bits - 1)
    raw = np.round((values - 2) / step).clip(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    stored = bytearray(nibabel.Nifti1Image(raw.astype(f"int{bits}"), AFFINE).to_bytes())
    stored[112:120] = np.float32([step, 2]).tobytes()
    (tmp_path / "a.nii").write_bytes(stored)
    if bits == 8:
        with pytest.raises(VolumeError, match="has fractional label"):
            read_labels(tmp_path / "a.nii")
    else:
        assert set(np.unique(read_labels(tmp_path / "a.nii").array)) == {0, 1, 4}


@pytest.mark.parametrize("name", ["Århus", "学"])
def test_a_metaimage_header_may_have_any_letters(tmp_path, name):
    image = SimpleITK.GetImageFromArray(small_labels().T.copy())
    image.SetMetaData("0008|0080", name)
    SimpleITK.WriteImage(image, str(tmp_path / "a.mha"))
    assert np.array_equal(read_labels(tmp_path / "a.mha").array, small_labels())


def test_an_nrrd_header_may_have_any_letters_and_free_text(tmp_path):
    """Comments and key:=value pairs are text, whatever they look like, and may be long."""
    header = "NRRD0005\n# Århus 学 sizes: 9 9 9\ncontent: Århus\ntype: unsigned char\ndimension: 3\n"
    header += "space: left-posterior-superior\nsizes: 6 7 8\nencoding: gzip\n"
    header += "space directions: (0.7,0,0) (0,0.4,0) (0,0,0.4)\n"
    header += "encoding:=none\ndata file:=away.raw\nSegment0_Name:=膝\n"
    header += "".join(f"Segment{k}_Tags:={'x' * 1000}\n" for k in range(100))
    path = tmp_path / "a.seg.nrrd"
    path.write_bytes(header.encode() + b"\n" + gzip.compress(small_labels().tobytes("F")))
    assert np.array_equal(read_labels(path).array, small_labels())
    assert read_labels(path).spacing == (0.7, 0.4, 0.4)


@pytest.mark.parametrize(
    ("name", "kinds", "message"),
    [
        ("a.nrrd", "RGB-color domain domain domain", "has 3 values per voxel; .* so split or convert it"),
        ("a.nrrd", "list domain domain domain", "has 3 values per voxel; .* so split or convert it"),
        ("a.seg.nrrd", "list domain domain domain", "holds 3 segmentation layers"),
    ],
)
def test_a_fourth_axis_is_named_as_what_it_is(tmp_path, name, kinds, message):
    header = "NRRD0004\ntype: unsigned char\ndimension: 4\nspace: left-posterior-superior\nsizes: 3 2 2 2\n"
    header += f"space directions: none (1,0,0) (0,1,0) (0,0,1)\nkinds: {kinds}\nencoding: raw\n\n"
    (tmp_path / name).write_bytes(header.encode() + bytes(24))
    with pytest.raises(VolumeError, match=message):
        read_volume(tmp_path / name)


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


@pytest.mark.parametrize("short_of_180", [0, 1e-4, 3e-4, 1e-3, 1e-2])
def test_what_a_quaternion_may_turn_is_one_grid_at_every_corner(short_of_180):
    """At 180° float32 turns a grid by up to 0.07°; a grid that is turned by more is another."""
    rng = np.random.default_rng(0)
    values = np.broadcast_to(np.uint8(0), (384, 384, 160))
    for _ in range(60):
        axis = rng.normal(size=3)
        affine = np.eye(4)
        turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * (np.pi - short_of_180)).as_matrix()
        affine[:3, :3] = turn * [0.365, 0.365, 0.7]
        affine[:3, 3] = rng.uniform(-100, 100, 3)
        header = nibabel.Nifti1Header()
        header.set_qform(affine, 1)
        rounded = nibabel.Nifti1Header(header.binaryblock).get_qform()
        assert grid_difference(Volume(values, rounded), Volume(values, affine)) == ""
        assert grid_difference(Volume(values, affine), Volume(values, rounded)) == ""
        other = affine.copy()
        other[:3, :3] = Rotation.from_rotvec([0, 0, np.radians(0.2)]).as_matrix() @ affine[:3, :3]
        assert "axes turned by" in grid_difference(Volume(values, other), Volume(values, affine))


def test_a_quaternion_far_from_180_degrees_excuses_nothing():
    """There float32 turns a grid by less than 1e-6: a fifth of a voxel at the far corner is another grid."""
    values = np.broadcast_to(np.uint8(0), (384, 384, 160))
    affine = np.diag([0.365, 0.365, 0.7, 1.0])
    turned = affine.copy()
    turned[:3, :3] = Rotation.from_rotvec([0, 0, 0.2 * 0.365 / 198]).as_matrix() @ affine[:3, :3]
    assert grid_difference(Volume(values, turned), Volume(values, affine))


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
        ("a.nii.gz", gzip.compress(b"\n <html>"), "is a web page"),
        (
            "a.nii.gz",
            gzip.compress(gzip.compress(bytes(400))),
            "is packed by gzip more often than its name says; unpack",
        ),
        ("a.nrrd", nibabel.Nifti1Image(small_labels(), AFFINE).to_bytes(), "is a file in NIfTI .* end in .nii$"),
        ("a.nii", b"NRRD0004\ntype: short\n", "is a file in NRRD by its content; rename it to end in .nrrd$"),
        ("a.nii.gz", b"ObjectType = Image\n", "is a file in MetaImage by its content; rename it to end in .mha$"),
        ("a.nii.gz", b"BZh91AY", "is packed by bzip2; unpack it"),
        ("a.nii.gz", b"../.git/annex/objects/x/y", "is a pointer of git-annex"),
        ("a.nii", bytes(128) + b"DICM", "is a DICOM file; convert it"),
        ("a.nii.gz", b"anything else", r"is not a valid NIfTI file \(Not a gzipped file.*\); check how it was made"),
        ("a.nii.gz", b"", r"is empty \(0 bytes\); copy or download it again"),
    ],
    ids=[
        *("unpacked", "packed", "page", "pointer", "zip", "packed page", "packed twice", "NIfTI", "NRRD", "MetaImage"),
        *("bzip2", "annex", "DICOM", "unknown", "empty"),
    ],
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
    with pytest.raises(VolumeError, match=r"holds 2 segmentation layers, .* export them as one label map"):
        read_volume(found["two"])


def test_volumes_in_other_formats_are_named_and_folded(tmp_path):
    for number in range(9):
        (tmp_path / f"k{number}.mgz").touch()
    for name in ("a.nii.gz", "dataset.json", "scores.csv", ".DS_Store"):
        (tmp_path / name).touch()
    notes = []
    found, problems = find_volumes(tmp_path, notes)
    assert set(found) == {"a"}
    assert len(problems) == 9
    assert "k0.mgz: is in a format that is not read, so it is left out; convert it to .nii.gz" in problems[0]
    assert fold(problems)[3:] == ["… and 6 more like the line above (9 in all)"]
    assert notes == [f"{tmp_path}: not used (they are no volumes by their names): dataset.json, scores.csv"]


NOT_READ = (
    "b.img",
    "b.hdr",
    "c.nii.gz.part",
    "d.nii.zip",
    "e.nii.gz.crdownload",
    "f.raw",
    "g.npz",
    "h.NII.bz2",
    "i.dcm",
)


@pytest.mark.parametrize("name", NOT_READ)
def test_what_looks_like_a_volume_is_a_problem(tmp_path, name):
    for file in ("a.nii.gz", name):
        (tmp_path / file).touch()
    found, problems = find_volumes(tmp_path)
    assert set(found) == {"a"}
    assert len(problems) == 1
    assert re.search(rf"{re.escape(name)}: .*, so it is left out; ", problems[0])


def test_what_belongs_to_a_volume_is_none(tmp_path):
    """Data beside its header, probabilities beside their label map; and a folder is named, not looked into."""
    for name in ("k.mhd", "n.nhdr"):
        write(tmp_path / name, np.eye(3))
    (tmp_path / "k.npz").touch()
    (tmp_path / "old").mkdir()
    notes = []
    found, problems = find_volumes(tmp_path, notes)
    assert (set(found), problems) == ({"k", "n"}, [])
    assert notes == [f"{tmp_path}: not used (they are no volumes by their names): k.npz, old/"]


def test_faults_of_one_kind_are_folded():
    many = [f"/a b/k{k:02d}.nii.gz: its grid is shifted by {k / 7:.3g} mm against /c/k{k:02d}.nii.gz" for k in range(9)]
    few = [f"/a b/{name}.nii: is empty (0 bytes); copy it again" for name in ("x", "y", "z", "w")]
    folded = fold([many[0], few[0], *many[1:], *few[1:]])
    assert folded == [*many[:3], "… and 6 more like the line above (9 in all)", *few]
