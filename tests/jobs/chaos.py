"""The campaign of faults: the smoke profile is killed, starved and damaged; the next run must go on, or say what to do.

    make chaos                                  # all: about an hour on two idle cores
    make chaos CHAOS="disk damage"              # the trials whose names begin with one of these words
    make chaos CHAOS="--kills 5 kill"
    make chaos CHAOS="--report /tmp/try.json --minutes 30 memory"   # leaves what was recorded as it is

A fault is survived if the next run ends with the numbers of the run without a fault, byte for byte; or if it is refused
by a message that names the file, and what the message says to do leads to these numbers. In between no file under its
own name may be half of one, and no process may be left. A file that may be lost is made again; a number may not.
What each trial showed last is kept in tests/jobs/chaos.json, as soon as it ends. Needs Linux, and root for the disks:
without, these trials are named as not run, as are those for which no time is left.
`make chaos CHAOS=soak` runs the profile 50 times in a row instead, and fails if anything has grown in the meantime.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import psutil
from helpers.tree import Tree
from PIL import Image
from safetensors import safe_open

from shapeloss._files import write_json
from shapeloss.data.checksums import load_tensors, save_tensors
from shapeloss.runs.provenance import commit

REPORT = Path(__file__).with_name("chaos.json")
QUIET = 20  # seconds until no process may be left
PATIENCE = 900  # seconds for one run
TEXTS = ("table1.md", "claims.md", "table_exact.csv")
"""Compared whole, beside the scores and weights: all runs of a campaign are of one commit, and no time is in them."""
STRATA = ("graph", "other notebook", "training kernel", "report")
"""What dies at least once in the trial of kills, in the order in which a run comes to it."""
ROOM = 3 * 2**20
"""Bytes of address space that a training has left when its memory runs out: its second step takes about 5 MB more."""
GROWTH = {
    "processes left": 0, "MB of memory of processes left": 0, "files elsewhere": 5, "MB elsewhere": 1,
    "files of the project": 5, "MB of the project": 1,
}  # fmt: skip
"""How much may be there more after the last run of the soak than after the first."""


@dataclass
class Outcome:
    """What a trial showed."""

    name: str
    tried: str
    """The fault, in words."""
    times: int
    ended: str
    """How the next runs ended: went on, refused with a remedy, or lost."""
    detail: str = ""
    seconds: float = 0.0


class Lost(AssertionError):
    """The project did not survive a fault."""


class OutOfTime(Exception):
    """The campaign's time is over."""


def need(truth: object, problem: str) -> None:
    if not truth:
        raise Lost(problem)


