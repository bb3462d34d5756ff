"""Figures of tables: learning curves, scores per case, intervals. `plots.py` offers them with all others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from shapeloss.statistics import METRICS, bootstrap_mean, case_means
from shapeloss.style import GREY, INK, PALE, canvas, loss_color, loss_name, styled


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
            the mean of its seeds. A score that is not finite is left out, and the number of cases left is shown.
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
        axes.plot(range(len(losses)), wide.T.to_numpy(), color=PALE, linewidth=1, zorder=1)
        for x, loss in enumerate(losses):
            scores, color = wide[loss].dropna().to_numpy(), loss_color(loss)
            axes.plot(np.full(len(scores), x), scores, "o", color=color, markersize=5, alpha=0.55, markeredgewidth=0)
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
    text = f"Dots: {per_case['case'].nunique()} test cases, joined across losses. "
    text += "Diamond and bar: their mean and its 95 % bootstrap interval."
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
    numbers = ["estimate", "low", "high", "margin_low", "margin_high"]
    _require("differences", differences, ("comparison", *numbers))
    figure = canvas(None, 9, 1.4 + 0.5 * len(differences))
    axes = figure.subplots()
    values = differences[numbers].to_numpy(dtype=float)
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
    note = "   (grey: margins)" if np.isfinite(values[:, 3:]).any() else ""
    axes.set(ylim=(len(differences) - 0.4, -0.6), xlim=(-reach, reach), xlabel=label + note, title=title)
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
