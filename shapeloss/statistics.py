"""Paired comparisons of losses: tests, Holm's correction, intervals, equivalence, power.

The unit of analysis is the test volume. A volume scored after training with three seeds is one observation, the mean of
three scores, not three: the scores share anatomy, noise and annotator, and counting them as independent would triple n
without one new patient (a mixed model with a random effect per volume gives the same estimate on complete data; the
means need no assumption about that effect's distribution and leave exact tests possible at n = 10). What the tests
speak of is therefore new volumes, for networks trained as these were. How much a new training would change a result is
the standard deviation over seeds, which every table shows in its own column.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from shapeloss.files import atomic, write_text
from shapeloss.paired import (
    EXACT_LIMIT,
    Interval,
    MarginTest,
    PairedTest,
    bootstrap_mean,
    detectable_effect,
    differences,
    equivalence,
    hodges_lehmann,
    holm,
    noninferiority,
    paired_t_test,
    power_of,
    sign_flip_test,
    signed_rank_test,
)
from shapeloss.tables import few

__all__ = [
    "METRICS", "Interval", "MarginTest", "PairedTest", "bootstrap_mean", "case_means", "compare_losses",
    "detectable_effect", "differences", "equivalence", "format_p", "hodges_lehmann", "holm", "noninferiority",
    "paired_scores", "paired_t_test", "power_of", "sign_flip_test", "signed_rank_test", "summary_table", "write_table",
]  # fmt: skip

METRICS = {"boundary_dice_in_plane": "Boundary Dice", "dice": "Global Dice"}
"""Score columns of the results table and their headings."""


def case_means(per_case: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Mean over seeds of each case's score.

    Args:
        per_case: one row per case, loss and seed: columns `case`, `loss`, those of `metrics`, and `seed` if there are
            several.
        metrics: names of score columns.

    Returns:
        Columns `metrics`, index (loss, case). A case that lacks a finite score for one of its loss's seeds has none
        (NaN): the comparisons exclude, count and name it; they never average the seeds that happened to succeed.
    """
    absent = {"case", "loss", *metrics} - set(per_case.columns)
    if absent:
        raise ValueError(f"per_case lacks the columns {sorted(absent)}; it has {list(per_case.columns)}")
    keys = ["loss", "case"] + (["seed"] if "seed" in per_case.columns else [])
    twice = per_case.loc[per_case.duplicated(keys), keys]
    if len(twice):
        rows = "; ".join(", ".join(f"{k} {v}" for k, v in row.items()) for _, row in twice.head(5).iterrows())
        hint = "; keep the rows of one structure" if "structure" in per_case.columns else ""
        raise ValueError(f"per_case must have one row per {', '.join(keys)}; {len(twice)} are repeated: {rows}{hint}")
    finite = per_case[list(metrics)].astype(float).replace([np.inf, -np.inf], np.nan)
    groups = finite.groupby([per_case["loss"], per_case["case"]], sort=True)
    expected = groups.size().groupby("loss").transform("max")
    return groups.mean().where(groups.count().eq(expected, axis=0))


def paired_scores(means: pd.Series, reference: str, other: str) -> tuple[pd.DataFrame, list[str]]:
    """The cases that both losses have a score for, and the names of those left out.

    Args:
        means: one column of `case_means`.
        reference: key of the first loss.
        other: key of the second.

    Returns:
        Columns `reference` and `other`, index case; and the excluded cases.
    """
    both = pd.DataFrame({"reference": means.loc[reference], "other": means.loc[other]})
    return both.dropna(), [str(case) for case in both.index[both.isna().any(axis=1)]]


def _seed_sd(per_case: pd.DataFrame, loss: str, metric: str) -> float:
    """Sample SD, over seeds, of the mean over cases; NaN with a single seed."""
    if "seed" not in per_case.columns:
        return np.nan
    return float(per_case.loc[per_case["loss"] == loss].groupby("seed")[metric].mean().std(ddof=1))


def _n_seeds(per_case: pd.DataFrame, loss: str) -> int:
    return int(per_case.loc[per_case["loss"] == loss, "seed"].nunique()) if "seed" in per_case.columns else 1


def _order(per_case: pd.DataFrame, reference: str) -> list[str]:
    losses = per_case["loss"].unique().tolist()
    if reference not in losses:
        raise ValueError(f"reference {reference!r} is not among the losses of per_case: {losses}")
    return [reference] + [loss for loss in losses if loss != reference]


