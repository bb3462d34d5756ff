"""Notebook 3: spot the bug. Twelve faults of published code, each as a small function of our own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from shapeloss.distance import distance_penalty
from shapeloss.losses import FocalLoss
from shapeloss.losses.label_maps import mask_distance, normalised_signed_distance, signed_distance
from shapeloss.metrics.functions import hausdorff
from shapeloss.metrics.geometry import mask_geometry
from shapeloss.workshop.checks import exercise, need

SPACING = (0.7, 0.36)


def disc(shape: tuple[int, int] = (24, 32), radius: float = 7.0) -> np.ndarray:
    """A disc of ones in zeros, uint8."""
    y, x = np.indices(shape)
    return ((y - shape[0] // 2) ** 2 + (x - shape[1] // 2) ** 2 < radius**2).astype(np.uint8)


def case(classes: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (1, K, 24, 32), target (1, 24, 32) and φ (1, 24, 32) of a disc."""
    labels = disc()
    if classes > 2:
        labels[:4, :4] = 2
    logits = torch.randn(1, classes, *labels.shape, generator=torch.Generator().manual_seed(seed))
    phi = torch.from_numpy(distance_penalty(labels, SPACING))[None]
    return logits, torch.from_numpy(labels.astype(np.int64))[None], phi


def _mask(answer: Any, expected: np.ndarray, message: str, atol: float = 1e-4) -> None:
    values = np.asarray(answer, dtype=float)
    need(values.shape == expected.shape, f"the result must have shape {expected.shape}, got {values.shape}")
    need(np.allclose(values, expected, atol=atol), message)


@exercise("3.1", "mend weighted_loss(logits, target, phi)")
def loss_that_forgets_its_weight(function: Any) -> str:
    logits, target, phi = case()
    value = float(function(logits, target, phi))
    ce = cross_entropy(logits, target, reduction="none")
    need(
        abs(value - float(ce.mean())) > 1e-6,
        f"{value:.4f} is plain cross-entropy, whatever φ is: what is done with the weighted loss?",
    )
    need(abs(value - float(((1 + phi) * ce).mean())) < 1e-5, f"it gives {value:.4f}; the equation is mean((1 + φ) ce)")
    return "The best-known implementation of this loss has this fault, and five public copies repeat it."


@exercise("3.2", "mend relative_distance(masks, spacing)")
def map_of_a_batch(function: Any) -> str:
    masks = np.stack([disc(), np.zeros_like(disc())])
    answer = np.asarray(function(masks, SPACING), dtype=float)
    need(answer.shape == masks.shape, f"two masks give two maps, shape {masks.shape}, got {answer.shape}")
    need(np.isfinite(answer).all(), "NaN: the map of an empty mask is divided by its maximum, which is 0")
    need((answer[1] == 0).all(), "the map of an empty mask must be 0 throughout")
    single = np.asarray(function(masks[:1], SPACING), dtype=float)
    need(single.shape == masks[:1].shape, f"a batch of one must stay a batch: shape {single.shape}")
    need(
        np.allclose(single[0], answer[0], atol=1e-4),
        "a mask by itself has another map than the same mask in a batch of two",
    )
    inside = np.where(masks[0] > 0, mask_distance(masks[0] > 0, SPACING), 0)
    _mask(answer[0], inside / inside.max(), "not yet: the distance inside, divided by its maximum")
    return "A batch of one was squeezed into rows of a picture, each a “mask” of its own; many of them were empty."


@exercise("3.3", "mend outside_distance(mask, spacing)")
def transform_without_a_zero(function: Any) -> str:
    mask = disc() > 0
    outside = np.where(mask, 0, mask_distance(mask, SPACING))
    _mask(function(mask, SPACING), outside, "the map of an ordinary mask must stay as it is")
    empty = np.asarray(function(np.zeros_like(mask), SPACING), dtype=float)
    need(
        np.ptp(empty) == 0,
        f"an empty mask gives values from {empty.min():.1f} to {empty.max():.1f}: distances to nothing",
    )
    need(np.isfinite(empty).all() and empty.max() == 0, "without a boundary there is no distance: give 0 throughout")
    return "SciPy's transform of an array without a zero is a ramp from a corner, and says nothing."


