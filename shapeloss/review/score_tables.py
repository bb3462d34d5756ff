"""Per-case scores of several methods from CSV tables: what is read, what is left out, and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

import pandas as pd

from shapeloss.review.score_names import (
    CASE_COLUMNS,
    METHOD_COLUMNS,
    STRUCTURE_COLUMNS,
    known_score,
    plain,
    unit,
)
from shapeloss.review.score_numbers import (
    folded,
    in_range,
    is_number,
    named_percent,
    read_number,
    read_numbers,
    undeclared_percent,
    unit_notes,
)
from shapeloss.stats.headings import PAPER_METRICS
from shapeloss.stats.read_table import few, read_table

_KEYS = (*METHOD_COLUMNS, "structure", "seed", "fold", "missed", "false_positive", "absent")
_OWN = ("case", "subgroup", *_KEYS)
"""Columns that hold no scores."""
_NAMES = (
    *CASE_COLUMNS,
    *(f"{name}{mark}id" for name in ("case", *CASE_COLUMNS[2:5]) for mark in " _-"),
    *STRUCTURE_COLUMNS,
)
_MOST_GROUPS = 20
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
    understood: tuple[str, ...] = ()
    """A line for each file: its cases and methods, and which column is taken for what."""
    groups: Mapping[str, str] = field(default_factory=dict)
    """Case → subgroup, for the cases that have one."""
    subgroup: str = ""
    """The column that the subgroups come from."""


@dataclass(frozen=True)
class _Options:
    """Arguments of :func:`read_scores`."""

    metrics: tuple[str, ...]
    structure: str | None
    case_column: str
    keep_summaries: bool
    wide: bool
    subgroup: str


@dataclass(frozen=True)
class _File:
    """One table: columns `loss`, `case` and scores, as text, and which columns of the file they were."""

    path: Path
    table: pd.DataFrame
    columns: Mapping[str, str]


def read_scores(
    paths: Sequence[str | Path],
    metrics: Sequence[str] = (),
    structure: str | None = None,
    case_column: str = "",
    keep_summaries: bool = False,
    wide: bool = False,
    percent: Sequence[str] = (),
    subgroup: str = "",
) -> ScoreTable:
    """Read score tables: one row per case, or per case, method, seed and structure.

    Args:
        paths: CSV files (see :func:`shapeloss.stats.read_table.read_table`); `name=file.csv` names the file's method. A
            file with a column `loss`, `method`, `model`, `algorithm` or `network` holds several.
        metrics: score columns. Default: boundary Dice and Dice, by their usual names in any case, if all files have
            them; otherwise the only known score, or the only column of numbers.
        structure: which rows of a column `structure` (or `label`, `class`, `organ`, `ROI`) to compare; default "mean",
            or the only one there is.
        case_column: name of the column of cases. Default: the only one called `case`, `ID`, `subject`, `patient`,
            `image` or `filename`, in any case.
        keep_summaries: rows called mean, std, total, … are cases; by default they are left out and noted.
        wide: each column of numbers is a method, and holds the one score that `metrics` names.
        percent: methods or scores that are written as percent: their shares of 1 are divided by 100. Cells with a %
            sign need none of this.
        subgroup: a column, such as sex or grade, that divides the cases; it may stand in one of the files alone.

    Returns:
        The scores; a case that occurs twice for one method is left out of that method and named among the problems,
        as are scores outside the range of a known metric.

    Raises:
        ValueError: no two methods with scores are left, the score column or the cases' is not clear, a case has two
            subgroups, or an argument names nothing; the problems are listed.
    """
    if wide and len(metrics) != 1:
        raise ValueError("--wide: name the one score that the columns hold, such as --metric dice --wide")
    options = _Options(tuple(metrics), structure, case_column, keep_summaries, wide, subgroup)
    problems: list[str] = []
    notes: list[str] = []
    files: list[_File] = []
    for name, path in _named(paths):
        try:
            files.append(_read(name if len(paths) > 1 else "", path, options, problems, notes))
        except (OSError, ValueError) as error:
            problems.append(" ".join(str(error).split()))
    if not files:
        raise ValueError("no table could be read" + listed(problems))
    chosen = _metrics([file.table for file in files], metrics, notes)
    groups = _groups(files, subgroup, notes) if subgroup else {}
    table = pd.concat([file.table.assign(file=place) for place, file in enumerate(files)], ignore_index=True)
    keys = ["loss", "case"] + (["seed"] if "seed" in table.columns else [])
    table = table[[*keys, "file", *chosen]]
    if "seed" in keys:  # a file without seeds beside one with them: one training
        table = table.assign(seed=table["seed"].fillna("").replace("", "0"))
    doubled = table.loc[table.duplicated(keys, keep=False), ["loss", "case"]].drop_duplicates()
    problems += folded(
        f"{loss}: {case} occurs more than once; it is left out, so remove the wrong rows"
        for loss, case in doubled.to_numpy().tolist()
    )
    if len(doubled):
        twice = pd.MultiIndex.from_frame(table[["loss", "case"]]).isin(pd.MultiIndex.from_frame(doubled))
        table = table[~twice]
    table, in_percent = _as_numbers(table, chosen, percent, problems, notes)
    understood = [
        _understood(file, chosen, in_percent[table["file"] == place].any(), wide) for place, file in enumerate(files)
    ]
    refused = undeclared_percent(table, chosen)
    problems += refused.values()
    table = table[~table["loss"].isin(list(refused))].drop(columns="file")
    for metric in chosen:
        table = table.assign(**{metric: in_range(table, metric, problems)})
        notes += unit_notes(table, metric)
    everywhere = set(table["case"])
    for loss, cases in table.groupby("loss", sort=False)["case"]:
        if missing := sorted(everywhere - set(cases)):
            problems.append(f"{loss}: lacks {few(missing)}, which another method has; a pair needs both")
    if table["loss"].nunique() < 2:
        found = ", ".join(table["loss"].unique().tolist()) or "none"
        raise ValueError(f"a comparison needs the scores of two methods; found {found}{listed(problems)}")
    return ScoreTable(
        table.reset_index(drop=True), chosen, tuple(problems), tuple(notes), tuple(understood), groups, subgroup
    )


def _as_numbers(
    table: pd.DataFrame, metrics: Sequence[str], percent: Sequence[str], problems: list[str], notes: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table with numbers as scores, percent divided by 100; and which of the cells were percent."""
    signed = pd.DataFrame({metric: table[metric].str.endswith("%") for metric in metrics})
    for metric in metrics:
        table = table.assign(**{metric: read_numbers(table, metric, problems)})
        if signs := int(signed[metric].sum()):
            what = "numbers of %" if unit(metric) == "%" else "percent"
            notes.append(f"{metric}: {signs} cell(s) with a % sign are read as {what}")
    named = named_percent(table, metrics, signed, percent)
    for metric in metrics:
        table = table.assign(**{metric: table[metric].where(~named[metric], table[metric] / 100)})
    return table, signed | named


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


