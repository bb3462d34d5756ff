"""Surface errors of all test cases on one common surface, that of the median case: where losses err, on average.

The error at a point of the common surface is, in each case, the distance of the corresponding point of the case's true
surface from the prediction. So it sees what a prediction lacks, and not what it adds far from any true surface.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyvista as pv
from numpy.typing import NDArray
from tqdm import tqdm

from shapeloss._files import write_text
from shapeloss.data.manifest import Case, Manifest
from shapeloss.metrics.functions import weighted_percentile
from shapeloss.metrics.mesh import label_surface, mesh_arrays, vertex_areas
from shapeloss.metrics.triangles import triangle_distances
from shapeloss.plotting.render import POSTERIOR, widest_view
from shapeloss.plotting.style import loss_name
from shapeloss.replication.correspondence import PointMap, Points, in_view, is_phantom, point_map
from shapeloss.replication.profile import Experiment
from shapeloss.replication.regions import Division, case_surfaces, divide, longest_axes
from shapeloss.replication.scores import first_predictions, provenance_line
from shapeloss.replication.surface_errors import PAPER_BONES, read_landmarks
from shapeloss.stats.max_statistic import max_t_test

LEVEL = 0.05
SAMPLES = 80
"""Steps of the common surface along its longest side; finer than the errors' own pattern, and quick to compare."""
LANDMARK_MM = 5.0
"""A landmark farther than this from the common surface, such as the middle of the patella, is no point of it."""

LANDMARK_PARTS = ("distance_mm", "across_mm", "along_mm")
"""How far the correspondence puts a landmark from the case's own: see :func:`landmark_distances`."""


