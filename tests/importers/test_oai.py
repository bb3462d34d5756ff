"""OAI DICOM: series found by their headers, checked, placed in the world, paired with label maps, mirrored and back."""

import gzip
import json
import os
import re
import struct
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from helpers.dicom import (
    COLUMNS,
    PARTICIPANT,
    PIXEL,
    ROWS,
    SAGITTAL,
    SECRETS,
    SLICES,
    STEP,
    knee_image,
    mask_array,
    positions,
    series_folder,
    write_mask,
    write_series,
    write_slice,
)
from helpers.volumes import page_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from shapeloss.cli import main as cli
from shapeloss.data.headers import VolumeError
from shapeloss.data.manifest import prepare, read_sides
from shapeloss.data.poses import check_orientation, pose_fault
from shapeloss.data.volume import Volume, grid_difference, read_labels, read_volume
from shapeloss.importers import dicom
from shapeloss.importers.dicom import check_slices, read_slice, read_stack
from shapeloss.importers.oai import LABELS, SOURCE, OaiKnee, find_entries, parse_knee, read_participants
from shapeloss.importers.writer import ImportProblems, write_cases
from shapeloss.replication.profile import Experiment
from shapeloss.replication.scores import score_runs
from shapeloss.runs.predict_folder import load_run, predict_files
from shapeloss.runs.run import train


@pytest.fixture(scope="module", autouse=True)
def _written_alike(tmp_path_factory):
    """Once it has read a slice, GDCM adds fields of rescaling to all that it writes: it reads one before all tests."""
    path = tmp_path_factory.mktemp("first") / "slice"
    write_slice(path, knee_image()[:, :, 0], [0, 0, 0])
    read_slice(path)


def turned(degrees):
    """SAGITTAL, turned about the axis through the head."""
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    return SAGITTAL @ turn.T


def import_oai(tree, output, masks=None, **options):
    entries, problems = find_entries(tree, masks, progress=False, **options)
    return write_cases(output, entries, LABELS, SOURCE, problems, progress=False)


@pytest.mark.parametrize("degrees", [0, 8, -35])
def test_voxels_lie_where_the_headers_say(tmp_path, degrees):
    directions = turned(degrees)
    image = knee_image()
    write_series(tmp_path, image, directions=directions)
    slices = [read_slice(path) for path in sorted(tmp_path.iterdir())]
    assert check_slices(slices) == []
    volume = read_stack(slices)
    assert np.array_equal(volume.array, image)
    assert volume.spacing == (PIXEL, PIXEL, STEP)
    # by hand: columns, rows and slices from the first voxel; LPS to RAS turns the signs of x and y
    voxel = np.array([5, 7, 4])
    lps = positions(directions)[4] + 5 * PIXEL * directions[0] + 7 * PIXEL * directions[1]
    assert volume.affine @ [*voxel, 1] == pytest.approx([-lps[0], -lps[1], lps[2], 1], abs=1e-5)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path)))
    theirs = reader.Execute()
    index = theirs.TransformPhysicalPointToIndex(lps.tolist())
    assert theirs[index] == volume.array[tuple(voxel)]
    assert theirs.TransformIndexToPhysicalPoint(index) == pytest.approx(lps, abs=1e-5)


def test_steps_that_vary_by_rounding_are_one_volume(tmp_path):
    jitter = np.random.default_rng(0).choice([-1e-4, 0, 1e-4], SLICES)
    places = positions() + np.outer(jitter, np.cross(*SAGITTAL))
    write_series(tmp_path, places=places)
    slices = [read_slice(path) for path in tmp_path.iterdir()]
    assert check_slices(slices) == []
    assert read_stack(slices).spacing[2] == pytest.approx(STEP, abs=1e-4)


@pytest.mark.parametrize(
    ("compressor", "syntax"), [("JPEG", b"1.2.840.10008.1.2.4.70"), ("JPEG2000", b"1.2.840.10008.1.2.4.90")]
)
def test_compressed_slices(tmp_path, compressor, syntax):
    image = knee_image()
    write_series(tmp_path, image, compressor=compressor)
    assert all(syntax in path.read_bytes() for path in tmp_path.iterdir())
    assert np.array_equal(read_stack([read_slice(path) for path in tmp_path.iterdir()]).array, image)


def rewrite(path, old, new):
    """Change bytes of a header that no writer would write so."""
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))


def test_values_are_rescaled(tmp_path):
    image = knee_image()
    write_series(tmp_path, image)
    for path in tmp_path.iterdir():
        rewrite(path, b"\x28\x00\x52\x10\x02\x00\x00\x000 ", b"\x28\x00\x52\x10\x02\x00\x00\x00-5")
        rewrite(path, b"\x28\x00\x53\x10\x02\x00\x00\x001 ", b"\x28\x00\x53\x10\x02\x00\x00\x002 ")
    found = read_stack([read_slice(path) for path in tmp_path.iterdir()]).array
    assert np.array_equal(found, 2 * image.astype(int) - 5)


@pytest.mark.parametrize(
    ("text", "knee"),
    [
        ("9000099_V00_LEFT", OaiKnee("9000099", "00m", "LEFT")),
        ("9000099-R-24m", OaiKnee("9000099", "24m", "RIGHT")),
        ("9000099.segmentation_masks", OaiKnee("9000099")),
        ("V06/9000099/left", OaiKnee("9000099", "48m", "LEFT")),
        ("0.E.1/9000099/20050107", OaiKnee("9000099", "00m")),
        ("36m/5.C.2/9000099", OaiKnee("9000099", "36m")),
        ("3.C.1/9000099", OaiKnee("9000099", "24m")),
        ("19000099_left_right", OaiKnee("")),
        ("90000991", OaiKnee("")),
    ],
)
def test_names_of_knees(text, knee):
    assert parse_knee(text) == knee


def test_import(tree, tmp_path):
    record = import_oai(tree / "oai", tmp_path / "out", tree / "masks")
    name = "9000099_00m_LEFT"
    assert list(record["cases"]) == [name]
    case = record["cases"][name]
    assert {key: case[key] for key in ("participant", "visit", "side", "orientation")} == {
        "participant": PARTICIPANT, "visit": "00m", "side": "left", "orientation": "PIR"
    }  # fmt: skip
    mask = mask_array()
    assert case["label_counts"] == {
        "femur": int(np.isin(mask, (1, 7)).sum()),
        "tibia": int(np.isin(mask, (3, 8)).sum()),
        "patella": int(np.isin(mask, (5, 9)).sum()),
    }
    assert len(case["imported_from"]) == SLICES + 1
    image = read_volume(tmp_path / "out" / case["image"])
    labels = read_labels(tmp_path / "out" / case["label"])
    assert np.array_equal(image.array, knee_image())
    assert grid_difference(image, labels) == ""
    expected = np.select([np.isin(mask, (1, 7)), np.isin(mask, (3, 8)), np.isin(mask, (5, 9))], [1, 2, 3])
    assert np.array_equal(labels.array, expected)

    def times():  # the lock says who held it last
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.name != ".import.lock"}

    before = times()
    import_oai(tree / "oai", tmp_path / "out", tree / "masks")
    assert times() == before


def test_personal_fields_stay_where_they_are(tree, tmp_path):
    named = write_series(tree / "oai/00m/9000296/20050107", **{"0010|0020": "9000296"})
    write_mask(tree / "masks/9000296_V00_LEFT_SECRET_19401231.nrrd", named)
    import_oai(tree / "oai", tmp_path / "out", tree / "masks")
    record = json.loads((tmp_path / "out/import.json").read_text(encoding="utf-8"))
    assert list(record["cases"]["9000296_00m_LEFT"]["imported_from"])[-2:] == ["slice 010", "label map.nrrd"]
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            for secret in ("SECRET", *SECRETS.values()):
                assert secret.encode() not in data


@pytest.mark.parametrize("ending", [".mhd", ".mha", ".nrrd", ".nii.gz"])
def test_label_maps_in_each_format_and_in_another_order_of_axes(tmp_path, ending):
    """The label map's axes are flipped and swapped, its voxels are the same."""
    folder = write_series(series_folder(tmp_path / "oai"), directions=turned(20))
    mask = write_mask(tmp_path / f"masks/9000099{ending}", folder)
    image = SimpleITK.PermuteAxes(SimpleITK.Flip(SimpleITK.ReadImage(str(mask)), (True, False, True)), (2, 0, 1))
    for path in (tmp_path / "masks").iterdir():
        path.unlink()
    SimpleITK.WriteImage(image, str(mask))
    record = import_oai(tmp_path / "oai", tmp_path / "out", tmp_path / "masks")
    (case,) = record["cases"].values()
    labels = read_labels(tmp_path / "out" / case["label"]).array
    assert np.array_equal(labels > 0, ~np.isin(mask_array(), (0, 2)))


