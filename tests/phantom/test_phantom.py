"""The phantom: true distances, anatomy, grid independence, partial volume, contrast, layout on disk."""

import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.ndimage import binary_erosion, map_coordinates
from scipy.spatial import cKDTree
from skimage import measure

from shapeloss.phantom import knee as phantom
from shapeloss.phantom.anatomy import (
    BONES,
    RELIEF_MM,
    box,
    capsule,
    distance_and_normal,
    draw_waves,
    signed_distances,
    smooth_max,
    smooth_min,
)
from shapeloss.phantom.contrast import CORTEX, GAIN, MARROW, PhantomOptions, acquire, coverage, draw_tissue
from shapeloss.phantom.dataset import write_dataset
from shapeloss.phantom.knee import make_anatomy, make_knee
from shapeloss.phantom.population import anatomy_statistics
from shapeloss.phantom.reader import draw_reader

SMALL = PhantomOptions(shape=(16, 36, 48), spacing=(6.0, 3.0, 3.0))
DESS = PhantomOptions(shape=(160, 384, 384), spacing=(0.7, 0.365, 0.365))
QUIET = {"noise": 0.0, "bias": 0.0, "texture": 0.0}


def world_points(shape, affine):
    """World mm (X, Y, Z, 3) of the voxels' centres, from the affine alone."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.fixture(scope="module")
def knee():
    return make_knee(3, PhantomOptions())


# --- distances


def test_capsule_and_smooth_union_by_hand():
    x = np.array([5.0, 13.0, -1.0, 5.0], np.float32)
    y = np.array([3.0, 0.0, 0.0, 0.0], np.float32)
    z = np.array([0.0, 0.0, 0.0, -4.0], np.float32)
    np.testing.assert_allclose(capsule((x, y, z), (0, 0, 0), (10, 0, 0), 2, 2), [1, 1, -1, 2], atol=1e-6)
    # flattened to twice its width along x: a point at x = 6 lies where x = 3 would
    np.testing.assert_allclose(capsule((x[:1] + 1, y[:1] * 0, z[:1]), (0, 0, 0), (0, 0, 1), 2, 2, 2.0), [1], atol=1e-6)
    a, b = np.float32([1, 5, -3]), np.float32([1, 0, 4])
    np.testing.assert_allclose(smooth_min(a, b, 2.0), [1 - 0.5, 0, -3])  # equal fields: k/4 below both
    np.testing.assert_allclose(smooth_max(a, b, 2.0), [1 + 0.5, 5, 4])


@pytest.mark.parametrize(("bone", "landmark"), [(0, "medial_condyle_distal"), (1, "eminence"), (2, "patella_centre")])
def test_distance_is_true_near_the_surface(bone, landmark):
    """Against the distance to a fine mesh of the zero level, which knows nothing of how the field was normalised."""
    anatomy, spacing, n = make_anatomy(5), 0.7, 60
    corner = np.array(phantom.landmarks(anatomy)[landmark]) - spacing * (n - 1) / 2
    index = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1)
    distance = signed_distances(corner + spacing * index, anatomy)[bone]
    vertices, faces, *_ = measure.marching_cubes(distance, 0.0, spacing=(spacing,) * 3)
    assert np.abs(signed_distances(corner + vertices, anatomy)[bone]).max() < 0.08  # linear interpolation of 0.7 mm
    corners = vertices[faces]
    tree = cKDTree(np.concatenate([vertices, corners.mean(1), *(corners + np.roll(corners, 1, 1)).swapaxes(0, 1) / 2]))
    margin = (index.min(-1) > 6) & (index.max(-1) < n - 7)  # a nearer surface may lie outside the box
    for reach, typical, worst in ((1.0, 0.07, 0.2), (2.0, 0.2, 0.7)):
        near = margin & (np.abs(distance) < reach)
        assert near.sum() > 1000
        error = np.abs(np.abs(distance[near]) - tree.query(index[near] * spacing)[0])
        assert np.quantile(error, 0.95) < typical
        assert error.max() < worst
    gradient = np.linalg.norm(np.gradient(distance, spacing), axis=0)[margin & (np.abs(distance) < 1)]
    assert np.median(gradient) == pytest.approx(1, abs=0.02)
    assert np.quantile(np.abs(gradient - 1), 0.95) < 0.2


def test_normal_points_outwards():
    anatomy = make_anatomy(2)
    point = np.array(phantom.landmarks(anatomy)["lateral_condyle_posterior"], np.float32)[:, None]
    distance, normal = distance_and_normal(tuple(point), anatomy.femur)
    assert abs(distance[0]) < 0.2
    assert np.linalg.norm(normal[:, 0]) == pytest.approx(1, abs=1e-4)
    assert normal[1, 0] < -0.9  # the most posterior point: the surface faces backwards there
    assert signed_distances((point + normal).T, anatomy)[0, 0] - distance[0] == pytest.approx(1, abs=0.1)


def test_signed_distances_of_any_shape_of_points():
    anatomy = make_anatomy(0)
    points = np.random.default_rng(0).uniform(-40, 40, (2, 5, 3))
    result = signed_distances(points, anatomy)
    assert result.shape == (3, 2, 5)
    np.testing.assert_array_equal(signed_distances(points[1, 2], anatomy), result[:, 1, 2])
    with pytest.raises(ValueError, match=r"points.*\(…, 3\).*\(4, 2\)"):
        signed_distances(np.zeros((4, 2)), anatomy)


def test_waves_have_their_rms_and_are_averaged_over_the_voxel():
    waves = draw_waves(np.random.default_rng(1), 14, 60, 14, RELIEF_MM)
    x, y, z = np.random.default_rng(2).uniform(-1000, 1000, (3, 20000)).astype(np.float32)
    assert waves((x, y, z)).std() == pytest.approx(RELIEF_MM, rel=0.03)
    size = (6.0, 3.0, 4.0)
    offsets = (box(np.zeros(3), 0.5 - 1 / 24, 1 / 12) * size).astype(np.float32)  # 12³ points within the voxel
    mean = np.mean([waves((x[:50] + dx, y[:50] + dy, z[:50] + dz)) for dx, dy, dz in offsets], axis=0)
    np.testing.assert_allclose(waves((x[:50], y[:50], z[:50]), size), mean, atol=5e-3)


# --- anatomy


def test_population_agrees_with_real_knees():
    table = anatomy_statistics(24, sampling_mm=2.5).set_index(["bone", "quantity"])
    assert len(table) == 18
    for (bone, quantity), row in table.iterrows():
        if np.isnan(row.real_sd):
            assert row.phantom_mean == pytest.approx(row.real_mean, rel=0.08), (bone, quantity)
        else:
            # the surfaces of manual masks are rough, those of the phantom are smooth
            tolerance = 1.0 if quantity == "surface_cm2" else 0.6
            assert abs(row.phantom_mean - row.real_mean) < tolerance * row.real_sd, (bone, quantity)
            if quantity == "volume_cm3":
                assert 0.5 < row.phantom_sd / row.real_sd < 1.5, (bone, quantity)


def test_bones_do_not_touch_and_the_joint_has_its_width():
    points = world_points((38, 47, 47), np.diag([3.0, 3.0, 3.0, 1]) - np.pad(np.full((3, 1), 69.0), ((0, 1), (3, 0))))
    for subject in range(4):
        anatomy = make_anatomy(subject)
        femur, tibia, patella = signed_distances(points, anatomy)
        assert not ((femur < 0) & (tibia < 0) | (femur < 0) & (patella < 0) | (tibia < 0) & (patella < 0)).any()
        joint = phantom.landmarks(anatomy)
        for side in ("medial", "lateral"):
            assert signed_distances(np.array(joint[f"{side}_plateau"]), anatomy)[0] > anatomy.joint_mm - 1.5


def test_subjects_are_no_scaled_copies():
    """After dividing by their size, two femora still differ by more than a millimetre somewhere."""
    first, second = make_anatomy(0).femur, make_anatomy(1).femur
    assert first.shape != second.shape
    assert not np.allclose(first.scale / first.scale[0], second.scale / second.scale[0])
    local = box(np.array([0.0, 0.0, 20.0]), 35.0, 5.0).astype(np.float32)
    difference = first.relief(tuple(local.T)) - second.relief(tuple(local.T))
    assert difference.std() == pytest.approx(np.sqrt(2) * RELIEF_MM, rel=0.4)


def test_left_knees_are_mirrored():
    sides = {make_anatomy(i).side for i in range(6)}
    assert sides == {-1, 1}
    for subject in range(6):
        anatomy = make_anatomy(subject)
        points = phantom.landmarks(anatomy)
        assert np.sign(points["lateral_plateau"][0] - points["medial_plateau"][0]) == anatomy.side
        assert np.sign(np.linalg.det(anatomy.femur.rotation)) == anatomy.side


@pytest.mark.parametrize("subject", range(4))
def test_landmarks(subject):
    anatomy = make_anatomy(subject)
    points = phantom.landmarks(anatomy)
    condyles = [f"{side}_condyle_{end}" for side in ("medial", "lateral") for end in ("posterior", "distal")]
    plateaus = ["medial_plateau", "lateral_plateau"]
    assert set(points) == {"notch_roof", "eminence", "patella_centre", *condyles, *plateaus}
    distance = {name: signed_distances(np.array(point), anatomy) for name, point in points.items()}
    for name in ("notch_roof", *condyles):
        assert abs(distance[name][0]) < 0.2, name
    for name in ("eminence", *plateaus):
        assert abs(distance[name][1]) < 0.2, name
    assert distance["patella_centre"][2] < -5
    # in world axes, on a grid of 1.5 mm: nothing of a condyle lies further back or down
    spacing = 1.5
    grid = box(np.array(points["notch_roof"]), 48.0, spacing)
    femur = grid[signed_distances(grid, anatomy)[0] < 0]
    for side in ("medial", "lateral"):
        half = femur[np.abs(femur[:, 0] - points[f"{side}_condyle_distal"][0]) < 8]
        assert half[:, 1].min() == pytest.approx(points[f"{side}_condyle_posterior"][1], abs=spacing)
        assert half[:, 2].min() == pytest.approx(points[f"{side}_condyle_distal"][2], abs=spacing)
    assert points["notch_roof"][2] > points["eminence"][2] > points["medial_plateau"][2]
    assert points["notch_roof"][2] - points["medial_condyle_distal"][2] > 10  # the notch is deep


# --- grids


@pytest.mark.parametrize(
    "options", [SMALL, PhantomOptions(shape=(20, 30, 25), spacing=(2.5, 4.0, 5.5))], ids=["sagittal", "other"]
)
def test_labels_are_the_signs_of_the_distances_at_the_voxels_world_position(options):
    knee = make_knee(1, options)
    assert knee.image.shape == knee.labels.shape == options.shape
    assert knee.image.dtype == np.float32
    assert knee.labels.dtype == np.uint8
    np.testing.assert_allclose(np.diag(knee.affine)[:3], options.spacing)
    points = world_points(options.shape, knee.affine)
    np.testing.assert_allclose(points.reshape(-1, 3).mean(0), 0, atol=1e-9)  # centred field of view
    distance = signed_distances(points, knee.anatomy)
    np.testing.assert_allclose(knee.distances, distance, atol=1e-3)
    expected = np.where(distance.min(0) < 0, distance.argmin(0) + 1, 0)
    assert (knee.labels != expected).mean() < 1e-4  # float32: a voxel's centre on the surface itself
    assert set(np.unique(knee.labels)) == {0, 1, 2, 3}


def test_same_knee_at_two_resolutions(knee):
    fine = make_knee(3, PhantomOptions(shape=(48, 54, 72), spacing=(2.0, 2.0, 2.0)))
    assert fine.landmarks == knee.landmarks
    index = world_points(knee.labels.shape, np.linalg.inv(fine.affine) @ knee.affine).transpose(3, 0, 1, 2)
    interpolated = [map_coordinates(d, index, order=1, mode="nearest") for d in fine.distances]
    for label, bone in enumerate(BONES, start=1):
        volumes = [(k.labels == label).sum() * abs(np.linalg.det(k.affine)) for k in (knee, fine)]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.03), bone
        assert dice(knee.labels == label, interpolated[label - 1] < 0) > 0.98, bone


def test_slabs_leave_no_trace(monkeypatch):
    options = replace(SMALL, **QUIET)
    whole = make_knee(2, options)
    monkeypatch.setattr(phantom, "_SLAB_VOXELS", 3 * 36 * 48)
    slabs = make_knee(2, options)
    np.testing.assert_array_equal(slabs.labels, whole.labels)
    np.testing.assert_allclose(slabs.image, whole.image, atol=0.01 * GAIN * 0.01)


def test_deterministic():
    first, again = make_knee(7, SMALL, seed=4), make_knee(7, SMALL, seed=4)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.distances.tobytes() == again.distances.tobytes()
    assert first.landmarks == again.landmarks
    for other in (make_knee(8, SMALL, seed=4), make_knee(7, SMALL, seed=5)):
        assert (other.labels != first.labels).any()
    noisy = make_knee(7, replace(SMALL, noise=0.2, edge_contrast=0.3, bias=0.0, vessels=0.0), seed=4)
    np.testing.assert_array_equal(noisy.labels, first.labels)  # the image's difficulty does not touch the anatomy


_KNEE_HASH = """
import hashlib
from shapeloss.phantom.contrast import PhantomOptions
from shapeloss.phantom.knee import make_knee
knee = make_knee(1, PhantomOptions(shape=(16, 36, 48), spacing=(6.0, 3.0, 3.0), reader_mm=0.6))
arrays = (knee.image, knee.labels, knee.exact, (knee.distances * 1e4).round())  # distances in steps of 0.1 µm
print(hashlib.sha256(b''.join(array.tobytes() for array in arrays)).hexdigest())
"""


def test_a_processor_of_fewer_instructions_makes_the_same_bits():
    """The last bits of sines and exponentials vary with the processor; those of image and labels do not."""
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    if not found:
        pytest.skip("this processor has no instructions beyond those that NumPy always uses")
    hashes = []
    for disabled in ("", " ".join(found)):
        environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": disabled}
        if disabled:
            environment["ATEN_CPU_CAPABILITY"] = "default"
        command = [sys.executable, "-W", "ignore", "-c", _KNEE_HASH]
        hashes.append(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert hashes[0] == hashes[1]


# --- the reader


def test_a_reader_changes_the_labels_alone():
    options = PhantomOptions(shape=(20, 48, 64), spacing=(5.0, 2.0, 2.0))
    exact, drawn = make_knee(2, options), make_knee(2, replace(options, reader_mm=0.6))
    assert exact.labels is exact.exact
    np.testing.assert_array_equal(drawn.exact, exact.labels)
    np.testing.assert_array_equal(drawn.image, exact.image)
    np.testing.assert_array_equal(drawn.distances, exact.distances)
    assert drawn.landmarks == exact.landmarks
    assert (drawn.labels != drawn.exact).any()
    np.testing.assert_array_equal(make_knee(2, replace(options, reader_mm=0.6)).labels, drawn.labels)
    off = drawn.labels != drawn.exact
    assert np.abs(drawn.distances).min(0)[off].max() < 4 * 0.6  # no voxel far from a surface changes


def _displacements(reader, bone, points, first=2):
    """Displacement at points (slices, Y, Z) of some slices."""
    return np.stack([reader.displacement(bone, at, first + i) for i, at in enumerate(zip(*points, strict=True))])


def test_outlines_lie_around_the_true_surface_with_their_sd():
    """Over many readers, at points in every slice: mean 0, the SD that was asked for, half of it shared by slices."""
    grid = np.meshgrid(np.arange(6) * 3.0, np.linspace(-60, 60, 12), np.linspace(-60, 60, 12), indexing="ij")
    points = tuple(grid)
    readers = [draw_reader(np.random.default_rng(i), 0.5, 3, 8) for i in range(300)]
    shifts = np.stack([_displacements(reader, 1, points) for reader in readers])
    assert abs(shifts.mean()) < 0.02
    assert shifts.std() == pytest.approx(0.5, rel=0.05)
    neighbours = np.corrcoef(shifts[:, :-1].ravel(), shifts[:, 1:].ravel())[0, 1]
    assert 0.35 < neighbours < 0.5  # habits, a half of the variance, which change a little over 3 mm
    # smooth: over 2 mm within a slice it hardly changes
    near = tuple(axis + 2 * (i == 1) for i, axis in enumerate(points))
    again = np.stack([_displacements(reader, 1, near) for reader in readers])
    assert np.corrcoef(shifts.ravel(), again.ravel())[0, 1] > 0.8
    # another bone, another slice and another reader are other drawings
    assert np.abs(np.corrcoef(shifts[0].ravel(), _displacements(readers[0], 2, points).ravel())[0, 1]) < 0.5
    assert not np.array_equal(_displacements(readers[0], 1, points, first=0), shifts[0])


def test_drawn_distances_are_the_true_ones_less_the_displacement_near_the_surface():
    grid = tuple(np.meshgrid(np.arange(3) * 3.0, np.linspace(-60, 60, 12), np.linspace(-60, 60, 12), indexing="ij"))
    distance = np.random.default_rng(0).uniform(-5, 5, grid[0].shape)
    reader = draw_reader(np.random.default_rng(1), 0.5, 3, 8)
    drawn, whole = reader.drawn(1, distance, grid, 2), distance - _displacements(reader, 1, grid)
    near = np.abs(distance) < 3.5
    np.testing.assert_array_equal(drawn[near], whole[near])
    np.testing.assert_array_equal(drawn[~near], distance[~near])
    assert (np.sign(drawn) == np.sign(whole)).all()


def test_the_slabs_of_a_reader_leave_no_trace(monkeypatch):
    options = replace(SMALL, reader_mm=0.6)
    whole = make_knee(2, options)
    monkeypatch.setattr(phantom, "_SLAB_VOXELS", 3 * 36 * 48)
    np.testing.assert_array_equal(make_knee(2, options).labels, whole.labels)


# --- image


def test_coverage_by_hand():
    np.testing.assert_allclose(coverage(np.float32([0, 1, -1, 0.5, 9, -9]), 2.0), [0.5, 0, 1, 0.25, 0, 1])
    assert coverage(np.float32([0.1]), 0.0) == 0  # no width: all or nothing


@given(st.floats(-4, 4), st.integers(0, 2), st.tuples(*[st.floats(0.3, 5)] * 3))
def test_coverage_of_a_voxel_cut_across_an_axis_is_exact(offset, axis, spacing):
    inside = np.clip((spacing[axis] / 2 - offset) / spacing[axis], 0, 1)  # the share below the plane, worked out in 1D
    assert coverage(np.float32([offset]), np.float32(spacing[axis]))[0] == pytest.approx(inside, abs=1e-4)


def test_partial_volume_equals_the_mean_over_the_voxel():
    """Voxels cut by a bone's edge, against the mean of 3 × 3 × 3 finer voxels in the same place."""
    options = PhantomOptions(shape=(12, 36, 48), spacing=(6.0, 3.0, 3.0), vessels=0.0, cortex_mm=1.5, **QUIET)
    coarse = make_knee(3, options)
    fine = make_knee(3, replace(options, shape=(36, 108, 144), spacing=(2.0, 1.0, 1.0)))

    def block_mean(a):
        return a.reshape(12, 3, 36, 3, 48, 3).mean((1, 3, 5))

    gain = draw_tissue(phantom._streams(3, 0)[1], coarse.anatomy).gain
    truth, share = block_mean(fine.image) / gain, block_mean(fine.labels > 0)
    error = np.abs(coarse.image / gain - truth)
    cut = (share > 0.3) & (share < 0.7)
    assert cut.sum() > 500
    assert error[cut].mean() < 0.04
    centre = fine.image[1::3, 1::3, 1::3] / gain  # what a voxel would hold without partial volume
    assert error[cut].mean() < 0.5 * np.abs(centre - truth)[cut].mean()
    # across the slices an edge is twice as wide as within them
    points = tuple(np.moveaxis(world_points(options.shape, coarse.affine), -1, 0).astype(np.float32))
    across = np.any([np.abs(distance_and_normal(points, bone)[1][0]) > 0.85 for bone in coarse.anatomy.bones], axis=0)
    assert (cut & across).sum() > 100
    assert error[cut & across].mean() < 0.02


