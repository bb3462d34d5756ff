"""One shard: each of its volumes is predicted and scored by itself, and one that fails is put into quarantine.

A volume is read, used and released before the next one is read. A kill costs the volume that was being made.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pandas as pd

from shapeloss._closure import code_hash
from shapeloss._extras import install_command
from shapeloss._files import FULL, atomic, content_hash, exclusive, file_hash, os_error_message, write_json
from shapeloss.data.headers import VolumeError
from shapeloss.data.names import one_line
from shapeloss.metrics import METRICS
from shapeloss.review.score_folders import score_pair
from shapeloss.runs.predict_folder import PREDICT_LOCK, Predictor, find_sides, load_run
from shapeloss.shards.journal import ROWS, Journal
from shapeloss.shards.plan import DONE, ORDER, SHARDS, Settings, files_of, stamp

SCORES = "scores"
FILES = ("image", "truth")
NOTHING: dict[str, Any] = dict.fromkeys(FILES)
DONE_STATES = ("scored", "predicted")
"""Of a volume with truth and of one without."""
STEPS = ("predict", "score")
"""What is timed."""
BATCH = 64
"""Volumes whose scores are in memory together when they are written."""


class Shard:
    """A shard of `output`, as its order says.

    Args:
        output: folder of :func:`shapeloss.shards.plan.make_plan`.
        name: of the shard, such as 00012.
        device: see :func:`shapeloss.runs.device.find_device`.

    Raises:
        ValueError: there is no such order, or a file of the shard is damaged.
    """

    def __init__(self, output: Path, name: str, device: str = "cpu") -> None:
        self.output, self.name, self.device = output, name, device
        self.folder = output / SHARDS / name
        self.settings = Settings.read(output)
        try:
            order = json.loads((self.folder / ORDER).read_text(encoding="utf-8"))
            self.number, self.retry = int(order["number"]), set(order["retry"])
            self.images, self.truth = (
                {case: Path(file["path"]) for case, file in order[kind].items()} for kind in ("images", "truth")
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self.folder / ORDER}: is missing or not an order; remove it and run the same command again"
            ) from error
        self.labels = self.folder / "labels"
        self.journal = Journal(self.folder / "journal.jsonl")

    @cached_property
    def predictor(self) -> Predictor:
        """The network, loaded where there is something to predict."""
        run = load_run(self.settings.run)
        if run.fingerprint != self.settings.fingerprint:
            raise ValueError(
                f"{self.settings.run}: was trained again since {self.output} was begun; choose another output folder"
            )
        options = self.settings.options
        sides = find_sides(run, Path(self.settings.images), self.images, options.side)
        return Predictor(run, self.labels, sides, self.device, any_spacing=options.any_spacing)

    def carry_out(self) -> dict[str, Any]:
        """Do what there is to do; returns and writes `shard.json`.

        Raises:
            OSError: the disk is full.
            ValueError: the run is another one by now.
        """
        code = code_hash("shapeloss.shards.work")
        with exclusive(self.labels, PREDICT_LOCK, f"another job works in {self.labels}; waiting until it ends"):
            # what a process died of comes last: the others do not wait for it
            for case in sorted(self.images, key=lambda case: (self._state(case) == "started", case)):
                self._bring_up_to_date(case, code)
            self.journal.compact()
            written = self._write_scores()
            done = self._summary() | {"parquet_bytes": written}
            write_json(self.folder / DONE, done)
        return done

    def _state(self, case: str) -> str:
        return self.journal.latest.get(case, {}).get("state", "")

    def _bring_up_to_date(self, case: str, code: str) -> None:
        """Make one volume if it is due, or put it into quarantine with the reason."""
        entry = {"case": case, "order": self.number, "code": code, "image": {}, "truth": None, "step": "read"}
        if self._is_due(entry):
            # a run that cannot be loaded is no volume's fault
            predictor = None if self._place(case).exists() else self.predictor
            with self._quarantining(entry):
                self._make(entry, predictor)

    def _is_due(self, entry: dict[str, Any]) -> bool:
        """Whether there is something to do for a volume; fills in its files and the number of this attempt."""
        case = entry["case"]
        before = self.journal.latest.get(case, {})
        state, tried = before.get("state", ""), before.get("attempts", 0)
        with self._quarantining(entry):
            entry["image"] = signature(self.images[case], before.get("image"))
            if case in self.truth:
                entry["truth"] = signature(self.truth[case], before.get("truth"))
            hashes = [[(values[kind] or {}).get("hash") for kind in FILES] for values in (entry, {**NOTHING, **before})]
            same, same_image = hashes[0] == hashes[1], hashes[0][0] == hashes[1][0]
            if not same_image:
                self._place(case).unlink(missing_ok=True)
            again = not same or (case in self.retry and before["order"] != self.number)
            if state == "started" and not again and tried >= self.settings.attempts:
                step = before["step"]
                raise _Failed(f"{self.images[case]}: its process was ended during {step}, perhaps for lack of memory")
            finished = state == "quarantined" or (state in DONE_STATES and self._place(case).exists())
            if finished and not again:
                files = {kind: entry[kind] for kind in FILES}
                if files != {kind: before[kind] for kind in FILES}:  # time stamps alone
                    kept = {ROWS: self.journal.rows(case)} if state == "scored" else {}
                    self.journal.add(before | kept | files)
                return False
            entry["attempts"] = (tried if same and state not in DONE_STATES else 0) + 1
            return True
        return False

    def _place(self, case: str) -> Path:
        return self.labels / f"{case}.nii.gz"

    def _make(self, entry: dict[str, Any], predictor: Predictor | None) -> None:
        """Predict a volume, if there is a predictor, and score it, if there is a truth."""
        case = entry["case"]
        image, truth, place = self.images[case], self.truth.get(case), self._place(case)
        entry |= {"seconds": {}, "cpu_seconds": {}}
        if predictor:
            entry["step"] = "predict"
            self.journal.add(entry | {"state": "started"})
            try:
                with _timed(entry):
                    predictor.predict(case, image)
            except (VolumeError, MemoryError) as error:
                raise _Failed(predictor.reason(error, image)) from error
        entry |= {"state": "predicted", "bytes": place.stat().st_size}
        if truth:
            entry["step"] = "score"
            self.journal.add(entry | {"state": "started"})
            options = self.settings.options
            with _timed(entry):
                found = score_pair(
                    case, place, truth, self.settings.classes, ({}, {}), options.plane, options.metrics,
                    cast(Any, options.edge),  # checked by Options
                )  # fmt: skip
            if isinstance(found, str):
                raise _Failed(found)
            entry |= {"state": "scored", ROWS: found[0], "ignored": sorted(found[1]), "plane": found[2]}
        self.journal.add(entry)

    @contextmanager
    def _quarantining(self, entry: dict[str, Any]) -> Iterator[None]:
        """If the block fails, the volume is in quarantine with the reason, and the next one follows.

        A full disk and an interrupt are not the volume's fault: they are passed on, and no attempt is counted.
        """
        case, image = entry["case"], self.images[entry["case"]]
        try:
            yield
            return
        except KeyboardInterrupt:
            self._forget_attempt(entry)
            raise
        except OSError as error:
            if error.errno in FULL:
                self._forget_attempt(entry)
                raise
            reason = f"{image}: {os_error_message(error, self.folder)}"
        except _Failed as error:
            reason = str(error)
        except Exception as error:  # what no check foresaw: the other volumes need not suffer for it
            reason = f"{image}: {type(error).__name__}: {error}"
        before = self.journal.latest.get(case, {})
        entry.setdefault("attempts", before.get("attempts", 0) + (before.get("state") != "started"))
        entry.pop(ROWS, None)
        self.journal.add(entry | {"state": "quarantined", "reason": one_line(reason)})

    def _forget_attempt(self, entry: dict[str, Any]) -> None:
        if self._state(entry["case"]) == "started" and "attempts" in entry:
            with suppress(OSError):  # a full disk
                self.journal.add(entry | {"state": "interrupted", "attempts": entry["attempts"] - 1})

    def _write_scores(self) -> int:
        """Write the scores of the shard, by case, and return the file's size; no file where there are none."""
        path = self.output / SCORES / f"{self.name}.parquet"
        scored = [case for case in sorted(self.images) if self._state(case) == "scored"]
        if not scored:
            path.unlink(missing_ok=True)
            return 0
        write_parquet(path, ([{"case": case} | row for row in self.journal.rows(case)] for case in scored))
        return path.stat().st_size

    def _summary(self) -> dict[str, Any]:
        entries = [self.journal.latest[case] for case in sorted(self.images)]
        good = [entry for entry in entries if entry["state"] in DONE_STATES]
        bad = [entry for entry in entries if entry["state"] == "quarantined"]
        ignored = Counter(label for entry in good for label in entry.get("ignored", ()))
        return {
            "order": self.number,
            "volumes": len(entries),
            "scored": sum(entry["state"] == "scored" for entry in entries),
            "missing_truth": [entry["case"] for entry in entries if self.settings.truth and not entry["truth"]],
            "quarantined": [
                {key: entry[key] for key in ("case", "step", "reason", "attempts")}
                | {"image": str(self.images[entry["case"]])}
                for entry in bad
            ],
            "ignored": {str(label): count for label, count in sorted(ignored.items())},
            "planes": sorted({entry["plane"] for entry in good if "plane" in entry}),
            "code": sorted({entry["code"] for entry in good}),
            **{
                kind: {step: [entry[kind][step] for entry in good if step in entry[kind]] for step in STEPS}
                for kind in ("seconds", "cpu_seconds")
            },
            "label_map_bytes": sum(entry["bytes"] for entry in good),
        }


