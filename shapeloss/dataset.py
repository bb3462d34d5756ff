"""A folder of cases in Decathlon or nnU-Net layout → checked volumes, split into train, validation and test.

Volumes are turned to RAS on reading, so that axes mean the same everywhere: X left → right, Y posterior → anterior,
Z inferior → superior. Predictions go back to the orientation of their image (:func:`write_labels`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from tqdm.auto import tqdm

from shapeloss.experiment import Experiment, Split
from shapeloss.files import atomic, code_hash, content_hash, file_hash, write_json, write_nifti

SPLITS = ("train", "validation", "test")
LAYOUT = "dataset.json with 'labels', imagesTr/<case>.nii.gz or <case>_0000.nii.gz, labelsTr/<case>.nii.gz"
AFFINE_TOLERANCE_MM = 1e-3


class DatasetError(ValueError):
    """A data set that cannot be used; the message lists every problem found."""

    def __init__(self, folder: Path, problems: list[str]) -> None:
        self.problems = problems
        super().__init__(f"{folder}: {len(problems)} problem(s)\n" + "\n".join(f"  - {p}" for p in problems))


@dataclass(frozen=True)
class Case:
    """One volume with its truth, in RAS."""

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
    """name, image, label (paths within the folder), split, shape, spacing, SHA-256 of both files."""
    intensity: str
    slice_axis: int

    @property
    def num_classes(self) -> int:
        """K, the background included."""
        return max(self.classes) + 1

    @property
    def hash(self) -> str:
        """Tells data sets apart by content: labels, files and split, not by place."""
        return content_hash(json.dumps([self.classes, self.cases, self.intensity], sort_keys=True))

    def names(self, split: str) -> list[str]:
        """The cases of `train`, `validation` or `test`."""
        return [case["name"] for case in self.cases if case["split"] == split]

    def load(self, name: str) -> Case:
        """Read one case.

        Raises:
            ValueError: a file changed since the data set was checked.
        """
        entry = next((case for case in self.cases if case["name"] == name), None)
        if entry is None:
            raise ValueError(f"{self.folder} has no case {name!r}; it has {', '.join(c['name'] for c in self.cases)}")
        for kind in ("image", "label"):
            if file_hash(self.folder / entry[kind]) != entry[f"{kind}_sha256"]:
                raise ValueError(f"{self.folder / entry[kind]} changed since it was checked; run the command again")
        image = _ras(self.folder / entry["image"])
        labels = _ras(self.folder / entry["label"])
        return Case(
            name=name,
            image=normalise(np.asarray(image.dataobj, dtype=np.float32), self.intensity),
            labels=np.asarray(labels.dataobj).astype(np.uint8),
            spacing=_spacing(image.affine),
            affine=image.affine,
        )

    def write_labels(self, path: Path, labels: np.ndarray, case: Case) -> None:
        """Write a label map (X, Y, Z) in RAS as NIfTI, on the grid and in the orientation of the case's own image."""
        entry = next(c for c in self.cases if c["name"] == case.name)
        original = _load(self.folder / entry["image"]).affine
        back = ornt_transform(axcodes2ornt("RAS"), io_orientation(original))
        turned = nibabel.Nifti1Image(labels.astype(np.uint8), case.affine).as_reoriented(back)
        write_nifti(path, np.asarray(turned.dataobj), original)

    def read_labels(self, path: Path) -> np.ndarray:
        """Read a label map that :meth:`write_labels` wrote: (X, Y, Z) uint8 in RAS."""
        return np.asarray(_ras(path).dataobj).astype(np.uint8)


def _load(path: Path) -> Any:
    return nibabel.load(path)


def _ras(path: Path) -> Any:
    return nibabel.as_closest_canonical(_load(path))


def _spacing(affine: np.ndarray) -> tuple[float, float, float]:
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0).round(6)
    return float(x), float(y), float(z)


def normalise(image: np.ndarray, intensity: str) -> np.ndarray:
    """Grey values of one volume: `zscore` (zero mean, unit SD) or `percentile` (1st to 99th to [0, 1], clipped)."""
    if intensity == "zscore":
        return (image - image.mean()) / max(float(image.std()), 1e-6)
    low, high = np.percentile(image, [1, 99])
    return np.clip((image - low) / max(float(high - low), 1e-6), 0, 1).astype(np.float32)


