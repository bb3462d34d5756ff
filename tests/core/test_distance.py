"""Distances against brute force, φ by hand, and the field's bugs that a distance map can have."""

from __future__ import annotations

from itertools import product

import edt
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from shapeloss.distance import (
    CONTROLS,
    READINGS,
    VARIANTS,
    PenaltyOptions,
    boundary_distance,
    distance_penalty,
    penalty_options,
    weight_near_boundary,
)
from shapeloss.losses.label_maps import mask_distance, normalised_signed_distance, signed_distance, unet_weight

KNEE = (0.7, 0.365, 0.365)


@st.composite
def label_maps(draw, classes=4):
    """A 2D or 3D label map of up to `classes` classes, and an anisotropic spacing."""
    shape = draw(array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=5))
    labels = draw(arrays(np.uint8, shape, elements=st.integers(0, classes - 1), fill=st.just(0)))
    spacing = draw(st.tuples(*[st.sampled_from([0.365, 0.7, 1.0, 3.0])] * len(shape)))
    return labels, spacing


def brute_distance(labels, spacing):
    """Distance to the nearest voxel centre of another label, over all pairs of voxels."""
    labels = np.asarray(labels)
    centres = np.argwhere(np.ones(labels.shape, bool)) * np.array(spacing)
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    gaps[labels.ravel()[:, None] == labels.ravel()[None]] = np.inf
    return gaps.min(1).reshape(labels.shape)


@settings(max_examples=150, deadline=None)
@given(label_maps())
def test_boundary_distance_equals_brute_force(case):
    labels, spacing = case
    distance = boundary_distance(labels, spacing)
    assert distance.dtype == np.float32
    np.testing.assert_allclose(distance, brute_distance(labels, spacing), rtol=1e-5)


def test_three_bones_take_one_transform(monkeypatch):
    calls, transform = [], edt.edt
    monkeypatch.setattr(edt, "edt", lambda *args, **options: calls.append(1) or transform(*args, **options))
    labels = np.zeros((4, 12, 12), int)
    for label in (1, 2, 3):
        labels[1:3, 3 * label : 3 * label + 2, 2:9] = label
    assert distance_penalty(labels, KNEE).max() == 1
    assert len(calls) == 1


def test_boundary_distance_by_hand_with_knee_spacing():
    labels = np.zeros((3, 3, 3), int)
    labels[1, 1, 1] = 2
    distance = boundary_distance(labels, KNEE)
    assert distance[1, 1, 1] == pytest.approx(0.365)  # the nearest background voxel lies in the plane, not 0.7 mm away
    assert distance[0, 1, 1] == pytest.approx(0.7)
    assert distance[0, 0, 0] == pytest.approx(np.sqrt(0.7**2 + 2 * 0.365**2))


def test_two_structures_that_touch_have_a_boundary_between_them():
    labels = np.array([[1, 1, 1, 2, 2, 2]])
    np.testing.assert_allclose(boundary_distance(labels, (1, 0.5)), [[1.5, 1.0, 0.5, 0.5, 1.0, 1.5]])


@pytest.mark.parametrize("value", [0, 3])
def test_one_compartment_has_no_boundary(value):
    labels = np.full((4, 5, 6), value)
    assert np.isinf(boundary_distance(labels, KNEE)).all()  # bug 3: SciPy returns a ramp from a corner here
    for options in VARIANTS.values():
        assert not distance_penalty(labels, KNEE, **vars(options)).any()


def test_types_and_memory_orders_give_the_same_distance():
    labels = np.random.default_rng(0).integers(0, 2, (6, 7, 8))
    expected = boundary_distance(labels, KNEE)
    # bug 4: ~ of a uint8 mask is never zero; bug 6: an integer map truncates
    for dtype in (bool, np.uint8, np.int16, np.uint32, np.int64):
        np.testing.assert_array_equal(boundary_distance(labels.astype(dtype), KNEE), expected)
    np.testing.assert_array_equal(boundary_distance(np.asfortranarray(labels), KNEE), expected)
    np.testing.assert_array_equal(boundary_distance(np.repeat(labels, 2, axis=1)[:, ::2], KNEE), expected)
    np.testing.assert_array_equal(boundary_distance(labels[::-1, :, ::-1], KNEE), expected[::-1, :, ::-1])


