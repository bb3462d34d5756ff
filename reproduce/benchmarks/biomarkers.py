"""How exact the biomarkers and curvatures are themselves: voxels and meshing alone, without any segmentation.

    python reproduce/benchmarks/biomarkers.py [--subjects 10]

Each phantom knee's exact surfaces are known (`shapeloss.phantom.biomarkers`). They are sampled as label maps of several
voxel sizes in the field of view of an OAI DESS (112 × 140 × 140 mm), and measured as any label map is. Curvatures are
compared with the closed forms of a ball, an ellipsoid and a torus.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from tqdm import tqdm

from shapeloss._files import atomic, write_text
from shapeloss.metrics.biomarkers import BONES, KNEE, Side, biomarker_unit
from shapeloss.metrics.knee import all_biomarkers
from shapeloss.metrics.mesh import label_surface, vertex_areas
from shapeloss.metrics.shape import surface_curvature
from shapeloss.phantom.anatomy import Anatomy, bone_field, distance_and_normal, select
from shapeloss.phantom.biomarkers import exact_biomarkers, exact_shape
from shapeloss.phantom.contrast import PhantomOptions
from shapeloss.phantom.knee import _slab_coordinates, make_anatomy

Spacing = tuple[float, float, float]
FIELD_MM = (112, 140, 140)
SPACINGS: tuple[Spacing, ...] = ((0.7, 0.365, 0.365), (1.5, 1.5, 1.5), (3.4, 1.5, 1.5))
CURVED: tuple[Spacing, ...] = ((0.7, 0.35, 0.35), (1.4, 0.7, 0.7), (2.8, 1.4, 1.4), (4.0, 1.5, 1.5))
NEAR_MM = 3.0
OUTPUT = Path(__file__).with_suffix(".md")


def exact_labels(anatomy: Anatomy, spacing: Spacing) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The label map of a subject's true bones, and its affine."""
    x, y, z = (round(mm / step) for mm, step in zip(FIELD_MM, spacing, strict=True))
    options = PhantomOptions(shape=(x, y, z), spacing=spacing)
    labels = np.zeros(options.shape, np.uint8)
    strides = tuple(max(round(NEAR_MM / 2 / step), 1) for step in spacing)
    for start in range(0, x, strides[0]):
        points = _slab_coordinates(options, start, min(start + strides[0], x))
        few = select(points, np.s_[:1, :: strides[1], :: strides[2]])
        slab = labels[start : start + strides[0]]
        for label, bone in enumerate(anatomy.bones, start=1):
            # far from the surface, the sign at one of several voxels is that of all
            coarse = distance_and_normal(few, bone)[0]
            far = coarse.repeat(strides[1], axis=1).repeat(strides[2], axis=2)[:, :y, :z].repeat(len(slab), axis=0)
            slab[far < -NEAR_MM] = label
            near = np.abs(far) <= NEAR_MM
            slab[near] = np.where(bone_field(select(points, near), bone) < 0, label, slab[near])
    return labels, options.affine


def measure_subject(subject: int) -> list[dict[str, Any]]:
    """Exact and measured biomarkers of one knee, for each voxel size."""
    anatomy = make_anatomy(subject)
    side: Side = "right" if anatomy.side > 0 else "left"
    exact = {(KNEE, name): value.value for name, value in exact_biomarkers(anatomy).items()}
    rows = []
    for spacing in SPACINGS:
        labels, affine = exact_labels(anatomy, spacing)
        low = affine[:3, 3] - np.array(spacing) / 2
        for bone, name in zip(anatomy.bones, BONES, strict=True):
            shape = exact_shape(bone, name, low, low + np.array(spacing) * labels.shape)
            exact |= {(name, biomarker): value for biomarker, value in shape.items()}
        found = all_biomarkers(labels, affine, dict(enumerate(BONES, start=1)), side)
        rows += [
            {"subject": subject, "spacing": " × ".join(f"{step:g}" for step in spacing), "structure": structure}
            | {"biomarker": name, "unit": biomarker_unit(name), "exact": value}
            | {"measured": found[structure, name].value, "reason": found[structure, name].reason}
            for (structure, name), value in exact.items()
        ]
    return rows