def test_tissues_have_dess_contrast():
    options = PhantomOptions(shape=(40, 110, 110), spacing=(2.0, 1.0, 1.0), vessels=0.0, cortex_mm=1.2, **QUIET)
    knee = make_knee(3, options)
    gain = draw_tissue(phantom._streams(3, 0)[1], knee.anatomy).gain
    signal, (femur, tibia, _) = knee.image / gain, knee.distances
    assert np.median(signal[femur < -5]) == pytest.approx(MARROW, abs=0.03)
    at_edge = (np.abs(femur + 0.5) < 0.2) & (knee.labels == 1)
    assert np.median(signal[at_edge]) < 0.8 * MARROW  # the cortex is darker than the marrow
    assert signal[at_edge].min() == pytest.approx(CORTEX, abs=0.04)
    assert np.quantile(signal[at_edge], 0.95) > 0.9 * MARROW  # and in places too thin to be seen
    x, y, z = world_points(options.shape, knee.affine).reshape(-1, 3).T.reshape(3, *options.shape)
    notch = knee.landmarks["notch_roof"]
    joint = (femur > 0) & (tibia > 0) & (femur + tibia < knee.anatomy.joint_mm + 1)
    assert np.median(signal[joint]) > 0.7  # cartilage and fluid
    behind = (y < notch[1] - 30) & (z < notch[2] - 45) & (np.abs(x - notch[0]) < 25)
    assert 0.4 < np.median(signal[behind]) < 0.6  # the calf's muscles
    assert signal[np.abs(femur - 3) < 0.5].max() > 0.9
    assert signal[:, -3:, :10].max() < 0.01  # air in front of the shin


