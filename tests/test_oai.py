"""OAI DICOM: series found by their headers, checked, placed in the world, paired with label maps, mirrored and back."""

import gzip
import json
import re
import sys

import nibabel
import numpy as np
import pytest
import SimpleITK
from test_bad_input import page_rows

from shapeloss import cli
from shapeloss.dataset import prepare, read_sides
from shapeloss.evaluation import score_runs
from shapeloss.experiment import Experiment
from shapeloss.inference import load_run, predict_files
from shapeloss.sources.dicom import check_slices, read_slice, read_stack
from shapeloss.sources.layout import ImportProblems, write_cases
from shapeloss.sources.oai import LABELS, SOURCE, Knee, find_entries, parse_knee, read_participants
from shapeloss.training import train
from shapeloss.volumes import grid_difference, read_labels, read_volume

SLICES, COLUMNS, ROWS = 10, 24, 16
STEP, PIXEL = 0.7, 0.365
SAGITTAL = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0]])  # columns run to posterior, rows to inferior (LPS)
SECRETS = {"0010|0010": "SECRET^NAME", "0010|0030": "19401231", "0008|0020": "20050107", "0008|0080": "SECRET HOSPITAL"}
PARTICIPANT = "9000099"


def turned(degrees):
    """SAGITTAL, turned about the axis through the head."""
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    return SAGITTAL @ turn.T


def write_slice(path, plane, position, directions=SAGITTAL, compressor="", **tags):
    """One DICOM slice without extension; `plane` is (columns, rows)."""
    image = SimpleITK.GetImageFromArray(plane.T[None])
    image.SetSpacing((PIXEL, PIXEL, STEP))
    values = {
        "0008|0060": "MR",
        "0008|103e": "SAG_3D_DESS_LEFT",
        "0010|0020": PARTICIPANT,
        "0020|000e": "1.2.3",
        "0020|0032": "\\".join(f"{value:.6f}" for value in position),
        "0020|0037": "\\".join(f"{value:.9f}" for value in np.ravel(directions)),
        **SECRETS,
        **tags,
    }
    for key, value in values.items():
        image.SetMetaData(key, value)
    writer = SimpleITK.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    if compressor:
        writer.SetUseCompression(True)
        writer.SetCompressor(compressor)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.SetFileName(f"{path}.dcm")
    writer.Execute(image)
    path.with_name(f"{path.name}.dcm").rename(path)


def knee_image(seed=0):
    return np.random.default_rng(seed).integers(0, 900, (COLUMNS, ROWS, SLICES)).astype(np.uint16)


def positions(directions=SAGITTAL, step=STEP):
    """Where the slices begin, in mm (LPS): slice k at k steps along the normal."""
    return np.array([10.0, -20.0, 30.0]) + np.outer(np.arange(SLICES) * step, np.cross(*directions))


def write_series(folder, image=None, places=None, directions=SAGITTAL, side="LEFT", uid="1.2.3", **tags):
    """A series; file names run against the order of the slices."""
    image = knee_image() if image is None else image
    places = positions(directions) if places is None else places
    tags = {"0008|103e": f"SAG_3D_DESS_{side}", "0020|000e": uid, **tags}
    for k, place in enumerate(places):
        write_slice(folder / f"{len(places) - k:03d}", image[:, :, k], place, directions, **tags)
    return folder


def series_folder(tree, participant=PARTICIPANT, visit="00m", series="10001703"):
    return tree / visit / "0.E.1" / participant / "20050107" / series


def mask_array():
    """(columns, rows, slices) with the labels of the manual maps: bones, cartilages, lesions."""
    mask = np.zeros((COLUMNS, ROWS, SLICES), np.uint8)
    mask[2:12, 1:8, 1:6], mask[2:12, 9:15, 1:6], mask[15:22, 2:10, 3:9] = 1, 3, 5
    mask[2:12, 8, 1:6], mask[3:5, 2:4, 2:4], mask[4:6, 10:12, 2:4], mask[16:18, 4:6, 4:6] = 2, 7, 8, 9
    return mask


def write_mask(path, tree_folder, array=None):
    """A label map on the grid of a series, in the format of the path's ending."""
    slices = [read_slice(file) for file in tree_folder.iterdir()]
    affine = read_stack(slices).affine
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray((mask_array() if array is None else array).transpose())
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    SimpleITK.WriteImage(image, str(path))
    return path


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
        ("9000099_V00_LEFT", Knee("9000099", "00m", "LEFT")),
        ("9000099-R-24m", Knee("9000099", "24m", "RIGHT")),
        ("9000099.segmentation_masks", Knee("9000099")),
        ("V06/9000099/left", Knee("9000099", "48m", "LEFT")),
        ("0.E.1/9000099/20050107", Knee("9000099", "00m")),
        ("36m/5.C.2/9000099", Knee("9000099", "36m")),
        ("3.C.1/9000099", Knee("9000099", "24m")),
        ("19000099_left_right", Knee("")),
        ("90000991", Knee("")),
    ],
)
def test_names_of_knees(text, knee):
    assert parse_knee(text) == knee


