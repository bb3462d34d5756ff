"""What became of each volume of a shard: a file to which one line is added per event, so that each costs the same."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shapeloss._files import atomic

CRC = b', "crc": '
"""Before the last value of a line, the CRC-32 of all bytes before this; a line of an earlier version has none."""
ROWS = "rows"
"""Key of an entry's scores, which stay on disk until they are asked for."""


class Journal:
    """Case → its last entry. Memory does not grow with the scores.

    A line is on disk before the next begins; one that a kill cut short, always the last, is dropped. A damaged line is
    named, and what it said is not done.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.latest: dict[str, dict[str, Any]] = {}
        """Case → its last entry, without its scores."""
        self._places: dict[str, int] = {}
        self._last = ""
        self._end = 0
        self._lines = 0
        if path.exists():
            with open(path, "rb") as lines:
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    try:
                        self._note(_entry(line), len(line))
                    except (ValueError, KeyError, TypeError):
                        self._pass_over(len(line))
            os.truncate(path, self._end)

    def _note(self, entry: dict[str, Any], length: int) -> None:
        self._last = entry["case"]
        self._places[self._last] = self._end
        self.latest[self._last] = {key: value for key, value in entry.items() if key != ROWS}
        self._end += length
        self._lines += 1

    def _pass_over(self, length: int) -> None:
        """A damaged line may be the end of the attempt that was noted last: that one is no kill."""
        self._end += length
        self._lines += 1
        print(f"{self.path}: line {self._lines} is damaged; its volume is made again", flush=True)
        if self.latest.get(self._last, {}).get("state") == "started":
            del self.latest[self._last], self._places[self._last]

    def add(self, entry: dict[str, Any]) -> None:
        """Append an entry, which has a `case`; it counts from now on."""
        text = json.dumps(entry, default=lambda number: number.item()).encode()[:-1]  # NumPy's own numbers
        line = text + CRC + _sum(text)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._note(entry, len(line))

    def rows(self, case: str) -> list[dict[str, Any]]:
        """The scores of the last entry of a case.

        Raises:
            ValueError: its line was damaged since it was noted.
        """
        with open(self.path, "rb") as file:
            file.seek(self._places[case])
            try:
                return _entry(file.readline())[ROWS]
            except ValueError as error:
                raise ValueError(f"{self.path}: its line of {case} is damaged; run the same command again") from error

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


def _entry(line: bytes) -> dict[str, Any]:
    """The entry of a line; raises ValueError if it is damaged."""
    text, mark, value = line.rpartition(CRC)
    if not mark:
        return json.loads(line)
    if value != _sum(text):
        raise ValueError("its CRC differs")
    return json.loads(text + b"}")


def _sum(text: bytes) -> bytes:
    """How a line ends that begins with this text."""
    return b'"%08x"}\n' % zlib.crc32(text)
