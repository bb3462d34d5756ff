"""A folder of DICOM slices → one volume: headers and pixels by GDCM (SimpleITK), the geometry checked here.

Slices are found by what they hold, not by name, and ordered by where they lie, not by number: neither names nor
instance numbers are reliable. Slices may be compressed in any way that GDCM knows. A slice that is missing at an end
of the stack leaves no trace in the others' geometry, only in how many the headers say there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import SimpleITK

from shapeloss.volumes import Volume, VolumeError

POSITION_TOLERANCE_MM = 1e-3
"""Positions of slices may be off by as much: some OAI reconstructions have steps that vary by 1e-4 mm."""
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_DIRECTION_TOLERANCE = 1e-4
_FARTHEST_MM = 1e5  # no scanner is larger; beyond it, a position is a broken number


@dataclass(frozen=True)
class Slice:
    """What a slice's header says; of its fields, only those that are used here."""

    path: Path
    series: str
    """SeriesInstanceUID."""
    participant: str
    """PatientID."""
    description: str
    """SeriesDescription; ProtocolName, or SequenceName, where it is empty."""
    image_type: str
    side: str
    """Laterality: L, R, or empty."""
    shape: tuple[int, int]
    """Columns, rows."""
    spacing: tuple[float, float]
    """mm between columns, and between rows."""
    directions: np.ndarray
    """(2, 3) ImageOrientationPatient, LPS: where columns, and where rows, run to."""
    position: np.ndarray
    """(3,) ImagePositionPatient in mm, LPS: centre of the first voxel."""
    acquired: int = 0
    """ImagesInAcquisition: how many slices there were; 0 if it does not say."""
    number: int = 0
    """InstanceNumber, from 1; 0 if it does not say."""

    @property
    def height(self) -> float:
        """Where the slice lies along its normal, in mm."""
        return float(np.cross(*self.directions) @ self.position)


def is_dicom(path: Path) -> bool:
    """Whether a file says at its 128th byte that it is DICOM."""
    with open(path, "rb") as handle:
        handle.seek(128)
        return handle.read(4) == b"DICM"


