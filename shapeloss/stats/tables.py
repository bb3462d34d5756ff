"""Tables of results as text, CSV, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from shapeloss._files import atomic, write_text
from shapeloss.stats.compare_losses import _n_seeds, _order, _seed_sd, case_means, compare_losses
from shapeloss.stats.headings import PAPER_METRICS
from shapeloss.stats.paired_tests import EXACT_LIMIT


def summary_table(
    per_case: pd.DataFrame, paper: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
    reference: str = "dpce", metrics: Iterable[str] = tuple(PAPER_METRICS), seed: int = 0,
    tests: pd.DataFrame | None = None,
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
    table: pd.DataFrame, stem: str | Path, provenance: str, metrics: Mapping[str, str] = PAPER_METRICS
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
