"""Figures of made-up shapes, compared with pictures that were looked at.

After a change that is meant, `python tests/plotting/test_pictures.py` draws them again: look at each before it is
committed.
"""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pyvista as pv
from PIL import Image

from shapeloss.distance import distance_penalty
from shapeloss.plotting.agreement import figure_agreement, figure_surface_values
from shapeloss.plotting.distances import figure_calibration, figure_regressed_distances
from shapeloss.plotting.population_maps import figure_population
from shapeloss.plotting.render import POSTERIOR
from shapeloss.plotting.slices import figure_distance_maps, figure_variants
from shapeloss.plotting.surface_maps import figure_surface_errors

PICTURES = Path(__file__).with_name("pictures")
SAME = 3.0
"""Root mean square difference of colours (0 to 255): other versions of libraries draw edges a little otherwise."""
SPACING = (3.0, 1.0, 1.0)


def two_balls():
    """(12, 36, 30): a ball of label 1 above one of label 2."""
    x, y, z = np.meshgrid(*(np.arange(n) * s for n, s in zip((12, 36, 30), SPACING, strict=True)), indexing="ij")
    labels = np.zeros(x.shape, np.uint8)
    labels[(x - 17) ** 2 + (y - 18) ** 2 + (z - 21) ** 2 < 8**2] = 1
    labels[(x - 17) ** 2 + (y - 16) ** 2 + (z - 7) ** 2 < 6**2] = 2
    return labels


def ellipsoid(value):
    """Longer from left to right; `value` of its (n, 3) points, as shares of its half axes."""
    mesh = pv.ParametricEllipsoid(20, 12, 14).triangulate()
    mesh["value"] = mesh["error_mm"] = value(mesh.points / (20, 12, 14))
    return mesh


def variants(sign):
    labels = two_balls()
    maps = {
        "compartment": distance_penalty(labels, SPACING),
        "inside": distance_penalty(labels, SPACING, sides="inside"),
        "mm": distance_penalty(labels, SPACING, unit="mm"),
    }
    return figure_variants({k: m if sign > 0 else m.max() - m for k, m in maps.items()}, labels, SPACING, in_mm=["mm"])


def distance_maps(sign):
    labels = two_balls()
    phi = distance_penalty(labels, SPACING)
    phi = phi if sign > 0 else 1 - phi
    image = np.where(labels, 0.2, 0.6) + 0.01 * np.arange(30)
    return figure_distance_maps(image, labels, [phi] * 3, phi, SPACING, {1: "upper", 2: "lower"})


def regressed(sign):
    labels = two_balls()
    z = np.broadcast_to(np.arange(30.0) - 15, labels.shape)
    return figure_regressed_distances(labels, labels, z, {"mtl": sign * 0.8 * z}, SPACING, 10.0, "ball, seed 0")


def calibration(sign):
    bins = np.arange(-5.5, 6)
    rows = [
        {"loss": loss, "seed": 0, "case": case, "bin": b, "regressed": b, "truth": sign * slope * b + 0.2 * case}
        for loss, slope in (("mtl", 1.0), ("mtl_learned", 1.3))
        for case in range(3)
        for b in bins
    ]
    return figure_calibration(pd.DataFrame(rows))


def agreement(sign):
    rng = np.random.default_rng(0)
    rows = [
        {"case": case, "loss": loss, "structure": "knee", "biomarker": "notch_width_mm", "truth": 15 + 0.4 * case}
        | {"prediction": 15 + 0.4 * case + sign * (bias + rng.normal(0, 0.4))}
        for loss, bias in (("dpce", 0.1), ("ce", 0.9))
        for case in range(10)
    ]
    return figure_agreement(pd.DataFrame(rows), [("knee", "notch_width_mm")])


def signed_values(sign):
    mesh = ellipsoid(lambda p: sign * 0.15 * p[:, 0])
    return figure_surface_values({"from left to right": (mesh, "value")}, 0.15, "1/mm", POSTERIOR, "An ellipsoid.")


def surface_errors(sign):
    large_above = ellipsoid(lambda p: 1.5 * (1 + sign * p[:, 2]))
    return figure_surface_errors({"dpce": [large_above], "ce": [ellipsoid(lambda p: 3 - 1.5 * (1 + sign * p[:, 2]))]})


def population(sign):
    mesh = ellipsoid(lambda p: p[:, 0])
    side = sign * mesh["value"]
    means = {"femur": {"dpce": 1 + 0.9 * side, "ce": np.where(np.abs(side) < 0.3, np.nan, 1 - 0.9 * side)}}
    differences = {"femur": {"dpce": (1.8 * side, np.abs(side) > 0.8)}}
    missed = {("femur", "dpce"): 0, ("femur", "ce"): 2}
    return figure_population({"femur": mesh}, means, differences, missed, "ce", 10, POSTERIOR, "Made up.")


FIGURES = {
    f.__name__: f
    for f in (variants, distance_maps, regressed, calibration, agreement, signed_values, surface_errors, population)
}


def drawn(name, sign=1):
    """At a quarter of its size."""
    with Image.open(io.BytesIO(FIGURES[name](sign)._repr_png_())) as image:
        return image.convert("RGB").reduce(4)


def apart(first, second):
    if first.size != second.size:
        return np.inf
    return np.sqrt(np.mean((np.asarray(first, dtype=float) - np.asarray(second, dtype=float)) ** 2))


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_the_picture_that_was_looked_at_and_not_its_opposite(name):
    """The opposite (left for right, small for large) shows that the comparison sees what matters."""
    with Image.open(PICTURES / f"{name}.png") as looked_at:
        assert apart(drawn(name), looked_at) < SAME
        assert apart(drawn(name, -1), looked_at) > SAME


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for name in FIGURES:
        drawn(name).save(PICTURES / f"{name}.png", optimize=True)
