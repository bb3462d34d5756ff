"""The network: the original's structure, any size, any number of classes."""

import pytest
import torch
from torch import nn

from shapeloss import vnet
from shapeloss.vnet import Conv3d, ConvTranspose3d, InstanceNorm, PReLU, ResidualStage, VNet, VNetOptions


def test_original_has_the_published_number_of_convolutions():
    network = VNet(1, 2, VNetOptions.original())
    fives = [m for m in network.modules() if isinstance(m, nn.Conv3d) and m.kernel_size == (5, 5, 5)]
    down = [m for m in network.modules() if isinstance(m, nn.Conv3d) and m.stride == (2, 2, 2)]
    up = [m for m in network.modules() if isinstance(m, nn.ConvTranspose3d)]
    # figure 2: stages of 1, 2, 3, 3, 3 on the way down and 3, 3, 2, 1 on the way up; four changes of size each way
    assert (len(fives), len(down), len(up)) == (12 + 9, 4, 4)
    # the right side's stages have 256, 256, 128, 64, 32 channels
    assert [stage.activation.num_parameters for stage in network.decode] == [32, 64, 128, 256]
    assert network.last.in_channels == 32
    assert [stage.activation.num_parameters for stage in network.encode] == [32, 64, 128, 256]
    assert not [m for m in network.modules() if isinstance(m, nn.GroupNorm | nn.BatchNorm3d | InstanceNorm)]


@pytest.mark.parametrize(
    ("normalisation", "expected"),
    [("none", nn.Identity), ("group", nn.GroupNorm), ("instance", InstanceNorm), ("batch", nn.BatchNorm3d)],
)
def test_each_convolution_has_its_normalisation_and_activation(normalisation, expected):
    network = VNet(1, 3, VNetOptions((8, 16), (1, 3), ((1, 2, 4),), normalisation=normalisation))
    kinds = [[type(layer) for layer in stage.convolutions] for stage in (network.first, network.encode[0])]
    inner = [Conv3d, expected, PReLU]
    assert kinds == [inner[:2], inner + inner + inner[:2]]  # the last activation follows the addition
    assert [type(layer) for layer in network.down[0]] == [Conv3d, expected, PReLU]
    assert [type(layer) for layer in network.up[0]] == [ConvTranspose3d, expected, PReLU]
    assert network.down[0][0].kernel_size == network.up[0][0].kernel_size == (1, 2, 4)


def test_groups_are_of_eight_channels():
    network = VNet(1, 2, VNetOptions((4, 24), (1, 1), ((2, 2, 2),), normalisation="group"))
    assert network.first.convolutions[1].num_groups == 1
    assert network.encode[0].convolutions[1].num_groups == 3


def test_stage_is_residual():
    stage = ResidualStage(4, 4, 2, VNetOptions(normalisation="none"))
    for parameter in stage.convolutions.parameters():
        nn.init.zeros_(parameter)
    x = torch.rand(1, 4, 3, 4, 5)
    assert torch.equal(
        stage(x), x
    )  # with convolutions that give 0 only the shortcut is left; PReLU keeps what is positive


@pytest.mark.parametrize("size", [(8, 8, 8), (5, 9, 7), (1, 16, 3), (12, 13, 14)])
@pytest.mark.parametrize("classes", [2, 5])
def test_any_size_and_number_of_classes(size, classes):
    network = VNet(1, classes, VNetOptions((4, 8, 8), (1, 1, 2), ((1, 2, 2), (2, 2, 2))))
    assert network(torch.rand(2, 1, *size)).shape == (2, classes, *size)


def test_padding_does_not_reach_the_inside():
    """A volume and the same volume with room to spare on the padded side agree far from that side."""
    torch.manual_seed(0)
    network = VNet(1, 2, VNetOptions((4, 4), (1, 1), ((2, 2, 2),), normalisation="none")).eval()
    image = torch.rand(1, 1, 16, 16, 15)
    padded = nn.functional.pad(image, [0, 1])
    assert torch.allclose(network(image), network(padded)[..., :15])


