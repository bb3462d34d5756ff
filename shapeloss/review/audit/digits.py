"""Copied or doubled digits over a table: what is seen, and how often chance alone would show it.

Rounded values repeat: with two decimals, the same mean and SD in two rows are no surprise. Each remark therefore says
how many such findings are expected by chance. None says how a number came about.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import combinations, islice
from math import comb, factorial, prod
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from shapeloss._typing import Floats
from shapeloss.stats.read_table import few

LEAST_DIGITS = 20
"""Values that a column needs before its last digits are looked at."""
_RUN = 3  # numbers that make a sequence
_FAR = 0.01  # p below which last digits are called far from uniform
_SMOOTH = 5.0  # SD of a column in units of its last digit, above which last digits of a smooth spread are uniform
_MOST_PAIRS = 200  # pairs of places that are looked at for one sequence
_ARGUMENTS = ("n", "low", "high", "step", "values_per_case", "scale")


@dataclass(frozen=True)
class Remark:
    """One kind of finding over a table."""

    kind: Literal["pairs", "shifts", "rows", "columns", "digits"]
    places: tuple[str, ...]
    """Rows, counted from 1, or columns."""
    chance: float
    """The number of such findings that is expected by chance; of last digits, p."""
    text: str


def digit_remarks(table: pd.DataFrame) -> list[Remark]:
    """Look for repeated pairs, repeated sequences, shifted decimal points and uneven last digits.

    Args:
        table: columns `mean` and `sd`, and others; cells as printed, best as text. Columns of numbers without a decimal
            point, and the arguments of the audit (n, low, …), are not looked at.

    Returns:
        At most one remark of each kind for the whole table, and one for each column of last digits.
    """
    numbers = {str(name): [_number(cell) for cell in table[name]] for name in table.columns if name not in _ARGUMENTS}
    numbers = {
        name: cells for name, cells in numbers.items()
        if name in ("mean", "sd") or any(x is not None and _decimals(x) for x in cells)
    }  # fmt: skip
    remarks = []
    if {"mean", "sd"} <= set(numbers):
        rows = [
            (i, m, s) for i, (m, s) in enumerate(zip(numbers["mean"], numbers["sd"], strict=True), 1)
            if m is not None and s is not None
        ]  # fmt: skip
        remarks += [_repeated_pairs(rows), _shifted(rows)]
    columns = list(numbers.values())
    remarks += [_repeated_rows([list(row) for row in zip(*columns, strict=True)]), _repeated_columns(numbers)]
    return [r for r in remarks if r] + [r for name, cells in numbers.items() if (r := _last_digits(name, cells))]


def remarks_text(remarks: Sequence[Remark]) -> str:
    """The remarks under a heading; empty without one."""
    if not remarks:
        return ""
    head = "Digits over the table: what is seen, and how often chance shows it. How it came about is not said by it."
    return "\n".join([head, *[f"- {remark.text}" for remark in remarks]])


def _number(cell: object) -> Decimal | None:
    try:
        number = Decimal(str(cell).strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _decimals(number: Decimal) -> int:
    return max(-int(number.as_tuple().exponent), 0)


def _split(number: Decimal) -> tuple[tuple[int, ...], int]:
    """Digits and power of ten: of 0.120 they are (1, 2) and −2."""
    _, digits, exponent = number.normalize().as_tuple()
    return digits, int(exponent)


def shift_chance(means: Sequence[Decimal], sds: Sequence[Decimal], powers: Iterable[tuple[int, int]]) -> float:
    """Expected pairs of rows whose means and SDs differ by such powers of ten, if the SDs are dealt to the means.

    Under all n! ways to deal them, two rows get two different SDs, each ordered pair of them equally often: with A_k
    ordered pairs of means that differ by 10^k and B_l of SDs, the expectation is Σ A_k B_l / (2 n (n − 1)).

    >>> shift_chance([Decimal("0.5")] * 3 + [Decimal("0.6")], [Decimal("0.1")] * 2 + [Decimal("0.2")] * 2, [(0, 0)])
    1.0
    """
    n = len(means)

    def ordered(values: Sequence[Decimal], power: int) -> int:
        count = Counter(map(_split, values))
        same = sum(c * count[digits, exponent + power] for (digits, exponent), c in list(count.items()))
        return same - n if power == 0 else same

    return sum(ordered(means, k) * ordered(sds, m) for k, m in powers) / (2 * n * (n - 1)) if n > 1 else 0.0


_Rows = list[tuple[int, Decimal, Decimal]]


def _repeated_pairs(rows: _Rows) -> Remark | None:
    groups: defaultdict[tuple[Decimal, Decimal], list[int]] = defaultdict(list)
    for i, mean, sd in rows:
        groups[mean, sd].append(i)
    found = {key: places for key, places in groups.items() if len(places) > 1}
    if not found:
        return None
    chance = shift_chance([m for _, m, _ in rows], [s for _, _, s in rows], [(0, 0)])
    count = sum(comb(len(places), 2) for places in found.values())
    named = few(f"{m} ± {s} in rows {few(places)}" for (m, s), places in found.items())
    text = (
        f"The same mean and SD: {named}. That makes {count} pair(s) of equal rows; if the printed SDs were dealt to "
        f"the printed means at random, {chance:.2g} would be expected."
    )
    return Remark("pairs", tuple(str(i) for places in found.values() for i in places), chance, text)


def _shifted(rows: _Rows) -> Remark | None:
    """Both numbers of a row are another row's times a power of ten, or the SD alone is."""
    groups: defaultdict[tuple[tuple[int, ...], tuple[int, ...]], list[tuple[int, int, int]]] = defaultdict(list)
    for i, mean, sd in rows:
        (mean_digits, mean_power), (sd_digits, sd_power) = _split(mean), _split(sd)
        if sd and mean and len(sd.as_tuple().digits) > 1 and len(mean.as_tuple().digits) > 1:
            groups[mean_digits, sd_digits].append((i, mean_power, sd_power))
    found = []
    for places in groups.values():
        for (i, mean_i, sd_i), (j, mean_j, sd_j) in islice(combinations(places, 2), _MOST_PAIRS):
            if sd_i != sd_j and mean_i - mean_j in (0, sd_i - sd_j):
                what = "mean and SD" if mean_i != mean_j else "SD alone, at the same mean"
                found.append((i, j, f"rows {i} and {j} ({what}, 10^{abs(sd_i - sd_j)})"))
    if not found:
        return None
    powers = [p for k in (-3, -2, -1, 1, 2, 3) for p in ((k, k), (0, k))]
    chance = shift_chance([m for _, m, _ in rows], [s for _, _, s in rows], powers)
    text = (
        f"The same digits with another decimal point: {few(name for _, _, name in found)}. It can be another unit; if "
        f"the printed SDs were dealt to the printed means at random, {chance:.2g} such pair(s) would be expected."
    )
    return Remark("shifts", tuple(str(i) for pair in found for i in pair[:2]), chance, text)