def test_pairs_by_participant_side_and_visit(tmp_path):
    knees = [
        ("9000099", "00m", "LEFT"),
        ("9000099", "00m", "RIGHT"),
        ("9000099", "24m", "LEFT"),
        ("9000296", "00m", "LEFT"),
    ]
    for number, (participant, visit, side) in enumerate(knees):
        folder = series_folder(tmp_path / "oai", participant, visit, f"1000{number}")
        write_series(folder, knee_image(number), side=side, uid=f"1.2.{number}", **{"0010|0020": participant})
        if number != 2:
            mask = mask_array()
            mask[0, 0, 0] = 10 + number
            name = {3: "9000296.segmentation_masks.mhd"}.get(number, f"{participant}_{side[0]}_V00.nii.gz")
            write_mask(tmp_path / "masks" / name, folder, mask)
    record = import_oai(tmp_path / "oai", tmp_path / "out", tmp_path / "masks")
    assert sorted(record["cases"]) == ["9000099_00m_LEFT", "9000099_00m_RIGHT", "9000296_00m_LEFT"]
    for number, name in enumerate(("9000099_00m_LEFT", "9000099_00m_RIGHT", "", "9000296_00m_LEFT")):
        if name:
            assert np.array_equal(read_volume(tmp_path / f"out/imagesTr/{name}.nii.gz").array, knee_image(number))
    only = find_entries(tmp_path / "oai", participants=["9000296"], progress=False)[0]
    assert list(only) == ["9000296_00m_LEFT"]
    assert list(find_entries(tmp_path / "oai", visit="24m", progress=False)[0]) == ["9000099_24m_LEFT"]
    missing = find_entries(tmp_path / "oai", participants=["9000296", "9111111"], progress=False)[1]
    assert len(missing) == 1
    assert "no DESS of participant 9111111" in missing[0]
    with pytest.raises(ValueError, match="no visit '7m'; choose one of 00m"):
        find_entries(tmp_path / "oai", visit="7m", progress=False)


@pytest.mark.parametrize(
    "text",
    [
        "id\n9000099\n9000296, left\n",
        "\ufeffV00ID;side\r\n\r\n9000099;1\r\n9000296;2\r\n",
        "# of 2024-05-01, 2 knees\nM\u00e4rz\n9000099 9000296",
    ],
)
def test_participants_from_a_file(tmp_path, text):
    (tmp_path / "list.txt").write_bytes(text.encode())
    assert read_participants(tmp_path / "list.txt") == ["9000099", "9000296"]
    (tmp_path / "list.txt").write_text("none")
    with pytest.raises(ValueError, match=r"list.txt: has no participant"):
        read_participants(tmp_path / "list.txt")


LISTS = {
    "a file of participants that is missing": (None, [""]),
    "a file of participants in UTF-16": ("9000099\n9000296\n".encode("utf-16"), ["line 1 "]),
    "a mistyped participant": (
        b"id\n9000099\n90000O2\n\n900002\n9000296 90002l6\n9000297\n90000991\n",
        ["line 3 ", "line 5 ", "line 6 ", "line 8 "],
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_bad_file_of_participants_is_named_with_all_its_bad_lines(name, tmp_path):
    path = tmp_path / "list.txt"
    content, places = LISTS[name]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"list\.txt") as caught:
        read_participants(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(places), lines
    for line, place in zip(lines, places, strict=True):
        assert line.startswith(f"{path}: {place}")
        for text in page_rows("DICOM")[name]:
            assert re.search(".*".join(map(re.escape, text.split("…"))), line), line


@pytest.mark.parametrize("content", ["9000099\n".encode("utf-16-le"), "9000099\nM\u00e4rz\n".encode("latin-1")])
def test_a_file_of_participants_in_another_coding_is_told_as_such(tmp_path, content):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"list.txt: line {2 if b'M' in content else 1} is not text in UTF-8; save"):
        read_participants(tmp_path / "list.txt")


FAULTS = {}


def fault(name):
    """A function that spoils the series or the label map of participant 9000296; it may return what is asked for."""
    return lambda make: FAULTS.setdefault(name, make)


@fault("a missing slice")
def _(series, masks):
    (series / "004").unlink()


@fault("a duplicated slice")
def _(series, masks):
    (series / "copy").write_bytes((series / "004").read_bytes())


@fault("two echoes")
def _(series, masks):
    write_echoes(series, two_echoes(), **{"0010|0020": "9000296"})
    for path in series.glob("[01][0-9][0-9]"):
        path.unlink()


@fault("images of two kinds at one place")
def _(series, masks):
    for k, place in enumerate(positions()):
        spoil(series, f"phase{k}", place=place, **{"0008|0008": "ORIGINAL\\PRIMARY\\P"})


@fault("a label map without a pose")
def _(series, masks):
    bare_mask(masks / "9000296_LEFT.nii.gz", (2, 0, 1))


@fault("a foreign slice")
def _(series, masks):
    write_slice(series / "foreign", knee_image()[:, :, 0], [50, 0, 0], **{"0020|000e": "1.9", "0010|0020": "9000296"})


def spoil(series, name, plane=None, directions=SAGITTAL, place=None, **tags):
    tags = {"0010|0020": "9000296", **tags}
    plane = knee_image()[:, :, 3] if plane is None else plane
    write_slice(series / name, plane, positions()[3] if place is None else place, directions, **tags)


@fault("a position that is not a number")
def _(series, masks):
    (series / "004").unlink()
    spoil(series, "004", **{"0020|0032": "1e30\\0\\0"})


@fault("a position of NaN")
def _(series, masks):
    rewrite(series / "007", b"\\-20\\30", b"\\nan\\30")


@fault("a slice without voxel size")
def _(series, masks):
    rewrite(series / "007", b"\x28\x00\x30\x00", b"\x28\x00\x33\x00")


@fault("a slice with a voxel size of zero")
def _(series, masks):
    rewrite(series / "007", b".365\\.365", b".365\\.000")


@fault("a slice with a negative voxel size")
def _(series, masks):
    rewrite(series / "007", b".365\\.365", b".365\\-.36")


@fault("a slice whose directions are not at right angles")
def _(series, masks):
    rewrite(series / "007", b"0\\1\\0\\0\\0\\-1", b"0\\1\\0\\0\\1\\-1")


@fault("several slices in one file")
def _(series, masks):
    tags = {"0008|103e": "SAG_3D_DESS_LEFT", "0010|0020": "9000296"}
    image = SimpleITK.GetImageFromArray(np.ones((3, ROWS, COLUMNS), np.uint16))
    for key, value in tags.items():
        image.SetMetaData(key, value)
    SimpleITK.WriteImage(image, str(series / "all.dcm"))


@fault("colour slices")
def _(series, masks):
    (series / "004").unlink()
    colours = SimpleITK.GetImageFromArray(np.ones((1, ROWS, COLUMNS, 3), np.uint8), isVector=True)
    for key, value in (("0008|103e", "SAG_3D_DESS_LEFT"), ("0020|0032", "0\\0\\0"), ("0020|0037", "1\\0\\0\\0\\1\\0")):
        colours.SetMetaData(key, value)
    SimpleITK.WriteImage(colours, str(series / "004.dcm"))
    (series / "004.dcm").rename(series / "004")


@fault("a slice of 0 bytes")
def _(series, masks):
    (series / "001").write_bytes(b"")


@fault("slices missing at an end")
def _(series, masks):
    for path in series.iterdir():
        path.unlink()
    for k, place in enumerate(positions()[:-2]):
        spoil(series, f"{k:03d}", place=place, **{"0020|1002": str(SLICES), "0020|0013": str(k + 1)})


@fault("folder and headers of two participants")
def _(series, masks):
    write_series(series, **{"0010|0020": "9000001"})


@fault("a slice of another participant")
def _(series, masks):
    spoil(series, "extra", **{"0010|0020": "9000001"})


@fault("a slice of another size")
def _(series, masks):
    spoil(series, "extra", np.ones((COLUMNS, ROWS - 2), np.uint16))


@fault("a slice of another orientation")
def _(series, masks):
    spoil(series, "extra", directions=turned(2))


@fault("two series in one folder")
def _(series, masks):
    for k, place in enumerate(positions()[:4]):
        spoil(series, f"other{k}", place=place, **{"0020|000e": "1.9"})


@fault("slices at unequal steps")
def _(series, masks):
    spoil(series, "007", place=positions()[3] + [0.01, 0, 0])


@fault("slices that are shifted")
def _(series, masks):
    spoil(series, "007", place=positions()[3] + [0, 0.01, 0])


@fault("a damaged header")
def _(series, masks):
    (series / "007").write_bytes((series / "007").read_bytes()[:300])


@fault("a header that declares gigabytes")
def _(series, masks):
    rewrite(series / "007", b"OB\0\0\2\0\0\0", b"OB\0\0\2\0\0\xff")


@fault("a slice that is not DICOM")
def _(series, masks):
    (series / "007").write_bytes(b"\xa5" * 200 + (series / "007").read_bytes()[200:])


@fault("no position")
def _(series, masks):
    rewrite(series / "007", b"\x20\x00\x32\x00", b"\x20\x00\x33\x00")


@fault("pixels that cannot be read")
def _(series, masks):
    spoil(series, "007", **{"compressor": "JPEG2000"})
    data = (series / "007").read_bytes()
    middle = data.rindex(b"\xff\x4f\xff\x51")  # where the packed pixels begin
    (series / "007").write_bytes(data[:middle] + bytes(len(data) - middle - 8) + data[-8:])


def damage_jpeg(path):
    """Overwrite 100 bytes amid the packed pixels, as a bad disk does."""
    data = path.read_bytes()
    start = data.rindex(b"\xff\xd8") + 120
    path.write_bytes(data[:start] + b"\x55" * 100 + data[start + 100 :])


@fault("damaged pixels in JPEG")
def _(series, masks):
    spoil(series, "007", **{"compressor": "JPEG"})
    damage_jpeg(series / "007")


@fault("one slice alone")
def _(series, masks):
    for path in sorted(series.iterdir())[1:]:
        path.unlink()


@fault("a knee without side")
def _(series, masks):
    write_series(series, **{"0010|0020": "9000296", "0008|103e": "SAG_3D_DESS"})


@fault("headers of both sides")
def _(series, masks):
    write_series(series, **{"0010|0020": "9000296", "0020|0060": "R"})


@fault("a folder that cannot be read")
def _(series, masks):
    return {"shut": series.parent}


@fault("a folder that is a link out")
def _(series, masks):
    participant = series.parents[1]
    participant.rename(masks.parent / "elsewhere")
    participant.symlink_to(masks.parent / "elsewhere")


@fault("a folder of label maps that is a link out")
def _(series, masks):
    (masks.parent / "elsewhere").mkdir()
    (masks / "9000296_LEFT.nii.gz").rename(masks.parent / "elsewhere/9000296_LEFT.nii.gz")
    (masks / "9000296").symlink_to(masks.parent / "elsewhere")
    return {"participants": [PARTICIPANT, "9000296"]}


@fault("a second DESS of a knee")
def _(series, masks):
    write_series(series.with_name("10009999"), uid="1.8", **{"0010|0020": "9000296"})


@fault("a slice that is a link out")
def _(series, masks):
    (series / "007").rename(masks.parent / "elsewhere")
    (series / "007").symlink_to(masks.parent / "elsewhere")


@fault("a label map without its DESS")
def _(series, masks):
    for path in series.iterdir():
        path.unlink()


@fault("a participant without label map")
def _(series, masks):
    (masks / "9000296_LEFT.nii.gz").unlink()
    return {"participants": [PARTICIPANT, "9000296"]}


@fault("a label map that fits two knees")
def _(series, masks):
    write_series(series.with_name("10009999"), side="RIGHT", uid="1.8", **{"0010|0020": "9000296"})
    (masks / "9000296_LEFT.nii.gz").rename(masks / "9000296.nii.gz")


@fault("two label maps for one knee")
def _(series, masks):
    (masks / "9000296_V00.nii.gz").write_bytes((masks / "9000296_LEFT.nii.gz").read_bytes())


@fault("a label map without participant")
def _(series, masks):
    (masks / "9000296_LEFT.nii.gz").rename(masks / "knee.nii.gz")


@fault("a label map on another grid")
def _(series, masks):
    image = nibabel.load(masks / "9000296_LEFT.nii.gz")
    affine = image.affine.copy()
    affine[0, 3] += 0.35
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), masks / "9000296_LEFT.nii.gz")


