"""OAIZIB-CM: 507 DESS knees of the Osteoarthritis Initiative with label maps, on the Hugging Face Hub (CC BY-NC 4.0).

By default the archives are read on the Hub member by member, so that forty knees cost about 1 GB instead of 12; each
member's CRC-32 is compared as it is extracted, and its SHA-256 is kept in the record. Whole archives can be fetched
too, or may be there already; the record says of each case how its archives were checked. The environment variable
HF_ENDPOINT names another server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from huggingface_hub import HfApi, HfFileSystem, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from shapeloss._files import file_hash
from shapeloss.data.headers import VolumeError
from shapeloss.data.volume import Volume
from shapeloss.importers.archives import Member, archive_entry, read_zip
from shapeloss.importers.writer import Entry, Labels, RawCase, Source

REPOSITORY = "YongchengYAO/OAIZIB-CM"
REVISION = "ba18c844309f6288b51772fd79a8f7cdb6aabc01"
SOURCE = Source("OAIZIB-CM", REVISION, "CC BY-NC 4.0", f"https://huggingface.co/datasets/{REPOSITORY}")
LABELS = Labels({1: "femur", 3: "tibia"})
"""Of its five: 1 femur, 2 femoral cartilage, 3 tibia, 4 medial and 5 lateral tibial cartilage. There is no patella."""
_MEDIAL, _LATERAL = 4, 5
TRAINING_CASES = 404
"""Numbers 1 to 404 lie in imagesTr.zip and labelsTr.zip, 405 to 507 in imagesTs.zip and labelsTs.zip."""
ALL_CASES = 507
_BLOCKS = {"images": 1 << 23, "labels": 1 << 18}  # bytes to ask for at a time: an image has 2e7, a label map 2e5
_HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]  # of whichever HTTP library the Hub's client uses


def default_cases() -> list[int]:
    """The 40 cases of the profile: 30 evenly spaced in the official training set, and 10 in the official test set.

    The numbering follows no property of the knees that is known; even spacing takes from every part of it. The ten are
    `data.split.test_cases` of the profile, so that what is tested here is official test data.

    >>> default_cases()[:4], default_cases()[29:]
    ([1, 14, 27, 41], [391, 405, 415, 425, 435, 446, 456, 466, 477, 487, 497])
    """
    training = [1 + index * TRAINING_CASES // 30 for index in range(30)]
    return training + [TRAINING_CASES + 1 + index * (ALL_CASES - TRAINING_CASES) // 10 for index in range(10)]


def parse_cases(text: str) -> list[int]:
    """`"1,5,400-404"` → [1, 5, 400, 401, 402, 403, 404].

    Raises:
        ValueError: anything else, or a number that is no case.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise ValueError(f"cases must be written as 1,5,400-404; got {text!r}")
        if not 1 <= int(first) <= int(last or first) <= ALL_CASES:
            raise ValueError(f"cases are numbered 1 to {ALL_CASES}, ranges go upwards; got {part.strip()!r}")
        numbers.update(range(int(first), int(last or first) + 1))
    return sorted(numbers)


def find_entries(
    cases: Sequence[int], output: Path, archives: Path | None = None, download: bool = False
) -> tuple[dict[str, Entry], list[str]]:
    """The cases with their files, and what is wrong with the archives.

    Args:
        cases: numbers, 1 to 507.
        output: folder of the import, where files are extracted.
        archives: folder with the zip files; None reads them on the Hub, member by member.
        download: fetch the archives that are missing there, and compare the SHA-256 of each with the Hub's.
    """
    if download and archives is None:
        raise ValueError("--download fetches whole archives: name the folder for them by --archives")
    found: dict[str, Entry] = {}
    problems: list[str] = []
    for part, test in (("Tr", False), ("Ts", True)):
        numbers = [number for number in cases if (number > TRAINING_CASES) is test]
        if not numbers:
            continue
        opened: dict[str, dict[str, list[Member]]] = {}
        checks: dict[str, str] = {}
        for archive in (f"images{part}.zip", f"labels{part}.zip"):
            try:
                opened[archive], checks[archive] = _members(archive, archives, download)
            except (VolumeError, OSError) as error:
                problems.append(str(error))
                if isinstance(error, ConnectionError):  # which the other would meet too
                    break
        if len(opened) < 2:
            continue
        for number in numbers:
            name = f"oaizib_{number:03d}"
            pair, faults = [], []
            for (archive, members), file in zip(opened.items(), (f"{name}_0000.nii.gz", f"{name}.nii.gz"), strict=True):
                first, *more = members.get(file, [None])
                if first is None:
                    faults.append(f"case {name}: {archive} holds no {file}; is it the archive of another version?")
                elif more:
                    places = " and ".join(member.name for member in (first, *more))
                    faults.append(
                        f"case {name}: {first.archive} holds {len(more) + 1} files {file} ({places}); "
                        "take out all but the right one, or get another copy"
                    )
                else:
                    pair.append(first)
            problems += faults
            if not faults:
                entry = archive_entry(pair[0], pair[1], output)
                found[name] = Entry(entry.key, _reader(entry, checks, on_hub=archives is None))
    return found, problems


