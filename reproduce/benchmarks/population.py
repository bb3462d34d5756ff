"""What a population of knees costs, from measured volumes: writes population.json, of which docs/population.md is made.

    python reproduce/benchmarks/population.py

Phantom knees of several sizes go through reproduce/population.py: hundreds of the smallest, which are few subjects
with new noise, for to make distinct ones would take longer than to segment them. The network is that of profile oai, on
whole volumes, after a short training: how long it takes does not depend on how good it is, but how long scores take
does depend on surfaces, so that it must find bones. Times are those of the processor, so that other work on the machine
counts little. The committed file has scores of volumes that were resampled to the training's voxels, and no
predictions: the page takes those of `make bench`. Snakemake's graph, the splitting of the folder and the joining of
scores are measured at their true size, with empty files.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import nnls

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "reproduce"))

import child
from benchmarks.speed import machine

from shapeloss._files import write_json
from shapeloss.data.checksums import read_checked_json, write_checked_json
from shapeloss.data.manifest import prepare
from shapeloss.data.volume import write_nifti
from shapeloss.phantom.contrast import PhantomOptions
from shapeloss.phantom.dataset import write_dataset
from shapeloss.phantom.knee import make_knee
from shapeloss.replication.profile import Experiment, load_experiment
from shapeloss.runs.run import train
from shapeloss.shards.plan import SHARDS, make_plan

KNEES = 46824
"""Of the Osteoarthritis Initiative, with both sides and all visits."""
WHOLE = (160, 384, 384)
SPACING = (0.7, 0.365, 0.365)
RUNS = {
    (16, 32, 32): ((40, 20), (200, 100)), (32, 96, 96): ((6, 6),), (48, 128, 128): ((2, 2),),
}  # fmt: skip
"""Grid → volumes, and volumes a shard, of each run."""
SUBJECTS = 6
SHARD_SIZES = (1000, 100, 10)
CORES = 2
EXAMPLE = 12
"""Volumes whose scores stand for those of each shard where they are joined."""
JOINED = 500
"""Shards of which the scores are joined and read."""
STEPS = ("predict", "score")
KINDS = ("image_bytes", "label_map_bytes", "parquet_bytes", "record_bytes")
NAMES = {"label_map_bytes": "Label map", "parquet_bytes": "Parquet", "record_bytes": "Records"}
UNITS = {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3}
MACHINES = (16, 128, 1024)
"""Cores that the page asks about."""
FILE = Path(__file__).with_suffix(".json")
SEED = 0


def options(shape: tuple[int, ...]) -> PhantomOptions:
    """The whole field of view on another grid."""
    spacing = [mm * whole / voxels for mm, whole, voxels in zip(SPACING, WHOLE, shape, strict=True)]
    return replace(PhantomOptions(), shape=shape, spacing=tuple(spacing))


def windows() -> dict[str, Any]:
    """How many voxels the network sees of a whole knee with the windows of profile oai, which overlap by half."""
    patch = load_experiment("oai").training.patch_size
    assert patch is not None
    numbers = [math.ceil((whole - size) / (size // 2)) + 1 for whole, size in zip(WHOLE, patch, strict=True)]
    return {"patch": patch, "number": math.prod(numbers), "voxels": math.prod(numbers) * math.prod(patch)}


def make_run(folder: Path, steps: int) -> Path:
    """A short training of the network of profile oai."""
    oai = load_experiment("oai")
    grid = options((16, 48, 48))
    values = {
        "name": "population", "description": "for the benchmark",
        "data": {"phantom": {"subjects": 6, "options": {"shape": grid.shape, "spacing": grid.spacing}},
                 "split": {"train": 4, "validation": 1, "test": 1}},
        "losses": ["ce"], "network": {"options": oai.network.options},
        "training": {"steps": steps, "learning_rate": 1e-2, "validate_every": steps},
    }  # fmt: skip
    experiment = Experiment.model_validate(values)
    write_dataset(folder / "data", 6, grid)
    manifest = prepare(experiment.data, folder / "data", folder / "cases.json")
    train(experiment, manifest, "ce", 0, folder / "run", folder / "maps")
    record = read_checked_json(folder / "run" / "run.json")
    del record["trained_on"]  # or images would be resampled to the voxels of the training
    write_checked_json(folder / "run" / "run.json", record)
    return folder / "run"


def make_images(folder: Path, shape: tuple[int, ...], count: int) -> dict[str, float]:
    """Images and truths; returns the bytes of an image and of a truth, on average."""
    rng = np.random.default_rng(SEED)
    knees = [make_knee(subject, options(shape)) for subject in range(min(SUBJECTS, count))]
    for place in ("images", "truth"):
        (folder / place).mkdir(parents=True)
    for number in range(count):
        knee, name = knees[number % len(knees)], f"knee_{number:05}.nii.gz"
        image = 1000 * (knee.image + rng.normal(0, 0.02, shape))
        write_nifti(folder / "images" / name, image.clip(-32000, 32000).astype(np.int16), knee.affine)
        write_nifti(folder / "truth" / name, knee.labels, knee.affine)
    files = {place: [path.stat().st_size for path in (folder / place).iterdir()] for place in ("images", "truth")}
    return {place: sum(sizes) / count for place, sizes in files.items()}


PEAK = """
import atexit, re
from pathlib import Path
status = Path("/proc/self/status")  # resource.getrusage would count what the parent held when it started this
atexit.register(lambda: print("PEAK", re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1] if status.exists() else 0))
"""


def usage(command: list[str], folder: Path) -> dict[str, float]:
    """Seconds, and those of the processor, of a command with what it starts; its own MiB if it prints them by PEAK.

    Raises:
        RuntimeError: it failed.
    """
    started = time.monotonic()
    with open(folder / "output.txt", "w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, env=child.environment(ROOT, folder / ".home"), stdout=output, stderr=output, cwd=ROOT
        )
        _, status, used = os.wait4(process.pid, 0)
    printed = (folder / "output.txt").read_text(encoding="utf-8")
    if status:
        raise RuntimeError(f"{' '.join(command)}\n{printed[-4000:]}")
    found = {"s": round(time.monotonic() - started, 3), "cpu_s": round(used.ru_utime + used.ru_stime, 3)}
    peaks = re.findall(r"^PEAK (\d+)$", printed, re.M)
    return found | ({"mib": round(int(peaks[-1]) / 2**10, 1)} if peaks else {})


def usage_of(code: str, folder: Path) -> dict[str, float]:
    """Of Python code."""
    return usage([sys.executable, "-c", PEAK + code], folder)


def population(run: Path, folder: Path, output: Path, shard_size: int) -> list[str]:
    """The command that is measured."""
    return [
        sys.executable, str(ROOT / "reproduce" / "population.py"), "--run", str(run), "--any-spacing",
        "--images", str(folder / "images"), "--truth", str(folder / "truth"), "--output", str(output),
        "--shard-size", str(shard_size), "--cores", str(CORES),
    ]  # fmt: skip


def measure(run: Path, folder: Path, shape: tuple[int, ...], count: int, shard_size: int) -> dict[str, Any]:
    """One run of the whole graph, and the call after it, which has nothing to do."""
    made = make_images(folder, shape, count)
    output = folder / "output"
    output.mkdir()
    command = population(run, folder, output, shard_size)
    first, second = usage(command, folder), usage(command, folder)
    # a job that finds nothing to do: what it takes beside its volumes
    idle = usage([sys.executable, str(ROOT / "reproduce" / "shard.py"), str(output), "00000"], folder)
    jobs = []
    for place in sorted((output / SHARDS).iterdir()):
        done = json.loads((place / "shard.json").read_text(encoding="utf-8"))
        job = pd.read_csv(output / "benchmarks" / f"{place.name}.tsv", sep="\t").iloc[0]
        jobs.append({
            "volumes": done["volumes"], "mib": float(job["max_rss"]),
            **{step: [round(value, 4) for value in done["cpu_seconds"][step]] for step in STEPS},
            "label_map_bytes": done["label_map_bytes"], "parquet_bytes": done["parquet_bytes"],
            "record_bytes": sum(
                path.stat().st_size for path in place.rglob("*") if path.suffix in (".json", ".jsonl")
            ),
        })  # fmt: skip
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    return {
        "shape": shape, "voxels": int(np.prod(shape)), "volumes": count, "shard_size": shard_size, "cores": CORES,
        "scored": summary["scored"], "graph": first, "second_call": second, "idle_job": idle,
        "image_bytes": made["images"], "truth_bytes": made["truth"], "jobs": jobs,
    }  # fmt: skip


def bookkeeping(run: Path, folder: Path, example: Path, knees: int, sizes: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Splitting, graph and joining of a whole population, at several shard sizes, with empty files.

    `example`: the output of a run, whose largest shard stands for each.
    """
    for place in ("images", "truth"):
        (folder / place).mkdir(parents=True)
        for number in range(knees):
            (folder / place / f"knee_{number:05}.nii.gz").touch()
    shard = max((example / SHARDS).iterdir(), key=lambda place: (place / "journal.jsonl").stat().st_size)
    done = json.loads((shard / "shard.json").read_text(encoding="utf-8")) | {"order": 1}
    scores = pd.read_parquet(example / "scores" / f"{shard.name}.parquet")
    for size in sizes:
        output = folder / f"of_{size}"
        output.mkdir()
        seconds = []
        for _ in range(2):
            started = time.process_time()
            plan = make_plan(run, folder / "images", output, folder / "truth", size)
            seconds.append(round(time.process_time() - started, 3))
        code = f"""
import sys; sys.path.insert(0, {str(ROOT / "reproduce")!r})
from pathlib import Path
import population
from shapeloss.shards.plan import Plan
output = Path({str(output)!r})
population.write_configuration(output, Plan(("",) * {len(plan.shards)}, 0, ()), "cpu", False, 0, 0)
from snakemake.cli import main
main([*population.arguments_for(output, {len(plan.shards)}, 1), "--dry-run", "--quiet"])
"""
        row = {"knees": knees, "shard_size": size, "shards": len(plan.shards), "split_cpu_s": seconds[0]}
        row |= {"split_again_cpu_s": seconds[1], "graph": usage_of(code, folder)}
        if len(plan.shards) > JOINED:
            yield row
            continue
        cases = scores["case"].unique()[:size]
        some = scores[scores["case"].isin(cases)]
        (output / "scores").mkdir()
        for shard_name in plan.shards:
            some.to_parquet(output / "scores" / f"{shard_name}.parquet", index=False)
            done |= {"volumes": len(cases), "scored": len(cases)}
            write_json(output / SHARDS / shard_name / "shard.json", done)
        for name, line in (
            ("join", f"from shapeloss.shards.join import join\njoin(Path({str(output)!r}))"),
            ("read_one_column", f"import pandas\npandas.read_parquet({str(output / 'scores')!r}, columns=['dice'])"),
        ):
            row[name] = usage_of(line, folder)
        shutil.rmtree(output)
        yield row


