"""Training: fair, deterministic, resumable to the bit; augmentation that keeps map and labels together."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from shapeloss.data.manifest import Case
from shapeloss.losses import DistancePenalizedCELoss
from shapeloss.runs import map_cache
from shapeloss.runs import run as runs
from shapeloss.runs.map_cache import mapped, truth_map
from shapeloss.runs.run import train
from shapeloss.train import TrainingOptions


class Killed(BaseException):
    """Ends a training as abruptly as Python can."""


def kill_at(step):
    def progress(now, _):
        if now == step:
            raise Killed

    return progress


def outcome(folder):
    """Everything a run ends with that carries numbers."""
    weights = load_file(folder / "weights.safetensors")
    predictions = {path.name: path.read_bytes() for path in sorted((folder / "predictions").iterdir())}
    return weights, (folder / "history.csv").read_bytes(), predictions


def same(first, second):
    weights = all(torch.equal(first[0][name], second[0][name]) for name in first[0])
    return weights and first[1:] == second[1:]


@pytest.fixture(scope="module")
def whole(tiny_experiment, tiny_manifest, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train(tiny_experiment, tiny_manifest, "dpce", 0, folder, folder / "maps")
    return folder


def test_two_runs_are_equal_bit_for_bit(whole, tiny_experiment, tiny_manifest, tmp_path):
    train(tiny_experiment, tiny_manifest, "dpce", 0, tmp_path, tmp_path / "maps")
    assert same(outcome(whole), outcome(tmp_path))
    train(tiny_experiment, tiny_manifest, "dpce", 1, tmp_path, tmp_path / "maps")
    assert not same(outcome(whole), outcome(tmp_path))  # or the comparison could not fail


@pytest.mark.parametrize("step", [1, 4, 7, 10])
def test_a_killed_run_ends_with_the_same_numbers(step, whole, tiny_experiment, tiny_manifest, tmp_path):
    with pytest.raises(Killed):
        train(tiny_experiment, tiny_manifest, "dpce", 0, tmp_path, tmp_path / "maps", kill_at(step))
    assert not (tmp_path / "run.json").exists()
    steps = []
    train(tiny_experiment, tiny_manifest, "dpce", 0, tmp_path, tmp_path / "maps", lambda now, _: steps.append(now))
    assert len(steps) == 10 - step // 2 * 2  # from the last checkpoint, not from the start
    assert same(outcome(whole), outcome(tmp_path))


def test_a_checkpoint_of_other_settings_is_not_taken_up(tiny_experiment, tiny_manifest, tmp_path):
    with pytest.raises(Killed):
        train(tiny_experiment, tiny_manifest, "dpce", 0, tmp_path, tmp_path / "maps", kill_at(6))
    changed = tiny_experiment.model_copy(update={"training": replace(tiny_experiment.training, learning_rate=5e-4)})
    steps = []
    train(changed, tiny_manifest, "dpce", 0, tmp_path, tmp_path / "maps", lambda now, _: steps.append(now))
    assert steps[0] == 1


def test_history_and_provenance(whole, tiny_experiment, tiny_manifest):
    history = pd.read_csv(whole / "history.csv")
    assert history.step.tolist() == [4, 8, 10]
    run = json.loads((whole / "run.json").read_text(encoding="utf-8"))
    best = history.loc[history.val_dice.idxmax()]
    assert (run["best_step"], run["best_val_dice"]) == (best.step, best.val_dice)
    assert run["data"] == tiny_manifest.hash
    assert {"commit", "versions", "processor", "fingerprint", "parameters"} <= set(run)
    assert (run["precision"], run["memory_format"]) in {("32-true", "by_size"), ("bf16-mixed", "channels_last")}


def test_the_best_checkpoint_is_tested_not_the_last(tiny_experiment, tiny_manifest, tmp_path, monkeypatch):
    scores, seen = iter([0.3, 0.9, 0.5]), []

    def scripted(model, *_):
        seen.append({name: tensor.detach().clone() for name, tensor in model.state_dict().items()})
        return next(scores)

    monkeypatch.setattr(runs, "validation_dice", scripted)
    train(tiny_experiment, tiny_manifest, "ce", 0, tmp_path, tmp_path / "maps")
    run = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert (run["best_step"], run["best_val_dice"]) == (8, 0.9)
    weights = load_file(tmp_path / "weights.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in seen[1].items())
    assert not all(torch.equal(weights[name], tensor) for name, tensor in seen[2].items())


def test_losses_see_the_same_cases_and_weights(tiny_experiment, tiny_manifest, tmp_path):
    """Fairness: with a rate of zero each loss must end with the very same, untouched network."""
    frozen = tiny_experiment.model_copy(
        update={"training": TrainingOptions(steps=2, validate_every=2, learning_rate=1e-30, schedule="constant")}
    )
    for loss in ("dpce", "ce"):
        train(frozen, tiny_manifest, loss, 0, tmp_path / loss, tmp_path / "maps")
    first, second = (load_file(tmp_path / loss / "weights.safetensors") for loss in ("dpce", "ce"))
    assert all(torch.allclose(first[name], second[name], rtol=0, atol=1e-12) for name in first)


def test_hausdorff_refuses_cases_of_several_spacings(tiny_experiment, tiny_manifest, tmp_path, monkeypatch):
    load = type(tiny_manifest).load

    def thinner(self, name, cache=None):
        case = load(self, name, cache)
        first = name == tiny_manifest.names("train")[0]
        return replace(case, spacing=(2.0, *case.spacing[1:])) if first else case

    monkeypatch.setattr(type(tiny_manifest), "load", thinner)
    experiment = tiny_experiment.model_copy(update={"losses": {"hausdorff": {}}})
    with pytest.raises(ValueError, match=r"hausdorff transforms each prediction with one spacing.*give data\.spacing"):
        train(experiment, tiny_manifest, "hausdorff", 0, tmp_path, tmp_path / "maps")


def test_a_loss_that_is_not_finite_stops_the_run(tiny_experiment, tiny_manifest, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.Tensor.backward", lambda *_, **__: None)
    monkeypatch.setattr(
        "shapeloss.vnet.VNet.forward", lambda self, x: self.last.weight.sum() * x.repeat(1, 4, 1, 1, 1) * np.nan
    )
    with pytest.raises(FloatingPointError, match=r"ce, seed 0: the loss became nan at step 1 .*; lower learning_rate"):
        train(tiny_experiment, tiny_manifest, "ce", 0, tmp_path, tmp_path / "maps")


def test_training_does_not_hold_the_data_set_in_memory(tiny_experiment, tiny_manifest, tmp_path, monkeypatch):
    arrays = []

    def watch(array):
        arrays.append(array)
        return mapped(array)

    monkeypatch.setattr(map_cache, "mapped", watch)
    train(tiny_experiment, tiny_manifest, "dpce", 0, tmp_path, tmp_path / "maps")
    assert len(arrays) == 2 * 3 + 2  # image and labels of three cases, and the maps of two
    assert all(isinstance(array, np.memmap) for array in arrays)


def test_checkpointing_and_patches_train(tiny_experiment, tiny_manifest, tmp_path):
    values = replace(tiny_experiment.training, activation_checkpointing=True, patch_size=(4, 16, 40), steps=2)
    run = tiny_experiment.model_copy(update={"training": values})
    history = train(run, tiny_manifest, "dpce", 0, tmp_path, tmp_path / "maps")
    assert np.isfinite(history.train_loss).all()


class Mine(DistancePenalizedCELoss):
    """A custom loss with the options of a built-in one, and another map."""

    def compute_map(self, labels, spacing):
        return np.full(labels.shape, 7, np.float32)


def test_a_custom_loss_does_not_get_the_map_of_another(tmp_path):
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1:3, 1:4, 2:5] = 1
    case = Case("a", np.zeros(labels.shape, np.float32), labels, (1.0, 1.0, 1.0), np.eye(4))
    assert float(truth_map(DistancePenalizedCELoss(), case, tmp_path).max()) == 1
    assert float(truth_map(Mine(), case, tmp_path).max()) == 7
