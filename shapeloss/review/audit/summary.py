"""Can these reported numbers be true? What a mean, an SD, n and the bounds of the values imply about the values.

Everything follows from what samples of n values within the bounds have a mean and an SD that round to the printed ones:
whether there are any, the largest SD there is, how far the extreme value must lie from the others (`.sd_bounds`,
exact), and, when the values are integers or lie on another known grid, what that excludes (`.grim`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pandas as pd
from tqdm import tqdm

from shapeloss.review.audit import grim as grim_module
from shapeloss.review.audit import sd_bounds
from shapeloss.review.audit.grim import find_sample, grim, grimmer, sprite, targets
from shapeloss.review.audit.sd_bounds import (
    TOLERANCE,
    Printed,
    Rounding,
    extreme_value_limits,
    largest_sd,
    read_printed,
)
from shapeloss.stats.read_table import few, read_table

_NOTABLE_SHARE = 0.25  # below this share of the largest SD, what the extreme value must be is true but says little


@dataclass(frozen=True)
class Audit:
    """What one reported mean ± SD implies; `to_text` says it in words."""

    mean: Printed
    sd: Printed
    n: int
    """Number of values: cases × values per case."""
    low: float
    high: float
    ddof: int
    step: float | None
    unit: str
    possible: bool
    reason: str
    """Why not, or how far the answer goes."""
    largest_sd: float
    side: Literal["low", "high"] | None = None
    """On which side the extreme value must lie: away from the bound that is nearer to the mean."""
    extreme_near: float = np.nan
    """The extreme value is at most this (side "low"; at least, side "high")…"""
    extreme_far: float = np.nan
    """…and at least this (side "low"; at most, side "high")."""
    others: float = np.nan
    """The other values average at least this (side "low"; at most, side "high")."""
    mildest: tuple[float, ...] = field(default=(), repr=False)
    """The sample whose extreme value is the least extreme."""
    examples: tuple[tuple[float, ...], ...] = field(default=(), repr=False)
    """Samples with this mean and SD, found by search."""
    note: str = ""
    """What was not looked for, and why."""

    @property
    def share_of_largest(self) -> float:
        """The smallest SD that rounds to the reported one, as a share of the largest possible."""
        return self.sd.low / self.largest_sd if self.largest_sd > 0 else np.nan

    @property
    def implication(self) -> str:
        """The sentence on the extreme value and the others, its limits rounded so that it stays true."""
        if self.side is None:
            return ""
        digits = max(self.mean.decimals, self.sd.decimals)
        unit, grow = 10.0**-digits, 1 if self.side == "low" else -1

        def outward(x: float, up: int) -> str:
            rounded = np.ceil(x / unit - TOLERANCE) if up > 0 else np.floor(x / unit + TOLERANCE)
            return f"{rounded * unit + 0.0:.{digits}f}"

        most, least = ("most", "least") if self.side == "low" else ("least", "most")
        words = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
        others = words[self.n - 3] if 3 <= self.n <= 13 else str(self.n - 1)
        average = f"and the other {others} average at {least} {outward(self.others, -grow)}"
        if self.n == 2:
            average = f"and the other one is at {least} {outward(self.others, -grow)}"
        return (
            f"one {self.unit} is at {most} {outward(self.extreme_near, grow)}, {average}; "
            f"that one is at {least} {outward(self.extreme_far, -grow)}"
        )

    def to_text(self) -> str:
        """A paragraph for a person."""
        kind = "sample" if self.ddof else "population"
        grid = f" in steps of {self.step:g}" if self.step else ""
        bounds = f"values in [{self.low:g}, {self.high:g}]{grid}"
        if np.isinf(self.low) or np.isinf(self.high):
            known = [f"at {word} {x:g}" for word, x in (("least", self.low), ("most", self.high)) if np.isfinite(x)]
            bounds = f"values {known[0] if known else 'without bounds'}{grid}"
        mean, sd = (f"{x.value:.{x.decimals}f}" for x in (self.mean, self.sd))
        head = f"{mean} ± {sd}, n = {self.n}, {bounds}, {kind} SD"
        if not self.possible:
            return f"{head}: impossible. {self.reason}"
        lines = [f"{head}: not ruled out. {self.reason}" if self.reason else f"{head}: possible."]
        if np.isfinite(self.largest_sd):
            lines.append(
                f"The largest SD that such values can have is {self.largest_sd:.3g}; the reported one is at least "
                f"{100 * self.share_of_largest:.0f} % of it."
            )
        if self.side is not None and self.share_of_largest >= _NOTABLE_SHARE:
            lines.append(f"{self.implication[0].upper()}{self.implication[1:]}.")
        mildest = self.mildest if self.share_of_largest >= _NOTABLE_SHARE else ()
        for name, sample in (("Mildest such sample", mildest), *(("For example", e) for e in self.examples)):
            if sample:
                lines.append(f"{name}: {', '.join(f'{x:.4g}' for x in sample)}.")
        if self.note:
            lines.append(self.note)
        return "\n".join(lines)


def audit_summary(
    mean: str | float, sd: str | float, n: int, low: float = -np.inf, high: float = np.inf, *,
    step: float | None = None, values_per_case: int = 1, sd_kind: Literal["sample", "population"] = "sample",
    rounding: Rounding = "nearest", unit: str = "volume", examples: int = 2, seed: int = 0,
) -> Audit:  # fmt: skip
    """Check one reported mean ± SD.

    Args:
        mean: as printed, best as text ("0.96"); numbers get as many decimals as the longer of the two needs.
        sd: as printed.
        n: cases.
        low: least possible value, in the unit of the printed numbers.
        high: largest possible value.
        step: grid of the values, if they have one: 1 for integers, 1/k for means of k integers; values are
            low + step · i (or step · i without a lower bound).
        values_per_case: values that each case contributed: 1 if the SD is over cases, 3 if over three structures each.
        sd_kind: with n − 1 (sample) or n (population) in the denominator.
        rounding: how the numbers were rounded.
        unit: what one value belongs to, for the text.
        examples: how many samples to search for.
        seed: of that search.

    Raises:
        ValueError: no number, n below 2, a negative SD, empty bounds, or a step that is not positive.
    """
    m, s = read_printed(mean, rounding=rounding), read_printed(sd, rounding=rounding)
    if not isinstance(mean, str) and not isinstance(sd, str):  # 0.95 and 0.1 were printed with equal decimals
        m, s = (read_printed(x, max(m.decimals, s.decimals), rounding) for x in (mean, sd))
    count = int(n) * int(values_per_case)
    if count < 2 or n != int(n) or values_per_case < 1:
        raise ValueError(f"n and values_per_case must be whole and give at least 2 values; got {n} × {values_per_case}")
    if count > _MOST:
        raise ValueError(f"n × values_per_case must be at most {_MOST:g}; got {n} × {values_per_case}")
    if s.value < 0:
        raise ValueError(f"sd must not be negative; got {sd!r}")
    if not low < high:
        raise ValueError(f"low must be below high; got [{low}, {high}]")
    if step is not None and not step > 0:
        raise ValueError(f"step must be positive; got {step}")
    if sd_kind not in ("sample", "population"):
        raise ValueError(f"sd_kind must be 'sample' or 'population'; got {sd_kind!r}")
    ddof = 1 if sd_kind == "sample" else 0
    s = s._replace(low=max(s.low, 0.0))
    limit = float(largest_sd(m.low, m.high, count, low, high, ddof))
    common: dict[str, Any] = {
        "mean": m, "sd": s, "n": count, "low": low, "high": high, "ddof": ddof, "step": step, "unit": unit,
        "largest_sd": limit,
    }  # fmt: skip
    if np.isnan(limit):
        return Audit(possible=False, reason=f"The mean lies outside [{low:g}, {high:g}].", **common)
    if limit * (1 + TOLERANCE) < s.low:
        reason = f"The largest SD that such values with this mean can have is {limit:.3g}."
        return Audit(possible=False, reason=reason, **common)
    rng = np.random.default_rng(seed)
    if count > sd_bounds.LARGEST_N:
        common["note"] = "No example was searched for, nor limits of the extreme value: there are too many values."
    elif count > grim_module.LARGEST_N_LISTED and (examples or step is not None):
        common["note"] = "No example was searched for: there are too many values."
    if step is not None:
        sample, reason = _on_grid(m, s, count, low, high, step, ddof, rng)
        if sample is None:
            return Audit(possible=reason in (_UNDECIDED, _UNSEARCHED), reason=reason, **common)
        common["examples"] = (sample,)
    elif count <= grim_module.LARGEST_N_LISTED:
        common["examples"] = _search(m, s, count, low, high, ddof, rng, examples)
    implied = _extreme(m, s, count, low, high, ddof)
    if step is not None or count > grim_module.LARGEST_N_LISTED:
        implied.pop("mildest", None)  # its values need not lie on the grid, though the limits hold; or nobody reads it
    return Audit(possible=True, reason="", **common, **implied)


_MOST_SEARCHED = 1000  # rows, for each of which samples are searched for unasked
_MOST = 10**12  # values: beyond these, whole numbers and floating-point ones part
_UNSEARCHED = "GRIM passes; whether a sample exists was not searched for, since there are too many values."
_UNDECIDED = "No sample was found, and none was ruled out: GRIM and GRIMMER pass, the exact search would take too long."


def _extreme(m: Printed, s: Printed, n: int, low: float, high: float, ddof: int) -> dict[str, Any]:
    if (np.isinf(low) and np.isinf(high)) or n > sd_bounds.LARGEST_N:
        return {}
    side = "low" if high - m.value <= m.value - low else "high"
    # distances y from the bound that is nearer to the mean: x = bound + sign · y
    bound, sign = (high, -1.0) if side == "low" else (low, 1.0)
    totals = sorted(max(0.0, n * sign * (limit - bound)) for limit in (m.low, m.high))
    squares = [(n - ddof) * limit**2 for limit in (s.low, s.high)]
    limits = extreme_value_limits(totals[0], min(totals[1], n * (high - low)), squares[0], squares[1], n, high - low)
    if limits is None:
        return {}
    c = limits.farthest_at_least
    equal = int(min(np.floor(limits.total / c + TOLERANCE), n)) if c > 0 else 0
    distances = np.array([c] * equal + [max(limits.total - equal * c, 0.0)] + [0.0] * n)[:n]
    return {
        "side": side, "extreme_near": bound + sign * c, "extreme_far": bound + sign * limits.farthest_at_most,
        "others": bound + sign * limits.others_at_most,
        "mildest": tuple(float(x) for x in np.sort(bound + sign * distances)),
    }  # fmt: skip


def _integer_grid(m: Printed, s: Printed, n: int, low: float, high: float, step: float) -> tuple[float, int, int]:
    """Offset of a grid, and the indices of its least and largest value that a sample can have."""
    reach = s.high * (n - 1) / np.sqrt(n) * np.sqrt(n / (n - 1)) + step  # no value lies farther from the mean
    offset = low if np.isfinite(low) else 0.0
    least, most = max(low, m.low - reach), min(high, m.high + reach)
    return offset, int(np.ceil((least - offset) / step - 1e-6)), int(np.floor((most - offset) / step + 1e-6))


def _on_grid(
    m: Printed, s: Printed, n: int, low: float, high: float, step: float, ddof: int, rng: np.random.Generator
) -> tuple[tuple[float, ...] | None, str]:
    offset, least, most = _integer_grid(m, s, n, low, high, step)
    mean, sd = (m.low, m.high), (s.low, s.high)
    if not grim(m.low, m.high, n, step, offset):
        return None, f"No {n} values in steps of {step:g} have a mean that rounds to {m.value:.{m.decimals}f} (GRIM)."
    if n > grim_module.LARGEST_N_LISTED:
        return None, _UNSEARCHED
    if not grimmer(mean, sd, n, step, offset, ddof):
        text = f"have this mean and an SD that rounds to {s.value:.{s.decimals}f} (GRIMMER)."
        return None, f"No {n} values in steps of {step:g} {text}"
    sample, certain = find_sample(targets(mean, sd, n, step, offset, ddof), n, least, most, rng)
    if sample is None:
        return None, "No sample of such values within the bounds has this mean and SD." if certain else _UNDECIDED
    return tuple(float(x) for x in offset + step * sample), ""


def _search(
    m: Printed, s: Printed, n: int, low: float, high: float, ddof: int, rng: np.random.Generator, examples: int
) -> tuple[tuple[float, ...], ...]:
    """Samples with one decimal more than was printed, as many as so many random searches find."""
    if examples < 1:
        return ()
    step = 10.0 ** -(max(m.decimals, s.decimals) + 1)
    offset, least, most = _integer_grid(m, s, n, low, high, step)
    requested = targets((m.low, m.high), (s.low, s.high), n, step, offset, ddof)
    means = np.array([t.total for t in requested]) / n
    wide = largest_sd(means, means, n, least, most, ddof) * step >= s.low
    requested = [t for t, fits in zip(requested, wide, strict=True) if fits]
    found = [sprite(requested, n, least, most, rng) for _ in range(examples)]
    samples = [tuple(float(f"{x:.12g}") for x in offset + step * x) for x in found if x is not None]
    return tuple(dict.fromkeys(samples))


_OPTIONAL: dict[str, Callable[[Any], Any]] = {
    "low": float, "high": float, "step": float, "values_per_case": lambda cell: whole_number(cell, "values_per_case"),
    "sd_kind": str, "rounding": str, "unit": str,
}  # fmt: skip
_ANSWERS = ("possible", "largest_sd", "share_of_largest", "side", "extreme_near", "extreme_far", "others", "text")


def audit_table(
    table: pd.DataFrame, examples: int = 0, defaults: Mapping[str, Any] = MappingProxyType({})
) -> pd.DataFrame:
    """`audit_summary` for each row.

    Args:
        table: columns `mean`, `sd`, `n` and, as far as known, the other arguments of `audit_summary`; read a CSV with
            `dtype=str`, so that "0.10" keeps its decimals. Empty cells mean the default. Other columns are kept; one
            that is named like an answer becomes `<name>_given`.
        examples: samples to search for in each row.
        defaults: the other arguments of `audit_summary` where a row leaves them out.

    Returns:
        The table with `possible`, `largest_sd`, `share_of_largest`, `side`, `extreme_near`, `extreme_far`, `others`,
        `text`; and `problem` for a row that cannot be read, which stops no other row.
    """
    if missing := {"mean", "sd", "n"} - set(table.columns):
        raise ValueError(f"the table lacks the columns {few(sorted(missing))}; it has {few(table.columns, 12)}")
    if unknown := set(defaults) - set(_OPTIONAL):
        raise ValueError(f"no such columns: {sorted(unknown)}; defaults may be {sorted(_OPTIONAL)}")
    while taken := [column for column in (*_ANSWERS, "problem") if column in table.columns]:
        table = table.rename(columns={c: f"{c}_given" for c in table.columns if str(c).removesuffix("_given") in taken})
    rows: list[dict[str, Any]] = []
    for row in tqdm(table.to_dict("records"), desc="audit", unit="row", delay=2, leave=False, disable=None):
        try:
            given = dict(defaults) | {k: v for k, v in row.items() if k in _OPTIONAL and not _blank(v)}
            given = {k: _OPTIONAL[k](v) for k, v in given.items()}
            a = audit_summary(row["mean"], row["sd"], whole_number(row["n"]), **given, examples=examples)
        except ValueError as error:
            rows.append({"problem": str(error)})
            continue
        except (ArithmeticError, MemoryError) as error:
            rows.append({"problem": f"these numbers are too large or too fine to be checked ({error})"})
            continue
        rows.append({
            "possible": a.possible, "largest_sd": a.largest_sd, "share_of_largest": a.share_of_largest, "side": a.side,
            "extreme_near": a.extreme_near, "extreme_far": a.extreme_far, "others": a.others, "text": a.to_text(),
            "problem": "",
        })  # fmt: skip
    result = pd.DataFrame(rows, columns=[*_ANSWERS, "problem"], index=table.index)
    return pd.concat([table, result], axis=1)


def _blank(cell: Any) -> bool:
    """No cell, or a word that programs write for none."""
    return cell is None or str(cell).strip().lower() in ("", "na", "n/a", "nan", "null", "none", "<na>")


def audit_csv(
    path: str | Path,
    examples: int | None = None,
    defaults: Mapping[str, Any] = MappingProxyType({}),
    notes: list[str] | None = None,
) -> pd.DataFrame:
    """`audit_table` of a CSV file, whose numbers keep the decimals that they are printed with.

    `examples` is 2 by default, and 0 for more than 1000 rows; `notes` takes a line for that, and for each thing that
    was guessed in reading the file (see :func:`shapeloss.stats.read_table.read_table`).

    Raises:
        ValueError: not such a table.
    """
    table, read_notes = read_table(path, ("unit", "sd_kind", "rounding"))
    if examples is None:
        examples = 2 if len(table) <= _MOST_SEARCHED else 0
        if not examples:
            read_notes.append(f"{path}: {len(table)} rows: samples are not searched for; --examples 2 does so")
    if notes is not None:
        notes += read_notes
    if table.empty:
        raise ValueError(f"{path}: has no rows; give one row per result: mean, sd, n, …")
    try:
        return audit_table(table.reset_index(drop=True), examples, defaults)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def given_columns(audited: pd.DataFrame) -> pd.DataFrame:
    """The columns that `audit_table` was given, without its answers."""
    return audited.drop(columns=[*_ANSWERS, "problem"])


def table_text(audited: pd.DataFrame) -> str:
    """A paragraph for each row of `audit_table`, under the row's own columns."""
    own = [c for c in audited.columns if c not in {*_ANSWERS, *_OPTIONAL, "mean", "sd", "n", "problem"}]
    parts = []
    for number, row in enumerate(audited.to_dict("records"), 1):
        name = ", ".join(str(row[c]) for c in own if not _blank(row[c]))
        parts.append(f"Row {number}{': ' if name else ''}{name}\n{row['problem'] or row['text']}")
    return "\n\n".join(parts)


def whole_number(cell: Any, name: str = "n") -> int:
    """A count that was read as text.

    Raises:
        ValueError: anything but a whole number.
    """
    try:
        if float(cell) == int(float(cell)):
            return int(float(cell))
    except (TypeError, ValueError, OverflowError):
        pass
    what = " of cases" if name == "n" else ""
    raise ValueError(f"{name} must be a whole number{what}; got {cell!r}")
