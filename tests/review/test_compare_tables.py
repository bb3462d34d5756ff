"""Comparing per-case scores from any source: what is read, what is refused, what is written."""

import numpy as np
import pandas as pd
import pytest

from shapeloss.review.compare_tables import compare_scores
from shapeloss.review.score_tables import read_scores
from shapeloss.stats.paired_tests import equivalence, hodges_lehmann, holm, signed_rank_test

RNG = np.random.default_rng(3)
CASES = [f"case {i}" for i in range(10)]
FIRST = RNG.normal(0.9, 0.02, 10)
OTHERS = {"second": FIRST - RNG.normal(0.01, 0.005, 10), "third": FIRST + RNG.normal(0.0, 0.005, 10)}


def write(path, scores, cases=CASES, column="dice", **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"case": cases, column: scores, **more}).to_csv(path, index=False)
    return path


@pytest.fixture
def files(tmp_path):
    return [write(tmp_path / "first.csv", FIRST), *(write(tmp_path / f"{k}.csv", v) for k, v in OTHERS.items())]


def test_one_method_per_file(files, tmp_path):
    scores = read_scores(files)
    assert scores.problems == ()
    assert scores.metrics == ("dice",)
    page = compare_scores(scores, tmp_path / "out", margin=0.02)
    tests = pd.read_csv(tmp_path / "out" / "tests.csv")
    p = [signed_rank_test(FIRST - OTHERS[name]).p for name in OTHERS]
    assert tests["p_holm"].tolist() == pytest.approx(holm(p).tolist())
    shift = hodges_lehmann(FIRST - OTHERS["second"])
    assert tests.loc[0, ["hodges_lehmann", "hl_low", "hl_high"]].tolist() == pytest.approx(list(shift[:3]))
    same = [equivalence(FIRST - OTHERS[name], 0.02, test="wilcoxon").p for name in OTHERS]
    assert tests["p_equivalence"].tolist() == pytest.approx(holm(same).tolist())
    assert f"| second | {shift.value:+.4g} | {shift.low:+.4g} to {shift.high:+.4g} |" in page
    written = {path.name for path in (tmp_path / "out").iterdir()}
    expected = {"comparison.md", "tests.csv", "table.csv", "table.md", "table.tex"}
    assert written == expected | {f"{name}.{kind}" for name in ("scores", "differences") for kind in ("png", "pdf")}
    assert "Paper" not in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")


def test_the_reference_and_its_sign(files, tmp_path):
    compare_scores(read_scores(files), tmp_path / "out", reference="second")
    tests = pd.read_csv(tmp_path / "out" / "tests.csv")
    assert tests["loss"].tolist() == ["first", "third"]
    assert tests.loc[0, "difference"] == pytest.approx((OTHERS["second"] - FIRST).mean())
    with pytest.raises(ValueError, match="no method 'fourth'; there are first, second, third"):
        compare_scores(read_scores(files), tmp_path / "out", reference="fourth")
    with pytest.raises(ValueError, match="margin must be positive"):
        compare_scores(read_scores(files), tmp_path / "out", margin=-1)


def test_several_methods_in_one_file(tmp_path):
    rows = [("first", c, s) for c, s in zip(CASES, FIRST, strict=True)]
    rows += [("second", c, s) for c, s in zip(CASES, OTHERS["second"], strict=True)]
    table = pd.DataFrame(rows, columns=["method", "case", "dice"])
    table.to_csv(tmp_path / "all.csv", index=False)
    assert read_scores([tmp_path / "all.csv"]).table["loss"].unique().tolist() == ["first", "second"]
    both = read_scores([f"a={tmp_path / 'all.csv'}", write(tmp_path / "x.csv", FIRST)])
    assert both.table["loss"].unique().tolist() == ["a:first", "a:second", "x"]


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    paths = [write(tmp_path / name / "per_case.csv", FIRST) for name in ("ours", "theirs")]
    assert read_scores(paths).table["loss"].unique().tolist() == ["ours/per_case", "theirs/per_case"]
    with pytest.raises(ValueError, match="two tables are called x"):
        read_scores([f"x={paths[0]}", f"x={paths[1]}"])


def test_structures(tmp_path):
    for name in ("first", "second"):
        tables = [
            pd.DataFrame({"case": CASES, "structure": s, "dice": FIRST + shift, "missed": False})
            for s, shift in (("femur", 0.01), ("mean", 0.0))
        ]
        pd.concat(tables).to_csv(tmp_path / f"{name}.csv", index=False)
    files = [tmp_path / "first.csv", tmp_path / "second.csv"]
    assert read_scores(files).table["dice"].tolist() == pytest.approx([*FIRST, *FIRST])
    assert read_scores(files, structure="femur").table["dice"].tolist() == pytest.approx([*(FIRST + 0.01)] * 2)
    with pytest.raises(ValueError, match="has no structure 'tibia'; choose one of femur, mean"):
        read_scores(files, structure="tibia")


