"""A results folder is hashed again: each thing that does not belong there is named, and nothing else."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from helpers.commands import call

from shapeloss.data.checksums import read_checked_json, write_checked_json
from shapeloss.data.manifest import read_manifest
from shapeloss.metrics import DEFAULT_METRICS, score_case
from shapeloss.phantom.dataset import EXACT
from shapeloss.replication.analysis import record_measured
from shapeloss.replication.profile import Experiment
from shapeloss.replication.scores import (
    Provenance,
    read_record,
    recorded_tables,
    score_against_exact,
    score_variations,
    write_record,
    write_sealed,
)
from shapeloss.replication.verify import Verification, _score_rows, verify


@pytest.fixture
def folder(tiny_results, tmp_path):
    """A copy to spoil; `cases.json` names the folder of its data."""
    copy = tmp_path / "results"
    shutil.copytree(tiny_results, copy)
    write_checked_json(copy / "cases.json", read_checked_json(copy / "cases.json") | {"folder": str(copy / "data")})
    return copy


def test_a_sound_folder(folder):
    found = verify(folder, folder / "figures")
    assert found.problems == []
    assert found.notes == ["compared by checksum alone: histories.csv, landmark_errors.csv"]
    # 4 cases with image and label; 2 trainings with history, weights and one prediction; tables; cached arrays
    tables = len(list((folder / "figures").glob("*.csv")))
    assert tables == len(recorded_tables(folder / "figures")) > 2
    assert found.hashed == 8 + 2 * 3 + tables + len(list((folder / "maps").glob("*.npy")))
    # three structures, their mean, and all as one mask
    assert (found.trainings, found.rescored) == (2, 2 * 5 * len(DEFAULT_METRICS))


def test_a_score_that_is_none_is_that_of_the_prediction(folder):
    """A structure that the truth lacks has no error of volume in percent."""
    manifest = read_manifest(folder / "cases.json")
    case = manifest.original(manifest.names("test")[0])
    truth, metrics = np.where(case.labels == 3, 0, case.labels), ["dice", "volume_error_percent"]
    scored = score_case(truth, case.labels, case.spacing, manifest.classes, manifest.slice_axis, metrics)
    rows = pd.DataFrame(scored)
    assert not np.isfinite(rows[metrics].to_numpy(dtype=float)).all()
    found = Verification()
    _score_rows("here", rows, case, truth, case.labels, manifest, found)
    assert found.problems == []
    rows.loc[0, "dice"] = float("nan")
    _score_rows("here", rows, case, truth, case.labels, manifest, found)
    assert len(found.problems) == 1


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


def _edited(folder, change, name="per_case.csv"):
    path = folder / "figures" / name
    change(pd.read_csv(path)).to_csv(path, index=False)
    _recorded(folder)


def _case(folder):
    return read_manifest(folder / "cases.json").names("test")[0]


def _raised(structure, metric):
    return lambda table: table.assign(**{metric: table[metric] + 0.01 * (table["structure"] == structure)})


def a_score(folder):
    _edited(folder, _raised("femur", "dice"))
    return "femur: a dice of"


def a_boundary_score(folder):
    _edited(folder, _raised("tibia", "boundary_dice_in_plane"))
    return "tibia: a boundary_dice_in_plane of"


def a_mean_over_structures(folder):
    _edited(folder, _raised("mean", "boundary_dice_in_plane"))
    return "mean: a boundary_dice_in_plane of"


def _with_exact_surfaces(folder):
    """As if a reader had drawn other masks than the exact ones: here they are the same."""
    manifest = read_manifest(folder / "cases.json")
    shutil.copytree(folder / "data" / "labelsTr", folder / "data" / EXACT)
    record = read_record(folder / "figures")
    experiment = Experiment.model_validate(record["experiment"])
    score_against_exact(experiment, manifest, folder, folder / "figures" / "per_case_exact.csv")
    tables = [*record.pop("sha256"), "per_case_exact.csv"]
    write_record(folder / "figures", record, tables)


def a_score_against_the_exact_surfaces(folder):
    _with_exact_surfaces(folder)
    _edited(folder, _raised("patella", "dice"), "per_case_exact.csv")
    return f"per_case_exact.csv: reader, seed 0, {_case(folder)}, patella: a dice of"


def a_loss_without_scores(folder):
    _edited(folder, lambda table: table[table["loss"] != "ce"])
    return "per_case.csv: ce, seed 0 has no scores"


def a_loss_without_exact_scores(folder):
    _with_exact_surfaces(folder)
    _edited(folder, lambda table: table[table["loss"] != "ce"], "per_case_exact.csv")
    return "per_case_exact.csv: ce, seed 0 has no scores"


def a_structure_without_scores(folder):
    _edited(folder, lambda table: table[(table["loss"] != "ce") | (table["structure"] != "tibia")])
    return f"per_case.csv: ce, seed 0, {_case(folder)}, tibia has no scores"


def a_row_twice(folder):
    _edited(folder, lambda table: pd.concat([table, table[:1]]))
    return "femur is there 2 times"


def a_training_without_scores(folder):
    """That the profile does not name either."""
    shutil.copytree(folder / "runs" / "ce" / "seed0", folder / "runs" / "ce" / "seed1")
    return "per_case.csv: ce, seed 1 has no scores"


def no_record(folder):
    (folder / "figures" / "evaluation.json").unlink()
    return "evaluation.json: is not there, but per_case.csv is"


def no_exact_scores(folder):
    _with_exact_surfaces(folder)
    (folder / "figures" / "per_case_exact.csv").unlink()
    _recorded(folder)
    return "per_case_exact.csv: is not there"


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
    a_table_of_scores, curves, a_sealed_table, a_sealed_table_is_gone, a_boundary_score, a_mean_over_structures,
    a_score_against_the_exact_surfaces, a_loss_without_scores, a_loss_without_exact_scores, a_structure_without_scores,
    a_row_twice, a_training_without_scores, no_record, no_exact_scores,
)  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_what_does_not_belong_is_named(spoil, folder):
    message = spoil(folder)
    found = verify(folder, folder / "figures")
    assert any(message in problem for problem in found.problems), found.problems


def test_scores_of_other_cases_are_named(folder):
    """Those that there should be, and those that are there."""
    path = folder / "figures" / "per_case.csv"
    _edited(folder, lambda table: table.assign(case="knee_007"))
    problems = verify(folder, folder / "figures").problems
    assert problems == [
        f"{path}: knee_007 is no test case",
        *(f"{path}: {x}, seed 0 has no scores" for x in ("ce", "dpce")),
    ]


def test_scores_against_the_exact_surfaces_are_computed_again(folder):
    _with_exact_surfaces(folder)
    found = verify(folder, folder / "figures")
    assert (found.problems, found.rescored) == ([], (2 + 3) * 5 * len(DEFAULT_METRICS))


def test_scores_of_variations_are_complete_and_computed_again(folder, tiny_experiment):
    figures, trained = folder / "figures", folder / "variations" / "longer" / "ce" / "seed0"
    shutil.copytree(folder / "runs" / "ce" / "seed0", trained)
    values = tiny_experiment.model_dump(mode="json")
    values["variations"] = {"longer": {"losses": ["ce"], "training": {"learning_rate": 0.02}}}
    experiment = Experiment.model_validate(values)
    record = read_record(figures)
    record_measured(figures, experiment, Provenance(**record["provenance"]))
    manifest = read_manifest(folder / "cases.json")
    path = figures / "per_case_variations.csv"
    assert f"{path}: is not there, though 1 trainings have scores in it" in verify(folder, figures).problems
    table = score_variations(experiment, manifest, folder, path)
    found = verify(folder, figures)
    assert (found.problems, found.rescored) == ([], 3 * 5 * len(DEFAULT_METRICS))
    write_sealed(_raised("femur", "boundary_dice_3d")(table), path)
    (problem,) = verify(folder, figures).problems
    assert f"{path}: ce, seed 0, variation longer, {_case(folder)}, femur: a boundary_dice_3d of" in problem
    write_sealed(table[table["structure"] != "merged"], path)
    (problem,) = verify(folder, figures).problems
    assert problem == f"{path}: ce, seed 0, variation longer, {_case(folder)}, merged has no scores"


def test_what_cannot_be_computed_again_is_noted(folder):
    shutil.rmtree(folder / "data")
    pd.DataFrame({"loss": ["ce"]}).to_csv(folder / "figures" / "table1.csv", index=False)
    found = verify(folder, folder / "figures")
    assert found.problems == []
    assert any(note.startswith("per_case.csv: its scores were not computed again") for note in found.notes)
    assert any(note.startswith("no checksum is recorded of table1.csv: not compared") for note in found.notes)
    _edited(folder, lambda table: table[table["structure"] != "mean"])
    assert any("mean has no scores" in problem for problem in verify(folder, folder / "figures").problems)


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
    printed = capsys.readouterr().out
    assert f"2 trainings, {10 * len(DEFAULT_METRICS)} scores computed again: 0 problem(s)" in printed
    assert "note: compared by checksum alone: histories.csv, landmark_errors.csv" in printed
    message = a_label(folder)
    assert "1 problem(s), each named above" in str(call(monkeypatch, "verify", folder))
    assert message in capsys.readouterr().out
    assert json.loads((folder / "cases.json").read_text(encoding="utf-8"))  # nothing was changed
