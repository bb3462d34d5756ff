"""The commands, as a user types them."""

import errno
import json
import os
import re
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.commands import call

import shapeloss
from shapeloss._files import atomic
from shapeloss.review.audit.summary import audit_summary
from shapeloss.runs.run import train

PAPER = Path(__file__).resolve().parents[2] / "reproduce" / "paper.yaml"


@pytest.fixture
def profile(tmp_path, tiny_experiment):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(json.loads(tiny_experiment.model_dump_json())))
    return path


def test_a_phantom_is_made_and_checked(monkeypatch, capsys, tmp_path, profile):
    assert not call(monkeypatch, "phantom", tmp_path / "data", "--profile", profile)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
        "dataset.json",
        "imagesTr",
        "labelsTr",
        "landmarks",
    ]
    assert not call(monkeypatch, "check", tmp_path / "data", "--profile", profile, "--output", tmp_path / "cases.json")
    assert "4 cases, classes femur, tibia, patella: no problem found" in capsys.readouterr().out
    assert json.loads((tmp_path / "cases.json").read_text(encoding="utf-8"))["name"] == "tiny"


def test_version_and_help(monkeypatch, capsys):
    assert not call(monkeypatch, "--version")
    assert capsys.readouterr().out == f"shapeloss {shapeloss.__version__}\n"
    project = tomllib.loads((PAPER.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert shapeloss.__version__ == project["version"]
    commands = [
        "phantom",
        "check",
        "predict",
        "evaluate",
        "compare",
        "audit",
        "audit paper",
        "reanalyze",
        "combine",
        "archive",
        "archive make",
        "archive check",
        "verify",
        "import",
        "import oai",
        "import pairs",
    ]
    for command in ("", *commands):
        for option in ("-h", "--help"):
            assert not call(monkeypatch, *command.split(), option)
            assert "Usage:" in capsys.readouterr().out


def test_a_checkout_that_is_not_installed_has_its_version(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(shapeloss, "version", missing)
    assert shapeloss._version() == shapeloss.__version__


def test_mistakes_end_in_a_message(monkeypatch, tmp_path, profile):
    assert "error: there is no profile" in call(monkeypatch, "check", tmp_path, "--profile", tmp_path / "none.yaml")
    message = call(monkeypatch, "check", tmp_path / "none", "--profile", profile)
    assert message.startswith("error: ")
    assert "there is no such folder" in message
    values = yaml.safe_load(profile.read_text(encoding="utf-8"))
    values["data"]["phantom"] = None
    profile.write_text(yaml.safe_dump(values))
    assert "has no section data.phantom" in call(monkeypatch, "phantom", tmp_path / "data", "--profile", profile)


@pytest.fixture
def pair(tmp_path):
    labels = np.zeros((6, 12, 12), np.uint8)
    labels[1:5, 2:10, 2:6] = 1
    labels[1:5, 2:10, 7:11] = 3
    for folder, values in (("truth", labels), ("found", np.roll(labels, 1, axis=1))):
        (tmp_path / folder).mkdir()
        for name in ("a", "b"):
            nibabel.save(nibabel.Nifti1Image(values, np.diag([3.0, 1, 1, 1])), tmp_path / folder / f"{name}.nii.gz")
    return tmp_path / "found", tmp_path / "truth"


def test_evaluate(monkeypatch, capsys, tmp_path, pair):
    options = ["--labels", "1:femur,3:tibia", "--metric", "dice", "--jobs", 1, "--output", tmp_path / "scores"]
    assert not call(monkeypatch, "evaluate", *pair, *options)
    assert "| femur | 2 | 0 | 0 | 0.875 ± 0.000 |" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "scores" / "per_case.csv")["structure"].unique().tolist() == [
        "femur",
        "tibia",
        "mean",
        "merged",
    ]
    (pair[1] / "c.nii.gz").write_bytes((pair[1] / "a.nii.gz").read_bytes())
    message = call(monkeypatch, "evaluate", *pair, *options)
    listed = f"listed above and in {tmp_path / 'scores/summary.md'}"
    assert message == f"error: 1 problem(s), {listed}; the other cases were scored"
    assert "c.nii.gz: has no prediction" in capsys.readouterr().out
    assert "labels must be written as 1:femur,3:tibia" in call(monkeypatch, "evaluate", *pair, "--labels", "femur")
    assert "a remapping must be written" in call(monkeypatch, "evaluate", *pair, "--remap", "7=1")


def test_evaluate_biomarkers(monkeypatch, capsys, tmp_path, pair):
    options = ["--labels", "1:a,3:b", "--metric", "dice", "--jobs", 1, "--output", tmp_path / "scores"]
    assert not call(monkeypatch, "evaluate", *pair, *options, "--biomarkers")
    shown = capsys.readouterr().out
    assert "Biomarkers" in shown
    assert "biomarkers.csv" in shown
    rows = pd.read_csv(tmp_path / "scores" / "biomarkers.csv")
    assert rows.groupby(["case", "structure"]).ngroups == 4
    assert (rows[rows["biomarker"] == "volume_cm3"]["difference"] == 0).all()  # moved, not resized
    assert "Shape errors" in shown
    assert "shape_errors.csv" in shown
    assert (pd.read_csv(tmp_path / "scores" / "shape_errors.csv")["absolute_mm"] > 0).all()
    assert "--side is that of the knees" in call(monkeypatch, "evaluate", *pair, *options, "--side", "left")
    message = call(monkeypatch, "evaluate", *pair, *options, "--biomarkers", "--side", "up")
    assert "--side must be left, right, or a CSV" in message


def test_compare(monkeypatch, capsys, tmp_path):
    for name, shift in (("first", 0.0), ("second", 0.02)):
        table = pd.DataFrame({"case": list("abcdefgh"), "dice": [0.9 + 0.001 * i + shift for i in range(8)]})
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    files = [tmp_path / "first.csv", f"new={tmp_path / 'second.csv'}"]
    assert not call(monkeypatch, "compare", *files, "--output", tmp_path / "out", "--margin", 0.05)
    assert "| new | -0.02 |" in capsys.readouterr().out
    assert (tmp_path / "out" / "differences.png").is_file()
    assert "needs the scores of two methods" in call(monkeypatch, "compare", files[0])
    write_csv(tmp_path / "third.csv", "case,dice\na,x\nb,\n")
    message = call(monkeypatch, "compare", files[0], tmp_path / "third.csv", "--output", tmp_path / "none")
    assert message.startswith(
        "error: no case has a score of first and of another method\n  - third: a has 'x' for dice"
    )
    assert not (tmp_path / "none").exists()
    write_csv(tmp_path / "named.csv", "case,dice\n" + "".join(f"{c},0.{k}\n" for k, c in enumerate("abcdefghn", 1)))
    assert not call(monkeypatch, "compare", files[0], tmp_path / "named.csv", "--output", tmp_path / "out")
    assert "1 row(s) that summarise the cases are left out: n; if they are cases" in capsys.readouterr().out
    arguments = (files[0], tmp_path / "named.csv", "--keep-summaries", "--output", tmp_path / "out")
    assert (
        call(monkeypatch, "compare", *arguments) == "error: 1 problem(s), listed above; the other cases were compared"
    )
    assert "first: lacks n, which another method has" in capsys.readouterr().out


def test_compare_reads_what_people_have(monkeypatch, capsys, tmp_path):
    rows = "".join(f"kn{k:02};{'FM'[k % 2]};{90 + k / 10};{91 + k / 9:.3f};{0.8 + k / 99:.3f}\n" for k in range(12))
    write_csv(tmp_path / "wide.csv", "Patient;sex;unet;vnet;ours\n" + rows.replace(".", ","))
    arguments = ("compare", tmp_path / "wide.csv", "--wide", "--metric", "stability", "--output", tmp_path / "out")
    arguments += ("--subgroup", "sex", "--reference", "ours")
    assert "ours has 0.8 to 0.911, no percent" in call(monkeypatch, *arguments, "--percent", "stability")
    assert not call(monkeypatch, *arguments)
    assert "--higher-is-better stability" in capsys.readouterr().out
    assert not call(monkeypatch, *arguments, "--lower-is-better", "stability")
    page = capsys.readouterr().out
    assert "## stability, lower is better" in page
    assert "| ours | 0.8556 | 1 (1 to 1), 100 % |" in page
    assert "### By sex" in page
    written = (
        "12 cases of methods unet, vnet, ours; case = Patient, subgroup = sex, stability in a column for each method"
    )
    assert written in page
    arguments = ("compare", tmp_path / "wide.csv", "--wide", "--metric", "DSC", "--output", tmp_path / "out")
    assert not call(monkeypatch, *arguments, "--percent", "unet", "--percent", "vnet", "--higher-is-better", "dice")
    assert "| ours | 0.856 ± 0.036 | <0.001 | 12 | 1 |" in capsys.readouterr().out


def test_audit(monkeypatch, capsys, tmp_path):
    assert not call(monkeypatch, "audit", "0.96", "0.12", "10", "--low", 0, "--high", 1, "--versus", "0.97 0.12")
    out = capsys.readouterr().out
    assert "One volume is at most 0.64, and the other nine average at least 0.99" in out
    assert "A paired t-test over 10 pairs gives p < 0.05 only if" in out
    (tmp_path / "rows.csv").write_text("name,mean,sd,n,low,high\nx,0.96,0.30,10,0,1\ny,0.50,0.10,10,0,1\nz,?,1,2,,\n")
    wrong = "error: 1 problem(s), each stated in the answer; the others were audited"
    assert call(monkeypatch, "audit", tmp_path / "rows.csv") == wrong
    out = capsys.readouterr().out
    assert "Row 1: x\n0.96 ± 0.30" in out
    assert "impossible" in out
    assert "0.50 ± 0.10" in out  # decimals as printed
    assert "Row 3: z\na reported number must be" in out
    assert call(monkeypatch, "audit", tmp_path / "rows.csv", "--output", tmp_path / "audited.csv") == wrong
    assert pd.read_csv(tmp_path / "audited.csv")["possible"].tolist()[:2] == [False, True]
    assert not call(monkeypatch, "audit", PAPER, "--output", tmp_path / "audit.md")
    assert "both were seen together on the phantom" in (tmp_path / "audit.md").read_text(encoding="utf-8")
    assert "give MEAN SD N, or one file" in call(monkeypatch, "audit", "0.96")
    assert "n must be a whole number" in call(monkeypatch, "audit", "0.96", "0.1", "ten")
    assert "lacks the columns" in call(monkeypatch, "audit", write_csv(tmp_path / "w.csv", "a,b\n1,2\n"))
    assert "--versus must be MEAN SD" in call(monkeypatch, "audit", "0.96", "0.1", "10", "--versus", "0.9")


def test_audit_has_three_commands_and_understands_the_old_form(monkeypatch, capsys, tmp_path):
    rows = write_csv(tmp_path / "r.csv", "mean,sd,n\n0.96,0.30,10\n")
    forms = {
        "number": (["0.96", "0.12", "10", "--low", 0, "--high", 1],) * 2,
        "table": ([rows, "--low", 0, "--high", 1],) * 2,
        "paper": ([PAPER, "--values-per-case", 1], ["--values-per-case", 1]),
    }
    for kind, (old, new) in forms.items():
        assert not call(monkeypatch, "audit", *old)
        expected = capsys.readouterr().out
        assert not call(monkeypatch, "audit", kind, *new)
        assert capsys.readouterr().out == expected
        assert len(expected) > 100


def test_audit_options_fill_blank_cells(monkeypatch, capsys, tmp_path):
    rows = write_csv(tmp_path / "r.csv", "mean,sd,n,high\n0.96,0.30,10,\n0.96,0.30,10,100\n")
    assert not call(monkeypatch, "audit", rows, "--low", 0, "--high", 1, "--output", tmp_path / "a.csv")
    assert pd.read_csv(tmp_path / "a.csv")["possible"].tolist() == [False, True]
    for arguments in ((rows, "--versus", "0.9 0.1"), (PAPER, "--high", 1)):  # options of `audit number`
        capsys.readouterr()
        assert call(monkeypatch, "audit", *arguments) == 2
        said = capsys.readouterr().err
        assert re.search(rf"No such option:? '?{arguments[1]}\b", said), said  # with quotes in later versions of Click
    semicolons = write_csv(tmp_path / "s.csv", "mean;sd;n\n0,96;0,1;10\n")
    capsys.readouterr()
    assert not call(monkeypatch, "audit", semicolons)
    shown = capsys.readouterr()
    assert shown.out.startswith("Row 1\n0.96 ± 0.1, n = 10")
    assert shown.err == f"{semicolons}: was read with semicolons and decimal commas\n"
    workbook = tmp_path / "book.csv"
    workbook.write_bytes(b"PK\x03\x04" + bytes(40))
    assert "is a spreadsheet or another zip archive" in call(monkeypatch, "audit", workbook)


def test_audit_takes_numbers_as_printed(monkeypatch, capsys):
    assert not call(monkeypatch, "audit", "0.96 ± 0.12", "10", "--low", 0, "--high", 1)
    assert "One volume is at most 0.64" in capsys.readouterr().out
    assert not call(monkeypatch, "audit", "--low", -5, "--", "-0.5", "0.2", "10")
    assert "-0.5 ± 0.2, n = 10" in capsys.readouterr().out
    numbers = ("0.29", "0.04", "10", "--versus", "0.27 ± 0.05")
    assert not call(monkeypatch, "audit", *numbers)
    nearest = capsys.readouterr().out.splitlines()
    assert not call(monkeypatch, "audit", *numbers, "--rounding", "truncated")
    truncated = capsys.readouterr().out.splitlines()
    for words in ("A paired t-test over 10 pairs", "- if the paired scores correlate at r = 0.5,"):
        assert [x for x in nearest if x.startswith(words)] != [x for x in truncated if x.startswith(words)]
    assert "rounding must be 'nearest' or 'truncated'" in call(monkeypatch, "audit", *numbers, "--rounding", "up")
    assert "--p: is the p-value of --versus" in call(monkeypatch, "audit", "0.9", "0.1", "10", "--p", 0.01)


def test_audit_says_how_probable_it_is_that_a_claim_is_false(monkeypatch, capsys):
    numbers = ("0.29", "0.04", "10", "--versus", "0.27 0.05", "--examples", 0)
    assert not call(monkeypatch, "audit", *numbers)
    out = capsys.readouterr().out
    for r, p in (("0", "17 %"), ("0.5", "10 %"), ("0.84", "2.3 %"), ("0.9", "1 %")):
        assert f"- if the paired scores correlate at r = {r}, {p} (" in out
    assert "correlations that Boundary Dice of two losses showed on phantom, study, hippocampus" in out
    assert "correlations that Global Dice of two losses showed" in out
    assert not call(monkeypatch, "audit", *numbers, "--metric", "dice")
    assert "that Boundary Dice of two losses showed" not in capsys.readouterr().out
    assert not call(monkeypatch, "audit", *numbers, "--correlation", 0.84)
    out = capsys.readouterr().out
    assert out.count("if the paired scores correlate at r = ") == 1
    assert "averaged over" not in out
    assert not call(monkeypatch, "audit", "0.27", "0.05", "10", "--versus", "0.29 0.04", "--correlation", 0.84)
    assert "r = 0.84, 2.3 % (" in capsys.readouterr().out  # the other one is then the better
    assert "--correlation: is that with --versus" in call(monkeypatch, "audit", *numbers[:3], "--correlation", 0.5)
    assert "must lie between -1 and 1; got 2" in call(monkeypatch, "audit", *numbers, "--correlation", 2)


def test_audit_sets_an_sd_beside_the_one_that_its_mean_predicts(monkeypatch, capsys):
    for numbers in (("0.95", "0.11", "10"), ("95", "11", "10", "--high", 100)):
        assert not call(monkeypatch, "audit", *numbers, "--metric", "dice", "--examples", 0)
        assert "a mean of 0.95 predicts an SD of 0.0099 (95 % prediction interval" in capsys.readouterr().out
    assert not call(monkeypatch, "audit", "0.29", "0.04", "10", "--metric", "boundary_dice_in_plane")
    assert "the mean of 0.29 lies outside the measured ones" in capsys.readouterr().out
    assert "for percent give --high 100" in call(monkeypatch, "audit", "95", "11", "10", "--metric", "dice")
    assert "--metric must be boundary_dice_in_plane or dice; got 'iou'" in call(
        monkeypatch, "audit", "0.9", "0.1", "10", "--metric", "iou"
    )


def test_audit_of_a_table_says_what_its_digits_show(monkeypatch, capsys, tmp_path):
    rows = write_csv(tmp_path / "r.csv", "name,mean,sd,n\na,0.91,0.12,10\nb,0.85,0.10,10\nc,0.91,0.12,10\n")
    assert not call(monkeypatch, "audit", rows)
    out = capsys.readouterr().out
    assert "Row 3: c\n0.91 ± 0.12" in out
    assert "The same mean and SD: 0.91 ± 0.12 in rows 1, 3." in out
    assert not call(monkeypatch, "audit", rows, "--output", tmp_path / "a.csv")
    assert "The same mean and SD" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "a.csv")) == 3
    single = write_csv(tmp_path / "s.csv", "mean,sd,n\n0.91,0.12,10\n")
    assert not call(monkeypatch, "audit", single)
    assert "Digits over the table" not in capsys.readouterr().out


