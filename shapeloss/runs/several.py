"""One training on several devices of one machine: processes that form a group of `torch.distributed`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessException, spawn

from shapeloss.train import in_group

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others, which may be reading data or validating, before it gives up."""


def run_together(
    function: Callable[..., object],
    arguments: tuple[Any, ...],
    count: int,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Call a function with the same arguments in several processes that form a group, and wait for all of them.

    Args:
        function: of a module, so that other processes find it.
        arguments: what can be pickled.
        count: how many processes.
        meanwhile: called several times a second.

    Raises:
        RuntimeError: one of them failed or was killed; the others are ended too. Says which, and its last words.
    """
    with TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        context: Any = spawn(_member, (function, arguments, count, store), nprocs=count, join=False)
        try:
            while not context.join(timeout=0.3):
                meanwhile()
        except ProcessException as error:
            words = str(error).strip().splitlines()[-1]
            raise RuntimeError(f"process {error.error_index + 1} of {count} ended: {words}") from error
    meanwhile()


def _member(rank: int, function: Callable[..., object], arguments: tuple[Any, ...], count: int, store: str) -> None:
    """What each process does."""
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all are on this machine, whatever its name resolves to
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, store=dist.FileStore(store, count), rank=rank, world_size=count, timeout=PATIENCE)
    function(*arguments)
    dist.destroy_process_group()


def leads() -> bool:
    """Whether this process is the one that writes: the first of its group, or the only one."""
    return not in_group() or dist.get_rank() == 0
