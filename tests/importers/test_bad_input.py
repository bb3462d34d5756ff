"""Every fault of docs/bad-input.md: made here, imported, and answered by the line that the page promises."""

import errno
import gzip
import io
import json
import os
import re
import resource
import struct
import tarfile
import tempfile
import threading
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from helpers.volumes import (
    AFFINE,
    LABELS,
    PAGE,
    SHAPE,
    image_array,
    import_pairs,
    itk,
    mask_array,
    nifti,
    page_rows,
    pair,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shapeloss import _files as files
from shapeloss.cli.imports import choose_labels
from shapeloss.data.headers import VolumeError
from shapeloss.data.layout import DatasetError, find_cases
from shapeloss.data.manifest import check_case, read_sides
from shapeloss.data.volume import read_labels, read_volume, write_nifti
from shapeloss.importers.archives import LARGEST, Member, read_tar, read_zip
from shapeloss.importers.folders import folder_entries, folder_source, pair_entries
from shapeloss.importers.oaizib_cm import SOURCE, find_entries
from shapeloss.importers.writer import Entry, ImportProblems, write_cases


def cut(path, keep=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def patch(path, offset, data):
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[offset : offset + len(data)] = data
    path.write_bytes(gzip.compress(content))


FAULTS = {}


def fault(name):
    """A function that spoils the case `bad` in a folder of pairs."""
    return lambda make: FAULTS.setdefault(name, make)


IMAGE, MASK = "images/bad.nii.gz", "labels/bad.nii.gz"


@fault("axes that are not at right angles")
def _(folder):
    sheared = AFFINE.copy()
    sheared[0, 2] = 0.365
    nifti(folder / IMAGE, image_array(), sheared)


@fault("axes that are not at right angles, NRRD")
def _(folder):
    (folder / IMAGE).unlink()
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 6 5\n"
        "space directions: (0.7,0,0) (0,0.365,0) (0.365,0,0.365)\nendian: little\nencoding: raw\n"
        "space origin: (0,0,0)\n\n"
    )
    (folder / "images/bad.nrrd").write_bytes(header.encode() + image_array().tobytes(order="F"))


@fault("a file of 0 bytes")
def _(folder):
    (folder / IMAGE).write_bytes(b"")


@fault("an empty gzip")
def _(folder):
    (folder / IMAGE).write_bytes(gzip.compress(b""))


@fault("a truncated gzip")
def _(folder):
    cut(folder / IMAGE)


@fault("a gzip whose checksum is wrong")
def _(folder):
    data = bytearray((folder / IMAGE).read_bytes())
    data[-8] ^= 1
    (folder / IMAGE).write_bytes(data)


@fault("a gzip that expands without end")
def _(folder):
    data = gzip.decompress((folder / IMAGE).read_bytes())
    (folder / IMAGE).write_bytes(gzip.compress(data + bytes(1 << 26)))


@fault("a header that declares more than the file holds")
def _(folder):
    patch(folder / IMAGE, 40, struct.pack("<4h", 3, 1024, 1024, 1000))


@fault("a header that declares no plausible scan")
def _(folder):
    patch(folder / IMAGE, 40, struct.pack("<4h", 3, 32767, 32767, 32767))


@fault("another kind of file by this name")
def _(folder):
    (folder / IMAGE).write_bytes(b"\x89PNG" + bytes(400))


@fault("another kind of file, NRRD")
def _(folder):
    (folder / IMAGE).rename(folder / "images/bad.nrrd").write_bytes(b"no such header")


@fault("a truncated NRRD")
def _(folder):
    (folder / IMAGE).unlink()
    cut(itk(folder / "images/bad.nrrd", image_array()), 0.9)


@fault("a truncated MetaImage")
def _(folder):
    (folder / IMAGE).unlink()
    cut(itk(folder / "images/bad.mha", image_array()), 0.9)


@fault("a MetaImage without its data file")
def _(folder):
    (folder / IMAGE).unlink()
    itk(folder / "images/bad.mhd", image_array())
    (folder / "images/bad.raw").unlink()


@fault("a MetaImage with its data elsewhere")
def _(folder):
    (folder / IMAGE).unlink()
    header = itk(folder / "images/bad.mhd", image_array())
    (folder / "images/bad.raw").rename(folder / "bad.raw")
    header.write_text(header.read_text(encoding="utf-8").replace("= bad.raw", "= ../bad.raw"))


def metaimage(folder, old, new):
    """The image as MetaImage, with something else in its header."""
    (folder / IMAGE).unlink()
    path = itk(folder / "images/bad.mha", image_array())
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new, 1))


@fault("a MetaImage field that is not a number")
def _(folder):
    metaimage(folder, b"Offset = 0 0 0", b"Offset = 0 here 0")


@fault("a MetaImage field with too many numbers")
def _(folder):
    metaimage(folder, b"Offset = 0 0 0", b"Offset = 0 0 0 0")


@fault("a MetaImage field that occurs twice")
def _(folder):
    metaimage(folder, b"NDims = 3\n", b"NDims = 3\nNDims = 3\n")


@fault("a MetaImage of two axes")
def _(folder):
    metaimage(folder, b"NDims = 3", b"NDims = 2")


@fault("a MetaImage over several files")
def _(folder):
    metaimage(folder, b"ElementDataFile = LOCAL", b"ElementDataFile = LIST")


@fault("an NRRD with its data as text")
def _(folder):
    (folder / IMAGE).unlink()
    path = itk(folder / "images/bad.nrrd", image_array())
    path.write_bytes(re.sub(rb"encoding: \w+", b"encoding: ascii", path.read_bytes()))


@fault("a NIfTI with two voxel sizes")
def _(folder):
    patch(folder / IMAGE, 80, struct.pack("<3f", 1, 1, 1))  # pixdim; the sform stays


@fault("an unpacked NIfTI named as a packed one")
def _(folder):
    (folder / IMAGE).write_bytes(gzip.decompress((folder / IMAGE).read_bytes()))


