"""The one place that writes an imported data set: Decathlon layout, and a record of where each file came from.

`imagesTr/<case>.nii.gz` and `labelsTr/<case>.nii.gz` (without truth: `imagesTs/<case>.nii.gz`) lie on the scan's own
grid, never resampled; `dataset.json` lists them; `import.json` is the record. A second import verifies what is there
and writes nothing; one that was interrupted goes on with the cases that are missing. `dataset.json` is written at the
end, so that half an import is no data set. Of two imports into one folder the second waits for the first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from tqdm.auto import tqdm

from shapeloss._files import (
    FULL,
    PARTIAL,
    content_hash,
    exclusive,
    file_hash,
    os_error_message,
    remove_partial_files,
    write_text,
)
from shapeloss.data.headers import VolumeError
from shapeloss.data.manifest import IMPORT_RECORD
from shapeloss.data.names import fold, name_fault, one_line, portable_name_fault, volume_files
from shapeloss.data.poses import place_labels, pose_fault
from shapeloss.data.volume import Volume, grid_difference, image_fault, read_labels, read_volume, write_nifti

FORMAT = 2
"""Of `import.json`: cases in a record of another format are imported anew."""
IMPORT_LOCK = ".import.lock"


class ImportProblems(ValueError):
    """What was wrong with an import; the message lists every problem, many of one kind with a count. Sound cases were
    written."""

    def __init__(self, output: Path, problems: Sequence[str], written: int) -> None:
        self.problems = [one_line(problem) for problem in problems]
        lines = "".join(f"\n  - {problem}" for problem in fold(self.problems))
        super().__init__(f"{len(problems)} problem(s); {output} holds the {written} sound case(s){lines}")


@dataclass(frozen=True)
class Source:
    """Where data come from."""

    name: str
    version: str
    licence: str
    url: str
    modality: str = "MRI"
    place: str = ""
    """A hash of where it lies, if on disk: two folders of one name are two sources."""


@dataclass(frozen=True)
class Labels:
    """Which labels of the source become structures 1 … K − 1, in this order; all others become background."""

    names: Mapping[int, str]
    """Label, after merging → name of the structure."""
    merge: Mapping[int, int] = field(default_factory=dict)
    """Old label → new label, applied first; other labels stay."""
    complete: bool = False
    """These are all the labels that a source declares, so that another one is a fault; False: they were chosen."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= 255:
            raise ValueError(f"name 1 to 255 structures, such as 1:femur,3:tibia; got {len(self.names)}")
        if 0 in self.names:
            raise ValueError("label 0 is the background, and cannot be a structure")

    def apply(self, labels: np.ndarray) -> np.ndarray:
        """Labels of the source → uint8 labels 0 … K − 1.

        >>> Labels({1: "femur", 3: "tibia"}, merge={7: 1}).apply(np.array([0, 1, 2, 3, 7]))
        array([0, 1, 0, 2, 1], dtype=uint8)
        """
        order = {label: number for number, label in enumerate(self.names, start=1)}
        new = np.zeros(labels.shape, np.uint8)
        for label in {*self.names, *self.merge}:
            if number := order.get(self.merge.get(label, label)):
                new[labels == label] = number
        return new

    def unknown(self, labels: np.ndarray) -> list[int]:
        """Labels of the source that are, after merging, neither background nor a structure."""
        known = {0, *self.names}
        return [label for label in np.unique(labels).tolist() if self.merge.get(label, label) not in known]


@dataclass(frozen=True)
class RawCase:
    """One case as the source has it."""

    image: Volume
    labels: Volume | None
    """None: an image without truth, for prediction."""
    inputs: Mapping[str, str]
    """Name of each file that was read → its SHA-256."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else is worth keeping, such as the side of a knee; nothing personal."""


@dataclass(frozen=True)
class Entry:
    """A case to import: what identifies its files without reading them, and how to read it."""

    key: str
    read: Callable[[], RawCase]
    """May raise VolumeError or OSError, a problem of this case alone, or ConnectionError, which ends the import."""


def file_key(*paths: Path) -> str:
    """Identity of some files: path, size and time of the last change."""
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return content_hash(json.dumps(stats))


