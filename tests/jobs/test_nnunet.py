"""The trainers in the real nnU-Net, on five small cases. Skipped where nnU-Net is not installed; to run it:

python -m venv /tmp/nnunet && /tmp/nnunet/bin/pip install -c constraints.txt . nnunetv2 pytest
/tmp/nnunet/bin/pytest --noconftest tests/jobs/test_nnunet.py
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from shapeloss.distance import distance_penalty
from shapeloss.losses import DiceCELoss

pytest.importorskip("nnunetv2")
pytestmark = pytest.mark.slow

SPACING = (0.7, 0.5, 0.5)  # mm, (X, Y, Z) of the files
TRAINERS = """
from shapeloss.integrations.nnunet import *

class _Short:
    def __init__(self, plans, configuration, fold, dataset_json, device):  # nnU-Net reads these names
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 3, 1

class ShortDistancePenalty(_Short, nnUNetTrainerDistancePenalty): pass
class ShortExponential(_Short, nnUNetTrainerDistancePenaltyExponential): pass
class ShortDice(_Short, nnUNetTrainerDiceDistancePenalty): pass
class ShortMm(_Short, nnUNetTrainerDistancePenalty):
    variant = "mm"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Raw and preprocessed data of nnU-Net, patches smaller than the cases, and the environment that names them."""
    folder = tmp_path_factory.mktemp("nnunet")
    raw = folder / "raw" / "Dataset001_Spheres"
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for case in range(5):
        grid = np.stack(np.meshgrid(*[np.arange(n) for n in (38, 42, 44)], indexing="ij"), -1) * SPACING
        labels = np.zeros(grid.shape[:3], np.uint8)
        for label, centre, radius in ((1, (10, 9, 8), 6), (2, (17, 14, 16), 4)):
            labels[np.linalg.norm(grid - centre - generator.normal(size=3), axis=-1) < radius] = label
        image = 100 * labels + generator.normal(50, 10, labels.shape)
        for name, array in (("imagesTr/case_{}_0000", image.astype(np.float32)), ("labelsTr/case_{}", labels)):
            nib.save(nib.Nifti1Image(array, np.diag([*SPACING, 1])), raw / f"{name.format(case)}.nii.gz")
    (raw / "dataset.json").write_text(
        json.dumps(
            {
                "channel_names": {"0": "MRI"},
                "labels": {"background": 0, "large": 1, "small": 2},
                "numTraining": 5,
                "file_ending": ".nii.gz",
            }
        )
    )
    (folder / "trainers").mkdir()
    (folder / "trainers" / "short_trainers.py").write_text(TRAINERS)
    environment = {
        "nnUNet_raw": str(folder / "raw"),
        "nnUNet_preprocessed": str(folder / "preprocessed"),
        "nnUNet_results": str(folder / "results"),
        "nnUNet_extTrainer": str(folder / "trainers"),
        "nnUNet_compile": "f",
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    os.environ.update(environment)  # this process builds trainers too
    call("nnUNetv2_plan_and_preprocess", "-d", "1", "-c", "2d", "3d_fullres", "-np", "1", "1", "-npfp", "1")
    plans_file = folder / "preprocessed" / "Dataset001_Spheres" / "nnUNetPlans.json"
    plans = json.loads(plans_file.read_text())
    for configuration, patch in (("2d", [32, 32]), ("3d_fullres", [32, 32, 32])):
        plans["configurations"][configuration]["patch_size"] = patch
        plans["configurations"][configuration]["batch_size"] = 2
    plans_file.write_text(json.dumps(plans))
    os.environ |= {"nnUNet_n_proc_DA": "0"}  # batches are made in this process
    return folder


def call(command, *arguments):
    path = Path(sys.executable).parent / command
    environment = os.environ | {"nnUNet_n_proc_DA": "1"}  # and in another one here
    run = subprocess.run([path, *arguments], env=environment, capture_output=True, encoding="utf-8", timeout=1200)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return run.stdout


def build(folder, configuration, name="ShortDistancePenalty", **labels):
    """A trainer on the CPU, ready to load batches; `labels` are added to those of the data set."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    base = folder / "preprocessed" / "Dataset001_Spheres"
    plans, dataset = (json.loads((base / file).read_text()) for file in ("nnUNetPlans.json", "dataset.json"))
    dataset["labels"] |= labels
    plans["continue_training"] = False
    trainer = recursive_find_trainer_class_by_name(name)(plans, configuration, 0, dataset, torch.device("cpu"))
    trainer.initialize()
    return trainer


