"""Prediction and post-processing."""

import numpy as np
import torch
from torch import nn

from shapeloss.experiment import Postprocessing
from shapeloss.inference import postprocess, predict_labels
from shapeloss.vnet import VNet, VNetOptions


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