def shut_folder(monkeypatch, folder):
    """As if it cannot be read: tests may run as root, who may read all."""
    judge = os.stat

    def refuse(path, *arguments, **options):
        if str(path) == f"{folder}{os.sep}.":
            raise PermissionError(13, "Permission denied", str(path))
        return judge(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", refuse)


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_series_is_named_and_the_sound_case_is_not_lost(name, tree, tmp_path, monkeypatch):
    series = write_series(series_folder(tree / "oai", "9000296"), **{"0010|0020": "9000296"})
    write_mask(tree / "masks/9000296_LEFT.nii.gz", series)
    options = FAULTS[name](series, tree / "masks") or {}
    if folder := options.pop("shut", None):
        shut_folder(monkeypatch, folder)
    with pytest.raises(ImportProblems) as caught:
        import_oai(tree / "oai", tmp_path / "out", tree / "masks", **options)
    assert len(caught.value.problems) == 1, caught.value.problems
    (line,) = caught.value.problems
    for text in page_rows("DICOM")[name]:
        assert re.search(".*".join(map(re.escape, text.split("…"))), line), line
    assert "\n" not in line
    assert "9000296" in line or "knee.nii.gz" in line
    assert "SECRET" not in line
    assert list(json.loads((tmp_path / "out/import.json").read_text(encoding="utf-8"))["cases"]) == ["9000099_00m_LEFT"]


def test_the_page_lists_these_faults_and_no_others():
    assert set(page_rows("DICOM")) == {*FAULTS, *LISTS}


def test_a_folder_without_series(tmp_path):
    (tmp_path / "oai").mkdir()
    (tmp_path / "masks").mkdir()
    assert "holds no DESS" in find_entries(tmp_path / "oai", progress=False)[1][0]
    assert "holds no label map" in find_entries(tmp_path / "oai", tmp_path / "masks", progress=False)[1][0]
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_entries(tmp_path / "nowhere", progress=False)
    series = write_series(tmp_path / "oai/series", **{"0010|0020": "MILLER^19401231"})
    (line,) = find_entries(tmp_path / "oai", progress=False)[1]
    assert str(series) in line
    assert "participant of the OAI" in line
    assert "MILLER" not in line


def problems_of(tree, masks=None, **options):
    return find_entries(tree, masks, progress=False, **options)[1]


def numbered_series(folder):
    """A series whose headers number the slices, and say how many were acquired; file k is the k-th slice from below."""
    for k, place in enumerate(positions()):
        tags = {"0020|1002": str(SLICES), "0020|0013": str(k + 1)}
        write_slice(folder / f"{k:03d}", knee_image()[:, :, k], place, **tags)
    return folder


def cut(path):
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize("k", [0, 5, SLICES - 1])
def test_a_missing_a_duplicated_and_a_foreign_slice_are_found_wherever_they_lie(tmp_path, k):
    series = numbered_series(series_folder(tmp_path))
    sound = (series / f"{k:03d}").read_bytes()
    (series / f"{k:03d}").unlink()
    (line,) = problems_of(tmp_path)
    end = k in (0, SLICES - 1)
    assert f"{series}: 1 slice is missing {'of the 10 acquired' if end else 'between 004 '}" in line
    for name in (f"{k:03d}", "copy"):
        (series / name).write_bytes(sound)
    (line,) = problems_of(tmp_path)
    assert re.search(rf"/copy: is a duplicated slice, {k:03d} lies at .* mm too; remove one of them", line)
    tags = {"0020|000e": "1.9", "0020|1002": "10", "0020|0013": str(k + 1)}
    write_slice(series / "copy", knee_image()[:, :, k], positions()[k], **tags)
    (line,) = problems_of(tmp_path)
    assert f"{series}/copy: is a foreign slice, of another series" in line
    # one in the other's place is both: the folder has as many files as were acquired
    (series / f"{k:03d}").unlink()
    assert len(problems_of(tmp_path)) == 2


def test_a_duplicate_does_not_stand_in_for_a_slice_that_is_missing(tmp_path):
    series = numbered_series(series_folder(tmp_path))
    (series / "copy").write_bytes((series / "000").read_bytes())
    (series / "009").unlink()
    duplicate, missing = problems_of(tmp_path)
    assert "copy: is a duplicated slice" in duplicate
    assert "1 slice is missing of the 10 acquired" in missing


@pytest.mark.parametrize("number", ["", "7", "0", "-1", "999", "1.5", "x"])
def test_the_numbers_of_slices_do_not_matter(tmp_path, number):
    """They may be lacking, all the same, or no numbers: slices are ordered by where they lie."""
    write_series(series_folder(tmp_path), **{"0020|0013": number, "0020|1002": "10"})
    entries, problems = find_entries(tmp_path, progress=False)
    assert not problems
    (entry,) = entries.values()
    assert np.array_equal(entry.read().image.array, knee_image())


SEVERAL = {
    "a damaged and a missing slice": (
        ["cut 3", "drop 6"],
        [
            "003: is not a valid",
            r"1 more slice is missing between 002 .* and 004 .* or between 005 .* and 007 .*; copy",
        ],
    ),
    "a gap that damaged slices explain": (["cut 3", "cut 4"], ["003: is not a valid", "004: is not a valid"]),
    "a damaged and a missing slice beside it": (
        ["cut 3", "drop 4"],
        ["003: is not a valid", "1 more slice is missing between 002 .* and 005"],
    ),
    "a damaged slice at an end": (["cut 9"], ["009: is not a valid"]),
    "a damaged slice, and one missing at an end": (
        ["cut 3", "drop 9"],
        ["003: is not a valid", "1 more slice is missing of the 10 acquired"],
    ),
    "missing in the middle, and at both ends": (
        ["drop 0", "drop 4", "drop 9"],
        ["1 slice is missing between 003", "2 more slices are missing of the 10 acquired"],
    ),
    "most steps are gaps": (
        ["drop 1", "drop 2", "drop 5", "drop 7"],
        [r"4 slices are missing between 000 .* and 003 .* and between 004 .* and 006 .* and between 006 .* and 008"],
    ),
    "a duplicated, a missing and an empty slice": (
        ["copy 2", "drop 5", "empty 7"],
        ["007: is empty", "copy: is a duplicated slice, 002", "1 more slice is missing between 004 .* or between 006"],
    ),
    "a foreign slice, a damaged one and no side": (
        ["foreign", "cut 5", "side"],
        ["005: is not a valid", "foreign: is a foreign slice, of another series", "neither LEFT nor RIGHT"],
    ),
    "two series and an empty slice": (
        ["second", "empty 4"],
        ["004: is empty", r"holds 2 series \(9 slices, 3 slices\)"],
    ),
    "one slice that can be read": (
        [f"cut {k}" for k in range(1, SLICES)],
        [f"00{k}: is not a valid" for k in range(1, SLICES)],
    ),
    "one slice, twice": (
        [*(f"drop {k}" for k in range(1, SLICES)), "copy 0"],
        ["copy: is a duplicated slice", "holds one slice"],
    ),
    "a shifted and a missing slice": (
        ["shift 2", "drop 5"],
        ["1 slice is missing between 004", "shifted against each other"],
    ),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_all_faults_of_a_folder_come_at_once(name, tmp_path):
    series = numbered_series(series_folder(tmp_path))
    for what in SEVERAL[name][0]:
        verb, _, k = what.partition(" ")
        path = series / f"00{k}"
        if verb == "cut":
            cut(path)
        elif verb == "drop":
            path.unlink()
        elif verb == "empty":
            path.write_bytes(b"")
        elif verb == "copy":
            (series / "copy").write_bytes(path.read_bytes())
        elif verb == "shift":
            spoil(series, path.name, place=positions()[int(k)] + [0, 0.01, 0], **{"0010|0020": PARTICIPANT})
        elif verb == "side":
            for path in series.glob("0*"):
                path.write_bytes(path.read_bytes().replace(b"DESS_LEFT", b"DESS_KNEE"))
        else:
            for n in range(3 if verb == "second" else 1):
                tags = {"0020|000e": "1.9", "0010|0020": PARTICIPANT}
                spoil(series, f"{verb}{n or ''}", place=positions()[n], **tags)
    lines = problems_of(tmp_path)
    assert len(lines) == len(SEVERAL[name][1]), lines
    for line, expected in zip(lines, SEVERAL[name][1], strict=True):
        assert re.search(expected, line), lines


@pytest.mark.parametrize(("size", "sound"), [(b".36501", True), (b".36600", False)])
def test_voxel_sizes_may_differ_by_rounding_and_no_more(tmp_path, size, sound):
    series = write_series(series_folder(tmp_path))
    rewrite(series / "004", b"\n\0\0\0.365\\.365 ", b"\x0e\0\0\0" + size + b"\\" + size + b" ")
    problems = problems_of(tmp_path)
    assert bool(problems) != sound
    assert sound or "004: is a foreign slice, of another voxel size (0.366 × 0.366 mm)" in problems[0]


def test_the_side_is_that_of_the_headers(tmp_path):
    """A folder may be named after anything; Laterality is asked where the description has no side."""
    write_series(tmp_path / "right/00m/9000099", side="LEFT")
    write_series(tmp_path / "9000296/00m/LEFT", **{"0008|103e": "DESS", "0020|0060": "R", "0010|0020": "9000296"})
    entries, problems = find_entries(tmp_path, progress=False)
    assert not problems
    assert list(entries) == ["9000099_00m_LEFT", "9000296_00m_RIGHT"]


def test_two_slices_that_disagree_are_named(tmp_path):
    """Neither of the two is the usual one."""
    series = series_folder(tmp_path)
    for number, degrees in enumerate((0, 10)):
        write_slice(series / str(number), knee_image()[:, :, 0], positions()[number], turned(degrees))
    assert ["another orientation" in line or "holds one slice" in line for line in problems_of(tmp_path)] == [True] * 2


def test_files_that_are_no_slices_stay_unread(tmp_path):
    series = write_series(series_folder(tmp_path))
    for name in ("README", "README.txt", "DICOMDIR", ".DS_Store", "info.json", "007.json", "header.xml", "Thumbs.db"):
        (series / name).write_bytes(b"")
    (series / "dicomdir").write_bytes((series / "001").read_bytes()[:300])  # DICOM, but no slice
    (series / "notes.txt").write_text("no slice")
    (series / "here").symlink_to(tmp_path)
    assert problems_of(tmp_path) == []
    for name, content in (("011", b"noise"), ("export.DCM", b"noise"), ("x.ima", b"")):
        (series / name).write_bytes(content)
        (line,) = problems_of(tmp_path)
        assert line.startswith(f"{series / name}: is "), line
        (series / name).unlink()


def test_images_of_other_kinds_may_be_damaged(tmp_path):
    """A radiograph has no position; a slice of a T2 map is cut off, another's is noise."""
    for path in write_series(series_folder(tmp_path, series="2"), **{"0008|103e": "PA FIXED FLEXION"}).iterdir():
        rewrite(path, b"\x20\x00\x32\x00", b"\x20\x00\x33\x00")
    maps = [write_series(series_folder(tmp_path, series=name), **{"0008|103e": "SAG_T2_MAP_LEFT"}) for name in "34"]
    cut(maps[0] / "001")
    (maps[1] / "002").write_bytes(b"noise")
    write_series(series_folder(tmp_path))
    entries, problems = find_entries(tmp_path, progress=False)
    assert not problems
    assert list(entries) == ["9000099_00m_LEFT"]


def test_a_slice_that_must_not_be_read_is_named(tmp_path, monkeypatch):
    series = write_series(series_folder(tmp_path))

    def refuse(path, judge=dicom.is_dicom):
        if path.name == "004":
            raise PermissionError(13, "Permission denied")
        return judge(path)

    monkeypatch.setattr("shapeloss.importers.oai.is_dicom", refuse)
    (line,) = problems_of(tmp_path)
    assert line == f"{series / '004'}: cannot be read (Permission denied); change its permissions"


def test_a_folder_that_must_not_be_read_ends_no_import(tmp_path, monkeypatch):
    """Whose slices are in it is not known: nobody is said to lack theirs. Other folders' faults are told as well."""
    write_series(series_folder(tmp_path / "oai"))
    (series_folder(tmp_path / "oai", visit="12m") / "001").parent.mkdir(parents=True)
    shut_folder(monkeypatch, tmp_path / "oai/12m")
    bad = write_series(series_folder(tmp_path / "oai", "9000296"), **{"0010|0020": "9000296"})
    (bad / "004").unlink()
    entries, problems = find_entries(tmp_path / "oai", participants=[PARTICIPANT, "9000296", "9111111"], progress=False)
    assert list(entries) == ["9000099_00m_LEFT"]
    missing, shut = problems
    assert "1 slice is missing" in missing
    assert shut == f"{tmp_path / 'oai/12m'}: cannot be read (Permission denied); change its permissions"
    assert problems_of(tmp_path / "oai", visit="00m") == [missing]  # it is of another visit
    assert len(problems_of(tmp_path / "oai", visit="00m", participants=["9111111"])) == 1


def test_a_folder_of_label_maps_that_must_not_be_read(tmp_path, monkeypatch):
    folder = write_series(series_folder(tmp_path / "oai"))
    write_mask(tmp_path / "masks/9000099.nrrd", folder)
    for name in ("more", "9000296"):
        (tmp_path / "masks" / name).mkdir()
    shut_folder(monkeypatch, tmp_path / "masks/9000296")
    asked = [PARTICIPANT, "9000296", "9111111"]
    shut, missing = problems_of(tmp_path / "oai", tmp_path / "masks", participants=asked)
    assert shut == f"{tmp_path / 'masks/9000296'}: cannot be read (Permission denied); change its permissions"
    assert "no label map of 9111111" in missing
    assert problems_of(tmp_path / "oai", tmp_path / "masks", participants=[PARTICIPANT]) == []
    monkeypatch.undo()
    shut_folder(monkeypatch, tmp_path / "masks/more")
    (shut,) = problems_of(tmp_path / "oai", tmp_path / "masks", participants=asked)
    assert "/more: cannot be read" in shut


def test_a_link_to_a_folder_inside_is_no_fault(tmp_path):
    folder = write_series(series_folder(tmp_path / "oai"))
    write_mask(tmp_path / "masks/a/9000099.nrrd", folder)
    (tmp_path / "oai/again").symlink_to(folder.parent)
    (tmp_path / "masks/again").symlink_to(tmp_path / "masks/a")
    entries, problems = find_entries(tmp_path / "oai", tmp_path / "masks", progress=False)
    assert not problems
    assert list(entries) == ["9000099_00m_LEFT"]


@pytest.mark.parametrize("field", ["0008|103e", "0020|0060"])
def test_slices_that_name_both_sides_are_no_knee(tmp_path, field):
    """Every other slice says that it is of the other knee; of a foreign slice, its side does not matter."""
    series = series_folder(tmp_path)
    for k, place in enumerate(positions()):
        other = "SAG_3D_DESS_RIGHT" if field == "0008|103e" else "R"
        tags = {field: other} if k % 2 else {}
        write_slice(series / f"{k:03d}", knee_image()[:, :, k], place, **tags)
    (line,) = problems_of(tmp_path)
    assert line.startswith(f"{series}: its headers say both LEFT and RIGHT; correct SeriesDescription or Laterality")
    write_series(series)
    for path in series.glob("00?"):
        path.unlink(missing_ok=True)
    write_series(series)
    write_slice(series / "foreign", knee_image()[:, :, 0], [50, 0, 0], **{"0020|000e": "1.9", field: other})
    (line,) = problems_of(tmp_path)
    assert "is a foreign slice" in line


def test_a_broken_knee_hides_no_fault_of_another(tmp_path):
    """The participant's other visit and other side have label maps without slices; that of the broken knee has some."""
    series = write_series(series_folder(tmp_path / "oai"))
    for name in ("V00_LEFT", "V01_LEFT", "V00_RIGHT"):
        write_mask(tmp_path / f"masks/9000099_{name}.nrrd", series)
    (series / "004").unlink()
    problems = problems_of(tmp_path / "oai", tmp_path / "masks")
    assert len(problems) == 3
    assert "1 slice is missing" in problems[0]
    for line, name in zip(problems[1:], ("00m_RIGHT", "12m_LEFT"), strict=True):
        assert f"no DESS of 9000099_{name} was found (of this participant: 9000099_00m_LEFT)" in line
    # a folder with slices of both knees is the one or the other's
    for k in range(3):
        tags = {"0020|000e": "1.9", "0008|103e": "SAG_3D_DESS_RIGHT"}
        write_slice(series / f"other{k}", knee_image()[:, :, k], positions()[k], **tags)
    problems = problems_of(tmp_path / "oai", tmp_path / "masks")
    assert ["holds 2 series" in problems[0], "9000099_12m_LEFT" in problems[1]] == [True, True]
    assert len(problems) == 2


def test_what_is_printed_while_pixels_are_read_is_not_lost(tmp_path, monkeypatch, capfd):
    """All but that a JPEG is damaged, which is an error; also if reading fails in another way."""
    write_slice(tmp_path / "slice", knee_image()[:, :, 0], [0, 0, 0])
    item, execute = read_slice(tmp_path / "slice"), SimpleITK.ImageFileReader.Execute
    texts = [b"WARNING: something\n"]

    def say(reader):
        os.write(2, texts[0])
        if b"fails" in texts[0]:
            raise MemoryError
        return execute(reader)

    monkeypatch.setattr(SimpleITK.ImageFileReader, "Execute", say)
    before = os.listdir("/proc/self/fd") if Path("/proc/self/fd").is_dir() else []
    with np.errstate(all="ignore"):
        read_stack([item])
    assert "WARNING: something\n" in capfd.readouterr().err
    texts[0] = b"it fails\n"
    with pytest.raises(MemoryError):
        read_stack([item])
    os.write(2, b"still there\n")
    assert capfd.readouterr().err == "it fails\nstill there\n"
    for text in (b"Corrupt JPEG data: bad Huffman code\n", b"Premature end of JPEG file\n"):
        texts[0] = b"before\n" + text + b"after\n"
        with pytest.raises(VolumeError, match=r"slice: its pixels cannot be read; copy"):
            read_stack([item])
        assert capfd.readouterr().err == "before\nafter\n"
    if before:
        assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_folder_with_the_slices_of_another_participant_is_one_fault(tmp_path):
    """It takes nobody's place, and the label map of neither gives a second line."""
    other = {"0010|0020": "9000296"}
    moved = write_series(series_folder(tmp_path / "oai"), **other)
    for participant in (PARTICIPANT, "9000296"):
        write_mask(tmp_path / f"masks/{participant}.nrrd", moved)
    (line,) = problems_of(tmp_path / "oai", tmp_path / "masks")
    assert line.startswith(f"{moved}: its headers say participant 9000296; put it")
    assert problems_of(tmp_path / "oai", participants=[PARTICIPANT]) == [line]
    write_series(series_folder(tmp_path / "oai", series="2"), uid="1.7")  # the participant's own
    entries, problems = find_entries(tmp_path / "oai", tmp_path / "masks", progress=False)
    assert problems == [line]
    assert list(entries) == ["9000099_00m_LEFT"]


def test_who_is_asked_for_and_has_no_label_map_is_named(tmp_path):
    folder = write_series(series_folder(tmp_path / "oai"))
    write_mask(tmp_path / "masks/9000099_V00.nrrd", folder)
    (tmp_path / "masks/9000296.nrrd").symlink_to(tmp_path / "nowhere.nrrd")
    asked = [PARTICIPANT, "9000296", "9111111", "9222222"]
    entries, problems = find_entries(tmp_path / "oai", tmp_path / "masks", participants=asked, progress=False)
    assert list(entries) == ["9000099_00m_LEFT"]
    assert len(problems) == 3  # a link that leads nowhere has its own line
    (tmp_path / "masks/9000296.nrrd").unlink()
    assert [name in line for line, name in zip(problems[1:], ("9111111", "9222222"), strict=True)] == [True] * 2
    (line,) = problems_of(tmp_path / "oai", tmp_path / "masks", participants=[PARTICIPANT], visit="24m")
    assert line == f"{tmp_path / 'masks'}: has no label map of 9000099_24m, which is asked for; add it"


SLICE = (  # a small one in explicit VR, as scanners write it; GDCM writes implicit VR where it does not compress
    (0x00020002, "UI", b"1.2.840.10008.5.1.4.1.1.4"),
    (0x00020003, "UI", b"1.2.3.4"),
    (0x00020010, "UI", b"1.2.840.10008.1.2.1"),
    (0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.4"),
    (0x00080018, "UI", b"1.2.3.4"),
    (0x0008103E, "LO", b"SAG_3D_DESS_LEFT"),
    (0x00081111, "SQ", None),
    (0x00081140, "SQ", None),
    (0x00090010, "UN", b"a private field"),
    (0x00100010, "PN", b"SECRET^NAME"),
    (0x00100020, "LO", PARTICIPANT.encode()),
    (0x0020000D, "UI", b"1.2"),
    (0x0020000E, "UI", b"1.2.3"),
    (0x00200013, "IS", b"1"),
    (0x00200032, "DS", None),
    (0x00200037, "DS", b"0\\1\\0\\0\\0\\-1"),
    (0x00280002, "US", b"\1\0"),
    (0x00280004, "CS", b"MONOCHROME2"),
    (0x00280010, "US", b"\4\0"),
    (0x00280011, "US", b"\6\0"),
    (0x00280030, "DS", b"0.5\\0.5"),
    (0x00280100, "US", b"\x10\0"),
    (0x00280101, "US", b"\x10\0"),
    (0x00280102, "US", b"\x0f\0"),
    (0x00280103, "US", b"\0\0"),
    (0x7FE00010, "OW", None),
)


def element(tag, kind, value):
    value += b"\0" * (len(value) % 2) if kind in ("UI", "UN") else b" " * (len(value) % 2)
    length = struct.pack("<HI", 0, len(value)) if kind in ("OB", "OW", "UN") else struct.pack("<H", len(value))
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + kind.encode() + length + value


def explicit_slice(number):
    item = element(0x00081150, "UI", b"1.2.840.10008.5.1.4.1.1.4") + element(0x00090011, "UN", b"private.")
    short = b"\xfe\xff\0\xe0" + struct.pack("<I", len(item)) + item  # an item says how long it is, or that it ends
    ended = b"\xfe\xff\0\xe0" + b"\xff" * 4 + item + b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    values = {
        0x00081111: b"\x08\0\x11\x11SQ\0\0" + struct.pack("<I", len(short)) + short,
        0x00081140: b"\x08\0\x40\x11SQ\0\0" + b"\xff" * 4 + ended,
        0x00200032: f"{number}.5\\0\\0".encode(),
        0x7FE00010: np.arange(number, number + 24, dtype="<u2").tobytes(),
    }
    parts = [values[tag] if kind == "SQ" else element(tag, kind, values.get(tag, value)) for tag, kind, value in SLICE]
    meta = b"".join(parts[:3])
    return bytes(128) + b"DICM" + element(0x00020000, "UL", struct.pack("<I", len(meta))) + meta + b"".join(parts[3:])


def test_explicit_slices(tmp_path):
    for number in range(5):
        (tmp_path / str(number)).write_bytes(explicit_slice(number))
    slices = [read_slice(path) for path in tmp_path.iterdir()]
    assert check_slices(slices) == []
    # columns × rows of each slice; slices run along the normal, from x = 4.5 mm to 0.5 mm
    expected = np.stack([np.arange(number, number + 24).reshape(4, 6).T for number in (4, 3, 2, 1, 0)], axis=-1)
    assert np.array_equal(read_stack(slices).array, expected)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff", b"\x08\0\x40\x11SQ\0\0\xfe\xff\xff\xff"),
        (b"\0\xe0\xff\xff\xff\xff", b"\0\xe0\xff\xff\xff\xfe"),
        (b"UN\0\0\x10\0\0\0", b"UN\0\0\x10\0\0\x80"),
        (b"UN\0\0\x08\0\0\0private.\x08\0", b"UN\0\0\x08\0\0\x80private.\x08\0"),
        (b"OW\0\0\x30\0\0\0", b"OW\0\0\x30\0\0\x01"),
        (b"PN\x0c\0", b"P\xff\x0c\0"),
        (b"PN\x0c\0", b"\x0c\0\0\0"),
        (b"IS\2\0", b"IS\2\x80"),
        (b"\2\0\x10\0UI", b"\2\0\x11\0UI"),
    ],
)
def test_what_would_take_gigabytes_is_not_given_to_gdcm(tmp_path, monkeypatch, old, new):
    """Of such files of one kilobyte, GDCM made up to 7 GB, or it went through them for 12 s."""
    (tmp_path / "slice").write_bytes(explicit_slice(0))
    rewrite(tmp_path / "slice", old, new)
    monkeypatch.setattr(SimpleITK.ImageFileReader, "ReadImageInformation", lambda reader: pytest.fail("it was read"))
    with pytest.raises(VolumeError, match=r"slice: is not a valid DICOM slice; copy or download it again"):
        read_slice(tmp_path / "slice")


@pytest.mark.parametrize("length", [3, 2**31])
def test_a_packed_slice_that_would_take_gigabytes(tmp_path, monkeypatch, length):
    """The length of its pixels is too small, so that what follows is no piece of them, or too large."""
    write_slice(tmp_path / "slice", knee_image()[:, :, 0], [0, 0, 0], compressor="JPEG")
    data = (tmp_path / "slice").read_bytes()
    start = data.rindex(b"\xfe\xff\0\xe0") + 4
    (tmp_path / "slice").write_bytes(data[:start] + struct.pack("<I", length) + data[start + 4 :])
    monkeypatch.setattr(SimpleITK.ImageFileReader, "ReadImageInformation", lambda reader: pytest.fail("it was read"))
    with pytest.raises(VolumeError, match=r"slice: is not a valid DICOM slice"):
        read_slice(tmp_path / "slice")


@settings(max_examples=40, deadline=10_000)
@given(
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4),
    keep=st.one_of(st.none(), st.none(), st.floats(0, 1)),
    noise=st.one_of(st.none(), st.none(), st.none(), st.binary(max_size=300)),
    number=st.integers(0, 4),
)
def test_no_slice_is_answered_by_anything_but_a_message(flips, keep, noise, number):
    """One slice of five is damaged in any way; the other knee is imported whatever it is."""
    content = bytearray(explicit_slice(number))
    for position, value in flips:
        content[128 + position % (len(content) - 128)] = value
    content = content[: None if keep is None else int(keep * len(content))]
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place) / "oai"
        for participant in (PARTICIPANT, "9000296"):
            series_folder(tree, participant).mkdir(parents=True)
            for k in range(5):
                data = explicit_slice(k).replace(PARTICIPANT.encode(), participant.encode())
                (series_folder(tree, participant) / f"{k:03d}").write_bytes(data)
        (series_folder(tree) / f"{number:03d}").write_bytes(content if noise is None else noise)
        try:
            import_oai(tree, Path(place) / "out")
        except ImportProblems as error:
            assert len(str(error).splitlines()) == 1 + len(error.problems)  # noqa: PT017 - a sound outcome
            assert all(PARTICIPANT in line and "SECRET" not in line for line in error.problems)  # noqa: PT017
            assert "cannot be imported" not in str(error)  # noqa: PT017 - what nobody thought of
        cases = json.loads((Path(place) / "out/import.json").read_text(encoding="utf-8"))["cases"]
        assert "9000296_00m_LEFT" in cases
        assert set(cases) <= {"9000296_00m_LEFT", "9000099_00m_LEFT", "9000099_00m_RIGHT"}


