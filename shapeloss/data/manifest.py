"""A folder of cases in Decathlon or nnU-Net layout → checked volumes, split into train, validation and test.

Volumes are turned to RAS on reading, so that axes mean the same everywhere: X left → right, Y posterior → anterior,
Z inferior → superior; then they are resampled and cut as the profile says (`shapeloss.data.grid`). Predictions go
back to the grid and orientation of their image (:meth:`Manifest.write_labels`), and are scored there.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shapeloss._closure import code_hash
from shapeloss._files import content_hash, file_hash
from shapeloss.data.axes import acquisition_axis, plane_name
from shapeloss.data.checksums import DamagedError, cached_arrays, read_checked_json, write_checked_json
from shapeloss.data.grid import Triple, WorkingGrid, normalise
from shapeloss.data.headers import VolumeError
from shapeloss.data.layout import DatasetError, find_cases
from shapeloss.data.names import link_fault
from shapeloss.data.options import Data, Split
from shapeloss.data.scans import Scan, describe
from shapeloss.data.volume import Volume, affine_spacing, grid_difference, read_labels, read_volume, write_nifti

SPLITS = ("train", "validation", "test")
IMPORT_RECORD = "import.json"
"""What `shapeloss import` writes beside dataset.json."""


@dataclass(frozen=True)
class Case:
    """One volume with its truth, in RAS. Its arrays may lie in a file that is read where it is used."""

    name: str
    image: np.ndarray
    """(X, Y, Z) float32, normalised."""
    labels: np.ndarray
    """(X, Y, Z) uint8, 0 is the background."""
    spacing: tuple[float, float, float]
    """mm along X, Y, Z."""
    affine: np.ndarray
    """(4, 4) voxel → world mm, RAS."""


@dataclass(frozen=True)
class Manifest:
    """What a data set holds, after it was checked: written by :func:`prepare`, read by each later step."""

    folder: Path
    name: str
    classes: dict[int, str]
    """Label → name, without the background."""
    cases: tuple[dict[str, Any], ...]
    """name, image, label (paths within the folder), split, shape, spacing, SHA-256 of both files, whether mirrored."""
    intensity: str
    slice_axis: int
    """The axis across the slices, in RAS."""
    slice_rule: str = ""
    """The plane of the slices and why it was taken, in one line."""
    working_spacing: Triple | None = None
    """Voxel size in mm that volumes are resampled to; None keeps each one's own."""
    working_size: tuple[int, int, int] | None = None
    """Voxels that volumes are cut or padded to; None keeps the whole field of view."""
    scans: Mapping[str, Scan] = field(default_factory=dict)
    """Case → what its image is like as scanned, which a run hands on to `shapeloss predict`."""

    @property
    def num_classes(self) -> int:
        """K, the background included."""
        return max(self.classes) + 1

    @property
    def hash(self) -> str:
        """Tells data sets apart by content: labels, files, split and preprocessing, not by place."""
        prepared = [self.working_spacing, self.working_size] if self.working_spacing or self.working_size else []
        return content_hash(json.dumps([self.classes, self.cases, self.intensity, *prepared], sort_keys=True))

    def names(self, split: str) -> list[str]:
        """The cases of `train`, `validation` or `test`."""
        return [case["name"] for case in self.cases if case["split"] == split]

    def load(self, name: str, cache: Path | None = None) -> Case:
        """Read one case as the network sees it: on the working grid.

        Args:
            name: of the case.
            cache: folder for the prepared arrays, which are then read from disk where they are used, so that a data
                set need not fit into memory.

        Raises:
            ValueError: a file changed since the data set was checked.
        """
        if cache is None:
            return self._prepare(name)
        entry = self._entry(name)
        digest = content_hash(
            json.dumps([entry, self.intensity, self.working_spacing, self.working_size], sort_keys=True),
            code_hash("shapeloss.data.manifest"),
        )
        paths = {kind: cache / f"{name}-{kind}-{digest}.npy" for kind in ("image", "labels", "affine")}
        image, labels, affine = cached_arrays(paths, lambda: vars(self._prepare(name))).values()
        return Case(name, image, labels, affine_spacing(affine), np.array(affine))

    def original(self, name: str) -> Case:
        """Read one case on its own grid, in RAS: what predictions are scored and shown on."""
        image, labels = self._read(name)
        return Case(
            name=name,
            image=normalise(image.array.astype(np.float32), self.intensity),
            labels=labels.array,
            spacing=image.spacing,
            affine=image.affine,
        )

    def write_labels(self, path: Path, labels: np.ndarray, name: str) -> None:
        """Write a label map (X, Y, Z) of the working grid as NIfTI, on the grid and with the affine of the image."""
        entry = self._entry(name)
        image = read_volume(self.folder / entry["image"])
        write_labels_as(path, labels, image, self.working_spacing, self.working_size, entry.get("mirrored", False))

    def read_labels(self, path: Path) -> np.ndarray:
        """Read a label map that :meth:`write_labels` wrote: (X, Y, Z) uint8 in RAS, on the image's own grid."""
        return read_labels(path).oriented("RAS").array

    def _entry(self, name: str) -> dict[str, Any]:
        entry = next((case for case in self.cases if case["name"] == name), None)
        if entry is None:
            raise ValueError(f"{self.folder} has no case {name!r}; it has {', '.join(c['name'] for c in self.cases)}")
        return entry

    def _read(self, name: str) -> tuple[Volume, Volume]:
        entry = self._entry(name)
        for kind in ("image", "label"):
            if file_hash(self.folder / entry[kind]) != entry[f"{kind}_sha256"]:
                raise ValueError(f"{self.folder / entry[kind]} changed since it was checked; run the command again")
        image = read_volume(self.folder / entry["image"]).oriented("RAS")
        return image, read_labels(self.folder / entry["label"]).oriented("RAS")

    def _prepare(self, name: str) -> Case:
        image, labels = self._read(name)
        mirrored = self._entry(name).get("mirrored", False)
        grid = working_grid(image, self.working_spacing, self.working_size, mirrored)
        return Case(
            name=name,
            image=normalise(grid.image_to_working(image.array), self.intensity),
            labels=grid.labels_to_working(labels.array),
            spacing=affine_spacing(grid.working_affine),
            affine=grid.working_affine,
        )


