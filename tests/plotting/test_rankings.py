"""Figures of many methods: what stands in which cell, and what a bar joins."""

import numpy as np
import pandas as pd
import pytest

from shapeloss.plotting.rankings import figure_critical_difference, figure_significance
from shapeloss.stats.ranking import critical_difference

PAIRS = pd.DataFrame(
    [("a", "b", -1.0, 0.01), ("a", "c", 1.0, 0.2), ("b", "c", 1.0, 0.0001)],
    columns=["first", "second", "sign", "p_holm"],
)


def cells(figure):
    """(row, column) → (colour, text)."""
    axes = figure.axes[0]
    texts = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in axes.texts}
    colors = {}
    for collection in axes.collections:
        x, y = collection.get_paths()[0].vertices[:-1].mean(axis=0).round()
        colors[int(y), int(x)] = tuple(collection.get_facecolor()[0].round(2))
    return {place: (colors[place], text) for place, text in texts.items()}


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_a_cell_says_whether_its_row_is_better(better):
    found = cells(figure_significance(PAIRS, ["b", "a", "c"], better))
    legend = figure_significance(PAIRS, ["b", "a", "c"], better).legends[0]
    blue, orange, grey = (tuple(np.round(patch.get_facecolor(), 2)) for patch in legend.get_patches())
    assert [text.get_text() for text in legend.get_texts()] == ["row better", "row worse", "not shown to differ"]
    better_one, worse_one = (blue, orange) if better == "higher" else (orange, blue)
    assert found == {
        (0, 1): (better_one, "0.010"), (1, 0): (worse_one, "0.010"),  # b is larger than a
        (0, 2): (better_one, "<0.001"), (2, 0): (worse_one, "<0.001"),
        (1, 2): (grey, "0.200"), (2, 1): (grey, "0.200"),
    }  # fmt: skip
    with pytest.raises(ValueError, match="pairs must have rows and the columns first, second, sign, p_holm"):
        figure_significance(PAIRS.drop(columns="sign"), ["a", "b", "c"], better)


@pytest.mark.filterwarnings("error::UserWarning")
def test_long_and_equal_names_keep_their_room():
    methods = ["a:unet", "b:unet", "a name of a method that is longer than most names are"]
    pairs = PAIRS.replace(dict(zip("abc", methods, strict=True)))
    figure = figure_significance(pairs, methods, "higher", "Title")
    figure.draw_without_rendering()  # a warning, that there is no room, is an error
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == methods
    assert axes.get_window_extent().width / figure.dpi > 3 * 0.6  # inches: the cells hold their numbers


def test_bars_join_the_groups():
    scores = np.random.default_rng(0).normal(size=(14, 6)) + np.linspace(0, 2, 6)
    found = critical_difference(pd.DataFrame(scores, columns=list("abcdef")), "lower")
    figure = figure_critical_difference(found, "Title")
    axes = figure.axes[0]
    bars = [line.get_xdata() for line in axes.lines if line.get_linewidth() == 4.5]
    expected = [(found.mean_ranks[i], found.mean_ranks[j]) for i, j in found.groups]
    np.testing.assert_allclose(bars, expected, atol=0.061)
    assert {f"{r:.2f}" for r in found.mean_ranks} <= {word for text in axes.texts for word in text.get_text().split()}
    assert "Mean rank over 14 cases, 1 is best." in figure.get_supxlabel()
