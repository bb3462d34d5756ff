"""Per-case scores of several methods from CSV tables: what is read, what is left out, and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from shapeloss.metrics import METRICS
from shapeloss.stats.headings import PAPER_METRICS
from shapeloss.stats.read_table import few, read_table

FINITE = {"volume_error_percent": "volume_error_mm3"}
"""Metrics that are infinite for a false positive structure: those that are not."""
METHOD_COLUMNS = ("loss", "method", "model")
"""Columns that may tell methods apart within one file."""
_KEYS = (*METHOD_COLUMNS, "structure", "seed", "fold", "missed", "false_positive", "absent")
_LISTED = 5  # faults of one kind that are listed one by one
_ROUNDING = 1e-6  # a Dice of 1.0000001 was rounded in single precision
_SHARES = ("iou", "jaccard", "precision", "recall", "sensitivity", "specificity", "nsd", "surfacedice")
"""Names of scores in [0, 1] that the project does not compute itself."""
_USUAL = dict.fromkeys(
    ["dsc", "dicescore", "dicecoefficient", "dicesimilaritycoefficient", "meandice", "dicemean", "globaldice"], "dice"
) | {"boundarydice": "boundary_dice_in_plane"}
_WORD = (
    "mean|average|avg|median|std|sd|stdev|std[. ]?dev|standard deviation|var|variance|sem|se|min|minimum|max|maximum|"
    "sum|total|all|overall|summary|n|count|iqr|mad|q[1-4]|quartile|mittelwert|mittel|standardabweichung"
)
_SUMMARY = re.compile(
    rf"({_WORD})([\s_±/+():,.-]+({_WORD}))*[\s).:]*|\d+([.,]\d+)?\s?%|(\d+(th|st|nd|rd)|p\d+) ?(percentile|quantile)?"
)


@dataclass(frozen=True)
class ScoreTable:
    """Scores of several methods on the same cases."""

    table: pd.DataFrame
    """Columns `loss` (the method), `case`, `seed` if there are several, and the metrics; one row each."""
    metrics: tuple[str, ...]
    problems: tuple[str, ...]
    """Cases and files that are missing, duplicated or unreadable, a line each."""
    notes: tuple[str, ...] = ()
    """What was guessed or left out in reading the tables, a line each."""


def read_scores(
    paths: Sequence[str | Path],
    metrics: Sequence[str] = (),
    structure: str | None = None,
    case_column: str = "case",
    keep_summaries: bool = False,
) -> ScoreTable:
    """Read score tables: one row per case, or per case, method, seed and structure.

    Args:
        paths: CSV files (see :func:`shapeloss.stats.read_table.read_table`); `name=file.csv` names the file's method. A
            file with a column `loss`, `method` or `model` holds several.
        metrics: score columns. Default: boundary Dice and Dice, by their usual names in any case, if all files have
            them; otherwise the only known score, or the only column of numbers.
        structure: which rows of a column `structure` to compare; default "mean", or the only one there is.
        case_column: name of the column of cases.
        keep_summaries: rows called mean, std, total, … are cases; by default they are left out and noted.

    Returns:
        The scores; a case that occurs twice for one method is left out of that method and named among the problems,
        as are scores outside the range of a known metric.

    Raises:
        ValueError: no two methods with scores are left, or the score column is not clear; the problems are listed.
    """
    problems: list[str] = []
    notes: list[str] = []
    tables: list[pd.DataFrame] = []
    for name, path in _named(paths):
        try:
            name = name if len(paths) > 1 else ""
            tables.append(_read(name, path, structure, case_column, keep_summaries, problems, notes))
        except (OSError, ValueError) as error:
            problems.append(" ".join(str(error).split()))
    if not tables:
        raise ValueError("no table could be read" + listed(problems))
    chosen = _metrics(tables, metrics, notes)
    table = pd.concat(tables, ignore_index=True)
    keys = ["loss", "case"] + (["seed"] if "seed" in table.columns else [])
    table = table[[*keys, *chosen]]
    if "seed" in keys:  # a file without seeds beside one with them: one training
        table = table.assign(seed=table["seed"].fillna("").replace("", "0"))
    doubled = table.loc[table.duplicated(keys, keep=False), ["loss", "case"]].drop_duplicates()
    problems += _folded(
        f"{loss}: {case} occurs more than once; it is left out, so remove the wrong rows"
        for loss, case in doubled.to_numpy().tolist()
    )
    if len(doubled):
        twice = pd.MultiIndex.from_frame(table[["loss", "case"]]).isin(pd.MultiIndex.from_frame(doubled))
        table = table[~twice]
    for metric in chosen:
        table = table.assign(**{metric: _numbers(table, metric, problems)})
    percent = _percent(table, chosen)
    problems += percent.values()
    table = table[~table["loss"].isin(list(percent))]
    for metric in chosen:
        table = table.assign(**{metric: _in_range(table, metric, problems)})
        notes += _units(table, metric)
    everywhere = set(table["case"])
    for loss, cases in table.groupby("loss", sort=False)["case"]:
        if missing := sorted(everywhere - set(cases)):
            problems.append(f"{loss}: lacks {few(missing)}, which another method has; a pair needs both")
    if table["loss"].nunique() < 2:
        found = ", ".join(table["loss"].unique().tolist()) or "none"
        raise ValueError(f"a comparison needs the scores of two methods; found {found}{listed(problems)}")
    return ScoreTable(table.reset_index(drop=True), chosen, tuple(problems), tuple(notes))


def _named(paths: Sequence[str | Path]) -> list[tuple[str, Path]]:
    """(name of the method, path): from `name=path`, else the file's name, with as many folders as tell it apart."""
    given = []
    for text in map(str, paths):
        name, equals, rest = text.partition("=")
        given.append((name, Path(rest)) if equals and not Path(text).exists() else ("", Path(text)))
    names = []
    for name, path in given:
        parts = path.resolve().with_suffix("").parts
        depth = 1
        others = [p.resolve().with_suffix("").parts for n, p in given if not n and p is not path]
        while depth < len(parts) - 1 and any(other[-depth:] == parts[-depth:] for other in others):
            depth += 1
        names.append(name or "/".join(parts[-depth:]))
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"two tables are called {', '.join(twice)}; name them apart: first=a.csv second=b.csv")
    return [(name, path) for name, (_, path) in zip(names, given, strict=True)]


