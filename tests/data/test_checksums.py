"""Checksums: every flipped bit is seen, in caches (made again, said) and in results (named)."""

import errno
import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from shapeloss.data import checksums
from shapeloss.data.checksums import (
    DamagedError,
    cached_array,
    load_array,
    load_tensors,
    read_checked_json,
    save_array,
    save_tensors,
    write_checked_json,
)
from shapeloss.data.headers import VolumeError
from shapeloss.data.manifest import prepare, read_manifest
from shapeloss.data.volume import read_labels, write_nifti
from shapeloss.replication.scores import read_histories, read_runs
from shapeloss.runs.map_cache import truth_map
from shapeloss.runs.predict_folder import load_run
from shapeloss.runs.run import train


def flip(path, bit):
    """Change one bit of a file; negative ones count from its end."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_each_bit_of_an_array_counts(tmp_path):
    path = tmp_path / "a.npy"
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    save_array(path, array)
    assert np.array_equal(load_array(path), array)
    assert np.array_equal(np.load(path), array)  # a plain .npy for every other reader
    for bit in range(8 * path.stat().st_size):
        flip(path, bit)
        with pytest.raises(DamagedError, match=r"a\.npy: is damaged: its checksum differs"):
            load_array(path)
        flip(path, bit)
    assert np.array_equal(load_array(path), array)


@pytest.mark.parametrize("length", [0, 3, 100, -4])
def test_an_array_that_was_cut_off_is_damaged(length, tmp_path):
    save_array(tmp_path / "a.npy", np.arange(6))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:length])
    with pytest.raises(DamagedError):
        load_array(tmp_path / "a.npy")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no file that is a full disk")
def test_a_full_disk_is_said_to_be_full(monkeypatch):
    monkeypatch.setattr(checksums, "atomic", lambda path: nullcontext("/dev/full"))
    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", lambda *header: None)  # the array alone is too large
    with pytest.raises(OSError, match="No space left on device"):
        save_array(Path("a.npy"), np.zeros(100_000))


def test_a_full_disk_is_said_to_be_full_of_tensors_too(tmp_path, monkeypatch):
    """safetensors has an error of its own for it, which names no file."""

    def refuse(*arguments):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    path = tmp_path / "checkpoint.safetensors"
    monkeypatch.setattr(checksums, "save_file", refuse)
    with pytest.raises(OSError, match="No space left on device") as caught:
        save_tensors(path, {"w": torch.ones(2)}, {})
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_cache_is_made_again_and_said(tmp_path, capsys):
    path, made = tmp_path / "a.npy", []

    def make():
        made.append(1)
        return np.arange(5)

    for calls in (1, 1):
        assert cached_array(path, make).tolist() == [0, 1, 2, 3, 4]
        assert len(made) == calls
    assert capsys.readouterr().out == ""
    flip(path, -100)
    assert cached_array(path, make).tolist() == [0, 1, 2, 3, 4]
    assert (len(made), capsys.readouterr().out) == (2, f"{path}: is damaged: its checksum differs; it is made again\n")
    np.save(path, np.arange(9))  # without a checksum: a cache of before
    assert cached_array(path, make).tolist() == [0, 1, 2, 3, 4]


def test_each_bit_of_tensors_counts(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"w": torch.arange(4.0).reshape(2, 2), "steps": torch.tensor(3), "half": torch.ones(2).bfloat16()}
    save_tensors(path, tensors, {"state": '{"best": 0.5}'})
    found, metadata = load_tensors(path)
    assert metadata == {"state": '{"best": 0.5}'}
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    for bit in range(8 * path.stat().st_size):
        flip(path, bit)
        try:  # spaces that pad the header, and such, mean the same
            values, words = load_tensors(path)
        except DamagedError:
            pass
        else:
            assert words == metadata
            assert {name: tensor.tolist() for name, tensor in values.items()} == {
                name: tensor.tolist() for name, tensor in tensors.items()
            }
        flip(path, bit)


def test_weights_of_before_there_were_checksums_are_read(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    assert load_tensors(tmp_path / "a.safetensors")[0]["w"].tolist() == [1, 1]


def test_each_bit_of_json_counts(tmp_path):
    path = tmp_path / "a.json"
    values = {"dice": 0.25, "cases": ["é", 1], "none": None}
    write_checked_json(path, values)
    assert read_checked_json(path) == values
    for bit in range(8 * path.stat().st_size):
        flip(path, bit)
        try:
            found = read_checked_json(path)
        except DamagedError:
            pass
        else:
            assert found.pop("checksum", None) is None  # white space, or the name of the checksum, which is odd then:
            assert found == values or set(found) != set(values)
        flip(path, bit)
    path.write_text(json.dumps(values), encoding="utf-8")
    assert read_checked_json(path) == values  # of an older version


@pytest.fixture(scope="module")
def trained(tiny_experiment, tiny_manifest, tmp_path_factory):
    """A results folder with one finished training, and the maps that it read."""
    results = tmp_path_factory.mktemp("results")
    experiment = tiny_experiment.model_copy(update={"losses": {"dpce": {}}})
    train(experiment, tiny_manifest, "dpce", 0, results / "runs/dpce/seed0", results / "maps")
    return results, experiment


@pytest.fixture
def damaged(trained, tmp_path):
    """A copy of it to be damaged."""
    shutil.copytree(trained[0], tmp_path / "results")
    return tmp_path / "results", trained[1]


def test_a_training_does_not_believe_a_damaged_checkpoint(damaged, trained, tiny_manifest, capsys):
    results, experiment = damaged
    folder = results / "runs/dpce/seed0"
    expected = load_tensors(folder / "weights.safetensors")[0]
    size = 8 * (folder / "checkpoint.safetensors").stat().st_size
    for bit in np.random.default_rng(0).integers(size // 2, size, 3).tolist():  # in the tensors
        shutil.copy(trained[0] / "runs/dpce/seed0/checkpoint.safetensors", folder)
        flip(folder / "checkpoint.safetensors", bit)
        train(experiment, tiny_manifest, "dpce", 0, folder, results / "maps")
        assert "its checksum differs; this training starts again from its first step" in capsys.readouterr().out
        found = load_tensors(folder / "weights.safetensors")[0]
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("kind", ["image", "labels", "affine"])
def test_a_prepared_volume_that_is_damaged_is_prepared_again(kind, damaged, tiny_manifest, capsys):
    name = tiny_manifest.names("train")[0]
    (path,) = (damaged[0] / "maps").glob(f"{name}-{kind}-*.npy")
    expected = tiny_manifest.load(name)
    flip(path, -200)
    case = tiny_manifest.load(name, damaged[0] / "maps")
    assert f"{path}: is damaged: its checksum differs; it is made again" in capsys.readouterr().out
    for part in ("image", "labels", "affine"):
        assert np.array_equal(getattr(case, part), getattr(expected, part))


def test_a_map_that_is_damaged_is_computed_again(damaged, tiny_manifest, capsys):
    results, experiment = damaged
    case = tiny_manifest.load(tiny_manifest.names("train")[0], results / "maps")
    loss = experiment.build_loss("dpce", 4)
    expected = truth_map(loss, case, results / "maps").clone()
    (path,) = [p for p in (results / "maps").glob(f"{case.name}-*.npy") if p.stem.count("-") == 1]
    flip(path, -2000)
    assert torch.equal(truth_map(loss, case, results / "maps"), expected)
    assert "it is made again" in capsys.readouterr().out


def test_damaged_results_are_named(damaged, tiny_manifest):
    results, experiment = damaged
    folder = results / "runs/dpce/seed0"
    history = read_histories(experiment, results)
    assert len(history) == 3
    remedy = (
        f"remove {folder / 'run.json'} and run make reproduce again, which writes it from the training's checkpoint"
    )
    text = (folder / "history.csv").read_text(encoding="utf-8")
    (folder / "history.csv").write_text(text.replace("0.0", "0.1", 1), encoding="utf-8")
    for read in (read_runs, read_histories):
        with pytest.raises(ValueError, match=r"history.csv: is not what the training wrote: its SHA-256") as caught:
            read(experiment, results)
        assert str(caught.value).endswith(remedy)
    (folder / "history.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"history.csv: is missing, but .* as run.json says") as lacking:
        read_runs(experiment, results)
    assert str(lacking.value).endswith(remedy)
    (folder / "history.csv").write_text(text, encoding="utf-8")
    run = (folder / "run.json").read_text(encoding="utf-8")
    (folder / "run.json").write_text(run.replace('"seed": 0', '"seed": 1'), encoding="utf-8")
    with pytest.raises(ValueError, match=r"run.json: is damaged, or was edited: its checksum differs; remove"):
        read_runs(experiment, results)
    with pytest.raises(ValueError, match=r"run.json: is damaged, or was edited: its checksum differs; copy it again"):
        load_run(folder)
    (folder / "run.json").write_text(run, encoding="utf-8")
    flip(folder / "weights.safetensors", -2000)
    with pytest.raises(ValueError, match=r"weights.safetensors: is damaged: its checksum differs; copy it again"):
        load_run(folder)


def test_each_bit_of_a_label_map_counts(tmp_path):
    path = tmp_path / "a.nii.gz"
    labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 3
    write_nifti(path, labels, np.diag([1.0, 2.0, 3.0, 1.0]))
    for bit in range(8 * path.stat().st_size):
        flip(path, bit)
        try:  # what the gzip header says of its time and system means nothing
            found = read_labels(path)
        except VolumeError:
            pass
        else:
            assert np.array_equal(found.array, labels)
        flip(path, bit)


def test_a_damaged_list_of_cases_is_named(damaged, tiny_experiment, tiny_manifest, tmp_path):
    path = tmp_path / "cases.json"
    prepare(tiny_experiment.data, tiny_manifest.folder, path)
    assert read_manifest(path) == tiny_manifest
    path.write_text(path.read_text(encoding="utf-8").replace("femur", "fimur", 1), encoding="utf-8")
    with pytest.raises(ValueError, match=r"cases.json: is damaged, or was edited: its checksum differs; remove it and"):
        read_manifest(path)
