"""Scoring what the trainings predicted: per-case scores, histories, surface errors, and where they come from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from shapeloss._files import atomic, file_hash, write_text
from shapeloss.data.checksums import DamagedError, read_checked_json, write_checked_json
from shapeloss.data.manifest import Case, Manifest
from shapeloss.metrics import score_case
from shapeloss.phantom.dataset import EXACT
from shapeloss.replication.profile import Experiment
from shapeloss.runs.provenance import commit

SCORES, RECORD, SEAL = "per_case.csv", "evaluation.json", ".sha256"
_NOTEBOOKS = {
    "per_case_variations.csv": "06_study", "trainings.csv": "06_study", "weights.csv": "06_study",
    "surface_regions.csv": "04_error_maps", "heads.csv": "07_multi_task", "multi_task.csv": "07_multi_task",
    "calibration.csv": "07_multi_task", "learnt_weights.csv": "07_multi_task",
    "biomarkers.csv": "08_shape", "biomarkers_agreement.csv": "08_shape", "shape_errors.csv": "08_shape",
}  # fmt: skip
"""Table → the notebook that measures it; all others are measured by 03_evaluate."""
MEASURED = {SCORES, "per_case_exact.csv", "landmark_errors.csv", "histories.csv", *_NOTEBOOKS}
"""The tables that are measured; all else that the notebooks write follows from them, or shows volumes."""
_EXACT: Any = {} if tuple(map(int, pd.__version__.split(".")[:2])) >= (3, 1) else {"float_precision": "round_trip"}
"""Numbers are read to their last digit: by default from pandas 3.1 on."""


def run_folders(experiment: Experiment, results: str | Path) -> list[tuple[str, int, Path]]:
    """(loss, seed, folder) of each training, in the order of the table."""
    return [
        (loss, seed, Path(results) / experiment.runs_folder / loss / f"seed{seed}")
        for loss in experiment.losses
        for seed in experiment.seeds
    ]


def read_runs(experiment: Experiment, results: str | Path) -> list[dict[str, Any]]:
    """What the run.json of each training says, in the order of the table.

    Raises:
        FileNotFoundError: a training has not ended, or a file of it is missing; says what to run.
        ValueError: a file of it is damaged.
    """
    paths = [folder / "run.json" for _, _, folder in run_folders(experiment, results)]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist: this training has not ended; run make reproduce with this profile, or "
                "notebook 02 with this loss and seed"
            )
    return [_read_run(path) for path in paths]


def _read_run(path: Path) -> dict[str, Any]:
    """What a run.json says, once it and the files it names are found to be as the training wrote them."""
    remedy = f"remove {path} and run make reproduce again, which writes it from the training's checkpoint"
    try:
        values = read_checked_json(path)
    except DamagedError as error:
        raise ValueError(f"{error}; {remedy}") from error
    for name, digest in values.get("sha256", {}).items():
        file = path.parent / name
        if not file.is_file():
            raise FileNotFoundError(f"{file}: is missing, but the training wrote it, as {path.name} says; {remedy}")
        if file_hash(file) != digest:
            raise ValueError(f"{file}: is not what the training wrote: its SHA-256 differs; {remedy}")
    return values


def score_runs(experiment: Experiment, manifest: Manifest, results: str | Path, output: str | Path) -> pd.DataFrame:
    """Score every test prediction and write the scores to `output` (CSV).

    Returns:
        One row per loss, seed, case and structure ("mean" and "merged" too), with the columns of
        :func:`shapeloss.metrics.score_case`.
    """
    return write_scores(_score(experiment, manifest, results), output)


def score_variations(
    experiment: Experiment, manifest: Manifest, results: str | Path, output: str | Path
) -> pd.DataFrame:
    """As :func:`score_runs`, for the trainings of all variations, whose names are in a first column `variation`."""
    parts = [
        _score(experiment.variation(name), manifest, results).assign(variation=name) for name in experiment.variations
    ]
    scores = pd.concat(parts, ignore_index=True)
    return write_sealed(scores[["variation", *scores.columns.drop("variation")]], output)


def _score(experiment: Experiment, manifest: Manifest, results: str | Path) -> pd.DataFrame:
    """The scores of all trainings of one experiment."""
    read_runs(experiment, results)  # are all there?
    rows = []
    for name in tqdm(manifest.names("test"), desc=f"score {experiment.runs_folder}", mininterval=5):
        case = manifest.original(name)
        rows += _score_case(experiment, manifest, results, case, case.labels)
    return _in_order(rows, list(experiment.losses))


READER = "reader"
"""In scores against the exact surfaces: who drew the masks that the losses were trained and scored with."""


def score_against_exact(
    experiment: Experiment, manifest: Manifest, results: str | Path, output: str | Path
) -> pd.DataFrame | None:
    """Score the test predictions, and the reader who drew the truth, against the phantom's exact surfaces.

    Returns:
        As :func:`score_runs`, with rows of the loss "reader"; None where the data have no truth beyond what was drawn.
    """
    paths = {name: manifest.folder / EXACT / f"{name}.nii.gz" for name in manifest.names("test")}
    if not all(path.is_file() for path in paths.values()):
        return None
    rows = []
    for name, path in tqdm(paths.items(), desc="score against the exact surfaces", mininterval=5):
        case, exact = manifest.original(name), manifest.read_labels(path)
        drawn = score_case(exact, case.labels, case.spacing, manifest.classes, manifest.slice_axis)
        rows += [{"loss": READER, "seed": seed, "case": name} | row for seed in experiment.seeds for row in drawn]
        rows += _score_case(experiment, manifest, results, case, exact)
    return write_scores(_in_order(rows, [READER, *experiment.losses]), output)


def _score_case(
    experiment: Experiment, manifest: Manifest, results: str | Path, case: Case, truth: np.ndarray
) -> list[dict[str, Any]]:
    """The rows of every loss and seed for one test case."""
    rows = []
    for loss, seed, folder in run_folders(experiment, results):
        predicted = manifest.read_labels(folder / "predictions" / f"{case.name}.nii.gz")
        scored = score_case(truth, predicted, case.spacing, manifest.classes, manifest.slice_axis)
        rows += [{"loss": loss, "seed": seed, "case": case.name} | row for row in scored]
    return rows


def _in_order(rows: list[dict[str, Any]], order: list[str]) -> pd.DataFrame:
    """The rows of scores, by loss in the order of the table."""
    places = {loss: index for index, loss in enumerate(order)}
    scores = pd.DataFrame(rows).sort_values("loss", key=lambda column: column.map(places), kind="stable")
    return scores.reset_index(drop=True)


def write_scores(scores: pd.DataFrame, output: str | Path) -> pd.DataFrame:
    """Write a table as CSV, atomically; returns it. The bytes are the same on every system."""
    with atomic(output) as temporary:
        scores.to_csv(temporary, index=False, lineterminator="\n")
    return scores


def write_sealed(table: pd.DataFrame, output: str | Path) -> pd.DataFrame:
    """:func:`write_scores`, and its SHA-256 in a file `<output>.sha256` beside it, in the form of `sha256sum`.

    For tables that are measured after :func:`write_record` has written `evaluation.json`.
    """
    output = Path(output)
    seal = output.with_name(output.name + SEAL)
    seal.unlink(missing_ok=True)  # that of an earlier table; the new one comes last
    write_scores(table, output)
    write_text(seal, f"{file_hash(output)}  {output.name}\n")
    return table


def read_scores(figures: str | Path) -> pd.DataFrame:
    """The scores that :func:`score_runs` wrote to `per_case.csv` in a folder.

    Raises:
        FileNotFoundError: nothing was scored yet; says what to run.
        ValueError: they are not what notebook 03 recorded.
    """
    path = Path(figures) / SCORES
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: run notebook 03 first, which scores the predictions")
    return read_measured(path)


def write_record(folder: str | Path, values: dict[str, Any], measured: Iterable[str]) -> None:
    """Write `evaluation.json`, with a checksum of itself and the SHA-256 of each measured table that is there."""
    folder = Path(folder)
    digests = {name: file_hash(folder / name) for name in measured if (folder / name).is_file()}
    write_checked_json(folder / RECORD, {**values, "sha256": digests})


def read_record(folder: str | Path) -> dict[str, Any]:
    """What `evaluation.json` says; a record of an earlier version has no checksums.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    path = Path(folder) / RECORD
    try:
        return read_checked_json(path)
    except DamagedError as error:
        raise ValueError(f"{error}; {_again(path)}") from error


