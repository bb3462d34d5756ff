"""Names of volumes: endings, cases, what is not read, and what lies in a folder."""

from __future__ import annotations

import errno
import re
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from shapeloss.data.headers import VolumeError, data_name, read_header

FORMATS = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".nhdr", ".mha", ".mhd")
"""Endings that can be read."""
UNREADABLE = (
    *(".img", ".img.gz", ".hdr", ".mgz", ".mgh", ".mnc", ".nrrd.gz", ".raw", ".raw.gz", ".zraw", ".dcm", ".ima"),
    *(".gipl", ".gipl.gz", ".vtk", ".vti", ".tif", ".tiff"),
)
"""Endings of other volumes: such a file is named, never passed over."""
ARRAYS = (".npy", ".npz", ".mat", ".h5", ".zarr")
"""Endings of what may be a volume: a problem where no volume of that name is read (else it is one's probabilities)."""
_NO_LETTERS = ("Cc", "Cs", "Zl", "Zp")  # Unicode's controls, halves of letters (bytes that are no UTF-8), line breaks


def volume_ending(path: str | Path) -> str:
    """The ending among :data:`FORMATS`, or an empty string."""
    name = Path(path).name.lower()
    return next((ending for ending in FORMATS if name.endswith(ending)), "")


def volume_name(path: str | Path) -> str:
    """A file's name without its ending: what cases are matched by."""
    name = Path(path).name
    return name[: len(name) - len(volume_ending(path))]


def case_name(path: str | Path) -> str:
    """As :func:`volume_name`, of a volume in a format that is not read too: which case it would be."""
    name = Path(path).name
    others = (ending for ending in (*UNREADABLE, *ARRAYS) if name.lower().endswith(ending))
    return volume_name(path) if volume_ending(path) else name.removesuffix(name[len(name) - len(next(others, "")) :])


def unreadable_fault(path: str | Path) -> str:
    """What to say of a file that is a volume by its name and is not read; empty for any other file."""
    name = Path(path).name.lower()
    if name.startswith(".") or volume_ending(name):
        return ""
    if name.endswith(UNREADABLE):
        return "is in a format that is not read, so it is left out; convert it to .nii.gz"
    if part := re.search(rf"({'|'.join(map(re.escape, FORMATS))})\b.+$", name):
        return f"ends in {part[0]}, so it is left out; complete or unpack it, and rename it to …{part[1]}"
    return ""


def fold(problems: Sequence[str], shown: int = 3) -> list[str]:
    """Problems of one kind together: each in its own line, or the first few and a count.

    Two are of one kind if they differ in names, paths and numbers only.

    >>> fold([f"k{n}: has no truth in b by the name k{n}; add it" for n in range(40)])[-1]
    '… and 37 more like the line above (40 in all)'
    """
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        path, _, fault = problem.partition(": ")
        if name := volume_name(path):
            fault = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "…", fault)
        kinds.setdefault(re.sub(r"\S*(/|\d)\S*", "…", fault), []).append(problem)
    return [
        line
        for lines in kinds.values()
        for line in (
            lines
            if len(lines) <= shown + 1
            else [*lines[:shown], f"… and {len(lines) - shown} more like the line above ({len(lines)} in all)"]
        )
    ]


def one_line(text: str) -> str:
    """A message on one line that can be printed, whatever letters a file's name has."""
    shown = "".join(repr(x)[1:-1] if unicodedata.category(x) in _NO_LETTERS else x for x in text)
    return shown.encode("utf-8", "backslashreplace").decode()


def name_fault(name: str) -> str:
    """What is wrong with the name of a file, whether or not there is such a file; empty if nothing is."""
    if any(unicodedata.category(x) in _NO_LETTERS for x in name):
        return "has a line break, or what is not a letter of UTF-8, in its name; rename it"
    if any(len(part.encode()) > 255 for part in name.split("/")) or len(name.encode()) > 4000:
        return "has too long a name; rename it"
    return ""


_FORBIDDEN = re.compile(r'[<>:"/\\|?*]')
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)


def portable_name_fault(name: str, others: Iterable[str] = ()) -> str:
    """Why a name, with or without an ending, cannot be that of a file on every system; empty if it can.

    Args:
        name: of a case, a training or a profile, without a folder.
        others: names of what lies in the same folder.

    >>> portable_name_fault("aux.nii.gz")
    'is a name that Windows keeps for a device'
    """
    if found := _FORBIDDEN.search(name):
        return f"has {found[0]} in its name, which not every system allows"
    if not name or name[-1] in ". " or any(unicodedata.category(x) in _NO_LETTERS for x in name):
        return "is empty, ends in a dot or a space, or has a line break, which not every system allows"
    if _DEVICE.fullmatch(name):
        return "is a name that Windows keeps for a device"
    if same := next((other for other in others if other.casefold() == name.casefold()), ""):
        return f"is {same} but for upper and lower case, which Windows and macOS do not tell apart"
    return ""


