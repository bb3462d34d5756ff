"""Scoring what the trainings predicted: per-case scores, histories, surface errors, and the line that says whence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyvista as pv
from tqdm import tqdm

from shapeloss.checksums import DamagedError, read_checked_json
from shapeloss.dataset import Case, Manifest
from shapeloss.distance import distance_penalty
from shapeloss.experiment import Experiment
from shapeloss.files import atomic, file_hash
from shapeloss.metrics import score_case
from shapeloss.provenance import commit
from shapeloss.render import POSTERIOR, widest_view
from shapeloss.surfaces import label_surface, region_error, surface_error

PAPER_BONES = {"femur", "tibia", "patella"}
"""The structures of the paper; its figure 1 shows the surfaces of the first two."""


def run_folders(experiment: Experiment, results: str | Path) -> list[tuple[str, int, Path]]:
    """(loss, seed, folder) of each training, in the order of the table."""
    return [
        (loss, seed, Path(results) / "runs" / loss / f"seed{seed}")
        for loss in experiment.losses
        for seed in experiment.seeds
    ]


def read_runs(experiment: Experiment, results: str | Path) -> list[dict[str, Any]]:
    """What the run.json of each training says, in the order of the table.

    Raises:
        FileNotFoundError: a training has not ended; says what to run.
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
        if file_hash(path.parent / name) != digest:
            raise ValueError(f"{path.parent / name}: is not what the training wrote: its SHA-256 differs; {remedy}")
    return values


def score_runs(experiment: Experiment, manifest: Manifest, results: str | Path, output: str | Path) -> pd.DataFrame:
    """Score every test prediction and write the scores to `output` (CSV).

    Returns:
        One row per loss, seed, case and structure ("mean" and "merged" too), with the columns of
        :func:`shapeloss.metrics.score_case`.
    """
    read_runs(experiment, results)  # are all there?
    rows = []
    for name in tqdm(manifest.names("test"), desc="score", mininterval=5):
        case = manifest.original(name)
        for loss, seed, folder in run_folders(experiment, results):
            predicted = manifest.read_labels(folder / "predictions" / f"{name}.nii.gz")
            scored = score_case(case.labels, predicted, case.spacing, manifest.classes, manifest.slice_axis)
            rows += [{"loss": loss, "seed": seed, "case": name} | row for row in scored]
    order = {loss: index for index, loss in enumerate(experiment.losses)}
    scores = pd.DataFrame(rows).sort_values("loss", key=lambda column: column.map(order), kind="stable")
    with atomic(output) as temporary:
        scores.to_csv(temporary, index=False)
    return scores.reset_index(drop=True)


def read_scores(figures: str | Path) -> pd.DataFrame:
    """The scores that :func:`score_runs` wrote to `per_case.csv` in a folder.

    Raises:
        FileNotFoundError: nothing was scored yet; says what to run.
    """
    path = Path(figures) / "per_case.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: run notebook 03 first, which scores the predictions")
    return pd.read_csv(path, dtype={"case": str})


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


def surface_error_panels(experiment: Experiment, manifest: Manifest, results: str | Path, case: Case) -> dict[str, Any]:
    """The arguments of :func:`shapeloss.plots.figure_surface_errors` for one test case.

    The meshes are the predicted surfaces per loss (its first seed) with the signed error `error_mm` per vertex. Of a
    knee they are femur and tibia, seen from behind, as in the paper; of other anatomy all structures, in the view that
    shows most of them. A structure that the truth of this case lacks has no error; a note names it.
    """
    labels, direction = _shown_structures(manifest.classes)
    truths = {label: _surface(case, case.labels, label) for label in labels}
    there = [label for label in labels if truths[label].n_points]
    meshes: dict[str, list[pv.PolyData]] = {}
    for loss, predicted in first_predictions(experiment, manifest, results, case.name).items():
        meshes[loss] = [_surface(case, predicted, label) for label in there]
        for label, mesh in zip(there, meshes[loss], strict=True):
            mesh["error_mm"] = surface_error(mesh, truths[label])
    names = {label: name for label, name in manifest.classes.items() if label in labels}
    shown = ", ".join(names[label] for label in there) or "none"
    lacking = ", ".join(names[label] for label in labels if label not in there)
    number = len(there) if len(there) == len(manifest.classes) else f"{len(there)} of {len(manifest.classes)}"
    others = {name.lower() for name in manifest.classes.values()} - PAPER_BONES
    parts = [f"Structures shown ({number}): {shown}."] if lacking or others else []
    parts += [f"Without a surface in the truth of this case: {lacking}."] if lacking else []
    direction = widest_view([truths[label] for label in there]) if direction is None else direction
    return {"meshes": meshes, "direction": direction, "note": " ".join(parts)}


