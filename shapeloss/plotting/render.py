"""Pictures of meshes, drawn off screen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyvista as pv
from matplotlib.colors import Colormap
from numpy.typing import NDArray

POSTERIOR = (0.0, -1.0, 0.0)
"""The direction from the structures to someone behind them, in RAS."""


def view_plane(direction: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The unit vectors that point right and up in a picture seen from `direction` (RAS), superior up."""
    towards = np.asarray(direction, dtype=np.float64)
    if towards.shape != (3,) or not np.linalg.norm(towards) > 0:
        raise ValueError(f"direction must be a vector (x, y, z) from the structures to the viewer, got {direction!r}")
    towards = towards / np.linalg.norm(towards)
    above = np.array([0.0, 1.0, 0.0] if abs(towards[2]) > 0.99 else [0.0, 0.0, 1.0])
    right = np.cross(above, towards)
    right /= np.linalg.norm(right)
    return right, np.cross(towards, right)


def widest_view(meshes: Sequence[pv.PolyData]) -> tuple[float, float, float]:
    """Of the views from behind, from the right and from above, the one in which the meshes have the largest outline.

    What lies behind something else does not count. Of outlines that are equal to 5 %, the first is taken.
    """
    points = np.concatenate([np.zeros((0, 3)), *(mesh.points for mesh in meshes)])
    if not len(points):
        return POSTERIOR
    low, side = points.min(axis=0), max(float(np.ptp(points, axis=0).max()), 1e-6)
    cells = ((points - low) * (64 / side)).astype(np.int64)
    views = {POSTERIOR: (0, 2), (1.0, 0.0, 0.0): (1, 2), (0.0, 0.0, 1.0): (0, 1)}
    outline = {view: len(np.unique(cells[:, axes], axis=0)) for view, axes in views.items()}
    return next(view for view, area in outline.items() if area >= 0.95 * max(outline.values()))


def render_surfaces(
    meshes: Sequence[pv.PolyData],
    frame: Sequence[pv.PolyData],
    scalars: str,
    limits: tuple[float, float],
    colormap: Colormap,
    direction: Sequence[float],
    longest_side: int = 1200,
) -> tuple[NDArray[np.uint8], tuple[float, float, float, float]]:
    """A picture of meshes in parallel projection, off screen, coloured by the absolute value of a point array.

    Args:
        meshes: what to draw.
        frame: what the picture must have room for: with the same frame, pictures have the same scale and place.
        scalars: name of the point array.
        limits: values at the two ends of the colour map.
        colormap: from the lower to the upper limit; values beyond take its ends.
        direction: from the structures to the viewer, in RAS.
        longest_side: pixels.

    Returns:
        (H, W, 3) pixels, and (left, right, bottom, top) in mm: the coordinates of a world point p are p·right and p·up
        with the vectors of :func:`view_plane`.
    """
    right, up = view_plane(direction)
    towards = np.cross(right, up)
    points = np.concatenate([mesh.points for mesh in frame])
    across, along, deep = points @ right, points @ up, points @ towards
    left, width = across.min() - 3, np.ptp(across) + 6  # mm of room around
    bottom, height = along.min() - 3, np.ptp(along) + 6
    size = [max(round(side * longest_side / max(width, height)), 1) for side in (width, height)]
    far = max(1000.0, float(np.ptp(deep)))  # mm from the middle to the viewer
    middle = (left + width / 2) * right + (bottom + height / 2) * up + (deep.min() + np.ptp(deep) / 2) * towards
    with pv.vtk_verbosity("off"):  # without a display VTK warns, then draws all the same
        plotter = pv.Plotter(off_screen=True, window_size=size, lighting="none")
        plotter.background_color = pv.Color("white")
        for mesh in meshes:
            bare = pv.PolyData.from_regular_faces(mesh.points, mesh.regular_faces)
            bare["value"] = np.abs(mesh[scalars])
            plotter.add_mesh(
                bare, scalars="value", cmap=colormap, clim=limits, smooth_shading=True, show_scalar_bar=False,
                ambient=0.25, diffuse=0.8, specular=0.12, specular_power=12,
            )  # fmt: skip
        for place, intensity in ((towards + 0.9 * up - 0.6 * right, 0.75), (towards - 0.3 * up + 0.9 * right, 0.35)):
            plotter.add_light(pv.Light(position=middle + far * place, focal_point=middle, intensity=intensity))
        plotter.camera.parallel_projection = True
        plotter.camera.focal_point = middle
        plotter.camera.position = middle + far * towards
        plotter.camera.up = up
        plotter.camera.parallel_scale = height / 2
        plotter.camera.clipping_range = (1, 2 * far)
        plotter.enable_anti_aliasing("ssaa")
        picture = np.asarray(plotter.screenshot(None, return_img=True))[..., :3].copy()
        plotter.close()
    return picture, (left, left + width, bottom, bottom + height)
