"""Score tables as spreadsheets, pandas and editors write them: what is understood, named, left out or refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shapeloss.review import compare_tables as comparison
from shapeloss.review.audit.summary import audit_csv
from shapeloss.review.compare_tables import compare_scores
from shapeloss.review.score_tables import read_scores
from shapeloss.stats.read_table import few, read_table

CASES = [f"knee_{i:02}" for i in range(8)]
DICE = [0.95, 0.94, 0.96, 0.93, 0.97, 0.955, 0.945, 0.965]
PLAIN = "case,dice\n" + "".join(f"{c},{d}\n" for c, d in zip(CASES, DICE, strict=True))
GERMAN = PLAIN.replace(",", ";").replace(".", ",")


@pytest.fixture
def other(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text(PLAIN)
    return path


def write(tmp_path, content):
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(tmp_path, content, other, **options):
    return read_scores([write(tmp_path, content), other], **options)


def column(scores, name="t"):
    return scores.table.loc[scores.table["loss"] == name].set_index("case")[scores.metrics[0]].to_dict()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (PLAIN.encode(), ""),
        (b"\xef\xbb\xbf" + PLAIN.encode(), ""),
        (PLAIN.replace("\n", "\r\n").encode(), ""),
        (PLAIN.replace("\n", "\r").encode(), ""),
        (PLAIN.replace("\n", ",,\n").encode(), ""),
        (GERMAN.encode(), "semicolons and decimal commas"),
        (PLAIN.replace(",", ";").encode(), "semicolons"),
        (("sep=;\n" + GERMAN).encode(), "semicolons and decimal commas"),
        (PLAIN.replace(",", "\t").encode(), "tabs"),
        (PLAIN.replace(",", "\t").replace(".", ",").encode("utf-16"), "tabs and UTF-16 and decimal commas"),
        (PLAIN.replace("0.95\n", '"0,95"\n').encode(), None),
        (PLAIN.replace("knee_00", "Århus").encode("cp1252"), "the encoding Windows-1252"),
    ],
)
def test_tables_of_spreadsheets_are_understood_and_that_is_said(tmp_path, other, content, said):
    path = write(tmp_path, content)
    if said is None:  # one cell of decimals with a comma among points
        with pytest.raises(ValueError, match=r"'dice' has decimal commas and decimal points \(line 2 and 3\)"):
            read_table(path)
        return
    scores = read_scores([path, other])
    assert list(column(scores).values()) == DICE
    assert scores.notes == ((f"{path}: was read with {said}",) if said else ())


def test_decimal_commas_keep_their_decimals_and_spare_names(tmp_path):
    table, notes = read_table(write(tmp_path, "case;mean\n1,5;0,50\n2,5;-1,25e-3\n"), ["case"])
    assert table["case"].tolist() == ["1,5", "2,5"]
    assert table["mean"].tolist() == ["0.50", "-1.25e-3"]
    assert table.index.tolist() == [2, 3]
    thousands, notes = read_table(write(tmp_path, 'case,volume\na,"1,234"\nb,"12,500"\n'))
    assert thousands["volume"].tolist() == ["1,234", "12,500"]  # a thousand: not read as 1.234
    assert notes == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a CSV table: it is empty"),
        (b"\n \n", "is not a CSV table: it is empty"),
        (b"PK\x03\x04 workbook", "is a spreadsheet or another zip archive, no CSV table; save it as CSV"),
        (b"\xff\xfea", "it is not valid UTF-16; save it as UTF-8"),
        ("case,dice\na,1\n".encode("utf-16-le"), "it holds the character '\\x00', as binary files or UTF-16"),
        (b"case,dice,dice\na,0.9,0.8\n", "has two columns called 'dice'; rename one of them"),
        (b"case,dice\na,0.9\nb,0,9\nc,1,,\n", "has more cells than the 2 columns of the header in line 3;"),
        (b'case,dice\n"a,0.9\nb,0.8\n', "is not a CSV table: line 3: unexpected end of data"),
    ],
)
def test_what_is_no_table_is_refused_with_its_cause(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=r"t\.csv: ") as caught:
        read_table(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match="is a folder; check the name"):
        read_table(tmp_path)
    assert few(range(10)) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"


SUMMARIES = ["mean", "Std", "SD", "Median", "average", "TOTAL", "All", "count", "25%", "75 %", "min", "Max", "Mean:"]
SUMMARIES += ["mean ± sd", "Mean (SD)", "mean+/-std", "p95", "95th percentile", "q1", "IQR", "Standard deviation"]


def test_rows_that_summarise_are_left_out_and_named(tmp_path, other):
    content = PLAIN + "".join(f"{name},0.5\n" for name in SUMMARIES)
    scores = read(tmp_path, content, other)
    assert list(column(scores)) == CASES
    (note,) = scores.notes
    assert f"{len(SUMMARIES)} row(s) that summarise the cases are left out: mean, Std, SD," in note
    assert "if they are cases, keep them with --keep-summaries" in note
    assert scores.problems == ()
    kept = read(tmp_path, content, other, keep_summaries=True)
    assert list(column(kept)) == CASES + SUMMARIES
    with pytest.raises(ValueError, match=r"has only rows that summarise cases \(mean, std\)"):
        read(tmp_path, "case,dice\nmean,0.9\nstd,0.1\n", other)


@pytest.mark.parametrize(
    "name", ["meaning", "mean_knee_01", "Maxim", "standard", "all-cases-1", "n01", "12", "p", "se7"]
)
def test_names_of_cases_are_no_summaries(tmp_path, other, name):
    assert name in column(read(tmp_path, PLAIN + f"{name},0.5\n", other))


@pytest.mark.parametrize("name", ["Dice", "DSC", "dsc", "Dice score", "Dice_Coefficient", "mean_dice", "DICE"])
def test_the_score_is_found_by_its_usual_names(tmp_path, other, name):
    rows = "".join(f"{k},{c},{100 + k},{d}\n" for k, (c, d) in enumerate(zip(CASES, DICE, strict=True)))
    scores = read(tmp_path, f",Case,age,{name}\n" + rows, other)
    assert scores.metrics == ("dice",)
    assert list(column(scores).values()) == DICE
    assert scores.notes[0].endswith("t.csv: the column without a name is left out")
    assert f"takes the column 'Case' as case, {name!r} as dice" in scores.notes[1]


def test_a_score_that_is_not_clear_is_asked_for(tmp_path):
    rows = "".join(f"{k},{c},{d},{d / 2}\n" for k, (c, d) in enumerate(zip(CASES, DICE, strict=True)))
    (tmp_path / "a.csv").write_text(",case,quality,speed\n" + rows)
    (tmp_path / "b.csv").write_text(",case,quality,speed\n" + rows)
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    with pytest.raises(
        ValueError, match=r"which column holds the score\? choose one or more with --metric: quality, speed"
    ):
        read_scores(paths)
    assert read_scores(paths, ["speed"]).metrics == ("speed",)
    for path in paths:
        path.write_text(path.read_text().replace("speed", "iou"))
    scores = read_scores(paths)
    assert scores.metrics == ("iou",)


def test_other_columns_are_named_when_they_are_not_compared(tmp_path, other):
    content = "case,dice,hd95\n" + "".join(f"{c},{d},3\n" for c, d in zip(CASES, DICE, strict=True))
    other.write_text(content)
    assert read(tmp_path, content, other).notes == ("compared: dice; not compared: hd95; choose others with --metric",)
    assert read(tmp_path, content, other, metrics=["hd95"]).notes == ()
    assert read(tmp_path, content, other, metrics=["Dice"]).metrics == ("dice",)


def test_percent_is_no_fraction(tmp_path, other):
    percent = "case,dice\n" + "".join(f"{c},{100 * d:.1f}\n" for c, d in zip(CASES, DICE, strict=True))
    with pytest.raises(ValueError, match="found other") as caught:
        read(tmp_path, percent, other)
    assert "t: dice is 93 to 97, outside 0 to 1: percent? t is left out; divide its scores by 100" in str(caught.value)
    # a third table is compared all the same
    path = tmp_path / "third.csv"
    path.write_text(PLAIN)
    scores = read_scores([tmp_path / "t.csv", other, path])
    assert set(scores.table["loss"]) == {"other", "third"}
    assert len(scores.problems) == 1
    with pytest.raises(ValueError, match="t: IoU is 93 to 97, outside 0 to 1: percent"):
        read(tmp_path, percent.replace("dice", "IoU"), write_as(other, PLAIN.replace("dice", "IoU")))


def write_as(path, text):
    path.write_text(text)
    return path


def test_a_score_out_of_range_is_left_out_but_not_for_rounding(tmp_path, other):
    scores = read(
        tmp_path, PLAIN.replace("0.97", "1.00000012").replace("0.93", "-0.2").replace("0.96\n", "1.2\n"), other
    )
    assert scores.problems == (
        "t: knee_02 has 1.2 for dice, outside 0 to 1; it is left out",
        "t: knee_03 has -0.2 for dice, outside 0 to 1; it is left out",
    )
    assert column(scores)["knee_04"] == 1.00000012
    assert np.isnan(column(scores)["knee_02"])


def test_units_of_unknown_scores(tmp_path, other):
    text = PLAIN.replace("dice", "quality")
    write_as(other, text)
    percent = "case,quality\n" + "".join(f"{c},{100 * d}\n" for c, d in zip(CASES, DICE, strict=True))
    (note,) = read(tmp_path, percent, other).notes
    assert note == "quality: medians differ about 100 times (other 0.9525, t 95.25); are all in the same unit?"
    assert read(tmp_path, text, other).notes == ()


def test_rows_without_a_case_or_a_method_are_named(tmp_path):
    text = "method,case,dice\n" + "".join(f"{m},{c},{d}\n" for m in "ab" for c, d in zip(CASES, DICE, strict=True))
    scores = read_scores([write(tmp_path, text + "a,,0.5\n,knee_00,0.5\n , knee_01,0.4\n")])
    assert set(scores.table["loss"]) == {"a", "b"}
    assert scores.problems[0].endswith("1 row(s) have no case (line 18); they are left out, so name it")
    assert scores.problems[1].endswith("2 row(s) have no method (line 19, 20); they are left out, so name it")


def test_faults_of_one_kind_are_folded(tmp_path, other):
    many = "case,dice\n" + "".join(f"c{i},x\n" for i in range(40))
    scores = read(tmp_path, PLAIN + many.partition("\n")[2], other)
    assert scores.problems[4] == "t: c4 has 'x' for dice, not a finite number; it is left out"
    assert scores.problems[5] == "35 more of the same kind as the line before"
    assert scores.problems[6].startswith("other: lacks c0, c1, c10, c11, c12, c13, c14, c15 and 32 more")


def test_another_column_called_case(tmp_path, other):
    rows = "".join(f"{c},{k},{d}\n" for k, (c, d) in enumerate(zip(CASES, DICE, strict=True)))
    for path in (other, tmp_path / "t.csv"):
        path.write_text("ID,case,dice\n" + rows)
    assert list(column(read_scores([tmp_path / "t.csv", other], case_column="ID"))) == CASES


def test_no_comparison_without_a_pair_and_no_nan_in_the_page(tmp_path, other):
    scores = read(tmp_path, "case,dice\nknee_00,\nknee_01,\n", other)
    with pytest.raises(ValueError, match="no case has a score of t and of another method"):
        compare_scores(scores, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    third = tmp_path / "third.csv"
    third.write_text("case,dice\nelsewhere,0.5\n")
    page = compare_scores(read_scores([write(tmp_path, PLAIN), other, third]), tmp_path / "out")
    assert "| third | – | – | – | – | 0 | – |" in page
    assert "nan" not in page


def test_many_cases_are_drawn_as_a_sample(tmp_path, other):
    rng = np.random.default_rng(0)
    for path in (other, tmp_path / "t.csv"):
        scores = pd.DataFrame({"case": [f"c{i}" for i in range(700)], "dice": rng.uniform(0.8, 0.9, 700)})
        scores.to_csv(path, index=False)
    scores = read_scores([tmp_path / "t.csv", other])
    page = compare_scores(scores, tmp_path / "out")
    assert "Beyond 500 pairs the test is its normal approximation." in page
    assert "p: two-sided paired Wilcoxon test" in page
    table = scores.table
    figure = comparison.figure_scores(table, {"dice": "Dice"})
    assert "500 of 700 test cases, drawn at random" in figure.get_supxlabel()
    assert len(figure.axes[0].lines) == 500 + 2 * 3  # joined pairs; dots, bar and mean of two methods
    few_cases = comparison.figure_scores(table[table["case"].isin(["c0", "c1"])], {"dice": "Dice"})
    assert few_cases.get_supxlabel().startswith("Dots: 2 test cases, joined")


MUTATION = st.tuples(
    st.integers(0, 400),
    st.integers(0, 12),
    st.sampled_from([*b'\0\n\r,;"\t. \xff\xfe0-', None]) | st.binary(max_size=6),
)
HEALTH = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
METHODS = "method,case,seed,structure,dice\n" + "".join(f"{m},{c},0,mean,0.9\n" for m in "ab" for c in CASES[:3])
REPORTED = "name,mean,sd,n,low,high,step\na,0.95,0.10,10,0,1,\nb,5.1,1.1,28,1,7,1\nc,0.5,0.2,5,,,\n"


def mutated(text, changes):
    data = text.encode()
    for place, length, new in changes:
        place %= len(data) + 1
        middle = b"" if new is None else bytes([new]) if isinstance(new, int) else new
        data = data[:place] + middle + data[place + length :]
    return data


@settings(max_examples=150, deadline=None, suppress_health_check=HEALTH)
@given(st.sampled_from([PLAIN, GERMAN, METHODS]), st.lists(MUTATION, min_size=1, max_size=4))
def test_mutated_scores_never_end_in_a_traceback(tmp_path, other, text, changes):
    path = write(tmp_path, mutated(text, changes))
    message = "understood"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "save_figure", lambda *_: None)  # slow, and not what is tested
        try:
            compare_scores(read_scores([path, other]), tmp_path / "out")
        except (ValueError, OSError) as error:
            message = str(error)
    first, *others = message.split("\n")
    assert first
    assert all(line.startswith("  - ") for line in others)


@settings(max_examples=150, deadline=None, suppress_health_check=HEALTH)
@given(st.lists(MUTATION, min_size=1, max_size=4))
def test_mutated_reports_never_end_in_a_traceback(tmp_path, changes):
    try:
        audited = audit_csv(write(tmp_path, mutated(REPORTED, changes)), 1)
    except (ValueError, OSError) as error:
        audited, message = None, str(error)
    if audited is None:
        assert "\n" not in message
    else:
        assert (audited["problem"].ne("") | audited["text"].notna()).all()