def test_rician_noise_and_smooth_bias():
    options = PhantomOptions(shape=(30, 40, 50), spacing=(3.0, 3.0, 3.0), noise=0.1, bias=0.0)
    tissue = draw_tissue(np.random.default_rng(0), make_anatomy(0))
    empty = acquire(np.zeros(options.shape, np.float32), tissue, options, np.random.default_rng(1)) / tissue.gain
    assert empty.mean() == pytest.approx(0.1 * np.sqrt(np.pi / 2), rel=0.01)  # Rayleigh
    bright = acquire(np.ones(options.shape, np.float32), tissue, options, np.random.default_rng(1)) / tissue.gain
    assert bright.mean() == pytest.approx(np.sqrt(1 + 0.1**2), rel=0.005)
    assert bright.std() == pytest.approx(0.1, rel=0.02)
    options = replace(options, noise=0.0, bias=0.3)
    biased = acquire(np.ones(options.shape, np.float32), tissue, options, np.random.default_rng(1)) / tissue.gain
    assert 0.1 < np.log(biased).std() < 0.45
    assert max(np.abs(np.diff(np.log(biased), axis=a)).max() for a in range(3)) < 0.06  # per 3 mm
    half = acquire(np.full(options.shape, 0.5, np.float32), tissue, options, np.random.default_rng(1)) / tissue.gain
    np.testing.assert_allclose(half, biased / 2, atol=0.8 / tissue.gain)  # multiplicative, in whole grey values


