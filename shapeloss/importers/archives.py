"""Archives, zip or tar, from which single files are taken, wherever they lie; nothing in them is trusted."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from shapeloss._files import PARTIAL, atomic, file_hash
from shapeloss.data.headers import VolumeError
from shapeloss.data.names import volume_ending
from shapeloss.data.volume import read_labels, read_volume
from shapeloss.importers.writer import Entry, RawCase

LARGEST = 2**31
"""Bytes that one file of an archive may have: a whole DESS knee has 5e7."""
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError, ValueError, RuntimeError)


@dataclass(frozen=True)
class Member:
    """One file of an archive."""

    archive: str
    """Where the archive lies, for messages."""
    name: str
    size: int
    """Bytes, as declared."""
    key: str
    """Tells contents apart without reading them."""
    open: Callable[[], IO[bytes]]

    def extract(self, target: Path) -> None:
        """Extract the file; its checksum is compared on the way, where the archive has one.

        Raises:
            VolumeError: it is too large or damaged.
        """
        if self.size > LARGEST:
            raise VolumeError(
                f"{self.archive}: its entry {self.name} would have {self.size} bytes, which is not a plausible scan; "
                "get another copy of the archive"
            )
        try:
            with self.open() as stream, atomic(target) as temporary, open(temporary, "wb") as handle:
                shutil.copyfileobj(stream, handle, 1 << 20)
        except (*_DAMAGE, OverflowError, LookupError) as error:
            raise VolumeError(
                f"{self.archive}: its entry {self.name} is damaged ({error}); download the archive again"
            ) from error


def read_zip(file: Path | IO[bytes], name: str) -> list[Member]:
    """The files of a zip; a path may occur twice in it.

    Raises:
        VolumeError: it is no zip, or has an entry that leads out of its folder, or a link.
    """
    try:
        archive = zipfile.ZipFile(file)
        infos = archive.infolist()
    except (*_DAMAGE, OverflowError, LookupError) as error:
        raise VolumeError(f"{name}: is not a valid zip archive ({error}); download it again") from error
    except OSError as error:  # positions before the file's start
        if error.errno != errno.EINVAL:
            raise
        raise VolumeError(f"{name}: is not a valid zip archive ({error.strerror}); download it again") from error
    members = []
    for info in infos:
        _refuse_escape(name, info.filename, link=(info.external_attr >> 16) & 0o170000 == 0o120000)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise VolumeError(f"{name}: its entry {info.filename} is packed in an unusual way; pack it with deflate")
        if not info.filename:
            raise VolumeError(f"{name}: has an entry without a name; download it again")
        if not info.is_dir():
            key = f"{info.filename} {info.CRC:08x} {info.file_size}"
            opened: Callable[[], IO[bytes]] = lambda info=info: archive.open(info)  # type: ignore[misc]  # noqa: E731
            members.append(Member(name, info.filename, info.file_size, key, opened))
    return members


def read_tar(path: Path, digest: str) -> dict[str, Member]:
    """The files of an uncompressed tar, by their path in it.

    Args:
        path: of the archive.
        digest: its hash, which stands for the contents.

    Raises:
        VolumeError: it is no tar, or has an entry that leads out of its folder, a link or a device.
    """
    members = {}
    try:
        archive = tarfile.open(path, "r:")  # noqa: SIM115 - open as long as its members are
        for info in archive:
            _refuse_escape(str(path), info.name, link=not (info.isfile() or info.isdir()))
            if info.isfile():
                members[info.name] = Member(
                    str(path),
                    info.name,
                    info.size,
                    f"{digest} {info.name}",
                    lambda info=info: _file(archive, info),  # type: ignore[misc]
                )
    except VolumeError:
        raise
    except _DAMAGE as error:
        raise VolumeError(f"{path}: is not a valid tar archive ({error}); download it again") from error
    return members


def archive_entry(image: Member, label: Member, output: Path) -> Entry:
    """A case whose image and labels lie in archives.

    They are extracted right into the output folder, by names that the next import sweeps away: what a kill leaves in
    a temporary folder would stay.
    """

    def read() -> RawCase:
        members = {"image": image, "labels": label}
        paths = [
            output / f"{PARTIAL}{os.getpid()}-{kind}{volume_ending(m.name) or PurePosixPath(m.name).suffix}"
            for kind, m in members.items()
        ]
        try:
            for member, path in zip(members.values(), paths, strict=True):
                member.extract(path)
            inputs = {member.name: file_hash(path) for member, path in zip(members.values(), paths, strict=True)}
            return RawCase(read_volume(paths[0]), read_labels(paths[1]), inputs)
        except VolumeError as error:
            text = str(error).replace(str(paths[0]), f"{image.archive}, {image.name}")
            raise VolumeError(text.replace(str(paths[1]), f"{label.archive}, {label.name}")) from error
        finally:
            for path in paths:
                path.unlink(missing_ok=True)

    return Entry(f"{image.key} {label.key}", read)


def _file(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = archive.extractfile(info)
    if stream is None:
        raise tarfile.TarError("it is no file")
    return stream


def _refuse_escape(archive: str, member: str, link: bool) -> None:
    path = PurePosixPath(member.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        raise VolumeError(
            f"{archive}: its entry {member} leads out of the folder; nothing was extracted, get another copy"
        )
    if link:
        raise VolumeError(f"{archive}: its entry {member} is a link; nothing was extracted, get another copy")