@fault("a packed NIfTI named as an unpacked one")
def _(folder):
    (folder / IMAGE).rename(folder / "images/bad.nii")


@fault("a web page by this name")
def _(folder):
    (folder / IMAGE).write_bytes(b"<!DOCTYPE html>\n<html>Please log in")


@fault("a pointer of Git LFS")
def _(folder):
    (folder / IMAGE).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")


@fault("a zip archive by this name")
def _(folder):
    (folder / IMAGE).write_bytes(b"PK\x03\x04" + bytes(60))


@fault("a NIfTI named as another format")
def _(folder):
    (folder / "images/bad.mha").write_bytes(gzip.decompress((folder / IMAGE).read_bytes()))
    (folder / IMAGE).unlink()


@fault("segmentation layers")
def _(folder):
    (folder / MASK).unlink()
    layers = np.stack([mask_array() == 1, mask_array() == 3]).astype(np.uint8)
    header = (
        "NRRD0004\ntype: unsigned char\ndimension: 4\nspace: right-anterior-superior\nsizes: 2 4 6 5\n"
        "space directions: none (0.7,0,0) (0,0.365,0) (0,0,0.365)\nkinds: list domain domain domain\nencoding: raw\n\n"
    )
    (folder / "labels/bad.seg.nrrd").write_bytes(header.encode() + layers.tobytes(order="F"))


@fault("an image in a format that is not read")
def _(folder):
    (folder / IMAGE).rename(folder / "images/bad.mgz")


@fault("an image whose download did not end")
def _(folder):
    for path in (IMAGE, MASK):
        (folder / path).unlink()
    (folder / "images/bad.nii.gz.part").write_bytes(b"half")


@fault("NaN in the image")
def _(folder):
    image = image_array().astype(np.float32)
    image[1, 2, 3] = np.nan
    pair(folder, "bad", image)


@fault("infinity in the image")
def _(folder):
    image = image_array().astype(np.float32)
    image[1, 2, 3] = -np.inf
    pair(folder, "bad", image)


@fault("values beyond float32")
def _(folder):
    pair(folder, "bad", image_array() * 1e300)


@fault("a constant image")
def _(folder):
    pair(folder, "bad", np.full(SHAPE, 7, np.int16))


@fault("a mask of another shape")
def _(folder):
    pair(folder, "bad", mask=mask_array()[:, :5])


@fault("a mask with another voxel size")
def _(folder):
    pair(folder, "bad", affine=np.diag([0.7, 0.365, 0.4, 1.0]))


@fault("a mask with other directions")
def _(folder):
    pair(folder, "bad", affine=AFFINE @ np.diag([1.0, -1.0, 1.0, 1.0]))


@fault("a mask turned by a degree")
def _(folder):
    turn = np.eye(4)
    angle = np.radians(1)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    pair(folder, "bad", affine=turn @ AFFINE)


@fault("a mask shifted by half a voxel")
def _(folder):
    shifted = AFFINE.copy()
    shifted[0, 3] = 0.35
    pair(folder, "bad", affine=shifted)


@fault("fractional labels")
def _(folder):
    pair(folder, "bad", mask=mask_array() * np.float32(0.5))


@fault("negative labels")
def _(folder):
    pair(folder, "bad", mask=mask_array().astype(np.int16) - 1)


@fault("a mask without any named label")
def _(folder):
    pair(folder, "bad", mask=mask_array() * np.uint8(2))


@fault("four axes")
def _(folder):
    pair(folder, "bad", np.stack([image_array(), image_array(1)], -1))


@fault("two axes")
def _(folder):
    pair(folder, "bad", image_array()[:, :, 0])


@fault("colours")
def _(folder):
    (folder / IMAGE).unlink()
    image = SimpleITK.GetImageFromArray(np.zeros((*SHAPE, 3), np.uint8), isVector=True)
    SimpleITK.WriteImage(image, str(folder / "images/bad.mha"))


@fault("a voxel size of zero")
def _(folder):
    patch(folder / IMAGE, 280, struct.pack("<12f", *[0.0] * 12))


@fault("voxel sizes in metres")
def _(folder):
    patch(folder / IMAGE, 123, b"\x01")


@fault("voxel sizes in metres, NRRD")
def _(folder):
    (folder / IMAGE).unlink()
    path = itk(folder / "images/bad.nrrd", image_array())
    path.write_bytes(path.read_bytes().replace(b"space: left", b'space units: "m" "m" "m"\nspace: left'))


@fault("a NIfTI without voxel size")
def _(folder):
    patch(folder / IMAGE, 80, struct.pack("<3f", 0, 0, 0))
    patch(folder / IMAGE, 252, struct.pack("<2h", 0, 0))  # neither qform nor sform


@fault("no voxel size")
def _(folder):
    (folder / IMAGE).unlink()
    path = itk(folder / "images/bad.nrrd", image_array())
    path.write_bytes(re.sub(rb"space directions:.*?\n", b"", path.read_bytes()))


@fault("a link that leads out")
def _(folder):
    (folder / IMAGE).rename(folder / "elsewhere.nii.gz")
    (folder / IMAGE).symlink_to(folder / "elsewhere.nii.gz")


@fault("an image without a mask")
def _(folder):
    (folder / MASK).unlink()


@fault("a mask without an image")
def _(folder):
    (folder / IMAGE).unlink()


@fault("two files of one name")
def _(folder):
    itk(folder / "images/bad.nrrd", image_array())


@fault("a second image of a pair")
def _(folder):
    nifti(folder / "images/bad_0000.nii.gz", image_array(1))


@fault("a second channel of a pair")
def _(folder):
    (folder / IMAGE).rename(folder / "images/bad_0000.nii.gz")
    nifti(folder / "images/bad_0001.nii.gz", image_array(1))


@fault("a link to itself")
def _(folder):
    (folder / IMAGE).unlink()
    (folder / IMAGE).symlink_to(folder / IMAGE)


@fault("a line break in a name")
def _(folder):
    (folder / MASK).unlink()
    (folder / IMAGE).rename(folder / "images/bad\n.nii.gz")


