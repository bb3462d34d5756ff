"""Comparing per-case scores from any source: what is read, what is refused, what is written."""

import re

import numpy as np
import pandas as pd
import pytest
from helpers.project import ROOT

from shapeloss.review import compare_tables as comparison
from shapeloss.review.compare_page import BOOTSTRAP_COVERS
from shapeloss.review.compare_tables import compare_scores
from shapeloss.review.score_names import directions
from shapeloss.review.score_tables import read_scores
from shapeloss.stats.paired_tests import equivalence, hodges_lehmann, holm, signed_rank_test
from shapeloss.stats.ranking import RULES, rank_methods
from shapeloss.stats.seeds import training_noise, variance_parts

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
    figures = ("scores", "differences", "significance", "critical_difference")
    expected |= {"ranking.csv", "pairs.csv"} | {f"{name}.{kind}" for name in figures for kind in ("png", "pdf")}
    assert written == expected
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


@pytest.fixture
def no_figures(monkeypatch):
    """Slow, and not what is tested."""
    monkeypatch.setattr(comparison, "save_figure", lambda *_: None)
    monkeypatch.setattr("shapeloss.review.compare_ranking.save_figure", lambda *_: None)


def page_of(paths, out, metrics=(), **options):
    return compare_scores(read_scores(paths, metrics), out, **options)


def test_three_methods_are_ranked(files, tmp_path):
    page = page_of(files, tmp_path / "out")
    scores = pd.DataFrame({"first": FIRST, **OTHERS})
    table = pd.read_csv(tmp_path / "out" / "ranking.csv")
    for rule in RULES:
        expected = rank_methods(scores, "higher", rule)
        rows = table[table["rule"] == rule]
        assert rows["method"].tolist() == list(scores)
        columns = {"rank": "ranks", "rank_low": "low", "rank_high": "high", "first": "best", "value": "values"}
        for column, field in columns.items():
            assert rows[column].tolist() == pytest.approx(getattr(expected, field).tolist())
    assert "### Ranking" in page
    assert "Of 3 pairs 1 differ" in page or "Of 3 pairs 2 differ" in page
    assert "better than second (0.006)" in page
    assert "than third" not in page
    assert "significance.png" in page
    assert "Friedman's test" in page


def test_two_methods_are_not_ranked(files, tmp_path, no_figures):
    page = page_of(files[:2], tmp_path / "out")
    for word in ("Ranking", "ranking", "Friedman", "significance"):
        assert word not in page
    assert not (tmp_path / "out" / "ranking.csv").exists()


def test_an_unknown_direction_is_asked_for(tmp_path, no_figures):
    paths = [write(tmp_path / f"{k}.csv", v, column="quality") for k, v in {"first": FIRST, **OTHERS}.items()]
    page = page_of(paths, tmp_path / "out")
    assert "No ranking: whether higher or lower is better is not known of quality; say so with" in page
    assert "--higher-is-better quality or --lower-is-better quality" in page
    assert not (tmp_path / "out" / "pairs.csv").exists()
    page = page_of(paths, tmp_path / "low", lower=["quality"])
    assert "## quality, lower is better" in page
    ranks = pd.read_csv(tmp_path / "low" / "ranking.csv").query("rule == 'mean'").set_index("method")["rank"]
    assert ranks["second"] == 1
    page_of(paths, tmp_path / "high", higher=["quality"])
    ranks = pd.read_csv(tmp_path / "high" / "ranking.csv").query("rule == 'mean'").set_index("method")["rank"]
    assert ranks["second"] == 3


def test_directions():
    assert directions(["dice", "hd95_voxel_mm", "hd95", "iou", "volume_error_mm3", "speed"]) == {
        "dice": "higher", "hd95_voxel_mm": "lower", "hd95": "lower", "iou": "higher", "volume_error_mm3": "nearer 0",
        "speed": "",
    }  # fmt: skip
    assert directions(["hd95"], lower=["HD95"]) == {"hd95": "lower"}
    for arguments, message in [
        ({"lower": ["dice"]}, "--lower-is-better dice: contradicts that higher is better"),
        ({"lower": ["speed"], "higher": ["speed"]}, "--lower-is-better speed: contradicts that higher is better"),
        ({"higher": ["size"]}, "--higher-is-better size: no such score is compared; there are dice, speed"),
    ]:
        with pytest.raises(ValueError, match=message):
            directions(["dice", "speed"], **arguments)


def test_errors_with_a_sign_are_ranked_by_their_size(tmp_path, no_figures):
    errors = {"over": np.linspace(3, 4, 8), "under": np.linspace(-8, -6, 8), "near": np.linspace(-1, 1, 8)}
    for name, values in errors.items():
        write(tmp_path / f"{name}.csv", values, CASES[:8], column="volume_error_mm3")
    page = page_of([tmp_path / f"{name}.csv" for name in errors], tmp_path / "out")
    ranks = pd.read_csv(tmp_path / "out" / "ranking.csv").query("rule == 'mean'").set_index("method")["rank"]
    assert ranks.to_dict() == {"over": 2, "under": 3, "near": 1}
    assert "Rank by the size of the error" in page
    assert "near better than over" in page


def test_incomplete_cases_leave_the_ranking_and_are_named(files, tmp_path, no_figures):
    write(tmp_path / "third.csv", OTHERS["third"][:8], CASES[:8])
    page = page_of(files, tmp_path / "out")
    assert "resamples of the 8 cases" in page
    assert "Without case 8, case 9, which a method lacks." in page
    write(tmp_path / "third.csv", OTHERS["third"][:1], CASES[:1])
    assert "No ranking: 1 case(s) have a score of every method, and 2 are needed." in page_of(files, tmp_path / "few")


