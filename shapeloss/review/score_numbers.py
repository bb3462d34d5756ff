"""The cells of score tables as numbers: percent, ranges, units, and what is left out for which reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from shlex import quote

import numpy as np
import pandas as pd

from shapeloss.review.score_names import bounds, known_score, unit
from shapeloss.stats.read_table import few

FINITE = {"volume_error_percent": "volume_error_mm3"}
"""Metrics that are infinite for a false positive structure: those that are not."""
_LISTED = 5  # faults of one kind that are listed one by one
_ROUNDING = 1e-6  # a Dice of 1.0000001 was rounded in single precision


def folded(lines: Iterable[str]) -> list[str]:
    """The first few lines, and how many more there are of this kind."""
    every = list(lines)
    more = len(every) - _LISTED
    return every if more < 2 else [*every[:_LISTED], f"{more} more of the same kind as the line before"]


def is_number(cells: pd.Series) -> bool:
    filled = cells[cells != ""]
    return len(filled) > 0 and bool(filled.map(read_number).notna().all())


def read_number(cell: str, sign: float = 100) -> float:
    """NaN for what is not a number; a number with a % sign is divided by `sign`."""
    try:
        return np.nan if "_" in cell else float(cell[:-1]) / sign if cell.endswith("%") else float(cell)
    except ValueError:
        return np.nan


def read_numbers(table: pd.DataFrame, metric: str, problems: list[str]) -> pd.Series:
    """The scores as numbers, NaN where there is no finite one, which is a problem."""
    cells = table[metric]
    sign = 1 if unit(metric) == "%" else 100
    read = cells.map(lambda cell: read_number(cell, sign)).astype(float)
    finite = read.where(np.isfinite(read))
    lines = []
    for loss, case, cell, number in zip(
        *(x[finite.isna()] for x in (table["loss"], table["case"], cells, read)), strict=True
    ):
        shown = "nothing" if cell == "" else str(number) if np.isinf(number) else repr(cell)
        why = f" (a false positive structure; {FINITE[metric]} has it)" if np.isinf(number) and metric in FINITE else ""
        lines.append(f"{loss}: {case} has {shown} for {metric}, not a finite number{why}; it is left out")
    problems += folded(lines)
    return finite


def named_percent(
    table: pd.DataFrame, metrics: Sequence[str], signed: pd.DataFrame, names: Sequence[str]
) -> pd.DataFrame:
    """For each metric, the rows that `names` (methods or scores) declare as percent and that bear no sign of it."""
    found = pd.DataFrame(False, table.index, list(metrics))
    methods = table["loss"].unique().tolist()
    for name in names:
        score = name if name in metrics else known_score(name) or name
        by_score = score in metrics
        if by_score == (name in methods):
            what = "a method and a score; name the method apart, as in a=file.csv" if by_score else "neither"
            raise ValueError(f"--percent {name}: is {what}; there are {few([*methods, *metrics], 12)}")
        shares = [metric for metric in ([score] if by_score else metrics) if bounds(metric) == (0, 1)]
        if by_score and not known_score(score):
            shares = [score]
        if not shares:
            raise ValueError(f"--percent {name}: no score between 0 and 1; name the score: {few(metrics)}")
        for metric in shares:
            rows = ~signed[metric] & (by_score | (table["loss"] == name))
            for loss, scores in table.loc[rows, metric].groupby(table["loss"], sort=False) if by_score else ():
                if scores.max() <= 1:
                    raise ValueError(
                        f"--percent {name}: {loss} has {scores.min():g} to {scores.max():g}, no percent; name the "
                        "methods that are in percent instead"
                    )
            found[metric] |= rows
    return found


def undeclared_percent(table: pd.DataFrame, metrics: Sequence[str]) -> dict[str, str]:
    """The methods whose scores between 0 and 1 were written as percent, each with its problem."""
    found: dict[str, str] = {}
    shares = [metric for metric in metrics if bounds(metric) == (0, 1)]
    for loss, rows in table.groupby("loss", sort=False):
        for metric in shares:
            scores = rows[metric].dropna()
            if scores.between(0, 100).all() and (scores > 1.5).mean() > 0.5:
                found[str(loss)] = (
                    f"{loss}: {metric} is {scores.min():g} to {scores.max():g}, outside 0 to 1: percent? "
                    f"{loss} is left out; divide its scores by 100, or say --percent {quote(str(loss))}"
                )
    return found


def in_range(table: pd.DataFrame, metric: str, problems: list[str]) -> pd.Series:
    """The scores, NaN for those that a known metric cannot have, which is a problem."""
    scores = table[metric]
    low, high = bounds(metric)
    outside = (scores < low - _ROUNDING) | (scores > high + _ROUNDING)
    problems += folded(
        f"{loss}: {case} has {score:g} for {metric}, outside {low:g} to {high:g}; it is left out"
        for loss, case, score in table.loc[outside, ["loss", "case", metric]].to_numpy().tolist()
    )
    return scores.where(~outside)


def unit_notes(table: pd.DataFrame, metric: str) -> list[str]:
    """A note where one method's scores are about a hundred times another's, and the metric's range does not tell."""
    medians = table[metric].abs().groupby(table["loss"]).median().loc[lambda median: median > 0]
    if len(medians) < 2 or not 50 <= medians.max() / medians.min() <= 200 or bounds(metric)[1] == 1:
        return []
    words = ", ".join(f"{loss} {median:.4g}" for loss, median in medians.items())
    return [f"{metric}: medians differ about 100 times ({words}); are all in the same unit?"]
