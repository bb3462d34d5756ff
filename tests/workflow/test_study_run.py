"""The graph of a study, as a user starts it, on the tiny profile: its table, its variations, its page."""

import os
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import yaml
from helpers.project import ROOT

sys.path.insert(0, str(ROOT / "reproduce"))

import run
from executor import Executor, find_executor

from shapeloss._files import write_json
from shapeloss.replication.profile import load_experiment


def dry_run(tmp_path, gpus=0, elsewhere=None):
    """What Snakemake would do, without doing it."""
    places = {name: tmp_path / name for name in ("results", "figures")}
    for place in places.values():
        place.mkdir()
    run.link(places["results"], project=ROOT, data=places["results"] / "data", figures=places["figures"])
    config = {
        "project": ROOT,
        "profile": ROOT / "reproduce/profiles/smoke-study.yaml",
        **places,
        "gpus": gpus,
        "threads": 1,
    }
    config |= {"data": places["results"] / "data", "python": sys.executable, "device": "cpu"}
    write_json(places["results"] / "workflow.json", {key: str(value) for key, value in config.items()})
    arguments = run.snakemake_arguments(places["results"], 2, gpus, elsewhere)
    command = [sys.executable, "-m", "snakemake", *arguments, "--dry-run", "-p"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", cwd=places["results"])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_graph_of_a_study(tmp_path):
    output = dry_run(tmp_path)
    counts = dict(line.split() for line in output.splitlines() if len(line.split()) == 2 and line[0].isalpha())
    wanted = {"train": "6", "train_variation": "5", "study": "1", "multi_task": "1", "evaluate": "1", "report": "1"}
    assert wanted.items() <= counts.items(), output
    commands = [line for line in output.splitlines() if "02_train.ipynb" in line and "-p loss" in line]
    assert len(commands) == 6 + 5
    assert sum("-p variation" in line for line in commands) == 5
    assert sum("-p loss ce -p seed 1 -p variation double" in " ".join(line.split()) for line in commands) == 1


def test_each_training_holds_one_of_the_gpus_and_no_other_step_does(tmp_path):
    asked = [line for line in dry_run(tmp_path, gpus=2).splitlines() if "resources:" in line]
    assert len(asked) > 6 + 5
    assert sum("gpu=1" in line for line in asked) == 6 + 5
    arguments = run.snakemake_arguments(tmp_path, 4, 2)
    assert arguments[arguments.index("--resources") + 1] == "gpu=2"  # of which Snakemake gives away no more


def test_a_dry_run_on_slurm_asks_for_what_was_measured(tmp_path):
    """Part of `make test-cluster`: Snakemake imports each plugin whenever it starts, and this one needs `which`."""
    pytest.importorskip("snakemake_executor_plugin_slurm")
    folder = ROOT / "reproduce" / "slurm"
    asked = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["set-resources"]["train"]
    output = dry_run(tmp_path, gpus=1, elsewhere=Executor("slurm", folder))
    lines = [line for line in output.splitlines() if "resources:" in line and "gpu=1" in line]
    assert len(lines) == 6 + 5
    memory, minutes = (asked[name].removeprefix("attempt * ") for name in ("mem_mb", "runtime"))
    assert all(f"mem_mb={memory}," in line and f"runtime={minutes}" in line for line in lines), lines[0]


def test_the_page_s_example_for_another_batch_system_runs_dry(tmp_path):
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    example = next(text.partition("```")[0] for text in page.split("```yaml\n")[1:] if "executor: " in text)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.yaml").write_text(example, encoding="utf-8")
    elsewhere = find_executor(str(folder))
    assert elsewhere.name == "cluster-generic"
    assert "mem_mb=3000" in dry_run(tmp_path, elsewhere=elsewhere)


@pytest.mark.slow
def test_a_study_trains_its_variations_and_shows_what_they_change(tmp_path):
    results, figures = tmp_path / "results", tmp_path / "figures"
    command = [sys.executable, str(ROOT / "reproduce" / "run.py"), "--profile", "smoke-study", "--cores", "2"]
    places = ["--results", str(results), "--figures", str(figures)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def start():
        done = subprocess.run([*command, *places], env=environment, capture_output=True, encoding="utf-8", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    output = start()
    assert "6 x train, 5 x train_variation" in output
    assert "done: train ce, seed 1 (double)" in output
    trainings = pd.read_csv(figures / "trainings.csv", keep_default_na=False)
    rows = trainings.groupby(["variation", "loss"], sort=False)[["steps", "learning_rate"]].first()
    assert rows.index.tolist() == [
        ("", "ce"),
        ("", "dpce"),
        ("", "mtl"),
        ("noise", "ce"),
        ("double", "ce"),
        ("fast", "ce"),
    ]
    assert rows["steps"].tolist() == [20, 20, 20, 20, 40, 20]
    assert rows["learning_rate"].tolist() == [0.001, 0.001, 0.001, 0.001, 0.001, 0.002]
    varied = pd.read_csv(figures / "per_case_variations.csv")
    assert len(varied) == 5 * 2 * 5  # trainings, test cases, three bones with their mean and all merged
    weights = pd.read_csv(figures / "weights.csv")
    assert weights["loss"].tolist() == ["dpce"]
    heads = pd.read_csv(figures / "heads.csv")
    assert heads.groupby(["loss", "head"]).size().to_dict() == {("mtl", "classes"): 4, ("mtl", "distances"): 4}
    mean = pd.read_csv(figures / "per_case.csv").query("loss == 'mtl' and structure == 'mean'")
    by_classes = heads[heads["head"] == "classes"].set_index(["seed", "case"])["dice"]
    assert by_classes.to_dict() == pytest.approx(mean.set_index(["seed", "case"])["dice"].to_dict())
    compared = pd.read_csv(figures / "multi_task.csv")
    assert compared["loss"].tolist() == ["mtl", "mtl"]
    assert weights["mean"].between(1, 2).all()
    text = (figures / "study.md").read_text(encoding="utf-8")
    assert "3 trainings of `ce` that differ in the seed alone" in text
    report = (figures / "report.html").read_text(encoding="utf-8")
    assert 'id="study"' in report
    assert "The noise of training" in report
    names = [figures / f"{name}.png" for name in ("differences", "budgets", "rates")]
    assert all(path.stat().st_size > 10_000 for path in names)
    seeds = [(results / f"variations/double/ce/seed{seed}" / "weights.safetensors").read_bytes() for seed in (0, 1)]
    assert seeds[0] != seeds[1]
    # a second call has nothing to do
    assert "done:" not in start()


def test_the_time_left_knows_that_variations_take_longer():
    experiment = load_experiment("smoke-study")
    # one of 20 steps, two of 40, two of 20, against 20
    assert run.variation_weight(experiment) == pytest.approx((1 + 2 * 2 + 2 * 1) / 5)
    assert run.variation_weight(load_experiment("smoke")) == 1


def test_more_devices_a_training_than_there_are_is_refused(tmp_path):
    experiment = load_experiment("smoke")
    several = replace(experiment.training, accumulate=2, devices=2)
    places = [tmp_path / name for name in ("profile.yaml", "data", "results", "figures")]
    with pytest.raises(ValueError, match=r"profile.yaml: training.devices is 2, but there are 1 GPUs"):
        run.run(experiment.model_copy(update={"training": several}), places[0], "", *places[2:], cores=1, gpus=1)
    assert not places[2].exists()
