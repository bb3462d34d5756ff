"""A study of one question: do losses differ by more than trainings of one loss do? Tables and sentences for its page.

Everything is computed from files that a study commits: the scores of its table (`per_case.csv`) and of its variations
(`per_case_variations.csv`), the trainings (`trainings.csv`), and where each row of the table puts its weight
(`weights.csv`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shapeloss.data.manifest import Manifest
from shapeloss.distance import weight_near_boundary
from shapeloss.losses import DistancePenalizedCELoss
from shapeloss.replication.profile import Experiment
from shapeloss.replication.scores import read_measured, read_runs, read_scores, write_sealed
from shapeloss.stats.compare_losses import compare_losses
from shapeloss.stats.crossed import CrossedDifference, NoiseFloor, compare_crossed, noise_floor, score_grid
from shapeloss.stats.headings import PAPER_METRICS
from shapeloss.stats.paired_tests import holm
from shapeloss.stats.tables import format_p

PLAIN = "ce"
"""The loss that the others are compared with."""
BOUNDARY, DICE = PAPER_METRICS
VARIATIONS, TRAININGS, WEIGHTS = "per_case_variations.csv", "trainings.csv", "weights.csv"
TABLE = ""
"""The variation of the trainings that the table is made of."""


@dataclass(frozen=True)
class Study:
    """What a study measured."""

    scores: pd.DataFrame
    """Rows of structure "mean" of the table and of all variations: variation ("" for the table), loss, seed, case, and
    the metrics."""
    trainings: pd.DataFrame
    """One row for each training: variation, loss, seed, steps, learning_rate, validation_dice."""
    weights: pd.DataFrame
    """Rows with a weight map: loss, near (share of the weight near the boundary), mean (of the weight)."""

    def of(self, variation: str = TABLE) -> pd.DataFrame:
        """The scores of one variation."""
        return self.scores[self.scores["variation"] == variation]

    @property
    def losses(self) -> list[str]:
        """The rows of the table, the plain loss first."""
        rows = self.of()["loss"].unique().tolist()
        return [PLAIN, *(loss for loss in rows if loss != PLAIN)]

    @property
    def settings(self) -> pd.DataFrame:
        """Steps and learning_rate of each variation, its name as index."""
        return self.trainings.groupby("variation")[["steps", "learning_rate"]].first()

    @property
    def _changed(self) -> pd.DataFrame:
        """Which settings of each variation are others than the table's."""
        return self.settings.ne(self.settings.loc[TABLE])

    def varied(self, key: str) -> list[str]:
        """The variations with another value of one key of the training, and of no other."""
        changed = self._changed
        return [str(name) for name in changed.index[changed[key] & (changed.sum(axis=1) == 1)]]

    def noise(self, metric: str) -> NoiseFloor:
        """Of all trainings of the plain loss with the table's settings."""
        same = self._changed.index[~self._changed.any(axis=1)]
        rows = self.scores[self.scores["variation"].isin(same)]
        return noise_floor(score_grid(rows, PLAIN, metric).to_numpy())


def read_study(folder: str | Path) -> Study:
    """What :func:`write_measurements` and the evaluation wrote into a folder."""
    folder = Path(folder)
    parts = [read_scores(folder).assign(variation=TABLE)]
    varied = folder / VARIATIONS
    if varied.is_file():
        parts.append(read_measured(varied))
    scores = pd.concat(parts, ignore_index=True)
    keep = ["variation", "loss", "seed", "case", *PAPER_METRICS]
    trainings = read_measured(folder / TRAININGS, keep_default_na=False)
    return Study(scores.loc[scores["structure"] == "mean", keep], trainings, read_measured(folder / WEIGHTS))


