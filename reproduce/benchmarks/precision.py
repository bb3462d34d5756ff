"""What bfloat16 changes against float32: scores of the same losses, seeds and data, trained in both.

    make reproduce PROFILE=study
    make reproduce PROFILE=reproduce/benchmarks/float32.yaml
    python reproduce/benchmarks/precision.py --bfloat16 figures/study --float32 figures/float32

The first two make the scores; the third copies those of the trainings that both have to this folder, with where they
come from, and writes the page.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from scipy import stats

from shapeloss._files import atomic, write_json, write_text
from shapeloss._resources import resource
from shapeloss.replication.paper import read_paper
from shapeloss.replication.scores import read_measured, read_record
from shapeloss.replication.study import BOUNDARY
from shapeloss.stats.crossed import score_grid
from shapeloss.stats.headings import PAPER_METRICS
from shapeloss.stats.paired_tests import bootstrap_mean, differences, holm
from shapeloss.stats.tables import format_p

HERE = Path(__file__).resolve().parent
PRECISIONS = "bfloat16", "float32"


def compare(coarse: pd.DataFrame, fine: pd.DataFrame) -> pd.DataFrame:
    """A row for each metric and loss: means, SDs over seeds, their difference over volumes and over trainings.

    Args:
        coarse: per-case scores of the trainings in bfloat16.
        fine: the same of those in float32.
    """
    rows = []
    coarse, fine = (table[table["structure"] == "mean"] for table in (coarse, fine))
    for metric, title in PAPER_METRICS.items():
        for loss in fine["loss"].unique():
            first, second = score_grid(coarse, loss, metric), score_grid(fine, loss, metric)
            if not (first.index.equals(second.index) and first.columns.equals(second.columns)):
                raise ValueError(f"{loss}: both tables must have the same cases and seeds")
            welch = stats.ttest_ind(second.mean(), first.mean(), equal_var=False)
            rows.append(
                {
                    "metric": title,
                    "loss": loss,
                    PRECISIONS[0]: first.to_numpy().mean(),
                    PRECISIONS[1]: second.to_numpy().mean(),
                    "change": second.to_numpy().mean() - first.to_numpy().mean(),
                    "volumes": bootstrap_mean(differences(second.mean(axis=1), first.mean(axis=1))),
                    "trainings": welch.confidence_interval(),
                    "sd": (first.mean().std(), second.mean().std()),
                    "p": welch.pvalue,
                }
            )
    table = pd.DataFrame(rows)
    table["holm"] = holm(table["p"])
    return table


def markdown(table: pd.DataFrame) -> list[str]:
    """The rows of :func:`compare` for readers."""
    heads = ["Score", "Loss", *PRECISIONS, "Change", "95 % interval, volumes", "95 % interval, trainings"]
    heads += [f"SD over seeds, {name}" for name in PRECISIONS] + ["p over trainings", "p (Holm)"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in table.to_dict("records"):
        volumes, trainings = row["volumes"], row["trainings"]
        cells = [row["metric"], row["loss"], *[f"{row[name]:.3f}" for name in PRECISIONS], f"{row['change']:+.4f}"]
        cells += [f"{volumes.low:+.4f} to {volumes.high:+.4f}", f"{trainings.low:+.4f} to {trainings.high:+.4f}"]
        cells += [*(f"{value:.4f}" for value in row["sd"]), format_p(row["p"]), format_p(row["holm"])]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def verdict(table: pd.DataFrame) -> str:
    """Whether accuracy moves with the precision, in the words that the table gives."""
    told = table[table["holm"] < 0.05]
    lines = [
        f"None of the {len(table)} rows is told from no change after Holm's correction (smallest p "
        f"{format_p(table['holm'].min())})."
        if told.empty
        else "Told from no change after Holm's correction: "
        + "; ".join(f"{row.metric}, {row.loss} ({row.change:+.4f})" for row in told.itertuples())
        + "."
    ]
    for metric, rows in table.groupby("metric", sort=False):
        most = rows.loc[rows["change"].abs().idxmax()]
        spread = np.sqrt(np.mean([sd**2 for pair in rows["sd"] for sd in pair]))
        lines.append(
            f"{metric}: the largest change is {most['change']:+.4f} ({most['loss']}), the root mean square of the "
            f"standard deviations over seeds {spread:.4f}."
        )
    claimed = read_paper(resource("paper.yaml")).smallest_claimed(BOUNDARY)
    boundary = table[table["metric"] == PAPER_METRICS[BOUNDARY]]
    within = sum(row.trainings.low > -claimed and row.trainings.high < claimed for row in boundary.itertuples())
    lines.append(
        f"In boundary Dice the interval over trainings lies within the {claimed} that the paper claims between losses "
        f"for {within} of {len(boundary)} losses; smaller changes than such an interval is wide are not excluded."
    )
    return " ".join(lines)


def origin(record: dict[str, Any]) -> str:
    """Where the scores of one precision come from, in one line."""
    source = record["provenance"]
    machines = source.get("machines") or []
    kinds = sorted({str(machine.get("capability", machine.get("processor", "unknown"))) for machine in machines})
    return (
        f"{', '.join(source['precisions'])}, data {source['data_hash']}, scored at {source['commit']}, trained at "
        f"{', '.join(source['trained'])}" + (f", processor {', '.join(kinds)}" if kinds else "")
    )


def page(table: pd.DataFrame, records: dict[str, dict[str, Any]]) -> str:
    """The table with what it is made of."""
    seeds = ", ".join(map(str, records[PRECISIONS[1]]["seeds"]))
    return f"""# bfloat16 against float32, in the table's own terms

