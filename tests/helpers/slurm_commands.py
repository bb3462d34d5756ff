"""Stand-ins for Slurm's commands, which run jobs and tasks of arrays one after another on this machine: what the plugin
for Snakemake submits is carried out to the letter. A real Slurm is in tests/cluster."""

import sys
from pathlib import Path

SBATCH = """
import os, re, subprocess, sys
from pathlib import Path
state, words = Path(__file__).parent / "state", sys.argv[1:]
wrapped = [word.removeprefix("--wrap=") for word in words if word.startswith("--wrap=")]
job = len(list(state.glob("*.sh"))) + 1
script = state / f"{job}.sh"
script.write_text("#!/bin/sh\\n" + wrapped[0] if wrapped else sys.stdin.read())
(state / f"{job}.words").write_text("\\n".join(words))
array = re.search(r"--array=(\\d+)-(\\d+)", " ".join(words))
tasks = range(int(array[1]), int(array[2]) + 1) if array else [0]
for task in tasks:
    name = f"{job}_{task}" if array else str(job)
    more = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_MIN": array[1]} if array else {}
    with open(state / f"{name}.log", "w") as log:
        done = subprocess.run(["/bin/sh", script], env=os.environ | more, stdout=log, stderr=log)
    (state / f"{name}.state").write_text("FAILED" if done.returncode else "COMPLETED")
print(job)
"""
SQUEUE = """
from pathlib import Path
for path in (Path(__file__).parent / "state").glob("*.state"):
    print(path.stem, path.read_text(), sep="|")
"""
SRUN = """
import os, sys
words = sys.argv[1:]
while words[0].startswith("-"):
    del words[0]
os.execvp("sh", ["sh", "-c", " ".join(words)])
"""
SCONTROL = """
print("MaxArraySize = 1001\\nMinJobAge = 300 sec")
"""


def write_commands(folder: Path) -> Path:
    """Put them into a folder, for the PATH; returns where jobs and their states are kept."""
    (folder / "state").mkdir(parents=True)
    texts = {"sbatch": SBATCH, "squeue": SQUEUE, "srun": SRUN, "scontrol": SCONTROL}
    for name in ("sbatch", "squeue", "srun", "scontrol", "scancel", "sinfo", "sacct", "sacctmgr"):
        path = folder / name
        path.write_text(f"#!{sys.executable}\n{texts.get(name, '')}", encoding="utf-8")
        path.chmod(0o755)
    return folder / "state"
