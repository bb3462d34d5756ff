"""An archive: its metadata describe every file, and its rubric sees whatever does not agree."""

import json
import re
import shutil
from email.message import Message

import nbformat
import pytest
import yaml
from helpers.commands import call
from helpers.project import ROOT
from nbformat.v4 import new_code_cell, new_notebook, new_output

from shapeloss._files import file_hash
from shapeloss.data.checksums import load_tensors, read_checked_json, save_tensors, write_checked_json
from shapeloss.replication import archive
from shapeloss.replication.analysis import analyse
from shapeloss.replication.archive import METADATA, check_archive, write_archive
from shapeloss.replication.paper import read_paper
from shapeloss.replication.profile import load_experiment
from shapeloss.replication.scores import RECORD, write_record

LICENCE = "https://spdx.org/licenses/CC0-1.0"
COMMIT = "0" * 12
NOTEBOOKS = (
    "01_distance_maps", "02_train_ce_seed0", "02_train_dpce_seed0", "03_evaluate", "04_error_maps", "05_audit",
    "08_shape",
)  # fmt: skip


def scored_at(figures, commit):
    record = read_checked_json(figures / RECORD)
    record["provenance"]["commit"] = commit
    write_record(figures, record, record.pop("sha256"))


@pytest.fixture(scope="module")
def made(tiny_results, tiny_experiment, tmp_path_factory):
    """The archive of two trainings, and where it came from."""
    place = tmp_path_factory.mktemp("archive")
    results, profile = place / "results", place / "tiny.yaml"
    shutil.copytree(tiny_results, results)
    profile.write_text(yaml.safe_dump(tiny_experiment.model_dump(mode="json")), encoding="utf-8")
    for run in results.rglob("run.json"):
        write_checked_json(run, read_checked_json(run) | {"commit": COMMIT})
    scored_at(results / "figures", COMMIT)
    analyse(results / "figures", read_paper(archive.resource("paper.yaml")), results / "figures")
    (results / "notebooks").mkdir()
    for name in NOTEBOOKS:  # an empty cell is never executed
        cells = [new_code_cell("1", execution_count=1, outputs=[new_output("stream", text="1")]), new_code_cell("")]
        nbformat.write(new_notebook(cells=cells), results / "notebooks" / f"{name}.ipynb")
    left_out = write_archive(profile, results, results / "figures", place / "crate", LICENCE)
    return place, left_out


@pytest.fixture
def crate(made, tmp_path):
    """A copy to spoil."""
    shutil.copytree(made[0] / "crate", tmp_path / "crate")
    return tmp_path / "crate"


def states(crate, **options):
    return {tick.name: tick.state for tick in check_archive(crate, **options)}


def look_only_at(monkeypatch, *names):
    monkeypatch.setattr(archive, "CHECKS", [check for check in archive.CHECKS if check[0] in names])


def differing(crate):
    """The ticks that differ."""
    return {t.name: t.detail for t in check_archive(crate) if t.state == "differs"}


def resealed(crate):
    """The archive with metadata for the files that it now has, as a forger would write them."""
    path = crate / METADATA
    values = json.loads(path.read_text(encoding="utf-8"))
    for entity in values["@graph"]:
        if entity["@type"] == "File":
            entity["sha256"] = file_hash(crate / entity["@id"])
    path.write_text(json.dumps(values), encoding="utf-8")
    return crate


def test_a_sound_archive_agrees(made):
    assert made[1] == ["checkpoints of the trainings and cached maps, which are made again"]
    assert differing(made[0] / "crate") == {}


