"""Regions of the surfaces of a case, and how far each prediction is from the truth in each of them.

The femur is divided into notch, condyles and shaft, the tibia into eminence, plateaus and shaft; the patella is one
region. The borders lie at landmarks of the truth (docs/regions.md): those that the data set gives, or estimates from
the surfaces alone. Any other structure is divided into thirds along one anatomical axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyvista as pv
from numpy.typing import NDArray
from tqdm import tqdm

from shapeloss.data.manifest import Case, Manifest
from shapeloss.metrics.functions import weighted_percentile
from shapeloss.metrics.mesh import label_surface, mesh_arrays, vertex_areas
from shapeloss.metrics.triangles import triangle_distances
from shapeloss.replication.profile import Experiment
from shapeloss.replication.scores import first_predictions
from shapeloss.replication.surface_errors import read_landmarks

NOTCH_MM = EMINENCE_MM = 10.0
"""Radius of the notch around its roof, as in the claim on the notch, and of the eminence around its highest point."""
CONDYLE_MM = 40.0
"""How far above the mean of their two lowest points the condyles reach, with epicondyles and trochlea."""
PLATEAU_MM = 6.0
"""How far below the lower of the two plateau landmarks the plateaus reach: over their rims."""
ENDS = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))
"""The two ends of the world axes x, y and z (RAS)."""
SIDES = ("medial", "lateral")

Points = NDArray[np.floating]
"""(n, 3), world mm (RAS)."""


@dataclass(frozen=True)
class Division:
    """The regions of one structure."""

    names: tuple[str, ...]
    which: Callable[[Points], NDArray[np.intp]]
    """Points → the index in `names` of the region that each belongs to."""
    rule: str
    """What the borders come from."""


def divide(
    truths: Mapping[str, pv.PolyData], landmarks: Mapping[str, Sequence[float]], axes: Mapping[str, int]
) -> dict[str, Division]:
    """Structure → its regions, for each structure of a case that has a true surface.

    Args:
        truths: structure → true surface, world mm (RAS).
        landmarks: name → world mm, as the phantom writes them; where one of a knee's is missing, all are estimated.
        axes: structure → world axis along which it is cut into thirds, for those that are no part of a knee.
    """
    there = {name: truth for name, truth in truths.items() if truth.n_points}
    bones = {name.lower(): truth for name, truth in there.items()}
    divisions = {}
    if {"femur", "tibia"} <= set(bones):
        estimated = estimated_landmarks(bones["femur"], bones["tibia"])
        given = set(estimated) <= set(landmarks)
        places = {name: np.asarray(landmarks[name] if given else point) for name, point in estimated.items()}
        divisions = _knee(places, "landmarks of the data set" if given else "landmarks estimated from the surfaces")
    return {name: divisions.get(name.lower()) or _thirds(truth, axes[name]) for name, truth in there.items()}


def estimated_landmarks(femur: pv.PolyData, tibia: pv.PolyData) -> dict[str, Points]:
    """The landmarks that the regions of a knee rest on, from its two surfaces alone: name → world mm.

    Of a bone of width w (x), the joint's end reaches 0.4 w from its lowest (femur) or highest (tibia) point, and the
    middle is that of its box. On each side of the middle the lowest point of the femur is a condyle's; the roof of the
    notch lies in the middle, 0.35 w in front of the most posterior points of the two sides. The eminence is the tibia's
    highest point in the middle third of its width, and a plateau lies half way between the middle and the rim. The
    smaller x is called medial: regions do not tell the sides apart.
    """
    end, middle, width = _joint_end(femur, -1)
    places, back = {}, []
    for name, sign in zip(SIDES, (-1, 1), strict=True):
        half = end[sign * (end[:, 0] - middle[0]) > 0.1 * width]
        places[f"{name}_condyle_distal"] = half[half[:, 2].argmin()]
        back.append(half[:, 1].min())
    places["notch_roof"] = _on_line(end, middle[0], float(np.mean(back)) + 0.35 * width)
    end, middle, width = _joint_end(tibia, 1)
    for name, sign in zip(SIDES, (-1, 1), strict=True):
        places[f"{name}_plateau"] = _on_line(end, middle[0] + sign * width / 4, middle[1])
    between = end[np.abs(end[:, 0] - middle[0]) <= width / 6]
    places["eminence"] = between[between[:, 2].argmax()]
    return places


def _joint_end(bone: pv.PolyData, sign: int) -> tuple[Points, Points, float]:
    """The points of a bone's lower (−1) or upper (+1) end, the middle of their box, and the bone's width."""
    points = np.asarray(bone.points, dtype=np.float64)
    width = float(np.ptp(points[:, 0]))
    height = sign * points[:, 2]
    end = points[height >= height.max() - 0.4 * width]
    return end, (end.min(axis=0) + end.max(axis=0)) / 2, width


def _on_line(points: Points, x: float, y: float) -> Points:
    """The point nearest to a line along z."""
    return points[np.hypot(points[:, 0] - x, points[:, 1] - y).argmin()]


def _knee(places: Mapping[str, Points], rule: str) -> dict[str, Division]:
    """Femur, tibia and patella by their landmarks."""
    top = np.mean([places[f"{name}_condyle_distal"][2] for name in SIDES]) + CONDYLE_MM
    rim = min(places[f"{name}_plateau"][2] for name in SIDES) - PLATEAU_MM

    def femur(points: Points) -> NDArray[np.intp]:
        return np.where(_near(points, places["notch_roof"], NOTCH_MM), 0, np.where(points[:, 2] <= top, 1, 2))

    def tibia(points: Points) -> NDArray[np.intp]:
        return np.where(_near(points, places["eminence"], EMINENCE_MM), 0, np.where(points[:, 2] >= rim, 1, 2))

    return {
        "femur": Division(("notch", "condyles", "shaft"), femur, rule),
        "tibia": Division(("eminence", "plateaus", "shaft"), tibia, rule),
        "patella": Division(("patella",), lambda points: np.zeros(len(points), dtype=np.intp), rule),
    }


def _near(points: Points, place: Points, radius: float) -> NDArray[np.bool_]:
    return np.linalg.norm(points - place, axis=1) <= radius


def _thirds(truth: pv.PolyData, axis: int) -> Division:
    """Three parts of equal length along a world axis."""
    low, high = ENDS[axis]
    along = truth.points[:, axis]
    borders = along.min() + np.ptp(along) * np.array([1, 2]) / 3

    def which(points: Points) -> NDArray[np.intp]:
        return np.searchsorted(borders, points[:, axis])

    return Division((f"{low} third", "middle third", f"{high} third"), which, f"thirds from {low} to {high}")


def longest_axes(manifest: Manifest) -> dict[str, int]:
    """Structure → the world axis along which it is longest, on average over the test cases: the same for all of them.

    Labels are read in RAS, so that their axes are those of the world to within the tilt of the scan.
    """
    extents: dict[str, list[list[float]]] = {name: [] for name in manifest.classes.values()}
    for case in map(manifest.original, manifest.names("test")):
        for label, name in manifest.classes.items():
            if len(found := np.argwhere(case.labels == label)):
                extents[name].append([*(np.ptp(found, axis=0) * case.spacing)])
    return {name: int(np.mean(sides or [[0.0] * 3], axis=0).argmax()) for name, sides in extents.items()}


def structure_errors(predicted: pv.PolyData, truth: pv.PolyData, division: Division) -> pd.DataFrame:
    """How far a predicted surface and the true one are apart in each region of a structure.

    As in :func:`shapeloss.metrics.mesh.region_error`, both directions count and points weigh by their area; a
    prediction without any surface has infinite errors. A region without surface has no row.

    Returns:
        Columns `region`, `mean_mm`, `p95_mm` (95 % of the area is at most so far), `max_mm`, of absolute distances.
    """
    errors, areas, places = [], [], []
    for surface, other in ((truth, predicted), (predicted, truth)):
        errors.append(triangle_distances(mesh_arrays(surface)[0], *mesh_arrays(other)))
        areas.append(vertex_areas(surface) if surface.n_points else np.zeros(0))
        places.append(division.which(np.asarray(surface.points, dtype=np.float64)))
    error, area, place = np.concatenate(errors), np.concatenate(areas), np.concatenate(places)
    rows = []
    for index, region in enumerate(division.names):
        here = place == index
        if here.any():
            mean = np.average(error[here], weights=area[here]) if predicted.n_points else np.inf
            largest = weighted_percentile(error[here], area[here], 95), error[here].max()
            rows.append((region, float(mean), *map(float, largest)))
    return pd.DataFrame(rows, columns=["region", "mean_mm", "p95_mm", "max_mm"])


def case_surfaces(case: Case, labels: NDArray, classes: Mapping[int, str]) -> dict[str, pv.PolyData]:
    """Structure → its surface in a label map on the grid of a case; without points where it is absent."""
    return {name: label_surface(labels == label, case.spacing, case.affine) for label, name in classes.items()}


def region_table(experiment: Experiment, manifest: Manifest, results: str | Path) -> pd.DataFrame:
    """The errors of every test case by region and loss, of each loss's first seed.

    Returns:
        Columns `case`, `loss`, `seed`, `structure`, `rule`, and those of :func:`structure_errors`.
    """
    axes, parts = longest_axes(manifest), []
    for name in tqdm(manifest.names("test"), desc="surface regions", mininterval=5):
        case = manifest.original(name)
        truths = case_surfaces(case, case.labels, manifest.classes)
        divisions = divide(truths, read_landmarks(manifest, name), axes)
        for loss, labels in first_predictions(experiment, manifest, results, name).items():
            found = case_surfaces(case, labels, manifest.classes)
            for structure, division in divisions.items():
                errors = structure_errors(found[structure], truths[structure], division)
                seed, rule = experiment.seeds[0], division.rule
                parts.append(errors.assign(case=name, loss=loss, seed=seed, structure=structure, rule=rule))
    columns = ["case", "loss", "seed", "structure", "region", "rule", "mean_mm", "p95_mm", "max_mm"]
    table = pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
    return table.round(4)