def test_audit_of_a_paper_takes_other_measurements(monkeypatch, capsys, tmp_path):
    correlations = write_csv(tmp_path / "c.csv", "metric,r\nboundary_dice_in_plane,0\n")
    seeds = PAPER.parents[1] / "figures" / "study" / "per_case.csv"
    page = tmp_path / "a.md"
    assert not call(monkeypatch, "audit", "--correlations", correlations, "--trainings", seeds, PAPER, "--output", page)
    text = page.read_text(encoding="utf-8")
    assert "averaged over the 1 correlations that Boundary Dice of two losses showed on other data" in text
    trainings = pd.read_csv(seeds)[["loss", "seed"]].drop_duplicates()
    trained = f"{len(trainings)} trainings of {trainings['loss'].nunique()} losses"
    assert f"{trained}, each scored on the same 10 test volumes (study)" in text
    wrong = write_csv(tmp_path / "w.csv", "a,b\n1,2\n")
    assert "lacks the columns metric, r; it has a, b" in call(monkeypatch, "audit", "paper", "--correlations", wrong)


def write_csv(path, text):
    path.write_text(text)
    return path


def test_the_page_for_reviewers_quotes_the_audit():
    page = " ".join(
        (PAPER.parents[1] / "docs" / "reviewers.md").read_text(encoding="utf-8").replace("\n> ", " ").split()
    )
    text = audit_summary("0.96", "0.12", 10, 0, 1, examples=0).to_text().split("\nMildest")[0]
    assert " ".join(text.split()) in page


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EACCES, "{}: cannot be written or read (Permission denied); change its permissions"),
        (errno.EROFS, "{}: cannot be written (Read-only file system); choose a folder on another disk"),
        (errno.ENOSPC, "the disk is full at {}; free space and run the same command again"),
    ],
)
def test_an_output_that_cannot_be_written_is_named_with_a_remedy(
    monkeypatch, tmp_path, profile, pair, tiny_manifest, number, remedy
):
    """The superuser may write whatever its permissions are, so the system's answer is made here."""

    def refuse(dir, **_):
        raise OSError(number, os.strerror(number), f"{dir}/.partial-x86yrhdl.json")

    monkeypatch.setattr("shapeloss._files.tempfile.mkstemp", refuse)
    place = tmp_path / "out" / "cases.json"
    message = call(monkeypatch, "check", tiny_manifest.folder, "--profile", profile, "--output", place)
    assert message == "error: " + remedy.format(place)
    options = ["--metric", "dice", "--jobs", 1, "--output", tmp_path / "scores"]
    message = call(monkeypatch, "evaluate", *pair, *options)
    assert message == "error: " + remedy.format(tmp_path / "scores" / "per_case.csv")


