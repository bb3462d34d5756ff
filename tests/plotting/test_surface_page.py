"""The page that turns surfaces: what it packs is what it got, and it needs nothing else."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import pyvista as pv
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from shapeloss.metrics.mesh import surface_error
from shapeloss.plotting.style import SIGNED_ERROR_MAP
from shapeloss.plotting.surface_page import (
    STEP_MM,
    TRUTH,
    _text,
    deviation,
    pack,
    reduce_surface,
    surface_page,
    unpack,
)


def ball(radius, shift=0.0, fine=40):
    """A sphere that is moved along x; its error against the sphere of 20 mm around the origin is known exactly."""
    mesh = pv.Sphere(radius=radius, center=(shift, 0, 0), theta_resolution=fine, phi_resolution=fine)
    mesh["error_mm"] = np.linalg.norm(mesh.points, axis=1) - 20
    mesh["region"] = (mesh.points[:, 2] > 0).astype(int)
    return mesh


def rows(case, loss="ce", **values):
    errors = {"mean_mm": 0.5, "p95_mm": 1.0, "max_mm": 2.0} | values
    return [
        {"case": case, "loss": loss, "structure": "femur", "region": region, **errors} for region in ("low", "high")
    ]


@pytest.fixture
def arguments(tmp_path):
    Image.new("RGB", (40, 30), "white").save(tmp_path / "picture.png")
    return {
        "meshes": {TRUTH: {"femur": ball(20)}, "dpce": {"femur": ball(20, 2)}, "ce": {"femur": ball(21)}},
        "regions": {"femur": ("low", "high")},
        "table": pd.DataFrame(rows("a") + rows("b", mean_mm=1.5) + rows("a", "dpce") + rows("b", "dpce")),
        "case": "a",
        "picture": tmp_path / "picture.png",
    }


def data_of(page):
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)[1])


@given(arrays(np.int64, st.tuples(st.integers(0, 30), st.integers(1, 3)), elements=st.integers(0, 65535)))
def test_packed_numbers_come_back(values):
    if values.size:
        assert (unpack(pack(values), values.shape[1]) == values).all()


def test_negative_numbers_come_back_and_large_ones_are_refused():
    values = np.array([-32768, 32767, 0, -1])
    assert (unpack(pack(values), 1)[:, 0].view(np.int16) == values).all()
    with pytest.raises(ValueError, match="must fit 16 bits, got 0 … 70000"):
        pack(np.array([0, 70000]))


def test_points_and_errors_are_rounded_by_half_a_step_at_most(arguments):
    data = data_of(surface_page(**arguments))
    assert data["step"] == STEP_MM
    assert [surface["key"] for surface in data["surfaces"]] == [TRUTH, "dpce", "ce"]
    mesh = arguments["meshes"]["dpce"]["femur"]
    packed = data["surfaces"][1]["meshes"][0]
    points = np.array(data["origin"]) + unpack(packed["points"], 3) * data["step"]
    assert np.abs(points - mesh.points).max() <= STEP_MM / 2 + 1e-5  # points have single precision
    errors = unpack(packed["errors"], 1)[:, 0].view(np.int16) * data["step"]
    assert np.abs(errors - mesh["error_mm"]).max() <= STEP_MM / 2 + 1e-5
    assert (unpack(packed["regions"], 1)[:, 0] == mesh["region"]).all()
    triangles = unpack(packed["triangles"], 3)
    assert sorted(map(tuple, triangles.tolist())) == sorted(map(tuple, mesh.regular_faces.tolist()))


def test_a_case_too_large_for_the_step_gets_a_coarser_one(arguments):
    far = pv.Sphere(radius=2, center=(0, 0, 900))
    far["error_mm"], far["region"] = np.full(far.n_points, 880.0), np.ones(far.n_points, int)
    arguments["meshes"]["ce"] = {"femur": far}
    data = data_of(surface_page(**arguments))
    assert STEP_MM < data["step"] < 0.05
    errors = unpack(data["surfaces"][2]["meshes"][0]["errors"], 1)[:, 0].view(np.int16) * data["step"]
    assert errors == pytest.approx(880, abs=data["step"])


def test_the_page_needs_nothing_else(arguments):
    page = surface_page(**arguments)
    assert len(page) < 10e6
    assert not re.search(r"https?://|url\(|@import|<link[^>]+href=\"(?!data:)|src=\"(?!data:)", page)
    assert 'src="data:image/webp;base64,' in page  # the picture, for print and for old browsers


def test_names_are_text_and_not_markup(arguments):
    name = "</script><b>a"
    table = arguments["table"].replace({"case": {"a": name}})
    page = surface_page(**{**arguments, "table": table, "case": name, "notes": ["<i>"]})
    assert "</script><b>" not in page
    assert "&lt;i&gt;" in page
    assert data_of(page)["case"] == name


def test_the_table_holds_this_volume_and_all(arguments):
    page = surface_page(**arguments)
    tables = re.findall(r'data-scope="(\w+)" data-statistic="(\w+)"', page)
    statistics = ["mean_mm", "p95_mm", "max_mm"]
    assert tables == [(scope, name) for scope in ("case", "all") for name in statistics]
    first, *_, last = re.findall(r"<tbody>(.*?)</tbody>", page, re.S)
    assert re.findall(r"<td>(.*?)</td>", first) == ["0.50"] * 4
    assert re.findall(r"<td>(.*?)</td>", last) == ["2.00 ± 0.00"] * 4
    assert "1.00 ± 0.71" in page  # of 0.5 and 1.5


def test_a_missed_structure_is_said():
    assert _text(pd.Series([np.inf])) == "missed"
    assert _text(pd.Series([1.0, np.inf, 2.0])) == "1.50 ± 0.71 (1 missed)"


def test_a_prediction_without_a_surface_can_be_shown(arguments):
    arguments["meshes"]["ce"] = {"femur": pv.PolyData()}
    assert data_of(surface_page(**arguments))["surfaces"][2]["meshes"][0]["points"] == ""


def test_sides_are_medial_and_lateral_where_that_is_known(arguments):
    views = data_of(surface_page(**arguments, right_is="medial"))["views"]
    assert views["medial"] == [90, 0]
    assert views["lateral"] == [-90, 0]
    assert data_of(surface_page(**arguments))["views"]["left"] == [-90, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"meshes": {TRUTH: {}}}, "at least one loss, with surfaces"),
        ({"meshes": {TRUTH: {"femur": pv.Sphere()}, "ce": {}}}, "point arrays 'error_mm' and 'region'"),
        ({"case": "z"}, "must have rows of the case that is shown, z"),
    ],
)
def test_what_cannot_be_shown_is_refused(arguments, change, message):
    with pytest.raises(ValueError, match=message):
        surface_page(**{**arguments, **change})


def test_a_reduced_surface_is_near_the_full_one():
    truth, full = ball(20, fine=200), ball(21, 2, fine=200)
    reduced = reduce_surface(full, 0.1)
    assert reduced.n_cells == pytest.approx(0.1 * full.n_cells, rel=0.02)
    moved, changed = deviation(full, reduced, lambda mesh: surface_error(mesh, truth)).T
    assert moved.max() < 0.05
    assert changed.max() < 0.06
    # a value that is 1 mm too large everywhere is seen as that
    off = deviation(full, reduced, lambda mesh: surface_error(mesh, truth) + (mesh is not reduced))
    assert off[:, 1].mean() == pytest.approx(1, abs=0.02)
    assert reduce_surface(full, 1.0).n_cells == full.n_cells
    assert reduce_surface(pv.PolyData(), 0.1).n_points == 0


def test_zero_is_the_lightest_colour_of_the_signed_map_and_both_arms_darken():
    lightness = SIGNED_ERROR_MAP(np.arange(256))[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert lightness.argmax() in (127, 128)
    assert (np.diff(lightness[:128]) > 0).all()
    assert (np.diff(lightness[128:]) < 0).all()
    inside, outside = SIGNED_ERROR_MAP([48, 207])[:, :3]
    assert inside[2] > inside[0]  # blue
    assert outside[0] > outside[2]  # red
