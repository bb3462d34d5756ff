"""A verdict for each claim of a paper, from per-case scores.

A claim's statistic, comparison, test and margin are data (`shapeloss.replication.paper`), fixed before a run. Every
comparison is between per-case means over seeds (see `shapeloss.stats.compare_losses`) and is Holm-corrected over all
comparisons of its claim, also those that could not be made: the family was fixed before the run, and a run of fewer
losses, which may have been chosen after a look at the results, must not make a verdict easier. Verdicts:
*confirmed*, when the claimed direction, equivalence or non-inferiority is shown; *contradicted*, when its opposite is;
*inconclusive* otherwise, with the smallest effect that so many cases could have shown; *not tested* where the scores
are absent. Directions are tested two-sided: a one-sided test could confirm a claim but never contradict it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from shapeloss._files import write_text
from shapeloss.replication.paper import Claim, Paper
from shapeloss.stats.compare_losses import case_means, paired_scores
from shapeloss.stats.paired_tests import (
    Interval,
    detectable_effect,
    differences,
    equivalence,
    hodges_lehmann,
    holm,
    noninferiority,
    power_of,
    signed_rank_test,
)
from shapeloss.stats.read_table import few
from shapeloss.stats.tables import format_p

Verdict = Literal["confirmed", "contradicted", "inconclusive", "not tested"]


@dataclass(frozen=True)
class Finding:
    """One comparison of one claim. Effects are oriented so that a positive one favours the claim's `reference`."""

    claim: str
    loss: str
    verdict: Verdict
    note: str = ""
    n: int = 0
    seeds: int = 0
    effect: float = np.nan
    """Hodges–Lehmann estimate of the difference, in the statistic's unit."""
    low: float = np.nan
    high: float = np.nan
    """Limits of its interval, which inverts the test: at 1 − alpha, or 1 − 2 alpha for tests against a margin."""
    mean_difference: float = np.nan
    sd_difference: float = np.nan
    p: float = np.nan
    p_holm: float = np.nan
    detectable: float = np.nan
    """Smallest true difference that a paired t-test at alpha / comparisons finds with a power of 80 %; for a margin
    test the smallest margin that it passes with this power if there is no true difference."""
    power: float = np.nan
    """To find the difference that the source reports; for a margin test, to pass if there is no true difference."""


def _surface_scores(surface_errors: pd.DataFrame | None, patterns: Sequence[str]) -> pd.DataFrame | None:
    """Per case, loss and seed: the mean error over the landmarks that a pattern names; None where there are none."""
    if surface_errors is None:
        return None
    keys = ["case", "loss"] + (["seed"] if "seed" in surface_errors.columns else [])
    absent = {*keys, "landmark", "error_mm"} - set(surface_errors.columns)
    if absent:
        raise ValueError(f"surface_errors lacks the columns {sorted(absent)}; it has {list(surface_errors.columns)}")
    if surface_errors.duplicated([*keys, "landmark"]).any():
        raise ValueError(
            f"surface_errors has several rows for one {', '.join(keys)} and landmark; one each was expected"
        )
    named = surface_errors[[any(fnmatchcase(str(x), p) for p in patterns) for x in surface_errors["landmark"]]]
    if named.empty:
        return None
    # a landmark without an error leaves its case without a score: averaging the others would hide the miss
    wide = named.pivot(index=keys, columns="landmark", values="error_mm")
    return wide.mean(axis=1, skipna=False).rename("surface_error").reset_index()


def _power(claim: Claim, sd: float, n: int, tests: int, claimed: float) -> float:
    level = claim.alpha / tests
    if claim.test == "superiority":
        return power_of(claimed, sd, n, level) if np.isfinite(claimed) else np.nan
    one_side = power_of(claim.margin or 0.0, sd, n, 2 * level)
    return one_side if claim.test == "noninferiority" else max(0.0, 2 * one_side - 1)


def _judge(claim: Claim, samples: dict[str, np.ndarray]) -> dict[str, tuple[float, float, Interval, Verdict]]:
    """For each loss: p, Holm-corrected p, effect with interval, verdict; `samples` are oriented differences."""
    outcomes: dict[str, tuple[float, float, Interval]] = {}
    for loss, d in samples.items():
        if claim.test == "superiority":
            p = signed_rank_test(d).p
            outcomes[loss] = (p, p, hodges_lehmann(d, 1 - claim.alpha))
        else:
            test = noninferiority if claim.test == "noninferiority" else equivalence
            outcome = test(d, claim.margin or 0.0, claim.alpha, test="wilcoxon")
            outcomes[loss] = (outcome.p, outcome.p_contrary, outcome.interval)
    family = len(claim.against)
    for_claim = holm([p for p, _, _ in outcomes.values()], family)
    against = holm([contrary for _, contrary, _ in outcomes.values()], family)
    judged: dict[str, tuple[float, float, Interval, Verdict]] = {}
    for (loss, (p, _, effect)), yes, no in zip(outcomes.items(), for_claim, against, strict=True):
        d = samples[loss]
        # the two-sided test says that there is a difference, its one-sided halves in which direction
        favourable = claim.test != "superiority" or signed_rank_test(d, "greater").p < signed_rank_test(d, "less").p
        verdict: Verdict = "inconclusive"
        if yes < claim.alpha and favourable:
            verdict = "confirmed"
        elif no < claim.alpha:
            verdict = "contradicted"
        judged[loss] = (p, float(yes), effect, verdict)
    return judged