def _shown_structures(classes: Mapping[int, str]) -> tuple[list[int], tuple[float, float, float] | None]:
    """The labels that figure 1 shows, and from where; None for the view that shows most of them."""
    bones = [label for label, name in sorted(classes.items()) if name.lower() in ("femur", "tibia")]
    return (bones, POSTERIOR) if len(bones) == 2 else (sorted(classes), None)


def read_landmarks(manifest: Manifest, name: str) -> dict[str, list[float]]:
    """Landmark → world mm (x, y, z) of a case: `landmarks/<case>.json` of the data set; empty where there is none."""
    path = manifest.folder / "landmarks" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def landmark_errors(
    experiment: Experiment, manifest: Manifest, results: str | Path, patterns: Iterable[str], radius_mm: float
) -> pd.DataFrame | None:
    """The surface error of every test prediction near each landmark that a pattern (`*notch*`) names.

    A landmark belongs to the structure whose true surface is nearest to it.

    Returns:
        Columns `case`, `loss`, `seed`, `landmark`, `error_mm`: see :func:`shapeloss.surfaces.region_error`. None if
        no test case has such a landmark.
    """
    rows = []
    for name in tqdm(manifest.names("test"), desc="surface errors", mininterval=5):
        points = {
            landmark: np.asarray(point)
            for landmark, point in read_landmarks(manifest, name).items()
            if any(fnmatchcase(landmark, pattern) for pattern in patterns)
        }
        if not points:
            continue
        case = manifest.original(name)
        truths = {label: _surface(case, case.labels, label) for label in manifest.classes}
        owner = {
            landmark: min(truths, key=lambda label: _nearest(truths[label], point))
            for landmark, point in points.items()
        }
        for loss, seed, folder in run_folders(experiment, results):
            labels = manifest.read_labels(folder / "predictions" / f"{name}.nii.gz")
            found = {label: _surface(case, labels, label) for label in set(owner.values())}
            for landmark, point in points.items():
                label = owner[landmark]
                error = region_error(found[label], truths[label], point.tolist(), radius_mm).mean_mm
                rows.append({"case": name, "loss": loss, "seed": seed, "landmark": landmark, "error_mm": error})
    return pd.DataFrame(rows) if rows else None


def _surface(case: Case, labels: np.ndarray, label: int) -> pv.PolyData:
    return label_surface(labels == label, case.spacing, case.affine)


def _nearest(surface: pv.PolyData, point: np.ndarray) -> float:
    return float(np.linalg.norm(surface.points - point, axis=1).min(initial=np.inf))


def distance_map_panels(case: Case, classes: dict[int, str], slice_axis: int | None = None) -> dict[str, Any]:
    """The arguments of :func:`shapeloss.plots.figure_distance_maps` for a case: φ of the paper's default reading."""
    phi = distance_penalty(case.labels, case.spacing)
    return {
        "image": case.image,
        "labels": case.labels,
        "phi_by_compartment": dict.fromkeys([0, *classes], phi),  # each is shown where its label is
        "phi": phi,
        "spacing": case.spacing,
        "class_names": classes,
        "slice_axis": slice_axis,
    }


def provenance_line(experiment: Experiment, manifest: Manifest, results: str | Path) -> str:
    """Which data, profile, seeds, commit and custom losses numbers come from, in a line for a caption.

    Where the code of the evaluation is at another commit than that of the trainings, both are named.
    """
    runs = read_runs(experiment, results)
    precision = ", ".join(sorted({run["precision"] for run in runs}))
    seeds = ", ".join(map(str, experiment.seeds))
    return (
        f"Data: {experiment.description} (hash {manifest.hash}). Profile: {experiment.name}. Seeds: {seeds}. "
        f"Slices: {manifest.slice_rule}. "
        f"Steps: {experiment.training.steps}. Precision: {precision}. {commits(runs)}{custom_losses(runs)}"
    )


def commits(runs: list[dict[str, Any]]) -> str:
    """The commits of the trainings and of the present code, as a sentence."""
    now, trained = commit(), sorted({run["commit"] for run in runs})
    return f"Commit: {now}." if trained == [now] else f"Commit: {now}; trained at {', '.join(trained)}."


def custom_losses(runs: list[dict[str, Any]]) -> str:
    """The file of each custom loss with the start of its SHA-256, as a sentence; empty where there is none."""
    own = {run["loss"]: run["custom_loss"] for run in runs if "custom_loss" in run}
    parts = [f"{row}: {loss['file']}, SHA-256 {loss['code'][:16]}" for row, loss in own.items()]
    return f" Custom loss {'; '.join(parts)}." if parts else ""
