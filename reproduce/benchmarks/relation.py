"""How Dice and boundary Dice go together on knee-sized bones at OAI DESS resolution: the table that the audit reads.

    python reproduce/benchmarks/relation.py [--subjects 2] [--output reproduce/relation.csv]

The surfaces of phantom knees are displaced by random fields of several sizes and correlation lengths, and by the same
distance everywhere, inwards (displacement_mm above 0) and outwards: correlation_mm is inf. Last, each bone is eroded
and dilated by one voxel within the slices: correlation_mm is inf, displacement_mm the size of a voxel. Each result is
scored against the truth. Equal versions give equal bytes; some ten minutes on one core.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from tqdm import tqdm

from shapeloss._files import atomic
from shapeloss.phantom.contrast import PhantomOptions
from shapeloss.phantom.knee import make_knee
from shapeloss.review.audit.dice_vs_boundary import measure_relation, measure_voxel_steps

DESS = PhantomOptions(shape=(160, 384, 384), spacing=(0.7, 0.365, 0.365))
CLASSES = {1: "femur", 2: "tibia", 3: "patella"}
DISPLACEMENTS_MM = (0.1, 0.2, 0.4, 0.7, 1.1, 1.7, 2.6, 4.0)
CORRELATIONS_MM = (0.0, 2.0, 8.0)
UNIFORM_MM = tuple(sign * size for size in (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5) for sign in (1, -1))


def measure_even(distances: NDArray[np.float32]) -> pd.DataFrame:
    """Surfaces displaced by the same distance everywhere, and by one voxel within the slices."""
    uniform = measure_relation(distances, DESS.spacing, CLASSES, UNIFORM_MM, (np.inf,))
    return pd.concat([uniform, measure_voxel_steps(distances, DESS.spacing, CLASSES)])


def main(
    subjects: Annotated[int, typer.Option(help="Phantom knees to measure.")] = 2,
    output: Annotated[Path, typer.Option(help="CSV.")] = Path(__file__).parents[1] / "relation.csv",
) -> None:
    """Measure and write the table."""
    tables = []
    for subject in tqdm(range(subjects), desc="knees"):
        knee = make_knee(subject, DESS)
        for correlation in tqdm(CORRELATIONS_MM, desc="correlation lengths", leave=False):
            table = measure_relation(knee.distances, DESS.spacing, CLASSES, DISPLACEMENTS_MM, (correlation,))
            tables.append(table.assign(subject=subject))
        tables.append(measure_even(knee.distances).assign(subject=subject))
    with atomic(output) as temporary:
        pd.concat(tables).round(6).to_csv(temporary, index=False)


if __name__ == "__main__":
    typer.run(main)
