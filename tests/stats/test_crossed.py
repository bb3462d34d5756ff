"""Differences over volumes and trainings: against a mixed model of statsmodels, the t-test, and cases by hand."""

import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from shapeloss.stats.crossed import compare_crossed, crossed_difference, noise_floor, score_grid


def drawn(seed, volumes=10, seeds=5, sds=(0.02, 0.01, 0.01), mean=0.01):
    rng = np.random.default_rng(seed)
    parts = (
        rng.normal(0, sds[0], (volumes, 1)),
        rng.normal(0, sds[1], (1, seeds)),
        rng.normal(0, sds[2], (volumes, seeds)),
    )
    return mean + sum(parts)


def reml(d):
    """A mixed model of the differences with volumes and seeds as crossed random effects."""
    volumes, seeds = np.indices(d.shape)
    table = pd.DataFrame({"d": d.ravel(), "volume": volumes.ravel(), "seed": seeds.ravel(), "all": 0})
    parts = {"volume": "0 + C(volume)", "seed": "0 + C(seed)"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return smf.mixedlm("d ~ 1", table, groups="all", vc_formula=parts).fit(reml=True)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("volumes", "seeds"), [(10, 5), (6, 4), (12, 8)])
def test_it_is_the_mixed_model_with_both_at_random(seed, volumes, seeds):
    d = 100 * drawn(seed, volumes, seeds)
    ours, theirs = crossed_difference(d), reml(d)
    if min(ours.sd_volumes, ours.sd_trainings) == 0:
        pytest.skip("an estimate at its bound, where the two differ by definition")
    assert ours.interval.value == pytest.approx(theirs.params["Intercept"], rel=1e-6)
    half = (ours.interval.high - ours.interval.low) / 2
    assert half / stats.t.ppf(0.975, ours.df) == pytest.approx(theirs.bse["Intercept"], rel=1e-3)
    seed_var, volume_var = theirs.vcomp  # in the order of the names
    assert ours.sd_trainings**2 == pytest.approx(seed_var, rel=5e-3)
    assert ours.sd_volumes**2 == pytest.approx(volume_var, rel=5e-3)
    assert ours.sd_rest**2 == pytest.approx(theirs.scale, rel=5e-3)


def test_without_effects_of_trainings_it_is_the_paired_t_test_of_the_means():
    d = drawn(3, sds=(0.02, 0.0, 0.01))
    d -= d.mean(axis=0) - d.mean()  # no training differs from another
    ours = crossed_difference(d)
    theirs = stats.ttest_1samp(d.mean(axis=1), 0)
    limits = theirs.confidence_interval()
    assert (ours.df, ours.sd_trainings) == (9, 0)
    assert ours.p == pytest.approx(theirs.pvalue)
    assert (ours.interval.low, ours.interval.high) == pytest.approx((limits.low, limits.high))


def test_without_effects_of_volumes_it_is_the_t_test_of_the_trainings():
    d = drawn(4, sds=(0.0, 0.02, 0.01))
    d -= (d.mean(axis=1) - d.mean())[:, None]
    ours = crossed_difference(d)
    assert (ours.df, ours.sd_volumes) == (4, 0)
    assert ours.p == pytest.approx(stats.ttest_1samp(d.mean(axis=0), 0).pvalue)


def test_by_hand():
    """Volumes' means 2 and 4, seeds' 1 and 5: mean squares 4, 16, and 0 for the rest, so the variance is 20 / 4."""
    ours = crossed_difference([[0, 4], [2, 6]])
    assert ours.interval.value == 3
    assert ours.df == pytest.approx(20**2 / (4**2 + 16**2))
    assert (ours.sd_volumes, ours.sd_trainings, ours.sd_rest) == pytest.approx((np.sqrt(2), np.sqrt(8), 0))
    assert ours.interval.high == pytest.approx(3 + stats.t.ppf(0.975, ours.df) * np.sqrt(5))


