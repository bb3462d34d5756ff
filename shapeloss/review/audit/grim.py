"""Can a mean and SD come from values on a grid, such as integers? GRIM, GRIMMER, an exact search, and SPRITE.

Values are offset + step · i with integer i. A mean of n of them is offset + step · T / n with an integer T (GRIM, Brown
& Heathers 2017), and T with the sum of squares Q fixes the SD, where Q is an integer of T's parity (GRIMMER, Anaya
2016, in the analytic form of Allard 2018). Both are necessary; `find_sample` settles the rest by building a sample.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Range = tuple[float, float]
_SLACK = 1e-9  # in grid units: a value on the edge of a rounding interval may have been rounded either way
_EXACT_WORK = 400_000  # steps of the exact search, about a second
MOST_TOTALS = 20_000
"""More totals than these are not tried one by one."""
LARGEST_N_LISTED = 10_000
"""Samples of more values are not searched for."""


def _integers(low: float, high: float) -> range:
    return range(int(np.ceil(low - _SLACK)), int(np.floor(high + _SLACK)) + 1)


def grim(
    mean_low: ArrayLike, mean_high: ArrayLike, n: ArrayLike, step: ArrayLike = 1.0, offset: ArrayLike = 0.0
) -> NDArray[np.bool_]:
    """Is there a mean of n grid values in [mean_low, mean_high]? Element by element.

    >>> bool(grim(5.185, 5.195, 28)), bool(grim(5.175, 5.185, 28))  # 5.19 is not a mean of 28 integers, 5.18 is
    (False, True)
    """
    n, step = np.asarray(n), np.asarray(step)
    low, high = ((np.asarray(mean) - np.asarray(offset)) * n / step for mean in (mean_low, mean_high))
    return np.asarray(np.ceil(low - _SLACK) <= np.floor(high + _SLACK))


class Target(NamedTuple):
    """A total of the grid indices i, and the least and largest sum of squared deviations Σ (i − T/n)² to reach."""

    total: int
    low: float
    high: float


def totals(mean: Range, n: int, step: float = 1.0, offset: float = 0.0) -> range:
    """Totals that GRIM allows."""
    return _integers(*((limit - offset) * n / step for limit in mean))


def targets(mean: Range, sd: Range, n: int, step: float = 1.0, offset: float = 0.0, ddof: int = 1) -> list[Target]:
    """Totals that GRIM allows, each with its squared deviations, in grid units; of very many totals every kth."""
    spread = [(n - ddof) * (limit / step) ** 2 for limit in sd]
    allowed = totals(mean, n, step, offset)
    every = 1 + 2 * ((allowed.stop - allowed.start) // (2 * MOST_TOTALS))  # odd, so that both parities are kept
    return [Target(total, spread[0], spread[1]) for total in allowed[::every]]


def _sums_of_squares(target: Target, n: int) -> range:
    """Integers of the total's parity that are a possible Σ i²."""
    squared_mean = target.total**2 / n
    candidates = _integers(max(target.low, 0.0) + squared_mean, target.high + squared_mean)
    return range(candidates.start + (candidates.start - target.total) % 2, candidates.stop, 2)


def grimmer(mean: Range, sd: Range, n: int, step: float = 1.0, offset: float = 0.0, ddof: int = 1) -> bool:
    """Is there a total with a sum of squares of the right parity? False proves that no sample exists; True does not.

    All totals that round to the mean are tried, not the nearest alone; of more than `MOST_TOTALS` some, and then True.

    >>> grimmer((7.25, 7.35), (2.505, 2.515), 12)  # the documentation of R's scrutiny: 7.3 ± 2.51, n = 12
    False
    """
    allowed = totals(mean, n, step, offset)
    too_many = allowed.stop - allowed.start > MOST_TOTALS
    return too_many or any(_sums_of_squares(target, n) for target in targets(mean, sd, n, step, offset, ddof))


def _as_integers(rows: NDArray[np.int64]) -> Iterator[list[int]]:
    """The rows as Python's integers, made as they are requested: single numbers of arrays are slow."""
    for start in range(0, len(rows), 64):
        yield from rows[start : start + 64].tolist()


