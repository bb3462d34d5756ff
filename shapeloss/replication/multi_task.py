"""What the second head of a multi-task training says: its distances beside the true ones, and as a boundary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from shapeloss.data.manifest import Case, Manifest
from shapeloss.losses import MultiTaskLoss
from shapeloss.losses.label_maps import signed_distance
from shapeloss.metrics import score_case
from shapeloss.predict import postprocess, predict_distances
from shapeloss.replication.profile import Experiment
from shapeloss.replication.scores import run_folders
from shapeloss.replication.study import BOUNDARY, PLAIN, answer
from shapeloss.runs.predict_folder import load_run
from shapeloss.stats.headings import PAPER_METRICS
from shapeloss.stats.tables import format_p


def multi_task_rows(experiment: Experiment, manifest: Manifest) -> dict[str, MultiTaskLoss]:
    """The rows of the table whose network has a second head, with their losses."""
    built = {row: experiment.build_loss(row, manifest.num_classes) for row in experiment.losses}
    return {row: loss for row, loss in built.items() if isinstance(loss, MultiTaskLoss)}


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
    reach = multi_task_rows(experiment, manifest)[row].reach_mm
    return predict_distances(network, image, experiment.training.precision) * np.float32(reach)


def true_distances(manifest: Manifest, name: str, results: str | Path) -> tuple[Case, NDArray[np.float32]]:
    """A test case on the network's grid, and the signed distance in mm to each class of its truth."""
    case = manifest.load(name, Path(results) / "maps")
    return case, signed_distance(np.asarray(case.labels), manifest.num_classes, case.spacing)


def calibration(regressed: NDArray[np.float32], truth: NDArray[np.float32], limit_mm: float = 6.0) -> pd.DataFrame:
    """How the true distance lies where so much is regressed, in bins of 1 mm.

    A calibrated estimate has a true mean equal to the regressed one in each bin.

    Args:
        regressed, truth: mm, of one shape.
        limit_mm: bins reach so far on both sides of the boundary.

    Returns:
        regressed (mean of the bin, mm), mean, low, high (of the truth: mean, 10th and 90th percentile), voxels.

    >>> table = calibration(np.float32([-1.2, -1.4, 0.5]), np.float32([-1.0, -2.0, 1.0]), limit_mm=2)
    >>> table[["mean", "voxels"]].to_numpy().tolist()
    [[-1.5, 2.0], [1.0, 1.0]]
    """
    edges = np.arange(-limit_mm, limit_mm + 1)
    bins = np.digitize(regressed.ravel(), edges)
    table = pd.DataFrame({"bin": bins, "regressed": regressed.ravel(), "truth": truth.ravel()})
    groups = table[(table["bin"] > 0) & (table["bin"] < len(edges))].groupby("bin")
    return pd.DataFrame(
        {
            "regressed": groups["regressed"].mean(),
            "mean": groups["truth"].mean(),
            "low": groups["truth"].quantile(0.1),
            "high": groups["truth"].quantile(0.9),
            "voxels": groups.size(),
        }
    ).reset_index(drop=True)


def labels_of_distances(distances: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(K, X, Y, Z) signed distances → (X, Y, Z) labels: the class in which each voxel lies deepest."""
    return distances.argmin(0).astype(np.uint8)


def head_scores(experiment: Experiment, manifest: Manifest, results: str | Path) -> pd.DataFrame:
    """The scores of both heads of every multi-task training, on the network's grid.

    Returns:
        loss, seed, case, head ("classes" or "distances"), and the paper's metrics as means over the structures;
        error_mm: mean absolute error of the regressed distance within 3 mm of a boundary; bias_mm: its mean error.
        Where the cases are resampled for the network, the head of the classes is left out.
    """
    rows: list[dict[str, Any]] = []
    for row, loss in multi_task_rows(experiment, manifest).items():
        for seed in experiment.seeds:
            folder = _folder(experiment, results, row, seed)
            for name in manifest.names("test"):
                case, truth = true_distances(manifest, name, results)
                regressed = regressed_distances(experiment, manifest, results, row, seed, name)
                near = np.abs(truth) <= min(3.0, loss.reach_mm)
                error = (regressed - truth)[near]
                classes = manifest.read_labels(folder / "predictions" / f"{name}.nii.gz")
                found = {"distances": postprocess(labels_of_distances(regressed), experiment.postprocessing)}
                if classes.shape == found["distances"].shape:
                    found = {"classes": classes, **found}
                for head, labels in found.items():
                    scores = score_case(
                        np.asarray(case.labels), labels, case.spacing, manifest.classes, manifest.slice_axis,
                        list(PAPER_METRICS),
                    )  # fmt: skip
                    mean = next(s for s in scores if s["structure"] == "mean")
                    rows.append(
                        {"loss": row, "seed": seed, "case": name, "head": head}
                        | {metric: mean[metric] for metric in PAPER_METRICS}
                        | {"error_mm": float(np.abs(error).mean()), "bias_mm": float(error.mean())}
                    )
    return pd.DataFrame(rows)


def multi_task_page(compared: pd.DataFrame, heads: pd.DataFrame, claimed: float, source: str) -> str:
    """Does the regression help the boundary? The numbers of :func:`head_scores` and their comparison, as Markdown.

    Args:
        compared: of :func:`shapeloss.replication.study.crossed_table`, each row less plain cross-entropy.
        heads: of :func:`head_scores`.
        claimed: the smallest difference in boundary Dice that the paper reports between its loss and another.
        source: where the numbers come from, for the end.
    """
    trainings, volumes = heads["seed"].nunique(), heads["case"].nunique()
    lines = [f"| Score | Row less `{PLAIN}` | Difference | 95 % interval | p (Holm) | Answer |", "|" + " --- |" * 6]
    for row in compared.to_dict("records"):
        size = claimed if row["metric"] == BOUNDARY else 0.0
        lines.append(
            f"| {PAPER_METRICS[row['metric']]} | `{row['loss']}` | {row['difference']:+.4f} | {row['low']:+.4f} to "
            f"{row['high']:+.4f} | {format_p(row['p_holm'])} | {answer(row['low'], row['high'], row['p_holm'], size)} |"
        )
    lines += [
        "",
        f"Over {volumes} test volumes and {trainings} trainings a row: for a new volume and a new training, p "
        f"corrected over the rows by Holm. “Below the claimed {claimed:.2f}”: the whole interval lies within "
        f"± {claimed:.2f}, the smallest difference in boundary Dice that the paper reports between its loss and "
        "another.",
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
        "regressed distance within 3 mm of a boundary; the same for both rows of a loss.",
        "",
        source,
    ]
    return "\n".join(lines) + "\n"
