"""What became of each volume of a shard: a file to which one line is added per event, so that each costs the same."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shapeloss._files import atomic

ROWS = "rows"
"""Key of an entry's scores, which stay on disk until they are asked for."""


class Journal:
    """Case → its last entry. Memory does not grow with the scores.

    A line is on disk before the next begins; one that a kill cut short, always the last, is dropped.

    Raises:
        ValueError: a line is not an entry.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.latest: dict[str, dict[str, Any]] = {}
        """Case → its last entry, without its scores."""
        self._places: dict[str, int] = {}
        self._end = 0
        self._lines = 0
        if path.exists():
            with open(path, "rb") as lines:
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    try:
                        self._note(json.loads(line), len(line))
                    except (ValueError, KeyError, TypeError) as error:
                        raise ValueError(
                            f"{path}: line {self._lines + 1} is not an entry of a volume; remove the file: the volumes "
                            "of this shard are then made again"
                        ) from error
            os.truncate(path, self._end)

    def _note(self, entry: dict[str, Any], length: int) -> None:
        self._places[entry["case"]] = self._end
        self.latest[entry["case"]] = {key: value for key, value in entry.items() if key != ROWS}
        self._end += length
        self._lines += 1

    def add(self, entry: dict[str, Any]) -> None:
        """Append an entry, which has a `case`; it counts from now on."""
        line = json.dumps(entry, default=lambda number: number.item()).encode() + b"\n"  # NumPy's own numbers
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._note(entry, len(line))

    def rows(self, case: str) -> list[dict[str, Any]]:
        """The scores of the last entry of a case."""
        with open(self.path, "rb") as file:
            file.seek(self._places[case])
            return json.loads(file.readline())[ROWS]

    def compact(self) -> None:
        """Leave the last entry of each case alone in the file, by name."""
        if self._lines == len(self._places):
            return
        with atomic(self.path) as temporary, open(temporary, "wb") as file:
            file.writelines(self._in_order())
        self.__init__(self.path)  # type: ignore[misc]  # the places are others now

    def _in_order(self) -> Iterator[bytes]:
        with open(self.path, "rb") as file:
            for case in sorted(self._places):
                file.seek(self._places[case])
                yield file.readline()