def _read(name: str, path: Path, options: _Options, problems: list[str], notes: list[str]) -> _File:
    text_columns = (options.case_column.lower(), options.subgroup.lower(), *_NAMES, *_KEYS)
    table, read_notes = read_table(path, text_columns)
    notes += read_notes
    table, columns = _by_usual_names(path, table, options)
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
    if summaries.any() and not options.keep_summaries:
        names = few(table.loc[summaries, "case"].drop_duplicates())
        if summaries.all():
            raise ValueError(
                f"{path}: has only rows that summarise cases ({names}); give one row per case, or --keep-summaries if "
                "these are their names"
            )
        notes.append(
            f"{path}: {summaries.sum()} row(s) that summarise the cases are left out: {names}; if they are cases, "
            "keep them with --keep-summaries"
        )
        table = table[~summaries]
    if "structure" in table.columns:
        present = table["structure"].unique().tolist()
        requested = options.structure or ("mean" if "mean" in present else present[0] if len(present) == 1 else "")
        if requested not in present:
            fault = f"has no structure {requested!r}" if requested else f"has several in {columns['structure']!r}"
            raise ValueError(f"{path}: {fault}; choose one of {few(present)} with --structure")
        table = table[table["structure"] == requested]
        columns["structure"] += f" ({requested})"
    if options.wide:
        table, column = _melted(path, table, column, options, notes), "method"
    elif column:
        columns["method"] = columns.pop(column)
    if column is None:
        table = table.assign(loss=name or path.stem)
    elif not name:
        table = table.assign(loss=table[column])
    else:
        table = table.assign(loss=name if table[column].nunique() == 1 else f"{name}:" + table[column])
    return _File(path, table, columns)


