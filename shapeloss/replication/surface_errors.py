"""Surface errors of the predictions of a replication."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyvista as pv
from tqdm import tqdm

from shapeloss.data.manifest import Case, Manifest
from shapeloss.metrics.mesh import label_surface, region_error, surface_error
from shapeloss.phantom.anatomy import Anatomy
from shapeloss.phantom.dataset import NAME
from shapeloss.phantom.knee import make_anatomy
from shapeloss.plotting.render import POSTERIOR, widest_view
from shapeloss.replication.profile import Experiment
from shapeloss.replication.scores import first_predictions, run_folders

PAPER_BONES = {"femur", "tibia", "patella"}
"""The structures of the paper; its figure 1 shows the surfaces of the first two."""


def surface_error_panels(experiment: Experiment, manifest: Manifest, results: str | Path, case: Case) -> dict[str, Any]:
    """The arguments of :func:`shapeloss.plotting.surface_maps.figure_surface_errors` for one test case.

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


def read_anatomy(manifest: Manifest, name: str) -> Anatomy | None:
    """The bones that a case of the phantom was made from; None for any other data."""
    description = manifest.folder / "dataset.json"
    phantom = json.loads(description.read_text(encoding="utf-8")) if description.is_file() else {}
    if phantom.get("name") != NAME:
        return None
    return _anatomy(int(name.rpartition("_")[2]) - 1, phantom["phantom"]["seed"])


@lru_cache(maxsize=32)  # a correspondence asks for it bone by bone
def _anatomy(subject: int, seed: int) -> Anatomy:
    return make_anatomy(subject, seed)


def landmark_errors(
    experiment: Experiment, manifest: Manifest, results: str | Path, patterns: Iterable[str], radius_mm: float
) -> pd.DataFrame | None:
    """The surface error of every test prediction near each landmark that a pattern (`*notch*`) names.

    A landmark belongs to the structure whose true surface is nearest to it.

    Returns:
        Columns `case`, `loss`, `seed`, `landmark`, `error_mm`: see :func:`shapeloss.metrics.mesh.region_error`. None if
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
