"""What was measured is read as it was written, or the file and the remedy are named."""

import hashlib
import importlib.util
import shutil
import sys

import pandas as pd
import pytest
from helpers.project import ROOT

from shapeloss.data.checksums import read_checked_json
from shapeloss.replication.analysis import read_evaluation
from shapeloss.replication.combine import TABLES, combine
from shapeloss.replication.scores import (
    RECORD,
    SCORES,
    read_measured,
    read_record,
    read_scores,
    recorded_tables,
    write_record,
    write_sealed,
)
from shapeloss.replication.study import TRAININGS, VARIATIONS, WEIGHTS, read_study


@pytest.fixture
def figures(tmp_path):
    rows = [{"loss": "ce", "case": f"00{case}", "structure": "mean", "dice": 0.5 + case / 100} for case in range(9)]
    pd.DataFrame(rows).to_csv(tmp_path / SCORES, index=False)
    write_record(tmp_path, {"source": "here"}, [SCORES, "histories.csv"])
    return tmp_path


def test_sound_scores_are_read(figures):
    assert read_record(figures)["source"] == "here"
    assert set(read_record(figures)["sha256"]) == {SCORES}
    assert list(read_scores(figures)["case"])[:2] == ["000", "001"]


def test_the_record_names_the_machines_of_the_trainings(tiny_results):
    """Both trainings ran on this one, which is named once."""
    run = read_checked_json(tiny_results / "runs" / "ce" / "seed0" / "run.json")
    (machine,) = read_evaluation(tiny_results / "figures").provenance.machines
    needed = ("commit", "python", "versions", "precision", "memory_format", "node", "system", "processor", "threads")
    assert machine == {key: run[key] for key in needed}


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "truncated":
        del data[data.index(b"\n", len(data) // 2) + 1 :]  # at the end of a row: it is a valid table
    else:
        data[data.index(b"0.5") + 2] ^= 1  # another digit
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_damaged_scores_are_refused_with_a_remedy(figures, how):
    damage(figures / SCORES, how)
    for read in (lambda: read_scores(figures), lambda: read_measured(figures / SCORES)):
        with pytest.raises(
            ValueError, match=r"per_case\.csv: is not what evaluation\.json recorded.*; remove .*03_eva"
        ):
            read()


def test_a_damaged_record_is_refused_with_a_remedy(figures):
    path = figures / RECORD
    path.write_text(path.read_text(encoding="utf-8").replace("here", "herf"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"evaluation\.json: is damaged, or was edited.*; remove .*03_evaluate"):
        read_scores(figures)


def test_scores_without_a_record_or_checksums_are_read_as_they_are(figures):
    (figures / RECORD).write_text("{}", encoding="utf-8")
    damage(figures / SCORES, "flipped")
    assert len(read_scores(figures)) == 9
    (figures / RECORD).unlink()
    assert len(read_scores(figures)) == 9


SEALED = {
    VARIATIONS: "06_study", TRAININGS: "06_study", WEIGHTS: "06_study", "surface_regions.csv": "04_error_maps",
    "heads.csv": "07_multi_task", "calibration.csv": "07_multi_task", "learnt_weights.csv": "07_multi_task",
    "biomarkers.csv": "08_shape", "shape_errors.csv": "08_shape",
}  # fmt: skip


@pytest.mark.parametrize("name", SEALED)
def test_a_table_that_is_measured_later_has_its_own_checksum(tmp_path, name):
    path = tmp_path / name
    table = pd.DataFrame({"loss": ["ce", "dice"], "case": ["001", "002"], "near": [0.5, 0.25]})
    assert write_sealed(table, path) is table
    assert path.read_bytes() == b"loss,case,near\nce,001,0.5\ndice,002,0.25\n"  # on every system
    seal = path.with_name(f"{name}.sha256")
    assert seal.read_text(encoding="utf-8") == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n"
    assert recorded_tables(tmp_path) == {name: (seal.read_text(encoding="utf-8")[:64], seal.name)}
    assert read_measured(path).equals(table)
    assert list(read_measured(path, dtype=str)["near"]) == ["0.5", "0.25"]
    damage(path, "flipped")
    remedy = rf"its SHA-256 differs; remove .*{name} and the results' notebooks/{SEALED[name]}\.ipynb, and run make"
    with pytest.raises(ValueError, match=remedy):
        read_measured(path)
    write_sealed(table, path)
    assert len(read_measured(path)) == 2  # measured again
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name}: is missing; remove .*{SEALED[name]}"):
        read_measured(path)
    assert (ROOT / "notebooks" / f"{SEALED[name]}.ipynb").is_file()


@pytest.mark.parametrize("name", [VARIATIONS, TRAININGS, WEIGHTS])
def test_a_study_is_not_made_of_damaged_tables(tmp_path, name):
    """Those of the committed study, which has no checksums of them, with checksums."""
    for table in TABLES:
        shutil.copy(ROOT / "figures" / "study" / table.name, tmp_path)
    shutil.copy(ROOT / "figures" / "study" / RECORD, tmp_path)
    write_sealed(pd.read_csv(tmp_path / name, dtype=str, keep_default_na=False), tmp_path / name)
    assert len(read_study(tmp_path).scores)
    damage(tmp_path / name, "truncated")
    experiment = read_evaluation(tmp_path).experiment
    for read in (lambda: read_study(tmp_path), lambda: combine(experiment, [tmp_path], tmp_path / "made")):
        with pytest.raises(ValueError, match=rf"{name}: is not what {name}.sha256 recorded"):
            read()


def test_parts_that_are_put_together_have_checksums(tmp_path):
    study = ROOT / "figures" / "study"
    combine(read_evaluation(study).experiment, [study], tmp_path)
    assert set(recorded_tables(tmp_path)) == {table.name for table in TABLES}
    for table in TABLES:
        read_measured(tmp_path / table.name)


def test_committed_results_without_checksums_are_read():
    for path in (ROOT / "figures").rglob(SCORES):
        assert len(read_scores(path.parent)), path
    assert len(read_study(ROOT / "figures" / "study").weights)


def _program(name, monkeypatch):
    """A module of reproduce/."""
    path = ROOT / "reproduce" / f"{name}.py"
    monkeypatch.syspath_prepend(str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("which", ["--figures", "--against"])
def test_compare_refuses_damaged_scores(tmp_path, monkeypatch, which):
    """Of the fresh run and of the one that it is compared with."""
    for name in ("fresh", "other"):
        (tmp_path / name).mkdir()
        shutil.copy(ROOT / "figures" / SCORES, tmp_path / name)
        write_record(tmp_path / name, {}, [SCORES])
    program = _program("compare", monkeypatch)
    command = ["compare.py", "--figures", str(tmp_path / "fresh"), "--against", str(tmp_path / "other")]
    monkeypatch.setattr(sys, "argv", command)
    program.main()
    damage(tmp_path / {"--figures": "fresh", "--against": "other"}[which] / SCORES, "flipped")
    with pytest.raises(SystemExit, match=rf"^error: .*{SCORES}: is not what {RECORD} recorded"):
        program.main()


def test_pages_are_not_filled_from_damaged_scores(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "figures", tmp_path / "figures", ignore=shutil.ignore_patterns("*.p*", "*.html"))
    shutil.copytree(ROOT / "reproduce", tmp_path / "reproduce")
    tables, pages = _program("benchmarks/correlations", monkeypatch), _program("readme", monkeypatch)
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    write_record(tmp_path / "figures", {}, [SCORES])
    damage(tmp_path / "figures" / SCORES, "flipped")
    for read in (pages.blocks, lambda: tables.tables(tmp_path / "figures")):
        with pytest.raises(ValueError, match=rf"{SCORES}: is not what {RECORD} recorded"):
            read()


def test_nothing_of_the_replication_reads_a_measured_table_by_itself():
    """But for the learning curves of each training, which its run.json seals."""
    readers = {p.name for p in (ROOT / "shapeloss/replication").rglob("*.py") if "read_csv" in p.read_text("utf-8")}
    assert readers == {"scores.py"}
    assert (ROOT / "shapeloss/replication/scores.py").read_text("utf-8").count("read_csv(") == 2
