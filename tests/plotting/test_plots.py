"""Figures: what they show, in which place and colour, and that equal input gives equal files."""

from __future__ import annotations

import struct
from functools import partial
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import pyvista as pv
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from skimage.color import rgb2lab

from shapeloss.distance import distance_penalty, weight_near_boundary
from shapeloss.metrics.mesh import label_surface, surface_error
from shapeloss.plotting import charts, curves, slices, style, surface_maps
from shapeloss.plotting.render import render_surfaces, view_plane, widest_view
from shapeloss.replication import figures as replication_figures
from shapeloss.replication.paper import read_paper
from shapeloss.review.audit import figures as audit_figures

SPACING = (4.0, 1.5, 1.0)
NAMES = {1: "femur", 2: "tibia"}


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch):
    """Meshes are drawn with few pixels, to save time."""
    monkeypatch.setattr(surface_maps, "render_surfaces", partial(render_surfaces, longest_side=150))


def volume(classes=2, shape=(6, 20, 24)):
    """Blocks one above the other, one per class, in the slices 2 to 5 of 6."""
    labels = np.zeros(shape, np.uint8)
    step = shape[2] // classes
    for label in range(1, classes + 1):
        labels[2:, 6:14, (label - 1) * step + 1 : label * step - 1] = label
    image = np.random.default_rng(0).normal(size=shape) + 3 * labels
    return image, labels


def maps(classes=2, **changes):
    image, labels = volume(classes)
    phi = distance_penalty(labels, SPACING)
    return {
        "image": image,
        "labels": labels,
        "phi_by_compartment": [phi] * (classes + 1),
        "phi": phi,
        "spacing": SPACING,
        "class_names": {label: f"structure {label}" for label in range(1, classes + 1)},
    } | changes


def sphere(radius, error, center=(0, 0, 0)):
    mesh = pv.Sphere(radius=radius, center=center)
    mesh["error_mm"] = np.full(mesh.n_points, float(error))
    return mesh


def history(seeds=(0, 1)):
    return pd.DataFrame(
        [
            {"loss": loss, "seed": seed, "step": step, "train_loss": start / step, "val_dice": 1 - start / step}
            for loss, start in (("dpce", 2.0), ("dice", 1.0))
            for seed in seeds
            for step in (10, 20, 40)
        ]
    )


def scores():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {
                "case": f"c{case}",
                "loss": loss,
                "seed": seed,
                "boundary_dice_in_plane": rng.random(),
                "dice": rng.random(),
            }
            for loss in ("dpce", "dice", "ce")
            for seed in (0, 1)
            for case in range(4)
        ]
    )


def intervals(**changes):
    row = {"comparison": "a − b", "estimate": 0.1, "low": 0.05, "high": 0.2, "margin_low": -0.02, "margin_high": 0.02}
    return pd.DataFrame([row | changes])


def texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def png_size(path):
    return struct.unpack(">II", path.read_bytes()[16:24])


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: slices.figure_distance_maps(**maps()),
        lambda: charts.figure_scores(scores()),
        lambda: surface_maps.figure_surface_errors({"dpce": [sphere(5, 1)], "dice": []}),
    ],
)
def test_equal_figures_give_equal_files(make, tmp_path):
    figure = make()
    for name, drawn in (("a", figure), ("b", figure), ("c", make())):  # saved twice, and made twice
        paths = style.save_figure(drawn, tmp_path / name)
        assert [path.name for path in paths] == [f"{name}.png", f"{name}.pdf"]
    for ending in ("png", "pdf"):
        first, second, third = ((tmp_path / f"{name}.{ending}").read_bytes() for name in "abc")
        assert first == second == third
    width, height = figure.get_size_inches()
    np.testing.assert_allclose(png_size(tmp_path / "a.png"), (width * 200, height * 200), atol=1)
    assert b"CreationDate" not in (tmp_path / "a.pdf").read_bytes()
    assert b"atplotlib" not in (tmp_path / "a.pdf").read_bytes()
    assert b"Software" not in (tmp_path / "a.png").read_bytes()


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_text("old")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(style, "_rendered", interrupted)
    with pytest.raises(KeyboardInterrupt):
        style.save_figure(charts.figure_intervals(intervals()), tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_text(encoding="utf-8") == "old"


def test_a_notebook_shows_what_is_saved(tmp_path):
    figure = charts.figure_intervals(intervals())
    assert figure._repr_png_() == style.save_figure(figure, tmp_path / "a")[0].read_bytes()


def test_the_callers_style_stays():
    with matplotlib.rc_context({"font.size": 31}):
        before = dict(matplotlib.rcParams)
        figure = curves.figure_training(history())
        assert dict(matplotlib.rcParams) == before
        assert figure.axes[0].xaxis.label.get_fontsize() == 11


# --- colours ---------------------------------------------------------------------------------------------------------


def test_each_loss_and_bone_has_its_colour():
    assert [style.loss_color(key) for key in ("dpce", "dice", "pcol", "focal", "ce")] == [
        "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9",
    ]  # fmt: skip
    colors = [color for _, color in style.LOSSES.values()]
    assert len(set(colors)) == len(colors)
    assert style.loss_color("mine:Loss") == style.loss_color("mine:Loss") in style.OTHER_LOSSES
    assert style.loss_name("package.module:MyLoss") == "MyLoss"
    assert style.structure_color(1, "Femur") == style.structure_color(7, "femur") == style.BONES["femur"]
    assert style.structure_color(1, "Anterior") != style.structure_color(2, "Posterior")


def test_every_loss_has_a_name_and_a_colour():
    from shapeloss.losses import LOSSES

    assert set(LOSSES) <= set(style.LOSSES)


def test_colours_go_with_losses_and_not_with_their_order():
    for table in (history(), history().iloc[::-1]):
        figure = curves.figure_training(table)
        colors = {t.get_text().split("  ")[0]: to_hex(t.get_color()) for t in figure.axes[1].texts}
        assert colors == {"Distance-penalised CE": "#d55e00", "Dice": "#0072b2"}


def test_the_error_map_is_perceptually_uniform():
    lab = rgb2lab(style.ERROR_MAP(np.arange(256))[None, :, :3])[0]
    steps = np.linalg.norm(np.diff(lab, axis=0), axis=1)
    assert steps.max() / steps.min() < 1.02
    assert (np.diff(lab[:, 0]) < 0).all()  # ever darker: it reads in grey too


# --- slices ----------------------------------------------------------------------------------------------------------


def test_the_central_slice_shows_most_structures():
    labels = np.zeros((9, 4, 4), int)
    assert slices.central_slice(labels) == 4
    labels[6:, 0, 0] = 1
    assert slices.central_slice(labels) == 6
    labels[8, 1, 1] = 2
    assert slices.central_slice(labels) == 8


def test_slices_have_anterior_on_the_left_superior_on_top_and_true_proportions():
    arguments = maps()
    arguments["image"][3] = 0
    arguments["image"][3, -1, -1] = 9  # the most anterior and superior voxel
    axes = slices.figure_distance_maps(**arguments, slice_index=3).axes[0]
    shown = axes.images[0]
    assert shown.origin == "lower"
    assert np.argwhere(shown.get_array() == 9).tolist() == [[23, 0]]  # the last row is the top one
    assert shown.get_extent() == [0, 20 * 1.5, 0, 24 * 1.0]
    assert axes.get_aspect() == 1
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert places["A"][0] < 0.5 < places["P"][0]
    assert places["I"][1] < 0.5 < places["S"][1]


@pytest.mark.parametrize(
    ("axis", "plane", "extent", "corner", "letters"),
    [
        (0, "sagittal", (20 * 1.5, 24 * 1.0), (3, -1, -1), "APSI"),  # the far corner is on the left and on top
        (1, "coronal", (6 * 4.0, 24 * 1.0), (-1, 3, -1), "RLSI"),
        (2, "axial", (6 * 4.0, 20 * 1.5), (-1, -1, 3), "RLAP"),
    ],
)
def test_slices_of_each_plane_lie_as_radiologists_see_them(axis, plane, extent, corner, letters):
    arguments = maps()
    arguments["image"][corner] = 99
    figures = {
        "maps": slices.figure_distance_maps(**arguments, slice_index=3, slice_axis=axis),
        "predictions": slices.figure_predictions(
            arguments["image"], arguments["labels"], {"ce": arguments["labels"]}, SPACING, 3, slice_axis=axis
        ),
    }
    for figure in figures.values():
        axes = figure.axes[0]
        shown = axes.images[0]
        assert np.argwhere(shown.get_array() == 99).tolist() == [[shown.get_array().shape[0] - 1, 0]]
        assert shown.get_extent() == [0, extent[0], 0, extent[1]]
        places = {text.get_text(): text.get_position() for text in axes.texts}
        assert [*places] == [*letters]
        left, right, top, bottom = (places[letter] for letter in letters)
        assert left[0] < 0.5 < right[0]
        assert bottom[1] < 0.5 < top[1]
    count = arguments["labels"].shape[axis]
    assert f"Mask, {plane} slice 4 of {count}" in texts(figures["maps"])
    assert f"{plane.capitalize()} slice 4 of {count}." in " ".join(figures["predictions"]._supxlabel.get_text().split())


def test_without_an_axis_slices_lie_across_the_coarsest_side():
    image, labels = volume()
    phi = distance_penalty(labels, (1.0, 1.0, 3.0))
    for spacing, plane in (((3.0, 1.0, 1.0), "sagittal"), ((1.0, 3.0, 1.0), "coronal"), ((1.0, 1.0, 3.0), "axial")):
        figure = slices.figure_distance_maps(image, labels, [phi] * 3, phi, spacing, NAMES)
        assert any(text.startswith(f"Mask, {plane} slice") for text in texts(figure))
    with pytest.raises(ValueError, match="slice_axis must be 0, 1, 2 or None, got 3"):
        slices.figure_distance_maps(image, labels, [phi] * 3, phi, SPACING, NAMES, slice_axis=3)
    variants = slices.figure_variants({"a": phi}, labels, SPACING, slice_axis=2)
    assert variants.axes[0].images[0].get_array().shape == (20, 6)


def test_the_central_slice_along_another_axis():
    labels = np.zeros((4, 9, 5), int)
    labels[0, 6, 0], labels[1, 6, 1], labels[2, 2, 2] = 1, 2, 1
    assert slices.central_slice(labels, 1) == 6
    assert slices.central_slice(labels, 2) == 2


def test_structures_that_the_slice_does_not_show_are_named_and_have_no_panel():
    arguments = maps(2)
    arguments["labels"][0, 0, 0] = 3  # not on the slices that show the most
    arguments["class_names"] |= {3: "patella", 4: "fibula"}
    arguments["phi_by_compartment"] = [arguments["phi"]] * 5
    figure = slices.figure_distance_maps(**arguments, slice_index=3)
    maps_shown = [axes for axes in figure.axes if len(axes.images) == 2 and axes.images[1].get_clim() == (0, 1)]
    assert [axes.texts[0].get_text() for axes in maps_shown] == ["structure 1", "structure 2", "background"]
    note = "Grey: outside the compartment. Not on this slice: patella. Absent from this volume: fibula."
    assert figure._supxlabel.get_text() == note
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["structure 1", "structure 2"]
    assert slices.figure_distance_maps(**maps(2))._supxlabel.get_text() == "Grey: outside the compartment."


@pytest.mark.parametrize("classes", [1, 2, 3, 5])
def test_distance_maps_of_any_number_of_classes(classes):
    figure = slices.figure_distance_maps(**maps(classes))
    compartments = figure.axes[1:-2] if len(figure.axes) > classes + 3 else figure.axes[1 : classes + 2]
    assert len(compartments) == classes + 1
    for axes, label in zip(compartments, [*range(1, classes + 1), 0], strict=True):
        shown = axes.images[1].get_array()
        inside = np.equal(volume(classes)[1][2, ::-1, :].T, label)
        np.testing.assert_array_equal(np.isfinite(np.ma.filled(shown, np.nan)), inside)  # each in its own compartment
        assert axes.images[1].get_clim() == (0, 1)
    assert {f"structure {label}" for label in range(1, classes + 1)} | {"background"} <= set(texts(figure))


def test_the_boundary_is_drawn_between_the_voxels():
    figure = slices.figure_distance_maps(**maps(1))
    combined = next(axes for axes in figure.axes if axes.get_title(loc="left").startswith("Combined"))
    points = np.concatenate([path.vertices for path in combined.collections[0].get_paths()])
    # the block holds the voxels 6 to 13 of 20 along Y, seen from the front: (20 − 14) to (20 − 6) times 1.5 mm
    np.testing.assert_allclose((points[:, 0].min(), points[:, 0].max()), (9, 21))
    np.testing.assert_allclose((points[:, 1].min(), points[:, 1].max()), (1, 23))
    np.testing.assert_allclose(combined.collections[0].get_edgecolor()[0], (1, 1, 1, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slice_index": 6}, "slice_index must be from 0 to 5"),
        ({"phi": np.zeros((6, 20, 23))}, "every volume must have the shape"),
        ({"labels": np.zeros((20, 24), int)}, "labels must be"),
        ({"spacing": (1.0, 1.0)}, "three spacings"),
    ],
)
def test_volumes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        slices.figure_distance_maps(**maps(**changes))


def test_an_empty_label_map_can_be_drawn(tmp_path):
    image, labels = volume()
    empty = np.zeros_like(labels)
    phi = distance_penalty(empty, SPACING)
    style.save_figure(slices.figure_distance_maps(image, empty, [phi] * 3, phi, SPACING, NAMES), tmp_path / "a")
    style.save_figure(slices.figure_predictions(image, empty, {"ce": empty}, SPACING), tmp_path / "b")


def test_readings_are_tabulated():
    _, labels = volume()
    variants = {"none": np.zeros(labels.shape), "default": distance_penalty(labels, SPACING)}
    figure = slices.figure_variants(variants, labels, SPACING)
    share, mean = weight_near_boundary(variants["default"], labels, SPACING, within=2.0)
    (table,) = figure.axes[-1].tables
    cells = [[table[row, column].get_text().get_text() for column in range(4)] for row in (1, 2)]
    assert cells[0][:3] == ["none", "0", "1.00"]  # φ = 0 weighs every voxel 1
    assert cells[1] == ["default", "1", f"{mean:.2f}", f"{100 * share:.1f} %"]
    with pytest.raises(ValueError, match="phi_by_variant must hold"):
        slices.figure_variants({}, labels, SPACING)


def test_readings_of_one_unit_share_a_scale_and_what_is_left_out_is_grey():
    _, labels = volume()
    options = {
        "both": {},
        "mm": {"unit": "mm"},
        "inside": {"sides": "inside"},
        "mm_inside": {"sides": "inside", "unit": "mm"},
    }
    variants = {name: distance_penalty(labels, SPACING, **values) for name, values in options.items()}
    figure = slices.figure_variants(variants, labels, SPACING, in_mm=["mm", "mm_inside"])
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.images}
    assert list(panels) == ["both", "inside", "mm", "mm_inside"]  # by unit
    limits = {name: axes.images[0].get_clim() for name, axes in panels.items()}
    assert limits["both"] == limits["inside"] == (0, 1)
    assert limits["mm"] == limits["mm_inside"] == (0, pytest.approx(float(variants["mm"].max())))
    bars = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert sorted(bars) == ["φ, mm", "φ, no unit"]
    index = slices.central_slice(labels)
    for name, axes in panels.items():
        colours, grey = (np.ma.getmaskarray(np.ma.masked_invalid(image.get_array())) for image in axes.images)
        outside = labels[index][::-1].T == 0
        assert (colours == (outside if "inside" in name else np.zeros_like(outside))).all(), name
        assert (grey == ~colours).all()  # the deepest voxel has φ = 0 too, but the colour of zero
    (note,) = [text.get_text() for sub in figure.subfigs for text in sub.texts if text.get_text()]
    assert note == "Darkest: farthest from a boundary. Grey: left out, φ = 0 throughout."
    bar, other = (axes for axes in figure.axes if axes.get_ylabel())
    assert bar.bbox.bounds == other.bbox.bounds  # one bar with both scales
    assert (bar.yaxis.get_ticks_position(), other.yaxis.get_ticks_position()) == ("right", "left")
    assert other.get_ylim() == (0, pytest.approx(float(variants["mm"].max())))


