"""Run the replication of one profile: what `make reproduce` calls.

Checks the profile and the notebooks' parameters, then lets Snakemake run what is missing or out of date, and shows how
far it is. Killed at any moment, the same command goes on where it was. However it ends, its steps end with it.
"""

from __future__ import annotations

import system_check  # noqa: F401 (before what Windows lacks)

# isort: split
import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from types import FrameType
from typing import TextIO

import child
from executor import Executor, find_executor
from tqdm import tqdm

from shapeloss._files import locked, os_error_message, remove_partial_files, write_json
from shapeloss.data.layout import DatasetError, find_cases
from shapeloss.replication.profile import Experiment, figures_folder, load_experiment

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = {
    "phantom": 0.02, "data": 0.01, "distance_maps": 0.03, "train": 1.0, "train_variation": 1.0, "evaluate": 0.08,
    "error_maps": 0.06, "audit": 0.02, "study": 0.1, "multi_task": 0.1, "shape": 0.1, "report": 0.01, "shard": 1.0,
}  # fmt: skip
"""How long a step takes, as a share of one training; only the estimate of the time left depends on it."""
LINKS = ".links"
"""Folder below the results with the links by which Snakemake reaches the other folders."""
WORKFLOW = [str(ROOT / "reproduce" / "workflow.py")]
"""What runs Snakemake."""
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals on which a run ends its steps and itself."""


class Progress:
    """Reads what Snakemake prints, and shows one bar over all steps, trainings by their optimiser steps."""

    def __init__(self, results: Path, variation_weight: float = 1.0) -> None:
        self.results = results
        self.weights = WEIGHTS | {"train_variation": variation_weight}
        self.total = self.done = self.started = 0.0
        self.running: dict[str, tuple[str, str]] = {}
        self.counts: dict[str, int] = {}
        self.finished = 0
        self.failed_logs: list[str] = []
        self.in_stats = False
        self.block: dict[str, str] = {}
        self.bar: tqdm | None = None

    def line(self, line: str) -> None:
        """Take one line of Snakemake's output."""
        if line.startswith("Job stats:"):
            self.in_stats = True
        elif self.in_stats and (match := re.match(r"(\w+)\s+(\d+)\s*$", line)):
            name, count = match[1], int(match[2])
            if name == "total":
                self.in_stats = False
                self.start()
            else:
                self.counts[name] = count
        elif match := re.match(r"(?:local)?(?:rule|checkpoint) (\w+):", line):
            self.block = {"rule": match[1]}
        elif match := re.match(r"Error in rule (\w+):", line):
            self.block = {"rule": match[1], "failed": "yes"}
        elif match := re.match(r"    (jobid|wildcards|log): (.*)", line):
            self.block[match[1]] = match[2]
            if match[1] == "log" and self.block.get("failed"):
                self.failed_logs += match[2].removesuffix(" (check log file(s) for error details)").split(", ")
            if match[1] in ("jobid", "wildcards") and "jobid" in self.block and not self.block.get("failed"):
                self.running[self.block["jobid"]] = (self.block["rule"], self.block.get("wildcards", ""))
        elif match := re.match(r"Finished jobid: (\d+)", line):
            rule, wildcards = self.running.pop(match[1], ("all", ""))
            self.done += self.weights.get(rule, 0)
            if rule in WEIGHTS:
                self.say(f"done: {title(rule, wildcards)}")
        self.show()

    def start(self) -> None:
        """The first list of jobs: now the total is known."""
        self.started = time.monotonic()
        self.total = sum(self.weights.get(rule, 0) * count for rule, count in self.counts.items())
        steps = ", ".join(f"{count} x {rule}" for rule, count in self.counts.items() if rule in WEIGHTS)
        self.say(f"to do: {steps}")
        self.bar = tqdm(
            total=self.total,
            bar_format="{percentage:3.0f}% |{bar:30}| {elapsed} so far, {desc}",
            mininterval=0.5 if sys.stderr.isatty() else 30,
            miniters=0,  # or a step that goes on slower than the ones before would not be shown
        )

    def show(self) -> None:
        """Bring the bar up to date."""
        if self.bar is None:
            return
        now = self.done
        names = []
        for rule, wildcards in self.running.values():
            fraction = self.fraction(wildcards) if rule.startswith("train") else 0.0
            now += self.weights.get(rule, 0) * fraction
            if rule in WEIGHTS:
                names.append(title(rule, wildcards) + (f" {fraction:.0%}" if rule.startswith("train") else ""))
        elapsed = time.monotonic() - self.started
        # the first steps are short, and say little of the others
        left = tqdm.format_interval(elapsed * (self.total - now) / now) if now > 0.05 * self.total else "…"
        self.bar.set_description_str(f"about {left} left | {'; '.join(names)}", refresh=False)
        self.bar.update(min(now, self.total) - self.bar.n)

    def fraction(self, wildcards: str) -> float:
        """How much of a training is done, from the file that it writes."""
        values = parse(wildcards)
        try:
            place = Path("variations") / values["variation"] if "variation" in values else Path("runs")
            text = (self.results / place / values["loss"] / f"seed{values['seed']}" / "progress").read_text("utf-8")
            step, steps = text.split("/")
            return int(step) / int(steps)
        except (OSError, ValueError, KeyError):
            return 0.0

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        tqdm.write(f"  {text}", file=sys.stderr)

    def close(self) -> None:
        """Leave the terminal tidy."""
        if self.bar is not None:
            self.bar.close()