def read_placed(path: Path, image: Volume, orientation: str) -> tuple[Volume, dict[str, str]]:
    """A label map with its axes as those of its image, if it fits, and the stated orientation if that was needed.

    Args:
        path: of the label map.
        image: its image.
        orientation: see :func:`shapeloss.data.poses.place_labels`.
    """
    labels = read_labels(path)
    placed = place_labels(labels, image, orientation)
    needed = orientation and grid_difference(labels.oriented_as(image.affine), image) and placed is not labels
    return placed, {"mask_orientation": orientation} if needed else {}


def pair_entry(image: Path, label: Path, orientation: str = "") -> Entry:
    """A case whose image and labels lie in two files, or headers with their data beside them.

    Args:
        image: file.
        label: file.
        orientation: of label maps without a pose: see :func:`shapeloss.data.poses.place_labels`.
    """

    def read() -> RawCase:
        picture = read_volume(image)
        labels, facts = read_placed(label, picture, orientation)
        paths = [*volume_files(image), *volume_files(label)]
        names = [f"{path.parent.name}/{path.name}" for path in paths]
        if len(set(names)) < len(names):
            top = Path(os.path.commonpath([path.absolute() for path in paths]))
            names = [path.absolute().relative_to(top).as_posix() for path in paths]
        return RawCase(picture, labels, dict(zip(names, map(file_hash, paths), strict=True)), facts)

    try:
        return Entry(file_key(*volume_files(image), *volume_files(label)) + orientation, read)
    except (VolumeError, OSError):
        return Entry("unreadable", read)  # reading it will tell why