def seeded(folder, shifts, sd, seeds=3):
    rng = np.random.default_rng(0)
    for name, shift in shifts.items():
        tables = [
            pd.DataFrame({"case": CASES, "seed": s, "dice": 0.8 + (FIRST - 0.9) + shift + luck})
            for s, luck in enumerate(rng.normal(0, sd, seeds))
        ]
        pd.concat(tables).to_csv(folder / f"{name}.csv", index=False)
    return [folder / f"{name}.csv" for name in shifts]


def test_the_noise_of_the_seeds(tmp_path, no_figures):
    paths = seeded(tmp_path, {"first": 0.0, "near": 0.001, "far": 0.1}, 0.01)
    scores = read_scores(paths)
    page = compare_scores(scores, tmp_path / "out")
    row = pd.read_csv(tmp_path / "out" / "tests.csv").iloc[0]
    noise = training_noise(row["seed_sd_reference"], row["seed_sd_loss"])
    assert abs(row["difference"]) < noise
    assert f"between first and near ({abs(row['difference']):.4g}) is smaller than what two trainings" in page
    assert f"({noise:.4g}, root mean square)" in page
    assert "between first and far" not in page
    parts = variance_parts(scores.table, "dice")
    assert parts.method_case == pytest.approx(0, abs=1e-12)
    share = parts.training / (parts.case + parts.training)
    assert f"method × case 0 %, method × seed (training) {100 * share:.0f} %" in page
    assert "10 cases, 3 methods and 3 seeds each" in page
    uneven = [*paths[:2], write(tmp_path / "one.csv", FIRST, seed=0)]
    assert "Parts of the variance: not computed, the methods were trained 3, 3, 1 times" in page_of(uneven, tmp_path)


def test_warnings_of_few_cases(files, tmp_path, no_figures):
    page = page_of(files[:2], tmp_path / "out")
    assert "fewer than 20 cases (10) too narrow" in page
    assert "0.867 to 0.920 at n = 10" in page
    assert "Hodges–Lehmann interval, which" not in page
    for path in files:
        write(path, pd.read_csv(path)["dice"][:5], CASES[:5])
    page = page_of(files[:2], tmp_path / "out")
    assert "Fewer than 6 cases (5) cannot give a 95 % Hodges–Lehmann interval" in page
    assert re.search(r"\| second \| \+0\.\d+ \| – \|", page)
    assert "inf" not in page
    many = [f"case {i}" for i in range(20)]
    for path, shift in zip(files, (0, 0.001, 0.002), strict=True):
        write(path, np.linspace(0.8, 0.9, 20) + shift, many)
    assert "## Warnings" not in page_of(files[:2], tmp_path / "out")


def test_the_coverage_that_is_told_is_the_one_that_was_simulated():
    text = (ROOT / "reproduce" / "benchmarks" / "error_rates.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    covers = rows[0].index("bootstrap covers")
    first = [row for row in rows[2:] if len(row) == len(rows[0])]
    for n, ends in BOOTSTRAP_COVERS.items():
        simulated = [float(row[covers]) for row in first if row[1] == str(n)]
        assert ends == (min(simulated), max(simulated))


def test_subgroups(files, tmp_path, no_figures):
    sexes = ["F"] * 6 + ["M"] * 4
    write(files[0], FIRST, sex=sexes)  # one table has them
    scores = read_scores(files, subgroup="Sex")
    page = compare_scores(scores, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "subgroups.csv")
    assert table["n"].tolist() == [6, 6, 4, 4]
    p = [signed_rank_test((FIRST - OTHERS[name])[:6]).p for name in OTHERS]
    assert table["p_holm"].dropna().tolist() == pytest.approx(holm(p).tolist())
    assert "### By Sex" in page
    shift = hodges_lehmann((FIRST - OTHERS["second"])[:6])
    mean = OTHERS["second"][:6].mean()
    assert f"| F | second | 6 | {FIRST[:6].mean():.4g} | {mean:.4g} | {shift.value:+.4g} | {shift.low:+.4g} to" in page
    assert re.search(r"\| M \| third \| 4 \| [0-9.]+ \| [0-9.]+ \| [-+0-9.e]+ \| – \| – \|", page)
    assert "first.csv: 10 cases of method first; case, subgroup = sex, dice" in page


def test_faults_of_subgroups(files, tmp_path):
    write(files[0], FIRST, sex=["F"] * 6 + ["M"] * 4)
    write(files[1], OTHERS["second"], sex=["F"] * 5 + ["M"] * 5)
    with pytest.raises(ValueError, match=r"--subgroup sex: case 5 is 'F' in .*first.csv and 'M' in .*second.csv"):
        read_scores(files, subgroup="sex")
    with pytest.raises(ValueError, match=r"--subgroup grade: no table has this column; .*first.csv has case, dice"):
        read_scores(files, subgroup="grade")
    write(files[1], OTHERS["second"], sex=[""] * 10)
    write(files[0], FIRST, sex=["F"] * 9 + [""])
    scores = read_scores(files, subgroup="sex")
    assert scores.notes[-1] == "case 9: no sex, in no subgroup"
    many = [f"c{i}" for i in range(30)]
    paths = [write(tmp_path / f"{k}.csv", np.linspace(0, 1, 30), many, age=range(30)) for k in "ab"]
    with pytest.raises(ValueError, match="--subgroup age: has 30 different values; give at most 20"):
        read_scores(paths, ["dice"], subgroup="age")