_Cells = list[Decimal | None]


def _runs(lines: Sequence[_Cells], aligned: bool) -> list[tuple[int, int, int, int, int]]:
    """Longest equal stretches of two lines: (line, start, other line, its start, length), longest first."""

    def told(line: int, start: int) -> bool:
        """A whole stretch of three numbers that are not all equal starts here."""
        window = lines[line][start : start + _RUN] if start >= 0 else []
        return len(window) == _RUN and None not in window and len(set(window)) > 1

    places: defaultdict[tuple[object, ...], list[tuple[int, int]]] = defaultdict(list)
    for line, cells in enumerate(lines):
        for start in range(len(cells) - _RUN + 1):
            if told(line, start):
                places[(start if aligned else None, *cells[start : start + _RUN])].append((line, start))
    found = []
    for group in places.values():
        for (a, i), (b, j) in islice(combinations(group, 2), _MOST_PAIRS):
            before = min(i, j) > 0 and lines[a][i - 1] == lines[b][j - 1] and told(a, i - 1)
            if before or (a == b and j - i < _RUN):
                continue
            room = min(len(lines[a]) - i, len(lines[b]) - j, j - i if a == b else len(lines[a]))
            length = next(
                (k for k in range(_RUN, room) if lines[a][i + k] is None or lines[a][i + k] != lines[b][j + k]), room
            )
            found.append((a, i, b, j, length))
    return sorted(found, key=lambda run: -run[-1])


