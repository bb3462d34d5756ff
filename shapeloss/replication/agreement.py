"""Agreement of predictions with the truth, biomarker by biomarker: bias, its tests, and limits of agreement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from shapeloss.metrics.agreement import LIMITS_FROM, Limit, bland_altman, pitman_morgan
from shapeloss.metrics.biomarkers import biomarker_unit
from shapeloss.stats.paired_tests import holm, paired_t_test, signed_rank_test
from shapeloss.stats.read_table import few

KEYS = ["structure", "biomarker"]


def agreement_table(rows: pd.DataFrame, of: str = "prediction", against: str = "truth") -> pd.DataFrame:
    """Bias and limits of agreement of one column with another, for each biomarker and each loss, if there are several.

    The unit of analysis is the case: the differences of its seeds are averaged. Losses are compared on the same cases:
    one that lacks a value on either side, under any loss or seed, is left out for all, counted and named with its
    reason.

    Args:
        rows: columns structure, biomarker, case, `of`, `against`, and loss and seed where there are several; if there
            is a column reason, it says why a value is absent.
        of: the measurement that is judged.
        against: what it is judged by.

    Returns:
        structure, biomarker, unit, loss, n (cases that all losses have), measured (cases that this loss has), left_out,
        bias, bias_low, bias_high, sd, lower, lower_low, lower_high, upper, upper_low, upper_high, p_t and p_wilcoxon
        (of no bias), p_holm (of p_wilcoxon, over the losses of one biomarker), note; where there are losses, also
        sd_ratio, sd_ratio_low, sd_ratio_high, p_spread (of the SD beside that of :func:`spread_reference`, Pitman and
        Morgan's test) and p_spread_holm.
    """
    losses = "loss" in rows.columns
    if not losses:
        rows = rows.assign(loss="")
    rows = rows.assign(difference=rows[of] - rows[against])
    reference = spread_reference(list(dict.fromkeys(rows["loss"])))
    table: list[dict[str, Any]] = []
    for keys, group in rows.groupby(KEYS, sort=False):
        whole = _measured(group)
        common = whole.index[whole.all(axis=1)]
        means = group.groupby(["case", "loss"])["difference"].mean().unstack("loss").loc[common]
        for loss in whole.columns:
            difference = means[loss]
            found = bland_altman(difference)
            tested = len(difference) > 1
            row = dict(zip(KEYS, keys, strict=True)) | {"unit": biomarker_unit(str(keys[1])), "loss": loss}
            row |= {"n": found.n, "measured": int(whole[loss].sum()), "left_out": len(whole) - found.n}
            row |= _limits("bias", found.bias) | {"sd": found.sd}
            row |= _limits("lower", found.lower) | _limits("upper", found.upper)
            row["p_t"] = paired_t_test(difference).p if tested else np.nan
            row["p_wilcoxon"] = signed_rank_test(difference).p if tested else np.nan
            if loss != reference and reference in means:
                spread = pitman_morgan(difference, means[reference])
                row |= _limits("sd_ratio", spread.ratio) | {"p_spread": spread.p}
            row["note"] = _left_out(group, whole)
            table.append(row)
    spread_columns = ["sd_ratio", "sd_ratio_low", "sd_ratio_high", "p_spread"] if losses else []
    result = pd.DataFrame(table)
    result = result.reindex(columns=[*(c for c in result.columns if c not in [*spread_columns, "note"]),
                                     *spread_columns, "note"])  # fmt: skip
    for name, p in (("p_holm", "p_wilcoxon"), ("p_spread_holm", "p_spread"))[: 1 + losses]:
        adjusted = result.groupby(KEYS, sort=False)[p].transform(lambda values: holm(values.to_numpy()))
        result.insert(result.columns.get_loc(p) + 1, name, adjusted)  # type: ignore[arg-type, operator]
    return result if losses else result.drop(columns="loss")


def spread_reference(losses: Sequence[str]) -> str:
    """The loss with whose spread that of the others is compared: plain cross-entropy, or else the first."""
    return "ce" if "ce" in losses else losses[0]


def on_common_cases(rows: pd.DataFrame, of: str = "prediction", against: str = "truth") -> pd.DataFrame:
    """The same rows, with `of` NaN in the cases that :func:`agreement_table` leaves out."""
    keep = np.zeros(len(rows), bool)
    numbered = rows.assign(difference=rows[of] - rows[against]).reset_index(drop=True)
    for _, group in numbered.groupby(KEYS, sort=False):
        whole = _measured(group)
        keep[group.index] = group["case"].isin(whole.index[whole.all(axis=1)])
    return rows.assign(**{of: np.where(keep, rows[of], np.nan)})


def _measured(group: pd.DataFrame) -> pd.DataFrame:
    """Whether a loss has a difference for a case under all its seeds; (cases, losses), in the order of the rows."""
    per_case = group.groupby(["case", "loss"], sort=False)["difference"]
    whole = (per_case.count() == per_case.size()).unstack("loss", fill_value=False)
    return whole.loc[group["case"].unique(), group["loss"].unique()]


def _limits(name: str, limit: Limit) -> dict[str, float]:
    return {name: limit.value, f"{name}_low": limit.low, f"{name}_high": limit.high}


def _left_out(group: pd.DataFrame, whole: pd.DataFrame) -> str:
    """The cases that are left out, and each reason once; where the truth is to blame, no loss is."""
    said: dict[str, list[str]] = {}
    reasons = group.get("reason", pd.Series("", index=group.index)).fillna("")
    for case in whole.index[~whole.all(axis=1)]:
        here = {loss: set() for loss in whole.columns if not whole.loc[case, loss]}  # type: dict[Any, set[str]]
        for loss, reason in zip(group["loss"], reasons.where(group["case"] == case, ""), strict=True):
            here.get(loss, set()).update(part for part in str(reason).split("; ") if part)
        parts = sorted(set().union(*here.values()))
        parts = [part for part in parts if part.startswith("truth")] or parts or [""]
        for part in parts:
            to_blame = [str(loss) for loss, own in here.items() if part in own or not part]
            some = f" of {' and '.join(to_blame)}" if len(to_blame) < len(whole.columns) else ""
            said.setdefault(part, []).append(f"{case}{some}")
    listed = (f"{few(cases)}{f' ({part})' if part else ''}" for part, cases in said.items())
    return f"without {'; '.join(listed)}" if said else ""


def agreement_markdown(table: pd.DataFrame) -> str:
    """The table of :func:`agreement_table` as Markdown: bias with its interval, limits with theirs, tests.

    With fewer than :data:`LIMITS_FROM` cases no limits stand.
    """
    losses = "loss" in table.columns
    header = ["structure", "biomarker", *(["loss"] if losses else []), "n", "bias [95 %]", "lower limit [95 %]"]
    header += ["upper limit [95 %]", "p (bias)", *(["p, Holm"] if losses else [])]
    lines = [f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    for row in table.to_dict("records"):
        digits = 3 if row["unit"] == "1" else 2
        unit = "" if row["unit"] == "1" else f" ({row['unit']})"
        cells = [str(row["structure"]), f"`{row['biomarker']}`{unit}", *([str(row["loss"])] if losses else [])]
        left = f" (−{row['left_out']})" if row["left_out"] else ""
        limits = [_interval(row, name, digits) if row["n"] >= LIMITS_FROM else "–" for name in ("lower", "upper")]
        cells += [f"{row['n']}{left}", _interval(row, "bias", digits), *limits]
        cells += [_p(row["p_wilcoxon"]), *([_p(row["p_holm"])] if losses else [])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def agreement_matrix(table: pd.DataFrame) -> str:
    """The same with a row for each biomarker and a column for each loss: bias, and the limits of agreement.

    A star says that the bias is not 0 (p, Holm, below 0.05), a dagger that the SD is not that of the reference
    (likewise). n is the number of cases that all losses have; with fewer than :data:`LIMITS_FROM` no limits stand.
    """
    losses = list(dict.fromkeys(table["loss"]))
    lines = [f"| structure | biomarker | n | {' | '.join(losses)} |", "|" + " --- |" * (len(losses) + 3)]
    for (structure, biomarker), group in table.groupby(KEYS, sort=False):
        cells = []
        for row in (group[group["loss"] == loss].iloc[0].to_dict() for loss in losses):
            digits = 3 if row["unit"] == "1" else 2
            if row["n"] == 0:
                cells.append("–")
                continue
            star = "\\*" if row["p_holm"] < 0.05 else ""
            limits = f" ({_signed(row['lower'], digits)} to {_signed(row['upper'], digits)})"
            limits += "†" if row["p_spread_holm"] < 0.05 else ""
            cells.append(f"{_signed(row['bias'], digits)}{star}{limits if row['n'] >= LIMITS_FROM else ''}")
        unit = "" if biomarker_unit(str(biomarker)) == "1" else f" ({biomarker_unit(str(biomarker))})"
        lines.append(f"| {structure} | `{biomarker}`{unit} | {group['n'].iloc[0]} | {' | '.join(cells)} |")
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
