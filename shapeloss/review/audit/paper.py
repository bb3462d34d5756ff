"""The audit of everything that a paper reports: each result, its sources beside each other, and what follows.

`shapeloss.review.audit.summary` answers single questions; here they are asked of a whole `reproduce/paper.yaml`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from shapeloss._files import write_text
from shapeloss.replication.paper import Paper, Reported
from shapeloss.review.audit.consistency import RequiredCorrelation, compare_sources, required_correlation
from shapeloss.review.audit.dice_vs_boundary import RelationCheck, check_relation
from shapeloss.review.audit.false_claims import LEVEL, LIMIT, POWER, FalseClaim, false_claim, percent
from shapeloss.review.audit.summary import Audit, audit_summary
from shapeloss.review.audit.trainings import (
    SdComparison,
    SdRelation,
    TrainingNoise,
    benchmark_text,
    fit_sd,
    training_noise,
)
from shapeloss.stats.headings import PAPER_METRICS

NOTABLE_SHARE = 0.5
"""A reported SD of at least this share of the largest possible one says much about single values."""


@dataclass(frozen=True)
class AuditedResult:
    """One reported mean ± SD and what it implies, if the values are one per case or one per case and structure."""

    reported: Reported
    per_case: Audit
    per_structure: Audit

    @property
    def name(self) -> str:
        """For tables and figures."""
        return f"{self.reported.source}: {self.metric} of {self.reported.loss}"

    @property
    def metric(self) -> str:
        """The metric's heading."""
        return PAPER_METRICS.get(self.reported.metric, self.reported.metric)


@dataclass(frozen=True)
class PaperAudit:
    """What can and cannot be true of what a paper reports."""

    paper: Paper
    structures: int
    results: tuple[AuditedResult, ...]
    sources: pd.DataFrame
    """From `compare_sources`."""
    correlations: dict[tuple[str, str, str], RequiredCorrelation]
    """(claim, source, loss) → the correlation that the claimed difference needs."""
    relations: dict[tuple[str, str], RelationCheck]
    """(source, loss) → whether its Dice and boundary Dice were seen together."""
    problems: tuple[str, ...] = ()
    """What could not be audited, and why."""
    unrelated: int = 0
    """Pairs of Dice and boundary Dice that were not looked at, for want of a measured relation."""
    false_claims: dict[tuple[str, str, str], FalseClaim] = field(default_factory=dict)
    """(claim, source, loss) → how probable it is that the claimed difference is none."""
    noise: dict[str, TrainingNoise] = field(default_factory=dict)
    """Metric → how far two trainings of one loss differ, on the data that this was measured on."""
    sd_relations: dict[str, SdRelation] = field(default_factory=dict)
    """Metric → how the SD over cases goes with the mean, on the data that this was measured on."""
    sds: dict[tuple[str, str, str], SdComparison] = field(default_factory=dict)
    """(source, metric, loss) → its SD beside the one that its mean predicts."""


