"""Choosing a device, sharing GPUs, deterministic mode: with a made-up CUDA where there is none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from shapeloss.runs import device as devices
from shapeloss.runs.device import (
    be_deterministic,
    device_record,
    explained,
    find_device,
    known_faults,
    shared_device,
)
from shapeloss.runs.run import train

CUDA = torch.device("cuda", 0)


@pytest.fixture
def two_gpus(monkeypatch, tmp_path):
    """A machine with two GPUs, as far as choosing one goes."""
    properties = [SimpleNamespace(uuid=f"gpu-{i}", name="NVIDIA Test", total_memory=80 * 2**30) for i in range(2)]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda i: properties[getattr(i, "index", i) or 0])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def settings():
    """PyTorch's settings, put back."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True


def test_auto_is_cuda_or_else_the_processor_and_never_mps(monkeypatch):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert find_device("auto") == find_device() == torch.device("cpu")
    assert find_device("mps") == torch.device("mps")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert find_device("auto") == find_device("cuda") == torch.device("cuda")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "device must be auto, cpu, cuda, cuda:<number> or mps, got 'gpu'"),
        ("cpu:0", "got 'cpu:0'"),
        ("cuda:first", "got 'cuda:first'"),
        ("cuda", "finds no GPU here"),
        ("cuda:0", "finds no GPU here"),
        ("mps", "needs an Apple processor"),
    ],
)
def test_a_device_that_is_not_there(monkeypatch, name, message):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(ValueError, match=re.escape(message)):
        find_device(name)


def test_a_gpu_beyond_the_last(two_gpus):
    assert find_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ValueError, match="there are 2 GPUs here, cuda:0 to cuda:1"):
        find_device("cuda:2")


def test_trainings_spread_over_the_gpus(two_gpus):
    """One each as long as there are free ones; then two each; and a device with a number is taken as it is."""
    with shared_device() as first, shared_device("cuda") as second, shared_device() as third, shared_device() as fourth:
        assert [place.index for place in (first, second, third, fourth)] == [0, 1, 0, 1]
        with shared_device("cuda:1") as named:
            assert named.index == 1
    with shared_device() as again:
        assert again.index == 0  # the locks went with their blocks
    with shared_device("cpu") as place:
        assert place == torch.device("cpu")


