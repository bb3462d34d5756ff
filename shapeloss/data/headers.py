"""What the readers of volumes accept in silence, found before they read: data cut off, without end, or elsewhere."""

from __future__ import annotations

import os
import re
import sys
import zlib
from pathlib import Path
from typing import Any, BinaryIO

_HEADER_BYTES = 1 << 20  # a segmentation of a hundred structures has 60 kB
_METAIMAGE_NUMBERS = {
    "DimSize": 3, "ElementSpacing": 3, "ElementSize": 3, "Offset": 3, "Position": 3, "Origin": 3, "TransformMatrix": 9,
    "Rotation": 9, "Orientation": 9, "CenterOfRotation": 3, "ElementNumberOfChannels": 1, "HeaderSize": 1,
    "CompressedDataSize": 1, "ElementMin": 1, "ElementMax": 1, "ElementToIntensityFunctionSlope": 1,
    "ElementToIntensityFunctionOffset": 1,
}  # fmt: skip
_MILLIMETRES = ("", "mm", "millimeter", "millimeters", "millimetre", "millimetres")
_TRAILING = 1 << 20  # bytes that some writers leave behind the data


class VolumeError(ValueError):
    """A file that is not a valid volume. The message names the file, the fault and what to do."""


def check_expanded(path: Path, stream: Any, declared: int) -> None:
    """Expand packed data piece by piece, to the end, where the checksum stands.

    The readers take memory for what a header declares, stop there, and pass over what is missing or comes after.

    Raises:
        VolumeError: it holds fewer bytes than its header declares, or many more.
    """
    held = 0
    while chunk := stream.read(min(1 << 20, declared + _TRAILING + 1 - held)):
        held += len(chunk)
        if held > declared + _TRAILING:
            raise VolumeError(
                f"{path}: expands beyond the {declared} bytes that its header declares; copy or download it again"
            )
    check_length(path, held, declared)


def check_length(path: Path, held: int, declared: int) -> None:
    """A file that ends early.

    Raises:
        VolumeError: it holds fewer bytes than its header declares.
    """
    if held < declared:
        raise VolumeError(
            f"{path}: ends after {held} of the {declared} bytes that its header declares; copy or download it again"
        )


def itk_format(path: Path) -> str:
    """NRRD or MetaImage, by the file's ending."""
    return "NRRD" if path.name.lower().endswith((".nrrd", ".nhdr")) else "MetaImage"


def read_header(path: Path) -> str:
    """The header of an NRRD or MetaImage file, up to its data.

    Raises:
        VolumeError: no voxel size, for which ITK takes 1 mm; data in a file somewhere else; a field that is
            not a number.
    """
    with open(path, "rb") as handle:
        text = handle.read(_HEADER_BYTES).decode("latin-1")  # one letter a byte: UTF-8 passes through
    nrrd = itk_format(path) == "NRRD"
    if nrrd:
        end, size = r"\n\r?\n", r"^(?:space directions|spacings):(?!=)(.*)$"
        if not text.startswith("NRRD"):
            raise VolumeError(f"{path}: does not start with NRRD, so it is no such file; check how it was made")
    else:
        end, size = r"^ElementDataFile.*\n", r"^Element(?:Spacing|Size)\s*=(.*)$"
    flags = re.MULTILINE | (re.IGNORECASE if nrrd else re.NOFLAG)
    if stop := re.search(end, text, flags):
        text = text[: stop.end()]
    (_check_layers if nrrd else _check_metaimage)(path, text)
    sizes = re.search(size, text, flags)
    if not sizes or re.search("nan|none", sizes[1], re.IGNORECASE):
        raise VolumeError(f"{path}: has no voxel size in its header; add it in mm (it must not be guessed)")
    units = set(re.findall(r'"([^"\n]*)"', _keys(text).get("spaceunits", ""))) if nrrd else set()
    if foreign := sorted(unit for unit in units if unit.strip().lower() not in _MILLIMETRES):
        raise VolumeError(f"{path}: gives voxel sizes in {', '.join(foreign)[:40]}; write them in mm")
    name = data_name(text)
    if name.upper() == "LOCAL":
        return text
    if name.upper().startswith("LIST") or "%" in name or "\0" in name:
        raise VolumeError(f"{path}: spreads its data over several files; convert it to one file")
    inside = path.parent.resolve()
    if not (inside / name).resolve().is_relative_to(inside):
        raise VolumeError(f"{path}: takes its data from {name}, outside its folder; put that file beside it")
    if not (inside / name).is_file():
        raise VolumeError(f"{path}: its data file {name} is missing; put it beside the header")
    return text