def test_it_keeps_its_level_where_trainings_differ():
    """With no true difference and trainings as varied as volumes, the volumes alone reject far too often."""
    crossed, alone = [], []
    for seed in range(400):
        d = drawn(seed, 10, 5, (0.01, 0.01, 0.01), 0.0)
        crossed.append(crossed_difference(d).p < 0.05)
        alone.append(stats.ttest_1samp(d.mean(axis=1), 0).pvalue < 0.05)
    assert np.mean(crossed) < 0.08  # three standard errors above 0.05
    assert np.mean(alone) > 0.15


def test_no_spread():
    assert crossed_difference(np.zeros((3, 2))).p == 1
    same = crossed_difference(np.full((3, 2), 0.5))
    assert (same.p, same.interval) == (0, (0.5, 0.5, 0.5))


@pytest.mark.parametrize("wrong", [np.zeros(4), np.zeros((1, 4)), np.zeros((4, 1)), [[0, 1], [1, np.nan]]])
def test_what_it_cannot_use_is_refused(wrong):
    with pytest.raises(ValueError, match=r"2 or more volumes \(rows\) and seeds \(columns\), all finite"):
        crossed_difference(wrong)


def table(**losses):
    return pd.DataFrame(
        [
            {"loss": loss, "case": f"c{v}", "seed": s, "dice": value}
            for loss, grid in losses.items()
            for v, row in enumerate(grid)
            for s, value in enumerate(row)
        ]
    )


def test_scores_are_paired_by_case_and_seed():
    a, b = drawn(1), drawn(2)
    scores = table(first=a, second=b).sample(frac=1, random_state=0)
    assert compare_crossed(scores, "first", "second", "dice") == crossed_difference(a - b)
    fewer = scores[(scores["loss"] == "first") | (scores["seed"] < 3)]
    assert compare_crossed(fewer, "first", "second", "dice") == crossed_difference((a - b)[:, :3])


def test_what_cannot_be_paired_is_named():
    scores = table(first=drawn(1, 3, 2), second=drawn(2, 3, 2))
    with pytest.raises(ValueError, match=r"no rows of loss 'third'; it has \['first', 'second'\]"):
        score_grid(scores, "third", "dice")
    gap = scores.assign(dice=scores["dice"].mask((scores["case"] == "c1") & (scores["seed"] == 1)))
    with pytest.raises(ValueError, match="first: case c1 has no finite dice for seed 1"):
        compare_crossed(gap, "first", "second", "dice")
    with pytest.raises(ValueError, match="must have the same cases; they have 3 and 2"):
        compare_crossed(scores[(scores["loss"] == "first") | (scores["case"] != "c0")], "first", "second", "dice")
    with pytest.raises(ValueError, match="two seeds in common; they have 1"):
        compare_crossed(scores[(scores["loss"] == "first") | (scores["seed"] == 0)], "first", "second", "dice")


def test_the_noise_floor_by_hand():
    """Trainings' means 0.50, 0.52, 0.54: every pair, an SD of 0.02, and t with two degrees of freedom."""
    floor = noise_floor([[0.48, 0.50, 0.52], [0.52, 0.54, 0.56]])
    assert floor.differences == (0.02, 0.04, 0.02)
    assert floor.sd == pytest.approx(0.02)
    assert floor.between(8) == pytest.approx(4.302653 * 0.02 / 2)
    with pytest.raises(ValueError, match=r"3 or more trainings, all finite; got \(2, 2\)"):
        noise_floor(np.zeros((2, 2)))


def test_the_band_holds_what_it_says():
    """Sets of five trainings of one loss differ by less than the band in 95 of 100 repetitions."""
    inside = []
    for seed in range(2000):
        rng = np.random.default_rng(seed)
        floor = noise_floor(rng.normal(0, 1, (1, 10)))
        inside.append(abs(rng.normal(0, 1, 5).mean() - rng.normal(0, 1, 5).mean()) < floor.between(5))
    assert 0.935 < np.mean(inside) < 0.965
