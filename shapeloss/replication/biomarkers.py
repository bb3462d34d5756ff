"""Biomarkers of a replication's test predictions beside the truth, and where their errors come from.

On the phantom the bones' surfaces are known exactly, so that the error of a prediction's biomarker has three parts:

    prediction − surface = (mask − surface) + (truth − mask) + (prediction − truth)

of the measure (voxels and meshing: the mask of the exact surfaces beside the surfaces themselves), of the reader who
drew the truth, and of the segmentation. On other data only the last is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyvista as pv
from tqdm import tqdm

from shapeloss._files import write_text
from shapeloss.data.manifest import Case, Manifest, read_sides
from shapeloss.metrics.agreement import LIMITS_FROM
from shapeloss.metrics.biomarkers import KNEE, Measurement, Side, biomarker_unit
from shapeloss.metrics.knee import all_biomarkers, side_of
from shapeloss.metrics.mesh import label_surface, surface_error
from shapeloss.metrics.shape import Curvature, surface_curvature
from shapeloss.phantom.biomarkers import exact_biomarkers
from shapeloss.phantom.dataset import EXACT
from shapeloss.plotting.style import loss_name
from shapeloss.replication.agreement import agreement_matrix, agreement_table, on_common_cases, spread_reference
from shapeloss.replication.profile import Experiment
from shapeloss.replication.scores import first_predictions, run_folders, write_sealed
from shapeloss.replication.surface_errors import read_anatomy, read_landmarks

FIGURE_BIOMARKERS = (
    "notch_width_mm",
    "bicondylar_width_mm",
    "posterior_radius_medial_mm",
    "tibial_width_mm",
    "tibial_slope_medial_deg",
    "patellar_height_mm",
)
GAUSSIAN_MM = 10.0
"""What a Gaussian curvature (1/mm²) is multiplied by to lie on the scale of a mean one (1/mm)."""
PARTS = {"measure": ("mask", "surface"), "reader": ("truth", "mask"), "segmentation": ("prediction", "truth")}
"""Part of the error → the two columns whose difference it is."""
Values = dict[tuple[str, str], Measurement]


def measure_biomarkers(
    experiment: Experiment, manifest: Manifest, results: str | Path, output: str | Path
) -> pd.DataFrame:
    """Measure every test prediction and its truth, and write the values to `output` (CSV).

    The side of a knee is that of the import, or of its landmarks (medial and lateral); without either, the sides stay
    unnamed.

    Returns:
        One row per case, loss, seed, structure and biomarker: unit, surface (of the phantom's exact bones), mask (of
        their voxels), truth (what the losses were trained on), prediction; NaN where there is none, and reason, why a
        truth or prediction has none.
    """
    rows = []
    sides: dict[str, Any] = dict(read_sides(manifest.folder))
    for name in tqdm(manifest.names("test"), desc="biomarkers", mininterval=5):
        case = manifest.original(name)
        side = sides.get(name) or side_of(read_landmarks(manifest, name))
        truth = _measured(case, case.labels, manifest, side)
        surface, mask = _exact(manifest, case, side)
        for loss, seed, folder in run_folders(experiment, results):
            labels = manifest.read_labels(folder / "predictions" / f"{name}.nii.gz")
            predicted = _measured(case, labels, manifest, side)
            rows += [
                {"case": name, "loss": loss, "seed": seed, "structure": structure, "biomarker": biomarker}
                | {"unit": biomarker_unit(biomarker), "surface": surface.get((structure, biomarker), _NONE).value}
                | {"mask": mask.get((structure, biomarker), _NONE).value, "truth": true.value}
                | {"prediction": predicted[structure, biomarker].value}
                | {"reason": said(true.reason, predicted[structure, biomarker].reason)}
                for (structure, biomarker), true in truth.items()
            ]
    return write_sealed(pd.DataFrame(rows), output)


def curved_surface(manifest: Manifest, name: str, label: int) -> tuple[pv.PolyData, Curvature]:
    """The true surface of one structure of a case, with the point arrays `mean` (1/mm) and `gaussian_10mm`; and both.

    `gaussian_10mm` is the Gaussian curvature times :data:`GAUSSIAN_MM`.
    """
    case = manifest.original(name)
    mask = case.labels == label
    surface = label_surface(mask, case.spacing, case.affine)
    curvature = surface_curvature(mask, case.spacing, surface.points, case.affine)
    surface["mean"], surface["gaussian_10mm"] = curvature.mean, GAUSSIAN_MM * curvature.gaussian
    return surface, curvature


def predicted_surfaces(
    experiment: Experiment, manifest: Manifest, results: str | Path, name: str, label: int, truth: pv.PolyData
) -> dict[str, pv.PolyData]:
    """Loss → the predicted surface of its first seed, with the point array `error_mm`: outside the truth positive."""
    case = manifest.original(name)
    surfaces = {}
    for loss, labels in first_predictions(experiment, manifest, results, name).items():
        surfaces[loss] = label_surface(labels == label, case.spacing, case.affine)
        surfaces[loss]["error_mm"] = surface_error(surfaces[loss], truth)
    return surfaces


_NONE = Measurement(float("nan"))


def said(truth: str, prediction: str) -> str:
    """Why one of two values is absent: the reasons of the truth and of the prediction."""
    return "; ".join(f"{who}: {why}" for who, why in (("truth", truth), ("prediction", prediction)) if why)


def _measured(case: Case, labels: np.ndarray, manifest: Manifest, side: Side | None) -> Values:
    return all_biomarkers(labels, case.affine, manifest.classes, side)


def _exact(manifest: Manifest, case: Case, side: Side | None) -> tuple[Values, Values]:
    """The biomarkers of a phantom's exact surfaces, and of their voxels; empty where they are not known."""
    anatomy = read_anatomy(manifest, case.name)
    if anatomy is None:
        return {}, {}
    exact = exact_biomarkers(anatomy)
    path = manifest.folder / EXACT / f"{case.name}.nii.gz"
    labels = manifest.read_labels(path) if path.is_file() else case.labels
    return {(KNEE, name): value for name, value in exact.items()}, _measured(case, labels, manifest, side)


