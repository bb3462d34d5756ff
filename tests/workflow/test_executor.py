"""Runs whose steps go to a cluster, without one: what is asked for, what is refused, what is stopped. A Slurm of two
nodes is in tests/cluster."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import yaml
from helpers.project import ROOT

sys.path.insert(0, str(ROOT / "reproduce"))

import child
import executor
import run
import slurm_resources

from shapeloss.replication.profile import load_experiment

SNAKEFILE = (ROOT / "reproduce" / "Snakefile").read_text(encoding="utf-8")
PROFILES = ROOT / "reproduce" / "profiles"


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Makes a plugin for Snakemake that says whether it does without a shared folder, and an executor's folder."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name="pretend", no_shared="False"):
        text = f"class common_settings:\n    implies_no_shared_fs = {no_shared}\n"
        (tmp_path / f"snakemake_executor_plugin_{name}.py").write_text(text)
        sys.modules.pop(f"snakemake_executor_plugin_{name}", None)
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(f"executor: {name}\njobs: 3\n")
        return str(tmp_path / name)

    return make


def test_without_an_executor_this_machine_does_the_work(tmp_path):
    assert executor.find_executor("local") is executor.find_executor("") is None
    arguments = run.snakemake_arguments(tmp_path, cores=3)
    assert arguments[arguments.index("--cores") + 1] == "3"
    assert "--executor" not in arguments


def test_a_folder_of_the_user_says_where_the_steps_run(plugin, tmp_path):
    folder = plugin()
    elsewhere = executor.find_executor(folder)
    arguments = run.snakemake_arguments(tmp_path, cores=3, elsewhere=elsewhere)
    assert arguments[arguments.index("--executor") + 1] == "pretend"
    assert arguments[arguments.index("--workflow-profile") + 1] == folder
    assert arguments[arguments.index("--profile") + 1] == "none"
    assert "--cores" not in arguments  # of this machine, which does nothing


def test_each_fault_of_an_executor_names_its_remedy(plugin, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="expected local, slurm, or the path"):
        executor.find_executor("slrum")
    (tmp_path / "config.yaml").write_text("jobs: 3")
    with pytest.raises(ValueError, match="names no executor; expected a line such as executor: slurm"):
        executor.find_executor(str(tmp_path))
    (tmp_path / "config.yaml").write_text("executor: [")
    with pytest.raises(ValueError, match="is not valid YAML"):
        executor.find_executor(str(tmp_path))
    (tmp_path / "config.yaml").write_text("executor: no-such")
    with pytest.raises(ValueError, match=r"pip install -c constraints\.txt snakemake-executor-plugin-no-such"):
        executor.find_executor(str(tmp_path))
    with pytest.raises(ValueError, match="shares no folder between machines"):
        executor.find_executor(plugin("cloud", "True"))
    plugin("slurm")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="no command sbatch here; run make on a login node"):
        executor.find_executor("slurm")
    monkeypatch.setattr(executor, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"lacks; install it: .*'\.\[cluster\]'"):
        executor.find_executor("slurm")


def test_kubernetes_is_refused_as_long_as_its_plugin_shares_no_folder(tmp_path):
    pytest.importorskip("snakemake_executor_plugin_kubernetes")
    (tmp_path / "config.yaml").write_text("executor: kubernetes")
    with pytest.raises(ValueError, match="shares no folder between machines"):
        executor.find_executor(str(tmp_path))


def started(monkeypatch, tmp_path, elsewhere, body="pass", **options):
    """What the steps of a run are told, where `body` stands in for Snakemake."""
    monkeypatch.setattr(run, "WORKFLOW", ["-c", body])
    profile = PROFILES / "smoke.yaml"
    places = (profile, "", tmp_path / "results", tmp_path / "figures")
    assert run.run(load_experiment(profile), *places, cores=12, elsewhere=elsewhere, **options) == 0
    return json.loads((tmp_path / "results" / "workflow.json").read_text(encoding="utf-8"))


def test_the_machine_that_sends_the_steps_away_changes_no_number(plugin, tmp_path, monkeypatch):
    """Its cores and its GPUs say nothing of the nodes: one thread a training, and a GPU only where one is asked for."""
    monkeypatch.setattr(run, "count_gpus", lambda device: 8)
    told = started(monkeypatch, tmp_path, executor.find_executor(plugin()))
    assert (told["threads"], told["gpus"], told["device"]) == ("1", "0", "cpu")
    told = started(monkeypatch, tmp_path, executor.find_executor(plugin("other")), gpus=4)
    assert (told["threads"], told["gpus"], told["device"]) == ("1", "4", "auto")
    told = started(monkeypatch, tmp_path, None)
    assert (told["threads"], told["gpus"], told["device"]) == ("4", "8", "auto")  # 12 cores, 3 trainings


@pytest.mark.parametrize(
    ("cores", "gpus", "devices", "threads"), [(2, 0, 1, 1), (12, 0, 1, 4), (16, 1, 1, 16), (16, 2, 1, 8), (16, 4, 2, 4)]
)
def test_trainings_that_run_at_a_time_share_the_cores(cores, gpus, devices, threads):
    """Of three trainings: on processors all at once, on GPUs as many as there are GPUs for."""
    smoke = load_experiment(PROFILES / "smoke.yaml")
    training = replace(smoke.training, devices=devices, accumulate=devices)
    assert run.threads_of_a_training(smoke.model_copy(update={"training": training}), cores, gpus) == threads


def test_a_gpu_of_a_cluster_has_to_be_asked_for(plugin, monkeypatch):
    command = ["run.py", "--profile", "smoke", "--device", "cuda", "--executor", plugin()]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit, match="needs GPUS=n, how many trainings may hold a GPU of the cluster"):
        run.main()


def test_jobs_on_a_cluster_are_cancelled_when_the_run_is_interrupted(plugin, tmp_path, monkeypatch):
    """Snakemake cancels its jobs on SIGINT alone; on SIGTERM it waits for them, and would be killed meanwhile."""
    body = f"""
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
try:
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path({str(tmp_path / "cancelled")!r}).touch()
"""

    def interrupted(process, copy, progress):
        process.stderr.readline()
        raise KeyboardInterrupt(signal.SIGTERM)

    monkeypatch.setattr(run, "follow", interrupted)
    with pytest.raises(KeyboardInterrupt):
        started(monkeypatch, tmp_path, executor.find_executor(plugin()), body)
    assert (tmp_path / "cancelled").exists()


def test_the_logs_of_a_step_that_failed_on_a_cluster_are_those_of_step_and_job(tmp_path):
    progress = run.Progress(tmp_path)
    progress.line("Error in rule train:")
    progress.line("    log: log/train.txt, /results/slurm_logs/7.log (check log file(s) for error details)")
    assert progress.failed_logs == ["log/train.txt", "/results/slurm_logs/7.log"]


def test_a_step_does_not_see_that_slurm_runs_it():
    prefix = re.search(r"shell\.prefix\('(.*)'\)", SNAKEFILE)[1].replace("{{", "{").replace("}}", "}")
    hidden = {"SLURM_NTASKS": "4", "SLURM_PROCID": "1", "PMI_RANK": "1", "PMIX_RANK": "1"}
    kept = {"CUDA_VISIBLE_DEVICES": "2", "PYTHONPATH": "/project"}
    command = ["bash", "-c", prefix + "env"]
    for environment in (hidden | kept, kept):
        done = subprocess.run(
            command, env={"PATH": os.environ["PATH"]} | environment, capture_output=True, encoding="utf-8", check=True
        )
        names = {line.partition("=")[0] for line in done.stdout.splitlines()}
        assert names >= set(kept)
        assert names.isdisjoint(hidden)
    failing = subprocess.run([*command[:2], prefix + "false | true"], check=False)
    assert failing.returncode  # Snakemake's strict mode is kept


def test_every_rule_has_a_record_of_what_it_took():
    rules = re.findall(r"^ *rule (\w+):", SNAKEFILE, re.M)
    assert SNAKEFILE.count("benchmark:") == len(rules)  # but for `all`, and with train_variation


def test_what_is_asked_for_is_more_than_was_measured():
    rows = pd.DataFrame({"rule": "x", "seconds": [60.0, 300.0], "mib": [1000.0, 400.0]})
    assert slurm_resources.request(rows, 0) == {"mem_mb": "attempt * 1600", "runtime": "attempt * 20"}
    assert slurm_resources.request(rows[:1], 500) == {"mem_mb": "attempt * 2400", "runtime": "attempt * 10"}


def test_requests_that_were_measured_on_another_profile_are_told(plugin, tmp_path):
    slurm = executor.Executor("slurm", ROOT / "reproduce" / "slurm")
    assert slurm.note("smoke") == ""
    assert re.match(
        r"note: .*config\.yaml\) was measured on profile smoke.*; oaizib may need more", slurm.note("oaizib")
    )
    own = executor.find_executor(plugin())  # a folder of the user, who measured elsewhere
    assert own.note("oaizib") == ""


def test_the_committed_requests_are_those_of_the_measurements():
    text = (ROOT / "reproduce" / "slurm" / "config.yaml").read_text(encoding="utf-8")
    measured = pd.read_csv(ROOT / "reproduce" / "slurm" / "measured.csv")
    assert text == slurm_resources.profile(measured)
    values = yaml.safe_load(text)
    assert values["executor"] == "slurm"
    rules = set(re.findall(r"^ *(?:use )?rule (?:\w+ as )?(\w+)(?::| with:)", SNAKEFILE, re.M))
    assert set(values["set-resources"]) <= rules
    assert rules - set(values["set-resources"]) == {"all", "study", "multi_task"}  # these get default-resources
    assert "smoke" in set(measured["profile"])


def test_records_of_a_run_become_measurements(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_resources, "snakemake", lambda results: {"seconds": 9.0, "mib": 300.0})
    with pytest.raises(ValueError, match=r"has no benchmarks/\*\.tsv; expected the results of a finished"):
        slurm_resources.measure(tmp_path)
    short = ROOT / "reproduce" / "slurm" / "short.yaml"
    (tmp_path / "workflow.json").write_text(json.dumps({"profile": str(short)}))
    (tmp_path / "benchmarks").mkdir()
    for name, seconds, memory in (("train_dpce_seed0", 12, 500), ("train_ce_seed0", 10, 510), ("data", 5, 300)):
        (tmp_path / "benchmarks" / f"{name}.tsv").write_text(f"s\tmax_rss\n{seconds}\t{memory}\n")
    table = slurm_resources.measure(tmp_path).set_index("rule")
    assert table.loc["train", ["profile", "jobs", "seconds", "mib"]].tolist() == ["phantom", 2, 12 * 20, 510]
    assert table.loc["data", "seconds"] == 5
    assert slurm_resources.divided(table.reset_index())[1] == 600  # two Snakemakes


def test_the_measured_profile_is_the_default_but_for_its_steps():
    short = load_experiment(ROOT / "reproduce" / "slurm" / "short.yaml")
    default = load_experiment(PROFILES / "phantom.yaml")
    assert default.training.steps == 20 * short.training.steps
    names = {"name", "description", "study", "training"}
    assert short.model_dump(exclude=names) == default.model_dump(exclude=names)


def test_an_interrupted_command_is_waited_for():
    code = "import time\ntry:\n    print(flush=True)\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    exit(7)"
    process = child.start([sys.executable, "-c", code], stdout=subprocess.PIPE)
    process.stdout.readline()
    child.interrupt(process)
    assert process.returncode == 7