def evaluate_claims(paper: Paper, per_case: pd.DataFrame, surface_errors: pd.DataFrame | None = None) -> list[Finding]:
    """Test every claim of `paper` on per-case scores.

    Args:
        paper: from `read_paper`.
        per_case: columns `case`, `loss`, `seed` and the statistics that the claims name.
        surface_errors: columns `case`, `loss`, `seed`, `landmark`, `error_mm`: the mean absolute distance in mm between
            predicted and true surface near each landmark.

    Returns:
        One finding per claim and compared loss, in the order of the file.
    """
    findings: list[Finding] = []
    for claim in paper.claims:
        scores = _surface_scores(surface_errors, claim.landmarks) if claim.landmarks else per_case
        if scores is None or claim.statistic not in scores.columns:
            expected = f"{claim.statistic} at {', '.join(claim.landmarks)}" if claim.landmarks else claim.statistic
            findings += [Finding(claim.id, loss, "not tested", f"no scores: {expected}") for loss in claim.against]
            continue
        findings += _evaluate(claim, scores, paper.reported(claim.source).get(claim.statistic, {}))
    return findings


def _evaluate(claim: Claim, scores: pd.DataFrame, reported: dict[str, tuple[float, float]]) -> list[Finding]:
    means = case_means(scores, [claim.statistic])[claim.statistic]
    present = set(scores["loss"])
    sign = 1.0 if claim.better == "higher" else -1.0
    samples: dict[str, np.ndarray] = {}
    notes: dict[str, str] = {}
    for loss in claim.against:
        if missing := [name for name in (claim.reference, loss) if name not in present]:
            notes[loss] = f"no scores of {', '.join(missing)}"
            continue
        pairs, left_out = paired_scores(means, claim.reference, loss)
        if len(pairs) < 2:
            notes[loss] = f"{len(pairs)} paired cases, at least 2 needed"
            continue
        samples[loss] = sign * differences(pairs["reference"], pairs["other"])
        notes[loss] = f"without {few(left_out)}" if left_out else ""
    judged, family = _judge(claim, samples), len(claim.against)
    findings = []
    for loss in claim.against:
        if loss not in judged:
            findings.append(Finding(claim.id, loss, "not tested", notes[loss]))
            continue
        p, p_holm, effect, verdict = judged[loss]
        d = samples[loss]
        n, sd = len(d), float(d.std(ddof=1))
        claimed = np.nan
        if claim.reference in reported and loss in reported:
            claimed = reported[claim.reference][0] - reported[loss][0]
        smallest = (2.0 if claim.test == "superiority" else 1.0) * 0.5**n * family
        if smallest > claim.alpha:
            notes[loss] = "; ".join(filter(None, [notes[loss], f"{n} cases are too few for any verdict at this level"]))
        trained = [
            int(scores.loc[scores["loss"] == name, "seed"].nunique()) if "seed" in scores.columns else 1
            for name in (claim.reference, loss)
        ]
        if trained[0] != trained[1]:
            unequal = f"trainings: {claim.reference} {trained[0]}, {loss} {trained[1]}"
            notes[loss] = "; ".join(filter(None, [notes[loss], unequal]))
        level = (1.0 if claim.test == "superiority" else 2.0) * claim.alpha / family
        # equivalence has to pass two one-sided tests: 0.9 each, which leaves 0.8 for both
        power = 0.9 if claim.test == "equivalence" else 0.8
        findings.append(Finding(
            claim.id, loss, verdict, notes[loss], n, min(trained), effect.value, effect.low, effect.high,
            float(d.mean()), sd, p, p_holm, detectable_effect(sd, n, level, power),
            _power(claim, sd, n, family, claimed),
        ))  # fmt: skip
    return findings


def overall(findings: Sequence[Finding]) -> Verdict:
    """The verdict on a claim: confirmed if every comparison is, contradicted if one is, else inconclusive."""
    verdicts = {finding.verdict for finding in findings}
    if "contradicted" in verdicts:
        return "contradicted"
    if verdicts == {"confirmed"}:
        return "confirmed"
    return "not tested" if verdicts <= {"not tested"} else "inconclusive"


def findings_table(findings: Sequence[Finding]) -> pd.DataFrame:
    """One row per finding, for CSV files and plots."""
    return pd.DataFrame([vars(finding) for finding in findings])


