"""Committed tables, verdicts and figures against the scores beside them: every change is named."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from helpers.commands import call
from helpers.project import ROOT
from PIL import Image

from shapeloss.replication.analysis import analyse, read_evaluation, record_measured
from shapeloss.replication.paper import read_paper
from shapeloss.replication.profile import load_experiment
from shapeloss.replication.reanalyze import reanalyze, remake_pages, report, result_folders
from shapeloss.replication.scores import RECORD, Provenance, read_measured, read_record, recorded_tables, write_record

PAPER = read_paper(ROOT / "reproduce" / "paper.yaml")
SCORES = ("dice", "boundary_dice_in_plane", "boundary_dice_3d")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What a run of three losses leaves behind: scores, curves, and all that follows from them."""
    folder = tmp_path_factory.mktemp("figures")
    random = np.random.default_rng(0)
    losses = ("dpce", "ce", "dice")
    rows = [
        {"loss": loss, "seed": 0, "case": f"c{case}", "structure": structure}
        | {name: round(0.5 + 0.3 * random.random(), 6) for name in SCORES}
        for loss in losses
        for case in range(7)
        for structure in ("femur", "mean", "merged")
    ]
    pd.DataFrame(rows).to_csv(folder / "per_case.csv", index=False)
    curves = [
        {"step": step, "train_loss": 1 / step, "learning_rate": 0.1, "val_dice": 1 - 1 / step, "loss": loss, "seed": 0}
        for loss in losses
        for step in (10, 20)
    ]
    pd.DataFrame(curves).to_csv(folder / "histories.csv", index=False)
    provenance = Provenance("0", "sagittal", ("32-true",), "0", ("0",))
    record_measured(folder, load_experiment("smoke"), provenance)
    analyse(folder, PAPER, folder)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    copy = tmp_path / "figures"
    shutil.copytree(made, copy)
    return copy


def problems(folder):
    return {found.name: found.problem for found in reanalyze(folder, PAPER) if found.problem}


def test_what_follows_from_the_scores_has_no_problem(folder):
    names = [found.name for found in reanalyze(folder, PAPER)]
    assert names == ["claims.md", "claims.png", "scores.png", "table1.csv", "table1.md", "table1.tex", "training.png"]
    assert problems(folder) == {}


@pytest.mark.parametrize("name", ["table1.md", "table1.tex", "table1.csv", "claims.md"])
def test_a_changed_digit_is_found(name, folder):
    path = folder / name
    text = path.read_text(encoding="utf-8")
    place = text.index("0.")
    digit = "1" if text[place + 3] != "1" else "2"
    path.write_text(text[: place + 3] + digit + text[place + 4 :], encoding="utf-8")
    assert list(problems(folder)) == [name]
    assert "the scores give …" in problems(folder)[name]


def test_a_changed_score_is_found_in_all_that_follows(folder):
    path = folder / "per_case.csv"
    table = pd.read_csv(path)
    table.loc[(table["loss"] == "dice") & (table["structure"] == "mean"), "dice"] += 0.01
    table.to_csv(path, index=False)
    record = read_record(folder)
    write_record(folder, record, record.pop("sha256"))
    assert {"table1.csv", "table1.md", "table1.tex", "claims.md", "scores.png"} <= set(problems(folder))


def test_another_picture_and_a_missing_file_are_found(folder):
    shutil.copy(folder / "scores.png", folder / "training.png")
    with Image.open(folder / "claims.png") as opened:
        picture = opened.convert("RGB")
    picture.paste((0, 0, 0), (100, 100, 400, 200))  # a bar
    picture.save(folder / "claims.png")
    (folder / "table1.tex").unlink()
    found = problems(folder)
    assert found["table1.tex"] == "is not there"
    assert "pixels, the scores give" in found["training.png"]
    assert found["claims.png"].startswith("is another picture (grey values differ by ")
    text, wrong = report([(folder, reanalyze(folder, PAPER))])
    assert wrong == 3
    assert "7 files, 3 of 7 differ" in text


def test_the_command(folder, monkeypatch, capsys):
    assert not call(monkeypatch, "reanalyze", folder.parent)  # finds the folder below
    assert f"{folder}: 7 files, as the scores give them" in capsys.readouterr().out
    (folder / "claims.md").write_text("all confirmed\n", encoding="utf-8")
    assert "1 file(s) are not what the scores give" in str(call(monkeypatch, "reanalyze", folder))
    (folder / RECORD).unlink()
    assert "no evaluation.json there, which make reproduce writes" in str(call(monkeypatch, "reanalyze", folder))


def test_last_digits_of_a_csv_may_differ_between_processors(folder):
    path = folder / "table1.csv"
    table = pd.read_csv(path)
    number = table.select_dtypes("float").columns[0]
    table[number] *= 1 + 1e-12
    table.to_csv(path, index=False, lineterminator="\n")
    assert problems(folder) == {}
    table[number] *= 1 + 1e-6
    table.to_csv(path, index=False, lineterminator="\n")
    assert list(problems(folder)) == ["table1.csv"]


def test_what_is_not_made_again_is_named(folder, monkeypatch, capsys):
    """Pictures of volumes, and folders of which nothing says what they hold."""
    shutil.copy(folder / "scores.png", folder / "figure1.png")
    older = folder / "older"
    older.mkdir()
    shutil.copy(folder / "per_case.csv", older)
    assert not call(monkeypatch, "reanalyze", folder)
    printed = capsys.readouterr().out
    assert "  not remade, as it takes more than these tables: figure1.png\n" in printed
    assert f"{older}: has scores, but no evaluation.json: nothing was made again" in printed


PAGES = {
    "figures": {"biomarkers.md", "biomarkers.png", "biomarkers_agreement.csv", "shape_errors.md"},
    "multi-task": {"calibration.png", "multi_task.csv", "multi_task.md"},
    "study": {"study.md"},
}


@pytest.mark.parametrize("folder", result_folders(ROOT / "figures"), ids=lambda path: path.name)
def test_every_committed_result_follows_from_its_scores(folder):
    found = reanalyze(folder, PAPER)
    assert [f"{each.name}: {each.problem}" for each in found if each.problem] == []
    assert PAGES.get(folder.name, set()) <= {each.name for each in found}


def test_a_page_names_the_commit_of_its_own_table_and_nothing_else_of_its_own(tmp_path):
    """Its table may be of later code than the scores; data, profile and seeds are theirs."""
    for name in (RECORD, "per_case.csv", "histories.csv", "shape_errors.csv"):
        shutil.copy(ROOT / "figures" / name, tmp_path)
    page, made = tmp_path / "shape_errors.md", tmp_path / "made"
    text = (ROOT / "figures" / page.name).read_text(encoding="utf-8")
    later = re.sub("Commit: [0-9a-f]+", "Commit: 0123456789ab+changes", text)
    for written, expected in ((later, later), (text.replace("Seeds: 0", "Seeds: 7"), text)):
        page.write_text(written, encoding="utf-8")
        remake_pages(tmp_path, PAPER, made)
        assert (made / page.name).read_text(encoding="utf-8") == expected


@pytest.mark.parametrize("part", sorted((ROOT / "reproduce" / "study_parts").iterdir()), ids=lambda path: path.name)
def test_the_parts_of_the_study_are_what_was_recorded_of_them(part):
    assert read_evaluation(part).experiment.losses
    tables = {path.name for path in part.glob("*.csv")}
    assert recorded_tables(part).keys() == tables
    assert all(len(read_measured(part / name)) for name in tables)
