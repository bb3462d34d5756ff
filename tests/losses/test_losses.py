"""Every loss against an independent implementation, its reductions, its limits, and the field's bugs."""

from __future__ import annotations

import inspect
import json

import monai.losses
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage, special
from torch import nn
from torch.nn import functional as F

from shapeloss.distance import CONTROLS, VARIANTS, PenaltyOptions, distance_penalty
from shapeloss.losses import (
    LOSSES,
    BoundaryDoULoss,
    BoundaryLoss,
    ConfidencePenaltyLoss,
    ContourWeightedCELoss,
    CrossEntropyLoss,
    DiceCELoss,
    DiceDistancePenalizedCELoss,
    DiceLoss,
    DistancePenalizedCELoss,
    FocalLoss,
    GeneralizedDiceLoss,
    GeneralizedSurfaceLoss,
    HausdorffDTLoss,
    RegionWiseLoss,
    SegmentationLoss,
    SignedDistanceLoss,
    TopKCELoss,
    TverskyLoss,
    UNetWeightedCELoss,
    build_loss,
)
from shapeloss.losses import label_maps as maps

KNEE = (0.7, 0.365, 0.365)
SHAPES = [(2, 5, 6), (1, 4, 5, 6)]  # (B, X, Y[, Z])
KEYS = sorted(LOSSES)


