"""What the committed trainings measure for the audit: correlations of two losses' scores, each training's mean and SD.

    python reproduce/benchmarks/correlations.py [--output reproduce]

From the per-case scores in figures/, without training anything, in a second:

- correlations.csv: the correlation over the test volumes between the scores of each two losses, averaged over seeds.
  `phantom` is one training a loss, as a paper reports it, `study` the mean of several; both have the same volumes;
- trainings.csv: mean and SD over the test volumes of each training, for each structure. `phantom` is left out, since
  `study` holds trainings of the same losses, seeds and data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from shapeloss._files import atomic
from shapeloss.replication.scores import read_measured
from shapeloss.review.audit.trainings import measure_correlations, summarise_trainings

ROOT = Path(__file__).resolve().parents[2]
SCORES = {"phantom": "per_case.csv", "study": "study/per_case.csv", "hippocampus": "hippocampus/per_case.csv"}
"""Data → file below figures/."""


def tables(figures: Path = ROOT / "figures") -> dict[str, pd.DataFrame]:
    """Name of each file and its table."""
    scores = {data: read_measured(figures / name) for data, name in SCORES.items()}
    return {
        "correlations.csv": pd.concat([measure_correlations(table, data) for data, table in scores.items()]),
        "trainings.csv": pd.concat(
            [summarise_trainings(table, data) for data, table in scores.items() if data != "phantom"]
        ),
    }


def main(output: Annotated[Path, typer.Option(help="Folder of the two tables.")] = ROOT / "reproduce") -> None:
    """Measure and write the tables."""
    for name, table in tables().items():
        with atomic(output / name) as temporary:
            table.round(6).to_csv(temporary, index=False)


if __name__ == "__main__":
    typer.run(main)