@fault("a name that is no UTF-8")
def _(folder):
    (folder / MASK).unlink()
    (folder / IMAGE).rename(os.fsdecode(os.fsencode(folder) + b"/images/bad\xff.nii.gz"))


@fault("a name that Windows forbids")
def _(folder):
    (folder / IMAGE).rename(folder / "images/bad:1.nii.gz")
    (folder / MASK).rename(folder / "labels/bad:1.nii.gz")


@fault("a folder in place of an image")
def _(folder):
    (folder / IMAGE).unlink()
    (folder / "images/bad").mkdir()


ARCHIVES = {}


def archive_fault(name):
    """A function that spoils imagesTr.zip."""
    return lambda make: ARCHIVES.setdefault(name, make)


@archive_fault("an archive that is missing")
def _(path):
    path.unlink()


@archive_fault("an archive that is none")
def _(path):
    path.write_bytes(b"<html>404</html>")


@archive_fault("an archive that was cut off")
def _(path):
    cut(path, 0.8)


@archive_fault("an archive entry that climbs out")
def _(path):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("imagesTr/../../outside.nii.gz", b"")


@archive_fault("an archive entry with an absolute path")
def _(path):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("/tmp/outside.nii.gz", b"")


@archive_fault("an archive entry that is a link")
def _(path):
    info = zipfile.ZipInfo("imagesTr/link.nii.gz")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, "/etc/passwd")


@archive_fault("an archive packed in an unusual way")
def _(path):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("imagesTr/bomb.nii.gz", b"", zipfile.ZIP_BZIP2)


@archive_fault("a damaged archive entry")
def _(path):
    data = path.read_bytes()
    middle = data.rindex(b"imagesTr/oaizib_002", 0, data.rindex(b"PK\1\2")) + 60
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :])


@archive_fault("an archive entry of an implausible size")
def _(path):
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\1\2")  # of oaizib_002, in the list at the end
    data[entry + 24 : entry + 28] = struct.pack("<I", LARGEST + 1)
    path.write_bytes(data)


@archive_fault("two files of a case in an archive")
def _(path):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("old/oaizib_002_0000.nii.gz", archive.read("imagesTr/oaizib_001_0000.nii.gz"))


@archive_fault("an archive without the case")
def _(path):
    with zipfile.ZipFile(path) as archive:
        sound = archive.read("imagesTr/oaizib_001_0000.nii.gz")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("imagesTr/oaizib_001_0000.nii.gz", sound)


FOLDERS = {}


def folder_fault(name):
    """A function that spoils the case `bad` in a folder with dataset.json; it may change what that file says."""
    return lambda make: FOLDERS.setdefault(name, make)


@folder_fault("an entry that names no files")
def _(folder, described):
    described["training"][1] = {"image": "./imagesTr/bad.nii.gz"}


@folder_fault("a second label map of a case")
def _(folder, described):
    nifti(folder / "other/bad.nii.gz", mask_array())
    described["training"].append({"image": "./imagesTr/bad.nii.gz", "label": "./other/bad.nii.gz"})


@folder_fault("a second image of a case")
def _(folder, described):
    nifti(folder / "other/bad.nii.gz", image_array())
    described["training"].append({"image": "./other/bad.nii.gz", "label": "./labelsTr/bad.nii.gz"})


@folder_fault("a listed name that no file can have")
def _(folder, described):
    described["training"][1]["image"] = "./imagesTr/bad\n.nii.gz"


@folder_fault("a listed file that is missing")
def _(folder, described):
    (folder / "labelsTr/bad.nii.gz").unlink()


@folder_fault("a listed file that is a link out")
def _(folder, described):
    (folder / "labelsTr/bad.nii.gz").rename(folder.parent / "bad.nii.gz")
    (folder / "labelsTr/bad.nii.gz").symlink_to(folder.parent / "bad.nii.gz")


@folder_fault("a second channel")
def _(folder, described):
    del described["training"]  # as nnU-Net has it
    (folder / "imagesTr/bad.nii.gz").rename(folder / "imagesTr/bad_0000.nii.gz")
    nifti(folder / "imagesTr/bad_0001.nii.gz", image_array())


@folder_fault("an image without a label map")
def _(folder, described):
    del described["training"]
    (folder / "labelsTr/bad.nii.gz").unlink()


@folder_fault("a volume in a format that is not read")
def _(folder, described):
    del described["training"]
    for part in ("imagesTr", "labelsTr"):
        (folder / part / "bad.nii.gz").unlink()
    (folder / "labelsTr/bad.nii.gz.img").touch()


@folder_fault("a number of cases that is not there")
def _(folder, described):
    (folder / "labelsTr/bad.nii.gz").unlink()
    described["training"].pop()
    described["numTraining"] = 2


@folder_fault("several channels")
def _(folder, described):
    described["training"].pop()
    described["modality"] = {"0": "T1", "1": "T2"}


@folder_fault("a label that is not declared")
def _(folder, described):
    nifti(folder / "labelsTr/bad.nii.gz", mask_array() * np.uint8(2))


NO_LAYOUT = {}


def no_layout(name):
    """A function that spoils dataset.json, so that no case can be told."""
    return lambda make: NO_LAYOUT.setdefault(name, make)


@no_layout("no dataset.json")
def _(path):
    path.unlink()


@no_layout("a dataset.json that is cut off")
def _(path):
    cut(path)


@no_layout("a dataset.json without labels")
def _(path):
    path.write_text("{}")


@no_layout("a label to ignore")
def _(path):
    path.write_text('{"labels": {"background": 0, "femur": 1, "ignore": 2}}')


@no_layout("a region of several labels")
def _(path):
    path.write_text('{"labels": {"background": 0, "bones": [1, 2], "tibia": 2}, "regions_class_order": [1, 2]}')


@no_layout("a dataset.json without cases")
def _(path):
    path.write_text('{"labels": {"0": "background", "1": "femur"}}')
    for folder in ("imagesTr", "labelsTr"):
        (path.parent / folder).rename(path.parent / f"my {folder}")


