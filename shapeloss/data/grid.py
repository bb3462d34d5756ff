"""From a scan's own grid to the working grid that a network sees, and back: resampling, cropping, intensities.

Everything here follows from the image alone, so that a new image is prepared as the training images were. Axes are RAS.
A label map comes back on the scan's own grid: exactly where only axes were turned and edges cut or padded, by
interpolation of each class where the voxel size changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from shapeloss.data.volume import affine_spacing

Triple = tuple[float, float, float]


def normalise(image: np.ndarray, intensity: str) -> np.ndarray:
    """Grey values of one volume: `zscore` (zero mean, unit SD) or `percentile` (1st to 99th to [0, 1], clipped)."""
    if intensity == "zscore":
        return (image - image.mean()) / max(float(image.std()), 1e-6)
    low, high = np.percentile(image, [1, 99])
    return np.clip((image - low) / max(float(high - low), 1e-6), 0, 1).astype(np.float32)


@dataclass(frozen=True)
class WorkingGrid:
    """How a grid in RAS is turned into the working grid.

    The field of view keeps its centre. It is mirrored if it should be, resampled to `spacing` if there is one, then cut
    or padded on both sides to `size`.
    """

    shape: tuple[int, int, int]
    """Voxels of the scan, in RAS."""
    affine: np.ndarray
    """(4, 4) voxel → world mm of the scan, in RAS."""
    spacing: Triple | None = None
    """Voxel size of the working grid in mm; None keeps the scan's."""
    size: tuple[int, int, int] | None = None
    """Voxels of the working grid; None keeps the whole field of view."""
    mirrored: bool = False
    """Left and right (X) change places first: a left knee becomes a right one."""

    @property
    def zoom(self) -> np.ndarray:
        """Working voxel / scan voxel, along each axis; exactly 1 where nothing is resampled."""
        if self.spacing is None:
            return np.ones(3)
        own = np.array(affine_spacing(self.affine))
        zoom = np.array(self.spacing) / own
        return np.where(np.abs(zoom - 1) < 1e-4, 1.0, zoom)

    @property
    def resampled_shape(self) -> tuple[int, int, int]:
        """Voxels after resampling, before cutting: the field of view to the nearest voxel."""
        x, y, z = (max(1, round(n / step)) for n, step in zip(self.shape, self.zoom, strict=True))
        return x, y, z

    @property
    def offset(self) -> np.ndarray:
        """Where the first resampled voxel lies, in scan voxels: both fields of view have one centre."""
        return (np.array(self.shape) - 1) / 2 - (np.array(self.resampled_shape) - 1) / 2 * self.zoom

    @property
    def cut(self) -> np.ndarray:
        """Voxels cut off before the first one along each axis; negative where the volume is padded."""
        size = self.size or self.resampled_shape
        return np.array([(n - m) // 2 for n, m in zip(self.resampled_shape, size, strict=True)])

    @property
    def working_affine(self) -> np.ndarray:
        """(4, 4) voxel → world mm of the working grid."""
        to_scan = np.diag([*self.zoom, 1.0])
        to_scan[:3, 3] = self.offset + self.cut * self.zoom
        turn = np.eye(4)
        if self.mirrored:
            turn[0, 0], turn[0, 3] = -1.0, self.shape[0] - 1
        return np.asarray(self.affine @ turn @ to_scan)

    def image_to_working(self, image: np.ndarray) -> np.ndarray:
        """Linear interpolation; padding has the volume's least value.

        Args:
            image: (X, Y, Z) on the scan's grid.

        Returns:
            float32, on the working grid.
        """
        image = self._turn(np.asarray(image, dtype=np.float32))
        if not self._same:
            image = ndimage.affine_transform(
                image, self.zoom, self.offset, self.resampled_shape, order=1, mode="nearest"
            )
        return _cut(image, self.cut, self.size or self.resampled_shape, float(image.min()))

    def labels_to_working(self, labels: np.ndarray) -> np.ndarray:
        """The most likely class of each working voxel; padding is background."""
        labels = self._turn(labels)
        if not self._same:
            labels = _resample_labels(labels, self.zoom, self.offset, self.resampled_shape)
        return _cut(labels, self.cut, self.size or self.resampled_shape, 0)

    def labels_to_scan(self, labels: np.ndarray) -> np.ndarray:
        """The inverse: a label map (X, Y, Z) of the working grid on the scan's grid; what was cut off is background."""
        labels = _cut(labels, -self.cut, self.resampled_shape, 0)
        if not self._same:
            labels = _resample_labels(labels, 1 / self.zoom, -self.offset / self.zoom, self.shape)
        return self._turn(labels)

    def _turn(self, array: np.ndarray) -> np.ndarray:
        return np.flip(array, 0).copy("K") if self.mirrored else array

    @property
    def _same(self) -> bool:
        return bool((self.zoom == 1).all())


def _cut(array: np.ndarray, start: np.ndarray, size: Sequence[int], value: float) -> np.ndarray:
    """`size` voxels from `start` on; beyond the array, `value`."""
    if not start.any() and array.shape == tuple(size):
        return array
    result = np.full(tuple(size), value, dtype=array.dtype)
    source, target = [], []
    for first, extent, count in zip(start.tolist(), array.shape, size, strict=True):
        low, high = max(first, 0), min(first + count, extent)
        source.append(slice(low, max(low, high)))
        target.append(slice(low - first, max(low, high) - first))
    result[tuple(target)] = array[tuple(source)]
    return result


def _resample_labels(
    labels: np.ndarray, zoom: np.ndarray, offset: np.ndarray, shape: tuple[int, int, int]
) -> np.ndarray:
    """Each class interpolated linearly, and the largest taken.

    Nearest neighbour would shift boundaries by up to half a voxel and break thin structures; of two classes equally
    likely, the lower label wins, as for `argmax`.
    """
    result = np.zeros(shape, dtype=labels.dtype)
    best = np.full(shape, -1.0, dtype=np.float32)
    for label in np.unique(labels).tolist():
        share = ndimage.affine_transform(
            (labels == label).astype(np.float32), zoom, offset, shape, order=1, mode="nearest"
        )
        better = share > best
        result[better] = label
        best[better] = share[better]
    return result