def variation_weight(experiment: Experiment) -> float:
    """How long a training of a variation takes on average, as a share of one of the table."""
    varied = [experiment.variation(name) for name in experiment.variations]
    steps = [v.training.steps for v in varied for _ in v.losses for _ in v.seeds]
    return sum(steps) / len(steps) / experiment.training.steps if steps else 1.0


def parse(wildcards: str) -> dict[str, str]:
    """`loss=dice, seed=0` as a dictionary."""
    return dict(part.split("=", 1) for part in wildcards.split(", ") if "=" in part)


def title(rule: str, wildcards: str) -> str:
    """`train dice, seed 0`, or `train dice, seed 0 (x2)` for a variation."""
    values = parse(wildcards)
    if "shard" in values:
        return f"shard {values['shard']}"
    if "loss" not in values:
        return rule.replace("_", " ")
    variation = f" ({values['variation']})" if "variation" in values else ""
    return f"train {values['loss']}, seed {values['seed']}{variation}"


def check(profile: Path, data: str) -> Experiment:
    """Everything that can be known to be wrong before a step runs.

    Raises:
        ValueError or FileNotFoundError: with a message for the user.
    """
    experiment = load_experiment(profile)
    for row in experiment.losses:
        experiment.build_loss(row, num_classes=2, spacing=(1.0, 1.0, 1.0))
    if experiment.data.phantom is not None:
        if data:
            raise ValueError(f"profile {experiment.name} makes its own data; leave DATA out, or take another profile")
    elif not data:
        source = experiment.data.source
        first = f"\nto make one: .venv/bin/{source.command(str(profile))}" if source else ""
        raise ValueError(
            f"profile {experiment.name} needs a data set: make reproduce PROFILE={experiment.name} DATA=<folder with "
            f"dataset.json, imagesTr and labelsTr>{first}"
        )
    else:
        find_cases(Path(data).expanduser())
    return experiment