@pytest.fixture(scope="module")
def knees(tmp_path_factory):
    """Four knees with label maps, two of each side, imported; and one more without."""
    folder = tmp_path_factory.mktemp("knees")
    for number in range(5):
        side = ("LEFT", "RIGHT")[number % 2]
        mask = mask_array()
        image = (200 * (mask > 0) + np.random.default_rng(number).integers(0, 50, mask.shape)).astype(np.uint16)
        if side == "RIGHT":  # what is lateral in a left knee lies on the other side in a right one
            mask, image = mask[:, :, ::-1], image[:, :, ::-1]
        participant = f"900010{number}"
        place = series_folder(folder / ("oai" if number < 4 else "new"), participant)
        write_series(place, image, side=side, directions=turned(10), uid=f"1.{number}", **{"0010|0020": participant})
        if number < 4:
            write_mask(folder / f"masks/{participant}.nrrd", place, np.ascontiguousarray(mask))
    import_oai(folder / "oai", folder / "data", folder / "masks")
    import_oai(folder / "new", folder / "more")
    return folder


def experiment(**data):
    return Experiment.model_validate(
        {
            "name": "oai-tiny",
            "description": "tiny DICOM knees",
            "data": {"split": {"train": 2, "validation": 1, "test": 1}, "mirror_to": "right", **data},
            "losses": ["dpce"],
            "network": {"options": {"widths": [8, 8], "convolutions": [1, 1], "strides": [[1, 2, 2]]}},
            "training": {"steps": 4, "validate_every": 4, "checkpoint_every": 4, "patch_size": [8, 16, 16]},
        }
    )


