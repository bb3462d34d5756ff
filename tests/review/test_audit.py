"""The audit of reported numbers: the abstract's own, published examples, and brute force over all small samples."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from shapeloss.replication.paper import read_paper
from shapeloss.review.audit import grim as granular
from shapeloss.review.audit.consistency import compare_sources, required_correlation
from shapeloss.review.audit.dice_vs_boundary import check_relation, mean_limits, measure_relation, measure_voxel_steps
from shapeloss.review.audit.grim import find_sample, grim, grimmer, targets
from shapeloss.review.audit.sd_bounds import extreme_value_limits, largest_sd, read_printed
from shapeloss.review.audit.summary import audit_csv, audit_summary, audit_table

PAPER_FILE = Path(__file__).parents[2] / "reproduce" / "paper.yaml"


@pytest.fixture(scope="module")
def reported() -> pd.DataFrame:
    return read_paper(PAPER_FILE).results_table()


# --- numbers as printed -------------------------------------------------------------------------------------------


def test_printed_numbers() -> None:
    assert read_printed("0.96") == (0.96, 0.955, 0.965, 2)
    assert read_printed("0.10") == (0.1, 0.095, 0.105, 2)
    assert read_printed(0.1) == (0.1, 0.05, 0.15, 1)
    assert read_printed(0.1, decimals=2) == (0.1, 0.095, 0.105, 2)
    assert read_printed("12") == (12, 11.5, 12.5, 0)
    assert read_printed("0.96", rounding="truncated") == (0.96, 0.96, 0.97, 2)
    for wrong in ("0,96", "", "nan", None):
        with pytest.raises(ValueError, match="must be a decimal number"):
            read_printed(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rounding must be"):
        read_printed("1", rounding="up")  # type: ignore[arg-type]


def test_numbers_have_as_many_decimals_as_the_longer() -> None:
    audit = audit_summary(0.95, 0.1, 10, 0, 1)
    assert (audit.sd.low, audit.sd.high) == (0.095, 0.105)


# --- the abstract's global Dice -----------------------------------------------------------------------------------


def test_one_near_failure_beside_nine_near_perfect_ones() -> None:
    audit = audit_summary("0.96", "0.12", 10, 0, 1)
    assert audit.possible
    assert audit.side == "low"
    # by hand, mean 0.955 and SD 0.115: with the deficits c and 0.45 − c, c² + (0.45 − c)² = 9 · 0.115² + 0.45² / 10
    c = (0.9 + np.sqrt(0.81 - 8 * (0.45**2 - 9 * 0.115**2 - 0.45**2 / 10))) / 4
    assert audit.extreme_near == pytest.approx(1 - c)
    assert audit.others == pytest.approx(1 - (0.45 - c) / 9)
    assert audit.extreme_near < 0.64
    assert audit.others > 0.99
    assert audit.implication == (
        "one volume is at most 0.64, and the other nine average at least 0.99; that one is at least 0.59"
    )
    # Samuelson: no value lies farther from the mean than SD · 9 / √10
    assert audit.extreme_far == pytest.approx(0.955 - 0.125 * 9 / np.sqrt(10))
    for sample in (audit.mildest, *audit.examples):
        x = np.array(sample)
        assert len(x) == 10
        assert x.min() >= 0
        assert x.max() <= 1
        assert 0.955 - 1e-9 <= x.mean() <= 0.965 + 1e-9
        assert 0.115 - 1e-9 <= x.std(ddof=1) <= 0.125 + 1e-9
    assert min(audit.mildest) == pytest.approx(audit.extreme_near)
    assert len(audit.examples) == 2
    assert "One volume is at most 0.64, and the other nine average at least 0.99" in audit.to_text()


def test_largest_sd_of_the_abstract() -> None:
    # nine at 1 and one at 0.55, or one at 0.65
    assert largest_sd(0.955, 0.955, 10, 0, 1) == pytest.approx(0.45 / np.sqrt(10))
    assert largest_sd(0.965, 0.965, 10, 0, 1) == pytest.approx(0.35 / np.sqrt(10))
    assert largest_sd(0.955, 0.965, 10, 0, 1) == pytest.approx(0.45 / np.sqrt(10))
    assert audit_summary("0.96", "0.14", 10, 0, 1).possible
    impossible = audit_summary("0.96", "0.15", 10, 0, 1)
    assert not impossible.possible
    assert impossible.to_text().endswith(
        "impossible. The largest SD that such values with this mean can have is 0.142."
    )
    # with n in the denominator the largest one is 0.135, and 0.145 is too much
    assert audit_summary("0.96", "0.145", 10, 0, 1).possible is False
    assert audit_summary("0.96", "0.142", 10, 0, 1).possible is True
    assert audit_summary("0.96", "0.142", 10, 0, 1, sd_kind="population").possible is False


def test_rounding_decides() -> None:
    # exactly 0.96 allows 0.1265 at most; what rounds to it allows 0.1423
    assert largest_sd(0.96, 0.96, 10, 0, 1) == pytest.approx(0.1265, abs=5e-5)
    assert audit_summary("0.96", "0.135", 10, 0, 1).possible
    assert not audit_summary("0.9600", "0.1350", 10, 0, 1).possible
    assert not audit_summary("0.96", "0.135", 10, 0, 1, rounding="truncated").possible


def test_per_structure_instead_of_per_volume() -> None:
    audit = audit_summary("0.96", "0.12", 10, 0, 1, values_per_case=3, unit="structure")
    assert audit.n == 30
    assert audit.extreme_near == pytest.approx(0.6674, abs=5e-5)
    assert "One structure is at most 0.67, and the other 29 average at least 0.96" in audit.to_text()


def test_percent_and_the_second_source() -> None:
    audit = audit_summary("96.34", "1.21", 10, 0, 100)
    assert audit.possible
    assert audit.share_of_largest == pytest.approx(0.104, abs=0.001)
    assert "average" not in audit.to_text()  # true, but it says nothing at a tenth of the largest SD


def test_mirrored_bounds_give_the_mirrored_answer() -> None:
    low, high = audit_summary("0.96", "0.12", 10, 0, 1), audit_summary("0.04", "0.12", 10, 0, 1)
    assert high.side == "high"
    assert high.extreme_near == pytest.approx(1 - low.extreme_near)
    assert high.others == pytest.approx(1 - low.others)
    assert high.implication.startswith("one volume is at least 0.36, and the other nine average at most 0.01")
    one_sided = audit_summary("0.04", "0.12", 10, low=0)
    assert one_sided.extreme_near == pytest.approx(high.extreme_near)


def test_mean_outside_the_bounds() -> None:
    audit = audit_summary("1.02", "0.01", 10, 0, 1)
    assert not audit.possible
    assert "The mean lies outside [0, 1]" in audit.to_text()
    assert audit_summary("1.00", "0.00", 10, 0, 1).possible


def test_without_bounds_everything_is_possible() -> None:
    audit = audit_summary("5.0", "100.0", 3)
    assert audit.possible
    assert audit.side is None
    assert audit.implication == ""
    assert len(audit.examples) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 1}, "at least 2 values"),
        ({"n": 2.5}, "at least 2 values"),
        ({"sd": "-0.1"}, "sd must not be negative"),
        ({"low": 1, "high": 0}, "low must be below high"),
        ({"step": 0}, "step must be positive"),
        ({"sd_kind": "both"}, "sd_kind must be"),
        ({"mean": "high"}, "must be a decimal number"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        audit_summary(**{"mean": "0.5", "sd": "0.1", "n": 10} | arguments)


# --- brute force --------------------------------------------------------------------------------------------------

SAMPLES = {2: 400, 3: 120, 4: 50}  # n: parts of [0, 1]


@cache
def all_samples(n: int) -> np.ndarray:
    return np.array(list(itertools.combinations_with_replacement(range(SAMPLES[n] + 1), n))) / SAMPLES[n]


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(sorted(SAMPLES)), st.floats(0, 1), st.sampled_from([0.02, 0.1]), st.floats(0, 0.6),
    st.sampled_from([0.02, 0.1]), st.sampled_from([0, 1]),
)  # fmt: skip
def test_limits_against_all_samples(n: int, mean: float, wide: float, sd: float, high: float, ddof: int) -> None:
    x = all_samples(n)
    means, sds = x.mean(1), x.std(1, ddof=ddof)
    m = (max(mean - wide, 0.0), min(mean + wide, 1.0))
    inside = (means >= m[0]) & (means <= m[1])
    largest = float(largest_sd(*m, n, 0, 1, ddof))
    grid = 2.0 / SAMPLES[n]  # how far a sample can be from the nearest one on the grid
    assert largest - grid <= sds[inside].max() <= largest + 1e-9
    limits = extreme_value_limits(
        n * (1 - m[1]), n * (1 - m[0]), (n - ddof) * sd**2, (n - ddof) * (sd + high) ** 2, n, 1.0
    )
    inside &= (sds >= sd) & (sds <= sd + high)
    if limits is None:
        assert not inside.any()
        assert largest < sd
        return
    assert largest >= sd * (1 - 1e-6)
    assume(inside.any())
    y = 1 - x[inside]
    farthest = y.max(1)
    others = (y.sum(1) - farthest) / (n - 1)
    assert farthest.min() >= limits.farthest_at_least - 1e-9
    assert farthest.max() <= limits.farthest_at_most + 1e-9
    assert others.max() <= limits.others_at_most + 1e-9
    if sds[inside].max() > sd + grid:  # the grid is fine enough to come near the limits
        assert farthest.min() <= limits.farthest_at_least + 2 * grid
        assert others.max() >= limits.others_at_most - 2 * grid


def test_largest_sd_is_vectorised() -> None:
    got = largest_sd(
        [0.5, 0.955, 2.0, 5.0], [0.5, 0.965, 2.1, 5.0], [4, 10, 5, 3], [0, 0, 0, -np.inf], [1, 1, 1, np.inf]
    )
    np.testing.assert_allclose(got, [np.sqrt(1 / 3), 0.1423, np.nan, np.inf], atol=5e-5)
    assert largest_sd(5, 5, 4, 2, np.inf) == pytest.approx(np.std([2, 2, 2, 14], ddof=1))


@pytest.mark.parametrize("random_search", [True, False])
def test_every_small_integer_sample_and_no_other(random_search: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not random_search:
        monkeypatch.setattr(granular, "sprite", lambda *_: None)
    rng = np.random.default_rng(0)
    for n in (2, 3, 4):
        x = np.array(list(itertools.combinations_with_replacement(range(1, 6), n)))
        means, sds = x.mean(1), x.std(1, ddof=1)
        for m, s in itertools.product(range(100, 501, 13), range(0, 260, 9)):
            mean, sd = ((m - 0.5) / 100, (m + 0.5) / 100), (max(0, s - 0.5) / 100, (s + 0.5) / 100)
            exists = bool(((means >= mean[0]) & (means <= mean[1]) & (sds >= sd[0]) & (sds <= sd[1])).any())
            found, certain = find_sample(targets(mean, sd, n), n, 1, 5, rng)
            assert certain
            assert (found is not None) == exists
            if exists:
                assert grimmer(mean, sd, n)
                assert mean[0] - 1e-9 <= found.mean() <= mean[1] + 1e-9
                assert sd[0] - 1e-9 <= found.std(ddof=1) <= sd[1] + 1e-9


def test_what_only_the_exact_search_finds() -> None:
    # 1, 1, 5, 5 is the one sample of four values from 1 to 5 with this SD; with a mean of 3.25 there is none,
    # though GRIM and GRIMMER pass: T = 13 and Q = 53
    assert audit_summary("3.00", "2.31", 4, 1, 5, step=1).examples == ((1, 1, 5, 5),)
    assert grim(3.245, 3.255, 4)
    assert grimmer((3.245, 3.255), (1.885, 1.895), 4)
    brute = [x for x in itertools.product(range(1, 6), repeat=4) if sum(x) == 13 and sum(v * v for v in x) == 53]
    assert not brute
    assert not audit_summary("3.25", "1.89", 4, 1, 5, step=1).possible


def test_what_cannot_be_decided_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(granular, "sprite", lambda *_: None)
    audit = audit_summary("50.0", "10.0", 200, 0, 100, step=1)
    assert audit.possible
    assert "not ruled out. No sample was found" in audit.to_text()
    assert audit.examples == ()


# --- GRIM, GRIMMER, SPRITE: published examples --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "n", "consistent"),
    [
        ("5.19", 28, False),  # Brown & Heathers 2017
        ("3.48", 20, False),  # a die rolled 20 times
        ("3.45", 10, False),  # Allard 2018
        ("8.96", 30, False),  # the Apgar scores of INSPECT-SR's example
        ("9.96", 30, False),
        ("9.93", 30, True),
        ("7.22", 32, True),  # pigs1 of R's scrutiny, whose grim_map gives these answers
        ("4.74", 25, False),
        ("5.23", 29, False),
        ("2.57", 24, False),
    ],
)
def test_grim_examples(mean: str, n: int, consistent: bool) -> None:
    printed = read_printed(mean)
    assert bool(grim(printed.low, printed.high, n)) == consistent
    assert audit_summary(mean, "1.00", n, step=1).to_text().endswith("(GRIM).") != consistent


def test_grim_is_vectorised_and_knows_items() -> None:
    assert grim([5.185, 5.175], [5.195, 5.185], 28).tolist() == [False, True]
    # two items per person: 5.20 is 145.5 / 28, and no whole number over 28
    assert not grim(5.1951, 5.205, 28)
    assert grim(5.1951, 5.205, 28, 0.5)
    assert not grim(0.145, 0.155, 1, 0.1)
    assert grim(0.145, 0.155, 1, 0.1, offset=0.05)


def test_grimmer_examples() -> None:
    # scrutiny's documentation; INSPECT-SR's example
    assert not audit_summary("7.3", "2.51", 12, step=1).possible
    apgar = audit_summary("9.93", "0.18", 30, 0, 10, step=1)
    assert not apgar.possible
    assert apgar.reason.endswith("(GRIMMER).")
    # 28 nines and tens: two nines give 0.25
    assert audit_summary("9.93", "0.25", 30, 0, 10, step=1).possible


def test_grimmer_parity_by_hand() -> None:
    # n = 4, mean 2.5: T = 10 and Q must be even; Q = 27 is SD 0.82 and Q = 26 or 28 are 0.58 and 1.00
    assert not grimmer((2.495, 2.505), (0.81, 0.82), 4)
    assert grimmer((2.495, 2.505), (0.575, 0.585), 4)
    assert grimmer((2.495, 2.505), (0.995, 1.005), 4)


def test_sprite_examples() -> None:
    # the carrots that children were said to eat: 45 of them, 19.4 ± 19.9, which needs some very hungry ones
    carrots = audit_summary("19.4", "19.9", 45, 0, step=1)
    assert carrots.possible
    x = np.array(carrots.examples[0])
    assert (len(x), x.min() >= 0, np.all(x == x.round())) == (45, True, True)
    assert (f"{x.mean():.1f}", f"{x.std(ddof=1):.1f}") == ("19.4", "19.9")
    # Likert values, the example of a TypeScript implementation
    likert = np.array(audit_summary("3.2", "1.47", 20, 1, 5, step=1).examples[0])
    assert (f"{likert.mean():.1f}", f"{likert.std(ddof=1):.2f}") == ("3.2", "1.47")


def test_grid_that_does_not_start_at_zero() -> None:
    audit = audit_summary("0.50", "0.12", 4, 0.3, 0.7, step=0.1)
    assert set(np.round(audit.examples[0], 12)) <= {0.3, 0.4, 0.5, 0.6, 0.7}
    assert audit.mildest == ()


# --- pairs of results ---------------------------------------------------------------------------------------------


def test_correlation_that_significance_needs() -> None:
    needed = required_correlation(("0.29", "0.04"), ("0.27", "0.05"), 10)
    s_d = 0.02 * np.sqrt(10) / stats.t.ppf(0.975, 9)
    assert needed.printed == pytest.approx((0.04**2 + 0.05**2 - s_d**2) / (2 * 0.04 * 0.05))
    assert round(needed.printed, 2) == 0.83
    assert needed.least < needed.printed < 1 < needed.most
    assert (
        "r ≥ 0.83 (given what the rounding leaves open, anything from 0.47 to none that suffices)" in needed.to_text()
    )


def test_that_correlation_is_just_enough() -> None:
    r = required_correlation(("0.29", "0.04"), ("0.27", "0.05"), 10).printed
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, 10))
    z = (z - z.mean(1, keepdims=True)) / z.std(1, ddof=1, keepdims=True)
    z[1] -= z[0] * (z[0] @ z[1]) / 9
    z[1] /= z[1].std(ddof=1)
    first = 0.29 + 0.04 * z[0]
    for correlation, significant in ((r + 0.01, True), (r - 0.01, False)):
        second = 0.27 + 0.05 * (correlation * z[0] + np.sqrt(1 - correlation**2) * z[1])
        assert (second.mean(), second.std(ddof=1)) == pytest.approx((0.27, 0.05))
        assert (stats.ttest_rel(first, second).pvalue < 0.05) == significant


def test_correlation_over_the_rounding_intervals() -> None:
    first, second = ("0.29", "0.04"), ("0.26", "0.03")
    needed = required_correlation(first, second, 10)
    grids = [np.linspace(read_printed(x).low, read_printed(x).high, 21) for x in (*first, *second)]
    m1, s1, m2, s2 = np.meshgrid(*grids, indexing="ij")
    t = stats.t.ppf(0.975, 9)
    r = (s1**2 + s2**2 - 10 * (m1 - m2) ** 2 / t**2) / (2 * s1 * s2)
    assert needed.least == pytest.approx(r.min(), abs=2e-3)
    assert needed.least <= r.min() + 1e-12
    assert needed.most == pytest.approx(r.max())


def test_correlation_at_its_ends() -> None:
    assert "with no correlation" in required_correlation(("0.50", "0.04"), ("0.50", "0.09"), 10, 1e-6).to_text()
    assert "whatever the correlation" in required_correlation(("0.90", "0.01"), ("0.10", "0.01"), 10).to_text()
    assert not required_correlation(("0.501", "0.010"), ("0.500", "0.090"), 3).possible
    with pytest.raises(ValueError, match="above zero after rounding"):
        required_correlation(("0.5", "0.0"), ("0.4", "0.1"), 10)
    with pytest.raises(ValueError, match="n must be at least 2"):
        required_correlation(("0.5", "0.1"), ("0.4", "0.1"), 1)


def test_the_two_sources_differ_by_a_factor_of_ten(reported: pd.DataFrame) -> None:
    table = compare_sources(reported).set_index(["metric", "quantity", "loss"]).sort_index()
    dice = table.loc["dice", "sd"]
    assert dice["shift"].to_dict() == {"dice": 1, "dpce": 1, "focal": 1, "pcol": 0}
    assert not dice["agree"].any()
    assert dice.loc["pcol", "ratio"] == pytest.approx(0.11 / 0.013)
    assert (dice.loc["pcol", "ratio_low"], dice.loc["pcol", "ratio_high"]) == pytest.approx(
        (0.105 / 0.01305, 0.115 / 0.01295)
    )
    assert dice.loc["dpce", "text"].endswith("as if a decimal point had slipped.")
    assert table.loc["boundary_dice_in_plane", "agree"].all()
    assert table.loc[("boundary_dice_in_plane", "sd"), "shift"].eq(0).all()
    # 95.96 % printed as 0.95: truncated, not rounded
    assert not table.loc[("dice", "mean", "pcol"), "agree"]


def test_sources_in_one_unit_need_no_scale() -> None:
    rows = [{"x": 1, "source": s, "mean": "2.0", "sd": v} for s, v in (("A", "0.5"), ("B", "0.0"), ("C", "0.05"))]
    table = compare_sources(pd.DataFrame(rows), by=["x"]).set_index(["source_1", "source_2", "quantity"])
    assert table.loc[("A", "C", "sd"), "shift"] == 1
    assert not table.loc[("A", "B", "sd"), "agree"]
    with pytest.raises(ValueError, match="lacks the columns"):
        compare_sources(pd.DataFrame(rows))


# --- tables -------------------------------------------------------------------------------------------------------


def test_table_of_many_rows(reported: pd.DataFrame) -> None:
    audited = audit_table(reported)
    assert audited["possible"].all()
    assert len(audited) == 16
    assert (audited["problem"] == "").all()
    row = audited[(audited["source"] == "A") & (audited["metric"] == "dice") & (audited["loss"] == "dice")].iloc[0]
    assert row["extreme_near"] == audit_summary("0.96", "0.12", 10, 0, 1).extreme_near
    second = audited[(audited["source"] == "B") & (audited["metric"] == "dice")]
    assert (second["share_of_largest"] < 0.15).all()


def test_table_from_csv_with_faults(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "study,mean,sd,n,low,high,step\na,0.95,0.10,10,0,1,\nb,x,0.1,10,,,\nc,5.19,1.10,28.0,1,7,1\nd,1,1,2.5,,,\n"
    )
    audited = audit_table(pd.read_csv(tmp_path / "t.csv", dtype=str))
    assert audited["study"].tolist() == list("abcd")
    assert audited["possible"].tolist()[0] is True
    assert audited["possible"].tolist()[2] is False
    assert "got 'x'" in audited["problem"][1]
    assert "n must be a whole number" in audited["problem"][3]
    assert audited["largest_sd"][0] == pytest.approx(0.1739, abs=5e-5)  # of 0.10, not of 0.1
    assert audited["share_of_largest"][0] == pytest.approx(0.095 / 0.1739, abs=1e-3)
    with pytest.raises(ValueError, match=r"lacks the columns n; it has"):
        audit_table(audited.drop(columns="n"))


def test_large_and_fine_numbers_do_not_hang() -> None:
    fine = audit_summary("5", "0.123456", 10)
    assert len(fine.examples) == 2
    many = audit_summary("0.97", "0.02", 1_000_000, 0, 1)
    assert many.possible
    assert many.examples == many.mildest == ()
    assert "No example was searched for" in many.to_text()
    some = audit_summary("0.97", "0.02", 20_000, 0, 1)
    assert some.extreme_near < 0.97
    assert "No example was searched for: there are too many values." in some.to_text()
    assert audit_summary("5", "1", 10**11, step=1).to_text().count("not ruled out") == 1
    assert len(audit_summary("5", "1.23", 10, 0, 10, step=1e-7).examples) == 1
    table = pd.DataFrame({
        "mean": ["0.5", "1e300", "0.5", "0.96"], "sd": ["0.1", "1", "0.1", "0.12"],
        "n": ["99999999999", "10", "9" * 300, "10"], "low": "0", "high": ["1", "", "1", "1"],
    })  # fmt: skip
    audited = audit_table(table, examples=2)
    assert audited["possible"].tolist()[::3] == [True, True]
    assert (audited["problem"] != "").tolist() == [False, True, True, False]


def test_totals_are_thinned_only_where_there_are_very_many() -> None:
    assert [t.total for t in targets((4.5, 5.5), (0, 1), 10)] == list(range(45, 56))
    thinned = [t.total for t in targets((4.5, 5.5), (0, 1), 10, 1e-7)]
    assert len(thinned) < 2 * granular.MOST_TOTALS
    assert {t % 2 for t in thinned} == {0, 1}
    assert grimmer((4.5, 5.5), (0.0, 0.0), 10, 1e-7)  # not ruled out by some of them


def test_columns_named_like_answers_are_kept_apart() -> None:
    table = pd.DataFrame({"side": ["left"], "mean": ["0.9"], "sd": ["0.1"], "n": ["10"], "values_per_case": ["3.0"]})
    audited = audit_table(table)
    assert audited.columns.is_unique
    assert audited["side_given"].tolist() == ["left"]
    assert audited["problem"].tolist() == [""]
    again = audit_table(audited)
    assert again.columns.is_unique
    assert "values_per_case must be a whole number" in audit_table(table.assign(values_per_case="x"))["problem"][0]
    with pytest.raises(ValueError, match="no such columns"):
        audit_table(table, defaults={"seed": 1})


# --- Dice with boundary Dice --------------------------------------------------------------------------------------


def ball(
    shape: tuple[int, int, int] = (24, 40, 40), spacing: tuple[float, float, float] = (1.4, 0.7, 0.7)
) -> np.ndarray:
    """Signed distances to two balls of 8 and 5 mm."""
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return np.stack([np.sqrt(x**2 + (y - shift) ** 2 + z**2) - r for r, shift in ((8, -4), (5, 9))])


@pytest.fixture(scope="module")
def relation() -> pd.DataFrame:
    displacements = [0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.7, 1.0, 2.0]
    return measure_relation(ball(), (1.4, 0.7, 0.7), {1: "large", 2: "small"}, displacements, (0.0, 3.0))


def test_relation_is_measured(relation: pd.DataFrame) -> None:
    assert len(relation) == 9 * 2 * 4
    assert set(relation["structure"]) == {"large", "small", "mean", "merged"}
    still = relation[relation["displacement_mm"] == 0]
    assert (still[["dice", "boundary_dice"]] == 1).all(axis=None)
    for _, group in relation.groupby(["structure", "correlation_mm"]):
        assert group["dice"].is_monotonic_decreasing
        assert group["boundary_dice"].is_monotonic_decreasing
        assert (group["boundary_dice"].iloc[1:-1] < group["dice"].iloc[1:-1]).all()
    again = measure_relation(ball(), (1.4, 0.7, 0.7), {1: "large", 2: "small"}, [0.0, 0.05], (0.0,))
    first = relation[(relation["correlation_mm"] == 0) & (relation["displacement_mm"] < 0.1)]
    pd.testing.assert_frame_equal(again, first.reset_index(drop=True))
    with pytest.raises(ValueError, match="distances must be"):
        measure_relation(ball(), (1.4, 0.7, 0.7), {1: "large"}, [0.1])


def test_mean_limits_by_hand() -> None:
    points = np.array([[0.8, 0.1], [0.8, 0.2], [0.9, 0.3], [0.9, 0.5]])
    # at 0.85, halfway between measured points; with 1 allowed, the upper edge runs from (0.9, 0.5) to (0.8, 0.2)
    assert mean_limits(points, (0.85, 0.85), (0.8, 0.9)) == pytest.approx((0.2, 0.35))
    # cases up to 1: one at (1, 1) beside some at (0.8, 0.2) lies above that edge
    assert mean_limits(points, (0.85, 0.85), (0.8, 1.0)) == pytest.approx((0.2, 0.4))
    assert mean_limits(points, (0.80, 0.90), (0.8, 0.9)) == pytest.approx((0.1, 0.5))
    assert np.isnan(mean_limits(points, (0.7, 0.7), (0.6, 0.9))).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=12))
def test_averages_stay_within_the_mean_limits(chosen: list[int]) -> None:
    rng = np.random.default_rng(1)
    points = np.column_stack([rng.uniform(0.7, 1, 9), rng.uniform(0, 1, 9)])
    cases = points[chosen]
    mean = cases.mean(0)
    low, high = mean_limits(points, (mean[0], mean[0]), (cases[:, 0].min(), cases[:, 0].max()))
    assert low - 1e-9 <= mean[1] <= high + 1e-9


def test_the_others_alone_decide_by_hand() -> None:
    points = [(0.5, 0.0), (0.9, 0.02), (0.95, 0.05), (0.98, 0.3), (0.99, 0.6)]
    relation = pd.DataFrame(points, columns=["dice", "boundary_dice"]).assign(structure="bone")
    wide = audit_summary("0.96", "0.12", 10, 0, 1)
    check = check_relation(wide, audit_summary("0.29", "0.04", 10, 0, 1), relation)
    # nine volumes at 0.9903 or more, between the points at 0.99 and 1; the tenth adds nothing
    assert check.limits["low"][0] == pytest.approx(0.9 * (0.6 + 40 * (wide.others - 0.99)))
    # without them the lower edge at 0.955 would allow 0.09
    assert mean_limits(np.array(points), (0.955, 0.965), (0.59, 1.0))[0] == pytest.approx(0.05 + 0.005 * 25 / 3)
    assert check.seen is False


def test_each_structure_is_judged_by_itself() -> None:
    bones = {"femur": 0.2, "mean": 0.4, "merged": 0.7}
    points = [(d, b, bone) for bone, b in bones.items() for d in (0.9, 0.96)]
    table = pd.DataFrame(points, columns=["dice", "boundary_dice", "structure"])
    check = check_relation(audit_summary("0.950", "0.001", 10, 0, 1), audit_summary("0.2", "0.1", 10, 0, 1), table)
    assert check.limits["seen"].tolist() == [True, False, False]
    assert check.seen is True
    assert (
        "lies within that for the femur, and was not seen on the phantom for the mean of the bones" in check.to_text()
    )
    beyond = pd.concat([table, table.iloc[:2].assign(structure="patella", dice=0.99)])
    check = check_relation(audit_summary("0.950", "0.001", 10, 0, 1), audit_summary("0.2", "0.1", 10, 0, 1), beyond)
    assert check.limits["seen"].tolist() == [True, False, False, None]
    assert "In 1 other reading(s)" in check.to_text()


def test_even_displacements_leave_the_least_boundary_dice(relation: pd.DataFrame) -> None:
    names = {1: "large", 2: "small"}
    even = measure_relation(ball(), (1.4, 0.7, 0.7), names, [0.45, -0.45], (np.inf,))
    assert even["correlation_mm"].eq(np.inf).all()
    random = relation[(relation["structure"] == "large") & (relation["displacement_mm"] > 0)]
    inwards = even[even["structure"] == "large"].iloc[0]
    assert inwards["boundary_dice"] < random.loc[random["dice"] >= inwards["dice"], "boundary_dice"].min() / 2
    steps = measure_voxel_steps(ball(), (1.4, 0.7, 0.7), names)
    assert steps["displacement_mm"].tolist() == [0.7] * 4 + [-0.7] * 4
    assert (steps["boundary_dice"] < 0.05).all()
    assert (steps["dice"] < 1).all()


def test_dice_and_boundary_dice_together(relation: pd.DataFrame) -> None:
    wide, narrow = audit_summary("0.96", "0.12", 10, 0, 1), audit_summary("96.4", "0.8", 10, 0, 100)
    low, fitting = audit_summary("0.29", "0.04", 10, 0, 1), audit_summary("75", "4", 10, 0, 100)
    # random displacements never leave a boundary Dice of 0.29 at 0.99, which nine volumes have
    check = check_relation(wide, low, relation)
    assert check.seen is False
    assert check.limits["low"].min() > 0.5
    assert "was not seen on the phantom in any reading, which does not show that it cannot be" in check.to_text()
    assert "cannot hold" not in check.to_text()
    assert check_relation(narrow, fitting, relation).seen is True
    far = check_relation(audit_summary("0.20", "0.01", 10, 0, 1), low, relation)
    assert far.seen is None
    assert "nothing can be said" in far.to_text()
    with pytest.raises(ValueError, match="must be possible and both must have bounds"):
        check_relation(audit_summary("0.96", "0.15", 10, 0, 1), low, relation)
    with pytest.raises(ValueError, match="relation lacks"):
        check_relation(wide, low, relation.drop(columns="structure"))


def test_the_extreme_value_lies_away_from_the_bound_near_the_mean() -> None:
    high, low = (audit_summary(mean, "0.12", 10, 0, 1, examples=0) for mean in ("0.96", "0.04"))
    assert (high.side, low.side) == ("low", "high")
    assert high.extreme_near < 0.7 < high.others
    assert low.others < 0.3 < low.extreme_near
    assert "one volume is at most 0.64" in high.implication
    assert "one volume is at least 0.36" in low.implication
    assert "values at least 2, sample SD" in audit_summary("5.0", "1.0", 4, low=2, examples=0).to_text()
    assert "values at most 9, sample SD" in audit_summary("5.0", "1.0", 4, high=9, examples=0).to_text()


def test_the_largest_sd_is_that_of_the_multiple_in_the_middle() -> None:
    # four values in [0, 1] with a mean of 0.1 to 0.9: two at each bound, SD √(4 · 0.25 / 3); with one at a bound 0.5
    assert float(largest_sd(0.1, 0.9, 4, 0, 1)) == pytest.approx(np.sqrt(1 / 3))
    assert float(largest_sd(0.1, 0.4, 4, 0, 1)) == pytest.approx(0.5)  # 0, 0, 0, 1


def test_no_distance_exceeds_their_total() -> None:
    limits = extreme_value_limits(1.0, 1.0, 0.5, 100.0, 3, np.inf)
    assert limits is not None
    assert limits.farthest_at_most == pytest.approx(1.0)


def test_the_population_sd_on_a_grid() -> None:
    # 0 and 1: population SD 0.5, sample SD 0.71
    options = {"low": 0, "high": 1, "step": 1}
    for sd, kind, possible in (
        ("0.50", "population", True),
        ("0.71", "population", False),
        ("0.71", "sample", True),
        ("0.50", "sample", False),
    ):
        assert audit_summary("0.5", sd, 2, sd_kind=kind, **options).possible is possible
    # larger bounds, so that the grid decides and not the largest SD
    wide = audit_summary("0.5", "0.50", 2, -5, 5, step=1, sd_kind="population")
    assert wide.examples == ((0.0, 1.0),)
    assert not audit_summary("0.5", "0.50", 2, -5, 5, step=1).possible


def test_the_grid_starts_at_the_lower_bound() -> None:
    found = audit_summary("1.0", "0.71", 2, 0.5, 3, step=1)  # 0.5 and 1.5; of whole numbers 1, 1 and 0, 2 only
    assert found.possible
    assert found.examples == ((0.5, 1.5),)


def test_large_tables_are_audited_without_examples_unless_asked(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("mean,sd,n\n" + "0.5,0.1,5\n" * 1001)
    notes: list[str] = []
    assert "For example" not in audit_csv(tmp_path / "t.csv", notes=notes)["text"][0]
    assert notes == [f"{tmp_path / 't.csv'}: 1001 rows: samples are not searched for; --examples 2 does so"]
    (tmp_path / "t.csv").write_text("mean,sd,n\n0.5,0.1,5\n")
    assert "For example" in audit_csv(tmp_path / "t.csv")["text"].iloc[0]
    (tmp_path / "t.csv").write_text("mean,sd,n,low\n0.5,0.1,5,NA\n")
    assert audit_csv(tmp_path / "t.csv")["problem"].tolist() == [""]
