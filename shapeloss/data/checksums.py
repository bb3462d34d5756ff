"""Checksums: what is read is what was written, or the file is named as damaged.

A cached array ends in the CRC-32 of all bytes before it (readers of `.npy` pass over what follows the array). A
checkpoint holds that of its tensors and metadata in its header, JSON that of its values under `checksum`. CRC-32 sees
each single changed bit, and all but one in 4 billion other changes; it guards against chance, not against intent.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from shapeloss._files import FULL, atomic, write_json

KEY = "checksum"
_BYTES = 4
_CHUNK = 1 << 20


class DamagedError(ValueError):
    """A file whose content is not what was written; the message names the file and what is wrong, without a remedy."""


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array as `.npy`, with a checksum at its end."""
    array = np.ascontiguousarray(array)
    with atomic(path) as temporary, open(temporary, "w+b") as handle:
        # np.save itself would not say that the disk is full
        np.lib.format.write_array_header_1_0(handle, np.lib.format.header_data_from_array_1_0(array))
        handle.write(array.data)
        handle.write(_file_sum(handle, handle.tell()))


def load_array(path: Path) -> np.ndarray:
    """Compare the checksum of what :func:`save_array` wrote, then map it: it is read where it is used.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: the checksum differs, or there is none.
    """
    with open(path, "rb") as handle:
        expected = _file_sum(handle, max(0, os.path.getsize(path) - _BYTES))
        if handle.read() != expected:
            raise DamagedError(f"{path}: is damaged: its checksum differs")
    return np.load(path, "r", allow_pickle=False)


def cached_array(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """A mapped array: read from `path`, or made and written there where it is missing or damaged, which is said."""
    return cached_arrays({"array": path}, lambda: {"array": make()})["array"]


def cached_arrays(paths: Mapping[str, Path], make: Callable[[], Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Mapped arrays that are made together: each read from its path, or all made and written where one is not sound."""
    try:
        return {name: load_array(path) for name, path in paths.items()}
    except FileNotFoundError:
        pass
    except DamagedError as error:
        print(f"{error}; it is made again", flush=True)
    made = make()
    for name, path in paths.items():
        save_array(path, made[name])
    return {name: load_array(path) for name, path in paths.items()}


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors with metadata, to which a checksum of everything is added.

    Raises:
        OSError: the disk is full; names `path`, which safetensors does not.
    """
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with atomic(path) as temporary:
        try:
            save_file(contiguous, temporary, {**metadata, KEY: _tensor_sum(contiguous, metadata)})
        except SafetensorError as error:
            for number in FULL:
                if f"(os error {number})" in str(error):
                    raise OSError(number, os.strerror(number), str(path)) from error
            raise


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata that :func:`save_tensors` wrote; those of a file without any metadata (an older version's
    weights) as they are.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: the file cannot be parsed, or its checksum differs.
    """
    try:
        with safe_open(path, "pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise DamagedError(f"{path}: is damaged: {str(error).splitlines()[0][:120]}") from error
    if metadata and metadata.pop(KEY, "") != _tensor_sum(tensors, metadata):
        raise DamagedError(f"{path}: is damaged: its checksum differs")
    return tensors, metadata


def write_checked_json(path: str | Path, values: Mapping[str, Any]) -> None:
    """Write JSON as :func:`shapeloss._files.write_json` does, with a checksum of its values."""
    write_json(path, {**values, KEY: _json_sum(json.loads(json.dumps(values)))})


def read_checked_json(path: str | Path) -> dict[str, Any]:
    """The values that :func:`write_checked_json` wrote; values without a checksum (an older version's) as they are.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: it is not JSON, no object, or its checksum differs.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path}: is damaged: it is not valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise DamagedError(f"{path}: is damaged: it holds no keys and values")
    if KEY in values and values.pop(KEY) != _json_sum(values):
        raise DamagedError(f"{path}: is damaged, or was edited: its checksum differs")
    return values


def _file_sum(handle: BinaryIO, size: int) -> bytes:
    """CRC-32 of the first bytes of a file; the handle ends behind them."""
    crc = 0
    handle.seek(0)
    while size and (chunk := handle.read(min(size, _CHUNK))):
        crc, size = zlib.crc32(chunk, crc), size - len(chunk)
    return crc.to_bytes(_BYTES, "little")


def _tensor_sum(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    names = sorted(tensors)
    described = [[name, str(tensors[name].dtype), list(tensors[name].shape)] for name in names]
    crc = zlib.crc32(json.dumps([dict(metadata), described], sort_keys=True).encode())
    for name in names:
        crc = zlib.crc32(tensors[name].detach().cpu().reshape(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"


def _json_sum(values: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(values, sort_keys=True).encode()):08x}"
