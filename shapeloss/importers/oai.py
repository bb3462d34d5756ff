"""OAI: DESS knees as DICOM slices, from one's own access to the Osteoarthritis Initiative (NIMH Data Archive).

The archive unpacks to `<visit>/<site>/<participant>/<date>/<series>/`, slices without extension. A DESS is told by its
headers: SeriesDescription (ProtocolName or SequenceName where that is empty) contains DESS, and neither it nor
ImageType speaks of a reformat (MPR) or a localiser. Participant, visit and side name a case, and pair it with its
label map; of all personal fields none is kept, no date either.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from shapeloss._files import file_hash
from shapeloss.data.headers import VolumeError
from shapeloss.data.names import link_fault, volume_ending, volume_files
from shapeloss.data.volume import Volume
from shapeloss.importers.dicom import (
    POSITION_TOLERANCE_MM,
    Kind,
    Slice,
    check_slices,
    is_dicom,
    read_kind,
    read_slice,
    read_stack,
    split_echoes,
    usual_slice,
)
from shapeloss.importers.writer import Entry, Labels, RawCase, Source, file_key, read_placed

SOURCE = Source("OAI", "own access", "OAI data use agreement (NIMH Data Archive)", "https://nda.nih.gov/oai")
LABELS = Labels({1: "femur", 3: "tibia", 5: "patella"}, {7: 1, 8: 3, 9: 5})
"""Manual label maps: cartilages 2, 4, 6 become background, lesions 7, 8, 9 the bones that they lie in."""
VISITS = {0: "00m", 1: "12m", 2: "18m", 3: "24m", 4: "30m", 5: "36m", 6: "48m", 8: "72m", 10: "96m"}
"""Number of a visit, as in V00 and in names of image releases (0.E.1) → months since the baseline."""
_PARTICIPANT = re.compile(r"(?<!\d)9\d{6}(?!\d)")
COMBINED = "rss"
"""The choice of all echoes, combined by the root of their sum of squares."""
_SIDES = {"L": "LEFT", "LEFT": "LEFT", "R": "RIGHT", "RIGHT": "RIGHT"}


@dataclass(frozen=True)
class OaiKnee:
    """What tells one DESS from another; an empty field is not known."""

    participant: str = ""
    """Seven digits, the study's pseudonym."""
    visit: str = ""
    """A value of :data:`VISITS`."""
    side: str = ""
    """LEFT or RIGHT."""

    @property
    def name(self) -> str:
        """Of the case: `9000099_00m_LEFT`."""
        return "_".join(part for part in (self.participant, self.visit, self.side) if part)

    def fits(self, other: OaiKnee) -> bool:
        """Whether both may be the same knee at the same visit."""
        pairs = ((self.visit, other.visit), (self.side, other.side))
        return all(not a or not b or a == b for a, b in ((self.participant, other.participant), *pairs))


def parse_knee(text: str) -> OaiKnee:
    """Participant, visit and side from the name of a file or folder.

    >>> parse_knee("9000099_V00_LEFT.nii.gz")
    OaiKnee(participant='9000099', visit='00m', side='LEFT')
    >>> parse_knee("00m/0.E.1/9000099/20050107/10001703").name
    '9000099_00m'
    """
    participant = _PARTICIPANT.search(text)
    words = re.split(r"[^A-Za-z0-9]+", text.upper())
    visit = next((word.lower() for word in words if word.lower() in VISITS.values()), "")
    number = re.search(r"(?<![A-Z0-9])V(\d\d)(?![A-Z0-9])", text.upper())
    number = number or re.search(r"(?<![^/])(\d+)\.[A-Z]\.\d", text)  # an image release, such as 0.E.1
    sides = {_SIDES[word] for word in words if word in _SIDES}
    return OaiKnee(
        participant[0] if participant else "",
        visit or (VISITS.get(int(number[1]), "") if number else ""),
        sides.pop() if len(sides) == 1 else "",
    )


def is_dess(item: Kind) -> bool:
    """The rule of the module's docstring."""
    text = f"{item.description} {item.image_type}".upper()
    return "DESS" in item.description.upper() and "MPR" not in text and "LOCALIZER" not in text


