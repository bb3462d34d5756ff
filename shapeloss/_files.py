"""Writing files so that none is ever half-written, and telling contents apart by their hash."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has none: nothing is locked there
    fcntl = None  # type: ignore[assignment]

WINDOWS = os.name == "nt"
FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk, or a share of one, that is full."""
PARTIAL = ".partial-"
"""How names begin that `sweep` removes."""


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends, and vanishes when it fails.

    The temporary name keeps the ending of `path`, because many writers choose the format by it. Errors name `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = "".join(path.suffixes[-2:])
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=PARTIAL, suffix=suffix)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    os.close(handle)
    os.chmod(name, 0o644)
    try:
        yield Path(name)
        with open(name, "r+b") as written:  # Windows flushes only what may be written
            os.fsync(written.fileno())
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and (error.errno in FULL or error.filename == name):
            # a write that fails does not say where
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def remove_partial_files(folder: Path, depth: int = 1) -> None:
    """Remove what :func:`atomic` left in a folder, and up to `depth` levels below it, when its process was killed.

    Links to folders are not followed.
    """
    for where, folders, names in os.walk(folder):
        if len(Path(where).relative_to(folder).parts) >= depth:
            folders.clear()
        for name in names:
            if name.startswith(PARTIAL):
                with suppress(OSError):
                    (Path(where) / name).unlink()


def os_error_message(error: OSError, folder: Path, goes_on: bool = True) -> str:
    """Why something could not be read or written, and what to do; `folder` is named where the error names no place.

    `goes_on`: the command, run again, goes on from where it was, rather than from its start.
    """
    again = "run the same command again" + (", which goes on from there" if goes_on else "")
    place = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else folder
    if error.errno in FULL:
        temporary = Path(tempfile.gettempdir())
        if place.is_relative_to(temporary) and not place.is_relative_to(folder):
            remedy = "free space there, or set TMPDIR to a folder with more, and run the same command again"
            return f"the disk is full at {temporary}; {remedy}"
        return f"the disk is full at {place}; free space and {again}"
    if error.errno == errno.EROFS:
        return f"{place}: cannot be written ({error.strerror}); choose a folder on another disk"
    if isinstance(error, PermissionError):
        opened = ", or close the program that has it open" if WINDOWS else ""
        return f"{place}: cannot be written or read ({error.strerror}); change its permissions{opened}"
    if error.errno is None or isinstance(error, (ConnectionError, TimeoutError)):
        return f"{error}; {again}"
    return f"{place}: {error.strerror}; correct that and {again}"


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically; the bytes are the same on every system."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, readable and in the order given."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def locked(path: str | Path, waiting: str = "") -> Iterator[int]:
    """Hold an exclusive lock, which the system drops when the last process that holds it ends, however it ends.

    Where another process holds it, `waiting` is printed with that process, and the block starts when it is done. On a
    disk or a system (Windows) without locks the block starts at once, and a line says so if there is a `waiting`.
    Yields the file descriptor, to be inherited by processes that should hold the lock too.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as handle:  # to append: who waits does not wipe the holder's name
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "this system has no such locks")
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                print(waiting + _holder(path), flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if waiting:
                print(
                    f"{path}: cannot be locked ({error.strerror}); do not start this command twice at a time",
                    flush=True,
                )
        with suppress(OSError):  # a full disk: the lock holds without a name
            handle.truncate(0)
            name = [os.getpid(), platform.node(), time.strftime("%d %B %H:%M:%S"), sys.argv]
            os.write(handle.fileno(), json.dumps(name).encode())
        try:
            yield handle.fileno()
        finally:
            with suppress(OSError):  # names, paths and machines do not stay in a data set
                handle.truncate(0)


@contextmanager
def try_locked(path: Path) -> Iterator[bool]:
    """Hold a lock, if no other process holds it: yields whether it does. True on a disk or a system without locks."""
    with open(path, "a", encoding="utf-8") as handle:
        try:
            if fcntl:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass
        yield True


def _holder(path: Path) -> str:
    """Which process wrote its name into a lock, and how to end it; empty where none did."""
    try:
        process, node, since, command = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    end = f"; to end it: kill {process}" if node == platform.node() else ""
    return f" (process {process} on {node} since {since}: {shlex.join(command)}{end})"


@contextmanager
def exclusive(folder: Path, lock: str, waiting: str) -> Iterator[None]:
    """Wait until no other process writes into the folder under this lock: each would sweep away what the other writes.

    Where no lock can be had (a folder that cannot be written, a disk without locks), go on without one. A folder
    into which nothing is written is not made.
    """
    made = not folder.exists()
    with ExitStack() as stack:
        with suppress(OSError):
            stack.enter_context(locked(folder / lock, waiting))
        try:
            yield
        finally:
            with suppress(OSError):
                if made and [path.name for path in folder.iterdir()] == [lock]:
                    (folder / lock).unlink()
                    folder.rmdir()


def content_hash(*parts: bytes | str) -> str:
    """Short SHA-256 of some content: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file: 64 hexadecimal digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
