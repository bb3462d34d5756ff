"""How far two ways to find corresponding points of phantom bones are off: writes `correspondence.md`.

`correspondence.py [knees]`: the first knees of the default profile's population, each beside knee 1; about 3 minutes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shapeloss._files import write_text
from shapeloss.data.manifest import Case
from shapeloss.metrics.mesh import label_surface
from shapeloss.phantom.anatomy import BONES
from shapeloss.phantom.contrast import PhantomOptions
from shapeloss.phantom.correspondence import map_points
from shapeloss.phantom.knee import make_knee
from shapeloss.replication.correspondence import in_view, register
from shapeloss.replication.population import LANDMARK_PARTS, landmark_distances

OPTIONS = PhantomOptions(shape=(28, 72, 92), spacing=(3.4, 1.5, 1.5), noise=0.02, cortex_mm=1.8, reader_mm=0.6)
LANDMARKS = {"notch_roof": 0, "medial_plateau": 1, "lateral_plateau": 1}
"""Landmark → bone. These lie at a place of the bone's own frame."""
LANDMARKS |= {f"{side}_condyle_{end}": 0 for side in ("medial", "lateral") for end in ("posterior", "distal")}
LANDMARKS |= {"eminence": 1}
"""These are the extreme point along a direction of the scanner, and slide along the surface as the bone tilts."""


def measure(knees: int) -> pd.DataFrame:
    """Columns: what, method, and of every point or landmark distance_mm, across_mm and along_mm (a landmark's)."""
    made = [make_knee(index, OPTIONS) for index in range(knees)]
    cases = [Case(f"knee_{i}", one.image, one.labels, OPTIONS.spacing, one.affine) for i, one in enumerate(made)]
    rows: list[dict[str, Any]] = []
    for bone, name in enumerate(BONES):
        surface = label_surface(cases[0].labels == bone + 1, OPTIONS.spacing, cases[0].affine, 3.0)
        points = np.asarray(surface.points, dtype=np.float64)
        for knee, case in zip(made[1:], cases[1:], strict=True):
            source, target = made[0].anatomy.bones[bone], knee.anatomy.bones[bone]
            mirrored = made[0].anatomy.side != knee.anatomy.side
            registered = register(cases[0], case, bone + 1, mirrored)
            true = map_points(points, source, target)
            seen = in_view(case, true)
            away = np.linalg.norm(registered(points) - true, axis=1)[seen]
            what = {"what": f"points of the {name}", "method": "registration"}
            rows += [what | {"distance_mm": float(value)} for value in away]
            truth = label_surface(case.labels == bone + 1, OPTIONS.spacing, case.affine)
            for landmark, owner in LANDMARKS.items():
                if owner == bone:
                    start, end = np.array([made[0].landmarks[landmark]]), knee.landmarks[landmark]
                    for method, place in (
                        ("registration", registered(start)),
                        ("parameters", map_points(start, source, target)),
                    ):
                        parts = landmark_distances(place[0], end, truth)
                        rows.append({"what": landmark.replace("_", " "), "method": method} | parts)
    return pd.DataFrame(rows, columns=["what", "method", *LANDMARK_PARTS])


def main() -> None:
    """The command line."""
    knees = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    groups = measure(knees).groupby(["what", "method"], sort=False)[list(LANDMARK_PARTS)]
    mean, high = groups.mean(), groups.quantile(0.95)
    lines = [
        "# How exact correspondence is",
        "",
        f"Made by `reproduce/benchmarks/correspondence.py {knees}`: {knees - 1} knees of the phantom, each beside the "
        f"first, at the voxels of the default profile, with masks that a reader drew ({OPTIONS.reader_mm} mm SD). "
        "Points: from where registration puts them to where the parameters of the two bones do. Landmarks: from where "
        "a method puts the first knee's to where the other knee's is, and the two parts of that: across, to the "
        "nearest point of the true surface, and along the surface from there. Condyles and eminence are the extreme "
        "points along a direction of the scanner, and slide over a flat place as a bone tilts: of these the part "
        "across the surface says how exact a method is. Mean, and 95th percentile in brackets.",
        "",
        "|what|method|distance, mm|across, mm|along, mm|",
        "|---|---|---|---|---|",
        *[f"|{what}|{method}|" + "".join(
            "–|" if np.isnan(mean.loc[(what, method), part])
            else f"{mean.loc[(what, method), part]:.2f} ({high.loc[(what, method), part]:.2f})|"
            for part in LANDMARK_PARTS) for what, method in mean.index],
        "",
    ]  # fmt: skip
    write_text(Path(__file__).with_suffix(".md"), "\n".join(lines))


if __name__ == "__main__":
    main()