def test_seeds_are_averaged_first(tmp_path):
    for name, shift in (("first", 0.0), ("second", -0.01)):
        tables = [pd.DataFrame({"case": CASES, "seed": s, "dice": FIRST + shift + s * 0.001}) for s in range(3)]
        pd.concat(tables).to_csv(tmp_path / f"{name}.csv", index=False)
    compare_scores(read_scores([tmp_path / "first.csv", tmp_path / "second.csv"]), tmp_path / "out")
    tests = pd.read_csv(tmp_path / "out" / "tests.csv")
    assert tests["n"].tolist() == [10]
    assert tests["seeds_loss"].tolist() == [3]


def test_problems_are_named_and_the_other_cases_compared(files, tmp_path):
    write(tmp_path / "third.csv", [*OTHERS["third"][:8], "n/a?", 0.5, 0.6], [*CASES[:8], "case 8", "case 7", "case 9"])
    scores = read_scores([*files, tmp_path / "nowhere.csv"])
    assert "third: case 7 occurs more than once" in scores.problems[1]
    assert "nowhere.csv: there is no such file" in scores.problems[0]
    assert "third: case 8 has 'n/a?' for dice, not a finite number" in scores.problems[2]
    assert "third: lacks case 7, which another method has" in scores.problems[3]
    assert len(scores.problems) == 4
    page = compare_scores(scores, tmp_path / "out")
    tests = pd.read_csv(tmp_path / "out" / "tests.csv").set_index("loss")
    assert tests.loc["second", "n"] == 10
    assert tests.loc["third", "n"] == 8
    assert "## 4 problem(s)" in page


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a CSV table"),
        (b"\x89PNG\r\n\x1a\n\x00\x01", "is not a CSV table: it holds the character '\\x1a'"),
        (b"name,dice\na,1\n", "has no column 'case'; it has name, dice; name it with --case-column"),
        (b"case,dice\n", "has no rows"),
    ],
)
def test_faults_of_a_file(files, tmp_path, content, message):
    (tmp_path / "bad.csv").write_bytes(content)
    scores = read_scores([*files, tmp_path / "bad.csv"])
    assert len(scores.problems) == 1
    assert message in scores.problems[0]
    with pytest.raises(ValueError, match="no table could be read"):
        read_scores([tmp_path / "bad.csv"])


def test_columns(files, tmp_path):
    other = write(tmp_path / "other.csv", FIRST, column="hd95")
    with pytest.raises(ValueError, match="the tables share no column of numbers; they share case, loss"):
        read_scores([files[0], other])
    with pytest.raises(ValueError, match="not every table has the column hd95; they share case, dice"):
        read_scores(files, ["hd95"])
    same = write(tmp_path / "same.csv", FIRST, column="hd95")
    assert read_scores([other, same]).metrics == ("hd95",)
    for path in files[:2]:
        path.write_text(path.read_text(encoding="utf-8").replace("case,", "ID,", 1))
    assert read_scores(files[:2], case_column="ID").table["case"].tolist() == CASES * 2


def test_one_method_is_no_comparison(files):
    with pytest.raises(ValueError, match="needs the scores of two methods; found first"):
        read_scores(files[:1])


def test_a_case_called_na_is_kept_and_what_is_left_out_is_named(tmp_path):
    cases = ["NA", "", *CASES[2:]]
    first = write(tmp_path / "first.csv", [*FIRST[:9], np.inf], cases)
    scores = read_scores([first, write(tmp_path / "second.csv", OTHERS["second"], ["NA", *CASES[1:]])])
    assert "NA" in set(scores.table["case"])
    text = "\n".join(scores.problems)
    assert "first.csv: 1 row(s) have no case" in text
    assert "first: case 9 has inf for dice, not a finite number; it is left out" in text
    volumes = [
        write(tmp_path / f"{k}.csv", [*FIRST[:9], end], column="volume_error_percent")
        for k, end in ((1, np.inf), (2, 0))
    ]
    (line,) = read_scores(volumes).problems
    assert line == (
        "1: case 9 has inf for volume_error_percent, not a finite number (a false positive structure; volume_error_mm3 "
        "has it); it is left out"
    )
    assert "first: lacks case 1, which another method has" in text
    compare_scores(scores, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert table["n"].tolist() == [8, 10]  # scores in the mean, not rows
    assert "1 of 9 cases without a finite score" in table.loc[0, "note"]


def test_one_table_with_seeds_beside_one_without(tmp_path):
    paths = [write(tmp_path / "first.csv", FIRST), write(tmp_path / "second.csv", OTHERS["second"], seed=3)]
    compare_scores(read_scores(paths), tmp_path / "out")
    assert pd.read_csv(tmp_path / "out" / "table.csv")["seeds"].tolist() == [1, 1]
