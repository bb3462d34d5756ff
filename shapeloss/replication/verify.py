"""Does everything in a results folder belong together? Its files are hashed again, and what does not fit is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from shapeloss._files import file_hash
from shapeloss.data.checksums import DamagedError, load_array, load_tensors, read_checked_json
from shapeloss.data.manifest import Manifest, read_manifest
from shapeloss.metrics import score_case
from shapeloss.replication.scores import SCORES, read_measured, recorded_tables

_ROUNDING = 1e-9
TOGETHER = ("commit", "precision", "node", "processor", "versions", "python")
"""What the trainings of one table are expected to share; where they do not, it is said."""


@dataclass
class Verification:
    """What was looked at, and what was found."""

    hashed: int = 0
    """Files whose content was compared with what was recorded of it."""
    trainings: int = 0
    rescored: int = 0
    """Scores that were computed again from a prediction."""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What differs without being wrong, and what could not be looked at."""

    def to_text(self) -> str:
        """For a terminal."""
        counted = f"{self.hashed} files hashed, {self.trainings} trainings, {self.rescored} scores computed again"
        lines = [f"{counted}: {len(self.problems)} problem(s)"]
        return "\n".join([*lines, *[f"- {p}" for p in self.problems], *[f"note: {n}" for n in self.notes]])


def verify(results: str | Path, figures: str | Path | None = None, data: str | Path | None = None) -> Verification:
    """Hash a results folder again.

    Data against `cases.json`; histories, weights and predictions against each training's `run.json`; every training
    against the data and against the others; cached arrays against their own checksums; and, with a folder of figures,
    its tables against what was recorded of them, and its Dice scores against the predictions.

    Args:
        results: the working folder of a replication.
        figures: its scores.
        data: where the data lie now; default where they were.

    Raises:
        FileNotFoundError, ValueError: there is no `cases.json` that can be read.
    """
    results, found = Path(results), Verification()
    manifest = read_manifest(results / "cases.json")
    if data is not None:
        manifest = replace(manifest, folder=Path(data))
    _data(manifest, found)
    for name in ("runs", "variations"):
        folders = [p.parent for p in sorted((results / name).rglob("run.json"))]
        runs = [run for folder in folders if (run := _training(folder, manifest, found))]
        found.trainings += len(runs)
        if name == "runs":
            _together(runs, found)
    for path in sorted((results / "maps").glob("*.npy")):
        try:
            load_array(path)
            found.hashed += 1
        except DamagedError as error:
            found.problems.append(f"{error}; remove it: it is made again")
    if figures is not None:
        try:
            _tables(Path(figures), found)
            _scores(Path(figures), results, manifest, found)
        except ValueError as error:
            found.problems.append(str(error))
    return found


def _data(manifest: Manifest, found: Verification) -> None:
    if not manifest.folder.is_dir():
        found.notes.append(f"the data are not at {manifest.folder}: images and truth were not looked at")
        return
    for case in tqdm(manifest.cases, desc="data", mininterval=5, leave=False, disable=None):
        for kind in ("image", "label"):
            path = manifest.folder / case[kind]
            _hashed(path, case[f"{kind}_sha256"], "cases.json", found)


def _hashed(path: Path, expected: str, record: str, found: Verification) -> None:
    if not path.is_file():
        found.problems.append(f"{path}: is not there, but {record} names it")
        return
    found.hashed += 1
    if file_hash(path) != expected:
        found.problems.append(f"{path}: its SHA-256 is not that of {record}; it changed since")


