"""Rankings, their stability, and critical differences: published examples, plain loops, other libraries."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from shapeloss.stats import ranking as module
from shapeloss.stats.ranking import (
    RULES,
    case_ranks,
    compare_pairs,
    complete_cases,
    critical_difference,
    iman_davenport,
    kendall_tau,
    nemenyi_q,
    rank_methods,
)

# Demšar 2006, table 6: AUC of four variants of C4.5 on 14 data sets. Of two printed 0.975 in the last but one, the
# first is a little larger here: the mean ranks that he gives are those without this tie.
AUC = """0.763 0.768 0.771 0.798  0.599 0.591 0.590 0.569  0.954 0.971 0.968 0.967  0.628 0.661 0.654 0.657
0.882 0.888 0.886 0.898  0.936 0.931 0.916 0.931  0.661 0.668 0.609 0.685  0.583 0.583 0.563 0.625
0.775 0.838 0.866 0.875  1.000 1.000 1.000 1.000  0.940 0.962 0.965 0.962  0.619 0.666 0.614 0.669
0.972 0.981 0.9751 0.975  0.957 0.978 0.946 0.970"""
DEMSAR = pd.DataFrame(np.array(AUC.split(), dtype=float).reshape(14, 4), columns=["C4.5", "+m", "+cf", "+m+cf"])
Q_TABLE = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]  # table 5a: 2 to 10 methods, 0.05


def frame(values):
    return pd.DataFrame(np.asarray(values, dtype=float), columns=[f"A{i + 1}" for i in range(np.shape(values)[1])])


def test_demsar_s_example():
    found = critical_difference(DEMSAR, "higher")
    assert found.methods == ("+m+cf", "+m", "+cf", "C4.5")
    assert found.mean_ranks.round(3).tolist() == [1.964, 2.0, 2.893, 3.143]
    # he does not correct χ² for ties; SciPy divides it by one minus the share of ties
    ties = sum((c**3 - c) for row in DEMSAR.to_numpy() for c in np.unique(row, return_counts=True)[1])
    plain = found.chi2 * (1 - ties / (14 * (4**3 - 4)))
    assert plain == pytest.approx(9.28, abs=0.005)
    assert iman_davenport(plain, 14, 4) == pytest.approx(3.69, abs=0.005)
    assert found.f == iman_davenport(found.chi2, 14, 4)
    assert found.p == pytest.approx(stats.chi2.sf(found.chi2, 3))
    assert found.p_f == pytest.approx(stats.f.sf(found.f, 3, 39))
    assert found.difference == pytest.approx(1.25, abs=0.005)
    assert found.groups == ((0, 3),)  # "even the difference between the best and the worst is smaller"
    at_10 = critical_difference(DEMSAR, "higher", alpha=0.10)
    assert at_10.difference == pytest.approx(1.12, abs=0.005)
    assert at_10.groups == ((0, 2), (2, 3))  # figure 1a


def test_nemenyi_s_critical_values_are_those_of_the_published_table():
    assert [nemenyi_q(k) for k in range(2, 11)] == pytest.approx(Q_TABLE, abs=1.1e-3)
    assert nemenyi_q(2) == pytest.approx(stats.norm.isf(0.025))  # two methods: the normal distribution's


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_the_longest_rows_within_the_critical_difference(seed):
    rng = np.random.default_rng(seed)
    scores = frame(rng.normal(size=(12, 7)) + np.linspace(0, 3, 7))
    found = critical_difference(scores, "lower")
    near = [
        (i, j)
        for i, j in itertools.combinations(range(7), 2)
        if found.mean_ranks[j] - found.mean_ranks[i] <= found.difference
    ]
    longest = [(i, j) for i, j in near if not any((a, b) != (i, j) and a <= i and j <= b for a, b in near)]
    assert list(found.groups) == longest


def test_cases_that_all_agree_and_cases_that_all_tie():
    agree = critical_difference(frame([[1, 2, 3]] * 30), "lower")
    assert (agree.chi2, agree.f, agree.p_f) == (60.0, np.inf, 0.0)
    assert agree.groups == ()
    tie = critical_difference(frame(np.ones((5, 3))), "lower")
    assert (tie.chi2, tie.p, tie.f) == (0.0, 1.0, 0.0)
    assert tie.groups == ((0, 2),)


def test_challenger_s_examples():
    """The tests of challengeR: means 0.5 and 0.9, ranks 1 and 2 where small is better, 2 and 1 where large is."""
    scores = frame([[0.6, 0.8], [0.4, 1.0]])
    for rule in RULES:
        assert rank_methods(scores, "lower", rule).ranks.tolist() == [1, 2]
        assert rank_methods(scores, "higher", rule).ranks.tolist() == [2, 1]
    assert rank_methods(scores, "lower").values.tolist() == [0.5, 0.9]


@pytest.mark.parametrize("rule", RULES)
def test_the_ideal_and_the_worst_challenge(rule):
    """Wiesenfarth et al. 2021: methods that never overlap, and all 120 orders of five scores."""
    rng = np.random.default_rng(4)
    ideal = rank_methods(frame(rng.uniform(0, 0.09, (50, 5)) + [0.9, 0.8, 0.7, 0.6, 0.5]), "higher", rule)
    assert ideal.ranks.tolist() == ideal.low.tolist() == ideal.high.tolist() == [1, 2, 3, 4, 5]
    assert ideal.best.tolist() == [1, 0, 0, 0, 0]
    assert ideal.tau == (1, 1, 1)
    worst = rank_methods(frame(list(itertools.permutations([0.8, 0.85, 0.9, 0.95, 1.0]))), "higher", rule)
    assert worst.ranks.tolist() == [3] * 5
    assert np.isnan(worst.tau).all()  # no order to keep
    np.testing.assert_allclose(worst.best, 0.2, atol=0.05)
    assert worst.best.sum() == pytest.approx(1)
    assert (worst.low < 3).all()
    assert (worst.high > 3).all()


@pytest.mark.parametrize("better", ["higher", "lower"])
@pytest.mark.parametrize("rule", RULES)
def test_a_ranking_and_its_bootstrap_by_plain_loops(rule, better):
    rng = np.random.default_rng(11)
    scores = frame(rng.normal(size=(9, 4)).round(1) + [0, 0.2, 0.3, 0.9])
    found = rank_methods(scores, better, rule, resamples=200, seed=5)
    sign = 1 if better == "lower" else -1

    def ranked(rows):
        if rule == "mean rank":
            points = np.mean([stats.rankdata(sign * np.array(row).round(9)) for row in rows], axis=0)
        else:
            points = sign * np.array([getattr(np, rule)([row[i] for row in rows]) for i in range(4)])
        points = points.round(9)
        return [1 + sum(q < p for q in points) + (sum(q == p for q in points) - 1) / 2 for p in points]

    rows = scores.to_numpy().tolist()
    assert found.ranks.tolist() == ranked(rows)
    draws = np.random.default_rng(5).integers(9, size=(200, 9))
    again = np.array([ranked([rows[i] for i in draw]) for draw in draws])
    first = np.zeros(4)
    for ranks in again:
        winners = [i for i in range(4) if ranks[i] == min(ranks)]
        first[winners] += 1 / len(winners)
    np.testing.assert_allclose(found.best, first / 200)
    for i in range(4):
        ordered = sorted(again[:, i])
        assert (found.low[i], found.high[i]) == (ordered[4], ordered[194])  # the 5th and the 195th of 200
    taus = [stats.kendalltau(found.ranks, ranks).statistic for ranks in again]
    assert found.tau == pytest.approx(tuple(np.quantile(taus, [0.25, 0.5, 0.75])))


def test_drawing_in_batches_changes_nothing(monkeypatch):
    scores = frame(np.random.default_rng(0).normal(size=(20, 3)))
    whole = rank_methods(scores, "higher")
    monkeypatch.setattr(module, "_BATCH", 20 * 3 * 64)
    np.testing.assert_array_equal(rank_methods(scores, "higher").best, whole.best)


def test_the_order_of_aggregating_and_ranking_matters():
    # A1 is best on four of five cases and fails on one: last by the mean, first by the other rules
    scores = frame([[0.9, 0.8], [0.9, 0.8], [0.9, 0.8], [0.9, 0.8], [0.0, 0.8]])
    ranks = {rule: rank_methods(scores, "higher", rule).ranks.tolist() for rule in RULES}
    assert ranks == {"mean": [2, 1], "median": [1, 2], "mean rank": [1, 2]}


def test_equal_methods_share_rank_and_first_place():
    scores = frame(np.random.default_rng(2).normal(size=(8, 2))[:, [0, 0, 1]] - [0, 0, 9])
    found = rank_methods(scores, "higher")
    assert found.ranks.tolist() == [1.5, 1.5, 3]
    assert found.best.tolist() == [0.5, 0.5, 0]
    # sums in another order differ by rounding errors alone, and tie
    assert case_ranks(frame([[0.1 + 0.2, 0.3]]), "lower").tolist() == [[1.5, 1.5]]


def test_kendall_s_tau_with_ties_is_scipy_s():
    rng = np.random.default_rng(8)
    one, many = rng.integers(1, 4, 6).astype(float), rng.integers(1, 4, (40, 6)).astype(float)
    expected = [stats.kendalltau(one, other).statistic for other in many]
    np.testing.assert_allclose(kendall_tau(one, many), expected, atol=1e-12)


def long(scores):
    return scores.rename_axis(index="case", columns="loss").stack().swaplevel().rename("dice").sort_index()


def test_pairs_agree_with_scipy_and_statsmodels():
    scores = frame(np.random.default_rng(1).normal(size=(15, 4)) + [0, 0, 1, 1.5])
    table = compare_pairs(long(scores), list(scores))
    assert len(table) == 6
    pairs = table[["first", "second"]].to_numpy()
    p = [stats.wilcoxon(scores[a], scores[b], method="exact").pvalue for a, b in pairs]
    np.testing.assert_allclose(table["p"], p)
    np.testing.assert_allclose(table["p_holm"], multipletests(p, method="holm")[1])
    assert table["sign"].tolist() == np.sign(table["difference"]).tolist()


def test_the_side_of_a_pair_is_that_of_the_test():
    """22 equal pairs and eight on one side: the pseudomedian is 0, but the test rejects."""
    scores = frame(np.column_stack([np.r_[np.zeros(22), np.arange(1, 9)], np.zeros(30)]))
    (row,) = compare_pairs(long(scores), list(scores)).to_dict("records")
    assert row["p"] < 0.01
    assert (row["difference"], row["sign"]) == (0, 1)


def test_only_complete_cases_are_ranked():
    means = long(frame([[1, 2], [3, 4], [5, 6]]))
    means.loc["A2", 1] = np.nan
    wide, left_out = complete_cases(means)
    assert wide.index.tolist() == [0, 2]
    assert left_out == ["1"]
    assert compare_pairs(means, ["A1", "A2"])["n"].tolist() == [2]


def test_arguments_that_make_no_sense():
    good = frame(np.ones((3, 3)))
    with pytest.raises(ValueError, match="scores must be finite"):
        rank_methods(frame([[1, np.nan]]), "higher")
    with pytest.raises(ValueError, match="scores must be finite, for one case or more"):
        rank_methods(good.iloc[:0], "higher")
    with pytest.raises(ValueError, match="better must be 'higher' or 'lower'; got 'nearer 0'"):
        rank_methods(good, "nearer 0")
    with pytest.raises(ValueError, match="rule must be one of mean, median, mean rank; got 'max'"):
        rank_methods(good, "higher", "max")
    with pytest.raises(ValueError, match="needs 3 methods and 2 cases; got 2 methods and 3 cases"):
        critical_difference(good[["A1", "A2"]], "higher")