@pytest.mark.parametrize("name", ["ShortDistancePenalty", "ShortMm"])
@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_phi_of_a_patch_is_cut_from_the_phi_of_its_case(folder, configuration, name):
    trainer = build(folder, configuration, name)
    training, validation = trainer.get_dataloaders()
    boxes, get_bbox = [], validation.data_loader.get_bbox

    def remember(*args, **kwargs):
        boxes.append(get_bbox(*args, **kwargs))
        return boxes[-1]

    validation.data_loader.get_bbox = remember
    batch = next(validation)
    targets = batch["target"]
    assert [tuple(t.shape[:2]) for t in targets] == [(2, 2)] * len(targets)
    assert len(targets) > 1
    step = 1 / trainer._levels_per_unit
    for target, identifier, (low, high) in zip(targets[0].numpy(), batch["keys"], boxes, strict=True):
        labels = np.asarray(trainer.dataset_class(trainer.preprocessed_dataset_folder).load_case(identifier)[1][0])
        labels = np.maximum(labels, 0)
        # nnU-Net reads (Z, Y, X) and may transpose: the spacing of each axis follows from the header and the plans
        spacing = [SPACING[::-1][axis] for axis in trainer.plans_manager.transpose_forward]
        phi = distance_penalty(labels, spacing, unit="mm" if name == "ShortMm" else "relative")
        for whole, got, tolerance in ((labels, target[0], 0), (phi, target[1] * step, step)):
            patch = np.pad(whole, 32)[tuple(slice(a + 32, b + 32) for a, b in zip(low, high, strict=True))]
            np.testing.assert_allclose(got, patch.reshape(got.shape), atol=tolerance)
    assert targets[0][:, 0].any()  # nnU-Net draws some patches around a structure, others anywhere
    for coarse in targets[1:]:
        sampled = F.interpolate(targets[0].float(), coarse.shape[2:], mode="nearest-exact")
        torch.testing.assert_close(coarse.float(), sampled)
    augmented = next(training)["target"][0]
    assert augmented.shape == targets[0].shape
    assert augmented[:, 1].min() >= 0
    assert augmented[:, 1].float().std() > 0


def test_the_loss_is_the_weighted_sum_over_the_scales(folder):
    trainer = build(folder, "3d_fullres")
    batch = next(trainer.get_dataloaders()[1])
    stripped = trainer._without_phi(batch)
    targets = stripped["target"]
    assert all(t.shape[1] == 1 for t in targets)
    outputs = [torch.randn(2, 3, *t.shape[2:]) for t in targets]
    weights = np.array([1 / 2**i for i in range(len(targets) - 1)] + [0])  # nnU-Net leaves the coarsest out
    expected = 0.0
    for weight, output, target, both in zip(weights / weights.sum(), outputs, targets, batch["target"], strict=True):
        ce = F.cross_entropy(output, target[:, 0].long(), reduction="none")
        expected += weight * float(((1 + both[:, 1] / 30000) * ce).mean())
    assert float(trainer.loss(outputs, targets)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "configuration"),
    [
        ("ShortDistancePenalty", "3d_fullres"),
        ("ShortExponential", "3d_fullres"),
        ("ShortDice", "3d_fullres"),
        ("ShortDistancePenalty", "2d"),
    ],
)
def test_training_by_the_command_of_nnunet(folder, name, configuration):
    printed = call("nnUNetv2_train", "1", configuration, "0", "-tr", name, "-device", "cpu")
    losses = [float(value) for value in re.findall(r"train_loss (\S+)", printed)]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    fold = folder / "results" / "Dataset001_Spheres" / f"{name}__nnUNetPlans__{configuration}" / "fold_0"
    assert (fold / "checkpoint_final.pth").exists()
    assert (fold / "validation" / "summary.json").exists()
    assert not list(fold.glob("phi_*"))


@pytest.mark.parametrize("shape", [(2, 9, 8), (2, 5, 6, 7)], ids=["2D", "3D"])
def test_dice_ce_is_the_loss_of_nnunet_but_for_a_constant(shape):
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    options = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}  # as its trainer gives them
    theirs = DC_and_CE_loss(options, {}, dice_class=MemoryEfficientSoftDiceLoss)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, *shape[1:], generator=generator, requires_grad=True)
    target = torch.randint(0, 4, shape, generator=generator)
    ours, expected = DiceCELoss()(logits, target), theirs(logits, target[:, None])
    torch.testing.assert_close(ours - 1, expected)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (ours, expected)]
    torch.testing.assert_close(*gradients)


def test_an_ignore_label_is_refused(folder):
    with pytest.raises(ValueError, match="cannot train with an ignore label"):
        build(folder, "3d_fullres", ignore=3)