def _training(folder: Path, manifest: Manifest, found: Verification) -> dict[str, Any] | None:
    """What a training's run.json says; None for one that cannot be read."""
    try:
        run = read_checked_json(folder / "run.json")
    except DamagedError as error:
        found.problems.append(str(error))
        return None
    if run.get("data") != manifest.hash:
        found.problems.append(f"{folder}: was trained on other data (hash {run.get('data')}, not {manifest.hash})")
    if (folder.parent.name, folder.name) != (run.get("loss"), f"seed{run.get('seed')}"):
        found.problems.append(f"{folder}: holds the training of {run.get('loss')}, seed {run.get('seed')}")
    recorded: dict[str, str] = run.get("sha256", {})
    for name, digest in recorded.items():
        _hashed(folder / name, digest, f"{folder.name}/run.json", found)
    try:
        load_tensors(folder / "weights.safetensors")
    except (DamagedError, FileNotFoundError) as error:
        found.problems.append(f"{error}")
    expected = {f"{name}.nii.gz" for name in manifest.names("test")}
    there = {path.name for path in (folder / "predictions").glob("*.nii.gz")}
    found.problems += [f"{folder}/predictions/{name}: is not there" for name in sorted(expected - there)]
    found.problems += [f"{folder}/predictions/{name}: is of no test case" for name in sorted(there - expected)]
    if not any(name.startswith("predictions/") for name in recorded):
        found.notes.append(f"{folder}: an earlier version recorded no hashes of its predictions")
    return run


def _together(runs: list[dict[str, Any]], found: Verification) -> None:
    """Options that differ between the trainings of a table are wrong; commits and versions are worth a note."""

    def named(keys: list[str]) -> Iterator[tuple[str, list[str], int]]:
        for key in keys:
            values = [str(run["experiment"].get(key) if key in run["experiment"] else run.get(key)) for run in runs]
            usual = Counter(values).most_common(1)[0][0]
            others = [f"{r['loss']} (seed {r['seed']})" for r, v in zip(runs, values, strict=True) if v != usual]
            if others:
                yield key, others, len(set(values))

    if not runs:
        return
    found.problems += [
        f"{', '.join(others)}: trained with another section {key} than the rest of the table"
        for key, others, _ in named(["data", "network", "training", "postprocessing"])
    ]
    found.notes += [f"{key}: {count} values among the trainings" for key, _, count in named(list(TOGETHER))]


def _tables(figures: Path, found: Verification) -> None:
    """Compare the measured tables with what was recorded of them; that of the scores is compared where it is read."""
    for name, (digest, record) in recorded_tables(figures).items():
        if name != SCORES:
            _hashed(figures / name, digest, record, found)


def _scores(figures: Path, results: Path, manifest: Manifest, found: Verification) -> None:
    """Compute the Dice score of every prediction again.

    Raises:
        ValueError: the table is not what was recorded of it.
    """
    path = figures / SCORES
    if not path.is_file():
        found.problems.append(f"{path}: is not there")
        return
    table = read_measured(path)
    found.hashed += SCORES in recorded_tables(figures)
    table = table[~table["structure"].isin(["mean", "merged"])]
    predictions = {
        (folder.parent.name, int(folder.name.removeprefix("seed"))): folder / "predictions"
        for folder in sorted((results / "runs").glob("*/seed*"))
    }
    for key, rows in tqdm(table.groupby("case"), desc="scores", mininterval=5, leave=False, disable=None):
        case = str(key)
        if case not in manifest.names("test"):
            found.problems.append(f"{path}: {case} is no test case")
            continue
        truth = manifest.original(case)
        for (loss, seed), own in rows.groupby(["loss", "seed"], sort=False):
            place = predictions.get((str(loss), int(str(seed))), Path()) / f"{case}.nii.gz"
            if not place.is_file():
                found.problems.append(f"{path}: {loss}, seed {seed}, {case} has scores, but no prediction")
                continue
            predicted = manifest.read_labels(place)
            scored = score_case(truth.labels, predicted, truth.spacing, manifest.classes, manifest.slice_axis, ["dice"])
            again = {row["structure"]: row["dice"] for row in scored}
            for structure, dice in zip(own["structure"], own["dice"], strict=True):
                found.rescored += 1
                if not abs(again.get(structure, float("nan")) - dice) <= _ROUNDING:
                    found.problems.append(
                        f"{path}: {loss}, seed {seed}, {case}, {structure}: a Dice of {dice:.6f} is written, the "
                        f"prediction has {again.get(structure, float('nan')):.6f}"
                    )