def seconds_of(rows: list[dict[str, Any]], step: str) -> np.ndarray:
    """Of the processor, of each volume of some runs."""
    return np.array([value for row in rows for job in row["jobs"] for value in job[step]])


def per_volume(found: dict[str, Any], step: str) -> dict[int, np.ndarray]:
    """Voxels of a volume → processor seconds of each that was measured."""
    sizes = dict.fromkeys(row["voxels"] for row in found["runs"])
    return {size: seconds_of([row for row in found["runs"] if row["voxels"] == size], step) for size in sizes}


def per_bytes(found: dict[str, Any], name: str) -> dict[int, float]:
    """Voxels of a volume → bytes of a kind, a volume, of the run with the most volumes of that size."""
    return {
        row["voxels"]: row[name] if name in row else sum(job[name] for job in row["jobs"]) / row["volumes"]
        for row in sorted(found["runs"], key=lambda row: row["volumes"])
    }


def line(values: dict[int, float]) -> tuple[float, float]:
    """(a, b) of a + b · voxels, neither below 0, with the least relative errors; one value a size of volume."""
    voxels, y = np.array(list(values)), np.array(list(values.values()))
    a, b = nnls(np.column_stack([1 / y, voxels / y]), np.ones(len(y)))[0]
    return float(a), float(b)


