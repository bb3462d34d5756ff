"""Agreement of predictions with the truth, biomarker by biomarker: bias, its tests, and limits of agreement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from shapeloss.metrics.agreement import Limit, bland_altman
from shapeloss.metrics.biomarkers import biomarker_unit
from shapeloss.stats.paired_tests import holm, paired_t_test, signed_rank_test
from shapeloss.stats.read_table import few

KEYS = ["structure", "biomarker"]


def agreement_table(rows: pd.DataFrame, of: str = "prediction", against: str = "truth") -> pd.DataFrame:
    """Bias and limits of agreement of one column with another, for each biomarker and each loss, if there are several.

    The unit of analysis is the case: the differences of its seeds are averaged. A case that lacks a value on either
    side, under any of its seeds, is left out, counted and named with its reason.

    Args:
        rows: columns structure, biomarker, case, `of`, `against`, and loss and seed where there are several; if there
            is a column reason, it says why a value is absent.
        of: the measurement that is judged.
        against: what it is judged by.

    Returns:
        structure, biomarker, unit, loss, n, left_out, bias, bias_low, bias_high, sd, lower, lower_low, lower_high,
        upper, upper_low, upper_high, p_t and p_wilcoxon (of no bias), p_holm (of p_wilcoxon, over the losses of one
        biomarker), note.
    """
    rows = rows.assign(difference=rows[of] - rows[against])
    losses = "loss" in rows.columns
    table = []
    for keys, group in rows.groupby([*KEYS, "loss"] if losses else KEYS, sort=False):
        per_case = group.groupby("case")["difference"]
        whole = per_case.count() == per_case.size()
        found = bland_altman(per_case.mean()[whole])
        difference = per_case.mean()[whole]
        tested = len(difference) > 1
        table.append(
            dict(zip([*KEYS, "loss"] if losses else KEYS, keys, strict=True))
            | {"unit": biomarker_unit(str(keys[1])), "n": found.n, "left_out": int((~whole).sum())}
            | _limits("bias", found.bias)
            | {"sd": found.sd}
            | _limits("lower", found.lower)
            | _limits("upper", found.upper)
            | {
                "p_t": paired_t_test(difference).p if tested else np.nan,
                "p_wilcoxon": signed_rank_test(difference).p if tested else np.nan,
                "note": _left_out(group, whole.index[~whole]),
            }
        )
    result = pd.DataFrame(table)
    adjusted = result.groupby(KEYS, sort=False)["p_wilcoxon"].transform(lambda p: holm(p.to_numpy()))
    result.insert(result.columns.get_loc("p_wilcoxon") + 1, "p_holm", adjusted)  # type: ignore[arg-type, operator]
    return result


def _limits(name: str, limit: Limit) -> dict[str, float]:
    return {name: limit.value, f"{name}_low": limit.low, f"{name}_high": limit.high}


def _left_out(group: pd.DataFrame, cases: Sequence[Any] | pd.Index) -> str:
    """The cases that are left out, and each reason once."""
    if not len(cases):
        return ""
    reasons = group.get("reason", pd.Series("", index=group.index))[group["case"].isin(cases)].dropna()
    said = "; ".join(dict.fromkeys(part for reason in reasons for part in str(reason).split("; ") if part))
    return f"without {few([str(case) for case in cases])}{f' ({said})' if said else ''}"


def agreement_markdown(table: pd.DataFrame) -> str:
    """The table of :func:`agreement_table` as Markdown: bias with its interval, limits with theirs, tests."""
    losses = "loss" in table.columns
    header = ["structure", "biomarker", *(["loss"] if losses else []), "n", "bias [95 %]", "lower limit [95 %]"]
    header += ["upper limit [95 %]", "p (bias)", *(["p, Holm"] if losses else [])]
    lines = [f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    for row in table.to_dict("records"):
        digits = 3 if row["unit"] == "1" else 2
        unit = "" if row["unit"] == "1" else f" ({row['unit']})"
        cells = [str(row["structure"]), f"`{row['biomarker']}`{unit}", *([str(row["loss"])] if losses else [])]
        left = f" (−{row['left_out']})" if row["left_out"] else ""
        cells += [f"{row['n']}{left}", *(_interval(row, name, digits) for name in ("bias", "lower", "upper"))]
        cells += [_p(row["p_wilcoxon"]), *([_p(row["p_holm"])] if losses else [])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def agreement_matrix(table: pd.DataFrame) -> str:
    """The same with a row for each biomarker and a column for each loss: bias, and the limits of agreement.

    A star says that the bias is not 0 (p, Holm, below 0.05); n stands where cases were left out.
    """
    losses = list(dict.fromkeys(table["loss"]))
    lines = [f"| structure | biomarker | {' | '.join(losses)} |", "|" + " --- |" * (len(losses) + 2)]
    for (structure, biomarker), group in table.groupby(KEYS, sort=False):
        cells = []
        for row in (group[group["loss"] == loss].iloc[0].to_dict() for loss in losses):
            digits = 3 if row["unit"] == "1" else 2
            if row["n"] == 0:
                cells.append("not measured")
                continue
            star = "\\*" if row["p_holm"] < 0.05 else ""
            limits = f" ({_signed(row['lower'], digits)} to {_signed(row['upper'], digits)})" if row["n"] > 1 else ""
            count = f", n = {row['n']}" if row["left_out"] else ""
            cells.append(f"{_signed(row['bias'], digits)}{star}{limits}{count}")
        unit = "" if biomarker_unit(str(biomarker)) == "1" else f" ({biomarker_unit(str(biomarker))})"
        lines.append(f"| {structure} | `{biomarker}`{unit} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _interval(row: dict[Any, Any], name: str, digits: int) -> str:
    if not np.isfinite(row[name]):
        return "–"
    if not np.isfinite(row[f"{name}_low"]):
        return _signed(row[name], digits)
    low, high = (_signed(row[f"{name}_{end}"], digits) for end in ("low", "high"))
    return f"{_signed(row[name], digits)} [{low}, {high}]"


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _p(value: float) -> str:
    return "–" if not np.isfinite(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"