def test_point_spread_keeps_the_sum_and_widens_in_mm():
    options = PhantomOptions(shape=(21, 41, 31), spacing=(2.0, 1.0, 1.5), noise=0.0, bias=0.0, blur_mm=5.0)
    tissue = draw_tissue(np.random.default_rng(0), make_anatomy(0))
    signal = np.zeros(options.shape, np.float32)
    signal[10, 20, 15] = 1e6  # grey values are whole numbers
    image = acquire(signal, tissue, options, np.random.default_rng(1)) / tissue.gain / 1e6
    assert image.sum() == pytest.approx(1, rel=1e-3)
    for axis, spacing in enumerate(options.spacing):
        profile = image.sum(tuple({0, 1, 2} - {axis}))
        position = (np.arange(len(profile)) - len(profile) // 2) * spacing
        assert np.sqrt((profile * position**2).sum()) * 2.3548 == pytest.approx(5.0, rel=0.03)


def test_controls_move_the_difficulty(knee):
    options = PhantomOptions(noise=0.0, bias=0.0)
    edge = np.abs(knee.distances).min(0) < 1

    def edge_sharpness(**changes):
        signal = make_knee(3, replace(options, **changes)).image
        return np.linalg.norm(np.gradient(signal), axis=0)[edge].mean()

    sharp = edge_sharpness()
    assert edge_sharpness(edge_contrast=0.5) < 0.85 * sharp
    assert edge_sharpness(edge_contrast=0.1) < 0.7 * sharp
    assert edge_sharpness(cortex_mm=0.0) < 0.95 * sharp
    assert edge_sharpness(blur_mm=3.0) < 0.8 * sharp
    inside = knee.distances[0] < -6
    marrow = {t: make_knee(3, replace(options, texture=t, vessels=0.0)).image[inside].std() for t in (0.0, 0.15)}
    assert marrow[0.15] > marrow[0.0] + 0.02 * GAIN
    few, usual = (make_knee(3, replace(options, vessels=v)).image for v in (0.0, 1.0))
    assert ((usual - few) > 0.2 * GAIN).sum() > 200
    assert ((usual - few) > 0.1 * GAIN)[inside].sum() > 2  # some within the bone


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shape": (3, 64, 96)}, "shape"),
        ({"shape": (24, 64)}, "shape"),
        ({"spacing": (4.0, 0.0, 1.5)}, "spacing"),
        ({"spacing": (4.0, float("nan"), 1.5)}, "spacing"),
        ({"noise": -0.1}, "noise"),
        ({"edge_contrast": 1.5}, "edge_contrast"),
        ({"nois": 0.1}, "nois"),
    ],
)
def test_bad_options(values, message):
    with pytest.raises(ValidationError, match=message):
        PhantomOptions(**values)


