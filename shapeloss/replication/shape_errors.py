"""Signed and curvature-weighted surface errors of a replication's test predictions, compared over losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from shapeloss._files import write_text
from shapeloss.data.manifest import Manifest
from shapeloss.metrics.shape import SHAPE_ERRORS, TrueShape
from shapeloss.replication.profile import Experiment
from shapeloss.replication.scores import first_predictions
from shapeloss.stats.compare_losses import case_means, compare_losses
from shapeloss.stats.tables import format_p

COMPARED = ("bias_mm", "absolute_mm", "missed_mm", "curvature_weighted_mm")
"""What is tested; the others are shown."""


def shape_table(experiment: Experiment, manifest: Manifest, results: str | Path) -> pd.DataFrame:
    """The shape errors of every test case, structure and loss, of each loss's first seed.

    Returns:
        Columns `case`, `loss`, `seed`, `structure`, and :data:`shapeloss.metrics.shape.SHAPE_ERRORS`; infinite where a
        structure is missed. A structure that a truth lacks, or that fills the volume, has no surface and no row.
    """
    rows: list[dict[str, Any]] = []
    for name in tqdm(manifest.names("test"), desc="shape errors", mininterval=5):
        case = manifest.original(name)
        truths = {
            (label, structure): shape
            for label, structure in manifest.classes.items()
            if (shape := TrueShape.of(case.labels == label, case.spacing, case.affine))
        }
        for loss, labels in first_predictions(experiment, manifest, results, name).items():
            rows += [
                {"case": name, "loss": loss, "seed": experiment.seeds[0], "structure": structure}
                | shape.errors(labels == label)
                for (label, structure), shape in truths.items()
            ]
    return pd.DataFrame(rows, columns=["case", "loss", "seed", "structure", *SHAPE_ERRORS]).round(4)


def write_shape_errors(table: pd.DataFrame, output: str | Path, source: str) -> str:
    """Write `output` (Markdown): mean ± SD over the test cases, and each loss beside the first; returns the text.

    Args:
        table: of :func:`shape_table`.
        source: where the numbers come from, for the end.
    """
    per_case = table.groupby(["case", "loss", "seed"], sort=False)[list(SHAPE_ERRORS)].mean().reset_index()
    losses = list(dict.fromkeys(per_case["loss"]))
    compared = compare_losses(per_case, losses[0], COMPARED)
    p_values = {(row["loss"], row["metric"]): row["p_holm"] for row in compared.to_dict("records")}
    lines = ["# Shape errors of the predictions", "", "In mm: mean ± SD over the test cases.", ""]
    lines += [
        f"| loss | {' | '.join(f'`{name}`' for name in SHAPE_ERRORS)} |",
        "|" + " --- |" * (len(SHAPE_ERRORS) + 1),
    ]
    means = case_means(per_case, list(SHAPE_ERRORS))
    for loss in losses:
        cells = [
            _mean_sd(means.loc[loss, name], name) + "\\*" * (p_values.get((loss, name), 1.0) < 0.05)
            for name in SHAPE_ERRORS
        ]
        lines.append(f"| {loss} | {' | '.join(cells)} |")
    lines += ["", *(f"- `{name}`: {text}." for name, text in SHAPE_ERRORS.items()), ""]
    tested = (
        f" A star: other than `{losses[0]}`, p < 0.05 by Wilcoxon's signed-rank test, corrected over the losses by "
        f"Holm's method; tested are {', '.join(f'`{name}`' for name in COMPARED)}, of which the smallest p is "
        f"{format_p(min(p_values.values()))}."
        if p_values
        else ""
    )
    lines += [f"Of each case the mean over its structures, of each loss its first training.{tested}", ""]
    lines += [f"| structure | loss | {' | '.join(f'`{name}`' for name in SHAPE_ERRORS)} |"]
    lines += ["|" + " --- |" * (len(SHAPE_ERRORS) + 2)]
    for structure, group in table.groupby("structure", sort=False):
        by_loss = case_means(group, list(SHAPE_ERRORS))
        for loss in losses:
            cells = [_mean_sd(by_loss.loc[loss, name], name) for name in SHAPE_ERRORS]
            lines.append(f"| {structure} | {loss} | {' | '.join(cells)} |")
    text = "\n".join([*lines, "", source]) + "\n"
    write_text(output, text)
    return text


def _mean_sd(scores: pd.Series, name: str) -> str:
    """Over the cases in which the structure was found; how many were not, if any."""
    known = scores.dropna()
    missed = f" ({len(scores) - len(known)} missed)" if len(known) < len(scores) else ""
    if known.empty:
        return f"–{missed}"
    sign = "+" if name == "bias_mm" else ""
    sd = f" ± {known.std():.2f}" if len(known) > 1 else ""
    return f"{known.mean():{sign}.2f}{sd}{missed}".replace("-", "−")
