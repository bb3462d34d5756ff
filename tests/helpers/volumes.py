"""Small images and label maps on disk, and what the page on bad input promises."""

import re
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK

from shapeloss.importers.folders import folder_source, pair_entries
from shapeloss.importers.writer import Labels, write_cases

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bad-input.md"
AFFINE = np.diag([0.7, 0.365, 0.365, 1.0])
LABELS = Labels({1: "femur", 3: "tibia"})
SHAPE = (4, 6, 5)


def page_rows(*sections):
    """What the page says, or some sections of it: {fault: (message, remedy)}."""
    parts = re.split("^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = "".join(part for part in parts if not sections or part.startswith(sections))
    rows = [line.strip("| \n").split(" | ") for line in text.splitlines() if "|" in line]
    return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3 and row[0] not in ("Fault", "---")}


def image_array(seed=0):
    return np.random.default_rng(seed).integers(0, 500, SHAPE, dtype=np.int16)


def mask_array():
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:3, 1:3, 1:3], mask[1:3, 4:, 1:4] = 1, 3
    return mask


def nifti(path, array, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def itk(path, array, direction=None):
    """NRRD or MetaImage of the same grid: AFFINE is RAS, ITK's world is LPS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(array.transpose())
    image.SetSpacing((0.7, 0.365, 0.365))
    image.SetDirection(direction or (-1, 0, 0, 0, -1, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, str(path))
    return path


def pair(folder, name, image=None, mask=None, affine=AFFINE):
    nifti(folder / "images" / f"{name}.nii.gz", image_array() if image is None else image)
    nifti(folder / "labels" / f"{name}.nii.gz", mask_array() if mask is None else mask, affine)


def import_pairs(folder, output, *names):
    """All cases, or those of these names."""
    entries, problems = pair_entries(folder / "images", folder / "labels")
    entries = {name: entries[name] for name in names or entries}
    return write_cases(output, entries, LABELS, folder_source(folder), problems, progress=False)
