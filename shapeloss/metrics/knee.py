"""The biomarkers of the knee's bones, measured; :mod:`shapeloss.metrics.biomarkers` defines them.

Every length is taken in the bone's own frame, which follows it under any turn of up to about 15° from the scanner's
axes. Levels are shares of the bone's width, so that a small knee is measured where a large one is. What cannot be
measured is NaN with a reason. Whether the knee is a left or a right one does not show in femur, tibia and patella: it
must be said, or the two sides are named by where they face.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from shapeloss.metrics.biomarkers import (
    BONES,
    KNEE,
    KNEE_BIOMARKERS,
    NO_NOTCH,
    Measurement,
    Side,
    biomarker_names,
    structure_biomarkers,
)
from shapeloss.metrics.sections import Bone, LabelBone, NotMeasurable, Section, Vector, extent, extreme

Part = Callable[[Vector], NDArray[np.bool_]]

FEMUR_SHAFT = (0.60, 0.80)
"""Heights above the lowest point, in widths of the femur, between which its axis is taken."""
TIBIA_SHAFT = (0.35, 0.55)
"""Depths below the plateaus, in widths of the tibia, likewise."""
CUT_DEPTH = 0.12
"""Depth below a plateau, in widths of the tibia, at which its depth is taken: 9 mm at a width of 76 mm."""
CONDYLES = 0.60
"""Height above the lowest point, in widths of the femur, below which the condyles lie."""
NOTCH_PLANE, NOTCH_LEVEL = 0.4, 2 / 3
"""Where the notch is measured: share of the femur's depth from the back, and of the notch's depth from below."""
CONDYLE, PLATEAU = 0.25, 0.27
"""Distance of the sagittal sections of condyles and plateaus from the middle, in widths of the bone."""
APART = 0.1
"""Distance from the middle, in widths of the femur, beyond which the condyles' lowest and hindmost points lie."""
ARC = (-60.0, 45.0)
"""Degrees from straight back, below and above, between which the circle of a posterior condyle is fitted."""
TUBEROSITY = (0.22, 0.60)
"""Depths below the plateaus, in widths of the tibia, between which the tuberosity is looked for."""
PROMINENCE_MM = 1.0
"""How far the tuberosity must stand out from the line between the two."""
_ROUNDS = 8  # in which the axes settle


@dataclass(frozen=True)
class _Frame:
    """A bone's axes: unit vectors towards the patient's right, forwards and up, at right angles."""

    right: Vector
    forward: Vector
    up: Vector

    def world(self, along_right: float, along_forward: float, along_up: float) -> Vector:
        """The world point of these coordinates."""
        return along_right * self.right + along_forward * self.forward + along_up * self.up


@dataclass(frozen=True)
class _Femur:
    """A femur's axes, its width below the shaft, and the height of its lowest point."""

    frame: _Frame
    width: float
    low: float


@dataclass(frozen=True)
class _Tibia:
    """A tibia's axes, its width, and the point amid its plateaus."""

    frame: _Frame
    width: float
    place: Vector


def side_of(landmarks: Mapping[str, Sequence[float]]) -> Side | None:
    """The side of a knee, from world points (RAS) whose names begin with "medial" and "lateral"; None without both.

    >>> side_of({"medial_plateau": (-20, 0, 0), "lateral_plateau": (20, 0, 0)})
    'right'
    """
    medial, lateral = (
        [point[0] for name, point in landmarks.items() if name.startswith(word)] for word in ("medial", "lateral")
    )
    if not medial or not lateral:
        return None
    return "right" if np.mean(lateral) > np.mean(medial) else "left"


def all_biomarkers(
    labels: NDArray[Any], affine: NDArray[np.float64], classes: Mapping[int, str], side: Side | None = None
) -> dict[tuple[str, str], Measurement]:
    """(structure, biomarker) → value: those of each structure, and of a knee (structure "knee") if a bone is named.

    Arguments as for :func:`knee_biomarkers`.
    """
    spacing = _spacing(affine)
    found = {
        (name, biomarker): value
        for label, name in classes.items()
        for biomarker, value in structure_biomarkers(labels == label, spacing).items()
    }
    if {name.lower() for name in classes.values()} & set(BONES):
        found |= {(KNEE, biomarker): v for biomarker, v in knee_biomarkers(labels, affine, classes, side).items()}
    return found