@pytest.mark.parametrize(("dtype", "high"), [(np.uint8, 255), (np.uint16, 65535), (np.int64, 255), (np.int64, 70000)])
def test_the_highest_label_of_a_type_does_not_overflow(dtype, high):
    labels = np.array([[0, 0, high, high]], dtype)
    np.testing.assert_allclose(boundary_distance(labels, (1, 2)), [[4, 2, 2, 4]])


def test_the_labels_are_left_as_they_are():
    labels = np.array([[0, 1, 2]], np.uint8)
    distance_penalty(labels, (1, 1))
    np.testing.assert_array_equal(labels, [[0, 1, 2]])


ROW, STEP = np.array([[0, 0, 0, 0, 1, 1, 1, 2]]), (9.0, 0.5)  # distances 2, 1.5, 1, 0.5 | 0.5, 1, 0.5 | 0.5


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("compartment", [0, 1 / 3, 2 / 3, 1, 1, 0, 1, 1]),
        ("inside", [0, 0, 0, 0, 1, 0, 1, 1]),
        ("outside", [0, 1 / 3, 2 / 3, 1, 0, 0, 0, 0]),
        ("common", [0, 1 / 3, 2 / 3, 1, 1, 2 / 3, 1, 1]),
        ("mm", [0, 0.5, 1, 1.5, 0.5, 0, 0.5, 0]),
        ("mm_inside", [0, 0, 0, 0, 0.5, 0, 0.5, 0]),
        ("mm_common", [0, 0.5, 1, 1.5, 1.5, 1, 1.5, 1.5]),
        ("exponential", np.exp([-0.75, -0.5, -0.25, 0, 0, -0.25, 0, 0])),
    ],
)
def test_each_variant_by_hand(variant, expected):
    phi = distance_penalty(ROW, STEP, **vars(VARIANTS[variant]))
    assert phi.dtype == np.float32
    np.testing.assert_allclose(phi, [expected], rtol=1e-6)


def test_a_common_maximum_is_taken_over_the_selected_side():
    inside = distance_penalty(ROW, STEP, sides="inside", normalise_by="image", unit="mm")
    np.testing.assert_allclose(inside, [[0, 0, 0, 0, 0.5, 0, 0.5, 0.5]])
    outside = distance_penalty(ROW, STEP, sides="outside", normalise_by="image", unit="mm")
    np.testing.assert_allclose(outside, [[0, 0.5, 1, 1.5, 0, 0, 0, 0]])


def test_every_variant_is_tested_by_hand():
    marked = test_each_variant_by_hand.pytestmark[0].args[1]
    assert {name for name, _ in marked} == set(VARIANTS)


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        ("reversed", [1, 2 / 3, 1 / 3, 0, 0, 1, 0, 1]),  # a compartment of one voxel keeps its 1
        ("constant", [0.625] * 8),
    ],
)
def test_each_control_by_hand(control, expected):
    phi = distance_penalty(ROW, STEP, **vars(CONTROLS[control]))
    assert phi.dtype == np.float32
    np.testing.assert_allclose(phi, [expected], rtol=1e-6)


def test_shuffled_has_the_same_amounts_in_each_compartment_and_no_place():
    labels = np.zeros((20, 30, 30), int)
    labels[5:15, 8:22, 8:22] = 1
    phi, shuffled = distance_penalty(labels, KNEE), distance_penalty(labels, KNEE, control="shuffled")
    for k in (0, 1):
        np.testing.assert_array_equal(np.sort(shuffled[labels == k]), np.sort(phi[labels == k]))
    np.testing.assert_array_equal(distance_penalty(labels, KNEE, control="shuffled"), shuffled)  # always the same
    distance = boundary_distance(labels, KNEE)
    for k in (0, 1):
        assert abs(np.corrcoef(shuffled[labels == k], distance[labels == k])[0, 1]) < 0.05
        assert np.corrcoef(phi[labels == k], distance[labels == k])[0, 1] < -0.9


@pytest.mark.parametrize("name", sorted(VARIANTS | CONTROLS))
def test_a_weight_of_mean_one_is_proportional_to_the_weight(name):
    options = vars((VARIANTS | CONTROLS)[name])
    weight = 1 + distance_penalty(ROW, STEP, **options)
    of_mean_one = 1 + distance_penalty(ROW, STEP, **options | {"mean_one": True})
    assert of_mean_one.mean() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(of_mean_one * weight.mean(), weight, rtol=1e-5)