def make_folder(folder):
    """The cases `sound` and `bad` in Decathlon layout, and what its dataset.json says."""
    for name in ("sound", "bad"):
        nifti(folder / f"imagesTr/{name}.nii.gz", image_array())
        nifti(folder / f"labelsTr/{name}.nii.gz", mask_array())
    listed = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in ("sound", "bad")]
    return {"labels": {"0": "background", "1": "femur", "2": "patella", "3": "tibia"}, "training": listed}


def make_archives(folder):
    """imagesTr.zip and labelsTr.zip of two cases, as OAIZIB-CM has them."""
    for number in (1, 2):
        for kind, array, suffix in (("images", image_array(number), "_0000"), ("labels", mask_array(), "")):
            path = nifti(folder / "made" / f"oaizib_{number:03d}{suffix}.nii.gz", array)
            with zipfile.ZipFile(folder / f"{kind}Tr.zip", "a") as archive:
                archive.write(path, f"{kind}Tr/{path.name}")


def assert_promised(problems, name, *mentioned):
    """One line: the fault and the remedy of the page, with whatever stands for … there."""
    assert len(problems) == 1, problems
    message, remedy = page_rows()[name]
    assert "\n" not in problems[0]
    for text in (message, remedy):
        assert re.search(".*".join(map(re.escape, text.split("…"))), problems[0]), problems[0]
    assert any(part in problems[0] for part in mentioned), problems[0]


def assert_nothing_half_written(folder):
    assert not [path for path in folder.rglob("*") if ".partial" in path.name]


def imported(output):
    return sorted(json.loads((output / "import.json").read_text(encoding="utf-8"))["cases"])


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_file_is_named_and_the_sound_case_is_not_lost(name, tmp_path):
    pair(tmp_path, "sound")
    pair(tmp_path, "bad")
    FAULTS[name](tmp_path)
    with pytest.raises(ImportProblems) as caught:
        import_pairs(tmp_path, tmp_path / "out")
    assert_promised(caught.value.problems, name, "images/bad", "labels/bad", "bad.nii.gz", "case bad")
    assert imported(tmp_path / "out") == ["sound"]
    assert [path.name for path in (tmp_path / "out").rglob("*.nii.gz")] == ["sound.nii.gz"] * 2
    listed = json.loads((tmp_path / "out/dataset.json").read_text(encoding="utf-8"))["training"]
    assert listed == [{"image": "./imagesTr/sound.nii.gz", "label": "./labelsTr/sound.nii.gz"}]
    assert_nothing_half_written(tmp_path)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_fault_of_a_listed_case_costs_no_other_case(name, tmp_path):
    folder = tmp_path / "data"
    described = make_folder(folder)
    FOLDERS[name](folder, described)
    (folder / "dataset.json").write_text(json.dumps(described))
    entries, own, problems = folder_entries(folder)
    with pytest.raises(ImportProblems) as caught:
        write_cases(tmp_path / "out", entries, own, folder_source(folder), problems, progress=False)
    assert_promised(caught.value.problems, name, f"{folder}/", "labelsTr/bad.nii.gz")
    assert imported(tmp_path / "out") == ["sound"]
    assert_nothing_half_written(tmp_path)


