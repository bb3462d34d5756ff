"""The smoke profile on a Slurm of two nodes: `make test-cluster`. One node dies in the middle of a training, and
the numbers are those of a run on one machine. What happened is written to log.json, which docs/cluster.md tells."""

import os
import platform
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from helpers.project import ROOT
from helpers.slurm import TIMEOUT, Slurm, missing, output

from shapeloss._files import write_json
from shapeloss.runs.provenance import commit

pytestmark = pytest.mark.slow
LOG = Path(__file__).with_name("log.json")
FILES = ("table1.csv", "table1.md", "per_case.csv")
LOSSES = ("dpce", "ce", "dice")
CHECKPOINT_EVERY = 5  # of profile smoke


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if not os.environ.get("NEED_CLUSTER"):
        pytest.skip("starts a Slurm on this machine: make test-cluster")
    if lacking := missing():
        pytest.skip(f"no Slurm of two nodes can be started: {lacking}")
    with Slurm(tmp_path_factory.mktemp("slurm")) as slurm:
        yield slurm


@pytest.fixture
def start():
    """Starts a run; however the test ends, the run ends too."""
    processes = []

    def begin(run):
        processes.append(run.start())
        return processes[-1]

    yield begin
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(120)


class Run:
    """A replication of the smoke profile in a folder of its own."""

    def __init__(self, folder, *options):
        self.folder, self.results, self.figures = folder, folder / "results", folder / "figures"
        self.command = [sys.executable, str(ROOT / "reproduce" / "run.py"), "--profile", "smoke", *options]
        self.command += ["--results", str(self.results), "--figures", str(self.figures)]

    def start(self):
        self.folder.mkdir(exist_ok=True)
        with open(self.folder / "output.txt", "a", encoding="utf-8") as file:
            return subprocess.Popen(
                self.command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
            )  # fmt: skip

    def said(self):
        return (self.folder / "output.txt").read_text(encoding="utf-8")[-4000:]

    def step(self, loss):
        """How many steps the training with a loss has done."""
        with suppress(OSError, ValueError):
            return int((self.results / "runs" / loss / "seed0" / "progress").read_text().split("/")[0])
        return 0


def wait(condition, seconds, what, process=None):
    """Wait until a condition holds; what it returned."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        assert process is None or process.poll() is None, what
        time.sleep(0.05)
    return found


@contextmanager
def history(slurm, run):
    """Watches jobs and trainings: {job: [(second, state, node, restarts)]} and {loss: [step]}, each change once."""
    jobs, steps, over, started = {}, {}, threading.Event(), time.monotonic()

    def watch():
        while not over.wait(0.5):
            with suppress(subprocess.SubprocessError):
                for job in slurm.jobs():
                    row = (job["state"], job["node"], int(job["restarts"]))
                    seen = jobs.setdefault((job["job"], job["comment"]), [])
                    if not seen or seen[-1][1:] != row:
                        seen.append((round(time.monotonic() - started), *row))

    def count():
        while not over.wait(0.01):
            for loss in LOSSES:
                seen = steps.setdefault(loss, [])
                if (step := run.step(loss)) and (not seen or seen[-1] != step):
                    seen.append(step)

    threads = [threading.Thread(target=target, daemon=True) for target in (watch, count)]
    for thread in threads:
        thread.start()
    yield jobs, steps
    over.set()
    for thread in threads:
        thread.join()


def training(loss):
    """How the plugin names the job of a training."""
    return f"rule_train_wildcards_{loss}_0"


def running(slurm, beginning="rule_"):
    return [job for job in slurm.jobs() if job["state"] == "RUNNING" and job["comment"].startswith(beginning)]


def waiting(slurm):
    return [job for job in slurm.jobs() if job["state"] in ("RUNNING", "PENDING", "COMPLETING")]


def test_a_run_that_ends_early_cancels_its_jobs_and_a_dead_node_changes_no_number(cluster, start, tmp_path):
    here = Run(tmp_path / "one machine", "--cores", "2")
    alone = start(here)  # meanwhile
    settings = yaml.safe_load((ROOT / "reproduce" / "slurm" / "config.yaml").read_text(encoding="utf-8"))
    folder = tmp_path / "executor"
    folder.mkdir()
    quick = {"slurm-init-seconds-before-status-checks": 5}  # not forty, between one step and the next
    (folder / "config.yaml").write_text(yaml.safe_dump(settings | quick), encoding="utf-8")
    run = Run(tmp_path / "two {nodes}", "--executor", str(folder))

    for number in (signal.SIGTERM, signal.SIGKILL):
        process = start(run)
        wait(lambda: running(cluster), 180, "no job began", process)
        process.send_signal(number)
        wait(lambda: not waiting(cluster), 90, f"jobs go on after {number.name}")
        process.wait(90)

    began = time.monotonic()
    with history(cluster, run) as (jobs, steps):
        process = start(run)
        loss, step = wait(
            lambda: next(((name, run.step(name)) for name in LOSSES
                          if CHECKPOINT_EVERY < run.step(name) < 15), None),
            600, "no training was seen in its middle", process,
        )  # fmt: skip
        (job,) = running(cluster, training(loss))
        node = job["node"]
        assert job["job"] in cluster.kill_node(node)
        died, step = time.monotonic(), run.step(loss)
        before = len(steps[loss])
        assert not (run.results / "runs" / loss / "seed0" / "run.json").exists(), "the training ended before the node"
        cluster.wait_for("down", node, seconds=4 * TIMEOUT)
        noticed = time.monotonic() - died
        wait(lambda: running(cluster, training(loss)), 600, "the training did not begin again", process)
        again = time.monotonic() - died
        status = process.wait(1800)
        took = time.monotonic() - began
    assert status == 0, run.said()
    assert alone.wait(1800) == 0, here.said()

    kept = step // CHECKPOINT_EVERY * CHECKPOINT_EVERY
    resumed = steps[loss][before:]
    assert min(resumed) > kept >= CHECKPOINT_EVERY, "it did not start from its checkpoint"
    changes: dict[str, list] = {}
    for key in sorted(jobs, key=lambda key: int(key[0])):
        changes.setdefault(key[1], []).extend(jobs[key])
    trained = {training(name): changes[training(name)] for name in LOSSES}
    assert len({row[2] for rows in trained.values() for row in rows if row[1] == "RUNNING"}) == 2  # both nodes
    _, state, other, restarts = trained[training(loss)][-1]
    assert state == "COMPLETED"
    assert other != node
    equal = {name: (run.figures / name).read_bytes() == (here.figures / name).read_bytes() for name in FILES}
    for name in LOSSES:
        path = Path("runs") / name / "seed0" / "weights.safetensors"
        equal[f"weights of {name}"] = (run.results / path).read_bytes() == (here.results / path).read_bytes()
    assert all(equal.values()), equal

    by = "Slurm's requeue" if restarts else "Snakemake's retries"
    versions = {name: version(name) for name in ("snakemake", "snakemake-executor-plugin-slurm")}
    write_json(
        LOG,
        {
            "commit": commit(),
            "versions": {"slurm": output("sinfo", "--version").split()[-1], "python": platform.python_version()}
            | versions,
            "nodes": {
                comment.removeprefix("rule_"): list(dict.fromkeys(row[2] for row in rows if row[1] == "RUNNING"))
                for comment, rows in changes.items()
                if rows[-1][1] == "COMPLETED"
            },
            "killed": {"node": node, "training": loss, "at_step": step, "from_step": kept, "by": by},
            "seconds": {"noticed": round(noticed), "again": round(again), "all": round(took)},
            "timeout": TIMEOUT,
            "equal": list(equal),
        },
    )
