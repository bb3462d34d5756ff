"""Imports: one layout and one record whatever the source; resumed, checked, and never done twice."""

import json
import os
import re
import subprocess
import sys
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK
import yaml
from helpers.archives import SHAPE, five_labels, on_hub, seal
from helpers.hub import Hub
from helpers.project import ROOT
from helpers.volumes import image_array, import_pairs, itk, mask_array, nifti, pair
from monai.apps import DecathlonDataset

from shapeloss._files import file_hash
from shapeloss.cli import main as cli
from shapeloss.data.manifest import prepare
from shapeloss.data.options import DataSource
from shapeloss.data.volume import Volume, read_labels, read_volume
from shapeloss.importers.folders import folder_entries, folder_source
from shapeloss.importers.oaizib_cm import default_cases, knee_side, parse_cases
from shapeloss.importers.writer import ImportProblems, Labels, write_cases
from shapeloss.replication.profile import Experiment, load_experiment

LICENCE = "licence of OAIZIB-CM was not accepted"


def state(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".import.lock"]  # says who held it
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def call(monkeypatch, *arguments):
    """The command in this process."""
    monkeypatch.setattr(sys, "argv", ["shapeloss", "import", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return str(ended.value.code or "")


def assert_sound(output, names, check="CRC-32 of each file"):
    record = json.loads((output / "import.json").read_text(encoding="utf-8"))
    assert sorted(record["cases"]) == names
    assert record["labels"] == {"1": "femur", "2": "tibia"}
    assert record["source"]["licence"] == "CC BY-NC 4.0"
    for name in names:
        case = record["cases"][name]
        expected = five_labels(int(name[-3:]) % 3)
        labels = read_labels(output / case["label"]).array
        assert np.array_equal(labels, np.select([expected == 1, expected == 3], [1, 2]))
        assert case["label_counts"] == {"femur": int((expected == 1).sum()), "tibia": int((expected == 3).sum())}
        assert case["shape"] == list(SHAPE)
        assert case["spacing"] == pytest.approx([0.7, 0.365, 0.365])
        assert case["image_sha256"] == file_hash(output / case["image"])
        assert case["side"] == "right"
        part = "Ts" if int(name[-3:]) > 404 else "Tr"
        assert sorted(case["archives"]) == [f"images{part}.zip", f"labels{part}.zip"]
        assert all(re.fullmatch(check, how) for how in case["archives"].values())


def test_from_the_hub_although_the_connection_breaks(hub, tmp_path):
    hub.breaks = {"imagesTr.zip", "labelsTs.zip"}
    out = tmp_path / "out"
    refused = on_hub(hub, tmp_path, out, "--cases", "1,405")
    assert LICENCE in refused.stderr
    assert "--accept-licence" in refused.stderr
    assert "CC BY-NC 4.0" in refused.stdout
    assert not out.exists()
    done = on_hub(hub, tmp_path, out, "--cases", "1,405", "--accept-licence")
    assert done.returncode == 0, done.stderr
    assert not hub.breaks
    assert_sound(out, ["oaizib_001", "oaizib_405"])
    before = state(out)
    again = on_hub(hub, tmp_path, out, "--cases", "1,405")  # the licence is not asked for again
    assert again.returncode == 0, again.stderr
    assert state(out) == before


def test_a_hub_that_is_down_is_said_and_nothing_is_lost(hub, tmp_path):
    out = tmp_path / "out"
    assert on_hub(hub, tmp_path, out, "--cases", "1", "--accept-licence").returncode == 0
    hub.server.shutdown()
    hub.server.server_close()
    failed = on_hub(hub, tmp_path, out, "--cases", "1,2")
    assert failed.returncode
    assert "cannot be read on the Hub" in failed.stderr
    assert "--archives" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert_sound(out, ["oaizib_001"])


def test_whole_archives_are_fetched_and_their_hash_is_compared(hub, tmp_path):
    hub.breaks = {"imagesTr.zip"}
    arguments = ["--archives", tmp_path / "fetched", "--download", "--cases", "1-2", "--accept-licence"]
    done = on_hub(hub, tmp_path, tmp_path / "out", *arguments)
    assert done.returncode == 0, done.stderr
    assert not hub.breaks
    check = "SHA-256 [0-9a-f]{64}, as the Hub has it"
    assert_sound(tmp_path / "out", ["oaizib_001", "oaizib_002"], check)
    assert file_hash(tmp_path / "fetched/imagesTr.zip") == file_hash(hub.folder / "imagesTr.zip")
    hub.wrong_hash = True
    failed = on_hub(hub, tmp_path, tmp_path / "other", *arguments)
    assert "imagesTr.zip: its SHA-256 is not 0000" in failed.stderr
    assert "delete it and try again" in failed.stderr


def test_a_download_that_was_killed_goes_on_where_it_was(hub, tmp_path):
    whole = (hub.folder / "imagesTr.zip").read_bytes()
    (tmp_path / "fetched").mkdir()
    (tmp_path / "fetched/imagesTr.zip.partial").write_bytes(whole[:300])  # what a kill leaves
    arguments = ["--archives", tmp_path / "fetched", "--download", "--cases", "1", "--accept-licence"]
    done = on_hub(hub, tmp_path, tmp_path / "out", *arguments)
    assert done.returncode == 0, done.stderr
    assert ("imagesTr.zip", "bytes=300-") in hub.ranges
    assert sorted(path.name for path in (tmp_path / "fetched").iterdir()) == ["imagesTr.zip", "labelsTr.zip"]
    assert_sound(tmp_path / "out", ["oaizib_001"], f"SHA-256 ({file_hash(hub.folder / 'imagesTr.zip')}|.*), as .*")


def test_what_a_killed_import_of_archives_left_is_swept(archives, tmp_path, monkeypatch):
    """Scan and label map were extracted: they must not stay in a temporary folder that nobody empties."""
    code = (
        "import os, signal; from shapeloss.cli import main as cli; from shapeloss.importers import archives\n"
        "archives.read_labels = lambda path: os.kill(os.getpid(), signal.SIGKILL)\ncli.main()"
    )
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    scratch.mkdir()
    arguments = ["oaizib", out, "--archives", archives, "--cases", "1", "--accept-licence"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(scratch)}
    killed = subprocess.run([sys.executable, "-c", code, "import", *map(str, arguments)], env=environment)
    assert killed.returncode == -9
    assert not list(scratch.rglob("*.nii*"))
    assert len([path for path in out.iterdir() if path.name.startswith(".partial-")]) == 2
    assert not call(monkeypatch, *arguments)
    assert {path.name for path in out.iterdir()} == {
        ".import.lock",
        "dataset.json",
        "import.json",
        "imagesTr",
        "labelsTr",
    }
    assert_sound(out, ["oaizib_001"])


def test_from_archives_that_are_there(archives, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert not call(monkeypatch, "oaizib", out, "--archives", archives, "--cases", "2,404-405", "--accept-licence")
    assert "3 cases with femur, tibia" in capsys.readouterr().out
    assert_sound(out, ["oaizib_002", "oaizib_404", "oaizib_405"])
    before = state(out)
    assert not call(monkeypatch, "oaizib", out, "--archives", archives, "--cases", "2,404-405")
    assert state(out) == before
    assert not call(monkeypatch, "oaizib", out, "--archives", archives, "--cases", "1")
    assert_sound(out, ["oaizib_001", "oaizib_002", "oaizib_404", "oaizib_405"])
    other = ("--labels", "2:cartilage")
    assert "holds an import of OAIZIB-CM" in call(
        monkeypatch, "oaizib", out, "--archives", archives, "--cases", "1", *other
    )


@pytest.mark.parametrize(
    ("axes", "medial", "side"),
    [("RAS", 4, "right"), ("LPS", 4, "right"), ("PIR", 4, "right"), ("RAS", 5, "left"), ("LPS", 5, "left")],
)
def test_left_and_right_by_the_label_map(axes, medial, side):
    """However the file stores its axes; without both cartilages nothing is said."""
    mask = five_labels()
    mask = np.where(mask >= 4, 9 - mask, mask) if medial == 5 else mask
    volume = Volume(mask, np.diag([0.7, 0.365, 0.365, 1.0])).oriented(axes)
    assert knee_side(volume) == side
    assert knee_side(replace(volume, array=np.where(volume.array == 5, 0, volume.array))) == ""


def test_mirroring_takes_the_sides_of_oaizib(archives, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert not call(monkeypatch, "oaizib", out, "--archives", archives, "--cases", "1,2,404", "--accept-licence")
    data = {"split": {"train": 1, "validation": 1, "test": 1}, "mirror_to": "left"}
    mirrored = Experiment(name="x", description="x", losses=["ce"], data=data)
    manifest = prepare(mirrored.data, out, tmp_path / "cases.json")
    assert [case["mirrored"] for case in manifest.cases] == [True] * 3


def test_the_forty_cases_are_those_of_the_profile():
    profile = load_experiment(ROOT / "reproduce/profiles/oaizib.yaml")
    cases = default_cases()
    assert parse_cases(profile.data.source.cases) == cases
    assert len(cases) == len(set(cases)) == profile.data.split.cases == 40
    assert [f"oaizib_{number}" for number in cases if number > 404] == sorted(profile.data.split.test_cases)
    assert sum(number <= 404 for number in cases) == 30


@pytest.mark.parametrize("text", ["", "a", "0", "508", "5-3", "1,,2", "1-"])
def test_cases_are_numbers(text):
    with pytest.raises(ValueError, match="cases"):
        parse_cases(text)


@pytest.mark.parametrize("path", sorted((ROOT / "reproduce/profiles").glob("*.yaml")), ids=lambda path: path.stem)
def test_each_profile_says_how_its_data_come(path):
    source = load_experiment(path).data.source
    if source is None:
        assert load_experiment(path).data.phantom
    else:
        written = yaml.safe_load(path.read_text(encoding="utf-8"))["data"]["source"]["kind"]
        assert source.command(f"reproduce/profiles/{path.name}").startswith(f"shapeloss import {written} ")


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A tiny Task04_Hippocampus as the Decathlon packs it, with the hash that MONAI would know."""
    for name in "ab":
        nifti(tmp_path / f"Task04/imagesTr/{name}.nii.gz", image_array())
        nifti(tmp_path / f"Task04/labelsTr/{name}.nii.gz", (mask_array() > 0).astype(np.uint8))
    listed = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in "ab"]
    description = {"labels": {"0": "background", "1": "anterior"}, "training": listed, "modality": {"0": "MRI"}}
    (tmp_path / "Task04/dataset.json").write_text(json.dumps(description))
    pack(monkeypatch, tmp_path / "Task04", tmp_path / "Task04_Hippocampus.tar")
    return tmp_path / "Task04_Hippocampus.tar"


def pack(monkeypatch, folder, tar):
    with tarfile.open(tar, "w") as archive:
        archive.add(folder, "Task04_Hippocampus")
    seal(monkeypatch, tar)


def test_decathlon(task, tmp_path, monkeypatch, capsys):
    arguments = ["decathlon", "Task04_Hippocampus", tmp_path / "out"]
    assert not call(monkeypatch, *arguments, "--archive", task)
    assert "2 cases with anterior" in capsys.readouterr().out
    record = json.loads((tmp_path / "out/import.json").read_text(encoding="utf-8"))
    assert record["source"]["version"].startswith("MD5 ")
    assert record["source"]["licence"] == "CC BY-SA 4.0"
    before = state(tmp_path / "out")
    assert not call(monkeypatch, *arguments)  # the tar beside the output is taken as downloaded
    assert state(tmp_path / "out") == before
    assert "no task 'Task99'" in call(monkeypatch, "decathlon", "Task99", tmp_path / "other")
    task.write_bytes(task.read_bytes() + b"\0")
    assert "its MD5 is not" in call(monkeypatch, "decathlon", "Task04_Hippocampus", tmp_path / "other")


def test_faults_of_a_decathlon_task_are_named_and_its_other_cases_imported(task, tmp_path, monkeypatch):
    """A label that the task does not declare is no background; an entry that names no files, and a file not packed."""
    folder, out = tmp_path / "Task04", tmp_path / "out"
    nifti(folder / "labelsTr/b.nii.gz", mask_array())
    described = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    described["training"] += ["c", {"image": "./imagesTr/d.nii.gz", "label": "./labelsTr/b2.nii.gz"}]
    (folder / "dataset.json").write_text(json.dumps(described))
    pack(monkeypatch, folder, task)
    message = call(monkeypatch, "decathlon", "Task04_Hippocampus", out)
    assert "case b (" in message
    assert "has label(s) 3 outside the declared 0 background, 1 anterior; choose by --labels" in message
    assert f"{task}: dataset.json: entry 3 of 'training' is c; write it as" in message
    assert f"{task}: holds no imagesTr/d.nii.gz, which its dataset.json lists" in message
    assert list(json.loads((out / "import.json").read_text(encoding="utf-8"))["cases"]) == ["a"]
    chosen = call(monkeypatch, "decathlon", "Task04_Hippocampus", tmp_path / "chosen", "--labels", "1:anterior")
    assert "2 sound case(s)" in chosen
    assert "outside the declared" not in chosen
    (folder / "dataset.json").write_text("{}")
    pack(monkeypatch, folder, task)
    assert call(monkeypatch, "decathlon", "Task04_Hippocampus", out).startswith(f"error: {task}: 1 problem(s)")


def test_decathlon_is_downloaded(task, tmp_path, monkeypatch):
    hub = Hub(tmp_path)
    monkeypatch.setitem(DecathlonDataset.resource, "Task04_Hippocampus", f"{hub.url}/resolve/main/{task.name}")
    assert not call(monkeypatch, "decathlon", "Task04_Hippocampus", tmp_path / "fresh/out")
    assert file_hash(tmp_path / "fresh" / task.name) == file_hash(task)
    hub.close()
    (tmp_path / "fresh" / task.name).unlink()
    message = call(monkeypatch, "decathlon", "Task04_Hippocampus", tmp_path / "fresh/again")
    assert "cannot be downloaded" in message
    assert "--archive" in message


def test_a_tar_that_climbs_out_is_refused(task, tmp_path, monkeypatch):
    for name, kind in (
        ("Task04_Hippocampus/../../outside", tarfile.REGTYPE),
        ("Task04_Hippocampus/link", tarfile.SYMTYPE),
    ):
        sound = task.read_bytes()
        with tarfile.open(task, "a") as archive:
            entry = tarfile.TarInfo(f"Task04_Hippocampus/{name}")
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
        seal(monkeypatch, task)
        message = call(monkeypatch, "decathlon", "Task04_Hippocampus", tmp_path / "other", "--archive", task)
        assert "nothing was extracted, get another copy" in message
        task.write_bytes(sound)
        assert not list(tmp_path.rglob("outside"))


def test_a_folder_as_nnunet_has_it(tmp_path):
    """NRRD files with `_0000`, labels as {name: number}; three labels merged into two."""
    source = tmp_path / "Dataset001"
    for name in ("k1", "k2"):
        itk(source / f"imagesTr/{name}_0000.nrrd", np.random.default_rng(0).integers(0, 99, (4, 6, 5)).astype(np.int16))
        mask = mask_array()
        mask[0, 0, 0] = 7
        itk(source / f"labelsTr/{name}.nrrd", mask)
    description = {"channel_names": {"0": "DESS"}, "file_ending": ".nrrd", "licence": "CC0", "release": "2.0"}
    labels = {"background": 0, "femur": 1, "cartilage": 2, "tibia": 3}
    (source / "dataset.json").write_text(json.dumps(description | {"labels": labels}))
    entries, own, problems = folder_entries(source)
    assert own.names == {1: "femur", 2: "cartilage", 3: "tibia"}
    assert not problems
    described = folder_source(source)
    assert (described.name, described.licence, described.version, described.modality) == (
        "Dataset001",
        "CC0",
        "2.0",
        "DESS",
    )
    record = write_cases(tmp_path / "out", entries, Labels({1: "femur", 3: "tibia"}, {7: 1}), described, progress=False)
    expected = np.isin(mask, (1, 7)).astype(np.uint8) + 2 * (mask == 3)
    assert np.array_equal(read_labels(tmp_path / "out/labelsTr/k1.nii.gz").array, expected)
    assert record["cases"]["k1"]["label_counts"]["femur"] == int((expected == 1).sum())
    assert json.loads((tmp_path / "out/dataset.json").read_text(encoding="utf-8"))["modality"] == {"0": "DESS"}
    itk(source / "imagesTr/k2_0001.nrrd", mask_array())
    (source / "labelsTr/k1.nrrd").unlink()
    (source / "labelsTr/k1.nrrd").symlink_to(tmp_path / "out/labelsTr/k1.nii.gz")
    problems = folder_entries(source)[2]
    assert "k2_0001.nrrd: is a second channel of case k2" in problems[0]
    assert "k1.nrrd: is a link that leads out of" in problems[1]


@pytest.fixture
def with_ignore(tmp_path):
    """A folder in nnU-Net's layout with a label to ignore, 3, and a file beside the images."""
    source = tmp_path / "set"
    nifti(source / "imagesTr/k1_0000.nii.gz", image_array())
    nifti(source / "labelsTr/k1.nii.gz", mask_array())
    (source / "imagesTr/notes.txt").touch()
    labels = {"background": 0, "femur": 1, "tibia": 2, "ignore": 3}
    (source / "dataset.json").write_text(json.dumps({"labels": labels}))
    return source


def test_a_label_to_ignore_is_imported_where_it_is_merged(monkeypatch, capsys, tmp_path, with_ignore):
    for options in ((), ("--labels", "1:femur,2:tibia"), ("--remap", "2:1")):
        message = call(monkeypatch, "folder", with_ignore, tmp_path / "out", *options)
        assert "label 3 is 'ignore' (voxels without a truth)" in message
        assert not (tmp_path / "out").exists()
    assert not call(monkeypatch, "folder", with_ignore, tmp_path / "out", "--remap", "3:0")
    assert "imagesTr: not used (they are no volumes by their names): notes.txt" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/dataset.json").read_text(encoding="utf-8"))["labels"]["1"] == "femur"
    found = read_labels(tmp_path / "out/labelsTr/k1.nii.gz").array
    assert np.array_equal(found, mask_array() * (mask_array() == 1))


def test_names_that_belong_to_another_label_are_refused(monkeypatch, tmp_path, with_ignore):
    arguments = ("--labels", "1:tibia", "--remap", "3:0")
    for command in (("folder", with_ignore), ("pairs", with_ignore / "imagesTr", with_ignore / "labelsTr")):
        message = call(monkeypatch, *command, tmp_path / "out", *arguments)
        assert re.search(
            r"--labels contradicts .*dataset.json: label 1 is called 'tibia', which is label 2 there", message
        )
        assert "(1 is 'femur'); correct --labels" in message
    assert not (tmp_path / "out").exists()


def test_many_faults_of_one_kind_are_folded_in_the_message(tmp_path):
    for number in range(9):
        nifti(tmp_path / f"images/k{number}.nii.gz", image_array())
    pair(tmp_path, "sound")
    with pytest.raises(ImportProblems) as caught:
        import_pairs(tmp_path, tmp_path / "out")
    assert len(caught.value.problems) == 9
    assert str(caught.value).endswith("… and 6 more like the line above (9 in all)")


def test_oblique_volumes_stay_where_they_are(tmp_path):
    direction = (0.8, 0.6, 0, -0.6, 0.8, 0, 0, 0, 1)
    image, mask = np.random.default_rng(0).integers(0, 99, (4, 6, 5)).astype(np.int16), mask_array()
    itk(tmp_path / "images/k.nrrd", image, direction)
    itk(tmp_path / "labels/k.mhd", mask, direction)
    import_pairs(tmp_path, tmp_path / "out")
    theirs = SimpleITK.ReadImage(str(tmp_path / "images/k.nrrd"))
    ours = SimpleITK.ReadImage(str(tmp_path / "out/imagesTr/k.nii.gz"))
    assert ours.GetDirection() == pytest.approx(theirs.GetDirection(), abs=1e-6)
    assert ours.GetSpacing() == pytest.approx(theirs.GetSpacing(), abs=1e-6)
    assert np.array_equal(SimpleITK.GetArrayFromImage(ours), SimpleITK.GetArrayFromImage(theirs))


def test_an_interrupted_import_goes_on(tmp_path, monkeypatch):
    for name in ("a", "b"):
        pair(tmp_path, name)

    def stopped(*arguments):
        raise KeyboardInterrupt

    import_pairs(tmp_path, tmp_path / "whole")
    real = write_cases.__globals__["_write"]
    monkeypatch.setitem(write_cases.__globals__, "_write", lambda *a: stopped(*a) if a[1] == "b" else real(*a))
    with pytest.raises(KeyboardInterrupt):
        import_pairs(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out/dataset.json").exists()  # half an import is no data set
    monkeypatch.undo()
    import_pairs(tmp_path, tmp_path / "out")
    for name in ("dataset.json", "import.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_changed_is_imported_anew(tmp_path):
    for name in ("a", "b"):
        pair(tmp_path, name)
    import_pairs(tmp_path, tmp_path / "out")
    before = state(tmp_path / "out")
    (tmp_path / "out/labelsTr/a.nii.gz").write_bytes(b"spoiled")
    import_pairs(tmp_path, tmp_path / "out")
    assert {name: data for name, (_, data) in state(tmp_path / "out").items()} == {
        name: data for name, (_, data) in before.items()
    }
    pair(tmp_path, "b", mask=np.roll(mask_array(), 1, 0))  # the source is another one now
    record = import_pairs(tmp_path, tmp_path / "out")
    assert np.array_equal(read_labels(tmp_path / "out/labelsTr/b.nii.gz").array > 0, np.roll(mask_array(), 1, 0) > 0)
    assert record["cases"]["b"]["label_sha256"] == file_hash(tmp_path / "out/labelsTr/b.nii.gz")


def test_a_record_of_an_earlier_format_is_made_anew(tmp_path):
    """Without a number it named the files of OAI, dates among them."""
    for name in ("a", "b"):
        pair(tmp_path, name)
    out = tmp_path / "out"
    import_pairs(tmp_path, out)
    before = {name: data for name, (_, data) in state(out).items()}
    old = json.loads(before["import.json"])
    del old["format"]
    for case in old["cases"].values():
        case["imported_from"] = {"20050107/Doe^Jane": "0" * 64}
    (out / "import.json").write_text(json.dumps(old))
    (tmp_path / "labels/b.nii.gz").unlink()  # what is not imported this time keeps no such name either
    with pytest.raises(ImportProblems, match=r"b.nii.gz: has no label map"):
        import_pairs(tmp_path, out)
    assert "Doe" not in (out / "import.json").read_text(encoding="utf-8")
    pair(tmp_path, "b")
    import_pairs(tmp_path, out)
    after = {name: data for name, (_, data) in state(out).items()}
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] != before[name]] == ["import.json"]  # another time of b's source
    new, first = json.loads(after["import.json"]), json.loads(before["import.json"])
    assert new["cases"]["a"] == first["cases"]["a"]
    assert list(new) == list(first)


def test_other_folders_are_left_alone(tmp_path):
    pair(tmp_path, "a")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"mine is not empty and holds no import.json; import into a new folder"):
        import_pairs(tmp_path, tmp_path / "mine")
    (tmp_path / "mine/import.json").write_text("[]")
    with pytest.raises(ValueError, match="is not a record of an import"):
        import_pairs(tmp_path, tmp_path / "mine")
    with pytest.raises(ValueError, match="is a file"):
        import_pairs(tmp_path, tmp_path / "mine/thesis.txt")


def test_a_small_memory_is_a_problem_of_one_case(tmp_path, monkeypatch):
    for name in ("a", "b"):
        pair(tmp_path, name)

    def greedy(path):
        if path.name == "a.nii.gz":
            raise MemoryError
        return read_volume(path)

    monkeypatch.setattr("shapeloss.importers.writer.read_volume", greedy)
    with pytest.raises(ImportProblems, match="case a: there is not enough memory") as caught:
        import_pairs(tmp_path, tmp_path / "out")
    assert len(caught.value.problems) == 1


def test_what_is_imported_passes_the_check(tmp_path, monkeypatch, capsys):
    """Pairs by the command, with the labels of a profile, and then the check that precedes a run."""
    for index, name in enumerate(("a", "b", "c")):
        pair(tmp_path, name, image_array() + index)
    profile = {
        "name": "mine",
        "description": "my knees",
        "data": {
            "split": {"train": 1, "validation": 1, "test": 1},
            "source": {"kind": "pairs", "labels": {3: "tibia", 1: "femur"}, "remap": {2: 1}},
        },
        "losses": ["ce"],
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(profile, sort_keys=False))
    arguments = ["pairs", tmp_path / "images", tmp_path / "labels", tmp_path / "out"]
    assert not call(monkeypatch, *arguments, "--profile", tmp_path / "mine.yaml")
    assert "3 cases with tibia, femur" in capsys.readouterr().out
    manifest = prepare(Experiment.model_validate(profile).data, tmp_path / "out", tmp_path / "cases.json")
    assert manifest.classes == {1: "tibia", 2: "femur"}
    assert "name the structures to keep" in call(monkeypatch, *arguments)
    message = call(monkeypatch, "folder", tmp_path, tmp_path / "new", "--profile", tmp_path / "mine.yaml")
    assert "shapeloss import pairs" in message


def test_nothing_is_left_where_nothing_was_imported(tmp_path):
    pair(tmp_path, "a", np.zeros(SHAPE, np.int16))
    with pytest.raises(ImportProblems):
        import_pairs(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_system_without_flock_locks_nothing(tmp_path):
    code = (
        "import sys; sys.modules['fcntl'] = None; from shapeloss import _files as files\n"
        "with files.locked('x'): print('inside')"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(
        run, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, encoding="utf-8"
    )
    assert done.stdout == "inside\n", done.stderr


def test_labels_make_sense():
    for names in ({}, {0: "background"}):
        with pytest.raises(ValueError, match="structure"):
            Labels(names)
    with pytest.raises(ValueError, match="kind"):
        DataSource.model_validate({"kind": "web"})


def test_an_archive_entry_that_is_too_large_is_not_extracted(tmp_path, archives, monkeypatch):
    monkeypatch.setattr("shapeloss.importers.archives.LARGEST", 100)
    message = call(monkeypatch, "oaizib", tmp_path / "out", "--archives", archives, "--cases", "1", "--accept-licence")
    assert "not a plausible scan" in message