def _melted(path: Path, table: pd.DataFrame, column: str | None, options: _Options, notes: list[str]) -> pd.DataFrame:
    """One row per case and method, of a table with a column for each method."""
    if column:
        raise ValueError(f"{path}: has a column {column!r} of methods, so each row is of one; leave --wide out")
    others = [c for c in table.columns if c not in _OWN]
    methods = [c for c in others if table[c].map(read_number).notna().any()]
    if not methods:
        raise ValueError(f"{path}: has no column of numbers; with --wide, give a column for each method")
    if left_out := [c for c in others if c not in methods]:
        notes.append(f"{path}: {few(left_out)} without numbers: no method, left out")
    score = known_score(options.metrics[0]) or options.metrics[0]
    kept = [c for c in table.columns if c in _OWN]
    return table.melt(kept, methods, var_name="method", value_name=score)


def _by_usual_names(path: Path, table: pd.DataFrame, options: _Options) -> tuple[pd.DataFrame, dict[str, str]]:
    """The table with its columns under the names used here; and which column of the file each of them was."""
    case = _case_column(path, list(table.columns), options.case_column)
    table = table.drop(columns=[c for c in table.columns if c == "case" and c != case])
    names = {case: "case"}
    if options.subgroup:
        alike = [c for c in table.columns if c == options.subgroup] or [
            c for c in table.columns if c.lower() == options.subgroup.lower()
        ]
        names |= {alike[0]: "subgroup"} if alike and alike[0] not in names else {}
    for key in _KEYS:
        alike = [c for c in table.columns if c.lower() == key and c not in names]
        names |= {alike[0]: key} if len(alike) == 1 else {}
    if "structure" not in names.values() and (found := _structure_column(path, table, names, options.structure)):
        names[found] = "structure"
    known: dict[str, list[str]] = {}
    for column in table.columns:
        if column not in names and not options.wide and (score := known_score(column)):
            known.setdefault(score, []).append(column)
    for score, alike in known.items():
        if score in alike or len(alike) == 1:
            names[score if score in alike else alike[0]] = score
    table = table.drop(columns=[c for c in table.columns if c == "subgroup" and names.get(c) != "subgroup"])
    return table.rename(columns=names), {name: column for column, name in names.items()}


def _case_column(path: Path, columns: Sequence[str], asked: str) -> str:
    found = [c for c in columns if c == asked] or [c for c in columns if c.lower() == asked.lower()]
    if not asked:
        found = [c for c in columns if plain(c) in CASE_COLUMNS]
    if len(found) > 1:
        both = " and ".join(map(repr, found))
        raise ValueError(f"{path}: {both} could each be the column of cases; choose one with --case-column")
    if not found:
        raise ValueError(
            f"{path}: has no column {asked or 'case'!r}; it has {few(columns, 12)}; name it with --case-column"
        )
    return found[0]


def _structure_column(path: Path, table: pd.DataFrame, names: Mapping[str, str], structure: str | None) -> str | None:
    """A column of another usual name, such as `label`, if rows of a case differ by it or a structure is asked for."""
    found = [c for c in table.columns if c not in names and plain(c) in STRUCTURE_COLUMNS]
    keys = [column for column, name in names.items() if name in ("case", "seed", *METHOD_COLUMNS)]
    if not found or not (structure or table.duplicated(keys).any()):
        return None
    if len(found) > 1:
        both = " and ".join(map(repr, found))
        raise ValueError(f"{path}: {both} could each be the structure; rename the right one structure")
    return found[0]


