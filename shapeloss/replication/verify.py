"""Does everything in a results folder belong together? Its files are hashed again, and what does not fit is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from shapeloss._files import file_hash
from shapeloss.data.checksums import DamagedError, load_array, load_tensors, read_checked_json
from shapeloss.data.manifest import Case, Manifest, read_manifest
from shapeloss.metrics import METRICS, score_case
from shapeloss.phantom.dataset import EXACT
from shapeloss.replication.analysis import EXACT as EXACT_SCORES
from shapeloss.replication.profile import Experiment
from shapeloss.replication.scores import (
    READER,
    RECORD,
    SCORES,
    read_measured,
    read_record,
    recorded_tables,
    run_folders,
)
from shapeloss.replication.study import TABLE, VARIATIONS
from shapeloss.stats.headings import PAPER_METRICS

ROUNDING = 1e-9
"""How far a score that is computed again may lie from the one that is written."""
WHOLE = ("mean", "merged")
"""What a case has scores of besides its structures."""
TOGETHER = ("commit", "precision", "memory_format", "node", "processor", "versions", "python")
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
    its tables against what was recorded of them. Tables of scores must hold every training, test case and structure,
    and each of their scores is computed from its prediction again. Notes name what was compared by checksum alone, or
    not at all.

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


SCORED = (SCORES, EXACT_SCORES, VARIATIONS)
"""The tables of scores, which are computed again."""


def _tables(figures: Path, found: Verification) -> None:
    """Compare the measured tables with what was recorded of them; those of scores are compared where they are read."""
    recorded = recorded_tables(figures)
    for name, (digest, record) in recorded.items():
        if name not in SCORED or not (figures / name).is_file():
            _hashed(figures / name, digest, record, found)
    there = {path.name for path in figures.glob("*.csv")}
    if alone := sorted((there & recorded.keys()) - {*SCORED}):
        found.notes.append(f"compared by checksum alone: {', '.join(alone)}")
    if unknown := sorted(there - recorded.keys()):
        found.notes.append(
            f"no checksum is recorded of {', '.join(unknown)}: not compared; shapeloss reanalyze makes again what "
            "follows from the scores"
        )


_Training = tuple[str, str, int]
"""Variation ("" for the table), loss and seed."""


def _named(training: _Training) -> str:
    variation, loss, seed = training
    return f"{loss}, seed {seed}{f', variation {variation}' if variation else ''}"


@dataclass(frozen=True)
class _Source:
    """What the scores of one table are computed from."""

    wanted: set[_Training]
    predictions: dict[_Training, Path]
    """Of the trainings that have ended: the folder of each."""
    exact: bool = False
    """Whether the truth is the phantom's exact surfaces."""

    def truth(self, manifest: Manifest, case: Case) -> np.ndarray:
        return manifest.read_labels(_exact(manifest, case.name)) if self.exact else case.labels

    def predicted(self, manifest: Manifest, case: Case, training: _Training) -> np.ndarray | None:
        """What was predicted, or drawn; None where there is no such file."""
        if self.exact and training[1] == READER:
            return case.labels
        path = self.predictions.get(training, Path()) / f"{case.name}.nii.gz"
        return manifest.read_labels(path) if path.is_file() else None


def _exact(manifest: Manifest, name: str) -> Path:
    return manifest.folder / EXACT / f"{name}.nii.gz"


def _scores(figures: Path, results: Path, manifest: Manifest, found: Verification) -> None:
    """Are the tables of scores complete, and those of the predictions? Computes each score again.

    Raises:
        ValueError: `evaluation.json` is damaged.
    """
    own = {
        (TABLE, path.parts[-3], _seed(path.parent)): path.parent / "predictions"
        for path in sorted((results / "runs").glob("*/seed*/run.json"))
    }
    varied = {
        (path.parts[-4], path.parts[-3], _seed(path.parent)): path.parent / "predictions"
        for path in sorted((results / "variations").glob("*/*/seed*/run.json"))
    }
    wanted, wanted_varied = set(own), set(varied)
    if (figures / RECORD).is_file():
        experiment = Experiment.model_validate(read_record(figures)["experiment"])
        wanted |= {(TABLE, loss, seed) for loss, seed, _ in run_folders(experiment, results)}
        for name in experiment.variations:
            wanted_varied |= {(name, loss, seed) for loss, seed, _ in run_folders(experiment.variation(name), results)}
    elif (figures / SCORES).is_file():
        found.problems.append(
            f"{figures / RECORD}: is not there, but {SCORES} is: nothing says which trainings these scores are of, and "
            "nothing holds their checksums; run make reproduce again, which measures the predictions"
        )
    sources = {SCORES: _Source(wanted, own), VARIATIONS: _Source(wanted_varied, varied)}
    if (figures / EXACT_SCORES).is_file() or all(_exact(manifest, n).is_file() for n in manifest.names("test")):
        readers = {(TABLE, READER, seed) for _, _, seed in wanted}
        sources[EXACT_SCORES] = _Source(wanted | readers, own, exact=True)
    recorded = recorded_tables(figures)
    for name, source in sources.items():
        path = figures / name
        if path.is_file():
            found.hashed += name in recorded
            _score_table(path, source, manifest, found)
        elif (source.wanted and name not in recorded) or name == SCORES:
            found.problems.append(f"{path}: is not there, though {len(source.wanted)} trainings have scores in it")