class Campaign(Tree):
    """The copy of the project in which everything happens, with states of its results to go back to."""

    def __init__(self, folder: Path, kills: int, seed: int, minutes: float) -> None:
        super().__init__(folder / "project")
        self.deadline = time.monotonic() + 60 * minutes
        self.kept = folder / "kept"
        self.kills, self.random = kills, random.Random(seed)
        self.log, self.temporary = folder / "log.txt", folder / "tmp"
        self.temporary.mkdir()
        self.environment |= {"TMPDIR": str(self.temporary), "HOME": str(folder / "home")}

    def start(self, **options: object) -> subprocess.Popen[str]:
        """As in the tests, but the output goes to a file: nobody may read it for a while."""
        if time.monotonic() > self.deadline:
            raise OutOfTime
        with self.log.open("w", encoding="utf-8") as output:
            return subprocess.Popen(
                self.command, env=self.environment, stdout=output, stderr=subprocess.STDOUT, encoding="utf-8",
                start_new_session=True, cwd=self.folder, **options,
            )  # fmt: skip

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def run(self, **options: object) -> tuple[int, str]:
        status = self.end_of(self.start(**options))
        return status, self.output()

    def end_of(self, process: subprocess.Popen[str]) -> int:
        """Wait until a run ends; one that takes too long is killed with all that it started."""
        try:
            return process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.end_all()
            raise

    def own(self) -> list[psutil.Process]:
        """What was started here and still runs, wherever it works: it has the campaign's folder for temporary files."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("TMPDIR") == str(self.temporary) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def end_all(self) -> None:
        """Kill what still runs, so that the next trial begins without it."""
        for _ in range(QUIET):  # what is killed may have started something
            left = self.own()
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
            if not left:
                return
            psutil.wait_procs(left, timeout=1)

    def numbers(self) -> dict[str, bytes]:
        """The tables and verdicts that a reader sees, too."""
        return super().numbers() | {
            name: (self.figures / name).read_bytes() for name in TEXTS if (self.figures / name).is_file()
        }

    def keep(self, name: str) -> None:
        """Remember results and figures as they are."""
        shutil.rmtree(self.kept / name, ignore_errors=True)
        for part in ("results", "figures"):
            if (self.folder / part).exists():
                shutil.copytree(self.folder / part, self.kept / name / part, symlinks=True)

    def restore(self, name: str = "") -> None:
        """Go back to a state that was kept; by default to nothing."""
        for part in ("results", "figures"):
            shutil.rmtree(self.folder / part, ignore_errors=True)
            if name:
                shutil.copytree(self.kept / name / part, self.folder / part, symlinks=True)

    def prepare(self) -> None:
        """The numbers to end with, and the states from which trials start."""
        process = self.start_and_train(12)
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)
        self.keep("training")
        started = time.monotonic()
        status, output = self.run()
        need(status == 0, output)
        self.seconds = time.monotonic() - started
        self.keep("finished")
        self.expected = self.numbers()

    def check_quiet(self) -> None:
        left = self.wait_until_quiet(QUIET)
        need(not left, f"still running {QUIET} s later: {left}")

    def check_end(self) -> None:
        """The next run ends with the numbers of the run without a fault."""
        status, output = self.run()
        need(status == 0, f"the next run ended with {status}: {output[-2000:]}")
        self.check_same()

    def check_same(self) -> None:
        found = self.numbers()
        differ = [name for name in self.expected if found.get(name) != self.expected[name]]
        need(not differ and found.keys() == self.expected.keys(), f"other numbers in {differ or sorted(found)}")
        self.check_whole()
        self.check_quiet()

    def check_whole(self) -> None:
        """Every file under its own name can be read to its end."""
        for path in [*self.results.rglob("*"), *self.figures.rglob("*")]:
            hidden = any(part.startswith(".") for part in path.relative_to(self.folder).parts)
            if path.is_file() and not path.is_symlink() and not hidden:
                try:
                    read_whole(path)
                except Exception as error:
                    raise Lost(f"{path.relative_to(self.folder)} is half a file: {error}") from error

    def refused(self, status: int, output: str, *said: str) -> str:
        """The line of a message that holds each of these texts, with … for the campaign's folder."""
        need(status != 0, f"ended with 0, although a message with {said} was expected")
        lines = [line.strip() for line in output.splitlines() if all(text in line for text in said)]
        need(lines, f"no line with {said} in: {output[-2000:]}")
        return re.sub(r"\s+", " ", lines[-1].replace(str(self.folder), "…"))

    def carry_out(self, said: str) -> str:
        """Do what a message says before a run: remove or copy again what it names; the remedy, in its words."""
        about = re.search(r"(\S+\.(?:nii\.gz|safetensors|json|csv)):? ", said)
        named = re.search(r"remove (?!it\b)(\S+?)(?:,? and the results' (\S+?))?,? and run", said)
        if named:
            paths = [self.place(named[1]), *([self.results / named[2]] if named[2] else [])]
        elif about and "remove it" in said:
            paths = [self.place(about[1])]
        elif about and re.search(r"train (it )?again", said):
            paths = [self.place(about[1]).parent]
        elif about and re.search(r"copy (or download )?it again", said):
            path = self.place(about[1])
            shutil.copy(self.kept / "finished" / path.relative_to(self.folder), path)
            return f"copied {path.name} again"
        else:
            raise Lost(f"no remedy in: {said}")
        for path in paths:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return f"removed {', '.join(path.name for path in paths)}"

    def place(self, name: str) -> Path:
        """The path that a message names; those of a data set are named from its folder."""
        paths = [self.folder / name.removeprefix("…/"), self.results / "data" / name]
        found = [path for path in paths if path.exists()]
        need(found, f"{name} is named, and is not there")
        return found[0]


