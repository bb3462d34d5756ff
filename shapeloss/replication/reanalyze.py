"""Are committed tables, verdicts and figures those of the committed scores? Made again from these, and compared."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isclose
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from shapeloss._files import write_text
from shapeloss.plotting.agreement import figure_agreement
from shapeloss.plotting.distances import figure_calibration
from shapeloss.plotting.style import save_figure
from shapeloss.replication.agreement import on_common_cases
from shapeloss.replication.analysis import Evaluation, analyse, read_evaluation
from shapeloss.replication.biomarkers import shown_biomarkers, write_agreement
from shapeloss.replication.multi_task import compare_rows, multi_task_page, multi_task_rows
from shapeloss.replication.paper import Paper
from shapeloss.replication.scores import MEASURED, RECORD, SCORES, read_measured, write_sealed
from shapeloss.replication.shape_errors import write_shape_errors
from shapeloss.replication.study import BOUNDARY, TRAININGS, read_study
from shapeloss.replication.study_figures import write_study

TEXTS, PICTURES, PAGES = (".csv", ".md", ".tex"), (".png",), (".html",)
SAME_PICTURE = 2.0
"""Root mean square difference of grey values (0 to 255) up to which two pictures are the same: another version of a
library draws text a little otherwise."""

SAME_NUMBER = 1e-9
"""Relative difference up to which two numbers of a CSV are the same: processors round their last digits otherwise."""


@dataclass(frozen=True)
class Comparison:
    """One file that was made again."""

    name: str
    problem: str
    """Empty where it is the committed one."""


def remake(folder: str | Path, paper: Paper, output: str | Path) -> None:
    """Make everything that follows from the scores of a folder, and write it to another."""
    analyse(folder, paper, output)
    if (Path(folder) / TRAININGS).is_file():
        write_study(read_study(folder), paper, read_evaluation(folder).source, output)


def remake_pages(folder: str | Path, paper: Paper, output: str | Path) -> None:
    """Make the pages of the second heads, biomarkers and shape errors from the tables that notebooks 07 and 08 wrote
    beside the scores, where they are there."""
    folder, output = Path(folder), Path(output)
    evaluation = read_evaluation(folder)
    if (folder / "heads.csv").is_file():
        _multi_task(folder, evaluation, paper, output)
    if (folder / "biomarkers.csv").is_file():
        rows = read_measured(folder / "biomarkers.csv", dtype={"case": str, "reason": str}).fillna({"reason": ""})
        write_agreement(rows, output / "biomarkers.md")
        save_figure(figure_agreement(on_common_cases(rows), shown_biomarkers(rows)), output / "biomarkers")
    if (folder / "shape_errors.csv").is_file():
        source = _source(folder / "shape_errors.md", evaluation)
        write_shape_errors(read_measured(folder / "shape_errors.csv"), output / "shape_errors.md", source)


def _multi_task(folder: Path, evaluation: Evaluation, paper: Paper, output: Path) -> None:
    structures = evaluation.scores["structure"].nunique() - 2  # less "mean" and "merged"
    rows = multi_task_rows(evaluation.experiment, structures + 1)
    compared = write_sealed(compare_rows(evaluation.means, rows), output / "multi_task.csv")
    heads, weights = (read_measured(folder / name) for name in ("heads.csv", "learnt_weights.csv"))
    source = _source(folder / "multi_task.md", evaluation)
    page = multi_task_page(compared, heads, weights, paper.smallest_claimed(BOUNDARY), source)
    write_text(output / "multi_task.md", page)
    save_figure(figure_calibration(read_measured(folder / "calibration.csv")), output / "calibration")


def _source(page: Path, evaluation: Evaluation) -> str:
    """Where the numbers of a page come from: as those of the scores, but for the commit, which the page alone names.

    Its table may have been measured later than the scores.
    """
    last = page.read_text(encoding="utf-8").rstrip().rpartition("\n")[2] if page.is_file() else ""
    named = re.search(r" Commit: ([^;.\s]+)", last)
    own = replace(evaluation.provenance, commit=named[1]) if named else evaluation.provenance
    return own.line(evaluation.experiment)


def reanalyze(folder: str | Path, paper: Paper, output: str | Path | None = None) -> list[Comparison]:
    """Make everything that follows from the scores of a folder again, and compare it with what lies there.

    Args:
        folder: of figures, with what :func:`shapeloss.replication.measure.measure` wrote.
        paper: whose claims are tested.
        output: keeps what was made; default nowhere.

    Returns:
        A row for each file that was made again: tables, verdicts, the figures of scores, and the pages of a study, of
        second heads, biomarkers and shape errors.

    Raises:
        FileNotFoundError: the folder holds no such scores.
    """
    folder = Path(folder)
    with TemporaryDirectory() as temporary:
        made = Path(output or temporary)
        remake(folder, paper, made)
        remake_pages(folder, paper, made)
        names = sorted(path.name for path in made.iterdir() if path.suffix in (*TEXTS, *PICTURES))
        return [Comparison(name, _difference(folder / name, made / name)) for name in names]


def _difference(committed: Path, made: Path) -> str:
    """How two files differ, in words; empty where they do not."""
    if not committed.is_file():
        return "is not there"
    if committed.read_bytes() == made.read_bytes():
        return ""
    if made.suffix in PICTURES:
        return _picture_difference(committed, made)
    old, new = (path.read_text(encoding="utf-8").splitlines() for path in (committed, made))
    table = made.suffix == ".csv"
    for number, (a, b) in enumerate(zip(old, new, strict=False), 1):
        if a != b and not (table and _same_numbers(a, b)):
            place = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            start = max(0, place - 20)
            return f"line {number} has …{a[start : place + 30]!r}, the scores give …{b[start : place + 30]!r}"
    if table and len(old) == len(new):
        return ""
    return f"has {len(old)} lines, the scores give {len(new)}"


def _same_numbers(first: str, second: str) -> bool:
    """Do two rows of a CSV differ in the last digits of their numbers alone?"""

    def same(a: str, b: str) -> bool:
        try:
            return a == b or isclose(float(a), float(b), rel_tol=SAME_NUMBER)
        except ValueError:  # text
            return False

    cells, others = first.split(","), second.split(",")
    return len(cells) == len(others) and all(map(same, cells, others))


def _picture_difference(committed: Path, made: Path) -> str:
    pictures = []
    for path in (committed, made):
        with Image.open(path) as image:
            pictures.append(np.asarray(image.convert("L"), dtype=float))
    first, second = pictures
    if first.shape != second.shape:
        return f"is {first.shape[1]} × {first.shape[0]} pixels, the scores give {second.shape[1]} × {second.shape[0]}"
    apart = float(np.sqrt(np.mean((first - second) ** 2)))
    return f"is another picture (grey values differ by {apart:.1f} of 255)" if apart > SAME_PICTURE else ""


def not_remade(folder: str | Path, comparisons: Sequence[Comparison]) -> list[str]:
    """The tables, pages and pictures of a folder that were not made again, as they need more than its tables: volumes,
    predictions, or the files of other steps. Measured tables, which all is made from, do not count."""
    made = {comparison.name for comparison in comparisons} | MEASURED
    paths = sorted(Path(folder).iterdir())
    return [path.name for path in paths if path.suffix in (*TEXTS, *PICTURES, *PAGES) and path.name not in made]


def result_folders(figures: str | Path) -> list[Path]:
    """The folders below one, itself included, that hold measured scores."""
    figures = Path(figures)
    return [path.parent for path in sorted(figures.rglob(RECORD))]


def unrecorded_folders(figures: str | Path) -> Iterator[Path]:
    """The folders below one, itself included, whose scores have no record of what they are of."""
    folders = (path.parent for path in sorted(Path(figures).rglob(SCORES)))
    return (folder for folder in folders if not (folder / RECORD).is_file())


def report(found: Sequence[tuple[Path, list[Comparison]]]) -> tuple[str, int]:
    """All comparisons as lines, with what was not made again, and the number of files that differ."""
    lines, wrong = [], 0
    for folder, comparisons in found:
        bad = [c for c in comparisons if c.problem]
        wrong += len(bad)
        state = "as the scores give them" if not bad else f"{len(bad)} of {len(comparisons)} differ"
        lines.append(f"{folder}: {len(comparisons)} files, {state}")
        lines += [f"  {c.name}: {c.problem}" for c in bad]
        if left := not_remade(folder, comparisons):
            lines.append(f"  not remade, as it takes more than these tables: {', '.join(left)}")
    return "\n".join(lines), wrong
