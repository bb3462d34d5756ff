"""Shapes whose surface, curvature and biomarkers are known in closed form, as label maps."""

from __future__ import annotations

import numpy as np

RADIUS, RADII, TORUS = 20.0, (22.0, 14.0, 18.0), (15.0, 7.0)
SOLIDS = ("ball", "ellipsoid", "torus")
EULER = {"ball": 2, "ellipsoid": 2, "torus": 0}


def field(kind, x, y, z, grow=0.0):
    """Negative inside; `grow` mm added to the radius of a ball or of a torus' tube."""
    if kind == "ball":
        return x * x + y * y + z * z - (RADIUS + grow) ** 2
    if kind == "torus":
        return (np.hypot(x, y) - TORUS[0]) ** 2 + z * z - (TORUS[1] + grow) ** 2
    return sum((c / r) ** 2 for c, r in zip((x, y, z), RADII, strict=True)) - 1


def solid(kind, spacing, grow=0.0, side=58.0, shift=(0.1, 0.23, 0.37)):
    """A mask that no symmetry of the grid helps, and its centre in mm."""
    counts = [int(side / step) + 1 for step in spacing]
    centre = np.array([((n - 1) / 2 + s) * step for n, s, step in zip(counts, shift, spacing, strict=True)])
    axes = [np.arange(n) * step - c for n, step, c in zip(counts, spacing, centre, strict=True)]
    return field(kind, *np.meshgrid(*axes, indexing="ij"), grow) < 0, centre


def curvature(kind, points):
    """Mean and Gaussian curvature at points about the centre (for the ellipsoid: Goldman's level sets by hand)."""
    x, y, z = np.asarray(points, dtype=float).T
    if kind == "ball":
        return np.full(len(x), 1 / RADIUS), np.full(len(x), 1 / RADIUS**2)
    if kind == "torus":
        big, small = TORUS
        cosine = (np.hypot(x, y) - big) / np.hypot(np.hypot(x, y) - big, z)
        return (big + 2 * small * cosine) / (2 * small * (big + small * cosine)), cosine / (
            small * (big + small * cosine)
        )
    a, b, c = RADII
    h = x**2 / a**4 + y**2 / b**4 + z**2 / c**4
    mean = np.abs(x * x + y * y + z * z - a * a - b * b - c * c) / (2 * (a * b * c) ** 2 * h**1.5)
    return mean, 1 / (a * b * c * h) ** 2


def volume_and_area(kind):
    """mm³ and mm²; the ellipsoid's area by quadrature of its parametrisation."""
    if kind == "ball":
        return 4 / 3 * np.pi * RADIUS**3, 4 * np.pi * RADIUS**2
    if kind == "torus":
        return 2 * np.pi**2 * TORUS[0] * TORUS[1] ** 2, 4 * np.pi**2 * TORUS[0] * TORUS[1]
    a, b, c = RADII
    u, v = np.meshgrid((np.arange(2000) + 0.5) * np.pi / 2000, (np.arange(2000) + 0.5) * np.pi / 1000)
    sin, cos = np.sin(u), np.cos(u)
    element = sin * np.sqrt((b * c * sin * np.cos(v)) ** 2 + (a * c * sin * np.sin(v)) ** 2 + (a * b * cos) ** 2)
    return 4 / 3 * np.pi * a * b * c, element.sum() * (np.pi / 2000) * (np.pi / 1000)


BLOCK_CLASSES = {1: "femur", 2: "tibia", 3: "patella"}
BLOCK_SPACING = (2.0, 1.0, 1.0)
SLOPES = (8.0, 5.0)  # degrees, towards left and right
BLOCK_KNEE = {
    "bicondylar_width_mm": 80.0,
    "notch_width_mm": 20.0,
    "notch_width_index": 0.25,
    "condyle_width_towards_left_mm": 28.0,
    "condyle_width_towards_right_mm": 32.0,
    "posterior_radius_towards_left_mm": 20.0,
    "posterior_radius_towards_right_mm": 20.0,
    "tibial_width_mm": 80.0,
    "plateau_depth_towards_left_mm": 50.0,
    "plateau_depth_towards_right_mm": 50.0,
    "tibial_slope_towards_left_deg": SLOPES[0],
    "tibial_slope_towards_right_deg": SLOPES[1],
    "patellar_width_mm": 44.0,
    "patellar_height_mm": 36.0,
    "patellar_thickness_mm": 18.0,
    "insall_salvati_ratio": np.hypot(27, 48) / 36,  # from (0, 50, 12) to (0, 23, −36), above the plateaus
}
"""What follows for :func:`block_knee` from the lengths in it."""


def block_knee(x, y, z):
    """Femur, tibia and patella from cylinders, boxes and balls, at world points in mm: labels 1, 2, 3.

    The condyles are cylinders of radius 20 along x about (y, z) = (0, 20), with a notch of 20 mm that is not in the
    middle; the plateaus fall backwards by 8° on the left and 5° on the right.
    """
    labels = np.zeros(np.broadcast(x, y, z).shape, np.uint8)
    condyles = (y**2 + (z - 20) ** 2 < 400) & (np.abs(x) < 40) & ~((x > -12) & (x < 8) & (z < 30))
    bridge = (np.abs(x) < 40) & (y > -12) & (y < 20) & (z > 30) & (z < 45)
    shaft = (np.abs(x) < 16) & (np.abs(y) < 15) & (z >= 30)
    labels[condyles | bridge | shaft] = 1
    height = z + 12  # above the plateaus' middle
    top = y * np.tan(np.deg2rad(np.where(x < 0, *SLOPES)))
    head = (np.abs(x) < 40) & (np.abs(y) < 25) & (height < top) & (height > -16)
    stem = (np.abs(x) < 20) & (np.abs(y) < 20) & (height <= -16)
    bump = (x / 6) ** 2 + ((y - 20) / 3) ** 2 + ((height + 36) / 12) ** 2 < 1
    labels[head | stem | bump] = 2
    labels[(x / 22) ** 2 + ((y - 50) / 9) ** 2 + ((height - 30) / 18) ** 2 < 1] = 3
    return labels


def block_labels(spacing=BLOCK_SPACING, turn=None):
    """:func:`block_knee` on a grid, turned about the world's origin by a matrix (3, 3); labels and affine."""
    low, high = np.array([-59.0, -49.5, -71.5]), np.array([59.0, 75.0, 80.0])  # walls lie on the faces of voxels
    shape = np.ceil((high - low) / spacing).astype(int)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = low
    points = np.moveaxis(np.indices(shape), 0, -1) * np.array(spacing) + low
    if turn is not None:
        points = points @ turn  # where the point was before the turn
    return block_knee(*np.moveaxis(points, -1, 0)), affine