def audit_paper(
    paper: Paper, relation: pd.DataFrame | None = None, structures: int = 3, seed: int = 0,
    correlations: pd.DataFrame | None = None, trainings: pd.DataFrame | None = None,
) -> PaperAudit:  # fmt: skip
    """Ask every question of `shapeloss.review.audit.summary` that the paper's numbers allow.

    Args:
        paper: from `read_paper`.
        relation: Dice and boundary Dice as measured (`shapeloss.review.audit.dice_vs_boundary`); without it, that
            question is left out.
        structures: values per case, if the SD was taken over cases and structures together.
        seed: of the search for example samples.
        correlations: between paired scores, as measured (`shapeloss.review.audit.trainings.read_correlations`);
            without it, the probability of a false claim is given for chosen correlations only.
        trainings: means and SDs of trainings (`shapeloss.review.audit.trainings.read_trainings`); without it, claims
            are not held against the noise of training, nor SDs against their means.
    """
    results, problems = [], []
    for r in paper.results:
        mean, sd = r.printed.split(" ± ")
        low, high = (float(f"{bound / r.unit:.12g}") for bound in r.bounds)
        try:
            per_case = audit_summary(mean, sd, r.n, low, high, unit="volume", seed=seed)
            per_structure = audit_summary(
                mean, sd, r.n, low, high, values_per_case=structures, unit="structure of a volume", seed=seed
            )
        except (ValueError, ArithmeticError, MemoryError) as error:
            name = f"{r.source}: {PAPER_METRICS.get(r.metric, r.metric)} of {r.loss}, {r.printed}, n = {r.n}"
            problems.append(f"{name}, was not audited: {error}")
            continue
        results.append(AuditedResult(r, per_case, per_structure))
    by_key = {(a.reported.source, a.reported.metric, a.reported.loss): a for a in results}
    needed_correlations, false_claims = {}, {}
    for claim in paper.claims:
        if claim.test != "superiority":
            continue
        for source in paper.sources:
            first = by_key.get((source, claim.statistic, claim.reference))
            for loss in claim.against:
                second = by_key.get((source, claim.statistic, loss))
                if first is None or second is None or first.reported.n != second.reported.n:
                    continue
                n = first.reported.n
                (a, b), of_metric = (_printed(x.reported) for x in (first, second)), None
                if correlations is not None:
                    of_metric = correlations[correlations["metric"] == claim.statistic]
                false_claims[claim.id, source, loss] = false_claim(a, b, n, claim.better, measured=of_metric)
                try:
                    needed = required_correlation(a, b, n, claim.alpha)
                except ValueError as error:
                    name = f"{source}, {claim.id}: the correlation that {claim.reference} against {loss} needs"
                    problems.append(f"{name} was not computed: {error}")
                    continue
                needed_correlations[claim.id, source, loss] = needed
    relations, unrelated = {}, 0
    for (source, metric, loss), dice in by_key.items():
        other = by_key.get((source, "boundary_dice_in_plane", loss))
        if metric != "dice" or other is None or not dice.per_case.possible:
            continue
        if relation is None:
            unrelated += 1
        elif not 0 < dice.per_case.high < float("inf") or not 0 < other.per_case.high < float("inf"):
            problems.append(f"{source}, {loss}: Dice was not set beside boundary Dice: both need bounds.")
        else:
            relations[source, loss] = check_relation(dice.per_case, other.per_case, relation)
    sources = compare_sources(paper.results_table()) if len(paper.sources) > 1 else pd.DataFrame()
    noise, lines = _measured(paper, trainings, problems) if trainings is not None else ({}, {})
    sds = {
        key: SdComparison(a.reported.mean, a.reported.sd, lines[key[1]])
        for key, a in by_key.items()
        if key[1] in lines and a.reported.sd > 0
    }
    return PaperAudit(
        paper, structures, tuple(results), sources, needed_correlations, relations, tuple(problems), unrelated,
        false_claims, noise, lines, sds,
    )  # fmt: skip


def _printed(reported: Reported) -> tuple[str, str]:
    mean, sd = reported.printed.split(" ± ")
    return mean, sd


def _measured(
    paper: Paper, trainings: pd.DataFrame, problems: list[str]
) -> tuple[dict[str, TrainingNoise], dict[str, SdRelation]]:
    """The noise of training and the SD that goes with a mean, of each reported metric that trainings were scored by."""
    noise, lines = {}, {}
    for metric in dict.fromkeys(r.metric for r in paper.results):
        if metric not in set(trainings["metric"]):
            continue
        name = PAPER_METRICS.get(metric, metric)
        try:
            noise[metric] = training_noise(trainings, metric)
        except ValueError as error:
            problems.append(f"{name}: the noise of training was not computed: {error}")
        try:
            lines[metric] = fit_sd(trainings, metric)
        except ValueError as error:
            problems.append(f"{name}: the SD that a mean predicts was not computed: {error}")
    return noise, lines