def find_entries(
    tree: Path,
    masks: Path | None = None,
    visit: str = "",
    participants: Collection[str] = (),
    progress: bool = True,
    echo: str = "",
    mask_orientation: str = "",
) -> tuple[dict[str, Entry], list[str]]:
    """The DESS series of a tree with their label maps, and what is wrong with them.

    Args:
        tree: folder with DICOM slices, at any depth.
        masks: folder of label maps (NIfTI, MetaImage, NRRD), at any depth, whose paths name the participant, and visit
            and side where a participant has several series. Series without a label map are passed over. None imports
            the images alone, for prediction.
        visit: a value of :data:`VISITS`; empty for all.
        participants: to import; empty for all.
        progress: show a bar while headers are read.
        echo: which echo to take, such as "1", or "rss" for all of them by the root of their sum of squares. Empty for
            series of one echo; a series with several is then a problem.
        mask_orientation: where the axes of label maps without a pose run to, such as RSA: see
            :func:`shapeloss.data.poses.place_labels`.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no such visit or echo.
    """
    if echo and echo != COMBINED and not (echo.isdecimal() and int(echo)):
        raise ValueError(f"an echo is a number from 1 or {COMBINED}; got {echo!r}")
    for folder in (tree, masks):
        if folder is not None and not folder.is_dir():
            raise FileNotFoundError(f"{folder}: there is no such folder; check the name")
    if visit and visit not in VISITS.values():
        raise ValueError(f"there is no visit {visit!r}; choose one of {', '.join(VISITS.values())}")
    labels, problems = _find_masks(masks, visit, participants) if masks else ({}, [])
    only = set(participants) or {knee.participant for knee in labels.values()}
    series: dict[OaiKnee, _Series] = {}
    seen: dict[OaiKnee, Path] = {}
    broken: set[OaiKnee] = set()
    other_echoes: dict[OaiKnee, _Series | None] = {}
    for folder, slices, faults, found in _find_series(tree, only, progress, echo):
        knee, other = _knee(folder, slices, tree), _usual_participant(slices)
        if (visit and knee.visit not in ("", visit)) or (only and knee.participant and knee.participant not in only):
            continue
        if slices and not knee.side:
            faults.append(f"{folder}: {_side_fault(slices)}")
        if slices and not knee.participant:
            faults.append(f"{folder}: neither folders nor headers have a participant of the OAI; leave it out")
        elif other not in ("", knee.participant):
            faults.append(f"{folder}: its headers say participant {other}; put it into the folder of that participant")
        elif knee.side and knee in seen:
            series.pop(knee, None)
            faults.append(f"{folder}: {_second(knee, seen[knee], found, other_echoes.get(knee))}")
        else:
            seen[knee], other_echoes[knee] = folder, found
        if faults or not found:
            problems += faults
            broken |= _possible_knees(knee, other, slices)
        else:
            series[knee] = found
    if masks:
        return _pair(series, labels, broken, problems, mask_orientation)
    known = {knee.participant for knee in [*series, *broken]}
    missing = [] if "" in known else sorted(only - known)
    problems += [f"{tree}: has no DESS of participant {participant}; add it" for participant in missing]
    if not series and not problems:
        problems.append(f"{tree}: holds no DESS; give the folder above <visit>/<site>/<participant>")
    return {knee.name: _entry(knee, found, None) for knee, found in sorted(series.items(), key=_by_name)}, problems


@dataclass(frozen=True)
class _Series:
    """What is taken of a DESS."""

    stacks: tuple[Sequence[Slice], ...]
    """Slices of the echo that was chosen; of each echo, if they are combined."""
    times: Mapping[int, float]
    """Number of each echo that was found → its echo time in ms; 0 if not known."""
    taken: str
    """The choice: empty if there was none to make."""


def _choose_echo(folder: Path, slices: Sequence[Slice], echo: str) -> tuple[_Series | None, str]:
    """The slices of the requested echo, or why they cannot be had."""
    echoes = split_echoes(slices)
    times = {number: found[0].echo_time for number, found in echoes.items()}
    named = ", ".join(
        f"{number}: {len(found)} slices" + (f" at {times[number]:g} ms" if times[number] else "")
        for number, found in echoes.items()
    )
    if not echo:
        if len(echoes) == 1:
            return _Series((slices,), times, ""), ""
        options = ", ".join(f"--echo {number}" for number in echoes)
        return None, (
            f"{folder}: holds {len(echoes)} echoes ({named}); choose one by {options}, or combine them by "
            f"--echo {COMBINED} (root of the sum of squares)"
        )
    if len(echoes) == 1 and (echo == COMBINED or 0 in echoes):
        which = f"one echo ({named})" if 0 not in echoes else "no number of an echo in its headers"
        return None, f"{folder}: --echo {echo} was asked for, but the series has {which}; import it without --echo"
    if echo == COMBINED:
        return _Series(tuple(echoes.values()), times, echo), ""
    if int(echo) not in echoes:
        return None, f"{folder}: has no echo {echo}, only {named}; choose another by --echo, or leave the series out"
    return _Series((echoes[int(echo)],), times, echo), ""