def read_manifest(path: str | Path) -> Manifest:
    """Read what :func:`prepare` wrote."""
    values = json.loads(Path(path).read_text(encoding="utf-8"))
    values["folder"] = Path(values["folder"])
    values["classes"] = {int(label): name for label, name in values["classes"].items()}
    values["cases"] = tuple(values["cases"])
    return Manifest(**values)


def prepare(experiment: Experiment, folder: str | Path, output: str | Path) -> Manifest:
    """Check a data set, deal its cases out, and write the manifest to `output`.

    Raises:
        DatasetError: anything that would spoil a run; all problems are listed at once.
    """
    folder = Path(folder).resolve()
    classes, files = find_cases(folder)
    problems: list[str] = []
    if len(files) < experiment.cases:
        split = experiment.data.split
        problems.append(
            f"{len(files)} cases, but the split needs {experiment.cases} ({split.train} train, {split.validation} "
            f"validation, {split.test} test); use more cases or lower data.split in the profile"
        )
    found: set[int] = set()
    entries = []
    for name, split_name in deal(files, experiment.data.split).items():
        entry, labels_found, case_problems = check_case(folder, name, *files[name], classes)
        problems += case_problems
        found |= labels_found
        entries.append({"name": name, "split": split_name} | entry)
    problems += [
        f"label {label} ({name}) is declared in dataset.json but occurs in no case; remove it or add cases that have it"
        for label, name in classes.items()
        if label not in found and files and not problems
    ]
    if problems:
        raise DatasetError(folder, problems)
    data = experiment.data
    manifest = Manifest(folder, experiment.name, classes, tuple(entries), data.intensity, data.slice_axis)
    write_json(output, vars(manifest) | {"folder": str(folder)})
    return manifest


def deal(names: Iterable[str], split: Split) -> dict[str, str]:
    """Case → split: sorted, shuffled by the split's seed, then dealt out; cases beyond the split are left out."""
    order = np.random.default_rng(split.seed).permutation(sorted(names)).tolist()
    parts = [part for part in SPLITS for _ in range(getattr(split, part))]
    return dict(sorted(zip(order, parts, strict=False)))