def read_slice(path: Path) -> Slice:
    """Read the header of one slice.

    Raises:
        VolumeError: it is damaged, or not the slice of a volume.
    """
    reader = _reader(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise VolumeError(f"{path}: is no sound DICOM slice; copy or download it again") from error
    tags = {key: reader.GetMetaData(key).strip(" \0") for key in reader.GetMetaDataKeys()}
    frames = reader.GetSize()[2] if reader.GetDimension() > 2 else 1
    try:
        directions = np.array([float(part) for part in tags["0020|0037"].split("\\")]).reshape(2, 3)
        position = np.array([float(part) for part in tags["0020|0032"].split("\\")]).reshape(3)
        between_rows, between_columns = (float(part) for part in tags["0028|0030"].split("\\"))
    except (KeyError, ValueError) as error:
        raise VolumeError(f"{path}: has no position, orientation or voxel size; leave it out") from error
    numbers = np.array([*directions.ravel(), *position, between_rows, between_columns])
    if not (np.isfinite(numbers).all() and np.abs(numbers).max() < _FARTHEST_MM):
        raise VolumeError(
            f"{path}: has a position, orientation or voxel size that is no plausible number; leave it out"
        )
    if (components := reader.GetNumberOfComponents()) != 1:
        raise VolumeError(
            f"{path}: has colours, {components} values per voxel; leave it out or convert it to grey values"
        )
    gram = directions @ directions.T
    if not np.allclose(gram, np.eye(2), atol=1e-3) or min(between_rows, between_columns) <= 0 or frames > 1:
        what = f"{frames} frames" if frames > 1 else "an orientation or voxel size that makes no grid"
        raise VolumeError(f"{path}: has {what}; one slice a file was expected, so leave it out or export it again")
    return Slice(
        path=path,
        series=tags.get("0020|000e", ""),
        participant=tags.get("0010|0020", ""),
        description=tags.get("0008|103e") or tags.get("0018|1030") or tags.get("0018|0024", ""),
        image_type=tags.get("0008|0008", ""),
        side=tags.get("0020|0060") or tags.get("0020|0062", ""),
        shape=(reader.GetSize()[0], reader.GetSize()[1]),
        spacing=(between_columns, between_rows),
        directions=directions,
        position=position,
        acquired=_whole(tags.get("0020|1002", "")),
        number=_whole(tags.get("0020|0013", "")),
    )


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 7 else 0


def check_slices(slices: Sequence[Slice]) -> list[str]:
    """Whether slices make one volume: complete, equally spaced within 1e-3 mm, of one orientation and one series.

    Args:
        slices: of one folder.

    Returns:
        One line for each fault, empty if there is none.
    """
    folder = slices[0].path.parent
    counts = Counter(item.series for item in slices)
    main, _ = counts.most_common(1)[0]
    if several := [uid for uid, count in counts.items() if uid != main and count > 1]:
        return [
            f"{folder}: holds {1 + len(several)} series ({', '.join(f'{n} slices' for n in counts.values())}); "
            "put each into a folder of its own"
        ]
    usual = _Usual(slices)
    problems, stack = [], []
    for item in slices:
        if other := usual.difference(item):
            problems.append(
                f"{item.path}: is a foreign slice, of another {other} than the others in its folder; remove it"
            )
        else:
            stack.append(item)
    problems += _check_stack(stack) if len(stack) > 1 else [f"{folder}: holds one slice; copy them all"]
    acquired = Counter(item.acquired for item in stack).most_common(1)[0][0]
    # numbers beyond those acquired count something else, such as all slices of an examination
    if not problems and max(item.number for item in stack) <= acquired and len(stack) < acquired:
        missing = acquired - len(stack)
        noun = "slice is" if missing == 1 else "slices are"
        problems.append(f"{folder}: {missing} {noun} missing of the {acquired} acquired; copy or download them again")
    return problems


class _Usual:
    """What most slices of a folder have in common."""

    def __init__(self, slices: Sequence[Slice]) -> None:
        self.series, self.participant, self.shape = (
            Counter(values).most_common(1)[0][0]
            for values in zip(*[(item.series, item.participant, item.shape) for item in slices], strict=True)
        )
        self.spacing = np.median([item.spacing for item in slices], axis=0)
        self.directions = np.median([item.directions for item in slices], axis=0)

    def difference(self, item: Slice) -> str:
        """In what a slice differs; the participant's number is not shown."""
        if item.series != self.series:
            return "series"
        if item.participant != self.participant:
            return "participant"
        if item.shape != self.shape:
            return f"size ({' × '.join(map(str, item.shape))} voxels)"
        if not np.allclose(item.spacing, self.spacing, rtol=_DIRECTION_TOLERANCE):
            return f"voxel size ({' × '.join(f'{value:g}' for value in item.spacing)} mm)"
        if not np.allclose(item.directions, self.directions, atol=_DIRECTION_TOLERANCE):
            return "orientation"
        return ""


def _check_stack(slices: Sequence[Slice]) -> list[str]:
    """Faults of the positions of slices of one series."""
    folder = slices[0].path.parent
    slices = sorted(slices, key=lambda item: (item.height, item.path.name))
    heights = np.array([item.height for item in slices])
    steps = np.diff(heights)
    problems = [
        f"{b.path}: is a duplicated slice, {a.path.name} lies at {a.height:.3f} mm too; remove one of them"
        for (a, b), step in zip(pairwise(slices), steps, strict=True)
        if step < POSITION_TOLERANCE_MM
    ]
    steps = steps[steps >= POSITION_TOLERANCE_MM]
    if problems or not steps.size:
        return problems
    usual, unequal = float(np.median(steps)), []
    for (a, b), step in zip(pairwise(slices), steps, strict=True):
        between = f"between {a.path.name} ({a.height:.3f} mm) and {b.path.name} ({b.height:.3f} mm)"
        if (missing := round(step / usual) - 1) > 0:
            noun = "slice is" if missing == 1 else "slices are"
            problems.append(f"{folder}: {missing} {noun} missing {between}; copy or download them again")
        elif abs(step - usual) > POSITION_TOLERANCE_MM:
            unequal.append(f"{folder}: slices are {step:.4f} mm apart {between}, not {usual:.4f} mm; leave it out")
    problems += unequal[:1]  # a slice out of place makes two
    if problems:
        return problems
    places = np.stack([item.position for item in slices])
    along = (places[-1] - places[0]) / np.linalg.norm(places[-1] - places[0])
    aside = places - places[0]
    aside -= np.outer(aside @ along, along)
    aligned = abs(along @ np.cross(*slices[0].directions)) > 1 - _DIRECTION_TOLERANCE
    if np.linalg.norm(aside, axis=1).max() > POSITION_TOLERANCE_MM or not aligned:
        problems.append(f"{folder}: slices are shifted against each other, so they lie on no grid; leave it out")
    return problems


def slices_affine(slices: Sequence[Slice]) -> np.ndarray:
    """(4, 4) voxel (column, row, slice) → world mm (RAS) of sorted slices.

    DICOM PS3.3, C.7.6.2.1.1, with the step from the first slice to the last.
    """
    first, last = slices[0], slices[-1]
    affine = np.eye(4)
    affine[:3, 0] = first.directions[0] * first.spacing[0]
    affine[:3, 1] = first.directions[1] * first.spacing[1]
    affine[:3, 2] = (last.position - first.position) / (len(slices) - 1)
    affine[:3, 3] = first.position
    return np.asarray(_LPS_TO_RAS @ affine)


def read_stack(slices: Sequence[Slice]) -> Volume:
    """The volume of slices that :func:`check_slices` found sound; values are rescaled as the headers say.

    Raises:
        VolumeError: a slice's pixels cannot be read.
    """
    slices = sorted(slices, key=lambda item: item.height)
    planes = []
    for item in slices:
        try:
            plane = SimpleITK.GetArrayFromImage(_reader(item.path).Execute())
        except RuntimeError as error:
            raise VolumeError(
                f"{item.path}: its pixels cannot be read; copy or download it again, or decompress it"
            ) from error
        planes.append(plane.reshape(item.shape[::-1]).T)
    return Volume(np.stack(planes, axis=-1), slices_affine(slices))


def _reader(path: Path) -> SimpleITK.ImageFileReader:
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader
