"""A folder of volumes → shards: which volumes each has, and what is left to do in it.

<output>/plan.json               the run, the folders, the options
<output>/shards/00000/order.json the volumes of a shard; written anew only where there is something to do
                    journal.jsonl, shard.json, labels/    what was made of them (`shapeloss.shards.work`)
<output>/scores/00000.parquet    scores, one file a shard: read together as one data set
<output>/quarantine.csv, summary.json, summary.csv        of all shards (`shapeloss.shards.join`)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from shapeloss._files import write_json
from shapeloss.data.headers import VolumeError
from shapeloss.data.layout import contradiction, read_names
from shapeloss.data.names import find_volumes, one_line, volume_files
from shapeloss.metrics import METRICS
from shapeloss.review.score_folders import check_options
from shapeloss.runs.predict_folder import find_images, load_run

PLAN, ORDER, DONE = "plan.json", "order.json", "shard.json"
SHARDS = "shards"


@dataclass(frozen=True)
class Options:
    """What `shapeloss predict` and `evaluate` are told, for all volumes alike; see there."""

    side: str = ""
    any_spacing: bool = False
    plane: str = "auto"
    metrics: tuple[str, ...] = tuple(METRICS)
    edge: str = "open"

    def __post_init__(self) -> None:
        check_options(self.plane, self.metrics, self.edge)
        if self.side not in ("", "left", "right"):
            raise ValueError(f"side must be left or right, got {self.side!r}")


@dataclass(frozen=True)
class Settings:
    """What `plan.json` holds."""

    run: str
    fingerprint: str
    """Of the run: see :attr:`shapeloss.runs.predict_folder.TrainedRun.fingerprint`."""
    images: str
    truth: str | None
    shard_size: int
    attempts: int
    """How often a volume is tried, until it is left in quarantine."""
    classes: dict[int, str]
    options: Options
    problems: tuple[str, ...] = ()
    """Files that belong to no volume, or not to one alone."""

    @staticmethod
    def read(output: Path) -> Settings:
        """Of a folder.

        Raises:
            ValueError: its `plan.json` is missing or not one.
        """
        path = output / PLAN
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            options = Options(**values.pop("options") | {"metrics": tuple(values.pop("metrics"))})
            classes = {int(label): str(name) for label, name in values.pop("classes").items()}
            return Settings(**values | {"problems": tuple(values["problems"])}, options=options, classes=classes)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: is missing or not the plan of a population; choose another folder") from error

    def write(self, output: Path) -> None:
        """Into a folder, where it differs from what is there."""
        values = asdict(self)
        values["metrics"] = values["options"].pop("metrics")
        write_if_other(output / PLAN, values)


@dataclass(frozen=True)
class Plan:
    """How a folder is split, and what is left to do."""

    shards: tuple[str, ...]
    volumes: int
    pending: tuple[str, ...]
    """Shards with something to do."""
    notes: tuple[str, ...] = field(default=())


def write_if_other(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON, unless the file has that content: its time stamp tells Snakemake what is out of date."""
    text = json.loads(json.dumps(value))
    try:
        if json.loads(path.read_text(encoding="utf-8")) == text:
            return
    except (OSError, ValueError):
        pass
    write_json(path, text)


def read_object(path: Path) -> dict[str, Any] | None:
    """A JSON object that was written here; None if there is none, for it is then made again."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def files_of(path: Path) -> list[Path]:
    """The files of a volume; the path alone where they cannot be told, which is said when it is read."""
    try:
        return volume_files(path)
    except VolumeError:
        return [path]


def stamp(path: Path) -> list[list[int]]:
    """Size in bytes and time of the last change in ns of each file of a volume: equal for one that did not change.

    Raises:
        OSError: a file that cannot be reached.
    """
    return [[about.st_size, about.st_mtime_ns] for about in (file.stat() for file in files_of(path))]


def split(cases: Iterable[str], size: int, known: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Shard → its cases, by name.

    A case stays in the shard that it has in `known`; new ones fill the last shard, then further ones of `size`.

    >>> split("cab", 2, {})
    {'00000': ['a', 'b'], '00001': ['c']}
    >>> split("abdc", 2, {"00000": ["a", "gone"], "00001": ["c"]})
    {'00000': ['a'], '00001': ['b', 'c'], '00002': ['d']}
    """
    left = set(cases)
    shards: dict[str, list[str]] = {}
    for shard, its in sorted(known.items()):
        shards[shard] = sorted(left.intersection(its))
        left.difference_update(its)
    number = max(map(int, shards), default=0)
    for case in sorted(left):
        if len(shards.get(f"{number:05d}", ())) >= size:
            number += 1
        shards.setdefault(f"{number:05d}", []).append(case)
    return {shard: sorted(its) for shard, its in shards.items()}