def sprite(
    requested: Sequence[Target], n: int, low: int, high: int, rng: np.random.Generator, restarts: int = 20
) -> NDArray[np.int64] | None:
    """One sample of n grid indices in [low, high] that meets one of the targets, by random search (SPRITE).

    From values as equal as the total allows, pairs are moved apart or together while that leads nearer to the target
    (Heathers et al. 2018). None where `restarts` searches fail, which proves nothing.
    """
    possible = [t for t in requested if n * low <= t.total <= n * high]
    moves = 3000
    for _ in range(restarts if possible else 0):
        target = possible[rng.integers(len(possible))]
        short = target.total % n
        values = [target.total // n + 1] * short + [target.total // n] * (n - short)
        squares = float(((np.array(values) - target.total / n) ** 2).sum())
        aim = rng.uniform(target.low, target.high)
        pairs = rng.integers(n, size=(moves, 2))
        reach = rng.integers(1, 2 + int(np.sqrt(target.high / n) / 2), size=moves)  # up to half an SD
        for i, j, size in _as_integers(np.column_stack([pairs, reach])):
            if target.low - _SLACK <= squares <= target.high + _SLACK:
                return np.sort(np.array(values, dtype=np.int64))
            if i == j or values[i] + size > high or values[j] - size < low:
                continue
            change = 2 * size * (values[i] - values[j] + size)
            if abs(squares + change - aim) < abs(squares - aim):
                values[i] += size
                values[j] -= size
                squares += change
    return None


def find_sample(
    requested: Sequence[Target], n: int, low: int, high: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64] | None, bool]:
    """A sample of n grid indices in [low, high] that meets a target, and whether the answer is certain.

    A sample that the random search finds is proof. Where it finds none, every reachable pair of total and sum of
    squares is computed, value by value; only where that would take too long is "no sample found" uncertain.
    """
    every = (
        len(requested) < 2 or requested[1].total == requested[0].total + 1
    )  # else only some of very many totals are here
    requested = [t for t in requested if _sums_of_squares(t, n) and n * low <= t.total <= n * high]
    if not requested:
        return None, every
    found = sprite(requested, n, low, high, rng)
    if found is not None:
        return found, True
    centre = round(sum(t.total for t in requested) / len(requested) / n)
    # a value's own deviation cannot exceed the whole spread
    widest = max(t.high + (t.total - n * centre) ** 2 / n for t in requested) + _SLACK
    farthest = math.isqrt(int(widest))
    least, most = max(low - centre, -farthest), min(high - centre, farthest)
    if not every or n * n * max(most - least + 1, 0) ** 2 / 2 > _EXACT_WORK:
        return None, False
    values = list(range(least, most + 1))
    return _reach(requested, n, centre, values, int(widest)), True


def _reach(requested: Sequence[Target], n: int, centre: int, values: list[int], most: int) -> NDArray[np.int64] | None:
    """Dynamic programme over (total, sum of squares) of the centred values; a set of sums is the bits of an integer."""
    mask = (1 << (most + 1)) - 1
    layers: list[dict[int, int]] = [{0: 1}]
    for _ in range(n):
        layer: dict[int, int] = defaultdict(int)
        for total, sums in layers[-1].items():
            for v in values:
                layer[total + v] |= (sums << (v * v)) & mask
        layers.append(layer)
    for target in requested:
        total = target.total - n * centre
        shift = total * total / n
        for q in _integers(target.low + shift, min(target.high + shift, most)):
            if layers[n].get(total, 0) >> q & 1:
                return _trace(layers, values, total, q) + centre
    return None


def _trace(layers: list[dict[int, int]], values: list[int], total: int, q: int) -> NDArray[np.int64]:
    sample = []
    for layer in reversed(layers[:-1]):
        v = next(v for v in values if v * v <= q and layer.get(total - v, 0) >> (q - v * v) & 1)
        sample.append(v)
        total, q = total - v, q - v * v
    return np.sort(np.array(sample, dtype=np.int64))