def _spacing(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (float(step) for step in np.linalg.norm(affine[:3, :3], axis=0))
    return x, y, z


def knee_biomarkers(
    labels: NDArray[Any], affine: NDArray[np.float64], classes: Mapping[int, str], side: Side | None = None
) -> dict[str, Measurement]:
    """The biomarkers of :data:`KNEE_BIOMARKERS` for a label map.

    Of each bone the largest connected part is measured: an island elsewhere is no part of the bone's shape.

    Args:
        labels: (X, Y, Z) integers.
        affine: (4, 4) voxel → world mm, RAS.
        classes: label → name; femur, tibia and patella are found by name, in any case of letters.
        side: "left" or "right"; None leaves medial and lateral unnamed.
    """
    bones: dict[str, Bone | str] = {}
    for name in BONES:
        label = next((label for label, other in classes.items() if other.lower() == name), None)
        try:
            if label is None:
                raise NotMeasurable("no structure has this name")
            bones[name] = LabelBone(labels == label, _spacing(affine), np.asarray(affine, dtype=float))
        except NotMeasurable as error:
            bones[name] = f"{name}: {error}"
    return measure_bones(bones, side)


def measure_bones(bones: Mapping[str, Bone | str], side: Side | None = None) -> dict[str, Measurement]:
    """The biomarkers of three bones, whatever their surfaces are made from.

    Args:
        bones: femur, tibia and patella; a text instead says why a bone cannot be measured.
        side: "left" or "right", or None.

    Returns:
        Name → value, for each of :func:`biomarker_names`.
    """
    if side not in ("left", "right", None):
        raise ValueError(f"side must be 'left', 'right' or None, got {side!r}")
    # facing the patient's left and right
    facing = {"right": ("medial", "lateral"), "left": ("lateral", "medial"), None: ("towards_left", "towards_right")}[
        side
    ]
    femur, tibia, patella = (bones[name] for name in BONES)
    thigh, shin = _attempt(_femur_frame, "femur", femur), _attempt(_tibia_frame, "tibia", tibia)
    axes = _attempt(lambda bone, frame: _patella_axes(bone, frame.frame.up), "patella", patella, thigh)
    measured: dict[str, float | str] = {}
    for name, found in (
        ("femur", _attempt(lambda bone, frame: _measure_femur(bone, frame, facing), "femur", femur, thigh)),
        ("tibia", _attempt(lambda bone, frame: _measure_tibia(bone, frame, facing), "tibia", tibia, shin)),
        ("patella", _attempt(_measure_patella, "patella", patella, axes)),
        ("ratio", _attempt(_measure_ratio, "tibia", tibia, shin, patella, axes)),
    ):
        own = {n for n, d in biomarker_names(side).items() if _MEASURED_WITH[d.name] == name}
        measured |= dict.fromkeys(own, found) if isinstance(found, str) else found
    return {
        name: Measurement(float("nan"), value) if isinstance(value := measured[name], str) else Measurement(value)
        for name in biomarker_names(side)
    }


_MEASURED_WITH = {d.name: "ratio" if len(d.bones) == 3 else d.bones[-1] for d in KNEE_BIOMARKERS}


def _attempt(function: Callable[..., Any], name: str, *arguments: Any) -> Any:
    """What a function returns; or why it cannot be called or answer, as a text that begins with a bone's name."""
    for argument in arguments:
        if isinstance(argument, str):
            return argument
    try:
        return function(*arguments)
    except NotMeasurable as error:
        return f"{name}: {error}"


def _femur_frame(bone: Bone) -> _Femur:
    """The femur's axes and what its levels are shares of.

    Seen from the front, right is the line through the lowest points of the two condyles; from above, it is the
    posterior condylar line. Up is the line through the middles of the shaft's depth in the middle sagittal section.
    """
    right, forward, up = np.eye(3)
    width = float(np.ptp(extent(bone, right)))
    for _ in range(_ROUNDS):
        low, middle, width = _below_the_shaft(bone, right, up, width)
        condyles = _below(up, low + CONDYLES * width)
        low_line, back_line = (
            extreme(bone, -way, _both(condyles, _beyond(right, middle + APART * width)))
            - extreme(bone, -way, _both(condyles, _beyond(-right, APART * width - middle)))
            for way in (up, forward)
        )
        right = right + up * (low_line @ up) / (low_line @ right)
        right = right + forward * (back_line @ forward) / (back_line @ right)
        right, forward, up = _settled(right, up)
        low, middle, width = _below_the_shaft(bone, right, up, width)
        sagittal = bone.section(middle * right, forward, up)
        up = up + forward * _lean(sagittal, low + width * np.linspace(*FEMUR_SHAFT, 9))
        right, forward, up = _settled(right, up)
    low, _, width = _below_the_shaft(bone, right, up, width)
    return _Femur(_Frame(right, forward, up), width, low)


def _below_the_shaft(bone: Bone, right: Vector, up: Vector, width: float) -> tuple[float, float, float]:
    """Height of the lowest point, and middle and width below the shaft."""
    low = float(extreme(bone, -up) @ up)
    least, most = extent(bone, right, _below(up, low + CONDYLES * width))
    return low, float(least + most) / 2, float(most - least)


def _below(up: Vector, height: float) -> Part:
    return lambda points: np.asarray(points @ up < height)


def _beyond(direction: Vector, value: float) -> Part:
    return lambda points: np.asarray(points @ direction > value)


def _both(one: Part, other: Part) -> Part:
    return lambda points: one(points) & other(points)


def _settled(right: Vector, up: Vector) -> tuple[Vector, Vector, Vector]:
    """Unit vectors at right angles: right stays, up as near as it can be."""
    right = right / np.linalg.norm(right)
    up = up - up @ right * right
    up = up / np.linalg.norm(up)
    return right, np.cross(up, right), up


def _lean(sagittal: Section, heights: Vector) -> float:
    """How far the middle of the shaft's depth moves forwards with each mm upwards."""
    middles = []
    for height in heights:
        walls = sagittal.crossings(1, height)
        if len(walls) != 2:
            raise NotMeasurable("too little of its shaft is in view for its axis")
        middles.append(walls.mean())
    return float(np.polyfit(heights, middles, 1)[0])


def _measure_femur(bone: Bone, femur: _Femur, facing: tuple[str, str]) -> dict[str, float]:
    frame, width, low = femur.frame, femur.width, femur.low
    condyles = _below(frame.up, low + CONDYLES * width)
    back, front = extent(bone, frame.forward, condyles)
    least, most = extent(bone, frame.right, condyles)
    middle = (least + most) / 2
    place = back + NOTCH_PLANE * (front - back)
    coronal = bone.section(place * frame.forward, frame.right, frame.up)
    points = coronal.points[coronal.points[:, 1] < low + CONDYLES * width]
    halves = points[points[:, 0] < middle], points[points[:, 0] > middle]
    roofs = coronal.crossings(0, middle)
    if not len(roofs) or not all(map(len, halves)):
        raise NotMeasurable(NO_NOTCH)
    base = float(np.mean([half[:, 1].min() for half in halves]))
    if roofs[0] < base + 0.03 * width:
        raise NotMeasurable(NO_NOTCH)
    walls = coronal.crossings(1, base + NOTCH_LEVEL * (roofs[0] - base))
    left, right = walls[walls < middle], walls[walls > middle]
    outer = points[points[:, 0].argmin()], points[points[:, 0].argmax()]
    if not len(left) or not len(right) or any(bone.is_cut(frame.world(u, place, v)) for u, v in outer):
        raise NotMeasurable("the field of view cuts it there")
    notch, whole = right[0] - left[-1], outer[1][0] - outer[0][0]
    values = {"bicondylar_width_mm": whole, "notch_width_mm": notch, "notch_width_index": notch / whole}
    values |= {f"condyle_width_{facing[0]}_mm": left[-1] - outer[0][0]}
    values |= {f"condyle_width_{facing[1]}_mm": outer[1][0] - right[0]}
    for name, share in zip(facing, (-CONDYLE, CONDYLE), strict=True):
        sagittal = bone.section((middle + share * width) * frame.right, frame.forward, frame.up)
        values[f"posterior_radius_{name}_mm"] = _posterior_radius(sagittal, low + CONDYLES * width, width)
    return {name: float(value) for name, value in values.items()}


def _posterior_radius(section: Section, top: float, width: float) -> float:
    """Radius of the circle about the back of a condyle's section (u forwards, v up), below a height."""
    below = section.points[section.points[:, 1] < top]
    centre = below[np.argmin(below[:, 0])] + [0.25 * width, 0]
    angles = np.deg2rad(np.linspace(*ARC, 71))
    directions = np.stack([-np.cos(angles), np.sin(angles)], axis=1)
    for _ in range(50):
        arc = section.rays(centre, directions)
        u, v, radius = _circle(arc)
        moved = np.linalg.norm(centre - (u, v))
        if radius > width:
            break
        centre = np.array([u, v])
        if moved < 1e-3:
            return radius
    raise NotMeasurable("the back of its condyle is no arc of a circle")


def _circle(points: Vector) -> tuple[float, float, float]:
    """Centre and radius of the circle with the least squared distance from points (n, 2)."""
    middle = points.mean(axis=0)
    start = [*middle, np.linalg.norm(points - middle, axis=1).mean()]

    def residuals(circle: Vector) -> Vector:
        return np.asarray(np.hypot(points[:, 0] - circle[0], points[:, 1] - circle[1]) - circle[2])

    u, v, radius = optimize.least_squares(residuals, start).x
    return float(u), float(v), float(radius)


def _tibia_frame(bone: Bone) -> _Tibia:
    """The tibia's axes and what its levels are shares of.

    Seen from the front, right is the line through the middles of the two plateaus; from above, it is the long axis of
    the cross-section below them. Up is the line through the centres of the shaft's cross-sections.
    """
    right, forward, up = np.eye(3)
    width = float(np.ptp(extent(bone, right)))
    below = (float(extreme(bone, up) @ up) - 0.25 * width) * up
    u, v = bone.section(below, right, forward).centroid
    place = below + u * right + v * forward
    for _ in range(_ROUNDS):
        width, place = _amid_the_plateaus(bone, _Frame(right, forward, up), place)
        tops = [_plateau_section(bone, _Frame(right, forward, up), place, width, side)[1] for side in (-1, 1)]
        u, v = bone.section(place - CUT_DEPTH * width * up, right, forward).long_axis
        right = right + up * (tops[1] - tops[0]) / (2 * PLATEAU * width) + forward * v / u
        right, forward, up = _settled(right, up)
        width, place = _amid_the_plateaus(bone, _Frame(right, forward, up), place)
        up = up + forward * _lean_of_centres(bone, _Frame(right, forward, up), place, width)
        right, forward, up = _settled(right, up)
    width, place = _amid_the_plateaus(bone, _Frame(right, forward, up), place)
    return _Tibia(_Frame(right, forward, up), width, place)


def _lean_of_centres(bone: Bone, frame: _Frame, place: Vector, width: float) -> float:
    """How far the centre of the shaft's cross-sections moves forwards with each mm upwards.

    The middles of one sagittal section would move with its two walls and with the place of the section: at voxels of
    3.4 mm such an axis was up to 5.4° off, and turned both slopes with it.
    """
    heights, centres = place @ frame.up - width * np.linspace(*TIBIA_SHAFT, 5), []
    for height in heights:
        across = bone.section(height * frame.up, frame.right, frame.forward)
        if not across.is_closed:
            raise NotMeasurable("too little of its shaft is in view for its axis")
        centres.append(across.centroid[1])
    return float(np.polyfit(heights, centres, 1)[0])


def _amid_the_plateaus(bone: Bone, frame: _Frame, place: Vector) -> tuple[float, Vector]:
    """The width, and the point in its middle, in the middle of the head's depth, at the height of the plateaus.

    `place` is near that point.
    """
    least, most = extent(bone, frame.right)
    width, middle = float(most - least), float(least + most) / 2
    across = bone.section(place - CUT_DEPTH * width * frame.up, frame.right, frame.forward)
    if not across.is_closed:
        raise NotMeasurable("the field of view cuts it there")
    ahead = float(across.points[:, 1].min() + across.points[:, 1].max()) / 2
    place = frame.world(middle, ahead, 0)
    height = np.mean([_plateau_section(bone, frame, place, width, side)[1] for side in (-1, 1)])
    return width, place + float(height) * frame.up


def _plateau_section(bone: Bone, frame: _Frame, place: Vector, width: float, side: int) -> tuple[Section, float]:
    """The sagittal section of the plateau on the left (−1) or right (1), and its height beside a point."""
    sagittal = bone.section(place + side * PLATEAU * width * frame.right, frame.forward, frame.up)
    return sagittal, _top(sagittal, float(place @ frame.forward))


def _top(sagittal: Section, ahead: float) -> float:
    """Height of the surface in a sagittal section at a place along forward."""
    heights = sagittal.crossings(0, ahead)
    if not len(heights):
        raise NotMeasurable("a plateau does not reach its middle")
    return float(heights[-1])


def _measure_tibia(bone: Bone, tibia: _Tibia, facing: tuple[str, str]) -> dict[str, float]:
    width = tibia.width
    values = {"tibial_width_mm": width}
    for name, side in zip(facing, (-1, 1), strict=True):
        sagittal, top = _plateau_section(bone, tibia.frame, tibia.place, width, side)
        rim = sagittal.crossings(1, top - CUT_DEPTH * width)
        if len(rim) < 2 or len(rim) % 2:
            raise NotMeasurable("the field of view cuts it there")
        back, depth = rim[0], rim[-1] - rim[0]
        places = back + depth * np.linspace(0.2, 0.8, 25)
        slope = np.polyfit(places, [_top(sagittal, place) for place in places], 1)[0]
        values |= {f"plateau_depth_{name}_mm": float(depth), f"tibial_slope_{name}_deg": np.degrees(np.arctan(slope))}
    return {name: float(value) for name, value in values.items()}


def _tuberosity(bone: Bone, tibia: _Tibia) -> Vector:
    """The point of the tibia's front in the middle of what stands out from the line between two levels of it."""
    frame = tibia.frame
    heights = tibia.place @ frame.up - tibia.width * np.linspace(*TUBEROSITY, 61)
    points = []
    for height in heights:
        section = bone.section(height * frame.up, frame.right, frame.forward)
        if not section.is_closed:
            raise NotMeasurable("too little of its front is in view for the tuberosity")
        u, v = section.points[np.argmax(section.points[:, 1])]
        points.append(frame.world(u, v, height))
    front = np.array(points) @ frame.forward
    out = front - np.linspace(front[0], front[-1], len(front))
    if out.max() < PROMINENCE_MM:
        raise NotMeasurable("no tuberosity stands out")
    # the middle of the part that stands out by more than half as much: the very peak is too flat to be found
    low = np.flatnonzero(out < out.max() / 2)
    peak = int(np.argmax(out))
    first, last = low[low < peak].max() + 1, low[low > peak].min() - 1  # the ends do not stand out
    return points[(first + last) // 2]


def _patella_axes(bone: Bone, up: Vector) -> NDArray[np.float64]:
    """(3, 3): unit vectors along the patella's width, height and thickness.

    Raises:
        NotMeasurable: the patella is cut, or its flat side faces along the femur's axis.
    """
    for direction in (*np.eye(3), *-np.eye(3)):
        extreme(bone, direction)  # refuses a patella that is cut
    thin = np.linalg.eigh(bone.covariance())[1][:, 0]
    height = up - up @ thin * thin
    if np.linalg.norm(height) < 0.5:
        raise NotMeasurable("its flat side faces along the femur's axis")
    height /= np.linalg.norm(height)
    return np.array([np.cross(height, thin), height, thin])


def _measure_patella(bone: Bone, axes: NDArray[np.float64]) -> dict[str, float]:
    names = ("patellar_width_mm", "patellar_height_mm", "patellar_thickness_mm")
    return {name: float(np.ptp(extent(bone, axis))) for name, axis in zip(names, axes, strict=True)}


def _measure_ratio(bone: Bone, tibia: _Tibia, patella: Bone, axes: NDArray[np.float64]) -> dict[str, float]:
    tendon = np.linalg.norm(extreme(patella, -axes[1]) - _tuberosity(bone, tibia))
    return {"insall_salvati_ratio": float(tendon / np.ptp(extent(patella, axes[1])))}