def test_controls_of_a_volume_of_one_compartment_are_0():
    for name in CONTROLS:
        assert not distance_penalty(np.ones((3, 4), int), (1, 1), **vars(penalty_options(name))).any()
    assert not distance_penalty(np.ones((3, 4), int), (1, 1), mean_one=True).any()


def test_a_volume_without_background():
    phi = distance_penalty(np.array([[1, 1, 2]]), (1, 1), sides="outside", normalise_by="image")
    np.testing.assert_array_equal(phi, [[0, 0, 0]])
    np.testing.assert_array_equal(distance_penalty(np.array([[1, 1, 2]]), (1, 1)), [[0, 1, 1]])


def test_a_structure_of_one_voxel():
    labels = np.zeros((5, 5, 5), int)
    labels[2, 2, 2] = 1
    assert distance_penalty(labels, KNEE)[2, 2, 2] == 1  # bug 2 divides 0 by 0 here
    assert distance_penalty(labels, KNEE, unit="mm")[2, 2, 2] == 0


@settings(max_examples=100, deadline=None)
@given(label_maps(), st.sampled_from(sorted(VARIANTS)))
def test_phi_is_finite_and_highest_at_the_boundary(case, variant):
    labels, spacing = case
    options = VARIANTS[variant]
    phi, distance = distance_penalty(labels, spacing, **vars(options)), boundary_distance(labels, spacing)
    assert np.isfinite(phi).all()
    assert phi.min() >= 0
    if options.unit == "relative":
        assert phi.max() <= 1
    for value in np.unique(labels):  # within a compartment φ falls with the distance
        compartment = labels == value
        order = np.argsort(distance[compartment], kind="stable")
        assert (np.diff(phi[compartment][order]) <= 1e-6).all()


@settings(max_examples=60, deadline=None)
@given(label_maps())
@example((np.array([[0, 0, 0, 0, 0, 1, 1, 1]]), (1.0, 0.365)))  # each compartment has its own deepest voxel
def test_the_default_is_1_at_the_boundary_and_0_at_the_deepest_voxel_of_each_compartment(case):
    labels, spacing = case
    phi, distance = distance_penalty(labels, spacing), brute_distance(labels, spacing)
    for value in np.unique(labels):
        compartment = labels == value
        d = distance[compartment]
        if np.isfinite(d).all() and d.max() > d.min() * (1 + 1e-5):
            assert phi[compartment][d.argmin()] == pytest.approx(1, abs=1e-5)
            assert phi[compartment][d.argmax()] == pytest.approx(0, abs=1e-5)


def test_scale_axes_and_names_of_the_labels():
    labels = np.random.default_rng(1).integers(0, 4, (7, 6, 5)).repeat(2, 0).repeat(2, 1)
    phi = distance_penalty(labels, KNEE)
    twice = tuple(2 * step for step in KNEE)
    np.testing.assert_allclose(distance_penalty(labels, twice), phi, atol=1e-5)  # in [0, 1] the unit cancels
    np.testing.assert_allclose(
        distance_penalty(labels, twice, unit="mm"), 2 * distance_penalty(labels, KNEE, unit="mm"), rtol=1e-5
    )
    np.testing.assert_allclose(
        distance_penalty(labels.transpose(2, 0, 1), (KNEE[2], KNEE[0], KNEE[1])), phi.transpose(2, 0, 1), atol=1e-6
    )
    renamed = np.array([0, 7, 5, 250])[labels]
    np.testing.assert_array_equal(distance_penalty(renamed, KNEE), phi)


def test_spacing_changes_the_map():
    labels = np.zeros((9, 9, 9), int)
    labels[3:6, 3:6, 3:6] = 1
    assert not np.allclose(distance_penalty(labels, KNEE), distance_penalty(labels, (1, 1, 1)))


def test_a_crop_has_another_phi_than_the_volume():
    labels = np.zeros((20, 20), int)
    labels[8:12, 8:12] = 1
    crop = np.s_[6:14, 6:14]
    assert not np.allclose(distance_penalty(labels[crop], (1, 1)), distance_penalty(labels, (1, 1))[crop])


