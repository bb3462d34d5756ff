"""Predict and score a folder of any number of volumes, as one job a shard (docs/population.md).

Killed at any moment, the same command goes on where it was; where all is done, it does nothing. A volume that fails is
put into quarantine with the reason, and tried again by later calls. Ends with 3 if any is in quarantine.
"""

from __future__ import annotations

import system_check  # noqa: F401 (before what Windows lacks)

# isort: split
import argparse
import re
import signal
import sys
import time
from pathlib import Path

import yaml
from executor import Executor, find_executor
from run import STOPPING, Progress, bring_back, link, snakemake, snakemake_arguments, stop

from shapeloss._files import locked, os_error_message, remove_partial_files, write_json, write_text
from shapeloss.metrics import METRICS
from shapeloss.shards.join import QUARANTINE, SUMMARY, join
from shapeloss.shards.plan import Options, Plan, make_plan
from shapeloss.shards.work import SCORES, import_arrow

ROOT = Path(__file__).resolve().parents[1]
GRAPH = "population.smk"
IN_QUARANTINE = 3
"""Exit status where all shards are done, and some volumes are in quarantine."""
ARRAY_TASKS = 25
"""Shards in one array: the plugin puts the commands of all into one argument, of which Linux takes 128 KiB."""
ARRAY_LIMIT = 1000
"""Shards in arrays: the plugin counts on from array to array, and Slurm's own default of MaxArraySize is 1001."""


def arguments_for(output: Path, pending: int, cores: int, elsewhere: Executor | None = None) -> list[str]:
    """How Snakemake is called, for so many shards. On Slurm they are array jobs, where they are not too many for that.

    The plugin waits for the rest of an array, in vain, where Snakemake hands it fewer jobs than are ready: so there is
    room for all shards at a time, and how many run is the cluster's to say.
    """
    arrays = elsewhere and takes_arrays(elsewhere, pending, output)
    arguments = snakemake_arguments(output, cores, 0, with_arrays(elsewhere, output) if arrays else elsewhere, GRAPH)
    if arrays:
        arguments += ["--jobs", str(pending + 1), "--slurm-array-jobs", "shard"]
        arguments += ["--slurm-array-limit", str(ARRAY_TASKS)]
    return [*arguments, "--keep-going"]


def takes_arrays(elsewhere: Executor, pending: int, output: Path) -> bool:
    """Whether shards can be array jobs, whose commands the plugin quotes for a shell by itself, and not well."""
    plain = all(re.fullmatch(r"[\w./ +,:@=-]+", str(path)) for path in (output, ROOT, sys.executable))
    return elsewhere.name == "slurm" and pending <= ARRAY_LIMIT and plain


def with_arrays(elsewhere: Executor, output: Path) -> Executor:
    """The executor's folder with commands passed as arguments.

    As scripts (`slurm-pass-command-as-script`), which the folder may ask for, the plugin (2.8) would let every task of
    an array do the work of the first.
    """
    values = yaml.safe_load((elsewhere.folder / "config.yaml").read_text(encoding="utf-8"))
    values.pop("slurm-pass-command-as-script", None)
    folder = output / "executor"
    write_text(folder / "config.yaml", yaml.safe_dump(values, sort_keys=False))
    return Executor(elsewhere.name, folder)