def open_record(output: Path, source: Source, labels: Labels) -> dict[str, Any]:
    """The record of an output folder: a new one, or that of an import of the same source with the same labels.

    Raises:
        ValueError: the folder holds something else.
    """
    fresh = {
        "format": FORMAT,
        "source": {key: value for key, value in asdict(source).items() if key != "place"},
        **({"place": source.place} if source.place else {}),
        "labels": {str(number): name for number, name in enumerate(labels.names.values(), start=1)},
        "options": content_hash(json.dumps([list(labels.names.items()), sorted(labels.merge.items())])),
        "cases": {},
    }
    path = output / IMPORT_RECORD
    if not path.is_file():
        if output.exists() and not output.is_dir():
            raise ValueError(f"{output} is a file; import into a new folder")
        if output.exists() and any(not p.name.startswith(".") for p in output.iterdir()):
            raise ValueError(f"{output} is not empty and holds no {IMPORT_RECORD}; import into a new folder")
        return fresh
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(record, ensure_ascii=False, allow_nan=False).encode()  # can it be written again?
        for case in record["cases"].values():
            kinds = ["image", "label"] if "label" in case else ["image"]
            if not all(isinstance(case[key], str) for kind in kinds for key in ("key", kind, f"{kind}_sha256")):
                raise TypeError("paths and hashes are texts")
            if any(name_fault(case[kind]) for kind in kinds):
                raise ValueError("no file can have this name")
        same = record["source"]["name"] == source.name and record["options"] == fresh["options"]
        moved = source.place != record.get("place", source.place)
        empty = not record["cases"].items()
        structures = ", ".join(record["labels"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not a record of an import; import into a new folder") from error
    if not same and not empty:
        raise ValueError(
            f"{output} holds an import of {record['source']['name']} with the structures {structures} "
            "(or other merged labels); import into a new folder"
        )
    if moved and not empty:  # cases of one source would stay among those of another
        raise ValueError(
            f"{output} holds an import of another folder named {source.name} (or with other label maps); "
            "import into a new folder"
        )
    if record.get("format") != FORMAT:  # 1, without a number, kept names of OAI files, which may hold dates
        for case in record["cases"].values():
            case["key"] = ""
            case.pop("imported_from", None)
    return fresh | record | (fresh if empty else {"format": FORMAT, "source": fresh["source"]})


@contextmanager
def exclusive_import(output: Path) -> Iterator[None]:
    """Wait until no other import writes into the folder."""
    with exclusive(output, IMPORT_LOCK, f"another import writes into {output}; waiting until it ends"):
        yield


def write_cases(
    output: str | Path,
    entries: Mapping[str, Entry],
    labels: Labels,
    source: Source,
    problems: Sequence[str] = (),
    progress: bool = True,
) -> dict[str, Any]:
    """Import cases, one at a time.

    Args:
        output: folder; cases of an earlier import of the same source stay in it.
        entries: name of the case → its files.
        labels: which labels to keep.
        source: where the data come from.
        problems: found before, to be reported with those found here.
        progress: show a bar with the time left.

    Returns:
        The record, as `import.json` has it.

    Raises:
        ImportProblems: all that was wrong; sound cases are written and listed all the same.
        ValueError: the folder holds something else.
    """
    output = Path(output)
    open_record(output, source, labels)  # before anything is written into a folder that holds something else
    with exclusive_import(output):
        return _write_cases(output, entries, labels, source, problems, progress)


def _write_cases(
    output: Path, entries: Mapping[str, Entry], labels: Labels, source: Source, problems: Sequence[str], progress: bool
) -> dict[str, Any]:
    record = open_record(output, source, labels)
    found = list(problems)
    remove_partial_files(output)
    for name, entry in tqdm(entries.items(), desc="import", unit="case", disable=not progress):
        if _is_there(output, record["cases"].get(name), entry.key):
            continue
        if fault := portable_name_fault(name, [other for other in record["cases"] if other != name]):
            found.append(f"case {name}: {fault}; rename it")
            continue
        try:
            with _replacing(output, record, name):
                raw = entry.read()
                mask = labels.apply(raw.labels.array) if raw.labels else None
                if problem := _fault(name, raw, mask, labels):
                    found.append(problem)
                    continue
                if not (
                    output / IMPORT_RECORD
                ).is_file():  # first of all, or what a crash leaves would be a foreign folder
                    _keep_json(output / IMPORT_RECORD, record)
                record["cases"][name] = {"key": entry.key} | _write(output, name, raw, mask, labels, record)
                record["cases"] = dict(sorted(record["cases"].items()))
                _keep_json(output / IMPORT_RECORD, record)
        except VolumeError as error:
            found.append(str(error))
        except MemoryError:
            found.append(f"case {name}: there is not enough memory to read it; close other programs")
        except OSError as error:
            found.append(f"case {name}: {os_error_message(error, output)}")
            if isinstance(error, ConnectionError) or error.errno in FULL:
                break
        except Exception as error:  # whatever a library raises for one case costs no other case
            reason = f"{type(error).__name__}: {error}"[:200]
            found.append(f"case {name}: it cannot be imported ({reason}); leave it out, or report this line")
    try:
        if record["cases"]:
            _keep_json(output / IMPORT_RECORD, record)
            _keep_json(output / "dataset.json", _description(record))
        elif (output / IMPORT_RECORD).is_file():
            _keep_json(output / IMPORT_RECORD, record)
            (output / "dataset.json").unlink(missing_ok=True)
    except OSError as error:
        found.append(os_error_message(error, output))
    if found:
        raise ImportProblems(output, list(dict.fromkeys(found)), len(record["cases"]))
    return record


@contextmanager
def _replacing(output: Path, record: dict[str, Any], name: str) -> Iterator[None]:
    """Take a case out of the record, to be imported anew.

    Where that fails, though not by a fault of its source, the case of the earlier import stays if its files do.
    """
    old = record["cases"].pop(name, None)
    try:
        yield
    except VolumeError:
        raise
    except Exception:
        if old and _is_there(output, old, old["key"]):
            record["cases"] = dict(sorted({**record["cases"], name: old}.items()))
        raise


def _keep_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON where it says something new: what is made from an unchanged file need not be made again."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with _naming(path):
            write_text(path, text)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An error while a file is written names that file, not a temporary one."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _is_there(output: Path, entry: Mapping[str, Any] | None, key: str) -> bool:
    if entry is None or entry.get("key") != key:
        return False
    written = {output / entry[kind]: entry[f"{kind}_sha256"] for kind in ("image", "label") if kind in entry}
    return all(path.is_file() and file_hash(path) == digest for path, digest in written.items())


def _fault(name: str, raw: RawCase, mask: np.ndarray | None, labels: Labels) -> str:
    files = list(raw.inputs)
    case = f"case {name} ({' and '.join(files if len(files) <= 2 else [files[0], f'{len(files) - 1} more files'])})"
    if raw.labels and (fault := pose_fault(raw.labels, raw.image)):
        return f"{case}: {fault}"
    if fault := image_fault(raw.image.array):
        return f"{case}: {fault}"
    if raw.labels and labels.complete and (unknown := labels.unknown(raw.labels.array)):
        declared = ", ".join(f"{label} {structure}" for label, structure in labels.names.items())
        shown = ", ".join(map(str, unknown[:5]))
        return f"{case}: has label(s) {shown} outside the declared 0 background, {declared}; choose by --labels"
    if raw.labels and mask is not None and not mask.any():
        expected = ", ".join(f"{label} {structure}" for label, structure in labels.names.items())
        values = ", ".join(map(str, np.unique(raw.labels.array)[:8].tolist()))
        return f"{case}: none of the labels {expected} occurs, only {values}; correct --labels or --remap, or the mask"
    return ""


def _write(
    output: Path, name: str, raw: RawCase, mask: np.ndarray | None, labels: Labels, record: Mapping[str, Any]
) -> dict[str, Any]:
    image = raw.image.array
    if image.dtype.kind not in "iu" or image.dtype.itemsize > 4:
        image = image.astype(np.float32)
    part = "Ts" if mask is None else "Tr"
    arrays = {"image": image} if mask is None else {"image": image, "label": mask}
    paths = {kind: f"{kind}s{part}/{name}.nii.gz" for kind in arrays}
    _write_together({output / path: arrays[kind] for kind, path in paths.items()}, raw.image.affine, output, record)
    facts: dict[str, Any] = {
        **paths,
        **{f"{kind}_sha256": file_hash(output / path) for kind, path in paths.items()},
        "shape": list(image.shape),
        "spacing": list(raw.image.spacing),
        "orientation": "".join(nibabel.aff2axcodes(raw.image.affine)),
    }
    if mask is not None:
        counts = np.bincount(mask.ravel(), minlength=len(labels.names) + 1)[1:].tolist()
        facts["label_counts"] = dict(zip(labels.names.values(), counts, strict=True))
    return facts | {"imported_from": dict(raw.inputs), **raw.facts}


def _write_together(
    arrays: Mapping[Path, np.ndarray], affine: np.ndarray, output: Path, record: Mapping[str, Any]
) -> None:
    """Write the files of a case, all or none; before they change, no list names the case: `record` does not have it."""
    written = {path: path.with_name(f"{PARTIAL}{os.getpid()}.nii.gz") for path in arrays}
    placed = []
    try:
        for path, array in arrays.items():
            with _naming(path):
                write_nifti(written[path], array, affine)
        if any(path.exists() for path in arrays):
            _keep_json(output / IMPORT_RECORD, record)
            (output / "dataset.json").unlink(missing_ok=True)  # it is written at the end
        for path, temporary in written.items():
            with _naming(path):
                temporary.replace(path)
            placed.append(path)
    except BaseException:  # an image without its labels is half a case
        for path in [*written.values(), *placed]:
            with suppress(OSError):
                path.unlink()
        raise


def _description(record: Mapping[str, Any]) -> dict[str, Any]:
    """`dataset.json` in the Decathlon's form, which nnU-Net's converter reads too."""
    cases = [record["cases"][name] for name in sorted(record["cases"])]
    training, test = [case for case in cases if "label" in case], [case for case in cases if "label" not in case]
    return {
        "name": record["source"]["name"],
        "reference": record["source"]["url"],
        "licence": record["source"]["licence"],
        "release": record["source"]["version"],
        "tensorImageSize": "3D",
        "modality": {"0": record["source"]["modality"]},
        "labels": {"0": "background", **record["labels"]},
        "numTraining": len(training),
        "numTest": len(test),
        "training": [{"image": f"./{case['image']}", "label": f"./{case['label']}"} for case in training],
        "test": [f"./{case['image']}" for case in test],
    }
