"""Copied and doubled digits: by hand, and the expected numbers by enumeration and simulation."""

import itertools
from collections import Counter
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from shapeloss.replication.paper import read_paper
from shapeloss.review.audit.digits import digit_remarks, digit_test, remarks_text, shift_chance

PAPER = Path(__file__).resolve().parents[2] / "reproduce" / "paper.yaml"


def remarks(table, kind):
    return [r for r in digit_remarks(table) if r.kind == kind]


def frame(rows):
    return pd.DataFrame(rows, columns=["mean", "sd"])


def test_the_same_mean_and_sd_in_two_rows():
    table = frame([("0.91", "0.04"), ("0.88", "0.05"), ("0.91", "0.040"), ("0.91", "0.06")])
    (found,) = remarks(table, "pairs")
    assert found.places == ("1", "3")
    # three pairs of equal means, one of equal SDs, six pairs of rows
    assert found.chance == pytest.approx(3 * 1 / 6)
    assert "0.91 ± 0.04 in rows 1, 3" in found.text
    assert "at random, 0.5 would be expected" in found.text
    assert remarks(table.iloc[[0, 1, 3]], "pairs") == []


@pytest.mark.parametrize("powers", [[(0, 0)], [(1, 1), (-1, -1)], [(0, 1), (0, -1)]])
def test_the_expected_number_is_the_mean_over_all_ways_to_deal(powers):
    means = [Decimal(x) for x in ("0.30", "0.3", "0.03", "3.0", "0.5")]
    sds = [Decimal(x) for x in ("0.12", "0.12", "0.012", "1.2", "0.12")]

    def power(a, b):
        return next((k for k in range(-3, 4) if a == b.scaleb(k)), None)

    count = [
        sum(
            (power(means[i], means[j]), power(dealt[i], dealt[j])) in powers
            for i, j in itertools.permutations(range(5), 2)
        ) / 2
        for dealt in itertools.permutations(sds)
    ]  # fmt: skip
    assert shift_chance(means, sds, powers) == pytest.approx(np.mean(count))


def test_chance_pairs_of_rounded_values_are_as_many_as_said():
    """Independent means and SDs with two decimals: over many tables, expected and found agree."""
    rng = np.random.default_rng(0)
    found, expected = [], []
    for _ in range(400):
        m, s = rng.normal(0.8, 0.05, 20), rng.normal(0.1, 0.02, 20)
        table = frame([(f"{a:.2f}", f"{b:.2f}") for a, b in zip(m, s, strict=True)])
        counts = Counter(zip(table["mean"], table["sd"], strict=True))
        found.append(sum(c * (c - 1) / 2 for c in counts.values()))
        means, sds = ([Decimal(x) for x in table[c]] for c in ("mean", "sd"))
        expected.append(shift_chance(means, sds, [(0, 0)]))
    assert np.mean(found) > 1
    assert np.mean(expected) == pytest.approx(np.mean(found), rel=0.1)


def test_a_decimal_point_that_moved():
    table = frame([("0.96", "0.12"), ("96", "12"), ("0.96", "1.2"), ("0.75", "0.031"), ("0.9", "0.1"), ("9", "1")])
    (found,) = remarks(table, "shifts")
    assert "rows 1 and 2 (mean and SD, 10^2)" in found.text
    assert "rows 1 and 3 (SD alone, at the same mean, 10^1)" in found.text
    assert set(found.places) == {
        "1",
        "2",
        "3",
    }  # 0.96 ± 1.2 against 96 ± 12 are two different shifts; one digit says little
    assert "It can be another unit" in found.text
    assert remarks(table.iloc[[0, 3]], "shifts") == []


def test_the_same_numbers_side_by_side():
    rows = [("0.91", "0.04", "1.5", "7"), ("0.88", "0.05", "2.5", "7"), ("0.91", "0.04", "1.5", "8")]
    table = pd.DataFrame(rows, columns=["mean", "sd", "hd", "n"])
    (found,) = remarks(table, "rows")
    assert found.places == ("1", "3")
    assert "rows 1 and 3 (0.91, 0.04, 1.5)" in found.text
    assert found.chance == pytest.approx(3 * (1 / 3) ** 3)
    assert remarks(table.assign(hd=["1.5", "2.5", "1.6"]), "rows") == []
    constant = table.assign(mean="0.5", sd="0.5", hd="0.5")
    assert remarks(constant, "rows") == []  # three times one number is no sequence


