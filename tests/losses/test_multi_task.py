"""Segmentation with regression of the distance: the loss, the second head, and trainings that resume with it."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import ndimage
from torch import nn

from shapeloss.losses import MultiTaskLoss, build_loss
from shapeloss.predict import predict_distances, predict_labels
from shapeloss.runs.predict_folder import load_run
from shapeloss.runs.run import train
from shapeloss.train import State, TrainingOptions, TrainingVolume, fit
from shapeloss.vnet import VNet, VNetOptions

SPACING = (2.0, 1.0, 0.5)
SIZES = VNetOptions((8, 8), (1, 1), ((1, 2, 2),))


def case(classes=3, shape=(3, 5, 4), seed=0):
    rng = np.random.default_rng(seed)
    target = torch.from_numpy(rng.integers(0, classes, (2, *shape)))
    return torch.from_numpy(rng.normal(0, 2, (2, 2 * classes, *shape))), target


def signed_by_scipy(mask, spacing):
    """Distance to the nearest voxel centre across the boundary, negative inside."""
    if mask.all() or not mask.any():
        return np.zeros(mask.shape)
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    return outside - ndimage.distance_transform_edt(mask, sampling=spacing)


def by_loops(outputs, target, spacing, weight=1.0, reach=10.0):
    classes = outputs.shape[1] // 2
    ce, squares = [], []
    for volume, labels in zip(outputs.numpy(), target.numpy(), strict=True):
        truths = [np.clip(signed_by_scipy(labels == k, spacing) / reach, -1, 1) for k in range(classes)]
        for voxel in np.ndindex(labels.shape):
            logits = [volume[(k, *voxel)] for k in range(classes)]
            ce.append(np.log(np.exp(logits).sum()) - logits[labels[voxel]])
            squares += [(volume[(classes + k, *voxel)] - truths[k][voxel]) ** 2 for k in range(classes)]
    return np.mean(ce) + weight * np.mean(squares)


@pytest.mark.parametrize(("shape", "spacing"), [((3, 5, 4), SPACING), ((6, 5), (1.0, 0.4))])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(("weight", "reach"), [(1.0, 10.0), (0.3, 1.5)])
def test_equals_plain_loops(shape, spacing, classes, weight, reach):
    outputs, target = case(classes, shape)
    loss = MultiTaskLoss(classes, spacing, weight, reach)
    assert float(loss(outputs, target)) == pytest.approx(by_loops(outputs, target, spacing, weight, reach), rel=1e-6)


def test_without_weight_it_is_cross_entropy_of_the_first_channels():
    outputs, target = case()
    assert torch.equal(MultiTaskLoss(3, SPACING, weight=0.0)(outputs, target), build_loss("ce", num_classes=3)(
        outputs[:, :3], target
    ))  # fmt: skip


@pytest.mark.parametrize("weighting", ["fixed", "learned"])
def test_gradient_in_float64(weighting):
    outputs, target = case(shape=(2, 3, 2))
    loss = MultiTaskLoss(3, SPACING, weighting=weighting).double()
    phi = torch.from_numpy(np.stack([loss.compute_map(labels.numpy(), SPACING) for labels in target])).double()
    variables = [outputs.requires_grad_(), *loss.parameters()]
    assert torch.autograd.gradcheck(lambda x, *_: loss(x, target, phi), variables)


def test_learned_weights_settle_at_the_variances_of_both_tasks():
    """The minimum over s_s and s_d: exp(s_s) = 2 L_s and exp(s_d) = L_d (set both derivatives to 0)."""
    outputs, target = case()
    loss = MultiTaskLoss(3, SPACING, weighting="learned").double()
    segmentation = float(MultiTaskLoss(3, SPACING, weight=0.0)(outputs, target))
    regression = float(MultiTaskLoss(3, SPACING)(outputs, target)) - segmentation
    assert float(loss(outputs, target).detach()) == pytest.approx(segmentation + regression / 2)  # both start at 0
    optimiser = torch.optim.LBFGS(loss.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        value = loss(outputs, target)
        value.backward()
        return value

    optimiser.step(closure)
    found = loss.log_variances.detach().exp().tolist()
    assert found == pytest.approx([2 * segmentation, regression], rel=1e-4)


def test_a_learnt_weight_without_regression_trains_neither_the_second_head_nor_its_variance():
    outputs, target = case()
    loss = MultiTaskLoss(3, SPACING, weight=0.0, weighting="learned").double()
    with torch.no_grad():
        loss.log_variances[0] = 0.4
    segmentation = build_loss("ce", num_classes=3)(outputs[:, :3], target)
    value = loss(outputs.requires_grad_(), target)
    assert float(value.detach()) == pytest.approx(np.exp(-0.4) * float(segmentation) + 0.2)
    value.backward()
    assert (outputs.grad[:, 3:] == 0).all()
    assert outputs.grad[:, :3].abs().sum() > 0
    assert loss.log_variances.grad[1] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reach_mm": 0}, "reach_mm must be a positive length in mm"),
        ({"weight": -1}, "weight must"),
        ({"weighting": "kendall"}, "weighting must be 'fixed' or 'learned', got 'kendall'"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        build_loss("mtl", num_classes=3, **options)


def test_what_does_not_fit_is_named():
    outputs, target = case()
    loss = MultiTaskLoss(3, SPACING)
    with pytest.raises(ValueError, match=r"needs 6 channels.*got 3; build the network with distance_head=True"):
        loss(outputs[:, :3], target)
    with pytest.raises(ValueError, match=r"phi must have shape \(2, 3, 3, 5, 4\) for MultiTaskLoss, got \(2, 6"):
        loss(outputs, target, torch.zeros(2, 6, 3, 5, 4))
    with pytest.raises(ValueError, match="target"):
        MultiTaskLoss(3, SPACING)(outputs, target + 1)  # label 3 is no class, though there are six channels


def network(head, seed=0):
    torch.manual_seed(seed)
    return VNet(1, 3, SIZES, distance_head=head)


def test_the_head_changes_nothing_else():
    plain, both = network(False), network(True)
    image = torch.randn(1, 1, 3, 9, 10)
    assert torch.equal(both(image)[:, :3], plain(image))
    assert both(image).shape == (1, 6, 3, 9, 10)
    assert both.eval()(image).shape == (1, 3, 3, 9, 10)
    assert (predict_labels(both, image) == predict_labels(plain, image)).all()
    with pytest.raises(ValueError, match="network has no distance head"):
        predict_distances(plain, image)


def knee():
    labels = torch.zeros(4, 12, 16, dtype=torch.uint8)
    labels[1:3, 2:8, 2:8] = 1
    labels[1:3, 8:11, 4:12] = 2
    return TrainingVolume(labels.float(), labels, (4.0, 1.0, 1.0))


def test_it_learns_labels_distances_and_weights():
    trained, loss = network(True), MultiTaskLoss(3, reach_mm=4.0, weighting="learned")
    options = TrainingOptions(steps=150, learning_rate=1e-2, rotation_degrees=0, precision="32-true")
    fit(trained, loss, [knee()], options)
    image = knee().image[None, None]
    assert (predict_labels(trained, image) == knee().labels.numpy()).mean() > 0.98
    assert trained.training
    truth = np.clip(loss.compute_map(knee().labels.numpy(), (4.0, 1.0, 1.0)) / 4, -1, 1)
    assert np.abs(predict_distances(trained, image) - truth).mean() < 0.1
    assert (loss.log_variances < 0).all()  # both tasks are learnt, so both variances fall below 1


def test_a_loss_with_parameters_trains_them_and_others_have_none():
    loss = MultiTaskLoss(3, weighting="learned")
    groups = State.start(network(True), TrainingOptions(), loss).optimiser.param_groups
    assert any(parameter is loss.log_variances for parameter in groups[0]["params"])
    assert not list(build_loss("mtl", num_classes=3).parameters())


class Killed(BaseException):
    pass


@pytest.mark.parametrize("row", ["mtl", "mtl_learned"])
def test_a_killed_training_ends_with_the_same_numbers(row, tiny_experiment, tiny_manifest, tmp_path):
    losses = {"mtl": {}, "mtl_learned": {"loss": "mtl", "weighting": "learned"}}
    experiment = tiny_experiment.model_copy(update={"losses": losses})

    def kill(step, _):
        if step == 5:
            raise Killed

    train(experiment, tiny_manifest, row, 0, tmp_path / "whole", tmp_path / "maps")
    with pytest.raises(Killed):
        train(experiment, tiny_manifest, row, 0, tmp_path / "killed", tmp_path / "maps", kill)
    train(experiment, tiny_manifest, row, 0, tmp_path / "killed", tmp_path / "maps")
    whole, killed = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(value, killed[name]) for name, value in whole.items())
    runs = [json.loads((tmp_path / name / "run.json").read_text(encoding="utf-8")) for name in ("whole", "killed")]
    assert runs[0]["learned_by_loss"] == runs[1]["learned_by_loss"]
    assert (runs[0]["learned_by_loss"] != {}) == (row == "mtl_learned")
    if row == "mtl_learned":
        assert runs[0]["learned_by_loss"]["log_variances"] != [0.0, 0.0]
    loaded = load_run(tmp_path / "whole").network
    assert isinstance(loaded.distances, nn.Module)


def test_every_loss_starts_from_the_same_weights(tiny_experiment, tiny_manifest, tmp_path):
    losses = {"ce": {}, "mtl": {}}
    frozen = tiny_experiment.model_copy(
        update={"training": TrainingOptions(steps=1, learning_rate=1e-30, schedule="constant"), "losses": losses}
    )
    for loss in losses:
        train(frozen, tiny_manifest, loss, 0, tmp_path / loss, tmp_path / "maps")
    first, second = (load_file(tmp_path / loss / "weights.safetensors") for loss in ("ce", "mtl"))
    assert all(torch.allclose(value, second[name], rtol=0, atol=1e-12) for name, value in first.items())
    assert set(second) - set(first) == {"distances.weight", "distances.bias"}