def test_left_knees_are_mirrored_and_noted(knees, tmp_path):
    manifest = prepare(experiment().data, knees / "data", tmp_path / "cases.json")
    mirrored = {case["name"]: case["mirrored"] for case in manifest.cases}
    assert mirrored == {name: name.endswith("LEFT") for name in mirrored}
    assert len(mirrored) == 4
    labels = [manifest.load(name).labels for name in sorted(mirrored)]
    assert all(np.array_equal(labels[0], other) for other in labels[1:])  # all right knees now, and alike
    assert not np.array_equal(manifest.original("9000100_00m_LEFT").labels, labels[0])


@pytest.mark.parametrize("data", [{}, {"spacing": [0.7, 0.365, 0.365], "size": [8, 20, 14]}])
def test_what_was_mirrored_comes_back_exactly(knees, tmp_path, data):
    """The truth as a prediction: on the scan's own grid it is the truth again, but for what was cut off."""
    manifest = prepare(experiment(**data).data, knees / "data", tmp_path / "cases.json")
    for case in manifest.cases:
        path = tmp_path / f"{case['name']}.nii.gz"
        manifest.write_labels(path, manifest.load(case["name"]).labels, case["name"])
        truth, found = read_labels(knees / "data" / case["label"]), read_labels(path)
        assert grid_difference(found, truth) == ""
        kept = found.array > 0
        assert np.array_equal(found.array[kept], truth.array[kept])
        assert kept.sum() == (truth.array > 0).sum() if not data else kept.sum() > 0.8 * (truth.array > 0).sum()


