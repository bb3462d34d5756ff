"""Which cases a folder in Decathlon or nnU-Net layout holds: the structures and the files that `dataset.json` names.

Only names are looked at here; whether the files are sound is seen when they are read (`shapeloss.data.manifest`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from shapeloss.data.names import fold, name_fault, one_line, unused_files, unused_note, volume_ending, volume_name

LAYOUT = "dataset.json with 'labels', imagesTr/<case>.nii.gz or <case>_0000.nii.gz, labelsTr/<case>.nii.gz"
_Pairs = list[tuple[str, str]]
"""Paths of images and their label maps within the folder."""


class DatasetError(ValueError):
    """A data set that cannot be used; the message lists every problem found, many of one kind with a count."""

    def __init__(self, folder: Path, problems: list[str]) -> None:
        self.problems = problems = [one_line(problem) for problem in problems]
        super().__init__(f"{folder}: {len(problems)} problem(s)\n" + "\n".join(f"  - {p}" for p in fold(problems)))


def find_cases(
    folder: Path, merged: Collection[int] = (), notes: list[str] | None = None
) -> tuple[dict[int, str], dict[str, tuple[str, str]], list[str]]:
    """The structures and cases of a folder, and what is wrong with the others.

    Args:
        folder: with `dataset.json`.
        merged: labels that are merged into another, so that one to ignore among them is no fault.
        notes: gets a line on files of imagesTr and labelsTr that are not used, and are no fault.

    Returns:
        {label: name} without the background, {case: (image, label map)} within the folder, and a line for each case
        that cannot be told; of two label maps of one name neither is a case.

    Raises:
        DatasetError: the folder is not in Decathlon or nnU-Net layout.
    """
    if not folder.is_dir():
        raise DatasetError(folder, ["there is no such folder"])
    description = folder / "dataset.json"
    if not description.is_file():
        inside = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise DatasetError(folder, [f"no dataset.json; expected {LAYOUT}; found {inside}"])
    try:
        values = json.loads(description.read_text(encoding="utf-8"))
        faults = label_faults(values["labels"], merged)
        classes = {} if faults else declared_classes(values["labels"])
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(folder, [f"dataset.json is not valid JSON: {error}; correct it"]) from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        expected = '{"0": "background", "1": "femur", …} or {"background": 0, "femur": 1, …}, labels 0 to K-1'
        raise DatasetError(folder, [f"dataset.json needs 'labels' as {expected}"]) from None
    if faults:
        raise DatasetError(folder, [f"dataset.json: {fault}" for fault in faults])
    training = values.get("training")
    listed = training if isinstance(training, list) and training else []
    pairs, problems = _listed_pairs(listed) if listed else _pairs_by_name(folder)
    unread, more = _unused(folder, pairs if listed else [])
    problems += unread
    if notes is not None:
        notes += more
    files: dict[str, tuple[str, str]] = {}
    twice = set()
    for image, label in pairs:
        name = volume_name(label)
        if faults := [f"{path}: {fault}" for path in (image, label) if (fault := _path_fault(path))]:
            problems += faults
            continue
        first = files.setdefault(name, (image, label))
        if (image, label) != first:
            twice.add(name)
            own, other, kind = (label, first[1], "label map") if label != first[1] else (image, first[0], "image")
            problems.append(f"{own}: is a second {kind} of case {name}, beside {other}; remove one; neither is used")
    if not pairs and not problems:
        raise DatasetError(
            folder, [f"no training case is listed in dataset.json or lies in labelsTr; expected {LAYOUT}"]
        )
    problems += _count_faults(values, len(listed or pairs))
    return classes, {name: pair for name, pair in files.items() if name not in twice}, problems


def _path_fault(path: str) -> str:
    return name_fault(path) or ("" if volume_name(path) else "has no name; rename it")


def _listed_pairs(training: list[Any]) -> tuple[_Pairs, list[str]]:
    """The image and label paths of `training` in dataset.json, and what is wrong with it."""
    pairs, problems = [], []
    for number, item in enumerate(training, start=1):
        paths = [item.get(kind) for kind in ("image", "label")] if isinstance(item, dict) else []
        texts = [path.removeprefix("./") for path in paths if isinstance(path, str) and path]
        if len(texts) == 2:
            pairs.append((texts[0], texts[1]))
        else:
            expected = '{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}'
            problems.append(f"dataset.json: entry {number} of 'training' is {str(item)[:60]}; write it as {expected}")
    return pairs, problems


def _pairs_by_name(folder: Path) -> tuple[_Pairs, list[str]]:
    """The label maps of labelsTr with their images in imagesTr, of whatever format, as nnU-Net names them.

    An image without a label map is a problem.
    """
    images: dict[str, list[str]] = {}
    for path in _volumes(folder / "imagesTr"):
        images.setdefault(volume_name(path), []).append(path.name)
    pairs, used = [], set()
    for label in _volumes(folder / "labelsTr"):
        name, ending = volume_name(label), volume_ending(label)
        found = images.get(f"{name}_0000") or images.get(name) or [f"{name}{ending}"]
        same = [image for image in found if volume_ending(image) == ending]
        pairs.append((f"imagesTr/{(same or found)[0]}", f"labelsTr/{label.name}"))
        used.add(name)
    problems = []
    for name, paths in images.items():
        case = re.sub(r"_\d{4}$", "", name)
        if name not in used and case in used and name != f"{case}_0000" and f"{case}_0000" in images:
            pairs = [pair for pair in pairs if volume_name(pair[1]) != case]
            problems += [
                f"imagesTr/{path}: is a second channel of case {case}; one image a case was expected, so choose one"
                for path in paths
            ]
        if not used & {name, case}:
            problems += [f"imagesTr/{path}: has no label map in labelsTr by the name {case}; add it" for path in paths]
    return pairs, problems


def _volumes(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("[!.]*")) if volume_ending(path)]


def _unused(folder: Path, listed: _Pairs) -> tuple[list[str], list[str]]:
    """Problems and notes: what lies in imagesTr and labelsTr, and is not used. What a list leaves out was chosen."""
    problems, notes = [], []
    for part in ("imagesTr", "labelsTr"):
        faults, others = unused_files(folder / part)
        if listed:
            used = {path for pair in listed for path in pair}
            names = sorted({path.name for path in _volumes(folder / part)} | {*faults})
            if beyond := [name for name in names if f"{part}/{name}" not in used]:
                notes.append(unused_note(folder / part, beyond, "'training' of dataset.json does not list them"))
        else:
            problems += [f"{part}/{name}: {fault}" for name, fault in faults.items()]
        if others:
            notes.append(unused_note(folder / part, others))
    return problems, notes


def _count_faults(values: Mapping[str, Any], cases: int) -> list[str]:
    """What dataset.json says of channels and cases, where it is something else than what is there."""
    problems = []
    key = "channel_names" if values.get("channel_names") else "modality"
    channels = values.get(key)
    if isinstance(channels, (Mapping, list)) and len(channels) > 1:
        names = channels.values() if isinstance(channels, Mapping) else channels
        problems.append(
            f"dataset.json: {key!r} names {len(channels)} channels ({', '.join(map(str, names))[:60]}); one image a "
            f"case is used, so choose one channel, and leave its name alone in {key!r}"
        )
    said = values.get("numTraining")
    if said is not None and str(said) != str(cases):
        problems.append(
            f"dataset.json: 'numTraining' is {str(said)[:20]}, but there are {cases} training cases; add those that "
            "are missing, or correct the number"
        )
    return problems


def label_faults(labels: Any, merged: Collection[int] = ()) -> list[str]:
    """Labels of nnU-Net that are no structures: those to ignore, but for merged ones, and regions of several labels."""
    faults = []
    for name, value in _by_name(labels):
        if name.strip().lower() == "ignore" and value not in map(str, merged):
            faults.append(
                f"label {value} is 'ignore' (voxels without a truth), which losses and metrics here cannot leave out; "
                f"merge it by --remap {value}:0 (background) or {value}:1 with shapeloss import folder or evaluate, or "
                "leave out the cases that have it and take it out of 'labels'"
            )
        if value.startswith(("[", "(")):
            faults.append(
                f"{name!r} is a region of the labels {value.strip('[()]')}; structures here have one label each: write "
                "every label with its own name, and leave out 'regions_class_order'"
            )
    return faults


def contradiction(names: Mapping[int, str], declared: Mapping[int, str], merge: Mapping[int, int]) -> str:
    """What structures are called by hand, and otherwise by their data set; empty if a name means the same in both.

    Args:
        names: label, after merging → name.
        declared: label → name in `dataset.json`.
        merge: old label → new label.
    """
    meant = {name.strip().lower(): merge.get(label, label) for label, name in declared.items()}
    return "; ".join(
        f"label {label} is called {name!r}, which is label {meant[name.strip().lower()]} there"
        + (f" ({label} is {declared[label]!r})" if label in declared else "")
        for label, name in names.items()
        if meant.get(name.strip().lower(), label) != label
    )


def read_names(folder: Path, merged: Collection[int] = ()) -> tuple[Path | None, dict[int, str]]:
    """The `dataset.json` in a folder, or else the one above it, and the structures that it names.

    A file that names none as Decathlon and nnU-Net do (regions of several labels, another kind of file) is passed over.

    Raises:
        ValueError: a label to ignore that is not merged into another.
    """
    folder = folder.absolute()
    for place in (folder / "dataset.json", folder.parent / "dataset.json"):
        try:
            labels = json.loads(place.read_text(encoding="utf-8"))["labels"]
            names = declared_classes(labels)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            continue
        if faults := label_faults(labels, merged):
            raise ValueError(f"{place}: {faults[0]}")
        return place, names
    return None, {}


def _by_name(labels: Any) -> list[tuple[str, str]]:
    """(name, label) of Decathlon's {"1": "femur"} or nnU-Net's {"femur": 1}, as text; empty for anything else."""
    if not isinstance(labels, Mapping):
        return []
    pairs = [(str(name), str(value)) for name, value in labels.items()]
    decathlon = all(name.isdigit() for name, _ in pairs)
    return [(value, name) for name, value in pairs] if decathlon else pairs


def declared_classes(labels: Mapping[str, Any]) -> dict[int, str]:
    """Decathlon's {"1": "femur"} or nnU-Net's {"femur": 1} → {1: "femur"}, without the background and what to ignore.

    Raises:
        ValueError, TypeError, OverflowError: anything else.
    """
    decathlon = all(str(key).isdigit() for key in labels)
    classes = {
        int(key): str(value) for key, value in (labels.items() if decathlon else ((v, k) for k, v in labels.items()))
    }
    classes = {label: name for label, name in classes.items() if name.strip().lower() != "ignore"}
    "".join(classes.values()).encode()  # or the names could not be written
    if sorted(classes) != list(range(len(classes))) or not 2 <= len(classes) <= 256:
        raise ValueError("labels must be 0 to K-1")
    return {label: name for label, name in sorted(classes.items()) if label > 0}