def recorded_tables(folder: str | Path) -> dict[str, tuple[str, str]]:
    """The measured tables of a folder of which a SHA-256 is known: name → (SHA-256, name of the file that holds it).

    Results of an earlier version have none.

    Raises:
        ValueError: `evaluation.json` is damaged.
    """
    folder = Path(folder)
    digests = read_record(folder).get("sha256", {}) if (folder / RECORD).is_file() else {}
    seals = {seal.name.removesuffix(SEAL): seal for seal in sorted(folder.glob(f"*{SEAL}"))}
    own = {name: (seal.read_text("utf-8", "replace").partition(" ")[0], seal.name) for name, seal in seals.items()}
    return own | {name: (digest, RECORD) for name, digest in digests.items()}


def read_measured(path: str | Path, **options: Any) -> pd.DataFrame:
    """A measured table (CSV), once it is found to have the SHA-256 that was recorded of it, if one was.

    Args:
        path: the table; beside it lie `evaluation.json` or `<path>.sha256`.
        options: of :func:`pandas.read_csv`; default: cases are text.

    Raises:
        FileNotFoundError: there is none; says what to do.
        ValueError: it is another; says what to do.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: is missing; {_again(path)}")
    digest, record = recorded_tables(path.parent).get(path.name, ("", ""))
    if record and file_hash(path) != digest:
        raise ValueError(f"{path}: is not what {record} recorded: its SHA-256 differs; {_again(path)}")
    return pd.read_csv(path, **_EXACT, **(options or {"dtype": {"case": str}}))


def _again(path: Path) -> str:
    """What to do where a measured table, or what is recorded of it, is missing or damaged."""
    return (
        f"remove {path} and the results' notebooks/{_NOTEBOOKS.get(path.name, '03_evaluate')}.ipynb, and run make "
        "reproduce again, which measures the predictions"
    )


def read_histories(experiment: Experiment, results: str | Path) -> pd.DataFrame:
    """The learning curves of all trainings: loss, seed, step, train_loss, learning_rate, val_dice."""
    read_runs(experiment, results)  # are all there, and sound?
    runs = run_folders(experiment, results)
    return pd.concat(
        [pd.read_csv(folder / "history.csv").assign(loss=loss, seed=seed) for loss, seed, folder in runs],
        ignore_index=True,
    )


def representative_case(scores: pd.DataFrame, reference: str, metric: str = "boundary_dice_in_plane") -> str:
    """The test case whose score under the reference loss is the median (the lower one of two), seeds averaged."""
    rows = scores[(scores.loss == reference) & (scores.structure == "mean")]
    ranked = rows.groupby("case")[metric].mean().sort_values(kind="stable")
    return str(ranked.index[(len(ranked) - 1) // 2])


def first_predictions(
    experiment: Experiment, manifest: Manifest, results: str | Path, case: str
) -> dict[str, np.ndarray]:
    """What each loss's first seed predicted for a test case: loss → labels (X, Y, Z)."""
    return {
        loss: manifest.read_labels(folder / "predictions" / f"{case}.nii.gz")
        for loss, seed, folder in run_folders(experiment, results)
        if seed == experiment.seeds[0]
    }


