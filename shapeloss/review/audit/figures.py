"""Figures of the audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from shapeloss.plotting.style import GREY, INK, PALE, canvas, loss_color, loss_name, require_columns, styled
from shapeloss.replication.paper import Paper
from shapeloss.review.audit.false_claims import LIMIT, FalseClaim
from shapeloss.stats.headings import PAPER_METRICS


@styled
def figure_relation(relation: pd.DataFrame, paper: Paper, boundary: str = "boundary_dice_in_plane") -> Figure:
    """Dice and boundary Dice of the same surfaces, as measured, and what the sources report.

    Args:
        relation: from `shapeloss.review.audit.dice_vs_boundary.measure_relation`: columns `dice`, `boundary_dice`,
            `structure`, `correlation_mm`.
        paper: from `shapeloss.replication.paper.read_paper`; means are drawn with one SD.
        boundary: the metric of the paper's boundary Dice.
    """
    require_columns("relation", relation, ("dice", "boundary_dice", "structure", "correlation_mm"))
    figure = canvas(None, 9, 5.5)
    axes = figure.subplots()
    mean = relation[relation["structure"] == "mean"]
    names = {0.0: "errors independent from voxel to voxel", np.inf: "even displacement, and one voxel in the slices"}
    for shade, (correlation, rows) in zip(("0.85", "0.7", "0.55", "0.3"), mean.groupby("correlation_mm"), strict=False):
        length = float(str(correlation))
        name = names.get(length, f"errors alike over {length:g} mm")
        line = rows.sort_values("dice", kind="stable")
        axes.plot(line["dice"], line["boundary_dice"], "o", color=shade, markersize=6, label=f"phantom, {name}")
    for marker, source in zip("sD^v", paper.sources, strict=False):
        reported = paper.reported(source)
        for loss, (x, x_sd) in reported.get("dice", {}).items():
            if loss in reported.get(boundary, {}):
                y, y_sd = reported[boundary][loss]
                axes.errorbar(
                    x, y, xerr=[[x_sd], [min(x_sd, 1 - x)]], yerr=y_sd, fmt=marker, color=loss_color(loss), capsize=3,
                    markersize=8, linewidth=1.2, label=f"source {source}, {loss_name(loss)}",
                )  # fmt: skip
    axes.legend(fontsize=9, frameon=False, loc="upper left")
    axes.set(xlim=(0.8, 1.005), ylim=(0, 1), xlabel="Global Dice", ylabel="Boundary Dice, strict, in the slices")
    return figure


@styled
def figure_samples(samples: Mapping[str, Sequence[Sequence[float]]], label: str, bounds: tuple[float, float]) -> Figure:
    """Values that a reported mean and SD would need: one row of dots per sample, the samples of one result together.

    Args:
        samples: result → samples, the least extreme one first.
        label: of the axis.
        bounds: least and largest possible value; the axis ends at the latter.

    Raises:
        ValueError: for no result, or one without samples.
    """
    if not samples or not all(samples.values()):
        raise ValueError(f"samples must hold at least one sample for each result, got {dict(samples)!r}")
    rows = sum(map(len, samples.values()))
    figure = canvas(None, 9, 1.6 + 0.28 * rows + 0.3 * len(samples))
    axes = figure.subplots()
    y, ticks = 0.0, {}
    for name, group in samples.items():
        ticks[name] = y + (len(group) - 1) / 2
        for index, sample in enumerate(group):
            colour = INK if index == 0 else GREY
            axes.plot([min(sample), max(sample)], [y, y], color=PALE, linewidth=1, zorder=0)
            axes.plot(sample, [y] * len(sample), "o", color=colour, markersize=7, alpha=0.55, markeredgewidth=0)
            axes.plot(np.mean(sample), y, "|", color=INK, markersize=13, markeredgewidth=2)
            limit = bounds[1] - 0.01 * (bounds[1] - bounds[0])
            count = f"{sum(value >= limit for value in sample)} of {len(sample)} at {limit:g} or more"
            axes.annotate(count, (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=10)
            y += 1
        y += 1
    lowest = min(min(sample) for group in samples.values() for sample in group)
    axes.set_yticks(list(ticks.values()), list(ticks))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    room = 0.05 * (bounds[1] - lowest)
    axes.set(ylim=(y - 1.4, -0.7), xlim=(max(bounds[0], lowest - room) - room, bounds[1] + room), xlabel=label)
    figure.supxlabel(
        "Dark: the sample whose extreme value is the mildest. Grey: others. Bar: the mean.", fontsize=10, color=GREY
    )
    return figure


@styled
def figure_false_claims(
    claims: Mapping[tuple[str, str, str], FalseClaim], measured: pd.DataFrame, metric: str = "boundary_dice_in_plane"
) -> Figure:
    """The probability that a claim is false against the correlation between the paired scores, claim by claim.

    Args:
        claims: (claim, source, loss) → from `shapeloss.review.audit.paper.audit_paper`; one curve each.
        measured: columns `data`, `metric`, `r`, from `shapeloss.review.audit.trainings.measure_correlations`: a tick
            each, one row of them for each data set.
        metric: of the claims.

    Raises:
        ValueError: for no claim, or a column that lacks.
    """
    require_columns("measured", measured, ("data", "metric", "r"))
    if not claims:
        raise ValueError("claims must hold at least one claim")
    figure = canvas(None, 9, 5.8)
    axes, rug = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
    r = np.linspace(0, 0.995, 400)
    sources = list(dict.fromkeys(source for _, source, _ in claims))
    for (_, source, loss), claim in claims.items():
        style = ("-", "--", ":", "-.")[sources.index(source) % 4]
        p = [claim.probability(x) for x in r]
        axes.plot(r, p, style, color=loss_color(loss), label=f"source {source}, against {loss_name(loss)}")
    axes.axhline(LIMIT, color=GREY, linewidth=1, zorder=0)
    axes.annotate(f"{LIMIT:g}", (1.005, LIMIT), xycoords=("axes fraction", "data"), va="center", color=GREY, fontsize=9)
    axes.set(yscale="log", ylim=(1e-3, 1), ylabel="Probability that the claim is false")
    axes.set_yticks([0.001, 0.01, 0.1, 1], ["0.001", "0.01", "0.1", "1"])
    axes.legend(fontsize=9, loc="lower left")
    chosen = measured[measured["metric"] == metric]
    for y, (_, rows) in enumerate(chosen.groupby("data", sort=False)):
        rug.plot(rows["r"], [y] * len(rows), "|", color=INK, markersize=11, markeredgewidth=1.2)
    names = list(dict.fromkeys(chosen["data"]))
    rug.set_yticks(range(len(names)), names, fontsize=9)
    rug.tick_params(axis="y", length=0)
    rug.spines["left"].set_visible(False)
    rug.set(xlim=(0, 1), ylim=(len(names) - 0.4, -0.6), xlabel="Correlation between the paired scores of two losses")
    name = PAPER_METRICS.get(metric, metric)
    figure.supxlabel(f"Ticks: measured correlations of {name}, one for each two losses.", fontsize=10, color=GREY)
    return figure
