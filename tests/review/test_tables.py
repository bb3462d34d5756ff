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
    assert scores.understood[0].endswith(f"t.csv: 8 cases of method t; case = Case, dice = {name}")
    assert scores.understood[1].endswith("other.csv: 8 cases of method other; case, dice")


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
    with pytest.raises(ValueError, match="t: iou is 93 to 97, outside 0 to 1: percent"):
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


def rows(header, mark=",", scores=DICE, extra=""):
    return header + "\n" + "".join(f"{c}{mark}{d}{extra}\n" for c, d in zip(CASES, scores, strict=True))


WIDE = "case;unet;vnet;comment\n" + "".join(f"{c};{d};{d - 0.01:.3f};good\n" for c, d in zip(CASES, DICE, strict=True))


def test_a_column_for_each_method_is_read_when_that_is_said(tmp_path):
    path = write(tmp_path, WIDE.replace(".", ","))
    scores = read_scores([path], ["DSC"], wide=True)
    assert scores.metrics == ("dice",)
    assert list(column(scores, "unet").values()) == DICE
    assert list(column(scores, "vnet").values()) == [round(d - 0.01, 3) for d in DICE]
    assert scores.notes[-1].endswith("t.csv: comment without numbers: no method, left out")
    assert scores.understood[0].endswith("8 cases of methods unet, vnet; case, dice in a column for each method")
    # a method may be called like a score, a cell may be missing
    text = WIDE.replace("unet", "Dice").replace("knee_03;0.93", "knee_03;n/a")
    scores = read_scores([write(tmp_path, text)], ["iou"], wide=True)
    assert set(scores.table["loss"]) == {"Dice", "vnet"}
    assert scores.problems == ("Dice: knee_03 has 'n/a' for iou, not a finite number; it is left out",)


def test_a_column_for_each_method_is_never_guessed(tmp_path):
    path = write(tmp_path, WIDE)
    hint = "if each of these is a method, say so: --metric dice --wide"
    with pytest.raises(ValueError, match=f"choose one or more with --metric: unet, vnet; {hint}"):
        read_scores([path])
    with pytest.raises(ValueError, match=r"not every table has the column HD95; they share .*: --metric HD95 --wide"):
        read_scores([path], ["HD95"])
    for metrics in ([], ["dice", "hd95"]):
        with pytest.raises(ValueError, match="--wide: name the one score that the columns hold"):
            read_scores([path], metrics, wide=True)
    with pytest.raises(ValueError, match=r"has a column 'method' of methods, so each row is of one; leave --wide out"):
        read_scores([write(tmp_path, WIDE.replace("comment", "Method"))], ["dice"], wide=True)
    with pytest.raises(ValueError, match=r"has no column of numbers; with --wide, give a column for each method"):
        read_scores([write(tmp_path, "case,a\nx,y\n")], ["dice"], wide=True)


@pytest.mark.parametrize("name", ["Case", "ID", "subject", "Patient", "Image", "FILENAME", "Case ID", "patient_id"])
def test_the_column_of_cases_has_usual_names(tmp_path, other, name):
    scores = read(tmp_path, rows(f"{name},DSC"), other)
    assert list(column(scores)) == CASES
    assert scores.understood[0].endswith(f"t.csv: 8 cases of method t; case = {name}, dice = DSC")
    german = rows(f"{name};DSC", ";").replace("knee_0", "1,").replace(".", ",")
    assert list(column(read(tmp_path, german, other)))[:2] == ["1,0", "1,1"]  # names, no numbers


def test_two_columns_of_cases_are_asked_about(tmp_path, other):
    text = "Patient,Image,dice\n" + "".join(f"p,{c},{d}\n" for c, d in zip(CASES, DICE, strict=True))
    scores = read(tmp_path, text, write_as(other, text), case_column="image")
    assert list(column(scores)) == CASES
    third = write_as(tmp_path / "third.csv", PLAIN)
    (problem,) = read_scores([tmp_path / "t.csv", write_as(other, PLAIN), third]).problems
    assert problem.endswith(
        "t.csv: 'Patient' and 'Image' could each be the column of cases; choose one with --case-column"
    )


@pytest.mark.parametrize(
    ("name", "score"),
    [("HD95", "hd95"), ("HD 95", "hd95"), ("hd_95", "hd95"), ("ASSD", "assd"), ("ASD", "asd"), ("MSD", "msd"),
     ("NSD", "nsd"), ("IoU", "iou"), ("Jaccard", "iou"), ("Sensitivity", "sensitivity"), ("DSC", "dice")],
)  # fmt: skip
def test_scores_have_usual_names(tmp_path, other, name, score):
    text = f"case,{name},volume\n" + "".join(f"{c},{d},5\n" for c, d in zip(CASES, DICE, strict=True))
    write_as(other, text.replace(name, name.lower()))
    assert read(tmp_path, text, other).metrics == (score,)
    assert read(tmp_path, text, other, metrics=[name]).metrics == (score,)