def test_predictions_are_outlined_in_the_colour_of_their_loss_and_gaps_are_noted():
    image, labels = volume()
    half = np.where(labels == 1, 1, 0)
    figure = slices.figure_predictions(image, labels, {"dpce": labels, "dice": half, "ce": 0 * labels}, SPACING)
    for axes, loss, outlines in zip(figure.axes, ("dpce", "dice", "ce"), (4, 3, 2), strict=True):
        assert len(axes.collections) == outlines
        assert to_hex(axes.collections[0].get_edgecolor()[0]) == "#ffffff"
        assert outlines == 2 or to_hex(axes.collections[-1].get_edgecolor()[0]) == style.loss_color(loss).lower()
    notes = [[text for text in texts(axes) if "missed" in text] for axes in figure.axes]
    assert notes == [[], ["1 of 2 structures missed"], ["missed"]]
    with pytest.raises(ValueError, match="predictions must hold"):
        slices.figure_predictions(image, labels, {}, SPACING)


# --- surfaces --------------------------------------------------------------------------------------------------------


def test_seen_from_behind_right_is_right():
    for direction, right, up in (
        ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
        ((0, 2, 0), (-1, 0, 0), (0, 0, 1)),
        ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
        ((0, 0, 1), (1, 0, 0), (0, 1, 0)),
    ):
        found = view_plane(direction)
        np.testing.assert_allclose(found[0], right, atol=1e-12)
        np.testing.assert_allclose(found[1], up, atol=1e-12)
    with pytest.raises(ValueError, match="direction must be"):
        view_plane((0, 0, 0))