@contextmanager
def _timed(entry: dict[str, Any]) -> Iterator[None]:
    """Note the seconds of a block, and those of this process's processor, under the step of the entry."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    entry["seconds"][entry["step"]] = time.perf_counter() - wall
    entry["cpu_seconds"][entry["step"]] = time.process_time() - cpu


class _Failed(Exception):
    """A volume cannot be made; the message says why, and names its file."""


def signature(path: Path, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """Stamp and hash of the content of a volume's files; the hash is that of `before` where the stamp is.

    Raises:
        OSError: a file that cannot be read.
    """
    now = stamp(path)
    if before and before.get("stamp") == now:
        return dict(before)
    return {"stamp": now, "hash": content_hash(*map(file_hash, files_of(path)))}


def write_parquet(path: Path, cases: Iterable[list[dict[str, Any]]]) -> None:
    """Write rows of scores, given case by case, atomically, a few cases in memory at a time.

    Every metric is a column of float64, so that the files of all shards are one data set.

    Raises:
        ModuleNotFoundError: pyarrow is not installed.
    """
    pyarrow, parquet = import_arrow()
    waiting = iter(cases)
    batches: Iterator[list[list[dict[str, Any]]]] = iter(lambda: list(islice(waiting, BATCH)), [])
    with atomic(path) as temporary:
        writer = None
        for batch in batches:
            table = pd.DataFrame([row for rows in batch for row in rows])
            table = table.astype({name: "float64" for name in table.columns if name in METRICS})
            arrow = pyarrow.Table.from_pandas(table, preserve_index=False)
            writer = writer or parquet.ParquetWriter(temporary, arrow.schema, write_page_checksum=True)
            writer.write_table(arrow)
        if writer:
            writer.close()


def import_arrow() -> tuple[Any, Any]:
    """pyarrow and its Parquet.

    Raises:
        ModuleNotFoundError: with the command that installs it.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed, which Parquet needs; {install_command('population')}", name=error.name
        ) from error
    return pyarrow, parquet
