"""Prediction of folders of scans by a trained run."""

import dataclasses
import errno
import json
import os
import shutil
import threading

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch

from shapeloss._files import locked
from shapeloss.data.manifest import prepare, write_labels_as
from shapeloss.data.volume import grid_difference, read_labels, read_volume
from shapeloss.importers.folders import folder_source, pair_entries
from shapeloss.importers.writer import Labels, write_cases
from shapeloss.runs.options import Postprocessing
from shapeloss.runs.predict_folder import load_run, predict_files
from shapeloss.runs.run import train


@pytest.fixture(scope="module")
def run_folder(tiny_experiment, tiny_manifest, tmp_path_factory):
    """A trained run on a coarser working grid, as `shapeloss predict` finds it."""
    folder = tmp_path_factory.mktemp("trained")
    data = tiny_experiment.data.model_copy(update={"spacing": (12.0, 6.0, 6.0), "size": (8, 20, 24)})
    experiment = tiny_experiment.model_copy(update={"data": data})
    manifest = prepare(experiment.data, tiny_manifest.folder, folder / "cases.json")
    train(experiment, manifest, "ce", 0, folder / "run", folder / "maps")
    return folder / "run", manifest


def test_predictions_are_deterministic_as_trainings_are(run_folder, tmp_path):
    folder, manifest = run_folder
    torch.use_deterministic_algorithms(False)
    predict_files(load_run(folder), manifest.folder / "imagesTr", tmp_path / "made", progress=False)
    assert torch.are_deterministic_algorithms_enabled()


def test_new_images_are_predicted_as_the_test_cases_were(run_folder, tmp_path):
    folder, manifest = run_folder
    name = manifest.names("test")[0]
    original = manifest.folder / f"imagesTr/{name}.nii.gz"
    scan = read_volume(original).oriented("LPS")  # as a scanner might have stored it
    (tmp_path / "in").mkdir()
    nibabel.save(nibabel.Nifti1Image(scan.array, scan.affine), tmp_path / "in" / "knee é 1_0000.nii.gz")
    shutil.copy(original, tmp_path / "in" / "second.nii.gz")
    image = SimpleITK.ReadImage(str(original))
    SimpleITK.WriteImage(image, str(tmp_path / "in" / "third.nrrd"))
    (tmp_path / "in" / "broken.nii.gz").write_bytes(original.read_bytes()[:100])
    written, problems = predict_files(load_run(folder), tmp_path / "in", tmp_path / "out", progress=False)
    assert [path.name for path in written] == ["knee é 1.nii.gz", "second.nii.gz", "third.nii.gz"]
    assert len(problems) == 1
    assert "broken.nii.gz: is not a valid NIfTI file" in problems[0]
    expected = read_labels(folder / "predictions" / f"{name}.nii.gz").oriented("RAS")
    for path in written:
        found = read_labels(path)
        assert np.array_equal(found.oriented("RAS").array, expected.array), path
        assert np.allclose(found.oriented("RAS").affine, expected.affine)
    assert np.allclose(read_volume(written[0]).affine, scan.affine)  # on its image's own grid


def test_label_maps_that_are_there_are_kept(run_folder, tmp_path):
    folder, manifest = run_folder
    image = manifest.folder / f"imagesTr/{manifest.names('test')[0]}.nii.gz"
    place = tmp_path / f"{manifest.names('test')[0]}.nii.gz"
    place.write_text("mine")
    notes = []
    assert predict_files(load_run(folder), image, tmp_path, progress=False, notes=notes) == ([], [])
    assert place.read_text(encoding="utf-8") == "mine"
    assert notes == [
        "1 kept, which were there; make them again with --overwrite",
        f"1 of them are not in predict.json, so their run is not known: {place.name}",
    ]
    written, _ = predict_files(load_run(folder), image, tmp_path, overwrite=True, progress=False)
    assert written == [place]
    assert read_labels(place).array.shape == read_volume(image).array.shape
    notes.clear()
    assert predict_files(load_run(folder), image, tmp_path, progress=False, notes=notes) == ([], [])
    assert notes == ["1 kept, which were there; make them again with --overwrite"]


