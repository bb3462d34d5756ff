"""Figures of tables: learning curves, scores per case, intervals. `plots.py` offers them with all others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, NullLocator

from shapeloss.paper import Paper
from shapeloss.statistics import METRICS, bootstrap_mean, case_means
from shapeloss.style import GREY, INK, PALE, canvas, loss_color, loss_name, styled

_MOST_DRAWN = 500
"""Cases of which each is drawn."""


@styled
def figure_training(history: pd.DataFrame) -> Figure:
    """Learning curves of all losses: the training loss on its way down, and the validation Dice.

    The values of different losses cannot be compared, so each loss falls from 1, its first value, to 0, its smallest.

    Args:
        history: columns loss, seed, step, train_loss, val_dice. Thin lines are seeds, the thick one is their mean.

    Raises:
        ValueError: for a table without rows or without one of the columns.
    """
    _require("history", history, ("loss", "seed", "step", "train_loss", "val_dice"))
    figure = canvas(None, 12, 4.6)
    left, right = figure.subplots(1, 2)
    ends: dict[str, float] = {}
    for loss, rows in history.sort_values("step").groupby("loss", sort=False):
        runs = rows.groupby("seed")["train_loss"]
        lowest = runs.transform("min")
        fall = (runs.transform("first") - lowest).replace(0, 1)
        curves = rows.assign(left=(rows["train_loss"] - lowest) / fall)
        for axes, column in ((left, "left"), (right, "val_dice")):
            wide = curves.pivot(index="step", columns="seed", values=column)
            if wide.shape[1] > 1:
                axes.plot(wide.index, wide, color=loss_color(str(loss)), linewidth=0.7, alpha=0.45)
            axes.plot(wide.index, wide.mean(axis=1), color=loss_color(str(loss)))
        ends[str(loss)] = float(wide.mean(axis=1).iloc[-1])
    left.set(title="Training loss, first to smallest value", xlabel="step", ylim=(0, 1.02))
    bottom = float(np.clip(np.floor(10 * history["val_dice"].min()) / 10, 0, 0.9))
    right.set(title="Mean Dice of the validation cases", xlabel="step", ylim=(bottom, 1))
    for axes in (left, right):
        axes.grid(axis="y", color=PALE, linewidth=0.6)
        axes.set_xlim(0, history["step"].max())
    ranked = sorted(ends.items(), key=lambda item: -item[1])
    heights = _spread([(value - bottom) / (1 - bottom) for _, value in ranked])
    for (key, value), height in zip(ranked, heights, strict=True):
        style = {"color": loss_color(key), "va": "center", "xycoords": "axes fraction"}
        right.annotate(f"{loss_name(key)}  {value:.3f}", (1, height), (8, 0), textcoords="offset points", **style)
    figure.get_layout_engine().set(rect=(0, 0, 0.99, 1))  # the texts are a little wider in the file than laid out
    return figure


def _spread(heights: Sequence[float], gap: float = 0.06) -> Iterator[float]:
    """Falling heights in [0, 1], moved apart so that texts beside them do not overlap."""
    above = 1 + gap
    for rank, height in enumerate(heights):
        room = (len(heights) - 1 - rank) * gap  # for those below
        above = min(above - gap, max(height, room))
        yield above


@styled
def figure_scores(per_case: pd.DataFrame, metrics: Mapping[str, str] = METRICS) -> Figure:
    """Each test case's score under each loss, joined by lines: losses are compared within cases.

    Args:
        per_case: columns case, loss, seed (where there are several) and those of `metrics`, one row each; a case is
            the mean of its seeds. A score that is not finite is left out, and the number of cases left is shown. Of
            more than 500 cases, 500 drawn at random are shown; means and intervals are of all.
        metrics: column → heading, one panel each.

    Raises:
        ValueError: for a table without rows, without one of the columns, or with a row twice.
    """
    _require("per_case", per_case, ("case", "loss", *metrics))
    means = case_means(per_case, list(metrics))
    losses = [str(loss) for loss in per_case["loss"].unique()]
    figure = canvas(None, max(1.35 * len(losses), 4) * len(metrics) + 0.6, 5)
    grid = figure.subplots(1, len(metrics), squeeze=False).ravel()
    halo = [withStroke(linewidth=3, foreground="white")]
    for axes, (metric, heading) in zip(grid, metrics.items(), strict=True):
        wide = means[metric].unstack("loss")[losses]
        drawn = wide.sample(_MOST_DRAWN, random_state=0) if len(wide) > _MOST_DRAWN else wide
        axes.plot(range(len(losses)), drawn.T.to_numpy(), color=PALE, linewidth=1, zorder=1)
        for x, loss in enumerate(losses):
            scores, color = wide[loss].dropna().to_numpy(), loss_color(loss)
            dots = drawn[loss].dropna().to_numpy()
            axes.plot(np.full(len(dots), x), dots, "o", color=color, markersize=5, alpha=0.55, markeredgewidth=0)
            if len(scores):
                mean, low, high = bootstrap_mean(scores)
                axes.plot([x + 0.22] * 2, [low, high], color=color, linewidth=3, solid_capstyle="butt")
                axes.plot(x + 0.22, mean, "D", color=color, markersize=7, markeredgecolor="white")
                place = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
                axes.annotate(f"{mean:.3f}", (x + 0.22, mean), fontsize=9, path_effects=halo, **place)
            if len(scores) < len(wide):
                where = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}
                axes.annotate(f"{len(scores)} of {len(wide)} cases", (x, 0.01), fontsize=9, color=GREY, **where)
        axes.set_title(heading)
        axes.set_xticks(range(len(losses)), [loss_name(loss).replace(" ", "\n", 1) for loss in losses], fontsize=9.5)
        axes.tick_params(axis="x", length=0)
        axes.set_xlim(-0.4, len(losses) - 0.3)
        axes.grid(axis="y", color=PALE, linewidth=0.6)
    cases = per_case["case"].nunique()
    shown = f"{_MOST_DRAWN} of {cases} test cases, drawn at random" if cases > _MOST_DRAWN else f"{cases} test cases"
    whose = "the mean of all and its 95 %" if cases > _MOST_DRAWN else "their mean and its 95 % bootstrap"
    text = f"Dots: {shown}, joined across losses. Diamond and bar: {whose} interval."
    figure.supxlabel(text, fontsize=10, color=GREY)
    return figure


@styled
def figure_intervals(differences: pd.DataFrame, label: str = "difference", title: str = "") -> Figure:
    """Paired differences with their intervals, before the band within which they count as none.

    Args:
        differences: one row each: comparison (text), estimate, low, high, and margin_low and margin_high, the ends of
            the band, NaN for an open end or for no band. A row whose estimate is NaN was not tested.
        label: of the axis, with its unit.
        title: above.

    Raises:
        ValueError: for a table without rows or without one of the columns.
    """
    _require("differences", differences, ("comparison", *_INTERVAL))
    figure = canvas(None, 9, 1.4 + 0.5 * len(differences))
    _draw_intervals(figure.subplots(), differences, label, title)
    return figure


_INTERVAL = ["estimate", "low", "high", "margin_low", "margin_high"]


def _draw_intervals(axes: Axes, differences: pd.DataFrame, label: str, title: str) -> None:
    values = differences[_INTERVAL].to_numpy(dtype=float)
    finite = values[np.isfinite(values)]
    reach = 1.1 * np.abs(finite).max(initial=1e-9)  # zero in view, and room beyond the widest interval
    for y, (estimate, low, high, *band) in enumerate(values):
        if np.isfinite(band).any():
            ends = np.where(np.isfinite(band), band, (-reach, reach))
            axes.fill_betweenx([y - 0.5, y + 0.5], *ends, color=PALE, alpha=0.5, linewidth=0, zorder=0)
        text = "not tested"
        if np.isfinite(estimate):
            axes.plot(np.clip([low, high], -reach, reach), [y, y], color=INK, linewidth=2, solid_capstyle="butt")
            axes.plot(estimate, y, "o", color=INK, markersize=7, markeredgecolor="white")
            text = f"{estimate:+.3f}  [{low:+.3f}, {high:+.3f}]".replace("-", "−")
        axes.annotate(text, (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=10)
    axes.axvline(0, color=GREY, linewidth=1, zorder=1)
    axes.set_yticks(range(len(differences)), differences["comparison"])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5, symmetric=True) if finite.size else NullLocator())
    note = "   (grey: margins)" if np.isfinite(values[:, 3:]).any() else ""
    axes.set(ylim=(len(differences) - 0.4, -0.6), xlim=(-reach, reach), xlabel=label + note, title=title)


@styled
def figure_claims(paper: Paper, findings: pd.DataFrame) -> Figure:
    """A panel for each claim of a paper: the effect of each comparison, its interval, the margin, and the verdict.

    Args:
        paper: from `shapeloss.paper.read_paper`.
        findings: from `shapeloss.claims.findings_table`.
    """
    _require("findings", findings, ("claim", "loss", "verdict", "effect", "low", "high"))
    rows = [len(claim.against) for claim in paper.claims]
    figure = canvas(None, 10, sum(1.4 + 0.5 * count for count in rows))
    panels = figure.subplots(len(rows), 1, height_ratios=[1.2 + count for count in rows], squeeze=False)[:, 0]
    for axes, claim in zip(panels, paper.claims, strict=True):
        found = findings[findings["claim"] == claim.id]
        low = -claim.margin if claim.margin else np.nan
        high = claim.margin if claim.margin and claim.test == "equivalence" else np.nan
        table = pd.DataFrame({
            "comparison": [f"{loss_name(loss)}\n{verdict}" for loss, verdict in found[["loss", "verdict"]].to_numpy()],
            "estimate": found["effect"], "low": found["low"], "high": found["high"], "margin_low": low,
            "margin_high": high,
        })  # fmt: skip
        unit = (
            "surface error, mm" if claim.statistic == "surface_error" else METRICS.get(claim.statistic, claim.statistic)
        )
        _draw_intervals(axes, table, f"{unit}: advantage of {loss_name(claim.reference)}", claim.title)
    return figure


@styled
def figure_relation(relation: pd.DataFrame, paper: Paper, boundary: str = "boundary_dice_in_plane") -> Figure:
    """Dice and boundary Dice of the same surfaces, as measured, and what the sources report.

    Args:
        relation: from `shapeloss.relation.measure_relation`: `dice`, `boundary_dice`, `structure`, `correlation_mm`.
        paper: from `shapeloss.paper.read_paper`; means are drawn with one SD.
        boundary: the metric of the paper's boundary Dice.
    """
    _require("relation", relation, ("dice", "boundary_dice", "structure", "correlation_mm"))
    figure = canvas(None, 9, 5.5)
    axes = figure.subplots()
    mean = relation[relation["structure"] == "mean"]
    names = {0.0: "errors independent from voxel to voxel", np.inf: "even displacement, and one voxel in the slices"}
    for shade, (correlation, rows) in zip(("0.85", "0.7", "0.55", "0.3"), mean.groupby("correlation_mm"), strict=False):
        length = float(str(correlation))
        name = names.get(length, f"errors alike over {length:g} mm")
        line = rows.sort_values("dice")
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


def _require(name: str, table: pd.DataFrame, columns: Sequence[str]) -> None:
    absent = [column for column in columns if column not in table.columns]
    if absent or table.empty:
        raise ValueError(
            f"{name} must have rows and the columns {', '.join(columns)}; it has {len(table)} rows"
            + (f" and lacks {', '.join(absent)}" if absent else "")
        )