def _metrics(tables: Sequence[pd.DataFrame], requested: Sequence[str], notes: list[str]) -> tuple[str, ...]:
    shared = [c for c in tables[0].columns if all(c in table.columns for table in tables)]
    candidates = [c for c in shared if c not in _OWN]
    numbers = [c for c in candidates if all(is_number(table[c]) for table in tables)]
    known = [c for c in candidates if known_score(c)]
    example = f"--metric {quote(requested[0]) if requested else 'dice'} --wide"
    wide = "" if known or len(numbers) < 2 else f"; if each of these is a method, say so: {example}"
    found = [metric if metric in shared else known_score(metric) or metric for metric in requested]
    if missing := [metric for metric, name in zip(requested, found, strict=True) if name not in shared]:
        raise ValueError(f"not every table has the column {', '.join(missing)}; they share {few(shared, 12)}{wide}")
    if found:
        return tuple(dict.fromkeys(found))
    chosen = [metric for metric in PAPER_METRICS if metric in candidates]
    if not chosen:
        chosen = known if len(known) == 1 else numbers if len(numbers) == 1 else []
    if not chosen and not numbers:
        raise ValueError(f"the tables share no column of numbers; they share {few(shared, 12)}")
    if not chosen:
        raise ValueError(f"which column holds the score? choose one or more with --metric: {few(numbers, 12)}{wide}")
    if others := [c for c in numbers if c not in chosen]:
        notes.append(f"compared: {', '.join(chosen)}; not compared: {few(others)}; choose others with --metric")
    return tuple(chosen)


def _groups(files: Sequence[_File], subgroup: str, notes: list[str]) -> dict[str, str]:
    """Case → its value in the column of subgroups, from all files that have it."""
    having = [file for file in files if "subgroup" in file.table.columns]
    if not having:
        shared = list(files[0].columns.values())
        raise ValueError(f"--subgroup {subgroup}: no table has this column; {files[0].path} has {few(shared, 12)}")
    found: dict[str, tuple[str, Path]] = {}
    for file in having:
        rows = file.table.loc[file.table["subgroup"] != "", ["case", "subgroup"]].drop_duplicates()
        for case, value in rows.to_numpy().tolist():
            before, place = found.setdefault(case, (value, file.path))
            if before != value:
                raise ValueError(
                    f"--subgroup {subgroup}: {case} is {before!r} in {place} and {value!r} in {file.path}; a case has "
                    "one value, so correct the wrong one"
                )
    groups = {case: value for case, (value, _) in found.items()}
    if (number := len(set(groups.values()))) > _MOST_GROUPS:
        raise ValueError(
            f"--subgroup {subgroup}: has {number} different values; give at most {_MOST_GROUPS}, such as young and old"
        )
    if without := sorted({case for file in files for case in file.table["case"]} - set(groups)):
        notes.append(f"{few(without)}: no {subgroup}, in no subgroup")
    return groups


def _understood(file: _File, metrics: Sequence[str], percent: pd.Series, wide: bool) -> str:
    """One line: the cases and methods of a file, and which columns they and the scores were."""
    methods = file.table["loss"].unique().tolist()
    cases = file.table["case"].nunique()
    seeds = file.table["seed"].nunique() if "seed" in file.table.columns else 1
    text = f"{file.path}: {cases} case{'s' if cases != 1 else ''} of method{'s' if len(methods) > 1 else ''} "
    text += few(methods) + (f", {seeds} seeds" if seeds > 1 else "")
    parts = []
    for name in ("case", "method", "structure", "subgroup", *metrics):
        if name in metrics and wide:
            parts.append(f"{name} in a column for each method")
        elif name in file.columns or name in metrics:
            column = file.columns.get(name, name)
            parts.append(name if column == name else f"{name} = {column}")
        if percent.get(name, False):
            parts.append("percent")
    return f"{text}; {', '.join(parts)}"