def listed(problems: Sequence[str]) -> str:
    """Lines to stand below a message."""
    return "".join(f"\n  - {problem}" for problem in problems)


def _folded(lines: Iterable[str]) -> list[str]:
    """The first few lines, and how many more there are of this kind."""
    every = list(lines)
    more = len(every) - _LISTED
    return every if more < 2 else [*every[:_LISTED], f"{more} more of the same kind as the line before"]


def _read(
    name: str,
    path: Path,
    structure: str | None,
    case_column: str,
    keep_summaries: bool,
    problems: list[str],
    notes: list[str],
) -> pd.DataFrame:
    table, read_notes = read_table(path, (case_column.lower(), *_KEYS))
    notes += read_notes
    table = _keys_by_name(path, table, case_column, notes)
    column = next((c for c in METHOD_COLUMNS if c in table.columns), None)
    for key, what in (("case", "case"), *([(column, "method")] if column else [])):
        blank = table[key] == ""
        if blank.any():
            lines = f"line {few(table.index[blank])}"
            problems.append(f"{path}: {blank.sum()} row(s) have no {what} ({lines}); they are left out, so name it")
            table = table[~blank]
    if table.empty:
        raise ValueError(f"{path}: has no rows; give one row per case")
    summaries = table["case"].map(lambda case: bool(_SUMMARY.fullmatch(case.lower())))
    if summaries.any() and not keep_summaries:
        names = few(table.loc[summaries, "case"].drop_duplicates())
        if summaries.all():
            raise ValueError(f"{path}: has only rows that summarise cases ({names}); give one row per case")
        notes.append(
            f"{path}: {summaries.sum()} row(s) that summarise the cases are left out: {names}; if they are cases, "
            "keep them with --keep-summaries"
        )
        table = table[~summaries]
    if "structure" in table.columns:
        present = table["structure"].unique().tolist()
        requested = structure or ("mean" if "mean" in present else present[0] if len(present) == 1 else "")
        if requested not in present:
            raise ValueError(f"{path}: has no structure {requested!r}; choose one of {few(present)} with --structure")
        table = table[table["structure"] == requested]
    if column is None:
        return table.assign(loss=name or path.stem)
    if not name:
        return table.assign(loss=table[column])
    return table.assign(loss=name if table[column].nunique() == 1 else f"{name}:" + table[column])


def _keys_by_name(path: Path, table: pd.DataFrame, case_column: str, notes: list[str]) -> pd.DataFrame:
    """The table with its columns of cases, methods, structures, seeds and known scores under their usual names."""
    columns = list(table.columns)
    cases = [case_column] if case_column in columns else [c for c in columns if c.lower() == case_column.lower()]
    if len(cases) != 1:
        raise ValueError(
            f"{path}: has no column {case_column!r}; it has {few(columns, 12)}; name it with --case-column"
        )
    table = table.drop(columns=[c for c in columns if c == "case" and c != cases[0]])
    names = {cases[0]: "case"}
    for key in _KEYS:
        alike = [c for c in table.columns if c.lower() == key]
        names |= {alike[0]: key} if len(alike) == 1 else {}
    known: dict[str, list[str]] = {metric: [metric] for metric in METRICS if metric in table.columns}
    for column in table.columns:
        if column not in names and column not in METRICS and (score := _known(column)):
            known.setdefault(score, []).append(column)
    scores = {alike[0]: score for score, alike in known.items() if len(alike) == 1}
    names |= scores
    taken = [f"{column!r} as {score}" for column, score in {cases[0]: case_column, **scores}.items() if column != score]
    notes += [f"{path}: takes the column {few(taken)}"] if taken else []
    return table.rename(columns=names)


def _plain(column: str) -> str:
    return re.sub(r"[^a-z0-9%.]", "", column.lower())