def test_the_widest_view_is_that_of_the_largest_outline():
    def box(x, y, z, center=(0, 0, 0)):
        return pv.Cube(center=center, x_length=x, y_length=y, z_length=z).triangulate().subdivide(4)

    assert widest_view([sphere(5, 0)]) == (0, -1, 0)  # all alike
    assert widest_view([box(2, 20, 20)]) == (1, 0, 0)
    assert widest_view([box(20, 20, 2)]) == (0, 0, 1)
    assert widest_view([box(20, 2, 20)]) == (0, -1, 0)
    # two that hide each other from the right, where each of them is largest
    assert widest_view([box(8, 10, 20, (x, 0, 0)) for x in (-10, 10)]) == (0, -1, 0)
    assert widest_view([]) == widest_view([pv.PolyData()]) == (0, -1, 0)


def test_a_figure_says_its_view_and_its_note():
    flat = sphere(5, 1).scale((1, 1, 0.1))
    figure = surface_maps.figure_surface_errors({"dpce": [flat]}, note="Structures shown (1): liver.")
    assert "Distance of the predicted surface from the truth, superior view" in texts(figure)
    assert figure._supxlabel.get_text() == "Structures shown (1): liver."
    top = maps()
    whole = surface_maps.figure1(top, {"meshes": {"dpce": [flat]}})
    assert "Distance of the predicted surface from the truth, superior view" in texts(whole)