@pytest.mark.parametrize("normalisation", ["none", "group", "instance", "batch"])
def test_every_parameter_learns(normalisation):
    torch.manual_seed(0)
    network = VNet(2, 3, VNetOptions((4, 8), (2, 2), ((2, 2, 2),), 5, normalisation))
    network(torch.rand(2, 2, 8, 8, 8)).square().mean().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # a bias just before a normalisation over its own channel has no effect
    allowed = normalisation in ("instance", "batch", "group")
    assert not [name for name in silent if not (allowed and name.endswith("bias"))]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((16, 32), (1, 2, 3), ((2, 2, 2),)), "2 widths needs as many convolutions"),
        (((16, 32), (1, 2), ((2, 2, 2), (2, 2, 2))), "one stride less"),
        (((16, 32), (1, 2), ((2, 2, 2),), 4), "kernel_size must be odd"),
    ],
)
def test_impossible_sizes(arguments, message):
    with pytest.raises(ValueError, match=message):
        VNetOptions(*arguments)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
def test_instance_normalisation_and_its_gradient(batch, layout):
    torch.manual_seed(0)
    x = torch.rand(batch, 6, 3, 4, 5, dtype=torch.float64) * torch.arange(1, 7)[:, None, None, None]
    x = x.to(memory_format=layout).requires_grad_()
    norm = InstanceNorm(6).double()
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    centred = x - x.mean((2, 3, 4), keepdim=True)
    scale = torch.sqrt(centred.square().mean((2, 3, 4), keepdim=True) + 1e-5)
    by_hand = centred / scale * norm.weight.view(6, 1, 1, 1) + norm.bias.view(6, 1, 1, 1)
    assert torch.allclose(norm(x), by_hand, atol=1e-12)
    upstream = torch.rand(x.shape, dtype=torch.float64).to(memory_format=layout)
    ours, right = (torch.autograd.grad(y, x, upstream, retain_graph=True)[0] for y in (norm(x), by_hand))
    assert torch.allclose(ours, right, atol=1e-12)