def test_the_same_numbers_below_each_other():
    a = ["0.91", "0.82", "0.73", "0.64", "0.55", "0.46", "0.37"]
    b = ["0.11", "0.82", "0.73", "0.64", "0.12", "0.13", "0.14"]
    (found,) = remarks(pd.DataFrame({"mean": a, "sd": b}), "columns")
    assert found.places == ("mean", "sd")
    assert "mean from row 2 and sd from row 2 (0.82, 0.73, 0.64)" in found.text
    # 3 of 49 pairs of cells are equal; five places for a stretch in each column
    assert found.chance == pytest.approx(25 * (3 / 49) ** 3)
    block = pd.DataFrame({"mean": [*a[:4], "0.2", *a[:4]], "sd": [f"0.0{i}" for i in range(9)]})
    (found,) = remarks(block, "columns")
    assert "mean from row 1 and mean from row 6 (0.91, 0.82, 0.73, 0.64)" in found.text
    gap = pd.DataFrame({"mean": a, "sd": [*b[:2], "", *b[3:]]})
    assert remarks(gap, "columns") == []


def test_chance_stretches_are_as_many_as_said():
    rng = np.random.default_rng(1)
    hits, expected = [], []
    for _ in range(300):
        a, b = rng.integers(1, 4, (2, 12))
        table = pd.DataFrame({"mean": [f"0.{x}" for x in a], "sd": [f"0.{x}" for x in b]})
        windows = [tuple(line[i : i + 3]) for line in (a, b) for i in range(10)]
        at = [(line, i) for line in range(2) for i in range(10)]
        hits.append(sum(
            windows[p] == windows[q] and (at[p][0] != at[q][0] or at[q][1] - at[p][1] >= 3)
            for p, q in itertools.combinations(range(20), 2)
        ))  # fmt: skip
        found = remarks(table, "columns")
        expected.append(found[0].chance if found else np.nan)
    assert np.nanmean(expected) == pytest.approx(np.mean(hits), rel=0.15)


def test_the_exact_test_of_ten_digits():
    # three values: all equal 10/1000, two equal 270/1000, none 720/1000
    assert digit_test([3] + [0] * 9) == pytest.approx(0.01)
    assert digit_test([2, 1] + [0] * 8) == pytest.approx(0.28)
    assert digit_test([1, 1, 1] + [0] * 7) == pytest.approx(1)
    counts = [6, 5, 2, 2, 1, 1, 1, 1, 1, 0]
    drawn = np.random.default_rng(0).multinomial(20, [0.1] * 10, 200_000)
    simulated = ((drawn**2).sum(1) >= (np.array(counts) ** 2).sum()).mean()
    assert digit_test(counts) == pytest.approx(simulated, abs=4 * np.sqrt(simulated / 200_000))
    many = [12, 9, 10, 3, 11, 8, 9, 10, 13, 15]
    assert digit_test(many) == stats.chisquare(many).pvalue


def test_last_digits_of_a_column():
    rng = np.random.default_rng(0)
    values = rng.normal(0.8, 0.1, 24)
    even = frame([(f"{x:.2f}", "0.10") for x in values])
    assert remarks(even, "digits") == []
    (same,) = remarks(even.assign(mean=[f"{x:.1f}5" for x in values]), "digits")
    assert same.places == ("mean",)
    assert "24 values, are all 5" in same.text
    assert same.chance < 1e-15
    assert "weak evidence" in same.text
    fives = [f"{x:.1f}{5 * (i % 2)}" for i, x in enumerate(values)]
    assert "are unevenly spread, 12 of them" in remarks(even.assign(mean=fives), "digits")[0].text
    assert remarks(even.assign(mean=fives).iloc[:19], "digits") == []  # too few
    narrow = even.assign(mean=[f"0.9{5 + i % 2}" for i in range(24)])
    assert remarks(narrow, "digits") == []  # a narrow column has few last digits
    assert remarks(even.assign(mean=["0.1", *fives[1:]]), "digits") == []  # zeros may have been dropped
    assert remarks(even.assign(mean="1e400"), "digits") == []


def test_random_columns_are_seldom_called_uneven():
    rng = np.random.default_rng(3)
    called = [bool(remarks(frame([(f"{x:.3f}", "1") for x in rng.normal(5, 1, 25)]), "digits")) for _ in range(200)]
    assert np.mean(called) <= 0.025


def test_no_words_without_a_finding_and_none_that_accuse():
    assert remarks_text([]) == ""
    clean = frame([("0.91", "0.042"), ("0.885", "0.051")])
    assert digit_remarks(clean) == []
    assert digit_remarks(pd.DataFrame({"mean": ["x", ""], "sd": ["?", None]})) == []
    table = read_paper(PAPER).results_table()
    text = remarks_text(digit_remarks(pd.concat([table, table.iloc[:2]])))
    assert text.startswith("Digits over the table: what is seen, and how often chance shows it.")
    for word in ("fraud", "fabricat", "manipulat", "suspicious", "false"):
        assert word not in text.lower()
