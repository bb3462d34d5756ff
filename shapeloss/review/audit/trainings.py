"""What own trainings measure, to hold reported numbers against.

How far two trainings of one loss differ, how the scores of two losses correlate from case to case, and how the SD over
cases goes with the mean. All of it holds for the data, networks and budgets that it was measured on; each text says
which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import special, stats

from shapeloss.replication.paper import Benchmark
from shapeloss.stats.headings import PAPER_METRICS
from shapeloss.stats.read_table import few

MEASURED = ("boundary_dice_in_plane", "dice")
_PER_CASE = ("loss", "seed", "case", "structure")
_PER_TRAINING = ("data", "metric", "structure", "loss", "seed", "n", "mean", "sd")


def summarise_trainings(per_case: pd.DataFrame, data: str, metrics: Sequence[str] = MEASURED) -> pd.DataFrame:
    """Mean and sample SD over the cases of each training.

    Args:
        per_case: columns `loss`, `seed`, `case`, `structure` and `metrics`, one row per case and structure.
        data: name of the data and of the way to train, for the column `data`.
        metrics: columns of scores.

    Returns:
        Columns `data`, `metric`, `structure`, `loss`, `seed`, `n` (cases), `mean`, `sd`.

    Raises:
        ValueError: a column lacks.
    """
    _require("per_case", per_case, (*_PER_CASE, *metrics))
    long = per_case.melt(list(_PER_CASE), list(metrics), "metric", "score")
    groups = long.groupby(["metric", "structure", "loss", "seed"], sort=False)["score"]
    return groups.agg(n="count", mean="mean", sd="std").reset_index().assign(data=data)[list(_PER_TRAINING)]


def measure_correlations(
    per_case: pd.DataFrame, data: str, metrics: Sequence[str] = MEASURED, structure: str = "mean"
) -> pd.DataFrame:
    """Pearson's correlation over the cases between the scores of each two losses, averaged over seeds.

    Args:
        per_case: as for :func:`summarise_trainings`.
        data: name, for the column `data`.
        metrics: columns of scores.
        structure: the rows to take.

    Returns:
        Columns `data`, `metric`, `first`, `second` (losses), `n` (cases that both have), `r`; pairs without a
        correlation, for want of cases or of spread, are left out.

    Raises:
        ValueError: a column or the structure lacks.
    """
    _require("per_case", per_case, (*_PER_CASE, *metrics))
    chosen = per_case[per_case["structure"] == structure]
    if chosen.empty:
        known = few(per_case["structure"].unique())
        raise ValueError(f"per_case has no rows of structure {structure!r}; it has {known}: choose one of them")
    rows = []
    for metric in metrics:
        scores = chosen.groupby(["case", "loss"], sort=False)[metric].mean().unstack()
        for first, second in combinations(chosen["loss"].unique(), 2):
            both = scores[[first, second]].dropna()
            if len(both) > 2 and both.nunique().min() > 1:
                r = float(np.corrcoef(both.to_numpy(float).T)[0, 1])
                rows.append((data, metric, first, second, len(both), r))
    return pd.DataFrame(rows, columns=["data", "metric", "first", "second", "n", "r"])


def read_correlations(path: str | Path) -> pd.DataFrame:
    """A table that :func:`measure_correlations` made.

    Raises:
        ValueError: a column lacks, or a correlation lies outside [−1, 1].
    """
    table = pd.read_csv(path)
    _require(str(path), table, ("metric", "r"))
    if not table["r"].between(-1, 1).all():
        raise ValueError(f"{path}: column r must hold correlations between -1 and 1")
    return table


def read_trainings(path: str | Path) -> pd.DataFrame:
    """A table that :func:`summarise_trainings` made, or per-case scores with a column `seed`, which are summarised.

    Raises:
        ValueError: neither.
    """
    table = pd.read_csv(path)
    if "case" in table.columns:
        present = [metric for metric in MEASURED if metric in table.columns]
        if not present:
            raise ValueError(f"{path}: has none of the score columns {', '.join(MEASURED)}; `shapeloss evaluate` does")
        return summarise_trainings(table, Path(path).parent.name or Path(path).stem, present)
    _require(str(path), table, _PER_TRAINING)
    return table


def _require(name: str, table: pd.DataFrame, columns: Sequence[str]) -> None:
    if missing := [column for column in columns if column not in table.columns]:
        raise ValueError(f"{name} lacks the columns {few(missing)}; it has {few(table.columns, 12)}")


@dataclass(frozen=True)
class Noise:
    """A standard deviation that was estimated from few values, with its interval."""

    sd: float
    freedom: int
    """Degrees of freedom of the estimate."""

    @property
    def interval(self) -> tuple[float, float]:
        """Limits at 95 % by the χ² distribution, for normal values."""
        low, high = np.sqrt(self.freedom / stats.chi2.ppf([0.975, 0.025], self.freedom)) * self.sd
        return float(low), float(high)


@dataclass(frozen=True)
class TrainingNoise:
    """How far the means of two trainings of the same loss differ."""

    metric: str
    structure: str
    data: str
    losses: int
    trainings: int
    cases: int
    difference: Noise
    """Of the difference between two trainings' means over the cases."""

    def to_text(self) -> str:
        """Two sentences for a person."""
        low, high = self.difference.interval
        return (
            f"The means of two trainings of the same loss differ by {self.difference.sd:.2g} in "
            f"{PAPER_METRICS.get(self.metric, self.metric)} (SD; 95 % interval {low:.2g} to {high:.2g}): measured on "
            f"{self.trainings} trainings of {self.losses} losses, each scored on the same {self.cases} test volumes "
            f"({self.data}). It holds for this data set, network and number of steps, and for no other by itself."
        )


