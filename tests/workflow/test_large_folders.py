"""The command for a population: its graph, on this machine and on Slurm, what it says, and its page."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import yaml
from helpers.project import ROOT
from helpers.slurm_commands import write_commands

sys.path.insert(0, str(ROOT / "reproduce"))

import child
import population
import readme
from benchmarks import population as benchmark
from executor import Executor

from shapeloss._files import write_json
from shapeloss.shards.join import Joined
from shapeloss.shards.plan import Plan

SLURM = Executor("slurm", ROOT / "reproduce" / "slurm")


def orders(output, count):
    """A population of so many shards, of which none is done."""
    for number in range(count):
        write_json(output / f"shards/{number:05d}/order.json", {"number": 1})
    return Plan(tuple(f"{number:05d}" for number in range(count)), count, ())


def dry_run(output, plan, elsewhere=None, memory=0, minutes=0):
    """What Snakemake would do."""
    population.write_configuration(output, plan, "cpu", False, memory, minutes)
    command = [sys.executable, "-m", "snakemake", *population.arguments_for(output, len(plan.shards), 2, elsewhere)]
    environment = child.environment(ROOT, output / ".home")
    done = subprocess.run(
        [*command, "--dry-run"], env=environment, cwd=output, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_graph_has_a_job_for_each_shard_whose_order_is_newer_than_what_was_made(tmp_path):
    output = tmp_path / "a {braces} é"
    plan = orders(output, 4)
    write_json(output / "shards/00002/shard.json", {})
    text = dry_run(output, plan, memory=1500, minutes=90)
    stats = dict(line.split() for line in text.splitlines() if len(line.split()) == 2 and line.split()[1].isdigit())
    assert stats["shard"] == "3"
    assert "output: shards/00002/shard.json" not in text
    assert "mem_mb=1500" in text
    assert "runtime=90" in text


def test_on_slurm_the_shards_are_array_jobs_that_are_all_handed_over_at_once(tmp_path):
    """Handed fewer than are ready, the plugin would wait for the rest, and Snakemake for the plugin."""
    arguments = population.arguments_for(tmp_path, 469, 2, SLURM)
    assert arguments[arguments.index("--slurm-array-jobs") + 1] == "shard"
    assert int(arguments[len(arguments) - 1 - arguments[::-1].index("--jobs") + 1]) >= 469
    assert int(arguments[arguments.index("--slurm-array-limit") + 1]) * 4000 < 2**17  # bytes of commands in an argument
    folder = Path(arguments[arguments.index("--workflow-profile") + 1])
    values = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    asked = yaml.safe_load((SLURM.folder / "config.yaml").read_text(encoding="utf-8"))
    assert asked == values | {"slurm-pass-command-as-script": True}  # with it, all tasks would do the first's work
    assert "--slurm-array-jobs" not in population.arguments_for(tmp_path, 469, 2)
    assert "--slurm-array-jobs" not in population.arguments_for(tmp_path / 'a "b" $c', 469, 2, SLURM)
    assert "--slurm-array-jobs" not in population.arguments_for(tmp_path, 4683, 2, SLURM)  # numbers above MaxArraySize


def test_a_dry_run_on_slurm(tmp_path):
    pytest.importorskip("snakemake_executor_plugin_slurm")
    text = dry_run(tmp_path, orders(tmp_path, 3), SLURM)
    assert "mem_mb=2600" in text  # of reproduce/slurm, where nothing else is asked for


@pytest.fixture
def arguments(tmp_path):
    names = ("run", "images", "truth", "attempts", "retry_all", "metric", "memory_mb", "minutes")
    values = dict.fromkeys(names) | {"output": tmp_path / "out", "executor": "local", "side": "", "any_spacing": False}
    return Namespace(**values, plane="auto", edge="open", shard_size=100, cores=1, device="cpu")


@pytest.mark.parametrize(
    ("quarantined", "files", "failed", "status"), [(0, 0, 0, 0), (1, 0, 0, 3), (0, 1, 0, 3), (1, 0, 1, 1)]
)
def test_the_exit_status_tells_that_something_is_in_quarantine(
    arguments, monkeypatch, capsys, quarantined, files, failed, status
):  # fmt: skip
    monkeypatch.setattr(population, "make_plan", lambda *_: Plan(("00000",), 5, ("00000",), ("a note",)))
    monkeypatch.setattr(population, "snakemake", lambda *_: failed)
    joined = Joined(5, 4 - quarantined, 1, quarantined, 1, files, ("00000",) * failed, {"3": 2}, 1)
    monkeypatch.setattr(population, "join", lambda output: joined)
    assert population.run(arguments) == status
    text = capsys.readouterr().out
    assert text.startswith("a note\n5 volumes in 1 shards; 1 have something to do\n")
    assert f"{quarantined} in quarantine; 1 have no truth" in text
    assert "background: 3 (in 2 volumes)" in text
    assert ("1 shard(s) are unfinished: 00000" in text) == failed


def test_where_nothing_is_to_be_done_no_graph_is_built(arguments, monkeypatch):
    monkeypatch.setattr(population, "make_plan", lambda *_: Plan(("00000",), 5, ()))
    monkeypatch.setattr(population, "snakemake", None)
    monkeypatch.setattr(population, "join", lambda output: Joined(5, 5, 0, 0, 0, 0, (), {}, 1))
    assert population.run(arguments) == 0


@pytest.mark.slow
def test_a_population_from_the_command_to_the_scores(tiny_results, tmp_path):
    """Without truth first, then with it, then nothing."""
    command = [sys.executable, ROOT / "reproduce/population.py", "--run", tiny_results / "runs/ce/seed0", "--output"]
    command += [tmp_path, "--images", tiny_results / "data/imagesTr", "--shard-size", "3", "--metric", "dice"]
    environment = child.environment(ROOT, tmp_path / "home")
    for more, state in (((), "predicted"), (("--truth", tiny_results / "data/labelsTr"), "scored"), ((), "predicted")):
        done = subprocess.run([*command, *more], env=environment, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))[state] == 4


@pytest.mark.slow
def test_the_tasks_of_an_array_do_the_work_of_a_shard_each(tiny_results, tmp_path, monkeypatch):
    """Arrays of two, of which the second counts on."""
    pytest.importorskip("snakemake_executor_plugin_slurm")
    pytest.importorskip("pyarrow")
    state = write_commands(tmp_path / "bin")
    code = "import population; population.ARRAY_TASKS = 2; population.main()"
    command = [sys.executable, "-c", code, "--run", tiny_results / "runs/ce/seed0", "--output", tmp_path / "out"]
    command += ["--images", tiny_results / "data/imagesTr", "--truth", tiny_results / "data/labelsTr"]
    command += ["--shard-size", "1", "--metric", "dice", "--executor", "slurm"]
    monkeypatch.setenv("PATH", f"{state.parent}{os.pathsep}{os.environ['PATH']}")
    environment = child.environment(ROOT, tmp_path / "home")
    environment["PYTHONPATH"] += f"{os.pathsep}{ROOT / 'reproduce'}"
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 scored" in done.stdout
    assert sorted(path.name for path in state.glob("*.state")) == [
        f"{j}_{t}.state" for j, t in ("11", "12", "23", "24")
    ]


def test_a_line_is_found_again_and_its_interval_holds_the_truth():
    sizes = {1000: 0.5 + 2e-5 * 1000, 30000: 0.5 + 2e-5 * 30000, 800000: 0.5 + 2e-5 * 800000}
    assert benchmark.line(sizes) == pytest.approx((0.5, 2e-5))
    rng = benchmark.np.random.default_rng(1)
    samples = {size: mean * rng.normal(1, 0.1, 50) for size, mean in sizes.items()}
    value, low, high = benchmark.extrapolate(samples, 10**7, draws=300)
    assert low < value < high
    assert low < 0.5 + 2e-5 * 10**7 < high
    assert benchmark.of_largest({size: benchmark.np.array([mean]) for size, mean in sizes.items()}) == pytest.approx(1)


def test_the_page_is_made_of_the_committed_measurement():
    found = json.loads(benchmark.FILE.read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "population.md").read_text(encoding="utf-8")
    assert page == readme.filled(page)
    assert found["knees"] == 46824
    assert [row["scored"] for row in found["runs"]] == [row["volumes"] for row in found["runs"]]