def claims_markdown(
    paper: Paper, findings: Sequence[Finding], data: str, provenance: str, papers_own_data: bool = False
) -> str:
    """The verdicts as a page in Markdown.

    Args:
        paper: from `read_paper`.
        findings: from `evaluate_claims`.
        data: what the scores were measured on, as it reads after "on": "the phantom".
        provenance: which data, profile, seeds and commit the numbers come from.
        papers_own_data: the scores are of the kind of data that the paper used (OAI DESS knees with its three bones);
            only then is anything called reproduced.
    """
    scope = f"The verdicts are on {data}, the paper's own kind of data."
    if not papers_own_data:
        scope = f"The verdicts speak of {data}. The paper's own data may behave otherwise: nothing is reproduced here."
    if max((f.seeds for f in findings), default=0) == 1:
        scope += f" {ONE_SEED}"
    groups = {claim.id: [f for f in findings if f.claim == claim.id] for claim in paper.claims}
    lines = [
        f"# Claims of “{paper.title}”, on {data}",
        "",
        provenance,
        "",
        scope,
        "",
        f"| Claim | Verdict on {data} |",
        "| --- | --- |",
    ]
    lines += [f"| {claim.title} | {_headline(groups[claim.id], papers_own_data)} |" for claim in paper.claims]
    for claim in paper.claims:
        lines += ["", *_claim_section(claim, groups[claim.id])]
    lines += ["", "## How to read this", "", *_NOTES, ""]
    return "\n".join(lines)


def write_claims(
    path: str | Path,
    paper: Paper,
    findings: Sequence[Finding],
    data: str,
    provenance: str,
    papers_own_data: bool = False,
) -> None:
    """Write `claims_markdown` to a file, atomically."""
    write_text(path, claims_markdown(paper, findings, data, provenance, papers_own_data))


ONE_SEED = (
    "Each loss was trained once: the tests speak of other volumes, not of another training, which may turn a verdict. "
    "`seeds: [0, 1, 2]` in the profile averages over trainings."
)
_NOTES = (
    "- The unit is the test volume: scores are averaged over the seeds first, so that a training repeated is not a "
    "patient more.",
    "- Effects are Hodges–Lehmann estimates, positive where they favour the claim. Intervals invert the exact "
    "signed-rank test (of differences without ties): 95 % for differences, 1 − 2 α for tests against a margin. The "
    "p-values are Holm-corrected within each claim, the intervals are not.",
    "- *Smallest detectable*: the true difference that so many volumes with this spread would show with a power of "
    "80 % (for a margin test: the margin). *Power*: to find the difference that the paper reports; for a margin test, "
    "to pass if there is no difference.",
    "- A claim is confirmed when every comparison is, contradicted when one is, else inconclusive. Inconclusive is not "
    "“no difference”.",
)


def _headline(findings: Sequence[Finding], papers_own_data: bool) -> str:
    verdict = overall(findings)
    word = {"confirmed": "reproduced", "contradicted": "not reproduced"}.get(verdict) if papers_own_data else None
    confirmed = sum(finding.verdict == "confirmed" for finding in findings)
    count = "" if verdict == "not tested" else f" ({confirmed} of {len(findings)} confirmed)"
    return f"**{verdict}**{f', {word}' if word else ''}{count}"


def _claim_section(claim: Claim, findings: Sequence[Finding]) -> list[str]:
    margin = f", margin {claim.margin:g}" if claim.margin else ""
    unit = " in mm" if claim.statistic == "surface_error" else ""
    where = f" at {', '.join(f'`{x}`' for x in claim.landmarks)}" if claim.landmarks else ""
    tested = sum(f.verdict != "not tested" for f in findings)
    family = f"{len(findings)}" + (f" ({tested} tested)" if 0 < tested < len(findings) else "")
    lines = [
        f"## {claim.title}", "", f"> {claim.text} (source {claim.source})", "",
        f"Test: {claim.test}{margin}, level {claim.alpha:g}, Holm over {family}; exact Wilcoxon signed-rank; "
        f"`{claim.statistic}`{unit}{where}, {claim.better} is better. {claim.reason.strip()}", "",
        f"| {claim.reference} against | Verdict | Effect | Interval | p | p (Holm) | n | Seeds "
        "| Smallest detectable | Power | Note |",
        "|" + " --- |" * 11,
    ]  # fmt: skip
    for f in findings:
        cells = [f.loss, f"**{f.verdict}**"]
        if f.verdict == "not tested":
            cells += ["–"] * 8
        else:
            cells += [f"{f.effect:+.4f}", f"{f.low:+.4f} to {f.high:+.4f}", format_p(f.p), format_p(f.p_holm), str(f.n)]
            cells += [str(f.seeds), f"{f.detectable:.4f}", "–" if np.isnan(f.power) else f"{100 * f.power:.0f} %"]
        lines.append(f"| {' | '.join([*cells, f.note])} |")
    return lines
