"""Are committed tables, verdicts and figures those of the committed scores? Made again from these, and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from shapeloss.replication.analysis import analyse, read_evaluation
from shapeloss.replication.paper import Paper
from shapeloss.replication.scores import RECORD
from shapeloss.replication.study import TRAININGS, read_study
from shapeloss.replication.study_figures import write_study

TEXTS, PICTURES = (".csv", ".md", ".tex"), (".png",)
SAME_PICTURE = 2.0
"""Root mean square difference of grey values (0 to 255) up to which two pictures are the same: another version of a
library draws text a little otherwise."""


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


def reanalyze(folder: str | Path, paper: Paper, output: str | Path | None = None) -> list[Comparison]:
    """Make everything that follows from the scores of a folder again, and compare it with what lies there.

    Args:
        folder: of figures, with what :func:`shapeloss.replication.measure.measure` wrote.
        paper: whose claims are tested.
        output: keeps what was made; default nowhere.

    Returns:
        A row for each file that was made again: tables, verdicts, and the figures of scores.

    Raises:
        FileNotFoundError: the folder holds no such scores.
    """
    folder = Path(folder)
    with TemporaryDirectory() as temporary:
        made = Path(output or temporary)
        remake(folder, paper, made)
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
    for number, (a, b) in enumerate(zip(old, new, strict=False), 1):
        if a != b:
            place = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            start = max(0, place - 20)
            return f"line {number} has …{a[start : place + 30]!r}, the scores give …{b[start : place + 30]!r}"
    return f"has {len(old)} lines, the scores give {len(new)}"


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


def result_folders(figures: str | Path) -> list[Path]:
    """The folders below one, itself included, that hold measured scores."""
    figures = Path(figures)
    return [path.parent for path in sorted(figures.rglob(RECORD))]


def report(found: Sequence[tuple[Path, list[Comparison]]]) -> tuple[str, int]:
    """All comparisons as lines, and the number of files that differ."""
    lines, wrong = [], 0
    for folder, comparisons in found:
        bad = [c for c in comparisons if c.problem]
        wrong += len(bad)
        state = "as the scores give them" if not bad else f"{len(bad)} of {len(comparisons)} differ"
        lines.append(f"{folder}: {len(comparisons)} files, {state}")
        lines += [f"  {c.name}: {c.problem}" for c in bad]
    return "\n".join(lines), wrong