@pytest.fixture
def tree(tmp_path):
    """One sound left knee with its label map, and series of other kinds."""
    folder = write_series(series_folder(tmp_path / "oai"))
    write_mask(tmp_path / "masks/9000099_V00_LEFT.nii.gz", folder)
    for number, tags in enumerate(
        (
            {"0008|103e": "COR_MPR_LEFT", "0018|0024": "DESS"},
            {"0008|103e": "SAG_3D_DESS_MPR_LEFT"},
            {"0008|103e": "SAG_3D_DESS_LEFT", "0008|0008": "ORIGINAL\\PRIMARY\\LOCALIZER"},
            {"0008|103e": "SAG_T2_MAP_LEFT"},
        )
    ):
        write_series(series_folder(tmp_path / "oai", series=f"1000180{number}"), uid=f"1.2.{number}", **tags)
    (folder / "README").write_text("no slice")
    (folder.parent / "notes.tar.gz").write_bytes(gzip.compress(b"no slice either"))
    return tmp_path


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
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    import_oai(tree / "oai", tmp_path / "out", tree / "masks")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


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


def test_participants_from_a_file(tmp_path):
    (tmp_path / "list.txt").write_text("id\n9000099\n9000296, left\n")
    assert read_participants(tmp_path / "list.txt") == ["9000099", "9000296"]
    (tmp_path / "list.txt").write_text("none")
    with pytest.raises(ValueError, match=r"list.txt: has no participant"):
        read_participants(tmp_path / "list.txt")


FAULTS = {}


def fault(name):
    """A function that spoils the series or the label map of participant 9000296."""
    return lambda make: FAULTS.setdefault(name, make)


@fault("a missing slice")
def _(series, masks):
    (series / "004").unlink()


@fault("a duplicated slice")
def _(series, masks):
    (series / "copy").write_bytes((series / "004").read_bytes())


@fault("a foreign slice")
def _(series, masks):
    write_slice(series / "foreign", knee_image()[:, :, 0], [50, 0, 0], **{"0020|000e": "1.9", "0010|0020": "9000296"})


def spoil(series, name, plane=None, directions=SAGITTAL, place=None, **tags):
    tags = {"0010|0020": "9000296", **tags}
    plane = knee_image()[:, :, 3] if plane is None else plane
    write_slice(series / name, plane, positions()[3] if place is None else place, directions, **tags)


@fault("a position that is no number")
def _(series, masks):
    (series / "004").unlink()
    spoil(series, "004", **{"0020|0032": "1e30\\0\\0"})


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


@fault("no position")
def _(series, masks):
    rewrite(series / "007", b"\x20\x00\x32\x00", b"\x20\x00\x33\x00")


@fault("pixels that cannot be read")
def _(series, masks):
    spoil(series, "007", **{"compressor": "JPEG2000"})
    data = (series / "007").read_bytes()
    middle = data.rindex(b"\xff\x4f\xff\x51")  # where the packed pixels begin
    (series / "007").write_bytes(data[:middle] + bytes(len(data) - middle))


@fault("one slice alone")
def _(series, masks):
    for path in sorted(series.iterdir())[1:]:
        path.unlink()


@fault("a knee without side")
def _(series, masks):
    write_series(series, **{"0010|0020": "9000296", "0008|103e": "SAG_3D_DESS"})


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


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_series_is_named_and_the_sound_case_is_not_lost(name, tree, tmp_path):
    series = write_series(series_folder(tree / "oai", "9000296"), **{"0010|0020": "9000296"})
    write_mask(tree / "masks/9000296_LEFT.nii.gz", series)
    FAULTS[name](series, tree / "masks")
    with pytest.raises(ImportProblems) as caught:
        import_oai(tree / "oai", tmp_path / "out", tree / "masks")
    assert len(caught.value.problems) == 1, caught.value.problems
    (line,) = caught.value.problems
    for text in page_rows("DICOM")[name]:
        assert re.search(".*".join(map(re.escape, text.split("…"))), line), line
    assert "\n" not in line
    assert "9000296" in line or "knee.nii.gz" in line
    assert list(json.loads((tmp_path / "out/import.json").read_text(encoding="utf-8"))["cases"]) == ["9000099_00m_LEFT"]


def test_the_page_lists_these_faults_and_no_others():
    assert set(page_rows("DICOM")) == set(FAULTS)


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
    manifest = prepare(experiment(), knees / "data", tmp_path / "cases.json")
    mirrored = {case["name"]: case["mirrored"] for case in manifest.cases}
    assert mirrored == {name: name.endswith("LEFT") for name in mirrored}
    assert len(mirrored) == 4
    labels = [manifest.load(name).labels for name in sorted(mirrored)]
    assert all(np.array_equal(labels[0], other) for other in labels[1:])  # all right knees now, and alike
    assert not np.array_equal(manifest.original("9000100_00m_LEFT").labels, labels[0])


@pytest.mark.parametrize("data", [{}, {"spacing": [0.7, 0.365, 0.365], "size": [8, 20, 14]}])
def test_what_was_mirrored_comes_back_exactly(knees, tmp_path, data):
    """The truth as a prediction: on the scan's own grid it is the truth again, but for what was cut off."""
    manifest = prepare(experiment(**data), knees / "data", tmp_path / "cases.json")
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
        prepare(experiment(), tmp_path / "data", tmp_path / "cases.json")
    (tmp_path / "data/import.json").write_text("[]")
    with pytest.raises(ValueError, match=r"import.json is no record of an import"):
        read_sides(tmp_path / "data")


def test_from_slices_to_scores(knees, tmp_path):
    """Import, check, train, predict, evaluate; then predict the knee without truth, in place."""
    trial = experiment()
    manifest = prepare(trial, knees / "data", tmp_path / "cases.json")
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