@pytest.mark.parametrize("name", NO_LAYOUT)
def test_a_folder_without_layout_is_named(name, tmp_path):
    make_folder(tmp_path)
    (tmp_path / "dataset.json").write_text('{"labels": {"0": "background", "1": "femur"}}')
    NO_LAYOUT[name](tmp_path / "dataset.json")
    with pytest.raises(DatasetError) as caught:
        folder_entries(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: 1 problem(s)")
    assert_promised(caught.value.problems, name, "dataset.json")


def test_all_faults_come_at_once(tmp_path):
    for name in ("a", "b", "sound"):
        pair(tmp_path, name)
    cut(tmp_path / "images/a.nii.gz")
    (tmp_path / "labels/b.nii.gz").write_bytes(b"")
    nifti(tmp_path / "images/c.nii.gz", image_array())
    with pytest.raises(ImportProblems, match=r"3 problem\(s\).*1 sound case") as caught:
        import_pairs(tmp_path, tmp_path / "out")
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_bad_archive_is_named(name, tmp_path):
    make_archives(tmp_path)
    ARCHIVES[name](tmp_path / "imagesTr.zip")
    found, problems = find_entries([1, 2], tmp_path / "out", tmp_path)
    with pytest.raises(ImportProblems) as caught:
        write_cases(tmp_path / "out", found, LABELS, SOURCE, problems, progress=False)
    assert_promised(caught.value.problems, name, "imagesTr.zip")
    single = name in (
        "a damaged archive entry",
        "an archive entry of an implausible size",
        "an archive without the case",
        "two files of a case in an archive",
    )
    assert imported(tmp_path / "out") == ["oaizib_001"] if single else not (tmp_path / "out").exists()
    assert_nothing_half_written(tmp_path)
    assert not list(tmp_path.parent.rglob("outside*"))


def test_faults_of_several_archives_come_at_once(tmp_path):
    """And a path that occurs twice in one: which of the two is meant is not known."""
    make_archives(tmp_path)
    with zipfile.ZipFile(tmp_path / "labelsTr.zip", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("labelsTr/oaizib_001.nii.gz", b"another")
    found, (line,) = find_entries([1, 2], tmp_path / "out", tmp_path)
    assert list(found) == ["oaizib_002"]
    assert "labelsTr.zip holds 2 files oaizib_001.nii.gz (labelsTr/oaizib_001.nii.gz and labelsTr/oaizib_001" in line
    (tmp_path / "imagesTr.zip").unlink()
    (tmp_path / "labelsTr.zip").write_bytes(b"<html>404</html>")
    found, problems = find_entries([1, 405], tmp_path / "out", tmp_path)
    assert not found
    expected = (
        "imagesTr.zip: there is no",
        "labelsTr.zip: is not a valid",
        "imagesTs.zip: there",
        "labelsTs.zip: there",
    )
    assert len(problems) == 4
    assert all(text in line for text, line in zip(expected, problems, strict=True))


def test_cases_named_like_channels_are_cases(tmp_path):
    """With label maps of their own; and an image without one is no channel where no image is numbered 0000."""
    for name in ("a", "a_0000", "a_0001", "b", "c_0001"):
        pair(tmp_path, name)
    nifti(tmp_path / "images/b_0001.nii.gz", image_array())
    with pytest.raises(ImportProblems, match=r"b_0001.nii.gz: has no label map in") as caught:
        import_pairs(tmp_path, tmp_path / "out")
    assert len(caught.value.problems) == 1
    assert imported(tmp_path / "out") == ["a", "a_0000", "a_0001", "b", "c_0001"]


def test_a_full_disk_is_named_and_the_import_goes_on_later(tmp_path, monkeypatch):
    for number, name in enumerate("abc"):
        pair(tmp_path, name, image_array(number))

    def full(path, array, affine, write=write_nifti):
        if np.array_equal(array, image_array(1)):
            with files.atomic(path) as temporary:
                temporary.write_bytes(b"half")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, array, affine)

    monkeypatch.setattr("shapeloss.importers.writer.write_nifti", full)
    with pytest.raises(ImportProblems) as caught:
        import_pairs(tmp_path, tmp_path / "out")
    assert_promised(caught.value.problems, "a full disk", "out/imagesTr/b.nii.gz")
    assert imported(tmp_path / "out") == ["a"]
    assert_nothing_half_written(tmp_path)
    monkeypatch.undo()
    before = (tmp_path / "out/imagesTr/a.nii.gz").stat().st_mtime_ns
    assert sorted(import_pairs(tmp_path, tmp_path / "out")["cases"]) == ["a", "b", "c"]
    assert (tmp_path / "out/imagesTr/a.nii.gz").stat().st_mtime_ns == before


def test_the_second_file_of_a_case_that_fails_takes_the_first_with_it(tmp_path, monkeypatch):
    """And the same command goes on, though nothing was written yet when the disk was full."""
    pair(tmp_path, "a")

    def full(path, array, affine, write=write_nifti):
        if path.parent.name == "labelsTr":
            with files.atomic(path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, array, affine)

    monkeypatch.setattr("shapeloss.importers.writer.write_nifti", full)
    with pytest.raises(ImportProblems) as caught:
        import_pairs(tmp_path, tmp_path / "out")
    assert_promised(caught.value.problems, "a full disk", "out/labelsTr/a.nii.gz")
    assert not list((tmp_path / "out").rglob("*.nii.gz"))
    monkeypatch.undo()
    assert sorted(import_pairs(tmp_path, tmp_path / "out")["cases"]) == ["a"]


def test_a_case_that_cannot_be_written_anew_stays_as_it_was(tmp_path, monkeypatch):
    for name in ("a", "b"):
        pair(tmp_path, name)
    import_pairs(tmp_path, tmp_path / "out")
    before = everything(tmp_path / "out")[1:]
    pair(tmp_path, "b", image_array(1))

    def full(path, array, affine, write=write_nifti):
        if path.parent.name == "labelsTr":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, array, affine)

    monkeypatch.setattr("shapeloss.importers.writer.write_nifti", full)
    with pytest.raises(ImportProblems, match="2 sound case") as caught:
        import_pairs(tmp_path, tmp_path / "out")
    assert_promised(caught.value.problems, "a full disk", "out/labelsTr/b.nii.gz")
    after = everything(tmp_path / "out")[1:]
    assert [seen for seen in after if seen[0].is_file()] == [seen for seen in before if seen[0].is_file()]
    (tmp_path / "out/imagesTr/b.nii.gz").write_bytes(b"spoiled")  # it is not what was imported: nothing is kept
    with pytest.raises(ImportProblems, match="1 sound case"):
        import_pairs(tmp_path, tmp_path / "out")
    assert imported(tmp_path / "out") == ["a"]
    monkeypatch.undo()
    import_pairs(tmp_path, tmp_path / "out")
    assert np.array_equal(read_volume(tmp_path / "out/imagesTr/b.nii.gz").array, image_array(1))


