"""How often the tests err and the intervals cover: a simulation at the sizes and distributions of this project.

    python reproduce/benchmarks/error_rates.py [--replications 1000]

Without a true difference a test at 0.05 should reject in 5 % of the replications, or fewer where few cases allow only
few p-values; a 95 % interval should cover the truth in 95 %. The last column shows what counting each seed of a case as
a case of its own would do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from tqdm import tqdm

from shapeloss._files import write_text
from shapeloss.stats.crossed import crossed_difference
from shapeloss.stats.paired_tests import (
    bootstrap_mean,
    equivalence,
    hodges_lehmann,
    holm,
    noninferiority,
    paired_t_test,
    sign_flip_test,
    signed_rank_test,
)

Sampler = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

# Differences of mean 0 and SD 1. The skewed ones violate what Wilcoxon's test assumes, symmetry about the mean.
DISTRIBUTIONS: dict[str, Sampler] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "heavy tails (t, 4 df)": lambda rng, size: rng.standard_t(4, size=size) / np.sqrt(2),
    "skewed (exponential)": lambda rng, size: rng.exponential(size=size) - 1,
    "with ties and zeros": lambda rng, size: np.round(rng.normal(size=size)) / np.sqrt(13 / 12),
}
MARGIN = 0.8
OUTPUT = Path(__file__).with_suffix(".md")
SEEDS = 3
SEED_SD = 0.5  # of a run about its case, in units of the SD between cases


def simulate(distribution: str, n: int, replications: int, seed: int = 0) -> dict[str, float]:
    """Shares of the replications for `n` cases: rejections at 0.05 (non-inferiority: 0.025), coverage at 95 %."""
    rng = np.random.default_rng([seed, n, list(DISTRIBUTIONS).index(distribution)])
    draw = DISTRIBUTIONS[distribution]
    rows = []
    for _ in range(replications):
        d = draw(rng, (n,))
        # three rivals compared with one reference, whose scores the three comparisons share
        shared = draw(rng, (4, n))
        family = holm([signed_rank_test(shared[0] - other).p for other in shared[1:]])
        boot, shift = bootstrap_mean(d, resamples=1999, seed=int(rng.integers(2**31))), hodges_lehmann(d)
        runs = (d[:, None] + rng.normal(0, SEED_SD, (n, SEEDS))).ravel()
        rows.append({
            "Wilcoxon": signed_rank_test(d).p < 0.05,
            "sign flips": sign_flip_test(d).p < 0.05,
            "t": paired_t_test(d).p < 0.05,
            "any of 3 (Holm)": family.min() < 0.05,
            "equivalent, at the margin": equivalence(d + MARGIN, MARGIN, test="wilcoxon").p < 0.05,
            "not inferior, at the margin": noninferiority(d - MARGIN, MARGIN, test="wilcoxon").p < 0.025,
            "bootstrap covers": boot.low <= 0 <= boot.high,
            "Hodges–Lehmann covers": shift.low <= 0 <= shift.high,
            "Wilcoxon, seeds as cases": signed_rank_test(runs).p < 0.05,
        })  # fmt: skip
    return {str(key): float(share) for key, share in pd.DataFrame(rows).mean().items()}


def simulate_trainings(volumes: int, seeds: int, sd: float, replications: int) -> dict[str, float]:
    """Shares of the replications with no true difference, where each training has an effect of its own.

    Each volume's difference has an SD of 1, each training's one of `sd`, and their rest one of 1; all are normal.
    """
    rng = np.random.default_rng([volumes, seeds, round(100 * sd)])
    rows = []
    for _ in range(replications):
        d = rng.normal(0, 1, (volumes, 1)) + rng.normal(0, sd, (1, seeds)) + rng.normal(0, 1, (volumes, seeds))
        crossed, averaged = crossed_difference(d), d.mean(axis=1)
        shift = hodges_lehmann(averaged)
        rows.append({
            "crossed": crossed.p < 0.05,
            "crossed covers": crossed.interval.low <= 0 <= crossed.interval.high,
            "Wilcoxon, volumes alone": signed_rank_test(averaged).p < 0.05,
            "Hodges–Lehmann covers, volumes alone": shift.low <= 0 <= shift.high,
        })  # fmt: skip
    return {str(key): float(share) for key, share in pd.DataFrame(rows).mean().items()}


def _trainings_part(replications: int) -> list[str]:
    cells = [(10, seeds, sd) for seeds in (3, 5) for sd in (0.0, 0.5, 1.0)] + [(20, 5, 0.5)]
    rows = [
        {"volumes": v, "trainings": s, "SD of a training": f"{sd:g}"} | simulate_trainings(v, s, sd, replications)
        for v, s, sd in cells
    ]
    return [
        "## New volumes and new trainings",
        "",
        "A training has an effect of its own on every volume's difference. Its SD is given in units of that between",
        "volumes; the rest has an SD of 1. Tests on the volumes' means over the seeds take these trainings for given;",
        "the crossed test (`shapeloss.stats.crossed`) asks about new ones as well.",
        "",
        *_as_table(rows),
    ]


def _as_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
    for row in rows:
        lines.append(
            "| " + " | ".join(str(v) if isinstance(v, (str, int)) else f"{v:.3f}" for v in row.values()) + " |"
        )
    return lines


def _what_fails(rows: Sequence[Mapping[str, Any]], replications: int) -> list[str]:
    """The cells that miss their level by more than three standard errors, column by column."""
    lines = ["What misses its level by more than three standard errors of the simulation:", ""]
    for column in rows[0]:
        covers = column.endswith("covers")
        if column in ("differences", "n", "Wilcoxon, seeds as cases"):
            continue
        level = 0.95 if covers else 0.025 if column.startswith("not inferior") else 0.05
        slack = 3 * np.sqrt(level * (1 - level) / replications)
        missed = [
            f"{row['differences']}, n = {row['n']} ({row[column]:.3f})"
            for row in rows
            if (row[column] < level - slack if covers else row[column] > level + slack)
        ]
        lines.append(f"- {column}: {'; '.join(missed) or 'nothing'}.")
    return [
        *lines,
        "",
        "The tests keep their level where the differences are symmetric. About the mean of skewed ones each of them",
        "errs too often, and the signed-rank test speaks of their pseudomedian, which is then not their mean: look at",
        "the pairs in the figure of the scores before trusting a p near the level. The bootstrap interval of so few",
        "cases is too narrow; the verdicts do not use it.",
    ]


def main(
    replications: Annotated[int, typer.Option(help="Simulated studies for each row.", min=10)] = 1000,
    output: Annotated[Path, typer.Option(help="Markdown file to write.")] = OUTPUT,
) -> None:
    """Simulate, print the table and write it."""
    cells = [(name, n) for name in DISTRIBUTIONS for n in (5, 10, 20)]
    rows = [{"differences": name, "n": n} | simulate(name, n, replications) for name, n in tqdm(cells)]
    error = np.sqrt(0.05 * 0.95 / replications)
    lines = [
        "# How often the tests err, and the intervals cover",
        "",
        f"{replications} simulated studies for each row; the standard error of a share near 0.05 is {error:.3f}.",
        "Without a true difference, a test at 0.05 should reject in at most 5 % (non-inferiority, at 0.025: 2.5 %),",
        "and a 95 % interval should cover the truth in at least 95 %. The last column counts three seeds of a case",
        "as three cases, which is why they are averaged first.",
        "",
        *_as_table(rows),
    ]
    text = "\n".join(
        [
            *lines,
            "",
            *_what_fails(rows, replications),
            "",
            *_trainings_part(replications),
            "",
            "Made by `python reproduce/benchmarks/error_rates.py`.",
            "",
        ]
    )
    print(text)
    write_text(output, text)


if __name__ == "__main__":
    typer.run(main)
