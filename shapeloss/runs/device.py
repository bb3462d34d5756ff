"""On which device a training or a prediction runs, and what is to be said of it.

`auto` is the GPU where there is a CUDA device (ROCm's count as such), else the CPU. Apple's MPS is used only where it
is asked for.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from shapeloss._files import try_locked

MEMORY = ("can't allocate memory", "not enough memory", "bad_alloc")
"""What PyTorch's plain RuntimeError says where a processor's memory ran out."""
SHARES = 16
"""Processes on one GPU that are told apart; more of them take the first GPU."""


def find_device(name: str = "auto") -> torch.device:
    """The device of a name: auto, cpu, cuda, cuda:1, mps.

    Raises:
        ValueError: it is none of these, or there is no such device here.
    """
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (index and not (kind == "cuda" and index.isdigit())):
        raise ValueError(f"device must be auto, cpu, cuda, cuda:<number> or mps, got {name!r}")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name}: torch finds no GPU here; use cpu, or install a torch that has CUDA")
    if index and int(index) >= (count := torch.cuda.device_count()):
        raise ValueError(f"device {name}: there are {count} GPUs here, cuda:0 to cuda:{count - 1}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device mps: torch finds none here; it needs an Apple processor and macOS; use cpu")
    return torch.device(f"{kind}:{index}" if index else kind)


@contextmanager
def shared_device(name: str = "auto") -> Iterator[torch.device]:
    """The device of a name, for as long as the block runs: of several GPUs, the one with the fewest such blocks.

    Processes see each other by locks in the folder for temporary files, which the system drops with the process. A
    device with a number is taken as it is.
    """
    device = find_device(name)
    if device.type != "cuda" or device.index is not None:
        yield device
        return
    for share in range(SHARES):
        for index in range(torch.cuda.device_count()):
            with try_locked(_lock_file(index, share)) as free:
                if free:
                    yield torch.device("cuda", index)
                    return
    yield torch.device("cuda", 0)


def _lock_file(index: int, share: int) -> Path:
    """By the hardware's own number, since CUDA_VISIBLE_DEVICES may call one GPU by two indices."""
    identity = getattr(torch.cuda.get_device_properties(index), "uuid", index)
    user = os.getuid() if hasattr(os, "getuid") else 0  # another user's file could not be opened
    return Path(tempfile.gettempdir()) / f"shapeloss-{user}-gpu-{identity}-{share}.lock"


def be_deterministic(device: torch.device) -> None:
    """Make this process compute the same bits each time, and refuse operators that cannot.

    Raises:
        RuntimeError: CUBLAS_WORKSPACE_CONFIG holds a value with which CUDA's products of matrices vary.
    """
    torch.use_deterministic_algorithms(True, warn_only=False)
    # deterministic mode would fill each new tensor with NaN, to show those that are read before they are written
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 (missing in its stub)
    if device.type != "cuda":
        return
    workspace = os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA's library is first used
    if workspace not in (":4096:8", ":16:8"):
        raise RuntimeError(
            f"CUBLAS_WORKSPACE_CONFIG is {workspace!r}, with which results vary; unset it, or set it to :4096:8"
        )
    torch.backends.cudnn.benchmark = False  # it would choose an algorithm by the weather
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, not TensorFloat-32


def device_record(device: torch.device) -> dict[str, Any]:
    """What a number owes to the device: its name, and the versions of CUDA and cuDNN; on a CPU its threads."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return {
            "processor": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda or torch.version.hip,
            "cudnn": torch.backends.cudnn.version(),
        }
    name = "Apple MPS" if device.type == "mps" else torch.backends.cpu.get_cpu_capability()
    return {"processor": name, "threads": torch.get_num_threads()}


def known_faults(device: torch.device) -> list[str]:
    """Faults of the installed versions that make 3D convolutions on a GPU wrong or slow, each with its remedy."""
    cudnn = torch.backends.cudnn.version() if device.type == "cuda" and not torch.version.hip else None
    if cudnn is None:
        return []
    release = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    versions = f"PyTorch {torch.__version__} with cuDNN {cudnn}"
    if release < (2, 9) and 90800 <= cudnn < 91300:
        return [f"{versions} computes some 3D convolutions in bfloat16 wrongly (pytorch issue 163539): update PyTorch"]
    if release == (2, 9) and cudnn < 91500:
        return [
            f"{versions} computes 3D convolutions slowly and with much memory (pytorch issue 166122): update PyTorch"
        ]
    return []


def out_of_memory(device: torch.device) -> str:
    """What helps a training for which a device is too small: the profile's keys, the gentlest first."""
    other = "give each training a GPU of its own (GPUS=)" if device.type == "cuda" else "run one at a time (CORES=1)"
    return (
        f"there is not enough memory on {device}. In the profile, training.activation_checkpointing: true needs less "
        "for the same numbers; a smaller training.patch_size, network.options.widths or data.spacing (coarser) needs "
        f"less for others. If other trainings run there, {other}"
    )


@contextmanager
def memory_errors() -> Iterator[None]:
    """Memory that ran out is a MemoryError, on a GPU and on a processor, with the first line of what PyTorch said.

    Raises:
        MemoryError: the device's memory ran out.
    """
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one too
        first = str(error).partition("\n")[0]
        if isinstance(error, torch.OutOfMemoryError) or any(text in first for text in MEMORY):
            raise MemoryError(first) from error
        raise


@contextmanager
def explained(device: torch.device) -> Iterator[None]:
    """Errors of a device with what to do about them.

    Raises:
        MemoryError: the device's memory ran out.
        NotImplementedError: MPS lacks an operator, which is named.
    """
    try:
        with memory_errors():
            yield
    except MemoryError as error:
        raise MemoryError(f"{out_of_memory(device)} ({error})") from error
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        if device.type != "mps" or not (isinstance(error, NotImplementedError) or first.startswith("MPS")):
            raise
        raise NotImplementedError(f"device mps lacks an operator of this training; use cpu ({first})") from error
