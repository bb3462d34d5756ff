"""All shards together: who is in quarantine and why, the numbers of volumes, and the summary of the scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from shapeloss._files import atomic, write_json
from shapeloss.metrics import METRICS
from shapeloss.review.score_folders import Scores, summarise
from shapeloss.shards.plan import DONE, ORDER, SHARDS, Settings, read_object
from shapeloss.shards.work import SCORES, import_arrow

QUARANTINE, SUMMARY, STATISTICS = "quarantine.csv", "summary.json", "summary.csv"
COLUMNS = ["shard", "case", "step", "attempts", "reason", "image"]
FLAGS = ("missed", "false_positive", "absent")


@dataclass(frozen=True)
class Joined:
    """What became of a population."""

    volumes: int
    scored: int
    predicted: int
    """With a label map and without scores, for there is no truth."""
    quarantined: int
    missing_truth: int
    """Images without a truth in the folder of truths."""
    files: int
    """Files that belong to no volume, or not to one alone; in `quarantine.csv` too."""
    unfinished: tuple[str, ...]
    """Shards whose job failed or was never run."""
    ignored: dict[str, int]
    """Labels taken for background, because the run has no such structure → number of volumes."""
    versions: int
    """Of the code that made what is there."""

    def to_text(self) -> str:
        """A few lines."""
        lines = [
            f"{self.volumes} volumes: {self.scored} scored, {self.predicted} predicted without a score, "
            f"{self.quarantined} in quarantine; {self.missing_truth} have no truth"
        ]
        if self.files:
            lines.append(f"{self.files} file(s) could not be told to be a volume")
        if self.ignored:
            labels = ", ".join(f"{label} (in {count} volumes)" for label, count in self.ignored.items())
            lines.append(f"labels that the run has no structure for count as background: {labels}")
        if self.versions > 1:
            lines.append(f"made by {self.versions} versions of the code")
        if self.unfinished:
            names = ", ".join(self.unfinished[:3]) + ", …" * (len(self.unfinished) > 3)
            lines.append(f"{len(self.unfinished)} shard(s) are unfinished: {names}; the same command goes on with them")
        return "\n".join(lines)


def join(output: Path) -> Joined:
    """Write `quarantine.csv`, `summary.json` and, of what is scored, `summary.csv`: as `shapeloss evaluate` does.

    One shard, and one metric of all, are in memory at a time.

    Raises:
        ValueError: the folder has no plan, or scores are damaged.
    """
    settings = Settings.read(output)
    counts: Counter[str] = Counter()
    ignored: Counter[str] = Counter()
    versions: set[str] = set()
    unfinished, rows = [], [{"step": "find", "reason": problem} for problem in settings.problems]
    for path in sorted((output / SHARDS).glob(f"*/{ORDER}")):
        order, done = read_object(path), read_object(path.parent / DONE)
        if not order or not done or done["order"] != order["number"]:
            unfinished.append(path.parent.name)
            counts["volumes"] += len(order["images"]) if order else 0
            continue
        counts.update(
            volumes=done["volumes"], scored=done["scored"], quarantined=len(done["quarantined"]),
            predicted=done["volumes"] - done["scored"] - len(done["quarantined"]),
            missing_truth=len(done["missing_truth"]),
        )  # fmt: skip
        ignored.update(done["ignored"])
        versions.update(done["code"])
        rows += [{"shard": path.parent.name} | row for row in done["quarantined"]]
    table = pd.DataFrame(rows, columns=COLUMNS).astype({"attempts": "Int64"})
    with atomic(output / QUARANTINE) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    joined = Joined(
        volumes=counts["volumes"], scored=counts["scored"], predicted=counts["predicted"],
        quarantined=counts["quarantined"], missing_truth=counts["missing_truth"], files=len(settings.problems),
        unfinished=tuple(unfinished), ignored=dict(sorted(ignored.items())), versions=len(versions),
    )  # fmt: skip
    write_json(output / SUMMARY, {**vars(joined), "unfinished": unfinished})
    if any((output / SCORES).glob("*.parquet")):
        with atomic(output / STATISTICS) as temporary:
            statistics(output / SCORES, settings.classes).to_csv(temporary, index=False, lineterminator="\n")
    else:
        (output / STATISTICS).unlink(missing_ok=True)
    return joined


def statistics(folder: Path, classes: dict[int, str]) -> pd.DataFrame:
    """The summary of scores in Parquet: see :func:`shapeloss.review.score_folders.summarise`.

    Raises:
        ValueError: a file is damaged; says what to do.
    """
    _, parquet = import_arrow()
    columns = ["structure", *FLAGS]
    parts: list[Any] = []
    with _damage_named(folder):
        names = parquet.read_schema(next(iter(sorted(folder.glob("*.parquet"))))).names
        for metric in (name for name in names if name in METRICS):
            table = pd.read_parquet(folder, columns=[*columns, metric], page_checksum_verification=True)
            parts.append(summarise(Scores(table, classes)))
    order = {structure: place for place, structure in enumerate(parts[0]["structure"])}
    return pd.concat(parts).sort_values("structure", key=lambda x: x.map(order), kind="stable").reset_index(drop=True)


@contextmanager
def _damage_named(folder: Path) -> Iterator[None]:
    """If the block cannot read the scores, the first file that is damaged is named, which Arrow does not do."""
    try:
        yield
    except (OSError, ValueError):
        _, parquet = import_arrow()
        for path in sorted(folder.glob("*.parquet")):
            try:
                parquet.read_table(path, page_checksum_verification=True)
            except (OSError, ValueError) as error:
                done = folder.parent / SHARDS / path.stem / DONE
                raise ValueError(
                    f"{path}: is damaged ({str(error).partition(chr(10))[0]}); remove it and {done}, and run the same "
                    "command again, which writes it from the shard's journal"
                ) from error
        raise