def make_plan(
    run: Path, images: Path, output: Path, truth: Path | None = None, shard_size: int = 100,
    options: Options | None = None, attempts: int = 3, retry_all: bool = False,
) -> Plan:  # fmt: skip
    """Split a folder into shards, and write the orders of those in which there is something to do.

    That is: a new, changed or vanished image or truth, by size and time stamp, a label map that is missing, and a
    volume in quarantine that was tried less than `attempts` times.

    Args:
        run: a finished training.
        images: folder of images (NIfTI, NRRD, MetaImage).
        output: of this population alone. Its run, images, shard size and options stay what they were at first.
        truth: folder of label maps by the same names; may be added, changed and left out later.
        shard_size: volumes in a shard.
        options: see :class:`Options`.
        attempts: see :class:`Settings`.
        retry_all: try each volume in quarantine again.

    Raises:
        FileNotFoundError, ValueError: an argument that cannot be used, or other ones than at first.
    """
    if shard_size < 1 or attempts < 1:
        raise ValueError(f"shard size and attempts must be 1 or more; got {shard_size} and {attempts}")
    for folder in (images, *([truth] if truth else [])):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: there is no such folder; check the name")
    images, truth = images.resolve(), truth.resolve() if truth else None
    trained = load_run(run)
    found, problems = find_images(images)
    truths: dict[str, Path] = {}
    if truth:
        description, declared = read_names(truth)
        if wrong := contradiction(trained.classes, declared, {}):
            raise ValueError(f"{description} contradicts the run {run}: {wrong}; give the truth that belongs to it")
        truths, more = find_volumes(truth)
        problems += more
        problems += [
            one_line(f"{truths[case]}: has no image in {images} by the name {case}; add it or remove the file")
            for case in sorted(set(truths) - set(found))
        ]
    settings = Settings(
        str(run.resolve()), trained.fingerprint, str(images), str(truth) if truth else None, shard_size, attempts,
        trained.classes, options or Options(), tuple(problems),
    )  # fmt: skip
    _check_same(settings, output)
    settings.write(output)
    orders = {path.parent.name: read_object(path) for path in sorted((output / SHARDS).glob(f"*/{ORDER}"))}
    known = {shard: list(order["images"]) if order else [] for shard, order in orders.items()}
    shards = split(found, shard_size, known)
    gone = sorted({case for its in known.values() for case in its} - set(found))
    pending = []
    for shard, cases in shards.items():
        files = {
            "images": {case: _described(found[case]) for case in cases},
            "truth": {case: _described(truths[case]) for case in cases if case in truths},
        }
        if _order(output / SHARDS / shard, files, orders.get(shard), attempts, retry_all):
            pending.append(shard)
    shown = ", ".join(gone[:3]) + ", …" * (len(gone) > 3)
    line = f"{len(gone)} image(s) of before are gone: {shown}; their label maps stay, their scores do not"
    return Plan(tuple(shards), len(found), tuple(pending), (one_line(line),) if gone else ())


def _check_same(settings: Settings, output: Path) -> None:
    """Raise ValueError where a folder is of another population."""
    if not (output / PLAN).exists():
        return
    before = Settings.read(output)
    other = [
        name for name in ("fingerprint", "images", "shard_size", "options")
        if getattr(before, name) != getattr(settings, name)
    ]  # fmt: skip
    if other:
        names = ", ".join({"fingerprint": "run"}.get(name, name.replace("_", " ")) for name in other)
        raise ValueError(
            f"{output}: was begun with other {names} (its {PLAN} says which); give the same ones, or choose another "
            "folder"
        )


def _described(path: Path) -> dict[str, Any]:
    try:
        return {"path": str(path), "stamp": stamp(path)}
    except OSError:  # said when it is read
        return {"path": str(path), "stamp": []}


def _order(
    folder: Path, files: Mapping[str, Any], before: Mapping[str, Any] | None, attempts: int, retry_all: bool
) -> bool:
    """Whether a shard has something to do; its order is written anew if that is not what the last one asked for."""
    done = read_object(folder / DONE)
    same = before is not None and all(before[key] == files[key] for key in files)
    current = done is not None and before is not None and done["order"] == before["number"]
    if same and not current and not retry_all:
        return True  # the order stands, and has not been carried out
    tried = {row["case"]: row["attempts"] for row in done["quarantined"]} if done else {}
    retry = sorted(case for case in tried if case in files["images"] and (retry_all or tried[case] < attempts))
    labels = {path.name for path in (folder / "labels").glob("*.nii.gz")}
    lost = any(f"{case}.nii.gz" not in labels for case in files["images"] if case not in tried)
    if same and current and not retry and not lost:
        return False
    write_json(folder / ORDER, {"number": before["number"] + 1 if before else 1, **files, "retry": retry})
    return True
