"""The losses' maps of the truth, computed once and read from disk where they are used."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shapeloss._closure import code_hash
from shapeloss._files import content_hash
from shapeloss.data.checksums import cached_array
from shapeloss.data.manifest import Case
from shapeloss.runs.provenance import custom_loss_source
from shapeloss.train import TrainingVolume


def cached_map(
    case: Case,
    compute: Callable[[np.ndarray, tuple[float, float, float]], np.ndarray],
    spec: Mapping[str, Any],
    cache: Path,
) -> np.ndarray:
    """A loss's map of one truth, float32 (X, Y, Z) or (K, X, Y, Z): computed once, then read from `cache`.

    The file's name holds a hash of the labels, the spacing, the map's options and the code that computes it.
    """
    key = content_hash(
        np.ascontiguousarray(case.labels).tobytes(),
        json.dumps([case.labels.shape, case.spacing, dict(spec)], sort_keys=True),
        code_hash("shapeloss.losses"),
    )
    return cached_array(
        cache / f"{case.name}-{key}.npy", lambda: np.asarray(compute(case.labels, case.spacing), dtype=np.float32)
    )


def truth_map(loss: nn.Module, case: Case, cache: Path) -> Tensor | None:
    """The map a loss needs of one truth, as (C, X, Y, Z), or None."""
    spec: Any = getattr(loss, "map_spec", None)
    compute: Any = getattr(loss, "compute_map", None)
    if spec is None:
        return None
    values = mapped(cached_map(case, compute, {**spec, **custom_loss_source(loss)}, cache))
    return values if values.ndim == 4 else values[None]


def training_volume(case: Case, label_map: Tensor | None = None) -> TrainingVolume:
    """A case as the training loop takes it; its arrays stay in their files."""
    return TrainingVolume(mapped(case.image), mapped(case.labels), case.spacing, label_map, case.name)


def mapped(array: np.ndarray) -> Tensor:
    """A tensor on an array that is read from disk where it is used; nothing writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
