"""The pictures of a study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from shapeloss._files import write_text
from shapeloss.plotting.style import GREY, INK, PALE, canvas, loss_color, loss_name, save_figure, styled
from shapeloss.replication.paper import Paper
from shapeloss.replication.study import (
    BOUNDARY,
    PLAIN,
    TABLE,
    Study,
    budget_table,
    difference_table,
    rate_table,
    study_page,
)
from shapeloss.stats.headings import PAPER_METRICS


def write_study(study: Study, paper: Paper, source: str, folder: str | Path) -> dict[str, Figure]:
    """Write the page and the pictures of a study into a folder: `study.md` and what is returned, by name.

    Args:
        paper: whose claimed difference in boundary Dice the answers are held against.
        source: where the numbers come from.
    """
    claimed = paper.smallest_claimed(BOUNDARY)
    write_text(Path(folder) / "study.md", study_page(study, claimed, source))
    figures = {"differences": figure_differences(study)}
    if study.varied("steps"):
        figures["budgets"] = figure_budgets(study)
    if study.varied("learning_rate"):
        figures["rates"] = figure_rates(study)
    for name, figure in figures.items():
        save_figure(figure, Path(folder) / name)
    return figures


def row_name(row: str) -> str:
    """The name of a row in a picture: that of its loss; of another φ for the same loss, which.

    >>> row_name("dpce_mean_one"), row_name("topk")
    ('with φ mean one', 'Top-k CE')
    """
    loss, _, rest = row.partition("_")
    return f"with φ {rest.replace('_', ' ')}" if loss == "dpce" and rest else loss_name(row)


def row_color(row: str) -> str:
    """The colour of a row: that of its loss."""
    return loss_color("dpce" if row.startswith("dpce_") else row)


@styled
def figure_differences(study: Study) -> Figure:
    """Each row less the plain loss, in both scores, before the noise of training.

    The band: means of two sets of as many trainings of the plain loss differ by less in 95 of 100 repetitions. The
    first line: every two trainings of the plain loss.
    """
    tables = {metric: difference_table(study, metric) for metric in PAPER_METRICS}
    count = len(next(iter(tables.values())))
    figure = canvas(None, 12.5, 2.2 + 0.34 * (count + 1))
    panels = figure.subplots(1, len(tables), sharey=True)
    for axes, (metric, table) in zip(panels, tables.items(), strict=True):
        _draw_differences(axes, study, metric, table)
        axes.set_title(PAPER_METRICS[metric])
        axes.set_xlabel(f"less {loss_name(PLAIN).lower()}")
    names = [f"{loss_name(PLAIN)}, two trainings", *[row_name(loss) for loss in table["loss"]]]
    panels[0].set_yticks(range(count + 1), names)
    panels[0].set_ylim(count + 0.6, -0.7)
    seeds, volumes = study.of()["seed"].nunique(), study.of()["case"].nunique()
    figure.supxlabel(
        f"Dot and line: mean over {volumes} test volumes and {seeds} trainings, 95 % interval for a new volume and a "
        f"new training. Thick line: for a new volume and these trainings.\nGrey band: two sets of {seeds} trainings of "
        "the same loss differ by less in 95 of 100 repetitions.",
        fontsize=10, color=GREY,
    )  # fmt: skip
    return figure


def _draw_differences(axes: Axes, study: Study, metric: str, table: pd.DataFrame) -> None:
    floor = study.noise(metric)
    band = floor.between(study.of()["seed"].nunique())
    axes.axvspan(-band, band, color=PALE, alpha=0.6, linewidth=0, zorder=0)
    axes.axvline(0, color=GREY, linewidth=1, zorder=1)
    both = np.r_[floor.differences, np.negative(floor.differences)]  # which of the two comes first is arbitrary
    axes.plot(both, np.linspace(-0.25, 0.25, len(both)), "o", color=loss_color(PLAIN), markersize=3, markeredgewidth=0)
    for y, row in enumerate(table.to_dict("records"), 1):
        color = row_color(row["loss"])
        axes.plot([row["low"], row["high"]], [y, y], color=color, linewidth=1.4)
        ends = [row["low_volumes"], row["high_volumes"]]
        if np.isfinite(ends).all():
            axes.plot(ends, [y, y], color=color, linewidth=5, alpha=0.35, solid_capstyle="butt")
        axes.plot(row["difference"], y, "o", color=color, markersize=7, markeredgecolor="white")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5, symmetric=True))
    axes.grid(axis="y", color=PALE, linewidth=0.5)


@styled
def figure_budgets(study: Study) -> Figure:
    """What more steps change: the mean score of each training, and of each loss."""
    figure = canvas(None, 13, 4.4)
    for axes, (metric, heading) in zip(figure.subplots(1, len(PAPER_METRICS)), PAPER_METRICS.items(), strict=True):
        table = budget_table(study, metric)
        steps = sorted(table["steps"].unique())
        settings = study.settings["steps"]
        names = [TABLE, *study.varied("steps")]
        losses = table["loss"].unique().tolist()
        for place, loss in enumerate(losses):
            shift = 1.02 ** (2 * place - len(losses) + 1)
            means = {
                int(settings[name]): (rows := study.of(name))[rows["loss"] == loss].groupby("seed")[metric].mean()
                for name in names
            }
            for _, of_seed in pd.DataFrame(means).sort_index(axis=1).iterrows():
                known = of_seed.dropna()
                axes.plot(known.index.to_numpy() * shift, known, "o-", color=loss_color(loss), linewidth=0.8,
                          markersize=4, alpha=0.5, markeredgewidth=0)  # fmt: skip
            own = table[table["loss"] == loss]
            axes.plot(own["steps"] * shift, own["mean"], "D-", color=loss_color(loss), markersize=6,
                      markeredgecolor="white", label=loss_name(loss))  # fmt: skip
        axes.set_xscale("log")
        axes.set_xticks(steps, [f"{s}" for s in steps])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="x", which="minor", length=0)
        axes.set(title=heading, xlabel="steps")
        axes.grid(axis="y", color=PALE, linewidth=0.6)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    figure.supxlabel(
        "Dots: trainings, joined where the seed is the same. Diamonds: their means.", fontsize=10, color=GREY
    )
    return figure


@styled
def figure_rates(study: Study) -> Figure:
    """Each loss at each learning rate: boundary Dice of the test cases; ringed is the rate that validation chooses."""
    metric, heading = next(iter(PAPER_METRICS.items()))
    table = rate_table(study, metric)
    losses = table["loss"].unique().tolist()
    rates = sorted(table["learning_rate"].unique())
    figure = canvas(None, 10, 1.6 + 0.34 * len(losses))
    axes = figure.subplots()
    shades = [PALE, GREY, INK] if len(rates) == 3 else [str(s) for s in np.linspace(0.8, 0.1, len(rates))]
    for y, loss in enumerate(losses):
        rows = table[table["loss"] == loss]
        axes.plot([rows["mean"].min(), rows["mean"].max()], [y, y], color=PALE, linewidth=1.5, zorder=1)
        for rate, shade in zip(rates, shades, strict=True):
            row = rows[rows["learning_rate"] == rate].iloc[0]
            axes.plot(row["mean"], y, "o", color=shade, markersize=8, label=f"{rate:g}" if y == 0 else None, zorder=2)
            if row["best"]:
                axes.plot(row["mean"], y, "o", color="none", markeredgecolor=row_color(loss), markersize=14,
                          markeredgewidth=2, zorder=3)  # fmt: skip
    axes.set_yticks(range(len(losses)), [row_name(loss) for loss in losses])
    axes.set_ylim(len(losses) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"{heading} of the test cases")
    axes.legend(title="learning rate", loc="upper left", bbox_to_anchor=(1, 1))
    axes.grid(axis="x", color=PALE, linewidth=0.6)
    figure.supxlabel("Ringed: the rate with the highest Dice of the validation cases.", fontsize=10, color=GREY)
    return figure