The same losses, seeds ({seeds}), steps and data of the profile `study`, trained in bfloat16 and in float32, of which
`auto` takes the faster. Means over the test volumes and seeds. The first interval is over volumes, each averaged over
its seeds: it asks about these trainings. The second and the p-values ask about other trainings: Welch's t-test of the
means of the seeds, and the same by Holm over the rows.

{chr(10).join(markdown(table))}

**Verdict.** {verdict(table)}

{chr(10).join(f"- {name}: {origin(records[name])}." for name in PRECISIONS)}

`python reproduce/benchmarks/precision.py` makes this page of `per_case_bfloat16.csv`, `per_case_float32.csv` and
`precision.json`; `make reproduce PROFILE=study` and `make reproduce PROFILE=reproduce/benchmarks/float32.yaml` make
these.
"""


def main(
    bfloat16: Annotated[Path | None, typer.Option(help="Folder with the scores of a new run in bfloat16.")] = None,
    float32: Annotated[Path | None, typer.Option(help="Folder with the scores of a new run in float32.")] = None,
) -> None:
    """Write the page, of the scores beside this file or, if they are given, of new ones."""
    kept = [HERE / f"per_case_{name}.csv" for name in PRECISIONS]
    if bfloat16 and float32:
        folders = bfloat16, float32
        both = [read_measured(path / "per_case.csv", dtype=str, keep_default_na=False) for path in folders]
        records = {name: read_record(path) for name, path in zip(PRECISIONS, folders, strict=True)}
        hashes = {record["provenance"]["data_hash"] for record in records.values()}
        if len(hashes) > 1:
            raise typer.BadParameter(f"{bfloat16} and {float32} have scores of different data: {', '.join(hashes)}")
        trainings = both[1][["loss", "seed"]].drop_duplicates()
        for path, scores in zip(kept, both, strict=True):
            with atomic(path) as temporary:
                scores.merge(trainings, on=["loss", "seed"]).to_csv(temporary, index=False)
        seeds = sorted(map(int, trainings["seed"].unique()))
        described = {n: {"provenance": r["provenance"], "seeds": seeds} for n, r in records.items()}
        write_json(HERE / "precision.json", described)
    elif bfloat16 or float32:
        raise typer.BadParameter("give both --bfloat16 and --float32, or none of them")
    records = json.loads((HERE / "precision.json").read_text(encoding="utf-8"))
    write_text(HERE / "precision.md", page(compare(*map(read_measured, kept)), records))


if __name__ == "__main__":
    typer.run(main)
