"""What a setting of the default profile changes: the scores of `phantom-seeds` against the same under another one.

    make reproduce PROFILE=reproduce/benchmarks/float32.yaml
    python reproduce/benchmarks/settings.py float32 --per-case figures/float32/per_case.csv

The first makes the scores that lie beside this file; the second copies them here and writes the page of that setting.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from scipy import stats

from shapeloss._files import write_text
from shapeloss.replication.scores import read_measured
from shapeloss.stats.paired_tests import bootstrap_mean, differences, holm
from shapeloss.stats.tables import format_p

HERE = Path(__file__).resolve().parent
DEFAULT = HERE.parents[1] / "figures" / "phantom-seeds" / "per_case.csv"
METRICS = {"boundary_dice_in_plane": "Boundary Dice", "dice": "Global Dice"}
PAGES = {
    "float32": ("precision.md", "bfloat16 against float32, in the table's own terms", "bfloat16", "float32"),
    "doubled": ("convergence.md", "The default's steps, and twice as many", "1200 steps", "2400 steps"),
}
"""Setting → its page, the page's title, and the names of the default and of the setting."""


def compare(default: pd.DataFrame, other: pd.DataFrame, names: tuple[str, str]) -> pd.DataFrame:
    """A row for each metric and loss: means, their difference with its interval over volumes, and SDs over seeds."""
    rows = []
    for metric, title in METRICS.items():
        for loss in other["loss"].unique():
            first, second = (
                table[(table["loss"] == loss) & (table["structure"] == "mean")].pivot(
                    index="case", columns="seed", values=metric
                )
                for table in (default, other)
            )
            if not (first.index.equals(second.index) and first.columns.equals(second.columns)):
                raise ValueError(f"{loss}: both tables must have the same cases and seeds")
            change = bootstrap_mean(differences(second.mean(axis=1), first.mean(axis=1)))
            rows.append(
                {
                    "Score": title,
                    "Loss": loss,
                    names[0]: f"{first.to_numpy().mean():.3f}",
                    names[1]: f"{second.to_numpy().mean():.3f}",
                    "Change": f"{change.value:+.4f}",
                    "95 % interval": f"{change.low:+.4f} to {change.high:+.4f}",
                    f"SD over seeds, {names[0]}": f"{first.mean().std():.4f}",
                    f"SD over seeds, {names[1]}": f"{second.mean().std():.4f}",
                    "p over seeds": stats.ttest_ind(first.mean(), second.mean(), equal_var=False).pvalue,
                }
            )
    table = pd.DataFrame(rows)
    table["p (Holm)"] = [format_p(p) for p in holm(table["p over seeds"])]
    table["p over seeds"] = [format_p(p) for p in table["p over seeds"]]
    return table


def page(setting: str, table: pd.DataFrame) -> str:
    """The table with what it is made of."""
    _, title, first, second = PAGES[setting]
    lines = ["| " + " | ".join(table) + " |", "|" + " --- |" * len(table.columns)]
    lines += ["| " + " | ".join(row) + " |" for row in table.itertuples(index=False)]
    return f"""# {title}

Profile `phantom-seeds` ({first}) against the same losses, seeds and data with {second}. Means over the test volumes and
seeds. The interval is over volumes, each averaged over its seeds: it asks about these trainings. The p-values ask about
trainings: Welch's t-test of the means of the seeds, and the same by Holm over the rows.

{chr(10).join(lines)}

`python reproduce/benchmarks/settings.py {setting}` makes this page of `figures/phantom-seeds/per_case.csv` and
`per_case_{setting}.csv`; `make reproduce PROFILE=reproduce/benchmarks/{setting}.yaml` makes the latter.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", choices=PAGES)
    parser.add_argument("--per-case", type=Path, help="scores of a new run (default: those beside this file)")
    arguments = parser.parse_args()
    kept = HERE / f"per_case_{arguments.setting}.csv"
    if arguments.per_case:
        write_text(kept, arguments.per_case.read_text(encoding="utf-8"))
    name, _, *names = PAGES[arguments.setting]
    table = compare(read_measured(DEFAULT), read_measured(kept), (names[0], names[1]))
    write_text(HERE / name, page(arguments.setting, table))


if __name__ == "__main__":
    main()
