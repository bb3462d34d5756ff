"""Which point of one case is which point of another, structure by structure.

Phantom knees are made from parameters, which give the answer (:mod:`shapeloss.phantom.correspondence`). Of other data
the signed distance maps of the labels are registered: a similarity (rotation, shift, one scale), then demons
(Vercauteren et al., NeuroImage 2009). An affine transform would leave the pose of a plain shape open: a sheared
ellipsoid is an ellipsoid. How far that is off is measured on the phantom: `reproduce/benchmarks/correspondence.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from shapeloss.data.manifest import Case, Manifest, read_sides
from shapeloss.distance import boundary_distance
from shapeloss.metrics.knee import side_of
from shapeloss.phantom.correspondence import map_points
from shapeloss.replication.surface_errors import read_anatomy, read_landmarks

Points = NDArray[np.floating]
"""(n, 3), world mm (RAS)."""
PointMap = Callable[[Points], Points]

REACH_MM = 10.0
"""Signed distances are cut off here: what is farther from the surface has no part in a registration."""
SAMPLES = 40
"""Along the longest side of the structure, in the grid of a registration."""
_DEMONS, _SMOOTHING = 40, 1.5  # iterations; standard deviation of the displacements' smoothing, in samples


def point_map(manifest: Manifest, template: Case, case: Case, label: int) -> PointMap:
    """The function from points on a structure of the template to the corresponding points of a case, world mm.

    A knee and a template of the other side are mirror images; the side is that of the import or of the landmarks. A
    case without a known side is taken as it is.

    Raises:
        ValueError: the template or the case lacks the structure.
    """
    if case.name == template.name:
        return _same
    bones = [read_anatomy(manifest, one.name) for one in (template, case)]
    if bones[0] is not None and bones[1] is not None:
        return partial(map_points, source=bones[0].bones[label - 1], target=bones[1].bones[label - 1])
    sides = [_side(manifest, one.name) for one in (template, case)]
    return register(template, case, label, mirrored=None not in sides and sides[0] != sides[1])


def _same(points: Points) -> Points:
    return points


def is_phantom(manifest: Manifest) -> bool:
    """Whether :func:`point_map` rests on the parameters of the phantom."""
    return read_anatomy(manifest, manifest.names("test")[0]) is not None


def register(template: Case, case: Case, label: int, mirrored: bool = False) -> PointMap:
    """:func:`point_map` by registration of the signed distance maps of the labels.

    Args:
        template: whose points are mapped.
        case: into which.
        label: the structure.
        mirrored: left and right are exchanged first.

    Raises:
        ValueError: the template or the case lacks the structure, or it fills the volume.
    """
    fixed, moving = (_distance_map(one, label) for one in (template, case))
    grid = _grid(fixed)
    mirror = _mirror(moving) if mirrored else sitk.TranslationTransform(3)
    fixed = sitk.Resample(fixed, grid, sitk.Transform(), sitk.sitkLinear, REACH_MM)
    similarity = _similarity(fixed, moving, mirror)
    through = sitk.CompositeTransform([mirror, similarity])  # the last is applied first
    warped = sitk.Resample(moving, fixed, through, sitk.sitkLinear, np.nan)
    values, own = sitk.GetArrayFromImage(warped), sitk.GetArrayFromImage(fixed)
    seen = sitk.GetImageFromArray(np.where(np.isfinite(values), values, own))  # nothing pulls at what only one shows
    seen.CopyInformation(fixed)
    demons = sitk.DiffeomorphicDemonsRegistrationFilter()
    demons.SetNumberOfIterations(_DEMONS)
    demons.SetStandardDeviations(_SMOOTHING)
    field = sitk.Cast(demons.Execute(fixed, seen), sitk.sitkVectorFloat64)
    whole = sitk.CompositeTransform([mirror, similarity, sitk.DisplacementFieldTransform(field)])
    return partial(_transformed, whole, template, case)


def _transformed(transform: sitk.Transform, template: Case, case: Case, points: Points) -> Points:
    """World mm of the template → its mm along the axes of the volume → those of the case → world mm of the case."""
    inside = _voxels(template, points) * template.spacing
    moved = np.array([transform.TransformPoint(point) for point in inside.tolist()]).reshape(-1, 3)
    return (moved / case.spacing) @ case.affine[:3, :3].T + case.affine[:3, 3]


def in_view(case: Case, points: Points) -> NDArray[np.bool_]:
    """Which world points lie within the volume of a case."""
    voxels = _voxels(case, points)
    return np.asarray(((voxels >= -0.5) & (voxels <= np.array(case.labels.shape) - 0.5)).all(axis=1))


def _voxels(case: Case, points: Points) -> Points:
    return (np.asarray(points, dtype=np.float64) - case.affine[:3, 3]) @ np.linalg.inv(case.affine[:3, :3]).T


def _side(manifest: Manifest, name: str) -> str | None:
    return read_sides(manifest.folder).get(name) or side_of(read_landmarks(manifest, name))


def _distance_map(case: Case, label: int) -> sitk.Image:
    """The signed distance of a structure, negative inside, with coordinates in mm along the axes of the volume."""
    mask = case.labels == label
    if not mask.any() or mask.all():
        raise ValueError(
            f"case {case.name}: label {label} is absent or fills the volume; it has no surface to register"
        )
    distance = np.where(mask, -1.0, 1.0) * boundary_distance(mask, case.spacing)
    image = sitk.GetImageFromArray(np.clip(distance, -REACH_MM, REACH_MM).astype(np.float32).T)  # ITK's order: z, y, x
    image.SetSpacing([float(step) for step in case.spacing])
    return image


def _grid(image: sitk.Image) -> sitk.Image:
    """An empty image of even spacing around the structure, no larger than the volume."""
    inside = np.argwhere(sitk.GetArrayViewFromImage(image) < 0)[:, ::-1] * np.array(image.GetSpacing())
    low = np.maximum(inside.min(axis=0) - REACH_MM, 0)
    end = (np.array(image.GetSize()) - 1) * np.array(image.GetSpacing())
    high = np.minimum(inside.max(axis=0) + REACH_MM, end)
    step = float(np.ptp(inside, axis=0).max()) / SAMPLES
    grid = sitk.Image([int(side / step) + 1 for side in high - low], sitk.sitkFloat32)
    grid.SetOrigin(low.tolist())
    grid.SetSpacing([step] * 3)
    return grid


def _mirror(image: sitk.Image) -> sitk.AffineTransform:
    """The transform that exchanges the two ends of an image's first axis, left and right of volumes in RAS."""
    transform = sitk.AffineTransform(3)
    transform.SetMatrix([-1.0, 0, 0, 0, 1, 0, 0, 0, 1])
    transform.SetTranslation([(image.GetSize()[0] - 1) * image.GetSpacing()[0], 0.0, 0.0])
    return transform


