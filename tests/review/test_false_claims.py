"""The probability that a claim is false, and the pairs it needs: simulation, statsmodels, SciPy, and the paper."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats
from statsmodels.stats.power import TTestPower

from shapeloss.replication.paper import read_paper
from shapeloss.review.audit.false_claims import (
    CORRELATIONS,
    false_claim,
    pairs_for_power,
    pairs_for_probability,
    percent,
    probability_false,
    sd_of_difference,
)
from shapeloss.review.audit.figures import figure_false_claims
from shapeloss.review.audit.paper import audit_markdown, audit_paper, conclusions
from shapeloss.review.audit.sd_bounds import read_printed
from shapeloss.review.audit.trainings import read_correlations, read_trainings

REPRODUCE = Path(__file__).resolve().parents[2] / "reproduce"
FIRST, SECOND = ("0.29", "0.04"), ("0.27", "0.05")


def scores(r, n=10, seed=0):
    """Paired scores with exactly these means, SDs and correlation."""
    z = np.random.default_rng(seed).normal(size=(2, n))
    z = (z - z.mean(1, keepdims=True)) / z.std(1, ddof=1, keepdims=True)
    z[1] -= z[0] * (z[0] @ z[1]) / (n - 1)
    z[1] /= z[1].std(ddof=1)
    return 0.29 + 0.04 * z[0], 0.27 + 0.05 * (r * z[0] + np.sqrt(1 - r**2) * z[1])


def test_the_paper_s_own_claim():
    found = [x.probability for x in false_claim(FIRST, SECOND, 10).at]
    assert CORRELATIONS == (0, 0.5, 0.84, 0.9)
    # by hand: t = 0.02 √10 / √(0.0041 − 0.004 r)
    for r, p in zip(CORRELATIONS, found, strict=True):
        assert p == pytest.approx(stats.t.sf(0.02 * np.sqrt(10) / np.sqrt(0.0041 - 0.004 * r), 9))
    assert found == pytest.approx([0.175, 0.100, 0.023, 0.010], abs=5e-4)


@pytest.mark.parametrize("r", [-0.3, 0.0, 0.5, 0.84])
def test_it_is_the_one_sided_p_of_the_paired_t_test(r):
    a, b = scores(r)
    assert false_claim(FIRST, SECOND, 10, correlations=[r]).at[0].probability == pytest.approx(
        stats.ttest_rel(a, b, alternative="greater").pvalue
    )


def test_it_is_the_posterior_of_a_flat_prior():
    """By the likelihood alone: the variance v is integrated out with the prior 1 / v, then the mean up to zero."""
    a, b = scores(0.5)
    d = (a - b) / np.std(a - b)
    v = np.geomspace(1 / 40, 4000, 1000)

    def area(low, high):
        mean = np.linspace(low, high, 500)
        squares = ((d[:, None] - mean) ** 2).sum(0)
        likelihood = v ** (-len(d) / 2) * np.exp(-squares[:, None] / (2 * v))
        return integrate.trapezoid(integrate.trapezoid(likelihood / v, v, axis=1), mean)

    p = area(-15, 0) / (area(-15, 0) + area(0, 15))
    assert false_claim(FIRST, SECOND, 10, correlations=[0.5]).at[0].probability == pytest.approx(p, rel=2e-3)


def test_it_is_how_often_such_claims_are_false_in_a_simulation():
    """True differences drawn evenly, ten pairs each; of those whose t is as claimed, this share is not above zero."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(-3, 3, 400_000)  # in SDs of a difference, far beyond what t can bring together with ten pairs
    d = rng.normal(truth[:, None], 1.0, (len(truth), 10))
    t = d.mean(1) / (d.std(1, ddof=1) / np.sqrt(10))
    target = 0.02 * np.sqrt(10) / np.sqrt(0.0041)
    near = np.abs(t - target) < 0.1
    assert near.sum() > 3000
    expected = false_claim(FIRST, SECOND, 10, correlations=[0.0]).at[0].probability
    assert (truth[near] <= 0).mean() == pytest.approx(expected, abs=4 * np.sqrt(0.175 * 0.825 / near.sum()) + 0.005)


def test_what_the_rounding_leaves_open():
    grids = [np.linspace(read_printed(x).low, read_printed(x).high, 15) for x in (*FIRST, *SECOND)]
    m1, s1, m2, s2 = np.meshgrid(*grids, indexing="ij")
    for each in false_claim(FIRST, SECOND, 10, correlations=[-0.5, 0.0, 0.84, 0.99]).at:
        t = np.sqrt(10) * (m1 - m2) / np.sqrt(s1**2 + s2**2 - 2 * each.r * s1 * s2)
        p = stats.t.sf(t, 9)
        assert each.rounding[0] <= p.min() + 1e-12
        assert each.rounding == pytest.approx((p.min(), p.max()), rel=0.02)
        assert each.rounding[0] < each.probability < each.rounding[1]
    equal = false_claim(("0.30", "0.040"), ("0.30", "0.040"), 10, correlations=[1.0]).at[0]
    assert (equal.probability, *equal.rounding) == (0.5, 0.0, 1.0)


def test_lower_scores_can_be_the_better_ones():
    higher = false_claim(SECOND, FIRST, 10).at[0].probability
    lower = false_claim(SECOND, FIRST, 10, "lower").at[0].probability
    assert lower == false_claim(FIRST, SECOND, 10).at[0].probability
    assert higher == pytest.approx(1 - lower)


