"""Paired comparisons of losses: tests, Holm's correction, intervals, equivalence, power.

The unit of analysis is the test volume. A volume scored after training with three seeds is one observation, the mean of
three scores, not three: the scores share anatomy, noise and annotator, and counting them as independent would triple n
without one new patient (a mixed model with a random effect per volume gives the same estimate on complete data; the
means need no assumption about that effect's distribution and leave exact tests possible at n = 10). What the tests
speak of is therefore new volumes, for networks trained as these were. How much a new training would change a result is
the standard deviation over seeds, which every table shows in its own column.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from tqdm import tqdm

from shapeloss.stats.headings import PAPER_METRICS
from shapeloss.stats.paired_tests import (
    bootstrap_mean,
    detectable_effect,
    differences,
    hodges_lehmann,
    holm,
    paired_t_test,
    sign_flip_test,
    signed_rank_test,
)
from shapeloss.stats.read_table import few


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
    per_case: pd.DataFrame, reference: str = "dpce", metrics: Iterable[str] = tuple(PAPER_METRICS),
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