def _check_series(folder: Path, slices: Sequence[Slice], found: _Series, unread: int) -> list[str]:
    """Faults of what is taken of a DESS."""
    faults = []
    for stack in found.stacks:
        faults += check_slices(stack, unread, len(slices) - len(stack), bool(found.taken))
    places = [np.sort([item.height for item in stack]) for stack in found.stacks]
    if not faults and any(len(a) != len(b) or np.abs(a - b).max() > POSITION_TOLERANCE_MM for a, b in pairwise(places)):
        counts = " and ".join(str(len(stack)) for stack in found.stacks)
        faults.append(f"{folder}: its echoes lie at different places ({counts} slices); choose one by --echo")
    return faults


def _second(knee: OaiKnee, first: Path, found: _Series | None, other: _Series | None) -> str:
    """What is wrong with a second series of a knee."""
    if found and other and not {*found.times} & {*other.times} and 0 not in {*found.times, *other.times}:
        numbers = ", ".join(map(str, sorted([*found.times, *other.times])))
        return (
            f"is another echo of case {knee.name}, beside {first}; put the slices of echoes {numbers} into one folder, "
            f"and choose by --echo"
        )
    return f"is a second DESS of case {knee.name}, beside {first}; move one of them away"


def _by_name(item: tuple[OaiKnee, Any]) -> str:
    return item[0].name


def _find_folders(tree: Path) -> Iterator[tuple[Path, str]]:
    """Each folder of a tree, by name, and why its files cannot be found; empty if they can.

    Links are not followed: one that stays inside of the tree leads to a folder that is found anyway.
    """
    waiting = [tree]
    while waiting:
        folder = waiting.pop()
        if folder != tree and folder.is_symlink():
            if fault := link_fault(folder, tree):
                yield folder, fault
            continue
        try:
            os.stat(os.path.join(folder, os.curdir))  # the dot asks for more, and a path drops it
            inside = sorted(path for path in folder.iterdir() if os.path.isdir(path))
        except OSError as error:
            yield folder, f"cannot be read ({error.strerror}); change its permissions"
            continue
        yield folder, ""
        waiting += reversed(inside)


def _find_series(
    tree: Path, participants: Collection[str], progress: bool, echo: str
) -> Iterator[tuple[Path, list[Slice], list[str], _Series | None]]:
    """Folders with a DESS, its slices, what is wrong with it, and what is taken; only of these participants, if any."""
    folders = list(_find_folders(tree))
    for folder, shut in tqdm(folders, desc="read headers", unit="folder", disable=not progress):
        named = _PARTICIPANT.search(folder.relative_to(tree).as_posix())
        if named and participants and named[0] not in participants:
            continue
        if shut:
            yield folder, [], [f"{folder}: {shut}"], None
            continue
        files, doubtful = [], {}
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or os.path.isdir(path) or path.stem.upper() == "DICOMDIR":
                continue
            if fault := _file_fault(path, tree):
                doubtful[path] = fault
            else:
                files.append(path)
        names = {_pattern(path) for path in files}
        faults = [
            f"{path}: {fault}"
            for path, fault in doubtful.items()
            if _pattern(path) in names or path.suffix.lower() in (".dcm", ".ima")
        ]
        if not files or not _any_dess(files, whole=bool(faults)):
            continue
        slices = []
        for path in files:
            try:
                slices.append(read_slice(path))
            except VolumeError as error:
                faults.append(str(error))
        if not slices:
            yield folder, slices, faults, None
            continue
        found, fault = _choose_echo(folder, slices, echo)
        more = _check_series(folder, slices, found, unread=len(faults)) if found else [fault]
        yield folder, slices, faults + more, found


def _file_fault(path: Path, tree: Path) -> str:
    """Why the header of a file cannot be read, were it a slice; empty if it can."""
    if fault := link_fault(path, tree):
        return fault
    try:
        if not path.stat().st_size:
            return "is empty (0 bytes); copy or download it again"
        return "" if is_dicom(path) else "is named like a slice but is not a DICOM file; copy it again, or remove it"
    except OSError as error:
        return f"cannot be read ({error.strerror}); change its permissions"


