"""What each biomarker of shape is: unit, definition, source, and when it cannot be measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shapeloss.metrics.mesh import shape_biomarkers

Side = Literal["left", "right"]
BONES = ("femur", "tibia", "patella")
KNEE = "knee"
"""The structure to which the biomarkers of the bones together belong."""


@dataclass(frozen=True)
class BiomarkerDefinition:
    """What a biomarker is. `{side}` in a name stands for medial and lateral."""

    name: str
    unit: str
    bones: tuple[str, ...]
    """The structures that it needs; empty: any structure has it."""
    definition: str
    source: str
    fails: str = ""
    """When it cannot be measured, besides a structure that is absent, or cut by the field of view where it counts."""


_OWN = "this project's rule"
_MAHFOUZ = "Mahfouz et al., Clin Orthop Relat Res 2012, 470:172–185"
_SOURYAL = "Souryal & Freeman, Am J Sports Med 1993, 21:535–539"
_BALDWIN = "Baldwin & House, J Arthroplasty 2005, 20:250–257"
NO_NOTCH = "no notch opens below the middle of that section"

SHAPE_BIOMARKERS = (
    BiomarkerDefinition("volume_cm3", "cm³", (), "voxels times their volume", "–"),
    BiomarkerDefinition("surface_cm2", "cm²", (), "area of the smooth surface; cuts are left out", "–"),
    BiomarkerDefinition("sphericity", "1", (), "π^(1/3) (6 V)^(2/3) / A, cuts closed", "Wadell, J Geol 1935, 43:250"),
    BiomarkerDefinition("extent_x_mm", "mm", (), "side of the box around the voxels, along X (left to right)", "–"),
    BiomarkerDefinition("extent_y_mm", "mm", (), "the same along Y (posterior to anterior)", "–"),
    BiomarkerDefinition("extent_z_mm", "mm", (), "the same along Z (inferior to superior)", "–"),
    BiomarkerDefinition(
        "inscribed_radius_mm", "mm", (), "largest distance from a voxel's centre inside to the nearest outside", "–"
    ),
)  # fmt: skip
"""Of any structure: see :func:`shapeloss.metrics.mesh.shape_biomarkers`."""

KNEE_BIOMARKERS = (
    BiomarkerDefinition(
        "bicondylar_width_mm",
        "mm",
        ("femur",),
        "mediolateral extent of the coronal section in which the notch is measured",
        _SOURYAL,
        NO_NOTCH,
    ),
    BiomarkerDefinition(
        "notch_width_mm",
        "mm",
        ("femur",),
        "inner distance of the condyles in the coronal section 40 % of the femur's depth in front of the posterior "
        "condylar line, at two thirds of the notch's depth (from the condyles' lowest points to the roof)",
        f"{_SOURYAL} (on radiographs, at the popliteal groove, which a label map does not show; the level here is "
        f"{_OWN})",
        NO_NOTCH,
    ),
    BiomarkerDefinition(
        "notch_width_index",
        "1",
        ("femur",),
        "notch width / bicondylar width",
        _SOURYAL,
        NO_NOTCH,
    ),
    BiomarkerDefinition(
        "condyle_width_{side}_mm",
        "mm",
        ("femur",),
        "from the wall of the notch, at the level of its width, to the outer end of the section",
        f"{_OWN}; no published definition was found",
        f"{NO_NOTCH}; side unknown",
    ),
    BiomarkerDefinition(
        "posterior_radius_{side}_mm",
        "mm",
        ("femur",),
        "radius of the least-squares circle of the back of the condyle, from 60° below to 45° above straight back, in "
        "the sagittal section a quarter of the femur's width from the middle",
        "Iwaki, Pinskerova & Freeman, J Bone Joint Surg Br 2000, 82:1189–1195 (flexion facet); section and arc are "
        f"{_OWN}",
        "the back is no arc; side unknown",
    ),
    BiomarkerDefinition(
        "tibial_width_mm", "mm", ("tibia",), "largest mediolateral extent of the tibia", _MAHFOUZ
    ),
    BiomarkerDefinition(
        "plateau_depth_{side}_mm",
        "mm",
        ("tibia",),
        "anteroposterior extent in the sagittal section 27 % of the width from the middle, 12 % of the width below the "
        "plateau",
        f"{_MAHFOUZ}; section and level are {_OWN}",
        "side unknown",
    ),
    BiomarkerDefinition(
        "tibial_slope_{side}_deg",
        "°",
        ("tibia",),
        "angle between the least-squares line of the plateau, over the middle 60 % of its depth in the same section, "
        "and the perpendicular of the tibia's axis; falling backwards is positive",
        "Hashemi et al., J Bone Joint Surg Am 2008, 90:2724–2734, who join the plateau's peaks, and the middles of the "
        "shaft's depth in one section; the fitted line, and the axis through the centres of cross-sections, 35–55 % of "
        f"the width below the plateaus, are {_OWN}",
        "side unknown; the shaft is not in view down to that level",
    ),
    BiomarkerDefinition(
        "patellar_width_mm", "mm", ("femur", "patella"), "extent across height and thickness", _BALDWIN
    ),
    BiomarkerDefinition(
        "patellar_height_mm",
        "mm",
        ("femur", "patella"),
        "extent along the femur's axis, made perpendicular to the thickness",
        _BALDWIN,
    ),
    BiomarkerDefinition(
        "patellar_thickness_mm",
        "mm",
        ("femur", "patella"),
        "extent along the axis in which the patella's volume spreads least",
        _BALDWIN,
    ),
    BiomarkerDefinition(
        "insall_salvati_ratio",
        "1",
        ("femur", "tibia", "patella"),
        "distance from the patella's lowest point to the tibial tuberosity / patellar height. The tuberosity is "
        "where the tibia's front stands out, by 1 mm or more, from the line between 22 % and 60 % of the width below "
        "the plateaus: the middle of the part that does so by more than half as much",
        "Insall & Salvati, Radiology 1971, 101:101–104; that the tuberosity stands for the tendon's insertion, which a "
        f"label map does not show, is {_OWN}",
        "no tuberosity stands out; the front is not in view down to that level",
    ),
)  # fmt: skip
"""Of the knee's bones."""