def write_measurements(experiment: Experiment, manifest: Manifest, results: str | Path, folder: str | Path) -> None:
    """Write `trainings.csv` and `weights.csv`.

    Weights are those of the distance-penalised cross-entropy on the training masks, as means over the volumes.
    """
    rows = []
    for name in (TABLE, *experiment.variations):
        varied = experiment.variation(name)
        for run in read_runs(varied, results):
            rows.append(
                {
                    "variation": name,
                    "loss": run["loss"],
                    "seed": run["seed"],
                    "steps": varied.training.steps,
                    "learning_rate": varied.training.learning_rate,
                    "validation_dice": run["best_val_dice"],
                    "best_step": run["best_step"],
                    "commit": run["commit"],
                }
            )
    write_sealed(pd.DataFrame(rows), Path(folder) / TRAININGS)
    cases = [manifest.original(name) for name in manifest.names("train")]
    weights = []
    for loss in experiment.losses:
        built = experiment.build_loss(loss, manifest.num_classes, cases[0].spacing)
        if not isinstance(built, DistancePenalizedCELoss):
            continue
        found = [
            weight_near_boundary(np.asarray(built.compute_map(c.labels, c.spacing)), c.labels, c.spacing) for c in cases
        ]
        near, mean = np.mean(found, axis=0)
        weights.append({"loss": loss, "near": near, "mean": mean})
    write_sealed(pd.DataFrame(weights, columns=["loss", "near", "mean"]), Path(folder) / WEIGHTS)


def _difference(found: CrossedDifference) -> dict[str, Any]:
    interval = found.interval
    return {
        "difference": interval.value, "low": interval.low, "high": interval.high, "p": found.p, "df": found.df,
    }  # fmt: skip


def difference_table(study: Study, metric: str, reference: str = PLAIN) -> pd.DataFrame:
    """Every row of the table less the reference, for new volumes and new trainings, and for new volumes alone.

    Returns:
        loss, mean, difference, low, high, p, p_holm, df, sd_volumes, sd_trainings (crossed with the seeds);
        low_volumes, high_volumes, p_volumes (seeds averaged: Hodges–Lehmann's limits, Wilcoxon's p); beyond (noise).
    """
    scores = study.of()
    seeds = scores["seed"].nunique()
    floor = study.noise(metric).between(seeds)
    averaged = compare_losses(scores, reference, [metric]).set_index("loss")
    rows = []
    for loss in (loss for loss in study.losses if loss != reference):
        found = compare_crossed(scores, loss, reference, metric)
        row = averaged.loc[loss]
        rows.append(
            {"loss": loss, "mean": row["mean_loss"]} | _difference(found) | {
                "sd_volumes": found.sd_volumes, "sd_trainings": found.sd_trainings,
                "low_volumes": -row["hl_high"], "high_volumes": -row["hl_low"], "p_volumes": row["p_wilcoxon"],
                "beyond": abs(found.interval.value) > floor,
            }
        )  # fmt: skip
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p"]))


def budget_table(study: Study, metric: str) -> pd.DataFrame:
    """What more steps change: loss, steps, mean, sd (over seeds), change (from the next fewer steps), noise, seeds.

    `noise` is the most by which two sets of so many trainings differ in 95 % of the cases; the change is over the seeds
    that both have.
    """
    floor = study.noise(metric)
    settings = study.settings["steps"]
    order = sorted([TABLE, *study.varied("steps")], key=lambda name: int(settings[name]))
    rows = []
    for loss in study.losses:
        before: pd.DataFrame | None = None
        for name in order:
            scores = study.of(name)
            if loss not in scores["loss"].unique():
                continue
            grid = score_grid(scores, loss, metric)
            row = {"loss": loss, "steps": int(settings[name]), "mean": grid.to_numpy().mean(), "seeds": grid.shape[1]}
            row |= {"sd": grid.mean().std(ddof=1), "change": np.nan, "noise": np.nan}
            if before is not None:
                both = grid.columns.intersection(before.columns)
                row["change"] = float((grid[both] - before[both]).to_numpy().mean())
                row["noise"] = floor.between(len(both))
            rows.append(row)
            before = grid
    table = pd.DataFrame(rows)
    return table[table.groupby("loss")["steps"].transform("size") > 1].reset_index(drop=True)