@exercise("3.4", "mend both_distances(mask, spacing)")
def inverted_uint8(function: Any) -> str:
    mask = disc()
    outside, inside = function(mask, SPACING)
    expected = mask_distance(mask > 0, SPACING)
    _mask(inside, np.where(mask > 0, expected, 0), "the distance inside was right, and must stay so")
    _mask(
        outside,
        np.where(mask > 0, 0, expected),
        f"outside: {np.max(outside):.1f} mm at most, and not 0 inside; print np.unique(~mask)",
    )
    return "~ on uint8 gives 255 and 254: nothing is 0, so the transform measures from nowhere."


@exercise("3.5", "mend signed(mask, spacing)")
def minus_one_millimetre(function: Any) -> str:
    mask = disc() > 0
    answer = np.asarray(function(mask, SPACING), dtype=float)
    need(answer.shape == mask.shape, f"the result must have shape {mask.shape}, got {answer.shape}")
    flipped = int((answer[mask] > 0).sum())
    need(flipped == 0, f"{flipped} of {mask.sum()} voxels inside have a positive sign: 1 of what is subtracted?")
    _mask(
        answer,
        signed_distance(mask.astype(int), 2, SPACING)[1],
        "not yet: negative inside, positive outside, each the distance to the nearest voxel across the boundary",
    )
    return "One voxel is not one unit: at 0.36 mm, minus 1 turned voxels inside out."


@exercise("3.6", "mend distance_channels(one_hot, spacing)")
def truncated_to_integers(function: Any) -> str:
    one_hot = np.stack([1 - disc(), disc()]).astype(np.int32)
    answer = np.asarray(function(one_hot, SPACING))
    need(
        answer.dtype.kind == "f",
        f"the result has dtype {answer.dtype}: {len(np.unique(answer))} values, all of them whole numbers",
    )
    expected = np.stack([np.where(channel > 0, mask_distance(channel > 0, SPACING), 0) for channel in one_hot])
    _mask(answer, expected, "not yet: the distance inside each channel")
    return "zeros_like of an integer array is an integer array, and writing distances into it truncates them."


@exercise("3.7", "mend penalised_dice(p, g, phi)")
def reward_for_a_penalty(function: Any) -> str:
    labels = disc()
    g, phi = labels.astype(float), distance_penalty(labels, SPACING).astype(float)
    perfect = float(function(g, g, phi))
    need(perfect > -1e-6, f"a perfect prediction costs {perfect:.3f}: the penalty multiplies what is right, a reward")
    need(perfect < 1e-3, f"a perfect prediction costs {perfect:.3f}, not 0")
    shifted = np.roll(g, 3, axis=1)
    need(function(shifted, g, phi) > 0.05, "a shifted prediction must cost something")
    near, far = g.copy(), g.copy()
    edge = np.argwhere((labels == 0) & (phi > 0.9))[0]
    deep = np.argwhere((labels == 0) & (phi < 0.1))[0]
    near[tuple(edge)], far[tuple(deep)] = 1, 1
    need(
        function(near, g, phi) > function(far, g, phi),
        "a false voxel at the boundary must cost more than one far away: weigh the errors by 1 + φ",
    )
    return "Weigh the errors, not the hits: then right costs 0 and every error more than before."


@exercise("3.8", "mend generalised_dice(p, g)")
def absent_class_silences(function: Any) -> str:
    logits, target, _ = case(3)
    for classes_present in (3, 2):
        z = logits.double().requires_grad_()
        g = torch.nn.functional.one_hot(target.clamp(max=classes_present - 1), 3).movedim(-1, 1).double()
        value = function(z.softmax(1), g)
        need(bool(torch.isfinite(value)), "the loss is not finite")
        (gradient,) = torch.autograd.grad(value, z)
        size = float(gradient.abs().max())
        need(
            size > 1e-6,
            f"class 2 is absent, and the largest gradient of all voxels is {size:.1e}: its weight must not be larger "
            "than that of the classes that are present",
        )
    right = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).double()
    need(abs(float(function(right, right))) < 1e-3, "a perfect prediction must cost 0")
    return "An absent class had a weight of about 10¹⁰, and the sum of all others was rounded away beside it."


