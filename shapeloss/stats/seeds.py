"""How much of a score's variance is the cases', and how much the luck of a training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

_KEYS = ["loss", "seed", "case"]


@dataclass(frozen=True)
class VarianceParts:
    """Variances of one score, each in the square of its unit; a negative estimate is 0."""

    case: float
    """Some cases are harder for all methods."""
    method_case: float
    """Some cases are harder for one method than for another."""
    training: float
    """One training of a method is better than another on all cases (method × seed)."""
    residual: float
    """One training does better on one case: training × case, and all else."""
    n: int
    seeds: int
    methods: int


def variance_parts(per_case: pd.DataFrame, metric: str) -> VarianceParts | str:
    """Variance components of a balanced design by analysis of variance.

    The model is score = method (fixed) + case + method × case + training within method + residual, the last four random
    and independent; each mean square is set equal to its expectation (Searle, Casella & McCulloch 1992, chapter 4).
    A seed of one method has nothing to do with the same seed of another.

    Args:
        per_case: columns `case`, `loss`, `seed` and the metric, one row each.
        metric: a score column.

    Returns:
        The parts, over the cases that have a score in every training; or in words why there are none.
    """
    if "seed" not in per_case.columns:
        return "each method was trained once"
    scores = per_case.set_index(_KEYS)[metric].astype(float).replace([np.inf, -np.inf], np.nan)
    wide = scores.unstack("case").dropna(axis=1)  # trainings × cases
    trainings = wide.groupby(level="loss", sort=False).size()
    k, r, n = len(trainings), int(trainings.iloc[0]), wide.shape[1]
    if trainings.nunique() > 1 or r < 2:
        return f"the methods were trained {', '.join(map(str, trainings))} times; give each the same number, 2 or more"
    if k < 2 or n < 2:
        return f"{n} case(s) of {k} method(s) have a score in every training; 2 of each are needed"
    y = np.stack([rows.to_numpy() for _, rows in wide.groupby(level="loss", sort=False)])  # (k, r, n)
    cell, by_training, by_case = y.mean(axis=1), y.mean(axis=2), y.mean(axis=(0, 1))
    by_method = y.mean(axis=(1, 2))
    mean = y.mean()
    ms_case = k * r * ((by_case - mean) ** 2).sum() / (n - 1)
    ms_method_case = r * ((cell - by_method[:, None] - by_case + mean) ** 2).sum() / ((k - 1) * (n - 1))
    ms_training = n * ((by_training - by_method[:, None]) ** 2).sum() / (k * (r - 1))
    rest = y - cell[:, None, :] - by_training[:, :, None] + by_method[:, None, None]
    ms_rest = (rest**2).sum() / (k * (r - 1) * (n - 1))
    return VarianceParts(
        case=max(0.0, float(ms_case - ms_method_case) / (k * r)),
        method_case=max(0.0, float(ms_method_case - ms_rest) / r),
        training=max(0.0, float(ms_training - ms_rest) / n),
        residual=float(ms_rest), n=n, seeds=r, methods=k,
    )  # fmt: skip


def training_noise(first: float, second: float) -> float:
    """What two trainings of one method differ by, as root mean square: √2 times their SD, pooled over two methods.

    Args:
        first: SD over seeds of one method's mean score; NaN for one seed.
        second: the same of the other.

    >>> training_noise(0.003, 0.004)
    0.005
    """
    known = [sd for sd in (first, second) if not np.isnan(sd)]
    return float(np.sqrt(2 * np.mean(np.square(known)))) if known else np.nan
