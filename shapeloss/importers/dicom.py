"""A folder of DICOM slices → one volume: headers and pixels by GDCM (SimpleITK), the geometry checked here.

Slices are found by what they hold, not by name, and ordered by where they lie, not by number: neither names nor
instance numbers are reliable. Slices may be compressed in any way that GDCM knows. A slice that is missing at an end
of the stack leaves no trace in the others' geometry, only in how many the headers say there are.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import SimpleITK

from shapeloss.data.headers import VolumeError
from shapeloss.data.volume import Volume

POSITION_TOLERANCE_MM = 1e-3
"""Positions of slices may be off by as much: some OAI reconstructions have slices whose distances vary by 1e-4 mm."""
REPEATS = {
    "kinds of image (ImageType)": "0008|0008",
    "temporal positions": "0020|0100",
    "b-values": "0018|9087",
    "trigger times": "0018|1060",
    "inversion times": "0018|0082",
    "flip angles": "0018|1314",
    "acquisitions": "0020|0012",
}
"""In what images of one place may differ, apart from their echo → the tag that tells."""
_SHOWN = 5  # equal faults that are listed
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_DIRECTION_TOLERANCE = 1e-4
_FARTHEST_MM = 1e5  # no scanner is larger; beyond it, a position is a broken number
# how elements are written: DICOM PS3.5, 7 and A; tags of the syntax, of the pixels, of a sequence's end
_SYNTAX, _PIXELS, _END = b"\2\0\x10\0", b"\xe0\x7f\x10\0", b"\xfe\xff\xdd\xe0"
_IMPLICIT = b"1.2.840.10008.1.2"  # the syntax that does not say of what kind a value is
_LITTLE_ENDIAN = re.compile(re.escape(_IMPLICIT) + rb"(\.1|\.4\.\d+|\.5)?")
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # kinds whose length has 32 bits
_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())  # 16 bits
_UNDEFINED = 0xFFFFFFFF
_JPEG_DAMAGE = re.compile(rb"corrupt jpeg data|premature end", re.IGNORECASE)


@dataclass(frozen=True)
class Kind:
    """What the header of any DICOM image says of its kind."""

    description: str
    """SeriesDescription; ProtocolName, or SequenceName, where it is empty."""
    image_type: str


@dataclass(frozen=True)
class Slice(Kind):
    """What a slice's header says; of its fields, only those that are used here."""

    path: Path
    series: str
    """SeriesInstanceUID."""
    participant: str
    """PatientID."""
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
    echo: int = 0
    """EchoNumbers, from 1; 0 if it does not say."""
    echo_time: float = 0.0
    """EchoTime in ms; 0 if it does not say."""
    repeats: tuple[str, ...] = ()
    """The header's texts of :data:`REPEATS`."""

    @property
    def height(self) -> float:
        """Where the slice lies along its normal, in mm."""
        return float(np.cross(*self.directions) @ self.position)

    def difference(self, item: Slice) -> str:
        """In what another slice differs; the participant's number is not shown."""
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


def is_dicom(path: Path) -> bool:
    """Whether a file says at its 128th byte that it is DICOM."""
    with open(path, "rb") as handle:
        handle.seek(128)
        return handle.read(4) == b"DICM"


def _overruns(data: bytes) -> bool:
    """Whether an element of a DICOM file is longer than the rest of the file, or of no kind that there is.

    GDCM would guess what is meant, and set aside gigabytes for it. Looked at are files in little endian, up to the end
    of their pixels.
    """
    place, syntax, packed = 132, b"", False
    while place + 8 <= len(data):
        tag, kind = data[place : place + 4], data[place + 4 : place + 6]
        meta, item = tag[:2] == _SYNTAX[:2], tag[:2] == _END[:2]
        if not meta and not _LITTLE_ENDIAN.fullmatch(syntax):
            return not syntax
        if packed and (tag == _END or not item):
            return not item
        explicit = meta or (syntax != _IMPLICIT and not item)
        if explicit and kind not in _LONG | _SHORT:
            return True
        start = place + (12 if explicit and kind in _LONG else 8)
        length = int.from_bytes(data[start - (2 if explicit and kind in _SHORT else 4) : start], "little")
        defined = length != _UNDEFINED
        if defined and start + length > len(data):
            return True
        if tag == _SYNTAX:
            syntax = data[start : start + length].rstrip(b"\0 ")
        if (tag == _PIXELS and defined) or (kind == b"UN" and explicit and not defined):
            return False
        packed = packed or tag == _PIXELS
        into = not defined or (explicit and kind == b"SQ") or (item and not packed)
        place = start + (0 if into else length)
    return False