def working_grid(
    image: Volume, spacing: Triple | None, size: tuple[int, int, int] | None, mirrored: bool = False
) -> WorkingGrid:
    """The working grid of a volume in RAS."""
    x, y, z = image.array.shape
    return WorkingGrid((x, y, z), image.affine, spacing, size, mirrored)


def write_labels_as(
    path: Path,
    labels: np.ndarray,
    image: Volume,
    spacing: Triple | None,
    size: tuple[int, int, int] | None,
    mirrored: bool = False,
) -> None:
    """Write a label map of the working grid as NIfTI on the grid of its image, as that lies in its file."""
    ras = image.oriented("RAS")
    found = working_grid(ras, spacing, size, mirrored).labels_to_scan(labels.astype(np.uint8))
    write_nifti(path, Volume(found, ras.affine).oriented_as(image.affine).array, image.affine)


def read_sides(folder: Path) -> dict[str, str]:
    """Case → left or right, from the record of an import; empty where there is none."""
    try:
        cases = json.loads((folder / IMPORT_RECORD).read_text(encoding="utf-8"))["cases"]
        return {name: case["side"] for name, case in cases.items() if case.get("side") in ("left", "right")}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(
            folder, [f"{IMPORT_RECORD} is not a record of an import; import into a new folder"]
        ) from error