def rate_table(study: Study, metric: str) -> pd.DataFrame:
    """Each loss at each learning rate, over the seeds that all rates have.

    Returns:
        loss, learning_rate, validation_dice, mean (of the metric over the test cases), seeds, best (the rate with the
        highest validation Dice), difference and noise (of the best rate: less the plain loss at its own best, and what
        two sets of so many trainings differ by).
    """
    order = [TABLE, *study.varied("learning_rate")]
    trainings = study.trainings[study.trainings["variation"].isin(order)]
    rows: list[dict[str, object]] = []
    grids: dict[str, pd.DataFrame] = {}
    for loss in study.losses:
        own = trainings[trainings["loss"] == loss]
        seeds = own.groupby("seed")["variation"].nunique().loc[lambda count: count == len(order)].index
        if len(order) < 2 or len(seeds) < 2:
            continue
        own = own[own["seed"].isin(seeds)]
        means = own.groupby("variation")[["learning_rate", "validation_dice"]].mean().sort_values("learning_rate")
        best = str(means["validation_dice"].idxmax())
        for name, (rate, dice) in zip(means.index, means.to_numpy(), strict=True):
            grid = score_grid(study.of(str(name)), loss, metric)[seeds]
            row = {"loss": loss, "learning_rate": rate, "validation_dice": dice, "mean": grid.to_numpy().mean()}
            rows.append(row | {"best": name == best, "seeds": len(seeds)})
            if name == best:
                grids[loss] = grid
    floor = study.noise(metric)
    for row in rows:
        loss = str(row["loss"])
        if row["best"] and loss != PLAIN and PLAIN in grids:
            seeds = grids[loss].columns.intersection(grids[PLAIN].columns)
            row["difference"] = float((grids[loss][seeds] - grids[PLAIN][seeds]).to_numpy().mean())
            row["noise"] = floor.between(len(seeds))
    return pd.DataFrame(rows)


def crossed_table(per_case: pd.DataFrame, losses: Sequence[str], reference: str) -> pd.DataFrame:
    """Some losses less a reference in the paper's metrics, for new volumes and new trainings, p corrected by Holm.

    Args:
        per_case: rows of one structure, with the columns loss, case, seed and the metrics.
    """
    rows = []
    for metric in PAPER_METRICS:
        for loss in losses:
            found = _difference(compare_crossed(per_case, loss, reference, metric))
            rows.append({"metric": metric, "loss": loss, "reference": reference} | found)
    table = pd.DataFrame(rows)
    return table.assign(p_holm=table.groupby("metric")["p"].transform(lambda p: holm(p.to_numpy())))


CONTRASTS = (
    ("dpce", PLAIN, "Does the penalty help?"),
    ("dpce", "dpce_shuffled", "Does the place of the weight help? The same amounts, dealt out at random."),
    ("dpce", "dpce_reversed", "Is the boundary the right place? The weight in the depth instead."),
    ("dpce", "dpce_constant", "Is it the amount alone? The mean of the weight everywhere."),
    ("dpce_exponential", PLAIN, "Does weight gathered more closely at the boundary help?"),
)
"""Pairs that answer the study's question, in words."""


def contrast_table(study: Study, metric: str, pairs: Sequence[tuple[str, str, str]] = CONTRASTS) -> pd.DataFrame:
    """first, second, question, difference, low, high, p, p_holm of the pairs whose losses the study has."""
    rows = []
    for first, second, question in pairs:
        if first in study.losses and second in study.losses:
            found = _difference(compare_crossed(study.of(), first, second, metric))
            rows.append({"first": first, "second": second, "question": question} | found)
    table = pd.DataFrame(rows, columns=["first", "second", "question", "difference", "low", "high", "p"])
    return table.assign(p_holm=holm(table["p"]))