def test_a_file_that_cannot_be_replaced_takes_the_other_with_it(tmp_path):
    for name in ("a", "b"):
        pair(tmp_path, name)
    import_pairs(tmp_path, tmp_path / "out", "a")
    (tmp_path / "out/labelsTr/b.nii.gz").mkdir()
    with pytest.raises(ImportProblems, match=r"out/labelsTr/b.nii.gz: Is a directory; correct that"):
        import_pairs(tmp_path, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out/imagesTr").iterdir()] == ["a.nii.gz"]
    assert imported(tmp_path / "out") == ["a"]
    assert_nothing_half_written(tmp_path)


def test_no_kill_leaves_a_case_of_two_imports(tmp_path, monkeypatch):
    """Before and after each file that takes its place, the lists name no case with an old and a new file."""
    output, seen = tmp_path / "out", []
    for name in ("a", "b"):
        pair(tmp_path, name)
    import_pairs(tmp_path, output)

    def contents(name="b"):
        return tuple((output / kind / f"{name}.nii.gz").read_bytes() for kind in ("imagesTr", "labelsTr"))

    def look():
        record = imported(output)
        listing = output / "dataset.json"
        described = listing.read_text(encoding="utf-8") if listing.exists() else ""
        seen.append(("b" in record, "labelsTr/b.nii.gz" in described, contents()))

    def replace(source, target, move=os.replace):
        look()
        move(source, target)
        look()

    before = contents()
    pair(tmp_path, "b", image_array(1), np.roll(mask_array(), 1, 0))
    monkeypatch.setattr(os, "replace", replace)
    import_pairs(tmp_path, output)
    mixed = [lists for *lists, files in seen if files not in (before, contents())]
    assert mixed
    assert not any(any(lists) for lists in mixed)
    assert all(files[0] == contents()[0] for in_record, _, files in seen[-2:] if in_record)
    assert seen[-1][:2] == (True, True)


def test_another_folder_of_the_same_name_is_refused(tmp_path):
    """Its cases would stand among those of the first; label maps of another folder are another source too."""
    for place in ("1", "2"):
        pair(tmp_path / place / "knees", "a", image_array(int(place)))
    import_pairs(tmp_path / "1/knees", tmp_path / "out")
    before = everything(tmp_path / "out")
    with pytest.raises(ValueError, match="holds an import of another folder named knees") as caught:
        import_pairs(tmp_path / "2/knees", tmp_path / "out")
    assert_promised([str(caught.value)], "another folder of the same name", "out")
    assert everything(tmp_path / "out") == before
    record = json.loads((tmp_path / "out/import.json").read_text(encoding="utf-8"))
    assert str(tmp_path) not in json.dumps(record)
    del record["place"]  # as earlier versions wrote it: what is not known is no fault
    (tmp_path / "out/import.json").write_text(json.dumps(record))
    assert "place" in import_pairs(tmp_path / "1/knees", tmp_path / "out")
    images = tmp_path / "1/knees/images"
    places = {folder_source(images, "", images.parent / masks).place for masks in ("labels", "others")}
    assert len(places) == 2


def test_two_imports_into_one_folder_come_one_after_the_other(tmp_path, monkeypatch, capsys):
    """The second would sweep away what the first is writing, and each would write a record without the other's case."""
    pair(tmp_path, "a")
    pair(tmp_path, "b")
    other = threading.Thread(target=import_pairs, args=(tmp_path, tmp_path / "out", "b"))
    came = threading.Event()

    def slow(path, array, affine, write=write_nifti):
        if threading.current_thread() is other:
            came.set()
        with files.atomic(path) as temporary:
            write(temporary, array, affine)
            if not other.ident:
                other.start()
                assert not came.wait(0.5)

    monkeypatch.setattr("shapeloss.importers.writer.write_nifti", slow)
    import_pairs(tmp_path, tmp_path / "out", "a")
    other.join()
    assert imported(tmp_path / "out") == ["a", "b"]
    assert f"another import writes into {tmp_path / 'out'}; waiting until it ends" in capsys.readouterr().out
    assert_nothing_half_written(tmp_path)


def test_a_folder_where_no_lock_can_be_had_is_verified_all_the_same(tmp_path, monkeypatch):
    pair(tmp_path, "a")
    import_pairs(tmp_path, tmp_path / "out")

    def refuse(path, waiting):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr("shapeloss._files.locked", refuse)
    assert list(import_pairs(tmp_path, tmp_path / "out")["cases"]) == ["a"]


def test_what_a_killed_import_left_is_swept(tmp_path):
    pair(tmp_path, "a")
    import_pairs(tmp_path, tmp_path / "out")
    for left in (tmp_path / "out/.partial-x.json", tmp_path / "out/imagesTr/.partial-y.nii.gz"):
        left.write_bytes(b"half")
    import_pairs(tmp_path, tmp_path / "out")
    assert_nothing_half_written(tmp_path)


def test_whatever_one_case_raises_the_others_are_imported(tmp_path):
    pair(tmp_path, "sound")

    def broken():
        raise RuntimeError("what no one\nthought of")

    entries, _ = pair_entries(tmp_path / "images", tmp_path / "labels")
    with pytest.raises(ImportProblems) as caught:
        write_cases(
            tmp_path / "out", {"bad": Entry("k", broken), **entries}, LABELS, folder_source(tmp_path), progress=False
        )
    (line,) = caught.value.problems
    assert line.startswith("case bad: it cannot be imported (RuntimeError: what no one")
    assert "\n" not in line
    assert imported(tmp_path / "out") == ["sound"]


def test_a_disk_that_fails_is_named_with_a_remedy_that_helps(tmp_path, monkeypatch):
    output = tmp_path / "out"
    at_output = files.os_error_message(OSError(errno.ENOSPC, "full"), output)
    assert f"the disk is full at {output}; free space" in at_output
    read_only = files.os_error_message(OSError(errno.EROFS, "Read-only file system", str(output)), output)
    assert "choose a folder on another disk" in read_only
    assert "same command again" not in read_only
    scratch = tmp_path / "scratch"
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    class Full(io.BytesIO):
        def read(self, size=-1):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    member = Member("a.zip", "a.nii.gz", 10, "key", lambda: Full(b"x"))
    with pytest.raises(OSError, match="No space") as caught:
        member.extract(scratch / "i" / "a.nii.gz")
    assert f"the disk is full at {scratch}; free space there, or set TMPDIR" in files.os_error_message(
        caught.value, output
    )


def test_a_metaimage_with_fields_of_nifti_is_sound(tmp_path):
    source = nifti(tmp_path / "x.nii.gz", image_array())
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(source)), str(tmp_path / "k.mhd"))
    assert "pixdim[1] = " in (tmp_path / "k.mhd").read_text(encoding="latin-1")
    assert np.array_equal(read_volume(tmp_path / "k.mhd").array, image_array())