def write_configuration(output: Path, plan: Plan, device: str, gpu: bool, memory_mb: int, minutes: int) -> None:
    """What population.smk is told."""
    config: dict[str, object] = {"project": ROOT, "python": sys.executable, "output": output, "device": device}
    config |= {"shards": len(plan.shards), "gpu": int(gpu), "memory_mb": memory_mb or "", "minutes": minutes or ""}
    write_json(output / "workflow.json", {key: str(value) for key, value in config.items()})
    link(output, project=ROOT)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a finished training")
    parser.add_argument("--images", type=Path, required=True, help="folder of NIfTI, NRRD or MetaImage files")
    parser.add_argument("--truth", type=Path, help="folder of label maps by the same names, to score against")
    parser.add_argument("--output", type=Path, required=True, help="folder of this population alone")
    parser.add_argument("--shard-size", type=int, default=100, help="volumes a job")
    parser.add_argument("--attempts", type=int, default=3, help="how often a volume is tried")
    parser.add_argument("--retry-all", action="store_true", help="try every volume in quarantine again")
    parser.add_argument("--side", default="", help="left or right, of all knees, where the run mirrors them")
    parser.add_argument("--any-spacing", action="store_true", help="voxels of any size")
    parser.add_argument("--plane", default="auto", help="of the slices: auto, sagittal, coronal, axial")
    parser.add_argument("--metric", action="append", help="repeatable; default: all")
    parser.add_argument("--edge", default="open", help="is the edge of the field of view a boundary? open or closed")
    parser.add_argument("--cores", type=int, default=1, help="shards at a time on this machine")
    parser.add_argument("--executor", default="local", help="local, slurm, or a folder with a Snakemake profile")
    parser.add_argument("--device", default="cpu", help="of the predictions: cpu, or cuda with one GPU a job")
    parser.add_argument("--memory-mb", type=int, default=0, help="that a job asks for; more at each new attempt")
    parser.add_argument("--minutes", type=int, default=0, help="the same")
    return parser.parse_args()


def run(arguments: argparse.Namespace) -> int:
    """Bring a population up to date; returns the exit status.

    Raises:
        ValueError, FileNotFoundError, ModuleNotFoundError: an argument that cannot be used, or a library is missing.
    """
    elsewhere = find_executor(arguments.executor)
    options = Options(
        arguments.side, arguments.any_spacing, arguments.plane, tuple(arguments.metric or METRICS), arguments.edge
    )
    if arguments.truth:
        import_arrow()
    output: Path = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    with locked(output / ".lock", f"another call works in {output}; waiting until it ends") as lock:
        remove_partial_files(output, depth=2)
        bring_back(output / "shards")  # not the predictions: there may be tens of thousands
        plan = make_plan(
            arguments.run, arguments.images, output, arguments.truth, arguments.shard_size, options,
            arguments.attempts, arguments.retry_all,
        )  # fmt: skip
        print("\n".join(plan.notes), end="\n" * bool(plan.notes))
        print(
            f"{plan.volumes} volumes in {len(plan.shards)} shards; {len(plan.pending)} have something to do", flush=True
        )
        status = 0
        if plan.pending:
            gpu = arguments.device.startswith("cuda")
            write_configuration(output, plan, arguments.device, gpu, arguments.memory_mb, arguments.minutes)
            command = arguments_for(output, len(plan.pending), arguments.cores, elsewhere)
            status = snakemake(command, output, lock, Progress(output), elsewhere)
        joined = join(output)
    print(joined.to_text())
    tables = [QUARANTINE, SUMMARY, *([f"{SCORES}/ (Parquet)"] if joined.scored else [])]
    print(f"Written: {', '.join(str(output / name) for name in tables)}")
    return status or (IN_QUARANTINE if joined.quarantined or joined.files else 0)


def main() -> None:
    """Run, and end with one message where the user can mend something."""
    arguments = parse()
    started = time.monotonic()
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, stop)
    try:
        status = run(arguments)
    except KeyboardInterrupt as interrupt:
        print("\nInterrupted. The same command goes on from the last volume.", file=sys.stderr)
        sys.exit(128 + (interrupt.args or (signal.SIGINT,))[0])
    except OSError as error:
        sys.exit(f"error: {error if error.errno is None else os_error_message(error, arguments.output)}")
    except (ValueError, ModuleNotFoundError) as error:
        sys.exit(f"error: {error}")
    print(
        f"Up to date after {(time.monotonic() - started) / 60:.1f} min" if not status else "Not all is well: see above"
    )
    sys.exit(status)


if __name__ == "__main__":
    main()