def _read_header(path: Path) -> tuple[SimpleITK.ImageFileReader, dict[str, str], Kind]:
    """Its reader, its texts by their tags, its kind."""
    reader = _reader(path)
    unsound = VolumeError(f"{path}: is not a valid DICOM slice; copy or download it again")
    try:
        if _overruns(path.read_bytes()):
            raise unsound
        reader.ReadImageInformation()
    except (RuntimeError, OSError) as error:
        raise unsound from error
    tags = {key: reader.GetMetaData(key).strip(" \0") for key in reader.GetMetaDataKeys()}
    description = tags.get("0008|103e") or tags.get("0018|1030") or tags.get("0018|0024", "")
    return reader, tags, Kind(description, tags.get("0008|0008", ""))


def read_kind(path: Path) -> Kind:
    """Read of what kind an image is, be it a slice or not.

    Raises:
        VolumeError: its header is damaged.
    """
    return _read_header(path)[2]


def read_slice(path: Path) -> Slice:
    """Read the header of one slice.

    Raises:
        VolumeError: it is damaged, or not the slice of a volume.
    """
    reader, tags, kind = _read_header(path)
    if reader.GetDimension() > 2 and (frames := reader.GetSize()[2]) > 1:
        raise VolumeError(f"{path}: has {frames} frames; export it with one slice a file")
    try:
        directions = np.array([float(part) for part in tags["0020|0037"].split("\\")]).reshape(2, 3)
        position = np.array([float(part) for part in tags["0020|0032"].split("\\")]).reshape(3)
        between_rows, between_columns = (float(part) for part in tags["0028|0030"].split("\\"))
    except (KeyError, ValueError) as error:
        raise VolumeError(f"{path}: has no position, orientation or voxel size; leave it out") from error
    numbers = np.array([*directions.ravel(), *position, between_rows, between_columns])
    if not (np.isfinite(numbers).all() and np.abs(numbers).max() < _FARTHEST_MM):
        raise VolumeError(
            f"{path}: has a position, orientation or voxel size that is not a plausible number; leave it out"
        )
    if (components := reader.GetNumberOfComponents()) != 1:
        raise VolumeError(
            f"{path}: has colours, {components} values per voxel; leave it out or convert it to grey values"
        )
    if min(between_rows, between_columns) <= 0 or not np.allclose(directions @ directions.T, np.eye(2), atol=1e-3):
        size = f"{between_columns:g} × {between_rows:g} mm"
        raise VolumeError(f"{path}: voxel size {size} or directions make no grid; leave it out or export it again")
    return Slice(
        path=path,
        series=tags.get("0020|000e", ""),
        participant=tags.get("0010|0020", ""),
        description=kind.description,
        image_type=kind.image_type,
        side=tags.get("0020|0060") or tags.get("0020|0062", ""),
        shape=(reader.GetSize()[0], reader.GetSize()[1]),
        spacing=(between_columns, between_rows),
        directions=directions,
        position=position,
        acquired=_whole(tags.get("0020|1002", "")),
        number=_whole(tags.get("0020|0013", "")),
        echo=_whole(tags.get("0018|0086", "")),
        echo_time=_number(tags.get("0018|0081", "")),
        repeats=tuple(tags.get(tag, "") for tag in REPEATS.values()),
    )


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 7 else 0


def _number(text: str) -> float:
    try:
        return float(text) if np.isfinite(float(text)) else 0.0
    except ValueError:
        return 0.0