def test_far_parts_of_a_large_body_are_drawn():
    near, far = sphere(20, 2, center=(0, -1500, 0)), sphere(20, 2, center=(60, 1500, 0))
    picture, _ = draw([near, far], [near, far])
    columns = np.nonzero((picture < 250).any(axis=2))[1]
    assert columns.min() < 60
    assert columns.max() > 140


def draw(meshes, frame, direction=(0, -1, 0)):
    return render_surfaces(meshes, frame, "error_mm", (0, 2), style.ERROR_MAP, direction, longest_side=200)


def test_a_mesh_is_drawn_where_it_is():
    small = sphere(3, 0, center=(8, -5, 4))
    frame = [sphere(20, 0), small]
    picture, (left, right, bottom, top) = draw([small], frame)
    rows, columns = np.nonzero((picture < 250).any(axis=2))
    x = left + (columns + 0.5) / picture.shape[1] * (right - left)
    z = top - (rows + 0.5) / picture.shape[0] * (top - bottom)
    np.testing.assert_allclose((x.min(), x.max()), (5, 11), atol=0.4)
    np.testing.assert_allclose((z.min(), z.max()), (1, 7), atol=0.4)
    np.testing.assert_allclose((left, right, bottom, top), (-23, 23, -23, 23), atol=0.1)


