"""Per-case scores from any source → paired comparisons with pictures: what `shapeloss compare` does."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.errors import EmptyDataError, ParserError

from shapeloss.charts import figure_intervals, figure_scores
from shapeloss.files import atomic, write_text
from shapeloss.metrics import METRICS
from shapeloss.paired import equivalence, holm
from shapeloss.statistics import METRICS as HEADINGS
from shapeloss.statistics import case_means, compare_losses, format_p, paired_scores, summary_table, write_table
from shapeloss.style import save_figure

FINITE = {"volume_error_percent": "volume_error_mm3"}
"""Metrics that are infinite for an invented structure: those that are not."""
METHOD_COLUMNS = ("loss", "method", "model")
"""Columns that may tell methods apart within one file."""


@dataclass(frozen=True)
class ScoreTable:
    """Scores of several methods on the same cases."""

    table: pd.DataFrame
    """Columns `loss` (the method), `case`, `seed` if there are several, and the metrics; one row each."""
    metrics: tuple[str, ...]
    problems: tuple[str, ...]
    """Cases and files that are missing, duplicated or unreadable, a line each."""


def read_scores(
    paths: Sequence[str | Path], metrics: Sequence[str] = (), structure: str | None = None, case_column: str = "case"
) -> ScoreTable:
    """Read score tables: one row per case, or per case, method, seed and structure.

    Args:
        paths: CSV files; `name=file.csv` names the file's method. A file with a column `loss`, `method` or `model`
            holds several.
        metrics: score columns. Default: boundary Dice and Dice if all files have them, otherwise the first number
            column that they share.
        structure: which rows of a column `structure` to compare; default "mean", or the only one there is.
        case_column: name of the column of cases.

    Returns:
        The scores; a case that occurs twice for one method is left out of that method and named among the problems.

    Raises:
        ValueError: no two methods with scores are left; the problems are listed.
    """
    problems: list[str] = []
    tables: list[pd.DataFrame] = []
    for name, path in _named(paths):
        try:
            tables.append(_read(name if len(paths) > 1 else "", path, structure, case_column, problems))
        except (OSError, ValueError) as error:
            problems.append(" ".join(str(error).split()))
    if not tables:
        raise ValueError("no table could be read" + "".join(f"\n  - {problem}" for problem in problems))
    chosen = _metrics(tables, metrics)
    table = pd.concat(tables, ignore_index=True)
    keys = ["loss", "case"] + (["seed"] if "seed" in table.columns else [])
    table = table[[*keys, *chosen]]
    if "seed" in keys:
        table = table.assign(seed=table["seed"].fillna(0))  # a file without seeds beside one with them: one training
    twice = table.duplicated(keys, keep=False)
    for loss, case in table.loc[twice, ["loss", "case"]].drop_duplicates().to_numpy().tolist():
        problems.append(f"{loss}: {case} occurs more than once; it is left out, so remove the wrong rows")
    doubled = set(map(tuple, table.loc[twice, ["loss", "case"]].to_numpy().tolist()))
    table = table[[(loss, case) not in doubled for loss, case in zip(table["loss"], table["case"], strict=True)]]
    for metric in chosen:
        read = pd.to_numeric(table[metric], errors="coerce")
        numbers = read.where(np.isfinite(read))
        for row, infinite in zip(table[numbers.isna()].to_dict("records"), np.isinf(read[numbers.isna()]), strict=True):
            shown = "nothing" if pd.isna(row[metric]) else repr(row[metric])
            invented = f" (an invented structure; {FINITE[metric]} has it)" if infinite and metric in FINITE else ""
            problems.append(
                f"{row['loss']}: {row['case']} has {shown} for {metric}, not a finite number{invented}; it is left out"
            )
        table = table.assign(**{metric: numbers})
    everywhere = set(table["case"])
    for loss in dict.fromkeys(table["loss"]):
        if missing := sorted(everywhere - set(table.loc[table["loss"] == loss, "case"])):
            shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
            problems.append(f"{loss}: lacks {shown}, which another method has; a pair needs both")
    if table["loss"].nunique() < 2:
        found = ", ".join(table["loss"].astype(str).unique().tolist()) or "none"
        shown = "".join(f"\n  - {problem}" for problem in problems)
        raise ValueError(f"a comparison needs the scores of two methods; found {found}{shown}")
    return ScoreTable(table.reset_index(drop=True), chosen, tuple(problems))


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


def _read(name: str, path: Path, structure: str | None, case_column: str, problems: list[str]) -> pd.DataFrame:
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; check the name")
    try:
        table = pd.read_csv(path)
        if case_column in table.columns:  # apart, since a case may be called NA
            cases = pd.read_csv(path, usecols=[case_column], dtype=str, keep_default_na=False)
            table[case_column] = cases[case_column].str.strip()
    except (EmptyDataError, ParserError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is no CSV table ({error}); give one row per case") from error
    if case_column not in table.columns:
        columns = ", ".join(map(str, table.columns[:12]))
        raise ValueError(f"{path}: has no column {case_column!r}; it has {columns}; name it with --case-column")
    table = table.rename(columns={case_column: "case"})
    if nameless := int((table["case"] == "").sum()):
        problems.append(f"{path}: {nameless} row(s) have no case; they are left out, so name the case")
        table = table[table["case"] != ""]
    if table.empty:
        raise ValueError(f"{path}: has no rows; give one row per case")
    if "structure" in table.columns:
        present = list(dict.fromkeys(table["structure"].astype(str)))
        wanted = structure or ("mean" if "mean" in present else present[0] if len(present) == 1 else "")
        if wanted not in present:
            raise ValueError(
                f"{path}: has no structure {wanted!r}; choose one of {', '.join(present)} with --structure"
            )
        table = table[table["structure"].astype(str) == wanted]
    column = next((c for c in METHOD_COLUMNS if c in table.columns), None)
    if column is None:
        return table.assign(loss=name or path.stem)
    methods = table[column].astype(str)
    if not name:
        return table.assign(loss=methods)
    return table.assign(loss=name if methods.nunique() == 1 else f"{name}:" + methods)


def _metrics(tables: Sequence[pd.DataFrame], wanted: Sequence[str]) -> tuple[str, ...]:
    shared = [c for c in tables[0].columns if all(c in table.columns for table in tables)]
    if missing := [metric for metric in wanted if metric not in shared]:
        raise ValueError(f"not every table has the column {', '.join(missing)}; they share {', '.join(shared)}")
    chosen = tuple(wanted) or tuple(metric for metric in HEADINGS if metric in shared)
    keys = {"loss", "case", "seed", "structure", "fold", "missed", "invented", "absent"}
    numbers = [c for c in shared if c not in keys and all(table[c].dtype.kind in "fiu" for table in tables)]
    if not chosen and not numbers:
        raise ValueError(f"the tables share no column of numbers; they share {', '.join(shared)}")
    return chosen or (numbers[0],)


def compare_scores(
    scores: ScoreTable, output: str | Path, reference: str | None = None, margin: float | None = None
) -> str:
    """Test every method against one, and write the table, the tests and two figures per metric.

    Files: `comparison.md`, `table.csv/.md/.tex`, `tests.csv`, `scores.png/.pdf` (pairs) and `differences.png/.pdf`
    (intervals).

    Args:
        scores: from :func:`read_scores`.
        output: folder.
        reference: the method that the others are compared with; default the first.
        margin: in the unit of the metric: below it, a difference does not matter. Adds tests of equivalence.

    Returns:
        `comparison.md`.

    Raises:
        ValueError: no such reference, or a margin that is not positive.
    """
    if margin is not None and not (np.isfinite(margin) and margin > 0):
        raise ValueError(f"margin must be positive, in the unit of the metric; got {margin}")
    table, folder = scores.table, Path(output)
    methods = list(dict.fromkeys(table["loss"]))
    reference = methods[0] if reference is None else reference
    if reference not in methods:
        raise ValueError(f"no method {reference!r}; there are {', '.join(methods)}")
    headings = {metric: HEADINGS.get(metric, metric) for metric in scores.metrics}
    tests = compare_losses(table, reference, scores.metrics)
    if margin is not None:
        tests = tests.assign(margin=margin, p_equivalence=_equivalence(table, tests, margin))
    note = f"Tables: {len(methods)} methods, {table['case'].nunique()} cases."
    write_table(summary_table(table, reference=reference, metrics=scores.metrics), folder / "table", note, headings)
    with atomic(folder / "tests.csv") as temporary:
        tests.to_csv(temporary, index=False)
    save_figure(figure_scores(table, headings), folder / "scores")
    for metric, heading in headings.items():
        rows = tests[tests["metric"] == metric]
        label = f"{heading}: {reference} − other" + _unit(metric)
        suffix = "" if len(headings) == 1 else f"_{re.sub(r'[^A-Za-z0-9.]+', '_', metric)}"
        save_figure(figure_intervals(_intervals(rows, margin), label), folder / f"differences{suffix}")
    page = _page(scores, tests, headings, reference, margin, (folder / "table.md").read_text(encoding="utf-8"))
    write_text(folder / "comparison.md", page)
    return page


def _equivalence(table: pd.DataFrame, tests: pd.DataFrame, margin: float) -> np.ndarray:
    """Holm-corrected p of two one-sided Wilcoxon tests, for each row of `tests`."""
    p = np.full(len(tests), np.nan)
    means = case_means(table, list(dict.fromkeys(tests["metric"])))
    for index, row in enumerate(tests.to_dict("records")):
        pair, _ = paired_scores(means[row["metric"]], row["reference"], row["loss"])
        if len(pair) > 1:
            p[index] = equivalence((pair["reference"] - pair["other"]).to_numpy(), margin, test="wilcoxon").p
    for metric in tests["metric"].unique():
        rows = (tests["metric"] == metric).to_numpy()
        p[rows] = holm(p[rows])
    return p


def _intervals(tests: pd.DataFrame, margin: float | None) -> pd.DataFrame:
    """What :func:`figure_intervals` draws: Hodges–Lehmann estimates with the interval that inverts the test."""
    ends = (np.nan, np.nan) if margin is None else (-margin, margin)
    return pd.DataFrame({
        "comparison": "against " + tests["loss"], "estimate": tests["hodges_lehmann"], "low": tests["hl_low"],
        "high": tests["hl_high"], "margin_low": ends[0], "margin_high": ends[1],
    })  # fmt: skip


def _unit(metric: str) -> str:
    unit = METRICS[metric].unit if metric in METRICS else "1"
    return "" if unit == "1" else f" ({unit})"


def _page(
    scores: ScoreTable,
    tests: pd.DataFrame,
    headings: Mapping[str, str],
    reference: str,
    margin: float | None,
    table: str,
) -> str:
    lines = [f"# {reference} against {', '.join(tests['loss'].unique())}", "", table.strip(), ""]
    for metric, heading in headings.items():
        direction = METRICS[metric].direction if metric in METRICS else ""
        better = {"higher": ", higher is better", "lower": ", lower is better"}.get(direction, "")
        extra = ["p (equivalence)"] if margin is not None else []
        header = ["against", "difference", "95 % interval", "p", "p (Holm)", *extra, "n", "smallest detectable", "note"]
        lines += [f"## {heading}{_unit(metric)}{better}", "", f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
        for row in tests[tests["metric"] == metric].to_dict("records"):
            interval = f"{row['hl_low']:+.4g} to {row['hl_high']:+.4g}"
            cells = [row["loss"], f"{row['hodges_lehmann']:+.4g}", interval, format_p(row["p_wilcoxon"])]
            cells += [format_p(row["p_holm"])] + ([format_p(row["p_equivalence"])] if extra else [])
            cells += [str(row["n"]), f"{row['detectable']:.4g}", row["note"]]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    lines += [
        f"Differences are {reference} − other: Hodges–Lehmann estimates, with the interval that inverts the exact",
        "two-sided Wilcoxon signed-rank test, of differences without ties, over the cases (seeds averaged first).",
        "Holm's correction is over the rows of a table; the intervals are not corrected. Smallest detectable: the true",
        "difference that so many cases with this spread would show with a power of 80 %. A large p is no proof of",
        "equality.",
    ]  # fmt: skip
    if margin is not None:
        lines[-1] += f" Equivalence: two one-sided Wilcoxon tests with margin {margin:g}."
    if scores.problems:
        lines += ["", f"## {len(scores.problems)} problem(s)", "", *[f"- {problem}" for problem in scores.problems]]
    return "\n".join(lines) + "\n"