@exercise("3.9", "mend confidence_penalty(logits, target, beta)")
def entropy_divided_by_classes(function: Any) -> str:
    for classes in (2, 4, 8):
        z, target = torch.zeros(1, classes, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)
        value, expected = float(function(z, target, 0.5)), 0.5 * np.log(classes)
        divided = np.log(classes) * (1 - 0.5 / classes)
        need(
            abs(value - divided) > 1e-5 or classes == 1,
            f"with {classes} classes β acts like β / {classes}: over what is the entropy averaged?",
        )
        need(abs(value - expected) < 1e-5, f"with {classes} classes and p = 1 / {classes} it gives {value:.4f}")
    return "Entropy is a sum over classes, and the mean is over voxels alone; else β means another thing for each K."


@exercise("3.10", "mend focal_loss(logits, target, gamma)")
def focal_of_logits(function: Any) -> str:
    logits, target, _ = case()
    value = float(function(logits, target, 2.0))
    need(not np.isnan(value), "NaN: the power and the logarithm are taken of logits, and some are negative")
    expected = float(FocalLoss(2.0)(logits, target))
    need(abs(value - expected) < 1e-4, f"it gives {value:.4f} where {expected:.4f} is right")
    large = float(function(60 * logits, target, 2.0))
    need(np.isfinite(large), "with large logits it is infinite: log(softmax) rounds to log 0; log_softmax does not")
    return "Losses from logits begin with log_softmax: nothing has to be clamped."


@exercise("3.11", "mend hd95(truth, prediction, spacing)")
def best_score_for_nothing(function: Any) -> str:
    truth, spacing = disc()[None] > 0, (3.0, *SPACING)
    moved = np.roll(truth, 2, axis=2)
    expected = hausdorff(mask_geometry(truth, moved, spacing), 95)
    value = float(function(truth, moved, spacing))
    need(abs(value - expected) < 1e-6, f"the score of a shifted mask must stay {expected:.2f} mm, got {value:.2f}")
    missed = float(function(truth, np.zeros_like(truth), spacing))
    need(missed != 0, "an empty prediction scores 0 mm, the best value of all")
    need(not np.isnan(missed), "NaN drops out of a mean: the case that went worst then counts for nothing")
    need(missed >= 10, f"a missed structure scores {missed:.2f} mm, better than many that were found")
    need(float(function(truth, truth, spacing)) == 0, "equal masks score 0")
    nothing = np.zeros_like(truth)
    need(float(function(nothing, nothing, spacing)) == 0, "two empty masks agree: they score 0")
    return "The diagonal of the field of view, or infinity: a missed structure must be the worst, and must count."


@exercise("3.12", "mend sdf_target(labels, spacing), or sdf_loss, so that both mean the same sign")
def opposite_signs(functions: Any) -> str:
    target, loss = functions
    labels = disc().astype(int)
    phi = np.asarray(target(labels, SPACING), dtype=float)
    expected = normalised_signed_distance(labels, 2, SPACING)[1]
    need(phi.shape == expected.shape, f"the target must have shape {expected.shape}, got {phi.shape}")
    p = torch.tensor(np.where(labels == 1, 0.999, 0.001))
    q = 1 - p
    right, wrong = float(loss(p, torch.from_numpy(phi))), float(loss(q, torch.from_numpy(phi)))
    need(
        right < wrong,
        f"the right prediction costs {right:.2f}, the inverted one {wrong:.2f}: which side is positive in each?",
    )
    need(np.allclose(np.abs(phi), np.abs(expected), atol=1e-4), "the distances were right; change a sign only")
    return (
        "With one sign in the target and the other in the output the loss falls, and the network learns the negative."
    )
