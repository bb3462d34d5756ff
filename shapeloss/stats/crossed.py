"""Differences that speak of new volumes and of new trainings: a mixed model with both as random effects.

Each difference between two losses is measured once for each test volume and each seed:

    d_vs = δ + a_v + b_s + e_vs

with a volume's part a_v, a training's part b_s, and the rest. The mean over volumes and seeds estimates δ. Its variance
is σ_a² / V + σ_b² / S + σ_e² / VS; the tests of `paired_tests`, on volumes averaged over their seeds, leave out
σ_b² / S, and so speak of new volumes for these very trainings. For complete tables the estimates by mean squares are
those of a mixed model fitted by restricted maximum likelihood (Searle, Casella & McCulloch 1992, ch. 4; the tests
compare with statsmodels). The degrees of freedom are Satterthwaite's (1946), without which five seeds would count like
infinitely many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from shapeloss.stats.paired_tests import Interval


@dataclass(frozen=True)
class CrossedDifference:
    """The mean of differences over volumes and trainings, in the unit of the scores."""

    interval: Interval
    """The mean with its confidence limits, for a new volume and a new training."""
    p: float
    """Two-sided, of no difference."""
    df: float
    """Satterthwaite's degrees of freedom."""
    sd_volumes: float
    """SD of the volumes' parts; 0 where the estimate of its square is negative."""
    sd_trainings: float
    """SD of the trainings' parts, likewise."""
    sd_rest: float
    """SD of what is left."""
    volumes: int
    seeds: int


def crossed_difference(difference: ArrayLike, confidence: float = 0.95) -> CrossedDifference:
    """The mean difference, with volumes and trainings drawn at random.

    Where a variance component is estimated below 0, it counts as 0, which never makes the standard error smaller.

    Args:
        difference: (V, S): volume v, seed s; the first loss's score less the second's, both trained with seed s. V and
            S of 2 or more, all finite.
        confidence: level of the interval.

    Raises:
        ValueError: another shape, or a value that is not finite.

    >>> crossed_difference([[0.1, 0.3], [0.2, 0.4], [0.3, 0.5]]).interval.value
    0.3
    """
    d = np.asarray(difference, dtype=float)
    if d.ndim != 2 or min(d.shape) < 2 or not np.isfinite(d).all():
        raise ValueError(
            f"difference must have 2 or more volumes (rows) and seeds (columns), all finite; got shape {d.shape}"
        )
    volumes, seeds = d.shape
    mean = float(d.mean())
    by_volume, by_seed = d.mean(axis=1), d.mean(axis=0)
    rest = d - by_volume[:, None] - by_seed[None, :] + mean
    freedoms = np.array([volumes - 1, seeds - 1, (volumes - 1) * (seeds - 1)])
    squares = np.array([seeds * by_volume.var(ddof=1), volumes * by_seed.var(ddof=1), (rest**2).sum() / freedoms[2]])
    of_volumes, of_seeds, of_rest = (float(square) for square in squares)
    # they estimate σ_e² + S σ_a², σ_e² + V σ_b² and σ_e², so that the first sum is V S times the variance of the mean;
    # the others are larger where a component is estimated below 0
    sums = np.array([[1, 1, -1], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    parts = max(sums * squares, key=lambda parts: float(parts.sum()))
    variance = float(parts.sum()) / (volumes * seeds)
    df = float(parts.sum() ** 2 / (parts**2 / freedoms).sum()) if variance > 0 else float(volumes - 1)
    error = float(np.sqrt(variance))
    half = float(stats.t.ppf((1 + confidence) / 2, df)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, df)) if error > 0 else float(mean == 0)
    return CrossedDifference(
        Interval(round(mean, 15), mean - half, mean + half),
        p,
        df,
        float(np.sqrt(max(0.0, (of_volumes - of_rest) / seeds))),
        float(np.sqrt(max(0.0, (of_seeds - of_rest) / volumes))),
        float(np.sqrt(of_rest)),
        volumes,
        seeds,
    )


def score_grid(per_case: pd.DataFrame, loss: str, metric: str) -> pd.DataFrame:
    """One loss's scores: rows are cases, columns are seeds.

    Args:
        per_case: columns `loss`, `case`, `seed` and `metric`, one row each.

    Raises:
        ValueError: a case lacks a finite score for a seed; it is named.
    """
    rows = per_case[per_case["loss"] == loss]
    grid = rows.pivot(index="case", columns="seed", values=metric).astype(float)
    if grid.empty:
        raise ValueError(f"per_case has no rows of loss {loss!r}; it has {per_case['loss'].unique().tolist()}")
    absent = np.argwhere(~np.isfinite(grid.to_numpy()))
    if len(absent):
        case, seed = grid.index[absent[0, 0]], grid.columns[absent[0, 1]]
        raise ValueError(f"{loss}: case {case} has no finite {metric} for seed {seed}; every seed needs the same cases")
    return grid


def compare_crossed(per_case: pd.DataFrame, first: str, second: str, metric: str) -> CrossedDifference:
    """The first loss less the second, over the cases and seeds that both have.

    Args:
        per_case: as for :func:`score_grid`.

    Raises:
        ValueError: other cases, fewer than two seeds in common, or a score that is missing.
    """
    a, b = score_grid(per_case, first, metric), score_grid(per_case, second, metric)
    if not a.index.equals(b.index):
        raise ValueError(f"{first} and {second} must have the same cases; they have {len(a)} and {len(b)}")
    seeds = a.columns.intersection(b.columns)
    if len(seeds) < 2:
        raise ValueError(f"{first} and {second} must have two seeds in common; they have {len(seeds)}")
    return crossed_difference((a[seeds] - b[seeds]).to_numpy())


@dataclass(frozen=True)
class NoiseFloor:
    """How far apart trainings of one loss are that differ in nothing but the seed."""

    differences: tuple[float, ...]
    """Between the mean scores of every two trainings, the later seed less the earlier."""
    sd: float
    """SD of one training's mean score."""
    trainings: int

    def between(self, seeds: int, confidence: float = 0.95) -> float:
        """The means of two sets of so many trainings each differ by no more than this, with this probability."""
        return float(stats.t.ppf((1 + confidence) / 2, self.trainings - 1)) * self.sd * float(np.sqrt(2 / seeds))


def noise_floor(grid: ArrayLike) -> NoiseFloor:
    """The noise floor of one loss.

    Args:
        grid: (V, S): the score of each volume (rows) under each training (columns); S of 3 or more.

    >>> noise_floor([[0.5, 0.6, 0.7]]).differences
    (0.1, 0.2, 0.1)
    """
    scores = np.asarray(grid, dtype=float)
    if scores.ndim != 2 or scores.shape[1] < 3 or not np.isfinite(scores).all():
        raise ValueError(f"grid must have a column for each of 3 or more trainings, all finite; got {scores.shape}")
    means = scores.mean(axis=0)
    first, second = np.triu_indices(len(means), 1)
    return NoiseFloor(
        tuple(round(float(d), 12) for d in means[second] - means[first]), float(means.std(ddof=1)), len(means)
    )
