"""What a file is that is no volume of the kind that its name says: the fault and the remedy right for it."""

from __future__ import annotations

from pathlib import Path

_FOREIGN = (
    ((b"<!doctype html", b"<html"), "is a web page, perhaps of a log-in or an error; get the file itself"),
    ((b"<?xml",), "is a text in XML, perhaps the error of a server; get the file itself"),
    ((b"version https://git-lfs",), "is a pointer of Git LFS, not the file itself; fetch it with git lfs pull"),
    (
        (b"/annex/objects", b"../.git/annex"),
        "is a pointer of git-annex, not the file itself; run git annex get",
    ),
    ((b"pk\x03\x04",), "is a zip archive; unpack it"),
    ((b"bzh",), "is packed by bzip2; unpack it"),
    ((b"\xfd7zxz",), "is packed by xz; unpack it"),
    ((b"7z\xbc\xaf",), "is a 7-Zip archive; unpack it"),
)
"""Beginnings in small letters, and what is said of them."""
_FORMATS = (
    ((b"nrrd000",), (".nrrd", ".nhdr"), "NRRD", ".nrrd"),
    ((b"objecttype", b"ndims"), (".mha", ".mhd"), "MetaImage", ".mha"),
)
"""Beginnings of other formats, the endings that say so, and how they are called."""


def foreign_content(path: Path) -> str:
    """The fault of a file whose content is not what its name says, with the remedy; empty if nothing is seen.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as stream:
        start = stream.read(512)
    name, packed = path.name.lower(), start.startswith(b"\x1f\x8b")
    if name.endswith(".nii.gz") and not packed and _starts_nifti(start):
        return f"is not packed, although its name ends in .gz; rename it to {path.name[:-3]}"
    if name.endswith(".nii") and packed:
        return f"is packed by gzip, although its name does not end in .gz; rename it to {path.name}.gz"
    return "" if packed and name.endswith(".nii.gz") else foreign_start(start, name)


def foreign_start(start: bytes, name: str) -> str:
    """The fault of a file, by its first bytes and its name in small letters; empty if nothing is seen."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    for beginnings, fault in _FOREIGN:
        if text.startswith(beginnings):
            return fault
    for beginnings, endings, kind, ending in _FORMATS:
        if text.startswith(beginnings) and not name.endswith(endings):
            return f"is a file in {kind} by its content; rename it to end in {ending}"
    if start[128:132] == b"DICM":
        return "is a DICOM file; convert it to .nii.gz"
    if ".nii" not in name and _starts_nifti(start):
        return "is a file in NIfTI by its content; rename it to end in .nii"
    if start.startswith(b"\x1f\x8b"):
        return "is packed by gzip more often than its name says; unpack it once"
    return ""


def _starts_nifti(start: bytes) -> bool:
    """Does it begin with the size of a NIfTI-1 or NIfTI-2 header, in either byte order?"""
    return start[:4] in [size.to_bytes(4, order) for size in (348, 540) for order in ("little", "big")]
