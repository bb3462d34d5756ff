"""How far two ways to find corresponding points of phantom bones are off: writes `correspondence.md`.

`correspondence.py [knees]`: the first knees of the default profile's population, each beside knee 1; about 3 minutes.
"""

from __future__ import annotations

import sys
from pathlib import Path

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

OPTIONS = PhantomOptions(shape=(28, 72, 92), spacing=(3.4, 1.5, 1.5), noise=0.02, cortex_mm=1.8, reader_mm=0.6)
BY_SHAPE = {"notch_roof": 0, "medial_plateau": 1, "lateral_plateau": 1}
"""Landmarks that lie at a place of the bone's own frame, and the bone."""


def measure(knees: int) -> pd.DataFrame:
    """Columns: what, method, distance of every point or landmark in mm."""
    made = [make_knee(index, OPTIONS) for index in range(knees)]
    cases = [Case(f"knee_{i}", one.image, one.labels, OPTIONS.spacing, one.affine) for i, one in enumerate(made)]
    rows: list[tuple[str, str, float]] = []
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
            rows += [(f"points of the {name}", "registration", value) for value in away]
            for landmark, owner in BY_SHAPE.items():
                if owner == bone:
                    start, end = np.array([made[0].landmarks[landmark]]), knee.landmarks[landmark]
                    for method, place in (
                        ("registration", registered(start)),
                        ("parameters", map_points(start, source, target)),
                    ):
                        rows.append((landmark.replace("_", " "), method, float(np.linalg.norm(place[0] - end))))
    return pd.DataFrame(rows, columns=["what", "method", "mm"])


def main() -> None:
    """The command line."""
    knees = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    table = measure(knees).groupby(["what", "method"], sort=False)["mm"].agg(["mean", lambda v: v.quantile(0.95)])
    lines = [
        "# How exact correspondence is",
        "",
        f"Made by `reproduce/benchmarks/correspondence.py {knees}`: {knees - 1} knees of the phantom, each beside the "
        f"first, at the voxels of the default profile, with masks that a reader drew ({OPTIONS.reader_mm} mm SD). "
        "Points: from where registration puts them to where the parameters of the two bones do. Landmarks: from where "
        "a method puts the first knee's to where the other knee's is.",
        "",
        "|what|method|mean, mm|95th percentile, mm|",
        "|---|---|---|---|",
        *[
            f"|{what}|{method}|{mean:.2f}|{p95:.2f}|"
            for (what, method), (mean, p95) in zip(table.index, table.to_numpy(), strict=True)
        ],
        "",
    ]
    write_text(Path(__file__).with_suffix(".md"), "\n".join(lines))


if __name__ == "__main__":
    main()