def check_slices(slices: Sequence[Slice], unread: int = 0, others: int = 0, chosen: bool = False) -> list[str]:
    """Whether slices make one volume: complete, equally spaced within 1e-3 mm, of one orientation and one series.

    Args:
        slices: of one folder and one echo.
        unread: how many more there are that could not be read, and so are not missing.
        others: how many slices of other echoes the folder holds.
        chosen: the user named the echo, so that the number acquired may count other echoes, which are not here.

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
    usual = usual_slice(slices)
    problems, stack = [], []
    for item in slices:
        if other := usual.difference(item):
            problems.append(
                f"{item.path}: is a foreign slice, of another {other} than the others in its folder; remove it"
            )
        else:
            stack.append(item)
    return problems + _check_stack(stack, unread, others, chosen)


def split_echoes(slices: Sequence[Slice]) -> dict[int, list[Slice]]:
    """The slices of each echo by its number: EchoNumbers, or the order of the echo times where these alone differ.

    Echo times that differ tell echoes apart only where slices would lie at one place otherwise. Slices without a number
    among those that have one stay with the first.
    """
    counts = Counter(item.echo for item in slices if item.echo)
    numbers = sorted(number for number, count in counts.items() if count > 1)  # one alone is a foreign slice
    if len(numbers) > 1:
        return {
            k: [item for item in slices if (item.echo if item.echo in numbers else numbers[0]) == k] for k in numbers
        }
    by_time: dict[float, list[Slice]] = {}
    for item in slices:
        by_time.setdefault(round(item.echo_time, 2), []).append(item)
    if len(by_time) > 1 and 0 not in by_time and _repeated(slices) and not any(map(_repeated, by_time.values())):
        return {k: by_time[time] for k, time in enumerate(sorted(by_time), 1)}
    return {numbers[0] if numbers else 0: list(slices)}


def _repeated(slices: Sequence[Slice]) -> bool:
    """Whether two slices lie at one place."""
    heights = sorted(item.height for item in slices)
    return any(b - a < POSITION_TOLERANCE_MM for a, b in pairwise(heights))


def _several(slices: Sequence[Slice]) -> str:
    """What the slices of one place are several of, such as temporal positions; empty if the headers do not tell."""
    for place, name in enumerate(REPEATS):
        groups: dict[str, list[Slice]] = {}
        for item in slices:
            groups.setdefault(item.repeats[place] if item.repeats else "", []).append(item)
        if len(groups) > 1 and not any(map(_repeated, groups.values())):
            counts = ", ".join(f"{len(group)} slices" for group in groups.values())
            return f"{len(groups)} {name} of the same places ({counts})"
    return ""


def usual_slice(slices: Sequence[Slice]) -> Slice:
    """One of the slices that agree with most others."""

    def key(item: Slice) -> tuple[object, ...]:
        return (item.series, item.participant, item.shape, *np.round([*item.spacing, *item.directions.ravel()], 3))

    usual, _ = Counter(map(key, slices)).most_common(1)[0]
    return next(item for item in slices if key(item) == usual)


def _check_stack(slices: Sequence[Slice], unread: int, others: int, chosen: bool) -> list[str]:
    """Faults of the positions, and of the number, of slices of one series."""
    folder = slices[0].path.parent
    problems: list[str] = []
    stack: list[Slice] = []
    if _repeated(slices) and (several := _several(slices)):
        return [f"{folder}: holds {several}; keep the slices of one in it, and move the others away"]
    for item in sorted(slices, key=lambda item: (item.height, item.path.name)):
        if stack and item.height - stack[-1].height < POSITION_TOLERANCE_MM:
            where = f"{stack[-1].path.name} lies at {item.height:.3f} mm too"
            problems.append(f"{item.path}: is a duplicated slice, {where}; remove one of them")
        else:
            stack.append(item)
    if len(problems) > _SHOWN:
        more = f"{folder}: holds {len(problems) - _SHOWN} more duplicated slices; remove one of each two"
        problems = [*problems[:_SHOWN], more]
    if len(stack) == 1:
        return problems if unread else [*problems, f"{folder}: holds one slice; copy them all"]
    distances = np.diff([item.height for item in stack])
    usual = float(np.quantile(distances, 0.25, method="lower"))  # slices may be missing at most places
    gaps, inside, unequal = [], 0, []
    for (a, b), distance in zip(pairwise(stack), distances, strict=True):
        between = f"between {a.path.name} ({a.height:.3f} mm) and {b.path.name} ({b.height:.3f} mm)"
        if (missing := round(distance / usual) - 1) > 0:
            gaps.append(between)
            inside += missing
        elif abs(distance - usual) > POSITION_TOLERANCE_MM:
            unequal.append(f"{folder}: slices are {distance:.4f} mm apart {between}, not {usual:.4f} mm; leave it out")
    if inside > unread:
        where = (" or " if unread else " and ").join(gaps if len(gaps) <= 5 else [*gaps[:5], "elsewhere"])
        problems.append(_missing(folder, inside - unread, unread > 0, where))
    acquired, highest, counted = _acquired(stack, others, chosen)
    # numbers beyond those acquired count something else, such as all slices of an examination
    known = max(inside, unread)
    if max(item.number for item in stack) <= highest and len(stack) < acquired - known:
        where = f"of the {acquired} acquired{counted}"
        problems.append(_missing(folder, acquired - known - len(stack), known > 0, where))
    if unequal:
        return [*problems, unequal[0]]  # a slice out of place makes two
    places = np.stack([item.position for item in stack])
    along = (places[-1] - places[0]) / np.linalg.norm(places[-1] - places[0])
    aside = places - places[0]
    aside -= np.outer(aside @ along, along)
    aligned = abs(along @ np.cross(*stack[0].directions)) > 1 - _DIRECTION_TOLERANCE
    if np.linalg.norm(aside, axis=1).max() > POSITION_TOLERANCE_MM or not aligned:
        problems.append(f"{folder}: slices are shifted against each other, so they lie on no grid; leave it out")
    return problems


def _acquired(stack: Sequence[Slice], others: int, chosen: bool) -> tuple[int, int, str]:
    """How many slices of this echo were acquired (0 if unknown), up to which number, and what to say if some lack.

    ImagesInAcquisition counts one echo or all of them. It counts all where they are not more than it says.
    """
    acquired = Counter(item.acquired for item in stack).most_common(1)[0][0]
    count, echo = len(stack), stack[0].echo
    if others:
        echoes = round((count + others) / count)
        return (acquired // echoes, acquired, "") if count + others <= acquired else (acquired, echoes * acquired, "")
    if not echo or acquired % count or acquired == count:
        return acquired, acquired, ""
    numbers = [item.number for item in sorted(stack, key=lambda item: item.height)]
    between = set(np.abs(np.diff(numbers)).tolist())
    if chosen or echo > 1 or between == {acquired // count}:  # of others before, or in between
        return count, acquired, ""
    return acquired, acquired, f", or these are those of other echoes: if so, import it with --echo {echo}"


def _missing(folder: Path, count: int, more: bool, where: str) -> str:
    slices = f"{'more ' if more else ''}{'slice is' if count == 1 else 'slices are'}"
    return f"{folder}: {count} {slices} missing {where}; copy or download them again"


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
            plane = _read_pixels(_reader(item.path))
        except RuntimeError as error:
            raise VolumeError(
                f"{item.path}: its pixels cannot be read; copy or download it again, or decompress it"
            ) from error
        planes.append(plane.reshape(item.shape[::-1]).T)
    return Volume(np.stack(planes, axis=-1), slices_affine(slices))


def _read_pixels(reader: SimpleITK.ImageFileReader) -> np.ndarray:
    """The pixels of a slice.

    GDCM's libjpeg only prints that they are damaged, to file descriptor 2, and goes on. So what is printed meanwhile
    is read; all else of it is printed afterwards.

    Raises:
        RuntimeError: they cannot be read, or are damaged.
    """
    if sys.stderr is not None:
        sys.stderr.flush()
    kept, (end, start) = os.dup(2), os.pipe()
    os.set_blocking(end, False)
    os.set_blocking(start, False)  # what is beyond its 64 KiB is lost, rather than waited for
    try:
        os.dup2(start, 2)
        image = reader.Execute()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(start)
        lines: list[bytes] = []
        with suppress(OSError):
            lines = os.read(end, 1 << 20).splitlines(keepends=True)
        os.close(end)
        damage = [line for line in lines if _JPEG_DAMAGE.search(line)]
        with suppress(OSError):
            os.write(2, b"".join(line for line in lines if line not in damage))
    if damage:
        raise RuntimeError(damage[0].decode(errors="replace").strip())
    return np.asarray(SimpleITK.GetArrayFromImage(image))


def _reader(path: Path) -> SimpleITK.ImageFileReader:
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader
