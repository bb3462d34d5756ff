"""Prediction and post-processing."""

import numpy as np
import pytest
import torch
from torch import nn

from shapeloss.predict import Postprocessing, compute_logits, postprocess, predict_labels, resolve_precision
from shapeloss.vnet import VNet, VNetOptions

INTEL, AMD = "Intel(R) Xeon(R) Processor", "AMD EPYC 9654 96-Core Processor"


@pytest.mark.parametrize(
    ("capability", "name", "features", "expected"),
    [
        ("AVX512", INTEL, {"amx_bf16": True, "avx512_bf16": True}, "bf16-mixed"),
        ("AVX512", AMD, {"amx_bf16": False, "avx512_bf16": True}, "bf16-mixed"),
        ("AVX512", AMD, {"amx_bf16": False, "avx512_bf16": False}, "32-true"),
        ("AVX512", INTEL, {"amx_bf16": False, "avx512_bf16": True}, "32-true"),
        ("AVX2", INTEL, {"amx_bf16": True, "avx512_bf16": True}, "32-true"),  # lowered by ATEN_CPU_CAPABILITY
        ("DEFAULT", "Apple M4", {"amx_bf16": False}, "32-true"),
    ],
)
def test_precision_is_the_one_that_is_fast_there(monkeypatch, capability, name, features, expected):
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"cpu_name": name, **features}, raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert resolve_precision("auto", "cpu") == resolve_precision("auto") == expected
    assert resolve_precision("32-true", "cpu") == "32-true"
    assert resolve_precision("bf16-mixed", "cpu") == "bf16-mixed"


@pytest.mark.parametrize(("amx", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_precision_with_a_torch_that_does_not_list_what_the_processor_has(monkeypatch, amx, expected):
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    monkeypatch.delattr("torch.cpu.get_capabilities", raising=False)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: amx, raising=False)
    assert resolve_precision("auto", "cpu") == expected


@pytest.mark.parametrize(("hardware", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_precision_on_a_gpu_is_that_of_its_hardware(monkeypatch, hardware, expected):
    def supported(including_emulation=True):
        return hardware or including_emulation

    monkeypatch.setattr("torch.cuda.is_bf16_supported", supported)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert resolve_precision("auto") == resolve_precision("auto", torch.device("cuda", 1)) == expected


def test_logits_are_float32_whatever_the_convolutions_are():
    torch.manual_seed(0)
    network = VNet(1, 3, VNetOptions((4, 8), (1, 1), ((2, 2, 2),)))
    image = torch.rand(1, 1, 8, 8, 8)
    whole, half = (compute_logits(network, image, precision) for precision in ("32-true", "bf16-mixed"))
    assert whole.dtype == half.dtype == torch.float32
    assert torch.equal(whole, network(image))
    assert not torch.equal(whole, half)
    assert torch.allclose(whole, half, atol=0.1)


def test_closing_fills_a_gap_and_the_largest_component_stays():
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[1:6, 1:6, 1:6] = 1
    labels[3, 3, 3] = 0  # a hole
    labels[8, 8, 8] = 1  # an island
    result = postprocess(labels, Postprocessing())
    assert result[3, 3, 3] == 1
    assert result[8, 8, 8] == 0
    assert result.sum() == 125
    assert postprocess(labels, Postprocessing(closing_voxels=0))[3, 3, 3] == 0
    assert postprocess(labels, Postprocessing(largest_component=False))[8, 8, 8] == 1


def test_closing_does_not_take_voxels_from_another_structure():
    labels = np.zeros((7, 7, 7), np.uint8)
    labels[1:6, 1:6, 1:6] = 1
    labels[3, 3, 3] = 2
    result = postprocess(labels, Postprocessing())
    assert result[3, 3, 3] == 2
    assert np.array_equal(result, labels)


def test_components_belong_together_across_edges_and_corners():
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = labels[3, 3, 0] = 1
    assert postprocess(labels, Postprocessing(closing_voxels=0)).nonzero()[0].tolist() == [0, 1]


def test_structures_at_the_edge_of_the_volume_and_missing_ones():
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[:, :, 4:] = 2
    assert np.array_equal(postprocess(labels, Postprocessing(closing_voxels=2)), labels)
    assert not postprocess(np.zeros((4, 4, 4), np.uint8), Postprocessing()).any()


def test_the_input_is_left_alone():
    labels = np.random.default_rng(0).integers(0, 3, (6, 6, 6)).astype(np.uint8)
    before = labels.copy()
    postprocess(labels, Postprocessing())
    assert np.array_equal(labels, before)


class Threshold(nn.Module):
    """Class 1 where the image is above a half, and a note of the sizes that were asked for."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, image):
        self.sizes.append(tuple(image.shape[2:]))
        return torch.cat([0.5 - image, image - 0.5], 1)


def test_a_sliding_window_gives_the_same_as_one_pass():
    image = torch.rand(1, 1, 11, 13, 9)
    whole, sliding = Threshold(), Threshold()
    labels = predict_labels(whole, image)
    assert np.array_equal(labels, (image[0, 0] > 0.5).numpy())
    assert np.array_equal(labels, predict_labels(sliding, image, (4, 8, 8)))
    assert set(sliding.sizes) == {(4, 8, 8)}


def test_the_mode_of_the_network_comes_back_and_dropout_is_off():
    torch.manual_seed(0)
    network = VNet(1, 3, VNetOptions((4, 8), (1, 1), ((2, 2, 2),), dropout=0.5)).train()
    image = torch.rand(1, 1, 8, 8, 8)
    assert np.array_equal(predict_labels(network, image), predict_labels(network, image))
    assert network.training


def test_windows_weigh_most_at_their_centre():
    """A network that errs near the edges of its window: where windows overlap, the one nearer its centre decides."""
    certain = torch.tensor([-3.0, -3, 1, 1, 1, 1, -3, -3])

    class Edges(torch.nn.Module):
        def forward(self, patch):
            right = certain.expand(1, 1, *patch.shape[2:])
            return torch.cat([torch.zeros_like(right), right], dim=1)

    labels = predict_labels(Edges(), torch.zeros(1, 1, 8, 8, 24), (8, 8, 8))[3:5, 3:5]
    assert (labels[..., 2:-2] == 1).all()  # with equal weights 1 and -3 would give the background
    assert (labels[..., :2] == 0).all()