def test_bad_subjects(tmp_path):
    with pytest.raises(ValueError, match=r"subject and seed.*got -1 and 0"):
        make_knee(-1, SMALL)
    with pytest.raises(ValueError, match=r"subjects.*at least 1, got 0"):
        write_dataset(tmp_path / "data", 0, SMALL)
    with pytest.raises(ValueError, match=r"subjects.*at least 2.*got 1"):
        anatomy_statistics(1)


# --- on disk


def contents(folder: Path):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_layout(tmp_path):
    done = []
    write_dataset(tmp_path / "data", 2, SMALL, seed=3, progress=lambda *counts: done.append(counts))
    assert done == [(1, 2), (2, 2)]
    files = contents(tmp_path / "data")
    assert sorted(files) == [
        "dataset.json",
        *(f"{folder}/knee_{i:03d}.nii.gz" for folder in ("imagesTr", "labelsTr") for i in (1, 2)),
        *(f"landmarks/knee_{i:03d}.json" for i in (1, 2)),
    ]
    description = json.loads(files["dataset.json"])
    assert description["labels"] == {"0": "background", "1": "femur", "2": "tibia", "3": "patella"}
    assert description["modality"] == {"0": "MRI"}
    assert description["tensorImageSize"] == "3D"
    assert description["numTraining"] == 2
    assert description["training"][1] == {"image": "./imagesTr/knee_002.nii.gz", "label": "./labelsTr/knee_002.nii.gz"}
    knee = make_knee(1, SMALL, seed=3)
    image, labels = (nibabel.load(tmp_path / "data" / d / "knee_002.nii.gz") for d in ("imagesTr", "labelsTr"))
    np.testing.assert_array_equal(np.asarray(image.dataobj), knee.image)
    np.testing.assert_array_equal(np.asarray(labels.dataobj), knee.labels)
    assert image.get_data_dtype() == np.float32
    assert labels.get_data_dtype() == np.uint8
    for volume in (image, labels):
        assert nibabel.aff2axcodes(volume.affine) == ("R", "A", "S")
        assert volume.header.get_zooms() == SMALL.spacing
        np.testing.assert_allclose(volume.affine, knee.affine)
    assert json.loads(files["landmarks/knee_002.json"]) == {k: list(v) for k, v in knee.landmarks.items()}


