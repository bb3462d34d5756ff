"""Data sets that lie on disk: a folder in Decathlon or nnU-Net layout, or two folders of images and label maps."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from shapeloss._files import content_hash
from shapeloss.data.layout import find_cases
from shapeloss.data.names import case_name, find_volumes, link_fault, one_line, volume_name
from shapeloss.importers.writer import Entry, Labels, Source, pair_entry

UNKNOWN = "unknown"


def folder_entries(
    folder: Path, merged: Collection[int] = (), notes: list[str] | None = None, orientation: str = ""
) -> tuple[dict[str, Entry], Labels, list[str]]:
    """The cases of a folder with `dataset.json`, its own structures, and what is wrong.

    Args:
        folder: with `dataset.json`.
        merged: labels that are merged into another, so that one to ignore among them is no fault.
        notes: gets a line on files that are not used, and are no fault.
        orientation: of label maps without a pose, such as PIR; empty: they have one.

    Raises:
        DatasetError: the folder is not in such a layout.
    """
    classes, files, listed = find_cases(folder, merged, notes)
    entries, problems = {}, [f"{folder}/{fault}" for fault in listed]
    for name, pair in files.items():
        image, label = (folder / path for path in pair)
        faults = []
        for path in (image, label):
            if fault := link_fault(path, folder):
                faults.append(f"{path}: {fault}")
            elif not path.is_file():
                faults.append(f"{path}: is missing; add it, or take case {name} out")
        problems += faults
        if not faults:
            entries[name] = pair_entry(image, label, orientation)
    return entries, Labels(classes, complete=True), problems


def pair_entries(
    images: Path, labels: Path, notes: list[str] | None = None, orientation: str = ""
) -> tuple[dict[str, Entry], list[str]]:
    """Images and label maps of one name, from two folders; an image may end in nnU-Net's `_0000`.

    `notes` gets a line on files that are not used, and are no fault.
    """
    found, there = [], []
    problems: list[str] = []
    for folder in (images, labels):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: there is no such folder; check the name")
        volumes, faults = find_volumes(folder, notes)
        problems += faults
        found.append(volumes)
        files = [path for path in folder.iterdir() if not path.is_dir()]
        there.append({case_name(path) for path in files})  # the refused ones too
    pictures, masks = found
    # the bare name first: cases may themselves be numbered case_0000, case_0001
    partner = {name: name if name in pictures else f"{name}_0000" for name in masks}
    used = set(partner.values())
    doubtful = set()
    for name, path in pictures.items():
        case = re.sub(r"_\d{4}$", "", name)
        if name in used or name in there[1]:
            continue
        first = pictures.get(partner.get(case, ""))
        if first and name == f"{case}_0000":
            problems.append(f"{path}: is a second image of case {case}, beside {first.name}; remove one")
            doubtful.add(case)
        elif first and name != case == volume_name(first).removesuffix("_0000") != volume_name(first):
            problems.append(f"{path}: is a second channel of case {case}; one image a case was expected, so choose one")
            doubtful.add(case)
        elif name.removesuffix("_0000") not in there[1]:
            problems.append(f"{path}: has no label map in {labels} by the name {name}; add it")
    problems += [
        f"{path}: has no image in {images} by the name {name}; add it"
        for name, path in masks.items()
        if partner[name] not in pictures and not {name, f"{name}_0000"} & there[0]
    ]
    entries = {
        name: pair_entry(pictures[partner[name]], path, orientation)
        for name, path in masks.items()
        if partner[name] in pictures and name not in doubtful
    }
    if not entries and not problems:
        problems.append(f"{images}: holds no image that can be read; give NIfTI, NRRD or MetaImage files")
    return entries, problems


def folder_source(folder: Path, licence: str = "", masks: Path | None = None) -> Source:
    """What is known of a data set that lies on disk: its folder's name, not its path, and what `dataset.json` says.

    Of the path, and of that of a folder of label maps, a hash is kept.
    """
    try:
        values = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        values = {}
    values = values if isinstance(values, dict) else {}
    channels = values.get("modality") or values.get("channel_names")
    modality = channels.get("0") if isinstance(channels, dict) else None
    return Source(
        one_line(folder.resolve().name),
        _text(values, "release") or UNKNOWN,
        licence or _text(values, "licence") or _text(values, "license") or UNKNOWN,
        _text(values, "reference"),
        one_line(str(modality or UNKNOWN)),
        content_hash(*(os.fsencode(path.resolve()) for path in (folder, masks) if path)),
    )


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    return one_line(str(value)) if isinstance(value, (str, int, float)) else ""