def _pattern(path: Path) -> str:
    """What the names of a series' slices have in common, whatever their numbers: `im-#.dcm`."""
    return re.sub(r"[0-9a-f]*[0-9][0-9a-f]*", "#", path.name.lower())


def _any_dess(files: Sequence[Path], whole: bool = False) -> bool:
    """Whether a file is of a DESS, or none can be read; series of other kinds need not be read whole to know."""
    known = []
    for path in files if whole else {files[0], files[len(files) // 2], files[-1]}:
        try:
            known.append(is_dess(read_kind(path)))
        except VolumeError:
            if not whole:
                return _any_dess(files, whole=True)
    return any(known) or not known


def _knee(folder: Path, slices: Sequence[Slice], tree: Path) -> OaiKnee:
    """Which knee slices show: their folders name the participant and the visit, the headers the side."""
    place = parse_knee(folder.absolute().relative_to(tree.absolute().parent).as_posix())
    sides = _sides(slices, usual=True)
    side = next(iter(sides)) if len(sides) == 1 else ""
    return OaiKnee(place.participant or _usual_participant(slices), place.visit, side)


def _sides(slices: Sequence[Slice], usual: bool = False) -> set[str]:
    """Sides that the headers of a DESS name, all of them or only those of its usual slices, if these are a DESS."""
    found = [item for item in slices if is_dess(item)]
    if usual and found:
        like = usual_slice(slices)
        found = [item for item in found if not like.difference(item)] or found
    named = {parse_knee(item.description).side for item in found}
    return (named | {_SIDES.get(item.side.upper(), "") for item in found}) - {""}


def _side_fault(slices: Sequence[Slice]) -> str:
    if _sides(slices, usual=True):
        return (
            "its headers say both LEFT and RIGHT; correct SeriesDescription or Laterality, or put each knee into a "
            "folder of its own"
        )
    return "its headers say neither LEFT nor RIGHT; correct SeriesDescription or Laterality"


def _possible_knees(knee: OaiKnee, other: str, slices: Sequence[Slice]) -> set[OaiKnee]:
    """Knees that a faulty folder may hold, so that they are not said to be missing; as far as they are known.

    Args:
        other: whom the headers name.
    """
    side = knee.side if len(_sides(slices)) == 1 else ""
    if other not in ("", knee.participant):
        return {OaiKnee(knee.participant, knee.visit), OaiKnee(other, side=side)}
    return {OaiKnee(knee.participant, knee.visit, side)} if knee.participant or not slices else set()


def _usual_participant(slices: Sequence[Slice]) -> str:
    """The participant that most headers name, if it is one of the OAI."""
    usual = Counter(item.participant for item in slices).most_common(1)
    return usual[0][0] if usual and _PARTICIPANT.fullmatch(usual[0][0]) else ""


def _find_masks(folder: Path, visit: str, participants: Collection[str]) -> tuple[dict[Path, OaiKnee], list[str]]:
    """Label maps of the requested visit and participants, with the knees that their paths name."""
    found, problems, lacking = {}, [], set(participants)
    requested = {"", *participants}
    for place, shut in _find_folders(folder):
        for path in [place] if shut else sorted(place.iterdir()):
            if not shut and (path.name.startswith(".") or not volume_ending(path) or os.path.isdir(path)):
                continue
            knee = parse_knee(path.relative_to(folder).as_posix())
            if not knee.fits(OaiKnee(visit=visit)) or (participants and knee.participant not in requested):
                continue
            if fault := shut or link_fault(path, folder):
                problems.append(f"{path}: {fault}")
            elif not knee.participant:
                problems.append(f"{path}: its name has no participant of the OAI, seven digits; rename it")
            else:
                found[path] = knee
            if shut and not knee.participant:
                lacking.clear()  # they may all be there
            lacking.discard(knee.participant)
    names = sorted(OaiKnee(participant, visit).name for participant in lacking)
    problems += [f"{folder}: has no label map of {name}, which is asked for; add it" for name in names]
    if not found and not problems:
        problems.append(f"{folder}: holds no label map that is asked for; give NIfTI, MetaImage or NRRD files")
    return found, problems


def _pair(
    series: dict[OaiKnee, _Series],
    labels: dict[Path, OaiKnee],
    broken: set[OaiKnee],
    problems: list[str],
    mask_orientation: str,
) -> tuple[dict[str, Entry], list[str]]:
    """Series with their label maps; each mask must fit one series, each series at most one mask."""
    masks_of: dict[OaiKnee, list[Path]] = {}
    for path, knee in labels.items():
        fitting = [candidate for candidate in series if candidate.fits(knee)]
        if len(fitting) == 1:
            masks_of.setdefault(fitting[0], []).append(path)
        elif fitting:
            names = ", ".join(sorted(candidate.name for candidate in fitting))
            problems.append(f"{path}: fits {names}; name the visit and the side, such as {fitting[0].name}")
        elif not any(candidate.fits(knee) for candidate in broken):
            own = {c.name for c in [*series, *broken] if c.participant == knee.participant}
            others = ", ".join(sorted(own)) or "none"
            problems.append(f"{path}: no DESS of {knee.name} was found (of this participant: {others}); add its slices")
    entries = {}
    for knee, found in sorted(series.items(), key=_by_name):
        if len(paths := masks_of.get(knee, [])) > 1:
            names = ", ".join(str(path) for path in paths)
            problems.append(
                f"case {knee.name}: {len(paths)} label maps fit it ({names}); name visit and side, or remove one"
            )
        elif paths:
            entries[knee.name] = _entry(knee, found, paths[0], mask_orientation)
    return entries, problems


def _entry(knee: OaiKnee, found: _Series, mask: Path | None, mask_orientation: str = "") -> Entry:
    stacks = [sorted(stack, key=lambda item: item.height) for stack in found.stacks]
    paths = [item.path for stack in found.stacks for item in stack]

    def read() -> RawCase:
        image = _combined([read_stack(stack) for stack in stacks])
        labels, placed = read_placed(mask, image, mask_orientation) if mask else (None, {})
        # names of files and folders may hold names of people, and dates
        ordered = [item for stack in stacks for item in stack]
        inputs = {f"slice {k:03d}": file_hash(item.path) for k, item in enumerate(ordered, 1)}
        inputs |= {
            f"label map{volume_ending(path) or ', data'}": file_hash(path)
            for path in (volume_files(mask) if mask else [])
        }
        facts: dict[str, Any] = {"participant": knee.participant, "visit": knee.visit, "side": knee.side.lower()}
        if found.taken:
            facts |= {"echoes_ms": {str(number): time for number, time in found.times.items()}, "echo": found.taken}
        return RawCase(image, labels, inputs, facts | placed)

    return Entry(file_key(*paths, *([mask] if mask else [])) + (mask_orientation if mask else ""), read)


def _combined(echoes: Sequence[Volume]) -> Volume:
    """The root of the sum of squares of echoes; one echo as it is."""
    if len(echoes) == 1:
        return echoes[0]
    squares = sum(np.square(echo.array, dtype=np.float64) for echo in echoes)
    return Volume(np.sqrt(squares).astype(np.float32), echoes[0].affine)


def read_participants(path: Path) -> list[str]:
    """The seven-digit numbers in a text file.

    Lines that hold neither such a number nor a word that begins with a digit are headings.

    Raises:
        ValueError: the file cannot be read, has none, or has lines with something else; all of these are named.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{path}: the file of participants cannot be read ({error.strerror}); check its name and permissions"
        ) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}: line {line} is not text in UTF-8; save the file as UTF-8") from error
    if "\0" in text:
        raise ValueError(f"{path}: line 1 is not text in UTF-8; save the file as UTF-8")
    wrong = [number for number, line in enumerate(text.splitlines(), 1) if _mistyped(line)]
    if wrong:
        fault = "has no participant of the OAI, seven digits beginning with 9; correct or remove it"
        raise ValueError("\n".join(f"{path}: line {number} {fault}" for number in wrong))
    found = _PARTICIPANT.findall(text)
    if not found:
        raise ValueError(f"{path}: has no participant of the OAI, seven digits beginning with 9; one a line")
    return found


def _mistyped(line: str) -> bool:
    """Whether a line has a word that should be a participant, such as 90000O2 for 9000002."""
    digits = re.search(r"(?<!\w)\d", line) and not line.lstrip().startswith("#")
    letters = re.search(r"(?<!\w)9(?=\d*[OoIl])[\dOoIl]{6}(?!\w)", line)  # beside a sound one
    return bool(letters or (digits and not _PARTICIPANT.search(line)))