def test_one_mesh_hides_another_that_lies_behind_it():
    behind, before = sphere(5, 2, center=(0, 20, 0)), sphere(5, 0, center=(0, -20, 0))
    (seen_from_behind, _), (from_the_front, _) = (draw([behind, before], [behind, before], (0, y, 0)) for y in (-1, 1))
    assert seen_from_behind[100, 100].sum() > 2 * from_the_front[100, 100].sum()  # pale without error, dark with it


def test_the_colour_is_the_absolute_error():
    frame = [sphere(10, 0)]
    pictures = {error: draw([sphere(10, error)], frame)[0] for error in (0, 1, -1, 2)}
    np.testing.assert_array_equal(pictures[1], pictures[-1])
    for error, picture in pictures.items():
        drawn, wanted = picture[100, 100] / 255, np.array(style.ERROR_MAP(abs(error) / 2)[:3])
        ratio = drawn / wanted  # the light dims all three channels alike
        assert np.ptp(ratio) < 0.15
        assert 0.6 < ratio.mean() < 1.2


def test_the_error_of_concentric_spheres_of_voxels_is_written_below_them():
    grid = np.stack(np.meshgrid(*[np.arange(n) * s for n, s in zip((13, 34, 50), SPACING, strict=True)], indexing="ij"))
    r = np.sqrt(((grid - np.array([24, 25, 24.5])[:, None, None, None]) ** 2).sum(axis=0))
    truth = label_surface(r <= 15, SPACING)
    meshes = {}
    for loss, radius in (("dpce", 15), ("dice", 16), ("focal", 14)):
        mesh = label_surface(r <= radius, SPACING)
        mesh["error_mm"] = surface_error(mesh, truth)
        meshes[loss] = [mesh]
    figure = surface_maps.figure_surface_errors(meshes)
    means = [float(text.split()[1]) for text in texts(figure) if text.startswith("mean")]
    np.testing.assert_allclose(means, (0, 1, 1), atol=0.12)
    pictures = [axes.images[0] for axes in figure.axes[:3]]
    assert len({tuple(picture.get_extent()) for picture in pictures}) == 1  # one place and scale for all
    assert "Distance of the predicted surface from the truth, posterior view" in texts(figure)


def test_missed_structures_are_said_and_nothing_crashes(tmp_path):
    meshes = {"dpce": [sphere(5, 1), pv.PolyData()], "dice": [pv.PolyData(), pv.PolyData()]}
    figure = surface_maps.figure_surface_errors(meshes)
    style.save_figure(figure, tmp_path / "a")
    assert [text for text in texts(figure) if "missed" in text] == ["1 of 2 structures missed", "missed"]
    nothing = surface_maps.figure_surface_errors({"dpce": [pv.PolyData()]})
    style.save_figure(nothing, tmp_path / "b")
    assert "missed" in texts(nothing)


def test_one_scale_for_all_losses():
    meshes = {"dpce": [sphere(5, 0.2)], "dice": [sphere(5, -3.1)]}
    assert surface_maps.figure_surface_errors(meshes).axes[-1].get_ylim() == (0, 3.5)
    assert surface_maps.figure_surface_errors(meshes, maximum_mm=2).axes[-1].get_ylim() == (0, 2)


def test_landmarks_are_marked_in_each_panel():
    meshes = {"dpce": [sphere(5, 1)], "dice": [sphere(5, 1)]}
    figure = surface_maps.figure_surface_errors(meshes, landmarks={"notch_roof": (1, 9, 3)}, direction=(0, 1, 0))
    for axes in figure.axes[:2]:
        assert next(text.xy for text in axes.texts if text.get_text() == "1") == (-1, 3)
    assert "1\u00a0notch\u00a0roof" in texts(figure)
    assert any("anterior view" in text for text in texts(figure))


def test_meshes_without_errors_are_refused():
    with pytest.raises(ValueError, match="error_mm"):
        surface_maps.figure_surface_errors({"dpce": [pv.Sphere()]})
    with pytest.raises(ValueError, match="meshes must hold"):
        surface_maps.figure_surface_errors({})