@pytest.mark.parametrize("effect", [2.5, 0.9, 0.31, 0.05])
def test_the_pairs_that_power_needs_are_those_of_statsmodels(effect):
    needed = TTestPower().solve_power(effect, alpha=0.05, power=0.8)
    assert pairs_for_power(0.02 * effect, 0.02) == np.ceil(needed)


def test_the_pairs_that_a_small_probability_needs_are_the_least():
    for effect in (2.0, 0.5, 0.04):
        n = int(pairs_for_probability(effect, 1.0))
        assert stats.t.sf(np.sqrt(n) * effect, n - 1) < 0.05 <= stats.t.sf(np.sqrt(n - 1) * effect, n - 2)
    assert pairs_for_probability(1.0, 0.0) == 2
    assert pairs_for_probability(0.0, 1.0) == pairs_for_probability(-1.0, 1.0) == pairs_for_power(0, 1) == np.inf
    assert pairs_for_power(1e-9, 1.0) == np.inf


def test_measured_correlations_are_averaged_over():
    rs = [0.2, 0.6, 0.9]
    table = pd.DataFrame({"metric": ["dice"] * 3 + ["other"], "r": [*rs, 0.0], "data": "knees"})
    dice, other = false_claim(FIRST, SECOND, 10, measured=table).measured
    p = [stats.t.sf(0.02 * np.sqrt(10) / np.sqrt(0.0041 - 0.004 * r), 9) for r in rs]
    assert dice.probability == pytest.approx(np.mean(p))
    assert (dice.least, dice.most) == pytest.approx((p[2], p[0]))
    assert other.probability == pytest.approx(0.1745, abs=1e-4)
    assert "over the 3 correlations that Global Dice of two losses showed on knees (r = 0.20 to 0.90)" in dice.to_text()


def test_what_cannot_be_is_refused():
    for arguments, words in (
        ({"n": 1}, "n must be at least 2 pairs"),
        ({"correlations": [1.2]}, "must lie between -1 and 1; got 1.2"),
        ({"first": ("0.3", "-0.1")}, "an SD must not be negative"),
        ({"first": ("x", "0.1")}, "must be a decimal number"),
    ):
        with pytest.raises(ValueError, match=words):
            false_claim(**{"first": FIRST, "second": SECOND, "n": 10} | arguments)


def test_numbers_without_spread_and_words():
    assert [probability_false(d, 0.0, 5) for d in (-1, 0, 1)] == [1.0, 0.5, 0.0]
    assert sd_of_difference(0.04, 0.04, 1.0) == 0
    assert percent(0.0995) == "10 %"
    text = false_claim(FIRST, SECOND, 10, correlations=[0.5]).to_text()
    assert text.endswith(
        "- if the paired scores correlate at r = 0.5, 10 % (2.3 % to 27 %); 17 pairs would make it less than 5 %, and "
        "44 pairs give a paired t-test 80 % power for this difference."
    )
    assert "no number of pairs up to a million" in false_claim(FIRST, FIRST, 10).to_text()


# --- the paper ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def audit():
    correlations = read_correlations(REPRODUCE / "correlations.csv")
    trainings = read_trainings(REPRODUCE / "trainings.csv")
    return audit_paper(read_paper(REPRODUCE / "paper.yaml"), correlations=correlations, trainings=trainings)


def test_every_claimed_difference_of_the_paper(audit):
    assert set(audit.false_claims) == {("boundary", s, loss) for s in "AB" for loss in ("dice", "pcol", "focal")}
    claim = audit.false_claims["boundary", "A", "dice"]
    assert claim.difference == 0.02
    assert claim.at == false_claim(FIRST, SECOND, 10).at
    (over,) = claim.measured
    measured = pd.read_csv(REPRODUCE / "correlations.csv")
    boundary = measured[measured["metric"] == "boundary_dice_in_plane"]["r"]
    assert over.correlations == tuple(boundary)
    assert over.data == ("phantom", "study", "hippocampus")
    page = audit_markdown(audit)
    assert "| A | boundary | dice | 0.02 | 17 % (6.5 % to 33 %) | 10 % (2.3 % to 27 %) |" in page
    assert "| A | boundary | dice | 10 | 83 / 30 | 44 / 17 |" in page
    point = next(p for p in conclusions(audit) if "How probable it is" in p)
    at_zero = sum(c.at[0].probability >= 0.05 for c in audit.false_claims.values())
    assert f"{at_zero} at r = 0," in point


def test_lower_is_better_where_the_claim_says_so():
    paper = read_paper(REPRODUCE / "paper.yaml")
    claims = tuple(c.model_copy(update={"better": "lower"}) if c.id == "boundary" else c for c in paper.claims)
    turned = audit_paper(paper.model_copy(update={"claims": claims}))
    assert turned.false_claims["boundary", "A", "dice"].at[0].probability > 0.5
    assert turned.false_claims["boundary", "A", "dice"].measured == ()
    assert "| – |" in audit_markdown(turned)


def test_the_picture_has_a_curve_for_each_claim_and_a_tick_for_each_correlation(audit):
    measured = read_correlations(REPRODUCE / "correlations.csv")
    figure = figure_false_claims(audit.false_claims, measured)
    curves, rug = figure.axes
    assert len(curves.get_lines()) == len(audit.false_claims) + 1  # and the limit
    line = curves.get_lines()[0]
    assert line.get_ydata()[0] == pytest.approx(0.1745, abs=1e-4)
    ticks = sorted(x for line in rug.get_lines() for x in line.get_xdata())
    assert ticks == sorted(measured[measured["metric"] == "boundary_dice_in_plane"]["r"])
    with pytest.raises(ValueError, match="at least one claim"):
        figure_false_claims({}, measured)