MACHINE = (
    *("commit", "python", "versions", "precision", "memory_format"),
    *("node", "system", "processor", "threads", "cuda", "cudnn"),
)
"""What a training says of where it ran."""


def distinct_machines(runs: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The parts :data:`MACHINE` of several records, each that is equal to another once, in an order of their own.

    Args:
        runs: what `run.json` of trainings says, or what this function returned of others.
    """
    kinds = {json.dumps({key: run[key] for key in MACHINE if key in run}, sort_keys=True) for run in runs}
    return tuple(json.loads(kind) for kind in sorted(kinds))


@dataclass(frozen=True)
class Provenance:
    """Where numbers come from."""

    data_hash: str
    slices: str
    """Which planes the boundary Dice is computed in, and why these."""
    precisions: tuple[str, ...]
    commit: str
    """Of the code that scored the predictions."""
    trained: tuple[str, ...]
    """The commits of the trainings."""
    custom_losses: dict[str, str] = field(default_factory=dict)
    """Row of the table → file and the start of its SHA-256."""
    machines: tuple[dict[str, Any], ...] = ()
    """Where the trainings ran, each kind once: of :func:`distinct_machines`. An earlier version recorded none."""

    @classmethod
    def of(cls, experiment: Experiment, manifest: Manifest, results: str | Path) -> Provenance:
        """That of the trainings of an experiment, scored by the present code."""
        runs = read_runs(experiment, results)
        own = {run["loss"]: run["custom_loss"] for run in runs if "custom_loss" in run}
        return cls(
            manifest.hash,
            manifest.slice_rule,
            tuple(sorted({run["precision"] for run in runs})),
            commit(),
            tuple(sorted({run["commit"] for run in runs})),
            {row: f"{loss['file']}, SHA-256 {loss['code'][:16]}" for row, loss in own.items()},
            distinct_machines(runs),
        )

    @property
    def commits(self) -> str:
        """The commits of the trainings and of the code that scored them, as a sentence."""
        if self.trained == (self.commit,):
            return f"Commit: {self.commit}."
        return f"Commit: {self.commit}; trained at {', '.join(self.trained)}."

    def line(self, experiment: Experiment) -> str:
        """Which data, profile, seeds, commit and custom losses numbers come from, for a caption."""
        own = "; ".join(f"{row}: {file}" for row, file in self.custom_losses.items())
        return (
            f"Data: {experiment.description} (hash {self.data_hash}). Profile: {experiment.name}. "
            f"Seeds: {', '.join(map(str, experiment.seeds))}. Slices: {self.slices}. "
            f"Steps: {experiment.training.steps}. Precision: {', '.join(self.precisions)}. {self.commits}"
            + (f" Custom loss {own}." if own else "")
        )


def provenance_line(experiment: Experiment, manifest: Manifest, results: str | Path) -> str:
    """:meth:`Provenance.line` of the trainings of an experiment."""
    return Provenance.of(experiment, manifest, results).line(experiment)
