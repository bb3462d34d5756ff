"""A copy of the project whose smoke profile a test runs, stops, kills and damages."""

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from helpers.project import ROOT


class Tree:
    """A copy of the project that a test may change, with its results and figures."""

    def __init__(self, folder):
        self.folder, self.results, self.figures = folder, folder / "results" / "smoke", folder / "figures" / "smoke"
        for part in ("shapeloss", "reproduce", "notebooks", "docs"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        self.environment = os.environ | {"PYTHONPATH": str(folder), "CI": "true"}
        self.command = [sys.executable, str(folder / "reproduce" / "run.py"), "--profile", "smoke", "--cores", "2"]

    def without_figures(self):
        """The copy's graph ends with the evaluation: for what is said of numbers alone."""
        path = self.folder / "reproduce" / "Snakefile"
        text = path.read_text(encoding="utf-8")
        before, rule, after = text.partition("rule all:\n    input:\n")
        wanted, end, after = after.partition("\n\n\n")
        assert "experiment.notebooks" in wanted
        path.write_text(f'{before}{rule}        "notebooks/03_evaluate.ipynb",{end}{after}', encoding="utf-8")
        return self

    def start(self, **options):
        return subprocess.Popen(
            self.command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
            start_new_session=True, cwd=self.folder, **options,
        )  # fmt: skip

    def start_and_lock(self):
        """Start, and wait until the run holds its results folder."""
        process, lock = self.start(), self.results / ".lock"
        self.wait(process, lambda: lock.exists() and lock.read_text(encoding="utf-8").startswith(f"[{process.pid},"))
        return process

    def start_and_train(self, step):
        """Start, and wait until a training of this run has done so many steps."""
        for path in self.results.glob("runs/*/*/progress"):
            path.unlink()  # of an earlier run
        process = self.start()
        self.wait(process, lambda: any(step <= done for done in self.steps_done()))
        return process

    def steps_done(self):
        """How many steps each training has done."""
        texts = [path.read_text(encoding="utf-8") for path in self.results.glob("runs/*/*/progress")]
        return [int(text.split("/")[0] or 0) for text in texts]

    def wait(self, process, until):
        """Wait until something is true of a run that goes on."""
        deadline = time.monotonic() + 300
        while not until():
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def processes(self):
        """The command lines of what runs here: the run, its steps and their kernels."""
        lines = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if Path(process.cwd()).is_relative_to(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    lines.append(" ".join(process.cmdline()))
        return lines

    def wait_until_quiet(self, seconds):
        """Wait until nothing runs from here; what still does after so many seconds."""
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def run(self):
        process = self.start()
        output, _ = process.communicate(timeout=600)
        return process.returncode, output

    def plan(self):
        """What Snakemake says that it would do now."""
        code = "import sys; sys.path.insert(0, 'reproduce'); import pathlib, run; "
        code += "print(*run.snakemake_arguments(pathlib.Path(sys.argv[1]), int(sys.argv[2])))"
        asked = [sys.executable, "-c", code, str(self.results), "1"]
        arguments = subprocess.check_output(asked, env=self.environment, cwd=self.folder, encoding="utf-8").split()
        command = [sys.executable, "-m", "snakemake", *arguments, "-n"]
        done = subprocess.run(command, env=self.environment, capture_output=True, encoding="utf-8", check=True)
        return done.stdout + done.stderr

    def to_do(self):
        """The rules that Snakemake would run now."""
        text = self.plan()
        rules = {match[1] for line in text.splitlines() if (match := re.fullmatch(r"(\w+)\s+\d+\s*", line))}
        return rules - {"all", "total"}

    def numbers(self):
        """Everything that must be the same in two runs."""
        names = ["per_case.csv", "table1.csv"]
        files = {name: (self.figures / name).read_bytes() for name in names}
        runs = sorted(self.results.glob("runs/*/*"))
        return files | {str(f.relative_to(self.results)): (f / "weights.safetensors").read_bytes() for f in runs}