@dataclass(frozen=True)
class CommonSurface:
    """One structure of the median case, with the errors of every loss and case at its points."""

    mesh: pv.PolyData
    errors: Mapping[str, NDArray[np.float64]]
    """Loss → (cases, points): absolute, mm; NaN where the case has no such point in view, infinite where missed."""
    offsets: NDArray[np.float64]
    """(cases, points): from where the correspondence puts a point to the true surface, mm; NaN as above."""
    division: Division
    same_region: NDArray[np.float64]
    """(cases,): share of the compared area that falls into the region of the same name in the case."""

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(points,): in view in every case."""
        return np.asarray(np.isfinite(self.offsets).all(axis=0))

    def missed(self, *losses: str) -> int:
        """In how many cases one of these losses predicts no such structure."""
        return int(np.any([np.isinf(self.errors[loss]).any(axis=1) for loss in losses], axis=0).sum())

    def mean(self, loss: str) -> NDArray[np.float64]:
        """(points,): mean over the cases in which the structure was found, mm; NaN where it is not in view in all."""
        found = self.errors[loss][~np.isinf(self.errors[loss]).any(axis=1)]
        mean = found.mean(axis=0) if len(found) else np.full(self.mesh.n_points, np.nan)
        return np.where(self.seen, mean, np.nan)


@dataclass(frozen=True)
class Population:
    """The common surfaces of all structures, and how exact the correspondence behind them is."""

    case: str
    """Whose surfaces they are."""
    cases: tuple[str, ...]
    losses: tuple[str, ...]
    reference: str
    """The loss from which the differences are taken."""
    surfaces: Mapping[str, CommonSurface]
    landmarks: pd.DataFrame
    """Columns `landmark`, `case`, `distance_mm`, `across_mm`, `along_mm`: see :func:`landmark_distances`."""
    by_parameters: bool
    """Whether the correspondence is the phantom's own; else it is a registration."""
    lacking: tuple[str, ...] = ()
    """Structures that the truth of a case lacks."""
    differences: Mapping[tuple[str, str], tuple[NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=dict)
    """(structure, loss) → mean difference from the reference in mm and its corrected p, (points,) each; NaN where not
    compared."""


def population_errors(experiment: Experiment, manifest: Manifest, results: str | Path, template: str) -> Population:
    """The errors of each loss's first seed in every test case, on the surfaces of one test case.

    Args:
        experiment: of the profile.
        manifest: of the data set.
        results: the working folder.
        template: name of the test case whose surfaces are the common ones.
    """
    names, losses = tuple(manifest.names("test")), tuple(experiment.losses)
    common = manifest.original(template)
    labels = {name: label for label, name in manifest.classes.items()}
    axes = longest_axes(manifest)
    own = divide(case_surfaces(common, common.labels, manifest.classes), read_landmarks(manifest, template), axes)
    meshes = {name: _common_mesh(common, labels[name]) for name in own}
    areas = {name: vertex_areas(mesh) for name, mesh in meshes.items()}
    regions = {name: _regions(own[name], mesh.points) for name, mesh in meshes.items()}
    gathered: dict[str, list[dict[str, Any]]] = {name: [] for name in own}
    landmarks = []
    for name in tqdm(names, desc="common surface", mininterval=5):
        case = manifest.original(name)
        truths = case_surfaces(case, case.labels, manifest.classes)
        divisions = divide(truths, read_landmarks(manifest, name), axes)
        found = {
            loss: case_surfaces(case, predicted, manifest.classes)
            for loss, predicted in first_predictions(experiment, manifest, results, name).items()
        }
        maps: dict[str, PointMap] = {}
        for structure in own.keys() & divisions.keys():
            maps[structure] = point_map(manifest, common, case, labels[structure])
            predicted = {loss: surfaces[structure] for loss, surfaces in found.items()}
            parts = errors_at(meshes[structure], maps[structure], case, truths[structure], predicted)
            same = _regions(divisions[structure], parts["places"]) == regions[structure]
            weights = areas[structure] * np.isfinite(parts["offset"])
            gathered[structure].append(parts | {"same": float(np.average(same, weights=weights))})
        landmarks += _landmark_rows(manifest, common, case, meshes, maps, truths)
    surfaces = {
        name: CommonSurface(
            meshes[name],
            {loss: np.stack([part["errors"][loss] for part in parts]) for loss in losses},
            np.stack([part["offset"] for part in parts]),
            own[name],
            np.array([part["same"] for part in parts]),
        )
        for name, parts in gathered.items()
        if len(parts) == len(names)
    }
    reference = "ce" if "ce" in losses else losses[0]
    return Population(
        template,
        names,
        losses,
        reference,
        surfaces,
        pd.DataFrame(landmarks, columns=["landmark", "case", *LANDMARK_PARTS]),
        is_phantom(manifest),
        tuple(name for name in manifest.classes.values() if name not in surfaces),
        compare(surfaces, losses, reference),
    )


def errors_at(
    common: pv.PolyData, point_map: PointMap, case: Case, truth: pv.PolyData, predicted: Mapping[str, pv.PolyData]
) -> dict[str, Any]:
    """The errors of one case's predictions at the points of a common surface.

    Args:
        common: the common surface, world mm.
        point_map: from its points to those of the case.
        case: of which the field of view counts.
        truth: the case's true surface.
        predicted: loss → predicted surface, without points if missed.

    Returns:
        `places` (n, 3): the corresponding points of the true surface; `offset` (n,): how far the correspondence was
        from it, mm; `errors`: loss → (n,) absolute, mm. NaN where the point lies outside the field of view.
    """
    mapped = point_map(np.asarray(common.points, dtype=np.float64))
    places: Any = truth.find_closest_cell(mapped, return_closest_point=True)[1]  # type: ignore[index, arg-type]
    unseen = ~in_view(case, mapped)
    offset = np.where(unseen, np.nan, np.linalg.norm(places - mapped, axis=1))
    errors = {}
    for loss, mesh in predicted.items():
        errors[loss] = np.where(unseen, np.nan, triangle_distances(places, *mesh_arrays(mesh)))
    return {"places": places, "offset": offset, "errors": errors}


def compare(
    surfaces: Mapping[str, CommonSurface], losses: Sequence[str], reference: str
) -> dict[tuple[str, str], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """(structure, loss) → mean difference from the reference, and p corrected over all structures, losses and points.

    Where a structure was missed in some case by one of the two losses, nothing is compared: NaN.
    """
    keys = [(name, loss) for name in surfaces for loss in losses if loss != reference]
    where, parts = {}, []
    for name, loss in keys:
        surface = surfaces[name]
        where[name, loss] = surface.seen & (surface.missed(loss, reference) == 0)
        with np.errstate(invalid="ignore"):  # infinite less infinite, which is not compared
            parts.append((surface.errors[loss] - surface.errors[reference])[:, where[name, loss]])
    together = np.concatenate(parts, axis=1) if parts else np.zeros((0, 0))
    tested = len(together) > 1 and together.shape[1] > 0
    p = max_t_test(together)[1] if tested else np.ones(together.shape[1])
    result, start = {}, 0
    for key, part in zip(keys, parts, strict=True):
        values = np.full((2, len(where[key])), np.nan)
        values[:, where[key]] = part.mean(axis=0), p[start : start + part.shape[1]]
        start += part.shape[1]
        result[key] = values[0], values[1]
    return result


def population_panels(population: Population) -> dict[str, Any]:
    """The arguments of :func:`shapeloss.plotting.population_maps.figure_population`."""
    surfaces, losses = population.surfaces, population.losses
    meshes = {name: surface.mesh for name, surface in surfaces.items()}
    others = [loss for loss in losses if loss != population.reference]
    knee = {name.lower() for name in surfaces} <= PAPER_BONES
    cases = len(population.cases)
    return {
        "meshes": meshes,
        "means": {name: {loss: surface.mean(loss) for loss in losses} for name, surface in surfaces.items()},
        "differences": {
            name: {
                loss: (difference, p < LEVEL)
                for loss in others
                for difference, p in [population.differences[name, loss]]
            }
            for name in surfaces
        },
        "missed": {(name, loss): surface.missed(loss) for name, surface in surfaces.items() for loss in losses},
        "reference": population.reference,
        "cases": cases,
        "direction": POSTERIOR if knee else widest_view(list(meshes.values())),
        "note": _note(population),
    }


def _note(population: Population) -> str:
    smallest = 2.0 ** (1 - len(population.cases))
    if smallest > LEVEL:
        test = f"With {len(population.cases)} cases no difference can be told from zero: no p is below {smallest:.2g}."
    elif any((p < LEVEL).any() for _, p in population.differences.values()):
        test = f"Outlined: differs from zero (p < {LEVEL}, corrected for all points, structures and losses)."
    else:
        test = f"No point differs from zero (p < {LEVEL}, corrected for all points, structures and losses)."
    lacking = f" Not in every case: {', '.join(population.lacking)}." if population.lacking else ""
    return f"{test} Grey: not in view in every case, or not compared. Surfaces of {population.case}.{lacking}"


def region_means(population: Population) -> pd.DataFrame:
    """The maps by region of the common surface, weighted by area.

    Returns:
        Columns `structure`, `region`, `loss`, `mean_mm` (of the mean absolute error), `difference_mm` (from the
        reference), `smaller_percent` and `larger_percent` (of the compared area: where the error differs from the
        reference's at :data:`LEVEL`). NaN where nothing is compared.
    """
    rows = []
    for name, surface in population.surfaces.items():
        area = vertex_areas(surface.mesh)
        which = surface.division.which(np.asarray(surface.mesh.points, dtype=np.float64))
        for index, region in enumerate(surface.division.names):
            for loss in population.losses:
                row: dict[str, Any] = {"structure": name, "region": region, "loss": loss}
                here = which == index
                row["mean_mm"] = _average(surface.mean(loss), area, here)
                if loss != population.reference:
                    difference, p = population.differences[name, loss]
                    row["difference_mm"] = _average(difference, area, here)
                    for word, sign in (("smaller", -1), ("larger", 1)):
                        told = np.where(np.isnan(p), np.nan, 100.0 * ((p < LEVEL) & (sign * difference > 0)))
                        row[f"{word}_percent"] = _average(told, area, here)
                rows.append(row)
    columns = ["structure", "region", "loss", "mean_mm", "difference_mm", "smaller_percent", "larger_percent"]
    return pd.DataFrame(rows, columns=columns)


def _average(values: NDArray[np.float64], area: NDArray[np.float64], here: NDArray[np.bool_]) -> float:
    there = here & np.isfinite(values)
    return float(np.average(values[there], weights=area[there])) if there.any() else float("nan")


def correspondence_errors(population: Population) -> pd.DataFrame:
    """How far the correspondence is from the true surface: one row for each structure.

    Returns:
        Columns `structure`, `mean_mm`, `p95_mm`, over cases and points weighted by area; and `same_region_percent`, of
        the area.
    """
    rows: list[tuple[str, float, float, float]] = []
    others = [index for index, name in enumerate(population.cases) if name != population.case]
    for name, surface in population.surfaces.items():
        offsets = surface.offsets[others]
        weights = np.broadcast_to(vertex_areas(surface.mesh), offsets.shape)[np.isfinite(offsets)]
        values = offsets[np.isfinite(offsets)]
        if len(values):
            mean, p95 = float(np.average(values, weights=weights)), weighted_percentile(values, weights, 95)
            rows.append((name, mean, p95, 100 * float(surface.same_region[others].mean())))
    return pd.DataFrame(rows, columns=["structure", "mean_mm", "p95_mm", "same_region_percent"])


def landmark_errors(population: Population) -> pd.DataFrame:
    """How far the correspondence puts each landmark from the case's own, over the cases.

    Returns:
        Columns `landmark`, and `<part>_mean_mm` and `<part>_p95_mm` for each of :data:`LANDMARK_PARTS`.
    """
    groups = population.landmarks.groupby("landmark", sort=False)
    return pd.DataFrame([
        {"landmark": str(landmark)}
        | {f"{part.removesuffix('_mm')}_{word}_mm": float(value)
           for part in LANDMARK_PARTS
           for word, value in (("mean", rows[part].mean()), ("p95", np.percentile(rows[part], 95)))}
        for landmark, rows in groups
    ])  # fmt: skip


def landmark_distances(moved: Points, landmark: Sequence[float], truth: pv.PolyData) -> dict[str, float]:
    """A mapped landmark beside the case's own, in mm: how far apart, and the parts across and along the surface.

    A landmark that is the extreme point of a round or flat place slides along the surface as the bone tilts: that is
    no fault of the correspondence. So the distance has two parts: across, from the mapped point to the nearest point of
    the true surface; along, from there to the landmark (the chord).

    Args:
        moved: (3,), where the correspondence puts it.
        landmark: (3,), the case's own.
        truth: the case's true surface.

    >>> ball = pv.Sphere(radius=10, theta_resolution=200, phi_resolution=200)
    >>> parts = landmark_distances(np.array([12.0, 0.0, 0.0]), (0.0, 10.0, 0.0), ball)
    >>> {name: round(value, 2) for name, value in parts.items()}  # √(12² + 10²), 12 − 10, √(10² + 10²)
    {'distance_mm': 15.62, 'across_mm': 2.0, 'along_mm': 14.14}
    """
    nearest = np.asarray(truth.find_closest_cell(moved, return_closest_point=True)[1])  # type: ignore[index, arg-type]
    gaps = (moved - np.asarray(landmark), moved - nearest, nearest - np.asarray(landmark))
    return dict(zip(LANDMARK_PARTS, (float(np.linalg.norm(gap)) for gap in gaps), strict=True))


def write_population(
    population: Population, experiment: Experiment, manifest: Manifest, results: str | Path, output: str | Path
) -> str:
    """Write the method, its error, and the maps by region as Markdown, atomically; returns the text."""
    rule = (
        "the parameters that the phantom's bones are made from: a point keeps its place in the bone's own frame, and "
        "moves along the normal as one bone's shape turns into the other's"
        if population.by_parameters
        else "registration of the signed distance maps of the labels, by a similarity and then by demons"
    )
    others, n = len(population.cases) - 1, len(population.cases)
    lines = [
        "# Errors on a common surface",
        "",
        f"The mean over {n} test cases of the absolute distance of the true surface from the prediction, point by "
        f"point on the surface of {population.case}. Correspondence by {rule}; then the nearest point of the case's "
        "true surface is taken. Points that some case does not have in view are left out.",
        "",
        "## How exact the correspondence is",
        "",
        f"Over the {others} other cases: from where the correspondence puts a point to the case's true surface, "
        "weighted by area; and the share of the area that comes to lie in the region of the same name.",
        "",
        *_markdown(correspondence_errors(population), ["", "mean, mm", "95th percentile, mm", "same region, %"]),
        "",
        "From where it puts a landmark to the case's own, and the two parts of that: across, to the nearest point of "
        "the true surface, and along the surface from there. Landmarks that are the extreme point along a direction of "
        "the scanner (condyles, eminence) slide over a flat place as a bone tilts; the part across the surface, and "
        "not the distance, then says how exact the correspondence is.",
        "",
        *_markdown(
            landmark_errors(population),
            [
                "landmark",
                *(
                    f"{part}: {word}, mm"
                    for part in ("distance", "across", "along")
                    for word in ("mean", "95th percentile")
                ),
            ],
        ),
        "",
        "## By region",
        "",
        f"Error: mean of the map. Difference: from {loss_name(population.reference)}. Smaller, larger: share of the "
        f"area whose error differs from it at p < {LEVEL}, two-sided, by sign flips of the largest t over all points, "
        f"structures and losses; with {n} cases no p is below {2.0 ** (1 - n):.2g}.",
        "",
        *_markdown(
            region_means(population),
            ["structure", "region", "loss", "error, mm", "difference, mm", "smaller, % of area", "larger, % of area"],
        ),
        "",
        provenance_line(experiment, manifest, results),
        "",
    ]
    write_text(output, text := "\n".join(lines))
    return text


def _markdown(table: pd.DataFrame, heading: Sequence[str]) -> list[str]:
    """The lines of a table; numbers with two digits, percent with one, – for what there is not."""

    def cell(column: str, value: Any) -> str:
        if isinstance(value, str):
            return value.replace("_", " ")
        digits = 1 if column.endswith("percent") else 2
        sign = "+" if column == "difference_mm" else ""
        return "–" if np.isnan(value) else f"{value:{sign}.{digits}f}".replace("-", "−")

    columns = list(table.columns)
    rows = [[cell(column, value) for column, value in zip(columns, row, strict=True)] for row in table.to_numpy()]
    return ["|".join(["", *row, ""]) for row in [heading, ["---"] * len(columns), *rows]]


def _regions(division: Division, points: Any) -> NDArray[np.str_]:
    """(n,): the name of the region that each point lies in."""
    return np.array(division.names)[division.which(np.asarray(points))]


def _common_mesh(case: Case, label: int) -> pv.PolyData:
    inside = np.argwhere(case.labels == label) * case.spacing
    resolution = max(float(np.ptp(inside, axis=0).max()) / SAMPLES, 0.25)
    return label_surface(case.labels == label, case.spacing, case.affine, resolution)


def _landmark_rows(
    manifest: Manifest,
    common: Case,
    case: Case,
    meshes: Mapping[str, pv.PolyData],
    maps: Mapping[str, PointMap],
    truths: Mapping[str, pv.PolyData],
) -> list[dict[str, Any]]:
    """Of each landmark that both cases have on a surface: where the correspondence puts it, from where it is."""
    if case.name == common.name or not maps:
        return []
    there, rows = read_landmarks(manifest, case.name), []
    for landmark, point in read_landmarks(manifest, common.name).items():
        away = {name: float(np.linalg.norm(meshes[name].points - point, axis=1).min()) for name in maps}
        nearest = min(away, key=lambda name: away[name])
        if landmark in there and away[nearest] < LANDMARK_MM:
            moved = maps[nearest](np.array([point], dtype=np.float64))[0]
            parts = landmark_distances(moved, there[landmark], truths[nearest])
            rows.append({"landmark": landmark, "case": case.name} | parts)
    return rows