def _seed(folder: Path) -> int:
    return int(folder.name.removeprefix("seed"))


def _score_table(path: Path, source: _Source, manifest: Manifest, found: Verification) -> None:
    try:
        table = read_measured(path, dtype=dict.fromkeys(("variation", "loss", "case", "structure"), str))
    except ValueError as error:
        found.problems.append(str(error))
        return
    if "variation" not in table:
        table = table.assign(variation=TABLE)
    if lacking := [c for c in (*_KEY, *PAPER_METRICS) if c not in table]:
        found.problems.append(f"{path}: has no column {', '.join(lacking)}")
        return
    found.problems += [f"{path}: {text}" for text in _incomplete(table, source, manifest)]
    cases = manifest.names("test")
    if not manifest.folder.is_dir() or (source.exact and not all(_exact(manifest, name).is_file() for name in cases)):
        found.notes.append(f"{path.name}: its scores were not computed again: their truth is not at {manifest.folder}")
        return
    for name in tqdm(cases, desc=path.stem, mininterval=5, leave=False, disable=None):
        rows = table[table["case"] == name]
        try:
            case = manifest.original(name)
            truth = source.truth(manifest, case)
        except (OSError, ValueError) as error:
            found.problems.append(f"{path}: the scores of {name} were not computed again: {error}")
            continue
        for (variation, loss, seed), own in rows.groupby(list(_KEY[:3]), sort=False):
            training = (str(variation), str(loss), int(str(seed)))
            if training not in source.wanted:
                continue  # named above
            where = f"{path}: {_named(training)}, {name}"
            try:
                predicted = source.predicted(manifest, case, training)
                if predicted is None:
                    found.problems.append(f"{where} has scores, but no prediction")
                    continue
                _score_rows(where, own, case, truth, predicted, manifest, found)
            except (OSError, ValueError) as error:
                found.problems.append(f"{where}: the scores were not computed again: {error}")


_KEY = ("variation", "loss", "seed", "case", "structure")


def _incomplete(table: pd.DataFrame, source: _Source, manifest: Manifest) -> Iterator[str]:
    """What a table of scores lacks or has too much of, the largest part that is missing in one."""
    cases, structures = manifest.names("test"), [*manifest.classes.values(), *WHOLE]
    counted = Counter(table[list(_KEY)].itertuples(index=False, name=None))
    yield from (f"{_named(key[:3])}, {key[3]}, {key[4]} is there {n} times" for key, n in counted.items() if n > 1)
    strangers = {key[:3] for key in counted} - source.wanted
    yield from (f"{_named(training)} has scores, but there is no such training" for training in sorted(strangers))
    yield from (f"{name} is no test case" for name in sorted({key[3] for key in counted} - {*cases}, key=str))
    yield from (f"{name} is no structure" for name in sorted({key[4] for key in counted} - {*structures}, key=str))
    for training in sorted(source.wanted):
        lacking = {c: [s for s in structures if (*training, c, s) not in counted] for c in cases}
        if all(len(missing) == len(structures) for missing in lacking.values()):
            yield f"{_named(training)} has no scores"
            continue
        for case, missing in lacking.items():
            if missing:
                what = case if len(missing) == len(structures) else f"{case}, {', '.join(missing)}"
                yield f"{_named(training)}, {what} has no scores"


def _score_rows(
    where: str,
    rows: pd.DataFrame,
    case: Case,
    truth: np.ndarray,
    predicted: np.ndarray,
    manifest: Manifest,
    found: Verification,
) -> None:
    """Compare each score of one prediction with what is written."""
    metrics = [column for column in rows.columns if column in METRICS]
    scored = score_case(truth, predicted, case.spacing, manifest.classes, manifest.slice_axis, metrics)
    again = {row["structure"]: row for row in scored}
    for row in rows.to_dict("records"):
        if row["structure"] not in again:
            continue
        found.rescored += len(metrics)
        made = again[row["structure"]]
        apart = [
            f"a {name} of {row[name]:.6f} is written, the prediction has {made[name]:.6f}"
            for name in metrics
            # of a structure that the truth lacks some are none
            if not np.isclose(made[name], float(row[name]), rtol=0, atol=ROUNDING, equal_nan=True)
        ]
        if apart:
            found.problems.append(f"{where}, {row['structure']}: {'; '.join(apart)}")
