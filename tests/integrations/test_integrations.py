"""The transform for MONAI on files, MetaTensors and plain arrays."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, RandFlipd, RandSpatialCropd, Spacingd, SqueezeDim

from shapeloss.distance import distance_penalty
from shapeloss.integrations.monai import DistancePenaltyd
from shapeloss.losses import BoundaryLoss, DiceLoss, DistancePenalizedCELoss
from shapeloss.losses.label_maps import signed_distance

KNEE = (0.7, 0.365, 0.365)


@pytest.fixture
def labels():
    labels = np.zeros((8, 12, 10), np.uint8)
    labels[2:6, 3:9, 2:8] = 1
    labels[3:5, 5:7, 8:] = 2
    return labels


@pytest.fixture
def file(tmp_path, labels):
    """The labels as NIfTI with an oblique, flipped affine of the knee's spacing."""
    angle = 0.3
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([-0.7, 0.365, 0.365])
    affine[:3, 3] = [10, -20, 30]
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "label.nii.gz")
    return str(tmp_path / "label.nii.gz")


def test_spacing_comes_from_the_affine_of_the_file(file, labels):
    load = Compose([LoadImaged("label"), EnsureChannelFirstd("label"), DistancePenaltyd("label")])
    result = load({"label": file})
    assert isinstance(result["phi"], MetaTensor)
    assert result["phi"].dtype == torch.float32
    torch.testing.assert_close(result["phi"].affine, result["label"].affine)
    result["label"].affine = torch.eye(4)
    result["label"].applied_operations.append({})
    assert not torch.equal(result["phi"].affine, result["label"].affine)  # two records, not one
    assert not result["phi"].applied_operations
    np.testing.assert_allclose(result["phi"][0].numpy(), distance_penalty(labels, KNEE), atol=1e-5)


def test_phi_of_a_resampled_label_has_the_new_spacing(file):
    steps = [LoadImaged("label"), EnsureChannelFirstd("label"), Spacingd("label", (0.7, 0.73, 0.73), mode="nearest")]
    result = Compose([*steps, DistancePenaltyd("label")])({"label": file})
    resampled = result["label"][0].numpy().astype(int)
    assert resampled.shape != (8, 12, 10)
    np.testing.assert_allclose(result["phi"][0].numpy(), distance_penalty(resampled, (0.7, 0.73, 0.73)), atol=1e-5)


