"""Training: fair, deterministic, resumable to the bit; augmentation that keeps map and labels together."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy import ndimage

from shapeloss.data.manifest import Case
from shapeloss.distance import boundary_distance
from shapeloss.losses import DistancePenalizedCELoss
from shapeloss.runs import map_cache
from shapeloss.runs import run as runs
from shapeloss.runs.map_cache import mapped, truth_map
from shapeloss.runs.run import train
from shapeloss.train import TrainingOptions, TrainingVolume, augment, learning_rate, rotate_in_plane, volume_of_step

SPACING = (4.0, 1.0, 2.0)


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
    assert {"commit", "versions", "precision", "processor", "fingerprint", "parameters"} <= set(run)


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


def test_every_case_once_per_epoch():
    for seed in range(3):
        for epoch in range(3):
            assert sorted(volume_of_step(epoch * 7 + i, 7, seed) for i in range(7)) == list(range(7))
    orders = {tuple(volume_of_step(step, 7, seed) for step in range(7)) for seed in range(5)}
    assert len(orders) == 5


def test_learning_rate():
    options = TrainingOptions(steps=100, learning_rate=2.0)
    rates = [learning_rate(step, options) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0)
    assert rates[-1] < 0.01
    assert {learning_rate(step, TrainingOptions(schedule="constant")) for step in range(9)} == {1e-3}


def ball(shape=(3, 40, 20), radius=12.0):
    """A ball around the centre, off-centre by (4, 5) mm, on pixels that are twice as long as wide."""
    axes = [(np.arange(n) - (n - 1) / 2) * h for n, h in zip(shape, SPACING, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return ((x**2 + (y - 4) ** 2 + (z - 5) ** 2) < radius**2).astype(np.float32)


@pytest.mark.parametrize("degrees", [17.0, -30.0, 90.0])
def test_rotation_is_in_millimetres(degrees):
    volume = ball()
    turned = rotate_in_plane(torch.from_numpy(volume)[None], degrees, SPACING, 0, "bilinear")[0].numpy()
    assert turned.sum() == pytest.approx(volume.sum(), rel=0.05)  # a shear would keep the area, but not the centre:
    middle = (np.array(volume.shape) - 1) / 2
    before = (np.array(ndimage.center_of_mass(volume)) - middle) * SPACING
    after = (np.array(ndimage.center_of_mass(turned)) - middle) * SPACING
    assert np.hypot(*after[1:]) == pytest.approx(np.hypot(*before[1:]), abs=0.3)
    angle = np.degrees(np.arctan2(after[2], after[1]) - np.arctan2(before[2], before[1]))
    assert abs(angle) == pytest.approx(abs(degrees), abs=2)
    spread = [turned[1].sum(0).astype(bool).sum() * SPACING[2], turned[1].sum(1).astype(bool).sum() * SPACING[1]]
    assert spread[0] == pytest.approx(spread[1], abs=4.5)  # still a ball


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_rotation_leaves_other_slices_alone(slice_axis):
    volume = torch.zeros(1, 5, 6, 7)
    volume.select(slice_axis + 1, 2).fill_(1.0)
    turned = rotate_in_plane(volume, 33.0, SPACING, slice_axis, "bilinear")
    assert torch.allclose(turned, volume)


def test_the_map_turns_with_its_labels():
    """After a rotation the map still is the distance of the rotated labels, up to interpolation."""
    labels = (ball((3, 40, 40), 11.0) > 0).astype(np.uint8)
    spacing = (4.0, 1.0, 1.0)
    distance = torch.from_numpy(boundary_distance(labels, spacing))[None]
    tensor = torch.from_numpy(labels)
    volume = TrainingVolume(tensor.float(), tensor, spacing, distance)
    image, turned, phi = augment(volume, 0, TrainingOptions(rotation_degrees=40), np.random.default_rng(3))
    assert turned.dtype == torch.int64
    assert not np.array_equal(turned[0].numpy(), labels)
    inner = (slice(None), slice(8, -8), slice(8, -8))
    again = boundary_distance(turned[0].numpy(), spacing)
    assert np.abs(phi[0].numpy() - again)[inner].mean() < 0.35
    assert np.abs(distance[0].numpy() - again)[inner].mean() > 0.7  # the map left as it was would not do
    assert np.abs(image[0, 0].numpy() - turned[0].numpy())[inner].mean() < 0.05


def test_patches_are_cut_from_all_alike():
    index = torch.arange(6 * 8 * 10.0).reshape(6, 8, 10)
    volume = TrainingVolume(index, index.long(), SPACING, index[None].clone())
    options = TrainingOptions(rotation_degrees=0, patch_size=(4, 8, 5))
    for seed in range(4):
        image, labels, phi = augment(volume, 0, options, np.random.default_rng(seed))
        assert image.shape == (1, 1, 4, 8, 5)
        assert torch.equal(image[0].long(), labels)
        assert torch.equal(phi.long(), labels)


def test_a_loss_that_is_not_finite_stops_the_run(tiny_experiment, tiny_manifest, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.Tensor.backward", lambda *_, **__: None)
    monkeypatch.setattr(
        "shapeloss.vnet.VNet.forward", lambda self, x: self.last.weight.sum() * x.repeat(1, 4, 1, 1, 1) * np.nan
    )
    with pytest.raises(FloatingPointError, match=r"ce, seed 0: the loss became nan at step 1 .*; lower learning_rate"):
        train(tiny_experiment, tiny_manifest, "ce", 0, tmp_path, tmp_path / "maps")


def test_a_patch_is_cut_from_the_rotated_volume():
    """Cutting the slices first is only faster: the patch is that of the whole volume turned, then cut."""
    generator = np.random.default_rng(5)
    labels = generator.integers(0, 3, (9, 20, 24)).astype(np.uint8)
    values = torch.from_numpy(generator.normal(size=labels.shape).astype(np.float32))
    phi = torch.from_numpy(generator.random((1, *labels.shape)).astype(np.float32))
    volume = TrainingVolume(values, torch.from_numpy(labels), SPACING, phi)
    options = TrainingOptions(rotation_degrees=30, patch_size=(4, 12, 30))
    image, found, patch_phi = augment(volume, 0, options, np.random.default_rng(7))
    assert image.shape == (1, 1, 4, 12, 24)
    draw = np.random.default_rng(7)
    angle = float(draw.uniform(-30, 30))
    corner = [int(draw.integers(max(0, n - size) + 1)) for n, size in zip(labels.shape, (4, 12, 30), strict=True)]
    assert corner[0] > 0
    window = tuple(slice(a, a + size) for a, size in zip(corner, (4, 12, 30), strict=True))
    smooth = torch.cat([values[None], phi])
    smooth = rotate_in_plane(smooth, angle, SPACING, 0, "bilinear")
    turned = rotate_in_plane(torch.from_numpy(labels).float()[None], angle, SPACING, 0, "nearest")
    assert torch.equal(image[0], smooth[:1][(slice(None), *window)])
    assert torch.equal(patch_phi[0], smooth[1][window])
    assert torch.equal(found[0], turned[0][window].long())


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
