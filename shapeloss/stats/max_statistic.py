"""A paired test at many points at once, corrected for all of them: sign flips of the largest t."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

EXACT_CASES = 13
"""Up to so many cases every pattern of signs is taken; above, :data:`FLIPS` drawn at random."""
FLIPS = 4096
_BATCH = 64  # patterns at a time


def max_t_test(difference: ArrayLike, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Student's t of the mean difference at each point, and its p, corrected for all points together.

    Each pattern flips the sign of whole cases, under which nothing changes if no point differs, and gives a largest
    \\|t\\| over the points. The p of a point is the share of patterns with a largest \\|t\\| of at least its own: the
    chance that any point at all would be called different is at most the level (Nichols & Holmes, Hum Brain Mapp 2002).
    With n cases no p is below 2/2^n.

    Args:
        difference: (n, points) of n ≥ 2 cases, finite.
        seed: of the patterns that are drawn at random.

    Returns:
        t and two-sided p, (points,) each; a point that differs in no case has t = 0.

    Raises:
        ValueError: for fewer than two cases, or values that are not finite.

    >>> t, p = max_t_test([[1.0, 0.1], [1.2, -0.2], [0.9, 0.1], [1.1, 0.0], [1.0, 0.2], [0.8, -0.1]])
    >>> p.round(3).tolist()  # of the 64 patterns, two reach the first t
    [0.031, 1.0]
    """
    d = np.asarray(difference, dtype=np.float64)
    if d.ndim != 2 or len(d) < 2:
        raise ValueError(f"difference must be (cases, points) with at least two cases, got shape {d.shape}")
    if not np.isfinite(d).all():
        raise ValueError("difference must be finite; leave out the points that some case lacks")
    n = len(d)
    scale = np.abs(d).max(axis=0)
    d = d / np.where(scale > 0, scale, 1)
    square = (d**2).sum(axis=0)

    def t_of(signs: NDArray[np.float64]) -> NDArray[np.float64]:
        """(patterns, n) → (patterns, points); of differences without spread, a very large one."""
        mean = signs @ d / n
        variance = np.maximum((square - n * mean**2) / (n - 1), 1e-12)
        return np.where(scale > 0, mean / np.sqrt(variance / n), 0.0)

    t = t_of(np.ones((1, n)))[0]
    patterns = _signs(n, seed)
    parts = np.array_split(patterns, -(-len(patterns) // _BATCH))
    largest = np.concatenate([np.abs(t_of(part)).max(axis=1, initial=0) for part in parts])
    at_least = len(largest) - np.searchsorted(np.sort(largest), np.abs(t) * (1 - 1e-9))
    return t, at_least / len(largest)


def _signs(n: int, seed: int) -> NDArray[np.float64]:
    """(patterns, n) of ±1, the first without a flip; a pattern and its opposite give one \\|t\\|: half suffice."""
    if n <= EXACT_CASES:
        numbers = np.arange(2 ** (n - 1))
        return np.where((numbers[:, None] >> np.arange(n)) & 1, -1.0, 1.0)
    drawn = np.random.default_rng(seed).choice([-1.0, 1.0], size=(FLIPS - 1, n))
    return np.concatenate([np.ones((1, n)), drawn])