@pytest.mark.parametrize("name", ["Method", "Algorithm", "network", "Model"])
def test_the_column_of_methods_has_usual_names(tmp_path, name):
    text = f"{name},case,dice\n" + "".join(f"{m},{c},0.9\n" for m in "ab" for c in CASES)
    scores = read_scores([write(tmp_path, text)])
    assert set(scores.table["loss"]) == {"a", "b"}
    assert scores.understood[0].endswith(f"8 cases of methods a, b; case, method = {name}, dice")


@pytest.mark.parametrize("name", ["Structure", "Label", "class", "Organ", "ROI"])
def test_the_column_of_structures_has_usual_names(tmp_path, other, name):
    text = f"{name},case,dice\n" + "".join(
        f"{s},{c},0.{k}\n" for k, s in enumerate(("liver", "spleen"), 5) for c in CASES
    )
    scores = read(tmp_path, text, write_as(other, text), structure="spleen")
    assert set(column(scores).values()) == {0.6}
    assert f"structure = {name} (spleen)" in scores.understood[0]
    with pytest.raises(ValueError, match=f"has several in '{name}'; choose one of liver, spleen with --structure"):
        read(tmp_path, text, other)


def test_a_class_that_each_case_has_one_of_is_no_structure(tmp_path, other):
    text = "case,class,dice\n" + "".join(f"{c},{'ab'[k % 2]},{DICE[k]}\n" for k, c in enumerate(CASES))
    assert list(column(read(tmp_path, text, other))) == CASES
    both = "case,Class,Organ,dice\n" + "".join(f"{c},{k},{k},0.9\n" for k in range(2) for c in CASES)
    third = write_as(tmp_path / "third.csv", PLAIN)
    (problem,) = read_scores([write(tmp_path, both), other, third]).problems
    assert problem.endswith("'Class' and 'Organ' could each be the structure; rename the right one structure")


PERCENT = [round(100 * d, 1) for d in DICE]


@pytest.mark.parametrize("name", ["t", "dice", "DSC"])
def test_percent_that_is_declared_is_divided(tmp_path, other, name):
    text = "case,dice,hd95\n" + "".join(f"{c},{d},3\n" for c, d in zip(CASES, PERCENT, strict=True))
    fractions = "case,dice,hd95\n" + "".join(f"{c},{d},3\n" for c, d in zip(CASES, DICE, strict=True))
    write_as(other, fractions if name == "t" else text)
    scores = read(tmp_path, text, other, percent=[name], metrics=["dice", "hd95"])
    assert list(column(scores).values()) == pytest.approx(DICE)
    assert set(scores.table["hd95"]) == {3}  # no share
    assert scores.understood[0].endswith("t.csv: 8 cases of method t; case, dice, percent, hd95")


def test_percent_is_declared_only_of_what_is_there_and_looks_like_it(tmp_path, other):
    percent = rows("case,dice", scores=PERCENT)
    with pytest.raises(ValueError, match="--percent iou: is neither; there are t, other, dice"):
        read(tmp_path, percent, other, percent=["iou"])
    with pytest.raises(ValueError, match=r"--percent dice: other has 0.93 to 0.97, no percent; name the methods"):
        read(tmp_path, percent, other, percent=["dice"])
    with pytest.raises(ValueError, match="--percent dice: is a method and a score; name the method apart"):
        read_scores([f"dice={write(tmp_path, percent)}", other], percent=["dice"])
    distances = rows("case,hd95", scores=PERCENT)
    write_as(other, distances)
    for name in ("t", "hd95"):
        with pytest.raises(ValueError, match=f"--percent {name}: no score between 0 and 1; name the score: hd95"):
            read(tmp_path, distances, other, percent=[name])
    text = rows("case,quality", scores=PERCENT)
    scores = read(tmp_path, text, write_as(other, text), percent=["quality"])
    assert list(column(scores).values()) == pytest.approx(DICE)
    with pytest.raises(ValueError, match=r"percent.*; divide its scores by 100, or say --percent 'my net'"):
        read_scores([f"my net={write(tmp_path, percent)}", write_as(other, PLAIN)])


@pytest.mark.parametrize(
    "text", [rows("case,dice", scores=PERCENT, extra="%"), rows("case;dice", ";", PERCENT, " %").replace(".", ",")]
)
@pytest.mark.parametrize("percent", [[], ["t"]])
def test_a_percent_sign_is_percent_once(tmp_path, other, text, percent):
    scores = read(tmp_path, text, other, percent=percent)
    assert list(column(scores).values()) == pytest.approx(DICE)
    assert "dice: 8 cell(s) with a % sign are read as percent" in scores.notes
    assert scores.understood[0].endswith("case, dice, percent")
    assert scores.understood[1].endswith("case, dice")


def test_a_score_in_percent_keeps_its_unit(tmp_path, other):
    text = rows("case,volume_error_percent", scores=[-5.5, 2, 3, 4, 5, 6, 7, 8], extra=" %")
    write_as(other, text.replace(" %", ""))
    scores = read(tmp_path, text, other)
    assert column(scores) == column(scores, "other")
    assert column(scores)["knee_00"] == -5.5
    assert scores.notes == ("volume_error_percent: 8 cell(s) with a % sign are read as numbers of %",)