def test_figure_1_holds_both_parts(tmp_path):
    figure = surface_maps.figure1(maps(), {"meshes": {"dpce": [sphere(5, 1)], "dice": [sphere(5, 2)]}, "maximum_mm": 3})
    style.save_figure(figure, tmp_path / "figure1")
    found = texts(figure)
    assert {"Mask, sagittal slice 3 of 6", "Map of each compartment", "Dice", "mean 1.00 mm"} <= set(found)
    assert len(figure.subfigs) == 2


# --- tables ----------------------------------------------------------------------------------------------------------


def test_learning_curves():
    figure = curves.figure_training(history())
    left, right = figure.axes
    assert len(left.lines) == len(right.lines) == 2 * 3  # two seeds and their mean, for two losses
    for line in left.lines:
        np.testing.assert_allclose(line.get_ydata(), (1, (2 - 1) / (4 - 1), 0))  # 1/10, 1/20, 1/40, from 1 to 0
    np.testing.assert_allclose(right.lines[2].get_ydata(), (0.8, 0.9, 0.95))
    assert {"Dice  0.975", "Distance-penalised CE  0.950"} <= set(texts(figure))
    assert len(curves.figure_training(history(seeds=(0,))).axes[0].lines) == 2


def test_losses_are_drawn_in_the_order_of_the_table_on_every_processor():
    """A sort that is not stable orders equal steps as the processor's instructions will."""
    names = ("dice", "focal", "ce", "dpce", "pcol", "gdice", "topk", "tversky")
    rows = [
        {"loss": loss, "seed": 0, "step": step, "train_loss": 1 / step, "val_dice": 1 - 1 / step}
        for loss in names
        for step in range(50, 1250, 50)
    ]
    drawn = curves.figure_training(pd.DataFrame(rows)).axes[0].lines
    assert [line.get_color() for line in drawn] == [style.loss_color(loss) for loss in names]


def test_a_constant_training_loss_can_be_drawn():
    figure = curves.figure_training(history().assign(train_loss=1.0))
    assert all(np.isfinite(line.get_ydata()).all() for line in figure.axes[0].lines)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=15))
def test_labels_beside_curves_do_not_overlap(values):
    heights = sorted(values, reverse=True)
    moved = list(curves._spread(heights, gap=0.06))
    assert all(a - b > 0.0599 for a, b in pairwise(moved))
    assert min(moved) > -1e-9
    assert max(moved) < 1 + 1e-9


def test_labels_with_room_stay_in_place():
    assert list(curves._spread([0.9, 0.5, 0.2])) == [0.9, 0.5, 0.2]


def test_scores_are_case_means_joined_across_losses():
    table = scores()
    axes = charts.figure_scores(table).axes[0]
    by_case = table.groupby(["loss", "case"])["boundary_dice_in_plane"].mean()
    expected = by_case.unstack("loss")[["dpce", "dice", "ce"]].to_numpy()
    joined = np.array([line.get_ydata() for line in axes.lines[:4]])
    np.testing.assert_allclose(joined, expected)
    diamonds = [line for line in axes.lines if line.get_marker() == "D"]
    np.testing.assert_allclose([line.get_ydata()[0] for line in diamonds], expected.mean(axis=0))
    assert [to_hex(line.get_color()) for line in diamonds] == ["#d55e00", "#0072b2", "#56b4e9"]


def test_a_score_that_is_missing_is_counted():
    table = scores()
    table.loc[(table.loss == "dice") & (table.case == "c1"), "dice"] = np.nan
    assert "3 of 4 cases" in texts(charts.figure_scores(table, {"dice": "Dice"}))


