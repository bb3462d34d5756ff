"""Mutates every statement of the core by mutmut, and counts which mutants its tests notice: `make mutants`.

    python tests/jobs/mutants.py            # all: about an hour on two cores; goes on where it was stopped
    python tests/jobs/mutants.py --report   # count again what a run left

Writes tests/mutations/mutmut.csv, one row for each module, and build/mutants/survivors.txt with the change of each
mutant that was not noticed. The breaks of tests/mutations/*.toml are known bugs, chosen by hand; these are all small
changes that a program can think of.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "mutants"
SKIPPED = shutil.ignore_patterns(".*", "results", "__pycache__", "*.egg-info", "build", "dist", "_build")
COLUMNS = ("module", "mutants", "killed", "survived", "in_messages", "not_run")
NOT_RUN = {"no tests", "not checked", "skipped"}
SURVIVED = {"survived", "suspicious"}
TEXT = re.compile(r"""[fr]{0,2}("[^"\n]*\s[^"\n]*"|'[^'\n]*\s[^'\n]*')""")


def mutmut(*arguments: str) -> str:
    """Output of a command of mutmut in the copy."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-m", "mutmut", *arguments]
    return subprocess.run(command, cwd=WORK, env=environment, check=True, capture_output=True, encoding="utf-8").stdout


def run(jobs: int) -> None:
    """Copy the repository and try every mutant; mutmut keeps what it knows of code that has not changed."""
    shutil.copytree(ROOT, WORK, ignore=SKIPPED, dirs_exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(jobs)]
    subprocess.run(command, cwd=WORK, env=environment, check=True)


def statuses() -> dict[str, str]:
    """Name of each mutant → what became of it."""
    lines = mutmut("results", "--all", "true").splitlines()
    return dict(line.strip().rsplit(": ", 1) for line in lines if ": " in line)


def in_message(change: str) -> bool:
    """Whether a mutant changes nothing but a text of several words, such as that of an error."""
    sides = [
        [line[1:] for line in change.splitlines() if line.startswith(sign) and not line.startswith(sign * 3)]
        for sign in "-+"
    ]
    before, after = (TEXT.sub('""', "\n".join(side)) for side in sides)
    return before == after


def module_of(mutant: str) -> str:
    """`shapeloss.losses.base.x_one_hot__mutmut_1` → `shapeloss/losses/base.py`."""
    return mutant.rsplit(".", 1)[0].replace(".", "/") + ".py"


def table(results: dict[str, str], changes: dict[str, str]) -> str:
    """CSV of the counts, one row for each module."""
    counts: dict[str, Counter[str]] = {}
    for mutant, status in results.items():
        count = counts.setdefault(module_of(mutant), Counter())
        count["mutants"] += 1
        kind = "not_run" if status in NOT_RUN else "survived" if status in SURVIVED else "killed"
        count[kind] += 1
        count["in_messages"] += kind == "survived" and in_message(changes[mutant])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for module, count in sorted(counts.items()):
        writer.writerow([module, *(count[column] for column in COLUMNS[1:])])
    return text.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=2, help="mutants to try at a time")
    parser.add_argument("--report", action="store_true", help="count again what a run left, and try nothing")
    arguments = parser.parse_args()
    if not arguments.report:
        run(arguments.jobs)
    results = statuses()
    survivors = sorted(mutant for mutant, status in results.items() if status in SURVIVED)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        changes = dict(zip(survivors, pool.map(lambda mutant: mutmut("show", mutant), survivors), strict=True))
    (WORK / "survivors.txt").write_text("\n".join(changes.values()), encoding="utf-8")
    text = table(results, changes)
    (ROOT / "tests" / "mutations" / "mutmut.csv").write_text(text, encoding="utf-8")
    print(text, end="")
    print(f"The changes that no test noticed: {WORK / 'survivors.txt'}")


if __name__ == "__main__":
    main()