def test_without_the_side_no_knee_is_mirrored(knees, tmp_path):
    (tmp_path / "data").mkdir()
    for path in (knees / "data").iterdir():
        if path.name != "import.json":
            (tmp_path / "data" / path.name).symlink_to(path)
    with pytest.raises(ValueError, match=r"import.json has no side for it; import it, or drop data.mirror_to"):
        prepare(experiment().data, tmp_path / "data", tmp_path / "cases.json")
    (tmp_path / "data/import.json").write_text("[]")
    with pytest.raises(ValueError, match=r"import.json is not a record of an import"):
        read_sides(tmp_path / "data")


def test_from_slices_to_scores(knees, tmp_path):
    """Import, check, train, predict, evaluate; then predict the knee without truth, in place."""
    trial = experiment()
    manifest = prepare(trial.data, knees / "data", tmp_path / "cases.json")
    run = tmp_path / "runs/dpce/seed0"
    train(trial, manifest, "dpce", 0, run, tmp_path / "maps")
    scores = score_runs(trial, manifest, tmp_path, tmp_path / "per_case.csv")
    assert scores["dice"].between(0, 1).all()
    assert set(scores["structure"]) >= {"femur", "tibia", "patella"}
    images = knees / "more/imagesTs"
    written, problems = predict_files(load_run(run), images, tmp_path / "labels", progress=False)
    assert not problems
    assert [path.name for path in written] == ["9000104_00m_LEFT.nii.gz"]
    assert grid_difference(read_labels(written[0]), read_volume(images / written[0].name)) == ""
    # the other side says that it need not be mirrored, which gives other labels
    other, _ = predict_files(load_run(run), images, tmp_path / "other", side="right", progress=False)
    assert not np.array_equal(read_labels(other[0]).array, read_labels(written[0]).array)
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone/knee.nii.gz").write_bytes((images / written[0].name).read_bytes())
    written, problems = predict_files(load_run(run), tmp_path / "alone", tmp_path / "labels", progress=False)
    assert not written
    assert "left or right knee?" in problems[0]


