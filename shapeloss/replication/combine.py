"""One evaluation of several: a study whose trainings ran on several machines, or at several times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from shapeloss.replication.analysis import (
    EXACT,
    HISTORIES,
    LANDMARKS,
    Evaluation,
    read_evaluation,
    record_measured,
)
from shapeloss.replication.profile import Experiment
from shapeloss.replication.scores import (
    READER,
    RECORD,
    SCORES,
    Provenance,
    distinct_machines,
    read_measured,
    write_scores,
    write_sealed,
)
from shapeloss.replication.study import TABLE, TRAININGS, VARIATIONS, WEIGHTS
from shapeloss.runs.provenance import commit

TRAINED = ("variation", "loss", "seed")
"""What tells one training from another."""
FREE = {"losses", "seeds", "variations", "study"}
"""In what the profiles of the parts may differ."""


@dataclass(frozen=True)
class _Table:
    name: str
    order: tuple[str, ...]
    """Columns that the rows are ordered by; rows that agree in all of them keep their order."""
    own: bool = True
    """Whether it holds the trainings of the profile's own table."""
    varied: bool = False
    """Whether it holds those of the variations."""
    rows: tuple[str, ...] = ()
    """Rows beside those of the profile."""


TABLES = (
    _Table(SCORES, ("loss", "case", "seed")),
    _Table(EXACT, ("loss", "case", "seed"), rows=(READER,)),
    _Table(LANDMARKS, ("case", "loss", "seed")),
    _Table(HISTORIES, ("loss", "seed")),
    _Table(VARIATIONS, ("variation", "loss", "case", "seed"), own=False, varied=True),
    _Table(TRAININGS, ("variation", "loss", "seed"), varied=True),
    _Table(WEIGHTS, ("loss",)),
)


def combine(experiment: Experiment, parts: Sequence[str | Path], output: str | Path) -> None:
    """Write the evaluation of an experiment, put together from others that hold parts of its trainings.

    Args:
        experiment: all whose trainings are wanted; further ones in the parts are left out.
        parts: folders of figures. Where two hold the same training, their scores must be equal.
        output: the folder to write to; may be one of the parts.

    Raises:
        FileNotFoundError: a part has no scores.
        ValueError: a training is in no part, or is not the same in two of them; a part is of other data, another
            network, other steps; a table is not what was recorded; each is named.
    """
    evaluations = {str(part): read_evaluation(part) for part in parts}
    _same_kind(experiment, evaluations)
    made = {}
    for table in TABLES:
        paths = [Path(part) / table.name for part in parts]
        if there := [path for path in paths if path.is_file()]:
            made[table.name] = _put_together(table, experiment, there)
    (Path(output) / RECORD).unlink(missing_ok=True)  # the new one comes last
    for name, rows in made.items():
        write = write_sealed if name in (VARIATIONS, TRAININGS, WEIGHTS) else write_scores
        write(rows, Path(output) / name)
    every = [evaluation.provenance for evaluation in evaluations.values()]
    provenance = Provenance(
        every[0].data_hash,
        every[0].slices,
        every[0].precisions,
        commit(),
        _union(p.trained for p in every),
        {row: file for p in every for row, file in p.custom_losses.items() if row in experiment.losses},
        distinct_machines(machine for p in every for machine in p.machines),
    )
    record_measured(output, experiment, provenance, all(e.papers_own_data for e in evaluations.values()))


def _union(values: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(sorted({value for several in values for value in several}))


def _same_kind(experiment: Experiment, parts: dict[str, Evaluation]) -> None:
    """Are the parts of this experiment, but for their rows and seeds?"""
    expected = experiment.model_dump(mode="json", exclude=FREE)
    first = next(iter(parts))
    for name, part in parts.items():
        given = part.experiment.model_dump(mode="json", exclude=FREE)
        if differ := [key for key in expected if given[key] != expected[key]]:
            raise ValueError(
                f"{name}: is of profile {part.experiment.name}, which differs from {experiment.name} in "
                f"{', '.join(differ)}; only losses, seeds and variations may differ between parts"
            )
        for key, of in (("data_hash", "other data"), ("slices", "other planes"), ("precisions", "another precision")):
            mine, other = getattr(part.provenance, key), getattr(parts[first].provenance, key)
            if mine != other:
                raise ValueError(f"{name}: is of {of} than {first}: its {key} is {mine!r}, not {other!r}")
        theirs = part.experiment.losses
        if changed := [row for row, options in experiment.losses.items() if theirs.get(row, options) != options]:
            raise ValueError(
                f"{name}: {', '.join(changed)} has other options than in the profile; train it again with these"
            )


def _wanted(table: _Table, experiment: Experiment) -> list[tuple[str, str, str]]:
    """(variation, loss, seed) of every training that a table holds, in its order."""
    names = [TABLE] * table.own + [*experiment.variations] * table.varied
    varied = {name: experiment.variation(name) for name in names}
    return [
        (name, row, str(seed)) for name, of in varied.items() for row in (*table.rows, *of.losses) for seed in of.seeds
    ]


def _put_together(table: _Table, experiment: Experiment, paths: Sequence[Path]) -> pd.DataFrame:
    """The rows of a table from all parts that have it, as text, so that no digit changes."""
    read = {path: read_measured(path, dtype=str, keep_default_na=False) for path in paths}
    if table.name == WEIGHTS:
        every = pd.concat(read.values()).drop_duplicates("loss")
        return _ordered(every[every["loss"].isin(experiment.losses)], table, {"loss": list(experiment.losses)})
    found: dict[tuple[str, str, str], tuple[Path, pd.DataFrame]] = {}
    for path, rows in read.items():
        keyed = rows if "variation" in rows else rows.assign(variation=TABLE)
        for (variation, row, seed), own in keyed.groupby(list(TRAINED), sort=False)[list(rows.columns)]:
            key = (str(variation), str(row), str(seed))
            if key not in found:
                found[key] = (path, own)
            elif not _equal(found[key][1], own):
                raise ValueError(
                    f"{path}: {_name(key)} is not what {found[key][0]} has: one of the two was trained with other code "
                    "or on another kind of processor; take only one of them"
                )
    wanted = _wanted(table, experiment)
    if missing := [_name(key) for key in wanted if key not in found]:
        raise ValueError(
            f"{table.name}: no part has {', '.join(missing)}; train the rest, or give a profile without them"
        )
    order = {
        "variation": list(dict.fromkeys(key[0] for key in wanted)),
        "loss": list(dict.fromkeys(key[1] for key in wanted)),
        "seed": list(dict.fromkeys(key[2] for key in wanted)),
    }
    return _ordered(pd.concat([found[key][1] for key in wanted]), table, order)


def _name(key: tuple[str, str, str]) -> str:
    variation, row, seed = key
    return f"{row} (seed {seed}{f', variation {variation}' if variation else ''})"


def _equal(first: pd.DataFrame, second: pd.DataFrame) -> bool:
    """Are two tables of one training equal, whatever the commit at which it ran?"""
    a, b = (t.drop(columns="commit", errors="ignore").reset_index(drop=True) for t in (first, second))
    return a.equals(b)


def _ordered(rows: pd.DataFrame, table: _Table, order: dict[str, list[str]]) -> pd.DataFrame:
    places = {
        name: {value: place for place, value in enumerate(order.get(name) or rows[name].unique())}
        for name in table.order
    }
    return rows.sort_values(
        list(table.order), key=lambda column: column.map(places[str(column.name)]), kind="stable"
    ).reset_index(drop=True)