def find_cases(folder: Path) -> tuple[dict[int, str], dict[str, tuple[str, str]]]:
    """Classes and files of a folder: ({label: name} without the background, {case: (image, label)} within the folder).

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
        classes = _classes(values["labels"])
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(folder, [f"dataset.json is not valid JSON: {error}"]) from error
    except (KeyError, TypeError, ValueError, AttributeError):
        expected = '{"0": "background", "1": "femur", …} or {"background": 0, "femur": 1, …}, labels 0 to K-1'
        raise DatasetError(folder, [f"dataset.json needs 'labels' as {expected}"]) from None
    files: dict[str, tuple[str, str]] = {}
    training = values.get("training")
    if isinstance(training, list) and all(
        isinstance(item, dict) and {"image", "label"} <= set(item) for item in training
    ):
        for item in training:
            name = Path(item["label"]).name.removesuffix(".gz").removesuffix(".nii")
            files[name] = (item["image"].removeprefix("./"), item["label"].removeprefix("./"))
    else:
        for label in sorted((folder / "labelsTr").glob("*.nii*")):
            ending = label.name[label.name.index(".nii") :]
            name = label.name.removesuffix(ending)
            suffix = "_0000" if (folder / "imagesTr" / f"{name}_0000{ending}").is_file() else ""
            files[name] = (f"imagesTr/{name}{suffix}{ending}", f"labelsTr/{label.name}")
    if not files:
        raise DatasetError(
            folder, [f"no training case is listed in dataset.json or lies in labelsTr; expected {LAYOUT}"]
        )
    return classes, files


def _classes(labels: Mapping[str, Any]) -> dict[int, str]:
    """Decathlon's {"1": "femur"} or nnU-Net's {"femur": 1} → {1: "femur"}, without the background."""
    decathlon = all(str(key).isdigit() for key in labels)
    classes = {
        int(key): str(value) for key, value in (labels.items() if decathlon else ((v, k) for k, v in labels.items()))
    }
    if sorted(classes) != list(range(len(classes))) or len(classes) < 2:
        raise ValueError("labels must be 0 to K-1")
    return {label: name for label, name in sorted(classes.items()) if label > 0}


def check_case(
    folder: Path, name: str, image_path: str, label_path: str, classes: Mapping[int, str]
) -> tuple[dict[str, Any], set[int], list[str]]:
    """Read one case and look for everything that would spoil a run: (manifest entry, labels that occur, problems)."""
    problems: list[str] = []
    volumes: dict[str, Any] = {}
    for kind, path in (("image", image_path), ("label", label_path)):
        if not (folder / path).is_file():
            problems.append(f"{path}: the {kind} of case {name} is missing")
            continue
        try:
            volume = _load(folder / path)
            volumes[kind] = (np.asanyarray(volume.dataobj), volume.affine)
        except Exception as error:  # nibabel, gzip and zlib raise a dozen kinds
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            problems.append(f"{path}: cannot be read as NIfTI ({reason}); replace the file")
    if len(volumes) < 2:
        return {}, set(), problems
    (image, affine), (labels, label_affine) = volumes["image"], volumes["label"]
    if image.ndim != 3:
        problems.append(f"{image_path}: has shape {image.shape}; one volume of one channel (X, Y, Z) was expected")
    if image.shape != labels.shape:
        problems.append(f"{label_path}: has shape {labels.shape}, but its image has {image.shape}; resample the label")
    elif not np.allclose(affine, label_affine, atol=AFFINE_TOLERANCE_MM):
        worst = np.abs(affine - label_affine).max()
        problems.append(
            f"{label_path}: its affine differs from its image's by up to {worst:.3g} mm; resample the label"
        )
    spacing = _spacing(affine)
    if not (np.isfinite(affine).all() and min(spacing) > 0):
        problems.append(f"{image_path}: the voxel size is {spacing} mm; three positive numbers were expected")
    if not np.isfinite(image).all():
        problems.append(f"{image_path}: {int((~np.isfinite(image)).sum())} voxels are NaN or infinite")
    elif image.min() == image.max():
        problems.append(f"{image_path}: every voxel has the value {image.min()}; an empty image?")
    values = np.unique(labels)
    known = {0, *classes}
    strange = [value for value in values.tolist() if value not in known]
    if strange:
        shown = ", ".join(f"{value:g}" for value in strange[:5])
        declared = ", ".join(f"{label} {class_name}" for label, class_name in classes.items())
        problems.append(f"{label_path}: has label(s) {shown} outside the declared 0 background, {declared}")
    entry = {
        "image": image_path,
        "label": label_path,
        "shape": list(image.shape),
        "spacing": list(spacing),
        "image_sha256": file_hash(folder / image_path),
        "label_sha256": file_hash(folder / label_path),
    }
    return entry, {int(value) for value in values.tolist() if value in known}, problems


def cached_map(
    case: Case,
    compute: Callable[[np.ndarray, tuple[float, float, float]], np.ndarray],
    spec: Mapping[str, Any],
    cache: Path,
) -> np.ndarray:
    """A loss's map of one truth, float32 (X, Y, Z) or (K, X, Y, Z): computed once, then read from `cache`.

    The file's name holds a hash of the labels, the spacing, the map's options and the code that computes it.
    """
    key = content_hash(
        np.ascontiguousarray(case.labels).tobytes(),
        json.dumps([case.labels.shape, case.spacing, dict(spec)], sort_keys=True),
        code_hash("distance", "maps", "losses", "distance_losses"),
    )
    path = cache / f"{case.name}-{key}.npy"
    if path.is_file():
        return np.load(path, allow_pickle=False)
    values = np.ascontiguousarray(compute(case.labels, case.spacing), dtype=np.float32)
    with atomic(path) as temporary:
        np.save(temporary, values, allow_pickle=False)
    return values


def load_all(manifest: Manifest, split: str, progress: bool = True) -> list[Case]:
    """Every case of a split, in memory."""
    return [manifest.load(name) for name in tqdm(manifest.names(split), desc=f"read {split}", disable=not progress)]
