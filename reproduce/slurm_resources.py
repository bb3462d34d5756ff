"""What each rule needs, for reproduce/slurm: `slurm_resources.py RESULTS …` takes it from the records of runs.

Snakemake writes for each step how long it took and how much memory it held (benchmarks/ below the results). The run
behind the committed files is `--profile smoke --cores 1`. One of `--profile reproduce/slurm/short.yaml --cores 1` would
stand for the default, whose trainings have so many times more steps. Without a folder, config.yaml is made anew from
what was measured before. For data of your own, run once with little of it, and give `--output FOLDER`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import child
import pandas as pd
import yaml
from run import snakemake_arguments

from shapeloss._files import atomic, write_text
from shapeloss.replication.profile import load_experiment

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "reproduce" / "slurm"
STANDS_FOR = {"phantom-short": "phantom"}
"""Profile that was run → the one with more steps that it was run for."""
MEMORY, TIME = 1.5, 4.0
"""How many times of what was measured is asked for: a run is ended that takes more."""
LEAST_MINUTES = 10
RETRIES = 2
AROUND = 2
"""Snakemakes in each job beside the step: the plugin starts one, which starts one in `srun`."""
HEAD = f"""\
# What the steps need on a Slurm cluster (docs/cluster.md), made by reproduce/slurm_resources.py from measured.csv:
# {MEMORY:g} times the memory in MB (with that of the Snakemakes around a step), {TIME:g} times the minutes, and more at
# each new attempt. Each step takes one core. With GPUS=n each training takes one GPU. To change this, copy the folder:
# EXECUTOR=path/to/folder.
"""
SETTINGS = {
    "executor": "slurm",
    "jobs": 100,  # waiting and running
    "retries": RETRIES,
    "latency-wait": 60,  # seconds until a file that another node wrote must be seen
    "slurm-requeue": True,  # what a dead node ran begins again on another
    "slurm-status-command": "squeue",  # works without a database of jobs too
    "slurm-pass-command-as-script": True,  # paths with any characters
}


def rule_of(record: str) -> str:
    """Which rule wrote a record: `train_dpce_seed0` → `train`."""
    return "train" if record.startswith("train_") else record


def measure(results: Path) -> pd.DataFrame:
    """One row a rule: the most that any of its jobs took, in seconds and MiB.

    Raises:
        ValueError: the folder holds no records.
    """
    files = sorted((results / "benchmarks").glob("*.tsv"))
    if not files:
        raise ValueError(f"{results}: has no benchmarks/*.tsv; expected the results of a finished `make reproduce`")
    config = json.loads((results / "workflow.json").read_text(encoding="utf-8"))
    experiment = load_experiment(config["profile"])
    name = STANDS_FOR.get(experiment.name, experiment.name)
    steps = experiment.training.steps
    if name != experiment.name:
        steps = load_experiment(ROOT / "reproduce" / "profiles" / f"{name}.yaml").training.steps
    records = pd.concat([pd.read_csv(file, sep="\t").assign(rule=rule_of(file.stem)) for file in files])
    table = records.groupby("rule").agg(jobs=("s", "size"), seconds=("s", "max"), mib=("max_rss", "max"))
    table["more_steps"] = 1.0
    table.loc[table.index == "train", "more_steps"] = steps / experiment.training.steps
    table["seconds"] *= table["more_steps"]
    table.loc["snakemake"] = {"jobs": 1, "more_steps": 1.0} | snakemake(results)
    return (
        table.round(1).reset_index().assign(profile=name)[["profile", "rule", "jobs", "seconds", "mib", "more_steps"]]
    )


def snakemake(results: Path) -> dict[str, float]:
    """What Snakemake itself takes to read this workflow: seconds, MiB."""
    command = [sys.executable, "-m", "snakemake", *snakemake_arguments(results, cores=1), "--dry-run"]
    started = time.monotonic()
    process = subprocess.Popen(
        command, env=child.environment(ROOT, results / ".home"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise ValueError(f"{results}: Snakemake cannot read this workflow; bring it up to date by `make reproduce`")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {"seconds": time.monotonic() - started, "mib": usage.ru_maxrss / unit}


def request(rows: pd.DataFrame, around: float) -> dict[str, str]:
    """Memory in MB and minutes that are asked for, from what was measured; `around`: MiB beside the step."""
    memory = math.ceil(MEMORY * (rows["mib"].max() + around) * 2**20 / 1e6 / 100) * 100
    minutes = max(LEAST_MINUTES, math.ceil(TIME * rows["seconds"].max() / 60))
    return {"mem_mb": f"attempt * {memory}", "runtime": f"attempt * {minutes}"}


def divided(measured: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """The rows of steps, and the MiB that stand around each on a node."""
    own = measured["rule"] == "snakemake"
    return measured[~own], AROUND * measured.loc[own, "mib"].max()


def profile(measured: pd.DataFrame) -> str:
    """The text of config.yaml. A rule that was not measured gets what the largest notebook needs."""
    steps, around = divided(measured)
    rules = {str(rule): request(rows, around) for rule, rows in steps.groupby("rule")}
    rules["train_variation"] = dict(rules["train"])
    default = request(steps[steps["rule"] != "train"], around)
    values = SETTINGS | {"default-resources": default, "set-resources": rules}
    return HEAD + yaml.safe_dump(values, sort_keys=False)


def page(measured: pd.DataFrame) -> str:
    """The table of docs/cluster.md."""
    steps, around = divided(measured)
    profiles = list(dict.fromkeys(measured["profile"]))
    cells = [f"{name}: MiB|s" for name in profiles]
    lines = [f"|Rule|{'|'.join(cells)}|Asked for: MB|min|", "|---" * (3 + 2 * len(profiles)) + "|"]
    for rule, rows in steps.groupby("rule", sort=False):
        found = rows.set_index("profile")
        values = [
            f"{found.mib[name]:.0f}|{found.seconds[name]:.0f}" if name in found.index else "–|–" for name in profiles
        ]
        asked = [text.removeprefix("attempt * ") for text in request(rows, around).values()]
        lines.append(f"|{str(rule).replace('_', ' ')}|{'|'.join(values)}|{'|'.join(asked)}|")
    last = f"Around each step: {AROUND} Snakemakes, {around:.0f} MiB together."
    return "\n".join([*lines, "", last])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("results", type=Path, nargs="*", help="folders of results, each of a finished run")
    parser.add_argument("--output", type=Path, default=FOLDER, help="receives measured.csv and config.yaml")
    arguments = parser.parse_args()
    file = arguments.output / "measured.csv"
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.results:
        try:
            measured = pd.concat([measure(folder) for folder in arguments.results])
        except ValueError as error:
            raise SystemExit(f"error: {error}") from error
        with atomic(file) as temporary:
            measured.to_csv(temporary, index=False)
    write_text(arguments.output / "config.yaml", profile(pd.read_csv(file)))


if __name__ == "__main__":
    main()
