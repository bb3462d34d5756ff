"""What the images of a training were like, and whether a new image is like them: voxel size, slices, grey values.

Images are compared by their own voxel size, as scanned, whatever the profile resamples them to; axes are RAS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import nibabel
import numpy as np

from shapeloss.data.grid import Triple
from shapeloss.data.volume import Volume

SAME = 0.01
"""Voxel sizes that differ by less, relatively, are one: headers round to three digits."""
WARN = 1.1
"""By which factor a voxel may be finer or coarser than those of the training without a word."""
REFUSE = 2.0
"""Beyond this factor an image is refused."""
_AXES = "XYZ"
_PLANES = ("sagittal", "coronal", "axial")


@dataclass(frozen=True)
class Scan:
    """What one image is like."""

    spacing: Triple
    """Its own voxel size in mm along X, Y, Z of RAS."""
    axes: str
    """Where its axes point as stored, such as PIR."""
    low: float
    """1st percentile of its grey values, before they are normalised."""
    high: float
    """99th percentile."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Scan:
        """From the fields as JSON has them."""
        return cls(_triple(values["spacing"]), values["axes"], values["low"], values["high"])


def describe(image: Volume) -> Scan:
    """What an image is like, from its grid and its grey values as stored."""
    low, high = (float(value) for value in np.percentile(image.array, [1, 99]))
    return Scan(image.oriented("RAS").spacing, "".join(nibabel.aff2axcodes(image.affine)), low, high)


@dataclass(frozen=True)
class TrainedOn:
    """What the training images were like, in sum; lies in `run.json`."""

    images: int
    least: Triple
    """Least voxel size in mm along X, Y, Z."""
    largest: Triple
    axes: dict[str, int]
    """Orientation as stored → images; for the record: all are turned to RAS."""
    planes: dict[str, int]
    """Plane of the slices, across the coarsest voxel side → images; an empty name where sides are equally coarse."""
    low: tuple[float, float]
    """Least and largest 1st percentile of the grey values."""
    high: tuple[float, float]
    """The same of the 99th percentile."""

    @classmethod
    def of(cls, scans: list[Scan]) -> TrainedOn:
        """The sum of some images, at least one."""
        spacings = np.array([scan.spacing for scan in scans])
        return cls(
            len(scans),
            _triple(spacings.min(0)),
            _triple(spacings.max(0)),
            _counts([scan.axes for scan in scans]),
            _counts([plane(scan.spacing) for scan in scans]),
            (min(scan.low for scan in scans), max(scan.low for scan in scans)),
            (min(scan.high for scan in scans), max(scan.high for scan in scans)),
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainedOn:
        """What :meth:`to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: anything else.
        """
        return cls(
            int(values["images"]),
            _triple(values["least"]),
            _triple(values["largest"]),
            {str(name): int(count) for name, count in values["axes"].items()},
            {str(name): int(count) for name, count in values["planes"].items()},
            (float(values["low"][0]), float(values["low"][1])),
            (float(values["high"][0]), float(values["high"][1])),
        )

    def to_json(self) -> dict[str, Any]:
        """All fields, for `run.json`."""
        return asdict(self)

    @property
    def one_spacing(self) -> Triple | None:
        """The voxel size of all training images; None where they have several."""
        middle = (np.array(self.least) + self.largest) / 2
        return _triple(middle) if _same(self.least, self.largest) else None

    def resample_to(self, spacing: Triple) -> Triple | None:
        """The voxel size to resample an image to, where the profile states none; None to leave it as it is."""
        one = self.one_spacing
        return None if one is None or _same(spacing, one) else one

    def refusal(self, scan: Scan) -> str:
        """Why an image is refused: its voxel is more than twice as fine or as coarse as any trained; empty if not."""
        if found := self._beyond(scan.spacing, REFUSE * (1 + SAME)):
            return (
                f"has voxels of {size(scan.spacing)} mm, and the network was trained on {self._trained_size} mm: "
                f"{found}; use a network trained on such images, or --any-spacing to segment it all the same"
            )
        return ""

    def warnings(self, scan: Scan) -> list[str]:
        """How an image differs from those of the training, in one line each."""
        lines = []
        if found := self._beyond(scan.spacing, WARN):
            lines.append(f"voxels of {size(scan.spacing)} mm, trained on {self._trained_size} mm: {found}")
        own = plane(scan.spacing)
        if own and self.planes and not {own, ""} & set(self.planes):
            lines.append(f"{own} slices (across the coarsest voxel side), trained on {', '.join(self.planes)} ones")
        own_range, trained = f"{scan.low:g} to {scan.high:g}", f"{self.low[0]:g} to {self.high[1]:g}"
        if not _negative(self.low[0], self.high[1]) and _negative(scan.low, scan.high):
            lines.append(
                f"grey values of {own_range}, trained on {trained}, none of them negative: "
                "another modality such as CT, or normalised before?"
            )
        elif _negative(self.low[1], self.high[0]) and not _negative(scan.low, scan.high):
            lines.append(f"grey values of {own_range}, trained on {trained}: another modality, or shifted?")
        return lines

    @property
    def _trained_size(self) -> str:
        if self.one_spacing:
            return size(self.one_spacing)
        return f"{size(self.least)} to {size(self.largest)}"

    def _beyond(self, spacing: Triple, factor: float) -> str:
        """Along which axes a voxel is finer or coarser than any of the training by more than a factor."""
        parts = []
        for axis, own, least, largest in zip(_AXES, spacing, self.least, self.largest, strict=True):
            if own * factor < least:
                parts.append(f"{least / own:.3g} times finer along {axis}")
            elif own > largest * factor:
                parts.append(f"{own / largest:.3g} times coarser along {axis}")
        return ", ".join(parts)


def plane(spacing: Triple) -> str:
    """The plane of the slices, across the coarsest voxel side; empty where two sides are equally coarse (10 %)."""
    order = np.argsort(spacing)
    return _PLANES[order[2]] if spacing[order[2]] > WARN * spacing[order[1]] else ""


def size(spacing: Triple) -> str:
    """A voxel size in words, without its unit."""
    return " × ".join(f"{value:.4g}" for value in spacing)


def _negative(low: float, high: float) -> bool:
    """Is a part of the grey values negative that is no noise about 0? A tenth of their range."""
    return low < -0.1 * (high - low)


def _same(first: Triple, second: Triple) -> bool:
    return bool(np.allclose(first, second, rtol=SAME, atol=0))


def _counts(values: list[str]) -> dict[str, int]:
    return {value: values.count(value) for value in sorted(set(values))}


def _triple(values: Any) -> Triple:
    x, y, z = (round(float(value), 6) for value in values)
    return x, y, z