def _middle(image: sitk.Image, mirror: sitk.Transform) -> NDArray[np.float64]:
    """The mean place inside a structure, mirrored; a mirror is its own inverse."""
    places = np.argwhere(sitk.GetArrayViewFromImage(image) < 0).mean(axis=0)[::-1]
    point = np.array(image.GetOrigin()) + places * np.array(image.GetSpacing())
    return np.array(mirror.TransformPoint(point.tolist()))


def _similarity(fixed: sitk.Image, moving: sitk.Image, mirror: sitk.Transform) -> sitk.Transform:
    """From the template's coordinates to those of the (mirrored) case, by the mean square of the distances."""
    start = _middle(fixed, sitk.TranslationTransform(3))
    similarity = sitk.Similarity3DTransform()
    similarity.SetCenter(start.tolist())
    similarity.SetTranslation((_middle(moving, mirror) - start).tolist())
    method: Any = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)  # sums in one order: the same result each time
    method.SetMetricAsMeanSquares()
    method.SetMetricFixedMask(sitk.Cast(sitk.Abs(fixed) < 0.95 * REACH_MM, sitk.sitkUInt8))
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(0.5, 0.005, 100, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(similarity, inPlace=True)
    method.Execute(fixed, sitk.Resample(moving, moving, mirror, sitk.sitkLinear, REACH_MM))
    return similarity
