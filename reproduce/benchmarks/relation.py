"""How Dice and boundary Dice go together on knee-sized bones at OAI DESS resolution: the table that the audit reads.

    python reproduce/benchmarks/relation.py [--subjects 2] [--output reproduce/relation.csv]

The surfaces of phantom knees are displaced by smooth random fields of several sizes and correlation lengths, and each
result is scored against the truth. Equal versions give equal bytes; a few minutes on one core.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from tqdm import tqdm

from shapeloss.files import atomic
from shapeloss.phantom import PhantomOptions, make_knee
from shapeloss.relation import measure_relation

DESS = PhantomOptions(shape=(160, 384, 384), spacing=(0.7, 0.365, 0.365))
CLASSES = {1: "femur", 2: "tibia", 3: "patella"}
DISPLACEMENTS_MM = (0.1, 0.2, 0.4, 0.7, 1.1, 1.7, 2.6, 4.0)
CORRELATIONS_MM = (0.0, 2.0, 8.0)


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
    with atomic(output) as temporary:
        pd.concat(tables).round(6).to_csv(temporary, index=False)


if __name__ == "__main__":
    typer.run(main)
