"""What the second head of a multi-task training says: its distances beside the true ones, and as a boundary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import linregress

from shapeloss.data.manifest import Case, Manifest
from shapeloss.losses import MultiTaskLoss
from shapeloss.losses.label_maps import signed_distance
from shapeloss.metrics import score_case
from shapeloss.predict import postprocess, predict_distances
from shapeloss.replication.profile import Experiment
from shapeloss.replication.scores import read_runs, run_folders
from shapeloss.replication.study import BOUNDARY, PLAIN, answer, claimed_note, crossed_table
from shapeloss.runs.predict_folder import load_run
from shapeloss.stats.crossed import crossed_difference, score_grid
from shapeloss.stats.headings import PAPER_METRICS
from shapeloss.stats.paired_tests import holm
from shapeloss.stats.tables import format_p


def multi_task_rows(experiment: Experiment, num_classes: int) -> dict[str, MultiTaskLoss]:
    """The rows of the table whose network has a second head, with their losses."""
    built = {row: experiment.build_loss(row, num_classes) for row in experiment.losses}
    return {row: loss for row, loss in built.items() if isinstance(loss, MultiTaskLoss)}


def compare_rows(per_case: pd.DataFrame, rows: Mapping[str, MultiTaskLoss]) -> pd.DataFrame:
    """Each row less plain cross-entropy, and less the control: the row without regression whose weights are as fixed
    or as learnt.

    Args:
        per_case: rows of one structure, as for :func:`shapeloss.replication.study.crossed_table`, which says what is
            returned.
        rows: of :func:`multi_task_rows`.
    """
    tables = [crossed_table(per_case, list(rows), PLAIN)]
    for control, loss in rows.items():
        fixed = loss.log_variances is None
        likes = [row for row, other in rows.items() if other.weight and (other.log_variances is None) == fixed]
        if likes and not loss.weight:
            tables.append(crossed_table(per_case, likes, control))
    return pd.concat(tables, ignore_index=True)


def _folder(experiment: Experiment, results: str | Path, row: str, seed: int) -> Path:
    return next(path for loss, s, path in run_folders(experiment, results) if (loss, s) == (row, seed))


def regressed_distances(
    experiment: Experiment, manifest: Manifest, results: str | Path, row: str, seed: int, name: str
) -> NDArray[np.float32]:
    """(K, X, Y, Z): the signed distance in mm to each class that one training regresses for a test case.

    On the grid that the network sees.
    """
    network = load_run(_folder(experiment, results, row, seed)).network.eval()
    image = torch.from_numpy(np.array(manifest.load(name, Path(results) / "maps").image))[None, None]
    reach = multi_task_rows(experiment, manifest.num_classes)[row].reach_mm
    return predict_distances(network, image, experiment.training.precision) * np.float32(reach)


def true_distances(manifest: Manifest, name: str, results: str | Path) -> tuple[Case, NDArray[np.float32]]:
    """A test case on the network's grid, and the signed distance in mm to each class of its truth."""
    case = manifest.load(name, Path(results) / "maps")
    return case, signed_distance(np.asarray(case.labels), manifest.num_classes, case.spacing)


NEAR_MM = 3.0
"""Errors of a distance count so near a boundary: farther away it says little about the boundary."""
CALIBRATED_MM = 6.0
"""A regressed distance is compared with the truth up to this size; no farther than half the reach."""


def calibration(
    regressed: NDArray[np.float32], truth: NDArray[np.float32], limit_mm: float = CALIBRATED_MM
) -> pd.DataFrame:
    """The mean true distance where so much is regressed, in bins of 1 mm: in each the same, if it is calibrated.

    Args:
        regressed, truth: mm, of one shape; the truth clipped as the network learnt it.
        limit_mm: bins reach so far on both sides of the boundary.

    Returns:
        bin (its middle), regressed and truth (means over its voxels, mm), voxels.

    >>> table = calibration(np.float32([-1.2, -1.4, 0.5]), np.float32([-1.0, -2.0, 1.0]), limit_mm=2)
    >>> table[["bin", "truth", "voxels"]].to_numpy().tolist()
    [[-1.5, -1.5, 2.0], [0.5, 1.0, 1.0]]
    """
    table = pd.DataFrame({"regressed": regressed.ravel(), "truth": truth.ravel()})
    table["bin"] = np.floor(table["regressed"]) + 0.5
    groups = table[table["bin"].abs() < limit_mm].groupby("bin")
    return groups[["regressed", "truth"]].mean().assign(voxels=groups.size()).reset_index()


