"""A results folder is hashed again: each thing that does not belong there is named, and nothing else."""

import json
import shutil

import pandas as pd
import pytest
from helpers.commands import call

from shapeloss.data.checksums import read_checked_json, write_checked_json
from shapeloss.replication.scores import read_record, recorded_tables, write_record, write_sealed
from shapeloss.replication.verify import verify


@pytest.fixture
def folder(tiny_results, tmp_path):
    """A copy to spoil; `cases.json` names the folder of its data."""
    copy = tmp_path / "results"
    shutil.copytree(tiny_results, copy)
    write_checked_json(copy / "cases.json", read_checked_json(copy / "cases.json") | {"folder": str(copy / "data")})
    return copy


def test_a_sound_folder(folder):
    found = verify(folder, folder / "figures")
    assert (found.problems, found.notes) == ([], [])
    # 4 cases with image and label; 2 trainings with history, weights and one prediction; tables; cached arrays
    tables = len(list((folder / "figures").glob("*.csv")))
    assert tables == len(recorded_tables(folder / "figures")) > 2
    assert found.hashed == 8 + 2 * 3 + tables + len(list((folder / "maps").glob("*.npy")))
    assert (found.trainings, found.rescored) == (2, 2 * 3)


def flip(path, place=-40):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def a_label(folder):
    path = sorted((folder / "data" / "labelsTr").iterdir())[0]
    flip(path)
    return f"{path}: its SHA-256 is not that of cases.json"


def an_image_is_gone(folder):
    path = sorted((folder / "data" / "imagesTr").iterdir())[1]
    path.unlink()
    return f"{path}: is not there, but cases.json names it"


def swapped_predictions(folder):
    first, second = (next((folder / "runs" / loss / "seed0" / "predictions").iterdir()) for loss in ("dpce", "ce"))
    shutil.copy(first, second)
    return f"{second}: its SHA-256 is not that of seed0/run.json"


def weights(folder):
    path = folder / "runs" / "ce" / "seed0" / "weights.safetensors"
    flip(path)
    return f"{path}: is damaged: its checksum differs"


def a_stranger(folder):
    place = folder / "runs" / "ce" / "seed0" / "predictions"
    shutil.copy(next(place.iterdir()), place / "another.nii.gz")
    return f"{place}/another.nii.gz: is of no test case"


def a_prediction_is_gone(folder):
    path = next((folder / "runs" / "ce" / "seed0" / "predictions").iterdir())
    path.unlink()
    return f"{path}: is not there"


def edited_run(folder):
    path = folder / "runs" / "ce" / "seed0" / "run.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"seed": 0', '"seed": 1'), encoding="utf-8")
    return f"{path}: is damaged, or was edited"


def a_run_of_another_place(folder):
    shutil.rmtree(folder / "runs" / "ce")
    shutil.copytree(folder / "runs" / "dpce", folder / "runs" / "ce")
    return f"{folder / 'runs/ce/seed0'}: holds the training of dpce, seed 0"


def _rewritten(folder, **changes):
    path = folder / "runs" / "ce" / "seed0" / "run.json"
    write_checked_json(path, read_checked_json(path) | changes)


def other_data(folder):
    _rewritten(folder, data="0123456789abcdef")
    return "was trained on other data (hash 0123456789abcdef"


def other_options(folder):
    values = read_checked_json(folder / "runs" / "ce" / "seed0" / "run.json")["experiment"]
    values["training"]["steps"] = 99
    _rewritten(folder, experiment=values)
    return "trained with another section training than the rest of the table"


def a_cached_array(folder):
    path = sorted((folder / "maps").glob("*.npy"))[0]
    flip(path)
    return f"{path}: is damaged: its checksum differs; remove it"


def _recorded(folder):
    """What is there now is what was measured."""
    record = read_record(folder / "figures")
    write_record(folder / "figures", record, record.pop("sha256"))


def a_score(folder):
    path = folder / "figures" / "per_case.csv"
    table = pd.read_csv(path)
    table.loc[table["structure"] == "femur", "dice"] += 0.01
    table.to_csv(path, index=False)
    _recorded(folder)
    return "femur: a Dice of"


def a_table_of_scores(folder):
    path = folder / "figures" / "per_case.csv"
    flip(path)
    return f"{path}: is not what evaluation.json recorded"


def curves(folder):
    path = folder / "figures" / "histories.csv"
    flip(path)
    return f"{path}: its SHA-256 is not that of evaluation.json"


def a_sealed_table(folder):
    path = folder / "figures" / "weights.csv"
    write_sealed(pd.DataFrame({"loss": ["dpce"], "near": [0.5]}), path)
    flip(path, -2)
    return f"{path}: its SHA-256 is not that of weights.csv.sha256"


def a_sealed_table_is_gone(folder):
    path = folder / "figures" / "weights.csv"
    write_sealed(pd.DataFrame({"loss": ["dpce"], "near": [0.5]}), path)
    path.unlink()
    return f"{path}: is not there, but weights.csv.sha256 names it"


def scores_without_a_prediction(folder):
    path = folder / "figures" / "per_case.csv"
    table = pd.read_csv(path)
    pd.concat([table, table.assign(seed=7)]).to_csv(path, index=False)
    _recorded(folder)
    return "seed 7"


SPOILED = (
    a_label, an_image_is_gone, swapped_predictions, weights, a_stranger, a_prediction_is_gone, edited_run,
    a_run_of_another_place, other_data, other_options, a_cached_array, a_score, scores_without_a_prediction,
    a_table_of_scores, curves, a_sealed_table, a_sealed_table_is_gone,
)  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_what_does_not_belong_is_named(spoil, folder):
    message = spoil(folder)
    found = verify(folder, folder / "figures")
    assert any(message in problem for problem in found.problems), found.problems


def test_other_commits_and_old_runs_are_noted_not_wrong(folder):
    _rewritten(folder, commit="abcdef012345", sha256={})
    found = verify(folder)
    assert found.problems == []
    assert any("commit: 2 values among the trainings" in note for note in found.notes)
    assert any("an earlier version recorded no hashes of its predictions" in note for note in found.notes)
    shutil.rmtree(folder / "data")
    assert any("images and truth were not looked at" in note for note in verify(folder).notes)


def test_the_command(folder, monkeypatch, capsys):
    assert not call(monkeypatch, "verify", folder, "--figures", folder / "figures")
    assert "2 trainings, 6 scores computed again: 0 problem(s)" in capsys.readouterr().out
    message = a_label(folder)
    assert "1 problem(s), each named above" in str(call(monkeypatch, "verify", folder))
    assert message in capsys.readouterr().out
    assert json.loads((folder / "cases.json").read_text(encoding="utf-8"))  # nothing was changed