def test_the_command(tree, tmp_path, monkeypatch, capsys):
    arguments = ["oai", str(tree / "oai"), str(tmp_path / "out"), "--masks", str(tree / "masks"), "--visit", "00m"]
    profile = ["--profile", "reproduce/profiles/oai.yaml"]
    monkeypatch.setattr(sys, "argv", ["shapeloss", "import", *arguments, *profile])
    monkeypatch.chdir(page_rows.__globals__["PAGE"].parents[1])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert "1 cases with femur, tibia, patella" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/dataset.json").read_text(encoding="utf-8"))["labels"] == {
        "0": "background", "1": "femur", "2": "tibia", "3": "patella"
    }  # fmt: skip


# --- echoes and other images of one place -----------------------------------------------------------------------------


def write_echoes(folder, images, interleaved=False, uids=("1.2.3", "1.2.3"), acquired=2 * SLICES, **tags):
    """Both echoes of a knee in one folder, numbered one after the other, or slice by slice."""
    for echo, (image, uid) in enumerate(zip(images, uids, strict=True), 1):
        for k, place in enumerate(positions()):
            number = 2 * k + echo if interleaved else (echo - 1) * SLICES + k + 1
            own = {"0018|0086": str(echo), "0018|0081": str(5 * echo), "0020|0013": str(number)}
            own |= {"0020|1002": str(acquired), "0020|000e": uid, **tags}
            write_slice(folder / f"{echo}-{k:03d}", image[:, :, k], place, **own)
    return folder


def two_echoes():
    return [knee_image(1), knee_image(2)]


@pytest.mark.parametrize("uids", [("1.2.3", "1.2.3"), ("1.2.3", "1.2.4")])
def test_two_echoes_are_one_fault_that_asks_for_a_choice(tmp_path, uids):
    folder = write_echoes(series_folder(tmp_path), two_echoes(), uids=uids)
    assert problems_of(tmp_path) == [
        f"{folder}: holds 2 echoes (1: 10 slices at 5 ms, 2: 10 slices at 10 ms); choose one by --echo 1, --echo 2, "
        "or combine them by --echo rss (root of the sum of squares)"
    ]
    (line,) = problems_of(tmp_path, echo="3")
    assert "has no echo 3, only 1: 10 slices at 5 ms, 2: 10 slices" in line
    with pytest.raises(ValueError, match="an echo is a number from 1 or rss; got 'both'"):
        problems_of(tmp_path, echo="both")


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("acquired", [SLICES, 2 * SLICES])
def test_an_echo_is_taken_or_all_are_combined(tmp_path, interleaved, acquired):
    first, second = two_echoes()
    write_echoes(series_folder(tmp_path / "oai"), [first, second], interleaved, acquired=acquired)
    combined = np.sqrt(first.astype(float) ** 2 + second.astype(float) ** 2)
    for echo, expected in (("1", first), ("2", second), ("rss", combined)):  # into one folder: each replaces the last
        (case,) = import_oai(tmp_path / "oai", tmp_path / "out", echo=echo)["cases"].values()
        np.testing.assert_allclose(read_volume(tmp_path / "out" / case["image"]).array, expected, rtol=1e-6)
        assert (case["echo"], case["echoes_ms"]) == (echo, {"1": 5.0, "2": 10.0})
        assert len(case["imported_from"]) == (2 * SLICES if echo == "rss" else SLICES)


@pytest.mark.parametrize("acquired", [SLICES, 2 * SLICES])
def test_a_slice_that_an_echo_lacks_is_missing(tmp_path, acquired):
    folder = write_echoes(series_folder(tmp_path), two_echoes(), acquired=acquired)
    (folder / "2-009").unlink()
    assert problems_of(tmp_path, echo="1") == []
    (line,) = problems_of(tmp_path, echo="2")
    assert "1 slice is missing" in line
    (folder / "1-009").unlink()
    (folder / "2-008").unlink()
    lines = problems_of(tmp_path, echo="rss")
    assert [re.search(r": (\d) slices? (is|are) missing", line)[1] for line in lines] == ["1", "2"]


@pytest.mark.parametrize(
    ("echo", "interleaved", "option", "sound"),
    [(2, False, "", True), (1, True, "", True), (1, False, "1", True), (1, False, "", False), (0, False, "", False)],
)
def test_the_number_acquired_may_count_an_echo_that_is_elsewhere(tmp_path, echo, interleaved, option, sound):
    folder = write_echoes(series_folder(tmp_path), two_echoes(), interleaved)
    for path in sorted(folder.glob(f"{3 - max(echo, 1)}-*")):
        path.unlink()
    if not echo:
        for path in folder.iterdir():
            rewrite(path, b"\x18\x00\x86\x00", b"\x18\x00\x85\x00")
    lines = problems_of(tmp_path, echo=option)
    if sound:
        assert lines == []
    else:
        (line,) = lines
        assert "10 slices are missing of the 20 acquired" in line
        assert ("or these are those of other echoes: if so, import it with --echo 1" in line) == (echo == 1)


def test_echoes_are_told_by_their_times_where_they_have_no_numbers(tmp_path):
    first, second = two_echoes()
    folder = write_echoes(series_folder(tmp_path), [second, first], **{"0018|0086": "1"})
    for path in folder.glob("1-*"):  # the longer time comes first
        rewrite(path, b"\x18\x00\x81\x00\x02\x00\x00\x005 ", b"\x18\x00\x81\x00\x02\x00\x00\x0020")
    assert "holds 2 echoes (1: 10 slices at 10 ms, 2: 10 slices at 20 ms)" in problems_of(tmp_path)[0]
    entries, problems = find_entries(tmp_path, progress=False, echo="1")
    assert problems == []
    (entry,) = entries.values()
    assert np.array_equal(entry.read().image.array, first)


def test_another_echo_in_another_folder_is_named_as_such(tmp_path):
    folder = write_echoes(series_folder(tmp_path), two_echoes(), acquired=SLICES)
    other = series_folder(tmp_path, series="10009999")
    other.mkdir()
    for path in sorted(folder.glob("2-*")):
        path.rename(other / path.name)
    (line,) = problems_of(tmp_path)
    assert f"{other}: is another echo of case 9000099_00m_LEFT, beside {folder}; put the slices of echoes 1, 2" in line