def at(values: dict[int, float], voxels: int) -> float:
    """The line of some values, at another size."""
    a, b = line(values)
    return a + b * voxels


def extrapolate(samples: dict[int, np.ndarray], voxels: int, draws: int = 2000) -> tuple[float, float, float]:
    """What a volume of so many voxels takes, with its 95 % interval by a bootstrap of the volumes of each size."""
    rng = np.random.default_rng(SEED)
    drawn = [at({size: rng.choice(x, len(x)).mean() for size, x in samples.items()}, voxels) for _ in range(draws)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return at({size: x.mean() for size, x in samples.items()}, voxels), float(low), float(high)


def of_largest(samples: dict[int, np.ndarray]) -> float:
    """What the line of the smaller volumes says of the largest, relative to what was measured."""
    means = {size: float(x.mean()) for size, x in samples.items()}
    largest = max(means)
    return at({size: mean for size, mean in means.items() if size < largest}, largest) / means[largest]


def start_up(found: dict[str, Any]) -> float:
    """Processor seconds of a job that finds nothing to do."""
    return float(np.mean([row["idle_job"]["cpu_s"] for row in found["runs"]]))


def in_bytes(count: float) -> str:
    """Bytes, in a unit that can be read."""
    unit = next((unit for unit, size in UNITS.items() if count >= size), "B")
    return f"{count / UNITS.get(unit, 1):.3g} {unit}"


def grid(shape: list[int]) -> str:
    """`160 × 384 × 384`."""
    return " × ".join(map(str, shape))


def table(head: list[str], rows: list[list[Any]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"|{'|'.join(map(str, cells))}|" for cells in lines)


def page(found: dict[str, Any]) -> dict[str, str]:
    """The generated parts of docs/population.md."""
    parts = {"measured": measured, "estimate": estimate, "shards": shards, "books": books}
    return {f"population_{name}": make(found) for name, make in parts.items()}


def measured(found: dict[str, Any]) -> str:
    """What was measured, a row a run."""
    rows: list[list[Any]] = []
    for run in found["runs"]:
        score = seconds_of([run], "score")
        sizes = [run["image_bytes"], *(sum(job[name] for job in run["jobs"]) / run["volumes"] for name in KINDS[1:])]
        rows.append([
            grid(run["shape"]), run["volumes"], len(run["jobs"]), f"{score.mean():.2g} ± {score.std():.1g}",
            *map(in_bytes, sizes), round(max(job["mib"] for job in run["jobs"])),
        ])  # fmt: skip
    about = found["machine"]
    head = ["Voxels", "Volumes", "Shards", "Score, s", "Image", *NAMES.values(), "Largest job, MiB"]
    return (
        f"{table(head, rows)}\n\nA volume: mean ± SD of the seconds of a core, and bytes on average. "
        f"{about['processor']}, torch {about['torch']}, commit {about['commit']}; {found['minutes']['runs']:.0f} min, "
        f"at whose start {found['load']['runs']:.1f} processes wanted the machine's {CORES} cores."
    )


def prediction() -> float:
    """Core-seconds of the whole knee that `make bench` predicted with the windows of profile oai, on two threads."""
    speed = json.loads((FILE.parent / "speed.json").read_text(encoding="utf-8"))["singles"]
    (alone,) = [row["s"] for row in speed if row["what"].startswith(f"prediction of {'x'.join(map(str, WHOLE))}")]
    return float(2 * alone)


def estimate(found: dict[str, Any]) -> str:
    """What all knees cost, with the model and what speaks against it."""
    knees, whole = found["knees"], math.prod(found["whole"])
    samples = per_volume(found, "score")
    value, low, high = (x * knees / 3600 for x in extrapolate(samples, whole))
    predict = prediction()
    rows = [
        ["predict", f"{predict:.0f} s", f"{predict * knees / 3600:,.0f} core-hours", "one knee measured"],
        ["score", f"{value * 3600 / knees:.0f} s", f"{value:,.0f} core-hours", f"{low:,.0f} to {high:,.0f}"],
    ]
    for name, title in {"image_bytes": "images", **NAMES}.items():
        sizes = per_bytes(found, name)
        size = at(sizes, whole) if name in KINDS[:2] else sizes[min(sizes)]
        rows.append([title.lower(), in_bytes(size), in_bytes(size * knees), ""])
    return (
        f"{table(['', 'A knee', f'{knees:,} knees', '95 % interval'], rows)}\n\n"
        "Predictions: the whole knee of `make bench`, two threads of an idle machine together. Scores, images and "
        "label maps: a + b · voxels. The interval is that of a bootstrap of the volumes of each size; it knows nothing "
        f"of whether a straight line is right. Without the largest volumes the line says {of_largest(samples):.2f} of "
        f"what their scores took, and a whole knee has {whole / max(samples):.0f} times their voxels."
    )


def shards(found: dict[str, Any]) -> str:
    """Time against the number of cores, at several shard sizes."""
    job = start_up(found)
    knee = (prediction() + extrapolate(per_volume(found, "score"), math.prod(found["whole"]))[0]) / 3600
    rows: list[list[Any]] = []
    for size in SHARD_SIZES:
        number = math.ceil(found["knees"] / size)
        hours = knee * size + job / 3600
        days = [math.ceil(number / cores) * hours / 24 for cores in MACHINES]
        rows.append([size, number, f"{hours:.1f}", f"{job * number / 3600:.1f}", *(f"{x:,.1f}" for x in days)])
    head = ["Volumes a shard", "Shards", "Hours a shard", "All start-ups, core-hours"]
    head += [f"Days on {cores:,} cores" for cores in MACHINES]
    return (
        f"{table(head, rows)}\n\nA job takes {job:.1f} s of a core before its first volume, the network not yet "
        "loaded. One core a job, no core idle, and no wait for the scheduler, which was not measured."
    )


def books(found: dict[str, Any]) -> str:
    """What the bookkeeping of all knees takes, at several shard sizes."""
    rows: list[list[Any]] = []
    for book in found["bookkeeping"]:
        cells = [book["shard_size"], book["shards"], f"{book['split_cpu_s']:.1f}", f"{book['split_again_cpu_s']:.1f}"]
        for name in ("graph", "join", "read_one_column"):
            cells += [f"{book[name]['cpu_s']:.1f}", f"{book[name]['mib']:.0f}"] if name in book else ["–", "–"]
        rows.append(cells)
    head = ["Volumes a shard", "Shards", "Split, s", "again, s", "Snakemake's graph, s", "MiB", "Join, s", "MiB"]
    return (
        f"{table([*head, 'Read one metric, s', 'MiB'], rows)}\n\n{found['knees']:,} empty files of images, and as many "
        "of truths; seconds of a core, start of Python included. The graph is a dry run. The "
        f"files of scores that are joined and read have {EXAMPLE} volumes each."
    )


def main() -> None:
    """Measure, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few volumes, to see whether it works; writes nothing")
    parser.add_argument("--part", choices=("runs", "bookkeeping"), help="measure this alone; the other part is kept")
    parser.add_argument("--run", type=Path, help="that training, which make_run made, in place of a new one")
    arguments = parser.parse_args()
    parts = [arguments.part] if arguments.part else ["runs", "bookkeeping"]
    runs = {(16, 32, 32): ((4, 2), (6, 3)), (16, 48, 48): ((2, 1),)} if arguments.quick else RUNS
    knees, sizes = (100, (30, 10)) if arguments.quick else (KNEES, SHARD_SIZES)
    found: dict[str, Any] = {"knees": KNEES, "whole": WHOLE, "windows": windows(), "load": {}, "minutes": {}}
    rows: list[dict[str, Any]] = []

    def keep(part: str, row: dict[str, Any], started: float) -> None:
        """What was measured is kept when the rest is stopped."""
        print({key: value for key, value in row.items() if key != "jobs"}, flush=True)
        rows.append(row)
        before = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {"load": {}, "minutes": {}}
        about = {"load": load, "minutes": (time.monotonic() - started) / 60}
        now = {name: before[name] | {part: round(value, 1)} for name, value in about.items()}
        if not arguments.quick:
            write_json(FILE, before | found | {"machine": machine()} | now | {part: rows})

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run = arguments.run or make_run(folder / "training", 4 if arguments.quick else 20)
        for part in parts:
            load, started = os.getloadavg()[0], time.monotonic()
            rows = []
            if part == "runs":
                for shape, each in runs.items():
                    for count, size in each:
                        place = folder / f"{'x'.join(map(str, shape))}_{count}"
                        keep(part, measure(run, place, shape, count, size), started)
            else:
                example = folder / "example"
                measure(run, example, next(iter(runs)), EXAMPLE, EXAMPLE)
                for row in bookkeeping(run, folder / "whole", example / "output", knees, sizes):
                    keep(part, row, started)


if __name__ == "__main__":
    main()
