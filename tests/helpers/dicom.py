"""DICOM series of small knees."""

import gzip

import numpy as np
import pytest
import SimpleITK

from shapeloss.importers.dicom import read_slice, read_stack

SLICES, COLUMNS, ROWS = 10, 24, 16
STEP, PIXEL = 0.7, 0.365
SAGITTAL = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0]])  # columns run to posterior, rows to inferior (LPS)
SECRETS = {"0010|0010": "SECRET^NAME", "0010|0030": "19401231", "0008|0020": "20050107", "0008|0080": "SECRET HOSPITAL"}
PARTICIPANT = "9000099"


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