def test_an_output_below_a_file(monkeypatch, tmp_path, profile, tiny_manifest):
    (tmp_path / "file").write_text("mine")
    place = tmp_path / "file" / "cases.json"
    message = call(monkeypatch, "check", tiny_manifest.folder, "--profile", profile, "--output", place)
    assert message.startswith(f"error: {tmp_path / 'file'}: ")
    assert message.endswith("; correct that and run the same command again")


def test_errors_of_a_write_name_the_target(tmp_path):
    (tmp_path / "there.csv").mkdir()
    with pytest.raises(IsADirectoryError) as caught, atomic(tmp_path / "there.csv") as temporary:
        temporary.write_text("x")
    assert caught.value.filename == str(tmp_path / "there.csv")
    with pytest.raises(FileNotFoundError) as other, atomic(tmp_path / "new.csv"):
        (tmp_path / "input.csv").read_text()
    assert other.value.filename == str(tmp_path / "input.csv")  # which is not the target's fault
    assert [path.name for path in tmp_path.iterdir()] == ["there.csv"]


def test_predict_says_what_was_kept(monkeypatch, capsys, tmp_path, tiny_experiment, tiny_manifest):
    train(tiny_experiment, tiny_manifest, "ce", 0, tmp_path / "run", tmp_path / "maps")
    name = tiny_manifest.names("test")[0]
    arguments = ("predict", tmp_path / "run", tiny_manifest.folder / f"imagesTr/{name}.nii.gz", tmp_path / "out")
    assert not call(monkeypatch, *arguments)
    written = f"label maps written in {tmp_path / 'out'}: 1 femur, 2 tibia, 3 patella\n"
    assert capsys.readouterr().out.endswith("1 " + written)
    assert not call(monkeypatch, *arguments)
    kept = "1 kept, which were there; make them again with --overwrite\n"
    assert capsys.readouterr().out.endswith("0 " + written + kept)
    assert not call(monkeypatch, *arguments, "--overwrite")
    assert capsys.readouterr().out.endswith("1 " + written)
    train(tiny_experiment, tiny_manifest, "ce", 1, tmp_path / "other", tmp_path / "maps")
    message = call(monkeypatch, "predict", tmp_path / "other", *arguments[2:])
    assert message.startswith(f"error: {tmp_path / 'out'}: holds label maps of another run or --side ({name}.nii.gz)")
    assert "\n" not in message
