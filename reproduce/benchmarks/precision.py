"""Does the chosen precision move accuracy? The scores of `phantom-seeds` in bfloat16 against the same in float32.

    make reproduce PROFILE=reproduce/benchmarks/phantom-float32.yaml
    python reproduce/benchmarks/precision.py --float32 figures/phantom-float32/per_case.csv

The first makes the scores that lie beside this file; the second copies them here and writes `precision.md`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from scipy import stats

from shapeloss._files import write_text
from shapeloss.stats.paired_tests import bootstrap_mean, differences, holm
from shapeloss.stats.tables import format_p

HERE = Path(__file__).resolve().parent
BFLOAT16 = HERE.parents[1] / "figures" / "phantom-seeds" / "per_case.csv"
FLOAT32 = HERE / "float32_per_case.csv"
METRICS = {"boundary_dice_in_plane": "Boundary Dice", "dice": "Global Dice"}


def compare(bfloat16: pd.DataFrame, float32: pd.DataFrame) -> pd.DataFrame:
    """A row for each metric and loss: means, their difference with its interval over volumes, and SDs over seeds."""
    rows = []
    for metric, title in METRICS.items():
        for loss in float32["loss"].unique():
            by_seed = [
                table[(table["loss"] == loss) & (table["structure"] == "mean")].pivot(
                    index="case", columns="seed", values=metric
                )
                for table in (bfloat16, float32)
            ]
            first, second = by_seed
            if not (first.index.equals(second.index) and first.columns.equals(second.columns)):
                raise ValueError(f"{loss}: both tables must have the same cases and seeds")
            difference = bootstrap_mean(differences(first.mean(axis=1), second.mean(axis=1)))
            rows.append(
                {
                    "Score": title,
                    "Loss": loss,
                    "bfloat16": f"{first.to_numpy().mean():.3f}",
                    "float32": f"{second.to_numpy().mean():.3f}",
                    "Difference": f"{difference.value:+.4f}",
                    "95 % interval": f"{difference.low:+.4f} to {difference.high:+.4f}",
                    "SD over seeds, bfloat16": f"{first.mean().std():.4f}",
                    "SD over seeds, float32": f"{second.mean().std():.4f}",
                    "p over seeds": stats.ttest_ind(first.mean(), second.mean(), equal_var=False).pvalue,
                }
            )
    table = pd.DataFrame(rows)
    table["p (Holm)"] = [format_p(p) for p in holm(table["p over seeds"])]
    table["p over seeds"] = [format_p(p) for p in table["p over seeds"]]
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--float32", type=Path, default=FLOAT32)
    text = parser.parse_args().float32.read_text(encoding="utf-8")
    write_text(FLOAT32, text)
    write_text(HERE / "precision.md", page(compare(pd.read_csv(BFLOAT16), pd.read_csv(FLOAT32))))


def page(table: pd.DataFrame) -> str:
    """The table with what it is made of."""
    lines = ["| " + " | ".join(table) + " |", "|" + " --- |" * len(table.columns)]
    lines += ["| " + " | ".join(row) + " |" for row in table.itertuples(index=False)]
    return f"""# bfloat16 against float32, in the table's own terms

Profile `phantom-seeds` (bfloat16 autocast, which `auto` picks on that processor; losses in float32) against
the same losses, seeds and data in float32. Means over the test volumes and seeds; the interval is over volumes, each
averaged over its seeds: it asks about these trainings. The p-values ask about trainings: Welch's t-test of the means of
the three seeds, and the same by Holm over the rows.

{chr(10).join(lines)}

`python reproduce/benchmarks/precision.py` makes this page of `figures/phantom-seeds/per_case.csv` and
`float32_per_case.csv`.
"""


if __name__ == "__main__":
    main()