def link_fault(path: Path, folder: Path) -> str:
    """Does a path lead out of a folder, or nowhere? Empty if it stays inside."""
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
        if path.is_symlink():
            path.stat()
    except FileNotFoundError:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (RuntimeError, OSError) as error:  # a circle is a RuntimeError before Python 3.13
        if isinstance(error, RuntimeError) or error.errno == errno.ELOOP:
            return "is a link that leads back to itself; put the file itself there"
        return f"cannot be followed ({error.strerror}); put the file itself there"
    return "" if inside else f"is a link that leads out of {folder}; put the file itself there"


def find_volumes(folder: str | Path, notes: list[str] | None = None) -> tuple[dict[str, Path], list[str]]:
    """The volumes right in a folder: ({name: path}, problems).

    A name that occurs twice or that cannot be written, a link that leads out of the folder, and a volume in a format
    that is not read are problems, and left out. `notes` gets a line with what else lies there, but for hidden files.
    """
    folder = Path(folder)
    by_name: dict[str, list[Path]] = {}
    unread, others = unused_files(folder)
    problems = [one_line(f"{folder / name}: {fault}") for name, fault in unread.items()]
    if notes is not None and others:
        notes.append(unused_note(folder, others))
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not volume_ending(path) or path.is_dir():
            continue
        if fault := name_fault(path.name) or link_fault(path, folder):
            problems.append(one_line(f"{path}: {fault}"))
        else:
            by_name.setdefault(volume_name(path), []).append(path)
    for name, (first, *more) in by_name.items():
        problems += [f"{path}: is a second volume of case {name}, beside {first.name}; remove one" for path in more]
    return {name: paths[0] for name, paths in by_name.items() if len(paths) == 1}, problems


def unused_files(folder: Path) -> tuple[dict[str, str], list[str]]:
    """What lies in a folder and is no volume that is read: ({name of a volume: its fault}, other names).

    Hidden files are passed over, and so are the data files of the headers that lie there.
    """
    names = sorted(path.name for path in folder.glob("[!.]*"))
    stems = {volume_name(name) for name in names if volume_ending(name)}
    rest = [name for name in names if not volume_ending(name) or (folder / name).is_dir()]
    data: set[str] = set()
    for path in (folder / name for name in names if rest and not volume_ending(name).startswith((".nii", ".mha"))):
        with suppress(VolumeError, OSError):  # named when it is read
            data |= {file.name for file in volume_files(path)} if volume_ending(path) else set()
    rest = [name for name in rest if name not in data]
    faults = {name: fault for name in rest if (fault := unreadable_fault(name))}
    for name in rest:
        stem, dot, ending = name.rpartition(".")
        if dot + ending.lower() in ARRAYS and stem not in stems:
            faults[name] = "is in a format that is not read, so it is left out; convert it to .nii.gz"
    return faults, [name + "/" * (folder / name).is_dir() for name in rest if name not in faults]


def unused_note(
    folder: Path, names: Sequence[str], why: str = "they are no volumes by their names", shown: int = 3
) -> str:
    """A line on files that are not used, and are no fault."""
    more = f" and {len(names) - shown} more" if len(names) > shown + 1 else ""
    listed = ", ".join(names[:shown] if more else names)
    return one_line(f"{folder}: not used ({why}): {listed}{more}")


def volume_files(path: Path) -> list[Path]:
    """The files that a volume lies in: the data of a header may lie beside it.

    Raises:
        VolumeError: the header is broken.
    """
    ending = volume_ending(path)
    if ending.startswith(".nii") or not path.is_file():
        return [path]
    name = data_name(read_header(path))
    return [path] if name.upper() == "LOCAL" else [path, path.parent / name]


def parse_labels(text: str) -> dict[int, str]:
    """`"1:femur,3:tibia"` → {1: "femur", 3: "tibia"}.

    Raises:
        ValueError: anything else, and a label or a name that occurs twice.
    """
    pairs = [part.partition(":") for part in text.split(",")]
    if not all(label.strip().isdigit() and name.strip() for label, _, name in pairs):
        raise ValueError(f"labels must be written as 1:femur,3:tibia; got {text!r}")
    labels = {int(label): name.strip() for label, _, name in pairs}
    if len(labels) < len(pairs) or len(set(labels.values())) < len(pairs) or 0 in labels:
        raise ValueError(f"each label above 0 and each name must occur once; got {text!r}")
    return labels


def parse_remap(text: str) -> dict[int, int]:
    """`"7:1,8:3"` → {7: 1, 8: 3}.

    Raises:
        ValueError: anything else, and an old label that occurs twice.
    """
    pairs = [part.partition(":") for part in text.split(",")]
    if not all(old.strip().isdigit() and new.strip().isdigit() for old, _, new in pairs):
        raise ValueError(f"a remapping must be written as old:new,old:new, such as 7:1,8:3; got {text!r}")
    if len({int(old) for old, _, _ in pairs}) < len(pairs):
        raise ValueError(f"each old label can become one new label; got {text!r}")
    return {int(old): int(new) for old, _, new in pairs}