def test_weight_near_the_boundary_reproduces_the_published_table():
    """Sphere of 14 mm in 64³ voxels of 0.7 mm, centred on a voxel: mean weight and its share within 2 mm."""
    coordinates = (np.arange(64) - 32) * 0.7
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*[coordinates] * 3, sparse=True)))
    sphere = (radius <= 14).astype(np.uint8)
    spacing = (0.7, 0.7, 0.7)
    near = boundary_distance(sphere, spacing) <= 2
    assert near.mean() == pytest.approx(0.098, abs=0.001)
    table = {"compartment": (1.64, 0.116), "mm": (16.1, 0.122), "mm_inside": (2.31, 0.284), "mm_common": (17.5, 0.140)}
    for variant, (mean, share) in table.items():
        got_share, got_mean = weight_near_boundary(
            distance_penalty(sphere, spacing, **vars(VARIANTS[variant])), sphere, spacing
        )
        assert got_mean == pytest.approx(mean, rel=0.015), variant
        assert got_share == pytest.approx(share, abs=0.002), variant


def test_weight_near_boundary_by_hand():
    share, mean = weight_near_boundary(np.array([[0, 1, 3, 0]]), np.array([[0, 0, 1, 1]]), (1, 1.5), within=1.5)
    assert (share, mean) == (6 / 8, 2.0)
    with pytest.raises(ValueError, match="phi must have the shape of labels"):
        weight_near_boundary(np.zeros((1, 3)), np.zeros((1, 4), int), (1, 1))