def error_parts(rows: pd.DataFrame) -> pd.DataFrame:
    """Bias and SD of each part of the error, over cases, for each biomarker of which the exact value is known.

    A case counts that has all four values, the prediction under every loss: where the drawn truth cannot be measured,
    the exact mask stands for nothing.

    Args:
        rows: of :func:`measure_biomarkers`.

    Returns:
        structure, biomarker, unit, loss, n, and for each of :data:`PARTS` and "total" `<part>_bias` and `<part>_sd`.
    """
    known = on_common_cases(rows).dropna(subset=["surface", "mask", "truth", "prediction"])
    parts = {name: known[later] - known[earlier] for name, (later, earlier) in PARTS.items()}
    parts["total"] = known["prediction"] - known["surface"]
    keys = ["structure", "biomarker", "unit", "loss"]
    means = known[[*keys, "case"]].assign(**parts).groupby([*keys, "case"], sort=False).mean()
    groups = means.groupby(keys, sort=False)
    table = pd.concat(
        {f"{part}_{name}": getattr(groups[part], function)()
         for part in parts for name, function in (("bias", "mean"), ("sd", "std"))}, axis=1
    )  # fmt: skip
    table.insert(0, "n", groups.size())
    return table.reset_index()


def write_agreement(rows: pd.DataFrame, output: str | Path) -> pd.DataFrame:
    """Write `output` (Markdown): bias and limits of agreement per loss on common cases, and the parts of the errors.

    All numbers, with intervals and p-values, go into a CSV beside it, `<name>_agreement.csv`.

    Returns:
        The table of :func:`shapeloss.replication.agreement.agreement_table`.
    """
    table = agreement_table(rows)
    output = Path(output)
    write_sealed(table, output.with_name(f"{output.stem}_agreement.csv"))
    shown = table[~table["biomarker"].str.match("extent|inscribed")]
    reference = loss_name(spread_reference(list(dict.fromkeys(table["loss"]))))
    lines = [
        "# Biomarkers of the predictions", "",
        "Prediction less truth: bias, and in brackets the limits of agreement, bias ± 1.96 SD (Bland & Altman 1999),",
        f"over those n of {rows['case'].nunique()} test cases that can be measured in the truth and under every loss.",
        f"With fewer than {LIMITS_FROM} cases no limits are given: the 95 % interval of a limit would reach over the",
        "bias. A star marks a bias that is not 0: p < 0.05 by Wilcoxon's signed-rank test, corrected over the losses",
        f"by Holm's method. A dagger marks limits whose width is not that of {reference}: p < 0.05 by Pitman and",
        f"Morgan's test of paired variances, corrected likewise. `{output.stem}_agreement.csv` has the 95 % intervals,",
        "all p-values, the ratios of SDs, and the other biomarkers.", "",
        agreement_matrix(shown), "",
        _spread_sentence(table, reference), "",
    ]  # fmt: skip
    if len(parts := error_parts(rows)):
        lines += [
            "## Where the errors come from", "",
            "Bias ± SD over the same cases. Measure: voxels and meshing, the exact mask beside the exact surface.",
            "Reader: the drawn truth beside the exact mask. Then the segmentation of each loss: the prediction beside",
            "the drawn truth. For each case the three add up to the error against the exact surface.", "",
            _parts_markdown(parts), "",
        ]  # fmt: skip
    if notes := _notes(table):
        lines += ["## Left out", "", *(f"- {note}" for note in notes), ""]
    write_text(output, "\n".join(lines))
    return table