def conclusions(audit: PaperAudit) -> list[str]:
    """The conclusions, one sentence or two each; every number in them comes from the audit."""
    points = []
    for a in audit.results:
        if not a.per_case.possible and not a.per_structure.possible:
            points.append(f"**{a.name}, {a.reported.printed}, cannot be true**: {a.per_case.reason}")
        elif not a.per_case.possible:
            points.append(
                f"**{a.name}, {a.reported.printed}, cannot be an SD over {a.reported.n} volumes** "
                f"({a.per_case.reason.rstrip('.')}); over {a.per_structure.n} structures it can."
            )
        elif a.per_case.side is not None and a.per_case.share_of_largest >= NOTABLE_SHARE:
            points.append(
                f"**{a.name}, {a.reported.printed}**: if there is one value per volume, {a.per_case.implication}. "
                f"If there are {audit.structures} per volume: {a.per_structure.implication}."
            )
    for (source, loss), check in audit.relations.items():
        if check.seen is False:
            name = f"{source}, {loss}: Dice and boundary Dice were not seen together on the phantom"
            points.append(f"**{name}.** {check.to_text()}")
    for first, second, rows in _source_pairs(audit.sources):
        apart = rows[~rows["agree"]]
        if apart.empty:
            points.append(f"Sources {first} and {second} agree after rounding in all {len(rows)} numbers.")
            continue
        shifted = apart[apart["shift"] != 0]
        groups = apart.groupby(["metric", "quantity"], sort=False).size()
        named = groups.rename("count").reset_index().to_dict("records")
        where = ", ".join(
            f"{g['count']} × {g['quantity']} of {PAPER_METRICS.get(g['metric'], g['metric'])}" for g in named
        )
        ratios = f"{apart['ratio'].min():.3g} to {apart['ratio'].max():.3g}"
        points.append(
            f"**Sources {first} and {second} disagree in {len(apart)} of {len(rows)} numbers** ({where}; {first} is "
            f"{ratios} times {second}). {len(shifted)} of them fit a shifted decimal point, given the rounding."
        )
    if audit.correlations:
        needed = [r.printed for r in audit.correlations.values()]
        level = max(r.p for r in audit.correlations.values())
        impossible = sum(not r.possible for r in audit.correlations.values())
        text = (
            "**No test, p-value or pairing is reported for the claimed differences.** Taken as printed, a paired "
            f"t-test over the cases gives p < {level:g} if the scores of two losses correlate at {min(needed):.2f} at "
            f"least, for the easiest of the {len(needed)} comparisons, and at {max(needed):.2f} for the hardest."
        )
        points.append(text + f" {impossible} of them cannot reach it at all." * (impossible > 0))
    if audit.false_claims:
        points.append(_false_claims_point(audit))
    for source in audit.paper.sources:
        seen = {key: sd for key, sd in audit.sds.items() if key[0] == source and sd.expected}
        far = [sd for sd in seen.values() if sd.outside]
        if far:
            times = [sd.sd / sd.expected[0] for sd in far if sd.expected]
            points.append(
                f"**{len(far)} of {len(seen)} SDs of source {source} that could be compared lie beyond what their "
                f"means predict**, {min(times):.2g} to {max(times):.2g} times the predicted SD, measured on other "
                "data."
            )
        elif seen:
            points.append(
                f"The {len(seen)} SDs of source {source} that could be compared lie within what their means predict, "
                "measured on other data."
            )
    return points


def _false_claims_point(audit: PaperAudit) -> str:
    """How the claims do against `LIMIT`, at each correlation and over the measured ones."""
    claims = list(audit.false_claims.values())
    counts = [
        f"{sum(claim.at[i].probability >= LIMIT for claim in claims)} at r = {each.r:g}"
        for i, each in enumerate(claims[0].at)
    ]
    text = (
        "**How probable it is that a claimed difference is none depends on the correlation**: it is "
        f"{percent(LIMIT)} or more for {', '.join(counts)}, of the {len(claims)} comparisons"
    )
    if over := [claim.measured[0] for claim in claims if claim.measured]:
        above = sum(each.probability >= LIMIT for each in over) or "none"
        text += (
            f", and for {above} averaged over the {len(over[0].correlations)} correlations that were measured on other "
            f"data ({percent(min(each.probability for each in over))} to "
            f"{percent(max(each.probability for each in over))})"
        )
    return text + "."