@dataclass(frozen=True)
class Measurement:
    """A biomarker's value, in its unit; NaN with the reason where it cannot be measured."""

    value: float
    reason: str = ""


def biomarker_names(side: Side | None) -> dict[str, BiomarkerDefinition]:
    """Name → definition of the knee's biomarkers, in the order of the table.

    Args:
        side: of the knee; None names the sides "towards_left" and "towards_right" (of the patient).
    """
    names = ("towards_left", "towards_right") if side is None else ("medial", "lateral")
    return {
        definition.name.format(side=name): definition
        for definition in KNEE_BIOMARKERS
        for name in (names if "{side}" in definition.name else ("",))
    }


def biomarker_unit(name: str) -> str:
    """The unit of a biomarker of either table, by its name."""
    named = {d.name: d for d in SHAPE_BIOMARKERS} | biomarker_names(None) | biomarker_names("left")
    return named[name].unit


def structure_biomarkers(mask: NDArray[Any], spacing: tuple[float, float, float]) -> dict[str, Measurement]:
    """The biomarkers of :data:`SHAPE_BIOMARKERS` for one structure (X, Y, Z), in their order."""
    if not mask.any():
        return {d.name: Measurement(float("nan"), "it is empty") for d in SHAPE_BIOMARKERS}
    found = shape_biomarkers(mask, spacing)
    values = (found.volume_cm3, found.surface_cm2, found.sphericity, *found.extents_mm, found.inscribed_radius_mm)
    return {
        definition.name: Measurement(value, "" if np.isfinite(value) else "it fills the volume")
        for definition, value in zip(SHAPE_BIOMARKERS, values, strict=True)
    }


def biomarker_table() -> str:
    """The definitions as a Markdown table."""
    lines = ["| biomarker | unit | needs | definition | source | not measurable |", "|---|---|---|---|---|---|"]
    for definition in (*SHAPE_BIOMARKERS, *KNEE_BIOMARKERS):
        name = definition.name.format(side="medial")
        names = f"`{name}`" if "{side}" not in definition.name else f"`{name}`, `{name.replace('medial', 'lateral')}`"
        needs = ", ".join(definition.bones) or "any structure"
        cells = [names, definition.unit, needs, definition.definition, definition.source, definition.fails or "–"]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)