def test_intervals_show_estimate_limits_and_band():
    table = pd.concat([intervals(), intervals(estimate=np.nan, low=np.nan, high=np.nan), intervals(low=-np.inf)])
    figure = charts.figure_intervals(table, label="difference in Dice")
    axes = figure.axes[0]
    assert axes.lines[0].get_xdata().tolist() == [0.05, 0.2]
    assert axes.lines[1].get_xdata().tolist() == [0.1]
    band = axes.collections[0].get_paths()[0].get_extents()
    assert (band.x0, band.x1) == (-0.02, 0.02)
    assert [t for t in texts(axes) if "[" in t or "not" in t] == [
        "+0.100  [+0.050, +0.200]", "not tested", "+0.100  [−inf, +0.200]",
    ]  # fmt: skip
    assert axes.get_xlabel() == "difference in Dice   (grey: margins)"
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row on top
    plain = charts.figure_intervals(intervals(margin_low=np.nan, margin_high=np.nan)).axes[0]
    assert len(plain.collections) == 0
    assert "margins" not in plain.get_xlabel()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: curves.figure_training(history().drop(columns="seed")), "history must have rows.*lacks seed"),
        (lambda: curves.figure_training(history().iloc[:0]), "it has 0 rows"),
        (lambda: charts.figure_scores(scores(), {"hd95": "HD95"}), "per_case must have.*lacks hd95"),
        (lambda: charts.figure_intervals(intervals().drop(columns="low")), "differences must have.*lacks low"),
    ],
)
def test_tables_that_lack_something_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_samples_are_drawn_value_by_value():
    samples = {"A": [[0.6, 0.9, 1.0], [0.7, 0.8, 1.0]], "B": [[0.95, 0.97, 0.99]]}
    axes = audit_figures.figure_samples(samples, "score", (0, 1)).axes[0]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in dots] == [[0.6, 0.9, 1.0], [0.7, 0.8, 1.0], [0.95, 0.97, 0.99]]
    assert [line.get_color() for line in dots] == [style.INK, style.GREY, style.INK]
    means = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "|"]
    assert means == pytest.approx([2.5 / 3, 2.5 / 3, 0.97])
    assert axes.get_xlim()[1] >= 1
    assert [text.get_text()[:6] for text in axes.texts] == ["1 of 3", "1 of 3", "1 of 3"]
    with pytest.raises(ValueError, match="samples must hold at least one sample"):
        audit_figures.figure_samples({"A": []}, "score", (0, 1))


def test_claims_have_a_panel_each_with_their_margin():
    paper = read_paper(Path(__file__).parents[2] / "reproduce" / "paper.yaml")
    rows = [
        {"claim": c.id, "loss": loss, "verdict": "inconclusive", "effect": 0.01 * (i + 1), "low": -0.02, "high": 0.04}
        for c in paper.claims
        for i, loss in enumerate(c.against)
    ]
    figure = replication_figures.figure_claims(paper, pd.DataFrame(rows))
    assert [axes.get_title("left") for axes in figure.axes] == [claim.title for claim in paper.claims]
    for axes, claim in zip(figure.axes, paper.claims, strict=True):
        dots = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "o"]
        assert dots == pytest.approx([0.01 * (i + 1) for i in range(len(claim.against))])
        bands = [patch.get_paths()[0].vertices[:, 0] for patch in axes.collections]
        assert bool(bands) == (claim.margin is not None)
        if claim.margin:
            assert min(bands[0]) == pytest.approx(-claim.margin)
            assert (max(bands[0]) == pytest.approx(claim.margin)) == (claim.test == "equivalence")
    assert "inconclusive" in figure.axes[0].get_yticklabels()[0].get_text()


def test_the_relation_is_drawn_with_what_is_reported():
    paper = read_paper(Path(__file__).parents[2] / "reproduce" / "paper.yaml")
    relation = pd.DataFrame(
        [
            {"dice": x, "boundary_dice": x**2, "structure": s, "correlation_mm": c}
            for x in (0.9, 0.95) for s in ("femur", "mean") for c in (0.0, 2.0)
        ]
    )  # fmt: skip
    axes = audit_figures.figure_relation(relation, paper).axes[0]
    labels = axes.get_legend_handles_labels()[1]
    assert sum(label.startswith("phantom") for label in labels) == 2
    assert sum(label.startswith("source") for label in labels) == 8
    drawn = {
        (round(float(c.lines[0].get_xdata()[0]), 4), round(float(c.lines[0].get_ydata()[0]), 4))
        for c in axes.containers
    }
    assert (0.96, 0.27) in drawn
    assert (0.9642, 0.2883) in drawn