def read_whole(path: Path) -> None:
    """Read a file to its end by its kind; raises if it is not whole."""
    suffix = "".join(path.suffixes[-2:]) if path.name.endswith(".nii.gz") else path.suffix
    if suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif suffix == ".csv":
        need(path.read_text(encoding="utf-8").endswith("\n"), "no end of line")
        pd.read_csv(path)
    elif suffix == ".nii.gz":
        gzip.decompress(path.read_bytes())
    elif suffix == ".safetensors":
        with safe_open(path, "np") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                tensors.get_tensor(name)
    elif suffix in (".npy", ".npz"):
        np.load(path, allow_pickle=False)
    elif suffix == ".png":
        with Image.open(path) as image:
            image.load()
    elif suffix == ".ipynb":
        nbformat.read(path, 4)
    elif suffix == ".pdf":
        need(path.read_bytes().rstrip().endswith(b"%%EOF"), "no end")
    elif suffix == ".html":
        need("</html>" in path.read_text(encoding="utf-8")[-200:].lower(), "no end")


# --- kills


def kind(process: psutil.Process) -> str:
    """What a process of a run is."""
    line = " ".join(process.cmdline())
    if "ipykernel" in line:
        parent = process.parent()
        return "training kernel" if parent and "02_train" in " ".join(parent.cmdline()) else "other kernel"
    if "notebook.py" in line:
        return "training notebook" if "02_train" in line else "other notebook"
    for text, name in (
        ("workflow.py", "graph"),
        ("report.py", "report"),
        ("-m shapeloss", "command"),
        ("run.py", "run"),
    ):
        if text in line:
            return name
    return "other"


