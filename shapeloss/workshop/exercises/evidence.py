"""Notebook 6: is the difference real?"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from shapeloss.review.audit.summary import audit_summary
from shapeloss.workshop.checks import as_number, exercise, need

A = np.array([0.41, 0.52, 0.47, 0.38, 0.55, 0.44, 0.49, 0.51, 0.36, 0.46])
B = A + np.array([0.02, 0.01, 0.03, -0.01, 0.02, 0.02, 0.01, 0.03, 0.00, 0.02])
"""Boundary Dice of ten volumes under two losses, made up: volumes differ much, losses little."""


@exercise("6.1", "complete the function t_statistic(first, second)")
def paired_t(function: Any) -> str:
    value, expected = as_number(function(B, A), "t"), float(stats.ttest_rel(B, A).statistic)
    unpaired = float(stats.ttest_ind(B, A).statistic)
    need(abs(value - unpaired) > 1e-6, "that is the unpaired t: subtract volume by volume first")
    population = expected * np.sqrt(10 / 9)
    need(abs(value - population) > 1e-6, "the standard deviation divides by n; that of a sample divides by n − 1")
    need(abs(value + expected) > 1e-6, "the sign is turned: first minus second")
    need(abs(value - expected) < 1e-6, f"it gives {value:.3f}, not {expected:.3f}: mean(d) / (sd(d) / √n)")
    return f"t = {expected:.2f} on 9 degrees of freedom; unpaired, the same data give {unpaired:.2f}."


@exercise("6.2", "set paired_p and unpaired_p, and pass both")
def why_pairs(answer: Any) -> str:
    paired, unpaired = (as_number(value, "p") for value in answer)
    need(
        abs(paired - stats.ttest_rel(B, A).pvalue) < 1e-4,
        f"the paired p is not {paired:.4f}; use scipy.stats.ttest_rel, two-sided",
    )
    need(
        abs(unpaired - stats.ttest_ind(B, A).pvalue) < 1e-4,
        f"the unpaired p is not {unpaired:.4f}; use scipy.stats.ttest_ind, two-sided",
    )
    return "The spread between volumes is many times the difference; in pairs it cancels."


@exercise("6.3", 'complete the function conclusion(low, high, margin): "better", "worse", "equivalent" or "open"')
def equivalence(function: Any) -> str:
    cases = {
        (0.012, 0.030, 0.010): "better",
        (-0.030, -0.012, 0.010): "worse",
        (-0.004, 0.006, 0.010): "equivalent",
        (0.002, 0.006, 0.010): "equivalent",
        (-0.004, 0.020, 0.010): "open",
        (0.002, 0.020, 0.010): "open",
    }
    for (low, high, margin), expected in cases.items():
        got = function(low, high, margin)
        need(got is not None, "not answered yet: return a word for every interval")
        need(
            got == expected,
            f"the interval {low:+.3f} to {high:+.3f} with the margin ± {margin:.3f} is {expected!r}, got {got!r}: "
            "where does the whole interval lie?",
        )
    return "A difference that is not significant is no equality: only an interval within the margin shows that."


@exercise("6.4", "set noise to the standard deviation of the difference between two trainings that differ in the seed")
def noise_of_seeds(answer: Any) -> str:
    noise, means = as_number(answer[0], "noise"), np.asarray(answer[1], dtype=float)
    sd = float(means.std(ddof=1))
    need(abs(noise - sd) > 1e-9, "that is the SD of one training; a difference has two of them")
    need(abs(noise - 2 * sd) > 1e-9, "variances add, standard deviations do not")
    need(abs(noise - np.sqrt(2) * sd) < 1e-6, f"the SD of the means is {sd:.4f}; the difference of two has √2 of it")
    return f"± {noise:.4f}: a difference between two losses, one training each, must be seen against this."


@exercise("6.5", "complete the function risk(mean_a, sd_a, mean_b, sd_b, n, r)")
def probability_that_a_claim_is_false(function: Any) -> str:
    for r in (0.0, 0.5, 0.84):
        value = as_number(function(0.80, 0.05, 0.82, 0.06, 20, r), "the probability")
        sd = np.sqrt(0.05**2 + 0.06**2 - 2 * r * 0.05 * 0.06)
        expected = float(stats.t.cdf(np.sqrt(20) * (0.80 - 0.82) / sd, 19))
        need(abs(value - (1 - expected)) > 1e-6, "that is the probability that the claim is true")
        need(
            abs(value - expected) < 1e-6,
            f"with r = {r:g} it gives {value:.4f}, not {expected:.4f}: t(n − 1) of √n (mean_a − mean_b) / SD of the "
            "difference, whose variance loses 2 r sd_a sd_b",
        )
    return "The correlation is hardly ever printed, and it decides: from 13 % to next to nothing here."


@exercise("6.6", "set impossible to the number of the row that cannot be")
def impossible_row(answer: Any) -> str:
    row = as_number(answer, "impossible")
    rows = {1: (0.95, 0.02), 2: (0.50, 0.15), 3: (0.98, 0.30), 4: (0.10, 0.20)}
    need(row in rows, f"the rows are 1 to 4, got {row:g}")
    mean, sd = rows[int(row)]
    found = audit_summary(f"{mean:.2f}", f"{sd:.2f}", 10, low=0.0, high=1.0)
    need(
        not found.possible,
        f"row {int(row)}: ten scores in 0 to 1 whose mean rounds to {mean:.2f} can have an SD of up to "
        f"{found.largest_sd:.2f}",
    )
    return f"Ten scores in 0 to 1 whose mean rounds to {mean:.2f} have an SD of at most {found.largest_sd:.2f}."
