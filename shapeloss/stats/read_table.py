"""CSV tables as spreadsheets, pandas and editors write them; every cell stays text, and what was guessed is said."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_LINE = re.compile(r"\r\n|\r|\n")
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?(\s?%)?")
_THOUSAND = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
_POINT = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?(\s?%)?")


def read_table(path: str | Path, names: Sequence[str] = ()) -> tuple[pd.DataFrame, list[str]]:
    """Read a CSV file: commas, semicolons or tabs; decimal points or commas; UTF-8, UTF-16 or Windows-1252.

    Args:
        path: the file.
        names: columns of names, in lower case, whose cells are never taken for numbers.

    Returns:
        The cells as text without space around them, "" where there is none, under the header's names, which are
        unique; the index is the line in the file. And a line for each thing that was guessed or left out.

    Raises:
        OSError: the file cannot be read.
        ValueError: no such table; the message names the file, the fault and a remedy.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: {'is a folder' if path.is_dir() else 'there is no such file'}; check the name")
    text, encoding = _decode(path)
    lines = _LINE.split(text)
    declared = lines[0].strip(" ")[4:] if lines[0].lower().startswith("sep=") else ""  # Excel's line
    head = next((line for line in lines[bool(declared) :] if line.strip()), "")
    separator = max(_SEPARATORS, key=lambda mark: len(next(csv.reader([head], delimiter=mark), [])))
    separator = declared if declared in _SEPARATORS else separator
    records: list[list[str]] = []
    places: list[int] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        if declared:
            next(reader)
        for record in reader:
            cells = [cell.strip() for cell in record]
            if any(cells):
                records.append(cells)
                places.append(reader.line_num)
    except csv.Error as error:
        raise ValueError(f"{path}: is not a CSV table: line {reader.line_num}: {error}") from error
    if not records:
        raise ValueError(f"{path}: is not a CSV table: it is empty")
    header, *rows = records
    _check_header(path, header)
    if wide := [
        place for place, row in zip(places[1:], rows, strict=True) if len(row) > len(header) and any(row[len(header) :])
    ]:
        raise ValueError(
            f"{path}: has more cells than the {len(header)} columns of the header in line {few(wide)}; a "
            f"cell with {_SEPARATORS[separator]} in it needs quotes"
        )
    rows = [row if len(row) == len(header) else (row + [""] * len(header))[: len(header)] for row in rows]
    table = pd.DataFrame(rows, columns=header, index=places[1:], dtype=object)
    guessed = [] if separator == "," else [_SEPARATORS[separator]]
    guessed += [encoding] if encoding else []
    if _decimal_commas(path, table, names, separator):
        guessed.append("decimal commas")
    notes = [f"{path}: was read with {' and '.join(guessed)}"] if guessed else []
    if "" in header:
        table = table.loc[:, [bool(name) for name in header]]
        notes.append(f"{path}: the column without a name is left out")
    return table, notes


def _decode(path: Path) -> tuple[str, str]:
    """The text, and its encoding where that had to be guessed or is unusual."""
    data = path.read_bytes()
    if data.startswith(b"PK\x03\x04"):
        raise ValueError(f"{path}: is a spreadsheet or another zip archive, no CSV table; save it as CSV")
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text, shown = data.decode(encoding), encoding.upper() if encoding == "utf-16" else ""
    except UnicodeDecodeError:
        if encoding == "utf-16":
            raise ValueError(f"{path}: is not a CSV table: it is not valid UTF-16; save it as UTF-8") from None
        text, shown = data.decode("cp1252", errors="replace"), "the encoding Windows-1252"
    if binary := re.search(r"[\x00-\x08\x0e-\x1f\x7f\ufffd]", text):
        what = f"it holds the character {binary.group()!a}, as binary files or UTF-16 without its mark do"
        raise ValueError(f"{path}: is not a CSV table: {what}; save it as CSV in UTF-8")
    return text, shown


def _check_header(path: Path, header: list[str]) -> None:
    while header and not header[-1]:
        header.pop()  # a spreadsheet's empty columns at the right
    if twice := [name for name, count in Counter(header).items() if name and count > 1]:
        raise ValueError(f"{path}: has two columns called {few(repr(name) for name in twice)}; rename one of them")


def _decimal_commas(path: Path, table: pd.DataFrame, names: Sequence[str], separator: str) -> bool:
    """Turn decimal commas into points; whether there were any. "1,234" between commas may be a thousand: it stays."""
    found = False
    for column in table.columns:
        if column.lower() in names or not column:
            continue
        cells = table[column]
        if not any("," in cell for cell in cells.tolist()):
            continue
        commas = cells.map(lambda cell: bool(_COMMA.fullmatch(cell)))
        if not commas.any() or (
            separator == "," and cells[commas].map(lambda cell: bool(_THOUSAND.fullmatch(cell))).all()
        ):
            continue
        if (points := cells.map(lambda cell: bool(_POINT.fullmatch(cell)))).any():
            lines = f"line {commas.idxmax()} and {points.idxmax()}"
            raise ValueError(
                f"{path}: column {column!r} has decimal commas and decimal points ({lines}); use one of them"
            )
        table[column] = cells.where(~commas, cells.str.replace(",", ".", regex=False))
        found = True
    return found


def few(names: Iterable[object], most: int = 8) -> str:
    """The first few of many names, and how many more there are.

    >>> few(["a", "b", "c", "d"], 2)
    'a, b and 2 more'
    """
    shown = [str(name) for name in names]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