def read_manifest(path: str | Path) -> Manifest:
    """Read what :func:`prepare` wrote.

    Raises:
        FileNotFoundError: nothing was written yet; says what to run.
        ValueError: it is damaged.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path} does not exist: the data are not prepared; run make reproduce with this profile first, which "
            "makes it, and executes all notebooks"
        )
    try:
        values = read_checked_json(path)
    except DamagedError as error:
        raise ValueError(f"{error}; remove it and run the same command again, which makes it") from error
    values["folder"] = Path(values["folder"])
    values["classes"] = {int(label): name for label, name in values["classes"].items()}
    values["cases"] = tuple(values["cases"])
    for key in ("working_spacing", "working_size"):
        values[key] = tuple(values[key]) if values[key] else None
    values["scans"] = {name: Scan.from_json(scan) for name, scan in values.get("scans", {}).items()}
    return Manifest(**values)


def prepare(data: Data, folder: str | Path, output: str | Path, name: str = "") -> Manifest:
    """Check a data set, assign its cases to the splits, and write the manifest to `output`.

    Args:
        data: split and preprocessing: the section `data` of a profile.
        folder: of the data set, in Decathlon or nnU-Net layout.
        output: the file to write, `cases.json`.
        name: of the profile.

    Raises:
        DatasetError: anything that would spoil a run; all problems are listed at once.
    """
    folder = Path(folder).resolve()
    classes, files, problems = find_cases(folder)
    if (count := len(files) + len(problems)) < data.split.cases:  # if all of them were put right
        split = data.split
        problems.append(
            f"{count} cases, but the split needs {data.split.cases} ({split.train} train, {split.validation} "
            f"validation, {split.test} test); use more cases or lower data.split in the profile"
        )
    problems += [
        f"data.split.test_cases of the profile names {case}, which is not a valid case of this folder; import it, "
        "or correct the profile"
        for case in data.split.test_cases
        if case not in files
    ]
    found: set[int] = set()
    entries = []
    scans: dict[str, Scan] = {}
    sides = read_sides(folder) if data.mirror_to else {}
    for case, part in assign_splits(files, data.split).items():
        entry, labels_found, case_problems = check_case(folder, case, *files[case], classes)
        problems += case_problems
        found |= labels_found
        if "scan" in entry:
            scans[case] = entry.pop("scan")
        if side := data.mirror_to:
            if case in sides:
                entry["mirrored"] = sides[case] != side
            else:
                problems.append(f"case {case}: {IMPORT_RECORD} has no side for it; import it, or drop data.mirror_to")
        entries.append({"name": case, "split": part} | entry)
    problems += twice(entries)
    problems += [
        f"label {label} ({structure}) is declared in dataset.json but occurs in no case; remove it or add cases that "
        "have it"
        for label, structure in classes.items()
        if label not in found and files and not problems
    ]
    try:
        axis, rule = choose_slice_axis(data.slice_axis, {case: scan.spacing for case, scan in scans.items()})
    except ValueError as error:
        problems.append(str(error))
    if problems:
        raise DatasetError(folder, problems)
    manifest = Manifest(
        folder, name, classes, tuple(entries), data.intensity, axis, rule, data.spacing, data.size, scans
    )
    described = {case: asdict(scan) for case, scan in scans.items()}
    write_checked_json(output, vars(manifest) | {"folder": str(folder), "scans": described})
    return manifest


def assign_splits(names: Collection[str], split: Split) -> dict[str, str]:
    """Case → split: sorted, shuffled by the split's seed, then assigned; cases beyond the split are left out.

    Test cases that the split names are not assigned.
    """
    fixed = {name: "test" for name in split.test_cases if name in names}
    order = np.random.default_rng(split.seed).permutation(sorted({*names} - {*fixed})).tolist()
    parts = [part for part in SPLITS for _ in range(getattr(split, part)) if not (part == "test" and split.test_cases)]
    return dict(sorted({**fixed, **dict(zip(order, parts, strict=False))}.items()))


def twice(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with cases that have one image: the network would be tested on what it was trained on."""
    first: dict[str, Mapping[str, Any]] = {}
    problems = []
    for entry in entries:
        if "image_sha256" in entry and (other := first.setdefault(entry["image_sha256"], entry)) is not entry:
            problems.append(
                f"{entry['image']}: is the same image as {other['image']} (cases {entry['name']}, {entry['split']}, "
                f"and {other['name']}, {other['split']}); remove one"
            )
    return problems