def saved_bytes(network, image):
    """Bytes that a forward pass keeps for the backward pass, each storage once."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    parameters = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(image).sum().backward()
    return sum(size for place, size in kept.items() if place not in parameters)


def test_checkpointing_keeps_less_and_gives_the_same_gradients():
    torch.manual_seed(0)
    options = VNetOptions(widths=(8, 8, 16), convolutions=(2, 2, 2))
    plain, saving = VNet(1, 3, options), VNet(1, 3, options, checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    image = torch.randn(1, 1, 16, 16, 16)
    gradients, sizes = [], []
    for network in (plain, saving):
        sizes.append(saved_bytes(network, image))
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    assert sizes[1] < 0.6 * sizes[0]
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert torch.equal(plain(image), saving(image))
    with pytest.raises(ValueError, match="batch normalisation"):
        VNet(1, 3, VNetOptions(normalisation="batch"), checkpointing=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
@pytest.mark.parametrize("channels", [5, 32])
def test_prelu_and_its_gradients_are_those_of_pytorch(dtype, layout, channels):
    torch.manual_seed(0)
    x = torch.randn(2, channels, 3, 4, 7).to(dtype).to(memory_format=layout).requires_grad_()
    x.data.flatten()[:3] = torch.tensor([0.0, -0.0, 1e30]).to(dtype)
    weight = torch.tensor(
        [0.25, 0.0, 1.0, 1.7, -0.4] * 7, dtype=torch.float64 if dtype == torch.float64 else torch.float32
    )
    weight = weight[:channels]
    upstream = torch.randn(x.shape).to(dtype).to(memory_format=layout)
    results = []
    for layer in (PReLU(channels), nn.PReLU(channels)):
        layer.weight = nn.Parameter(weight.clone())
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            y = layer(x)
        results.append((y, *torch.autograd.grad(y, (x, layer.weight), upstream)))
    assert torch.equal(results[0][0], results[1][0])
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=0 if dtype != torch.bfloat16 else 1e-2, atol=0)
    if dtype == torch.float64:
        layer = PReLU(channels).double()
        layer.weight = nn.Parameter(weight.clone())
        x = torch.randn(2, channels, 3, 2, 2, dtype=torch.float64)
        x = (x + 0.1 * x.sign()).requires_grad_()  # away from the kink
        assert torch.autograd.gradcheck(lambda x, w: vnet._PReLU.apply(x, w), (x, layer.weight))


@pytest.mark.parametrize("size", [(4, 6, 9), (9, 6, 4), (6, 9, 4), (5, 5, 1)])
def test_the_layout_in_memory_changes_no_number(size):
    """Strides and kernels are other ones along each axis; a mistake in their order is an error, or another result."""
    torch.manual_seed(0)
    network = VNet(2, 3, VNetOptions((4, 8, 8), (2, 1, 1), ((1, 2, 3), (2, 2, 1)))).to(torch.float32)
    image = torch.rand(2, 2, *size)
    results = []
    for memory_format in ("contiguous", "channels_last", "by_size"):
        image = image.contiguous(memory_format=vnet.lay_out(network, memory_format))
        network.zero_grad()
        logits = network(image)
        logits.square().mean().backward()
        results.append([logits, *[p.grad.clone() for p in network.parameters()]])
    for plain, *others in zip(*results, strict=True):
        for other in others:
            torch.testing.assert_close(other, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("memory_format", "together", "order"),
    [
        ("auto", True, (1, 2, 0)),
        ("by_size", True, (1, 2, 0)),
        ("channels_last", True, (0, 1, 2)),
        ("contiguous", False, (0, 1, 2)),
    ],
)
def test_features_lie_in_memory_as_they_are_told_to(memory_format, together, order):
    """A layer that gave its result in another layout would cost a copy, and the gain with it."""
    network, seen = VNet(1, 3, VNetOptions((4, 8), (2, 2), ((1, 2, 2),))), []
    image = torch.rand(1, 1, 6, 18, 12).contiguous(memory_format=vnet.lay_out(network, memory_format))
    for module in network.modules():
        if isinstance(module, Conv3d | ConvTranspose3d | InstanceNorm | PReLU):
            module.register_forward_hook(
                lambda m, i, out: seen.append(
                    (out.stride(1) == 1, *vnet.memory_order(out), tuple(vnet.memory_order(i[0])) == order)
                )
            )
    network(image)
    assert len(seen) > 10
    assert set(seen) == {(together, *order, True)}


@pytest.mark.parametrize(
    ("device", "half", "expected"),
    [("cpu", False, "by_size"), ("cpu", True, "channels_last"), ("cuda", False, "channels_last")],
)
def test_the_memory_format_is_the_one_that_was_measured_to_be_fast(device, half, expected):
    assert vnet.resolve_memory_format("auto", torch.device(device), half) == expected
    for name in ("by_size", "channels_last", "contiguous"):
        assert vnet.resolve_memory_format(name, torch.device(device), half) == name


@pytest.mark.parametrize(("size", "volumes"), [((9, 10, 8), 1), ((30, 40, 6), 1), ((9, 10, 8), 2)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (2, 2), (1, 1), (1, 2)])
def test_convolutions_and_their_gradients_are_those_of_pytorch(size, volumes, kernel, stride):
    torch.manual_seed(0)
    ours = Conv3d(20, 4, kernel, stride=(stride, 1, stride), padding=kernel // 2)
    theirs = nn.Conv3d(20, 4, kernel, stride=(stride, 1, stride), padding=kernel // 2)
    theirs.load_state_dict(ours.state_dict())
    image = torch.randn(volumes, 20, *size).to(memory_format=torch.channels_last_3d).requires_grad_()
    results = []
    for layer in (ours, theirs):
        y = layer(image)
        gradients = torch.autograd.grad(y.square().sum(), (image, layer.weight, layer.bias))
        results.append((y, *gradients))
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-3)


def test_one_volume_needs_no_slow_convolution_and_no_gradient_laid_out_otherwise():
    """PyTorch's slow one is taken in silence: for few voxels, and for 1 × 1 × 1, whose gradient lies channels first."""
    network = VNet(1, 3, VNetOptions((4, 8), (2, 2), ((2, 2, 2),))).to(memory_format=torch.channels_last_3d)
    gradients = []
    network.decode[-1].register_full_backward_hook(lambda m, i, o: gradients.append(o[0].stride(1)))
    with torch.profiler.profile() as record:
        network(torch.rand(1, 1, 24, 48, 32)).square().sum().backward()
    names = {event.name for event in record.events()}
    assert "aten::mkldnn_convolution" in names
    assert not {name for name in names if "slow_conv3d" in name}
    assert gradients == [1]