def audit_markdown(audit: PaperAudit) -> str:
    """The audit as a page."""
    paper = audit.paper
    lines = [f"# Can these numbers be true? “{paper.title}”", ""]
    lines += [f"- Source {key}: {source.citation.strip()} ({source.status})." for key, source in paper.sources.items()]
    lines += [
        "", "Every statement follows from the printed mean, SD and n, the bounds of the score and the rounding; sample",
        "SD. Where one leans on what was measured elsewhere, it says so. None says how a number came about.", "",
        "## What follows", "",
        *[f"- {point}" for point in conclusions(audit)], "", "## Each result", "",
        "| Source | Metric | Loss | Reported | n | Largest SD, one value per volume | SD is at least | "
        f"Largest SD, {audit.structures} values per volume | SD is at least |",
        "|" + " --- |" * 9,
    ]  # fmt: skip
    if audit.problems:
        at = lines.index("## What follows")
        lines[at:at] = ["## What could not be audited", "", *[f"- {problem}" for problem in audit.problems], ""]
    for a in audit.results:
        r, cells = a.reported, []
        for each in (a.per_case, a.per_structure):
            cells += [f"{each.largest_sd:.3g}", f"{100 * each.share_of_largest:.0f} % of it"]
            if not each.possible:
                cells[-1] = "**impossible**"
        lines.append(f"| {' | '.join([r.source, a.metric, r.loss, r.printed, str(r.n), *cells])} |")
    telling = [a for a in audit.results if a.per_case.possible and a.per_case.share_of_largest >= NOTABLE_SHARE]
    if telling:
        lines += ["", "## Samples that would give these numbers", ""]
        for a in telling:
            lines.append(f"- {a.name}, {a.reported.printed}: mildest {_values(a.per_case.mildest)}")
            lines += [f"  - for example {_values(example)}" for example in a.per_case.examples]
    if len(audit.sources):
        lines += ["", "## The sources beside each other", ""]
        lines += [f"- {text}" for text in audit.sources.loc[~audit.sources["agree"], "text"]]
        lines.append(f"- The other {int(audit.sources['agree'].sum())} numbers agree after rounding.")
    if audit.correlations:
        lines += ["", "## Which correlation “significantly” needs", ""]
        for (claim, source, loss), needed in audit.correlations.items():
            lines.append(f"- {source}, {claim}, against {loss}: {needed.to_text()}")
    lines += _claims_lines(audit) + _noise_lines(audit) + _sd_lines(audit)
    if audit.relations:
        lines += ["", "## Dice beside boundary Dice", ""]
        lines.append(
            "Measured on phantom knees at the resolution of an OAI DESS scan, their surfaces displaced by random "
            "fields, evenly, and by one voxel; boundary Dice strict and within the sagittal slices. Which bones a "
            "paper averaged over, or whether it merged them, is seldom said: each reading has its own limits. What was "
            "not seen there is not thereby impossible."
        )
        lines += ["", *[f"- {source}, {loss}: {check.to_text()}" for (source, loss), check in audit.relations.items()]]
    elif audit.unrelated:
        lines += ["", "## Dice beside boundary Dice", ""]
        lines.append(
            f"Left out for {audit.unrelated} pair(s): no measured relation was given, and no `relation.csv` lies "
            "beside the description. Name one with `--relation`, such as `reproduce/relation.csv` of the repository."
        )
    return "\n".join(lines) + "\n"