def training_noise(scores: pd.DataFrame, metric: str, structure: str = "mean") -> TrainingNoise:
    """The SD of the difference between the means of two trainings that differ in nothing but their seed.

    √2 times the SD over seeds within each loss, pooled over the losses by their degrees of freedom.

    Args:
        scores: per-case scores with the columns `loss`, `seed`, `case`, `structure` and `metric`, or a table from
            :func:`summarise_trainings`.
        metric: the scores.
        structure: the rows to take.

    Raises:
        ValueError: a column lacks, no loss has two seeds, or several data sets have.
    """
    if "case" in scores.columns:
        scores = summarise_trainings(scores, "the given scores", [metric])
    _require("scores", scores, _PER_TRAINING)
    chosen = scores[(scores["metric"] == metric) & (scores["structure"] == structure)]
    chosen = chosen[chosen.groupby(["data", "loss"])["seed"].transform("nunique") > 1]
    data = chosen["data"].unique()
    if len(data) != 1:
        found = f"several data sets have: {few(data)}; give one of them" if len(data) else "none has; train more seeds"
        raise ValueError(f"scores must hold several seeds of a loss, {metric} of {structure}, on one data set; {found}")
    by_loss = chosen.groupby("loss")["mean"].agg(["count", "var"])
    freedom = int((by_loss["count"] - 1).sum())
    variance = float(((by_loss["count"] - 1) * by_loss["var"]).sum() / freedom)
    return TrainingNoise(
        metric, structure, str(data[0]), len(by_loss), len(chosen), int(chosen["n"].min()),
        Noise(float(np.sqrt(2 * variance)), freedom),
    )  # fmt: skip


def benchmark_noise(benchmark: Benchmark) -> Noise:
    """The SD of a benchmark's differences about zero: their root mean square, if the loss is its baseline."""
    differences = np.array(benchmark.differences)
    return Noise(float(np.sqrt(np.mean(differences**2))), len(differences))


def benchmark_text(benchmark: Benchmark) -> str:
    """What a benchmark's differences are, and under which condition they are noise."""
    noise = benchmark_noise(benchmark)
    low, high = noise.interval
    listed = ", ".join(f"{d:+.4f}" for d in benchmark.differences)
    name = PAPER_METRICS.get(benchmark.metric, benchmark.metric)
    return (
        f"{benchmark.citation.strip()}: {name} of {benchmark.loss} less that of {benchmark.baseline}, {listed} on "
        f"{len(benchmark.differences)} data sets, {benchmark.trainings} training(s) of each. "
        f"{benchmark.observed.strip()} If {benchmark.condition.strip()}, these differences are the noise of two "
        f"trainings: SD {noise.sd:.2g} (95 % interval {low:.2g} to {high:.2g}). Which code was run is not known here."
    )