def test_the_exact_labels_lie_beside_those_of_a_reader(tmp_path):
    options = replace(SMALL, reader_mm=0.8)
    write_dataset(tmp_path, 1, options)
    knee = make_knee(0, options)
    for folder, expected in (("labelsTr", knee.labels), ("exactTr", knee.exact)):
        np.testing.assert_array_equal(np.asarray(nibabel.load(tmp_path / folder / "knee_001.nii.gz").dataobj), expected)
    write_dataset(tmp_path, 1, SMALL)
    assert not list((tmp_path / "exactTr").iterdir())  # an exact reader leaves none of an earlier call


def test_equal_calls_give_equal_bytes_and_replace_what_was_there(tmp_path):
    write_dataset(tmp_path / "a", 1, SMALL)
    (tmp_path / "b").mkdir()
    write_dataset(tmp_path / "b", 2, SMALL, seed=9)
    write_dataset(tmp_path / "b", 1, SMALL)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_foreign_files_are_left_alone(tmp_path):
    for name, text in (("imagesTr/patient.nii.gz", "mine"), ("dataset.json", '{"name": "my knees"}')):
        folder = tmp_path / name.partition(".")[0].replace("/", "_")
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
        with pytest.raises(ValueError, match=f"holds {name}.*empty or a new folder"):
            write_dataset(folder, 1, SMALL)
        assert (folder / name).read_text(encoding="utf-8") == text


def test_an_interrupted_call_leaves_no_description(tmp_path):
    write_dataset(tmp_path / "data", 1, SMALL)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "data", 2, SMALL, progress=stop)
    assert not (tmp_path / "data" / "dataset.json").exists()
    write_dataset(tmp_path / "data", 1, SMALL)
    assert (tmp_path / "data" / "dataset.json").exists()


@pytest.mark.slow
def test_whole_dess_knee_in_3_gb():
    tracemalloc.start()
    knee = make_knee(0, DESS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e9
    assert np.unique(knee.labels).tolist() == [0, 1, 2, 3]
    patella = np.argwhere(knee.labels == 3)
    assert (patella.min(0) > 0).all()
    assert (patella.max(0) < np.array(DESS.shape) - 1).all()  # whole
    assert (knee.labels[:, :, -1] == 1).any()  # femur and tibia leave the field of view
    assert (knee.labels[:, :, 0] == 2).any()
    surface = np.mean([boundary_share(knee.labels == k) for k in (1, 2)])
    assert surface == pytest.approx(0.06, abs=0.015)  # as in real masks


def boundary_share(mask):
    return (mask & ~binary_erosion(mask, border_value=1)).sum() / mask.sum()
