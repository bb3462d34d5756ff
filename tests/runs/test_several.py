"""One training in two processes (CPU, gloo): the numbers of gradient accumulation in one, and a lost process."""

import multiprocessing
import os
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from shapeloss.data.checksums import load_tensors, read_checked_json
from shapeloss.runs.run import train
from shapeloss.train import TrainingOptions, TrainingVolume, fit
from shapeloss.vnet import VNet, VNetOptions

TOLERANCE = 1e-5
"""Relative, of weights and losses: the gradients of a step are added in another order."""


def shared(experiment, **options):
    return experiment.model_copy(update={"training": replace(experiment.training, accumulate=2, **options)})


def weights(folder):
    return load_tensors(folder / "weights.safetensors")[0]


@pytest.fixture(scope="module")
def alone(tiny_experiment, tiny_manifest, tmp_path_factory):
    """Two volumes a step, in one process."""
    folder = tmp_path_factory.mktemp("alone")
    train(shared(tiny_experiment), tiny_manifest, "dpce", 0, folder, folder / "maps")
    return folder


def test_two_processes_train_as_one_does(alone, tiny_experiment, tiny_manifest, tmp_path):
    together, seen = tmp_path / "together", []
    history = train(
        shared(tiny_experiment, devices=2),
        tiny_manifest,
        "dpce",
        0,
        together,
        alone / "maps",
        lambda *s: seen.append(s),
    )
    one, two = weights(alone), weights(together)
    start = VNet(1, tiny_manifest.num_classes, tiny_experiment.network.options).state_dict()
    for name, values in one.items():
        torch.testing.assert_close(two[name], values, rtol=TOLERANCE, atol=TOLERANCE * float(values.abs().max()))
    assert any(not torch.allclose(one[name], start[name]) for name in one)
    expected = pd.read_csv(alone / "history.csv")
    np.testing.assert_allclose(history.to_numpy(dtype=float), expected.to_numpy(dtype=float), rtol=TOLERANCE)
    assert seen[-1] == (10, 10)
    run = read_checked_json(together / "run.json")
    assert run["experiment"]["training"]["devices"] == 2
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_lost_process_ends_the_training_with_a_checkpoint_to_go_on_from(
    alone, tiny_experiment, tiny_manifest, tmp_path
):
    experiment, folder = shared(tiny_experiment, devices=2, steps=80), tmp_path / "lost"
    killed = []

    def kill(step, steps):
        if step >= 4 and not killed:
            killed.append(multiprocessing.active_children()[-1].pid)
            os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(RuntimeError, match=r"dpce, seed 0: process . of 2 ended: .*run the same command again"):
        train(experiment, tiny_manifest, "dpce", 0, folder, alone / "maps", kill)
    assert killed
    assert not multiprocessing.active_children()
    assert not (folder / "run.json").exists()
    reached = int((folder / "progress").read_text().partition("/")[0])
    assert load_tensors(folder / "checkpoint.safetensors")
    steps = []
    train(experiment, tiny_manifest, "dpce", 0, folder, alone / "maps", lambda step, _: steps.append(step))
    assert steps[0] > reached - 3  # a checkpoint every two steps
    assert steps[-1] == 80
    whole = tmp_path / "whole"
    train(experiment, tiny_manifest, "dpce", 0, whole, alone / "maps")
    for name, values in weights(whole).items():
        assert torch.equal(weights(folder)[name], values), name


def test_volumes_that_cannot_be_shared_are_refused():
    with pytest.raises(
        ValueError, match="accumulate must be a multiple of devices, which share its volumes; got 3 and 2"
    ):
        TrainingOptions(accumulate=3, devices=2)


def test_batch_normalisation_is_refused_in_a_group(monkeypatch):
    """Each process would have running means of its own volumes."""
    monkeypatch.setattr("shapeloss.train.in_group", lambda: True)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    labels = torch.zeros(4, 8, 8, dtype=torch.long)
    network = VNet(1, 2, VNetOptions((8, 8), (1, 1), ((1, 2, 2),), normalisation="batch"))
    volume = TrainingVolume(labels.float(), labels, (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="batch normalisation would have other running means on each device"):
        fit(network, torch.nn.Identity(), [volume], TrainingOptions(accumulate=2, devices=2))
