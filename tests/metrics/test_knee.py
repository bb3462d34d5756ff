"""The knee's biomarkers on a knee of cylinders, boxes and balls, whose values follow by hand, and on the phantom."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.project import ROOT
from helpers.solids import BLOCK_CLASSES, BLOCK_KNEE, BLOCK_SPACING, SLOPES, block_labels
from scipy.spatial.transform import Rotation

from shapeloss.metrics.biomarkers import (
    KNEE_BIOMARKERS,
    SHAPE_BIOMARKERS,
    biomarker_names,
    biomarker_table,
    biomarker_unit,
    structure_biomarkers,
)
from shapeloss.metrics.knee import _tibia_frame, all_biomarkers, knee_biomarkers, measure_bones, side_of
from shapeloss.metrics.sections import LabelBone, Section
from shapeloss.phantom import anatomy as anatomy_module
from shapeloss.phantom import biomarkers as phantom_biomarkers
from shapeloss.phantom.anatomy import Anatomy, Bone, Femur, Patella, Tibia, Waves
from shapeloss.phantom.biomarkers import ExactBone, exact_biomarkers, exact_shape, exact_size
from shapeloss.phantom.contrast import PhantomOptions
from shapeloss.phantom.knee import landmarks, make_anatomy, make_knee

TOLERANCE = {"mm": 0.8, "1": 0.04, "°": 0.8}


def assert_values(found, expected, scale=1.0):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert not found[name].reason, (name, found[name].reason)
        assert found[name].value == pytest.approx(value, abs=scale * TOLERANCE[biomarker_unit(name)]), name


@pytest.fixture(scope="module")
def block():
    return block_labels()


@pytest.fixture(scope="module")
def measured(block):
    return knee_biomarkers(*block, BLOCK_CLASSES)


def test_a_knee_whose_values_follow_by_hand(measured):
    assert_values(measured, BLOCK_KNEE)


def test_the_side_names_medial_and_lateral(block, measured):
    for side, medial in (("right", "left"), ("left", "right")):
        found = knee_biomarkers(*block, BLOCK_CLASSES, side)
        assert list(found) == list(biomarker_names(side))
        lateral = {"left": "right", "right": "left"}[medial]
        for name, value in found.items():
            unnamed = name.replace("medial", f"towards_{medial}").replace("lateral", f"towards_{lateral}")
            assert value == measured[unnamed]
    right = knee_biomarkers(*block, BLOCK_CLASSES, "right")
    assert right["tibial_slope_medial_deg"].value == pytest.approx(SLOPES[0], abs=0.8)


@pytest.mark.parametrize("angles", [(15, 0, 0), (0, 15, 0), (0, 0, 15), (-10, 12, -8)])
def test_a_turned_knee_has_the_same_values(block, measured, angles):
    """The same voxels in another place of the world: the axes are those of the bones."""
    labels, affine = block
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    turn[:3, 3] = (40, -90, 300)
    found = knee_biomarkers(labels, turn @ affine, BLOCK_CLASSES)
    assert_values(found, {name: value.value for name, value in measured.items()}, scale=0.7)


def test_a_knee_that_lies_obliquely_in_its_volume():
    turn = Rotation.from_euler("xyz", (6, -7, 8), degrees=True).as_matrix()
    assert_values(knee_biomarkers(*block_labels(turn=turn), BLOCK_CLASSES), BLOCK_KNEE, scale=1.7)


def test_a_mirrored_knee_is_one_of_the_other_side(block):
    labels, affine = block
    mirror = np.diag([-1.0, 1, 1, 1])
    placed: tuple = ((affine, "right"), (mirror @ affine, "left"))
    right, left = (knee_biomarkers(labels, matrix, BLOCK_CLASSES, side) for matrix, side in placed)
    for name, value in right.items():
        assert left[name].value == pytest.approx(value.value, abs=0.02), name


def test_a_structure_that_is_absent_is_named(block, measured):
    labels, affine = block
    found = knee_biomarkers(np.where(labels == 2, 0, labels), affine, BLOCK_CLASSES)
    assert math.isnan(found["tibial_width_mm"].value)
    assert found["tibial_width_mm"].reason == found["insall_salvati_ratio"].reason == "tibia: it is empty"
    assert found["notch_width_mm"] == measured["notch_width_mm"]
    assert found["patellar_width_mm"] == measured["patellar_width_mm"]
    found = knee_biomarkers(labels, affine, {2: "Tibia", 3: "patella"})
    assert found["patellar_width_mm"].reason == "femur: no structure has this name"
    assert found["tibial_width_mm"] == measured["tibial_width_mm"]


def without_bottom(labels, affine, depth):
    """The block knee, cut so many mm below its plateaus."""
    cut = int((60 - depth) / BLOCK_SPACING[2])
    moved = affine.copy()
    moved[2, 3] += cut * BLOCK_SPACING[2]
    return labels[:, :, cut:], moved


def test_what_the_field_of_view_cuts_is_not_measured(block, measured):
    labels, affine = block
    narrow = labels[: int(96 / BLOCK_SPACING[0])]  # 2 mm within the right walls of femur and tibia
    found = knee_biomarkers(narrow, affine, BLOCK_CLASSES)
    assert found["bicondylar_width_mm"].reason == "femur: the field of view cuts it there"
    assert found["tibial_width_mm"].reason == "tibia: the field of view cuts it there"
    found = knee_biomarkers(*without_bottom(labels, affine, 30), BLOCK_CLASSES)
    assert found["tibial_slope_towards_left_deg"].reason == "tibia: too little of its shaft is in view for its axis"
    assert found["notch_width_mm"].value == pytest.approx(measured["notch_width_mm"].value, abs=0.01)
    front = labels[:, : int(100 / BLOCK_SPACING[1])]  # through the patella, at y = 50
    found = knee_biomarkers(front, affine, BLOCK_CLASSES)
    assert found["patellar_thickness_mm"].reason == "patella: the field of view cuts it there"
    assert found["tibial_width_mm"].reason == ""


def test_a_tibia_that_ends_above_the_end_of_the_tuberosity_has_no_ratio(block):
    labels, affine = block
    # enough for the axis, too little for the tuberosity
    found = knee_biomarkers(*without_bottom(labels, affine, 47), BLOCK_CLASSES)
    assert found["tibial_slope_towards_left_deg"].value == pytest.approx(SLOPES[0], abs=0.8)
    assert found["insall_salvati_ratio"].reason == "tibia: too little of its front is in view for the tuberosity"


def test_a_flat_front_has_no_tuberosity(block):
    labels, affine = block
    y, z = (affine[i, 3] + BLOCK_SPACING[i] * np.arange(labels.shape[i]) for i in (1, 2))
    flat = np.where((labels == 2) & (y[:, None] > 19.9) & (z < -28), 0, labels)
    found = knee_biomarkers(flat, affine, BLOCK_CLASSES)
    assert found["insall_salvati_ratio"].reason == "tibia: no tuberosity stands out"
    assert found["patellar_height_mm"].value == pytest.approx(36, abs=0.8)


def test_a_femur_without_a_notch(block):
    labels, affine = block
    filled = labels.copy()
    x, y, z = (affine[i, 3] + BLOCK_SPACING[i] * np.arange(labels.shape[i]) for i in range(3))
    x, y, z = x[:, None, None], y[None, :, None], z[None, None, :]
    filled[(np.abs(x) < 20) & (y**2 + (z - 20) ** 2 < 400)] = 1
    found = knee_biomarkers(filled, affine, BLOCK_CLASSES)
    assert found["notch_width_mm"].reason == "femur: no notch opens below the middle of that section"
    assert found["patellar_height_mm"].value == pytest.approx(36, abs=0.8)


def test_an_island_is_no_part_of_a_bone(block, measured):
    labels, affine = block
    islands = labels.copy()
    islands[2:5, 2:6, 2:6] = 1
    islands[-5:-2, 2:6, -9:-3] = 2
    islands[-5:-2, -9:-3, -9:-3] = 3
    assert knee_biomarkers(islands, affine, BLOCK_CLASSES) == measured


def test_any_structure_has_a_size(block):
    labels, affine = block
    found = all_biomarkers(labels, affine, {1: "femur", 7: "meniscus"})
    assert found["femur", "volume_cm3"].value == pytest.approx((labels == 1).sum() * math.prod(BLOCK_SPACING) / 1000)
    assert found["meniscus", "volume_cm3"].reason == "it is empty"
    assert found["knee", "tibial_width_mm"].reason == "tibia: no structure has this name"
    assert {structure for structure, _ in all_biomarkers(labels, affine, {1: "liver"})} == {"liver"}
    full = structure_biomarkers(np.ones((4, 4, 4), bool), (1.0, 1.0, 1.0))
    assert full["inscribed_radius_mm"].reason == "it fills the volume"
    assert list(full) == [definition.name for definition in SHAPE_BIOMARKERS]


def test_the_side_follows_from_landmarks():
    anatomy = make_anatomy(3)
    assert side_of(landmarks(anatomy)) == ("right" if anatomy.side > 0 else "left")
    assert side_of({"notch_roof": (0, 0, 0), "medial_plateau": (1, 2, 3)}) is None
    with pytest.raises(ValueError, match="side must be"):
        measure_bones({"femur": "", "tibia": "", "patella": ""}, "medial")


def test_the_table_has_a_line_for_each():
    lines = biomarker_table().splitlines()[2:]
    assert len(lines) == len(SHAPE_BIOMARKERS) + len(KNEE_BIOMARKERS)
    assert all(line.count(" | ") == 5 for line in lines)
    assert all(definition.source for definition in KNEE_BIOMARKERS)


def square(size=2.0, hole=0.0):
    """A square about (1, 0), the bone on its left, and a square hole, the bone around it."""
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
    outer, inner = corners * size, corners[::-1] * hole
    rings = [np.stack([ring, np.roll(ring, -1, axis=0)], axis=1) for ring in (outer, inner)]
    return Section(np.concatenate(rings[: 1 + bool(hole)]) + [1, 0])


def test_a_section_by_hand():
    section = square(4, hole=2)
    assert section.area == pytest.approx(12)
    np.testing.assert_allclose(section.centroid, (1, 0))
    np.testing.assert_allclose(section.crossings(1, 0.5), (-1, 0, 2, 3))
    np.testing.assert_allclose(section.crossings(0, 2.5), (-2, 2))
    np.testing.assert_allclose(square().rays(np.array([1.0, 0]), np.array([(0.0, 1), (-1, 0)])), [(1, 1), (0, 0)])
    wide = Section(square().segments * [3, 1])
    np.testing.assert_allclose(np.abs(wide.long_axis), (1, 0), atol=1e-9)
    assert not Section(square().segments[:3]).is_closed


@pytest.mark.parametrize("mirror", [1, -1])
def test_a_section_of_a_label_is_that_of_the_shape(mirror):
    z = np.indices((30, 40, 50)).transpose(1, 2, 3, 0) * (1.5, 1.0, 0.8) - (22, 20, 20)
    mask = np.linalg.norm(z, axis=-1) < 14
    affine = np.diag([1.5 * mirror, 1.0, 0.8, 1])
    affine[:3, 3] = (-22 * mirror, -20, -20)
    u, v = np.array([0.6, 0.8, 0]), np.array([0, 0, 1.0])
    bone = LabelBone(mask, (1.5, 1.0, 0.8), affine)
    section = bone.section(5 * np.cross(u, v), u, v)
    assert section.area == pytest.approx(math.pi * (14**2 - 5**2), rel=0.02)  # positive: the bone on the left
    np.testing.assert_allclose(section.centroid, (0, 0), atol=0.2)
    assert bone.covariance().trace() == pytest.approx(3 / 5 * 14**2, rel=0.02)


@pytest.fixture(scope="module")
def plain():
    """The mean knee without relief: what its parameters say must be found."""
    smooth = Waves(np.zeros((0, 3)), np.zeros(0), np.zeros(0))

    def bone(shape, origin):
        return Bone(shape, origin, np.eye(3), np.ones(3), smooth)

    return Anatomy(bone(Femur(), (0, 0, 0)), bone(Tibia(), (0, 0, -12)), bone(Patella(), (0, 46, 30)), 1, 1.0, 4.0)


def test_exact_biomarkers_are_those_of_the_parameters(plain):
    found = {name: value.value for name, value in exact_biomarkers(plain).items()}
    femur, tibia, patella = Femur(), Tibia(), Patella()
    # the notch in the section at y ≈ −7.3, 15.2 mm above the condyles' lowest points: see femur_field
    above = 0.86 * (15.2 - (femur.notch_roof + femur.notch_slope * 7.3) + femur.notch_halfwidth)
    assert found["notch_width_mm"] == pytest.approx(2 * math.sqrt(femur.notch_halfwidth**2 - above**2), abs=1)
    assert 72 < found["bicondylar_width_mm"] < 2 * femur.epicondyle_x  # its section is not the widest
    assert found["posterior_radius_medial_mm"] == pytest.approx(femur.medial_posterior_radius, abs=0.8)
    assert found["posterior_radius_lateral_mm"] == pytest.approx(femur.lateral_posterior_radius, abs=0.8)
    assert 76 < found["tibial_width_mm"] < 2 * tibia.plateau_x  # its upper rim is rounded
    assert found["patellar_height_mm"] == pytest.approx(2 * patella.half_z, abs=1.5)
    widths = sum(found[f"{part}_mm"] for part in ("condyle_width_medial", "notch_width", "condyle_width_lateral"))
    assert widths == pytest.approx(found["bicondylar_width_mm"])


def test_an_exact_bone_is_measured_on_its_surface(plain):
    bone = ExactBone(plain.femur, "femur")
    points = bone.points
    assert len(points) > 20_000
    volume, surface = exact_size(plain.patella, np.array([-40.0, 10, -10]), np.array([40.0, 70, 70]))
    coarse = exact_size(plain.patella, np.array([-40.0, 10, -10]), np.array([40.0, 70, 70]), 1.1)
    assert coarse == pytest.approx((volume, surface), rel=0.01)
    section = bone.section(np.array([0, 0, 70.0]), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]))
    assert section.is_closed
    # the shaft: a superellipse of power 2.4 with half axes of 17.5 and 15.2 mm, and a little of the flare
    assert section.area == pytest.approx(
        4 * 17.5 * 15.2 * math.gamma(1 + 1 / 2.4) ** 2 / math.gamma(1 + 2 / 2.4), rel=0.05
    )


@pytest.mark.parametrize("subject", range(3))
def test_a_section_of_an_exact_bone_is_that_of_the_whole_plane(subject, monkeypatch):
    """Of a section few points are taken where the surface is not near; its curves are those of all points."""
    anatomy = make_anatomy(subject)
    rng = np.random.default_rng(subject)
    for name, bone in zip(("femur", "tibia", "patella"), anatomy.bones, strict=True):
        exact = ExactBone(bone, name)
        u, v, _ = np.linalg.qr(rng.normal(size=(3, 3)))[0].T
        origin = exact.points.mean(axis=0) + rng.normal(0, 5, 3)
        found = exact.section(origin, u, v)
        with monkeypatch.context() as patch:
            patch.setattr(phantom_biomarkers, "_EVERY", 1)
            whole = exact.section(origin, u, v)
        assert len(whole.segments) > 100
        np.testing.assert_allclose(found.segments, whole.segments, atol=1e-9)


@pytest.mark.parametrize(("subject", "degrees"), [(13, 1.5), (31, 1.5)])
def test_the_tibia_s_axis_is_sure_at_coarse_voxels(subject, degrees):
    """Knees 14 and 32 of the default profile, whose axis from one sagittal section was 4.6° and 3.3° off."""
    options = PhantomOptions(shape=(28, 72, 92), spacing=(3.4, 1.5, 1.5))
    knee = make_knee(subject, options)
    exact = _tibia_frame(ExactBone(knee.anatomy.tibia, "tibia")).frame.up
    found = _tibia_frame(LabelBone(knee.exact == 2, options.spacing, options.affine)).frame.up
    assert math.degrees(math.acos(float(exact @ found))) < degrees


def test_every_biomarker_is_compared_with_its_exact_value():
    """In the committed benchmark: each definition, of each bone, at each voxel size, with an exact value."""
    table = pd.read_csv(ROOT / "reproduce" / "benchmarks" / "biomarkers.csv")
    expected = {("knee", name) for name in biomarker_names("left")}
    expected |= {(bone, definition.name) for bone in BLOCK_CLASSES.values() for definition in SHAPE_BIOMARKERS}
    known = table["exact"].notna().groupby(table["biomarker"]).agg(["all", "sum"])
    tuberosity = known.index == "insall_salvati_ratio"  # which does not stand out in each knee
    assert known["all"][~tuberosity].all()
    assert known["sum"][tuberosity].item() >= 5 * table["spacing"].nunique()
    for spacing, rows in table.groupby("spacing"):
        assert set(zip(rows["structure"], rows["biomarker"], strict=True)) == expected, spacing
        measured = rows.groupby(["structure", "biomarker"])["measured"].count()
        assert measured.min() >= 2, (spacing, measured.idxmin())


def test_the_exact_shape_of_a_ball_that_a_box_cuts(monkeypatch, plain):
    """A ball of 20 mm in place of the patella, cut 10 mm above its middle: every value by hand."""
    ball = replace(plain.patella, origin=(0, 0, 0))
    monkeypatch.setitem(anatomy_module._FIELDS, Patella, lambda p, _: np.sqrt(sum(c**2 for c in p)) - 20)
    volume, area = math.pi * 30**2 * (60 - 30) / 3, 2 * math.pi * 20 * 30
    cut = math.pi * (400 - 100)
    found = exact_shape(ball, "patella", np.array([-30.0, -30, -30]), np.array([30.0, 30, 10]))
    sphericity = math.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / (area + cut)
    expected = (volume / 1000, area / 100, sphericity, 40, 40, 30, 20)
    assert list(found.values()) == pytest.approx(expected, rel=0.01)
    assert list(found) == [definition.name for definition in SHAPE_BIOMARKERS]


def test_measured_on_voxels_it_is_nearly_the_exact_value():
    anatomy = make_anatomy(0)
    side = "right" if anatomy.side > 0 else "left"
    knee = make_knee(0, PhantomOptions(shape=(75, 93, 93), spacing=(1.5, 1.5, 1.5)))
    found, exact = knee_biomarkers(knee.exact, knee.affine, BLOCK_CLASSES, side), exact_biomarkers(anatomy)
    assert list(found) == list(exact)
    allowed = {"mm": 1.6, "1": 0.08, "°": 1.5}
    for name, value in exact.items():
        assert found[name].value == pytest.approx(value.value, abs=allowed[biomarker_unit(name)]), name
