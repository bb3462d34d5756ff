"""Figure 1 in three dimensions: what the page of one test case shows."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyvista as pv
from numpy.typing import NDArray

from shapeloss.data.manifest import Case, Manifest
from shapeloss.metrics.mesh import surface_error
from shapeloss.plotting.surface_page import TRIANGLES, TRUTH, deviation, reduce_surface
from shapeloss.replication.profile import Experiment
from shapeloss.replication.regions import case_surfaces, divide, longest_axes
from shapeloss.replication.scores import first_predictions, provenance_line
from shapeloss.replication.surface_errors import read_landmarks


def surface_page_parts(
    experiment: Experiment, manifest: Manifest, results: str | Path, case: Case, table: pd.DataFrame
) -> dict[str, Any]:
    """The arguments of :func:`shapeloss.plotting.surface_page.surface_page` for one test case, but for the picture.

    The predictions are those of each loss's first seed. The error of a vertex is its signed distance from the true
    surface before any reduction; the notes say how far the reduction moves the surfaces and the errors. A structure
    that the truth of this case lacks has no error, and is left out.

    Args:
        experiment: of the profile.
        manifest: of the data set.
        results: the working folder.
        case: a test case.
        table: of :func:`shapeloss.replication.regions.region_table`.
    """
    landmarks = read_landmarks(manifest, case.name)
    truths = case_surfaces(case, case.labels, manifest.classes)
    divisions = divide(truths, landmarks, longest_axes(manifest))
    full = {TRUTH: truths}
    for loss, labels in first_predictions(experiment, manifest, results, case.name).items():
        full[loss] = case_surfaces(case, labels, manifest.classes)
    share = min(TRIANGLES / max(sum(part[name].n_cells for name in divisions) for part in full.values()), 1.0)
    meshes: dict[str, dict[str, pv.PolyData]] = {key: {} for key in full}
    moved = [np.zeros((0, 2))]
    for key, part in full.items():
        for name, division in divisions.items():
            reduced = reduce_surface(part[name], share)
            if reduced.n_points:
                error_of = _no_error if key == TRUTH else partial(surface_error, truth=truths[name])
                moved.append(deviation(part[name], reduced, error_of))
                reduced["error_mm"] = error_of(reduced)
                reduced["region"] = division.which(np.asarray(reduced.points, dtype=np.float64))
            meshes[key][name] = reduced
    surface, value = np.concatenate(moved).T
    percent = f"{100 * share:.0f} %"
    reduction = (
        f"The meshes keep {percent} of their triangles, which moves the surfaces by {surface.mean():.3f} mm on average "
        f"and by up to {np.percentile(surface, 99):.2f} mm at 99 % of the vertices, and changes the distances shown by "
        f"{value.mean():.3f} and {np.percentile(value, 99):.2f} mm. The tables come from the full meshes."
        if share < 1
        else "The meshes are not reduced."
    )
    rules = {name: division.rule for name, division in divisions.items()}
    borders = "; ".join(
        f"{', '.join(name for name in rules if rules[name] == rule)}: {rule}" for rule in dict.fromkeys(rules.values())
    )
    lacking = [name for name in manifest.classes.values() if name not in divisions]
    absent = [f"Without a surface in the truth of this case: {', '.join(lacking)}."] if lacking else []
    return {
        "meshes": meshes,
        "regions": {name: division.names for name, division in divisions.items()},
        "table": table,
        "case": case.name,
        "right_is": _right_is(landmarks),
        "notes": [f"Regions from: {borders}.", *absent, reduction, provenance_line(experiment, manifest, results)],
    }


def _no_error(mesh: pv.PolyData) -> NDArray[np.float64]:
    return np.zeros(mesh.n_points)


def _right_is(landmarks: dict[str, list[float]]) -> str:
    """`medial` or `lateral`: the side of a knee that is the patient's right; empty where no landmarks tell."""
    sides = [landmarks.get(f"{side}_plateau") for side in ("medial", "lateral")]
    if sides[0] is None or sides[1] is None:
        return ""
    return "lateral" if sides[1][0] > sides[0][0] else "medial"
