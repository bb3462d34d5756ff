"""Where the steps run: on this machine, or by one of Snakemake's executor plugins, on a cluster (docs/cluster.md)."""

from __future__ import annotations

import csv
import shutil
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {"slurm": ("sbatch", "a login node of the cluster, with Slurm's commands on the PATH")}
"""Executor → the command that it cannot do without, and where that is."""


@dataclass(frozen=True)
class Executor:
    """A plugin, and the Snakemake workflow profile that says what each rule needs."""

    name: str
    folder: Path

    def arguments(self) -> list[str]:
        """For Snakemake, in place of a number of cores."""
        return ["--executor", self.name, "--profile", "none", "--workflow-profile", str(self.folder)]

    def note(self, profile: str) -> str:
        """What is to be said of its requests for the steps of a profile that they were not measured on; else empty."""
        measured = self.folder / "measured.csv"
        if not measured.is_file():
            return ""
        with measured.open(encoding="utf-8", newline="") as file:
            known = dict.fromkeys(row["profile"] for row in csv.DictReader(file))
        if profile in known:
            return ""
        return (
            f"note: what the steps ask for ({self.folder / 'config.yaml'}) was measured on profile {', '.join(known)}; "
            f"{profile} may need more memory and time: docs/cluster.md, What the steps ask for"
        )


def find_executor(text: str) -> Executor | None:
    """What EXECUTOR says: None for `local`, else a folder below reproduce/ by name, or any folder by its path.

    Raises:
        ValueError: no such folder, or its config.yaml names no executor; a plugin or a command is not installed, or the
            plugin does without a shared folder.
    """
    if text in ("", "local"):
        return None
    folder = (Path(text).expanduser() if "/" in text else ROOT / "reproduce" / text).resolve()
    file = folder / "config.yaml"
    if not file.is_file():
        known = sorted(path.parent.name for path in (ROOT / "reproduce").glob("*/config.yaml"))
        raise ValueError(
            f"EXECUTOR={text}: there is no {file}; expected local, {', '.join(known)}, or the path (with a /) of "
            "a folder with a Snakemake profile, as reproduce/slurm is one"
        )
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file}: is not valid YAML: {error}") from error
    name = values.get("executor") if isinstance(values, dict) else None
    if not isinstance(name, str):
        raise ValueError(f"{file}: names no executor; expected a line such as executor: slurm")
    module = f"snakemake_executor_plugin_{name.replace('-', '_')}"
    if find_spec(module) is None:
        extra = "'.[cluster]'" if name == "slurm" else f"snakemake-executor-plugin-{name}"
        raise ValueError(
            f"EXECUTOR={text} needs Snakemake's plugin for {name}, which this environment lacks; install it: "
            f".venv/bin/python -m pip install -c constraints.txt {extra}"
        )
    command, place = COMMANDS.get(name, ("", ""))
    if command and shutil.which(command) is None:
        raise ValueError(f"EXECUTOR={text}: there is no command {command} here; run make on {place}")
    if import_module(module).common_settings.implies_no_shared_fs:
        raise ValueError(
            f"EXECUTOR={text}: Snakemake's plugin for {name} shares no folder between machines, and the steps need "
            "one, for checkpoints, maps and predictions; docs/cluster.md says what to do instead"
        )
    return Executor(name, folder)