def test_the_metadata_are_an_ro_crate(made):
    """The rules of RO-Crate 1.1 for the metadata file, the root and its parts, and links that lead somewhere."""
    crate = made[0] / "crate"
    values = json.loads((crate / METADATA).read_text(encoding="utf-8"))
    assert values["@context"][0] == "https://w3id.org/ro/crate/1.1/context"
    entities = {entity["@id"]: entity for entity in values["@graph"]}
    assert len(entities) == len(values["@graph"])
    head, root = entities[METADATA], entities["./"]
    assert (head["@type"], head["about"]) == ("CreativeWork", {"@id": "./"})
    assert head["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    assert root["@type"] == "Dataset"
    assert root["license"] == {"@id": LICENCE}
    assert all(root[key] for key in ("name", "description", "datePublished"))
    files = {path.relative_to(crate).as_posix() for path in crate.rglob("*") if path.is_file()} - {METADATA}
    assert {part["@id"] for part in root["hasPart"]} == files
    for entity in entities.values():
        for key in ("object", "result", "mentions", "hasPart"):
            assert all(link["@id"] in entities for link in entity.get(key, []))
        if entity["@type"] == "CreateAction":
            assert entities[entity["instrument"]["@id"]]["@type"] == "SoftwareApplication"
    weights = "results/runs/ce/seed0/weights.safetensors"
    assert {"@id": weights} in entities["#runs/ce/seed0"]["result"]
    assert entities[weights]["sha256"] == file_hash(crate / weights)


def test_no_path_of_the_machine_and_no_checkpoint_is_archived(made):
    crate = made[0] / "crate"
    assert read_checked_json(crate / "results" / "cases.json")["folder"] == "data"
    assert not list(crate.rglob("checkpoint*"))
    machines = json.loads((crate / "environment" / "machines.json").read_text(encoding="utf-8"))
    assert [machine["trainings"] for machine in machines] == [["runs/ce/seed0", "runs/dpce/seed0"]]
    assert {"node", "system", "processor", "versions", "python", "commit"} <= set(machines[0])


def a_changed_file(crate):
    (crate / "figures" / "training.png").write_bytes(b"")
    return {"files": "training.png: its SHA-256 differs", "follows": ""}


def a_file_too_many(crate):
    (crate / "results" / "more.csv").write_text("", encoding="utf-8")
    return {"files": "results/more.csv: is not described"}


def a_file_is_gone(crate):
    shutil.rmtree(crate / "results" / "runs" / "ce")
    return {
        "files": "weights.safetensors: is not there",
        "complete": "runs/ce/seed0: no such",
        "together": "",
        "predicts": "",
    }


def another_score(crate):
    """In the scores and in all that follows from them: only the predictions tell."""
    path = crate / "figures" / "per_case.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    header, place = lines[0].split(","), next(i for i, line in enumerate(lines) if ",femur," in line)
    row = lines[place].split(",")
    row[header.index("dice")] = "0.75"
    lines[place] = ",".join(row)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    record = read_checked_json(path.with_name(RECORD))
    write_record(path.parent, record, record.pop("sha256"))
    analyse(path.parent, read_paper(archive.resource("paper.yaml")), path.parent)
    resealed(crate)
    return {"together": "a dice of 0.750000 is written"}


def other_weights(crate):
    """Recorded as if the training had written them: only predicting again tells."""
    run = crate / "results" / "runs" / "dpce" / "seed0"
    weights = {name: 2 - 3 * value for name, value in load_tensors(run / "weights.safetensors")[0].items()}
    save_tensors(run / "weights.safetensors", weights, {})
    values = read_checked_json(run / "run.json")
    values["sha256"]["weights.safetensors"] = file_hash(run / "weights.safetensors")
    write_checked_json(run / "run.json", values)
    resealed(crate)
    return {"predicts": "runs/dpce/seed0: "}


def an_edited_table(crate):
    path = crate / "figures" / "table1.md"
    path.write_text(path.read_text(encoding="utf-8").replace("dpce", "ours"), encoding="utf-8")
    resealed(crate)
    return {"follows": "table1.md: line"}


def a_cell_was_not_executed(crate):
    path = crate / "results" / "notebooks" / "03_evaluate.ipynb"
    cells = [new_code_cell("1", execution_count=1), new_code_cell("2")]
    nbformat.write(new_notebook(cells=cells), path)
    resealed(crate)
    return {"executed": "03_evaluate.ipynb: 1 of 2 cells were not executed"}


def a_notebook_is_gone(crate):
    (crate / "results" / "notebooks" / "08_shape.ipynb").unlink()
    return {"executed": "08_shape.ipynb: is not there", "files": "08_shape.ipynb: is not there"}


def no_notebooks(crate):
    shutil.rmtree(crate / "results" / "notebooks")
    return {"executed": "02_train_ce_seed0.ipynb: is not there", "files": ""}


def changes_where_the_scores_were_made(crate):
    scored_at(crate / "figures", f"{COMMIT}+changes")
    analyse(crate / "figures", read_paper(archive.resource("paper.yaml")), crate / "figures")
    resealed(crate)
    return {"known": f"commit {COMMIT}+changes of the scores: names no state of the code"}


def a_failed_cell(crate):
    path = crate / "results" / "notebooks" / "02_train_ce_seed0.ipynb"
    error = new_output("error", ename="ValueError", evalue="", traceback=[])
    nbformat.write(new_notebook(cells=[new_code_cell("1", execution_count=1, outputs=[error])]), path)
    resealed(crate)
    return {"executed": "02_train_ce_seed0.ipynb: a cell failed"}


@pytest.mark.parametrize(
    "spoil",
    [
        a_changed_file,
        a_file_too_many,
        a_file_is_gone,
        another_score,
        other_weights,
        an_edited_table,
        a_failed_cell,
        a_cell_was_not_executed,
        a_notebook_is_gone,
        no_notebooks,
        changes_where_the_scores_were_made,
    ],
)
def test_whatever_does_not_agree_is_seen(crate, spoil):
    expected, found = spoil(crate), differing(crate)
    assert set(found) == set(expected)
    for name, detail in expected.items():
        assert detail in found[name]


def test_changes_of_the_code_are_seen(crate, monkeypatch):
    look_only_at(monkeypatch, "known")
    path = crate / "environment" / "machines.json"
    machines = json.loads(path.read_text(encoding="utf-8"))
    for commit, state in (("0" * 12, "agrees"), ("0" * 12 + "+changes", "differs"), ("unknown", "differs")):
        path.write_text(json.dumps([machines[0] | {"commit": commit}]), encoding="utf-8")
        assert states(crate)["known"] == state


def test_the_notebooks_are_those_of_the_graph():
    """Every one that it executes, at the place where it puts it."""
    graph = (ROOT / "reproduce" / "Snakefile").read_text(encoding="utf-8")
    outputs = set(re.findall(r'notebook="notebooks/(.*)\.ipynb"', graph))
    experiment = load_experiment("smoke-study")
    trained = {"02_train_{loss}_seed{seed}", "variations/02_train_{variation}_{loss}_seed{seed}"}
    assert outputs == {*experiment.notebooks} | trained
    (name, varied), *_ = experiment.variations.items()
    found = list(archive._notebooks(experiment))
    assert f"variations/02_train_{name}_{varied.losses[0]}_seed{varied.seeds[0]}.ipynb" in found


def test_the_rubric_states_the_tolerances_of_the_checks(made, tiny_experiment):
    text = (made[0] / "crate" / "RUBRIC.md").read_text(encoding="utf-8")
    for tolerance in ("up to 0.1% of the voxels", "to within 1e-09", "root mean square difference of 2 of 255"):
        assert tolerance in text
    assert "cite the study" not in text
    cited = archive.rubric_text(tiny_experiment.model_copy(update={"study": "study"}))
    assert "cite the study `study`, which is not in the archive" in cited


def test_the_software_names_its_repository_and_commit(made, tiny_experiment, monkeypatch):
    crate, urls = made[0] / "crate", Message()
    for name in ("Documentation, https://example.org/docs", "Repository, https://example.org/code"):
        urls["Project-URL"] = name
    monkeypatch.setattr(archive, "metadata", lambda name: urls)
    graph = archive.describe(tiny_experiment, crate, LICENCE)["@graph"]
    (software,) = [entity for entity in graph if entity["@id"] == archive.SOFTWARE]
    assert (software["codeRepository"], software["version"]) == ("https://example.org/code", COMMIT)


def test_the_verdicts_follow_from_the_papers_numbers_in_the_archive(crate, monkeypatch):
    look_only_at(monkeypatch, "follows")
    path = crate / "paper.yaml"
    assert path.read_bytes() == archive.resource("paper.yaml").read_bytes()
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("margin: 0.01", "margin: 0.05"), encoding="utf-8")
    (tick,) = check_archive(crate)
    assert tick.state == "differs"
    assert "claims.md: line" in tick.detail
    path.write_text(f"{text}# a note\n", encoding="utf-8")
    (tick,) = check_archive(crate)
    assert tick.state == "agrees"
    assert "paper.yaml of the archive is not that of this version of shapeloss" in tick.detail