def knee_side(labels: Volume) -> str:
    """Left or right, empty if unclear: the medial tibial cartilage lies towards the other knee."""
    array = labels.oriented("RAS").array  # X from left to right
    medial, lateral = (np.flatnonzero((array == label).any(axis=(1, 2))) for label in (_MEDIAL, _LATERAL))
    if not medial.size or not lateral.size or medial.mean() == lateral.mean():
        return ""
    return "right" if medial.mean() < lateral.mean() else "left"


def _members(archive: str, archives: Path | None, download: bool) -> tuple[dict[str, list[Member]], str]:
    """The files of an archive, and how it was checked; by bare name: copies differ in the folder that they pack."""
    how = "CRC-32 of each file"
    if archives is None:
        place = f"datasets/{REPOSITORY}@{REVISION}/{archive}"
        with _hub_errors(place):
            file = HfFileSystem(skip_instance_cache=True).open(place, "rb", block_size=_BLOCKS[archive[:6]])
            members = read_zip(file, f"{SOURCE.url}, {archive}")
    else:
        path = archives / archive
        if download:
            how = f"SHA-256 {_download(path)}, as the Hub has it"
        if not path.is_file():
            raise VolumeError(f"{path}: there is no such archive; download it from {SOURCE.url}, or add --download")
        members = read_zip(path, str(path))
    by_name: dict[str, list[Member]] = {}
    for member in members:
        if "__MACOSX" not in member.name:
            by_name.setdefault(PurePosixPath(member.name).name, []).append(member)
    return by_name, how


def _download(path: Path) -> str:
    """Fetch a whole archive, going on where an earlier call broke off, and compare its SHA-256, which is returned.

    `hf_hub_download` would begin again: its partial files have another name in each call.
    """
    partial = path.with_name(f"{path.name}.partial")
    fetched = path if path.is_file() else partial
    with _hub_errors(path.name):
        info = HfApi().get_paths_info(REPOSITORY, path.name, revision=REVISION, repo_type="dataset")[0]
        expected = str(getattr(getattr(info, "lfs", None), "sha256", None) or "")
        if not expected:
            raise VolumeError(f"{SOURCE.url}, {path.name}: the Hub gives no SHA-256 to compare; try again later")
        if fetched == partial:
            path.parent.mkdir(parents=True, exist_ok=True)
            url = hf_hub_url(REPOSITORY, path.name, repo_type="dataset", revision=REVISION)
            with open(partial, "ab") as file:
                size, start = getattr(info, "size", None), file.tell()
                http_get(url, file, resume_size=start, headers=build_hf_headers(), expected_size=size)
    if file_hash(fetched) != expected:
        raise VolumeError(f"{fetched}: its SHA-256 is not {expected}, that of {SOURCE.url}; delete it and try again")
    fetched.replace(path)
    return expected


def _reader(entry: Entry, checks: Mapping[str, str], on_hub: bool) -> Callable[[], RawCase]:
    def read() -> RawCase:
        with _hub_errors("its files") if on_hub else nullcontext():
            raw = entry.read()
        side = knee_side(raw.labels) if raw.labels else ""
        return replace(raw, facts={"archives": dict(checks)} | ({"side": side} if side else {}))

    return read


@contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    """Errors of the connection, after the client's own attempts, as one class; those of the disk pass."""
    try:
        yield
    except (_HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConnectionError(
            f"{what} cannot be read on the Hub ({reason}); check the connection, or download the archives from "
            f"{SOURCE.url} and use --archives"
        ) from error