def test_a_monai_training_pipeline_uses_the_map_of_the_whole_volume(file, labels):
    transforms = Compose(
        [
            LoadImaged("label"),
            EnsureChannelFirstd("label"),
            DistancePenaltyd("label"),
            RandSpatialCropd(["label", "phi"], roi_size=(5, 6, 7), random_size=False),
            RandFlipd(["label", "phi"], prob=1.0, spatial_axis=1),
        ]
    ).set_random_state(0)
    dataset = CacheDataset([{"label": file}] * 2, transforms, progress=False)
    batch = next(iter(DataLoader(dataset, batch_size=2)))
    assert batch["phi"].shape == (2, 1, 5, 6, 7)
    logits = torch.randn(2, 3, 5, 6, 7, requires_grad=True)
    loss = DistancePenalizedCELoss()(logits, batch["label"].long(), batch["phi"])
    loss.backward()
    assert loss.isfinite()
    whole, cropped = distance_penalty(labels, KNEE), batch["phi"].numpy()[:, 0]
    windows = np.lib.stride_tricks.sliding_window_view(whole, (5, 6, 7))[:, :, :, :, ::-1]
    for crop in cropped:
        assert (np.abs(windows - crop).max((-1, -2, -3)) < 1e-5).any()


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["array", "tensor"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
def test_plain_arrays_need_the_spacing(labels, kind, dtype):
    label = kind(labels[None].astype(dtype))
    result = DistancePenaltyd("label", spacing=KNEE)({"label": label, "id": 7})
    np.testing.assert_allclose(np.asarray(result["phi"][0]), distance_penalty(labels, KNEE), atol=1e-6)
    assert result["id"] == 7
    assert result["label"] is label
    with pytest.raises(ValueError, match=r"label is a .* without affine"):
        DistancePenaltyd("label")({"label": label})


def test_readings_other_losses_2d_and_several_keys(labels):
    plane, spacing = torch.as_tensor(labels[3][None]), KNEE[1:]
    data = {"a": plane, "b": plane.flip(1)}
    result = DistancePenaltyd(["a", "b"], ["phi_a", "phi_b"], variant="mm", spacing=spacing)(data)
    np.testing.assert_allclose(result["phi_a"][0], distance_penalty(labels[3], spacing, unit="mm"), atol=1e-6)
    np.testing.assert_allclose(result["phi_b"], result["phi_a"].flip(1), atol=1e-6)
    maps = DistancePenaltyd("a", "maps", loss=BoundaryLoss(3), spacing=spacing)(data)["maps"]
    np.testing.assert_array_equal(maps, signed_distance(labels[3], 3, spacing))
    assert DistancePenaltyd("c", spacing=spacing, allow_missing_keys=True)(data) == data


def test_slices_of_a_volume(file, labels, tmp_path):
    """An affine does not tell which axes a slice has: MONAI's own reading would give some of these a wrong spacing."""
    whole = Compose([LoadImaged("label"), EnsureChannelFirstd("label")])({"label": file})["label"]
    transform = DistancePenaltyd("label")
    for plane in (whole[:, 3], whole[..., 4], SqueezeDim(1)(whole[:, 3:4])):
        with pytest.raises(ValueError, match=r"label is 2D, and .*before the slicing, or give it spacing"):
            transform({"label": plane})
    before = transform({"label": whole})["phi"][:, 3]
    assert before.shape == (1, 12, 10)
    given = DistancePenaltyd("label", spacing=KNEE[1:])({"label": whole[:, 3]})["phi"]
    np.testing.assert_allclose(given[0], distance_penalty(labels[3], KNEE[1:]), atol=1e-6)


def test_images_of_two_dimensions(file, labels, tmp_path):
    oblique = nib.load(file).affine[:, [1, 2, 0, 3]]  # the file's axes are the volume's second and third
    for shape in ((12, 10), (12, 10, 1)):
        nib.save(nib.Nifti1Image(labels[3].reshape(shape), oblique), tmp_path / "plane.nii.gz")
        label = Compose([LoadImaged("label"), EnsureChannelFirstd("label")])({"label": str(tmp_path / "plane.nii.gz")})
        phi = DistancePenaltyd("label")({"label": label["label"].reshape(1, 12, 10)})["phi"]
        np.testing.assert_allclose(phi[0], distance_penalty(labels[3], KNEE[1:]), atol=1e-5)
    straight = np.diag([0.365, 0.7, 0.5, 1])
    nib.save(nib.Nifti1Image(labels, straight), tmp_path / "straight.nii.gz")
    whole = Compose([LoadImaged("label"), EnsureChannelFirstd("label")])({"label": str(tmp_path / "straight.nii.gz")})
    plane = SqueezeDim(1)(whole["label"][:, 3:4])
    phi = DistancePenaltyd("label")({"label": plane})["phi"]
    np.testing.assert_allclose(phi[0], distance_penalty(labels[3], (0.7, 0.5)), atol=1e-5)


def test_bad_labels_for_monai(labels):
    transform = DistancePenaltyd("label", spacing=KNEE)
    with pytest.raises(ValueError, match=r"channel first.*EnsureChannelFirstd"):
        transform({"label": torch.as_tensor(labels)})
    with pytest.raises(ValueError, match=r"got \(3, 8, 12, 10\).*AsDiscreted"):
        transform({"label": torch.zeros(3, 8, 12, 10)})
    with pytest.raises(ValueError, match="label must hold whole numbers"):
        transform({"label": torch.full((1, 8, 12, 10), 0.5)})
    with pytest.raises(ValueError, match="loss must be one with a map, such as BoundaryLoss"):
        DistancePenaltyd("label", loss=DiceLoss())
    whole = torch.as_tensor(labels[None]).to(torch.bfloat16)
    assert torch.equal(transform({"label": whole})["phi"], transform({"label": whole.int()})["phi"])
    with pytest.raises(ValueError, match="output_keys must be one for each"):
        DistancePenaltyd(["a", "b"])