def test_data_that_are_not_in_the_archive_are_asked_for(crate, tmp_path, monkeypatch):
    look_only_at(monkeypatch, "predicts", "together")
    shutil.move(crate / "results" / "data", tmp_path / "data")
    assert states(crate)["predicts"] == "not looked at"
    assert states(crate, data=tmp_path / "data")["predicts"] == "agrees"
    shutil.copyfile(
        tmp_path / "data" / "labelsTr" / "knee_001.nii.gz", tmp_path / "data" / "labelsTr" / "knee_002.nii.gz"
    )
    assert states(crate, data=tmp_path / "data")["together"] == "differs"


def test_nothing_is_overwritten_or_half_written(made, tmp_path):
    results, profile = made[0] / "results", made[0] / "tiny.yaml"
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError, match="there is there already; give the name of a new folder"):
        write_archive(profile, results, results / "figures", tmp_path / "there", LICENCE)
    with pytest.raises(FileNotFoundError, match=r"per_case.csv does not exist: run make reproduce"):
        write_archive(profile, results, tmp_path / "there", tmp_path / "new", LICENCE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there"]


def test_the_commands(made, tmp_path, monkeypatch, capsys):
    results = made[0] / "results"
    options = ("--results", results, "--figures", results / "figures", "--licence", LICENCE)
    assert not call(monkeypatch, "archive", "make", made[0] / "tiny.yaml", tmp_path / "crate", *options)
    assert not call(monkeypatch, "archive", "check", tmp_path / "crate", "--output", tmp_path / "ticks.json")
    ticks = json.loads((tmp_path / "ticks.json").read_text(encoding="utf-8"))
    assert [tick["state"] for tick in ticks] == ["agrees"] * 7
    (tmp_path / "crate" / "RUBRIC.md").unlink()
    assert "files differ, as said above" in str(call(monkeypatch, "archive", "check", tmp_path / "crate"))
    assert "holds no ro-crate-metadata.json" in str(call(monkeypatch, "archive", "check", tmp_path))
