"""What bfloat16 changes against float32: scores of the same losses, seeds and data, trained in both.

    make reproduce PROFILE=study
    make reproduce PROFILE=reproduce/benchmarks/float32.yaml
    python reproduce/benchmarks/precision.py --bfloat16 figures/study/per_case.csv \\
        --float32 figures/float32/per_case.csv

The first two make the scores; the third copies those of the trainings that both have to this folder, and writes the
page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from scipy import stats

from shapeloss._files import atomic, write_text
from shapeloss.replication.scores import read_measured
from shapeloss.stats.crossed import score_grid
from shapeloss.stats.headings import PAPER_METRICS
from shapeloss.stats.paired_tests import bootstrap_mean, differences, holm
from shapeloss.stats.tables import format_p

HERE = Path(__file__).resolve().parent
PRECISIONS = "bfloat16", "float32"


def compare(coarse: pd.DataFrame, fine: pd.DataFrame) -> pd.DataFrame:
    """A row for each metric and loss: means, their difference with its interval over volumes, and SDs over seeds."""
    rows = []
    coarse, fine = (table[table["structure"] == "mean"] for table in (coarse, fine))
    for metric, title in PAPER_METRICS.items():
        for loss in fine["loss"].unique():
            first, second = score_grid(coarse, loss, metric), score_grid(fine, loss, metric)
            if not (first.index.equals(second.index) and first.columns.equals(second.columns)):
                raise ValueError(f"{loss}: both tables must have the same cases and seeds")
            change = bootstrap_mean(differences(second.mean(axis=1), first.mean(axis=1)))
            rows.append(
                {
                    "Score": title,
                    "Loss": loss,
                    PRECISIONS[0]: f"{first.to_numpy().mean():.3f}",
                    PRECISIONS[1]: f"{second.to_numpy().mean():.3f}",
                    "Change": f"{change.value:+.4f}",
                    "95 % interval": f"{change.low:+.4f} to {change.high:+.4f}",
                    f"SD over seeds, {PRECISIONS[0]}": f"{first.mean().std():.4f}",
                    f"SD over seeds, {PRECISIONS[1]}": f"{second.mean().std():.4f}",
                    "p over seeds": stats.ttest_ind(first.mean(), second.mean(), equal_var=False).pvalue,
                }
            )
    table = pd.DataFrame(rows)
    table["p (Holm)"] = [format_p(p) for p in holm(table["p over seeds"])]
    table["p over seeds"] = [format_p(p) for p in table["p over seeds"]]
    return table


def page(table: pd.DataFrame) -> str:
    """The table with what it is made of."""
    lines = ["| " + " | ".join(table) + " |", "|" + " --- |" * len(table.columns)]
    lines += ["| " + " | ".join(row) + " |" for row in table.itertuples(index=False)]
    return f"""# bfloat16 against float32, in the table's own terms

The same losses, seeds, steps and data of the profile `study`, trained in bfloat16 (which `auto` takes here) and in
float32. Means over the test volumes and seeds. The interval is over volumes, each averaged over its seeds: it asks
about these trainings. The p-values ask about trainings: Welch's t-test of the means of the seeds, and the same by Holm
over the rows.

{chr(10).join(lines)}

`python reproduce/benchmarks/precision.py` makes this page of `per_case_bfloat16.csv` and `per_case_float32.csv`;
`make reproduce PROFILE=study` and `make reproduce PROFILE=reproduce/benchmarks/float32.yaml` make these.
"""


def main(
    bfloat16: Annotated[Path | None, typer.Option(help="Scores of a new run in bfloat16.")] = None,
    float32: Annotated[Path | None, typer.Option(help="Scores of a new run in float32.")] = None,
) -> None:
    """Write the page, of the scores beside this file or, if they are given, of new ones."""
    kept = [HERE / f"per_case_{name}.csv" for name in PRECISIONS]
    if bfloat16 and float32:
        both = [read_measured(path, dtype=str, keep_default_na=False) for path in (bfloat16, float32)]
        trainings = both[1][["loss", "seed"]].drop_duplicates()
        for path, scores in zip(kept, both, strict=True):
            with atomic(path) as temporary:
                scores.merge(trainings, on=["loss", "seed"]).to_csv(temporary, index=False)
    elif bfloat16 or float32:
        raise typer.BadParameter("give both --bfloat16 and --float32, or none of them")
    write_text(HERE / "precision.md", page(compare(*map(read_measured, kept))))


if __name__ == "__main__":
    typer.run(main)