def test_label_maps_of_two_runs_are_not_mixed(run_folder, tmp_path):
    folder, manifest = run_folder
    original = manifest.folder / f"imagesTr/{manifest.names('test')[0]}.nii.gz"
    for name in ("in/a", "in/b", "alone/a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(original, tmp_path / f"{name}.nii.gz")
    run, out = load_run(folder), tmp_path / "out"
    predict_files(run, tmp_path / "in", out, progress=False)
    made = json.loads((out / "predict.json").read_text(encoding="utf-8"))["maps"]
    entry = {"run": run.fingerprint, "side": "", "resampled_to": [12.0, 6.0, 6.0]}
    assert made == dict.fromkeys(("a", "b"), entry)
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert predict_files(load_run(tmp_path / "elsewhere"), tmp_path / "in", out, progress=False) == ([], [])

    before = {path.name: path.read_bytes() for path in out.iterdir()}
    post = Postprocessing(closing_voxels=0, largest_component=False)
    other = dataclasses.replace(load_run(folder), postprocessing=post)
    retrained = load_run(folder)
    with torch.no_grad():
        next(retrained.network.parameters()).add_(0.5)
    for foreign in (other, retrained):
        with pytest.raises(ValueError, match="label maps of another run") as caught:
            predict_files(foreign, tmp_path / "in", out, progress=False)
        assert str(caught.value) == (
            f"{out}: holds label maps of another run or --side (a.nii.gz, b.nii.gz); make them again with --overwrite, "
            "or choose another folder"
        )
    with pytest.raises(ValueError, match=r"--side \(b.nii.gz\); choose another folder"):  # b would stay
        predict_files(other, tmp_path / "alone", out, overwrite=True, progress=False)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    written, problems = predict_files(other, tmp_path / "in", out, overwrite=True, progress=False)
    assert (len(written), problems) == (2, [])
    made = json.loads((out / "predict.json").read_text(encoding="utf-8"))["maps"]
    assert {entry["run"] for entry in made.values()} == {other.fingerprint}
    for name in before:
        if name.endswith(".nii.gz"):
            (out / name).unlink()  # what the record says of maps that are gone no longer matters
    assert len(predict_files(run, tmp_path / "in", out, progress=False)[0]) == 2


def test_label_maps_of_another_side_are_not_kept(run_folder, tmp_path):
    folder, manifest = run_folder
    original = manifest.folder / f"imagesTr/{manifest.names('test')[0]}.nii.gz"
    run = load_run(folder)
    run = dataclasses.replace(run, data=run.data.model_copy(update={"mirror_to": "right"}))
    for name in ("a", "b"):
        shutil.copy(original, tmp_path / f"{name}.nii.gz")
    out = tmp_path / "out"
    predict_files(run, tmp_path / "a.nii.gz", out, side="left", progress=False)
    with pytest.raises(ValueError, match=r"of another run or --side \(a.nii.gz\); make them again with --overwrite"):
        predict_files(run, tmp_path / "a.nii.gz", out, side="right", progress=False)
    assert predict_files(run, tmp_path / "a.nii.gz", out, progress=False) == ([], [])  # kept, whichever it is
    written, _ = predict_files(run, tmp_path / "b.nii.gz", out, side="right", progress=False)  # knees of both sides
    assert [path.name for path in written] == ["b.nii.gz"]
    predict_files(run, tmp_path / "a.nii.gz", out, side="right", overwrite=True, progress=False)
    made = json.loads((out / "predict.json").read_text(encoding="utf-8"))["maps"]
    assert {name: entry["side"] for name, entry in made.items()} == {"a": "right", "b": "right"}


def test_a_prediction_that_fails_leaves_no_record_of_itself(run_folder, tmp_path, monkeypatch):
    folder, manifest = run_folder
    image = manifest.folder / f"imagesTr/{manifest.names('test')[0]}.nii.gz"
    (place,), _ = predict_files(load_run(folder), image, tmp_path / "out", progress=False)
    before = place.read_bytes()
    other = dataclasses.replace(load_run(folder), postprocessing=Postprocessing(closing_voxels=0))

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("shapeloss.runs.predict_folder.write_labels_as", killed)
    with pytest.raises(KeyboardInterrupt):
        predict_files(other, image, tmp_path / "out", overwrite=True, progress=False)
    assert place.read_bytes() == before
    assert json.loads((tmp_path / "out/predict.json").read_text(encoding="utf-8")) == {"maps": {}}
    with pytest.raises(KeyboardInterrupt):
        predict_files(other, image, tmp_path / "new", progress=False)
    assert not (tmp_path / "new").exists()


def test_what_a_killed_prediction_left_is_swept(run_folder, tmp_path):
    folder, manifest = run_folder
    image = manifest.folder / f"imagesTr/{manifest.names('test')[0]}.nii.gz"
    (tmp_path / ".partial-x.nii.gz").write_bytes(b"half")
    predict_files(load_run(folder), image, tmp_path, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".predict.lock", image.name, "predict.json"]


def test_a_prediction_waits_for_another_into_the_same_folder(run_folder, tmp_path, capsys):
    folder, manifest = run_folder
    image = manifest.folder / f"imagesTr/{manifest.names('test')[0]}.nii.gz"
    with locked(tmp_path / ".predict.lock"):
        (tmp_path / ".partial-x.nii.gz").write_bytes(b"being written")
        run = load_run(folder)
        other = threading.Thread(target=predict_files, args=(run, image, tmp_path), kwargs={"progress": False})
        other.start()
        other.join(0.5)
        assert (tmp_path / ".partial-x.nii.gz").exists()
        assert other.is_alive()
    other.join()
    assert f"another prediction writes into {tmp_path}; waiting until it ends" in capsys.readouterr().out
    assert (tmp_path / image.name).exists()


def test_a_record_that_is_none_is_refused(run_folder, tmp_path):
    folder, manifest = run_folder
    image = manifest.folder / f"imagesTr/{manifest.names('test')[0]}.nii.gz"
    for text in ("{", "[]", '{"maps": [1]}', '{"maps": {"a": 1}}', '{"maps": {"a": {}}}'):
        (tmp_path / "predict.json").write_text(text)
        with pytest.raises(ValueError, match=r"predict.json: is not a record of predictions; remove it, or choose"):
            predict_files(load_run(folder), image, tmp_path, progress=False)


def test_no_image_is_replaced_by_its_label_map(run_folder, tmp_path):
    folder, manifest = run_folder
    for name in ("a", "b_0000"):
        shutil.copy(manifest.folder / f"imagesTr/{manifest.names('test')[0]}.nii.gz", tmp_path / f"{name}.nii.gz")
    before = (tmp_path / "a.nii.gz").read_bytes()
    with pytest.raises(ValueError, match=r"a.nii.gz: is an image that its label map would replace; choose another"):
        predict_files(load_run(folder), tmp_path, tmp_path, overwrite=True, progress=False)
    assert (tmp_path / "a.nii.gz").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_window_larger_than_the_image(run_folder, tmp_path):
    folder, manifest = run_folder
    run = load_run(folder)
    run = dataclasses.replace(run, training=dataclasses.replace(run.training, patch_size=(16, 32, 32)))
    image = manifest.folder / f"imagesTr/{manifest.names('test')[0]}.nii.gz"
    written, problems = predict_files(run, image, tmp_path, progress=False)
    assert (len(written), problems) == (1, [])


def test_faults_of_a_run_are_explained(run_folder, tmp_path):
    folder, _ = run_folder
    with pytest.raises(FileNotFoundError, match=r"holds no run.json; give a finished training's folder"):
        load_run(tmp_path)
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "weights.safetensors").write_bytes(b"garbage" * 100)
    with pytest.raises(ValueError, match=r"weights.safetensors: is damaged: .*; copy it again from where it was"):
        load_run(tmp_path / "run")
    values = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    del values["checksum"]
    values["experiment"]["network"]["options"]["widths"] = [16, 8]
    shutil.copytree(folder, tmp_path / "other")
    (tmp_path / "other" / "run.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"weights.safetensors does not fit the network of run.json"):
        load_run(tmp_path / "other")
    (tmp_path / "other" / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run.json: is damaged: it is not valid JSON .*; copy it again"):
        load_run(tmp_path / "other")
    values["experiment"]["network"]["options"]["widths"] = [8, 8]
    for broken in ({"classes": values["classes"]}, {**values, "trained_on": {"images": 3}}):
        (tmp_path / "other" / "run.json").write_text(json.dumps(broken))
        with pytest.raises(ValueError, match=r"is not a run of this version \(KeyError"):
            load_run(tmp_path / "other")


def test_faults_of_the_images_are_explained(run_folder, tmp_path):
    run = load_run(run_folder[0])
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such file or folder"):
        predict_files(run, tmp_path / "nowhere", tmp_path)
    with pytest.raises(ValueError, match="holds no image that can be read"):
        predict_files(run, tmp_path, tmp_path / "out")


def test_each_image_that_gives_none_has_a_line_and_the_others_go_on(run_folder, tmp_path, monkeypatch):
    folder, manifest = run_folder
    original = manifest.folder / f"imagesTr/{manifest.names('test')[0]}.nii.gz"
    (tmp_path / "in").mkdir()
    for name in ("a", "a_0000", "full", "sound"):
        shutil.copy(original, tmp_path / f"in/{name}.nii.gz")
    scan = read_volume(original)
    constant = nibabel.Nifti1Image(np.full(scan.array.shape, 3, np.int16), scan.affine)
    nibabel.save(constant, tmp_path / "in/constant.nii.gz")

    def write(path, *arguments):
        if path.name == "full.nii.gz":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write_labels_as(path, *arguments)

    monkeypatch.setattr("shapeloss.runs.predict_folder.write_labels_as", write)
    written, problems = predict_files(load_run(folder), tmp_path / "in", tmp_path / "out", progress=False)
    assert [path.name for path in written] == ["sound.nii.gz"]
    assert len(problems) == 3
    text = "\n".join(problems)
    assert "a_0000.nii.gz: is a second image of case a, beside a.nii.gz; remove one" in text
    assert "constant.nii.gz: every voxel of the image has the value 3; is it the right file?" in text
    assert f"full.nii.gz: the disk is full at {tmp_path / 'out/full.nii.gz'}; free space" in text


def test_from_files_of_other_formats_to_a_prediction_on_their_grid(run_folder, tmp_path):
    folder, manifest = run_folder
    name = manifest.names("test")[0]
    affine = read_volume(manifest.folder / f"imagesTr/{name}.nii.gz").affine
    turn = np.eye(4)
    turn[:3, :3] = [[0.8, 0.6, 0], [-0.6, 0.8, 0], [0, 0, 1]]
    for kind, ending in (("images", ".mha"), ("labels", ".nrrd")):
        (tmp_path / kind).mkdir()
        array = read_volume(manifest.folder / f"{kind}Tr/{name}.nii.gz").array
        nibabel.save(nibabel.Nifti1Image(array, turn @ affine), tmp_path / "turned.nii.gz")
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(tmp_path / "turned.nii.gz")), str(tmp_path / f"{kind}/k{ending}"))
    found, problems = pair_entries(tmp_path / "images", tmp_path / "labels")
    source = folder_source(tmp_path)
    record = write_cases(tmp_path / "set", found, Labels(manifest.classes), source, problems, progress=False)
    assert list(record["cases"]) == ["k"]
    written, problems = predict_files(load_run(folder), tmp_path / "set/imagesTr", tmp_path / "out", progress=False)
    assert not problems
    original = read_volume(tmp_path / "images/k.mha")
    assert not grid_difference(read_labels(written[0]), original)
    assert not grid_difference(read_labels(tmp_path / "labels/k.nrrd"), original)
