"""The processes that a run starts: their environment, and their end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

DROPPED = (
    *("PYTHON*", "PIP_*", "JUPYTER*", "JPY_*", "IPYTHON*", "PAPERMILL*", "PYDEVD*", "SNAKEMAKE*"),
    *(
        "XDG_CONFIG*",
        "XDG_DATA*",
        "XDG_CACHE*",
        "MPL*",
        "MATPLOTLIB*",
        "PYVISTA*",
        "VTK_*",
        "DISPLAY",
        "WAYLAND_DISPLAY",
    ),
    *("BASH_*", "BASHOPTS", "SHELLOPTS", "ENV", "CDPATH", "MAKE*", "MFLAGS"),
    # which kernels a library takes, and with them the last bits of numbers
    *("OPENBLAS_*", "BLIS_*", "MKL_*", "DNNL_*", "ONEDNN_*", "OMP_*", "GOMP_*", "KMP_*", "ATEN_*", "NPY_*", "CUBLAS_*"),
    # what a library would take for a cluster whose processes train together: here each training is one process
    *("SLURM_*", "LSB_*", "OMPI_*", "PMI_*", "LT_*", "PL_*", "TORCHELASTIC_*", "MASTER_*", "WORLD_SIZE", "*RANK"),
)
"""Variables that would lead a step to other code, settings, kernels or processes. Paths, GPUs, proxies stay."""
KEPT = ("SLURM_CONF",)
"""What stays all the same: where sbatch finds its cluster."""
MEMORY_KEPT = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
"""Freed memory is kept for the next array: Linux fills new pages with zeros, 7 % of a training step."""
GRACE = 10.0
"""Seconds between the request to end and the kill."""
GRACE_ELSEWHERE = 60.0
"""The same where the steps run on a cluster, which has to be asked to cancel them."""


def environment(project: Path, folder: Path) -> dict[str, str]:
    """The variables of the steps: this process's without those that would change what the steps do.

    Args:
        project: whose code the steps import.
        folder: where libraries keep settings and caches, in place of the user's home, which may be read-only.
    """
    kept = {
        key: value for key, value in os.environ.items()
        if key in KEPT or not any(fnmatchcase(key, name) for name in DROPPED)
    }  # fmt: skip
    # one thread: steps share the machine, and numbers do not depend on how many cores it has
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    folders = ("MPLCONFIGDIR", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    own = {name: str(folder / name.lower()) for name in (*folders, "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    python = {"PYTHONPATH": str(project), "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1", "PYTHONHASHSEED": "0"}
    kernels = {"JUPYTER_PREFER_ENV_PATH": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}  # those of this Python
    return kept | threads | MEMORY_KEPT | own | python | kernels


def start(command: list[str], **options: Any) -> subprocess.Popen[str]:
    """Start a command in a group of processes of its own, with a pipe as stdin that closes when this process ends."""
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", errors="replace",
        start_new_session=True, **options,
    )  # fmt: skip


def interrupt(process: subprocess.Popen[str], grace: float = GRACE_ELSEWHERE) -> None:
    """Ask a command alone to stop what it has started on other machines, and wait until it ends."""
    with suppress(subprocess.TimeoutExpired):
        process.send_signal(signal.SIGINT)
        process.wait(grace)


def end(process: subprocess.Popen[str], grace: float = GRACE) -> None:
    """End a command and what it started: ask the group to end, wait, and kill what is left of it."""
    deadline = time.monotonic() + grace
    with suppress(ProcessLookupError, PermissionError):  # the group is empty (macOS: holds only dead processes)
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