def test_a_label_that_nobody_declared_is_a_fault_unless_labels_were_chosen(tmp_path):
    for name in ("a", "b"):
        nifti(tmp_path / f"data/imagesTr/{name}.nii.gz", image_array())
        nifti(tmp_path / f"data/labelsTr/{name}.nii.gz", mask_array() if name == "a" else mask_array() * np.uint8(2))
    nifti(tmp_path / "data/imagesTr/alone_0000.nii.gz", image_array())
    described = {"labels": {"0": "background", "1": "femur", "2": "meniscus", "3": "tibia"}}
    (tmp_path / "data/dataset.json").write_text(json.dumps(described))
    entries, own, problems = folder_entries(tmp_path / "data")
    source = folder_source(tmp_path / "data")
    with pytest.raises(ImportProblems) as caught:
        write_cases(tmp_path / "out", entries, choose_labels("", "", None, own), source, problems, progress=False)
    lines = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 2
    assert "alone_0000.nii.gz: has no label map in" in lines
    assert "has label(s) 6 outside the declared 0 background, 1 femur" in lines
    chosen = choose_labels("2:meniscus", "6:2", None, own)
    with pytest.raises(ImportProblems, match="none of the labels 2 meniscus occurs, only 0, 1, 3"):
        write_cases(tmp_path / "other", entries, chosen, source, progress=False)
    assert imported(tmp_path / "other") == ["b"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.text(max_size=5) | st.just("\udcff"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["image", "label", "side", "key", "name", "0", "a", "cases", "image_sha256"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(
    labels=st.one_of(st.just({"0": "background", "1": "femur"}), JSON),
    training=st.one_of(st.lists(st.fixed_dictionaries({"image": st.text(), "label": st.text()}), max_size=2), JSON),
    cases=JSON,
    whole=st.one_of(st.none(), st.none(), JSON),
)
def test_no_json_is_answered_by_anything_but_a_message(labels, training, cases, whole):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "data"
        folder.mkdir()
        described = {"labels": labels, "training": training} if whole is None else whole
        (folder / "dataset.json").write_text(json.dumps(described))
        record = {"source": {"name": "x"}, "options": "", "labels": {"1": "femur"}, "cases": cases}
        (folder / "import.json").write_text(json.dumps(record if whole is None else whole))
        for read in (
            lambda: write_cases(place / Path("out"), *folder_entries(folder)[:2], folder_source(folder), (), False),
            lambda: [check_case(folder, name, *pair, {1: "femur"}) for name, pair in find_cases(folder)[1].items()],
            lambda: read_sides(folder),
            lambda: write_cases(folder, {}, LABELS, folder_source(folder), progress=False),
        ):
            try:
                read()
            except (DatasetError, ImportProblems) as error:
                assert len(str(error).splitlines()) == 1 + len(error.problems)  # noqa: PT017 - a sound outcome
            except ValueError as error:
                assert "import into a new folder" in str(error)  # noqa: PT017


@settings(max_examples=150, deadline=None)
@given(
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6),
    keep=st.one_of(st.none(), st.floats(0, 1)),
    noise=st.one_of(st.none(), st.none(), st.binary(max_size=200)),
)
def test_no_zip_is_answered_by_anything_but_a_message(flips, keep, noise):
    sound = io.BytesIO()
    with zipfile.ZipFile(sound, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("imagesTr/a.nii.gz", b"abc" * 30)
    content = bytearray(sound.getvalue() if noise is None else noise + sound.getvalue()[-60:])
    for position, value in flips:
        content[position % len(content)] = value
    content = content[: None if keep is None else int(keep * len(content))]
    with tempfile.TemporaryDirectory() as place:
        try:
            for number, member in enumerate(read_zip(io.BytesIO(content), "a.zip")):
                member.extract(Path(place) / str(number))
        except VolumeError as error:
            assert str(error).startswith("a.zip: ")  # noqa: PT017 - a message is one of two sound outcomes
        assert not list(Path(place).glob(".partial*"))


@settings(max_examples=150, deadline=None)
@given(
    flips=st.lists(
        st.tuples(
            st.integers(0, 1600) | st.sampled_from([*range(124, 137), 156, *range(1148, 1161), 1180]),  # sizes, kinds
            st.integers(0, 255) | st.sampled_from(list(b"01234567LKxgSDN")),
        ),
        max_size=6,
    ),
    keep=st.one_of(st.none(), st.floats(0, 1)),
    noise=st.one_of(st.none(), st.none(), st.binary(max_size=600)),
    mended=st.booleans(),
)
def test_no_tar_is_answered_by_anything_but_a_message(flips, keep, noise, mended):
    """Three blocks of 512 bytes: a header, the data, and the header of a second file without data."""
    sound = io.BytesIO()
    with tarfile.open(fileobj=sound, mode="w") as archive:
        for name, data in (("task/a.nii.gz", b"abc" * 30), ("task/dataset.json", b"")):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    content = bytearray(sound.getvalue()[:3072] if noise is None else noise + sound.getvalue()[:1024])
    for position, value in flips:
        content[position % len(content)] = value
    for header in (0, 1024) if mended and noise is None else ():  # else the checksum answers each time
        content[header + 148 : header + 156] = b" " * 8
        content[header + 148 : header + 156] = b"%06o\0 " % sum(content[header : header + 512])
    content = content[: None if keep is None else int(keep * len(content))]
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "a.tar"
        path.write_bytes(content)
        try:
            for number, member in enumerate(read_tar(path, "digest").values()):
                member.extract(Path(place) / str(number))
        except VolumeError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017 - a message is one of two sound outcomes
        assert not list(Path(place).glob(".partial*"))


NO_FAULTS = {}


def no_fault(name):
    """What looks like a fault and is none: the page says what happens, the function tests it."""
    return lambda test: NO_FAULTS.setdefault(name, test)


def everything(folder):
    """All that can be seen of a folder but its lock, which says who held it last: names, kinds, times, contents."""
    paths = [folder, *sorted(path for path in folder.rglob("*") if path.name != ".import.lock")]
    return [(path, path.lstat()[:3], path.lstat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in paths]


@no_fault("a name with spaces or letters beyond ASCII")
def _(folder):
    source, name = folder / "bilder été", "Fall 1 – Größe 膝"
    pair(source, name)
    assert list(import_pairs(source, folder / "ausgabe 膝")["cases"]) == [name]
    written = [folder / f"ausgabe 膝/{part}/{name}.nii.gz" for part in ("imagesTr", "labelsTr")]
    assert np.array_equal(read_volume(written[0]).array, image_array())
    assert np.array_equal(read_labels(written[1]).array > 0, mask_array() > 0)


@no_fault("files that are no volumes")
def _(folder):
    pair(folder, "a")
    for name in (".DS_Store", "dataset.json", "notes.txt", "a.npz"):
        (folder / "images" / name).touch()
    notes = []
    entries, problems = pair_entries(folder / "images", folder / "labels", notes)
    assert (list(entries), problems) == (["a"], [])
    assert len(notes) == 1
    assert notes[0].endswith("not used (they are no volumes by their names): a.npz, dataset.json, notes.txt")


@no_fault("labels with a scale factor")
def _(folder):
    raw = bytearray(nibabel.Nifti1Image(mask_array() * np.uint8(50), AFFINE).to_bytes())
    raw[112:120] = np.float32([1 / 50, 0]).tobytes()
    (folder / "a.nii").write_bytes(raw)
    assert np.array_equal(read_labels(folder / "a.nii").array, mask_array())


@no_fault("letters beyond ASCII in a header")
def _(folder):
    image = SimpleITK.GetImageFromArray(mask_array())
    image.SetMetaData("0008|0080", "Århus 学")
    SimpleITK.WriteImage(image, str(folder / "a.mha"))
    assert np.array_equal(read_labels(folder / "a.mha").array, mask_array().transpose())


@no_fault("one grid as a matrix and as a quaternion")
def _(folder):
    turn = np.diag([-1.0, -1.0, 1.0])  # by 180°, where a quaternion in float32 is least exact
    tilt = np.array([[1, -5e-4, 0], [5e-4, 1, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ tilt @ AFFINE[:3, :3]
    for part, array in (("images", image_array()), ("labels", mask_array())):
        written = nibabel.Nifti1Image(array, affine if part == "images" else None)
        written.set_qform(affine, 1)
        (folder / part).mkdir()
        nibabel.save(written, folder / part / "a.nii.gz")
    assert list(import_pairs(folder, folder / "out")["cases"]) == ["a"]


@no_fault("a source that cannot be written")
def _(folder):
    """The superuser may write whatever its permissions are, so nothing in it must have changed either."""
    source = folder / "source"
    pair(source, "a")
    for ending, array in (("images/b.nrrd", image_array()), ("labels/b.mhd", mask_array())):
        itk(source / ending, array, (0.8, 0.6, 0, -0.6, 0.8, 0, 0, 0, 1))
    for path in (source, *source.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = everything(source)
    record = import_pairs(source, folder / "out")
    after = everything(source)
    for path in (source, *(path for path in source.rglob("*") if path.is_dir())):
        path.chmod(0o755)
    assert after == before
    assert sorted(record["cases"]) == ["a", "b"]
    assert all(path.stat().st_mode & 0o200 for path in (folder / "out").rglob("*"))


@pytest.mark.parametrize("name", NO_FAULTS)
def test_what_is_no_fault(name, tmp_path):
    NO_FAULTS[name](tmp_path)


def test_the_page_lists_these_faults_and_no_others():
    rows = page_rows("Volumes", "Masks", "Folders", "Archives")
    assert set(rows) == {*FAULTS, *FOLDERS, *NO_LAYOUT, *ARCHIVES, "a full disk", "another folder of the same name"}
    section = PAGE.read_text(encoding="utf-8").partition("\n## No faults\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| ([^|]+) \| [^|]+ \|$", section, re.MULTILINE)) - {"Found", "---"} == {*NO_FAULTS}


def huge(folder):
    """Small files whose headers declare gigabytes, in each format."""
    image = image_array()
    plain = nifti(folder / "huge.nii", image)
    data = bytearray(plain.read_bytes())
    data[40:48] = struct.pack("<4h", 3, 1024, 1024, 1024)
    data[70:74] = struct.pack("<2h", 64, 64)  # float64: 8 GiB
    plain.write_bytes(data)
    (folder / "huge.nii.gz").write_bytes(gzip.compress(data))
    for ending, old, new in (
        (".nrrd", b"sizes: 4 6 5", b"sizes: 1024 1024 1024"),
        (".mha", b"4 6 5", b"1024 1024 1024"),
    ):
        for compressed in (True, False):
            path = folder / f"huge{compressed}{ending}"
            SimpleITK.WriteImage(
                SimpleITK.GetImageFromArray(image.transpose().astype(np.float64)), str(path), compressed
            )
            path.write_bytes(path.read_bytes().replace(old, new))
    return sorted(folder.iterdir())


def test_a_header_that_declares_gigabytes_takes_none(tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in huge(tmp_path):
        with pytest.raises(VolumeError, match=r"again|plausible"):
            read_volume(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory):
    """One sound file in each format, as bytes, with how long its header is."""
    folder = tmp_path_factory.mktemp("fuzz")
    found = {}
    for ending in (".nii", ".nii.gz"):
        found[ending] = nifti(folder / f"volume{ending}", image_array()).read_bytes(), 352
    for ending in (".nrrd", ".mha", ".mhd"):
        found[ending] = itk(folder / f"volume{ending}", mask_array()).read_bytes(), 500
    return found


def answer(read, path):
    """The message of a reader, empty if it took the file."""
    try:
        volume = read(path)
    except VolumeError as error:
        return str(error)
    assert volume.array.ndim == 3
    assert np.isfinite(volume.affine).all()
    return ""


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ending=st.sampled_from([".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"]),
    flips=st.lists(st.tuples(st.integers(0, 499), st.integers(0, 255)), max_size=6),
    keep=st.one_of(st.none(), st.floats(0, 1)),
    noise=st.one_of(st.none(), st.none(), st.binary(max_size=600)),
    inside=st.booleans(),
)
def test_no_bytes_are_answered_by_anything_but_a_message(sound_files, ending, flips, keep, noise, inside):
    data, header = sound_files[ending]
    content = bytearray(gzip.decompress(data) if ending == ".nii.gz" and inside else data)
    for position, value in flips:
        content[min(position, header - 1) % len(content)] = value
    if noise is not None:
        content = bytearray(noise)
    if keep is not None:
        content = content[: int(keep * len(content))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"volume{ending}"
        path.write_bytes(gzip.compress(content) if ending == ".nii.gz" and inside else content)
        if ending == ".mhd":
            (Path(folder) / "volume.raw").write_bytes(mask_array().tobytes("F"))
        for read in (read_volume, read_labels):
            message = answer(read, path)
            assert not message or (str(path) in message and "\n" not in message)