def choose_slice_axis(stated: int | None, spacings: Mapping[str, Triple]) -> tuple[int, str]:
    """The axis across the slices of a data set, and why, in one line.

    Args:
        stated: by the profile; None for the axis of the coarsest voxel side.
        spacings: case → its own voxel size in mm along X, Y, Z of RAS.

    Raises:
        ValueError: the coarsest side is not the same axis in all cases, and none is stated.
    """
    cases: dict[int, list[str]] = {}
    for name, spacing in spacings.items():
        cases.setdefault(acquisition_axis(spacing), []).append(name)
    usual = max(cases, key=lambda axis: len(cases[axis]), default=0)
    if stated is not None:
        others = "" if usual == stated else f"; the coarsest voxel side is across {plane_name(usual)} slices"
        return stated, f"{plane_name(stated)} (axis {stated}), as the profile states{others}"
    if len(cases) > 1:
        counts = ", ".join(
            f"axis {axis} ({plane_name(axis)}) in {len(names)} case{'s' if len(names) > 1 else ''} such as {names[0]}"
            for axis, names in sorted(cases.items())
        )
        raise ValueError(f"the coarsest voxel side is {counts}; state one for all by data.slice_axis in the profile")
    ties = any(sorted(spacing)[1] >= 0.99 * max(spacing) for spacing in spacings.values())
    why = (
        "the first of equally coarse voxel sides; state another by data.slice_axis in the profile"
        if ties
        else "across the coarsest voxel side"
    )
    return usual, f"{plane_name(usual)} (axis {usual}), {why}"


def check_case(
    folder: Path, name: str, image_path: str, label_path: str, classes: Mapping[int, str]
) -> tuple[dict[str, Any], set[int], list[str]]:
    """Read one case and look for everything that would spoil a run: (manifest entry, labels that occur, problems).

    The entry has `scan` on top: what its image is like.
    """
    problems: list[str] = []
    volumes: dict[str, Volume] = {}
    for kind, path in (("image", image_path), ("label", label_path)):
        if fault := link_fault(folder / path, folder):
            problems.append(f"{path}: {fault}")
        elif not (folder / path).is_file():
            problems.append(f"{path}: the {kind} of case {name} is missing")
        else:
            try:
                volumes[kind] = (read_volume if kind == "image" else read_labels)(folder / path)
            except VolumeError as error:
                problems.append(str(error).removeprefix(f"{folder}/"))
    if len(volumes) < 2:
        return {}, set(), problems
    image, labels = volumes["image"], volumes["label"]
    if difference := grid_difference(labels, image):
        problems.append(f"{label_path}: its grid is not its image's: {difference}; resample the label")
    if image.array.min() == image.array.max():
        problems.append(f"{image_path}: every voxel has the value {image.array.min():g}; an empty image?")
    values = np.unique(labels.array)
    known = {0, *classes}
    unknown = [value for value in values.tolist() if value not in known]
    declared = ", ".join(f"{label} {class_name}" for label, class_name in classes.items())
    if unknown:
        shown = ", ".join(map(str, unknown[:5]))
        problems.append(f"{label_path}: has label(s) {shown} outside the declared 0 background, {declared}")
    elif not values.any():
        problems.append(f"{label_path}: is empty, every voxel is background; it needs one of {declared}")
    entry = {
        "image": image_path,
        "label": label_path,
        "shape": list(image.array.shape),
        "spacing": list(image.spacing),
        "scan": describe(image),
        "image_sha256": file_hash(folder / image_path),
        "label_sha256": file_hash(folder / label_path),
    }
    return entry, {int(value) for value in values.tolist() if value in known}, problems
