"""Learning curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from shapeloss.plotting.style import PALE, canvas, loss_color, loss_name, require_columns, styled


@styled
def figure_training(history: pd.DataFrame) -> Figure:
    """Learning curves of all losses: the training loss on its way down, and the validation Dice.

    The values of different losses cannot be compared, so each loss falls from 1, its first value, to 0, its smallest.

    Args:
        history: columns loss, seed, step, train_loss, val_dice. Thin lines are seeds, the thick one is their mean.

    Raises:
        ValueError: for a table without rows or without one of the columns.
    """
    require_columns("history", history, ("loss", "seed", "step", "train_loss", "val_dice"))
    figure = canvas(None, 12, 4.6)
    left, right = figure.subplots(1, 2)
    ends: dict[str, float] = {}
    for loss, rows in history.sort_values("step", kind="stable").groupby("loss", sort=False):
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