def _check_layers(path: Path, header: str) -> None:
    """Does it hold several volumes: layers of a segmentation editor, whose structures may overlap, or channels?"""
    keys = _keys(header)
    sizes = keys.get("sizes", "").split()
    directions = re.findall(r"none|\([^)]*\)", keys.get("spacedirections", "").lower())
    if len(sizes) != 4 or len(directions) != 4 or "none" not in directions:
        return
    count = sizes[directions.index("none")]
    if path.name.lower().endswith(".seg.nrrd") or re.search(r"^Segment\d+_\w+:=", header, re.MULTILINE):
        raise VolumeError(
            f"{path}: holds {count} segmentation layers, whose structures may overlap; export them as one label map "
            "(in 3D Slicer: Segmentations, Export to new labelmap)"
        )
    raise VolumeError(
        f"{path}: has {count} values per voxel; one volume (X, Y, Z) was expected, so split or convert it"
    )


def _check_metaimage(path: Path, header: str) -> None:
    """Fields that are no numbers, or not as many as their names say: ITK writes beyond its memory for some of them."""
    lines = [line.removesuffix("\r") for line in header.split("\n") if line.strip()]  # splitlines: at \x85 too
    # ITK copies fields of other formats into its headers: dim[0], ITK_original_direction, 0010|0020
    odd = [line for line in lines if not re.fullmatch(r"\w[\w\[\].|-]* *=[^\x00-\x08\x0a-\x1f]{0,1000}", line)]
    names = [line.partition("=")[0].strip() for line in lines]
    if odd or len(set(names)) < len(names) or "ElementDataFile" not in names:
        shown = f" near {odd[0][:40]!r}" if odd else ""
        raise VolumeError(f"{path}: has a broken MetaImage header{shown}; check how it was made")
    fields = {name: line.partition("=")[2].split() for name, line in zip(names, lines, strict=True)}
    axes = fields.get("NDims", ["no"])
    if axes != ["3"]:
        raise VolumeError(
            f"{path}: has {' '.join(axes)} axes; one volume (X, Y, Z) was expected, so split or convert it"
        )
    for name, count in _METAIMAGE_NUMBERS.items():
        values = fields.get(name, ["0"] * count)
        if len(values) != count or not all(re.fullmatch(r"[-+.\deE]{1,40}", value) for value in values):
            raise VolumeError(
                f"{path}: has {name} = {' '.join(values)[:60]}; {count} number(s) were expected: correct it"
            )


def _keys(header: str) -> dict[str, str]:
    """The fields of an NRRD or MetaImage header, in small letters and without spaces; `datafile` in both."""
    pairs = re.findall(r"^([^:=\n#]+)(?::(?!=)|=)(.*)$", header, re.MULTILINE)  # key:=value is free text of an NRRD
    keys = {key.strip().lower().replace(" ", ""): value.strip() for key, value in pairs}
    return {key.replace("elementdatafile", "datafile"): value for key, value in keys.items() if value}


def data_name(header: str) -> str:
    """Name of the file with the data, or LOCAL."""
    return os.fsdecode(_keys(header).get("datafile", "LOCAL").encode("latin-1"))


def check_data(path: Path, header: str, declared: int) -> None:
    """Is there as much data as the header declares? ITK fills with zeros what is missing of a MetaImage.

    Raises:
        VolumeError: there is less, or more without end.
    """
    keys, name = _keys(header), data_name(header)
    if itk_format(path) == "NRRD":
        how = keys.get("encoding", "raw").lower()
        packed = how in ("gzip", "gz")
    else:
        packed = keys.get("compresseddata", "").lower() in ("true", "1")
        how = "text" if keys.get("binarydata", "true").lower() in ("false", "0") else "raw"
    if not packed and how != "raw":
        raise VolumeError(f"{path}: has its data as {how}; write them raw or with gzip")
    local = name.upper() == "LOCAL"
    with open(path if local else path.parent / name, "rb") as handle:
        handle.seek(len(header) if local else 0)
        if packed:
            stream = _Deflated(handle, int(keys.get("compresseddatasize", 0)))
            check_expanded(path, stream, declared)
        else:
            check_length(path, os.fstat(handle.fileno()).st_size - handle.tell(), declared)


class _Deflated:
    """Packed data as a stream: zlib's form (MetaImage) or gzip's (NRRD)."""

    def __init__(self, handle: BinaryIO, packed_bytes: int) -> None:
        self.handle, self.left = handle, packed_bytes or sys.maxsize
        self.expand = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def read(self, size: int) -> bytes:
        while not self.expand.eof:
            packed = self.expand.unconsumed_tail or self.handle.read(min(1 << 16, self.left))
            if not self.expand.unconsumed_tail:
                self.left -= len(packed)
            if not packed:
                raise EOFError("its packed data end too early")
            if data := self.expand.decompress(packed, size):
                return data
        return b""