@dataclass(frozen=True)
class SdRelation:
    """The straight line of log SD over cases against logit mean, over structures of data sets."""

    metric: str
    slope: float
    intercept: float
    residual: float
    """SD of the residuals, of log SD."""
    points: tuple[tuple[float, float], ...]
    """(mean, SD) of each structure of each data set, averaged over its trainings on the two scales."""
    lowest: float
    highest: float
    """Limits of the means of all trainings."""
    data: tuple[str, ...]
    trainings: int

    def expected(self, mean: float) -> tuple[float, float, float] | None:
        """The SD that goes with a mean, and its 95 % prediction interval; None beyond what was measured."""
        if not self.lowest <= mean <= self.highest:
            return None
        x = special.logit([m for m, _ in self.points])
        at = special.logit(mean)
        wide = np.sqrt(1 + 1 / len(x) + (at - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum())
        half = stats.t.ppf(0.975, len(x) - 2) * self.residual * wide
        middle = self.intercept + self.slope * at
        return float(np.exp(middle)), float(np.exp(middle - half)), float(np.exp(middle + half))

    def to_text(self) -> str:
        """What was measured, and how well the line fits."""
        return (
            f"{PAPER_METRICS.get(self.metric, self.metric)}: log SD = {self.intercept:.2f} + ({self.slope:.2f}) · "
            f"logit mean, fitted to {len(self.points)} points, one for each structure of {' and '.join(self.data)} "
            "(some are means or unions of others, so fewer are independent), each averaged over its trainings "
            f"({self.trainings} in all); means of {self.lowest:.3f} to {self.highest:.3f}; SD of the residuals "
            f"{self.residual:.2f}, a factor of {np.exp(self.residual):.2f}."
        )


def fit_sd(trainings: pd.DataFrame, metric: str) -> SdRelation:
    """Fit log SD against logit mean, one point for each structure of each data set.

    The trainings of a data set are scored on the same cases, so they are averaged to one point: otherwise the line
    would look better known than it is.

    Args:
        trainings: from :func:`summarise_trainings`; means in (0, 1).
        metric: the scores.

    Raises:
        ValueError: a column lacks, or there are fewer than four points.
    """
    _require("trainings", trainings, _PER_TRAINING)
    chosen = trainings[(trainings["metric"] == metric) & trainings["mean"].between(0, 1, "neither")]
    chosen = chosen[chosen["sd"] > 0]
    chosen = chosen.assign(x=special.logit(chosen["mean"].to_numpy(float)), y=np.log(chosen["sd"].to_numpy(float)))
    points = chosen.groupby(["data", "structure"], sort=False)[["x", "y"]].mean()
    if len(points) < 4:
        raise ValueError(
            f"trainings must hold {metric} of at least four structures of data sets for a line; got {len(points)}"
        )
    x, y = points["x"].to_numpy(), points["y"].to_numpy()
    line = stats.linregress(x, y)
    residual = float(np.sqrt(((y - line.intercept - line.slope * x) ** 2).sum() / (len(x) - 2)))
    return SdRelation(
        metric, float(line.slope), float(line.intercept), residual,
        tuple((float(m), float(s)) for m, s in zip(special.expit(x), np.exp(y), strict=True)),
        float(chosen["mean"].min()), float(chosen["mean"].max()), tuple(chosen["data"].unique()),
        len(chosen[["data", "loss", "seed"]].drop_duplicates()),
    )  # fmt: skip


@dataclass(frozen=True)
class SdComparison:
    """A printed SD beside the one that its mean predicts."""

    mean: float
    sd: float
    relation: SdRelation

    @property
    def expected(self) -> tuple[float, float, float] | None:
        """See :meth:`SdRelation.expected`."""
        return self.relation.expected(self.mean)

    @property
    def residuals(self) -> float:
        """How many SDs of the residuals the printed SD lies above the line, on the scale of its logarithm."""
        return float(np.log(self.sd / self.expected[0]) / self.relation.residual) if self.expected else np.nan

    @property
    def outside(self) -> bool:
        """The printed SD lies beyond the prediction interval; never where nothing was measured."""
        return self.expected is not None and not self.expected[1] <= self.sd <= self.expected[2]

    def to_text(self) -> str:
        """A sentence for a person."""
        if self.expected is None:
            measured = f"{self.relation.lowest:.3f} to {self.relation.highest:.3f}"
            return f"the mean of {self.mean:.4g} lies outside the measured ones ({measured}): nothing is predicted."
        sd, low, high = self.expected
        where = "beyond" if self.outside else "within"
        side = "above" if self.residuals > 0 else "below"
        return (
            f"a mean of {self.mean:.4g} predicts an SD of {sd:.2g} (95 % prediction interval {low:.2g} to {high:.2g}); "
            f"the printed {self.sd:.4g} lies {where} it, {abs(self.residuals):.1f} residual SDs {side} the line."
        )
