"""Snakemake, which ends with the run that started it: `workflow.py <Snakemake's arguments>`.

stdin is a pipe of run.py. When run.py ends, however it ends, the pipe closes, and the whole group of processes is
killed: neither Snakemake nor a step goes on unwatched, with the lock. Kernels, which have groups of their own, end
within about a second of their step (ipykernel looks for its parent). Where a cluster runs the steps, Snakemake is first
asked to cancel them there.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import child
from snakemake.cli import main


def end_with_parent() -> None:
    """Wait until run.py is gone; then kill this group."""
    os.read(sys.stdin.fileno(), 1)
    if "--executor" in sys.argv:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # nobody reads it: each line would be an error
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(child.GRACE_ELSEWHERE)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    main(sys.argv[1:])