def case(classes, shape, seed=0, dtype=torch.float32):
    """Random logits (B, K, …) and target (B, …), and the spacing."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape[0], classes, *shape[1:], generator=generator, dtype=torch.float64)
    return logits.to(dtype), torch.randint(0, classes, shape, generator=generator), KNEE[: len(shape) - 1]


def maps_for(loss, target, spacing):
    """The maps of a batch, or None for a loss without."""
    if loss.map_spec is None:
        return None
    return torch.from_numpy(np.stack([loss.compute_map(labels, spacing) for labels in target.numpy()]))


# ---------------------------------------------------------------- plain loops in float64, with SciPy's transform


def voxels(logits, target):
    """Log-probabilities of the classes and true class of each voxel, with its volume and index."""
    log_p = special.log_softmax(logits, axis=1)
    for b, *index in np.ndindex(target.shape):
        yield b, tuple(index), log_p[(b, slice(None), *index)], target[(b, *index)]


def mean_over_voxels(logits, target, function):
    return np.mean([function(b, index, log_p, t) for b, index, log_p, t in voxels(logits, target)])


def border_distance(mask, spacing):
    if not mask.any() or mask.all():
        return np.zeros(mask.shape)
    return np.where(mask, ndimage.distance_transform_edt(mask, spacing), ndimage.distance_transform_edt(~mask, spacing))


def loop_phi(labels, spacing):
    phi = np.zeros(labels.shape)
    for value in np.unique(labels):
        mask = labels == value
        d = ndimage.distance_transform_edt(mask, spacing)[mask]
        phi[mask] = (d.max() - d) / (d.max() - d.min()) if d.max() > d.min() else 1
    return phi


def loop_ce(logits, target, spacing):
    return mean_over_voxels(logits, target, lambda b, i, log_p, t: -log_p[t])


def loop_dpce(logits, target, spacing):
    phi = [loop_phi(labels, spacing) for labels in target]
    return mean_over_voxels(logits, target, lambda b, i, log_p, t: -(1 + phi[b][i]) * log_p[t])


def loop_pcol(logits, target, spacing):
    return mean_over_voxels(logits, target, lambda b, i, log_p, t: -log_p[t] + 0.1 * (np.exp(log_p) * log_p).sum())


def loop_focal(logits, target, spacing):
    return mean_over_voxels(logits, target, lambda b, i, log_p, t: -((1 - np.exp(log_p[t])) ** 2) * log_p[t])


def loop_dice(logits, target, spacing, smooth=1, power=2):
    p, scores = special.softmax(logits, axis=1), []
    for b in range(len(p)):
        for k in range(1, p.shape[1]):
            g = target[b] == k
            scores.append((2 * p[b, k][g].sum() + smooth) / ((p[b, k] ** power).sum() + g.sum() + smooth))
    return 1 - np.mean(scores)


def loop_gdice(logits, target, spacing):
    p, scores = special.softmax(logits, axis=1), []
    for b in range(len(p)):
        sizes = np.array([(target[b] == k).sum() for k in range(p.shape[1])], float)
        weights = 1 / np.where(sizes > 0, sizes, sizes[sizes > 0].min()) ** 2
        overlap = sum(w * p[b, k][target[b] == k].sum() for k, w in enumerate(weights))
        scores.append(
            2 * overlap / sum(w * (p[b, k].sum() + n) for k, (w, n) in enumerate(zip(weights, sizes, strict=True)))
        )
    return 1 - np.mean(scores)


def loop_unet(logits, target, spacing):
    def weight(labels):
        values, counts = np.unique(labels, return_counts=True)
        total = sum((labels == v) * labels.size / (len(values) * n) for v, n in zip(values, counts, strict=True))
        objects = []
        for v in values[values > 0]:
            components, number = ndimage.label(labels == v, np.ones((3,) * labels.ndim))
            objects += [border_distance(components == n + 1, spacing) for n in range(number)]
        if len(objects) > 1:
            nearest, second = np.sort(np.stack(objects), axis=0)[:2]
            total = total + 10 * np.exp(-((nearest + second) ** 2) / 50)
        return total

    weights = [weight(labels) for labels in target]
    return mean_over_voxels(logits, target, lambda b, i, log_p, t: -weights[b][i] * log_p[t])


def loop_boundary(logits, target, spacing):  # at progress 1/4: α = 0.01 + 0.98 / 4
    p, terms = special.softmax(logits, axis=1), []
    for b in range(len(p)):
        for k in range(1, p.shape[1]):
            mask = target[b] == k
            terms.append((np.where(mask, -1, 1) * border_distance(mask, spacing) * p[b, k]).mean())
    return 0.745 * loop_gdice(logits, target, spacing) + 0.255 * np.mean(terms)


def loop_hausdorff(logits, target, spacing):
    p, terms = special.softmax(logits, axis=1), []
    for b in range(len(p)):
        for k in range(1, p.shape[1]):
            g = target[b] == k
            d = border_distance(g, spacing) ** 2 + border_distance(p[b, k] > 0.5, spacing) ** 2
            terms.append(((p[b, k] - g) ** 2 * d).mean())
    return 2 * np.mean(terms)  # the Dice loss is scaled to the same value


def loop_sdf(logits, target, spacing):
    y, terms = np.tanh(logits), []
    for b in range(len(y)):
        for k in range(y.shape[1]):
            mask = target[b] == k
            z = np.full(mask.shape, 1.0 if mask.all() else -1.0)
            if mask.any() and not mask.all():
                d = border_distance(mask, spacing)
                z = np.where(mask, d / d[mask].max(), -d / d[~mask].max())
            terms.append((np.abs(y[b, k] - z) - y[b, k] * z / (y[b, k] * z + y[b, k] ** 2 + z**2)).mean())
    return np.mean(terms)


def loop_topk(logits, target, spacing):
    log_p, means = special.log_softmax(logits, axis=1), []
    for b in range(len(target)):
        ce = sorted((-log_p[(b, target[(b, *index)], *index)] for index in np.ndindex(target[b].shape)), reverse=True)
        means.append(np.mean(ce[: max(1, int(0.1 * len(ce)))]))
    return np.mean(means)


def loop_tversky(logits, target, spacing):
    p, scores = special.softmax(logits, axis=1), []
    for b in range(len(p)):
        for k in range(1, p.shape[1]):
            g = target[b] == k
            hit, false, missed = p[b, k][g].sum(), p[b, k][~g].sum(), (1 - p[b, k][g]).sum()
            scores.append((hit + 1) / (hit + 0.3 * false + 0.7 * missed + 1))
    return 1 - np.mean(scores)


def eroded(mask, everything):
    """Without the voxels whose neighbour is outside; the edge of the array is not outside."""
    structure = ndimage.generate_binary_structure(mask.ndim, mask.ndim if everything else 1)
    return ndimage.binary_erosion(mask, structure, border_value=1)


def loop_contour(logits, target, spacing):
    p, total = special.softmax(logits, axis=1), []
    for b in range(len(p)):
        contours = [(target[b] == k) & ~eroded(target[b] == k, True) for k in range(1, p.shape[1])]
        weight = 1 + 2 * np.any(contours, axis=0)
        ce = -np.log(np.take_along_axis(p[b], target[b][None], 0)[0])
        value = (weight * ce).mean() + ce.mean()
        for inside in (True, False):
            overlap = size = 0.0
            for k, contour in enumerate(contours, start=1):
                part, g = contour == inside, target[b] == k
                overlap += p[b, k][part & g].sum()
                size += p[b, k][part].sum() + (part & g).sum()
            value += 1 - (2 * overlap + 1e-3) / (size + 1e-3)
        total.append(value)
    return np.mean(total)


def loop_dou(logits, target, spacing):
    p, scores = special.softmax(logits, axis=1), []
    for b in range(len(p)):
        for k in range(1, p.shape[1]):
            g = target[b] == k
            alpha = 0.0
            if g.any():
                alpha = min(max(1 - 2 * (g & ~eroded(g, False)).sum() / g.sum(), 0), 0.8)
            overlap, both = p[b, k][g].sum(), (p[b, k] ** 2).sum() + g.sum()
            scores.append((both - 2 * overlap) / (both - (1 + alpha) * overlap + 1))
    return np.mean(scores)


def loop_rrw(logits, target, spacing):
    p, terms = special.softmax(logits, axis=1), []
    for b in range(len(p)):
        for k in range(p.shape[1]):
            mask = target[b] == k
            m = np.full(mask.shape, -1.0 if mask.all() else 1.0)
            if mask.any() and not mask.all():
                d = border_distance(mask, spacing)
                m = np.where(mask, -d / d[mask].max(), 1)
            terms.append((p[b, k] * m).mean())
    return np.mean(terms)


def loop_gsl(logits, target, spacing):  # at progress 1/4
    p, ratios = special.softmax(logits, axis=1), []
    for b in range(len(p)):
        kept = whole = 0.0
        for k in range(1, p.shape[1]):
            g = target[b] == k
            d = border_distance(g, spacing)
            kept += ((d * (1 - g - p[b, k])) ** 2).sum()
            whole += (d**2).sum()
        ratios.append(1 - kept / whole if whole else 1)
    return 0.75 * LOOPS["dice_ce"](logits, target, spacing) + 0.25 * np.mean(ratios)


LOOPS = {
    "topk": loop_topk,
    "tversky": loop_tversky,
    "contour": loop_contour,
    "dou": loop_dou,
    "rrw": loop_rrw,
    "gsl": loop_gsl,
    "ce": loop_ce,
    "dpce": loop_dpce,
    "pcol": loop_pcol,
    "focal": loop_focal,
    "dice": loop_dice,
    "gdice": loop_gdice,
    "unet": loop_unet,
    "boundary": loop_boundary,
    "hausdorff": loop_hausdorff,
    "sdf": loop_sdf,
    "dice_ce": lambda *a: loop_dice(*a, smooth=1e-5, power=1) + loop_ce(*a),
    "dice_dpce": lambda *a: loop_dice(*a, smooth=1e-5, power=1) + loop_dpce(*a),
}


@pytest.mark.parametrize("shape", SHAPES, ids=["2D", "3D"])
@pytest.mark.parametrize("classes", [2, 4, 8])
@pytest.mark.parametrize("key", KEYS)
def test_equals_plain_loops(key, classes, shape):
    logits, target, spacing = case(classes, shape)
    loss = build_loss(key, num_classes=classes, spacing=spacing)
    loss.progress = 0.25
    expected = LOOPS[key](logits.double().numpy(), target.numpy(), spacing)
    given = loss(logits, target, maps_for(loss, target, spacing))
    assert given.shape == ()
    assert given.dtype == torch.float32
    assert float(given) == pytest.approx(expected, rel=2e-5)
    assert float(loss(logits, target)) == pytest.approx(float(given), rel=1e-6)  # computes the map itself


@pytest.mark.parametrize("shape", SHAPES, ids=["2D", "3D"])
@pytest.mark.parametrize("classes", [2, 4, 8])
def test_equals_monai(classes, shape):
    logits, target, _ = case(classes, shape, seed=1)
    target[0] = torch.arange(target[0].numel()).view(target[0].shape) % classes  # MONAI treats absent classes otherwise
    labels = target[:, None]
    options = {"to_onehot_y": True, "softmax": True}
    dice = monai.losses.DiceLoss(**options, include_background=False, squared_pred=True, smooth_nr=1, smooth_dr=1)
    focal = monai.losses.FocalLoss(to_onehot_y=True, use_softmax=True, gamma=1.5)
    gdice = monai.losses.GeneralizedDiceLoss(**options, smooth_nr=0, smooth_dr=0)
    unit = (1.0,) * (len(shape) - 1)
    pairs = [
        (DiceLoss(), dice(logits, labels)),
        (DiceCELoss(include_background=True), monai.losses.DiceCELoss(**options)(logits, labels)),
        (
            DiceCELoss(include_background=True, squared=True),
            monai.losses.DiceCELoss(**options, squared_pred=True)(logits, labels),
        ),
        (GeneralizedDiceLoss(smooth=0), gdice(logits, labels)),
        (FocalLoss(gamma=1.5), classes * focal(logits, labels)),  # MONAI's mean divides by K too
        (HausdorffDTLoss(classes, unit, dice=False), monai.losses.HausdorffDTLoss(**options)(logits, labels)),
        (
            TverskyLoss(smooth=1e-5),
            monai.losses.TverskyLoss(**options, include_background=False, alpha=0.3, beta=0.7)(logits, labels),
        ),
    ]
    for loss, expected in pairs:
        assert float(loss(logits, target)) == pytest.approx(float(expected), rel=1e-4), type(loss).__name__


def test_all_keys_are_checked_against_loops():
    assert sorted(LOOPS) == KEYS


@pytest.mark.parametrize("key", KEYS)
def test_gradient_in_float64(key):
    options = {"dice": False} if key == "hausdorff" else {}  # its λ is detached by design
    logits, target, spacing = case(3, (2, 2, 3, 2), dtype=torch.float64)
    loss = build_loss(key, num_classes=3, spacing=spacing, **options)
    phi = maps_for(loss, target, spacing)
    assert torch.autograd.gradcheck(lambda z: loss(z, target, phi), logits.requires_grad_())


def test_gradient_of_the_options():
    logits, target, spacing = case(3, (1, 2, 3, 2), dtype=torch.float64)
    for loss in (
        ConfidencePenaltyLoss(beta=0.7, threshold=0.4),
        FocalLoss(gamma=0.5, alpha=[0.2, 0.3, 0.5]),
        BoundaryLoss(3, spacing, include_background=True, region="dice", schedule="increase"),
        HausdorffDTLoss(3, spacing, include_background=True, alpha=1.0, dice=False),
        TopKCELoss(share=0.5),
        TverskyLoss(alpha=0.9, beta=0.2, include_background=True, smooth=0.0),
        ContourWeightedCELoss(spacing, weight=5.0, smooth=0.0),
        BoundaryDoULoss(spacing, include_background=True, smooth=0.0),
        GeneralizedSurfaceLoss(3, spacing, include_background=True, region=False),
    ):
        assert torch.autograd.gradcheck(lambda z, f=loss: f(z, target), logits.requires_grad_())


# ---------------------------------------------------------------- reductions


def test_reductions_to_cross_entropy():
    logits, target, _ = case(4, (2, 4, 5, 6))
    ce = F.cross_entropy(logits, target)
    dpce = DistancePenalizedCELoss()
    torch.testing.assert_close(CrossEntropyLoss()(logits, target), ce)
    torch.testing.assert_close(dpce(logits, target, torch.zeros(target.shape)), ce)
    for c in (0.5, 1.0, 7.0):
        torch.testing.assert_close(dpce(logits, target, torch.full(target.shape, c)), (1 + c) * ce)
    torch.testing.assert_close(FocalLoss(gamma=0)(logits, target), ce)
    torch.testing.assert_close(FocalLoss(gamma=0, alpha=0.5)(logits, target), ce / 2)
    torch.testing.assert_close(ConfidencePenaltyLoss(beta=0)(logits, target), ce)
    torch.testing.assert_close(ConfidencePenaltyLoss(beta=3, threshold=0)(logits, target), ce)
    torch.testing.assert_close(UNetWeightedCELoss()(logits, target, torch.ones(target.shape)), ce)
    torch.testing.assert_close(DiceCELoss(dice_weight=0)(logits, target), ce)
    torch.testing.assert_close(
        DiceDistancePenalizedCELoss()(logits, target, torch.zeros(target.shape)), DiceCELoss()(logits, target)
    )


def test_reductions_of_the_newer_losses():
    logits, target, spacing = case(4, (2, 4, 5, 6), dtype=torch.float64)
    ce = F.cross_entropy(logits, target)
    torch.testing.assert_close(TopKCELoss(share=1.0)(logits, target), ce)
    torch.testing.assert_close(ContourWeightedCELoss(spacing, weight=0, dice=False)(logits, target), 2 * ce)
    torch.testing.assert_close(
        TverskyLoss(0.5, 0.5, smooth=0.0)(logits, target), DiceLoss(smooth=0.0, squared=False)(logits, target)
    )
    p, g = logits.softmax(1)[:, 1:].flatten(2), F.one_hot(target, 4).movedim(-1, 1)[:, 1:].double().flatten(2)
    overlap, both = (p * g).sum(2), (p**2 + g).sum(2)
    jaccard = 1 - (overlap / (both - overlap)).mean()
    torch.testing.assert_close(BoundaryDoULoss(spacing, largest_alpha=0, smooth=0)(logits, target), jaccard)
    truth = 60.0 * (2 * F.one_hot(target, 4).movedim(-1, 1).double() - 1)
    for loss, right, wrong in (
        (GeneralizedSurfaceLoss(4, spacing, region=False), 0.0, None),
        (GeneralizedSurfaceLoss(4, spacing, include_background=True, region=False), 0.0, None),
        (BoundaryDoULoss(spacing, smooth=0), 0.0, 1.0),
    ):
        assert float(loss(truth, target)) == pytest.approx(right, abs=1e-6)
        opposite = float(loss(-truth, target))
        assert opposite > 0.5 if wrong is None else opposite == pytest.approx(wrong, abs=1e-6)


def test_voxels_that_tie_share_the_last_places():
    logits = torch.zeros(1, 2, 1, 4, dtype=torch.float64)
    logits[0, 0, 0, 0] = -2  # the hardest; the three others are equal
    logits.requires_grad_()
    value = TopKCELoss(share=0.5)(logits, torch.zeros(1, 1, 4, dtype=torch.long))
    (gradient,) = torch.autograd.grad(value, logits)
    hardest = np.log(1 + np.exp(2))
    assert value.item() == pytest.approx((hardest + np.log(2)) / 2)
    torch.testing.assert_close(gradient[0, 1, 0, 1:], torch.full((3,), 1 / 12, dtype=torch.float64))


def test_region_wise_by_hand():
    """A row of 1 mm: two voxels of class 0, three of class 1, whose deepest is 3 mm from class 0."""
    labels = torch.tensor([[[0, 0, 1, 1, 1]]])
    expected = [[-1, -0.5, 1, 1, 1], [1, 1, -1 / 3, -2 / 3, -1]]
    loss = RegionWiseLoss(2, spacing=(1, 1))
    np.testing.assert_allclose(loss.compute_map(labels[0].numpy(), (1, 1))[:, 0], expected, rtol=1e-6)
    sure = torch.tensor([[[[50.0, 50, -50, -50, -50]], [[-50.0, -50, 50, 50, 50]]]])
    assert float(loss(sure, labels)) == pytest.approx((-1 - 0.5 - 1 / 3 - 2 / 3 - 1) / 10)
    assert float(loss(-sure, labels)) == pytest.approx(0.5)


def test_boundary_dou_by_hand():
    """A square of 8 × 8: 28 of 64 voxels lie on its boundary, so α is 1 / 8; one of 20 × 20 has the largest, 0.8."""
    for side, alpha in ((8, 1 - 2 * 28 / 64), (24, 0.8 if 1 - 2 * 92 / 576 > 0.8 else 1 - 2 * 92 / 576)):
        target = torch.zeros(1, 30, 30, dtype=torch.long)
        target[0, 2 : 2 + side, 2 : 2 + side] = 1
        p = 1 / 2  # zero logits
        overlap, both = p * side**2, p**2 * 900 + side**2
        value = BoundaryDoULoss(spacing=(1, 1), smooth=0)(torch.zeros(1, 2, 30, 30), target)
        assert float(value) == pytest.approx((both - 2 * overlap) / (both - (1 + alpha) * overlap), rel=1e-6)
    edge = torch.ones(1, 6, 6, dtype=torch.long)
    edge[0, :, 0] = 0  # the structure leaves the image: only the side towards the background is boundary
    assert maps.boundary_voxels(edge[0].numpy(), (1, 1))[:, 1:].sum() == 6


def test_labels_as_monai_loads_them():
    logits, target, spacing = case(3, (1, 4, 5, 6))
    loss = DistancePenalizedCELoss(spacing=spacing)
    torch.testing.assert_close(loss(logits, target[:, None].float()), loss(logits, target))


def test_options_have_their_effect():
    logits, target, spacing = case(3, (1, 4, 5, 6), dtype=torch.float64)
    p, g = logits.softmax(1).numpy()[0], target.numpy()[0]
    d = [
        (border_distance(g == k, spacing), border_distance(p[k] > 0.5, spacing), (p[k] - (g == k)) ** 2) for k in (1, 2)
    ]
    for alpha in (1.0, 3.0):
        value = HausdorffDTLoss(3, spacing, alpha=alpha, dice=False)(logits, target)
        expected = np.mean([error * (true**alpha + found**alpha) for true, found, error in d])
        assert float(value) == pytest.approx(expected, rel=1e-5)
    both = [SignedDistanceLoss(3, spacing, product=weight)(logits, target) for weight in (0.0, 1.0, 2.0)]
    assert float(both[2] - both[0]) == pytest.approx(2 * float(both[1] - both[0]))
    assert float(both[1] - both[0]) != 0
    for loss in (DiceCELoss, DiceDistancePenalizedCELoss):
        place = {} if loss is DiceCELoss else {"spacing": spacing}
        ce, dice = (loss(**place, ce_weight=a, dice_weight=b)(logits, target) for a, b in ((1, 0), (0, 1)))
        torch.testing.assert_close(loss(**place, ce_weight=3, dice_weight=0.5)(logits, target), 3 * ce + dice / 2)


def test_every_option_of_the_constructors_arrives():
    logits, target, spacing = case(3, (2, 4, 5, 6), dtype=torch.float64)
    p = logits.softmax(1).numpy()
    g = np.stack([target.numpy() == k for k in range(3)], 1)
    shapes = (2, 3, -1)
    pk, gk = p.reshape(shapes), g.reshape(shapes)
    labels = target.numpy()
    signed = np.stack([maps.signed_distance(volume, 3, spacing) for volume in labels])
    found = np.stack([[maps.mask_distance(mask, spacing) for mask in volume > 0.5] for volume in p])
    gdice = {b: GeneralizedDiceLoss(include_background=b) for b in (True, False)}

    def by_hand(first, smooth):
        w = 1 / gk[:, first:].sum(-1) ** 2.0
        w /= w.max(1, keepdims=True)
        overlap, total = (w * (pk * gk)[:, first:].sum(-1)).sum(1), (w * (pk + gk)[:, first:].sum(-1)).sum(1)
        return (1 - (2 * overlap + smooth) / (total + smooth)).mean()

    hausdorff = ((p - g) ** 2 * (signed**2 + found**2)).mean()
    dice, region = DiceLoss()(logits, target), gdice[True](logits, target)
    ce = F.cross_entropy(logits, target, reduction="none").numpy()
    weights = {
        key: np.stack([maps.unet_weight(volume, spacing, **options) for volume in labels])
        for key, options in {"w0": {"w0": 3.0}, "sigma": {"sigma": 1.5}, "objects": {"objects": "labels"}}.items()
    }
    alone = (signed * p).mean()
    expected = [
        (gdice[True], by_hand(0, 1e-5)),
        (gdice[False], by_hand(1, 1e-5)),
        (GeneralizedDiceLoss(smooth=30.0), by_hand(0, 30.0)),
        (HausdorffDTLoss(3, spacing, include_background=True, dice=False), hausdorff),
        (BoundaryLoss(3, spacing, include_background=True, region=None), alone),
        (BoundaryLoss(3, spacing, True, region="dice", schedule="constant", end=0.3), float(dice) + 0.3 * alone),
        (BoundaryLoss(3, spacing, True, schedule="constant", end=0.3), float(region) + 0.3 * alone),
        (UNetWeightedCELoss(spacing, w0=3.0), (weights["w0"] * ce).mean()),
        (UNetWeightedCELoss(spacing, sigma=1.5), (weights["sigma"] * ce).mean()),
        (UNetWeightedCELoss(spacing, objects="labels"), (weights["objects"] * ce).mean()),
    ]
    for loss, value in expected:
        assert float(loss(logits, target)) == pytest.approx(value, rel=1e-5), vars(loss)
    assert len({round(value, 9) for _, value in expected}) == len(expected)  # or an option had no effect here
    apart = torch.tensor([[[1, 0, 1, 0, 0]]])  # one structure, two objects
    for objects in ("components", "labels"):
        weight = maps.unet_weight(apart[0].numpy(), spacing[:2], objects=objects)
        value = UNetWeightedCELoss(spacing[:2], objects=objects)(torch.zeros(1, 2, 1, 5), apart)
        assert float(value) == pytest.approx(np.log(2) * weight.mean(), rel=1e-5)
    for loss in (DiceCELoss(ce_weight=0), DiceDistancePenalizedCELoss(spacing, ce_weight=0)):
        options = {"include_background": True, "smooth": 3.0, "squared": True}
        place = () if isinstance(loss, DiceCELoss) else (spacing,)
        given = type(loss)(*place, ce_weight=0, **options)(logits, target)
        torch.testing.assert_close(given, DiceLoss(**options)(logits, target))
        torch.testing.assert_close(loss(logits, target), DiceLoss(smooth=1e-5, squared=False)(logits, target))


def test_hinge_equals_the_plain_penalty_up_to_a_constant_above_the_largest_entropy():
    logits, target, _ = case(4, (2, 4, 5))
    threshold = np.log(4)  # no entropy is above it
    plain, hinge = (ConfidencePenaltyLoss(0.3, gamma)(logits, target) for gamma in (None, threshold))
    torch.testing.assert_close(hinge, plain + 0.3 * threshold)
    uniform = torch.zeros(1, 4, 2, 2)
    some = torch.zeros(1, 2, 2, dtype=torch.long)
    assert float(ConfidencePenaltyLoss(0.3, 1.0)(uniform, some)) == pytest.approx(np.log(4))  # above Γ: no penalty
    confident = 40 * F.one_hot(some, 4).movedim(-1, 1).float()
    assert float(ConfidencePenaltyLoss(0.3, 1.0)(confident, some)) == pytest.approx(0.3)  # H = 0: the whole of β Γ


def test_focal_alpha():
    logits, target, _ = case(3, (1, 4, 5))
    one = FocalLoss(alpha=0.25)(logits, target)
    torch.testing.assert_close(one, FocalLoss(alpha=[0.75, 0.25, 0.25])(logits, target))
    with pytest.raises(ValueError, match="one for each of the 3 classes"):
        FocalLoss(alpha=[0.5, 0.5])(logits, target)


@pytest.mark.parametrize("include_background", [False, True])
def test_boundary_is_monais_with_monais_maps(include_background):
    """MONAI has no region loss and no schedule; its maps are in voxels, and one less inside."""
    torch.manual_seed(0)
    labels = np.zeros((7, 8, 9), np.uint8)
    labels[1:4, 2:7, 1:5], labels[4:6, 2:5, 5:8] = 1, 2
    target, logits = torch.from_numpy(labels).long()[None], torch.randn(1, 3, 7, 8, 9)
    theirs = monai.losses.BoundaryLoss(include_background=include_background, to_onehot_y=True, softmax=True)
    one_hot = torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    maps = theirs.compute_distance_map(one_hot)
    loss = BoundaryLoss(3, include_background=include_background, region=None)
    assert loss(logits, target, maps) == pytest.approx(float(theirs(logits, target[:, None])), rel=1e-5)
    ours = loss.compute_map(labels, (1, 1, 1))
    np.testing.assert_allclose(ours + one_hot[0].numpy(), maps[0].numpy(), rtol=1e-6)


def test_boundary_schedules():
    logits, target, spacing = case(3, (1, 4, 5))
    alone = BoundaryLoss(3, spacing, region=None)(logits, target)
    region = GeneralizedDiceLoss()(logits, target)
    for schedule, progress, weights in [
        ("rebalance", 0.0, (0.99, 0.01)),
        ("rebalance", 1.0, (0.01, 0.99)),
        ("increase", 0.5, (1.0, 0.5)),
        ("constant", 0.0, (1.0, 0.99)),
    ]:
        loss = BoundaryLoss(3, spacing, schedule=schedule)
        loss.progress = progress
        torch.testing.assert_close(loss(logits, target), weights[0] * region + weights[1] * alone)
    loss.progress = 1.5
    with pytest.raises(ValueError, match=r"progress must be the part of the training that is done, 0 to 1, got 1\.5"):
        loss(logits, target)


def test_hausdorff_and_its_dice_weigh_the_same():
    logits, target, spacing = case(3, (1, 4, 5))
    alone = HausdorffDTLoss(3, spacing, dice=False)(logits, target)
    torch.testing.assert_close(HausdorffDTLoss(3, spacing)(logits, target), 2 * alone)


# ---------------------------------------------------------------- properties


def structures():
    """Label maps of 4 classes in which a structure is absent, fills the volume, or is one voxel."""
    empty = torch.zeros(1, 4, 5, 6, dtype=torch.long)
    full = torch.full_like(empty, 2)
    voxel = empty.clone()
    voxel[0, 2, 2, 2] = 3
    return {"absent": empty, "full": full, "one voxel": voxel, "one voxel in another": torch.where(voxel > 0, 3, 1)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("structure", structures())
@pytest.mark.parametrize("key", KEYS)
def test_finite_at_the_limits(key, structure, dtype):
    target = structures()[structure]
    loss = build_loss(key, num_classes=4, spacing=KNEE)
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (1, 4, 4, 5, 6), generator=generator) * 2 - 1
    right = 2 * F.one_hot(target, 4).movedim(-1, 1) - 1
    for pattern in (signs, right, -right, torch.zeros_like(right), torch.ones_like(right)):
        logits = (50.0 * pattern).to(dtype).requires_grad_()
        value = loss(logits, target)
        value.backward()
        assert value.isfinite()
        assert logits.grad.isfinite().all()
    if key in ("dice", "gdice"):
        nothing = torch.zeros_like(target)
        for sign in (60.0, -60.0):
            logits = torch.tensor([sign, *[-sign] * 3]).view(1, 4, 1, 1, 1).repeat(1, 1, 4, 5, 6).requires_grad_()
            value = build_loss(key, num_classes=4, smooth=0, include_background=False)(logits, nothing)
            value.backward()
            assert value.isfinite()
            assert logits.grad.isfinite().all()
    for options in ({"gamma": 0.5}, {"gamma": 0}) if key == "focal" else ():
        logits = (50.0 * right).requires_grad_()
        FocalLoss(**options)(logits, target).backward()
        assert logits.grad.isfinite().all()


@pytest.mark.parametrize("key", sorted(set(KEYS) - {"hausdorff"}))  # whose prediction is transformed as an image
def test_permuting_voxels_changes_nothing(key):
    logits, target, spacing = case(4, (2, 4, 5, 6), dtype=torch.float64)
    loss = build_loss(key, num_classes=4, spacing=spacing)
    phi = maps_for(loss, target, spacing)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(3))

    def permuted(x):
        return x.flatten(-3)[..., order].view(x.shape)

    given = loss(permuted(logits), permuted(target), None if phi is None else permuted(phi))
    torch.testing.assert_close(given, loss(logits, target, phi))


@pytest.mark.parametrize("key", KEYS)
def test_axes_volumes_and_classes_can_be_exchanged(key):
    logits, target, spacing = case(4, (3, 4, 5, 6), dtype=torch.float64)
    loss = build_loss(key, num_classes=4, spacing=spacing)
    value = loss(logits, target)
    torch.testing.assert_close(loss(logits.flip(-1, -2), target.flip(-1, -2)), value)
    turned = build_loss(key, num_classes=4, spacing=(spacing[2], spacing[0], spacing[1]))
    torch.testing.assert_close(turned(logits.permute(0, 1, 4, 2, 3), target.permute(0, 3, 1, 2)), value)
    torch.testing.assert_close(loss(logits[[2, 0, 1]], target[[2, 0, 1]]), value)
    if key != "hausdorff":  # its balance with Dice is set for the whole batch
        each = torch.stack([loss(logits[b : b + 1], target[b : b + 1]) for b in range(3)])
        torch.testing.assert_close(each.mean(), value)
    renamed = torch.tensor([0, 3, 1, 2])
    torch.testing.assert_close(loss(logits[:, renamed.argsort()], renamed[target]), value)


@pytest.mark.parametrize("key", KEYS)
def test_minimising_leads_to_the_truth(key):
    """Free logits follow the gradient to the right segmentation, with a class that is absent and one of one voxel."""
    target = torch.zeros(1, 6, 6, dtype=torch.long)
    target[0, 1:4, 1:5] = 1
    target[0, 5, 5] = 2
    loss = build_loss(key, num_classes=4, spacing=(0.7, 0.365))
    phi = maps_for(loss, target, (0.7, 0.365))
    logits = (0.05 * torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))).requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for step in range(300):
        loss.progress = step / 300
        optimiser.zero_grad()
        loss(logits, target, phi).backward()
        optimiser.step()
    torch.testing.assert_close(logits.argmax(1), target)


@pytest.mark.parametrize("key", KEYS)
def test_autocast_and_half_precision_are_computed_in_float32(key):
    logits, target, spacing = case(3, (1, 4, 5, 6))
    loss = build_loss(key, num_classes=3, spacing=spacing)
    half = logits.bfloat16()
    expected = loss(half.float(), target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for given in (loss(half, target), loss(half.float(), target)):
            assert given.dtype == torch.float32
            torch.testing.assert_close(given, expected, rtol=0, atol=0)


def test_a_loss_of_ones_own_that_multiplies_matrices_is_computed_in_float32():
    """Of what the losses use, autocast changes nothing on a CPU; matrix products it does."""

    class Product(SegmentationLoss):
        def compute(self, logits, target, label_map):
            product = logits.flatten(1) @ logits.flatten(1).T
            assert product.dtype == torch.float32
            return product.mean()

    logits, target, _ = case(3, (1, 4, 5, 6))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Product()(logits, target).dtype == torch.float32


@pytest.mark.parametrize("key", KEYS)
def test_monai_shapes_and_metatensors(key):
    logits, target, spacing = case(3, (2, 4, 5, 6))
    loss = build_loss(key, num_classes=3, spacing=spacing)
    phi = maps_for(loss, target, spacing)
    value = loss(logits, target, phi)
    given = loss(MetaTensor(logits), MetaTensor(target[:, None]), None if phi is None else MetaTensor(phi))
    assert type(given) is torch.Tensor
    torch.testing.assert_close(given, value)
    torch.testing.assert_close(loss(logits.to(memory_format=torch.channels_last_3d), target.to(torch.uint8)), value)
    if phi is not None and phi.ndim == 4:
        torch.testing.assert_close(loss(logits, target, phi[:, None]), value)


@pytest.mark.parametrize("key", KEYS)
def test_each_volume_gets_its_own_map(key):
    _, target, spacing = case(3, (2, 4, 5, 6))
    loss = build_loss(key, num_classes=3, spacing=spacing)
    if loss.map_spec is None:
        assert not hasattr(loss, "compute_map")
        return
    for labels, phi in zip(target.numpy(), maps_for(loss, target, spacing), strict=True):
        assert phi.dtype == torch.float32
        assert phi.shape in (labels.shape, (3, *labels.shape))
        np.testing.assert_array_equal(loss.compute_map(labels, spacing), phi)
    assert json.loads(json.dumps(loss.map_spec)) == loss.map_spec


def test_every_variant_by_name_dict_and_options():
    logits, target, spacing = case(4, (1, 5, 6))
    specs = set()
    for name, options in VARIANTS.items():
        phi = distance_penalty(target[0].numpy(), spacing, **vars(options))
        expected = ((1 + torch.from_numpy(phi)) * F.cross_entropy(logits, target, reduction="none")).mean()
        for variant in (name, options, {key: value for key, value in vars(options).items() if value is not None}):
            loss = DistancePenalizedCELoss(spacing, variant)
            torch.testing.assert_close(loss(logits, target), expected)
        specs.add(json.dumps(loss.map_spec))
    assert len(specs) == len(VARIANTS)
    assert DistancePenalizedCELoss().options == PenaltyOptions()


def test_controls_and_weights_of_mean_one():
    logits, target, spacing = case(4, (1, 5, 6))
    ce = F.cross_entropy(logits, target, reduction="none")
    phi = distance_penalty(target[0].numpy(), spacing)
    expected = ((1 + torch.from_numpy(phi)) * ce).mean() / (1 + phi.mean())
    torch.testing.assert_close(DistancePenalizedCELoss(spacing, {"mean_one": True})(logits, target), expected)
    constant = DistancePenalizedCELoss(spacing, "constant")(logits, target)
    torch.testing.assert_close(constant, (1 + float(phi.mean())) * ce.mean())
    specs = {json.dumps(DistancePenalizedCELoss(spacing, name).map_spec) for name in CONTROLS}
    assert len(specs) == len(CONTROLS)
    with pytest.raises(ValueError, match="phi must not be below -1, got -2"):
        DistancePenalizedCELoss(variant={"mean_one": True})(logits, target, torch.full(target.shape, -2.0))


def test_losses_with_one_map_share_it_in_a_cache():
    boundary, hausdorff = BoundaryLoss(3), HausdorffDTLoss(3, KNEE)
    assert boundary.map_spec == hausdorff.map_spec != BoundaryLoss(4).map_spec
    assert UNetWeightedCELoss(sigma=3).map_spec != UNetWeightedCELoss(sigma=4).map_spec
    assert DiceDistancePenalizedCELoss().map_spec == DistancePenalizedCELoss().map_spec


# ---------------------------------------------------------------- the field's bugs, by their number in the list


def test_bug_1_the_penalty_reaches_value_and_gradient():
    logits, target, spacing = case(4, (1, 4, 5, 6), dtype=torch.float64)
    loss, plain = DistancePenalizedCELoss(spacing), logits.clone().requires_grad_()
    penalised = logits.requires_grad_()
    value, ce = loss(penalised, target), F.cross_entropy(plain, target)
    assert value.item() > 1.1 * ce.item()
    value.backward()
    ce.backward()
    phi = maps_for(loss, target, spacing)[:, None].double()
    torch.testing.assert_close(penalised.grad, (1 + phi) * plain.grad)


def test_bug_2_a_batch_of_one_is_a_volume_not_a_stack_of_slices():
    target = torch.zeros(1, 3, 5, 5, dtype=torch.long)
    target[0, 1, 2, 2] = 1
    loss = DistancePenalizedCELoss(KNEE)
    phi = loss.prepare_map(torch.zeros(1, 2, 3, 5, 5), target, None)
    assert phi.isfinite().all()
    assert float(phi[0, 1, 2, 2]) == 1
    # slices 0 and 2 hold no structure; as volumes of their own they would have φ = 0 throughout
    assert float(phi[0, 0, 2, 2]) > float(phi[0, 0, 0, 0])
    logits = torch.randn(1, 2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    twice = loss(logits.expand(2, -1, -1, -1, -1), target.expand(2, -1, -1, -1))
    torch.testing.assert_close(loss(logits, target), twice)


def test_bug_7_a_perfect_prediction_costs_nothing_and_the_penalty_is_no_reward():
    _, target, spacing = case(3, (1, 4, 5, 6))
    right = 40 * F.one_hot(target, 3).movedim(-1, 1).float()
    loss = DiceDistancePenalizedCELoss(spacing)
    assert float(loss(right, target)) == pytest.approx(0, abs=1e-6)
    assert float(loss(-right, target)) > float(DiceCELoss()(-right, target)) > 1


def test_bug_8_a_far_false_positive_has_the_weight_of_its_distance():
    target = torch.zeros(1, 14, 14, 14, dtype=torch.long)
    target[0, 0, 0, 0] = 1
    prediction = target.clone()
    prediction[0, 12, 12, 12] = 1
    logits = 50 * F.one_hot(prediction, 2).movedim(-1, 1).float()
    value = HausdorffDTLoss(2, (1, 1, 1), dice=False)(logits, target) * 14**3
    assert float(value) == pytest.approx(12**2 * 3 + 1)  # d_g² = 432 at the false voxel, d_p² = 1
    spaced = HausdorffDTLoss(2, KNEE, dice=False)(logits, target) * 14**3
    assert float(spaced) == pytest.approx(144 * (0.7**2 + 2 * 0.365**2) + 0.365**2, rel=1e-5)


def test_bug_9_dice_squares_the_probabilities_not_the_sums():
    p, g = np.array([0.9, 0.6, 0.2, 0.1]), np.array([1, 1, 1, 0])
    logits = torch.from_numpy(np.log(np.stack([1 - p, p])))[None, :, None]
    given = DiceLoss(smooth=0)(logits, torch.from_numpy(g)[None, None])
    assert float(given) == pytest.approx(1 - 2 * 1.7 / ((0.81 + 0.36 + 0.04 + 0.01) + 3))


def test_bug_10_generalised_dice_is_alive_when_a_class_is_absent():
    logits, target, _ = case(4, (1, 6, 6, 6), dtype=torch.float64)
    target[target == 3] = 0
    gradient, without = logits.clone().requires_grad_(), logits[:, :3].clone().requires_grad_()
    GeneralizedDiceLoss()(gradient, target).backward()
    GeneralizedDiceLoss()(without, target).backward()
    assert float(gradient.grad.norm()) > 0.3 * float(without.grad.norm())
    # the absent class is pushed down where it is predicted
    assert (gradient.grad[:, 3] > 0).all()


@pytest.mark.parametrize("classes", [2, 4, 8])
def test_bug_11_the_entropy_is_summed_over_the_classes(classes):
    target = torch.zeros(1, 3, 3, dtype=torch.long)
    value = ConfidencePenaltyLoss(beta=0.5)(torch.zeros(1, classes, 3, 3), target)
    assert float(value) == pytest.approx(0.5 * np.log(classes))


def test_bug_12_focal_loss_takes_logits():
    logits = torch.tensor([[[[-7.0, 3.0]], [[2.0, -60.0]]]])
    value = FocalLoss()(logits, torch.tensor([[[0, 1]]]))
    p = [1 / (1 + np.exp(9)), 1 / (1 + np.exp(63))]
    assert float(value) == pytest.approx(np.mean([-((1 - q) ** 2) * np.log(q) for q in p]))


def test_an_absent_structure_costs_nothing_once_it_is_not_predicted():
    target = torch.zeros(1, 4, 4, dtype=torch.long)
    none = torch.stack([torch.full((1, 4, 4), 40.0), torch.zeros(1, 4, 4)], 1)
    assert float(DiceLoss()(none, target)) == pytest.approx(0, abs=1e-6)
    some = torch.zeros(1, 2, 4, 4, requires_grad=True)
    DiceLoss()(some, target).backward()
    assert (some.grad[:, 1] > 0).all()


def test_signed_distance_loss_is_lowest_at_the_signed_distance_itself():
    _, target, spacing = case(3, (1, 5, 6))
    loss = SignedDistanceLoss(3, spacing)
    phi = maps_for(loss, target, spacing)
    best = loss(torch.atanh(phi.clamp(-0.999999, 0.999999)), target, phi)
    assert float(best) == pytest.approx(-1 / 3, abs=1e-3)  # each product term is φ² / 3φ²
    assert float(loss(torch.atanh(-phi.clamp(-0.999999, 0.999999)), target, phi)) > 1
    zeros = torch.zeros(1, 3, 5, 6, requires_grad=True)  # a map whose edge a rotation filled with zeros
    value = loss(zeros, target, torch.zeros(1, 3, 5, 6))
    value.backward()
    assert value == 0
    assert zeros.grad.isfinite().all()


# ---------------------------------------------------------------- errors and the registry


@pytest.mark.parametrize(
    ("logits", "target", "message"),
    [
        (torch.zeros(2, 4, 4), torch.zeros(2, 4).long(), r"logits must be .*got torch.float32 \(2, 4, 4\)"),
        (torch.zeros(1, 2, 4, 4, 4, 4), torch.zeros(1, 4, 4, 4, 4).long(), "logits must be"),
        (torch.zeros(1, 2, 4, 4).long(), torch.zeros(1, 4, 4).long(), "floating point.*int64"),
        (torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4).long(), "at least 2 classes"),
        (torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 5).long(), r"shape \(1, 4, 4\).*got \(1, 4, 5\)"),
        (torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4).long(), "argmax"),
        (torch.zeros(1, 2, 4, 4), torch.full((1, 4, 4), 0.5), "integer labels, got torch.float32 that are not whole"),
        (torch.zeros(1, 2, 4, 4), torch.full((1, 4, 4), 2), "0 to 1 for 2 classes, got 2 to 2"),
        (torch.zeros(1, 2, 4, 4), torch.full((1, 4, 4), -1), "0 to 1 for 2 classes, got -1 to -1"),
        (torch.zeros(0, 2, 4, 4), torch.zeros(0, 4, 4).long(), "at least one voxel"),
    ],
)
def test_bad_input(logits, target, message):
    with pytest.raises(ValueError, match=message):
        CrossEntropyLoss()(logits, target)


def test_a_missing_or_wrong_map():
    logits, target, _ = case(3, (1, 4, 5))
    with pytest.raises(ValueError, match=r"DistancePenalizedCELoss needs a map.*compute_map.*spacing"):
        DistancePenalizedCELoss()(logits, target)
    with pytest.raises(ValueError, match=r"phi must have shape \(1, 4, 5\).*got \(1, 4, 6\)"):
        DistancePenalizedCELoss()(logits, target, torch.zeros(1, 4, 6))
    with pytest.raises(ValueError, match=r"phi must have shape \(1, 3, 4, 5\)"):
        SignedDistanceLoss(3)(logits, target, torch.zeros(1, 4, 5))
    with pytest.raises(ValueError, match="each of the 2 axes"):
        DistancePenalizedCELoss(KNEE)(logits, target)
    with pytest.raises(ValueError, match="needs spacing"):
        build_loss("hausdorff", num_classes=3)
    for strange in (torch.nan, torch.inf):
        phi = torch.zeros(1, 4, 5)
        phi[0, 1, 2] = strange
        with pytest.raises(ValueError, match="phi must be finite"):
            DistancePenalizedCELoss()(logits, target, phi)
    with pytest.raises(ValueError, match="phi must not be negative, got -2; a signed distance is another map"):
        DistancePenalizedCELoss()(logits, target, torch.full((1, 4, 5), -2.0))
    for wrong in (1.0, (0.7, 0.0), (), ("a", 1)):
        with pytest.raises(ValueError, match="spacing must hold one positive number of mm for each spatial axis"):
            DistancePenalizedCELoss(wrong)
    for wrong in (0, 1, 2.5, (1, 1, 1)):
        with pytest.raises(ValueError, match="num_classes must be a whole number from 2"):
            SignedDistanceLoss(wrong)
        with pytest.raises(ValueError, match="num_classes must be a whole number from 2"):
            BoundaryLoss(wrong)
    assert DiceLoss()(logits, target, torch.zeros(7)).isfinite()  # a loss without a map ignores phi


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dcpe", {}, r"no loss 'dcpe' \(did you mean 'dpce'\?\); there are dpce, ce, dice"),
        ("zzz", {}, "no loss 'zzz'; there are"),
        ("focal", {"gama": 1}, r"no option 'gama' \(did you mean 'gamma'\?\); it has gamma, alpha"),
        ("ce", {"weight": 1}, "no option 'weight'; it has none"),
        ("pcol", {"beta": -1}, "beta must be a number from 0, got -1"),
        ("focal", {"gamma": "two"}, "gamma must be a number from 0, got 'two'"),
        ("dice", {"smooth": float("nan")}, "smooth must be a number from 0"),
        ("dpce", {"variant": "cm"}, "variant must be one of compartment"),
        ("focal", {"alpha": 1.5}, "alpha must lie in 0 to 1, as the background has 1 - alpha, got 1.5"),
        ("focal", {"alpha": [0.5, 1, 2, -1]}, "alpha must be a number from 0, got -1"),
        ("focal", {"alpha": float("nan")}, "alpha must be a number from 0, got nan"),
        ("boundary", {"end": 1.5}, "end must lie in 0 to 1, as alpha does, got 1.5"),
        ("boundary", {"start": -0.1}, "start must be a number from 0, got -0.1"),
        ("focal", {"alpha": "0.25"}, "alpha must be a number from 0, got '0.25'"),
        ("unet", {"sigma": "5"}, "sigma must be a number from 0, got '5'"),
        ("dice_ce", {"dice_weight": -1}, "dice_weight must be a number from 0, got -1"),
        ("dice_dpce", {"ce_weight": "1"}, "ce_weight must be a number from 0, got '1'"),
        ("dpce", {"variant": {"decay": "2"}}, "loss 'dpce' cannot be built with"),
        ("dpce", {"spacing": 1.0}, "cannot be built with|spacing must hold one positive number of mm"),
        ("torch.nn:CrossEntropyLoss", {}, r"callable as loss\(logits, target, phi\), got forward\(self, input"),
        ("unet", {"sigma": 0}, "sigma must be a positive length"),
        ("unet", {"objects": "cells"}, "objects must be"),
        ("boundary", {"region": "ce"}, "region must be"),
        ("boundary", {"schedule": "cosine"}, "schedule must be"),
        ("no.such:Loss", {}, "'no.such:Loss' cannot be imported: there is no module no; put no/such.py beside"),
        ("shapeloss.losses:NoLoss", {}, r"losses.__init__\.py has no class 'NoLoss'"),
        ("shapeloss.losses:build_loss", {}, "must be a class derived from torch.nn.Module"),
    ],
)
def test_bad_names_and_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_loss(name, num_classes=4, **options)


def test_build_loss_passes_options_on():
    assert build_loss("focal", num_classes=4, gamma=1.5).gamma == 1.5
    assert build_loss("boundary", num_classes=4, spacing=KNEE).num_classes == 4
    assert build_loss("dpce", num_classes=4, spacing=KNEE, variant="mm").options.unit == "mm"
    assert set(LOSSES) >= {"dpce", "ce", "dice", "pcol", "focal", "gdice", "unet", "boundary", "hausdorff", "sdf"}


def test_a_custom_loss(tmp_path, monkeypatch):
    (tmp_path / "my_losses.py").write_text(
        "import torch\n"
        "class Plain(torch.nn.Module):\n"
        "    def __init__(self, scale=1.0):\n"
        "        super().__init__()\n"
        "        self.scale = scale\n"
        "    def forward(self, logits, target, phi=None):\n"
        "        return self.scale * torch.nn.functional.cross_entropy(logits, target)\n"
        "class Wide(Plain):\n"
        "    def __init__(self, num_classes, spacing, **options):\n"
        "        super().__init__()\n"
        "        self.given = num_classes, spacing, options\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    logits, target, _ = case(3, (1, 4, 5))
    own = build_loss("my_losses:Plain", num_classes=3, spacing=KNEE, scale=2.0)
    torch.testing.assert_close(own(logits, target), 2 * F.cross_entropy(logits, target))
    assert build_loss("my_losses:Wide", num_classes=3, spacing=KNEE, a=1).given == (3, KNEE, {"a": 1})
    (tmp_path / "my_maps.py").write_text(
        "from shapeloss.losses import MapLoss\n"
        "class Mine(MapLoss):\n"
        "    def compute_map(self, labels, spacing):\n"
        "        return labels\n"
        "    def compute(self, logits, target, phi):\n"
        "        return (phi * logits[:, 0]).mean()\n"
    )
    mine = build_loss("my_maps:Mine", num_classes=3, spacing=KNEE[:2])
    assert mine(logits, target).isfinite()
    with pytest.raises(ValueError, match="Mine needs a property map_spec"):
        getattr(mine, "map_spec", None)  # as the training asks for it
    with pytest.raises(ValueError, match="it has scale"):
        build_loss("my_losses:Plain", num_classes=3, factor=2.0)


def test_every_loss_is_a_module_with_one_call_signature():
    for cls in LOSSES.values():
        assert issubclass(cls, nn.Module)
        assert list(inspect.signature(cls.forward).parameters) == ["self", "logits", "target", "phi"]
        assert cls.__doc__
        assert "L" in cls.__doc__.split("=")[0]  # opens with its equation


def test_values_are_checked_at_the_first_call_and_shapes_at_each():
    logits, target = torch.zeros(1, 2, 3, 4), torch.zeros(1, 3, 4, dtype=torch.long)
    phi, wrong = torch.zeros(1, 3, 4), torch.full((1, 3, 4), -1.0)
    loss = DistancePenalizedCELoss()
    with pytest.raises(ValueError, match="phi must not be negative"):
        loss(logits, target, wrong)
    loss(logits, target, phi)
    loss(logits, target, wrong)  # a later call reads no value
    with pytest.raises(ValueError, match="phi must have shape"):
        loss(logits, target, phi[:, :2])
    loss.validate = True
    with pytest.raises(ValueError, match="phi must not be negative"):
        loss(logits, target, wrong)


@pytest.mark.parametrize("key", [key for key in LOSSES if key != "hausdorff"])  # it transforms each prediction
def test_a_steady_step_reads_no_value(key, monkeypatch):
    """On a GPU each value that is read waits for all that was started before."""
    loss = build_loss(key, num_classes=2, spacing=(1.0, 1.0))
    logits, target = torch.randn(1, 2, 5, 6), torch.zeros(1, 5, 6, dtype=torch.long)
    target[:, 1:4, 2:5] = 1
    compute = getattr(loss, "compute_map", None)
    phi = torch.from_numpy(compute(target[0].numpy(), (1.0, 1.0)))[None] if compute else None
    loss(logits, target, phi)
    read = []
    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda *a, _o=original, _n=name, **k: (read.append(_n), _o(*a, **k))[1])
    loss(logits, target, phi)
    monkeypatch.undo()
    assert read == []
    loss.validate = True
    for name in ("__bool__", "__int__"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda *a, _o=original, _n=name, **k: (read.append(_n), _o(*a, **k))[1])
    loss(logits, target, phi)
    monkeypatch.undo()
    assert read  # or the check above could not fail