@pytest.mark.parametrize(
    ("labels", "spacing", "message"),
    [
        (np.zeros(5, int), (1,), r"2D or 3D.*got shape \(5,\)"),
        (np.zeros((1, 2, 3, 4), int), (1, 1, 1, 1), "2D or 3D"),
        (np.zeros((0, 3), int), (1, 1), "voxels in it"),
        (np.zeros((2, 3)), (1, 1), "must be integers.*float64"),
        (np.full((2, 3), -1), (1, 1), "must not be negative, got -1"),
        (np.zeros((2, 3), int), (1, 1, 1), "each of the 2 axes"),
        (np.zeros((2, 3), int), 1.0, "each of the 2 axes"),
        (np.zeros((2, 3), int), (1, 0), "positive number of mm"),
        (np.zeros((2, 3), int), (1, np.nan), "positive number of mm"),
        (np.zeros((2, 3), int), (1, np.inf), "positive number of mm"),
    ],
)
def test_bad_labels_and_spacing(labels, spacing, message):
    with pytest.raises(ValueError, match=message):
        boundary_distance(labels, spacing)
    with pytest.raises(ValueError, match=message):
        distance_penalty(labels, spacing)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sides": "in"}, "sides must be one of"),
        ({"maximum": "all"}, "maximum must be one of"),
        ({"unit": "cm"}, "unit must be one of"),
        ({"decay": 0}, "decay must be a positive length"),
        ({"decay": np.inf}, "decay must be a positive length"),
        ({"decay": 2.0, "unit": "mm"}, "takes the place of the reversal"),
        ({"normalise_by": "all"}, "normalise_by must be one of"),
        ({"control": "random"}, "control must be one of"),
        ({"decay": 2.0, "normalise_by": "image"}, "takes the place of the reversal"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        distance_penalty(ROW, STEP, **options)


def test_penalty_options_by_name_dict_and_object():
    assert penalty_options("mm") == penalty_options({"unit": "mm"}) == PenaltyOptions(unit="mm")
    assert penalty_options(PenaltyOptions(decay=1.0)).decay == 1.0
    with pytest.raises(ValueError, match="variant must be one of compartment"):
        penalty_options("milimetres")
    with pytest.raises(ValueError, match=r"no option side; it has sides"):
        penalty_options({"side": "inside"})


# ---------------------------------------------------------------- the maps of the other losses


@settings(max_examples=60, deadline=None)
@given(label_maps(classes=3))
def test_signed_distance_equals_brute_force(case):
    labels, spacing = case
    signed = signed_distance(labels, 4, spacing)
    assert signed.shape == (4, *labels.shape)
    assert signed.dtype == np.float32
    for k in range(4):
        mask = labels == k
        distance = brute_distance(mask, spacing)
        expected = np.where(mask, -distance, distance) if mask.any() and not mask.all() else np.zeros(labels.shape)
        np.testing.assert_allclose(signed[k], expected, rtol=1e-5)


def test_signed_distance_is_negative_at_every_voxel_inside():
    """Bug 5: subtracting 1 inside means a unit, not a voxel, and turns signs at 0.365 mm."""
    labels = np.zeros((9, 9, 9), int)
    labels[2:7, 1:8, 1:8] = 1
    signed = signed_distance(labels, 2, KNEE)
    assert (signed[1][labels == 1] <= -0.365 * 0.999).all()
    assert (signed[1][labels == 0] >= 0.365 * 0.999).all()
    np.testing.assert_array_equal(signed[0], -signed[1])


@settings(max_examples=60, deadline=None)
@given(label_maps(classes=3))
def test_argmax_of_the_normalised_signed_distance_is_the_label_map(case):
    labels, spacing = case
    normalised = normalised_signed_distance(labels, 4, spacing)
    assert np.abs(normalised).max() <= 1
    assert ((normalised > 0).sum(0) == 1).all()
    np.testing.assert_array_equal(normalised.argmax(0), labels)
    assert (normalised[3] == -1).all()  # absent
    for k in np.unique(labels):
        assert normalised[k].max() == 1
        assert np.unique(labels).size == 1 or normalised[k].min() == -1


def test_normalised_signed_distance_by_hand():
    normalised = normalised_signed_distance(np.array([[0, 0, 0, 0, 1, 1]]), 2, (1, 2))
    np.testing.assert_allclose(normalised[1], [[-1, -0.75, -0.5, -0.25, 0.5, 1]])
    full = normalised_signed_distance(np.ones((2, 2), int), 2, (1, 1))
    np.testing.assert_array_equal(full, [np.full((2, 2), -1.0), np.ones((2, 2))])


@settings(max_examples=25, deadline=None)
@given(label_maps(classes=3), st.sampled_from(["labels", "components"]))
def test_unet_weight_equals_brute_force(case, objects):
    labels, spacing = case
    values, counts = np.unique(labels, return_counts=True)
    balance = sum((labels == v) * labels.size / (len(values) * n) for v, n in zip(values, counts, strict=True))
    masks = [labels == v for v in values[values != 0]]
    if objects == "components":
        numbered = [ndimage.label(mask, np.ones((3,) * labels.ndim)) for mask in masks]
        masks = [parts == n for parts, number in numbered for n in range(1, number + 1)]
    distances = [brute_distance(mask, spacing) for mask in masks]
    border = np.zeros(labels.shape)
    if len(distances) > 1:
        nearest, second = np.sort(np.stack(distances), axis=0)[:2]
        border = 10 * np.exp(-((nearest + second) ** 2) / (2 * 5**2))
    weight = unet_weight(labels, spacing, objects=objects)
    assert weight.dtype == np.float32
    np.testing.assert_allclose(weight, balance + border, rtol=1e-4)
    assert balance.mean() == pytest.approx(1)


def test_unet_weight_separates_objects_of_one_class():
    labels = np.array([[1, 0, 1, 0, 0]])
    weight = unet_weight(labels, (1, 3), w0=10, sigma=5)
    between = 5 / (2 * 3) + 10 * np.exp(-((3 + 3) ** 2) / 50)  # class balance, then 3 mm to either object
    assert weight[0, 1] == pytest.approx(between)
    assert unet_weight(labels, (1, 3), objects="labels")[0, 1] == pytest.approx(5 / 6)  # one object: no gap
    diagonal = np.eye(3, dtype=int)  # touching at corners is one object
    np.testing.assert_allclose(unet_weight(diagonal, (1, 1)), unet_weight(diagonal, (1, 1), objects="labels"))


def test_distance_of_a_mask_without_boundary_is_0():
    assert not mask_distance(np.zeros((3, 3), bool), (1, 1)).any()
    assert not mask_distance(np.ones((3, 3), bool), (1, 1)).any()


def test_maps_refuse_labels_beyond_the_classes():
    for function, labels in product((signed_distance, normalised_signed_distance), ([[0, 4]], [[4, 4]])):
        with pytest.raises(ValueError, match="0 to 3 for num_classes=4, got 4"):
            function(np.array(labels), 4, (1, 1))


def test_the_words_of_earlier_versions_are_understood():
    assert penalty_options({"maximum": "common", "unit": "mm"}) == penalty_options("mm_common")
    assert penalty_options({"maximum": "own"}) == PenaltyOptions()
    old, new = (distance_penalty(ROW, STEP, **words) for words in ({"maximum": "common"}, {"normalise_by": "image"}))
    assert np.array_equal(old, new)
    assert not np.array_equal(new, distance_penalty(ROW, STEP))
    assert READINGS is VARIANTS
