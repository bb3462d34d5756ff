"""Committed tables, verdicts and figures against the scores beside them: every change is named."""

import shutil

import numpy as np
import pandas as pd
import pytest
from helpers.commands import call
from helpers.project import ROOT
from PIL import Image

from shapeloss.replication.analysis import analyse, record_measured
from shapeloss.replication.paper import read_paper
from shapeloss.replication.profile import load_experiment
from shapeloss.replication.reanalyze import reanalyze, report, result_folders
from shapeloss.replication.scores import RECORD, Provenance, read_record, write_record

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


@pytest.mark.parametrize("folder", result_folders(ROOT / "figures"), ids=lambda path: path.name)
def test_every_committed_result_follows_from_its_scores(folder):
    assert problems(folder) == {}