def test_a_gpu_held_by_another_process_is_passed_over(two_gpus, tmp_path):
    code = """
import sys
from pathlib import Path
from shapeloss._files import try_locked
with try_locked(Path(sys.argv[1])) as free:
    print(free, flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, devices._lock_file(0, 0)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout.readline() == "True\n"
        with shared_device() as place:
            assert place.index == 1
        other.kill()
    with shared_device() as place:
        assert place.index == 0  # killed, it holds nothing


def test_deterministic_mode_on_a_gpu(monkeypatch, settings):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    be_deterministic(torch.device("cpu"))
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory
    torch.backends.cudnn.benchmark = True
    be_deterministic(CUDA)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.allow_tf32
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    with pytest.raises(RuntimeError, match="CUBLAS_WORKSPACE_CONFIG is ':0:0'"):
        be_deterministic(CUDA)


def test_the_record_of_a_device(two_gpus, monkeypatch):
    monkeypatch.setattr("torch.backends.cudnn.version", lambda: 91501)
    record = device_record(CUDA)
    assert record == {
        "processor": "NVIDIA Test", "memory_gib": 80.0, "cuda": torch.version.cuda or torch.version.hip, "cudnn": 91501
    }  # fmt: skip
    assert device_record(torch.device("cpu"))["threads"] == torch.get_num_threads()


@pytest.mark.parametrize(
    ("release", "cudnn", "fault"),
    [
        ("2.9.1+cu128", 91002, "slowly"),
        ("2.9.0", 91501, ""),
        ("2.8.0", 91002, "wrongly"),
        ("2.8.0", 90701, ""),
        ("2.13.0", 91002, ""),
    ],
)
def test_known_faults_of_versions(monkeypatch, release, cudnn, fault):
    monkeypatch.setattr("torch.__version__", release)
    monkeypatch.setattr("torch.version.hip", None)
    monkeypatch.setattr("torch.backends.cudnn.version", lambda: cudnn)
    lines = known_faults(CUDA)
    assert len(lines) == bool(fault)
    assert fault in "".join(lines)
    assert known_faults(torch.device("cpu")) == []


def test_a_device_that_is_too_small_names_the_keys_that_help(monkeypatch, tiny_experiment, tiny_manifest, tmp_path):
    def fail(*arguments, **more):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore lines")

    monkeypatch.setattr("shapeloss.runs.run.fit", fail)
    with pytest.raises(
        MemoryError, match=r"training\.activation_checkpointing: true.*Tried to allocate 2\.00 GiB\.\)$"
    ):
        train(tiny_experiment, tiny_manifest, "ce", 0, tmp_path, tmp_path / "maps")
    assert "GPUS=" in devices.out_of_memory(CUDA)
    keys = re.findall(r"(?:training|network|data)\.[\w.]+\w", devices.out_of_memory(CUDA))
    values = tiny_experiment.model_dump()
    for key in keys:  # they are keys of a profile
        section = values
        for part in key.split("."):
            assert part in section, key
            section = section[part]
    assert len(keys) == 4


PLAIN = [  # what PyTorch 2.13 and older versions say of a processor's memory, and C++
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9",
    "[enforce fail at alloc_cpu.cpp:117] data. DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
    "std::bad_alloc",
]


@pytest.mark.parametrize("text", PLAIN)
def test_a_processor_without_memory_is_explained_too(text):
    """There PyTorch raises no OutOfMemoryError."""
    with pytest.raises(MemoryError, match="not enough memory on cpu") as caught, explained(torch.device("cpu")):
        raise RuntimeError(f"{text}\nMore lines")
    assert "run one at a time" in str(caught.value)
    assert str(caught.value).endswith(f"({text})")


def test_a_processor_that_truly_has_no_memory_is_explained():
    with pytest.raises(MemoryError, match="not enough memory on cpu"), explained(torch.device("cpu")):
        torch.empty(2**62, dtype=torch.uint8)


def test_other_errors_of_torch_stay_what_they_are():
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), explained(torch.device("cpu")):
        raise RuntimeError("shapes differ")


@pytest.mark.parametrize(
    ("device", "error", "expected"),
    [
        ("mps", RuntimeError("MPS: Unsupported Border padding mode"), NotImplementedError),
        ("mps", RuntimeError("shapes differ"), RuntimeError),
        ("cpu", RuntimeError("MPS: Unsupported Border padding mode"), RuntimeError),
    ],
)
def test_what_mps_cannot_do_comes_as_either_error(device, error, expected):
    with pytest.raises(RuntimeError) as found, explained(torch.device(device)):
        raise error
    assert type(found.value) is expected


def test_an_operator_that_mps_lacks_is_named():
    lacking = NotImplementedError(
        "The operator 'aten::grid_sampler_3d' is not currently implemented for the MPS device."
    )
    with pytest.raises(NotImplementedError, match=r"use cpu .*aten::grid_sampler_3d"), explained(torch.device("mps")):
        raise lacking
    with pytest.raises(NotImplementedError, match=r"^elsewhere$"), explained(torch.device("cpu")):
        raise NotImplementedError("elsewhere")


def test_the_run_says_where_it_was_computed(tiny_experiment, tiny_manifest, tmp_path):
    from shapeloss.data.checksums import read_checked_json

    train(tiny_experiment, tiny_manifest, "ce", 0, tmp_path, tmp_path / "maps", device="cpu", threads=1)
    run = read_checked_json(tmp_path / "run.json")
    assert run["processor"] == torch.backends.cpu.get_cpu_capability()
    assert run["threads"] == 1
