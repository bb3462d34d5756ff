"""The loop on tensors: steps, resuming, validation; augmentation that keeps map and labels together."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from shapeloss import train
from shapeloss.distance import boundary_distance, distance_penalty
from shapeloss.losses import (
    LOSSES,
    BoundaryLoss,
    CrossEntropyLoss,
    DistancePenalizedCELoss,
    build_loss,
    fused,
)
from shapeloss.losses.registry import TWO_HEADED
from shapeloss.train import (
    State,
    TrainingOptions,
    TrainingVolume,
    augment,
    compile_mode,
    fit,
    learning_rate,
    rotate_in_plane,
    validation_dice,
    volume_of_step,
    with_label_map,
)
from shapeloss.vnet import VNet, VNetOptions

SPACING = (4.0, 1.0, 2.0)
OPTIONS = TrainingOptions(steps=6, validate_every=4, checkpoint_every=2, precision="32-true")


def knees(count=3):
    """Boxes of two structures, each brighter than the background; one is larger than the other."""
    volumes = []
    for number in range(count):
        labels = torch.zeros(4, 12, 16, dtype=torch.uint8)
        labels[1:3, 2:8, 2 + number : 8 + number] = 1
        labels[1:3, 8:11, 2:8] = 2
        noise = torch.rand(labels.shape, generator=torch.Generator().manual_seed(number))
        volumes.append(TrainingVolume(labels.float() + 0.1 * noise, labels, SPACING, name=f"knee {number}"))
    return volumes


def network(seed=0, **options):
    torch.manual_seed(seed)
    return VNet(1, 3, VNetOptions((8, 8), (1, 1), ((1, 2, 2),)), **options)


def equal(first, second):
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


def test_it_learns():
    trained = network()
    fit(trained, DistancePenalizedCELoss(), knees(), TrainingOptions(steps=60, learning_rate=1e-2, precision="32-true"))
    assert validation_dice(trained, knees(), OPTIONS) > 0.9
    assert validation_dice(network(), knees(), OPTIONS) < 0.5


@pytest.mark.parametrize("stopped", [1, 2, 5])
def test_it_goes_on_from_a_state_to_the_same_bits(stopped):
    class Stop(Exception):
        pass

    def stop(state):
        if state.step == stopped:
            raise Stop

    whole, parts, rest = network(), network(), network(seed=9)
    state = fit(whole, DistancePenalizedCELoss(), knees(), OPTIONS)
    first = State.start(parts, OPTIONS)
    with pytest.raises(Stop):
        fit(parts, DistancePenalizedCELoss(), knees(), OPTIONS, state=first, after_step=stop)
    rest.load_state_dict(parts.state_dict())
    again = State.start(rest, OPTIONS)
    again.optimiser.load_state_dict(copy.deepcopy(first.optimiser.state_dict()))
    again.step = first.step
    second = fit(rest, DistancePenalizedCELoss(), knees(), OPTIONS, state=again)
    assert equal(whole, rest)
    assert second.step == state.step == 6
    assert not equal(whole, network())


def test_the_seed_decides():
    trained = [network() for _ in range(3)]
    for one, seed in zip(trained, (0, 0, 1), strict=True):
        fit(one, CrossEntropyLoss(), knees(), OPTIONS, seed=seed)
    assert equal(trained[0], trained[1])
    assert not equal(trained[0], trained[2])


def test_the_best_weights_are_kept_and_all_is_told():
    scores, steps, seen = iter([0.8, 0.3]), [], []

    def validate(now):
        seen.append(copy.deepcopy(now.state_dict()))
        return next(scores)

    def after_step(state):
        steps.append(state.step)

    trained = network()
    state = fit(trained, CrossEntropyLoss(), knees(), OPTIONS, validate=validate, after_step=after_step)
    assert steps == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in state.history] == [4, 6]
    assert [row["val_dice"] for row in state.history] == [0.8, 0.3]
    assert [row["learning_rate"] for row in state.history] == [learning_rate(3, OPTIONS), learning_rate(5, OPTIONS)]
    assert (state.best_dice, state.best_step) == (0.8, 4)
    assert all(torch.equal(value, seen[0][name]) for name, value in trained.state_dict().items())
    assert not all(torch.equal(value, seen[1][name]) for name, value in trained.state_dict().items())
    assert state.losses == []


def test_the_first_of_equal_scores_is_kept():
    state = fit(network(), CrossEntropyLoss(), knees(), OPTIONS, validate=lambda _: 0.5)
    assert state.best_step == 4


def test_the_optimiser_takes_the_scheduled_rate():
    rates = []
    fit(
        network(),
        CrossEntropyLoss(),
        knees(),
        OPTIONS,
        state=(state := State.start(network(), OPTIONS)),
        after_step=lambda now: rates.append(now.optimiser.param_groups[0]["lr"]),
    )
    assert state.step == 6
    assert rates == [learning_rate(step, OPTIONS) for step in range(6)]
    assert len(set(rates)) > 3


def test_losses_are_read_when_a_checkpoint_is_due():
    """A checkpoint that is written after a step must hold the losses up to it."""
    read = {}
    options = TrainingOptions(steps=6, validate_every=5, checkpoint_every=3, precision="32-true")

    def after_step(state):
        read[state.step] = len(state.losses)

    fit(network(), CrossEntropyLoss(), knees(), options, after_step=after_step)
    assert read[3] == 3
    assert read[6] == 6
    assert read[2] == 0  # between them nothing waits for the device


def test_precision_reaches_the_network():
    seen = {}

    class Watched(VNet):
        def forward(self, image):
            logits = super().forward(image)
            seen[precision] = logits.dtype
            return logits

    for precision in ("32-true", "bf16-mixed"):
        options = TrainingOptions(steps=1, precision=precision)
        fit(Watched(1, 3, VNetOptions((8, 8), (1, 1), ((1, 2, 2),))), CrossEntropyLoss(), knees(), options)
    assert seen == {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}


@pytest.mark.parametrize(("memory_format", "together"), [("channels_last", True), ("contiguous", False)])
def test_the_memory_format_reaches_the_network(memory_format, together):
    seen = set()
    network = VNet(1, 3, VNetOptions((8, 8), (1, 1), ((1, 2, 2),)))
    network.first.register_forward_hook(lambda module, inputs, output: seen.add(output.stride(1) == 1))
    options = TrainingOptions(steps=1, precision="32-true", memory_format=memory_format)
    fit(network, CrossEntropyLoss(), knees(), options)
    assert seen == {together}


def test_validation_slides_a_window_of_the_patch_size():
    sizes = set()

    class Watched(nn.Module):
        def forward(self, image):
            sizes.add(tuple(image.shape[2:]))
            return torch.cat([image, image, image], 1)

    validation_dice(Watched(), knees(1), TrainingOptions(patch_size=(4, 8, 8), precision="32-true"))
    assert sizes == {(4, 8, 8)}


def test_losses_are_the_means_since_the_last_validation():
    class Counting(nn.Module):
        calls = 0

        def forward(self, logits, target, phi=None):
            self.calls += 1
            return 0 * logits.sum() + self.calls

    state = fit(network(), Counting(), knees(), OPTIONS, validate=lambda _: 0.5)
    assert [row["train_loss"] for row in state.history] == [2.5, 5.5]
    assert fit(network(), Counting(), knees(), OPTIONS).losses == [1, 2, 3, 4, 5, 6]


def test_a_loss_with_a_schedule_is_told_the_progress():
    class Watched(BoundaryLoss):
        def compute(self, *arguments):
            progress.append(self.progress)
            return super().compute(*arguments)

    progress = []
    fit(network(), Watched(3), knees(), OPTIONS)
    assert progress == pytest.approx([step / 6 for step in range(6)])


def test_a_map_is_computed_where_one_is_needed_and_missing():
    volume, loss = knees()[0], DistancePenalizedCELoss()
    expected = distance_penalty(volume.labels.numpy(), SPACING)
    assert torch.equal(with_label_map(volume, loss).label_map, torch.from_numpy(expected)[None])
    assert with_label_map(volume, CrossEntropyLoss()) is volume
    given = TrainingVolume(volume.image, volume.labels, SPACING, torch.zeros(1, 4, 12, 16))
    assert with_label_map(given, loss) is given
    assert with_label_map(volume, BoundaryLoss(3)).label_map.shape == (3, 4, 12, 16)


def test_a_loss_that_is_not_finite_is_named_with_its_step_and_volume():
    class Broken(nn.Module):
        calls = 0

        def forward(self, logits, target, phi=None):
            self.calls += 1
            return logits.sum() * (np.nan if self.calls == 2 else 0)

    name = knees()[volume_of_step(1, 3, 0)].name
    with pytest.raises(FloatingPointError, match=rf"became nan at step 2 \(case {name}\); lower learning_rate"):
        fit(network(), Broken(), knees(), OPTIONS)


def test_nothing_to_train_on():
    with pytest.raises(ValueError, match="volumes must hold at least one volume"):
        fit(network(), CrossEntropyLoss(), [], OPTIONS)


def test_validation_is_the_mean_over_volumes_and_structures():
    class Ones(nn.Module):
        """All is structure 1."""

        def forward(self, image):
            return torch.cat([0 * image, 0 * image + 1, 0 * image], 1)

    voxels = 4 * 12 * 16
    expected = [2 * 72 / (72 + voxels), 0.0]  # structure 1 has 2 × 6 × 6 voxels; structure 2 is missed
    assert validation_dice(Ones(), knees(2), OPTIONS) == pytest.approx(np.mean(expected))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps must be"),
        ({"learning_rate": -1.0}, "learning_rate must be"),
        ({"schedule": "linear"}, "schedule must be one of"),
        ({"precision": "16"}, "precision must be one of"),
        ({"memory_format": "channels_first"}, "memory_format must be one of auto, by_size, channels_last, contiguous"),
    ],
)
def test_bad_options(values, message):
    with pytest.raises(ValueError, match=message):
        TrainingOptions(**values)


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


@pytest.mark.parametrize("degrees", [12.0, -31.0])
@pytest.mark.parametrize("order", [0, 1])
def test_rotation_equals_scipy(degrees, order):
    """On slices of 30 × 44 mm: SciPy turns about the centre in voxels, so that its matrix goes to mm and back."""
    volume = np.random.default_rng(1).normal(size=(2, 30, 22)).astype(np.float32)
    turned = rotate_in_plane(torch.from_numpy(volume)[None], degrees, SPACING, 0, ("nearest", "bilinear")[order])[0]
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    to_mm = np.diag(SPACING[1:])
    matrix = np.linalg.inv(to_mm) @ np.array([[cosine, sine], [-sine, cosine]]) @ to_mm
    middle = (np.array(volume.shape[1:]) - 1) / 2
    for found, slice_ in zip(turned.numpy(), volume, strict=True):
        expected = ndimage.affine_transform(slice_, matrix, middle - matrix @ middle, order=order, mode="nearest")
        assert np.mean(np.abs(found - expected) > 1e-3) < 0.01  # SciPy rounds halves, and treats the edge, otherwise


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


def test_several_volumes_a_step_give_the_mean_gradient():
    """Adam's first step depends on the gradient's sign alone, hence two steps."""
    options = TrainingOptions(steps=2, rotation_degrees=0, accumulate=3, precision="32-true", schedule="constant")
    volumes, loss = knees(3), CrossEntropyLoss()
    ours, by_hand = network(), network()
    state = fit(ours, loss, volumes, options)
    optimiser = torch.optim.Adam(by_hand.parameters(), lr=options.learning_rate)
    means = []
    for _ in range(2):
        mean = sum(loss(by_hand(v.image[None, None]), v.labels[None].long()) for v in volumes) / 3
        optimiser.zero_grad()
        mean.backward()
        optimiser.step()
        means.append(mean.item())
    assert state.losses == pytest.approx(means, rel=1e-4)
    # not the parameters: a bias before a normalisation has no gradient but rounding errors, which Adam makes large
    image = volumes[0].image[None, None]
    torch.testing.assert_close(ours(image), by_hand(image), rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="accumulate must be 1 or more"):
        TrainingOptions(accumulate=0)


def test_each_volume_is_seen_once_an_epoch_whatever_the_step_holds(monkeypatch):
    seen = []
    monkeypatch.setattr(train, "augment", lambda volume, *rest: seen.append(volume.name) or augment(volume, *rest))
    fit(network(), CrossEntropyLoss(), knees(4), TrainingOptions(steps=4, accumulate=2, precision="32-true"))
    assert sorted(seen[:4]) == sorted(seen[4:]) == [f"knee {i}" for i in range(4)]


def test_a_loss_that_is_not_finite_names_its_step_and_case_whatever_the_step_holds():
    class Third(CrossEntropyLoss):
        calls = 0

        def compute(self, logits, target, label_map):
            self.calls += 1
            return super().compute(logits, target, label_map) * (float("nan") if self.calls == 6 else 1)

    options = TrainingOptions(steps=4, accumulate=2, checkpoint_every=4, precision="32-true")
    case = f"knee {volume_of_step(5, 3, 0)}"
    with pytest.raises(FloatingPointError, match=rf"became nan at step 3 \(case {case}\)"):
        fit(network(), Third(), knees(3), options)


class Reads(TorchDispatchMode):
    """Counts what makes a GPU wait: values read from its tensors, shapes that depend on values.

    A copy from the device to the CPU does not show on the CPU.
    """

    def __init__(self):
        super().__init__()
        self.found, self.allowed = [], set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func).removeprefix("aten.").removeprefix("_").split(".")[0]
        waits = name in ("local_scalar_dense", "nonzero", "masked_select", "unique", "unique2", "bincount", "equal")
        if name in ("index", "index_put", "index_put_"):  # by a mask: as many values as it has ones
            waits = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        if waits and args[0].data_ptr() not in self.allowed:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


# Hausdorff's computes its maps on the CPU at each call
@pytest.mark.parametrize("key", sorted({*LOSSES, *TWO_HEADED} - {"hausdorff"}))
def test_a_steady_step_reads_nothing_from_the_device(key, monkeypatch):
    """Between the first step, which checks values, and a checkpoint, the GPU never waits."""
    monkeypatch.setattr(fused, "_scatters", lambda values: False)  # as on a GPU
    counts = []
    with Reads() as reads:

        def after_step(state):
            # Adam keeps its step numbers on the CPU
            reads.allowed = {values["step"].data_ptr() for values in state.optimiser.state.values()}
            counts.append(len(reads.found))
            reads.found.clear()

        options = TrainingOptions(steps=6, validate_every=6, checkpoint_every=6, precision="32-true")
        loss = build_loss(key, num_classes=3, spacing=SPACING)
        fit(network(distance_head=key in TWO_HEADED), loss, knees(), options, after_step=after_step)
    assert counts[0] > 0  # the first step checks values: the count counts
    assert counts[1:5] == [0] * 4
    assert len(counts) == 6


def test_augmentation_is_computed_on_the_device():
    """On a device without values, which any way over the CPU would leave."""
    volume = with_label_map(knees(1)[0], DistancePenalizedCELoss())
    options = TrainingOptions(patch_size=(2, 8, 8))
    image, labels, phi = augment(volume, 0, options, np.random.default_rng(0), "meta")
    assert {t.device.type for t in (image, labels, phi)} == {"meta"}
    assert image.shape == (1, 1, 2, 8, 8)
    assert labels.shape == phi.shape == (1, 2, 8, 8)


def test_a_training_does_not_write_into_its_volumes():
    volume = with_label_map(knees(1)[0], DistancePenalizedCELoss())
    image, labels, phi = augment(volume, 0, TrainingOptions(rotation_degrees=0), np.random.default_rng(0))
    for taken, kept in ((image, volume.image), (labels, volume.labels), (phi, volume.label_map)):
        before = kept.clone()
        taken.zero_()
        assert torch.equal(kept, before)


@pytest.mark.parametrize(("free", "expected"), [(100_000, "moved"), (1_000, "pinned")])
def test_volumes_stay_on_a_gpu_that_has_room_for_them(monkeypatch, free, expected):
    calls = []
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free, free))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device: calls.append("moved") or self)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: calls.append("pinned") or self)
    volumes = [with_label_map(volume, DistancePenalizedCELoss()) for volume in knees(2)]
    assert train.near_device(volumes, torch.device("cpu")) == volumes
    assert calls == []
    train.near_device(volumes, torch.device("cuda"))
    assert calls == [expected] * 6


def test_without_pinned_memory_a_training_goes_on_and_says_so(monkeypatch):
    def refuse(self):
        raise RuntimeError("CUDA error: OS call failed\nmore")

    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (1_000, 1_000))
    monkeypatch.setattr(torch.Tensor, "pin_memory", refuse)
    volumes = knees(2)
    with pytest.warns(UserWarning, match="do not fit into pinned memory .CUDA error: OS call failed.: the GPU waits"):
        assert train.near_device(volumes, torch.device("cuda")) == volumes


def test_a_compiled_network_is_the_one_that_is_trained(monkeypatch):
    modes = []

    def compile_(module, mode):
        modes.append(mode)
        return lambda image: module(image)

    monkeypatch.setattr("torch.compile", compile_)
    plain, compiled = network(), network()
    fit(plain, CrossEntropyLoss(), knees(), OPTIONS)
    fit(compiled, CrossEntropyLoss(), knees(), dataclasses.replace(OPTIONS, compile=True))
    assert modes == ["default"]
    assert equal(plain, compiled)


@pytest.mark.parametrize(
    ("device", "accumulate", "mode"),
    [("cpu", 1, "default"), ("cpu", 4, "default"), ("cuda", 1, "reduce-overhead"), ("cuda", 4, "default")],
)
def test_cuda_graphs_are_not_taken_where_gradients_add_up(device, accumulate, mode):
    assert compile_mode(torch.device(device), TrainingOptions(accumulate=accumulate)) == mode


@pytest.mark.slow
def test_torch_compile_gives_the_same_training():
    plain, compiled = network(), network()
    fit(plain, CrossEntropyLoss(), knees(), OPTIONS)
    fit(compiled, CrossEntropyLoss(), knees(), dataclasses.replace(OPTIONS, compile=True))
    image = knees()[0].image[None, None]
    assert not torch.allclose(plain(image), network()(image), atol=0.1)
    torch.testing.assert_close(plain(image), compiled(image), rtol=1e-2, atol=1e-2)
