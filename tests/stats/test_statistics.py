"""Paired statistics: published values, hand-worked examples, enumeration, and other libraries."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from helpers.project import load_script
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from shapeloss.stats import paired_tests as paired
from shapeloss.stats.compare_losses import case_means, compare_losses
from shapeloss.stats.paired_tests import (
    bootstrap_mean,
    detectable_effect,
    differences,
    equivalence,
    hodges_lehmann,
    holm,
    noninferiority,
    paired_t_test,
    power_of,
    sign_flip_test,
    signed_rank_test,
)
from shapeloss.stats.tables import summary_table, write_table

# Hollander & Wolfe's depression data, the example of R's wilcox.test: V = 40, p = 0.03906 two-sided, 0.01953 one-sided.
FIRST = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
SECOND = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]

small_integers = st.lists(st.integers(-4, 4), min_size=1, max_size=8).map(lambda x: np.array(x, dtype=float))


def scores(**losses: list[float]) -> pd.DataFrame:
    """One seed, cases c0, c1, …"""
    return pd.DataFrame(
        [{"case": f"c{i}", "loss": k, "seed": 0, "dice": x} for k, v in losses.items() for i, x in enumerate(v)]
    )


def test_signed_rank_agrees_with_r() -> None:
    d = differences(FIRST, SECOND)
    assert signed_rank_test(d) == (40.0, 0.0390625)
    assert signed_rank_test(d, "greater").p == 0.01953125
    assert signed_rank_test(-d, "less").p == 0.01953125


def test_signed_rank_zeros_keep_their_ranks_by_hand() -> None:
    # |d| ranks: 0 → 1, 1 → 2, 2 → 3. V = 2 + 3 = 5 of {0, 2, 3, 5}: one-sided 1/4
    assert signed_rank_test([0, 1, 2]) == (5.0, 0.5)
    # with the zero dropped V would be 3, and so would a pair without zeros
    assert signed_rank_test([1, 2]).statistic == 3.0


@settings(max_examples=60, deadline=None)
@given(small_integers, st.sampled_from(["two-sided", "greater", "less"]))
def test_signed_rank_enumerated_with_ties_and_zeros(d: np.ndarray, alternative: str) -> None:
    ranks = stats.rankdata(np.abs(d))[d != 0]
    observed = ranks[d[d != 0] > 0].sum()
    null = np.array([np.dot(ranks, signs) for signs in itertools.product([0, 1], repeat=len(ranks))])
    less, greater = np.mean(null <= observed), np.mean(null >= observed)
    expected = {"less": less, "greater": greater, "two-sided": min(1, 2 * min(less, greater))}[alternative]
    result = signed_rank_test(d, alternative)
    assert result.statistic == observed
    assert result.p == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [5, 10, 25, 50])
def test_signed_rank_agrees_with_scipy_without_ties(n: int) -> None:
    d = np.random.default_rng(n).normal(0.3, 1, n)
    for alternative in ("two-sided", "greater", "less"):
        expected = stats.wilcoxon(d, alternative=alternative, method="exact").pvalue
        assert signed_rank_test(d, alternative).p == pytest.approx(expected, rel=1e-10)


def test_signed_rank_of_many_pairs_is_near_the_exact_one() -> None:
    d = np.random.default_rng(0).normal(0.1, 1, 501)
    exact = signed_rank_test(d[:500]).p
    assert signed_rank_test(d).p == pytest.approx(exact, rel=0.2)


def test_equal_differences_tie_in_spite_of_floating_point() -> None:
    plain = np.array([0.3, 0.2, 0.1, 0.7]) - np.array([0.2, 0.1, 0.2, 0.6])
    assert len(set(np.abs(plain))) > 1
    d = differences([0.3, 0.2, 0.1, 0.7], [0.2, 0.1, 0.2, 0.6])
    assert set(np.abs(d)) == {0.1}
    # three of four equal differences: P(V ≥ 7.5) = P(at most one negative) = 5/16
    assert signed_rank_test(d) == (7.5, 0.625)


def test_no_differences_give_p_1() -> None:
    for test in (signed_rank_test, sign_flip_test, paired_t_test):
        for alternative in ("two-sided", "greater", "less"):
            assert test(np.zeros(10), alternative).p == 1.0
    assert paired_t_test([0.5, 0.5, 0.5]).p == 0.0
    assert paired_t_test([0.5, 0.5, 0.5], "less").p == 1.0


@settings(max_examples=30, deadline=None)
@given(small_integers.filter(lambda d: bool(d.any())))
def test_sign_flip_enumerated(d: np.ndarray) -> None:
    null = np.array([np.dot(np.abs(d), signs) for signs in itertools.product([-1, 1], repeat=len(d))])
    expected = min(1, 2 * min(np.mean(null <= d.sum() + 1e-9), np.mean(null >= d.sum() - 1e-9)))
    assert sign_flip_test(d).p == pytest.approx(expected)


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, never falling: 0.04, 0.06, 0.06, 0.06
    np.testing.assert_allclose(holm([0.04, 0.01, 0.03, 0.02]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])
    assert np.isnan(holm([np.nan])).all()


def test_holm_agrees_with_statsmodels() -> None:
    for size in (1, 3, 8):
        p = np.random.default_rng(size).random(size) ** 3
        np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])


def test_hodges_lehmann_by_hand() -> None:
    # pairwise means of 1, 2, 6: 1, 1.5, 2, 3.5, 4, 6
    assert hodges_lehmann([1, 2, 6]) == (2.75, -np.inf, np.inf)
    # P(V ≤ 0) = 1/8: at 75 % one pairwise mean lies outside on each side
    assert hodges_lehmann([1, 2, 6], 0.75) == (2.75, 1, 6)
    assert np.isnan(hodges_lehmann([])).all()


@pytest.mark.parametrize("n", [6, 10, 15])
def test_hodges_lehmann_interval_inverts_the_test(n: int) -> None:
    d = np.random.default_rng(n).normal(size=n)
    _, low, high = hodges_lehmann(d)
    for shift, inside in ((low - 1e-6, False), (low + 1e-6, True), (high - 1e-6, True), (high + 1e-6, False)):
        assert (signed_rank_test(d - shift).p > 0.05) == inside


def test_bootstrap_interval() -> None:
    d = differences(FIRST, SECOND)
    value, low, high = bootstrap_mean(d)
    assert value == pytest.approx(d.mean())
    assert low < value < high
    assert bootstrap_mean(d) == bootstrap_mean(d)
    assert bootstrap_mean(d, seed=1) != bootstrap_mean(d)
    assert bootstrap_mean([0.25] * 5) == (0.25, 0.25, 0.25)
    assert np.isnan(bootstrap_mean([0.25])[1:]).all()


def test_two_one_sided_tests_by_hand() -> None:
    # mean 0, SD 1, n = 4: SE 0.5; (0 + 1.5) / 0.5 = 3 with 3 degrees of freedom, on both sides
    d = np.array([-1, -1, 1, 1]) * np.sqrt(3) / 2
    result = equivalence(d, 1.5)
    assert result.p == pytest.approx(stats.t.sf(3, 3))
    assert result.p_contrary == 1.0
    assert result.interval.high == pytest.approx(0.5 * stats.t.ppf(0.95, 3))
    # shifted by +1: t = 5 above −1.5, t = −1 below +1.5; the larger p decides
    assert equivalence(d + 1, 1.5).p == pytest.approx(stats.t.sf(1, 3))
    assert noninferiority(d + 1, 1.5).p == pytest.approx(stats.t.sf(5, 3))
    assert noninferiority(d - 1, 1.5).p == pytest.approx(stats.t.sf(1, 3))
    assert noninferiority(d - 3, 1.5).p_contrary == pytest.approx(stats.t.sf(3, 3))
    assert equivalence(d + 3, 1.5).p_contrary == pytest.approx(2 * stats.t.sf(3, 3))


def test_two_one_sided_tests_agree_with_statsmodels() -> None:
    p, _, _ = ttost_paired(np.array(FIRST), np.array(SECOND), -0.8, 0.8)
    assert equivalence(differences(FIRST, SECOND), 0.8).p == pytest.approx(p)


def test_margin_interval_decides_like_the_test() -> None:
    d = differences(FIRST, SECOND)
    for test in ("t", "wilcoxon"):
        for margin in np.arange(0.05, 1.2, 0.05):
            result = equivalence(d, margin, test=test)
            inside = -margin < result.interval.low and result.interval.high < margin
            assert (result.p < 0.05) == inside
            result = noninferiority(-d, margin, test=test)
            assert (result.p < 0.025) == (result.interval.low > -margin)


def test_wilcoxon_margin_ties_in_spite_of_floating_point() -> None:
    # shifted by 0.3: 0.1, −0.1 and 0.4 with mean ranks 1.5, 1.5, 3; V ≥ 4.5 has probability 3/8
    assert noninferiority([-0.2, -0.4, 0.1], 0.3, test="wilcoxon").p == 0.375


@pytest.mark.parametrize("margin", [0, -1, np.nan])
def test_margin_must_be_positive(margin: float) -> None:
    with pytest.raises(ValueError, match="margin must be a positive number"):
        equivalence([1, 2, 3], margin)


def test_power() -> None:
    assert power_of(1, 1, 10) == pytest.approx(0.8031, abs=5e-5)  # the tables of G*Power
    assert power_of(0.02, 0.028, 12, 0.01) == pytest.approx(TTestPower().power(0.02 / 0.028, 12, 0.01))
    assert power_of(0, 1, 10) == pytest.approx(0.05)
    for n in (2, 3, 10, 1000):
        assert power_of(detectable_effect(2.5, n, 0.05 / 3), 2.5, n, 0.05 / 3) == pytest.approx(0.8)
    assert np.isnan(power_of(1, 1, 1))
    assert np.isnan(detectable_effect(1, 1))
    assert power_of(0.1, 0, 5) == 1
    assert detectable_effect(0, 5) == 0


def test_the_unit_is_the_case_not_the_run() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"case": f"c{c}", "loss": loss, "seed": s, "dice": rng.normal(0.9 + shift, 0.05)}
        for c in range(6)
        for loss, shift in (("dpce", 0.02), ("dice", 0.0))
        for s in range(3)
    ]
    table = pd.DataFrame(rows)
    means = table.groupby(["loss", "case"])["dice"].mean()
    result = compare_losses(table, metrics=["dice"]).iloc[0]
    assert result["n"] == 6
    assert result["seeds_loss"] == 3
    assert result["p_wilcoxon"] == stats.wilcoxon(means["dpce"] - means["dice"]).pvalue
    assert result["sd_difference"] == pytest.approx((means["dpce"] - means["dice"]).std())
    over_seeds = table[table["loss"] == "dpce"].groupby("seed")["dice"].mean().std()
    assert result["seed_sd_reference"] == pytest.approx(over_seeds)


def test_compare_losses_by_hand() -> None:
    table = scores(dpce=[0.5, 0.6, 0.7, 0.8], dice=[0.4, 0.4, 0.4, 0.4], focal=[0.5, 0.6, 0.7, 0.8])
    result = compare_losses(table, metrics=["dice"]).set_index("loss")
    dice = result.loc["dice"]
    assert dice["difference"] == pytest.approx(0.25)
    assert dice["hodges_lehmann"] == pytest.approx(0.25)
    assert dice["p_wilcoxon"] == dice["p_permutation"] == 0.125
    assert dice["p_holm"] == 0.25
    assert dice["note"] == "4 cases cannot give a p below 0.125"
    assert dice["detectable"] == pytest.approx(detectable_effect(np.std([0.1, 0.2, 0.3, 0.4], ddof=1), 4, 0.025))
    focal = result.loc["focal"]
    assert (focal["p_wilcoxon"], focal["p_holm"], focal["p_t"], focal["difference"]) == (1, 1, 1, 0)


def test_families_are_per_metric() -> None:
    table = scores(dpce=[0.5, 0.6, 0.7, 0.8], dice=[0.4, 0.4, 0.4, 0.4]).assign(hd95=lambda t: -t["dice"])
    result = compare_losses(table, metrics=["dice", "hd95"])
    assert result["p_holm"].tolist() == result["p_wilcoxon"].tolist() == [0.125, 0.125]
    assert result["difference"].tolist() == pytest.approx([0.25, -0.25])


def test_cases_without_a_score_are_excluded_and_named() -> None:
    table = scores(dpce=[0.5, 0.6, np.inf, 0.8], dice=[0.4, 0.4, 0.4])
    result = compare_losses(table, metrics=["dice"]).iloc[0]
    assert (result["n"], result["excluded"]) == (2, 2)
    assert result["note"].startswith("without c2, c3")
    # one seed of a case without a score: the case has none, rather than the mean of the others
    seeds = pd.concat([table, table.assign(seed=1)], ignore_index=True)
    seeds.loc[0, "dice"] = np.nan
    assert np.isnan(case_means(seeds, ["dice"]).loc[("dpce", "c0"), "dice"])
    assert np.isnan(case_means(seeds.drop(index=0), ["dice"]).loc[("dpce", "c0"), "dice"])


def test_one_case_is_no_test() -> None:
    result = compare_losses(scores(dpce=[0.5], dice=[0.4]), metrics=["dice"]).iloc[0]
    assert result["n"] == 1
    assert np.isnan(result[["p_wilcoxon", "p_holm", "p_permutation", "p_t", "detectable"]].astype(float)).all()
    assert result["note"] == "no test: 1 paired case, at least 2 needed"


def test_bad_tables_are_refused() -> None:
    good = scores(dpce=[0.5], dice=[0.4])
    with pytest.raises(ValueError, match=r"one row per loss, case, seed; 1 are repeated: loss dice, case c0, seed 0"):
        compare_losses(pd.concat([good, good.tail(1)]), metrics=["dice"])
    with pytest.raises(ValueError, match="keep the rows of one structure"):
        compare_losses(pd.concat([good, good]).assign(structure="femur"), metrics=["dice"])
    with pytest.raises(ValueError, match=r"lacks the columns \['hd95'\]"):
        compare_losses(good, metrics=["hd95"])
    with pytest.raises(ValueError, match="reference 'ce' is not among the losses"):
        compare_losses(good, "ce", ["dice"])
    with pytest.raises(ValueError, match="paired: 2 values against 1"):
        differences([1, 2], [1])


@pytest.fixture
def results() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    rows = []
    for c in range(8):
        for loss, shift in (("ce", 0.0), ("dpce", 0.05), ("dice", 0.04)):
            for seed in (0, 1):
                base = 0.3 + shift + 0.01 * c + rng.normal(0, 0.01)
                rows.append({"case": f"k{c}", "loss": loss, "seed": seed, "boundary_dice_in_plane": base, "dice": 0.9})
    return pd.DataFrame(rows)


PAPER = {"boundary_dice_in_plane": {"dpce": (0.29, 0.04), "dice": (0.27, 0.05)}}


def test_summary_table(results: pd.DataFrame) -> None:
    table = summary_table(results, PAPER)
    assert table["loss"].tolist() == ["dpce", "ce", "dice"]
    row = table.set_index("loss").loc["dice"]
    means = results[results["loss"] == "dice"].groupby("case")["boundary_dice_in_plane"].mean()
    assert row["boundary_dice_in_plane_mean"] == pytest.approx(means.mean())
    assert row["boundary_dice_in_plane_sd"] == pytest.approx(means.std(ddof=1))
    assert row["boundary_dice_in_plane_paper_mean"] == 0.27
    assert (row["n"], row["seeds"]) == (8, 2)
    compared = compare_losses(results).set_index(["metric", "loss"])["p_holm"]
    assert row["boundary_dice_in_plane_p_holm"] == compared["boundary_dice_in_plane", "dice"]
    assert row["dice_p"] == 1
    assert np.isnan(table.loc[0, "dice_p"])
    assert np.isnan(table.loc[1, "boundary_dice_in_plane_paper_mean"])


def test_summary_table_tells_of_missing_scores(results: pd.DataFrame) -> None:
    results.loc[(results["loss"] == "ce") & (results["case"] == "k3"), "dice"] = np.nan
    notes = summary_table(results).set_index("loss")["note"]
    assert "dice: 1 of 8 cases without a finite score are not in the mean" in notes["ce"]
    assert "dice: without k3" in notes["ce"]
    assert notes["dice"] == ""


def test_written_tables(results: pd.DataFrame, tmp_path) -> None:
    table = summary_table(results, PAPER)
    paths = write_table(table, tmp_path / "table1", "Phantom, 100 % & seeds 0, 1; commit abc_1.")
    assert [p.name for p in paths] == ["table1.csv", "table1.md", "table1.tex"]
    again = pd.read_csv(paths[0])
    pd.testing.assert_frame_equal(again.drop(columns="note"), table.drop(columns="note"), check_exact=True)
    markdown = paths[1].read_text(encoding="utf-8").splitlines()
    assert markdown[0].startswith("| Loss | Boundary Dice | SD over seeds | Paper | p (Holm) | Global Dice |")
    assert markdown[2].startswith("| dpce | 0.3")
    assert "| 0.29 ± 0.04 | – |" in markdown[2]
    assert markdown[2].endswith("| 8 | 2 |")
    assert markdown[6].endswith("over the 2 comparisons of a column. Phantom, 100 % & seeds 0, 1; commit abc_1.")
    latex = paths[2].read_text(encoding="utf-8")
    assert r"100 \% \& seeds 0, 1; commit abc\_1." in latex
    assert r"0.29 $\pm$ 0.04" in latex
    assert latex.count(r"\\") == 4
    before = [p.read_bytes() for p in paths]
    write_table(summary_table(results, PAPER), tmp_path / "table1", "Phantom, 100 % & seeds 0, 1; commit abc_1.")
    assert [p.read_bytes() for p in paths] == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [p.name for p in paths]


def test_error_rates_at_the_level() -> None:
    rng = np.random.default_rng(0)
    null = rng.standard_t(4, size=(1500, 10))
    rejected = np.mean([signed_rank_test(d).p < 0.05 for d in null])
    # exact attainable level at n = 10: 2 · P(V ≤ 8) = 0.0488; three standard errors are 0.017
    assert rejected == pytest.approx(0.0488, abs=0.017)
    covered = np.mean([low <= 0 <= high for _, low, high in map(hodges_lehmann, null)])
    assert covered == pytest.approx(0.9512, abs=0.017)
    # at the edge of the margin equivalence is claimed at most at the level
    edge = rng.normal(0.5, 1, size=(300, 10))
    assert np.mean([equivalence(d, 0.5).p < 0.05 for d in edge]) < 0.09
    assert np.mean([noninferiority(-d, 0.5, 0.05).p < 0.05 for d in edge]) == pytest.approx(0.05, abs=0.038)


def test_the_benchmark_shows_why_seeds_are_no_cases() -> None:
    benchmark = load_script("benchmarks/error_rates.py")
    for sample in benchmark.DISTRIBUTIONS.values():
        d = sample(np.random.default_rng(0), (100_000,))
        assert (d.mean(), d.std()) == pytest.approx((0, 1), abs=0.02)
    shares = benchmark.simulate("normal", 10, 60)
    assert shares["Wilcoxon"] <= 0.15
    assert shares["any of 3 (Holm)"] <= 0.15
    assert shares["Hodges–Lehmann covers"] >= 0.85
    assert shares["Wilcoxon, seeds as cases"] >= 0.15


def test_sign_flips_of_a_mean_that_is_zero_but_for_rounding() -> None:
    d = [0.1, -0.3, -0.2, 0.6, -0.2, 0.9, -0.5, -0.4]
    assert sign_flip_test(d).p == sign_flip_test([round(10 * x) for x in d]).p == 1.0


def test_one_loss_alone_has_a_row_and_no_test() -> None:
    table = pd.DataFrame({"loss": "ce", "seed": 0, "case": ["a", "b"], "dice": [0.8, 0.9]})
    row = summary_table(table, reference="ce", metrics=["dice"]).to_dict("records")
    assert len(row) == 1
    assert row[0]["dice_mean"] == pytest.approx(0.85)
    assert np.isnan(row[0]["dice_p_holm"])


def test_the_bootstrap_interval_is_corrected_for_skewness() -> None:
    d = np.random.default_rng(0).exponential(size=25) ** 2
    options = {"n_resamples": 9999, "rng": np.random.default_rng(0)}
    expected = stats.bootstrap((d,), np.mean, method="BCa", **options).confidence_interval
    assert bootstrap_mean(d)[1:] == (expected.low, expected.high)
    options["rng"] = np.random.default_rng(0)
    plain = stats.bootstrap((d,), np.mean, method="percentile", **options).confidence_interval
    assert bootstrap_mean(d).high > 1.05 * plain.high


def test_sign_flips_of_fourteen_pairs_are_enumerated() -> None:
    for n in (14, 16):
        assert sign_flip_test(np.arange(n) + 1).p == 2 / 2**n
    assert sign_flip_test(np.arange(1, 21)).p == 2e-5  # twice the least share of 99,999 drawn patterns, not 2 / 2^20


def all_pairwise_means(d: np.ndarray) -> np.ndarray:
    i, j = np.triu_indices(len(d))
    return np.sort((d[i] + d[j]) / 2)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e3, 1e3) | st.integers(-3, 3).map(float), min_size=1, max_size=25), st.sampled_from([1, 10**6])
)
def test_pairwise_means_are_selected_exactly(values: list[float], sorted_at_a_time: int) -> None:
    means = all_pairwise_means(np.array(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paired, "_SORTED", sorted_at_a_time)
        found = paired._pairwise_means(np.array(values), range(1, len(means) + 1))
        assert found == means.tolist()
        assert hodges_lehmann(values).value == np.median(means)


@pytest.mark.parametrize("digits", [15, 3])
def test_hodges_lehmann_of_many_differences_is_a_pairwise_mean(digits: int) -> None:
    d = np.random.default_rng(0).normal(0.1, 1, 3000).round(digits)
    means = all_pairwise_means(d)
    value, low, high = hodges_lehmann(d)
    assert value == np.median(means)
    # the interval inverts the normal approximation: p is 0.05 at its ends
    for end, inside in ((low, 0.001), (high, -0.001)):
        assert signed_rank_test(d - end - inside).p > 0.05 > signed_rank_test(d - end + inside).p


def test_many_cases_by_the_normal_approximation(monkeypatch: pytest.MonkeyPatch) -> None:
    d = np.random.default_rng(0).exponential(size=100) - 0.9
    drawn = [sign_flip_test(d, alternative).p for alternative in ("two-sided", "less", "greater")]
    monkeypatch.setattr(paired, "EXACT_LIMIT", 99)
    normal = [sign_flip_test(d, alternative).p for alternative in ("two-sided", "less", "greater")]
    assert normal == pytest.approx(drawn, abs=0.01)
    assert normal != drawn
    wide = np.random.default_rng(0).exponential(size=5001)
    assert bootstrap_mean(wide)[1:] == pytest.approx(bootstrap_mean(wide[:5000])[1:], rel=0.01)


def test_a_hundred_thousand_cases_need_no_matrix() -> None:
    d = np.random.default_rng(0).normal(0.01, 1, 100_000)
    tracemalloc.start()
    value, low, high = hodges_lehmann(d)
    bootstrap_mean(d)
    sign_flip_test(d)
    assert tracemalloc.get_traced_memory()[1] < 3e8  # the matrix has 4e10 bytes
    tracemalloc.stop()
    assert low < value < high
    assert value == pytest.approx(0.01, abs=0.01)