def study_page(study: Study, claimed: float, source: str) -> str:
    """The study's numbers, as Markdown.

    Args:
        claimed: the smallest difference in boundary Dice that the paper reports between its loss and another.
        source: where the numbers come from, for the end.
    """
    parts = [
        _noise_part(study), _contrast_part(study, claimed), _rows_part(study), _budget_part(study), _rate_part(study),
        source,
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _noise_part(study: Study) -> str:
    lines = ["## The noise of training", ""]
    seeds = study.of()["seed"].nunique()
    for metric, heading in PAPER_METRICS.items():
        floor = study.noise(metric)
        sizes = np.abs(floor.differences)
        lines.append(
            f"{heading}: {floor.trainings} trainings of `{PLAIN}` that differ in the seed alone have means with a "
            f"standard deviation of {floor.sd:.4f}. Two of them differ by {np.median(sizes):.4f} in the median and by "
            f"up to {sizes.max():.4f}. Sets of {seeds} trainings each would differ by less than "
            f"{floor.between(seeds):.4f} in 95 of 100 repetitions.\n"
        )
    return "\n".join(lines).rstrip()


def _contrast_part(study: Study, claimed: float) -> str:
    table = contrast_table(study, BOUNDARY)
    if table.empty:
        return ""
    lines = [
        "## Place or amount", "",
        "| Question | Boundary Dice | Difference | 95 % interval | p (Holm) | Answer |", "|" + " --- |" * 6,
    ]  # fmt: skip
    for row in table.to_dict("records"):
        said = answer(row["low"], row["high"], row["p_holm"], claimed)
        lines.append(
            f"| {row['question']} | `{row['first']}` less `{row['second']}` | {row['difference']:+.4f} | "
            f"{row['low']:+.4f} to {row['high']:+.4f} | {format_p(row['p_holm'])} | {said} |"
        )
    lines += [
        "",
        claimed_note(claimed),
    ]
    return "\n".join(lines)


def claimed_note(claimed: float) -> str:
    """What an :func:`answer` means by "below the claimed"."""
    return (
        f"“Below the claimed {claimed:.2f}” means that the whole interval lies within ± {claimed:.2f}, the smallest "
        "difference in boundary Dice that the paper reports between its loss and another."
    )


def answer(low: float, high: float, p: float, claimed: float) -> str:
    """Whether a difference of two rows is shown, and whether its interval excludes one as large as the paper claims."""
    shown = "not shown to differ" if p >= 0.05 else "higher" if low > 0 else "lower"
    return shown + (f"; below the claimed {claimed:.2f}" if -claimed < low and high < claimed else "")


def _rows_part(study: Study) -> str:
    weights = study.weights.set_index("loss")
    seeds = study.of()["seed"].nunique()
    lines = [
        f"## Every row, less `{PLAIN}`", "",
        "| Row | Boundary Dice | Difference | 95 % interval | p (Holm) | p, volumes alone | Beyond the noise | "
        "Global Dice | Difference | 95 % interval | p (Holm) | Weight near the boundary | Mean weight |",
        "|" + " --- |" * 13,
    ]  # fmt: skip
    boundary, dice = difference_table(study, BOUNDARY), difference_table(study, DICE)
    plain = [study.of().loc[study.of()["loss"] == PLAIN, metric].mean() for metric in PAPER_METRICS]
    lines.append(f"| {PLAIN} | {plain[0]:.3f} |" + " – |" * 5 + f" {plain[1]:.3f} |" + " – |" * 5)
    for b, d in zip(boundary.to_dict("records"), dice.to_dict("records"), strict=True):
        weight = weights.loc[b["loss"]] if b["loss"] in weights.index else None
        cells = [b["loss"], f"{b['mean']:.3f}", *_difference_cells(b), format_p(b["p_volumes"])]
        cells += ["yes" if b["beyond"] else "no", f"{d['mean']:.3f}", *_difference_cells(d)]
        cells += ["–", "–"] if weight is None else [f"{weight['near']:.0%}", f"{weight['mean']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    volumes = study.of()["case"].nunique()
    lines += [
        "",
        f"Means over {volumes} test volumes and {seeds} trainings a row. Differences, intervals and p: for a new "
        "volume and a new training (volumes and seeds as crossed random effects, Satterthwaite's degrees of freedom), "
        f"p corrected over the {len(boundary)} rows by Holm. “Volumes alone”: Wilcoxon's test of the volumes' means "
        "over their seeds, not corrected, which speaks of new volumes for these very trainings. “Beyond the noise”: a "
        f"difference that two sets of {seeds} trainings of `{PLAIN}` reach in fewer than 5 of 100 repetitions. Weight "
        "near the boundary: the share of the weight 1 + φ that lies within 2 mm of it, over the training masks.",
    ]
    return "\n".join(lines)


def _difference_cells(row: Mapping[Any, Any]) -> list[str]:
    return [f"{row['difference']:+.4f}", f"{row['low']:+.4f} to {row['high']:+.4f}", format_p(row["p_holm"])]


def _budget_part(study: Study) -> str:
    if not study.varied("steps"):
        return ""
    table = budget_table(study, BOUNDARY)
    lines = [
        "## More steps", "", "| Row | Steps | Boundary Dice | SD over seeds | Change | Noise | Trainings |",
        "|" + " --- |" * 7,
    ]  # fmt: skip
    for row in table.to_dict("records"):
        change = [f"{row['change']:+.4f}", f"{row['noise']:.4f}"] if np.isfinite(row["change"]) else ["–", "–"]
        cells = [row["loss"], f"{row['steps']}", f"{row['mean']:.3f}", f"{row['sd']:.4f}", *change, f"{row['seeds']}"]
        lines.append("| " + " | ".join(cells) + " |")
    over = "Changes are over the seeds that both budgets have, so that what a seed is worth leaves them."
    return "\n".join([*lines, "", over, "", budget_sentence(study), "", spread_sentence(study)])


def budget_sentence(study: Study) -> str:
    """Which budget's increase moves no loss by more than its noise, and whether that of the table is below it."""
    table = budget_table(study, BOUNDARY)
    steps = int(study.settings["steps"][TABLE])
    moved = table[table["change"].notna()]
    still = moved.assign(still=moved["change"].abs() > moved["noise"])
    budgets = sorted(table["steps"].unique().tolist())
    for fewer, more in pairwise(budgets):
        if not still.loc[still["steps"] == more, "still"].any():
            words = "that budget" if steps == fewer else "fewer" if steps < fewer else "more"
            return (
                f"From {fewer} to {more} steps no loss's boundary Dice moves by more than the noise of training. The "
                f"table's {steps} steps are {words}."
            )
    last = moved[moved["steps"] == budgets[-1]]
    return (
        f"Even from {budgets[-2]} to {budgets[-1]} steps the boundary Dice of a loss moves by "
        f"{last['change'].abs().max():.4f}, more than the noise of training: the table's {steps} steps are no "
        "convergence."
    )


def spread_sentence(study: Study) -> str:
    """Which losses the next larger budget moves by more than the standard deviation over their own seeds."""
    table = budget_table(study, BOUNDARY)
    steps = int(study.settings["steps"][TABLE])
    more = int(table.loc[table["steps"] > steps, "steps"].min())
    spread = dict(table.loc[table["steps"] == steps, ["loss", "sd"]].itertuples(index=False, name=None))
    moved = dict(table.loc[table["steps"] == more, ["loss", "change"]].itertuples(index=False, name=None))
    listed = [
        f"`{loss}` by {change:+.4f} (standard deviation {spread[loss]:.4f})"
        for loss, change in moved.items()
        if abs(change) > spread[loss]
    ]
    measure = "the standard deviation of the means of its own trainings"
    if not listed:
        return f"From {steps} to {more} steps none moves by more than {measure}, which is a stricter measure."
    return (
        f"By a stricter measure the table's {steps} steps are no convergence: {more} move {', '.join(listed)}, more "
        f"than {measure}."
    )


def _rate_part(study: Study) -> str:
    table = rate_table(study, BOUNDARY)
    if table.empty:
        return ""
    rates = sorted(table["learning_rate"].unique())
    seeds = int(table["seeds"].min())
    lines = [
        "## Each loss at its own learning rate", "",
        "| Row | " + " | ".join(f"Boundary Dice at {rate:g}" for rate in rates)
        + f" | Best on validation | There, less `{PLAIN}` at its best | Noise |",
        "|" + " --- |" * (len(rates) + 4),
    ]  # fmt: skip
    best = table[table["best"]].set_index("loss")
    for loss, rows in table.groupby("loss", sort=False):
        own = best.loc[loss]
        by_rate = rows.set_index("learning_rate")["mean"]
        cells = [str(loss), *[f"{by_rate[rate]:.3f}" for rate in rates], f"{own['learning_rate']:g}"]
        cells += ["–"] * 2 if loss == PLAIN else [f"{own['difference']:+.4f}", f"{own['noise']:.4f}"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Means over {seeds} trainings each; the rate with the highest mean Dice of the validation cases is chosen. "
        f"Noise: two sets of {seeds} trainings of `{PLAIN}` differ by less in 95 of 100 repetitions.",
    ]
    return "\n".join(lines)