def running(process: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """The processes of a run, one of each kind."""
    found: dict[str, psutil.Process] = {}
    with suppress(psutil.Error):
        for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            with suppress(psutil.Error):
                found.setdefault(kind(each), each)
    return found


def kill(campaign: Campaign) -> Iterator[Outcome]:
    """SIGKILL at random moments to a process of the run: first one of each of STRATA, then any, until so many died."""
    died: Counter[str] = Counter()
    campaign.restore()
    while died.total() < campaign.kills:
        wanted = next((name for name in STRATA if not died[name]), "")
        process = campaign.start()
        if wanted:
            while process.poll() is None and wanted not in running(process):
                time.sleep(0.05)
        with suppress(subprocess.TimeoutExpired):
            latest = 1 if wanted else 0.8 * campaign.seconds
            process.wait(timeout=campaign.random.uniform(0, latest))
        found = running(process)
        if process.poll() is not None:
            need(process.returncode == 0, f"a run without a kill ended with {process.returncode}: {campaign.output()}")
            campaign.check_same()
            campaign.restore()
            continue
        name = wanted if wanted in found else campaign.random.choice(sorted(found) or [""])
        if name:
            with suppress(psutil.NoSuchProcess):
                found[name].kill()
                died[name] += 1
        campaign.end_of(process)
        campaign.check_quiet()
        campaign.check_whole()
        print(f"  {died.total()} of {campaign.kills}: {name}", flush=True)
    campaign.check_end()
    alive = [name for name in STRATA if not died[name]]
    need(not alive, f"none of these was killed: {alive}")
    detail = ", ".join(f"{name} {count}" for name, count in sorted(died.items()))
    yield Outcome("kill", "SIGKILL to a process of a run at a random moment", died.total(), "went on", detail)


def training_kernel(campaign: Campaign, step: int) -> tuple[subprocess.Popen[str], psutil.Process, int]:
    """Start from nothing, until a training has done so many steps: the run, this training's kernel, which is suspended
    then, and its steps."""
    campaign.restore()
    process = campaign.start()
    deadline = time.monotonic() + PATIENCE
    found = None
    while not found:
        need(process.poll() is None and time.monotonic() < deadline, f"no training was met: {campaign.output()}")
        time.sleep(0.1)
        found = running(process).get("training kernel")
    match = re.search(r"02_train_(\w+)_(seed\d+)\.", " ".join(found.parent().cmdline()))
    need(match, f"no training's notebook in {found.parent().cmdline()}")
    progress = campaign.results / "runs" / match[1] / match[2] / "progress"
    while not (progress.exists() and int(progress.read_text(encoding="utf-8").partition("/")[0] or 0) >= step):
        need(process.poll() is None and time.monotonic() < deadline, f"no step was done: {campaign.output()}")
        time.sleep(0.001)
    found.suspend()
    return process, found, int(progress.read_text(encoding="utf-8").partition("/")[0])


def kernel(campaign: Campaign) -> Iterator[Outcome]:
    """The kernel of a training dies, after its first checkpoint."""
    process, found, step = training_kernel(campaign, 6)
    found.kill()  # though it is suspended
    status = campaign.end_of(process)
    said = campaign.refused(status, campaign.output(), "02_train", "its kernel was ended from outside")
    campaign.check_quiet()
    campaign.check_whole()
    campaign.check_end()
    tried = f"the kernel of a training is killed after step {step} of 20"
    yield Outcome("kernel", tried, 1, "refused, then went on", said)


# --- resources


@contextmanager
def small_disk(campaign: Campaign, part: str, free: int) -> Iterator[Callable[[], None]]:
    """A file system under one of the campaign's folders, with so many bytes left; the call that gives it room."""
    folder = campaign.folder / part
    aside = folder.with_name(f"{folder.name}.aside")
    folder.mkdir(parents=True, exist_ok=True)
    folder.rename(aside)
    folder.mkdir()
    used = sum(-(-path.lstat().st_size // 4096) * 4096 for path in aside.rglob("*") if not path.is_dir())
    mount = ["mount", "-t", "tmpfs", "-o", f"size={used + free}", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        shutil.copytree(aside, folder, symlinks=True, dirs_exist_ok=True)
        yield lambda: subprocess.run(["mount", "-o", "remount,size=1g", str(folder)], check=True) and None
    finally:
        campaign.wait_until_quiet(QUIET)
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()
        aside.rename(folder)


def without(campaign: Campaign, *patterns: str) -> None:
    """Remove files and folders of the results, so that the steps that make them run again."""
    for pattern in patterns:
        found = sorted(campaign.results.glob(pattern))
        need(found, f"nothing matches {pattern}")
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def disk(campaign: Campaign) -> Iterator[Outcome]:
    """The disk is full at a step; then it has room again."""
    places = {  # the state, the folder that is a disk of its own, and what is removed so that it is written
        "a checkpoint": ("training", "results/smoke/runs", ()),
        "the map cache": (
            "finished",
            "results/smoke/maps",
            ("maps/*", "runs/dpce", "notebooks/02_train_dpce_seed0.ipynb"),
        ),
        "a notebook": ("finished", "results/smoke/notebooks", ("notebooks/03_evaluate.ipynb",)),
        "a figure": ("finished", "figures/smoke", ("notebooks/04_error_maps.ipynb",)),
    }
    for name, (state, part, removed) in places.items():
        campaign.restore(state)
        without(campaign, *removed)
        with small_disk(campaign, part, 16_384) as enlarge:
            status, output = campaign.run()
            said = campaign.refused(
                status, output, "the disk is full at", part, "free space and run the same command again"
            )
            campaign.check_quiet()
            campaign.check_whole()
            enlarge()
            campaign.check_end()
        tried = f"the disk is full when {name} is written"
        yield Outcome(f"disk: {name.split()[-1]}", tried, 1, "refused, then went on", said)


def commands(campaign: Campaign) -> Iterator[Outcome]:
    """The disk is full during a command of the package; then it has room again."""
    for name, arguments in {
        "predict": ("predict", "results/smoke/runs/ce/seed0", "results/smoke/data/imagesTr", "made/output"),
        "import": ("import", "folder", "results/smoke/data", "made/output"),
    }.items():
        campaign.restore("finished")
        status, output = command(campaign, *arguments)
        need(status == 0, output)
        expected = contents(campaign.folder / "made" / "output")
        need(sum(name.endswith(".nii.gz") for name in expected) >= 6, f"only {sorted(expected)} were made")
        shutil.rmtree(campaign.folder / "made")
        with small_disk(campaign, "made", 24_576) as enlarge:
            status, output = command(campaign, *arguments)
            said = campaign.refused(status, output, "the disk is full")
            enlarge()
            status, output = command(campaign, *arguments)
            need(status == 0, output)
            found = contents(campaign.folder / "made" / "output")
            differ = sorted(path for path in expected.keys() | found.keys() if expected.get(path) != found.get(path))
            need(not differ, f"other than without a full disk: {differ}")
        yield Outcome(f"disk: {name}", f"the disk is full during shapeloss {name}", 1, "refused, then went on", said)


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder, but hidden ones and the record of predictions.

    If the disk is full when that is written, the maker of the label map before it counts as unknown.
    """
    names = (".", "predict.json")
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(names)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def command(campaign: Campaign, *arguments: str) -> tuple[int, str]:
    """Run a command of the package in the campaign's folder."""
    line = [sys.executable, "-m", "shapeloss", *arguments]
    environment = campaign.environment | {"COLUMNS": "400"}
    done = subprocess.run(
        line, env=environment, capture_output=True, encoding="utf-8", cwd=campaign.folder, timeout=PATIENCE
    )
    return done.returncode, done.stdout + done.stderr


def readonly(campaign: Campaign) -> Iterator[Outcome]:
    """The results cannot be written."""
    campaign.restore("training")
    with small_disk(campaign, "results", 2**28):
        folder = str(campaign.folder / "results")
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        status, output = campaign.run()
        said = campaign.refused(status, output, "Read-only file system")
        campaign.check_quiet()
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        campaign.check_end()
    yield Outcome("readonly", "the folder of the results is read-only", 1, "refused, then went on", said)


def memory(campaign: Campaign) -> Iterator[Outcome]:
    """A training's memory runs out after its first step: the second takes more, the later ones no more than that."""
    process, found, step = training_kernel(campaign, 1)
    limit = found.memory_info().vms + ROOM
    resource.prlimit(found.pid, resource.RLIMIT_AS, (limit, limit))
    found.resume()
    status = campaign.end_of(process)
    # with the keys of the profile that help; or, if even the traceback finds no memory, that it is memory that lacks
    said = campaign.refused(status, campaign.output(), "memory")
    campaign.check_quiet()
    campaign.check_whole()
    campaign.check_end()
    tried = f"after step {step} of 20 a training may have no more memory (ulimit -v)"
    yield Outcome("memory", tried, 1, "refused, then went on", said)


def clock(campaign: Campaign) -> Iterator[Outcome]:
    """The clock is set back: everything that is there comes from tomorrow."""
    for state in ("training", "finished"):
        campaign.restore(state)
        tomorrow = time.time() + 86_400
        for path in [*campaign.results.rglob("*"), *campaign.figures.rglob("*")]:
            os.utime(path, (tomorrow, tomorrow), follow_symlinks=False)
        campaign.check_end()
    yield Outcome("clock", "all files are a day younger than the clock: it was set back", 2, "went on")


def twice(campaign: Campaign) -> Iterator[Outcome]:
    """Two runs at once in one checkout."""
    campaign.restore("training")
    first = campaign.start()
    campaign.log = campaign.log.with_name("second.txt")  # each its own
    time.sleep(2)
    status, output = campaign.run()
    need(campaign.end_of(first) == 0, "the first run failed")
    need(status == 0 and "another run" in output, f"the second run ended with {status}: {output[-1000:]}")
    campaign.check_same()
    yield Outcome("twice", "two runs at once in one checkout", 1, "went on", "the second waited for the first")


# --- damage


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path: Path) -> None:
    """Change one bit in the middle: of a text, one of a digit if there is one, so that it stays readable."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    if path.suffix in (".json", ".csv"):
        middle = next((i for i in range(middle, len(content)) if chr(content[i]) in "02468"), middle)
    content[middle] ^= 1
    path.write_bytes(bytes(content))


def damage(campaign: Campaign) -> Iterator[Outcome]:
    """A file is cut, or one of its bits is another."""
    evaluate = ("notebooks/03_evaluate.ipynb",)
    train = ("runs/dpce", "notebooks/02_train_dpce_seed0.ipynb", *evaluate)
    files = {  # state, file, what is removed so that it is read
        "checkpoint": ("training", "runs/*/seed0/checkpoint.*", ()),
        "cache entry": ("finished", "maps/**/*.np*", train),
        "run.json": ("finished", "runs/ce/seed0/run.json", evaluate),
        "cases.json": ("finished", "cases.json", evaluate),
        "prediction": ("finished", "runs/ce/seed0/predictions/*.nii.gz", evaluate),
        "history.csv": ("finished", "runs/ce/seed0/history.csv", evaluate),
        "image": ("finished", "data/imagesTr/knee_001.nii.gz", ("cases.json",)),
        "label map": ("finished", "data/labelsTr/knee_001.nii.gz", ("cases.json",)),
    }
    for name, (state, pattern, removed) in files.items():
        for how in (truncate, flip):
            campaign.restore(state)
            path = next(each for each in sorted(campaign.results.glob(pattern)) if each.is_file())
            without(campaign, *removed)
            how(path)
            status, output = campaign.run()
            ended, said = "went on", ""
            if status:
                said = campaign.refused(status, output, path.name)
                ended = "refused, then went on"
                remedy = campaign.carry_out(said)
                status, output = campaign.run()
                need(status == 0, f"after {said} and its remedy ({remedy}): {output[-2000:]}")
            campaign.check_same()
            yield Outcome(f"damage: {name}, {how.__name__}", f"{how.__name__}: {name}", 1, ended, said)


def scores(campaign: Campaign) -> Iterator[Outcome]:
    """Scores and weights are read by commands: damaged ones are refused, and what is said leads to the same numbers."""
    run_folder, images = "results/smoke/runs/ce/seed0", "results/smoke/data/imagesTr"
    trials = {
        "per_case.csv": ("figures/smoke/per_case.csv", ("reanalyze", "figures/smoke")),
        "weights": (
            f"{run_folder}/weights.safetensors",
            ("predict", run_folder, images, "made"),
        ),
    }
    for name, (path, arguments) in trials.items():
        for how in (truncate, flip):
            campaign.restore("finished")
            how(campaign.folder / path)
            said = refused_until_mended(campaign, arguments, path)
            ended = "refused, then went on"
            yield Outcome(f"damage: {name}, {how.__name__}", f"{how.__name__}: {name}", 1, ended, said)
    campaign.restore("finished")
    path = campaign.folder / run_folder / "weights.safetensors"
    tensors, notes = load_tensors(path)
    save_tensors(path, {f"other.{key}": value for key, value in tensors.items()}, notes)
    said = refused_until_mended(campaign, trials["weights"][1], str(path))
    tried, ended = "weights of another architecture", "refused, then went on"
    yield Outcome("damage: weights, of another network", tried, 1, ended, said)


def refused_until_mended(campaign: Campaign, arguments: tuple[str, ...], path: str) -> str:
    """A command refuses a damaged file, and works once what it says has been done; its message."""
    said = campaign.refused(*command(campaign, *arguments), Path(path).name)
    remedy = campaign.carry_out(said)
    campaign.check_end()
    status, output = command(campaign, *arguments)
    need(status == 0, f"after {said} and its remedy ({remedy}): {output[-2000:]}")
    shutil.rmtree(campaign.folder / "made", ignore_errors=True)
    campaign.check_same()  # the command has changed nothing
    return said


def soak(campaign: Campaign, runs: int) -> dict[str, object]:
    """The profile from nothing, so many times: what is left of it in memory, on the disk and among the processes.

    Memory is what processes hold that are left: what else the machine does says nothing of this project.

    Raises:
        Lost: more has grown than GROWTH allows.
    """

    def grown() -> dict[str, int]:
        left = campaign.own()
        homes = [campaign.temporary, campaign.log.with_name("home"), Path("/dev/shm")]
        files = [path for home in homes for path in home.rglob("*") if path.is_file()]
        kept = [path for path in campaign.folder.rglob("*") if path.is_file() and not path.is_symlink()]
        memory = 0
        for process in left:
            with suppress(psutil.Error):
                memory += process.memory_info().rss
        return {
            "processes left": len(left),
            "MB of memory of processes left": memory >> 20,
            "files elsewhere": len(files),
            "MB elsewhere": sum(path.stat().st_size for path in files) >> 20,
            "files of the project": len(kept),
            "MB of the project": sum(path.stat().st_size for path in kept) >> 20,
        }

    measured: list[dict[str, int]] = []
    for number in range(runs):
        campaign.restore()
        campaign.check_end()
        measured.append(grown())
        print(f"  {number + 1} of {runs}: {measured[-1]}", flush=True)
    first, last = measured[0], measured[-1]
    much = {name: last[name] - first[name] for name, limit in GROWTH.items() if last[name] - first[name] > limit}
    need(not much, f"grown by more than allowed in {runs} runs: {much}")
    return {"runs": runs, "first": first, "last": last, "allowed": GROWTH}


TRIALS = (kill, kernel, twice, clock, memory, disk, commands, readonly, damage, scores)


def survived(campaign: Campaign, trial: Callable[[Campaign], Iterator[Outcome]]) -> list[Outcome]:
    """The outcomes of a trial; the last is "lost" with the reason if something was."""
    outcomes: list[Outcome] = []
    if trial in (disk, commands, readonly) and os.geteuid():
        return [Outcome(trial.__name__, "", 0, "not run", "mounting a small disk needs root")]
    started = time.monotonic()
    try:
        for outcome in trial(campaign):
            outcome.seconds, started = round(time.monotonic() - started, 1), time.monotonic()
            outcome.detail = outcome.detail[:300]
            print(f"{outcome.name}: {outcome.ended} ({outcome.seconds} s) {outcome.detail}", flush=True)
            outcomes.append(outcome)
    except OutOfTime:
        outcomes.append(Outcome(trial.__name__, "", 0, "not run", "the campaign's time (--minutes) was over"))
    except Exception as error:  # one fault must not end the campaign
        reason = str(error) if isinstance(error, Lost) else traceback.format_exc()
        print(f"{trial.__name__}: LOST after {len(outcomes)}: {reason}", flush=True)
        outcomes.append(Outcome(trial.__name__, (trial.__doc__ or "").strip(), 1, "lost", reason[-1500:]))
        for line in campaign.processes():
            print(f"  still running: {line}", flush=True)
    campaign.end_all()
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="trials whose names begin with one of these; default all")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--runs", type=int, default=50, help="of the soak")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument(
        "--minutes", type=float, default=240, help="after which nothing more is started; default %(default)s"
    )
    parser.add_argument("--report", type=Path, default=REPORT, help="what is recorded; default tests/jobs/chaos.json")
    arguments = parser.parse_args()
    if arguments.kills < len(STRATA):
        parser.error(f"--kills must be {len(STRATA)} or more, for one of each of {', '.join(STRATA)}")
    if arguments.runs < 2:
        parser.error("--runs must be 2 or more: the last is compared with the first")
    soaking = arguments.words == ["soak"]
    words = arguments.words
    chosen = [] if soaking else [t for t in TRIALS if not words or any(t.__name__.startswith(word) for word in words)]
    if not chosen and not soaking:
        parser.error(f"no trial begins with {words}; there are {', '.join(t.__name__ for t in TRIALS)}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        campaign = Campaign(Path(folder), arguments.kills, arguments.seed, arguments.minutes)
        made_by = {"commit": commit(), "seed": arguments.seed}
        try:
            campaign.prepare()
            if soaking:
                keep(arguments.report, "soak", made_by | soak(campaign, arguments.runs))
            every: list[Outcome] = []
            for trial in chosen:
                outcomes = survived(campaign, trial)
                every += outcomes
                if all(outcome.ended != "not run" for outcome in outcomes):  # or what was recorded stays
                    keep(arguments.report, trial.__name__, made_by | {"outcomes": list(map(asdict, outcomes))})
        except (Lost, OutOfTime) as error:
            sys.exit(f"error: {error or 'the time (--minutes) was over before it ended'}")
        finally:
            campaign.end_all()
    lost, not_run = ([each.name for each in every if each.ended == ended] for ended in ("lost", "not run"))
    tried = f"{sum(outcome.times for outcome in every)} faults, lost: {', '.join(lost) or 'nothing'}"
    print(tried + (f"; not run: {', '.join(not_run)}" if not_run else ""))
    sys.exit(bool(lost))


def keep(report: Path, name: str, found: dict[str, object]) -> None:
    """Record what a trial showed, in place of what it showed before."""
    record = json.loads(report.read_text(encoding="utf-8")) if report.is_file() else {}
    write_json(report, record | {name: found})


if __name__ == "__main__":
    main()