def calibration_line(
    regressed: NDArray[np.float32], truth: NDArray[np.float32], limit_mm: float = CALIBRATED_MM
) -> tuple[float, float]:
    """Slope and intercept (mm) of the least-squares line of the true over the regressed distance: 1 and 0, if it is
    calibrated (Cox 1958, for a continuous outcome).

    A slope above 1: distances are regressed too small. An intercept above 0: structures are drawn too large.

    Args:
        As for :func:`calibration`.

    >>> calibration_line(np.float32([-2, 0, 2]), np.float32([-1, 1, 3]))
    (1.0, 1.0)
    """
    near = np.abs(regressed) < limit_mm
    if near.sum() < 2:
        return np.nan, np.nan
    fitted = linregress(regressed[near].astype(float), truth[near].astype(float))
    return float(fitted.slope), float(fitted.intercept)


def labels_of_distances(distances: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(K, X, Y, Z) signed distances → (X, Y, Z) labels: the class in which each voxel lies deepest."""
    return distances.argmin(0).astype(np.uint8)


@dataclass(frozen=True)
class Heads:
    """What both heads of every training say of the test cases."""

    scores: pd.DataFrame
    """loss, seed, case, head ("classes" or "distances"): the paper's metrics as means over the structures; error_mm and
    bias_mm, mean absolute and mean error of the signed distance within 3 mm of a structure's boundary, for "classes" of
    the predicted mask's; and for "distances" slope and intercept_mm of :func:`calibration_line`.

    A bias above 0: structures are drawn too small. Where the cases are resampled for the network, "classes" are left
    out."""
    calibration: pd.DataFrame
    """loss, seed, case, and the columns of :func:`calibration`."""


def _mean(values: NDArray[np.float32]) -> float:
    return float(values.mean()) if values.size else np.nan


def read_heads(experiment: Experiment, manifest: Manifest, results: str | Path) -> Heads:
    """Predict the distances of every test case by every training with a second head, on the network's grid.

    Structures that a case's truth lacks have no boundary, and no part in errors and calibration.
    """
    rows: list[dict[str, Any]] = []
    tables: list[pd.DataFrame] = []
    losses = {row: loss for row, loss in multi_task_rows(experiment, manifest.num_classes).items() if loss.weight}
    for row, seed, name in product(losses, experiment.seeds, manifest.names("test")):
        reach = losses[row].reach_mm
        where: dict[str, Any] = {"loss": row, "seed": seed, "case": name}
        folder = _folder(experiment, results, row, seed)
        case, truth = true_distances(manifest, name, results)
        regressed = regressed_distances(experiment, manifest, results, row, seed, name)
        present = [k for k in range(1, manifest.num_classes) if (case.labels == k).any()]
        known, limit = np.clip(truth[present], -reach, reach), min(CALIBRATED_MM, reach / 2)
        tables.append(calibration(regressed[present], known, limit).assign(**where))
        slope, intercept = calibration_line(regressed[present], known, limit)
        found = {"distances": (postprocess(labels_of_distances(regressed), experiment.postprocessing), regressed)}
        classes = manifest.read_labels(folder / "predictions" / f"{name}.nii.gz")
        if classes.shape == case.labels.shape:
            found = {"classes": (classes, signed_distance(classes, manifest.num_classes, case.spacing)), **found}
        near = np.abs(truth[present]) <= min(NEAR_MM, reach)
        for head, (labels, distances) in found.items():
            scores = score_case(
                np.asarray(case.labels), labels, case.spacing, manifest.classes, manifest.slice_axis,
                list(PAPER_METRICS),
            )  # fmt: skip
            mean = next(s for s in scores if s["structure"] == "mean")
            error = np.clip(distances[present], -reach, reach)[near] - known[near]
            line = {"slope": slope, "intercept_mm": intercept} if head == "distances" else {}
            rows.append(
                where | {"head": head} | {metric: mean[metric] for metric in PAPER_METRICS}
                | {"error_mm": _mean(np.abs(error)), "bias_mm": _mean(error)} | line
            )  # fmt: skip
    return Heads(pd.DataFrame(rows), pd.concat(tables, ignore_index=True))


CALIBRATED = {"slope": 1.0, "intercept_mm": 0.0}
"""What a calibrated distance has."""


def calibration_tests(heads: pd.DataFrame) -> pd.DataFrame:
    """Is the regressed distance calibrated, for a new volume and a new training? p of slope 1, and of intercept 0.

    Args:
        heads: of :class:`Heads`.

    Returns:
        loss, quantity ("slope" or "intercept_mm"), expected, value, low, high (95 %), p, p_holm (over all rows).
    """
    rows = []
    table = heads[heads["head"] == "distances"]
    for loss, (quantity, expected) in product(table["loss"].unique(), CALIBRATED.items()):
        found = crossed_difference(score_grid(table, loss, quantity).to_numpy() - expected)
        value, low, high = (x + expected for x in (found.interval.value, found.interval.low, found.interval.high))
        rows.append(
            {"loss": loss, "quantity": quantity, "expected": expected, "value": value, "low": low, "high": high}
        )
        rows[-1]["p"] = found.p
    tests = pd.DataFrame(rows)
    return tests.assign(p_holm=holm(tests["p"].to_numpy()))


def learnt_weights(experiment: Experiment, results: str | Path) -> pd.DataFrame:
    """loss, seed, segmentation, regression: how much each part of the loss counts at the end of a training.

    exp(−s_s) and ½ w exp(−s_d) of :class:`shapeloss.losses.MultiTaskLoss`, for the rows that learn them.
    """
    rows: list[dict[str, Any]] = []
    for run in read_runs(experiment, results):
        if logs := run["learned_by_loss"].get("log_variances"):
            weight = experiment.losses[run["loss"]].get("weight", 1.0)
            parts = {"segmentation": np.exp(-logs[0]), "regression": weight * np.exp(-logs[1]) / 2}
            rows.append({"loss": run["loss"], "seed": run["seed"], **parts})
    return pd.DataFrame(rows, columns=["loss", "seed", "segmentation", "regression"])


def multi_task_page(
    compared: pd.DataFrame, heads: pd.DataFrame, weights: pd.DataFrame, claimed: float, source: str
) -> str:
    """Does the regression help the boundary? Comparison, heads and learnt weights, as Markdown.

    Args:
        compared: of :func:`compare_rows`.
        heads: scores of :func:`read_heads`.
        weights: of :func:`learnt_weights`.
        claimed: the smallest difference in boundary Dice that the paper reports between its loss and another.
        source: where the numbers come from, for the end.
    """
    trainings, volumes = heads["seed"].nunique(), heads["case"].nunique()
    lines = ["| Score | Row | less | Difference | 95 % interval | p (Holm) | Answer |", "|" + " --- |" * 7]
    for row in compared.to_dict("records"):
        size = claimed if row["metric"] == BOUNDARY else 0.0
        lines.append(
            f"| {PAPER_METRICS[row['metric']]} | `{row['loss']}` | `{row['reference']}` | {row['difference']:+.4f} | "
            f"{row['low']:+.4f} to {row['high']:+.4f} | {format_p(row['p_holm'])} | "
            f"{answer(row['low'], row['high'], row['p_holm'], size)} |"
        )
    lines += [
        "",
        f"Over {volumes} test volumes and {trainings} trainings a row: for a new volume and a new training, p "
        f"corrected by Holm over the rows that are compared with the same one. {claimed_note(claimed)}",
        "",
        "| Row | Segmentation by | Boundary Dice | Global Dice | Error of the distance, mm | Bias, mm |",
        "|" + " --- |" * 6,
    ]
    means = heads.groupby(["loss", "head"], sort=False)[[*PAPER_METRICS, "error_mm", "bias_mm"]].mean()
    for row in means.reset_index().to_dict("records"):
        scores = " | ".join(f"{row[metric]:.3f}" for metric in PAPER_METRICS)
        lines.append(f"| `{row['loss']}` | {row['head']} | {scores} | {row['error_mm']:.2f} | {row['bias_mm']:+.2f} |")
    lines += [
        "",
        "“Distances” takes the class in which a voxel lies deepest by the regressed distances. Error and bias: of the "
        f"signed distance within {NEAR_MM:g} mm of a structure's true boundary, as it is regressed (“distances”), and "
        "as it is measured from the predicted mask (“classes”), which needs no second head. A bias above 0: structures "
        "are drawn too small.",
        "",
        "| Row | Calibration | Mean | 95 % interval | Calibrated | p (Holm) |",
        "|" + " --- |" * 6,
    ]
    for row in calibration_tests(heads).to_dict("records"):
        name, unit = ("slope", "") if row["quantity"] == "slope" else ("intercept", " mm")
        lines.append(
            f"| `{row['loss']}` | {name} | {row['value']:.3f}{unit} | {row['low']:.3f} to {row['high']:.3f} | "
            f"{row['expected']:g} | {format_p(row['p_holm'])} |"
        )
    lines += [
        "",
        "Of the line of the true over the regressed distance of the structures, for each test volume and training. A "
        "slope above 1: distances are regressed too small. An intercept above 0: structures are drawn too large.",
        "",
    ]
    if len(weights):
        lines += ["| Row | Weight of the segmentation | of the regression | ratio |", "|" + " --- |" * 4]
        for loss, group in weights.groupby("loss", sort=False):
            parts = [group["segmentation"], group["regression"], group["regression"] / group["segmentation"]]
            cells = [f"{x.mean():.2f} ({x.min():.2f} to {x.max():.2f})" for x in parts]
            lines.append(f"| `{loss}` | {' | '.join(cells)} |")
        lines += ["", "Learnt, at the end: mean over the trainings (smallest to largest). They start at 1 and ½.", ""]
    return "\n".join([*lines, source]) + "\n"