def summary(rows: pd.DataFrame) -> list[str]:
    """The error of each measure: bias ± SD over the knees, a column for each voxel size."""
    rows = rows.assign(error=rows["measured"] - rows["exact"])
    spacings = list(rows["spacing"].unique())
    header = ["biomarker", "exact, mean ± SD", *(f"{spacing} mm" for spacing in spacings)]
    lines = [f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    for (structure, biomarker, unit), group in rows.groupby(["structure", "biomarker", "unit"], sort=False):
        digits = 3 if unit == "1" else 2
        first = group[group["spacing"] == spacings[0]]["exact"]
        name = biomarker if structure == KNEE else f"{biomarker} ({structure})"
        cells = [f"`{name}`", f"{first.mean():.{digits}f} ± {first.std():.{digits}f}"]
        for spacing in spacings:
            error = group[group["spacing"] == spacing]["error"]
            cell = f"{error.mean():+.{digits}f} ± {error.std():.{digits}f}".replace("-", "−")
            cells.append(cell + (f" (n = {error.count()})" if error.count() < len(error) else ""))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def curved_shape(kind: str, spacing: Spacing) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """A mask of a ball, an ellipsoid or a torus, off the grid's symmetry, and its centre in mm."""
    counts = [int(56 / step) + 1 for step in spacing]
    shift = np.multiply((0.1, 0.23, 0.37), spacing)
    centre = np.array([(n - 1) / 2 * step for n, step in zip(counts, spacing, strict=True)]) + shift
    axes = [np.arange(n) * step - c for n, step, c in zip(counts, spacing, centre, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    inside = {
        "ball, r = 20 mm": x * x + y * y + z * z < 400,
        "ellipsoid, 22, 14, 18 mm": (x / 22) ** 2 + (y / 14) ** 2 + (z / 18) ** 2 < 1,
        "torus, 15 and 7 mm": (np.hypot(x, y) - 15) ** 2 + z * z < 49,
    }
    return inside[kind], centre


def true_curvature(kind: str, points: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and Gaussian curvature of the shapes of :func:`curved_shape` at points about their centre."""
    x, y, z = points.astype(float).T
    if kind.startswith("ball"):
        return np.full(len(x), 1 / 20), np.full(len(x), 1 / 400)
    if kind.startswith("ellipsoid"):
        a, b, c = 22.0, 14.0, 18.0
        h = x**2 / a**4 + y**2 / b**4 + z**2 / c**4
        mean = np.abs(x * x + y * y + z * z - a * a - b * b - c * c) / (2 * (a * b * c) ** 2 * h**1.5)
        return mean, 1 / (a * b * c * h) ** 2
    cosine = (np.hypot(x, y) - 15) / np.hypot(np.hypot(x, y) - 15, z)
    return (15 + 14 * cosine) / (14 * (15 + 7 * cosine)), cosine / (7 * (15 + 7 * cosine))


def curvature_errors() -> pd.DataFrame:
    """Root mean square errors, by area, of the curvatures of the field and of VTK's on the mesh."""
    rows = []
    for kind in ("ball, r = 20 mm", "ellipsoid, 22, 14, 18 mm", "torus, 15 and 7 mm"):
        for spacing in CURVED:
            mask, centre = curved_shape(kind, spacing)
            mesh = label_surface(mask, spacing)
            areas = vertex_areas(mesh)
            true = true_curvature(kind, np.asarray(mesh.points) - centre)
            field = surface_curvature(mask, spacing, mesh.points)
            row = {"shape": kind, "voxels, mm": " × ".join(f"{step:g}" for step in spacing)}
            row |= {"mean curvature, 1/mm": np.sqrt(np.average(true[0] ** 2, weights=areas))}
            for name, found in (("field", field.mean), ("VTK", mesh.curvature("mean"))):
                row[f"H, {name}"] = np.sqrt(np.average((found - true[0]) ** 2, weights=areas))
            row |= {"Gaussian curvature, 1/mm²": np.sqrt(np.average(true[1] ** 2, weights=areas))}
            for name, found in (("field", field.gaussian), ("VTK", mesh.curvature("gaussian"))):
                row[f"K, {name}"] = np.sqrt(np.average((found - true[1]) ** 2, weights=areas))
            rows.append(row)
    return pd.DataFrame(rows)


def _curvature_table(errors: pd.DataFrame) -> list[str]:
    lines = [f"| {' | '.join(errors.columns)} |", "|" + " --- |" * len(errors.columns)]
    for row in errors.to_dict("records"):
        cells = [value if isinstance(value, str) else f"{value:.5f}" for value in row.values()]
        lines.append(f"| {' | '.join(cells)} |")
    finest, coarsest = CURVED[0], CURVED[2]
    ratio = np.log(max(coarsest) / max(finest))
    for kind, group in errors.groupby("shape", sort=False):
        orders = [np.log(group[c].iloc[2] / group[c].iloc[0]) / ratio for c in ("H, field", "K, field")]
        lines += [
            "",
            f"{kind.split(',')[0].capitalize()}: order of convergence {orders[0]:.2f} (H), {orders[1]:.2f} (K).",
        ]
    return lines


def main(
    subjects: Annotated[int, typer.Option(help="Phantom knees.", min=2)] = 10,
    output: Annotated[Path, typer.Option(help="Markdown file to write; the CSV lies beside it.")] = OUTPUT,
) -> None:
    """Measure, print the tables and write them."""
    rows = pd.DataFrame([row for subject in tqdm(range(subjects)) for row in measure_subject(subject)])
    with atomic(output.with_suffix(".csv")) as temporary:
        rows.round(4).to_csv(temporary, index=False)
    text = "\n".join([
        "# How exact the biomarkers are themselves",
        "",
        f"{subjects} phantom knees whose surfaces are known exactly, sampled as label maps in a field of view of",
        "112 × 140 × 140 mm, and measured. The error (measured less exact, bias ± SD over the knees) is that of voxels",
        "and meshing alone: no error of a segmentation is in it. n counts knees where the field of view cuts nothing",
        "that is needed. Of each bone, the exact surface is cut by the field of view as the label map is.",
        "",
        *summary(rows),
        "",
        "## Curvature",
        "",
        "Root mean square error by area. H is the mean curvature, K the Gaussian one; “field” is that of",
        "`surface_curvature`, “VTK” that of `mesh.curvature()` on the same mesh. The columns before them are the size",
        "of what is measured. The order is that between voxels of 2.8 and 0.7 mm.",
        "",
        *_curvature_table(curvature_errors()),
        "",
        "Made by `python reproduce/benchmarks/biomarkers.py`.",
        "",
    ])  # fmt: skip
    print(text)
    write_text(output, text)


if __name__ == "__main__":
    typer.run(main)