def compare_losses(
    per_case: pd.DataFrame, reference: str = "dpce", metrics: Iterable[str] = tuple(METRICS),
    alpha: float = 0.05, confidence: float = 0.95, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Compare `reference` with every other loss on the same cases; one row per metric and loss.

    Args:
        per_case: as for `case_means`.
        reference: key of the loss that the others are compared with.
        metrics: score columns; Holm's family is the set of comparisons of one metric.
        alpha: level of the smallest detectable effect, divided by the size of the family (Holm's strictest step).
        confidence: level of the intervals.
        seed: of the bootstrap, and of the permutation test beyond 16 cases.

    Returns:
        `difference` is reference − loss, the mean over `n` cases; `excluded` counts cases that one of the two lacks or
        has no finite score for, and `note` names them. All p-values are two-sided.
    """
    metrics = list(metrics)
    means = case_means(per_case, metrics)
    rows = []
    first, *others = _order(per_case, reference)
    bar = tqdm(total=len(metrics) * len(others), desc="compare", delay=2, leave=False, disable=None)
    for metric in metrics:
        for loss in others:
            pair, left_out = paired_scores(means[metric], first, loss)
            a, b = pair["reference"].to_numpy(), pair["other"].to_numpy()
            d = differences(a, b)
            n, sd = len(d), float(d.std(ddof=1)) if len(d) > 1 else np.nan
            boot, shift = bootstrap_mean(d, confidence, seed=seed), hodges_lehmann(d, confidence)
            notes = [f"without {few(left_out)}"] if len(left_out) else []
            if n < 2:
                notes.append(f"no test: {n} paired case{'s' if n != 1 else ''}, at least 2 needed")
            elif 2.0 ** (1 - n) > alpha:
                notes.append(f"{n} cases cannot give a p below {2.0 ** (1 - n):.3g}")
            rows.append({
                "metric": metric, "reference": first, "loss": loss, "n": n, "excluded": len(left_out),
                "mean_reference": a.mean() if n else np.nan, "mean_loss": b.mean() if n else np.nan,
                "difference": boot.value, "sd_difference": sd, "ci_low": boot.low, "ci_high": boot.high,
                "hodges_lehmann": shift.value, "hl_low": shift.low, "hl_high": shift.high,
                "p_wilcoxon": signed_rank_test(d).p if n > 1 else np.nan,
                "p_permutation": sign_flip_test(d, seed=seed).p if n > 1 else np.nan,
                "p_t": paired_t_test(d).p,
                "detectable": detectable_effect(sd, n, alpha / len(others)),
                "seeds_reference": _n_seeds(per_case, first), "seeds_loss": _n_seeds(per_case, loss),
                "seed_sd_reference": _seed_sd(per_case, first, metric),
                "seed_sd_loss": _seed_sd(per_case, loss, metric),
                "note": "; ".join(notes),
            })  # fmt: skip
            bar.update()
    bar.close()
    table = pd.DataFrame(rows)
    if len(table):
        adjusted = table.groupby("metric", sort=False)["p_wilcoxon"].transform(lambda p: holm(p.to_numpy()))
        table.insert(list(table.columns).index("p_wilcoxon") + 1, "p_holm", adjusted)
    return table


def summary_table(
    per_case: pd.DataFrame, paper: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
    reference: str = "dpce", metrics: Iterable[str] = tuple(METRICS), seed: int = 0, tests: pd.DataFrame | None = None,
) -> pd.DataFrame:  # fmt: skip
    """The results table: one row per loss, the reference first, all numbers at full precision.

    Args:
        per_case: as for `case_means`.
        paper: what is reported elsewhere: `paper[metric][loss] = (mean, SD)`; may lack metrics and losses.
        reference: key of the loss that the others are tested against.
        metrics: score columns.
        seed: of the bootstrap.
        tests: what `compare_losses` returned for the same arguments, if that was called before.

    Returns:
        `loss`, `n` (cases), `seeds`, `note`, and for each metric `<metric>_mean` and `_sd` (sample SD over cases of the
        means over seeds), `_seed_sd` (over seeds of the means over cases), `_paper_mean`, `_paper_sd`, `_difference`
        (reference − loss), `_ci_low`, `_ci_high`, `_p` (two-sided exact Wilcoxon) and `_p_holm`.
    """
    metrics = list(metrics)
    means = case_means(per_case, metrics)
    tests = compare_losses(per_case, reference, metrics, seed=seed) if tests is None else tests
    by_loss = {(test["loss"], test["metric"]): test for test in tests.to_dict("records")}  # none for one loss alone
    rows = []
    for loss in _order(per_case, reference):
        scores = means.loc[loss]
        scored = len(scores[metrics].dropna(how="all"))
        row: dict[str, object] = {"loss": loss, "n": scored, "seeds": _n_seeds(per_case, loss)}
        notes = []
        for metric in metrics:
            reported = (paper or {}).get(metric, {}).get(loss, (np.nan, np.nan))
            row |= {
                f"{metric}_mean": scores[metric].mean(), f"{metric}_sd": scores[metric].std(ddof=1),
                f"{metric}_seed_sd": _seed_sd(per_case, loss, metric),
                f"{metric}_paper_mean": reported[0], f"{metric}_paper_sd": reported[1],
            }  # fmt: skip
            if missing := int(scores[metric].isna().sum()):
                notes.append(f"{metric}: {missing} of {len(scores)} cases without a finite score are not in the mean")
            found = by_loss.get((loss, metric), {})
            names = {"difference": "difference", "ci_low": "ci_low", "ci_high": "ci_high"}
            names |= {"p": "p_wilcoxon", "p_holm": "p_holm"}
            row |= {f"{metric}_{name}": found.get(column, np.nan) for name, column in names.items()}
            if found.get("note"):
                notes.append(f"{metric}: {found['note']}")
        rows.append(row | {"note": "; ".join(notes)})
    return pd.DataFrame(rows)


def _mean_sd(mean: float, sd: float, digits: int | None = 3) -> str:
    """Our numbers with `digits` decimals; reported ones (None) with as many as either of the two was printed with."""
    if np.isnan(mean):
        return "–"
    if digits is None:
        digits = max(len(f"{value:.12g}".partition(".")[2]) for value in (mean, sd) if not np.isnan(value))
    return f"{mean:.{digits}f}" if np.isnan(sd) else f"{mean:.{digits}f} ± {sd:.{digits}f}"


def format_p(p: float) -> str:
    """A p-value for a table: three decimals, `<0.001` below, a dash where there is none."""
    if np.isnan(p):
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _cells(table: pd.DataFrame, metrics: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    several = bool((table["seeds"] > 1).any())
    compared = bool(table[[f"{m}_paper_mean" for m in metrics]].notna().to_numpy().any())
    header = ["Loss"]
    for label in metrics.values():
        header += [label, *(["SD over seeds"] if several else []), *(["Paper"] if compared else []), "p (Holm)"]
    rows = []
    for row in table.to_dict("records"):
        cells = [str(row["loss"])]
        for m in metrics:
            cells.append(_mean_sd(row[f"{m}_mean"], row[f"{m}_sd"]))
            if several:
                cells.append(_mean_sd(row[f"{m}_seed_sd"], np.nan))
            if compared:
                cells.append(_mean_sd(row[f"{m}_paper_mean"], row[f"{m}_paper_sd"], None))
            cells.append(format_p(row[f"{m}_p_holm"]))
        rows.append([*cells, str(row["n"]), str(row["seeds"])])
    return [*header, "n", "Seeds"], rows


def write_table(
    table: pd.DataFrame, stem: str | Path, provenance: str, metrics: Mapping[str, str] = METRICS
) -> list[Path]:
    """Write a `summary_table` as `<stem>.csv` (full precision), `.md` and `.tex` (formatted); equal input, equal bytes.

    Args:
        table: from `summary_table`.
        stem: path without its ending.
        provenance: which data, profile, seeds and commit the numbers come from; stands in the caption.
        metrics: score columns to show, in this order, and their headings.

    Returns:
        The three paths.
    """
    reference = str(table["loss"].iloc[0])
    others = len(table) - 1
    seeds = ", each averaged over the seeds" if (table["seeds"] > 1).any() else ""
    exact = "exact " if table["n"].max() <= EXACT_LIMIT else ""
    caption = (
        f"Mean ± standard deviation over n test volumes{seeds}; p: {exact}two-sided paired Wilcoxon test against "
        f"{reference}, Holm-corrected over the {others} comparisons of a column. {provenance}"
    )
    notes = [f"{row['loss']}: {row['note']}" for row in table.to_dict("records") if row["note"]]
    header, rows = _cells(table, metrics)
    paths = [Path(f"{stem}.{ending}") for ending in ("csv", "md", "tex")]
    with atomic(paths[0]) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    lines = [" | ".join(row).join(("| ", " |")) for row in [header, ["---"] * len(header), *rows]]
    write_text(paths[1], "\n".join([*lines, "", caption, *(f"\n{note}" for note in notes)]) + "\n")
    write_text(paths[2], _latex(header, rows, " ".join([caption, *(f"{note}." for note in notes)])))
    return paths


def _latex(header: list[str], rows: list[list[str]], caption: str) -> str:
    def escape(text: str) -> str:
        special = {"\\": r"\textbackslash{}", "±": r"$\pm$", "–": "--", "<": r"$<$", "−": "$-$"}
        special |= {character: "\\" + character for character in "&%_#${}"}
        return "".join(special.get(character, character) for character in text)

    body = [" & ".join(map(escape, row)) + r" \\" for row in rows]
    return "\n".join([
        "% needs \\usepackage{booktabs}", r"\begin{table}", r"\centering", rf"\caption{{{escape(caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule", " & ".join(map(escape, header)) + r" \\",
        r"\midrule", *body, r"\bottomrule", r"\end{tabular}", r"\end{table}", "",
    ])  # fmt: skip