def _equal(first: _Cells, second: _Cells | None = None) -> float:
    """The share of pairs of cells that are equal: within one list, or between two."""
    count = Counter(x for x in first if x is not None)
    total = sum(count.values())
    if second is None:
        return sum(c * (c - 1) for c in count.values()) / (total * (total - 1)) if total > 1 else 0.0
    other = Counter(x for x in second if x is not None)
    return sum(c * other[x] for x, c in count.items()) / (total * sum(other.values())) if total and other else 0.0


def _repeated_rows(rows: list[_Cells]) -> Remark | None:
    found = _runs(rows, aligned=True)
    if not found:
        return None
    equal = [_equal([row[c] for row in rows]) for c in range(len(rows[0]))]
    chance = comb(len(rows), 2) * sum(prod(equal[c : c + _RUN]) for c in range(len(equal) - _RUN + 1))
    named = few(f"rows {a + 1} and {b + 1} ({few(map(str, rows[a][i : i + k]))})" for a, i, b, _, k in found)
    text = (
        f"The same three numbers or more side by side in two rows: {named}. Were the columns independent, {chance:.2g} "
        "stretch(es) of three would be expected."
    )
    return Remark("rows", tuple(str(x + 1) for run in found for x in (run[0], run[2])), chance, text)


def _repeated_columns(numbers: dict[str, _Cells]) -> Remark | None:
    names, lines = list(numbers), list(numbers.values())
    found = _runs(lines, aligned=False)
    if not found:
        return None
    windows = max(len(lines[0]) - _RUN + 1, 0)
    # within a column the two stretches may not overlap
    chance = comb(max(windows - _RUN + 1, 0), 2) * sum(_equal(line) ** _RUN for line in lines)
    chance += windows**2 * sum(_equal(a, b) ** _RUN for a, b in combinations(lines, 2))
    named = few(
        f"{names[a]} from row {i + 1} and {names[b]} from row {j + 1} ({few(map(str, lines[a][i : i + k]))})"
        for a, i, b, j, k in found
    )
    text = (
        f"The same three numbers or more below each other in two places: {named}. Were the order of the rows random, "
        f"{chance:.2g} stretch(es) of three would be expected."
    )
    return Remark("columns", tuple(names[x] for run in found for x in (run[0], run[2])), chance, text)


def digit_test(counts: Sequence[int]) -> float:
    """p of Pearson's χ² that the ten digits are equally frequent: exact below 50 values, else by its limit.

    Exact: the multinomial distribution of Σ c², which orders the tables like χ², built up digit by digit.

    >>> round(digit_test([2, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 12)  # two equal digits: one in ten
    0.1
    """
    c = np.asarray(counts, dtype=int)
    n = int(c.sum())
    if n >= 50:  # five of each expected
        return float(stats.chisquare(c).pvalue)
    ways: Floats = np.zeros((n + 1, n * n + 1))  # by values placed and by their sum of squares: Π 1 / c!
    ways[0, 0] = 1.0
    for _ in range(len(c)):
        more = np.zeros_like(ways)
        for k in range(n + 1):
            more[k:, k * k :] += ways[: n + 1 - k, : n * n + 1 - k * k] / factorial(k)
        ways = more
    return float(min(ways[n, (c**2).sum() :].sum() / ways[n].sum(), 1.0))


def _last_digits(name: str, cells: _Cells) -> Remark | None:
    values = [x for x in cells if x is not None]
    decimals = {_decimals(x) for x in values}
    if len(values) < LEAST_DIGITS or len(decimals) != 1:  # of mixed decimals, zeros may have been dropped
        return None
    unit = 10.0 ** -decimals.pop()
    with np.errstate(all="ignore"):  # numbers beyond floating point
        spread = float(np.std([float(x) for x in values], ddof=1))
    if not spread >= _SMOOTH * unit:
        return None
    counts = np.bincount([x.as_tuple().digits[-1] for x in values], minlength=10)
    p = digit_test(counts.tolist())
    if p >= _FAR:
        return None
    digit = int(counts.argmax())
    what = "are all" if counts[digit] == len(values) else f"are unevenly spread, {counts[digit]} of them"
    text = (
        f"The last digits of column {name}, {len(values)} values, {what} {digit}: p = {p:.2g} if all ten are equally "
        "likely. That is weak evidence: values on a coarser grid, such as means of few whole numbers, show it too."
    )
    return Remark("digits", (name,), p, text)