def count_gpus(device: str) -> int:
    """How many trainings may run on GPUs at a time: one on each; 0 where they run on the processor."""
    if device.startswith(("cuda:", "mps")):
        return 1
    # asking PyTorch takes seconds, for which a machine without a GPU need not wait
    if device == "cpu" or not any(Path(place).exists() for place in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")):
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def threads_of_a_training(experiment: Experiment, cores: int, gpus: int) -> int:
    """A machine's cores, shared among the processes of the trainings that run at a time."""
    devices = experiment.training.devices
    at_a_time = len(experiment.losses) * len(experiment.seeds)
    if gpus:
        at_a_time = min(at_a_time, gpus // devices)
    return max(1, cores // (at_a_time * devices))


def snakemake_arguments(
    results: Path, cores: int, gpus: int = 0, elsewhere: Executor | None = None, snakefile: str = "Snakefile"
) -> list[str]:
    """How Snakemake is called: everything it keeps lies below `results`, and no profile of the user counts.

    `elsewhere`: what runs the steps in place of this machine's cores.
    """
    arguments = [
        "--snakefile",
        str(results / LINKS / "project" / "reproduce" / snakefile),
        "--directory",
        str(results),
    ]
    arguments += ["--configfile", str(results / "workflow.json"), "--nocolor"]
    if gpus:
        arguments += ["--resources", f"gpu={gpus}"]
    here = ["--cores", str(cores), "--profile", "none", "--workflow-profile", "none"]
    arguments += elsewhere.arguments() if elsewhere else here
    # our own lock stands in for Snakemake's, which a killed run would leave behind
    return arguments + ["--nolock", "--rerun-incomplete", "--rerun-triggers", "mtime", "params", "input", "code"]


def link(results: Path, **targets: Path) -> None:
    """Links by which Snakemake reaches folders outside `results`: {braces} in their names would be its wildcards."""
    (results / LINKS).mkdir(exist_ok=True)
    for name, target in targets.items():
        place = results / LINKS / name
        place.unlink(missing_ok=True)
        place.symlink_to(target, target_is_directory=True)


def run(
    experiment: Experiment, profile: Path, data: str, results: Path, figures: Path, cores: int,
    device: str = "auto", gpus: int | None = None, elsewhere: Executor | None = None,
) -> int:  # fmt: skip
    """Let Snakemake bring the results up to date; returns its exit status.

    `gpus`: how many trainings may run on GPUs at a time; default one on each, and none `elsewhere`: what this machine
    has says nothing of a cluster's nodes.
    """
    if elsewhere and not gpus:
        device, gpus = "cpu", 0
    elif gpus is None:
        gpus = count_gpus(device)
    if 0 < gpus < (needed := experiment.training.devices):
        raise ValueError(
            f"{profile}: training.devices is {needed}, but there are {gpus} GPUs for all trainings; lower it, or use "
            "DEVICE=cpu"
        )
    results.mkdir(parents=True, exist_ok=True)
    figures.mkdir(parents=True, exist_ok=True)
    progress = Progress(results, variation_weight(experiment))
    waiting = f"another run of profile {experiment.name} is going on; waiting until it ends"
    with locked(results / ".lock", waiting) as lock:
        source = Path(data).expanduser().resolve() if data else results / "data"
        config: dict[str, object] = {"project": ROOT, "profile": profile, "data": source}
        config |= {"results": results, "figures": figures}
        config |= {"python": sys.executable, "device": device, "gpus": gpus}
        config["threads"] = 1 if elsewhere else threads_of_a_training(experiment, cores, gpus)
        write_json(results / "workflow.json", {key: str(value) for key, value in config.items()})
        link(results, project=ROOT, data=source, figures=figures)
        remove_partial_files(results, depth=4)
        remove_partial_files(figures, depth=0)  # below it, another profile may be writing
        bring_back(results, figures, *[ROOT / part for part in ("shapeloss", "reproduce", "notebooks", "docs")])
        return snakemake(snakemake_arguments(results, cores, gpus, elsewhere), results, lock, progress, elsewhere)


def bring_back(*places: Path) -> None:
    """Where the clock was set back, give files that are younger than it the time of now, in their order.

    Snakemake takes a result that is older than its input for a failure, and removes it.

    Raises:
        ValueError: a file's time cannot be changed; names it.
    """
    now = time.time_ns()
    found = []
    for path in (path for place in places for path in place.rglob("*")):
        with suppress(FileNotFoundError):  # another profile may be writing below the figures
            found.append((path.lstat(), path))
    ahead = sorted(
        (state.st_mtime_ns, path) for state, path in found if S_ISREG(state.st_mode) and state.st_mtime_ns > now
    )
    for before, (_, path) in enumerate(reversed(ahead)):
        moment = now - before * 1000
        try:
            os.utime(path, ns=(moment, moment))
        except OSError as error:
            raise ValueError(f"{path}: is younger than the clock, which is wrong or was set back; touch it") from error
    if ahead:
        print(f"The clock was set back: {len(ahead)} files were younger than it, such as {ahead[-1][1]}; now none is.")


def snakemake(
    arguments: list[str], results: Path, lock: int, progress: Progress, elsewhere: Executor | None = None
) -> int:
    """Let Snakemake work below `results`, under a lock that is held; shows the logs of what fails, and returns its
    exit status."""
    environment = child.environment(ROOT, results / ".home")
    log = results / "log" / "snakemake.txt"
    log.parent.mkdir(exist_ok=True)
    command = [sys.executable, *WORKFLOW, *arguments]
    with open(log, "w", encoding="utf-8") as copy:
        process = child.start(command, stdout=subprocess.DEVNULL, env=environment, cwd=results, pass_fds=[lock])
        try:
            follow(process, copy, progress)
        finally:
            if elsewhere:
                child.interrupt(process)
            child.end(process)
    if process.returncode:
        logs = [path for name in dict.fromkeys(progress.failed_logs) if (path := results / name).is_file()]
        for path in logs or [log]:
            print(f"\n{path.read_text(encoding='utf-8', errors='replace').strip()[-4000:]}", file=sys.stderr)
        print("\nStopped. What was finished is kept: the same command goes on from here. Log:", log, file=sys.stderr)
    return process.returncode


def stop(number: int, frame: FrameType | None) -> None:
    """A signal that asks the run to end: the steps are ended, and later signals change nothing of that."""
    for other in STOPPING:
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt(number)


def follow(process: subprocess.Popen[str], copy: TextIO, progress: Progress) -> None:
    """Pass each line that Snakemake prints on to the log and the bar; refresh the bar in between."""
    ended, turn = threading.Event(), threading.Lock()

    def tick() -> None:
        while not ended.wait(1):
            with turn:
                progress.show()

    threading.Thread(target=tick, daemon=True).start()
    for line in process.stderr or ():
        copy.write(line)
        copy.flush()
        with turn:
            progress.line(line.rstrip("\n"))
    ended.set()
    process.wait()
    progress.close()


def number_of_gpus(text: str) -> int | None:
    """A positive number, or None for an empty text, which means the default."""
    if text and not (text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")
    return int(text) if text else None


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run the replication of one profile.")
    parser.add_argument("--profile", default="phantom", help="a name in reproduce/profiles, or a path")
    parser.add_argument("--data", default="", help="folder in Decathlon or nnU-Net layout")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--device", default="auto", help="of the trainings: auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument("--gpus", type=number_of_gpus, help="trainings on GPUs at a time; default one on each")
    parser.add_argument("--executor", default="local", help="local, slurm, or a folder with a Snakemake profile")
    parser.add_argument("--results", type=Path, help="default: results/<profile>")
    parser.add_argument("--figures", type=Path, help="default: figures for the phantom, figures/<profile> for others")
    arguments = parser.parse_args()
    named = ROOT / "reproduce" / "profiles" / f"{arguments.profile}.yaml"
    given = Path(arguments.profile).expanduser()
    profile = given.resolve() if not named.is_file() and ("/" in arguments.profile or given.is_file()) else named
    started = time.monotonic()
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, stop)
    try:
        elsewhere = find_executor(arguments.executor)
        if elsewhere and not arguments.gpus and arguments.device not in ("auto", "cpu"):
            raise ValueError(
                f"DEVICE={arguments.device} by EXECUTOR={arguments.executor} needs GPUS=n, how many trainings may hold "
                "a GPU of the cluster at a time"
            )
        experiment = check(profile, arguments.data)
    except (DatasetError, ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    results = (arguments.results or ROOT / "results" / experiment.name).resolve()
    figures = (arguments.figures or ROOT / figures_folder(experiment.name)).resolve()
    print(f"Profile {experiment.name}: {experiment.description}", flush=True)
    if elsewhere and (note := elsewhere.note(experiment.name)):
        print(note, flush=True)
    try:
        places = (profile, arguments.data, results, figures)
        status = run(experiment, *places, arguments.cores, arguments.device, arguments.gpus, elsewhere)
    except KeyboardInterrupt as interrupt:
        print("\nInterrupted. The same command goes on from the last checkpoint.", file=sys.stderr)
        sys.exit(128 + interrupt.args[0])
    except OSError as error:
        sys.exit(f"error: {os_error_message(error, results)}")
    except ValueError as error:
        sys.exit(f"error: {error}")
    if status:
        sys.exit(status)
    print(summary(figures, results, time.monotonic() - started))


def summary(figures: Path, results: Path, seconds: float) -> str:
    """What was produced, and where."""

    def short(path: Path) -> str:
        return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)

    table = (figures / "table1.md").read_text(encoding="utf-8").strip()
    names = {
        "report.html": "everything on one page, to be opened in a browser",
        "claims.md": "a verdict on each of the paper's claims",
        "audit.md": "can the reported numbers be true?",
        "figure1.png": "figure 1: distance maps (top), surface errors (bottom)",
        "surfaces.html": "figure 1 in three dimensions, and surface errors by region",
        "table1.md": "the results table, also as .csv and .tex",
        "table_exact.md": "the same against the phantom's exact surfaces",
        "study.md": "what the study found: differences against the noise of trainings",
        "per_case.csv": "scores of each test case, loss and seed",
        "scores.png": "the paired scores as a figure",
    }
    lines = [f"  {short(figures / name):32} {text}" for name, text in names.items() if (figures / name).is_file()]
    lines.append(f"  {short(results / 'notebooks'):32} the executed notebooks")
    return f"\n{table}\n\nUp to date after {seconds / 60:.1f} min:\n" + "\n".join(lines)


if __name__ == "__main__":
    main()
