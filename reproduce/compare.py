"""Compare a fresh run with the committed table: `make compare`.

On the machine that made the committed table the numbers are the same bit for bit. Another processor rounds otherwise
(bfloat16 or float32, other vector units), training amplifies the difference, and the run ends like one with another
seed; so a mean may differ by TOLERANCE there before it is worth a question. Between the first two processors that were
compared, boundary Dice differed by up to 0.042 (of pcol) and Dice by up to 0.010.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from pathlib import Path

import pandas as pd

from shapeloss.replication.profile import figures_folder
from shapeloss.replication.scores import SCORES, read_measured

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = {"boundary_dice_in_plane": 0.05, "dice": 0.02}
"""Largest difference of a loss's mean that another machine explains."""
METRICS = tuple(TOLERANCE)


def committed(path: Path) -> pd.DataFrame:
    """A table of scores as it was committed last.

    Raises:
        FileNotFoundError: it is not in the repository, or this is no git checkout.
    """
    name = path.relative_to(ROOT).as_posix()
    done = subprocess.run(["git", "show", f"HEAD:{name}"], cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise FileNotFoundError(f"{name} is not committed here ({done.stderr.strip()}); give --against FOLDER instead")
    return pd.read_csv(io.StringIO(done.stdout), dtype={"case": str})


def differences(fresh: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Loss by loss and metric by metric: the means over the test volumes, and how many single scores differ.

    Both tables have a row per case, loss, seed and structure. Rows that only one of them has count as different.
    """
    keys = ["loss", "seed", "case", "structure"]
    both = fresh.merge(reference, on=keys, how="outer", suffixes=("", "_committed"), indicator=True)
    rows = []
    for loss, part in both[both.structure == "mean"].groupby("loss", sort=False):
        for metric in METRICS:
            new, old = part[metric], part[f"{metric}_committed"]
            changed = int(((new != old) & ~(new.isna() & old.isna())).sum())
            rows.append(
                {
                    "loss": loss,
                    "metric": metric,
                    "fresh": new.mean(),
                    "committed": old.mean(),
                    "difference": new.mean() - old.mean(),
                    "scores_that_differ": f"{changed} of {len(part)}",
                    "verdict": "identical"
                    if not changed
                    else "within tolerance"
                    if abs(new.mean() - old.mean()) <= TOLERANCE[metric] and (part["_merge"] == "both").all()
                    else "DIFFERENT",
                }
            )
    return pd.DataFrame(rows)


def main() -> None:
    """The command line: exit status 0 where all is identical or within the tolerance."""
    parser = argparse.ArgumentParser(description="Compare a fresh run with the committed table.")
    parser.add_argument("--profile", default="phantom")
    parser.add_argument("--figures", type=Path, help="the fresh figures; default: those of the profile")
    parser.add_argument("--against", type=Path, help="a folder with per_case.csv, instead of the last commit")
    arguments = parser.parse_args()
    path = (arguments.figures or ROOT / figures_folder(arguments.profile)).resolve() / SCORES
    if not path.is_file():
        sys.exit(f"error: {path} does not exist; run make reproduce PROFILE={arguments.profile} first")
    try:
        other = arguments.against
        reference = read_measured(other / SCORES) if other else committed(path)
        table = differences(read_measured(path), reference)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(table.to_string(index=False, float_format="{:.4f}".format))
    if (table.verdict == "identical").all():
        print("\nIdentical: every score of every case is the committed one.")
    elif (table.verdict != "DIFFERENT").all():
        tolerance = ", ".join(f"{metric} {value}" for metric, value in TOLERANCE.items())
        print(f"\nNot identical, but within what another machine explains (means of {tolerance}).")
    else:
        sys.exit("\nDifferent beyond what another machine explains: see the rows marked DIFFERENT.")


if __name__ == "__main__":
    main()