_USUAL |= {_plain(metric): metric for metric in METRICS}


def _known(column: str) -> str | None:
    """The metric that a column holds by its name; None for any other."""
    return _USUAL.get(_plain(column))


def _metrics(tables: Sequence[pd.DataFrame], requested: Sequence[str], notes: list[str]) -> tuple[str, ...]:
    shared = [c for c in tables[0].columns if all(c in table.columns for table in tables)]
    found = [metric if metric in shared else _known(metric) or metric for metric in requested]
    if missing := [metric for metric, name in zip(requested, found, strict=True) if name not in shared]:
        raise ValueError(f"not every table has the column {', '.join(missing)}; they share {few(shared, 12)}")
    if found:
        return tuple(dict.fromkeys(found))
    candidates = [c for c in shared if c not in ("case", *_KEYS)]
    numbers = [c for c in candidates if all(_is_number(table[c]) for table in tables)]
    chosen = [metric for metric in PAPER_METRICS if metric in candidates]
    if not chosen:
        known = [c for c in candidates if c in METRICS or _plain(c) in _SHARES]
        chosen = known if len(known) == 1 else numbers if len(numbers) == 1 else []
    if not chosen and not numbers:
        raise ValueError(f"the tables share no column of numbers; they share {few(shared, 12)}")
    if not chosen:
        raise ValueError(f"which column holds the score? choose one or more with --metric: {few(numbers, 12)}")
    if others := [c for c in numbers if c not in chosen]:
        notes.append(f"compared: {', '.join(chosen)}; not compared: {few(others)}; choose others with --metric")
    return tuple(chosen)


def _is_number(cells: pd.Series) -> bool:
    filled = cells[cells != ""]
    return len(filled) > 0 and bool(filled.map(_number).notna().all())


def _number(cell: str) -> float:
    """NaN for what is not a number."""
    try:
        return float(cell) if "_" not in cell else np.nan
    except ValueError:
        return np.nan


def _numbers(table: pd.DataFrame, metric: str, problems: list[str]) -> pd.Series:
    """The scores as numbers, NaN where there is no finite one, which is a problem."""
    cells = table[metric]
    read = cells.map(_number).astype(float)
    finite = read.where(np.isfinite(read))
    lines = []
    for loss, case, cell, number in zip(
        *(x[finite.isna()] for x in (table["loss"], table["case"], cells, read)), strict=True
    ):
        shown = "nothing" if cell == "" else str(number) if np.isinf(number) else repr(cell)
        why = f" (a false positive structure; {FINITE[metric]} has it)" if np.isinf(number) and metric in FINITE else ""
        lines.append(f"{loss}: {case} has {shown} for {metric}, not a finite number{why}; it is left out")
    problems += _folded(lines)
    return finite


def _bounds(metric: str) -> tuple[float, float]:
    """Least and largest possible score, as far as the metric is known."""
    if metric in METRICS:
        ends = METRICS[metric].range.strip("[]()").replace("−", "-").replace("∞", "inf").replace("D", "inf").split(", ")
        return float(ends[0]), float(ends[1])
    return (0.0, 1.0) if _plain(metric) in _SHARES else (-np.inf, np.inf)


def _percent(table: pd.DataFrame, metrics: Sequence[str]) -> dict[str, str]:
    """The methods whose scores between 0 and 1 were written as percent, each with its problem."""
    found: dict[str, str] = {}
    shares = [metric for metric in metrics if _bounds(metric) == (0, 1)]
    for loss, rows in table.groupby("loss", sort=False):
        for metric in shares:
            scores = rows[metric].dropna()
            if scores.between(0, 100).all() and (scores > 1.5).mean() > 0.5:
                found[str(loss)] = (
                    f"{loss}: {metric} is {scores.min():g} to {scores.max():g}, outside 0 to 1: percent? "
                    f"{loss} is left out; divide its scores by 100"
                )
    return found


def _in_range(table: pd.DataFrame, metric: str, problems: list[str]) -> pd.Series:
    """The scores, NaN for those that a known metric cannot have, which is a problem."""
    scores = table[metric]
    low, high = _bounds(metric)
    outside = (scores < low - _ROUNDING) | (scores > high + _ROUNDING)
    problems += _folded(
        f"{loss}: {case} has {score:g} for {metric}, outside {low:g} to {high:g}; it is left out"
        for loss, case, score in table.loc[outside, ["loss", "case", metric]].to_numpy().tolist()
    )
    return scores.where(~outside)


def _units(table: pd.DataFrame, metric: str) -> list[str]:
    """A note where one method's scores are about a hundred times another's, and the metric's range does not tell."""
    medians = table[metric].abs().groupby(table["loss"]).median().loc[lambda median: median > 0]
    if len(medians) < 2 or not 50 <= medians.max() / medians.min() <= 200 or _bounds(metric)[1] == 1:
        return []
    words = ", ".join(f"{loss} {median:.4g}" for loss, median in medians.items())
    return [f"{metric}: medians differ about 100 times ({words}); are all in the same unit?"]