def _spread_sentence(table: pd.DataFrame, reference: str) -> str:
    """How many of the comparisons of spread tell a difference, and how far the ratios of SDs reach."""
    tested = table[(table["n"] >= LIMITS_FROM) & table["p_spread"].notna()]
    if tested.empty:
        return f"Spread: with fewer than {LIMITS_FROM} cases, or no spread at all, no two losses are compared."
    told = int((tested["p_spread_holm"] < 0.05).sum())
    low, high = tested["sd_ratio"].min(), tested["sd_ratio"].max()
    return (
        f"Spread: in {told} of {len(tested)} comparisons the SD is told from that of {reference}; the ratios of SDs "
        f"lie between {low:.2f} and {high:.2f}. By chance alone one biomarker in twenty would have such a difference."
    )


def _parts_markdown(parts: pd.DataFrame) -> str:
    """Measure, reader, and the segmentation of each loss."""
    losses = list(dict.fromkeys(parts["loss"]))
    header = ["biomarker", "n", "measure", "reader", *losses]
    lines = [f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    for biomarker, group in parts.groupby("biomarker", sort=False):
        by_loss = {row["loss"]: row for row in group.to_dict("records")}
        first = next(iter(by_loss.values()))
        cells = [_bias(first, "measure"), _bias(first, "reader")]
        cells += [_bias(by_loss[loss], "segmentation") for loss in losses]
        lines.append(f"| `{biomarker}` | {first['n']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _bias(row: Mapping[Any, Any], part: str) -> str:
    digits = 3 if row["unit"] == "1" else 2
    bias = f"{row[f'{part}_bias']:+.{digits}f}".replace("-", "−")
    return f"{bias} ± {row[f'{part}_sd']:.{digits}f}" if row["n"] > 1 else bias


def _notes(table: pd.DataFrame) -> list[str]:
    """Which cases are left out and why, once for all biomarkers that share it."""
    noted = table[table["note"] != ""]
    return [
        f"{', '.join(f'`{name}`' for name in dict.fromkeys(group['biomarker']))}: {note}"
        for note, group in noted.groupby("note", sort=False)
    ]


def shown_biomarkers(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """What a figure shows of the many: some of a knee's biomarkers, and volumes.

    Only what was measured for some case; a volume if nothing was.

    Returns:
        (structure, biomarker) pairs, for :func:`shapeloss.plotting.agreement.figure_agreement`.
    """
    names = [(KNEE, name) for name in FIGURE_BIOMARKERS]
    names += [(str(s), "volume_cm3") for s in dict.fromkeys(rows["structure"]) if s != KNEE]
    measured = rows[(rows["prediction"] - rows["truth"]).notna()]
    found = set(zip(measured["structure"], measured["biomarker"], strict=True))
    return [name for name in names if name in found][:7] or [(str(rows["structure"].iloc[0]), "volume_cm3")]