def _claims_lines(audit: PaperAudit) -> list[str]:
    """The tables of the probability that a claim is false, and of the pairs that it would need."""
    if not audit.false_claims:
        return []
    first = next(iter(audit.false_claims.values()))
    columns = [f"r = {each.r:g}" for each in first.at]
    lines = [
        "", "## How probable it is that a claimed difference is none", "",
        "From the printed means and SDs, n pairs and the correlation r between the paired scores, with a flat prior on",
        "the difference (Christodoulou et al. 2025, arXiv:2505.04720); in brackets what the rounding leaves open. The",
        "last column averages over correlations between two losses that were measured on other data, with the least",
        "and the largest; they speak of the paper's only as far as its data and losses are like these. All of it",
        "speaks of other cases, not of another training.", "",
        f"| Source | Claim | Against | Difference | {' | '.join(columns)} | Measured correlations |",
        "|" + " --- |" * (5 + len(columns)),
    ]  # fmt: skip
    for (claim, source, loss), each in audit.false_claims.items():
        cells = [f"{percent(x.probability)} ({' to '.join(map(percent, x.rounding))})" for x in each.at]
        over = [f"{percent(x.probability)} ({percent(x.least)} to {percent(x.most)})" for x in each.measured] or ["–"]
        lines.append(f"| {' | '.join([source, claim, loss, f'{each.difference:.4g}', *cells, *over])} |")
    if first.measured:
        lines += ["", f"For the first row: {'; '.join(each.to_text() for each in first.measured)}."]
    lines += [
        "", "In each cell two numbers of pairs, all else as printed: with which a two-sided paired t-test at",
        f"{LEVEL:g} has {percent(POWER)} power for the printed difference / with which the probability above is less",
        f"than {percent(LIMIT)}. –: more than a million.", "",
        f"| Source | Claim | Against | n | {' | '.join(columns)} |", "|" + " --- |" * (4 + len(columns)),
    ]  # fmt: skip
    for (claim, source, loss), each in audit.false_claims.items():
        cells = [
            " / ".join(f"{p:.0f}" if p < float("inf") else "–" for p in (x.pairs_power, x.pairs_probability))
            for x in each.at
        ]
        lines.append(f"| {' | '.join([source, claim, loss, str(each.n), *cells])} |")
    return lines


def _noise_lines(audit: PaperAudit) -> list[str]:
    """The claimed differences beside the noise of training, and published differences that may be such noise."""
    lines = []
    for metric, noise in audit.noise.items():
        claims = {c.id for c in audit.paper.claims if c.statistic == metric}
        lines.append(f"- {noise.to_text()}")
        units = {r.source: r.unit for r in audit.paper.results if r.metric == metric}
        for (claim, source, loss), each in audit.false_claims.items():
            if claim in claims:
                size = each.difference * units[source]
                lines.append(
                    f"  - {source}, {claim}, against {loss}: the claimed difference is {size:.4g}, "
                    f"{size / noise.difference.sd:.1f} times that."
                )
    lines += [f"- {benchmark_text(benchmark)}" for benchmark in audit.paper.benchmarks]
    return ["", "## How far two trainings of the same loss differ", "", *lines] if lines else []


def _sd_lines(audit: PaperAudit) -> list[str]:
    """The printed SDs beside those that their means predict."""
    if not audit.sds:
        return []
    lines = ["", "## The SD that a mean predicts", ""]
    for metric, line in audit.sd_relations.items():
        of_metric = {key: sd for key, sd in audit.sds.items() if key[1] == metric}
        told = [f"  - {key[0]}, {key[2]}: {sd.to_text()}" for key, sd in of_metric.items() if sd.expected]
        lines += [f"- {line.to_text()}", *told] if told else []
        if beyond := [f"{key[0]}, {key[2]}: {sd.mean:.4g}" for key, sd in of_metric.items() if not sd.expected]:
            name, measured = PAPER_METRICS.get(metric, metric), f"{line.lowest:.3f} to {line.highest:.3f}"
            lines.append(
                f"- {name}, outside the measured means ({measured}), so that nothing is predicted: {'; '.join(beyond)}."
            )
    return lines


def write_audit(path: str | Path, audit: PaperAudit) -> None:
    """Write :func:`audit_markdown` to a file, atomically."""
    write_text(path, audit_markdown(audit))


def _values(sample: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in sample)


def _source_pairs(sources: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    if sources.empty:
        return []
    return [(str(a), str(b), rows) for (a, b), rows in sources.groupby(["source_1", "source_2"], sort=False)]