def test_one_echo_leaves_nothing_to_combine(tmp_path):
    folder = write_series(series_folder(tmp_path), **{"0018|0086": "1", "0018|0081": "5"})
    assert problems_of(tmp_path) == problems_of(tmp_path, echo="1") == []
    assert problems_of(tmp_path, echo="rss") == [
        f"{folder}: --echo rss was asked for, but the series has one echo (1: 10 slices at 5 ms); "
        "import it without --echo"
    ]
    write_series(folder)
    assert "has no number of an echo in its headers; import it without --echo" in problems_of(tmp_path, echo="1")[0]


@pytest.mark.parametrize(
    ("tag", "values", "name"),
    [
        ("0008|0008", ("ORIGINAL\\PRIMARY\\M", "ORIGINAL\\PRIMARY\\P"), "kinds of image (ImageType)"),
        ("0020|0100", ("1", "2"), "temporal positions"),
        ("0020|0012", ("1", "2"), "acquisitions"),
        ("0018|1060", ("10", "400"), "trigger times"),
    ],
)
def test_what_else_lies_at_one_place_is_named(tmp_path, tag, values, name):
    folder = series_folder(tmp_path)
    for value, prefix in zip(values, "ab", strict=True):
        for k, place in enumerate(positions()):
            write_slice(folder / f"{prefix}{k:03d}", knee_image()[:, :, k], place, **{tag: value})
    assert problems_of(tmp_path) == [
        f"{folder}: holds 2 {name} of the same places (10 slices, 10 slices); keep the slices of one in it, and move "
        "the others away"
    ]


def test_equal_faults_are_folded(tmp_path):
    folder = write_series(series_folder(tmp_path))
    for path in list(folder.iterdir()):
        path.with_name(f"{path.name}-copy").write_bytes(path.read_bytes())
    *lines, last = problems_of(tmp_path)
    assert len(lines) == 5
    assert all("is a duplicated slice" in line for line in lines)
    assert last == f"{folder}: holds 5 more duplicated slices; remove one of each two"


def test_the_command_says_the_echo_and_the_next_step_of_images_alone(tmp_path, monkeypatch, capsys):
    write_echoes(series_folder(tmp_path / "oai"), two_echoes())
    arguments = ["shapeloss", "import", "oai", str(tmp_path / "oai"), str(tmp_path / "a b"), "--echo", "RSS"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert "1 images without label maps in" in printed
    assert "echoes found: 1 at 5 ms, 2 at 10 ms; taken: root of the sum of squares: 1 case" in printed
    assert f"Next: shapeloss predict results/<profile>/runs/<loss>/seed<n> '{tmp_path}/a b/imagesTs'" in printed
    assert "make reproduce" not in printed
    assert list((tmp_path / "a b/imagesTs").iterdir())


# --- label maps without a pose ----------------------------------------------------------------------------------------


def bare_mask(path, axes, flips=(False, False, False)):
    """The label map as an array whose axes are in another order, without directions or first voxel."""
    array = np.flip(mask_array(), np.flatnonzero(flips)).transpose(axes)
    image = SimpleITK.GetImageFromArray(array.transpose())
    image.SetSpacing(np.array([PIXEL, PIXEL, STEP])[list(axes)].tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path))
    return path


def import_with(folder, code):
    return import_oai(folder / "oai", folder / "out", folder / "masks", mask_orientation=code)["cases"].values()


@pytest.mark.parametrize("ending", [".mhd", ".nii.gz", ".nrrd"])
@pytest.mark.parametrize(
    ("axes", "flips", "code"),  # columns run to posterior, rows to inferior, slices to the right: PIR
    [
        ((0, 1, 2), (False, False, False), "PIR"),
        ((2, 0, 1), (False, False, False), "RPI"),
        ((2, 1, 0), (False, True, False), "RSP"),
        ((1, 2, 0), (True, True, True), "SLA"),
    ],
)
def test_a_label_map_without_a_pose_is_placed_as_stated(tmp_path, ending, axes, flips, code):
    write_series(series_folder(tmp_path / "oai"), directions=turned(8))
    mask = bare_mask(tmp_path / f"masks/9000099{ending}", axes, flips)
    with pytest.raises(ImportProblems) as caught:
        import_oai(tmp_path / "oai", tmp_path / "out", tmp_path / "masks")
    (line,) = caught.value.problems
    assert "the labels have no pose (directions and first voxel are not set)" in line
    assert "state it by --mask-orientation of import oai, pairs or folder" in line
    assert "resample" not in line
    letters = {"R": "R or L", "L": "R or L", "A": "A or P", "P": "A or P", "S": "S or I", "I": "S or I"}
    assert f"their axes run to {', '.join(letters[letter] for letter in code)}; find out" in line  # one order fits
    (case,) = import_with(tmp_path, code)
    expected = LABELS.apply(mask_array())
    assert np.array_equal(read_labels(tmp_path / "out" / case["label"]).array, expected)
    assert case["mask_orientation"] == code
    # another statement imports it anew, and flips what is stated otherwise
    other = code.translate(str.maketrans("RLSI", "LRSI"))
    (case,) = import_with(tmp_path, other)
    assert np.array_equal(read_labels(tmp_path / "out" / case["label"]).array, expected[:, :, ::-1])
    assert mask.is_file()


def test_what_is_stated_must_fit_and_a_pose_is_never_overruled(tmp_path):
    folder = write_series(series_folder(tmp_path / "oai"))
    mask = bare_mask(tmp_path / "masks/9000099.mhd", (2, 0, 1))
    with pytest.raises(ImportProblems, match="their axes run to R or L, A or P, S or I; find out which"):
        import_oai(tmp_path / "oai", tmp_path / "out", tmp_path / "masks", mask_orientation="PIR")
    for path in mask.parent.iterdir():
        path.unlink()
    write_mask(mask.with_suffix(".nrrd"), folder)
    (case,) = import_with(tmp_path, "LSA")
    assert np.array_equal(read_labels(tmp_path / "out" / case["label"]).array > 0, ~np.isin(mask_array(), (0, 2)))
    assert "mask_orientation" not in case


def test_a_label_map_without_a_pose_that_fits_in_no_order(tmp_path):
    write_series(series_folder(tmp_path / "oai"))
    bare_mask(tmp_path / "masks/9000099.mhd", (2, 0, 1))
    image = SimpleITK.ReadImage(str(tmp_path / "masks/9000099.mhd"))
    SimpleITK.WriteImage(image[:-1], str(tmp_path / "masks/9000099.mhd"))
    with pytest.raises(ImportProblems, match=r"fit the image's 24 × 16 × 10 of .* in no order of axes"):
        import_oai(tmp_path / "oai", tmp_path / "out", tmp_path / "masks")


def test_two_orders_that_fit_are_both_named():
    affine = np.diag([0.5, 0.5, 2.0, 1])
    affine[0, 3] = 7
    image = Volume(np.zeros((8, 8, 5)), affine)
    labels = Volume(np.zeros((5, 8, 8), np.uint8), np.diag([2.0, 0.5, 0.5, 1]))
    assert "run to S or I, R or L, A or P; or S or I, A or P, R or L; find out" in pose_fault(labels, image)
    same = Volume(labels.array, image.affine)
    assert pose_fault(same, image).endswith("8 × 8 × 5; resample the labels")


@pytest.mark.parametrize("text", ["PI", "PIRS", "PAR", "XYZ", "PPR"])
def test_an_orientation_is_three_letters_of_three_axes(text):
    with pytest.raises(ValueError, match="must be three letters"):
        check_orientation(text)
    assert [check_orientation(code) for code in ("pir", " LSA ", "")] == ["PIR", "LSA", ""]


def test_pairs_and_folders_take_a_stated_orientation_too(tmp_path, monkeypatch):
    volume = read_stack([read_slice(path) for path in write_series(tmp_path / "slices").iterdir()])
    nibabel_image = nibabel.Nifti1Image(volume.array, volume.affine)
    for folder in ("images", "layout/imagesTr"):
        (tmp_path / folder).mkdir(parents=True)
        nibabel.save(nibabel_image, tmp_path / folder / "a.nii.gz")
    bare_mask(tmp_path / "masks/a.mha", (2, 0, 1))
    bare_mask(tmp_path / "layout/labelsTr/a.nii.gz", (2, 0, 1))
    (tmp_path / "layout/dataset.json").write_text(
        json.dumps({"labels": {"background": 0, **{f"s{k}": k for k in range(1, 10)}}, "file_ending": ".nii.gz"})
    )
    for kind, sources in (("pairs", ["images", "masks"]), ("folder", ["layout"])):
        arguments = ["import", kind, *(str(tmp_path / name) for name in sources), str(tmp_path / kind)]
        arguments += ["--labels", "1:femur", "--mask-orientation", "rpi"]
        monkeypatch.setattr(sys, "argv", ["shapeloss", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 0
        assert np.array_equal(read_labels(tmp_path / kind / "labelsTr/a.nii.gz").array, mask_array() == 1)
